//! The ClickHouse sink: mirrors of the source's tables, or their history, by columnar inserts over HTTP.
//!
//! ```text
//!   Batch ──encode──▶ Block a table ──LZ4──▶ Insert ──HTTP──▶ ReplacingMergeTree(_version, _deleted)
//!     │                 (Native)              token             │
//!     │  toast: values that were not sent ◀────── read back ────┤      {table}_current: FINAL, undeleted
//!     └  tables: made, compared, altered with their source ─────┘
//! ```
//!
//! # Invariants
//! - `_version` is the change's position, so that a change delivered twice is the same row: rows may be
//!   inserted in any order and any number of times, and `FINAL` shows the same.
//! - An insert's token has a digest of its content: the server drops a repeated one, never a different one.
//! - A NULL is written as NULL or not at all; a value that its type has no room for is changed only by the
//!   policy `out_of_range`, and counted.
//! - A write is `Ok` when every insert has been answered: the parts are written, and with `fsync = true` (the
//!   default for tables made here) they are on the disk. Without, a crash of the server's process loses
//!   nothing, and one of its operating system what the page cache held.
//!
//! # Schema changes
//! See `evolve.rs`. Each column says in its comment which attribute of which source table it carries; a note for each
//! table (`record.rs`) says how far its schema has got. A newer version alters the table, an older one is written to
//! the columns that carry its attributes now.
//!
//! # Kinds of tables
//! See `layout.rs`. A table without a key is sorted by `_version`: every insert is a row of its own, and an
//! update or delete is refused, since nothing says which of equal rows it means. In a history an update of the
//! key is two rows, a `delete` of the old key and an `update` with the new one, at consecutive versions; a
//! truncate is a row without values; copied rows are `read`.
//!
//! # Values
//! See `types.rs` for types, `OutOfRange` and `ArrayColumns` in the configuration for what does not fit them.
//!
//! Sources: <https://clickhouse.com/docs/engines/table-engines/mergetree-family/replacingmergetree>,
//! <https://clickhouse.com/docs/interfaces/http>,
//! <https://clickhouse.com/docs/guides/developer/deduplicating-inserts-on-retries>.

mod advance;
mod check;
mod client;
mod compress;
mod convert;
mod copy;
mod encode;
mod errors;
mod evolve;
mod found;
#[cfg(fuzzing)]
pub mod fuzzing;
mod history;
mod lane;
mod layout;
mod mapping;
mod names;
mod native;
mod notes;
mod parse;
mod pieces;
mod preparer;
mod reach;
mod rebuild;
mod record;
mod sink;
mod tables;
mod toast;
mod types;
mod write;

pub use mapping::column_type;
pub use sink::ClickHouseSink;

use replicator_config::ClickHouseConfig;
use replicator_sink::SinkError;
use slog::Logger;

/// Counter: values that were clamped or made NULL because the column's type has no room for them. Labels
/// `sink`, `table`, `column`.
pub const VALUES_ADJUSTED_TOTAL: &str = "replicator_values_clamped_total";
/// Counter: values that an update did not touch, the source did not send, and the table does not have, since
/// the row was never copied; written as NULL. Labels `sink`, `table`, `column`.
pub const VALUES_MISSING_TOTAL: &str = "replicator_values_missing_total";

/// A sink of that configuration, of `shards` lanes. Connects to nothing yet; reads `password_file` and
/// `ca_file`.
///
/// # Errors
/// [`replicator_sink::ErrorKind::Halt`] when the configuration cannot be used: a URL that is none, a file that
/// cannot be read.
pub fn open(
    name: String,
    config: ClickHouseConfig,
    shards: u32,
    logger: Logger,
) -> Result<ClickHouseSink, SinkError> {
    metrics::describe_counter!(
        VALUES_ADJUSTED_TOTAL,
        "Values changed because ClickHouse's type has no room for them."
    );
    metrics::describe_counter!(
        VALUES_MISSING_TOTAL,
        "Values that were not sent and not found, written as NULL."
    );
    ClickHouseSink::new(name, &config, shards, logger)
}
