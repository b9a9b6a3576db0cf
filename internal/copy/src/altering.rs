//! Tables that wait for their sinks to follow a change of their schema.
//!
//! ```text
//!   ToAlter ─▶ each sink: version noted ─▶ altered ─▶ Release        refused, or in the way of a lock: again
//! ```

use crate::shared::Shared;
use replicator_pipeline::{Backoff, Input};
use replicator_sink::{ErrorKind, Sink};
use replicator_types::{Position, Relation};
use slog::{error, warn};
use std::sync::Arc;
use std::time::Duration;

/// When a sink that refused is asked again.
const REFUSED_PAUSE: Duration = Duration::from_secs(15);

/// Has each sink follow a change of a table's schema, and releases the table. Tried until it succeeds: a sink that refuses
/// needs somebody to look after it, and only this table waits for that. With `gives_up` that is an error.
pub(crate) async fn alter(
    shared: Arc<Shared>,
    sinks: Vec<usize>,
    after: Arc<Relation>,
    at: Position,
    gives_up: bool,
) -> Result<u32, String> {
    let name = &after.qualified_name();
    let shared = &shared;
    let follow = |number: usize, sink: Arc<dyn Sink>| {
        let after = Arc::clone(&after);
        async move {
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
    let _ = shared.pipeline.send(Input::Release(after.oid));
    Ok(after.oid)
}
