//! What the sinks hold, as text that can be compared with Postgres' own.

use super::{Case, Json};
use replicator_harness::ClickHouse;
use serde_json::Value;
use std::collections::BTreeMap;

const BYTEA: u32 = 17;
const TIMESTAMPTZ: u32 = 1184;

/// A table of ClickHouse: types by column, and values by key and column. An array's value is a JSON list of texts.
#[derive(Debug)]
pub struct ClickHouseValues {
    /// Type by column.
    pub types: BTreeMap<String, String>,
    /// Canonical texts by key, in the order of the columns asked for.
    pub rows: BTreeMap<String, Vec<Option<String>>>,
}

impl ClickHouseValues {
    /// Reads a mirror table; the first of `columns` is its key, as text.
    ///
    /// # Panics
    /// When it cannot be read, or the key is there twice.
    pub fn read(clickhouse: &ClickHouse, database: &str, case: &Case, table: &str, columns: &[&str]) -> Self {
        let types: BTreeMap<String, String> = clickhouse
            .query(&format!(
                "SELECT name, type FROM system.columns WHERE database = '{database}' AND table = '{table}' FORMAT TSVRaw"
            ))
            .lines()
            .filter_map(|line| line.split_once('\t'))
            .map(|(name, of)| (name.to_owned(), of.to_owned()))
            .collect();
        let type_of =
            |column: &str| types.get(column).unwrap_or_else(|| panic!("{table} has no column {column}"));
        let expression = |column: &&str| {
            let of = type_of(column);
            // Arrays that are their text are it for a bytea too.
            let is_raw = case.oid == BYTEA && (["v", "k"].contains(column) || of.starts_with("Array"));
            text_expression(is_raw, of, &format!("`{column}`"))
        };
        let expressions: Vec<String> = columns.iter().map(expression).collect();
        let json = clickhouse.query(&format!(
            "SELECT {} FROM `{database}`.`{table}` FINAL FORMAT JSONCompactEachRow",
            expressions.join(", ")
        ));
        let mut rows = BTreeMap::new();
        for line in json.lines() {
            let values: Vec<Value> =
                serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
            let texts: Vec<Option<String>> = values
                .iter()
                .zip(columns)
                .map(|(value, column)| canonical(value, case, type_of(column)))
                .collect();
            let key = texts.first().cloned().flatten().expect("a key that is not NULL");
            assert!(rows.insert(key, texts).is_none(), "{table} has a key twice: {line}");
        }
        Self { types, rows }
    }
}

fn argument<'t>(of: &'t str, name: &str) -> Option<&'t str> {
    of.strip_prefix(name)?.strip_prefix('(')?.strip_suffix(')')
}

/// SQL for the value's text; NULL for NULL. `is_raw` says that strings are a `bytea`'s bytes.
fn text_expression(is_raw: bool, of: &str, value: &str) -> String {
    if let Some(inner) = argument(of, "LowCardinality") {
        return text_expression(is_raw, inner, &format!("CAST({value} AS {inner})"));
    }
    if let Some(element) = argument(of, "Array") {
        return format!("arrayMap(e -> {}, {value})", text_expression(is_raw, element, "e"));
    }
    let inner = argument(of, "Nullable").unwrap_or(of);
    let known = format!("assumeNotNull({value})");
    let text = match inner {
        "Bool" => format!("if({known}, 't', 'f')"),
        "Float32" | "Float64" => format!("if(isNaN({known}), 'NaN', hex({known}))"),
        "String" if is_raw => format!("concat('\\\\x', lower(hex({known})))"),
        "String" => known,
        _ => match argument(inner, "Decimal").and_then(|both| both.split_once(", ")) {
            Some((_, scale)) => format!("toDecimalString({known}, {scale})"),
            None => format!("toString({known})"),
        },
    };
    if inner == of { text } else { format!("if(isNull({value}), NULL, {text})") }
}

/// The text of a value that [`text_expression`] gave.
fn canonical(value: &Value, case: &Case, of: &str) -> Option<String> {
    match value {
        Value::Null => None,
        Value::Array(elements) => {
            let element = argument(of, "Array").unwrap_or(of);
            let texts: Vec<Option<String>> =
                elements.iter().map(|value| canonical(value, case, element)).collect();
            Some(serde_json::to_string(&texts).expect("texts are JSON"))
        }
        Value::String(text) if of.contains("DateTime64") => {
            let text =
                if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { text };
            Some(format!("{text}{}", if case.oid == TIMESTAMPTZ { "+00" } else { "" }))
        }
        Value::String(text) => Some(text.clone()),
        other => panic!("not a text: {other}"),
    }
}

/// What ClickHouse is to show, in the canonical text of a column of type `of`, for a value that Postgres shows as
/// `text`.
pub fn expected_in_clickhouse(case: &Case, of: &str, text: &str) -> Option<String> {
    match case.clamped(text).filter(|_| !of.contains("String")) {
        Some("NULL") => return None,
        Some(clamped) => return Some(clamped.to_owned()),
        None => {}
    }
    Some(if of.contains("Float32") {
        let number: f32 = text.parse().expect("a float");
        if number.is_nan() { "NaN".into() } else { hex(&number.to_le_bytes()) }
    } else if of.contains("Float64") {
        let number: f64 = text.parse().expect("a float");
        if number.is_nan() { "NaN".into() } else { hex(&number.to_le_bytes()) }
    } else {
        text.to_owned()
    })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02X}")).collect()
}

/// The text of a value in the archive, which must be of the sort of JSON that the case says.
///
/// # Panics
/// When it is not.
pub fn json_text(json: Json, value: &Value) -> Option<String> {
    match (json, value) {
        (_, Value::Null) => None,
        (Json::Bool, Value::Bool(flag)) => Some(if *flag { "t" } else { "f" }.to_owned()),
        (Json::Integer, Value::Number(number)) if number.is_i64() || number.is_u64() => {
            Some(number.to_string())
        }
        // Two spellings of a number are one here.
        (Json::Float, Value::Number(number)) => Some(format!("{:?}", number.as_f64().expect("a float"))),
        (Json::Float, Value::String(text)) if ["NaN", "Infinity", "-Infinity"].contains(&text.as_str()) => {
            Some(text.clone())
        }
        (Json::String, Value::String(text)) => Some(text.clone()),
        _ => panic!("{value} is not {json:?}"),
    }
}
