//! Lanes for copied rows, beside the stream's: the same threads, the same retries, another way to report.

use crate::dispatcher::LaneId;
use crate::worker::{LaneContext, LaneReport, Workers};
use crossbeam_channel::unbounded;
use replicator_sink::Lane;
use replicator_telemetry::metrics::SinkMetrics;
use replicator_types::{Batch, TxnId};
use slog::{Logger, o};
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::mpsc;

/// What becomes of batches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CopyReport {
    /// A batch under that id is durable in one sink.
    Durable(TxnId),
    /// A lane has stopped; a person is needed. The text says whose.
    Failed {
        /// Number of the sink.
        sink: usize,
        /// What is the matter, and with which sink.
        text: String,
        /// The table that it is the matter with, if it is one alone.
        table: Option<u32>,
    },
}

/// The lanes of one copy: for each worker one of each sink. They end when this is dropped and what they had is
/// durable.
#[derive(Debug)]
pub struct CopyLanes {
    /// By worker, then by sink.
    lanes: Vec<Vec<Workers>>,
}

impl CopyLanes {
    /// Starts a thread a lane. `lanes` are by worker, then by sink, with the sink's name. A write that is not full waits so
    /// long for those behind it, or until it has room.
    ///
    /// # Errors
    /// When the operating system gives no thread.
    pub fn start(
        lanes: Vec<Vec<(String, Box<dyn Lane>)>>,
        backoff: (Duration, Duration),
        gather_pause: Duration,
        logger: &Logger,
    ) -> std::io::Result<(Self, mpsc::UnboundedReceiver<CopyReport>)> {
        let (reports_out, reports) = unbounded();
        let (copy_reports_out, copy_reports) = mpsc::unbounded_channel();
        let mut started = Vec::new();
        let mut names: Vec<String> = Vec::new();
        for (number, lanes) in lanes.into_iter().enumerate() {
            let mut of_worker = Vec::new();
            names = lanes.iter().map(|(name, _)| name.clone()).collect();
            for (sink, (name, lane)) in lanes.into_iter().enumerate() {
                let context = LaneContext {
                    id: LaneId { sink, shard: number as u32 },
                    runtime: Handle::current(),
                    reports: reports_out.clone(),
                    backoff,
                    gather_pause,
                    metrics: SinkMetrics::new(&name),
                    logger: logger.new(o!("sink" => name.clone(), "copy" => number)),
                };
                of_worker.push(Workers::start(vec![(context, format!("{name}-copy-{number}"), lane)])?);
            }
            started.push(of_worker);
        }
        drop(reports_out);
        std::thread::Builder::new().name("copy-reports".into()).spawn(move || {
            for report in reports {
                let told = match report {
                    LaneReport::Durable { transactions, .. } => transactions
                        .into_iter()
                        .try_for_each(|id| copy_reports_out.send(CopyReport::Durable(id))),
                    LaneReport::Failed { lane, text, table } => {
                        let name = names.get(lane.sink).map_or("?", String::as_str);
                        copy_reports_out.send(CopyReport::Failed {
                            sink: lane.sink,
                            text: format!("sink {name}: {text}"),
                            table,
                        })
                    }
                    // The lane has logged it, and tries again.
                    LaneReport::Up(_) | LaneReport::Down { .. } => Ok(()),
                };
                if told.is_err() {
                    return;
                }
            }
        })?;
        Ok((Self { lanes: started }, copy_reports))
    }

    /// Hands a batch to the worker's lanes of these sinks.
    pub fn send(&self, worker: usize, sinks: &[usize], batch: Batch) {
        let batch = Arc::new(batch);
        for &sink in sinks {
            if let Some(lane) = self.lanes.get(worker).and_then(|lanes| lanes.get(sink)) {
                lane.push_batch(0, Arc::clone(&batch));
            }
        }
    }

    /// Says that the worker has nothing to send soon: what waits in its lanes for more goes without.
    pub fn hurry(&self, worker: usize) {
        for lane in self.lanes.get(worker).into_iter().flatten() {
            lane.hurry(0);
        }
    }
}
