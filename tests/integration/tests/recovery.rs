//! A promoted standby, a slot that is gone or invalidated: going on with nothing lost, or one line with the remedy.

use replicator_harness::{
    Config, PgOptions, PgVersion, Postgres, Replicator, STANDBY_SLOT, eventually_blocking,
};
use replicator_integration::{
    Sinks, Table, World, drain, stop, wait_for_copy, wait_for_stream, wait_until_caught_up,
};
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
    ended(Replicator::spawn(&config, &[]), &["slot replicator is not there", "resync --all"]);
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
    ended(Replicator::spawn(&config, &[]), &["slot replicator is invalidated", "resync --all"]);
    world.source.sql("shop", "SELECT pg_drop_replication_slot('replicator')");
    let asked = Replicator::output(&config.to_toml(), &["resync", "--all"], &[]);
    assert!(asked.status.success(), "{}", asked.stderr);
    drain(&config);
    let all = "SELECT count(*), sum(id), sum(length(v)) FROM items";
    assert_eq!(world.target.sql("copy", all), world.source.sql("shop", all));
}

/// Follows what the line of a refused start says, and begins.
async fn begun_anew(world: &World, config: &Config, what: &str) {
    let refused = Replicator::run_to_end(config, &["--endpos", "current"]);
    assert_eq!(refused.status.code(), Some(1), "{what}: {}", refused.stderr);
    let last = refused.stderr.lines().last().unwrap_or_default();
    assert!(last.contains("slot replicator") && last.contains("replicator resync --all"), "{what}: {last}");
    assert!(!refused.stderr.contains("slot made"), "{what}: {}", refused.stderr);
    if last.contains("pg_drop_replication_slot('replicator')") {
        let drop = "SELECT count(pg_drop_replication_slot(slot_name)) FROM pg_replication_slots";
        world.source.sql("shop", drop);
    }
    let asked = Replicator::output(&config.to_toml(), &["resync", "--all"], &[]);
    assert!(asked.status.success(), "{what}: {}", asked.stderr);
    assert_eq!(asked.stdout.lines().count(), 3, "a line for each sink: {}", asked.stdout);
    let mut replicator = Replicator::spawn(config, &[]);
    replicator.wait_until_ready(SOON);
    world.source.sql(
        "shop",
        "INSERT INTO items VALUES (-1, 'again') ON CONFLICT (id) DO UPDATE SET v = items.v || '.'",
    );
    world.assert_soon_equal(what, SOON, Sinks::All, |_, _| true).await;
    wait_until_caught_up(&replicator);
    stop(&mut replicator, SOON);
    // And only once.
    world.source.sql("shop", "UPDATE items SET v = 'later' WHERE id = 3");
    let mut replicator = Replicator::spawn(config, &[]);
    replicator.wait_until_ready(SOON);
    world.assert_soon_equal(what, SOON, Sinks::All, |_, _| true).await;
    assert!(!replicator.stderr().contains("copy begins"), "{what}: {}", replicator.stderr());
    stop(&mut replicator, SOON);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_is_lost_made_anew_or_moved_between_two_runs_is_told_and_the_remedy_in_the_line_fills_all_sinks()
 {
    const MAKE: &str = "SELECT pg_create_logical_replication_slot('replicator', 'pgoutput')";
    for version in [PgVersion::V15, PgVersion::V18] {
        let world = World::start(version);
        world.source.sql(
            "shop",
            "CREATE TABLE items (id bigint PRIMARY KEY, v text); CREATE TABLE loose (v text);
             INSERT INTO items SELECT n, 'v' FROM generate_series(1, 100) n; INSERT INTO loose VALUES ('one'), ('one')",
        );
        let config = world.config();
        let changes = "DELETE FROM items WHERE id IN (SELECT min(id) FROM items WHERE id > 10); UPDATE items SET v = v || '!' WHERE id % 2 = 0;
                       INSERT INTO loose VALUES ('one')";
        drain(&config);
        for (what, how) in [
            ("dropped", "SELECT pg_drop_replication_slot('replicator')"),
            ("made anew", "SELECT pg_drop_replication_slot('replicator')"),
            ("moved", "SELECT pg_replication_slot_advance('replicator', pg_current_wal_lsn())"),
        ] {
            world.source.sql("shop", changes);
            drain(&config);
            world.source.sql("shop", changes);
            world.source.sql("shop", how);
            if what == "made anew" {
                world.source.sql("shop", MAKE);
            }
            begun_anew(&world, &config, what).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sink_that_was_left_out_for_a_while_or_set_back_is_filled_again_and_the_others_are_left_alone() {
    for version in [PgVersion::V15, PgVersion::V18] {
        let world = World::start(version);
        world.source.sql(
            "shop",
            "CREATE TABLE items (id bigint PRIMARY KEY, v text); INSERT INTO items SELECT n, 'v' FROM generate_series(1, 100) n",
        );
        let config = world.config();
        let without_clickhouse = Config::new(&world.source.url("shop"))
            .set("source.tables", vec!["public.*"])
            .postgres("copy", &world.target, "copy")
            .s3("archive", &world.s3, "bucket", "prefix");
        let changes = "DELETE FROM items WHERE id IN (SELECT min(id) FROM items); UPDATE items SET v = v || '!' WHERE id % 2 = 0;
                       INSERT INTO items SELECT max(id) + 1, 'new' FROM items";
        let filled = async |sink: &str, sinks: Sinks| {
            let mut replicator = Replicator::spawn(&config, &[]);
            let line = replicator.wait_for_line("a sink lacks what the slot has passed", SOON);
            assert!(line.contains(&format!("\"sink\":\"{sink}\"")), "{line}");
            replicator.wait_until_ready(SOON);
            world.assert_soon_equal("filled again", SOON, sinks, |_, _| true).await;
            stop(&mut replicator, SOON);
        };
        drain(&config);

        // A row of the target's own goes when its table is emptied.
        world.target.sql("copy", "INSERT INTO items VALUES (-7, 'only here')");
        world.source.sql("shop", changes);
        drain(&without_clickhouse);
        world.source.sql("shop", changes);
        filled("analytics", Sinks::WithoutPostgres).await;
        assert_eq!(world.target.sql("copy", "DELETE FROM items WHERE id = -7 RETURNING v"), "only here");
        world.assert_soon_equal("the target", SOON, Sinks::All, |_, _| true).await;

        world.target.sql("postgres", "CREATE DATABASE earlier TEMPLATE copy");
        world.source.sql("shop", changes);
        drain(&config);
        world.target.sql("postgres", "DROP DATABASE copy WITH (FORCE)");
        world.target.sql("postgres", "ALTER DATABASE earlier RENAME TO copy");
        world.source.sql("shop", changes);
        filled("copy", Sinks::All).await;

        // Where nothing may be copied, that is for a person.
        drain(&without_clickhouse);
        world.source.sql("shop", changes);
        drain(&without_clickhouse);
        let never = config.clone().set("source.snapshot", "never");
        ended(Replicator::spawn(&never, &[]), &["sink analytics", "never", "resync --all"]);
    }
}

#[test]
fn tables_are_asked_for_in_the_stream_while_a_replicator_runs() {
    let world = World::start(PgVersion::V17);
    world
        .source
        .sql("shop", "CREATE TABLE items (id bigint PRIMARY KEY, v text); INSERT INTO items VALUES (1, 'v')");
    let config = world.postgres_config();
    let mut replicator = Replicator::spawn(&config, &[]);
    replicator.wait_until_ready(SOON);
    wait_for_copy(&replicator);
    world.target.sql("copy", "INSERT INTO items VALUES (99, 'not of the source')");
    let asked = Replicator::output(&config.to_toml(), &["resync", "--all"], &[]);
    assert!(
        asked.status.success() && asked.stdout.contains("public.items: asked for at"),
        "{}{}",
        asked.stdout,
        asked.stderr
    );
    eventually_blocking(SOON, "the table is copied anew", || {
        match world.target.try_sql("copy", "SELECT string_agg(id::text, ',') FROM items")?.as_str() {
            "1" => Ok(()),
            ids => Err(ids.to_owned()),
        }
    });
    stop(&mut replicator, SOON);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_crashed_sends_again_what_was_acknowledged_and_nothing_is_there_twice() {
    for version in [PgVersion::V15, PgVersion::V18] {
        let world = World::start(version);
        // Without a key whatever comes twice is there twice.
        world
            .source
            .sql("shop", "CREATE TABLE items (id bigint PRIMARY KEY, v text); CREATE TABLE loose (v text)");
        let config = world.config().set("source.status_interval_ms", 100);
        let mut replicator = Replicator::spawn(&config, &[]);
        replicator.wait_until_ready(SOON);
        wait_for_copy(&replicator);
        world.source.sql("shop", "CHECKPOINT");
        let confirmed =
            || world.source.sql("shop", "SELECT confirmed_flush_lsn - '0/0' FROM pg_replication_slots");
        for round in 0..3 {
            insert(&world.source, round * 100 + 1, round * 100 + 100);
            world.source.sql(
                "shop",
                "INSERT INTO loose SELECT 'row' FROM generate_series(1, 50); UPDATE items SET v = v || '!' WHERE id % 3 = 0",
            );
            wait_for_stream(&world, &replicator);
            let before: u64 = confirmed().parse().unwrap();
            // What it had written down of the slot is from before.
            world.source.stop_immediate();
            world.source.start_again();
            let after: u64 = confirmed().parse().unwrap();
            assert!(after < before, "the slot went back: {after} {before}");
        }
        world.assert_soon_equal("after crashes", SOON, Sinks::All, |_, _| true).await;
        stop(&mut replicator, SOON);
        assert!(world.archive().len() > 600, "each event once");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn from_a_standby_a_slot_waits_for_the_primary_with_a_line_that_says_what_to_run_there() {
    let (world, standby) = world(PgVersion::V18);
    insert(&world.source, 1, 100);
    world.source.sql("shop", "CREATE PUBLICATION replicator FOR TABLE items");
    eventually_blocking(SOON, "the publication on the standby", || {
        match standby.try_sql("shop", "SELECT count(*) FROM pg_publication")?.as_str() {
            "1" => Ok(()),
            count => Err(count.to_owned()),
        }
    });
    let config = world.config().set("source.url", standby.url("shop"));
    let mut replicator = Replicator::spawn(&config, &[]);
    let line = replicator.wait_for_line("slot creation waits", SOON);
    assert!(line.contains("pg_log_standby_snapshot"), "{line}");
    eventually_blocking(SOON, "the slot and the copy", || {
        world.source.sql("shop", "SELECT pg_log_standby_snapshot()");
        std::thread::sleep(Duration::from_millis(200));
        if replicator.stderr().contains("copy over") { Ok(()) } else { Err(replicator.stderr()) }
    });
    world.source.sql("shop", "UPDATE items SET v = 'later' WHERE id < 50; DELETE FROM items WHERE id = 60");
    world.assert_soon_equal("from the standby", SOON, Sinks::All, |_, _| true).await;
    stop(&mut replicator, SOON);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_a_sink_did_not_take_for_a_while_is_filled_again_there() {
    for version in [PgVersion::V15, PgVersion::V18] {
        let world = World::start(version);
        world.source.sql(
            "shop",
            "CREATE TABLE items (id bigint PRIMARY KEY, v text); INSERT INTO items SELECT n, 'v' FROM generate_series(1, 100) n;
             CREATE TABLE others (id bigint PRIMARY KEY)",
        );
        let config = world.config();
        drain(&config);
        world.target.sql("copy", "INSERT INTO items VALUES (-7, 'only here')");
        drain(&config.clone().set_sink("analytics", "tables", vec!["public.others"]));
        world.source.sql("shop", "DELETE FROM items WHERE id < 10; UPDATE items SET v = 'w' WHERE id < 20; INSERT INTO others VALUES (1)");
        drain(&config.clone().set_sink("analytics", "tables", vec!["public.others"]));
        let mut replicator = Replicator::spawn(&config, &[]);
        replicator.wait_until_ready(SOON);
        world.assert_soon_equal("filled again", SOON, Sinks::WithoutPostgres, |_, _| true).await;
        assert_eq!(world.target.sql("copy", "DELETE FROM items WHERE id = -7 RETURNING v"), "only here");
        world.assert_soon_equal("all", SOON, Sinks::All, |_, _| true).await;
        stop(&mut replicator, SOON);
    }
}

#[test]
fn a_sink_that_will_not_take_the_note_of_what_is_acknowledged_ends_the_run() {
    let world = World::start(PgVersion::V17);
    world.source.sql("shop", "CREATE TABLE items (id bigint PRIMARY KEY, v text)");
    let mut replicator = Replicator::spawn(&world.postgres_config(), &[]);
    replicator.wait_until_ready(SOON);
    wait_for_copy(&replicator);
    // Nothing else is to be written there.
    world.target.sql("copy", "DROP TABLE replicator.notes");
    world.source.createdb("neighbour");
    ended(replicator, &["sink copy", "replicator.notes"]);
}

#[test]
fn a_source_that_is_shut_down_is_not_kept_waiting_for_the_next_note() {
    let world = World::start(PgVersion::V17);
    world.source.sql("shop", "CREATE TABLE items (id bigint PRIMARY KEY, v text)");
    // Without hurry the archive would take an hour over it.
    let config = world.config().set("source.status_interval_ms", 3_600_000).set_sink(
        "archive",
        "batch.interval_ms",
        3_600_000,
    );
    let mut replicator = Replicator::spawn(&config, &[]);
    replicator.wait_until_ready(SOON);
    wait_for_copy(&replicator);
    wait_for_stream(&world, &replicator);
    world.source.sql("shop", "CREATE TABLE no_change_of_the_published (id int)");
    wait_for_stream(&world, &replicator);
    world.source.stop_fast();
    world.source.start_again();
    stop(&mut replicator, SOON);
}

/// What was deleted by the old key, and comes behind a copy with the new one, is not to stay anywhere.
#[tokio::test(flavor = "multi_thread")]
async fn a_sink_that_is_filled_again_leaves_no_row_in_the_others_that_went_before_their_key_changed() {
    for version in [PgVersion::V15, PgVersion::V18] {
        let world = World::start(version);
        world.source.sql(
            "shop",
            "CREATE TABLE items (id bigint PRIMARY KEY, region text NOT NULL, v text);
             INSERT INTO items SELECT n, 'r', 'v' FROM generate_series(1, 100) n",
        );
        let config = world.config();
        let without_postgres = Config::new(&world.source.url("shop"))
            .set("source.tables", vec!["public.*"])
            .clickhouse("analytics", &world.clickhouse)
            .s3("archive", &world.s3, "bucket", "prefix");
        drain(&config);
        world.source.sql("shop", "UPDATE items SET v = 'w' WHERE id < 10");
        drain(&without_postgres);
        world.source.sql(
            "shop",
            "DELETE FROM items WHERE id BETWEEN 5 AND 20; UPDATE items SET id = id + 1000 WHERE id > 90",
        );
        world
            .source
            .sql("shop", "ALTER TABLE items DROP CONSTRAINT items_pkey, ADD PRIMARY KEY (id, region)");
        world
            .source
            .sql("shop", "UPDATE items SET region = 'other' WHERE id < 3; DELETE FROM items WHERE id = 30");
        let mut replicator = Replicator::spawn(&config, &[]);
        replicator.wait_for_line("a sink lacks what the slot has passed", SOON);
        replicator.wait_until_ready(SOON);
        world.assert_soon_equal("filled again", SOON, Sinks::All, |_, _| true).await;
        stop(&mut replicator, SOON);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_whose_new_name_a_sink_takes_comes_there_with_its_rows_each_time() {
    for version in [PgVersion::V15, PgVersion::V18] {
        let world = World::start(version);
        world.source.sql(
            "shop",
            "CREATE TABLE draft (id bigint PRIMARY KEY, v text); INSERT INTO draft SELECT n, 'v' FROM generate_series(1, 100) n;
             CREATE TABLE others (id bigint PRIMARY KEY)",
        );
        let config = world.config().set("source.catalog_interval_ms", 300).set_sink(
            "analytics",
            "tables",
            vec!["public.items", "public.others"],
        );
        let mut replicator = Replicator::spawn(&config, &[]);
        replicator.wait_until_ready(SOON);
        for round in 0..3 {
            world.source.sql("shop", &format!("UPDATE draft SET v = 'round {round}' WHERE id % 5 = {round}; DELETE FROM draft WHERE id = {round} + 50"));
            world.assert_soon_equal("as draft", SOON, Sinks::WithoutClickHouse, |_, _| true).await;
            world.source.sql(
                "shop",
                "ALTER TABLE draft RENAME TO items; INSERT INTO items SELECT max(id) + 1, 'new' FROM items",
            );
            world.assert_soon_equal("as items", SOON, Sinks::All, |_, _| true).await;
            if round == 1 {
                // What was noted when it went is not forgotten with the process.
                stop(&mut replicator, SOON);
                replicator = Replicator::spawn(&config, &[]);
                replicator.wait_until_ready(SOON);
            }
            world.source.sql(
                "shop",
                "ALTER TABLE items RENAME TO draft; INSERT INTO others SELECT count(*) FROM others",
            );
            if round == 1 {
                world.assert_soon_equal("away", SOON, Sinks::WithoutClickHouse, |_, _| true).await;
                stop(&mut replicator, SOON);
                replicator = Replicator::spawn(&config, &[]);
                replicator.wait_until_ready(SOON);
            }
        }
        stop(&mut replicator, SOON);
    }
}
