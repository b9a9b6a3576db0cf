//! Chaos for as long as is asked for: see the library.

use clap::Parser;
use replicator_chaos::{Settings, run};
use std::time::Duration;

/// Faults at random under load, and everything compared with everything after each round.
#[derive(Parser)]
struct Arguments {
    /// Decides faults and load; another each time when it is not given.
    #[arg(long)]
    seed: Option<u64>,
    /// For how long rounds are begun.
    #[arg(long, default_value_t = 1800)]
    seconds: u64,
    /// Faults a round.
    #[arg(long, default_value_t = 6)]
    faults: u32,
    /// Rounds before all servers are made anew.
    #[arg(long, default_value_t = 8)]
    rounds_of_world: u32,
    /// Writers at a time.
    #[arg(long, default_value_t = 4)]
    writers: i32,
}

#[tokio::main]
async fn main() {
    let Arguments { seed, seconds, faults, rounds_of_world, writers } = Arguments::parse();
    let seed = seed.unwrap_or_else(rand::random);
    println!("seed {seed}");
    let time = Duration::from_secs(seconds);
    let report = run(Settings { seed, time, faults, rounds_of_world, writers }).await;
    println!("no difference: {report}");
}
