//! What a publication publishes is found out without a lock on any of its tables, and is what the server says.

mod support;

use replicator_harness::{PgOptions, PgVersion, Postgres};
use replicator_source::Source;
use replicator_types::{Lsn, TableCatalog};
use std::sync::Arc;
use std::time::{Duration, Instant};
use support::{Streaming, config, failures, plain, source};

/// Whatever waits for a lock waits for longer: `lock_timeout` is ten seconds.
const AT_ONCE: Duration = Duration::from_secs(8);

const ZOO: &str = "
CREATE SCHEMA s; CREATE SCHEMA \"An \"\"other\";
CREATE TABLE plain (id int PRIMARY KEY, a int, b text);
CREATE TABLE shrunk (x int, gone int, id int PRIMARY KEY); ALTER TABLE shrunk DROP gone;
CREATE TABLE nothing ();
CREATE TABLE made (id int PRIMARY KEY, twice int GENERATED ALWAYS AS (id * 2) STORED, z int);
CREATE TABLE only_made (twice int GENERATED ALWAYS AS (2) STORED);
CREATE UNLOGGED TABLE unlogged (id int);
CREATE VIEW seen AS SELECT 1 AS x; CREATE MATERIALIZED VIEW stored AS SELECT 1 AS x; CREATE SEQUENCE counted;
CREATE TABLE parent (id int); CREATE TABLE child (more int) INHERITS (parent);
CREATE TABLE s.t (id int PRIMARY KEY, v text); CREATE TABLE \"An \"\"other\".\"T t\" (\"I d\" int);
CREATE FOREIGN DATA WRAPPER none; CREATE SERVER nowhere FOREIGN DATA WRAPPER none;
CREATE FOREIGN TABLE far (id int) SERVER nowhere;
CREATE TABLE p (k int, l int, v text) PARTITION BY LIST (k);
CREATE TABLE p1 PARTITION OF p FOR VALUES IN (1);
CREATE TABLE p2 (v text, l int, k int) PARTITION BY LIST (l);
CREATE TABLE p21 PARTITION OF p2 FOR VALUES IN (1); CREATE TABLE s.p22 PARTITION OF p2 FOR VALUES IN (2);
ALTER TABLE p ATTACH PARTITION p2 FOR VALUES IN (2);
CREATE TABLE p3 PARTITION OF p FOR VALUES IN (3);
CREATE UNLOGGED TABLE p4 PARTITION OF p FOR VALUES IN (4);
CREATE FOREIGN TABLE p5 PARTITION OF p FOR VALUES IN (5) SERVER nowhere;
CREATE TABLE p6 PARTITION OF p FOR VALUES IN (6) PARTITION BY LIST (l);
CREATE TABLE s.q (k int, l int) PARTITION BY LIST (k);
CREATE TABLE s.q1 PARTITION OF s.q FOR VALUES IN (1);
CREATE TABLE q2 PARTITION OF s.q FOR VALUES IN (2) PARTITION BY LIST (l);
CREATE TABLE s.q21 PARTITION OF q2 FOR VALUES IN (1); CREATE TABLE q22 PARTITION OF q2 FOR VALUES IN (2);
";

/// What a publication is for, in either mode.
const TARGETS: &[&str] = &[
    "",
    "FOR ALL TABLES",
    "FOR TABLE plain",
    "FOR TABLE plain (id, b), shrunk (id), s.t",
    "FOR TABLE plain WHERE (a > 1 AND b <> 'x'), made",
    "FOR TABLE plain (id, a) WHERE (id > 1), \"An \"\"other\".\"T t\" (\"I d\")",
    "FOR TABLE nothing, only_made, made, shrunk",
    "FOR TABLE parent",
    "FOR TABLE ONLY parent",
    "FOR TABLE p",
    "FOR TABLE p, p1",
    "FOR TABLE p, p2, s.p22, p3",
    "FOR TABLE p2",
    "FOR TABLE p2, p21",
    "FOR TABLE p21, p3, p6",
    "FOR TABLE p2, p1 (k, v), s.p22 (l, k) WHERE (k > 1)",
    "FOR TABLE p3, s.q",
    "FOR TABLE s.q, q2, q22",
    "FOR TABLES IN SCHEMA s",
    "FOR TABLES IN SCHEMA public",
    "FOR TABLES IN SCHEMA s, \"An \"\"other\"",
    "FOR TABLES IN SCHEMA s, TABLE plain, q2, p",
    "FOR TABLES IN SCHEMA s, TABLE plain WHERE (a > 1), s.t WHERE (id > 1)",
];

/// What a publication can only be for when it publishes roots.
const OF_ROOTS: &[&str] = &[
    "FOR TABLE p (k, v)",
    "FOR TABLE p (k) WHERE (k > 1), p1 (l, k), p21 WHERE (k = 2)",
    "FOR TABLE p WHERE (k < 3), s.q (l)",
];

/// What one can only be for since generated columns are sent.
const SINCE_18: &[&str] = &["FOR TABLE made (id, twice), p3", "FOR TABLE made (twice)"];

