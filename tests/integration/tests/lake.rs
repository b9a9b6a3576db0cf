//! The lake: what DuckDB makes of it is what the source has.

use replicator_harness::{Config, PgOptions, PgVersion, Postgres, Replicator, S3, duckdb, scratch_dir};
use replicator_integration::drain;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A source with a table of many sorts of columns.
fn source() -> Postgres {
    let source = Postgres::start(PgVersion::V17, &PgOptions::default().setting("wal_sender_timeout", "10s"));
    source.createdb("shop");
    source.sql(
        "shop",
        "CREATE TABLE orders (id bigint PRIMARY KEY, name text, amount numeric(12,2), placed timestamptz, ts uuid, ok bool, \
         big text);
         ALTER TABLE orders ALTER big SET STORAGE EXTERNAL;
         INSERT INTO orders SELECT n, 'copied ' || n, n / 7.0, '2026-03-18 09:00:00.000042+00'::timestamptz + n * \
         interval '1 s', md5(n::text)::uuid, n % 2 = 0, repeat(md5(n::text), 100) FROM generate_series(1, 3000) n;",
    );
    source
}

fn config(source: &Postgres, lake: &Path) -> Config {
    with_short_batches(Config::new(&source.url("shop")).sink(
        "lake",
        "lake",
        &format!("file://{}", lake.display()),
    ))
}

fn with_short_batches(config: Config) -> Config {
    config.set("source.tables", vec!["public.*"]).set_sink("lake", "batch.interval_ms", 100)
}

/// What the source has: a line a row, in the order of keys.
fn rows_of_source(source: &Postgres) -> String {
    source.sql(
        "shop",
        "SELECT id, name, amount, CASE WHEN isfinite(placed) THEN (extract(epoch FROM placed) * 1000000)::bigint END, ts, ok::int, md5(big) FROM orders ORDER BY id",
    )
}

const COLUMNS: &str =
    "id, name, amount, CASE WHEN isfinite(placed) THEN epoch_us(placed) END, ts_, ok::int, md5(big)";

/// What `data.parquet` has.
fn rows_of_data(lake: &Path) -> String {
    let data = lake.join("cdc/public/orders/data.parquet");
    duckdb(&format!("SELECT {COLUMNS} FROM '{}' ORDER BY id", data.display()))
}

/// What the changes come to: the newest of each key, values that were not sent from before.
fn rows_of_deltas(lake: &Path) -> String {
    let deltas = lake.join("cdc/public/orders/deltas/*.parquet");
    duckdb(&format!(
        "WITH changes AS (SELECT * FROM read_parquet('{}', union_by_name = true)),
              newest AS (
                SELECT arg_max_null(op, bookmark) AS op, arg_max_null(id, bookmark) AS id,
                  arg_max_null(name, bookmark) AS name, arg_max_null(amount, bookmark) AS amount,
                  arg_max_null(placed, bookmark) AS placed, arg_max_null(ts_, bookmark) AS ts_,
                  arg_max_null(ok, bookmark) AS ok,
                  arg_max_null(big, bookmark) FILTER (NOT coalesce(unchanged LIKE '%\"big\"%', false)) AS big
                FROM changes
                WHERE pk IS NOT NULL AND bookmark >= coalesce(
                  (SELECT max(bookmark) FROM changes WHERE op = 'truncate'), '')
                GROUP BY pk)
         SELECT {COLUMNS} FROM newest WHERE op <> 'delete' ORDER BY id",
        deltas.display()
    ))
}

fn compact(config: &Config) -> String {
    let finished = Replicator::output(&config.to_toml(), &["lake", "compact"], &[]).expect_success();
    finished.stdout
}

