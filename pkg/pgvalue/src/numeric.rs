//! `numeric`: digits to the base 10,000.
//!
//! Shape: number of digits, weight of the first (its place before the point, from 0), sign, decimal places
//! shown, each 16 bits; then the digits, 16 bits each. Zeros at either end are left out.
//!
//! Sources: `numeric_send`, `get_str_from_var` and the head of `numeric.c`; `cash_out` in `cash.c`.

use crate::Malformed;
use crate::read::Reader;

/// Decimal digits in a digit.
pub const DIGIT_DECIMALS: u32 = 4;

const BASE: u16 = 10_000;

const NEGATIVE: u16 = 0x4000;
const NAN: u16 = 0xC000;
const INFINITY: u16 = 0xD000;
const NEGATIVE_INFINITY: u16 = 0xF000;

/// The most decimal places that a value may show.
const SCALE_MAX: u16 = 0x3FFF;

/// A binary `numeric`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Numeric<'a> {
    /// A number.
    Finite(Parts<'a>),
    /// Not a number.
    NaN,
    /// Greater than every number. Since Postgres 14.
    Infinity,
    /// Less than every number. Since Postgres 14.
    NegativeInfinity,
}

/// A finite `numeric`: `± Σ digitᵢ · 10000^(weight - i)`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Parts<'a> {
    /// Whether it is below zero.
    pub negative: bool,
    /// The place of the first digit: 0 for that of the ones.
    pub weight: i16,
    /// Decimal places shown, 16,383 at most.
    pub scale: u16,
    digits: &'a [[u8; 2]],
}

impl<'a> Numeric<'a> {
    /// Reads a value and checks its digits.
    ///
    /// # Errors
    /// The bytes are no `numeric`.
    #[inline]
    pub fn read(binary: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader(binary);
        let count = reader.u16()?;
        let weight = reader.u16()? as i16;
        let sign = reader.u16()?;
        let scale = reader.u16()?;
        let (digits, odd) = reader.0.as_chunks::<2>();
        if !odd.is_empty() || digits.len() != usize::from(count) {
            return Err(Malformed("it has not as many digits as it says"));
        }
        Ok(match sign {
            0 | NEGATIVE => {
                if scale > SCALE_MAX {
                    return Err(Malformed("it has too many decimal places"));
                }
                if digits.iter().any(|digit| u16::from_be_bytes(*digit) >= BASE) {
                    return Err(Malformed("a digit is none"));
                }
                Self::Finite(Parts { negative: sign == NEGATIVE, weight, scale, digits })
            }
            NAN => Self::NaN,
            INFINITY => Self::Infinity,
            NEGATIVE_INFINITY => Self::NegativeInfinity,
            _ => return Err(Malformed("its sign is none")),
        })
    }
}

