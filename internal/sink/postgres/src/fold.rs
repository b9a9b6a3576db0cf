//! What a run of changes to one keyed table comes to, key by key.
//!
//! ```text
//!               Insert      Update (whole)   Update (TOAST missing)    Delete
//!   nothing     Insert      Upsert, Trimmed  Partial                   Delete
//!   Insert      Upsert      Insert           Insert, merged            Delete
//!   Upsert      Upsert      Upsert           Upsert, merged            Delete
//!   Trimmed     Upsert      Upsert           Upsert, merged            Delete
//!   Partial     Upsert      Upsert           Partial or Upsert, merged Delete
//!   Delete      Upsert      Upsert           Delete (an orphan)        Delete
//! ```
//! `Insert` is a row that was not in the table before the run; `Upsert` one of which nothing is known;
//! `Partial` one with columns that only the table itself knows; `Trimmed` one update whose unchanged large values the
//! source sent with the old row (REPLICA IDENTITY FULL), so that they need not be written where the row is there.
//!
//! # Invariants
//! - A key has one outcome, so that the statements of a run touch each row once, and their order among
//!   each other does not matter, except that deletes go first.
//! - Deletes first is what makes this right for keys that are equal without having equal texts
//!   (`Relation::key_text_is_identity` is false: `1.0` and `1.00`). Such keys are two keys here. But the source
//!   has at most one of them at a time, and goes from one spelling to another by a delete of the first. So
//!   of all spellings at most one ends as something other than `Delete`, and with the deletes done before, it
//!   alone decides.
//! - In a catch-up of held changes nothing is known of any row: what is `Insert` here is an upsert then, see `plan`.
//! - A merged row takes each value from the latest change that has it.

use pgvalue::ValueError;
use replicator_types::{Batch, Change, Column, KeyHasher, Op, Relation, Tuple, Value};

/// Where a row's values are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Row {
    /// In the batch: the new values of this change.
    Change(u32),
    /// In [`Fold::merged_row`].
    Merged { start: u32, end: u32 },
}

/// What is to be done for a key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Outcome {
    /// Add the row; no row of this key was there before.
    Insert(Row),
    /// Make the row so, whether or not there is one.
    Upsert(Row),
    /// Make the row so: where there is one, what is `Unchanged` in the new values of this change is as it was there.
    Trimmed(u32),
    /// Set what the row has, leave what is `Unchanged`.
    Partial(Row),
    /// Remove the row.
    Delete,
}

/// A change cannot be folded.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum KeyError {
    /// The source sent no key, or its bytes are broken.
    Missing,
    /// A value of it is not of its type.
    Value(ValueError),
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    hash: u64,
    key_start: u32,
    key_end: u32,
    /// None only between the slot's making and the end of the call that made it.
    outcome: Option<Outcome>,
}

const EMPTY: u32 = u32::MAX;

/// Folds the changes of one table. Memory grows with the run, not with each row.
#[derive(Debug, Default)]
pub(crate) struct Fold {
    /// Keys, each as a tuple of the key's columns.
    keys: Vec<u8>,
    slots: Vec<Slot>,
    /// Open addressing: indexes into `slots`, at most half full, a power of two long.
    index: Vec<u32>,
    /// Merged rows, as tuples.
    merged: Vec<u8>,
    /// Updates of rows that an earlier change had deleted and that could not be made whole.
    orphans: u64,
}

impl Fold {
    /// Adds change `at` of `batch`.
    ///
    /// # Errors
    /// When the change lacks its key; nothing was added then.
    pub(crate) fn add(&mut self, batch: &Batch, at: u32) -> Result<(), KeyError> {
        let change = batch.change(at as usize);
        match change.op {
            Op::Insert | Op::Update => {
                if change.key_changed {
                    let old =
                        self.slot(change.relation, change.old_key_values().ok_or(KeyError::Missing)?)?;
                    self.set(old, Outcome::Delete);
                }
                let slot = self.slot(change.relation, change.key_values())?;
                self.write(slot, batch, &change, at);
            }
            Op::Delete => {
                let slot = self.slot(change.relation, change.old_key_values().ok_or(KeyError::Missing)?)?;
                self.set(slot, Outcome::Delete);
            }
            Op::Truncate | Op::Schema | Op::Apart | Op::Message => {}
        }
        Ok(())
    }

