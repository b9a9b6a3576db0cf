use crate::choices::{
    ArrayColumns, BinaryValues, ClickHouseMode, DeleteMode, LogFormat, LogLevel, OriginFilter, OutOfRange,
    ParquetCompression, SchemaNaming, Snapshot, StreamingMode, SynchronousCommit, TypeChanges,
};
use crate::schema::section;
use crate::sink::SinkConfig;
use crate::{ByteSize, Secret, TablePatterns};
use serde::Deserialize;
use std::net::SocketAddr;
use std::path::PathBuf;

section! {
    /// The whole configuration.
    #[derive(Clone, Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    pub struct Config {
        /// Where changes come from.
        pub source: SourceConfig,
        /// How much of the changes may be in memory.
        #[serde(default)]
        pub buffer: BufferConfig,
        /// The copy of rows that are there before the stream begins.
        #[serde(default)]
        pub copy: CopyConfig,
        /// The admin listener: metrics, health, readiness.
        #[serde(default)]
        pub http: HttpConfig,
        /// Logs.
        #[serde(default)]
        pub log: LogConfig,
        /// Pauses between attempts.
        #[serde(default)]
        pub retry: RetryConfig,
        /// How long, after SIGTERM, what is in flight may take to become durable.
        #[serde(default = "defaults::shutdown_grace_ms")]
        pub shutdown_grace_ms: u64,
        /// Where changes go.
        #[key("sink")]
        #[serde(default, rename = "sink")]
        pub sinks: Vec<SinkConfig>,
    }
}

section! {
    /// `[source]`
    #[derive(Clone, Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    pub struct SourceConfig {
        /// `postgres://user@host:port/database?sslmode=…&sslrootcert=…&sslcert=…&sslkey=…`, or
        /// `postgres://user@/database?host=/socket/dir`. Names and defaults are libpq's.
        #[required("postgres://user@127.0.0.1:5432/shop?sslmode=disable")]
        pub url: Secret,
        /// The password, when it is not in the URL. Without one, PGPASSWORD and the password file of libpq are
        /// looked at.
        #[example("${SOURCE_PASSWORD}")]
        #[serde(default)]
        pub password: Secret,
        /// A file that holds the password.
        #[example("/run/secrets/source-password")]
        pub password_file: Option<PathBuf>,
        /// Name of the logical replication slot, which is the replicator's own.
        #[serde(default = "defaults::name")]
        pub slot: String,
        /// Name of the publication.
        #[serde(default = "defaults::name")]
        pub publication: String,
        /// Whether an absent slot and publication are made.
        #[serde(default = "defaults::yes")]
        pub create: bool,
        /// Which tables a publication made here has: globs over `schema.table`, such as `public.*` or
        /// `shop.order_?`. All when empty.
        #[serde(default)]
        pub tables: TablePatterns,
        /// What is copied before and beside the stream.
        #[serde(default = "defaults::snapshot")]
        pub snapshot: Snapshot,
        /// Whether values come in binary form.
        #[serde(default = "defaults::binary")]
        pub binary: BinaryValues,
        /// Whether large transactions come before they commit.
        #[serde(default = "defaults::streaming")]
        pub streaming: StreamingMode,
        /// Whether a slot made here decodes `PREPARE TRANSACTION` when it happens; the changes reach the sinks at
        /// `COMMIT PREPARED` either way. Postgres 15.
        #[serde(default)]
        pub two_phase: bool,
        /// Whether a slot made here is one that standbys keep a copy of (`sync_replication_slots` there), so that the
        /// stream goes on from a promoted one. Postgres 17, on a primary, without `two_phase`; elsewhere it does nothing.
        #[serde(default = "defaults::yes")]
        pub failover: bool,
        /// Whether logical messages (`pg_logical_emit_message`) are read, for the sinks that keep them.
        #[serde(default)]
        pub messages: bool,
        /// Which changes are read, by origin.
        #[serde(default = "defaults::origin")]
        pub origin: OriginFilter,
        /// How often a message is written to the source's WAL while the slot's tables are idle, so that the slot
        /// moves on where keepalives do not move it; 0 for never, which is enough as long as the connection stands.
        #[serde(default)]
        pub heartbeat_interval_ms: u64,
        /// How often the catalog is asked for new tables and changed columns that no change has told of yet; 0 for
        /// never.
        #[serde(default = "defaults::catalog_interval_ms")]
        pub catalog_interval_ms: u64,
        /// How often the server hears of the progress at least; must stay below its `wal_sender_timeout`.
        #[serde(default = "defaults::status_interval_ms")]
        pub status_interval_ms: u64,
        /// How long connecting may take.
        #[serde(default = "defaults::connect_timeout_ms")]
        pub connect_timeout_ms: u64,
    }
}

