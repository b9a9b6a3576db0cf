//! Tells sinks which columns the source computes and does not send: beside everything else, so that a sink that is slow or
//! away holds up nothing.
//!
//! ```text
//!   look at the catalog ──▶ Generated::tell ──▶ [ task: sink by sink, table by table ] ──▶ Sink::follow_generated
//! ```
//!
//! A sink knows what it was told, so being told again costs it nothing, and what failed comes again with the next look. A
//! table whose copy begins is told of on that way, before its rows.

use crate::shared::Shared;
use replicator_sink::{ErrorKind, Sink, SinkError};
use replicator_types::GeneratedColumn;
use slog::{Logger, warn};
use std::collections::HashMap;
use std::sync::Arc;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// What sinks are to be told of a table.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    pub(crate) oid: u32,
    pub(crate) sinks: Vec<usize>,
    pub(crate) columns: Vec<GeneratedColumn>,
    /// Attribute numbers of columns that are gone.
    pub(crate) dropped: Vec<i16>,
}

/// See the module. Its task ends with it.
pub(crate) struct Generated {
    tables: watch::Sender<Vec<Table>>,
    _task: JoinSet<()>,
}

impl Generated {
    pub(crate) fn start(shared: Arc<Shared>) -> Self {
        let (tables, told) = watch::channel(Vec::new());
        let mut task = JoinSet::new();
        task.spawn(follow(shared, told));
        Self { tables, _task: task }
    }

    /// As the catalog has them now; what was told before and not done yet is out of date.
    pub(crate) fn tell(&self, tables: Vec<Table>) {
        self.tables.send_replace(tables);
    }
}

/// So many failures of a sink, and the other tables wait for the next look.
const FAILURES_MAX: u32 = 3;

/// So many looks are let pass at most.
const SKIPPED_MAX: u32 = 32;

/// What a table costs that fails again and again: each attempt may lock it, or write it anew.
#[derive(Debug, Default)]
struct Pause {
    /// Looks to let pass, each time; twice as many after every failure.
    length: u32,
    left: u32,
}

impl Pause {
    fn skip(&mut self) -> bool {
        let is_over = self.left == 0;
        self.left = self.left.saturating_sub(1);
        !is_over
    }

    fn failed(&mut self) {
        self.length = (self.length * 2).clamp(1, SKIPPED_MAX);
        self.left = self.length;
    }
}

async fn follow(shared: Arc<Shared>, mut told: watch::Receiver<Vec<Table>>) {
    let mut pauses: HashMap<(usize, u32), Pause> = HashMap::new();
    while told.changed().await.is_ok() {
        let tables = told.borrow_and_update().clone();
        for (number, of) in shared.sinks.iter().enumerate() {
            let mut failures = 0;
            for table in tables.iter().filter(|table| table.sinks.contains(&number)) {
                if pauses.get_mut(&(number, table.oid)).is_some_and(Pause::skip) {
                    continue;
                }
                match tell(of.sink.as_ref(), table, &shared.logger).await {
                    Ok(()) => drop(pauses.remove(&(number, table.oid))),
                    Err(error) => {
                        pauses.entry((number, table.oid)).or_default().failed();
                        failures += u32::from(error.kind() == ErrorKind::Retry);
                    }
                }
                if failures == FAILURES_MAX {
                    // It is not the tables.
                    break;
                }
            }
        }
    }
}

/// Tells one sink of one table. An error is in the log by then.
pub(crate) async fn tell(sink: &dyn Sink, table: &Table, logger: &Logger) -> Result<(), SinkError> {
    let told = sink.follow_generated(table.oid, &table.columns, &table.dropped).await;
    if let Err(error) = &told {
        warn!(logger, "generated columns can't be followed for now"; "sink" => sink.name(),
            "table_oid" => table.oid, "error" => %error);
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_that_fails_again_and_again_is_looked_at_ever_less_often() {
        let mut pause = Pause::default();
        assert!(!pause.skip());
        let mut skipped = || {
            pause.failed();
            (0..1000).take_while(|_| pause.skip()).count()
        };
        assert_eq!([skipped(), skipped(), skipped()], [1, 2, 4]);
        assert_eq!((0..9).map(|_| skipped()).max(), Some(32));
    }
}
