//! A promoted standby, a slot that is gone or invalidated: going on with nothing lost, or one line with the remedy.

use replicator_harness::{
    Config, PgOptions, PgVersion, Postgres, Replicator, STANDBY_SLOT, eventually_blocking,
};
use replicator_integration::{Table, World, drain, wait_for_copy, wait_for_stream};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(90);
const ITEMS: Table = Table { name: "items", key: &["id"] };

/// A world whose source has a standby.
fn world(version: PgVersion) -> (World, Postgres) {
    let world = World::start(version);
    world.source.sql("shop", "CREATE TABLE items (id bigint PRIMARY KEY, v text)");
    let standby = Postgres::standby_of(&world.source, "shop");
    (world, standby)
}

fn insert(source: &Postgres, from: u64, to: u64) {
    source.sql("shop", &format!("INSERT INTO items SELECT n, 'v' || n FROM generate_series({from}, {to}) n"));
}

/// Of both servers, as one would write it down once for all failovers.
fn config_of_both(world: &World, standby: &Postgres) -> Config {
    let url = format!(
        "postgres://postgres@127.0.0.1:{},127.0.0.1:{}/shop?sslmode=disable",
        world.source.port(),
        standby.port()
    );
    world.config().set("source.url", url)
}

/// Until the standby has a copy of the slot that outlives its promotion.
fn wait_for_the_slots_copy(world: &World, standby: &Postgres) {
    let mut next = 1_000_000;
    eventually_blocking(SOON, "the slot on the standby", || {
        // The copy becomes a lasting one only as the primary's slot moves on.
        next += 1;
        insert(&world.source, next, next);
        world.source.sql("shop", "SELECT pg_log_standby_snapshot()");
        std::thread::sleep(Duration::from_millis(200));
        let sql = "SELECT count(*) FROM pg_replication_slots WHERE slot_name = 'replicator' AND synced AND NOT temporary";
        match standby.sql("shop", sql).as_str() {
            "1" => Ok(()),
            _ => Err(standby.sql("shop", "SELECT slot_name, temporary, synced FROM pg_replication_slots")),
        }
    });
}

