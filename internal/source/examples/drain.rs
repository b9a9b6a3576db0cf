//! How fast a backlog is read to nothing, beside `pg_recvlogical` on the same server in the same run.
//!
//! `cargo run --release -p replicator-source --example drain [rows [repeats]]`
//!
//! The backlog is W1: inserts of (bigint key, int, text 8, numeric(12,2), text 100, timestamptz), 1000 a
//! transaction. Every reading has a copy of the same slot. Prints changes a second, the processor time of the
//! reader and of the walsender, and the medians. The walsender's time tells most: it is what the reader can
//! change, and does not depend on what else the machine does.
//!
//! On two cores, with Postgres 15 and nothing else running, a million changes: TCP 350k/s, where pg_recvlogical
//! has 150k/s; TLS 217k/s and 124k/s; a unix socket 160k/s and 167k/s, for there is nothing to gather there.
//! Over TCP the walsender is then never idle and spends 2.7 s, with pg_recvlogical 3.5 to 6.5 s. Fails when over
//! TCP the reader is not at least a fifth faster, as when its bursts do not work.

use replicator_config::{
    BinaryValues, OriginFilter, Secret, Snapshot, SourceConfig, StreamingMode, TablePatterns,
};
use replicator_harness::{PgOptions, PgVersion, Postgres};
use replicator_source::{Source, StreamOptions};
use replicator_types::{Budget, Lsn};
use slog::{Discard, Logger, o};
use std::time::{Duration, Instant};
use tokio::sync::watch;

const LOAD: &str = "
CREATE TABLE w1 (id bigint PRIMARY KEY, n int, code text, amount numeric(12,2), note text, at timestamptz);
CREATE PUBLICATION drain FOR TABLE w1;
SELECT pg_create_logical_replication_slot('base', 'pgoutput');
CREATE PROCEDURE load(transactions int) LANGUAGE plpgsql AS $$
BEGIN
  FOR t IN 0 .. transactions - 1 LOOP
    INSERT INTO w1 SELECT i, i % 1000, lpad((i % 99999999)::text, 8, '0'), (i % 1000000) / 100.0,
                          rpad(i::text, 100, 'x'), timestamptz '2026-01-01' + i * interval '1 second'
    FROM generate_series(t * 1000 + 1, t * 1000 + 1000) AS i;
    COMMIT;
  END LOOP;
END $$;";

fn main() {
    let mut arguments = std::env::args().skip(1).filter_map(|argument| argument.parse::<u64>().ok());
    let rows = arguments.next().unwrap_or(2_000_000).next_multiple_of(1000);
    let repeats = arguments.next().unwrap_or(3);
    let options =
        PgOptions::default().setting("max_wal_size", "8GB").setting("max_replication_slots", "64").tls();
    let postgres = Postgres::start(PgVersion::V15, &options);
    postgres.sql("postgres", LOAD);
    postgres.sql("postgres", &format!("CALL load({})", rows / 1000));
    println!("{rows} rows loaded");

    let mut medians = Vec::new();
    for way in ["tcp", "tls", "unix"] {
        let mut ours = Vec::new();
        let mut theirs = Vec::new();
        for repeat in 0..repeats {
            theirs.push(run(way, "pg_recvlogical", rows, || pg_recvlogical(&postgres, way, repeat)));
            ours.push(run(way, "reader", rows, || read(&postgres, way, repeat, rows, &NARROW)));
        }
        let (ours, theirs) = (median(ours), median(theirs));
        println!("{way}: reader {ours:.0}k/s, pg_recvlogical {theirs:.0}k/s, {:.2} times", ours / theirs);
        medians.push(ours / theirs);
    }
    compare_binary(&postgres, rows, repeats);
    let over_tcp = medians.first().copied().unwrap_or_default();
    assert!(over_tcp >= 1.2, "over TCP the reader is only {over_tcp:.2} times as fast as pg_recvlogical");
}

