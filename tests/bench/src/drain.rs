//! Drains a backlog by each reader in turn.
//!
//! ```text
//!   load ─▶ WAL of the source ─┬─▶ pg_recvlogical ─▶ /dev/null         TCP, Unix socket      the yardsticks:
//!                              ├─▶ subscription ─▶ Postgres            text, binary          these two
//!                              ├─▶ replicator ─▶ blackhole             TCP, Unix socket
//!                              ├─▶ replicator ─▶ ClickHouse
//!                              ├─▶ replicator ─▶ Postgres
//!                              └─▶ replicator ─▶ archive, lake         folders
//! ```
//! Every drain has a slot of its own, made before the load, and a target of its own, which has what was in the source
//! before the slots. A tool's or replicator's time is that of its process, from start to end; a subscription's that from
//! `CREATE SUBSCRIPTION` until the target shows the backlog's last transaction. What has arrived is compared each time.

use crate::arrived::{self, Checksum};
use crate::cpu;
use crate::figures::{Figures, Outcome, Target};
use crate::options::with_settings;
use crate::targets;
use crate::workload::{END_TABLE, Workload};
use replicator_harness::{
    ClickHouse, ClickHouseOptions, Config, PgOptions, PgVersion, Postgres, Replicator, scratch_dir,
};
use std::path::Path;
use std::time::{Duration, Instant};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Reader {
    Recvlogical,
    RecvlogicalUnix,
    Subscription,
    SubscriptionBinary,
    Blackhole,
    BlackholeUnix,
    ClickHouse,
    Postgres,
    Archive,
    Lake,
}

impl Reader {
    pub(crate) const ALL: [Self; 10] = [
        Self::Recvlogical,
        Self::RecvlogicalUnix,
        Self::Subscription,
        Self::SubscriptionBinary,
        Self::Blackhole,
        Self::BlackholeUnix,
        Self::ClickHouse,
        Self::Postgres,
        Self::Archive,
        Self::Lake,
    ];

    /// As `--readers` has it, and slots.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Recvlogical => "recvlogical",
            Self::RecvlogicalUnix => "recvlogical_unix",
            Self::Subscription => "subscription",
            Self::SubscriptionBinary => "subscription_binary",
            Self::Blackhole => "blackhole",
            Self::BlackholeUnix => "blackhole_unix",
            Self::ClickHouse => "clickhouse",
            Self::Postgres => "postgres",
            Self::Archive => "archive",
            Self::Lake => "lake",
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Recvlogical => "pg_recvlogical",
            Self::RecvlogicalUnix => "pg_recvlogical, unix",
            Self::Subscription => "subscription, text",
            Self::SubscriptionBinary => "subscription, binary",
            Self::Blackhole => "replicator, blackhole",
            Self::BlackholeUnix => "replicator, blackhole, unix",
            Self::ClickHouse => "replicator, ClickHouse",
            Self::Postgres => "replicator, Postgres",
            Self::Archive => "replicator, archive",
            Self::Lake => "replicator, lake",
        }
    }

    /// What it is measured by.
    pub(crate) fn yardstick(self) -> Self {
        match self {
            Self::Postgres => Self::SubscriptionBinary,
            Self::BlackholeUnix => Self::RecvlogicalUnix,
            _ => Self::Recvlogical,
        }
    }

    /// Whether it writes into the target Postgres.
    fn is_into_postgres(self) -> bool {
        matches!(self, Self::Subscription | Self::SubscriptionBinary | Self::Postgres)
    }

    fn target(self, workload: Workload) -> Target {
        Target {
            least: targets::least(workload, self).map(|(yardstick, ratio)| (yardstick.name(), ratio)),
            most: targets::most(workload, self),
        }
    }
}

/// A database of the source and, as a template, of the target.
const DATABASE: &str = "bench";
/// Longer than any drain.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(1800);

struct Bench<'a> {
    workload: Workload,
    source: Postgres,
    target: Option<Postgres>,
    clickhouse: Option<ClickHouse>,
    /// Set for the replicator, `path=value`.
    settings: &'a [(String, toml::Value)],
    /// End of the backlog.
    end: String,
    expected: Vec<Checksum>,
    changes: usize,
}

/// Loads `changes` and drains them so many times by each reader.
pub(crate) fn run(
    workload: Workload,
    changes: usize,
    rounds: usize,
    readers: &[Reader],
    settings: &[(String, toml::Value)],
) -> Outcome {
    let bench = Bench::load(workload, workload.rounded(changes), rounds, readers, settings);
    let title = workload.title(bench.changes);
    println!("{title}; median of {rounds} rounds\n");
    let named = readers.iter().map(|reader| (reader.name(), reader.target(workload)));
    let mut outcome = Outcome::new(workload.name(), title, bench.changes, "changes", named);
    outcome.yardsticks = vec![
        (Reader::Recvlogical.name(), "pg_recvlogical"),
        (Reader::RecvlogicalUnix.name(), "the same, unix"),
        (Reader::SubscriptionBinary.name(), "subscription"),
    ];
    for round in 0..rounds {
        for reader in readers {
            outcome.add(round, reader.name(), bench.drain(*reader, round));
        }
    }
    outcome
}

