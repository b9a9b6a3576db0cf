//! How far the copy of each table has got, as the sinks' notes have it.
//!
//! ```text
//!   wanted ─▶ copying { snapshot, ranges that are durable } ─▶ done { the first change that was not caught up with }
//! ```
//!
//! Every sink keeps the notes of the tables that it takes, so a sink that was emptied, or added later, is filled again.

use crate::left_out::Reasons;
use crate::ranges::Ranges;
use replicator_sink::{Sink, SinkError};
use replicator_types::{Lsn, Position, Relation, Storage};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Notes about tables have this in front of the table's oid.
const KEY_PREFIX: &str = "copy/";

/// What a sink knows of a table's copy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub(crate) enum Note {
    /// It is to be copied, because somebody asked for it.
    Wanted {
        /// `schema.name`, for people.
        table: String,
    },
    /// The sink refused a change of it, or a row while it was copied, and gets nothing of it until somebody asks for it.
    Aside {
        /// `schema.name`, for people.
        table: String,
        /// What the sink said.
        reason: String,
        /// What a log had noted before: as that it goes on when it is taken back.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        before: Option<Box<Note>>,
    },
    /// It is being copied.
    Copying(Copying),
    /// The copy is durable, and what waited for it too.
    Done {
        /// `schema.name`, for people.
        table: String,
        /// The first change that was not caught up with.
        #[serde(with = "position_text")]
        from: Position,
    },
}

impl Note {
    /// The table's name.
    pub(crate) fn into_table(self) -> String {
        match self {
            Self::Wanted { table } | Self::Aside { table, .. } | Self::Done { table, .. } => table,
            Self::Copying(copying) => copying.table,
        }
    }

    /// As the sinks keep it.
    pub(crate) fn text(&self) -> Result<String, String> {
        serde_json::to_string(self).map_err(|error| format!("a note can't be written: {error}"))
    }
}

/// A copy under way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Copying {
    /// `schema.name`, for people.
    pub(crate) table: String,
    /// Of the first snapshot that any of its rows is from.
    #[serde(with = "lsn_text")]
    pub(crate) first_snapshot: Lsn,
    /// The oldest transaction that ran when that was taken.
    pub(crate) first_xmin: u64,
    /// Whether the sinks held nothing of the table when it began: then changes from before the first snapshot need not
    /// follow it. Otherwise they are needed for the rows that they delete.
    pub(crate) from_nothing: bool,
    /// What commits before it was in the sinks when it began.
    #[serde(with = "lsn_text", default)]
    pub(crate) covers: Lsn,
    /// What is durable.
    pub(crate) parts: Vec<PartDone>,
}

/// What of a part is durable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PartDone {
    /// `pg_class.oid`
    pub(crate) oid: u32,
    /// Its file; another one has other blocks.
    pub(crate) file_node: u32,
    /// Blocks.
    pub(crate) done: Ranges,
}

pub(crate) mod lsn_text {
    use super::*;
    use serde::{Deserializer, Serializer, de::Error};

    pub(crate) fn serialize<S: Serializer>(lsn: &Lsn, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&lsn.to_string())
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Lsn, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

pub(crate) mod position_text {
    use super::*;
    use serde::{Deserializer, Serializer, de::Error};

    pub(crate) fn serialize<S: Serializer>(position: &Position, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&position.to_string())
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Position, D::Error> {
        let text = String::deserialize(deserializer)?;
        let (lsn, ordinal) = text.split_once('+').ok_or_else(|| D::Error::custom("no position"))?;
        let commit_lsn = lsn.parse().map_err(D::Error::custom)?;
        Ok(Position { commit_lsn, ordinal: ordinal.parse().map_err(D::Error::custom)? })
    }
}

/// What is to be done with a table, by the notes of all sinks that take it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Plan {
    /// Nothing: it is in all of them.
    None {
        /// The first change that was not caught up with.
        from: Position,
    },
    /// It is in all of them, and other tables' changes have gone ahead of its own: those come by themselves. See
    /// [`apart`](crate::apart).
    Join {
        /// Since when the version holds that the sinks were told last.
        told: Lsn,
        /// Changes before that are in the sinks.
        from: Position,
    },
    /// No sink has begun with it.
    New,
    /// All of them have the same beginning of it.
    Resume(Copying),
    /// It is to be copied over what is there: its rows were computed anew, and everything from before that is in the
    /// sinks, which would be out of date behind the copy.
    Over {
        /// What commits before it is in the sinks.
        covers: Lsn,
        /// Where the rows lay then, where that is known.
        storage: Option<Storage>,
        /// How it looked then, where that is known.
        shape: Option<Arc<Relation>>,
    },
    /// Some sinks are to have it anew, emptied before; the others, which have it, are copied over.
    Refill {
        /// Those that are emptied.
        sinks: Vec<usize>,
    },
    /// It is to be copied over what is there, and all changes follow it.
    Again {
        /// Whether that is to go first.
        empty_first: bool,
    },
}

