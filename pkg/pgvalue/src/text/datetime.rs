use super::Misfit;

const DAY_US: i64 = 86_400_000_000;

/// A `date` as days since 1970-01-01.
///
/// Postgres writes `2024-02-29`, years beyond 9999 with more digits, ` BC` after years before 1,
/// `infinity` and `-infinity`.
///
/// # Errors
/// It is infinite (`Above`, `Below`), or no date.
#[inline]
pub fn date_days(text: &[u8]) -> Result<i64, Misfit> {
    let (text, is_bc) = era(text);
    match civil_date(text, is_bc) {
        Some((days, b"")) => Ok(days),
        Some(_) => Err(Misfit::Malformed),
        None => Err(infinity(text)),
    }
}

/// A `timestamp` or `timestamptz` as microseconds since the Unix epoch. One without an offset is taken as UTC.
///
/// Postgres writes `2024-02-29 13:00:00.123456+05:30`, with as much of the fraction and the offset as there
/// is (`+00`, `-03:30`, `+00:53:28`), and ` BC` at the end.
///
/// # Errors
/// It is infinite or beyond 64 bits, as the last weeks that Postgres knows are (`Above`, `Below`), or no timestamp.
#[inline]
pub fn timestamp_micros(text: &[u8]) -> Result<i64, Misfit> {
    let (text, is_bc) = era(text);
    let Some((days, rest)) = civil_date(text, is_bc) else {
        return Err(infinity(text));
    };
    let (of_day, rest) = rest.strip_prefix(b" ").and_then(time_of_day).ok_or(Misfit::Malformed)?;
    let (offset_seconds, rest) = offset(rest).ok_or(Misfit::Malformed)?;
    if !rest.is_empty() {
        return Err(Misfit::Malformed);
    }
    let micros =
        days.checked_mul(DAY_US).and_then(|micros| micros.checked_add(of_day - offset_seconds * 1_000_000));
    micros.ok_or(if is_bc { Misfit::Below } else { Misfit::Above })
}

/// A `time` as microseconds since midnight; `24:00:00` is a day's.
///
/// # Errors
/// It is no time.
pub fn time_micros(text: &[u8]) -> Result<i64, Misfit> {
    match time_of_day(text) {
        Some((micros, b"")) => Ok(micros),
        _ => Err(Misfit::Malformed),
    }
}

/// What is before ` BC`, and whether it was there.
#[inline]
fn era(text: &[u8]) -> (&[u8], bool) {
    match text.strip_suffix(b" BC") {
        Some(text) => (text, true),
        None => (text, false),
    }
}

fn infinity(text: &[u8]) -> Misfit {
    match text {
        b"infinity" => Misfit::Above,
        b"-infinity" => Misfit::Below,
        _ => Misfit::Malformed,
    }
}

/// Two digits and what follows.
#[inline]
fn two(text: &[u8]) -> Option<(i64, &[u8])> {
    let (&[tens, ones], rest) = text.split_first_chunk::<2>()?;
    (tens.is_ascii_digit() && ones.is_ascii_digit())
        .then(|| (i64::from(tens - b'0') * 10 + i64::from(ones - b'0'), rest))
}

/// `Y…Y-MM-DD` as days since 1970-01-01 and what follows it.
#[inline]
fn civil_date(text: &[u8], is_bc: bool) -> Option<(i64, &[u8])> {
    let year_digits = text.iter().position(|byte| !byte.is_ascii_digit())?;
    if !(4..=7).contains(&year_digits) {
        return None;
    }
    let (year, rest) = text.split_at_checked(year_digits)?;
    let year = year.iter().fold(0, |value, byte| value * 10 + i64::from(byte - b'0'));
    let year = if is_bc { 1 - year } else { year };
    let (month, rest) = two(rest.strip_prefix(b"-")?)?;
    let (day, rest) = two(rest.strip_prefix(b"-")?)?;
    if !(1..=12).contains(&month) || day < 1 || day > days_in_month(year, month) {
        return None;
    }
    Some((days_from_civil(year, month, day), rest))
}

