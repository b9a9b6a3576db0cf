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
//! - `Ok` from [`Write::send`], where the write does not [have more](Write::has_more), is the promise the checkpoint rests on:
//!   everything in the batch survives a crash of the destination and of this process. Not "accepted", not "queued".
//! - Up to [`Lane::in_flight_max`] writes of a lane run at once and end in any order. A lane that cannot
//!   bear that says 1.
//! - A write that is not [full](Write::is_full) waits a moment for those behind it to [join](Write::join) it; both are
//!   durable, or fail, together.
//! - A batch for which [`Lane::needs_drain`] is true, and any fenced one, is prepared only when no write of
//!   the lane is in flight, and nothing is prepared after it until it is durable.
//! - After a restart the stream begins again at or before the last acknowledged transaction's end: changes
//!   come a second time, at the same positions, cut into batches differently. A sink comes to the same
//!   state.
//! - A batch says on which way it comes ([`Phase`](replicator_types::Phase)); a lane of the stream gets `Stream` and
//!   `CatchUp`, a copy lane gets `Copy`.
//! - A sink is told of each version of a table before the version's first change: mostly by [`Sink::alter`], at a moment
//!   when nothing of the table is on its way while other tables go on; otherwise, and a log that does not take [late
//!   changes](Sink::takes_late_changes) always, by a change of kind [`Op::Schema`](replicator_types::Op::Schema), fenced. The sink follows the columns by attribute number (by name where that is 0), so that a renamed
//!   column keeps its values and one that was dropped and added anew does not. What it has made of a table it
//!   keeps in its own [notes](Sink::notes) or beside the table, with the version's
//!   [`since`](replicator_types::Relation::since): changes of older versions come again after a restart, and
//!   then go into the columns of the same attribute numbers, and nothing is altered.
//! - Dropping a future of any method (shutdown, lost lead) leaves the destination in a state from which the
//!   same batch can be sent again.

mod blackhole;
mod error;

pub use blackhole::{Blackhole, Nothing};
pub use error::{ErrorKind, SinkError};

use async_trait::async_trait;
use replicator_types::{Batch, CheckItem, GeneratedColumn, Lsn, Position, Relation, SlotIdentity};
use std::any::Any;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Key of the note that says who writes.
pub const CLAIM_NOTE: &str = "claim";

/// Key of the note that says what is acknowledged at most. It is written again and again, up to every second.
pub const ACKNOWLEDGED_NOTE: &str = "acknowledged";

/// What of an update that changes the key a sink is given.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KeyChanges {
    /// A delete of the old key and an insert of the new row, each in its own key's lane. For sinks that hold
    /// state by key. Where the new row has unresolved TOAST values the update comes whole, in a fenced
    /// batch of such updates, none of which has a key of another.
    Split,
    /// The update as one change, in the lane of its new key. For logs, which have one lane.
    Whole,
}

/// A table that is about to be copied.
#[derive(Clone, Debug)]
pub struct TableCopy {
    /// As it was under the snapshot.
    pub relation: Arc<Relation>,
    /// Rows stand at [`Position::copied`](replicator_types::Position::copied) of it.
    pub snapshot: Lsn,
    /// Whether the sink has to forget what it holds of the table, before the first row.
    pub empty_first: bool,
    /// Whether it goes on with a copy of which rows were sent before, under another snapshot. Otherwise a log writes
    /// down that the table begins anew: what it has of it from before this snapshot is in the copy.
    pub is_resumed: bool,
}

/// What a sink needs to know of the stream before the first batch.
#[derive(Clone, Debug)]
pub struct StreamInfo {
    /// The slot that positions belong to.
    pub identity: SlotIdentity,
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

    /// Whether a log ([`KeyChanges::Whole`]) takes changes of a table behind later ones of other tables, and tells those that
    /// it has from those that it has not. Then it waits for a table as sinks do that hold state by key, and follows changes
    /// of its schema by [`Sink::alter`]; and it gets what it missed of a table that it was left out of. Without that it gets
    /// everything as it comes, and what it refuses of one table ends the run.
    fn takes_late_changes(&self) -> bool {
        false
    }

    /// Tests connection, version and permissions without changing anything, including for each of `tables`
    /// whether it could be written. Never fails as a whole.
    async fn check(&self, tables: &[Arc<Relation>]) -> Vec<CheckItem>;

    /// Connects and creates what must exist before the first batch; of [`StreamInfo::tables`] as
    /// [`Sink::prepare_table`] does. Called once, before any lane is opened.
    async fn prepare(&self, stream: &StreamInfo) -> Result<(), SinkError>;

    /// Creates early what a table needs. A table that the sink has made or found before, and that is not there any more, is
    /// an error [of the table](SinkError::of_table): what was in it does not come again by itself. Called after
    /// [`Sink::prepare`].
    async fn prepare_table(&self, _relation: &Arc<Relation>) -> Result<(), SinkError> {
        Ok(())
    }

    /// Opens lane `shard` of [`Sink::shards`].
    async fn open_lane(&self, shard: u32, stream: &StreamInfo) -> Result<Box<dyn Lane>, SinkError>;

    /// Whether it takes logical messages, as changes of kind [`Op::Message`](replicator_types::Op::Message).
    fn wants_messages(&self) -> bool {
        false
    }