/// The notes of one run's sinks.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ledger {
    /// By table, then by sink.
    notes: BTreeMap<u32, BTreeMap<usize, Note>>,
}

impl Ledger {
    pub(crate) async fn load(sinks: &[Arc<dyn Sink>]) -> Result<Self, SinkError> {
        let mut ledger = Self::default();
        for (number, sink) in sinks.iter().enumerate() {
            for (key, value) in sink.notes().await? {
                let Some(oid) = table_of(&key) else { continue };
                let note = serde_json::from_str(&value).map_err(|error| {
                    SinkError::halt(format!(
                        "sink {}: its note {key} about the copy of a table can't be read ({error}): was it written by a \
                         later version? Remove the note to have the table copied anew",
                        sink.name()
                    ))
                })?;
                ledger.set(oid, number, note);
            }
        }
        Ok(ledger)
    }

    pub(crate) fn set(&mut self, oid: u32, sink: usize, note: Note) {
        self.notes.entry(oid).or_default().insert(sink, note);
    }

    /// Whether any sink knows of the table.
    pub(crate) fn knows(&self, oid: u32) -> bool {
        self.notes.contains_key(&oid)
    }

    /// The oldest snapshot that rows of the copy under way are from; none where a sink has no such copy.
    pub(crate) fn first_snapshot(&self, oid: u32, sinks: &[usize]) -> Option<Lsn> {
        let of_table = self.notes.get(&oid)?;
        let of_sink = |sink: &usize| match of_table.get(sink) {
            Some(Note::Copying(copying)) => Some(copying.first_snapshot),
            _ => None,
        };
        sinks.iter().map(of_sink).min().flatten()
    }

    /// What the sink has noted of the table.
    pub(crate) fn note(&self, oid: u32, sink: usize) -> Option<&Note> {
        self.notes.get(&oid)?.get(&sink)
    }

    /// Of each table, which sinks are left out of it, and what they said. By the table alone, whatever its name was then.
    pub(crate) fn left_out(&self) -> Reasons {
        let mut reasons = Reasons::new();
        for (oid, notes) in &self.notes {
            for (sink, note) in notes {
                if let Note::Aside { reason, .. } = note {
                    reasons.entry(*oid).or_default().insert(*sink, reason.clone());
                }
            }
        }
        reasons
    }

    /// Tables that sinks have, or have begun to copy, by number of the sink, with their names.
    pub(crate) fn copied(&self) -> Vec<(u32, usize, String)> {
        let of_table = |(oid, notes): (&u32, &BTreeMap<usize, Note>)| {
            let name = |note: &Note| match note {
                Note::Done { table, .. } => Some(table.clone()),
                Note::Copying(copying) => Some(copying.table.clone()),
                Note::Wanted { .. } | Note::Aside { .. } => None,
            };
            let of_sink = |(sink, note): (&usize, &Note)| name(note).map(|name| (*oid, *sink, name));
            notes.iter().filter_map(of_sink).collect::<Vec<_>>()
        };
        self.notes.iter().flat_map(of_table).collect()
    }

    /// Tables that logs have set aside and go on with from where they were, by number of the sink, with the names and reasons.
    pub(crate) fn aside_to_go_on(&self) -> Vec<(u32, usize, String, String)> {
        let of_table = |(oid, notes): (&u32, &BTreeMap<usize, Note>)| {
            let of_sink = |(sink, note): (&usize, &Note)| match note {
                Note::Aside { table, reason, before: Some(_) } => {
                    Some((*oid, *sink, table.clone(), reason.clone()))
                }
                _ => None,
            };
            notes.iter().filter_map(of_sink).collect::<Vec<_>>()
        };
        self.notes.iter().flat_map(of_table).collect()
    }

