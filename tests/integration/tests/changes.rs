//! Every way a row can change, through all three sinks at once, with crashes in between.

use replicator_harness::{PgVersion, Replicator, eventually_blocking};
use replicator_integration::{Supervisor, Table, World, drain};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(60);

/// A value of 20 kB that does not compress: stored out of line, and not sent when an update leaves it alone.
const BIG: &str = "(SELECT string_agg(md5(random()::text), '') FROM generate_series(1, 640))";

const DOCUMENTS: Table = Table { name: "documents", key: &["id"] };
const PAIRS: Table = Table { name: "pairs", key: &["a", "b"] };
const AMOUNTS: Table = Table { name: "amounts", key: &["amount"] };
const PARENTS: Table = Table { name: "parents", key: &["id"] };
const CHILDREN: Table = Table { name: "children", key: &["id"] };
const FULL: Table = Table { name: "full_rows", key: &["id"] };
const ODD: Table = Table { name: "Odd \"name\"", key: &["select"] };
const KINDS: Table = Table { name: "kinds", key: &["id"] };

const SCHEMA: &str = r#"
    CREATE TABLE documents (id bigint PRIMARY KEY, title text, body text, n int);
    CREATE TABLE pairs (a int, b text, v text, PRIMARY KEY (a, b));
    CREATE TABLE amounts (amount numeric PRIMARY KEY, v text);
    CREATE TABLE parents (id int PRIMARY KEY);
    CREATE TABLE children (id int PRIMARY KEY, parent int REFERENCES parents);
    CREATE TABLE full_rows (id int PRIMARY KEY, body text, n int);
    ALTER TABLE full_rows REPLICA IDENTITY FULL;
    CREATE TABLE "Odd ""name""" ("select" int PRIMARY KEY, "a b" text, "`back\tick`" text);
    CREATE TABLE kinds (id int PRIMARY KEY, flag boolean, small smallint, big bigint, price numeric(12,2),
        any_numeric numeric, real4 real, real8 double precision, code char(5), name varchar(20), note text,
        raw bytea, day date, at_time time, stamp timestamp, stamp_tz timestamptz, span interval, u uuid,
        doc json, docb jsonb, addr inet, words text[] NOT NULL DEFAULT '{}', numbers int[] NOT NULL DEFAULT '{}');
"#;

