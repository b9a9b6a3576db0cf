use crate::apply;
use crate::checkpoint::Applied;
use crate::plan::Plan;
use crate::session::Session;
use crate::target::Target;
use async_trait::async_trait;
use replicator_sink::{Lane, SinkError, Write};
use replicator_types::{Batch, Position, Relation};
use std::sync::Arc;
use tokio::sync::Mutex;

/// One shard of the sink: one connection, one batch at a time.
#[derive(Debug)]
pub(crate) struct PostgresLane {
    session: Arc<Mutex<Session>>,
    create_tables: bool,
    /// What the checkpoint rows covered when the lane was opened.
    applied: Applied,
    /// End of the last batch prepared. What begins beyond it can't be applied yet, nor be on its way.
    prepared: Position,
    /// Of the relation versions met, the latest of each table.
    targets: Vec<Arc<Target>>,
    next_target: u32,
}

impl PostgresLane {
    pub(crate) fn new(session: Session, applied: Applied, create_tables: bool) -> Self {
        let prepared = session.committed();
        let session = Arc::new(Mutex::new(session));
        Self { session, create_tables, applied, prepared, targets: Vec::new(), next_target: 0 }
    }

    /// Whether some of the batch may be applied, or be on its way.
    fn is_old(&self, batch: &Batch) -> bool {
        batch.first_position().is_some_and(|first| first <= self.prepared.max(self.applied.highest()))
    }

    /// The target of each of the batch's relations.
    async fn targets_of(&mut self, batch: &Batch) -> Result<Vec<Arc<Target>>, SinkError> {
        let mut targets = Vec::with_capacity(batch.relations().len());
        for relation in batch.relations() {
            let known = self.targets.iter().find(|target| is_version(&target.relation, relation));
            targets.push(match known {
                Some(known) => Arc::clone(known),
                None => self.resolve(relation).await?,
            });
        }
        Ok(targets)
    }

    async fn resolve(&mut self, relation: &Arc<Relation>) -> Result<Arc<Target>, SinkError> {
        let mut session = self.session.lock().await;
        let client = session.client().await?;
        let logger = session.connector().logger().clone();
        // Whatever comes of this future, a connection in the middle of something is not used again.
        session.set_busy(true);
        let target = Target::resolve(&client, relation, self.next_target, self.create_tables, &logger).await;
        session.set_busy(false);
        let target = Arc::new(target?);
        self.next_target += 1;
        self.targets.retain(|known| known.relation.oid != relation.oid);
        self.targets.push(Arc::clone(&target));
        Ok(target)
    }
}

fn is_version(known: &Arc<Relation>, relation: &Arc<Relation>) -> bool {
    Arc::ptr_eq(known, relation) || (known.oid == relation.oid && known == relation)
}

#[async_trait]
impl Lane for PostgresLane {
    fn needs_drain(&self, batch: &Batch) -> bool {
        self.is_old(batch)
    }

    async fn prepare(&mut self, batch: Arc<Batch>) -> Result<Box<dyn Write>, SinkError> {
        let targets = self.targets_of(&batch).await?;
        let plan = if self.is_old(&batch) {
            let mut session = self.session.lock().await;
            session.client().await?;
            let committed = session.committed();
            drop(session);
            Plan::of(&batch, &targets, |change| {
                change.position <= committed || self.applied.covers(change.key_hash, change.position)
            })?
        } else {
            Plan::of(&batch, &targets, |_| false)?
        };
        self.prepared = plan.last;
        let batch = plan.needs_batch().then_some(batch);
        Ok(Box::new(PostgresWrite { session: Arc::clone(&self.session), plan, batch }))
    }
}

struct PostgresWrite {
    session: Arc<Mutex<Session>>,
    plan: Plan,
    /// Where the plan refers to its rows; it keeps its own charge.
    batch: Option<Arc<Batch>>,
}

#[async_trait]
impl Write for PostgresWrite {
    fn held_bytes(&self) -> usize {
        self.plan.held_bytes()
    }

    async fn send(&mut self) -> Result<(), SinkError> {
        let mut session = self.session.lock().await;
        Box::pin(apply::apply(&mut session, &self.plan, self.batch.as_deref())).await
    }
}