    /// The notes that [`Sink::put_note`] has left for this stream: small texts, by key. Called after
    /// [`Sink::prepare`].
    ///
    /// They say how far a copy has got, and as what tables were told, so they have to be exactly as durable as the data: a destination that is
    /// emptied or set back has lost its notes too.
    async fn notes(&self) -> Result<BTreeMap<String, String>, SinkError>;

    /// Keeps a note (`None` removes it). `Ok` means durable. Notes of other slots and clusters are left alone.
    async fn put_note(&self, key: &str, value: Option<&str>) -> Result<(), SinkError>;

    /// Says in the destination, durably, which process writes to it from now on: `run`, a name that no other process
    /// has. Called after [`Sink::prepare`], before any lane is opened and before anything else is written.
    async fn claim(&self, run: &str) -> Result<(), SinkError> {
        self.put_note(CLAIM_NOTE, Some(run)).await
    }

    /// Who [`Sink::claim`]ed it last. Read anew from the destination, whatever this process remembers of it.
    async fn claimant(&self) -> Result<Option<String>, SinkError> {
        Ok(self.notes().await?.remove(CLAIM_NOTE))
    }

    /// An LSN that no change of the stream and no copied row in the destination goes beyond, as near as it can be told;
    /// zero where there is nothing of the stream. `None`: this kind of sink can't tell. Called after [`Sink::prepare`],
    /// and seldom: it may look at all there is.
    async fn reach(&self) -> Result<Option<Lsn>, SinkError> {
        Ok(None)
    }

    /// Keeps several notes, of different keys. `Ok` means that all are durable; after an error any may be.
    async fn put_notes(&self, notes: &[(String, String)]) -> Result<(), SinkError> {
        for (key, value) in notes {
            self.put_note(key, Some(value)).await?;
        }
        Ok(())
    }

    /// Follows a change of a table's schema: from `at` on the table looks like `relation`. Everything of the table that was
    /// made under earlier versions is durable, and nothing comes until this has succeeded. Called again after an error or a
    /// crash, also when the table is as `relation` or a later version has it already; then it changes nothing.
    ///
    /// Without one of its own a sink finds each version with the first batch that has it.
    async fn alter(&self, _relation: &Arc<Relation>, _at: Position) -> Result<(), SinkError> {
        Ok(())
    }

    /// Follows what the source computes in a table and does not send: these are all such columns now, and the
    /// attribute numbers of all that are gone, in a table that the sink has, or may have later. A sink that computes values itself has the same columns after `Ok(())`, as far as it
    /// can have them. Called again and again, mostly with what it knows; an error holds up nothing.
    async fn follow_generated(
        &self,
        _oid: u32,
        _columns: &[GeneratedColumn],
        _dropped: &[i16],
    ) -> Result<(), SinkError> {
        Ok(())
    }

    /// Makes the table ready for its copy: there, in that shape, and empty where that is asked for. A log
    /// writes down that the table begins anew. Called again after an error or a crash.
    ///
    /// Returns whether the table is empty now: if so, what changed before the snapshot need not be handed on, since
    /// there is nothing left to delete. A log, which gets all changes anyway, says yes.
    async fn begin_copy(&self, copy: &TableCopy) -> Result<bool, SinkError>;

    /// Opens a lane for copied rows. Several run at once, beside the stream's; `number` tells them apart.
    async fn open_copy_lane(&self, number: u32, stream: &StreamInfo) -> Result<Box<dyn Lane>, SinkError>;

    /// All rows of the table are durable: puts away what was only needed on the way.
    async fn end_copy(&self, copy: &TableCopy) -> Result<(), SinkError>;

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

/// A batch, or several, on the way to durability.
#[async_trait]
pub trait Write: Any + Send {
    /// Bytes it holds in memory, counted against the process' budget until it is durable. The batch's own
    /// bytes are given back as soon as the write is prepared, unless the write keeps the batch alive.
    fn held_bytes(&self) -> usize;

    /// Whether it is large enough to be sent. One that is not waits a moment for the lane's next.
    fn is_full(&self) -> bool {
        true
    }

    /// Takes up the lane's next write, neither having been sent: both are durable with one [`Write::send`].
    ///
    /// # Errors
    /// The next write, where the two are better sent one by one.
    fn join(&mut self, next: Box<dyn Write>) -> Result<(), Box<dyn Write>> {
        Err(next)
    }

    /// Sends it, or does a part of that ([`Write::has_more`]). `Ok` without more to come means durable. May be called again
    /// after any error.
    async fn send(&mut self) -> Result<(), SinkError>;

    /// Whether [`Write::send`] has to be called again, now that it has succeeded. One that takes long is sent in pieces, so
    /// that whether this process may write is asked before each.
    fn has_more(&self) -> bool {
        false
    }
}

impl dyn Write {
    /// The write as the type that it is of; what [`Write::join`] asks first.
    ///
    /// # Errors
    /// The write as it was, when it is of another.
    pub fn downcast<T: Write>(self: Box<Self>) -> Result<Box<T>, Box<Self>> {
        if !(&*self as &dyn Any).is::<T>() {
            return Err(self);
        }
        let Ok(write) = (self as Box<dyn Any>).downcast() else { unreachable!("it is of that type") };
        Ok(write)
    }
}
