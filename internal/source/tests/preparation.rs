//! Slot and publication: made, adopted, missed, and refused with the reason.

mod support;

use replicator_config::TablePatterns;
use replicator_harness::{PgOptions, PgVersion, Postgres, eventually};
use replicator_source::{ErrorKind, Source};
use replicator_types::CheckItem;
use support::{PATIENCE, Streaming, assert_says, config, failures, plain, refusal, source};

const SHOP: &str = "
    CREATE TABLE orders (id int PRIMARY KEY, note text);
    CREATE SCHEMA side; CREATE TABLE side.log (id int PRIMARY KEY);
    CREATE UNLOGGED TABLE scratch (id int PRIMARY KEY);
    CREATE TABLE parts (id int, day date, PRIMARY KEY (id, day)) PARTITION BY RANGE (day);
    CREATE TABLE parts_2026 PARTITION OF parts FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');";

fn shop(version: PgVersion) -> Postgres {
    let postgres = Postgres::start(version, &PgOptions::default());
    postgres.sql("postgres", SHOP);
    postgres
}

fn with_tables(postgres: &Postgres, url: String, patterns: &[&str]) -> Source {
    let _ = postgres;
    let mut config = config(url);
    config.tables = TablePatterns(patterns.iter().map(|&pattern| pattern.into()).collect());
    source(config)
}

fn names(prepared: &replicator_source::Prepared) -> Vec<String> {
    prepared.tables.iter().map(|table| format!("{}.{}", table.schema, table.name)).collect()
}

fn found(items: &[CheckItem], what: &str) -> String {
    let of_what = items.iter().filter(|item| item.what == what);
    of_what.filter_map(|item| item.result.clone().ok()).collect::<Vec<_>>().join(" | ")
}

#[tokio::test]
async fn slot_and_publication_are_made_once_and_adopted_after() {
    for version in [PgVersion::V15, PgVersion::V17, PgVersion::V18] {
        let postgres = shop(version);
        let source = plain(&postgres);
        let items = source.check().await;
        assert_eq!(failures(&items), Vec::<String>::new());
        assert_says(&found(&items, "source slot"), &["will be made"]);
        assert_says(&found(&items, "source publication"), &["will be made for all tables, now 3"]);
        let nothing =
            "SELECT count(*) FROM pg_publication UNION ALL SELECT count(*) FROM pg_replication_slots";
        assert_eq!(postgres.sql("postgres", nothing), "0\n0", "check changes nothing");

        let first = source.prepare().await.expect("prepared");
        assert_eq!(names(&first), ["public.orders", "public.parts", "side.log"]);
        assert_eq!(first.server_version_num / 10_000, version.major());
        assert_eq!(first.database, "postgres");
        assert_eq!(first.timelines.current(), 1);
        assert_eq!(first.wal_sender_timeout_ms, 60_000);
        let identifier = postgres.sql("postgres", "SELECT system_identifier FROM pg_control_system()");
        assert_eq!(first.identity.system_identifier.to_string(), identifier);
        let slot = "SELECT plugin, slot_type, temporary, confirmed_flush_lsn FROM pg_replication_slots";
        assert_eq!(postgres.sql("postgres", slot), format!("pgoutput|logical|f|{}", first.confirmed_flush));

        let again = plain(&postgres);
        let second = again.prepare().await.expect("prepared again");
        assert_eq!((second.identity, second.confirmed_flush), (first.identity, first.confirmed_flush));
        let items = again.check().await;
        assert_eq!(failures(&items), Vec::<String>::new());
        assert_says(&found(&items, "source publication"), &["3 tables"]);
    }
}

