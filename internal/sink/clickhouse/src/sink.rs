use crate::check;
use crate::client::Client;
use crate::lane::{ClickHouseLane, copy_scope, scope};
use crate::layout::Layout;
use crate::notes::{Kind, Notes};
use crate::tables::{Sight, Tables};
use crate::write::JoinLimits;
use async_trait::async_trait;
use replicator_config::{ClickHouseConfig, ClickHouseMode, OutOfRange};
use replicator_sink::{KeyChanges, Lane, Sink, SinkError, StreamInfo, TableCopy};
use replicator_types::{CheckItem, Lsn, Position, Relation};
use slog::{Logger, info};
use std::collections::BTreeMap;
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
    notes: Arc<Notes>,
    pub(crate) logger: Logger,
    pub(crate) in_flight_max: usize,
    pub(crate) join_limits: JoinLimits,
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
        let layout = Layout::of(config);
        let notes = Arc::new(Notes::new(Arc::clone(&client), &layout, &config.database));
        let tables = Tables::new(Arc::clone(&client), Arc::clone(&notes), layout, config, logger.clone());
        Ok(Self {
            shards: shards.max(1),
            mode: config.mode,
            shared: Arc::new(Shared {
                name,
                client,
                tables,
                notes,
                logger,
                in_flight_max: config.in_flight_max.max(1),
                join_limits: JoinLimits { memory_bytes_max: config.copy_insert_bytes_max.0 },
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

    /// A history is asked which versions it has, table by table.
    fn takes_late_changes(&self) -> bool {
        true
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
        self.shared.client.end_earlier_queries().await?;
        self.shared.notes.identify(&self.shared.name, &stream.identity);
        self.shared.tables.begin(&stream.identity).await?;
        for relation in &stream.tables {
            self.prepare_table(relation).await?;
        }
        Ok(())
    }

    async fn prepare_table(&self, relation: &Arc<Relation>) -> Result<(), SinkError> {
        self.shared.tables.prepare(relation).await
    }

    async fn open_lane(&self, shard: u32, stream: &StreamInfo) -> Result<Box<dyn Lane>, SinkError> {
        let scope = scope(&stream.identity, shard, self.shards);
        Ok(Box::new(ClickHouseLane::new(Arc::clone(&self.shared), scope)))
    }

    async fn notes(&self) -> Result<BTreeMap<String, String>, SinkError> {
        self.shared.notes.read(Kind::Pipeline).await
    }

    async fn put_note(&self, key: &str, value: Option<&str>) -> Result<(), SinkError> {
        self.shared.notes.put(Kind::Pipeline, key, value).await
    }

    async fn alter(&self, relation: &Arc<Relation>, at: Position) -> Result<(), SinkError> {
        let sight = || Sight { position: at, alone: true, is_copy: false, emptied: false };
        self.shared.tables.target(relation, sight).await.map(drop)
    }

    async fn reach(&self) -> Result<Option<Lsn>, SinkError> {
        self.shared.tables.reach().await.map(Some)
    }

    async fn begin_copy(&self, copy: &TableCopy) -> Result<bool, SinkError> {
        self.shared.tables.begin_copy(copy).await
    }

    /// Copy lanes are as those of the stream, but for their tokens.
    async fn open_copy_lane(&self, _number: u32, stream: &StreamInfo) -> Result<Box<dyn Lane>, SinkError> {
        let scope = copy_scope(&stream.identity);
        Ok(Box::new(ClickHouseLane::new(Arc::clone(&self.shared), scope)))
    }

    /// Nothing was needed on the way.
    async fn end_copy(&self, _copy: &TableCopy) -> Result<(), SinkError> {
        Ok(())
    }

    async fn ping(&self) -> Result<(), SinkError> {
        self.shared.client.ping().await
    }
}
