//! The configuration: what can be set, what it means, what it is when nothing is said.
//!
//! ```text
//!   file ─parse─▶ Document ◀─override─ REPLICATOR__… variables
//!                    │ interpolate   ${VAR} in the file's texts
//!                    │ inspect       unknown keys, wrong types, missing keys
//!                    │ read_secrets  *_file
//!                    ▼
//!                 Config ─validate─▶ ranges, names, URLs
//! ```
//!
//! # Invariants
//! - The structs in `model` and `sink` are the only list of settings. The checks, the overrides, the
//!   reference that `replicator config` prints and `docs/configuration.md` are made from it (see `schema`).
//! - An error is one line. It names the key, the line or the variable it came from, and the remedy.
//! - No error shows a secret, nor anything that came from the environment.
//!
//! Source of the file's format: <https://toml.io/en/v1.0.0>.

mod choices;
#[cfg(test)]
mod docs;
mod document;
mod environment;
mod inspect;
mod interpolate;
mod load;
mod model;
mod nearest;
mod patterns;
mod reference;
mod schema;
mod secret;
mod secret_files;
mod sink;
mod units;
mod url;
mod validate;

pub use choices::{
    ArrayColumns, BinaryValues, ClickHouseMode, DeleteMode, LogFormat, LogLevel, OriginFilter, OutOfRange,
    ParquetCompression, SchemaNaming, Snapshot, StreamingMode, SynchronousCommit, TypeChanges,
};
pub use environment::Environment;
pub use load::{ConfigError, load, load_file, load_str};
pub use model::{
    BufferConfig, ClickHouseConfig, Config, CopyConfig, HttpConfig, LakeConfig, LogConfig, ObjectStoreConfig,
    PostgresSinkConfig, RetryConfig, SourceConfig, StorePlace,
};
pub use patterns::TablePatterns;
pub use reference::reference;
pub use secret::Secret;
pub use sink::{BatchConfig, SinkConfig, SinkKind};
pub use units::{ByteSize, parse_bytes};
pub use url::redact_url;
