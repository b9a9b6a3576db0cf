use crate::Relation;

/// A row as it came over the wire: the `TupleData` of `pgoutput`, not parsed until somebody wants it.
///
/// Shape: a 16-bit column count, then per column one byte (`n` NULL, `u` unchanged TOAST value, `t` text,
/// `b` binary) and, for the last two, a 32-bit length and the bytes. All numbers big-endian.
///
/// Source: <https://www.postgresql.org/docs/current/protocol-logicalrep-message-formats.html#PROTOCOL-LOGICALREP-MESSAGE-FORMATS-TUPLEDATA>.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tuple<'a>(&'a [u8]);

/// One column's value.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Value<'a> {
    /// SQL NULL.
    Null,
    /// A TOASTed value that the update did not touch; it was not sent.
    Unchanged,
    /// The type's text form, in UTF-8.
    Text(&'a [u8]),
    /// The type's binary form.
    Binary(&'a [u8]),
}

impl<'a> Value<'a> {
    /// The bytes of a text or binary value.
    pub fn bytes(self) -> Option<&'a [u8]> {
        match self {
            Self::Text(bytes) | Self::Binary(bytes) => Some(bytes),
            Self::Null | Self::Unchanged => None,
        }
    }
}

/// The bytes are not a tuple. Names the missing or wrong part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TupleError {
    /// The bytes end inside the named part.
    #[error("tuple ends inside the {0}")]
    Truncated(&'static str),
    /// A column's kind is none of `n`, `u`, `t`, `b`.
    #[error("tuple column {column} has unknown kind 0x{kind:02x}")]
    UnknownKind {
        /// Column, from 0.
        column: u16,
        /// The byte found.
        kind: u8,
    },
    /// A column's length is negative.
    #[error("tuple column {column} has negative length {length}")]
    NegativeLength {
        /// Column, from 0.
        column: u16,
        /// The length found.
        length: i32,
    },
}

impl<'a> Tuple<'a> {
    /// Checks that `bytes` begin with a whole tuple; returns it and what follows it.
    pub fn split_from(bytes: &'a [u8]) -> Result<(Self, &'a [u8]), TupleError> {
        let mut values = Values::begin(bytes)?;
        while values.try_next()?.is_some() {}
        let (tuple, rest) = bytes.split_at(bytes.len() - values.rest.len());
        Ok((Self(tuple), rest))
    }

    /// A tuple from bytes that [`Tuple::split_from`] has checked. With other bytes the values end early;
    /// nothing panics.
    pub fn from_checked(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Appends the wire bytes of a tuple of these values.
    pub fn write<'v>(
        values: impl IntoIterator<Item = Value<'v>, IntoIter: ExactSizeIterator>,
        out: &mut Vec<u8>,
    ) {
        let values = values.into_iter();
        out.extend_from_slice(&(values.len() as u16).to_be_bytes());
        for value in values {
            let (kind, bytes) = match value {
                Value::Null => (b'n', None),
                Value::Unchanged => (b'u', None),
                Value::Text(bytes) => (b't', Some(bytes)),
                Value::Binary(bytes) => (b'b', Some(bytes)),
            };
            out.push(kind);
            if let Some(bytes) = bytes {
                out.extend_from_slice(&(bytes.len() as u32).to_be_bytes());
                out.extend_from_slice(bytes);
            }
        }
    }

    /// The wire bytes.
    pub fn as_bytes(self) -> &'a [u8] {
        self.0
    }

    /// How many columns it has.
    pub fn column_count(self) -> usize {
        self.0.first_chunk::<2>().map_or(0, |n| usize::from(u16::from_be_bytes(*n)))
    }

    /// The values in column order.
    pub fn values(self) -> Values<'a> {
        Values::begin(self.0).unwrap_or(Values { rest: &[], column: 0, columns: 0 })
    }

    /// The value of one column: a walk from the first. `Null` past the end.
    pub fn value(self, column: usize) -> Value<'a> {
        self.values().nth(column).unwrap_or(Value::Null)
    }

    /// Whether any column is an unchanged TOAST value.
    pub fn has_unchanged(self) -> bool {
        self.values().any(|value| value == Value::Unchanged)
    }

    /// The values of `relation`'s key columns, in column order.
    pub fn key_values(self, relation: &'a Relation) -> impl Iterator<Item = Value<'a>> {
        self.values()
            .zip(relation.columns.iter())
            .filter_map(|(value, column)| column.is_key.then_some(value))
    }
}

