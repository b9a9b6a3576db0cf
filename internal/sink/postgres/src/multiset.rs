//! What many changes of a table without a key come to: rows to remove and rows to add.
//!
//! Found one by one, each row that goes costs a look through the table. A multiset does not care in which order rows come and
//! go, so a run of changes is what it adds less what it removes, and all that is removed is found in one look. What a change
//! adds and a later one removes is in neither part: what is removed is there before the run, so it can go first.

use crate::plan::changes_at;
use crate::target::Target;
use replicator_types::{Batch, Change, Op, Value};
use std::collections::HashMap;

/// From so many updates and deletes on it pays: one look writes down every row of the table as text, where a look for one row
/// stops at it, and mostly compares one column.
pub(crate) const CHANGES_MIN: usize = 32;

/// What a run comes to, as indexes of the batch.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Net {
    /// Changes whose old row goes.
    pub(crate) removed: Vec<u32>,
    /// Changes whose new row comes.
    pub(crate) added: Vec<u32>,
}

/// Of one row, what is in [`Net`] so far; at most one of the two is not empty.
#[derive(Default)]
struct OfRow {
    removed: Vec<u32>,
    added: Vec<u32>,
}

/// The net of the changes at these indexes of the batch, inserts and others; none where they are better made one by one.
pub(crate) fn net(batch: &Batch, target: &Target, indexes: &[u32]) -> Option<Net> {
    let changes = || changes_at(batch, indexes);
    // A row that is written anew would lose what only the target has.
    let loses = target.has_other_columns && changes().any(|change| change.op == Op::Update);
    if loses || target.columns.is_empty() {
        return None;
    }
    let mut rows: HashMap<Vec<u8>, OfRow> = HashMap::new();
    let mut forms = vec![None; target.is_written.len()];
    for (&index, change) in indexes.iter().zip(changes()) {
        if change.op != Op::Insert {
            let of_row = rows.entry(row(target, old_values(&change), &mut forms)?).or_default();
            if of_row.added.pop().is_none() {
                of_row.removed.push(index);
            }
        }
        if change.op != Op::Delete {
            let of_row = rows.entry(row(target, change.new_values(), &mut forms)?).or_default();
            if of_row.removed.pop().is_none() {
                of_row.added.push(index);
            }
        }
    }
    let mut net = Net::default();
    for of_row in rows.into_values() {
        net.removed.extend(of_row.removed);
        net.added.extend(of_row.added);
    }
    net.removed.sort_unstable();
    net.added.sort_unstable();
    Some(net)
}

/// The old row's values.
pub(crate) fn old_values<'a>(change: &Change<'a>) -> impl Iterator<Item = Value<'a>> + use<'a> {
    change.old.map(|old| old.values()).into_iter().flatten()
}

/// A row's bytes, of the columns that the target takes; none where a column comes in text here and in binary there, since
/// equal values would not look so.
fn row<'v>(
    target: &Target,
    values: impl Iterator<Item = Value<'v>>,
    forms: &mut [Option<bool>],
) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    for ((value, is_written), form) in values.zip(&target.is_written).zip(forms) {
        if !is_written {
            continue;
        }
        let (is_binary, value) = match value {
            Value::Null => {
                bytes.push(0);
                continue;
            }
            Value::Unchanged => return None,
            Value::Text(value) => (false, value),
            Value::Binary(value) => (true, value),
        };
        if *form.get_or_insert(is_binary) != is_binary {
            return None;
        }
        bytes.push(1);
        bytes.extend_from_slice(&(value.len() as u32).to_ne_bytes());
        bytes.extend_from_slice(value);
    }
    Some(bytes)
}
