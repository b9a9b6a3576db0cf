//! From a batch to the requests that write it.
//!
//! ```text
//!   changes ──by table──▶ Block ──▶ Body ─▶ Step::Insert ┐ side by side
//!                         Block ──▶ Body ─▶ Step::Insert ┘
//!   truncate ───────────────────────────▶ Step::Truncate   after all before it, before all after it
//! ```
//!
//! No I/O happens here. In a mirror the order of rows in a block means nothing: their versions decide.

use crate::compress::{Body, FrameWriter};
use crate::layout::{Layout, Operation};
use crate::native::{Block, Column, Problem, RowMark, RowProblem};
use crate::parse::Misfit;
use crate::tables::Target;
use crate::toast::Fills;
use replicator_config::{ClickHouseMode, DeleteMode};
use replicator_sink::SinkError;
use replicator_types::{Batch, Change, Op, Phase, Position, Value};
use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;

/// Characters of a value that go into an error.
const VALUE_CHARS_MAX: usize = 64;

/// A table of the batch, with the buffers for its rows.
#[derive(Debug)]
pub(crate) struct TableEncoder {
    pub(crate) target: Arc<Target>,
    block: Block,
    first: Option<Position>,
    last: Position,
}

/// A request of a write.
#[derive(Debug)]
pub(crate) enum Step {
    /// Rows of one table.
    Insert(Insert),
    /// A table emptied of all that is older.
    Truncate(Arc<Target>, Position),
}

/// Rows of one table.
#[derive(Debug)]
pub(crate) struct Insert {
    pub(crate) target: Arc<Target>,
    pub(crate) body: Body,
    pub(crate) rows: usize,
    /// What the rows take at the server, by estimate.
    pub(crate) memory_bytes: usize,
    pub(crate) first: Position,
    pub(crate) last: Position,
}

impl Insert {
    /// Has the rows of `next` follow, which are of the same table.
    pub(crate) fn join(&mut self, next: Self) {
        self.rows += next.rows;
        self.memory_bytes += next.memory_bytes;
        self.last = next.last;
        self.body.join(next.body);
    }
}

/// Values that were changed to fit, for one column.
#[derive(Debug)]
pub(crate) struct Adjusted {
    pub(crate) target: Arc<Target>,
    pub(crate) column: String,
    pub(crate) values: u64,
}

/// Why a batch was not encoded.
#[derive(Debug)]
pub(crate) enum EncodeError {
    /// A NULL came for a column that is not Nullable and could be: index of the table among the encoders,
    /// index of the column.
    NeedsNullable(usize, usize),
    Failed(SinkError),
}

/// What encoding a batch takes, beside the batch.
#[derive(Debug)]
pub(crate) struct Encoder {
    /// One for each of the batch's relations, in their order.
    pub(crate) tables: Vec<TableEncoder>,
    /// In a history: versions that are there already, for each of the batch's relations.
    pub(crate) present: Vec<HashSet<u128>>,
    pub(crate) fills: Fills,
    pub(crate) layout: Layout,
    pub(crate) frames: FrameWriter,
}

/// What came of a batch.
#[derive(Debug, Default)]
pub(crate) struct Encoded {
    pub(crate) steps: Vec<Step>,
    pub(crate) adjusted: Vec<Adjusted>,
}

impl TableEncoder {
    pub(crate) fn new(target: Arc<Target>, columns: Vec<Column>) -> Self {
        let block = Block::new(columns, target.mark_column);
        Self { target, block, first: None, last: Position::ZERO }
    }

    fn clear(&mut self) {
        self.block.clear();
        self.first = None;
    }

    fn mark<'t>(&mut self, change: &Change<'t>, position: Position, mark: u8) -> RowMark<'t> {
        self.first.get_or_insert(position);
        self.last = position;
        RowMark { position, transaction: change.transaction, mark }
    }

    /// The rows so far as a step, if there are any.
    fn flush(&mut self, frames: &mut FrameWriter, out: &mut Encoded) {
        let Some(first) = self.first.take() else { return };
        for column in self.block.columns().iter().filter(|column| column.adjusted() > 0) {
            out.adjusted.push(Adjusted {
                target: Arc::clone(&self.target),
                column: column.name().to_owned(),
                values: column.adjusted(),
            });
        }
        let (rows, body) = (self.block.rows(), self.block.body(frames));
        let insert = Insert {
            target: Arc::clone(&self.target),
            rows,
            // A text has an offset of eight bytes there.
            memory_bytes: body.raw_bytes + rows * self.block.columns().len() * size_of::<u64>(),
            body,
            first,
            last: self.last,
        };
        self.block.clear();
        out.steps.push(Step::Insert(insert));
    }
}

