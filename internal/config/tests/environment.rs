//! Overrides and `${VAR}`.

mod support;

use replicator_config::{ByteSize, LogLevel, SinkKind};
use support::{THREE_SINKS, error_of, load_with, with};

#[test]
fn variables_override_the_file_whatever_their_type() {
    let config = load_with(
        THREE_SINKS,
        &[
            ("REPLICATOR__SOURCE__SLOT", "orders"),
            ("REPLICATOR__SOURCE__CREATE", "false"),
            ("REPLICATOR__SOURCE__TABLES", "public.*, shop.orders"),
            ("REPLICATOR__BUFFER__BYTES_MAX", "64MiB"),
            ("REPLICATOR__LOG__LEVEL", "debug"),
            ("REPLICATOR__SHUTDOWN_GRACE_MS", "5000"),
            ("REPLICATORX", "not ours"),
            ("REPLICATOR_SOURCE_SLOT", "not ours either"),
        ],
    )
    .unwrap();
    assert_eq!(config.source.slot, "orders");
    assert!(!config.source.create);
    assert_eq!(config.source.tables.0, ["public.*", "shop.orders"]);
    assert_eq!(config.buffer.bytes_max, ByteSize(64 << 20));
    assert_eq!(config.log.level, LogLevel::Debug);
    assert_eq!(config.shutdown_grace_ms, 5000);
}

#[test]
fn a_text_that_looks_like_a_number_stays_a_text() {
    let text = with("[source]", "[source]\nslot = \"x\"");
    let config =
        load_with(&text, &[("REPLICATOR__SOURCE__SLOT", "1"), ("REPLICATOR__SOURCE__PASSWORD", "true")]);
    let source = config.unwrap().source;
    assert_eq!((source.slot.as_str(), source.password.expose()), ("1", "true"));
}

#[test]
fn lists_and_tables_may_be_toml() {
    let config = load_with(
        THREE_SINKS,
        &[
            ("REPLICATOR__SINK__COPY__TABLES", "[\"a.b\", \"c.d\"]"),
            ("REPLICATOR__SINK__COPY__BATCH", "{ rows_max = 7, bytes_max = \"1MiB\" }"),
        ],
    )
    .unwrap();
    assert_eq!(config.sinks[1].tables.0, ["a.b", "c.d"]);
    assert_eq!((config.sinks[1].batch.rows_max, config.sinks[1].batch.bytes_max), (7, 1 << 20));
}

#[test]
fn sinks_go_by_name_or_number() {
    let text = with("\"copy\"", "\"second-copy\"");
    let config = load_with(
        &text,
        &[
            ("REPLICATOR__SINK__ANALYTICS__URL", "http://elsewhere:8123"),
            ("REPLICATOR__SINK__SECOND_COPY__CONNECT_TIMEOUT_MS", "7"),
            ("REPLICATOR__SINK__2__BATCH__ROWS_MAX", "3"),
        ],
    )
    .unwrap();
    let SinkKind::ClickHouse(clickhouse) = &config.sinks[0].kind else { panic!() };
    assert_eq!(clickhouse.url.expose(), "http://elsewhere:8123");
    let SinkKind::Postgres(postgres) = &config.sinks[1].kind else { panic!() };
    assert_eq!(postgres.connect_timeout_ms, 7);
    assert_eq!((config.sinks[2].batch.rows_max, config.sinks[2].batch.interval_ms), (3, 10_000));
}

#[test]
fn a_configuration_can_be_variables_alone() {
    let config = load_with(
        "",
        &[
            ("REPLICATOR__SOURCE__URL", "postgres://u@h/d"),
            ("REPLICATOR__SINK__0__NAME", "one"),
            ("REPLICATOR__SINK__0__TYPE", "object_store"),
            ("REPLICATOR__SINK__0__URL", "file:///lake"),
            ("REPLICATOR__SINK__1__NAME", "two"),
            ("REPLICATOR__SINK__1__TYPE", "blackhole"),
        ],
    )
    .unwrap();
    assert_eq!(config.sinks.iter().map(|sink| sink.name.as_str()).collect::<Vec<_>>(), ["one", "two"]);
}

#[test]
fn an_override_that_fits_nothing_is_an_error_that_names_the_variable() {
    for (variable, value, expected) in [
        ("REPLICATOR__SOURCE__SLOOT", "x", "unknown key `source.sloot`; did you mean `slot`?"),
        ("REPLICATOR__SOURC__SLOT", "x", "unknown key `sourc`; did you mean `source`?"),
        (
            "REPLICATOR__SINK__ANALYTICS__DATABSE",
            "x",
            "unknown key `sink.analytics.databse`; did you mean `database`?",
        ),
        (
            "REPLICATOR__SINK__NONE__URL",
            "x",
            "no sink has the name or number `none`; there are: 0 `analytics`",
        ),
        ("REPLICATOR__SINK__9__URL", "x", "no sink has the name or number `9`"),
        ("REPLICATOR__SINK__ANALYTICS", "x", "names no key of a sink"),
        ("REPLICATOR__SOURCE__SLOT__X", "x", "`source.slot` has no keys of its own"),
        ("REPLICATOR__SOURCE__CREATE", "yes", "`source.create` must be true or false"),
        ("REPLICATOR__SHUTDOWN_GRACE_MS", "soon", "`shutdown_grace_ms` must be an integer"),
        ("REPLICATOR__SINK__COPY__BATCH", "7", "`sink.copy.batch` must be a table"),
        ("REPLICATOR__SINK__COPY__BATCH", "{ row_max = 7 }", "unknown key `sink.copy.batch.row_max`"),
        ("REPLICATOR__BUFFER__BYTES_MAX", "1", "`buffer.bytes_max` must be at least \"8MiB\""),
        ("REPLICATOR__", "x", "unknown key ``"),
    ] {
        let error = error_of(THREE_SINKS, &[(variable, value)]);
        assert!(error.starts_with(&format!("{variable}: ")), "{error}");
        assert!(error.contains(expected), "\n   found: {error}\nexpected: {expected}");
    }
}

