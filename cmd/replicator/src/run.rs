//! `replicator run`: opens everything, joins it, and ends it in order.

use crate::acknowledged::{Acknowledged, Standing, note_slot, verify_nothing_is_there, verify_slot};
use crate::fence::{Fenced, reach, run_name};
use crate::signals::Signals;
use crate::status::{LanesUp, watch_sink, watch_slot};
use crate::stream::{Connection, Follower};
use crate::{Endpos, Failure, runtime, sinks};
use replicator_admin::{Endpoints, ReadyState};
use replicator_config::{Config, SinkConfig, Snapshot as SnapshotMode};
use replicator_copy::{Aparts, CopySink, Outcome, Setup, Versions, prepare_tables};
use replicator_pipeline::{Backoff, Event, Input, Notice, Running, Settings, SinkLanes, start};
use replicator_sink::{Sink, StreamInfo};
use replicator_source::{Beginning, Prepared, Source, SourceError, Streaming, Term};
use replicator_spill::Shelf;
use replicator_telemetry::metrics::{SourceMetrics, install};
use replicator_types::{Budget, Lsn, Relation, TableCatalog};
use slog::{Logger, error, info, o, warn};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinError, JoinHandle};

/// What a last acknowledgement is given even when the grace is used up.
const FAREWELL_MIN: Duration = Duration::from_secs(1);

/// Runs until stopped, or to the end position.
///
/// # Errors
/// It could not start or go on; one line with the remedy has been logged.
pub(crate) fn run(config: Config, endpos: Option<Endpos>) -> Result<(), Failure> {
    let (logger, guard) = replicator_telemetry::logger(&config.log);
    let text = match run_logged(config, endpos, &logger) {
        Ok(Ended::Over) => return Ok(()),
        Ok(Ended::SetAside(text)) if endpos.is_some() => {
            // Whoever waits for the end position is told that it was not reached.
            error!(logger, "a sink refused a change of a table; the table is set aside there, and another run goes on without it";
                "error" => crate::one_line(&text));
            return Err(Failure::Said);
        }
        Ok(Ended::SetAside(text)) => {
            error!(logger, "a sink refused a change of a table; the table is set aside there, and all begins again without it";
                "error" => crate::one_line(&text));
            drop(guard);
            begin_again()
        }
        Ok(Ended::TakenBack(table)) => {
            info!(logger, "all begins again from where a sink was left out of a table, which it gets from there on"; "table" => table);
            drop(guard);
            begin_again()
        }
        Err(text) => {
            error!(logger, "{}", crate::one_line(&text));
            return Err(Failure::Said);
        }
    };
    Err(Failure::NotSaid(text))
}

/// How a run came to its end.
enum Ended {
    /// It was asked to, or did all there was to do.
    Over,
    /// A table was set aside in a sink, and everything else is to go on.
    SetAside(String),
    /// A sink that was left out of that table is to get what it missed of it.
    TakenBack(String),
}

/// Whether values may come, from `watermark` on, that are only understood as text: of columns that the catalog has no longer,
/// as a version that the sinks were told of has them.
fn has_text_only(versions: &[Arc<Relation>], watermark: Lsn) -> bool {
    let is_over = |version: &Relation| {
        let later = versions.iter().filter(|later| later.oid == version.oid && later.since > version.since);
        later.map(|later| later.since).min().is_some_and(|until| until <= watermark)
    };
    let is_text_only = |version: &&Arc<Relation>| {
        version.columns.iter().any(|column| pgvalue::form(column) == pgvalue::Form::TextOnly)
    };
    versions.iter().filter(is_text_only).any(|version| !is_over(version))
}

/// Puts this program, as it was called, in the place of this process, as after a crash: so that nothing of what was under way,
/// on whatever thread, goes on beside the new run. Comes back only to say why it could not.
fn begin_again() -> String {
    use std::os::unix::process::CommandExt;
    let error = match std::env::current_exe() {
        Ok(program) => std::process::Command::new(program).args(std::env::args_os().skip(1)).exec(),
        Err(error) => error,
    };
    format!("beginning again: {error}")
}

