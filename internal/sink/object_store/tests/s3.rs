//! A real S3 server, which checks signatures.

#![allow(clippy::unwrap_used)]

mod support;

use replicator_config::ObjectStoreConfig;
use replicator_harness::{Direction, Proxy, S3};
use replicator_sink::{ErrorKind, Lane, Sink};
use replicator_sink_object_store::{ObjectStoreSink, open};
use serde_json::{Value as Json, json};
use std::collections::BTreeMap;
use support::batches::*;
use support::{ids, lines, logger, prepare, prepare_copied, write, write_copied};

const BUCKET: &str = "lake";

fn settings(s3: &S3) -> Json {
    json!({
        "url": format!("s3://{BUCKET}/shop"), "endpoint": s3.endpoint(), "region": "us-east-1",
        "access_key_id": s3.access_key(), "secret_access_key": s3.secret_key(), "request_timeout_ms": 5000,
    })
}

fn open_with(settings: Json) -> ObjectStoreSink {
    let config: ObjectStoreConfig = serde_json::from_value(settings).unwrap();
    open("archive".into(), config, logger()).unwrap()
}

async fn new_lane(sink: &ObjectStoreSink) -> Box<dyn Lane> {
    sink.prepare(&stream_info()).await.unwrap();
    sink.open_lane(0, &stream_info()).await.unwrap()
}

fn archive(s3: &S3) -> BTreeMap<String, Vec<Json>> {
    s3.list(BUCKET, "shop/wal/events/")
        .into_iter()
        .map(|key| (key.clone(), lines(&s3.get(BUCKET, &key))))
        .collect()
}

fn archived_ids(s3: &S3) -> Vec<String> {
    let mut ids: Vec<String> =
        archive(s3).values().flatten().map(|line| line["event_id"].as_str().unwrap().to_owned()).collect();
    ids.sort();
    ids
}

