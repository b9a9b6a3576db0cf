//! Rows of tables with a key.

use crate::feed::{Feed, SAME, relation};
use crate::{VERSIONS, count, lane, send, server, try_send};
use replicator_harness::PgVersion;
use replicator_sink::ErrorKind;
use std::sync::Arc;

#[tokio::test]
async fn inserts_updates_and_deletes_of_several_tables_reach_the_target() {
    for version in VERSIONS {
        let server = server(version);
        let mut lane = lane(&server).await;
        let orders =
            Arc::new(relation("orders", &[("*id", "bigint"), ("note", "text"), ("paid", "boolean")]));
        let pairs = Arc::new(relation("pairs", &[("*a", "bigint"), ("*b", "text")]));
        let mut feed = Feed::new();
        feed.insert(&orders, &[Some("1"), Some("one"), Some("t")]);
        feed.insert(&pairs, &[Some("1"), Some("x")]);
        feed.insert(&orders, &[Some("2"), None, Some("f")]);
        feed.insert(&pairs, &[Some("1"), Some("y")]);
        feed.insert(&orders, &[Some("3"), Some(""), None]);
        send(&mut lane, &mut feed).await;
        assert_eq!(server.sql("target", "TABLE orders ORDER BY id"), "1|one|t\n2||f\n3||");
        assert_eq!(server.sql("target", "SELECT note IS NULL FROM orders ORDER BY id"), "f\nt\nf");
        assert_eq!(server.sql("target", "TABLE pairs ORDER BY b"), "1|x\n1|y");

        feed.update(&orders, &[Some("1"), Some("changed"), None]);
        feed.delete(&orders, &[Some("2"), None, None]);
        feed.delete(&pairs, &[Some("1"), Some("x")]);
        feed.update(&pairs, &[Some("1"), Some("y")]);
        feed.insert(&orders, &[Some("4"), Some("new"), Some("t")]);
        feed.commit();
        feed.delete(&orders, &[Some("4"), None, None]);
        feed.insert(&orders, &[Some("4"), Some("newer"), Some("t")]);
        feed.insert(&orders, &[Some("5"), Some("short-lived"), Some("t")]);
        feed.delete(&orders, &[Some("5"), None, None]);
        // A row that the target lacks is made, as a whole row is at hand.
        feed.update(&orders, &[Some("6"), Some("from an update"), Some("t")]);
        send(&mut lane, &mut feed).await;
        let rows = "1|changed|\n3||\n4|newer|t\n6|from an update|t";
        assert_eq!(server.sql("target", "TABLE orders ORDER BY id"), rows);
        assert_eq!(server.sql("target", "TABLE pairs"), "1|y");
    }
}

#[tokio::test]
async fn an_unchanged_toast_value_keeps_the_targets() {
    for version in VERSIONS {
        let server = server(version);
        let mut lane = lane(&server).await;
        let docs = Arc::new(relation(
            "docs",
            &[("*id", "bigint"), ("n", "bigint"), ("body", "text"), ("meta", "jsonb")],
        ));
        let mut feed = Feed::new();
        feed.insert(&docs, &[Some("1"), Some("0"), Some("old body"), Some("{}")]);
        feed.insert(&docs, &[Some("2"), Some("0"), Some("body 2"), Some("[]")]);
        send(&mut lane, &mut feed).await;

        // Alone; with other rows' full updates; with different columns missing; merged within the batch.
        feed.update(&docs, &[Some("1"), Some("1"), SAME, SAME]);
        feed.update(&docs, &[Some("2"), Some("2"), Some("new body 2"), SAME]);
        feed.insert(&docs, &[Some("3"), Some("0"), Some("body 3"), Some("3")]);
        feed.update(&docs, &[Some("3"), Some("3"), SAME, Some("33")]);
        send(&mut lane, &mut feed).await;
        let rows = "1|1|old body|{}\n2|2|new body 2|[]\n3|3|body 3|33";
        assert_eq!(server.sql("target", "TABLE docs ORDER BY id"), rows);

        feed.update(&docs, &[Some("1"), Some("5"), SAME, Some("5")]);
        feed.update(&docs, &[Some("1"), Some("6"), Some("six"), SAME]);
        feed.update(&docs, &[Some("2"), Some("7"), None, SAME]);
        send(&mut lane, &mut feed).await;
        assert_eq!(server.sql("target", "TABLE docs ORDER BY id LIMIT 2"), "1|6|six|5\n2|7||[]");

        // Where nobody has the rest, nothing is made up and nothing fails.
        feed.update(&docs, &[Some("9"), Some("9"), SAME, SAME]);
        feed.update(&docs, &[Some("3"), Some("10"), SAME, SAME]);
        send(&mut lane, &mut feed).await;
        assert_eq!(server.sql("target", "SELECT n FROM docs ORDER BY id"), "6\n7\n10");
    }
}

