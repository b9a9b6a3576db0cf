//! The Postgres sink: every change exactly once, because data and checkpoint are one transaction.
//!
//! ```text
//!   batch ─▶ filter ─▶ fold per key ─▶ COPY rows ─▶ Write ─▶ one transaction of the target:
//!           what the    the last word    straight            1. move the checkpoint row, if it is where
//!           checkpoint  on each row      from the wire          we left it
//!           covers                                           2. TRUNCATE | DELETE, UPDATE, INSERT by set,
//!                                                               from staged rows | COPY of new rows
//!                                                            3. COMMIT
//!
//!   held change (catch-up) ─▶ the same, as upserts; the checkpoint row is held where it is
//!   copied rows ─▶ binary COPY, or text ─▶ one transaction with a mark in replicator.copied
//!   schema change ─▶ record of the table ─▶ ALTER TABLE …, one transaction with the record
//! ```
//!
//! # Invariants
//! - A row of `replicator.checkpoint` says: every change whose key's shard is `shard` of `shards`, up to and
//!   including this position, is in the target's tables. That stays true for ever, whatever the shard count
//!   is later, so a change is skipped when *any* row of this sink and slot covers it.
//! - The checkpoint row moves in the transaction that makes it true, and only from the position this process
//!   left it at. Two writers therefore exclude each other, and a batch whose `COMMIT` was answered by a broken
//!   connection is recognised by reading the row again.
//! - Copied rows are beside the checkpoint. A fresh batch leaves a mark in its transaction, by which a second try is
//!   recognised; others replace what has their keys. So does a batch of held changes, which may be older than the
//!   rows that the copy brought, and which comes to the same state however often it comes.
//! - Rows become rows by the target column's own input function, as `COPY` does, never by a cast: a cast
//!   would cut `bit(3)` and `varchar(3)` short in silence. In binary they pass where the receive function is that of
//!   the very type that sent them, see `passage`.
//! - Columns are followed by attribute number, see `record`; a table changes on a fence only, see `resolve`.
//! - A batch costs by its own size, never by the table's: updates and deletes reach rows by the unique index
//!   over the key, which is demanded, and plans that would read the table are switched off. The exception
//!   is a table without a key, see `rowwise`.
//!
//! # Files
//! `sink`, `lane`, `order`, `copying`: the contract's face. `fold`, `plan`, `encode`, `copy_plan`, `copy_text`, `copy_binary`, `passage`:
//! bytes in, statements' input out, without I/O. `session`, `checkpoint`, `copied`, `apply`, `rowwise`, `enums`: the
//! transaction. `resolve`, `record`, `evolve`, `generated`, `create`, `statements`, `existing`, `types`, `target`, `check`:
//! the target's tables.
//! `own_tables`, `notes`: schema `replicator`. `sql`: the text of every statement that applies changes.
//!
//! Sources: <https://www.postgresql.org/docs/current/sql-copy.html> (text format),
//! <https://www.postgresql.org/docs/current/errcodes-appendix.html> (what may pass and what may not),
//! `session_replication_role` in <https://www.postgresql.org/docs/current/runtime-config-client.html>.

mod apply;
mod check;
mod checkpoint;
mod connector;
mod copied;
mod copy_binary;
mod copy_plan;
mod copy_text;
mod copying;
mod create;
mod encode;
mod enums;
mod error;
mod evolve;
mod existing;
mod failure;
mod fence;
mod fold;
mod generated;
mod lane;
mod mapping;
mod multiset;
mod notes;
mod order;
mod origin;
mod own_tables;
mod passage;
mod plan;
mod record;
mod resolve;
mod rowwise;
mod session;
mod sink;
mod sql;
mod statements;
mod target;
mod types;

pub use mapping::passes_unread;
pub use sink::{PostgresSink, open};
