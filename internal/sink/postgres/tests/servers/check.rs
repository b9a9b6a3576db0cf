//! `check`, which looks and does not touch.

use crate::feed::{Feed, relation};
use crate::{lane, send, server, sink, sink_at};
use replicator_harness::PgVersion;
use replicator_sink::{ErrorKind, Sink};
use replicator_types::CheckItem;
use std::sync::Arc;

fn failures(items: &[CheckItem]) -> Vec<String> {
    items
        .iter()
        .filter_map(|item| item.result.as_ref().err().map(|remedy| format!("{}: {remedy}", item.what)))
        .collect()
}

#[tokio::test]
async fn a_target_that_can_be_written_passes_and_is_not_changed() {
    let server = server(PgVersion::V15);
    server.sql("target", "CREATE TABLE there (id bigint PRIMARY KEY, n integer)");
    let tables = [
        Arc::new(relation("there", &[("*id", "bigint"), ("n", "bigint"), ("more", "text")])),
        Arc::new(relation("absent", &[("*id", "bigint"), ("v", "numeric(12,2)")])),
        Arc::new(relation("no_key", &[("v", "text")])),
    ];
    let items = sink(&server).check(&tables).await;
    assert_eq!(failures(&items), [""; 0]);
    let there = items.iter().find(|item| item.what == "table public.there").unwrap().result.clone().unwrap();
    assert!(
        there.contains("will get more") && there.contains("n is integer here and bigint at the source"),
        "{there}"
    );
    assert_eq!(
        server.sql(
            "target",
            "SELECT count(*) FROM pg_class WHERE relname IN ('absent', 'no_key', 'checkpoint')"
        ),
        "0"
    );
    sink(&server).ping().await.unwrap();
}

#[tokio::test]
async fn each_thing_that_is_missing_is_told_with_its_remedy() {
    let server = server(PgVersion::V17);
    server.sql(
        "target",
        "CREATE ROLE poor LOGIN; REVOKE ALL ON DATABASE target FROM PUBLIC; GRANT CONNECT ON DATABASE target TO poor;
         GRANT USAGE ON SCHEMA public TO poor;
         CREATE TABLE bare (id bigint); CREATE TABLE closed (id bigint PRIMARY KEY);",
    );
    let tables = [
        Arc::new(relation("bare", &[("*id", "bigint")])),
        Arc::new(relation("closed", &[("*id", "bigint")])),
        Arc::new(relation("absent", &[("*id", "bigint")])),
    ];
    let sink = sink_at(&server.url_as("poor", "target", "sslmode=disable"), 1);
    let failures = failures(&sink.check(&tables).await);
    for part in [
        "temporary tables: rows are staged in temporary tables; run GRANT TEMPORARY",
        "replicator.checkpoint: the sink keeps its position in schema replicator",
        "table public.bare: table public.bare of the target has no unique index over its key",
        "table public.closed: the sink's role lacks SELECT; run GRANT SELECT ON \"public\".\"closed\"",
        "table public.absent: the sink's role may not create it",
    ] {
        assert!(failures.iter().any(|failure| failure.starts_with(part)), "{part} in {failures:#?}");
    }
    assert_eq!(failures.len(), 5);
}

#[tokio::test]
async fn a_server_that_is_not_there_and_a_database_that_is_not_are_one_line_each() {
    let server = server(PgVersion::V17);
    let sink = sink_at(&server.url("nowhere"), 1);
    let items = sink.check(&[]).await;
    assert!(failures(&items)[0].contains("nowhere"), "{items:?}");
    assert_eq!(sink.prepare(&crate::stream()).await.unwrap_err().kind(), ErrorKind::Halt);
    server.stop_fast();
    let sink = sink_at(&server.url("target"), 1);
    let items = sink.check(&[]).await;
    assert_eq!(items.len(), 1);
    assert!(failures(&items)[0].starts_with("connection: cannot connect"), "{items:?}");
    assert_eq!(sink.ping().await.unwrap_err().kind(), ErrorKind::Retry);
    server.start_again();
    sink.ping().await.unwrap();
}

#[tokio::test]
async fn a_role_that_owns_the_database_and_nothing_else_is_enough() {
    let server = server(PgVersion::V15);
    server.sql("postgres", "CREATE ROLE plain LOGIN; CREATE DATABASE plain OWNER plain");
    let sink = sink_at(&server.url_as("plain", "plain", "sslmode=disable"), 1);
    let t = Arc::new(relation("t", &[("*id", "bigint"), ("v", "text")]));
    let items = sink.check(std::slice::from_ref(&t)).await;
    assert_eq!(failures(&items), [""; 0]);
    assert!(
        items
            .iter()
            .any(|item| item.result.as_ref().is_ok_and(|found| found.contains("GRANT SET ON PARAMETER")))
    );
    sink.prepare(&crate::stream()).await.unwrap();
    let mut plain = sink.open_lane(0, &crate::stream()).await.unwrap();
    let mut feed = Feed::new();
    feed.insert(&t, &[Some("1"), Some("a")]);
    send(&mut plain, &mut feed).await;
    feed.update(&t, &[Some("1"), Some("b")]);
    feed.truncate(&[&t], false, false);
    feed.insert(&t, &[Some("2"), Some("c")]);
    send(&mut plain, &mut feed).await;
    assert_eq!(server.sql("plain", "TABLE t"), "2|c");
    drop(lane(&server).await);
}
