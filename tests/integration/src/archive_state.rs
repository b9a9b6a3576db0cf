//! The state that an archive's events come to, table by table: what a replay of them would build.
//!
//! Rows are kept by attribute number, so that a column is the same one whatever it is called. The first event of a
//! table version in a file describes the version; [`described_events`] gives that description to each event.

use crate::{Published, Table};
use replicator_harness::{Column, Rows, archive, archive_files, assert_same_rows};
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;

/// An event, and how its table looked then. It stays a line of text until it is applied: parsed, a million of them
/// take several gigabytes.
#[derive(Debug)]
pub struct Described {
    /// Its `event_id`.
    pub id: Box<str>,
    is_read: bool,
    line: Box<str>,
    table: Option<Arc<Description>>,
}

impl Described {
    /// The event.
    ///
    /// # Panics
    /// When its line is not JSON.
    pub fn event(&self) -> Value {
        archive::event_of(&self.line)
    }
}

#[derive(Debug)]
struct Description {
    oid: u64,
    name: String,
    /// Name, attribute number, and the value that rows have which are older than the column.
    columns: Vec<(String, i64, Option<String>)>,
}

impl Description {
    fn of(name: &str, relation: &Value) -> Self {
        let column = |column: &Value| {
            let name = column["name"].as_str().expect("a column's name").to_owned();
            let missing = column["missing"].as_str().map(str::to_owned);
            (name, column["attnum"].as_i64().expect("an attribute number"), missing)
        };
        Self {
            oid: relation["oid"].as_u64().expect("a table's oid"),
            name: name.to_owned(),
            columns: relation["columns"].as_array().expect("columns").iter().map(column).collect(),
        }
    }

    fn attnum(&self, name: &str) -> i64 {
        let found = self.columns.iter().find(|(known, ..)| known == name);
        found.unwrap_or_else(|| panic!("no column {name} in {self:?}")).1
    }
}

/// All events of the archive under `root` with their descriptions, in the order of their ids.
///
/// # Panics
/// When an event comes before its table's description.
pub fn described_events(root: &Path) -> Vec<Described> {
    let mut all = Vec::new();
    for file in archive_files(root) {
        let mut tables: HashMap<(String, String), Arc<Description>> = HashMap::new();
        for line in archive::lines_of(&file) {
            let event = archive::event_of(&line);
            let table = event["schema"].as_str().zip(event["table"].as_str()).map(|names| {
                let names = (names.0.to_owned(), names.1.to_owned());
                if event.get("relation").is_some_and(Value::is_object) {
                    let description = Description::of(&names.1, &event["relation"]);
                    tables.insert(names.clone(), Arc::new(description));
                }
                Arc::clone(tables.get(&names).unwrap_or_else(|| panic!("not described: {event}")))
            });
            let id =
                event["event_id"].as_str().unwrap_or_else(|| panic!("an event without event_id: {event}"));
            let is_read = event["op"] == "read";
            all.push(Described { id: id.into(), is_read, line: line.into(), table });
        }
    }
    all.sort_by(|a, b| a.id.cmp(&b.id));
    all
}

/// Asserts that `events`, applied in the order of their ids, come to `expected`.
///
/// # Panics
/// When they do not.
pub fn assert_archive_folds_to(events: &[Described], table: &Table, columns: &[Column], expected: &Rows) {
    let key: Vec<String> = table.key.iter().map(|&name| name.to_owned()).collect();
    let folded = fold_newest(events, table.name, &key, columns).unwrap_or_else(|text| panic!("{text}"));
    assert_same_rows(&format!("public.{} from the archive", table.name), expected, &folded);
}

/// The rows that the events of the newest table of a name come to.
///
/// # Errors
/// As [`fold`].
pub fn fold_newest(
    events: &[Described],
    table: &str,
    key: &[String],
    columns: &[Column],
) -> Result<Rows, String> {
    let mut tables = events.iter().rev().filter_map(|described| described.table.as_ref());
    let oid = tables.find(|description| description.name == table).map_or(0, |of| of.oid);
    fold_columns(events, oid, key, columns)
}

/// The rows that the events of a table come to.
///
/// # Errors
/// An event that cannot be applied, with no truncate behind it: before that, a copy that was begun and given up may
/// have left rows out.
pub fn fold(events: &[Described], table: &Published) -> Result<Rows, String> {
    fold_columns(events, u64::from(table.oid), &table.key, &table.columns)
}

fn fold_columns(events: &[Described], oid: u64, key: &[String], columns: &[Column]) -> Result<Rows, String> {
    let mut state = State::default();
    let mut newest = None;
    let of_table = |described: &&Described| described.table.as_ref().is_some_and(|table| table.oid == oid);
    let events: Vec<&Described> = events.iter().filter(of_table).collect();
    // Until the last row of a copy is read, a change may be of a row that is read later.
    let copied = events.iter().rposition(|described| described.is_read).unwrap_or(0);
    for (number, described) in events.into_iter().enumerate() {
        if let Some(table) = &described.table {
            state.lenient = number < copied;
            state.apply(&described.event(), table, !key.is_empty());
            newest = Some(table);
        }
    }
    if let Some(text) = state.failed {
        return Err(text);
    }
    let Some(newest) = newest else { return Ok(Rows::of_texts(Vec::new(), columns)) };
    let text = |row: &Row, column: &Column| {
        let (_, attnum, missing) = newest.columns.iter().find(|(name, ..)| *name == column.name)?;
        row.get(attnum).unwrap_or(missing).clone()
    };
    let texts = |row: &Row| columns.iter().map(|column| text(row, column)).collect::<Vec<_>>();
    Ok(Rows::of_texts(state.rows.values().map(texts), columns))
}

