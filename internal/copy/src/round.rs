//! One round: a snapshot, and the tables that are copied under it.
//!
//! ```text
//!   tables ─begin─▶ jobs (ranges of blocks) ─▶ worker 0 ─▶ lane of each sink ─▶ durable ┐
//!      ▲                                    └▶ worker 1 ─▶ …                            │
//!      └── the next table, when few jobs are left ◀─────── ranges counted off ◀─────────┘
//! ```
//!
//! Of small tables it is the asking of sinks that takes the time: several begin and end at once.
//!
//! A range counts as durable when it was read to its end and every batch of it is durable in every sink that takes
//! it; then the sinks' notes say so.

use crate::generated;
use crate::ledger::{Copying, Note, PartDone, Plan};
use crate::progress::Progress;
use crate::shared::Shared;
use replicator_pipeline::{CopyLanes, CopyReport, Input, Rewrite, rewrite_of};
use replicator_sink::TableCopy;
use replicator_source::{CopyLimits, CopyTable, CopyWorker, Snapshot, SourceError};
use replicator_types::{BatchBuilder, Budget, GeneratedColumn, Lsn, Phase, Storage, StorageChange, TxnId};
use slog::{info, warn};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;

/// How often a full budget is looked at again.
const BUDGET_POLL: Duration = Duration::from_millis(1);

/// How long rows wait in a lane for more, where they come slowly.
const GATHER_PAUSE: Duration = Duration::from_secs(2);

/// Of so many tables the sinks are asked at once, at their beginning or at their end.
const ASKED_AT_ONCE_MAX: usize = 8;

/// How often metrics and log are looked after.
const TICK: Duration = Duration::from_millis(500);

/// What became of a round's tables.
#[derive(Debug, Default)]
pub(crate) struct Result {
    /// Durable and released.
    pub(crate) copied: Vec<u32>,
    /// To be taken up again at once, under a new snapshot.
    pub(crate) again: Vec<u32>,
    /// To be tried again, later or without a sink.
    pub(crate) failed: Vec<Failure>,
    /// Not published any more.
    pub(crate) gone: Vec<u32>,
}

/// A table can't be copied.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) oid: u32,
    name: String,
    /// The sink that refuses it, if it is one.
    pub(crate) sink: Option<usize>,
    pub(crate) text: String,
}

/// A range of a table to be read.
#[derive(Clone, Debug)]
struct Job {
    id: TxnId,
    table: Arc<CopyTable>,
    part: usize,
    blocks: Range<u32>,
    /// Only rows that changed since this transaction.
    changed_since: Option<u64>,
    fresh: bool,
    /// The sinks that take it.
    sinks: Arc<[usize]>,
}

/// What workers say.
enum Said {
    /// A batch was handed to so many lanes.
    Sent { job: TxnId, lanes: usize, rows: u64, bytes: u64 },
    /// All of the range was.
    Ended { job: TxnId },
    /// It can't be read.
    Failed { job: TxnId, error: SourceError },
}

/// Jobs that wait for a worker.
#[derive(Default)]
struct Jobs {
    queue: Mutex<(VecDeque<Job>, bool)>,
    more: Notify,
}

impl Jobs {
    fn push(&self, jobs: impl IntoIterator<Item = Job>) {
        self.lock().0.extend(jobs);
        self.more.notify_waiters();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, (VecDeque<Job>, bool)> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn len(&self) -> usize {
        self.lock().0.len()
    }

    fn drop_table(&self, oid: u32) {
        self.lock().0.retain(|job| job.table.relation.oid != oid);
    }

    fn close(&self) {
        self.lock().1 = true;
        self.more.notify_waiters();
    }

    /// The next one; none when there will be none. Before it waits for one it says so.
    async fn next(&self, waits: impl Fn()) -> Option<Job> {
        loop {
            let more = self.more.notified();
            tokio::pin!(more);
            more.as_mut().enable();
            {
                let mut queue = self.lock();
                if let Some(job) = queue.0.pop_front() {
                    return Some(job);
                }
                if queue.1 {
                    return None;
                }
            }
            waits();
            more.await;
        }
    }
}

struct RangeState {
    oid: u32,
    part: usize,
    blocks: Range<u32>,
    is_repeat: bool,
    /// Batches sent and not durable. A report may come before the word of the sending.
    outstanding: i64,
    ended: bool,
}

struct TableState {
    copy: TableCopy,
    name: String,
    sinks: Arc<[usize]>,
    copying: Copying,
    ranges_left: usize,
}

/// When a snapshot was taken.
struct Taken {
    lsn: Lsn,
    xmin: u64,
}

/// A table that the sinks are ready for.
struct Begun {
    table: CopyTable,
    state: TableState,
    fresh: bool,
}

/// Why a table is not begun.
enum NotBegun {
    /// This table alone can't be.
    Failed(Failure),
    /// Nothing can.
    Over(String),
}

/// Copies the tables with these plans. Ends when none is left that can go on under the snapshot.
pub(crate) struct Round<'a> {
    shared: &'a Arc<Shared>,
    snapshot: &'a Snapshot,
    limits: CopyLimits,
    jobs: Arc<Jobs>,
    next_job: u64,
    /// The tables that were there under the snapshot.
    all: Vec<u32>,
    waiting: VecDeque<(CopyTable, Plan)>,
    // Tasks of their own: a sink's lock that one of them holds must not wait for this round to look at it.
    beginning: JoinSet<std::result::Result<Begun, NotBegun>>,
    /// All of their rows are durable.
    ending: JoinSet<std::result::Result<TableState, String>>,
    tables: BTreeMap<u32, TableState>,
    ranges: HashMap<TxnId, RangeState>,
    progress: Progress,
    result: Result,
}

