//! The lake: tables as Parquet in an object store, by change and by state. What files are called, what is in them,
//! and how deltas become a table. Nothing here knows the stream's pipeline.
//!
//! ```text
//!   changes ──DeltaWriter──▶ cdc/{schema}/{table}/deltas/{seq}_{ts}.parquet
//!                                     │  fold: sorted by key, newest row of each
//!                                     ▼
//!                            cdc/{schema}/{table}/data.parquet, then manifest.json
//!                                     │  verified
//!                                     ▼
//!                            deltas/… ──▶ processed/…
//! ```
//!
//! # Words
//! - **bookmark** – a change's [`Position`](replicator_types::Position) as text that sorts: `{commit LSN}-{ordinal}`,
//!   16 hexadecimal digits each.
//! - **folded through** – the bookmark up to which `data.parquet` has every change of the stream.
//! - **copied file** – a delta file of an initial copy's rows, or of the truncate before them. Their LSNs are those of
//!   no commit record ([`Position::copied`](replicator_types::Position::copied)).
//!
//! # Invariants
//! - The delta files of the stream hold a table's changes without a gap: a file is put when all before it are durable.
//! - `data.parquet` says in its own footer what it holds; `manifest.json` repeats it, and is written after it.
//! - A delta file leaves `deltas/` only when a `data.parquet` that holds it was read back and the manifest says so.

pub mod bookmark;
mod column;
mod compact;
mod delta;
mod fold;
mod footer;
mod info;
pub mod layout;
mod listing;
mod manifest;
mod moment;
mod query;
mod restore;
mod row_file;
mod schema;
mod snapshot;

pub use compact::{CompactOptions, Compacted, compact_table, tables};
pub use delta::{Compression, DeltaFile, DeltaWriter, FileOptions};
pub use fold::{FoldInput, FoldOptions, fold};
pub use footer::read_info;
pub use info::{ColumnInfo, FileInfo, FileKind, Identity, TableInfo};
pub use listing::{Files, SMALL_BYTES, TableListing};
pub use manifest::{CopyState, Manifest};
pub use moment::{Moment, time_us};
pub use query::{Scope, Sources, quoted};
pub use restore::{Restored, restore_table};
pub use row_file::RowFile;
pub use schema::TableSchema;
pub use snapshot::{Retention, Snapshots, snapshot_table};