#[inline]
fn days_in_month(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days since 1970-01-01 in the proleptic Gregorian calendar: whole years since 0000-03-01, so that the
/// leap day comes last, then the days of the months from March.
#[inline]
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    // Months from March alternate 31, 30 over five months: 153 days.
    let of_year = (153 * month + 2) / 5 + day - 1;
    // 719 468 days lie between 0000-03-01 and 1970-01-01.
    year * 365 + leap_days + of_year - 719_468
}

/// `HH:MM:SS[.ffffff]` as microseconds and what follows it. `24:00:00` and second 60 are taken as they are.
#[inline]
fn time_of_day(text: &[u8]) -> Option<(i64, &[u8])> {
    let (hours, rest) = two(text)?;
    let (minutes, rest) = two(rest.strip_prefix(b":")?)?;
    let (seconds, rest) = two(rest.strip_prefix(b":")?)?;
    if hours > 24 || minutes > 59 || seconds > 60 {
        return None;
    }
    let mut micros = ((hours * 60 + minutes) * 60 + seconds) * 1_000_000;
    let Some(fraction) = rest.strip_prefix(b".") else {
        return Some((micros, rest));
    };
    let digits = fraction.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(fraction.len());
    if !(1..=6).contains(&digits) {
        return None;
    }
    let (fraction, rest) = fraction.split_at_checked(digits)?;
    let mut unit = 1_000_000;
    for byte in fraction {
        unit /= 10;
        micros += i64::from(byte - b'0') * unit;
    }
    Some((micros, rest))
}

