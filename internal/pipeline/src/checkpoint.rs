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
//! Invariants:
//! - the watermark never goes down;
//! - it never passes a transaction with an outstanding fragment, nor one that is not sealed;
//! - a fragment is registered before the batch that holds it can be reported durable.
//!
//! No I/O, no clock, no runtime: the same code runs under the tests' model.

use replicator_types::{Lsn, TxnId};
use std::collections::VecDeque;

/// See the module.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    queue: VecDeque<Transaction>,
    /// Number of the queue's front.
    front: u64,
    /// Transactions in the queue, idle marks not counted.
    pending: usize,
    watermark: Lsn,
}

#[derive(Clone, Copy, Debug)]
struct Transaction {
    /// End of the commit record, once sealed.
    sealed: Option<Lsn>,
    /// Fragments handed out and not yet durable.
    outstanding: u32,
    /// Commit time, microseconds since 2000-01-01 UTC; none for an idle mark.
    commit_time_us: Option<i64>,
}

impl Checkpoint {
    /// A checkpoint where everything up to `watermark` (an end, exclusive) is durable already.
    pub fn new(watermark: Lsn) -> Self {
        Self { queue: VecDeque::new(), front: 0, pending: 0, watermark }
    }

    /// A transaction begins. The one before it must be sealed.
    pub fn begin(&mut self, commit_time_us: i64) -> TxnId {
        debug_assert!(self.queue.back().is_none_or(|last| last.sealed.is_some()));
        self.pending += 1;
        self.push(Transaction { sealed: None, outstanding: 0, commit_time_us: Some(commit_time_us) })
    }

    fn push(&mut self, transaction: Transaction) -> TxnId {
        self.queue.push_back(transaction);
        TxnId(self.front + self.queue.len() as u64 - 1)
    }

    /// A further batch has changes of the transaction.
    pub fn fragment(&mut self, id: TxnId) {
        if let Some(transaction) = self.get(id) {
            transaction.outstanding += 1;
        }
    }

    /// All changes of the transaction have been handed out.
    pub fn seal(&mut self, id: TxnId, end_lsn: Lsn) {
        if let Some(transaction) = self.get(id) {
            transaction.sealed = Some(end_lsn);
        }
        self.pop();
    }

    /// A fragment of the transaction is durable.
    pub fn durable(&mut self, id: TxnId) {
        if let Some(transaction) = self.get(id) {
            debug_assert!(transaction.outstanding > 0, "more fragments durable than handed out");
            transaction.outstanding = transaction.outstanding.saturating_sub(1);
        }
        self.pop();
    }

    /// The source has nothing for us up to `lsn` beyond what it sent: once that is durable, `lsn` may be
    /// acknowledged. Only meaningful between transactions; within one it is not heard.
    pub fn idle(&mut self, lsn: Lsn) {
        match self.queue.back_mut() {
            None => self.watermark = self.watermark.max(lsn),
            Some(Transaction { sealed: None, .. }) => {}
            // An idle mark behind an idle mark replaces it, so an outage does not grow the queue.
            Some(Transaction { sealed: Some(end), commit_time_us: None, .. }) => *end = lsn.max(*end),
            Some(_) => {
                self.push(Transaction { sealed: Some(lsn), outstanding: 0, commit_time_us: None });
            }
        }
    }

    /// What may be acknowledged: everything before this LSN is durable in every sink.
    pub fn watermark(&self) -> Lsn {
        self.watermark
    }

    /// Transactions that are not durable yet, the open one included.
    pub fn pending(&self) -> usize {
        self.pending
    }

    /// Whether nothing is pending.
    pub fn is_drained(&self) -> bool {
        self.queue.is_empty()
    }

    /// Commit time of the oldest transaction that is not durable yet.
    pub fn oldest_commit_time_us(&self) -> Option<i64> {
        self.queue.iter().find_map(|transaction| transaction.commit_time_us)
    }

    fn get(&mut self, id: TxnId) -> Option<&mut Transaction> {
        let index = id.0.checked_sub(self.front);
        debug_assert!(index.is_some(), "{id:?} was popped before its last fragment was durable");
        self.queue.get_mut(usize::try_from(index?).ok()?)
    }

    fn pop(&mut self) {
        while let Some(Transaction { sealed: Some(end_lsn), outstanding: 0, commit_time_us }) =
            self.queue.front().copied()
        {
            self.queue.pop_front();
            self.pending -= usize::from(commit_time_us.is_some());
            self.front += 1;
            // Commit ends grow; an idle mark's LSN may lie below one that came with a later status.
            self.watermark = self.watermark.max(end_lsn);
        }
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

    /// The naive model: remembers everything for ever and looks at all of it each time.
    #[derive(Default)]
    struct Model {
        start: u64,
        events: Vec<ModelEvent>,
    }

    enum ModelEvent {
        Transaction { end: Option<u64>, outstanding: u32 },
        Idle(u64),
    }

    impl Model {
        fn watermark(&self) -> u64 {
            let mut watermark = self.start;
            for event in &self.events {
                match event {
                    ModelEvent::Transaction { end: Some(end), outstanding: 0 } => {
                        watermark = watermark.max(*end)
                    }
                    ModelEvent::Transaction { .. } => return watermark,
                    ModelEvent::Idle(lsn) => watermark = watermark.max(*lsn),
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
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => Just(Step::Fragment),
            2 => Just(Step::Commit),
            5 => any::<prop::sample::Index>().prop_map(Step::Durable),
            1 => Just(Step::Idle),
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
                    Step::Idle => {
                        real.idle(Lsn(lsn));
                        if open.is_none() {
                            model.events.push(ModelEvent::Idle(lsn));
                        }
                    }
                }
                prop_assert_eq!(real.watermark(), Lsn(model.watermark()));
                prop_assert!(real.watermark() >= before);
                before = real.watermark();
            }
        }
    }
}
