use super::names::*;
use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};

/// What the replication connection counts.
#[derive(Clone)]
pub struct SourceMetrics {
    /// [`SOURCE_CONNECTED`]
    pub connected: Gauge,
    /// [`SOURCE_RECONNECTS_TOTAL`]
    pub reconnects: Counter,
    /// [`RECEIVED_BYTES_TOTAL`]
    pub received_bytes: Counter,
    /// [`RECEIVED_LSN`]
    pub received_lsn: Gauge,
    /// [`ACKNOWLEDGED_LSN`]
    pub acknowledged_lsn: Gauge,
    /// [`SLOT_RETAINED_BYTES`]
    pub slot_retained_bytes: Gauge,
    /// [`SLOT_LIMIT_SECONDS`]
    pub slot_limit_seconds: Gauge,
    /// [`SLOT_CONFIRMED_FLUSH_LSN`]
    pub slot_confirmed_flush_lsn: Gauge,
    /// [`LAG_BYTES`]
    pub lag_bytes: Gauge,
    /// [`LAG_SECONDS`]
    pub lag_seconds: Gauge,
}

impl SourceMetrics {
    /// Handles to the installed recorder.
    pub fn new() -> Self {
        Self {
            connected: gauge!(SOURCE_CONNECTED),
            reconnects: counter!(SOURCE_RECONNECTS_TOTAL),
            received_bytes: counter!(RECEIVED_BYTES_TOTAL),
            received_lsn: gauge!(RECEIVED_LSN),
            acknowledged_lsn: gauge!(ACKNOWLEDGED_LSN),
            slot_retained_bytes: gauge!(SLOT_RETAINED_BYTES),
            slot_limit_seconds: gauge!(SLOT_LIMIT_SECONDS),
            slot_confirmed_flush_lsn: gauge!(SLOT_CONFIRMED_FLUSH_LSN),
            lag_bytes: gauge!(LAG_BYTES),
            lag_seconds: gauge!(LAG_SECONDS),
        }
    }
}

impl Default for SourceMetrics {
    fn default() -> Self {
        Self::new()
    }
}

/// What the stages between source and sinks count.
#[derive(Clone)]
pub struct PipelineMetrics {
    /// [`EVENTS_PROCESSED_TOTAL`] of inserts.
    pub inserts: Counter,
    /// [`EVENTS_PROCESSED_TOTAL`] of updates.
    pub updates: Counter,
    /// [`EVENTS_PROCESSED_TOTAL`] of deletes.
    pub deletes: Counter,
    /// [`EVENTS_PROCESSED_TOTAL`] of truncates, one a table.
    pub truncates: Counter,
    /// [`TRANSACTIONS_TOTAL`]
    pub transactions: Counter,
    /// [`TRANSACTIONS_OPEN`]
    pub transactions_open: Gauge,
    /// [`CHECKPOINT_LSN`]
    pub checkpoint_lsn: Gauge,
    /// [`BUFFER_BYTES`]
    pub buffer_bytes: Gauge,
    /// [`BUFFER_BYTES_MAX`]
    pub buffer_bytes_max: Gauge,
    /// [`BUFFER_BYTES_PEAK`]
    pub buffer_bytes_peak: Gauge,
    /// [`WAITING_BYTES`] in memory.
    pub waiting_memory_bytes: Gauge,
    /// [`WAITING_BYTES`] in files.
    pub waiting_file_bytes: Gauge,
    /// [`TRANSACTIONS_UNFINISHED`]
    pub transactions_unfinished: Gauge,
}

impl PipelineMetrics {
    /// Handles to the installed recorder.
    pub fn new() -> Self {
        Self {
            inserts: counter!(EVENTS_PROCESSED_TOTAL, "op" => "insert"),
            updates: counter!(EVENTS_PROCESSED_TOTAL, "op" => "update"),
            deletes: counter!(EVENTS_PROCESSED_TOTAL, "op" => "delete"),
            truncates: counter!(EVENTS_PROCESSED_TOTAL, "op" => "truncate"),
            transactions: counter!(TRANSACTIONS_TOTAL),
            transactions_open: gauge!(TRANSACTIONS_OPEN),
            checkpoint_lsn: gauge!(CHECKPOINT_LSN),
            buffer_bytes: gauge!(BUFFER_BYTES),
            buffer_bytes_max: gauge!(BUFFER_BYTES_MAX),
            buffer_bytes_peak: gauge!(BUFFER_BYTES_PEAK),
            waiting_memory_bytes: gauge!(WAITING_BYTES, "place" => "memory"),
            waiting_file_bytes: gauge!(WAITING_BYTES, "place" => "file"),
            transactions_unfinished: gauge!(TRANSACTIONS_UNFINISHED),
        }
    }
}

