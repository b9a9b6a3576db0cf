//! The lanes: batches become files in order, files become objects several at a time.
//!
//! The stream's lane leaves out what is there already (`src/resume.rs`). A lane of copied rows has nothing to look
//! for: after a crash the rows come under another snapshot, so at other positions.

use crate::file::{FileWriter, NewFile};
use crate::metrics::ArchiveMetrics;
use crate::naming::Naming;
use crate::resume::Resume;
use crate::store::{Archive, Writing};
use async_trait::async_trait;
use flate2::Compression;
use replicator_sink::{Lane, SinkError, Write};
use replicator_store::CommitTime;
use replicator_store::{Put, blocking};
use replicator_types::{Batch, Op, SlotIdentity};
use slog::{Logger, info};
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

/// See the module.
pub(crate) struct ArchiveLane {
    archive: Arc<Archive>,
    metrics: Arc<ArchiveMetrics>,
    writing: Writing,
    in_flight_max: usize,
    resume: Resume,
    /// Away while it works; made anew if it does not come back.
    writer: Option<FileWriter>,
    logger: Logger,
}

impl ArchiveLane {
    pub(crate) fn new(
        archive: Arc<Archive>,
        metrics: Arc<ArchiveMetrics>,
        identity: &SlotIdentity,
        level: Compression,
        in_flight_max: usize,
        logger: Logger,
    ) -> Self {
        let writing = Writing { naming: Naming::of_stream(identity), level };
        Self { archive, metrics, writing, in_flight_max, resume: Resume::default(), writer: None, logger }
    }
}

#[async_trait]
impl Lane for ArchiveLane {
    fn in_flight_max(&self) -> usize {
        self.in_flight_max
    }

    async fn prepare(&mut self, batch: Arc<Batch>) -> Result<Box<dyn Write>, SinkError> {
        let pieces = self.resume.plan(&self.archive, &self.writing.naming, &batch).await?;
        let events =
            |changes: Range<usize>| changes.filter(|&index| batch.change(index).op != Op::Schema).count();
        let new = pieces.iter().map(|piece| events(piece.changes.clone())).sum::<usize>();
        let left_out = events(0..batch.len()) - new;
        if left_out > 0 {
            info!(self.logger, "events that the archive has already were left out";
                "left_out" => left_out, "first" => ?batch.first_position());
        }
        let Writing { naming, level } = &self.writing;
        let mut writer = self.writer.take().unwrap_or_else(|| FileWriter::new(naming.clone(), *level));
        let (writer, files) = blocking(move || {
            let files: Result<VecDeque<_>, _> =
                pieces.into_iter().map(|piece| writer.write(&batch, piece.hour, piece.changes)).collect();
            (writer, files)
        })
        .await?;
        self.writer = Some(writer);
        Ok(Box::new(ArchiveWrite {
            archive: Arc::clone(&self.archive),
            metrics: Arc::clone(&self.metrics),
            writing: self.writing.clone(),
            files: files?,
        }))
    }
}

/// A lane of copied rows: each batch, of one table, becomes one file.
pub(crate) struct CopyLane {
    archive: Arc<Archive>,
    metrics: Arc<ArchiveMetrics>,
    identity: SlotIdentity,
    level: Compression,
    in_flight_max: usize,
    /// Of the table that came last.
    writer: Option<FileWriter>,
}

impl CopyLane {
    pub(crate) fn new(
        archive: Arc<Archive>,
        metrics: Arc<ArchiveMetrics>,
        identity: SlotIdentity,
        level: Compression,
        in_flight_max: usize,
    ) -> Self {
        Self { archive, metrics, identity, level, in_flight_max, writer: None }
    }
}

#[async_trait]
impl Lane for CopyLane {
    fn in_flight_max(&self) -> usize {
        self.in_flight_max
    }

    async fn prepare(&mut self, batch: Arc<Batch>) -> Result<Box<dyn Write>, SinkError> {
        let table_oid = batch.relations().first().map(|relation| relation.oid).unwrap_or_default();
        let naming = Naming::of_copy(&self.identity, table_oid);
        let known = self.writer.take().filter(|writer| *writer.naming() == naming);
        let mut writer = known.unwrap_or_else(|| FileWriter::new(naming.clone(), self.level));
        let (writer, file) = blocking(move || {
            let file = write_whole(&mut writer, &batch);
            (writer, file)
        })
        .await?;
        self.writer = Some(writer);
        Ok(Box::new(ArchiveWrite {
            archive: Arc::clone(&self.archive),
            metrics: Arc::clone(&self.metrics),
            writing: Writing { naming, level: self.level },
            files: VecDeque::from([file?]),
        }))
    }
}

/// The file of all changes of a batch, by the first one's time.
pub(crate) fn write_whole(writer: &mut FileWriter, batch: &Batch) -> Result<NewFile, SinkError> {
    let first = batch.transactions().first();
    let commit_time_us = first.map(|transaction| transaction.commit_time_us).unwrap_or_default();
    writer.write(batch, CommitTime::from_postgres_micros(commit_time_us).hour(), 0..batch.len())
}

/// Files that are not yet durable.
pub(crate) struct ArchiveWrite {
    archive: Arc<Archive>,
    metrics: Arc<ArchiveMetrics>,
    writing: Writing,
    files: VecDeque<NewFile>,
}

impl ArchiveWrite {
    /// One file, made without a lane.
    pub(crate) fn of(
        archive: Arc<Archive>,
        metrics: Arc<ArchiveMetrics>,
        writing: Writing,
        file: NewFile,
    ) -> Self {
        Self { archive, metrics, writing, files: VecDeque::from([file]) }
    }
}

#[async_trait]
impl Write for ArchiveWrite {
    fn held_bytes(&self) -> usize {
        self.files.iter().map(|file| file.body.len()).sum()
    }

    async fn send(&mut self) -> Result<(), SinkError> {
        while let Some(file) = self.files.front_mut() {
            self.metrics.count_put();
            let rest = match self.archive.put(file).await? {
                Put::Done => None,
                // An earlier try whose reply was lost; or the last thing that a dead process sent.
                Put::Exists => self.archive.rest_of(file, &self.writing).await?,
            };
            match rest {
                Some(rest) => *file = rest,
                None => {
                    self.metrics.count_durable(file);
                    self.files.pop_front();
                }
            }
        }
        Ok(())
    }
}
