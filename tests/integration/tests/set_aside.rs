//! A sink that will never take a change of a table: the table is set aside there. Other tables go on, and so does that one in
//! the other sinks.

use replicator_harness::{Config, PgVersion, Replicator, eventually_blocking};
use replicator_integration::{
    Sinks, World, changes_in_history, history_database, history_is_as_archive, resync, stop, wait_for_copy,
    with_history,
};
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

const KEYED: &str = "CREATE TABLE bad (id int PRIMARY KEY, v int)";

/// Tables `bad` and `other`, each with rows in every sink.
async fn begun(version: PgVersion) -> (World, Replicator) {
    begun_with(version, KEYED).await
}

/// The same, with a table `bad` that is made so, and has columns `id` and `v`.
async fn begun_with(version: PgVersion, bad: &str) -> (World, Replicator) {
    let world = World::start(version);
    make_tables(&world, bad);
    let mut replicator = Replicator::spawn(&config(&world), &[]);
    replicator.wait_until_ready(SOON);
    wait_for_copy(&replicator);
    rows_arrive(&world).await;
    (world, replicator)
}

fn make_tables(world: &World, bad: &str) {
    world.source.sql("shop", &format!("{bad}; CREATE TABLE other (id int PRIMARY KEY, v int)"));
}

async fn rows_arrive(world: &World) {
    insert(world, "bad (id, v)", 1);
    insert(world, "other", 1);
    world.assert_soon_equal("before", SOON, Sinks::All, |_, _| true).await;
}

/// Other tables get further everywhere, and all of them in these sinks.
async fn all_else_goes_on(world: &World, sinks: Sinks, from: u32) {
    insert(world, "other", from);
    others_arrive(world).await;
    world.assert_soon_equal("in the other sinks", SOON, sinks, |_, _| true).await;
}

