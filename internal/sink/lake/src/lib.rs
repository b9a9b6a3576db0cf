//! The lake as a sink: each table's changes as Parquet files, in S3, R2 or a folder.
//!
//! ```text
//!   batch ──by table version──▶ DeltaWriter ──▶ files ──in order──▶ cdc/{schema}/{table}/deltas/{seq}_{ts}.parquet
//!     │                                                  (only where nothing has that name)
//!     └─ what a table has already is left out: its last file's last bookmark, or the manifest's
//! ```
//!
//! What is in the files is said in `replicator_lake`.
//!
//! # Each change once
//! A table's files are put one after the other, so those that are there hold its changes without a gap, and the last
//! one's last bookmark says what is still to be written. After a restart that is asked once a table; changes up to there
//! are left out. A file's name follows from its first change. What is left is a put of a dead process that the
//! store completes after its successor has listed the folder: then changes may be in two files, with the same
//! bookmarks, and folds and readers that go by bookmark count them once.
//!
//! # Copies
//! A table's `copy.json` says that it is being copied, from before the first row until after the last; nothing is
//! folded meanwhile. A copy that begins anew writes a `truncate` below its rows (LSN two less than the snapshot's).

mod copies;
mod lane;
mod metrics;
mod progress;
mod sink;

pub use sink::{LakeSink, open};
