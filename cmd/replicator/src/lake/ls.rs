//! `replicator lake ls`

use super::Lake;
use clap::Args;
use replicator_config::Config;
use replicator_lake::{SMALL_BYTES, TableListing};
use std::time::SystemTime;

#[derive(Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(super) lake: Lake,
}

const HEADS: [&str; 10] =
    ["table", "rows", "data", "deltas", "changes", "bytes", "processed", "newest bookmark", "age", "$/month"];

pub(super) async fn ls(config: &Config, arguments: &Arguments) -> Result<(), String> {
    let store = arguments.lake.open(config)?;
    let now = SystemTime::now();
    let mut lines = vec![HEADS.map(str::to_owned)];
    let (mut dollars, mut bytes, mut small) = (0.0, 0, 0);
    for folder in arguments.lake.folders(&store).await? {
        let listing = TableListing::of(&store, &folder, now).await.map_err(|error| error.to_string())?;
        dollars += listing.dollars_a_month();
        bytes += listing.bytes();
        small += listing.deltas.small + listing.processed.small;
        lines.push(line(&listing, now));
    }
    print!("{}", columns(&lines));
    println!(
        "{bytes} bytes; {small} files below {} kB; about ${dollars:.4} a month at R2's prices (storage, and puts as in \
         the last 24 hours)",
        SMALL_BYTES >> 10
    );
    Ok(())
}

fn line(listing: &TableListing, now: SystemTime) -> [String; 10] {
    let age = listing.written_at.map(|at| now.duration_since(at).unwrap_or_default().as_secs());
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    [
        listing.folder.table_name(),
        or_dash(listing.rows.map(|rows| rows.to_string())),
        listing.data_bytes.to_string(),
        listing.deltas.files.to_string(),
        listing.delta_rows.to_string(),
        listing.deltas.bytes.to_string(),
        listing.processed.files.to_string(),
        or_dash(listing.newest.clone()),
        or_dash(age.map(|seconds| format!("{seconds}s"))),
        format!("{:.4}", listing.dollars_a_month()),
    ]
}

/// Lines with their columns below each other.
fn columns(lines: &[[String; 10]]) -> String {
    let width = |column: usize| lines.iter().filter_map(|line| line.get(column)).map(String::len).max();
    let mut out = String::new();
    for line in lines {
        let cells = line.iter().enumerate().map(|(column, text)| {
            let width = width(column).unwrap_or_default();
            // Names to the left, numbers to the right.
            if column == 0 { format!("{text:<width$}") } else { format!("{text:>width$}") }
        });
        out.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        out.push('\n');
    }
    out
}
