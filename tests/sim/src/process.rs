//! The replicator's process: what is gone when it dies. The pipeline and the turns of its lanes are the product's; the rest
//! is what its driver's and its lanes' threads do around them (`driver.rs`, `worker.rs`), as far as it is not about
//! threads.

use crate::copies::{Copy, Notes};
use crate::keeper::Nowhere;
use crate::plan::{Kind, Plan, Sabotage};
use crate::reached::{self, Reached};
use crate::store::Step;
use futures_util::FutureExt;
use replicator_copy::{Apartness, Aparts, Versions};
use replicator_model::source::TABLES;
use replicator_pipeline::{
    Backoff, BatchLimits, Input, LaneId, Notice, Output, Pipeline, Route, Standing, Turns,
};
use replicator_sink::{KeyChanges, Lane};
use replicator_spill::Shelf;
use replicator_types::{Batch, Budget, Charge, Lsn, Op, Phase, Position, Relation, TxnId};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A batch on its way into a sink.
pub(crate) struct Writing {
    pub(crate) sink: usize,
    pub(crate) shard: usize,
    pub(crate) phase: Phase,
    /// Until it is prepared.
    pub(crate) batch: Option<Arc<Batch>>,
    /// Its changes, once it is.
    pub(crate) steps: Vec<Step>,
    charge: Option<Charge>,
    transactions: Vec<TxnId>,
    /// Of which it has rows.
    tables: BTreeSet<u32>,
    bytes: usize,
    pub(crate) backoff: Backoff,
    /// Whether a request is under way that was not applied yet.
    pub(crate) is_sent: bool,
}

pub(crate) struct Process {
    pub(crate) pipeline: Pipeline,
    pub(crate) inputs: VecDeque<Input>,
    /// Of the chunk that is being worked through.
    charge: Option<Charge>,
    out_bytes: usize,
    pub(crate) budget: Budget,
    turns: Vec<Turns>,
    /// By sink and shard: whether the lane's thread is busy with preparing a batch.
    preparing: Vec<Vec<bool>>,
    pub(crate) writes: BTreeMap<u32, Writing>,
    next_write: u32,
    reports: VecDeque<(Vec<TxnId>, usize)>,
    /// The most that was handed on in one go of what waited.
    pub(crate) handed_on_bytes: usize,
    /// As the feedback sees it.
    pub(crate) watermark: u64,
    pub(crate) copies: BTreeMap<u32, Copy>,
    pub(crate) versions: Arc<Versions>,
    pub(crate) aparts: Arc<Aparts>,
    /// By sink and shard: they keep the versions of tables in the sink's notes.
    keepers: Vec<Vec<Box<dyn Lane>>>,
    /// Of the stream: what each lane was given last, and what each log was.
    last: BTreeMap<(usize, u32), Position>,
    /// Sink, position and lane of removals under a changed key.
    removals: BTreeMap<(usize, Position), u32>,
    handed_out: BTreeSet<(usize, Position)>,
    /// By sink and table: batches with rows that are not durable.
    under_way: BTreeMap<(usize, u32), usize>,
    /// By sabotage, a batch that is kept back.
    kept_back: Option<Output>,
    sabotage: Option<Sabotage>,
}

