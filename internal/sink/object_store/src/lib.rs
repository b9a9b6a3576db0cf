//! The WAL archive: every change as a line of JSON in gzipped files, in S3, R2, any store that speaks S3, or
//! a folder.
//!
//! ```text
//!   batch ──plan──▶ pieces ──write──▶ files ──put──▶ {prefix}/wal/events/YYYY/MM/DD/HH/{ulid}.ndjson.gz
//!           │       (one hour each,   (JSON, gzip)   (only where nothing has that name)
//!           │        none twice)
//!           └─ what is there already: listed and read only where the stream comes again
//!
//!   copied rows ──────────────write──▶ file ───put──▶ {prefix}/wal/copy/YYYY/MM/DD/HH/{ulid}.ndjson.gz
//!   notes ─────────────────────────────────replace──▶ {prefix}/replicator/notes/{cluster}-{slot}-{sink}.json
//! ```
//!
//! # Files
//! A file holds consecutive events of one hour of commit time (UTC), so a reader finds a time range by its
//! folders. The ULID is made from the first event: its commit time in milliseconds, the low 48 bits of its
//! commit LSN, the low 32 bits of its ordinal; names sort by time, then by position. The same changes cut the
//! same way give the same name and the same bytes. Commit times are the source's clock at the commit and go
//! back and forth a little between neighbours in the stream: the order of events is by `event_id` (or `lsn` and
//! `ordinal`), the order of names only nearly so.
//!
//! # Events
//! One JSON object (RFC 8259) a line, without line breaks inside:
//!
//! | Field | |
//! |---|---|
//! | `event_id` | [`SlotIdentity::event_id`](replicator_types::SlotIdentity::event_id): unique, the same on every delivery |
//! | `op` | `insert`, `update`, `delete`, `truncate`; `read` of a copied row; `message` |
//! | `schema`, `table` | names, unquoted; none of a message |
//! | `lsn` | of the transaction's commit record, `X/X` |
//! | `ordinal` | place in the transaction, from 0. Numbers may be missing: other tables' changes have them |
//! | `commit_time` | RFC 3339, UTC, microseconds |
//! | `xid` | the source's transaction id |
//! | `relation` | only at a table version's first event in a file: see below |
//! | `key` | the key's values after the change (before it, for a delete); `null` for a table without a key |
//! | `before` | the row before, as far as the source sent it: all columns under `REPLICA IDENTITY FULL`, otherwise the key's columns for deletes and for updates of the key; else `null` |
//! | `after` | the row after; `null` for a delete |
//! | `unchanged` | names of columns that `after` lacks, since their large (TOASTed) value did not change and was not sent; absent when there are none |
//! | `cascade`, `restart_identity` | of a truncate, in place of `key`, `before` and `after`; each table of a statement has its own event |
//! | `transactional`, `prefix`, and `content` or `content_base64` | of a message (`pg_logical_emit_message`), in their place: the content as text, or in base64 (RFC 4648) where it is not UTF-8 |
//!
//! Values: `boolean` is `true` or `false`; `smallint`, `integer`, `bigint` and `oid` are numbers with all their
//! digits (a reader that keeps numbers as doubles loses some beyond 2^53); `real` and `double precision` are
//! numbers, or the strings `"NaN"`, `"Infinity"`, `"-Infinity"`; everything else is a string, the type's text
//! form: `numeric` so that no reader rounds it, `json` and `jsonb` so that they stay as they are. Domains are as
//! their base type. SQL NULL is `null`.
//!
//! `relation` describes the table as the following events of the file have it: `oid`, `replica_identity`,
//! `key_text_is_identity`, and `columns`, each with `name`, `type` (SQL), `key`, `not_null`, `attnum`,
//! `type_oid`, `base_type_oid`, `type_modifier`, `kind` (`scalar`, `enum`, `array` with its `element`, `other`), and
//! `missing`, the value as text that rows have which are older than the column, where it is not NULL, and `default`, as
//! SQL, where it is a literal. So a file can be replayed without any other. A change of the table's shape is no event: the first event behind it has the new
//! description, and `attnum` tells which columns are the same.
//!
//! # Copied rows
//! The rows that were there before the stream, and those of a table that is copied again, are events with `op` `read`,
//! `after` as the row and `before` `null`, in files of their own. What stands for the transaction is the snapshot:
//! `commit_time` is when it was taken, `lsn` is one less than its LSN, `xid` is 0; `ordinal` tells where the row
//! lies in its table. So a read is newer than every change that the snapshot has and older than every other, and a
//! reader that keeps the newest of each key by (`lsn`, `ordinal`) needs to know no more. Rows of several tables stand
//! at the same position; their `event_id` ends with the table's oid (`src/naming.rs`).
//!
//! A copy, unless it goes on with an earlier one's rest, begins with a `truncate` at `lsn` two less than the snapshot's and `ordinal` the
//! table's oid, above what the snapshot has and below its rows, which have all that came before; its `commit_time` is this machine's clock. The end
//! of a copy leaves nothing in the archive: how far copies have got is in the notes.
//!
//! A file has one batch of one table; its name is made of the snapshot's time and a digest of its first event's id.
//! Rows that come again under the same snapshot come to the same names; after a crash the rest comes under another
//! snapshot, as newer reads.
//!
//! # Each event once
//! After a restart the stream comes again from some point, cut differently. What is in the archive is left
//! out, gaps are filled (`src/resume.rs` says how). Puts are conditional; when a name is taken, the object is compared:
//! the same bytes are an earlier put whose reply was lost, other bytes are read and only the rest is written.
//! On a store without conditional puts a plain put is as good: one process writes at a time, and it writes
//! under a name that is there only what it wrote there before.
//!
//! What that needs: one writer at a time, as the slot sees to, and a listing that shows what was put before
//! (true of S3 since 2020, R2, MinIO, folders). One thing is left: a put that the dead process had sent whole,
//! and that the store completes after the new process has listed its hour, can make an event appear in two
//! files, with the same `event_id`. Readers that must not count twice group by it.
//!
//! A sink's `tables` filter can change between runs; an event that the filter used to leave out is written
//! when it comes again, in a file of its own, even where an older file spans its position.
//!
//! # Cost
//! Of one core, for rows of some 120 bytes as text (450 bytes as JSON): `cargo run --release --example archive`.
//!
//! | `gzip_level` | events/s | bytes an event |
//! |---|---|---|
//! | 0 (stored) | 1.6 M | 453 |
//! | 1 | 890 k | 85 |
//! | **2** (default) | 680 k | 66 |
//! | 3 | 470 k | 63 |
//! | 4 | 360 k | 58 |
//! | 6 | 240 k | 55 |
//!
//! At the default 25 M events are 1.7 GB. Requests cost more than bytes: one put a batch, so `batch` decides; one
//! listing an hour. The counters `replicator_archive_*_total` have both.
//!
//! Sources: <https://github.com/ulid/spec>, RFC 1952 (gzip),
//! <https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes.html>,
//! <https://developers.cloudflare.com/r2/api/s3/extensions/>.

mod contents;
mod event;
mod file;
#[cfg(fuzzing)]
pub mod fuzzing;
mod lane;
mod mapping;
mod message;
mod metrics;
mod name;
mod naming;
mod restart;
mod resume;
mod sink;
mod store;

pub use mapping::json_of;
pub use sink::{ObjectStoreSink, open};
