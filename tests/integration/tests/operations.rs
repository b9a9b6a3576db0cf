//! Outages, shutdown, `--endpos`, probes: what an operator sees.

use replicator_harness::{Config, PgOptions, PgVersion, Postgres, Replicator, eventually_blocking};
use replicator_integration::{Table, World, wait_for_stream, wait_until_caught_up};
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(60);

const EVENTS: Table = Table { name: "events", key: &["id"] };

fn create_events(source: &Postgres) {
    source.sql(
        "shop",
        "CREATE TABLE events (id bigint PRIMARY KEY, payload text, at timestamptz DEFAULT now())",
    );
}

fn insert_events(source: &Postgres, from: u64, to: u64) {
    let sql =
        format!("INSERT INTO events SELECT n, repeat('x', 500) || n FROM generate_series({from}, {to}) n");
    source.sql("shop", &sql);
}

/// Until `/readyz` says that ClickHouse is away.
fn wait_until_outage_is_noticed(replicator: &Replicator) {
    eventually_blocking(SOON, "the outage noticed", || match replicator.try_http("/readyz") {
        Ok((503, body)) if body.contains("analytics") => Ok(()),
        other => Err(format!("{other:?}")),
    });
}

/// 20 seconds, or what OUTAGE_SECONDS says.
fn outage() -> Duration {
    let seconds = std::env::var("OUTAGE_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(20);
    Duration::from_secs(seconds)
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_sink_away_under_load_memory_stays_bounded_the_slot_stands_still_and_all_arrives_afterwards() {
    const BUFFER: u64 = 32 << 20;
    let world = World::start(PgVersion::V15);
    create_events(&world.source);
    let config = world.config().set("source.snapshot", "never").set("buffer.bytes_max", "32MiB");
    let mut replicator = Replicator::spawn(&config, &[]);
    replicator.wait_until_ready(SOON);
    insert_events(&world.source, 1, 1000);
    eventually_blocking(SOON, "the first rows in ClickHouse", || {
        let count = world
            .clickhouse
            .try_query(&format!("SELECT count() FROM {}.events", world.clickhouse.database()))?;
        if count.trim() == "1000" { Ok(()) } else { Err(count) }
    });
    let before_outage = replicator.peak_rss_bytes();

    world.clickhouse.stop();
    insert_events(&world.source, 1001, 1002);
    // Until the outage is noticed, what was under way may still be acknowledged.
    wait_until_outage_is_noticed(&replicator);
    assert_eq!(replicator.http("/healthz").0, 200, "a sink's outage is no reason to restart the process");
    let standing = world.confirmed_flush();
    let (start, mut next) = (Instant::now(), 1003);
    while start.elapsed() < outage() {
        insert_events(&world.source, next, next + 4999);
        next += 5000;
        assert_eq!(world.confirmed_flush(), standing, "acknowledged beyond what ClickHouse holds");
        // The same load however long the outage: it fills the buffer many times over.
        std::thread::sleep(outage() / 200);
    }
    let bytes = (next - 1000) * 550;
    assert!(bytes > 3 * BUFFER, "the load did not fill the buffer: {bytes}");
    let metrics = replicator.metrics();
    let held = metrics.get("replicator_buffer_bytes", &[]);
    // What is inside may grow on its way: one copy a sink of the last chunks.
    assert!(held <= BUFFER as f64 * 1.25, "{held} bytes held");
    assert_eq!(metrics.get("replicator_sink_up", &[("sink", "analytics")]), 0.0);
    let grown = replicator.peak_rss_bytes().saturating_sub(before_outage);
    assert!(grown < 4 * BUFFER, "memory grew by {grown}");
    assert!(replicator.is_running(), "{}", replicator.stderr());

    world.clickhouse.start_again();
    replicator.wait_until_ready(SOON);
    insert_events(&world.source, next, next);
    eventually_blocking(Duration::from_secs(120), "the rest in ClickHouse", || {
        let count = world
            .clickhouse
            .try_query(&format!("SELECT count() FROM {}.events FINAL", world.clickhouse.database()))?;
        if count.trim() == next.to_string() { Ok(()) } else { Err(count) }
    });
    eventually_blocking(SOON, "the acknowledgement", || {
        if world.confirmed_flush() == standing { Err(standing.clone()) } else { Ok(()) }
    });
    replicator.sigterm();
    assert!(replicator.wait(SOON).success(), "{}", replicator.stderr());
    world.assert_equal(&[EVENTS]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_makes_durable_what_was_read_acknowledges_it_and_ends_with_0() {
    let world = World::start(PgVersion::V17);
    create_events(&world.source);
    // Batches that would wait for minutes: only the shutdown cuts them.
    let mut config = world.config().set("source.snapshot", "never");
    for sink in ["analytics", "copy", "archive"] {
        config = config.set_sink(sink, "batch.interval_ms", 600_000);
    }
    let mut replicator = Replicator::spawn(&config, &[]);
    replicator.wait_until_ready(SOON);
    insert_events(&world.source, 1, 500);
    eventually_blocking(SOON, "the rows read", || {
        let read = replicator.metrics().sum("replicator_events_processed_total", &[]).unwrap_or(0.0);
        if read >= 500.0 { Ok(()) } else { Err(read.to_string()) }
    });
    let before = world.confirmed_flush();
    replicator.sigterm();
    let status = replicator.wait(SOON);
    assert_eq!(status.code(), Some(0), "{}", replicator.stderr());
    assert_ne!(world.confirmed_flush(), before);
    world.assert_equal(&[EVENTS]).await;
}

#[test]
fn a_second_sigterm_ends_at_once() {
    let world = World::start(PgVersion::V15);
    create_events(&world.source);
    let config = world.config().set("source.snapshot", "never").set("shutdown_grace_ms", 120_000);
    let mut replicator = Replicator::spawn(&config, &[]);
    replicator.wait_until_ready(SOON);
    world.clickhouse.stop();
    insert_events(&world.source, 1, 10);
    wait_until_outage_is_noticed(&replicator);
    replicator.sigterm();
    std::thread::sleep(Duration::from_millis(500));
    assert!(replicator.is_running(), "it gave up before its grace was over: {}", replicator.stderr());
    replicator.sigterm();
    let status = replicator.wait(Duration::from_secs(5));
    assert_eq!(status.code(), Some(1));
}

#[test]
fn a_shutdown_that_outlives_its_grace_ends_with_1_and_acknowledges_nothing_more() {
    let world = World::start(PgVersion::V15);
    create_events(&world.source);
    let config = world.config().set("source.snapshot", "never").set("shutdown_grace_ms", 500);
    let mut replicator = Replicator::spawn(&config, &[]);
    replicator.wait_until_ready(SOON);
    world.clickhouse.stop();
    insert_events(&world.source, 1, 10);
    wait_until_outage_is_noticed(&replicator);
    let before = world.confirmed_flush();
    replicator.sigterm();
    let status = replicator.wait(Duration::from_secs(20));
    assert_eq!(status.code(), Some(1), "{}", replicator.stderr());
    assert_eq!(world.confirmed_flush(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn endpos_drains_to_there_acknowledges_and_ends_with_0() {
    let world = World::start(PgVersion::V18);
    create_events(&world.source);
    let config = world.config().set("source.snapshot", "never");
    // The first run makes slot and publication.
    let first = Replicator::run_to_end(&config, &["--endpos", "current"]);
    assert!(first.status.success(), "{}", first.stderr);
    insert_events(&world.source, 1, 1000);
    let middle = world.source.sql("shop", "SELECT pg_current_wal_insert_lsn()");
    let done = Replicator::run_to_end(&config, &["--endpos", &middle]);
    assert!(done.status.success(), "{}", done.stderr);
    let behind = format!("SELECT confirmed_flush_lsn >= '{middle}'::pg_lsn FROM pg_replication_slots");
    assert_eq!(world.source.sql("shop", &behind), "t");
    world.assert_equal(&[EVENTS]).await;
}

#[test]
fn an_idle_published_table_in_a_busy_database_does_not_hold_back_the_slot() {
    let source = Postgres::start(PgVersion::V15, &PgOptions::default());
    source.createdb("shop");
    create_events(&source);
    source.sql("shop", "CREATE TABLE busy (id bigint)");
    let config =
        Config::new(&source.url("shop")).set("source.tables", vec!["public.events"]).blackhole("nothing");
    let mut replicator = Replicator::spawn(&config, &[]);
    replicator.wait_until_ready(SOON);
    source.sql("shop", "INSERT INTO busy SELECT generate_series(1, 100000)");
    let written = source.sql("shop", "SELECT pg_current_wal_lsn()");
    let sql = format!("SELECT confirmed_flush_lsn >= '{written}'::pg_lsn FROM pg_replication_slots");
    eventually_blocking(SOON, "the slot behind the busy table", || {
        let reached = source.sql("shop", &sql);
        if reached == "t" { Ok(()) } else { Err(reached) }
    });
}

#[test]
fn keepalives_are_answered_while_the_buffer_is_full() {
    // The server would end the connection after two seconds without an answer.
    let source = Postgres::start(PgVersion::V15, &PgOptions::default().setting("wal_sender_timeout", "2s"));
    source.createdb("shop");
    create_events(&source);
    let world = World::start(PgVersion::V15);
    let config = Config::new(&source.url("shop"))
        .set("source.tables", vec!["public.*"])
        // Changes of a table that is to be copied would wait outside the buffer.
        .set("source.snapshot", "never")
        .set("buffer.bytes_max", "8MiB")
        .clickhouse("analytics", &world.clickhouse);
    let mut replicator = Replicator::spawn(&config, &[]);
    replicator.wait_until_ready(SOON);
    world.clickhouse.stop();
    insert_events(&source, 1, 60_000);
    eventually_blocking(SOON, "a full buffer", || {
        let held = replicator.metrics().get("replicator_buffer_bytes", &[]);
        if held >= 8e6 { Ok(()) } else { Err(held.to_string()) }
    });
    std::thread::sleep(Duration::from_secs(6));
    assert_eq!(replicator.metrics().get("replicator_source_connected", &[]), 1.0);
    assert_eq!(replicator.metrics().get("replicator_source_reconnects_total", &[]), 0.0);
    assert!(!source.log().contains("replication timeout"), "{}", source.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_trigger_that_refuses_connections_for_a_while_ends_nothing() {
    let world = World::start(PgVersion::V17);
    create_events(&world.source);
    insert_events(&world.source, 1, 10);
    let config = world.config().set("source.catalog_interval_ms", 300);
    let mut replicator = Replicator::spawn(&config, &[]);
    replicator.wait_until_ready(SOON);
    wait_until_caught_up(&replicator);
    let client = world.source.client("shop").await;
    client
        .batch_execute(
            "CREATE TABLE late (id int PRIMARY KEY, v text); INSERT INTO late VALUES (1, 'there before');
             CREATE FUNCTION note_login() RETURNS event_trigger LANGUAGE plpgsql AS
               $$ BEGIN INSERT INTO logins VALUES (now()); END $$;
             CREATE EVENT TRIGGER note_login ON login EXECUTE FUNCTION note_login();
             ALTER EVENT TRIGGER note_login ENABLE ALWAYS",
        )
        .await
        .unwrap();
    // The copy needs connections of its own.
    eventually_blocking(SOON, "a refused connection", || {
        let log = replicator.stderr();
        if log.contains("login event trigger") { Ok(()) } else { Err(log) }
    });
    client.batch_execute("DROP EVENT TRIGGER note_login; INSERT INTO late VALUES (2, 'new')").await.unwrap();
    insert_events(&world.source, 11, 20);
    let late = Table { name: "late", key: &["id"] };
    eventually_blocking(SOON, "the table's copy", || {
        let log = replicator.stderr();
        if log.lines().any(|line| line.contains("caught up") && line.contains("late")) {
            Ok(())
        } else {
            Err(log)
        }
    });
    wait_for_stream(&world, &replicator);
    replicator.sigterm();
    assert!(replicator.wait(SOON).success(), "{}", replicator.stderr());
    world.assert_equal(&[EVENTS, late]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_goes_away_and_comes_back_is_followed_on_within_the_run() {
    let world = World::start(PgVersion::V17);
    create_events(&world.source);
    let mut replicator = Replicator::spawn(&world.config().set("source.snapshot", "never"), &[]);
    replicator.wait_until_ready(SOON);
    for round in 0..3_u64 {
        insert_events(&world.source, round * 1000 + 1, round * 1000 + 1000);
        if round == 1 {
            world.source.kill9();
        } else {
            world.source.stop_immediate();
        }
        world.source.start_again();
    }
    insert_events(&world.source, 3001, 3001);
    eventually_blocking(SOON, "all rows in ClickHouse", || {
        let count = world
            .clickhouse
            .try_query(&format!("SELECT count() FROM {}.events FINAL", world.clickhouse.database()))?;
        if count.trim() == "3001" { Ok(()) } else { Err(count) }
    });
    assert!(replicator.metrics().get("replicator_source_reconnects_total", &[]) >= 1.0);
    replicator.sigterm();
    assert!(replicator.wait(SOON).success(), "{}", replicator.stderr());
    world.assert_equal(&[EVENTS]).await;
}
