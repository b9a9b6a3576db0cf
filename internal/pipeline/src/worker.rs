//! A lane's driver: a thread that takes its batches when it is its turn ([`Turns`]), has the lane prepare them, and sends
//! the writes, several at once where the lane allows; each again until it is durable.
//!
//! ```text
//!   take ─▶ prepare ─▶ full: send
//!                  └─▶ not full: gathers ◀─join─ the next ones ─▶ send: full, nothing is to come soon, another table's
//!                                                                 rows come, or the pause is over
//! ```
//!
//! The thread does the lane's computing (encoding), so that a lane never takes a turn from the tasks that
//! read the source or answer its keepalives; what waits on sockets runs on the runtime.

use crate::backoff::Backoff;
use crate::dispatcher::{LaneId, Output};
use crate::turns::Turns;
use crossbeam_channel::Sender;
use replicator_sink::{ErrorKind, Lane, SinkError, Write};
use replicator_telemetry::metrics::{Failure, SinkMetrics};
use replicator_types::{Batch, Charge, POSTGRES_EPOCH_UNIX_MICROS, TxnId};
use slog::{Logger, error, info, warn};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};
use tokio::runtime::Handle;

/// One sink's turns, between the threads that ask for them.
#[derive(Debug)]
struct Desk {
    turns: Mutex<(Turns, bool)>,
    changed: Condvar,
}

