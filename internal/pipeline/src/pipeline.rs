//! The stages joined, without I/O: bytes of the stream in, batches for lanes out; acknowledgements of lanes in,
//! the watermark out.
//!
//! ```text
//!   chunk ─▶ Frames ─▶ Decoder ─▶ Relations ─▶ Dispatcher ─▶ outputs (batches and fences)
//!                                                  │ fragments
//!   durable(transactions) ────────────────────▶ Checkpoint ─▶ watermark
//! ```
//!
//! Invariants:
//! - acknowledged ≤ durable in every sink ≤ dispatched ≤ received;
//! - a change is dispatched once in the life of a `Pipeline`: after a reconnect the stream begins again at or
//!   before the watermark, and what was handed out already is passed over, by position.

use crate::checkpoint::Checkpoint;
use crate::dispatcher::{DispatchError, Dispatcher, Output, Route, RowChange, Target};
use crate::relations::Relations;
use pgoutput::{Begin, Commit, DecodeError, Decoder, Frame, FrameError, Frames, Message, Old};
use replicator_types::{Budget, Lsn, Op, TableCatalog, TransactionMeta, TxnId};
use std::collections::HashMap;
use std::time::Instant;

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

/// Counts since the beginning; for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Inserted rows.
    pub inserts: u64,
    /// Updated rows.
    pub updates: u64,
    /// Deleted rows.
    pub deletes: u64,
    /// Truncated tables.
    pub truncates: u64,
    /// Complete transactions.
    pub transactions: u64,
    /// Bytes received.
    pub bytes: u64,
    /// Fences raised.
    pub fences: u64,
}

/// See the module.
#[derive(Debug)]
pub struct Pipeline {
    decoder: Decoder,
    relations: Relations,
    targets: HashMap<u32, Target>,
    dispatcher: Dispatcher,
    checkpoint: Checkpoint,
    transaction: Option<Open>,
    /// A transaction that was open when the connection broke.
    cut_off: Option<Open>,
    /// Commit LSN of the last transaction that was handed out whole.
    sealed: Lsn,
    /// Up to where everything the source has for us was handed out (an end, exclusive).
    passed: Lsn,
    /// How far the source has sent. Not its end of WAL: a data message only tells its own place.
    received: Lsn,
    counts: Counts,
}

#[derive(Clone, Copy, Debug)]
struct Open {
    meta: TransactionMeta,
    /// Number of the next change.
    ordinal: u64,
    /// Changes below this number were handed out before.
    dispatched: u64,
    /// Handed out whole before: only passed over.
    skip: bool,
}

impl Pipeline {
    /// A pipeline for `routes`, where everything up to `watermark` (an end, exclusive) is durable already.
    pub fn new(routes: Vec<Route>, watermark: Lsn, budget: &Budget) -> Self {
        Self {
            decoder: Decoder::new(false),
            relations: Relations::default(),
            targets: HashMap::new(),
            dispatcher: Dispatcher::new(routes, budget),
            checkpoint: Checkpoint::new(watermark),
            transaction: None,
            cut_off: None,
            sealed: Lsn::ZERO,
            passed: watermark,
            received: watermark,
            counts: Counts::default(),
        }
    }

    /// Takes in whole CopyData messages, with what the catalog says of the tables they describe.
    pub fn chunk(
        &mut self,
        bytes: &[u8],
        catalogs: Vec<TableCatalog>,
        now: Instant,
    ) -> Result<(), PipelineError> {
        catalogs.into_iter().for_each(|catalog| self.relations.learn(catalog));
        for frame in Frames::new(bytes) {
            match frame? {
                Frame::Data { wal_end, message, .. } => {
                    self.received = self.received.max(wal_end);
                    self.message(message, now)?;
                }
                Frame::Keepalive { wal_end, .. } => {
                    self.received = self.received.max(wal_end);
                    if self.transaction.is_none() && self.cut_off.is_none() {
                        self.checkpoint.idle(wal_end);
                        self.passed = self.passed.max(wal_end);
                    }
                }
            }
        }
        self.counts.bytes += bytes.len() as u64;
        self.dispatcher.settle_charges();
        Ok(())
    }

