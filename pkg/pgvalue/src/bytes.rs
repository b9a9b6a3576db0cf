//! Values that are bytes or bits: `bytea`, `"char"`, `uuid`, `bit`, and `pg_lsn` and `tid`, which are addresses.
//!
//! Sources: `byteaout` in `varlena.c`, `charout` in `char.c`, `uuid_out` in `uuid.c`, `bit_out` and `varbit_send` in
//! `varbit.c`, `pg_lsn_out` in `pg_lsn.c`, `tidout` in `tid.c`.

use crate::Malformed;
use crate::read::Reader;

const DIGITS: &[u8; 16] = b"0123456789abcdef";

/// The two hexadecimal digits of each byte.
const HEX: [[u8; 2]; 256] = {
    let mut table = [[0; 2]; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = [DIGITS[byte >> 4], DIGITS[byte & 15]];
        byte += 1;
    }
    table
};

/// The two lower-case hexadecimal digits of `byte`.
#[inline]
pub(crate) fn hex(byte: u8) -> [u8; 2] {
    // A byte is below 256.
    HEX[usize::from(byte)]
}

pub(crate) fn write_bytea(binary: &[u8], out: &mut Vec<u8>) {
    out.reserve(2 + binary.len() * 2);
    out.extend_from_slice(b"\\x");
    out.extend(binary.iter().flat_map(|&byte| hex(byte)));
}

pub(crate) fn write_char([byte]: [u8; 1], out: &mut Vec<u8>) {
    match byte {
        0 => {}
        1..=0x7f => out.push(byte),
        _ => out.extend_from_slice(&[b'\\', b'0' + (byte >> 6), b'0' + (byte >> 3 & 7), b'0' + (byte & 7)]),
    }
}

pub(crate) fn write_uuid(bytes: [u8; 16], out: &mut Vec<u8>) {
    out.reserve(36);
    for (place, byte) in bytes.into_iter().enumerate() {
        if matches!(place, 4 | 6 | 8 | 10) {
            out.push(b'-');
        }
        out.extend_from_slice(&hex(byte));
    }
}

pub(crate) fn write_bits(binary: &[u8], out: &mut Vec<u8>) -> Result<(), Malformed> {
    let mut reader = Reader(binary);
    let bits = reader.count()?;
    let bytes = reader.bytes(bits.div_ceil(8))?;
    reader.end()?;
    let bit = |place: u32| move |byte: u8| b'0' + (byte >> place & 1);
    let all = bytes.iter().flat_map(|&byte| (0..8).rev().map(move |place| bit(place)(byte)));
    out.extend(all.take(bits));
    Ok(())
}

pub(crate) fn write_lsn(lsn: u64, out: &mut Vec<u8>) {
    push_hex((lsn >> 32) as u32, out);
    out.push(b'/');
    push_hex(lsn as u32, out);
}

fn push_hex(number: u32, out: &mut Vec<u8>) {
    let digits = (u32::BITS - number.leading_zeros()).div_ceil(4).max(1);
    out.extend((0..digits).rev().map(|place| {
        let digit = (number >> (place * 4) & 15) as u8;
        if digit < 10 { b'0' + digit } else { b'A' + digit - 10 }
    }));
}

pub(crate) fn write_tid([a, b, c, d, e, f]: [u8; 6], out: &mut Vec<u8>) {
    let mut digits = itoa::Buffer::new();
    out.push(b'(');
    out.extend_from_slice(digits.format(u32::from_be_bytes([a, b, c, d])).as_bytes());
    out.push(b',');
    out.extend_from_slice(digits.format(u16::from_be_bytes([e, f])).as_bytes());
    out.push(b')');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn bits_are_as_many_as_their_count_says() {
        assert_eq!(text(|out| write_bits(&[0, 0, 0, 10, 0xA5, 0xC0], out).unwrap()), "1010010111");
        assert_eq!(text(|out| write_bits(&[0, 0, 0, 0], out).unwrap()), "");
        let mut out = Vec::new();
        assert!(write_bits(&[0, 0, 0, 9, 0xA5], &mut out).is_err());
        assert!(write_bits(&[0xff, 0xff, 0xff, 0xff], &mut out).is_err());
        assert!(write_bits(&[0, 0, 0, 1, 0, 0], &mut out).is_err());
    }

    #[test]
    fn an_lsn_has_no_leading_zeros() {
        assert_eq!(text(|out| write_lsn(0, out)), "0/0");
        assert_eq!(text(|out| write_lsn(0x16_B374_D848, out)), "16/B374D848");
        assert_eq!(text(|out| write_lsn(u64::MAX, out)), "FFFFFFFF/FFFFFFFF");
    }

    #[test]
    fn a_char_above_127_is_octal() {
        assert_eq!(text(|out| write_char([0xff], out)), "\\377");
        assert_eq!(text(|out| write_char([0x80], out)), "\\200");
        assert_eq!(text(|out| write_char([b'a'], out)), "a");
        assert_eq!(text(|out| write_char([0], out)), "");
    }
}
