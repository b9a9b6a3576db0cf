use replicator_harness::{Config, Metrics, Replicator};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// Keeps a replicator running as a service manager does: whenever it ends, for whatever reason, it is
/// started again.
pub struct Supervisor {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    config: Config,
    current: Mutex<Replicator>,
    stop: AtomicBool,
    starts: AtomicU32,
    logs: Mutex<Vec<String>>,
}

impl Shared {
    fn current(&self) -> MutexGuard<'_, Replicator> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Supervisor {
    /// Starts it.
    pub fn start(config: &Config) -> Self {
        let shared = Arc::new(Shared {
            config: config.clone(),
            current: Mutex::new(Replicator::spawn(config, &[])),
            stop: AtomicBool::new(false),
            starts: AtomicU32::new(1),
            logs: Mutex::default(),
        });
        let watched = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            while !watched.stop.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(50));
                let mut current = watched.current();
                if !watched.stop.load(Ordering::Relaxed) && !current.is_running() {
                    let log = current.stderr();
                    watched.logs.lock().unwrap_or_else(PoisonError::into_inner).push(log);
                    *current = Replicator::spawn(&watched.config, &[]);
                    watched.starts.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        Self { shared, thread: Some(thread) }
    }

    /// The sum of a metric of the present run over all its labels; 0 when it does not answer.
    pub fn metric(&self, name: &str) -> f64 {
        let answer = self.shared.current().try_http("/metrics");
        let body = answer.map_or_else(|_| String::new(), |(_, body)| body);
        Metrics::parse(&body).sum(name, &[]).unwrap_or_default()
    }

    /// `kill -9`.
    pub fn kill9(&self) {
        self.shared.current().kill9();
    }

    /// SIGSTOP.
    pub fn freeze(&self) {
        self.shared.current().freeze();
    }

    /// SIGCONT.
    pub fn thaw(&self) {
        self.shared.current().thaw();
    }

    /// How often it was started.
    pub fn starts(&self) -> u32 {
        self.shared.starts.load(Ordering::Relaxed)
    }

    /// Whether it answers `/readyz` with 200.
    pub fn is_ready(&self) -> bool {
        self.shared.current().try_http("/readyz").is_ok_and(|(status, _)| status == 200)
    }

    /// The last `count` lines that its runs have logged so far.
    pub fn last_lines(&self, count: usize) -> String {
        let mut all = self.shared.logs.lock().unwrap_or_else(PoisonError::into_inner).concat();
        all.push_str(&self.shared.current().stderr());
        let lines: Vec<&str> = all.lines().collect();
        lines.get(lines.len().saturating_sub(count)..).unwrap_or_default().join("\n")
    }

    /// Asks it to drain and end, and asserts that it does so with exit code 0. Gives the logs of all runs.
    ///
    /// # Panics
    /// When it does not.
    pub fn stop(mut self) -> Vec<String> {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the supervisor's thread");
        }
        let mut current = self.shared.current();
        current.sigterm();
        let status = current.wait(Duration::from_secs(120));
        assert!(status.success(), "{status}: {}", current.stderr());
        let mut logs = std::mem::take(&mut *self.shared.logs.lock().unwrap_or_else(PoisonError::into_inner));
        logs.push(current.stderr());
        logs
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        if std::thread::panicking() {
            eprintln!("--- the end of the replicator's logs\n{}", self.last_lines(25));
        }
    }
}
