//! From the commit at the source until a reader of the sink sees the row.
//!
//! ```text
//!   pgbench ─▶ 1000 transactions/s of 10 inserts ─▶ source ─▶ replicator ─▶ sink ◀─ "which probes are there?", again and again
//!   probe ───▶ one insert, noted when its COMMIT is answered ──────────────────────▶ noted when it is seen
//! ```
//! Once under that load, a probe every 50 ms; and once with the probes alone, each a while after the one before was seen.
//! What it takes to ask the sink counts in: figures are that much
//! too high at most. The source flushes each commit before it answers (`synchronous_commit = on`; the machine's disk is not
//! waited for), since a walsender sends nothing that is not flushed.

use crate::options::Options;
use replicator_harness::{
    ClickHouse, ClickHouseOptions, Config, PgOptions, PgVersion, Postgres, Replicator, eventually_blocking,
};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

const DATABASE: &str = "bench";
const TRANSACTIONS_A_SECOND: u32 = 1000;
const ROWS_A_TRANSACTION: u32 = 10;
const PROBE_INTERVAL: Duration = Duration::from_millis(50);
/// From seeing a probe to the next, when there is no load. Not the batches' own interval nor a part of it.
const IDLE_PAUSE: Duration = Duration::from_millis(137);
/// Longer than anything is on its way.
const ARRIVAL_TIMEOUT: Duration = Duration::from_secs(60);
const INTERVALS_MS: [i64; 2] = [50, 1000];

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Sink {
    ClickHouse,
    Postgres,
}

/// Changes a second under which nothing is proved.
const LEAST_LOAD: f64 = 9_500.0;

/// The most that p50 and p99 may be under load, in ms.
fn most_ms(sink: Sink, interval_ms: i64) -> Option<(f64, f64)> {
    match (sink, interval_ms) {
        (Sink::ClickHouse, 50) => Some((100.0, 300.0)),
        (Sink::Postgres, 50) => Some((60.0, 200.0)),
        _ => None,
    }
}

struct Figure {
    sink: Sink,
    interval_ms: i64,
    /// Changes a second that the load came to; 0 for the probes alone.
    load: f64,
    /// Sorted.
    latencies: Vec<Duration>,
}

impl Figure {
    fn percentile_ms(&self, percent: usize) -> f64 {
        let last = self.latencies.len().saturating_sub(1);
        let at = (self.latencies.len() * percent).div_ceil(100).saturating_sub(1).min(last);
        self.latencies.get(at).map_or(f64::NAN, |latency| latency.as_secs_f64() * 1e3)
    }
}

/// Measures, prints a table, and gives the same as JSON.
pub(crate) fn run(options: &Options) -> (String, Value) {
    let mut figures = Vec::new();
    for sink in [Sink::ClickHouse, Sink::Postgres] {
        for interval_ms in INTERVALS_MS {
            let bench = Bench::start(sink, interval_ms);
            for is_loaded in [false, true] {
                figures.push(bench.measure(is_loaded, Duration::from_secs(options.latency_s)));
            }
        }
    }
    println!("\ncommit → visible, of single inserts\n");
    println!("| sink | interval_ms | changes/s | probes | p50 ms | p99 ms | longest ms | at most |");
    println!("|---|---|---|---|---|---|---|---|");
    for figure in &figures {
        let (p50, p99) = (figure.percentile_ms(50), figure.percentile_ms(99));
        let promise = most_ms(figure.sink, figure.interval_ms).filter(|_| figure.load > 0.0);
        let is_loaded = figure.load >= LEAST_LOAD;
        let verdict = promise.map_or_else(String::new, |(most50, most99)| {
            format!(
                "{most50} / {most99} {}",
                if is_loaded && p50 <= most50 && p99 <= most99 { "✓" } else { "✗" }
            )
        });
        println!(
            "| {:?} | {} | {:.0} | {} | {p50:.1} | {p99:.1} | {:.1} | {verdict} |",
            figure.sink,
            figure.interval_ms,
            figure.load,
            figure.latencies.len(),
            figure.percentile_ms(100),
        );
    }
    let figures: Vec<Value> = figures
        .iter()
        .map(|figure| {
            json!({
                "sink": format!("{:?}", figure.sink), "interval_ms": figure.interval_ms,
                "changes_per_second": figure.load, "probes": figure.latencies.len(),
                "p50_ms": figure.percentile_ms(50), "p99_ms": figure.percentile_ms(99),
                "longest_ms": figure.percentile_ms(100),
            })
        })
        .collect();
    ("latency".into(), figures.into())
}

