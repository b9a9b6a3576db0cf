//! LSNs, numbers of bytes, patterns for tables.
#![no_main]

use libfuzzer_sys::fuzz_target;
use replicator_config::{TablePatterns, parse_bytes};
use replicator_types::{Lsn, Position};

fuzz_target!(|text: &str| {
    if let Ok(lsn) = text.parse::<Lsn>() {
        assert_eq!(lsn.to_string().parse(), Ok(lsn));
        let position = Position { commit_lsn: lsn, ordinal: text.len() as u64 };
        assert_eq!(Position::from_u128(position.as_u128()), position);
    }
    if let Some(bytes) = parse_bytes(text) {
        assert_eq!(parse_bytes(&bytes.to_string()), Some(bytes));
    }
    let (pattern, name) = text.split_once('\n').unwrap_or((text, "t"));
    let (schema, table) = name.split_once('.').unwrap_or(("public", name));
    let _ = TablePatterns(vec![pattern.to_owned()]).matches(schema, table);
});
