//! The configuration that `replicator config` prints, made from the model.

use crate::load::load;
use crate::model::Config;
use crate::schema::{Field, Section, Shape};
use crate::sink::{CommonConfig, sink_type};
use crate::{Environment, SinkConfig};
use std::fmt::Write;
use std::path::Path;

const WIDTH: usize = 100;

const HEAD: &str = "\
# replicator: every setting, each with its default.
#
# Keys that begin with # are not set; what they show is an example. Texts may hold ${VAR} and ${VAR:-default}
# ($${ is a plain ${). REPLICATOR__SOURCE__SLOT=… in the environment sets source.slot, and so on; for a sink
# REPLICATOR__SINK__ANALYTICS__URL=…
";

const SINKS: &str = "\
# Where changes go: any number of sinks, of any type. A change is acknowledged to the source when every sink has
# made it durable. Besides those below there is type = \"blackhole\", which keeps nothing: for measuring.
";

/// The names of the three example sinks, as everywhere in the docs.
const EXAMPLES: &[(&str, &str)] =
    &[("analytics", "clickhouse"), ("copy", "postgres"), ("archive", "object_store"), ("lake", "lake")];

/// The commented default configuration: valid as it is, with example URLs.
pub fn reference() -> String {
    let Some(config) = default_config() else { return String::new() };
    let mut out = HEAD.to_owned();
    for (field, value) in top_level(&config) {
        setting(&mut out, field, value.as_deref());
    }
    for (name, keys) in sections(&config) {
        out.push('\n');
        comment(&mut out, &about(name));
        let _ = writeln!(out, "[{name}]");
        for (field, value) in keys {
            setting(&mut out, field, value.as_deref());
        }
    }
    let _ = write!(out, "\n{SINKS}");
    for (index, sink) in config.sinks.iter().enumerate() {
        out.push_str(if index == 0 { "[[sink]]\n" } else { "\n[[sink]]\n" });
        for (field, value) in common_keys(sink) {
            // What all sinks have is explained once.
            let write = if index == 0 { setting } else { assignment };
            write(&mut out, field, value.as_deref());
        }
        for (field, value) in own_keys(sink) {
            setting(&mut out, field, value.as_deref());
        }
    }
    out
}

/// What is loaded when only the required keys are set, to their examples.
pub(crate) fn default_config() -> Option<Config> {
    let mut text = String::new();
    for field in Config::FIELDS {
        if let Shape::Table(fields) = field.shape {
            let _ = writeln!(text, "[{}]", field.key);
            required(&mut text, fields);
        }
    }
    for (name, kind) in EXAMPLES {
        let _ = writeln!(text, "[[sink]]\nname = \"{name}\"\ntype = \"{kind}\"");
        required(&mut text, sink_type(kind)?.fields);
    }
    load(&text, "reference", Path::new(""), &Environment::default()).ok()
}

fn required(text: &mut String, fields: &[Field]) {
    for field in fields.iter().filter(|field| field.required) {
        let _ = writeln!(text, "{} = {}", field.key, example(field));
    }
}

/// A key with its value as TOML; `None` where there is nothing to show.
pub(crate) type Shown = (&'static Field, Option<String>);

/// Name and keys of each `[section]`.
pub(crate) fn sections(config: &Config) -> Vec<(&'static str, Vec<Shown>)> {
    // Taken apart so that a section added to the model cannot be forgotten.
    let Config { source, buffer, copy, http, log, retry, shutdown_grace_ms: _, sinks: _ } = config;
    vec![
        ("source", shown(source)),
        ("buffer", shown(buffer)),
        ("copy", shown(copy)),
        ("http", shown(http)),
        ("log", shown(log)),
        ("retry", shown(retry)),
    ]
}

/// The keys of the top level that are no tables.
pub(crate) fn top_level(config: &Config) -> Vec<Shown> {
    let is_table = |field: &Field| matches!(field.shape, Shape::Table(_) | Shape::Sinks);
    shown(config).into_iter().filter(|(field, _)| !is_table(field)).collect()
}

fn shown<T: Section>(section: &T) -> Vec<Shown> {
    T::FIELDS.iter().zip(section.literals()).collect()
}

/// The keys that a sink has as every sink.
pub(crate) fn common_keys(sink: &SinkConfig) -> Vec<Shown> {
    CommonConfig::FIELDS.iter().zip(sink.common_literals()).collect()
}

/// The keys that a sink has by its type.
pub(crate) fn own_keys(sink: &SinkConfig) -> Vec<Shown> {
    let fields = sink_type(sink.kind.type_name()).map_or(&[][..], |known| known.fields);
    fields.iter().zip(sink.own_literals()).collect()
}

/// The description of a `[section]`.
pub(crate) fn about(section: &str) -> String {
    Config::FIELDS.iter().find(|field| field.key == section).map(Field::description).unwrap_or_default()
}

pub(crate) fn example(field: &Field) -> String {
    toml::Value::from(field.example.unwrap_or_default()).to_string()
}

fn setting(out: &mut String, field: &Field, value: Option<&str>) {
    out.push('\n');
    comment(out, &field.description());
    if let Shape::Choice(choices) = field.shape {
        for choice in choices {
            comment(out, &format!("- {}: {}", choice.word, choice.description()));
        }
    }
    assignment(out, field, value);
}

fn assignment(out: &mut String, field: &Field, value: Option<&str>) {
    let is_set = |value: &&str| !matches!(*value, "\"\"" | "[]");
    let _ = match value.filter(is_set) {
        Some(value) => writeln!(out, "{} = {value}", field.key),
        None if field.required => writeln!(out, "{} = {}", field.key, example(field)),
        None if field.example.is_some() => writeln!(out, "#{} = {}", field.key, example(field)),
        None => match value {
            // Empty is what it means.
            Some(empty) => writeln!(out, "{} = {empty}", field.key),
            None => writeln!(out, "#{} = \"\"", field.key),
        },
    };
}

/// `text` as comment lines.
fn comment(out: &mut String, text: &str) {
    let mut line = String::from("#");
    for word in text.split_whitespace() {
        if line.chars().count() + word.chars().count() + 1 > WIDTH {
            let _ = writeln!(out, "{line}");
            line.truncate(1);
        }
        line.push(' ');
        line.push_str(word);
    }
    let _ = writeln!(out, "{line}");
}
