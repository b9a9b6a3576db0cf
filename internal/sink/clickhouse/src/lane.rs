use crate::pieces::PiecesWrite;
use crate::preparer::Preparer;
use crate::sink::Shared;
use async_trait::async_trait;
use replicator_sink::{Lane, SinkError, Write};
use replicator_types::{Batch, SlotIdentity};
use std::sync::Arc;
use tokio::sync::Mutex;

/// One shard of the sink.
pub(crate) struct ClickHouseLane {
    in_flight_max: usize,
    /// A write that is in pieces has it too. Nothing is prepared beside such a one.
    preparer: Arc<Mutex<Preparer>>,
}

impl ClickHouseLane {
    pub(crate) fn new(shared: Arc<Shared>, scope: Arc<str>) -> Self {
        let in_flight_max = shared.in_flight_max;
        Self { in_flight_max, preparer: Arc::new(Mutex::new(Preparer::new(shared, scope))) }
    }
}

#[async_trait]
impl Lane for ClickHouseLane {
    fn in_flight_max(&self) -> usize {
        self.in_flight_max
    }

    fn needs_drain(&self, batch: &Batch) -> bool {
        lacks_values(batch)
    }

    async fn prepare(&mut self, batch: Arc<Batch>) -> Result<Box<dyn Write>, SinkError> {
        let (write, end) = self.preparer.lock().await.prepare(&batch, 0).await?;
        if end == batch.len() {
            return Ok(Box::new(write));
        }
        Ok(Box::new(PiecesWrite::new(Arc::clone(&self.preparer), batch, write, end)))
    }
}

/// Whether a batch has updates with values that were not sent.
pub(crate) fn lacks_values(batch: &Batch) -> bool {
    batch.changes().any(|change| change.unresolved)
}

/// What tells lanes' inserts apart in the tables' memory of tokens.
pub(crate) fn scope(identity: &SlotIdentity, shard: u32, shards: u32) -> Arc<str> {
    format!("{}/{}/{shard}of{shards}", identity.system_identifier, identity.slot).into()
}

/// The same for copied rows. The number of the lane is left out: after a crash another may get the batch.
pub(crate) fn copy_scope(identity: &SlotIdentity) -> Arc<str> {
    format!("{}/{}/copy", identity.system_identifier, identity.slot).into()
}
