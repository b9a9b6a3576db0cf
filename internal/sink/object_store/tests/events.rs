//! What the lines say, seen through a store in memory.

#![allow(clippy::unwrap_used)]

mod support;

use replicator_sink::{ErrorKind, Sink};
use replicator_types::{Column, ColumnKind, Op, Relation, ReplicaIdentity, Value, oid};
use serde_json::{Value as Json, json};
use std::sync::Arc;
use support::batches::*;
use support::*;

async fn archived(events: &[Event]) -> Vec<Json> {
    let store = memory();
    let mut lane = new_lane(&store).await;
    write(&mut lane, events).await;
    support::events(&store).await
}

/// The line of one change, without its table's description.
async fn line(event: Event) -> Json {
    let mut line = archived(&[event]).await.remove(0);
    assert!(
        line.as_object_mut().unwrap().remove("relation").is_some(),
        "a file's first event describes its table"
    );
    line
}

fn at_nine() -> replicator_types::TransactionMeta {
    transaction(0x16_B374_D848, NINE_O_CLOCK + 301_000_042)
}

#[tokio::test]
async fn an_insert_has_position_time_table_key_and_row() {
    let event = insert(at_nine(), &items(), 3, texts(&["7", "a \"name\""]));
    assert_eq!(
        line(event.clone()).await,
        json!({
            "event_id": event.id(), "op": "insert", "schema": "public", "table": "items",
            "lsn": "16/B374D848", "ordinal": 3, "commit_time": "2026-03-18T09:05:01.000042Z",
            "xid": event.transaction.xid,
            "key": {"id": 7}, "before": null, "after": {"id": 7, "name": "a \"name\""},
        })
    );
}

#[tokio::test]
async fn an_ordinal_of_more_than_32_bits_stays_whole() {
    let event = insert(at_nine(), &items(), 0x1_2345_6789_ABCD, texts(&["7", ""]));
    let line = line(event.clone()).await;
    assert_eq!(line["event_id"], event.id());
    assert_eq!(line["ordinal"], 0x1_2345_6789_ABCDu64);
}

#[tokio::test]
async fn an_update_has_the_row_before_as_far_as_it_was_sent() {
    let update = Event { op: Op::Update, ..insert(at_nine(), &items(), 0, texts(&["8", "new"])) };
    let nothing = line(update.clone()).await;
    assert_eq!((&nothing["op"], &nothing["before"]), (&json!("update"), &Json::Null));

    let old_key = row(&[Value::Text(b"7"), Value::Null]);
    let key_only = line(Event { old: Some(old_key), ..update.clone() }).await;
    assert_eq!((&key_only["key"], &key_only["before"]), (&json!({"id": 8}), &json!({"id": 7})));

    let old_row = row(&[Value::Text(b"7"), Value::Null]);
    let full = line(Event { old: Some(old_row), old_is_full: true, ..update }).await;
    assert_eq!(full["before"], json!({"id": 7, "name": null}));
    assert_eq!(full["after"], json!({"id": 8, "name": "new"}));
}

#[tokio::test]
async fn a_delete_has_the_key_and_no_row_after() {
    let old = Some(row(&[Value::Text(b"7"), Value::Null]));
    let event = Event { op: Op::Delete, old, new: None, ..insert(at_nine(), &items(), 0, Vec::new()) };
    let line = line(event).await;
    assert_eq!(
        (&line["key"], &line["before"], &line["after"]),
        (&json!({"id": 7}), &json!({"id": 7}), &Json::Null)
    );
    assert!(line.get("after").is_some());
}

#[tokio::test]
async fn a_truncate_says_how() {
    let event =
        Event { op: Op::Truncate, new: None, cascade: true, ..insert(at_nine(), &items(), 1, Vec::new()) };
    let line = line(event).await;
    assert_eq!(
        (&line["op"], &line["cascade"], &line["restart_identity"]),
        (&json!("truncate"), &json!(true), &json!(false))
    );
    assert!(line.get("after").is_none());
}

#[tokio::test]
async fn a_value_that_was_not_sent_is_named_and_not_null() {
    let new = row(&[Value::Text(b"7"), Value::Unchanged]);
    let update = Event { op: Op::Update, ..insert(at_nine(), &items(), 0, new) };
    let unresolved = line(update.clone()).await;
    assert_eq!((&unresolved["after"], &unresolved["unchanged"]), (&json!({"id": 7}), &json!(["name"])));

    let resolved = line(Event { old: Some(texts(&["7", "long"])), old_is_full: true, ..update }).await;
    assert_eq!(resolved["after"], json!({"id": 7, "name": "long"}));
    assert!(resolved.get("unchanged").is_none());
}

