//! Values that an update did not touch and the source did not send ("unchanged TOAST").
//!
//! ```text
//!   unresolved update ──▶ newest earlier row of its key in this batch?  ── its value
//!                    └──▶ otherwise the newest row of its key in the table ── read back, by key
//! ```
//!
//! # In pieces
//! How large the values are that were not sent, nobody here knows before they are read. So a batch is written in pieces, each
//! with as many values as [`PIECE_BYTES_MAX`] allows, one after the other; one whose values are small is one piece. In a mirror
//! an update that a later one of its piece is on top of is not written: nobody would see it, and a row that is updated a
//! thousand times would have its large values written as often.
//!
//! # Why what is read is right
//! A batch with such an update is prepared when everything before it in its lane is durable
//! (`Lane::needs_drain`), and an update of the key among them when everything before it in the sink is (a fenced
//! batch). So the table has the row's previous version. On a replay it may have this version or a later one:
//! this one has the right value, and with a later one the row written now is not seen. A history is asked for
//! versions before the piece, since there every row is seen.

mod read_back;

use crate::client::Client;
use crate::encode::TableEncoder;
use read_back::{Question, ReadRow, ReadRows, read_back};
use replicator_sink::SinkError;
use replicator_types::{Batch, Change, Op, Position, Relation, Value};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// Changes whose rows are asked for at once, at first and at most.
const AHEAD_BEGIN: usize = 500;
const AHEAD_MAX: usize = 10_000;

/// Values that were not sent, in one piece of a batch; more only where those of one change are.
const PIECE_BYTES_MAX: usize = 16 << 20;

/// A value as it came, or in Postgres' text form as it was read back; `None` for NULL.
type Kept = Option<KeptValue>;

#[derive(Clone, Debug)]
struct KeptValue {
    is_binary: bool,
    bytes: Arc<[u8]>,
}

impl KeptValue {
    fn of(value: Value<'_>) -> Kept {
        let is_binary = matches!(value, Value::Binary(_));
        value.bytes().map(|bytes| Self { is_binary, bytes: bytes.into() })
    }

    fn value(&self) -> Value<'_> {
        if self.is_binary { Value::Binary(&self.bytes) } else { Value::Text(&self.bytes) }
    }
}

/// The values found, by change and column.
#[derive(Debug, Default)]
pub(crate) struct Fills {
    values: HashMap<usize, Vec<(usize, Kept)>>,
    /// Changes of a mirror that nobody would see.
    superseded: HashSet<usize>,
    /// Of the values, each as often as it is written.
    pub(crate) bytes: usize,
    /// Values that nobody has: the row was never copied. Table and column of each.
    pub(crate) missing: Vec<(String, String)>,
}

impl Fills {
    /// The value of `column` in the batch's change number `change`; NULL when it was found to be that.
    pub(crate) fn value(&self, change: usize, column: usize) -> Value<'_> {
        match self.kept(change, column) {
            Some(Some(kept)) => kept.value(),
            Some(None) => Value::Null,
            None => Value::Unchanged,
        }
    }

    fn kept(&self, change: usize, column: usize) -> Option<&Kept> {
        let (_, kept) = self.values.get(&change)?.iter().find(|(index, _)| *index == column)?;
        Some(kept)
    }

    /// Whether a later change of the piece stands on top of that one.
    pub(crate) fn is_superseded(&self, change: usize) -> bool {
        self.superseded.contains(&change)
    }
}

/// An update with values that were not sent.
struct Wanting {
    change: usize,
    source: Source,
    /// The next change of its row.
    superseded_by: Option<usize>,
}

/// Where an unresolved change's values are.
enum Source {
    /// In the row of this earlier change.
    Change(usize),
    /// In the table.
    Table,
}

/// How many changes' rows are asked for at once: fewer where not all of what they have is taken.
#[derive(Debug)]
pub(crate) struct Ahead(usize);

impl Default for Ahead {
    fn default() -> Self {
        Self(AHEAD_BEGIN)
    }
}

