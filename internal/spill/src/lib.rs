//! Records that have to wait: kept in memory as long as there is room, in files beyond that.
//!
//! ```text
//!   push ─▶ [tail] ─full─▶ block ─┬─ room in memory ─▶ [block]      ┐
//!                                 └─ none ───────────▶ file, offset ┴─▶ take: runs of whole records, in order
//! ```
//!
//! A [`Queue`] holds the changes of one transaction in progress, or of one table that is being copied. All queues
//! of a [`Shelf`] share its memory. A queue's file has no name, so that it is gone when the process is, however that
//! ends: what waits here is not acknowledged to the source and comes again. Nothing is fsynced for the same reason.
//!
//! # Invariants
//! - Records come out as they went in, each once, in order.
//! - Memory of all queues ≤ the limit, plus one growing tail a queue of at most [`TAIL_KEPT_BYTES`], plus one record.
//!
//! A record is stored as a 32-bit length (native byte order; the file does not outlive the process) and its bytes.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A block is closed when it has grown to this size.
const BLOCK_BYTES: usize = 256 << 10;

/// With no room in memory a tail is written out from this size on.
pub const TAIL_KEPT_BYTES: usize = 32 << 10;

/// What was to wait can't be kept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "changes that have to wait (of a transaction in progress, or of a table being copied) can't be {doing} a file in \
     {folder}: {reason}; give that folder room, or name another in buffer.spill_folder"
)]
pub struct SpillError {
    doing: &'static str,
    folder: String,
    reason: String,
}

/// The memory and the folder that queues share.
#[derive(Clone, Debug)]
pub struct Shelf(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// None: everything stays in memory.
    folder: Option<PathBuf>,
    memory_bytes_max: usize,
    memory_bytes: AtomicUsize,
    file_bytes: AtomicUsize,
}

impl Shelf {
    /// Queues that use up to `memory_bytes_max` of memory together, and files in `folder` beyond that.
    pub fn new(folder: &Path, memory_bytes_max: usize) -> Self {
        let folder = if folder.as_os_str().is_empty() { std::env::temp_dir() } else { folder.to_path_buf() };
        Self::of(Some(folder), memory_bytes_max)
    }

    /// Queues that keep everything in memory: for tests and simulations.
    pub fn in_memory() -> Self {
        Self::of(None, usize::MAX)
    }

    fn of(folder: Option<PathBuf>, memory_bytes_max: usize) -> Self {
        let (memory_bytes, file_bytes) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Self(Arc::new(Shared { folder, memory_bytes_max, memory_bytes, file_bytes }))
    }

    /// An empty queue.
    pub fn queue(&self) -> Queue {
        Queue {
            shelf: self.clone(),
            blocks: VecDeque::new(),
            tail: Vec::new(),
            tail_counted: 0,
            file: None,
            file_end: 0,
            bytes: 0,
        }
    }

    /// Bytes that wait in memory.
    pub fn memory_bytes(&self) -> usize {
        self.0.memory_bytes.load(Ordering::Relaxed)
    }

    /// Bytes that wait in files.
    pub fn file_bytes(&self) -> usize {
        self.0.file_bytes.load(Ordering::Relaxed)
    }

    fn has_room(&self) -> bool {
        self.0.folder.is_none() || self.memory_bytes() < self.0.memory_bytes_max
    }

    fn error(&self, doing: &'static str, error: &io::Error) -> SpillError {
        let folder = self.0.folder.as_deref().unwrap_or(Path::new("memory")).display().to_string();
        SpillError { doing, folder, reason: error.to_string() }
    }
}

/// Records in order. See the module.
#[derive(Debug)]
pub struct Queue {
    shelf: Shelf,
    blocks: VecDeque<Block>,
    tail: Vec<u8>,
    /// What of the tail is in the shelf's count.
    tail_counted: usize,
    file: Option<File>,
    file_end: u64,
    bytes: u64,
}

#[derive(Debug)]
enum Block {
    Memory(Vec<u8>),
    InFile { offset: u64, bytes: usize },
}

impl Queue {
    /// Adds a record, made of `parts` one behind the other.
    ///
    /// # Errors
    /// There was no room in memory, and the file can't be written.
    pub fn push(&mut self, parts: &[&[u8]]) -> Result<(), SpillError> {
        let length: usize = parts.iter().map(|part| part.len()).sum();
        // A record is a message of the source, and those end at 1 GiB.
        self.tail.extend_from_slice(&(length as u32).to_ne_bytes());
        parts.iter().for_each(|part| self.tail.extend_from_slice(part));
        self.bytes += length as u64 + 4;
        self.count_tail();
        if self.tail.len() >= BLOCK_BYTES || (self.tail.len() >= TAIL_KEPT_BYTES && !self.shelf.has_room()) {
            self.close_tail()?;
        }
        Ok(())
    }

    /// The next run of whole records, to be walked with [`records`]; `None` when there is none.
    ///
    /// # Errors
    /// The file can't be read.
    pub fn take(&mut self) -> Result<Option<Vec<u8>>, SpillError> {
        let run = match self.blocks.pop_front() {
            Some(Block::Memory(block)) => {
                self.shelf.0.memory_bytes.fetch_sub(block.len(), Ordering::Relaxed);
                block
            }
            Some(Block::InFile { offset, bytes }) => {
                let mut block = vec![0; bytes];
                let file = self.file.as_ref().ok_or_else(|| io::Error::from(io::ErrorKind::NotFound));
                file.and_then(|file| file.read_exact_at(&mut block, offset))
                    .map_err(|error| self.shelf.error("read back from", &error))?;
                self.shelf.0.file_bytes.fetch_sub(bytes, Ordering::Relaxed);
                block
            }
            None if self.tail.is_empty() => return Ok(None),
            None => {
                self.uncount_tail();
                std::mem::take(&mut self.tail)
            }
        };
        self.bytes -= run.len() as u64;
        if self.blocks.is_empty() {
            // Its room on the disk is given back.
            self.file = None;
            self.file_end = 0;
        }
        Ok(Some(run))
    }

