//! Whose turn it is: which batch a lane of a sink takes next, and what it waits for.
//!
//! ```text
//!   outputs ─▶ lane 0 [b] [b] [fence ✉]        a fence is in every lane's queue; the batch is in one of them
//!              lane 1 [b] [fence]              front everywhere, nothing in flight ─▶ that lane takes its batch
//!              lane 2 [fence] [b]              durable ─▶ all lanes go on behind it
//! ```
//!
//! Invariants:
//! - a lane takes its batches in the order in which they were handed out, each once;
//! - it has at most `in_flight_max` writes in flight, and a batch that has to be alone is;
//! - a write that is not in flight yet may take up those behind it;
//! - nothing of a sink is in flight beside a fenced batch, nor taken between what comes before it and what comes behind.
//!
//! No I/O, no clock, no threads: the lanes' threads ask it under a lock, the simulation asks it under its scheduler.

use crate::dispatcher::{LaneId, Output};
use replicator_types::Batch;
use std::collections::VecDeque;
use std::sync::Arc;

/// The queues of one sink's lanes. See the module.
#[derive(Debug)]
pub struct Turns {
    lanes: Vec<Lane>,
    fences: u64,
}

#[derive(Debug)]
struct Lane {
    queue: VecDeque<Item>,
    in_flight: usize,
    in_flight_max: usize,
    /// Batches that are being prepared, and writes that wait for others to join them, or for room.
    taken: usize,
    /// Nothing is to come soon: what gathers is not to wait.
    hurried: bool,
    /// What was taken, or is in flight, has to be alone.
    alone: bool,
    /// It has failed for good.
    failed: bool,
}

#[derive(Debug)]
enum Item {
    Batch {
        batch: Arc<Batch>,
        /// Whether it has to be alone, once that was asked.
        alone: Option<bool>,
    },
    Fence {
        number: u64,
        here: Here,
    },
}

/// Where a fence's batch is, as one lane sees it.
#[derive(Debug)]
enum Here {
    Batch(Arc<Batch>),
    InFlight,
    Elsewhere,
}

impl Turns {
    /// Empty queues, one for each of these `in_flight_max`.
    pub fn new(in_flight_max: impl IntoIterator<Item = usize>) -> Self {
        let lane = |in_flight_max: usize| Lane {
            queue: VecDeque::new(),
            in_flight: 0,
            in_flight_max: in_flight_max.max(1),
            taken: 0,
            hurried: false,
            alone: false,
            failed: false,
        };
        Self { lanes: in_flight_max.into_iter().map(lane).collect(), fences: 0 }
    }

    /// Queues what the pipeline has handed out for this sink.
    pub fn push(&mut self, output: Output) {
        match output {
            Output::Batch(LaneId { shard, .. }, batch) => self.push_batch(shard as usize, Arc::new(batch)),
            Output::Fence(LaneId { shard, .. }, batch) => {
                self.fences += 1;
                let number = self.fences;
                let mut batch = Some(Arc::new(batch));
                for (index, lane) in self.lanes.iter_mut().enumerate() {
                    let batch = if index == shard as usize { batch.take() } else { None };
                    let here = batch.map_or(Here::Elsewhere, Here::Batch);
                    lane.queue.push_back(Item::Fence { number, here });
                }
            }
        }
    }

    /// Queues a batch for one lane.
    pub fn push_batch(&mut self, shard: usize, batch: Arc<Batch>) {
        if let Some(lane) = self.lanes.get_mut(shard) {
            lane.hurried = false;
            lane.queue.push_back(Item::Batch { batch, alone: None });
        }
    }

    /// The batch that the lane is to prepare now; none while it has to wait. `needs_drain`: whether it may only be
    /// prepared when nothing of the lane is in flight.
    pub fn take(&mut self, shard: usize, needs_drain: impl FnOnce(&Batch) -> bool) -> Option<Arc<Batch>> {
        let lane = self.lanes.get_mut(shard)?;
        let has_room = lane.in_flight < lane.in_flight_max || lane.taken > 0;
        if lane.failed || lane.alone || !has_room {
            return None;
        }
        let (alone, fence) = match lane.queue.front_mut()? {
            Item::Batch { batch, alone } => {
                (*alone.get_or_insert_with(|| batch.is_fenced() || needs_drain(batch)), None)
            }
            Item::Fence { number, here: Here::Batch(_) } => (true, Some(*number)),
            Item::Fence { .. } => return None,
        };
        if alone && lane.has_any() || fence.is_some_and(|number| !self.is_reached(number)) {
            return None;
        }
        let lane = self.lanes.get_mut(shard)?;
        let batch = match lane.queue.pop_front()? {
            Item::Batch { batch, .. } => batch,
            Item::Fence { number, here: Here::Batch(batch) } => {
                lane.queue.push_front(Item::Fence { number, here: Here::InFlight });
                batch
            }
            Item::Fence { .. } => return None,
        };
        lane.taken += 1;
        lane.alone = alone;
        Some(batch)
    }