/// Of each table its name, the columns that are sent and its row filter.
type Published = Vec<(String, Vec<String>, Option<String>)>;

/// Before 18 no generated column is sent; 15 lists them all the same.
async fn by_the_view(client: &tokio_postgres::Client, version: PgVersion, publication: &str) -> Published {
    let query = "SELECT format('%s.%s', schemaname, tablename), attnames::text[], rowfilter
                 FROM pg_publication_tables WHERE pubname = $1 ORDER BY schemaname, tablename";
    let rows = client.query(query, &[&publication]).await.expect("the view");
    let columns = |row: &tokio_postgres::Row| {
        let mut columns: Vec<String> = row.get::<_, Option<_>>(1).unwrap_or_default();
        columns.retain(|column| version == PgVersion::V18 || column != "twice");
        columns
    };
    rows.iter().map(|row| (row.get(0), columns(row), row.get(2))).collect()
}

fn publishing(postgres: &Postgres, publication: &str) -> Source {
    let mut config = config(postgres.url("postgres"));
    publication.clone_into(&mut config.publication);
    source(config)
}

fn names(columns: &[replicator_types::Column]) -> Vec<String> {
    columns.iter().map(|column| column.name.clone()).collect()
}

#[tokio::test]
async fn a_publication_has_the_tables_columns_and_filters_that_the_server_says_it_has() {
    for version in PgVersion::ALL {
        let postgres = Postgres::start(version, &PgOptions::default());
        postgres.sql("postgres", ZOO);
        let client = postgres.client("postgres").await;
        client.batch_execute("CREATE TEMP TABLE passing (id int)").await.expect("made");
        if version == PgVersion::V18 {
            client
                .batch_execute("ALTER TABLE made ADD unreal int GENERATED ALWAYS AS (id * 3) VIRTUAL")
                .await
                .unwrap();
        }
        let mut made = Vec::new();
        let modes = ["publish_via_partition_root = false", "publish_via_partition_root = true"];
        for (mode, targets) in [(modes[0], TARGETS), (modes[1], TARGETS), (modes[1], OF_ROOTS)] {
            for target in targets {
                made.push(format!("{target} WITH ({mode})"));
            }
        }
        if version == PgVersion::V18 {
            let sent: Vec<String> = made
                .iter()
                .map(|of| of.replace(" = true)", " = true, publish_generated_columns = stored)"))
                .collect();
            made.extend(sent);
            made.extend(SINCE_18.iter().map(|target| format!("{target} WITH ({})", modes[0])));
        }
        for (number, of) in made.iter().enumerate() {
            let statement = format!("CREATE PUBLICATION z{number} {of}");
            client.batch_execute(&statement).await.unwrap_or_else(|error| panic!("{statement}: {error:?}"));
        }
        // A partition on its way out: only what waits for those who still see it is left to be done.
        let other = postgres.client("postgres").await;
        other.batch_execute("BEGIN; LOCK TABLE ONLY p, p3 IN ACCESS SHARE MODE").await.expect("locked");
        client.batch_execute("SET statement_timeout = 500").await.expect("set");
        let detach = "ALTER TABLE p DETACH PARTITION p3 CONCURRENTLY";
        client.batch_execute(detach).await.expect_err("somebody reads it");
        client.batch_execute("SET statement_timeout = 0").await.expect("set");
        other.batch_execute("COMMIT").await.expect("let go");
        let pending = "SELECT count(*) FROM pg_inherits WHERE inhdetachpending";
        assert_eq!(postgres.sql("postgres", pending), "1", "{version:?}");
        let mut tables_seen = 0;
        for (number, of) in made.iter().enumerate() {
            let name = format!("z{number}");
            let wanted = by_the_view(&client, version, &name).await;
            tables_seen += wanted.len();
            let source = publishing(&postgres, &name);
            let tables = source.tables().await.expect("tables");
            let found: Vec<_> = tables
                .iter()
                .map(|table| (format!("{}.{}", table.schema, table.name), names(&table.columns)))
                .collect();
            let unfiltered: Vec<_> =
                wanted.iter().map(|(name, columns, _)| (name.clone(), columns.clone())).collect();
            assert_eq!(found, unfiltered, "{version:?} {of}");
            if wanted.iter().any(|(_, _, filter)| filter.is_some()) {
                let snapshot = source.snapshot().await.expect("a snapshot");
                let copied = snapshot.tables().await.expect("tables");
                let found: Published = copied
                    .iter()
                    .map(|table| {
                        let relation = &table.relation;
                        let name = format!("{}.{}", relation.schema, relation.name);
                        (name, names(&relation.columns), table.row_filter.clone())
                    })
                    .collect();
                assert_eq!(found, wanted, "{version:?} {of}");
            }
        }
        assert!(tables_seen > 150, "{version:?}: {tables_seen}");
    }
}

fn table<'a>(tables: &'a [TableCatalog], name: &str) -> &'a TableCatalog {
    tables.iter().find(|table| table.name == name).unwrap_or_else(|| panic!("no table {name}"))
}