section! {
    /// `[buffer]`
    #[derive(Clone, Debug, Deserialize)]
    #[serde(deny_unknown_fields, default)]
    pub struct BufferConfig {
        /// Memory for changes, of the whole process. When it is full the source is not read, until sinks have
        /// made room.
        pub bytes_max: ByteSize,
        /// Memory for changes that have to wait: of transactions in progress and of tables being copied. What is
        /// more goes to files.
        pub waiting_bytes_max: ByteSize,
        /// Folder for those files, which are gone when the process is; the system's folder for temporary files when
        /// empty.
        pub spill_folder: PathBuf,
    }
}

section! {
    /// `[copy]`
    #[derive(Clone, Debug, Deserialize)]
    #[serde(deny_unknown_fields, default)]
    pub struct CopyConfig {
        /// How many connections read from the source side by side.
        pub workers: u32,
        /// How much of a table is read at a time, as it lies on the source's disk; after a crash the copy goes on
        /// behind the last such piece that was durable.
        pub range_bytes: ByteSize,
        /// Rows in a batch.
        pub batch_rows_max: usize,
        /// Bytes of row data in a batch.
        pub batch_bytes_max: ByteSize,
        /// Memory for copied rows on their way, beside `buffer.bytes_max`.
        pub bytes_max: ByteSize,
    }
}

section! {
    /// `[http]`
    #[derive(Clone, Debug, Deserialize)]
    #[serde(deny_unknown_fields, default)]
    pub struct HttpConfig {
        /// `address:port` of `/metrics`, `/healthz` and `/readyz`; empty for none. In a container, `0.0.0.0:9187`.
        pub listen: String,
    }
}

impl HttpConfig {
    /// Where to listen; `None` for nowhere.
    pub fn address(&self) -> Option<SocketAddr> {
        self.listen.parse().ok()
    }
}

section! {
    /// `[log]`
    #[derive(Clone, Debug, Deserialize)]
    #[serde(deny_unknown_fields, default)]
    pub struct LogConfig {
        /// How lines look.
        pub format: LogFormat,
        /// The least important lines that are written.
        pub level: LogLevel,
    }
}

section! {
    /// `[retry]`
    #[derive(Clone, Debug, Deserialize)]
    #[serde(deny_unknown_fields, default)]
    pub struct RetryConfig {
        /// The first pause after a failure; it doubles from there, each with jitter.
        pub backoff_min_ms: u64,
        /// The longest pause.
        pub backoff_max_ms: u64,
    }
}

section! {
    /// A sink of `type = "clickhouse"`.
    #[derive(Clone, Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    pub struct ClickHouseConfig {
        /// `http://host:8123` or `https://host:8443`.
        #[required("http://127.0.0.1:8123")]
        pub url: Secret,
        /// Database for the tables; made when absent.
        #[required("shop")]
        pub database: String,
        /// User; ClickHouse's `default` when empty.
        #[example("replicator")]
        #[serde(default)]
        pub user: String,
        /// The user's password.
        #[example("${CLICKHOUSE_PASSWORD}")]
        #[serde(default)]
        pub password: Secret,
        /// A file that holds the password.
        #[example("/run/secrets/clickhouse-password")]
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
        #[example("main")]
        #[serde(default)]
        pub cluster: String,
        /// Whether a view of the current rows, named `{table}_current`, is made for each mirror table.
        #[serde(default = "defaults::yes")]
        pub views: bool,
        /// Inserts in flight for a shard.
        #[serde(default = "defaults::in_flight")]
        pub in_flight_max: usize,
        /// How large an insert of copied rows becomes, as the server has them in memory: batches join up to that, so that there
        /// are fewer parts to merge. The server takes two to three times as much while it sorts them. 0: each goes by itself.
        #[serde(default = "defaults::copy_insert_bytes_max")]
        pub copy_insert_bytes_max: ByteSize,
        /// How long an insert may take before it is tried again.
        #[serde(default = "defaults::request_timeout_ms")]
        pub request_timeout_ms: u64,
        /// What becomes of a value that the column's type has no room for.
        #[serde(default = "defaults::out_of_range")]
        pub out_of_range: OutOfRange,
        /// How array columns are declared.
        #[serde(default = "defaults::arrays")]
        pub arrays: ArrayColumns,
        /// Whether new tables write through to the disk (`fsync_after_insert`) before an insert counts as done.
        #[serde(default = "defaults::yes")]
        pub fsync: bool,
        /// What becomes of a column whose type changes to one that its counterpart can't be changed to. In a history, which
        /// no copy could mend, `error` is `string`.
        #[serde(default = "defaults::type_changes")]
        pub type_changes: TypeChanges,
        /// PEM file of the authorities to trust for `https`, instead of the system's.
        #[example("/etc/ssl/clickhouse-ca.pem")]
        pub ca_file: Option<PathBuf>,
    }
}

