//! Dates, times and intervals.
//!
//! | type | binary form |
//! |---|---|
//! | `date` | 32 bits: days since 2000-01-01 |
//! | `time` | 64 bits: microseconds since midnight, which may be that of the next day |
//! | `timetz` | the same, then 32 bits: seconds *west* of UTC |
//! | `timestamp`, `timestamptz` | 64 bits: microseconds since 2000-01-01 00:00, of no zone and of UTC |
//! | `interval` | microseconds (64 bits), days, months (32 bits each) |
//!
//! The greatest and the least number of days and microseconds stand for `infinity` and `-infinity`. Years before
//! the first are shown as `BC`, without a year 0.
//!
//! Sources: `EncodeDateOnly`, `EncodeTimeOnly`, `EncodeDateTime`, `EncodeInterval` in `datetime.c`; `date.c`,
//! `timestamp.c`; `src/include/datatype/timestamp.h`.

use crate::Malformed;
use crate::exactly;
use crate::read::Reader;

/// Microseconds of a day.
pub const DAY_MICROS: i64 = 86_400_000_000;

const SECOND_MICROS: u64 = 1_000_000;

/// Zones are less than so many seconds from UTC (`MAX_TZDISP_HOUR`).
const ZONE_SECONDS_END: u32 = 16 * 3600;

/// Something on a line of time, or at one of its ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MaybeInfinite<T> {
    /// Later than everything.
    Infinity,
    /// Earlier than everything.
    NegativeInfinity,
    /// Neither.
    At(T),
}

/// A binary `interval` that has an end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Interval {
    /// Months.
    pub months: i32,
    /// Days, beside the months.
    pub days: i32,
    /// Microseconds, beside the days.
    pub micros: i64,
}

/// A binary `date` in days since 2000-01-01.
///
/// # Errors
/// It has not 4 bytes.
#[inline]
pub fn date_days(binary: &[u8]) -> Result<MaybeInfinite<i32>, Malformed> {
    Ok(match i32::from_be_bytes(exactly(binary)?) {
        i32::MAX => MaybeInfinite::Infinity,
        i32::MIN => MaybeInfinite::NegativeInfinity,
        days => MaybeInfinite::At(days),
    })
}

/// A binary `timestamp` or `timestamptz` in microseconds since 2000-01-01 00:00 (UTC).
///
/// # Errors
/// It has not 8 bytes.
#[inline]
pub fn timestamp_micros(binary: &[u8]) -> Result<MaybeInfinite<i64>, Malformed> {
    Ok(match i64::from_be_bytes(exactly(binary)?) {
        i64::MAX => MaybeInfinite::Infinity,
        i64::MIN => MaybeInfinite::NegativeInfinity,
        micros => MaybeInfinite::At(micros),
    })
}

/// A binary `time` in microseconds since midnight, from 0 to [`DAY_MICROS`], which is `24:00:00`.
///
/// # Errors
/// It has not 8 bytes, or is of no day.
#[inline]
pub fn time_micros(binary: &[u8]) -> Result<i64, Malformed> {
    let micros = i64::from_be_bytes(exactly(binary)?);
    if (0..=DAY_MICROS).contains(&micros) { Ok(micros) } else { Err(Malformed("it is no time of a day")) }
}

/// A binary `timetz`: microseconds since midnight as [`time_micros`] gives them, and seconds west of UTC.
///
/// # Errors
/// It has not 12 bytes, or is of no day or zone.
#[inline]
pub fn timetz(binary: &[u8]) -> Result<(i64, i32), Malformed> {
    let (micros, zone) = binary.split_at_checked(8).ok_or(Malformed("it ends early"))?;
    let west_seconds = i32::from_be_bytes(exactly(zone)?);
    if west_seconds.unsigned_abs() >= ZONE_SECONDS_END {
        return Err(Malformed("its zone is none"));
    }
    Ok((time_micros(micros)?, west_seconds))
}

/// A binary `interval`. Infinite ones are there since Postgres 17.
///
/// # Errors
/// It has not 16 bytes.
pub fn interval(binary: &[u8]) -> Result<MaybeInfinite<Interval>, Malformed> {
    let mut reader = Reader(binary);
    let (micros, days, months) = (reader.u64()? as i64, reader.i32()?, reader.i32()?);
    reader.end()?;
    Ok(match (micros, days, months) {
        (i64::MAX, i32::MAX, i32::MAX) => MaybeInfinite::Infinity,
        (i64::MIN, i32::MIN, i32::MIN) => MaybeInfinite::NegativeInfinity,
        _ => MaybeInfinite::At(Interval { months, days, micros }),
    })
}