fn run_logged(config: Config, endpos: Option<Endpos>, logger: &Logger) -> Result<Ended, String> {
    let metrics = install()?;
    let runtime = runtime()?;
    let result = runtime.block_on(async {
        let mut signals = Signals::new()?;
        let ready = ReadyState::new(config.sinks.iter().map(|sink| sink.name.clone()));
        serve_admin(&config, metrics, &ready, logger).await?;
        let run = tokio::select! {
            run = Run::open(config, ready, logger.clone(), endpos) => run?,
            signal = signals.next() => {
                info!(logger, "stopped before it had begun"; "signal" => signal);
                return Ok(Ended::Over);
            }
        };
        run.follow(signals).await
    });
    // Lanes may still be waiting for a sink, on this runtime. They end with the process, and not before it;
    // what they hold was not acknowledged.
    std::mem::forget(runtime);
    result
}

async fn serve_admin(
    config: &Config,
    metrics: replicator_telemetry::PrometheusHandle,
    ready: &ReadyState,
    logger: &Logger,
) -> Result<(), String> {
    let Some(address) = config.http.address() else { return Ok(()) };
    let listener = replicator_admin::bind(address).await?;
    info!(logger, "listening"; "http" => %address);
    let endpoints = Endpoints::new(metrics, ready.clone(), replicator_telemetry::refresh_process);
    let logger = logger.clone();
    tokio::spawn(async move {
        if let Err(error) = replicator_admin::serve(listener, endpoints, std::future::pending()).await {
            warn!(logger, "the admin listener has ended"; "error" => %error);
        }
    });
    Ok(())
}

/// Holds the slot's lease.
struct Keeping {
    /// Ends when another process has it.
    task: JoinHandle<SourceError>,
    /// The right to write that goes with it.
    term: Term,
}

/// What ended the lease.
fn why_lost(lost: Result<SourceError, JoinError>) -> String {
    match lost {
        Ok(error) => format!("source: {error}"),
        Err(error) => format!("the task that keeps the lease ended: {error}"),
    }
}

/// Everything opened and joined.
struct Run {
    sinks: Vec<Arc<dyn Sink>>,
    lanes_up: Vec<LanesUp>,
    ready: ReadyState,
    pipeline: Running,
    follower: JoinHandle<Result<Option<Connection>, SourceError>>,
    copying: JoinHandle<Outcome>,
    acknowledged: Acknowledged,
    lease: Keeping,
    /// To it.
    notices: mpsc::UnboundedSender<Notice>,
    stop_reading: watch::Sender<bool>,
    grace: Duration,
    /// What a sink said that refused a change of a table: the pipeline's last word.
    refused: Option<String>,
    logger: Logger,
}

