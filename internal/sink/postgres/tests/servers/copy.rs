//! Initial copies: rows beside the stream, and the notes that tell how far they are.

use crate::feed::{Feed, relation, stream};
use crate::{VERSIONS, config, count, prepared, server, sink, sink_at};
use replicator_harness::{PgVersion, Postgres, Proxy};
use replicator_sink::{ErrorKind, Lane, Sink, SinkError, TableCopy};
use replicator_sink_postgres::{PostgresSink, open};
use replicator_types::{Batch, Column, ColumnKind, Lsn, Phase, Relation, Tuple, oid};
use slog::{Discard, Logger, o};
use std::sync::Arc;

const FRESH: Phase = Phase::Copy { fresh: true };
const AGAIN: Phase = Phase::Copy { fresh: false };

fn copy_of(relation: &Arc<Relation>, empty_first: bool) -> TableCopy {
    TableCopy { relation: Arc::clone(relation), snapshot: Lsn(5_000), empty_first, is_resumed: false }
}

/// A server with a prepared sink.
async fn start(version: PgVersion) -> (Postgres, PostgresSink) {
    let server = server(version);
    let sink = sink(&server);
    prepared(&sink).await.unwrap();
    (server, sink)
}

async fn send(lane: &mut Box<dyn Lane>, batch: Batch) -> Result<(), SinkError> {
    lane.prepare(Arc::new(batch)).await?.send().await
}

/// Sends it until it is in; how often that failed.
async fn insist(lane: &mut Box<dyn Lane>, batch: Batch) -> usize {
    let mut write = lane.prepare(Arc::new(batch)).await.unwrap();
    let mut failures = 0;
    while let Err(error) = write.send().await {
        assert_eq!(error.kind(), ErrorKind::Retry, "{error}");
        failures += 1;
    }
    failures
}

fn rows() -> Arc<Relation> {
    Arc::new(relation("rows", &[("*id", "bigint"), ("v", "text")]))
}

fn of_ids(relation: &Arc<Relation>, ids: std::ops::Range<u32>, lsn: u64, v: &str) -> Feed {
    let mut feed = Feed::from_lsn(lsn);
    for id in ids {
        feed.insert(relation, &[Some(&id.to_string()), Some(v)]);
    }
    feed
}

#[tokio::test]
async fn fresh_rows_are_in_once_however_often_their_batch_is_sent() {
    for version in VERSIONS {
        let (server, sink) = start(version).await;
        let keyless = Arc::new(relation("keyless", &[("id", "bigint"), ("v", "text")]));
        for table in [&rows(), &keyless] {
            assert!(sink.begin_copy(&copy_of(table, false)).await.unwrap(), "empty");
            let mut lane = sink.open_copy_lane(0, &stream()).await.unwrap();
            let mut write =
                lane.prepare(Arc::new(of_ids(table, 0..100, 4_999, "a").batch_of(FRESH))).await.unwrap();
            let mut other =
                lane.prepare(Arc::new(of_ids(table, 100..150, 5_999, "a").batch_of(FRESH))).await.unwrap();
            other.send().await.unwrap();
            write.send().await.unwrap();
            write.send().await.unwrap();
            // By another lane, as after the first one's was given up.
            let mut lane = sink.open_copy_lane(1, &stream()).await.unwrap();
            send(&mut lane, of_ids(table, 0..100, 4_999, "a").batch_of(FRESH)).await.unwrap();
            assert_eq!(count(&server, &table.name), 150);
            assert_eq!(count(&server, "replicator.copied"), 2);
            sink.end_copy(&copy_of(table, false)).await.unwrap();
            assert_eq!(count(&server, "replicator.copied"), 0);
            let analyzed = format!("SELECT reltuples FROM pg_class WHERE relname = '{}'", table.name);
            assert_eq!(server.sql("target", &analyzed), "150");
            assert!(!sink.begin_copy(&copy_of(table, false)).await.unwrap(), "not empty");
        }
        assert_eq!(count(&server, "replicator.checkpoint"), 0);
    }
}

