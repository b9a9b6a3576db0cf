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

mod changes;
mod error;
mod leaving;
mod left_out;
mod replay;
mod tables;

pub use error::PipelineError;
pub use tables::{Doubt, Notice, Standing};

use crate::accounts::Accounts;
use crate::dispatcher::{Dispatcher, Output, Route, RowChange, Target};
use crate::relations::{Place, Relations};
use crate::unfinished::Unfinished;
use bytes::Bytes;
use left_out::LeftOut;
use pgoutput::{Decoder, Frame, Frames, Message, Old};
use replay::Replay;
use replicator_spill::Shelf;
use replicator_types::{Budget, Lsn, Op, Position, Relation, TableCatalog, TransactionMeta, TxnId};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Instant;
use tables::Tables;

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
    parallel_streaming: bool,
    relations: Relations,
    targets: HashMap<u32, Target>,
    dispatcher: Dispatcher,
    accounts: Accounts,
    transaction: Option<Open>,
    /// A transaction that was open when the connection broke.
    cut_off: Option<Open>,
    /// Commit LSN of the last transaction that was handed out whole.
    sealed: Lsn,
    /// End of the last logical message outside a transaction that was handed out.
    messages_passed: Lsn,
    /// Up to where everything the source has for us was handed out (an end, exclusive).
    passed: Lsn,
    /// How far the source has sent. Not its end of WAL: a data message only tells its own place.
    received: Lsn,
    last_commit_time_us: i64,
    counts: Counts,
    /// Received, and not worked through yet.
    input: Option<Bytes>,
    unfinished: Unfinished,
    /// A transaction that was kept and has committed, on its way.
    replay: Option<Replay>,
    tables: Tables,
    left_out: LeftOut,
    message_relation: Arc<Relation>,
    /// Logical messages with this prefix are for the replicator itself.
    request_prefix: String,
    /// One logical message, as a row.
    scratch: Vec<u8>,
    notices: Vec<Notice>,
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
    /// Sent before it committed, and kept since.
    was_kept: bool,
}

impl Open {
    /// Whether what comes now was handed out before.
    fn is_passed_over(&self) -> bool {
        self.skip || self.ordinal < self.dispatched
    }

    fn position(&self) -> Position {
        Position { commit_lsn: self.meta.commit_lsn, ordinal: self.ordinal }
    }

    fn place(&self) -> Place {
        Place { since: self.meta.commit_lsn, xid: self.meta.xid, was_kept: self.was_kept }
    }
}

/// How much of what waited is handed on in one go.
const STEP_BYTES: usize = 512 << 10;

impl Pipeline {
    /// A pipeline for `routes`, where everything up to `watermark` (an end, exclusive) is durable already. Every table
    /// is live; what has to wait stays in memory.
    pub fn new(routes: Vec<Route>, watermark: Lsn, budget: &Budget) -> Self {
        let shelf = Shelf::in_memory();
        Self {
            decoder: Decoder::new(false),
            parallel_streaming: false,
            relations: Relations::default(),
            targets: HashMap::new(),
            dispatcher: Dispatcher::new(routes, budget),
            accounts: Accounts::new(watermark),
            transaction: None,
            cut_off: None,
            sealed: Lsn::ZERO,
            messages_passed: Lsn::ZERO,
            passed: watermark,
            received: watermark,
            last_commit_time_us: 0,
            counts: Counts::default(),
            input: None,
            unfinished: Unfinished::new(shelf.clone()),
            replay: None,
            tables: Tables::new(shelf),
            left_out: LeftOut::default(),
            message_relation: Arc::new(Relation::message()),
            request_prefix: String::new(),
            scratch: Vec::new(),
            notices: Vec::new(),
        }
    }

    /// Where changes wait that have to.
    #[must_use]
    pub fn with_shelf(mut self, shelf: Shelf) -> Self {
        self.unfinished = Unfinished::new(shelf.clone());
        self.tables.shelf = shelf;
        self
    }

    /// Whether `streaming 'parallel'` is asked for.
    #[must_use]
    pub fn with_parallel_streaming(mut self, parallel: bool) -> Self {
        self.parallel_streaming = parallel;
        self.decoder = Decoder::new(parallel);
        self
    }

    /// Logical messages with this prefix are told as [`Notice::Request`]; none when it is empty.
    #[must_use]
    pub fn with_request_prefix(mut self, prefix: String) -> Self {
        self.request_prefix = prefix;
        self
    }

