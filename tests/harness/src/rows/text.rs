//! From what either database prints to one spelling.

use super::{Column, Kind};
use std::iter::Peekable;
use std::str::Chars;

/// Whose text it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Dialect {
    /// `COPY`'s text format. <https://www.postgresql.org/docs/current/sql-copy.html>
    Postgres,
    /// TSV. <https://clickhouse.com/docs/interfaces/formats/TabSeparated>
    ClickHouse,
}

/// A line as either prints it, each value in its canonical spelling.
///
/// Both write `\N` for NULL and have the same escapes but for `\v`, which is Postgres', and `\0` and `\'`, which
/// are ClickHouse's. In an array Postgres escapes its text as a whole, ClickHouse each element's once; an array that it has
/// as a text begins as Postgres writes it.
pub(super) fn canonical_row(line: &str, dialect: Dialect, columns: &[Column]) -> String {
    let fields = line.split('\t').count();
    // A table without columns prints empty lines.
    assert_eq!(fields, columns.len().max(1), "a row of other columns than {columns:?}: {line:?}");
    let mut row = String::with_capacity(line.len());
    for (index, (field, column)) in line.split('\t').zip(columns).enumerate() {
        if index > 0 {
            row.push('\t');
        }
        if field == "\\N" {
            row.push_str("\\N");
        } else if column.is_array
            && dialect == Dialect::ClickHouse
            && field.starts_with('[')
            && !field.contains("]={")
        {
            canonical(field, column, &mut row);
        } else {
            canonical(&unescape(field), column, &mut row);
        }
    }
    row
}

/// A line of values that are not escaped.
pub(super) fn canonical_texts(values: &[Option<String>], columns: &[Column]) -> String {
    assert_eq!(values.len(), columns.len(), "a row of other columns than {columns:?}: {values:?}");
    let mut row = String::new();
    for (index, (value, column)) in values.iter().zip(columns).enumerate() {
        if index > 0 {
            row.push('\t');
        }
        match value {
            Some(value) => canonical(value, column, &mut row),
            None => row.push_str("\\N"),
        }
    }
    row
}

fn unescape(field: &str) -> String {
    let mut out = String::with_capacity(field.len());
    let mut chars = field.chars();
    while let Some(c) = chars.next() {
        out.push(if c == '\\' { chars.next().map_or('\\', unescaped) } else { c });
    }
    out
}

fn unescaped(c: char) -> char {
    match c {
        'b' => '\u{8}',
        'f' => '\u{c}',
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        'v' => '\u{b}',
        '0' => '\0',
        other => other,
    }
}

fn canonical(value: &str, column: &Column, out: &mut String) {
    let mut spelled = String::new();
    if column.is_array && array(value, column.kind, &mut spelled).is_some() {
        escape(&spelled, out);
    } else {
        escape(&scalar(value, column.kind), out);
    }
}

fn escape(value: &str, out: &mut String) {
    for c in value.chars() {
        match c {
            '\t' => out.push_str("\\t"),
            '\n' => out.push_str("\\n"),
            '\\' => out.push_str("\\\\"),
            other => out.push(other),
        }
    }
}

fn scalar(value: &str, kind: Kind) -> String {
    match kind {
        Kind::Same => value.to_owned(),
        Kind::Bool => match value {
            "t" | "1" => "true".into(),
            "f" | "0" => "false".into(),
            other => other.to_owned(),
        },
        Kind::Time => time(value),
        Kind::Float4 => {
            value.parse::<f32>().map_or_else(|_| value.to_owned(), |number| format!("{number:?}"))
        }
        Kind::Float8 => {
            value.parse::<f64>().map_or_else(|_| value.to_owned(), |number| format!("{number:?}"))
        }
        Kind::Bytea => value.strip_prefix("\\x").unwrap_or(value).to_ascii_lowercase(),
    }
}

/// Without UTC's offset and without zeros at the end of the fraction.
fn time(value: &str) -> String {
    let (value, era) = value.strip_suffix(" BC").map_or((value, ""), |value| (value, " BC"));
    let value = value.strip_suffix("+00").unwrap_or(value);
    let value = if value.contains('.') { value.trim_end_matches('0').trim_end_matches('.') } else { value };
    format!("{value}{era}")
}

/// Appends `[a,b,…]` with each element in quotes, or NULL; for `{a,"b",NULL}` of Postgres or `[a,'b',NULL]` of
/// ClickHouse, of any depth. Lower bounds other than 1 are dropped. `None` when it is neither.
fn array(text: &str, kind: Kind, out: &mut String) -> Option<()> {
    // [0:1]={a,b}
    let literal = if text.starts_with('[') && text.contains("]={") { text.split_once('=')?.1 } else { text };
    let mut chars = literal.chars().peekable();
    list(&mut chars, kind, out)?;
    chars.next().is_none().then_some(())
}

fn list(chars: &mut Peekable<Chars<'_>>, kind: Kind, out: &mut String) -> Option<()> {
    let close = match chars.next()? {
        '{' => '}',
        '[' => ']',
        _ => return None,
    };
    out.push('[');
    loop {
        match *chars.peek()? {
            c if c == close => {
                chars.next();
                out.push(']');
                return Some(());
            }
            ',' => {
                chars.next();
                out.push(',');
            }
            '{' | '[' => list(chars, kind, out)?,
            quote @ ('"' | '\'') => {
                chars.next();
                element(&quoted(chars, quote)?, kind, out);
            }
            _ => {
                let word = unquoted(chars, close);
                if word == "NULL" { out.push_str("NULL") } else { element(&word, kind, out) }
            }
        }
    }
}

