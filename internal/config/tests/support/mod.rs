//! Loading in tests: without this process' environment.

use replicator_config::{Config, Environment, load};
use std::path::Path;

/// One sink of each type and nothing else.
pub(crate) const THREE_SINKS: &str = r#"
[source]
url = "postgres://user@127.0.0.1:5432/shop?sslmode=disable"

[[sink]]
name = "analytics"
type = "clickhouse"
url = "http://127.0.0.1:8123"
database = "shop"

[[sink]]
name = "copy"
type = "postgres"
url = "postgres://user@127.0.0.1:5432/copy"

[[sink]]
name = "archive"
type = "object_store"
url = "s3://bucket/prefix"
"#;

/// Loads with these variables. Errors call the text `r.toml`.
pub(crate) fn load_with(text: &str, variables: &[(&str, &str)]) -> Result<Config, String> {
    let environment: Environment =
        variables.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    load(text, "r.toml", Path::new(""), &environment).map_err(|error| error.to_string())
}

/// The error of a configuration that has one: a single line.
#[allow(dead_code, reason = "not every test binary has a failing configuration")]
pub(crate) fn error_of(text: &str, variables: &[(&str, &str)]) -> String {
    let error = load_with(text, variables).expect_err("this configuration is wrong");
    assert_eq!(error.lines().count(), 1, "{error}");
    error
}

/// `THREE_SINKS` with `from` replaced, which must be there.
#[allow(dead_code, reason = "not every test binary changes it")]
pub(crate) fn with(from: &str, to: &str) -> String {
    assert!(THREE_SINKS.contains(from), "{from}");
    THREE_SINKS.replacen(from, to, 1)
}