impl<'a> Round<'a> {
    /// `plans` are of the tables that the round is for.
    pub(crate) async fn run(
        shared: &'a Arc<Shared>,
        snapshot: &'a Snapshot,
        mut plans: BTreeMap<u32, Plan>,
    ) -> std::result::Result<Result, String> {
        let mut tables: Vec<(CopyTable, Plan)> = Vec::new();
        let found = match snapshot.tables().await {
            Ok(found) => found,
            Err(error) if error.kind() == replicator_source::ErrorKind::Halt => {
                return Err(format!("source: {error}"));
            }
            Err(error) => {
                warn!(shared.logger, "copying failed, trying again"; "error" => %error);
                return Ok(Result { again: plans.into_keys().collect(), ..Result::default() });
            }
        };
        let mut again = Vec::new();
        for table in found {
            let Some(plan) = plans.remove(&table.relation.oid) else { continue };
            if table.is_locked {
                warn!(shared.logger, "a table is locked by another session, and is copied under a later snapshot";
                    "table" => table.relation.qualified_name());
                again.push(table.relation.oid);
            } else {
                tables.push((table, plan));
            }
        }
        // Small ones first: they are out of the way, and their changes need not wait for the large ones.
        tables.sort_by_key(|(table, _)| table.bytes);
        let blocks = |table: &CopyTable| table.parts.iter().map(|part| u64::from(part.blocks)).sum::<u64>();
        let before = |(_, plan): &(CopyTable, Plan)| match plan {
            Plan::Resume(copying) => copying.parts.iter().map(|part| part.done.blocks()).sum(),
            _ => 0,
        };
        let all: u64 = tables.iter().map(|(table, _)| blocks(table)).sum();
        let done: u64 = tables.iter().map(before).sum();
        let (rows, bytes): (u64, u64) =
            tables.iter().fold((0, 0), |sum, (table, _)| (sum.0 + table.rows_estimate, sum.1 + table.bytes));
        info!(shared.logger, "copy begins"; "tables" => tables.len(), "rows_estimate" => rows, "bytes" => bytes,
            "snapshot" => %snapshot.lsn(), "workers" => shared.config.workers);
        let mut round = Self {
            shared,
            snapshot,
            limits: CopyLimits {
                rows_max: shared.config.batch_rows_max,
                bytes_max: shared.config.batch_bytes_max.0,
            },
            jobs: Arc::default(),
            next_job: 0,
            progress: Progress::new(&shared.logger, all, done.min(all), tables.len()),
            all: tables.iter().map(|(table, _)| table.relation.oid).collect(),
            waiting: tables.into(),
            beginning: JoinSet::new(),
            ending: JoinSet::new(),
            tables: BTreeMap::new(),
            ranges: HashMap::new(),
            result: Result { again, gone: plans.into_keys().collect(), ..Result::default() },
        };
        let outcome = round.copy().await;
        round.jobs.close();
        outcome.map(|()| round.result)
    }

