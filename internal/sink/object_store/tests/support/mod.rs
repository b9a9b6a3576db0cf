//! What the tests share.
#![allow(dead_code, unreachable_pub, missing_docs, clippy::unwrap_used)]

pub mod batches;
pub mod faulty;

use batches::{Event, batch, stream_info};
use flate2::read::MultiGzDecoder;
use futures_util::TryStreamExt;
use object_store::ObjectStore;
use object_store::ObjectStoreExt;
use object_store::memory::InMemory;
use replicator_sink::{Lane, Sink, SinkError, Write};
use replicator_sink_object_store::ObjectStoreSink;
use serde_json::Value as Json;
use std::collections::BTreeMap;
use std::io::Read;
use std::sync::Arc;

pub fn logger() -> slog::Logger {
    slog::Logger::root(slog::Discard, slog::o!())
}

pub fn memory() -> Arc<dyn ObjectStore> {
    Arc::new(InMemory::new())
}

/// A sink over `store`, under the prefix `some/prefix`.
pub fn sink(store: &Arc<dyn ObjectStore>) -> ObjectStoreSink {
    ObjectStoreSink::at("archive".into(), Arc::clone(store), "some/prefix", 1, 8, logger())
}

/// A lane as a process opens it that has just started.
pub async fn new_lane(store: &Arc<dyn ObjectStore>) -> Box<dyn Lane> {
    let sink = sink(store);
    sink.prepare(&stream_info()).await.unwrap();
    sink.open_lane(0, &stream_info()).await.unwrap()
}

pub async fn prepare(lane: &mut Box<dyn Lane>, events: &[Event]) -> Result<Box<dyn Write>, SinkError> {
    lane.prepare(batch(events)).await
}

/// Prepares and sends, both without errors.
pub async fn write(lane: &mut Box<dyn Lane>, events: &[Event]) {
    let mut write = prepare(lane, events).await.unwrap();
    write.send().await.unwrap();
    assert_eq!(write.held_bytes(), 0, "what is durable is not held");
}

/// Every object's path and lines.
pub async fn files(store: &Arc<dyn ObjectStore>) -> BTreeMap<String, Vec<Json>> {
    let objects: Vec<_> = store.list(None).try_collect().await.unwrap();
    let mut files = BTreeMap::new();
    for object in objects {
        let body = store.get(&object.location).await.unwrap().bytes().await.unwrap();
        files.insert(object.location.to_string(), lines(&body));
    }
    files
}

pub fn lines(body: &[u8]) -> Vec<Json> {
    let mut text = String::new();
    MultiGzDecoder::new(body).read_to_string(&mut text).unwrap();
    assert!(text.ends_with('\n'));
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// All events of all files, sorted by id.
pub async fn events(store: &Arc<dyn ObjectStore>) -> Vec<Json> {
    let mut events: Vec<Json> = files(store).await.into_values().flatten().collect();
    events.sort_by_key(|event| event["event_id"].as_str().unwrap().to_owned());
    events
}

pub async fn event_ids(store: &Arc<dyn ObjectStore>) -> Vec<String> {
    events(store).await.iter().map(|event| event["event_id"].as_str().unwrap().to_owned()).collect()
}

pub fn ids(events: &[Event]) -> Vec<String> {
    events.iter().map(Event::id).collect()
}

/// Prepares and sends copied rows.
pub async fn write_copied(lane: &mut Box<dyn Lane>, events: &[Event]) {
    let mut write = prepare_copied(lane, events).await;
    write.send().await.unwrap();
}

pub async fn prepare_copied(lane: &mut Box<dyn Lane>, events: &[Event]) -> Box<dyn Write> {
    let batch = batches::batch_of(replicator_types::Phase::Copy { fresh: true }, events);
    lane.prepare(batch).await.unwrap()
}