impl Process {
    /// `tables`: as the catalog has them.
    pub(crate) fn start(
        plan: &Plan,
        (watermark, reach, horizon): (u64, u64, u32),
        notes: &Notes,
        shelf: Shelf,
        versions: &Arc<Versions>,
        aparts: &Arc<Aparts>,
        tables: &[Arc<Relation>],
    ) -> Self {
        let route = |(index, sink): (usize, &crate::plan::SinkPlan)| Route {
            name: format!("sink{index}"),
            tables: Default::default(),
            shards: sink.shards,
            limits: BatchLimits {
                rows_max: sink.rows_max,
                bytes_max: sink.bytes_max,
                interval: Duration::from_millis(sink.interval_ms),
            },
            key_changes: if sink.kind.is_log() { KeyChanges::Whole } else { KeyChanges::Split },
            takes_late_changes: sink.kind == Kind::History,
            messages: sink.kind.is_log(),
        };
        let budget = Budget::new(plan.budget_bytes);
        let is_known = tables.iter().any(|table| table.oid == TABLES[2].0);
        let holds_state = |sink: &usize| !plan.sinks[*sink].kind.is_log();
        let sinks: Vec<usize> = (0..plan.sinks.len()).filter(holds_state).collect();
        let apartness = |oid, from| match plan.sabotage {
            Some(Sabotage::ForgetApart) => Apartness::Joined(from),
            _ => aparts.of(oid, &sinks, from),
        };
        let (standings, copies) = notes.standings(is_known, apartness);
        // Other tables are about to go ahead of those that are apart, in all sinks.
        for (oid, standing) in &standings {
            let Standing::Apart { told, from } = standing else { continue };
            for sink in sinks.iter().filter(|sink| !aparts.sinks_apart(*oid).contains(sink)) {
                let _ = aparts.part(*sink, *oid, "", *told, *from).now_or_never();
            }
        }
        let routes = plan.sinks.iter().enumerate().map(route).collect();
        let reach = if plan.sabotage == Some(Sabotage::JoinEarly) { 0 } else { reach };
        let relations = match plan.sabotage {
            Some(Sabotage::ForgetVersions) => tables.to_vec(),
            _ => versions.to_begin_with(tables),
        };
        let pipeline = Pipeline::new(routes, Lsn(watermark), &budget)
            .with_shelf(shelf)
            .with_relations(relations)
            .with_standings(standings, plan.copies)
            .with_reach(Lsn(reach))
            .with_horizon(Some(horizon));
        let keeper = |sink| move |_| versions.lane(sink, aparts.lane(sink, Box::new(Nowhere)));
        let keepers =
            plan.sinks.iter().enumerate().map(|(sink, of)| (0..of.shards).map(keeper(sink)).collect());
        let shards = |sink: &crate::plan::SinkPlan| sink.shards as usize;
        Self {
            pipeline,
            inputs: VecDeque::new(),
            charge: None,
            out_bytes: 0,
            budget,
            turns: plan
                .sinks
                .iter()
                .map(|sink| Turns::new(std::iter::repeat_n(sink.in_flight_max, shards(sink))))
                .collect(),
            preparing: plan.sinks.iter().map(|sink| vec![false; shards(sink)]).collect(),
            writes: BTreeMap::new(),
            next_write: 0,
            reports: VecDeque::new(),
            handed_on_bytes: 0,
            watermark,
            copies,
            versions: Arc::clone(versions),
            aparts: Arc::clone(aparts),
            keepers: keepers.collect(),
            last: BTreeMap::new(),
            removals: BTreeMap::new(),
            handed_out: BTreeSet::new(),
            under_way: BTreeMap::new(),
            kept_back: None,
            sabotage: plan.sabotage,
        }
    }

    /// One turn of the driver's loop. Returns whether there is more to do at once.
    pub(crate) fn drive(&mut self, now: Instant, reached: &mut Reached) -> Result<bool, String> {
        let may_hand_on = self.out_bytes < self.budget.bytes_max() / 2;
        let is_busy = self.pipeline.is_busy();
        let waited = self.waiting_bytes();
        if is_busy && may_hand_on {
            self.pipeline.work(now).map_err(|error| error.to_string())?;
        } else if !is_busy && let Some(input) = self.inputs.pop_front() {
            self.input(input, now)?;
        }
        if !self.pipeline.is_busy() {
            self.charge = None;
        }
        if may_hand_on && self.pipeline.is_releasing() {
            self.pipeline.release_some(now).map_err(|error| error.to_string())?;
        }
        self.handed_on_bytes = self.handed_on_bytes.max(waited.saturating_sub(self.waiting_bytes()));
        for (transactions, bytes) in self.reports.drain(..) {
            self.out_bytes = self.out_bytes.saturating_sub(bytes);
            self.pipeline.durable(transactions);
        }
        self.pipeline.tick(now);
        self.hand_out(reached)?;
        if self.pipeline.waiting_bytes().1 > 0 {
            reached.insert(reached::SPILL);
        }
        let watermark = self.pipeline.watermark().0;
        if watermark < self.watermark {
            return Err(format!("the watermark goes back from {} to {watermark}", self.watermark));
        }
        if watermark > self.watermark && !self.writes.is_empty() {
            reached.insert(reached::ACKNOWLEDGED_IN_BETWEEN);
        }
        self.watermark = watermark;
        let may_hand_on = self.out_bytes < self.budget.bytes_max() / 2;
        let is_busy = self.pipeline.is_busy();
        Ok((is_busy || self.pipeline.is_releasing()) && may_hand_on || !is_busy && !self.inputs.is_empty())
    }

