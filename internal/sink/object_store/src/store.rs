//! What the archive does at its place.

use crate::contents::{Contents, ForeignFile, without};
use crate::file::NewFile;
use crate::name::{EVENTS, first_position};
use crate::naming::Naming;
use replicator_sink::SinkError;
use replicator_store::{Hour, Put, Store, blocking};
use replicator_types::{Lsn, Position};
use std::sync::Arc;

/// The archive's place in a store.
#[derive(Debug)]
pub(crate) struct Archive {
    store: Arc<Store>,
}

impl Archive {
    pub(crate) fn new(store: Arc<Store>) -> Self {
        Self { store }
    }

    /// The store at that place.
    pub(crate) fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// The place as the configuration has it.
    pub(crate) fn place(&self) -> &str {
        self.store.place()
    }

    /// Whether the place can be listed. Changes nothing.
    pub(crate) async fn try_listing(&self) -> Result<(), SinkError> {
        self.store.try_listing(EVENTS).await
    }

    /// Whether the place answers.
    pub(crate) async fn ping(&self) -> Result<(), SinkError> {
        self.store.ping("wal/ping").await
    }

    /// The archive's files of one hour: first position (as of a stream at `near`) and path, by position.
    pub(crate) async fn files_of(&self, hour: Hour, near: Lsn) -> Result<Vec<(Position, String)>, SinkError> {
        let folder = hour.folder(EVENTS);
        let mut files = Vec::new();
        for found in self.store.list(&folder).await? {
            if let Some((of, name)) = found.path.rsplit_once('/')
                && of == folder
                && let Some(first) = first_position(name, near)
            {
                files.push((first, found.path));
            }
        }
        files.sort_unstable();
        Ok(files)
    }

    /// The greatest commit LSN of an event of the stream in the archive; zero when there is none. Lists all of it.
    pub(crate) async fn reach(&self, naming: &Naming) -> Result<Lsn, SinkError> {
        let files = self.store.list(EVENTS).await?;
        let Some(newest) = files.last() else { return Ok(Lsn::ZERO) };
        let last_of = async |path: &str| -> Result<Lsn, SinkError> {
            let contents = self.contents(path, naming).await?;
            Ok(contents.last().map_or(Lsn::ZERO, |last| last.commit_lsn))
        };
        let near = last_of(&newest.path).await?;
        // Commit times go back and forth a little: of the hours at the end, the file that begins last.
        let folder = |path: &str| path.rsplit_once('/').map(|(folder, _)| folder.to_owned());
        let mut hours: Vec<_> = files.iter().filter_map(|file| folder(&file.path)).collect();
        hours.dedup();
        let late = hours.get(hours.len().saturating_sub(2)..).unwrap_or_default();
        let begins_last = files
            .iter()
            .filter(|file| folder(&file.path).is_some_and(|of| late.contains(&of)))
            .filter_map(|file| Some((first_position(file.path.rsplit_once('/')?.1, near)?, &file.path)))
            .max();
        match begins_last {
            Some((_, path)) => Ok(near.max(last_of(path).await?)),
            None => Ok(near),
        }
    }

    /// Reads which events the file at `path` has, and sees to it that it is durable: the process that wrote it
    /// may have died in between. Halts when the file is not of this slot.
    pub(crate) async fn contents(&self, path: &str, naming: &Naming) -> Result<Contents, SinkError> {
        self.store.settle(path).await?;
        let body = self.store.get(path).await?;
        let naming = naming.clone();
        let contents = blocking(move || Contents::read(&body, &naming)).await?;
        contents.map_err(|foreign| self.foreign(path, &foreign))
    }

    /// Puts `file` if nothing has its name.
    pub(crate) async fn put(&self, file: &NewFile) -> Result<Put, SinkError> {
        self.store.put_new(&file.path, file.body.clone(), &[]).await
    }

    /// What of `file` is still to be written when an object has its name. `None`: nothing, it is all there and
    /// durable.
    pub(crate) async fn rest_of(
        &self,
        file: &NewFile,
        writing: &Writing,
    ) -> Result<Option<NewFile>, SinkError> {
        if self.store.get(&file.path).await? == file.body {
            self.store.settle(&file.path).await?;
            return Ok(None);
        }
        let there = self.contents(&file.path, &writing.naming).await?;
        let (ours, naming, level) = (file.clone(), writing.naming.clone(), writing.level);
        let rest = blocking(move || without(&ours, &there, &naming, level)).await?;
        let rest = rest.map_err(|foreign| self.foreign(&file.path, &foreign))?;
        match rest {
            Some(rest) if rest.path == file.path => Err(SinkError::halt(format!(
                "{} at {} has other events than those of its name. Give this sink a url of its own",
                file.path,
                self.place()
            ))),
            rest => Ok(rest),
        }
    }

    /// What is to be done about an object that is not ours under a name of ours.
    pub(crate) fn foreign(&self, path: &str, foreign: &ForeignFile) -> SinkError {
        let place = self.place();
        SinkError::halt(match foreign {
            ForeignFile::OtherIdentity(event_id) => format!(
                "{path} at {place} has events of another slot or cluster ({event_id}). Give this sink a url of \
                 its own"
            ),
            ForeignFile::OtherHistory(event_id) => format!(
                "{path} at {place} has another transaction's event under the id {event_id}: the source's history \
                 was rewritten, as by a failover that lost transactions. Give this sink a url of its own to begin a \
                 new archive"
            ),
            ForeignFile::Unreadable(why) => {
                format!("{path} at {place} is no file of this archive: {why}. Move it elsewhere")
            }
        })
    }
}

/// How files are written.
#[derive(Clone, Debug)]
pub(crate) struct Writing {
    pub(crate) naming: Naming,
    pub(crate) level: flate2::Compression,
}