#[tokio::test]
async fn a_copy_whose_connection_is_cut_at_any_byte_has_every_row_once() {
    let server = server(PgVersion::V18);
    let proxy = Proxy::start(server.address());
    let sink = sink_at(&proxy.rewrite(&server.url("target")), 1);
    prepared(&sink).await.unwrap();
    let log = Arc::new(relation("log", &[("n", "bigint"), ("v", "text")]));
    sink.begin_copy(&copy_of(&log, false)).await.unwrap();
    let mut lane = sink.open_copy_lane(0, &stream()).await.unwrap();
    let mut sent = 0;
    let mut next = || {
        sent += 1;
        of_ids(&log, sent..sent + 1, 5_000 + u64::from(sent), "x").batch_of(FRESH)
    };
    send(&mut lane, next()).await.unwrap();
    let mut failures = 0;
    for way in [replicator_harness::Direction::ToClient, replicator_harness::Direction::ToUpstream] {
        // The last cut of the other way may still be to come.
        failures += insist(&mut lane, next()).await;
        let before = proxy.forwarded_bytes(way);
        failures += insist(&mut lane, next()).await;
        let bytes = (proxy.forwarded_bytes(way) - before) as u32;
        for cut in (0..bytes).filter(|cut| cut % 11 == 0 || cut + 25 > bytes) {
            // The first is for a connection whose statements are prepared; of a batch that was measured too long the
            // cut comes only there.
            failures += insist(&mut lane, next()).await;
            let mut write = lane.prepare(Arc::new(next())).await.unwrap();
            proxy.cut_after(cut, way);
            while let Err(error) = write.send().await {
                assert_eq!(error.kind(), ErrorKind::Retry, "{error}");
                failures += 1;
            }
        }
    }
    assert!(failures > 30, "{failures}");
    assert_eq!(count(&server, "log"), u64::from(sent));
    assert_eq!(server.sql("target", "SELECT count(DISTINCT n) FROM log"), sent.to_string());
}

#[tokio::test]
async fn rows_that_may_be_there_replace_what_has_their_key() {
    for version in VERSIONS {
        let (server, sink) = start(version).await;
        let rows = rows();
        sink.begin_copy(&copy_of(&rows, false)).await.unwrap();
        let mut lane = sink.open_copy_lane(0, &stream()).await.unwrap();
        send(&mut lane, of_ids(&rows, 0..10, 4_999, "old").batch_of(FRESH)).await.unwrap();
        for _ in 0..2 {
            send(&mut lane, of_ids(&rows, 5..15, 7_999, "new").batch_of(AGAIN)).await.unwrap();
        }
        let sql = "SELECT v, count(*), min(id), max(id) FROM rows GROUP BY v ORDER BY v";
        assert_eq!(server.sql("target", sql), "new|10|5|14\nold|5|0|4");
        // Rows put there by somebody else are no reason to stop either.
        send(&mut lane, of_ids(&rows, 14..16, 8_999, "fresh").batch_of(FRESH)).await.unwrap();
        assert_eq!(server.sql("target", sql), "fresh|2|14|15\nnew|9|5|13\nold|5|0|4");

        let keyless = Arc::new(relation("keyless", &[("id", "bigint"), ("v", "text")]));
        sink.begin_copy(&copy_of(&keyless, false)).await.unwrap();
        let error = send(&mut lane, of_ids(&keyless, 0..1, 1, "x").batch_of(AGAIN)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Halt);
        assert!(
            error.to_string().contains("public.keyless") && error.to_string().contains("resync"),
            "{error}"
        );
    }
}

#[tokio::test]
async fn a_table_copied_again_is_emptied_first_and_forgets_the_earlier_copy() {
    for version in VERSIONS {
        let (server, sink) = start(version).await;
        let rows = rows();
        sink.begin_copy(&copy_of(&rows, false)).await.unwrap();
        let mut lane = sink.open_copy_lane(0, &stream()).await.unwrap();
        send(&mut lane, of_ids(&rows, 0..10, 4_999, "a").batch_of(FRESH)).await.unwrap();
        assert!(sink.begin_copy(&copy_of(&rows, true)).await.unwrap());
        assert_eq!(count(&server, "rows"), 0);
        // At the very positions of the copy before.
        send(&mut lane, of_ids(&rows, 0..10, 4_999, "b").batch_of(FRESH)).await.unwrap();
        assert_eq!(server.sql("target", "SELECT DISTINCT v FROM rows"), "b");

        server.sql("target", "CREATE TABLE child (id bigint REFERENCES rows)");
        let error = sink.begin_copy(&copy_of(&rows, true)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Halt);
        let text = error.to_string();
        assert!(text.contains("public.rows") && text.contains("drop the foreign keys"), "{text}");
        assert_eq!(count(&server, "rows"), 10);
    }
}

/// A tuple of values in the form of their letter: `b`, `t`, or `n` for NULL.
fn wire(values: &[(u8, &[u8])]) -> Vec<u8> {
    let mut tuple = (values.len() as u16).to_be_bytes().to_vec();
    for (kind, bytes) in values {
        tuple.push(*kind);
        if *kind != b'n' {
            tuple.extend_from_slice(&(bytes.len() as u32).to_be_bytes());
            tuple.extend_from_slice(bytes);
        }
    }
    assert!(Tuple::split_from(&tuple).is_ok());
    tuple
}