    async fn copy(&mut self) -> std::result::Result<(), String> {
        let workers = self.shared.config.workers.max(1) as usize;
        let lanes = self.shared.open_lanes(workers).await?;
        let (lanes, mut reports) =
            CopyLanes::start(lanes, self.shared.backoff, GATHER_PAUSE, &self.shared.logger)
                .map_err(|error| format!("cannot start a thread: {error}"))?;
        let lanes = Arc::new(lanes);
        let (said_out, mut said) = mpsc::unbounded_channel();
        let budget = Budget::new(self.shared.config.bytes_max.0);
        let mut reading = JoinSet::new();
        for number in 0..workers {
            let worker = Worker {
                number,
                worker: self.snapshot.worker(),
                transaction: self.snapshot.transaction(TxnId(0)),
                jobs: Arc::clone(&self.jobs),
                lanes: Arc::clone(&lanes),
                said: said_out.clone(),
                budget: budget.clone(),
                limits: self.limits,
            };
            reading.spawn(worker.run());
        }
        drop(lanes);
        let mut tick = tokio::time::interval(TICK);
        loop {
            while self.jobs.len() < workers && self.beginning.len() + self.ending.len() < ASKED_AT_ONCE_MAX {
                let Some((table, plan)) = self.waiting.pop_front() else { break };
                let taken = Taken { lsn: self.snapshot.lsn(), xmin: self.snapshot.xmin() };
                self.beginning.spawn(begin(Arc::clone(self.shared), taken, table, plan));
            }
            if self.tables.is_empty() && self.beginning.is_empty() && self.ending.is_empty() {
                break;
            }
            tokio::select! {
                Some(begun) = self.beginning.join_next() => match begun.map_err(|error| ended_itself(&error))? {
                    Ok(begun) => self.begun(begun),
                    Err(NotBegun::Failed(failure)) => self.fail(failure),
                    Err(NotBegun::Over(text)) => return Err(text),
                },
                Some(ended) = self.ending.join_next() => self.ended(ended.map_err(|error| ended_itself(&error))??),
                Some(said) = said.recv() => self.said(said).await?,
                Some(report) = reports.recv() => match report {
                    CopyReport::Durable(job) => {
                        if let Some(range) = self.ranges.get_mut(&job) {
                            range.outstanding -= 1;
                        }
                        self.durable(job).await?;
                    }
                    CopyReport::Failed { sink, text, table: Some(oid) } if self.tables.contains_key(&oid) => {
                        self.refused(oid, sink, text);
                        // Readers would wait for the memory of what the lane will never send.
                        reading.abort_all();
                        break;
                    }
                    CopyReport::Failed { text, .. } => return Err(text),
                },
                _ = tick.tick() => self.progress.tick(),
            }
        }
        self.jobs.close();
        while reading.join_next().await.is_some() {}
        // The readers and their hold on the lanes are gone. What lanes still have, of tables that are to be begun anew,
        // is in the sinks before that: written later it would be there twice.
        while let Some(report) = reports.recv().await {
            if let CopyReport::Failed { text, table: None, .. } = report {
                return Err(text);
            }
        }
        self.progress.end();
        Ok(())
    }

    /// The sinks are ready: its ranges are for the workers.
    fn begun(&mut self, begun: Begun) {
        let Begun { table, mut state, fresh } = begun;
        let oid = table.relation.oid;
        let table = Arc::new(table);
        let jobs = self.jobs_of(&table, &state.copying, fresh, &state.sinks);
        state.ranges_left = jobs.len();
        self.tables.insert(oid, state);
        if jobs.is_empty() {
            self.end_table(oid);
        }
        self.jobs.push(jobs);
    }

    fn jobs_of(
        &mut self,
        table: &Arc<CopyTable>,
        copying: &Copying,
        fresh: bool,
        sinks: &Arc<[usize]>,
    ) -> Vec<Job> {
        let oid = table.relation.oid;
        let mut jobs = Vec::new();
        for (number, (part, of_part)) in table.parts.iter().zip(&copying.parts).enumerate() {
            // Values stored aside are read too; their share of the bytes is the blocks'.
            let blocks_max = self.shared.config.range_bytes.0 / 8192;
            let blocks_max = u32::try_from(blocks_max).unwrap_or(u32::MAX);
            let repeated = of_part.done.iter().map(|blocks| (blocks, Some(copying.first_xmin)));
            let left = of_part.done.left(part.blocks, blocks_max).into_iter().map(|blocks| (blocks, None));
            for (blocks, changed_since) in left.chain(repeated) {
                let id = TxnId(self.next_job);
                self.next_job += 1;
                self.ranges.insert(
                    id,
                    RangeState {
                        oid,
                        part: number,
                        blocks: blocks.clone(),
                        is_repeat: changed_since.is_some(),
                        outstanding: 0,
                        ended: false,
                    },
                );
                jobs.push(Job {
                    id,
                    table: Arc::clone(table),
                    part: number,
                    blocks,
                    changed_since,
                    fresh,
                    sinks: Arc::clone(sinks),
                });
            }
        }
        jobs
    }