#[tokio::test]
async fn a_publication_is_made_for_the_tables_that_match() {
    let postgres = shop(PgVersion::V15);
    let definition = "SELECT puballtables, pubviaroot FROM pg_publication";
    let url = postgres.url("postgres");

    // A whole schema is open for tables made later.
    let source = with_tables(&postgres, url.clone(), &["public.*"]);
    assert_eq!(names(&source.prepare().await.unwrap()), ["public.orders", "public.parts"]);
    assert_eq!(postgres.sql("postgres", definition), "f|t");
    postgres.sql("postgres", "CREATE TABLE later (id int PRIMARY KEY)");
    assert_eq!(names(&source.prepare().await.unwrap()), ["public.later", "public.orders", "public.parts"]);

    // Patterns make a list, and who owns the tables can make it.
    postgres.sql(
        "postgres",
        "DROP PUBLICATION replicator; CREATE ROLE app LOGIN REPLICATION; GRANT CREATE ON DATABASE postgres TO app;
         ALTER TABLE orders OWNER TO app; ALTER TABLE later OWNER TO app",
    );
    let by_app =
        |patterns| with_tables(&postgres, postgres.url_as("app", "postgres", "sslmode=disable"), patterns);
    assert_eq!(
        names(&by_app(&["orders", "public.la*"]).prepare().await.unwrap()),
        ["public.later", "public.orders"]
    );
    postgres.sql("postgres", "DROP PUBLICATION replicator");
    let (kind, text) = refusal(&by_app(&["public.*"])).await;
    assert_eq!(kind, ErrorKind::Halt);
    assert_says(&text, &["42501", "CREATE PUBLICATION \"replicator\" FOR TABLE", "owner"]);

    let (kind, text) = refusal(&with_tables(&postgres, url, &["nothing.like_this"])).await;
    assert_eq!(kind, ErrorKind::Halt);
    assert_says(&text, &["no table matches", "nothing.like_this"]);
}

#[tokio::test]
async fn what_is_absent_and_must_not_be_made_is_named() {
    let postgres = shop(PgVersion::V15);
    let mut config = config(postgres.url("postgres"));
    config.create = false;
    let source = source(config);
    let (kind, text) = refusal(&source).await;
    assert_eq!(kind, ErrorKind::Halt);
    assert_says(
        &text,
        &["publication replicator", "source.create", "CREATE PUBLICATION \"replicator\" FOR ALL TABLES"],
    );
    let checked = failures(&source.check().await);
    assert!(checked.iter().any(|line| line.contains("publication replicator does not exist")), "{checked:?}");
    assert!(checked.iter().any(|line| line.contains("slot replicator does not exist")), "{checked:?}");

    postgres.sql("postgres", "CREATE PUBLICATION replicator FOR ALL TABLES");
    let (kind, text) = refusal(&source).await;
    assert_eq!(kind, ErrorKind::Halt);
    assert_says(&text, &["slot replicator", "pg_create_logical_replication_slot('replicator', 'pgoutput')"]);
    postgres.sql("postgres", "SELECT pg_create_logical_replication_slot('replicator', 'pgoutput')");
    source.prepare().await.expect("prepared");
}

#[tokio::test]
async fn a_server_that_does_not_log_enough_is_refused() {
    let options = PgOptions::default().wal_level("replica");
    let postgres = Postgres::start(PgVersion::V15, &options);
    postgres.sql("postgres", SHOP);
    let source = plain(&postgres);
    let (kind, text) = refusal(&source).await;
    assert_eq!(kind, ErrorKind::Halt);
    assert_says(&text, &["wal_level=replica", "ALTER SYSTEM SET wal_level", "restart"]);
    assert!(failures(&source.check().await).iter().any(|line| line.contains("wal_level=replica")));
}