/// Finds the values that changes of `batch` lack from number `from` on, as far as a piece goes: gives the number of the
/// change behind it. `tables` are those of the batch's relations, in their order. `is_history` says that every row is seen.
pub(crate) async fn resolve(
    client: &Client,
    batch: &Batch,
    from: usize,
    tables: &[TableEncoder],
    is_history: bool,
    ahead: &mut Ahead,
) -> Result<(Fills, usize), SinkError> {
    let mut fills = Fills::default();
    let wanting = wanting(batch, from);
    let before = is_history.then(|| batch.change(from).position);
    let mut read = ReadRows::new();
    let mut read_to = from;
    let mut end = batch.len();
    for (place, this) in wanting.iter().enumerate() {
        if fills.bytes >= PIECE_BYTES_MAX {
            end = this.change;
            break;
        }
        if matches!(this.source, Source::Table) && this.change >= read_to {
            let rest = wanting.get(place..).unwrap_or_default();
            let reader = Reader { client, batch, tables, before };
            read_to = reader.read(rest, PIECE_BYTES_MAX - fills.bytes, ahead, &mut read).await?;
            if read_to <= this.change {
                let text = format!(
                    "{}: the server left out what was asked for first",
                    batch.change(this.change).relation
                );
                return Err(SinkError::halt(text));
            }
        }
        let values = fills.values_of(batch, this, &mut read);
        // What an unresolved update of this row has it only hands on, and is not written itself.
        let is_handed_on =
            matches!(this.source, Source::Change(earlier) if fills.values.contains_key(&earlier));
        if is_history || !is_handed_on {
            fills.bytes += values
                .iter()
                .filter_map(|(_, kept)| kept.as_ref())
                .map(|kept| kept.bytes.len())
                .sum::<usize>();
        }
        fills.values.insert(this.change, values);
    }
    if !is_history {
        let in_piece = |this: &&Wanting| this.superseded_by.is_some_and(|by| by < end);
        fills.superseded = wanting.iter().filter(in_piece).map(|this| this.change).collect();
    }
    Ok((fills, end))
}

impl Fills {
    fn values_of(&mut self, batch: &Batch, this: &Wanting, read: &mut ReadRows) -> Vec<(usize, Kept)> {
        let change = batch.change(this.change);
        let row = read.remove(&this.change);
        let mut values = Vec::new();
        for column in unchanged(&change) {
            let value = match (&this.source, &row) {
                (Source::Change(earlier), _) => value_in(batch, self, *earlier, &change, column),
                (Source::Table, Some((columns, row))) => column_of(columns, row, column),
                (Source::Table, None) => {
                    let name = change.relation.columns.get(column).map_or("?", |column| &column.name);
                    self.missing.push((change.relation.qualified_name(), name.to_owned()));
                    None
                }
            };
            values.push((column, value));
        }
        values
    }
}

/// Reads rows that changes of a batch stand on.
struct Reader<'a> {
    client: &'a Client,
    batch: &'a Batch,
    tables: &'a [TableEncoder],
    before: Option<Position>,
}

impl Reader<'_> {
    /// Reads the rows of some of the first of `rest`, and at least of the very first. Gives the number of the change up to
    /// which all have been read that are in the tables.
    async fn read(
        &self,
        rest: &[Wanting],
        bytes_max: usize,
        ahead: &mut Ahead,
        out: &mut ReadRows,
    ) -> Result<usize, SinkError> {
        let in_table = |this: &&Wanting| matches!(this.source, Source::Table);
        let asked: Vec<usize> = rest.iter().filter(in_table).take(ahead.0).map(|this| this.change).collect();
        let mut read_to = asked.last().map_or(0, |last| last + 1);
        let mut room = bytes_max;
        let relation = |change: &usize| self.batch.change(*change).relation_index;
        let mut tables: Vec<usize> = Vec::new();
        // By where each is met first, so that what is read is what comes first.
        for change in &asked {
            if !tables.contains(&relation(change)) {
                tables.push(relation(change));
            }
        }
        for table in tables {
            let is_wanted = |change: &usize| *change < read_to && relation(change) == table;
            let changes: Vec<usize> = asked.iter().copied().filter(is_wanted).collect();
            let (Some(first), Some(table)) = (changes.first(), self.tables.get(table)) else { continue };
            if room == 0 {
                read_to = *first;
                break;
            }
            let question =
                Question { batch: self.batch, target: &table.target, changes: &changes, before: self.before };
            let answer = read_back(self.client, &question, &mut room, out).await;
            if answer.is_err() {
                // It may have been too much for the server.
                ahead.0 = (ahead.0 / 2).max(1);
            }
            if let Some(too_much) = answer? {
                read_to = too_much;
            }
        }
        let read = asked.iter().filter(|change| **change < read_to).count();
        ahead.0 = if read < asked.len() { read.max(1) * 2 } else { ahead.0 * 4 }.min(AHEAD_MAX);
        Ok(read_to)
    }
}

