//! `docs/configuration.md`, written from the model: `UPDATE_DOCS=1 cargo test -p replicator-config`.

use crate::model::Config;
use crate::reference::{default_config, example, fields_with_values, own_fields, sections};
use crate::schema::{Field, Section, Shape};
use crate::sink::CommonConfig;
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

fn markdown() -> String {
    let config = default_config().expect("the defaults load");
    let mut out = HEAD.to_owned();
    out.push_str("\n### Top level\n\n");
    let top = fields_with_values(Config::FIELDS, config.literals());
    table(&mut out, top.filter(|(field, _)| !matches!(field.shape, Shape::Table(_) | Shape::Sinks)));
    for (name, fields, literals) in sections(&config) {
        let about = Config::FIELDS.iter().find(|field| field.key == name).map(Field::description);
        write!(out, "\n### `[{name}]`\n\n{}\n\n", about.unwrap_or_default()).unwrap();
        table(&mut out, fields_with_values(fields, literals));
    }
    out.push_str("\n### `[[sink]]`\n\nAny number of sinks, of any type. A change is acknowledged to the source when every sink has made it\ndurable.\n\n");
    // Defaults of `shards` and `batch` differ by type and are given with it.
    table(&mut out, CommonConfig::FIELDS.iter().map(|field| (field, field.key.eq("tables").then(|| "[]".to_owned()))));
    for sink in &config.sinks {
        write!(out, "\n### `type = \"{}\"`\n\nDefaults: ", sink.kind.type_name()).unwrap();
        let common = fields_with_values(CommonConfig::FIELDS, sink.common_literals());
        let own_defaults = common.filter(|(field, _)| matches!(field.key, "shards" | "batch"));
        let shown: Vec<_> =
            own_defaults.map(|(field, value)| format!("`{} = {}`", field.key, value.unwrap_or_default())).collect();
        write!(out, "{}.\n\n", shown.join(", ")).unwrap();
        table(&mut out, own_fields(sink));
    }
    out.push_str("\n### `type = \"blackhole\"`\n\nReads every value and keeps none: for measuring. No keys of its own. It holds nothing durable, so with it\nalone the source gives up WAL as it is read.\n");
    out
}

fn table(out: &mut String, fields: impl IntoIterator<Item = (&'static Field, Option<String>)>) {
    out.push_str("| Key | Type | Default | Meaning |\n|---|---|---|---|\n");
    for (field, value) in fields {
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
    assert!(found == expected, "docs/configuration.md is out of date: UPDATE_DOCS=1 cargo test -p replicator-config");
}
