//! Where a sink's notes are, for the product's code that keeps the versions of tables there. A note is durable at once.

use crate::plan::Kind;
use async_trait::async_trait;
use replicator_sink::{KeyChanges, Lane, Nothing, Sink, SinkError, StreamInfo, TableCopy, Write};
use replicator_types::{Batch, CheckItem, Relation};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A sink of which there is nothing but its notes.
pub(crate) struct Keeper {
    key_changes: KeyChanges,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    is_down: bool,
    notes: BTreeMap<String, String>,
}

impl Keeper {
    pub(crate) fn new(kind: Kind) -> Self {
        let key_changes = if kind.is_log() { KeyChanges::Whole } else { KeyChanges::Split };
        Self { key_changes, kept: Mutex::default() }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set_up(&self, is_up: bool) {
        self.kept().is_down = !is_up;
    }
}

#[async_trait]
impl Sink for Keeper {
    fn name(&self) -> &str {
        "simulated"
    }

    fn kind(&self) -> &'static str {
        "simulated"
    }

    fn shards(&self) -> u32 {
        1
    }

    fn key_changes(&self) -> KeyChanges {
        self.key_changes
    }

    async fn check(&self, _tables: &[Arc<Relation>]) -> Vec<CheckItem> {
        Vec::new()
    }

    async fn prepare(&self, _stream: &StreamInfo) -> Result<(), SinkError> {
        Ok(())
    }

    async fn open_lane(&self, _shard: u32, _stream: &StreamInfo) -> Result<Box<dyn Lane>, SinkError> {
        Ok(Box::new(Nowhere))
    }

    async fn notes(&self) -> Result<BTreeMap<String, String>, SinkError> {
        Ok(self.kept().notes.clone())
    }

    async fn put_note(&self, key: &str, value: Option<&str>) -> Result<(), SinkError> {
        let mut kept = self.kept();
        if kept.is_down {
            return Err(SinkError::retry("the sink is down"));
        }
        match value {
            Some(value) => kept.notes.insert(key.to_owned(), value.to_owned()),
            None => kept.notes.remove(key),
        };
        Ok(())
    }

    async fn begin_copy(&self, _copy: &TableCopy) -> Result<bool, SinkError> {
        Ok(true)
    }

    async fn open_copy_lane(&self, _number: u32, _stream: &StreamInfo) -> Result<Box<dyn Lane>, SinkError> {
        Ok(Box::new(Nowhere))
    }

    async fn end_copy(&self, _copy: &TableCopy) -> Result<(), SinkError> {
        Ok(())
    }

    async fn ping(&self) -> Result<(), SinkError> {
        Ok(())
    }
}

/// Batches are read elsewhere: see [`Store`](crate::store::Store).
pub(crate) struct Nowhere;

#[async_trait]
impl Lane for Nowhere {
    async fn prepare(&mut self, _batch: Arc<Batch>) -> Result<Box<dyn Write>, SinkError> {
        Ok(Box::new(Nothing))
    }
}
