//! What a folder of this machine needs beyond what the store does there.
//!
//! The store writes a file beside its name, syncs it, links it to its name if that is free and syncs the
//! folder. Between these steps the process may be killed, and another may find the file by its name, count
//! on it, and acknowledge it, before the system has written the folder down. So who counts on a file syncs
//! it first ([`LocalFolder::settle`]), and who first writes into a folder syncs all that leads there
//! ([`LocalFolder::ensure`]).

use crate::store::blocking;
use replicator_sink::SinkError;
use std::collections::HashSet;
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use tokio::sync::Mutex;

/// What the names of files of ours end with.
const SUFFIXES: &[&str] = &[".ndjson.gz", ".json", ".parquet"];

/// The folder of a `file://` place.
#[derive(Debug)]
pub struct LocalFolder {
    root: PathBuf,
    /// Folders that are there, durably, below the root.
    ensured: Mutex<HashSet<String>>,
}

impl LocalFolder {
    pub(crate) fn new(root: PathBuf) -> Self {
        Self { root, ensured: Mutex::default() }
    }

    /// The folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Makes the folder.
    pub async fn create(&self) -> Result<(), SinkError> {
        let root = self.root.clone();
        self.run("making the folder", move || {
            fs::create_dir_all(&root)?;
            // What leads to it may be unreadable to this user; then it was not made here either.
            root.ancestors().skip(1).for_each(|folder| drop(sync(folder)));
            sync(&root)
        })
        .await
    }

    /// Locks the file `path` against other processes, until what is returned is dropped or the process is gone. `None`
    /// when somebody has it.
    pub async fn try_lock(&self, path: &str) -> Result<Option<File>, SinkError> {
        self.ensure(path).await?;
        let file = self.root.join(path);
        let locked = blocking(move || {
            let file = File::options().create(true).append(true).open(file)?;
            match file.try_lock() {
                Ok(()) => Ok(Some(file)),
                Err(TryLockError::WouldBlock) => Ok(None),
                Err(TryLockError::Error(error)) => Err(error),
            }
        });
        locked.await?.map_err(|error: io::Error| {
            SinkError::retry(format!("locking {path} in {}: {error}", self.root.display()))
        })
    }

    /// Whether the folder is there.
    pub(crate) fn ping(&self) -> Result<(), SinkError> {
        match fs::metadata(&self.root) {
            Ok(found) if found.is_dir() => Ok(()),
            Ok(_) => Err(SinkError::halt(format!(
                "{} is not a folder. Correct the sink's url",
                self.root.display()
            ))),
            Err(error) => Err(SinkError::retry(format!("{}: {error}", self.root.display()))),
        }
    }

    /// Whether files can be made there, found out without leaving one. Says what was found, or what to do.
    pub fn check(&self) -> Result<String, String> {
        let shown = self.root.display();
        let nearest = self.root.ancestors().find(|folder| folder.exists()).unwrap_or(Path::new("/"));
        match tempfile::tempfile_in(nearest) {
            Ok(_) if nearest == self.root => Ok(format!("{shown} can be written")),
            Ok(_) => Ok(format!("{shown} will be made")),
            Err(error) => Err(format!(
                "{} cannot be written: {error}. Let the replicator's user write there, or correct the sink's url",
                nearest.display()
            )),
        }
    }

    /// Makes the folder of the file at `path` and syncs it and what leads there; clears away what killed processes
    /// left half written. Once a folder.
    pub(crate) async fn ensure(&self, path: &str) -> Result<(), SinkError> {
        let below_root = path.rsplit_once('/').map_or("", |(folder, _)| folder);
        // Held throughout: clearing must not meet a write of this process.
        let mut ensured = self.ensured.lock().await;
        if ensured.contains(below_root) {
            return Ok(());
        }
        let root = self.root.clone();
        let folder = root.join(below_root);
        self.run("making a folder", move || {
            fs::create_dir_all(&folder)?;
            clear_unfinished(&folder)?;
            for part in folder.ancestors() {
                sync(part)?;
                if part == root {
                    break;
                }
            }
            Ok(())
        })
        .await?;
        ensured.insert(below_root.to_owned());
        Ok(())
    }

    /// Makes the file at `path` durable.
    pub(crate) async fn settle(&self, path: &str) -> Result<(), SinkError> {
        self.ensure(path).await?;
        let file = self.root.join(path);
        self.run("syncing a file", move || {
            sync(&file)?;
            file.parent().map_or(Ok(()), sync)
        })
        .await
    }

    async fn run(
        &self,
        doing: &str,
        work: impl FnOnce() -> io::Result<()> + Send + 'static,
    ) -> Result<(), SinkError> {
        blocking(work).await?.map_err(|error| {
            let what = format!("{doing} in {}: {error}", self.root.display());
            match error.kind() {
                // A file is where a folder should be, in the last two cases.
                io::ErrorKind::PermissionDenied
                | io::ErrorKind::ReadOnlyFilesystem
                | io::ErrorKind::NotADirectory
                | io::ErrorKind::AlreadyExists => SinkError::halt(format!(
                    "{what}. Let the replicator's user write there, or correct the sink's url"
                )),
                _ => SinkError::retry(what),
            }
        })
    }
}

fn sync(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// The store writes to `{name}#{n}` first.
fn clear_unfinished(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let unfinished = name.rsplit_once('#').is_some_and(|(name, number)| {
            SUFFIXES.iter().any(|suffix| name.ends_with(suffix))
                && number.bytes().all(|byte| byte.is_ascii_digit())
        });
        if unfinished {
            fs::remove_file(&path)?;
        }
    }
    Ok(())
}
