//! Follows the source: reads its stream into the pipeline, and connects again whenever it breaks.
//!
//! ```text
//!   prepare ─▶ stream ─▶ chunk, chunk, … ─▶ pipeline
//!      ▲          │ broken
//!      └─ pause ◀─┘          (the pipeline is told, and passes over what it has already)
//! ```

use crate::acknowledged::{Hurry, Timeline};
use crate::fence::claim;
use crossbeam_channel::Sender;
use replicator_admin::ReadyState;
use replicator_pgconn::ErrorKind;
use replicator_pipeline::{Backoff, Input};
use replicator_sink::Sink;
use replicator_source::{Feedback, FeedbackHandle, Prepared, Reader, Source, SourceError, Term};
use replicator_telemetry::metrics::SourceMetrics;
use replicator_types::{Budget, Lsn};
use slog::{Logger, info, warn};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// How often the server is asked where it is while `--endpos` waits for it: an idle server says so by itself
/// only now and then.
const ENDPOS_POLL: Duration = Duration::from_millis(50);

/// A stream that nothing was read of for this long, while the server is about to give its slot up, is closed. A server
/// that ends the walsender for that waits until it is gone, in the middle of a checkpoint, and the walsender waits until
/// what it has sent is read: with the buffer full, neither would ever end.
const UNREAD_MAX: Duration = Duration::from_secs(5);

/// How often that is looked at.
const UNREAD_POLL: Duration = Duration::from_secs(1);

/// A stream that lasted this long was a good one: the next pause is a short one.
const GOOD_STREAM: Duration = Duration::from_secs(30);

pub(crate) struct Follower {
    pub(crate) source: Arc<Source>,
    /// What the run began with.
    pub(crate) prepared: Prepared,
    pub(crate) budget: Budget,
    pub(crate) pipeline: Sender<Input>,
    pub(crate) watermark: watch::Receiver<Lsn>,
    /// What of it the server may be told.
    pub(crate) acknowledged: watch::Receiver<Lsn>,
    /// Told when the server waits for that.
    pub(crate) hurry: Hurry,
    /// Whose positions are acknowledged.
    pub(crate) timeline: Timeline,
    pub(crate) ready: ReadyState,
    pub(crate) backoff: Backoff,
    /// They are claimed anew when the source has another timeline.
    pub(crate) sinks: Vec<Arc<dyn Sink>>,
    /// The run's name.
    pub(crate) run: String,
    /// The right to write that the stream needs.
    pub(crate) term: Term,
    /// Whether the server is about to give the slot up.
    pub(crate) unreserved: watch::Receiver<bool>,
    /// Whether the server is to be asked where it is.
    pub(crate) poll: bool,
    /// Turns true when no more is to be read.
    pub(crate) stop: watch::Receiver<bool>,
    pub(crate) metrics: SourceMetrics,
    pub(crate) logger: Logger,
}

/// A stream that is no longer read and still acknowledged.
pub(crate) struct Connection {
    reader: Reader,
    feedback: JoinHandle<Result<(), SourceError>>,
    handle: FeedbackHandle,
}

impl Connection {
    fn open(reader: Reader, feedback: Feedback, acknowledged: watch::Receiver<Lsn>) -> Self {
        let handle = feedback.handle();
        Self { reader, feedback: tokio::spawn(feedback.run(acknowledged)), handle }
    }

    /// Acknowledges what may be by now, and says goodbye.
    pub(crate) async fn finish(mut self) -> Result<(), SourceError> {
        self.handle.finish();
        let (said, ()) = tokio::join!(&mut self.feedback, self.reader.finish());
        said.unwrap_or_else(|error| Err(SourceError::retry(format!("the feedback task ended: {error}"))))
    }
}

