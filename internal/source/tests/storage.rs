//! What tells that rows changed without a change in the stream, and up to where what the catalog says holds.

mod support;

use replicator_harness::{PgOptions, PgVersion, Postgres};
use replicator_types::{Lsn, Storage, StorageChange};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use support::plain;

/// With the publication that the tests make.
fn postgres(version: PgVersion) -> Postgres {
    let postgres = Postgres::start(version, &PgOptions::default());
    postgres.sql(
        "postgres",
        "CREATE PUBLICATION replicator FOR ALL TABLES WITH (publish_via_partition_root = true)",
    );
    postgres
}

#[tokio::test]
async fn a_rewrite_by_alter_table_is_told_from_vacuum_full_and_truncate() {
    for version in PgVersion::ALL {
        let postgres = postgres(version);
        postgres.sql(
            "postgres",
            "CREATE TABLE t (id int PRIMARY KEY, n int, v varchar(9)); INSERT INTO t VALUES (1, 1)",
        );
        let source = plain(&postgres);
        source.prepare().await.expect("prepared");
        let look = async || source.published().await.expect("tables").remove(0).storage;
        let mut before = look().await;
        for (sql, is_rewrite) in [
            ("SELECT 1", false),
            ("VACUUM FULL t", false),
            ("CLUSTER t USING t_pkey", false),
            ("TRUNCATE t", false),
            ("ALTER TABLE t ALTER n SET NOT NULL", false),
            ("ALTER TABLE t RENAME v TO w", false),
            ("ALTER TABLE t ALTER w TYPE varchar(20)", false),
            ("ALTER TABLE t ADD c int DEFAULT 5, ADD d text", false),
            ("ALTER TABLE t DROP d", false),
            ("ALTER TABLE t ALTER n TYPE int USING n * 10", true),
            ("ALTER TABLE t ALTER n TYPE bigint USING n * 10", true),
            ("ALTER TABLE t ADD u uuid DEFAULT gen_random_uuid()", true),
            ("SAVEPOINT", true),
        ] {
            if sql == "SAVEPOINT" {
                postgres.sql(
                    "postgres",
                    "BEGIN; SAVEPOINT s; ALTER TABLE t ALTER c TYPE int USING c + 1; COMMIT",
                );
            } else {
                postgres.sql("postgres", sql);
            }
            let after = look().await;
            let wanted = if is_rewrite { StorageChange::Rewritten } else { StorageChange::None };
            assert_eq!(after.change_since(&before), wanted, "{version:?} {sql}");
            before = after;
        }
    }
}

#[tokio::test]
async fn partitions_that_come_with_rows_are_told_from_those_that_are_made_empty() {
    for version in PgVersion::ALL {
        let postgres = postgres(version);
        postgres.sql(
            "postgres",
            "CREATE TABLE t (k int, v text) PARTITION BY LIST (k); CREATE TABLE t1 PARTITION OF t FOR VALUES IN (1);
             INSERT INTO t VALUES (1)",
        );
        let source = plain(&postgres);
        source.prepare().await.expect("prepared");
        let look = async || -> Storage {
            let tables = source.published().await.expect("tables");
            tables.into_iter().find(|table| table.name == "t").expect("the root").storage
        };
        let mut before = look().await;
        assert!(before.is_partitioned && before.leaves.len() == 1, "{before:?}");
        for (sql, changes) in [
            ("CREATE TABLE t2 PARTITION OF t FOR VALUES IN (2)", false),
            ("INSERT INTO t VALUES (2)", false),
            ("BEGIN; CREATE TABLE t3 PARTITION OF t FOR VALUES IN (3); INSERT INTO t VALUES (3); COMMIT", false),
            ("CREATE TABLE t4 (k int, v text); ALTER TABLE t ATTACH PARTITION t4 FOR VALUES IN (4)", false),
            ("CREATE TABLE t5 (k int, v text); INSERT INTO t5 VALUES (5); ALTER TABLE t ATTACH PARTITION t5 FOR VALUES IN (5)", true),
            ("BEGIN; CREATE TABLE t6 (k int, v text); INSERT INTO t6 VALUES (6); ALTER TABLE t ATTACH PARTITION t6 FOR VALUES IN (6); COMMIT", true),
            ("BEGIN; CREATE TABLE t7 AS SELECT 7 AS k, 'v' AS v; ALTER TABLE t ATTACH PARTITION t7 FOR VALUES IN (7); COMMIT", true),
            (
                "BEGIN; CREATE TABLE t8 PARTITION OF t FOR VALUES IN (8, 80) PARTITION BY LIST (k);
                 CREATE TABLE t81 PARTITION OF t8 FOR VALUES IN (8); INSERT INTO t VALUES (8); COMMIT",
                false,
            ),
            (
                "CREATE TABLE t9 (k int, v text) PARTITION BY LIST (k); CREATE TABLE t91 PARTITION OF t9 FOR VALUES IN (9);
                 INSERT INTO t9 VALUES (9); ALTER TABLE t ATTACH PARTITION t9 FOR VALUES IN (9)",
                true,
            ),
            ("ALTER TABLE t DETACH PARTITION t5", true),
            ("INSERT INTO t5 VALUES (5)", false),
            ("ALTER TABLE t ATTACH PARTITION t5 FOR VALUES IN (5)", true),
            ("BEGIN; ALTER TABLE t DETACH PARTITION t5; INSERT INTO t5 VALUES (5); ALTER TABLE t ATTACH PARTITION t5 FOR VALUES IN (5); COMMIT", true),
            ("TRUNCATE t2", true),
            ("DROP TABLE t9", true),
            ("ALTER TABLE t ADD w int", false),
            ("ALTER TABLE t ADD x uuid DEFAULT gen_random_uuid()", true),
        ] {
            postgres.sql("postgres", sql);
            let after = look().await;
            let wanted = if changes { StorageChange::CameOrWent } else { StorageChange::None };
            assert_eq!(after.change_since(&before), wanted, "{version:?} {sql}: {before:?} {after:?}");
            before = after;
        }
    }
}

