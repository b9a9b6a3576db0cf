//! Drives the pipeline: the thread between the source's task and the lanes' threads.
//!
//! ```text
//!   source task ──Input──▶ [pipeline thread: Pipeline] ───Output───▶ [lane threads] ──▶ sinks
//!        ▲                     │ watermark      ▲                        │
//!        └──── feedback ◀──────┘                └──────LaneReport────────┘
//! ```
//!
//! Queues between threads have no limit in number; what they hold is bounded by the [`Budget`] that every
//! chunk and batch is charged to, and that the source waits for before it reads.

use crate::batcher::BatchLimits;
use crate::dispatcher::{DispatchError, LaneId, Output, Route};
use crate::pipeline::{Counts, Notice, Pipeline, PipelineError, Standing};
use crate::worker::{LaneContext, LaneReport, Workers, seconds_since_commit};
use bytes::Bytes;
use crossbeam_channel::{Receiver, Sender, select, unbounded};
use replicator_config::{BatchConfig, SinkConfig};
use replicator_sink::{KeyChanges, Lane};
use replicator_spill::Shelf;
use replicator_telemetry::metrics::{PipelineMetrics, SinkMetrics, SourceMetrics};
use replicator_types::{Budget, Charge, Lsn, Relation, TableCatalog, TxnId};
use slog::{Logger, o};
use std::any::Any;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};

/// What the source's task tells the pipeline.
#[derive(Debug)]
pub enum Input {
    /// Received messages, whole and in order.
    Chunk {
        /// CopyData messages, framing included.
        bytes: Bytes,
        /// What the catalog says of the tables described in them.
        catalogs: Vec<TableCatalog>,
        /// Their memory, given back when they have been dispatched.
        charge: Charge,
    },
    /// What follows comes from a new connection, beginning at or before the watermark.
    Reconnected,
    /// Tables as the catalog has them now.
    Catalog(Vec<TableCatalog>),
    /// A table is to be copied anew: its changes wait. [`Notice::Held`] answers.
    Hold(u32),
    /// The same, when the stream has passed that LSN.
    HoldAt(u32, Lsn),
    /// The copy of the table stands at this snapshot.
    CopiedAt(u32, Lsn),
    /// [`Pipeline::copied_as`].
    CopiedAs(Arc<Relation>),
    /// See [`Pipeline::copied_until`].
    CopiedUntil(u32, Lsn),
    /// [`Pipeline::leave_out`].
    LeaveOut(u32, usize),
    /// [`Pipeline::take_back`].
    TakeBack(u32),
    /// The copy of the table is durable. [`Notice::CaughtUp`] answers.
    Release(u32),
    /// The table is not published any more.
    Forget(u32),
    /// That answer is written down.
    Settled(u32),
    /// A [`Notice::Request`] is written down.
    Answered(TxnId),
    /// Stop taking changes at the first end of a transaction at or behind this LSN, then drain.
    StopAt(Lsn),
    /// Take no more changes; make durable what was taken.
    Stop,
}

/// What the pipeline tells the process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A sink stopped answering, with its last error.
    SinkDown(usize, String),
    /// It answers again.
    SinkUp(usize),
    /// Something about a table. [`Notice::Refused`] is the last event.
    Table(Notice),
    /// After a stop: every complete transaction taken is durable. The last event.
    Drained,
    /// It cannot go on; the text says why and what to do. The last event.
    Failed(String),
}

/// A sink's lanes with their settings.
pub struct SinkLanes {
    /// Its configuration.
    pub config: SinkConfig,
    /// How it takes key changes.
    pub key_changes: KeyChanges,
    /// Of a log: whether it takes changes of a table behind later ones of other tables.
    pub takes_late_changes: bool,
    /// Whether it takes logical messages.
    pub messages: bool,
    /// Its lanes, by shard.
    pub lanes: Vec<Box<dyn Lane>>,
}

/// What a pipeline is started with.
pub struct Settings {
    /// Everything up to here is durable already: the slot's confirmed position.
    pub watermark: Lsn,
    /// The process' budget.
    pub budget: Budget,
    /// Shortest and longest pause between a lane's attempts.
    pub backoff: (Duration, Duration),
    /// Where changes wait that have to.
    pub shelf: Shelf,
    /// The tables as the sinks were told of them.
    pub relations: Vec<Arc<Relation>>,
    /// [`Pipeline::with_left_out`].
    pub left_out: Vec<(u32, Vec<usize>)>,
    /// How the tables stand towards their copies.
    pub standings: Vec<(u32, Standing)>,
    /// Where WAL ended when earlier runs had ended.
    pub reach: Lsn,
    /// [`Pipeline::with_horizon`].
    pub horizon: Option<u32>,
    /// Whether tables that are not among these wait to be copied.
    pub unknown_wait: bool,
    /// Whether `streaming 'parallel'` is asked for.
    pub parallel_streaming: bool,
    /// Prefix of logical messages that are requests to the replicator.
    pub request_prefix: String,
    /// Where waiting writes run.
    pub runtime: Handle,
    /// Log.
    pub logger: Logger,
    /// Dropped when the pipeline's thread ends, however it ends: for `/healthz`.
    pub alive: Box<dyn Any + Send>,
}

