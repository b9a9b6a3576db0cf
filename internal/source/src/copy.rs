//! The initial copy: the rows that were there before the stream, as one snapshot has them.
//!
//! ```text
//!   walsender: CREATE_REPLICATION_SLOT … TEMPORARY, exports a snapshot ──▶ consistent point = Snapshot::lsn
//!        │ imports                                  (slot and walsender go, as soon as the leader has it)
//!   leader: BEGIN, holds the snapshot, exports it again ◀── one for as long as anything is copied
//!        │ imports
//!   workers: LOCK, check, COPY a range of blocks ─▶ binary rows ─▶ tuples, straight into a batch
//! ```
//!
//! # Invariants
//! - The snapshot has every transaction whose commit lies before [`Snapshot::lsn`], and none behind.
//! - Every worker sees that snapshot: what `pg_current_snapshot()` says is compared, in each transaction.
//! - A table is only read while what the snapshot sees is what is on disk: a table that was rewritten since (by
//!   TRUNCATE, ALTER TABLE, VACUUM FULL) looks empty to a snapshot from before, without any error. The files are
//!   compared under a lock that keeps both from happening, and so are the columns.
//! - A range of blocks has the same rows in the same order whenever it is read under the same snapshot, and each
//!   has the same number: the plans that could change that are turned off.
//!
//! Sources: <https://www.postgresql.org/docs/current/sql-set-transaction.html>,
//! <https://www.postgresql.org/docs/current/mvcc-caveats.html>,
//! <https://www.postgresql.org/docs/current/sql-copy.html#SQL-COPY-BINARY-FORMAT>,
//! `SnapBuildExportSnapshot` in Postgres' `src/backend/replication/logical/snapbuild.c`.

mod rows;
mod select;
mod snapshot;
mod tables;
#[cfg(test)]
mod tests;
mod worker;

#[cfg(fuzzing)]
pub(crate) use rows::Rows;
pub(crate) use snapshot::Origin;
pub use snapshot::Snapshot;
pub use tables::{CopyPart, CopyTable};
pub use worker::{CopyLimits, CopyWorker};
