use crate::errors::Explainer;
use crate::lane::ArchiveLane;
use crate::metrics::ArchiveMetrics;
use crate::store::Archive;
use async_trait::async_trait;
use flate2::Compression;
use object_store::ObjectStore;
use replicator_config::ObjectStoreConfig;
use replicator_sink::{KeyChanges, Lane, Sink, SinkError, StreamInfo};
use replicator_types::{CheckItem, Relation};
use slog::Logger;
use std::sync::Arc;

/// The archive as a sink. See the crate's documentation.
pub struct ObjectStoreSink {
    name: String,
    archive: Arc<Archive>,
    metrics: Arc<ArchiveMetrics>,
    level: Compression,
    in_flight_max: usize,
    logger: Logger,
}

/// The sink `name` at the place that `config` names. Connects to nothing yet.
///
/// Fails, for a person to mend it, when the URL is none of `s3://bucket/prefix` and `file:///folder`, or when a
/// secret's file cannot be read.
pub fn open(name: String, config: ObjectStoreConfig, logger: Logger) -> Result<ObjectStoreSink, SinkError> {
    let archive = Archive::open(&config, logger.clone())?;
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
        let explainer = Explainer::new(format!("{store}/{prefix}"), Vec::new());
        let archive = Archive::at(store, prefix, explainer, logger.clone());
        Self::of(name, archive, gzip_level, in_flight_max, logger)
    }

    fn of(name: String, archive: Archive, gzip_level: u32, in_flight_max: usize, logger: Logger) -> Self {
        Self {
            metrics: Arc::new(ArchiveMetrics::new(&name)),
            name,
            archive: Arc::new(archive),
            level: Compression::new(gzip_level.min(9)),
            in_flight_max: in_flight_max.max(1),
            logger,
        }
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
        if let Some(local) = self.archive.local() {
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

    async fn prepare(&self, _stream: &StreamInfo) -> Result<(), SinkError> {
        if let Some(local) = self.archive.local() {
            local.create().await?;
        }
        self.archive.try_listing().await
    }

    async fn open_lane(&self, _shard: u32, stream: &StreamInfo) -> Result<Box<dyn Lane>, SinkError> {
        Ok(Box::new(ArchiveLane::new(
            Arc::clone(&self.archive),
            Arc::clone(&self.metrics),
            stream.identity.clone(),
            self.level,
            self.in_flight_max,
            self.logger.clone(),
        )))
    }

    async fn ping(&self) -> Result<(), SinkError> {
        self.archive.ping().await
    }
}
