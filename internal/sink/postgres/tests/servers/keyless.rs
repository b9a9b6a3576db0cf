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

type Row = [Option<String>; 2];

fn texts(row: &Row) -> [Option<&str>; 2] {
    [row[0].as_deref(), row[1].as_deref()]
}

/// Batches of so many changes are made at once, and not one by one.
#[tokio::test]
async fn many_changes_at_once_leave_what_they_leave_one_after_the_other() {
    for version in VERSIONS {
        let server = server(version);
        server.sql(
            "target",
            "CREATE TABLE parts (a bigint, b text) PARTITION BY HASH (b);
             CREATE TABLE parts_0 PARTITION OF parts FOR VALUES WITH (MODULUS 2, REMAINDER 0);
             CREATE TABLE parts_1 PARTITION OF parts FOR VALUES WITH (MODULUS 2, REMAINDER 1)",
        );
        let mut lane = lane(&server).await;
        let mut feed = Feed::new();
        for (seed, name) in [(1_u64, "plain"), (2, "parts")] {
            let table = Arc::new(relation(name, &[("a", "bigint"), ("b", "text")]));
            let mut state = seed;
            let mut any = |below: usize| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (state >> 33) as usize % below
            };
            let mut rows: Vec<Row> = Vec::new();
            for batch in 0..12 {
                for _ in 0..150 {
                    let row: Row = [
                        (any(5) > 0).then(|| any(4).to_string()),
                        [None, Some(""), Some("(,)"), Some("\"quoted\", \\ and \n"), Some("x")][any(5)]
                            .map(str::to_owned),
                    ];
                    let sort = any(10);
                    if rows.is_empty() || sort < 4 {
                        feed.insert(&table, &texts(&row));
                        rows.push(row);
                        continue;
                    }
                    let old = rows.swap_remove(any(rows.len()));
                    if sort < 7 {
                        feed.delete_full(&table, &texts(&old));
                    } else {
                        feed.update_full(&table, &texts(&old), &texts(&row));
                        rows.push(row);
                    }
                }
                send(&mut lane, &mut feed).await;
                let mut wanted: Vec<String> = rows
                    .iter()
                    .map(|row| format!("{:?}", texts(row).map(|text| text.unwrap_or("NULL"))))
                    .collect();
                wanted.sort();
                let client = server.client("target").await;
                let found = client.query(&format!("SELECT a::text, b FROM {name}"), &[]).await.unwrap();
                let mut found: Vec<String> = found
                    .iter()
                    .map(|row| [row.get::<_, Option<&str>>(0), row.get(1)].map(|text| text.unwrap_or("NULL")))
                    .map(|row| format!("{row:?}"))
                    .collect();
                found.sort();
                assert_eq!(found, wanted, "{version:?} {name}, batch {batch}");
            }
        }
    }
}

#[tokio::test]
async fn many_changes_at_once_leave_what_only_the_target_has() {
    let server = server(PgVersion::V18);
    server.sql("target", "CREATE TABLE log (a bigint, b text, own int DEFAULT 7)");
    let mut lane = lane(&server).await;
    let log = Arc::new(relation("log", &[("a", "bigint"), ("b", "text")]));
    let mut feed = Feed::new();
    let numbers: Vec<String> = (0..100).map(|n| n.to_string()).collect();
    for n in &numbers {
        feed.insert(&log, &[Some(n), Some("x")]);
    }
    send(&mut lane, &mut feed).await;
    server.sql("target", "UPDATE log SET own = 8");
    for n in &numbers {
        feed.update_full(&log, &[Some(n), Some("x")], &[Some(n), Some("y")]);
    }
    send(&mut lane, &mut feed).await;
    for n in &numbers[..60] {
        feed.delete_full(&log, &[Some(n), Some("y")]);
    }
    // Not there.
    feed.delete_full(&log, &[Some("1000"), None]);
    send(&mut lane, &mut feed).await;
    assert_eq!(
        server.sql("target", "SELECT count(*), min(a), min(b), min(own), max(own) FROM log"),
        "40|60|y|8|8"
    );
}