fn expressions(table: &TableCatalog) -> Vec<&str> {
    table.generated.iter().map(|generated| generated.expression.as_str()).collect()
}

/// What holds whoever has `locked` locked.
fn assert_read(version: PgVersion, tables: &[TableCatalog]) {
    let locked = table(tables, "locked");
    assert_eq!(names(&locked.columns), ["id", "d"], "{version:?}");
    assert_eq!(locked.columns[1].default_sql.as_deref(), Some("5"), "{version:?}");
    assert!(!locked.knows_generated(), "{version:?}");
    let free = table(tables, "free");
    assert_eq!(expressions(free), ["(id * 2)"], "{version:?}");
    assert!(free.knows_generated() && free.read_at > Lsn::ZERO, "{version:?}");
    let root = table(tables, "root");
    assert_eq!(root.storage.leaves.len(), 2, "{version:?}");
    assert_eq!(root.read_at, Lsn::ZERO, "{version:?}: whether a partition came with rows is not known");
}

#[tokio::test]
async fn a_table_that_somebody_has_locked_holds_up_no_look_at_the_catalog() {
    for version in PgVersion::ALL {
        let postgres = Postgres::start(version, &PgOptions::default());
        postgres.sql(
            "postgres",
            "CREATE TABLE free (id int PRIMARY KEY, twice int GENERATED ALWAYS AS (id * 2) STORED);
             CREATE TABLE locked (id int PRIMARY KEY, d int DEFAULT 5, twice int GENERATED ALWAYS AS (id * 2) STORED);
             CREATE TABLE root (k int) PARTITION BY LIST (k); CREATE TABLE leaf PARTITION OF root FOR VALUES IN (1);
             CREATE TABLE come (k int); INSERT INTO come VALUES (2);
             ALTER TABLE root ATTACH PARTITION come FOR VALUES IN (2);
             CREATE PUBLICATION replicator FOR TABLE free, locked, root WITH (publish_via_partition_root = true)",
        );
        let source = plain(&postgres);
        source.prepare().await.expect("prepared");
        source.published().await.expect("tables");
        postgres.sql("postgres", "INSERT INTO locked VALUES (1); INSERT INTO free VALUES (1)");
        let reader = postgres.client("postgres").await;
        let lock = "BEGIN; LOCK TABLE locked, leaf, come IN ACCESS EXCLUSIVE MODE";
        // Once they are locked, and once somebody waits for the lock, behind whom everybody else waits.
        for is_granted in [true, false] {
            let locker = Arc::new(postgres.client("postgres").await);
            let mut waiting = None;
            if is_granted {
                locker.batch_execute(lock).await.expect("locked");
            } else {
                reader.batch_execute("BEGIN; LOCK TABLE locked IN ACCESS SHARE MODE").await.expect("read");
                locker
                    .batch_execute("BEGIN; LOCK TABLE leaf, come IN ACCESS EXCLUSIVE MODE")
                    .await
                    .expect("locked");
                let locker = Arc::clone(&locker);
                waiting = Some(tokio::spawn(async move {
                    locker.batch_execute("LOCK TABLE locked IN ACCESS EXCLUSIVE MODE").await
                }));
                let waits = "SELECT count(*) FROM pg_locks WHERE NOT granted";
                let attempt = || {
                    std::future::ready(if postgres.sql("postgres", waits) == "1" { Ok(()) } else { Err("") })
                };
                replicator_harness::eventually(support::PATIENCE, "it waits for the lock", attempt).await;
            }
            let began = Instant::now();
            let another = plain(&postgres);
            assert_read(version, &another.tables().await.expect("tables"));
            assert_read(version, &another.prepare().await.expect("prepared").tables);
            assert_read(version, &another.published().await.expect("published"));
            assert_read(version, &another.published().await.expect("published again"));
            let known = source.published().await.expect("what was known before is known");
            assert!(known.iter().all(TableCatalog::knows_generated), "{version:?}");
            let items = another.check().await;
            assert_eq!(failures(&items), [] as [String; 0], "{version:?}");
            if is_granted {
                let mut stream = Streaming::begin(&another).await;
                let told = stream.transaction().await.catalogs;
                assert!(!table(&told, "locked").columns.is_empty());
                stream.finish().await;
            }
            assert!(began.elapsed() < AT_ONCE, "{version:?}: {:?}", began.elapsed());
            if let Some(waiting) = waiting {
                reader.batch_execute("COMMIT").await.expect("let go");
                waiting.await.expect("the waiting task").expect("locked at last");
            }
            locker.batch_execute("COMMIT").await.expect("let go");
            let tables = another.published().await.expect("published");
            assert_eq!(expressions(table(&tables, "locked")), ["(id * 2)"], "{version:?}");
            assert!(
                tables.iter().all(|table| table.knows_generated() && table.read_at > Lsn::ZERO),
                "{version:?}"
            );
            let leaves = &table(&tables, "root").storage.leaves;
            assert_eq!(leaves.iter().filter(|leaf| leaf.came_empty).count(), 1, "{version:?}");
        }
    }
}
