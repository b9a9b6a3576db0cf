//! The stream: what comes out of the reader, what the server learns, and how it ends.

mod support;

use replicator_harness::{PgOptions, PgVersion, Postgres, Proxy, eventually};
use replicator_source::{ErrorKind, SourceError};
use replicator_types::{Budget, Lsn};
use std::time::{Duration, Instant};
use support::{PATIENCE, Streaming, assert_says, bodies, config, last_keepalive, plain, source};

const ORDERS: &str = "CREATE TABLE orders (id int PRIMARY KEY, note text)";

/// Reads until the stream ends, acknowledging keepalives as a pipeline with nothing to do does.
async fn read_to_the_end(streaming: &mut Streaming) -> SourceError {
    let work = async {
        loop {
            match streaming.reader.next_chunk().await {
                Ok(chunk) => {
                    if let Some(at) = last_keepalive(&chunk.bytes) {
                        streaming.watermark.send_replace(at);
                    }
                }
                Err(error) => return error,
            }
        }
    };
    tokio::time::timeout(PATIENCE, work).await.expect("the stream's end")
}

fn confirmed(postgres: &Postgres) -> Lsn {
    postgres.sql("postgres", "SELECT confirmed_flush_lsn FROM pg_replication_slots").parse().expect("an LSN")
}

#[tokio::test]
async fn a_transaction_comes_whole_with_the_catalogs_entries_of_its_tables() {
    for version in [PgVersion::V15, PgVersion::V17, PgVersion::V18] {
        let postgres = Postgres::start(version, &PgOptions::default());
        postgres.sql("postgres", ORDERS);
        let source = plain(&postgres);
        source.prepare().await.unwrap();
        let mut streaming = Streaming::begin(&source).await;
        postgres.sql("postgres", "INSERT INTO orders VALUES (1, 'a'), (2, NULL)");
        let transaction = streaming.transaction().await;
        let kinds: Vec<u8> = transaction.messages.iter().map(|message| message[0]).collect();
        assert_eq!(kinds, b"BRIIC");
        assert_eq!(transaction.inserts(), [["1", "a"], ["2", "NULL"]]);
        let [orders] = transaction.catalogs.as_slice() else { panic!("{:?}", transaction.catalogs) };
        assert_eq!((orders.schema.as_str(), orders.name.as_str()), ("public", "orders"));
        assert_eq!(orders.primary_key, ["id"]);

        // Told once, and again when it has changed.
        postgres.sql("postgres", "INSERT INTO orders VALUES (3, 'c')");
        assert_eq!(streaming.transaction().await.catalogs, []);
        postgres.sql(
            "postgres",
            "ALTER TABLE orders ADD COLUMN extra int; INSERT INTO orders VALUES (4, 'd', 5)",
        );
        let changed = streaming.transaction().await;
        assert_eq!(changed.catalogs[0].columns.len(), 3);
        assert_eq!(changed.inserts(), [["4", "d", "5"]]);
        streaming.finish().await;
    }
}

#[tokio::test]
async fn a_table_that_is_gone_by_then_has_no_entry() {
    let postgres = Postgres::start(PgVersion::V15, &PgOptions::default());
    postgres.sql("postgres", ORDERS);
    let source = plain(&postgres);
    source.prepare().await.unwrap();
    postgres.sql("postgres", "INSERT INTO orders VALUES (1, 'a'); DROP TABLE orders");
    let mut streaming = Streaming::begin(&source).await;
    let transaction = streaming.transaction().await;
    assert_eq!(transaction.inserts(), [["1", "a"]]);
    assert_eq!(transaction.catalogs, []);
    streaming.finish().await;
}

