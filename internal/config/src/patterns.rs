use serde::Deserialize;
use std::str::Chars;

/// Globs over `schema.table`: `public.*`, `*.orders`, `shop.order_?`. Everything when empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct TablePatterns(pub Vec<String>);

impl TablePatterns {
    /// Whether every table matches.
    pub fn is_everything(&self) -> bool {
        self.0.is_empty() || self.0.iter().any(|pattern| pattern == "*" || pattern == "*.*")
    }

    /// Whether `schema.table` matches one of them. A pattern without a dot is of schema `public`,
    /// but for `*` alone, which is every table.
    pub fn matches(&self, schema: &str, table: &str) -> bool {
        self.is_everything()
            || self.0.iter().any(|pattern| {
                let (schema_glob, table_glob) = pattern.split_once('.').unwrap_or(("public", pattern));
                glob(schema_glob, schema) && glob(table_glob, table)
            })
    }
}

/// `*` is any run of characters, `?` any one, everything else itself.
///
/// On a mismatch only the latest `*` takes one character more: an earlier one never has to, so the time is
/// at most the product of the lengths.
fn glob(pattern: &str, text: &str) -> bool {
    let (mut pattern, mut text) = (pattern.chars(), text.chars());
    // Behind the latest `*`: the rest of the pattern, and the text that it was last tried on.
    let mut retry: Option<(Chars<'_>, Chars<'_>)> = None;
    loop {
        let (mut next_pattern, mut next_text) = (pattern.clone(), text.clone());
        match (next_pattern.next(), next_text.next()) {
            (None, None) => return true,
            (Some('*'), _) => {
                retry = Some((next_pattern.clone(), text.clone()));
                pattern = next_pattern;
            }
            (Some(wanted), Some(found)) if wanted == '?' || wanted == found => {
                (pattern, text) = (next_pattern, next_text);
            }
            _ => {
                let Some((rest, tried)) = &mut retry else { return false };
                if tried.next().is_none() {
                    return false;
                }
                (pattern, text) = (rest.clone(), tried.clone());
            }
        }
    }
}

/// Why a pattern cannot be meant so; `None` when it is fine.
pub(crate) fn fault(pattern: &str) -> Option<&'static str> {
    let (schema, table) = pattern.split_once('.').unwrap_or(("public", pattern));
    if schema.is_empty() || table.is_empty() {
        return Some("has an empty part; write schema.table, for instance public.orders or public.*");
    }
    if pattern.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Some("has white space; write one pattern for each list element");
    }
    if pattern.starts_with('!') || pattern.contains(['"', '\'', ',', '[', ']', '{', '}', '(', ')', '\\']) {
        return Some(
            "has signs that are not part of a pattern; only * (any run) and ? (any one character) are special",
        );
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patterns(list: &[&str]) -> TablePatterns {
        TablePatterns(list.iter().map(|&pattern| pattern.to_owned()).collect())
    }

    #[test]
    fn patterns_match_schema_and_table_apart() {
        let some = patterns(&["public.*", "shop.order_?", "*.audit", "plain"]);
        for (schema, table) in
            [("public", "a"), ("shop", "order_1"), ("x", "audit"), ("public", "plain"), ("public", "a.b")]
        {
            assert!(some.matches(schema, table), "{schema}.{table}");
        }
        for (schema, table) in [("shop", "order_12"), ("shop", "plain"), ("publicx", "a"), ("Public", "a")] {
            assert!(!some.matches(schema, table), "{schema}.{table}");
        }
        assert!(patterns(&[]).matches("any", "thing"));
        assert!(patterns(&["*.*"]).is_everything());
    }

    #[test]
    fn a_lone_star_is_every_table() {
        assert!(patterns(&["*"]).is_everything());
        assert!(patterns(&["*"]).matches("shop", "a"));
        assert!(!patterns(&["a*"]).matches("shop", "a"));
    }

    #[test]
    fn globs_backtrack_over_several_stars() {
        for (pattern, text, expected) in [
            ("*", "", true),
            ("", "", true),
            ("", "a", false),
            ("a*b*c", "aXbXbXc", true),
            ("a*b*c", "aXbXbX", false),
            ("*ab", "aab", true),
            ("**", "x", true),
            ("?", "", false),
            ("a*", "b", false),
            ("*a?", "aaab", true),
            ("t?ble", "tâble", true),
        ] {
            assert_eq!(glob(pattern, text), expected, "{pattern} on {text}");
        }
    }

    #[test]
    fn many_stars_do_not_take_for_ever() {
        let began = std::time::Instant::now();
        assert!(!glob(&"*a".repeat(30), &"a".repeat(29)));
        assert!(!glob("*a*a*a*a*a*a*a*a*b", &"a".repeat(5000)));
        assert!(began.elapsed() < std::time::Duration::from_secs(5));
    }

    #[test]
    fn patterns_that_other_tools_read_otherwise_are_faults() {
        for pattern in ["", ".x", "x.", "a b", "!public.secret", "\"Public\".a", "public.{a,b}", "a\n"] {
            assert!(fault(pattern).is_some(), "{pattern}");
        }
        for pattern in ["*", "public.*", "a.b.c", "schéma.tâble", "a-b.c$d"] {
            assert_eq!(fault(pattern), None, "{pattern}");
        }
    }
}
