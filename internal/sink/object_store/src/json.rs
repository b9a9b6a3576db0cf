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
//! A value that came in its binary form becomes the same JSON where the form is simple (numbers, texts,
//! `uuid`, `bytea`, `jsonb`); otherwise it is kept as `{"$binary":"…"}` in hexadecimal.

use replicator_types::{Column, ColumnKind, Value, oid};
use std::io::Write;

/// How the values of a column are written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Form {
    Bool,
    Integer,
    /// An integer without a sign.
    Oid,
    Float,
    /// A type whose binary form is its text.
    Text,
    Jsonb,
    Uuid,
    Bytea,
    /// Known by its text form only.
    Other,
}

impl Form {
    pub(crate) fn of(column: &Column) -> Self {
        match column.kind {
            ColumnKind::Enum => Self::Text,
            ColumnKind::Array { .. } | ColumnKind::Other => Self::Other,
            ColumnKind::Scalar => match column.base_type_oid {
                oid::BOOL => Self::Bool,
                oid::INT2 | oid::INT4 | oid::INT8 => Self::Integer,
                oid::OID => Self::Oid,
                oid::FLOAT4 | oid::FLOAT8 => Self::Float,
                oid::TEXT | oid::VARCHAR | oid::BPCHAR | oid::NAME | oid::JSON | oid::XML => Self::Text,
                oid::JSONB => Self::Jsonb,
                oid::UUID => Self::Uuid,
                oid::BYTEA => Self::Bytea,
                _ => Self::Other,
            },
        }
    }
}

/// Appends `value` as JSON. An unchanged value is none: the caller leaves it out; here it becomes `null`.
pub(crate) fn push_value(out: &mut Vec<u8>, form: Form, value: Value<'_>) {
    match value {
        Value::Null | Value::Unchanged => out.extend_from_slice(b"null"),
        Value::Text(text) => push_text(out, form, text),
        Value::Binary(binary) => push_binary(out, form, binary),
    }
}

fn push_text(out: &mut Vec<u8>, form: Form, text: &[u8]) {
    // What is not in the form that Postgres writes stays what it is, as a string.
    match form {
        Form::Bool if text == b"t" => out.extend_from_slice(b"true"),
        Form::Bool if text == b"f" => out.extend_from_slice(b"false"),
        Form::Integer | Form::Oid if is_integer(text) => out.extend_from_slice(text),
        Form::Float if is_number(text) => out.extend_from_slice(text),
        _ => push_string(out, text),
    }
}

fn push_binary(out: &mut Vec<u8>, form: Form, binary: &[u8]) {
    let mut integer = itoa::Buffer::new();
    match (form, binary.len()) {
        (Form::Bool, 1) => out.extend_from_slice(if binary == [0] { b"false" } else { b"true" }),
        (Form::Integer, 1..=8) => {
            let negative = binary.first().is_some_and(|byte| byte & 0x80 != 0);
            let from = if negative { -1 } else { 0 };
            let number = binary.iter().fold(from, |number: i64, &byte| number << 8 | i64::from(byte));
            out.extend_from_slice(integer.format(number).as_bytes());
        }
        (Form::Oid, 1..=4) => {
            let number = binary.iter().fold(0, |number: u32, &byte| number << 8 | u32::from(byte));
            out.extend_from_slice(integer.format(number).as_bytes());
        }
        (Form::Float, 4) => {
            let bits = binary.iter().fold(0, |bits: u32, &byte| bits << 8 | u32::from(byte));
            push_float(out, f32::from_bits(bits).into(), format_args!("{:e}", f32::from_bits(bits)));
        }
        (Form::Float, 8) => {
            let bits = binary.iter().fold(0, |bits: u64, &byte| bits << 8 | u64::from(byte));
            push_float(out, f64::from_bits(bits), format_args!("{:e}", f64::from_bits(bits)));
        }
        (Form::Text, _) => push_string(out, binary),
        (Form::Jsonb, 1..) => push_string(out, binary.get(1..).unwrap_or_default()),
        (Form::Uuid, 16) => {
            out.push(b'"');
            for (index, byte) in binary.iter().enumerate() {
                if matches!(index, 4 | 6 | 8 | 10) {
                    out.push(b'-');
                }
                push_hex_byte(out, *byte);
            }
            out.push(b'"');
        }
        (Form::Bytea, _) => {
            out.extend_from_slice(b"\"\\\\x");
            binary.iter().for_each(|byte| push_hex_byte(out, *byte));
            out.push(b'"');
        }
        _ => {
            out.extend_from_slice(b"{\"$binary\":\"");
            binary.iter().for_each(|byte| push_hex_byte(out, *byte));
            out.extend_from_slice(b"\"}");
        }
    }
}

