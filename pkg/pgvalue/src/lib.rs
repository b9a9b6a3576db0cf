//! Values in the binary forms of their types, and their texts.
//!
//! ```text
//!   Column ──Type::of──▶ Type ──form──▶ Same │ Binary │ TextOnly
//!                          │
//!   binary bytes ──────────┴─write_text──▶ the bytes that the type's output function writes
//!                └─ numeric, time, array, json: their parts, for who has no use for the text
//!   text bytes ───text────▶ numbers, days, microseconds, …
//!   either     ──as_json──▶ JSON
//! ```
//!
//! # Invariants
//! - The text is, byte for byte, what the server sends for the value under the session settings that every
//!   connection of ours has: `DateStyle` ISO, `IntervalStyle` postgres, `TimeZone` UTC, `extra_float_digits` 1 or
//!   more, `bytea_output` hex, `lc_monetary` C, `client_encoding` UTF8. `tests/server.rs` asks real servers.
//! - No bytes make anything panic or loop; what is not of the type is [`Malformed`]. The checks are those that
//!   reading needs: bytes that no server sends (an hour 25, a numeric with a leading zero digit) may get a text.
//! - Nothing is allocated for a value, but for growth of the buffer that the text goes to.
//!
//! Two values have texts that depend on the server's version, and get the newer one: an interval of nothing but
//! greatest (least) numbers is `infinity` (`-infinity`), as since 17; a `"char"` above 127 is `\ooo`, as since 16.
//!
//! # What is not understood
//! Ranges, multiranges, composites, extension types, `tsquery` and the `reg…` types, whose texts are names that only
//! the server knows, are [`Form::TextOnly`].
//!
//! Sources: the `…_send` and `…_out` functions of `src/backend/utils/adt` in Postgres.

pub mod array;
pub mod as_json;
mod bytes;
mod float;
mod geometry;
pub mod json;
mod net;
pub mod numeric;
mod read;
mod search;
pub mod text;
pub mod time;
mod types;

pub use read::{Malformed, exactly};
pub use types::{Scalar, Type};

use replicator_types::Column;

/// What is known of the binary form of a column's type.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Form {
    /// Binary and text form are the same bytes.
    Same,
    /// The binary form is understood: [`write_text`] makes the text of it.
    Binary,
    /// The binary form is not understood: values have to be asked for as text.
    TextOnly,
}

/// Bytes that are not the binary form of the column's type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the bytes are no binary {type_sql}: {what}")]
pub struct ValueError {
    /// The type.
    pub type_sql: String,
    /// What is wrong.
    pub what: &'static str,
}

/// What is known of the binary form of a column's type.
pub fn form(column: &Column) -> Form {
    Type::of(column).form()
}

/// Appends the text form of a value in binary form, as the type's output function writes it under the settings
/// that every connection of ours has. Who writes many values of a column finds its [`Type`] once.
///
/// # Errors
/// The bytes are not of the type. What was appended so far is to be thrown away.
pub fn write_text(column: &Column, binary: &[u8], out: &mut Vec<u8>) -> Result<(), ValueError> {
    let written = Type::of(column).write_text(binary, out);
    written.map_err(|Malformed(what)| ValueError { type_sql: column.type_sql.clone(), what })
}
