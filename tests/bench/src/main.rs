//! Measures in one run, several rounds of each reader in turn, what the replicator does beside what Postgres' own
//! tools do, and prints medians as tables and as JSON. What each part does is said where it is: `drain`, `copy`,
//! `latency`, `memory`; the loads are in `workload`, what is promised in `targets`.
//!
//! The machine's mood moves absolute figures by a factor of two; only ratios within one run say anything. That the
//! data arrived is asserted.
//!
//! `make bench`, or a part of it: `make bench BENCH_ARGS="--only W1,W3 --readers recvlogical,blackhole"`.

mod arrived;
mod copy;
mod cpu;
mod drain;
mod figures;
mod latency;
mod memory;
mod options;
mod targets;
mod workload;

use options::{Options, Part};

fn main() {
    let options = match Options::parse(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(wrong) => {
            eprintln!("{wrong}\n{}", options::USAGE);
            std::process::exit(2);
        }
    };
    let mut all = serde_json::Map::new();
    for part in &options.parts {
        match part {
            Part::Drain(workload) => {
                let rows = options.rows.unwrap_or(workload.default_changes());
                let outcome =
                    drain::run(*workload, rows, options.rounds, &options.readers, &options.settings);
                outcome.print_table();
                all.extend([outcome.json()]);
            }
            Part::Copy => {
                let outcome = copy::run(options.copy_rows, options.rounds, &options.settings);
                outcome.print_table();
                all.extend([outcome.json()]);
            }
            Part::Latency => all.extend([latency::run(&options)]),
            Part::Memory => all.extend([memory::run(options.rows, options.is_smoke)]),
        }
    }
    let all = serde_json::Value::Object(all);
    println!("\n{all}");
    if let Some(file) = &options.json {
        std::fs::write(file, format!("{all:#}\n"))
            .unwrap_or_else(|error| panic!("write {}: {error}", file.display()));
    }
}
