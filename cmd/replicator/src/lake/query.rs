//! `replicator lake query`: SQL for DuckDB, and DuckDB for the SQL.

use super::Lake;
use clap::Args;
use replicator_config::{Config, LakeConfig};
use replicator_lake::{Scope, Sources, quoted, time_us};
use replicator_store::{Store, secret_access_key};
use std::io::{ErrorKind, Write};
use std::path::Path;
use std::process::{Command, Stdio};

#[derive(Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(super) lake: Lake,
    /// A question to the views `changes` (all changes, with the time range) and `rows` (data.parquet, of one table). But
    /// for one table `changes` has no columns of the tables' own, and `table_name`
    #[arg(value_name = "SQL")]
    sql: String,
    /// Changes committed from then on: a date or a time, UTC
    #[arg(long, value_name = "TIME", value_parser = time_us)]
    from: Option<i64>,
    /// Changes committed before then
    #[arg(long, value_name = "TIME", value_parser = time_us)]
    to: Option<i64>,
    /// Changes of one kind: insert, update, delete, truncate, read
    #[arg(long, value_name = "OP")]
    event_type: Option<String>,
    /// Only print the SQL
    #[arg(long)]
    print: bool,
    /// Copy the files here first, rather than to have DuckDB read the store
    #[arg(long)]
    fetch: bool,
}

pub(super) async fn query(config: &Config, arguments: &Arguments) -> Result<(), String> {
    let lake = arguments.lake.settings(config)?;
    let store = arguments.lake.open(config)?;
    let scope =
        Scope { from_us: arguments.from, to_us: arguments.to, event_type: arguments.event_type.clone() };
    let folders = arguments.lake.folders(&store).await?;
    let of_one_table = arguments.lake.tables.len() == 1;
    let sources = Sources::find(&store, &folders, of_one_table, &scope).await;
    let sources = sources.map_err(|error| error.to_string())?;
    let url = store.place().strip_prefix("file://").unwrap_or(store.place()).to_owned();
    let question = format!("{};\n", arguments.sql.trim().trim_end_matches(';'));
    if arguments.print {
        print!("{}{question}", sources.views(&url, &scope));
        return Ok(());
    }
    if !arguments.fetch {
        return run(&format!("{}{}{question}", secret(lake)?, sources.views(&url, &scope)));
    }
    let here = tempfile::tempdir().map_err(|error| format!("making a folder for the files: {error}"))?;
    fetch(&store, &sources, here.path()).await?;
    run(&format!("{}{question}", sources.views(&here.path().display().to_string(), &scope)))
}

async fn fetch(store: &Store, sources: &Sources, here: &Path) -> Result<(), String> {
    for path in sources.paths() {
        let target = here.join(path);
        let failed = |error: std::io::Error| format!("{}: {error}", target.display());
        target.parent().map_or(Ok(()), std::fs::create_dir_all).map_err(failed)?;
        let file = std::fs::File::create(&target).map_err(failed)?;
        store.download(path, file).await.map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// What lets DuckDB into the store.
///
/// Source: <https://duckdb.org/docs/stable/core_extensions/httpfs/s3api>.
fn secret(lake: &LakeConfig) -> Result<String, String> {
    if lake.url.starts_with("file://") {
        return Ok(String::new());
    }
    let mut settings = vec!["TYPE s3".to_owned()];
    let key = secret_access_key(&lake.place()).map_err(|error| error.to_string())?;
    if lake.access_key_id.is_empty() && key.is_empty() {
        settings.push("PROVIDER credential_chain".to_owned());
    } else {
        settings.push(format!("KEY_ID {}", quoted(lake.access_key_id.expose())));
        settings.push(format!("SECRET {}", quoted(&key)));
    }
    settings.push(format!("REGION {}", quoted(&lake.region)));
    if let Some((scheme, host)) = lake.endpoint.trim_end_matches('/').split_once("://") {
        settings.push(format!("ENDPOINT {}, URL_STYLE 'path', USE_SSL {}", quoted(host), scheme == "https"));
    }
    Ok(format!("CREATE SECRET lake ({});\n", settings.join(", ")))
}

/// Runs `duckdb` on it. The SQL goes to its input, since arguments are for all to see.
fn run(sql: &str) -> Result<(), String> {
    let child = Command::new("duckdb").arg("-bail").stdin(Stdio::piped()).spawn();
    let mut child = child.map_err(|error| match error.kind() {
        ErrorKind::NotFound => {
            "there is no duckdb in PATH. Install its command line (https://duckdb.org/install), or \
                                run what --print prints in any DuckDB"
                .to_owned()
        }
        _ => format!("duckdb could not be started: {error}"),
    })?;
    if let Some(mut input) = child.stdin.take() {
        // If it has ended early it has said why.
        let _ = input.write_all(sql.as_bytes());
    }
    let ended = child.wait().map_err(|error| format!("waiting for duckdb: {error}"))?;
    if ended.success() { Ok(()) } else { Err(format!("duckdb: {ended}")) }
}
