//! Child processes that cannot outlive the test's process.
//!
//! ```text
//!   Process dropped (also by a panic)    ── kill, wait
//!   test process gone (kill -9, timeout) ── the kernel sends the child its parent-death signal
//! ```
//! The second is `PR_SET_PDEATHSIG`, set by `setpriv --pdeathsig`. The kernel sends it when the *thread* that
//! made the child ends, which for a test is too early when it handed a server to another thread and for a
//! runtime's blocking thread is after ten idle seconds. So one thread, which never ends, makes all children.
//!
//! Source: [`prctl(2)`](https://man7.org/linux/man-pages/man2/PR_SET_PDEATHSIG.2const.html), `setpriv(1)`.

use crate::dev::Account;
use rustix::process::{Pid, kill_process};
use std::fs;
use std::io;
use std::path::Path;
use std::process::{Child, Command, ExitStatus};
use std::sync::mpsc::{Sender, channel};
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

pub use rustix::process::Signal;

const POLL: Duration = Duration::from_millis(5);

type Order = (Command, Sender<io::Result<Child>>);

static SPAWNER: LazyLock<Mutex<Sender<Order>>> = LazyLock::new(|| {
    let (orders, inbox) = channel::<Order>();
    std::thread::Builder::new()
        .name("harness-spawner".into())
        .spawn(move || {
            for (mut command, reply) in inbox {
                // Nobody waits any more when the receiver is gone; then the child is killed below.
                if let Err(unwanted) = reply.send(command.spawn())
                    && let Ok(mut child) = unwanted.0
                {
                    let _ = child.kill();
                    let _ = child.wait();
                }
            }
        })
        .expect("start the spawner thread");
    Mutex::new(orders)
});

/// A command for `program` that gets `on_parent_death` (`KILL`, `QUIT`) when this process ends. Arguments,
/// environment and output are for the caller to add.
pub fn command(program: &Path, on_parent_death: &str) -> Command {
    command_as(program, on_parent_death, None)
}

pub(crate) fn command_as(program: &Path, on_parent_death: &str, account: Option<&Account>) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", on_parent_death]);
    if let Some(account) = account {
        command.arg(format!("--reuid={}", account.name));
        command.arg(format!("--regid={}", account.gid));
        command.arg("--init-groups");
    }
    command.arg("--").arg(program);
    command
}

/// A running (or ended) child; killed when dropped.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
}

impl Process {
    /// Starts a command made by [`command`]. `name` is for messages.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn spawn(name: &str, command: Command) -> Self {
        let (reply, outcome) = channel();
        SPAWNER
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .send((command, reply))
            .expect("the spawner thread lives");
        let child = outcome
            .recv()
            .expect("the spawner thread answers")
            .unwrap_or_else(|error| panic!("start {name}: {error}"));
        Self { name: name.to_owned(), child }
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The handle, for its pipes.
    pub fn child_mut(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Its exit status, when it has ended.
    pub fn exit_status(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap_or_else(|error| panic!("wait for {}: {error}", self.name))
    }

    /// Sends it a signal, unless it has ended.
    pub fn signal(&mut self, signal: Signal) {
        // While it has not been waited for, its id cannot have become another's.
        if self.exit_status().is_none()
            && let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw)
        {
            kill_process(pid, signal).unwrap_or_else(|error| panic!("signal {}: {error}", self.name));
        }
    }

    /// Its exit status, if it ends within `timeout`.
    pub fn wait_at_most(&mut self, timeout: Duration) -> Option<ExitStatus> {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.exit_status() {
                return Some(status);
            }
            if begun.elapsed() > timeout {
                return None;
            }
            std::thread::sleep(POLL);
        }
    }

    /// Its exit status when it has ended.
    ///
    /// # Panics
    /// When that takes longer than `timeout`.
    pub fn wait(&mut self, timeout: Duration) -> ExitStatus {
        self.wait_at_most(timeout).unwrap_or_else(|| panic!("{} still runs after {timeout:?}", self.name))
    }

    /// `kill -9`, and waits until it is gone.
    pub fn kill9(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// `kill -9` for it and its children, at once.
    pub(crate) fn kill9_with_children(&mut self) {
        let children = children_of(self.child.id());
        self.kill9();
        for child in children {
            let _ = kill_process(child, Signal::KILL);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill9();
    }
}

fn children_of(parent: u32) -> Vec<Pid> {
    let wanted = format!("PPid:\t{parent}");
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries
        .flatten()
        .filter_map(|entry| Pid::from_raw(entry.file_name().to_str()?.parse().ok()?))
        .filter(|pid| {
            fs::read_to_string(format!("/proc/{pid}/status"))
                .is_ok_and(|status| status.lines().any(|line| line == wanted))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sleeper() -> Process {
        let mut command = command(Path::new("sleep"), "KILL");
        command.arg("600");
        Process::spawn("sleep", command)
    }

    fn is_alive(pid: u32) -> bool {
        Path::new(&format!("/proc/{pid}")).exists()
    }

    #[test]
    fn a_child_lives_on_when_the_thread_that_asked_for_it_has_ended() {
        let mut child = std::thread::spawn(sleeper).join().unwrap();
        std::thread::sleep(Duration::from_millis(50));
        assert_eq!(child.exit_status(), None);
    }

    #[test]
    fn a_child_dies_with_the_panic_of_its_owner() {
        let pid = std::thread::spawn(|| {
            let child = sleeper();
            let pid = child.id();
            std::panic::panic_any(pid)
        })
        .join()
        .unwrap_err();
        assert!(!is_alive(*pid.downcast::<u32>().unwrap()));
    }

    #[test]
    fn an_exit_status_is_kept_and_a_signal_to_the_dead_goes_nowhere() {
        let mut child = sleeper();
        assert_eq!(child.wait_at_most(Duration::ZERO), None);
        child.signal(Signal::TERM);
        let status = child.wait(Duration::from_secs(5));
        child.signal(Signal::TERM);
        assert_eq!(child.exit_status(), Some(status));
        assert!(!status.success());
    }
}
