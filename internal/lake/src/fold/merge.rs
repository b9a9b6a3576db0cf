//! Sorting what fits into memory, and merging what does not.

use super::FoldOptions;
use super::newest::{At, Newest, bookmark_at, key_at, without_extra};
use super::rows::{Fault, Shaper};
use crate::bookmark;
use crate::delta::{described, properties};
use crate::info::FileInfo;
use arrow_array::RecordBatch;
use arrow_array::cast::AsArray;
use arrow_array::types::TimestampMicrosecondType;
use arrow_ipc::reader::StreamReader;
use arrow_ipc::writer::StreamWriter;
use parquet::arrow::ArrowWriter;
use std::fs::File;
use std::io::{BufReader, BufWriter, Seek};
use std::path::Path;

/// Batches that may be in hand before those that are done with are let go.
const BATCHES_MAX: usize = 64;

/// Sorted files that are open at once: more are merged into one. A process has some 1,000 files.
const RUNS_MAX: usize = 128;

fn fault(error: impl std::fmt::Display) -> Fault {
    error.to_string()
}

/// Rows on their way to sorted files.
pub(super) struct Runs<'a> {
    shaper: &'a Shaper,
    options: &'a FoldOptions,
    /// Bytes that are sorted at once.
    pub(super) bytes_max: usize,
    batches: Vec<RecordBatch>,
    bytes: usize,
    runs: Vec<Source<'a>>,
}

impl<'a> Runs<'a> {
    pub(super) fn new(shaper: &'a Shaper, options: &'a FoldOptions) -> Self {
        Self {
            shaper,
            options,
            bytes_max: options.memory_bytes_max,
            batches: Vec::new(),
            bytes: 0,
            runs: Vec::new(),
        }
    }

    pub(super) fn push(&mut self, batch: RecordBatch) -> Result<(), Fault> {
        if batch.num_rows() == 0 {
            return Ok(());
        }
        // And a reference to each row, which the sort moves.
        self.bytes += batch.get_array_memory_size() + batch.num_rows() * size_of::<(&[u8], &str, At)>();
        self.batches.push(batch);
        if self.bytes > self.bytes_max { self.spill() } else { Ok(()) }
    }

    /// All of them, each sorted, with one row a key.
    pub(super) fn finish(mut self) -> Result<Vec<Source<'a>>, Fault> {
        if !self.batches.is_empty() {
            self.spill()?;
        }
        Ok(self.runs)
    }

    fn spill(&mut self) -> Result<(), Fault> {
        let batches = std::mem::take(&mut self.batches);
        self.bytes = 0;
        let run = self.written(|out| sorted(self.shaper, &batches, out))?;
        self.runs.push(run);
        if self.runs.len() >= RUNS_MAX {
            let runs = std::mem::take(&mut self.runs);
            let run = self.written(|out| Merge::new(self.shaper, runs, true)?.run(out))?;
            self.runs.push(run);
        }
        Ok(())
    }

    /// The run that `write` puts out.
    fn written(
        &self,
        write: impl FnOnce(&mut dyn FnMut(RecordBatch) -> Result<(), Fault>) -> Result<(), Fault>,
    ) -> Result<Source<'a>, Fault> {
        let file = tempfile::tempfile_in(&self.options.scratch).map_err(fault)?;
        let mut writer = StreamWriter::try_new(BufWriter::new(file), &self.shaper.schema).map_err(fault)?;
        write(&mut |batch| writer.write(&batch).map_err(fault))?;
        writer.finish().map_err(fault)?;
        let mut file = writer.into_inner().map_err(fault)?.into_inner().map_err(fault)?;
        file.rewind().map_err(fault)?;
        let reader = StreamReader::try_new(BufReader::new(file), None).map_err(fault)?;
        Ok(Source::new(Box::new(reader.map(|batch| batch.map_err(fault)))))
    }
}

