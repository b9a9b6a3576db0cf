use crate::{ClickHouse, Postgres, S3, scratch::Port};
use std::path::Path;
use std::sync::Arc;
use toml::{Table, Value};

/// A configuration for the replicator, built up in a test and written as TOML.
///
/// It has an address of its own for `[http]`, and short pauses between attempts. Slot and publication are
/// called `replicator` unless set otherwise.
///
/// ```no_run
/// # use replicator_harness::*;
/// # let (source, clickhouse) = (Postgres::start(PgVersion::V17, &PgOptions::default()), ClickHouse::start(&ClickHouseOptions::default()));
/// let config = Config::new(&source.url("shop"))
///     .set("source.tables", vec!["public.*"])
///     .clickhouse("analytics", &clickhouse)
///     .set_sink("analytics", "batch.interval_ms", 50);
/// ```
#[derive(Clone, Debug)]
pub struct Config {
    table: Table,
    http: Arc<Port>,
}

impl Config {
    /// With that `source.url` and no sink.
    pub fn new(source_url: &str) -> Self {
        let http = Arc::new(Port::take());
        let listen = format!("127.0.0.1:{}", http.number());
        Self { table: Table::new(), http }
            .set("source.url", source_url)
            .set("http.listen", listen)
            .set("log.format", "json")
            .set("retry.backoff_min_ms", 20)
            .set("retry.backoff_max_ms", 500)
    }

    /// Sets a key by its path (`buffer.bytes_max`).
    ///
    /// # Panics
    /// When the path runs through something that is no table.
    #[must_use]
    pub fn set(mut self, path: &str, value: impl Into<Value>) -> Self {
        set(&mut self.table, path, value.into());
        self
    }

    /// Adds a sink.
    #[must_use]
    pub fn sink(mut self, name: &str, kind: &str, url: &str) -> Self {
        let sink = Table::from_iter(
            [("name", name), ("type", kind), ("url", url)]
                .map(|(key, value)| (key.to_owned(), Value::from(value))),
        );
        self.sinks().push(sink.into());
        self
    }

    /// Adds a sink that keeps nothing.
    #[must_use]
    pub fn blackhole(mut self, name: &str) -> Self {
        let sink = Table::from_iter(
            [("name", name), ("type", "blackhole")].map(|(key, value)| (key.to_owned(), Value::from(value))),
        );
        self.sinks().push(sink.into());
        self
    }

    /// Adds a ClickHouse sink into the server's own database name.
    #[must_use]
    pub fn clickhouse(self, name: &str, server: &ClickHouse) -> Self {
        self.sink(name, "clickhouse", &server.url())
            .set_sink(name, "database", server.database())
            .set_sink(name, "user", server.user())
            .set_sink(name, "password", server.password())
    }

    /// Adds a Postgres sink.
    #[must_use]
    pub fn postgres(self, name: &str, server: &Postgres, database: &str) -> Self {
        self.sink(name, "postgres", &server.url(database))
    }

    /// Adds an object-store sink into `bucket/prefix`.
    #[must_use]
    pub fn s3(self, name: &str, server: &S3, bucket: &str, prefix: &str) -> Self {
        self.sink(name, "object_store", &format!("s3://{bucket}/{prefix}"))
            .set_sink(name, "endpoint", server.endpoint())
            .set_sink(name, "access_key_id", server.access_key())
            .set_sink(name, "secret_access_key", server.secret_key())
    }

    /// Adds an object-store sink into a folder.
    #[must_use]
    pub fn folder(self, name: &str, folder: &Path) -> Self {
        self.sink(name, "object_store", &format!("file://{}", folder.display()))
    }

    /// Sets a key of a sink by its path (`batch.rows_max`).
    ///
    /// # Panics
    /// When there is no such sink.
    #[must_use]
    pub fn set_sink(mut self, sink: &str, path: &str, value: impl Into<Value>) -> Self {
        let table = self
            .sinks()
            .iter_mut()
            .filter_map(Value::as_table_mut)
            .find(|table| table.get("name").and_then(Value::as_str) == Some(sink))
            .unwrap_or_else(|| panic!("no sink {sink} in this configuration"));
        set(table, path, value.into());
        self
    }

    /// `host:port` of the replicator's `/metrics`.
    pub fn http_address(&self) -> String {
        format!("127.0.0.1:{}", self.http.number())
    }

    /// The file's text.
    pub fn to_toml(&self) -> String {
        self.table.to_string()
    }

    fn sinks(&mut self) -> &mut Vec<Value> {
        self.table
            .entry("sink")
            .or_insert_with(|| Value::Array(Vec::new()))
            .as_array_mut()
            .expect("`sink` is a list of tables")
    }
}

fn set(table: &mut Table, path: &str, value: Value) {
    match path.split_once('.') {
        None => {
            table.insert(path.to_owned(), value);
        }
        Some((first, rest)) => {
            let inner = table.entry(first).or_insert_with(|| Table::new().into());
            set(inner.as_table_mut().unwrap_or_else(|| panic!("{first} is no table")), rest, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_set_is_in_the_text() {
        let config = Config::new("postgres://x@y/z")
            .set("source.tables", vec!["public.*"])
            .sink("a", "postgres", "postgres://b")
            .sink("c", "clickhouse", "http://d")
            .set_sink("c", "batch.rows_max", 7);
        let read: Table = config.to_toml().parse().unwrap();
        assert_eq!(read["source"]["url"].as_str(), Some("postgres://x@y/z"));
        assert_eq!(read["source"]["tables"][0].as_str(), Some("public.*"));
        assert_eq!(read["http"]["listen"].as_str(), Some(config.http_address().as_str()));
        assert_eq!(read["sink"][0]["name"].as_str(), Some("a"));
        assert_eq!(read["sink"][1]["batch"]["rows_max"].as_integer(), Some(7));
    }
}