/// Types of each way there is: passed on, as text through the target's own type, arrays, enums.
fn of_all_ways() -> Arc<Relation> {
    let mut all = relation(
        "forms",
        &[
            ("*id", "integer"),
            ("n", "numeric"),
            ("b", "bytea"),
            ("j", "jsonb"),
            ("a", "integer[]"),
            ("m", "public.mood"),
            ("v", "character varying(5)"),
            ("t", "timestamp with time zone"),
        ],
    );
    let array = ColumnKind::Array { element_oid: oid::INT4, element_modifier: -1, element_is_enum: false };
    let types = [
        (oid::INT4, ColumnKind::Scalar),
        (oid::NUMERIC, ColumnKind::Scalar),
        (oid::BYTEA, ColumnKind::Scalar),
        (oid::JSONB, ColumnKind::Scalar),
        (1007, array),
        (99_999, ColumnKind::Enum),
        (oid::VARCHAR, ColumnKind::Scalar),
        (oid::TIMESTAMPTZ, ColumnKind::Scalar),
    ];
    for (column, (type_oid, kind)) in all.columns.iter_mut().zip(types) {
        *column = Column { type_oid, base_type_oid: type_oid, kind, ..column.clone() };
    }
    Arc::new(all)
}

/// `SELECT …send(…)` of a server, as bytes.
async fn sent_by(server: &Postgres, expression: &str) -> Vec<u8> {
    server.client("target").await.query_one(&format!("SELECT {expression}"), &[]).await.unwrap().get(0)
}

#[tokio::test]
async fn values_in_binary_form_arrive_the_same_as_bytes_as_text_and_row_by_row() {
    for version in VERSIONS {
        let server = server(version);
        server.sql("target", "CREATE TYPE mood AS ENUM ('sad', 'ok')");
        let sink = sink(&server);
        prepared(&sink).await.unwrap();
        let relation = of_all_ways();
        sink.begin_copy(&copy_of(&relation, false)).await.unwrap();
        let forms = [
            "numeric_send(-12345.6700)",
            "byteasend('\\x005c0aff')",
            "jsonb_send('{\"a\": [1, 2.50]}')",
            "array_send('[0:1]={1,NULL}'::int[])",
            "timestamptz_send('294276-12-31 23:59:59.999999+00')",
        ];
        let mut bytes = Vec::new();
        for form in forms {
            bytes.push(sent_by(&server, form).await);
        }
        let [n, b, j, a, t] = bytes.try_into().unwrap();
        let tuple = |id: i32| {
            wire(&[
                (b'b', &id.to_be_bytes()),
                (b'b', &n),
                (b'b', &b),
                (b'b', &j),
                (b'b', &a),
                (b't', b"ok"),
                (b't', b"a\tb\\"),
                (b'b', &t),
            ])
        };
        let nulls = |id: i32| {
            let mut values: Vec<(u8, &[u8])> = vec![(b'n', b""); 8];
            let id = id.to_be_bytes();
            values[0] = (b'b', &id);
            wire(&values)
        };
        let expected = "-12345.6700|\\x005c0aff|{\"a\": [1, 2.50]}|[0:1]={1,NULL}|ok|a\tb\\|294276-12-31 23:59:59.999999+00";
        let mut lane = sink.open_copy_lane(0, &stream()).await.unwrap();
        // Straight through; staged; and as text, since one column of the target is of another type.
        let mut feed = Feed::from_lsn(4_999);
        feed.insert_wire(&relation, tuple(1));
        feed.insert_wire(&relation, nulls(2));
        send(&mut lane, feed.batch_of(FRESH)).await.unwrap();
        feed.insert_wire(&relation, tuple(2));
        send(&mut lane, feed.batch_of(AGAIN)).await.unwrap();
        server.sql("target", "ALTER TABLE forms ALTER id TYPE bigint");
        let mut lane = sink.open_copy_lane(1, &stream()).await.unwrap();
        feed.insert_wire(&relation, tuple(3));
        feed.insert_wire(&relation, nulls(4));
        send(&mut lane, feed.batch_of(FRESH)).await.unwrap();
        // And in the stream: folded, the key once as bytes and once as text.
        let mut stream_lane = sink.open_lane(0, &stream()).await.unwrap();
        let mut feed = Feed::from_lsn(9_000);
        feed.insert_wire(&relation, tuple(5));
        feed.delete(&relation, &[Some("5"), None, None, None, None, None, None, None]);
        feed.insert_wire(&relation, tuple(6));
        crate::try_send(&mut stream_lane, feed.batch()).await.unwrap();
        let rows: Vec<String> = [1, 2, 3, 6].iter().map(|id| format!("{id}|{expected}")).collect();
        let sql = "SET timezone = 'UTC'; SELECT * FROM forms WHERE id <> 4 ORDER BY id";
        assert_eq!(
            server.sql("target", sql),
            format!("SET\n{}", rows.join("\n")).trim_start_matches("SET\n")
        );
        assert_eq!(
            server.sql("target", "SELECT num_nulls(n, b, j, a, m, v, t) FROM forms WHERE id = 4"),
            "7"
        );
    }
}

