use crate::{World, drain};
use replicator_harness::{Config, Replicator, eventually_blocking};
use std::time::Duration;

/// Hundreds of tables, on a busy machine.
const SOON: Duration = Duration::from_secs(180);

/// Waits until the process has copied every table there is.
///
/// # Panics
/// When that takes minutes.
pub fn wait_for_copy(replicator: &Replicator) {
    eventually_blocking(SOON, "the copy", || {
        let left = replicator.metrics().sum("replicator_copy_tables_left", &[]);
        match left {
            Some(0.0) if replicator.stderr().contains("copy over") => Ok(()),
            left => Err(format!("{left:?} tables left:\n{}", last_line(replicator))),
        }
    });
}

/// Waits until what was copied has also caught up with the stream: from then on it is not copied again behind a crash.
///
/// # Panics
/// When that takes minutes.
pub fn wait_until_caught_up(replicator: &Replicator) {
    wait_for_copy(replicator);
    eventually_blocking(SOON, "catching up", || {
        let said = replicator.stderr();
        let times = |what: &str| said.matches(what).count();
        if times("table caught up with the stream") >= times("table copied") { Ok(()) } else { Err(said) }
    });
}

/// Has the process stop in order.
///
/// # Panics
/// When it does not within that time, or fails.
pub fn stop(replicator: &mut Replicator, within: Duration) {
    replicator.sigterm();
    assert!(replicator.wait(within).success(), "{}", replicator.stderr());
}

/// Waits until everything that the source has written by now is durable in every sink.
///
/// # Panics
/// When that takes minutes.
pub fn wait_for_stream(world: &World, replicator: &Replicator) {
    let lsn = world.source.sql("shop", "SELECT pg_current_wal_lsn() - '0/0'");
    let lsn: f64 = lsn.parse().unwrap_or_else(|error| panic!("{lsn}: {error}"));
    eventually_blocking(SOON, "the stream", || {
        let checkpoint = replicator.metrics().sum("replicator_checkpoint_lsn", &[]).unwrap_or_default();
        if checkpoint >= lsn {
            Ok(())
        } else {
            Err(format!("{checkpoint} of {lsn}:\n{}", last_line(replicator)))
        }
    });
}

/// Runs SQL while a replicator reads, and reads what is left.
///
/// # Panics
/// When it does not end with exit code 0.
pub fn stream(world: &World, config: &Config, sql: &str) {
    let mut replicator = Replicator::spawn(config, &[]);
    replicator.wait_until_ready(SOON);
    world.source.sql("shop", sql);
    replicator.sigterm();
    assert!(replicator.wait(SOON).success(), "{}", replicator.stderr());
    drain(config);
}

fn last_line(replicator: &Replicator) -> String {
    replicator.stderr().lines().last().unwrap_or_default().to_owned()
}