impl Run {
    async fn open(
        config: Config,
        ready: ReadyState,
        logger: Logger,
        endpos: Option<Endpos>,
    ) -> Result<Self, String> {
        let sinks: Vec<Arc<dyn Sink>> =
            sinks::open_all(&config.sinks, &logger)?.into_iter().map(Arc::from).collect();
        let source = Source::new(config.source.clone(), logger.new(o!("part" => "source")))
            .map_err(|error| error.to_string())?;
        let (mut lease, prepared) = prepare(&source, &config, &ready, &logger).await?;
        ready.set_source(Ok(()));
        let run = run_name();
        let fenced = |sink| {
            let (term, timelines) = (lease.term.clone(), prepared.timelines.clone());
            Arc::new(Fenced::new(sink, term, run.clone(), timelines)) as Arc<dyn Sink>
        };
        let sinks: Vec<Arc<dyn Sink>> = sinks.into_iter().map(fenced).collect();
        // Before the sinks make tables: changes committed from here on need not be waited for.
        let stop_at = match endpos {
            Some(Endpos::Current) => {
                Some(source.current_lsn().await.map_err(|error| format!("source: {error}"))?)
            }
            Some(Endpos::Lsn(lsn)) => Some(lsn),
            None => None,
        };
        info!(logger, "source ready"; "slot" => &prepared.identity.slot, "database" => &prepared.database,
            "cluster" => prepared.identity.system_identifier, "confirmed" => %prepared.confirmed_flush,
            "tables" => prepared.tables.len(), "server_version" => prepared.server_version_num);
        let relations: Vec<Arc<Relation>> =
            prepared.tables.iter().map(|table| Arc::new(table.relation())).collect();
        let source = Arc::new(source);
        let opened = tokio::select! {
            opened = open_sinks(&config, &source, &sinks, &prepared, &relations, &logger) => opened,
            // Without it no sink is written to, whoever waits for that.
            lost = &mut lease.task => Err(why_lost(lost)),
        };
        let Opened { lanes, setup, versions, unnoted } = match opened {
            Ok(opened) => opened,
            Err(text) => {
                // Whoever has the lease by now may be about to follow the slot.
                let has_lease = tokio::time::timeout(Duration::ZERO, lease.term.hold()).await.is_ok();
                if prepared.slot_is_new
                    && has_lease
                    && let Err(error) = source.drop_new_slot().await
                {
                    warn!(logger, "the slot just made could not be dropped"; "error" => %error);
                }
                return Err(text);
            }
        };

        // From here on the slot is theirs, and not dropped again.
        tokio::select! {
            noted = note_slot(&unnoted, prepared.confirmed_flush, &prepared.timelines) => noted?,
            lost = &mut lease.task => return Err(why_lost(lost)),
        }

        let relations = versions.to_begin_with(&relations);
        if has_text_only(&relations, prepared.confirmed_flush) {
            info!(
                logger,
                "values come as text: there may be some of columns that are gone, which are understood as text only"
            );
            source.without_binary();
        }
        // Nobody else writes to the sinks any more.
        let status = source.slot_status().await.map_err(|error| format!("source: {error}"))?;
        // Not before: up to here a server that goes away ends the start.
        for sink in &sinks {
            ready.set_sink(sink.name(), Ok(()));
        }
        let budget = Budget::new(config.buffer.bytes_max.0);
        let settings = Settings {
            watermark: prepared.confirmed_flush,
            budget: budget.clone(),
            shelf: Shelf::new(&config.buffer.spill_folder, config.buffer.waiting_bytes_max.0),
            relations,
            left_out: setup.left_out(),
            standings: setup.standings(),
            reach: status.wal_end,
            horizon: status.catalog_xmin,
            unknown_wait: setup.unknown_wait(),
            parallel_streaming: prepared.stream_options.streaming == Streaming::Parallel,
            request_prefix: request_prefix(&config.source.slot),
            backoff: backoff_range(&config),
            runtime: tokio::runtime::Handle::current(),
            logger: logger.clone(),
            alive: Box::new(ready.pipeline_guard()),
        };
        let pipeline = start(settings, lanes).map_err(|error| format!("cannot start a thread: {error}"))?;
        if let Some(lsn) = stop_at {
            let _ = pipeline.input.send(Input::StopAt(lsn));
        }

        let (notices, notices_out) = mpsc::unbounded_channel();
        let setup = if stop_at.is_some() { setup.giving_up() } else { setup };
        let copying = tokio::spawn(setup.run(pipeline.input.clone(), notices_out));
        if config.source.heartbeat_interval_ms > 0 {
            let interval = Duration::from_millis(config.source.heartbeat_interval_ms);
            tokio::spawn(beat(Arc::clone(&source), interval, logger.clone()));
        }
        let lanes_up: Vec<LanesUp> = sinks.iter().map(|_| LanesUp::new()).collect();
        for (sink, lanes) in sinks.iter().zip(&lanes_up) {
            tokio::spawn(watch_sink(Arc::clone(sink), lanes.clone(), ready.clone()));
        }
        let (unreserved, is_unreserved) = watch::channel(false);
        let watermark = pipeline.watermark.subscribe();
        tokio::spawn(watch_slot(Arc::clone(&source), watermark, unreserved, logger.clone()));
        let interval = |sink: &SinkConfig| {
            Duration::from_millis(sink.batch.interval_ms.min(config.source.status_interval_ms))
        };
        let noting = sinks.iter().cloned().zip(config.sinks.iter().map(interval)).collect();
        let acknowledged =
            Acknowledged::start(noting, &pipeline.watermark, prepared.timelines.current(), &logger);
        let (stop_reading, stop) = watch::channel(false);
        let follower = Follower {
            source,
            prepared,
            budget,
            pipeline: pipeline.input.clone(),
            watermark: pipeline.watermark.subscribe(),
            acknowledged: acknowledged.subscribe(),
            hurry: acknowledged.hurry(),
            timeline: acknowledged.timeline(),
            ready: ready.clone(),
            backoff: backoff(&config),
            sinks: sinks.clone(),
            run,
            term: lease.term.clone(),
            unreserved: is_unreserved,
            poll: stop_at.is_some(),
            stop,
            metrics: SourceMetrics::new(),
            logger: logger.clone(),
        };
        let follower = tokio::spawn(follower.run());
        let grace = Duration::from_millis(config.shutdown_grace_ms);
        Ok(Self {
            sinks,
            lanes_up,
            ready,
            pipeline,
            follower,
            copying,
            acknowledged,
            lease,
            notices,
            stop_reading,
            grace,
            refused: None,
            logger,
        })
    }

