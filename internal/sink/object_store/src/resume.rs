//! Which changes of a batch are still to be written, and into which files.
//!
//! ```text
//!   stream     a b c d e f g h i │ j k …          (│: the hour changes)
//!   archive    [a b c]   [f g]                    left by a process that died
//!   pieces           [d e]   [h i] [j k …
//! ```
//!
//! A file holds events of one hour, by commit time, and lies in that hour's folder. So the only file that can
//! hold an event lies in its own hour's folder, and is the one with the greatest first position that is not
//! past the event; its name says that position, its contents say how far it reaches. A folder is listed when
//! the stream first comes to its hour (in a run without interruption: one request an hour), a file is read when
//! the stream comes to it, and both are forgotten when the stream is past them.
//!
//! Invariants:
//! - A piece ends before the first position of the next file that is there, so files of an hour never
//!   interleave, in whatever order the writes of a crashed process became durable.
//! - An event is left out only when the file that has its position also has its transaction id. A position
//!   whose transaction is another one means that the source's history was rewritten (a failover that lost
//!   transactions, a restored backup): that stops the sink, since leaving out would lose the new event.
//! - What is decided depends on the batch and the store alone: a second call after an error decides the same.

use crate::contents::{Contents, ForeignFile};
use crate::naming::Naming;
use crate::store::Archive;
use replicator_sink::SinkError;
use replicator_store::{CommitTime, Hour};
use replicator_types::{Batch, Change, Op, Position};
use std::ops::Range;

/// How many hours' folders are remembered. Commit times go back and forth a little between neighbours in the
/// stream, so around a full hour two are in use.
const HOURS_MAX: usize = 8;

/// Changes of a batch that go into one file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Piece {
    pub(crate) hour: Hour,
    pub(crate) changes: Range<usize>,
}

/// What is known of the files that are there already.
#[derive(Debug, Default)]
pub(crate) struct Resume {
    folders: Vec<Folder>,
}

#[derive(Debug)]
struct Folder {
    hour: Hour,
    /// By first position.
    files: Vec<Existing>,
}

#[derive(Debug)]
struct Existing {
    first: Position,
    path: String,
    /// Once the stream has come to it.
    contents: Option<Contents>,
}

/// Where a change stands among the files of its hour.
enum Place<'a> {
    /// The file has it.
    Covered,
    /// No file has it; so many files begin before it.
    Free(usize),
    /// That file is to be read first.
    Unread(usize),
    /// That file has the position, with another transaction's id.
    OtherHistory(&'a str),
}

impl Resume {
    /// The pieces of `batch` that are to be written, in order: none begins or ends with a change of kind
    /// [`Op::Schema`], which makes no event.
    pub(crate) async fn plan(
        &mut self,
        archive: &Archive,
        naming: &Naming,
        batch: &Batch,
    ) -> Result<Vec<Piece>, SinkError> {
        if let Some(first) = batch.first_position() {
            self.folders.iter_mut().for_each(|folder| folder.forget_before(first));
        }
        let mut pieces = Vec::new();
        // The piece in hand, and how many files begin before it.
        let mut open: Option<(Piece, usize)> = None;
        for (index, change) in batch.changes().enumerate() {
            if change.op == Op::Schema {
                continue;
            }
            let hour = CommitTime::from_postgres_micros(change.transaction.commit_time_us).hour();
            let folder = self.folder(archive, hour, &change).await?;
            let free = folder.free_at(archive, naming, &change).await?;
            match (&mut open, free) {
                (Some((piece, files_before)), Some(free)) if piece.hour == hour && *files_before == free => {
                    piece.changes.end = index + 1;
                }
                (_, free) => {
                    pieces.extend(open.take().map(|(piece, _)| piece));
                    open = free.map(|free| (Piece { hour, changes: index..index + 1 }, free));
                }
            }
        }
        pieces.extend(open.map(|(piece, _)| piece));
        Ok(pieces)
    }

    async fn folder(
        &mut self,
        archive: &Archive,
        hour: Hour,
        change: &Change<'_>,
    ) -> Result<&mut Folder, SinkError> {
        let index = match self.folders.iter().rposition(|folder| folder.hour == hour) {
            Some(index) => index,
            None => {
                let files = archive.files_of(hour, change.position.commit_lsn).await?;
                let files = files.into_iter().map(|(first, path)| Existing { first, path, contents: None });
                let mut folder = Folder { hour, files: files.collect() };
                folder.forget_before(change.position);
                if self.folders.len() >= HOURS_MAX {
                    self.folders.remove(0);
                }
                self.folders.push(folder);
                self.folders.len() - 1
            }
        };
        self.folders.get_mut(index).ok_or_else(|| SinkError::retry("an hour's folder was forgotten"))
    }
}

impl Folder {
    /// Forgets files that end before `position`: of those that begin before it only the last may reach it.
    fn forget_before(&mut self, position: Position) {
        let begun = self.files.partition_point(|file| file.first <= position);
        self.files.drain(..begun.saturating_sub(1));
        let is_past = |file: &Existing| {
            let last = file.contents.as_ref().and_then(Contents::last);
            last.is_some_and(|last| last < position)
        };
        if self.files.first().is_some_and(is_past) {
            self.files.remove(0);
        }
    }

    /// How many files begin before a change that no file has; `None` when one has it.
    async fn free_at(
        &mut self,
        archive: &Archive,
        naming: &Naming,
        change: &Change<'_>,
    ) -> Result<Option<usize>, SinkError> {
        loop {
            match self.place(change) {
                Place::Covered => return Ok(None),
                Place::Free(begun) => return Ok(Some(begun)),
                Place::Unread(index) => {
                    if let Some(file) = self.files.get_mut(index) {
                        file.contents = Some(archive.contents(&file.path, naming).await?);
                    }
                }
                Place::OtherHistory(path) => {
                    let event_id = naming.event_id(change.position);
                    return Err(archive.foreign(path, &ForeignFile::OtherHistory(event_id)));
                }
            }
        }
    }

    fn place(&self, change: &Change<'_>) -> Place<'_> {
        let begun = self.files.partition_point(|file| file.first <= change.position);
        let Some(last) = begun.checked_sub(1) else { return Place::Free(0) };
        let Some(file) = self.files.get(last) else { return Place::Free(begun) };
        let Some(contents) = &file.contents else { return Place::Unread(last) };
        match contents.xid_at(change.position) {
            None => Place::Free(begun),
            Some(xid) if xid == change.transaction.xid => Place::Covered,
            Some(_) => Place::OtherHistory(&file.path),
        }
    }
}
