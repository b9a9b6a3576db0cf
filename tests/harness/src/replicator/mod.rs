//! The replicator under test: the built binary, driven by its command line and its HTTP endpoints alone.

mod binary;

pub use binary::replicator_binary;

use crate::postgres::last_lines;
use crate::process::{self, Process, Signal};
use crate::scratch::Scratch;
use crate::{Config, Metrics, eventually_blocking, http};
use std::fs::{self, File};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Longer than any drain a test asks for.
const RUN_TIMEOUT: Duration = Duration::from_secs(600);
const POLL: Duration = Duration::from_millis(5);
/// `USER_HZ`: 100 on every Linux architecture Rust runs on but Alpha; see `time(7)`.
const TICKS_PER_SECOND: u64 = 100;

/// A running `replicator`; killed when dropped.
#[derive(Debug)]
pub struct Replicator {
    process: Process,
    http: Option<String>,
    usage: Usage,
    begun: Instant,
    scratch: Scratch,
}

/// A `replicator` that has ended.
#[derive(Clone, Debug)]
pub struct Finished {
    /// How.
    pub status: ExitStatus,
    /// What it printed.
    pub stdout: String,
    /// What it logged.
    pub stderr: String,
    /// Highest resident memory, as seen at most a few milliseconds before its end.
    pub peak_rss_bytes: u64,
    /// Processor time of all its threads, as seen then; exact to 10 ms.
    pub cpu: Duration,
    /// From start to end.
    pub elapsed: Duration,
}

#[derive(Clone, Copy, Debug, Default)]
struct Usage {
    peak_rss_bytes: u64,
    cpu: Duration,
}

impl Replicator {
    /// Starts `replicator run` with further environment variables.
    pub fn spawn(config: &Config, env: &[(&str, &str)]) -> Self {
        Self::spawn_with(config, &[], env)
    }

    /// Starts `replicator run` with further arguments.
    pub fn spawn_with(config: &Config, arguments: &[&str], env: &[(&str, &str)]) -> Self {
        let mut all = vec!["run"];
        all.extend(arguments);
        let mut replicator = Self::launch(replicator_binary(), &config.to_toml(), &all, env);
        replicator.http = Some(config.http_address());
        replicator
    }

    /// `replicator run` with further arguments (`--endpos current`) to its end.
    ///
    /// # Panics
    /// When that takes longer than ten minutes.
    pub fn run_to_end(config: &Config, arguments: &[&str]) -> Finished {
        Self::spawn_with(config, arguments, &[]).finish(RUN_TIMEOUT)
    }

    /// `replicator check` to its end.
    pub fn check(config: &Config) -> Finished {
        Self::output(&config.to_toml(), &["check"], &[])
    }

    /// Any subcommand to its end, with any text as its configuration file: for configurations that are wrong.
    pub fn output(config: &str, arguments: &[&str], env: &[(&str, &str)]) -> Finished {
        Self::launch(replicator_binary(), config, arguments, env).finish(RUN_TIMEOUT)
    }

    fn launch(binary: &Path, config: &str, arguments: &[&str], env: &[(&str, &str)]) -> Self {
        let scratch = Scratch::new("replicator");
        let file = |name: &str| {
            File::options()
                .create_new(true)
                .write(true)
                .mode(0o600)
                .open(scratch.path().join(name))
                .expect("make a file in a scratch folder")
        };
        std::io::Write::write_all(&mut file("replicator.toml"), config.as_bytes())
            .expect("write the configuration");
        let mut command = process::command(binary, "KILL");
        // What the developer has set for psql or for a replicator of theirs is not part of the test.
        for (name, _) in std::env::vars_os() {
            if name.to_str().is_some_and(|name| name.starts_with("PG") || name.starts_with("REPLICATOR_")) {
                command.env_remove(name);
            }
        }
        command.args(arguments).arg("--config").arg(scratch.path().join("replicator.toml"));
        command.envs(env.iter().copied()).current_dir(scratch.path());
        command.stdin(Stdio::null()).stdout(file("stdout")).stderr(file("stderr"));
        let process = Process::spawn("replicator", command);
        Self { process, http: None, usage: Usage::default(), begun: Instant::now(), scratch }
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        self.process.exit_status().is_none()
    }

