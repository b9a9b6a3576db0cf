//! The rows of a run, in the format of COPY that costs the target least.
//!
//! ```text
//!   folded run ─▶ every value as its column takes it (`passage`)? ─yes─▶ binary: moved, and parsed nowhere
//!                                                                 └no──▶ text: the target's input functions read it
//! ```
//! Keys to delete are texts in either case, since that is what they are folded by.

use crate::copy_binary::CopyBinary;
use crate::copy_text::{CopyText, Rows};
use crate::fold::{Fold, Outcome, Row};
use crate::multiset::old_values;
use crate::passage::Passage;
use crate::plan::{Keyed, Trimmed, bad_value};
use crate::target::Target;
use pgvalue::ValueError;
use replicator_sink::SinkError;
use replicator_types::{Batch, Change, Column, Phase, Tuple, Value};
use std::sync::Arc;

/// Why a value is not written.
enum Refusal {
    /// This format has no place for it; text has.
    Form,
    /// It is none of its type.
    Value(ValueError),
}

/// A format of COPY.
trait RowWriter {
    fn begin_row(&mut self);
    fn value(&mut self, column: &Column, passage: Passage, value: Value<'_>) -> Result<(), Refusal>;
    fn mask(&mut self, unchanged: impl Iterator<Item = bool>);
    fn end_row(&mut self);
    fn finish(self) -> Rows;
}

impl RowWriter for CopyText {
    fn begin_row(&mut self) {}

    #[inline]
    fn value(&mut self, column: &Column, _: Passage, value: Value<'_>) -> Result<(), Refusal> {
        CopyText::value(self, column, value).map_err(Refusal::Value)
    }

    fn mask(&mut self, unchanged: impl Iterator<Item = bool>) {
        CopyText::mask(self, unchanged);
    }

    fn end_row(&mut self) {
        CopyText::end_row(self);
    }

    fn finish(self) -> Rows {
        CopyText::finish(self)
    }
}

impl RowWriter for CopyBinary {
    fn begin_row(&mut self) {
        CopyBinary::begin_row(self);
    }

    #[inline]
    fn value(&mut self, _: &Column, passage: Passage, value: Value<'_>) -> Result<(), Refusal> {
        // As in text, whoever writes an unchanged value says elsewhere that it is none.
        let value = if value == Value::Unchanged { Value::Null } else { value };
        if !passage.takes(value) {
            return Err(Refusal::Form);
        }
        CopyBinary::value(self, value);
        Ok(())
    }

    fn mask(&mut self, unchanged: impl Iterator<Item = bool>) {
        CopyBinary::mask(self, unchanged);
    }

    fn end_row(&mut self) {}

    fn finish(self) -> Rows {
        CopyBinary::finish(self)
    }
}

/// Writes in binary where that goes, else in text.
fn in_best<T>(
    batch: &Batch,
    target: &Target,
    in_binary: impl FnOnce(&dyn Fn(usize) -> CopyBinary) -> Result<T, Refusal>,
    in_text: impl FnOnce() -> Result<T, Refusal>,
) -> Result<T, SinkError> {
    let is_open = |column: &crate::target::TargetColumn| column.passage != Passage::Closed;
    if !target.columns.is_empty() && target.columns.iter().all(is_open) {
        // A value's length takes no more here than with its kind in a tuple; a row begins with two bytes in both.
        let new = |columns: usize| CopyBinary::new(columns, batch.data_bytes() + 2);
        match in_binary(&new) {
            Err(Refusal::Form) => {}
            Err(Refusal::Value(error)) => return Err(bad_value(&target.relation, error)),
            Ok(done) => return Ok(done),
        }
    }
    in_text().map_err(|refusal| match refusal {
        Refusal::Value(error) => bad_value(&target.relation, error),
        Refusal::Form => SinkError::halt(format!(
            "a row of table {} has no form that COPY takes: this is a fault of the replicator",
            target.relation
        )),
    })
}

/// What is written for the keys of a fold.
///
/// # Errors
/// Reject when a value is none of its type.
pub(crate) fn keyed(batch: &Batch, fold: &Fold, target: &Arc<Target>) -> Result<Keyed, SinkError> {
    let columns = target.columns.len();
    in_best(
        batch,
        target,
        |new| {
            keyed_in(batch, fold, target, [new(columns), new(columns)], [new(columns + 1), new(columns + 1)])
        },
        || keyed_in(batch, fold, target, Default::default(), <[CopyText; 2]>::default()),
    )
}

fn keyed_in<W: RowWriter>(
    batch: &Batch,
    fold: &Fold,
    target: &Arc<Target>,
    [mut upserts, mut inserts]: [W; 2],
    [mut partials, mut trimmed]: [W; 2],
) -> Result<Keyed, Refusal> {
    let mut deletes = CopyText::default();
    let mut trimmed_changes = Vec::new();
    // A held change may be older than the row that the copy brought.
    let is_catch_up = batch.phase() == Phase::CatchUp;
    for (key, outcome) in fold.outcomes() {
        match outcome {
            Outcome::Delete => {
                let columns = target.relation.columns.iter().filter(|column| column.is_key);
                for (value, column) in key.values().zip(columns) {
                    deletes.value(column, value).map_err(Refusal::Value)?;
                }
                deletes.end_row();
            }
            Outcome::Insert(row) if !is_catch_up => {
                folded_row(&mut inserts, batch, fold, target, key, row)?;
            }
            Outcome::Insert(row) | Outcome::Upsert(row) => {
                folded_row(&mut upserts, batch, fold, target, key, row)?;
            }
            Outcome::Trimmed(at) if is_catch_up || !target.has_room_for_mask() => {
                folded_row(&mut upserts, batch, fold, target, key, Row::Change(at))?;
            }
            Outcome::Trimmed(at) => {
                let values = || batch.change(at as usize).new.map(Tuple::values).into_iter().flatten();
                partial_row(&mut trimmed, target, key, values(), values())?;
                trimmed_changes.push(at);
            }
            Outcome::Partial(Row::Change(at)) => {
                let values = || batch.change(at as usize).new_values();
                partial_row(&mut partials, target, key, values(), values())?;
            }
            Outcome::Partial(Row::Merged { start, end }) => {
                let values = fold.merged_row(start, end).values();
                partial_row(&mut partials, target, key, values.clone(), values)?;
            }
        }
    }
    Ok(Keyed {
        target: Arc::clone(target),
        deletes: deletes.finish(),
        upserts: upserts.finish(),
        partials: partials.finish(),
        trimmed: Trimmed { rows: trimmed.finish(), changes: trimmed_changes },
        inserts: inserts.finish(),
    })
}

/// The new rows of these changes of the batch, whole; their values are all known.
///
/// # Errors
/// Reject when a value is none of its type.
pub(crate) fn whole_rows<'b>(
    batch: &Batch,
    target: &Target,
    changes: impl Iterator<Item = Change<'b>> + Clone,
) -> Result<Rows, SinkError> {
    whole(batch, target, changes.map(|change| change.new_values()))
}

