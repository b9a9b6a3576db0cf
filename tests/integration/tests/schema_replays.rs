//! Changes of a table's schema that are met again, or late: within a transaction, in a replay, after an absence.

use replicator_harness::{PgVersion, Replicator};
use replicator_integration::{Evolution, Sinks, Supervisor, World, stop, wait_until_caught_up};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(90);

const IN_ONE_TRANSACTION: Evolution = Evolution {
        before: "CREATE TABLE {t} (id int PRIMARY KEY, a int, b text); INSERT INTO {t} SELECT n, n, 'b' FROM generate_series(1, 10) n;",
        steps: &[
            (
                "BEGIN; INSERT INTO {t} VALUES (101, 1, 'before'); ALTER TABLE {t} ADD COLUMN c int DEFAULT 3;
                 INSERT INTO {t} VALUES (102, 1, 'between', 4); ALTER TABLE {t} DROP COLUMN a; UPDATE {t} SET c = 5 WHERE id = 101;
                 ALTER TABLE {t} RENAME COLUMN b TO a; INSERT INTO {t} VALUES (103, 'behind', 6); COMMIT",
                "UPDATE {t} SET a = 'changed' WHERE id = 102;",
            ),
            (
                "BEGIN; INSERT INTO {t} VALUES (104, 'kept', 7); SAVEPOINT s; ALTER TABLE {t} ADD COLUMN never text;
                 INSERT INTO {t} VALUES (105, 'not kept', 8, 'x'); ROLLBACK TO s; INSERT INTO {t} VALUES (105, 'kept too', 9); COMMIT",
                "INSERT INTO {t} VALUES (106, 'x', 10);",
            ),
            (
                "BEGIN; ALTER TABLE {t} DROP COLUMN a; INSERT INTO {t} VALUES (107, 1); ROLLBACK",
                "INSERT INTO {t} VALUES (107, 'y', 11); DELETE FROM {t} WHERE id = 1;",
            ),
        ],
        types: "",
    };