    /// Whether every lane has come to the fence, and nothing is in flight.
    fn is_reached(&self, fence: u64) -> bool {
        let is_at_it = |lane: &Lane| {
            !lane.has_any()
                && matches!(lane.queue.front(), Some(Item::Fence { number, .. }) if *number == fence)
        };
        self.lanes.iter().all(is_at_it)
    }

    /// A write in flight is durable. One that never becomes so stays in flight, and nothing passes it that must not.
    pub fn durable(&mut self, shard: usize) {
        let Some(lane) = self.lanes.get_mut(shard) else { return };
        lane.in_flight = lane.in_flight.saturating_sub(1);
        lane.alone = false;
        if matches!(lane.queue.front(), Some(Item::Fence { here: Here::InFlight, .. })) {
            for lane in &mut self.lanes {
                lane.queue.pop_front();
            }
        }
    }

    /// The write of a batch that was taken has joined the one before it.
    pub fn joined(&mut self, shard: usize) {
        let Some(lane) = self.lanes.get_mut(shard) else { return };
        lane.taken = lane.taken.saturating_sub(1);
    }

    /// Whether the first of the batches that were taken may be written now; if so, it is in flight.
    pub fn send(&mut self, shard: usize) -> bool {
        let Some(lane) = self.lanes.get_mut(shard) else { return false };
        if lane.failed || lane.taken == 0 || lane.in_flight >= lane.in_flight_max {
            return false;
        }
        lane.taken -= 1;
        lane.in_flight += 1;
        true
    }

    /// Nothing is to come for the lane soon.
    pub fn hurry(&mut self, shard: usize) {
        if let Some(lane) = self.lanes.get_mut(shard) {
            lane.hurried = true;
        }
    }

    /// Whether what was taken is not to wait for more: nothing is to come soon, or what is queued waits for it.
    pub fn is_hurried(&self, shard: usize) -> bool {
        self.lanes.get(shard).is_some_and(|lane| lane.hurried || !lane.queue.is_empty())
    }

    /// The lane has failed for good: it takes nothing more, and what it had in flight stays so.
    pub fn failed(&mut self, shard: usize) {
        if let Some(lane) = self.lanes.get_mut(shard) {
            lane.failed = true;
        }
    }

    /// Whether nothing is to be expected of the lane: it has nothing queued and nothing in flight, or has failed.
    pub fn is_idle(&self, shard: usize) -> bool {
        self.lanes.get(shard).is_none_or(|lane| lane.failed || (lane.queue.is_empty() && !lane.has_any()))
    }
}

