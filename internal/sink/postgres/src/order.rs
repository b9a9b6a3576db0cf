//! The order of a lane's writes.
//!
//! ```text
//!   prepared   1 ── 2 ── 3          each write has a turn, by the order in which they were prepared
//!   sent       2 … 1 … 3            tasks come as they like, again after errors
//!   applied    1 ─▶ 2 ─▶ 3          a turn comes when the one before has passed
//! ```
//! The checkpoint row says that everything up to a position is there. So a batch that fails, and waits before it is tried
//! again, must not be overtaken.
//!
//! # Invariants
//! - A turn comes only when all before it have passed, that is, when their batches are durable.
//! - A turn that has passed has nothing left to do: a later batch may be in, and what is behind it is not undone.
//! - A write given up before it was durable lets no prepared one behind it go. When these are given up as well, the lane
//!   begins anew with what is prepared next.

use replicator_sink::SinkError;
use std::sync::Arc;
use tokio::sync::watch;

/// Gives turns.
#[derive(Debug)]
pub(crate) struct Order(Arc<watch::Sender<State>>);

#[derive(Clone, Copy, Default, Debug)]
struct State {
    /// The number of the next turn given.
    next: u64,
    /// The number of the turn that has come.
    come: u64,
    /// Turns given that have not passed and were not given up.
    open: u64,
    /// Whether one was given up that others were behind.
    is_broken: bool,
}

/// A write's place in the order.
#[derive(Debug)]
pub(crate) struct Turn {
    order: Arc<watch::Sender<State>>,
    number: u64,
    has_passed: bool,
}

/// What a turn has come to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Come {
    /// It is there.
    Now,
    /// It has passed already.
    Passed,
}

impl Default for Order {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(State::default())))
    }
}

impl Order {
    /// The turn behind all that were given.
    pub(crate) fn next(&self) -> Turn {
        let mut number = 0;
        self.0.send_modify(|state| {
            number = state.next;
            state.next += 1;
            state.open += 1;
        });
        Turn { order: Arc::clone(&self.0), number, has_passed: false }
    }
}

impl Turn {
    /// Waits until all before it have passed.
    ///
    /// # Errors
    /// Retry when one of these was given up.
    pub(crate) async fn come(&self) -> Result<Come, SinkError> {
        if self.has_passed {
            return Ok(Come::Passed);
        }
        let mut states = self.order.subscribe();
        let state = states.wait_for(|state| state.is_broken || state.come == self.number).await;
        match state {
            Ok(state) if state.come == self.number => Ok(Come::Now),
            _ => Err(SinkError::retry("an earlier batch of the lane was given up")),
        }
    }

    /// Its batch is durable.
    pub(crate) fn pass(&mut self) {
        if !std::mem::replace(&mut self.has_passed, true) {
            self.order.send_modify(|state| {
                state.come = self.number + 1;
                state.open = state.open.saturating_sub(1);
            });
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if self.has_passed {
            return;
        }
        self.order.send_modify(|state| {
            state.open = state.open.saturating_sub(1);
            if state.open == 0 {
                (state.come, state.is_broken) = (state.next, false);
            } else if state.next == self.number + 1 {
                state.next = self.number;
            } else {
                // Those before it may still pass; then nobody's turn comes.
                state.is_broken = true;
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    /// What the turn's wait comes to at once, if to anything.
    fn poll(turn: &Turn) -> Option<Result<Come, SinkError>> {
        match pin!(turn.come()).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(come) => Some(come),
            Poll::Pending => None,
        }
    }

    #[test]
    fn a_turn_comes_when_those_before_it_have_passed() {
        let order = Order::default();
        let (mut first, mut second, third) = (order.next(), order.next(), order.next());
        assert!(poll(&second).is_none() && poll(&third).is_none());
        assert!(matches!(poll(&first), Some(Ok(Come::Now))));
        first.pass();
        assert!(matches!(poll(&first), Some(Ok(Come::Passed))));
        assert!(matches!(poll(&second), Some(Ok(Come::Now))));
        assert!(poll(&third).is_none());
        second.pass();
        drop((first, second));
        assert!(matches!(poll(&third), Some(Ok(Come::Now))));
    }

    #[test]
    fn a_write_given_up_is_not_overtaken_by_one_prepared_behind_it() {
        let order = Order::default();
        let (first, second) = (order.next(), order.next());
        drop(first);
        assert!(matches!(poll(&second), Some(Err(_))));
        drop(second);
        let anew = order.next();
        assert!(matches!(poll(&anew), Some(Ok(Come::Now))));
        let (second, third) = (order.next(), order.next());
        drop(second);
        assert!(matches!(poll(&anew), Some(Ok(Come::Now))));
        assert!(matches!(poll(&third), Some(Err(_))));
    }

    #[test]
    fn the_last_write_given_up_may_be_prepared_again() {
        let order = Order::default();
        let (mut first, second) = (order.next(), order.next());
        drop(second);
        let again = order.next();
        assert!(poll(&again).is_none());
        first.pass();
        assert!(matches!(poll(&again), Some(Ok(Come::Now))));
    }
}
