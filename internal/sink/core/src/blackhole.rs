use crate::{KeyChanges, Lane, Sink, SinkError, StreamInfo, TableCopy, Write};
use async_trait::async_trait;
use replicator_types::{Batch, CheckItem, Lsn, Relation};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// A sink that walks every value and keeps none: for measuring everything but a destination.
///
/// It calls nothing durable, so with it alone the slot's WAL is given up as it is read.
#[derive(Debug)]
pub struct Blackhole {
    name: String,
    shards: u32,
    values: Arc<AtomicU64>,
    notes: Mutex<BTreeMap<String, String>>,
}

impl Blackhole {
    /// A blackhole of that name with that many lanes.
    pub fn new(name: impl Into<String>, shards: u32) -> Self {
        Self { name: name.into(), shards, values: Arc::default(), notes: Mutex::default() }
    }

    /// How many values it has walked.
    pub fn values(&self) -> u64 {
        self.values.load(Ordering::Relaxed)
    }
}

#[async_trait]
impl Sink for Blackhole {
    fn name(&self) -> &str {
        &self.name
    }

    fn kind(&self) -> &'static str {
        "blackhole"
    }

    fn shards(&self) -> u32 {
        self.shards
    }

    fn key_changes(&self) -> KeyChanges {
        KeyChanges::Split
    }

    async fn check(&self, _tables: &[Arc<Relation>]) -> Vec<CheckItem> {
        vec![CheckItem::ok("blackhole", "keeps nothing")]
    }

    async fn prepare(&self, _stream: &StreamInfo) -> Result<(), SinkError> {
        Ok(())
    }

    async fn open_lane(&self, _shard: u32, _stream: &StreamInfo) -> Result<Box<dyn Lane>, SinkError> {
        Ok(Box::new(BlackholeLane { values: Arc::clone(&self.values) }))
    }

    async fn notes(&self) -> Result<BTreeMap<String, String>, SinkError> {
        Ok(self.notes.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }

    async fn put_note(&self, key: &str, value: Option<&str>) -> Result<(), SinkError> {
        let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        match value {
            Some(value) => notes.insert(key.to_owned(), value.to_owned()),
            None => notes.remove(key),
        };
        Ok(())
    }

    async fn reach(&self) -> Result<Option<Lsn>, SinkError> {
        Ok(Some(Lsn::default()))
    }

    async fn begin_copy(&self, _copy: &TableCopy) -> Result<bool, SinkError> {
        Ok(true)
    }

    async fn open_copy_lane(&self, shard: u32, stream: &StreamInfo) -> Result<Box<dyn Lane>, SinkError> {
        self.open_lane(shard, stream).await
    }

    async fn end_copy(&self, _copy: &TableCopy) -> Result<(), SinkError> {
        Ok(())
    }

    async fn ping(&self) -> Result<(), SinkError> {
        Ok(())
    }
}

struct BlackholeLane {
    values: Arc<AtomicU64>,
}

#[async_trait]
impl Lane for BlackholeLane {
    async fn prepare(&mut self, batch: Arc<Batch>) -> Result<Box<dyn Write>, SinkError> {
        let walked: u64 = batch.changes().map(|change| change.new_values().count() as u64).sum();
        self.values.fetch_add(walked, Ordering::Relaxed);
        Ok(Box::new(Nothing))
    }
}

/// A write of which nothing is left to be sent.
pub struct Nothing;

#[async_trait]
impl Write for Nothing {
    fn held_bytes(&self) -> usize {
        0
    }

    async fn send(&mut self) -> Result<(), SinkError> {
        Ok(())
    }
}
