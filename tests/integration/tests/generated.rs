//! Columns that the source computes and does not send are computed in the other Postgres, whatever becomes of them.

use replicator_harness::{PgVersion, Replicator, eventually_blocking};
use replicator_integration::{Sinks, World, stop, wait_for_copy};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(60);

/// A world whose publication sends no generated column, and a replicator that looks at the catalog often.
fn start(version: PgVersion, tables: &str) -> (World, Replicator) {
    let world = World::start(version);
    world.source.sql("shop", &format!("{tables}; CREATE PUBLICATION replicator FOR ALL TABLES"));
    let replicator = spawn(&world);
    wait_for_copy(&replicator);
    (world, replicator)
}

fn spawn(world: &World) -> Replicator {
    spawn_with(world, 300)
}

fn spawn_with(world: &World, catalog_interval_ms: i64) -> Replicator {
    let config = world.config().set("source.catalog_interval_ms", catalog_interval_ms);
    let mut replicator = Replicator::spawn(&config, &[]);
    replicator.wait_until_ready(SOON);
    replicator
}

/// Waits until the query gives that in the other Postgres.
fn rows_arrive(world: &World, query: &str, wanted: &str) {
    eventually_blocking(SOON, "rows", || {
        let there = world.target.sql("copy", query);
        if there == wanted { Ok(()) } else { Err(format!("{there} and not {wanted}")) }
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_source_computes_is_computed_in_postgres_whatever_becomes_of_the_columns() {
    for version in [PgVersion::V15, PgVersion::V18] {
        let (world, mut replicator) = start(
            version,
            "CREATE TABLE lines (total numeric GENERATED ALWAYS AS (price * n) STORED, id bigint PRIMARY KEY, price numeric(12,2),
                 n int, note text, shout text GENERATED ALWAYS AS (upper(note) || '!') STORED);
             INSERT INTO lines (id, price, n, note) SELECT i, i * 1.5, i, 'note ' || i FROM generate_series(1, 500) i",
        );
        let equal = async |what: &str| {
            let what = format!("Postgres {}: {what}", version.major());
            world.assert_soon_equal(&what, SOON, Sinks::All, |_, _| true).await;
        };
        equal("copied").await;
        let statements = [
            "UPDATE lines SET n = n + 1, note = note || '?' WHERE id % 3 = 0; DELETE FROM lines WHERE id > 490",
            "ALTER TABLE lines ADD COLUMN half int GENERATED ALWAYS AS (n / 2) STORED",
            "ALTER TABLE lines RENAME COLUMN n TO pieces; UPDATE lines SET pieces = 7 WHERE id = 1",
            "ALTER TABLE lines RENAME COLUMN total TO amount",
            "ALTER TABLE lines DROP COLUMN note CASCADE; UPDATE lines SET price = price + 1 WHERE id = 2",
            "ALTER TABLE lines ALTER COLUMN amount DROP EXPRESSION; UPDATE lines SET amount = -1 WHERE id < 100",
            "ALTER TABLE lines DROP COLUMN half, ALTER COLUMN pieces TYPE bigint USING pieces * 2; \
             ALTER TABLE lines ADD COLUMN half bigint GENERATED ALWAYS AS (pieces / 2) STORED; UPDATE lines SET pieces = 9 WHERE id = 3",
            "CREATE TABLE later (id int PRIMARY KEY, v text, size int GENERATED ALWAYS AS (length(v)) STORED); \
             INSERT INTO later (id, v) SELECT i, repeat('x', i) FROM generate_series(1, 50) i",
            "ALTER TABLE later ADD COLUMN a int GENERATED ALWAYS AS (id + 1) STORED, ADD COLUMN b int GENERATED ALWAYS AS (id + 2) STORED",
            // Names are exchanged, of computed ones, of sent ones, and taken over by what is sent.
            "BEGIN; ALTER TABLE later RENAME a TO c; ALTER TABLE later RENAME b TO a; ALTER TABLE later RENAME c TO b; COMMIT",
            "ALTER TABLE later ADD COLUMN w int; UPDATE later SET w = id * 3; \
             ALTER TABLE later ADD COLUMN s int GENERATED ALWAYS AS (id * 10 + w) STORED",
            "BEGIN; ALTER TABLE later RENAME id TO z; ALTER TABLE later RENAME w TO id; ALTER TABLE later RENAME z TO w; COMMIT; \
             UPDATE later SET id = id + 1 WHERE w = 7",
            "ALTER TABLE later DROP COLUMN a; ALTER TABLE later ADD COLUMN a int; UPDATE later SET a = w",
            "ALTER TABLE later DROP COLUMN b; ALTER TABLE later RENAME COLUMN a TO b; UPDATE later SET b = -w WHERE w < 9",
            "ALTER TABLE lines RENAME TO positions; UPDATE positions SET pieces = 11 WHERE id = 4",
            "ALTER TABLE positions DROP COLUMN half",
        ];
        let of_18 = [
            "ALTER TABLE later ADD COLUMN twice text GENERATED ALWAYS AS (v || v) VIRTUAL",
            "ALTER TABLE later ALTER COLUMN size SET EXPRESSION AS (length(v) * 10); UPDATE later SET v = 'y' WHERE id = 5",
            // From now on they are sent, and so they are no less there.
            "ALTER PUBLICATION replicator SET (publish_generated_columns = stored); UPDATE later SET v = 'z' WHERE id = 6",
        ];
        let of_18 = if version == PgVersion::V18 { &of_18[..] } else { &[] };
        for (number, statement) in statements.iter().chain(of_18).enumerate() {
            let is_away = number % 3 == 2;
            if is_away {
                replicator.kill9();
            }
            world.source.sql("shop", statement);
            if is_away {
                replicator = spawn(&world);
            }
            equal(statement).await;
        }
        let made = "SELECT count(*) FROM pg_attribute WHERE attrelid = 'later'::regclass AND attname = 'size' AND attgenerated = 's'";
        assert_eq!(world.target.sql("copy", made), if version == PgVersion::V18 { "0" } else { "1" });
        stop(&mut replicator, SOON);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expression_that_the_target_cannot_have_leaves_its_column_out_and_says_so() {
    let (world, mut replicator) = start(
        PgVersion::V17,
        "CREATE FUNCTION tax(n int) RETURNS int IMMUTABLE LANGUAGE sql RETURN n / 5;
         CREATE TABLE t (id int PRIMARY KEY, n int, tax int GENERATED ALWAYS AS (public.tax(n)) STORED,
             twice int GENERATED ALWAYS AS (n * 2) STORED);
         INSERT INTO t (id, n) SELECT i, i * 10 FROM generate_series(1, 20) i",
    );
    replicator.wait_for_line("a generated column is left out in the target", SOON);
    world.source.sql("shop", "UPDATE t SET n = n + 1");
    let columns = "SELECT string_agg(attname, ',' ORDER BY attnum) FROM pg_attribute
                   WHERE attrelid = 't'::regclass AND attnum > 0 AND NOT attisdropped";
    assert_eq!(world.target.sql("copy", columns), "id,n,twice");
    let rows = "SELECT string_agg(concat_ws(':', id, n, twice), ' ' ORDER BY id) FROM t";
    rows_arrive(&world, rows, &world.source.sql("shop", rows));
    // With the function there it comes, with the next start.
    world.target.sql("copy", "CREATE FUNCTION tax(n int) RETURNS int IMMUTABLE LANGUAGE sql RETURN n / 5");
    stop(&mut replicator, SOON);
    let replicator = spawn(&world);
    world.assert_soon_equal("with the function", SOON, Sinks::Postgres, |_, _| true).await;
    drop(replicator);
}

#[tokio::test(flavor = "multi_thread")]
async fn computed_columns_stand_where_the_source_has_them() {
    for (version, kind) in [(PgVersion::V15, "STORED"), (PgVersion::V18, "VIRTUAL")] {
        let world = World::start(version);
        let create = |name: &str| {
            format!(
                "CREATE TABLE {name} (id int PRIMARY KEY, twice int GENERATED ALWAYS AS (n * 2) {kind}, n int,
                     low text GENERATED ALWAYS AS (lower(word)) {kind}, word text);
                 INSERT INTO {name} (id, n, word) VALUES (1, 2, 'A')"
            )
        };
        let order = |database: &dyn Fn(&str) -> String, name: &str| {
            database(&format!(
                "SELECT string_agg(attname, ',' ORDER BY attnum) FROM pg_attribute
                 WHERE attrelid = '{name}'::regclass AND attnum > 0 AND NOT attisdropped"
            ))
        };
        world.source.sql("shop", &create("first"));
        let config = world.config().set("source.catalog_interval_ms", 200);
        let mut replicator = Replicator::spawn(&config, &[]);
        replicator.wait_until_ready(SOON);
        world.source.sql("shop", &create("second"));
        world.source.sql("shop", "INSERT INTO second (id, n, word) VALUES (2, 3, 'B')");
        world.assert_soon_equal("computed", SOON, Sinks::All, |_, _| true).await;
        for name in ["first", "second"] {
            assert_eq!(order(&|sql| world.target.sql("copy", sql), name), "id,twice,n,low,word", "{name}");
        }
        stop(&mut replicator, SOON);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn columns_that_somebody_made_in_the_target_are_left_alone() {
    let world = World::start(PgVersion::V17);
    let plain = "CREATE TABLE t (id int PRIMARY KEY, n int";
    world.source.sql(
        "shop",
        &format!(
            "{plain}, a int GENERATED ALWAYS AS (n * 2) STORED, b int GENERATED ALWAYS AS (n * 3) STORED);
             INSERT INTO t (id, n) SELECT i, i FROM generate_series(1, 10) i; CREATE PUBLICATION replicator FOR ALL TABLES"
        ),
    );
    world
        .target
        .sql("copy", &format!("{plain}, a int GENERATED ALWAYS AS (n * 20) STORED, b int DEFAULT 7)"));
    let mut replicator = spawn(&world);
    wait_for_copy(&replicator);
    world.source.sql("shop", "UPDATE t SET n = n + 1 WHERE id = 1; ALTER TABLE t DROP COLUMN a, DROP COLUMN b; INSERT INTO t VALUES (11, 11)");
    let rows =
        "SELECT string_agg(concat_ws(':', id, n, a, b), ' ' ORDER BY id) FROM t WHERE id IN (1, 2, 11)";
    rows_arrive(&world, rows, "1:2:40:7 2:2:40:7 11:11:220:7");
    stop(&mut replicator, SOON);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expression_that_fails_for_a_row_of_the_stream_holds_nothing_up() {
    let (world, mut replicator) = start(
        PgVersion::V15,
        "CREATE TABLE t (id int PRIMARY KEY, n int, share int GENERATED ALWAYS AS (100 / n) STORED,
             twice int GENERATED ALWAYS AS (n * 2) STORED);
         INSERT INTO t (id, n) SELECT i, i FROM generate_series(1, 20) i",
    );
    world.assert_soon_equal("copied", SOON, Sinks::All, |_, _| true).await;
    stop(&mut replicator, SOON);
    let mut replicator = spawn_with(&world, 0);
    // The column is gone at the source, and no look at the catalog tells.
    world
        .source
        .sql("shop", "BEGIN; ALTER TABLE t DROP COLUMN share; UPDATE t SET n = 0 WHERE id < 5; COMMIT");
    world.assert_soon_equal("without the column", SOON, Sinks::WithoutPostgres, |_, _| true).await;
    let rows = "SELECT string_agg(concat_ws(':', id, n), ' ' ORDER BY id) FROM t";
    rows_arrive(&world, rows, &world.source.sql("shop", rows));
    replicator.wait_for_line("a row was refused while they were there", SOON);
    assert_eq!(
        replicator.metrics().sum("replicator_tables_set_aside", &[]),
        Some(0.0),
        "{}",
        replicator.stderr()
    );
    stop(&mut replicator, SOON);
    let replicator = spawn(&world);
    world.assert_soon_equal("after another start", SOON, Sinks::All, |_, _| true).await;
    drop(replicator);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_depends_on_a_computed_column_in_the_target_is_let_be_where_others_change() {
    let (world, mut replicator) = start(
        PgVersion::V17,
        "CREATE TABLE t (id int PRIMARY KEY, n int, gone int, twice int GENERATED ALWAYS AS (n * 2) STORED,
             of_gone int GENERATED ALWAYS AS (gone + 1) STORED);
         INSERT INTO t (id, n, gone) SELECT i, i, i FROM generate_series(1, 20) i",
    );
    world.assert_soon_equal("copied", SOON, Sinks::All, |_, _| true).await;
    world.target.sql("copy", "CREATE VIEW seen AS SELECT id, twice FROM t; CREATE INDEX ON t (twice)");
    world.source.sql("shop", "ALTER TABLE t DROP COLUMN gone CASCADE; UPDATE t SET n = n + 1");
    world.assert_soon_equal("others", SOON, Sinks::All, |_, _| true).await;
    assert_eq!(
        world.target.sql("copy", "SELECT sum(twice) FROM seen"),
        world.source.sql("shop", "SELECT sum(twice) FROM t")
    );
    stop(&mut replicator, SOON);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_of_columns_leaves_out_what_is_computed_from_others_and_copies_nothing_twice() {
    let world = World::start(PgVersion::V17);
    world.source.sql(
        "shop",
        "CREATE TABLE t (id int PRIMARY KEY, n int, secret int, twice int GENERATED ALWAYS AS (n * 2) STORED,
             told int GENERATED ALWAYS AS (secret * 2) STORED);
         INSERT INTO t (id, n, secret) SELECT i, i, i FROM generate_series(1, 20) i;
         CREATE PUBLICATION replicator FOR TABLE t (id, n)",
    );
    let mut replicator = spawn(&world);
    wait_for_copy(&replicator);
    replicator.wait_for_line("a generated column is left out in the target", SOON);
    world.source.sql("shop", "ALTER TABLE t ADD COLUMN more int; UPDATE t SET n = n + 1, more = 1");
    let rows = |row: &str| format!("SELECT string_agg({row}::text, ' ' ORDER BY id) FROM t");
    let (there, wanted) = (rows("t"), rows("ROW(id, n, twice)"));
    rows_arrive(&world, &there, &world.source.sql("shop", &wanted));
    // A few looks at the catalog later.
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(
        replicator.metrics().sum("replicator_copy_rows_total", &[]),
        Some(20.0),
        "{}",
        replicator.stderr()
    );
    stop(&mut replicator, SOON);
}

/// Its text there would be that of what it is cast from.
#[tokio::test(flavor = "multi_thread")]
async fn a_computed_column_of_a_type_that_goes_as_text_is_left_out() {
    let (world, mut replicator) = start(
        PgVersion::V15,
        "CREATE TABLE t (id int PRIMARY KEY, o oid, r regclass GENERATED ALWAYS AS (o) STORED, twice int GENERATED ALWAYS AS (id * 2) STORED);
         INSERT INTO t VALUES (1, 1259)",
    );
    let line = replicator.wait_for_line("a generated column is left out in the target", SOON);
    assert!(line.contains("regclass") && line.contains("public.t"), "{line}");
    world.source.sql("shop", "INSERT INTO t VALUES (2, 1255)");
    rows_arrive(&world, "SELECT string_agg(t::text, ' ' ORDER BY id) FROM t", "(1,1259,2) (2,1255,4)");
    stop(&mut replicator, SOON);
}
