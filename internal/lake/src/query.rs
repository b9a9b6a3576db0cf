//! DuckDB SQL over the lake, with the files that a question needs and no others.
//!
//! ```text
//!   --table, --from, --to, --event-type ──▶ CREATE VIEW changes …   the changes, from the files of that time
//!                                           CREATE VIEW "rows" …    data.parquet
//!   the question ─────────────────────────▶ as it is
//! ```
//!
//! A file is known to hold changes from the time in its name to that in the next one's. Commit times go back and forth a
//! little between neighbours, so files next to the range are taken too, and `ts` decides.
//!
//! Source: <https://duckdb.org/docs/stable/data/parquet/overview>.

use crate::layout::{SUFFIX, TableFolder, first_position};
use crate::schema::SYSTEM;
use replicator_sink::SinkError;
use replicator_store::{Found, Store};
use replicator_telemetry::rfc3339_micros;
use std::collections::BTreeMap;
use std::time::{Duration, UNIX_EPOCH};

/// How far the commit times of neighbours are taken to be out of order, at most.
const SKEW_MS: i64 = 60_000;

/// Files that are named one by one: beyond that, the folders are.
const FILES_NAMED_MAX: usize = 2_000;

/// Which changes are asked about.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Scope {
    /// Commit times from there on, microseconds since 1970.
    pub from_us: Option<i64>,
    /// Commit times before that.
    pub to_us: Option<i64>,
    /// Those of an `op`.
    pub event_type: Option<String>,
}

/// Where DuckDB finds the files.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sources {
    /// Of each table: paths of changes, and of `data.parquet` if it is there. Relative to the lake.
    pub tables: Vec<(TableFolder, Vec<String>, Option<String>)>,
    /// Whether it is asked about one table: then `changes` has the table's own columns, and there is `rows`. Otherwise
    /// it has `table_name`, however many there are.
    pub of_one_table: bool,
}

impl Sources {
    /// The files of `folders` that changes in `scope` may be in.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn find(
        store: &Store,
        folders: &[TableFolder],
        of_one_table: bool,
        scope: &Scope,
    ) -> Result<Self, SinkError> {
        let mut tables = Vec::new();
        for folder in folders {
            let objects = store.list(folder.path()).await?;
            let data = folder.data();
            let has_data = objects.iter().any(|found| found.path == data);
            tables.push((folder.clone(), chosen(&objects, scope), has_data.then_some(data)));
        }
        Ok(Self { tables, of_one_table })
    }

    /// All of their files.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.tables.iter().flat_map(|(_, changes, data)| changes.iter().chain(data).map(String::as_str))
    }

    /// The statements that make the views; `root` is what is before the paths.
    pub fn views(&self, root: &str, scope: &Scope) -> String {
        let root = root.trim_end_matches('/');
        let filter = filter(scope);
        let parts: Vec<String> = self
            .tables
            .iter()
            .filter(|(_, changes, _)| !changes.is_empty())
            .map(|(folder, changes, _)| {
                let columns = if self.of_one_table {
                    "*".to_owned()
                } else {
                    format!("{} AS table_name, {}", quoted(&folder.table_name()), SYSTEM.join(", "))
                };
                let files = files(root, changes);
                format!("SELECT {columns} FROM read_parquet([{files}], union_by_name = true){filter}")
            })
            .collect();
        let mut sql = String::new();
        if parts.is_empty() {
            sql.push_str("-- There are no changes in that time.\n");
        } else {
            sql.push_str(&format!("CREATE TEMP VIEW changes AS\n{};\n", parts.join("\nUNION ALL\n")));
        }
        if let [(_, _, Some(data))] = self.tables.as_slice()
            && self.of_one_table
        {
            let data = quoted(&format!("{root}/{data}"));
            sql.push_str(&format!("CREATE TEMP VIEW \"rows\" AS SELECT * FROM read_parquet({data});\n"));
        }
        sql
    }
}

