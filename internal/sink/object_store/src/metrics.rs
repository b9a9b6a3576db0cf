//! What the archive costs, as counters labelled with the sink's name.

use crate::file::NewFile;
use metrics::{Counter, Unit};

const PUTS_TOTAL: &str = "replicator_archive_puts_total";
const BYTES_TOTAL: &str = "replicator_archive_bytes_total";
const UNCOMPRESSED_BYTES_TOTAL: &str = "replicator_archive_uncompressed_bytes_total";
const EVENTS_TOTAL: &str = "replicator_archive_events_total";

/// The counters.
pub(crate) struct ArchiveMetrics {
    puts: Counter,
    bytes: Counter,
    uncompressed_bytes: Counter,
    events: Counter,
}

impl ArchiveMetrics {
    pub(crate) fn new(sink: &str) -> Self {
        metrics::describe_counter!(
            PUTS_TOTAL,
            Unit::Count,
            "Put requests sent to the archive's store, failed ones included."
        );
        metrics::describe_counter!(
            BYTES_TOTAL,
            Unit::Bytes,
            "Bytes of archive files made durable, as stored."
        );
        metrics::describe_counter!(
            UNCOMPRESSED_BYTES_TOTAL,
            Unit::Bytes,
            "Bytes of archive files made durable, before compression."
        );
        metrics::describe_counter!(EVENTS_TOTAL, Unit::Count, "Events in archive files made durable.");
        let counter = |name: &'static str| metrics::counter!(name, "sink" => sink.to_owned());
        Self {
            puts: counter(PUTS_TOTAL),
            bytes: counter(BYTES_TOTAL),
            uncompressed_bytes: counter(UNCOMPRESSED_BYTES_TOTAL),
            events: counter(EVENTS_TOTAL),
        }
    }

    pub(crate) fn count_put(&self) {
        self.puts.increment(1);
    }

    pub(crate) fn count_durable(&self, file: &NewFile) {
        self.bytes.increment(file.body.len() as u64);
        self.uncompressed_bytes.increment(file.uncompressed_bytes);
        self.events.increment(file.events);
    }
}
