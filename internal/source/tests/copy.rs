//! The initial copy against real servers.

mod support;

use replicator_harness::{PgOptions, PgVersion, Postgres};
use replicator_source::{CopyLimits, CopyTable, CopyWorker, ErrorKind, Snapshot, Source, SourceError};
use replicator_types::{Batch, BatchBuilder, Budget, Lsn, Op, Phase, Position, Tuple, TxnId, Value};
use std::collections::HashSet;
use std::ops::Range;
use std::time::{Duration, Instant};
use support::{Streaming, assert_says, config, plain, source};

const VERSIONS: [PgVersion; 2] = [PgVersion::V15, PgVersion::V18];
const LIMITS: CopyLimits = CopyLimits { rows_max: 1000, bytes_max: 1 << 20 };

/// A source whose publication is there, with its snapshot.
async fn taken(postgres: &Postgres) -> (Source, Snapshot) {
    let source = plain(postgres);
    let snapshot = source.snapshot().await.expect("a snapshot");
    (source, snapshot)
}

fn server(version: PgVersion, sql: &str) -> Postgres {
    let postgres = Postgres::start(version, &PgOptions::default());
    postgres.sql("postgres", sql);
    postgres
}

fn table<'a>(tables: &'a [CopyTable], name: &str) -> &'a CopyTable {
    tables.iter().find(|table| table.relation.name == name).unwrap_or_else(|| panic!("no table {name}"))
}

async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let attempt = || std::future::ready(if is_so() { Ok(()) } else { Err("not yet") });
    replicator_harness::eventually(support::PATIENCE, what, attempt).await;
}

struct Copied {
    /// Texts, or `b` and the bytes of a value in binary form; `NULL`.
    rows: Vec<Vec<String>>,
    ordinals: Vec<u64>,
}

async fn copy_range(
    snapshot: &Snapshot,
    worker: &mut CopyWorker,
    table: &CopyTable,
    part: usize,
    blocks: Range<u32>,
    changed_since: Option<u64>,
) -> Result<Copied, SourceError> {
    worker.begin(table, part, blocks, changed_since).await?;
    let mut builder = BatchBuilder::of_phase(Budget::new(64 << 20), Phase::Copy { fresh: true });
    let mut copied = Copied { rows: Vec::new(), ordinals: Vec::new() };
    while let Some(batch) = worker.next_batch(&mut builder, &snapshot.transaction(TxnId(1)), &LIMITS).await? {
        assert!(batch.len() <= LIMITS.rows_max);
        read(&batch, snapshot, &mut copied);
    }
    Ok(copied)
}

fn read(batch: &Batch, snapshot: &Snapshot, copied: &mut Copied) {
    for change in batch.changes() {
        assert_eq!((change.op, change.key_hash, change.old), (Op::Insert, 0, None));
        assert_eq!(change.position, Position::copied(snapshot.lsn(), change.position.ordinal));
        copied.ordinals.push(change.position.ordinal);
        copied.rows.push(change.new_values().map(shown).collect());
    }
}

