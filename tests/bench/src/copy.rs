//! Copies a table of narrow rows in each way in turn.
//!
//! ```text
//!   rows of the source ─┬─▶ COPY … TO STDOUT (FORMAT binary), one connection ─▶ /dev/null    the yardsticks:
//!                       ├─▶ Postgres' own subscription ─▶ Postgres                           these two
//!                       ├─▶ replicator, snapshot = "only" ─▶ ClickHouse
//!                       └─▶ replicator, snapshot = "only" ─▶ Postgres
//! ```
//! The replicator's time is that of its process, from start to end; the subscription's is that from
//! `CREATE SUBSCRIPTION` until the server calls the table's copy finished.

use crate::drain::target_options;
use crate::figures::{Figures, Outcome, Target};
use crate::options::with_settings;
use crate::workload::{W1_TABLE, insert_w1};
use replicator_harness::{ClickHouse, ClickHouseOptions, Config, PgOptions, PgVersion, Postgres, Replicator};
use std::process::Stdio;
use std::time::Instant;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Way {
    CopyBinary,
    Subscription,
    ClickHouse,
    Postgres,
}

impl Way {
    const ALL: [Self; 4] = [Self::CopyBinary, Self::Subscription, Self::ClickHouse, Self::Postgres];

    fn name(self) -> &'static str {
        match self {
            Self::CopyBinary => "COPY binary, /dev/null",
            Self::Subscription => "subscription",
            Self::ClickHouse => "replicator, ClickHouse",
            Self::Postgres => "replicator, Postgres",
        }
    }

    /// What is promised.
    fn target(self) -> Target {
        let least = match self {
            Self::ClickHouse => Some((Self::CopyBinary.name(), 0.8)),
            Self::Postgres => Some((Self::Subscription.name(), 2.0)),
            Self::CopyBinary | Self::Subscription => None,
        };
        Target { least, most: None }
    }
}

struct Bench<'a> {
    rows: usize,
    source: Postgres,
    target: Postgres,
    clickhouse: ClickHouse,
    settings: &'a [(String, toml::Value)],
}

/// Loads `rows` and copies them so many times in each way.
pub(crate) fn run(rows: usize, rounds: usize, settings: &[(String, toml::Value)]) -> Outcome {
    let bench = Bench::load(rows, settings);
    let title = format!("{rows} rows, copied over TCP loopback");
    println!("{title}; median of {rounds} rounds\n");
    let mut outcome =
        Outcome::new("copy", title, rows, "rows", Way::ALL.map(|way| (way.name(), way.target())));
    outcome.yardsticks =
        vec![(Way::CopyBinary.name(), "COPY binary"), (Way::Subscription.name(), "subscription")];
    for round in 0..rounds {
        for way in Way::ALL {
            outcome.add(round, way.name(), bench.copy(way, round));
        }
    }
    outcome
}

impl<'a> Bench<'a> {
    fn load(rows: usize, settings: &'a [(String, toml::Value)]) -> Self {
        let source = Postgres::start(PgVersion::V15, &PgOptions::default().setting("max_wal_size", "8GB"));
        source.createdb("bench");
        source.sql("bench", W1_TABLE);
        let start = Instant::now();
        source.sql("bench", &insert_w1("1", &rows.to_string()));
        source.sql("bench", "CREATE PUBLICATION p FOR TABLE w1");
        // What the first reader of fresh rows does for all others: hint bits. And nothing is to be written meanwhile.
        source.sql("bench", "VACUUM (FREEZE, ANALYZE) w1");
        source.sql("bench", "CHECKPOINT");
        println!("loaded in {:.1} s", start.elapsed().as_secs_f64());
        let target = Postgres::start(PgVersion::V15, &target_options());
        let clickhouse = ClickHouse::start(&ClickHouseOptions::default());
        Self { rows, source, target, clickhouse, settings }
    }

    fn copy(&self, way: Way, round: usize) -> Figures {
        let name = format!("{way:?}_{round}").to_lowercase();
        match way {
            Way::CopyBinary => self.copy_binary(),
            Way::Subscription => self.subscription(&name),
            Way::ClickHouse => self.replicator_into_clickhouse(&name),
            Way::Postgres => self.replicator_into_postgres(&name),
        }
    }

    fn copy_binary(&self) -> Figures {
        let start = Instant::now();
        let status = self
            .source
            .tool("psql", "bench")
            .args(["-h", "127.0.0.1", "-X", "-q", "-c", "COPY w1 TO STDOUT (FORMAT binary)"])
            .stdout(Stdio::null())
            .status()
            .expect("psql");
        assert!(status.success(), "psql: {status}");
        Figures::of_tool(start.elapsed())
    }

    fn subscription(&self, database: &str) -> Figures {
        self.target.createdb(database);
        self.target.sql(database, W1_TABLE);
        let start = Instant::now();
        self.target.sql(
            database,
            &format!(
                "CREATE SUBSCRIPTION {database} CONNECTION 'host=127.0.0.1 port={} user=postgres dbname=bench' \
                 PUBLICATION p",
                self.source.port()
            ),
        );
        // One session that looks again and again: starting a client for each look would take its share of the machine.
        self.target.sql(
            database,
            "DO $$ BEGIN WHILE EXISTS (SELECT FROM pg_subscription_rel WHERE srsubstate NOT IN ('f', 's', 'r')) LOOP
               PERFORM pg_sleep(0.01); END LOOP; END $$",
        );
        let figures = Figures::of_tool(start.elapsed());
        self.assert_arrived(database);
        self.target.sql(database, &format!("DROP SUBSCRIPTION {database}"));
        self.target.sql("postgres", &format!("DROP DATABASE {database}"));
        figures
    }

    fn replicator_into_postgres(&self, database: &str) -> Figures {
        self.target.createdb(database);
        let figures = self.replicator(database, |config| config.postgres("sink", &self.target, database));
        self.assert_arrived(database);
        self.target.sql("postgres", &format!("DROP DATABASE {database}"));
        figures
    }

    fn replicator_into_clickhouse(&self, database: &str) -> Figures {
        let figures = self.replicator(database, |config| {
            config.clickhouse("sink", &self.clickhouse).set_sink("sink", "database", database)
        });
        let count = self.clickhouse.query(&format!("SELECT uniqExact(id) FROM {database}.w1"));
        assert_eq!(count.trim(), self.rows.to_string(), "ClickHouse");
        self.clickhouse.query(&format!("DROP DATABASE {database}"));
        figures
    }

    fn replicator(&self, slot: &str, with_sink: impl FnOnce(Config) -> Config) -> Figures {
        let config = Config::new(&self.source.url("bench"))
            .set("source.slot", slot)
            .set("source.publication", "p")
            .set("source.snapshot", "only")
            .set("http.listen", "");
        let config = with_settings(with_sink(config), self.settings);
        let finished = Replicator::run_to_end(&config, &[]);
        assert!(finished.status.success(), "{}: {}", finished.status, finished.stderr);
        self.source.sql("bench", &format!("SELECT pg_drop_replication_slot('{slot}')"));
        Figures::of(&finished)
    }

    fn assert_arrived(&self, database: &str) {
        let counted = self.target.sql(database, "SELECT count(DISTINCT id) FROM w1");
        assert_eq!(counted, self.rows.to_string(), "{database}");
    }
}
