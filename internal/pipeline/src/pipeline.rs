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

use crate::accounts::Accounts;
use crate::dispatcher::{DispatchError, Dispatcher, Output, Route, RowChange, Target, To};
use crate::relations::Relations;
use crate::unfinished::{Kept, Prepared, Unfinished};
use crate::waiting::{Waited, Waiting, What};
use bytes::Bytes;
use pgoutput::{
    Begin, Commit, CommitPrepared, DecodeError, Decoder, Frame, FrameError, Frames, LogicalMessage, Message,
    Old, Prepare,
};
use replicator_spill::{Shelf, SpillError, records};
use replicator_types::{
    Budget, Lsn, Op, Position, Relation, TableCatalog, TransactionMeta, Tuple, TxnId, Value,
};
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
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

/// How a table stands towards its copy when the run begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Standing {
    /// Its changes go to the sinks as they come. Those before `from` are in the sinks that hold state already:
    /// they were caught up with in an earlier run.
    Live {
        /// The first change that was not caught up with.
        from: Position,
    },
    /// It is to be copied: its changes wait.
    Waiting {
        /// What commits before it is in the copy; none while there is no snapshot yet.
        snapshot: Option<Lsn>,
    },
}

/// What the pipeline has to tell of tables.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Notice {
    /// Everything of the table that came before [`Pipeline::hold`] is durable.
    Held(u32),
    /// The table has caught up, durably; changes from the position on go the ordinary way.
    /// [`Pipeline::settled`] lets go of the watermark when that is written down.
    CaughtUp {
        /// The table.
        oid: u32,
        /// The first change that went the ordinary way.
        from: Position,
    },
    /// A table that the run did not know. Its changes wait from its first one on.
    New(Arc<Relation>),
    /// A logical message with the prefix of [`Pipeline::with_request_prefix`]. The watermark stays before it until
    /// [`Pipeline::answered`].
    Request {
        /// For the answer.
        id: TxnId,
        /// The message's content.
        content: Vec<u8>,
    },
    /// A table looks different from here on.
    Altered {
        /// How it looked.
        before: Arc<Relation>,
        /// How it looks.
        after: Arc<Relation>,
    },
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
    message_relation: Arc<Relation>,
    /// Logical messages with this prefix are for the replicator itself.
    request_prefix: String,
    /// One logical message, as a row.
    scratch: Vec<u8>,
    notices: Vec<Notice>,
}

/// Where tables stand.
#[derive(Debug)]
struct Tables {
    shelf: Shelf,
    standings: HashMap<u32, Position>,
    waiting: HashMap<u32, Waiting>,
    /// Copied, and catching up; one after the other.
    releasing: VecDeque<u32>,
    /// What the end of a group means.
    groups: HashMap<TxnId, Notice>,
    /// Caught up, until that is written down; with what holds the watermark, if anything waited.
    holds: HashMap<u32, Option<TxnId>>,
    /// Whether tables that are not known wait to be copied.
    unknown_wait: bool,
    /// Described, not known, and without a change so far.
    unknown: HashSet<u32>,
    /// Requests that are not answered.
    requests: usize,
    /// Read from the catalog; to be told once the stream has passed that moment.
    catalogs: Vec<TableCatalog>,
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

impl Open {
    /// Whether what comes now was handed out before.
    fn is_passed_over(&self) -> bool {
        self.skip || self.ordinal < self.dispatched
    }

    fn position(&self) -> Position {
        Position { commit_lsn: self.meta.commit_lsn, ordinal: self.ordinal }
    }
}

#[derive(Debug)]
struct Replay {
    kept: Kept,
    decoder: Decoder,
    run: Vec<u8>,
    at: usize,
    end_lsn: Lsn,
}

/// Logical messages of the replicator itself begin with it: requests, positions, heartbeats.
const OWN_PREFIX: &str = "replicator";

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
            tables: Tables {
                shelf,
                standings: HashMap::new(),
                waiting: HashMap::new(),
                releasing: VecDeque::new(),
                groups: HashMap::new(),
                holds: HashMap::new(),
                unknown_wait: false,
                unknown: HashSet::new(),
                requests: 0,
                catalogs: Vec::new(),
            },
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

