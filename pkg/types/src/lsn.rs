use std::fmt;
use std::str::FromStr;

/// A place in the write-ahead log: a byte offset, displayed as Postgres does, `X/X` in hexadecimal.
///
/// An `Lsn` says nothing about what it delimits. Where it matters the field that holds one says whether
/// it is the *start* of a record or the *end* (exclusive) of one. What is acknowledged to Postgres is
/// always an end.
///
/// Source: `XLogRecPtr`, <https://www.postgresql.org/docs/current/datatype-pg-lsn.html>.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Lsn(pub u64);

impl Lsn {
    /// `0/0`, which Postgres uses for "no such place".
    pub const ZERO: Self = Self(0);
    /// Beyond every real place.
    pub const MAX: Self = Self(u64::MAX);

    /// Bytes of WAL from `earlier` to here, 0 when `earlier` is not earlier.
    pub fn bytes_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

impl fmt::Debug for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is not an LSN.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an LSN; it looks like 16/B374D848 (two hexadecimal numbers and a slash)")]
pub struct ParseLsnError(pub String);

impl FromStr for Lsn {
    type Err = ParseLsnError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let half = |part: &str| {
            let hex_only = !part.is_empty() && part.len() <= 8 && part.bytes().all(|b| b.is_ascii_hexdigit());
            if hex_only { u64::from_str_radix(part, 16).ok() } else { None }
        };
        text.split_once('/')
            .and_then(|(high, low)| Some(Self(half(high)? << 32 | half(low)?)))
            .ok_or_else(|| ParseLsnError(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn an_lsn_survives_being_written_and_read(n: u64) {
            prop_assert_eq!(Lsn(n).to_string().parse::<Lsn>(), Ok(Lsn(n)));
        }

        #[test]
        fn any_text_is_an_lsn_or_an_error(text: String) {
            let _ = text.parse::<Lsn>();
        }
    }

    #[test]
    fn it_is_written_as_postgres_writes_it() {
        assert_eq!(Lsn(0x16_B374_D848).to_string(), "16/B374D848");
        assert_eq!(Lsn::ZERO.to_string(), "0/0");
        for wrong in ["", "/", "1", "1/", "/1", "+1/2", "1/2/3", "123456789/0", "0/123456789", "g/0"] {
            assert!(wrong.parse::<Lsn>().is_err(), "{wrong}");
        }
    }
}
