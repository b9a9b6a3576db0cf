//! The lanes: a batch becomes a file for each table version in it, and each table's files become objects in order.

use crate::metrics::LakeMetrics;
use crate::progress::{Progress, is_ours};
use async_trait::async_trait;
use futures_util::{StreamExt, TryStreamExt, stream};
use replicator_lake::layout::TableFolder;
use replicator_lake::{DeltaFile, DeltaWriter, FileOptions, Identity, read_info};
use replicator_sink::{Lane, SinkError, Write};
use replicator_store::{Put, Store, blocking};
use replicator_types::{Batch, Op, Position};
use slog::{Logger, info};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::watch;

/// Tables whose files of one batch are put at once.
const TABLES_AT_ONCE_MAX: usize = 8;

/// What all lanes of a sink have in common.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) store: Arc<Store>,
    pub(crate) metrics: Arc<LakeMetrics>,
    pub(crate) options: FileOptions,
    pub(crate) in_flight_max: usize,
    pub(crate) logger: Logger,
}

/// The stream's lane.
pub(crate) struct StreamLane {
    shared: Shared,
    identity: Identity,
    progress: Progress,
    /// How many writes are durable. Each waits for those before it, so that a table's files leave no gap.
    durable: Arc<watch::Sender<u64>>,
    prepared: u64,
}

impl StreamLane {
    pub(crate) fn new(shared: Shared, identity: Identity) -> Self {
        let durable = Arc::new(watch::Sender::new(0));
        Self { shared, identity, progress: Progress::default(), durable, prepared: 0 }
    }
}

#[async_trait]
impl Lane for StreamLane {
    fn in_flight_max(&self) -> usize {
        self.shared.in_flight_max
    }

    async fn prepare(&mut self, batch: Arc<Batch>) -> Result<Box<dyn Write>, SinkError> {
        let mut known = Vec::with_capacity(batch.relations().len());
        for relation in batch.relations() {
            let folder = TableFolder::of(&relation.schema, &relation.name);
            known.push(self.progress.of(&self.shared.store, &self.identity, &folder).await?);
        }
        let (identity, options) = (self.identity.clone(), self.shared.options);
        let made = blocking(move || files_of(&batch, &known, false, &identity, options)).await??;
        if made.left_out > 0 {
            self.shared.metrics.count_left_out(made.left_out);
            info!(self.shared.logger, "changes that the lake has already were left out"; "left_out" => made.left_out);
        }
        for file in &made.files {
            if let (Some(folder), Some(last)) = (TableFolder::in_path(&file.path), file.info.last()) {
                self.progress.advance(folder, last);
            }
        }
        let turn = Turn { number: self.prepared, durable: Arc::clone(&self.durable) };
        self.prepared += 1;
        Ok(Box::new(LakeWrite::new(self.shared.clone(), made.files, Some(turn))))
    }
}

/// A lane of copied rows.
pub(crate) struct CopyLane {
    shared: Shared,
    identity: Identity,
}

impl CopyLane {
    pub(crate) fn new(shared: Shared, identity: Identity) -> Self {
        Self { shared, identity }
    }
}

#[async_trait]
impl Lane for CopyLane {
    fn in_flight_max(&self) -> usize {
        self.shared.in_flight_max
    }

    async fn prepare(&mut self, batch: Arc<Batch>) -> Result<Box<dyn Write>, SinkError> {
        let (identity, options) = (self.identity.clone(), self.shared.options);
        let made = blocking(move || files_of(&batch, &[], true, &identity, options)).await??;
        Ok(Box::new(LakeWrite::new(self.shared.clone(), made.files, None)))
    }
}

/// What a batch became.
pub(crate) struct Made {
    /// In the order of the stream, for each table.
    pub(crate) files: Vec<DeltaFile>,
    left_out: u64,
}