struct Bench {
    sink: Sink,
    interval_ms: i64,
    runtime: Runtime,
    // Before its servers: it goes first.
    _replicator: Replicator,
    source: Postgres,
    destination: Destination,
}

enum Destination {
    ClickHouse(ClickHouse),
    /// The server, and a session on it.
    Postgres(Box<(Postgres, tokio_postgres::Client)>),
}

impl Bench {
    fn start(sink: Sink, interval_ms: i64) -> Self {
        let runtime = Runtime::new().expect("a runtime");
        let options = PgOptions::default().setting("synchronous_commit", "on");
        let source = Postgres::start(PgVersion::V15, &options);
        source.createdb(DATABASE);
        source.sql(
            DATABASE,
            "CREATE TABLE load (id bigserial PRIMARY KEY, n int, note text); CREATE TABLE probe (id bigint PRIMARY KEY)",
        );
        let config = Config::new(&source.url(DATABASE));
        let (config, destination) = match sink {
            Sink::ClickHouse => {
                let server = ClickHouse::start(&ClickHouseOptions::default());
                (config.clickhouse("sink", &server), Destination::ClickHouse(server))
            }
            Sink::Postgres => {
                let server = Postgres::start(PgVersion::V15, &PgOptions::default());
                server.createdb(DATABASE);
                let client = runtime.block_on(server.client(DATABASE));
                (
                    config.postgres("sink", &server, DATABASE),
                    Destination::Postgres(Box::new((server, client))),
                )
            }
        };
        let mut replicator =
            Replicator::spawn(&config.set_sink("sink", "batch.interval_ms", interval_ms), &[]);
        replicator.wait_until_ready(ARRIVAL_TIMEOUT);
        let bench = Self { sink, interval_ms, runtime, _replicator: replicator, source, destination };
        // Tables are made and sessions warm when a first row is through.
        bench.source.sql(DATABASE, "INSERT INTO load (n, note) VALUES (0, ''); INSERT INTO probe VALUES (0)");
        eventually_blocking(ARRIVAL_TIMEOUT, "a first row arrives", || {
            if bench.seen(0).contains(&0) { Ok(()) } else { Err("it is not there") }
        });
        bench
    }

    /// The probes from this one on that a reader of the sink sees.
    fn seen(&self, from: i64) -> Vec<i64> {
        match &self.destination {
            Destination::ClickHouse(server) => {
                let sql = format!("SELECT id FROM {}.probe WHERE id >= {from}", server.database());
                let rows = server.try_query(&sql).unwrap_or_default();
                rows.lines().filter_map(|line| line.parse().ok()).collect()
            }
            Destination::Postgres(session) => {
                let (_, client) = session.as_ref();
                let parameters: &[&(dyn tokio_postgres::types::ToSql + Sync)] = &[&from];
                let query = client.query("SELECT id FROM probe WHERE id >= $1", parameters);
                let rows = self.runtime.block_on(query).unwrap_or_default();
                rows.iter().map(|row| row.get(0)).collect()
            }
        }
    }

    fn measure(&self, is_loaded: bool, length: Duration) -> Figure {
        let rows =
            || -> u64 { self.source.sql(DATABASE, "SELECT count(*) FROM load").parse().expect("a count") };
        let rows_before = rows();
        let load = is_loaded.then(|| self.start_load(length + Duration::from_secs(1)));
        if is_loaded {
            // Until it is steady.
            std::thread::sleep(Duration::from_millis(500));
        }
        let first: i64 =
            self.source.sql(DATABASE, "SELECT max(id) + 1 FROM probe").parse().expect("a number");
        let is_over = AtomicBool::new(false);
        let seen_below = AtomicI64::new(first);
        let (committed, seen) = std::thread::scope(|scope| {
            let prober = scope.spawn(|| {
                let committed = self.probe(first, length, (!is_loaded).then_some(&seen_below));
                is_over.store(true, Ordering::Release);
                committed
            });
            let seen = self.watch(first, &seen_below, &is_over);
            (prober.join().expect("the probes are written"), seen)
        });
        let begun_load = load.map(|load| load.wait(length + ARRIVAL_TIMEOUT));
        let load = match begun_load {
            Some(_) => (rows() - rows_before) as f64 / (length + Duration::from_secs(1)).as_secs_f64(),
            None => 0.0,
        };
        assert_eq!(committed.len(), seen.len(), "probes written and seen");
        let mut latencies: Vec<Duration> = committed
            .iter()
            .map(|(id, committed)| seen.get(id).expect("it was seen").saturating_duration_since(*committed))
            .collect();
        latencies.sort_unstable();
        println!("  {:?}, {} ms, load {load:.0}/s: measured", self.sink, self.interval_ms);
        Figure { sink: self.sink, interval_ms: self.interval_ms, load, latencies }
    }

