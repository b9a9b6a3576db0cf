use crate::model::{ClickHouseConfig, LakeConfig, ObjectStoreConfig, PostgresSinkConfig};
use crate::schema::{Field, Section, Setting, Shape, section};
use crate::{ByteSize, TablePatterns};
use serde::Deserialize;
use serde::de::DeserializeOwned;

/// `[[sink]]`
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "toml::Table")]
pub struct SinkConfig {
    /// Name, unique, for metrics, logs and the sink's own state.
    pub name: String,
    /// Which tables it gets.
    pub tables: TablePatterns,
    /// How many lanes work side by side.
    pub shards: u32,
    /// When a batch is full.
    pub batch: BatchConfig,
    /// The rest, by `type`.
    pub kind: SinkKind,
}

/// `batch = { … }`: whichever is reached first cuts the batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchConfig {
    /// Changes.
    pub rows_max: usize,
    /// Bytes of row data as received.
    pub bytes_max: usize,
    /// Age of its oldest change.
    pub interval_ms: u64,
}

/// What sort of sink.
#[derive(Clone, Debug)]
pub enum SinkKind {
    /// `type = "clickhouse"`
    ClickHouse(ClickHouseConfig),
    /// `type = "postgres"`
    Postgres(PostgresSinkConfig),
    /// `type = "object_store"`
    ObjectStore(ObjectStoreConfig),
    /// `type = "lake"`
    Lake(LakeConfig),
    /// `type = "blackhole"`: reads every value and keeps none, for measuring.
    Blackhole,
}

section! {
    /// What every sink has, whatever its type.
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    pub(crate) struct CommonConfig {
        /// Name, unique among the sinks: `a`-`z`, `0`-`9`, `_`, `-`. It is in metrics, in logs and in the sink's own
        /// state, so a new name is a new sink.
        #[required("analytics")]
        pub(crate) name: String,
        /// What sort of sink: `clickhouse`, `postgres`, `object_store`, `lake` or `blackhole`.
        #[required("clickhouse")]
        #[key("type")]
        #[serde(rename = "type")]
        pub(crate) kind: String,
        /// Which tables it gets, as in `source.tables`. All that are published when empty.
        #[serde(default)]
        pub(crate) tables: TablePatterns,
        /// How many lanes work side by side. The changes of one key stay in one lane, in order.
        pub(crate) shards: Option<u32>,
        /// When a batch is full: whichever is reached first of `rows_max` changes, `bytes_max` bytes of row data, and
        /// `interval_ms` since its oldest change.
        pub(crate) batch: Option<PartialBatchConfig>,
    }
}

section! {
    /// `batch = { … }` as the file has it.
    #[derive(Clone, Copy, Default, Deserialize)]
    #[serde(deny_unknown_fields)]
    pub(crate) struct PartialBatchConfig {
        /// Changes.
        pub(crate) rows_max: Option<usize>,
        /// Bytes of row data as received.
        pub(crate) bytes_max: Option<ByteSize>,
        /// Age of its oldest change.
        pub(crate) interval_ms: Option<u64>,
    }
}

/// What there is to know of a sink type.
pub(crate) struct SinkType {
    /// As in `type = "…"`.
    pub(crate) name: &'static str,
    /// Its own keys.
    pub(crate) fields: &'static [Field],
    shards: u32,
    batch: BatchConfig,
    read: fn(toml::Table) -> Result<SinkKind, String>,
}

/// Large batches: ClickHouse wants few and large inserts, and Postgres' bulk apply gains from them.
const BULK: BatchConfig = BatchConfig { rows_max: 10_000, bytes_max: 8 << 20, interval_ms: 1000 };

/// Files of up to 1000 events, and no more than one each ten seconds, since each put costs.
const FILES: BatchConfig = BatchConfig { rows_max: 1000, bytes_max: 4 << 20, interval_ms: 10_000 };

/// Parquet gains from many rows a file, and each file is a put for each table: one in half a minute.
const PARQUET: BatchConfig = BatchConfig { rows_max: 100_000, bytes_max: 32 << 20, interval_ms: 30_000 };

