//! Drains a backlog of narrow inserts by each reader in turn, several rounds in one run, and prints medians.
//!
//! ```text
//!   load ─▶ WAL of the source ─┬─▶ pg_recvlogical ─▶ /dev/null        the yardstick
//!                              ├─▶ replicator ─▶ blackhole            reading and decoding
//!                              ├─▶ replicator ─▶ ClickHouse
//!                              ├─▶ replicator ─▶ Postgres
//!                              └─▶ replicator ─▶ folder
//! ```
//! Every drain has a slot of its own, made before the load. The machine's mood moves absolute figures by a
//! factor of two; only ratios within one run say anything. That the data arrived is asserted.
//!
//! `make bench`, or with `BENCH_ARGS="--rows 200000 --rounds 1"`.

use replicator_harness::{
    ClickHouse, ClickHouseOptions, Config, Finished, PgOptions, PgVersion, Postgres, Replicator, scratch_dir,
};
use std::time::{Duration, Instant};

const CREATE: &str = "CREATE TABLE w1 (id bigint PRIMARY KEY, n int, code varchar(8), amount numeric(12,2), \
                      note text, at timestamptz)";

/// Rows a transaction.
const TRANSACTION_ROWS: usize = 1000;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Reader {
    PgRecvlogical,
    Blackhole,
    ClickHouse,
    Postgres,
    Folder,
}

impl Reader {
    const ALL: [Self; 5] =
        [Self::PgRecvlogical, Self::Blackhole, Self::ClickHouse, Self::Postgres, Self::Folder];

    fn name(self) -> &'static str {
        match self {
            Self::PgRecvlogical => "pg_recvlogical",
            Self::Blackhole => "replicator, blackhole",
            Self::ClickHouse => "replicator, ClickHouse",
            Self::Postgres => "replicator, Postgres",
            Self::Folder => "replicator, folder",
        }
    }
}

struct Figures {
    elapsed: Duration,
    cpu: Option<Duration>,
    peak_rss_bytes: Option<u64>,
}

struct Bench {
    rows: usize,
    source: Postgres,
    target: Postgres,
    clickhouse: ClickHouse,
    end: String,
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let rows = number(&arguments, "--rows").unwrap_or(2_000_000);
    let rounds = number(&arguments, "--rounds").unwrap_or(3);
    let bench = Bench::load(rows, rounds);
    println!(
        "{rows} inserts, {TRANSACTION_ROWS} a transaction, drained over TCP loopback; median of {rounds} rounds\n"
    );
    let mut results: Vec<(Reader, Vec<Figures>)> = Reader::ALL.map(|reader| (reader, Vec::new())).into();
    for round in 0..rounds {
        for (reader, figures) in &mut results {
            figures.push(bench.drain(*reader, round));
        }
    }
    report(rows, &mut results);
}

fn number(arguments: &[String], name: &str) -> Option<usize> {
    let value =
        arguments.iter().position(|argument| argument == name).and_then(|at| arguments.get(at + 1))?;
    Some(value.parse().unwrap_or_else(|_| panic!("{name} takes a number, not {value}")))
}

fn slot(reader: Reader, round: usize) -> String {
    format!("{reader:?}_{round}").to_lowercase()
}

impl Bench {
    fn load(rows: usize, rounds: usize) -> Self {
        let options = PgOptions::default()
            .setting("max_wal_size", "8GB")
            .setting("max_replication_slots", "60")
            .setting("max_wal_senders", "60");
        let source = Postgres::start(PgVersion::V15, &options);
        source.createdb("bench");
        source.sql("bench", CREATE);
        source.sql("bench", "CREATE PUBLICATION p FOR TABLE w1");
        for reader in Reader::ALL {
            for round in 0..rounds {
                let slot = slot(reader, round);
                source.sql(
                    "bench",
                    &format!("SELECT pg_create_logical_replication_slot('{slot}', 'pgoutput')"),
                );
            }
        }
        let start = Instant::now();
        let load = format!(
            "DO $$ BEGIN FOR t IN 0..{} LOOP INSERT INTO w1 SELECT n, n % 1000, lpad((n % 100000000)::text, 8, '0'), \
             (n % 1000000) / 100.0, repeat(chr(97 + (n % 26)::int), 100), now() \
             FROM generate_series(t * {TRANSACTION_ROWS}::bigint + 1, (t + 1) * {TRANSACTION_ROWS}::bigint) n; COMMIT; \
             END LOOP; END $$",
            rows.div_ceil(TRANSACTION_ROWS) - 1
        );
        source.sql("bench", &load);
        println!("loaded in {:.1} s", start.elapsed().as_secs_f64());
        let end = source.sql("bench", "SELECT pg_current_wal_lsn()");
        let target = Postgres::start(PgVersion::V15, &PgOptions::default().setting("max_wal_size", "8GB"));
        let clickhouse = ClickHouse::start(&ClickHouseOptions::default());
        Self { rows: rows.div_ceil(TRANSACTION_ROWS) * TRANSACTION_ROWS, source, target, clickhouse, end }
    }