/// A running pipeline.
pub struct Running {
    /// Into it.
    pub input: Sender<Input>,
    /// What may be acknowledged to the source. It stays as it was when the pipeline has ended, for a last
    /// acknowledgement.
    pub watermark: watch::Sender<Lsn>,
    /// Out of it.
    pub events: mpsc::UnboundedReceiver<Event>,
    /// Its thread; ended means that nothing is processed any more.
    pub thread: JoinHandle<()>,
}

/// How often gauges are brought up to date.
const METRICS_INTERVAL: Duration = Duration::from_millis(250);

/// Starts the pipeline's thread and one thread a lane.
///
/// # Errors
/// When the operating system gives no thread.
pub fn start(settings: Settings, sinks: Vec<SinkLanes>) -> std::io::Result<Running> {
    let (input, inputs) = unbounded();
    let watermark = watch::Sender::new(settings.watermark);
    let (events_out, events) = mpsc::unbounded_channel();
    let (reports_out, reports) = unbounded();
    let mut routes = Vec::new();
    let mut workers = Vec::new();
    let mut metrics = Vec::new();
    for (sink, of) in sinks.into_iter().enumerate() {
        let SinkLanes { config, key_changes, takes_late_changes, messages, lanes } = of;
        let sink_metrics = SinkMetrics::new(&config.name);
        sink_metrics.up.set(1.0);
        routes.push(Route {
            name: config.name.clone(),
            tables: config.tables,
            shards: lanes.len() as u32,
            limits: BatchLimits::from(config.batch),
            key_changes,
            takes_late_changes,
            messages,
        });
        let lane = |(shard, lane)| {
            let context = LaneContext {
                id: LaneId { sink, shard: shard as u32 },
                runtime: settings.runtime.clone(),
                reports: reports_out.clone(),
                backoff: settings.backoff,
                gather_pause: Duration::ZERO,
                metrics: sink_metrics.clone(),
                logger: settings.logger.new(o!("sink" => config.name.clone(), "shard" => shard)),
            };
            (context, format!("{}-{shard}", config.name), lane)
        };
        workers.push(Workers::start(lanes.into_iter().enumerate().map(lane).collect())?);
        metrics.push(sink_metrics);
    }
    let driver = Driver {
        pipeline: Pipeline::new(routes, settings.watermark, &settings.budget)
            .with_shelf(settings.shelf)
            .with_left_out(settings.left_out)
            .with_relations(settings.relations)
            .with_standings(settings.standings, settings.unknown_wait)
            .with_reach(settings.reach)
            .with_horizon(settings.horizon)
            .with_parallel_streaming(settings.parallel_streaming)
            .with_request_prefix(settings.request_prefix),
        charge: None,
        out_bytes: 0,
        budget: settings.budget,
        writes_down: vec![0; workers.len()],
        workers,
        watermark: watermark.clone(),
        events: events_out,
        stop_at: Lsn::MAX,
        stopping: false,
        counts: Counts::default(),
        metrics: PipelineMetrics::new(),
        source_metrics: SourceMetrics::new(),
        sink_metrics: metrics,
        metrics_due: Instant::now(),
    };
    let alive = settings.alive;
    let thread = std::thread::Builder::new().name("pipeline".into()).spawn(move || {
        let _alive = alive;
        driver.run(&inputs, &reports);
    })?;
    Ok(Running { input, watermark, events, thread })
}

impl From<BatchConfig> for BatchLimits {
    fn from(config: BatchConfig) -> Self {
        Self {
            rows_max: config.rows_max,
            bytes_max: config.bytes_max,
            interval: Duration::from_millis(config.interval_ms),
        }
    }
}

/// Why it can't go on.
enum Fatal {
    Failed(String),
    /// A sink refuses changes of one table.
    Refused {
        oid: u32,
        sink: usize,
        text: String,
    },
}

