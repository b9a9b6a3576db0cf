//! The ClickHouse part of the harness against the real engine.

use replicator_harness::{ClickHouse, ClickHouseOptions};

#[test]
fn clickhouse_keeps_its_data_through_a_restart_and_a_kill() {
    let clickhouse = ClickHouse::start(&ClickHouseOptions::default());
    if !clickhouse.is_own() {
        return;
    }
    let database = clickhouse.database().to_owned();
    let (url, insert) = (clickhouse.url(), |id: u32| format!("INSERT INTO {database}.t VALUES ({id})"));
    clickhouse.query(&format!("CREATE DATABASE {database}"));
    clickhouse.query(&format!("CREATE TABLE {database}.t (id UInt32) ENGINE = MergeTree ORDER BY id"));
    clickhouse.query(&insert(1));
    clickhouse.restart();
    clickhouse.query(&insert(2));
    clickhouse.kill9();
    assert!(clickhouse.try_query("SELECT 1").is_err());
    clickhouse.start_again();
    assert_eq!(clickhouse.query(&format!("SELECT sum(id) FROM {database}.t")), "3\n");
    assert_eq!(clickhouse.url(), url);
}

#[test]
fn clickhouse_lets_in_whom_it_should_and_says_what_is_wrong() {
    let clickhouse =
        ClickHouse::start(&ClickHouseOptions { user: "writer".into(), password: "geheim".into() });
    assert_eq!(clickhouse.query("SELECT 1 + 1"), "2\n");
    let error = clickhouse.try_query("SELECT no_such_column").unwrap_err();
    assert!(error.contains("UNKNOWN_IDENTIFIER"), "{error}");
    let stranger =
        replicator_harness::http::request(clickhouse.address(), "POST", "/", &[], b"SELECT 1").unwrap();
    assert!(!clickhouse.is_own() || matches!(stranger.status, 401 | 403), "{stranger:?}");
}
