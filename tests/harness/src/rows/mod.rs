//! Whether two databases hold the same rows, to the last byte.
//!
//! ```text
//!   Postgres   COPY … TO STDOUT ──┐ unescape, canonical text      sorted lines
//!   ClickHouse SELECT … FINAL ────┘ by the source's column types  ───────────▶ assert_same_rows
//! ```
//! The two print some values differently (`t` and `true`, `1e+20` and `100000000000000000000`, `{1,2}` and
//! `[1,2]`, `12:00:00` and `12:00:00.000000`). A canonical text is made of either by [`Kind`]; two values have
//! the same canonical text exactly when they are the same value. Rows are compared as multisets.

mod text;

use crate::ClickHouse;
use futures_util::TryStreamExt;
use std::cmp::Ordering;
use text::{Dialect, canonical_row};
use tokio_postgres::Client;

/// How many differing rows a message shows of either side.
const SHOWN: usize = 5;

/// What the printed form of a column's values depends on. The canonical form is the same for both databases.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Kind {
    /// Both print it the same.
    Same,
    /// `boolean`
    Bool,
    /// `timestamp`, `timestamptz`, `time`: zeros at the end of a fraction, and UTC's offset, say nothing.
    Time,
    /// `real`
    Float4,
    /// `double precision`
    Float8,
    /// `bytea`: by its hexadecimal digits. In an array only Postgres can be read.
    Bytea,
}

/// A column to compare.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Column {
    /// Name, unquoted.
    pub name: String,
    /// Sort of its values, or of its elements.
    pub kind: Kind,
    /// Whether it is an array.
    pub is_array: bool,
}

/// The columns of a Postgres table (`schema.table`, quoted where it must be) in their order, without generated ones that
/// are not sent: no publication has them sent before Postgres 18, and there the one that the replicator makes, `replicator`,
/// has those that are stored.
///
/// # Panics
/// When there is no such table.
pub async fn source_columns(client: &Client, table: &str) -> Vec<Column> {
    let rows = client
        .query(
            // Domains and arrays are followed to the type of the values themselves.
            "WITH RECURSIVE step AS (
               SELECT 0 AS depth, attnum, attname::text AS name, atttypid AS type, false AS is_array
               FROM pg_attribute
               WHERE attrelid = to_regclass($1) AND attnum > 0 AND NOT attisdropped
                 AND (attgenerated = '' OR attgenerated = 's' AND EXISTS (
                     SELECT FROM pg_publication p
                     WHERE p.pubname = 'replicator' AND to_jsonb(p) ->> 'pubgencols' = 's'))
               UNION ALL
               SELECT depth + 1, attnum, name, CASE WHEN typtype = 'd' THEN typbasetype ELSE typelem END,
                      is_array OR typtype <> 'd'
               FROM step JOIN pg_type ON pg_type.oid = type
               WHERE typtype = 'd' OR (typcategory = 'A' AND typelem <> 0))
             SELECT DISTINCT ON (attnum) name, typname::text, is_array
             FROM step JOIN pg_type ON pg_type.oid = type
             ORDER BY attnum, depth DESC",
            &[&table],
        )
        .await
        .unwrap_or_else(|error| panic!("columns of {table}: {error}"));
    assert!(!rows.is_empty(), "no table {table}, or no columns in it");
    rows.iter()
        .map(|row| Column { name: row.get(0), kind: kind_of(row.get(1)), is_array: row.get(2) })
        .collect()
}

fn kind_of(type_name: &str) -> Kind {
    match type_name {
        "bool" => Kind::Bool,
        "timestamp" | "timestamptz" | "time" => Kind::Time,
        "float4" => Kind::Float4,
        "float8" => Kind::Float8,
        "bytea" => Kind::Bytea,
        _ => Kind::Same,
    }
}

/// The rows of a table: for each a line of canonical values, tabs between; sorted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rows {
    columns: Vec<String>,
    lines: Vec<String>,
}

impl Rows {
    /// Those of a Postgres table (`schema.table`, quoted where it must be). The connection must not be in a
    /// transaction.
    ///
    /// # Panics
    /// When it cannot be read.
    pub async fn of_postgres(client: &Client, table: &str, columns: &[Column]) -> Self {
        let names: Vec<String> =
            columns.iter().map(|column| format!("\"{}\"", column.name.replace('"', "\"\""))).collect();
        let read = async {
            client
                .batch_execute(
                    "BEGIN; SET LOCAL timezone = 'UTC'; SET LOCAL datestyle = 'ISO'; SET LOCAL intervalstyle = 'postgres';
                     SET LOCAL extra_float_digits = 1; SET LOCAL bytea_output = 'hex'",
                )
                .await?;
            let copy = format!("COPY (SELECT {} FROM {table}) TO STDOUT", names.join(", "));
            let chunks = client.copy_out(&copy).await?;
            let text = chunks.try_fold(Vec::new(), async |mut text, chunk| {
                text.extend_from_slice(&chunk);
                Ok(text)
            });
            let text = text.await?;
            client.batch_execute("COMMIT").await?;
            Ok::<_, tokio_postgres::Error>(text)
        };
        let text = read.await.unwrap_or_else(|error| panic!("rows of {table}: {error}"));
        Self::from_text(&String::from_utf8_lossy(&text), Dialect::Postgres, columns)
    }