/// The table that was set aside is asked for, and all goes on with both.
async fn is_copied_anew(world: &World, mut replicator: Replicator) {
    resync(&config(world), &["public.bad"]);
    world.assert_soon_equal("copied anew", SOON, Sinks::All, |_, _| true).await;
    insert(world, "bad (id, v)", 9001);
    insert(world, "other", 9001);
    world.assert_soon_equal("afterwards", SOON, Sinks::All, |_, _| true).await;
    stop(&mut replicator, SOON);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_table_in_error_does_not_stall_the_others_and_nothing_is_acknowledged_past_its_changes() {
    for version in [PgVersion::V15, PgVersion::V18] {
        let (world, mut replicator) = begun(version).await;

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
            insert(&world, "bad (id, v)", round * 100 + 1);
            all_else_goes_on(&world, Sinks::WithoutPostgres, round * 100 + 1).await;
            assert_eq!(world.confirmed_flush(), stands_at, "acknowledged past changes that were left out");
            assert_eq!(world.target.sql("copy", "SELECT count(*), max(id) FROM bad"), "100|100");
            eventually_blocking(SOON, "the metric", || {
                let aside = replicator.metrics().sum("replicator_tables_set_aside", &[]);
                if aside == Some(1.0) { Ok(()) } else { Err(format!("{aside:?}")) }
            });
            replicator.kill9();
            replicator = Replicator::spawn(&config(&world), &[]);
            replicator.wait_until_ready(SOON);
            world.source.sql("shop", &format!("ALTER TABLE bad ADD COLUMN w{round} int"));
        }
        world.source.sql(
            "shop",
            "UPDATE bad SET w1 = 7, id = id + 100000 WHERE id > 150; DELETE FROM bad WHERE id < 50",
        );
        world.assert_soon_equal("altered elsewhere", SOON, Sinks::WithoutPostgres, |_, _| true).await;

        world.target.sql("copy", "ALTER TABLE bad DROP CONSTRAINT small");
        is_copied_anew(&world, replicator).await;
        assert_ne!(world.confirmed_flush(), stands_at);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_somebody_drops_in_clickhouse_is_set_aside_until_it_is_copied_anew() {
    for version in [PgVersion::V15, PgVersion::V18] {
        let (world, mut replicator) = begun(version).await;
        world.clickhouse.query(&format!("DROP TABLE {}.bad SYNC", world.clickhouse.database()));
        insert(&world, "bad", 101);
        let line = replicator.wait_for_line("the table is set aside", SOON);
        assert!(line.contains("public.bad") && line.contains("replicator resync"), "{line}");
        insert(&world, "bad", 201);
        all_else_goes_on(&world, Sinks::WithoutClickHouse, 101).await;
        is_copied_anew(&world, replicator).await;
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
    let line = replicator.wait_for_line("a table is set aside in a sink", SOON);
    assert!(line.contains("public.bad") && line.contains("copy"), "{line}");
    insert(&world, "other", 30001);
    others_arrive(&world).await;
    insert(&world, "bad", 30001);
    world.assert_soon_equal("in the other sinks", SOON, Sinks::WithoutPostgres, |_, _| true).await;
    replicator.kill9();
    let mut replicator = Replicator::spawn(&config(&world), &[]);
    insert(&world, "bad", 40001);
    world.assert_soon_equal("after a crash", SOON, Sinks::WithoutPostgres, |_, _| true).await;
    world.target.sql("copy", "ALTER TABLE bad DROP CONSTRAINT bad_v_check");
    resync(&config(&world), &["public.bad"]);
    world.assert_soon_equal("put right", SOON, Sinks::All, |_, _| true).await;
    stop(&mut replicator, SOON);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_without_a_key_whose_change_of_schema_a_sink_refuses_is_not_set_aside_and_waits() {
    let keyless = "CREATE TABLE bad (id int, v int, w int)";
    let (world, mut replicator) = begun_with(PgVersion::V15, keyless).await;
    world.target.sql("copy", "CREATE VIEW reads_it AS SELECT w FROM bad");
    world.source.sql("shop", "ALTER TABLE bad DROP COLUMN w; INSERT INTO bad VALUES (-1, 1)");
    let line = replicator.wait_for_line("only the table waits", SOON);
    assert!(line.contains("public.bad") && line.contains("reads_it"), "{line}");
    insert(&world, "bad", 101);
    insert(&world, "other", 101);
    others_arrive(&world).await;
    world.target.sql("copy", "DROP VIEW reads_it");
    world.assert_soon_equal("put right", SOON, Sinks::All, |_, _| true).await;
    assert!(!replicator.stderr().contains("set aside"), "{}", replicator.stderr());
    stop(&mut replicator, SOON);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_update_without_a_key_that_clickhouse_cannot_follow_goes_to_the_sinks_that_can() {
    for version in [PgVersion::V15, PgVersion::V18] {
        let keyless = "CREATE TABLE bad (id int, v int); ALTER TABLE bad REPLICA IDENTITY FULL";
        let (world, mut replicator) = begun_with(version, keyless).await;
        world.source.sql("shop", "UPDATE bad SET v = -v WHERE id <= 50; DELETE FROM bad WHERE id > 90");
        let line = replicator.wait_for_line("the table is set aside", SOON);
        assert!(line.contains("public.bad") && line.contains("without a key"), "{line}");
        all_else_goes_on(&world, Sinks::WithoutClickHouse, 101).await;
        // With a key it can be followed.
        world.source.sql("shop", "ALTER TABLE bad ADD PRIMARY KEY (id)");
        resync(&config(&world), &["public.bad"]);
        world.assert_soon_equal("copied anew", SOON, Sinks::All, |_, _| true).await;
        world.source.sql("shop", "UPDATE bad SET v = 0 WHERE id <= 20");
        world.assert_soon_equal("afterwards", SOON, Sinks::All, |_, _| true).await;
        stop(&mut replicator, SOON);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_array_of_another_shape_than_clickhouse_has_sets_its_table_aside_there_until_it_is_text() {
    for version in [PgVersion::V15, PgVersion::V18] {
        let table = "CREATE TABLE bad (id int PRIMARY KEY, v int, tags int[] NOT NULL DEFAULT '{1,NULL}')";
        let (world, mut replicator) = begun_with(version, table).await;
        world
            .source
            .sql("shop", "INSERT INTO bad VALUES (-1, 1, '{{1,2},{3,NULL}}'), (-2, 2, '[0:1]={5,6}')");
        let line = replicator.wait_for_line("the table is set aside", SOON);
        for part in ["public.bad", "tags", "arrays = \\\"text\\\""] {
            assert!(line.contains(part), "{line}");
        }
        all_else_goes_on(&world, Sinks::WithoutClickHouse, 101).await;
        stop(&mut replicator, SOON);
        let config = config(&world).set_sink("analytics", "arrays", "text");
        let mut replicator = Replicator::spawn(&config, &[]);
        resync(&config, &["public.bad"]);
        world.assert_soon_equal("as text", SOON, Sinks::All, |_, _| true).await;
        world.source.sql("shop", "UPDATE bad SET tags = '{{{7}}}' WHERE id = 1");
        world.assert_soon_equal("afterwards", SOON, Sinks::All, |_, _| true).await;
        stop(&mut replicator, SOON);
    }
}

/// What the source tells of a partition is told by its root's identity, and it flags no generated column.
#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_does_not_tell_its_row_sets_its_table_aside_and_ends_no_run() {
    for version in [PgVersion::V15, PgVersion::V18] {
        let world = World::start(version);
        world.source.sql(
            "shop",
            "CREATE TABLE other (id int PRIMARY KEY, v int);
             CREATE TABLE bad (id int, v text) PARTITION BY RANGE (id);
             CREATE TABLE bad_leaf PARTITION OF bad FOR VALUES FROM (0) TO (99); ALTER TABLE bad_leaf REPLICA IDENTITY FULL;
             CREATE TABLE computed (tenant int, name text, code text GENERATED ALWAYS AS (lower(name)) STORED,
                 PRIMARY KEY (tenant, code));
             INSERT INTO bad VALUES (1, 'a'), (2, 'b'); INSERT INTO computed (tenant, name) VALUES (1, 'A'), (1, 'B')",
        );
        let mut replicator = Replicator::spawn(&config(&world), &[]);
        replicator.wait_until_ready(SOON);
        wait_for_copy(&replicator);
        world.source.sql(
            "shop",
            "INSERT INTO computed (tenant, name) VALUES (1, 'C'), (2, 'C'), (2, 'D'); INSERT INTO bad VALUES (3, 'c')",
        );
        world.assert_soon_equal("rows under one half of a key", SOON, Sinks::All, |_, _| true).await;

        world.source.sql(
            "shop",
            "UPDATE bad SET v = 'x' WHERE id = 2; UPDATE computed SET name = 'E' WHERE name = 'D'",
        );
        for table in
            if version == PgVersion::V15 { &["public.bad", "public.computed"][..] } else { &["public.bad"] }
        {
            let line = replicator.wait_for_line(&format!("on {table} came without a key"), SOON);
            assert!(line.contains("REPLICA IDENTITY FULL"), "{line}");
        }
        insert(&world, "other", 1);
        others_arrive(&world).await;
        replicator.wait_until_ready(SOON);
        world
            .source
            .sql("shop", "ALTER TABLE bad REPLICA IDENTITY FULL; ALTER TABLE computed REPLICA IDENTITY FULL");
        resync(&config(&world), &["public.bad", "public.computed"]);
        world.assert_soon_equal("copied anew", SOON, Sinks::All, |_, _| true).await;
        world.source.sql(
            "shop",
            "INSERT INTO bad VALUES (4, 'd'); INSERT INTO computed (tenant, name) VALUES (3, 'F')",
        );
        insert(&world, "other", 101);
        world.assert_soon_equal("afterwards", SOON, Sinks::All, |_, _| true).await;
        stop(&mut replicator, SOON);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_history_that_refuses_a_change_gets_all_that_it_missed_of_the_table_when_it_is_asked_for() {
    for version in [PgVersion::V15, PgVersion::V18] {
        let world = World::start(version);
        make_tables(&world, "CREATE TABLE bad (id int PRIMARY KEY, v int, day date)");
        let config = with_history(config(&world), &world);
        let refusing = config.clone().set_sink("log", "out_of_range", "error");
        let mut replicator = Replicator::spawn(&refusing, &[]);
        replicator.wait_until_ready(SOON);
        wait_for_copy(&replicator);
        rows_arrive(&world).await;
        // Two sinks refuse the same change.
        world.target.sql("copy", "ALTER TABLE bad ADD CONSTRAINT small CHECK (v < 1000)");

        world.source.sql(
            "shop",
            "BEGIN; INSERT INTO other VALUES (-1, 1); INSERT INTO bad VALUES (-1, 1, NULL), (5000, 5000, 'infinity');
             INSERT INTO other VALUES (-2, 2); COMMIT; UPDATE bad SET day = '2020-02-29' WHERE id = 5000",
        );
        for reason in ["out_of_range", "small"] {
            let line = replicator.wait_for_line(reason, SOON);
            assert!(line.contains("public.bad"), "{line}");
            assert!(reason == "small" || line.contains("`infinity`"), "the value as people write it: {line}");
        }
        others_arrive(&world).await;
        world.assert_soon_equal("in the other sinks", SOON, Sinks::WithoutPostgres, |_, _| true).await;
        let stands_at = world.confirmed_flush();
        world.source.sql(
            "shop",
            "UPDATE bad SET v = v + 1 WHERE id < 50; DELETE FROM bad WHERE id BETWEEN 50 AND 60;
             ALTER TABLE bad ADD COLUMN w int DEFAULT 7; UPDATE bad SET w = id, v = 1 WHERE id = 5000",
        );
        world.assert_soon_equal("altered elsewhere", SOON, Sinks::WithoutPostgres, |_, _| true).await;
        let others_reach = |when: &str| {
            eventually_blocking(SOON, when, || history_is_as_archive(&world, "other"));
        };
        others_reach("the other table's history");
        assert_eq!(
            world.confirmed_flush(),
            stands_at,
            "acknowledged past changes that a history was left out of"
        );
        replicator.kill9();
        replicator = Replicator::spawn(&refusing, &[]);
        replicator.wait_until_ready(SOON);
        assert_eq!(changes_in_history(&world, "bad").len(), 100, "it gets nothing of the table");

        // It refuses the table once more, and does not do so for ever. The sink with state gets it back all the same.
        world.target.sql("copy", "ALTER TABLE bad DROP CONSTRAINT small");
        resync(&refusing, &["public.bad"]);
        let line = replicator.wait_for_line("a sink has refused it once more", SOON);
        assert!(line.contains("public.bad"), "{line}");
        world.assert_soon_equal("copied anew", SOON, Sinks::All, |_, _| true).await;
        // The request comes again in every run, and is done in one of them.
        for run in 1..12 {
            replicator.kill9();
            replicator = Replicator::spawn(&refusing, &[]);
            replicator.wait_until_ready(SOON);
            insert(&world, "other", 2001 + 200 * run);
            insert(&world, "bad (id, v)", 2001 + 200 * run);
            world.assert_soon_equal("and goes on", SOON, Sinks::All, |_, _| true).await;
            others_reach("the other table's history, while the table is set aside again");
            assert_eq!(
                world.confirmed_flush(),
                stands_at,
                "acknowledged past what a history was left out of"
            );
            replicator.wait_for_line("a sink has refused it once more", SOON);
            // What is said of the copy comes in the same moment.
            std::thread::sleep(Duration::from_millis(200));
            if replicator.stderr().contains("asked for and is copied again") {
                assert!(run < 11, "copied in each run: {}", replicator.stderr());
                eventually_blocking(SOON, "the end of the copy", || {
                    let said = replicator.stderr();
                    let end = said.rsplit_once("table copied").map_or("", |(_, end)| end);
                    if end.contains("table caught up") { Ok(()) } else { Err(said) }
                });
            } else if run >= 3 {
                break;
            }
        }

        stop(&mut replicator, SOON);
        let mut replicator = Replicator::spawn(&config, &[]);
        resync(&config, &["public.bad"]);
        eventually_blocking(SOON, "the history", || history_is_as_archive(&world, "bad"));
        insert(&world, "bad (id, v)", 9001);
        insert(&world, "other", 9001);
        world.assert_soon_equal("afterwards", SOON, Sinks::All, |_, _| true).await;
        others_reach("the other table's history afterwards");
        eventually_blocking(SOON, "the acknowledged position", || {
            let confirmed = world.confirmed_flush();
            if confirmed != stands_at { Ok(()) } else { Err(confirmed) }
        });
        let history = history_database(&world);
        let updated = format!("SELECT w, v FROM {history}.bad WHERE id = 5000 AND _op = 'update' AND v = 1");
        let updated = world.clickhouse.query(&updated);
        assert_eq!(updated.trim(), "5000\t1", "with the column that was added meanwhile");
        stop(&mut replicator, SOON);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_somebody_drops_in_postgres_is_set_aside_there_alone() {
    for version in [PgVersion::V15, PgVersion::V18] {
        let (world, mut replicator) = begun(version).await;
        world.target.sql("copy", "DROP TABLE bad");
        insert(&world, "bad", 101);
        let line = replicator.wait_for_line("the table is set aside", SOON);
        assert!(line.contains("public.bad"), "{line}");
        insert(&world, "bad", 201);
        all_else_goes_on(&world, Sinks::WithoutPostgres, 101).await;
        is_copied_anew(&world, replicator).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_that_are_dropped_while_nobody_looks_are_set_aside_at_the_start_and_not_begun_empty() {
    for version in [PgVersion::V15, PgVersion::V18] {
        let (world, mut replicator) = begun(version).await;
        stop(&mut replicator, SOON);
        world.target.sql("copy", "DROP TABLE bad");
        world.clickhouse.query(&format!("DROP TABLE {}.bad SYNC", world.clickhouse.database()));
        insert(&world, "bad", 101);
        let mut replicator = Replicator::spawn(&config(&world), &[]);
        for sink in ["analytics", "copy"] {
            let line = replicator.wait_for_line("a table is set aside in a sink that can't go on", SOON);
            assert!(line.contains("public.bad") && line.contains(sink) && line.contains("resync"), "{line}");
        }
        insert(&world, "other", 101);
        others_arrive(&world).await;
        assert_eq!(world.target.sql("copy", "SELECT to_regclass('bad') IS NULL"), "t");
        is_copied_anew(&world, replicator).await;
    }
}

/// A table `fresh`, where the Postgres target has a view of that name.
fn make_a_table_without_room(world: &World) {
    world.target.sql("copy", "CREATE VIEW fresh AS SELECT 1 AS id");
    world
        .source
        .sql("shop", "CREATE TABLE fresh (id int PRIMARY KEY, v int); INSERT INTO fresh VALUES (1, 1)");
}

fn says_that_there_is_no_room(replicator: &mut Replicator) {
    let line = replicator.wait_for_line("a table is set aside in a sink", SOON);
    assert!(line.contains("public.fresh") && line.contains("copy"), "{line}");
}

/// Everything else goes on; then the view is gone, and the table is asked for.
async fn goes_on_and_has_room_later(world: &World, mut replicator: Replicator) {
    insert(world, "fresh", 101);
    all_else_goes_on(world, Sinks::WithoutPostgres, 101).await;
    world.target.sql("copy", "DROP VIEW fresh");
    resync(&config(world), &["public.fresh"]);
    world.assert_soon_equal("copied", SOON, Sinks::All, |_, _| true).await;
    stop(&mut replicator, SOON);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_table_that_a_sink_has_no_room_for_is_set_aside_there_and_keeps_no_later_run_from_beginning() {
    let (world, mut replicator) = begun(PgVersion::V18).await;
    make_a_table_without_room(&world);
    says_that_there_is_no_room(&mut replicator);
    replicator.kill9();
    let mut replicator = Replicator::spawn(&config(&world), &[]);
    replicator.wait_until_ready(SOON);
    goes_on_and_has_room_later(&world, replicator).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_came_while_nobody_ran_and_finds_no_room_keeps_no_run_from_beginning() {
    let (world, mut replicator) = begun(PgVersion::V17).await;
    stop(&mut replicator, SOON);
    make_a_table_without_room(&world);
    let mut replicator = Replicator::spawn(&config(&world), &[]);
    says_that_there_is_no_room(&mut replicator);
    replicator.wait_until_ready(SOON);
    goes_on_and_has_room_later(&world, replicator).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_column_with_a_name_that_clickhouse_needs_keeps_its_table_alone_waiting_also_behind_a_crash() {
    for version in [PgVersion::V15, PgVersion::V18] {
        let (world, mut replicator) = begun(version).await;
        world.source.sql("shop", "ALTER TABLE bad ADD COLUMN _deleted int");
        insert(&world, "bad (id, v)", 101);
        replicator.wait_for_line("a name that the replicator needs for itself", SOON);
        insert(&world, "other", 101);
        others_arrive(&world).await;
        replicator.kill9();
        let mut replicator = Replicator::spawn(&config(&world), &[]);
        replicator.wait_until_ready(SOON);
        insert(&world, "bad (id, v)", 301);
        all_else_goes_on(&world, Sinks::WithoutClickHouse, 301).await;
        world.source.sql("shop", "ALTER TABLE bad RENAME COLUMN _deleted TO gone");
        is_copied_anew(&world, replicator).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sink_that_is_left_out_of_a_table_stays_so_when_the_table_is_renamed_out_of_its_filter() {
    let (world, replicator) = begun(PgVersion::V18).await;
    drop(replicator);
    let config = config(&world).set_sink("analytics", "tables", vec!["public.bad", "public.other"]);
    let mut replicator = Replicator::spawn(&config, &[]);
    replicator.wait_until_ready(SOON);
    world.clickhouse.query(&format!("DROP TABLE {}.bad SYNC", world.clickhouse.database()));
    insert(&world, "bad", 101);
    replicator.wait_for_line("the table is set aside", SOON);
    world.source.sql("shop", "ALTER TABLE bad RENAME TO renamed");
    for from in [201, 301] {
        insert(&world, "renamed", from);
        insert(&world, "other", from);
        others_arrive(&world).await;
        let named = |_: &str, name: &str| name == "renamed";
        world.assert_soon_equal("in the other sinks", SOON, Sinks::WithoutClickHouse, named).await;
        replicator.kill9();
        replicator = Replicator::spawn(&config, &[]);
        replicator.wait_until_ready(SOON);
    }
    assert!(!replicator.stderr().contains("all begins again"), "{}", replicator.stderr());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_leaves_the_publication_and_comes_back_is_still_set_aside_where_it_was() {
    let (world, mut replicator) = begun(PgVersion::V18).await;
    world.source.sql(
        "shop",
        "DROP PUBLICATION replicator; CREATE PUBLICATION replicator FOR TABLE bad, other WITH (publish_via_partition_root = true)",
    );
    world.target.sql("copy", "ALTER TABLE bad ADD CONSTRAINT small CHECK (v < 1000)");
    world.source.sql("shop", "INSERT INTO bad VALUES (5000, 5000)");
    replicator.wait_for_line("the table is set aside", SOON);
    replicator.wait_until_ready(SOON);
    let stands_at = world.confirmed_flush();
    insert(&world, "bad", 101);
    replicator.kill9();
    world.source.sql("shop", "ALTER PUBLICATION replicator DROP TABLE bad; DELETE FROM bad WHERE id < 50");
    let mut replicator = Replicator::spawn(&config(&world), &[]);
    replicator.wait_until_ready(SOON);
    insert(&world, "other", 101);
    others_arrive(&world).await;
    eventually_blocking(SOON, "the acknowledged position", || {
        let confirmed = world.confirmed_flush();
        if confirmed != stands_at { Ok(()) } else { Err(confirmed.to_string()) }
    });
    world.target.sql("copy", "ALTER TABLE bad DROP CONSTRAINT small");
    world
        .source
        .sql("shop", "ALTER PUBLICATION replicator ADD TABLE bad; INSERT INTO bad VALUES (6000, 6000)");
    world.assert_soon_equal("back", SOON, Sinks::WithoutPostgres, |_, _| true).await;
    assert_eq!(world.target.sql("copy", "SELECT count(*), max(id) FROM bad"), "100|100");
    is_copied_anew(&world, replicator).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_gone_and_asked_for_keeps_no_run_from_beginning() {
    let (world, mut replicator) = begun(PgVersion::V15).await;
    stop(&mut replicator, SOON);
    world.target.sql("copy", "DROP TABLE bad");
    resync(&config(&world), &["public.bad"]);
    // Nobody can copy while that is open, so the request is on record, and no more, when the process dies.
    let mut open = world.source.tool("psql", "shop");
    open.args(["-X", "-q", "-c", "BEGIN; INSERT INTO other VALUES (-5, 5); SELECT pg_sleep(20)"]);
    let mut open = open.spawn().expect("start psql");
    let mut replicator = Replicator::spawn(&config(&world), &[]);
    replicator.wait_for_line("a table was asked for", SOON);
    std::thread::sleep(Duration::from_millis(500));
    replicator.kill9();
    let mut replicator = Replicator::spawn(&config(&world), &[]);
    replicator.wait_until_ready(SOON);
    assert!(open.wait().expect("psql").success());
    world.assert_soon_equal("copied", SOON, Sinks::All, |_, _| true).await;
    stop(&mut replicator, SOON);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_copies_too_a_table_that_is_dropped_is_set_aside_and_the_others_go_on() {
    let world = World::start(PgVersion::V18);
    make_tables(&world, KEYED);
    let config = config(&world).set("source.snapshot", "never");
    let mut replicator = Replicator::spawn(&config, &[]);
    replicator.wait_until_ready(SOON);
    rows_arrive(&world).await;
    replicator.kill9();
    world.target.sql("copy", "DROP TABLE bad");
    let mut replicator = Replicator::spawn(&config, &[]);
    let line = replicator.wait_for_line("a table is set aside in a sink that can't go on", SOON);
    assert!(line.contains("public.bad") && line.contains("copy"), "{line}");
    insert(&world, "bad", 101);
    all_else_goes_on(&world, Sinks::WithoutPostgres, 101).await;
    resync(&config, &["public.bad"]);
    world.assert_soon_equal("copied", SOON, Sinks::All, |_, _| true).await;
    stop(&mut replicator, SOON);
}
