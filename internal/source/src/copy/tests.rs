//! What can only be shown from inside: that a worker on the wrong snapshot is noticed.

use super::Snapshot;
use super::snapshot::Shared;
use crate::Source;
use replicator_config::{BinaryValues, OriginFilter, Secret, SourceConfig, StreamingMode, TablePatterns};
use replicator_harness::{PgOptions, PgVersion, Postgres};
use slog::{Discard, Logger, o};
use std::sync::Arc;

fn source(postgres: &Postgres) -> Source {
    let config = SourceConfig {
        url: Secret::new(postgres.url("postgres")),
        password: Secret::default(),
        password_file: None,
        slot: "s".into(),
        publication: "p".into(),
        create: true,
        tables: TablePatterns::default(),
        snapshot: replicator_config::Snapshot::Initial,
        binary: BinaryValues::Auto,
        streaming: StreamingMode::Auto,
        two_phase: false,
        failover: true,
        messages: false,
        origin: OriginFilter::Any,
        heartbeat_interval_ms: 0,
        catalog_interval_ms: 0,
        status_interval_ms: 10_000,
        connect_timeout_ms: 10_000,
    };
    Source::new(config, Logger::root(Discard, o!())).unwrap()
}

#[tokio::test]
async fn a_worker_that_sees_another_snapshot_is_refused() {
    for version in [PgVersion::V15, PgVersion::V18] {
        let postgres = Postgres::start(version, &PgOptions::default());
        postgres.sql("postgres", "CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)");
        postgres.sql("postgres", "CREATE PUBLICATION p FOR TABLE t");
        let source = source(&postgres);
        let first = source.snapshot().await.unwrap();
        postgres.sql("postgres", "INSERT INTO t VALUES (2)");
        let second = source.snapshot().await.unwrap();
        assert_ne!(first.shared.text, second.shared.text);
        let tables = first.tables().await.unwrap();
        first.worker().begin(&tables[0], 0, 0..1, None).await.expect("the right one");

        // A worker that means the first, and is given the second's name by which to import it.
        let mixed = Snapshot { shared: Arc::new(mixed(first, &second)), publication: "p".into() };
        let refused = mixed.worker().begin(&tables[0], 0, 0..1, None).await.unwrap_err();
        assert!(refused.is_stale_snapshot(), "{refused}");
        assert!(refused.to_string().contains("sees"), "{refused}");
    }
}

fn mixed(first: Snapshot, second: &Snapshot) -> Shared {
    let mut shared = Arc::into_inner(first.shared).expect("no worker is left");
    shared.exported.clone_from(&second.shared.exported);
    shared
}
