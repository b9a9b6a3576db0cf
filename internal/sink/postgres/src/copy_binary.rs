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
}

/// Signature, no flags, no extension.
const HEADER: &[u8; 19] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";

impl CopyBinary {
    /// For rows of so many columns (a table has at most 1600), that take about so many bytes.
    pub(crate) fn new(columns: usize, capacity_bytes: usize) -> Self {
        let mut bytes = Vec::with_capacity(capacity_bytes + HEADER.len());
        bytes.extend_from_slice(HEADER);
        Self { bytes, rows: 0, columns: (columns as i16).to_be_bytes() }
    }

    #[inline]
    pub(crate) fn begin_row(&mut self) {
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

    pub(crate) fn finish(mut self) -> Rows {
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
    }
}