section! {
    /// A sink of `type = "postgres"`.
    #[derive(Clone, Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    pub struct PostgresSinkConfig {
        /// As `source.url`.
        #[required("postgres://user@127.0.0.1:5432/copy?sslmode=disable")]
        pub url: Secret,
        /// The password, when it is not in the URL. Without one, PGPASSWORD and the password file of libpq are
        /// looked at.
        #[example("${COPY_PASSWORD}")]
        #[serde(default)]
        pub password: Secret,
        /// A file that holds the password.
        #[example("/run/secrets/copy-password")]
        pub password_file: Option<PathBuf>,
        /// Whether absent tables are made.
        #[serde(default = "defaults::yes")]
        pub create_tables: bool,
        /// What becomes of a column whose type changes to one that its counterpart can't be changed to.
        #[serde(default = "defaults::type_changes")]
        pub type_changes: TypeChanges,
        /// Whether what is written carries a replication origin, so that a replicator or subscription that reads this
        /// database's changes with `origin = "none"` leaves it out: for two databases that feed each other. Each
        /// connection takes one of the target's `max_active_replication_origins` (before 18 of its
        /// `max_replication_slots`).
        #[serde(default)]
        pub origin: bool,
        /// What a commit waits for, and so what is told to the source as durable, whatever the server's, the database's and the
        /// role's own setting. Without synchronous standbys all are the same.
        #[serde(default = "defaults::synchronous_commit")]
        pub synchronous_commit: SynchronousCommit,
        /// How long connecting may take.
        #[serde(default = "defaults::connect_timeout_ms")]
        pub connect_timeout_ms: u64,
    }
}

section! {
    /// A sink of `type = "object_store"`.
    #[derive(Clone, Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    pub struct ObjectStoreConfig {
        /// `s3://bucket/prefix` or `file:///folder`.
        #[required("s3://bucket/prefix")]
        pub url: String,
        /// Endpoint of an S3-compatible store: `https://{account}.r2.cloudflarestorage.com`,
        /// `http://127.0.0.1:9000`. AWS when empty.
        #[example("http://127.0.0.1:9000")]
        #[serde(default)]
        pub endpoint: String,
        /// Region; `auto` for R2.
        #[serde(default = "defaults::region")]
        pub region: String,
        /// Access key id.
        #[example("${ACCESS_KEY_ID}")]
        #[serde(default)]
        pub access_key_id: Secret,
        /// Secret access key.
        #[example("${SECRET_ACCESS_KEY}")]
        #[serde(default)]
        pub secret_access_key: Secret,
        /// A file that holds the secret access key.
        #[example("/run/secrets/secret-access-key")]
        pub secret_access_key_file: Option<PathBuf>,
        /// Puts in flight.
        #[serde(default = "defaults::puts")]
        pub in_flight_max: usize,
        /// How hard files are compressed, 0 (not at all) to 9.
        #[serde(default = "defaults::gzip_level")]
        pub gzip_level: u32,
        /// How long a request may take before it is tried again.
        #[serde(default = "defaults::request_timeout_ms")]
        pub request_timeout_ms: u64,
    }
}

section! {
    /// A sink of `type = "lake"`.
    #[derive(Clone, Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    pub struct LakeConfig {
        /// `s3://bucket/prefix` or `file:///folder`.
        #[required("s3://bucket/prefix")]
        pub url: String,
        /// Endpoint of an S3-compatible store: `https://{account}.r2.cloudflarestorage.com`,
        /// `http://127.0.0.1:9000`. AWS when empty.
        #[example("http://127.0.0.1:9000")]
        #[serde(default)]
        pub endpoint: String,
        /// Region; `auto` for R2.
        #[serde(default = "defaults::region")]
        pub region: String,
        /// Access key id.
        #[example("${ACCESS_KEY_ID}")]
        #[serde(default)]
        pub access_key_id: Secret,
        /// Secret access key.
        #[example("${SECRET_ACCESS_KEY}")]
        #[serde(default)]
        pub secret_access_key: Secret,
        /// A file that holds the secret access key.
        #[example("/run/secrets/secret-access-key")]
        pub secret_access_key_file: Option<PathBuf>,
        /// How Parquet files are compressed.
        #[serde(default = "defaults::parquet_compression")]
        pub compression: ParquetCompression,
        /// Rows of a Parquet row group, at most.
        #[serde(default = "defaults::row_group_rows")]
        pub row_group_rows_max: usize,
        /// Batches being written at once.
        #[serde(default = "defaults::in_flight")]
        pub in_flight_max: usize,
        /// How long a request may take before it is tried again.
        #[serde(default = "defaults::request_timeout_ms")]
        pub request_timeout_ms: u64,
    }
}

