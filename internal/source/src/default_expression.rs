//! Which column defaults mean the same in any database: literals.
//!
//! What is looked at is `pg_get_expr`'s text under `search_path = pg_catalog`, so a type of another schema has a
//! point in its name. A literal with one cast (`'x'::text`, `'-5'::integer`) is a constant of that type; a cast of
//! something in parentheses (`('now'::text)::date`) is worked out at each insert and is none, but for a number.
//!
//! Source: `get_const_expr` and `get_coercion_expr` in Postgres' `src/backend/utils/adt/ruleutils.c`.

/// Whether the expression is a literal, NULL, a number or a boolean, possibly with a cast to a built-in type.
pub(crate) fn is_literal(expression: &str) -> bool {
    let Some(rest) = after_literal(expression) else { return false };
    match rest.strip_prefix("::") {
        Some(type_sql) => is_built_in_type(type_sql),
        None => rest.is_empty(),
    }
}

/// What follows the literal at the front.
fn after_literal(text: &str) -> Option<&str> {
    for word in ["NULL", "true", "false"] {
        if let Some(rest) = text.strip_prefix(word) {
            return Some(rest);
        }
    }
    if let Some(rest) = text.strip_prefix("B'").or_else(|| text.strip_prefix('\'')) {
        return after_quoted(rest);
    }
    if let Some(rest) = text.strip_prefix('(') {
        return after_number(rest)?.strip_prefix(')');
    }
    after_number(text)
}

/// `rest` begins behind the opening quote. A quote inside is doubled; nothing else is escaped.
fn after_quoted(rest: &str) -> Option<&str> {
    let mut characters = rest.char_indices().peekable();
    while let Some((at, character)) = characters.next() {
        match character {
            '\'' if characters.peek().is_some_and(|&(_, next)| next == '\'') => {
                characters.next();
            }
            '\'' => return rest.get(at + 1..),
            _ => {}
        }
    }
    None
}

fn after_number(text: &str) -> Option<&str> {
    let unsigned = text.strip_prefix('-').unwrap_or(text);
    let rest = unsigned.trim_start_matches(|character: char| character.is_ascii_digit());
    if rest.len() == unsigned.len() {
        return None;
    }
    let rest = match rest.strip_prefix('.') {
        Some(fraction) => fraction.trim_start_matches(|character: char| character.is_ascii_digit()),
        None => rest,
    };
    let Some(exponent) = rest.strip_prefix('e') else { return Some(rest) };
    let digits = exponent.trim_start_matches(['+', '-']);
    let rest = digits.trim_start_matches(|character: char| character.is_ascii_digit());
    (rest.len() < digits.len()).then_some(rest)
}

/// `reg…` types are built in, and their values are not.
fn is_built_in_type(type_sql: &str) -> bool {
    let plain = |character: char| {
        character.is_ascii_lowercase() || character.is_ascii_digit() || " _,()[]\"".contains(character)
    };
    !type_sql.is_empty() && !type_sql.starts_with("reg") && type_sql.chars().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn literals_are_told_from_expressions() {
        for literal in [
            "0",
            "-1.5",
            "1e100",
            "(0)::numeric",
            "'-1'::integer",
            "NULL::character varying",
            "NULL",
            "true",
            "'it''s'::text",
            "'a\\'::text",
            "'{1,2}'::integer[]",
            "'00:00:01'::interval day to second(3)",
            "'a'::\"char\"",
            "B'101'::\"bit\"",
            "'2026-01-01 00:00:00'::timestamp without time zone",
        ] {
            assert!(is_literal(literal), "{literal}");
        }
        for expression in [
            "",
            "now()",
            "('now'::text)::date",
            "nextval('public.t_id_seq'::regclass)",
            "'public.t'::regclass",
            "'a'::public.mood",
            "('a'::text || 'b'::text)",
            "'a'::text || 'b'::text",
            "1 + 1",
            "(1 + 1)",
            "CURRENT_USER",
            "truely()",
            "'unclosed",
            "'unclosed''",
            "-",
            "1e",
            "'a'::text COLLATE \"C\"",
        ] {
            assert!(!is_literal(expression), "{expression}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[-'E\\\\()é:.0-9a-z]{0,20}") {
            is_literal(&text);
        }
    }
}
