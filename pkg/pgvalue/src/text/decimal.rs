use super::Misfit;

/// A decimal scaled to an integer: sign and magnitude, 256 bits, least significant word first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Decimal {
    negative: bool,
    words: [u64; 4],
}

impl Decimal {
    /// The greatest of `precision` digits (`negative`: the least).
    pub fn extreme(precision: u8, negative: bool) -> Self {
        let mut value = Self { negative, words: [0; 4] };
        for _ in 0..precision {
            value.append(9);
        }
        value
    }

    /// The 32 bytes ClickHouse has for it: two's complement, little-endian. A narrower decimal is a prefix.
    #[inline]
    pub fn to_le_bytes(self) -> [u8; 32] {
        let mut words = self.words;
        if self.negative {
            let mut carry = true;
            for word in &mut words {
                let (inverted, overflowed) = (!*word).overflowing_add(u64::from(carry));
                *word = inverted;
                carry = overflowed;
            }
        }
        let mut bytes = [0; 32];
        for (chunk, word) in bytes.as_chunks_mut::<8>().0.iter_mut().zip(words) {
            *chunk = word.to_le_bytes();
        }
        bytes
    }

    /// `self * 10 + digit`; wraps beyond 76 digits, which no caller has.
    fn append(&mut self, digit: u8) {
        let mut carry = u128::from(digit);
        for word in &mut self.words {
            let product = u128::from(*word) * 10 + carry;
            *word = product as u64;
            carry = product >> 64;
        }
    }
}

/// A `numeric` as an integer scaled by `10^scale`, of at most `precision` ≤ 76 digits.
///
/// Postgres writes digits, a point and digits, never an exponent; or `NaN`, `Infinity`, `-Infinity`.
pub fn decimal(text: &[u8], precision: u8, scale: u8) -> Result<Decimal, Misfit> {
    let (negative, number) = match text.split_first() {
        Some((b'-', rest)) => (true, rest),
        _ => (false, text),
    };
    let point = number.iter().position(|&byte| byte == b'.').unwrap_or(number.len());
    let (whole, fraction) = number.split_at_checked(point).ok_or(Misfit::Malformed)?;
    let fraction = fraction.strip_prefix(b".").unwrap_or(fraction);
    let all_digits = |part: &[u8]| part.iter().all(u8::is_ascii_digit);
    if whole.len() + fraction.len() == 0 || !all_digits(whole) || !all_digits(fraction) {
        return Err(match (number, negative) {
            (b"NaN", false) => Misfit::NotANumber,
            (b"Infinity", false) => Misfit::Above,
            (b"Infinity", true) => Misfit::Below,
            _ => Misfit::Malformed,
        });
    }
    let significant = whole.iter().position(|&byte| byte != b'0').unwrap_or(whole.len());
    let whole = whole.get(significant..).unwrap_or_default();
    if whole.len() > usize::from(precision.saturating_sub(scale)) {
        return Err(if negative { Misfit::Below } else { Misfit::Above });
    }
    let (kept, beyond) = fraction.split_at(fraction.len().min(usize::from(scale)));
    if beyond.iter().any(|&byte| byte != b'0') {
        return Err(Misfit::Scale);
    }
    let zeros = usize::from(scale) - kept.len();
    let digits = whole.iter().chain(kept).map(|byte| byte - b'0').chain(std::iter::repeat_n(0, zeros));
    if precision <= 19 {
        let magnitude = digits.fold(0_u64, |value, digit| value * 10 + u64::from(digit));
        return Ok(Decimal { negative, words: [magnitude, 0, 0, 0] });
    }
    if precision <= 38 {
        let magnitude = digits.fold(0_u128, |value, digit| value * 10 + u128::from(digit));
        return Ok(Decimal { negative, words: [magnitude as u64, (magnitude >> 64) as u64, 0, 0] });
    }
    let mut value = Decimal { negative, words: [0; 4] };
    digits.for_each(|digit| value.append(digit));
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn as_i128(value: Decimal) -> i128 {
        let bytes = value.to_le_bytes();
        let low = i128::from_le_bytes(*bytes.first_chunk().unwrap());
        let sign = if low < 0 { [0xff; 16] } else { [0; 16] };
        assert_eq!(bytes.last_chunk(), Some(&sign), "the upper half repeats the sign");
        low
    }

    #[test]
    fn decimals_are_scaled_and_the_missing_digits_are_zeros() {
        for (text, precision, scale, expected) in [
            ("12.34", 12, 2, 1234),
            ("-12.3", 12, 2, -1230),
            ("12", 12, 2, 1200),
            ("0.00", 12, 2, 0),
            ("-0.01", 12, 2, -1),
            (".5", 2, 1, 5),
            ("000123.4500", 5, 2, 12345),
            ("9999999999.99", 12, 2, 999_999_999_999),
            ("-9223372036854775808", 19, 0, i128::from(i64::MIN)),
            ("0.05", 2, 2, 5),
        ] {
            assert_eq!(decimal(text.as_bytes(), precision, scale).map(as_i128), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_a_decimal_has_no_room_for_is_named() {
        for (text, expected) in [
            ("10000000000.00", Misfit::Above),
            ("-10000000000", Misfit::Below),
            ("1.001", Misfit::Scale),
            ("NaN", Misfit::NotANumber),
            ("Infinity", Misfit::Above),
            ("-Infinity", Misfit::Below),
            ("", Misfit::Malformed),
            ("-", Misfit::Malformed),
            (".", Misfit::Malformed),
            ("1.2.3", Misfit::Malformed),
            ("1e5", Misfit::Malformed),
            ("-NaN", Misfit::Malformed),
        ] {
            assert_eq!(decimal(text.as_bytes(), 12, 2), Err(expected), "{text}");
        }
    }

    #[test]
    fn the_widest_decimal_keeps_every_digit() {
        let text = "9".repeat(76);
        let value = decimal(text.as_bytes(), 76, 0).unwrap();
        assert_eq!(value, Decimal::extreme(76, false));
        // 10^76 - 1, computed with Python's integers.
        let top = "161bcca7119915b50764b4abe86529797775a5f1719510000000000000000000";
        let expected: Vec<u8> =
            (0..32).map(|i| u8::from_str_radix(&top[i * 2..i * 2 + 2], 16).unwrap()).rev().collect();
        let mut bytes = value.to_le_bytes();
        // + 1 gives the round number above.
        for byte in &mut bytes {
            let (sum, carry) = byte.overflowing_add(1);
            *byte = sum;
            if !carry {
                break;
            }
        }
        assert_eq!(bytes.to_vec(), expected);
    }

    proptest! {
        #[test]
        fn any_decimal_of_38_digits_comes_back(value in -99_999_999_999_999_999_999_999_999_999_999_999_999_i128..=99_999_999_999_999_999_999_999_999_999_999_999_999, scale in 0_u8..=38) {
            let digits = format!("{:0width$}", value.unsigned_abs(), width = usize::from(scale) + 1);
            let (whole, fraction) = digits.split_at(digits.len() - usize::from(scale));
            let sign = if value < 0 { "-" } else { "" };
            let text = if scale == 0 { format!("{sign}{whole}") } else { format!("{sign}{whole}.{fraction}") };
            for precision in [38, 40, 76] {
                // The same scale in a wider type is the same number.
                prop_assert_eq!(decimal(text.as_bytes(), precision, scale).map(as_i128), Ok(value));
            }
        }

        #[test]
        fn no_bytes_make_it_panic(text: Vec<u8>, precision in 1_u8..=76, scale in 0_u8..=76) {
            let _ = decimal(&text, precision, scale.min(precision));
        }
    }
}