    /// Until a signal, the end position, or a failure that needs a person.
    async fn follow(mut self, mut signals: Signals) -> Result<Ended, String> {
        loop {
            tokio::select! {
                event = self.pipeline.events.recv(), if self.refused.is_none() => match event {
                    Some(Event::Drained) => {
                        let grace = self.grace;
                        return self.finish(grace).await.map(|()| Ended::Over);
                    }
                    event => self.take(event)?,
                },
                ended = &mut self.follower => {
                    return Err(match ended {
                        Ok(Err(error)) => format!("source: {error}"),
                        Ok(Ok(_)) => "the source is no longer read, though nobody asked for that".into(),
                        Err(error) => format!("the task that reads the source ended: {error}"),
                    });
                }
                ended = &mut self.copying => match ended {
                    Ok(Outcome::Finished) => {
                        info!(self.logger, "everything is copied");
                        return self.stop().await.map(|()| Ended::Over);
                    }
                    Ok(Outcome::SetAside(text)) => return Ok(Ended::SetAside(text)),
                    Ok(Outcome::TakenBack(table)) => return Ok(Ended::TakenBack(table)),
                    Ok(Outcome::Failed(text)) => return Err(text),
                    Err(error) => return Err(format!("the task that copies tables ended: {error}")),
                },
                text = self.acknowledged.failed() => return Err(text),
                lost = &mut self.lease.task => return Err(why_lost(lost)),
                signal = signals.next() => {
                    info!(self.logger, "stopping"; "signal" => signal, "grace_ms" => self.grace.as_millis() as u64);
                    signals.exit_at_next(self.logger.clone());
                    return self.stop().await.map(|()| Ended::Over);
                }
            }
        }
    }

