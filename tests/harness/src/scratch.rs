//! Folders and ports of this test process.
//!
//! ```text
//!   {tmp}/replicator-harness.{uid}/
//!     run-{pid}-{n}.lock   held for as long as the process lives
//!     run-{pid}-{n}/       its scratch folder: pg-1/ clickhouse-2/ …
//!     port-{number}.lock   held while the port is somebody's
//! ```
//! Locks are `flock`s, which end with their process. So a folder whose lock is free belongs to a process that
//! died without clearing up, and the next one clears up for it.

use std::fs::{self, File, TryLockError};
use std::net::TcpListener;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

/// A lock younger than this may belong to a process that has made the file and not locked it yet.
const STALE_AFTER: Duration = Duration::from_secs(60);

/// Below Linux's ephemeral ports (from 32768): an outgoing connection never takes the port of a server that
/// is stopped for a while.
const PORTS: std::ops::Range<u16> = 15_000..32_000;

/// A Unix socket's path has at most 107 bytes (`unix(7)`), and Postgres adds 20 to the folder's.
const ROOT_LENGTH_MAX: usize = 50;

struct Run {
    dir: PathBuf,
    _lock: File,
}

static ROOT: LazyLock<PathBuf> = LazyLock::new(|| {
    let uid = fs::metadata("/proc/self").map_or(0, |meta| meta.uid());
    let mut base = std::env::temp_dir();
    if base.as_os_str().len() > ROOT_LENGTH_MAX {
        base = PathBuf::from("/tmp");
    }
    let root = base.join(format!("replicator-harness.{uid}"));
    fs::create_dir_all(&root).unwrap_or_else(|error| panic!("make {}: {error}", root.display()));
    root
});

static RUN: LazyLock<Run> = LazyLock::new(|| {
    sweep(&ROOT);
    let pid = std::process::id();
    (0..)
        .find_map(|n| {
            let name = format!("run-{pid}-{n}");
            let lock = try_lock(&ROOT.join(format!("{name}.lock")))?;
            let dir = ROOT.join(name);
            fs::create_dir(&dir).ok()?;
            Some(Run { dir, _lock: lock })
        })
        .expect("find a free run name")
});

/// A new empty folder under this process' scratch folder, with a short path. Removed with it by a later run
/// when nobody removes it before.
pub fn scratch_dir(name: &str) -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(1);
    let dir = RUN.dir.join(format!("{name}-{}", COUNT.fetch_add(1, Ordering::Relaxed)));
    fs::create_dir(&dir).unwrap_or_else(|error| panic!("make {}: {error}", dir.display()));
    dir
}

/// A folder of [`scratch_dir`] that goes with its owner.
#[derive(Debug)]
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    pub(crate) fn new(name: &str) -> Self {
        Self(scratch_dir(name))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What is left is swept later.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A port on 127.0.0.1 that is ours until this is dropped, also while nothing listens on it.
#[derive(Debug)]
pub struct Port {
    number: u16,
    _lock: File,
}

impl Port {
    /// Takes a free one.
    ///
    /// # Panics
    /// When there is none.
    pub fn take() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let span = u32::from(PORTS.end - PORTS.start);
        // Test processes begin at different places, so that they seldom try the same one.
        let start = std::process::id().wrapping_mul(7919) % span;
        for _ in 0..span {
            let step = NEXT.fetch_add(1, Ordering::Relaxed);
            let number = PORTS.start + u16::try_from((start + step) % span).expect("span fits 16 bits");
            let Some(lock) = try_lock(&ROOT.join(format!("port-{number}.lock"))) else { continue };
            if TcpListener::bind(("127.0.0.1", number)).is_ok() {
                return Self { number, _lock: lock };
            }
        }
        panic!("no free port in {PORTS:?}");
    }

    /// The number.
    pub fn number(&self) -> u16 {
        self.number
    }
}

fn try_lock(path: &Path) -> Option<File> {
    let file = File::options().create(true).append(true).open(path).ok()?;
    match file.try_lock() {
        Ok(()) => Some(file),
        Err(TryLockError::WouldBlock) => None,
        Err(TryLockError::Error(error)) => panic!("lock {}: {error}", path.display()),
    }
}

/// Removes what dead processes left.
fn sweep(root: &Path) {
    let Ok(entries) = fs::read_dir(root) else { return };
    for path in entries.flatten().map(|entry| entry.path()) {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if !name.starts_with("run-") || path.extension().is_none_or(|ext| ext != "lock") || is_young(&path) {
            continue;
        }
        if let Some(lock) = try_lock(&path) {
            let _ = fs::remove_dir_all(path.with_extension(""));
            let _ = fs::remove_file(&path);
            drop(lock);
        }
    }
}

fn is_young(path: &Path) -> bool {
    let made = fs::metadata(path).and_then(|meta| meta.modified()).unwrap_or_else(|_| SystemTime::now());
    made.elapsed().is_ok_and(|age| age < STALE_AFTER)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_taken_is_not_given_twice_even_when_nothing_listens_on_it() {
        let ports: Vec<Port> = (0..50).map(|_| Port::take()).collect();
        let numbers: std::collections::BTreeSet<u16> = ports.iter().map(Port::number).collect();
        assert_eq!(numbers.len(), ports.len());
        assert!(try_lock(&ROOT.join(format!("port-{}.lock", ports[0].number()))).is_none());
    }

    #[test]
    fn a_scratch_folder_goes_with_its_owner() {
        let scratch = Scratch::new("here");
        let path = scratch.path().to_owned();
        fs::write(path.join("file"), "text").unwrap();
        drop(scratch);
        assert!(!path.exists());
    }

    #[test]
    fn the_leavings_of_a_dead_process_are_swept_and_those_of_a_living_one_stay() {
        let root = Scratch::new("root");
        let leave = |name: &str| {
            fs::create_dir_all(root.path().join(name).join("pg-1")).unwrap();
            let lock = try_lock(&root.path().join(format!("{name}.lock"))).unwrap();
            lock.set_modified(SystemTime::now() - 2 * STALE_AFTER).unwrap();
            lock
        };
        drop(leave("run-1-0"));
        let held = leave("run-2-0");
        sweep(root.path());
        assert!(!root.path().join("run-1-0").exists() && !root.path().join("run-1-0.lock").exists());
        assert!(root.path().join("run-2-0").exists());
        drop(held);
    }
}