/// Iterator over a tuple's values.
#[derive(Clone, Debug)]
pub struct Values<'a> {
    rest: &'a [u8],
    column: u16,
    columns: u16,
}

impl<'a> Values<'a> {
    fn begin(bytes: &'a [u8]) -> Result<Self, TupleError> {
        let (count, rest) = bytes.split_first_chunk::<2>().ok_or(TupleError::Truncated("column count"))?;
        Ok(Self { rest, column: 0, columns: u16::from_be_bytes(*count) })
    }

    #[inline]
    fn try_next(&mut self) -> Result<Option<Value<'a>>, TupleError> {
        if self.column == self.columns {
            return Ok(None);
        }
        let (&kind, rest) = self.rest.split_first().ok_or(TupleError::Truncated("column kind"))?;
        let value = match kind {
            b'n' => {
                self.rest = rest;
                Value::Null
            }
            b'u' => {
                self.rest = rest;
                Value::Unchanged
            }
            b't' | b'b' => {
                let (length, rest) =
                    rest.split_first_chunk::<4>().ok_or(TupleError::Truncated("column length"))?;
                let length = i32::from_be_bytes(*length);
                let size = usize::try_from(length)
                    .map_err(|_| TupleError::NegativeLength { column: self.column, length })?;
                let (bytes, rest) =
                    rest.split_at_checked(size).ok_or(TupleError::Truncated("column value"))?;
                self.rest = rest;
                if kind == b't' { Value::Text(bytes) } else { Value::Binary(bytes) }
            }
            kind => return Err(TupleError::UnknownKind { column: self.column, kind }),
        };
        self.column += 1;
        Ok(Some(value))
    }
}

impl<'a> Iterator for Values<'a> {
    type Item = Value<'a>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        self.try_next().ok().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(crate) fn encode(values: &[Value<'_>]) -> Vec<u8> {
        let mut out = (values.len() as u16).to_be_bytes().to_vec();
        for value in values {
            match value {
                Value::Null => out.push(b'n'),
                Value::Unchanged => out.push(b'u'),
                Value::Text(bytes) | Value::Binary(bytes) => {
                    out.push(if matches!(value, Value::Text(_)) { b't' } else { b'b' });
                    out.extend_from_slice(&(bytes.len() as i32).to_be_bytes());
                    out.extend_from_slice(bytes);
                }
            }
        }
        out
    }

    #[test]
    fn a_tuple_gives_back_its_values_and_what_follows() {
        let values =
            [Value::Text(b"1"), Value::Null, Value::Unchanged, Value::Binary(&[0, 1]), Value::Text(b"")];
        let mut bytes = encode(&values);
        bytes.extend_from_slice(b"rest");
        let (tuple, rest) = Tuple::split_from(&bytes).unwrap();
        assert_eq!(rest, b"rest");
        assert_eq!(tuple.values().collect::<Vec<_>>(), values);
        assert_eq!(tuple.value(3), values[3]);
        assert_eq!(tuple.value(9), Value::Null);
        assert!(tuple.has_unchanged());
    }

    #[test]
    fn every_cut_of_a_tuple_is_an_error_that_names_the_part() {
        let bytes = encode(&[Value::Text(b"12345"), Value::Null, Value::Binary(b"xy")]);
        for end in 0..bytes.len() {
            assert!(matches!(Tuple::split_from(&bytes[..end]), Err(TupleError::Truncated(_))), "{end}");
        }
    }

    #[test]
    fn a_length_that_lies_is_an_error() {
        let too_long = [0, 1, b't', 0x7f, 0xff, 0xff, 0xff, 1];
        assert_eq!(Tuple::split_from(&too_long), Err(TupleError::Truncated("column value")));
        let negative = [0, 1, b't', 0xff, 0xff, 0xff, 0xff];
        assert!(matches!(Tuple::split_from(&negative), Err(TupleError::NegativeLength { .. })));
        assert!(matches!(Tuple::split_from(&[0, 1, b'z']), Err(TupleError::UnknownKind { kind: b'z', .. })));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            if let Ok((tuple, rest)) = Tuple::split_from(&bytes) {
                prop_assert_eq!(tuple.as_bytes().len() + rest.len(), bytes.len());
                prop_assert_eq!(tuple.values().count(), tuple.column_count());
            }
            let _ = Tuple::from_checked(&bytes).values().count();
        }
    }
}