    /// Reads no more, waits for what is in flight, acknowledges it.
    async fn stop(mut self) -> Result<(), String> {
        let _ = self.stop_reading.send(true);
        let _ = self.pipeline.input.send(Input::Stop);
        let (grace, begun) = (self.grace, Instant::now());
        let drained = async {
            loop {
                match self.pipeline.events.recv().await {
                    Some(Event::Drained) => return Ok(()),
                    event => self.take(event)?,
                }
                if let Some(text) = &self.refused {
                    return Err(text.clone());
                }
            }
        };
        match tokio::time::timeout(grace, drained).await {
            Ok(Ok(())) => {
                let logger = self.logger.clone();
                // All is durable. If the source cannot be told of it now, it sends it again, and no harm is done.
                if let Err(text) = self.finish(grace.saturating_sub(begun.elapsed())).await {
                    warn!(logger, "{}", text);
                }
                Ok(())
            }
            Ok(Err(text)) => Err(text),
            Err(_) => Err(format!(
                "what was in flight is not durable after {} ms of grace; it was not acknowledged and comes again \
                 at the next start (shutdown_grace_ms sets the time)",
                grace.as_millis()
            )),
        }
    }

    /// A last acknowledgement.
    async fn finish(mut self, grace: Duration) -> Result<(), String> {
        let _ = self.stop_reading.send(true);
        let watermark = *self.pipeline.watermark.borrow();
        let acknowledge = async {
            self.acknowledged.reach(watermark).await?;
            match (&mut self.follower).await {
                Ok(Ok(Some(connection))) => connection.finish().await.map_err(|error| error.to_string()),
                Ok(Ok(None)) => Err("the source was not connected".into()),
                Ok(Err(error)) => Err(error.to_string()),
                Err(error) => Err(error.to_string()),
            }
        };
        let acknowledged = tokio::time::timeout(grace.max(FAREWELL_MIN), acknowledge).await;
        match acknowledged.unwrap_or_else(|_| Err("it did not answer in time".into())) {
            Ok(()) => {
                info!(self.logger, "done"; "acknowledged" => %watermark);
                Ok(())
            }
            Err(text) => Err(format!(
                "all that was read is durable, but the source could not be told (it comes again, and changes \
                 nothing): {text}"
            )),
        }
    }

    fn take(&mut self, event: Option<Event>) -> Result<(), String> {
        match event {
            Some(Event::SinkDown(sink, text)) => {
                self.lanes_up[sink].set(false);
                self.ready.set_sink(self.sinks[sink].name(), Err(text));
                Ok(())
            }
            Some(Event::SinkUp(sink)) => {
                self.lanes_up[sink].set(true);
                self.ready.set_sink(self.sinks[sink].name(), Ok(()));
                Ok(())
            }
            Some(Event::Table(notice)) => {
                if let Notice::Refused { text, .. } = &notice {
                    self.refused = Some(text.clone());
                }
                // Nobody listens when the copying has failed; its error ends the run.
                let _ = self.notices.send(notice);
                Ok(())
            }
            Some(Event::Failed(text)) => Err(text),
            Some(Event::Drained) => Ok(()),
            None => Err("the pipeline's thread ended; this is a bug, and the log above says more".into()),
        }
    }
}

/// How long the next look at a source that is busy is away at most: a process that stands by takes over within seconds.
const BUSY_PAUSE_MAX: Duration = Duration::from_secs(1);

/// Takes the slot's lease and prepares the source. Waits while that is only a question of time: another process that
/// has the slot, a walsender that a killed one left behind, a server that is starting. Anything else is an error at once.
async fn prepare(
    source: &Source,
    config: &Config,
    ready: &ReadyState,
    logger: &Logger,
) -> Result<(Keeping, Prepared), String> {
    let mut backoff = backoff(config);
    let mut lease = None;
    let mut said = String::new();
    loop {
        let had_lease = lease.is_some();
        let error = match try_prepare(source, config, &mut lease, logger).await {
            Ok(prepared) => return Ok(prepared),
            Err(Unprepared::Source(error)) if error.is_busy() => error.to_string(),
            Err(Unprepared::Source(error)) => return Err(format!("source: {error}")),
            Err(Unprepared::Sink(text)) => return Err(text),
        };
        // What is left then is over soon: a walsender that is to end.
        if !had_lease && lease.is_some() {
            backoff.reset();
        }
        let pause = backoff.pause().min(BUSY_PAUSE_MAX);
        // It may last for months: a standby says each reason once.
        if said != error {
            warn!(logger, "waiting for the source"; "reason" => &error, "pause_ms" => pause.as_millis() as u64);
        }
        ready.set_source(Err(error.clone()));
        said = error;
        tokio::time::sleep(pause).await;
    }
}