/// The delta files, wherever they are, that may have changes in the range; each name once.
fn chosen(objects: &[Found], scope: &Scope) -> Vec<String> {
    let mut by_name: BTreeMap<&str, &str> = BTreeMap::new();
    for found in objects {
        if first_position(&found.path).is_some()
            && let Some((_, name)) = found.path.rsplit_once('/')
        {
            // One that is being moved is in both folders.
            by_name.entry(name).or_insert(&found.path);
        }
    }
    let files: Vec<(i64, &str)> =
        by_name.iter().filter_map(|(name, path)| Some((time_ms(name)?, *path))).collect();
    let nexts = files.iter().skip(1).map(|(begins, _)| Some(*begins)).chain([None]);
    let wanted = files.iter().zip(nexts).filter(|((begins, _), next)| {
        let ends_before = |from: i64| next.is_some_and(|next| next + SKEW_MS < from.div_euclid(1000));
        let begins_after = |to: i64| begins - SKEW_MS > to.div_euclid(1000);
        !scope.from_us.is_some_and(ends_before) && !scope.to_us.is_some_and(begins_after)
    });
    wanted.map(|((_, path), _)| (*path).to_owned()).collect()
}

/// The commit time in a delta's name, milliseconds since 1970.
fn time_ms(name: &str) -> Option<i64> {
    name.strip_suffix(SUFFIX)?.rsplit_once('_')?.1.parse().ok()
}

fn files(root: &str, paths: &[String]) -> String {
    let mut texts: Vec<String> = paths.iter().map(|path| quoted(&format!("{root}/{path}"))).collect();
    if texts.len() > FILES_NAMED_MAX {
        let folders = paths.iter().filter_map(|path| path.rsplit_once('/')).map(|(folder, _)| folder);
        texts = folders.map(|folder| quoted(&format!("{root}/{folder}/*{SUFFIX}"))).collect();
        texts.dedup();
    }
    texts.join(", ")
}

fn filter(scope: &Scope) -> String {
    let time = |us: i64| {
        let at = UNIX_EPOCH + Duration::from_micros(us.max(0).unsigned_abs());
        quoted(&rfc3339_micros(at))
    };
    let conditions = [
        scope.from_us.map(|from| format!("ts >= {}::timestamptz", time(from))),
        scope.to_us.map(|to| format!("ts < {}::timestamptz", time(to))),
        scope.event_type.as_ref().map(|op| format!("op = {}", quoted(op))),
    ];
    let conditions: Vec<String> = conditions.into_iter().flatten().collect();
    if conditions.is_empty() { String::new() } else { format!("\nWHERE {}", conditions.join(" AND ")) }
}

/// A text of SQL.
pub fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::SystemTime;

    fn found(folder: &str, ms: i64) -> Found {
        let name = format!("{ms:016x}-0000000000000000_{ms:015}{SUFFIX}");
        Found {
            path: format!("cdc/public/it's/{folder}/{name}"),
            bytes: 1,
            modified: SystemTime::UNIX_EPOCH,
            version: Default::default(),
        }
    }

    #[test]
    fn only_files_of_that_time_are_read_and_each_once() {
        let hour = 3_600_000;
        let mut objects: Vec<Found> = (0..10).map(|n| found("processed", n * hour)).collect();
        objects.push(found("deltas", 9 * hour));
        objects.push(found("deltas", 10 * hour));
        let scope = Scope {
            from_us: Some((3 * hour + hour / 2) * 1000),
            to_us: Some(5 * hour * 1000 - 1),
            event_type: Some("delete".into()),
        };
        // Those that begin at 3, 4, and, since clocks differ, at 5 o'clock.
        assert_eq!(chosen(&objects, &scope), [3, 4, 5].map(|n| found("processed", n * hour).path));
        assert_eq!(chosen(&objects, &Scope::default()).len(), 11);
        let tables = vec![(TableFolder::of("public", "it's"), chosen(&objects, &scope), None)];
        let sql = Sources { tables, of_one_table: true }.views("s3://b/p/", &scope);
        assert!(sql.contains("'s3://b/p/cdc/public/it''s/processed/"), "{sql}");
        assert!(sql.contains("ts < '1970-01-01T04:59:59.999999Z'::timestamptz AND op = 'delete'"), "{sql}");
    }
}
