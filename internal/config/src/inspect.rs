//! Whether the document has the keys and types that the model wants. Done before serde, which would quote
//! the values it does not like.

use crate::ConfigError;
use crate::document::{Document, join, sink_fields};
use crate::model::Config;
use crate::nearest::nearest;
use crate::schema::{Field, Section, Shape};
use crate::sink::{SINK_TYPES, sink_type};
use toml::Value;

/// Looks for unknown keys, values of the wrong type, and missing keys, and tells the first.
pub(crate) fn inspect(document: &Document) -> Result<(), ConfigError> {
    inspect_table(document, "", &document.root, Config::FIELDS)
}

fn inspect_table(
    document: &Document,
    path: &str,
    table: &toml::Table,
    fields: &[Field],
) -> Result<(), ConfigError> {
    // Unknown before missing: a slip of the pen is both.
    for key in table.keys() {
        if !fields.iter().any(|field| field.key == key) {
            return Err(document.error(&join(path, key), unknown_key(document, path, key, fields)));
        }
    }
    for field in fields {
        let place = join(path, field.key);
        match (table.get(field.key), field.shape) {
            (Some(value), shape) => inspect_value(document, &place, value, shape)?,
            // Without the table, its required keys are missing.
            (None, Shape::Table(inner)) => inspect_table(document, &place, &toml::Table::new(), inner)?,
            (None, _) => {}
        }
        if field.required {
            require(document, &place, table.get(field.key), field)?;
        }
    }
    Ok(())
}

fn require(document: &Document, path: &str, value: Option<&Value>, field: &Field) -> Result<(), ConfigError> {
    let state = match value {
        None => "is missing",
        Some(Value::String(text)) if text.trim().is_empty() => "is empty",
        Some(_) => return Ok(()),
    };
    let example = field.example.map(|example| Value::from(example).to_string()).unwrap_or_default();
    let shown = document.shown(path);
    Err(document.error(path, format!("`{shown}` {state}; set it, for instance {} = {example}", field.key)))
}

fn inspect_value(document: &Document, path: &str, value: &Value, shape: Shape) -> Result<(), ConfigError> {
    let fault = |message: String| Err(document.error(path, message));
    let shown = document.shown(path);
    match (shape, value) {
        (Shape::Text | Shape::Secret | Shape::Path, Value::String(_)) | (Shape::Flag, Value::Boolean(_)) => {
            Ok(())
        }
        (Shape::Number(max), Value::Integer(number)) => match u64::try_from(*number) {
            Ok(number) if number <= max => Ok(()),
            _ => fault(format!("`{shown}` must be from 0 to {max}")),
        },
        (Shape::Size, Value::Integer(0..)) => Ok(()),
        (Shape::Size, Value::String(text)) if crate::parse_bytes(text).is_some() => Ok(()),
        (Shape::Size, Value::String(text)) => {
            fault(format!("`{shown}` must be {}; {} is none", shape.name(), document.quoted(path, text)))
        }
        (Shape::List, Value::Array(elements)) if elements.iter().all(Value::is_str) => Ok(()),
        (Shape::Choice(words), Value::String(text)) => {
            let words: Vec<_> = words.iter().map(|choice| choice.word).collect();
            match words.contains(&text.as_str()) {
                true => Ok(()),
                false => fault(format!("`{shown}`: {}", no_such_word(document, path, text, &words))),
            }
        }
        (Shape::Table(fields), Value::Table(table)) => inspect_table(document, path, table, fields),
        (Shape::Sinks, Value::Array(sinks)) if sinks.iter().all(Value::is_table) => {
            document.sinks().try_for_each(|(index, sink)| inspect_sink(document, &join(path, index), sink))
        }
        (shape, value) => fault(format!("`{shown}` must be {}, not {}", shape.name(), type_name(value))),
    }
}

fn inspect_sink(document: &Document, path: &str, sink: &toml::Table) -> Result<(), ConfigError> {
    let fields = sink_fields(sink);
    let types: Vec<_> = SINK_TYPES.iter().map(|known| known.name).collect();
    match sink.get("type").and_then(Value::as_str) {
        Some(name) if !name.is_empty() && sink_type(name).is_none() => {
            let place = join(path, "type");
            let message = no_such_word(document, &place, name, &types);
            Err(document.error(&place, format!("`{}`: {message}", document.shown(&place))))
        }
        _ => inspect_table(document, path, sink, &fields),
    }
}

fn no_such_word(document: &Document, path: &str, text: &str, words: &[&str]) -> String {
    let known = words.join(", ");
    match nearest(text, words.iter().copied()) {
        Some(meant) if !document.is_hidden(path) => {
            format!("`{text}` is not known; did you mean `{meant}`? (known: {known})")
        }
        _ => format!("its value (from the environment) is not known (known: {known})"),
    }
}

/// What to say of a key that the table at `path`, with these fields, does not have.
pub(crate) fn unknown_key(document: &Document, path: &str, key: &str, fields: &[Field]) -> String {
    let unknown = format!("unknown key `{}`", document.shown(&join(path, key)));
    // The same key in another place is nearer than a like one in this.
    let homes = Config::FIELDS.iter().filter(|home| !path.starts_with("sink") && home.key != path);
    let home = homes.into_iter().find(|home| match home.shape {
        Shape::Table(inner) => inner.iter().any(|field| field.key == key),
        _ => false,
    });
    if let Some(home) = home {
        return format!("{unknown}; did you mean `{}.{key}`?", home.key);
    }
    let other_type = SINK_TYPES
        .iter()
        .find(|other| path.starts_with("sink") && other.fields.iter().any(|field| field.key == key));
    let remark =
        other_type.map(|other| format!(" (`{key}` is for type = \"{}\")", other.name)).unwrap_or_default();
    match nearest(key, fields.iter().map(|field| field.key)) {
        Some(meant) => format!("{unknown}; did you mean `{meant}`?{remark}"),
        None => unknown,
    }
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::String(_) => "a text",
        Value::Integer(_) => "an integer",
        Value::Float(_) => "a float",
        Value::Boolean(_) => "true or false",
        Value::Datetime(_) => "a date or time",
        Value::Array(_) => "a list",
        Value::Table(_) => "a table",
    }
}
