//! ClickHouse's `Native` format: blocks of columns.
//!
//! ```text
//!   block = varint columns · varint rows · column…
//!   column = string name · string type · data
//!   data   = fixed-width values, little-endian | (varint length · bytes)… | u64 offsets… · elements
//!   Nullable: one byte a row (1 = NULL) before the data, which has a default in a NULL's place
//! ```
//!
//! Values go from the wire straight into these buffers; nothing is allocated per value, and the buffers
//! keep their memory from batch to batch.
//!
//! Source: <https://clickhouse.com/docs/interfaces/formats/Native>, revision 0 (HTTP without
//! `client_protocol_version`).

mod array;
mod binary;
mod block;
mod column;

pub(crate) use block::{Block, COMMIT_TIME, RowMark, RowProblem, VERSION, body_of, numbered_block};
pub(crate) use column::{Column, Problem, Rules};

/// Appends a variable-length integer: seven bits a byte, the lowest first.
#[inline]
pub(crate) fn push_varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends a string: its length, its bytes.
#[inline]
pub(crate) fn push_string(text: &[u8], out: &mut Vec<u8>) {
    push_varint(text.len() as u64, out);
    out.extend_from_slice(text);
}
