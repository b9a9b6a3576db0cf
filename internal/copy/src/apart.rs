//! Tables whose changes wait while other tables' go ahead, as the sinks' notes have it.
//!
//! ```text
//!   fence ─▶ lane: note "apart" ─▶ other tables go ahead … ─▶ caught up ─▶ note "joined from …"
//! ```
//!
//! The note says from which change on the table waits, and which version the sink knows; both move on when sinks are about to
//! follow the next one ([`alter`](crate::altering::alter)).
//!
//! A lane that goes ahead gets past changes that wait, and after a crash it leaves out what it has got past. A run that
//! finds a table apart keeps it so from its beginning, until the stream has passed whatever the run before can have got to:
//! its changes come by themselves, and some of them again.
//!
//! # Invariants
//! - The note is durable in a sink before the fence lifts there, and so before anything goes ahead.
//! - It is taken back when everything that waited is durable, and before the watermark is let go.

use crate::ledger::{lsn_text, position_text};
use async_trait::async_trait;
use replicator_sink::{KeyChanges, Lane, Nothing, Sink, SinkError, Write};
use replicator_types::{Batch, Lsn, Op, Position, TxnId};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Notes about tables apart have this in front of the table's oid.
const KEY_PREFIX: &str = "apart/";

/// What a sink knows of a table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
enum Note {
    /// Its changes wait.
    Apart {
        /// `schema.name`, for people.
        table: String,
        /// Since when the version holds that the sink was told last.
        #[serde(with = "lsn_text")]
        told: Lsn,
        /// The first change that waits; those before it are in the sink.
        #[serde(with = "position_text")]
        from: Position,
    },
    /// What waited is durable.
    Joined {
        /// `schema.name`, for people.
        table: String,
        /// The first change that did not wait.
        #[serde(with = "position_text")]
        from: Position,
    },
}

/// How a table stands, by the notes of the sinks that take it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Apartness {
    /// It is apart for one of them.
    Apart {
        /// Since when the version holds that all of them were told.
        told: Lsn,
        /// Changes before that position are in all of them.
        from: Position,
    },
    /// Changes before that position are in all of them; the beginning where it was never apart.
    Joined(Position),
}

/// See the module.
pub struct Aparts {
    sinks: Vec<Arc<dyn Sink>>,
    /// By table, then by sink.
    notes: Mutex<BTreeMap<u32, BTreeMap<usize, Note>>>,
    /// By sink, held while a note is decided on and written: by table, with which transaction's number the sink was told last
    /// in this run.
    told_with: Vec<tokio::sync::Mutex<BTreeMap<u32, TxnId>>>,
}

impl Aparts {
    /// Reads what the sinks have noted.
    ///
    /// # Errors
    /// A sink that does not answer, or a note that can't be read.
    pub async fn load(sinks: &[Arc<dyn Sink>]) -> Result<Self, SinkError> {
        let mut notes: BTreeMap<u32, BTreeMap<usize, Note>> = BTreeMap::new();
        for (number, sink) in sinks.iter().enumerate() {
            for (key, text) in sink.notes().await? {
                let Some(oid) = key.strip_prefix(KEY_PREFIX).and_then(|oid| oid.parse().ok()) else {
                    continue;
                };
                let note = serde_json::from_str(&text).map_err(|error| {
                    SinkError::halt(format!(
                        "sink {}: its note {key} about changes of a table that waited can't be read ({error}): was it \
                         written by a later version? Remove the note and have the table copied anew",
                        sink.name()
                    ))
                })?;
                notes.entry(oid).or_default().insert(number, note);
            }
        }
        let told_with = sinks.iter().map(|_| tokio::sync::Mutex::default()).collect();
        Ok(Self { sinks: sinks.to_vec(), notes: Mutex::new(notes), told_with })
    }

    /// How a table stands in those sinks, in which changes before `from` are for certain. One that has noted nothing was told
    /// of nothing either since the others were.
    pub fn of(&self, oid: u32, sinks: &[usize], from: Position) -> Apartness {
        let notes = self.notes();
        let of_table = notes.get(&oid);
        let of_sinks: Vec<_> = sinks.iter().map(|sink| of_table.and_then(|notes| notes.get(sink))).collect();
        let told = of_sinks.iter().filter_map(|note| match note {
            Some(Note::Apart { told, .. }) => Some(*told),
            _ => None,
        });
        let place = |note: &Option<&Note>| match note {
            Some(Note::Apart { from, .. } | Note::Joined { from, .. }) => *from,
            None => Position::ZERO,
        };
        let places = of_sinks.iter().map(place);
        match told.min() {
            Some(told) => Apartness::Apart { told, from: places.min().unwrap_or_default().max(from) },
            None => Apartness::Joined(places.fold(from, Position::max)),
        }
    }

