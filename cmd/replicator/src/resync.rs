//! `replicator resync`: asks the replicator that follows the slot to copy tables anew.
//!
//! The request travels in the stream, as a logical message: a replicator that runs takes it up when it gets there, one
//! that does not run does so at its next start, and until it has written it down it is not acknowledged.
//!
//! Where the slot was lost there is no stream for it to travel in. So while no replicator runs, what is asked for all tables
//! is noted in the sinks themselves, and that any slot will do.

use crate::acknowledged::begin_anew;
use crate::fence::{Fenced, run_name};
use crate::run::request_prefix;
use crate::{runtime, sinks};
use replicator_config::Config;
use replicator_sink::{Sink, StreamInfo};
use replicator_source::{Lease, Source, Term};
use replicator_types::{SlotIdentity, TableCatalog};
use std::sync::Arc;

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
        ask(config, &source, tables).await
    })
}

/// In the stream.
async fn ask(config: &Config, source: &Source, tables: &[String]) -> Result<(), String> {
    for table in tables {
        let prefix = request_prefix(&config.source.slot);
        let at = source.emit_message(&prefix, table).await.map_err(|error| format!("source: {error}"))?;
        println!(
            "{table}: asked for at {at}; the replicator of slot {} copies it when it gets there",
            config.source.slot
        );
    }
    Ok(())
}

/// Asks for all tables.
pub(crate) fn resync_all(config: &Config) -> Result<(), String> {
    runtime()?.block_on(async {
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let source = Source::new(config.source.clone(), logger).map_err(|error| error.to_string())?;
        let of_source = |error: replicator_source::SourceError| format!("source: {error}");
        let tables = source.tables().await.map_err(of_source)?;
        match source.lease().await {
            Ok(lease) => note(config, &source, lease, &tables).await,
            Err(error) if error.is_busy() => {
                // Whoever has the lease may be refused again and again.
                let status = source.slot_status().await.ok();
                if status.and_then(|status| status.active_pid).is_none() {
                    return Err(format!(
                        "another replicator has the lease of slot {} and does not follow the slot: stop it, and ask again",
                        config.source.slot
                    ));
                }
                let names: Vec<String> = tables.iter().map(name).collect();
                ask(config, &source, &names).await
            }
            Err(error) => Err(of_source(error)),
        }
    })
}

fn name(table: &TableCatalog) -> String {
    format!("{}.{}", table.schema, table.name)
}

/// In the sinks, which nobody else writes to meanwhile.
async fn note(config: &Config, source: &Source, lease: Lease, tables: &[TableCatalog]) -> Result<(), String> {
    let term = lease.term();
    let mut kept = tokio::spawn(lease.keep());
    let noted = note_in_all(config, source, term, tables);
    let ended = tokio::select! {
        noted = noted => noted,
        lost = &mut kept => Err(match lost {
            Ok(error) => format!("source: {error}"),
            Err(error) => format!("the task that keeps the lease ended: {error}"),
        }),
    };
    kept.abort();
    ended
}

async fn note_in_all(
    config: &Config,
    source: &Source,
    term: Term,
    tables: &[TableCatalog],
) -> Result<(), String> {
    let identified = source.identify().await.map_err(|error| format!("source: {error}"))?;
    let slot = config.source.slot.clone();
    let stream = StreamInfo {
        identity: SlotIdentity { system_identifier: identified.system_identifier, slot: slot.clone() },
        database: identified.database,
        tables: Vec::new(),
    };
    let logger = slog::Logger::root(slog::Discard, slog::o!());
    let run = run_name();
    for (sink, sink_config) in sinks::open_all(&config.sinks, &logger)?.into_iter().zip(&config.sinks) {
        let taken = tables.iter().filter(|table| sink_config.tables.matches(&table.schema, &table.name));
        let taken: Vec<(u32, String)> = taken.map(|table| (table.oid, name(table))).collect();
        let sink = Fenced::new(Arc::from(sink), term.clone(), run.clone(), identified.timelines.clone());
        let noted = async {
            sink.prepare(&stream).await?;
            begin_anew(&sink, &taken).await
        };
        noted.await.map_err(|error| format!("sink {}: {error}", sink.name()))?;
        println!("sink {}: all tables are copied anew when a replicator of slot {slot} begins", sink.name());
    }
    Ok(())
}