#[tokio::test(flavor = "multi_thread")]
async fn changes_of_schema_between_the_rows_of_one_transaction_apply_in_their_places() {
    IN_ONE_TRANSACTION.arrives_undisturbed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_of_schema_between_the_rows_of_one_transaction_are_replayed_in_their_places() {
    IN_ONE_TRANSACTION.arrives().await;
}

/// Under a replay the source's catalog has the later names, and the messages of the stream have no numbers.
#[tokio::test(flavor = "multi_thread")]
async fn a_name_passes_to_another_column_of_the_same_type() {
    Evolution {
        before: "CREATE TABLE {t} (id int PRIMARY KEY, a text, b text, c int);
                 INSERT INTO {t} SELECT n, 'a' || n, 'b' || n, n FROM generate_series(1, 20) n;",
        steps: &[
            (
                "ALTER TABLE {t} ADD COLUMN e text",
                "UPDATE {t} SET c = -c WHERE id < 4; INSERT INTO {t} VALUES (102, 'a', 'b', 7);",
            ),
            (
                "ALTER TABLE {t} RENAME COLUMN c TO d; ALTER TABLE {t} ADD COLUMN c int DEFAULT 9",
                "UPDATE {t} SET d = d + 1 WHERE id = 4; INSERT INTO {t} VALUES (103, 'a', 'b', 1, 'e', 2);",
            ),
        ],
        ..Evolution::default()
    }
    .arrives()
    .await;
}

/// What happens to a table's schema while nobody reads, with no change of a row behind it.
#[tokio::test(flavor = "multi_thread")]
async fn what_changed_while_the_replicator_was_away_is_there_when_it_is_back() {
    for version in [PgVersion::V15, PgVersion::V18] {
        let world = World::start(version);
        world.source.sql(
        "shop",
        "CREATE TABLE defaults (id int PRIMARY KEY); CREATE TABLE computed (id int PRIMARY KEY, n text);
         CREATE TABLE renamed (id int PRIMARY KEY, a int, b int); CREATE TABLE anew (id int PRIMARY KEY, a text);
         CREATE TABLE gone (id int PRIMARY KEY, a text); CREATE TABLE moved (id int PRIMARY KEY);
         INSERT INTO defaults SELECT generate_series(1, 10); INSERT INTO computed SELECT n, n FROM generate_series(1, 10) n;
         INSERT INTO renamed SELECT n, n, -n FROM generate_series(1, 10) n; INSERT INTO anew SELECT n, 'old' FROM generate_series(1, 10) n;
         INSERT INTO gone SELECT n, 'x' FROM generate_series(1, 10) n; INSERT INTO moved VALUES (1)",
    );
        let config = world.config().set("source.catalog_interval_ms", 200);
        let run = Supervisor::start(&config);
        world.assert_soon_equal("before", SOON, Sinks::All, |_, _| true).await;
        run.stop();
        world.source.sql(
        "shop",
        "ALTER TABLE defaults ADD COLUMN u uuid DEFAULT gen_random_uuid(), ADD COLUMN c int DEFAULT 5;
         ALTER TABLE computed ALTER n TYPE int USING n::int * 10;
         BEGIN; ALTER TABLE renamed RENAME a TO c; ALTER TABLE renamed RENAME b TO a; ALTER TABLE renamed RENAME c TO b; COMMIT;
         ALTER TABLE anew DROP COLUMN a; ALTER TABLE anew ADD COLUMN a text;
         DROP TABLE gone; CREATE TABLE gone (a int, id int PRIMARY KEY); INSERT INTO gone VALUES (1, 2);
         ALTER TABLE moved RENAME TO moved_away; CREATE TABLE moved (id int PRIMARY KEY); INSERT INTO moved VALUES (2)",
    );
        let run = Supervisor::start(&config);
        world.assert_soon_equal("back", SOON, Sinks::Databases, |_, _| true).await;
        run.stop();
    }
}

/// Several versions of a table that nobody has kept come again, with names that were used before: the stream does not tell
/// which columns its values are of, and the rows are right all the same.
#[tokio::test(flavor = "multi_thread")]
async fn columns_that_come_and_go_and_pass_on_their_names_while_the_replicator_was_away() {
    for version in [PgVersion::V15, PgVersion::V18] {
        let world = World::start(version);
        world.source.sql(
            "shop",
            "CREATE TABLE t (id int PRIMARY KEY, a text, b text); CREATE TABLE other (id int PRIMARY KEY);
             INSERT INTO t SELECT n, 'a' || n, 'b' || n FROM generate_series(1, 20) n",
        );
        let config = world.config().set("source.catalog_interval_ms", 200);
        let mut replicator = Replicator::spawn(&config, &[]);
        replicator.wait_until_ready(SOON);
        world.assert_soon_equal("before", SOON, Sinks::All, |_, _| true).await;
        for round in 1..4 {
            replicator.kill9();
            world.source.sql(
                "shop",
                &format!(
                    "UPDATE t SET b = 'one {round}' WHERE id % 5 = 1;
                     ALTER TABLE t DROP COLUMN a; ALTER TABLE t ADD COLUMN a text;
                     UPDATE t SET a = 'two {round}' WHERE id % 5 = 2;
                     BEGIN; INSERT INTO other VALUES ({round}); SAVEPOINT s; ALTER TABLE t RENAME b TO c;
                     UPDATE t SET c = 'three {round}' WHERE id % 5 = 3; ALTER TABLE t DROP COLUMN a;
                     ALTER TABLE t ADD COLUMN b text; UPDATE t SET b = 'four {round}' WHERE id % 5 = 4;
                     RELEASE s; ALTER TABLE t ADD COLUMN a text; INSERT INTO t VALUES (100 + {round}, 'x', 'y', 'z'); COMMIT;
                     UPDATE t SET a = 'five {round}' WHERE id % 5 = 0;
                     ALTER TABLE t DROP COLUMN c; UPDATE t SET b = 'six {round}' WHERE id = 6"
                ),
            );
            replicator = Replicator::spawn(&config, &[]);
            replicator.wait_until_ready(SOON);
            if round != 2 {
                world.assert_soon_equal("after the replay", SOON, Sinks::Databases, |_, _| true).await;
            }
        }
        stop(&mut replicator, SOON);
    }
}

/// What a crash leaves behind is brought by the stream, through the versions, and by no copy.
#[tokio::test(flavor = "multi_thread")]
async fn behind_a_crash_changes_of_schema_are_met_again_in_the_stream_and_nothing_is_copied() {
    const STEPS: [&str; 5] = [
        "ALTER TABLE t ADD COLUMN c int DEFAULT 3; INSERT INTO t VALUES (101, 'a', 'b', 4)",
        "ALTER TABLE t RENAME COLUMN b TO d; UPDATE t SET d = 'renamed' WHERE id < 4",
        "ALTER TABLE t DROP COLUMN a; UPDATE t SET c = -c WHERE id > 15",
        "ALTER TABLE t ALTER COLUMN d SET NOT NULL; ALTER TABLE t RENAME TO u; INSERT INTO u VALUES (102, 'd', 5)",
        "ALTER TABLE u ADD COLUMN a text; UPDATE u SET a = 'another' WHERE id % 2 = 0; DELETE FROM u WHERE id = 7",
    ];
    for version in [PgVersion::V15, PgVersion::V18] {
        let world = World::start(version);
        world.source.sql(
            "shop",
            "CREATE TABLE t (id int PRIMARY KEY, a text, b text);
             INSERT INTO t SELECT n, 'a' || n, 'b' || n FROM generate_series(1, 20) n",
        );
        let config = world.config().set("source.catalog_interval_ms", 200);
        let mut replicator = Replicator::spawn(&config, &[]);
        replicator.wait_until_ready(SOON);
        world.assert_soon_equal("before", SOON, Sinks::All, |_, _| true).await;
        wait_until_caught_up(&replicator);
        let copied = |replicator: &Replicator| replicator.metrics().sum("replicator_copy_rows_total", &[]);
        assert_eq!(copied(&replicator), Some(20.0), "the rows that were there");
        // At once, so that the kill falls where it falls; and all at once, while nobody reads.
        for (round, steps) in [(1, &STEPS[..2]), (2, &STEPS[2..3]), (3, &STEPS[3..])] {
            if round == 2 {
                world.source.sql("shop", steps[0]);
                std::thread::sleep(Duration::from_millis(100));
            }
            replicator.kill9();
            if round != 2 {
                steps.iter().for_each(|step| drop(world.source.sql("shop", step)));
            }
            replicator = Replicator::spawn(&config, &[]);
            replicator.wait_until_ready(SOON);
            world.assert_soon_equal("after the replay", SOON, Sinks::All, |_, _| true).await;
            assert_eq!(copied(&replicator).unwrap_or_default(), 0.0, "{}", replicator.stderr());
            assert!(!replicator.stderr().contains("snapshot taken"), "{}", replicator.stderr());
        }
        stop(&mut replicator, SOON);
    }
}

/// In binary form values tell nothing of themselves, and the catalog has their columns no longer.
#[tokio::test(flavor = "multi_thread")]
async fn rows_with_columns_that_came_and_went_while_the_replicator_was_away_arrive_whatever_their_types() {
    for version in [PgVersion::V15, PgVersion::V18] {
        let world = World::start(version);
        world.source.sql(
            "shop",
            "CREATE TYPE mood AS ENUM ('good', 'bad'); CREATE DOMAIN span AS interval;
             CREATE TABLE t (id int PRIMARY KEY, v text, code varchar(5), price numeric(4,1), codes varchar(5)[]);
             CREATE TABLE feels (id int PRIMARY KEY, m mood, ms mood[], b bit(3));
             INSERT INTO t VALUES (1, 'v', 'code', 1.5, '{a}'); INSERT INTO feels VALUES (1, 'good', '{bad}', '101')",
        );
        world.target.sql("copy", "CREATE TYPE mood AS ENUM ('good', 'bad')");
        let config = world.config().set("source.catalog_interval_ms", 200);
        let mut replicator = Replicator::spawn(&config, &[]);
        replicator.wait_until_ready(SOON);
        world.assert_soon_equal("before", SOON, Sinks::All, |_, _| true).await;
        // First those that are understood by what is left: built in, or as another column of the table is.
        let understood = [
            ("t", "varchar(200)", "longer than five"),
            ("t", "numeric(12,4)", "12345678.1234"),
            ("t", "varchar(200)[]", "{longer than five,NULL}"),
            ("t", "uuid", "00112233-4455-6677-8899-aabbccddeeff"),
            ("feels", "mood", "bad"),
            ("feels", "mood[]", "{good,NULL}"),
            ("feels", "bit(5)", "10101"),
        ];
        let others = [
            ("t", "interval", "1 day"),
            ("t", "mood", "bad"),
            ("t", "span", "1 day"),
            ("feels", "xid8", "7"),
            ("feels", "point", "(1,2)"),
            ("feels", "jsonpath", "$.a"),
            ("feels", "int4range", "[1,5)"),
            ("feels", "int[]", "{1,2}"),
        ];
        for (id, columns, form) in [(100, &understood[..], "binary"), (200, &others[..], "text")] {
            replicator.kill9();
            for (number, (table, column, value)) in columns.iter().enumerate() {
                let id = id + number;
                world.source.sql(
                    "shop",
                    &format!(
                        "ALTER TABLE {table} ADD COLUMN gone {column}; INSERT INTO {table} (id, gone) VALUES ({id}, '{value}');
                         UPDATE {table} SET gone = NULL WHERE id = {id}; ALTER TABLE {table} DROP COLUMN gone"
                    ),
                );
            }
            world
                .source
                .sql("shop", &format!("UPDATE feels SET m = 'bad', b = B'{id:03b}'::bit(3) WHERE id = 1"));
            replicator = Replicator::spawn(&config, &[]);
            replicator.wait_until_ready(SOON);
            world.assert_soon_equal("after the replay", SOON, Sinks::All, |_, _| true).await;
            let said = replicator.stderr();
            assert!(!said.contains("set aside"), "{said}");
            assert_eq!(said.contains("come as text"), form == "text", "{said}");
        }
        stop(&mut replicator, SOON);
    }
}

/// The replay after a kill brings values of the dropped column, under a name that another has by now.
#[tokio::test(flavor = "multi_thread")]
async fn a_replay_does_not_put_a_dropped_columns_values_into_its_namesake() {
    for version in [PgVersion::V15, PgVersion::V18] {
        let world = World::start(version);
        world.source.sql("shop", "CREATE TABLE t (id int PRIMARY KEY, a text); INSERT INTO t SELECT n, 'first' FROM generate_series(1, 10) n");
        let config = world.config().set("source.catalog_interval_ms", 200);
        let mut replicator = Replicator::spawn(&config, &[]);
        replicator.wait_until_ready(SOON);
        world.assert_soon_equal("before", SOON, Sinks::All, |_, _| true).await;
        replicator.kill9();
        world.source.sql(
            "shop",
            "UPDATE t SET a = 'second' WHERE id > 5; INSERT INTO t VALUES (11, 'second');
         ALTER TABLE t DROP COLUMN a; ALTER TABLE t ADD COLUMN a text; UPDATE t SET a = 'third' WHERE id > 8",
        );
        let supervisor = Supervisor::start(&config);
        world.assert_soon_equal("after the replay", SOON, Sinks::All, |_, _| true).await;
        supervisor.stop();
    }
}
