//! Drains a backlog of narrow inserts by each reader in turn.
//!
//! ```text
//!   load ─▶ WAL of the source ─┬─▶ pg_recvlogical ─▶ /dev/null        the yardstick
//!                              ├─▶ replicator ─▶ blackhole            reading and decoding
//!                              ├─▶ replicator ─▶ ClickHouse
//!                              ├─▶ replicator ─▶ Postgres
//!                              └─▶ replicator ─▶ folder
//! ```
//! Every drain has a slot of its own, made before the load.

use crate::figures::{Figures, Outcome, W1, insert_rows};
use replicator_harness::{
    ClickHouse, ClickHouseOptions, Config, Finished, PgOptions, PgVersion, Postgres, Replicator, scratch_dir,
};
use std::time::Instant;

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

struct Bench {
    rows: usize,
    source: Postgres,
    target: Postgres,
    clickhouse: ClickHouse,
    end: String,
}

/// Loads `rows` and drains them so many times by each reader.
pub(crate) fn run(rows: usize, rounds: usize) -> Outcome {
    let bench = Bench::load(rows, rounds);
    let title = format!("{rows} inserts, {TRANSACTION_ROWS} a transaction, drained over TCP loopback");
    println!("{title}; median of {rounds} rounds\n");
    let mut outcome = Outcome::new("drain", title, bench.rows, "changes", &Reader::ALL.map(Reader::name));
    outcome.yardsticks = vec![(Reader::PgRecvlogical.name(), "pg_recvlogical")];
    for round in 0..rounds {
        for reader in Reader::ALL {
            outcome.add(round, reader.name(), bench.drain(reader, round));
        }
    }
    outcome
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
        source.sql("bench", W1);
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
        let insert = insert_rows(
            &format!("t * {TRANSACTION_ROWS}::bigint + 1"),
            &format!("(t + 1) * {TRANSACTION_ROWS}::bigint"),
        );
        let load = format!(
            "DO $$ BEGIN FOR t IN 0..{} LOOP {insert}; COMMIT; END LOOP; END $$",
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
        match reader {
            Reader::PgRecvlogical => self.pg_recvlogical(round),
            _ => self.replicator(reader, round),
        }
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
        Figures::of_tool(start.elapsed())
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
        Figures::of(&finished)
    }
}
