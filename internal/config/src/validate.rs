//! Whether values that have the right type make sense.

use crate::document::Document;
use crate::environment::variable_name;
use crate::model::{Config, SourceConfig};
use crate::sink::{SinkConfig, SinkKind};
use crate::url::has_password;
use crate::{ByteSize, ConfigError, Secret, TablePatterns, patterns};
use std::net::SocketAddr;
use std::ops::RangeInclusive;

/// Lanes of a sink: each has its connection and its batches, so more cost memory and bring nothing.
const SHARDS: RangeInclusive<u64> = 1..=64;

/// Requests side by side for each lane.
const IN_FLIGHT: RangeInclusive<u64> = 1..=64;

/// An entry of a batch is numbered by 32 bits, and its rows' offsets too.
const BATCH_ROWS: RangeInclusive<u64> = 1..=10_000_000;
const BATCH_BYTES: RangeInclusive<u64> = 1..=1 << 30;

/// Room for one ordinary batch.
const BUFFER_BYTES_MIN: usize = 8 << 20;

/// A block of Postgres at least.
const COPY_RANGE_BYTES: RangeInclusive<u64> = 8192..=1 << 40;

/// An hour: nobody waits longer on purpose.
const DURATION_MS: RangeInclusive<u64> = 1..=3_600_000;

/// Below a tenth of a second the reports would outnumber the changes.
const STATUS_INTERVAL_MS: RangeInclusive<u64> = 100..=3_600_000;

/// `NAMEDATALEN` - 1 (src/include/pg_config_manual.h).
const NAME_BYTES_MAX: usize = 63;

/// Tells the first value that cannot be meant so.
pub(crate) fn validate(config: &Config, document: &Document) -> Result<(), ConfigError> {
    let check = Check(document);
    check.range("shutdown_grace_ms", config.shutdown_grace_ms, 0..=*DURATION_MS.end())?;
    check.source(&config.source)?;
    if config.buffer.bytes_max.0 < BUFFER_BYTES_MIN {
        let least = ByteSize(BUFFER_BYTES_MIN);
        return Err(
            document.error("buffer.bytes_max", format!("`buffer.bytes_max` must be at least \"{least}\""))
        );
    }
    check.range("copy.workers", u64::from(config.copy.workers), SHARDS)?;
    check.range("copy.range_bytes", config.copy.range_bytes.0 as u64, COPY_RANGE_BYTES)?;
    check.range("copy.batch_rows_max", config.copy.batch_rows_max as u64, BATCH_ROWS)?;
    check.range("copy.batch_bytes_max", config.copy.batch_bytes_max.0 as u64, BATCH_BYTES)?;
    check.range("copy.bytes_max", config.copy.bytes_max.0 as u64, BUFFER_BYTES_MIN as u64..=u64::MAX)?;
    check.listen(&config.http.listen)?;
    check.range("retry.backoff_min_ms", config.retry.backoff_min_ms, DURATION_MS)?;
    check.range("retry.backoff_max_ms", config.retry.backoff_max_ms, DURATION_MS)?;
    if config.retry.backoff_min_ms > config.retry.backoff_max_ms {
        let message = "`retry.backoff_min_ms` is above `retry.backoff_max_ms`; raise the latter";
        return Err(document.error("retry.backoff_min_ms", message));
    }
    if config.sinks.is_empty() {
        return Err(
            document.error("sink", "there is no sink; add a [[sink]] (`replicator config` shows each type)")
        );
    }
    for (index, sink) in config.sinks.iter().enumerate() {
        check.sink(&format!("sink.{index}"), sink)?;
        let variable = variable_name(&sink.name);
        if config.sinks.iter().take(index).any(|other| variable_name(&other.name) == variable) {
            let path = format!("sink.{index}.name");
            let name = document.quoted(&path, &sink.name);
            let message =
                format!("`sink[{index}].name`: {name} is another sink's name too (`-` and `_` count as one)");
            return Err(document.error(&path, message));
        }
    }
    Ok(())
}

