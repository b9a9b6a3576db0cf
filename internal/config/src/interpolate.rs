//! `${VAR}` in the file's texts.

use crate::document::{Document, join};
use crate::{ConfigError, Environment};
use std::fmt;

/// Replaces `${VAR}` and `${VAR:-default}` in every text of the document; `$${` becomes `${`. Values set by
/// overrides are left alone: they came from the environment as they are meant.
pub(crate) fn interpolate(document: &mut Document, environment: &Environment) -> Result<(), ConfigError> {
    let mut texts = Vec::new();
    for (key, value) in &document.root {
        collect(key.clone(), value, &mut texts);
    }
    for (path, text) in texts {
        if document.is_override(&path) {
            continue;
        }
        let expanded = expand(&text, environment)
            .map_err(|fault| document.error(&path, format!("`{}` {fault}", document.shown(&path))))?;
        let Some(Expanded { text, has_variables }) = expanded else { continue };
        replace(document, &path, text);
        if has_variables {
            document.hide(&path);
        }
    }
    Ok(())
}

/// Paths and texts of all strings that might need it.
fn collect(path: String, value: &toml::Value, texts: &mut Vec<(String, String)>) {
    match value {
        toml::Value::String(text) if text.contains("${") => texts.push((path, text.clone())),
        toml::Value::Array(array) => {
            for (index, element) in array.iter().enumerate() {
                collect(join(&path, index), element, texts);
            }
        }
        toml::Value::Table(table) => {
            for (key, value) in table {
                collect(join(&path, key), value, texts);
            }
        }
        _ => {}
    }
}

fn replace(document: &mut Document, path: &str, text: String) {
    if let Some((array, index)) = path.rsplit_once('.')
        && let Ok(index) = index.parse::<usize>()
        && let Some(toml::Value::Array(elements)) = document.get(array)
    {
        let mut elements = elements.clone();
        if let Some(element) = elements.get_mut(index) {
            *element = text.into();
        }
        document.set(array, elements.into());
    } else {
        document.set(path, text.into());
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Expanded {
    text: String,
    has_variables: bool,
}

#[derive(Debug, PartialEq, Eq)]
enum Fault {
    Unclosed,
    NoName,
    Unset(String),
    NotText(String),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unclosed => f.write_str("has a `${` without `}`; write `$${` for a `${` that means itself"),
            Self::NoName => f.write_str(
                "has a `${…}` without a variable's name; write `$${` for a `${` that means itself",
            ),
            Self::Unset(name) => write!(
                f,
                "needs the environment variable {name}, which is not set; set it, or write ${{{name}:-default}}"
            ),
            Self::NotText(name) => write!(f, "needs the environment variable {name}, which is not UTF-8"),
        }
    }
}

/// `None` when there is nothing to do.
fn expand(text: &str, environment: &Environment) -> Result<Option<Expanded>, Fault> {
    let Some(first) = text.find("${") else { return Ok(None) };
    let mut out = String::with_capacity(text.len());
    let mut has_variables = false;
    let mut rest = text;
    let mut at = Some(first);
    while let Some(start) = at {
        let (before, opened) = rest.split_at(start);
        let inner = opened.strip_prefix("${").unwrap_or_default();
        if let Some(before) = before.strip_suffix('$') {
            out.push_str(before);
            out.push_str("${");
            rest = inner;
        } else {
            out.push_str(before);
            let (variable, after) = inner.split_once('}').ok_or(Fault::Unclosed)?;
            out.push_str(&value(variable, environment)?);
            has_variables = true;
            rest = after;
        }
        at = rest.find("${");
    }
    out.push_str(rest);
    Ok(Some(Expanded { text: out, has_variables }))
}

/// `VAR` or `VAR:-default`; the default also when the variable is empty, as in a shell.
fn value(variable: &str, environment: &Environment) -> Result<String, Fault> {
    let (name, default) = match variable.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (variable, None),
    };
    let mut letters = name.chars();
    let is_name = letters.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
        && letters.all(|c| c.is_ascii_alphanumeric() || c == '_');
    if !is_name {
        return Err(Fault::NoName);
    }
    let set = environment.get(name).map_err(|_| Fault::NotText(name.to_owned()))?;
    match (set, default) {
        (Some(value), None) => Ok(value.to_owned()),
        (Some(value), Some(_)) if !value.is_empty() => Ok(value.to_owned()),
        (_, Some(default)) => Ok(default.to_owned()),
        (None, None) => Err(Fault::Unset(name.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expanded(text: &str) -> Result<String, Fault> {
        let environment: Environment = [("A", "1"), ("EMPTY", ""), ("NESTED", "${A}")]
            .map(|(k, v)| (k.into(), v.into()))
            .into_iter()
            .collect();
        Ok(expand(text, &environment)?.map_or_else(|| text.to_owned(), |expanded| expanded.text))
    }

    #[test]
    fn variables_defaults_and_escapes_are_replaced() {
        for (text, expected) in [
            ("plain $A $ {A}", "plain $A $ {A}"),
            ("x${A}y${A}", "x1y1"),
            ("${EMPTY}", ""),
            ("${EMPTY:-d}${NONE:-}${NONE:-a:-b}", "da:-b"),
            ("$${A} ${A}", "${A} 1"),
            ("a$${", "a${"),
            ("ü${A}ü", "ü1ü"),
        ] {
            assert_eq!(expanded(text).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn a_value_is_not_looked_at_again() {
        assert_eq!(expanded("${NESTED}").as_deref(), Ok("${A}"));
    }

    #[test]
    fn what_cannot_be_replaced_is_a_fault() {
        assert_eq!(expanded("${NONE}"), Err(Fault::Unset("NONE".into())));
        assert_eq!(expanded("${A"), Err(Fault::Unclosed));
        for text in ["${}", "${1A}", "${A B}", "${:-x}"] {
            assert_eq!(expanded(text), Err(Fault::NoName), "{text}");
        }
    }
}
