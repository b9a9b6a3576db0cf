use crate::archive_state::{Described, assert_archive_folds_to, described_events};
use replicator_harness::{
    ClickHouse, ClickHouseOptions, Column, Config, PgOptions, PgVersion, Postgres, Replicator, Rows, S3,
    assert_each_id_once, assert_same_rows, source_columns,
};
use std::path::PathBuf;

/// A table to compare.
#[derive(Clone, Copy, Debug)]
pub struct Table {
    /// Name in schema `public`.
    pub name: &'static str,
    /// Key columns; none for a table that has no key, whose rows are a multiset.
    pub key: &'static [&'static str],
}

/// A source and three sinks: ClickHouse, another Postgres, a bucket.
pub struct World {
    /// The source; database `shop`.
    pub source: Postgres,
    /// The Postgres target; database `copy`.
    pub target: Postgres,
    /// The ClickHouse target.
    pub clickhouse: ClickHouse,
    /// The object store; bucket `bucket`.
    pub s3: S3,
}

/// Reads what is left, to where the source is now, and ends.
///
/// # Panics
/// When it does not end with exit code 0.
pub fn drain(config: &Config) {
    let finished = Replicator::run_to_end(config, &["--endpos", "current"]);
    assert!(finished.status.success(), "{}: {}", finished.status, finished.stderr);
}

/// Asks a replicator that runs, or runs later, for a copy of these tables.
///
/// # Panics
/// When that does not end with exit code 0.
pub fn resync(config: &Config, tables: &[&str]) {
    let tables = tables.iter().flat_map(|table| ["--table", table]);
    let asked =
        Replicator::output(&config.to_toml(), &["resync"].into_iter().chain(tables).collect::<Vec<_>>(), &[]);
    assert!(asked.status.success(), "{}", asked.stderr);
}

/// The LSN before the `@` as the number that it is.
fn lsn(text: &str) -> Option<u64> {
    let (high, low) = text.split_once('@')?.0.split_once('/')?;
    Some((u64::from_str_radix(high, 16).ok()? << 32) | u64::from_str_radix(low, 16).ok()?)
}

/// Bucket of the archive.
const BUCKET: &str = "bucket";

impl World {
    /// What the slot's reader has acknowledged.
    pub fn confirmed_flush(&self) -> String {
        self.source.sql("shop", "SELECT confirmed_flush_lsn FROM pg_replication_slots WHERE NOT temporary")
    }

    /// Starts all of it.
    pub fn start(version: PgVersion) -> Self {
        let source = Postgres::start(version, &PgOptions::default().setting("wal_sender_timeout", "10s"));
        source.createdb("shop");
        Self::with_source(source)
    }

    /// The sinks of that source, which has a database `shop`.
    pub fn with_source(source: Postgres) -> Self {
        Self::with_target(source, &PgOptions::default())
    }

    /// The same, with a Postgres target of these options.
    pub fn with_target(source: Postgres, options: &PgOptions) -> Self {
        let target = Postgres::start(PgVersion::V17, options);
        target.createdb("copy");
        let clickhouse = ClickHouse::start(&ClickHouseOptions::default());
        Self { source, target, clickhouse, s3: S3::with_bucket(BUCKET) }
    }

    /// A configuration of all three sinks, with short intervals.
    pub fn config(&self) -> Config {
        Config::new(&self.source.url("shop"))
            .set("source.tables", vec!["public.*"])
            .clickhouse("analytics", &self.clickhouse)
            .set_sink("analytics", "batch.interval_ms", 200)
            .postgres("copy", &self.target, "copy")
            .set_sink("copy", "batch.interval_ms", 200)
            .s3("archive", &self.s3, BUCKET, "prefix")
            .set_sink("archive", "batch.interval_ms", 200)
    }

    /// A configuration of the Postgres target alone, with short intervals, that publishes every table.
    pub fn postgres_config(&self) -> Config {
        Config::new(&self.source.url("shop")).postgres("copy", &self.target, "copy").set_sink(
            "copy",
            "batch.interval_ms",
            100,
        )
    }

    /// The folder under which the archive lies.
    pub fn archive_root(&self) -> PathBuf {
        self.s3.folder(BUCKET).join("prefix")
    }

    /// Events of the archive, each asserted to be there once.
    pub fn archive(&self) -> Vec<Described> {
        let events = described_events(&self.archive_root());
        assert_each_id_once(events.iter().map(|described| &*described.id));
        events
    }

    /// What each sink has noted of what is acknowledged; none where nothing is.
    ///
    /// # Errors
    /// A sink's server does not answer.
    pub fn noted(&self) -> Result<Vec<(&'static str, Option<u64>)>, String> {
        let postgres = self
            .target
            .try_sql("copy", "SELECT min(value) FROM replicator.notes WHERE key = 'acknowledged'")?;
        let clickhouse = self.clickhouse.try_query(&format!(
            "SELECT value FROM {}._replicator_notes FINAL WHERE endsWith(key, '/note/acknowledged') AND removed = 0 FORMAT TSVRaw",
            self.clickhouse.database()
        ))?;
        let folder = self.archive_root().join("replicator/notes");
        let mut archive = String::new();
        for file in std::fs::read_dir(&folder).map_err(|error| format!("{}: {error}", folder.display()))? {
            let path = file.map_err(|error| error.to_string())?.path();
            if path.to_string_lossy().ends_with("-acknowledged.txt") {
                archive = std::fs::read_to_string(&path).map_err(|error| error.to_string())?;
            }
        }
        let noted = [("Postgres", postgres), ("ClickHouse", clickhouse), ("the archive", archive)];
        Ok(noted.map(|(sink, text)| (sink, lsn(text.trim()))).to_vec())
    }

    /// Compares one table of the source with both databases, to the last byte.
    pub async fn assert_databases_equal(&self, table: &Table) -> (Vec<Column>, Rows) {
        let source = self.source.client("shop").await;
        let target = self.target.client("copy").await;
        let name = format!("public.\"{}\"", table.name.replace('"', "\"\""));
        let columns = source_columns(&source, &name).await;
        let expected = Rows::of_postgres(&source, &name, &columns).await;
        let copy = Rows::of_postgres(&target, &name, &columns).await;
        assert_same_rows(&format!("{name} in Postgres"), &expected, &copy);
        let mirror = Rows::of_clickhouse(&self.clickhouse, self.clickhouse.database(), table.name, &columns);
        assert_same_rows(&format!("{name} in ClickHouse"), &expected, &mirror);
        (columns, expected)
    }

    /// Compares the tables of the source with both databases, to the last byte, and the archive's events, each
    /// there once, folded, with the source.
    pub async fn assert_equal(&self, tables: &[Table]) {
        let events = self.archive();
        for table in tables {
            let (columns, expected) = self.assert_databases_equal(table).await;
            assert_archive_folds_to(&events, table, &columns, &expected);
        }
    }
}