impl From<PipelineError> for Fatal {
    fn from(error: PipelineError) -> Self {
        let text = error.to_string();
        match error {
            PipelineError::Dispatch(DispatchError::NoKey { oid, sink: Some(sink), .. }) => {
                Self::Refused { oid, sink, text }
            }
            _ => Self::Failed(text),
        }
    }
}

struct Driver {
    pipeline: Pipeline,
    /// Of the chunk that is being worked through.
    charge: Option<Charge>,
    /// Bytes of batches that are with the lanes.
    out_bytes: usize,
    budget: Budget,
    workers: Vec<Workers>,
    /// For each sink, how many of its writes do not get through at the moment.
    writes_down: Vec<usize>,
    watermark: watch::Sender<Lsn>,
    events: mpsc::UnboundedSender<Event>,
    stop_at: Lsn,
    stopping: bool,
    counts: Counts,
    metrics: PipelineMetrics,
    source_metrics: SourceMetrics,
    sink_metrics: Vec<SinkMetrics>,
    metrics_due: Instant,
}

impl Driver {
    fn run(mut self, inputs: &Receiver<Input>, reports: &Receiver<LaneReport>) {
        let never = crossbeam_channel::never();
        let outcome = loop {
            let now = Instant::now();
            let wait = self.pipeline.due().map_or(METRICS_INTERVAL, |due| due.saturating_duration_since(now));
            let wait = wait.min(METRICS_INTERVAL);
            // What waited in files is handed on as the lanes get rid of it; the budget alone would not do, since
            // received chunks that come behind it hold that.
            let may_hand_on = self.out_bytes < self.budget.bytes_max() / 2;
            let busy = self.pipeline.is_busy();
            let step = if busy && may_hand_on {
                self.work()
            } else {
                let idle = if may_hand_on && self.pipeline.is_releasing() { Duration::ZERO } else { wait };
                // Nothing is taken in that can't be worked on yet.
                let inputs = if busy { &never } else { inputs };
                // A sender that is gone leaves its channel ready for ever; the process is ending then.
                select! {
                    recv(inputs) -> input => match input {
                        Ok(input) => self.input(input),
                        Err(_) => return,
                    },
                    recv(reports) -> report => match report {
                        Ok(report) => self.report(report),
                        Err(_) => return,
                    },
                    default(idle) => Ok(()),
                }
            };
            let step = step.and_then(|()| {
                if may_hand_on && self.pipeline.is_releasing() {
                    self.pipeline.release_some(now)?;
                }
                Ok(())
            });
            // What else is there is taken along before anybody is told.
            let step = step.and_then(|()| reports.try_iter().try_for_each(|report| self.report(report)));
            if let Err(fatal) = step {
                break match fatal {
                    Fatal::Refused { oid, sink, text } if self.pipeline.may_set_aside(oid) => {
                        Event::Table(Notice::Refused { oid, sink, text })
                    }
                    Fatal::Failed(text) | Fatal::Refused { text, .. } => Event::Failed(text),
                };
            }
            self.pipeline.tick(Instant::now());
            self.hand_out();
            for notice in self.pipeline.take_notices() {
                self.tell(Event::Table(notice));
            }
            // With what has waited of a table that is not published any more.
            self.stop_if_passed();
            self.publish();
            if self.stopping && self.pipeline.is_drained() {
                break Event::Drained;
            }
        };
        self.publish();
        self.update_metrics();
        let _ = self.events.send(outcome);
    }

    fn input(&mut self, input: Input) -> Result<(), Fatal> {
        match input {
            Input::Chunk { bytes, catalogs, charge } => {
                if !self.stopping {
                    self.charge = Some(charge);
                    let result = self.pipeline.chunk(bytes, catalogs, Instant::now());
                    result?;
                    self.worked();
                }
            }
            Input::Reconnected => self.pipeline.reconnected(),
            Input::Catalog(tables) => self.pipeline.catalog(tables),
            Input::Hold(oid) => self.pipeline.hold(oid, Instant::now()),
            Input::HoldAt(oid, at) => self.pipeline.hold_at(oid, at),
            Input::CopiedAt(oid, snapshot) => self.pipeline.copied_at(oid, snapshot),
            Input::CopiedAs(version) => self.pipeline.copied_as(&version),
            Input::CopiedUntil(oid, snapshot) => self.pipeline.copied_until(oid, snapshot),
            Input::LeaveOut(oid, sink) => self.pipeline.leave_out(oid, sink),
            Input::TakeBack(oid) => self.pipeline.take_back(oid),
            Input::Release(oid) => self.pipeline.release(oid),
            Input::Forget(oid) => {
                self.pipeline.forget(oid);
                self.stop_if_passed();
            }
            Input::Answered(id) => self.pipeline.answered(id),
            Input::Settled(oid) => {
                self.pipeline.settled(oid);
                self.stop_if_passed();
            }
            Input::StopAt(lsn) => {
                self.stop_at = lsn;
                self.stop_if_passed();
            }
            Input::Stop => self.stop(),
        }
        Ok(())
    }