fn shown(value: Value<'_>) -> String {
    match value {
        Value::Null => "NULL".to_owned(),
        Value::Text(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        Value::Binary(bytes) => format!("b{bytes:02x?}"),
        Value::Unchanged => panic!("an unchanged value in a copied row"),
    }
}

/// Every row of a table, in ranges of that many blocks.
async fn copy_table(snapshot: &Snapshot, worker: &mut CopyWorker, table: &CopyTable, step: u32) -> Copied {
    let mut all = Copied { rows: Vec::new(), ordinals: Vec::new() };
    for (number, part) in table.parts.iter().enumerate() {
        let mut from = 0;
        loop {
            let to = (from + step).min(part.blocks);
            let copied = copy_range(snapshot, worker, table, number, from..to, None).await.expect("a range");
            all.rows.extend(copied.rows);
            all.ordinals.extend(copied.ordinals);
            from = to;
            if from >= part.blocks {
                break;
            }
        }
    }
    assert!(all.ordinals.iter().collect::<HashSet<_>>().len() == all.ordinals.len(), "numbers are unique");
    all
}

fn int(value: &str) -> i32 {
    match value.strip_prefix("b[") {
        None => value.parse().expect("a number"),
        Some(bytes) => {
            let hex = bytes.trim_end_matches(']').replace(", ", "");
            u32::from_str_radix(&hex, 16).expect("hexadecimal digits") as i32
        }
    }
}

fn sorted_ints(copied: &Copied, column: usize) -> Vec<i32> {
    let mut ints: Vec<i32> = copied.rows.iter().map(|row| int(&row[column])).collect();
    ints.sort_unstable();
    ints
}

/// The next transactions of the stream: start of the commit record, and the first column of the rows inserted.
/// `inserts` keeps what belongs to a transaction that goes on in the next chunk.
async fn transactions(stream: &mut Streaming, inserts: &mut Vec<i32>) -> Vec<(Lsn, Vec<i32>)> {
    let mut transactions = Vec::new();
    for message in stream.transaction().await.messages {
        match message[0] {
            b'I' => {
                let (tuple, _) = Tuple::split_from(&message[6..]).expect("a tuple");
                inserts.push(shown(tuple.value(0)).parse().expect("a number"));
            }
            b'C' => {
                let commit = u64::from_be_bytes(message[2..10].try_into().expect("eight bytes"));
                transactions.push((Lsn(commit), std::mem::take(inserts)));
            }
            _ => {}
        }
    }
    transactions
}

#[tokio::test]
async fn a_snapshot_has_what_the_stream_behind_it_has_not() {
    for version in VERSIONS {
        let postgres = server(
            version,
            "CREATE TABLE t (id int PRIMARY KEY, v int NOT NULL);
             INSERT INTO t SELECT i, 0 FROM generate_series(1, 20000) i",
        );
        let first = plain(&postgres);
        first.prepare().await.expect("a slot before the snapshot");
        // Moves value from row to row, so that the sum stays what it was at any one moment, and adds rows in pairs.
        postgres.sql("postgres", "CREATE SEQUENCE s START 30000");
        let script = postgres.data_dir().join("writes.sql");
        let writes = "\\set a random(1, 20000)\n\\set b random(1, 20000)\nBEGIN;\n\
                      UPDATE t SET v = v + 1 WHERE id = :a; UPDATE t SET v = v - 1 WHERE id = :b;\n\
                      INSERT INTO t VALUES (nextval('s'), 5), (-nextval('s'), -5); COMMIT;";
        std::fs::write(&script, writes).expect("write the script");
        let running = postgres
            .start_pgbench("postgres", &["-n", "-c", "3", "-T", "4", "-f", script.to_str().expect("a path")]);
        tokio::time::sleep(std::time::Duration::from_millis(700)).await;
        let snapshot = first.snapshot().await.expect("a snapshot");
        let tables = snapshot.tables().await.expect("tables");
        let t = table(&tables, "t");
        assert_eq!(t.relation.since, snapshot.lsn());
        let mut workers = [snapshot.worker(), snapshot.worker(), snapshot.worker()];
        let mut rows = Vec::new();
        let blocks = t.parts[0].blocks;
        let mut from = 0;
        while from < blocks {
            let to = (from + 40).min(blocks);
            let worker = &mut workers[(from / 40) as usize % 3];
            rows.extend(copy_range(&snapshot, worker, t, 0, from..to, None).await.expect("a range").rows);
            from = to;
        }
        let ids: HashSet<i32> = rows.iter().map(|row| int(&row[0])).collect();
        assert_eq!(ids.len(), rows.len(), "{version:?}: each row once");
        assert_eq!(rows.iter().map(|row| i64::from(int(&row[1]))).sum::<i64>(), 0, "{version:?}");
        assert!((1..=20000).all(|id| ids.contains(&id)));
        let more = rows.len() - 20000;
        assert!(more > 0 && more.is_multiple_of(2), "{version:?}: the load was at work before: {more}");
        drop(snapshot);
        running.wait(std::time::Duration::from_secs(60));

        // The stream's inserts that commit behind the snapshot are just those that the copy has not.
        let mut stream = Streaming::begin(&first).await;
        postgres.sql("postgres", "INSERT INTO t VALUES (0, 0)");
        let lsn = t.relation.since;
        let (mut behind, mut open) = (HashSet::new(), Vec::new());
        loop {
            let transactions = transactions(&mut stream, &mut open).await;
            for (commit, inserts) in &transactions {
                for id in inserts {
                    let in_copy = ids.contains(id);
                    assert_eq!(in_copy, *commit < lsn, "{version:?}: row {id} of {commit}, snapshot {lsn}");
                }
                behind.extend(inserts.iter().copied().filter(|_| *commit >= lsn));
            }
            if behind.contains(&0) {
                break;
            }
        }
        assert!(behind.len() > 1, "{version:?}: the load was at work afterwards");
        stream.finish().await;
    }
}

#[tokio::test]
async fn a_transaction_in_flight_while_the_snapshot_is_taken_is_not_in_it_and_not_waited_for_in_silence() {
    for version in VERSIONS {
        let postgres = server(version, "CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)");
        let source = plain(&postgres);
        source.prepare().await.expect("prepared");
        let client = postgres.client("postgres").await;
        client.batch_execute("BEGIN; INSERT INTO t VALUES (2)").await.expect("an open transaction");
        let (done, snapshot) = tokio::join!(
            async {
                tokio::time::sleep(std::time::Duration::from_millis(500)).await;
                client.batch_execute("COMMIT").await
            },
            source.snapshot()
        );
        done.expect("committed");
        let snapshot = snapshot.expect("a snapshot");
        let tables = snapshot.tables().await.expect("tables");
        let copied = copy_table(&snapshot, &mut snapshot.worker(), &tables[0], 10).await;
        let in_copy = sorted_ints(&copied, 0);
        let mut stream = Streaming::begin(&source).await;
        let transactions = transactions(&mut stream, &mut Vec::new()).await;
        let (commit, inserts) = &transactions[0];
        assert_eq!(inserts, &[2]);
        assert_eq!(in_copy.contains(&2), *commit < snapshot.lsn(), "{version:?}: once, wherever");
        stream.finish().await;
    }
}

#[tokio::test]
async fn nothing_is_left_at_the_server_but_the_leader() {
    for version in VERSIONS {
        let postgres = server(version, "CREATE TABLE t (id int PRIMARY KEY)");
        postgres.sql("postgres", "CREATE PUBLICATION replicator FOR TABLE t");
        let (_source, snapshot) = taken(&postgres).await;
        until("the temporary slot is gone", || {
            postgres.sql("postgres", "SELECT count(*) FROM pg_replication_slots") == "0"
        })
        .await;
        assert!(snapshot.is_alive() && snapshot.xmin() > 0 && snapshot.taken_at_us() > 0);
        let idle = "SELECT count(*) FROM pg_stat_activity WHERE state = 'idle in transaction'";
        assert_eq!(postgres.sql("postgres", idle), "1");
        drop(snapshot);
        until("the leader is gone", || postgres.sql("postgres", idle) == "0").await;
    }
}

#[tokio::test]
async fn a_table_that_was_rewritten_or_altered_since_is_noticed() {
    for version in VERSIONS {
        let cases = [
            ("truncated", "TRUNCATE truncated"),
            ("retyped", "ALTER TABLE retyped ALTER v TYPE bigint"),
            ("relabeled", "ALTER TABLE relabeled ALTER w TYPE text"),
            ("vacuumed", "VACUUM FULL vacuumed"),
            ("narrowed", "ALTER TABLE narrowed DROP COLUMN v"),
            ("replaced", "ALTER TABLE replaced DROP COLUMN v; ALTER TABLE replaced ADD COLUMN v int"),
            ("renamed", "ALTER TABLE renamed RENAME COLUMN v TO x"),
            ("moved", "ALTER TABLE moved RENAME TO elsewhere"),
            ("dropped", "DROP TABLE dropped"),
            ("remade", "DROP TABLE remade; CREATE TABLE remade (id int PRIMARY KEY, v int, w varchar(5))"),
            ("widened", "ALTER TABLE widened ADD COLUMN x int DEFAULT 7"),
            ("untouched", "SELECT 1"),
        ];
        let postgres = Postgres::start(version, &PgOptions::default());
        for (name, _) in cases {
            let sql = format!(
                "CREATE TABLE {name} (id int PRIMARY KEY, v int, w varchar(5));
                 INSERT INTO {name} SELECT i, i FROM generate_series(1, 10) i"
            );
            postgres.sql("postgres", &sql);
        }
        postgres.sql("postgres", "CREATE PUBLICATION replicator FOR ALL TABLES");
        let (_source, snapshot) = taken(&postgres).await;
        let tables = snapshot.tables().await.expect("tables");
        for (_, change) in cases {
            for statement in change.split(';') {
                postgres.sql("postgres", statement);
            }
        }
        let mut worker = snapshot.worker();
        for (name, _) in cases {
            let outcome = copy_range(&snapshot, &mut worker, table(&tables, name), 0, 0..1, None).await;
            match (name, outcome) {
                ("untouched" | "widened", Ok(copied)) => {
                    assert_eq!(copied.rows.len(), 10, "{version:?} {name}");
                    assert_eq!(copied.rows[0].len(), 3);
                }
                ("untouched" | "widened", Err(error)) => panic!("{version:?} {name}: {error}"),
                (_, Ok(copied)) => panic!("{version:?} {name}: {} rows", copied.rows.len()),
                (_, Err(error)) => {
                    assert!(error.is_stale_snapshot(), "{version:?} {name}: {error}");
                    assert_eq!(error.kind(), ErrorKind::Retry);
                    assert!(error.to_string().contains(name), "{error}");
                }
            }
        }
    }
}

#[tokio::test]
async fn a_snapshot_whose_session_has_ended_is_told_from_a_broken_connection() {
    for version in VERSIONS {
        let postgres = server(version, "CREATE TABLE t (id int PRIMARY KEY)");
        postgres.sql("postgres", "CREATE PUBLICATION replicator FOR TABLE t");
        let (_source, snapshot) = taken(&postgres).await;
        let tables = snapshot.tables().await.expect("tables");
        let end = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE state = 'idle in transaction'";
        assert_eq!(postgres.sql("postgres", end), "1");
        let gone = "SELECT count(*) FROM pg_stat_activity WHERE state = 'idle in transaction'";
        until("the leader is gone", || postgres.sql("postgres", gone) == "0").await;
        let error = snapshot.worker().begin(&tables[0], 0, 0..0, None).await.expect_err("no snapshot");
        assert!(error.is_stale_snapshot(), "{version:?}: {error}");
        until("it is noticed", || !snapshot.is_alive()).await;
    }
}

#[tokio::test]
async fn partitions_are_copied_through_their_root_or_by_themselves_as_published() {
    for version in VERSIONS {
        let postgres = server(
            version,
            r#"CREATE TABLE parts (id int, day date, v text, PRIMARY KEY (id, day)) PARTITION BY RANGE (day);
               CREATE TABLE parts_2025 PARTITION OF parts FOR VALUES FROM ('2025-01-01') TO ('2026-01-01')
                 PARTITION BY HASH (id);
               CREATE TABLE "Half 0" PARTITION OF parts_2025 FOR VALUES WITH (MODULUS 2, REMAINDER 0);
               CREATE TABLE "Half 1" PARTITION OF parts_2025 FOR VALUES WITH (MODULUS 2, REMAINDER 1);
               CREATE TABLE other (v text, gone int, day date NOT NULL, id int NOT NULL);
               ALTER TABLE other DROP COLUMN gone;
               ALTER TABLE parts ATTACH PARTITION other FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
               CREATE EXTENSION postgres_fdw;
               CREATE SERVER away FOREIGN DATA WRAPPER postgres_fdw;
               CREATE TABLE parent (id int PRIMARY KEY); CREATE TABLE child (x int) INHERITS (parent);
               INSERT INTO parent VALUES (1); INSERT INTO child VALUES (2, 2);
               INSERT INTO parts SELECT i, date '2025-06-01' + (i % 2) * 300, 'x' || i FROM generate_series(1, 100) i;
               CREATE PUBLICATION replicator FOR TABLE parts, ONLY parent WITH (publish_via_partition_root)"#,
        );
        let (source, snapshot) = taken(&postgres).await;
        let tables = snapshot.tables().await.expect("tables");
        let names: Vec<&str> = tables.iter().map(|table| table.relation.name.as_str()).collect();
        assert_eq!(names, ["parent", "parts"]);
        let parts = table(&tables, "parts");
        let leaves: Vec<&str> = parts.parts.iter().map(|part| part.sql_name.as_str()).collect();
        assert_eq!(leaves, ["public.\"Half 0\"", "public.\"Half 1\"", "public.other"]);
        let copied = copy_table(&snapshot, &mut snapshot.worker(), parts, 10).await;
        assert_eq!(sorted_ints(&copied, 0), (1..=100).collect::<Vec<_>>(), "{version:?}");
        assert!(copied.rows.iter().all(|row| row[2] == format!("x{}", int(&row[0]))), "columns go by name");
        let parent = copy_table(&snapshot, &mut snapshot.worker(), table(&tables, "parent"), 10).await;
        assert_eq!(sorted_ints(&parent, 0), [1], "a child's rows are its own");

        postgres.sql("postgres", "ALTER PUBLICATION replicator SET (publish_via_partition_root = false)");
        let snapshot = source.snapshot().await.expect("a snapshot");
        let tables = snapshot.tables().await.expect("tables");
        let names: Vec<&str> = tables.iter().map(|table| table.relation.name.as_str()).collect();
        assert_eq!(names, ["Half 0", "Half 1", "other", "parent"]);
        let mut worker = snapshot.worker();
        let mut rows = 0;
        for table in &tables {
            assert_eq!(table.parts.len(), 1);
            rows += copy_table(&snapshot, &mut worker, table, 10).await.rows.len();
        }
        assert_eq!(rows, 101, "{version:?}");
    }
}

#[tokio::test]
async fn row_filters_column_lists_and_generated_columns_are_honoured() {
    for version in VERSIONS {
        let postgres = server(
            version,
            r#"CREATE TABLE t (id int PRIMARY KEY, hidden int, "Mixed ""case" text, twice int GENERATED ALWAYS AS (id * 2) STORED);
               INSERT INTO t SELECT i, i, CASE WHEN i % 2 = 0 THEN 'a' ELSE NULL END FROM generate_series(1, 10) i;
               CREATE TABLE made (id int PRIMARY KEY, twice int GENERATED ALWAYS AS (id * 2) STORED);
               INSERT INTO made VALUES (4);
               CREATE PUBLICATION replicator FOR TABLE t (id, "Mixed ""case") WHERE (id > 5 OR id = 1), made"#,
        );
        if version == PgVersion::V18 {
            postgres.sql("postgres", "ALTER PUBLICATION replicator SET (publish_generated_columns = stored)");
        }
        let (_source, snapshot) = taken(&postgres).await;
        let tables = snapshot.tables().await.expect("tables");
        let t = table(&tables, "t");
        assert!(t.row_filter.as_deref().is_some_and(|filter| filter.contains("id > 5")));
        let mut worker = snapshot.worker();
        let copied = copy_table(&snapshot, &mut worker, t, 10).await;
        assert_eq!(sorted_ints(&copied, 0), [1, 6, 7, 8, 9, 10], "{version:?}");
        let first = &copied.rows[0];
        assert_eq!((first.len(), first[1].as_str()), (2, "NULL"));
        let made = copy_table(&snapshot, &mut worker, table(&tables, "made"), 10).await;
        let expected: &[i32] = if version == PgVersion::V18 { &[4, 8] } else { &[4] };
        assert_eq!(made.rows[0].iter().map(|value| int(value)).collect::<Vec<_>>(), expected);
    }
}

#[tokio::test]
async fn tables_of_any_width_and_none_are_copied() {
    for version in VERSIONS {
        let columns: Vec<String> = (1..=1600).map(|i| format!("c{i} bool")).collect();
        let postgres = server(
            version,
            &format!(
                "CREATE TABLE wide ({}); INSERT INTO wide (c1, c1600) VALUES (true, false);
                 CREATE TABLE empty (id int PRIMARY KEY, v text);
                 CREATE TABLE nothing (); INSERT INTO nothing DEFAULT VALUES; INSERT INTO nothing DEFAULT VALUES;
                 CREATE TABLE large (id int PRIMARY KEY, v text);
                 INSERT INTO large VALUES (1, repeat('x', 20000000)), (2, 'y');
                 CREATE PUBLICATION replicator FOR ALL TABLES",
                columns.join(", ")
            ),
        );
        let (_source, snapshot) = taken(&postgres).await;
        let tables = snapshot.tables().await.expect("tables");
        let mut worker = snapshot.worker();
        let wide = copy_table(&snapshot, &mut worker, table(&tables, "wide"), 10).await;
        assert_eq!((wide.rows.len(), wide.rows[0].len()), (1, 1600));
        assert_ne!(wide.rows[0][0], wide.rows[0][1599]);
        assert!(wide.rows[0][1..1599].iter().all(|value| value == "NULL"));
        assert_eq!(copy_table(&snapshot, &mut worker, table(&tables, "empty"), 10).await.rows.len(), 0);
        let nothing = copy_table(&snapshot, &mut worker, table(&tables, "nothing"), 10).await;
        assert_eq!(nothing.rows, [Vec::<String>::new(), Vec::new()], "{version:?}");
        let large = copy_table(&snapshot, &mut worker, table(&tables, "large"), 10).await;
        assert_eq!(large.rows.iter().map(|row| row[1].len()).collect::<Vec<_>>(), [20_000_000, 1]);
        worker.release().await;
    }
}

/// Values that no binary form is understood of come as the stream sends them.
#[tokio::test]
async fn values_that_come_as_text_are_the_streams_texts() {
    for version in VERSIONS {
        let postgres = server(
            version,
            r#"CREATE TYPE mood AS ENUM ('so so', 'b');
               CREATE TYPE pair AS (a int, b text);
               CREATE DOMAIN pairs AS pair[];
               CREATE TABLE t (id int PRIMARY KEY, c pair, cn pair, ps pairs, r tstzrange, m int4multirange, b box,
                 i interval, p point, x xid, f tsvector, e mood, es mood[], fl float8, ts timestamptz[], bs bytea[],
                 mo money, rc regclass, j json, jp jsonpath, ch char(4), cs char(4)[], v2 int2vector, ltext text);
               CREATE PUBLICATION replicator FOR TABLE t"#,
        );
        let source = plain(&postgres);
        source.prepare().await.expect("prepared");
        postgres.sql(
            "postgres",
            r#"SET timezone = 'Asia/Tokyo'; SET intervalstyle = 'iso_8601'; SET extra_float_digits = -5;
               INSERT INTO t VALUES (1, ROW(1, 'a "b"'), ROW(NULL, NULL), ARRAY[ROW(1, NULL)::pair], '[2026-01-01,)',
                 '{[1,3),[7,9)}', '((0,0),(1.5,1))', '1 year 2 days 03:04:05.6', '(0.1,2)', '77', 'a:1 b:2', 'so so',
                 '{"so so",NULL}', 0.1, '{2026-01-01 00:00+00}', '{"\\x00ff",NULL}', '-1234.5', 't', '{"a":  1}',
                 '$.a[*]', 'ab', '{ab}', '1 2', E'\\N');
               INSERT INTO t (id) VALUES (2)"#,
        );
        let snapshot = source.snapshot().await.expect("a snapshot");
        let tables = snapshot.tables().await.expect("tables");
        let copied = copy_table(&snapshot, &mut snapshot.worker(), &tables[0], 10).await;
        let mut stream = Streaming::begin(&source).await;
        let mut streamed = stream.transaction().await.inserts();
        if streamed.len() < 2 {
            streamed.extend(stream.transaction().await.inserts());
        }
        stream.finish().await;
        for (copied, streamed) in copied.rows.iter().zip(&streamed) {
            for ((copied, streamed), column) in copied.iter().zip(streamed).zip(&tables[0].relation.columns) {
                if !copied.starts_with("b[") {
                    assert_eq!(copied, streamed, "{version:?} {}", column.name);
                }
            }
        }
        assert_eq!(copied.rows.len(), 2);
        assert_eq!(copied.rows[0][2], "(,)", "a composite of NULLs is not NULL");
    }
}

#[tokio::test]
async fn what_changed_since_a_snapshot_is_found_and_little_else() {
    for version in VERSIONS {
        let postgres = server(
            version,
            "CREATE TABLE t (id int PRIMARY KEY, v text);
             INSERT INTO t SELECT i, rpad('', 100, 'x') FROM generate_series(1, 5000) i;
             VACUUM FREEZE t",
        );
        let first = {
            postgres.sql("postgres", "CREATE PUBLICATION replicator FOR TABLE t");
            taken(&postgres).await.1
        };
        let since = first.xmin();
        drop(first);
        postgres.sql("postgres", "UPDATE t SET v = 'new' WHERE id IN (7, 4000)");
        postgres.sql("postgres", "INSERT INTO t VALUES (6000, 'new')");
        postgres.sql("postgres", "DELETE FROM t WHERE id = 9");
        // Also when what is new is frozen by now.
        postgres.sql("postgres", "VACUUM FREEZE t");
        let source = plain(&postgres);
        let second = source.snapshot().await.expect("a snapshot");
        let tables = second.tables().await.expect("tables");
        let blocks = tables[0].parts[0].blocks;
        let changed = |since| {
            let (second, table) = (&second, &tables[0]);
            async move {
                let mut worker = second.worker();
                let copied = copy_range(second, &mut worker, table, 0, 0..blocks, since).await.expect("rows");
                sorted_ints(&copied, 0)
            }
        };
        assert_eq!(changed(Some(since)).await, [7, 4000, 6000], "{version:?}");
        assert_eq!(changed(None).await.len(), 5000);
        assert_eq!(changed(Some(second.xmin() + 1_000_000)).await.len(), 5000, "of another history: all");
    }
}

#[tokio::test]
async fn rows_that_a_policy_would_hide_are_an_error_that_names_the_remedy() {
    for version in VERSIONS {
        let postgres = server(
            version,
            "CREATE ROLE reader LOGIN REPLICATION;
             CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1);
             ALTER TABLE t ENABLE ROW LEVEL SECURITY; CREATE POLICY none ON t USING (false);
             CREATE TABLE forbidden (id int PRIMARY KEY);
             GRANT SELECT ON t TO reader;
             CREATE PUBLICATION replicator FOR TABLE t, forbidden",
        );
        let source = source(config(postgres.url_as("reader", "postgres", "sslmode=disable")));
        let snapshot = source.snapshot().await.expect("a snapshot");
        let tables = snapshot.tables().await.expect("tables");
        let refused = |name: &'static str| {
            let (snapshot, table) = (&snapshot, table(&tables, name));
            async move {
                copy_range(snapshot, &mut snapshot.worker(), table, 0, 0..1, None)
                    .await
                    .err()
                    .expect("a refusal")
            }
        };
        let error = refused("t").await;
        assert_eq!(error.kind(), ErrorKind::Halt);
        assert_says(&error.to_string(), &["public.t", "row-level security", "BYPASSRLS"]);
        assert_says(&refused("forbidden").await.to_string(), &["public.forbidden", "GRANT SELECT"]);
    }
}

