use crate::metrics::{PROCESS_CPU_SECONDS_TOTAL, PROCESS_RESIDENT_MEMORY_BYTES};
use std::fs;

/// Ticks a second in `/proc/{pid}/stat`. The kernel's own rate differs, but it reports in `USER_HZ`, which is
/// 100 on every architecture Linux still supports (proc_pid_stat(5), `include/asm-generic/param.h`).
const USER_TICKS_PER_SECOND: f64 = 100.0;

/// Brings the process' own metrics up to date: called at each scrape. Where there is no `/proc` they are
/// absent.
pub fn refresh_process() {
    if let Some(bytes) = fs::read_to_string("/proc/self/status").ok().as_deref().and_then(resident_bytes) {
        ::metrics::gauge!(PROCESS_RESIDENT_MEMORY_BYTES).set(bytes as f64);
    }
    if let Some(seconds) = fs::read_to_string("/proc/self/stat").ok().as_deref().and_then(cpu_seconds) {
        // A gauge can hold fractions of a second, which the recorder's counters cannot.
        ::metrics::gauge!(PROCESS_CPU_SECONDS_TOTAL).set(seconds);
    }
}

/// `VmRSS:     1234 kB`
fn resident_bytes(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// User and system time: fields 14 and 15. The second field, the command's name, may hold spaces and
/// brackets, so counting begins behind its last bracket.
fn cpu_seconds(stat: &str) -> Option<f64> {
    let (_, behind_name) = stat.rsplit_once(')')?;
    let mut fields = behind_name.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some((user + system) as f64 / USER_TICKS_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_and_cpu_are_read_from_what_the_kernel_writes() {
        assert_eq!(resident_bytes("Name:\tx\nVmRSS:\t    2048 kB\nRssAnon:\t 1 kB\n"), Some(2 << 20));
        assert_eq!(resident_bytes("Name:\tx\n"), None);
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194304 100 0 0 0 250 150 0 0 20 0 1 0 100 1000 200";
        assert_eq!(cpu_seconds(stat), Some(4.0));
        assert_eq!(cpu_seconds("7 (x) S 1"), None);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn this_process_has_memory_and_cpu_time() {
        assert!(resident_bytes(&fs::read_to_string("/proc/self/status").unwrap()).unwrap() > 100_000);
        assert!(cpu_seconds(&fs::read_to_string("/proc/self/stat").unwrap()).is_some());
    }
}