/// Year (0 for 1 BC, -1 for 2 BC), month and day of so many days since 2000-01-01, in the Gregorian calendar.
#[inline]
pub fn civil(days: i64) -> (i64, u8, u8) {
    // Counted from 0000-03-01, so that a leap day is the last of its year, and by cycles of 400 years.
    const CYCLE_DAYS: i64 = 146_097;
    let days = days.saturating_add(730_425);
    let (cycle, day) = (days.div_euclid(CYCLE_DAYS), days.rem_euclid(CYCLE_DAYS));
    // Leap days before `day`: each 4 years (1461 days), but for each 100 (36,524), and for each 400.
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day_of_year = day - (365 * year + year / 4 - year / 100);
    // Five months from March or August on have 153 days.
    let month = (5 * day_of_year + 2) / 153;
    let day_of_month = day_of_year - (153 * month + 2) / 5 + 1;
    let (year, month) = if month < 10 { (year, month + 3) } else { (year + 1, month - 9) };
    (cycle * 400 + year, month as u8, day_of_month as u8)
}

pub(crate) fn write_date(binary: &[u8], out: &mut Vec<u8>) -> Result<(), Malformed> {
    if let Some(days) = finite(date_days(binary)?, out) {
        let year = push_day(days.into(), out);
        push_era(year, out);
    }
    Ok(())
}

/// `zone` is what follows the time.
pub(crate) fn write_timestamp(binary: &[u8], zone: &[u8], out: &mut Vec<u8>) -> Result<(), Malformed> {
    if let Some(micros) = finite(timestamp_micros(binary)?, out) {
        let year = push_day(micros.div_euclid(DAY_MICROS), out);
        out.push(b' ');
        push_time(micros.rem_euclid(DAY_MICROS).unsigned_abs(), out);
        out.extend_from_slice(zone);
        push_era(year, out);
    }
    Ok(())
}

pub(crate) fn write_time(binary: &[u8], out: &mut Vec<u8>) -> Result<(), Malformed> {
    push_time(time_micros(binary)?.unsigned_abs(), out);
    Ok(())
}

pub(crate) fn write_timetz(binary: &[u8], out: &mut Vec<u8>) -> Result<(), Malformed> {
    let (micros, west_seconds) = timetz(binary)?;
    push_time(micros.unsigned_abs(), out);
    out.push(if west_seconds <= 0 { b'+' } else { b'-' });
    let seconds = west_seconds.unsigned_abs();
    let parts = [seconds / 3600, seconds / 60 % 60, seconds % 60];
    let shown = if parts[2] != 0 {
        3
    } else if parts[1] != 0 {
        2
    } else {
        1
    };
    for (place, part) in parts.into_iter().take(shown).enumerate() {
        if place > 0 {
            out.push(b':');
        }
        out.extend_from_slice(&two(part.into()));
    }
    Ok(())
}

pub(crate) fn write_interval(binary: &[u8], out: &mut Vec<u8>) -> Result<(), Malformed> {
    let Some(Interval { months, days, micros }) = finite(interval(binary)?, out) else {
        return Ok(());
    };
    let begin = out.len();
    // A part above zero has its sign shown where the one before it is below.
    let mut negative_before = false;
    for (number, unit) in [(months / 12, " year"), (months % 12, " mon"), (days, " day")] {
        if number == 0 {
            continue;
        }
        if out.len() > begin {
            out.push(b' ');
        }
        if negative_before && number > 0 {
            out.push(b'+');
        }
        out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
        out.extend_from_slice(unit.as_bytes());
        if number != 1 {
            out.push(b's');
        }
        negative_before = number < 0;
    }
    if micros != 0 || out.len() == begin {
        if out.len() > begin {
            out.push(b' ');
        }
        if micros < 0 {
            out.push(b'-');
        } else if negative_before {
            out.push(b'+');
        }
        push_time(micros.unsigned_abs(), out);
    }
    Ok(())
}

/// What is neither end of time; the name of an end is appended.
fn finite<T>(value: MaybeInfinite<T>, out: &mut Vec<u8>) -> Option<T> {
    match value {
        MaybeInfinite::At(value) => Some(value),
        MaybeInfinite::Infinity => {
            out.extend_from_slice(b"infinity");
            None
        }
        MaybeInfinite::NegativeInfinity => {
            out.extend_from_slice(b"-infinity");
            None
        }
    }
}

#[inline]
fn two(number: u64) -> [u8; 2] {
    [b'0' + (number / 10 % 10) as u8, b'0' + (number % 10) as u8]
}

/// Appends `YYYY-MM-DD`; returns the year.
#[inline]
fn push_day(days: i64, out: &mut Vec<u8>) -> i64 {
    let (year, month, day) = civil(days);
    let shown = if year > 0 { year.unsigned_abs() } else { year.unsigned_abs() + 1 };
    if shown < 10_000 {
        out.extend_from_slice(&two(shown / 100));
        out.extend_from_slice(&two(shown));
    } else {
        out.extend_from_slice(itoa::Buffer::new().format(shown).as_bytes());
    }
    let ([m, n], [d, e]) = (two(month.into()), two(day.into()));
    out.extend_from_slice(&[b'-', m, n, b'-', d, e]);
    year
}

fn push_era(year: i64, out: &mut Vec<u8>) {
    if year <= 0 {
        out.extend_from_slice(b" BC");
    }
}

