//! The checkpoint, model-checked: every order in which a few transactions can begin, go out in fragments, be prepared,
//! commit, be rolled back and become durable, over the code that the pipeline runs.
//!
//! ```text
//!   what has been (history) ─┬─ action ─▶ Checkpoint (the real one)     compared in every state that can come about
//!                            └──────────▶ History (remembers everything)
//! ```

#![allow(clippy::unwrap_used, reason = "a test that cannot go on may panic")]

use replicator_pipeline::Checkpoint;
use replicator_types::{Lsn, TxnId};
use stateright::{Checker, Model, Property};

/// How much there is of everything; the states are all orders of that.
struct Bounds {
    transactions: usize,
    prepared: usize,
    fragments: u8,
    idles: usize,
    /// Checks the checker: this bug has to be found.
    sabotage: Option<Sabotage>,
}

#[derive(Clone, Copy, PartialEq)]
enum Sabotage {
    CommitAlone,
    SealTooEarly,
    PassPrepared,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct State {
    real: Checkpoint,
    history: Vec<Past>,
    /// The highest that was ever said.
    said: u64,
    went_back: bool,
}

/// What has been, in order. An LSN is the number of the event, times ten.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Past {
    Transaction { id: TxnId, sealed: bool, fragments: u8, outstanding: u8 },
    Prepared { id: TxnId, fate: Fate },
    Idle,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Fate {
    Undecided,
    /// Commits as the event of this index.
    Commits(usize),
    RolledBack,
}

#[derive(Clone, Debug, PartialEq)]
enum Action {
    Begin,
    /// Begins a transaction as which the prepared one of this index commits.
    CommitPrepared(usize),
    Fragment,
    Seal,
    Durable(usize),
    Prepare,
    RollbackPrepared(usize),
    Idle,
}

fn end(index: usize) -> u64 {
    (index as u64 + 1) * 10
}

impl State {
    fn open(&self) -> Option<usize> {
        let last = self.history.iter().rposition(|past| !matches!(past, Past::Idle))?;
        matches!(self.history[last], Past::Transaction { sealed: false, .. }).then_some(last)
    }

    fn count(&self, of: impl Fn(&Past) -> bool) -> usize {
        self.history.iter().filter(|past| of(past)).count()
    }

    /// How far everything is durable, by looking at all of it; never between a PREPARE and the end of its commit.
    fn truth(&self) -> u64 {
        let (mut truth, mut behind, mut until) = (0, 0, 0);
        for (index, past) in self.history.iter().enumerate() {
            match past {
                Past::Transaction { sealed: true, outstanding: 0, .. } => {}
                Past::Transaction { .. } | Past::Prepared { fate: Fate::Undecided, .. } => return truth,
                Past::Prepared { fate: Fate::Commits(commit), .. } => until = until.max(*commit),
                Past::Prepared { fate: Fate::RolledBack, .. } | Past::Idle => {}
            }
            behind = end(index);
            if index >= until {
                truth = behind;
            }
        }
        debug_assert!(truth <= behind);
        truth
    }
}

impl Model for Bounds {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State { real: Checkpoint::new(Lsn(0)), history: Vec::new(), said: 0, went_back: false }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        let open = state.open();
        let transactions = state.count(|past| matches!(past, Past::Transaction { .. }));
        if open.is_none() {
            if transactions < self.transactions {
                actions.push(Action::Begin);
            }
            if state.count(|past| matches!(past, Past::Prepared { .. })) < self.prepared {
                actions.push(Action::Prepare);
            }
            if state.count(|past| matches!(past, Past::Idle)) < self.idles {
                actions.push(Action::Idle);
            }
        }
        for (index, past) in state.history.iter().enumerate() {
            match past {
                Past::Transaction { outstanding, .. } if *outstanding > 0 => {
                    actions.push(Action::Durable(index));
                }
                Past::Prepared { fate: Fate::Undecided, .. } if open.is_none() => {
                    actions.push(Action::RollbackPrepared(index));
                    if transactions < self.transactions {
                        actions.push(Action::CommitPrepared(index));
                    }
                }
                _ => {}
            }
        }
        if let Some(Past::Transaction { fragments, .. }) = open.map(|open| &state.history[open]) {
            actions.push(Action::Seal);
            if *fragments < self.fragments {
                actions.push(Action::Fragment);
            }
        }
    }

