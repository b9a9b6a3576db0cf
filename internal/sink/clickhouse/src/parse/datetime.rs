use super::Misfit;
use pgvalue::text;

/// Days from 1970-01-01 to 1900-01-01, the least `Date32`.
pub(crate) const DATE32_MIN: i32 = -25_567;
/// Days from 1970-01-01 to 2299-12-31, the greatest `Date32`.
pub(crate) const DATE32_MAX: i32 = 120_529;
/// Microseconds from the Unix epoch to 1900-01-01 00:00:00, the least `DateTime64(6)`.
pub(crate) const DATETIME64_MIN: i64 = DATE32_MIN as i64 * DAY_US;
/// Microseconds from the Unix epoch to 2299-12-31 23:59:59.999999, the greatest `DateTime64(6)`.
pub(crate) const DATETIME64_MAX: i64 = (DATE32_MAX as i64 + 1) * DAY_US - 1;

const DAY_US: i64 = 86_400_000_000;

/// A `date` as days since 1970-01-01, within ClickHouse's `Date32`.
#[inline]
pub(crate) fn date_days(text: &[u8]) -> Result<i32, Misfit> {
    let days = text::date_days(text)?;
    if days < i64::from(DATE32_MIN) {
        Err(Misfit::Below)
    } else if days > i64::from(DATE32_MAX) {
        Err(Misfit::Above)
    } else {
        Ok(days as i32)
    }
}

/// A `timestamp` or `timestamptz` as microseconds since the Unix epoch, within ClickHouse's
/// `DateTime64(6)`. One without an offset is taken as UTC.
#[inline]
pub(crate) fn timestamp_micros(text: &[u8]) -> Result<i64, Misfit> {
    let micros = text::timestamp_micros(text)?;
    if micros < DATETIME64_MIN {
        Err(Misfit::Below)
    } else if micros > DATETIME64_MAX {
        Err(Misfit::Above)
    } else {
        Ok(micros)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_at_the_ends_of_the_type_are_kept_and_those_beyond_are_named() {
        for (text, expected) in [
            ("1970-01-01", Ok(0)),
            ("1969-12-31", Ok(-1)),
            ("2000-02-29", Ok(11_016)),
            ("1900-01-01", Ok(DATE32_MIN)),
            ("2299-12-31", Ok(DATE32_MAX)),
            ("1899-12-31", Err(Misfit::Below)),
            ("2300-01-01", Err(Misfit::Above)),
            ("294276-12-31", Err(Misfit::Above)),
            ("5874897-12-31", Err(Misfit::Above)),
            ("0044-03-15 BC", Err(Misfit::Below)),
            ("4713-01-01 BC", Err(Misfit::Below)),
            ("infinity", Err(Misfit::Above)),
            ("-infinity", Err(Misfit::Below)),
        ] {
            assert_eq!(date_days(text.as_bytes()), expected, "{text}");
        }
    }

    #[test]
    fn timestamps_at_the_ends_of_the_type_are_kept() {
        assert_eq!(timestamp_micros(b"1900-01-01 00:00:00"), Ok(DATETIME64_MIN));
        assert_eq!(timestamp_micros(b"2299-12-31 23:59:59.999999+00"), Ok(DATETIME64_MAX));
    }

    #[test]
    fn timestamps_beyond_the_type_are_never_wrapped() {
        for (text, expected) in [
            ("1900-01-01 00:00:00+01", Misfit::Below),
            ("2299-12-31 23:59:59-01", Misfit::Above),
            ("294276-12-31 23:59:59.999999", Misfit::Above),
            ("0044-03-15 12:00:00+00 BC", Misfit::Below),
            ("4713-11-24 00:00:00 BC", Misfit::Below),
            ("infinity", Misfit::Above),
            ("-infinity", Misfit::Below),
        ] {
            assert_eq!(timestamp_micros(text.as_bytes()), Err(expected), "{text}");
        }
    }
}