/// Why the source is not prepared.
enum Unprepared {
    Source(SourceError),
    /// A sink that is asked before a slot is made.
    Sink(String),
}

impl From<SourceError> for Unprepared {
    fn from(error: SourceError) -> Self {
        Self::Source(error)
    }
}

async fn try_prepare(
    source: &Source,
    config: &Config,
    lease: &mut Option<Keeping>,
    logger: &Logger,
) -> Result<(Keeping, Prepared), Unprepared> {
    // Kept from the first: making a slot can take minutes.
    let mut held = match lease.take().filter(|held| !held.task.is_finished()) {
        Some(held) => held,
        None => {
            let lease = source.lease().await?;
            Keeping { term: lease.term(), task: tokio::spawn(lease.keep()) }
        }
    };
    let term = held.term.clone();
    let prepared = async {
        let beginning = source.begin().await?;
        if beginning.makes_slot() {
            ask_before_making_slot(config, &beginning, &term, logger).await.map_err(Unprepared::Sink)?;
        }
        Ok(source.prepare_from(beginning).await?)
    };
    let prepared = tokio::select! {
        prepared = prepared => prepared,
        // Without it the term that is waited for never comes.
        lost = &mut held.task => {
            return Err(SourceError::busy(lost.map_or_else(|error| error.to_string(), |error| error.to_string())).into());
        }
    };
    match prepared {
        Ok(prepared) => Ok((held, prepared)),
        Err(error) => {
            *lease = Some(held);
            if let Unprepared::Source(error) = &error
                && error.is_busy()
            {
                source.end_stale_reader().await?;
            }
            Err(error)
        }
    }
}

/// Whether the sinks have nothing of an earlier slot. Asked before there is one: what a process leaves behind that dies at
/// any moment after that is a slot that nothing was missed of.
async fn ask_before_making_slot(
    config: &Config,
    beginning: &Beginning,
    term: &Term,
    logger: &Logger,
) -> Result<(), String> {
    let stream = StreamInfo {
        identity: beginning.identity.clone(),
        database: beginning.database().to_owned(),
        tables: Vec::new(),
    };
    for sink in sinks::open_all(&config.sinks, logger)? {
        term.hold().await;
        let prepared = sink.prepare(&stream).await;
        prepared.map_err(|error| format!("sink {}: {error}", sink.name()))?;
        verify_nothing_is_there(&*sink, &stream.identity.slot, async || reach(&*sink).await).await?;
    }
    Ok(())
}

fn backoff(config: &Config) -> Backoff {
    let (min, max) = backoff_range(config);
    Backoff::new(min, max)
}

fn backoff_range(config: &Config) -> (Duration, Duration) {
    (Duration::from_millis(config.retry.backoff_min_ms), Duration::from_millis(config.retry.backoff_max_ms))
}

/// Sinks that are ready.
struct Opened {
    lanes: Vec<SinkLanes>,
    setup: Setup,
    versions: Arc<Versions>,
    /// Those that have yet to note where the slot stands.
    unnoted: Vec<Arc<dyn Sink>>,
}