impl Default for PipelineMetrics {
    fn default() -> Self {
        Self::new()
    }
}

/// What copies count.
#[derive(Clone)]
pub struct CopyMetrics {
    /// [`COPY_TABLES_LEFT`]
    pub tables_left: Gauge,
    /// [`COPY_DONE_RATIO`]
    pub done_ratio: Gauge,
    /// [`COPY_ETA_SECONDS`]
    pub eta_seconds: Gauge,
    /// [`TABLES_ALTERING`]
    pub tables_altering: Gauge,
    /// [`TABLES_ASIDE`]
    pub tables_aside: Gauge,
}

impl CopyMetrics {
    /// Handles to the installed recorder.
    pub fn new() -> Self {
        Self {
            tables_left: gauge!(COPY_TABLES_LEFT),
            done_ratio: gauge!(COPY_DONE_RATIO),
            eta_seconds: gauge!(COPY_ETA_SECONDS),
            tables_altering: gauge!(TABLES_ALTERING),
            tables_aside: gauge!(TABLES_ASIDE),
        }
    }

    /// [`COPY_ROWS_TOTAL`] and [`COPY_BYTES_TOTAL`] of a table.
    pub fn of_table(&self, table: &str) -> (Counter, Counter) {
        let table = table.to_owned();
        (counter!(COPY_ROWS_TOTAL, "table" => table.clone()), counter!(COPY_BYTES_TOTAL, "table" => table))
    }

    /// [`COPY_FAILURES_TOTAL`] of a table.
    pub fn failures(&self, table: &str) -> Counter {
        counter!(COPY_FAILURES_TOTAL, "table" => table.to_owned())
    }
}

impl Default for CopyMetrics {
    fn default() -> Self {
        Self::new()
    }
}

/// The value of [`SINK_ERRORS_TOTAL`]'s label `kind`: what is to be done about a sink's failure.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Failure {
    /// It may pass.
    Retry,
    /// A person is needed.
    Halt,
    /// The data will never be taken.
    Reject,
}

/// What one sink counts.
#[derive(Clone)]
pub struct SinkMetrics {
    /// [`SINK_EVENTS_TOTAL`]
    pub events: Counter,
    /// [`BATCH_SIZE`]
    pub batch_size: Histogram,
    /// [`BATCH_BYTES`]
    pub batch_bytes: Histogram,
    /// [`SINK_LATENCY_SECONDS`]
    pub latency_seconds: Histogram,
    /// [`COMMIT_TO_DURABLE_SECONDS`]
    pub commit_to_durable_seconds: Histogram,
    /// [`BATCHES_IN_FLIGHT`]
    pub batches_in_flight: Gauge,
    /// [`FENCES_TOTAL`]
    pub fences: Counter,
    /// [`SINK_UP`]
    pub up: Gauge,
    /// [`RETRIES_TOTAL`]
    pub retries: Counter,
    failures_retry: Counter,
    failures_halt: Counter,
    failures_reject: Counter,
}

impl SinkMetrics {
    /// Handles of the sink of that configured name.
    pub fn new(sink: &str) -> Self {
        let failures =
            |kind: &'static str| counter!(SINK_ERRORS_TOTAL, "sink" => sink.to_owned(), "kind" => kind);
        Self {
            events: counter!(SINK_EVENTS_TOTAL, "sink" => sink.to_owned()),
            batch_size: histogram!(BATCH_SIZE, "sink" => sink.to_owned()),
            batch_bytes: histogram!(BATCH_BYTES, "sink" => sink.to_owned()),
            latency_seconds: histogram!(SINK_LATENCY_SECONDS, "sink" => sink.to_owned()),
            commit_to_durable_seconds: histogram!(COMMIT_TO_DURABLE_SECONDS, "sink" => sink.to_owned()),
            batches_in_flight: gauge!(BATCHES_IN_FLIGHT, "sink" => sink.to_owned()),
            fences: counter!(FENCES_TOTAL, "sink" => sink.to_owned()),
            up: gauge!(SINK_UP, "sink" => sink.to_owned()),
            retries: counter!(RETRIES_TOTAL, "sink" => sink.to_owned()),
            failures_retry: failures("retry"),
            failures_halt: failures("halt"),
            failures_reject: failures("reject"),
        }
    }

    /// [`SINK_ERRORS_TOTAL`] of that kind.
    pub fn failures(&self, kind: Failure) -> &Counter {
        match kind {
            Failure::Retry => &self.failures_retry,
            Failure::Halt => &self.failures_halt,
            Failure::Reject => &self.failures_reject,
        }
    }
}