/// `shortest` is the float's shortest form that reads back the same.
fn push_float(out: &mut Vec<u8>, float: f64, shortest: std::fmt::Arguments<'_>) {
    if float.is_nan() {
        out.extend_from_slice(b"\"NaN\"");
    } else if float.is_infinite() {
        out.extend_from_slice(if float > 0.0 { b"\"Infinity\"" } else { b"\"-Infinity\"" });
    } else {
        // Writing into a Vec does not fail.
        let _ = out.write_fmt(shortest);
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
pub(crate) fn push_hex(out: &mut Vec<u8>, number: u64, digits_min: u32) {
    let digits = (u64::BITS - number.leading_zeros()).div_ceil(4).max(digits_min);
    for digit in (0..digits).rev() {
        out.push(HEX[(number >> (digit * 4)) as usize & 15]);
    }
}

/// Appends `text` as a JSON string. Bytes that are not UTF-8 pass through: who finishes the buffer checks it.
pub(crate) fn push_string(out: &mut Vec<u8>, text: &[u8]) {
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

    fn json(form: Form, value: Value<'_>) -> String {
        let mut out = Vec::new();
        push_value(&mut out, form, value);
        String::from_utf8(out).unwrap()
    }

    fn text(form: Form, text: &str) -> String {
        json(form, Value::Text(text.as_bytes()))
    }

    #[test]
    fn integers_keep_all_their_digits() {
        for number in ["0", "-1", "7", "9007199254740993", "-9223372036854775808", "9223372036854775807"] {
            assert_eq!(text(Form::Integer, number), number);
        }
        assert_eq!(text(Form::Oid, "4294967295"), "4294967295");
    }

    #[test]
    fn floats_are_numbers_unless_json_has_none() {
        for number in ["1.5", "-0", "1e+300", "5e-324", "3.4028235e+38", "0.1"] {
            assert_eq!(text(Form::Float, number), number);
        }
        for special in ["NaN", "Infinity", "-Infinity"] {
            assert_eq!(text(Form::Float, special), format!("\"{special}\""));
        }
    }

    #[test]
    fn a_text_that_the_type_does_not_have_stays_a_string() {
        for wrong in ["", "-", "01", "1 ", "+1", "1.", ".5", "1e", "1e+", "0x1", "1,2", "--1"] {
            for form in [Form::Integer, Form::Float] {
                assert_eq!(text(form, wrong), format!("\"{wrong}\""), "{form:?}");
            }
        }
        assert_eq!(text(Form::Bool, "yes"), "\"yes\"");
    }

    #[test]
    fn every_other_type_is_its_text() {
        assert_eq!(text(Form::Bool, "t"), "true");
        assert_eq!(text(Form::Bool, "f"), "false");
        assert_eq!(text(Form::Other, "12.50"), "\"12.50\"");
        assert_eq!(text(Form::Jsonb, r#"{"a": 1e400}"#), r#""{\"a\": 1e400}""#);
        assert_eq!(text(Form::Text, "{\"a\":\n1}"), r#""{\"a\":\n1}""#);
        assert_eq!(text(Form::Bytea, r"\x00ff"), r#""\\x00ff""#);
        assert_eq!(text(Form::Text, "\\N"), r#""\\N""#);
        assert_eq!(text(Form::Text, "\u{1}\u{7f}\u{8}ü☃𝄞"), "\"\\u0001\u{7f}\\bü☃𝄞\"");
        assert_eq!(json(Form::Text, Value::Null), "null");
    }

    #[test]
    fn the_binary_form_says_the_same_as_the_text_form() {
        let binary = |form, bytes: &[u8]| json(form, Value::Binary(bytes));
        assert_eq!(binary(Form::Bool, &[1]), "true");
        assert_eq!(binary(Form::Bool, &[0]), "false");
        assert_eq!(binary(Form::Integer, &(-2i16).to_be_bytes()), "-2");
        assert_eq!(binary(Form::Integer, &i32::MAX.to_be_bytes()), "2147483647");
        assert_eq!(binary(Form::Integer, &i64::MIN.to_be_bytes()), "-9223372036854775808");
        assert_eq!(binary(Form::Oid, &u32::MAX.to_be_bytes()), "4294967295");
        assert_eq!(binary(Form::Float, &f64::NEG_INFINITY.to_be_bytes()), "\"-Infinity\"");
        assert_eq!(binary(Form::Float, &f32::NAN.to_be_bytes()), "\"NaN\"");
        assert_eq!(binary(Form::Text, b"a\"b"), r#""a\"b""#);
        assert_eq!(binary(Form::Jsonb, b"\x01[1]"), "\"[1]\"");
        assert_eq!(binary(Form::Bytea, &[0, 255]), r#""\\x00ff""#);
        let uuid: Vec<u8> = (0..16).collect();
        assert_eq!(binary(Form::Uuid, &uuid), "\"00010203-0405-0607-0809-0a0b0c0d0e0f\"");
        assert_eq!(binary(Form::Other, &[0xab]), r#"{"$binary":"ab"}"#);
        assert_eq!(binary(Form::Uuid, &[1]), r#"{"$binary":"01"}"#);
        assert_eq!(binary(Form::Integer, &[]), r#"{"$binary":""}"#);
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
        fn no_value_makes_anything_but_json(bytes in any::<Vec<u8>>(), form in 0..9usize, binary: bool) {
            let forms = [Form::Bool, Form::Integer, Form::Oid, Form::Float, Form::Text, Form::Jsonb, Form::Uuid, Form::Bytea, Form::Other];
            let mut out = Vec::new();
            push_value(&mut out, forms[form], if binary { Value::Binary(&bytes) } else { Value::Text(&bytes) });
            if let Ok(text) = std::str::from_utf8(&out) {
                prop_assert!(serde_json::from_str::<&serde_json::value::RawValue>(text).is_ok(), "{}", text);
            }
        }

        #[test]
        fn a_binary_float_reads_back_as_it_was(bits: u64) {
            let float = f64::from_bits(bits);
            let out = json(Form::Float, Value::Binary(&bits.to_be_bytes()));
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
