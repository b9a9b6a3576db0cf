//! What the pipeline's thread allocates does not grow with the rows, but for buffers that become twice as large now and then.

use allocation_counter::measure;
use bytes::Bytes;
use replicator_model::wire::{Text, Wire};
use replicator_pipeline::{BatchLimits, Pipeline, Route};
use replicator_sink::KeyChanges;
use replicator_types::{Budget, Lsn, oid};
use std::time::{Duration, Instant};

const T: u32 = 100;

/// Allocations while one transaction of so many updates, each with its old row, is taken from the wire into open batches.
fn allocations(rows: usize) -> u64 {
    let limits = BatchLimits { rows_max: 1 << 20, bytes_max: 1 << 30, interval: Duration::from_secs(1) };
    let route = |name: &str, key_changes, shards| Route {
        name: name.into(),
        tables: Default::default(),
        shards,
        limits,
        key_changes,
        takes_late_changes: false,
        messages: false,
    };
    let routes = vec![route("state", KeyChanges::Split, 2), route("log", KeyChanges::Whole, 1)];
    let mut pipeline = Pipeline::new(routes, Lsn(0), &Budget::new(1 << 30));
    let mut wire =
        Wire::new().begin(10).relation(T, "t", b'f', &[("k", oid::INT8, true), ("v", oid::TEXT, false)]);
    for row in 0..rows {
        let key = (1_000_000 + row).to_string();
        let (old, new): ([Text<'_>; 2], [Text<'_>; 2]) =
            ([Some(&key), Some("before")], [Some(&key), Some("after")]);
        wire = wire.update(T, Some((b'O', &old)), &new);
    }
    let bytes = Bytes::from(wire.commit(10).bytes);
    let used = measure(|| pipeline.chunk(bytes, Vec::new(), Instant::now()).expect("a chunk"));
    pipeline.flush();
    assert_eq!(pipeline.take_outputs().len(), 3, "a batch of each lane");
    used.count_total
}

#[test]
fn a_row_that_is_decoded_and_dispatched_allocates_nothing() {
    let (few, many) = (allocations(1_000), allocations(32_000));
    // Three open batches, each with some buffers, that grow by five times two.
    assert!(many <= few + 60, "{few} allocations for 1,000 rows, {many} for 32,000");
}
