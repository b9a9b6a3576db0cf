//! `replicator check`: a line for each thing that was looked at.

use crate::{one_line, runtime, sinks};
use replicator_config::Config;
use replicator_source::Source;
use replicator_types::{CheckItem, Relation};
use std::sync::Arc;

/// Prints `ok` and `FAIL` lines; an error, after all of them, if any failed.
pub(crate) fn check(config: &Config) -> Result<(), String> {
    runtime()?.block_on(async {
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let mut failed = 0;
        let source = Source::new(config.source.clone(), logger.clone()).map_err(|error| error.to_string())?;
        failed += print("source", &source.check().await);
        // Without a source there are no tables to ask the sinks about; they are tested all the same.
        let tables = source.tables().await.unwrap_or_default();
        let tables: Vec<Arc<Relation>> = tables.iter().map(|table| Arc::new(table.relation())).collect();
        if config.sinks.is_empty() {
            let missing = CheckItem::fail("sinks", "none is configured: add a [[sink]]");
            failed += print("config", &[missing]);
        }
        for sink_config in &config.sinks {
            let wanted = |table: &&Arc<Relation>| sink_config.tables.matches(&table.schema, &table.name);
            let wanted: Vec<_> = tables.iter().filter(wanted).cloned().collect();
            let items = match sinks::open(sink_config, &logger) {
                Ok(sink) => sink.check(&wanted).await,
                Err(error) => vec![CheckItem::fail("settings", error.to_string())],
            };
            failed += print(&format!("sink {}", sink_config.name), &items);
        }
        match failed {
            0 => Ok(()),
            1 => Err("1 check failed".into()),
            n => Err(format!("{n} checks failed")),
        }
    })
}

fn print(what: &str, items: &[CheckItem]) -> usize {
    for item in items {
        let (word, text) = match &item.result {
            Ok(found) => ("ok  ", found),
            Err(remedy) => ("FAIL", remedy),
        };
        // The source's items say themselves whose they are.
        let of = if item.what.starts_with(what) { String::new() } else { format!("{what}: ") };
        println!("{word} {of}{}: {}", item.what, one_line(text));
    }
    items.iter().filter(|item| item.result.is_err()).count()
}
