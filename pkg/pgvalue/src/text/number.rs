use super::Misfit;

/// An integer as Postgres writes it: an optional `-`, then digits. `min` and `max` bound the result.
#[inline]
pub fn signed(text: &[u8], min: i64, max: i64) -> Result<i64, Misfit> {
    let (negative, digits) = match text.split_first() {
        Some((b'-', rest)) => (true, rest),
        _ => (false, text),
    };
    let magnitude = match magnitude(digits) {
        Err(Misfit::Above) if negative => return Err(Misfit::Below),
        other => other?,
    };
    let value = if negative { -i128::from(magnitude) } else { i128::from(magnitude) };
    if value < i128::from(min) {
        Err(Misfit::Below)
    } else if value > i128::from(max) {
        Err(Misfit::Above)
    } else {
        Ok(value as i64)
    }
}

/// A non-negative integer of at most `max`.
#[inline]
pub fn unsigned(text: &[u8], max: u64) -> Result<u64, Misfit> {
    if text.first() == Some(&b'-') {
        return Err(Misfit::Below);
    }
    let value = magnitude(text)?;
    if value > max { Err(Misfit::Above) } else { Ok(value) }
}

#[inline]
fn magnitude(digits: &[u8]) -> Result<u64, Misfit> {
    let mut value = 0_u64;
    // 19 digits always fit; the 20th is checked.
    if digits.len() <= 19 {
        for &byte in digits {
            let digit = byte.wrapping_sub(b'0');
            if digit > 9 {
                return Err(Misfit::Malformed);
            }
            value = value * 10 + u64::from(digit);
        }
    } else {
        for &byte in digits {
            let digit = byte.wrapping_sub(b'0');
            if digit > 9 {
                return Err(Misfit::Malformed);
            }
            value =
                value.checked_mul(10).and_then(|v| v.checked_add(u64::from(digit))).ok_or(Misfit::Above)?;
        }
    }
    if digits.is_empty() { Err(Misfit::Malformed) } else { Ok(value) }
}

/// `t` or `f`; also `true` and `false`, which is how ClickHouse writes them when it is read back.
#[inline]
pub fn boolean(text: &[u8]) -> Result<bool, Misfit> {
    match text {
        b"t" | b"true" => Ok(true),
        b"f" | b"false" => Ok(false),
        _ => Err(Misfit::Malformed),
    }
}

/// A `float8`: Postgres writes the shortest digits that read back the same, `NaN`, `Infinity`, `-0`.
#[inline]
pub fn float64(text: &[u8]) -> Result<f64, Misfit> {
    std::str::from_utf8(text).ok().and_then(|text| text.parse().ok()).ok_or(Misfit::Malformed)
}

/// A `float4`; see [`float64`].
#[inline]
pub fn float32(text: &[u8]) -> Result<f32, Misfit> {
    std::str::from_utf8(text).ok().and_then(|text| text.parse().ok()).ok_or(Misfit::Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_ends_of_each_integer_type_are_read_and_what_is_beyond_is_named() {
        for (text, min, max, expected) in [
            ("-32768", i16::MIN.into(), i16::MAX.into(), Ok(-32768)),
            ("32768", i16::MIN.into(), i16::MAX.into(), Err(Misfit::Above)),
            ("-32769", i16::MIN.into(), i16::MAX.into(), Err(Misfit::Below)),
            ("-9223372036854775808", i64::MIN, i64::MAX, Ok(i64::MIN)),
            ("9223372036854775807", i64::MIN, i64::MAX, Ok(i64::MAX)),
            ("9223372036854775808", i64::MIN, i64::MAX, Err(Misfit::Above)),
            ("-9223372036854775809", i64::MIN, i64::MAX, Err(Misfit::Below)),
            ("99999999999999999999999", i64::MIN, i64::MAX, Err(Misfit::Above)),
            ("-99999999999999999999999", i64::MIN, i64::MAX, Err(Misfit::Below)),
        ] {
            assert_eq!(signed(text.as_bytes(), min, max), expected, "{text}");
        }
        assert_eq!(unsigned(b"18446744073709551615", u64::MAX), Ok(u64::MAX));
        assert_eq!(unsigned(b"18446744073709551616", u64::MAX), Err(Misfit::Above));
        assert_eq!(unsigned(b"4294967296", u32::MAX.into()), Err(Misfit::Above));
    }

    #[test]
    fn what_is_no_number_is_malformed() {
        for text in ["", "-", "+1", "1 ", "1a", "0x1", "--1", "1-1", "\u{663}"] {
            assert_eq!(signed(text.as_bytes(), i64::MIN, i64::MAX), Err(Misfit::Malformed), "{text:?}");
        }
        assert_eq!(boolean(b"yes"), Err(Misfit::Malformed));
        assert_eq!(float64(b"1.5x"), Err(Misfit::Malformed));
        assert_eq!(float64(&[0xff]), Err(Misfit::Malformed));
    }

    #[test]
    fn floats_keep_their_bits_at_the_edges() {
        for (text, value) in [
            ("-0", -0.0_f64),
            ("5e-324", 5e-324),
            ("1.7976931348623157e+308", f64::MAX),
            ("Infinity", f64::INFINITY),
            ("-Infinity", f64::NEG_INFINITY),
        ] {
            assert_eq!(float64(text.as_bytes()).unwrap().to_bits(), value.to_bits(), "{text}");
        }
        assert!(float64(b"NaN").unwrap().is_nan());
        assert_eq!(float32(b"1e-45").unwrap().to_bits(), 1);
    }

    proptest! {
        #[test]
        fn any_integer_comes_back(value: i64) {
            prop_assert_eq!(signed(value.to_string().as_bytes(), i64::MIN, i64::MAX), Ok(value));
            prop_assert_eq!(unsigned((value as u64).to_string().as_bytes(), u64::MAX), Ok(value as u64));
        }

        #[test]
        fn any_bytes_give_the_answer_of_the_standard_library(text in "-?[0-9x]{0,22}") {
            let expected = text.parse::<i64>().ok().filter(|_| !text.starts_with('+'));
            prop_assert_eq!(signed(text.as_bytes(), i64::MIN, i64::MAX).ok(), expected);
        }

        #[test]
        fn any_float_comes_back(value: f64) {
            prop_assert_eq!(float64(format!("{value:e}").as_bytes()).unwrap().to_bits(), value.to_bits());
        }
    }
}