/// Whether the run ended by itself, with a line that holds all of `expected`.
#[track_caller]
fn ended(mut replicator: Replicator, expected: &[&str]) {
    assert_eq!(replicator.wait(SOON).code(), Some(1), "{}", replicator.stderr());
    let said = replicator.stderr();
    let last = said.lines().last().unwrap_or_default();
    assert!(expected.iter().all(|part| last.contains(part)), "{expected:?} in {last}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_stream_goes_on_from_a_promoted_standby_that_has_the_slot_and_nothing_is_lost() {
    let (mut world, mut standby) = world(PgVersion::V17);
    world.source.sql("shop", &format!("ALTER SYSTEM SET synchronized_standby_slots = '{STANDBY_SLOT}'"));
    world.source.sql("shop", "SELECT pg_reload_conf()");
    let config = config_of_both(&world, &standby);
    let mut replicator = Replicator::spawn(&config, &[]);
    replicator.wait_until_ready(SOON);
    wait_for_copy(&replicator);
    wait_for_the_slots_copy(&world, &standby);
    // It dies in the middle of something.
    for batch in 0..20 {
        insert(&world.source, batch * 500 + 1, batch * 500 + 500);
    }
    world.source.kill9();
    std::thread::sleep(Duration::from_secs(1));
    assert!(replicator.is_running(), "it waits for a primary: {}", replicator.stderr());
    standby.promote();
    std::mem::swap(&mut world.source, &mut standby);
    insert(&world.source, 20_001, 21_000);
    replicator.wait_for_line("the source is a promoted standby, and has all", SOON);
    wait_for_stream(&world, &replicator);
    replicator.sigterm();
    assert!(replicator.wait(SOON).success(), "{}", replicator.stderr());
    // The sinks know that they have changes of the new timeline, which lie beyond the end of the old one.
    drain(&config);
    insert(&world.source, 21_001, 22_000);
    drain(&config);
    world.assert_equal(&[ITEMS]).await;

    // The old primary is started again, and somebody points the replicator at it.
    standby.start_again();
    let wrong = config.set("source.url", standby.url("shop"));
    ended(Replicator::spawn(&wrong, &[]), &["earlier primary", "promoted last"]);
}

#[test]
fn a_promoted_standby_that_lacks_what_sinks_have_is_refused_in_the_run_and_at_the_next_start() {
    let (mut world, mut standby) = world(PgVersion::V18);
    let config = config_of_both(&world, &standby);
    let mut replicator = Replicator::spawn(&config, &[]);
    replicator.wait_until_ready(SOON);
    wait_for_copy(&replicator);
    wait_for_the_slots_copy(&world, &standby);
    wait_for_stream(&world, &replicator);
    standby.stop_fast();
    insert(&world.source, 1, 1000);
    wait_for_stream(&world, &replicator);
    world.source.kill9();
    standby.start_again();
    standby.promote();
    std::mem::swap(&mut world.source, &mut standby);
    ended(replicator, &["promoted standby", "lost in the failover", "this run", "source.slot"]);
    // Each sink alone knows.
    insert(&world.source, 5000, 6000);
    let source = || Config::new(&world.source.url("shop")).set("source.tables", vec!["public.*"]);
    for (sink, config) in [
        ("analytics", source().clickhouse("analytics", &world.clickhouse)),
        ("copy", source().postgres("copy", &world.target, "copy")),
        ("archive", source().s3("archive", &world.s3, "bucket", "prefix")),
    ] {
        ended(Replicator::spawn(&config, &[]), &["lost in the failover", sink]);
    }
}

#[test]
fn on_a_promoted_standby_without_the_slot_the_gap_is_told_and_no_slot_is_made_in_silence() {
    let (mut world, mut standby) = world(PgVersion::V15);
    let config = config_of_both(&world, &standby);
    let mut replicator = Replicator::spawn(&config, &[]);
    replicator.wait_until_ready(SOON);
    wait_for_copy(&replicator);
    insert(&world.source, 1, 1000);
    wait_for_stream(&world, &replicator);
    eventually_blocking(SOON, "the rows on the standby", || {
        match standby.sql("shop", "SELECT count(*) FROM items").as_str() {
            "1000" => Ok(()),
            count => Err(count.to_owned()),
        }
    });
    world.source.kill9();
    standby.promote();
    std::mem::swap(&mut world.source, &mut standby);
    ended(replicator, &["slot replicator is gone", "lack the changes"]);
    ended(Replicator::spawn(&config, &[]), &["slot replicator was made anew", "source.slot"]);
    assert_eq!(
        world.source.sql("shop", "SELECT count(*) FROM pg_replication_slots WHERE slot_type = 'logical'"),
        "0"
    );
}

#[test]
fn a_slot_that_is_invalidated_in_mid_stream_ends_the_run_with_the_remedy() {
    let options =
        PgOptions::default().setting("max_slot_wal_keep_size", "32MB").setting("max_wal_size", "64MB");
    let source = Postgres::start(PgVersion::V15, &options);
    source.createdb("shop");
    source.sql("shop", "CREATE TABLE items (id bigint PRIMARY KEY, v text)");
    let world = World::with_source(source);
    let config = world.postgres_config().set("buffer.bytes_max", "8MiB").set("source.snapshot", "never");
    let mut replicator = Replicator::spawn(&config, &[]);
    replicator.wait_until_ready(SOON);
    world.target.stop_fast();
    for batch in 0..8 {
        let sql = format!(
            "INSERT INTO items SELECT n, repeat('x', 1000) FROM generate_series({}, {}) n; CHECKPOINT",
            batch * 20_000,
            batch * 20_000 + 19_999
        );
        world.source.sql("shop", &sql);
    }
    assert_eq!(world.source.sql("shop", "CHECKPOINT; SELECT wal_status FROM pg_replication_slots"), "lost");
    ended(
        replicator,
        &["slot replicator is invalidated", "pg_drop_replication_slot", "max_slot_wal_keep_size"],
    );
    // The same at the next start, whose sink is there again.
    world.target.start_again();
    ended(Replicator::spawn(&config, &[]), &["slot replicator is invalidated", "max_slot_wal_keep_size"]);
}