#[tokio::test]
async fn types_whose_values_are_written_in_another_way_are_told_and_others_not() {
    for version in PgVersion::ALL {
        let postgres = postgres(version);
        postgres.sql(
            "postgres",
            "CREATE TYPE mood AS ENUM ('low', 'high'); CREATE TYPE other AS ENUM ('a'); CREATE TYPE pair AS (a int, m mood);
             CREATE DOMAIN sure AS pair; CREATE TYPE moods AS RANGE (subtype = mood); CREATE TABLE rows (r int, s text);
             CREATE TABLE plain (id int, t text);
             CREATE TABLE direct (m mood); CREATE TABLE arrays (ms mood[]); CREATE TABLE deep (s sure[]);
             CREATE TABLE ranges (r moods, rs moods_multirange); CREATE TABLE of_rows (r rows)",
        );
        let source = plain(&postgres);
        source.prepare().await.expect("prepared");
        let look = async || -> BTreeMap<String, Storage> {
            let tables = source.published().await.expect("tables");
            tables.into_iter().map(|table| (table.name, table.storage)).collect()
        };
        let mut before = look().await;
        assert!(before["plain"].types.is_empty());
        for (sql, changed) in [
            ("ALTER TYPE mood ADD VALUE 'middle' BEFORE 'high'", &[][..]),
            ("ALTER TYPE mood RENAME VALUE 'middle' TO 'even'", &["arrays", "deep", "direct", "ranges"]),
            ("ALTER TYPE other RENAME VALUE 'a' TO 'b'", &[]),
            ("ALTER TYPE pair ADD ATTRIBUTE b text", &["deep"]),
            ("ALTER TYPE pair RENAME ATTRIBUTE b TO c", &[]),
            ("ALTER TYPE pair DROP ATTRIBUTE a", &["deep"]),
            ("ALTER TYPE pair RENAME TO couple", &[]),
            ("ALTER TABLE rows DROP COLUMN s", &["of_rows"]),
            ("ALTER TABLE plain ADD COLUMN o other", &[]),
            ("ALTER TYPE other RENAME VALUE 'b' TO 'c'", &["plain"]),
            ("ALTER TABLE plain DROP COLUMN o", &[]),
        ] {
            postgres.sql("postgres", sql);
            let after = look().await;
            let is_other = |name: &&String| after[*name].change_since(&before[*name]) != StorageChange::None;
            let found: Vec<&String> = after.keys().filter(is_other).collect();
            assert_eq!(found, changed, "{version:?} {sql}");
            before = after;
        }
    }
}

/// A commit that waits for a synchronous standby is in the WAL, and is decoded, while nobody sees what it did.
#[tokio::test]
async fn a_change_of_schema_that_is_in_the_wal_and_not_visible_yet_lies_behind_what_the_catalog_is_said_to_hold_from()
 {
    for version in [PgVersion::V15, PgVersion::V18] {
        let postgres = postgres(version);
        postgres.sql("postgres", "CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE other (id int)");
        let source = plain(&postgres);
        source.prepare().await.expect("prepared");
        source.published().await.expect("tables");
        postgres.sql("postgres", "ALTER SYSTEM SET synchronous_standby_names = 'nobody'");
        postgres.sql("postgres", "SELECT pg_reload_conf()");
        let mut psql = postgres.tool("psql", "postgres");
        psql.args(["-X", "-q", "-c", "ALTER TABLE t ADD COLUMN late int"]);
        let mut altering = psql.spawn().expect("start psql");
        let waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
        let began = Instant::now();
        while postgres.sql("postgres", waits) != "1" {
            assert!(began.elapsed() < Duration::from_secs(20), "it does not wait for the standby");
            std::thread::sleep(Duration::from_millis(20));
        }
        let committed: Lsn =
            postgres.sql("postgres", "SELECT pg_current_wal_flush_lsn()").parse().expect("a position");
        // Asking for a publication's tables does not wait for it.
        let let_go = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            postgres.sql("postgres", "ALTER SYSTEM RESET synchronous_standby_names");
            postgres.sql("postgres", "SELECT pg_reload_conf()");
        };
        let (tables, ()) = tokio::join!(source.published(), let_go);
        assert!(altering.wait().expect("psql").success());
        let tables = tables.expect("tables");
        let t = tables.iter().find(|table| table.name == "t").expect("t");
        assert!(t.columns.len() == 2 || t.read_at < committed, "{version:?}: {} and {committed}", t.read_at);
        assert_eq!(t.columns.len(), 1, "{version:?}: the case came about");
        let other = tables.iter().find(|table| table.name == "other").expect("other");
        assert!(other.read_at >= committed, "{version:?}: nothing was under way with the other table");
        let tables = source.published().await.expect("tables");
        let t = tables.iter().find(|table| table.name == "t").expect("t");
        assert_eq!(t.columns.len(), 2);
        assert!(t.read_at >= committed, "{version:?}: {} and {committed}", t.read_at);
    }
}
