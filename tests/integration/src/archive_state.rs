//! The state that an archive's events come to, table by table: what a replay of them would build.

use crate::Table;
use replicator_harness::{Column, Rows};
use serde_json::Value;
use std::collections::BTreeMap;

/// Asserts that `events`, applied in the order of their ids, come to `expected`.
///
/// # Panics
/// When they do not.
pub fn assert_archive_folds_to(events: &[Value], table: &Table, columns: &[Column], expected: &Rows) {
    let mut of_table: Vec<&Value> = events.iter().filter(|event| event["table"] == table.name).collect();
    of_table.sort_by_key(|event| event["event_id"].as_str());
    let mut state = State { rows: BTreeMap::new(), bag: BTreeMap::new() };
    for event in of_table {
        state.apply(event, table, columns);
    }
    let mut lines: Vec<String> = state.rows.into_values().collect();
    lines.extend(state.bag.into_iter().flat_map(|(line, count)| std::iter::repeat_n(line, count)));
    lines.sort_unstable();
    let differing = expected.lines().iter().zip(&lines).find(|(expected, got)| expected != got);
    assert!(
        expected.lines() == lines,
        "public.{} from the archive: {} rows instead of {}, first difference {differing:?}",
        table.name,
        lines.len(),
        expected.len(),
    );
}

struct State {
    rows: BTreeMap<String, String>,
    bag: BTreeMap<String, usize>,
}

impl State {
    fn apply(&mut self, event: &Value, table: &Table, columns: &[Column]) {
        let all: Vec<&str> = columns.iter().map(|column| column.name.as_str()).collect();
        let line = |row: &Value| text(row, &all);
        match (event["op"].as_str(), table.key.is_empty()) {
            (Some("truncate"), _) => {
                self.rows.clear();
                self.bag.clear();
            }
            (Some("insert"), true) => *self.bag.entry(line(&event["after"])).or_default() += 1,
            (Some("insert" | "update"), false) => {
                if !event["before"].is_null() {
                    self.rows.remove(&text(&event["before"], table.key));
                }
                self.rows.insert(text(&event["after"], table.key), line(&event["after"]));
            }
            (Some("delete"), false) => {
                let removed = self.rows.remove(&text(&event["before"], table.key));
                assert!(removed.is_some(), "a delete of a row that is not there: {event}");
            }
            _ => panic!("an event that cannot be: {event}"),
        }
    }
}

/// Values as the comparison's canonical lines have them; good for integers, text and timestamps.
fn text(row: &Value, columns: &[&str]) -> String {
    let value = |name: &&str| match &row[*name] {
        Value::Null => "\\N".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    columns.iter().map(value).collect::<Vec<_>>().join("\t")
}