    fn drain(&self, reader: Reader, round: usize) -> Figures {
        let figures = match reader {
            Reader::PgRecvlogical => self.pg_recvlogical(round),
            _ => self.replicator(reader, round),
        };
        println!("  round {} {:<24} {:>9.0} changes/s", round + 1, reader.name(), self.rate(&figures));
        figures
    }

    fn rate(&self, figures: &Figures) -> f64 {
        self.rows as f64 / figures.elapsed.as_secs_f64()
    }

    fn pg_recvlogical(&self, round: usize) -> Figures {
        let start = Instant::now();
        let status = self
            .source
            .tool("pg_recvlogical", "bench")
            .args(["-h", "127.0.0.1", "-p", &self.source.port().to_string(), "-U", "postgres", "-d", "bench"])
            .args(["--slot", &slot(Reader::PgRecvlogical, round), "--start", "--no-loop", "-f", "/dev/null"])
            .args(["-o", "proto_version=1", "-o", "publication_names=p", "--endpos", &self.end])
            .status()
            .expect("pg_recvlogical");
        assert!(status.success(), "pg_recvlogical: {status}");
        Figures { elapsed: start.elapsed(), cpu: None, peak_rss_bytes: None }
    }

    fn replicator(&self, reader: Reader, round: usize) -> Figures {
        let database = format!("round_{round}");
        let config = Config::new(&self.source.url("bench"))
            .set("source.slot", slot(reader, round))
            .set("source.publication", "p")
            .set("source.create", false)
            .set("http.listen", "");
        let folder = scratch_dir("bench-archive");
        let config = match reader {
            Reader::ClickHouse => {
                config.clickhouse("sink", &self.clickhouse).set_sink("sink", "database", database.as_str())
            }
            Reader::Postgres => {
                self.target.createdb(&database);
                config.postgres("sink", &self.target, &database)
            }
            Reader::Folder => config.folder("sink", &folder),
            Reader::Blackhole | Reader::PgRecvlogical => config.blackhole("sink"),
        };
        let finished: Finished = Replicator::run_to_end(&config, &["--endpos", &self.end]);
        assert!(finished.status.success(), "{}: {}", finished.status, finished.stderr);
        let arrived = match reader {
            Reader::ClickHouse => {
                let count = self.clickhouse.query(&format!("SELECT uniqExact(id) FROM {database}.w1 FINAL"));
                self.clickhouse.query(&format!("DROP DATABASE {database}"));
                Some(count.trim().to_owned())
            }
            Reader::Postgres => {
                let count = self.target.sql(&database, "SELECT count(DISTINCT id) FROM w1");
                self.target.sql("postgres", &format!("DROP DATABASE {database}"));
                Some(count)
            }
            Reader::Folder => Some(replicator_harness::archive_events(&folder).len().to_string()),
            Reader::Blackhole | Reader::PgRecvlogical => None,
        };
        if let Some(count) = arrived {
            assert_eq!(count, self.rows.to_string(), "{reader:?}");
        }
        let _ = std::fs::remove_dir_all(&folder);
        Figures {
            elapsed: finished.elapsed,
            cpu: Some(finished.cpu),
            peak_rss_bytes: Some(finished.peak_rss_bytes),
        }
    }
}

fn report(rows: usize, results: &mut [(Reader, Vec<Figures>)]) {
    let mut yardstick = 0.0;
    println!("\n| reader | changes/s | × pg_recvlogical | CPU µs a change | peak RSS MB |");
    println!("|---|---|---|---|---|");
    for (reader, figures) in results {
        figures.sort_by_key(|figures| figures.elapsed);
        let median = &figures[figures.len() / 2];
        let rate = rows as f64 / median.elapsed.as_secs_f64();
        if *reader == Reader::PgRecvlogical {
            yardstick = rate;
        }
        let cpu = median
            .cpu
            .map_or_else(String::new, |cpu| format!("{:.2}", cpu.as_secs_f64() * 1e6 / rows as f64));
        let peak = figures.iter().filter_map(|figures| figures.peak_rss_bytes).max();
        let rss = peak.map_or_else(String::new, |bytes| format!("{:.0}", bytes as f64 / 1e6));
        println!("| {} | {rate:.0} | {:.2} | {cpu} | {rss} |", reader.name(), rate / yardstick);
    }
}