    fn next_state(&self, before: &State, action: Action) -> Option<State> {
        let mut state = before.clone();
        let here = state.history.len();
        match action {
            Action::Begin | Action::CommitPrepared(_) => {
                let id = state.real.begin(0);
                state.history.push(Past::Transaction { id, sealed: false, fragments: 0, outstanding: 0 });
                if let Action::CommitPrepared(index) = action
                    && let Past::Prepared { id: prepared, fate } = &mut state.history[index]
                {
                    *fate = Fate::Commits(here);
                    if self.sabotage == Some(Sabotage::CommitAlone) {
                        state.real.rollback_prepared(*prepared);
                    } else {
                        state.real.commit_prepared(*prepared, id);
                    }
                }
            }
            Action::Fragment => {
                let open = state.open()?;
                if let Past::Transaction { id, fragments, outstanding, .. } = &mut state.history[open] {
                    (*fragments, *outstanding) = (*fragments + 1, *outstanding + 1);
                    state.real.fragment(*id);
                }
                if self.sabotage == Some(Sabotage::SealTooEarly)
                    && let Past::Transaction { id, .. } = state.history[open]
                {
                    state.real.seal(id, Lsn(end(open)));
                }
            }
            Action::Seal => {
                let open = state.open()?;
                if let Past::Transaction { id, sealed, .. } = &mut state.history[open] {
                    *sealed = true;
                    state.real.seal(*id, Lsn(end(open)));
                }
            }
            Action::Durable(index) => {
                if let Past::Transaction { id, outstanding, .. } = &mut state.history[index] {
                    *outstanding -= 1;
                    state.real.durable(*id);
                }
            }
            Action::Prepare => {
                let id = if self.sabotage == Some(Sabotage::PassPrepared) {
                    let id = state.real.begin(0);
                    state.real.seal(id, Lsn(end(here)));
                    id
                } else {
                    state.real.prepare(0, Lsn(end(here)))
                };
                state.history.push(Past::Prepared { id, fate: Fate::Undecided });
            }
            Action::RollbackPrepared(index) => {
                if let Past::Prepared { id, fate } = &mut state.history[index] {
                    *fate = Fate::RolledBack;
                    state.real.rollback_prepared(*id);
                }
            }
            Action::Idle => {
                state.real.idle(Lsn(end(here)));
                state.history.push(Past::Idle);
            }
        }
        let says = state.real.watermark().0;
        state.went_back = says < state.said;
        state.said = says.max(state.said);
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("the watermark is where everything before it is durable", |_, state: &State| {
                state.real.watermark().0 == state.truth()
            }),
            Property::always("the watermark never goes back", |_, state: &State| !state.went_back),
            Property::always("nothing is pending when all is durable", |_, state: &State| {
                let all = end(state.history.len().saturating_sub(1));
                state.history.is_empty() || state.truth() < all || state.real.is_drained()
            }),
            Property::sometimes("a prepared transaction holds what comes behind it", |_, state: &State| {
                let held = |past: &Past| matches!(past, Past::Prepared { fate: Fate::Undecided, .. });
                state.history.first().is_some_and(held)
                    && state.history.iter().any(|past| matches!(past, Past::Transaction { sealed: true, .. }))
            }),
            Property::sometimes("two prepared transactions commit across each other", |_, state: &State| {
                matches!(
                    state.history[..],
                    [
                        Past::Prepared { fate: Fate::Commits(_), .. },
                        Past::Prepared { fate: Fate::Commits(_), .. },
                        ..
                    ]
                )
            }),
        ]
    }
}

fn bounds(transactions: usize, prepared: usize, fragments: u8, idles: usize) -> Bounds {
    Bounds { transactions, prepared, fragments, idles, sabotage: None }
}

#[test]
fn in_every_order_of_a_few_transactions_the_watermark_is_right() {
    for bounds in [bounds(3, 2, 2, 1), bounds(4, 0, 2, 1), bounds(2, 2, 1, 2)] {
        let checker = bounds.checker().threads(2).spawn_bfs().join();
        checker.assert_no_discovery("the watermark is where everything before it is durable");
        checker.assert_no_discovery("the watermark never goes back");
        checker.assert_no_discovery("nothing is pending when all is durable");
        eprintln!("{} states, {} of them different", checker.state_count(), checker.unique_state_count());
    }
}

#[test]
fn orders_that_matter_are_among_them() {
    let checker = bounds(2, 2, 1, 0).checker().spawn_bfs().join();
    checker.assert_any_discovery("a prepared transaction holds what comes behind it");
    checker.assert_any_discovery("two prepared transactions commit across each other");
}

#[test]
fn a_checkpoint_that_is_told_wrongly_is_found() {
    for sabotage in [Sabotage::CommitAlone, Sabotage::SealTooEarly, Sabotage::PassPrepared] {
        let bounds = Bounds { sabotage: Some(sabotage), ..bounds(2, 1, 2, 0) };
        let checker = bounds.checker().spawn_bfs().join();
        checker.assert_any_discovery("the watermark is where everything before it is durable");
    }
}
