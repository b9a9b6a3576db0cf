//! `float4` and `float8`, as short as they can be and still read back the same.
//!
//! Postgres takes the shortest digits *strictly* between the two points halfway to the neighbours, and of those
//! the nearest; most others, `ryu` included, also allow the points themselves, since readers that round ties to
//! even read them right. The difference shows in values as 1e23, the upper halfway point of 9.999999999999999e22.
//!
//! Sources: `float8out_internal` in `float.c`; `acceptBounds`, `to_chars` in `src/common/d2s.c` and `f2s.c`;
//! Ulf Adams, "Ryū: fast float-to-string conversion", <https://dl.acm.org/doi/10.1145/3192366.3192369>.

use std::io::Write;

/// The longest text of either type has some 24 bytes.
const TEXT_BYTES_MAX: usize = 40;

/// From which decimal exponent on digits are followed by an exponent.
const EXPONENT_FROM_F32: i32 = 6;
const EXPONENT_FROM_F64: i32 = 15;

/// Down to which decimal exponent they are not.
const FIXED_DOWN_TO: i32 = -4;

pub(crate) fn write_f64(number: f64, out: &mut Vec<u8>) {
    if !number.is_finite() {
        return write_special(number, out);
    }
    let mut buffer = ryu::Buffer::new();
    let mut digits = Digits::read(buffer.format_finite(number).as_bytes());
    let bits = number.to_bits();
    let (fraction, biased) = (bits & ((1 << 52) - 1), (bits >> 52 & 0x7ff) as i32);
    let mantissa = if biased == 0 { fraction } else { fraction | 1 << 52 };
    let is_halfway = |digits: &Digits| digits.is_halfway(mantissa, biased.max(1) - 1075);
    if is_halfway(&digits) {
        digits = longer(&digits, format_args_of(number), |text, digits| {
            text.parse() == Ok(number) && !is_halfway(digits)
        });
    }
    digits.write(EXPONENT_FROM_F64, out);
}

pub(crate) fn write_f32(number: f32, out: &mut Vec<u8>) {
    if !number.is_finite() {
        return write_special(number.into(), out);
    }
    let mut buffer = ryu::Buffer::new();
    let mut digits = Digits::read(buffer.format_finite(number).as_bytes());
    let bits = number.to_bits();
    let (fraction, biased) = (bits & ((1 << 23) - 1), (bits >> 23 & 0xff) as i32);
    let mantissa = u64::from(if biased == 0 { fraction } else { fraction | 1 << 23 });
    let is_halfway = |digits: &Digits| digits.is_halfway(mantissa, biased.max(1) - 150);
    if is_halfway(&digits) {
        // Every float4 is a float8, with the same digits.
        digits = longer(&digits, format_args_of(number.into()), |text, digits| {
            text.parse() == Ok(number) && !is_halfway(digits)
        });
    }
    digits.write(EXPONENT_FROM_F32, out);
}

fn write_special(number: f64, out: &mut Vec<u8>) {
    out.extend_from_slice(if number.is_nan() {
        b"NaN"
    } else if number > 0.0 {
        b"Infinity"
    } else {
        b"-Infinity"
    });
}

/// Writes `number` with so many digits behind the first.
fn format_args_of(number: f64) -> impl Fn(usize, &mut &mut [u8]) -> std::io::Result<()> {
    move |precision, out| write!(out, "{number:.precision$e}")
}

/// The nearest digits that are good, one more than `digits` or as many as it takes.
fn longer(
    digits: &Digits,
    format: impl Fn(usize, &mut &mut [u8]) -> std::io::Result<()>,
    is_good: impl Fn(&str, &Digits) -> bool,
) -> Digits {
    for precision in digits.count..17 {
        let mut text = [0; TEXT_BYTES_MAX];
        let mut room = &mut text[..];
        if format(precision, &mut room).is_err() {
            break;
        }
        let length = TEXT_BYTES_MAX - room.len();
        let text = text.get(..length).and_then(|text| std::str::from_utf8(text).ok()).unwrap_or_default();
        let found = Digits::read(text.as_bytes());
        if is_good(text, &found) {
            return found;
        }
    }
    *digits
}

/// A finite number in decimal: `0.d₁d₂d₃… · 10^(exponent + 1)`, with neither zeros in front nor at the end.
#[derive(Clone, Copy, Debug)]
struct Digits {
    negative: bool,
    /// 17 at most.
    digits: [u8; TEXT_BYTES_MAX],
    count: usize,
    exponent: i32,
}

impl Digits {
    /// Reads `-12.34e-5` or the like.
    #[inline]
    fn read(text: &[u8]) -> Self {
        let mut digits = Self { negative: false, digits: [0; TEXT_BYTES_MAX], count: 0, exponent: -1 };
        let mut point_seen = false;
        let mut rest = text;
        while let Some((&byte, behind)) = rest.split_first() {
            rest = behind;
            match byte {
                b'-' => digits.negative = true,
                b'.' => point_seen = true,
                b'e' => {
                    let (negative, number) = match rest.split_first() {
                        Some((b'-', number)) => (true, number),
                        _ => (false, rest),
                    };
                    let size = number.iter().fold(0, |sum, digit| sum * 10 + i32::from(digit & 15));
                    digits.exponent += if negative { -size } else { size };
                    break;
                }
                b'0' if digits.count == 0 => digits.exponent -= i32::from(point_seen),
                digit => {
                    if let Some(place) = digits.digits.get_mut(digits.count) {
                        *place = digit;
                        digits.count += 1;
                    }
                    digits.exponent += i32::from(!point_seen);
                }
            }
        }
        while let Some(last) = digits.count.checked_sub(1)
            && digits.digits.get(last) == Some(&b'0')
        {
            digits.count = last;
        }
        digits
    }

