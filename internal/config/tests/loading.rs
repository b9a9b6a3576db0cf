//! What a right configuration comes to.

mod support;

use replicator_config::{
    BatchConfig, ByteSize, ClickHouseMode, Config, DeleteMode, LogFormat, LogLevel, SinkKind, load_file,
    load_str,
};
use support::{THREE_SINKS, load_with};

/// The example that the contract gives, word for word but for the elided parts.
const CONTRACT: &str = r#"
[source]
url = "postgres://user@127.0.0.1:5432/shop?sslmode=disable"
slot = "replicator"
publication = "replicator"
create = true
tables = ["public.*"]

[buffer]
bytes_max = "256MiB"

[http]
listen = "127.0.0.1:9187"

[[sink]]
name = "analytics"
type = "clickhouse"
url = "http://127.0.0.1:8123"
database = "shop"
shards = 2
batch = { rows_max = 10000, bytes_max = "8MiB", interval_ms = 1000 }
mode = "mirror"

[[sink]]
name = "copy"
type = "postgres"
url = "postgres://user@127.0.0.1:5432/copy"

[[sink]]
name = "archive"
type = "object_store"
url = "s3://bucket/prefix"
"#;

const BULK: BatchConfig = BatchConfig { rows_max: 10_000, bytes_max: 8 << 20, interval_ms: 1000 };
const FILES: BatchConfig = BatchConfig { rows_max: 1000, bytes_max: 4 << 20, interval_ms: 10_000 };

fn sink_names(config: &Config) -> Vec<&str> {
    config.sinks.iter().map(|sink| sink.name.as_str()).collect()
}

#[test]
fn the_contract_s_example_loads() {
    let config = load_with(CONTRACT, &[]).unwrap();
    assert_eq!(config.source.tables.0, ["public.*"]);
    assert_eq!(sink_names(&config), ["analytics", "copy", "archive"]);
    assert_eq!(config.sinks[0].batch, BULK);
}

#[test]
fn what_is_not_said_has_the_documented_default() {
    let config = load_with(THREE_SINKS, &[]).unwrap();
    assert_eq!(config.source.slot, "replicator");
    assert_eq!(config.source.publication, "replicator");
    assert!(config.source.create);
    assert!(config.source.tables.is_everything());
    assert!(config.source.password.is_empty());
    assert_eq!(config.buffer.bytes_max, ByteSize(128 << 20));
    assert_eq!(config.http.address(), Some("127.0.0.1:9187".parse().unwrap()));
    assert_eq!((config.log.format, config.log.level), (LogFormat::Auto, LogLevel::Info));
    let of_sinks: Vec<_> = config.sinks.iter().map(|sink| (sink.shards, sink.batch)).collect();
    assert_eq!(of_sinks, [(2, BULK), (2, BULK), (1, FILES)]);
    let SinkKind::ClickHouse(clickhouse) = &config.sinks[0].kind else {
        panic!("{:?}", config.sinks[0].kind)
    };
    assert_eq!((clickhouse.mode, clickhouse.deletes), (ClickHouseMode::Mirror, DeleteMode::Hard));
    let SinkKind::ObjectStore(store) = &config.sinks[2].kind else { panic!("{:?}", config.sinks[2].kind) };
    assert_eq!((store.url.as_str(), store.region.as_str()), ("s3://bucket/prefix", "auto"));
}

#[test]
fn a_part_of_a_batch_leaves_the_rest_at_the_type_s_default() {
    let text = format!("{THREE_SINKS}batch = {{ rows_max = 250 }}\n");
    let config = load_with(&text, &[]).unwrap();
    assert_eq!(config.sinks[2].batch, BatchConfig { rows_max: 250, ..FILES });
}

#[test]
fn sizes_are_texts_or_numbers() {
    for (written, bytes) in [("\"16MiB\"", 16 << 20), ("\"16 mb\"", 16_000_000), ("16777216", 1 << 24)] {
        let config = load_with(&format!("buffer.bytes_max = {written}\n{THREE_SINKS}"), &[]).unwrap();
        assert_eq!(config.buffer.bytes_max.0, bytes, "{written}");
    }
}

#[test]
fn a_blackhole_needs_nothing_but_a_name() {
    let text =
        "[source]\nurl = 'postgres://u@h/d'\n[[sink]]\nname = 'nowhere'\ntype = 'blackhole'\nshards = 4\n";
    let config = load_with(text, &[]).unwrap();
    assert!(matches!(config.sinks[0].kind, SinkKind::Blackhole));
    assert_eq!(config.sinks[0].shards, 4);
}

#[test]
fn no_listener_is_an_empty_address() {
    let config = load_with(&format!("http.listen = \"\"\n{THREE_SINKS}"), &[]).unwrap();
    assert_eq!(config.http.address(), None);
}

#[test]
fn a_file_is_read_and_a_missing_one_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("replicator.toml");
    std::fs::write(&path, THREE_SINKS).unwrap();
    assert_eq!(load_file(&path).unwrap().sinks.len(), 3);
    assert_eq!(load_str(THREE_SINKS).unwrap().sinks.len(), 3);

    let error = load_file(&folder.path().join("none.toml")).unwrap_err().to_string();
    assert!(error.contains("none.toml") && error.contains("replicator config"), "{error}");
}
