//! Tables without a key, under REPLICA IDENTITY FULL: a multiset of rows.

use crate::feed::{Feed, relation};
use crate::{VERSIONS, count, lane, send, server};
use replicator_harness::PgVersion;
use std::sync::Arc;

#[tokio::test]
async fn a_delete_or_update_touches_exactly_one_of_equal_rows() {
    for version in VERSIONS {
        let server = server(version);
        let mut lane = lane(&server).await;
        let log = Arc::new(relation("log", &[("a", "bigint"), ("b", "text")]));
        let mut feed = Feed::new();
        for _ in 0..3 {
            feed.insert(&log, &[Some("1"), Some("x")]);
            feed.insert(&log, &[None, None]);
            feed.insert(&log, &[None, Some("")]);
        }
        send(&mut lane, &mut feed).await;
        feed.delete_full(&log, &[Some("1"), Some("x")]);
        feed.delete_full(&log, &[None, None]);
        feed.update_full(&log, &[None, Some("")], &[Some("2"), None]);
        feed.update_full(&log, &[Some("1"), Some("x")], &[Some("3"), Some("y")]);
        // In order: what one change writes the next one finds.
        feed.insert(&log, &[Some("7"), Some("passing")]);
        feed.update_full(&log, &[Some("7"), Some("passing")], &[Some("8"), Some("passing")]);
        feed.delete_full(&log, &[Some("8"), Some("passing")]);
        feed.insert(&log, &[Some("7"), Some("passing")]);
        // A row that is not there is left out without harm.
        feed.delete_full(&log, &[Some("99"), Some("x")]);
        send(&mut lane, &mut feed).await;
        let rows = "1|x\n2|NULL\n3|y\n7|passing\nNULL|NULL\nNULL|NULL\nNULL|\nNULL|";
        let sql = "SELECT coalesce(a::text, 'NULL'), coalesce(b, 'NULL') FROM log \
                   ORDER BY coalesce(a::text, 'NULL') COLLATE \"C\", coalesce(b, 'NULL') COLLATE \"C\" DESC";
        assert_eq!(server.sql("target", sql), rows);
    }
}

#[tokio::test]
async fn rows_are_told_apart_by_their_texts_whatever_their_types_think_equal() {
    for version in VERSIONS {
        let server = server(version);
        let mut lane = lane(&server).await;
        let types = [
            "numeric",
            "json",
            "point",
            "xml",
            "character(4)",
            "double precision",
            "inet",
            "interval",
            "bytea",
        ];
        let columns: Vec<(String, &str)> =
            types.iter().enumerate().map(|(n, of)| (format!("c{n}"), *of)).collect();
        let columns: Vec<(&str, &str)> = columns.iter().map(|(name, of)| (name.as_str(), *of)).collect();
        let log = Arc::new(relation("log", &columns));
        let one = ["1.0", "{\"a\": 1}", "(1,2)", "<a/>", "ab  ", "-0", "10.0.0.1", "1 day", "\\x00ff"];
        let two =
            ["1.00", "{\"a\":1}", "(1,3)", "<a></a>", "abc ", "0", "10.0.0.1/24", "24:00:00", "\\x00fe"];
        let row = |values: [&'static str; 9]| values.map(Some);
        let mut feed = Feed::new();
        feed.insert(&log, &row(one));
        for place in 0..one.len() {
            let mut other = row(one);
            other[place] = Some(two[place]);
            feed.insert(&log, &other);
            feed.insert(&log, &other);
        }
        send(&mut lane, &mut feed).await;
        for place in 0..one.len() {
            let mut other = row(one);
            other[place] = Some(two[place]);
            let mut emptied = other;
            emptied[place] = None;
            feed.delete_full(&log, &other);
            feed.update_full(&log, &other, &emptied);
        }
        send(&mut lane, &mut feed).await;
        assert_eq!(count(&server, "log"), 10);
        let left: Vec<_> = (0..9).map(|n| format!("format('%s', c{n})")).collect();
        let sql = format!(
            "SELECT {} FROM log WHERE num_nulls({}) = 0",
            left.join(", "),
            (0..9).map(|n| format!("c{n}")).collect::<Vec<_>>().join(", ")
        );
        assert_eq!(server.sql("target", &sql), one.join("|"));
    }
}

#[tokio::test]
async fn rows_of_a_partitioned_table_are_found_in_their_partition() {
    let server = server(PgVersion::V17);
    server.sql(
        "target",
        "CREATE TABLE log (a bigint, b text) PARTITION BY LIST (a);
         CREATE TABLE log_1 PARTITION OF log FOR VALUES IN (1); CREATE TABLE log_2 PARTITION OF log FOR VALUES IN (2);",
    );
    let mut lane = lane(&server).await;
    let log = Arc::new(relation("log", &[("a", "bigint"), ("b", "text")]));
    let mut feed = Feed::new();
    feed.insert(&log, &[Some("1"), Some("x")]);
    feed.insert(&log, &[Some("2"), Some("x")]);
    feed.insert(&log, &[Some("2"), Some("y")]);
    send(&mut lane, &mut feed).await;
    // Both rows `x` are the first of their partition: at the same place.
    feed.delete_full(&log, &[Some("2"), Some("x")]);
    feed.update_full(&log, &[Some("1"), Some("x")], &[Some("2"), Some("z")]);
    send(&mut lane, &mut feed).await;
    assert_eq!(server.sql("target", "TABLE log ORDER BY b"), "2|y\n2|z");
    feed.truncate(&[&log], false, false);
    send(&mut lane, &mut feed).await;
    assert_eq!(count(&server, "log"), 0);
}
