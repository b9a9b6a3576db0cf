//! The initial copy, end to end: rows from before the stream, in every sink, through crashes and beside writers.

use replicator_harness::{PgVersion, Proxy, Replicator, eventually_blocking};
use replicator_integration::{
    Described, Supervisor, Table, World, drain, resync, wait_for_copy, wait_until_caught_up,
};
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(60);

/// A value of 20 kB that does not compress: stored out of line, and not sent when an update leaves it alone.
const BIG: &str = "(SELECT string_agg(md5(random()::text), '') FROM generate_series(1, 640))";

fn number_from_environment(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Rows that the copies of a run have read, as its log says.
fn rows_read(log: &str) -> u64 {
    let rows = |line: &str| serde_json::from_str::<serde_json::Value>(line).ok()?["rows"].as_u64();
    log.lines()
        .filter(|line| line.contains("\"copy over\"") || line.contains("\"copying\""))
        .filter_map(rows)
        .max()
        .unwrap_or(0)
}

/// The metrics, when all is copied: of what 68,500 rows were, those that writers have left until the snapshot.
fn assert_told_how_far_it_is(supervisor: &Supervisor) {
    let metric = |name: &str| supervisor.metric(&format!("replicator_copy_{name}"));
    eventually_blocking(Duration::from_secs(60), "the end of the copy", || {
        let told = ["rows_total", "done_ratio", "eta_seconds", "tables_left"].map(metric);
        if told[0] >= 40_000.0 && told[1..] == [1.0, 0.0, 0.0] { Ok(()) } else { Err(format!("{told:?}")) }
    });
    let bytes = metric("bytes_total");
    assert!(bytes > 50.0 * 40_000.0, "{bytes}");
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_from_before_the_stream_arrive_in_every_sink_while_it_goes_on() {
    for version in [PgVersion::V15, PgVersion::V18] {
        let world = World::start(version);
        // As many columns as there can be, one with values that updates leave alone.
        let kind = |n| if n == 1598 { "text" } else { "int" };
        let wide: Vec<String> = (1..1600).map(|n| format!("c{n} {}", kind(n))).collect();
        world.source.sql(
            "shop",
            &format!(
                "CREATE TABLE documents (id bigint PRIMARY KEY, title text, body text, n int);
                 INSERT INTO documents SELECT n, 'title ' || n, CASE WHEN n % 10 = 0 THEN {BIG} || n END, 0
                     FROM generate_series(1, 3000) n;
                 CREATE TABLE log (at int, line text);
                 INSERT INTO log SELECT n % 7, 'same' FROM generate_series(1, 5000) n;
                 CREATE TABLE nothing (id int PRIMARY KEY, v text);
                 CREATE TABLE wide (id int PRIMARY KEY, {});
                 ALTER TABLE wide ALTER c1598 SET STORAGE EXTERNAL;
                 CREATE TABLE wide_full (LIKE wide INCLUDING ALL); ALTER TABLE wide_full REPLICA IDENTITY FULL;
                 INSERT INTO wide (id, c1, c1598, c1599) SELECT n, n, {BIG} || n, -n FROM generate_series(1, 20) n;
                 CREATE TABLE parts (id int, region text, v text, PRIMARY KEY (id, region)) PARTITION BY LIST (region);
                 CREATE TABLE parts_a PARTITION OF parts FOR VALUES IN ('a');
                 CREATE TABLE parts_b (v text, region text NOT NULL, id int NOT NULL);
                 ALTER TABLE parts ATTACH PARTITION parts_b FOR VALUES IN ('b');
                 INSERT INTO parts SELECT n, CASE WHEN n % 2 = 0 THEN 'a' ELSE 'b' END, 'v' || n FROM generate_series(1, 500) n;
                 CREATE TABLE busy (id bigint PRIMARY KEY, n int, filler text);
                 INSERT INTO busy SELECT n, 0, repeat('x', 50) FROM generate_series(1, 60000) n;",
                wide.join(", ")
            ),
        );
        let config = world.config().set("copy.range_bytes", "256KiB").set("copy.batch_rows_max", 2000);
        let supervisor = Supervisor::start(&config);
        // Beside the copy: updates, deletes, key changes, inserts of rows it reads, did read and will read.
        let begun = Instant::now();
        let mut r = 0;
        while begun.elapsed() < Duration::from_secs(6) || !supervisor.is_ready() {
            r += 1;
            world.source.sql(
                "shop",
                &format!(
                    "UPDATE busy SET n = n + 1 WHERE id % 97 = {r} % 97;
                     DELETE FROM busy WHERE id % 1009 = {r};
                     UPDATE busy SET id = id + 1000000 * {r} WHERE id % 503 = {r} AND id < 100000;
                     INSERT INTO busy VALUES (-{r}, 0, 'new');
                     UPDATE documents SET n = n + 1 WHERE id % 5 = {r} % 5;
                     UPDATE documents SET id = id + 10000 WHERE id = 10 * {r};
                     INSERT INTO log VALUES ({r}, 'same');
                     INSERT INTO nothing VALUES ({r}, 'v');
                     UPDATE wide SET c1 = {r}, c800 = {r}, c1599 = NULL WHERE id % 7 = {r} % 7;
                     INSERT INTO wide_full (id, c1, c1598) VALUES ({r}, {r}, {BIG}); UPDATE wide_full SET c2 = {r} WHERE id % 3 = {r} % 3;
                     UPDATE parts SET v = 'w' || {r} WHERE id % 11 = {r} % 11;"
                ),
            );
        }
        assert_told_how_far_it_is(&supervisor);
        supervisor.stop();
        drain(&config);
        world
            .assert_equal(&[
                Table { name: "documents", key: &["id"] },
                Table { name: "log", key: &[] },
                Table { name: "nothing", key: &["id"] },
                Table { name: "wide", key: &["id"] },
                Table { name: "wide_full", key: &["id"] },
                Table { name: "busy", key: &["id"] },
                Table { name: "parts", key: &["id", "region"] },
            ])
            .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_is_killed_three_times_goes_on_where_it_was() {
    let rows = number_from_environment("COPY_ROWS", 600_000);
    let world = World::start(PgVersion::V17);
    world.source.sql(
        "shop",
        &format!(
            "CREATE TABLE narrow (id bigint PRIMARY KEY, n int, code text, price numeric(12,2), note text, at timestamptz);
             INSERT INTO narrow SELECT n, n % 1000, 'code' || n % 100, n / 100.0, repeat('y', 100), now()
                 FROM generate_series(1, {rows}) n;
             CREATE TABLE big (id int PRIMARY KEY, body text, n int);
             INSERT INTO big SELECT n, {BIG} || n, 0 FROM generate_series(1, 400) n;
             CREATE TABLE log (line text);
             INSERT INTO log SELECT 'line' FROM generate_series(1, 20000);
             CREATE SEQUENCE of_new START 300000000"
        ),
    );
    let script = world.source.data_dir().join("writes.sql");
    let writes = format!(
        "\\set a random(1, {rows})\n\\set b random(1, {rows})\n\\set c random(1, {rows})\nBEGIN;\n\
         UPDATE narrow SET n = n + 1, at = now() WHERE id = :a;\n\
         UPDATE narrow SET price = price + 1, note = 'by pgbench' WHERE id = :b;\n\
         DELETE FROM narrow WHERE id = :c AND id % 100 = 7;\n\
         INSERT INTO narrow VALUES (nextval('of_new'), 1, 'new', 0.01, 'by pgbench', now());\nCOMMIT;\n"
    );
    std::fs::write(&script, writes).expect("write pgbench's script");
    let script = script.to_str().expect("a path that is text");
    let mut pgbench =
        world.source.start_pgbench("shop", &["-n", "-c", "2", "-R", "300", "-T", "3000", "-f", script]);
    let range_bytes = if rows > 5_000_000 { "16MiB" } else { "2MiB" };
    // Little is read ahead of what is durable, so that little is lost with each kill.
    let config = world
        .config()
        .set("copy.range_bytes", range_bytes)
        .set("copy.bytes_max", "8MiB")
        .set("copy.batch_rows_max", 5_000);
    let supervisor = Supervisor::start(&config);
    let writer = |r: u64| {
        world.source.sql(
            "shop",
            &format!(
                "UPDATE narrow SET n = n + 1 WHERE id % 5003 = {r} % 5003;
                 DELETE FROM narrow WHERE id % 70001 = {r};
                 UPDATE narrow SET id = id + 100000000 WHERE id % 50021 = {r};
                 UPDATE big SET n = n + 1 WHERE id % 7 = {r} % 7;
                 UPDATE big SET id = id + 1000 * {r} WHERE id % 101 = {r} AND id < 1000;
                 INSERT INTO log VALUES ('later');"
            ),
        );
    };
    let (mut r, mut kills, mut read) = (0, 0, 0);
    let mut last_kill = Instant::now();
    let begun = Instant::now();
    let copied = || {
        world
            .clickhouse
            .try_query(&format!("SELECT count() FROM {}.narrow", world.clickhouse.database()))
            .ok()
            .and_then(|count| count.trim().parse().ok())
            .unwrap_or(0)
    };
    while kills < 3 {
        r += 1;
        writer(r);
        let part = rows * (kills + 1) / 5;
        let there: u64 = if supervisor.is_ready() { copied() } else { 0 };
        if there > part || last_kill.elapsed() > Duration::from_secs(20) {
            read += supervisor.metric("replicator_copy_rows_total") as u64;
            supervisor.kill9();
            kills += 1;
            last_kill = Instant::now();
        }
        assert!(begun.elapsed() < Duration::from_secs(600), "no progress");
    }
    assert!(pgbench.is_running(), "pgbench has ended");
    drop(pgbench);
    (0..5).for_each(|n| writer(r + n));
    std::thread::sleep(Duration::from_secs(1));
    let logs = supervisor.stop();
    drain(&config);
    // Starting over each time would read more than twice the rows. What was read and was not yet durable is read twice.
    read += logs.iter().rev().map(|log| rows_read(log)).find(|rows| *rows > 0).unwrap_or_default();
    assert!(read >= rows / 4 && read < rows * 3 / 2, "{read} rows were read of {rows}");
    if rows > 2_000_000 {
        // Every row by its digest, where it lies: three copies of so many rows have no place in memory.
        assert_narrow_equal(&world);
        world.assert_databases_equal(&Table { name: "big", key: &["id"] }).await;
        world.assert_databases_equal(&Table { name: "log", key: &[] }).await;
        return;
    }
    world
        .assert_equal(&[
            Table { name: "narrow", key: &["id"] },
            Table { name: "big", key: &["id"] },
            Table { name: "log", key: &[] },
        ])
        .await;
}

/// Compares `narrow` in the databases: the number of rows, and the digests of all rows, combined.
fn assert_narrow_equal(world: &World) {
    let postgres =
        "SELECT count(*), bit_xor(('x' || substr(md5(concat_ws('|', id, n, code, (price * 100)::bigint, note,
          (extract(epoch FROM at) * 1000000)::bigint)), 1, 16))::bit(64)::bigint) FROM narrow";
    let clickhouse = format!(
        "SELECT count(), reinterpretAsInt64(groupBitXor(reinterpretAsUInt64(reverse(substring(MD5(concat(toString(id), '|',
           toString(n), '|', code, '|', toString(toInt64(price * 100)), '|', note, '|',
           toString(toUnixTimestamp64Micro(at)))), 1, 8))))) FROM {}.narrow FINAL",
        world.clickhouse.database()
    );
    let wanted = world.source.sql("shop", postgres).replace('|', "\t");
    assert_eq!(world.target.sql("copy", postgres).replace('|', "\t"), wanted, "Postgres");
    assert_eq!(world.clickhouse.query(&clickhouse).trim(), wanted, "ClickHouse");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_broken_copy_has_handed_on_is_not_written_into_the_one_that_follows() {
    const ROWS: u64 = 150_000;
    let world = World::start(PgVersion::V15);
    // Without a key a row that is written twice is there twice.
    world.source.sql(
        "shop",
        &format!("CREATE TABLE bag (v text); INSERT INTO bag SELECT repeat('x', 200) FROM generate_series(1, {ROWS})"),
    );
    let proxy = Proxy::start(world.target.address());
    let config = world
        .config()
        .set_sink("copy", "url", proxy.rewrite(&world.target.url("copy")))
        .set("copy.range_bytes", "256KiB")
        .set("copy.bytes_max", "8MiB")
        .set("copy.batch_rows_max", 1000);
    let mut replicator = Replicator::spawn(&config, &[]);
    eventually_blocking(SOON, "a part of the rows", || {
        let count = world.target.try_sql("copy", "SELECT count(*) FROM bag")?;
        if count.parse::<u64>().is_ok_and(|count| count > 500) { Ok(()) } else { Err(count) }
    });
    // Batches wait for the target; then the source goes away under the readers.
    proxy.stall();
    std::thread::sleep(Duration::from_millis(500));
    world
        .source
        .sql("shop", "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'COPY %'");
    std::thread::sleep(Duration::from_millis(1500));
    proxy.resume();
    replicator.wait_for_line("caught up", SOON);
    replicator.sigterm();
    assert!(replicator.wait(SOON).success(), "{}", replicator.stderr());
    assert!(replicator.stderr().contains("under a new snapshot"), "{}", replicator.stderr());
    drain(&config);
    world.assert_equal(&[Table { name: "bag", key: &[] }]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_exchange_their_keys_while_a_copy_is_interrupted_keep_their_large_values() {
    const ROWS: u64 = 4000;
    const SWAPPED: u64 = 100;
    let world = World::start(PgVersion::V17);
    world.source.sql(
        "shop",
        &format!(
            "CREATE TABLE swapped (id int PRIMARY KEY, body text);
             INSERT INTO swapped SELECT n, {BIG} || n FROM generate_series(1, {ROWS}) n;"
        ),
    );
    let config = world
        .config()
        .set("copy.range_bytes", "8KiB")
        .set("copy.batch_rows_max", 50)
        .set("copy.batch_bytes_max", "1MiB")
        .set("copy.bytes_max", "8MiB");
    let mut replicator = Replicator::spawn(&config, &[]);
    let sql = format!("SELECT count() FROM {}.swapped", world.clickhouse.database());
    eventually_blocking(SOON, "a part of the rows", || {
        let count = world.clickhouse.try_query(&sql)?;
        if count.trim().parse::<u64>().is_ok_and(|count| count > 200) { Ok(()) } else { Err(count) }
    });
    replicator.kill9();
    let copied: u64 = world.clickhouse.query(&sql).trim().parse().expect("a count");
    assert!(copied < ROWS, "the copy was over before it was killed");
    // The first and the last, and so on towards the middle: copied ones with others.
    world.source.sql(
        "shop",
        &format!(
            "BEGIN; UPDATE swapped SET id = -id WHERE id <= {SWAPPED} OR id > {ROWS} - {SWAPPED};
             UPDATE swapped SET id = {ROWS} + 1 + id WHERE id < 0; COMMIT;"
        ),
    );
    drain(&config);
    world.assert_equal(&[Table { name: "swapped", key: &["id"] }]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_asked_for_is_copied_anew_while_the_others_go_on() {
    let world = World::start(PgVersion::V17);
    world.source.sql(
        "shop",
        "CREATE TABLE a (id int PRIMARY KEY, v text); CREATE TABLE b (id int PRIMARY KEY, v text);
         CREATE TABLE bag (v text);
         INSERT INTO a SELECT n, 'a' || n FROM generate_series(1, 1000) n;
         INSERT INTO b SELECT n, 'b' || n FROM generate_series(1, 1000) n;
         INSERT INTO bag SELECT 'same' FROM generate_series(1, 100) n;",
    );
    let config = world.config();
    drain(&config);
    // Somebody spoils the copies.
    world
        .target
        .sql("copy", "DELETE FROM a WHERE id % 2 = 0; INSERT INTO a VALUES (-1, 'alien'); TRUNCATE bag");
    for table in ["a", "bag"] {
        world.clickhouse.query(&format!("TRUNCATE TABLE {}.{table}", world.clickhouse.database()));
    }
    resync(&config, &["public.a", "public.bag"]);
    // Nobody reads the table until this ends, not even the copy.
    let holder = world.source.client("shop").await;
    holder.batch_execute("BEGIN; LOCK TABLE a").await.unwrap();
    let mut replicator = Replicator::spawn(&config, &[]);
    replicator.wait_until_ready(SOON);
    for n in 0..20 {
        holder.batch_execute(&format!("UPDATE a SET v = 'x{n}' WHERE id % 20 = {n}")).await.unwrap();
        world.source.sql("shop", &format!("INSERT INTO b VALUES ({n} + 5000, 'b')"));
    }
    let arrived = |count: &str| if count == "1020" { Ok(()) } else { Err(count.to_owned()) };
    eventually_blocking(SOON, "the other table in Postgres", || {
        arrived(&world.target.sql("copy", "SELECT count(*) FROM b"))
    });
    eventually_blocking(SOON, "the other table in ClickHouse", || {
        let b = format!("SELECT count() FROM {}.b FINAL", world.clickhouse.database());
        arrived(world.clickhouse.query(&b).trim())
    });
    eventually_blocking(SOON, "the other table in the archive", || {
        let is_new = |event: &&Described| {
            let event = event.event();
            event["table"] == "b" && event["op"] == "insert"
        };
        arrived(&world.archive().iter().filter(is_new).count().saturating_add(1000).to_string())
    });
    let copied =
        |log: &str| log.lines().any(|line| line.contains("table copied") && line.contains("public.a\""));
    assert!(!copied(&replicator.stderr()), "{}", replicator.stderr());
    holder.batch_execute("COMMIT").await.unwrap();
    eventually_blocking(SOON, "the table's copy", || {
        if copied(&replicator.stderr()) { Ok(()) } else { Err(replicator.stderr()) }
    });
    replicator.wait_for_line("caught up", SOON);
    replicator.sigterm();
    assert!(replicator.wait(SOON).success(), "{}", replicator.stderr());
    drain(&config);
    let tables = [
        Table { name: "a", key: &["id"] },
        Table { name: "b", key: &["id"] },
        Table { name: "bag", key: &[] },
    ];
    world.assert_equal(&tables).await;
    let unknown = Replicator::output(&config.to_toml(), &["resync", "--table", "public.nowhere"], &[]);
    assert_eq!(unknown.status.code(), Some(1));
    assert!(
        unknown.stderr.contains("public.nowhere") && unknown.stderr.contains("public.a"),
        "{}",
        unknown.stderr
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_added_later_is_copied_with_the_rows_it_had() {
    let world = World::start(PgVersion::V15);
    world.source.sql(
        "shop",
        "CREATE TABLE a (id int PRIMARY KEY, v text); INSERT INTO a VALUES (1, 'one');
         CREATE PUBLICATION replicator FOR TABLE a",
    );
    let config = world.config().set("source.catalog_interval_ms", 300);
    let mut replicator = Replicator::spawn(&config, &[]);
    replicator.wait_until_ready(SOON);
    world.source.sql(
        "shop",
        "CREATE TABLE late (id int PRIMARY KEY, v text); INSERT INTO late SELECT n, 'before' FROM generate_series(1, 500) n;
         CREATE TABLE quiet (id int PRIMARY KEY); INSERT INTO quiet SELECT generate_series(1, 5);
         ALTER PUBLICATION replicator ADD TABLE late, quiet;
         INSERT INTO late VALUES (1000, 'after'); UPDATE late SET v = 'changed' WHERE id < 10;",
    );
    eventually_blocking(SOON, "both tables caught up", || {
        let log = replicator.stderr();
        let caught_up =
            |table: &str| log.lines().any(|line| line.contains("caught up") && line.contains(table));
        if caught_up("public.late") && caught_up("public.quiet") { Ok(()) } else { Err("not yet") }
    });
    world.source.sql("shop", "DELETE FROM late WHERE id = 20");
    replicator.sigterm();
    assert!(replicator.wait(SOON).success(), "{}", replicator.stderr());
    drain(&config);
    world
        .assert_equal(&[
            Table { name: "a", key: &["id"] },
            Table { name: "late", key: &["id"] },
            Table { name: "quiet", key: &["id"] },
        ])
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_in_error_does_not_hold_up_the_others() {
    for version in [PgVersion::V15, PgVersion::V18] {
        let world = World::start(version);
        world.source.sql(
            "shop",
            "CREATE ROLE reader LOGIN REPLICATION PASSWORD 'x'; GRANT CREATE ON DATABASE shop TO reader;
         CREATE TABLE a (id int PRIMARY KEY); INSERT INTO a SELECT generate_series(1, 100);
         CREATE TABLE forbidden (id int PRIMARY KEY); INSERT INTO forbidden SELECT generate_series(1, 100);
         GRANT SELECT ON a TO reader;
         CREATE PUBLICATION replicator FOR TABLE a, forbidden",
        );
        let config =
            world.config().set("source.url", world.source.url_as("reader:x", "shop", "sslmode=disable"));
        let mut replicator = Replicator::spawn(&config, &[]);
        replicator.wait_for_line("can't be copied", SOON);
        let log = replicator.stderr();
        let line = log.lines().find(|line| line.contains("can't be copied")).unwrap_or_default().to_owned();
        assert!(line.contains("public.forbidden") && line.contains("permission"), "{line}");
        world.source.sql("shop", "INSERT INTO a VALUES (101); INSERT INTO forbidden VALUES (101)");
        eventually_blocking(SOON, "the other table to go on", || {
            let count = world.target.sql("copy", "SELECT count(*) FROM a");
            if count == "101" { Ok(()) } else { Err(count) }
        });
        // Nothing of the other is lost: once it may be read, the next run copies it.
        replicator.kill9();
        world.source.sql("shop", "GRANT SELECT ON forbidden TO reader");
        drain(&config);
        world
            .assert_equal(&[Table { name: "a", key: &["id"] }, Table { name: "forbidden", key: &["id"] }])
            .await;
    }
}

/// Each makes a part in ClickHouse, which it then has to merge.
#[tokio::test(flavor = "multi_thread")]
async fn many_small_batches_of_copied_rows_go_to_clickhouse_in_few_writes() {
    let world = World::start(PgVersion::V17);
    world.source.sql(
        "shop",
        "CREATE TABLE a (id int PRIMARY KEY, v text); INSERT INTO a SELECT n, n FROM generate_series(1, 20000) n",
    );
    let config = replicator_harness::Config::new(&world.source.url("shop"))
        .set("source.tables", vec!["public.*"])
        .set("copy.workers", 1)
        .set("copy.batch_rows_max", 500)
        .clickhouse("analytics", &world.clickhouse);
    let mut replicator = Replicator::spawn(&config, &[]);
    replicator.wait_until_ready(SOON);
    wait_for_copy(&replicator);
    let metrics = replicator.metrics();
    let count = |name: &str| metrics.get(&format!("replicator_{name}_count"), &[("sink", "analytics")]);
    let (batches, writes) = (count("batch_size"), count("sink_latency_seconds"));
    assert!(batches >= 40.0 && writes <= batches / 4.0, "{batches} batches, {writes} writes");
    drop(replicator);
    drain(&world.config());
    world.assert_equal(&[Table { name: "a", key: &["id"] }]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_snapshot_or_never_the_snapshot() {
    let world = World::start(PgVersion::V18);
    world
        .source
        .sql("shop", "CREATE TABLE a (id int PRIMARY KEY); INSERT INTO a SELECT generate_series(1, 100)");
    let only = Replicator::run_to_end(&world.config().set("source.snapshot", "only"), &[]);
    assert!(only.status.success(), "{}", only.stderr);
    assert_eq!(world.target.sql("copy", "SELECT count(*) FROM a"), "100");
    world.source.sql("shop", "INSERT INTO a VALUES (101); CREATE TABLE b (id int PRIMARY KEY)");
    drain(&world.config());
    world.assert_equal(&[Table { name: "a", key: &["id"] }]).await;

    let world = World::start(PgVersion::V15);
    world
        .source
        .sql("shop", "CREATE TABLE a (id int PRIMARY KEY); INSERT INTO a SELECT generate_series(1, 100)");
    let never = world.config().set("source.snapshot", "never");
    drain(&never);
    world.source.sql("shop", "INSERT INTO a VALUES (101)");
    drain(&never);
    assert_eq!(world.target.sql("copy", "SELECT count(*), min(id) FROM a"), "1|101");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sink_that_is_added_later_is_filled() {
    let world = World::start(PgVersion::V15);
    world.source.sql("shop", "CREATE TABLE a (id int PRIMARY KEY, v text); INSERT INTO a SELECT n, 'v' FROM generate_series(1, 100) n");
    let first = replicator_harness::Config::new(&world.source.url("shop"))
        .set("source.tables", vec!["public.*"])
        .clickhouse("analytics", &world.clickhouse);
    drain(&first);
    world.source.sql("shop", "UPDATE a SET v = 'w' WHERE id > 50; DELETE FROM a WHERE id = 1");
    drain(&world.config());
    world.assert_equal(&[Table { name: "a", key: &["id"] }]).await;
}

/// Begins a transaction that adds a row and changes one, and gives its session.
async fn begin(world: &World, id: u32) -> (tokio_postgres::Client, i32) {
    let client = world.source.client("shop").await;
    let row = client.query_one("SELECT pg_backend_pid()", &[]).await.expect("a pid");
    let changes =
        format!("BEGIN; INSERT INTO a VALUES ({id}, 'in flight'); UPDATE a SET v = 'new' WHERE id = -{id}");
    client.batch_execute(&changes).await.expect("changes");
    (client, row.get(0))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_in_flight_while_the_snapshot_is_taken_is_not_lost() {
    for version in [PgVersion::V15, PgVersion::V18] {
        let world = World::start(version);
        let table = "CREATE TABLE a (id int PRIMARY KEY, v text); INSERT INTO a SELECT -n, 'old' FROM generate_series(1, 9) n";
        world.source.sql("shop", table);
        let config = world.config();
        // A slot is made while no transaction is open, the copy's snapshot while some are.
        drain(&config.clone().set("source.snapshot", "never"));
        let wait_for = |pid: i32| {
            eventually_blocking(SOON, "that the slot's creation waits", || {
                let waiting = "SELECT count(*) FROM pg_locks w JOIN pg_locks h USING (transactionid) \
                    WHERE NOT w.granted AND h.granted AND h.pid = ";
                let waiting = world.source.sql("shop", &format!("{waiting}{pid}"));
                if waiting == "1" { Ok(()) } else { Err(waiting) }
            });
        };
        // It waits for the first, and then for the second, which was begun meanwhile. The third, begun while it does that, is in
        // flight at the snapshot, and has changed rows before it.
        let (first, pid) = begin(&world, 1).await;
        let mut replicator = Replicator::spawn(&config, &[]);
        replicator.wait_until_ready(SOON);
        replicator.wait_for_line("slot creation waits", SOON);
        wait_for(pid);
        let (second, pid) = begin(&world, 2).await;
        first.batch_execute("COMMIT").await.unwrap();
        wait_for(pid);
        let (third, _) = begin(&world, 3).await;
        let changed_at = world.source.sql("shop", "SELECT pg_current_wal_insert_lsn()");
        second.batch_execute("COMMIT").await.unwrap();
        let line = replicator.wait_for_line("copy begins", SOON);
        let line: serde_json::Value = serde_json::from_str(&line).unwrap();
        let snapshot = line["snapshot"].as_str().unwrap();
        let is_behind = format!("SELECT '{snapshot}'::pg_lsn >= '{changed_at}'::pg_lsn");
        assert_eq!(world.source.sql("shop", &is_behind), "t", "{snapshot} {changed_at}");
        replicator.wait_for_line("copy over", SOON);
        assert_eq!(world.target.sql("copy", "SELECT count(*), max(id) FROM a"), "11|2");
        third.batch_execute("COMMIT").await.unwrap();
        wait_until_caught_up(&replicator);
        replicator.sigterm();
        assert!(replicator.wait(SOON).success());
        drain(&config);
        world.assert_equal(&[Table { name: "a", key: &["id"] }]).await;
    }
}

#[test]
fn a_slot_that_was_lost_is_not_replaced_in_silence_whatever_the_sinks_are() {
    let world = World::start(PgVersion::V15);
    world.source.sql("shop", "CREATE TABLE a (id int PRIMARY KEY); INSERT INTO a VALUES (1)");
    let config = replicator_harness::Config::new(&world.source.url("shop"))
        .set("source.tables", vec!["public.*"])
        .clickhouse("analytics", &world.clickhouse);
    drain(&config);
    world.source.sql("shop", "SELECT pg_drop_replication_slot('replicator'); INSERT INTO a VALUES (2)");
    for _ in 0..2 {
        let refused = Replicator::run_to_end(&config, &["--endpos", "current"]);
        assert_eq!(refused.status.code(), Some(1), "{}", refused.stderr);
        let last = refused.stderr.lines().last().unwrap_or_default();
        assert!(last.contains("resync --all") && last.contains("earlier slot"), "{last}");
        assert!(!refused.stderr.contains("slot made"), "{}", refused.stderr);
        assert_eq!(world.source.sql("shop", "SELECT count(*) FROM pg_replication_slots"), "0");
    }
}
