//! The initial copy: which tables, how far, and how they join the stream.
//!
//! ```text
//!   notes of the sinks ─▶ Ledger ─▶ plan ──▶ round: snapshot ─▶ workers ─▶ lanes ─▶ sinks
//!        ▲                                            │ ranges durable
//!        └────────────── notes ◀──────────────────────┤
//!   pipeline ◀── CopiedAt(snapshot), Release ─────────┘
//!        └─────── CaughtUp ─▶ note "done" ─▶ Settled
//! ```
//!
//! One way for everything: the first copy, its going on after a crash, tables that are added later, tables that are
//! asked for (`replicator resync`), tables that ALTER TABLE has rewritten. A temporary slot gives a pair of snapshot
//! and LSN; rows are read under the snapshot and stand at that position. Meanwhile the stream goes on: a sink that
//! holds state by key gets a table's changes when the table's rows are durable there (see `replicator_pipeline`).
//!
//! A table whose schema changes waits for its sinks to follow. That comes the same way, without the rows:
//!
//! ```text
//!   fence: note "apart" ─▶ pipeline ─ ToAlter ─▶ sinks follow ─▶ Release ─▶ CaughtUp ─▶ note "joined" ─▶ Settled
//! ```
//!
//! # After a crash, or a lost snapshot
//! Ranges that are durable stay. What is left is read under a new snapshot, and from the durable ranges the rows
//! that changed since the first one: a row may have moved from a range not yet read into one that was. Then the
//! table's changes follow from the first snapshot on; the last one of each row decides. A table without a key cannot
//! do that, and begins anew, emptied.
//!
//! # Invariants
//! - A table is released when all of its rows are durable in every sink that takes it.
//! - A note never says more than what is durable in the sink that keeps it.
//! - A table in error waits by itself and is tried again; others go on.

mod altering;
mod apart;
mod generated;
mod ledger;
mod left_out;
mod manager;
mod missed;
mod prepare;
mod progress;
mod ranges;
mod round;
mod setup;
mod shared;
mod storages;
mod versions;
mod wanted;

pub use apart::{Apartness, Aparts};
pub use ledger::newest_snapshot;
pub use prepare::prepare_tables;
pub use setup::{CopySink, Outcome, Settings, Setup};
pub use versions::Versions;
pub use wanted::{knows_tables, want_again};
