//! Folding: a table's rows and its changes become its rows.
//!
//! ```text
//!   deltas ──shape──▶ batches ──memory is full──▶ sort, newest of each key ──▶ run (a file)
//!                                                                               │
//!   data.parquet ──shape────────────────────────────────────────────▶ merge ◀───┘ … as many as there are
//!                                                                       │ newest of each key, ends of rows left out
//!                                                                       ▼
//!                                                                 data.parquet
//! ```
//!
//! # Invariants
//! - In memory are at most `memory_bytes_max` of changes, or one batch of each run and of the table's rows: whatever the
//!   size of either.
//! - What comes out depends on the changes alone, not on how they are cut into files, nor on how often one is there.
//! - A row whose newest version lacks values keeps their names in `unchanged`: they are never made NULL in silence.
//! - A row that an update moved to another key keeps its values (`fold/moves.rs`).

mod merge;
mod moves;
mod newest;
mod rows;

use crate::bookmark;
use crate::delta::FileOptions;
use crate::footer::local_info;
use crate::info::{FORMAT_VERSION, FileInfo, FileKind};
use crate::schema::TableSchema;
use arrow_array::RecordBatch;
use arrow_array::cast::AsArray;
use merge::{Merge, Output, Runs, Source};
use moves::Moves;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use rows::{Shaper, Wanted};
use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

/// What is always there for the keys of rows that were moved.
const MOVES_BYTES_MIN: usize = 1 << 20;

/// How a fold goes about it.
#[derive(Clone, Debug)]
pub struct FoldOptions {
    /// Bytes of changes that are sorted in memory at once.
    pub memory_bytes_max: usize,
    /// A folder for what does not fit.
    pub scratch: PathBuf,
    /// How the file is written.
    pub file: FileOptions,
    /// Changes behind this bookmark are left out; none when `None`.
    pub until: Option<String>,
    /// What the file is to say of changes that are no longer there ([`FileInfo::removed_through`]).
    pub removed_through: Option<String>,
}

/// A file on this machine.
#[derive(Clone, Debug)]
pub struct FoldInput {
    /// Where.
    pub path: PathBuf,
    /// What it says of itself.
    pub info: FileInfo,
}

impl FoldInput {
    /// The file at `path`.
    ///
    /// # Errors
    /// It is none of ours; says why.
    pub fn open(path: PathBuf) -> Result<Self, String> {
        let info = local_info(&path)?;
        Ok(Self { path, info })
    }
}