    /// Each key, its columns in the relation's order, and its outcome; by the key's first appearance.
    pub(crate) fn outcomes(&self) -> impl Iterator<Item = (Tuple<'_>, Outcome)> + '_ {
        self.slots.iter().filter_map(|slot| Some((Tuple::from_checked(self.key(slot)), slot.outcome?)))
    }

    /// The values of a [`Row::Merged`].
    pub(crate) fn merged_row(&self, start: u32, end: u32) -> Tuple<'_> {
        Tuple::from_checked(self.merged.get(start as usize..end as usize).unwrap_or_default())
    }

    /// Updates dropped because their row was deleted before and the rest of it is unknown. The source does
    /// not send such a thing; a filter on rows might.
    pub(crate) fn orphans(&self) -> u64 {
        self.orphans
    }

    fn write(&mut self, slot: usize, batch: &Batch, change: &Change<'_>, at: u32) {
        let before = self.slots.get(slot).and_then(|slot| slot.outcome);
        let new = Row::Change(at);
        let after = match (before, change.unresolved) {
            (None, false) if change.op == Op::Insert => Outcome::Insert(new),
            (Some(Outcome::Insert(_)), false) if change.op == Op::Update => Outcome::Insert(new),
            (None, false) if is_trimmed(change) => Outcome::Trimmed(at),
            (_, false) => Outcome::Upsert(new),
            (None, true) => Outcome::Partial(new),
            (Some(Outcome::Delete), true) => {
                self.orphans += 1;
                Outcome::Delete
            }
            (Some(Outcome::Insert(row)), true) => Outcome::Insert(self.merge(batch, row, change).0),
            (Some(Outcome::Upsert(row)), true) => Outcome::Upsert(self.merge(batch, row, change).0),
            (Some(Outcome::Trimmed(at)), true) => {
                Outcome::Upsert(self.merge(batch, Row::Change(at), change).0)
            }
            (Some(Outcome::Partial(row)), true) => match self.merge(batch, row, change) {
                (row, true) => Outcome::Upsert(row),
                (row, false) => Outcome::Partial(row),
            },
        };
        self.set(slot, after);
    }

    fn set(&mut self, slot: usize, outcome: Outcome) {
        if let Some(slot) = self.slots.get_mut(slot) {
            slot.outcome = Some(outcome);
        }
    }

    /// The new values of `change` over those of `before`, and whether all are known.
    fn merge(&mut self, batch: &Batch, before: Row, change: &Change<'_>) -> (Row, bool) {
        // An earlier merged row is in the vector that the new one is appended to.
        let earlier: Vec<u8> = match before {
            Row::Merged { start, end } => self.merged_row(start, end).as_bytes().to_vec(),
            Row::Change(_) => Vec::new(),
        };
        let start = self.merged.len();
        let count = change.new.map_or(0, Tuple::column_count);
        self.merged.extend_from_slice(&(count as u16).to_be_bytes());
        let whole = match before {
            Row::Change(at) => self.append_merged(batch.change(at as usize).new_values(), change),
            Row::Merged { .. } => self.append_merged(Tuple::from_checked(&earlier).values(), change),
        };
        (Row::Merged { start: start as u32, end: self.merged.len() as u32 }, whole)
    }