    /// What the sinks were told of the tables before the stream.
    #[must_use]
    pub fn with_relations(mut self, relations: impl IntoIterator<Item = Arc<Relation>>) -> Self {
        relations.into_iter().for_each(|relation| self.relations.begin_with(relation));
        self
    }

    /// How the tables stand towards their copies. `unknown_wait`: those that are not named wait.
    #[must_use]
    pub fn with_standings(
        mut self,
        standings: impl IntoIterator<Item = (u32, Standing)>,
        unknown_wait: bool,
    ) -> Self {
        self.tables.unknown_wait = unknown_wait;
        for (oid, standing) in standings {
            match standing {
                Standing::Live { from } => {
                    self.tables.standings.insert(oid, from);
                }
                Standing::Waiting { snapshot } => {
                    self.tables.waiting.insert(oid, Waiting::new(&self.tables.shelf, snapshot));
                }
            }
        }
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
        catalogs.into_iter().for_each(|catalog| self.relations.learn(catalog));
        self.counts.bytes += bytes.len() as u64;
        self.input = Some(bytes);
        self.work(now)
    }

    /// Whether what was received has not all been worked through.
    pub fn is_busy(&self) -> bool {
        self.input.is_some() || self.replay.is_some()
    }

    /// Whether [`Pipeline::release_some`] has anything to do.
    pub fn is_releasing(&self) -> bool {
        self.next_to_release().is_some()
    }

    fn next_to_release(&self) -> Option<u32> {
        let tables = &self.tables;
        let may_follow =
            |oid: &u32| tables.waiting.get(oid).is_some_and(|waiting| waiting.until() <= self.passed);
        tables.releasing.iter().copied().find(may_follow)
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
        if !self.tables.catalogs.is_empty() && !self.is_within_transaction() {
            self.tell_catalogs(now);
        }
        self.dispatcher.settle_charges();
        Ok(())
    }

