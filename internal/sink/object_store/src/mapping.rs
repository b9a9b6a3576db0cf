//! What a value looks like in an event, for who writes it down: `docs/types.md`.

use pgvalue::as_json::{Form, push_value};
use replicator_types::{Column, Value};

/// The JSON of a value of `column` whose text form is `text`.
pub fn json_of(column: &Column, text: &str) -> String {
    let mut out = Vec::new();
    // A text is taken as it is: only a binary form can be malformed.
    let pushed = push_value(&mut out, &mut Vec::new(), Form::of(column), Value::Text(text.as_bytes()));
    debug_assert!(pushed.is_ok());
    String::from_utf8_lossy(&out).into_owned()
}
