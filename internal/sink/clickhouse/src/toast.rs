//! Values that an update did not touch and the source did not send ("unchanged TOAST").
//!
//! ```text
//!   unresolved update ──▶ newest earlier row of its key in this batch?  ── its value
//!                    └──▶ otherwise the newest row of its key in the table ── read back, by key
//! ```
//!
//! # Why what is read is right
//! A batch with such an update is prepared when everything before it in its lane is durable
//! (`Lane::needs_drain`), and an update of the key among them when everything before it in the sink is (a fenced
//! batch). So the table has the row's previous version. On a replay it may have this version or a later one:
//! this one has the right value, and with a later one the row written now is not seen. A history is asked for
//! versions before the batch, since there every row is seen.

use crate::client::Client;
use crate::encode::TableEncoder;
use crate::names::identifier;
use crate::native::{Column, Rules, VERSION, numbered_block};
use crate::tables::{Target, TargetColumn};
use crate::types::{Base, Type};
use replicator_sink::SinkError;
use replicator_types::{Batch, Change, Op, Position, Relation, Value};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write as _;

/// Keys in one query, and bytes of them: their text is twice as long, and a server parses at most
/// `max_query_size` = 256 KiB.
const KEYS_MAX: usize = 500;
const KEY_BYTES_MAX: usize = 48 << 10;
/// Name of the column that numbers the keys of a query.
const NUMBER: &str = "_replicator_key";

/// A value as it came, or in Postgres' text form as it was read back; `None` for NULL.
type Kept = Option<KeptValue>;

#[derive(Clone, Debug)]
struct KeptValue {
    is_binary: bool,
    bytes: Vec<u8>,
}

impl KeptValue {
    fn of(value: Value<'_>) -> Kept {
        let is_binary = matches!(value, Value::Binary(_));
        value.bytes().map(|bytes| Self { is_binary, bytes: bytes.to_vec() })
    }

    fn value(&self) -> Value<'_> {
        if self.is_binary { Value::Binary(&self.bytes) } else { Value::Text(&self.bytes) }
    }
}

/// The values found, by change and column.
#[derive(Debug, Default)]
pub(crate) struct Fills {
    values: HashMap<usize, Vec<(usize, Kept)>>,
    /// Values that nobody has: the row was never copied. Table and column of each.
    pub(crate) missing: Vec<(String, String)>,
}

impl Fills {
    /// The value of `column` in the batch's change number `change`; NULL when it was found to be that.
    pub(crate) fn value(&self, change: usize, column: usize) -> Value<'_> {
        let values = self.values.get(&change);
        match values.and_then(|values| values.iter().find(|(index, _)| *index == column)) {
            Some((_, Some(kept))) => kept.value(),
            Some((_, None)) => Value::Null,
            None => Value::Unchanged,
        }
    }
}

/// Where an unresolved change's values are.
enum Source {
    /// In the row of this earlier change.
    Change(usize),
    /// In the table.
    Table,
}

/// A row read back: its version and its values in Postgres' text form.
struct ReadRow {
    version: u128,
    values: Vec<Kept>,
}

/// Finds the values that `batch` lacks. `tables` are those of the batch's relations, in their order.
/// `is_history` says that only rows before the batch count.
pub(crate) async fn resolve(
    client: &Client,
    batch: &Batch,
    tables: &[TableEncoder],
    is_history: bool,
) -> Result<Fills, SinkError> {
    let mut fills = Fills::default();
    let sources = sources(batch);
    let before = if is_history { batch.first_position() } else { None };
    let mut read = HashMap::new();
    for (index, table) in tables.iter().enumerate() {
        let wanted: Vec<usize> = sources
            .iter()
            .filter(|(change, source)| {
                matches!(source, Source::Table) && batch.change(*change).relation_index == index
            })
            .map(|(change, _)| *change)
            .collect();
        if !wanted.is_empty() {
            read_back(client, batch, &table.target, &wanted, before, &mut read).await?;
        }
    }
    for (index, source) in &sources {
        let change = batch.change(*index);
        let mut values = Vec::new();
        for column in unchanged(&change) {
            let value = match source {
                Source::Change(earlier) => value_in(batch, &fills, *earlier, &change, column),
                Source::Table => match read.get(index) {
                    Some((columns, row)) => column_of(columns, row, column),
                    None => {
                        let name = change.relation.columns.get(column).map_or("?", |column| &column.name);
                        fills.missing.push((change.relation.qualified_name(), name.to_owned()));
                        None
                    }
                },
            };
            values.push((column, value));
        }
        fills.values.insert(*index, values);
    }
    Ok(fills)
}

