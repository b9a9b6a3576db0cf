//! What `tests/fuzz` calls: parsers that nobody else has a use for.

use crate::{Host, certificate, passfile};

/// Reads a certificate as far as any check of it does.
pub fn certificate(der: &[u8]) {
    certificate::end_point_hash(der);
    if let Some(subject) = certificate::Subject::of(der) {
        let _ = (subject.is_for("db.example"), subject.is_valid_at(1_700_000_000), subject.described());
    }
}

/// Looks for a password in the text of a password file.
pub fn passfile(text: &str, host: &Host) -> Option<String> {
    passfile::find(text, host, "shop", "alice")
}