#[tokio::test]
async fn tables_whose_updates_cannot_be_carried_are_refused_and_insert_only_ones_are_not() {
    let postgres = shop(PgVersion::V17);
    postgres.sql("postgres", "CREATE TABLE history (at timestamptz, what text)");
    let source = plain(&postgres);
    let items = source.check().await;
    assert_eq!(failures(&items), Vec::<String>::new());
    assert_says(
        &found(&items, "source table"),
        &["warning", "public.history", "primary key", "REPLICA IDENTITY FULL"],
    );

    postgres.sql("postgres", "ALTER TABLE orders REPLICA IDENTITY NOTHING");
    let (kind, text) = refusal(&source).await;
    assert_eq!(kind, ErrorKind::Halt);
    assert_says(&text, &["public.orders", "REPLICA IDENTITY NOTHING", "ALTER TABLE \"public\".\"orders\""]);
    assert_eq!(postgres.sql("postgres", "SELECT count(*) FROM pg_replication_slots"), "0");
    assert!(failures(&source.check().await).iter().any(|line| line.contains("public.orders")));
    postgres.sql("postgres", "ALTER PUBLICATION replicator SET (publish = 'insert')");
    source.prepare().await.expect("inserts need no identity");

    // One table does not keep a run with a slot from going on with the others.
    postgres
        .sql("postgres", "ALTER PUBLICATION replicator SET (publish = 'insert, update, delete, truncate')");
    source.prepare().await.expect("prepared");
    assert!(failures(&source.check().await).iter().any(|line| line.contains("public.orders")));

    postgres.sql(
        "postgres",
        "ALTER TABLE orders REPLICA IDENTITY DEFAULT; ALTER TABLE parts_2026 REPLICA IDENTITY FULL",
    );
    let items = source.check().await;
    assert_eq!(failures(&items), Vec::<String>::new());
    assert_says(&found(&items, "source table"), &["partition public.parts_2026", "public.parts"]);
}

#[tokio::test]
async fn a_publication_without_tables_is_refused() {
    let postgres = shop(PgVersion::V15);
    postgres.sql("postgres", "CREATE PUBLICATION replicator");
    let (kind, text) = refusal(&plain(&postgres)).await;
    assert_eq!(kind, ErrorKind::Halt);
    assert_says(&text, &["publication replicator has no tables", "ADD TABLE"]);
}

#[tokio::test]
async fn a_slot_that_is_somebody_elses_is_refused() {
    let postgres = shop(PgVersion::V15);
    postgres.createdb("other");
    let (halt, other) = (ErrorKind::Halt, |sql: &str| postgres.sql("other", sql));
    other("SELECT pg_create_logical_replication_slot('replicator', 'pgoutput')");
    let (kind, text) = refusal(&plain(&postgres)).await;
    assert_eq!(kind, halt);
    assert_says(&text, &["database other", "source.slot"]);
    other("SELECT pg_drop_replication_slot('replicator')");
    postgres.sql("postgres", "SELECT pg_create_logical_replication_slot('replicator', 'test_decoding')");
    let (kind, text) = refusal(&plain(&postgres)).await;
    assert_eq!(kind, halt);
    assert_says(&text, &["test_decoding", "source.slot"]);
    postgres.sql(
        "postgres",
        "SELECT pg_drop_replication_slot('replicator'); SELECT pg_create_physical_replication_slot('replicator')",
    );
    let (kind, text) = refusal(&plain(&postgres)).await;
    assert_eq!(kind, halt);
    assert_says(&text, &["physical", "source.slot"]);
}

#[tokio::test]
async fn a_slot_in_use_is_waited_for_and_its_reader_named() {
    let postgres = shop(PgVersion::V15);
    let source = plain(&postgres);
    source.prepare().await.expect("prepared");
    let first = Streaming::begin(&source).await;
    let pid = postgres.sql("postgres", "SELECT active_pid FROM pg_replication_slots");
    let (kind, text) = refusal(&plain(&postgres)).await;
    assert_eq!(kind, ErrorKind::Retry);
    assert_says(
        &text,
        &[&format!("process {pid}"), "application replicator", "127.0.0.1", "pg_terminate_backend"],
    );
    let error =
        source.stream(replicator_types::Lsn::ZERO, first.budget.clone()).await.expect_err("one reader only");
    assert_eq!(error.kind(), ErrorKind::Retry);
    assert_says(&error.to_string(), &[&pid, "55006"]);
    first.finish().await;
    eventually(PATIENCE, "the slot is free", || async { plain(&postgres).prepare().await.map(drop) }).await;
}

