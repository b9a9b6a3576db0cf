//! Snapshots: `data.parquet` as it was on a day, and on a month's first day with a snapshot.
//!
//! ```text
//!   data.parquet ──copy──▶ snapshots/{yyyy-mm-dd}.parquet ─▶ snapshots/manifest.json
//!                          snapshots/{yyyy-mm}.parquet        (what is there, written last)
//! ```
//!
//! A day's snapshot is made once, of the first `data.parquet` that is met on it, and never replaced. A snapshot is a file
//! of rows like any other, and says by itself how far it goes: a restore begins with the newest that is old enough.

use crate::footer::read_info;
use crate::info::FileInfo;
use crate::layout::{SUFFIX, TableFolder};
use replicator_sink::SinkError;
use replicator_store::Store;
use replicator_telemetry::rfc3339_micros;
use serde::{Deserialize, Serialize};
use std::time::SystemTime;

/// Characters of a day, `2026-03-18`.
const DAY_CHARS: usize = 10;
/// Characters of a month, `2026-03`.
const MONTH_CHARS: usize = 7;

/// How many snapshots are kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Retention {
    /// Days' newest.
    pub daily: usize,
    /// Months' newest.
    pub monthly: usize,
}

impl Default for Retention {
    /// 30 days and 12 months.
    fn default() -> Self {
        Self { daily: 30, monthly: 12 }
    }
}

/// What was done, or would be.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Snapshots {
    /// Paths that were made.
    pub made: Vec<String>,
    /// Paths that were removed.
    pub removed: Vec<String>,
}

/// A snapshot as `snapshots/manifest.json` has it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct Entry {
    /// Relative to the lake.
    path: String,
    bytes: u64,
    #[serde(flatten)]
    info: FileInfo,
}

/// Makes the snapshots of today (`now`, UTC) that are not there, removes those that are not to be kept, and writes the
/// manifest. Nothing is changed with `dry_run`.
///
/// # Errors
/// Those of the store.
pub async fn snapshot_table(
    store: &Store,
    folder: &TableFolder,
    retention: Retention,
    now: SystemTime,
    dry_run: bool,
) -> Result<Snapshots, SinkError> {
    if store.head(&folder.data()).await?.is_none() {
        return Ok(Snapshots::default());
    }
    let today = rfc3339_micros(now);
    let today = [DAY_CHARS, MONTH_CHARS].map(|chars| today.get(..chars).unwrap_or_default());
    let mut there = paths(store, folder).await?;
    let mut done = Snapshots::default();
    for period in today {
        let path = format!("{}/{period}{SUFFIX}", folder.snapshots());
        if !there.contains(&path) {
            if !dry_run {
                store.copy(&folder.data(), &path).await?;
            }
            there.push(path.clone());
            done.made.push(path);
        }
    }
    for (chars, kept) in [(DAY_CHARS, retention.daily), (MONTH_CHARS, retention.monthly)] {
        let mut of_kind: Vec<&String> =
            there.iter().filter(|path| period_chars(path) == Some(chars)).collect();
        of_kind.sort();
        // The one just made stays, whatever was asked for.
        let surplus = of_kind.len().saturating_sub(kept.max(1));
        done.removed.extend(of_kind.into_iter().take(surplus).cloned());
    }
    if dry_run || done == Snapshots::default() {
        return Ok(done);
    }
    let mut entries = Vec::new();
    for path in there.into_iter().filter(|path| !done.removed.contains(path)) {
        let (info, bytes) = read_info(store, &path).await?;
        entries.push(Entry { path, bytes, info });
    }
    entries.sort_by(|a, b| a.path.cmp(&b.path));
    // Structs of texts and numbers: there is nothing to fail.
    let body = serde_json::to_vec_pretty(&entries).unwrap_or_default();
    store.replace(&folder.snapshot_manifest(), body.into()).await?;
    for path in &done.removed {
        store.delete(path).await?;
    }
    Ok(done)
}

/// The snapshots of a table.
pub(crate) async fn paths(store: &Store, folder: &TableFolder) -> Result<Vec<String>, SinkError> {
    let found = store.list(&folder.snapshots()).await?;
    Ok(found.into_iter().map(|found| found.path).filter(|path| period_chars(path).is_some()).collect())
}

/// The length of the period in a snapshot's name; `None` when it has no such name.
fn period_chars(path: &str) -> Option<usize> {
    let (_, name) = path.rsplit_once('/')?;
    let period = name.strip_suffix(SUFFIX)?;
    let is_period = period.bytes().enumerate().all(|(at, byte)| match at {
        4 | 7 => byte == b'-',
        _ => byte.is_ascii_digit(),
    });
    (is_period && matches!(period.len(), DAY_CHARS | MONTH_CHARS)).then_some(period.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_is_called_by_a_day_or_a_month() {
        assert_eq!(period_chars("cdc/a/b/snapshots/2026-03-18.parquet"), Some(DAY_CHARS));
        assert_eq!(period_chars("cdc/a/b/snapshots/2026-03.parquet"), Some(MONTH_CHARS));
        for other in
            ["snapshots/manifest.json", "snapshots/2026.parquet", "s/mine.parquet", "s/20260318ab.parquet"]
        {
            assert_eq!(period_chars(other), None, "{other}");
        }
    }
}
