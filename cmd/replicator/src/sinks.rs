//! The kinds of sink, by their configuration. A new kind is one line here.

use replicator_config::{SinkConfig, SinkKind};
use replicator_sink::{Blackhole, Sink, SinkError};
use slog::{Logger, o};

/// The sink that `config` describes; nothing is connected yet.
pub(crate) fn open(config: &SinkConfig, logger: &Logger) -> Result<Box<dyn Sink>, SinkError> {
    let name = config.name.clone();
    let logger = logger.new(o!("sink" => name.clone()));
    Ok(match &config.kind {
        SinkKind::ClickHouse(kind) => {
            Box::new(replicator_sink_clickhouse::open(name, kind.clone(), config.shards, logger)?)
        }
        SinkKind::Postgres(kind) => {
            Box::new(replicator_sink_postgres::open(name, kind.clone(), config.shards, logger)?)
        }
        SinkKind::ObjectStore(kind) => {
            Box::new(replicator_sink_object_store::open(name, kind.clone(), logger)?)
        }
        SinkKind::Lake(kind) => Box::new(replicator_sink_lake::open(name, kind.clone(), logger)?),
        SinkKind::Blackhole => Box::new(Blackhole::new(name, config.shards)),
    })
}

/// All of them, in configuration order.
pub(crate) fn open_all(configs: &[SinkConfig], logger: &Logger) -> Result<Vec<Box<dyn Sink>>, String> {
    if configs.is_empty() {
        return Err(
            "the configuration has no [[sink]]: add at least one (`replicator config` shows how)".into()
        );
    }
    configs
        .iter()
        .map(|config| open(config, logger).map_err(|error| format!("sink {}: {error}", config.name)))
        .collect()
}
