//! Expressions of ClickHouse for what Postgres makes of values that are there already.
//!
//! The source does not send rows again when a column's type changes or a column is added: what it makes of their
//! values is made here.

use crate::names::literal;
use crate::native::Rules;
use crate::parse::{
    DATE32_MAX, DATE32_MIN, DATETIME64_MAX, DATETIME64_MIN, Elements, Misfit, boolean, date_days, decimal,
    float64, push_bytea, timestamp_micros,
};
use crate::types::{Base, Type};
use replicator_config::OutOfRange;
use replicator_types::oid;
use std::fmt::Write as _;

/// How values of one type become those of another, as Postgres converts them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Conversion {
    /// `MODIFY COLUMN` does it.
    Cast,
    /// It takes an expression: see [`converted`].
    Expression,
}

/// How every value of `from` becomes one of `to`; `None` where some has no counterpart, or another in Postgres.
pub(crate) fn conversion(from: &Base, to: &Base) -> Option<Conversion> {
    use Base::{Array, Bool, Date32, DateTime64Micros, Float32, Float64, Int, UInt, Uuid};
    match (from, to) {
        (Int(_) | UInt(_) | Bool | Uuid | Date32, Base::String) => Some(Conversion::Cast),
        (Float32 | Float64 | Base::Decimal { .. } | DateTime64Micros, Base::String) => {
            Some(Conversion::Expression)
        }
        (Array(element), Base::String) => match &element.base {
            Base::String => Some(Conversion::Expression),
            base => conversion(base, &Base::String).map(|_| Conversion::Expression),
        },
        (Int(a), Int(b)) | (UInt(a), UInt(b)) if a <= b => Some(Conversion::Cast),
        (UInt(a), Int(b)) if a < b => Some(Conversion::Cast),
        // Both round an int8 to the nearest.
        (Int(_) | UInt(_), Float64) | (Float32, Float64) => Some(Conversion::Cast),
        (Int(bits), Base::Decimal { precision, scale }) => {
            let digits = match bits {
                8 => 3,
                16 => 5,
                32 => 10,
                _ => 19,
            };
            (precision.checked_sub(*scale)? >= digits).then_some(Conversion::Cast)
        }
        (Base::Decimal { .. }, Base::Decimal { .. }) if from.fits_into(to) => Some(Conversion::Cast),
        (Date32, DateTime64Micros) => Some(Conversion::Cast),
        (Array(a), Array(b)) => match conversion(&a.base, &b.base)? {
            Conversion::Cast if b.nullable || !a.nullable => Some(Conversion::Cast),
            _ => None,
        },
        (a, b) if a == b => Some(Conversion::Cast),
        _ => None,
    }
}

/// `value`, of type `from`, as `to`. `type_oid` is the source's type before the change.
pub(crate) fn converted(value: &str, from: &Type, to: &Type, type_oid: u32) -> String {
    let same = from.base == to.base;
    let expression = if to.base == Base::String && !same {
        postgres_text(value, &from.base, type_oid)
    } else {
        value.to_owned()
    };
    let expression = if from.nullable && !to.nullable && !matches!(to.base, Base::Array(_)) {
        format!("assumeNotNull({expression})")
    } else {
        expression
    };
    if same { expression } else { format!("CAST({expression} AS {to})") }
}

/// A value's text, as `value::text` gives it in Postgres under UTC.
///
/// Floats beyond 10^15 and below 10^-4 are spelled as ClickHouse spells them: the same number.
fn postgres_text(value: &str, of: &Base, type_oid: u32) -> String {
    match of {
        Base::String => value.to_owned(),
        Base::Decimal { scale, .. } => format!("toDecimalString({value}, {scale})"),
        Base::Float32 | Base::Float64 => format!(
            "multiIf(isNaN({value}), 'NaN', isInfinite({value}) AND {value} > 0, 'Infinity', isInfinite({value}), \
             '-Infinity', toString({value}))"
        ),
        Base::DateTime64Micros => {
            let zone = if type_oid == oid::TIMESTAMPTZ { "+00" } else { "" };
            let text = format!("toString(toTimeZone({value}, 'UTC'))");
            format!("concat(replaceRegexpOne({text}, '\\\\.?0+$', ''), '{zone}')")
        }
        Base::Array(element) => {
            let text = postgres_text("x", &element.base, oid::TEXT);
            let escaped = format!("replaceAll(replaceAll({text}, '\\\\', '\\\\\\\\'), '\"', '\\\\\"')");
            // What `array_out` puts in quotes.
            let plain = format!(
                "{text} != '' AND lower({text}) != 'null' AND NOT match({text}, '[{{}},\"\\\\\\\\[:space:]]')"
            );
            format!(
                "concat('{{', arrayStringConcat(arrayMap(x -> if(isNull(x), 'NULL', if(ifNull({plain}, 0), \
                 assumeNotNull({text}), concat('\"', assumeNotNull({escaped}), '\"'))), {value}), ','), '}}')"
            )
        }
        _ => format!("toString({value})"),
    }
}

