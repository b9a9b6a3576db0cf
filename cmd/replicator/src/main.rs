//! The `replicator` command: configuration, then logs and metrics, then the work, then an exit code.
//!
//! Exit codes: 0 done or stopped as asked; 1 it could not go on, and the last line says why and what to do;
//! 2 the command line was wrong.

mod acknowledged;
mod check;
mod feed;
mod fence;
mod forecast;
mod lake;
mod resync;
mod run;
mod signals;
mod sinks;
mod status;
mod stream;

use clap::{Parser, Subcommand};
use replicator_config::Config;
use replicator_types::Lsn;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Carries every change of a PostgreSQL database into ClickHouse, another PostgreSQL and an object store.
#[derive(Parser)]
#[command(name = "replicator", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Replicate until stopped
    Run {
        /// The configuration file
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// Drain to this LSN (or to where the source is now), acknowledge, and exit 0
        #[arg(long, value_name = "LSN|current", value_parser = parse_endpos)]
        endpos: Option<Endpos>,
    },
    /// Test source, sinks and settings, changing nothing; a line for each check
    Check {
        /// The configuration file
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Have tables copied anew, by the replicator that runs or at its next start
    Resync {
        /// The configuration file
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// A table, as schema.name; may be given several times
        #[arg(long = "table", value_name = "SCHEMA.NAME", required_unless_present = "all")]
        tables: Vec<String>,
        /// All tables; if no replicator runs, also where the slot was lost
        #[arg(long, conflicts_with = "tables")]
        all: bool,
    },
    /// Work on the lake
    #[command(subcommand)]
    Lake(lake::LakeCommand),
    /// Print the commented default configuration
    Config,
}

/// Where `--endpos` ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Endpos {
    /// Where the source is when the run begins.
    Current,
    /// There.
    Lsn(Lsn),
}

fn parse_endpos(text: &str) -> Result<Endpos, String> {
    if text == "current" {
        return Ok(Endpos::Current);
    }
    text.parse()
        .map(Endpos::Lsn)
        .map_err(|error: replicator_types::ParseLsnError| format!("{error}, or `current`"))
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Run { config, endpos } => load(&config).and_then(|config| run::run(config, endpos)),
        Command::Check { config } => {
            load(&config).and_then(|config| check::check(&config).map_err(Failure::NotSaid))
        }
        Command::Resync { config, tables, all } => load(&config).and_then(|config| {
            let asked = if all { resync::resync_all(&config) } else { resync::resync(&config, &tables) };
            asked.map_err(Failure::NotSaid)
        }),
        Command::Lake(command) => {
            load(command.config()).and_then(|config| lake::lake(&config, command).map_err(Failure::NotSaid))
        }
        Command::Config => {
            print!("{}", replicator_config::reference());
            Ok(())
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Said) => ExitCode::FAILURE,
        Err(Failure::NotSaid(text)) => {
            eprintln!("replicator: {}", one_line(&text));
            ExitCode::FAILURE
        }
    }
}

/// Why a command did not succeed.
enum Failure {
    /// The log has it.
    Said,
    /// Still to be said.
    NotSaid(String),
}

/// The text on one line, whatever the cause was made of.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn load(path: &Path) -> Result<Config, Failure> {
    replicator_config::load_file(path).map_err(|error| Failure::NotSaid(error.to_string()))
}

/// The runtime for everything that waits on sockets. The pipeline and the lanes have threads of their own.
fn runtime() -> Result<tokio::runtime::Runtime, String> {
    tokio::runtime::Builder::new_multi_thread()
        .thread_name("io")
        .enable_all()
        .build()
        .map_err(|error| format!("cannot start the I/O threads: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn endpos_is_an_lsn_or_current() {
        assert_eq!(parse_endpos("current"), Ok(Endpos::Current));
        assert_eq!(parse_endpos("0/10"), Ok(Endpos::Lsn(Lsn(16))));
        assert!(parse_endpos("now").is_err_and(|text| text.contains("`current`")));
    }
}
