//! Which LSN may be acknowledged: the end of the last transaction before which nothing is missing in any sink.
//!
//! ```text
//!   begin ─▶ fragment ─▶ fragment ─▶ seal(end LSN)        queue, in commit order:
//!               │            │                             [T7 ✓sealed 0] [T8 sealed 2] [T9 open 1]
//!            durable      durable                            popped ▲      └─ holds back all behind it
//! ```
//!
//! A transaction's changes go out in fragments: one for each batch that has any of them. The front of the
//! queue is popped when it is sealed (its Commit was seen) and no fragment is outstanding; the watermark is
//! the end LSN of the last one popped. A lane without fragments never holds anything back.
//!
//! While one sink is away, transactions that do not concern it become durable behind one that does. Runs of
//! them are joined now and then, so the queue grows with what is outstanding (which the byte budget bounds)
//! and not with what passes by.
//!
//! A prepared transaction is sent at its PREPARE only, and a source that has been told of that sends nothing but the
//! COMMIT PREPARED later. So the watermark passes a PREPARE together with the commit that ends it, or not at all:
//!
//! ```text
//!   [P1 ✓ until C1] [T2 ✓] [T3 outstanding 1] [C1 ✓]        stays before P1 until T3 is durable, then is behind C1
//! ```
//!
//! Invariants:
//! - the watermark never goes down;
//! - it never passes a transaction with an outstanding fragment, nor one that is not sealed;
//! - it never lies between a PREPARE and the end of its commit;
//! - a fragment is registered before the batch that holds it can be reported durable.
//!
//! No I/O, no clock, no runtime: the same code runs under the tests' model.

use replicator_types::{Lsn, TxnId};
use std::collections::VecDeque;

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Checkpoint {
    /// By rising id; joined ones have the id of the last of them.
    queue: VecDeque<Entry>,
    /// Id of the next entry.
    next: u64,
    /// Transactions in the queue, idle marks not counted.
    pending: usize,
    /// Length of the queue at which runs are joined next.
    join_at: usize,
    watermark: Lsn,
}

/// A transaction, several that were joined, or an idle mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Entry {
    id: u64,
    /// End of the commit record, once sealed.
    sealed: Option<Lsn>,
    /// Fragments handed out and not yet durable.
    outstanding: u32,
    /// The watermark passes it only together with the transaction of this id: 0 for any, [`UNDECIDED`] for none.
    until: u64,
    /// Commit time, microseconds since 2000-01-01 UTC; none for an idle mark.
    commit_time_us: Option<i64>,
}

impl Entry {
    fn is_durable(&self) -> bool {
        self.sealed.is_some() && self.outstanding == 0
    }

    fn may_be_joined(&self) -> bool {
        self.is_durable() && self.until == 0
    }
}

/// It is not known yet what becomes of what was prepared.
const UNDECIDED: u64 = u64::MAX;

/// Joining is not worth its walk over the queue below this length (some 160 kB).
const JOIN_AT_LEAST: usize = 4096;

impl Checkpoint {
    /// A checkpoint where everything up to `watermark` (an end, exclusive) is durable already.
    pub fn new(watermark: Lsn) -> Self {
        Self { queue: VecDeque::new(), next: 0, pending: 0, join_at: JOIN_AT_LEAST, watermark }
    }

    /// A transaction begins. The one before it must be sealed.
    pub fn begin(&mut self, commit_time_us: i64) -> TxnId {
        debug_assert!(self.queue.back().is_none_or(|last| last.sealed.is_some()));
        self.pending += 1;
        self.push(None, Some(commit_time_us))
    }

    fn push(&mut self, sealed: Option<Lsn>, commit_time_us: Option<i64>) -> TxnId {
        let id = self.next;
        self.next += 1;
        self.queue.push_back(Entry { id, sealed, outstanding: 0, until: 0, commit_time_us });
        if self.queue.len() >= self.join_at {
            self.join();
        }
        TxnId(id)
    }

    /// A further batch has changes of the transaction.
    pub fn fragment(&mut self, id: TxnId) {
        if let Some(entry) = self.get(id) {
            entry.outstanding += 1;
        }
    }

    /// All changes of the transaction have been handed out.
    pub fn seal(&mut self, id: TxnId, end_lsn: Lsn) {
        if let Some(entry) = self.get(id) {
            entry.sealed = Some(end_lsn);
        }
        self.pop();
    }

