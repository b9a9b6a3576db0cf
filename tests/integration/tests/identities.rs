//! By what rows are told apart: each way, into all three sinks.

use replicator_harness::{Config, PgVersion, Replicator, Rows, assert_same_rows, source_columns};
use replicator_integration::{
    Described, Sinks, Table, World, assert_archive_folds_to, drain, stop, stream, wait_for_stream,
};
use std::time::Duration;

/// A value of 20 kB that does not compress: stored out of line, and not sent when an update leaves it alone.
const BIG: &str = "(SELECT string_agg(md5(random()::text), '') FROM generate_series(1, 640))";

const SOON: Duration = Duration::from_secs(60);

/// Both ends of what is supported.
const VERSIONS: [PgVersion; 2] = [PgVersion::V15, PgVersion::V18];

/// Tables that are not in `but`, as a sink's `tables`.
fn all_but(but: &[&str], all: &[Table]) -> Vec<String> {
    let kept = all.iter().filter(|table| !but.contains(&table.name));
    kept.map(|table| format!("public.{}", table.name)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_are_found_by_key_by_index_and_by_all_of_them() {
    const TABLES: [Table; 6] = [
        Table { name: "by_key", key: &["b", "a"] },
        Table { name: "by_index", key: &["a", "b"] },
        Table { name: "by_other_index", key: &["code"] },
        Table { name: "full_with_key", key: &["id"] },
        Table { name: "insert_only", key: &[] },
        Table { name: "full_bag", key: &[] },
    ];
    for version in VERSIONS {
        let world = World::start(version);
        world.source.sql(
            "shop",
            "CREATE TABLE by_key (v text, a int, b text, PRIMARY KEY (b, a));
             CREATE TABLE by_index (a int NOT NULL, b text NOT NULL, v text, UNIQUE (b, a));
             ALTER TABLE by_index REPLICA IDENTITY USING INDEX by_index_b_a_key;
             CREATE TABLE by_other_index (id int PRIMARY KEY, code text NOT NULL UNIQUE, v text);
             ALTER TABLE by_other_index REPLICA IDENTITY USING INDEX by_other_index_code_key;
             CREATE TABLE full_with_key (id int PRIMARY KEY, v text); ALTER TABLE full_with_key REPLICA IDENTITY FULL;
             CREATE TABLE insert_only (v text);
             CREATE TABLE full_bag (v text, n numeric, doc json); ALTER TABLE full_bag REPLICA IDENTITY FULL;
             INSERT INTO by_key SELECT 'v', n, 'b' || n % 2 FROM generate_series(1, 20) n;
             INSERT INTO by_index SELECT n, 'b' || n % 2, 'v' FROM generate_series(1, 20) n;
             INSERT INTO by_other_index SELECT n, 'c' || n, 'v' FROM generate_series(1, 20) n;
             INSERT INTO full_with_key SELECT n, 'v' FROM generate_series(1, 20) n;
             INSERT INTO insert_only SELECT 'same' FROM generate_series(1, 20) n;
             INSERT INTO full_bag SELECT 'same', 1.0, '{}' FROM generate_series(1, 5) n;",
        );
        // Which of equal rows an update means nothing says to ClickHouse, which has no one row of several.
        let config = world.config().set_sink("analytics", "tables", all_but(&["full_bag"], &TABLES));
        drain(&config);
        let changes = |r: u32| {
            format!(
                "UPDATE by_key SET v = 'w{r}' WHERE a % 3 = {r}; UPDATE by_key SET b = 'moved' WHERE a = 10 + {r};
                 DELETE FROM by_key WHERE a = 5 + {r}; INSERT INTO by_key VALUES ('again', 5 + {r}, 'b1');
                 UPDATE by_index SET v = NULL WHERE a % 3 = {r}; UPDATE by_index SET b = 'moved' WHERE a = 10 + {r};
                 DELETE FROM by_index WHERE a = 5 + {r};
                 UPDATE by_other_index SET id = id + 100 WHERE id = {r} + 1;
                 UPDATE by_other_index SET code = 'x' || code WHERE id = {r} + 10;
                 BEGIN; DELETE FROM by_other_index WHERE code = 'c{r}'; INSERT INTO by_other_index VALUES (200 + {r}, 'c{r}', 'new');
                 COMMIT;
                 UPDATE full_with_key SET v = NULL WHERE id % 3 = {r}; UPDATE full_with_key SET id = id + 100 WHERE id = 10 + {r};
                 DELETE FROM full_with_key WHERE id = 5 + {r};
                 INSERT INTO insert_only VALUES ('same'), (NULL);
                 INSERT INTO full_bag VALUES ('same', 1.0, '{{}}'), ('same', 1.00, '{{}}'), (NULL, NULL, NULL), (NULL, NULL, NULL);
                 UPDATE full_bag SET v = 'other' WHERE ctid = (SELECT min(ctid) FROM full_bag WHERE v = 'same');
                 DELETE FROM full_bag WHERE ctid = (SELECT min(ctid) FROM full_bag WHERE v IS NULL);
                 DELETE FROM full_bag WHERE ctid = (SELECT max(ctid) FROM full_bag WHERE v = 'same');"
            )
        };
        stream(&world, &config, &(0..3).map(changes).collect::<String>());
        let (bag, others) = TABLES.split_last().unwrap();
        world.assert_equal(others).await;
        let source = world.source.client("shop").await;
        let columns = source_columns(&source, "public.full_bag").await;
        let expected = Rows::of_postgres(&source, "public.full_bag", &columns).await;
        let target = world.target.client("copy").await;
        assert_same_rows(
            "the bag",
            &expected,
            &Rows::of_postgres(&target, "public.full_bag", &columns).await,
        );
        assert_archive_folds_to(&world.archive(), bag, &columns, &expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_whose_identity_becomes_nothing_takes_new_rows_and_the_rest_when_it_has_one_again() {
    for version in VERSIONS {
        let world = World::start(version);
        world.source.sql(
            "shop",
            "CREATE TABLE t (id int PRIMARY KEY, v text); CREATE TABLE other (id int PRIMARY KEY, v text);
             INSERT INTO t SELECT n, 'v' FROM generate_series(1, 20) n; INSERT INTO other SELECT n, 'v' FROM generate_series(1, 20) n",
        );
        let config = world.config().set("source.catalog_interval_ms", 300);
        let mut replicator = Replicator::spawn(&config, &[]);
        replicator.wait_until_ready(SOON);
        world.assert_soon_equal("with a key", SOON, Sinks::All, |_, _| true).await;
        world.source.sql(
            "shop",
            "UPDATE t SET v = 'before' WHERE id < 5; ALTER TABLE t REPLICA IDENTITY NOTHING; INSERT INTO t VALUES (30, 'nothing')",
        );
        world.source.sql("shop", "INSERT INTO t VALUES (31, 'nothing'); UPDATE other SET v = 'w'");
        let refused = world.source.try_sql("shop", "UPDATE t SET v = 'refused'").unwrap_err();
        assert!(refused.contains("replica identity"), "{refused}");
        world.assert_soon_equal("without an identity", SOON, Sinks::All, |_, _| true).await;
        stop(&mut replicator, SOON);
        world
            .source
            .sql("shop", "INSERT INTO t VALUES (32, 'nothing'); ALTER TABLE t REPLICA IDENTITY DEFAULT");
        let mut replicator = Replicator::spawn(&config, &[]);
        replicator.wait_until_ready(SOON);
        world.source.sql("shop", "UPDATE t SET v = 'again' WHERE id % 2 = 0; UPDATE t SET id = id + 100 WHERE id = 31; DELETE FROM t WHERE id = 3");
        world.assert_soon_equal("with a key again", SOON, Sinks::All, |_, _| true).await;
        stop(&mut replicator, SOON);
    }
}

#[test]
fn an_update_of_a_row_without_a_key_is_refused_by_clickhouse_with_the_remedy() {
    for version in [PgVersion::V15, PgVersion::V18] {
        let world = World::start(version);
        world.source.sql("shop", "CREATE TABLE bag (v text); ALTER TABLE bag REPLICA IDENTITY FULL; INSERT INTO bag VALUES ('a'), ('a')");
        let config = Config::new(&world.source.url("shop")).clickhouse("analytics", &world.clickhouse);
        drain(&config);
        world.source.sql("shop", "INSERT INTO bag VALUES ('a'); DELETE FROM bag WHERE ctid = '(0,1)'");
        let ended = Replicator::run_to_end(&config, &["--endpos", "current"]);
        assert_eq!(ended.status.code(), Some(1), "{}", ended.stderr);
        let last = ended.stderr.lines().last().unwrap_or_default();
        assert!(last.contains("public.bag") && last.contains("key"), "{last}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn values_that_were_not_sent_stay_whatever_happens_to_the_key() {
    const TABLES: [Table; 3] = [
        Table { name: "documents", key: &["id"] },
        Table { name: "pairs", key: &["a", "b"] },
        Table { name: "by_index", key: &["code"] },
    ];
    for version in VERSIONS {
        let world = World::start(version);
        world.source.sql(
            "shop",
            &format!(
                "CREATE TABLE documents (id int PRIMARY KEY, body text, doc jsonb, raw bytea, list text[], n int);
                 CREATE TABLE pairs (a int, b text, body text, n int, PRIMARY KEY (a, b));
                 CREATE TABLE by_index (code text NOT NULL UNIQUE, body text, n int);
                 ALTER TABLE by_index REPLICA IDENTITY USING INDEX by_index_code_key;
                 INSERT INTO documents SELECT n, {BIG} || n, to_jsonb({BIG}), {BIG}::bytea, ARRAY[{BIG}, NULL], 0
                     FROM generate_series(1, 20) n;
                 INSERT INTO pairs SELECT n, 'x', {BIG} || n, 0 FROM generate_series(1, 20) n;
                 INSERT INTO by_index SELECT 'c' || n, {BIG} || n, 0 FROM generate_series(1, 20) n;"
            ),
        );
        let config = world.config();
        drain(&config);
        stream(
            &world,
            &config,
            &format!(
                "-- Of a copied row, and of one that came a moment ago; twice; after a key change; with the key changed again.
                 UPDATE documents SET n = 1 WHERE id <= 3;
                 INSERT INTO documents SELECT n, {BIG} || n, to_jsonb({BIG}), {BIG}::bytea, ARRAY[{BIG}, NULL], 0
                     FROM generate_series(21, 30) n;
                 UPDATE documents SET n = 2 WHERE id BETWEEN 20 AND 25; UPDATE documents SET n = 3 WHERE id BETWEEN 20 AND 22;
                 BEGIN; UPDATE documents SET id = 101 WHERE id = 1; UPDATE documents SET n = 4 WHERE id = 101;
                        UPDATE documents SET id = 102 WHERE id = 101; COMMIT;
                 UPDATE documents SET id = 121 WHERE id = 21; UPDATE documents SET n = 5 WHERE id = 121;
                 -- One changes and the others do not; it becomes NULL, then nothing is sent of it.
                 UPDATE documents SET body = {BIG} || 'new' WHERE id = 4; UPDATE documents SET n = 6 WHERE id = 4;
                 UPDATE documents SET body = NULL, raw = NULL WHERE id = 5; UPDATE documents SET n = 7 WHERE id = 5;
                 -- Gone and there again with the key of another.
                 BEGIN; DELETE FROM documents WHERE id = 6; UPDATE documents SET id = 6 WHERE id = 7;
                        UPDATE documents SET n = 8 WHERE id = 6; COMMIT;
                 -- All move down by one, each to a key that another had.
                 DELETE FROM pairs WHERE a = 1; UPDATE pairs SET a = a - 1 WHERE a > 1;
                 -- Two swap their keys, one of them with the letter too.
                 BEGIN; UPDATE pairs SET b = 'tmp' WHERE a = 5; UPDATE pairs SET a = 5, b = 'x', n = n + 1 WHERE a = 6;
                        UPDATE pairs SET a = 6, b = 'x', n = n + 1 WHERE a = 5 AND b = 'tmp'; COMMIT;
                 BEGIN; UPDATE by_index SET code = 'tmp' WHERE code = 'c1'; UPDATE by_index SET code = 'c1' WHERE code = 'c2';
                        UPDATE by_index SET code = 'c2', n = n + 1 WHERE code = 'tmp'; COMMIT;
                 UPDATE by_index SET n = n + 1 WHERE code < 'c2';
                 -- Of a row that came and went in a part of the transaction that was given up.
                 BEGIN; SAVEPOINT s; UPDATE documents SET id = 999, body = 'short' WHERE id = 10; ROLLBACK TO s;
                        UPDATE documents SET n = 9 WHERE id = 10; COMMIT;"
            ),
        );
        world.assert_equal(&TABLES).await;
        let missing = world.clickhouse.query(&format!(
            "SELECT count() FROM `{}`.documents FINAL WHERE doc IS NULL OR list IS NULL",
            world.clickhouse.database()
        ));
        assert_eq!(missing.trim(), "0", "only body and raw of one row are NULL");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_truncate_empties_its_tables_in_its_place_and_ids_begin_again() {
    const TABLES: [Table; 3] = [
        Table { name: "parents", key: &["id"] },
        Table { name: "children", key: &["id"] },
        Table { name: "bystanders", key: &["id"] },
    ];
    for version in VERSIONS {
        let world = World::start(version);
        world.source.sql(
            "shop",
            "CREATE TABLE parents (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, v text);
             CREATE TABLE children (id serial PRIMARY KEY, parent int REFERENCES parents, v text);
             CREATE TABLE bystanders (id int PRIMARY KEY);
             INSERT INTO parents (v) SELECT 'copied' FROM generate_series(1, 10);
             INSERT INTO children (parent, v) SELECT id, 'copied' FROM parents;
             INSERT INTO bystanders SELECT generate_series(1, 10);",
        );
        let config = world.config();
        drain(&config);
        stream(
            &world,
            &config,
            "INSERT INTO parents (v) VALUES ('before'); INSERT INTO children (parent, v) VALUES (11, 'before');
             BEGIN; INSERT INTO bystanders VALUES (11); TRUNCATE parents RESTART IDENTITY CASCADE;
             INSERT INTO parents (v) SELECT 'after' FROM generate_series(1, 3);
             INSERT INTO children (parent, v) VALUES (1, 'after'), (2, 'after'); COMMIT;
             BEGIN; TRUNCATE children, bystanders; ROLLBACK;
             BEGIN; SAVEPOINT s; TRUNCATE bystanders; ROLLBACK TO s; DELETE FROM bystanders WHERE id < 3; COMMIT;
             TRUNCATE children; INSERT INTO children (parent, v) VALUES (3, 'last');",
        );
        world.assert_equal(&TABLES).await;
        assert_eq!(
            world.target.sql("copy", "SELECT string_agg(id::text, ',' ORDER BY id) FROM parents"),
            "1,2,3"
        );
        let truncates: Vec<(String, bool, bool)> = world
            .archive()
            .iter()
            .map(Described::event)
            // Not those by which a copy begins.
            .filter(|event| event["op"] == "truncate" && event["xid"] != 0)
            .map(|event| {
                let flag = |name: &str| event[name].as_bool().expect("a flag");
                (
                    event["table"].as_str().expect("a name").to_owned(),
                    flag("cascade"),
                    flag("restart_identity"),
                )
            })
            .collect();
        let expected = [("parents", true, true), ("children", true, true), ("children", false, false)];
        assert_eq!(truncates, expected.map(|(table, cascade, restart)| (table.to_owned(), cascade, restart)));
    }
}

/// To Postgres they are one key, and to whoever compares texts they are two.
#[tokio::test(flavor = "multi_thread")]
async fn a_row_whose_key_gets_blanks_at_its_end_and_loses_them_stays() {
    for version in [PgVersion::V15, PgVersion::V18] {
        let world = World::start(version);
        world.source.sql(
            "shop",
            "CREATE TABLE blanks (k bpchar PRIMARY KEY, v int); CREATE TABLE pairs (c char(3), k bpchar, v int, PRIMARY KEY (c, k));
             INSERT INTO blanks SELECT 'a' || n, n FROM generate_series(1, 20) n;
             INSERT INTO pairs SELECT n, 'a' || n, n FROM generate_series(1, 20) n",
        );
        let config = world.config().set_sink("copy", "shards", 4);
        let mut replicator = Replicator::spawn(&config, &[]);
        replicator.wait_until_ready(SOON);
        for table in ["blanks", "pairs"] {
            for _ in 0..5 {
                world.source.sql(
                    "shop",
                    &format!(
                        "BEGIN; UPDATE {table} SET k = k || '  '; UPDATE {table} SET k = rtrim(k); COMMIT;
                         BEGIN; UPDATE {table} SET k = k || ' ' WHERE v % 2 = 0; UPDATE {table} SET v = v + 20 WHERE v % 4 = 0; COMMIT"
                    ),
                );
            }
        }
        world.assert_soon_equal("blanks", SOON, Sinks::Databases, |_, _| true).await;
        stop(&mut replicator, SOON);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn large_values_that_many_updates_leave_alone_are_never_all_in_memory() {
    const ROWS: u64 = 250;
    const UPDATED: &str = "SELECT count(*), sum(n), sum(id), sum(length(big))";
    let world = World::start(PgVersion::V17);
    world.source.sql(
        "shop",
        &format!(
            "CREATE TABLE t (id bigint PRIMARY KEY, n int, big text); ALTER TABLE t ALTER big SET STORAGE EXTERNAL;
             INSERT INTO t SELECT n, 0, repeat(md5(n::text), 31250) FROM generate_series(1, {ROWS}) n"
        ),
    );
    let config = Config::new(&world.source.url("shop"))
        .set("source.tables", vec!["public.*"])
        .clickhouse("analytics", &world.clickhouse);
    drain(&config);
    // In one transaction, so that they come in few batches; with keys that change, behind fences; and one row often.
    let again =
        "DO $$ BEGIN FOR i IN 1..1000 LOOP UPDATE t SET n = n + 1 WHERE id = 100001; END LOOP; END $$";
    for sql in ["UPDATE t SET n = 1", "UPDATE t SET id = id + 100000", again] {
        world.source.sql("shop", sql);
        let mut replicator = Replicator::spawn(&config, &[]);
        replicator.wait_until_ready(SOON);
        wait_for_stream(&world, &replicator);
        let peak = replicator.peak_rss_bytes();
        stop(&mut replicator, SOON);
        println!("{sql}: {} MB at the peak", peak >> 20);
        assert!(peak < 250 << 20, "{sql}: {peak} bytes");
        let wanted =
            world.source.sql("shop", &format!("{UPDATED}, md5(string_agg(md5(big), '' ORDER BY id)) FROM t"));
        let database = world.clickhouse.database();
        let got = world.clickhouse.query(&format!(
            "{UPDATED}, lower(hex(MD5(arrayStringConcat(arrayMap(row -> row.2, arraySort(groupArray((id, \
             lower(hex(MD5(big)))))))))))  FROM {database}.t FINAL"
        ));
        assert_eq!(got.trim().replace('\t', "|"), wanted, "{sql}");
    }
}