/// Values as text and in binary form, over TCP, of the narrow rows and of wide ones (W3: 60 columns of mixed types).
fn compare_binary(postgres: &Postgres, narrow_rows: u64, repeats: u64) {
    let wide_rows = narrow_rows.div_ceil(10);
    let columns: Vec<String> = (0..60)
        .map(|i| {
            let sort = ["bigint", "int", "numeric(12,2)", "timestamptz", "text", "float8"][i % 6];
            format!("c{i} {sort}")
        })
        .collect();
    let values: Vec<&str> = (0..60)
        .map(|i| {
            [
                "i",
                "i % 1000",
                "i / 100.0",
                "timestamptz '2026-01-01' + i * interval '1 s'",
                "'note ' || i",
                "i / 7.0",
            ][i % 6]
        })
        .collect();
    postgres.sql("postgres", &format!("CREATE TABLE w3 ({})", columns.join(", ")));
    postgres.sql("postgres", "CREATE PUBLICATION wide FOR TABLE w3");
    postgres.sql("postgres", "SELECT pg_create_logical_replication_slot('base_wide', 'pgoutput')");
    let insert = format!("INSERT INTO w3 SELECT {} FROM generate_series", values.join(", "));
    for from in (1..=wide_rows).step_by(1000) {
        postgres.sql("postgres", &format!("{insert}({from}, {}) AS i", (from + 999).min(wide_rows)));
    }
    for (load, base, publication, rows) in
        [("narrow", "base", "drain", narrow_rows), ("wide", "base_wide", "wide", wide_rows)]
    {
        let mut rates = [Vec::new(), Vec::new()];
        for repeat in 0..repeats {
            for (binary, rates) in [false, true].into_iter().zip(&mut rates) {
                let who = format!("{load}, {}", if binary { "binary" } else { "text" });
                let backlog = Backlog { base, publication, binary };
                rates.push(run("tcp", &who, rows, || read(postgres, "tcp", repeat, rows, &backlog)));
            }
        }
        let [text, binary] = rates.map(median);
        println!("{load}: binary {binary:.0}k/s, text {text:.0}k/s, {:.2} times", binary / text);
    }
}

/// What is read.
struct Backlog<'a> {
    /// The slot to copy.
    base: &'a str,
    publication: &'a str,
    binary: bool,
}

const NARROW: Backlog<'static> = Backlog { base: "base", publication: "drain", binary: false };

/// Thousands of changes a second.
fn run(way: &str, who: &str, rows: u64, work: impl FnOnce() -> (Duration, Duration)) -> f64 {
    let began = Instant::now();
    let (own, sender) = work();
    let took = began.elapsed();
    let rate = rows as f64 / took.as_secs_f64() / 1e3;
    println!(
        "  {way:4} {who:14} {rate:6.0}k/s  {:5.2} s, CPU {:5.2} s, the sender's {:5.2} s",
        took.as_secs_f64(),
        own.as_secs_f64(),
        sender.as_secs_f64()
    );
    rate
}

fn median(mut rates: Vec<f64>) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates.get(rates.len() / 2).copied().unwrap_or_default()
}

fn copy_slot(postgres: &Postgres, base: &str, name: &str) {
    postgres.sql("postgres", &format!("SELECT pg_copy_logical_replication_slot('{base}', '{name}')"));
}

