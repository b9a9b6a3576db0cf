//! Rounds of load and faults, each followed by a comparison of everything with everything.

use crate::faults::{Fault, Proxies, Victims};
use crate::ledger::{SCHEMA, TABLES, Writer};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use replicator_harness::{PgOptions, PgVersion, Postgres};
use replicator_integration::{Supervisor, World, drain};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// After the last fault everything works again within that.
const READY_MAX: Duration = Duration::from_secs(90);

/// How much of it.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Decides the faults and the load.
    pub seed: u64,
    /// Rounds are begun until then.
    pub time: Duration,
    /// Faults of a round.
    pub faults: u32,
    /// Rounds before all servers are made anew: archives are read whole at the end of each.
    pub rounds_of_world: u32,
    /// Writers at a time.
    pub writers: i32,
}

/// What was done.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Rounds, each with a comparison.
    pub rounds: u64,
    /// Transactions that were committed.
    pub transactions: u64,
    /// Commits whose answer the writers did not get.
    pub unanswered: u64,
    /// How often a replicator was started.
    pub starts: u32,
    /// Faults by name.
    pub faults: BTreeMap<&'static str, u64>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let faults: u64 = self.faults.values().sum();
        writeln!(
            f,
            "{} rounds, {} transactions ({} of unknown outcome), {} starts of the replicator, {faults} faults:",
            self.rounds, self.transactions, self.unanswered, self.starts
        )?;
        self.faults.iter().try_for_each(|(name, count)| writeln!(f, "  {count:6}  {name}"))
    }
}

/// Runs rounds until the time is over; at least one.
///
/// # Panics
/// When anything differs after a round, or a replicator does not come to its end, with the seed.
pub async fn run(settings: Settings) -> Report {
    let begun = Instant::now();
    let mut report = Report::default();
    let mut random = StdRng::seed_from_u64(settings.seed);
    while report.rounds == 0 || begun.elapsed() < settings.time {
        let version = [PgVersion::V15, PgVersion::V17, PgVersion::V18][random.random_range(0..3)];
        let mut in_world = InWorld::new(version, random.random(), settings);
        for _ in 0..settings.rounds_of_world {
            in_world.round(&mut random, &mut report).await;
            if begun.elapsed() >= settings.time {
                break;
            }
        }
    }
    report
}

struct InWorld {
    world: World,
    proxies: Proxies,
    settings: Settings,
    writers: Vec<Writer>,
}

impl InWorld {
    fn new(version: PgVersion, seed: u64, settings: Settings) -> Self {
        let source = Postgres::start(version, &PgOptions::default().setting("wal_sender_timeout", "10s"));
        source.createdb("shop");
        source.sql("shop", SCHEMA);
        // Whoever does not ask for more loses, with a crash, what was committed within the last seconds.
        let forgetful =
            PgOptions::default().setting("synchronous_commit", "off").setting("wal_writer_delay", "10s");
        let world = World::with_target(source, &forgetful.disk_that_can_fill());
        let proxies = Proxies::start(&world);
        let url = world.source.url("shop");
        let writers = (1..=settings.writers).map(|owner| Writer::new(owner, url.clone(), seed)).collect();
        Self { world, proxies, settings, writers }
    }

    async fn round(&mut self, random: &mut StdRng, report: &mut Report) {
        let config = self.proxies.config(&self.world);
        let stop = Arc::new(AtomicBool::new(false));
        let writing: Vec<_> = std::mem::take(&mut self.writers)
            .into_iter()
            .map(|writer| tokio::spawn(writer.write(Arc::clone(&stop))))
            .collect();
        let supervisor = Supervisor::start(&config);
        let victims = Victims { world: &self.world, proxies: &self.proxies, supervisor: &supervisor };
        let mut story = format!("seed {}, round {}", self.settings.seed, report.rounds + 1);
        for _ in 0..self.settings.faults {
            tokio::time::sleep(Duration::from_millis(random.random_range(0..1500))).await;
            let fault = Fault::any(random);
            story.push_str(&format!("\n  {fault}"));
            victims.suffer(fault, &mut report.faults).await;
        }
        stop.store(true, Ordering::Relaxed);
        for writer in writing {
            self.writers.push(writer.await.unwrap_or_else(|error| panic!("{story}: a writer: {error}")));
        }
        self.proxies.heal();
        let healed = Instant::now();
        while !supervisor.is_ready() {
            assert!(healed.elapsed() < READY_MAX, "{story}: not ready {READY_MAX:?} after the last fault");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        report.starts += supervisor.starts();
        for log in supervisor.stop() {
            assert!(!log.contains("panicked"), "{story}: {log}");
        }
        // The last lines of a panic below tell of what.
        println!("{story}");
        drain(&config);
        for writer in &mut self.writers {
            let difference = writer.compare().await;
            assert!(difference.is_none(), "{story}: {}", difference.unwrap_or_default());
        }
        self.world.assert_equal(&TABLES).await;
        report.rounds += 1;
        for writer in &mut self.writers {
            let (transactions, unanswered) = writer.take_counts();
            report.transactions += transactions;
            report.unanswered += unanswered;
        }
    }
}
