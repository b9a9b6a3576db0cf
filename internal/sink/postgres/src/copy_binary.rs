use crate::copy_text::{Format, Rows};
use bytes::Bytes;
use replicator_types::Value;

/// Writes rows in COPY's binary format, from values that are in binary form or whose forms are the same.
///
/// Shape: a header of 19 bytes; for each row the number of values (i16), then for each value its length (i32, -1 for
/// NULL) and bytes; -1 (i16) at the end. All numbers big-endian.
///
/// Source: <https://www.postgresql.org/docs/current/sql-copy.html>, "Binary Format".
#[derive(Debug)]
pub(crate) struct CopyBinary {
    bytes: Vec<u8>,
    rows: u64,
    columns: [u8; 2],
    /// Taken when the first row comes.
    capacity_bytes: usize,
}

/// Signature, no flags, no extension.
const HEADER: &[u8; 19] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";

impl CopyBinary {
    /// For rows of so many columns (a table has at most 1600), that take about so many bytes.
    pub(crate) fn new(columns: usize, capacity_bytes: usize) -> Self {
        Self { bytes: Vec::new(), rows: 0, columns: (columns as i16).to_be_bytes(), capacity_bytes }
    }

    #[inline]
    pub(crate) fn begin_row(&mut self) {
        if self.rows == 0 {
            self.bytes.reserve(self.capacity_bytes + HEADER.len());
            self.bytes.extend_from_slice(HEADER);
        }
        self.bytes.extend_from_slice(&self.columns);
        self.rows += 1;
    }

    /// Adds a value to the row; as many as there are columns.
    #[inline]
    pub(crate) fn value(&mut self, value: Value<'_>) {
        match value.bytes() {
            Some(bytes) => {
                self.bytes.extend_from_slice(&(bytes.len() as u32).to_be_bytes());
                self.bytes.extend_from_slice(bytes);
            }
            None => self.bytes.extend_from_slice(&[0xff; 4]),
        }
    }

    /// Adds a bit string that says, value by value, which are unchanged: its length in bits (i32), then the bits, the
    /// first as the highest of the first byte.
    ///
    /// Source: `varbit_send` in `src/backend/utils/adt/varbit.c`.
    pub(crate) fn mask(&mut self, unchanged: impl Iterator<Item = bool>) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 8]);
        let mut bits = 0_u32;
        for unchanged in unchanged {
            if bits.is_multiple_of(8) {
                self.bytes.push(0);
            }
            if let Some(last) = self.bytes.last_mut() {
                *last |= u8::from(unchanged) << (7 - bits % 8);
            }
            bits += 1;
        }
        let length = 4 + bits.div_ceil(8);
        if let Some((for_length, for_bits)) =
            self.bytes.get_mut(start..start + 8).and_then(|head| head.split_at_mut_checked(4))
        {
            for_length.copy_from_slice(&length.to_be_bytes());
            for_bits.copy_from_slice(&bits.to_be_bytes());
        }
    }

    pub(crate) fn finish(mut self) -> Rows {
        if self.rows == 0 {
            return Rows { format: Format::Binary, ..Rows::default() };
        }
        self.bytes.extend_from_slice(&[0xff; 2]);
        let held_bytes = self.bytes.capacity();
        Rows { lines: Bytes::from(self.bytes), count: self.rows, held_bytes, format: Format::Binary }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_have_header_lengths_and_trailer() {
        let mut rows = CopyBinary::new(2, 0);
        rows.begin_row();
        rows.value(Value::Binary(&[1, 2]));
        rows.value(Value::Null);
        let rows = rows.finish();
        assert_eq!(rows.count, 1);
        assert_eq!(&rows.lines[..11], b"PGCOPY\n\xff\r\n\0");
        assert_eq!(&rows.lines[19..], b"\0\x02\0\0\0\x02\x01\x02\xff\xff\xff\xff\xff\xff");
        assert!(CopyBinary::new(2, 1 << 20).finish().is_empty());
    }

    #[test]
    fn a_mask_has_its_first_bit_first() {
        let mut rows = CopyBinary::new(1, 0);
        rows.begin_row();
        rows.mask((0..10).map(|place| place == 1 || place == 8));
        assert_eq!(rows.finish().lines[21..33], *b"\0\0\0\x06\0\0\0\x0a\x40\x80\xff\xff");
    }
}