    fn work(&mut self) -> Result<(), Fatal> {
        self.pipeline.work(Instant::now())?;
        self.worked();
        Ok(())
    }

    fn worked(&mut self) {
        if !self.pipeline.is_busy() {
            self.charge = None;
            self.stop_if_passed();
        }
    }

    /// A table that is being copied is waited for.
    fn stop_if_passed(&mut self) {
        if self.pipeline.passed() >= self.stop_at && !self.pipeline.is_busy() && self.pipeline.waiting() == 0
        {
            self.stop();
        }
    }

    fn stop(&mut self) {
        self.stopping = true;
        self.pipeline.flush();
    }

    fn report(&mut self, report: LaneReport) -> Result<(), Fatal> {
        match report {
            LaneReport::Durable { transactions, bytes } => {
                self.out_bytes = self.out_bytes.saturating_sub(bytes);
                self.pipeline.durable(transactions);
                Ok(())
            }
            LaneReport::Up(sink) => {
                self.writes_down[sink] = self.writes_down[sink].saturating_sub(1);
                if self.writes_down[sink] == 0 {
                    self.sink_metrics[sink].up.set(1.0);
                    self.tell(Event::SinkUp(sink));
                }
                Ok(())
            }
            LaneReport::Down { sink, reason, first } => {
                self.writes_down[sink] += usize::from(first);
                self.sink_metrics[sink].up.set(0.0);
                self.tell(Event::SinkDown(sink, reason));
                Ok(())
            }
            LaneReport::Failed { lane, text, table } => {
                self.sink_metrics[lane.sink].up.set(0.0);
                match table {
                    Some(oid) => Err(Fatal::Refused { oid, sink: lane.sink, text }),
                    None => Err(Fatal::Failed(text)),
                }
            }
        }
    }

    fn tell(&self, event: Event) {
        let _ = self.events.send(event);
    }

    fn hand_out(&mut self) {
        for output in self.pipeline.take_outputs() {
            let (lane, batch) = match &output {
                Output::Batch(lane, batch) => (lane, batch),
                Output::Fence(lane, batch) => {
                    self.sink_metrics[lane.sink].fences.increment(1);
                    (lane, batch)
                }
            };
            self.out_bytes += batch.charged_bytes();
            let sink = lane.sink;
            self.workers[sink].push(output);
        }
    }

    fn publish(&mut self) {
        let watermark = self.pipeline.watermark();
        self.watermark.send_if_modified(|current| {
            let moved = watermark > *current;
            if moved {
                *current = watermark;
            }
            moved
        });
        if Instant::now() >= self.metrics_due {
            self.update_metrics();
            self.metrics_due = Instant::now() + METRICS_INTERVAL;
        }
    }

    fn update_metrics(&mut self) {
        let counts = self.pipeline.counts();
        let before = std::mem::replace(&mut self.counts, counts);
        self.metrics.inserts.increment(counts.inserts - before.inserts);
        self.metrics.updates.increment(counts.updates - before.updates);
        self.metrics.deletes.increment(counts.deletes - before.deletes);
        self.metrics.truncates.increment(counts.truncates - before.truncates);
        self.metrics.transactions.increment(counts.transactions - before.transactions);
        self.metrics.transactions_open.set(self.pipeline.pending() as f64);
        self.metrics.checkpoint_lsn.set(self.pipeline.watermark().0 as f64);
        self.metrics.buffer_bytes.set(self.budget.held() as f64);
        self.metrics.buffer_bytes_max.set(self.budget.bytes_max() as f64);
        self.metrics.buffer_bytes_peak.set(self.budget.peak() as f64);
        let (memory, files) = self.pipeline.waiting_bytes();
        self.metrics.waiting_memory_bytes.set(memory as f64);
        self.metrics.waiting_file_bytes.set(files as f64);
        self.metrics.transactions_unfinished.set(self.pipeline.unfinished() as f64);
        self.source_metrics.received_bytes.increment(counts.bytes - before.bytes);
        self.source_metrics.received_lsn.set(self.pipeline.received().0 as f64);
        let oldest = self.pipeline.oldest_commit_time_us();
        self.source_metrics.lag_seconds.set(oldest.map_or(0.0, seconds_since_commit));
    }
}