impl Encoder {
    /// Turns changes of a batch, by their numbers, into steps. After an error it can be called again.
    pub(crate) fn encode(&mut self, batch: &Batch, changes: Range<usize>) -> Result<Encoded, EncodeError> {
        self.tables.iter_mut().for_each(TableEncoder::clear);
        // A call that failed may have left something.
        self.frames = std::mem::take(&mut self.frames).emptied();
        let mut out = Encoded::default();
        let copied = matches!(batch.phase(), Phase::Copy { .. });
        for index in changes {
            let change = batch.change(index);
            if change.op == Op::Truncate && self.layout.is_mirror() {
                for table in &mut self.tables {
                    table.flush(&mut self.frames, &mut out);
                }
                let table = self.tables.get(change.relation_index);
                // What came after one that is only replayed would be left out.
                let is_replayed =
                    |target: &Target| target.replayed_before.is_some_and(|before| change.position < before);
                if let Some(table) = table.filter(|table| !is_replayed(&table.target)) {
                    out.steps.push(Step::Truncate(Arc::clone(&table.target), change.position));
                }
                continue;
            }
            self.push(index, &change, copied).map_err(|problem| match self.explain(&change, problem) {
                EncodeError::Failed(error) => EncodeError::Failed(error.of_table(change.relation.oid)),
                other => other,
            })?;
        }
        for table in &mut self.tables {
            table.flush(&mut self.frames, &mut out);
        }
        Ok(out)
    }

    #[inline]
    fn push(&mut self, index: usize, change: &Change<'_>, copied: bool) -> Result<(), PushError> {
        // The table was brought into that shape when the batch was prepared; no message is asked for.
        if matches!(change.op, Op::Schema | Op::Apart | Op::Message) {
            return Ok(());
        }
        let table = self.tables.get_mut(change.relation_index).ok_or(PushError::NoTable)?;
        if let Some(before) = table.target.replayed_before {
            return if change.position < before { Ok(()) } else { Err(PushError::OtherKey) };
        }
        let has_read = table.target.has_read();
        let fills = &self.fills;
        let filled =
            |column: usize, value| if value == Value::Unchanged { fills.value(index, column) } else { value };
        let mut rows = Rows { table, change, present: self.present.get(change.relation_index) };
        let after = Position { ordinal: change.position.ordinal + 1, ..change.position };
        match self.layout.mode {
            ClickHouseMode::Mirror => {
                if matches!(change.op, Op::Update | Op::Delete) && !change.relation.has_key() {
                    return Err(PushError::Keyless);
                }
                let soft = self.layout.deletes == DeleteMode::Soft;
                match change.op {
                    Op::Insert | Op::Update if !change.unresolved && !change.key_changed => {
                        rows.push(change.new_values(), change.position, 0)
                    }
                    Op::Insert | Op::Update => {
                        let mut position = change.position;
                        if change.key_changed {
                            rows.push_old(position, 1, soft)?;
                            position = after;
                        }
                        if self.fills.is_superseded(index) {
                            return Ok(());
                        }
                        let values =
                            change.new_values().enumerate().map(|(column, value)| filled(column, value));
                        rows.push(values, position, 0)
                    }
                    Op::Delete => rows.push_old(change.position, 1, soft),
                    Op::Truncate | Op::Schema | Op::Apart | Op::Message => Ok(()),
                }
            }
            ClickHouseMode::History => match change.op {
                Op::Insert | Op::Update => {
                    let mut position = change.position;
                    if change.key_changed && change.relation.has_key() {
                        rows.push_old(position, Operation::Delete as u8, true)?;
                        position = after;
                    }
                    let operation = match change.op {
                        Op::Insert if copied && has_read => Operation::Read,
                        Op::Insert => Operation::Insert,
                        _ => Operation::Update,
                    };
                    let values = change.new_values().enumerate().map(|(column, value)| filled(column, value));
                    rows.push(values, position, operation as u8)
                }
                Op::Delete => rows.push_old(change.position, Operation::Delete as u8, true),
                Op::Truncate => rows.push_nothing(Operation::Truncate as u8),
                Op::Schema | Op::Apart | Op::Message => Ok(()),
            },
        }
    }