impl Desk {
    /// The turns, and whether nothing is queued any more.
    fn lock(&self) -> MutexGuard<'_, (Turns, bool)> {
        self.turns.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the lane's turn. `until`: it has a write that others may join until then.
    fn next(&self, shard: usize, lane: &dyn Lane, until: Option<Instant>) -> Next {
        let mut turns = self.lock();
        loop {
            if let Some(batch) = turns.0.take(shard, |batch| lane.needs_drain(batch)) {
                return Next::Prepare(batch);
            }
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            let is_due = left.is_some_and(|left| left.is_zero()) || turns.1 || turns.0.is_hurried(shard);
            if is_due && turns.0.send(shard) {
                return Next::Send;
            }
            if turns.1 && turns.0.is_idle(shard) {
                return Next::End;
            }
            turns = match left.filter(|_| !is_due) {
                Some(left) => {
                    let waited = self.changed.wait_timeout(turns, left);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
                None => self.changed.wait(turns).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }

    /// Waits until the first of the lane's writes may be sent. False when the lane has failed for good.
    fn wait_to_send(&self, shard: usize) -> bool {
        let mut turns = self.lock();
        loop {
            if turns.0.send(shard) {
                return true;
            }
            if turns.0.is_idle(shard) {
                return false;
            }
            turns = self.changed.wait(turns).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn change(&self, change: impl FnOnce(&mut (Turns, bool))) {
        change(&mut self.lock());
        self.changed.notify_all();
    }
}

/// What a lane does next.
enum Next {
    /// Prepares a batch.
    Prepare(Arc<Batch>),
    /// Sends what has gathered.
    Send,
    /// Its queue is closed, and all of it durable.
    End,
}

/// The threads of one sink's lanes. They end when this is dropped and what they had is durable.
#[derive(Debug)]
pub(crate) struct Workers(Arc<Desk>);

impl Workers {
    /// Starts a thread for each lane.
    pub(crate) fn start(lanes: Vec<(LaneContext, String, Box<dyn Lane>)>) -> std::io::Result<Self> {
        let turns = Turns::new(lanes.iter().map(|(_, _, lane)| lane.in_flight_max()));
        let workers = Self(Arc::new(Desk { turns: Mutex::new((turns, false)), changed: Condvar::new() }));
        for (shard, (context, name, lane)) in lanes.into_iter().enumerate() {
            let desk = Arc::clone(&workers.0);
            std::thread::Builder::new().name(name).spawn(move || run(&context, lane, &desk, shard))?;
        }
        Ok(workers)
    }

    /// Queues what the pipeline has handed out for this sink.
    pub(crate) fn push(&self, output: Output) {
        self.0.change(|turns| turns.0.push(output));
    }

    /// Queues a batch for one lane.
    pub(crate) fn push_batch(&self, shard: usize, batch: Arc<Batch>) {
        self.0.change(|turns| turns.0.push_batch(shard, batch));
    }

    /// Says that nothing is to come for one lane soon.
    pub(crate) fn hurry(&self, shard: usize) {
        self.0.change(|turns| turns.0.hurry(shard));
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.0.change(|turns| turns.1 = true);
    }
}

/// What a lane reports.
#[derive(Debug)]
pub(crate) enum LaneReport {
    /// A batch with changes of these transactions is durable.
    Durable {
        transactions: Vec<TxnId>,
        /// What it was charged with when it was handed out.
        bytes: usize,
    },
    /// A write that was down has got through.
    Up(usize),
    /// A write does not get through; it is tried again. Said once (`first`), and again with each new reason;
    /// an `Up` follows it.
    Down { sink: usize, reason: String, first: bool },
    /// The lane has stopped; a person is needed. `table` is the one that it is the matter with, if it is one alone.
    Failed { lane: LaneId, text: String, table: Option<u32> },
}

/// How many attempts fail before a sink counts as down. One lost connection is not an outage.
const ATTEMPTS_UNTIL_DOWN: u32 = 2;

#[derive(Clone)]
pub(crate) struct LaneContext {
    pub(crate) id: LaneId,
    pub(crate) runtime: Handle,
    pub(crate) reports: Sender<LaneReport>,
    pub(crate) backoff: (Duration, Duration),
    /// How long a write that is not full waits for those behind it, from when its first batch was taken.
    pub(crate) gather_pause: Duration,
    pub(crate) metrics: SinkMetrics,
    pub(crate) logger: Logger,
}

/// Reports the lane as failed unless it came to an orderly end: a panic must not look like a slow sink.
struct Watch<'a> {
    context: &'a LaneContext,
    orderly: bool,
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        if !self.orderly {
            let text = format!(
                "shard {} of the sink has panicked; nothing of its batch was acknowledged (a bug: the panic's message \
                 is on stderr)",
                self.context.id.shard
            );
            let _ =
                self.context.reports.send(LaneReport::Failed { lane: self.context.id, text, table: None });
        }
    }
}

/// Runs until the queue is closed and what was in it is durable, or until the lane fails for good.
fn run(context: &LaneContext, mut lane: Box<dyn Lane>, desk: &Arc<Desk>, shard: usize) {
    let mut watch = Watch { context, orderly: false };
    let send = |write: Delivery| {
        let may_be_sent = desk.wait_to_send(shard);
        if may_be_sent {
            write.spawn();
        }
        may_be_sent
    };
    let mut gathered: Option<Delivery> = None;
    loop {
        let until = gathered.as_ref().map(|write| write.cut + context.gather_pause);
        match desk.next(shard, lane.as_ref(), until) {
            Next::Prepare(batch) => {
                // Rows of other tables can't join, and may have to wait for something of theirs.
                if let Some(write) =
                    gathered.take_if(|write| !tables_of(&batch).eq(write.tables.iter().copied()))
                    && !send(write)
                {
                    break;
                }
                let Some(mut write) = prepare(context, lane.as_mut(), desk, shard, batch) else { break };
                if let Some(mut before) = gathered.take() {
                    write = match before.join(write) {
                        Ok(()) => {
                            desk.change(|turns| turns.0.joined(shard));
                            before
                        }
                        Err(next) => {
                            if !send(before) {
                                break;
                            }
                            *next
                        }
                    };
                }
                if !write.write.is_full() {
                    gathered = Some(write);
                } else if !send(write) {
                    break;
                }
            }
            Next::Send => {
                if let Some(write) = gathered.take() {
                    write.spawn();
                }
            }
            Next::End => break,
        }
    }
    watch.orderly = true;
}

/// Prepares a batch. None when the lane failed for good: the batch stays in flight then, and nothing passes it, which is
/// right, since the process is about to stop.
fn prepare(
    context: &LaneContext,
    lane: &mut dyn Lane,
    desk: &Arc<Desk>,
    shard: usize,
    batch: Arc<Batch>,
) -> Option<Delivery> {
    let cut = Instant::now();
    let rows = batch.len();
    context.metrics.batch_size.record(rows as f64);
    context.metrics.batch_bytes.record(batch.data_bytes() as f64);
    let oldest_commit_time_us = batch.transactions().first().map_or(0, |first| first.commit_time_us);
    let transactions: Vec<TxnId> = batch.transactions().iter().map(|transaction| transaction.id).collect();
    let bytes = batch.charged_bytes();
    let mut attempts = Attempts::new(context);
    let write = loop {
        match context.runtime.block_on(lane.prepare(Arc::clone(&batch))) {
            Ok(write) => break write,
            Err(error) => match attempts.failed(&error) {
                Some(pause) => std::thread::sleep(pause),
                None => {
                    desk.change(|turns| turns.0.failed(shard));
                    return None;
                }
            },
        }
    };
    attempts.succeeded();
    let tables = tables_of(&batch).collect();
    // Who has the batch still, the write or another sink's lane, has its charge too.
    let held_bytes = write.held_bytes();
    let held = match Arc::try_unwrap(batch) {
        Ok(batch) => batch.into_charge(held_bytes),
        Err(batch) => batch.charge_beside(held_bytes),
    };
    Some(Delivery {
        context: context.clone(),
        write,
        held: vec![held],
        desk: Arc::clone(desk),
        shard,
        tables,
        transactions,
        bytes,
        rows,
        cut,
        oldest_commit_time_us,
    })
}

/// Tables of which a batch has rows.
fn tables_of(batch: &Batch) -> impl Iterator<Item = u32> {
    batch.relations().iter().map(|relation| relation.oid)
}

/// A write, of a batch or of several that have joined.
struct Delivery {
    context: LaneContext,
    write: Box<dyn Write>,
    /// For what it holds in memory until it is durable.
    held: Vec<Charge>,
    desk: Arc<Desk>,
    shard: usize,
    tables: Vec<u32>,
    transactions: Vec<TxnId>,
    bytes: usize,
    rows: usize,
    cut: Instant,
    oldest_commit_time_us: i64,
}

impl Delivery {
    /// Takes up the next one, if the two can be sent as one.
    fn join(&mut self, mut next: Self) -> Result<(), Box<Self>> {
        if let Err(write) = self.write.join(next.write) {
            next.write = write;
            return Err(Box::new(next));
        }
        self.held.append(&mut next.held);
        self.transactions.append(&mut next.transactions);
        self.bytes += next.bytes;
        self.rows += next.rows;
        Ok(())
    }

    /// Sends it, as often as it takes.
    fn spawn(self) {
        let runtime = self.context.runtime.clone();
        runtime.spawn(self.run());
    }

    async fn run(self) {
        let context = self.context.clone();
        let mut watch = Watch { context: &context, orderly: false };
        self.deliver().await;
        watch.orderly = true;
    }

    async fn deliver(mut self) {
        self.context.metrics.batches_in_flight.increment(1.0);
        loop {
            let mut attempts = Attempts::new(&self.context);
            while let Err(error) = self.write.send().await {
                match attempts.failed(&error) {
                    Some(pause) => tokio::time::sleep(pause).await,
                    None => {
                        self.context.metrics.batches_in_flight.decrement(1.0);
                        return self.desk.change(|turns| turns.0.failed(self.shard));
                    }
                }
            }
            attempts.succeeded();
            if !self.write.has_more() {
                break;
            }
        }
        drop((self.write, self.held));
        self.context.metrics.batches_in_flight.decrement(1.0);
        self.context.metrics.events.increment(self.rows as u64);
        self.context.metrics.latency_seconds.record(self.cut.elapsed().as_secs_f64());
        let commit_to_durable = seconds_since_commit(self.oldest_commit_time_us);
        self.context.metrics.commit_to_durable_seconds.record(commit_to_durable);
        // The report goes first: that of what comes behind a fence follows it.
        let _ = self
            .context
            .reports
            .send(LaneReport::Durable { transactions: self.transactions, bytes: self.bytes });
        self.desk.change(|turns| turns.0.durable(self.shard));
    }
}

/// Age of a commit by this machine's clock; 0 when the clocks disagree.
pub(crate) fn seconds_since_commit(commit_time_us: i64) -> f64 {
    let now_us = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |elapsed| i64::try_from(elapsed.as_micros()).unwrap_or(i64::MAX));
    let age_us = now_us.saturating_sub(commit_time_us.saturating_add(POSTGRES_EPOCH_UNIX_MICROS));
    age_us.max(0) as f64 / 1e6
}

/// Attempts at one step of one batch: how long to pause, what to say.
struct Attempts<'a> {
    context: &'a LaneContext,
    backoff: Backoff,
    failures: u32,
    since: Instant,
}

impl<'a> Attempts<'a> {
    fn new(context: &'a LaneContext) -> Self {
        let (min, max) = context.backoff;
        Self { context, backoff: Backoff::new(min, max), failures: 0, since: Instant::now() }
    }