    fn digits(&self) -> &[u8] {
        self.digits.get(..self.count).unwrap_or_default()
    }

    /// Whether it is the point halfway from `mantissa · 2^exponent` to one of its neighbours:
    /// `digits · 10^tens = (2 · mantissa ± 1) · 2^(exponent - 1)`, both sides divided by `2^tens`.
    ///
    /// Where the mantissa is odd, nobody allows those points. Below 2^53 the number itself is shorter than they are.
    /// A divisor `5^tens` of a 54-bit number has 23 fives at most. Below a power of two the neighbour is nearer, and
    /// the point is at `4 · mantissa - 1`; no multiple of five in either type (2^54 - 1, 2^25 - 1), so nobody's digits.
    #[inline]
    fn is_halfway(&self, mantissa: u64, exponent: i32) -> bool {
        let tens = self.exponent + 1 - self.count as i32;
        let twos = exponent - 1 - tens;
        if mantissa % 2 == 1 || !(0..=23).contains(&tens) || !(0..=64).contains(&twos) {
            return false;
        }
        let digits = self.digits().iter().fold(0, |sum: u128, digit| sum * 10 + u128::from(digit & 15));
        let point = digits * 5u128.pow(tens.unsigned_abs());
        let twice = u128::from(mantissa) * 2;
        point == (twice + 1) << twos || point == (twice - 1) << twos
    }

    #[inline]
    fn write(&self, exponent_from: i32, out: &mut Vec<u8>) {
        if self.negative {
            out.push(b'-');
        }
        let digits = self.digits();
        let Some((&first, others)) = digits.split_first() else {
            return out.push(b'0');
        };
        if !(FIXED_DOWN_TO..exponent_from).contains(&self.exponent) {
            out.push(first);
            if !others.is_empty() {
                out.push(b'.');
                out.extend_from_slice(others);
            }
            out.extend_from_slice(if self.exponent < 0 { b"e-" } else { b"e+" });
            let size = self.exponent.unsigned_abs();
            if size < 10 {
                out.push(b'0');
            }
            out.extend_from_slice(itoa::Buffer::new().format(size).as_bytes());
            return;
        }
        let zeros = |count: usize| std::iter::repeat_n(b'0', count);
        match usize::try_from(self.exponent) {
            Ok(exponent) => match digits.split_at_checked(exponent + 1) {
                Some((whole, fraction)) => {
                    out.extend_from_slice(whole);
                    if !fraction.is_empty() {
                        out.push(b'.');
                        out.extend_from_slice(fraction);
                    }
                }
                None => {
                    out.extend_from_slice(digits);
                    out.extend(zeros(exponent + 1 - digits.len()));
                }
            },
            Err(_) => {
                out.extend_from_slice(b"0.");
                out.extend(zeros(self.exponent.unsigned_abs() as usize - 1));
                out.extend_from_slice(digits);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text64(number: f64) -> String {
        let mut out = Vec::new();
        write_f64(number, &mut out);
        String::from_utf8(out).unwrap()
    }

    fn text32(number: f32) -> String {
        let mut out = Vec::new();
        write_f32(number, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn an_exponent_begins_where_postgres_has_it_begin() {
        for (number, expected) in [
            (0.0, "0"),
            (-0.0, "-0"),
            (1.0, "1"),
            (-1.5, "-1.5"),
            (100.0, "100"),
            (123_456_789_012_345.0, "123456789012345"),
            (1e14, "100000000000000"),
            (1e15, "1e+15"),
            (1.5e100, "1.5e+100"),
            (0.0001, "0.0001"),
            (0.000_012_5, "1.25e-05"),
            (5e-324, "5e-324"),
            (f64::MAX, "1.7976931348623157e+308"),
            (f64::NAN, "NaN"),
            (f64::INFINITY, "Infinity"),
            (f64::NEG_INFINITY, "-Infinity"),
        ] {
            assert_eq!(text64(number), expected);
        }
        for (number, expected) in
            [(100_000.0, "100000"), (1e6, "1e+06"), (0.1, "0.1"), (16_777_216.0, "1.6777216e+07")]
        {
            assert_eq!(text32(number), expected);
        }
    }

    #[test]
    fn a_point_halfway_to_the_neighbour_is_not_used() {
        assert_eq!(text64(1e23), "9.999999999999999e+22");
        assert_eq!(text64(9.5e22), "9.5e+22");
        assert_eq!(text64(2f64.powi(-25)), "2.9802322387695312e-08");
    }

    proptest! {
        #[test]
        fn a_text_reads_back_as_the_same_float8(bits: u64) {
            let number = f64::from_bits(bits);
            let text = text64(number);
            prop_assert!(number.is_nan() || text.parse::<f64>().unwrap().to_bits() == bits, "{}", text);
        }

        #[test]
        fn a_text_reads_back_as_the_same_float4(bits: u32) {
            let number = f32::from_bits(bits);
            let text = text32(number);
            prop_assert!(number.is_nan() || text.parse::<f32>().unwrap().to_bits() == bits, "{}", text);
        }
    }
}
