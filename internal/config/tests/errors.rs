//! What a wrong configuration is told.

mod support;

use support::{THREE_SINKS, error_of, with};

#[track_caller]
fn check(text: &str, expected: &str) {
    let error = error_of(text, &[]);
    assert!(error.contains(expected), "\n   found: {error}\nexpected: {expected}");
}

#[test]
fn an_unknown_key_is_named_with_its_line_and_the_nearest_known_one() {
    let text = with("[source]", "[source]\nsloot = \"x\"");
    assert_eq!(error_of(&text, &[]), "r.toml:3: unknown key `source.sloot`; did you mean `slot`?");
    check(
        &format!("shutdown_grace = 1\n{THREE_SINKS}"),
        "unknown key `shutdown_grace`; did you mean `shutdown_grace_ms`?",
    );
    check(&format!("[sources]\n{THREE_SINKS}"), "r.toml:1: unknown key `sources`; did you mean `source`?");
    check(
        &format!("[log]\nlevle = \"info\"\n{THREE_SINKS}"),
        "r.toml:2: unknown key `log.levle`; did you mean `level`?",
    );
}

#[test]
fn an_unknown_key_in_a_sink_or_its_batch_is_named_with_the_sink() {
    let text = with("database = \"shop\"", "databse = \"shop\"");
    assert_eq!(
        error_of(&text, &[]),
        "r.toml:9: unknown key `sink.analytics.databse`; did you mean `database`?"
    );
    let text = format!("{THREE_SINKS}batch = {{ row_max = 1 }}\n");
    check(&text, "r.toml:20: unknown key `sink.archive.batch.row_max`; did you mean `rows_max`?");
}

#[test]
fn a_key_of_another_place_is_told_where_it_belongs() {
    let text = format!("{THREE_SINKS}database = \"x\"\n");
    let error = error_of(&text, &[]);
    assert!(error.starts_with("r.toml:20: unknown key `sink.archive.database`; did you mean `"), "{error}");
    assert!(error.ends_with("(`database` is for type = \"clickhouse\")"), "{error}");
    check(
        &format!("bytes_max = 1\n{THREE_SINKS}"),
        "unknown key `bytes_max`; did you mean `buffer.bytes_max`?",
    );
    check(
        &format!("[http]\nslot = 'x'\n{THREE_SINKS}"),
        "unknown key `http.slot`; did you mean `source.slot`?",
    );
}

#[test]
fn an_unknown_type_lists_the_known_ones_and_the_nearest() {
    let text = with("\"clickhouse\"", "\"clickhose\"");
    assert_eq!(
        error_of(&text, &[]),
        "r.toml:7: `sink.analytics.type`: `clickhose` is not known; did you mean `clickhouse`? (known: clickhouse, \
         postgres, object_store, lake, blackhole)"
    );
    check(
        &with("type = \"clickhouse\"", "typ = \"clickhouse\""),
        "unknown key `sink.analytics.typ`; did you mean `type`?",
    );
    check(&with("type = \"clickhouse\"\n", ""), "`sink.analytics.type` is missing");
}

#[test]
fn a_missing_key_names_itself_with_an_example() {
    check(
        &with("url = \"postgres://user@127.0.0.1:5432/shop?sslmode=disable\"", ""),
        "r.toml:2: `source.url` is missing; set it, for instance url = \"postgres://",
    );
    check("", "r.toml: `source.url` is missing");
    check(&with("database = \"shop\"\n", ""), "r.toml:5: `sink.analytics.database` is missing");
    check(&with("name = \"copy\"\n", ""), "`sink[1].name` is missing");
    check(&with("database = \"shop\"", "database = \"\""), "r.toml:9: `sink.analytics.database` is empty");
}

#[test]
fn a_value_of_the_wrong_type_is_told_what_it_must_be() {
    check(
        &with("[source]", "[source]\ncreate = \"yes\""),
        "r.toml:3: `source.create` must be true or false, not a text",
    );
    check(
        &with("[source]", "[source]\npassword = 12345678"),
        "`source.password` must be a text, not an integer",
    );
    check(
        &with("[source]", "[source]\ntables = \"public.*\""),
        "`source.tables` must be a list of texts, not a text",
    );
    check(&with("[source]", "[source]\ntables = [1]"), "`source.tables` must be a list of texts");
    check(
        &format!("source = 3\n{}", &THREE_SINKS[THREE_SINKS.find("[[sink]]").unwrap()..]),
        "r.toml:1: `source` must be a table",
    );
    check(
        "[sink]\n[source]\nurl = 'postgres://u@h/d'",
        "`sink` must be tables that begin with [[sink]], not a table",
    );
    check(&format!("{THREE_SINKS}shards = -1\n"), "`sink.archive.shards` must be from 0 to");
    check(&format!("{THREE_SINKS}shards = 5000000000\n"), "`sink.archive.shards` must be from 0 to");
    check(&format!("{THREE_SINKS}shards = 1.5\n"), "`sink.archive.shards` must be an integer, not a float");
    check(&format!("{THREE_SINKS}batch = 5\n"), "`sink.archive.batch` must be a table, not an integer");
    check(
        &format!("buffer.bytes_max = \"256XB\"\n{THREE_SINKS}"),
        "`buffer.bytes_max` must be a size such as \"256MiB\"",
    );
    check(
        &format!("log.level = \"inof\"\n{THREE_SINKS}"),
        "`log.level`: `inof` is not known; did you mean `info`?",
    );
}

