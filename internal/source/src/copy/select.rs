//! The statements that read a range of a table.

use crate::command::quote_identifier;
use pgvalue::Form;
use replicator_types::{Column, Relation};
use std::ops::Range;

/// What leader and workers run under, beside the settings that make values alike. `row_security` off makes a policy
/// that would hide rows an error.
pub(super) const SETTINGS: &[(&str, &str)] = &[
    ("row_security", "off"),
    ("lock_timeout", "10000"),
    ("statement_timeout", "0"),
    ("idle_in_transaction_session_timeout", "0"),
];

/// What workers have turned off beside: plans that would give rows in another order, or look at the whole table for
/// each range. What is left is a scan of just these blocks.
pub(super) const PLANS: &[(&str, &str)] = &[
    ("max_parallel_workers_per_gather", "0"),
    ("synchronize_seqscans", "off"),
    ("enable_seqscan", "off"),
    ("enable_indexscan", "off"),
    ("enable_indexonlyscan", "off"),
    ("enable_bitmapscan", "off"),
    ("jit", "off"),
];

/// From this version on a transaction as a whole can have a time-out.
pub(super) const TRANSACTION_TIMEOUT_SINCE: u32 = 170_000;

/// Per column of the relation, the kind of the values that [`select`] gives.
pub(super) fn kinds(relation: &Relation) -> Vec<u8> {
    let kind = |column: &Column| if pgvalue::form(column) == Form::Binary { b'b' } else { b't' };
    relation.columns.iter().map(kind).collect()
}

/// Which rows.
#[derive(Clone, Debug)]
pub(super) struct Rows<'a> {
    /// Blocks, from and before; without an end, all that follow.
    pub(super) blocks: (u32, Option<u32>),
    /// The publication's row filter: an SQL condition on columns of the relation.
    pub(super) filter: Option<&'a str>,
    /// Only rows of transactions that are not older than this one.
    pub(super) since_xid: Option<u32>,
}

/// The rows of a table as binary COPY. `table` is quoted.
pub(super) fn copy(table: &str, relation: &Relation, rows: &Rows<'_>) -> String {
    let columns: Vec<String> = relation.columns.iter().map(expression).collect();
    let (from, before) = rows.blocks;
    let mut conditions = vec![format!("ctid >= '({from},0)'::pg_catalog.tid")];
    conditions.extend(before.map(|before| format!("ctid < '({before},0)'::pg_catalog.tid")));
    conditions.extend(rows.filter.map(|filter| format!("({filter})")));
    // Both ages are counted from the same moment, so that they compare as the transactions do. `xmin` is the one
    // that wrote the row, also when it is frozen; rows frozen so long ago that the number has come round again
    // may be taken for new ones, or for ones of the future, which there are none of.
    conditions.extend(rows.since_xid.map(|xid| {
        format!("pg_catalog.age(xmin) BETWEEN 0 AND (SELECT pg_catalog.age('{xid}'::pg_catalog.xid))")
    }));
    format!(
        "COPY (SELECT {} FROM ONLY {table} WHERE {}) TO STDOUT (FORMAT binary)",
        columns.join(", "),
        conditions.join(" AND ")
    )
}

/// Answers with a description of the columns as they are now, the table's own oid in front.
pub(super) fn probe(table: &str, relation: &Relation) -> String {
    let columns: String =
        relation.columns.iter().map(|column| format!(", {}", quote_identifier(&column.name))).collect();
    format!("SELECT tableoid{columns} FROM ONLY {table} LIMIT 0")
}

fn expression(column: &Column) -> String {
    let name = quote_identifier(&column.name);
    match pgvalue::form(column) {
        Form::Same | Form::Binary => name,
        // `concat` writes a value by its type's output function, as the stream does, where a cast to text has a
        // function of its own for some. `IS DISTINCT FROM NULL` is about the value itself, where `IS NOT NULL` of
        // a composite asks its fields.
        Form::TextOnly => {
            format!("CASE WHEN {name} IS DISTINCT FROM NULL THEN pg_catalog.concat({name}) END")
        }
    }
}

/// The blocks as they are asked for: the last range of a part has no end, since the table may have more by now.
pub(super) fn open_ended(blocks: &Range<u32>, part_blocks: u32) -> (u32, Option<u32>) {
    (blocks.start, (blocks.end < part_blocks).then_some(blocks.end))
}

/// The 32 bits of `changed_since` that rows carry, where they can be compared: the difference must be well below
/// 2³¹, and the number that of a transaction that can write rows.
pub(super) fn comparable_xid(changed_since: u64, next_xid: u64) -> Option<u32> {
    /// The snapshot gets older while it is read under; transaction numbers do not go on by as much as this
    /// without the server stopping.
    const AGE_MAX: u64 = 1 << 30;
    /// 0 to 2 are reserved; the number before them is older, which is on the safe side.
    const FIRST_NORMAL: u32 = 3;
    next_xid.checked_sub(changed_since).filter(|&age| age < AGE_MAX)?;
    let xid = changed_since as u32;
    Some(if xid < FIRST_NORMAL { u32::MAX } else { xid })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_range_has_no_end() {
        assert_eq!(open_ended(&(0..4), 8), (0, Some(4)));
        assert_eq!(open_ended(&(4..8), 8), (4, None));
        assert_eq!(open_ended(&(0..0), 0), (0, None));
    }

    #[test]
    fn transaction_numbers_are_only_compared_where_they_can_be() {
        assert_eq!(comparable_xid(1000, 1500), Some(1000));
        assert_eq!(comparable_xid((7 << 32) + 5, (7 << 32) + 500), Some(5));
        assert_eq!(comparable_xid((7 << 32) + 1, (7 << 32) + 500), Some(u32::MAX));
        assert_eq!(comparable_xid(1000, 1000 + (1 << 30)), None, "too old");
        assert_eq!(comparable_xid(1001, 1000), None, "of another history");
    }
}
