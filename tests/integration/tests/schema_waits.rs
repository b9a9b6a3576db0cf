//! A sink that can't follow a change of a table's schema, for now or until somebody has put it right: only that table
//! waits, also across `kill -9`, and nothing of it is lost.

use replicator_harness::{Config, PgVersion, Replicator, eventually_blocking};
use replicator_integration::{Sinks, World, resync, stop, wait_for_copy, wait_until_caught_up};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(90);

const TABLES: &str = "
    CREATE TABLE altered (id int PRIMARY KEY, a varchar(50), big text);
    ALTER TABLE altered ALTER big SET STORAGE EXTERNAL;
    INSERT INTO altered SELECT n, 'row ' || n, repeat('x', 5000) || n FROM generate_series(1, 100) n;
    CREATE TABLE other (id int PRIMARY KEY, v text);
    INSERT INTO other SELECT n, 'v' || n FROM generate_series(1, 100) n;";

/// One shard: what comes of other tables gets the lane's checkpoint past what waits.
fn config(world: &World) -> Config {
    world.config().set_sink("copy", "shards", 1).set("source.catalog_interval_ms", 500)
}

fn start(world: &World) -> Replicator {
    let mut replicator = Replicator::spawn(&config(world), &[]);
    replicator.wait_until_ready(SOON);
    wait_for_copy(&replicator);
    replicator
}

/// Until the metric says that a table waits.
fn wait_for_altering(replicator: &Replicator) {
    eventually_blocking(SOON, "a table that waits", || {
        let waiting = replicator.metrics().sum("replicator_tables_altering", &[]);
        if waiting == Some(1.0) { Ok(()) } else { Err(format!("{waiting:?} tables wait")) }
    });
}

/// Changes of both tables; of `altered` every kind, an update that leaves the large value alone among them.
fn change(world: &World, from: u32) {
    world.source.sql(
        "shop",
        &format!(
            "INSERT INTO altered (id, a) SELECT n, 'new ' || n FROM generate_series({from}, {from} + 9) n;
             UPDATE altered SET a = a || '!' WHERE id < 10;
             UPDATE altered SET id = id + 100000 WHERE id = {from};
             DELETE FROM altered WHERE id = {from} + 1;
             INSERT INTO other SELECT n, 'v' || n FROM generate_series({from}, {from} + 99) n;
             UPDATE other SET v = v || '!' WHERE id < {from}"
        ),
    );
}

