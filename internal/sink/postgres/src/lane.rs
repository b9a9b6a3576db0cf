use crate::apply;
use crate::checkpoint::Applied;
use crate::generated;
use crate::order::{Come, Order, Turn};
use crate::plan::Plan;
use crate::resolve::{Occasion, Resolver};
use crate::session::Session;
use crate::target::Target;
use async_trait::async_trait;
use replicator_sink::{ErrorKind, Lane, SinkError, Write};
use replicator_types::{Batch, Phase, Position, Relation};
use std::sync::Arc;
use tokio::sync::Mutex;

/// A connection, and the tables that batches on it have met.
#[derive(Debug)]
struct Tables {
    session: Arc<Mutex<Session>>,
    resolver: Arc<Resolver>,
    occasion: Occasion,
    /// Of the relation versions met, the latest of each table; as the tables were at `generation`.
    targets: Vec<Arc<Target>>,
    generation: u64,
    next_target: u32,
}

impl Tables {
    fn new(session: Session, resolver: Arc<Resolver>, occasion: Occasion) -> Self {
        let generation = resolver.generation();
        let session = Arc::new(Mutex::new(session));
        Self { session, resolver, occasion, targets: Vec::new(), generation, next_target: 0 }
    }

    /// The target of each of the batch's relations.
    async fn targets_of(&mut self, batch: &Batch) -> Result<Vec<Arc<Target>>, SinkError> {
        loop {
            let generation = self.resolver.generation();
            if std::mem::replace(&mut self.generation, generation) != generation {
                self.targets.clear();
            }
            let mut targets = Vec::with_capacity(batch.relations().len());
            for relation in batch.relations() {
                let known = self.targets.iter().find(|target| is_version(&target.relation, relation));
                targets.push(match known {
                    Some(known) => Arc::clone(known),
                    None => self.resolve(relation, turn_of(batch, relation)).await?,
                });
            }
            // Finding one may have changed the table of another: an earlier version of the same. Each version is
            // followed once, so this comes to an end.
            if self.resolver.generation() == generation {
                return Ok(targets);
            }
        }
    }

    async fn resolve(&mut self, relation: &Arc<Relation>, turn: u64) -> Result<Arc<Target>, SinkError> {
        let mut session = self.session.lock().await;
        let client = session.client().await?;
        // Whatever comes of this future, a connection in the middle of something is not used again.
        session.set_busy(true);
        let target = self.resolver.resolve(&client, relation, turn, self.next_target, self.occasion).await;
        session.set_busy(false);
        let target = Arc::new(target?);
        self.next_target += 1;
        self.targets.retain(|known| known.relation.oid != relation.oid);
        self.targets.push(Arc::clone(&target));
        Ok(target)
    }

    /// `turn`: where writes are to go in the order in which they were prepared.
    fn write(&self, plan: Plan, batch: Arc<Batch>, turn: Option<Turn>) -> Box<dyn Write> {
        let batch = plan.needs_batch().then_some(batch);
        let (session, resolver) = (Arc::clone(&self.session), Arc::clone(&self.resolver));
        Box::new(PostgresWrite { session, resolver, plan, batch, turn, has_had_another: false })
    }
}

/// See [`Relation::turn`].
fn turn_of(batch: &Batch, relation: &Arc<Relation>) -> u64 {
    let first = batch.changes().find(|change| Arc::ptr_eq(change.relation, relation));
    first.map_or(0, |change| relation.turn(change.position))
}

fn is_version(known: &Arc<Relation>, relation: &Arc<Relation>) -> bool {
    Arc::ptr_eq(known, relation) || (known.oid == relation.oid && known == relation)
}

/// One shard of the sink: one connection, one transaction at a time. While it runs, the next batch is encoded.
#[derive(Debug)]
pub(crate) struct PostgresLane {
    tables: Tables,
    order: Order,
    /// What the checkpoint rows covered when the lane was opened.
    applied: Applied,
    /// End of the last batch prepared. What begins beyond it can't be applied yet, nor be on its way.
    prepared: Position,
}

impl PostgresLane {
    pub(crate) fn new(session: Session, applied: Applied, resolver: Arc<Resolver>) -> Self {
        let prepared = session.committed();
        let tables = Tables::new(session, resolver, Occasion::Stream);
        Self { tables, order: Order::default(), applied, prepared }
    }

    /// Whether some of the batch may be applied, or be on its way.
    fn is_old(&self, batch: &Batch) -> bool {
        batch.first_position().is_some_and(|first| first <= self.prepared.max(self.applied.highest()))
    }