#[tokio::test]
async fn the_text_of_a_value_depends_on_nobodys_settings() {
    for version in [PgVersion::V15, PgVersion::V18] {
        let postgres = Postgres::start(version, &PgOptions::default());
        postgres.sql(
            "postgres",
            "CREATE SCHEMA side; CREATE TABLE side.\"Odd\" (id int PRIMARY KEY);
             CREATE TABLE v (id int PRIMARY KEY, at timestamptz, day date, i interval, f float8, g float4, b bytea,
                             m money, r regclass, t regtype, e xml);
             ALTER DATABASE postgres SET datestyle = 'German';
             ALTER DATABASE postgres SET timezone = 'Asia/Kolkata';
             ALTER DATABASE postgres SET intervalstyle = 'iso_8601';
             ALTER DATABASE postgres SET bytea_output = 'escape';
             ALTER DATABASE postgres SET extra_float_digits = -5;
             ALTER DATABASE postgres SET search_path = 'side', 'public';
             ALTER DATABASE postgres SET quote_all_identifiers = on;
             ALTER ROLE postgres SET client_encoding = 'LATIN1';
             ALTER DATABASE postgres SET statement_timeout = '1s'",
        );
        let source = plain(&postgres);
        source.prepare().await.unwrap();
        let mut streaming = Streaming::begin(&source).await;
        postgres.sql(
            "postgres",
            r#"SET client_encoding = 'UTF8';
              INSERT INTO public.v VALUES (1, '2026-03-18 12:00:00.123456+00', '2026-03-18', '1 year 2 days 03:04:05',
                1.0 / 3, 1.0 / 3, '\x00ff41', 1234.5, 'side."Odd"', 'timestamptz', '<ä>€</ä>')"#,
        );
        assert_eq!(
            streaming.transaction().await.inserts(),
            [[
                "1",
                "2026-03-18 12:00:00.123456+00",
                "2026-03-18",
                "1 year 2 days 03:04:05",
                "0.3333333333333333",
                "0.33333334",
                "\\x00ff41",
                "$1,234.50",
                "side.\"Odd\"",
                "timestamp with time zone",
                "<ä>€</ä>"
            ]],
            "{version:?}"
        );
        streaming.finish().await;
    }
}

#[tokio::test]
async fn what_is_acknowledged_is_the_watermark_and_nothing_beyond_it() {
    let postgres = Postgres::start(PgVersion::V15, &PgOptions::default());
    postgres.sql("postgres", ORDERS);
    let source = plain(&postgres);
    let prepared = source.prepare().await.unwrap();
    let mut streaming = Streaming::begin(&source).await;
    postgres.sql("postgres", "INSERT INTO orders VALUES (1, 'a')");
    let first = streaming.transaction().await.end();
    postgres.sql("postgres", "INSERT INTO orders VALUES (2, 'b')");
    let second = streaming.transaction().await.end();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(confirmed(&postgres), prepared.confirmed_flush, "received is not durable");

    let sent = Instant::now();
    streaming.watermark.send_replace(first);
    let at = |lsn: Lsn| {
        let postgres = &postgres;
        eventually(PATIENCE, "the slot moves", move || async move {
            let now = confirmed(postgres);
            if now == lsn { Ok(()) } else { Err(format!("{now}, not {lsn}")) }
        })
    };
    at(first).await;
    assert!(sent.elapsed() < Duration::from_secs(5), "without waiting for the interval of 10 s");
    // A lower watermark, as after a mistake, changes nothing.
    streaming.watermark.send_replace(Lsn(first.0 - 100));
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(confirmed(&postgres), first);

    let status = source.slot_status().await.unwrap();
    assert_eq!(status.confirmed_flush, Some(first));
    assert!(status.active_pid.is_some() && status.wal_end >= second);
    assert_eq!(status.retained_bytes, status.wal_end.bytes_since(status.restart_lsn.unwrap()));
    assert_eq!(status.wal_status.as_deref(), Some("reserved"));

    // The last word counts, and a new stream begins behind it.
    streaming.watermark.send_replace(second);
    streaming.finish().await;
    at(second).await;
    eventually(PATIENCE, "prepared", || async { plain(&postgres).prepare().await.map(drop) }).await;
    source.prepare().await.unwrap();
    let mut streaming = Streaming::begin(&source).await;
    postgres.sql("postgres", "INSERT INTO orders VALUES (3, 'c')");
    assert_eq!(streaming.transaction().await.inserts(), [["3", "c"]]);
    streaming.finish().await;
    assert!(!postgres.log().contains("unexpected EOF"), "goodbyes are said");
}