/// An expression of type `of` for a value in Postgres' text form; `None` where there is none, or NULL.
///
/// `bytea` as in a target's column; `delimiter` is that of the source's array type.
pub(crate) fn literal_of(text: &str, of: &Type, bytea: bool, delimiter: u8, rules: Rules) -> Option<String> {
    let bytes = text.as_bytes();
    let clamp = |misfit: Misfit| match (rules.out_of_range, misfit) {
        (OutOfRange::Clamp, Misfit::Below) => Some(true),
        (OutOfRange::Clamp, Misfit::Above) => Some(false),
        _ => None,
    };
    let cast = |value: &str| format!("CAST({} AS {of})", literal(value));
    let plain_number = |text: &str| text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'-'));
    Some(match &of.base {
        Base::Bool => cast(if boolean(bytes).ok()? { "true" } else { "false" }),
        Base::Int(_) | Base::UInt(_) => cast(Some(text).filter(|text| plain_number(text))?),
        Base::Float32 | Base::Float64 => {
            let number = float64(bytes).ok()?;
            cast(match text {
                "NaN" => "nan",
                "Infinity" => "inf",
                "-Infinity" => "-inf",
                text if number.is_finite() => text,
                _ => return None,
            })
        }
        Base::Decimal { precision, scale } => match decimal(bytes, *precision, *scale) {
            Ok(_) => cast(text),
            Err(misfit) => {
                let least = clamp(misfit)?;
                let sign = if least { "-" } else { "" };
                let digits = "9".repeat(usize::from(*precision));
                let (whole, fraction) = digits.split_at(usize::from(precision.checked_sub(*scale)?));
                let point = if fraction.is_empty() { "" } else { "." };
                cast(&format!("{sign}{}{point}{fraction}", if whole.is_empty() { "0" } else { whole }))
            }
        },
        Base::Date32 => {
            let days = match date_days(bytes) {
                Ok(days) => days,
                Err(misfit) => {
                    if clamp(misfit)? {
                        DATE32_MIN
                    } else {
                        DATE32_MAX
                    }
                }
            };
            format!("CAST(toDate32('1970-01-01') + ({days}) AS {of})")
        }
        Base::DateTime64Micros => {
            let micros = match timestamp_micros(bytes) {
                Ok(micros) => micros,
                Err(misfit) => {
                    if clamp(misfit)? {
                        DATETIME64_MIN
                    } else {
                        DATETIME64_MAX
                    }
                }
            };
            format!("CAST(fromUnixTimestamp64Micro(toInt64({micros}), 'UTC') AS {of})")
        }
        Base::Uuid => cast(text),
        Base::String if bytea => {
            let mut raw = Vec::new();
            push_bytea(bytes, &mut raw).ok()?;
            let mut hex = String::with_capacity(raw.len() * 2);
            for byte in raw {
                // Writing to a String does not fail.
                let _ = write!(hex, "{byte:02x}");
            }
            format!("CAST(unhex('{hex}') AS {of})")
        }
        Base::String => cast(text),
        Base::Array(element) => {
            let mut elements = Elements::of(bytes, delimiter).ok()?;
            let mut scratch = Vec::new();
            let mut out = Vec::new();
            while let Some(value) = elements.next(&mut scratch).ok()? {
                out.push(match value {
                    Some(value) => {
                        literal_of(std::str::from_utf8(value).ok()?, element, bytea, delimiter, rules)?
                    }
                    None => "NULL".to_owned(),
                });
            }
            format!("CAST([{}] AS {of})", out.join(", "))
        }
        Base::Json | Base::Other(_) => return None,
    })
}