    async fn said(&mut self, said: Said) -> std::result::Result<(), String> {
        match said {
            Said::Sent { job, lanes, rows, bytes } => {
                let Some(range) = self.ranges.get_mut(&job) else { return Ok(()) };
                range.outstanding += lanes as i64;
                if let Some(table) = self.tables.get(&range.oid) {
                    self.progress.read(&table.name, rows, bytes);
                }
                Ok(())
            }
            Said::Ended { job } => {
                if let Some(range) = self.ranges.get_mut(&job) {
                    range.ended = true;
                }
                self.durable(job).await
            }
            Said::Failed { job, error } => {
                let Some(range) = self.ranges.get(&job) else { return Ok(()) };
                let oid = range.oid;
                self.jobs.drop_table(oid);
                let Some(table) = self.tables.remove(&oid) else { return Ok(()) };
                if error.is_stale_snapshot()
                    || !self.snapshot.is_alive()
                    || error.kind() == replicator_source::ErrorKind::Retry
                {
                    warn!(self.shared.logger, "the copy of a table goes on under a new snapshot";
                        "table" => &table.name, "reason" => %error);
                    self.result.again.push(oid);
                } else {
                    self.fail(Failure {
                        oid,
                        name: table.name,
                        sink: None,
                        text: format!("source: {error}"),
                    });
                }
                Ok(())
            }
        }
    }

    fn fail(&mut self, failure: Failure) {
        self.progress.table_failed(&failure.name);
        self.result.failed.push(failure);
    }

    /// A sink will never take a row of the table: a lane of it has ended, and with it this round. The other tables go on in
    /// the next.
    fn refused(&mut self, oid: u32, sink: usize, text: String) {
        let name = self.tables.remove(&oid).map_or_else(String::new, |table| table.copying.table);
        self.fail(Failure { oid, name, sink: Some(sink), text });
        let is_over = |oid: &u32| {
            self.result.copied.contains(oid) || self.result.failed.iter().any(|failure| failure.oid == *oid)
        };
        let again: Vec<u32> = self.all.iter().copied().filter(|oid| !is_over(oid)).collect();
        self.result.again.retain(|oid| !self.all.contains(oid));
        self.result.again.extend(again);
    }

    async fn durable(&mut self, job: TxnId) -> std::result::Result<(), String> {
        if !self.ranges.get(&job).is_some_and(|range| range.ended && range.outstanding == 0) {
            return Ok(());
        }
        let Some(range) = self.ranges.remove(&job) else { return Ok(()) };
        let Some(table) = self.tables.get_mut(&range.oid) else { return Ok(()) };
        table.ranges_left -= 1;
        if !range.is_repeat
            && let Some(part) = table.copying.parts.get_mut(range.part)
        {
            part.done.add(range.blocks.clone());
            self.progress.durable(range.blocks.len() as u64);
        }
        if table.ranges_left == 0 {
            self.end_table(range.oid);
            return Ok(());
        }
        if range.is_repeat {
            return Ok(());
        }
        let (sinks, note) = (Arc::clone(&table.sinks), Note::Copying(table.copying.clone()));
        self.shared.write_note(range.oid, &sinks, &note).await
    }

    fn end_table(&mut self, oid: u32) {
        let Some(table) = self.tables.remove(&oid) else { return };
        let shared = Arc::clone(self.shared);
        self.ending.spawn(async move {
            shared.write_note(oid, &table.sinks, &Note::Copying(table.copying.clone())).await?;
            shared.end_copy(&table.sinks, &table.copy).await?;
            Ok(table)
        });
    }

    fn ended(&mut self, table: TableState) {
        let oid = table.copy.relation.oid;
        self.progress.table_done(&table.name);
        let _ = self.shared.pipeline.send(Input::Release(oid));
        self.result.copied.push(oid);
    }
}

fn ended_itself(error: &tokio::task::JoinError) -> String {
    format!("a task that asks the sinks ended: {error}")
}