    fn start_load(&self, length: Duration) -> replicator_harness::RunningTool {
        let script = replicator_harness::scratch_dir("latency").join("load.sql");
        fs::write(
            &script,
            format!(
                "INSERT INTO load (n, note) SELECT n, 'a note of some length' FROM generate_series(1, {ROWS_A_TRANSACTION}) n;\n"
            ),
        )
        .expect("write the script");
        let (seconds, rate) = (length.as_secs().to_string(), TRANSACTIONS_A_SECOND.to_string());
        let script = script.to_str().expect("a scratch folder's name is text");
        self.source.start_pgbench(
            DATABASE,
            &["-n", "-M", "prepared", "-c", "2", "-f", script, "-R", &rate, "-T", &seconds],
        )
    }

    /// Writes probes, and gives when each was committed. With `seen_below`, each waits until the one before was seen.
    fn probe(&self, first: i64, length: Duration, seen_below: Option<&AtomicI64>) -> BTreeMap<i64, Instant> {
        let work = async {
            let client = self.source.client(DATABASE).await;
            let insert = client.prepare("INSERT INTO probe VALUES ($1)").await.expect("prepare");
            let begun = Instant::now();
            let mut committed = BTreeMap::new();
            let mut ticks = tokio::time::interval(PROBE_INTERVAL);
            for id in first.. {
                ticks.tick().await;
                if begun.elapsed() >= length {
                    break;
                }
                client.execute(&insert, &[&id]).await.expect("write a probe");
                committed.insert(id, Instant::now());
                if let Some(seen_below) = seen_below {
                    // Seen or not, the length of the measuring bounds it.
                    while seen_below.load(Ordering::Acquire) <= id && begun.elapsed() < length {
                        tokio::time::sleep(Duration::from_millis(1)).await;
                    }
                    tokio::time::sleep(IDLE_PAUSE).await;
                }
            }
            committed
        };
        Runtime::new().expect("a runtime").block_on(work)
    }

    /// Asks for probes until no more are written and all are there. Gives when each was seen first.
    fn watch(&self, first: i64, seen_below: &AtomicI64, is_over: &AtomicBool) -> BTreeMap<i64, Instant> {
        let mut seen = BTreeMap::new();
        // Below it all are seen.
        let mut from = first;
        let mut over_since: Option<Instant> = None;
        loop {
            let over = is_over.load(Ordering::Acquire);
            let ids = self.seen(from);
            let now = Instant::now();
            for id in ids {
                seen.entry(id).or_insert(now);
            }
            while seen.contains_key(&from) {
                from += 1;
            }
            seen_below.store(from, Ordering::Release);
            if over {
                let since = *over_since.get_or_insert(now);
                let wanted: i64 =
                    self.source.sql(DATABASE, "SELECT max(id) FROM probe").parse().expect("a number");
                if from > wanted {
                    return seen;
                }
                assert!(since.elapsed() < ARRIVAL_TIMEOUT, "probe {from} of {wanted} does not arrive");
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_sorted_latencies() {
        let latencies = (1..=200).map(Duration::from_millis).collect();
        let figure = Figure { sink: Sink::Postgres, interval_ms: 50, load: 0.0, latencies };
        assert_eq!(figure.percentile_ms(50), 100.0);
        assert_eq!(figure.percentile_ms(99), 198.0);
        assert_eq!(figure.percentile_ms(100), 200.0);
        let empty = Figure { latencies: Vec::new(), ..figure };
        assert!(empty.percentile_ms(50).is_nan());
    }
}