    /// Whether no record waits.
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Bytes that wait, in memory and in the file.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    fn close_tail(&mut self) -> Result<(), SpillError> {
        if self.shelf.has_room() {
            // It stays counted, as a block from now on.
            self.tail_counted = 0;
            self.blocks.push_back(Block::Memory(std::mem::take(&mut self.tail)));
            return Ok(());
        }
        let offset = self.file_end;
        self.write(offset).map_err(|error| self.shelf.error("written to", &error))?;
        let bytes = self.tail.len();
        self.blocks.push_back(Block::InFile { offset, bytes });
        self.file_end += bytes as u64;
        self.shelf.0.file_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.uncount_tail();
        self.tail.clear();
        Ok(())
    }

    fn write(&mut self, offset: u64) -> io::Result<()> {
        let file = match &self.file {
            Some(file) => file,
            None => {
                let folder = self.shelf.0.folder.as_deref().unwrap_or(Path::new("."));
                self.file.insert(tempfile::tempfile_in(folder)?)
            }
        };
        file.write_all_at(&self.tail, offset)
    }

    fn count_tail(&mut self) {
        let more = self.tail.len() - self.tail_counted;
        self.shelf.0.memory_bytes.fetch_add(more, Ordering::Relaxed);
        self.tail_counted += more;
    }

    fn uncount_tail(&mut self) {
        self.shelf.0.memory_bytes.fetch_sub(self.tail_counted, Ordering::Relaxed);
        self.tail_counted = 0;
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        self.uncount_tail();
        for block in &self.blocks {
            match block {
                Block::Memory(block) => self.shelf.0.memory_bytes.fetch_sub(block.len(), Ordering::Relaxed),
                Block::InFile { bytes, .. } => self.shelf.0.file_bytes.fetch_sub(*bytes, Ordering::Relaxed),
            };
        }
    }
}

/// The records of a run that [`Queue::take`] gave, from the byte `at` on; with each, where the next begins.
pub fn records(run: &[u8], mut at: usize) -> impl Iterator<Item = (&[u8], usize)> {
    std::iter::from_fn(move || {
        let rest = run.get(at..)?;
        let (length, rest) = rest.split_first_chunk::<4>()?;
        let record = rest.get(..u32::from_ne_bytes(*length) as usize)?;
        at += 4 + record.len();
        Some((record, at))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn drain(queue: &mut Queue) -> Vec<Vec<u8>> {
        let mut all = Vec::new();
        while let Some(run) = queue.take().unwrap() {
            all.extend(records(&run, 0).map(|(record, _)| record.to_vec()));
        }
        all
    }

    proptest! {
        #[test]
        fn records_come_out_as_they_went_in_whatever_the_memory(
            sizes in prop::collection::vec((0_usize..90_000, any::<bool>()), 0..60),
            memory_bytes_max in 0_usize..400_000,
        ) {
            let folder = tempfile::tempdir().unwrap();
            let shelf = Shelf::new(folder.path(), memory_bytes_max);
            let mut queue = shelf.queue();
            let (mut pushed, mut taken) = (Vec::new(), Vec::new());
            for (number, (size, take)) in sizes.into_iter().enumerate() {
                let record = vec![number as u8; size];
                queue.push(&[&record[..size / 2], &record[size / 2..]]).unwrap();
                pushed.push(record);
                prop_assert!(shelf.memory_bytes() <= memory_bytes_max.max(TAIL_KEPT_BYTES) + 90_004);
                if take && let Some(run) = queue.take().unwrap() {
                    taken.extend(records(&run, 0).map(|(record, _)| record.to_vec()));
                }
            }
            taken.extend(drain(&mut queue));
            prop_assert_eq!(taken, pushed);
            prop_assert!(queue.is_empty());
            prop_assert_eq!((shelf.memory_bytes(), shelf.file_bytes()), (0, 0));
        }
    }

    #[test]
    fn a_queue_that_is_dropped_gives_its_room_back_and_leaves_no_file() {
        let folder = tempfile::tempdir().unwrap();
        let shelf = Shelf::new(folder.path(), 100_000);
        let mut queue = shelf.queue();
        for _ in 0..50 {
            queue.push(&[&[7; 20_000]]).unwrap();
        }
        assert!(shelf.file_bytes() > 800_000, "{}", shelf.file_bytes());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "files have no names");
        drop(queue);
        assert_eq!((shelf.memory_bytes(), shelf.file_bytes()), (0, 0));
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_named_with_the_setting() {
        let shelf = Shelf::new(Path::new("/nowhere/at/all"), 0);
        let mut queue = shelf.queue();
        let error = queue.push(&[&[7; 40_000]]).unwrap_err().to_string();
        assert!(error.contains("/nowhere/at/all") && error.contains("buffer.spill_folder"), "{error}");
    }

    #[test]
    fn a_run_can_be_walked_from_the_middle() {
        let mut queue = Shelf::in_memory().queue();
        queue.push(&[b"a"]).unwrap();
        queue.push(&[b"bc"]).unwrap();
        let run = queue.take().unwrap().unwrap();
        let (first, next) = records(&run, 0).next().unwrap();
        assert_eq!(first, b"a");
        assert_eq!(records(&run, next).map(|(record, _)| record).collect::<Vec<_>>(), [b"bc"]);
    }
}