/// Values by attribute number.
type Row = BTreeMap<i64, Option<String>>;

#[derive(Default)]
struct State {
    /// By a number of their own.
    rows: BTreeMap<u64, Row>,
    next: u64,
    /// The rows' numbers by the values of `key`.
    index: HashMap<Row, Vec<u64>>,
    /// Attribute numbers of the key; all of the row's where there is none.
    key: Vec<i64>,
    /// Whether some row lacks a part of the key: it is older than the column.
    is_mixed: bool,
    /// Whether a change may be of a row that is not there.
    lenient: bool,
    /// The first event that could not be applied.
    failed: Option<String>,
}

impl State {
    fn apply(&mut self, event: &Value, table: &Description, has_key: bool) {
        let (before, after) = (values(&event["before"], table), values(&event["after"], table));
        let key = values(&event["key"], table);
        if has_key && !key.is_empty() {
            self.set_key(key.keys().copied().collect());
        }
        match event["op"].as_str() {
            Some("truncate") => *self = Self::default(),
            Some("insert") => self.push(after),
            // A range that is read a second time after a crash repeats its rows; whoever has a key sees that.
            Some("read") => {
                if has_key && !key.is_empty() {
                    while let Some(number) = self.find(&key) {
                        self.remove(number);
                    }
                }
                self.push(after);
            }
            Some("update") => {
                let old = if before.is_empty() { key } else { before };
                let Some(old) = self.take(&old, event) else { return };
                let mut new = after;
                // What was not sent is what it was.
                for unchanged in event["unchanged"].as_array().into_iter().flatten() {
                    let attnum = table.attnum(unchanged.as_str().expect("a column's name"));
                    new.insert(attnum, old.get(&attnum).cloned().flatten());
                }
                self.push(new);
            }
            Some("delete") => {
                self.take(&before, event);
            }
            _ => panic!("an event that cannot be: {event}"),
        }
    }

    fn set_key(&mut self, key: Vec<i64>) {
        if self.key != key {
            self.key = key;
            self.index.clear();
            self.is_mixed = false;
            for (number, row) in &self.rows {
                self.is_mixed |= !has_all(row, &self.key);
                self.index.entry(part(row, &self.key)).or_default().push(*number);
            }
        }
    }

    fn push(&mut self, row: Row) {
        if self.key.is_empty() {
            self.set_key(row.keys().copied().collect());
        }
        self.is_mixed |= !has_all(&row, &self.key);
        self.index.entry(part(&row, &self.key)).or_default().push(self.next);
        self.rows.insert(self.next, row);
        self.next += 1;
    }

    fn find(&self, wanted: &Row) -> Option<u64> {
        let fits = |number: &&u64| self.rows.get(number).is_some_and(|row| is_part_of(wanted, row));
        let indexed = self.index.get(&part(wanted, &self.key)).and_then(|numbers| numbers.iter().rfind(fits));
        if indexed.is_some() || (has_all(wanted, &self.key) && !self.is_mixed) {
            return indexed.copied();
        }
        self.rows.iter().rfind(|(_, row)| is_part_of(wanted, row)).map(|(number, _)| *number)
    }

    fn remove(&mut self, number: u64) -> Option<Row> {
        let row = self.rows.remove(&number)?;
        if let Some(numbers) = self.index.get_mut(&part(&row, &self.key)) {
            numbers.retain(|known| *known != number);
        }
        Some(row)
    }

    fn take(&mut self, wanted: &Row, event: &Value) -> Option<Row> {
        let found = self.find(wanted);
        if found.is_none() && !self.lenient {
            self.failed.get_or_insert_with(|| format!("no row for {event}"));
        }
        found.and_then(|number| self.remove(number))
    }
}

fn has_all(row: &Row, attnums: &[i64]) -> bool {
    attnums.iter().all(|attnum| row.contains_key(attnum))
}

/// The values of these attributes, as far as the row has them.
fn part(row: &Row, attnums: &[i64]) -> Row {
    attnums.iter().filter_map(|attnum| Some((*attnum, row.get(attnum)?.clone()))).collect()
}

/// A column that the row is older than says nothing.
fn is_part_of(part: &Row, row: &Row) -> bool {
    part.iter().all(|(attnum, value)| row.get(attnum).is_none_or(|known| known == value))
}

/// Values as Postgres spells them.
fn values(row: &Value, table: &Description) -> Row {
    let text = |value: &Value| match value {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    };
    let fields = row.as_object().into_iter().flatten();
    fields.map(|(name, value)| (table.attnum(name), text(value))).collect()
}