/// Prepares the sinks, opens their lanes, and reads what they know of copies.
async fn open_sinks(
    config: &Config,
    source: &Arc<Source>,
    sinks: &[Arc<dyn Sink>],
    prepared: &Prepared,
    relations: &[Arc<Relation>],
    logger: &Logger,
) -> Result<Opened, String> {
    let failed = |name: &str, error: replicator_sink::SinkError| format!("sink {name}: {error}");
    let tables_of = |sink: usize| {
        let taken = config.sinks.get(sink).map(|sink| &sink.tables);
        let wanted = move |table: &&Arc<Relation>| {
            taken.is_some_and(|taken| taken.matches(&table.schema, &table.name))
        };
        relations.iter().filter(wanted)
    };
    let stream = StreamInfo {
        identity: prepared.identity.clone(),
        database: prepared.database.clone(),
        tables: Vec::new(),
    };
    for sink in sinks {
        sink.prepare(&stream).await.map_err(|error| failed(sink.name(), error))?;
    }
    let names_of =
        |sink| tables_of(sink).map(|table| (table.oid, table.qualified_name())).collect::<Vec<_>>();
    let standing = Standing {
        slot: &prepared.identity.slot,
        confirmed: prepared.confirmed_flush,
        timelines: &prepared.timelines,
        may_copy: config.source.snapshot != SnapshotMode::Never,
    };
    let unnoted = verify_slot(sinks, &standing, names_of, logger).await?;
    let mut copy_sinks = Vec::new();
    for (number, (sink, sink_config)) in sinks.iter().zip(&config.sinks).enumerate() {
        let stream = StreamInfo { tables: tables_of(number).cloned().collect(), ..stream.clone() };
        // Before the tables are made, so that what is computed in them has its place there. If not, it comes later.
        let has_computed = |table: &&TableCatalog| {
            !table.generated.is_empty()
                && table.knows_generated()
                && sink_config.tables.matches(&table.schema, &table.name)
        };
        for table in prepared.tables.iter().filter(has_computed) {
            let _ = sink.follow_generated(table.oid, &table.generated, &table.dropped).await;
        }
        let made = prepare_tables(&**sink, &stream.tables, logger).await;
        made.map_err(|error| failed(sink.name(), error))?;
        copy_sinks.push(CopySink { sink: Arc::clone(sink), stream, tables: sink_config.tables.clone() });
    }
    let versions = Versions::load(sinks).await;
    let versions = Arc::new(versions.map_err(|error| error.to_string())?);
    let aparts = Arc::new(Aparts::load(sinks).await.map_err(|error| error.to_string())?);
    let mut opened = Vec::new();
    for (number, (of, sink_config)) in copy_sinks.iter().zip(&config.sinks).enumerate() {
        let CopySink { sink, stream, .. } = of;
        let failed = |error| failed(sink.name(), error);
        versions.keep_unknown(number, &stream.tables).await.map_err(failed)?;
        let mut lanes = Vec::new();
        for shard in 0..sink.shards() {
            let lane = sink.open_lane(shard, stream).await.map_err(failed)?;
            lanes.push(versions.lane(number, aparts.lane(number, lane)));
        }
        opened.push(SinkLanes {
            config: sink_config.clone(),
            key_changes: sink.key_changes(),
            takes_late_changes: sink.takes_late_changes(),
            messages: config.source.messages && sink.wants_messages(),
            lanes,
        });
    }
    let settings = replicator_copy::Settings {
        source: Arc::clone(source),
        sinks: copy_sinks,
        versions: Arc::clone(&versions),
        aparts,
        config: config.copy.clone(),
        snapshot: config.source.snapshot,
        catalog_interval: Some(Duration::from_millis(config.source.catalog_interval_ms))
            .filter(|interval| !interval.is_zero()),
        backoff: backoff_range(config),
        logger: logger.new(o!("part" => "copy")),
    };
    let setup = Setup::load(settings, &prepared.tables).await?;
    Ok(Opened { lanes: opened, setup, versions, unnoted })
}

/// Logical messages with this prefix are requests to the replicator that follows the slot.
pub(crate) fn request_prefix(slot: &str) -> String {
    format!("replicator/{slot}")
}

/// Writes something to the source's WAL now and then, so that the slot moves on while its own tables are idle.
async fn beat(source: Arc<Source>, interval: Duration, logger: Logger) {
    let mut interval = tokio::time::interval(interval);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        if let Err(error) = source.heartbeat().await {
            warn!(logger, "the heartbeat could not be written"; "error" => %error);
        }
    }
}