impl<'a> Parts<'a> {
    /// The digits, each below 10,000, the first at [`Parts::weight`].
    pub fn digits(&self) -> impl ExactSizeIterator<Item = u16> + use<'a> {
        self.digits.iter().map(|digit| u16::from_be_bytes(*digit))
    }

    /// The digit at a place: 0 for the ones, -1 for the ten-thousandths.
    #[inline]
    fn digit_at(&self, place: i32) -> u16 {
        let index = usize::try_from(i32::from(self.weight) - place).ok();
        index.and_then(|index| self.digits.get(index)).map_or(0, |digit| u16::from_be_bytes(*digit))
    }

    /// The number times `10^scale`, where that is a whole number that fits: the form of a decimal with so many
    /// places. `None` where it is not: nothing is rounded.
    #[inline]
    pub fn scaled(&self, scale: u32) -> Option<i128> {
        // Where the last digit read so far stands, in decimal places.
        let mut tens = (i32::from(self.weight) + 1) * DIGIT_DECIMALS as i32 + i32::try_from(scale).ok()?;
        let mut sum: i128 = 0;
        for digit in self.digits() {
            tens -= DIGIT_DECIMALS as i32;
            let digit = i128::from(digit);
            if tens >= 0 {
                sum = sum.checked_mul(i128::from(BASE))?.checked_add(digit)?;
                continue;
            }
            // The last digit may reach beyond the places; what is there has to be zero.
            let beyond = 10i128.checked_pow(tens.unsigned_abs().min(DIGIT_DECIMALS))?;
            if digit % beyond != 0 {
                return None;
            }
            if tens > -(DIGIT_DECIMALS as i32) {
                sum = sum.checked_mul(i128::from(BASE) / beyond)?.checked_add(digit / beyond)?;
            }
        }
        if sum != 0 && tens > 0 {
            sum = sum.checked_mul(10i128.checked_pow(tens.unsigned_abs())?)?;
        }
        Some(if self.negative { -sum } else { sum })
    }

    /// Appends the text.
    pub fn write_text(&self, out: &mut Vec<u8>) {
        if self.negative {
            out.push(b'-');
        }
        let weight = i32::from(self.weight);
        let scale = usize::from(self.scale);
        out.reserve(usize::try_from((weight + 1) * 4).unwrap_or_default() + scale + 2);
        if weight < 0 {
            out.push(b'0');
        } else {
            out.extend_from_slice(itoa::Buffer::new().format(self.digit_at(weight)).as_bytes());
            for place in (0..weight).rev() {
                out.extend_from_slice(&decimals(self.digit_at(place)));
            }
        }
        if scale > 0 {
            out.push(b'.');
            let mut left = scale;
            let mut place = -1;
            while left > 0 {
                let shown = left.min(4);
                out.extend(decimals(self.digit_at(place)).into_iter().take(shown));
                left -= shown;
                place -= 1;
            }
        }
    }
}

/// A digit's four decimals.
#[inline]
fn decimals(digit: u16) -> [u8; 4] {
    let of = |unit: u16| b'0' + (digit / unit % 10) as u8;
    [of(1000), of(100), of(10), of(1)]
}

pub(crate) fn write(binary: &[u8], out: &mut Vec<u8>) -> Result<(), Malformed> {
    match Numeric::read(binary)? {
        Numeric::Finite(parts) => parts.write_text(out),
        Numeric::NaN => out.extend_from_slice(b"NaN"),
        Numeric::Infinity => out.extend_from_slice(b"Infinity"),
        Numeric::NegativeInfinity => out.extend_from_slice(b"-Infinity"),
    }
    Ok(())
}

