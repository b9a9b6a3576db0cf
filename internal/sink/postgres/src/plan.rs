//! What a batch comes to, as the input of statements.
//!
//! ```text
//!   batch ─▶ steps, one after the other
//!            ├─ Tables: folded rows of keyed tables, runs of keyless ones; tables in any order, since
//!            │          triggers and foreign keys are off (`session_replication_role = replica`)
//!            ├─ Truncate: one statement
//!            └─ MoveRow: an update that changes a key and leaves columns that only the target has
//! ```
//!
//! # Invariants
//! - A step's rows of one table are of one version of it: a second version (or another table of the source that
//!   has taken the name) begins a new step.
//! - Within a step a keyed table's keys are distinct (see `fold`).
//! - What is encoded here is what is sent, at the first attempt and at each later one.

use crate::copy_text::{CopyText, IsBinary, Rows};
use crate::fold::{Fold, NoKey, Outcome, Row};
use crate::target::Target;
use replicator_sink::SinkError;
use replicator_types::{Batch, Change, Op, Position, Tuple, Value};
use std::sync::Arc;

/// A batch, ready to be applied.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    pub(crate) steps: Vec<Step>,
    /// The first change that is not applied yet, if any.
    pub(crate) first: Option<Position>,
    /// The last of the batch, applied or not.
    pub(crate) last: Position,
    /// Updates dropped while folding, see [`Fold::orphans`].
    pub(crate) orphans: u64,
}

#[derive(Debug)]
pub(crate) enum Step {
    Tables(Vec<Table>),
    Truncate(Truncate),
    /// The update at this index of the batch.
    MoveRow(Arc<Target>, u32),
}

#[derive(Debug)]
pub(crate) enum Table {
    Keyed(Keyed),
    Keyless(Arc<Target>, Vec<Run>),
}

/// A keyed table's rows of a step. Whole rows have all columns of the target, keys only the key's.
#[derive(Debug)]
pub(crate) struct Keyed {
    pub(crate) target: Arc<Target>,
    /// Keys to remove.
    pub(crate) deletes: Rows,
    /// Whole rows that may or may not be there.
    pub(crate) upserts: Rows,
    /// Rows and, as a last column, a bit for each that is unchanged.
    pub(crate) partials: Rows,
    /// Whole rows that were not there before.
    pub(crate) inserts: Rows,
}

/// A keyless table's changes, in order.
#[derive(Debug)]
pub(crate) enum Run {
    Insert(Rows),
    /// The updates and deletes at these indexes of the batch.
    OneByOne(Vec<u32>),
}

#[derive(Debug)]
pub(crate) struct Truncate {
    pub(crate) targets: Vec<Arc<Target>>,
    pub(crate) restart_identity: bool,
}

impl Plan {
    /// Plans the changes of `batch` that are not `applied`. `targets` are those of [`Batch::relations`].
    ///
    /// # Errors
    /// Reject when a change cannot be applied for want of its key or in the form it came in.
    pub(crate) fn of(
        batch: &Batch,
        targets: &[Arc<Target>],
        applied: impl Fn(&Change<'_>) -> bool,
    ) -> Result<Self, SinkError> {
        let mut planner = Planner { batch, targets, open: Vec::new(), plan: Self::default() };
        planner.plan.last = batch.last_position().unwrap_or_default();
        for (index, change) in batch.changes().enumerate() {
            if applied(&change) {
                continue;
            }
            let Some(target) = targets.get(change.relation_index) else { continue };
            planner.plan.first.get_or_insert(change.position);
            planner.add(index as u32, &change, target)?;
        }
        planner.close()?;
        Ok(planner.plan)
    }

    /// Whether it needs the batch's own rows when it is applied.
    pub(crate) fn needs_batch(&self) -> bool {
        self.steps.iter().any(|step| match step {
            Step::MoveRow(..) => true,
            Step::Truncate(_) => false,
            Step::Tables(tables) => tables.iter().any(|table| match table {
                Table::Keyed(_) => false,
                Table::Keyless(_, runs) => runs.iter().any(|run| matches!(run, Run::OneByOne(_))),
            }),
        })
    }

    /// Bytes of memory that its rows take.
    pub(crate) fn held_bytes(&self) -> usize {
        let of_table = |table: &Table| match table {
            Table::Keyed(keyed) => [&keyed.deletes, &keyed.upserts, &keyed.partials, &keyed.inserts]
                .map(|rows| rows.held_bytes)
                .iter()
                .sum(),
            Table::Keyless(_, runs) => runs
                .iter()
                .map(|run| match run {
                    Run::Insert(rows) => rows.held_bytes,
                    Run::OneByOne(indexes) => indexes.len() * size_of::<u32>(),
                })
                .sum::<usize>(),
        };
        let of_step = |step: &Step| match step {
            Step::Tables(tables) => tables.iter().map(of_table).sum(),
            Step::Truncate(_) | Step::MoveRow(..) => 0,
        };
        self.steps.iter().map(of_step).sum()
    }
}

struct Planner<'b> {
    batch: &'b Batch,
    targets: &'b [Arc<Target>],
    /// The open step's tables, by first appearance.
    open: Vec<Open>,
    plan: Plan,
}

