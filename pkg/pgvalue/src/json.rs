//! `jsonb` (and `jsonpath`): a version byte, then the text. `json` has the same text and no version.
//!
//! Sources: `jsonb_send` in `jsonb.c`, `jsonpath_send` in `jsonpath.c`.

use crate::Malformed;

/// The only version there is.
const VERSION: u8 = 1;

/// The text in a binary `jsonb`, as the output function writes it.
///
/// # Errors
/// It has no version, or an unknown one.
#[inline]
pub fn body(binary: &[u8]) -> Result<&[u8], Malformed> {
    match binary.split_first() {
        Some((&VERSION, text)) => Ok(text),
        _ => Err(Malformed("its version is unknown")),
    }
}