/// With an error, or while somebody has the table locked, they come later, by the next look at the catalog.
async fn tell_computed(shared: &Shared, sinks: &[usize], computed: &generated::Table) {
    if !computed.columns.iter().all(GeneratedColumn::is_known) {
        return;
    }
    for sink in sinks.iter().filter_map(|sink| shared.sink(*sink)) {
        let _ = generated::tell(sink.as_ref(), computed, &shared.logger).await;
    }
}

/// Makes a table ready in the sinks, and notes in them what is to be copied.
async fn begin(
    shared: Arc<Shared>,
    snapshot: Taken,
    table: CopyTable,
    plan: Plan,
) -> std::result::Result<Begun, NotBegun> {
    let oid = table.relation.oid;
    let name = table.relation.qualified_name();
    let has_key = table.relation.has_key();
    let sinks: Arc<[usize]> = shared.receivers(oid, &table.relation.schema, &table.relation.name).into();
    let told = shared.versions.last(oid);
    let has_changed = shared.storages.compare(oid, &sinks, &table.storage).change != StorageChange::None;
    let covers = if let Plan::Over { covers, .. } = &plan { *covers } else { Lsn::ZERO };
    // Before the version is kept that has it.
    let has_other_key = shared.versions.has_other_key(&sinks, &table.relation).await;
    let refilled = if let Plan::Refill { sinks } = &plan { sinks.clone() } else { Vec::new() };
    let is_another = matches!(plan, Plan::Resume(_))
        && told.is_some_and(|told| rewrite_of(&told, &table.relation) == Some(Rewrite::Anew));
    let (resumed, empty_first) = match plan {
        // What is there was laid out by columns that are others now.
        _ if is_another => (None, true),
        // Rows of partitions that are gone, or were emptied, are in the sinks.
        Plan::Resume(copying) if table.storage.is_partitioned && !has_same_parts(&copying, &table) => {
            (None, true)
        }
        // The rows were computed anew in between: what is to follow the copy may be older than that.
        Plan::Resume(_) | Plan::Refill { .. } | Plan::Again { .. } if has_changed => (None, true),
        Plan::Refill { .. } | Plan::Again { .. } if has_other_key => (None, true),
        // Beside what has it copied over, other values were computed anew, perhaps: changes from before that are not to follow.
        Plan::Over { storage: None, .. }
            if shared.storages.may_be_more_than_added(oid, &sinks, &table.storage, &table.relation) =>
        {
            (None, true)
        }
        Plan::Over { storage, shape, .. } => {
            let is_another = shape.is_some_and(|then| !then.is_same_shape(&table.relation));
            let has_changed = |then: &Storage| table.storage.change_since(then) != StorageChange::None;
            (None, !has_key || is_another || storage.is_some_and(|then| has_changed(&then)))
        }
        Plan::Resume(copying) if has_key && copying.has_begun() => (Some(copying), false),
        // Of sinks that had rows, which are copied over.
        Plan::Resume(copying) if has_key && !copying.from_nothing => (None, false),
        // Without a key nothing tells rows apart that are there already.
        Plan::Resume(_) => (None, true),
        Plan::Refill { .. } => (None, !has_key),
        Plan::Again { empty_first } => (None, empty_first || !has_key),
        Plan::New | Plan::None { .. } | Plan::Join { .. } => (None, false),
    };
    let is_resumed = resumed.is_some();
    let copy =
        TableCopy { relation: Arc::clone(&table.relation), snapshot: snapshot.lsn, empty_first, is_resumed };
    if is_another || empty_first {
        // The version is kept now, and no longer tells it afterwards; and what is emptied is to be filled, whatever happens.
        let note = Note::Wanted { table: name.clone() };
        shared.write_note(oid, &sinks, &note).await.map_err(NotBegun::Over)?;
    }
    shared.keep_version(&sinks, &table.relation).await.map_err(NotBegun::Over)?;
    // Before a table is made, so that what is computed in it has its place there; and afterwards, if it was there.
    let (columns, dropped) = (table.generated.clone(), table.dropped.clone());
    let computed = generated::Table { oid, sinks: sinks.to_vec(), columns, dropped };
    tell_computed(&shared, &sinks, &computed).await;
    let is_empty = match shared.begin_copy(&sinks, &copy, &refilled).await {
        Ok(is_empty) => is_empty,
        Err((sink, text)) => return Err(NotBegun::Failed(Failure { oid, name, sink, text })),
    };
    tell_computed(&shared, &sinks, &computed).await;
    if !is_empty && !is_resumed && !has_key {
        let text = format!(
            "table {name} has no key, and its counterpart in a sink has rows: copied rows could not be told from \
             them; empty it there, or run `replicator resync --table {name}`, which does"
        );
        return Err(NotBegun::Failed(Failure { oid, name, sink: None, text }));
    }
    let mut copying = what_is_done(&table, &snapshot, resumed, &name, is_empty);
    copying.covers = copying.covers.max(covers);
    if let Some(before) = copying.covers_before() {
        let _ = shared.pipeline.send(Input::CopiedAt(oid, before));
    }
    let _ = shared.pipeline.send(Input::CopiedAs(Arc::clone(&copy.relation)));
    // Whatever the first snapshot was: before the stream has passed this one, changes may be older than the rows.
    let _ = shared.pipeline.send(Input::CopiedUntil(oid, snapshot.lsn));
    let note = Note::Copying(copying.clone());
    shared.note_beginning(oid, &sinks, &note, &table.storage).await.map_err(NotBegun::Over)?;
    let state = TableState { copy, name, sinks, copying, ranges_left: 0 };
    Ok(Begun { table, state, fresh: is_empty && !is_resumed })
}

