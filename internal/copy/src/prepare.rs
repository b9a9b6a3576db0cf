//! Tables in the sinks before the stream begins.

use crate::ledger::{Note, is_of_table, key};
use crate::shared::waits_for_tables;
use crate::versions;
use replicator_sink::{ErrorKind, KeyChanges, Sink, SinkError};
use replicator_types::Relation;
use slog::{Logger, error, warn};
use std::sync::Arc;

/// Has a prepared sink make early what the tables need. Tables in which the sink is left out are passed over; one that it can't
/// go on with, or begin with while it has others, is set aside there, so that it does not keep the others from beginning.
///
/// # Errors
/// The sink, or a table that it refuses and all is new to it: that is for whoever sets it up.
pub async fn prepare_tables(
    sink: &dyn Sink,
    tables: &[Arc<Relation>],
    logger: &Logger,
) -> Result<(), SinkError> {
    let notes = sink.notes().await?;
    let has_tables = notes.keys().any(|name| is_of_table(name) || versions::is_of_table(name));
    for table in tables {
        // What can't be read is told when the ledger is.
        let note = notes.get(&key(table.oid)).and_then(|text| serde_json::from_str::<Note>(text).ok());
        if matches!(note, Some(Note::Aside { .. })) {
            continue;
        }
        let Err(failure) = sink.prepare_table(table).await else { continue };
        let is_refused = failure.table().is_some() && failure.kind() != ErrorKind::Retry;
        if !is_refused || !has_tables || !waits_for_tables(sink) {
            return Err(failure);
        }
        if matches!(note, Some(Note::Wanted { .. })) {
            warn!(logger, "a table that a sink can't go on with is about to be copied anew";
                "table" => table.qualified_name(), "sink" => sink.name(), "error" => %failure);
            continue;
        }
        error!(logger, "a table is set aside in a sink that can't go on with it"; "table" => table.qualified_name(),
            "sink" => sink.name(), "error" => %failure);
        let before = note.filter(|_| sink.key_changes() == KeyChanges::Whole).map(Box::new);
        let note = Note::Aside { table: table.qualified_name(), reason: failure.to_string(), before };
        let text = note.text().map_err(SinkError::halt)?;
        sink.put_note(&key(table.oid), Some(&text)).await?;
    }
    Ok(())
}