    fn is_within_transaction(&self) -> bool {
        self.transaction.is_some() || self.cut_off.is_some() || self.unfinished.is_preparing()
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
                && self.unfinished.is_preparing()
            {
                let relation = self.relations.announce(relation, self.passed);
                if !self.targets.contains_key(&relation.oid) {
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
            Message::Begin(begin) => self.begin(begin),
            Message::Commit(commit) => self.commit(commit),
            Message::Relation(relation) => {
                let open = self.transaction.filter(|open| !open.is_passed_over());
                let since = self.transaction.map_or(self.passed, |open| open.meta.commit_lsn);
                if open.is_none() {
                    let relation = self.relations.announce(&relation, since);
                    self.targets.insert(relation.oid, self.dispatcher.target(&relation));
                    return Ok(());
                }
                let (relation, before) = self.relations.apply(&relation, since);
                self.met(relation, before, now)
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
                self.begin_replay(kept, commit.commit_lsn, commit.end_lsn, commit.commit_time_us)
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
            Message::CommitPrepared(commit) => self.commit_prepared(&commit),
            Message::RollbackPrepared(rollback) => {
                if let Some(hold) = self.unfinished.take_prepared(rollback.xid).and_then(|known| known.hold) {
                    self.accounts.rollback_prepared(hold);
                }
                self.passed = self.passed.max(rollback.rollback_end_lsn);
                Ok(())
            }
        }
    }

    fn prepared(&mut self, prepare: &Prepare<'_>, kept: Kept) {
        // Until it is decided what becomes of it, the watermark stays before the PREPARE: a source that has been told
        // of that sends only the COMMIT PREPARED. Not so for what was prepared before the place that the stream has got to:
        // it is finished and came again, or it was prepared before the slot was, and then it comes with its commit each
        // time (`ReorderBufferFinishPrepared` of the server's `reorderbuffer.c`).
        let is_past = prepare.prepare_lsn < self.passed;
        let hold = (!is_past).then(|| self.accounts.prepare(prepare.prepare_time_us, prepare.end_lsn));
        self.passed = self.passed.max(prepare.end_lsn);
        let prepared = Prepared { kept, prepare_lsn: prepare.prepare_lsn, hold };
        if let Some(hold) = self.unfinished.add_prepared(prepared).and_then(|before| before.hold) {
            self.accounts.rollback_prepared(hold);
        }
    }

    fn commit_prepared(&mut self, commit: &CommitPrepared<'_>) -> Result<(), PipelineError> {
        let prepared = self.unfinished.take_prepared(commit.xid);
        if commit.commit_lsn <= self.sealed {
            // It came again, and was handed out before.
            if let Some(hold) = prepared.and_then(|prepared| prepared.hold) {
                self.accounts.rollback_prepared(hold);
            }
            return Ok(());
        }
        let Some(Prepared { kept, hold, .. }) = prepared else {
            return Err(PipelineError::UnknownPrepared(commit.gid.to_owned()));
        };
        self.begin_replay(kept, commit.commit_lsn, commit.end_lsn, commit.commit_time_us)?;
        if let (Some(hold), Some(open)) = (hold, self.transaction) {
            self.accounts.commit_prepared(hold, open.meta.id);
        }
        Ok(())
    }

    /// A transaction that was kept has committed: its messages come now, as if they had just been received.
    fn begin_replay(
        &mut self,
        kept: Kept,
        commit_lsn: Lsn,
        end_lsn: Lsn,
        commit_time_us: i64,
    ) -> Result<(), PipelineError> {
        self.begin(Begin { final_lsn: commit_lsn, commit_time_us, xid: kept.xid })?;
        let decoder = if kept.in_stream { Decoder::within_stream() } else { Decoder::new(false) };
        self.replay = Some(Replay { kept, decoder, run: Vec::new(), at: 0, end_lsn });
        Ok(())
    }

    fn replay_some(&mut self, now: Instant) -> Result<(), PipelineError> {
        let Some(mut replay) = self.replay.take() else { return Ok(()) };
        let mut bytes = 0;
        while bytes < STEP_BYTES {
            if replay.at >= replay.run.len() {
                replay.at = 0;
                replay.run = match replay.kept.messages.take()? {
                    Some(run) => run,
                    None => return self.end_replay(replay.end_lsn),
                };
            }
            let mut at = replay.at;
            for (record, next) in records(&replay.run, replay.at) {
                bytes += next - at;
                at = next;
                if let Some((subxid, message)) = record.split_first_chunk::<4>()
                    && !replay.kept.aborted.contains(&u32::from_ne_bytes(*subxid))
                {
                    let message = replay.decoder.decode(message)?;
                    self.message(message, now)?;
                }
                if bytes >= STEP_BYTES {
                    break;
                }
            }
            replay.at = at;
        }
        self.replay = Some(replay);
        Ok(())
    }

    fn end_replay(&mut self, end_lsn: Lsn) -> Result<(), PipelineError> {
        let meta = self.transaction.map(|open| open.meta);
        let meta =
            meta.ok_or(PipelineError::OutOfOrder { what: "a Commit", place: "outside a transaction" })?;
        self.commit(Commit { commit_lsn: meta.commit_lsn, end_lsn, commit_time_us: meta.commit_time_us })
    }

    /// A table version came up.
    fn met(
        &mut self,
        relation: Arc<Relation>,
        before: Option<Arc<Relation>>,
        now: Instant,
    ) -> Result<(), PipelineError> {
        let oid = relation.oid;
        let target = self.dispatcher.target(&relation);
        let tables = &mut self.tables;
        if tables.unknown_wait && !tables.standings.contains_key(&oid) && !tables.waiting.contains_key(&oid) {
            tables.unknown.insert(oid);
        }
        self.targets.insert(oid, target);
        if let Some(before) = before {
            self.notices.push(Notice::Altered { before, after: relation });
            if let Some(open) = self.transaction {
                self.tell_schema(oid, &open.meta, open.ordinal, now)?;
            }
        }
        Ok(())
    }

    /// The first change of a table that is not known comes: the table waits for its copy. Its description alone means
    /// nothing, since the source also describes partitions whose changes it sends as their root's.
    fn met_unknown(&mut self, oid: u32) {
        if self.tables.unknown.remove(&oid)
            && let Some(target) = self.targets.get(&oid)
        {
            self.tables.waiting.insert(oid, Waiting::new(&self.tables.shelf, None));
            self.notices.push(Notice::New(Arc::clone(&target.relation)));
        }
    }

    /// A change of the table comes: what was announced of it holds from here on.
    fn met_announced(&mut self, oid: u32, now: Instant) -> Result<(), PipelineError> {
        match self.relations.apply_announced(oid) {
            Some((relation, before)) => self.met(relation, before, now),
            None => Ok(()),
        }
    }

    fn tell_schema(
        &mut self,
        oid: u32,
        meta: &TransactionMeta,
        ordinal: u64,
        now: Instant,
    ) -> Result<(), PipelineError> {
        let Some(target) = self.targets.get(&oid) else { return Ok(()) };
        let mut to = To::All;
        if let Some(waiting) = self.tables.waiting.get_mut(&oid) {
            to = To::Logs;
            waiting.push_schema(meta, target, ordinal)?;
            waiting.hold_back(&mut self.accounts, meta.id);
        }
        self.dispatcher.schema(&mut self.accounts, meta, target, to, ordinal, now);
        Ok(())
    }

    /// Tables as the catalog has them: told to the sinks once the stream has passed the moment at which they were
    /// read, if no change has told of it by then.
    pub fn catalog(&mut self, tables: Vec<TableCatalog>) {
        // What the stream has not reached yet is not put off by a later poll; that comes again.
        if self.tables.catalogs.is_empty() {
            self.tables.catalogs = tables;
        }
    }

    fn tell_catalogs(&mut self, now: Instant) {
        let passed = self.passed;
        let (due, later): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.tables.catalogs).into_iter().partition(|table| table.read_at <= passed);
        self.tables.catalogs = later;
        for table in due {
            // One that waits is copied as it is then.
            if self.tables.waiting.contains_key(&table.oid) {
                continue;
            }
            let altered = self.relations.apply_catalog(&table);
            self.relations.learn(table);
            let Some((relation, before)) = altered else { continue };
            self.targets.insert(relation.oid, self.dispatcher.target(&relation));
            let id = self.accounts.begin(self.last_commit_time_us);
            let meta = TransactionMeta {
                id,
                // Behind everything that was handed out, before everything that comes.
                commit_lsn: Lsn(passed.0.saturating_sub(1)),
                commit_time_us: self.last_commit_time_us,
                xid: 0,
            };
            if let Some(target) = self.targets.get(&relation.oid) {
                self.dispatcher.schema(&mut self.accounts, &meta, target, To::All, 0, now);
            }
            self.accounts.seal(id, passed);
            self.notices.push(Notice::Altered { before, after: relation });
        }
    }

    /// Makes a table wait: it is to be copied anew. [`Notice::Held`] tells when what came before is durable.
    pub fn hold(&mut self, oid: u32, now: Instant) {
        self.tables.unknown.remove(&oid);
        let tables = &mut self.tables;
        if let Some(waiting) = tables.waiting.get_mut(&oid) {
            tables.releasing.retain(|releasing| *releasing != oid);
            match waiting.group.take() {
                // Some of what waited was handed on already; the rest goes on waiting.
                Some(group) => {
                    self.dispatcher.cut_catch_up();
                    tables.groups.insert(group, Notice::Held(oid));
                    self.accounts.seal_group(group);
                }
                None => self.notices.push(Notice::Held(oid)),
            }
            return;
        }
        tables.standings.remove(&oid);
        let waiting = tables.waiting.entry(oid).or_insert(Waiting::new(&tables.shelf, None));
        // That it had caught up is not written down: what held the watermark for that goes on doing so.
        waiting.hold = tables.holds.remove(&oid).flatten();
        let group = self.accounts.open_group();
        tables.groups.insert(group, Notice::Held(oid));
        if let Some(relation) = self.relations.told(oid) {
            let target = self.dispatcher.target(relation);
            let meta = self.meta_of_group(group);
            self.dispatcher.schema(&mut self.accounts, &meta, &target, To::States, 0, now);
        }
        self.accounts.seal_group(group);
    }

    /// The table is not published any more. What waits of it is of no use, and holds nothing back; if it comes again, it
    /// is a new one.
    pub fn forget(&mut self, oid: u32) {
        self.tables.standings.remove(&oid);
        let Some(waiting) = self.tables.waiting.remove(&oid) else { return };
        self.tables.releasing.retain(|releasing| *releasing != oid);
        if let Some(group) = waiting.group {
            self.dispatcher.cut_catch_up();
            self.accounts.seal_group(group);
        }
        if let Some(hold) = waiting.hold {
            self.accounts.let_go(hold);
        }
    }

    fn meta_of_group(&self, group: TxnId) -> TransactionMeta {
        TransactionMeta {
            id: group,
            commit_lsn: self.sealed,
            commit_time_us: self.last_commit_time_us,
            xid: 0,
        }
    }

    /// The copy of a table that waits stands at this snapshot: what commits before it is in it.
    pub fn copied_at(&mut self, oid: u32, snapshot: Lsn) {
        if let Some(waiting) = self.tables.waiting.get_mut(&oid) {
            waiting.copied_at(snapshot);
        }
    }

    /// Rows of the copy of a table that waits are as new as this snapshot, if not newer. The table stays apart until the
    /// stream has passed it: changes that are older than copied rows, or that a sink's lanes have got past in an earlier
    /// run, come in [`Phase::CatchUp`](replicator_types::Phase::CatchUp) only.
    pub fn copied_until(&mut self, oid: u32, snapshot: Lsn) {
        if let Some(waiting) = self.tables.waiting.get_mut(&oid) {
            waiting.copied_until(snapshot);
        }
    }

    /// The copy of a table that waits is durable in every sink: its changes may follow.
    pub fn release(&mut self, oid: u32) {
        if self.tables.waiting.contains_key(&oid) && !self.tables.releasing.contains(&oid) {
            self.tables.releasing.push_back(oid);
        }
    }

    /// It is written down that the table has caught up ([`Notice::CaughtUp`]).
    pub fn settled(&mut self, oid: u32) {
        if let Some(Some(hold)) = self.tables.holds.remove(&oid) {
            self.accounts.let_go(hold);
        }
    }

    /// The request ([`Notice::Request`]) is written down, or done.
    pub fn answered(&mut self, id: TxnId) {
        self.tables.requests = self.tables.requests.saturating_sub(1);
        self.accounts.let_go(id);
    }

    /// Hands on some of what the next copied table has to catch up with.
    pub fn release_some(&mut self, now: Instant) -> Result<(), PipelineError> {
        let Some(oid) = self.next_to_release() else { return Ok(()) };
        let Some(waiting) = self.tables.waiting.get_mut(&oid) else { return Ok(()) };
        let group = *waiting.group.get_or_insert_with(|| self.accounts.open_group());
        let (dispatcher, accounts) = (&mut self.dispatcher, &mut self.accounts);
        let more = waiting.hand_out(group, STEP_BYTES, |waited: Waited<'_>| {
            let Waited { transaction, target, ordinal, what } = waited;
            match what {
                What::Row(change) => {
                    dispatcher.row(accounts, &transaction, target, To::States, change, ordinal, now)?;
                }
                What::Truncate { cascade, restart_identity } => {
                    let flags = (cascade, restart_identity);
                    dispatcher.truncate(
                        accounts,
                        &transaction,
                        &[(target.clone(), To::States)],
                        flags,
                        ordinal,
                        now,
                    );
                }
                What::Schema => {
                    dispatcher.schema(accounts, &transaction, target, To::States, ordinal, now);
                }
            }
            Ok::<(), PipelineError>(())
        })?;
        if !more {
            self.caught_up(oid, group);
        }
        self.dispatcher.settle_charges();
        Ok(())
    }