    fn waiting_bytes(&self) -> usize {
        let (memory, files) = self.pipeline.waiting_bytes();
        memory + files
    }

    fn input(&mut self, input: Input, now: Instant) -> Result<(), String> {
        match input {
            Input::Chunk { bytes, catalogs, charge } => {
                self.charge = Some(charge);
                return self.pipeline.chunk(bytes, catalogs, now).map_err(|error| error.to_string());
            }
            Input::Reconnected => self.pipeline.reconnected(),
            Input::Hold(oid) => self.pipeline.hold(oid, now),
            Input::CopiedAt(oid, snapshot) => self.pipeline.copied_at(oid, snapshot),
            Input::CopiedAs(version) => self.pipeline.copied_as(&version),
            Input::CopiedUntil(oid, snapshot) => self.pipeline.copied_until(oid, snapshot),
            Input::Release(oid) => self.pipeline.release(oid),
            Input::Settled(oid) => self.pipeline.settled(oid),
            Input::Catalog(tables) => self.pipeline.catalog(tables),
            other => return Err(format!("the simulation gives no {other:?}")),
        }
        Ok(())
    }

    fn hand_out(&mut self, reached: &mut Reached) -> Result<(), String> {
        for output in self.pipeline.take_outputs() {
            let (lane, batch, is_fence) = match &output {
                Output::Batch(lane, batch) => (*lane, batch, false),
                Output::Fence(lane, batch) => (*lane, batch, true),
            };
            self.check(lane, batch, reached)?;
            self.out_bytes += batch.charged_bytes();
            for table in tables_of(batch) {
                *self.under_way.entry((lane.sink, table)).or_default() += 1;
            }
            if is_fence {
                note_fence(batch, reached);
                if self.writes.values().any(|write| write.sink == lane.sink) {
                    reached.insert(reached::FENCE_WAITS);
                }
            }
            self.queue(lane, output);
        }
        Ok(())
    }

    fn queue(&mut self, lane: LaneId, output: Output) {
        let output = match (self.sabotage, output) {
            (Some(Sabotage::SkipFence), Output::Fence(lane, batch)) => Output::Batch(lane, batch),
            (_, output) => output,
        };
        if self.sabotage == Some(Sabotage::Reorder) {
            match (&self.kept_back, &output) {
                (None, Output::Batch(..)) if self.next_write.is_multiple_of(5) => {
                    self.kept_back = Some(output);
                    return;
                }
                (Some(Output::Batch(other, _)), _) if *other == lane => {
                    let before = self.kept_back.take();
                    self.turns[lane.sink].push(output);
                    before.into_iter().for_each(|before| self.turns[lane.sink].push(before));
                    return;
                }
                _ => {}
            }
        }
        self.turns[lane.sink].push(output);
    }

    /// What a lane is given comes in order, and a log is given nothing twice.
    fn check(&mut self, lane: LaneId, batch: &Batch, reached: &mut Reached) -> Result<(), String> {
        if batch.phase() != Phase::Stream {
            return Ok(());
        }
        let last = self.last.entry((lane.sink, lane.shard)).or_default();
        for change in batch.changes() {
            let position = change.position;
            if position < *last {
                return Err(format!("lane {lane:?} is given {position} behind {last}"));
            }
            *last = position;
            if change.op == Op::Schema {
                continue;
            }
            // The two halves of a key change have positions of their own.
            if !self.handed_out.insert((lane.sink, position)) {
                return Err(format!("sink {} is given the change at {position} twice", lane.sink));
            }
            if change.op == Op::Delete && change.key_changed {
                self.removals.insert((lane.sink, position), lane.shard);
            } else if change.op == Op::Insert && position.ordinal > 0 {
                let before = Position { ordinal: position.ordinal - 1, ..position };
                if self.removals.get(&(lane.sink, before)).is_some_and(|shard| *shard != lane.shard) {
                    reached.insert(reached::KEY_CHANGE);
                }
            }
        }
        Ok(())
    }