impl Lane {
    /// Whether anything is neither queued nor durable.
    fn has_any(&self) -> bool {
        self.in_flight + self.taken > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use replicator_types::{
        BatchBuilder, Budget, Lsn, NewChange, Op, Relation, TransactionMeta, Tuple, TxnId, Value,
    };

    /// A batch of one logical message, numbered.
    fn batch(number: u64, fenced: bool) -> Batch {
        let mut builder = BatchBuilder::new(Budget::new(1 << 20));
        let meta = TransactionMeta { id: TxnId(number), commit_lsn: Lsn(number), commit_time_us: 0, xid: 0 };
        let mut row = Vec::new();
        Tuple::write([Value::Null; 3], &mut row);
        let change =
            NewChange { new: Some(Tuple::from_checked(&row)), ..NewChange::without_row(Op::Message, 0) };
        builder.push(&meta, &Arc::new(Relation::message()), change);
        builder.cut(fenced).unwrap()
    }

    fn lane(shard: u32) -> LaneId {
        LaneId { sink: 0, shard }
    }

    fn number(batch: &Batch) -> u64 {
        batch.transactions()[0].id.0
    }

    /// Takes a batch without sending it.
    fn prepare(turns: &mut Turns, shard: usize) -> Option<u64> {
        turns.take(shard, |_| false).map(|batch| number(&batch))
    }

    fn take(turns: &mut Turns, shard: usize) -> Option<u64> {
        let taken = prepare(turns, shard);
        assert!(taken.is_none() || turns.send(shard));
        taken
    }

    #[test]
    fn a_fence_is_taken_when_every_lane_is_there_and_drained_and_holds_all_of_them() {
        let mut turns = Turns::new([2, 2]);
        turns.push(Output::Batch(lane(0), batch(1, false)));
        turns.push(Output::Batch(lane(1), batch(2, false)));
        turns.push(Output::Fence(lane(0), batch(3, true)));
        turns.push(Output::Batch(lane(1), batch(4, false)));
        assert_eq!((take(&mut turns, 0), take(&mut turns, 0)), (Some(1), None));
        turns.durable(0);
        assert_eq!(take(&mut turns, 0), None, "the other lane is not there yet");
        assert_eq!((take(&mut turns, 1), take(&mut turns, 1)), (Some(2), None));
        assert_eq!(take(&mut turns, 0), None, "what comes before is not durable yet");
        turns.durable(1);
        assert_eq!(take(&mut turns, 1), None, "the batch is another lane's");
        assert_eq!((take(&mut turns, 0), take(&mut turns, 1)), (Some(3), None));
        turns.durable(0);
        assert_eq!(take(&mut turns, 1), Some(4));
        assert!(turns.is_idle(0) && !turns.is_idle(1));
    }

    #[test]
    fn as_many_batches_are_in_flight_as_the_lane_bears_and_some_are_alone() {
        let mut turns = Turns::new([2]);
        (1..=5).for_each(|number| turns.push(Output::Batch(lane(0), batch(number, false))));
        let next = |turns: &mut Turns| {
            let taken = turns.take(0, |batch| number(batch) == 3).map(|batch| number(&batch));
            assert!(taken.is_none() || turns.send(0));
            taken
        };
        assert_eq!([next(&mut turns), next(&mut turns), next(&mut turns)], [Some(1), Some(2), None]);
        turns.durable(0);
        assert_eq!(next(&mut turns), None, "one is in flight still");
        turns.durable(0);
        assert_eq!([next(&mut turns), next(&mut turns)], [Some(3), None]);
        turns.durable(0);
        assert_eq!([next(&mut turns), next(&mut turns)], [Some(4), Some(5)]);
    }

    #[test]
    fn a_write_is_joined_however_much_is_in_flight_and_is_sent_when_there_is_room() {
        let mut turns = Turns::new([1]);
        (1..=7).for_each(|number| turns.push(Output::Batch(lane(0), batch(number, false))));
        assert_eq!(take(&mut turns, 0), Some(1));
        assert_eq!(
            (prepare(&mut turns, 0), turns.send(0)),
            (None, false),
            "nothing waits that it could join"
        );
        turns.durable(0);
        assert_eq!(prepare(&mut turns, 0), Some(2));
        // One joins it, one does not.
        assert_eq!(prepare(&mut turns, 0), Some(3));
        turns.joined(0);
        assert_eq!(prepare(&mut turns, 0), Some(4));
        assert!(turns.send(0) && !turns.send(0), "there is room for one in flight");
        assert_eq!(prepare(&mut turns, 0), Some(5));
        turns.joined(0);
        turns.durable(0);
        assert!(turns.send(0));
        assert_eq!(prepare(&mut turns, 0), None);
        turns.durable(0);
        // What has to be alone waits for what was taken.
        assert_eq!(prepare(&mut turns, 0), Some(6));
        assert!(turns.take(0, |_| true).is_none() && turns.is_hurried(0) && !turns.is_idle(0));
        assert!(turns.send(0));
        assert!(turns.take(0, |_| true).is_none());
        turns.durable(0);
        assert!(turns.take(0, |_| true).is_some() && turns.send(0));
        turns.durable(0);
        assert!(turns.is_idle(0));
    }

    #[test]
    fn what_was_taken_is_hurried_until_something_comes() {
        let mut turns = Turns::new([1]);
        turns.push(Output::Batch(lane(0), batch(1, false)));
        assert!(turns.is_hurried(0), "something is queued");
        assert_eq!(prepare(&mut turns, 0), Some(1));
        assert!(!turns.is_hurried(0));
        turns.hurry(0);
        assert!(turns.is_hurried(0));
        turns.push(Output::Batch(lane(0), batch(2, false)));
        assert_eq!(prepare(&mut turns, 0), Some(2));
        assert!(!turns.is_hurried(0));
    }
}
