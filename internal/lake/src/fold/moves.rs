//! Updates that moved a row to another key without sending its large values.
//!
//! ```text
//!   key   1      2          lineage
//!         a ───────────────▶ A  a, a', b      the row that was called 1, then 2
//!         a'──┐
//!             └▶ b ────────▶ A
//!         c ───────────────▶ B  c             another row that is called 1 since
//! ```
//!
//! A fold finds values that were not sent in older versions of the same key. Those of a moved row are under another key;
//! so versions of all keys that such a move touches are folded by *lineage* first, and come back to the
//! fold as one complete row for each.
//!
//! # Invariants
//! - In memory are the keys and bookmarks of such moves, and no values: they are refused beyond a limit.
//! - A move is a `delete` and, next to it, an `update` with the same `prev`. Both are in one file.
//!
//! Sources: `ExtractReplicaIdentity` in `src/backend/access/heap/heapam.c` of Postgres (which updates carry the old key).

use super::newest::{bookmark_at, key_at};
use super::rows::{Fault, KEY, Shaper, Wanted};
use super::{FoldInput, batches, texts};
use crate::bookmark;
use arrow_array::builder::BinaryBuilder;
use arrow_array::cast::AsArray;
use arrow_array::{Array, BooleanArray, RecordBatch, StringArray};
use arrow_select::filter::filter_record_batch;
use replicator_types::Position;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

/// What a move costs beside its keys.
const MOVE_BYTES: usize = 160;

/// The columns that tell a move.
const COLUMNS: [&str; 4] = ["op", "bookmark", "prev", "unchanged"];

/// See the module.
pub(super) struct Moves {
    /// By key: from which bookmark on the row that is called so is of which lineage.
    keys: HashMap<Vec<u8>, Vec<(String, u32)>>,
}

/// The two keys of a move.
#[derive(Default)]
struct Move {
    from: Option<Vec<u8>>,
    to: Option<Vec<u8>>,
}

impl Moves {
    /// Those in the rows of `inputs` that are wanted; `None` when there are none.
    ///
    /// # Errors
    /// A file cannot be read, or there are more than go into `bytes_max`.
    pub(super) fn find(
        inputs: &[(&FoldInput, Wanted)],
        shaper: &Shaper,
        bytes_max: usize,
    ) -> Result<Option<Self>, Fault> {
        // By bookmark of the delete.
        let mut moves: BTreeMap<String, Move> = BTreeMap::new();
        let mut bytes = 0;
        for (input, wanted) in inputs.iter().filter(|(input, _)| input.info.moved_incomplete > 0) {
            let begins = begins(input)?;
            for batch in batches(input, shaper, wanted.clone())? {
                let batch = batch?;
                for row in 0..batch.num_rows() {
                    let at = bookmark_at(&batch, shaper.system(), row);
                    let before = neighbour(at);
                    let (delete, is_delete) = match before {
                        _ if begins.contains(at) => (at.to_owned(), true),
                        Some(before) if begins.contains(&before) => (before, false),
                        _ => continue,
                    };
                    let key = key_at(&batch, row).to_vec();
                    bytes += MOVE_BYTES + key.len() * 2;
                    let known = moves.entry(delete).or_default();
                    if is_delete { known.from = Some(key) } else { known.to = Some(key) }
                }
                if bytes > bytes_max {
                    return Err(
                        "its updates have changed more keys of rows with large values than fit into memory: \
                                give the compaction more (--memory-mb), or have the table copied anew"
                            .to_owned(),
                    );
                }
            }
        }
        Ok((!moves.is_empty()).then(|| Self::of(moves)))
    }

    fn of(moves: BTreeMap<String, Move>) -> Self {
        let mut keys: HashMap<Vec<u8>, Vec<(String, u32)>> = HashMap::new();
        let mut lineages = 0;
        let mut another = || {
            lineages += 1;
            lineages
        };
        for (delete, Move { from, to }) in moves {
            let (Some(from), Some(to)) = (from, to) else { continue };
            let left = keys.entry(from).or_insert_with(|| vec![(String::new(), another())]);
            let lineage = left.last().map_or(0, |(_, lineage)| *lineage);
            left.push((delete.clone(), another()));
            let entered = keys.entry(to).or_insert_with(|| vec![(String::new(), another())]);
            entered.push((after(&delete), lineage));
        }
        Self { keys }
    }

    fn has(&self, key: &[u8]) -> bool {
        self.keys.contains_key(key)
    }

    fn lineage(&self, key: &[u8], bookmark: &str) -> u32 {
        let Some(parts) = self.keys.get(key) else { return 0 };
        let past = parts.partition_point(|(from, _)| from.as_str() <= bookmark);
        past.checked_sub(1).and_then(|index| parts.get(index)).map_or(0, |(_, lineage)| *lineage)
    }

