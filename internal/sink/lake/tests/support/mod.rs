//! What the tests share.
#![allow(dead_code, unreachable_pub, missing_docs, clippy::unwrap_used)]

pub mod faulty;
pub mod source;

use object_store::ObjectStore;
use replicator_lake::{CompactOptions, Compression, FileOptions, FoldOptions};
use replicator_sink::{ErrorKind, Lane, Sink, SinkError, StreamInfo};
use replicator_sink_lake::LakeSink;
use replicator_store::Store;
use replicator_types::{Batch, SlotIdentity};
use std::path::Path;
use std::sync::Arc;

pub const PREFIX: &str = "some/prefix";

pub fn logger() -> slog::Logger {
    slog::Logger::root(slog::Discard, slog::o!())
}

pub fn stream_info() -> StreamInfo {
    let identity = SlotIdentity { system_identifier: 0x1234, slot: "my_slot".into() };
    StreamInfo { identity, database: "shop".into(), tables: Vec::new() }
}

pub const FILES: FileOptions = FileOptions { compression: Compression::Snappy, row_group_rows_max: 100 };

pub fn sink(store: &Arc<dyn ObjectStore>) -> LakeSink {
    LakeSink::at("lake".into(), Arc::clone(store), PREFIX, FILES, 4, logger())
}

/// A lane as a process opens it that has just started.
pub async fn new_lane(store: &Arc<dyn ObjectStore>) -> Box<dyn Lane> {
    let sink = sink(store);
    let info = stream_info();
    persist(async || sink.prepare(&info).await).await;
    persist(async || sink.open_lane(0, &info).await).await
}

/// As the pipeline does: until it is durable.
pub async fn write(lane: &mut Box<dyn Lane>, batch: &Arc<Batch>) {
    let mut tries = 0;
    let mut write = loop {
        match lane.prepare(Arc::clone(batch)).await {
            Ok(write) => break write,
            Err(error) => refuse_to_halt(&error, &mut tries),
        }
    };
    while let Err(error) = write.send().await {
        refuse_to_halt(&error, &mut tries);
    }
}

/// Does it until it succeeds; nothing that passes may need a person.
pub async fn persist<T>(mut work: impl AsyncFnMut() -> Result<T, SinkError>) -> T {
    let mut tries = 0;
    loop {
        match work().await {
            Ok(done) => return done,
            Err(error) => refuse_to_halt(&error, &mut tries),
        }
    }
}

fn refuse_to_halt(error: &SinkError, tries: &mut usize) {
    assert_eq!(error.kind(), ErrorKind::Retry, "{error}");
    *tries += 1;
    assert!(*tries < 1000, "{error}");
}

pub fn place(store: &Arc<dyn ObjectStore>) -> Store {
    Store::at(Arc::clone(store), PREFIX, logger())
}

/// Folds with so little memory that it spills all the time.
pub fn tight(scratch: &Path) -> CompactOptions {
    CompactOptions {
        fold: FoldOptions {
            memory_bytes_max: 60_000,
            scratch: scratch.to_owned(),
            file: FILES,
            until: None,
            removed_through: None,
        },
        dry_run: false,
        delete_folded: false,
    }
}
