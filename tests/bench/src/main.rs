//! Measures in one run, several rounds of each reader in turn, what the replicator does beside what Postgres' own
//! tools do, and prints medians as tables and as JSON.
//!
//! The machine's mood moves absolute figures by a factor of two; only ratios within one run say anything. That the
//! data arrived is asserted.
//!
//! `make bench`, or with `BENCH_ARGS="--rows 200000 --rounds 1"`:
//!
//! | argument | default | |
//! |---|---|---|
//! | `--rows N` | 2,000,000 | inserts of the backlog; 0 leaves it out |
//! | `--copy-rows N` | 10,000,000; 2,000,000 where `--rows` is given | rows of the initial copy; 0 leaves it out |
//! | `--rounds N` | 3 | |

mod copy;
mod drain;
mod figures;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let rows = number(&arguments, "--rows");
    let copy_rows = number(&arguments, "--copy-rows");
    let copy_rows = copy_rows.unwrap_or(if rows.is_some() { 2_000_000 } else { 10_000_000 });
    let rows = rows.unwrap_or(2_000_000);
    let rounds = number(&arguments, "--rounds").unwrap_or(3);
    let mut outcomes = Vec::new();
    if rows > 0 {
        outcomes.push(drain::run(rows, rounds));
    }
    if copy_rows > 0 {
        outcomes.push(copy::run(copy_rows, rounds));
    }
    outcomes.iter().for_each(figures::Outcome::print_table);
    let all: serde_json::Map<_, _> = outcomes.iter().map(figures::Outcome::json).collect();
    println!("\n{}", serde_json::Value::Object(all));
}

fn number(arguments: &[String], name: &str) -> Option<usize> {
    let value =
        arguments.iter().position(|argument| argument == name).and_then(|at| arguments.get(at + 1))?;
    Some(value.parse().unwrap_or_else(|_| panic!("{name} takes a number, not {value}")))
}
