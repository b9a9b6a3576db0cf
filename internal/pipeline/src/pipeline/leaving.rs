//! Tables that are not published any more.
//!
//! ```text
//!   waiting ──forget──▶ leaving ── what waits, and what comes still, for logs ──▶ durable: the watermark is let go
//!                  └──▶ gone, where no log waits
//! ```

use super::tables::hand_on;
use super::{Pipeline, PipelineError, STEP_BYTES};
use crate::dispatcher::To;
use crate::waiting::{Waited, Waiting};
use replicator_types::{TransactionMeta, TxnId};
use std::ops::ControlFlow;
use std::time::Instant;

impl Pipeline {
    /// The table is not published any more. What waits of it is of no use but to logs, and holds nothing back when they have
    /// it; if it comes again, it is a new one.
    pub fn forget(&mut self, oid: u32) {
        self.forget_left_out(oid);
        self.tables.standings.remove(&oid);
        self.tables.to_hold.retain(|(of, _)| *of != oid);
        let waiting = self.tables.waiting.remove(&oid);
        // What was handed on before, and is perhaps not durable.
        let before: Vec<TxnId> =
            self.tables.groups.extract_if(|_, of| of.is_about_what_waits_of(oid)).map(|(id, _)| id).collect();
        let Some(mut waiting) = waiting else { return };
        self.tables.releasing.retain(|releasing| *releasing != oid);
        if waiting.has(|target| self.dispatcher.goes_to(target, To::WaitingLogs)) {
            for group in before {
                if let Some(hold) = waiting.hold {
                    self.accounts.hold(hold);
                    self.tables.left.insert(group, (oid, Some(hold)));
                }
            }
            waiting.leaves = true;
            self.tables.leaving.push_back((oid, waiting));
            return;
        }
        if let Some(group) = waiting.group {
            self.dispatcher.cut_catch_up();
            self.accounts.seal_group(group);
        }
        if let Some(hold) = waiting.hold {
            self.accounts.let_go(hold);
        }
    }

    /// Hands on some of what waited of a table that is not published any more.
    pub(super) fn leave_some(
        &mut self,
        oid: u32,
        mut waiting: Waiting,
        now: Instant,
    ) -> Result<(), PipelineError> {
        self.hands_on(oid);
        let group = *waiting.group.get_or_insert_with(|| self.accounts.open_group());
        if let Some(told) = waiting.told.take() {
            // Whether sinks have followed that nobody knows any more.
            let (target, meta) = (self.dispatcher.target(&told), self.meta_of_group(group));
            let meta = TransactionMeta { commit_lsn: told.since, ..meta };
            self.dispatcher.schema(&mut self.accounts, &meta, &target, To::WaitingLogs, 0, now);
        }
        let (dispatcher, accounts) = (&mut self.dispatcher, &mut self.accounts);
        let more = waiting.hand_out(group, STEP_BYTES, |waited: Waited<'_>| {
            if waited.is_first_behind_copy {
                dispatcher.cut_catch_up();
            }
            hand_on(dispatcher, accounts, &waited, now)?;
            Ok::<_, PipelineError>(ControlFlow::Continue(()))
        })?;
        if more {
            self.tables.leaving.push_front((oid, waiting));
        } else {
            self.dispatcher.cut_catch_up();
            self.tables.left.insert(group, (oid, waiting.hold));
            self.accounts.seal_group(group);
        }
        self.dispatcher.settle_charges();
        Ok(())
    }
}
