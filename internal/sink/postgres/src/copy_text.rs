use bytes::Bytes;
use pgvalue::ValueError;
use replicator_types::{Column, Value};

/// COPY's formats.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub(crate) enum Format {
    #[default]
    Text,
    Binary,
}

/// Rows for `COPY … FROM STDIN`, ready to be sent any number of times.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rows {
    /// The lines, or all of a binary COPY with header and trailer.
    pub(crate) lines: Bytes,
    /// How many.
    pub(crate) count: u64,
    /// Memory that the lines take.
    pub(crate) held_bytes: usize,
    pub(crate) format: Format,
}

impl Rows {
    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }
}

/// Writes rows in COPY's text format: a line a row, tabs between values, `\N` for NULL, a backslash before
/// what would be taken for one of these.
///
/// Source: <https://www.postgresql.org/docs/current/sql-copy.html>, "Text Format".
#[derive(Debug, Default)]
pub(crate) struct CopyText {
    bytes: Vec<u8>,
    rows: u64,
    in_row: bool,
    /// The text of a value in binary form, before it is escaped.
    text: Vec<u8>,
}

impl CopyText {
    /// Adds a value of `column` to the open row. An unchanged value is written as NULL: whoever copies it has said
    /// elsewhere that it is not one.
    ///
    /// # Errors
    /// A value in binary form is not of its type; the row is to be thrown away.
    #[inline]
    pub(crate) fn value(&mut self, column: &Column, value: Value<'_>) -> Result<(), ValueError> {
        self.separate();
        match value {
            Value::Text(text) => self.escape(text),
            Value::Null | Value::Unchanged => self.bytes.extend_from_slice(b"\\N"),
            Value::Binary(binary) => {
                let mut text = std::mem::take(&mut self.text);
                text.clear();
                pgvalue::write_text(column, binary, &mut text)?;
                self.escape(&text);
                self.text = text;
            }
        }
        Ok(())
    }

    /// Adds a bit string that says, value by value, which are unchanged.
    pub(crate) fn mask(&mut self, unchanged: impl Iterator<Item = bool>) {
        self.separate();
        self.bytes.extend(unchanged.map(|unchanged| if unchanged { b'1' } else { b'0' }));
    }

    /// Ends the open row.
    #[inline]
    pub(crate) fn end_row(&mut self) {
        self.bytes.push(b'\n');
        self.rows += 1;
        self.in_row = false;
    }

    pub(crate) fn finish(self) -> Rows {
        let held_bytes = self.bytes.capacity();
        Rows { lines: Bytes::from(self.bytes), count: self.rows, held_bytes, format: Format::Text }
    }

    #[inline]
    fn separate(&mut self) {
        if self.in_row {
            self.bytes.push(b'\t');
        }
        self.in_row = true;
    }

    #[inline]
    fn escape(&mut self, text: &[u8]) {
        for block in text.chunks(ESCAPE_BLOCK_BYTES) {
            // Without a way out half-way this is a few vector instructions, and nearly always the answer is no.
            if block.iter().fold(false, |found, &byte| found | is_special(byte)) {
                self.escape_block(block);
            } else {
                self.bytes.extend_from_slice(block);
            }
        }
    }

    fn escape_block(&mut self, block: &[u8]) {
        let mut rest = block;
        while let Some(at) = rest.iter().position(|&byte| is_special(byte)) {
            let (plain, special) = rest.split_at(at);
            self.bytes.extend_from_slice(plain);
            let Some((&byte, after)) = special.split_first() else { return };
            let letter = match byte {
                b'\n' => b'n',
                b'\r' => b'r',
                b'\t' => b't',
                other => other,
            };
            self.bytes.extend_from_slice(&[b'\\', letter]);
            rest = after;
        }
        self.bytes.extend_from_slice(rest);
    }
}

/// How much is looked through at once. A special byte costs a second look at so many.
const ESCAPE_BLOCK_BYTES: usize = 256;

fn is_special(byte: u8) -> bool {
    // Without branches, so that many are looked at together.
    (byte == b'\\') | (byte == b'\n') | (byte == b'\r') | (byte == b'\t')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn row(values: &[Value<'_>]) -> Vec<u8> {
        let mut text = CopyText::default();
        for value in values {
            text.value(&Column::default(), *value).unwrap();
        }
        text.end_row();
        text.finish().lines.to_vec()
    }

    /// COPY's reading of one line, as its manual page describes it.
    fn read(line: &[u8]) -> Vec<Option<Vec<u8>>> {
        let line = line.strip_suffix(b"\n").unwrap();
        let mut values = Vec::new();
        for field in line.split(|&byte| byte == b'\t') {
            if field == b"\\N" {
                values.push(None);
                continue;
            }
            let mut value = Vec::new();
            let mut bytes = field.iter();
            while let Some(&byte) = bytes.next() {
                value.push(match (byte, byte == b'\\') {
                    (_, true) => match bytes.next().unwrap() {
                        b'n' => b'\n',
                        b'r' => b'\r',
                        b't' => b'\t',
                        other => *other,
                    },
                    (byte, false) => byte,
                });
            }
            values.push(Some(value));
        }
        values
    }

    #[test]
    fn a_text_that_looks_like_null_or_the_end_is_neither() {
        assert_eq!(row(&[Value::Text(b"\\N"), Value::Null, Value::Text(b"")]), b"\\\\N\t\\N\t\n");
        assert_eq!(row(&[Value::Text(b"\\.")]), b"\\\\.\n");
        assert_eq!(row(&[Value::Text(b"a\tb\nc\rd\\")]), b"a\\tb\\nc\\rd\\\\\n");
    }

    #[test]
    fn a_value_in_binary_form_is_written_as_its_text() {
        let int4 = Column {
            type_oid: replicator_types::oid::INT4,
            base_type_oid: replicator_types::oid::INT4,
            ..Column::default()
        };
        let mut text = CopyText::default();
        text.value(&int4, Value::Binary(&(-7_i32).to_be_bytes())).unwrap();
        text.value(&Column::default(), Value::Binary(b"a\tb")).unwrap();
        text.end_row();
        assert_eq!(text.finish().lines, b"-7\ta\\tb\n"[..]);
        assert!(CopyText::default().value(&int4, Value::Binary(&[1])).is_err());
    }

    #[test]
    fn a_long_text_is_escaped_wherever_the_byte_is() {
        for at in [0, 255, 256, 257, 511, 700] {
            let mut text = vec![b'x'; 701];
            text[at] = b'\t';
            assert_eq!(read(&row(&[Value::Text(&text)])), [Some(text)]);
        }
    }

    proptest! {
        #[test]
        fn any_row_is_read_back_as_it_was(values in prop::collection::vec(prop::option::of("[\\\\NtnrabÄ\t\n\r.]{0,8}"), 1..5)) {
            let row = row(&values.iter().map(|v| v.as_ref().map_or(Value::Null, |v| Value::Text(v.as_bytes()))).collect::<Vec<_>>());
            prop_assert_eq!(row.iter().filter(|&&byte| byte == b'\n').count(), 1);
            let expected: Vec<_> = values.iter().map(|v| v.as_ref().map(|v| v.clone().into_bytes())).collect();
            prop_assert_eq!(read(&row), expected);
        }
    }
}
