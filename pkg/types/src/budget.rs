use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The process-wide ceiling for memory that holds changes, in bytes.
///
/// Who brings changes in (the reader) waits while [`Budget::is_full`]; who moves them on charges what
/// it holds and never waits, so that data can always flow out. The ceiling can therefore be passed by
/// what is already inside growing on its way (a received message becoming an entry in each sink's
/// batch), and by one message.
#[derive(Clone, Debug)]
pub struct Budget(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    bytes_max: usize,
    held: AtomicUsize,
    peak: AtomicUsize,
}

impl Budget {
    /// A budget of `bytes_max` bytes, none of them held.
    pub fn new(bytes_max: usize) -> Self {
        Self(Arc::new(Inner { bytes_max, held: AtomicUsize::new(0), peak: AtomicUsize::new(0) }))
    }

    /// The ceiling.
    pub fn bytes_max(&self) -> usize {
        self.0.bytes_max
    }

    /// Bytes charged now.
    pub fn held(&self) -> usize {
        self.0.held.load(Ordering::Acquire)
    }

    /// The most bytes that were ever charged at once.
    pub fn peak(&self) -> usize {
        self.0.peak.load(Ordering::Relaxed)
    }

    /// Whether no more may be brought in.
    pub fn is_full(&self) -> bool {
        self.held() >= self.0.bytes_max
    }

    /// A charge of `bytes`, held until it is dropped.
    pub fn charge(&self, bytes: usize) -> Charge {
        let mut charge = Charge { budget: self.clone(), bytes: 0 };
        charge.set(bytes);
        charge
    }
}

/// Bytes held against a [`Budget`], given back on drop.
#[derive(Debug)]
pub struct Charge {
    budget: Budget,
    bytes: usize,
}

impl Charge {
    /// Bytes of this charge.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Another, of `bytes`, held against the same budget.
    pub fn beside(&self, bytes: usize) -> Self {
        self.budget.charge(bytes)
    }

    /// Makes this a charge of `bytes`, up or down.
    pub fn set(&mut self, bytes: usize) {
        let inner = &self.budget.0;
        if bytes >= self.bytes {
            let more = bytes - self.bytes;
            let held = inner.held.fetch_add(more, Ordering::AcqRel) + more;
            inner.peak.fetch_max(held, Ordering::Relaxed);
        } else {
            inner.held.fetch_sub(self.bytes - bytes, Ordering::AcqRel);
        }
        self.bytes = bytes;
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.set(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_dropped_is_given_back() {
        let budget = Budget::new(100);
        let mut first = budget.charge(60);
        assert!(!budget.is_full());
        let second = budget.charge(50);
        assert!(budget.is_full());
        drop(second);
        first.set(10);
        assert_eq!((budget.held(), budget.peak()), (10, 110));
        drop(first);
        assert_eq!(budget.held(), 0);
    }
}
