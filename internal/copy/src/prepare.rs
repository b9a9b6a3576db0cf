//! Tables in the sinks before the stream begins.

use crate::ledger::{Note, key};
use crate::shared::waits_for_tables;
use crate::versions;
use replicator_sink::{ErrorKind, KeyChanges, Sink, SinkError};
use replicator_types::Relation;
use slog::{Logger, error, warn};
use std::sync::Arc;

/// Has a prepared sink make early what the tables need. Tables in which the sink is left out are passed over; one that the
/// sink had before, and can't go on with, is set aside there, so that it does not keep the others from beginning.
///
/// # Errors
/// The sink, or a table that it has had nothing of.
pub async fn prepare_tables(
    sink: &dyn Sink,
    tables: &[Arc<Relation>],
    logger: &Logger,
) -> Result<(), SinkError> {
    let notes = sink.notes().await?;
    for table in tables {
        // What can't be read is told when the ledger is.
        let note = notes.get(&key(table.oid)).and_then(|text| serde_json::from_str::<Note>(text).ok());
        if matches!(note, Some(Note::Aside { .. })) {
            continue;
        }
        let Err(failure) = sink.prepare_table(table).await else { continue };
        let is_of_table = failure.table().is_some() && failure.kind() != ErrorKind::Retry;
        let had_it = note.is_some() || notes.contains_key(&versions::key(table.oid));
        if !is_of_table || !had_it || !waits_for_tables(sink) {
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