/// What of the table need not be read again: ranges of files that are still the same.
fn what_is_done(
    table: &CopyTable,
    snapshot: &Taken,
    resumed: Option<Copying>,
    name: &str,
    is_empty: bool,
) -> Copying {
    let done_of = |oid: u32, file_node: u32| {
        let parts = resumed.as_ref().map_or(&[][..], |copying| &copying.parts);
        parts.iter().find(|part| part.oid == oid && part.file_node == file_node)
    };
    let parts = table
        .parts
        .iter()
        .map(|part| PartDone {
            oid: part.oid,
            file_node: part.file_node,
            done: done_of(part.oid, part.file_node).map(|part| part.done.clone()).unwrap_or_default(),
        })
        .collect();
    let table = name.to_owned();
    match resumed {
        Some(copying) => Copying { table, parts, ..copying },
        None => Copying {
            table,
            first_snapshot: snapshot.lsn,
            first_xmin: snapshot.xmin,
            from_nothing: is_empty,
            covers: Lsn::ZERO,
            parts,
        },
    }
}

/// Whether the parts that a copy has begun with are all there, as they were.
fn has_same_parts(copying: &Copying, table: &CopyTable) -> bool {
    let is_there = |part: &PartDone| {
        table.parts.iter().any(|there| there.oid == part.oid && there.file_node == part.file_node)
    };
    copying.parts.iter().all(is_there)
}

/// Reads ranges, and hands their rows to its lanes.
struct Worker {
    number: usize,
    worker: CopyWorker,
    transaction: replicator_types::TransactionMeta,
    jobs: Arc<Jobs>,
    lanes: Arc<CopyLanes>,
    said: mpsc::UnboundedSender<Said>,
    budget: Budget,
    limits: CopyLimits,
}

impl Worker {
    async fn run(mut self) {
        while let Some(job) = self.jobs.next(|| self.lanes.hurry(self.number)).await {
            let said = match self.read(&job).await {
                Ok(()) => Said::Ended { job: job.id },
                Err(error) => Said::Failed { job: job.id, error },
            };
            if self.said.send(said).is_err() {
                break;
            }
        }
        self.worker.release().await;
    }

    async fn read(&mut self, job: &Job) -> std::result::Result<(), SourceError> {
        self.worker.begin(&job.table, job.part, job.blocks.clone(), job.changed_since).await?;
        let transaction = replicator_types::TransactionMeta { id: job.id, ..self.transaction };
        let mut builder = BatchBuilder::of_phase(self.budget.clone(), Phase::Copy { fresh: job.fresh });
        loop {
            let mut is_hurried = false;
            while self.budget.is_full() {
                if !std::mem::replace(&mut is_hurried, true) {
                    self.lanes.hurry(self.number);
                }
                tokio::time::sleep(BUDGET_POLL).await;
            }
            let Some(batch) = self.worker.next_batch(&mut builder, &transaction, &self.limits).await? else {
                return Ok(());
            };
            let (rows, bytes) = (batch.len() as u64, batch.data_bytes() as u64);
            // Said before it is done: a report of a lane that nobody knows of would be lost.
            let _ = self.said.send(Said::Sent { job: job.id, lanes: job.sinks.len(), rows, bytes });
            self.lanes.send(self.number, &job.sinks, batch);
        }
    }
}
