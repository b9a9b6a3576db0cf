use crate::client::Rows;
use crate::encode::{EncodeError, Encoded, Encoder, TableEncoder};
use crate::history::Earlier;
use crate::sink::Shared;
use crate::tables::Sight;
use crate::toast;
use crate::write::ClickHouseWrite;
use crate::{VALUES_ADJUSTED_TOTAL, VALUES_MISSING_TOTAL};
use async_trait::async_trait;
use replicator_sink::{Lane, SinkError, Write};
use replicator_types::{Batch, Phase, Position, SlotIdentity};
use slog::warn;
use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

/// Batches with less row data than this are encoded where they are prepared; encoding a larger one takes
/// milliseconds, which are not the async runtime's.
const INLINE_BYTES: usize = 64 << 10;

/// One shard of the sink.
pub(crate) struct ClickHouseLane {
    shared: Arc<Shared>,
    scope: Arc<str>,
    /// Buffers of the last batch's tables.
    idle: Vec<TableEncoder>,
    frames: crate::compress::FrameWriter,
    earlier: Earlier,
    /// Table and column of every warning given.
    warned: BTreeSet<(String, String)>,
}

impl ClickHouseLane {
    pub(crate) fn new(shared: Arc<Shared>, scope: Arc<str>) -> Self {
        Self {
            shared,
            scope,
            idle: Vec::new(),
            frames: crate::compress::FrameWriter::default(),
            earlier: Earlier::default(),
            warned: BTreeSet::new(),
        }
    }

    /// The tables of a batch, in the order of its relations, with the buffers of the last batch where it had
    /// the same ones.
    async fn tables(&mut self, batch: &Batch) -> Result<Vec<TableEncoder>, SinkError> {
        let mut idle = std::mem::take(&mut self.idle);
        let mut tables = Vec::with_capacity(batch.relations().len());
        // A version may alter the table that an older one in the same batch is written to; that one is then asked
        // for again.
        for (index, relation) in batch.relations().iter().enumerate() {
            self.shared.tables.target(relation, || sight(batch, index)).await?;
        }
        for (index, relation) in batch.relations().iter().enumerate() {
            let target = self.shared.tables.target(relation, || sight(batch, index)).await?;
            let table = match idle.iter().position(|table| Arc::ptr_eq(&table.target, &target)) {
                Some(index) => idle.swap_remove(index),
                None => {
                    let columns = self.shared.tables.columns(&target)?;
                    TableEncoder::new(target, columns)
                }
            };
            tables.push(table);
        }
        Ok(tables)
    }

    /// In a history, the versions of each table that are there already.
    async fn present(
        &mut self,
        batch: &Batch,
        tables: &[TableEncoder],
    ) -> Result<Vec<HashSet<u128>>, SinkError> {
        let (Some(first), Some(mut last)) = (batch.first_position(), batch.last_position()) else {
            return Ok(Vec::new());
        };
        if self.shared.tables.layout.is_mirror() {
            return Ok(Vec::new());
        }
        // A change of the key has two versions.
        last.ordinal = last.ordinal.saturating_add(1);
        let mut present = Vec::with_capacity(tables.len());
        for table in tables {
            let (client, target) = (&self.shared.client, &table.target);
            present.push(match batch.phase() {
                Phase::Copy { .. } => self.earlier.copied(client, target, first, last).await?,
                Phase::Stream | Phase::CatchUp => self.earlier.versions(client, target, first, last).await?,
            });
        }
        Ok(present)
    }

    async fn encoder(&mut self, batch: &Batch) -> Result<Encoder, SinkError> {
        let tables = self.tables(batch).await?;
        let present = self.present(batch, &tables).await?;
        let layout = self.shared.tables.layout.clone();
        let fills = if self.needs_drain(batch) {
            toast::resolve(&self.shared.client, batch, &tables, !layout.is_mirror()).await?
        } else {
            toast::Fills::default()
        };
        Ok(Encoder { tables, present, fills, layout, frames: std::mem::take(&mut self.frames) })
    }