fn drop_slot(postgres: &Postgres, name: &str) {
    let drop = format!("SELECT pg_drop_replication_slot('{name}')");
    while postgres.try_sql("postgres", &drop).is_err() {
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn pg_recvlogical(postgres: &Postgres, way: &str, repeat: u64) -> (Duration, Duration) {
    let slot = format!("theirs_{way}_{repeat}");
    copy_slot(postgres, "base", &slot);
    let end = postgres.sql("postgres", "SELECT pg_current_wal_lsn()");
    let mut command = postgres.tool("pg_recvlogical", "postgres");
    if way != "unix" {
        command.env("PGHOST", "127.0.0.1").env("PGSSLMODE", if way == "tls" { "require" } else { "disable" });
    }
    command.args(["-d", "postgres", "--start", "--no-loop", "-f", "/dev/null", "-S", &slot, "-E", &end]);
    command.args(["-o", "proto_version=1", "-o", "publication_names=drain"]);
    let sender = watch_sender(postgres, &slot);
    let before = cpu_of("self", CHILDREN);
    let status = command.status().expect("run pg_recvlogical");
    assert!(status.success(), "pg_recvlogical: {status}");
    let used = cpu_of("self", CHILDREN).zip(before).map_or(Duration::ZERO, |(after, before)| after - before);
    let sender = sender.join().expect("the sampling thread");
    drop_slot(postgres, &slot);
    (used, sender)
}

fn read(postgres: &Postgres, way: &str, repeat: u64, rows: u64, of: &Backlog<'_>) -> (Duration, Duration) {
    let slot = format!("ours_{way}_{repeat}");
    copy_slot(postgres, of.base, &slot);
    let url = match way {
        "tcp" => postgres.url("postgres"),
        "tls" => postgres.url_as("postgres", "postgres", "sslmode=require"),
        _ => postgres.socket_url("postgres"),
    };
    let config = SourceConfig {
        url: Secret::new(url),
        password: Secret::default(),
        password_file: None,
        slot: slot.clone(),
        publication: of.publication.into(),
        create: false,
        tables: TablePatterns::default(),
        snapshot: Snapshot::Never,
        binary: BinaryValues::Off,
        streaming: StreamingMode::Off,
        two_phase: false,
        failover: true,
        messages: false,
        origin: OriginFilter::Any,
        heartbeat_interval_ms: 0,
        catalog_interval_ms: 0,
        status_interval_ms: 10_000,
        connect_timeout_ms: 10_000,
    };
    let sender = watch_sender(postgres, &slot);
    let before = cpu_of("self", OWN);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let (chunks, bytes) = runtime.block_on(async {
        let options = StreamOptions { binary: of.binary, ..StreamOptions::default() };
        let source = Source::new(config, Logger::root(Discard, o!())).expect("a source");
        let source = source.with_stream_options(options);
        source.prepare().await.expect("prepare");
        let (mut reader, feedback) = source.stream(Lsn::ZERO, Budget::new(256 << 20)).await.expect("stream");
        let (watermark, receiver) = watch::channel(Lsn::ZERO);
        let feedback = tokio::spawn(feedback.run(receiver));
        let (mut inserts, mut chunks, mut bytes) = (0, 0_u64, 0);
        while inserts < rows {
            let chunk = reader.next_chunk().await.expect("a chunk");
            inserts += count_inserts(&chunk.bytes);
            chunks += 1;
            bytes += chunk.bytes.len();
        }
        drop(watermark);
        feedback.await.expect("feedback's task").expect("feedback");
        (chunks, bytes)
    });
    println!("       {chunks} chunks of {} bytes", bytes as u64 / chunks.max(1));
    let used = cpu_of("self", OWN).zip(before).map_or(Duration::ZERO, |(after, before)| after - before);
    let sender = sender.join().expect("the sampling thread");
    drop_slot(postgres, &slot);
    (used, sender)
}

fn count_inserts(mut bytes: &[u8]) -> u64 {
    let mut inserts = 0;
    while let Some((&[_, a, b, c, d], rest)) = bytes.split_first_chunk::<5>() {
        let (body, rest) = rest.split_at(u32::from_be_bytes([a, b, c, d]) as usize - 4);
        inserts += u64::from(body[0] == b'w' && body[25] == b'I');
        bytes = rest;
    }
    inserts
}

/// CPU time of the walsender that reads `slot`, sampled until it ends.
fn watch_sender(postgres: &Postgres, slot: &str) -> std::thread::JoinHandle<Duration> {
    let find = format!("SELECT active_pid FROM pg_replication_slots WHERE slot_name = '{slot}'");
    let mut psql = postgres.tool("psql", "postgres");
    psql.args(["-XAtc", &find]);
    std::thread::spawn(move || {
        let pid = loop {
            let output = psql.output().expect("run psql").stdout;
            match String::from_utf8_lossy(&output).trim() {
                "" => std::thread::sleep(Duration::from_millis(20)),
                pid => break pid.to_owned(),
            }
        };
        let mut used = Duration::ZERO;
        while let Some(now) = cpu_of(&pid, OWN) {
            used = now;
            std::thread::sleep(Duration::from_millis(20));
        }
        used
    })
}

/// `utime` and `stime`.
const OWN: [usize; 2] = [14, 15];
/// The same of children that were waited for.
const CHILDREN: [usize; 2] = [16, 17];

/// The sum of two times out of proc(5)'s `stat`, whose fields count from 1; they are in ticks of 10 ms.
fn cpu_of(process: &str, fields: [usize; 2]) -> Option<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // After the name, which may hold anything, comes field 3.
    let values: Vec<&str> = stat.rsplit(')').next()?.split_whitespace().collect();
    let ticks =
        fields.map(|field| values.get(field - 3).and_then(|value| value.parse::<u64>().ok()).unwrap_or(0));
    Some(Duration::from_millis(ticks.iter().sum::<u64>() * 10))
}