/// Appends `HH:MM:SS`, with a fraction unless it is zero, without zeros at its end. More than 99 hours have more digits.
#[inline]
fn push_time(micros: u64, out: &mut Vec<u8>) {
    let (seconds, mut fraction) = (micros / SECOND_MICROS, micros % SECOND_MICROS);
    let hours = seconds / 3600;
    if hours < 100 {
        out.extend_from_slice(&two(hours));
    } else {
        out.extend_from_slice(itoa::Buffer::new().format(hours).as_bytes());
    }
    let ([m, n], [s, t]) = (two(seconds / 60 % 60), two(seconds % 60));
    out.extend_from_slice(&[b':', m, n, b':', s, t]);
    if fraction != 0 {
        let mut places = 6;
        while fraction.is_multiple_of(10) {
            fraction /= 10;
            places -= 1;
        }
        let mut digits = *b".000000";
        for digit in digits.iter_mut().skip(1).take(places).rev() {
            *digit = b'0' + (fraction % 10) as u8;
            fraction /= 10;
        }
        out.extend(digits.into_iter().take(1 + places));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type Writer = fn(&[u8], &mut Vec<u8>) -> Result<(), Malformed>;

    fn text(write: Writer, binary: &[u8]) -> String {
        let mut out = Vec::new();
        write(binary, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    fn date(days: i32) -> String {
        text(write_date, &days.to_be_bytes())
    }

    fn interval_text(months: i32, days: i32, micros: i64) -> String {
        let mut binary = micros.to_be_bytes().to_vec();
        binary.extend(days.to_be_bytes());
        binary.extend(months.to_be_bytes());
        text(write_interval, &binary)
    }

    #[test]
    fn days_are_of_the_gregorian_calendar_on_either_side_of_year_one() {
        for (days, expected) in [
            (0, "2000-01-01"),
            (59, "2000-02-29"),
            (60, "2000-03-01"),
            (365, "2000-12-31"),
            (-36_465, "1900-03-01"),
            (-730_119, "0001-01-01"),
            (-730_120, "0001-12-31 BC"),
            (-2_451_507, "4713-01-01 BC"),
            (2_145_031_948, "5874897-12-31"),
            (i32::MAX, "infinity"),
            (i32::MIN, "-infinity"),
        ] {
            assert_eq!(date(days), expected);
        }
    }

    #[test]
    fn a_fraction_has_no_zeros_at_its_end() {
        let time = |micros: i64| text(write_time, &micros.to_be_bytes());
        assert_eq!(time(0), "00:00:00");
        assert_eq!(time(1), "00:00:00.000001");
        assert_eq!(time(120_000), "00:00:00.12");
        assert_eq!(time(DAY_MICROS), "24:00:00");
        assert!(write_time(&(DAY_MICROS + 1).to_be_bytes(), &mut Vec::new()).is_err());
        assert!(write_time(&(-1i64).to_be_bytes(), &mut Vec::new()).is_err());
    }

    #[test]
    fn a_zone_is_as_short_as_it_can_be_and_counts_eastward() {
        let timetz = |west_seconds: i32| {
            let mut binary = 0i64.to_be_bytes().to_vec();
            binary.extend(west_seconds.to_be_bytes());
            text(write_timetz, &binary)
        };
        assert_eq!(timetz(0), "00:00:00+00");
        assert_eq!(timetz(-19_800), "00:00:00+05:30");
        assert_eq!(timetz(28_800), "00:00:00-08");
        assert_eq!(timetz(1), "00:00:00-00:00:01");
        assert!(super::timetz(&[&[0; 8][..], &i32::MIN.to_be_bytes()].concat()).is_err());
    }

    #[test]
    fn the_sign_of_an_interval_part_depends_on_the_one_before() {
        assert_eq!(interval_text(0, 0, 0), "00:00:00");
        assert_eq!(interval_text(14, -3, 4_000_000), "1 year 2 mons -3 days +00:00:04");
        assert_eq!(interval_text(-13, 1, -1), "-1 years -1 mons +1 day -00:00:00.000001");
        assert_eq!(interval_text(0, 0, i64::MIN), "-2562047788:00:54.775808");
        assert_eq!(interval_text(i32::MAX, i32::MAX, i64::MAX), "infinity");
        assert_eq!(interval_text(i32::MIN, i32::MIN, i64::MIN), "-infinity");
    }

    proptest! {
        #[test]
        fn the_next_day_is_the_next_day(days in -2_500_000i64..4_000_000) {
            let (year, month, day) = civil(days);
            let (next_year, next_month, next_day) = civil(days + 1);
            let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
            let length = match month { 2 => 28 + u8::from(leap), 4 | 6 | 9 | 11 => 30, _ => 31 };
            let expected = if day < length { (year, month, day + 1) }
                else if month < 12 { (year, month + 1, 1) }
                else { (year + 1, 1, 1) };
            prop_assert_eq!((next_year, next_month, next_day), expected);
        }
    }
}
