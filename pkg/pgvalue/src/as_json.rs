//! JSON, from wire values into a buffer.
//!
//! | Postgres type | JSON |
//! |---|---|
//! | `boolean` | `true`, `false` |
//! | `smallint`, `integer`, `bigint`, `oid` | number, with all its digits |
//! | `real`, `double precision` | number as Postgres writes it; `"NaN"`, `"Infinity"`, `"-Infinity"` |
//! | everything else | string: the type's text form |
//!
//! `numeric` is a string because most readers of JSON numbers would round it, `json` and `jsonb` are strings
//! because that keeps what `json` keeps: white space, doubled keys, the digits of numbers.
//!
//! A value in its binary form becomes the same JSON as its text.

use crate::{Malformed, Scalar, Type};
use replicator_types::{Column, Value, oid};

/// What sort of JSON a column's values are, and by which way they get there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Form {
    sort: Sort,
    value_type: Type,
    from_binary: FromBinary,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Sort {
    Bool,
    Integer,
    Float,
    String,
}

/// How a value in its binary form is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum FromBinary {
    /// Its text is JSON.
    Bare,
    /// Its text is JSON between quotes: nothing of it has to be escaped.
    Quoted,
    /// It is its text.
    Text,
    /// Its text lies behind a version.
    Versioned,
    /// By way of its text.
    ByText,
}

impl Form {
    /// Of the values of `column`.
    pub fn of(column: &Column) -> Self {
        let value_type = Type::of(column);
        let (sort, from_binary) = match value_type {
            Type::Scalar(Scalar::Bool) => (Sort::Bool, FromBinary::ByText),
            Type::Scalar(Scalar::Float4 | Scalar::Float8) => (Sort::Float, FromBinary::ByText),
            Type::Scalar(Scalar::Int2 | Scalar::Int4 | Scalar::Int8) => (Sort::Integer, FromBinary::Bare),
            Type::Scalar(Scalar::Unsigned4) if column.base_type_oid == oid::OID => {
                (Sort::Integer, FromBinary::Bare)
            }
            Type::Scalar(Scalar::Text) => (Sort::String, FromBinary::Text),
            Type::Scalar(Scalar::Versioned) => (Sort::String, FromBinary::Versioned),
            // Of digits, letters and marks between them.
            Type::Scalar(
                Scalar::Numeric
                | Scalar::Unsigned4
                | Scalar::Unsigned8
                | Scalar::Money
                | Scalar::Uuid
                | Scalar::Date
                | Scalar::Time
                | Scalar::TimeTz
                | Scalar::Timestamp
                | Scalar::TimestampTz
                | Scalar::Interval
                | Scalar::Inet
                | Scalar::MacAddr
                | Scalar::Bits
                | Scalar::PgLsn,
            ) => (Sort::String, FromBinary::Quoted),
            Type::Scalar(_) | Type::Array(_) | Type::TextOnly => (Sort::String, FromBinary::ByText),
        };
        Self { sort, value_type, from_binary }
    }
}

/// Appends `value` as JSON. An unchanged value is none: the caller leaves it out; here it becomes `null`.
/// `scratch` is room for a text on its way.
///
/// # Errors
/// The bytes of a value in its binary form are not of its type.
pub fn push_value(
    out: &mut Vec<u8>,
    scratch: &mut Vec<u8>,
    form: Form,
    value: Value<'_>,
) -> Result<(), Malformed> {
    match value {
        Value::Null | Value::Unchanged => out.extend_from_slice(b"null"),
        Value::Text(text) => push_text(out, form.sort, text),
        Value::Binary(binary) => match form.from_binary {
            FromBinary::Bare => form.value_type.write_text(binary, out)?,
            FromBinary::Quoted => {
                out.push(b'"');
                form.value_type.write_text(binary, out)?;
                out.push(b'"');
            }
            FromBinary::Text => push_string(out, binary),
            FromBinary::Versioned => push_string(out, crate::json::body(binary)?),
            FromBinary::ByText => {
                scratch.clear();
                form.value_type.write_text(binary, scratch)?;
                push_text(out, form.sort, scratch);
            }
        },
    }
    Ok(())
}

