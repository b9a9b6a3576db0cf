//! The replicator part of the harness with the real binary, which is built first when it is absent or stale.

use replicator_harness::{Config, PgOptions, PgVersion, Postgres, Replicator};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(30);

#[test]
fn a_replicator_is_checked_started_asked_and_ended() {
    let postgres = Postgres::start(PgVersion::V17, &PgOptions::default());
    let config = Config::new(&postgres.url("postgres")).blackhole("nothing");

    let checked = Replicator::check(&config).expect_success();
    assert!(checked.stdout.lines().all(|line| line.starts_with("ok")), "{}", checked.stdout);

    let mut replicator = Replicator::spawn(&config, &[]);
    replicator.wait_until_ready(PATIENCE);
    assert_eq!(replicator.http("/no-such-page").0, 404);
    assert!(replicator.metrics().iter().any(|(series, _)| series.starts_with("replicator_")));
    assert!(replicator.peak_rss_bytes() > 1 << 20);
    replicator.sigterm();
    assert!(replicator.wait(PATIENCE).success(), "{}", replicator.stderr());

    let mut killed = Replicator::spawn(&config, &[]);
    killed.wait_until_ready(PATIENCE);
    killed.kill9();
    assert!(!killed.is_running());
    assert!(killed.try_http("/healthz").is_err());
}

#[test]
fn a_configuration_that_is_wrong_can_be_run_as_well() {
    let finished = Replicator::output("[sorce]\n", &["check"], &[]);
    assert_eq!(finished.status.code(), Some(1), "{finished:?}");
}
