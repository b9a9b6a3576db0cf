//! A table as it was.
//!
//! ```text
//!   moment ──▶ bookmark: the last change that counts
//!                 │
//!   data.parquet ─┤ or the newest snapshot, of which all is older than that
//!   processed/   ─┼──▶ fold up to the bookmark ──▶ a file of rows
//!   deltas/      ─┘
//! ```
//!
//! # Invariants
//! - What comes out is a prefix of the table's stream: all changes up to one bookmark, and no others.
//! - Where changes are missing, since they were removed or are from before the table's copy, there is an error, and no
//!   table of part of the rows.

use crate::bookmark;
use crate::compact::{fetch, folded_further};
use crate::fold::{FoldInput, FoldOptions, fold, is_of_stream, texts};
use crate::footer::read_info;
use crate::info::FileInfo;
use crate::layout::{TableFolder, first_position};
use crate::moment::Moment;
use crate::snapshot;
use arrow_array::RecordBatch;
use arrow_array::cast::AsArray;
use arrow_array::types::TimestampMicrosecondType;
use futures_util::{StreamExt, TryStreamExt, stream};
use replicator_sink::SinkError;
use replicator_store::{Store, blocking};
use replicator_types::Position;
use std::collections::BTreeMap;
use std::path::Path;

/// Footers that are read at once.
const FOOTERS_AT_ONCE: usize = 16;

const REMOVED: &str = "changes that this takes were removed after they were folded (--delete-folded)";

/// What was restored.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Restored {
    /// What the file of rows says of itself.
    pub info: FileInfo,
    /// The bookmark up to which changes are in it.
    pub through: String,
    /// Files that it was made of.
    pub files: usize,
}

/// Writes the rows that the table in `folder` had at `moment` to `out`, sorted by key.
///
/// # Errors
/// Those of the store; to halt where the lake does not have all that it takes, with the reason.
pub async fn restore_table(
    store: &Store,
    folder: &TableFolder,
    moment: Moment,
    options: &FoldOptions,
    out: &Path,
) -> Result<Restored, SinkError> {
    let refused =
        |why: String| SinkError::halt(format!("{} at {}: {why}", folder.table_name(), store.place()));
    let files = history(store, folder).await?;
    let bases = bases(store, folder).await?;
    let scratch = tempfile::tempdir_in(&options.scratch)
        .map_err(|error| SinkError::retry(format!("making a folder for a restore: {error}")))?;
    let until = until(store, &files, &bases, moment, scratch.path()).await?;
    let until = until.ok_or_else(|| {
        let removed = bases.iter().any(|(_, base)| base.removed_through.is_some());
        refused(if removed { REMOVED } else { "the lake has nothing from before that moment" }.to_owned())
    })?;

    let is_counted = |info: &FileInfo| info.min_bookmark.as_str() <= until.as_str();
    let counted: Vec<&(String, FileInfo)> = files.iter().filter(|(_, info)| is_counted(info)).collect();
    let changes = || counted.iter().map(|(_, info)| info);
    let is_usable = |(_, base): &&(String, FileInfo)| {
        through(base).is_some_and(|through| *through <= until)
            && folded_further(Some(base), changes()).is_none()
    };
    let usable = bases.iter().filter(is_usable).max_by_key(|(_, base)| through(base));
    let truncated_at =
        changes().filter_map(|info| info.truncated_at.as_ref()).filter(|at| **at <= until).max();
    let removed = bases.iter().filter_map(|(_, base)| base.removed_through.as_ref()).max();
    match usable.and_then(|(_, base)| through(base)) {
        None => is_complete(&files, removed, truncated_at, &until).map_err(refused)?,
        // What was between the two is gone; only that very bookmark is known to need none of it.
        Some(reached) if removed > Some(reached) => {
            if *reached < until || !matches!(moment, Moment::Bookmark(_)) {
                return Err(refused(REMOVED.to_owned()));
            }
        }
        Some(_) => {}
    }
    let mut inputs = Vec::new();
    for (path, info) in &counted {
        let is_folded = usable.is_some_and(|(_, base)| is_folded(base, info));
        if !is_folded && !info.is_before(truncated_at.map(String::as_str)) {
            inputs.push(fetch(store, path, scratch.path()).await?);
        }
    }
    let base = match usable {
        Some((path, _)) => Some(fetch(store, path, scratch.path()).await?),
        None => None,
    };
    if inputs.iter().chain(&base).any(|input| !input.info.table.has_key()) {
        return Err(refused("it has no key, so its changes make no table".into()));
    }
    let files = inputs.len() + usize::from(base.is_some());
    let options = FoldOptions {
        scratch: scratch.path().to_owned(),
        until: Some(until.clone()),
        removed_through: None,
        file: options.file,
        memory_bytes_max: options.memory_bytes_max,
    };
    let out = out.to_owned();
    let folded = blocking(move || fold(base.as_ref(), &inputs, &options, &out)).await?;
    let info = folded.map_err(|why| refused(format!("cannot be folded: {why}")))?;
    Ok(Restored { info, through: until, files })
}