#[tokio::test]
async fn a_table_without_a_key_has_whole_rows_and_no_key() {
    let relation = Relation {
        replica_identity: ReplicaIdentity::Full,
        ..Arc::unwrap_or_clone(table("log", vec![column("a", oid::TEXT, "text", false)]))
    };
    let event = Event {
        op: Op::Delete,
        old: Some(texts(&["x"])),
        old_is_full: true,
        new: None,
        ..insert(at_nine(), &Arc::new(relation), 0, Vec::new())
    };
    let line = line(event).await;
    assert_eq!((&line["key"], &line["before"]), (&Json::Null, &json!({"a": "x"})));
}

#[tokio::test]
async fn each_type_has_its_json() {
    let types = [
        (oid::BOOL, "t", json!(true)),
        (oid::INT2, "-5", json!(-5)),
        (oid::INT8, "9223372036854775807", json!(i64::MAX)),
        (oid::OID, "4294967295", json!(u32::MAX)),
        (oid::FLOAT8, "1.5e-07", json!(1.5e-7)),
        (oid::FLOAT4, "NaN", json!("NaN")),
        (oid::NUMERIC, "12345678901234567890.10", json!("12345678901234567890.10")),
        (oid::NUMERIC, "NaN", json!("NaN")),
        (oid::JSON, "{\"a\":\n 1, \"a\": 2}", json!("{\"a\":\n 1, \"a\": 2}")),
        (oid::JSONB, r#"{"n": 12345678901234567890.0}"#, json!(r#"{"n": 12345678901234567890.0}"#)),
        (oid::BYTEA, r"\xdeadbeef", json!(r"\xdeadbeef")),
        (oid::TIMESTAMPTZ, "infinity", json!("infinity")),
        (oid::TEXT, "", json!("")),
        (oid::TEXT, "\\N\u{1}\r\n\t☃", json!("\\N\u{1}\r\n\t☃")),
    ];
    let columns: Vec<Column> = types
        .iter()
        .enumerate()
        .map(|(n, (oid, ..))| column(&format!("c\"{n}"), *oid, "x", n == 0))
        .collect();
    let values: Vec<&str> = types.iter().map(|(_, text, _)| *text).collect();
    let line = line(insert(at_nine(), &table("types", columns), 0, texts(&values))).await;
    for (n, (oid, _, expected)) in types.iter().enumerate() {
        assert_eq!(&line["after"][format!("c\"{n}")], expected, "type {oid}");
    }
}

#[tokio::test]
async fn each_table_version_is_described_where_it_first_appears_in_a_file() {
    let mood = Column {
        kind: ColumnKind::Array { element_oid: 5000, element_modifier: -1, element_is_enum: true },
        ..column("moods", 5001, "mood[]", false)
    };
    let tables = [items(), table("people", vec![column("id", oid::INT4, "integer", true), mood]), items()];
    let rows = |n: usize, ordinal| insert(at_nine(), &tables[n], ordinal, texts(&["1", "x"]));
    let events: Vec<Event> =
        [0, 0, 1, 0, 1, 2, 2].iter().enumerate().map(|(ordinal, n)| rows(*n, ordinal as u64)).collect();
    let lines = archived(&events).await;
    let described: Vec<bool> = lines.iter().map(|line| line.get("relation").is_some()).collect();
    assert_eq!(described, [true, false, true, false, false, true, false]);
    let relation = &lines[2]["relation"];
    assert_eq!((&relation["oid"], &relation["replica_identity"]), (&json!(16_384), &json!("default")));
    assert_eq!(relation["columns"][0]["key"], json!(true));
    assert_eq!(
        relation["columns"][1],
        json!({
            "name": "moods", "type": "mood[]", "key": false, "not_null": false, "attnum": 1, "type_oid": 5001,
            "base_type_oid": 5001, "type_modifier": -1, "kind": "array",
            "element": {"type_oid": 5000, "type_modifier": -1, "enum": true},
        })
    );
}

#[tokio::test]
async fn a_value_that_is_not_utf8_is_rejected_by_name() {
    let mut lane = new_lane(&memory()).await;
    let good = insert(at_nine(), &items(), 0, texts(&["1", "fine"]));
    let bad = insert(at_nine(), &items(), 1, row(&[Value::Text(b"2"), Value::Text(b"\xc3")]));
    let error = prepare(&mut lane, &[good, bad]).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Reject);
    let text = error.to_string();
    assert!(text.contains("column name of public.items") && text.contains("16/B374D848+1"), "{text}");
}