/// The unresolved changes, in order, and where their values are.
fn sources(batch: &Batch) -> Vec<(usize, Source)> {
    let mut rows: HashMap<(u32, Vec<u8>), usize> = HashMap::new();
    let mut sources = Vec::new();
    for index in 0..batch.len() {
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
            sources.push((index, source));
        }
        if let Some(old_key) = old_key {
            rows.remove(&(oid, old_key));
        }
        if change.op == Op::Delete {
            rows.remove(&(oid, key));
        } else {
            rows.insert((oid, key), index);
        }
    }
    sources
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
    KeptValue::of(match row.new_values().nth(column)? {
        Value::Unchanged => fills.value(earlier, column),
        value => value,
    })
}

fn column_of(columns: &[usize], row: &ReadRow, column: usize) -> Kept {
    let index = columns.iter().position(|index| *index == column)?;
    row.values.get(index).cloned().flatten()
}

type ReadRows = HashMap<usize, (Vec<usize>, ReadRow)>;

/// Reads back what the changes `wanted` of one table lack.
async fn read_back(
    client: &Client,
    batch: &Batch,
    target: &Target,
    wanted: &[usize],
    before: Option<Position>,
    out: &mut ReadRows,
) -> Result<(), SinkError> {
    let columns: Vec<usize> = wanted
        .iter()
        .flat_map(|index| unchanged(&batch.change(*index)))
        .filter(|column| target.columns.get(*column).is_some_and(|column| column.written))
        .collect::<BTreeSet<_>>()
        .into_iter()
        .collect();
    // A change of the key may have been written before: then its row is under the new key.
    let mut asked: Vec<(usize, bool)> = Vec::new();
    for index in wanted {
        asked.push((*index, false));
        if batch.change(*index).key_changed {
            asked.push((*index, true));
        }
    }
    let mut rest = asked.as_slice();
    while !rest.is_empty() {
        let mut keys = key_columns(target)?;
        let mut bytes = 0;
        let mut count = 0;
        for &(index, old) in rest.iter().take(KEYS_MAX) {
            let change = batch.change(index);
            bytes += push_key(&mut keys, &change, old).ok_or_else(|| {
                SinkError::reject(format!(
                    "{} at {}: its key cannot be looked up",
                    change.relation, change.position
                ))
            })?;
            count += 1;
            if bytes >= KEY_BYTES_MAX {
                break;
            }
        }
        let (now, later) = rest.split_at(count);
        rest = later;
        let sql = query(target, &columns, &keys, before);
        let what = format!("reading back values of {} that were not sent", target.sql);
        let answer = client.fetch(&sql, "RowBinary", &what).await?;
        let rows = read_rows(&answer, columns.len())
            .ok_or_else(|| SinkError::retry(format!("{what}: an answer that cannot be read")))?;
        for (number, row) in rows {
            let Some(&(index, old)) = now.get(number) else { continue };
            let change = batch.change(index);
            let own_version = change.position.as_u128() + u128::from(change.key_changed);
            // Under the new key only this change or a later one counts: an earlier row is another's.
            if change.key_changed && !old && row.version < own_version {
                continue;
            }
            // What is under the new key wins: the old key's row is then a tombstone, without values.
            if change.key_changed && old && out.contains_key(&index) {
                continue;
            }
            out.insert(index, (columns.clone(), row));
        }
    }
    Ok(())
}

/// Empty columns for the table's key.
fn key_columns(target: &Target) -> Result<Vec<Column>, SinkError> {
    target
        .relation
        .columns
        .iter()
        .zip(&target.columns)
        .filter(|(column, _)| column.is_key)
        .map(|(column, to)| {
            let wire = Type { nullable: false, ..to.exists.on_the_wire() };
            let source = pgvalue::Type::of(column);
            Column::new(&to.name, &wire, source, to.bytea, Rules::STRICT).filter(|_| to.written).ok_or_else(
                || SinkError::halt(format!("{}: key column {} has type {}", target.sql, to.name, to.exists)),
            )
        })
        .collect()
}

