//! `replicator lake snapshot`

use super::{Lake, folders};
use crate::one_line;
use clap::Args;
use replicator_config::Config;
use replicator_lake::{Retention, snapshot_table};
use std::time::SystemTime;

#[derive(Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(super) lake: Lake,
    /// A table, as schema.name; may be given several times. All when left out
    #[arg(long = "table", value_name = "SCHEMA.NAME")]
    tables: Vec<String>,
    /// How many days' snapshots are kept
    #[arg(long, value_name = "N", default_value_t = Retention::default().daily)]
    daily: usize,
    /// How many months' snapshots are kept
    #[arg(long, value_name = "N", default_value_t = Retention::default().monthly)]
    monthly: usize,
    /// Only say what would be done
    #[arg(long)]
    dry_run: bool,
}

pub(super) async fn snapshot(config: &Config, arguments: &Arguments) -> Result<(), String> {
    let store = arguments.lake.open(config)?;
    let retention = Retention { daily: arguments.daily, monthly: arguments.monthly };
    let folders = folders(&store, &arguments.tables).await?;
    let would = if arguments.dry_run { "would be " } else { "" };
    let mut failed = 0;
    for folder in &folders {
        match snapshot_table(&store, folder, retention, SystemTime::now(), arguments.dry_run).await {
            Ok(done) => {
                done.made.iter().for_each(|path| println!("{path}: {would}made"));
                done.removed.iter().for_each(|path| println!("{path}: {would}removed"));
            }
            Err(error) => {
                failed += 1;
                eprintln!("replicator: {}: {}", folder.path(), one_line(&error.to_string()));
            }
        }
    }
    match failed {
        0 => Ok(()),
        failed => Err(format!("{failed} of {} tables have no snapshot of today", folders.len())),
    }
}
