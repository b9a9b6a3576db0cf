//! A change as one line of a log: `insert t 10+0 1,a`.

use replicator_types::{Change, Op, Value};

/// A change in words.
#[must_use]
pub fn line(change: &Change<'_>) -> String {
    let op = match change.op {
        Op::Insert => "insert",
        Op::Update => "update",
        Op::Delete => "delete",
        Op::Truncate => "truncate",
        Op::Schema => "schema",
        Op::Apart => "apart",
        Op::Message => "message",
    };
    let (table, position) = (&change.relation.name, change.position);
    let mut line = format!("{op} {table} {}+{}", position.commit_lsn.0, position.ordinal);
    if change.op == Op::Schema {
        let columns: Vec<_> = change.relation.columns.iter().map(|column| column.name.as_str()).collect();
        return format!("{line} {}", columns.join(","));
    }
    let show = |value: Value<'_>| match value {
        Value::Null => "NULL".to_owned(),
        Value::Unchanged => "UNCHANGED".to_owned(),
        Value::Text(bytes) | Value::Binary(bytes) => String::from_utf8_lossy(bytes).into_owned(),
    };
    if change.op == Op::Delete || change.key_changed {
        let old: Vec<_> = change.old_key_values().into_iter().flatten().map(show).collect();
        line += &format!(" {}", old.join(","));
    }
    if change.new.is_some() {
        let new: Vec<_> = change.new_values().map(show).collect();
        let mark = if change.key_changed { ">" } else { " " };
        line += &format!("{mark}{}", new.join(","));
    }
    line
}
