//! Captures the golden bytes anew, or makes the fuzzers' seeds from them. See the library.

mod capture;
mod connection;
mod scenarios;
mod seeds;

use replicator_harness::PgVersion;
use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [] => {
            for version in PgVersion::ALL {
                capture::capture(version)?;
            }
            seeds::write_seeds()
        }
        ["seeds"] => seeds::write_seeds(),
        _ => Err("usage: replicator-golden [seeds]".into()),
    }
}
