//! `replicator lake restore`

use super::{Folding, Lake};
use crate::feed::Feed;
use clap::Args;
use replicator_config::Config;
use replicator_lake::layout::TableFolder;
use replicator_lake::{FoldOptions, Moment, Restored, restore_table};
use replicator_store::Store;
use std::path::{Path, PathBuf};

#[derive(Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(super) lake: Lake,
    /// The moment: a time (2026-03-18T09:00:00Z) or an LSN (X/X)
    #[arg(long, value_name = "TIME|LSN")]
    as_of: Moment,
    /// `file`, or a sink of the configuration by name, whose table is emptied first
    #[arg(long, value_name = "file|SINK")]
    into: String,
    /// The Parquet file that is made with `--into file`
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    #[command(flatten)]
    folding: Folding,
}

pub(super) async fn restore(config: &Config, arguments: &Arguments) -> Result<(), String> {
    let lake = arguments.lake.settings(config)?;
    let store = arguments.lake.open(config)?;
    let options = arguments.folding.options(lake);
    let folders = arguments.lake.folders(&store).await?;
    if arguments.into == "file" {
        let out = arguments.out.as_deref().ok_or("say by --out which file is to be made")?;
        let [folder] = folders.as_slice() else {
            return Err("a file has one table: say which by --table".into());
        };
        say(folder, &restored(&store, folder, arguments, &options, out).await?);
        return Ok(());
    }
    let feed = Feed::into(config, &arguments.into)?;
    for folder in &folders {
        let file = tempfile::NamedTempFile::new_in(&options.scratch)
            .map_err(|error| format!("making a file for the rows: {error}"))?;
        let result = restored(&store, folder, arguments, &options, file.path()).await?;
        feed.table(file.path(), &result).await?;
        say(folder, &result);
    }
    Ok(())
}

async fn restored(
    store: &Store,
    folder: &TableFolder,
    arguments: &Arguments,
    options: &FoldOptions,
    out: &Path,
) -> Result<Restored, String> {
    let restored = restore_table(store, folder, arguments.as_of, options, out).await;
    restored.map_err(|error| error.to_string())
}

fn say(folder: &TableFolder, Restored { info, through, files }: &Restored) {
    println!("{}: {} rows, as of {through}, of {files} files", folder.table_name(), info.events);
}