/// Adds a change's key, or its old one. Gives the bytes it has.
fn push_key(keys: &mut [Column], change: &Change<'_>, old: bool) -> Option<usize> {
    let mut bytes = 0;
    let mut push = |values: &mut dyn Iterator<Item = Value<'_>>| -> Option<()> {
        for column in keys.iter_mut() {
            let value = values.next()?;
            bytes += value.bytes()?.len() + 8;
            column.push(value).ok()?;
        }
        Some(())
    };
    if old {
        push(&mut change.old_key_values()?)?
    } else {
        push(&mut change.key_values())?
    };
    Some(bytes)
}

/// The query for the newest row of each key: number of the key, version, values as text.
fn query(target: &Target, columns: &[usize], keys: &[Column], before: Option<Position>) -> String {
    let mut hex = String::new();
    for byte in numbered_block(NUMBER, keys) {
        // Writing to a String does not fail.
        let _ = write!(hex, "{byte:02x}");
    }
    let asked = format!("format(Native, unhex('{hex}'))");
    let key_names: Vec<String> = keys.iter().map(|column| identifier(column.name())).collect();
    let key_list = key_names.join(", ");
    let found: Vec<(String, &TargetColumn)> = columns
        .iter()
        .filter_map(|&index| target.columns.get(index))
        .map(|column| (identifier(&column.name), column))
        .collect();
    let names = found.iter().map(|(name, _)| format!(", {name}")).collect::<String>();
    let values = found
        .iter()
        .map(|(name, to)| {
            format!(", CAST({} AS Nullable(String))", as_postgres_text(&format!("t.{name}"), to))
        })
        .collect::<String>();
    let version = identifier(VERSION);
    let condition = before
        .map_or_else(String::new, |before| format!(" AND {version} < toUInt128('{}')", before.as_u128()));
    let same_key =
        key_names.iter().map(|name| format!("t.{name} = k.{name}")).collect::<Vec<_>>().join(" AND ");
    let number = identifier(NUMBER);
    format!(
        "SELECT k.{number}, t.{version}{values} FROM (SELECT {key_list}{names}, {version} FROM {} WHERE \
         ({key_list}) IN (SELECT {key_list} FROM {asked}){condition} ORDER BY {version} DESC LIMIT 1 BY {key_list}) \
         AS t INNER JOIN (SELECT * FROM {asked}) AS k ON {same_key} ORDER BY k.{number} SETTINGS join_use_nulls = 0",
        target.sql
    )
}

/// An expression for a value's Postgres text form; NULL for NULL.
fn as_postgres_text(value: &str, to: &TargetColumn) -> String {
    match &to.exists.base {
        Base::Array(element) => {
            let element = TargetColumn { exists: (**element).clone(), ..to.clone() };
            let text = as_postgres_text("x", &element);
            let escaped = format!("replaceAll(replaceAll({text}, '\\\\', '\\\\\\\\'), '\"', '\\\\\"')");
            format!(
                "concat('{{', arrayStringConcat(arrayMap(x -> if(isNull(x), 'NULL', concat('\"', assumeNotNull({escaped}), \
                 '\"')), {value}), ','), '}}')"
            )
        }
        Base::String if to.bytea => format!("concat('\\\\x', hex({value}))"),
        Base::String => value.to_owned(),
        Base::DateTime64Micros => format!("toString(toTimeZone({value}, 'UTC'))"),
        _ => format!("toString({value})"),
    }
}

/// Reads `RowBinary` of (UInt32, UInt128, Nullable(String)…).
fn read_rows(mut bytes: &[u8], columns: usize) -> Option<BTreeMap<usize, ReadRow>> {
    let mut rows = BTreeMap::new();
    while !bytes.is_empty() {
        let (number, rest) = bytes.split_first_chunk::<4>()?;
        let (version, mut rest) = rest.split_first_chunk::<16>()?;
        let mut values = Vec::with_capacity(columns);
        for _ in 0..columns {
            let (is_null, after) = rest.split_first()?;
            rest = after;
            if *is_null != 0 {
                values.push(None);
                continue;
            }
            let mut length = 0_usize;
            for shift in (0..).step_by(7).take(9) {
                let (byte, after) = rest.split_first()?;
                rest = after;
                length |= usize::from(byte & 0x7f) << shift;
                if byte & 0x80 == 0 {
                    break;
                }
            }
            let (value, after) = rest.split_at_checked(length)?;
            values.push(Some(KeptValue { is_binary: false, bytes: value.to_vec() }));
            rest = after;
        }
        bytes = rest;
        let number = u32::from_le_bytes(*number) as usize;
        rows.insert(number, ReadRow { version: u128::from_le_bytes(*version), values });
    }
    Some(rows)
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
