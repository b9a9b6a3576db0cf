//! What a sink is: the contract between the pipeline and the places changes go to.
//!
//! ```text
//!   Sink ──open──▶ Lane (one a shard) ──prepare(batch)──▶ Write ──send──▶ Ok: durable
//!                    in order, one at a time            several at once, each retried until Ok
//! ```
//!
//! # Contract
//! - Changes of one key reach one lane, in order. A lane gets its batches one at a time and in order.
//! - [`Lane::prepare`] turns a batch into a [`Write`]. It may talk to the destination (make a table, read a
//!   value back). After an error of kind [`ErrorKind::Retry`] it is called again with the same batch, and
//!   must come to the same end as if the failed call had not been.
//! - [`Write::send`] may be called again after *any* error, also one after which the destination holds the
//!   data (a lost reply). The second call must change nothing.
//! - `Ok` from [`Write::send`] is the promise the checkpoint rests on: everything in the batch survives a
//!   crash of the destination and of this process. Not "accepted", not "queued".
//! - Up to [`Lane::in_flight_max`] writes of a lane run at once and end in any order. A lane that cannot
//!   bear that says 1.
//! - A batch for which [`Lane::needs_drain`] is true, and any fenced one, is prepared only when no write of
//!   the lane is in flight, and nothing is prepared after it until it is durable.
//! - After a restart the stream begins again at or before the last acknowledged transaction's end: changes
//!   come a second time, at the same positions, cut into batches differently. A sink comes to the same
//!   state.
//! - Dropping a future of any method (shutdown, lost lead) leaves the destination in a state from which the
//!   same batch can be sent again.

mod blackhole;
mod error;

pub use blackhole::Blackhole;
pub use error::{ErrorKind, SinkError};

use async_trait::async_trait;
use replicator_types::{Batch, CheckItem, Relation, SlotIdentity};
use std::sync::Arc;

/// What of an update that changes the key a sink is given.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KeyChanges {
    /// A delete of the old key and an insert of the new row, each in its own key's lane. For sinks that hold
    /// state by key. Where the new row has unresolved TOAST values the update comes whole, in a fenced batch.
    Split,
    /// The update as one change, in the lane of its new key. For logs, which have one lane.
    Whole,
}

/// What a sink needs to know of the stream before the first batch.
#[derive(Clone, Debug)]
pub struct StreamInfo {
    /// The slot that positions belong to.
    pub identity: SlotIdentity,
    /// Whether the slot was made just now. A sink that holds state of an earlier slot of the same identity must
    /// refuse then: what was committed between the two never comes.
    pub slot_is_new: bool,
    /// The source database's name.
    pub database: String,
    /// The tables published when the run began, for creating their counterparts early. The list may be
    /// out of date by the time a change arrives; batches carry the truth.
    pub tables: Vec<Arc<Relation>>,
}

/// A configured destination.
#[async_trait]
pub trait Sink: Send + Sync {
    /// The name from the configuration.
    fn name(&self) -> &str;

    /// The kind, as in `type = "…"`.
    fn kind(&self) -> &'static str;

    /// How many lanes it is to have.
    fn shards(&self) -> u32;

    /// Whether it wants updates of the key split.
    fn key_changes(&self) -> KeyChanges;

    /// Tests connection, version and permissions without changing anything, including for each of `tables`
    /// whether it could be written. Never fails as a whole.
    async fn check(&self, tables: &[Arc<Relation>]) -> Vec<CheckItem>;

    /// Connects and creates what must exist before the first batch. Called once, before any lane is opened.
    async fn prepare(&self, stream: &StreamInfo) -> Result<(), SinkError>;

    /// Opens lane `shard` of [`Sink::shards`].
    async fn open_lane(&self, shard: u32, stream: &StreamInfo) -> Result<Box<dyn Lane>, SinkError>;

    /// Whether the destination answers: for `/readyz`. Cheap.
    async fn ping(&self) -> Result<(), SinkError>;
}

/// One shard of a sink.
#[async_trait]
pub trait Lane: Send {
    /// How many writes may be in flight at once.
    fn in_flight_max(&self) -> usize {
        1
    }

    /// Whether `batch` may only be prepared when no write is in flight.
    fn needs_drain(&self, _batch: &Batch) -> bool {
        false
    }

    /// Turns a batch into a write. See the contract.
    async fn prepare(&mut self, batch: Arc<Batch>) -> Result<Box<dyn Write>, SinkError>;
}

/// A batch on its way to durability.
#[async_trait]
pub trait Write: Send {
    /// Bytes it holds in memory, counted against the process' budget until it is durable. The batch's own
    /// bytes are given back as soon as the write is prepared, unless the write keeps the batch alive.
    fn held_bytes(&self) -> usize;

    /// Sends it. `Ok` means durable. May be called again after any error.
    async fn send(&mut self) -> Result<(), SinkError>;
}
