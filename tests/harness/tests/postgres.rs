//! The Postgres part of the harness against the real servers.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use replicator_harness::{PgOptions, PgVersion, Postgres};
use std::time::{Duration, Instant};

fn start(version: PgVersion) -> Postgres {
    Postgres::start(version, &PgOptions::default())
}

fn comes_back_whole(version: PgVersion) {
    let postgres = start(version);
    let number: u32 = postgres.sql("postgres", "SHOW server_version_num").parse().unwrap();
    assert_eq!(number / 10_000, version.major());
    postgres.createdb("shop");
    postgres.sql("shop", "CREATE TABLE t (id int); INSERT INTO t VALUES (1)");
    let port = postgres.port();

    postgres.restart();
    postgres.sql("shop", "INSERT INTO t VALUES (2)");
    postgres.stop_immediate();
    postgres.start_again();
    postgres.sql("shop", "INSERT INTO t VALUES (3)");
    postgres.kill9();
    assert!(postgres.try_sql("shop", "SELECT 1").is_err());
    postgres.start_again();

    assert_eq!(postgres.sql("shop", "SELECT sum(id) FROM t"), "6");
    assert_eq!(postgres.port(), port);
    assert!(postgres.log().contains("automatic recovery in progress"), "{}", postgres.log());
}

#[test]
fn postgres_15_keeps_its_data_through_a_restart_a_crash_and_a_kill() {
    comes_back_whole(PgVersion::V15);
}

#[test]
fn postgres_17_keeps_its_data_through_a_restart_a_crash_and_a_kill() {
    comes_back_whole(PgVersion::V17);
}

#[test]
fn postgres_18_keeps_its_data_through_a_restart_a_crash_and_a_kill() {
    comes_back_whole(PgVersion::V18);
}

#[tokio::test]
async fn a_client_can_make_a_logical_slot() {
    let postgres = start(PgVersion::V17);
    let client = postgres.client("postgres").await;
    let row = client
        .query_one("SELECT slot_name::text FROM pg_create_logical_replication_slot('s', 'pgoutput')", &[])
        .await
        .unwrap();
    assert_eq!(row.get::<_, String>(0), "s");
}

#[test]
fn settings_of_the_test_win() {
    let options = PgOptions::default().wal_level("replica").setting("max_wal_senders", "3");
    let postgres = Postgres::start(PgVersion::V15, &options);
    assert_eq!(postgres.sql("postgres", "SHOW wal_level"), "replica");
    assert_eq!(postgres.sql("postgres", "SHOW max_wal_senders"), "3");
}

#[test]
fn two_servers_are_two_clusters() {
    let (a, b) = (start(PgVersion::V15), start(PgVersion::V15));
    let id =
        |postgres: &Postgres| postgres.sql("postgres", "SELECT system_identifier FROM pg_control_system()");
    assert_ne!(id(&a), id(&b));
}

#[test]
fn every_url_leads_to_the_server() {
    let postgres = start(PgVersion::V18);
    for url in [postgres.url("postgres"), postgres.socket_url("postgres")] {
        let output = postgres.tool("psql", "nowhere").args(["-XAtc", "SELECT 7", &url]).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), "7\n", "{url}: {output:?}");
    }
}

#[test]
fn hba_lines_decide_who_comes_in_and_how() {
    let options = PgOptions::default()
        .setting("password_encryption", "scram-sha-256")
        .hba("host all alice 127.0.0.1/32 scram-sha-256")
        .hba("host all bob 127.0.0.1/32 password");
    let postgres = Postgres::start(PgVersion::V17, &options);
    postgres.sql("postgres", "CREATE ROLE alice LOGIN PASSWORD 'a'; CREATE ROLE bob LOGIN PASSWORD 'b'");
    let try_as = |user: &str| {
        let url = postgres.url_as(user, "postgres", "sslmode=disable");
        let output =
            postgres.tool("psql", "").args(["-wXAtc", "SELECT current_user", &url]).output().unwrap();
        String::from_utf8_lossy(&if output.status.success() { output.stdout } else { output.stderr })
            .into_owned()
    };
    assert_eq!(try_as("alice:a"), "alice\n");
    assert_eq!(try_as("bob:b"), "bob\n");
    assert!(try_as("alice:b").contains("password authentication failed"));
    assert!(try_as("carol").contains("no pg_hba.conf entry"), "{}", try_as("carol"));
}

fn speaks_tls(version: PgVersion) {
    let options = PgOptions::default()
        .tls()
        .hba("hostssl all alice 127.0.0.1/32 cert")
        .hba("hostssl all postgres 127.0.0.1/32 trust");
    let postgres = Postgres::start(version, &options);
    postgres.sql("postgres", "CREATE ROLE alice LOGIN");
    let ca = postgres.tls().ca_file();
    let (cert, key) = postgres.tls().client("alice");
    let try_with = |user: &str, host: &str, parameters: &str| {
        let url = postgres.url_as(user, "postgres", parameters).replacen("127.0.0.1", host, 1);
        let output = postgres
            .tool("psql", "")
            .args(["-wXAtc", "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()", &url])
            .output()
            .unwrap();
        String::from_utf8_lossy(&if output.status.success() { output.stdout } else { output.stderr })
            .into_owned()
    };
    let verified = format!("sslmode=verify-full&sslrootcert={}", ca.display());
    assert_eq!(try_with("postgres", "127.0.0.1", &verified), "t\n");
    assert_eq!(try_with("postgres", "localhost", &verified), "t\n");
    assert!(try_with("postgres", "127.0.0.1", "sslmode=disable").contains("no pg_hba.conf entry"));

    let with_cert = format!("{verified}&sslcert={}&sslkey={}", cert.display(), key.display());
    assert_eq!(try_with("alice", "127.0.0.1", &with_cert), "t\n");
    assert!(try_with("alice", "127.0.0.1", &verified).contains("certificate"));
}

#[test]
fn postgres_15_speaks_tls_and_wants_client_certificates() {
    speaks_tls(PgVersion::V15);
}

#[test]
fn postgres_18_speaks_tls_and_wants_client_certificates() {
    speaks_tls(PgVersion::V18);
}

#[test]
fn pgbench_runs_beside_the_test_and_is_gone_when_dropped() {
    let postgres = start(PgVersion::V15);
    postgres.createdb("bench");
    postgres.pgbench("bench", &["-i", "-s", "1", "-q"]);
    let mut load = postgres.start_pgbench("bench", &["-c", "1", "-T", "600"]);
    let begun = Instant::now();
    while postgres.sql("bench", "SELECT count(*) > 5 FROM pgbench_history") != "t" {
        assert!(load.is_running() && begun.elapsed() < Duration::from_secs(20));
        std::thread::sleep(Duration::from_millis(50));
    }
    drop(load);
    let count = || postgres.sql("bench", "SELECT count(*) FROM pgbench_history");
    // A transaction under way may still commit.
    std::thread::sleep(Duration::from_millis(100));
    let after = count();
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(count(), after);
}

#[test]
#[should_panic(expected = "unrecognized configuration parameter")]
fn a_server_that_does_not_start_says_why() {
    Postgres::start(PgVersion::V15, &PgOptions::default().setting("no_such_setting", "1"));
}