    /// The error for a row that could not be added.
    #[cold]
    fn explain(&self, change: &Change<'_>, problem: PushError) -> EncodeError {
        let at = format!("{} at {}", change.relation, change.position);
        let (column_index, problem) = match problem {
            PushError::Row(problem) => problem,
            PushError::NoTable => {
                return EncodeError::Failed(SinkError::halt(format!(
                    "{at}: a change of a table the batch does not name"
                )));
            }
            PushError::Keyless => {
                return EncodeError::Failed(SinkError::halt(format!(
                    "{at}: {} in a table without a key, whose rows a mirror cannot tell apart: give the table a \
                     primary key (or a replica identity by a unique index), or use a sink with mode = \"history\"",
                    if change.op == Op::Delete { "DELETE" } else { "UPDATE" }
                )));
            }
            PushError::OtherKey => {
                return EncodeError::Failed(SinkError::halt(format!(
                    "{at}: a change of an older version of the table, whose rows are told apart by another key than \
                     ClickHouse's are: copy the table again (replicator resync --table {})",
                    change.relation
                )));
            }
            PushError::NoOldKey => {
                return EncodeError::Failed(SinkError::halt(format!(
                    "{at}: a change without the old row's key: set the table's REPLICA IDENTITY to DEFAULT with a \
                     primary key, or to FULL"
                )));
            }
        };
        let target = self.tables.get(change.relation_index).map(|table| &table.target);
        let (Some(column), Some(to)) = (
            change.relation.columns.get(column_index),
            target.and_then(|target| target.columns.get(column_index)),
        ) else {
            return EncodeError::Failed(SinkError::halt(format!(
                "{at}: a row with more columns than its table"
            )));
        };
        let of = &to.exists;
        let is_array = matches!(of.base, crate::types::Base::Array(_));
        if problem == Problem::Null && !column.is_key && !is_array {
            return EncodeError::NeedsNullable(change.relation_index, column_index);
        }
        let what = format!("{at}: column {}", column.name);
        let as_text = match target {
            // What a table is sorted by cannot be changed.
            Some(target) if column.is_key => {
                format!("drop {} and make it with {} as a String before the restart", target.sql, column.name)
            }
            Some(target) => {
                format!(
                    "make the column a Nullable(String) (ALTER TABLE {} MODIFY COLUMN) and restart",
                    target.sql
                )
            }
            None => String::new(),
        };
        EncodeError::Failed(match problem {
            Problem::Null => SinkError::reject(format!(
                "{what} is NULL, and {of} in ClickHouse has none: for an array set arrays = \"text\" and have the table \
                 copied anew, or {as_text}"
            )),
            Problem::Misfit(misfit) => {
                let value = change.new.or(change.old).map_or(Value::Null, |tuple| tuple.value(column_index));
                let policy = match misfit {
                    _ if column.is_key => "a key is not clamped;",
                    // No policy makes one list of several.
                    Misfit::Shape => "set arrays = \"text\" and have the table copied anew, or",
                    _ => "set out_of_range, or",
                };
                SinkError::reject(format!(
                    "{what} = {} has no counterpart as {of}, since {}: {policy} {as_text}",
                    excerpt(column, value),
                    misfit.reason()
                ))
            }
            Problem::Binary => {
                SinkError::reject(format!("{what} came in bytes that are no binary {}", column.type_sql))
            }
            Problem::Unchanged => SinkError::reject(format!("{what} was not sent and not found")),
        })
    }
}

#[derive(Debug)]
enum PushError {
    Row(RowProblem),
    Keyless,
    OtherKey,
    NoOldKey,
    NoTable,
}

impl From<RowProblem> for PushError {
    fn from(problem: RowProblem) -> Self {
        Self::Row(problem)
    }
}

/// Where the rows of a change go.
struct Rows<'e, 'c, 'b> {
    table: &'e mut TableEncoder,
    change: &'c Change<'b>,
    present: Option<&'e HashSet<u128>>,
}

impl Rows<'_, '_, '_> {
    #[inline]
    fn push<'v>(
        &mut self,
        values: impl Iterator<Item = Value<'v>>,
        position: Position,
        mark: u8,
    ) -> Result<(), PushError> {
        if self.is_present(position) {
            return Ok(());
        }
        let mark = self.table.mark(self.change, position, mark);
        Ok(self.table.block.push_row(values, mark)?)
    }

    /// The old row: its key, and the other values where `all` asks for them and they came.
    fn push_old(&mut self, position: Position, mark: u8, all: bool) -> Result<(), PushError> {
        if self.is_present(position) {
            return Ok(());
        }
        let old = self.change.old.ok_or(PushError::NoOldKey)?;
        let all = all && self.change.old_is_full;
        let columns = &self.change.relation.columns;
        let known = |index: usize| all || columns.get(index).is_some_and(|column| column.is_key);
        let mark = self.table.mark(self.change, position, mark);
        Ok(self.table.block.push_partial(old.values(), known, mark)?)
    }

    /// A row without values.
    fn push_nothing(&mut self, mark: u8) -> Result<(), PushError> {
        if self.is_present(self.change.position) {
            return Ok(());
        }
        let mark = self.table.mark(self.change, self.change.position, mark);
        Ok(self.table.block.push_partial(std::iter::empty(), |_| false, mark)?)
    }

    fn is_present(&self, position: Position) -> bool {
        self.present.is_some_and(|present| !present.is_empty() && present.contains(&position.as_u128()))
    }
}

/// The beginning of a value, for an error.
fn excerpt(column: &replicator_types::Column, value: Value<'_>) -> String {
    let mut text = Vec::new();
    match value {
        Value::Null => return "NULL".into(),
        Value::Unchanged => return "(not sent)".into(),
        Value::Text(bytes) => text.extend_from_slice(bytes),
        Value::Binary(bytes) => {
            if pgvalue::write_text(column, bytes, &mut text).is_err() {
                return format!("{} bytes", bytes.len());
            }
        }
    }
    let text = String::from_utf8_lossy(&text);
    let short: String = text.chars().take(VALUE_CHARS_MAX).collect();
    if short.len() < text.len() { format!("`{short}…`") } else { format!("`{short}`") }
}
