//! What a batch comes to, as the input of statements.
//!
//! ```text
//!   batch ─▶ steps, one after the other
//!            ├─ Tables: folded rows of keyed tables, runs of keyless ones or what many come to; in any order, since
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

use crate::copied::Mark;
use crate::copy_text::Rows;
use crate::encode;
use crate::fold::{Fold, KeyError};
use crate::multiset;
use crate::target::Target;
use pgvalue::ValueError;
use replicator_sink::SinkError;
use replicator_types::{Batch, Change, Op, Phase, Position, Relation};
use std::sync::Arc;

/// A batch, ready to be applied.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    pub(crate) steps: Vec<Step>,
    /// The first change that is not applied yet, if any.
    pub(crate) first: Option<Position>,
    /// The last of the batch, applied or not. Zero where the batch has no rows and truncates.
    pub(crate) last: Position,
    /// What becomes of the checkpoint.
    pub(crate) progress: Progress,
    /// Updates dropped while folding, see [`Fold::orphans`].
    pub(crate) orphans: u64,
}

/// How a batch's transaction is told from those of another process, and from an earlier try of itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Progress {
    /// The checkpoint row goes to the batch's last change.
    #[default]
    Advance,
    /// The checkpoint row is held where it is. The batch has a mark where a second try would do harm.
    Stay(Option<Mark>),
    /// There is no checkpoint row.
    Beside(Option<Mark>),
}

#[derive(Debug)]
pub(crate) enum Step {
    Tables(Vec<Table>),
    Truncate(Truncate),
    /// The update at this index of the batch, whether it changes the key or not.
    MoveRow(Arc<Target>, u32),
    /// The same, where the row may be at its new key already.
    MoveRowIfNotMoved(Arc<Target>, u32),
}

#[derive(Debug)]
pub(crate) enum Table {
    Keyed(Box<Keyed>),
    Keyless(Arc<Target>, Vec<Run>),
    /// Many changes of one without a key at once.
    Multiset(Box<Multiset>),
}

/// See [`multiset`].
#[derive(Debug)]
pub(crate) struct Multiset {
    pub(crate) target: Arc<Target>,
    /// Whole rows, each to be removed once as often as it is in here.
    pub(crate) removed: Rows,
    pub(crate) added: Rows,
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
    /// The same, of rows that are known whole.
    pub(crate) trimmed: Trimmed,
    /// Whole rows that were not there before.
    pub(crate) inserts: Rows,
}