/// Writes to `out` the rows that come of `base` and `deltas`; says what they are. Without either there is nothing to
/// fold.
///
/// Changes that `base` has by its own account are left out wherever they are found again.
///
/// # Errors
/// What is wrong, and with which file.
pub fn fold(
    base: Option<&FoldInput>,
    deltas: &[FoldInput],
    options: &FoldOptions,
    out: &Path,
) -> Result<FileInfo, String> {
    let until = options.until.as_deref();
    let deltas: Vec<&FoldInput> = deltas
        .iter()
        .filter(|input| until.is_none_or(|until| input.info.min_bookmark.as_str() <= until))
        .collect();
    let newest = deltas.iter().copied().chain(base).max_by_key(|input| &input.info.max_bookmark);
    let newest = newest.ok_or("there is nothing to fold")?;
    let shaper = Shaper::new(TableSchema::of_info(newest.info.table.clone()))?;
    let truncated_at = truncated_at(deltas.iter().copied(), until)?;
    let of_base = Wanted { after: None, from: truncated_at.clone(), until: None };
    let base_rows = base.filter(|base| !base.info.is_before(truncated_at.as_deref()));
    let changes =
        deltas.iter().copied().filter(|input| !input.info.is_before(truncated_at.as_deref())).map(|input| {
            let through = |base: &FoldInput| {
                let FileInfo { folded_through, copied_through, .. } = &base.info;
                if is_of_stream(&input.info) { folded_through.clone() } else { copied_through.clone() }
            };
            let (after, from) = (base.and_then(through), truncated_at.clone());
            (input, Wanted { after, from, until: options.until.clone() })
        });
    let changes: Vec<(&FoldInput, Wanted)> = changes.collect();
    let moves = Moves::find(&changes, &shaper, (options.memory_bytes_max / 4).max(MOVES_BYTES_MIN))?;
    let sources = match &moves {
        None => unmoved(base_rows, &of_base, &changes, &newest.info, &shaper, options)?,
        Some(moves) => moved(moves, base_rows, &of_base, &changes, &shaper, options)?,
    };
    let mut output = Output::create(out, &shaper, options)?;
    Merge::new(&shaper, sources, false)?.run(&mut |batch| output.write(&batch))?;

    let through = |of_stream: bool, before: Option<&String>| {
        let here = deltas.iter().filter(|input| is_of_stream(&input.info) == of_stream);
        let last = here.map(|input| input.info.max_bookmark.as_str());
        let last = last.map(|last| until.map_or(last, |until| last.min(until)));
        last.chain(before.map(String::as_str)).max().map(str::to_owned)
    };
    let times = deltas.iter().map(|input| Some(input.info.max_ts_us));
    let before = base.map(|base| base.info.folded_ts_us);
    output.finish(FileInfo {
        format_version: FORMAT_VERSION,
        kind: FileKind::Data,
        identity: newest.info.identity.clone(),
        table: newest.info.table.clone(),
        events: 0,
        min_ts_us: 0,
        max_ts_us: 0,
        min_bookmark: String::new(),
        max_bookmark: String::new(),
        types: BTreeMap::new(),
        truncated_at: None,
        moved_incomplete: 0,
        folded_through: through(true, base.and_then(|base| base.info.folded_through.as_ref())),
        copied_through: through(false, base.and_then(|base| base.info.copied_through.as_ref())),
        // Not known of all is not known.
        folded_ts_us: times.chain(before).collect::<Option<Vec<_>>>().and_then(|all| all.into_iter().max()),
        removed_through: options.removed_through.clone(),
    })
}

/// The last truncate among the changes up to `until`: what is older counts no more.
pub(crate) fn truncated_at<'a>(
    inputs: impl Iterator<Item = &'a FoldInput>,
    until: Option<&str>,
) -> Result<Option<String>, String> {
    let mut last: Option<String> = None;
    for input in inputs {
        let Some(of_file) = &input.info.truncated_at else { continue };
        if until.is_none_or(|until| of_file.as_str() <= until) {
            last = last.max(Some(of_file.clone()));
            continue;
        }
        texts(input, &["op", "bookmark"], &mut |batch| {
            let text = |name| batch.column_by_name(name).and_then(|column| column.as_string_opt::<i32>());
            let (Some(ops), Some(bookmarks)) = (text("op"), text("bookmark")) else {
                return Err("it lacks op or bookmark".into());
            };
            for (op, bookmark) in ops.iter().zip(bookmarks) {
                if op == Some("truncate") && bookmark <= until && bookmark > last.as_deref() {
                    last = bookmark.map(str::to_owned);
                }
            }
            Ok(())
        })?;
    }
    Ok(last)
}

/// Some columns of a file of changes, as they are.
pub(crate) fn texts(
    input: &FoldInput,
    columns: &[&str],
    take: &mut dyn FnMut(&RecordBatch) -> Result<(), String>,
) -> Result<(), String> {
    let fault = |error: String| format!("{}: {error}", input.path.display());
    let file = File::open(&input.path).map_err(|error| fault(error.to_string()))?;
    let reader = ParquetRecordBatchReaderBuilder::try_new(file).map_err(|error| fault(error.to_string()))?;
    let mask = ProjectionMask::columns(reader.parquet_schema(), columns.iter().copied());
    let reader = reader.with_projection(mask).build().map_err(|error| fault(error.to_string()))?;
    for batch in reader {
        take(&batch.map_err(|error| fault(error.to_string()))?).map_err(fault)?;
    }
    Ok(())
}