    /// Whether somebody has asked for the table, and it is not being copied yet.
    pub(crate) fn is_wanted(&self, oid: u32, sink: usize) -> bool {
        matches!(self.note(oid, sink), Some(Note::Wanted { .. }))
    }

    /// What is to be done for the sinks that take the table, and are not left out.
    pub(crate) fn plan(&self, oid: u32, sinks: &[usize]) -> Plan {
        let of_table = self.notes.get(&oid);
        let notes: Vec<Option<&Note>> =
            sinks.iter().map(|sink| of_table.and_then(|notes| notes.get(sink))).collect();
        // One that was left out takes part again: what it has is of long ago.
        let is_wanted = |note: &Option<&Note>| matches!(note, Some(Note::Wanted { .. } | Note::Aside { .. }));
        let of_notes = sinks.iter().zip(&notes);
        let wanted: Vec<usize> =
            of_notes.filter(|(_, note)| is_wanted(note)).map(|(sink, _)| *sink).collect();
        if !wanted.is_empty() {
            let are_all = wanted.len() == notes.len();
            return if are_all { Plan::Again { empty_first: true } } else { Plan::Refill { sinks: wanted } };
        }
        if notes.iter().all(Option::is_none) {
            return if notes.is_empty() { Plan::None { from: Position::ZERO } } else { Plan::New };
        }
        let mut from = Position::ZERO;
        let mut copying: Option<Copying> = None;
        let mut same = true;
        let mut absent = false;
        for note in notes {
            match note {
                Some(Note::Done { from: of_sink, .. }) => from = from.max(*of_sink),
                Some(Note::Copying(found)) => match &mut copying {
                    None => copying = Some(found.clone()),
                    Some(copying) => same &= copying.intersect(found),
                },
                Some(Note::Wanted { .. } | Note::Aside { .. }) => {}
                None => absent = true,
            }
        }
        match copying {
            None if !absent => Plan::None { from },
            // One that has all of it already takes it once more.
            Some(copying) if same && !absent => Plan::Resume(copying),
            _ => Plan::Again { empty_first: false },
        }
    }
}

impl Copying {
    /// Keeps what `other` has too; false when it is another copy.
    fn intersect(&mut self, other: &Self) -> bool {
        if self.first_snapshot != other.first_snapshot || self.first_xmin != other.first_xmin {
            return false;
        }
        self.from_nothing &= other.from_nothing;
        self.covers = self.covers.min(other.covers);
        for part in &mut self.parts {
            let theirs = other.parts.iter().find(|theirs| theirs.oid == part.oid);
            let theirs = theirs.filter(|theirs| theirs.file_node == part.file_node);
            part.done = theirs.map_or_else(Ranges::default, |theirs| part.done.intersection(&theirs.done));
        }
        true
    }

    /// What commits before it need not follow the copy; none where everything has to.
    pub(crate) fn covers_before(&self) -> Option<Lsn> {
        let covers = if self.from_nothing { self.first_snapshot } else { self.covers };
        (covers > Lsn::ZERO).then_some(covers)
    }

    /// Whether anything of it is durable.
    pub(crate) fn has_begun(&self) -> bool {
        self.parts.iter().any(|part| !part.done.is_empty())
    }
}

/// The newest snapshot that copies under way are from, by a sink's notes; what can't be read is left out.
pub fn newest_snapshot(notes: &BTreeMap<String, String>) -> Lsn {
    let copies = notes.iter().filter(|(key, _)| key.starts_with(KEY_PREFIX));
    let snapshots = copies.filter_map(|(_, text)| match serde_json::from_str(text) {
        Ok(Note::Copying(copying)) => Some(copying.first_snapshot),
        _ => None,
    });
    snapshots.fold(Lsn::ZERO, Lsn::max)
}

/// A table's note as the sink keeps it.
pub(crate) fn key(oid: u32) -> String {
    format!("{KEY_PREFIX}{oid}")
}

/// The oid of the table whose note has that key.
pub(crate) fn table_of(key: &str) -> Option<u32> {
    key.strip_prefix(KEY_PREFIX)?.parse().ok()
}

