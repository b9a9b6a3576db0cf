//! Names of files: which hour's folder, which ULID.
//!
//! Source: <https://github.com/ulid/spec>.

use replicator_telemetry::rfc3339_micros;
use replicator_types::{Lsn, POSTGRES_EPOCH_UNIX_MICROS, Position};
use std::time::{Duration, UNIX_EPOCH};

const HOUR_MICROS: u64 = 3_600_000_000;

/// The last microsecond that a four-digit year can tell: 9999-12-31T23:59:59.999999Z.
const MICROS_MAX: i64 = 253_402_300_799_999_999;

const LSN_BITS: u32 = 48;
const LSN_MASK: u64 = (1 << LSN_BITS) - 1;

/// Crockford's base 32: digits and letters that sort as their values, without I, L, O and U.
const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

/// Characters of a ULID.
pub const ULID_CHARS: usize = 26;

/// A commit time: microseconds since 1970-01-01 UTC, from 1970 to 9999. What Postgres could not have as a
/// commit time is taken for the nearest that it could.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CommitTime(u64);

impl CommitTime {
    /// From [`replicator_types::TransactionMeta::commit_time_us`].
    pub fn from_postgres_micros(micros: i64) -> Self {
        let since_1970 = micros.saturating_add(POSTGRES_EPOCH_UNIX_MICROS).clamp(0, MICROS_MAX);
        Self(since_1970.unsigned_abs())
    }

    /// The inverse of [`CommitTime::rfc3339`] for a time in `hour`; the hour's start when `text` is no such time.
    pub fn in_hour(hour: Hour, text: &str) -> Self {
        let number = |range| text.get(range).and_then(|digits: &str| digits.parse::<u64>().ok()).unwrap_or(0);
        let micros = number(14..16) * 60_000_000 + number(17..19) * 1_000_000 + number(20..26);
        Self(hour.0 * HOUR_MICROS + micros)
    }

    /// RFC 3339 in UTC, with microseconds.
    pub fn rfc3339(self) -> String {
        rfc3339_micros(UNIX_EPOCH + Duration::from_micros(self.0))
    }

    /// The hour that it is in.
    pub fn hour(self) -> Hour {
        Hour(self.0 / HOUR_MICROS)
    }

    /// Milliseconds since 1970.
    pub fn millis(self) -> u64 {
        self.0 / 1000
    }
}

/// An hour of UTC, counted from 1970.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Hour(u64);

impl Hour {
    /// `{branch}/YYYY/MM/DD/HH`
    pub fn folder(self, branch: &str) -> String {
        let text = rfc3339_micros(UNIX_EPOCH + Duration::from_micros(self.0 * HOUR_MICROS));
        let (date, time) = text.split_once('T').unwrap_or((&text, "00"));
        let hour = time.get(..2).unwrap_or("00");
        format!("{branch}/{}/{hour}", date.replace('-', "/"))
    }
}

/// The ULID of the file whose first event was committed at `time` and stands at `first`.
///
/// From the left: 48 bits of milliseconds since 1970, 48 bits of commit LSN, 32 bits of ordinal. So names
/// sort by time, then by position, and the same events give the same name. Of LSN and ordinal the low bits
/// are kept; a cluster writes 256 TiB of WAL before an LSN looks like an earlier one, and the time differs.
pub fn ulid(time: CommitTime, first: Position) -> String {
    let place =
        u128::from(first.commit_lsn.0 & LSN_MASK) << 32 | u128::from(first.ordinal & u64::from(u32::MAX));
    ulid_of(time, place)
}

/// The ULID of a time and of the low 80 bits of `rest`.
pub fn ulid_of(time: CommitTime, rest: u128) -> String {
    let number = u128::from(time.millis()) << 80 | rest & ((1 << 80) - 1);
    (0..ULID_CHARS)
        .rev()
        .map(|place| {
            let digit = (number >> (place * 5)) as usize & 31;
            char::from(*ALPHABET.get(digit).unwrap_or(&b'0'))
        })
        .collect()
}

/// The number in a ULID; `None` when the text is none.
pub fn parse_ulid(text: &str) -> Option<u128> {
    if text.len() != ULID_CHARS {
        return None;
    }
    let mut number: u128 = 0;
    for byte in text.bytes() {
        let digit = ALPHABET.iter().position(|&known| known == byte)?;
        // The first of 26 digits has only three bits of 128.
        if number >> 123 != 0 {
            return None;
        }
        number = number << 5 | digit as u128;
    }
    Some(number)
}

/// The LSN with these low 48 bits, as a ULID has them, that is nearest to `near`.
pub fn nearest_lsn(low: u64, near: Lsn) -> Lsn {
    let period = 1 << LSN_BITS;
    let low = low & LSN_MASK;
    let same_period = near.0 & !LSN_MASK | low;
    let candidates = [same_period.checked_sub(period), Some(same_period), same_period.checked_add(period)];
    let nearest = candidates.into_iter().flatten().min_by_key(|lsn| lsn.abs_diff(near.0));
    Lsn(nearest.unwrap_or(same_period))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn time(unix_micros: i64) -> CommitTime {
        CommitTime::from_postgres_micros(unix_micros - POSTGRES_EPOCH_UNIX_MICROS)
    }

    fn position(lsn: u64, ordinal: u64) -> Position {
        Position { commit_lsn: Lsn(lsn), ordinal }
    }

    #[test]
    fn a_name_has_time_and_position() {
        // The example of the ULID specification.
        assert!(ulid(time(1_469_918_176_385_000), position(0, 0)).starts_with("01ARYZ6S41"));
        assert_eq!(ulid(time(0), position(0, 0)), "00000000000000000000000000");
        assert_eq!(ulid(time(0), position(0, 31)), "0000000000000000000000000Z");
        assert_eq!(ulid(time(0), position(1, 0)), "00000000000000000004000000");
        assert_eq!(ulid(time(MICROS_MAX), position(u64::MAX, u64::MAX)).len(), 26);
    }

    #[test]
    fn the_folder_is_the_hour_of_the_commit() {
        assert_eq!(time(1_773_824_701_000_042).hour().folder("wal/events"), "wal/events/2026/03/18/09");
        assert_eq!(time(0).hour().folder("wal/events"), "wal/events/1970/01/01/00");
        assert_eq!(time(MICROS_MAX).hour().folder("wal/events"), "wal/events/9999/12/31/23");
        assert_eq!(CommitTime::from_postgres_micros(i64::MIN).hour(), Hour(0));
        assert_eq!(CommitTime::from_postgres_micros(i64::MAX).hour(), time(MICROS_MAX).hour());
    }

    proptest! {
        #[test]
        fn names_sort_by_time_then_position(a: (u32, u32, u16), b: (u32, u32, u16)) {
            let name = |(millis, lsn, ordinal): (u32, u32, u16)| ulid(time(i64::from(millis) * 1000), position(lsn.into(), ordinal.into()));
            prop_assert_eq!(name(a).cmp(&name(b)), a.cmp(&b));
        }

        #[test]
        fn a_time_is_read_back_within_its_hour(micros in 0..MICROS_MAX) {
            let time = time(micros);
            prop_assert_eq!(CommitTime::in_hour(time.hour(), &time.rfc3339()), time);
        }
    }
}
