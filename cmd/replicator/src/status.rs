//! What is looked at now and then while everything runs: the slot, and whether each sink answers.

use crate::forecast::Forecast;
use replicator_admin::ReadyState;
use replicator_sink::Sink;
use replicator_source::Source;
use replicator_telemetry::metrics::{SinkMetrics, SourceMetrics};
use replicator_types::Lsn;
use slog::{Logger, debug, warn};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::watch;

const INTERVAL: Duration = Duration::from_secs(2);

/// A ping that takes longer is no answer.
const PING_TIMEOUT: Duration = Duration::from_secs(5);

/// Whether a sink's lanes get their batches through, as they last said.
#[derive(Clone, Debug)]
pub(crate) struct LanesUp(Arc<AtomicBool>);

impl LanesUp {
    pub(crate) fn new() -> Self {
        Self(Arc::new(AtomicBool::new(true)))
    }

    pub(crate) fn set(&self, up: bool) {
        self.0.store(up, Ordering::Relaxed);
    }

    fn get(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Pings a sink for ever. While its lanes are down what they said stands, whatever a ping finds.
pub(crate) async fn watch_sink(sink: Arc<dyn Sink>, lanes: LanesUp, ready: ReadyState) {
    let metrics = SinkMetrics::new(sink.name());
    loop {
        let answer = match tokio::time::timeout(PING_TIMEOUT, sink.ping()).await {
            Ok(answer) => answer.map_err(|error| error.to_string()),
            Err(_) => Err(format!("no answer within {} s", PING_TIMEOUT.as_secs())),
        };
        if lanes.get() {
            metrics.up.set(if answer.is_ok() { 1.0 } else { 0.0 });
            ready.set_sink(sink.name(), answer);
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

/// Looks at the slot for ever. `unreserved` is told whether WAL that it needs may go with the next checkpoint.
pub(crate) async fn watch_slot(
    source: Arc<Source>,
    watermark: watch::Receiver<Lsn>,
    unreserved: watch::Sender<bool>,
    logger: Logger,
) {
    let metrics = SourceMetrics::new();
    metrics.slot_limit_seconds.set(f64::INFINITY);
    let mut forecast = Forecast::default();
    loop {
        tokio::time::sleep(INTERVAL).await;
        match source.slot_status().await {
            Ok(status) => {
                metrics.slot_retained_bytes.set(status.retained_bytes as f64);
                let is_lost = status.wal_status.as_deref() == Some("lost");
                let left = if is_lost { Some(0) } else { status.safe_wal_bytes };
                let limit = forecast.seconds(Instant::now(), status.retained_bytes, left);
                metrics.slot_limit_seconds.set(limit);
                metrics.slot_confirmed_flush_lsn.set(status.confirmed_flush.unwrap_or_default().0 as f64);
                let is_unreserved = status.wal_status.as_deref() == Some("unreserved");
                if !unreserved.send_replace(is_unreserved) && is_unreserved {
                    warn!(logger, "WAL that the slot needs is removed with the source's next checkpoint, and then the slot is \
                        lost: raise max_slot_wal_keep_size there, and see which sink holds it back";
                        "retained_bytes" => status.retained_bytes);
                }
                // The stream itself does not tell where the server's WAL ends.
                let durable = *watermark.borrow();
                metrics.lag_bytes.set(status.wal_end.bytes_since(durable) as f64);
            }
            // The stream's own end says it louder.
            Err(error) => debug!(logger, "the slot could not be looked at"; "error" => %error),
        }
    }
}
