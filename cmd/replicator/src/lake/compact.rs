//! `replicator lake compact`

use super::{Failures, Folding, Lake};
use crate::one_line;
use clap::Args;
use replicator_config::Config;
use replicator_lake::{CompactOptions, Compacted, compact_table};

#[derive(Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(super) lake: Lake,
    /// Only say what would be done
    #[arg(long)]
    dry_run: bool,
    /// Remove folded changes, rather than to move them to processed/
    #[arg(long)]
    delete_folded: bool,
    #[command(flatten)]
    folding: Folding,
}

pub(super) async fn compact(config: &Config, arguments: &Arguments) -> Result<(), String> {
    let lake = arguments.lake.settings(config)?;
    let store = arguments.lake.open(config)?;
    let options = CompactOptions {
        fold: arguments.folding.options(lake),
        dry_run: arguments.dry_run,
        delete_folded: arguments.delete_folded,
    };
    let folders = arguments.lake.folders(&store).await?;
    let mut failures = Failures::default();
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
            Err(error) => failures.add(folder, &error),
        }
    }
    failures.end(folders.len(), "tables could not be folded")
}
