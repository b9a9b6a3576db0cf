//! Tables that are copied: what is written down about them, and how far one process is with them. The moves are those of
//! `internal/copy`, without its ranges and workers: a copy's rows come to a sink all at once.

use crate::reached::{self, Reached};
use crate::store::FullRows;
use replicator_copy::Apartness;
use replicator_model::source::TABLES;
use replicator_pipeline::Standing;
use replicator_types::{Lsn, Position, Relation, TxnId};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What is written down of a table.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Note {
    /// It is to be copied.
    Nothing,
    /// Its rows are there, as of that snapshot.
    Copied(u64),
    /// It has caught up: changes from the position on go the ordinary way.
    Done(Position),
}

/// How a table stands in this process.
#[derive(Clone, Debug)]
pub(crate) enum Copy {
    /// Not described yet.
    Unknown,
    Live,
    /// What came before is becoming durable.
    ToBeHeld,
    Waits,
    /// Its rows are in the sinks, and it goes on from there.
    Resumes,
    /// It was apart when the process before ended.
    Joins,
    /// A snapshot is taken, and its turn has not come.
    Taken {
        snapshot: u64,
        rows: FullRows,
        relation: Arc<Relation>,
    },
    /// Read from the source, and not in the sinks from `sink` on.
    Read {
        snapshot: u64,
        rows: FullRows,
        relation: Arc<Relation>,
        sink: usize,
    },
    Copied,
    /// Sinks follow a change of its schema.
    Altering(Altering),
    Released,
    /// It is to be copied again when it has caught up.
    Deferred,
    /// That is not written down yet; and whether it is to be copied again.
    CaughtUp {
        from: Position,
        held: Option<TxnId>,
        again: bool,
    },
}

/// How far the sinks are with following a change of a table's schema.
#[derive(Clone, Debug)]
pub(crate) struct Altering {
    pub(crate) after: Arc<Relation>,
    pub(crate) at: Position,
    pub(crate) known: Option<Lsn>,
    /// By sink: nothing, the version is kept, the table is altered.
    pub(crate) done: Vec<u8>,
    /// Until then one of them refuses.
    pub(crate) refused_until_us: u64,
}

/// By table. Written down with the sinks' data, and as durable.
#[derive(Clone, Debug)]
pub(crate) struct Notes(pub(crate) BTreeMap<u32, Note>);

impl Notes {
    /// One table that is live, one to be copied, one that nobody knows yet; or all live.
    pub(crate) fn new(copies: bool) -> Self {
        let note =
            |index: usize| if copies && index > 0 { Note::Nothing } else { Note::Done(Position::ZERO) };
        Self(TABLES.iter().enumerate().map(|(index, (oid, _))| (*oid, note(index))).collect())
    }

    pub(crate) fn of(&self, table: u32) -> Note {
        self.0.get(&table).copied().unwrap_or(Note::Nothing)
    }

    /// How the tables stand when a process begins.
    /// `is_known`: whether the catalog had the third table when it began.
    pub(crate) fn standings(
        &self,
        is_known: bool,
        apartness: impl Fn(u32, Position) -> Apartness,
    ) -> (Vec<(u32, Standing)>, BTreeMap<u32, Copy>) {
        let mut standings = Vec::new();
        let mut copies = BTreeMap::new();
        for (oid, _) in TABLES {
            let (standing, copy) = match self.of(oid) {
                Note::Nothing if oid == TABLES[2].0 && !is_known => (None, Copy::Unknown),
                Note::Nothing => (Some(Standing::Waiting { snapshot: None }), Copy::Waits),
                Note::Copied(snapshot) => {
                    (Some(Standing::Waiting { snapshot: Some(Lsn(snapshot)) }), Copy::Resumes)
                }
                Note::Done(from) => match apartness(oid, from) {
                    Apartness::Apart { told, from } => (Some(Standing::Apart { told, from }), Copy::Joins),
                    Apartness::Joined(joined) => (Some(Standing::Live { from: joined }), Copy::Live),
                },
            };
            standings.extend(standing.map(|standing| (oid, standing)));
            copies.insert(oid, copy);
        }
        (standings, copies)
    }

    pub(crate) fn caught_up(&mut self, table: u32, from: Position, reached: &mut Reached) {
        reached.insert(reached::COPIED);
        if from.ordinal > 0 {
            reached.insert(reached::LIVE_IN_TRANSACTION);
        }
        self.0.insert(table, Note::Done(from));
    }
}

impl Copy {
    /// Whether nothing is left to do.
    pub(crate) fn is_settled(&self) -> bool {
        matches!(self, Self::Live | Self::Unknown)
    }
}