#[test]
fn text_that_is_not_toml_is_told_the_line() {
    check("[source]\nurl = postgres\n", "r.toml:2: not TOML");
    check("[source]\nurl = 'a'\nurl = 'b'\n", "r.toml:3: not TOML");
    let error = error_of("[source]\npassword = \"hunter2\n", &[]);
    assert!(!error.contains("hunter2"), "{error}");
}

#[test]
fn there_must_be_a_sink() {
    check("[source]\nurl = 'postgres://u@h/d'", "there is no sink; add a [[sink]]");
}

#[test]
fn sink_names_are_plain_and_unique() {
    check(
        &with("\"copy\"", "\"analytics\""),
        "r.toml:12: `sink[1].name`: `analytics` is another sink's name too",
    );
    check(&with("\"copy\"", "\"Copy\""), "a sink's name has 1 to 63 of a-z");
    check(&with("\"copy\"", "\"a__b\""), "no two _ in a row");
    check(&with("\"copy\"", "\"a-b\"").replace("\"archive\"", "\"a_b\""), "another sink's name too");
    check(&with("\"copy\"", "\"\""), "`sink[1].name` is empty");
}

#[test]
fn slot_names_follow_postgres() {
    for slot in ["Orders", "a-b", "", "é", &"a".repeat(64)] {
        let text = with("[source]", &format!("[source]\nslot = \"{slot}\""));
        check(&text, "a slot's name has 1 to 63 of a-z, 0-9 and _");
    }
    support::load_with(&with("[source]", &format!("[source]\nslot = \"{}\"", "a".repeat(63))), &[]).unwrap();
}

#[test]
fn numbers_out_of_range_are_told_the_range() {
    for (line, expected) in [
        ("batch = { rows_max = 0 }", "`sink.archive.batch.rows_max` must be from 1 to"),
        ("batch = { bytes_max = \"2GiB\" }", "`sink.archive.batch.bytes_max` must be from 1 to 1073741824"),
        ("batch = { interval_ms = 0 }", "`sink.archive.batch.interval_ms` must be from 1 to"),
        ("in_flight_max = 0", "`sink.archive.in_flight_max` must be from 1 to 64"),
        ("gzip_level = 10", "`sink.archive.gzip_level` must be from 0 to 9"),
        ("shards = 2", "`sink.archive.shards` must be 1 for type = \"object_store\""),
        ("request_timeout_ms = 0", "`sink.archive.request_timeout_ms` must be from 1"),
    ] {
        check(&format!("{THREE_SINKS}{line}\n"), expected);
    }
    for (line, expected) in [
        ("buffer.bytes_max = \"8191KiB\"", "`buffer.bytes_max` must be at least \"8MiB\""),
        ("retry.backoff_min_ms = 20000", "`retry.backoff_min_ms` is above `retry.backoff_max_ms`"),
        ("shutdown_grace_ms = 99999999", "`shutdown_grace_ms` must be from 0 to"),
    ] {
        check(&format!("{line}\n{THREE_SINKS}"), expected);
    }
    let shards =
        |shards: u32| with("database = \"shop\"", &format!("database = \"shop\"\nshards = {shards}"));
    check(&shards(0), "r.toml:10: `sink.analytics.shards` must be from 1 to 64");
    check(&shards(65), "`sink.analytics.shards` must be from 1 to 64");
    support::load_with(&shards(64), &[]).unwrap();
}

#[test]
fn addresses_urls_and_patterns_are_looked_at() {
    check(&format!("http.listen = \":9187\"\n{THREE_SINKS}"), "`http.listen`: `:9187`; must be address:port");
    check(
        &with("http://127.0.0.1:8123", "127.0.0.1:8123"),
        "`sink.analytics.url` must be a URL that begins with http:// or https://",
    );
    check(
        &with("s3://bucket/prefix", "/var/lake"),
        "`sink.archive.url` must be a URL that begins with s3:// or file:///",
    );
    check(
        &with("postgres://user@127.0.0.1:5432/shop", "host=x"),
        "`source.url` must be a URL that begins with postgres://",
    );
    check(
        &with("[source]", "[source]\ntables = [\"public.*\", \"!public.secret\"]"),
        "`source.tables`: the pattern `!public.secret` has signs",
    );
}