struct Open {
    relation_index: usize,
    changes: OpenChanges,
}

enum OpenChanges {
    Keyed(Fold),
    Keyless(Vec<OpenRun>),
}

enum OpenRun {
    Insert(CopyText),
    OneByOne(Vec<u32>),
}

impl Planner<'_> {
    fn add(&mut self, index: u32, change: &Change<'_>, target: &Arc<Target>) -> Result<(), SinkError> {
        match change.op {
            Op::Truncate => return self.truncate(change, target),
            Op::Update if change.key_changed && change.unresolved => {
                self.close()?;
                self.plan.steps.push(Step::MoveRow(Arc::clone(target), index));
                return Ok(());
            }
            Op::Insert | Op::Update | Op::Delete => {}
        }
        let batch = self.batch;
        match &mut self.open_for(change)?.changes {
            OpenChanges::Keyed(fold) => fold.add(batch, index).map_err(|NoKey| no_key(change)),
            OpenChanges::Keyless(runs) => match (change.op, runs.last_mut()) {
                (Op::Insert, Some(OpenRun::Insert(rows))) => new_row(rows, target, change),
                (Op::Insert, _) => {
                    let mut rows = CopyText::default();
                    new_row(&mut rows, target, change)?;
                    runs.push(OpenRun::Insert(rows));
                    Ok(())
                }
                _ if change.old.is_none() || !change.old_is_full => Err(no_key(change)),
                (_, Some(OpenRun::OneByOne(indexes))) => {
                    indexes.push(index);
                    Ok(())
                }
                _ => {
                    runs.push(OpenRun::OneByOne(vec![index]));
                    Ok(())
                }
            },
        }
    }

    /// Where the changes of this relation version are gathered.
    fn open_for(&mut self, change: &Change<'_>) -> Result<&mut Open, SinkError> {
        let relation_index = change.relation_index;
        let mut place = self.open.iter().rposition(|open| open.relation_index == relation_index);
        if place.is_none() {
            let table = self.targets.get(relation_index).map(|target| &target.table);
            let is_other_version =
                |open: &Open| self.targets.get(open.relation_index).map(|target| &target.table) == table;
            if self.open.iter().any(is_other_version) {
                self.close()?;
            }
            let changes = if change.relation.has_key() {
                OpenChanges::Keyed(Fold::default())
            } else {
                OpenChanges::Keyless(Vec::new())
            };
            self.open.push(Open { relation_index, changes });
            place = self.open.len().checked_sub(1);
        }
        place.and_then(|place| self.open.get_mut(place)).ok_or_else(|| no_key(change))
    }

    fn truncate(&mut self, change: &Change<'_>, target: &Arc<Target>) -> Result<(), SinkError> {
        self.close()?;
        if let Some(Step::Truncate(truncate)) = self.plan.steps.last_mut()
            && truncate.restart_identity == change.restart_identity
        {
            truncate.targets.push(Arc::clone(target));
            return Ok(());
        }
        self.plan.steps.push(Step::Truncate(Truncate {
            targets: vec![Arc::clone(target)],
            restart_identity: change.restart_identity,
        }));
        Ok(())
    }

    /// Ends the open step.
    fn close(&mut self) -> Result<(), SinkError> {
        let mut tables = Vec::with_capacity(self.open.len());
        for open in self.open.drain(..) {
            let Some(target) = self.targets.get(open.relation_index) else { continue };
            tables.push(match open.changes {
                OpenChanges::Keyed(fold) => {
                    self.plan.orphans += fold.orphans();
                    Table::Keyed(keyed(self.batch, &fold, target)?)
                }
                OpenChanges::Keyless(runs) => {
                    let runs = runs.into_iter().map(|run| match run {
                        OpenRun::Insert(rows) => Run::Insert(rows.finish()),
                        OpenRun::OneByOne(indexes) => Run::OneByOne(indexes),
                    });
                    Table::Keyless(Arc::clone(target), runs.collect())
                }
            });
        }
        if !tables.is_empty() {
            self.plan.steps.push(Step::Tables(tables));
        }
        Ok(())
    }
}

