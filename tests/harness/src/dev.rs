//! Where the developer servers are, as `deploy/dev/env.sh` tells.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

static DEV: LazyLock<BTreeMap<String, String>> = LazyLock::new(|| {
    let script = workspace_root().join("deploy/dev/env.sh");
    let output = Command::new("bash").arg(&script).output().expect("run bash");
    assert!(
        output.status.success(),
        "{} failed: {}",
        script.display(),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| line.split_once('='))
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
});

/// The account Postgres runs under, when that is not ours.
static RUN_AS: LazyLock<Option<Account>> = LazyLock::new(|| {
    let name = value("DEV_RUN_AS");
    let id = |flag: &str| -> u32 {
        let output = Command::new("id").args([flag, name]).output().expect("run id");
        String::from_utf8_lossy(&output.stdout)
            .trim()
            .parse()
            .unwrap_or_else(|_| panic!("no user {name} (DEV_RUN_AS in deploy/dev/env.sh)"))
    };
    (!name.is_empty()).then(|| Account { name: name.to_owned(), uid: id("-u"), gid: id("-g") })
});

/// A user to run servers as.
pub(crate) struct Account {
    pub(crate) name: String,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// The account for servers that refuse to run as root; none when we are not root.
pub(crate) fn run_as() -> Option<&'static Account> {
    RUN_AS.as_ref()
}

pub(crate) fn workspace_root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().expect("find the workspace root")
}

/// The program `name` in the folder that the script gives for `key`.
pub(crate) fn program_in(key: &str, name: &str) -> PathBuf {
    installed(Path::new(value(key)).join(name))
}

/// The Python with the ClickHouse engine.
pub(crate) fn python() -> PathBuf {
    installed(PathBuf::from(value("DEV_PYTHON")))
}

fn installed(path: PathBuf) -> PathBuf {
    assert!(path.exists(), "{} is not there: run deploy/dev/setup.sh test", path.display());
    path
}

fn value(key: &str) -> &'static str {
    DEV.get(key).unwrap_or_else(|| panic!("deploy/dev/env.sh does not tell {key}"))
}