#[tokio::test]
async fn a_keyless_tables_changes_in_binary_form_find_their_rows() {
    let (server, sink) = start(PgVersion::V15).await;
    let mut log = relation("log", &[("n", "integer"), ("v", "text")]);
    (log.columns[0].type_oid, log.columns[0].base_type_oid) = (oid::INT4, oid::INT4);
    let log = Arc::new(log);
    let mut lane = sink.open_lane(0, &stream()).await.unwrap();
    let mut feed = Feed::new();
    for n in [1_i32, 2, 2] {
        feed.insert_wire(&log, wire(&[(b'b', &n.to_be_bytes()), (b't', b"x")]));
    }
    feed.delete_full(&log, &[Some("2"), Some("x")]);
    crate::send(&mut lane, &mut feed).await;
    assert_eq!(server.sql("target", "SELECT n FROM log ORDER BY n"), "1\n2");
}

#[tokio::test]
async fn broken_bytes_are_rejected_and_name_the_table() {
    let (_server, sink) = start(PgVersion::V15).await;
    let mut t = relation("t", &[("*id", "integer"), ("v", "text")]);
    (t.columns[0].type_oid, t.columns[0].base_type_oid) = (oid::INT4, oid::INT4);
    let t = Arc::new(t);
    let mut lane = sink.open_lane(0, &stream()).await.unwrap();
    let mut feed = Feed::new();
    feed.insert_wire(&t, wire(&[(b'b', &[1]), (b't', b"x")]));
    let error = crate::try_send(&mut lane, feed.batch()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Reject);
    assert!(error.to_string().contains("public.t") && error.to_string().contains("integer"), "{error}");
    sink.begin_copy(&copy_of(&t, false)).await.unwrap();
    let mut lane = sink.open_copy_lane(0, &stream()).await.unwrap();
    let mut feed = Feed::new();
    feed.insert_wire(&t, wire(&[(b'b', &[1]), (b't', b"x")]));
    let error = send(&mut lane, feed.batch_of(FRESH)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Reject, "{error}");
}

#[tokio::test]
async fn a_copy_into_a_table_that_may_not_be_made_says_so() {
    let server = server(PgVersion::V15);
    let config =
        replicator_config::PostgresSinkConfig { create_tables: false, ..config(&server.url("target")) };
    let sink = open("copy".into(), config, 1, Logger::root(Discard, o!())).unwrap();
    prepared(&sink).await.unwrap();
    let error = sink.begin_copy(&copy_of(&rows(), false)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Halt);
    assert!(
        error.to_string().contains("public.rows") && error.to_string().contains("create_tables"),
        "{error}"
    );
}

#[tokio::test]
async fn notes_are_kept_replaced_removed_and_each_stream_has_its_own() {
    for version in VERSIONS {
        let server = server(version);
        let one = sink(&server);
        assert_eq!(one.notes().await.unwrap_err().kind(), ErrorKind::Halt);
        prepared(&one).await.unwrap();
        one.put_note("copy/1", Some("half")).await.unwrap();
        one.put_note("copy/1", Some("do\\ne \u{1F980}")).await.unwrap();
        one.put_note("copy/2", Some("")).await.unwrap();
        one.put_note("copy/3", Some("x")).await.unwrap();
        one.put_note("copy/3", None).await.unwrap();
        one.put_note("never", None).await.unwrap();
        one.begin_copy(&copy_of(&rows(), false)).await.unwrap();
        let notes = one.notes().await.unwrap();
        let notes: Vec<(&str, &str)> =
            notes.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        assert_eq!(notes, [("copy/1", "do\\ne \u{1F980}"), ("copy/2", "")]);
        let other = sink(&server);
        let mut of_other_slot = stream();
        of_other_slot.identity.slot = "another".into();
        other.prepare(&of_other_slot).await.unwrap();
        assert!(other.notes().await.unwrap().is_empty());
        other.put_note("copy/1", None).await.unwrap();
        // After a restart, and after the connection was lost.
        server.restart();
        let mut again = one.notes().await;
        for _ in 0..5 {
            if again.is_err() {
                again = one.notes().await;
            }
        }
        assert_eq!(again.unwrap().len(), 2);
        assert!(one.put_note("schema/1", None).await.is_err());
    }
}
