//! What the replicator holds at most: a sink stands still while a backlog comes, until memory no longer grows.
//!
//! The sink is Postgres; a lock on the table stops its lanes in the middle of their batches, so that what is received,
//! queued, encoded and in flight is all there at once.

use crate::drain;
use crate::workload::Workload;
use replicator_harness::{PgOptions, PgVersion, Postgres, Replicator, eventually_blocking};
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

const DATABASE: &str = "bench";
const MIB: u64 = 1 << 20;
/// When nothing was added for so long, nothing more comes.
const STILL: Duration = Duration::from_secs(2);
const TIMEOUT: Duration = Duration::from_secs(120);

struct Figure {
    workload: Workload,
    bytes_max: u64,
    shards: i64,
    peak_rss_bytes: u64,
}

/// Measures, prints a table, and gives the same as JSON. Backlogs are as large as the baselines', or of `rows` changes.
pub(crate) fn run(rows: Option<usize>, is_smoke: bool) -> (String, Value) {
    let bytes: &[u64] = if is_smoke { &[16 * MIB] } else { &[32 * MIB, 64 * MIB, 128 * MIB] };
    let shards: &[i64] = if is_smoke { &[2] } else { &[1, 4] };
    let workloads: &[Workload] = if is_smoke { &[Workload::W1] } else { &[Workload::W1, Workload::W3] };
    let mut figures = Vec::new();
    for &workload in workloads {
        let changes = workload.rounded(rows.unwrap_or(workload.default_changes()));
        let bench = Bench::start(workload, changes, bytes.len() * shards.len());
        for (number, (&bytes_max, &shards)) in
            bytes.iter().flat_map(|bytes| shards.iter().map(move |shards| (bytes, shards))).enumerate()
        {
            let peak_rss_bytes = bench.measure(number, bytes_max, shards);
            println!("  {} {} MiB, {shards} shards: measured", workload.name(), bytes_max / MIB);
            figures.push(Figure { workload, bytes_max, shards, peak_rss_bytes });
        }
    }
    println!("\npeak memory while the sink stands still\n");
    println!(
        "| load | buffer.bytes_max | shards | peak RSS MiB | beyond bytes_max MiB |\n|---|---|---|---|---|"
    );
    for Figure { workload, bytes_max, shards, peak_rss_bytes } in &figures {
        println!(
            "| {} | {} MiB | {shards} | {} | {} |",
            workload.name(),
            bytes_max / MIB,
            peak_rss_bytes / MIB,
            peak_rss_bytes.saturating_sub(*bytes_max) / MIB
        );
    }
    let figures: Vec<Value> = figures
        .iter()
        .map(|figure| {
            json!({
                "load": figure.workload.name(), "bytes_max": figure.bytes_max, "shards": figure.shards,
                "peak_rss_bytes": figure.peak_rss_bytes,
            })
        })
        .collect();
    ("memory".into(), figures.into())
}

struct Bench {
    workload: Workload,
    changes: usize,
    source: Postgres,
    target: Postgres,
    runtime: Runtime,
}

impl Bench {
    fn start(workload: Workload, changes: usize, slots: usize) -> Self {
        let slots: Vec<String> = (0..slots).map(slot).collect();
        let source = drain::source(workload, changes, &slots);
        let target = Postgres::start(PgVersion::V15, &PgOptions::default());
        Self { workload, changes, source, target, runtime: Runtime::new().expect("a runtime") }
    }

    fn measure(&self, number: usize, bytes_max: u64, shards: i64) -> u64 {
        let database = slot(number);
        self.target.createdb(&database);
        self.workload.create(&self.target, &database, self.changes);
        let config = drain::config(&self.source.url(DATABASE), &database)
            .set("buffer.bytes_max", i64::try_from(bytes_max).unwrap_or(i64::MAX))
            .postgres("sink", &self.target, &database)
            .set_sink("sink", "shards", shards);
        let table = self.workload.tables().first().map_or("", |table| table.name);
        let mut replicator = Replicator::spawn(&config, &[]);
        eventually_blocking(TIMEOUT, "first rows arrive", || {
            match self.target.sql(&database, &format!("SELECT EXISTS (SELECT FROM {table})")).as_str() {
                "t" => Ok(()),
                _ => Err("none"),
            }
        });
        let client = self.runtime.block_on(self.target.client(&database));
        let lock = format!("BEGIN; LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE");
        self.runtime.block_on(client.batch_execute(&lock)).expect("lock the table");
        let (begun, mut grown) = (Instant::now(), Instant::now());
        let mut peak = 0;
        while grown.elapsed() < STILL {
            assert!(begun.elapsed() < TIMEOUT, "memory still grows: {peak} bytes");
            assert!(replicator.is_running(), "the replicator has ended:\n{}", replicator.stderr());
            let now = replicator.peak_rss_bytes();
            if now > peak {
                (peak, grown) = (now, Instant::now());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        replicator.kill9();
        drop(client);
        peak
    }
}

fn slot(number: usize) -> String {
    format!("memory_{number}")
}