    /// Nothing waits any more: from the next change on the table is like any other.
    fn caught_up(&mut self, oid: u32, group: TxnId) {
        self.tables.releasing.retain(|releasing| *releasing != oid);
        self.dispatcher.cut_catch_up();
        let waiting = self.tables.waiting.remove(&oid);
        let copied_until = waiting.as_ref().map(Waiting::until).unwrap_or_default();
        self.tables.holds.insert(oid, waiting.and_then(|waiting| waiting.hold));
        let from = match &self.transaction {
            Some(open) if !open.skip => {
                open.position().max(Position { commit_lsn: open.meta.commit_lsn, ordinal: open.dispatched })
            }
            _ => match &self.cut_off {
                Some(open) => Position { commit_lsn: open.meta.commit_lsn, ordinal: open.dispatched },
                None => Position { commit_lsn: Lsn(self.sealed.0 + 1), ordinal: 0 },
            },
        };
        // What the copy has was perhaps passed in an earlier run. When the source loses what it knew of the slot, it comes
        // again, and is older than the rows.
        let from = from.max(Position { commit_lsn: copied_until, ordinal: 0 });
        self.tables.standings.insert(oid, from);
        self.tables.groups.insert(group, Notice::CaughtUp { oid, from });
        self.accounts.seal_group(group);
    }

