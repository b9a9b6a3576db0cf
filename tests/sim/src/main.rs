//! `make sim`: many schedules, or one with its trace.
#![allow(clippy::print_stdout, reason = "a command")]

use clap::Parser;
use replicator_sim::{Fault, Inject, Plan, run_guarded, run_many};
use std::process::ExitCode;
use std::time::Instant;

#[derive(Parser)]
#[command(about = "The replicator under simulated faults and virtual time")]
struct Options {
    /// How many schedules.
    #[arg(long, default_value_t = 10_000)]
    seeds: u64,
    /// The first of them.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Only this one, step by step.
    #[arg(long)]
    seed: Option<u64>,
    /// With `--seed`: the small schedule of that seed, with a fault before the event of this number.
    #[arg(long, requires = "seed", requires = "fault")]
    at: Option<u64>,
    /// Which fault.
    #[arg(long, value_enum)]
    fault: Option<Fault>,
    /// How many at once.
    #[arg(long, default_value_t = std::thread::available_parallelism().map_or(1, usize::from))]
    threads: usize,
}

fn main() -> ExitCode {
    let options = Options::parse();
    if let Some(seed) = options.seed {
        let plan = match (options.at, options.fault) {
            (Some(step), Some(fault)) => Plan::small(seed).with_fault(Inject { step, fault }),
            _ => Plan::of(seed),
        }
        .with_trace(true);
        println!("{plan:#?}");
        return match run_guarded(&plan) {
            Ok(outcome) => {
                println!("{outcome:#?}");
                ExitCode::SUCCESS
            }
            Err(violation) => {
                println!("VIOLATION: {violation}");
                ExitCode::FAILURE
            }
        };
    }
    let begun = Instant::now();
    let report =
        run_many(options.from..options.from.saturating_add(options.seeds), options.threads, Plan::of);
    println!(
        "{} schedules, {} events, {} faults ({} kills), {:.1} virtual hours, in {:.1} s",
        report.schedules,
        report.steps,
        report.faults,
        report.kills,
        report.virtual_us as f64 / 3.6e9,
        begun.elapsed().as_secs_f64(),
    );
    println!("at most {} bytes held beyond a budget", report.over_budget_bytes);
    for violation in &report.violations {
        println!("VIOLATION: {violation}  (make sim SEED={})", violation.seed);
    }
    let missing = report.missing();
    missing.iter().for_each(|path| println!("NEVER REACHED: {path}"));
    if report.violations.is_empty() && missing.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
