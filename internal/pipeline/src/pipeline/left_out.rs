//! Sinks that are left out of a table: they refused a change of it, and get nothing more of it until a copy brings the
//! table back; a log, until a run begins without it among them. Other sinks get it as before. The watermark stays before the
//! table's first change that one of them does not get, so that nothing is acknowledged that is not durable everywhere.

use super::Pipeline;
use crate::accounts::Accounts;
use replicator_types::{TransactionMeta, TxnId};
use std::collections::{HashMap, HashSet};

/// The watermark's part in a table of which a sink is left out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Hold {
    /// No change has come by yet.
    NotYet,
    /// The transaction of the first change that is not everywhere is held back from the checkpoint.
    Since(TxnId),
    /// The table is not published any more: nobody waits for what comes of it still.
    Never,
}

/// The tables of which sinks are left out.
#[derive(Debug, Default)]
pub(super) struct LeftOut {
    tables: HashMap<u32, Hold>,
    /// To be taken back when they wait for their copy.
    to_take_back: HashSet<u32>,
}

impl LeftOut {
    /// A change of such a table comes by.
    pub(super) fn passes(&mut self, accounts: &mut Accounts, oid: u32, transaction: &TransactionMeta) {
        if let Some(hold @ Hold::NotYet) = self.tables.get_mut(&oid) {
            *hold = Hold::Since(transaction.id);
            accounts.hold(transaction.id);
        }
    }
}

impl Pipeline {
    /// Sinks that get nothing of a table, by the table. To be called before anything is known of tables.
    #[must_use]
    pub fn with_left_out(mut self, tables: impl IntoIterator<Item = (u32, Vec<usize>)>) -> Self {
        for (oid, sinks) in tables {
            sinks.into_iter().for_each(|sink| self.dispatcher.leave_out(oid, sink));
            self.left_out.tables.insert(oid, Hold::NotYet);
        }
        self
    }

    /// A sink can't take the copy of a table that waits for it, and gets nothing more of the table.
    pub fn leave_out(&mut self, oid: u32, sink: usize) {
        self.dispatcher.leave_out(oid, sink);
        let first = self.tables.waiting.get(&oid).and_then(|waiting| waiting.hold);
        let hold = self.left_out.tables.entry(oid).or_insert(Hold::NotYet);
        if !matches!(hold, Hold::Since(_)) {
            *hold = first.map_or(Hold::NotYet, Hold::Since);
            first.into_iter().for_each(|first| self.accounts.hold(first));
        }
        self.direct(oid);
    }

    /// All of the table's sinks that hold its state take part in the copy that it waits for, or will wait for next. A log
    /// does not: a copy has not the changes that it has missed.
    pub fn take_back(&mut self, oid: u32) {
        if !self.left_out.tables.contains_key(&oid) {
            return;
        }
        self.left_out.to_take_back.insert(oid);
        if self.tables.waiting.contains_key(&oid) {
            self.take_back_waiting(oid);
        }
    }

    /// The table waits for a copy, and is taken back if that was asked for: what held the watermark for sinks that were left out does so for all.
    pub(super) fn take_back_waiting(&mut self, oid: u32) {
        if !self.left_out.to_take_back.remove(&oid) {
            return;
        }
        let log_stays = self.dispatcher.take_back(oid);
        self.direct(oid);
        let left_out = self.left_out.tables.get(&oid).copied();
        if !log_stays {
            self.left_out.tables.remove(&oid);
        }
        let (Some(Hold::Since(first)), Some(waiting)) = (left_out, self.tables.waiting.get_mut(&oid)) else {
            return;
        };
        if log_stays {
            // For what waits, beside that for the log.
            self.accounts.hold(first);
        }
        match &mut waiting.hold {
            hold @ None => *hold = Some(first),
            // Both are of the stream, and it holds more to hold the older one.
            Some(hold) => {
                let later = std::mem::replace(hold, first.min(*hold)).max(first);
                self.accounts.let_go(later);
            }
        }
    }

    /// The table is gone. What comes of it still does not go to the sinks that refused it.
    pub(super) fn forget_left_out(&mut self, oid: u32) {
        self.left_out.to_take_back.remove(&oid);
        if let Some(hold) = self.left_out.tables.get_mut(&oid)
            && let Hold::Since(first) = std::mem::replace(hold, Hold::Never)
        {
            self.accounts.let_go(first);
        }
    }

    /// Which sinks get the table has changed.
    fn direct(&mut self, oid: u32) {
        let dispatcher = &mut self.dispatcher;
        if let Some(target) = self.targets.get_mut(&oid) {
            *target = dispatcher.target(&target.relation.clone());
        }
        if let Some(waiting) = self.tables.waiting.get_mut(&oid) {
            waiting.direct(|relation| dispatcher.target(relation));
        }
    }
}