fn push_text(out: &mut Vec<u8>, sort: Sort, text: &[u8]) {
    // What is not in the form that Postgres writes stays what it is, as a string.
    match sort {
        Sort::Bool if text == b"t" => out.extend_from_slice(b"true"),
        Sort::Bool if text == b"f" => out.extend_from_slice(b"false"),
        Sort::Integer if is_integer(text) => out.extend_from_slice(text),
        Sort::Float if is_number(text) => out.extend_from_slice(text),
        _ => push_string(out, text),
    }
}

/// What JSON's `int` is: an optional minus, then digits without a leading zero.
fn is_integer(text: &[u8]) -> bool {
    match text.strip_prefix(b"-").unwrap_or(text) {
        [b'0'] => true,
        [b'1'..=b'9', rest @ ..] => rest.iter().all(u8::is_ascii_digit),
        _ => false,
    }
}

/// What JSON's `number` is: an `int`, optionally a fraction, optionally an exponent.
fn is_number(text: &[u8]) -> bool {
    let (mantissa, exponent) = match text.iter().position(|byte| matches!(byte, b'e' | b'E')) {
        Some(at) => {
            let (mantissa, exponent) = text.split_at(at);
            (mantissa, exponent.get(1..))
        }
        None => (text, None),
    };
    let (int, fraction) = match mantissa.iter().position(|&byte| byte == b'.') {
        Some(at) => {
            let (int, fraction) = mantissa.split_at(at);
            (int, fraction.get(1..))
        }
        None => (mantissa, None),
    };
    let is_digits = |digits: &[u8]| !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    let is_exponent = |exponent: &[u8]| {
        is_digits(exponent.strip_prefix(b"+").or(exponent.strip_prefix(b"-")).unwrap_or(exponent))
    };
    is_integer(int) && fraction.is_none_or(is_digits) && exponent.is_none_or(is_exponent)
}

/// For each byte what follows the backslash in a JSON string: 0 for none, `u` for `\u00XX`.
const ESCAPES: [u8; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 0x20 {
        table[byte] = b'u';
        byte += 1;
    }
    table[b'"' as usize] = b'"';
    table[b'\\' as usize] = b'\\';
    table[b'\n' as usize] = b'n';
    table[b'\r' as usize] = b'r';
    table[b'\t' as usize] = b't';
    table[0x08] = b'b';
    table[0x0c] = b'f';
    table
};

const HEX: &[u8; 16] = b"0123456789abcdef";

