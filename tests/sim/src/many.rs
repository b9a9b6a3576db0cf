//! Many schedules, on several threads.

use crate::{Outcome, Plan, Reached, SOMETIMES, Violation, run};
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// What came of many schedules.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Schedules run.
    pub schedules: u64,
    /// Events of all of them.
    pub steps: u64,
    /// Faults of all of them.
    pub faults: u64,
    /// Deaths of the process in all of them.
    pub kills: u64,
    /// Virtual time of all of them, microseconds.
    pub virtual_us: u64,
    /// The most that was held beyond a budget, in bytes.
    pub over_budget_bytes: usize,
    /// The paths that any of them took.
    pub reached: Reached,
    /// Broken promises, by rising seed; no more than a few.
    pub violations: Vec<Violation>,
}

/// More of them tell nothing new.
const VIOLATIONS_MAX: usize = 10;

impl Report {
    /// The paths that none of them took.
    pub fn missing(&self) -> Vec<&'static str> {
        SOMETIMES.iter().copied().filter(|path| !self.reached.contains(path)).collect()
    }

    fn add(&mut self, result: Result<Outcome, Violation>) {
        self.schedules += 1;
        match result {
            Ok(outcome) => {
                self.steps += outcome.steps;
                self.faults += outcome.faults;
                self.kills += outcome.kills;
                self.virtual_us += outcome.virtual_us;
                self.over_budget_bytes = self.over_budget_bytes.max(outcome.over_budget_bytes);
                self.reached.extend(outcome.reached);
            }
            Err(violation) => {
                self.violations.push(violation);
                self.violations.sort_by_key(|violation| violation.seed);
            }
        }
    }
}

/// Runs a schedule; a panic of the code under test is a broken promise too.
///
/// # Errors
/// A promise is broken.
pub fn run_guarded(plan: &Plan) -> Result<Outcome, Violation> {
    catch_unwind(AssertUnwindSafe(|| run(plan))).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("?");
        let text = format!("panicked: {text} (trace the seed to see where)");
        Err(Violation { seed: plan.seed, step: 0, time_us: 0, text })
    })
}

/// Runs the schedules of these seeds, until there are enough violations.
pub fn run_many(seeds: Range<u64>, threads: usize, plan: impl Fn(u64) -> Plan + Sync) -> Report {
    let next = AtomicU64::new(seeds.start);
    let report = Mutex::new(Report::default());
    std::thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        return;
                    }
                    let result = run_guarded(&plan(seed));
                    let mut report = report.lock().unwrap_or_else(PoisonError::into_inner);
                    report.add(result);
                    if report.violations.len() >= VIOLATIONS_MAX {
                        next.store(seeds.end, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    report.into_inner().unwrap_or_else(PoisonError::into_inner)
}