    /// What the sinks were told of the tables before the stream: any number of versions of each. The newest from before
    /// the watermark is what the run begins with, and those behind it are what changes that come again were made under.
    #[must_use]
    pub fn with_relations(mut self, relations: impl IntoIterator<Item = Arc<Relation>>) -> Self {
        let mut versions: BTreeMap<u32, Vec<Arc<Relation>>> = BTreeMap::new();
        for relation in relations {
            versions.entry(relation.oid).or_default().push(relation);
        }
        let watermark = self.passed;
        versions.into_values().for_each(|versions| self.relations.begin_with(versions, watermark));
        self
    }

    /// All transactions with ids older than that were over before anything was written that the stream brings: the slot's
    /// `catalog_xmin` when the run begins.
    #[must_use]
    pub fn with_horizon(mut self, horizon: Option<u32>) -> Self {
        self.relations.begin_behind(horizon);
        self
    }

    /// Takes in whole CopyData messages, with what the catalog says of the tables they describe, and works through
    /// them as far as [`Pipeline::work`] does in one go. To be called when [`Pipeline::is_busy`] is false.
    pub fn chunk(
        &mut self,
        bytes: Bytes,
        catalogs: Vec<TableCatalog>,
        now: Instant,
    ) -> Result<(), PipelineError> {
        catalogs.into_iter().for_each(|catalog| self.relations.learn_next(catalog));
        self.counts.bytes += bytes.len() as u64;
        self.input = Some(bytes);
        self.work(now)
    }

    /// Whether what was received has not all been worked through.
    pub fn is_busy(&self) -> bool {
        self.input.is_some() || self.replay.is_some()
    }

    /// Works on, for a limited time: what waited in files is handed on in pieces, so that whoever calls sees to the
    /// memory in between.
    pub fn work(&mut self, now: Instant) -> Result<(), PipelineError> {
        if self.replay.is_some() {
            self.replay_some(now)?;
        }
        if self.replay.is_none()
            && let Some(bytes) = self.input.take()
        {
            let mut frames = Frames::new(&bytes);
            while let Some(frame) = frames.next() {
                self.frame(frame?, now)?;
                if self.replay.is_some() {
                    let done = bytes.len() - frames.remaining();
                    self.input = Some(bytes.slice(done..)).filter(|rest| !rest.is_empty());
                    break;
                }
            }
        }
        if !self.tables.to_hold.is_empty() && !self.is_within_transaction() {
            self.hold_passed(now);
        }
        if self.relations.has_kept(self.passed) && !self.is_within_transaction() {
            self.tell_kept(self.passed, now)?;
        }
        if !self.tables.catalogs.is_empty() && !self.is_within_transaction() {
            self.tell_catalogs(now)?;
        }
        self.dispatcher.settle_charges();
        Ok(())
    }

    fn is_within_transaction(&self) -> bool {
        self.transaction.is_some() || self.cut_off.is_some() || self.unfinished.preparing().is_some()
    }

    fn frame(&mut self, frame: Frame<'_>, now: Instant) -> Result<(), PipelineError> {
        match frame {
            Frame::Data { wal_end, message, .. } => {
                self.received = self.received.max(wal_end);
                self.received_message(message, now)
            }
            Frame::Keepalive { wal_end, .. } => {
                self.received = self.received.max(wal_end);
                if !self.is_within_transaction() {
                    self.accounts.idle(wal_end);
                    self.passed = self.passed.max(wal_end);
                }
                Ok(())
            }
        }
    }

    /// The connection broke: the next chunk comes from a new one, which begins again at the watermark. To be called when
    /// [`Pipeline::is_busy`] is false.
    pub fn reconnected(&mut self) {
        self.decoder = Decoder::new(self.parallel_streaming);
        self.unfinished.reconnected();
        self.relations.reconnected();
        if let Some(open) = self.transaction.take()
            && !open.skip
        {
            self.cut_off = Some(Open { dispatched: open.ordinal.max(open.dispatched), ..open });
        }
    }

    fn received_message(&mut self, bytes: &[u8], now: Instant) -> Result<(), PipelineError> {
        let message = self.decoder.decode(bytes)?;
        if self.unfinished.is_open()
            && let Some(subxid) = belongs_to_transaction(&message)
        {
            // For the source the table is described now, also for transactions that commit before this one; in a stream
            // block it is only for the transaction (`get_rel_sync_entry` and `maybe_send_schema` of its `pgoutput.c`).
            if let Message::Relation(relation) = &message
                && let Some((xid, is_known)) = self.unfinished.preparing()
            {
                let place = Place { since: self.passed, xid, was_kept: false };
                let relation = self.relations.announce_prepared(relation, place, is_known);
                // What was passed over before may have described it as it was once.
                let is_told =
                    self.relations.told(relation.oid).is_some_and(|told| Arc::ptr_eq(told, &relation));
                if is_told || !self.targets.contains_key(&relation.oid) {
                    self.targets.insert(relation.oid, self.dispatcher.target(&relation));
                }
            }
            return Ok(self.unfinished.push(subxid, bytes)?);
        }
        self.message(message, now)
    }

