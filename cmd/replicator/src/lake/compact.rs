//! `replicator lake compact`

use super::{Lake, file_options, folders, megabytes};
use crate::one_line;
use clap::Args;
use replicator_config::Config;
use replicator_lake::{CompactOptions, Compacted, FoldOptions, compact_table};
use std::path::PathBuf;

#[derive(Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(super) lake: Lake,
    /// A table, as schema.name; may be given several times. All when left out
    #[arg(long = "table", value_name = "SCHEMA.NAME")]
    tables: Vec<String>,
    /// Only say what would be done
    #[arg(long)]
    dry_run: bool,
    /// Remove folded changes, rather than to move them to processed/
    #[arg(long)]
    delete_folded: bool,
    /// Megabytes of changes that are sorted in memory at once
    #[arg(long, value_name = "MB", default_value_t = 256, value_parser = clap::value_parser!(u64).range(1..=65_536))]
    memory_mb: u64,
    /// A folder for what does not fit into memory, and for the files being folded; the system's when left out
    #[arg(long, value_name = "FOLDER")]
    scratch: Option<PathBuf>,
}

pub(super) async fn compact(config: &Config, arguments: &Arguments) -> Result<(), String> {
    let lake = arguments.lake.settings(config)?;
    let store = arguments.lake.open(config)?;
    let options = CompactOptions {
        fold: FoldOptions {
            memory_bytes_max: megabytes(arguments.memory_mb),
            scratch: arguments.scratch.clone().unwrap_or_else(std::env::temp_dir),
            file: file_options(lake),
            until: None,
            removed_through: None,
        },
        dry_run: arguments.dry_run,
        delete_folded: arguments.delete_folded,
    };
    let folders = folders(&store, &arguments.tables).await?;
    let mut failed = 0;
    for folder in &folders {
        let shown = folder.path();
        match compact_table(&store, folder, &options).await {
            Ok(Compacted::Nothing) => println!("{shown}: nothing to fold"),
            Ok(Compacted::Would { files, bytes }) => {
                println!("{shown}: would fold {files} files of {bytes} bytes")
            }
            Ok(Compacted::LeftAlone(why)) => println!("{shown}: left alone: {}", one_line(&why)),
            Ok(Compacted::Done { files, rows, bytes }) => {
                println!("{shown}: {files} files folded; {rows} rows, {bytes} bytes");
            }
            Err(error) => {
                failed += 1;
                eprintln!("replicator: {shown}: {}", one_line(&error.to_string()));
            }
        }
    }
    match failed {
        0 => Ok(()),
        failed => Err(format!("{failed} of {} tables could not be folded", folders.len())),
    }
}