/// Where objects go, and how to get in: what the sinks that write objects have in common.
#[derive(Clone, Debug)]
pub struct StorePlace {
    /// `s3://bucket/prefix` or `file:///folder`.
    pub url: String,
    /// Endpoint of an S3-compatible store; AWS when empty.
    pub endpoint: String,
    /// Region; `auto` for R2.
    pub region: String,
    /// Access key id.
    pub access_key_id: Secret,
    /// Secret access key.
    pub secret_access_key: Secret,
    /// A file that holds the secret access key.
    pub secret_access_key_file: Option<PathBuf>,
    /// How long a request may take before it is tried again.
    pub request_timeout_ms: u64,
}

impl ObjectStoreConfig {
    /// Where it writes.
    pub fn place(&self) -> StorePlace {
        StorePlace {
            url: self.url.clone(),
            endpoint: self.endpoint.clone(),
            region: self.region.clone(),
            access_key_id: self.access_key_id.clone(),
            secret_access_key: self.secret_access_key.clone(),
            secret_access_key_file: self.secret_access_key_file.clone(),
            request_timeout_ms: self.request_timeout_ms,
        }
    }
}

impl LakeConfig {
    /// Where it writes.
    pub fn place(&self) -> StorePlace {
        StorePlace {
            url: self.url.clone(),
            endpoint: self.endpoint.clone(),
            region: self.region.clone(),
            access_key_id: self.access_key_id.clone(),
            secret_access_key: self.secret_access_key.clone(),
            secret_access_key_file: self.secret_access_key_file.clone(),
            request_timeout_ms: self.request_timeout_ms,
        }
    }
}

mod defaults {
    use super::*;

    pub(super) fn parquet_compression() -> ParquetCompression {
        ParquetCompression::Zstd
    }

    /// DuckDB's own row groups; a multiple of its vectors of 2048.
    pub(super) fn row_group_rows() -> usize {
        122_880
    }

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

    pub(super) fn snapshot() -> Snapshot {
        Snapshot::Initial
    }

    pub(super) fn binary() -> BinaryValues {
        BinaryValues::Auto
    }

    pub(super) fn streaming() -> StreamingMode {
        StreamingMode::Auto
    }

    pub(super) fn origin() -> OriginFilter {
        OriginFilter::Any
    }

    pub(super) fn catalog_interval_ms() -> u64 {
        10_000
    }

    pub(super) fn synchronous_commit() -> SynchronousCommit {
        SynchronousCommit::On
    }

    pub(super) fn type_changes() -> TypeChanges {
        TypeChanges::Error
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

    pub(super) fn out_of_range() -> OutOfRange {
        OutOfRange::Clamp
    }

    pub(super) fn arrays() -> ArrayColumns {
        ArrayColumns::Auto
    }

    pub(super) fn copy_insert_bytes_max() -> ByteSize {
        ByteSize(256 << 20)
    }

    pub(super) fn in_flight() -> usize {
        2
    }

    pub(super) fn puts() -> usize {
        8
    }

    /// Measured on narrow rows: see the sink's documentation.
    pub(super) fn gzip_level() -> u32 {
        2
    }

    pub(super) fn request_timeout_ms() -> u64 {
        60_000
    }

    pub(super) fn region() -> String {
        "auto".into()
    }

    impl Default for BufferConfig {
        fn default() -> Self {
            Self {
                bytes_max: ByteSize(128 << 20),
                waiting_bytes_max: ByteSize(64 << 20),
                spill_folder: PathBuf::new(),
            }
        }
    }

    impl Default for CopyConfig {
        fn default() -> Self {
            Self {
                workers: 2,
                range_bytes: ByteSize(64 << 20),
                batch_rows_max: 200_000,
                batch_bytes_max: ByteSize(16 << 20),
                bytes_max: ByteSize(128 << 20),
            }
        }
    }

    impl Default for HttpConfig {
        fn default() -> Self {
            Self { listen: "127.0.0.1:9187".into() }
        }
    }

    impl Default for LogConfig {
        fn default() -> Self {
            Self { format: LogFormat::Auto, level: LogLevel::Info }
        }
    }

    impl Default for RetryConfig {
        fn default() -> Self {
            Self { backoff_min_ms: 100, backoff_max_ms: 10_000 }
        }
    }
}
