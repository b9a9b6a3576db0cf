//! Folding a table where it lies: beside a writer, and beside others that do the same.
//!
//! ```text
//!   1 copy.json, data.parquet's version, deltas/, copy.json again     nothing is folded while the table is copied
//!   2 fold, here
//!   3 data.parquet, if it is still the one that was seen              a folder: under a lock; a store: If-Match
//!   4 read back: it says what was folded
//!   5 manifest.json
//!   6 deltas/… ──▶ processed/…
//! ```
//!
//! # After a crash, and with two at once
//! `data.parquet` is replaced in one step, and says by itself how far it goes. A crash after step 3 leaves deltas that it
//! has: readers take the newest row of each key, so nothing counts twice, and the next fold leaves them out and moves
//! them. Of two that fold at once one finds another `data.parquet` than it saw, and gives up; what it has read
//! is still in `deltas/` or in the other's file.
//!
//! # A copy that is older than what is folded
//! While a table waits for its copy, its changes come and may be folded; then its copied rows come, and are older. Rows
//! that were deleted in between must not come back, but a fold forgets deletes. So the table is folded from its
//! changes again: those of `processed/` from the copy's truncate on.

use crate::fold::{FoldInput, FoldOptions, fold, is_of_stream, truncated_at};
use crate::footer::read_info;
use crate::info::FileInfo;
use crate::layout::{SUFFIX, TABLES, TableFolder, first_position};
use crate::manifest::{CopyState, Manifest};
use replicator_sink::SinkError;
use replicator_store::{Found, Put, Store, Version, blocking};
use replicator_telemetry::rfc3339_micros;
use std::fs::File;
use std::path::Path;
use std::time::SystemTime;

/// How a compaction goes about it.
#[derive(Clone, Debug)]
pub struct CompactOptions {
    /// How it folds.
    pub fold: FoldOptions,
    /// Only says what it would do.
    pub dry_run: bool,
    /// Removes folded deltas, rather than to keep them in `processed/`.
    pub delete_folded: bool,
}

/// What became of a table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Compacted {
    /// There is nothing to fold.
    Nothing,
    /// So many delta files of so many bytes would be folded.
    Would {
        /// Files.
        files: usize,
        /// Their bytes.
        bytes: u64,
    },
    /// It was left alone; why.
    LeftAlone(String),
    /// It was folded.
    Done {
        /// Delta files.
        files: usize,
        /// Rows of the table.
        rows: u64,
        /// Bytes of `data.parquet`.
        bytes: u64,
    },
}

/// The tables of a lake.
///
/// # Errors
/// Those of the store.
pub async fn tables(store: &Store) -> Result<Vec<TableFolder>, SinkError> {
    let mut tables = Vec::new();
    for schema in store.folders(TABLES).await? {
        for table in store.folders(&format!("{TABLES}/{schema}")).await? {
            tables.extend(TableFolder::in_path(&format!("{TABLES}/{schema}/{table}")));
        }
    }
    tables.sort();
    Ok(tables)
}

