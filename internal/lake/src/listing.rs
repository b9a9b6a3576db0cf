//! What there is of each table, and what it costs.
//!
//! Prices of R2: <https://developers.cloudflare.com/r2/pricing/>, as of 2025: standard storage, beyond the free tier.

use crate::footer::read_info;
use crate::layout::{TableFolder, first_position};
use crate::manifest::Manifest;
use futures_util::{StreamExt, TryStreamExt, stream};
use replicator_sink::SinkError;
use replicator_store::{Found, Store};
use std::time::{Duration, SystemTime};

/// A file below this makes readers open more than they read.
pub const SMALL_BYTES: u64 = 1 << 20;

/// Footers that are read at once.
const FOOTERS_AT_ONCE: usize = 16;

/// Dollars for a gigabyte (10⁹ bytes) that is kept for a month.
const GIGABYTE_MONTH_DOLLARS: f64 = 0.015;

/// Dollars for a put or a listing ("class A").
const PUT_DOLLARS: f64 = 4.50 / 1e6;

const DAY: Duration = Duration::from_secs(86_400);
const MONTH_DAYS: f64 = 30.0;

/// Files of one folder.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Files {
    /// How many.
    pub files: u64,
    /// Of how many bytes.
    pub bytes: u64,
    /// Those below [`SMALL_BYTES`].
    pub small: u64,
    /// Those written in the last 24 hours.
    pub of_last_day: u64,
}

/// What there is of a table.
#[derive(Clone, PartialEq, Debug)]
pub struct TableListing {
    /// Where.
    pub folder: TableFolder,
    /// Changes that are not folded.
    pub deltas: Files,
    /// Rows in those.
    pub delta_rows: u64,
    /// Changes that are folded.
    pub processed: Files,
    /// Rows of `data.parquet` by its manifest; `None` before the first fold.
    pub rows: Option<u64>,
    /// Bytes of `data.parquet`.
    pub data_bytes: u64,
    /// Up to where changes are folded.
    pub folded_through: Option<String>,
    /// The bookmark of the newest change.
    pub newest: Option<String>,
    /// When the newest file was written, by the store's clock.
    pub written_at: Option<SystemTime>,
}

impl Files {
    fn add(&mut self, found: &Found, now: SystemTime) {
        self.files += 1;
        self.bytes += found.bytes;
        self.small += u64::from(found.bytes < SMALL_BYTES);
        let age = now.duration_since(found.modified).unwrap_or_default();
        self.of_last_day += u64::from(age < DAY);
    }
}

impl TableListing {
    /// Of the table in `folder`: a listing, the manifest, and a read for each file in `deltas/`.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn of(store: &Store, folder: &TableFolder, now: SystemTime) -> Result<Self, SinkError> {
        let objects = store.list(folder.path()).await?;
        let mut listing = Self {
            folder: folder.clone(),
            deltas: Files::default(),
            delta_rows: 0,
            processed: Files::default(),
            rows: None,
            data_bytes: 0,
            folded_through: None,
            newest: None,
            written_at: objects.iter().map(|found| found.modified).max(),
        };
        let (deltas, processed) = (format!("{}/", folder.deltas()), format!("{}/", folder.processed()));
        let mut paths = Vec::new();
        for found in &objects {
            if found.path == folder.data() {
                listing.data_bytes = found.bytes;
            } else if first_position(&found.path).is_none() {
                continue;
            } else if found.path.starts_with(&deltas) {
                listing.deltas.add(found, now);
                paths.push(found.path.as_str());
            } else if found.path.starts_with(&processed) {
                listing.processed.add(found, now);
            }
        }
        if let Some((manifest, _)) = Manifest::find(store, folder).await? {
            listing.rows = Some(manifest.info.events);
            listing.newest = manifest.info.folded_through.clone().max(manifest.info.copied_through);
            listing.folded_through = manifest.info.folded_through;
        }
        let footers =
            stream::iter(paths).map(|path| read_info(store, path)).buffer_unordered(FOOTERS_AT_ONCE);
        for (info, _) in footers.try_collect::<Vec<_>>().await? {
            listing.delta_rows += info.events;
            listing.newest = listing.newest.max(Some(info.max_bookmark));
        }
        Ok(listing)
    }

    /// Bytes of all of it.
    pub fn bytes(&self) -> u64 {
        self.deltas.bytes + self.processed.bytes + self.data_bytes
    }

    /// What a month costs at R2's prices: of storage as it is now, and of as many puts as in the last 24 hours each day.
    /// Folding puts each file once more, when it moves it.
    pub fn dollars_a_month(&self) -> f64 {
        let kept = self.bytes() as f64 / 1e9 * GIGABYTE_MONTH_DOLLARS;
        let puts = (self.deltas.of_last_day + 2 * self.processed.of_last_day) as f64 * MONTH_DAYS;
        kept + puts * PUT_DOLLARS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_month_costs_what_the_price_list_says() {
        let files = |files, bytes, of_last_day| Files { files, bytes, small: 0, of_last_day };
        let listing = TableListing {
            folder: TableFolder::of("public", "orders"),
            deltas: files(10, 1_000_000_000, 10_000),
            delta_rows: 0,
            processed: files(10, 1_000_000_000, 0),
            rows: None,
            data_bytes: 0,
            folded_through: None,
            newest: None,
            written_at: None,
        };
        // Two gigabytes, and 300,000 puts.
        assert!((listing.dollars_a_month() - (0.03 + 1.35)).abs() < 1e-9);
    }
}