fn slot(reader: Reader, round: usize) -> String {
    format!("{}_{round}", reader.word())
}

/// A source with the workload's tables, and slots before its load.
pub(crate) fn source(workload: Workload, changes: usize, slots: &[String]) -> Postgres {
    let slots_max = (slots.len() + 10).to_string();
    let options = PgOptions::default()
        .setting("max_wal_size", "8GB")
        .setting("max_replication_slots", &slots_max)
        .setting("max_wal_senders", &slots_max)
        // Nothing is to be written beside a drain, and nothing vacuumed.
        .setting("autovacuum", "off");
    let source = Postgres::start(PgVersion::V15, &options);
    source.createdb(DATABASE);
    let start = Instant::now();
    workload.create(&source, DATABASE, changes);
    let tables: Vec<&str> = workload.tables().iter().map(|table| table.name).chain([END_TABLE]).collect();
    source.sql(DATABASE, &format!("CREATE PUBLICATION p FOR TABLE {}", tables.join(", ")));
    for slot in slots {
        source.sql(DATABASE, &format!("SELECT pg_create_logical_replication_slot('{slot}', 'pgoutput')"));
    }
    workload.load(&source, DATABASE, changes);
    source.sql(DATABASE, "CHECKPOINT");
    println!("{} loaded in {:.1} s", workload.name(), start.elapsed().as_secs_f64());
    source
}

/// Of a server that takes changes.
pub(crate) fn target_options() -> PgOptions {
    // A subscription made less than 5 s after another would wait for that long before it begins.
    PgOptions::default().setting("max_wal_size", "8GB").setting("wal_retrieve_retry_interval", "10ms")
}

/// The configuration that reads a slot made beforehand, from its beginning and no copy of what was before.
pub(crate) fn config(source_url: &str, slot: &str) -> Config {
    Config::new(source_url)
        .set("source.slot", slot)
        .set("source.publication", "p")
        .set("source.create", false)
        .set("source.snapshot", "never")
}

impl<'a> Bench<'a> {
    fn load(
        workload: Workload,
        changes: usize,
        rounds: usize,
        readers: &[Reader],
        settings: &'a [(String, toml::Value)],
    ) -> Self {
        let slots: Vec<String> =
            (0..rounds).flat_map(|round| readers.iter().map(move |reader| slot(*reader, round))).collect();
        let source = source(workload, changes, &slots);
        let end = source.sql(DATABASE, "SELECT pg_current_wal_lsn()");
        let expected =
            workload.tables().iter().map(|table| arrived::at_source(&source, DATABASE, table)).collect();
        let target = readers.iter().any(|reader| reader.is_into_postgres()).then(|| {
            let target = Postgres::start(PgVersion::V15, &target_options());
            target.createdb(DATABASE);
            workload.create(&target, DATABASE, changes);
            target
        });
        let clickhouse =
            readers.contains(&Reader::ClickHouse).then(|| ClickHouse::start(&ClickHouseOptions::default()));
        Self { workload, source, target, clickhouse, settings, end, expected, changes }
    }

    fn drain(&self, reader: Reader, round: usize) -> Figures {
        let database = slot(reader, round);
        if reader.is_into_postgres() {
            self.target().sql("postgres", &format!("CREATE DATABASE {database} TEMPLATE {DATABASE}"));
            self.target().sql("postgres", "CHECKPOINT");
        }
        let folder = scratch_dir("bench-folder");
        let (source_before, sink_before) = (cpu::of_postgres(&self.source), self.sink_cpu(reader));
        let mut figures = match reader {
            Reader::Recvlogical | Reader::RecvlogicalUnix => self.pg_recvlogical(reader, &database),
            Reader::Subscription | Reader::SubscriptionBinary => self.subscription(reader, &database),
            _ => self.replicator(reader, &database, &folder),
        };
        figures.source_cpu = Some(cpu::of_postgres(&self.source).saturating_sub(source_before));
        figures.sink_cpu =
            self.sink_cpu(reader).zip(sink_before).map(|(after, before)| after.saturating_sub(before));
        self.assert_arrived(reader, &database, &folder);
        if matches!(reader, Reader::Subscription | Reader::SubscriptionBinary) {
            self.target().sql(&database, &format!("DROP SUBSCRIPTION {database}"));
        } else {
            self.source.sql(DATABASE, &format!("SELECT pg_drop_replication_slot('{database}')"));
        }
        if reader.is_into_postgres() {
            self.target().sql("postgres", &format!("DROP DATABASE {database}"));
        }
        let _ = std::fs::remove_dir_all(&folder);
        figures
    }

