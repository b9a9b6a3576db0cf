//! `replicator lake`: what is done with the lake beside the stream. A file for each subcommand.

mod compact;
mod ls;
mod query;
mod restore;
mod snapshot;

use crate::{one_line, runtime};
use clap::{Args, Subcommand};
use replicator_config::{Config, LakeConfig, ParquetCompression, SinkKind};
use replicator_lake::layout::TableFolder;
use replicator_lake::{Compression, FileOptions, FoldOptions, tables};
use replicator_sink::SinkError;
use replicator_store::Store;
use std::path::{Path, PathBuf};

/// What is done.
#[derive(Subcommand)]
pub(crate) enum LakeCommand {
    /// Fold each table's changes into its data.parquet; safe beside a running replicator
    Compact(compact::Arguments),
    /// Show tables, files, rows, bytes, bookmarks, age, and what a month costs
    Ls(ls::Arguments),
    /// Ask DuckDB, with the files that the question needs: the views `changes` and `rows`
    Query(query::Arguments),
    /// Make a table as it was at a moment
    Restore(restore::Arguments),
    /// Keep each table's data.parquet as of today, and remove snapshots that are too old
    Snapshot(snapshot::Arguments),
}

/// Which lake, and what of it.
#[derive(Args)]
pub(crate) struct Lake {
    /// The configuration file
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// The sink, when there are several of type lake
    #[arg(long, value_name = "NAME")]
    sink: Option<String>,
    /// A table, as schema.name; may be given several times. All when left out
    #[arg(long = "table", value_name = "SCHEMA.NAME")]
    tables: Vec<String>,
}

/// What folding may take.
#[derive(Args)]
struct Folding {
    /// Megabytes of changes that are sorted in memory at once
    #[arg(long, value_name = "MB", default_value_t = 256, value_parser = clap::value_parser!(u64).range(1..=65_536))]
    memory_mb: u64,
    /// A folder for what does not fit into memory, and for the files being folded; the system's when left out
    #[arg(long, value_name = "FOLDER")]
    scratch: Option<PathBuf>,
}

impl Folding {
    fn options(&self, lake: &LakeConfig) -> FoldOptions {
        FoldOptions {
            memory_bytes_max: usize::try_from(self.memory_mb << 20).unwrap_or(usize::MAX),
            scratch: self.scratch.clone().unwrap_or_else(std::env::temp_dir),
            file: file_options(lake),
            until: None,
            removed_through: None,
        }
    }
}

/// Tables of which something has failed; the others are done all the same.
#[derive(Default)]
struct Failures(usize);

impl Failures {
    fn add(&mut self, folder: &TableFolder, error: &SinkError) {
        self.0 += 1;
        eprintln!("replicator: {}: {}", folder.path(), one_line(&error.to_string()));
    }

    fn end(self, tables: usize, what: &str) -> Result<(), String> {
        match self.0 {
            0 => Ok(()),
            failed => Err(format!("{failed} of {tables} {what}")),
        }
    }
}

impl LakeCommand {
    /// The configuration file.
    pub(crate) fn config(&self) -> &Path {
        match self {
            Self::Compact(arguments) => &arguments.lake.config,
            Self::Ls(arguments) => &arguments.lake.config,
            Self::Query(arguments) => &arguments.lake.config,
            Self::Restore(arguments) => &arguments.lake.config,
            Self::Snapshot(arguments) => &arguments.lake.config,
        }
    }
}

/// Does it.
pub(crate) fn lake(config: &Config, command: LakeCommand) -> Result<(), String> {
    let runtime = runtime()?;
    match command {
        LakeCommand::Compact(arguments) => runtime.block_on(compact::compact(config, &arguments)),
        LakeCommand::Ls(arguments) => runtime.block_on(ls::ls(config, &arguments)),
        LakeCommand::Query(arguments) => runtime.block_on(query::query(config, &arguments)),
        LakeCommand::Restore(arguments) => runtime.block_on(restore::restore(config, &arguments)),
        LakeCommand::Snapshot(arguments) => runtime.block_on(snapshot::snapshot(config, &arguments)),
    }
}

impl Lake {
    /// Its settings.
    fn settings<'a>(&self, config: &'a Config) -> Result<&'a LakeConfig, String> {
        let sink = self.sink.as_deref();
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

    fn open(&self, config: &Config) -> Result<Store, String> {
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        Store::open(&self.settings(config)?.place(), logger).map_err(|error| error.to_string())
    }

    /// The folders of the tables.
    async fn folders(&self, store: &Store) -> Result<Vec<TableFolder>, String> {
        if self.tables.is_empty() {
            return tables(store).await.map_err(|error| error.to_string());
        }
        self.tables.iter().map(|table| folder(table)).collect()
    }
}

/// How files are written.
fn file_options(lake: &LakeConfig) -> FileOptions {
    let compression = match lake.compression {
        ParquetCompression::Zstd => Compression::Zstd(1),
        ParquetCompression::Snappy => Compression::Snappy,
        ParquetCompression::None => Compression::None,
    };
    FileOptions { compression, row_group_rows_max: lake.row_group_rows_max }
}

fn folder(table: &str) -> Result<TableFolder, String> {
    match table.split_once('.') {
        Some((schema, name)) => Ok(TableFolder::of(schema, name)),
        None => Err(format!("{table}: name the table as schema.table, unquoted")),
    }
}