impl Follower {
    /// Follows until told to stop, and gives the connection back to be acknowledged on; none if it was broken
    /// at that moment.
    ///
    /// # Errors
    /// The source needs a person.
    pub(crate) async fn run(mut self) -> Result<Option<Connection>, SourceError> {
        let mut first = true;
        loop {
            let begun = Instant::now();
            let error = match self.stream(first).await {
                Ok(connection) => return Ok(connection),
                Err(error) => error,
            };
            self.metrics.connected.set(0.0);
            self.ready.set_source(Err(error.to_string()));
            if error.kind() == ErrorKind::Halt {
                return Err(error);
            }
            if begun.elapsed() >= GOOD_STREAM {
                self.backoff.reset();
            }
            let pause = self.backoff.pause();
            warn!(self.logger, "source failed, connecting again";
                "error" => %error, "pause_ms" => pause.as_millis() as u64);
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = stopped(&mut self.stop) => return Ok(None),
            }
            first = false;
            self.metrics.reconnects.increment(1);
        }
    }

    async fn open(&mut self, first: bool) -> Result<(Lsn, Reader, Feedback), SourceError> {
        let from = *self.watermark.borrow();
        if !first {
            let now = match self.source.prepare_again(&self.prepared, from).await {
                Ok(now) => now,
                Err(error) => {
                    // Only with the lease in hand, which is not waited for here.
                    let has_lease = tokio::time::timeout(Duration::ZERO, self.term.hold()).await.is_ok();
                    if error.is_busy() && has_lease {
                        self.source.end_stale_reader().await?;
                    }
                    return Err(error);
                }
            };
            self.term.hold().await;
            self.follow_to(now).await?;
        }
        let (reader, feedback) = self.source.stream(from, self.budget.clone()).await?;
        Ok((from, reader, feedback))
    }

    /// Goes on with a server that has all that was read so far, on whatever timeline: the sinks are told which it is
    /// before anything of it comes to them.
    async fn follow_to(&mut self, now: Prepared) -> Result<(), SourceError> {
        let timeline = now.timelines.current();
        if timeline != self.prepared.timelines.current() {
            for sink in &self.sinks {
                let claimed = sink.claim(&claim(&self.run, timeline)).await;
                claimed.map_err(|error| SourceError::retry(format!("sink {}: {error}", sink.name())))?;
            }
            self.timeline.store(timeline, Ordering::Relaxed);
            info!(self.logger, "the source is a promoted standby, and has all that was read so far"; "timeline" => timeline);
        }
        self.prepared.timelines = now.timelines;
        Ok(())
    }

    /// One stream from its beginning to its end.
    async fn stream(&mut self, first: bool) -> Result<Option<Connection>, SourceError> {
        let mut stop = self.stop.clone();
        let opened = tokio::select! {
            opened = self.open(first) => opened?,
            () = stopped(&mut stop) => return Ok(None),
        };
        let (from, reader, feedback) = opened;
        if !first {
            let _ = self.pipeline.send(Input::Reconnected);
            info!(self.logger, "source connected again"; "from" => %from);
        }
        self.metrics.connected.set(1.0);
        self.ready.set_source(Ok(()));
        let mut connection =
            Connection::open(reader, feedback.on_reply(Arc::clone(&self.hurry)), self.acknowledged.clone());
        let mut poll = tokio::time::interval(ENDPOS_POLL);
        let mut unread = tokio::time::interval(UNREAD_POLL);
        let mut read_at = Instant::now();
        loop {
            tokio::select! {
                chunk = connection.reader.next_chunk() => {
                    let chunk = chunk?;
                    read_at = Instant::now();
                    let input = Input::Chunk { bytes: chunk.bytes, catalogs: chunk.catalogs, charge: chunk.charge };
                    // A pipeline that is gone has said why; its end ends the run.
                    let _ = self.pipeline.send(input);
                }
                ended = &mut connection.feedback => {
                    return Err(match ended {
                        Ok(Err(error)) => error,
                        Ok(Ok(())) => SourceError::retry("the acknowledging half of the stream has ended"),
                        Err(error) => SourceError::retry(format!("the feedback task ended: {error}")),
                    });
                }
                _ = unread.tick() => {
                    if *self.unreserved.borrow() && read_at.elapsed() >= UNREAD_MAX {
                        return Err(SourceError::retry(
                            "the source is about to give the slot up, and the stream cannot be read on, since the buffer \
                             is full",
                        ));
                    }
                }
                _ = poll.tick(), if self.poll => connection.handle.request_reply(),
                () = stopped(&mut self.stop) => return Ok(Some(connection)),
            }
        }
    }
}

/// Waits until the switch is true; a switch whose holder is gone counts as true.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}
