use crate::client::Rows;
use crate::encode::{EncodeError, Encoded, Encoder, TableEncoder};
use crate::history::Earlier;
use crate::lane::lacks_values;
use crate::sink::Shared;
use crate::tables::Sight;
use crate::toast::{self, Ahead, Fills};
use crate::write::ClickHouseWrite;
use crate::{VALUES_ADJUSTED_TOTAL, VALUES_MISSING_TOTAL};
use replicator_sink::SinkError;
use replicator_types::{Batch, Phase, Position};
use slog::warn;
use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

/// Batches with less row data than this are encoded where they are prepared; encoding a larger one takes
/// milliseconds, which are not the async runtime's.
const INLINE_BYTES: usize = 64 << 10;

/// What a lane prepares its batches with.
pub(crate) struct Preparer {
    shared: Arc<Shared>,
    scope: Arc<str>,
    /// Buffers of the last batch's tables.
    idle: Vec<TableEncoder>,
    frames: crate::compress::FrameWriter,
    earlier: Earlier,
    ahead: Ahead,
    /// Table and column of every warning given.
    warned: BTreeSet<(String, String)>,
}

impl Preparer {
    pub(crate) fn new(shared: Arc<Shared>, scope: Arc<str>) -> Self {
        Self {
            shared,
            scope,
            idle: Vec::new(),
            frames: crate::compress::FrameWriter::default(),
            earlier: Earlier::default(),
            ahead: Ahead::default(),
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

    /// What encodes the changes from number `from` on, and where it ends: a piece, where values have to be read.
    async fn encoder(&mut self, batch: &Batch, from: usize) -> Result<(Encoder, usize), SinkError> {
        let tables = self.tables(batch).await?;
        let present = self.present(batch, &tables).await?;
        let layout = self.shared.tables.layout.clone();
        let (fills, end) = if lacks_values(batch) {
            let is_history = !layout.is_mirror();
            toast::resolve(&self.shared.client, batch, from, &tables, is_history, &mut self.ahead).await?
        } else {
            (Fills::default(), batch.len())
        };
        Ok((Encoder { tables, present, fills, layout, frames: std::mem::take(&mut self.frames) }, end))
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

    /// Prepares the changes of a batch from number `from` on, all or a piece; gives the number of the first one behind it.
    pub(crate) async fn prepare(
        &mut self,
        batch: &Arc<Batch>,
        from: usize,
    ) -> Result<(ClickHouseWrite, usize), SinkError> {
        let rows = if matches!(batch.phase(), Phase::Copy { .. }) { Rows::Distinct } else { Rows::Any };
        loop {
            let (mut encoder, end) = self.encoder(batch, from).await?;
            let (back, outcome) = if batch.data_bytes() + encoder.fills.bytes < INLINE_BYTES {
                let outcome = encoder.encode(batch, from..end);
                (encoder, outcome)
            } else {
                let batch = Arc::clone(batch);
                tokio::task::spawn_blocking(move || {
                    let outcome = encoder.encode(&batch, from..end);
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
                    let scope = Arc::clone(&self.scope);
                    let limits = self.shared.join_limits;
                    return Ok((ClickHouseWrite::new(client, scope, rows, limits, encoded.steps), end));
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