    /// The pause before the next attempt, none if there is to be none.
    fn failed(&mut self, error: &SinkError) -> Option<Duration> {
        let context = self.context;
        self.failures += 1;
        let text = error.to_string();
        match error.kind() {
            ErrorKind::Retry => {
                let pause = self.backoff.pause();
                context.metrics.failures(Failure::Retry).increment(1);
                context.metrics.retries.increment(1);
                warn!(context.logger, "sink failed, trying again"; "error" => &text,
                    "attempt" => self.failures, "pause_ms" => pause.as_millis() as u64);
                if self.failures >= ATTEMPTS_UNTIL_DOWN {
                    let first = self.failures == ATTEMPTS_UNTIL_DOWN;
                    let _ =
                        context.reports.send(LaneReport::Down { sink: context.id.sink, reason: text, first });
                }
                Some(pause)
            }
            kind @ (ErrorKind::Halt | ErrorKind::Reject) => {
                let failure = if kind == ErrorKind::Halt { Failure::Halt } else { Failure::Reject };
                context.metrics.failures(failure).increment(1);
                error!(context.logger, "sink failed for good"; "error" => &text);
                let _ =
                    context.reports.send(LaneReport::Failed { lane: context.id, text, table: error.table() });
                None
            }
        }
    }

    fn succeeded(&self) {
        if self.failures > 0 {
            info!(self.context.logger, "sink works again";
                "attempts" => self.failures, "after_ms" => self.since.elapsed().as_millis() as u64);
            if self.failures >= ATTEMPTS_UNTIL_DOWN {
                let _ = self.context.reports.send(LaneReport::Up(self.context.id.sink));
            }
        }
    }
}
