//! Collects a lane's changes until there are enough of them, or they have waited long enough.

use replicator_types::{Batch, BatchBuilder, Budget, NewChange, Phase, Relation, TransactionMeta};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// When a batch is full: whichever comes first.
#[derive(Clone, Copy, Debug)]
pub struct BatchLimits {
    /// Changes.
    pub rows_max: usize,
    /// Bytes of row data as received.
    pub bytes_max: usize,
    /// Age of the oldest change.
    pub interval: Duration,
}

/// A batch refers to its table versions by a 16-bit number.
const RELATIONS_MAX: usize = 60_000;

#[derive(Debug)]
pub(crate) struct Batcher {
    limits: BatchLimits,
    builder: BatchBuilder,
    /// When the open batch is due; none while it is empty.
    due: Option<Instant>,
}

impl Batcher {
    pub(crate) fn new(limits: BatchLimits, budget: Budget, phase: Phase) -> Self {
        Self { limits, builder: BatchBuilder::of_phase(budget, phase), due: None }
    }

    /// Adds a change; says whether it begins a fragment, and whether the batch is full now and has to be cut.
    pub(crate) fn push(
        &mut self,
        transaction: &TransactionMeta,
        relation: &Arc<Relation>,
        change: NewChange<'_>,
        now: Instant,
    ) -> (bool, bool) {
        let new_fragment = self.builder.push(transaction, relation, change);
        if self.due.is_none() {
            self.due = Some(now + self.limits.interval);
        }
        let full = self.builder.len() >= self.limits.rows_max
            || self.builder.data_bytes() >= self.limits.bytes_max
            || self.builder.relation_count() >= RELATIONS_MAX;
        (new_fragment, full)
    }

    /// When the open batch has to go at the latest.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.due
    }

    pub(crate) fn cut(&mut self, fenced: bool) -> Option<Batch> {
        self.due = None;
        self.builder.cut(fenced)
    }

    pub(crate) fn settle_charge(&mut self) {
        self.builder.settle_charge();
    }
}
