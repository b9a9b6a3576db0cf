//! The Postgres sink: every change exactly once, because data and checkpoint are one transaction.
//!
//! ```text
//!   batch ─▶ filter ─▶ fold per key ─▶ COPY text ─▶ Write ─▶ one transaction of the target:
//!           what the    the last word    straight            1. move the checkpoint row, if it is where
//!           checkpoint  on each row      from the wire          we left it
//!           covers                                           2. TRUNCATE | DELETE, UPDATE, INSERT by set,
//!                                                               from staged rows | COPY of new rows
//!                                                            3. COMMIT
//! ```
//!
//! # Invariants
//! - A row of `replicator.checkpoint` says: every change whose key's shard is `shard` of `shards`, up to and
//!   including this position, is in the target's tables. That stays true for ever, whatever the shard count
//!   is later, so a change is skipped when *any* row of this sink and slot covers it.
//! - The checkpoint row moves in the transaction that makes it true, and only from the position this process
//!   left it at. Two writers therefore exclude each other, and a batch whose `COMMIT` was answered by a broken
//!   connection is recognised by reading the row again.
//! - Rows become rows by the target column's own input function, as `COPY` does, never by a cast: a cast
//!   would cut `bit(3)` and `varchar(3)` short in silence.
//! - A batch costs by its own size, never by the table's: updates and deletes reach rows by the unique index
//!   over the key, which is demanded, and plans that would read the table are switched off. The exception
//!   is a table without a key, see `rowwise`.
//!
//! # Files
//! `sink`, `lane`: the contract's face. `fold`, `plan`, `copy_text`: bytes in, statements' input out, without
//! I/O. `session`, `checkpoint`, `apply`, `rowwise`: the transaction. `target`, `create`, `check`: the target's
//! tables. `sql`: every statement's text.
//!
//! Sources: <https://www.postgresql.org/docs/current/sql-copy.html> (text format),
//! <https://www.postgresql.org/docs/current/errcodes-appendix.html> (what may pass and what may not),
//! `session_replication_role` in <https://www.postgresql.org/docs/current/runtime-config-client.html>.

mod apply;
mod check;
mod checkpoint;
mod connector;
mod copy_text;
mod create;
mod error;
mod fold;
mod lane;
mod plan;
mod rowwise;
mod session;
mod sink;
mod sql;
mod target;

pub use sink::{PostgresSink, open};
