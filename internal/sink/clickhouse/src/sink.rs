use crate::check;
use crate::client::Client;
use crate::lane::{ClickHouseLane, scope};
use crate::tables::Tables;
use async_trait::async_trait;
use replicator_config::{ClickHouseConfig, ClickHouseMode, OutOfRange};
use replicator_sink::{KeyChanges, Lane, Sink, SinkError, StreamInfo};
use replicator_types::{CheckItem, Relation};
use slog::{Logger, info};
use std::sync::Arc;

/// A ClickHouse server as a sink. Made by [`crate::open`].
pub struct ClickHouseSink {
    shards: u32,
    mode: ClickHouseMode,
    shared: Arc<Shared>,
}

/// What the lanes have in common.
pub(crate) struct Shared {
    pub(crate) name: String,
    pub(crate) client: Arc<Client>,
    pub(crate) tables: Tables,
    pub(crate) logger: Logger,
    pub(crate) in_flight_max: usize,
    out_of_range: OutOfRange,
}

impl Shared {
    /// The policy for values out of range, as the configuration has it.
    pub(crate) fn policy(&self) -> &'static str {
        match self.out_of_range {
            OutOfRange::Clamp => "clamp",
            OutOfRange::Null => "null",
            OutOfRange::Error => "error",
        }
    }
}

impl ClickHouseSink {
    pub(crate) fn new(
        name: String,
        config: &ClickHouseConfig,
        shards: u32,
        logger: Logger,
    ) -> Result<Self, SinkError> {
        if config.database.is_empty() {
            return Err(SinkError::halt(format!(
                "sink {name}: database is empty: name the one for the tables"
            )));
        }
        let client = Arc::new(Client::open(&name, config)?);
        let tables = Tables::new(Arc::clone(&client), config, logger.clone());
        Ok(Self {
            shards: shards.max(1),
            mode: config.mode,
            shared: Arc::new(Shared {
                name,
                client,
                tables,
                logger,
                in_flight_max: config.in_flight_max.max(1),
                out_of_range: config.out_of_range,
            }),
        })
    }
}

#[async_trait]
impl Sink for ClickHouseSink {
    fn name(&self) -> &str {
        &self.shared.name
    }

    fn kind(&self) -> &'static str {
        "clickhouse"
    }

    fn shards(&self) -> u32 {
        self.shards
    }

    fn key_changes(&self) -> KeyChanges {
        match self.mode {
            ClickHouseMode::Mirror => KeyChanges::Split,
            ClickHouseMode::History => KeyChanges::Whole,
        }
    }

    async fn check(&self, tables: &[Arc<Relation>]) -> Vec<CheckItem> {
        check::check(&self.shared.client, &self.shared.tables, tables).await
    }

    async fn prepare(&self, stream: &StreamInfo) -> Result<(), SinkError> {
        let version = check::server_version(&self.shared.client).await?;
        info!(self.shared.logger, "connected to ClickHouse";
            "endpoint" => self.shared.client.endpoint(), "version" => &version);
        check::supported(&version).map_err(SinkError::halt)?;
        self.shared.client.identify(&stream.identity);
        self.shared.client.wait_for_own_queries().await?;
        self.shared.tables.create_database().await?;
        for relation in &stream.tables {
            self.shared.tables.target(relation).await?;
        }
        Ok(())
    }

    async fn open_lane(&self, shard: u32, stream: &StreamInfo) -> Result<Box<dyn Lane>, SinkError> {
        let scope = scope(&stream.identity, shard, self.shards);
        Ok(Box::new(ClickHouseLane::new(Arc::clone(&self.shared), scope)))
    }

    async fn ping(&self) -> Result<(), SinkError> {
        self.shared.client.ping().await
    }
}
