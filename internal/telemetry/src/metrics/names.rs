//! Every metric of the process, once: constant, name, kind, unit and description.

use metrics::Unit;

/// What sort of metric.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MetricKind {
    /// Only goes up.
    Counter,
    /// Goes up and down.
    Gauge,
    /// A distribution, in buckets.
    Histogram,
}

/// A metric's entry in [`METRICS`].
#[derive(Clone, Debug)]
pub struct Metric {
    /// Full name.
    pub name: &'static str,
    /// Kind.
    pub kind: MetricKind,
    /// Unit of its values.
    pub unit: Unit,
    /// Description, for `# HELP`.
    pub help: &'static str,
    /// Its labels' names.
    pub labels: &'static [&'static str],
}

macro_rules! metrics {
    ($($kind:ident $unit:ident $constant:ident = $name:literal $([$($label:literal),+])?: $help:literal;)*) => {
        $(#[doc = $help] pub const $constant: &str = $name;)*

        /// All metrics, in the order of the change's way.
        pub const METRICS: &[Metric] = &[$(Metric {
            name: $name,
            kind: MetricKind::$kind,
            unit: Unit::$unit,
            help: $help,
            labels: &[$($($label),+)?],
        }),*];
    };
}

metrics! {
    Gauge Count BUILD_INFO = "replicator_build_info" ["version"]: "Always 1; the label has the version.";

    Gauge Count SOURCE_CONNECTED = "replicator_source_connected": "1 while the replication stream is open, else 0.";
    Counter Count SOURCE_RECONNECTS_TOTAL = "replicator_source_reconnects_total": "Times the replication stream was opened again after it broke.";
    Counter Bytes RECEIVED_BYTES_TOTAL = "replicator_received_bytes_total": "Bytes read from the replication stream.";
    Gauge Bytes LAG_BYTES = "replicator_lag_bytes": "WAL between the server's current position and the checkpoint: written there, not yet durable in every sink.";
    Gauge Seconds LAG_SECONDS = "replicator_lag_seconds": "Age of the oldest commit received and not yet acknowledged; 0 when there is none.";
    Gauge Seconds SLOT_LIMIT_SECONDS = "replicator_slot_limit_seconds": "When the slot is lost (max_slot_wal_keep_size) if WAL is kept for it at the pace of the last two minutes; infinite while no more is kept, and without that setting.";
    Gauge Bytes SLOT_RETAINED_BYTES = "replicator_slot_retained_bytes": "WAL that the server keeps for the slot, from restart_lsn to its current position.";
    Gauge Bytes SLOT_CONFIRMED_FLUSH_LSN = "replicator_slot_confirmed_flush_lsn": "The slot's confirmed_flush_lsn, as the server has it.";
    Gauge Bytes RECEIVED_LSN = "replicator_received_lsn": "End of the WAL received.";
    Gauge Bytes CHECKPOINT_LSN = "replicator_checkpoint_lsn": "The watermark: everything before it is durable in every sink.";
    Gauge Bytes ACKNOWLEDGED_LSN = "replicator_acknowledged_lsn": "What was last acknowledged to the source as flushed; never above the checkpoint.";

    Counter Count EVENTS_PROCESSED_TOTAL = "replicator_events_processed_total" ["op"]: "Changes decoded and dispatched, each once however many sinks it goes to.";
    Counter Count TRANSACTIONS_TOTAL = "replicator_transactions_total": "Transactions decoded to their commit.";
    Gauge Count TRANSACTIONS_OPEN = "replicator_transactions_open": "Transactions that the checkpoint waits for.";
    Gauge Bytes BUFFER_BYTES = "replicator_buffer_bytes": "Memory held by changes, all stages together.";
    Gauge Bytes BUFFER_BYTES_MAX = "replicator_buffer_bytes_max": "The setting buffer.bytes_max: at this fill the source is not read.";
    Gauge Bytes BUFFER_BYTES_PEAK = "replicator_buffer_bytes_peak": "Highest fill since the process began.";
    Gauge Bytes WAITING_BYTES = "replicator_waiting_bytes" ["place"]: "Changes that wait for the copy of their table or the end of their transaction, in memory or in files.";
    Gauge Count TRANSACTIONS_UNFINISHED = "replicator_transactions_unfinished": "Transactions received in part or prepared, that have not committed.";

    Gauge Count COPY_TABLES_LEFT = "replicator_copy_tables_left": "Tables to be copied whose copy is not durable yet.";
    Counter Count COPY_ROWS_TOTAL = "replicator_copy_rows_total" ["table"]: "Rows read by copies.";
    Counter Bytes COPY_BYTES_TOTAL = "replicator_copy_bytes_total" ["table"]: "Bytes of row data read by copies.";
    Gauge Count COPY_DONE_RATIO = "replicator_copy_done_ratio": "How much of the copy under way is durable, by blocks of the source's tables, 0 to 1; 1 when there is none.";
    Gauge Seconds COPY_ETA_SECONDS = "replicator_copy_eta_seconds": "When the copy under way will be done at its speed so far; NaN until it has one, 0 when no copy is under way.";
    Gauge Count TABLES_ALTERING = "replicator_tables_altering": "Tables whose changes wait for a sink to follow a change of their schema.";
    Gauge Count TABLES_ASIDE = "replicator_tables_set_aside": "Tables of which a sink refused a change, and which that sink gets nothing of until they are copied anew.";
    Counter Count COPY_FAILURES_TOTAL = "replicator_copy_failures_total" ["table"]: "Copies of a table that failed and are tried again later.";

    Counter Count SINK_EVENTS_TOTAL = "replicator_sink_events_total" ["sink"]: "Changes made durable in the sink.";
    Histogram Count BATCH_SIZE = "replicator_batch_size" ["sink"]: "Changes in a batch.";
    Histogram Bytes BATCH_BYTES = "replicator_batch_bytes" ["sink"]: "Bytes of row data in a batch.";
    Histogram Seconds SINK_LATENCY_SECONDS = "replicator_sink_latency_seconds" ["sink"]: "From the cut of a batch until it is durable in the sink, retries included; of copied rows that go together, from the first of their batches.";
    Histogram Seconds COMMIT_TO_DURABLE_SECONDS = "replicator_commit_to_durable_seconds" ["sink"]: "From the source's commit of a batch's oldest change until the batch is durable in the sink, by both clocks.";
    Gauge Count BATCHES_IN_FLIGHT = "replicator_batches_in_flight" ["sink"]: "Writes sent and not yet durable, each of a batch, or of several of copied rows.";
    Counter Count FENCES_TOTAL = "replicator_fences_total" ["sink"]: "Times the sink was drained around a truncate, a schema change or an unresolved key change.";
    Gauge Count SINK_UP = "replicator_sink_up" ["sink"]: "1 when the sink's last answer was a success, else 0.";
    Counter Count SINK_ERRORS_TOTAL = "replicator_sink_errors_total" ["sink", "kind"]: "Failures of the sink: retry (may pass), halt (a person is needed), reject (the data).";
    Counter Count RETRIES_TOTAL = "replicator_retries_total" ["sink"]: "Attempts after the first.";

    Gauge Bytes PROCESS_RESIDENT_MEMORY_BYTES = "process_resident_memory_bytes": "Resident memory of the process.";
    Gauge Seconds PROCESS_CPU_SECONDS_TOTAL = "process_cpu_seconds_total": "User and system CPU time of the process.";
}