#[test]
fn variables_in_texts_are_replaced_wherever_the_text_stands() {
    let text = with("user@127.0.0.1:5432/shop?sslmode=disable", "${USER_}:${PW:-none}@h/${DB}").replace(
        "database = \"shop\"",
        "database = \"${DB}\"\ntables = [\"public.*\", \"${SCHEMA}.*\"]\nbatch = { bytes_max = \"${SIZE}\" }",
    );
    let variables = [("USER_", "u"), ("DB", "shop"), ("SCHEMA", "extra"), ("SIZE", "2MiB")];
    let config = load_with(&text, &variables).unwrap();
    assert_eq!(config.source.url.expose(), "postgres://u:none@h/shop");
    assert_eq!(config.sinks[0].tables.0, ["public.*", "extra.*"]);
    assert_eq!(config.sinks[0].batch.bytes_max, 2 << 20);
}

#[test]
fn an_unset_variable_is_named_with_the_key_and_its_line() {
    let text = with("[source]", "[source]\npassword = \"${SOURCE_PASSWORD}\"");
    let error = error_of(&text, &[]);
    assert!(
        error.starts_with("r.toml:3: `source.password` needs the environment variable SOURCE_PASSWORD"),
        "{error}"
    );
    let text = with("\"shop\"", "\"${DB\"");
    let error = error_of(&text, &[]);
    assert!(error.contains("r.toml:9: `sink.analytics.database` has a `${` without `}`"), "{error}");
}

#[test]
fn an_overridden_key_needs_no_variable_and_its_value_is_taken_as_it_is() {
    let text = with("[source]", "[source]\npassword = \"${SOURCE_PASSWORD}\"");
    let config = load_with(&text, &[("REPLICATOR__SOURCE__PASSWORD", "a${b}$${c")]).unwrap();
    assert_eq!(config.source.password.expose(), "a${b}$${c");
}

#[test]
fn no_key_shows_what_came_from_the_environment() {
    const SECRET: &str = "hunter2";
    let placed = |from: &str, to: &str| with(from, to).replace("SECRET", "${SECRET}");
    let texts = [
        placed("[source]", "[source]\nslot = \"SECRET-\""),
        placed("[source]", "[source]\ncreate = \"SECRET\""),
        placed(
            "[source]",
            "[source]\npublication = \"SECRETxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\"",
        ),
        placed("[source]", "[source]\ntables = [\"SECRET .\"]"),
        placed("[source]", "[source]\npassword = \"SECRET\"\npassword_file = \"SECRET\""),
        placed("[source]", "[source]\npassword_file = \"SECRET\""),
        placed("user@127.0.0.1:5432/shop", "u:SECRET@h/d\"\npassword = \"SECRET")
            .replace("?sslmode=disable", ""),
        placed("postgres://user@127.0.0.1:5432/shop", "SECRET"),
        placed("\"analytics\"", "\"SECRET!\""),
        placed("\"copy\"", "\"SECRET\"").replace("\"archive\"", "\"${SECRET}\""),
        placed("\"clickhouse\"", "\"SECRET\""),
        placed("database = \"shop\"", "database = \"shop\"\nmode = \"SECRET\""),
        placed("database = \"shop\"", "database = \"shop\"\nbatch = { bytes_max = \"SECRET\" }"),
        format!("http.listen = \"${{SECRET}}\"\n{THREE_SINKS}"),
        format!("buffer.bytes_max = \"${{SECRET}}\"\n{THREE_SINKS}"),
        format!("log.level = \"${{SECRET}}\"\n{THREE_SINKS}"),
        placed("\"analytics\"", "\"SECRET\"\nnonsense = 1"),
    ];
    for text in texts {
        assert!(text.contains("${SECRET}"));
        let error = error_of(&text, &[("SECRET", SECRET)]);
        assert!(!error.contains(SECRET), "{error}\n{text}");
    }
    for variable in [
        "SOURCE__SLOT",
        "SOURCE__CREATE",
        "SOURCE__URL",
        "LOG__LEVEL",
        "SHUTDOWN_GRACE_MS",
        "HTTP__LISTEN",
        "SINK__0__NAME",
        "SINK__0__TYPE",
        "SINK__0__BATCH",
        "SINK__0__BATCH__BYTES_MAX",
        "BUFFER__BYTES_MAX",
    ] {
        let value = format!("{SECRET} !");
        let error = error_of(THREE_SINKS, &[(&format!("REPLICATOR__{variable}"), &value)]);
        assert!(!error.contains(SECRET), "{error}");
    }
}
