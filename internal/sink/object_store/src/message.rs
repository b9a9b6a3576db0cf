//! A logical message (`pg_logical_emit_message`) as the end of a line.
//!
//! Its content is bytes, and mostly text. As text it stands in `content`; what is not UTF-8 stands in
//! `content_base64` instead, so that a reader can tell which it was.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use pgvalue::as_json::push_string;
use replicator_types::{Change, Value};

/// Appends `,"transactional":…,"prefix":…,"content":…` of a change with the columns of
/// [`Relation::message`](replicator_types::Relation::message).
pub(crate) fn push(out: &mut Vec<u8>, change: &Change<'_>) {
    let mut values = change.new_values();
    let mut next = || values.next().unwrap_or(Value::Null);
    let is_transactional = matches!(next(), Value::Text(b"t") | Value::Binary([1]));
    out.extend_from_slice(if is_transactional {
        b",\"transactional\":true,\"prefix\":"
    } else {
        b",\"transactional\":false,\"prefix\":"
    });
    push_string(out, next().bytes().unwrap_or_default());
    let content = next().bytes().unwrap_or_default();
    if std::str::from_utf8(content).is_ok() {
        out.extend_from_slice(b",\"content\":");
        push_string(out, content);
    } else {
        out.extend_from_slice(b",\"content_base64\":\"");
        out.extend_from_slice(STANDARD.encode(content).as_bytes());
        out.push(b'"');
    }
}
