//! Tables that are made, changed, found or refused.

use crate::feed::{Feed, SAME, relation, stream, version};
use crate::{VERSIONS, config, lane, prepared, send, server, sink, try_send};
use replicator_config::{PostgresSinkConfig, SynchronousCommit};
use replicator_harness::{PgVersion, Postgres};
use replicator_sink::{ErrorKind, Sink, SinkError, StreamInfo};
use replicator_sink_postgres::open;
use replicator_types::{Lsn, Relation};
use slog::{Discard, Logger, o};
use std::sync::Arc;

/// What `prepare` says to a table.
async fn prepare(server: &Postgres, relation: Relation, create_tables: bool) -> Result<(), SinkError> {
    let config = PostgresSinkConfig { create_tables, ..config(&server.url("target")) };
    let sink = open("copy".into(), config, 1, Logger::root(Discard, o!())).unwrap();
    sink.prepare(&StreamInfo { tables: vec![Arc::new(relation)], ..stream() }).await
}

#[tokio::test]
async fn an_absent_table_is_made_with_its_schema_key_and_not_null() {
    for version in VERSIONS {
        let server = server(version);
        let mut table = relation(
            "Order \"Lines\"",
            &[("*order", "bigint"), ("*select", "text"), ("Größe", "numeric(12,2)"), ("a.b", "text[]")],
        );
        table.schema = "Odd Schema".into();
        table.key_text_is_identity = true;
        prepare(&server, table.clone(), true).await.unwrap();
        prepare(&server, table.clone(), true).await.unwrap();
        let mut lane = lane(&server).await;
        let table = Arc::new(table);
        let mut feed = Feed::new();
        feed.insert(&table, &[Some("1"), Some("it's"), Some("1.5"), Some("{\"a\\\\\",\"b\"}")]);
        feed.insert(&table, &[Some("2"), Some("\\N"), None, SAME.filter(|_| false)]);
        send(&mut lane, &mut feed).await;
        feed.update(&table, &[Some("1"), Some("it's"), Some("2.5"), SAME]);
        feed.update(&table, &[Some("2"), Some("\\N"), Some("3"), Some("{}")]);
        feed.delete(&table, &[Some("3"), Some("\t\n\r\\"), None, None]);
        send(&mut lane, &mut feed).await;
        let rows = server.sql("target", "TABLE \"Odd Schema\".\"Order \"\"Lines\"\"\" ORDER BY 1");
        assert_eq!(rows, "1|it's|2.50|{\"a\\\\\",b}\n2|\\N|3.00|{}");
        let key = "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE contype = 'p' \
                   AND conrelid = '\"Odd Schema\".\"Order \"\"Lines\"\"\"'::regclass";
        assert_eq!(server.sql("target", key), "PRIMARY KEY (\"order\", \"select\")");
    }
}

#[tokio::test]
async fn a_new_version_of_a_table_brings_its_new_columns() {
    for version in VERSIONS {
        let server = server(version);
        let mut lane = lane(&server).await;
        let first = Arc::new(relation("t", &[("*id", "bigint"), ("a", "text")]));
        let mut second = relation("t", &[("*id", "bigint"), ("new", "text"), ("a", "text")]);
        (second.version, second.since) = (1, Lsn(900));
        (second.columns[1].attnum, second.columns[2].attnum) = (3, 2);
        let second = Arc::new(second);
        let mut feed = Feed::new();
        feed.insert(&first, &[Some("1"), Some("a")]);
        feed.insert(&first, &[Some("2"), Some("a")]);
        // Both versions in one batch, and the same row under both.
        feed.update(&first, &[Some("2"), Some("b")]);
        feed.update(&second, &[Some("2"), Some("new"), Some("c")]);
        feed.insert(&second, &[Some("3"), Some("new"), SAME.filter(|_| false)]);
        send(&mut lane, &mut feed).await;
        assert_eq!(server.sql("target", "SELECT id, a, new FROM t ORDER BY id"), "1|a|\n2|c|new\n3||new");
    }
}

#[tokio::test]
async fn a_table_that_changes_cannot_be_applied_to_halts_with_the_remedy() {
    let server = server(PgVersion::V17);
    server.sql(
        "target",
        "CREATE TABLE no_index (id bigint); CREATE UNIQUE INDEX ON no_index (id) WHERE id > 0;
         CREATE VIEW a_view AS SELECT 1::bigint AS id;
         CREATE TABLE lacks (id bigint PRIMARY KEY);
         CREATE TABLE generated (a bigint, id bigint PRIMARY KEY GENERATED ALWAYS AS (a) STORED);",
    );
    let cases = [
        ("no_index", true, "CREATE UNIQUE INDEX"),
        ("a_view", true, "not a table"),
        ("generated", true, "generated"),
        ("absent", false, "create_tables"),
    ];
    for (name, create, part) in cases {
        let error = prepare(&server, relation(name, &[("*id", "bigint")]), create).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Halt);
        assert!(error.to_string().contains(part) && error.to_string().contains(name), "{error}");
    }
    let error =
        prepare(&server, relation("lacks", &[("*id", "bigint"), ("v", "text")]), false).await.unwrap_err();
    assert!(error.kind() == ErrorKind::Halt && error.to_string().contains("lacks v"), "{error}");
}

