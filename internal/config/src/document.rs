//! The configuration between its text and its structs: values, and where each came from.
//!
//! A place in it is a path, keys and array indices joined by dots: `source.slot`, `sink.0.batch.rows_max`.

use crate::ConfigError;
use crate::model::Config;
use crate::schema::{Field, Section, Shape};
use crate::sink::{CommonConfig, SINK_TYPES, sink_type};
use std::collections::{BTreeMap, BTreeSet};
use toml::de::{DeTable, DeValue};

pub(crate) struct Document {
    pub(crate) root: toml::Table,
    /// What errors call the text.
    name: String,
    origins: BTreeMap<String, Origin>,
    /// Places whose values came from the environment, and are not shown.
    hidden: BTreeSet<String>,
}

enum Origin {
    Line(usize),
    Variable(String),
}

impl Document {
    /// Reads TOML. Errors call the text `name`.
    pub(crate) fn parse(text: &str, name: &str) -> Result<Self, ConfigError> {
        let fault = |error: toml::de::Error| {
            // The message alone: its long form quotes the line, which may hold a secret.
            let line = error.span().map(|span| format!(":{}", line_at(text, span.start))).unwrap_or_default();
            ConfigError::new(format!("{name}{line}: not TOML: {}", error.message()))
        };
        let mut origins = BTreeMap::new();
        locate_table(DeTable::parse(text).map_err(fault)?.get_ref(), "", text, &mut origins);
        let root = toml::from_str(text).map_err(fault)?;
        Ok(Self { root, name: name.to_owned(), origins, hidden: BTreeSet::new() })
    }

    /// An error about `path`, opened by the line or the variable that it, or else what it is in, came from.
    pub(crate) fn error(&self, path: &str, message: impl AsRef<str>) -> ConfigError {
        let message = message.as_ref();
        let origin = self.lineage(path).find_map(|place| self.origins.get(place));
        ConfigError::new(match origin {
            Some(Origin::Line(line)) => format!("{}:{line}: {message}", self.name),
            Some(Origin::Variable(variable)) => format!("{variable}: {message}"),
            None => format!("{}: {message}", self.name),
        })
    }

    /// The path as people write it: sinks by their names, where they have one that may be shown.
    pub(crate) fn shown(&self, path: &str) -> String {
        let Some((index, rest)) =
            path.strip_prefix("sink.").map(|rest| rest.split_once('.').unwrap_or((rest, "")))
        else {
            return path.to_owned();
        };
        let name = format!("sink.{index}.name");
        let sink = match self.get(&name).and_then(toml::Value::as_str) {
            Some(text) if !text.is_empty() && !self.is_hidden(&name) => format!("sink.{text}"),
            _ => format!("sink[{index}]"),
        };
        if rest.is_empty() { sink } else { format!("{sink}.{rest}") }
    }

    /// The value of `path` as an error may have it.
    pub(crate) fn quoted(&self, path: &str, value: &str) -> String {
        if self.is_hidden(path) {
            "its value (from the environment)".to_owned()
        } else {
            format!("`{value}`")
        }
    }

    pub(crate) fn is_hidden(&self, path: &str) -> bool {
        self.lineage(path).any(|place| self.hidden.contains(place))
    }

    /// Marks `path` as set by an environment variable, with all that is in it.
    pub(crate) fn set_by_variable(&mut self, path: &str, variable: &str) {
        let inside = format!("{path}.");
        self.origins.retain(|place, _| !place.starts_with(&inside));
        self.origins.insert(path.to_owned(), Origin::Variable(variable.to_owned()));
        self.hide(path);
    }

    /// Marks the value of `path` as one not to be shown.
    pub(crate) fn hide(&mut self, path: &str) {
        self.hidden.insert(path.to_owned());
    }

    /// Whether `path` was set by an override.
    pub(crate) fn is_override(&self, path: &str) -> bool {
        self.lineage(path).any(|place| matches!(self.origins.get(place), Some(Origin::Variable(_))))
    }