#[tokio::test(flavor = "multi_thread")]
async fn events_arrive_once_however_often_they_are_sent() {
    let s3 = S3::with_bucket(BUCKET);
    let sink = open_with(settings(&s3));
    let events = inserts(transaction(1, NINE_O_CLOCK), &items(), 50);
    let mut lane = new_lane(&sink).await;
    write(&mut lane, &events[..20]).await;
    write(&mut lane, &events[30..40]).await;
    let first: Vec<String> = archive(&s3).into_keys().collect();
    assert!(first[0].starts_with("shop/wal/events/2026/03/18/09/"), "{first:?}");
    // A new process, cut differently, over what the first one left.
    let mut lane = new_lane(&open_with(settings(&s3))).await;
    for part in events.chunks(7) {
        write(&mut lane, part).await;
    }
    assert_eq!(archived_ids(&s3), ids(&events));
    assert!(first.iter().all(|key| archive(&s3).contains_key(key)));
    sink.ping().await.unwrap();
    assert!(sink.check(&[]).await.iter().all(|item| item.result.is_ok()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_is_taken_is_compared_and_not_overwritten() {
    let s3 = S3::with_bucket(BUCKET);
    let sink = open_with(settings(&s3));
    let events = inserts(transaction(1, NINE_O_CLOCK), &items(), 20);
    // Both look before either writes, as a process and the last put of the one before it may.
    let mut same = prepare(&mut new_lane(&sink).await, &events[..5]).await.unwrap();
    let mut longer = prepare(&mut new_lane(&sink).await, &events).await.unwrap();
    let mut early = prepare(&mut new_lane(&sink).await, &events[..5]).await.unwrap();
    early.send().await.unwrap();
    same.send().await.unwrap();
    longer.send().await.unwrap();
    assert_eq!(archived_ids(&s3), ids(&events));
    assert_eq!(archive(&s3).values().map(Vec::len).collect::<Vec<_>>(), [5, 15]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_was_away_gets_it_with_the_next_try() {
    let s3 = S3::with_bucket(BUCKET);
    let sink = open_with(settings(&s3));
    let events = inserts(transaction(1, NINE_O_CLOCK), &items(), 5);
    let mut write = prepare(&mut new_lane(&sink).await, &events).await.unwrap();
    s3.stop();
    let error = write.send().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Retry, "{error}");
    assert_eq!(sink.ping().await.unwrap_err().kind(), ErrorKind::Retry);
    s3.start_again();
    write.send().await.unwrap();
    assert_eq!(archived_ids(&s3), ids(&events));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reply_that_the_network_lost_leads_to_no_second_copy() {
    let s3 = S3::with_bucket(BUCKET);
    let proxy = Proxy::start(s3.address());
    let mut settings = settings(&s3);
    settings["endpoint"] = json!(format!("http://{}", proxy.address()));
    let sink = open_with(settings);
    let events = inserts(transaction(1, NINE_O_CLOCK), &items(), 5);
    let mut write = prepare(&mut new_lane(&sink).await, &events).await.unwrap();
    proxy.cut_after(5, Direction::ToClient);
    while let Err(error) = write.send().await {
        assert_eq!(error.kind(), ErrorKind::Retry, "{error}");
        assert_eq!(archived_ids(&s3), ids(&events), "the put came through, its reply did not");
        proxy.accept();
    }
    assert_eq!(archived_ids(&s3), ids(&events));
    assert_eq!(archive(&s3).len(), 1);
}

/// What `prepare`, the lane and `check` say.
async fn complaints(sink: &ObjectStoreSink) -> Vec<(ErrorKind, String)> {
    let events = inserts(transaction(1, NINE_O_CLOCK), &items(), 1);
    let prepared = sink.prepare(&stream_info()).await.unwrap_err();
    let mut lane = sink.open_lane(0, &stream_info()).await.unwrap();
    let listed = prepare(&mut lane, &events).await.err().unwrap();
    let checked: Vec<_> = sink.check(&[]).await.into_iter().filter_map(|item| item.result.err()).collect();
    assert_eq!(checked.len(), 1);
    let errors = [prepared, listed].map(|error| (error.kind(), error.to_string()));
    errors.into_iter().chain(checked.into_iter().map(|text| (ErrorKind::Halt, text))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_key_and_a_missing_bucket_are_told_with_the_remedy_and_without_the_secret() {
    let s3 = S3::with_bucket(BUCKET);
    for (setting, value, remedy) in [
        ("secret_access_key", "wrong-hush", "secret_access_key"),
        ("access_key_id", "stranger", "access_key_id"),
        ("url", "s3://absent/shop", "Create the bucket"),
    ] {
        let mut settings = settings(&s3);
        settings[setting] = json!(value);
        let sink = open_with(settings);
        let mut told = complaints(&sink).await;
        // This server answers a read from a bucket that is not there as if only the object were missing.
        if setting != "url" {
            let error = sink.ping().await.unwrap_err();
            told.push((error.kind(), error.to_string()));
        }
        for (kind, text) in told {
            assert_eq!(kind, ErrorKind::Halt, "{text}");
            assert!(text.contains(remedy), "{setting}: {text}");
            assert!(!text.contains("hush") && !text.contains(s3.secret_key()), "{text}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_secret_may_lie_in_a_file() {
    let s3 = S3::with_bucket(BUCKET);
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), format!("{}\n", s3.secret_key())).unwrap();
    let mut settings = settings(&s3);
    settings["secret_access_key"] = json!("");
    settings["secret_access_key_file"] = json!(file.path());
    open_with(settings.clone()).prepare(&stream_info()).await.unwrap();
    settings["secret_access_key_file"] = json!("/nowhere/secret");
    let error = open("archive".into(), serde_json::from_value(settings).unwrap(), logger()).err().unwrap();
    assert!(error.to_string().contains("/nowhere/secret"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_by_several_lanes_that_is_sent_again_is_there_once_with_its_notes() {
    let s3 = S3::with_bucket(BUCKET);
    let copy = table_copy(&items(), 0x800);
    let rows = copied_rows(&copy, 0, 400);
    // The first process writes half of it, and dies.
    for (parts, ranges_done) in [(&rows[..200], "0-1"), (&rows[..], "0-3")] {
        let sink = open_with(settings(&s3));
        sink.prepare(&stream_info()).await.unwrap();
        let mut sending = Vec::new();
        for (number, part) in parts.chunks(100).enumerate() {
            let mut lane = sink.open_copy_lane(number as u32, &stream_info()).await.unwrap();
            let mut write = prepare_copied(&mut lane, part).await;
            sending.push(tokio::spawn(async move { write.send().await }));
        }
        for send in sending {
            send.await.unwrap().unwrap();
        }
        sink.put_note("copy.16384", Some(ranges_done)).await.unwrap();
    }
    let sink = open_with(settings(&s3));
    sink.prepare(&stream_info()).await.unwrap();
    sink.begin_copy(&copy).await.unwrap();
    write_copied(&mut sink.open_copy_lane(0, &stream_info()).await.unwrap(), &rows[..100]).await;
    assert_eq!(sink.notes().await.unwrap(), [("copy.16384".to_owned(), "0-3".to_owned())].into());
    let keys = s3.list(BUCKET, "shop/wal/copy/");
    let reads: Vec<Json> = keys.iter().flat_map(|key| lines(&s3.get(BUCKET, key))).collect();
    let mut numbers: Vec<u64> = reads
        .iter()
        .filter(|line| line["op"] == "read")
        .map(|line| line["ordinal"].as_u64().unwrap())
        .collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (0..400).collect::<Vec<u64>>());
    assert_eq!((reads.len(), keys.len()), (401, 5));
    let notes = s3.list(BUCKET, "shop/replicator/notes/");
    assert_eq!(notes, ["shop/replicator/notes/0000000000001234-my_slot-archive.json"]);
}