fn changes(source: &Postgres, round: i32) {
    source.sql(
        "shop",
        &format!(
            "UPDATE orders SET name = 'round {round}' WHERE id % 10 = {round};
             UPDATE orders SET amount = amount + 1, big = repeat(md5(id::text || {round}), 90) WHERE id % 11 = {round};
             DELETE FROM orders WHERE id % 13 = {round};
             INSERT INTO orders SELECT n, NULL, NULL, 'infinity', NULL, NULL, '' FROM generate_series(10000 + {round} * 100, 10050 + {round} * 100) n;
             UPDATE orders SET id = id + 50000, big = 'moved' WHERE id = 10000 + {round} * 100;"
        ),
    );
}

#[test]
fn the_lake_is_the_source_before_and_after_it_is_compacted_though_the_process_was_killed() {
    let (source, lake) = (source(), scratch_dir("lake"));
    let config = config(&source, &lake);
    let mut replicator = Replicator::spawn(&config, &[]);
    replicator.wait_until_ready(Duration::from_secs(60));
    for round in 0..4 {
        changes(&source, round);
        std::thread::sleep(Duration::from_millis(250));
        replicator.kill9();
        replicator = Replicator::spawn(&config, &[]);
    }
    replicator.wait_until_ready(Duration::from_secs(60));
    replicator.sigterm();
    let _ = replicator.wait(Duration::from_secs(60));
    drain(&config);
    assert_eq!(rows_of_deltas(&lake), rows_of_source(&source));
    assert_each_change_once(&lake);

    let said = compact(&config);
    assert!(said.contains("cdc/public/orders") && said.contains("files folded"), "{said}");
    assert_eq!(rows_of_data(&lake), rows_of_source(&source));
    assert!(compact(&config).contains("nothing to fold"));

    // What comes behind is folded upon it, the ends of rows and values that were not sent among it.
    changes(&source, 5);
    source.sql(
        "shop",
        "ALTER TABLE orders ADD COLUMN extra int DEFAULT 7; UPDATE orders SET extra = 8 WHERE id < 20",
    );
    drain(&config);
    compact(&config);
    assert_eq!(rows_of_data(&lake), rows_of_source(&source));
    let data = lake.join("cdc/public/orders/data.parquet");
    let extra = duckdb(&format!("SELECT id, extra FROM '{}' ORDER BY id", data.display()));
    assert_eq!(extra, source.sql("shop", "SELECT id, extra FROM orders ORDER BY id"));
    let unsorted = format!(
        "SELECT count(*) FROM (SELECT id, lag(id) OVER () AS before FROM '{}') WHERE before > id",
        data.display()
    );
    assert_eq!(duckdb(&unsorted), "0", "the file is sorted by key");

    source.sql("shop", "TRUNCATE orders; INSERT INTO orders (id, name) VALUES (1, 'after')");
    drain(&config);
    compact(&config);
    assert_eq!(rows_of_data(&lake), rows_of_source(&source));
}

fn assert_each_change_once(lake: &Path) {
    let deltas = lake.join("cdc/public/orders/deltas/*.parquet");
    let repeated = duckdb(&format!(
        "SELECT count(*) - count(DISTINCT bookmark) FROM read_parquet('{}', union_by_name = true)",
        deltas.display()
    ));
    assert_eq!(repeated, "0", "each change is there once");
}

#[test]
fn a_lake_on_s3_is_the_source_after_it_is_compacted() {
    let source = source();
    let s3 = S3::with_bucket("bucket");
    let config = Config::new(&source.url("shop"))
        .sink("lake", "lake", "s3://bucket/prefix")
        .set_sink("lake", "endpoint", s3.endpoint())
        .set_sink("lake", "access_key_id", s3.access_key())
        .set_sink("lake", "secret_access_key", s3.secret_key());
    let config = with_short_batches(config);
    drain(&config);
    for round in 0..2 {
        changes(&source, round);
        drain(&config);
        compact(&config);
        let root: PathBuf = s3.folder("bucket").join("prefix");
        assert_eq!(rows_of_data(&root), rows_of_source(&source));
    }
}
