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
use std::sync::Arc;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// What sinks are to be told of a table.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    pub(crate) oid: u32,
    pub(crate) sinks: Vec<usize>,
    pub(crate) columns: Vec<GeneratedColumn>,
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

async fn follow(shared: Arc<Shared>, mut told: watch::Receiver<Vec<Table>>) {
    while told.changed().await.is_ok() {
        let tables = told.borrow_and_update().clone();
        for (number, of) in shared.sinks.iter().enumerate() {
            for table in tables.iter().filter(|table| table.sinks.contains(&number)) {
                let Err(error) = tell(of.sink.as_ref(), table.oid, &table.columns, &shared.logger).await
                else {
                    continue;
                };
                if error.kind() == ErrorKind::Retry {
                    // It would say the same of the next.
                    break;
                }
            }
        }
    }
}

/// Tells one sink of one table. An error is in the log by then.
pub(crate) async fn tell(
    sink: &dyn Sink,
    oid: u32,
    columns: &[GeneratedColumn],
    logger: &Logger,
) -> Result<(), SinkError> {
    let told = sink.follow_generated(oid, columns).await;
    if let Err(error) = &told {
        warn!(logger, "generated columns can't be followed for now"; "sink" => sink.name(), "table_oid" => oid,
            "error" => %error);
    }
    told
}