#[tokio::test]
async fn a_reader_that_stands_still_is_not_taken_for_dead() {
    for version in [PgVersion::V15, PgVersion::V18] {
        let postgres = Postgres::start(version, &PgOptions::default().setting("wal_sender_timeout", "2s"));
        postgres.sql("postgres", ORDERS);
        let source = plain(&postgres);
        assert_eq!(source.prepare().await.unwrap().wal_sender_timeout_ms, 2_000);
        let mut streaming = Streaming::begin(&source).await;
        // The keepalive that every stream begins with.
        drop(streaming.chunk().await);
        // The budget is full of other things, and the socket will be, too.
        let others = streaming.budget.charge(support::BUDGET_BYTES);
        postgres.sql(
            "postgres",
            "INSERT INTO orders SELECT i, rpad('', 200, 'x') FROM generate_series(1, 100000) i",
        );
        let pid = || postgres.sql("postgres", "SELECT pid FROM pg_stat_replication");
        let before = pid();
        assert!(!before.is_empty());
        let still = tokio::time::timeout(Duration::from_secs(7), streaming.reader.next_chunk()).await;
        assert!(still.is_err(), "nothing is read while the budget is full");
        assert_eq!(pid(), before, "the connection stands");
        drop(others);
        assert_eq!(streaming.transaction().await.inserts().len(), 100_000);
        streaming.finish().await;
    }
}

#[tokio::test]
async fn bytes_are_charged_until_the_chunk_is_dropped() {
    let postgres = Postgres::start(PgVersion::V15, &PgOptions::default());
    postgres.sql("postgres", ORDERS);
    let source = plain(&postgres);
    source.prepare().await.unwrap();
    let mut streaming = Streaming::begin(&source).await;
    postgres.sql("postgres", "INSERT INTO orders VALUES (1, 'a')");
    let chunk = streaming.chunk().await;
    assert_eq!(chunk.charge.bytes(), chunk.bytes.len());
    assert_eq!(streaming.budget.held(), chunk.bytes.len());
    drop(chunk);
    assert_eq!(streaming.budget.held(), 0);
    streaming.finish().await;
}

#[tokio::test]
async fn a_call_that_is_dropped_loses_nothing() {
    let postgres = Postgres::start(PgVersion::V15, &PgOptions::default());
    postgres.sql("postgres", &format!("{ORDERS}; CREATE TABLE more (id int PRIMARY KEY)"));
    let source = plain(&postgres);
    source.prepare().await.unwrap();
    let mut streaming = Streaming::begin(&source).await;
    postgres.sql(
        "postgres",
        "BEGIN; INSERT INTO orders SELECT i, rpad(i::text, 100, 'x') FROM generate_series(1, 30000) i;
         INSERT INTO more SELECT generate_series(1, 1000);
         INSERT INTO orders SELECT i, rpad(i::text, 100, 'x') FROM generate_series(30001, 60000) i; COMMIT",
    );
    let mut transaction = support::Transaction::default();
    let mut dropped = 0;
    while !transaction.messages.iter().any(|message| message[0] == b'C') {
        // From never having begun to hardly ever finished.
        let patience = Duration::from_micros(dropped % 50 * 100);
        tokio::select! {
            biased;
            chunk = streaming.reader.next_chunk() => {
                let chunk = chunk.unwrap();
                transaction.messages.extend(support::plugin_messages(&chunk.bytes));
                transaction.catalogs.extend(chunk.catalogs);
            }
            () = tokio::time::sleep(patience) => dropped += 1,
        }
        assert!(dropped < 100_000);
    }
    assert!(dropped > 5, "calls were dropped");
    let expected: Vec<String> =
        (1..=30_000).chain(1..=1000).chain(30_001..=60_000).map(|id: i32| id.to_string()).collect();
    let ids: Vec<String> = transaction.inserts().into_iter().map(|row| row[0].clone()).collect();
    assert_eq!(ids, expected);
    assert_eq!(transaction.catalogs.len(), 2);
    streaming.finish().await;
}

