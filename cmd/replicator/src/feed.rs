//! Rows of the lake into a sink, through the sink's own contract: as a copy of a table.
//!
//! The sink knows it as the copy of a slot called [`SLOT`], so that what it keeps of the replicator's own slot stays as
//! it is.

use crate::sinks;
use replicator_config::{Config, SinkConfig};
use replicator_lake::{Restored, RowFile};
use replicator_pipeline::Backoff;
use replicator_sink::{ErrorKind, Lane, Sink, SinkError, StreamInfo, TableCopy};
use replicator_types::{BatchBuilder, Budget, Lsn, Phase, Position, SlotIdentity, TransactionMeta, TxnId};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// What the slot is called that a sink takes restored rows for.
const SLOT: &str = "replicator_restore";

/// Tries of one step that fails for reasons that may pass.
const TRIES_MAX: usize = 20;

/// A sink that gets rows.
pub(crate) struct Feed {
    sink: Box<dyn Sink>,
    batch_rows_max: usize,
    backoff: (Duration, Duration),
}

impl Feed {
    /// The sink of the configuration that is called `name`.
    pub(crate) fn into(config: &Config, name: &str) -> Result<Self, String> {
        let is_named = |sink: &&SinkConfig| sink.name == name;
        let known = config.sinks.iter().find(is_named).ok_or_else(|| {
            let names: Vec<&str> = config.sinks.iter().map(|sink| sink.name.as_str()).collect();
            format!("there is no sink {name} in the configuration, only {}", names.join(", "))
        })?;
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let sink = sinks::open(known, &logger).map_err(|error| format!("sink {name}: {error}"))?;
        let retry = &config.retry;
        let backoff =
            (Duration::from_millis(retry.backoff_min_ms), Duration::from_millis(retry.backoff_max_ms));
        Ok(Self { sink, batch_rows_max: known.batch.rows_max.max(1), backoff })
    }

    /// Makes the table in the sink what the file of rows at `path` has.
    pub(crate) async fn table(&self, path: &Path, restored: &Restored) -> Result<(), String> {
        let mut rows = RowFile::open(path)?;
        let identity = &restored.info.identity;
        let system_identifier = u64::from_str_radix(&identity.system_identifier, 16)
            .map_err(|error| format!("{}: {error}", identity.system_identifier))?;
        let through = replicator_lake::bookmark::parse(&restored.through).unwrap_or_default();
        let copy = TableCopy {
            relation: Arc::clone(rows.relation()),
            snapshot: Lsn(through.commit_lsn.0.saturating_add(1)),
            empty_first: true,
            is_resumed: false,
        };
        let info = StreamInfo {
            identity: SlotIdentity { system_identifier, slot: SLOT.to_owned() },
            database: String::new(),
            tables: vec![Arc::clone(rows.relation())],
        };
        let failed = |error: SinkError| format!("sink {}: {error}", self.sink.name());
        self.sink.prepare(&info).await.map_err(failed)?;
        self.persist(async || self.sink.begin_copy(&copy).await).await?;
        let mut lane = self.sink.open_copy_lane(0, &info).await.map_err(failed)?;
        let transaction = TransactionMeta {
            id: TxnId(0),
            commit_lsn: Position::copied(copy.snapshot, 0).commit_lsn,
            commit_time_us: restored
                .info
                .max_ts_us
                .saturating_sub(replicator_types::POSTGRES_EPOCH_UNIX_MICROS),
            xid: 0,
        };
        let mut builder = BatchBuilder::of_phase(Budget::new(usize::MAX), Phase::Copy { fresh: true });
        let mut more = true;
        while more {
            more = rows.push(&transaction, &mut builder)?;
            if (builder.len() >= self.batch_rows_max || !more)
                && let Some(batch) = builder.cut(false)
            {
                self.write(&mut lane, batch).await?;
            }
        }
        self.persist(async || self.sink.end_copy(&copy).await).await
    }

    async fn write(&self, lane: &mut Box<dyn Lane>, batch: replicator_types::Batch) -> Result<(), String> {
        let batch = Arc::new(batch);
        let mut write = self.persist(async || lane.prepare(Arc::clone(&batch)).await).await?;
        self.persist(async || write.send().await).await?;
        while write.has_more() {
            self.persist(async || write.send().await).await?;
        }
        Ok(())
    }

    /// Does it until it succeeds, as often as is sensible with somebody waiting.
    async fn persist<T>(&self, mut work: impl AsyncFnMut() -> Result<T, SinkError>) -> Result<T, String> {
        let mut backoff = Backoff::new(self.backoff.0, self.backoff.1);
        let mut tries = 1;
        loop {
            match work().await {
                Ok(done) => return Ok(done),
                Err(error) if error.kind() == ErrorKind::Retry && tries < TRIES_MAX => {
                    tries += 1;
                    tokio::time::sleep(backoff.pause()).await;
                }
                Err(error) => return Err(format!("sink {}: {error}", self.sink.name())),
            }
        }
    }
}