    fn append_merged<'v>(&mut self, before: impl Iterator<Item = Value<'v>>, change: &Change<'_>) -> bool {
        let mut before = before.fuse();
        let mut whole = true;
        for value in change.new_values() {
            let earlier = before.next();
            let value = if value == Value::Unchanged { earlier.unwrap_or(value) } else { value };
            whole &= value != Value::Unchanged;
            append(&mut self.merged, value);
        }
        whole
    }

    /// The slot of a key, a new one where there was none.
    /// A key is kept as text, whichever form it came in, so that one key has one slot.
    fn slot<'v>(
        &mut self,
        relation: &Relation,
        key: impl Iterator<Item = Value<'v>>,
    ) -> Result<usize, KeyError> {
        let key_start = self.keys.len();
        let mut hasher = KeyHasher::new(0);
        let mut columns = 0_u16;
        self.keys.extend_from_slice(&[0; 2]);
        let key_columns = relation.columns.iter().filter(|column| column.is_key);
        for (value, column) in key.zip(key_columns) {
            if let Err(error) = append_text(&mut self.keys, column, value, &mut hasher) {
                self.keys.truncate(key_start);
                return Err(error);
            }
            columns += 1;
        }
        match self.keys.get_mut(key_start..).and_then(<[u8]>::first_chunk_mut) {
            Some(count) if columns > 0 => *count = columns.to_be_bytes(),
            _ => {
                self.keys.truncate(key_start);
                return Err(KeyError::Missing);
            }
        }
        if (self.slots.len() + 1) * 2 > self.index.len() {
            self.grow();
        }
        let hash = hasher.finish();
        let mask = self.index.len() - 1;
        let mut place = hash as usize & mask;
        loop {
            let known = self.index[place];
            let Some(slot) = self.slots.get(known as usize) else { break };
            if slot.hash == hash && self.key(slot) == &self.keys[key_start..] {
                self.keys.truncate(key_start);
                return Ok(known as usize);
            }
            place = (place + 1) & mask;
        }
        self.index[place] = self.slots.len() as u32;
        let key_end = self.keys.len() as u32;
        self.slots.push(Slot { hash, key_start: key_start as u32, key_end, outcome: None });
        Ok(self.slots.len() - 1)
    }

    fn key(&self, slot: &Slot) -> &[u8] {
        self.keys.get(slot.key_start as usize..slot.key_end as usize).unwrap_or_default()
    }

    fn grow(&mut self) {
        // A batch is mostly thousands of keys; from 256 on, doubling is soon there.
        let length = (self.index.len() * 2).max(256);
        self.index.clear();
        self.index.resize(length, EMPTY);
        for (number, slot) in self.slots.iter().enumerate() {
            let mut place = slot.hash as usize & (length - 1);
            while self.index[place] != EMPTY {
                place = (place + 1) & (length - 1);
            }
            self.index[place] = number as u32;
        }
    }
}

/// Whether it is an update that did not touch a value which the old row has.
fn is_trimmed(change: &Change<'_>) -> bool {
    change.op == Op::Update
        && change.old_is_full
        && !change.key_changed
        && change.new.is_some_and(Tuple::has_unchanged)
}

/// Adds a value of a key as text, and hashes it.
fn append_text(
    tuple: &mut Vec<u8>,
    column: &Column,
    value: Value<'_>,
    hasher: &mut KeyHasher,
) -> Result<(), KeyError> {
    let Value::Binary(binary) = value else {
        hasher.value(value.bytes().ok_or(KeyError::Missing)?);
        append(tuple, value);
        return Ok(());
    };
    tuple.extend_from_slice(b"t\0\0\0\0");
    let start = tuple.len();
    pgvalue::write_text(column, binary, tuple).map_err(KeyError::Value)?;
    let text = tuple.get(start..).unwrap_or_default();
    hasher.value(text);
    let length = (text.len() as u32).to_be_bytes();
    if let Some(place) = tuple.get_mut(start - length.len()..start) {
        place.copy_from_slice(&length);
    }
    Ok(())
}

/// Adds a value in the form that tuples have.
fn append(tuple: &mut Vec<u8>, value: Value<'_>) {
    let (kind, bytes) = match value {
        Value::Null => (b'n', None),
        Value::Unchanged => (b'u', None),
        Value::Text(bytes) => (b't', Some(bytes)),
        Value::Binary(bytes) => (b'b', Some(bytes)),
    };
    tuple.push(kind);
    if let Some(bytes) = bytes {
        tuple.extend_from_slice(&(bytes.len() as u32).to_be_bytes());
        tuple.extend_from_slice(bytes);
    }
}

#[cfg(test)]
mod tests;