/// `money` as the locale C has it: cents behind a point, thousands between commas.
pub(crate) fn write_money(cents: i64, out: &mut Vec<u8>) {
    out.extend_from_slice(if cents < 0 { b"-$" } else { b"$" });
    let mut digits = itoa::Buffer::new();
    let whole = digits.format(cents.unsigned_abs() / 100).as_bytes();
    for (place, digit) in whole.iter().enumerate() {
        if place > 0 && (whole.len() - place).is_multiple_of(3) {
            out.push(b',');
        }
        out.push(*digit);
    }
    let cents = (cents.unsigned_abs() % 100) as u8;
    out.extend_from_slice(&[b'.', b'0' + cents / 10, b'0' + cents % 10]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn binary(weight: i16, sign: u16, scale: u16, digits: &[u16]) -> Vec<u8> {
        let head = [digits.len() as u16, weight as u16, sign, scale];
        head.iter().chain(digits).flat_map(|number| number.to_be_bytes()).collect()
    }

    fn text(binary: &[u8]) -> Result<String, Malformed> {
        let mut out = Vec::new();
        write(binary, &mut out)?;
        Ok(String::from_utf8(out).unwrap())
    }

    fn scaled(binary: &[u8], scale: u32) -> Option<i128> {
        match Numeric::read(binary).unwrap() {
            Numeric::Finite(parts) => parts.scaled(scale),
            _ => None,
        }
    }

    #[test]
    fn zeros_that_are_not_sent_are_written() {
        assert_eq!(text(&binary(0, 0, 0, &[])).unwrap(), "0");
        assert_eq!(text(&binary(0, 0, 2, &[])).unwrap(), "0.00");
        assert_eq!(text(&binary(2, NEGATIVE, 0, &[12])).unwrap(), "-1200000000");
        assert_eq!(text(&binary(-2, 0, 9, &[5])).unwrap(), "0.000000050");
        assert_eq!(text(&binary(0, 0, 3, &[1, 2345])).unwrap(), "1.234");
        assert_eq!(text(&binary(1, 0, 5, &[1, 0, 7, 8000])).unwrap(), "10000.00078");
    }

    #[test]
    fn what_is_no_number_has_a_name() {
        assert_eq!(text(&binary(0, NAN, 0, &[])).unwrap(), "NaN");
        assert_eq!(text(&binary(0, INFINITY, 0, &[])).unwrap(), "Infinity");
        assert_eq!(text(&binary(0, NEGATIVE_INFINITY, 0, &[])).unwrap(), "-Infinity");
    }

    #[test]
    fn what_is_no_numeric_is_an_error() {
        assert!(text(&[]).is_err());
        assert!(text(&binary(0, 0, 0, &[10_000])).is_err());
        assert!(text(&binary(0, 1, 0, &[1])).is_err());
        assert!(text(&binary(0, 0, 0x4000, &[1])).is_err());
        assert!(text(&binary(0, 0, 0, &[1])[..9]).is_err());
    }

    #[test]
    fn a_scaled_number_is_exact_or_none() {
        let price = binary(0, 0, 2, &[1, 2300]);
        assert_eq!(scaled(&price, 2), Some(123));
        assert_eq!(scaled(&price, 1), None);
        assert_eq!(scaled(&price, 6), Some(1_230_000));
        assert_eq!(scaled(&price, 37), Some(123 * 10i128.pow(35)));
        assert_eq!(scaled(&price, 400), None);
        assert_eq!(scaled(&binary(0, 0, 0, &[]), 400), Some(0));
        assert_eq!(scaled(&binary(9, 0, 0, &[9]), 0), Some(9 * 10i128.pow(36)));
        assert_eq!(scaled(&binary(9, 0, 0, &[9999]), 0), None);
        assert_eq!(scaled(&binary(-2, NEGATIVE, 8, &[5]), 8), Some(-5));
        assert_eq!(scaled(&binary(-3, 0, 12, &[5]), 8), None);
        assert_eq!(scaled(&binary(-2, 0, 8, &[]), 0), Some(0));
    }

    #[test]
    fn money_has_commas_between_thousands() {
        let money = |cents| {
            let mut out = Vec::new();
            write_money(cents, &mut out);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(money(5), "$0.05");
        assert_eq!(money(-123_456), "-$1,234.56");
        assert_eq!(money(10_000_000), "$100,000.00");
        assert_eq!(money(i64::MIN), "-$92,233,720,368,547,758.08");
    }

    proptest! {
        /// Any whole number with any scale, by way of its decimal text.
        #[test]
        fn a_scaled_number_is_what_the_text_says(number in -(10i128.pow(36))..10i128.pow(36), scale in 0usize..20) {
            let digits = format!("{:0>40}{}", number.unsigned_abs(), "");
            let (whole, fraction) = digits.split_at(digits.len() - scale);
            let padded = format!("{whole:0>40}{fraction:0<20}");
            let base: Vec<u16> = padded.as_bytes().chunks(4).map(|four| std::str::from_utf8(four).unwrap().parse().unwrap()).collect();
            let bytes = binary(9, if number < 0 { NEGATIVE } else { 0 }, scale as u16, &base);
            prop_assert_eq!(scaled(&bytes, scale as u32), Some(number));
        }
    }
}