    /// What it printed so far.
    pub fn stdout(&self) -> String {
        self.read("stdout")
    }

    /// What it logged so far.
    pub fn stderr(&self) -> String {
        self.read("stderr")
    }

    /// Waits for a line on either output that holds `text`, and gives it.
    ///
    /// # Panics
    /// When it does not come within `timeout`, or the process ends without it.
    pub fn wait_for_line(&mut self, text: &str, timeout: Duration) -> String {
        eventually_blocking(timeout, &format!("the replicator says {text:?}"), || {
            let ended = self.process.exit_status();
            let said = self.stdout() + &self.stderr();
            match (said.lines().find(|line| line.contains(text)), ended) {
                (Some(line), _) => Ok(line.to_owned()),
                (None, None) => Err(format!("it has said\n{}", last_lines(&said, 20))),
                (None, Some(status)) => {
                    panic!(
                        "the replicator ended with {status} before it said {text:?}:\n{}",
                        last_lines(&said, 20)
                    )
                }
            }
        })
    }

    /// `GET path`: status and body.
    ///
    /// # Panics
    /// When there is no answer.
    pub fn http(&self, path: &str) -> (u16, String) {
        self.try_http(path).unwrap_or_else(|error| panic!("GET {path} from the replicator: {error}"))
    }

    /// [`Replicator::http`] that gives back why there is no answer.
    ///
    /// # Errors
    /// When it does not listen (yet, or any more).
    pub fn try_http(&self, path: &str) -> std::io::Result<(u16, String)> {
        let address =
            self.http.as_deref().ok_or_else(|| std::io::Error::other("this subcommand has no listener"))?;
        http::get(address, path).map(|response| (response.status, response.text()))
    }

    /// Waits until `/readyz` says 200.
    ///
    /// # Panics
    /// When it does not within `timeout`, or the process ends.
    pub fn wait_until_ready(&mut self, timeout: Duration) {
        eventually_blocking(timeout, "the replicator is ready", || {
            if let Some(status) = self.process.exit_status() {
                panic!("the replicator ended with {status}:\n{}", last_lines(&self.stderr(), 20));
            }
            match self.try_http("/readyz") {
                Ok((200, _)) => Ok(()),
                Ok((status, body)) => Err(format!("{status}: {body}")),
                Err(error) => Err(error.to_string()),
            }
        });
    }

    /// A scrape.
    ///
    /// # Panics
    /// When there is no answer.
    pub fn metrics(&self) -> Metrics {
        let (status, body) = self.http("/metrics");
        assert_eq!(status, 200, "GET /metrics: {body}");
        Metrics::parse(&body)
    }

    /// `kill -9`, and waits until it is gone.
    pub fn kill9(&mut self) {
        self.process.kill9();
    }

    /// Stops it where it is (SIGSTOP): it neither runs nor ends, and its connections stay open.
    pub fn freeze(&mut self) {
        self.process.signal(Signal::STOP);
    }

    /// Lets it go on after [`Replicator::freeze`].
    pub fn thaw(&mut self) {
        self.process.signal(Signal::CONT);
    }