fn element(value: &str, kind: Kind, out: &mut String) {
    out.push('"');
    for c in scalar(value, kind).chars() {
        if matches!(c, '"' | '\\') {
            out.push('\\');
        }
        out.push(c);
    }
    out.push('"');
}

/// The rest of a quoted element. Postgres escapes nothing but the quote and the backslash; ClickHouse has the
/// escapes of its TSV.
fn quoted(chars: &mut Peekable<Chars<'_>>, quote: char) -> Option<String> {
    let mut out = String::new();
    loop {
        match chars.next()? {
            c if c == quote => return Some(out),
            '\\' => {
                let escaped = chars.next()?;
                out.push(if quote == '\'' { unescaped(escaped) } else { escaped });
            }
            c => out.push(c),
        }
    }
}

fn unquoted(chars: &mut Peekable<Chars<'_>>, close: char) -> String {
    let mut out = String::new();
    while let Some(&c) = chars.peek() {
        if c == ',' || c == close {
            break;
        }
        out.push(c);
        chars.next();
        // Postgres: array_in takes backslashes outside of quotes, array_out never writes them.
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spelled_by(dialect: Dialect, value: &str, kind: Kind, is_array: bool) -> String {
        canonical_row(value, dialect, &[Column { name: "c".into(), kind, is_array }])
    }

    fn spelled(value: &str, kind: Kind, is_array: bool) -> String {
        spelled_by(Dialect::Postgres, value, kind, is_array)
    }

    #[test]
    fn escapes_of_both_databases_are_undone() {
        for (escaped, value) in [
            ("a\\tb\\nc\\\\d\\v", "a\tb\nc\\d\u{b}"),
            ("\\\\N", "\\N"),
            ("", ""),
            ("it\\'s\\0\\b\\f\\r", "it's\0\u{8}\u{c}\r"),
        ] {
            assert_eq!(unescape(escaped), value);
        }
    }

    #[test]
    fn an_array_in_a_text_column_of_clickhouse_is_spelled_as_postgres_spells_it() {
        let in_postgres = spelled(r#"{ok,"low, \\"quoted\\""}"#, Kind::Same, true);
        let of_clickhouse = |field: &str| spelled_by(Dialect::ClickHouse, field, Kind::Same, true);
        assert_eq!(of_clickhouse(r#"{ok,"low, \\"quoted\\""}"#), in_postgres);
        assert_eq!(of_clickhouse(r#"['ok','low, "quoted"']"#), in_postgres);
    }

    #[test]
    fn one_value_has_one_spelling() {
        let pairs = [
            ("t", "true", Kind::Bool),
            ("2026-01-02 03:04:05+00", "2026-01-02 03:04:05.000000", Kind::Time),
            ("2026-01-02 03:04:05.12+00", "2026-01-02 03:04:05.120000", Kind::Time),
            ("10:20:00", "10:20:00.000000", Kind::Time),
            ("1e+20", "100000000000000000000", Kind::Float8),
            ("Infinity", "inf", Kind::Float8),
            ("NaN", "nan", Kind::Float4),
            ("-0", "-0.0", Kind::Float8),
            ("\\\\x00ff", "00FF", Kind::Bytea),
        ];
        for (postgres, clickhouse, kind) in pairs {
            assert_eq!(
                spelled_by(Dialect::Postgres, postgres, kind, false),
                spelled_by(Dialect::ClickHouse, clickhouse, kind, false)
            );
        }
    }

    #[test]
    fn different_values_have_different_spellings() {
        let pairs = [
            ("t", "f", Kind::Bool),
            ("2026-01-02 03:04:10", "2026-01-02 03:04:1", Kind::Time),
            ("0001-01-01 00:00:00+00 BC", "0001-01-01 00:00:00+00", Kind::Time),
            ("0.1", "0.10000000000000002", Kind::Float8),
            ("0", "-0", Kind::Float8),
            ("", "00", Kind::Bytea),
        ];
        for (a, b, kind) in pairs {
            assert_ne!(spelled(a, kind, false), spelled(b, kind, false), "{a} {b}");
        }
    }

    #[test]
    fn arrays_of_both_databases_have_one_spelling() {
        let pairs = [
            ("{1,2,NULL}", "[1,2,NULL]", Kind::Same),
            ("{{1,2},{3,4}}", "[[1,2],[3,4]]", Kind::Same),
            ("[0:1]={1,2}", "[1,2]", Kind::Same),
            ("{a,\"b c\",\"\",\"NULL\",\"it's\"}", "['a','b c','','NULL','it\\'s']", Kind::Same),
            ("{\"q\\\\\"\\\\\\\\\"}", "['q\"\\\\']", Kind::Same),
            ("{\"x\\ty\"}", "['x\\ty']", Kind::Same),
            ("{t,f}", "[true,false]", Kind::Bool),
            ("{\"2026-01-02 03:04:05+00\"}", "['2026-01-02 03:04:05.000000']", Kind::Time),
            ("{}", "[]", Kind::Same),
        ];
        for (postgres, clickhouse, kind) in pairs {
            assert_eq!(
                spelled_by(Dialect::Postgres, postgres, kind, true),
                spelled_by(Dialect::ClickHouse, clickhouse, kind, true)
            );
        }
        assert_ne!(spelled("{NULL}", Kind::Same, true), spelled("{\"NULL\"}", Kind::Same, true));
        assert_ne!(spelled("{{1},{2}}", Kind::Same, true), spelled("{1,2}", Kind::Same, true));
        assert_ne!(spelled("{\"a,b\"}", Kind::Same, true), spelled("{a,b}", Kind::Same, true));
    }
}