#[tokio::test]
async fn a_range_left_in_the_middle_or_dropped_while_it_waits_does_not_spoil_the_next() {
    let postgres = server(
        PgVersion::V15,
        "CREATE TABLE t (id int PRIMARY KEY, v text);
         INSERT INTO t SELECT i, rpad('', 1000, 'x') FROM generate_series(1, 50000) i;
         CREATE PUBLICATION replicator FOR TABLE t",
    );
    let (_source, snapshot) = taken(&postgres).await;
    let tables = snapshot.tables().await.expect("tables");
    let table = &tables[0];
    let blocks = table.parts[0].blocks;
    let mut worker = snapshot.worker();
    worker.begin(table, 0, 0..blocks, None).await.expect("begun");
    let mut builder = BatchBuilder::new(Budget::new(1 << 30));
    let transaction = snapshot.transaction(TxnId(0));
    let first = worker.next_batch(&mut builder, &transaction, &LIMITS).await.expect("a batch").expect("rows");
    assert_eq!(first.len(), 1000);
    let half =
        copy_range(&snapshot, &mut worker, table, 0, 0..blocks / 2, None).await.expect("the next range");
    let again =
        copy_range(&snapshot, &mut worker, table, 0, 0..blocks / 2, None).await.expect("the same range");
    assert_eq!(half.ordinals, again.ordinals);
    assert_eq!(half.rows, again.rows);

    // Dropped again and again while it waits for the server, and called again.
    worker.begin(table, 0, 0..blocks, None).await.expect("begun");
    let (mut ids, mut drops) = (HashSet::new(), 0);
    loop {
        let next = worker.next_batch(&mut builder, &transaction, &LIMITS);
        let batch = tokio::select! {
            biased;
            batch = next => batch.expect("a batch"),
            () = tokio::task::yield_now() => {
                drops += 1;
                continue;
            }
        };
        let Some(batch) = batch else { break };
        ids.extend(batch.changes().map(|change| shown(change.new.expect("a row").value(0))));
    }
    assert_eq!(ids.len(), 50_000);
    assert!(drops > 0, "it never had to wait");
}