#[tokio::test]
async fn a_value_far_larger_than_the_buffer_comes_in_one_piece() {
    let postgres = Postgres::start(PgVersion::V15, &PgOptions::default());
    postgres.sql("postgres", ORDERS);
    let source = plain(&postgres);
    source.prepare().await.unwrap();
    let mut streaming = Streaming::begin(&source).await;
    postgres.sql("postgres", "INSERT INTO orders VALUES (1, repeat('0123456789', 3000000)), (2, 'small')");
    let rows = streaming.transaction().await.inserts();
    assert_eq!(rows[0][1].len(), 30_000_000);
    assert_eq!(rows[1], ["2", "small"]);
    streaming.finish().await;
}

#[tokio::test]
async fn when_idle_the_current_position_is_passed_on_request() {
    for version in [PgVersion::V15, PgVersion::V18] {
        let postgres = Postgres::start(version, &PgOptions::default());
        postgres.sql("postgres", &format!("{ORDERS}; CREATE TABLE other (id int PRIMARY KEY)"));
        let mut config = config(postgres.url("postgres"));
        config.tables = replicator_config::TablePatterns(vec!["orders".into()]);
        let source = source(config);
        source.prepare().await.unwrap();
        let mut streaming = Streaming::begin(&source).await;
        postgres.sql("postgres", "INSERT INTO other SELECT generate_series(1, 1000)");
        let before: Lsn = postgres.sql("postgres", "SELECT pg_current_wal_insert_lsn()").parse().unwrap();
        let target = source.current_lsn().await.unwrap();
        assert!(target >= before);
        let mut at = Lsn::ZERO;
        while at < target {
            streaming.handle.request_reply();
            // A server that is not there yet says so at once; asking again is right.
            let chunk = streaming.chunk().await;
            at = at.max(last_keepalive(&chunk.bytes).unwrap_or_default());
            assert!(bodies(&chunk.bytes).iter().all(|body| body[0] == b'k' || b"BCM".contains(&body[25])));
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        streaming.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_restarts_is_connected_to_again() {
    for version in [PgVersion::V15, PgVersion::V18] {
        let postgres = std::sync::Arc::new(Postgres::start(version, &PgOptions::default()));
        postgres.sql("postgres", ORDERS);
        let source = plain(&postgres);
        source.prepare().await.unwrap();
        for stop in [Postgres::stop_fast, Postgres::stop_immediate, Postgres::kill9] {
            let mut streaming = Streaming::begin(&source).await;
            let stopping = std::sync::Arc::clone(&postgres);
            let stopping = tokio::task::spawn_blocking(move || stop(&stopping));
            let error = read_to_the_end(&mut streaming).await;
            stopping.await.unwrap();
            assert_eq!(error.kind(), ErrorKind::Retry, "{error}");
            assert_says(&error.to_string(), &["slot replicator"]);
            let again = streaming.reader.next_chunk().await.err();
            assert_eq!(again.as_ref(), Some(&error), "it stays ended");
            postgres.start_again();
            eventually(PATIENCE, "prepared", || async { source.prepare().await.map(drop) }).await;
        }
        postgres.sql("postgres", "INSERT INTO orders VALUES (1, 'a')");
        let mut streaming = Streaming::begin(&source).await;
        assert_eq!(streaming.transaction().await.inserts(), [["1", "a"]]);
        // The connection for SQL was broken, too, and is made anew.
        assert!(source.slot_status().await.is_ok());
        streaming.finish().await;
    }
}

#[tokio::test]
async fn a_connection_that_is_cut_or_ended_by_somebody_is_tried_again() {
    let postgres = Postgres::start(PgVersion::V15, &PgOptions::default());
    postgres.sql("postgres", ORDERS);
    let proxy = Proxy::start(postgres.address());
    let source = source(config(proxy.rewrite(&postgres.url("postgres"))));
    source.prepare().await.unwrap();
    let mut streaming = Streaming::begin(&source).await;
    proxy.cut();
    assert_eq!(read_to_the_end(&mut streaming).await.kind(), ErrorKind::Retry);
    let feedback = tokio::time::timeout(PATIENCE, async {
        streaming.watermark.send_replace(Lsn::MAX);
        streaming.handle.request_reply();
        // The first write after the cut may still go into the void.
        loop {
            if streaming.feedback.is_finished() {
                return (&mut streaming.feedback).await.unwrap();
            }
            streaming.handle.request_reply();
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    assert_eq!(feedback.await.unwrap().unwrap_err().kind(), ErrorKind::Retry);

    eventually(PATIENCE, "prepared", || async { source.prepare().await.map(drop) }).await;
    let mut streaming = Streaming::begin(&source).await;
    postgres.sql("postgres", "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots");
    let error = read_to_the_end(&mut streaming).await;
    assert_eq!(error.kind(), ErrorKind::Retry);
    assert_says(&error.to_string(), &["57P01"]);
}

#[tokio::test]
async fn a_publication_or_slot_that_is_gone_needs_a_person() {
    let postgres = Postgres::start(PgVersion::V15, &PgOptions::default());
    postgres.sql("postgres", ORDERS);
    let source = plain(&postgres);
    source.prepare().await.unwrap();
    let mut streaming = Streaming::begin(&source).await;
    postgres.sql("postgres", "DROP PUBLICATION replicator; INSERT INTO orders VALUES (1, 'a')");
    let error = read_to_the_end(&mut streaming).await;
    assert_eq!(error.kind(), ErrorKind::Halt, "{error}");
    assert_says(&error.to_string(), &["42704", "publication replicator", "pg_drop_replication_slot"]);

    let drop = "SELECT pg_drop_replication_slot('replicator')";
    eventually(PATIENCE, "the slot is dropped", || async { postgres.try_sql("postgres", drop) }).await;
    let error = source.stream(Lsn::ZERO, Budget::new(1)).await.expect_err("no slot");
    assert_eq!(error.kind(), ErrorKind::Halt);
    assert_says(&error.to_string(), &["42704", "slot replicator"]);
    assert_eq!(source.slot_status().await.unwrap_err().kind(), ErrorKind::Halt);
}

#[tokio::test]
async fn a_stream_of_another_cluster_does_not_begin() {
    let (first, second) = (
        Postgres::start(PgVersion::V15, &PgOptions::default()),
        Postgres::start(PgVersion::V15, &PgOptions::default()),
    );
    for postgres in [&first, &second] {
        postgres.sql("postgres", ORDERS);
        plain(postgres).prepare().await.unwrap();
    }
    // libpq's lists of hosts make it possible: the first goes away between the two calls.
    let hosts = format!("127.0.0.1:{},127.0.0.1:{}", first.port(), second.port());
    let source = source(config(format!("postgres://postgres@{hosts}/postgres?sslmode=disable")));
    source.prepare().await.unwrap();
    first.stop_fast();
    let error = source.stream(Lsn::ZERO, Budget::new(1)).await.expect_err("another cluster");
    assert_eq!(error.kind(), ErrorKind::Retry);
    assert_says(&error.to_string(), &["cluster"]);
}