#[tokio::test]
async fn a_large_value_that_only_the_old_row_has_stays_where_it_is_and_is_there_where_the_row_was_missing() {
    for version in VERSIONS {
        let server = server(version);
        let mut lane = lane(&server).await;
        let docs = Arc::new(relation("docs", &[("*id", "bigint"), ("n", "bigint"), ("body", "text")]));
        let mut feed = Feed::new();
        for id in ["1", "2", "3"] {
            feed.insert(&docs, &[Some(id), Some("0"), Some("as sent")]);
        }
        send(&mut lane, &mut feed).await;
        server.sql("target", "UPDATE docs SET body = 'as kept' WHERE id = 1; DELETE FROM docs WHERE id = 2");

        let old = |id| [Some(id), Some("0"), Some("as sent")];
        for id in ["1", "2"] {
            feed.update_full(&docs, &old(id), &[Some(id), Some("1"), SAME]);
        }
        // Twice, a value of its own, and a row of which nobody knows the rest.
        feed.update_full(&docs, &old("3"), &[Some("3"), Some("1"), Some("new")]);
        feed.update_full(&docs, &[Some("3"), Some("1"), Some("new")], &[Some("3"), Some("2"), SAME]);
        feed.update(&docs, &[Some("9"), Some("9"), SAME]);
        send(&mut lane, &mut feed).await;
        assert_eq!(server.sql("target", "TABLE docs ORDER BY id"), "1|1|as kept\n2|1|as sent\n3|2|new");
    }
}

#[tokio::test]
async fn writes_of_a_lane_are_applied_in_the_order_in_which_they_were_prepared() {
    let server = server(PgVersion::V15);
    let mut lane = lane(&server).await;
    let t = Arc::new(relation("t", &[("*id", "bigint"), ("v", "text")]));
    let mut feed = Feed::new();
    feed.insert(&t, &[Some("1"), Some("first")]);
    send(&mut lane, &mut feed).await;
    feed.update(&t, &[Some("1"), Some("second")]);
    let mut second = lane.prepare(Arc::new(feed.batch())).await.unwrap();
    feed.commit();
    feed.update(&t, &[Some("1"), Some("third")]);
    let mut third = lane.prepare(Arc::new(feed.batch())).await.unwrap();
    let third = tokio::spawn(async move { third.send().await });
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    assert!(!third.is_finished());
    second.send().await.unwrap();
    third.await.unwrap().unwrap();
    // A reply that was lost, and asked for again when the next is in.
    second.send().await.unwrap();
    assert_eq!(server.sql("target", "TABLE t"), "1|third");
}