    /// The plan of a batch of the stream: without what the checkpoint covers.
    async fn plan_of_stream(&mut self, batch: &Batch, targets: &[Arc<Target>]) -> Result<Plan, SinkError> {
        let plan = if self.is_old(batch) {
            let mut session = self.tables.session.lock().await;
            session.client().await?;
            let committed = session.committed();
            drop(session);
            Plan::of(batch, targets, |change| {
                change.position <= committed || self.applied.covers(change.key_hash, change.position)
            })?
        } else {
            Plan::of(batch, targets, |_| false)?
        };
        self.prepared = self.prepared.max(plan.last);
        Ok(plan)
    }
}

#[async_trait]
impl Lane for PostgresLane {
    fn in_flight_max(&self) -> usize {
        2
    }

    fn needs_drain(&self, batch: &Batch) -> bool {
        batch.phase() == Phase::Stream && self.is_old(batch)
    }

    async fn prepare(&mut self, batch: Arc<Batch>) -> Result<Box<dyn Write>, SinkError> {
        let targets = self.tables.targets_of(&batch).await?;
        let plan = match batch.phase() {
            Phase::Stream => self.plan_of_stream(&batch, &targets).await?,
            // The checkpoint says nothing of these.
            Phase::CatchUp => Plan::of(&batch, &targets, |_| false)?,
            Phase::Copy { .. } => return Err(wrong_lane("copied rows", "the stream")),
        };
        Ok(self.tables.write(plan, batch, Some(self.order.next())))
    }
}

/// A lane for copied rows. Its batches are in no order, so the next is encoded while one is on its way.
#[derive(Debug)]
pub(crate) struct PostgresCopyLane {
    tables: Tables,
}

impl PostgresCopyLane {
    pub(crate) fn new(session: Session, resolver: Arc<Resolver>) -> Self {
        Self { tables: Tables::new(session, resolver, Occasion::Copying) }
    }
}

#[async_trait]
impl Lane for PostgresCopyLane {
    fn in_flight_max(&self) -> usize {
        2
    }

    async fn prepare(&mut self, batch: Arc<Batch>) -> Result<Box<dyn Write>, SinkError> {
        let Phase::Copy { fresh } = batch.phase() else {
            return Err(wrong_lane("changes of the stream", "copied rows"));
        };
        let targets = self.tables.targets_of(&batch).await?;
        let Some(target) = targets.first() else { return Err(wrong_lane("nothing", "copied rows")) };
        let plan = Plan::of_copy(&batch, target, fresh)?;
        Ok(self.tables.write(plan, batch, None))
    }
}

fn wrong_lane(what: &str, of: &str) -> SinkError {
    SinkError::halt(format!(
        "a lane for {of} was given {what}: this is a fault of the replicator; start it again"
    ))
}

struct PostgresWrite {
    session: Arc<Mutex<Session>>,
    resolver: Arc<Resolver>,
    plan: Plan,
    /// Where the plan refers to its rows; it keeps its own charge.
    batch: Option<Arc<Batch>>,
    turn: Option<Turn>,
    /// Whether it had another chance, without generated columns.
    has_had_another: bool,
}

#[async_trait]
impl Write for PostgresWrite {
    fn held_bytes(&self) -> usize {
        self.plan.held_bytes()
    }

    async fn send(&mut self) -> Result<(), SinkError> {
        if let Some(turn) = &self.turn
            && turn.come().await? == Come::Passed
        {
            return Ok(());
        }
        let session = Arc::clone(&self.session);
        let mut session = session.lock().await;
        if let Err(error) = Box::pin(apply::apply(&mut session, &self.plan, self.batch.as_deref())).await {
            return Err(self.without_generated(&mut session, error).await);
        }
        if let Some(turn) = &mut self.turn {
            turn.pass();
        }
        Ok(())
    }
}

impl PostgresWrite {
    /// A row that the table refuses may be one that a generated column can't be computed for: another try without these.
    async fn without_generated(&mut self, session: &mut Session, error: SinkError) -> SinkError {
        let is_refused = error.kind() == ErrorKind::Reject && !self.has_had_another;
        let Some(oid) = error.table().filter(|_| is_refused) else { return error };
        let Ok(client) = session.client().await else { return error };
        session.set_busy(true);
        let gave_way = generated::give_way(&client, &self.resolver, oid, &error.to_string()).await;
        session.set_busy(false);
        match gave_way {
            Ok(true) => {
                self.has_had_another = true;
                SinkError::retry(error.to_string())
            }
            Ok(false) => error,
            Err(failure) => failure,
        }
    }
}
