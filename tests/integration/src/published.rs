//! The tables that the source publishes at the moment, and where they differ from the sinks'.

use crate::World;
use crate::archive_state::{described_events, fold};
use replicator_harness::{Column, Rows, difference, source_columns};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};
use tokio_postgres::Client;

/// A published table as the catalog has it.
#[derive(Clone, Debug)]
pub struct Published {
    /// `pg_class.oid`
    pub oid: u32,
    /// Schema, unquoted.
    pub schema: String,
    /// Name, unquoted.
    pub name: String,
    /// Whether it is the root of partitions.
    pub is_partitioned: bool,
    /// Columns that tell rows apart; none when rows are a multiset.
    pub key: Vec<String>,
    /// Columns that are sent.
    pub columns: Vec<Column>,
}

/// Which sinks are compared.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sinks {
    /// The other Postgres.
    Postgres,
    /// Both databases.
    Databases,
    /// All three.
    All,
    /// ClickHouse and the archive.
    WithoutPostgres,
    /// The other Postgres and the archive.
    WithoutClickHouse,
}

impl Sinks {
    fn has_postgres(self) -> bool {
        self != Self::WithoutPostgres
    }

    fn has_clickhouse(self) -> bool {
        matches!(self, Self::Databases | Self::All | Self::WithoutPostgres)
    }

    fn has_archive(self) -> bool {
        matches!(self, Self::All | Self::WithoutPostgres | Self::WithoutClickHouse)
    }
}

impl Published {
    /// `"schema"."name"`
    pub fn quoted(&self) -> String {
        format!("{}.{}", quote(&self.schema), quote(&self.name))
    }

    fn clickhouse_name(&self) -> String {
        if self.schema == "public" { self.name.clone() } else { format!("{}_{}", self.schema, self.name) }
    }
}

fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// The tables of publication `replicator` that have columns, and whose schema and name `wanted` accepts.
///
/// # Panics
/// When the source does not answer.
pub async fn published(source: &Client, wanted: impl Fn(&str, &str) -> bool) -> Vec<Published> {
    let rows = source
        .query(
            "SELECT c.oid, n.nspname::text, c.relname::text, c.relkind = 'p',
                    ARRAY(SELECT a.attname::text FROM pg_index i JOIN pg_attribute a
                            ON a.attrelid = c.oid AND a.attnum = ANY ((i.indkey::int2[])[0:i.indnkeyatts - 1])
                          WHERE i.indrelid = c.oid
                            AND CASE c.relreplident WHEN 'i' THEN i.indisreplident WHEN 'n' THEN false
                                                    ELSE i.indisprimary AND i.indimmediate END
                          ORDER BY a.attnum)
             FROM pg_publication_tables t
             JOIN pg_namespace n ON n.nspname = t.schemaname
             JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = t.tablename
             WHERE t.pubname = 'replicator' ORDER BY 2, 3",
            &[],
        )
        .await
        .unwrap_or_else(|error| panic!("published tables: {error}"));
    let mut tables = Vec::new();
    for row in rows {
        let mut table = Published {
            oid: row.get(0),
            schema: row.get(1),
            name: row.get(2),
            is_partitioned: row.get(3),
            key: row.get(4),
            columns: Vec::new(),
        };
        if wanted(&table.schema, &table.name) && has_columns(source, &table).await {
            table.columns = source_columns(source, &table.quoted()).await;
            tables.push(table);
        }
    }
    tables
}

async fn has_columns(source: &Client, table: &Published) -> bool {
    let names = names_of(source, table, "attgenerated = ''").await;
    names.is_ok_and(|names| !names.is_empty())
}

/// The names of the table's columns that fulfil the condition, in alphabetical order.
async fn names_of(client: &Client, table: &Published, condition: &str) -> Result<Vec<String>, String> {
    let sql = format!(
        "SELECT attname::text FROM pg_attribute WHERE attrelid = to_regclass($1) AND attnum > 0 AND NOT attisdropped
         AND {condition} ORDER BY attname COLLATE \"C\""
    );
    let rows = client.query(&sql, &[&table.quoted()]).await.map_err(|error| error.to_string())?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// The rows as texts, sorted: NULL, an empty text and every byte of a value show.
async fn rows_of(
    client: &Client,
    table: &Published,
    columns: &[String],
    only: bool,
) -> Result<Vec<String>, String> {
    let columns: Vec<String> = columns.iter().map(|name| quote(name)).collect();
    let only = if only { "ONLY " } else { "" };
    let sql = format!("SELECT ROW({})::text FROM {only}{}", columns.join(", "), table.quoted());
    let rows = client.query(&sql, &[]).await.map_err(|error| match error.as_db_error() {
        Some(error) => error.message().to_owned(),
        None => error.to_string(),
    })?;
    let mut rows: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    rows.sort_unstable();
    Ok(rows)
}

/// What of one sorted list is not in the other, with its number.
fn missing<'a>(of: &'a [String], there: &[String]) -> Vec<&'a str> {
    let mut there = there.iter().peekable();
    let mut out = Vec::new();
    for row in of {
        while there.next_if(|other| *other < row).is_some() {}
        if there.next_if(|other| *other == row).is_none() {
            out.push(row.as_str());
        }
    }
    out
}

fn shown(rows: &[&str]) -> String {
    rows.iter().take(3).map(|row| format!("\n      {}", row.chars().take(300).collect::<String>())).collect()
}

