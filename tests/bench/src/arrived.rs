//! Whether what was sent has arrived: the same rows, by number and by a checksum over keys and values.

use crate::workload::{END_TABLE, Table};
use replicator_harness::archive::lines_of;
use replicator_harness::{ClickHouse, Postgres, archive_files, duckdb};
use serde::Deserialize;
use std::collections::HashMap;
use std::path::Path;

/// What a table comes to: rows, and sums in which every row's key and number count.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Checksum {
    rows: i128,
    keys: i128,
    numbers: i128,
}

impl Checksum {
    fn add(&mut self, key: i64, number: i64) {
        self.rows += 1;
        self.keys += i128::from(key);
        self.numbers += i128::from(key % MODULUS) * (i128::from(number) + 1);
    }

    /// From a line of three numbers.
    fn parse(line: &str, separator: char) -> Self {
        let mut fields = line.trim().split(separator).map(|field| {
            if field.is_empty() {
                0
            } else {
                field.parse().unwrap_or_else(|_| panic!("no number in {line:?}"))
            }
        });
        let mut next = || fields.next().unwrap_or_default();
        Self { rows: next(), keys: next(), numbers: next() }
    }
}

const MODULUS: i64 = 10_007;

/// The same in SQL that all stores understand.
fn sums(Table { key, number, .. }: &Table) -> String {
    format!("count(*), sum({key}), sum(({key} % {MODULUS}) * (CAST({number} AS bigint) + 1))")
}

/// What the stream has to come to.
pub(crate) fn at_source(source: &Postgres, database: &str, table: &Table) -> Checksum {
    let sql = format!("SELECT {} FROM {} WHERE {}", sums(table), table.name, table.touched);
    Checksum::parse(&source.sql(database, &sql), '|')
}

/// All columns of all rows of a table, those that the stream did not touch among them.
pub(crate) fn whole_table(server: &Postgres, database: &str, table: &Table) -> String {
    let name = table.name;
    server.sql(
        database,
        &format!(
            "SELECT count(*), sum(('x' || left(md5({name}::text), 15))::bit(60)::bigint::numeric) FROM {name}"
        ),
    )
}

pub(crate) fn in_clickhouse(server: &ClickHouse, database: &str, table: &Table) -> Checksum {
    let last = if table.is_keyed { " FINAL" } else { "" };
    let sql = format!("SELECT {} FROM {database}.{}{last}", sums(table), table.name);
    Checksum::parse(&server.query(&sql), '\t')
}

/// The lake's changes, of each key the last.
pub(crate) fn in_lake(lake: &Path, table: &Table) -> Checksum {
    let Table { name, key, number, .. } = table;
    let deltas =
        format!("read_parquet('{}')", lake.join(format!("cdc/public/{name}/deltas/*.parquet")).display());
    let rows = if table.is_keyed {
        format!(
            "(SELECT {key}, arg_max({number}, bookmark) AS {number}, arg_max(op, bookmark) AS op FROM {deltas} \
             GROUP BY {key})"
        )
    } else {
        deltas
    };
    Checksum::parse(&duckdb(&format!("SELECT {} FROM {rows} WHERE op <> 'delete'", sums(table))), '|')
}

/// As much of an event as is looked at.
#[derive(Deserialize)]
struct Event {
    op: String,
    table: String,
    after: Option<serde_json::Map<String, serde_json::Value>>,
}

/// The archive's events, of each key the last; and how many there are of the tables.
pub(crate) fn in_archive(root: &Path, tables: &[Table]) -> (Vec<Checksum>, usize) {
    let mut rows: Vec<HashMap<i64, i64>> = vec![HashMap::new(); tables.len()];
    let mut sums = vec![Checksum::default(); tables.len()];
    let mut events = 0;
    for line in archive_files(root).iter().flat_map(|file| lines_of(file)) {
        let event: Event = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error} in {line}"));
        let Some(place) = tables.iter().position(|table| table.name == event.table) else {
            assert_eq!(event.table, END_TABLE, "an event of an unknown table");
            continue;
        };
        events += 1;
        let table = &tables[place];
        let after = event.after.unwrap_or_else(|| panic!("{} without a new row: {line}", event.op));
        let integer = |column: &str| {
            after
                .get(column)
                .and_then(serde_json::Value::as_i64)
                .unwrap_or_else(|| panic!("{column} in {line}"))
        };
        if table.is_keyed {
            rows[place].insert(integer(table.key), integer(table.number));
        } else {
            sums[place].add(integer(table.key), integer(table.number));
        }
    }
    for (sum, (table, rows)) in sums.iter_mut().zip(tables.iter().zip(&rows)) {
        if table.is_keyed {
            let mut rows: Vec<_> = rows.iter().collect();
            rows.sort_unstable();
            rows.into_iter().for_each(|(key, number)| sum.add(*key, *number));
        }
    }
    (sums, events)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checksum_tells_a_swapped_value_and_a_missing_row() {
        let of = |rows: &[(i64, i64)]| {
            let mut sum = Checksum::default();
            rows.iter().for_each(|(key, number)| sum.add(*key, *number));
            sum
        };
        let right = of(&[(1, 5), (2, 7)]);
        assert_ne!(right, of(&[(1, 7), (2, 5)]));
        assert_ne!(right, of(&[(1, 5)]));
        assert_eq!(right, of(&[(2, 7), (1, 5)]));
        assert_eq!(right, Checksum::parse("2|3|22", '|'));
    }
}
