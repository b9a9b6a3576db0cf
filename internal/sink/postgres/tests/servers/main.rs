//! The sink against real servers: what it is given, and what is in the target afterwards.

// A helper's failure is its test's failure.
#![allow(clippy::unwrap_used)]

mod catch_up;
mod check;
mod copy;
mod evolve;
mod faults;
mod feed;
mod keyless;
mod once;
mod rows;
mod schema;
mod types;
mod types_made;

use feed::{Feed, stream};
use replicator_config::{PostgresSinkConfig, Secret, SynchronousCommit, TypeChanges};
use replicator_harness::{PgOptions, PgVersion, Postgres};
use replicator_sink::{Lane, Sink, SinkError, StreamInfo};
use replicator_sink_postgres::{PostgresSink, open};
use replicator_types::Batch;
use slog::{Discard, Logger, o};
use std::sync::Arc;

const VERSIONS: [PgVersion; 2] = [PgVersion::V15, PgVersion::V18];

fn server(version: PgVersion) -> Postgres {
    let server = Postgres::start(version, &PgOptions::default());
    server.createdb("target");
    server
}

fn config(url: &str) -> PostgresSinkConfig {
    PostgresSinkConfig {
        url: Secret::new(url),
        password: Secret::default(),
        password_file: None,
        create_tables: true,
        type_changes: TypeChanges::Error,
        origin: false,
        synchronous_commit: SynchronousCommit::On,
        connect_timeout_ms: 5_000,
    }
}

fn sink_at(url: &str, shards: u32) -> PostgresSink {
    open("copy".into(), config(url), shards, Logger::root(Discard, o!())).unwrap()
}

fn sink(server: &Postgres) -> PostgresSink {
    sink_at(&server.url("target"), 1)
}

/// A lane of a sink with one, prepared.
async fn lane(server: &Postgres) -> Box<dyn Lane> {
    let sink = sink(server);
    sink.prepare(&stream()).await.unwrap();
    sink.open_lane(0, &stream()).await.unwrap()
}

async fn try_send(lane: &mut Box<dyn Lane>, batch: Batch) -> Result<(), SinkError> {
    lane.prepare(Arc::new(batch)).await?.send().await
}

/// Everything fed so far and not sent yet, as one batch.
async fn send(lane: &mut Box<dyn Lane>, feed: &mut Feed) {
    try_send(lane, feed.batch()).await.unwrap();
}

fn count(server: &Postgres, table: &str) -> u64 {
    server.sql("target", &format!("SELECT count(*) FROM {table}")).parse().unwrap()
}

async fn prepared(sink: &PostgresSink) -> Result<(), SinkError> {
    sink.prepare(&StreamInfo { tables: Vec::new(), ..stream() }).await
}