    fn target(&self) -> &Postgres {
        self.target.as_ref().expect("a reader that writes into it has had it started")
    }

    fn clickhouse(&self) -> &ClickHouse {
        self.clickhouse.as_ref().expect("a reader that writes into it has had it started")
    }

    fn sink_cpu(&self, reader: Reader) -> Option<Duration> {
        match reader {
            Reader::ClickHouse => cpu::of_clickhouse(self.clickhouse()),
            reader if reader.is_into_postgres() => Some(cpu::of_postgres(self.target())),
            _ => None,
        }
    }

    fn pg_recvlogical(&self, reader: Reader, slot: &str) -> Figures {
        let mut command = self.source.tool("pg_recvlogical", DATABASE);
        if reader == Reader::Recvlogical {
            command.args(["-h", "127.0.0.1"]);
        }
        command.args(["-d", DATABASE, "--slot", slot, "--start", "--no-loop", "-f", "/dev/null"]).args([
            "-o",
            "proto_version=1",
            "-o",
            "publication_names=p",
            "--endpos",
            &self.end,
        ]);
        let start = Instant::now();
        let status = command.status().expect("run pg_recvlogical");
        assert!(status.success(), "pg_recvlogical: {status}");
        Figures::of_tool(start.elapsed())
    }

    fn subscription(&self, reader: Reader, database: &str) -> Figures {
        let target = self.target();
        let start = Instant::now();
        target.sql(
            database,
            &format!(
                "CREATE SUBSCRIPTION {database} CONNECTION 'host=127.0.0.1 port={} user=postgres dbname={DATABASE}' \
                 PUBLICATION p WITH (create_slot = false, slot_name = '{database}', copy_data = false, binary = {})",
                self.source.port(),
                reader == Reader::SubscriptionBinary
            ),
        );
        // One session that looks again and again: starting a client for each look would take its share of the machine.
        target.sql(
            database,
            &format!(
                "DO $$ BEGIN WHILE NOT EXISTS (SELECT FROM {END_TABLE}) LOOP
                   IF clock_timestamp() > now() + interval '{} s' THEN RAISE 'the subscription does not get on'; END IF;
                   PERFORM pg_sleep(0.01); END LOOP; END $$",
                DRAIN_TIMEOUT.as_secs()
            ),
        );
        Figures::of_tool(start.elapsed())
    }

    fn replicator(&self, reader: Reader, database: &str, folder: &Path) -> Figures {
        let url = match reader {
            Reader::BlackholeUnix => self.source.socket_url(DATABASE),
            _ => self.source.url(DATABASE),
        };
        let config = config(&url, database).set("http.listen", "");
        let mut config = match reader {
            Reader::ClickHouse => {
                config.clickhouse("sink", self.clickhouse()).set_sink("sink", "database", database)
            }
            Reader::Postgres => config.postgres("sink", self.target(), database),
            Reader::Archive => config.folder("sink", folder),
            Reader::Lake => config.sink("sink", "lake", &format!("file://{}", folder.display())),
            _ => config.blackhole("sink"),
        };
        config = with_settings(config, self.settings);
        let replicator = Replicator::spawn_with(&config, &["--endpos", &self.end], &[]);
        Figures::of(&replicator.finish(DRAIN_TIMEOUT).expect_success())
    }

    fn assert_arrived(&self, reader: Reader, database: &str, folder: &Path) {
        let tables = self.workload.tables();
        let each = |of: &dyn Fn(&crate::workload::Table) -> Checksum| -> Vec<Checksum> {
            tables.iter().map(of).collect()
        };
        let found = match reader {
            Reader::ClickHouse => {
                let found = each(&|table| arrived::in_clickhouse(self.clickhouse(), database, table));
                self.clickhouse().query(&format!("DROP DATABASE {database}"));
                found
            }
            Reader::Archive => {
                let (found, events) = arrived::in_archive(folder, tables);
                assert_eq!(events, self.changes, "events of the archive");
                found
            }
            Reader::Lake => each(&|table| arrived::in_lake(folder, table)),
            reader if reader.is_into_postgres() => {
                for table in tables {
                    assert_eq!(
                        arrived::whole_table(self.target(), database, table),
                        arrived::whole_table(&self.source, DATABASE, table),
                        "{reader:?}, {}",
                        table.name
                    );
                }
                return;
            }
            // They keep nothing.
            _ => return,
        };
        assert_eq!(found, self.expected, "{reader:?}");
    }
}
