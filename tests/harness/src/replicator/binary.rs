use crate::dev;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;
use std::time::SystemTime;

static BINARY: LazyLock<PathBuf> = LazyLock::new(|| {
    if let Some(path) = std::env::var_os("REPLICATOR_BIN").filter(|path| !path.is_empty()) {
        let path = PathBuf::from(path);
        assert!(path.exists(), "REPLICATOR_BIN is set, but {} is not there", path.display());
        return path;
    }
    let profile_dir = profile_dir();
    let binary = profile_dir.join("replicator");
    if !is_current(&binary, &binary.with_extension("d")) {
        build(&profile_dir);
    }
    binary
});

/// The replicator's binary: `REPLICATOR_BIN`, or the one beside the running test's, which is built first when
/// it is absent or older than its sources.
///
/// # Panics
/// When it cannot be built, with the compiler's words.
pub fn replicator_binary() -> &'static Path {
    &BINARY
}

/// `target/{debug,release,…}` of this executable.
fn profile_dir() -> PathBuf {
    let this = std::env::current_exe().expect("know this executable");
    let dir = this.parent().expect("an executable lies in a folder");
    // Tests and benches lie in deps/ or examples/, binaries beside those.
    if dir.ends_with("deps") || dir.ends_with("examples") {
        dir.join("..").canonicalize().expect("exists")
    } else {
        dir.into()
    }
}

fn build(profile_dir: &Path) {
    let profile = match profile_dir.file_name().and_then(|name| name.to_str()) {
        Some("debug") | None => "dev",
        Some(name) => name,
    };
    eprintln!("building the replicator: absent or older than its sources (REPLICATOR_BIN sets another)");
    let output = Command::new(option_env!("CARGO").unwrap_or("cargo"))
        .args(["build", "--quiet", "-p", "replicator", "--bin", "replicator", "--profile", profile])
        .arg("--target-dir")
        .arg(profile_dir.parent().expect("a profile's folder lies in the target folder"))
        .current_dir(dev::workspace_root())
        .output()
        .expect("run cargo");
    assert!(
        output.status.success(),
        "the replicator does not build:\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Whether `binary` is there and newer than everything that `dep_info` says it is made from.
///
/// Format: `binary: source source …`, spaces in names escaped with a backslash; see
/// <https://doc.rust-lang.org/cargo/reference/build-cache.html#dep-info-files>.
fn is_current(binary: &Path, dep_info: &Path) -> bool {
    let (Some(made), Ok(text)) = (modified(binary), fs::read_to_string(dep_info)) else { return false };
    let Some((_, sources)) = text.lines().next().and_then(|line| line.split_once(": ")) else { return false };
    sources
        .replace("\\ ", "\0")
        .split(' ')
        .map(|source| source.replace('\0', " "))
        .filter(|source| !source.is_empty())
        .all(|source| modified(Path::new(&source)).is_some_and(|changed| changed <= made))
}

fn modified(path: &Path) -> Option<SystemTime> {
    fs::metadata(path).ok()?.modified().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch_dir;
    use std::time::Duration;

    #[test]
    fn a_binary_is_current_until_a_source_is_newer_or_gone() {
        let dir = scratch_dir("dep info");
        let (binary, dep_info) = (dir.join("bin"), dir.join("bin.d"));
        let sources = [dir.join("a.rs"), dir.join("b.rs")];
        for path in sources.iter().chain([&binary]) {
            fs::write(path, "").unwrap();
        }
        let escape = |path: &Path| path.to_str().unwrap().replace(' ', "\\ ");
        let line = format!("{}: {} {}\n", escape(&binary), escape(&sources[0]), escape(&sources[1]));
        fs::write(&dep_info, line).unwrap();
        assert!(is_current(&binary, &dep_info));
        let later = SystemTime::now() + Duration::from_secs(5);
        fs::File::options().append(true).open(&sources[1]).unwrap().set_modified(later).unwrap();
        assert!(!is_current(&binary, &dep_info));
        fs::remove_file(&sources[1]).unwrap();
        assert!(!is_current(&binary, &dep_info));
        assert!(!is_current(&dir.join("none"), &dep_info));
    }
}