/// Updates that are sent without the large values that they left as they were. Where that is not enough, because the
/// target lacks the row or it has to be written anew, the batch has the rest.
#[derive(Debug, Default)]
pub(crate) struct Trimmed {
    /// As [`Keyed::partials`].
    pub(crate) rows: Rows,
    /// The updates, as indexes of the batch.
    pub(crate) changes: Vec<u32>,
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
        let is_catch_up = batch.phase() == Phase::CatchUp;
        let mut mark = None;
        for (index, change) in batch.changes().enumerate() {
            // A schema change stands at the position of the change behind it, which is not in yet.
            if matches!(change.op, Op::Schema | Op::Apart | Op::Message) {
                continue;
            }
            planner.plan.last = change.position;
            if applied(&change) {
                continue;
            }
            if !change.relation.has_key() && mark.is_none() {
                mark = Some(Mark { relation_oid: change.relation.oid, first: change.position });
            }
            let Some(target) = targets.get(change.relation_index) else { continue };
            planner.plan.first.get_or_insert(change.position);
            planner.add(index as u32, &change, target)?;
        }
        planner.close()?;
        if is_catch_up {
            planner.plan.progress = Progress::Stay(mark);
        }
        Ok(planner.plan)
    }

    /// The targets that it writes to; some of them more than once.
    pub(crate) fn targets(&self) -> impl Iterator<Item = &Arc<Target>> {
        self.steps.iter().flat_map(|step| {
            let (tables, one): (&[Table], Option<&Arc<Target>>) = match step {
                Step::Tables(tables) => (tables, None),
                Step::Truncate(_) => (&[], None),
                Step::MoveRow(target, _) | Step::MoveRowIfNotMoved(target, _) => (&[], Some(target)),
            };
            let of_tables = tables.iter().map(|table| match table {
                Table::Keyed(keyed) => &keyed.target,
                Table::Keyless(target, _) => target,
                Table::Multiset(multiset) => &multiset.target,
            });
            of_tables.chain(one)
        })
    }

    /// Whether it needs the batch's own rows when it is applied: to go by them one by one, to write whole what was
    /// trimmed, or to look for labels that an enum of the target lacks.
    pub(crate) fn needs_batch(&self) -> bool {
        let has_rows_in_it = self.steps.iter().any(|step| match step {
            Step::MoveRow(..) | Step::MoveRowIfNotMoved(..) => true,
            Step::Truncate(_) => false,
            Step::Tables(tables) => tables.iter().any(|table| match table {
                Table::Keyed(keyed) => !keyed.trimmed.changes.is_empty(),
                Table::Keyless(_, runs) => runs.iter().any(|run| matches!(run, Run::OneByOne(_))),
                Table::Multiset(_) => false,
            }),
        });
        has_rows_in_it || self.targets().any(|target| target.has_enums())
    }

    /// Bytes of memory that its rows take.
    pub(crate) fn held_bytes(&self) -> usize {
        let of_table = |table: &Table| match table {
            Table::Keyed(keyed) => {
                let Keyed { deletes, upserts, partials, trimmed, inserts, .. } = keyed.as_ref();
                let rows = [deletes, upserts, partials, &trimmed.rows, inserts].map(|rows| rows.held_bytes);
                rows.iter().sum::<usize>() + trimmed.changes.len() * size_of::<u32>()
            }
            Table::Keyless(_, runs) => runs
                .iter()
                .map(|run| match run {
                    Run::Insert(rows) => rows.held_bytes,
                    Run::OneByOne(indexes) => indexes.len() * size_of::<u32>(),
                })
                .sum::<usize>(),
            Table::Multiset(multiset) => multiset.removed.held_bytes + multiset.added.held_bytes,
        };
        let of_step = |step: &Step| match step {
            Step::Tables(tables) => tables.iter().map(of_table).sum(),
            Step::Truncate(_) | Step::MoveRow(..) | Step::MoveRowIfNotMoved(..) => 0,
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

/// Indexes of the batch.
enum OpenRun {
    Insert(Vec<u32>),
    OneByOne(Vec<u32>),
}

impl OpenRun {
    fn indexes(&self) -> &[u32] {
        match self {
            Self::Insert(indexes) | Self::OneByOne(indexes) => indexes,
        }
    }
}

impl Planner<'_> {
    fn add(&mut self, index: u32, change: &Change<'_>, target: &Arc<Target>) -> Result<(), SinkError> {
        if change.op == Op::Truncate {
            return self.truncate(change, target);
        }
        if let Some(text) = target.key_is_missing.as_ref().filter(|_| change.relation.has_key()) {
            return Err(SinkError::halt(format!(
                "change {} is of an earlier version of table {}, whose key the target no longer has: {text}; or copy the \
                 table again",
                change.position, change.relation
            ))
            .of_table(change.relation.oid));
        }
        let has_no_stage = || change.relation.has_key() && !target.has_room_for_mask();
        if change.op == Op::Update && change.unresolved && (change.key_changed || has_no_stage()) {
            self.close()?;
            let target = Arc::clone(target);
            self.plan.steps.push(match self.batch.phase() {
                Phase::CatchUp if change.key_changed => Step::MoveRowIfNotMoved(target, index),
                _ => Step::MoveRow(target, index),
            });
            return Ok(());
        }
        let batch = self.batch;
        match &mut self.open_for(change)?.changes {
            OpenChanges::Keyed(fold) => fold.add(batch, index).map_err(|error| match error {
                KeyError::Missing => no_key(change),
                KeyError::Value(error) => bad_value(&target.relation, error),
            }),
            OpenChanges::Keyless(runs) => match (change.op, runs.last_mut()) {
                (Op::Insert, _) if change.unresolved => Err(no_key(change)),
                (Op::Insert, Some(OpenRun::Insert(indexes))) => {
                    indexes.push(index);
                    Ok(())
                }
                (Op::Insert, _) => {
                    runs.push(OpenRun::Insert(vec![index]));
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
                    Table::Keyed(Box::new(encode::keyed(self.batch, &fold, target)?))
                }
                OpenChanges::Keyless(runs) => {
                    if let Some(multiset) = as_multiset(self.batch, target, &runs)? {
                        tables.push(Table::Multiset(Box::new(multiset)));
                        continue;
                    }
                    let runs = runs.into_iter().map(|run| {
                        Ok(match run {
                            OpenRun::Insert(indexes) => {
                                let changes = changes_at(self.batch, &indexes);
                                Run::Insert(encode::whole_rows(self.batch, target, changes)?)
                            }
                            OpenRun::OneByOne(indexes) => Run::OneByOne(indexes),
                        })
                    });
                    Table::Keyless(Arc::clone(target), runs.collect::<Result<_, SinkError>>()?)
                }
            });
        }
        if !tables.is_empty() {
            self.plan.steps.push(Step::Tables(tables));
        }
        Ok(())
    }
}

/// The changes of a batch at these indexes.
pub(crate) fn changes_at<'b>(
    batch: &'b Batch,
    indexes: &'b [u32],
) -> impl Iterator<Item = Change<'b>> + Clone + use<'b> {
    indexes.iter().map(|index| batch.change(*index as usize))
}

/// What the runs come to at once, where that pays.
fn as_multiset(batch: &Batch, target: &Arc<Target>, runs: &[OpenRun]) -> Result<Option<Multiset>, SinkError> {
    let one_by_one = runs.iter().filter(|run| matches!(run, OpenRun::OneByOne(_)));
    if one_by_one.map(|run| run.indexes().len()).sum::<usize>() < multiset::CHANGES_MIN {
        return Ok(None);
    }
    let indexes: Vec<u32> = runs.iter().flat_map(OpenRun::indexes).copied().collect();
    let Some(net) = multiset::net(batch, target, &indexes) else { return Ok(None) };
    Ok(Some(Multiset {
        target: Arc::clone(target),
        removed: encode::whole_old_rows(batch, target, changes_at(batch, &net.removed))?,
        added: encode::whole_rows(batch, target, changes_at(batch, &net.added))?,
    }))
}

fn no_key(change: &Change<'_>) -> SinkError {
    SinkError::reject(format!(
        "a change of table {} at {} came without the old row's key, so the row cannot be found; give the table a \
         primary key or set REPLICA IDENTITY FULL on it",
        change.relation, change.position
    ))
    .of_table(change.relation.oid)
}

pub(crate) fn bad_value(relation: &Relation, error: ValueError) -> SinkError {
    SinkError::reject(format!(
        "a value of table {relation} cannot be read: {error}; set source.binary = \"off\" to have it sent as text"
    ))
    .of_table(relation.oid)
}