#[tokio::test]
async fn a_key_change_leaves_no_row_under_the_old_key_and_keeps_unchanged_values() {
    for version in VERSIONS {
        let server = server(version);
        let mut lane = lane(&server).await;
        let docs = Arc::new(relation("docs", &[("*id", "bigint"), ("n", "bigint"), ("body", "text")]));
        let mut feed = Feed::new();
        feed.insert(&docs, &[Some("1"), Some("0"), Some("large one")]);
        feed.insert(&docs, &[Some("2"), Some("0"), Some("large two")]);
        send(&mut lane, &mut feed).await;
        feed.move_row(&docs, &[Some("1"), None, None], &[Some("10"), Some("1"), SAME]);
        send(&mut lane, &mut feed).await;
        // In one batch with what is before and after it.
        feed.update(&docs, &[Some("2"), Some("5"), Some("grown")]);
        feed.move_row(&docs, &[Some("2"), None, None], &[Some("20"), Some("6"), SAME]);
        feed.update(&docs, &[Some("20"), Some("7"), SAME]);
        // The two halves of a split one.
        feed.delete(&docs, &[Some("10"), None, None]);
        feed.insert(&docs, &[Some("11"), Some("2"), Some("large one")]);
        send(&mut lane, &mut feed).await;
        assert_eq!(server.sql("target", "TABLE docs ORDER BY id"), "11|2|large one\n20|7|grown");
    }
}

#[tokio::test]
async fn truncates_happen_where_they_are_in_the_stream() {
    for version in VERSIONS {
        let server = server(version);
        server.sql(
            "target",
            "CREATE TABLE a (id bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY);
             CREATE TABLE b (id bigint PRIMARY KEY, a bigint REFERENCES a);
             CREATE TABLE c (id bigint PRIMARY KEY);",
        );
        let mut lane = lane(&server).await;
        let a = Arc::new(relation("a", &[("*id", "bigint")]));
        let b = Arc::new(relation("b", &[("*id", "bigint"), ("a", "bigint")]));
        let mut feed = Feed::new();
        feed.insert(&a, &[Some("1")]);
        feed.insert(&b, &[Some("1"), Some("1")]);
        feed.truncate(&[&a, &b], true, false);
        feed.insert(&a, &[Some("2")]);
        server.sql("target", "INSERT INTO c VALUES (1)");
        send(&mut lane, &mut feed).await;
        assert_eq!((count(&server, "a"), count(&server, "b"), count(&server, "c")), (1, 0, 1));

        server.sql("target", "SELECT setval('a_id_seq', 50); DROP TABLE c");
        feed.truncate(&[&a, &b], false, true);
        send(&mut lane, &mut feed).await;
        assert_eq!(server.sql("target", "SELECT nextval('a_id_seq')"), "1");
        assert_eq!(count(&server, "a"), 0);
    }
}

#[tokio::test]
async fn a_truncate_with_cascade_does_not_empty_what_only_the_target_has() {
    for version in VERSIONS {
        let server = server(version);
        server.sql(
            "target",
            "CREATE TABLE a (id bigint PRIMARY KEY);
             CREATE TABLE own (id bigint PRIMARY KEY, a bigint REFERENCES a);
             INSERT INTO a VALUES (1); INSERT INTO own VALUES (1, 1)",
        );
        let mut lane = lane(&server).await;
        let a = Arc::new(relation("a", &[("*id", "bigint")]));
        let mut feed = Feed::new();
        feed.truncate(&[&a], true, false);
        let mut write = lane.prepare(Arc::new(feed.batch())).await.unwrap();
        let error = write.send().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Halt, "{error}");
        assert!(error.to_string().contains("own"), "{error}");
        assert_eq!((count(&server, "a"), count(&server, "own")), (1, 1));
    }
}

#[tokio::test]
async fn a_new_row_whose_key_is_taken_replaces_the_row() {
    for version in VERSIONS {
        let server = server(version);
        let mut lane = lane(&server).await;
        let t = Arc::new(relation("t", &[("*id", "bigint"), ("v", "text")]));
        let u = Arc::new(relation("u", &[("*id", "bigint"), ("v", "text")]));
        let mut feed = Feed::new();
        feed.insert(&t, &[Some("1"), Some("a")]);
        feed.insert(&u, &[Some("1"), Some("a")]);
        send(&mut lane, &mut feed).await;
        for round in 0..20 {
            let id = (100 + round).to_string();
            feed.insert(&u, &[Some(&id), Some("u")]);
            feed.insert(&t, &[Some("1"), Some(&id)]);
            feed.insert(&t, &[Some(&id), Some("t")]);
            send(&mut lane, &mut feed).await;
        }
        assert_eq!((count(&server, "t"), count(&server, "u")), (21, 21));
        assert_eq!(server.sql("target", "SELECT v FROM t WHERE id = 1"), "119");
    }
}