fn keyed(batch: &Batch, fold: &Fold, target: &Arc<Target>) -> Result<Keyed, SinkError> {
    let (mut deletes, mut upserts) = (CopyText::default(), CopyText::default());
    let (mut partials, mut inserts) = (CopyText::default(), CopyText::default());
    for (key, outcome) in fold.outcomes() {
        match outcome {
            Outcome::Delete => {
                for value in key.values() {
                    deletes.value(value).map_err(|IsBinary| is_binary(target))?;
                }
                deletes.end_row();
            }
            Outcome::Upsert(row) => whole_row(&mut upserts, batch, fold, target, key, row)?,
            Outcome::Insert(row) => whole_row(&mut inserts, batch, fold, target, key, row)?,
            Outcome::Partial(row) => match row {
                Row::Change(at) => {
                    let values = || batch.change(at as usize).new_values();
                    partial_row(&mut partials, target, key, values(), values())?;
                }
                Row::Merged { start, end } => {
                    let values = fold.merged_row(start, end).values();
                    partial_row(&mut partials, target, key, values.clone(), values)?;
                }
            },
        }
    }
    Ok(Keyed {
        target: Arc::clone(target),
        deletes: deletes.finish(),
        upserts: upserts.finish(),
        partials: partials.finish(),
        inserts: inserts.finish(),
    })
}

fn whole_row(
    rows: &mut CopyText,
    batch: &Batch,
    fold: &Fold,
    target: &Target,
    key: Tuple<'_>,
    row: Row,
) -> Result<(), SinkError> {
    match row {
        Row::Change(at) => values(rows, target, key, batch.change(at as usize).new_values())?,
        Row::Merged { start, end } => values(rows, target, key, fold.merged_row(start, end).values())?,
    }
    rows.end_row();
    Ok(())
}

fn partial_row<'v>(
    rows: &mut CopyText,
    target: &Target,
    key: Tuple<'_>,
    row: impl Iterator<Item = Value<'v>>,
    again: impl Iterator<Item = Value<'v>>,
) -> Result<(), SinkError> {
    values(rows, target, key, row)?;
    let written = again.zip(&target.is_written).filter(|(_, is_written)| **is_written);
    rows.mask(written.map(|(value, _)| value == Value::Unchanged));
    rows.end_row();
    Ok(())
}

/// A row's values, those that the target takes. A value of the key that the update did not touch, and that
/// was too large to be sent with it, is in the key.
fn values<'v>(
    rows: &mut CopyText,
    target: &Target,
    key: Tuple<'_>,
    row: impl Iterator<Item = Value<'v>>,
) -> Result<(), SinkError> {
    let mut key = key.values();
    for ((value, is_written), column) in row.zip(&target.is_written).zip(&target.relation.columns) {
        let of_key = if column.is_key { key.next() } else { None };
        if !is_written {
            continue;
        }
        let done = match (value, of_key) {
            (Value::Unchanged, Some(of_key)) => rows.value(of_key),
            (value, _) => rows.value(value),
        };
        done.map_err(|IsBinary| is_binary(target))?;
    }
    Ok(())
}

/// A row of a keyless table.
fn new_row(rows: &mut CopyText, target: &Target, change: &Change<'_>) -> Result<(), SinkError> {
    if change.unresolved {
        return Err(no_key(change));
    }
    for (value, is_written) in change.new_values().zip(&target.is_written) {
        if *is_written {
            rows.value(value).map_err(|IsBinary| is_binary(target))?;
        }
    }
    rows.end_row();
    Ok(())
}

fn no_key(change: &Change<'_>) -> SinkError {
    SinkError::reject(format!(
        "a change of table {} at {} came without the old row's key, so the row cannot be found; give the table a \
         primary key or set REPLICA IDENTITY FULL on it",
        change.relation, change.position
    ))
}

fn is_binary(target: &Target) -> SinkError {
    SinkError::halt(format!(
        "values of table {} came in binary form, which this sink does not take; have the source send text",
        target.relation
    ))
}
