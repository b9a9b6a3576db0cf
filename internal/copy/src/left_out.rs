//! Sinks that are left out of a table: they refused a change of it, or a row while it was copied, and get nothing of it
//! until somebody asks for the table. Their notes say so.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// By table and by sink, what the sink said.
pub(crate) type Reasons = BTreeMap<u32, BTreeMap<usize, String>>;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct LeftOut(Mutex<Reasons>);

impl LeftOut {
    pub(crate) fn new(reasons: Reasons) -> Self {
        Self(Mutex::new(reasons))
    }

    pub(crate) fn is_left_out(&self, oid: u32, sink: usize) -> bool {
        self.lock().get(&oid).is_some_and(|sinks| sinks.contains_key(&sink))
    }

    /// The sinks that are left out of the table.
    pub(crate) fn of(&self, oid: u32) -> Vec<usize> {
        self.lock().get(&oid).map_or_else(Vec::new, |sinks| sinks.keys().copied().collect())
    }

    pub(crate) fn add(&self, oid: u32, sink: usize, reason: String) {
        self.lock().entry(oid).or_default().insert(sink, reason);
    }

    /// Those of the table's sinks are not left out any more that are not `kept`.
    pub(crate) fn remove(&self, oid: u32, kept: impl Fn(usize) -> bool) {
        let mut reasons = self.lock();
        if let Some(sinks) = reasons.get_mut(&oid) {
            sinks.retain(|sink, _| kept(*sink));
            if sinks.is_empty() {
                reasons.remove(&oid);
            }
        }
    }

    /// How many of such tables there are of which a sink is left out.
    pub(crate) fn count(&self, is_such: impl Fn(u32) -> bool) -> usize {
        self.lock().keys().filter(|oid| is_such(**oid)).count()
    }

    pub(crate) fn reasons(&self) -> Reasons {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Reasons> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
