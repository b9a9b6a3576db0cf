//! What the process tells of itself: log lines and metrics.
//!
//! ```text
//!   Logger ──records──▶ slog-async ──one writer thread──▶ stderr (JSON lines, or text on a terminal)
//!
//!   SourceMetrics, PipelineMetrics, SinkMetrics ──▶ recorder ──render──▶ /metrics
//! ```
//!
//! # Invariants
//! - No log line is lost while its [`LogGuard`] lives: when the queue is full the caller waits.
//! - Metric names and labels are constants of [`metrics`]; nothing else makes one up.
//! - Neither logs nor labels are given secrets: URLs go through `replicator_config::redact_url` first.

mod logger;
pub mod metrics;
mod process;
mod timestamp;

pub use logger::{LogGuard, logger};
pub use metrics_exporter_prometheus::PrometheusHandle;
pub use process::refresh_process;
pub use timestamp::rfc3339_micros;
