use crate::{ByteSize, Secret};
use serde::Deserialize;
use std::path::PathBuf;

/// The whole configuration.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where changes come from.
    pub source: SourceConfig,
    /// What of them may be in memory.
    #[serde(default)]
    pub buffer: BufferConfig,
    /// The admin listener.
    #[serde(default)]
    pub http: HttpConfig,
    /// Logs.
    #[serde(default)]
    pub log: LogConfig,
    /// Pauses between attempts.
    #[serde(default)]
    pub retry: RetryConfig,
    /// On SIGTERM, how long what is in flight may take to become durable.
    #[serde(default = "defaults::shutdown_grace_ms")]
    pub shutdown_grace_ms: u64,
    /// Where changes go.
    #[serde(default, rename = "sink")]
    pub sinks: Vec<SinkConfig>,
}

/// `[source]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceConfig {
    /// `postgres://user@host:port/database?sslmode=…&sslrootcert=…&sslcert=…&sslkey=…`, or
    /// `postgres://user@/database?host=/socket/dir`. libpq's names and defaults.
    pub url: Secret,
    /// The password, when it is not in the URL.
    #[serde(default)]
    pub password: Secret,
    /// A file that holds it.
    pub password_file: Option<PathBuf>,
    /// Slot name.
    #[serde(default = "defaults::name")]
    pub slot: String,
    /// Publication name.
    #[serde(default = "defaults::name")]
    pub publication: String,
    /// Whether an absent slot and publication are made.
    #[serde(default = "defaults::yes")]
    pub create: bool,
    /// For a publication made here: which tables.
    #[serde(default)]
    pub tables: TablePatterns,
    /// How often the slot hears from us at least; below the server's `wal_sender_timeout`.
    #[serde(default = "defaults::status_interval_ms")]
    pub status_interval_ms: u64,
    /// How long connecting may take.
    #[serde(default = "defaults::connect_timeout_ms")]
    pub connect_timeout_ms: u64,
}

/// Globs over `schema.table`: `public.*`, `*.orders`, `shop.order_?`. Everything when empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct TablePatterns(pub Vec<String>);

impl TablePatterns {
    /// Whether every table matches.
    pub fn is_everything(&self) -> bool {
        self.0.is_empty() || self.0.iter().any(|pattern| pattern == "*" || pattern == "*.*")
    }

    /// Whether `schema.table` matches one of them. A pattern without a dot is of schema `public`.
    pub fn matches(&self, schema: &str, table: &str) -> bool {
        self.is_everything()
            || self.0.iter().any(|pattern| {
                let (schema_glob, table_glob) = pattern.split_once('.').unwrap_or(("public", pattern));
                glob(schema_glob.as_bytes(), schema.as_bytes()) && glob(table_glob.as_bytes(), table.as_bytes())
            })
    }
}

/// `*` is any run, `?` any one byte, everything else itself.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    match pattern.split_first() {
        None => text.is_empty(),
        Some((b'*', rest)) => (0..=text.len()).any(|skip| glob(rest, &text[skip..])),
        Some((b'?', rest)) => text.split_first().is_some_and(|(_, text)| glob(rest, text)),
        Some((byte, rest)) => text.split_first().is_some_and(|(first, text)| first == byte && glob(rest, text)),
    }
}

/// `[buffer]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BufferConfig {
    /// Memory for changes, of the whole process. When it is full the socket is not read.
    pub bytes_max: ByteSize,
}

/// `[http]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HttpConfig {
    /// `address:port` of `/metrics`, `/healthz`, `/readyz`; empty for none.
    pub listen: String,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Readable on a terminal, JSON elsewhere.
    Auto,
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}

/// `[log]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogConfig {
    /// How lines look.
    pub format: LogFormat,
    /// `debug`, `info`, `warn` or `error`.
    pub level: String,
}

/// `[retry]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RetryConfig {
    /// The first pause after a failure; it doubles from there, each with jitter.
    pub backoff_min_ms: u64,
    /// The longest pause.
    pub backoff_max_ms: u64,
}

/// `[[sink]]`
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "crate::load::RawSink")]
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
    /// `type = "blackhole"`: reads every value and keeps none, for measuring.
    Blackhole,
}

/// What a ClickHouse table holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClickHouseMode {
    /// The source's rows as they are now.
    Mirror,
    /// Every change, appended.
    History,
}

/// What becomes of a row deleted at the source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DeleteMode {
    /// It goes: `FINAL` and the view no longer show it.
    Hard,
    /// It stays, marked by `_deleted` = 1; the view hides it.
    Soft,
}

/// Where tables of schemas other than `public` go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SchemaNaming {
    /// Into the one database, as `schema_table`.
    Prefix,
    /// Into a database named after the schema.
    Database,
}