/// Whether the note of that key is one of a table's copy.
pub(crate) fn is_of_table(key: &str) -> bool {
    key.starts_with(KEY_PREFIX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn copying(first_snapshot: u64, done: &[(u32, u32)]) -> Note {
        let done = Ranges::from(done);
        let parts = vec![PartDone { oid: 5, file_node: 6, done }];
        Note::Copying(Copying {
            table: "public.t".into(),
            first_snapshot: Lsn(first_snapshot),
            first_xmin: 700,
            from_nothing: true,
            covers: Lsn::ZERO,
            parts,
        })
    }

    fn done(lsn: u64) -> Note {
        let from = Position { commit_lsn: Lsn(lsn), ordinal: 3 };
        Note::Done { table: "public.t".into(), from }
    }

    fn ledger(notes: &[Option<Note>]) -> Ledger {
        let mut ledger = Ledger::default();
        for (sink, note) in notes.iter().enumerate() {
            if let Some(note) = note {
                ledger.set(1, sink, note.clone());
            }
        }
        ledger
    }

    fn plan(notes: &[Option<Note>]) -> Plan {
        ledger(notes).plan(1, &(0..notes.len()).collect::<Vec<_>>())
    }

    #[test]
    fn notes_are_read_as_they_were_written() {
        let aside = Note::Aside {
            table: "t".into(),
            reason: "no".into(),
            before: Some(Box::new(copying(16, &[(0, 4)]))),
        };
        for note in
            [copying(16, &[(0, 4), (8, 9)]), done(1 << 40), Note::Wanted { table: "a.\"b".into() }, aside]
        {
            let text = serde_json::to_string(&note).unwrap();
            assert_eq!(serde_json::from_str::<Note>(&text).unwrap(), note, "{text}");
        }
    }

    #[test]
    fn a_table_that_every_sink_has_is_left_alone() {
        let from = Position { commit_lsn: Lsn(20), ordinal: 3 };
        assert_eq!(plan(&[Some(done(10)), Some(done(20))]), Plan::None { from });
    }

    #[test]
    fn a_table_that_no_sink_has_begun_is_new() {
        assert_eq!(plan(&[None, None]), Plan::New);
    }

    #[test]
    fn a_copy_goes_on_with_what_all_sinks_have_of_it() {
        let Plan::Resume(found) = plan(&[Some(copying(16, &[(0, 8)])), Some(copying(16, &[(4, 12)]))]) else {
            panic!("it is to go on")
        };
        assert_eq!(found.parts[0].done, Ranges::from(&[(4, 8)][..]));
        // The note of the end was written to one of them only.
        assert!(matches!(plan(&[Some(done(30)), Some(copying(16, &[(0, 8)]))]), Plan::Resume(_)));
    }

    #[test]
    fn a_sink_that_refused_a_table_is_left_out_and_the_others_go_on() {
        let aside = Note::Aside { table: "public.t".into(), reason: "too long".into(), before: None };
        let notes = ledger(&[Some(done(10)), Some(aside), Some(copying(16, &[(0, 8)]))]);
        let left_out = BTreeMap::from([(1, "too long".to_owned())]);
        assert_eq!(notes.left_out(), BTreeMap::from([(1, left_out)]));
        assert_eq!(notes.plan(1, &[0, 1]), Plan::Refill { sinks: vec![1] }, "taken back");
        let from = Position { commit_lsn: Lsn(10), ordinal: 3 };
        assert_eq!(notes.plan(1, &[0]), Plan::None { from });
        assert!(matches!(notes.plan(1, &[0, 2]), Plan::Resume(_)));
        assert_eq!(notes.plan(1, &[]), Plan::None { from: Position::ZERO });
    }

    #[test]
    fn copies_from_two_beginnings_do_not_add_up() {
        let plan = plan(&[Some(copying(16, &[(0, 8)])), Some(copying(24, &[(0, 8)]))]);
        assert_eq!(plan, Plan::Again { empty_first: false });
    }

    #[test]
    fn a_sink_that_was_added_gets_the_table_and_a_table_that_was_asked_for_is_emptied_first() {
        assert_eq!(plan(&[Some(done(10)), None]), Plan::Again { empty_first: false });
        let wanted = Note::Wanted { table: "public.t".into() };
        assert_eq!(plan(&[Some(done(10)), Some(wanted.clone()), None]), Plan::Refill { sinks: vec![1] });
        assert_eq!(plan(&[Some(wanted.clone()), Some(wanted)]), Plan::Again { empty_first: true });
    }
}
