//! How fast a table is copied to nothing, beside `COPY … TO STDOUT (FORMAT binary)` by `psql` on the same server in
//! the same run.
//!
//! `cargo run --release -p replicator-source --example read_table [rows [repeats]]`
//!
//! The table is W1's (bigint key, int, text 8, numeric(12,2), text 100, timestamptz). Prints rows a second, and the
//! processor time of this process for a million rows, which hardly depends on what else the machine does.

use replicator_config::{
    BinaryValues, OriginFilter, Secret, Snapshot, SourceConfig, StreamingMode, TablePatterns,
};
use replicator_harness::{PgOptions, PgVersion, Postgres};
use replicator_source::{CopyLimits, Source};
use replicator_types::{BatchBuilder, Budget, Phase, TxnId};
use slog::{Discard, Logger, o};
use std::time::{Duration, Instant};

/// As the configuration has it.
const RANGE_BYTES: u32 = 64 << 20;
const LIMITS: CopyLimits = CopyLimits { rows_max: 200_000, bytes_max: 16 << 20 };

fn main() {
    let mut arguments = std::env::args().skip(1).filter_map(|argument| argument.parse::<u64>().ok());
    let rows = arguments.next().unwrap_or(2_000_000);
    let repeats = arguments.next().unwrap_or(3);
    let postgres = Postgres::start(PgVersion::V15, &PgOptions::default().setting("max_wal_size", "8GB"));
    let load = format!(
        "CREATE TABLE w1 (id bigint PRIMARY KEY, n int, code text, amount numeric(12,2), note text, at timestamptz);
         INSERT INTO w1 SELECT i, i % 1000, lpad((i % 99999999)::text, 8, '0'), (i % 1000000) / 100.0,
                               rpad(i::text, 100, 'x'), timestamptz '2026-01-01' + i * interval '1 second'
         FROM generate_series(1, {rows}) AS i;
         CREATE PUBLICATION copied FOR TABLE w1;"
    );
    postgres.sql("postgres", &load);
    // Not inside the load's transaction.
    postgres.sql("postgres", "VACUUM (FREEZE, ANALYZE) w1");
    println!("{rows} rows loaded");
    for way in ["tcp", "unix"] {
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..repeats {
            let began = Instant::now();
            psql(&postgres, way);
            theirs.push(rate(rows, began.elapsed()));
            let (began, before) = (Instant::now(), own_cpu());
            let copied = copy(&postgres, way);
            assert_eq!(copied, rows, "every row is copied");
            ours.push(rate(rows, began.elapsed()));
            let used = own_cpu().saturating_sub(before).as_secs_f64() * 1e6 / rows as f64;
            println!("  {way:4} {:5.0}k/s, CPU {used:.2} s a million rows", ours.last().unwrap_or(&0.0));
        }
        let (ours, theirs) = (median(ours), median(theirs));
        println!("{way}: worker {ours:.0}k/s, psql {theirs:.0}k/s, {:.2} times", ours / theirs);
    }
}

fn rate(rows: u64, took: Duration) -> f64 {
    rows as f64 / took.as_secs_f64() / 1e3
}

fn median(mut rates: Vec<f64>) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates.get(rates.len() / 2).copied().unwrap_or_default()
}

fn psql(postgres: &Postgres, way: &str) {
    let mut command = postgres.tool("psql", "postgres");
    if way == "tcp" {
        command.env("PGHOST", "127.0.0.1").env("PGSSLMODE", "disable");
    }
    command.args(["-Xqc", "\\copy w1 TO '/dev/null' (FORMAT binary)"]);
    let status = command.status().expect("run psql");
    assert!(status.success(), "psql: {status}");
}

fn copy(postgres: &Postgres, way: &str) -> u64 {
    let url = if way == "tcp" { postgres.url("postgres") } else { postgres.socket_url("postgres") };
    let config = SourceConfig {
        url: Secret::new(url),
        password: Secret::default(),
        password_file: None,
        slot: "copy".into(),
        publication: "copied".into(),
        create: false,
        tables: TablePatterns::default(),
        snapshot: Snapshot::Initial,
        binary: BinaryValues::Auto,
        streaming: StreamingMode::Auto,
        two_phase: false,
        failover: true,
        messages: false,
        origin: OriginFilter::Any,
        heartbeat_interval_ms: 0,
        catalog_interval_ms: 0,
        status_interval_ms: 10_000,
        connect_timeout_ms: 10_000,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let source = Source::new(config, Logger::root(Discard, o!())).expect("a source");
        let snapshot = source.snapshot().await.expect("a snapshot");
        let mut worker = snapshot.worker();
        let mut builder = BatchBuilder::of_phase(Budget::new(64 << 20), Phase::Copy { fresh: true });
        let transaction = snapshot.transaction(TxnId(0));
        let mut rows = 0;
        for table in snapshot.tables().await.expect("tables") {
            for (number, part) in table.parts.iter().enumerate() {
                let step = RANGE_BYTES / 8192;
                for from in (0..part.blocks.max(1)).step_by(step as usize) {
                    let range = from..(from + step).min(part.blocks);
                    worker.begin(&table, number, range, None).await.expect("a range");
                    while let Some(batch) =
                        worker.next_batch(&mut builder, &transaction, &LIMITS).await.expect("a batch")
                    {
                        rows += batch.len() as u64;
                    }
                }
            }
        }
        rows
    })
}

/// `utime` and `stime` of proc(5)'s `stat`, in ticks of 10 ms.
fn own_cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks =
        [11, 12].map(|field| fields.get(field).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0));
    Duration::from_millis(ticks.iter().sum::<u64>() * 10)
}
