//! `replicator lake snapshot`

use super::{Failures, Lake};
use clap::Args;
use replicator_config::Config;
use replicator_lake::{Retention, snapshot_table};
use std::time::SystemTime;

#[derive(Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(super) lake: Lake,
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
    let folders = arguments.lake.folders(&store).await?;
    let would = if arguments.dry_run { "would be " } else { "" };
    let mut failures = Failures::default();
    for folder in &folders {
        match snapshot_table(&store, folder, retention, SystemTime::now(), arguments.dry_run).await {
            Ok(done) => {
                done.made.iter().for_each(|path| println!("{path}: {would}made"));
                done.removed.iter().for_each(|path| println!("{path}: {would}removed"));
            }
            Err(error) => failures.add(folder, &error),
        }
    }
    failures.end(folders.len(), "tables have no snapshot of today")
}