    pub(crate) fn get(&self, path: &str) -> Option<&toml::Value> {
        let mut keys = path.split('.');
        let first = self.root.get(keys.next()?)?;
        keys.try_fold(first, |value, key| match value {
            toml::Value::Table(table) => table.get(key),
            toml::Value::Array(array) => array.get(key.parse::<usize>().ok()?),
            _ => None,
        })
    }

    /// Puts `value` at `path`, with the tables that lead there. Array elements must exist.
    pub(crate) fn set(&mut self, path: &str, value: toml::Value) {
        let (tables, key) = path.rsplit_once('.').unwrap_or(("", path));
        let mut table = &mut self.root;
        let mut keys = tables.split('.').filter(|key| !key.is_empty());
        while let Some(key) = keys.next() {
            let entry = table.entry(key).or_insert_with(|| toml::Table::new().into());
            let place = match entry {
                toml::Value::Array(array) => {
                    let index = keys.next().and_then(|index| index.parse::<usize>().ok());
                    let Some(element) = index.and_then(|index| array.get_mut(index)) else { return };
                    element
                }
                place => place,
            };
            if !place.is_table() {
                *place = toml::Table::new().into();
            }
            let toml::Value::Table(inner) = place else { return };
            table = inner;
        }
        table.insert(key.to_owned(), value);
    }

    /// The tables of `[[sink]]`, as far as they are tables.
    pub(crate) fn sinks(&self) -> impl Iterator<Item = (usize, &toml::Table)> {
        let sinks = self.root.get("sink").and_then(toml::Value::as_array);
        sinks.into_iter().flatten().enumerate().filter_map(|(index, sink)| Some((index, sink.as_table()?)))
    }

    /// Path and known keys of each table but the root.
    pub(crate) fn tables(&self) -> Vec<(String, Vec<Field>)> {
        let sections = Config::FIELDS.iter().filter_map(|field| match field.shape {
            Shape::Table(fields) => Some((field.key.to_owned(), fields.to_vec())),
            _ => None,
        });
        sections
            .chain(self.sinks().map(|(index, sink)| (format!("sink.{index}"), sink_fields(sink))))
            .collect()
    }

    /// The path, then what it is in, outwards.
    fn lineage<'a>(&self, path: &'a str) -> impl Iterator<Item = &'a str> + use<'a> {
        std::iter::successors(Some(path), |path| path.rsplit_once('.').map(|(outer, _)| outer))
    }
}

/// The keys of a sink: those of all sinks and those of its type; of every type, when it has none that is known.
pub(crate) fn sink_fields(sink: &toml::Table) -> Vec<Field> {
    let known = sink.get("type").and_then(toml::Value::as_str).and_then(sink_type);
    let own = match known {
        Some(known) => known.fields.to_vec(),
        None => SINK_TYPES.iter().flat_map(|each| each.fields).copied().collect(),
    };
    CommonConfig::FIELDS.iter().copied().chain(own).collect()
}

/// `path` and one key more.
pub(crate) fn join(path: &str, key: impl std::fmt::Display) -> String {
    if path.is_empty() { key.to_string() } else { format!("{path}.{key}") }
}

fn locate_table(table: &DeTable<'_>, path: &str, text: &str, origins: &mut BTreeMap<String, Origin>) {
    for (key, value) in table {
        let place = join(path, key.get_ref());
        origins.insert(place.clone(), Origin::Line(line_at(text, key.span().start)));
        match value.get_ref() {
            DeValue::Table(inner) => locate_table(inner, &place, text, origins),
            DeValue::Array(array) => {
                for (index, element) in array.iter().enumerate() {
                    let place = join(&place, index);
                    origins.insert(place.clone(), Origin::Line(line_at(text, element.span().start)));
                    if let DeValue::Table(inner) = element.get_ref() {
                        locate_table(inner, &place, text, origins);
                    }
                }
            }
            _ => {}
        }
    }
}

/// Number of the line that has that byte, from 1.
fn line_at(text: &str, offset: usize) -> usize {
    1 + text.bytes().take(offset).filter(|&byte| byte == b'\n').count()
}
