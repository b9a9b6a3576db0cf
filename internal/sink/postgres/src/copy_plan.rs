//! What a batch of copied rows comes to: one table's rows, in the format that costs the target least (`encode`).
//!
//! Fresh rows go straight into the table. Rows that may be there already are staged, and replace those that have their
//! keys.

use crate::copied::Mark;
use crate::copy_text::Rows;
use crate::encode;
use crate::plan::{Keyed, Plan, Progress, Run, Step, Table, Trimmed};
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
        let rows = encode::whole_rows(batch, target, (0..batch.len()).map(|at| batch.change(at)))?;
        let first = batch.first_position().unwrap_or_default();
        let mark = fresh.then_some(Mark { relation_oid: relation.oid, first });
        let table = if relation.has_key() {
            let (upserts, inserts) = if fresh { (Rows::default(), rows) } else { (rows, Rows::default()) };
            let (deletes, partials, trimmed) = (Rows::default(), Rows::default(), Trimmed::default());
            let target = Arc::clone(target);
            Table::Keyed(Box::new(Keyed { target, deletes, upserts, partials, trimmed, inserts }))
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