/// The files of a batch. `known` says for each of its relations how far its table is in the lake.
pub(crate) fn files_of(
    batch: &Batch,
    known: &[Option<Position>],
    copied: bool,
    identity: &Identity,
    options: FileOptions,
) -> Result<Made, SinkError> {
    let mut writers: Vec<Option<DeltaWriter>> = Vec::new();
    writers.resize_with(batch.relations().len(), || None);
    let mut left_out = 0;
    for change in batch.changes() {
        if matches!(change.op, Op::Schema | Op::Apart | Op::Message) {
            continue;
        }
        let done = known.get(change.relation_index).copied().flatten();
        if done.is_some_and(|done| change.position <= done) {
            left_out += 1;
            continue;
        }
        let Some(writer) = writers.get_mut(change.relation_index) else { continue };
        let writer = writer
            .get_or_insert_with(|| DeltaWriter::new(change.relation, identity.clone(), copied, options));
        writer.push(&change)?;
    }
    let mut files = Vec::new();
    for mut writer in writers.into_iter().flatten() {
        files.extend(writer.finish()?);
    }
    Ok(Made { files, left_out })
}

/// When a write of the stream may begin.
struct Turn {
    number: u64,
    durable: Arc<watch::Sender<u64>>,
}

impl Turn {
    async fn wait(&self) -> Result<(), SinkError> {
        let mut durable = self.durable.subscribe();
        let came = durable.wait_for(|durable| *durable >= self.number).await;
        came.map(|_| ())
            .map_err(|_| SinkError::retry("the lake's lane ended while a write waited for its turn"))
    }

    fn end(&self) {
        self.durable.send_modify(|durable| *durable = (*durable).max(self.number + 1));
    }
}

/// Files that are not yet durable.
pub(crate) struct LakeWrite {
    shared: Shared,
    /// By table, in the order of the stream.
    tables: Vec<Vec<Pending>>,
    turn: Option<Turn>,
}

struct Pending {
    file: DeltaFile,
    is_durable: AtomicBool,
}

impl LakeWrite {
    fn new(shared: Shared, files: Vec<DeltaFile>, turn: Option<Turn>) -> Self {
        let mut tables: Vec<(Option<TableFolder>, Vec<Pending>)> = Vec::new();
        for file in files {
            let folder = TableFolder::in_path(&file.path);
            let pending = Pending { file, is_durable: AtomicBool::new(false) };
            match tables.iter_mut().find(|(known, _)| *known == folder) {
                Some((_, files)) => files.push(pending),
                None => tables.push((folder, vec![pending])),
            }
        }
        Self { shared, tables: tables.into_iter().map(|(_, files)| files).collect(), turn }
    }

    /// Of files that are not the stream's.
    pub(crate) fn of_copy(shared: Shared, files: Vec<DeltaFile>) -> Self {
        Self::new(shared, files, None)
    }
}

#[async_trait]
impl Write for LakeWrite {
    fn held_bytes(&self) -> usize {
        let pending = self.tables.iter().flatten().filter(|file| !file.is_durable.load(Ordering::Relaxed));
        pending.map(|pending| pending.file.body.len()).sum()
    }

    async fn send(&mut self) -> Result<(), SinkError> {
        if let Some(turn) = &self.turn {
            turn.wait().await?;
        }
        let shared = &self.shared;
        let puts: Vec<_> = self.tables.iter().map(|files| put_in_order(shared, files)).collect();
        stream::iter(puts).buffer_unordered(TABLES_AT_ONCE_MAX).try_collect::<()>().await?;
        if let Some(turn) = &self.turn {
            turn.end();
        }
        Ok(())
    }
}

async fn put_in_order(shared: &Shared, files: &[Pending]) -> Result<(), SinkError> {
    for pending in files {
        if !pending.is_durable.load(Ordering::Relaxed) {
            put(shared, &pending.file).await?;
            shared.metrics.count_durable(&pending.file);
            pending.is_durable.store(true, Ordering::Relaxed);
        }
    }
    Ok(())
}

async fn put(shared: &Shared, file: &DeltaFile) -> Result<(), SinkError> {
    let Shared { store, metrics, .. } = shared;
    metrics.count_put();
    match store.put_new(&file.path, file.body.clone(), &file.object_metadata()).await? {
        Put::Done => Ok(()),
        // An earlier try whose reply was lost; or the last thing that a dead process sent, cut otherwise.
        Put::Exists => {
            let (there, _) = read_info(store, &file.path).await?;
            is_ours(store, &file.path, &file.info.identity, &there.identity)?;
            if there.last() >= file.info.last() {
                return store.settle(&file.path).await;
            }
            metrics.count_put();
            store.replace(&file.path, file.body.clone()).await
        }
    }
}