    /// The connection broke: the next chunk comes from a new one, which begins again at the watermark.
    pub fn reconnected(&mut self) {
        self.decoder = Decoder::new(false);
        if let Some(open) = self.transaction.take()
            && !open.skip
        {
            self.cut_off = Some(Open { dispatched: open.ordinal.max(open.dispatched), ..open });
        }
    }

    fn message(&mut self, bytes: &[u8], now: Instant) -> Result<(), PipelineError> {
        match self.decoder.decode(bytes)? {
            Message::Insert(insert) => {
                let change =
                    RowChange { op: Op::Insert, old: None, old_is_full: false, new: Some(insert.new) };
                self.row(insert.relation_oid, change, now)
            }
            Message::Update(update) => {
                let (old, old_is_full) = split_old(update.old);
                let change = RowChange { op: Op::Update, old, old_is_full, new: Some(update.new) };
                self.row(update.relation_oid, change, now)
            }
            Message::Delete(delete) => {
                let (old, old_is_full) = split_old(Some(delete.old));
                self.row(delete.relation_oid, RowChange { op: Op::Delete, old, old_is_full, new: None }, now)
            }
            Message::Truncate(truncate) => {
                let flags = (truncate.cascade, truncate.restart_identity);
                self.truncate(&truncate.relation_oids, flags, now)
            }
            Message::Begin(begin) => self.begin(begin),
            Message::Commit(commit) => self.commit(commit),
            Message::Relation(relation) => {
                let relation = self.relations.apply(&relation);
                self.targets.insert(relation.oid, self.dispatcher.target(&relation));
                Ok(())
            }
            // The catalog tells what a Type message does, and more; nobody has asked for the others' content.
            Message::Type(_) | Message::Origin(_) | Message::Logical(_) => Ok(()),
            Message::StreamStart(_)
            | Message::StreamStop
            | Message::StreamCommit(_)
            | Message::StreamAbort(_)
            | Message::StreamPrepare(_) => Err(PipelineError::OutOfOrder {
                what: "a streamed transaction",
                place: "without being asked",
            }),
            Message::BeginPrepare(_)
            | Message::Prepare(_)
            | Message::CommitPrepared(_)
            | Message::RollbackPrepared(_) => Err(PipelineError::OutOfOrder {
                what: "a prepared transaction",
                place: "without being asked",
            }),
        }
    }

    fn begin(&mut self, begin: Begin) -> Result<(), PipelineError> {
        if self.transaction.is_some() {
            return Err(PipelineError::OutOfOrder { what: "a Begin", place: "inside a transaction" });
        }
        let meta = |id| TransactionMeta {
            id,
            commit_lsn: begin.final_lsn,
            commit_time_us: begin.commit_time_us,
            xid: begin.xid,
        };
        let open = if begin.final_lsn <= self.sealed {
            Open { meta: meta(TxnId(u64::MAX)), ordinal: 0, dispatched: 0, skip: true }
        } else if let Some(cut_off) = self.cut_off.take() {
            if cut_off.meta.commit_lsn != begin.final_lsn {
                return Err(PipelineError::LostTransaction {
                    expected: cut_off.meta.commit_lsn,
                    found: begin.final_lsn,
                });
            }
            Open { ordinal: 0, ..cut_off }
        } else {
            let id = self.checkpoint.begin(begin.commit_time_us);
            Open { meta: meta(id), ordinal: 0, dispatched: 0, skip: false }
        };
        self.transaction = Some(open);
        Ok(())
    }

    fn commit(&mut self, commit: Commit) -> Result<(), PipelineError> {
        let open = self
            .transaction
            .take()
            .ok_or(PipelineError::OutOfOrder { what: "a Commit", place: "outside a transaction" })?;
        if open.skip {
            return Ok(());
        }
        self.checkpoint.seal(open.meta.id, commit.end_lsn);
        self.sealed = open.meta.commit_lsn;
        self.passed = self.passed.max(commit.end_lsn);
        self.counts.transactions += 1;
        Ok(())
    }