    /// Asks it to drain and end.
    pub fn sigterm(&mut self) {
        self.process.signal(Signal::TERM);
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// When that takes longer than `timeout`, with the end of its log.
    pub fn wait(&mut self, timeout: Duration) -> ExitStatus {
        let begun = Instant::now();
        loop {
            // Before looking whether it has ended: then there is nothing left to see.
            self.usage = usage_of(self.process.id()).unwrap_or(self.usage);
            if let Some(status) = self.process.exit_status() {
                return status;
            }
            assert!(
                begun.elapsed() < timeout,
                "the replicator still runs after {timeout:?}. It says:\n{}",
                last_lines(&self.stderr(), 20)
            );
            std::thread::sleep(POLL);
        }
    }

    /// Waits for its end, and gives all that is to know of it.
    ///
    /// # Panics
    /// As [`Replicator::wait`].
    pub fn finish(mut self, timeout: Duration) -> Finished {
        let status = self.wait(timeout);
        Finished {
            status,
            stdout: self.stdout(),
            stderr: self.stderr(),
            peak_rss_bytes: self.usage.peak_rss_bytes,
            cpu: self.usage.cpu,
            elapsed: self.begun.elapsed(),
        }
    }

    /// Highest resident memory so far (`VmHWM`).
    pub fn peak_rss_bytes(&mut self) -> u64 {
        self.usage = usage_of(self.process.id()).unwrap_or(self.usage);
        self.usage.peak_rss_bytes
    }

    /// Processor time of all its threads so far, exact to 10 ms.
    pub fn cpu(&mut self) -> Duration {
        self.usage = usage_of(self.process.id()).unwrap_or(self.usage);
        self.usage.cpu
    }

    fn read(&self, name: &str) -> String {
        let bytes = fs::read(self.scratch.path().join(name)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

impl Drop for Replicator {
    fn drop(&mut self) {
        self.process.kill9();
        if std::thread::panicking() {
            eprintln!("--- the end of the replicator's log\n{}", last_lines(&self.stderr(), 40));
        }
    }
}

impl Finished {
    /// The same, when it ended with exit code 0.
    ///
    /// # Panics
    /// When it did not, with the end of its log.
    #[must_use]
    pub fn expect_success(self) -> Self {
        assert!(
            self.status.success(),
            "the replicator ended with {}:\n{}\n{}",
            self.status,
            last_lines(&self.stdout, 20),
            last_lines(&self.stderr, 20)
        );
        self
    }
}

/// None when the process has ended.
///
/// Source: `proc_pid_status(5)`, `proc_pid_stat(5)`.
fn usage_of(pid: u32) -> Option<Usage> {
    let proc = Path::new("/proc").join(pid.to_string());
    let status = fs::read_to_string(proc.join("status")).ok()?;
    let peak_kib: u64 = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?
        .trim()
        .strip_suffix(" kB")?
        .parse()
        .ok()?;
    let stat = fs::read_to_string(proc.join("stat")).ok()?;
    // After the name, which is in parentheses and may hold anything: state is field 3, utime 14, stime 15.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let ticks = fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?;
    Some(Usage {
        peak_rss_bytes: peak_kib << 10,
        cpu: Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn the_usage_of_a_process_is_told_while_it_lives() {
        let mut memory = vec![1_u8; 40 << 20];
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_millis(100) {
            memory.iter_mut().for_each(|byte| *byte = byte.wrapping_mul(3));
        }
        let usage = usage_of(std::process::id()).unwrap();
        assert!(usage.peak_rss_bytes > memory.len() as u64, "{usage:?}");
        assert!(usage.cpu >= Duration::from_millis(50), "{usage:?}");
        assert!(usage_of(u32::MAX).is_none());
    }

    fn of_script(script: &str) -> Replicator {
        let path = crate::scratch_dir("script").join("replicator");
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        Replicator::launch(&path, "key = 1\n", &["check"], &[("COLOUR", "blue")])
    }

    #[test]
    fn a_binary_gets_its_arguments_configuration_and_environment_and_is_reported_on() {
        let script = r#"echo "$1 $2 $COLOUR"; cat "$3" >&2; sleep 0.2; exit 3"#;
        let finished = of_script(script).finish(Duration::from_secs(10));
        assert_eq!(finished.status.code(), Some(3));
        assert_eq!(finished.stdout, "check --config blue\n");
        assert_eq!(finished.stderr, "key = 1\n");
        assert!(
            finished.peak_rss_bytes > 0 && finished.elapsed >= Duration::from_millis(200),
            "{finished:?}"
        );
    }

    #[test]
    fn a_line_is_waited_for_and_a_signal_ends_it() {
        let mut replicator =
            of_script("trap 'exit 0' TERM; sleep 0.1; echo ready now; while :; do sleep 0.02; done");
        assert_eq!(replicator.wait_for_line("ready", Duration::from_secs(10)), "ready now");
        replicator.sigterm();
        assert!(replicator.wait(Duration::from_secs(10)).success());
    }

    #[test]
    #[should_panic(expected = "ended with exit status: 1 before it said")]
    fn a_line_is_not_waited_for_once_the_process_has_ended() {
        of_script("echo no luck; exit 1").wait_for_line("ready", Duration::from_secs(10));
    }
}