    /// Those of a ClickHouse table or view, with `FINAL` where its engine replaces rows. `columns` are the
    /// source's.
    ///
    /// # Panics
    /// When it cannot be read.
    pub fn of_clickhouse(clickhouse: &ClickHouse, database: &str, table: &str, columns: &[Column]) -> Self {
        let name = |name: &str| format!("`{}`", name.replace('\\', "\\\\").replace('`', "\\`"));
        let literal = |text: &str| text.replace('\\', "\\\\").replace('\'', "\\'");
        let engine = clickhouse.query(&format!(
            "SELECT engine FROM system.tables WHERE database = '{}' AND name = '{}'",
            literal(database),
            literal(table)
        ));
        let is_replacing = engine.contains("Replacing");
        let values: Vec<String> = columns
            .iter()
            .map(|column| match (column.kind, column.is_array) {
                // Not text, so it would be escaped, and need not be UTF-8.
                (Kind::Bytea, false) => format!("hex({})", name(&column.name)),
                _ => name(&column.name),
            })
            .collect();
        let sql = format!(
            "SELECT {} FROM {}.{}{} FORMAT TSV",
            values.join(", "),
            name(database),
            name(table),
            if is_replacing { " FINAL" } else { "" }
        );
        let settings = [("session_timezone", "UTC"), ("output_format_decimal_trailing_zeros", "1")];
        let text =
            clickhouse.try_query_with(&sql, &settings).unwrap_or_else(|error| panic!("{error}\nin: {sql}"));
        Self::from_text(&text, Dialect::ClickHouse, columns)
    }

    fn from_text(text: &str, dialect: Dialect, columns: &[Column]) -> Self {
        let mut lines: Vec<String> =
            text.split_terminator('\n').map(|line| canonical_row(line, dialect, columns)).collect();
        lines.sort_unstable();
        Self { columns: columns.iter().map(|column| column.name.clone()).collect(), lines }
    }

    /// Rows from elsewhere: for each the values' texts in Postgres' spelling, in the order of `columns`.
    pub fn of_texts(rows: impl IntoIterator<Item = Vec<Option<String>>>, columns: &[Column]) -> Self {
        let line = |row: Vec<Option<String>>| text::canonical_texts(&row, columns);
        let mut lines: Vec<String> = rows.into_iter().map(line).collect();
        lines.sort_unstable();
        Self { columns: columns.iter().map(|column| column.name.clone()).collect(), lines }
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.lines.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// The lines.
    pub fn lines(&self) -> &[String] {
        &self.lines
    }
}

/// Asserts that both hold the same rows, equal ones equally often.
///
/// # Panics
/// When they do not, with the counts and the first that differ.
#[track_caller]
pub fn assert_same_rows(what: &str, expected: &Rows, got: &Rows) {
    if let Some(difference) = difference(expected, got) {
        panic!("{what}: {difference}");
    }
}

/// What differs, as a text; none when nothing does. For waiting until it does not.
pub fn difference(expected: &Rows, got: &Rows) -> Option<String> {
    let (mut missing, mut extra) = (Vec::new(), Vec::new());
    let (mut left, mut right) = (expected.lines.iter().peekable(), got.lines.iter().peekable());
    loop {
        let order = match (left.peek(), right.peek()) {
            (None, None) => break,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(a), Some(b)) => a.cmp(b),
        };
        match order {
            Ordering::Less => missing.extend(left.next()),
            Ordering::Greater => extra.extend(right.next()),
            Ordering::Equal => {
                left.next();
                right.next();
            }
        }
    }
    if missing.is_empty() && extra.is_empty() {
        return None;
    }
    let show =
        |rows: &[&String]| rows.iter().take(SHOWN).map(|row| format!("\n    {row}")).collect::<String>();
    Some(format!(
        "{} rows expected, {} found, of columns {}\n  {} missing, the first:{}\n  {} that should not be, the first:{}",
        expected.len(),
        got.len(),
        expected.columns.join(", "),
        missing.len(),
        show(&missing),
        extra.len(),
        show(&extra)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(name: &str, kind: Kind) -> Column {
        Column { name: name.into(), kind, is_array: false }
    }

    fn rows(lines: &str) -> Rows {
        Rows::from_text(lines, Dialect::Postgres, &[column("id", Kind::Same), column("at", Kind::Time)])
    }

    #[test]
    fn rows_are_the_same_in_any_order_and_spelling() {
        let postgres = rows("2\t2026-01-01 00:00:00+00\n1\t\\N\n");
        let clickhouse = rows("1\t\\N\n2\t2026-01-01 00:00:00.000000\n");
        assert_same_rows("t", &postgres, &clickhouse);
    }

    #[test]
    fn a_row_that_is_there_once_too_often_is_a_difference() {
        let text = difference(&rows("1\ta\n2\tb\n"), &rows("1\ta\n1\ta\n2\tb\n")).unwrap();
        assert!(text.contains("2 rows expected, 3 found") && text.contains("1 that should not be"), "{text}");
    }

    #[test]
    fn a_null_differs_from_an_empty_text_and_from_its_spelling() {
        for (a, b) in [("\\N", ""), ("\\N", "\\\\N"), ("", "\\\\N")] {
            assert!(
                difference(&rows(&format!("1\t{a}\n")), &rows(&format!("1\t{b}\n"))).is_some(),
                "{a} {b}"
            );
        }
    }
}
