//! Real servers for tests and benches, each its own, gone when its test is.
//!
//! ```text
//!   test ──▶ Postgres 15/17/18   process ─┐
//!        ──▶ ClickHouse          process ─┤ one scratch folder and locked ports a test process;
//!        ──▶ Replicator          process ─┤ killed on drop, and by the kernel when the test process dies
//!        ──▶ S3, Proxy           threads ─┘
//!        ──▶ Rows, archive_events, eventually: what came out, and waiting for it
//! ```
//!
//! # Invariants
//! - Nothing a test starts outlives the test's process, however that ends ([`process`] says by what means).
//! - A server keeps its port and data through any number of stops, kills and starts.
//! - Whatever goes wrong in the harness panics with the server's own words: a test has nothing better to do
//!   with it. Where failure is a result that a test may want, the method says so by returning it.
//!
//! Where the servers are installed is told by `deploy/dev/env.sh`; `deploy/dev/setup.sh test` installs them.
//!
//! Methods that are not `async` block, for as long as starting or stopping a server takes (up to seconds).
//! All of them may be called inside a runtime, the way tests do; the servers do not depend on it.

pub mod archive;
mod background;
mod clickhouse;
mod config;
mod dev;
mod duckdb;
mod eventually;
pub mod http;
mod metrics;
mod postgres;
pub mod process;
mod proxy;
mod replicator;
mod rows;
mod s3;
mod scratch;
mod tls;

pub use archive::{archive_events, archive_files, assert_each_event_once, assert_each_id_once};
pub use clickhouse::{ClickHouse, ClickHouseOptions};
pub use config::Config;
pub use duckdb::duckdb;
pub use eventually::{eventually, eventually_blocking};
pub use metrics::Metrics;
pub use postgres::{PgOptions, PgVersion, Postgres, RunningTool, STANDBY_SLOT};
pub use proxy::{Direction, Proxy};
pub use replicator::{Finished, Replicator, replicator_binary};
pub use rows::{Column, Kind, Rows, assert_same_rows, difference, source_columns};
pub use s3::S3;
pub use scratch::{Port, scratch_dir};
pub use tls::Tls;
