use crate::dispatcher::DispatchError;
use pgoutput::{DecodeError, FrameError};
use replicator_spill::SpillError;
use replicator_types::Lsn;

/// The stream cannot be followed. Nothing of what was acknowledged is wrong; a person has to look.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PipelineError {
    /// Not a replication stream.
    #[error("{0}")]
    Frame(#[from] FrameError),
    /// Not `pgoutput`.
    #[error("{0}")]
    Decode(#[from] DecodeError),
    /// A change that has no way to its sinks.
    #[error("{0}")]
    Dispatch(#[from] DispatchError),
    /// Changes that have to wait can't be kept.
    #[error("{0}")]
    Spill(#[from] SpillError),
    /// A message where it cannot be, or one that was not asked for.
    #[error("the source sent {what} {place}, which the protocol does not allow there")]
    OutOfOrder {
        /// Name of the message.
        what: &'static str,
        /// Where it came.
        place: &'static str,
    },
    /// A change of a table that was not described.
    #[error("the source sent a change of the table with oid {0} without describing the table")]
    UnknownRelation(u32),
    /// A prepared transaction commits whose changes never came.
    #[error(
        "the source commits the prepared transaction {0}, whose changes it sent before the slot's position: the slot was \
         moved by somebody else, or another reader has acknowledged them; drop the slot and copy the tables anew"
    )]
    UnknownPrepared(String),
    /// After a reconnect the stream goes on behind a transaction that was under way.
    #[error(
        "the transaction with commit LSN {expected} was under way when the connection broke, and the source now \
         continues with {found}: it has lost WAL (was a standby promoted that lacked it?); the sinks hold part of \
         that transaction, so compare them with the source before going on"
    )]
    LostTransaction {
        /// Commit LSN of the transaction that was cut off.
        expected: Lsn,
        /// Commit LSN of what came instead.
        found: Lsn,
    },
}
