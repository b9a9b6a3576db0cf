//! A sink that will never take a change of a table: that table is set aside, and the others go on.

use replicator_harness::{Config, PgVersion, Replicator, eventually_blocking};
use replicator_integration::{Sinks, World, resync, wait_for_copy};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(90);

/// One shard: what comes of other tables gets the lane's checkpoint past what is left out.
fn config(world: &World) -> Config {
    world.config().set_sink("copy", "shards", 1)
}

async fn others_arrive(world: &World) {
    world.assert_soon_equal("the other table", SOON, Sinks::All, |_, name| name == "other").await;
}

fn insert(world: &World, table: &str, from: u32) {
    world
        .source
        .sql("shop", &format!("INSERT INTO {table} SELECT n, n FROM generate_series({from}, {from} + 99) n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_table_in_error_does_not_stall_the_others_and_nothing_is_acknowledged_past_its_changes() {
    for version in [PgVersion::V15, PgVersion::V18] {
        let world = World::start(version);
        world.source.sql(
            "shop",
            "CREATE TABLE bad (id int PRIMARY KEY, v int); CREATE TABLE other (id int PRIMARY KEY, v int)",
        );
        let mut replicator = Replicator::spawn(&config(&world), &[]);
        replicator.wait_until_ready(SOON);
        wait_for_copy(&replicator);
        insert(&world, "bad", 1);
        insert(&world, "other", 1);
        world.assert_soon_equal("before", SOON, Sinks::All, |_, _| true).await;

        world.target.sql("copy", "ALTER TABLE bad ADD CONSTRAINT small CHECK (v < 1000)");
        world.source.sql(
            "shop",
            "BEGIN; INSERT INTO other VALUES (-1, 1); INSERT INTO bad VALUES (-1, 1), (5000, 5000);
             INSERT INTO other VALUES (-2, 2); COMMIT",
        );
        let line = replicator.wait_for_line("the table is set aside", SOON);
        assert!(line.contains("public.bad") && line.contains("small"), "{line}");
        others_arrive(&world).await;
        let stands_at = world.confirmed_flush();
        for round in 1..3 {
            insert(&world, "bad", round * 100 + 1);
            insert(&world, "other", round * 100 + 1);
            others_arrive(&world).await;
            assert_eq!(world.confirmed_flush(), stands_at, "acknowledged past changes that were left out");
            assert_eq!(world.target.sql("copy", "SELECT count(*), max(id) FROM bad"), "100|100");
            eventually_blocking(SOON, "the metric", || {
                let aside = replicator.metrics().sum("replicator_tables_set_aside", &[]);
                if aside == Some(1.0) { Ok(()) } else { Err(format!("{aside:?}")) }
            });
            replicator.kill9();
            replicator = Replicator::spawn(&config(&world), &[]);
            replicator.wait_until_ready(SOON);
        }

        world.target.sql("copy", "ALTER TABLE bad DROP CONSTRAINT small");
        resync(&config(&world), &["public.bad"]);
        world.assert_soon_equal("copied anew", SOON, Sinks::All, |_, _| true).await;
        insert(&world, "bad", 9001);
        insert(&world, "other", 9001);
        world.assert_soon_equal("afterwards", SOON, Sinks::All, |_, _| true).await;
        replicator.sigterm();
        assert!(replicator.wait(SOON).success(), "{}", replicator.stderr());
        assert_ne!(world.confirmed_flush(), stands_at);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_a_sink_refuses_while_its_table_is_copied_holds_up_only_that_table() {
    let world = World::start(PgVersion::V15);
    world.source.sql(
        "shop",
        "CREATE TABLE bad (id int PRIMARY KEY, v int); CREATE TABLE other (id int PRIMARY KEY, v int);
         INSERT INTO bad SELECT n, n FROM generate_series(1, 20000) n;
         INSERT INTO other SELECT n, n FROM generate_series(1, 20000) n;",
    );
    world.target.sql("copy", "CREATE TABLE bad (id int PRIMARY KEY, v int CHECK (v <> 15000))");
    let mut replicator = Replicator::spawn(&config(&world).set("copy.batch_rows_max", 500), &[]);
    let line = replicator.wait_for_line("a table can't be copied", SOON);
    assert!(line.contains("public.bad"), "{line}");
    insert(&world, "other", 30001);
    others_arrive(&world).await;
    assert!(replicator.is_running());
    world.target.sql("copy", "ALTER TABLE bad DROP CONSTRAINT bad_v_check");
    // It would be tried again by itself, in a minute.
    resync(&config(&world), &["public.bad"]);
    world.assert_soon_equal("put right", SOON, Sinks::All, |_, _| true).await;
    replicator.sigterm();
    assert!(replicator.wait(SOON).success(), "{}", replicator.stderr());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_without_a_key_whose_change_of_schema_a_sink_refuses_is_set_aside_until_it_is_copied_anew() {
    let world = World::start(PgVersion::V15);
    world.source.sql(
        "shop",
        "CREATE TABLE bad (id int, v int, w int); CREATE TABLE other (id int PRIMARY KEY, v int)",
    );
    let mut replicator = Replicator::spawn(&config(&world), &[]);
    replicator.wait_until_ready(SOON);
    wait_for_copy(&replicator);
    insert(&world, "bad (id, v)", 1);
    world.assert_soon_equal("before", SOON, Sinks::All, |_, _| true).await;
    world.target.sql("copy", "CREATE VIEW reads_it AS SELECT w FROM bad");
    world.source.sql("shop", "ALTER TABLE bad DROP COLUMN w; INSERT INTO bad VALUES (-1, 1)");
    let line = replicator.wait_for_line("the table is set aside", SOON);
    assert!(line.contains("public.bad") && line.contains("reads_it"), "{line}");
    insert(&world, "bad", 101);
    insert(&world, "other", 101);
    others_arrive(&world).await;
    world.target.sql("copy", "DROP VIEW reads_it");
    resync(&config(&world), &["public.bad"]);
    world.assert_soon_equal("copied anew", SOON, Sinks::All, |_, _| true).await;
    replicator.sigterm();
    assert!(replicator.wait(SOON).success(), "{}", replicator.stderr());
}
