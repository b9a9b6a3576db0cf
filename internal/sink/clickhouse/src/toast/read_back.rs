//! Reads rows by their keys, as many as there is room for.

use super::{Kept, KeptValue, unchanged};
use crate::client::Client;
use crate::names::identifier;
use crate::native::{Column, Rules, VERSION, numbered_block};
use crate::tables::{Target, TargetColumn};
use crate::types::{Base, Type};
use replicator_sink::SinkError;
use replicator_types::{Batch, Change, Position, Value};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write as _;

/// Changes whose rows one query asks for, and bytes of their keys: the text of these is twice as long, and a server parses
/// at most `max_query_size` = 256 KiB.
const CHANGES_MAX: usize = 500;
const KEY_BYTES_MAX: usize = 32 << 10;
/// Columns of a query that are not the table's: the number of the key, the version of the row that was found, bytes of its
/// values, whether there was room for them, and the values.
const NUMBER: &str = "_replicator_key";
const FOUND: &str = "_replicator_version";
const SIZE: &str = "_replicator_size";
const FITS: &str = "_replicator_fits";
const VALUE: &str = "_replicator_value_";

/// A row read back: its version and its values in Postgres' text form.
#[derive(Debug)]
pub(super) struct ReadRow {
    version: u128,
    pub(super) values: Vec<Kept>,
}

/// By change: the columns that were asked for, and their values.
pub(super) type ReadRows = HashMap<usize, (Vec<usize>, ReadRow)>;

/// Which rows of one table are wanted.
pub(super) struct Question<'a> {
    pub(super) batch: &'a Batch,
    pub(super) target: &'a Target,
    /// Those that lack values, in order.
    pub(super) changes: &'a [usize],
    /// Only versions before that one count.
    pub(super) before: Option<Position>,
}

/// Reads what the changes lack, until there is no room for more bytes; gives the first change for whose values there was none.
/// There is always room for those of the first one.
pub(super) async fn read_back(
    client: &Client,
    question: &Question<'_>,
    room: &mut usize,
    out: &mut ReadRows,
) -> Result<Option<usize>, SinkError> {
    let Question { batch, target, changes, before } = *question;
    let columns: Vec<usize> = changes
        .iter()
        .flat_map(|index| unchanged(&batch.change(*index)))
        .filter(|column| target.columns.get(*column).is_some_and(|column| column.written))
        .collect::<BTreeSet<_>>()
        .into_iter()
        .collect();
    let mut rest = changes;
    while !rest.is_empty() {
        let mut keys = key_columns(target)?;
        let mut numbers = Vec::new();
        let mut bytes = 0;
        let mut count = 0;
        for &index in rest.iter().take(CHANGES_MAX) {
            let change = batch.change(index);
            let mut ask = |old: bool| {
                numbers.push(number_of(count, old));
                push_key(&mut keys, &change, old).ok_or_else(|| {
                    SinkError::reject(format!(
                        "{} at {}: its key cannot be looked up",
                        change.relation, change.position
                    ))
                })
            };
            bytes += ask(false)?;
            // A change of the key may have been written before: then its row is under the new key.
            if change.key_changed {
                bytes += ask(true)?;
            }
            count += 1;
            if bytes >= KEY_BYTES_MAX {
                break;
            }
        }
        let (now, later) = rest.split_at(count);
        rest = later;
        let sql = query(target, &columns, &numbered_block(NUMBER, &numbers, &keys), before, *room);
        let what = format!("reading back values of {} that were not sent", target.sql);
        let answer = client.fetch(&sql, "RowBinary", &what).await?;
        let rows = read_rows(&answer, columns.len())
            .ok_or_else(|| SinkError::retry(format!("{what}: an answer that cannot be read")))?;
        for (number, row) in rows {
            let (number, old) = (number / 2, number % 2 == 1);
            let Some(&index) = now.get(number) else { continue };
            let Some(row) = row else { return Ok(Some(index)) };
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
            let lengths = row.values.iter().flatten().map(|value| value.bytes.len());
            *room = room.saturating_sub(lengths.sum());
            out.insert(index, (columns.clone(), row));
        }
        if *room == 0 {
            return Ok(rest.first().copied());
        }
    }
    Ok(None)
}

