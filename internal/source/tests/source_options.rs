//! What streams are asked for, on servers that have it and such that have not; polling and heartbeats.

mod support;

use replicator_config::{BinaryValues, OriginFilter, SourceConfig, StreamingMode};
use replicator_harness::{PgOptions, PgVersion, Postgres};
use replicator_source::{ErrorKind, Source, Streaming as Pieces};
use replicator_types::TableCatalog;
use support::{Streaming, assert_says, config, plain, refusal, source};

fn configured(postgres: &Postgres, change: impl FnOnce(&mut SourceConfig)) -> Source {
    let mut config = config(postgres.url("postgres"));
    change(&mut config);
    source(config)
}

fn server(version: PgVersion) -> Postgres {
    let options = PgOptions::default()
        .setting("max_prepared_transactions", "5")
        .setting("logical_decoding_work_mem", "64kB");
    let postgres = Postgres::start(version, &options);
    postgres.sql("postgres", "CREATE TABLE t (id int PRIMARY KEY, v text)");
    postgres.sql("postgres", "CREATE PUBLICATION replicator FOR TABLE t");
    postgres
}

fn tags(messages: &[Vec<u8>]) -> String {
    let mut tags: Vec<char> = messages.iter().map(|message| char::from(message[0])).collect();
    tags.dedup();
    tags.iter().collect()
}

#[tokio::test]
async fn everything_that_can_be_asked_for_comes() {
    let postgres = server(PgVersion::V18);
    let source = configured(&postgres, |config| {
        config.binary = BinaryValues::On;
        config.streaming = StreamingMode::Parallel;
        config.two_phase = true;
        config.messages = true;
        config.origin = OriginFilter::None;
    });
    let prepared = source.prepare().await.expect("prepared");
    let options = source.stream_options();
    assert_eq!(prepared.stream_options, options);
    assert!(options.binary && options.two_phase && options.messages);
    assert_eq!((options.proto_version, options.streaming), (4, Pieces::Parallel));
    let slot = "SELECT two_phase FROM pg_replication_slots";
    assert_eq!(postgres.sql("postgres", slot), "t");

    let mut stream = Streaming::begin(&source).await;
    assert_eq!(stream.reader.stream_options(), &options);
    postgres.sql("postgres", "BEGIN; INSERT INTO t VALUES (7, 'x'); PREPARE TRANSACTION 'p'");
    postgres.sql("postgres", "SELECT pg_logical_emit_message(true, 'mine', 'hello')");
    let seen = stream.transaction().await;
    let all = tags(&seen.messages);
    assert!(all.starts_with("bRIP"), "a prepared transaction comes when it is prepared: {all}");
    assert!(all.contains('M'), "{all}");
    let insert = seen.messages.iter().find(|message| message[0] == b'I').expect("an insert");
    assert!(insert.windows(9).any(|part| part == b"b\0\0\0\x04\0\0\0\x07"), "a value in binary form");
    postgres.sql("postgres", "COMMIT PREPARED 'p'");
    postgres.sql("postgres", "INSERT INTO t SELECT i, repeat('x', 100) FROM generate_series(10, 5000) i");
    let mut all = String::new();
    while !all.contains('c') {
        all.extend(support::plugin_messages(&stream.chunk().await.bytes).iter().map(|m| char::from(m[0])));
    }
    assert!(all.contains('S'), "a large transaction comes in pieces");
    stream.finish().await;

    source.without_binary();
    source.prepare().await.expect("prepared again");
    assert!(!source.stream_options().binary);
}

#[tokio::test]
async fn a_binary_stream_that_meets_a_type_without_a_known_binary_form_goes_on_as_text() {
    for is_dropped_again in [false, true] {
        let postgres = server(PgVersion::V15);
        let source = configured(&postgres, |config| config.binary = BinaryValues::On);
        source.prepare().await.expect("prepared");
        assert!(source.stream_options().binary);
        let mut stream = Streaming::begin(&source).await;
        postgres.sql("postgres", "CREATE TYPE pair AS (a int, b text); ALTER TABLE t ADD COLUMN p pair");
        postgres.sql("postgres", "INSERT INTO t VALUES (1, 'x', (1, 'y'))");
        if is_dropped_again {
            postgres.sql("postgres", "DROP TYPE pair CASCADE");
        }
        let error = loop {
            match stream.reader.next_chunk().await {
                Ok(chunk) => {
                    let all = tags(&support::plugin_messages(&chunk.bytes));
                    assert!(!all.contains('I'), "no row is handed on that cannot be understood: {all}");
                }
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), ErrorKind::Retry);
        assert_says(&error.to_string(), &["slot replicator", "as text"]);
        // The slot is free again, without anybody ending the session at the server.
        drop(stream);
        let prepared = loop {
            match source.prepare().await {
                Ok(prepared) => break prepared,
                Err(error) => assert!(error.is_busy(), "{error}"),
            }
        };
        assert!(!prepared.stream_options.binary);
        let mut stream = Streaming::begin(&source).await;
        let insert = stream.transaction().await.messages.into_iter().find(|message| message[0] == b'I');
        let insert = insert.expect("an insert");
        assert!(insert.windows(6).any(|part| part == b"t\0\0\0\x011"), "a value as text");
        stream.finish().await;
    }
}

