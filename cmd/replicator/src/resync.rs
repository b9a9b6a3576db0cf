//! `replicator resync`: asks the replicator that follows the slot to copy tables anew.
//!
//! The request travels in the stream, as a logical message: a replicator that runs takes it up when it gets there, one
//! that does not run does so at its next start, and until it has written it down it is not acknowledged.

use crate::run::request_prefix;
use crate::runtime;
use replicator_config::Config;
use replicator_source::Source;

/// Asks for the tables, each `schema.name`.
pub(crate) fn resync(config: &Config, tables: &[String]) -> Result<(), String> {
    runtime()?.block_on(async {
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let source = Source::new(config.source.clone(), logger).map_err(|error| error.to_string())?;
        let published = source.tables().await.map_err(|error| format!("source: {error}"))?;
        let names: Vec<String> =
            published.iter().map(|table| format!("{}.{}", table.schema, table.name)).collect();
        for table in tables {
            if !names.contains(table) {
                return Err(format!(
                    "table {table} is not in publication {} (it has: {}); name it as schema.table, unquoted",
                    config.source.publication,
                    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
                ));
            }
        }
        for table in tables {
            let prefix = request_prefix(&config.source.slot);
            let at = source.emit_message(&prefix, table).await.map_err(|error| format!("source: {error}"))?;
            println!(
                "{table}: asked for at {at}; the replicator of slot {} copies it when it gets there",
                config.source.slot
            );
        }
        Ok(())
    })
}
