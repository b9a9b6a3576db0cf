//! A history in ClickHouse: it waits for a table whose copy or change of schema is under way, alone, and has every change of
//! it in the end, once and whole.

use replicator_harness::{Config, PgVersion, Replicator, eventually_blocking};
use replicator_integration::{
    Sinks, World, history_database, history_is_as_archive, stop, wait_until_caught_up, with_history,
};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(90);

fn config(world: &World) -> Config {
    with_history(world.config().set("source.catalog_interval_ms", 300), world)
}

fn start(world: &World) -> Replicator {
    let mut replicator = Replicator::spawn(&config(world), &[]);
    replicator.wait_until_ready(SOON);
    replicator
}

fn history_arrives(world: &World, table: &str) {
    eventually_blocking(SOON, "the history", || history_is_as_archive(world, table));
}

/// What the history has in a column for a row, and the word for "nothing".
fn value_in_history(world: &World, table: &str, column: &str, condition: &str) -> String {
    let database = history_database(world);
    let found = world.clickhouse.query(&format!(
        "SELECT ifNull(toString({column}), 'nothing') FROM {database}.{table} WHERE {condition} FORMAT TSVRaw"
    ));
    found.trim_end().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_schema_that_takes_a_history_long_holds_up_only_its_table_through_kills() {
    for version in [PgVersion::V15, PgVersion::V18] {
        let world = World::start(version);
        world.source.sql(
            "shop",
            "CREATE TABLE altered (id int PRIMARY KEY, n numeric(5,2), v text);
             CREATE TABLE rewritten (id int PRIMARY KEY, n int);
             CREATE TABLE other (id int PRIMARY KEY, v int);
             INSERT INTO altered SELECT n, n, 'v' FROM generate_series(1, 100) n;
             INSERT INTO rewritten SELECT n, n FROM generate_series(1, 100) n;
             INSERT INTO other SELECT n, n FROM generate_series(1, 100) n",
        );
        let mut replicator = start(&world);
        wait_until_caught_up(&replicator);
        world.source.sql(
            "shop",
            "UPDATE altered SET v = 'w' WHERE id < 10; UPDATE rewritten SET n = 0 WHERE id < 10",
        );
        history_arrives(&world, "altered");
        history_arrives(&world, "rewritten");
        let merges = |verb: &str, table: &str| {
            world.clickhouse.query(&format!("SYSTEM {verb} MERGES {}.{table}", history_database(&world)));
        };
        // Whatever makes ClickHouse write parts anew comes to no end.
        merges("STOP", "altered");
        merges("STOP", "rewritten");
        let change = |from: u32| {
            world.source.sql(
                "shop",
                &format!(
                    "INSERT INTO altered SELECT n, 1234567.25, 'v' || n FROM generate_series({from}, {from} + 9) n;
                     UPDATE altered SET v = v || '!' WHERE id < 10; DELETE FROM altered WHERE id = {from} + 1;
                     INSERT INTO rewritten SELECT n, 5000000000 FROM generate_series({from}, {from} + 9) n;
                     INSERT INTO other SELECT n, n FROM generate_series({from}, {from} + 99) n;
                     UPDATE other SET v = v + 1 WHERE id < {from}"
                ),
            );
        };
        world.source.sql(
            "shop",
            "ALTER TABLE altered ALTER n TYPE numeric(20,2); ALTER TABLE rewritten ALTER n TYPE bigint",
        );
        for round in 1..4 {
            change(round * 1000 + 1);
            world.assert_soon_equal("the other table", SOON, Sinks::All, |_, name| name == "other").await;
            history_arrives(&world, "other");
            // Another process finds that ClickHouse has it all the same, and needs no more than to write parts anew.
            let waits = history_is_as_archive(&world, "altered");
            assert!(round > 1 || waits.is_err(), "the history has followed: {}", replicator.stderr());
            replicator.kill9();
            replicator = start(&world);
        }
        let stands_at = world.confirmed_flush();
        merges("START", "altered");
        merges("START", "rewritten");
        world.assert_soon_equal("followed", SOON, Sinks::All, |_, _| true).await;
        for table in ["altered", "rewritten", "other"] {
            history_arrives(&world, table);
        }
        change(9001);
        world.assert_soon_equal("afterwards", SOON, Sinks::All, |_, _| true).await;
        history_arrives(&world, "altered");
        let large = value_in_history(&world, "rewritten", "n", "id = 9001");
        assert_eq!(large, "5000000000");
        stop(&mut replicator, SOON);
        assert_ne!(world.confirmed_flush(), stands_at, "acknowledged when everything is there");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_from_before_a_copy_keep_in_a_history_what_the_table_has_no_room_for_any_more() {
    for version in [PgVersion::V15, PgVersion::V18] {
        let world = World::start(version);
        world.source.sql(
            "shop",
            "CREATE TABLE t (id int PRIMARY KEY, v text); CREATE TABLE other (id int PRIMARY KEY);
             INSERT INTO t SELECT n, 'v' || n FROM generate_series(1, 20) n;
             CREATE PUBLICATION replicator FOR TABLE t, other",
        );
        let mut replicator = start(&world);
        wait_until_caught_up(&replicator);
        world.source.sql("shop", "ALTER PUBLICATION replicator DROP TABLE t");
        replicator.wait_for_line("not published any more", SOON);
        stop(&mut replicator, SOON);
        // When the next run begins, the table waits for its copy, which has all of this.
        world.source.sql(
            "shop",
            "ALTER PUBLICATION replicator ADD TABLE t; INSERT INTO t VALUES (101, 'a text');
             ALTER TABLE t ADD COLUMN gone date; INSERT INTO t VALUES (102, 'v102', '2020-02-29');
             ALTER TABLE t DROP COLUMN gone; ALTER TABLE t ALTER v TYPE int USING length(v); INSERT INTO t VALUES (103, 7)",
        );
        let mut replicator = start(&world);
        world.assert_soon_equal("copied", SOON, Sinks::All, |_, _| true).await;
        history_arrives(&world, "t");
        let was = "_op = 'insert' AND id =";
        let text = value_in_history(&world, "t", "v", &format!("{was} 101"));
        assert_eq!(text, "a text", "the text that it was: {}", replicator.stderr());
        assert_eq!(value_in_history(&world, "t", "gone", &format!("{was} 102")), "2020-02-29");
        assert_eq!(value_in_history(&world, "t", "v", &format!("{was} 103")), "7");
        assert_eq!(value_in_history(&world, "t", "v", "_op = 'read' AND id = 101"), "6");
        world.source.sql("shop", "INSERT INTO t VALUES (104, 8)");
        world.assert_soon_equal("afterwards", SOON, Sinks::All, |_, _| true).await;
        history_arrives(&world, "t");
        stop(&mut replicator, SOON);
    }
}

/// The copied row is the only one that has the value.
#[tokio::test(flavor = "multi_thread")]
async fn an_update_that_leaves_a_large_value_alone_while_its_table_is_copied_has_it_in_a_history() {
    for version in [PgVersion::V15, PgVersion::V18] {
        let world = World::start(version);
        world.source.sql(
            "shop",
            "CREATE TABLE t (id int PRIMARY KEY, n int, big text); ALTER TABLE t ALTER big SET STORAGE EXTERNAL;
             INSERT INTO t SELECT n, 0, repeat('x', 5000) || n FROM generate_series(1, 20) n;
             CREATE TABLE other (id int PRIMARY KEY); CREATE PUBLICATION replicator FOR TABLE other",
        );
        let mut replicator = start(&world);
        wait_until_caught_up(&replicator);
        // The copy waits for a lock in another sink.
        world.target.sql("copy", "CREATE TABLE t (id int PRIMARY KEY, n int, big text)");
        let mut reader = world.target.client("copy").await;
        let lock = reader.transaction().await.expect("begin");
        lock.batch_execute("LOCK TABLE t IN ACCESS EXCLUSIVE MODE").await.expect("lock");
        // A change that the copy has, and some that it has not.
        world.source.sql(
            "shop",
            "BEGIN; ALTER PUBLICATION replicator ADD TABLE t; INSERT INTO t VALUES (1000, 0, 'new'); COMMIT",
        );
        eventually_blocking(SOON, "the copy's snapshot", || {
            let said = replicator.stderr();
            if said.matches("snapshot taken").count() > 1 { Ok(()) } else { Err(said) }
        });
        world.source.sql("shop", "UPDATE t SET n = 1 WHERE id <= 10; INSERT INTO other VALUES (1)");
        world.assert_soon_equal("the other table", SOON, Sinks::All, |_, name| name == "other").await;
        lock.rollback().await.expect("roll back");
        world.assert_soon_equal("copied", SOON, Sinks::All, |_, _| true).await;
        history_arrives(&world, "t");
        let lengths = value_in_history(&world, "t", "sum(length(big))", "_op = 'update'");
        assert_eq!(lengths, (9 * 5001 + 5002).to_string(), "{}", replicator.stderr());
        stop(&mut replicator, SOON);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_changed_while_the_replicator_was_away_is_followed_in_a_history_by_no_column_too_many() {
    for version in [PgVersion::V15, PgVersion::V18] {
        let world = World::start(version);
        world.source.sql(
            "shop",
            "CREATE TABLE t (id int PRIMARY KEY, n numeric(5,2), v text); INSERT INTO t SELECT n, n, 'v' FROM generate_series(1, 20) n",
        );
        let mut replicator = start(&world);
        wait_until_caught_up(&replicator);
        stop(&mut replicator, SOON);
        world.source.sql(
            "shop",
            "UPDATE t SET v = 'w' WHERE id = 1; ALTER TABLE t ADD COLUMN d int DEFAULT 7, ALTER n TYPE numeric(20,2); ALTER TABLE t RENAME v TO w;
             INSERT INTO t VALUES (101, 5000000000.25, 'w', 8); ALTER TABLE t DROP COLUMN w; INSERT INTO t VALUES (102, 6000000000, 9)",
        );
        for _ in 0..2 {
            let mut replicator = start(&world);
            world.assert_soon_equal("back", SOON, Sinks::All, |_, _| true).await;
            history_arrives(&world, "t");
            stop(&mut replicator, SOON);
        }
        let columns = world.clickhouse.query(&format!(
            "SELECT groupArray(name) FROM (SELECT name FROM system.columns WHERE database = '{}' AND table = 't' \
             AND NOT startsWith(name, '_') ORDER BY name)",
            history_database(&world)
        ));
        assert_eq!(columns.trim(), "['d','id','n','w']");
        let inserted = value_in_history(&world, "t", "(n, w, d)", "_op = 'insert' AND id = 101");
        assert_eq!(inserted, "(5000000000.25,'w',8)");
        assert_eq!(value_in_history(&world, "t", "(n, w, d)", "_op = 'update' AND id = 1"), "(1,'w',7)");
    }
}