struct Check<'a>(&'a Document);

impl Check<'_> {
    fn source(&self, source: &SourceConfig) -> Result<(), ConfigError> {
        self.url("source", source.url.expose(), &["postgres://", "postgresql://"])?;
        self.one_password("source", &source.url, &source.password)?;
        self.slot(&source.slot)?;
        let publication = &source.publication;
        if publication.is_empty() || publication.len() > NAME_BYTES_MAX || publication.contains('\0') {
            return self.fault("source.publication", publication, "must have 1 to 63 bytes");
        }
        self.patterns("source.tables", &source.tables)?;
        self.range("source.heartbeat_interval_ms", source.heartbeat_interval_ms, 0..=*DURATION_MS.end())?;
        self.range("source.catalog_interval_ms", source.catalog_interval_ms, 0..=*DURATION_MS.end())?;
        self.range("source.status_interval_ms", source.status_interval_ms, STATUS_INTERVAL_MS)?;
        self.range("source.connect_timeout_ms", source.connect_timeout_ms, DURATION_MS)
    }

    /// `ReplicationSlotValidateName` in src/backend/replication/slot.c.
    fn slot(&self, slot: &str) -> Result<(), ConfigError> {
        let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
        if slot.is_empty() || slot.len() > NAME_BYTES_MAX || !slot.bytes().all(allowed) {
            let rule = "a slot's name has 1 to 63 of a-z, 0-9 and _ (Postgres' rule)";
            return self.fault("source.slot", slot, rule);
        }
        Ok(())
    }

    fn listen(&self, listen: &str) -> Result<(), ConfigError> {
        if listen.is_empty() || listen.parse::<SocketAddr>().is_ok() {
            return Ok(());
        }
        let rule =
            "must be address:port, such as 127.0.0.1:9187, or 0.0.0.0:9187 for every address; empty for none";
        self.fault("http.listen", listen, rule)
    }

    fn sink(&self, path: &str, sink: &SinkConfig) -> Result<(), ConfigError> {
        let at = |key: &str| format!("{path}.{key}");
        let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-".contains(&byte);
        if sink.name.is_empty()
            || sink.name.len() > NAME_BYTES_MAX
            || !sink.name.bytes().all(allowed)
            || sink.name.contains("__")
        {
            let rule = "a sink's name has 1 to 63 of a-z, 0-9, - and _, and no two _ in a row";
            return self.fault(&at("name"), &sink.name, rule);
        }
        self.patterns(&at("tables"), &sink.tables)?;
        self.range(&at("batch.rows_max"), sink.batch.rows_max as u64, BATCH_ROWS)?;
        self.range(&at("batch.bytes_max"), sink.batch.bytes_max as u64, BATCH_BYTES)?;
        self.range(&at("batch.interval_ms"), sink.batch.interval_ms, DURATION_MS)?;
        self.range(&at("shards"), u64::from(sink.shards), SHARDS)?;
        match &sink.kind {
            SinkKind::ClickHouse(clickhouse) => {
                self.url(path, clickhouse.url.expose(), &["http://", "https://"])?;
                self.one_password(path, &clickhouse.url, &clickhouse.password)?;
                self.range(&at("in_flight_max"), clickhouse.in_flight_max as u64, IN_FLIGHT)?;
                self.range(&at("request_timeout_ms"), clickhouse.request_timeout_ms, DURATION_MS)
            }
            SinkKind::Postgres(postgres) => {
                self.url(path, postgres.url.expose(), &["postgres://", "postgresql://"])?;
                self.one_password(path, &postgres.url, &postgres.password)?;
                self.range(&at("connect_timeout_ms"), postgres.connect_timeout_ms, DURATION_MS)
            }
            SinkKind::ObjectStore(store) => {
                self.url(path, &store.url, &["s3://", "file:///"])?;
                self.files(path, sink, &store.endpoint)?;
                self.range(&at("in_flight_max"), store.in_flight_max as u64, IN_FLIGHT)?;
                self.range(&at("gzip_level"), u64::from(store.gzip_level), 0..=9)?;
                self.range(&at("request_timeout_ms"), store.request_timeout_ms, DURATION_MS)
            }
            SinkKind::Lake(lake) => {
                self.url(path, &lake.url, &["s3://", "file:///"])?;
                self.files(path, sink, &lake.endpoint)?;
                self.range(&at("in_flight_max"), lake.in_flight_max as u64, IN_FLIGHT)?;
                self.range(&at("row_group_rows_max"), lake.row_group_rows_max as u64, 1..=10_000_000)?;
                self.range(&at("request_timeout_ms"), lake.request_timeout_ms, DURATION_MS)
            }
            SinkKind::Blackhole => Ok(()),
        }
    }

    /// What sinks that write files have in common.
    fn files(&self, path: &str, sink: &SinkConfig, endpoint: &str) -> Result<(), ConfigError> {
        if !endpoint.is_empty() {
            self.prefix(&format!("{path}.endpoint"), endpoint, &["http://", "https://"])?;
        }
        if sink.shards != 1 {
            let shards = format!("{path}.shards");
            let (shown, kind) = (self.0.shown(&shards), sink.kind.type_name());
            let message = format!("`{shown}` must be 1 for type = \"{kind}\", whose files are in order");
            return Err(self.0.error(&shards, message));
        }
        Ok(())
    }

    fn patterns(&self, path: &str, patterns: &TablePatterns) -> Result<(), ConfigError> {
        for (index, pattern) in patterns.0.iter().enumerate() {
            if let Some(fault) = patterns::fault(pattern) {
                let place = format!("{path}.{index}");
                let pattern = self.0.quoted(&place, pattern);
                return Err(self
                    .0
                    .error(&place, format!("`{}`: the pattern {pattern} {fault}", self.0.shown(path))));
            }
        }
        Ok(())
    }

    /// `url` of the table at `path`.
    fn url(&self, path: &str, url: &str, schemes: &[&str]) -> Result<(), ConfigError> {
        self.prefix(&format!("{path}.url"), url, schemes)
    }

    /// The value may hold a password and is not shown.
    fn prefix(&self, path: &str, url: &str, schemes: &[&str]) -> Result<(), ConfigError> {
        let begins =
            schemes.iter().any(|scheme| url.strip_prefix(scheme).is_some_and(|rest| !rest.is_empty()));
        if begins {
            return Ok(());
        }
        let message =
            format!("`{}` must be a URL that begins with {}", self.0.shown(path), schemes.join(" or "));
        Err(self.0.error(path, message))
    }

    fn one_password(&self, path: &str, url: &Secret, password: &Secret) -> Result<(), ConfigError> {
        if password.is_empty() || !has_password(url.expose()) {
            return Ok(());
        }
        let (url, password) = (format!("{path}.url"), format!("{path}.password"));
        let shown = (self.0.shown(&url), self.0.shown(&password));
        let message = format!("`{}` has a password and so has `{}` or its file; keep one", shown.0, shown.1);
        Err(self.0.error(&password, message))
    }

    fn range(&self, path: &str, value: u64, range: RangeInclusive<u64>) -> Result<(), ConfigError> {
        if range.contains(&value) {
            return Ok(());
        }
        let message = format!("`{}` must be from {} to {}", self.0.shown(path), range.start(), range.end());
        Err(self.0.error(path, message))
    }

    fn fault(&self, path: &str, value: &str, rule: &str) -> Result<(), ConfigError> {
        let value = if value.is_empty() { "it is empty".into() } else { self.0.quoted(path, value) };
        Err(self.0.error(path, format!("`{}`: {value}; {rule}", self.0.shown(path))))
    }
}