#[tokio::test]
async fn a_locked_table_is_busy_and_not_waited_for_for_ever() {
    let postgres = server(PgVersion::V15, "CREATE TABLE other (id int); CREATE TABLE t (id int PRIMARY KEY)");
    postgres.sql("postgres", "CREATE PUBLICATION replicator FOR TABLE t WHERE (id > 0), other");
    let (_source, snapshot) = taken(&postgres).await;
    let tables = snapshot.tables().await.expect("tables");
    let tables = [table(&tables, "t").clone()];
    let client = postgres.client("postgres").await;
    client.batch_execute("BEGIN; LOCK TABLE t IN ACCESS EXCLUSIVE MODE").await.expect("locked");
    let mut worker = snapshot.worker();
    let error = worker.begin(&tables[0], 0, 0..0, None).await.expect_err("it is locked");
    assert!(error.is_busy() && !error.is_stale_snapshot(), "{error}");
    let began = Instant::now();
    let of_locked = snapshot.tables().await.expect("tables");
    assert!(began.elapsed() < Duration::from_secs(8), "what there is to copy is known at once");
    assert!(table(&of_locked, "t").is_locked && !table(&of_locked, "other").is_locked);
    let error = worker.begin(&of_locked[1], 0, 0..0, None).await.expect_err("how large it is is not known");
    assert!(error.is_busy() && !error.is_stale_snapshot(), "{error}");
    worker.begin(&of_locked[0], 0, 0..0, None).await.expect("the other is free");
    worker.release().await;
    client.batch_execute("COMMIT").await.expect("unlocked");
    worker.begin(&tables[0], 0, 0..0, None).await.expect("it is free");
}
