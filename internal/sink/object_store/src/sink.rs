use crate::lane::{ArchiveLane, ArchiveWrite, CopyLane};
use crate::metrics::ArchiveMetrics;
use crate::naming::Naming;
use crate::restart;
use crate::store::{Archive, Writing};
use async_trait::async_trait;
use flate2::Compression;
use object_store::ObjectStore;
use replicator_config::ObjectStoreConfig;
use replicator_sink::{CLAIM_NOTE, KeyChanges, Lane, Sink, SinkError, StreamInfo, TableCopy, Write};
use replicator_store::{Notes, Store};
use replicator_types::{CheckItem, Lsn, POSTGRES_EPOCH_UNIX_MICROS, Relation, SlotIdentity};
use slog::Logger;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::sync::{Mutex, OnceCell};

/// The archive as a sink. See the crate's documentation.
pub struct ObjectStoreSink {
    name: String,
    archive: Arc<Archive>,
    metrics: Arc<ArchiveMetrics>,
    level: Compression,
    in_flight_max: usize,
    /// Of [`Sink::prepare`].
    stream: OnceCell<Stream>,
    /// When each copy was begun, by table and snapshot, microseconds since 2000-01-01 UTC: the same at each try, so
    /// that the same file is written.
    copies_begun: Mutex<HashMap<(u32, Lsn), i64>>,
    logger: Logger,
}

/// What there is of a stream.
struct Stream {
    identity: SlotIdentity,
    notes: Notes,
}

/// The sink `name` at the place that `config` names. Connects to nothing yet.
///
/// Fails, for a person to mend it, when the URL is none of `s3://bucket/prefix` and `file:///folder`, or when a
/// secret's file cannot be read.
pub fn open(name: String, config: ObjectStoreConfig, logger: Logger) -> Result<ObjectStoreSink, SinkError> {
    let archive = Archive::new(Arc::new(Store::open(&config.place(), logger.clone())?));
    Ok(ObjectStoreSink::of(name, archive, config.gzip_level, config.in_flight_max, logger))
}

impl ObjectStoreSink {
    /// The sink `name` at `prefix` in a store made elsewhere: one that is wrapped, or only in memory. The store
    /// has to be durable in itself when its puts return. `gzip_level` is 0 to 9.
    pub fn at(
        name: String,
        store: Arc<dyn ObjectStore>,
        prefix: &str,
        gzip_level: u32,
        in_flight_max: usize,
        logger: Logger,
    ) -> Self {
        let archive = Archive::new(Arc::new(Store::at(store, prefix, logger.clone())));
        Self::of(name, archive, gzip_level, in_flight_max, logger)
    }

    fn of(name: String, archive: Archive, gzip_level: u32, in_flight_max: usize, logger: Logger) -> Self {
        Self {
            metrics: Arc::new(ArchiveMetrics::new(&name)),
            name,
            archive: Arc::new(archive),
            level: Compression::new(gzip_level.min(9)),
            in_flight_max: in_flight_max.max(1),
            stream: OnceCell::new(),
            copies_begun: Mutex::default(),
            logger,
        }
    }

    fn stream(&self) -> Result<&Stream, SinkError> {
        let prepared = self.stream.get();
        prepared
            .ok_or_else(|| SinkError::retry(format!("sink {} was asked before it was prepared", self.name)))
    }
}

#[async_trait]
impl Sink for ObjectStoreSink {
    fn name(&self) -> &str {
        &self.name
    }

    fn kind(&self) -> &'static str {
        "object_store"
    }

    fn shards(&self) -> u32 {
        1
    }

    fn key_changes(&self) -> KeyChanges {
        KeyChanges::Whole
    }

    async fn check(&self, _tables: &[Arc<Relation>]) -> Vec<CheckItem> {
        let place = self.archive.place();
        let mut items = Vec::new();
        if let Some(local) = self.archive.store().local() {
            let what = format!("archive folder {place}");
            items.push(CheckItem { what, result: local.check() });
        }
        let what = format!("archive {place}");
        items.push(match self.archive.try_listing().await {
            Ok(()) => {
                CheckItem::ok(what, "can be listed (whether it can be written shows with the first file)")
            }
            Err(error) => CheckItem::fail(what, error.to_string()),
        });
        items
    }

    async fn prepare(&self, stream: &StreamInfo) -> Result<(), SinkError> {
        if let Some(local) = self.archive.store().local() {
            local.create().await?;
        }
        self.archive.try_listing().await?;
        let identity = stream.identity.clone();
        let make = || async {
            Stream {
                notes: Notes::new(Arc::clone(self.archive.store()), &identity, &self.name),
                identity: identity.clone(),
            }
        };
        let known = self.stream.get_or_init(make).await;
        if known.identity != stream.identity {
            return Err(SinkError::halt(format!(
                "sink {} was prepared for {} and is asked for {}",
                self.name, known.identity, stream.identity
            )));
        }
        Ok(())
    }

    async fn open_lane(&self, _shard: u32, stream: &StreamInfo) -> Result<Box<dyn Lane>, SinkError> {
        Ok(Box::new(ArchiveLane::new(
            Arc::clone(&self.archive),
            Arc::clone(&self.metrics),
            &stream.identity,
            self.level,
            self.in_flight_max,
            self.logger.clone(),
        )))
    }

    fn wants_messages(&self) -> bool {
        true
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
        let notes = Notes::new(Arc::clone(self.archive.store()), &self.stream()?.identity, &self.name);
        Ok(notes.all().await?.remove(CLAIM_NOTE))
    }

    async fn reach(&self) -> Result<Option<Lsn>, SinkError> {
        self.archive.reach(&Naming::of_stream(&self.stream()?.identity)).await.map(Some)
    }

    async fn begin_copy(&self, copy: &TableCopy) -> Result<bool, SinkError> {
        if copy.is_resumed && !copy.empty_first {
            return Ok(true);
        }
        let copy_of = (copy.relation.oid, copy.snapshot);
        let time_us = *self.copies_begun.lock().await.entry(copy_of).or_insert_with(now_us);
        let naming = Naming::of_copy(&self.stream()?.identity, copy.relation.oid);
        let file = restart::file(copy, time_us, naming.clone(), self.level)?;
        let writing = Writing { naming, level: self.level };
        ArchiveWrite::of(Arc::clone(&self.archive), Arc::clone(&self.metrics), writing, file).send().await?;
        Ok(true)
    }

    async fn open_copy_lane(&self, _number: u32, stream: &StreamInfo) -> Result<Box<dyn Lane>, SinkError> {
        Ok(Box::new(CopyLane::new(
            Arc::clone(&self.archive),
            Arc::clone(&self.metrics),
            stream.identity.clone(),
            self.level,
            self.in_flight_max,
        )))
    }

    async fn end_copy(&self, copy: &TableCopy) -> Result<(), SinkError> {
        self.copies_begun.lock().await.remove(&(copy.relation.oid, copy.snapshot));
        Ok(())
    }

    async fn ping(&self) -> Result<(), SinkError> {
        self.archive.ping().await
    }
}

/// This machine's time, in microseconds since 2000-01-01 UTC.
fn now_us() -> i64 {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since_1970.as_micros()).unwrap_or(i64::MAX).saturating_sub(POSTGRES_EPOCH_UNIX_MICROS)
}