impl World {
    /// Where the tables of the source that `wanted` accepts (schema, name) are not the same in the sinks, one text
    /// each.
    pub async fn differences(&self, sinks: Sinks, wanted: impl Fn(&str, &str) -> bool) -> Vec<String> {
        let source = self.source.client("shop").await;
        let target = self.target.client("copy").await;
        let mut found = Vec::new();
        let tables = published(&source, wanted).await;
        if tables.is_empty() {
            found.push("no such table is published".to_owned());
        }
        if sinks.has_postgres() {
            for table in &tables {
                if let Err(text) = compare_postgres(&source, &target, table).await {
                    found.push(format!("{} in Postgres: {text}", table.quoted()));
                }
            }
        }
        if sinks.has_clickhouse() {
            for table in &tables {
                if let Err(text) = self.compare_clickhouse(&source, table).await {
                    found.push(format!("{} in ClickHouse: {text}", table.quoted()));
                }
            }
        }
        if sinks.has_archive() {
            let events = described_events(&self.archive_root());
            for table in &tables {
                let expected = Rows::of_postgres(&source, &table.quoted(), &table.columns).await;
                let text = match fold(&events, table) {
                    Ok(rows) => difference(&expected, &rows),
                    Err(text) => Some(text),
                };
                found.extend(text.map(|text| format!("{} in the archive: {text}", table.quoted())));
            }
        }
        found
    }

    /// Waits until [`World::differences`] finds none.
    ///
    /// # Panics
    /// When it still finds some after `timeout`.
    pub async fn assert_soon_equal(
        &self,
        what: &str,
        timeout: Duration,
        sinks: Sinks,
        wanted: impl Fn(&str, &str) -> bool,
    ) {
        let begun = Instant::now();
        loop {
            let found = self.differences(sinks, &wanted).await;
            if found.is_empty() {
                return;
            }
            assert!(
                begun.elapsed() < timeout,
                "{what}: {} differences after {timeout:?}\n  {}",
                found.len(),
                found.join("\n  ")
            );
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    async fn compare_clickhouse(&self, source: &Client, table: &Published) -> Result<(), String> {
        let name = table.clickhouse_name();
        let literal = |text: &str| text.replace('\\', "\\\\").replace('\'', "\\'");
        let there = self.clickhouse.try_query(&format!(
            "SELECT name FROM system.columns WHERE database = '{}' AND table = '{}' FORMAT TSVRaw",
            literal(self.clickhouse.database()),
            literal(&name)
        ))?;
        let there: Vec<&str> = there.lines().collect();
        let wanted = |name: &str| table.columns.iter().any(|column| column.name == name);
        let absent: Vec<_> =
            table.columns.iter().filter(|column| !there.contains(&column.name.as_str())).collect();
        let extra: Vec<_> = there.iter().filter(|name| !wanted(name) && !name.starts_with('_')).collect();
        if !absent.is_empty() || !extra.is_empty() {
            return Err(format!("columns {there:?}; lacks {absent:?}, should not have {extra:?}"));
        }
        let expected = Rows::of_postgres(source, &table.quoted(), &table.columns).await;
        let database = self.clickhouse.database();
        let got = || Rows::of_clickhouse(&self.clickhouse, database, &name, &table.columns);
        // It may be exchanged for another at this very moment.
        let got =
            catch_unwind(AssertUnwindSafe(got)).map_err(|_| "it cannot be read: see above".to_owned())?;
        difference(&expected, &got).map_or(Ok(()), Err)
    }
}

/// Columns that are computed and of a type that is text in the target: they are there only if they are sent.
const LEFT_OUT: &str = "attgenerated <> '' AND EXISTS (SELECT FROM pg_type t WHERE t.oid = atttypid
    AND (t.typname ~ '^reg' OR t.oid >= 16384 AND t.typtype IN ('r', 'm', 'c')))";

async fn compare_postgres(source: &Client, target: &Client, table: &Published) -> Result<(), String> {
    let there = names_of(target, table, "true").await?;
    // Those that are computed, too.
    let mut wanted = names_of(source, table, "true").await?;
    let left_out = names_of(source, table, LEFT_OUT).await?;
    wanted.retain(|name| there.contains(name) || !left_out.contains(name));
    if there != wanted {
        return Err(format!("columns {there:?} and not {wanted:?}"));
    }
    let expected = rows_of(source, table, &wanted, !table.is_partitioned).await?;
    let got = rows_of(target, table, &wanted, true).await?;
    let (lost, extra) = (missing(&expected, &got), missing(&got, &expected));
    if lost.is_empty() && extra.is_empty() {
        return Ok(());
    }
    Err(format!(
        "{} rows expected, {} found\n    {} missing:{}\n    {} that should not be:{}",
        expected.len(),
        got.len(),
        lost.len(),
        shown(&lost),
        extra.len(),
        shown(&extra)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|&text| text.to_owned()).collect()
    }

    #[test]
    fn rows_that_are_there_too_seldom_are_found() {
        let (a, b) = (rows(&["a", "b", "b", "d"]), rows(&["b", "c", "d", "d"]));
        assert_eq!(missing(&a, &b), ["a", "b"]);
        assert_eq!(missing(&b, &a), ["c", "d"]);
        assert!(missing(&a, &a).is_empty());
    }
}
