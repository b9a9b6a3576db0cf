//! Secrets from files.

mod support;

use replicator_config::{Config, Environment, SinkKind, load};
use std::path::Path;
use support::with;

fn load_in(folder: &Path, text: &str) -> Result<Config, String> {
    load(text, "r.toml", folder, &Environment::default()).map_err(|error| error.to_string())
}

#[test]
fn a_secret_s_file_fills_the_secret_without_its_newline() {
    let folder = tempfile::tempdir().unwrap();
    for (content, secret) in
        [("pw\n", "pw"), ("pw\r\n", "pw"), (" p w \n\n", " p w \n"), ("pw", "pw"), ("a${B}", "a${B}")]
    {
        std::fs::write(folder.path().join("pw"), content).unwrap();
        let text = with("[source]", "[source]\npassword_file = \"pw\"");
        assert_eq!(load_in(folder.path(), &text).unwrap().source.password.expose(), secret, "{content:?}");
    }
}

#[test]
fn every_kind_of_sink_reads_its_own() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["one", "two", "three"] {
        std::fs::write(folder.path().join(name), format!("secret {name}\n")).unwrap();
    }
    let absolute = folder.path().join("three");
    let text = with("database = \"shop\"", "database = \"shop\"\npassword_file = \"one\"")
        .replace("/copy\"", "/copy\"\npassword_file = \"two\"")
        .replace("/prefix\"", &format!("/prefix\"\nsecret_access_key_file = {absolute:?}"));
    let config = load_in(folder.path(), &text).unwrap();
    let secrets: Vec<_> = config
        .sinks
        .iter()
        .map(|sink| match &sink.kind {
            SinkKind::ClickHouse(clickhouse) => clickhouse.password.expose(),
            SinkKind::Postgres(postgres) => postgres.password.expose(),
            SinkKind::ObjectStore(store) => store.secret_access_key.expose(),
            SinkKind::Lake(lake) => lake.secret_access_key.expose(),
            SinkKind::Blackhole => "",
        })
        .collect();
    assert_eq!(secrets, ["secret one", "secret two", "secret three"]);
    assert!(!format!("{config:?}").contains("secret one"), "Debug shows no secret");
}

#[test]
fn a_file_that_cannot_be_used_is_named_with_its_key() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("empty"), "\n").unwrap();
    std::fs::write(folder.path().join("binary"), [0xff, 0xfe]).unwrap();
    std::fs::write(folder.path().join("large"), vec![b'x'; 1 << 20]).unwrap();
    for (file, reason) in [
        ("none", "No such file"),
        ("empty", "it is empty"),
        ("binary", "not UTF-8"),
        ("large", "more than 65536"),
    ] {
        let text = with("[source]", &format!("[source]\npassword_file = \"{file}\""));
        let error = load_in(folder.path(), &text).unwrap_err();
        assert!(
            error.starts_with(&format!("r.toml:3: `source.password_file`: cannot use `{file}`: ")),
            "{error}"
        );
        assert!(error.contains(reason), "{error}");
    }
}

#[test]
fn a_secret_set_twice_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("pw"), "hunter2").unwrap();
    let twice = with("[source]", "[source]\npassword = \"hunter2\"\npassword_file = \"pw\"");
    let error = load_in(folder.path(), &twice).unwrap_err();
    assert_eq!(error, "r.toml:4: `source.password` and `source.password_file` are both set; keep one");

    let in_url = with("user@127", "user:hunter2@127").replace("[source]", "[source]\npassword_file = \"pw\"");
    let error = load_in(folder.path(), &in_url).unwrap_err();
    assert!(
        error.contains("`source.url` has a password and so has `source.password` or its file"),
        "{error}"
    );
    assert!(!error.contains("hunter2"));
}

#[test]
fn a_certificate_s_file_is_not_read_as_a_secret() {
    let text = with("database = \"shop\"", "database = \"shop\"\nca_file = \"/nowhere/ca.pem\"");
    let config = load_in(Path::new(""), &text).unwrap();
    let SinkKind::ClickHouse(clickhouse) = &config.sinks[0].kind else { panic!() };
    assert_eq!(clickhouse.ca_file.as_deref(), Some(Path::new("/nowhere/ca.pem")));
}