/// One round of changes; `r` numbers it.
fn round(r: u32) -> String {
    let base = r * 1000;
    format!(
        r#"
        -- Values that are not sent again: alone, after a key change, twice in a transaction.
        INSERT INTO documents SELECT {base} + n, 'title ' || n, {BIG} || n, 0 FROM generate_series(1, 20) n;
        UPDATE documents SET n = n + 1 WHERE id > {base};
        UPDATE documents SET title = 'changed', n = n + 1 WHERE id % 3 = 0;
        UPDATE documents SET id = id + 500 WHERE id BETWEEN {base} + 5 AND {base} + 8;
        BEGIN; UPDATE documents SET id = id + 100 WHERE id = {base} + 2;
               UPDATE documents SET n = 77 WHERE id = {base} + 102; COMMIT;
        UPDATE documents SET body = NULL WHERE id = {base} + 3;
        DELETE FROM documents WHERE id = {base} + 4;
        INSERT INTO documents VALUES ({base} + 4, 'again', {BIG}, 1);
        -- A swap of two keys in one transaction.
        INSERT INTO pairs VALUES ({r}, 'x', 'first'), ({r}, 'y', 'second');
        BEGIN; UPDATE pairs SET b = 'tmp' WHERE a = {r} AND b = 'x';
               UPDATE pairs SET b = 'x' WHERE a = {r} AND b = 'y';
               UPDATE pairs SET b = 'y' WHERE a = {r} AND b = 'tmp'; COMMIT;
        -- Equal keys of different spelling.
        INSERT INTO amounts VALUES ({r}.5, 'a'), ({r}.25, 'b');
        UPDATE amounts SET amount = {r}.50, v = 'respelled' WHERE amount = {r}.5;
        DELETE FROM amounts WHERE amount = {r}.250;
        -- TRUNCATE over two tables, with rows before and after.
        INSERT INTO parents VALUES ({r}); INSERT INTO children VALUES ({r}, {r});
        BEGIN; TRUNCATE parents CASCADE; INSERT INTO parents VALUES ({r} + 100); COMMIT;
        INSERT INTO children VALUES ({r} + 1, {r} + 100);
        TRUNCATE children; INSERT INTO children VALUES ({r} + 2, NULL);
        -- The whole old row comes along.
        INSERT INTO full_rows SELECT {base} + n, {BIG}, n FROM generate_series(1, 5) n;
        UPDATE full_rows SET n = n * 10 WHERE id > {base};
        UPDATE full_rows SET id = id + 500 WHERE id = {base} + 1;
        DELETE FROM full_rows WHERE id = {base} + 2;
        INSERT INTO "Odd ""name""" VALUES ({r}, E'tab\there', '\N'), (-{r}, '', NULL);
        UPDATE "Odd ""name""" SET "a b" = E'line\nbreak \\ back' WHERE "select" = {r};
        INSERT INTO kinds VALUES ({base}, true, -32768, 9223372036854775807, -1234567890.12,
            12345678901234567890.123456789, 1.5e-10, -0.1, 'ab', 'vär', 'ünïcode ✓', '\x00ff5c27', '2026-11-21',
            '23:59:59.999999', '2026-11-21 12:34:56.789', '2026-11-21 12:34:56+02', '1 mon 2 days 03:04:05',
            'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', '{{"a" : 1}}', '{{"b": [1, 2.50, null]}}', '10.0.0.1/8',
            ARRAY['a', 'b c', '"q"'], ARRAY[1, 2, NULL]);
        INSERT INTO kinds (id) VALUES ({base} + 1);
        UPDATE kinds SET words = '{{}}', numbers = '{{}}', note = '' WHERE id = {base} + 1;
        "#
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn every_way_a_row_can_change_arrives_in_every_sink_through_kills_and_restarts() {
    for version in [PgVersion::V15, PgVersion::V18] {
        let world = World::start(version);
        world.source.sql("shop", SCHEMA);
        let config = world.config();
        let supervisor = Supervisor::start(&config);
        eventually_blocking(SOON, "ready", || if supervisor.is_ready() { Ok(()) } else { Err("not ready") });
        for r in 1..=8 {
            world.source.sql("shop", &round(r));
            match r {
                2 | 5 | 6 => supervisor.kill9(),
                3 => world.clickhouse.kill9(),
                4 => {
                    world.clickhouse.start_again();
                    world.target.stop_immediate();
                    world.target.start_again();
                }
                7 => {
                    world.source.stop_immediate();
                    world.source.start_again();
                }
                _ => std::thread::sleep(Duration::from_millis(300)),
            }
        }
        supervisor.stop();
        drain(&config);
        world.assert_equal(&[DOCUMENTS, PAIRS, AMOUNTS, PARENTS, CHILDREN, FULL, KINDS]).await;
        world.assert_databases_equal(&ODD).await;
    }
}

#[test]
fn a_slot_that_is_made_anew_behind_our_back_is_not_followed_in_silence() {
    let world = World::start(PgVersion::V17);
    world.source.sql("shop", "CREATE TABLE t (id bigint PRIMARY KEY)");
    let config = world.config();
    let mut replicator = Replicator::spawn(&config, &[]);
    replicator.wait_until_ready(SOON);
    world.source.sql("shop", "INSERT INTO t SELECT generate_series(1, 10)");
    // It comes back at once: the slot goes in between.
    eventually_blocking(SOON, "the slot dropped and made anew", || {
        world.source.try_sql(
            "shop",
            "SELECT pg_terminate_backend(active_pid), pg_sleep(0.01) FROM pg_replication_slots;
             SELECT pg_drop_replication_slot('replicator')",
        )?;
        world.source.try_sql("shop", "INSERT INTO t VALUES (11)")?;
        world.source.try_sql("shop", "SELECT pg_create_logical_replication_slot('replicator', 'pgoutput')")
    });
    let status = replicator.wait(SOON);
    assert_eq!(status.code(), Some(1), "{}", replicator.stderr());
    let last = replicator.stderr().lines().last().unwrap_or_default().to_owned();
    assert!(last.contains("replicator") && (last.contains("anew") || last.contains("slot")), "{last}");
}

#[test]
fn a_slot_that_is_dropped_while_it_is_away_is_not_made_again() {
    let world = World::start(PgVersion::V15);
    world.source.sql("shop", "CREATE TABLE t (id bigint PRIMARY KEY)");
    let mut replicator = Replicator::spawn(&world.config(), &[]);
    replicator.wait_until_ready(SOON);
    // While it pauses after a failure, the slot goes.
    eventually_blocking(SOON, "the slot is dropped", || {
        world.source.try_sql(
            "shop",
            "SELECT pg_terminate_backend(active_pid), pg_sleep(0.01) FROM pg_replication_slots;
             SELECT pg_drop_replication_slot('replicator')",
        )
    });
    let status = replicator.wait(SOON);
    assert_eq!(status.code(), Some(1), "{}", replicator.stderr());
    assert_eq!(world.source.sql("shop", "SELECT count(*) FROM pg_replication_slots"), "0");
}

#[test]
fn a_slot_that_was_lost_between_two_runs_is_not_replaced_in_silence() {
    let world = World::start(PgVersion::V15);
    world.source.sql("shop", "CREATE TABLE t (id bigint PRIMARY KEY)");
    let config = world.config();
    drain(&config);
    world.source.sql("shop", "INSERT INTO t VALUES (1)");
    drain(&config);
    world.source.sql("shop", "SELECT pg_drop_replication_slot('replicator'); INSERT INTO t VALUES (2)");
    // Again and again, as a service manager starts it.
    for _ in 0..2 {
        let refused = Replicator::run_to_end(&config, &["--endpos", "current"]);
        assert_eq!(refused.status.code(), Some(1), "{}", refused.stderr);
        let last = refused.stderr.lines().last().unwrap_or_default();
        assert!(last.contains("resync --all") && last.contains("earlier slot"), "{last}");
        assert!(!refused.stderr.contains("slot made"), "{}", refused.stderr);
        assert_eq!(world.source.sql("shop", "SELECT count(*) FROM pg_replication_slots"), "0");
    }
}

#[test]
fn a_sigterm_before_the_source_is_ready_ends_with_0() {
    let world = World::start(PgVersion::V15);
    world.source.sql("shop", "CREATE TABLE t (id bigint PRIMARY KEY)");
    let mut first = Replicator::spawn(&world.config(), &[]);
    first.wait_until_ready(SOON);
    let mut waiting = Replicator::spawn(&world.config(), &[]);
    waiting.wait_for_line("in use by process", SOON);
    waiting.sigterm();
    assert_eq!(waiting.wait(Duration::from_secs(5)).code(), Some(0), "{}", waiting.stderr());
}
