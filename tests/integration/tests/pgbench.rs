//! pgbench into three sinks, through crashes of everything.

use replicator_harness::{PgVersion, Replicator};
use replicator_integration::{Supervisor, Table, World, drain};
use std::time::{Duration, Instant};

const TABLES: [Table; 4] = [
    Table { name: "pgbench_accounts", key: &["aid"] },
    Table { name: "pgbench_branches", key: &["bid"] },
    Table { name: "pgbench_tellers", key: &["tid"] },
    Table { name: "pgbench_history", key: &[] },
];

/// Seconds of load: 60 unless PGBENCH_SECONDS says otherwise.
fn load_seconds() -> u64 {
    std::env::var("PGBENCH_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(60)
}

#[tokio::test(flavor = "multi_thread")]
async fn pgbench_is_equal_everywhere_though_the_process_was_killed_ten_times_and_each_server_restarted() {
    let world = World::start(PgVersion::V15);
    world.source.pgbench("shop", &["-i", "-I", "dtp", "-s", "10", "-q"]);
    let config = world.config();
    let supervisor = Supervisor::start(&config);
    let start = Instant::now();
    while !supervisor.is_ready() {
        assert!(start.elapsed() < Duration::from_secs(60), "not ready");
        std::thread::sleep(Duration::from_millis(50));
    }

    // The fill truncates and copies a million rows; two kills fall into it.
    let fill = world.source.start_pgbench("shop", &["-i", "-I", "g", "-s", "10", "-q"]);
    for _ in 0..2 {
        std::thread::sleep(Duration::from_millis(1500));
        supervisor.kill9();
    }
    fill.wait(Duration::from_secs(120));

    // Eight more, and a restart of each server, spread over the load.
    let step = Duration::from_secs(load_seconds()) / 8;
    for round in 0..8 {
        let seconds = step.as_secs().max(1).to_string();
        let load = world.source.start_pgbench("shop", &["-n", "-c", "4", "-T", &seconds]);
        std::thread::sleep(step / 3);
        match round {
            1 => world.clickhouse.restart(),
            3 => world.target.restart(),
            5 => {
                world.s3.stop();
                std::thread::sleep(Duration::from_millis(300));
                world.s3.start_again();
            }
            _ => {}
        }
        std::thread::sleep(step / 3);
        supervisor.kill9();
        load.wait(Duration::from_secs(120));
        if round == 6 {
            // Between two loads, which would end with it.
            world.source.stop_immediate();
            world.source.start_again();
        }
    }
    assert!(supervisor.starts() >= 11, "ten kills are ten new starts, these were {}", supervisor.starts());
    for log in supervisor.stop() {
        assert!(!log.contains("panicked"), "{log}");
    }
    drain(&config);
    world.assert_equal(&TABLES).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pgbench_on_the_newest_postgres_is_equal_everywhere() {
    let world = World::start(PgVersion::V18);
    world.source.pgbench("shop", &["-i", "-I", "dtp", "-s", "1", "-q"]);
    let config = world.config();
    let mut replicator = Replicator::spawn(&config, &[]);
    replicator.wait_until_ready(Duration::from_secs(60));
    world.source.pgbench("shop", &["-i", "-I", "g", "-s", "1", "-q"]);
    world.source.pgbench("shop", &["-n", "-c", "4", "-T", "5"]);
    replicator.sigterm();
    let status = replicator.wait(Duration::from_secs(60));
    assert!(status.success(), "{status}: {}", replicator.stderr());
    drain(&config);
    world.assert_equal(&TABLES).await;
}
