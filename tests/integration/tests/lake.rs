//! The lake: what DuckDB makes of it is what the source has.

use replicator_harness::{
    ClickHouse, ClickHouseOptions, Config, PgOptions, PgVersion, Postgres, Replicator, S3, duckdb,
    scratch_dir,
};
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

#[test]
fn a_table_restored_as_of_ten_moments_is_what_the_source_held_then() {
    let (source, lake) = (source(), scratch_dir("lake"));
    let config = config(&source, &lake);
    let mut replicator = Replicator::spawn(&config, &[]);
    replicator.wait_until_ready(Duration::from_secs(60));
    let mut then = Vec::new();
    for round in 0..10 {
        changes(&source, round);
        let lsn = source.sql("shop", "SELECT pg_current_wal_lsn()");
        let time = source.sql("shop", "SELECT to_char(clock_timestamp(), 'YYYY-MM-DD\"T\"HH24:MI:SS.USOF')");
        then.push((if round % 2 == 0 { lsn } else { time }, rows_of_source(&source)));
        if round == 4 {
            std::thread::sleep(Duration::from_secs(1));
            compact(&config);
        }
    }
    replicator.sigterm();
    let _ = replicator.wait(Duration::from_secs(60));
    drain(&config);
    let out = lake.join("restored.parquet");
    for (moment, rows) in &then {
        let arguments =
            ["lake", "restore", "--table", "public.orders", "--as-of", moment, "--into", "file", "--out"];
        let arguments: Vec<&str> = arguments.into_iter().chain(out.to_str()).collect();
        let said = Replicator::output(&config.to_toml(), &arguments, &[]).expect_success().stdout;
        assert!(said.contains("public.orders: "), "{said}");
        let restored = duckdb(&format!("SELECT {COLUMNS} FROM '{}' ORDER BY id", out.display()));
        assert_eq!(restored, *rows, "as of {moment}");
    }

    // Into sinks, which have a database of their own each.
    let (moment, rows) = &then[6];
    let target = Postgres::start(PgVersion::V17, &PgOptions::default());
    target.createdb("copy");
    let clickhouse = ClickHouse::start(&ClickHouseOptions::default());
    let config = config.postgres("pg", &target, "copy").clickhouse("ch", &clickhouse);
    for sink in ["pg", "ch"] {
        let arguments = ["lake", "restore", "--table", "public.orders", "--as-of", moment, "--into", sink];
        let _ = Replicator::output(&config.to_toml(), &arguments, &[]).expect_success();
    }
    let columns = "id, name, amount, CASE WHEN isfinite(placed) THEN (extract(epoch FROM placed) * 1000000)::bigint END, ts, ok::int, md5(big)";
    let restored = target.sql("copy", &format!("SELECT {columns} FROM orders ORDER BY id"));
    assert_eq!(restored, *rows, "in Postgres as of {moment}");
    let ids =
        |rows: &str| rows.lines().filter_map(|row| row.split('|').next()).collect::<Vec<_>>().join("\n");
    let query = format!("SELECT id FROM `{}`.orders FINAL ORDER BY id FORMAT TSV", clickhouse.database());
    let restored = clickhouse.query(&query);
    assert_eq!(restored.trim(), ids(rows), "in ClickHouse as of {moment}");
}

