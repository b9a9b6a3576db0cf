//! Processor time of servers, from `/proc`.
//!
//! A Postgres server's is that of its postmaster, of the children that it has now, and of those that have ended and that
//! it has waited for: so a walsender counts in full whether it has gone yet or not.
//!
//! Source: `proc_pid_stat(5)`, `proc_pid_task(5)`.

use replicator_harness::{ClickHouse, Postgres};
use std::fs;
use std::time::Duration;

/// `USER_HZ`: 100 on every Linux architecture Rust runs on but Alpha; see `time(7)`.
const TICK: Duration = Duration::from_millis(10);

/// What a whole Postgres server has used since its start, clients not counted.
pub(crate) fn of_postgres(server: &Postgres) -> Duration {
    let file = fs::read_to_string(server.data_dir().join("postmaster.pid")).unwrap_or_default();
    let Some(postmaster) = file.lines().next().and_then(|line| line.trim().parse().ok()) else {
        return Duration::ZERO;
    };
    let children: u32 = children_of(postmaster).into_iter().map(|child| ticks(child, false)).sum();
    TICK * (ticks(postmaster, true) + children)
}

/// What the ClickHouse that this process has started has used; nothing of one that was there before.
pub(crate) fn of_clickhouse(server: &ClickHouse) -> Option<Duration> {
    let port = server.address().rsplit_once(':')?.1.to_owned();
    let is_it = |pid: &u32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.split(|byte| *byte == 0).any(|argument| argument == port.as_bytes())
    };
    let pid = children_of(std::process::id()).into_iter().find(is_it)?;
    Some(TICK * ticks(pid, true))
}

fn children_of(pid: u32) -> Vec<u32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let lists = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    lists
        .flat_map(|list| list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>())
        .collect()
}

/// User and system time; of ended children too.
fn ticks(pid: u32, with_children: bool) -> u32 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // After the name, which is in parentheses and may hold anything: state is field 3, utime 14, cutime 16.
    let Some((_, fields)) = stat.rsplit_once(')') else { return 0 };
    let count = if with_children { 4 } else { 2 };
    fields.split_whitespace().skip(11).take(count).filter_map(|field| field.parse::<u32>().ok()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};
    use std::time::Instant;

    #[test]
    fn a_child_counts_while_it_lives_and_when_it_was_waited_for() {
        let this = std::process::id();
        let before = ticks(this, true);
        let mut child =
            Command::new("sh").args(["-c", "while :; do :; done"]).stdin(Stdio::null()).spawn().unwrap();
        assert!(children_of(this).contains(&child.id()));
        let begun = Instant::now();
        while ticks(child.id(), false) < 5 {
            assert!(begun.elapsed() < Duration::from_secs(20), "the child uses no time");
            std::thread::sleep(TICK);
        }
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(ticks(this, true) >= before + 5);
        assert!(!children_of(this).contains(&child.id()));
    }
}
