//! Who waits for which batches: transactions for the checkpoint, tables for their catching up.
//!
//! ```text
//!   fragment(id) ──▶ a transaction of the stream ──▶ Checkpoint ──▶ watermark
//!        │     └───▶ a group ─────────────────────▶ finished: all that was handed out under it is durable
//!   durable(id)
//! ```
//!
//! A group is a run of batches that belongs to no transaction of the stream, such as the changes that a copied
//! table has to catch up with. Its ids have their highest bit set, so that lanes report both kinds alike.

use crate::checkpoint::Checkpoint;
use replicator_types::{Lsn, TxnId};
use std::collections::HashMap;

/// Ids from here on are groups.
const GROUP: u64 = 1 << 63;

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct Accounts {
    checkpoint: Checkpoint,
    groups: HashMap<TxnId, Group>,
    next_group: u64,
    finished: Vec<TxnId>,
    /// Batches handed out and not yet durable, once for each transaction in them.
    outstanding: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Group {
    outstanding: u64,
    sealed: bool,
}

impl Accounts {
    pub(crate) fn new(watermark: Lsn) -> Self {
        Self {
            checkpoint: Checkpoint::new(watermark),
            groups: HashMap::new(),
            next_group: GROUP,
            finished: Vec::new(),
            outstanding: 0,
        }
    }

    pub(crate) fn begin(&mut self, commit_time_us: i64) -> TxnId {
        self.checkpoint.begin(commit_time_us)
    }

    /// A transaction was prepared: the watermark stays before the PREPARE until it is known what becomes of it.
    pub(crate) fn prepare(&mut self, prepare_time_us: i64, end_lsn: Lsn) -> TxnId {
        self.checkpoint.prepare(prepare_time_us, end_lsn)
    }

    /// What was prepared commits as `commit`: the watermark passes both at once, since without the PREPARE the source
    /// does not send the changes again.
    pub(crate) fn commit_prepared(&mut self, prepare: TxnId, commit: TxnId) {
        self.checkpoint.commit_prepared(prepare, commit);
    }

    /// What was prepared came to nothing.
    pub(crate) fn rollback_prepared(&mut self, prepare: TxnId) {
        self.checkpoint.rollback_prepared(prepare);
    }

    pub(crate) fn seal(&mut self, id: TxnId, end_lsn: Lsn) {
        self.checkpoint.seal(id, end_lsn);
    }

    /// A further batch has changes under that id.
    pub(crate) fn fragment(&mut self, id: TxnId) {
        self.outstanding += 1;
        match self.groups.get_mut(&id) {
            Some(group) => group.outstanding += 1,
            None => self.hold(id),
        }
    }

    /// A batch with changes under that id is durable.
    pub(crate) fn durable(&mut self, id: TxnId) {
        self.outstanding = self.outstanding.saturating_sub(1);
        match self.groups.get_mut(&id) {
            Some(group) => {
                group.outstanding = group.outstanding.saturating_sub(1);
                self.finish(id);
            }
            None => self.let_go(id),
        }
    }

    /// Holds the watermark before the end of that transaction, for something other than a batch.
    pub(crate) fn hold(&mut self, id: TxnId) {
        self.checkpoint.fragment(id);
    }

    /// The end of a [`Accounts::hold`].
    pub(crate) fn let_go(&mut self, id: TxnId) {
        self.checkpoint.durable(id);
    }

    pub(crate) fn open_group(&mut self) -> TxnId {
        let id = TxnId(self.next_group);
        self.next_group += 1;
        self.groups.insert(id, Group::default());
        id
    }

    /// Nothing more is handed out under that group.
    pub(crate) fn seal_group(&mut self, id: TxnId) {
        if let Some(group) = self.groups.get_mut(&id) {
            group.sealed = true;
            self.finish(id);
        }
    }

    fn finish(&mut self, id: TxnId) {
        if self.groups.get(&id).is_some_and(|group| group.sealed && group.outstanding == 0) {
            self.groups.remove(&id);
            self.finished.push(id);
        }
    }

    /// The groups that have become durable since the last call.
    pub(crate) fn take_finished(&mut self) -> Vec<TxnId> {
        std::mem::take(&mut self.finished)
    }

    /// Whether every batch handed out is durable.
    pub(crate) fn is_drained(&self) -> bool {
        self.outstanding == 0
    }

    pub(crate) fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    pub(crate) fn idle(&mut self, lsn: Lsn) {
        self.checkpoint.idle(lsn);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prepared_transaction_holds_the_watermark_until_its_commit_is_durable() {
        let mut accounts = Accounts::new(Lsn(10));
        let prepare = accounts.prepare(0, Lsn(20));
        let other = accounts.begin(0);
        accounts.fragment(other);
        accounts.seal(other, Lsn(30));
        assert_eq!(accounts.checkpoint().watermark(), Lsn(10));
        let commit = accounts.begin(0);
        accounts.commit_prepared(prepare, commit);
        accounts.fragment(commit);
        accounts.fragment(commit);
        accounts.seal(commit, Lsn(40));
        accounts.durable(commit);
        assert_eq!(accounts.checkpoint().watermark(), Lsn(10), "half of it is not durable");
        accounts.durable(commit);
        assert_eq!(
            accounts.checkpoint().watermark(),
            Lsn(10),
            "between PREPARE and COMMIT it would never come again"
        );
        accounts.durable(other);
        assert_eq!(accounts.checkpoint().watermark(), Lsn(40));
    }

    #[test]
    fn a_group_is_finished_when_it_is_sealed_and_all_of_it_is_durable() {
        let mut accounts = Accounts::new(Lsn(10));
        let group = accounts.open_group();
        accounts.fragment(group);
        accounts.durable(group);
        assert!(accounts.take_finished().is_empty());
        accounts.fragment(group);
        accounts.seal_group(group);
        assert!(accounts.take_finished().is_empty() && !accounts.is_drained());
        accounts.durable(group);
        assert_eq!(accounts.take_finished(), [group]);
        assert!(accounts.is_drained());
        let empty = accounts.open_group();
        accounts.seal_group(empty);
        assert_eq!(accounts.take_finished(), [empty]);
    }
}
