//! `docs/configuration.md`, written from the model: `UPDATE_DOCS=1 cargo test -p replicator-config`.

use crate::reference::{Shown, about, common_keys, default_config, example, own_keys, sections, top_level};
use crate::schema::{Field, Shape};
use std::fmt::Write;
use std::path::Path;

const HEAD: &str = r#"# Configuration

<!-- Written by `UPDATE_DOCS=1 cargo test -p replicator-config` from internal/config/src. Edit it there. -->

`replicator run --config FILE` reads one [TOML](https://toml.io) file. `replicator config` prints one with every
setting, explained and at its default: a file to begin with. `replicator check --config FILE` tries the
configuration against the servers it names, without changing anything.

A smallest configuration:

```toml
[source]
url = "postgres://user@127.0.0.1:5432/shop?sslmode=disable"

[[sink]]
name = "analytics"
type = "clickhouse"
url = "http://127.0.0.1:8123"
database = "shop"
```

## Where values come from

**The file.** Unknown keys are errors that name the key, its line and the nearest key there is; so are values of the
wrong type. Sizes are numbers of bytes or texts such as `"256MiB"` (1024s) and `"8MB"` (1000s). Keys whose names end in
`_ms` are milliseconds.

**Variables in the file's texts.** `${VAR}` is replaced by the environment variable `VAR`, which must be set;
`${VAR:-default}` uses the default when it is not set, or empty. `$${` is a `${` that means itself. A value is taken as
it is, and not searched again. In a URL a password's special characters must be percent-encoded; in a `password` key
they need not be.

**Overrides.** `REPLICATOR__SOURCE__SLOT=orders` sets `source.slot`, whatever the file says: two underscores separate
levels. A sink goes by its name (`-` written `_`), or by its number from 0; the number after the last adds a sink.

| Variable | sets |
|---|---|
| `REPLICATOR__SOURCE__CREATE=false` | `source.create` |
| `REPLICATOR__SOURCE__TABLES=public.*,shop.orders` | `source.tables`; also `["public.*", "shop.orders"]` |
| `REPLICATOR__SHUTDOWN_GRACE_MS=5000` | `shutdown_grace_ms` |
| `REPLICATOR__SINK__ANALYTICS__URL=http://…` | `url` of the sink `analytics` |
| `REPLICATOR__SINK__0__BATCH__ROWS_MAX=5000` | `batch.rows_max` of the first sink |
| `REPLICATOR__SINK__0__BATCH={ rows_max = 5000 }` | `batch` of the first sink, whole |

Texts are taken as they are, without quotes and without `${…}`.

**Secrets from files.** `password_file` (and `secret_access_key_file`) name a file that holds the secret and nothing
else; a newline at its end is not part of it. A relative path is taken from the folder of the configuration file. A
secret set in two ways is an error. A Postgres password that is set nowhere is looked for as libpq does: `PGPASSWORD`,
then its password file.

Secrets, and whatever came from the environment, never appear in logs, errors or metrics.

## Keys

"Required" keys have no default.
"#;

const SINKS: &str = "\
Any number of sinks, of any type. A change is acknowledged to the source when every sink has made it
durable.
";

const BLACKHOLE: &str = "
### `type = \"blackhole\"`

Reads every value and keeps none: for measuring. No keys of its own. It holds nothing durable, so with it
alone the source gives up its WAL as it is read.
";

fn markdown() -> String {
    let config = default_config().expect("the defaults load");
    let mut out = HEAD.to_owned();
    out.push_str("\n### Top level\n\n");
    table(&mut out, top_level(&config));
    for (name, keys) in sections(&config) {
        write!(out, "\n### `[{name}]`\n\n{}\n\n", about(name)).unwrap();
        table(&mut out, keys);
    }
    write!(out, "\n### `[[sink]]`\n\n{SINKS}\n").unwrap();
    // Defaults of `shards` and `batch` differ by type and are given with it.
    let differs = |field: &Field| matches!(field.key, "shards" | "batch");
    let common = common_keys(&config.sinks[0]).into_iter();
    table(&mut out, common.map(|(field, value)| (field, value.filter(|_| !differs(field)))).collect());
    for sink in &config.sinks {
        let defaults: Vec<_> = common_keys(sink)
            .into_iter()
            .filter(|(field, _)| differs(field))
            .map(|(field, value)| format!("`{} = {}`", field.key, value.unwrap_or_default()))
            .collect();
        let kind = sink.kind.type_name();
        write!(out, "\n### `type = \"{kind}\"`\n\nDefaults: {}.\n\n", defaults.join(", ")).unwrap();
        table(&mut out, own_keys(sink));
    }
    out.push_str(BLACKHOLE);
    out
}

fn table(out: &mut String, keys: Vec<Shown>) {
    out.push_str("| Key | Type | Default | Meaning |\n|---|---|---|---|\n");
    for (field, value) in keys {
        let mut meaning = field.description();
        if let Shape::Choice(choices) = field.shape {
            for choice in choices {
                write!(meaning, "<br>`{}`: {}", choice.word, choice.description()).unwrap();
            }
        }
        if let Some(example) = field.example.map(|_| example(field)) {
            write!(meaning, " Example: `{example}`.").unwrap();
        }
        let default = match value {
            _ if field.required => "required".to_owned(),
            Some(value) => format!("`{value}`"),
            None => String::new(),
        };
        let kind = match field.shape {
            Shape::Text => "text",
            Shape::Secret => "text, secret",
            Shape::Path => "path",
            Shape::Flag => "true, false",
            Shape::Number(_) => "integer",
            Shape::Size => "size",
            Shape::List => "list of texts",
            Shape::Choice(_) => "word",
            Shape::Table(_) | Shape::Sinks => "table",
        };
        let row = format!("| `{}` | {kind} | {default} | {} |", field.key, meaning.replace('|', "\\|"));
        writeln!(out, "{row}").unwrap();
    }
}

#[test]
fn the_configuration_page_is_what_the_model_says() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/configuration.md");
    let expected = markdown();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::create_dir_all(page.parent().unwrap()).unwrap();
        std::fs::write(&page, &expected).unwrap();
    }
    let found = std::fs::read_to_string(&page).unwrap_or_default();
    assert!(
        found == expected,
        "docs/configuration.md is out of date: UPDATE_DOCS=1 cargo test -p replicator-config"
    );
}