    /// What the lane takes now, if it is its turn and its thread is free: the number of the write.
    pub(crate) fn take(&mut self, sink: usize, shard: usize) -> Option<u32> {
        let is_preparing = self.preparing.get_mut(sink)?.get_mut(shard)?;
        if *is_preparing {
            return None;
        }
        let needs_drain = |batch: &Batch| batch.changes().any(|change| change.unresolved);
        let batch = self.turns[sink].take(shard, needs_drain)?;
        *is_preparing = true;
        let number = self.next_write;
        self.next_write += 1;
        let writing = Writing {
            sink,
            shard,
            phase: match self.sabotage {
                Some(Sabotage::CatchUpAsStream) => Phase::Stream,
                _ => batch.phase(),
            },
            transactions: batch.transactions().iter().map(|transaction| transaction.id).collect(),
            tables: tables_of(&batch),
            bytes: batch.charged_bytes(),
            batch: Some(batch),
            steps: Vec::new(),
            charge: None,
            backoff: Backoff::new(Duration::from_millis(50), Duration::from_secs(2)),
            is_sent: false,
        };
        self.writes.insert(number, writing);
        Some(number)
    }

    /// Whether the sink keeps the versions that a write's batch is of.
    pub(crate) fn keeps_versions(&mut self, number: u32) -> bool {
        let Some(write) = self.writes.get(&number) else { return false };
        let keeper = self.keepers.get_mut(write.sink).and_then(|lanes| lanes.get_mut(write.shard));
        let (Some(keeper), Some(batch)) = (keeper, &write.batch) else { return false };
        // Nothing in it waits.
        matches!(keeper.prepare(Arc::clone(batch)).now_or_never(), Some(Ok(_)))
    }

    /// The lane has made a write of its batch.
    pub(crate) fn prepared(&mut self, number: u32, steps: Vec<Step>) {
        if let Some(write) = self.writes.get_mut(&number) {
            write.steps = steps;
            if let Some(Ok(batch)) = write.batch.take().map(Arc::try_unwrap) {
                let bytes = batch.data_bytes();
                write.charge = Some(batch.into_charge(bytes));
            }
            // The lane has room for it, or would not have taken its batch.
            let is_in_flight = self.turns[write.sink].send(write.shard);
            assert!(is_in_flight);
            self.preparing[write.sink][write.shard] = false;
        }
    }

    /// The write is durable: its lane may go on, and the driver is told.
    pub(crate) fn durable(&mut self, number: u32, reached: &mut Reached) {
        let Some(write) = self.writes.remove(&number) else { return };
        for table in &write.tables {
            *self.under_way.entry((write.sink, *table)).or_default() -= 1;
        }
        let is_earlier = |(other, of): (&u32, &Writing)| {
            *other < number && of.sink == write.sink && of.shard == write.shard
        };
        if self.writes.iter().any(is_earlier) {
            reached.insert(reached::OVERTAKEN);
        }
        self.preparing[write.sink][write.shard] &= write.batch.is_none();
        self.reports.push_back((write.transactions, write.bytes));
        self.turns[write.sink].durable(write.shard);
    }

    /// Whether rows of that table are on their way to that sink.
    pub(crate) fn is_under_way(&self, sink: usize, table: u32) -> bool {
        self.under_way.get(&(sink, table)).is_some_and(|batches| *batches > 0)
    }

    pub(crate) fn notices(&mut self) -> Vec<Notice> {
        self.pipeline.take_notices()
    }
}

/// The tables of which a batch has rows.
fn tables_of(batch: &Batch) -> BTreeSet<u32> {
    let rows = batch.changes().filter(|change| !matches!(change.op, Op::Schema | Op::Apart | Op::Message));
    rows.map(|change| change.relation.oid).collect()
}

fn note_fence(batch: &Batch, reached: &mut Reached) {
    let is_catching_up = batch.phase() == Phase::CatchUp;
    for change in batch.changes() {
        match change.op {
            Op::Schema | Op::Apart => continue,
            Op::Truncate => reached.insert(reached::TRUNCATE),
            _ => reached.insert(reached::FENCED_KEY_CHANGE),
        };
        if is_catching_up {
            reached.insert(reached::FENCE_CATCHING_UP);
        }
    }
}