    fn part(&self, batch: &RecordBatch, touched: bool) -> Result<RecordBatch, Fault> {
        let mask: BooleanArray =
            (0..batch.num_rows()).map(|row| Some(self.has(key_at(batch, row)) == touched)).collect();
        filter_record_batch(batch, &mask).map_err(|error| error.to_string())
    }

    /// Rows whose keys no such move touches.
    pub(super) fn untouched(&self, batch: &RecordBatch) -> Result<RecordBatch, Fault> {
        self.part(batch, false)
    }

    /// The other rows, with their lineage in place of their key.
    pub(super) fn by_lineage(&self, batch: &RecordBatch, shaper: &Shaper) -> Result<RecordBatch, Fault> {
        let touched = self.part(batch, true)?;
        let mut keys = BinaryBuilder::new();
        for row in 0..touched.num_rows() {
            let lineage = self.lineage(key_at(&touched, row), bookmark_at(&touched, shaper.system(), row));
            keys.append_value(lineage.to_be_bytes());
        }
        let mut columns = touched.columns().to_vec();
        if let Some(column) = columns.get_mut(KEY) {
            *column = Arc::new(keys.finish());
        }
        RecordBatch::try_new(touched.schema(), columns).map_err(|error| error.to_string())
    }
}

/// The bookmark behind `text`.
fn after(text: &str) -> String {
    let position = bookmark::parse(text).unwrap_or_default();
    bookmark::text(Position { ordinal: position.ordinal.saturating_add(1), ..position })
}

/// The bookmark before `text` in its transaction.
fn neighbour(text: &str) -> Option<String> {
    let position = bookmark::parse(text)?;
    Some(bookmark::text(Position { ordinal: position.ordinal.checked_sub(1)?, ..position }))
}

/// The bookmarks of the deletes that such moves in a file begin with.
fn begins(input: &FoldInput) -> Result<BTreeSet<String>, Fault> {
    let mut found = BTreeSet::new();
    // The row before, if it is a delete: its bookmark and `prev`.
    let mut deleted: Option<(String, String)> = None;
    texts(input, &COLUMNS, &mut |batch| {
        let text = |name: &str| -> Result<&StringArray, Fault> {
            let column = batch.column_by_name(name).and_then(|column| column.as_string_opt::<i32>());
            column.ok_or_else(|| format!("its column {name} is no text"))
        };
        let (ops, bookmarks) = (text("op")?, text("bookmark")?);
        let (prevs, lacking) = (text("prev")?, text("unchanged")?);
        for row in 0..batch.num_rows() {
            let before = deleted.take();
            match (ops.value(row), prevs.is_valid(row)) {
                ("delete", true) => {
                    deleted = Some((bookmarks.value(row).to_owned(), prevs.value(row).to_owned()));
                }
                ("update", true) if lacking.is_valid(row) => {
                    let next = before
                        .filter(|(at, prev)| *prev == prevs.value(row) && after(at) == bookmarks.value(row));
                    found.extend(next.map(|(at, _)| at));
                }
                _ => {}
            }
        }
        Ok(())
    })?;
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use replicator_types::Lsn;

    fn at(lsn: u64) -> String {
        bookmark::text(Position { commit_lsn: Lsn(lsn), ordinal: 0 })
    }

    #[test]
    fn a_row_keeps_its_lineage_through_moves_and_the_next_of_its_name_has_another() {
        let moved = |from: &[u8], to: &[u8]| Move { from: Some(from.to_vec()), to: Some(to.to_vec()) };
        let moves = Moves::of(BTreeMap::from([
            (at(8), moved(b"1", b"2")),
            (at(16), moved(b"2", b"3")),
            (at(24), moved(b"9", b"1")),
        ]));
        let first = moves.lineage(b"1", &at(0));
        assert_eq!(moves.lineage(b"2", &at(9)), first);
        assert_eq!(moves.lineage(b"3", &at(17)), first);
        let nine = moves.lineage(b"9", &at(0));
        assert_eq!(moves.lineage(b"1", &at(25)), nine);
        let others = [
            moves.lineage(b"1", &at(9)),
            moves.lineage(b"2", &at(0)),
            moves.lineage(b"2", &at(17)),
            moves.lineage(b"3", &at(0)),
            moves.lineage(b"9", &at(25)),
        ];
        let all: BTreeSet<u32> = others.into_iter().chain([first, nine]).collect();
        assert_eq!(all.len(), 7, "no two rows share a lineage");
        assert!(!moves.has(b"4"));
    }
}
