//! What `tests/fuzz` calls: parsers that nobody else has a use for.

use crate::copy::Rows;
use crate::timeline::Timelines;
use crate::{default_expression, slot};

/// Texts that a server answers.
pub fn texts(text: &str) {
    let _ = (Timelines::parse(2, text), default_expression::is_literal(text), slot::verify_name(text));
}

/// Reads a binary COPY, whose messages end where `sizes` says, into tuples of columns of these kinds.
pub fn copied_rows(kinds: &[u8], bytes: &[u8], sizes: &[u8]) -> Vec<Vec<u8>> {
    let mut rows = Rows::new(kinds.to_vec());
    let (mut rest, mut tuples) = (bytes, Vec::new());
    for size in sizes.iter().copied().chain(std::iter::once(u8::MAX)) {
        let size = if size == u8::MAX { rest.len() } else { usize::from(size).min(rest.len()) };
        let (message, behind) = rest.split_at(size);
        rest = behind;
        let taken = rows.take(message, |write| {
            let mut tuple = Vec::new();
            write(&mut tuple)?;
            tuples.push(tuple);
            Ok(())
        });
        if taken.is_err() {
            break;
        }
    }
    tuples
}
