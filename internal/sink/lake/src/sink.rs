use crate::copies;
use crate::lane::{CopyLane, Shared, StreamLane};
use crate::metrics::LakeMetrics;
use crate::progress;
use async_trait::async_trait;
use object_store::ObjectStore;
use replicator_config::{LakeConfig, ParquetCompression};
use replicator_lake::layout::TABLES;
use replicator_lake::{Compression, FileOptions, Identity};
use replicator_sink::{CLAIM_NOTE, KeyChanges, Lane, Sink, SinkError, StreamInfo, TableCopy};
use replicator_store::{Notes, Store};
use replicator_types::{CheckItem, Lsn, POSTGRES_EPOCH_UNIX_MICROS, Relation, SlotIdentity};
use slog::Logger;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::sync::{Mutex, OnceCell};

/// Higher levels took several times as long for a tenth less.
const ZSTD_LEVEL: i32 = 1;

/// The lake as a sink. See the crate's documentation.
pub struct LakeSink {
    name: String,
    shared: Shared,
    /// Of [`Sink::prepare`].
    stream: OnceCell<Stream>,
    /// When each copy was begun, by table and snapshot, microseconds since 2000-01-01 UTC: the same at each try, so
    /// that the same file is written.
    copies_begun: Mutex<HashMap<(u32, Lsn), i64>>,
}

/// What there is of a stream.
struct Stream {
    slot: SlotIdentity,
    notes: Notes,
}

/// The sink `name` at the place that `config` names. Connects to nothing yet.
///
/// # Errors
/// For a person to mend: the URL is none of `s3://bucket/prefix` and `file:///folder`, or a secret's file cannot be
/// read.
pub fn open(name: String, config: LakeConfig, logger: Logger) -> Result<LakeSink, SinkError> {
    let store = Store::open(&config.place(), logger.clone())?;
    let compression = match config.compression {
        ParquetCompression::Zstd => Compression::Zstd(ZSTD_LEVEL),
        ParquetCompression::Snappy => Compression::Snappy,
        ParquetCompression::None => Compression::None,
    };
    let options = FileOptions { compression, row_group_rows_max: config.row_group_rows_max };
    Ok(LakeSink::of(name, store, options, config.in_flight_max, logger))
}

impl LakeSink {
    /// The sink `name` at `prefix` in a store made elsewhere: one that is wrapped, or only in memory. The store
    /// has to be durable in itself when its puts return.
    pub fn at(
        name: String,
        store: Arc<dyn ObjectStore>,
        prefix: &str,
        options: FileOptions,
        in_flight_max: usize,
        logger: Logger,
    ) -> Self {
        Self::of(name, Store::at(store, prefix, logger.clone()), options, in_flight_max, logger)
    }

    fn of(name: String, store: Store, options: FileOptions, in_flight_max: usize, logger: Logger) -> Self {
        let metrics = Arc::new(LakeMetrics::new(&name));
        let store = Arc::new(store);
        let in_flight_max = in_flight_max.max(1);
        Self {
            name,
            shared: Shared { store, metrics, options, in_flight_max, logger },
            stream: OnceCell::new(),
            copies_begun: Mutex::default(),
        }
    }

    fn stream(&self) -> Result<&Stream, SinkError> {
        let prepared = self.stream.get();
        prepared
            .ok_or_else(|| SinkError::retry(format!("sink {} was asked before it was prepared", self.name)))
    }
}

#[async_trait]
impl Sink for LakeSink {
    fn name(&self) -> &str {
        &self.name
    }

    fn kind(&self) -> &'static str {
        "lake"
    }

    fn shards(&self) -> u32 {
        1
    }

    fn key_changes(&self) -> KeyChanges {
        KeyChanges::Whole
    }

    async fn check(&self, _tables: &[Arc<Relation>]) -> Vec<CheckItem> {
        let store = &self.shared.store;
        let place = store.place();
        let mut items = Vec::new();
        if let Some(local) = store.local() {
            items.push(CheckItem { what: format!("lake folder {place}"), result: local.check() });
        }
        let what = format!("lake {place}");
        items.push(match store.try_listing(TABLES).await {
            Ok(()) => {
                CheckItem::ok(what, "can be listed (whether it can be written shows with the first file)")
            }
            Err(error) => CheckItem::fail(what, error.to_string()),
        });
        items
    }

    async fn prepare(&self, stream: &StreamInfo) -> Result<(), SinkError> {
        let store = &self.shared.store;
        if let Some(local) = store.local() {
            local.create().await?;
        }
        store.try_listing(TABLES).await?;
        let slot = stream.identity.clone();
        let make = || async {
            Stream { notes: Notes::new(Arc::clone(store), &slot, &self.name), slot: slot.clone() }
        };
        let known = self.stream.get_or_init(make).await;
        if known.slot != stream.identity {
            return Err(SinkError::halt(format!(
                "sink {} was prepared for {} and is asked for {}",
                self.name, known.slot, stream.identity
            )));
        }
        Ok(())
    }

    async fn open_lane(&self, _shard: u32, stream: &StreamInfo) -> Result<Box<dyn Lane>, SinkError> {
        Ok(Box::new(StreamLane::new(self.shared.clone(), Identity::of(&stream.identity))))
    }

    async fn notes(&self) -> Result<BTreeMap<String, String>, SinkError> {
        self.stream()?.notes.all().await
    }

    async fn put_note(&self, key: &str, value: Option<&str>) -> Result<(), SinkError> {
        self.stream()?.notes.put(key, value).await
    }

    async fn put_notes(&self, notes: &[(String, String)]) -> Result<(), SinkError> {
        let notes = notes.iter().map(|(key, value)| (key.as_str(), Some(value.as_str())));
        self.stream()?.notes.put_all(notes).await
    }

    async fn claimant(&self) -> Result<Option<String>, SinkError> {
        // Not what is remembered of them.
        let notes = Notes::new(Arc::clone(&self.shared.store), &self.stream()?.slot, &self.name);
        Ok(notes.all().await?.remove(CLAIM_NOTE))
    }

    async fn reach(&self) -> Result<Option<Lsn>, SinkError> {
        progress::reach(&self.shared.store, &Identity::of(&self.stream()?.slot)).await.map(Some)
    }

    async fn begin_copy(&self, copy: &TableCopy) -> Result<bool, SinkError> {
        copies::note(&self.shared.store, copy, true).await?;
        if copy.is_resumed && !copy.empty_first {
            return Ok(true);
        }
        let copy_of = (copy.relation.oid, copy.snapshot);
        let time_us = *self.copies_begun.lock().await.entry(copy_of).or_insert_with(now_us);
        let identity = Identity::of(&self.stream()?.slot);
        copies::truncate(&self.shared, &identity, copy, time_us).await?;
        Ok(true)
    }

    async fn open_copy_lane(&self, _number: u32, stream: &StreamInfo) -> Result<Box<dyn Lane>, SinkError> {
        Ok(Box::new(CopyLane::new(self.shared.clone(), Identity::of(&stream.identity))))
    }

    async fn end_copy(&self, copy: &TableCopy) -> Result<(), SinkError> {
        copies::note(&self.shared.store, copy, false).await?;
        self.copies_begun.lock().await.remove(&(copy.relation.oid, copy.snapshot));
        Ok(())
    }

    async fn ping(&self) -> Result<(), SinkError> {
        self.shared.store.ping("cdc/ping").await
    }
}

/// This machine's time, in microseconds since 2000-01-01 UTC.
fn now_us() -> i64 {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since_1970.as_micros()).unwrap_or(i64::MAX).saturating_sub(POSTGRES_EPOCH_UNIX_MICROS)
}