#[tokio::test]
async fn a_row_of_other_columns_than_its_table_is_rejected() {
    let mut lane = new_lane(&memory()).await;
    let error = prepare(&mut lane, &[insert(at_nine(), &items(), 0, texts(&["1"]))]).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Reject);
    assert!(error.to_string().contains("public.items"), "{error}");
}

#[tokio::test]
async fn the_same_changes_make_the_same_objects() {
    let events = inserts(at_nine(), &items(), 500);
    let mut bodies = Vec::new();
    for _ in 0..2 {
        let store = memory();
        let mut lane = new_lane(&store).await;
        write(&mut lane, &events).await;
        bodies.push(raw_objects(&store).await);
    }
    assert_eq!(bodies[0], bodies[1]);
    assert_eq!(bodies[0].len(), 1);
    // Gzip's header (RFC 1952): method deflate, no flags, no time, unknown system.
    assert_eq!(&bodies[0][0].1[..8], [0x1f, 0x8b, 8, 0, 0, 0, 0, 0]);
    assert_eq!(bodies[0][0].1[9], 255);
}

#[tokio::test]
async fn a_file_lies_in_the_folder_of_its_hour_and_ends_with_it() {
    let store = memory();
    let mut lane = new_lane(&store).await;
    let hour = 3_600_000_000;
    let mut all = inserts(transaction(10, NINE_O_CLOCK + hour - 1), &items(), 3);
    all.extend(inserts(transaction(11, NINE_O_CLOCK + hour), &items(), 2));
    all.extend(inserts(transaction(12, NINE_O_CLOCK + hour - 5_000), &items(), 1));
    write(&mut lane, &all).await;
    let files = files(&store).await;
    let counts: Vec<(&str, usize)> = files.iter().map(|(path, lines)| (&path[..37], lines.len())).collect();
    let [nine, ten] = ["some/prefix/wal/events/2026/03/18/09/", "some/prefix/wal/events/2026/03/18/10/"];
    assert_eq!(counts, [(nine, 1), (nine, 3), (ten, 2)]);
    assert_eq!(event_ids(&store).await, ids(&all));
}

async fn raw_objects(store: &Arc<dyn object_store::ObjectStore>) -> Vec<(String, Vec<u8>)> {
    use futures_util::TryStreamExt;
    use object_store::ObjectStoreExt;
    let objects: Vec<_> = store.list(None).try_collect().await.unwrap();
    let mut bodies = Vec::new();
    for object in objects {
        let body = store.get(&object.location).await.unwrap().bytes().await.unwrap();
        bodies.push((object.location.to_string(), body.to_vec()));
    }
    bodies
}

#[tokio::test]
async fn a_value_in_binary_form_reads_as_its_text_does() {
    let types: [(u32, &str, &[u8]); 9] = [
        (oid::BOOL, "t", &[1]),
        (oid::INT4, "-5", &(-5i32).to_be_bytes()),
        (oid::OID, "4294967295", &u32::MAX.to_be_bytes()),
        (oid::FLOAT8, "1e+300", &1e300f64.to_be_bytes()),
        (oid::FLOAT4, "-Infinity", &f32::NEG_INFINITY.to_be_bytes()),
        (oid::NUMERIC, "-12.00", &[0, 1, 0, 0, 0x40, 0, 0, 2, 0, 12]),
        (oid::JSONB, "{\"a\": 1}", b"\x01{\"a\": 1}"),
        (oid::BYTEA, r"\x00ff", &[0, 255]),
        (oid::TIMESTAMPTZ, "infinity", &i64::MAX.to_be_bytes()),
    ];
    let columns = types.iter().enumerate().map(|(n, (oid, ..))| column(&format!("c{n}"), *oid, "x", n == 0));
    let table = table("types", columns.collect());
    let texts: Vec<Value<'_>> = types.iter().map(|(_, text, _)| Value::Text(text.as_bytes())).collect();
    let binaries: Vec<Value<'_>> = types.iter().map(|(.., binary)| Value::Binary(binary)).collect();
    let [text, binary] = [texts, binaries].map(|values| insert(at_nine(), &table, 0, row(&values)));
    assert_eq!(line(text).await, line(binary).await);
}

