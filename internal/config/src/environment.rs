//! `REPLICATOR__SOURCE__SLOT=…`: keys set by the environment.

use crate::ConfigError;
use crate::document::{Document, join, sink_fields};
use crate::inspect::unknown_key;
use crate::model::Config;
use crate::schema::{Field, Section, Shape};
use std::collections::BTreeMap;
use std::ffi::OsString;

const PREFIX: &str = "REPLICATOR__";

/// Environment variables, as far as their names are UTF-8. They hold secrets, so there is no `Debug`.
#[derive(Clone, Default)]
pub struct Environment(BTreeMap<String, OsString>);

/// The variable's value is not UTF-8.
#[derive(Debug)]
pub(crate) struct NotUtf8;

impl Environment {
    /// Those of this process.
    pub fn of_process() -> Self {
        Self(
            std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value))).collect(),
        )
    }

    pub(crate) fn get(&self, name: &str) -> Result<Option<&str>, NotUtf8> {
        self.0.get(name).map(|value| value.to_str().ok_or(NotUtf8)).transpose()
    }
}

impl FromIterator<(String, String)> for Environment {
    fn from_iter<T: IntoIterator<Item = (String, String)>>(variables: T) -> Self {
        Self(variables.into_iter().map(|(name, value)| (name, value.into())).collect())
    }
}

/// Sets what the `REPLICATOR__…` variables say. Two underscores separate levels; a sink goes by its name
/// (`-` written `_`) or its number from 0, and the number after the last adds a sink.
pub(crate) fn override_keys(document: &mut Document, environment: &Environment) -> Result<(), ConfigError> {
    let mut overrides: Vec<(&str, Vec<String>)> = environment
        .0
        .keys()
        .filter_map(|name| {
            let levels = name.strip_prefix(PREFIX)?.split("__").map(str::to_ascii_lowercase).collect();
            Some((name.as_str(), levels))
        })
        .collect();
    // A sink's type decides which keys it has, and sinks are added in order.
    overrides.sort_by_key(|(_, levels)| {
        let number = levels.get(1).and_then(|level| level.parse::<usize>().ok());
        (levels.get(2).is_none_or(|level| level != "type"), number)
    });
    for (variable, levels) in overrides {
        let fault = |message: String| ConfigError::new(format!("{variable}: {message}"));
        let levels: Vec<&str> = levels.iter().map(String::as_str).collect();
        let (path, shape) = resolve(document, &levels).map_err(fault)?;
        let text = environment.get(variable).map_err(|_| fault("is not UTF-8".into()))?.unwrap_or_default();
        let value = read(shape, text)
            .ok_or_else(|| fault(format!("`{}` must be {}", document.shown(&path), shape.name())))?;
        document.set(&path, value);
        document.set_by_variable(&path, variable);
    }
    Ok(())
}

/// The path that the levels mean and the shape of its value.
fn resolve(document: &mut Document, levels: &[&str]) -> Result<(String, Shape), String> {
    match levels {
        ["sink", sink, rest @ ..] if !rest.is_empty() => {
            let index = find_sink(document, sink)?;
            let fields = document
                .sinks()
                .find(|(number, _)| *number == index)
                .map(|(_, sink)| sink_fields(sink))
                .unwrap_or_default();
            descend(document, &format!("sink.{index}"), &fields, rest)
        }
        ["sink", ..] => {
            Err("names no key of a sink; write for instance REPLICATOR__SINK__ANALYTICS__URL".into())
        }
        levels => descend(document, "", Config::FIELDS, levels),
    }
}

fn descend(
    document: &Document,
    path: &str,
    fields: &[Field],
    levels: &[&str],
) -> Result<(String, Shape), String> {
    let (level, rest) = levels.split_first().ok_or("names no key")?;
    let place = join(path, level);
    let Some(field) = fields.iter().find(|field| field.key == *level) else {
        return Err(unknown_key(document, path, level, fields));
    };
    match (field.shape, rest.is_empty()) {
        (Shape::Table(inner), false) => descend(document, &place, inner, rest),
        (shape, true) => Ok((place, shape)),
        (_, false) => Err(format!("`{}` has no keys of its own", document.shown(&place))),
    }
}

/// The index of the sink of that name or number. A number one past the end makes a sink.
fn find_sink(document: &mut Document, sink: &str) -> Result<usize, String> {
    let names: Vec<_> = document
        .sinks()
        .map(|(index, sink)| {
            (index, sink.get("name").and_then(toml::Value::as_str).unwrap_or_default().to_owned())
        })
        .collect();
    if let Some((index, _)) = names.iter().find(|(_, name)| variable_name(name) == sink) {
        return Ok(*index);
    }
    let sinks = document.root.entry("sink").or_insert_with(|| toml::value::Array::new().into());
    let sinks = sinks.as_array_mut().ok_or("`sink` must be tables that begin with [[sink]]")?;
    match sink.parse::<usize>() {
        Ok(index) if index < sinks.len() => Ok(index),
        Ok(index) if index == sinks.len() => {
            sinks.push(toml::Table::new().into());
            Ok(index)
        }
        _ => {
            let known: Vec<_> = names.iter().map(|(index, name)| format!("{index} `{name}`")).collect();
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            Err(format!("no sink has the name or number `{sink}`; there are: {known}"))
        }
    }
}

/// How a sink's name is written in a variable, in small letters.
pub(crate) fn variable_name(sink: &str) -> String {
    sink.replace('-', "_")
}

/// The value as the key wants it. What a text means beyond its TOML type is checked later, as for the file.
fn read(shape: Shape, text: &str) -> Option<toml::Value> {
    match shape {
        Shape::Text | Shape::Secret | Shape::Path | Shape::Choice(_) => Some(text.into()),
        Shape::Flag => text.parse::<bool>().ok().map(toml::Value::from),
        Shape::Number(_) => text.parse::<i64>().ok().map(toml::Value::from),
        Shape::Size => Some(text.parse::<i64>().map_or_else(|_| text.into(), toml::Value::from)),
        Shape::List if text.trim_start().starts_with('[') => text.trim().parse().ok(),
        Shape::List => {
            let elements = text.split(',').map(str::trim).filter(|element| !element.is_empty());
            Some(toml::Value::Array(elements.map(toml::Value::from).collect()))
        }
        Shape::Table(_) => text.trim().parse().ok().filter(toml::Value::is_table),
        Shape::Sinks => None,
    }
}
