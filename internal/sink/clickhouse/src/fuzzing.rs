//! What `tests/fuzz` calls: parsers that nobody else has a use for.

use crate::errors::code_of;
use crate::record::Tag;
use crate::types::Type;

/// Texts that a server answers: names of types, comments of columns, errors.
pub fn texts(text: &str) {
    let _ = (Tag::parse(text, 7), code_of(text));
    let parsed = Type::parse(text);
    let _ = (parsed.on_the_wire(), parsed.with_nullable(), parsed.base.fits_into(&parsed.base));
}