    /// Counts what had to be changed or was not to be had, and says so once a column.
    fn report(&mut self, encoded: &Encoded, missing: &[(String, String)]) {
        let logger = &self.shared.logger;
        let sink = &self.shared.name;
        let count = |metric: &'static str, table: &str, column: &str, values: u64| {
            metrics::counter!(metric, "sink" => sink.clone(), "table" => table.to_owned(), "column" => column.to_owned())
                .increment(values);
        };
        for adjusted in &encoded.adjusted {
            let table = adjusted.target.relation.qualified_name();
            count(VALUES_ADJUSTED_TOTAL, &table, &adjusted.column, adjusted.values);
            if self.warned.insert((table.clone(), adjusted.column.clone())) {
                warn!(logger, "values had no counterpart in ClickHouse's type and were changed (said once a column)";
                    "table" => &table, "column" => &adjusted.column, "policy" => self.shared.policy());
            }
        }
        for (table, column) in missing {
            count(VALUES_MISSING_TOTAL, table, column, 1);
            if self.warned.insert((table.clone(), format!("{column} (missing)"))) {
                warn!(logger, "a value was not sent, since the update did not touch it, and the row is not in ClickHouse: \
                    NULL is written (said once a column); copy the table again, or set REPLICA IDENTITY FULL";
                    "table" => table, "column" => column);
            }
        }
    }
}

#[async_trait]
impl Lane for ClickHouseLane {
    fn in_flight_max(&self) -> usize {
        self.shared.in_flight_max
    }

    fn needs_drain(&self, batch: &Batch) -> bool {
        batch.changes().any(|change| change.unresolved)
    }

    async fn prepare(&mut self, batch: Arc<Batch>) -> Result<Box<dyn Write>, SinkError> {
        let rows = if matches!(batch.phase(), Phase::Copy { .. }) { Rows::Distinct } else { Rows::Any };
        loop {
            let mut encoder = self.encoder(&batch).await?;
            let (back, outcome) = if batch.data_bytes() < INLINE_BYTES {
                let outcome = encoder.encode(&batch);
                (encoder, outcome)
            } else {
                let batch = Arc::clone(&batch);
                tokio::task::spawn_blocking(move || {
                    let outcome = encoder.encode(&batch);
                    (encoder, outcome)
                })
                .await
                .map_err(|error| {
                    SinkError::halt(format!("encoding a batch for ClickHouse failed: {error}"))
                })?
            };
            let Encoder { tables, fills, frames, .. } = back;
            self.frames = frames;
            match outcome {
                Ok(encoded) => {
                    self.idle = tables;
                    self.report(&encoded, &fills.missing);
                    let client = Arc::clone(&self.shared.client);
                    return Ok(Box::new(ClickHouseWrite::new(
                        client,
                        Arc::clone(&self.scope),
                        rows,
                        self.shared.join_limits,
                        encoded.steps,
                    )));
                }
                Err(EncodeError::NeedsNullable(table, column)) => {
                    if let Some(table) = tables.get(table) {
                        self.shared.tables.make_nullable(&table.target, column).await?;
                    }
                }
                Err(EncodeError::Failed(error)) => return Err(error),
            }
        }
    }
}

/// Where a batch has the first change of the version number `relation` of its relations.
fn sight(batch: &Batch, relation: usize) -> Sight {
    let first = batch.changes().find(|change| change.relation_index == relation);
    Sight {
        position: first.map_or(Position::ZERO, |change| change.position),
        alone: batch.is_fenced(),
        is_copy: false,
        emptied: false,
    }
}

/// What tells lanes' inserts apart in the tables' memory of tokens.
pub(crate) fn scope(identity: &SlotIdentity, shard: u32, shards: u32) -> Arc<str> {
    format!("{}/{}/{shard}of{shards}", identity.system_identifier, identity.slot).into()
}

/// The same for copied rows. The number of the lane is left out: after a crash another may get the batch.
pub(crate) fn copy_scope(identity: &SlotIdentity) -> Arc<str> {
    format!("{}/{}/copy", identity.system_identifier, identity.slot).into()
}