/// Folds the table in `folder`.
///
/// # Errors
/// Those of the store; to halt where a file cannot be folded, with the reason.
pub async fn compact_table(
    store: &Store,
    folder: &TableFolder,
    options: &CompactOptions,
) -> Result<Compacted, SinkError> {
    let _lock = match store.local() {
        Some(_) if options.dry_run => None,
        Some(local) => match local.try_lock(&folder.lock()).await? {
            Some(lock) => Some(lock),
            None => return Ok(Compacted::LeftAlone("another compaction is at it".into())),
        },
        None => None,
    };
    let copy = CopyState::find(store, folder).await?;
    if copy.as_ref().is_some_and(|copy| copy.is_running) {
        return Ok(Compacted::LeftAlone("it is being copied".into()));
    }
    let data = store.head(&folder.data()).await?;
    let manifest = Manifest::find(store, folder).await?;
    let files = delta_files(store, &folder.deltas()).await?;
    if CopyState::find(store, folder).await? != copy {
        return Ok(Compacted::LeftAlone("its copy has just begun or ended".into()));
    }
    if files.is_empty() {
        return Ok(Compacted::Nothing);
    }
    if options.dry_run {
        return Ok(Compacted::Would { files: files.len(), bytes: files.iter().map(|file| file.bytes).sum() });
    }

    let scratch = tempfile::tempdir_in(&options.fold.scratch)
        .map_err(|error| SinkError::retry(format!("making a folder for a fold: {error}")))?;
    let mut deltas = Vec::with_capacity(files.len());
    for file in &files {
        deltas.push(fetch(store, &file.path, scratch.path()).await?);
    }
    let truncated_at = truncated_at(deltas.iter(), None)
        .map_err(|why| SinkError::halt(format!("{} at {}: {why}", folder.path(), store.place())))?;
    let counts = |input: &&FoldInput| !input.info.is_before(truncated_at.as_deref());
    if let Some(keyless) = deltas.iter().filter(counts).find(|input| !input.info.table.has_key()) {
        let table = format!("{}.{}", keyless.info.table.schema, keyless.info.table.name);
        return Ok(Compacted::LeftAlone(format!("{table} has no key; its deltas stay as they are")));
    }
    let base = match &data {
        Some(_) => Some(fetch(store, &folder.data(), scratch.path()).await?),
        None => None,
    };
    let removed = deltas.iter().map(|input| &input.info.max_bookmark).filter(|_| options.delete_folded);
    let removed_before = base.as_ref().and_then(|base| base.info.removed_through.as_ref());
    let removed_through = removed.chain(removed_before).max().cloned();
    let behind = folded_further(base.as_ref().map(|base| &base.info), deltas.iter().map(|input| &input.info));
    let (base, again) = match behind {
        Some(from) => (None, processed_since(store, folder, &from, scratch.path()).await?),
        None => (base, Vec::new()),
    };
    let inputs: Vec<FoldInput> = deltas.iter().cloned().chain(again).collect();

    let out = scratch.path().join("data");
    let (fold_options, result) = (
        FoldOptions { scratch: scratch.path().to_owned(), removed_through, ..options.fold.clone() },
        out.clone(),
    );
    let folded = blocking(move || fold(base.as_ref(), &inputs, &fold_options, &result)).await?;
    let info = folded.map_err(|why| {
        SinkError::halt(format!("{} at {} cannot be folded: {why}", folder.path(), store.place()))
    })?;

    let file = File::open(&out).map_err(|error| SinkError::retry(format!("reading a fold: {error}")))?;
    let seen = data.as_ref().map(|found| &found.version);
    // Taken for another's, it may still be ours, of a put whose reply was lost: what is there tells.
    store.replace_with_file(&folder.data(), file, seen).await?;
    let (there, bytes) = read_info(store, &folder.data()).await?;
    if there != info {
        return Ok(Compacted::LeftAlone("another compaction was faster".into()));
    }
    let seen = manifest.as_ref().map(|(_, version)| version);
    put_manifest(store, folder, &info, bytes, seen).await?;
    for file in &files {
        if options.delete_folded {
            store.delete(&file.path).await?;
        } else {
            store.rename(&file.path, &folder.processed_path(&file.path)).await?;
        }
    }
    Ok(Compacted::Done { files: files.len(), rows: info.events, bytes })
}

async fn delta_files(store: &Store, folder: &str) -> Result<Vec<Found>, SinkError> {
    let mut files = store.list(folder).await?;
    files.retain(|file| first_position(&file.path).is_some());
    Ok(files)
}

pub(crate) async fn fetch(store: &Store, path: &str, scratch: &Path) -> Result<FoldInput, SinkError> {
    let name = path.rsplit('/').next().unwrap_or(path);
    let name = if name.ends_with(SUFFIX) { format!("in-{name}") } else { "in".to_owned() };
    let here = scratch.join(name);
    let file = File::create(&here)
        .map_err(|error| SinkError::retry(format!("making {}: {error}", here.display())))?;
    store.download(path, file).await?;
    let opened = blocking(move || FoldInput::open(here)).await?;
    opened.map_err(|why| crate::footer::foreign(store, path, &why))
}

/// From which bookmark on the table has to be folded from its changes again; see the module.
pub(crate) fn folded_further<'a>(
    base: Option<&FileInfo>,
    deltas: impl Iterator<Item = &'a FileInfo>,
) -> Option<String> {
    let base = base?;
    let through = base.folded_through.as_ref()?;
    let is_new = |info: &&FileInfo| {
        !is_of_stream(info) && base.copied_through.as_ref().is_none_or(|known| info.max_bookmark > *known)
    };
    let begins = deltas.filter(is_new).map(|info| &info.min_bookmark).min()?;
    (begins < through).then(|| begins.clone())
}

async fn processed_since(
    store: &Store,
    folder: &TableFolder,
    from: &str,
    scratch: &Path,
) -> Result<Vec<FoldInput>, SinkError> {
    let mut inputs = Vec::new();
    for file in delta_files(store, &folder.processed()).await? {
        let (info, _) = read_info(store, &file.path).await?;
        if is_of_stream(&info) && info.max_bookmark.as_str() > from {
            inputs.push(fetch(store, &file.path, scratch).await?);
        }
    }
    Ok(inputs)
}

async fn put_manifest(
    store: &Store,
    folder: &TableFolder,
    info: &FileInfo,
    bytes: u64,
    seen: Option<&Version>,
) -> Result<(), SinkError> {
    let manifest = Manifest { info: info.clone(), bytes, written_at: rfc3339_micros(SystemTime::now()) };
    // A struct of texts and numbers: there is nothing to fail.
    let body = serde_json::to_vec_pretty(&manifest).unwrap_or_default();
    match store.replace_version(&folder.manifest(), body.into(), seen).await? {
        Put::Done => Ok(()),
        // Ours, of a put whose reply was lost, or one who folded the same; or another's who folded more.
        Put::Exists => match Manifest::find(store, folder).await? {
            Some((there, _)) if there.info == *info => Ok(()),
            _ => Err(SinkError::retry(format!(
                "{} at {} was replaced meanwhile; compact again",
                folder.manifest(),
                store.place()
            ))),
        },
    }
}
