//! What the pipeline's one thread does for each change: take it out of its frame, decode it, dispatch it into a batch.
//!
//! `make micro-bench`. Figures are for chunks of 1,000 changes in one transaction, of the size of the baselines' narrow
//! rows; what each step costs is the difference to the one before.

use bytes::Bytes;
use pgoutput::{Decoder, Frame, Frames, Message};
use replicator_model::wire::{Text, UNCHANGED, Wire};
use replicator_pipeline::{BatchLimits, Pipeline, Route};
use replicator_sink::KeyChanges;
use replicator_types::{Budget, Lsn, oid};
use std::time::{Duration, Instant};

const CHANGES: usize = 1_000;
const TABLE: u32 = 100;

const COLUMNS: [(&str, u32, bool); 6] = [
    ("id", oid::INT8, true),
    ("n", oid::INT4, false),
    ("code", oid::TEXT, false),
    ("amount", oid::NUMERIC, false),
    ("note", oid::TEXT, false),
    ("at", oid::TIMESTAMPTZ, false),
];

/// What the changes of a chunk are.
#[derive(Clone, Copy, Debug)]
enum Changes {
    Inserts,
    /// With the old row, as REPLICA IDENTITY FULL has it, and a value that was not touched.
    FullUpdates,
    Deletes,
}

const ALL: [Changes; 3] = [Changes::Inserts, Changes::FullUpdates, Changes::Deletes];

fn chunk(changes: Changes) -> Bytes {
    let identity = if matches!(changes, Changes::FullUpdates) { b'f' } else { b'd' };
    let mut wire = Wire::new().begin(100).relation(TABLE, "w1", identity, &COLUMNS);
    let note = "n".repeat(100);
    for number in 0..CHANGES {
        let id = (1_000_000 + number * 7_919).to_string();
        let row: [Text<'_>; 6] = [
            Some(&id),
            Some("123"),
            Some("01234567"),
            Some("1234.56"),
            Some(&note),
            Some("2026-11-21 09:00:00.123456+00"),
        ];
        let mut new = row;
        new[4] = UNCHANGED;
        wire = match changes {
            Changes::Inserts => wire.insert(TABLE, &row),
            Changes::FullUpdates => wire.update(TABLE, Some((b'O', &row)), &new),
            Changes::Deletes => wire.delete(TABLE, b'K', &[row[0], None, None, None, None, None]),
        };
    }
    Bytes::from(wire.commit(100).bytes)
}

fn pipeline(shards: u32) -> Pipeline {
    let limits = BatchLimits { rows_max: 10_000, bytes_max: 8 << 20, interval: Duration::from_secs(1) };
    let route = Route {
        name: "sink".into(),
        tables: Default::default(),
        shards,
        limits,
        key_changes: KeyChanges::Split,
        takes_late_changes: false,
        messages: false,
    };
    Pipeline::new(vec![route], Lsn(0), &Budget::new(1 << 30))
}

#[divan::bench(args = ALL, counters = [divan::counter::ItemsCount::new(CHANGES)])]
fn frames(bencher: divan::Bencher<'_, '_>, changes: Changes) {
    let bytes = chunk(changes);
    bencher.bench_local(|| {
        let found = Frames::new(&bytes).filter(|frame| matches!(frame, Ok(Frame::Data { .. }))).count();
        assert!(found > CHANGES);
    });
}

#[divan::bench(args = ALL, counters = [divan::counter::ItemsCount::new(CHANGES)])]
fn frames_and_decode(bencher: divan::Bencher<'_, '_>, changes: Changes) {
    let bytes = chunk(changes);
    bencher.bench_local(|| {
        let mut decoder = Decoder::new(false);
        let mut found = 0;
        for frame in Frames::new(&bytes) {
            if let Ok(Frame::Data { message, .. }) = frame
                && let Ok(message) = decoder.decode(message)
            {
                let is_row = matches!(message, Message::Insert(_) | Message::Update(_) | Message::Delete(_));
                found += usize::from(is_row);
            }
        }
        assert_eq!(found, CHANGES);
    });
}

#[divan::bench(args = ALL, consts = [1, 4], counters = [divan::counter::ItemsCount::new(CHANGES)])]
fn frames_decode_and_dispatch<const SHARDS: u32>(bencher: divan::Bencher<'_, '_>, changes: Changes) {
    let bytes = chunk(changes);
    bencher.with_inputs(|| (pipeline(SHARDS), bytes.clone())).bench_local_values(|(mut pipeline, bytes)| {
        let taken = pipeline.chunk(bytes, Vec::new(), Instant::now());
        assert!(taken.is_ok() && !pipeline.is_busy());
        pipeline.flush();
        let handed: usize = pipeline
            .take_outputs()
            .iter()
            .map(|output| match output {
                replicator_pipeline::Output::Batch(_, batch)
                | replicator_pipeline::Output::Fence(_, batch) => batch.len(),
            })
            .sum();
        assert!(handed >= CHANGES);
        pipeline
    });
}

fn main() {
    divan::main();
}