/// How a query numbers the keys of a change: those of one are next to each other.
fn number_of(change: usize, old: bool) -> u32 {
    change as u32 * 2 + u32::from(old)
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

/// The query for the newest row of each key of a numbered block: number of the key, version, whether its values are there,
/// values as text. They are where those of the changes before it are less than `room` bytes.
fn query(target: &Target, columns: &[usize], keys: &[u8], before: Option<Position>, room: usize) -> String {
    let mut hex = String::new();
    for byte in keys {
        // Writing to a String does not fail.
        let _ = write!(hex, "{byte:02x}");
    }
    let asked = format!("format(Native, unhex('{hex}'))");
    let keys = target.relation.columns.iter().zip(&target.columns).filter(|(column, _)| column.is_key);
    let key_names: Vec<String> = keys.map(|(_, to)| identifier(&to.name)).collect();
    let key_list = key_names.join(", ");
    let found: Vec<(String, &TargetColumn)> = columns
        .iter()
        .filter_map(|&index| target.columns.get(index))
        .map(|column| (identifier(&column.name), column))
        .collect();
    let names = found.iter().map(|(name, _)| format!(", {name}")).collect::<String>();
    let mut values = String::new();
    let mut sizes = String::from("0");
    let mut shown = String::new();
    for (index, (name, to)) in found.iter().enumerate() {
        let value = format!("{VALUE}{index}");
        let text = as_postgres_text(&format!("t.{name}"), to);
        let _ = write!(values, ", CAST({text} AS Nullable(String)) AS {value}");
        let _ = write!(sizes, " + ifNull(length({value}), 0)");
        let _ = write!(shown, ", if({FITS}, {value}, NULL)");
    }
    let version = identifier(VERSION);
    let condition = before
        .map_or_else(String::new, |before| format!(" AND {version} < toUInt128('{}')", before.as_u128()));
    let same_key =
        key_names.iter().map(|name| format!("t.{name} = k.{name}")).collect::<Vec<_>>().join(" AND ");
    let newest = format!(
        "SELECT {key_list}{names}, {version} FROM {} WHERE ({key_list}) IN (SELECT {key_list} FROM {asked}){condition} \
         ORDER BY {version} DESC LIMIT 1 BY {key_list}",
        target.sql
    );
    let rows = format!(
        "SELECT k.{NUMBER} AS {NUMBER}, t.{version} AS {FOUND}{values}, {sizes} AS {SIZE} FROM ({newest}) AS t \
         INNER JOIN (SELECT * FROM {asked}) AS k ON {same_key}"
    );
    let change = format!("intDiv({NUMBER}, 2)");
    let fitted = format!(
        "SELECT *, toUInt8(ifNull(sum({SIZE}) OVER (ORDER BY {change}) - sum({SIZE}) OVER (PARTITION BY {change}) < {}, 1)) \
         AS {FITS} FROM ({rows})",
        room.max(1)
    );
    format!(
        "SELECT {NUMBER}, {FOUND}, {FITS}{shown} FROM ({fitted}) ORDER BY {NUMBER} SETTINGS join_use_nulls = 0"
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

/// Reads `RowBinary` of (UInt32, UInt128, UInt8, Nullable(String)…). No row where there was no room for its values.
fn read_rows(mut bytes: &[u8], columns: usize) -> Option<BTreeMap<usize, Option<ReadRow>>> {
    let mut rows = BTreeMap::new();
    while !bytes.is_empty() {
        let (number, rest) = bytes.split_first_chunk::<4>()?;
        let (version, rest) = rest.split_first_chunk::<16>()?;
        let (fits, mut rest) = rest.split_first()?;
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
            values.push(Some(KeptValue { is_binary: false, bytes: value.into() }));
            rest = after;
        }
        bytes = rest;
        let number = u32::from_le_bytes(*number) as usize;
        let row = ReadRow { version: u128::from_le_bytes(*version), values };
        rows.insert(number, (*fits != 0).then_some(row));
    }
    Some(rows)
}