    /// A transaction was prepared, and the end of the prepare record is `end_lsn`.
    pub fn prepare(&mut self, prepare_time_us: i64, end_lsn: Lsn) -> TxnId {
        self.pending += 1;
        let id = self.push(Some(end_lsn), Some(prepare_time_us));
        if let Some(entry) = self.queue.back_mut() {
            entry.until = UNDECIDED;
        }
        id
    }

    /// What was prepared commits as the transaction `commit`: the watermark passes both at once.
    pub fn commit_prepared(&mut self, prepare: TxnId, commit: TxnId) {
        if let Some(entry) = self.get(prepare) {
            entry.until = commit.0;
        }
    }

    /// What was prepared came to nothing.
    pub fn rollback_prepared(&mut self, prepare: TxnId) {
        if let Some(entry) = self.get(prepare) {
            entry.until = 0;
        }
        self.pop();
    }

    /// A fragment of the transaction is durable.
    pub fn durable(&mut self, id: TxnId) {
        if let Some(entry) = self.get(id) {
            debug_assert!(entry.outstanding > 0, "more fragments durable than handed out");
            entry.outstanding = entry.outstanding.saturating_sub(1);
        }
        self.pop();
    }

    /// The source has nothing for us up to `lsn` beyond what it sent: once that is durable, `lsn` may be
    /// acknowledged. Only meaningful between transactions; within one it is not heard.
    pub fn idle(&mut self, lsn: Lsn) {
        match self.queue.back_mut() {
            None => self.watermark = self.watermark.max(lsn),
            Some(Entry { sealed: None, .. }) => {}
            // Behind something that is durable and only waits for its turn, the mark replaces it.
            Some(Entry { sealed: Some(end), outstanding: 0, .. }) => *end = lsn.max(*end),
            Some(_) => {
                self.push(Some(lsn), None);
            }
        }
    }

    /// What may be acknowledged: everything before this LSN is durable in every sink.
    pub fn watermark(&self) -> Lsn {
        self.watermark
    }

    /// Transactions that are not acknowledged yet, the open one included; joined ones count as one.
    pub fn pending(&self) -> usize {
        self.pending
    }

    /// Whether nothing is pending.
    pub fn is_drained(&self) -> bool {
        self.queue.is_empty()
    }

    /// Commit time of the oldest transaction that is not durable yet.
    pub fn oldest_commit_time_us(&self) -> Option<i64> {
        self.queue.iter().find_map(|entry| entry.commit_time_us)
    }

    fn get(&mut self, id: TxnId) -> Option<&mut Entry> {
        // Without joins the place is the distance from the front.
        let front = self.queue.front()?.id;
        let guess = usize::try_from(id.0.checked_sub(front)?).ok()?;
        let index = match self.queue.get(guess) {
            Some(entry) if entry.id == id.0 => guess,
            _ => self.queue.binary_search_by_key(&id.0, |entry| entry.id).ok()?,
        };
        self.queue.get_mut(index)
    }

    fn pop(&mut self) {
        let mut until = 0;
        let mut passable = 0;
        for (index, entry) in self.queue.iter().enumerate() {
            until = until.max(entry.until);
            if until == UNDECIDED || !entry.is_durable() {
                break;
            }
            if entry.id >= until {
                passable = index + 1;
            }
        }
        for entry in self.queue.drain(..passable) {
            self.pending -= usize::from(entry.commit_time_us.is_some());
            // Commit ends grow; an idle mark's LSN may lie below one that came with a later status.
            self.watermark = self.watermark.max(entry.sealed.unwrap_or_default());
        }
    }