/// Puts out the newest row of each key, in the order of keys.
fn sorted(
    shaper: &Shaper,
    batches: &[RecordBatch],
    out: &mut dyn FnMut(RecordBatch) -> Result<(), Fault>,
) -> Result<(), Fault> {
    let system = shaper.system();
    let mut rows: Vec<(&[u8], &str, At)> =
        Vec::with_capacity(batches.iter().map(RecordBatch::num_rows).sum());
    for (index, batch) in batches.iter().enumerate() {
        rows.extend(
            (0..batch.num_rows())
                .map(|row| (key_at(batch, row), bookmark_at(batch, system, row), (index, row))),
        );
    }
    rows.sort_unstable_by(|a, b| a.0.cmp(b.0).then_with(|| b.1.cmp(a.1)));
    let mut newest = Newest::new(shaper, true);
    let mut versions: Vec<At> = Vec::new();
    for group in rows.chunk_by(|a, b| a.0 == b.0) {
        versions.clear();
        versions.extend(group.iter().map(|(_, _, at)| *at));
        newest.push(batches, &versions);
        if newest.is_full()
            && let Some(batch) = newest.take(batches)?
        {
            out(batch)?;
        }
    }
    newest.take(batches)?.map_or(Ok(()), out)
}

/// Sorted rows, one a key.
pub(super) struct Source<'a> {
    batches: Box<dyn Iterator<Item = Result<RecordBatch, Fault>> + 'a>,
    /// Where it stands; none at its end.
    at: Option<At>,
}

impl<'a> Source<'a> {
    pub(super) fn new(batches: Box<dyn Iterator<Item = Result<RecordBatch, Fault>> + 'a>) -> Self {
        Self { batches, at: None }
    }

    /// Goes on to the first row of the next batch that has any.
    fn load(&mut self, pool: &mut Vec<RecordBatch>) -> Result<(), Fault> {
        self.at = None;
        for batch in self.batches.by_ref() {
            let batch = batch?;
            if batch.num_rows() > 0 {
                self.at = Some((pool.len(), 0));
                pool.push(batch);
                break;
            }
        }
        Ok(())
    }

    fn advance(&mut self, pool: &mut Vec<RecordBatch>) -> Result<(), Fault> {
        let Some((index, row)) = self.at else { return Ok(()) };
        if pool.get(index).is_some_and(|batch| row + 1 < batch.num_rows()) {
            self.at = Some((index, row + 1));
            return Ok(());
        }
        self.load(pool)
    }
}

/// The merge of all sources.
pub(super) struct Merge<'a> {
    shaper: &'a Shaper,
    sources: Vec<Source<'a>>,
    /// The batches in hand.
    pool: Vec<RecordBatch>,
    /// Whether the ends of rows are put out too.
    keeps_deleted: bool,
}

impl<'a> Merge<'a> {
    pub(super) fn new(
        shaper: &'a Shaper,
        mut sources: Vec<Source<'a>>,
        keeps_deleted: bool,
    ) -> Result<Self, Fault> {
        let mut pool = Vec::new();
        for source in &mut sources {
            source.load(&mut pool)?;
        }
        Ok(Self { shaper, sources, pool, keeps_deleted })
    }

    pub(super) fn run(mut self, out: &mut dyn FnMut(RecordBatch) -> Result<(), Fault>) -> Result<(), Fault> {
        let system = self.shaper.system();
        let mut newest = Newest::new(self.shaper, self.keeps_deleted);
        let mut versions: Vec<At> = Vec::new();
        let mut of_key: Vec<usize> = Vec::new();
        while self.next_key(&mut of_key) {
            versions.clear();
            versions.extend(of_key.iter().filter_map(|source| self.sources.get(*source)?.at));
            if versions.len() > 1 {
                let bookmark = |at: &At| self.pool.get(at.0).map(|batch| bookmark_at(batch, system, at.1));
                versions.sort_by(|a, b| bookmark(b).cmp(&bookmark(a)));
            }
            newest.push(&self.pool, &versions);
            for index in &of_key {
                if let Some(source) = self.sources.get_mut(*index) {
                    source.advance(&mut self.pool)?;
                }
            }
            if newest.is_full() || self.pool.len() > BATCHES_MAX + self.sources.len() {
                if let Some(batch) = newest.take(&self.pool)? {
                    out(batch)?;
                }
                self.let_go();
            }
        }
        match newest.take(&self.pool)? {
            Some(batch) => out(batch),
            None => Ok(()),
        }
    }