    /// What there is to tell of tables since the last call.
    pub fn take_notices(&mut self) -> Vec<Notice> {
        for group in self.accounts.take_finished() {
            self.notices.extend(self.tables.groups.remove(&group));
        }
        std::mem::take(&mut self.notices)
    }

    /// Tables whose changes wait, or that have caught up and are not settled; and requests that are not answered, since
    /// they may make tables wait.
    pub fn waiting(&self) -> usize {
        self.tables.waiting.len() + self.tables.holds.len() + self.tables.requests
    }

    /// Bytes of changes that wait, of tables and of transactions in progress: in memory, in files.
    pub fn waiting_bytes(&self) -> (usize, usize) {
        (self.tables.shelf.memory_bytes(), self.tables.shelf.file_bytes())
    }

    /// Bytes that wait for the copy of one table.
    pub fn waiting_bytes_of(&self, oid: u32) -> u64 {
        self.tables.waiting.get(&oid).map_or(0, Waiting::bytes)
    }

    /// Transactions in progress that are kept.
    pub fn unfinished(&self) -> usize {
        self.unfinished.len()
    }

    fn logical(&mut self, message: &LogicalMessage<'_>, now: Instant) {
        // The replicator's own are nothing for sinks.
        let is_own = message.prefix.starts_with(OWN_PREFIX);
        let content = Value::Binary(message.content);
        let transactional = if message.transactional { b"t" } else { b"f" };
        let values = [Value::Text(transactional), Value::Text(message.prefix.as_bytes()), content];
        self.scratch.clear();
        Tuple::write(values, &mut self.scratch);
        if message.transactional {
            let Some(open) = &mut self.transaction else { return };
            if !open.skip && open.ordinal >= open.dispatched {
                let tuple = Tuple::from_checked(&self.scratch);
                let relation = &self.message_relation;
                if !is_own {
                    let (accounts, meta) = (&mut self.accounts, &open.meta);
                    self.dispatcher.message(accounts, meta, relation, tuple, open.ordinal, now);
                }
                if message.prefix == self.request_prefix && !message.prefix.is_empty() {
                    let id = open.meta.id;
                    self.accounts.hold(id);
                    self.tables.requests += 1;
                    self.notices.push(Notice::Request { id, content: message.content.to_vec() });
                }
            }
            open.ordinal += 1;
            return;
        }
        // It stands alone, where it was written; as a transaction of its own.
        if is_own || message.lsn <= self.messages_passed || self.is_within_transaction() {
            return;
        }
        self.messages_passed = message.lsn;
        let id = self.accounts.begin(self.last_commit_time_us);
        let commit_time_us = self.last_commit_time_us;
        let meta = TransactionMeta { id, commit_lsn: place_of_message(message.lsn), commit_time_us, xid: 0 };
        let tuple = Tuple::from_checked(&self.scratch);
        self.dispatcher.message(&mut self.accounts, &meta, &self.message_relation, tuple, 0, now);
        self.accounts.seal(id, message.lsn);
        self.passed = self.passed.max(message.lsn);
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
            let id = self.accounts.begin(begin.commit_time_us);
            Open { meta: meta(id), ordinal: 0, dispatched: 0, skip: false }
        };
        self.last_commit_time_us = begin.commit_time_us;
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
        self.accounts.seal(open.meta.id, commit.end_lsn);
        self.sealed = open.meta.commit_lsn;
        self.passed = self.passed.max(commit.end_lsn);
        self.counts.transactions += 1;
        Ok(())
    }

    fn row(&mut self, relation_oid: u32, change: RowChange<'_>, now: Instant) -> Result<(), PipelineError> {
        if self.relations.has_announced() && self.transaction.is_some_and(|open| !open.is_passed_over()) {
            self.met_announced(relation_oid, now)?;
        }
        if !self.tables.unknown.is_empty() {
            self.met_unknown(relation_oid);
        }
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
            open.ordinal += self.dispatcher.ordinals(target, &change)?;
            return Ok(());
        }
        // Mostly no table waits, and none was caught up with in an earlier run.
        let mut to = To::All;
        if !self.tables.waiting.is_empty()
            && let Some(waiting) = self.tables.waiting.get_mut(&relation_oid)
        {
            to = To::Logs;
            if !waiting.is_copied(open.meta.commit_lsn) {
                waiting.push_row(&open.meta, target, open.ordinal, &change)?;
                waiting.hold_back(&mut self.accounts, open.meta.id);
            }
        } else if !self.tables.standings.is_empty()
            && self.tables.standings.get(&relation_oid).is_some_and(|from| open.position() < *from)
        {
            to = To::Logs;
        }
        let taken =
            self.dispatcher.row(&mut self.accounts, &open.meta, target, to, change, open.ordinal, now)?;
        open.ordinal += taken;
        match change.op {
            Op::Insert => self.counts.inserts += 1,
            Op::Update => self.counts.updates += 1,
            _ => self.counts.deletes += 1,
        }
        Ok(())
    }

    fn truncate(&mut self, oids: &[u32], flags: (bool, bool), now: Instant) -> Result<(), PipelineError> {
        if self.relations.has_announced() && self.transaction.is_some_and(|open| !open.is_passed_over()) {
            oids.iter().try_for_each(|oid| self.met_announced(*oid, now))?;
        }
        oids.iter().for_each(|oid| self.met_unknown(*oid));
        let open = self
            .transaction
            .as_mut()
            .ok_or(PipelineError::OutOfOrder { what: "a Truncate", place: "outside a transaction" })?;
        if open.skip {
            return Ok(());
        }
        let mut targets = Vec::with_capacity(oids.len());
        for oid in oids {
            let target = self.targets.get(oid).ok_or(PipelineError::UnknownRelation(*oid))?.clone();
            let ordinal = open.ordinal + targets.len() as u64;
            let position = Position { ordinal, ..open.position() };
            let waits = self.tables.waiting.contains_key(oid);
            let is_past = self.tables.standings.get(oid).is_some_and(|from| position < *from);
            targets.push((target, if waits || is_past { To::Logs } else { To::All }));
        }
        if open.ordinal >= open.dispatched {
            for (index, (target, _)) in targets.iter().enumerate() {
                if let Some(waiting) = self.tables.waiting.get_mut(&target.relation.oid)
                    && !waiting.is_copied(open.meta.commit_lsn)
                {
                    let ordinal = open.ordinal + index as u64;
                    waiting.push_truncate(&open.meta, target, ordinal, flags)?;
                    waiting.hold_back(&mut self.accounts, open.meta.id);
                }
            }
            self.dispatcher.truncate(&mut self.accounts, &open.meta, &targets, flags, open.ordinal, now);
            self.counts.truncates += targets.len() as u64;
        }
        open.ordinal += targets.len() as u64;
        Ok(())
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

/// The place of a logical message that stands alone, by the end of its record. A commit record may begin right there, and
/// rows of a copy stand one before; so it is two before, still inside the record.
fn place_of_message(end_lsn: Lsn) -> Lsn {
    Lsn(end_lsn.0.saturating_sub(2))
}

fn split_old(old: Option<Old<'_>>) -> (Option<replicator_types::Tuple<'_>>, bool) {
    match old {
        Some(Old::Key(tuple)) => (Some(tuple), false),
        Some(Old::Full(tuple)) => (Some(tuple), true),
        None => (None, false),
    }
}
