//! The vocabulary every part of the replicator shares: what a position is, what a relation is, how a
//! batch of changes is laid out in memory.
//!
//! ```text
//!   Lsn ──┬─▶ Position (commit LSN, ordinal) ── total order, event id, version
//!         │
//!   Relation (a table at one schema version) ◀── Change ──▶ Tuple (raw wire bytes) ──▶ Value
//!                                                  │
//!                                              Batch (one lane's run of changes, in order)
//! ```
//!
//! Nothing here does I/O, knows of a runtime, or reads configuration.

mod batch;
mod budget;
mod built_in;
mod catalog;
mod check;
mod hash;
mod lsn;
mod position;
mod relation;
mod tuple;

pub use batch::{Batch, BatchBuilder, Change, NewChange, Op, Phase, TransactionMeta, TxnId};
pub use budget::{Budget, Charge};
pub use built_in::built_in_type;
pub use catalog::{
    GeneratedColumn, Leaf, Storage, StorageChange, TableCatalog, indexes_of_key, key_text_is_identity,
};
pub use check::CheckItem;
pub use hash::{KeyHasher, shard_of};
pub use lsn::{Lsn, ParseLsnError};
pub use position::{Position, SlotIdentity};
pub use relation::{Column, ColumnKind, Relation, ReplicaIdentity, oid};
pub use tuple::{Tuple, TupleError, Value, Values};

/// Microseconds between the Unix epoch (1970) and the Postgres epoch (2000-01-01 00:00:00 UTC).
///
/// Source: `POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE` in Postgres' `src/include/datatype/timestamp.h`.
pub const POSTGRES_EPOCH_UNIX_MICROS: i64 = 946_684_800_000_000;
