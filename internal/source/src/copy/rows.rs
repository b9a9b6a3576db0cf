//! From the binary format of COPY to tuples, without anything in between.
//!
//! ```text
//!   CopyData: [signature, flags, extension] row      i16 columns, then per column i32 length (-1 NULL) and bytes
//!   CopyData: row                                     ─▶ u16 columns, then per column kind, u32 length, bytes
//!   CopyData: trailer: i16 -1
//! ```
//!
//! Invariants: a row lies whole in one CopyData message, as the protocol promises; a length is believed only as
//! far as the message reaches; nothing follows the trailer.
//!
//! Sources: <https://www.postgresql.org/docs/current/sql-copy.html#SQL-COPY-BINARY-FORMAT>,
//! <https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-COPY>.

const SIGNATURE: &[u8; 11] = b"PGCOPY\n\xff\r\n\0";

/// Bits of the flags that a reader must know of; of those there is one, for oids, which no server sends any more.
const CRITICAL_FLAGS: u32 = 0xffff_0000;

/// The bytes are no binary COPY of these columns. Names the part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RowsError {
    #[error("it does not begin with the signature of the binary format")]
    Signature,
    #[error("it has flags 0x{0:08x}, which are not known")]
    Flags(u32),
    #[error("a message ends inside the {0}")]
    Truncated(&'static str),
    #[error("a row has {found} columns, and {expected} were asked for")]
    Columns { found: i16, expected: u16 },
    #[error("a value has length {0}")]
    Length(i32),
    #[error("there is data behind the trailer")]
    BehindTrailer,
}

/// Reads one COPY.
#[derive(Debug)]
pub(crate) struct Rows {
    /// Per column `b` or `t`: what the bytes are.
    kinds: Vec<u8>,
    begun: bool,
    ended: bool,
}

impl Rows {
    /// A COPY of columns whose values are of these kinds.
    pub(crate) fn new(kinds: Vec<u8>) -> Self {
        Self { kinds, begun: false, ended: false }
    }

    /// Whether the trailer was there, without which rows may be missing.
    pub(crate) fn has_ended(&self) -> bool {
        self.ended
    }

    /// Takes the body of a CopyData message. `row` is called for each row, and has to call what it is given with
    /// the buffer that the tuple is to be appended to.
    #[inline]
    pub(crate) fn take(
        &mut self,
        body: &[u8],
        mut row: impl FnMut(&mut dyn FnMut(&mut Vec<u8>) -> Result<(), RowsError>) -> Result<(), RowsError>,
    ) -> Result<(), RowsError> {
        let mut rest = body;
        if !self.begun {
            rest = after_header(rest)?;
            self.begun = true;
        }
        while !rest.is_empty() {
            if self.ended {
                return Err(RowsError::BehindTrailer);
            }
            let (count, values) =
                rest.split_first_chunk::<2>().ok_or(RowsError::Truncated("column count"))?;
            let count = i16::from_be_bytes(*count);
            if count == -1 {
                self.ended = true;
                rest = values;
                continue;
            }
            if usize::try_from(count) != Ok(self.kinds.len()) {
                return Err(RowsError::Columns { found: count, expected: self.kinds.len() as u16 });
            }
            row(&mut |out| {
                rest = write_tuple(values, &self.kinds, out)?;
                Ok(())
            })?;
        }
        Ok(())
    }
}

fn after_header(bytes: &[u8]) -> Result<&[u8], RowsError> {
    let (signature, rest) = bytes.split_first_chunk::<11>().ok_or(RowsError::Truncated("signature"))?;
    if signature != SIGNATURE {
        return Err(RowsError::Signature);
    }
    let (flags, rest) = rest.split_first_chunk::<4>().ok_or(RowsError::Truncated("flags"))?;
    let flags = u32::from_be_bytes(*flags);
    if flags & CRITICAL_FLAGS != 0 {
        return Err(RowsError::Flags(flags));
    }
    let (length, rest) = rest.split_first_chunk::<4>().ok_or(RowsError::Truncated("header extension"))?;
    let length = i32::from_be_bytes(*length);
    let length = usize::try_from(length).map_err(|_| RowsError::Length(length))?;
    rest.get(length..).ok_or(RowsError::Truncated("header extension"))
}

