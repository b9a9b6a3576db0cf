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

mod merge;
mod newest;
mod rows;

use crate::bookmark;
use crate::delta::FileOptions;
use crate::footer::local_info;
use crate::info::{FORMAT_VERSION, FileInfo, FileKind};
use crate::schema::TableSchema;
use merge::{Merge, Output, Runs, Source};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use rows::{Shaper, Wanted};
use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

/// How a fold goes about it.
#[derive(Clone, Debug)]
pub struct FoldOptions {
    /// Bytes of changes that are sorted in memory at once.
    pub memory_bytes_max: usize,
    /// A folder for what does not fit.
    pub scratch: PathBuf,
    /// How the file is written.
    pub file: FileOptions,
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
    let newest = deltas.iter().chain(base).max_by_key(|input| &input.info.max_bookmark);
    let newest = newest.ok_or("there is nothing to fold")?;
    let shaper = Shaper::new(TableSchema::of_info(newest.info.table.clone()))?;
    let truncated_at = deltas.iter().filter_map(|input| input.info.truncated_at.clone()).max();
    let is_past = |input: &&FoldInput| truncated_at.as_ref().is_some_and(|at| input.info.max_bookmark < *at);

    let of_base = Wanted { after: None, from: truncated_at.clone() };
    let base_rows = base.filter(|base| !is_past(base));
    let (sorted, unsorted): (Vec<_>, Vec<_>) =
        base_rows.into_iter().partition(|base| key_types(&base.info) == key_types(&newest.info));
    let mut runs = Runs::new(&shaper, options);
    for input in unsorted {
        read(input, &shaper, &of_base, &mut |batch| runs.push(batch))?;
    }
    for input in deltas.iter().filter(|input| !is_past(input)) {
        let after = base.and_then(|base| {
            if is_of_stream(&input.info) {
                base.info.folded_through.clone()
            } else {
                base.info.copied_through.clone()
            }
        });
        let wanted = Wanted { after, from: truncated_at.clone() };
        read(input, &shaper, &wanted, &mut |batch| runs.push(batch))?;
    }
    let mut sources = runs.finish()?;
    for input in sorted {
        sources.push(Source::new(Box::new(batches(input, &shaper, of_base.clone())?)));
    }
    let mut output = Output::create(out, &shaper, options)?;
    Merge::new(&shaper, sources)?.run(&mut |batch| output.write(batch))?;

    let through = |of_stream: bool, before: Option<&String>| {
        let here = deltas.iter().filter(|input| is_of_stream(&input.info) == of_stream);
        here.map(|input| &input.info.max_bookmark).chain(before).max().cloned()
    };
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
    })
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
    take: &mut dyn FnMut(arrow_array::RecordBatch) -> Result<(), String>,
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
) -> Result<impl Iterator<Item = Result<arrow_array::RecordBatch, String>> + 'a, String> {
    let fault = |error: String| format!("{}: {error}", input.path.display());
    let file = File::open(&input.path).map_err(|error| fault(error.to_string()))?;
    let reader = ParquetRecordBatchReaderBuilder::try_new(file).and_then(|reader| reader.build());
    let reader = reader.map_err(|error| fault(error.to_string()))?;
    Ok(reader.map(move |batch| {
        let batch = batch.map_err(|error| fault(error.to_string()))?;
        shaper.shape(&batch, &input.info, &wanted).map_err(fault)
    }))
}