    fn message(&mut self, message: Message<'_>, now: Instant) -> Result<(), PipelineError> {
        match message {
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
            Message::Begin(begin) => self.begin(begin, now),
            Message::Commit(commit) => self.commit(commit),
            Message::Relation(relation) => {
                let open = self.transaction.filter(|open| !open.is_passed_over());
                let nowhere = Place { since: self.passed, xid: 0, was_kept: false };
                let place = self.transaction.map_or(nowhere, |open| open.place());
                if open.is_none() {
                    let relation = self.relations.announce(&relation, place);
                    self.targets.insert(relation.oid, self.dispatcher.target(&relation));
                    return Ok(());
                }
                let met = self.relations.apply(&relation, place);
                self.met(met, now)
            }
            Message::Logical(logical) => {
                self.logical(&logical, now);
                Ok(())
            }
            // The catalog tells what a Type message does, and more. Changes of other origins are asked for or not.
            Message::Type(_) | Message::Origin(_) => Ok(()),
            Message::StreamStart(start) => {
                self.unfinished.stream_start(start.xid);
                Ok(())
            }
            Message::StreamStop => {
                self.unfinished.stream_stop();
                Ok(())
            }
            Message::StreamAbort(abort) => {
                self.unfinished.stream_abort(abort.xid, abort.subxid);
                Ok(())
            }
            Message::StreamCommit(commit) => {
                let kept = self.unfinished.take_stream(commit.xid);
                self.begin_replay(kept, commit.commit_lsn, commit.end_lsn, commit.commit_time_us, now)
            }
            Message::BeginPrepare(begin) => {
                let known = self.unfinished.has_prepared(begin.xid, begin.prepare_lsn);
                self.unfinished.begin_prepare(begin.xid, known);
                Ok(())
            }
            Message::Prepare(prepare) => {
                if let Some(kept) = self.unfinished.end_prepare() {
                    self.prepared(&prepare, kept);
                }
                Ok(())
            }
            Message::StreamPrepare(prepare) => {
                let kept = self.unfinished.take_stream(prepare.xid);
                if !self.unfinished.has_prepared(prepare.xid, prepare.prepare_lsn) {
                    self.prepared(&prepare, kept);
                }
                Ok(())
            }
            Message::CommitPrepared(commit) => self.commit_prepared(&commit, now),
            Message::RollbackPrepared(rollback) => {
                if let Some(hold) = self.unfinished.take_prepared(rollback.xid).and_then(|known| known.hold) {
                    self.accounts.rollback_prepared(hold);
                }
                self.passed = self.passed.max(rollback.rollback_end_lsn);
                Ok(())
            }
        }
    }

    /// Transactions in progress that are kept.
    pub fn unfinished(&self) -> usize {
        self.unfinished.len()
    }

    /// A batch with changes of these transactions is durable.
    pub fn durable(&mut self, transactions: impl IntoIterator<Item = TxnId>) {
        transactions.into_iter().for_each(|id| self.accounts.durable(id));
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
        self.accounts.checkpoint().watermark()
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
        self.accounts.checkpoint().oldest_commit_time_us()
    }

    /// Transactions that are not durable yet.
    pub fn pending(&self) -> usize {
        self.accounts.checkpoint().pending()
    }

    /// Whether everything that was handed out is durable. What waits was not handed out, and comes again.
    pub fn is_drained(&self) -> bool {
        self.accounts.is_drained()
    }

    /// Counts for metrics.
    pub fn counts(&self) -> Counts {
        self.counts
    }
}

/// Whether a message is part of a transaction's content, and if so of which subtransaction, where it says that.
fn belongs_to_transaction(message: &Message<'_>) -> Option<Option<u32>> {
    match message {
        Message::Insert(m) => Some(m.xid),
        Message::Update(m) => Some(m.xid),
        Message::Delete(m) => Some(m.xid),
        Message::Truncate(m) => Some(m.xid),
        Message::Relation(m) => Some(m.xid),
        Message::Type(m) => Some(m.xid),
        Message::Logical(m) if m.transactional => Some(m.xid),
        Message::Origin(_) => Some(None),
        _ => None,
    }
}

fn split_old(old: Option<Old<'_>>) -> (Option<replicator_types::Tuple<'_>>, bool) {
    match old {
        Some(Old::Key(tuple)) => (Some(tuple), false),
        Some(Old::Full(tuple)) => (Some(tuple), true),
        None => (None, false),
    }
}