/// Appends the tuple of the values at the front; returns what follows them.
#[inline]
fn write_tuple<'a>(values: &'a [u8], kinds: &[u8], out: &mut Vec<u8>) -> Result<&'a [u8], RowsError> {
    // Each value is as long as before, or shorter, and has a kind in front of it.
    out.reserve(2 + values.len() + kinds.len());
    out.extend_from_slice(&(kinds.len() as u16).to_be_bytes());
    let mut rest = values;
    for &kind in kinds {
        let (length, after) =
            rest.split_first_chunk::<4>().ok_or(RowsError::Truncated("length of a value"))?;
        let length = i32::from_be_bytes(*length);
        if length < 0 {
            if length != -1 {
                return Err(RowsError::Length(length));
            }
            out.push(b'n');
            rest = after;
            continue;
        }
        let bytes = 4 + length as usize;
        let (value, after) = rest.split_at_checked(bytes).ok_or(RowsError::Truncated("value"))?;
        out.push(kind);
        out.extend_from_slice(value);
        rest = after;
    }
    Ok(rest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use replicator_types::{Tuple, Value};

    const HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
    const TRAILER: &[u8] = b"\xff\xff";

    fn row(values: &[Option<&[u8]>]) -> Vec<u8> {
        let mut out = (values.len() as i16).to_be_bytes().to_vec();
        for value in values {
            out.extend_from_slice(&value.map_or(-1, |value| value.len() as i32).to_be_bytes());
            out.extend_from_slice(value.unwrap_or_default());
        }
        out
    }

    /// The tuples of a COPY that comes in these messages.
    fn tuples(kinds: &[u8], messages: &[&[u8]]) -> Result<Vec<Vec<u8>>, RowsError> {
        let mut rows = Rows::new(kinds.to_vec());
        let mut tuples = Vec::new();
        for message in messages {
            rows.take(message, |write| {
                let mut tuple = Vec::new();
                write(&mut tuple)?;
                tuples.push(tuple);
                Ok(())
            })?;
        }
        if rows.has_ended() { Ok(tuples) } else { Err(RowsError::Truncated("trailer")) }
    }

    #[test]
    fn rows_become_tuples_of_the_kinds_asked_for() {
        let first = [HEADER, &row(&[Some(b"\0\0\0\x07"), None, Some(b"")])].concat();
        let second = row(&[Some(b"1234"), Some(b"text"), None]);
        let tuples = tuples(b"btt", &[&first, &second, TRAILER]).unwrap();
        let values = |index: usize| {
            let (tuple, rest) = Tuple::split_from(&tuples[index]).unwrap();
            assert!(rest.is_empty());
            tuple.values().map(|value| format!("{value:?}")).collect::<Vec<_>>()
        };
        let shown =
            |values: &[Value<'_>]| values.iter().map(|value| format!("{value:?}")).collect::<Vec<_>>();
        assert_eq!(values(0), shown(&[Value::Binary(&[0, 0, 0, 7]), Value::Null, Value::Text(b"")]));
        assert_eq!(values(1), shown(&[Value::Binary(b"1234"), Value::Text(b"text"), Value::Null]));
    }

    #[test]
    fn a_copy_may_be_empty_and_its_rows_may_be() {
        assert_eq!(tuples(b"b", &[HEADER, TRAILER]), Ok(vec![]));
        assert_eq!(tuples(b"b", &[&[HEADER, TRAILER].concat()]), Ok(vec![]));
        assert_eq!(tuples(b"", &[HEADER, &row(&[]), &row(&[]), TRAILER]), Ok(vec![vec![0, 0]; 2]));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let whole = row(&[Some(b"1234")]);
        let with = |message: &[u8]| tuples(b"b", &[HEADER, message, TRAILER]).unwrap_err();
        assert_eq!(tuples(b"b", &[b"PGCOPX\n\xff\r\n\0\0\0\0\0\0\0\0\0"]), Err(RowsError::Signature));
        assert_eq!(
            tuples(b"b", &[b"PGCOPY\n\xff\r\n\0\0\x01\0\0\0\0\0\0"]),
            Err(RowsError::Flags(0x1_0000)),
            "oids"
        );
        assert_eq!(with(&row(&[])), RowsError::Columns { found: 0, expected: 1 });
        assert_eq!(with(b"\0\x01\x80\0\0\0"), RowsError::Length(i32::MIN));
        assert_eq!(with(b"\0\x01\x7f\xff\xff\xff1"), RowsError::Truncated("value"));
        assert_eq!(with(&[TRAILER, &whole].concat()), RowsError::BehindTrailer);
        assert_eq!(tuples(b"b", &[HEADER, &whole]), Err(RowsError::Truncated("trailer")));
        for end in 1..whole.len() {
            assert!(matches!(with(&whole[..end]), RowsError::Truncated(_)), "{end}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(messages: Vec<Vec<u8>>, with_header: bool, columns in 0_usize..4) {
            let mut messages: Vec<&[u8]> = messages.iter().map(Vec::as_slice).collect();
            if with_header {
                messages.insert(0, HEADER);
            }
            for tuple in tuples(&vec![b'b'; columns], &messages).unwrap_or_default() {
                prop_assert!(Tuple::split_from(&tuple).is_ok_and(|(_, rest)| rest.is_empty()));
            }
        }
    }
}
