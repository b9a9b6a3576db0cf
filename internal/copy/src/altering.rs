//! Tables that wait for their sinks to follow a change of their schema.
//!
//! ```text
//!   ToAlter ─▶ each sink: place and version noted ─▶ altered ─▶ Release        refused, or in the way of a lock: again
//! ```

use crate::shared::Shared;
use replicator_pipeline::Backoff;
use replicator_sink::{ErrorKind, Sink};
use replicator_types::{Lsn, Position, Relation};
use slog::{error, warn};
use std::sync::Arc;
use std::time::Duration;

/// When a sink that refused is asked again.
const REFUSED_PAUSE: Duration = Duration::from_secs(15);

/// A change of a table's schema, as [`Notice::ToAlter`](replicator_pipeline::Notice::ToAlter) tells it.
pub(crate) struct SchemaChange {
    pub(crate) after: Arc<Relation>,
    pub(crate) at: Position,
    pub(crate) known: Option<Lsn>,
}

/// Has each sink follow a change of a table's schema. Tried until it succeeds: a sink that refuses
/// needs somebody to look after it, and only this table waits for that. With `gives_up` that is an error.
pub(crate) async fn alter(
    shared: Arc<Shared>,
    sinks: Vec<usize>,
    change: SchemaChange,
    gives_up: bool,
) -> Result<u32, String> {
    let SchemaChange { after, at, known } = change;
    let name = &after.qualified_name();
    let shared = &shared;
    let follow = |number: usize, sink: Arc<dyn Sink>| {
        let after = Arc::clone(&after);
        async move {
            // Everything from before is durable: it need not come again to a table that looks otherwise by then.
            if let Some(told) = known
                && shared.aparts.sinks_apart(after.oid).contains(&number)
            {
                shared.aparts.part(number, after.oid, &after.qualified_name(), told, at).await?;
            }
            // Kept first: what comes again after a crash is told apart by it.
            shared.versions.keep(number, &after).await?;
            sink.alter(&after, at).await
        }
    };
    let of_sinks = sinks.iter().filter_map(|&number| Some((number, shared.sink(number)?))).map(|(number, sink)| async move {
        let mut pause = Backoff::new(shared.backoff.0, shared.backoff.1);
        while let Err(error) = follow(number, Arc::clone(sink)).await {
            let pause = match error.kind() {
                ErrorKind::Retry => {
                    let pause = pause.pause();
                    warn!(shared.logger, "a sink can't follow a change of a table's schema now; only the table waits";
                        "table" => name, "sink" => sink.name(), "error" => %error, "pause_ms" => pause.as_millis() as u64);
                    pause
                }
                _ if gives_up => {
                    return Err(format!("sink {}: following a change of {name}'s schema: {error}", sink.name()));
                }
                _ => {
                    error!(shared.logger, "a sink can't follow a change of a table's schema; only the table waits, and it is tried again"; "table" => name, "sink" => sink.name(), "error" => %error,
                        "pause_ms" => REFUSED_PAUSE.as_millis() as u64);
                    REFUSED_PAUSE
                }
            };
            tokio::time::sleep(pause).await;
        }
        Ok(())
    });
    futures_util::future::try_join_all(of_sinks.collect::<Vec<_>>()).await?;
    Ok(after.oid)
}
