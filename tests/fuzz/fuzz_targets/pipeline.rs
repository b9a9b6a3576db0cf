//! A whole stream through the pipeline: whatever comes, it is an error or changes in order, and nothing is acknowledged that
//! was not reported durable.
//!
//! Input: whether streaming is parallel; then messages, each with a byte in front that says what happens before it.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use replicator_pipeline::{BatchLimits, Output, Pipeline, Route};
use replicator_sink::KeyChanges;
use replicator_types::{Budget, Lsn, TxnId};
use std::time::{Duration, Instant};

fn route(name: &str, shards: u32, key_changes: KeyChanges) -> Route {
    let limits = BatchLimits { rows_max: 4, bytes_max: 1 << 10, interval: Duration::from_secs(1) };
    let messages = key_changes == KeyChanges::Whole;
    let takes_late_changes = name == "history";
    Route { name: name.into(), tables: Default::default(), shards, limits, key_changes, takes_late_changes, messages }
}

fuzz_target!(|input: (bool, Vec<(u8, Vec<u8>)>)| {
    let (parallel, messages) = input;
    let routes = vec![route("state", 3, KeyChanges::Split), route("log", 1, KeyChanges::Whole)];
    let mut pipeline = Pipeline::new(routes, Lsn(0), &Budget::new(1 << 20))
        .with_standings([], messages.len() % 2 == 0)
        .with_parallel_streaming(parallel);
    let now = Instant::now();
    let mut watermark = Lsn(0);
    let mut outstanding: Vec<Vec<TxnId>> = Vec::new();
    for (before, message) in messages {
        match before {
            0 => pipeline.reconnected(),
            1 => pipeline.flush(),
            2 => pipeline.release(u32::from(message.len() as u8)),
            3 => pipeline.hold(u32::from(message.len() as u8), now),
            4 => outstanding.drain(..).for_each(|transactions| pipeline.durable(transactions)),
            _ => {}
        }
        let mut frame = vec![b'd'];
        let body_bytes = if before == 5 { message.len() } else { message.len() + 25 };
        frame.extend_from_slice(&(body_bytes as u32 + 4).to_be_bytes());
        if before != 5 {
            frame.push(b'w');
            frame.extend_from_slice(&[0; 24]);
        }
        frame.extend_from_slice(&message);
        if pipeline.chunk(Bytes::from(frame), Vec::new(), now).is_err() {
            return;
        }
        while pipeline.is_busy() {
            if pipeline.work(now).is_err() {
                return;
            }
        }
        if pipeline.release_some(now).is_err() {
            return;
        }
        for output in pipeline.take_outputs() {
            let (Output::Batch(_, batch) | Output::Fence(_, batch)) = output;
            // Reading it walks all of it.
            batch.changes().for_each(|change| drop(change.new_values().count()));
            outstanding.push(batch.transactions().iter().map(|transaction| transaction.id).collect());
        }
        assert!(pipeline.watermark() >= watermark);
        watermark = pipeline.watermark();
        pipeline.take_notices();
    }
});