/// `[±HH[:MM[:SS]]]` as seconds east of UTC and what follows it.
#[inline]
fn offset(text: &[u8]) -> Option<(i64, &[u8])> {
    let (sign, rest) = match text.split_first() {
        Some((b'+', rest)) => (1, rest),
        Some((b'-', rest)) => (-1, rest),
        _ => return Some((0, text)),
    };
    let (hours, mut rest) = two(rest)?;
    let mut seconds = hours * 3600;
    for unit in [60, 1] {
        let Some(more) = rest.strip_prefix(b":") else { break };
        let (value, after) = two(more)?;
        seconds += value * unit;
        rest = after;
    }
    Some((sign * seconds, rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The model: counts days one by one.
    fn naive_days(year: i64, month: i64, day: i64) -> i64 {
        let length = |year: i64| 365 + days_in_month(year, 2) - 28;
        let years: i64 = if year >= 1970 {
            (1970..year).map(length).sum()
        } else {
            -(year..1970).map(length).sum::<i64>()
        };
        years + (1..month).map(|m| days_in_month(year, m)).sum::<i64>() + day - 1
    }

    #[test]
    fn dates_of_either_era_are_days_and_infinite_ones_are_named() {
        for (text, expected) in [
            ("1970-01-01", Ok(0)),
            ("1969-12-31", Ok(-1)),
            ("2000-02-29", Ok(11_016)),
            ("0001-01-01", Ok(-719_162)),
            ("0001-12-31 BC", Ok(-719_163)),
            // A Julian day of 0, the least that Postgres has.
            ("4714-11-24 BC", Ok(-2_440_588)),
            ("5874897-12-31", Ok(2_145_042_905)),
            ("infinity", Err(Misfit::Above)),
            ("-infinity", Err(Misfit::Below)),
        ] {
            assert_eq!(date_days(text.as_bytes()), expected, "{text}");
        }
    }

    #[test]
    fn timestamps_of_every_shape_are_read() {
        for (text, expected) in [
            ("1970-01-01 00:00:00", 0),
            ("1970-01-01 00:00:00+00", 0),
            ("1970-01-01 00:00:00.000001", 1),
            ("1970-01-01 00:00:00.5", 500_000),
            ("1969-12-31 23:59:59.999999", -1),
            ("1970-01-01 05:30:00+05:30", 0),
            ("1969-12-31 20:30:00-03:30", 0),
            ("1970-01-01 00:53:28+00:53:28", 0),
            ("2016-12-31 23:59:60", 1_483_228_800_000_000),
            ("1969-12-31 24:00:00", 0),
            ("4714-11-24 00:00:00+00 BC", -2_440_588 * DAY_US),
        ] {
            assert_eq!(timestamp_micros(text.as_bytes()), Ok(expected), "{text}");
        }
    }

    #[test]
    fn timestamps_beyond_64_bits_are_never_wrapped() {
        for (text, expected) in [
            ("294276-12-31 23:59:59.999999", Misfit::Above),
            ("infinity", Misfit::Above),
            ("-infinity", Misfit::Below),
        ] {
            assert_eq!(timestamp_micros(text.as_bytes()), Err(expected), "{text}");
        }
    }

    #[test]
    fn a_time_is_its_microseconds() {
        assert_eq!(time_micros(b"00:00:00.000001"), Ok(1));
        assert_eq!(time_micros(b"24:00:00"), Ok(DAY_US));
        assert_eq!(time_micros(b"1:00:00"), Err(Misfit::Malformed));
        assert_eq!(time_micros(b"01:00:00+00"), Err(Misfit::Malformed));
    }

    #[test]
    fn what_is_no_date_is_malformed() {
        for text in [
            "",
            "2024",
            "2024-02-30",
            "2023-02-29",
            "2024-13-01",
            "2024-00-01",
            "2024-01-00",
            "24-01-01",
            "01/02/2024",
            "2024-1-1",
            "2024-01-01x",
            "2024-01-01 AD",
            "99999999-01-01",
            "Infinity",
        ] {
            assert_eq!(date_days(text.as_bytes()), Err(Misfit::Malformed), "{text}");
        }
        for text in
            ["2024-01-01", "2024-01-01 ", "2024-01-01T00:00:00", "2024-01-01 25:00:00", "2024-01-01 00:00"]
        {
            assert_eq!(timestamp_micros(text.as_bytes()), Err(Misfit::Malformed), "{text}");
        }
        for text in [
            "2024-01-01 00:00:00.",
            "2024-01-01 00:00:00.1234567",
            "2024-01-01 00:00:00+1",
            "2024-01-01 00:00:00 PST",
        ] {
            assert_eq!(timestamp_micros(text.as_bytes()), Err(Misfit::Malformed), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_date_is_the_day_that_counting_gives(year in 1900_i64..=2299, month in 1_i64..=12, day in 1_i64..=31) {
            let text = format!("{year:04}-{month:02}-{day:02}");
            let expected = (day <= days_in_month(year, month)).then(|| naive_days(year, month, day));
            prop_assert_eq!(date_days(text.as_bytes()).ok(), expected);
        }

        #[test]
        fn any_moment_comes_back_whatever_the_offset(micros in -2_208_988_800_000_000_i64..10_413_792_000_000_000, minutes in -900_i64..=900) {
            let local = micros + minutes * 60_000_000;
            let days = local.div_euclid(DAY_US);
            let of_day = local.rem_euclid(DAY_US);
            let mut year = 1970 + days / 366;
            while naive_days(year, 1, 1) > days { year -= 1; }
            while naive_days(year + 1, 1, 1) <= days { year += 1; }
            let mut month = 1;
            while month < 12 && naive_days(year, month + 1, 1) <= days { month += 1; }
            let day = days - naive_days(year, month, 1) + 1;
            let sign = if minutes < 0 { '-' } else { '+' };
            let text = format!(
                "{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02}.{:06}{sign}{:02}:{:02}",
                of_day / 3_600_000_000, of_day / 60_000_000 % 60, of_day / 1_000_000 % 60, of_day % 1_000_000,
                minutes.abs() / 60, minutes.abs() % 60,
            );
            prop_assert_eq!(timestamp_micros(text.as_bytes()), Ok(micros), "{}", text);
        }

        #[test]
        fn no_bytes_make_it_panic(text in "[0-9:. +\\-BCinfty]{0,32}") {
            let _ = timestamp_micros(text.as_bytes());
            let _ = date_days(text.as_bytes());
        }
    }
}
