//! Copied rows and notes, through a store in memory.

#![allow(clippy::unwrap_used)]

mod support;

use object_store::{ObjectStore, ObjectStoreExt};
use replicator_sink::{ErrorKind, Lane, Sink, StreamInfo, TableCopy};
use replicator_sink_object_store::ObjectStoreSink;
use replicator_types::{Lsn, SlotIdentity};
use serde_json::{Value as Json, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use support::batches::*;
use support::faulty::{Fault, Faulty};
use support::*;

const NOTES: &str = "some/prefix/replicator/notes/0000000000001234-my_slot-archive.json";

/// As a process has it that has just started.
async fn started(store: &Arc<dyn ObjectStore>) -> ObjectStoreSink {
    let sink = sink(store);
    sink.prepare(&stream_info()).await.unwrap();
    sink
}

async fn copy_lane(store: &Arc<dyn ObjectStore>) -> Box<dyn Lane> {
    started(store).await.open_copy_lane(0, &stream_info()).await.unwrap()
}

/// Position as readers have it: LSN, ordinal.
fn position(line: &Json) -> (Lsn, u64) {
    (line["lsn"].as_str().unwrap().parse().unwrap(), line["ordinal"].as_u64().unwrap())
}

#[tokio::test]
async fn a_copied_row_is_a_read_at_the_snapshot_in_a_file_of_its_own_kind() {
    let store = memory();
    let copy = table_copy(&items(), 0x16_B374_D848);
    write_copied(&mut copy_lane(&store).await, &copied_rows(&copy, (3 << 43) + (7 << 11) + 1, 2)).await;
    let files = files(&store).await;
    let (path, lines) = files.first_key_value().unwrap();
    assert!(
        path.starts_with("some/prefix/wal/copy/2026/03/18/09/") && path.ends_with(".ndjson.gz"),
        "{path}"
    );
    let number = (3u64 << 43) + (7 << 11) + 1;
    let mut first = lines[0].clone();
    assert!(first.as_object_mut().unwrap().remove("relation").is_some());
    assert_eq!(
        first,
        json!({
            "event_id": format!("0000000000001234-my_slot-00000016b374d847-{number:016x}-16384"),
            "op": "read", "schema": "public", "table": "items", "lsn": "16/B374D847", "ordinal": number,
            "commit_time": "2026-03-18T09:00:00.000000Z", "xid": 0,
            "key": {"id": number}, "before": null, "after": {"id": number, "name": "a name"},
        })
    );
    assert_eq!((files.len(), lines.len()), (1, 2));
}

#[tokio::test]
async fn a_batch_of_copied_rows_that_is_sent_again_changes_nothing() {
    let faulty = Faulty::new(memory());
    let store: Arc<dyn ObjectStore> = faulty.clone();
    let rows = copied_rows(&table_copy(&items(), 800), 0, 100);
    let mut lane = copy_lane(&store).await;
    let mut write = prepare_copied(&mut lane, &rows).await;
    faulty.plan([Fault::After]);
    assert_eq!(write.send().await.unwrap_err().kind(), ErrorKind::Retry);
    write.send().await.unwrap();
    let before = files(&store).await;
    // Another lane, another process.
    write_copied(&mut copy_lane(&store).await, &rows).await;
    assert_eq!(files(&store).await, before);
    assert_eq!(before.into_values().map(|lines| lines.len()).collect::<Vec<_>>(), [100]);
}

#[tokio::test]
async fn copied_rows_that_come_again_cut_otherwise_are_there_once() {
    let store = memory();
    let rows = copied_rows(&table_copy(&items(), 800), 0, 30);
    let mut lane = copy_lane(&store).await;
    write_copied(&mut lane, &rows[..10]).await;
    write_copied(&mut lane, &rows).await;
    let ids = event_ids(&store).await;
    assert_eq!(ids.len(), 30);
    assert!(ids.iter().zip(ids.iter().skip(1)).all(|(a, b)| a < b));
    for lines in files(&store).await.values() {
        assert!(lines[0].get("relation").is_some(), "each file describes its table");
    }
}

#[tokio::test]
async fn rows_of_two_tables_at_the_same_position_are_both_there() {
    let store = memory();
    let other = Arc::new(replicator_types::Relation { oid: 5, name: "other".into(), ..(*items()).clone() });
    let mut lane = copy_lane(&store).await;
    for relation in [&items(), &other] {
        write_copied(&mut lane, &copied_rows(&table_copy(relation, 800), 0, 3)).await;
    }
    let tables: Vec<String> =
        events(&store).await.iter().map(|line| line["table"].as_str().unwrap().to_owned()).collect();
    assert_eq!(tables.iter().filter(|name| *name == "other").count(), 3);
    assert_eq!((tables.len(), files(&store).await.len()), (6, 2));
    let mut ids = event_ids(&store).await;
    ids.dedup();
    assert_eq!(ids.len(), 6);
}

#[tokio::test]
async fn a_table_that_begins_anew_is_truncated_above_what_the_snapshot_has_and_below_its_rows() {
    let store = memory();
    let sink = started(&store).await;
    let old = inserts(transaction(0x7f8, NINE_O_CLOCK), &items(), 1);
    write(&mut sink.open_lane(0, &stream_info()).await.unwrap(), &old).await;
    let copy = table_copy(&items(), 0x800);
    for _ in 0..2 {
        assert!(sink.begin_copy(&copy).await.unwrap());
    }
    let mut lane = sink.open_copy_lane(0, &stream_info()).await.unwrap();
    write_copied(&mut lane, &copied_rows(&copy, 0, 2)).await;
    sink.end_copy(&copy).await.unwrap();
    let mut lines = events(&store).await;
    lines.sort_by_key(position);
    let ops: Vec<&str> = lines.iter().map(|line| line["op"].as_str().unwrap()).collect();
    assert_eq!(ops, ["insert", "truncate", "read", "read"]);
    assert_eq!((&lines[1]["table"], position(&lines[1])), (&json!("items"), (Lsn(0x7fe), 16_384)));
    assert!(lines[1].get("relation").is_some());
}

#[tokio::test]
async fn a_copy_that_goes_on_keeps_what_is_there() {
    let store = memory();
    let sink = started(&store).await;
    let copy = TableCopy { is_resumed: true, ..table_copy(&items(), 0x800) };
    assert!(sink.begin_copy(&copy).await.unwrap());
    sink.end_copy(&copy).await.unwrap();
    assert!(files(&store).await.is_empty());
}

async fn notes(store: &Arc<dyn ObjectStore>) -> BTreeMap<String, String> {
    started(store).await.notes().await.unwrap()
}

fn as_notes(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

#[tokio::test]
async fn a_note_is_there_for_the_next_process() {
    let store = memory();
    let sink = started(&store).await;
    assert_eq!(sink.notes().await.unwrap(), BTreeMap::new());
    sink.put_note("copy.1", Some("range 7 \"of\" 9")).await.unwrap();
    sink.put_note("copy.2", Some("done")).await.unwrap();
    sink.put_note("copy.2", Some("really done")).await.unwrap();
    sink.put_note("copy.3", Some("x")).await.unwrap();
    sink.put_note("copy.3", None).await.unwrap();
    sink.put_note("copy.4", None).await.unwrap();
    let expected = as_notes(&[("copy.1", "range 7 \"of\" 9"), ("copy.2", "really done")]);
    assert_eq!(sink.notes().await.unwrap(), expected);
    assert_eq!(notes(&store).await, expected);
    let body = store.get(&NOTES.into()).await.unwrap().bytes().await.unwrap();
    assert_eq!(serde_json::from_slice::<BTreeMap<String, String>>(&body).unwrap(), expected);
}

#[tokio::test]
async fn a_note_whose_put_failed_is_known_only_if_it_is_there() {
    let faulty = Faulty::new(memory());
    let store: Arc<dyn ObjectStore> = faulty.clone();
    let sink = started(&store).await;
    sink.put_note("a", Some("1")).await.unwrap();
    for (fault, expected) in [(Fault::Before, "1"), (Fault::After, "2")] {
        faulty.plan([fault]);
        assert_eq!(sink.put_note("a", Some("2")).await.unwrap_err().kind(), ErrorKind::Retry);
        assert_eq!(sink.notes().await.unwrap(), as_notes(&[("a", expected)]));
    }
    sink.put_note("a", Some("2")).await.unwrap();
    assert_eq!(notes(&store).await, as_notes(&[("a", "2")]));
}

#[tokio::test]
async fn notes_of_another_slot_are_left_alone() {
    let store = memory();
    started(&store).await.put_note("a", Some("mine")).await.unwrap();
    let other = sink(&store);
    let identity = SlotIdentity { slot: "other".into(), ..identity() };
    other.prepare(&StreamInfo { identity, ..stream_info() }).await.unwrap();
    assert!(other.notes().await.unwrap().is_empty());
    other.put_note("a", Some("theirs")).await.unwrap();
    assert_eq!(notes(&store).await, as_notes(&[("a", "mine")]));
}

#[tokio::test]
async fn notes_that_cannot_be_read_stop_the_sink_with_the_remedy() {
    let store = memory();
    store.put(&NOTES.into(), b"{\"a\": 1".to_vec().into()).await.unwrap();
    let error = started(&store).await.notes().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Halt);
    assert!(
        error.to_string().contains("replicator/notes") && error.to_string().contains("remove it"),
        "{error}"
    );
}