/// A sink of `type = "clickhouse"`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClickHouseConfig {
    /// `http://host:8123` or `https://host:8443`.
    pub url: Secret,
    /// Database for the tables; made when absent.
    pub database: String,
    /// User; ClickHouse's `default` when empty.
    #[serde(default)]
    pub user: String,
    /// Password.
    #[serde(default)]
    pub password: Secret,
    /// A file that holds it.
    pub password_file: Option<PathBuf>,
    /// What tables hold.
    #[serde(default = "defaults::mode")]
    pub mode: ClickHouseMode,
    /// What deletes do in a mirror.
    #[serde(default = "defaults::deletes")]
    pub deletes: DeleteMode,
    /// Where tables of other schemas go.
    #[serde(default = "defaults::schema_naming")]
    pub schema_naming: SchemaNaming,
    /// Cluster for `ON CLUSTER` and `Replicated…` engines; empty for none.
    #[serde(default)]
    pub cluster: String,
    /// Whether a view of the current rows, named `{table}_current`, is made for each mirror table.
    #[serde(default = "defaults::yes")]
    pub views: bool,
    /// Inserts in flight for a shard.
    #[serde(default = "defaults::in_flight")]
    pub in_flight_max: usize,
    /// How long an insert may take before it is tried again.
    #[serde(default = "defaults::request_timeout_ms")]
    pub request_timeout_ms: u64,
}

/// A sink of `type = "postgres"`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PostgresSinkConfig {
    /// As `source.url`.
    pub url: Secret,
    /// The password, when it is not in the URL.
    #[serde(default)]
    pub password: Secret,
    /// A file that holds it.
    pub password_file: Option<PathBuf>,
    /// Whether absent tables are made.
    #[serde(default = "defaults::yes")]
    pub create_tables: bool,
    /// How long connecting may take.
    #[serde(default = "defaults::connect_timeout_ms")]
    pub connect_timeout_ms: u64,
}

/// A sink of `type = "object_store"`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ObjectStoreConfig {
    /// `s3://bucket/prefix` or `file:///folder`.
    pub url: String,
    /// Endpoint of an S3-compatible store: `https://{account}.r2.cloudflarestorage.com`, `http://127.0.0.1:9000`.
    #[serde(default)]
    pub endpoint: String,
    /// Region; `auto` for R2.
    #[serde(default = "defaults::region")]
    pub region: String,
    /// Access key id.
    #[serde(default)]
    pub access_key_id: Secret,
    /// Secret access key.
    #[serde(default)]
    pub secret_access_key: Secret,
    /// A file that holds it.
    pub secret_access_key_file: Option<PathBuf>,
    /// Puts in flight.
    #[serde(default = "defaults::puts")]
    pub in_flight_max: usize,
    /// How long a request may take before it is tried again.
    #[serde(default = "defaults::request_timeout_ms")]
    pub request_timeout_ms: u64,
}

mod defaults {
    use super::{
        BufferConfig, ByteSize, ClickHouseMode, DeleteMode, HttpConfig, LogConfig, LogFormat, RetryConfig, SchemaNaming,
    };

    pub(super) fn name() -> String {
        "replicator".into()
    }

    pub(super) fn yes() -> bool {
        true
    }

    /// A third of `wal_sender_timeout`'s default would be 20 s; 10 s is also what Postgres' own receiver does.
    pub(super) fn status_interval_ms() -> u64 {
        10_000
    }

    pub(super) fn connect_timeout_ms() -> u64 {
        10_000
    }

    /// Kubernetes gives a pod 30 s; this leaves it room to exit by itself.
    pub(super) fn shutdown_grace_ms() -> u64 {
        25_000
    }

    pub(super) fn mode() -> ClickHouseMode {
        ClickHouseMode::Mirror
    }

    pub(super) fn deletes() -> DeleteMode {
        DeleteMode::Hard
    }

    pub(super) fn schema_naming() -> SchemaNaming {
        SchemaNaming::Prefix
    }

    pub(super) fn in_flight() -> usize {
        2
    }

    pub(super) fn puts() -> usize {
        8
    }

    pub(super) fn request_timeout_ms() -> u64 {
        60_000
    }

    pub(super) fn region() -> String {
        "auto".into()
    }

    impl Default for BufferConfig {
        fn default() -> Self {
            Self { bytes_max: ByteSize(256 << 20) }
        }
    }

    impl Default for HttpConfig {
        fn default() -> Self {
            Self { listen: "127.0.0.1:9187".into() }
        }
    }

    impl Default for LogConfig {
        fn default() -> Self {
            Self { format: LogFormat::Auto, level: "info".into() }
        }
    }

    impl Default for RetryConfig {
        fn default() -> Self {
            Self { backoff_min_ms: 100, backoff_max_ms: 10_000 }
        }
    }
}