#[tokio::test]
async fn values_that_change_places_under_another_unique_index_are_applied() {
    for version in VERSIONS {
        let server = server(version);
        server.sql("target", "CREATE TABLE t (id bigint PRIMARY KEY, mail text UNIQUE, body text)");
        let mut lane = lane(&server).await;
        let t = Arc::new(relation("t", &[("*id", "bigint"), ("mail", "text"), ("body", "text")]));
        let mut feed = Feed::new();
        for (id, mail) in [("1", "a"), ("2", "b"), ("3", "c")] {
            feed.insert(&t, &[Some(id), Some(mail), Some("kept")]);
        }
        send(&mut lane, &mut feed).await;
        // As the source did it: each step is free of conflicts, their sum in another order is not.
        feed.update(&t, &[Some("3"), Some("away"), Some("x")]);
        feed.update(&t, &[Some("2"), Some("c"), Some("x")]);
        feed.update(&t, &[Some("1"), Some("b"), Some("x")]);
        feed.update(&t, &[Some("3"), Some("a"), Some("x")]);
        feed.insert(&t, &[Some("4"), Some("away"), Some("x")]);
        send(&mut lane, &mut feed).await;
        assert_eq!(server.sql("target", "SELECT id, mail FROM t ORDER BY id"), "1|b\n2|c\n3|a\n4|away");
        // The same, with a value that came with the old rows alone.
        let row = |id, mail| [Some(id), Some(mail), Some("x")];
        feed.update_full(&t, &row("4", "away"), &[Some("4"), Some("d"), SAME]);
        feed.update_full(&t, &row("1", "b"), &[Some("1"), Some("away"), SAME]);
        feed.update_full(&t, &row("2", "c"), &[Some("2"), Some("b"), SAME]);
        feed.update_full(&t, &row("3", "a"), &[Some("3"), Some("c"), SAME]);
        send(&mut lane, &mut feed).await;
        assert_eq!(server.sql("target", "SELECT * FROM t ORDER BY id"), "1|away|x\n2|b|x\n3|c|x\n4|d|x");
    }
}

#[tokio::test]
async fn a_key_that_can_be_spelt_in_two_ways_is_one_row() {
    let server = server(PgVersion::V15);
    server.sql("target", "CREATE EXTENSION citext");
    let mut lane = lane(&server).await;
    let numbers = Arc::new(relation("numbers", &[("*k", "numeric"), ("v", "text")]));
    let mut words = relation("words", &[("*k", "public.citext"), ("v", "text")]);
    words.key_text_is_identity = false;
    let words = Arc::new(words);
    let mut feed = Feed::new();
    feed.insert(&numbers, &[Some("1.0"), Some("a")]);
    feed.insert(&words, &[Some("Word"), Some("a")]);
    send(&mut lane, &mut feed).await;
    feed.delete(&numbers, &[Some("1.0"), None]);
    feed.insert(&numbers, &[Some("1.00"), Some("b")]);
    feed.delete(&words, &[Some("Word"), None]);
    feed.insert(&words, &[Some("WORD"), Some("b")]);
    send(&mut lane, &mut feed).await;
    assert_eq!(server.sql("target", "TABLE numbers; TABLE words"), "1.00|b\nWORD|b");
    // A key out of step with the source's spelling is found, and put right.
    server.sql("target", "UPDATE words SET k = 'word'");
    feed.update(&words, &[Some("WORD"), Some("c")]);
    feed.update(&numbers, &[Some("1.000"), Some("c")]);
    send(&mut lane, &mut feed).await;
    assert_eq!(server.sql("target", "TABLE numbers; TABLE words"), "1.000|c\nWORD|c");
}

