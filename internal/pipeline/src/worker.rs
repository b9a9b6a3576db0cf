//! A lane's driver: a thread that takes batches off its queue, has the lane prepare them, and sends the
//! writes, several at once where the lane allows; each again until it is durable.
//!
//! The thread does the lane's computing (encoding), so that a lane never takes a turn from the tasks that
//! read the source or answer its keepalives; what waits on sockets runs on the runtime.

use crate::backoff::Backoff;
use crate::dispatcher::LaneId;
use crossbeam_channel::{Receiver, Sender};
use replicator_sink::{ErrorKind, Lane, SinkError, Write};
use replicator_telemetry::metrics::{Failure, SinkMetrics};
use replicator_types::{Batch, Charge, POSTGRES_EPOCH_UNIX_MICROS, TxnId};
use slog::{Logger, error, info, warn};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant, SystemTime};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// What a lane is given, in order.
#[derive(Debug)]
pub(crate) enum LaneItem {
    Batch(Arc<Batch>),
    /// All lanes of the sink meet at the barrier, drained; the one with the batch applies it while the others
    /// wait to meet again.
    Fence(Arc<Barrier>, Option<Arc<Batch>>),
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
    /// The lane has stopped; a person is needed.
    Failed(LaneId, String),
}

/// How many attempts fail before a sink counts as down. One lost connection is not an outage.
const ATTEMPTS_UNTIL_DOWN: u32 = 2;

#[derive(Clone)]
pub(crate) struct LaneContext {
    pub(crate) id: LaneId,
    pub(crate) runtime: Handle,
    pub(crate) reports: Sender<LaneReport>,
    pub(crate) backoff: (Duration, Duration),
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
            let _ = self.context.reports.send(LaneReport::Failed(self.context.id, text));
        }
    }
}

/// Runs until the queue is closed and what was in it is durable, or until the lane fails for good.
pub(crate) fn run(context: &LaneContext, lane: Box<dyn Lane>, items: &Receiver<LaneItem>) {
    let mut watch = Watch { context, orderly: false };
    work(context, lane, items);
    watch.orderly = true;
}

fn work(context: &LaneContext, mut lane: Box<dyn Lane>, items: &Receiver<LaneItem>) {
    let in_flight_max = lane.in_flight_max().max(1);
    let slots = Slots { permits: Arc::new(Semaphore::new(in_flight_max)), count: in_flight_max as u32 };
    for item in items {
        let proceed = match item {
            LaneItem::Batch(batch) => submit(context, lane.as_mut(), &slots, batch),
            LaneItem::Fence(barrier, batch) => {
                slots.drain(&context.runtime);
                barrier.wait();
                let proceed = batch.is_none_or(|batch| {
                    let sent = submit(context, lane.as_mut(), &slots, batch);
                    slots.drain(&context.runtime);
                    sent
                });
                // A lane that failed does not open the fence: nothing may pass it.
                if proceed {
                    barrier.wait();
                }
                proceed
            }
        };
        if !proceed {
            return;
        }
    }
    slots.drain(&context.runtime);
}

/// The writes a lane may have in flight.
struct Slots {
    permits: Arc<Semaphore>,
    count: u32,
}

impl Slots {
    fn take(&self, runtime: &Handle) -> Option<OwnedSemaphorePermit> {
        runtime.block_on(Arc::clone(&self.permits).acquire_owned()).ok()
    }

    /// Waits until nothing is in flight. A write that failed for good keeps its permit: this waits for ever
    /// then, which is right, since the process is about to stop.
    fn drain(&self, runtime: &Handle) {
        drop(runtime.block_on(self.permits.acquire_many(self.count)));
    }
}

/// Prepares a batch and lets its write go. False when the lane failed for good.
fn submit(context: &LaneContext, lane: &mut dyn Lane, slots: &Slots, batch: Arc<Batch>) -> bool {
    let cut = Instant::now();
    let rows = batch.len();
    context.metrics.batch_size.record(rows as f64);
    context.metrics.batch_bytes.record(batch.data_bytes() as f64);
    let alone = batch.is_fenced() || lane.needs_drain(&batch);
    if alone {
        slots.drain(&context.runtime);
    }
    let Some(permit) = slots.take(&context.runtime) else { return false };
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
                    // The permit is kept: see `Slots::drain`.
                    permit.forget();
                    return false;
                }
            },
        }
    };
    attempts.succeeded();
    let held = Held::of(batch, write.held_bytes());
    let context_of_write = context.clone();
    let delivery = Delivery {
        context: context_of_write,
        write,
        held,
        permit,
        transactions,
        bytes,
        rows,
        cut,
        oldest_commit_time_us,
    };
    context.runtime.spawn(delivery.run());
    if alone {
        slots.drain(&context.runtime);
    }
    true
}

/// Memory that a write keeps until it is durable.
enum Held {
    Charge {
        _charge: Charge,
    },
    /// The write refers to the batch itself, which carries its own charge.
    Batch {
        _batch: Arc<Batch>,
    },
}

impl Held {
    fn of(batch: Arc<Batch>, held_bytes: usize) -> Self {
        match Arc::try_unwrap(batch) {
            Ok(batch) => Self::Charge { _charge: batch.into_charge(held_bytes) },
            Err(batch) => Self::Batch { _batch: batch },
        }
    }
}

struct Delivery {
    context: LaneContext,
    write: Box<dyn Write>,
    held: Held,
    permit: OwnedSemaphorePermit,
    transactions: Vec<TxnId>,
    bytes: usize,
    rows: usize,
    cut: Instant,
    oldest_commit_time_us: i64,
}

impl Delivery {
    async fn run(self) {
        let context = self.context.clone();
        let mut watch = Watch { context: &context, orderly: false };
        self.deliver().await;
        watch.orderly = true;
    }

    async fn deliver(mut self) {
        self.context.metrics.batches_in_flight.increment(1.0);
        let mut attempts = Attempts::new(&self.context);
        while let Err(error) = self.write.send().await {
            match attempts.failed(&error) {
                Some(pause) => tokio::time::sleep(pause).await,
                None => {
                    self.permit.forget();
                    return;
                }
            }
        }
        attempts.succeeded();
        drop((self.write, self.held));
        self.context.metrics.batches_in_flight.decrement(1.0);
        self.context.metrics.events.increment(self.rows as u64);
        self.context.metrics.latency_seconds.record(self.cut.elapsed().as_secs_f64());
        let commit_to_durable = seconds_since_commit(self.oldest_commit_time_us);
        self.context.metrics.commit_to_durable_seconds.record(commit_to_durable);
        // The report goes before the permit: what follows a drain follows the report too.
        let _ = self
            .context
            .reports
            .send(LaneReport::Durable { transactions: self.transactions, bytes: self.bytes });
        drop(self.permit);
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
                let _ = context.reports.send(LaneReport::Failed(context.id, text));
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