#[tokio::test]
async fn bytes_that_are_not_of_their_type_are_rejected_by_name() {
    let mut lane = new_lane(&memory()).await;
    let event = insert(at_nine(), &items(), 1, row(&[Value::Binary(&[1, 2]), Value::Null]));
    let error = prepare(&mut lane, &[event]).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Reject);
    let text = error.to_string();
    assert!(
        text.contains("public.items") && text.contains("\"id\"") && text.contains("16/B374D848+1"),
        "{text}"
    );
}

fn message(ordinal: u64, transactional: bool, content: &[u8]) -> Event {
    let flag: &[u8] = if transactional { b"t" } else { b"f" };
    let new = row(&[Value::Text(flag), Value::Text(b"audit\"1\""), Value::Binary(content)]);
    Event { op: Op::Message, ..insert(at_nine(), &Arc::new(Relation::message()), ordinal, new) }
}

#[tokio::test]
async fn a_message_is_an_event_with_its_content_as_text_or_in_base64() {
    let events = [message(0, true, "who: élise\n\0".as_bytes()), message(1, false, &[0xff, 0])];
    let lines = archived(&events).await;
    assert_eq!(
        lines[0],
        json!({
            "event_id": events[0].id(), "op": "message", "lsn": "16/B374D848", "ordinal": 0,
            "commit_time": "2026-03-18T09:05:01.000042Z", "xid": events[0].transaction.xid,
            "transactional": true, "prefix": "audit\"1\"", "content": "who: élise\n\0",
        })
    );
    assert_eq!(
        (&lines[1]["transactional"], &lines[1]["content_base64"], lines[1].get("content")),
        (&json!(false), &json!("/wA="), None)
    );
    assert!(sink(&memory()).wants_messages());
}

#[tokio::test]
async fn a_message_among_changes_is_there_once_however_the_stream_is_cut() {
    let store = memory();
    let rows = inserts(at_nine(), &items(), 4);
    let all = [rows[0].clone(), message(1, true, b"m"), rows[2].clone(), rows[3].clone()];
    let mut lane = new_lane(&store).await;
    // Both look before either writes, so the second has to leave out what the first put.
    let mut longer = prepare(&mut lane, &all).await.unwrap();
    write(&mut new_lane(&store).await, &all[..1]).await;
    longer.send().await.unwrap();
    let lines = support::events(&store).await;
    assert_eq!(event_ids(&store).await, ids(&all));
    assert!(
        lines[2].get("relation").is_some(),
        "the first row of the rest describes its table: {}",
        lines[2]
    );
}

#[tokio::test]
async fn a_new_shape_of_a_table_is_told_by_the_next_row_and_is_no_event() {
    let store = memory();
    let mut lane = new_lane(&store).await;
    let wider = table(
        "items",
        vec![
            column("id", oid::INT8, "bigint", true),
            column("name", oid::TEXT, "text", false),
            Column {
                attnum: 3,
                missing_text: Some("none".into()),
                default_sql: Some("'some'::text".into()),
                ..column("note", oid::TEXT, "text", false)
            },
        ],
    );
    let before = insert(at_nine(), &items(), 0, texts(&["1", "x"]));
    let schema = Event { op: Op::Schema, new: None, ..insert(at_nine(), &wider, 1, Vec::new()) };
    let after = insert(at_nine(), &wider, 1, texts(&["2", "x", "y"]));
    write(&mut lane, std::slice::from_ref(&schema)).await;
    assert!(files(&store).await.is_empty(), "nothing to write");
    write(&mut lane, &[before.clone(), schema.clone(), after.clone(), schema]).await;
    let lines = support::events(&store).await;
    assert_eq!(event_ids(&store).await, [before.id(), after.id()]);
    let note = &lines[1]["relation"]["columns"][2];
    assert_eq!(
        (&note["name"], &note["attnum"], &note["missing"], &note["default"]),
        (&json!("note"), &json!(3), &json!("none"), &json!("'some'::text"))
    );
    assert_eq!(lines[1]["relation"]["columns"][1].get("default"), None);
}