async fn others_arrive(world: &World) {
    world.assert_soon_equal("the other table", SOON, Sinks::All, |_, name| name == "other").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_schema_that_a_lock_holds_up_holds_up_only_its_table_through_kills() {
    for version in [PgVersion::V15, PgVersion::V18] {
        let world = World::start(version);
        world.source.sql("shop", TABLES);
        let mut replicator = start(&world);
        let mut reader = world.target.client("copy").await;
        let lock = reader.transaction().await.expect("begin");
        lock.batch_execute("SELECT FROM altered LIMIT 1").await.expect("read");

        world.source.sql("shop", "ALTER TABLE altered ADD COLUMN n int DEFAULT 7, ALTER a TYPE varchar(200)");
        world.source.sql("shop", "UPDATE altered SET n = id WHERE id % 3 = 0");
        change(&world, 1001);
        wait_for_altering(&replicator);
        others_arrive(&world).await;
        let stands_at = world.confirmed_flush();

        // While it waits: further changes of its schema with rows in between, and the process is killed.
        world.source.sql("shop", "ALTER TABLE altered RENAME a TO b; ALTER TABLE altered DROP COLUMN n");
        world.source.sql("shop", "ALTER TABLE altered RENAME b TO a; ALTER TABLE altered ADD COLUMN n text");
        change(&world, 2001);
        others_arrive(&world).await;
        for round in 3..5 {
            replicator.kill9();
            replicator = Replicator::spawn(&config(&world), &[]);
            replicator.wait_until_ready(SOON);
            change(&world, round * 1000 + 1);
            wait_for_altering(&replicator);
            others_arrive(&world).await;
            assert_eq!(world.confirmed_flush(), stands_at, "acknowledged past changes that wait");
        }
        let there = world.target.sql("copy", "SELECT count(*) FROM altered WHERE id > 1000");
        assert_eq!(there, "0", "nothing of it is there yet");

        lock.rollback().await.expect("roll back");
        world.assert_soon_equal("unlocked", SOON, Sinks::All, |_, _| true).await;
        change(&world, 9001);
        world.assert_soon_equal("afterwards", SOON, Sinks::All, |_, _| true).await;
        stop(&mut replicator, SOON);
        assert_ne!(world.confirmed_flush(), stands_at);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_schema_that_a_sink_refuses_waits_until_it_is_put_right_and_other_tables_go_on() {
    let world = World::start(PgVersion::V15);
    world.source.sql("shop", TABLES);
    let mut replicator = start(&world);
    world.target.sql("copy", "CREATE VIEW reads_it AS SELECT a FROM altered");
    world.source.sql("shop", "ALTER TABLE altered DROP COLUMN a, ADD COLUMN a int");
    world.source.sql("shop", "UPDATE altered SET a = id");
    let line = replicator.wait_for_line("can't follow a change of a table's schema", SOON);
    assert!(line.contains("public.altered") && line.contains("reads_it"), "{line}");
    world.source.sql("shop", "INSERT INTO other SELECT n, 'v' FROM generate_series(1001, 1100) n");
    others_arrive(&world).await;
    assert!(replicator.is_running());
    world.target.sql("copy", "DROP VIEW reads_it");
    world.assert_soon_equal("put right", SOON, Sinks::All, |_, _| true).await;
    stop(&mut replicator, SOON);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_whose_schema_a_sink_refuses_to_follow_can_be_copied_anew_instead() {
    let world = World::start(PgVersion::V18);
    world.source.sql("shop", TABLES);
    let mut replicator = start(&world);
    world.target.sql("copy", "CREATE VIEW reads_it AS SELECT a FROM altered");
    world.source.sql("shop", "ALTER TABLE altered DROP COLUMN a");
    world.source.sql("shop", "UPDATE altered SET big = 'small' WHERE id < 50");
    replicator.wait_for_line("can't follow a change of a table's schema", SOON);
    world.target.sql("copy", "DROP TABLE altered CASCADE");
    resync(&config(&world), &["public.altered"]);
    world.assert_soon_equal("copied anew", SOON, Sinks::All, |_, _| true).await;
    stop(&mut replicator, SOON);
}

/// Two Postgres targets and an archive, which is slow: what is acknowledged stays before everything.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_made_before_a_change_of_key_does_not_come_again_behind_it() {
    for version in [PgVersion::V15, PgVersion::V18] {
        let world = World::start(version);
        world.source.sql(
            "shop",
            "CREATE TABLE moved (id int PRIMARY KEY, a int NOT NULL, v text);
             INSERT INTO moved SELECT n, n + 1000, 'v' || n FROM generate_series(1, 50) n;
             CREATE TABLE other (id int PRIMARY KEY, v text)",
        );
        world.target.createdb("second");
        let config = config(&world).set_sink("archive", "batch.interval_ms", 300_000).postgres(
            "second",
            &world.target,
            "second",
        );
        let mut replicator = Replicator::spawn(&config, &[]);
        replicator.wait_until_ready(SOON);
        wait_for_copy(&replicator);
        world
            .source
            .sql("shop", "UPDATE moved SET v = v || '!' WHERE id < 20; DELETE FROM moved WHERE id = 30");
        let there = "SELECT count(*) FILTER (WHERE v LIKE '%!') || ' ' || count(*) FROM moved";
        let arrives = |database: &str, sql: &str, wanted: &str| {
            eventually_blocking(SOON, &format!("{database}: {sql}"), || {
                let found = world.target.try_sql(database, sql)?;
                if found == wanted { Ok(()) } else { Err(found) }
            });
        };
        arrives("copy", there, "19 49");
        arrives("second", there, "19 49");
        let mut reader = world.target.client("second").await;
        let lock = reader.transaction().await.expect("begin");
        lock.batch_execute("SELECT FROM moved LIMIT 1").await.expect("read");
        world.source.sql(
            "shop",
            "ALTER TABLE moved DROP CONSTRAINT moved_pkey, ADD PRIMARY KEY (a);
             UPDATE moved SET v = 'new' WHERE a = 1040; INSERT INTO other VALUES (1, 'x')",
        );
        let key =
            "SELECT attname FROM pg_index JOIN pg_attribute ON attrelid = indrelid AND attnum = ANY (indkey)
                   WHERE indrelid = 'moved'::regclass AND attname = 'a'";
        arrives("copy", key, "a");
        wait_for_altering(&replicator);
        replicator.kill9();
        replicator = Replicator::spawn(&config, &[]);
        replicator.wait_until_ready(SOON);
        wait_for_altering(&replicator);
        world.source.sql("shop", "INSERT INTO other VALUES (2, 'x')");
        arrives("copy", "SELECT count(*) FROM other", "2");
        assert!(!replicator.stderr().contains("set aside"), "{}", replicator.stderr());
        lock.rollback().await.expect("roll back");
        let all = "SELECT string_agg(id || v, ' ' ORDER BY id) FROM moved";
        let wanted = world.source.sql("shop", all);
        arrives("second", all, &wanted);
        arrives("copy", all, &wanted);
        stop(&mut replicator, SOON);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_wait_do_not_follow_a_copy_that_has_a_later_column_of_theirs() {
    let world = World::start(PgVersion::V15);
    world.source.sql("shop", TABLES);
    let mut replicator = start(&world);
    let mut reader = world.target.client("copy").await;
    let lock = reader.transaction().await.expect("begin");
    lock.batch_execute("SELECT FROM altered LIMIT 1").await.expect("read");
    world.source.sql("shop", "ALTER TABLE altered ADD COLUMN n int DEFAULT 7");
    world.source.sql(
        "shop",
        "DELETE FROM altered; INSERT INTO altered (id, a) SELECT n, 'again' FROM generate_series(1, 60) n",
    );
    wait_for_altering(&replicator);
    world.source.sql("shop", "ALTER TABLE altered ADD COLUMN u uuid DEFAULT gen_random_uuid()");
    world.source.sql(
        "shop",
        "INSERT INTO altered (id, a) VALUES (100, 'last'); INSERT INTO other VALUES (5000, 'x')",
    );
    others_arrive(&world).await;
    lock.rollback().await.expect("roll back");
    world.assert_soon_equal("unlocked", SOON, Sinks::All, |_, _| true).await;
    stop(&mut replicator, SOON);
}

/// The target's rows of a table without a key may come twice after a crash: then it is copied anew.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_without_a_key_waits_alone_too_and_is_copied_only_if_the_process_dies_meanwhile() {
    for version in [PgVersion::V15, PgVersion::V18] {
        let world = World::start(version);
        world.source.sql(
            "shop",
            "CREATE TABLE altered (id int, a varchar(50)); ALTER TABLE altered REPLICA IDENTITY FULL;
             CREATE TABLE other (id int PRIMARY KEY, v text);
             INSERT INTO altered SELECT n / 2, 'row ' || n / 2 FROM generate_series(1, 100) n",
        );
        let config = config(&world).set_sink("analytics", "tables", vec!["public.other"]);
        let begin = || {
            let mut replicator = Replicator::spawn(&config, &[]);
            replicator.wait_until_ready(SOON);
            replicator
        };
        let change = |from: u32| {
            world.source.sql(
                "shop",
                &format!(
                    "INSERT INTO altered (id, a) SELECT n / 3, 'new' FROM generate_series({from}, {from} + 9) n;
                     UPDATE altered SET a = a || '!' WHERE id % 7 = 3;
                     DELETE FROM altered WHERE ctid IN (SELECT ctid FROM altered WHERE id % 5 = 1 LIMIT 2);
                     INSERT INTO other SELECT n, 'v' FROM generate_series({from}, {from} + 99) n"
                ),
            );
        };
        let mut replicator = begin();
        wait_until_caught_up(&replicator);
        change(1);
        world.assert_soon_equal("before", SOON, Sinks::WithoutClickHouse, |_, _| true).await;
        let mut reader = world.target.client("copy").await;
        for (round, is_killed) in [(1, false), (2, true)] {
            let lock = reader.transaction().await.expect("begin");
            lock.batch_execute("SELECT FROM altered LIMIT 1").await.expect("read");
            change(round * 1000);
            world.source.sql(
                "shop",
                &format!("ALTER TABLE altered ADD COLUMN n{round} int DEFAULT {round}; UPDATE altered SET n{round} = 0 WHERE id < 9"),
            );
            change(round * 1000 + 500);
            wait_for_altering(&replicator);
            others_arrive(&world).await;
            if is_killed {
                replicator.kill9();
                replicator = begin();
                change(round * 1000 + 800);
                others_arrive(&world).await;
            }
            lock.rollback().await.expect("roll back");
            world.assert_soon_equal("unlocked", SOON, Sinks::WithoutClickHouse, |_, _| true).await;
            let copied = replicator.metrics().sum("replicator_copy_rows_total", &[]).unwrap_or_default();
            assert_eq!(copied > 100.0, is_killed, "{}", replicator.stderr());
        }
        change(9000);
        world.assert_soon_equal("afterwards", SOON, Sinks::WithoutClickHouse, |_, _| true).await;
        stop(&mut replicator, SOON);
    }
}
