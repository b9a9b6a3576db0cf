//! Starts servers as a test does, says where they are, and waits to be killed: see `tests/survivors.rs`.

use replicator_harness::{ClickHouse, ClickHouseOptions, PgOptions, PgVersion, Postgres};
use std::time::Duration;

fn main() {
    let postgres = Postgres::start(PgVersion::V15, &PgOptions::default());
    let clickhouse = ClickHouse::start(&ClickHouseOptions::default());
    println!("\n{} {} {}", postgres.address(), clickhouse.address(), clickhouse.is_own());
    std::thread::sleep(Duration::from_secs(600));
}
