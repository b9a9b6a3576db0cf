//! The one lane: batches become files in order, files become objects several at a time.

use crate::file::{FileWriter, NewFile, id_prefix};
use crate::metrics::ArchiveMetrics;
use crate::resume::Resume;
use crate::store::{Archive, Put, Writing, blocking};
use async_trait::async_trait;
use flate2::Compression;
use replicator_sink::{Lane, SinkError, Write};
use replicator_types::{Batch, SlotIdentity};
use slog::{Logger, info};
use std::collections::VecDeque;
use std::sync::Arc;

/// See the module.
pub(crate) struct ArchiveLane {
    archive: Arc<Archive>,
    metrics: Arc<ArchiveMetrics>,
    identity: SlotIdentity,
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
        identity: SlotIdentity,
        level: Compression,
        in_flight_max: usize,
        logger: Logger,
    ) -> Self {
        let writing = Writing { id_prefix: id_prefix(&identity), level };
        Self {
            archive,
            metrics,
            identity,
            writing,
            in_flight_max,
            resume: Resume::default(),
            writer: None,
            logger,
        }
    }
}

#[async_trait]
impl Lane for ArchiveLane {
    fn in_flight_max(&self) -> usize {
        self.in_flight_max
    }

    async fn prepare(&mut self, batch: Arc<Batch>) -> Result<Box<dyn Write>, SinkError> {
        let pieces = self.resume.plan(&self.archive, &self.writing.id_prefix, &batch).await?;
        let new = pieces.iter().map(|piece| piece.changes.len()).sum::<usize>();
        if new < batch.len() {
            info!(self.logger, "events that the archive has already were left out";
                "left_out" => batch.len() - new, "first" => ?batch.first_position());
        }
        let mut writer =
            self.writer.take().unwrap_or_else(|| FileWriter::new(&self.identity, self.writing.level));
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

/// The files of a batch that are not yet durable.
struct ArchiveWrite {
    archive: Arc<Archive>,
    metrics: Arc<ArchiveMetrics>,
    writing: Writing,
    files: VecDeque<NewFile>,
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
