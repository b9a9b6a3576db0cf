//! An archive file, written from a batch.

use crate::event::EventWriter;
use crate::naming::Naming;
use bytes::Bytes;
use flate2::write::GzEncoder;
use flate2::{Compression, GzBuilder};
use pgvalue::as_json::{Form, push_value};
use replicator_sink::SinkError;
use replicator_store::{CommitTime, Hour};
use replicator_types::{Batch, Op};
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

/// Makes files of batches, with buffers that live from file to file.
#[derive(Debug)]
pub(crate) struct FileWriter {
    naming: Naming,
    events: EventWriter,
    level: Compression,
    chunk: Vec<u8>,
    /// Size of the last file, for the next one's buffer.
    last_bytes: usize,
}

impl FileWriter {
    pub(crate) fn new(naming: Naming, level: Compression) -> Self {
        Self { events: EventWriter::new(&naming), naming, level, chunk: Vec::new(), last_bytes: 0 }
    }

    /// What its files and their events are named by.
    pub(crate) fn naming(&self) -> &Naming {
        &self.naming
    }

    /// The file of the changes `range` of `batch`, all committed in `hour`; neither its first nor its last is of
    /// kind [`Op::Schema`]. Fails with a rejection when a
    /// change is not what its table says, or not UTF-8.
    pub(crate) fn write(
        &mut self,
        batch: &Batch,
        hour: Hour,
        range: Range<usize>,
    ) -> Result<NewFile, SinkError> {
        let first = batch.change(range.start);
        let time = CommitTime::from_postgres_micros(first.transaction.commit_time_us);
        let path = self.naming.path(hour, time, first.position);
        let events = range.clone().filter(|&index| batch.change(index).op != Op::Schema).count() as u64;
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

pub(crate) fn gzip(out: Vec<u8>, level: Compression) -> GzEncoder<Vec<u8>> {
    GzBuilder::new().mtime(0).operating_system(GZIP_OS_UNKNOWN).write(out, level)
}

/// Which of the changes is not UTF-8, and in which column: found by writing each value by itself.
fn not_utf8(batch: &Batch, mut range: Range<usize>) -> SinkError {
    let (mut json, mut scratch) = (Vec::new(), Vec::new());
    let found = range.find_map(|index| {
        let change = batch.change(index);
        let tuples = [change.old, change.new].into_iter().flatten();
        let mut values = tuples.flat_map(|tuple| tuple.values().zip(&change.relation.columns));
        let wrong = values.find(|(value, column)| {
            json.clear();
            let _ = push_value(&mut json, &mut scratch, Form::of(column), *value);
            std::str::from_utf8(&json).is_err()
        });
        wrong.map(|(_, column)| {
            format!(
                "column {} of {} is not UTF-8 in the change at {}: the source has to send client_encoding UTF8",
                column.name, change.relation, change.position
            )
        })
    });
    SinkError::reject(found.unwrap_or_else(|| "a change is not UTF-8".to_owned()))
}
