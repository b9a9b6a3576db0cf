//! The messages of a transaction: its beginning and end, rows, truncates, logical messages.

use super::tables::Notice;
use super::{Open, Pipeline, PipelineError};
use crate::dispatcher::{RowChange, To};
use pgoutput::{Begin, Commit, LogicalMessage};
use replicator_types::{Lsn, Op, Position, TransactionMeta, Tuple, TxnId, Value};
use std::time::Instant;

/// Logical messages of the replicator itself begin with it: requests, positions, heartbeats.
const OWN_PREFIX: &str = "replicator";

impl Pipeline {
    pub(super) fn logical(&mut self, message: &LogicalMessage<'_>, now: Instant) {
        // The replicator's own are nothing for sinks.
        let is_own = message.prefix.starts_with(OWN_PREFIX);
        let content = Value::Binary(message.content);
        let transactional = if message.transactional { b"t" } else { b"f" };
        let values = [Value::Text(transactional), Value::Text(message.prefix.as_bytes()), content];
        self.scratch.clear();
        Tuple::write(values, &mut self.scratch);
        if message.transactional {
            let Some(open) = &mut self.transaction else { return };
            if !open.skip && open.ordinal >= open.dispatched {
                let tuple = Tuple::from_checked(&self.scratch);
                let relation = &self.message_relation;
                if !is_own {
                    let (accounts, meta) = (&mut self.accounts, &open.meta);
                    self.dispatcher.message(accounts, meta, relation, tuple, open.ordinal, now);
                }
                if message.prefix == self.request_prefix && !message.prefix.is_empty() {
                    let id = open.meta.id;
                    self.accounts.hold(id);
                    self.tables.requests += 1;
                    self.notices.push(Notice::Request {
                        id,
                        at: message.lsn,
                        content: message.content.to_vec(),
                    });
                }
            }
            open.ordinal += 1;
            return;
        }
        // It stands alone, where it was written; as a transaction of its own.
        if is_own || message.lsn <= self.messages_passed || self.is_within_transaction() {
            return;
        }
        self.messages_passed = message.lsn;
        let id = self.accounts.begin(self.last_commit_time_us);
        let commit_time_us = self.last_commit_time_us;
        let meta = TransactionMeta { id, commit_lsn: place_of_message(message.lsn), commit_time_us, xid: 0 };
        let tuple = Tuple::from_checked(&self.scratch);
        self.dispatcher.message(&mut self.accounts, &meta, &self.message_relation, tuple, 0, now);
        self.accounts.seal(id, message.lsn);
        self.passed = self.passed.max(message.lsn);
    }

    pub(super) fn begin(&mut self, begin: Begin, now: Instant) -> Result<(), PipelineError> {
        if self.transaction.is_some() {
            return Err(PipelineError::OutOfOrder { what: "a Begin", place: "inside a transaction" });
        }
        if self.relations.has_kept(begin.final_lsn) && self.cut_off.is_none() {
            self.tell_kept(begin.final_lsn, now)?;
        }
        let meta = |id| TransactionMeta {
            id,
            commit_lsn: begin.final_lsn,
            commit_time_us: begin.commit_time_us,
            xid: begin.xid,
        };
        let open = if begin.final_lsn <= self.sealed {
            Open { meta: meta(TxnId(u64::MAX)), ordinal: 0, dispatched: 0, skip: true, was_kept: false }
        } else if let Some(cut_off) = self.cut_off.take() {
            if cut_off.meta.commit_lsn != begin.final_lsn {
                return Err(PipelineError::LostTransaction {
                    expected: cut_off.meta.commit_lsn,
                    found: begin.final_lsn,
                });
            }
            Open { ordinal: 0, was_kept: false, ..cut_off }
        } else {
            let id = self.accounts.begin(begin.commit_time_us);
            Open { meta: meta(id), ordinal: 0, dispatched: 0, skip: false, was_kept: false }
        };
        self.last_commit_time_us = begin.commit_time_us;
        self.transaction = Some(open);
        Ok(())
    }

    pub(super) fn commit(&mut self, commit: Commit) -> Result<(), PipelineError> {
        let open = self
            .transaction
            .take()
            .ok_or(PipelineError::OutOfOrder { what: "a Commit", place: "outside a transaction" })?;
        if open.skip {
            return Ok(());
        }
        self.accounts.seal(open.meta.id, commit.end_lsn);
        self.sealed = open.meta.commit_lsn;
        self.passed = self.passed.max(commit.end_lsn);
        self.counts.transactions += 1;
        Ok(())
    }

