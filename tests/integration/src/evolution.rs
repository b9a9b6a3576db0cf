//! A way to try a change of schema: quietly and with kills, with other tables busy, into all three sinks.
//!
//! ```text
//!   before ─▶ copied ─▶ [ change ─▶ equal? ─▶ rows ─▶ equal? ]…   tables `quiet…`
//!                       [ change ─▶ kill -9 ─▶ rows ]… ─▶ equal?  tables `crash…`
//!   busy ─▶ a row every few milliseconds, all the while
//! ```

use crate::{Sinks, Supervisor, World, drain};
use replicator_harness::{Config, PgVersion, Postgres};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// Tables, and what becomes of them. `{t}` is what the names of the tables begin with.
#[derive(Clone, Copy, Debug, Default)]
pub struct Evolution {
    /// Made at the source and in the Postgres target: types.
    pub types: &'static str,
    /// Made before the replicator starts.
    pub before: &'static str,
    /// What happens then: the change, and changes of rows behind it.
    pub steps: &'static [(&'static str, &'static str)],
}

const SOON: Duration = Duration::from_secs(90);

impl Evolution {
    /// Goes through it with Postgres 15 and 18 as the source.
    ///
    /// # Panics
    /// When a sink does not end up equal.
    pub async fn arrives(self) {
        self.arrives_with(|config| config).await;
    }

    /// The same without kills.
    ///
    /// # Panics
    /// When a sink does not end up equal.
    pub async fn arrives_undisturbed(self) {
        for version in [PgVersion::V15, PgVersion::V18] {
            self.arrives_from(version, false, |config| config).await;
        }
    }

    /// The same with a configuration of its own.
    ///
    /// # Panics
    /// When a sink does not end up equal.
    pub async fn arrives_with(self, configure: impl Fn(Config) -> Config) {
        for version in [PgVersion::V15, PgVersion::V18] {
            self.arrives_from(version, true, &configure).await;
        }
    }

    async fn arrives_from(self, version: PgVersion, kills: bool, configure: impl Fn(Config) -> Config) {
        let world = World::start(version);
        world.source.sql("shop", "CREATE TABLE busy (id bigserial PRIMARY KEY, v text)");
        for name in ["quiet", "crash"] {
            let types = self.types.replace("{t}", name);
            world.source.sql("shop", &types);
            world.target.sql("copy", &types);
            world.source.sql("shop", &self.before.replace("{t}", name));
        }
        let config = configure(world.config().set("source.catalog_interval_ms", 200));
        let supervisor = Supervisor::start(&config);
        let busy = Busy::start(&world.source);
        let equal = async |what: String, name: &str, sinks: Sinks| {
            let what = format!("Postgres {}, {what}", version.major());
            let wanted = |_: &str, table: &str| table.starts_with(name);
            world.assert_soon_equal(&what, SOON, sinks, wanted).await;
        };
        equal("before anything".to_owned(), "quiet", Sinks::All).await;
        for (change, rows) in self.steps {
            let change = change.replace("{t}", "quiet");
            world.source.sql("shop", &change);
            // A log tells of a new version with the next change of a row.
            equal(format!("after {change}"), "quiet", Sinks::Databases).await;
            world.source.sql("shop", &rows.replace("{t}", "quiet"));
            equal(format!("after rows behind {change}"), "quiet", Sinks::All).await;
        }
        assert_eq!(supervisor.starts(), 1, "it ended without being killed");
        for (change, rows) in self.steps {
            world.source.sql("shop", &change.replace("{t}", "crash"));
            if kills {
                supervisor.kill9();
            }
            world.source.sql("shop", &rows.replace("{t}", "crash"));
        }
        equal("one change after the other".to_owned(), "crash", Sinks::All).await;
        busy.stop();
        equal("at the end".to_owned(), "", Sinks::All).await;
        supervisor.stop();
        drain(&config);
        world.archive();
        equal("drained".to_owned(), "", Sinks::All).await;
    }
}

/// Inserts into the table `busy` until stopped.
struct Busy {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Busy {
    fn start(source: &Postgres) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut psql = source.tool("psql", "shop");
        psql.args([
            "-X",
            "-q",
            "-c",
            "DO $$ BEGIN LOOP INSERT INTO busy (v) VALUES (now()::text); COMMIT;
            EXIT WHEN EXISTS (SELECT FROM busy WHERE v = 'stop'); PERFORM pg_sleep(0.01); END LOOP; END $$",
        ]);
        let seen = Arc::clone(&stop);
        let (mut ends, thread_stop) = (source.tool("psql", "shop"), seen);
        ends.args(["-X", "-q", "-c", "INSERT INTO busy (v) VALUES ('stop')"]);
        let thread = std::thread::spawn(move || {
            let mut running = psql.spawn().expect("start psql");
            while !thread_stop.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(20));
            }
            ends.status().expect("run psql");
            let _ = running.wait();
        });
        Self { stop, thread: Some(thread) }
    }

    fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.end();
    }
}