    /// The sinks that have noted that the table is apart.
    pub fn sinks_apart(&self, oid: u32) -> Vec<usize> {
        let is_apart = |(sink, note): (&usize, &Note)| matches!(note, Note::Apart { .. }).then_some(*sink);
        self.notes().get(&oid).into_iter().flatten().filter_map(is_apart).collect()
    }

    /// Notes in a sink that what waited of a table is durable, and the first change that did not wait; `held`: with which
    /// transaction's number it was told that the table waits. Unless it was told anew since.
    ///
    /// # Errors
    /// The sink.
    pub async fn join(
        &self,
        (sink, oid): (usize, u32),
        table: &str,
        from: Position,
        held: Option<TxnId>,
    ) -> Result<(), SinkError> {
        let Some(told_with) = self.told_with.get(sink) else { return Ok(()) };
        let told_with = told_with.lock().await;
        if told_with.get(&oid).copied() > held {
            return Ok(());
        }
        self.put(sink, oid, Note::Joined { table: table.to_owned(), from }).await
    }

    /// Notes in a sink from where on changes of a table wait, made under another version than the one that it was told of.
    ///
    /// # Errors
    /// The sink.
    pub async fn part(
        &self,
        sink: usize,
        oid: u32,
        table: &str,
        told: Lsn,
        from: Position,
    ) -> Result<(), SinkError> {
        let Some(told_with) = self.told_with.get(sink) else { return Ok(()) };
        let _told_with = told_with.lock().await;
        self.put(sink, oid, Note::Apart { table: table.to_owned(), told, from }).await
    }

    /// The lane, which notes that a table is apart before sink number `sink` goes on behind that.
    pub fn lane(self: &Arc<Self>, sink: usize, lane: Box<dyn Lane>) -> Box<dyn Lane> {
        let notes = self.sinks.get(sink).is_some_and(|sink| sink.key_changes() == KeyChanges::Split);
        Box::new(NotingLane { aparts: Arc::clone(self), sink, lane, notes })
    }

    async fn put(&self, number: usize, oid: u32, note: Note) -> Result<(), SinkError> {
        let Some(sink) = self.sinks.get(number) else { return Ok(()) };
        let text = serde_json::to_string(&note)
            .map_err(|error| SinkError::halt(format!("a note can't be written: {error}")))?;
        sink.put_note(&format!("{KEY_PREFIX}{oid}"), Some(&text)).await?;
        self.notes().entry(oid).or_default().insert(number, note);
        Ok(())
    }

    fn notes(&self) -> MutexGuard<'_, BTreeMap<u32, BTreeMap<usize, Note>>> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct NotingLane {
    aparts: Arc<Aparts>,
    sink: usize,
    lane: Box<dyn Lane>,
    /// A log leaves out what it has, whatever was noted.
    notes: bool,
}

#[async_trait]
impl Lane for NotingLane {
    fn in_flight_max(&self) -> usize {
        self.lane.in_flight_max()
    }

    fn needs_drain(&self, batch: &Batch) -> bool {
        !tells_apart(batch) && self.lane.needs_drain(batch)
    }

    async fn prepare(&mut self, batch: Arc<Batch>) -> Result<Box<dyn Write>, SinkError> {
        if tells_apart(&batch) {
            for change in batch.changes().filter(|_| self.notes) {
                let table = change.relation;
                let (told, from) = (table.since, change.position);
                let Some(told_with) = self.aparts.told_with.get(self.sink) else { continue };
                let mut told_with = told_with.lock().await;
                let note = Note::Apart { table: table.qualified_name(), told, from };
                self.aparts.put(self.sink, table.oid, note).await?;
                told_with.insert(table.oid, change.transaction.id);
            }
            return Ok(Box::new(Nothing));
        }
        self.lane.prepare(batch).await
    }
}

/// It is fenced then, and that is the only change in it.
fn tells_apart(batch: &Batch) -> bool {
    batch.is_fenced() && batch.changes().any(|change| change.op == Op::Apart)
}

#[cfg(test)]
mod tests;