#[tokio::test]
async fn generated_identity_and_extra_columns_of_the_target_are_respected() {
    for version in VERSIONS {
        let server = server(version);
        server.sql(
            "target",
            "CREATE TABLE t (extra text DEFAULT 'default', id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
                             n integer, twice integer GENERATED ALWAYS AS (n * 2) STORED, body text);",
        );
        let mut lane = lane(&server).await;
        let t = Arc::new(relation(
            "t",
            &[("*id", "bigint"), ("n", "integer"), ("twice", "integer"), ("body", "text")],
        ));
        let mut feed = Feed::new();
        feed.insert(&t, &[Some("7"), Some("1"), Some("2"), Some("b")]);
        send(&mut lane, &mut feed).await;
        server.sql("target", "UPDATE t SET extra = 'kept'");
        feed.update(&t, &[Some("7"), Some("3"), Some("6"), SAME]);
        feed.update(&t, &[Some("8"), Some("4"), Some("8"), None]);
        send(&mut lane, &mut feed).await;
        feed.update(&t, &[Some("8"), Some("5"), Some("10"), None]);
        send(&mut lane, &mut feed).await;
        assert_eq!(server.sql("target", "TABLE t ORDER BY id"), "kept|7|3|6|b\ndefault|8|5|10|");
    }
}

#[tokio::test]
async fn triggers_and_foreign_keys_of_the_target_stand_aside() {
    for version in VERSIONS {
        let server = server(version);
        server.sql(
            "target",
            "CREATE TABLE parent (id bigint PRIMARY KEY);
             CREATE TABLE child (id bigint PRIMARY KEY, parent bigint REFERENCES parent ON DELETE CASCADE);
             CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no'; END $$;
             CREATE TRIGGER no BEFORE INSERT OR UPDATE OR DELETE ON parent FOR EACH ROW EXECUTE FUNCTION no();",
        );
        let mut lane = lane(&server).await;
        let parent = Arc::new(relation("parent", &[("*id", "bigint")]));
        let child = Arc::new(relation("child", &[("*id", "bigint"), ("parent", "bigint")]));
        let mut feed = Feed::new();
        feed.insert(&child, &[Some("1"), Some("1")]);
        feed.insert(&parent, &[Some("1")]);
        send(&mut lane, &mut feed).await;
        feed.delete(&parent, &[Some("1")]);
        feed.update(&child, &[Some("1"), None]);
        send(&mut lane, &mut feed).await;
        assert_eq!(server.sql("target", "SELECT count(*) FROM parent; SELECT count(*) FROM child"), "0\n1");
    }
}

#[tokio::test]
async fn two_lanes_that_meet_a_new_table_at_once_make_it_once() {
    let server = server(PgVersion::V17);
    let sink = crate::sink_at(&server.url("target"), 4);
    prepared(&sink).await.unwrap();
    let t = Arc::new(relation("t", &[("*id", "bigint")]));
    let mut lanes = Vec::new();
    for shard in 0..4_u32 {
        lanes.push((shard, sink.open_lane(shard, &stream()).await.unwrap()));
    }
    let mut sends = Vec::new();
    for (shard, mut lane) in lanes {
        let mut feed = Feed::new();
        feed.insert(&t, &[Some(&shard.to_string())]);
        sends.push(tokio::spawn(async move { try_send(&mut lane, feed.batch()).await }));
    }
    for sent in sends {
        sent.await.unwrap().unwrap();
    }
    assert_eq!(crate::count(&server, "t"), 4);
}

#[tokio::test]
async fn a_checkpoint_of_another_slot_is_left_alone_and_not_believed() {
    let server = server(PgVersion::V15);
    let t = Arc::new(relation("t", &[("*id", "bigint")]));
    let mut feed = Feed::from_lsn(1_000_000);
    feed.insert(&t, &[Some("1")]);
    send(&mut lane(&server).await, &mut feed).await;

    let mut other = stream();
    other.identity.slot = "recreated".into();
    let sink = sink(&server);
    sink.prepare(&other).await.unwrap();
    let mut lane = sink.open_lane(0, &other).await.unwrap();
    let mut feed = Feed::from_lsn(1_000);
    feed.insert(&t, &[Some("2")]);
    send(&mut lane, &mut feed).await;
    assert_eq!(server.sql("target", "SELECT id FROM t ORDER BY id"), "1\n2");
    let rows = "SELECT slot, commit_lsn FROM replicator.checkpoint ORDER BY slot";
    assert_eq!(server.sql("target", rows), "recreated|0/3E8\nreplicator|0/F4240");
}

#[tokio::test]
async fn rows_are_written_under_the_synchronous_commit_of_the_sink_whatever_the_database_has() {
    let server = server(PgVersion::V17);
    server.sql(
        "target",
        "ALTER DATABASE target SET synchronous_commit = off;
         CREATE TABLE t (id bigint PRIMARY KEY, v text, how text DEFAULT current_setting('synchronous_commit'))",
    );
    let t = Arc::new(version(77, 900, "t", &[(1, "*id", "bigint"), (2, "v", "text")]));
    let mut feed = Feed::new();
    for (id, wanted) in [("1", SynchronousCommit::On), ("2", SynchronousCommit::RemoteApply)] {
        let config = PostgresSinkConfig { synchronous_commit: wanted, ..config(&server.url("target")) };
        let sink = open("copy".into(), config, 1, Logger::root(Discard, o!())).unwrap();
        prepared(&sink).await.unwrap();
        let mut lane = sink.open_lane(0, &stream()).await.unwrap();
        feed.insert(&t, &[Some(id), Some("v")]);
        send(&mut lane, &mut feed).await;
        assert_eq!(server.sql("target", &format!("SELECT how FROM t WHERE id = {id}")), wanted.word());
    }
}
