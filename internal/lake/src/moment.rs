//! Moments of the stream, as people write them.

use crate::bookmark;
use pgvalue::text::timestamp_micros;
use replicator_types::{Lsn, Position};
use std::str::FromStr;

/// A point that a table can be asked for as of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Moment {
    /// All transactions that had committed by then: microseconds since 1970-01-01 UTC, by the source's clock.
    Time(i64),
    /// All transactions whose commit record begins at or before it.
    Lsn(Lsn),
    /// Changes up to that one: a bookmark, such as manifests have.
    Bookmark(Position),
}

impl FromStr for Moment {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(position) = bookmark::parse(text) {
            return Ok(Self::Bookmark(position));
        }
        if let Ok(lsn) = text.parse::<Lsn>() {
            return Ok(Self::Lsn(lsn));
        }
        time_us(text).map(Self::Time).map_err(|why| format!("{why}, nor an LSN (X/X), nor a bookmark"))
    }
}

/// A date or a timestamp as microseconds since 1970-01-01 UTC; one without an offset is UTC.
///
/// # Errors
/// It is neither; says how to write it.
pub fn time_us(text: &str) -> Result<i64, String> {
    let mut spaced = text.trim().replacen('T', " ", 1);
    if let Some(without) = spaced.strip_suffix('Z') {
        spaced = format!("{without}+00");
    }
    if spaced.len() == "2026-03-18".len() {
        spaced.push_str(" 00:00:00");
    }
    timestamp_micros(spaced.as_bytes())
        .map_err(|_| format!("{text} is no time (2026-03-18, or 2026-03-18T09:00:00Z)"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_a_date_a_time_an_lsn_or_a_bookmark() {
        let nine = 1_773_824_400_000_000;
        assert_eq!("2026-03-18T09:00:00Z".parse(), Ok(Moment::Time(nine)));
        assert_eq!("2026-03-18 10:00:00.000001+01".parse(), Ok(Moment::Time(nine + 1)));
        assert_eq!("2026-03-18".parse(), Ok(Moment::Time(nine - 9 * 3_600_000_000)));
        assert_eq!("0/16B3748".parse(), Ok(Moment::Lsn(Lsn(0x16B_3748))));
        let position = Position { commit_lsn: Lsn(0x100), ordinal: 7 };
        assert_eq!(bookmark::text(position).parse(), Ok(Moment::Bookmark(position)));
        for wrong in ["", "yesterday", "2026-13-01", "0/", "infinity"] {
            assert!(wrong.parse::<Moment>().is_err(), "{wrong}");
        }
    }
}