/// The unresolved changes from number `from` on, in order.
fn wanting(batch: &Batch, from: usize) -> Vec<Wanting> {
    let mut rows: HashMap<(u32, Vec<u8>), usize> = HashMap::new();
    let mut wanting: Vec<Wanting> = Vec::new();
    let supersede = |wanting: &mut Vec<Wanting>, earlier: Option<usize>, by: usize| {
        let place =
            earlier.and_then(|earlier| wanting.binary_search_by_key(&earlier, |this| this.change).ok());
        if let Some(this) = place.and_then(|place| wanting.get_mut(place)) {
            this.superseded_by = Some(by);
        }
    };
    for index in from..batch.len() {
        let change = batch.change(index);
        let oid = change.relation.oid;
        if change.op == Op::Truncate {
            rows.retain(|(table, _), _| *table != oid);
            continue;
        }
        // Without a key nothing can be looked up, and a mirror refuses the change.
        if !change.relation.has_key() {
            continue;
        }
        let key = key_text(change.relation, change.key_values());
        let old_key = change.old_key_values().filter(|_| change.key_changed);
        let old_key = old_key.map(|values| key_text(change.relation, values));
        if change.unresolved {
            let at = old_key.as_ref().unwrap_or(&key).clone();
            let source = rows.get(&(oid, at)).map_or(Source::Table, |earlier| Source::Change(*earlier));
            wanting.push(Wanting { change: index, source, superseded_by: None });
        }
        if let Some(old_key) = old_key {
            let earlier = rows.remove(&(oid, old_key));
            supersede(&mut wanting, earlier, index);
        }
        let earlier =
            if change.op == Op::Delete { rows.remove(&(oid, key)) } else { rows.insert((oid, key), index) };
        supersede(&mut wanting, earlier, index);
    }
    wanting
}

/// A key as text, its values told apart by their lengths. One key of a row has one text; it comes in two forms where the
/// stream had to go over from one to the other.
fn key_text<'v>(relation: &Relation, values: impl Iterator<Item = Value<'v>>) -> Vec<u8> {
    let mut out = Vec::new();
    for (column, value) in relation.key.iter().zip(values) {
        let begin = out.len();
        out.extend_from_slice(&[0; size_of::<u64>()]);
        let text = out.len();
        match (value, relation.columns.get(*column)) {
            (Value::Binary(bytes), Some(column)) => {
                if pgvalue::write_text(column, bytes, &mut out).is_err() {
                    // Whoever encodes it says so.
                    out.truncate(text);
                    out.extend_from_slice(bytes);
                }
            }
            (value, _) => out.extend_from_slice(value.bytes().unwrap_or_default()),
        }
        let length = (out.len() - text) as u64;
        if let Some(place) = out.get_mut(begin..text) {
            place.copy_from_slice(&length.to_le_bytes());
        }
    }
    out
}

/// Indexes of the columns that `change` does not know.
fn unchanged<'c>(change: &Change<'c>) -> impl Iterator<Item = usize> + use<'c> {
    change.new_values().enumerate().filter(|(_, value)| *value == Value::Unchanged).map(|(index, _)| index)
}

/// The value in an earlier change's row of what `change` calls column `column`.
fn value_in(batch: &Batch, fills: &Fills, earlier: usize, change: &Change<'_>, column: usize) -> Kept {
    let row = batch.change(earlier);
    let wanted = change.relation.columns.get(column)?;
    // The table may have changed between the two.
    let is_it = |column: &replicator_types::Column| match (column.attnum, wanted.attnum) {
        (0, _) | (_, 0) => column.name == wanted.name,
        (there, here) => there == here,
    };
    let column = row.relation.columns.iter().position(is_it)?;
    match row.new_values().nth(column)? {
        Value::Unchanged => fills.kept(earlier, column).cloned().flatten(),
        value => KeptValue::of(value),
    }
}

fn column_of(columns: &[usize], row: &ReadRow, column: usize) -> Kept {
    let index = columns.iter().position(|index| *index == column)?;
    row.values.get(index).cloned().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use replicator_types::oid;

    #[test]
    fn a_key_is_the_same_in_either_form_and_values_do_not_run_into_each_other() {
        let of = |type_oid| replicator_types::Column { base_type_oid: type_oid, ..Default::default() };
        let relation =
            Relation { columns: vec![of(oid::INT4), of(oid::TEXT)], key: vec![0, 1], ..Relation::message() };
        let key = |values: [Value<'static>; 2]| key_text(&relation, values.into_iter());
        let text = key([Value::Text(b"-5"), Value::Text(b"a")]);
        assert_eq!(key([Value::Binary(&[0xff, 0xff, 0xff, 0xfb]), Value::Binary(b"a")]), text);
        assert_ne!(key([Value::Text(b"-"), Value::Text(b"5a")]), text);
        let broken = key([Value::Binary(&[1]), Value::Text(b"a")]);
        assert_ne!(broken, text, "whoever encodes it says what is the matter");
    }
}