/// A `duckdb` for the command to find, and what PATH has to be for that.
fn duckdb_command(folder: &Path) -> String {
    // As text, like DuckDB's own command: Python would need another package for times with a zone.
    let script = r#"#!/usr/bin/env bash
. REPOSITORY/deploy/dev/env.sh
exec "$DEV_PYTHON" -c '
import duckdb, sys
connection = duckdb.connect()
connection.execute("SET TimeZone = \"UTC\"")
for statement in connection.extract_statements(sys.stdin.read()):
    if statement.type == duckdb.StatementType.SELECT:
        text = statement.query.strip().rstrip(";")
        for row in connection.execute(f"SELECT COLUMNS(*)::VARCHAR FROM ({text})").fetchall():
            print("|".join(value or "" for value in row))
    else:
        connection.execute(statement)
'
"#;
    let script = script.replace("REPOSITORY", concat!(env!("CARGO_MANIFEST_DIR"), "/../.."));
    let command = folder.join("duckdb");
    std::fs::write(&command, script).expect("write the command");
    std::fs::set_permissions(&command, std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .expect("allow it");
    format!("{}:{}", folder.display(), std::env::var("PATH").unwrap_or_default())
}

/// The questions of docs/lake.md, in their order.
fn documented_questions() -> Vec<Vec<String>> {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/lake.md"))
        .expect("read the docs");
    let (_, questions) = text.split_once("## Questions").expect("the section");
    let commands =
        questions.split("```sh\n").skip(1).filter_map(|rest| rest.split_once("```")).map(|(block, _)| block);
    commands.map(words).collect()
}

/// A shell's words, as far as the docs need them: spaces, double quotes, a backslash at a line's end.
fn words(command: &str) -> Vec<String> {
    let command = command.replace("\\\n", " ");
    let pieces = command.split('"').enumerate();
    let words = pieces.flat_map(|(number, piece)| match number % 2 {
        0 => piece.split_whitespace().map(str::to_owned).collect::<Vec<_>>(),
        _ => vec![piece.split_whitespace().collect::<Vec<_>>().join(" ")],
    });
    words.collect()
}

#[test]
fn each_question_of_the_docs_is_answered_in_a_folder_and_over_s3() {
    let (source, lake, commands) = (source(), scratch_dir("lake"), scratch_dir("commands"));
    let s3 = S3::with_bucket("bucket");
    let in_folder = config(&source, &lake).set("source.slot", "folder");
    let over_s3 = with_short_batches(
        Config::new(&source.url("shop"))
            .sink("lake", "lake", "s3://bucket/prefix")
            .set_sink("lake", "endpoint", s3.endpoint())
            .set_sink("lake", "access_key_id", s3.access_key())
            .set_sink("lake", "secret_access_key", s3.secret_key()),
    );
    let path = duckdb_command(&commands);
    let questions = documented_questions();
    assert!(questions.len() >= 6, "{questions:?}");
    drain(&in_folder);
    drain(&over_s3);
    changes(&source, 1);
    for config in [&in_folder, &over_s3] {
        drain(config);
        compact(config);
    }
    changes(&source, 2);
    for (config, fetch) in [(&in_folder, false), (&over_s3, true)] {
        drain(config);
        let listed = Replicator::output(&config.to_toml(), &["lake", "ls"], &[]).expect_success().stdout;
        assert!(listed.contains("public.orders") && listed.contains("a month at R2's prices"), "{listed}");
        for question in &questions {
            // Without `replicator`, `--config FILE`, which the harness gives.
            let mut arguments: Vec<&str> = question.iter().skip(1).map(String::as_str).collect();
            let config_at = arguments.iter().position(|word| *word == "--config").expect("--config");
            arguments.drain(config_at..config_at + 2);
            arguments.extend(fetch.then_some("--fetch"));
            let answer =
                Replicator::output(&config.to_toml(), &arguments, &[("PATH", &path)]).expect_success();
            assert!(!answer.stdout.trim().is_empty(), "{question:?} has no answer: {}", answer.stderr);
        }
    }
    let count = ["lake", "query", "--table", "public.orders", "SELECT count(*) FROM rows"];
    let answer = Replicator::output(&in_folder.to_toml(), &count, &[("PATH", &path)]).expect_success().stdout;
    let in_data =
        duckdb(&format!("SELECT count(*) FROM '{}'", lake.join("cdc/public/orders/data.parquet").display()));
    assert_eq!(answer.trim(), in_data);
    let print: Vec<&str> = count.into_iter().chain(["--print", "--event-type", "delete"]).collect();
    let sql = Replicator::output(&over_s3.to_toml(), &print, &[]).expect_success().stdout;
    assert!(sql.contains("'s3://bucket/prefix/cdc/public/orders/") && sql.contains("op = 'delete'"), "{sql}");
    assert!(!sql.contains(s3.secret_key()), "no secret is printed");
    // Where the system has one, nothing is missing.
    if !["/usr/bin/duckdb", "/bin/duckdb"].iter().any(|known| Path::new(known).exists()) {
        let missing = Replicator::output(&in_folder.to_toml(), &count, &[("PATH", "/usr/bin:/bin")]);
        assert!(!missing.status.success(), "there is no duckdb");
        assert!(missing.stderr.contains("no duckdb in PATH"), "{}", missing.stderr);
    }
}