    /// Joins neighbours that are durable and wait for one before them. No fragment of theirs is outstanding, and
    /// none is a PREPARE that is asked for, so nobody asks for them by their ids any more.
    fn join(&mut self) {
        let mut joined: VecDeque<Entry> = VecDeque::with_capacity(self.queue.len() / 2);
        for entry in self.queue.drain(..) {
            match joined.back_mut() {
                Some(last) if last.may_be_joined() && entry.may_be_joined() => {
                    let both = last.commit_time_us.is_some() && entry.commit_time_us.is_some();
                    self.pending -= usize::from(both);
                    last.id = entry.id;
                    last.sealed = last.sealed.max(entry.sealed);
                    last.commit_time_us = last.commit_time_us.or(entry.commit_time_us);
                }
                _ => joined.push_back(entry),
            }
        }
        self.queue = joined;
        self.join_at = JOIN_AT_LEAST.max(self.queue.len() * 2);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn nothing_behind_an_open_transaction_is_acknowledged() {
        let mut checkpoint = Checkpoint::new(Lsn(10));
        let id = checkpoint.begin(0);
        checkpoint.fragment(id);
        checkpoint.durable(id);
        checkpoint.idle(Lsn(99));
        assert_eq!(checkpoint.watermark(), Lsn(10));
        checkpoint.seal(id, Lsn(20));
        assert_eq!(checkpoint.watermark(), Lsn(20));
    }

    #[test]
    fn a_keepalive_counts_only_behind_the_data_it_follows() {
        let mut checkpoint = Checkpoint::new(Lsn(10));
        let id = checkpoint.begin(0);
        checkpoint.fragment(id);
        checkpoint.seal(id, Lsn(20));
        checkpoint.idle(Lsn(30));
        checkpoint.idle(Lsn(40));
        assert_eq!(checkpoint.watermark(), Lsn(10));
        checkpoint.durable(id);
        assert_eq!(checkpoint.watermark(), Lsn(40));
        checkpoint.idle(Lsn(50));
        assert_eq!(checkpoint.watermark(), Lsn(50));
    }

    #[test]
    fn transactions_become_durable_in_any_order_and_are_acknowledged_in_commit_order() {
        let mut checkpoint = Checkpoint::new(Lsn(0));
        let ids: Vec<_> = (1..=3)
            .map(|n| {
                let id = checkpoint.begin(n);
                checkpoint.fragment(id);
                checkpoint.fragment(id);
                checkpoint.seal(id, Lsn(n as u64 * 10));
                id
            })
            .collect();
        for id in [ids[2], ids[1], ids[2], ids[1], ids[0]] {
            checkpoint.durable(id);
            assert_eq!(checkpoint.watermark(), Lsn(0));
        }
        assert_eq!((checkpoint.pending(), checkpoint.oldest_commit_time_us()), (3, Some(1)));
        checkpoint.durable(ids[0]);
        assert_eq!(checkpoint.watermark(), Lsn(30));
        assert!(checkpoint.is_drained());
    }

    #[test]
    fn transactions_that_pass_by_while_one_waits_do_not_pile_up() {
        let mut checkpoint = Checkpoint::new(Lsn(0));
        let waiting = checkpoint.begin(0);
        checkpoint.fragment(waiting);
        checkpoint.seal(waiting, Lsn(1));
        let mut open = Vec::new();
        for n in 2..200_000 {
            let id = checkpoint.begin(n as i64);
            checkpoint.fragment(id);
            checkpoint.seal(id, Lsn(n));
            // A few wait a while for their turn, as batches do.
            open.push(id);
            if open.len() == 100 {
                open.drain(..).for_each(|id| checkpoint.durable(id));
            }
        }
        assert!(checkpoint.queue.len() <= 2 * JOIN_AT_LEAST, "{}", checkpoint.queue.len());
        assert_eq!(checkpoint.watermark(), Lsn(0));
        checkpoint.durable(waiting);
        open.drain(..).for_each(|id| checkpoint.durable(id));
        assert_eq!((checkpoint.watermark(), checkpoint.pending()), (Lsn(199_999), 0));
    }

    /// The naive model: remembers everything for ever and looks at all of it each time.
    #[derive(Default)]
    struct Model {
        start: u64,
        events: Vec<ModelEvent>,
    }

    enum ModelEvent {
        Transaction {
            end: Option<u64>,
            outstanding: u32,
        },
        Idle(u64),
        /// With the index of the event that it commits as: its own once it was rolled back, none while undecided.
        Prepare {
            end: u64,
            until: Option<usize>,
        },
    }

    impl Model {
        fn watermark(&self) -> u64 {
            let (mut watermark, mut behind, mut until) = (self.start, self.start, 0);
            for (index, event) in self.events.iter().enumerate() {
                match event {
                    ModelEvent::Transaction { end: Some(end), outstanding: 0 } => behind = behind.max(*end),
                    ModelEvent::Transaction { .. } => return watermark,
                    ModelEvent::Idle(lsn) => behind = behind.max(*lsn),
                    ModelEvent::Prepare { until: None, .. } => return watermark,
                    ModelEvent::Prepare { end, until: Some(commit) } => {
                        behind = behind.max(*end);
                        until = until.max(*commit);
                    }
                }
                if index >= until {
                    watermark = behind;
                }
            }
            watermark
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Fragment,
        Commit,
        Durable(prop::sample::Index),
        Idle,
        Prepare,
        CommitPrepared(prop::sample::Index),
        RollbackPrepared(prop::sample::Index),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => Just(Step::Fragment),
            2 => Just(Step::Commit),
            5 => any::<prop::sample::Index>().prop_map(Step::Durable),
            1 => Just(Step::Idle),
            1 => Just(Step::Prepare),
            1 => any::<prop::sample::Index>().prop_map(Step::CommitPrepared),
            1 => any::<prop::sample::Index>().prop_map(Step::RollbackPrepared),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn it_agrees_with_a_model_that_remembers_everything(steps in prop::collection::vec(step(), 1..120)) {
            let mut lsn = 100;
            let mut real = Checkpoint::new(Lsn(lsn));
            let mut model = Model { start: lsn, ..Model::default() };
            let mut open: Option<TxnId> = None;
            let mut outstanding: Vec<(TxnId, usize)> = Vec::new();
            let mut prepared: Vec<(TxnId, usize)> = Vec::new();
            let mut before = real.watermark();
            for step in steps {
                lsn += 8;
                match step {
                    Step::Fragment => {
                        let id = *open.get_or_insert_with(|| {
                            model.events.push(ModelEvent::Transaction { end: None, outstanding: 0 });
                            real.begin(0)
                        });
                        real.fragment(id);
                        let index = model.events.len() - 1;
                        outstanding.push((id, index));
                        if let ModelEvent::Transaction { outstanding, .. } = &mut model.events[index] {
                            *outstanding += 1;
                        }
                    }
                    Step::Commit => {
                        if let Some(id) = open.take() {
                            real.seal(id, Lsn(lsn));
                            if let Some(ModelEvent::Transaction { end, .. }) = model.events.last_mut() {
                                *end = Some(lsn);
                            }
                        }
                    }
                    Step::Durable(pick) => {
                        if !outstanding.is_empty() {
                            let (id, index) = outstanding.swap_remove(pick.index(outstanding.len()));
                            real.durable(id);
                            if let ModelEvent::Transaction { outstanding, .. } = &mut model.events[index] {
                                *outstanding -= 1;
                            }
                        }
                    }
                    Step::Prepare if open.is_none() => {
                        prepared.push((real.prepare(0, Lsn(lsn)), model.events.len()));
                        model.events.push(ModelEvent::Prepare { end: lsn, until: None });
                    }
                    Step::CommitPrepared(pick) if open.is_none() && !prepared.is_empty() => {
                        let (id, index) = prepared.swap_remove(pick.index(prepared.len()));
                        let commit = real.begin(0);
                        real.commit_prepared(id, commit);
                        open = Some(commit);
                        let place = model.events.len();
                        if let Some(ModelEvent::Prepare { until, .. }) = model.events.get_mut(index) {
                            *until = Some(place);
                        }
                        model.events.push(ModelEvent::Transaction { end: None, outstanding: 0 });
                    }
                    Step::RollbackPrepared(pick) if !prepared.is_empty() => {
                        let (id, index) = prepared.swap_remove(pick.index(prepared.len()));
                        real.rollback_prepared(id);
                        if let Some(ModelEvent::Prepare { until, .. }) = model.events.get_mut(index) {
                            *until = Some(index);
                        }
                    }
                    Step::Prepare | Step::CommitPrepared(_) | Step::RollbackPrepared(_) => {}
                    Step::Idle => {
                        real.idle(Lsn(lsn));
                        if open.is_none() {
                            model.events.push(ModelEvent::Idle(lsn));
                        }
                    }
                }
                real.join();
                prop_assert_eq!(real.watermark(), Lsn(model.watermark()));
                prop_assert!(real.watermark() >= before);
                before = real.watermark();
            }
        }
    }
}
