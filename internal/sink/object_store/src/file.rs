//! An archive file, written from a batch.

use crate::event::{EventWriter, column_that_is_not_utf8};
use crate::name::{CommitTime, Hour, SUFFIX, ulid};
use bytes::Bytes;
use flate2::write::GzEncoder;
use flate2::{Compression, GzBuilder};
use replicator_sink::SinkError;
use replicator_types::{Batch, Position, SlotIdentity};
use std::io::Write;
use std::ops::Range;

/// JSON that is gathered before it goes to the compressor: small enough to stay in a CPU's second cache.
const CHUNK_BYTES: usize = 64 << 10;

/// "Unknown" in gzip's header, so that a file is the same wherever it was written (RFC 1952, section 2.3.1).
const GZIP_OS_UNKNOWN: u8 = 255;

/// A file ready to be put.
#[derive(Clone, Debug)]
pub(crate) struct NewFile {
    /// Relative to the configured prefix.
    pub(crate) path: String,
    pub(crate) hour: Hour,
    pub(crate) body: Bytes,
    pub(crate) events: u64,
    pub(crate) uncompressed_bytes: u64,
}

/// What every event id of a slot begins with: the id without its position.
pub(crate) fn id_prefix(identity: &SlotIdentity) -> String {
    let id = identity.event_id(Position::ZERO);
    let position_chars = "0000000000000000-00000000".len();
    id.get(..id.len().saturating_sub(position_chars)).unwrap_or(&id).to_owned()
}

/// Makes files of batches, with buffers that live from file to file.
#[derive(Debug)]
pub(crate) struct FileWriter {
    events: EventWriter,
    level: Compression,
    chunk: Vec<u8>,
    /// Size of the last file, for the next one's buffer.
    last_bytes: usize,
}

impl FileWriter {
    pub(crate) fn new(identity: &SlotIdentity, level: Compression) -> Self {
        Self { events: EventWriter::new(&id_prefix(identity)), level, chunk: Vec::new(), last_bytes: 0 }
    }

    /// The file of the changes `range` of `batch`, all committed in `hour`. Fails with a rejection when a
    /// change is not what its table says, or not UTF-8.
    pub(crate) fn write(
        &mut self,
        batch: &Batch,
        hour: Hour,
        range: Range<usize>,
    ) -> Result<NewFile, SinkError> {
        let first = batch.change(range.start);
        let time = CommitTime::from_postgres_micros(first.transaction.commit_time_us);
        let path = path(hour, time, first.position);
        let events = range.len() as u64;
        self.events.begin_file(batch.relations());
        let mut gzip = gzip(Vec::with_capacity(self.last_bytes + self.last_bytes / 4), self.level);
        let mut uncompressed_bytes = 0;
        self.chunk.clear();
        let mut chunk_start = range.start;
        for index in range.clone() {
            self.events.push(&mut self.chunk, &batch.change(index))?;
            if self.chunk.len() >= CHUNK_BYTES || index + 1 == range.end {
                if std::str::from_utf8(&self.chunk).is_err() {
                    return Err(not_utf8(batch, chunk_start..index + 1));
                }
                gzip.write_all(&self.chunk).map_err(|error| SinkError::retry(format!("gzip: {error}")))?;
                uncompressed_bytes += self.chunk.len() as u64;
                self.chunk.clear();
                chunk_start = index + 1;
            }
        }
        let body = gzip.finish().map_err(|error| SinkError::retry(format!("gzip: {error}")))?;
        self.last_bytes = body.len();
        Ok(NewFile { path, hour, body: body.into(), events, uncompressed_bytes })
    }
}

/// The path of a file whose first event was committed at `time`, in `hour`, and stands at `first`.
pub(crate) fn path(hour: Hour, time: CommitTime, first: Position) -> String {
    format!("{}/{}{SUFFIX}", hour.folder(), ulid(time, first))
}

pub(crate) fn gzip(out: Vec<u8>, level: Compression) -> GzEncoder<Vec<u8>> {
    GzBuilder::new().mtime(0).operating_system(GZIP_OS_UNKNOWN).write(out, level)
}

fn not_utf8(batch: &Batch, mut range: Range<usize>) -> SinkError {
    let found = range.find_map(|index| {
        let change = batch.change(index);
        column_that_is_not_utf8(&change).map(|column| (change, column))
    });
    SinkError::reject(match found {
        Some((change, column)) => format!(
            "column {column} of {} is not UTF-8 in the change at {}: the source has to send client_encoding UTF8",
            change.relation, change.position
        ),
        None => "a change is not UTF-8".to_owned(),
    })
}