    /// Which sources stand at the least key; false at the end of all.
    fn next_key(&self, of_key: &mut Vec<usize>) -> bool {
        of_key.clear();
        let mut least: Option<&[u8]> = None;
        for (index, source) in self.sources.iter().enumerate() {
            let Some((batch, row)) = source.at else { continue };
            let Some(batch) = self.pool.get(batch) else { continue };
            let key = key_at(batch, row);
            match least {
                Some(known) if key > known => continue,
                Some(known) if key == known => {}
                _ => {
                    of_key.clear();
                    least = Some(key);
                }
            }
            of_key.push(index);
        }
        least.is_some()
    }

    /// Keeps only the batches that a source stands in.
    fn let_go(&mut self) {
        let mut pool = std::mem::take(&mut self.pool);
        let empty = RecordBatch::new_empty(std::sync::Arc::clone(&self.shaper.schema));
        for source in &mut self.sources {
            if let Some((index, row)) = source.at
                && let Some(batch) = pool.get_mut(index)
            {
                source.at = Some((self.pool.len(), row));
                self.pool.push(std::mem::replace(batch, empty.clone()));
            }
        }
    }
}

/// The file of rows.
pub(super) struct Output<'a> {
    shaper: &'a Shaper,
    writer: ArrowWriter<File>,
    rows: u64,
    ts_us: Option<(i64, i64)>,
    bookmarks: Option<(String, String)>,
}

impl<'a> Output<'a> {
    pub(super) fn create(path: &Path, shaper: &'a Shaper, options: &FoldOptions) -> Result<Self, Fault> {
        let file = File::create(path).map_err(fault)?;
        let properties = properties(&options.file).map_err(fault)?.build();
        let writer = ArrowWriter::try_new(file, shaper.target.data(), Some(properties)).map_err(fault)?;
        Ok(Self { shaper, writer, rows: 0, ts_us: None, bookmarks: None })
    }

    pub(super) fn write(&mut self, batch: &RecordBatch) -> Result<(), Fault> {
        let system = self.shaper.system();
        self.rows += batch.num_rows() as u64;
        if let Some(times) = batch.column(system.ts).as_primitive_opt::<TimestampMicrosecondType>() {
            for ts_us in times.iter().flatten() {
                let (min, max) = self.ts_us.unwrap_or((ts_us, ts_us));
                self.ts_us = Some((min.min(ts_us), max.max(ts_us)));
            }
        }
        if let Some(bookmarks) = batch.column(system.bookmark).as_string_opt::<i32>() {
            let (min, max) = (bookmarks.iter().flatten().min(), bookmarks.iter().flatten().max());
            if let (Some(min), Some(max)) = (min, max) {
                let known = self.bookmarks.get_or_insert_with(|| (min.to_owned(), max.to_owned()));
                if min < known.0.as_str() {
                    min.clone_into(&mut known.0);
                }
                if max > known.1.as_str() {
                    max.clone_into(&mut known.1);
                }
            }
        }
        // A batch of the columns alone: the target's fields say what they are called and numbered.
        let rows = without_extra(batch)?;
        let rows = RecordBatch::try_new(self.shaper.target.data(), rows.columns().to_vec()).map_err(fault)?;
        self.writer.write(&rows).map_err(fault)
    }

    /// Ends the file, durably; `info` is completed with what was written.
    pub(super) fn finish(mut self, info: FileInfo) -> Result<FileInfo, Fault> {
        let (min_ts_us, max_ts_us) = self.ts_us.unwrap_or_default();
        let (min_bookmark, max_bookmark) = self.bookmarks.unwrap_or_default();
        debug_assert!(max_bookmark.is_empty() || bookmark::parse(&max_bookmark).is_some());
        let info = FileInfo { events: self.rows, min_ts_us, max_ts_us, min_bookmark, max_bookmark, ..info };
        self.writer.append_key_value_metadata(described(&info));
        let file = self.writer.into_inner().map_err(fault)?;
        file.sync_all().map_err(fault)?;
        Ok(info)
    }
}
