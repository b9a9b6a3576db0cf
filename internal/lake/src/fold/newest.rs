//! What becomes of the versions of one row, and the rows that come of it.
//!
//! The newest version counts. Values that it lacks, since the source did not send them, are those of the newest version
//! before it that has them.

use super::rows::{DELETED, EXTRA, Fault, KEY, Shaper, System, list_text, names, values};
use arrow_array::builder::StringBuilder;
use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, RecordBatch};
use arrow_select::interleave::interleave;
use std::sync::Arc;

/// Rows of a batch that is put out.
const BATCH_ROWS: usize = 8192;

/// A row: which of the batches in hand, and which row of it.
pub(super) type At = (usize, usize);

/// Gathers the newest rows, and gives them out batch by batch.
pub(super) struct Newest<'a> {
    shaper: &'a Shaper,
    system: System,
    /// Whether the ends of rows are kept, since older versions of them may be elsewhere.
    keeps_deleted: bool,
    rows: Vec<At>,
    /// Where a row has a column from another version: row put out, column, where from.
    borrowed: Vec<(usize, usize, At)>,
    /// Where a row's texts are new: row put out, `data`, `unchanged`, `inexact`.
    rewritten: Vec<(usize, [Option<String>; 3])>,
}

pub(super) fn bookmark_at(batch: &RecordBatch, system: System, row: usize) -> &str {
    batch.column(system.bookmark).as_string_opt::<i32>().map_or("", |bookmarks| bookmarks.value(row))
}

pub(super) fn key_at(batch: &RecordBatch, row: usize) -> &[u8] {
    batch.column(KEY).as_binary_opt::<i32>().map_or(&[], |keys| keys.value(row))
}

fn text_at(batch: &RecordBatch, column: usize, row: usize) -> Option<&str> {
    let texts = batch.column(column).as_string_opt::<i32>()?;
    (!texts.is_null(row)).then(|| texts.value(row))
}

fn is_deleted(batch: &RecordBatch, row: usize) -> bool {
    batch.column(DELETED).as_boolean_opt().is_some_and(|deleted| deleted.value(row))
}

impl<'a> Newest<'a> {
    pub(super) fn new(shaper: &'a Shaper, keeps_deleted: bool) -> Self {
        Self {
            system: shaper.system(),
            shaper,
            keeps_deleted,
            rows: Vec::with_capacity(BATCH_ROWS),
            borrowed: Vec::new(),
            rewritten: Vec::new(),
        }
    }

    /// Whether a batch is full.
    pub(super) fn is_full(&self) -> bool {
        self.rows.len() >= BATCH_ROWS
    }

    /// Adds what comes of the versions of one row, the newest first.
    pub(super) fn push(&mut self, batches: &[RecordBatch], versions: &[At]) {
        let Some((&newest, older)) = versions.split_first() else { return };
        let Some(batch) = batches.get(newest.0) else { return };
        if is_deleted(batch, newest.1) {
            if self.keeps_deleted {
                self.rows.push(newest);
            }
            return;
        }
        let lacking = text_at(batch, self.system.unchanged, newest.1);
        let out = self.rows.len();
        self.rows.push(newest);
        if lacking.is_some() {
            self.complete(batches, out, newest, older, names(lacking));
        }
    }

    fn complete(
        &mut self,
        batches: &[RecordBatch],
        out: usize,
        newest: At,
        older: &[At],
        lacking: Vec<String>,
    ) {
        let System { data, unchanged, inexact, .. } = self.system;
        let of = |at: At, column| batches.get(at.0).and_then(|batch| text_at(batch, column, at.1));
        let mut inexact_names = names(of(newest, inexact));
        let mut inexact_values = values(of(newest, data));
        let mut still_lacking = Vec::new();
        for name in lacking {
            let known = older
                .iter()
                .take_while(|at| !batches.get(at.0).is_some_and(|batch| is_deleted(batch, at.1)))
                .find(|at| !names(of(**at, unchanged)).contains(&name));
            let (Some(known), Some(column)) = (known, self.shaper.column_named(&name)) else {
                still_lacking.push(name);
                continue;
            };
            self.borrowed.push((out, column, *known));
            if names(of(*known, inexact)).contains(&name) {
                if let Some(value) = values(of(*known, data)).remove(&name) {
                    inexact_values.insert(name.clone(), value);
                }
                inexact_names.push(name);
            }
        }
        let data = if inexact_values.is_empty() { None } else { serde_json::to_string(&inexact_values).ok() };
        self.rewritten.push((out, [data, list_text(&still_lacking), list_text(&inexact_names)]));
    }

    /// What was gathered; `None` when nothing was. Empty then.
    pub(super) fn take(&mut self, batches: &[RecordBatch]) -> Result<Option<RecordBatch>, Fault> {
        if self.rows.is_empty() {
            return Ok(None);
        }
        let System { data, unchanged, inexact, .. } = self.system;
        let columns = (0..self.shaper.schema.fields().len()).map(|column| {
            let arrays: Vec<&dyn Array> = batches.iter().map(|batch| batch.column(column).as_ref()).collect();
            let borrowed: Vec<_> = self.borrowed.iter().filter(|(_, of, _)| *of == column).collect();
            let interleaved = if borrowed.is_empty() {
                interleave(&arrays, &self.rows)
            } else {
                let mut rows = self.rows.clone();
                for (out, _, from) in borrowed {
                    if let Some(row) = rows.get_mut(*out) {
                        *row = *from;
                    }
                }
                interleave(&arrays, &rows)
            };
            let array = interleaved.map_err(|error| error.to_string())?;
            let text = [data, unchanged, inexact].iter().position(|of| *of == column);
            text.map_or(Ok(Arc::clone(&array)), |text| self.rewrite(&array, text))
        });
        let columns: Vec<ArrayRef> = columns.collect::<Result<_, Fault>>()?;
        self.rows.clear();
        self.borrowed.clear();
        self.rewritten.clear();
        let batch = RecordBatch::try_new(Arc::clone(&self.shaper.schema), columns);
        batch.map(Some).map_err(|error| error.to_string())
    }

    /// A column of texts, with those that are new.
    fn rewrite(&self, array: &ArrayRef, text: usize) -> Result<ArrayRef, Fault> {
        if self.rewritten.is_empty() {
            return Ok(Arc::clone(array));
        }
        let texts = array.as_string_opt::<i32>().ok_or("a text is none")?;
        let mut rewritten = self.rewritten.iter().peekable();
        let mut out = StringBuilder::new();
        for (row, known) in texts.iter().enumerate() {
            match rewritten.next_if(|(of, _)| *of == row) {
                Some((_, new)) => out.append_option(new.get(text).and_then(Option::as_deref)),
                None => out.append_option(known),
            }
        }
        Ok(Arc::new(out.finish()))
    }
}

/// A batch as it is in a file of rows.
pub(super) fn without_extra(batch: &RecordBatch) -> Result<RecordBatch, Fault> {
    let columns: Vec<usize> = (EXTRA..batch.num_columns()).collect();
    batch.project(&columns).map_err(|error| error.to_string())
}