/// The sorted rows of all inputs.
fn unmoved<'a>(
    base: Option<&'a FoldInput>,
    of_base: &Wanted,
    changes: &[(&FoldInput, Wanted)],
    newest: &FileInfo,
    shaper: &'a Shaper,
    options: &'a FoldOptions,
) -> Result<Vec<Source<'a>>, String> {
    let (sorted, unsorted): (Vec<_>, Vec<_>) =
        base.into_iter().partition(|base| key_types(&base.info) == key_types(newest));
    let mut runs = Runs::new(shaper, options);
    for input in unsorted {
        read(input, shaper, of_base, &mut |batch| runs.push(batch))?;
    }
    for (input, wanted) in changes {
        read(input, shaper, wanted, &mut |batch| runs.push(batch))?;
    }
    let mut sources = runs.finish()?;
    for input in sorted {
        sources.push(Source::new(Box::new(batches(input, shaper, of_base.clone())?)));
    }
    Ok(sources)
}

/// As [`unmoved`], where rows were moved: those that moves touch are brought to one complete row each first.
fn moved<'a>(
    moves: &Moves,
    base: Option<&FoldInput>,
    of_base: &Wanted,
    changes: &[(&FoldInput, Wanted)],
    shaper: &'a Shaper,
    options: &'a FoldOptions,
) -> Result<Vec<Source<'a>>, String> {
    let (mut untouched, mut lineages) = (Runs::new(shaper, options), Runs::new(shaper, options));
    // Two sorts at a time.
    let share = options.memory_bytes_max / 2;
    (untouched.bytes_max, lineages.bytes_max) = (share, share);
    let all = base.map(|base| (base, of_base.clone())).into_iter().chain(changes.iter().cloned());
    for (input, wanted) in all {
        read(input, shaper, &wanted, &mut |batch| {
            lineages.push(moves.by_lineage(&batch, shaper)?)?;
            untouched.push(moves.untouched(&batch)?)
        })?;
    }
    let mut sources = untouched.finish()?;
    let mut rows = Runs::new(shaper, options);
    Merge::new(shaper, lineages.finish()?, false)?.run(&mut |batch| rows.push(shaper.with_keys(&batch)?))?;
    sources.extend(rows.finish()?);
    Ok(sources)
}

/// Whether a file of changes is the stream's, rather than a copy's.
pub(crate) fn is_of_stream(info: &FileInfo) -> bool {
    bookmark::parse(&info.max_bookmark).is_some_and(bookmark::is_of_stream)
}

/// What decides the order of a file's rows.
fn key_types(info: &FileInfo) -> Vec<(i16, arrow_schema::DataType)> {
    let keys = info.table.columns.iter().filter(|column| column.key);
    keys.map(|column| (column.attnum, crate::schema::data_type(&column.column()))).collect()
}

fn read(
    input: &FoldInput,
    shaper: &Shaper,
    wanted: &Wanted,
    take: &mut dyn FnMut(RecordBatch) -> Result<(), String>,
) -> Result<(), String> {
    for batch in batches(input, shaper, wanted.clone())? {
        take(batch?)?;
    }
    Ok(())
}

/// The rows of a file, in shape.
fn batches<'a>(
    input: &'a FoldInput,
    shaper: &'a Shaper,
    wanted: Wanted,
) -> Result<impl Iterator<Item = Result<RecordBatch, String>> + 'a, String> {
    let fault = |error: String| format!("{}: {error}", input.path.display());
    let file = File::open(&input.path).map_err(|error| fault(error.to_string()))?;
    let reader = ParquetRecordBatchReaderBuilder::try_new(file).and_then(|reader| reader.build());
    let reader = reader.map_err(|error| fault(error.to_string()))?;
    Ok(reader.map(move |batch| {
        let batch = batch.map_err(|error| fault(error.to_string()))?;
        shaper.shape(&batch, &input.info, &wanted).map_err(fault)
    }))
}