/// All files of rows: `data.parquet`, and the snapshots.
async fn bases(store: &Store, folder: &TableFolder) -> Result<Vec<(String, FileInfo)>, SinkError> {
    let mut paths = snapshot::paths(store, folder).await?;
    paths.extend(store.head(&folder.data()).await?.map(|found| found.path));
    infos(store, paths).await
}

async fn infos(store: &Store, paths: Vec<String>) -> Result<Vec<(String, FileInfo)>, SinkError> {
    let read = paths.into_iter().map(|path| async move {
        let (info, _) = read_info(store, &path).await?;
        Ok::<_, SinkError>((path, info))
    });
    stream::iter(read).buffer_unordered(FOOTERS_AT_ONCE).try_collect().await
}

/// All files of changes, folded or not, with what they hold.
async fn history(store: &Store, folder: &TableFolder) -> Result<Vec<(String, FileInfo)>, SinkError> {
    let mut by_name = BTreeMap::new();
    // Those that are being moved are in both; read where they will stay.
    for folder in [folder.deltas(), folder.processed()] {
        for found in store.list(&folder).await? {
            if first_position(&found.path).is_some()
                && let Some((_, name)) = found.path.rsplit_once('/')
            {
                by_name.insert(name.to_owned(), found.path.clone());
            }
        }
    }
    let mut files = infos(store, by_name.into_values().collect()).await?;
    files.sort_by(|(_, a), (_, b)| a.min_bookmark.cmp(&b.min_bookmark));
    Ok(files)
}

/// The last bookmark that a file of rows has.
fn through(base: &FileInfo) -> Option<&String> {
    base.folded_through.as_ref().max(base.copied_through.as_ref())
}

fn is_folded(base: &FileInfo, info: &FileInfo) -> bool {
    let through = if is_of_stream(info) { &base.folded_through } else { &base.copied_through };
    through.as_ref().is_some_and(|through| info.max_bookmark <= *through)
}

/// The bookmark of the last change that counts at `moment`; `None` when there is none.
async fn until(
    store: &Store,
    files: &[(String, FileInfo)],
    bases: &[(String, FileInfo)],
    moment: Moment,
    scratch: &Path,
) -> Result<Option<String>, SinkError> {
    let position = match moment {
        Moment::Lsn(lsn) => Ok(Position { commit_lsn: lsn, ordinal: u64::MAX }),
        Moment::Bookmark(position) => Ok(position),
        Moment::Time(time_us) => Err(time_us),
    };
    let time_us = match position {
        Err(time_us) => time_us,
        Ok(position) => {
            let until = bookmark::text(position);
            let firsts = files.iter().map(|(_, info)| &info.min_bookmark);
            let firsts = firsts.chain(bases.iter().filter_map(|(_, base)| through(base)));
            return Ok(firsts.min().filter(|first| **first <= until).map(|_| until));
        }
    };
    let of_bases = bases.iter().filter(|(_, base)| base.folded_ts_us.is_some_and(|folded| folded <= time_us));
    let mut until = of_bases.filter_map(|(_, base)| through(base)).max().cloned();
    for (path, info) in files.iter().filter(|(_, info)| info.min_ts_us <= time_us) {
        if until.as_ref() >= Some(&info.max_bookmark) {
            continue;
        }
        let last = if info.max_ts_us <= time_us {
            Some(info.max_bookmark.clone())
        } else {
            let input = fetch(store, path, scratch).await?;
            let last = blocking(move || last_before(&input, time_us)).await?;
            last.map_err(|why| crate::footer::foreign(store, path, &why))?
        };
        until = until.max(last);
    }
    Ok(until)
}

/// The last bookmark of a change from not after that time.
fn last_before(input: &FoldInput, time_us: i64) -> Result<Option<String>, String> {
    let mut last: Option<String> = None;
    texts(input, &["ts", "bookmark"], &mut |batch: &RecordBatch| {
        let times =
            batch.column_by_name("ts").and_then(|ts| ts.as_primitive_opt::<TimestampMicrosecondType>());
        let bookmarks =
            batch.column_by_name("bookmark").and_then(|bookmarks| bookmarks.as_string_opt::<i32>());
        let (Some(times), Some(bookmarks)) = (times, bookmarks) else {
            return Err("it lacks ts or bookmark".into());
        };
        for (time, bookmark) in times.iter().zip(bookmarks) {
            if time.is_some_and(|time| time <= time_us) && bookmark > last.as_deref() {
                last = bookmark.map(str::to_owned);
            }
        }
        Ok(())
    })?;
    Ok(last)
}

/// Whether the files have all changes up to `until`, without a file of rows to begin with.
fn is_complete(
    files: &[(String, FileInfo)],
    removed: Option<&String>,
    truncated_at: Option<&String>,
    until: &str,
) -> Result<(), String> {
    if let Some(removed) = removed
        && truncated_at.is_none_or(|at| at <= removed)
    {
        return Err(REMOVED.to_owned());
    }
    let later_copy = files.iter().any(|(_, info)| {
        !is_of_stream(info) && info.truncated_at.as_deref().is_some_and(|truncated| truncated > until)
    });
    if truncated_at.is_none() && later_copy {
        return Err("its copy is of a later moment".into());
    }
    Ok(())
}
