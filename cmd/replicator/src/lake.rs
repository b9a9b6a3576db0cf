//! `replicator lake`: what is done with the lake beside the stream.

use crate::{one_line, runtime};
use clap::Subcommand;
use replicator_config::{Config, LakeConfig, ParquetCompression, SinkKind};
use replicator_lake::{
    CompactOptions, Compacted, Compression, FileOptions, FoldOptions, compact_table, tables,
};
use replicator_store::Store;
use std::path::PathBuf;

/// What is done.
#[derive(Subcommand)]
pub(crate) enum LakeCommand {
    /// Fold each table's changes into its data.parquet; safe beside a running replicator
    Compact {
        /// The configuration file
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// The sink, when there are several of type lake
        #[arg(long, value_name = "NAME")]
        sink: Option<String>,
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
    },
}

impl LakeCommand {
    /// The configuration file.
    pub(crate) fn config(&self) -> &PathBuf {
        match self {
            Self::Compact { config, .. } => config,
        }
    }
}

/// Does it.
pub(crate) fn lake(config: &Config, command: LakeCommand) -> Result<(), String> {
    let LakeCommand::Compact { config: _, sink, tables: wanted, dry_run, delete_folded, memory_mb, scratch } =
        command;
    let lake = lake_config(config, sink.as_deref())?;
    let compression = match lake.compression {
        ParquetCompression::Zstd => Compression::Zstd(1),
        ParquetCompression::Snappy => Compression::Snappy,
        ParquetCompression::None => Compression::None,
    };
    let options = CompactOptions {
        fold: FoldOptions {
            memory_bytes_max: usize::try_from(memory_mb << 20).unwrap_or(usize::MAX),
            scratch: scratch.unwrap_or_else(std::env::temp_dir),
            file: FileOptions { compression, row_group_rows_max: lake.row_group_rows_max },
        },
        dry_run,
        delete_folded,
    };
    runtime()?.block_on(compact(lake, &wanted, &options))
}

/// The lake that is meant.
fn lake_config<'a>(config: &'a Config, sink: Option<&str>) -> Result<&'a LakeConfig, String> {
    let lakes: Vec<(&str, &LakeConfig)> = config
        .sinks
        .iter()
        .filter_map(|known| match &known.kind {
            SinkKind::Lake(lake) => Some((known.name.as_str(), lake)),
            _ => None,
        })
        .filter(|(name, _)| sink.is_none_or(|sink| sink == *name))
        .collect();
    match (lakes.as_slice(), sink) {
        ([(_, lake)], _) => Ok(lake),
        ([], Some(sink)) => Err(format!("there is no sink {sink} of type \"lake\" in the configuration")),
        ([], None) => Err("there is no sink of type \"lake\" in the configuration".into()),
        (lakes, _) => {
            let names: Vec<&str> = lakes.iter().map(|(name, _)| *name).collect();
            Err(format!("there are several lakes: say which by --sink ({})", names.join(", ")))
        }
    }
}

async fn compact(lake: &LakeConfig, wanted: &[String], options: &CompactOptions) -> Result<(), String> {
    let logger = slog::Logger::root(slog::Discard, slog::o!());
    let store = Store::open(&lake.place(), logger).map_err(|error| error.to_string())?;
    let folders = if wanted.is_empty() {
        tables(&store).await.map_err(|error| error.to_string())?
    } else {
        let named = wanted.iter().map(|table| match table.split_once('.') {
            Some((schema, name)) => Ok(replicator_lake::layout::TableFolder::of(schema, name)),
            None => Err(format!("{table}: name the table as schema.table, unquoted")),
        });
        named.collect::<Result<_, _>>()?
    };
    let mut failed = 0;
    for folder in &folders {
        let shown = folder.path();
        match compact_table(&store, folder, options).await {
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
