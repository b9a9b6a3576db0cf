//! The source: connects to Postgres, sees to it that slot and publication are there and right, reads the
//! stream and acknowledges it.
//!
//! ```text
//!                    ┌── check, prepare, slot_status, current_lsn ── SQL ─────────────┐
//!   Source ──────────┤                                                               Postgres
//!                    ├── snapshot ─▶ CopyWorker ◀── rows of tables ── SQL ─────────────┤
//!                    └── stream ─▶ Reader ◀── chunks ──── replication connection ─────┤
//!                              └─▶ Feedback ──── acknowledged, alive ─────────────────┘
//! ```
//!
//! # Invariants
//! - One process at a time has a slot's [`Lease`]; who has it not asks no sink for anything.
//! - Nothing is acknowledged that the watermark does not say is durable.
//! - The slot that is read is the one that was prepared: same cluster, same name; otherwise the stream does
//!   not begin.
//! - A slot that has lost changes is never silently made anew.
//!
//! Sources: <https://www.postgresql.org/docs/current/logicaldecoding.html>,
//! <https://www.postgresql.org/docs/current/protocol-replication.html>.

mod auth;
mod catalog;
mod command;
mod copy;
mod default_expression;
mod error;
mod feedback;
mod frames;
#[cfg(fuzzing)]
pub mod fuzzing;
mod lease;
mod negotiation;
mod pace;
mod poll;
mod publication;
mod raw;
mod reader;
mod server;
mod signals;
mod slot;
mod source;
mod sql;
mod timeline;
mod value_types;

pub use command::{Origin, StreamOptions, Streaming};
pub use copy::{CopyLimits, CopyPart, CopyTable, CopyWorker, Snapshot};
pub use error::{SourceError, lost_slot_remedy};
pub use feedback::{Feedback, FeedbackHandle};
pub use lease::{Lease, Term};
pub use reader::{Chunk, Reader};
pub use replicator_pgconn::ErrorKind;
pub use slot::SlotStatus;
pub use source::{Beginning, Identified, Prepared, Source};
pub use timeline::Timelines;