/// The old rows of these changes, whole.
///
/// # Errors
/// Reject when a value is none of its type.
pub(crate) fn whole_old_rows<'b>(
    batch: &Batch,
    target: &Target,
    changes: impl Iterator<Item = Change<'b>> + Clone,
) -> Result<Rows, SinkError> {
    whole(batch, target, changes.map(|change| old_values(&change)))
}

fn whole<'b, R: Iterator<Item = Value<'b>>>(
    batch: &Batch,
    target: &Target,
    rows: impl Iterator<Item = R> + Clone,
) -> Result<Rows, SinkError> {
    let again = rows.clone();
    in_best(
        batch,
        target,
        |new| rows_in(new(target.columns.len()), target, rows),
        || rows_in(CopyText::default(), target, again),
    )
}

fn rows_in<'b, W: RowWriter, R: Iterator<Item = Value<'b>>>(
    mut rows: W,
    target: &Target,
    all: impl Iterator<Item = R>,
) -> Result<Rows, Refusal> {
    for row in all {
        rows.begin_row();
        values(&mut rows, target, Tuple::from_checked(&[]), row)?;
        rows.end_row();
    }
    Ok(rows.finish())
}

fn folded_row<W: RowWriter>(
    rows: &mut W,
    batch: &Batch,
    fold: &Fold,
    target: &Target,
    key: Tuple<'_>,
    row: Row,
) -> Result<(), Refusal> {
    rows.begin_row();
    match row {
        Row::Change(at) => values(rows, target, key, batch.change(at as usize).new_values())?,
        Row::Merged { start, end } => values(rows, target, key, fold.merged_row(start, end).values())?,
    }
    rows.end_row();
    Ok(())
}

fn partial_row<'v, W: RowWriter>(
    rows: &mut W,
    target: &Target,
    key: Tuple<'_>,
    row: impl Iterator<Item = Value<'v>>,
    again: impl Iterator<Item = Value<'v>>,
) -> Result<(), Refusal> {
    rows.begin_row();
    values(rows, target, key, row)?;
    let written = again.zip(&target.is_written).filter(|(_, is_written)| **is_written);
    rows.mask(written.map(|(value, _)| value == Value::Unchanged));
    rows.end_row();
    Ok(())
}

/// A row's values, those that the target takes. A value of the key that the update did not touch, and that
/// was too large to be sent with it, is in the key.
fn values<'v, W: RowWriter>(
    rows: &mut W,
    target: &Target,
    key: Tuple<'_>,
    row: impl Iterator<Item = Value<'v>>,
) -> Result<(), Refusal> {
    let mut key = key.values();
    let mut written = target.columns.iter();
    for ((value, is_written), column) in row.zip(&target.is_written).zip(&target.relation.columns) {
        let of_key = if column.is_key { key.next() } else { None };
        if !is_written {
            continue;
        }
        let value = match (value, of_key) {
            (Value::Unchanged, Some(of_key)) => of_key,
            (value, _) => value,
        };
        let passage = written.next().map_or(Passage::Closed, |column| column.passage);
        rows.value(column, passage, value)?;
    }
    // Where it tells rows apart by their number of values, one cut short would be taken for another's.
    if written.next().is_some() { Err(Refusal::Form) } else { Ok(()) }
}