#[tokio::test]
async fn an_invalidated_slot_is_a_gap_and_not_a_new_start() {
    for version in [PgVersion::V15, PgVersion::V18] {
        let options =
            PgOptions::default().setting("max_slot_wal_keep_size", "1MB").setting("max_wal_size", "32MB");
        let postgres = Postgres::start(version, &options);
        postgres.sql("postgres", SHOP);
        let source = plain(&postgres);
        source.prepare().await.expect("prepared");
        for _ in 0..6 {
            postgres.sql(
                "postgres",
                "SELECT pg_switch_wal(); INSERT INTO orders SELECT 1, 'x'; DELETE FROM orders",
            );
        }
        postgres.sql("postgres", "CHECKPOINT");
        let (kind, text) = refusal(&source).await;
        assert_eq!(kind, ErrorKind::Halt);
        assert_says(
            &text,
            &["slot replicator", "invalidated", "pg_drop_replication_slot('replicator')", "resync --all"],
        );
        assert!(failures(&source.check().await).iter().any(|line| line.contains("invalidated")));
    }
}

#[tokio::test]
async fn when_no_slot_is_left_the_setting_is_named() {
    let options = PgOptions::default().setting("max_replication_slots", "1");
    let postgres = Postgres::start(PgVersion::V15, &options);
    postgres.sql("postgres", SHOP);
    postgres.sql("postgres", "SELECT pg_create_physical_replication_slot('taken')");
    let (kind, text) = refusal(&plain(&postgres)).await;
    assert_eq!(kind, ErrorKind::Halt);
    assert_says(&text, &["max_replication_slots=1", "raise"]);
}

#[tokio::test]
async fn slot_creation_waits_for_a_long_transaction_and_names_it() {
    let postgres = shop(PgVersion::V15);
    let client = postgres.client("postgres").await;
    client.batch_execute("BEGIN; INSERT INTO orders VALUES (1, 'long')").await.unwrap();
    let pid = client.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get::<_, i32>(0);

    let (sender, lines) = std::sync::mpsc::channel();
    let log = slog::Logger::root(support::log_to(sender), slog::o!());
    let source = Source::new(config(postgres.url("postgres")), log).unwrap();
    let preparation = tokio::spawn(async move { source.prepare().await });
    eventually(PATIENCE, "the log names the transaction", || async {
        let seen: Vec<String> = lines.try_iter().collect();
        if seen.iter().any(|line| line.contains(&format!("process {pid} "))) {
            Ok(())
        } else {
            Err(seen.join("; "))
        }
    })
    .await;
    assert!(!preparation.is_finished());
    client.batch_execute("COMMIT").await.unwrap();
    preparation.await.unwrap().expect("prepared when the transaction has ended");
}

#[tokio::test]
async fn a_slot_that_was_just_made_can_be_dropped_again_and_one_that_was_found_is_told_from_it() {
    let postgres = shop(PgVersion::V15);
    let source = plain(&postgres);
    assert!(source.prepare().await.expect("prepared").slot_is_new);
    source.drop_new_slot().await.expect("dropped");
    assert_eq!(postgres.sql("postgres", "SELECT count(*) FROM pg_replication_slots"), "0");
    let first = source.prepare().await.expect("prepared");
    assert!(first.slot_is_new && !source.prepare().await.expect("prepared").slot_is_new);

    // A run that goes on makes no slot in the place of one that is lost.
    source.prepare_again(&first, first.confirmed_flush).await.expect("prepared again");
    postgres.sql("postgres", "SELECT pg_drop_replication_slot('replicator')");
    let error = source.prepare_again(&first, first.confirmed_flush).await.expect_err("the slot is gone");
    assert_eq!(error.kind(), ErrorKind::Halt);
    assert_says(&error.to_string(), &["slot replicator is gone", "resync --all"]);
}