    fn row(&mut self, relation_oid: u32, change: RowChange<'_>, now: Instant) -> Result<(), PipelineError> {
        let open = self
            .transaction
            .as_mut()
            .ok_or(PipelineError::OutOfOrder { what: "a row change", place: "outside a transaction" })?;
        if open.skip {
            return Ok(());
        }
        let target = self.targets.get(&relation_oid).ok_or(PipelineError::UnknownRelation(relation_oid))?;
        if open.ordinal < open.dispatched {
            // Passed over, but counted as it was the first time.
            open.ordinal += Dispatcher::ordinals(target, &change)?;
            return Ok(());
        }
        let taken =
            self.dispatcher.row(&mut self.checkpoint, &open.meta, target, change, open.ordinal, now)?;
        open.ordinal += taken;
        match change.op {
            Op::Insert => self.counts.inserts += 1,
            Op::Update => self.counts.updates += 1,
            Op::Delete | Op::Truncate => self.counts.deletes += 1,
        }
        Ok(())
    }

    fn truncate(&mut self, oids: &[u32], flags: (bool, bool), now: Instant) -> Result<(), PipelineError> {
        let open = self
            .transaction
            .as_mut()
            .ok_or(PipelineError::OutOfOrder { what: "a Truncate", place: "outside a transaction" })?;
        if open.skip {
            return Ok(());
        }
        let mut targets = Vec::with_capacity(oids.len());
        for oid in oids {
            targets.push(self.targets.get(oid).ok_or(PipelineError::UnknownRelation(*oid))?.clone());
        }
        if open.ordinal >= open.dispatched {
            self.dispatcher.truncate(&mut self.checkpoint, &open.meta, &targets, flags, open.ordinal, now);
            self.counts.truncates += targets.len() as u64;
        }
        open.ordinal += targets.len() as u64;
        Ok(())
    }

    /// A batch with changes of these transactions is durable.
    pub fn durable(&mut self, transactions: impl IntoIterator<Item = TxnId>) {
        transactions.into_iter().for_each(|id| self.checkpoint.durable(id));
    }

    /// Cuts the batches that have waited long enough.
    pub fn tick(&mut self, now: Instant) {
        self.dispatcher.cut_due(now);
    }

    /// Cuts all open batches, however small.
    pub fn flush(&mut self) {
        self.dispatcher.cut_all();
    }

    /// When [`Pipeline::tick`] has something to do next.
    pub fn due(&self) -> Option<Instant> {
        self.dispatcher.due()
    }

    /// What is to be handed to lanes, in order.
    pub fn take_outputs(&mut self) -> Vec<Output> {
        let outputs = std::mem::take(&mut self.dispatcher.outputs);
        self.counts.fences +=
            outputs.iter().filter(|output| matches!(output, Output::Fence(..))).count() as u64;
        outputs
    }

    /// What may be acknowledged to the source (an end, exclusive).
    pub fn watermark(&self) -> Lsn {
        self.checkpoint.watermark()
    }

    /// Up to where everything the source has for us was handed out (an end, exclusive).
    pub fn passed(&self) -> Lsn {
        self.passed
    }

    /// How far the source has sent, as the messages themselves say.
    pub fn received(&self) -> Lsn {
        self.received
    }

    /// Commit time of the oldest transaction that is not durable, microseconds since 2000-01-01 UTC.
    pub fn oldest_commit_time_us(&self) -> Option<i64> {
        self.checkpoint.oldest_commit_time_us()
    }

    /// Transactions that are not durable yet.
    pub fn pending(&self) -> usize {
        self.checkpoint.pending()
    }

    /// Whether every complete transaction is durable. One that is open does not count: it comes again.
    pub fn is_drained(&self) -> bool {
        self.checkpoint.pending()
            <= usize::from(self.transaction.is_some_and(|open| !open.skip) || self.cut_off.is_some())
    }

    /// Counts for metrics.
    pub fn counts(&self) -> Counts {
        self.counts
    }
}

fn split_old(old: Option<Old<'_>>) -> (Option<replicator_types::Tuple<'_>>, bool) {
    match old {
        Some(Old::Key(tuple)) => (Some(tuple), false),
        Some(Old::Full(tuple)) => (Some(tuple), true),
        None => (None, false),
    }
}