/// Every sink type there is.
pub(crate) const SINK_TYPES: &[SinkType] = &[
    SinkType {
        name: "clickhouse",
        fields: ClickHouseConfig::FIELDS,
        shards: 2,
        batch: BULK,
        read: |table| read(table).map(SinkKind::ClickHouse),
    },
    SinkType {
        name: "postgres",
        fields: PostgresSinkConfig::FIELDS,
        shards: 2,
        batch: BULK,
        read: |table| read(table).map(SinkKind::Postgres),
    },
    SinkType {
        name: "object_store",
        fields: ObjectStoreConfig::FIELDS,
        shards: 1,
        batch: FILES,
        read: |table| read(table).map(SinkKind::ObjectStore),
    },
    SinkType {
        name: "lake",
        fields: LakeConfig::FIELDS,
        shards: 1,
        batch: PARQUET,
        read: |table| read(table).map(SinkKind::Lake),
    },
    SinkType {
        name: "blackhole",
        fields: &[],
        shards: 2,
        batch: BULK,
        read: |table| read(table).map(|Nothing {}| SinkKind::Blackhole),
    },
];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

/// The sink type of that name.
pub(crate) fn sink_type(name: &str) -> Option<&'static SinkType> {
    SINK_TYPES.iter().find(|known| known.name == name)
}

fn read<T: DeserializeOwned>(table: toml::Table) -> Result<T, String> {
    table.try_into().map_err(|error: toml::de::Error| error.message().to_owned())
}

impl TryFrom<toml::Table> for SinkConfig {
    type Error = String;

    fn try_from(table: toml::Table) -> Result<Self, String> {
        let is_common = |key: &str| CommonConfig::FIELDS.iter().any(|field| field.key == key);
        let (common, own) = table.into_iter().partition(|(key, _)| is_common(key));
        let common: CommonConfig = read(common)?;
        let Some(sink_type) = sink_type(&common.kind) else {
            return Err("unknown sink type".into());
        };
        let batch = common.batch.unwrap_or_default();
        Ok(Self {
            name: common.name,
            tables: common.tables,
            shards: common.shards.unwrap_or(sink_type.shards),
            batch: BatchConfig {
                rows_max: batch.rows_max.unwrap_or(sink_type.batch.rows_max),
                bytes_max: batch.bytes_max.map_or(sink_type.batch.bytes_max, |size| size.0),
                interval_ms: batch.interval_ms.unwrap_or(sink_type.batch.interval_ms),
            },
            kind: (sink_type.read)(own)?,
        })
    }
}

impl Setting for Vec<SinkConfig> {
    const SHAPE: Shape = Shape::Sinks;

    fn literal(&self) -> Option<String> {
        None
    }
}

impl SinkKind {
    /// As in `type = "…"`.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::ClickHouse(_) => "clickhouse",
            Self::Postgres(_) => "postgres",
            Self::ObjectStore(_) => "object_store",
            Self::Lake(_) => "lake",
            Self::Blackhole => "blackhole",
        }
    }
}

impl SinkConfig {
    /// The values of [`CommonConfig`]'s keys as TOML.
    pub(crate) fn common_literals(&self) -> Vec<Option<String>> {
        let common = CommonConfig {
            name: self.name.clone(),
            kind: self.kind.type_name().into(),
            tables: self.tables.clone(),
            shards: Some(self.shards),
            batch: Some(PartialBatchConfig {
                rows_max: Some(self.batch.rows_max),
                bytes_max: Some(ByteSize(self.batch.bytes_max)),
                interval_ms: Some(self.batch.interval_ms),
            }),
        };
        common.literals()
    }

    /// The values of its type's own keys as TOML.
    pub(crate) fn own_literals(&self) -> Vec<Option<String>> {
        match &self.kind {
            SinkKind::ClickHouse(config) => config.literals(),
            SinkKind::Postgres(config) => config.literals(),
            SinkKind::ObjectStore(config) => config.literals(),
            SinkKind::Lake(config) => config.literals(),
            SinkKind::Blackhole => Vec::new(),
        }
    }
}