fn push_hex_byte(out: &mut Vec<u8>, byte: u8) {
    out.extend_from_slice(&[HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
}

/// Appends `number` in hexadecimal, with at least `digits_min` digits.
pub fn push_hex(out: &mut Vec<u8>, number: u64, digits_min: u32) {
    let digits = (u64::BITS - number.leading_zeros()).div_ceil(4).max(digits_min);
    for digit in (0..digits).rev() {
        out.push(HEX[(number >> (digit * 4)) as usize & 15]);
    }
}

/// Appends `text` as a JSON string. Bytes that are not UTF-8 pass through: who finishes the buffer checks it.
pub fn push_string(out: &mut Vec<u8>, text: &[u8]) {
    out.push(b'"');
    let mut rest = text;
    loop {
        let plain = plain_prefix(rest);
        let (before, from) = rest.split_at(plain);
        out.extend_from_slice(before);
        let Some((&byte, after)) = from.split_first() else { break };
        match ESCAPES[usize::from(byte)] {
            b'u' => {
                out.extend_from_slice(b"\\u00");
                push_hex_byte(out, byte);
            }
            escape => out.extend_from_slice(&[b'\\', escape]),
        }
        rest = after;
    }
    out.push(b'"');
}

/// How many bytes from the first need no escape.
///
/// Eight at a time: a byte below `n` borrows into its top bit when `n` is subtracted from it, and a byte
/// equal to `c` is below 1 after XOR with `c`. A borrow may spill into the next byte, so a hit means "look
/// closer", never a miss.
fn plain_prefix(text: &[u8]) -> usize {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    const TOPS: u64 = ONES << 7;
    let below = |word: u64, n: u64| word.wrapping_sub(ONES * n) & !word;
    let (words, _) = text.as_chunks::<8>();
    let mut plain = 0;
    for word in words {
        let word = u64::from_ne_bytes(*word);
        let quote = word ^ (ONES * b'"' as u64);
        let backslash = word ^ (ONES * b'\\' as u64);
        if (below(word, 0x20) | below(quote, 1) | below(backslash, 1)) & TOPS != 0 {
            break;
        }
        plain += 8;
    }
    let rest = text.get(plain..).unwrap_or_default();
    plain + rest.iter().position(|&byte| ESCAPES[usize::from(byte)] != 0).unwrap_or(rest.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn form(type_oid: u32) -> Form {
        Form::of(&Column { base_type_oid: type_oid, ..Column::default() })
    }

    fn json(type_oid: u32, value: Value<'_>) -> String {
        let mut out = Vec::new();
        push_value(&mut out, &mut b"left over".to_vec(), form(type_oid), value).unwrap();
        String::from_utf8(out).unwrap()
    }

    fn text(type_oid: u32, text: &str) -> String {
        json(type_oid, Value::Text(text.as_bytes()))
    }

    #[test]
    fn integers_keep_all_their_digits() {
        for number in ["0", "-1", "7", "9007199254740993", "-9223372036854775808", "9223372036854775807"] {
            assert_eq!(text(oid::INT8, number), number);
        }
        assert_eq!(text(oid::OID, "4294967295"), "4294967295");
    }

    #[test]
    fn floats_are_numbers_unless_json_has_none() {
        for number in ["1.5", "-0", "1e+300", "5e-324", "3.4028235e+38", "0.1"] {
            assert_eq!(text(oid::FLOAT8, number), number);
        }
        for special in ["NaN", "Infinity", "-Infinity"] {
            assert_eq!(text(oid::FLOAT8, special), format!("\"{special}\""));
        }
    }

    #[test]
    fn a_text_that_the_type_does_not_have_stays_a_string() {
        for wrong in ["", "-", "01", "1 ", "+1", "1.", ".5", "1e", "1e+", "0x1", "1,2", "--1"] {
            for type_oid in [oid::INT8, oid::FLOAT8] {
                assert_eq!(text(type_oid, wrong), format!("\"{wrong}\""), "{type_oid}");
            }
        }
        assert_eq!(text(oid::BOOL, "yes"), "\"yes\"");
    }

    #[test]
    fn every_other_type_is_its_text() {
        assert_eq!(text(oid::BOOL, "t"), "true");
        assert_eq!(text(oid::BOOL, "f"), "false");
        assert_eq!(text(oid::NUMERIC, "12.50"), "\"12.50\"");
        assert_eq!(text(oid::JSONB, r#"{"a": 1e400}"#), r#""{\"a\": 1e400}""#);
        assert_eq!(text(oid::TEXT, "{\"a\":\n1}"), r#""{\"a\":\n1}""#);
        assert_eq!(text(oid::BYTEA, r"\x00ff"), r#""\\x00ff""#);
        assert_eq!(text(oid::TEXT, "\\N"), r#""\\N""#);
        assert_eq!(text(oid::TEXT, "\u{1}\u{7f}\u{8}ü☃𝄞"), "\"\\u0001\u{7f}\\bü☃𝄞\"");
        assert_eq!(json(oid::TEXT, Value::Null), "null");
    }

    #[test]
    fn the_binary_form_says_the_same_as_the_text_form() {
        let binary = |type_oid, bytes: &[u8]| json(type_oid, Value::Binary(bytes));
        assert_eq!(binary(oid::BOOL, &[1]), "true");
        assert_eq!(binary(oid::BOOL, &[0]), "false");
        assert_eq!(binary(oid::INT2, &(-2i16).to_be_bytes()), "-2");
        assert_eq!(binary(oid::INT4, &i32::MAX.to_be_bytes()), "2147483647");
        assert_eq!(binary(oid::INT8, &i64::MIN.to_be_bytes()), "-9223372036854775808");
        assert_eq!(binary(oid::OID, &u32::MAX.to_be_bytes()), "4294967295");
        assert_eq!(binary(oid::XID, &u32::MAX.to_be_bytes()), text(oid::XID, "4294967295"));
        assert_eq!(binary(oid::FLOAT8, &f64::NEG_INFINITY.to_be_bytes()), "\"-Infinity\"");
        assert_eq!(binary(oid::FLOAT8, &1e300f64.to_be_bytes()), "1e+300");
        assert_eq!(binary(oid::FLOAT4, &f32::NAN.to_be_bytes()), "\"NaN\"");
        assert_eq!(binary(oid::TEXT, b"a\"b"), r#""a\"b""#);
        assert_eq!(binary(oid::JSONB, b"\x01[1]"), "\"[1]\"");
        assert_eq!(binary(oid::BYTEA, &[0, 255]), r#""\\x00ff""#);
        assert_eq!(binary(oid::TIMESTAMPTZ, &[0; 8]), "\"2000-01-01 00:00:00+00\"");
        assert_eq!(binary(oid::NUMERIC, &[0, 1, 0, 0, 0x40, 0, 0, 2, 0, 12]), "\"-12.00\"");
        let uuid: Vec<u8> = (0..16).collect();
        assert_eq!(binary(oid::UUID, &uuid), "\"00010203-0405-0607-0809-0a0b0c0d0e0f\"");
    }

    #[test]
    fn bytes_that_are_not_of_the_type_are_an_error() {
        for (type_oid, wrong) in [(oid::UUID, &[1][..]), (oid::INT4, &[]), (oid::BOOL, &[]), (3904, &[0])] {
            let value = Value::Binary(wrong);
            assert!(
                push_value(&mut Vec::new(), &mut Vec::new(), form(type_oid), value).is_err(),
                "{type_oid}"
            );
        }
    }

    proptest! {
        #[test]
        fn a_string_reads_back_as_it_was(value in any::<String>()) {
            let mut out = Vec::new();
            push_string(&mut out, value.as_bytes());
            prop_assert!(!out.contains(&b'\n'));
            prop_assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), value);
        }

        /// Mostly plain text with now and then something to escape, at every distance from a word's start.
        #[test]
        fn an_escape_is_found_wherever_it_stands(value in "([a-zé~ !#\\x7f]{0,20}[\"\\\\\\x00-\\x1f]?){0,6}") {
            let mut out = Vec::new();
            push_string(&mut out, value.as_bytes());
            prop_assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), value);
        }

        #[test]
        fn no_value_makes_anything_but_json(bytes in any::<Vec<u8>>(), type_oid in 16..6000u32, binary: bool) {
            let mut out = Vec::new();
            let value = if binary { Value::Binary(&bytes) } else { Value::Text(&bytes) };
            let pushed = push_value(&mut out, &mut Vec::new(), form(type_oid), value);
            if let (Ok(()), Ok(text)) = (pushed, std::str::from_utf8(&out)) {
                prop_assert!(serde_json::from_str::<&serde_json::value::RawValue>(text).is_ok(), "{}", text);
            }
        }

        #[test]
        fn a_binary_float_reads_back_as_it_was(bits: u64) {
            let float = f64::from_bits(bits);
            let out = json(oid::FLOAT8, Value::Binary(&bits.to_be_bytes()));
            if float.is_finite() {
                prop_assert_eq!(out.parse::<f64>().unwrap().to_bits(), bits);
            }
        }

        #[test]
        fn hexadecimal_has_at_least_so_many_digits(number: u64, digits in 1..17u32) {
            let mut out = Vec::new();
            push_hex(&mut out, number, digits);
            prop_assert_eq!(String::from_utf8(out).unwrap(), format!("{number:0width$x}", width = digits as usize));
        }
    }
}
