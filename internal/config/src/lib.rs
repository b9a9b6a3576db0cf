//! The configuration: what can be set, what it means, what it is when nothing is said.
//!
//! One TOML file, overridden by environment variables, with secrets by `${VAR}` or from files. The structs
//! in [`model`] are the only list of settings; the reference that `replicator config` prints and the docs
//! show is made from it.

mod load;
mod model;
mod reference;
mod secret;
mod units;

pub use load::{ConfigError, load_file, load_str};
pub use model::{
    BatchConfig, BufferConfig, ClickHouseConfig, ClickHouseMode, Config, DeleteMode, HttpConfig, LogConfig, LogFormat,
    ObjectStoreConfig, PostgresSinkConfig, RetryConfig, SchemaNaming, SinkConfig, SinkKind, SourceConfig,
    TablePatterns,
};
pub use reference::reference;
pub use secret::Secret;
pub use units::{ByteSize, parse_bytes};
