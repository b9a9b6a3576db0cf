//! The wire format of Postgres' logical replication: frames of the CopyBoth stream and the messages of the
//! `pgoutput` plugin, protocol versions 1 to 4.
//!
//! ```text
//!   bytes ──Frames──▶ 'd' len │ 'w' start end time │ message ──Decoder──▶ Message<'_>
//!                             │ 'k' end time reply │ (keepalive)
//! ```
//!
//! Everything borrows from the received bytes; only a Relation's column list and a Truncate's table list are
//! collected. The bytes are not trusted: every read is checked, an error names the message and the part at
//! which it ended or was wrong, and what is allocated is bounded by what was received.
//!
//! Sources: <https://www.postgresql.org/docs/current/protocol-replication.html>,
//! <https://www.postgresql.org/docs/current/protocol-logicalrep-message-formats.html>, and the writing side,
//! `src/backend/replication/logical/proto.c`.

mod decode;
mod frame;
mod message;
mod reader;

pub use decode::{DecodeError, Decoder};
pub use frame::{Frame, FrameError, Frames};
pub use message::{
    Begin, BeginPrepare, ColumnMessage, Commit, CommitPrepared, Delete, Insert, LogicalMessage, Message, Old,
    Origin, Prepare, RelationMessage, RollbackPrepared, StreamAbort, StreamCommit, StreamStart, Truncate,
    TypeMessage, Update,
};