#[tokio::test]
async fn what_the_server_cannot_do_is_refused_before_anything_is_made() {
    let postgres = server(PgVersion::V15);
    for (change, parts) in [
        (
            (|config| config.streaming = StreamingMode::Parallel) as fn(&mut SourceConfig),
            ["source.streaming", "PostgreSQL 16"],
        ),
        (|config| config.origin = OriginFilter::None, ["source.origin", "PostgreSQL 16"]),
    ] {
        let (kind, text) = refusal(&configured(&postgres, change)).await;
        assert_eq!(kind, ErrorKind::Halt);
        assert_says(&text, &parts);
        assert_eq!(postgres.sql("postgres", "SELECT count(*) FROM pg_replication_slots"), "0", "{text}");
    }
}

#[tokio::test]
async fn a_slot_without_two_phase_is_refused_where_it_is_asked_for_and_one_with_it_is_followed_anyway() {
    for version in [PgVersion::V15, PgVersion::V18] {
        let postgres = server(version);
        plain(&postgres).prepare().await.expect("a plain slot");
        let (kind, text) = refusal(&configured(&postgres, |config| config.two_phase = true)).await;
        assert_eq!(kind, ErrorKind::Halt);
        assert_says(&text, &["slot replicator", "two_phase", "pg_drop_replication_slot"]);

        postgres.sql("postgres", "SELECT pg_drop_replication_slot('replicator')");
        configured(&postgres, |config| config.two_phase = true).prepare().await.expect("a two-phase slot");
        let source = plain(&postgres);
        source.prepare().await.expect("prepared");
        let options = source.stream_options();
        assert!(options.two_phase && options.proto_version == 3);
        let mut stream = Streaming::begin(&source).await;
        postgres.sql("postgres", "BEGIN; INSERT INTO t VALUES (7, 'x'); PREPARE TRANSACTION 'p'");
        postgres.sql("postgres", "COMMIT PREPARED 'p'");
        postgres.sql("postgres", "INSERT INTO t VALUES (8, 'y')");
        let all = tags(&stream.transaction().await.messages);
        assert!(all.starts_with("bRIP"), "{version:?}: {all}");
        stream.finish().await;
    }
}

#[tokio::test]
async fn the_poll_sees_every_change_of_the_published_tables() {
    for version in [PgVersion::V15, PgVersion::V18] {
        let postgres = server(version);
        postgres.sql(
            "postgres",
            "CREATE TABLE later (id int PRIMARY KEY); CREATE SCHEMA s; CREATE DOMAIN d AS int",
        );
        let source = plain(&postgres);
        let mut known = source.published().await.expect("tables");
        assert_eq!(known.len(), 1);
        // What it says without the moment it was read at.
        let shape = |tables: &[TableCatalog]| {
            let timeless =
                |table: &TableCatalog| TableCatalog { read_at: replicator_types::Lsn::ZERO, ..table.clone() };
            tables.iter().map(timeless).collect::<Vec<_>>()
        };
        for change in [
            "ALTER TABLE t ADD COLUMN x int DEFAULT 5",
            "ALTER TABLE t ALTER x SET DEFAULT 6",
            "ALTER TABLE t ALTER x TYPE bigint",
            "ALTER TABLE t RENAME COLUMN x TO y",
            "ALTER TABLE t DROP COLUMN y",
            "ALTER TABLE t ADD COLUMN z d",
            "ALTER DOMAIN d RENAME TO e",
            "ALTER TABLE t ALTER v SET NOT NULL",
            "ALTER TABLE t REPLICA IDENTITY FULL",
            "ALTER TABLE t DROP CONSTRAINT t_pkey",
            "ALTER PUBLICATION replicator ADD TABLE later",
            "ALTER PUBLICATION replicator SET TABLE later, t (id, z)",
            "ALTER TABLE later RENAME TO earlier",
            "ALTER TABLE earlier SET SCHEMA s",
            "ALTER SCHEMA s RENAME TO r",
            "DROP TABLE r.earlier",
        ] {
            let unchanged = source.published().await.expect("tables");
            assert_eq!(shape(&unchanged), shape(&known));
            postgres.sql("postgres", change);
            let tables = source.published().await.expect("tables");
            assert_ne!(shape(&tables), shape(&known), "{version:?}: {change}");
            assert!(tables.iter().zip(&known).all(|(now, before)| now.read_at >= before.read_at));
            known = tables;
        }
    }
}

#[tokio::test]
async fn a_heartbeat_moves_the_servers_position_on() {
    let postgres = server(PgVersion::V15);
    let source = plain(&postgres);
    let before = source.current_lsn().await.expect("a position");
    source.heartbeat().await.expect("a heartbeat");
    let after = source.current_lsn().await.expect("a position");
    assert!(after > before);
    let found =
        "SELECT count(*) FROM pg_logical_slot_peek_binary_changes('s', NULL, NULL, 'proto_version', '1',
                 'publication_names', 'replicator', 'messages', 'true') WHERE get_byte(data, 0) = ascii('M')";
    postgres.sql("postgres", "SELECT pg_create_logical_replication_slot('s', 'pgoutput')");
    source.heartbeat().await.expect("a heartbeat");
    postgres.sql("postgres", "INSERT INTO t VALUES (1, 'x')");
    assert_eq!(postgres.sql("postgres", found), "1");
}
