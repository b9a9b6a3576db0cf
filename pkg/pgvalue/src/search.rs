//! `tsvector`, `pg_snapshot`: lists with a count in front.
//!
//! Shapes: number of lexemes, then each as text up to a zero byte, its number of positions and its positions (16
//! bits each, the upper two the weight); number of transactions in progress, `xmin`, `xmax`, the transactions
//! (64 bits each).
//!
//! Sources: `tsvectorsend` and `tsvectorout` in `tsvector.c`; `pg_snapshot_send` and `pg_snapshot_out` in `xid8funcs.c`.

use crate::Malformed;
use crate::read::Reader;

/// Letters of the weights from 0 on; the first is not shown.
const WEIGHTS: &[u8; 4] = b"DCBA";

pub(crate) fn write_tsvector(mut reader: Reader<'_>, out: &mut Vec<u8>) -> Result<(), Malformed> {
    for number in 0..reader.count()? {
        if number > 0 {
            out.push(b' ');
        }
        out.push(b'\'');
        for &byte in reader.c_string()? {
            if matches!(byte, b'\'' | b'\\') {
                out.push(byte);
            }
            out.push(byte);
        }
        out.push(b'\'');
        for place in 0..reader.u16()? {
            out.push(if place == 0 { b':' } else { b',' });
            let entry = reader.u16()?;
            out.extend_from_slice(itoa::Buffer::new().format(entry & 0x3FFF).as_bytes());
            if let weight @ 1.. = usize::from(entry >> 14) {
                out.extend(WEIGHTS.get(weight));
            }
        }
    }
    reader.end()
}

pub(crate) fn write_snapshot(mut reader: Reader<'_>, out: &mut Vec<u8>) -> Result<(), Malformed> {
    let running = reader.count()?;
    for end in *b"::" {
        out.extend_from_slice(itoa::Buffer::new().format(reader.u64()?).as_bytes());
        out.push(end);
    }
    for number in 0..running {
        if number > 0 {
            out.push(b',');
        }
        out.extend_from_slice(itoa::Buffer::new().format(reader.u64()?).as_bytes());
    }
    reader.end()
}