#[tokio::test]
async fn an_update_reaches_its_row_by_the_index_however_large_the_table_is() {
    for version in VERSIONS {
        let server = server(version);
        server.sql(
            "target",
            "CREATE TABLE t (id bigint PRIMARY KEY, v text);
             INSERT INTO t SELECT g, 'v' FROM generate_series(1, 50000) g; ANALYZE t;",
        );
        let mut lane = lane(&server).await;
        let t = Arc::new(relation("t", &[("*id", "bigint"), ("v", "text")]));
        let mut feed = Feed::new();
        for _ in 0..3 {
            for id in (0..5_000).map(|id| (id * 9 + 1).to_string()) {
                feed.update(&t, &[Some(&id), Some("w")]);
            }
            feed.delete(&t, &[Some("77"), None]);
            send(&mut lane, &mut feed).await;
        }
        assert_eq!(server.sql("target", "SELECT count(*) FROM t WHERE v = 'w'"), "5000");
        tokio::time::sleep(std::time::Duration::from_millis(1_500)).await;
        let scans = server.sql("target", "SELECT seq_scan FROM pg_stat_user_tables WHERE relname = 't'");
        // Making the index, ANALYZE's and the test's own count.
        assert!(scans.parse::<u32>().unwrap() <= 3, "{scans}");
    }
}

#[tokio::test]
async fn a_row_that_breaks_a_constraint_is_rejected_with_the_constraints_name_and_nothing_is_left() {
    let server = server(PgVersion::V17);
    server
        .sql("target", "CREATE TABLE t (id bigint PRIMARY KEY, n integer CONSTRAINT positive CHECK (n > 0))");
    let mut lane = lane(&server).await;
    let t = Arc::new(relation("t", &[("*id", "bigint"), ("n", "integer")]));
    for (value, part) in [("-1", "positive"), ("99999999999", "column n"), ("x", "column n")] {
        for is_update in [false, true] {
            let mut feed = Feed::new();
            feed.insert(&t, &[Some("1"), Some("1")]);
            if is_update {
                feed.update(&t, &[Some("2"), Some(value)]);
            } else {
                feed.insert(&t, &[Some("2"), Some(value)]);
            }
            let error = try_send(&mut lane, feed.batch()).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Reject, "{error}");
            let text = error.to_string();
            assert!(text.contains("public.t") && text.contains(part), "{text}");
            assert_eq!(count(&server, "t"), 0);
        }
    }
    let mut feed = Feed::new();
    feed.insert(&t, &[Some("1"), Some("1")]);
    send(&mut lane, &mut feed).await;
    assert_eq!(count(&server, "t"), 1);
}

#[tokio::test]
async fn many_tables_in_one_batch_and_over_time_are_applied() {
    let server = server(PgVersion::V17);
    let mut lane = lane(&server).await;
    let tables: Vec<_> = (0..70)
        .map(|n| Arc::new(relation(&format!("t{n}"), &[("*id", "bigint"), ("v", "text"), ("w", "text")])))
        .collect();
    let mut feed = Feed::new();
    for table in &tables {
        feed.insert(table, &[Some("1"), Some("a"), Some("w")]);
        feed.insert(table, &[Some("2"), Some("a"), Some("w")]);
    }
    send(&mut lane, &mut feed).await;
    // Three stages a table: more than are kept, so they are made anew.
    for round in ["b", "c", "d"] {
        for table in &tables {
            feed.update(table, &[Some("1"), Some(round), Some(round)]);
            feed.update(table, &[Some("2"), Some(round), SAME]);
            feed.delete(table, &[Some("3"), None, None]);
        }
        send(&mut lane, &mut feed).await;
    }
    for n in [0, 35, 69] {
        assert_eq!(server.sql("target", &format!("TABLE t{n} ORDER BY id")), "1|d|d\n2|d|w");
    }
}
