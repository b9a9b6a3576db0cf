//! Rights, limits and connections: what is missing is told in one line with the remedy, in `check` and in `run`, with
//! exit code 1. (Beside `refusals.rs`; the table of texts is in `docs/errors.md`.)

use replicator_harness::{Config, PgOptions, PgVersion, Postgres, Replicator, S3};

fn source() -> Postgres {
    let source = Postgres::start(PgVersion::V15, &PgOptions::default());
    source.createdb("shop");
    source.sql("shop", "CREATE TABLE t (id bigint PRIMARY KEY)");
    source
}

fn config(source: &Postgres) -> Config {
    Config::new(&source.url("shop"))
}

/// Asserts that `check` and `run` both refuse, in one line that holds all of `expected`.
#[track_caller]
fn refused(config: &Config, expected: &[&str]) {
    let holds = |line: &str| {
        let line = line.to_lowercase();
        expected.iter().all(|part| line.contains(&part.to_lowercase()))
    };
    let checked = Replicator::check(config);
    assert_eq!(checked.status.code(), Some(1), "check: {} {}", checked.stdout, checked.stderr);
    let said = checked.stdout.lines().any(|line| line.starts_with("FAIL") && holds(line));
    assert!(said, "check: no line holds {expected:?}:\n{}{}", checked.stdout, checked.stderr);
    let run = Replicator::run_to_end(config, &[]);
    assert_eq!(run.status.code(), Some(1), "run: {} {}", run.stdout, run.stderr);
    let last = run.stderr.lines().last().unwrap_or_default();
    assert!(holds(last), "run: the last line does not hold {expected:?}:\n{}", run.stderr);
}

#[test]
fn a_publication_without_tables() {
    let source = source();
    source.sql("shop", "CREATE PUBLICATION replicator");
    refused(
        &config(&source).blackhole("nothing"),
        &["publication replicator has no tables", "ALTER PUBLICATION"],
    );
}

#[test]
fn a_role_that_may_not_make_the_publication() {
    let source = source();
    source.sql("shop", "CREATE ROLE dora LOGIN REPLICATION; GRANT SELECT ON t TO dora");
    let url = source.url_as("dora", "shop", "sslmode=disable");
    let config = Config::new(&url).set("source.tables", vec!["public.*"]).blackhole("nothing");
    refused(&config, &["publication replicator", "superuser", "CREATE PUBLICATION"]);
}

#[test]
fn no_walsender_left() {
    let options = PgOptions::default().setting("max_wal_senders", "1");
    let source = Postgres::start(PgVersion::V15, &options);
    source.sql("postgres", "CREATE TABLE t (id bigint PRIMARY KEY)");
    source.sql("postgres", "SELECT pg_create_logical_replication_slot('other', 'pgoutput')");
    let _other = source.start_tool(
        "pg_recvlogical",
        "postgres",
        &[
            "-d",
            "postgres",
            "-S",
            "other",
            "--start",
            "-f",
            "-",
            "-o",
            "proto_version=1",
            "-o",
            "publication_names=x",
        ],
    );
    replicator_harness::eventually_blocking(
        std::time::Duration::from_secs(30),
        "the other walsender",
        || match source.sql("postgres", "SELECT count(*) FROM pg_stat_replication").as_str() {
            "1" => Ok(()),
            count => Err(count.to_owned()),
        },
    );
    refused(&Config::new(&source.url("postgres")).blackhole("nothing"), &["max_wal_senders", "raise"]);
}

#[test]
fn an_address_that_pg_hba_does_not_let_in() {
    let source =
        Postgres::start(PgVersion::V15, &PgOptions::default().hba("host all other 127.0.0.1/32 trust"));
    refused(&Config::new(&source.url("postgres")).blackhole("nothing"), &["pg_hba.conf", "pg_reload_conf"]);
}

#[test]
fn a_source_that_is_not_there() {
    let config = Config::new("postgres://x@127.0.0.1:1/shop").blackhole("nothing");
    refused(&config, &["source", "127.0.0.1:1", "listen_addresses"]);
}

#[test]
fn a_source_that_speaks_no_tls() {
    let source = source();
    let url = source.url_as("postgres", "shop", "sslmode=require");
    refused(&Config::new(&url).blackhole("nothing"), &["TLS", "sslmode"]);
}

#[test]
fn no_sink_at_all() {
    let config = Config::new("postgres://x@127.0.0.1:1/shop");
    for command in ["check", "run"] {
        let output = Replicator::output(&config.to_toml(), &[command], &[]);
        assert_eq!(output.status.code(), Some(1), "{}", output.stderr);
        assert!(output.stderr.contains("no sink; add a [[sink]]"), "{}", output.stderr);
    }
}

#[test]
fn a_target_with_another_password() {
    let source = source();
    let options = PgOptions::default().hba("host all all 127.0.0.1/32 scram-sha-256");
    let target = Postgres::start(PgVersion::V17, &options);
    target.sql("postgres", "CREATE ROLE alice SUPERUSER LOGIN PASSWORD 'right'");
    let url = target.url_as("alice:wrong", "postgres", "sslmode=disable");
    refused(&config(&source).sink("copy", "postgres", &url), &["sink copy", "alice", "correct the password"]);
}

#[test]
fn a_target_database_that_is_not_there() {
    let source = source();
    let config = config(&source).postgres("copy", &source, "coppy");
    refused(&config, &["sink copy", "coppy", "create database"]);
}

#[test]
fn a_target_role_that_may_make_nothing() {
    let source = source();
    let target = Postgres::start(PgVersion::V17, &PgOptions::default());
    target.createdb("copy");
    target.sql("copy", "CREATE ROLE erin LOGIN");
    let url = target.url_as("erin", "copy", "sslmode=disable");
    refused(&config(&source).sink("copy", "postgres", &url), &["sink copy", "grant"]);
}

#[test]
fn a_store_with_another_secret_key() {
    let source = source();
    let s3 = S3::with_bucket("bucket");
    let config = config(&source).s3("archive", &s3, "bucket", "prefix");
    let config = config.set_sink("archive", "secret_access_key", "wrong");
    refused(&config, &["sink archive", "secret_access_key"]);
}

#[test]
fn a_store_that_is_not_there() {
    let source = source();
    let s3 = S3::with_bucket("bucket");
    let config = config(&source).s3("archive", &s3, "bucket", "prefix");
    let config = config.set_sink("archive", "endpoint", "http://127.0.0.1:1");
    refused(&config, &["sink archive", "127.0.0.1:1"]);
}