    pub(super) fn row(
        &mut self,
        relation_oid: u32,
        change: RowChange<'_>,
        now: Instant,
    ) -> Result<(), PipelineError> {
        if self.relations.has_announced() && self.transaction.is_some_and(|open| !open.is_passed_over()) {
            self.met_announced(relation_oid, now)?;
        }
        if !self.tables.unknown.is_empty() {
            self.met_unknown(relation_oid);
        }
        let open = self
            .transaction
            .as_mut()
            .ok_or(PipelineError::OutOfOrder { what: "a row change", place: "outside a transaction" })?;
        if open.skip {
            return Ok(());
        }
        let target = self.targets.get(&relation_oid).ok_or(PipelineError::UnknownRelation(relation_oid))?;
        if open.ordinal < open.dispatched {
            // Passed over, but counted as it was the first time.
            open.ordinal += self.dispatcher.ordinals(target, &change)?;
            return Ok(());
        }
        if target.leaves_out {
            self.left_out.passes(&mut self.accounts, relation_oid, &open.meta);
        }
        // Mostly no table waits, and none was caught up with in an earlier run.
        let mut to = To::All;
        if self.tables.waits()
            && let Some(waiting) = self.tables.waiting_mut(relation_oid)
        {
            let is_kept;
            (to, is_kept) = waiting.takes(open.position(), self.dispatcher.goes_to(target, To::WaitingLogs));
            if is_kept {
                waiting.push_row(&open.meta, target, open.ordinal, &change)?;
                waiting.hold_back(&mut self.accounts, open.meta.id);
            }
        } else if !self.tables.standings.is_empty()
            && self.tables.standings.get(&relation_oid).is_some_and(|from| open.position() < *from)
        {
            to = To::Logs;
        }
        let taken =
            self.dispatcher.row(&mut self.accounts, &open.meta, target, to, change, open.ordinal, now)?;
        open.ordinal += taken;
        match change.op {
            Op::Insert => self.counts.inserts += 1,
            Op::Update => self.counts.updates += 1,
            _ => self.counts.deletes += 1,
        }
        Ok(())
    }

    pub(super) fn truncate(
        &mut self,
        oids: &[u32],
        flags: (bool, bool),
        now: Instant,
    ) -> Result<(), PipelineError> {
        if self.relations.has_announced() && self.transaction.is_some_and(|open| !open.is_passed_over()) {
            oids.iter().try_for_each(|oid| self.met_announced(*oid, now))?;
        }
        oids.iter().for_each(|oid| self.met_unknown(*oid));
        let open = self
            .transaction
            .as_mut()
            .ok_or(PipelineError::OutOfOrder { what: "a Truncate", place: "outside a transaction" })?;
        if open.skip {
            return Ok(());
        }
        let mut targets = Vec::with_capacity(oids.len());
        let mut kept = Vec::with_capacity(oids.len());
        for oid in oids {
            let target = self.targets.get(oid).ok_or(PipelineError::UnknownRelation(*oid))?.clone();
            let ordinal = open.ordinal + targets.len() as u64;
            let position = Position { ordinal, ..open.position() };
            let is_past = self.tables.standings.get(oid).is_some_and(|from| position < *from);
            let (to, is_kept) = match self.tables.waiting_mut(*oid) {
                Some(waiting) => waiting.takes(position, self.dispatcher.goes_to(&target, To::WaitingLogs)),
                None => (if is_past { To::Logs } else { To::All }, false),
            };
            kept.push(is_kept);
            targets.push((target, to));
        }
        if open.ordinal >= open.dispatched {
            for (index, ((target, _), is_kept)) in targets.iter().zip(kept).enumerate() {
                let ordinal = open.ordinal + index as u64;
                if target.leaves_out {
                    self.left_out.passes(&mut self.accounts, target.relation.oid, &open.meta);
                }
                if is_kept && let Some(waiting) = self.tables.waiting_mut(target.relation.oid) {
                    waiting.push_truncate(&open.meta, target, ordinal, flags)?;
                    waiting.hold_back(&mut self.accounts, open.meta.id);
                }
            }
            self.dispatcher.truncate(&mut self.accounts, &open.meta, &targets, flags, open.ordinal, now);
            self.counts.truncates += targets.len() as u64;
        }
        open.ordinal += targets.len() as u64;
        Ok(())
    }
}

/// The place of a logical message that stands alone, by the end of its record. A commit record may begin right there, and
/// rows of a copy stand one before; so it is two before, still inside the record.
fn place_of_message(end_lsn: Lsn) -> Lsn {
    Lsn(end_lsn.0.saturating_sub(2))
}
