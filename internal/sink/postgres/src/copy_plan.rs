//! What a batch of copied rows comes to: one table's rows, in the format that costs the target least.
//!
//! Fresh rows go straight into the table. Where every column takes the bytes as they came (`passage`), that is a
//! binary COPY, and a value is moved twice here and parsed nowhere. Rows that may be there already are staged, and
//! replace those that have their keys.

use crate::copied::Mark;
use crate::copy_binary::CopyBinary;
use crate::copy_text::{CopyText, Rows};
use crate::passage::Passage;
use crate::plan::{Keyed, Plan, Progress, Run, Step, Table, text_row};
use crate::target::Target;
use replicator_sink::SinkError;
use replicator_types::{Batch, Op};
use std::sync::Arc;

impl Plan {
    /// Plans the rows of a copy.
    ///
    /// # Errors
    /// Halt when the rows replace what has their key and the table has none, or the batch is not one of a copy.
    pub(crate) fn of_copy(batch: &Batch, target: &Arc<Target>, fresh: bool) -> Result<Self, SinkError> {
        let relation = &target.relation;
        if batch.relations().len() != 1 || batch.changes().any(|change| change.op != Op::Insert) {
            return Err(SinkError::halt(format!(
                "a batch of the copy of {relation} holds something else than its rows: this is a fault of the replicator"
            )));
        }
        if !fresh && !relation.has_key() {
            return Err(SinkError::halt(format!(
                "the copy of table {relation} cannot go on where it was: the table has no key by which rows that are in \
                 would be known; copy it again from the beginning (replicator resync --table {relation})"
            )));
        }
        if let Some(text) = target.key_is_missing.as_ref().filter(|_| relation.has_key()) {
            return Err(SinkError::halt(text.clone()));
        }
        let rows = match binary_rows(batch, target) {
            Some(rows) => rows,
            None => text_rows(batch, target)?,
        };
        let first = batch.first_position().unwrap_or_default();
        let mark = fresh.then_some(Mark { relation_oid: relation.oid, first });
        let table = if relation.has_key() {
            let (upserts, inserts) = if fresh { (Rows::default(), rows) } else { (rows, Rows::default()) };
            let (deletes, partials) = (Rows::default(), Rows::default());
            Table::Keyed(Keyed { target: Arc::clone(target), deletes, upserts, partials, inserts })
        } else {
            Table::Keyless(Arc::clone(target), vec![Run::Insert(rows)])
        };
        Ok(Self {
            steps: vec![Step::Tables(vec![table])],
            first: Some(first),
            last: batch.last_position().unwrap_or_default(),
            progress: Progress::Beside(mark),
            orphans: 0,
        })
    }
}

/// None where a value is not in the form that its column takes.
fn binary_rows(batch: &Batch, target: &Target) -> Option<Rows> {
    let columns = &target.columns;
    if columns.is_empty() || columns.iter().any(|column| column.passage == Passage::Closed) {
        return None;
    }
    // A value's length takes no more here than with its kind in a tuple; a row begins with two bytes in both.
    let mut rows = CopyBinary::new(columns.len(), batch.data_bytes() + 2);
    for change in batch.changes() {
        rows.begin_row();
        let mut columns = columns.iter();
        for (value, is_written) in change.new?.values().zip(&target.is_written) {
            if !is_written {
                continue;
            }
            if !columns.next()?.passage.takes(value) {
                return None;
            }
            rows.value(value);
        }
        // A row that is cut short would be taken for one with other columns.
        if columns.next().is_some() {
            return None;
        }
    }
    Some(rows.finish())
}

fn text_rows(batch: &Batch, target: &Target) -> Result<Rows, SinkError> {
    let mut rows = CopyText::default();
    for change in batch.changes() {
        text_row(&mut rows, target, &change)?;
    }
    Ok(rows.finish())
}
