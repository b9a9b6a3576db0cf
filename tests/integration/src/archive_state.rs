//! The state that an archive's events come to, table by table: what a replay of them would build.

use crate::Table;
use replicator_harness::{Column, Rows, assert_same_rows};
use serde_json::Value;
use std::collections::BTreeMap;

/// Asserts that `events`, applied in the order of their ids, come to `expected`.
///
/// # Panics
/// When they do not.
pub fn assert_archive_folds_to(events: &[Value], table: &Table, columns: &[Column], expected: &Rows) {
    let mut of_table: Vec<&Value> = events.iter().filter(|event| event["table"] == table.name).collect();
    of_table.sort_by_key(|event| event["event_id"].as_str());
    let names: Vec<&str> = columns.iter().map(|column| column.name.as_str()).collect();
    let mut state = State { table, names, rows: BTreeMap::new(), bag: BTreeMap::new() };
    for event in of_table {
        state.apply(event);
    }
    let bag = state.bag.into_iter().flat_map(|(row, count)| std::iter::repeat_n(row, count));
    let folded = Rows::of_texts(state.rows.into_values().chain(bag), columns);
    assert_same_rows(&format!("public.{} from the archive", table.name), expected, &folded);
}

/// A row's values, or its key's.
type Texts = Vec<Option<String>>;

struct State<'a> {
    table: &'a Table,
    names: Vec<&'a str>,
    /// Rows by key.
    rows: BTreeMap<Texts, Texts>,
    /// Rows of a table without a key, and how often.
    bag: BTreeMap<Texts, usize>,
}

impl State<'_> {
    fn apply(&mut self, event: &Value) {
        let key = self.table.key;
        let (before, after) = (&event["before"], &event["after"]);
        match (event["op"].as_str(), key.is_empty()) {
            (Some("truncate"), _) => {
                self.rows.clear();
                self.bag.clear();
            }
            (Some("insert"), true) => *self.bag.entry(texts(after, &self.names)).or_default() += 1,
            (Some("update"), true) => {
                self.take(texts(before, &self.names), event);
                *self.bag.entry(texts(after, &self.names)).or_default() += 1;
            }
            (Some("delete"), true) => self.take(texts(before, &self.names), event),
            (Some("insert" | "update"), false) => {
                let old_key = if before.is_null() { texts(after, key) } else { texts(before, key) };
                let old = self.rows.remove(&old_key);
                let mut new = texts(after, &self.names);
                // What was not sent is what it was.
                for unchanged in event["unchanged"].as_array().into_iter().flatten() {
                    let column =
                        self.names.iter().position(|name| unchanged == name).expect("a column's name");
                    let old = old.as_ref().unwrap_or_else(|| panic!("no row for {event}"));
                    new[column].clone_from(&old[column]);
                }
                self.rows.insert(texts(after, key), new);
            }
            (Some("delete"), false) => {
                let removed = self.rows.remove(&texts(before, key));
                assert!(removed.is_some(), "a delete of a row that is not there: {event}");
            }
            _ => panic!("an event that cannot be: {event}"),
        }
    }

    fn take(&mut self, row: Texts, event: &Value) {
        let count = self.bag.get_mut(&row).unwrap_or_else(|| panic!("no such row: {event}"));
        *count -= 1;
        if *count == 0 {
            self.bag.remove(&row);
        }
    }
}

/// Values as Postgres spells them.
fn texts(row: &Value, columns: &[&str]) -> Texts {
    let value = |name: &&str| match &row[*name] {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    };
    columns.iter().map(value).collect()
}
