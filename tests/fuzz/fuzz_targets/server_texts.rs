//! Texts that servers answer: histories of timelines, defaults of columns, ClickHouse's types, comments and errors.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    replicator_source::fuzzing::texts(text);
    replicator_sink_clickhouse::fuzzing::texts(text);
});
