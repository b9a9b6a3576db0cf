//! A short form of `make chaos`.

use replicator_chaos::{Settings, run};
use std::time::Duration;

#[tokio::test(flavor = "multi_thread")]
async fn whatever_dies_under_load_every_sink_ends_equal_to_the_source_and_to_the_writers_ledgers() {
    let report = run(Settings {
        seed: 20_261_121,
        time: Duration::from_secs(20),
        faults: 6,
        rounds_of_world: 8,
        writers: 3,
    })
    .await;
    assert!(report.transactions > 100, "{report}");
}
