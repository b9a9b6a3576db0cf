//! What the lake costs, as counters labelled with the sink's name.

use metrics::{Counter, Unit};
use replicator_lake::DeltaFile;

const PUTS_TOTAL: &str = "replicator_lake_puts_total";
const BYTES_TOTAL: &str = "replicator_lake_bytes_total";
const UNCOMPRESSED_BYTES_TOTAL: &str = "replicator_lake_uncompressed_bytes_total";
const ROWS_TOTAL: &str = "replicator_lake_rows_total";
const LEFT_OUT_TOTAL: &str = "replicator_lake_left_out_total";

/// The counters.
pub(crate) struct LakeMetrics {
    puts: Counter,
    bytes: Counter,
    uncompressed_bytes: Counter,
    rows: Counter,
    left_out: Counter,
}

impl LakeMetrics {
    pub(crate) fn new(sink: &str) -> Self {
        let counter = |name: &'static str, unit: Unit, about: &'static str| {
            metrics::describe_counter!(name, unit, about);
            metrics::counter!(name, "sink" => sink.to_owned())
        };
        Self {
            puts: counter(
                PUTS_TOTAL,
                Unit::Count,
                "Put requests sent to the lake's store, failed ones included.",
            ),
            bytes: counter(BYTES_TOTAL, Unit::Bytes, "Bytes of lake files made durable, as stored."),
            uncompressed_bytes: counter(
                UNCOMPRESSED_BYTES_TOTAL,
                Unit::Bytes,
                "Bytes of lake files made durable, before compression.",
            ),
            rows: counter(ROWS_TOTAL, Unit::Count, "Rows in lake files made durable."),
            left_out: counter(
                LEFT_OUT_TOTAL,
                Unit::Count,
                "Changes that the lake had already when they came, as after a restart.",
            ),
        }
    }

    pub(crate) fn count_put(&self) {
        self.puts.increment(1);
    }

    pub(crate) fn count_left_out(&self, changes: u64) {
        self.left_out.increment(changes);
    }

    pub(crate) fn count_durable(&self, file: &DeltaFile) {
        self.bytes.increment(file.body.len() as u64);
        self.uncompressed_bytes.increment(file.uncompressed_bytes);
        self.rows.increment(file.info.events);
    }
}
