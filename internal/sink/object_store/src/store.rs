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
