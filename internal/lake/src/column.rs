//! One Parquet column on its way: from wire values, text or binary, straight into Arrow's buffers.

use arrow_array::ArrayRef;
use arrow_array::builder::{
    BinaryBuilder, BooleanBuilder, FixedSizeBinaryBuilder, PrimitiveBuilder, StringBuilder,
};
use arrow_array::types::{
    Date32Type, Decimal128Type, Float32Type, Float64Type, Int16Type, Int32Type, Int64Type,
    Time64MicrosecondType, TimestampMicrosecondType, UInt32Type, UInt64Type,
};
use arrow_schema::{DataType, TimeUnit};
use pgvalue::numeric::Numeric;
use pgvalue::text::{self, Misfit};
use pgvalue::time::{DAY_MICROS, MaybeInfinite, date_days, time_micros, timestamp_micros};
use pgvalue::{Malformed, Scalar, Type, exactly};
use replicator_types::{Column, POSTGRES_EPOCH_UNIX_MICROS, Value};
use std::sync::Arc;

/// Days from 1970-01-01 to 2000-01-01, where Postgres counts from.
const POSTGRES_EPOCH_UNIX_DAYS: i64 = 10_957;

/// What became of a value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Pushed {
    /// It is in the column.
    Kept,
    /// The column has no such value; it has NULL.
    Absent,
}

/// Why a value could not be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Problem {
    /// Bytes that are not of the type.
    Malformed(&'static str),
    /// A text that is not UTF-8.
    NotUtf8,
}

impl From<Malformed> for Problem {
    fn from(Malformed(what): Malformed) -> Self {
        Self::Malformed(what)
    }
}

/// A column being filled.
pub(crate) struct ColumnBuilder {
    source: Type,
    values: Values,
    /// The text of a value that came in binary.
    scratch: Vec<u8>,
}

enum Values {
    Bool(BooleanBuilder),
    Int16(PrimitiveBuilder<Int16Type>),
    Int32(PrimitiveBuilder<Int32Type>),
    Int64(PrimitiveBuilder<Int64Type>),
    UInt32(PrimitiveBuilder<UInt32Type>),
    UInt64(PrimitiveBuilder<UInt64Type>),
    Float32(PrimitiveBuilder<Float32Type>),
    Float64(PrimitiveBuilder<Float64Type>),
    Decimal(PrimitiveBuilder<Decimal128Type>, u8, u8),
    Date(PrimitiveBuilder<Date32Type>),
    Time(PrimitiveBuilder<Time64MicrosecondType>),
    Timestamp(PrimitiveBuilder<TimestampMicrosecondType>),
    Uuid(FixedSizeBinaryBuilder),
    Binary(BinaryBuilder),
    Text(StringBuilder),
}

/// Calls the same method of whichever builder it is.
macro_rules! each {
    ($values:expr, $builder:ident => $call:expr) => {
        match $values {
            Values::Bool($builder) => $call,
            Values::Int16($builder) => $call,
            Values::Int32($builder) => $call,
            Values::Int64($builder) => $call,
            Values::UInt32($builder) => $call,
            Values::UInt64($builder) => $call,
            Values::Float32($builder) => $call,
            Values::Float64($builder) => $call,
            Values::Decimal($builder, _, _) => $call,
            Values::Date($builder) => $call,
            Values::Time($builder) => $call,
            Values::Timestamp($builder) => $call,
            Values::Uuid($builder) => $call,
            Values::Binary($builder) => $call,
            Values::Text($builder) => $call,
        }
    };
}

impl ColumnBuilder {
    /// For values of `column`, as `data_type`.
    pub(crate) fn new(column: &Column, data_type: &DataType) -> Self {
        let values = match data_type {
            DataType::Boolean => Values::Bool(BooleanBuilder::new()),
            DataType::Int16 => Values::Int16(PrimitiveBuilder::new()),
            DataType::Int32 => Values::Int32(PrimitiveBuilder::new()),
            DataType::Int64 => Values::Int64(PrimitiveBuilder::new()),
            DataType::UInt32 => Values::UInt32(PrimitiveBuilder::new()),
            DataType::UInt64 => Values::UInt64(PrimitiveBuilder::new()),
            DataType::Float32 => Values::Float32(PrimitiveBuilder::new()),
            DataType::Float64 => Values::Float64(PrimitiveBuilder::new()),
            DataType::Decimal128(precision, scale) => Values::Decimal(
                PrimitiveBuilder::new().with_data_type(data_type.clone()),
                *precision,
                scale.unsigned_abs(),
            ),
            DataType::Date32 => Values::Date(PrimitiveBuilder::new()),
            DataType::Time64(TimeUnit::Microsecond) => Values::Time(PrimitiveBuilder::new()),
            DataType::Timestamp(TimeUnit::Microsecond, _) => {
                Values::Timestamp(PrimitiveBuilder::new().with_data_type(data_type.clone()))
            }
            DataType::FixedSizeBinary(16) => Values::Uuid(FixedSizeBinaryBuilder::new(16)),
            DataType::Binary => Values::Binary(BinaryBuilder::new()),
            _ => Values::Text(StringBuilder::new()),
        };
        Self { source: Type::of(column), values, scratch: Vec::new() }
    }

    pub(crate) fn push_null(&mut self) {
        each!(&mut self.values, builder => builder.append_null());
    }

    /// The column; the builder is empty then.
    pub(crate) fn finish(&mut self) -> ArrayRef {
        each!(&mut self.values, builder => Arc::new(builder.finish()) as ArrayRef)
    }

    /// Adds a value; NULL for one that was not sent.
    #[inline]
    pub(crate) fn push(&mut self, value: Value<'_>) -> Result<Pushed, Problem> {
        match value {
            Value::Null | Value::Unchanged => {
                self.push_null();
                Ok(Pushed::Kept)
            }
            Value::Text(text) => self.push_text(text),
            Value::Binary(binary) => self.push_binary(binary),
        }
    }

    fn push_text(&mut self, text: &[u8]) -> Result<Pushed, Problem> {
        match push_text(&mut self.values, text)? {
            Ok(()) => Ok(Pushed::Kept),
            Err(Misfit::Malformed) => Err(Problem::Malformed("it is not a text form of the type")),
            Err(_) => {
                self.push_null();
                Ok(Pushed::Absent)
            }
        }
    }

    #[inline]
    fn push_binary(&mut self, binary: &[u8]) -> Result<Pushed, Problem> {
        let Type::Scalar(scalar) = self.source else { return self.push_as_text(binary) };
        let pushed = match (scalar, &mut self.values) {
            (Scalar::Int8, Values::Int64(values)) => {
                values.append_value(i64::from_be_bytes(exactly(binary)?));
                true
            }
            (Scalar::Int4, Values::Int32(values)) => {
                values.append_value(i32::from_be_bytes(exactly(binary)?));
                true
            }
            (Scalar::Int2, Values::Int16(values)) => {
                values.append_value(i16::from_be_bytes(exactly(binary)?));
                true
            }
            (Scalar::Unsigned4, Values::UInt32(values)) => {
                values.append_value(u32::from_be_bytes(exactly(binary)?));
                true
            }
            (Scalar::Unsigned8, Values::UInt64(values)) => {
                values.append_value(u64::from_be_bytes(exactly(binary)?));
                true
            }
            (Scalar::Text, Values::Text(values)) => {
                values.append_value(utf8(binary)?);
                true
            }
            (Scalar::Versioned, Values::Text(values)) => {
                values.append_value(utf8(pgvalue::json::body(binary)?)?);
                true
            }
            (Scalar::Bytea, Values::Binary(values)) => {
                values.append_value(binary);
                true
            }
            (Scalar::Bool, Values::Bool(values)) => {
                values.append_value(exactly(binary)? != [0]);
                true
            }
            (Scalar::Float8, Values::Float64(values)) => {
                values.append_value(f64::from_be_bytes(exactly(binary)?));
                true
            }
            (Scalar::Float4, Values::Float32(values)) => {
                values.append_value(f32::from_be_bytes(exactly(binary)?));
                true
            }
            (Scalar::Uuid, Values::Uuid(values)) => {
                values.append_value(exactly::<16>(binary)?).map_err(|_| Problem::Malformed("its size"))?;
                true
            }
            (Scalar::Timestamp | Scalar::TimestampTz, Values::Timestamp(values)) => {
                let micros = match timestamp_micros(binary)? {
                    MaybeInfinite::At(micros) => micros.checked_add(POSTGRES_EPOCH_UNIX_MICROS),
                    MaybeInfinite::Infinity => Some(i64::MAX),
                    MaybeInfinite::NegativeInfinity => Some(-i64::MAX),
                };
                micros.map(|micros| values.append_value(micros)).is_some()
            }
            (Scalar::Date, Values::Date(values)) => {
                let days = match date_days(binary)? {
                    MaybeInfinite::At(days) => i32::try_from(i64::from(days) + POSTGRES_EPOCH_UNIX_DAYS).ok(),
                    MaybeInfinite::Infinity => Some(i32::MAX),
                    MaybeInfinite::NegativeInfinity => Some(-i32::MAX),
                };
                days.map(|days| values.append_value(days)).is_some()
            }
            (Scalar::Time, Values::Time(values)) => {
                let micros = Some(time_micros(binary)?).filter(|micros| *micros < DAY_MICROS);
                micros.map(|micros| values.append_value(micros)).is_some()
            }
            (Scalar::Numeric, Values::Decimal(values, precision, scale)) => {
                decimal(binary, *precision, *scale)?.map(|number| values.append_value(number)).is_some()
            }
            _ => return self.push_as_text(binary),
        };
        if pushed {
            return Ok(Pushed::Kept);
        }
        self.push_null();
        Ok(Pushed::Absent)
    }

    fn push_as_text(&mut self, binary: &[u8]) -> Result<Pushed, Problem> {
        let mut scratch = std::mem::take(&mut self.scratch);
        scratch.clear();
        let pushed = match self.source.write_text(binary, &mut scratch) {
            Ok(()) => self.push_text(&scratch),
            Err(malformed) => Err(malformed.into()),
        };
        self.scratch = scratch;
        pushed
    }
}

fn push_text(values: &mut Values, bytes: &[u8]) -> Result<Result<(), Misfit>, Problem> {
    let pushed = match values {
        Values::Text(values) => {
            values.append_value(utf8(bytes)?);
            Ok(())
        }
        Values::Bool(values) => text::boolean(bytes).map(|value| values.append_value(value)),
        Values::Int16(values) => text::signed(bytes, i64::from(i16::MIN), i64::from(i16::MAX))
            .map(|value| values.append_value(value as i16)),
        Values::Int32(values) => text::signed(bytes, i64::from(i32::MIN), i64::from(i32::MAX))
            .map(|value| values.append_value(value as i32)),
        Values::Int64(values) => {
            text::signed(bytes, i64::MIN, i64::MAX).map(|value| values.append_value(value))
        }
        Values::UInt32(values) => {
            text::unsigned(bytes, u64::from(u32::MAX)).map(|value| values.append_value(value as u32))
        }
        Values::UInt64(values) => text::unsigned(bytes, u64::MAX).map(|value| values.append_value(value)),
        Values::Float32(values) => text::float32(bytes).map(|value| values.append_value(value)),
        Values::Float64(values) => text::float64(bytes).map(|value| values.append_value(value)),
        Values::Decimal(values, precision, scale) => text::decimal(bytes, *precision, *scale).map(|value| {
            let (low, _) =
                value.to_le_bytes().split_first_chunk().map_or(([0; 16], ()), |(low, _)| (*low, ()));
            values.append_value(i128::from_le_bytes(low));
        }),
        Values::Date(values) => infinite(text::date_days(bytes), bytes, i64::from(i32::MAX))
            .and_then(|days| i32::try_from(days).map_err(|_| Misfit::Above))
            .map(|days| values.append_value(days)),
        Values::Time(values) => match text::time_micros(bytes) {
            Ok(micros) if micros >= DAY_MICROS => Err(Misfit::Above),
            micros => micros.map(|micros| values.append_value(micros)),
        },
        Values::Timestamp(values) => {
            infinite(text::timestamp_micros(bytes), bytes, i64::MAX).map(|micros| values.append_value(micros))
        }
        Values::Binary(values) => {
            let mut raw = Vec::new();
            text::push_bytea(bytes, &mut raw).map(|()| values.append_value(&raw))
        }
        Values::Uuid(values) => {
            text::uuid(bytes).and_then(|value| values.append_value(value).map_err(|_| Misfit::Malformed))
        }
    };
    Ok(pushed)
}

/// The ends of time as numbers.
fn infinite(value: Result<i64, Misfit>, text: &[u8], greatest: i64) -> Result<i64, Misfit> {
    match text {
        b"infinity" => Ok(greatest),
        b"-infinity" => Ok(-greatest),
        _ => value,
    }
}

fn utf8(bytes: &[u8]) -> Result<&str, Problem> {
    std::str::from_utf8(bytes).map_err(|_| Problem::NotUtf8)
}

/// A `numeric` times `10^scale`, of at most `precision` digits; `None` where there is none.
fn decimal(binary: &[u8], precision: u8, scale: u8) -> Result<Option<i128>, Malformed> {
    let Numeric::Finite(parts) = Numeric::read(binary)? else { return Ok(None) };
    let limit = 10_i128.checked_pow(u32::from(precision)).unwrap_or(i128::MAX);
    Ok(parts.scaled(u32::from(scale)).filter(|value| -limit < *value && *value < limit))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::data_type;
    use arrow_array::Array;
    use proptest::prelude::*;
    use replicator_types::oid;

    fn column(type_oid: u32, type_modifier: i32) -> Column {
        Column { base_type_oid: type_oid, type_modifier, ..Column::default() }
    }

    fn filled(column: &Column, value: Value<'_>) -> Result<(ArrayRef, Pushed), Problem> {
        let mut builder = ColumnBuilder::new(column, &data_type(column));
        let pushed = builder.push(value)?;
        let array = builder.finish();
        assert_eq!(array.len(), 1);
        Ok((array, pushed))
    }

    #[test]
    fn what_a_column_has_no_room_for_is_null_and_named() {
        let amount = column(oid::NUMERIC, (12 << 16 | 2) + 4);
        for (column, text) in [
            (&amount, "NaN"),
            (&column(oid::TIME, -1), "24:00:00"),
            (&column(oid::TIMESTAMP, -1), "294276-12-31 23:59:59"),
        ] {
            let (array, pushed) = filled(column, Value::Text(text.as_bytes())).unwrap();
            assert_eq!((array.is_null(0), pushed), (true, Pushed::Absent), "{text}");
        }
    }

    #[test]
    fn the_ends_of_time_are_those_of_the_numbers() {
        let (array, pushed) = filled(&column(oid::TIMESTAMPTZ, -1), Value::Text(b"-infinity")).unwrap();
        let array = array.as_any().downcast_ref::<arrow_array::TimestampMicrosecondArray>().unwrap();
        assert_eq!((array.value(0), pushed), (-i64::MAX, Pushed::Kept));
        let (array, _) = filled(&column(oid::DATE, -1), Value::Binary(&i32::MAX.to_be_bytes())).unwrap();
        assert_eq!(array.as_any().downcast_ref::<arrow_array::Date32Array>().unwrap().value(0), i32::MAX);
    }

    #[test]
    fn bytes_that_are_not_of_the_type_are_an_error() {
        assert!(filled(&column(oid::INT4, -1), Value::Binary(&[1])).is_err());
        assert!(filled(&column(oid::INT4, -1), Value::Text(b"x")).is_err());
        assert!(filled(&column(oid::TEXT, -1), Value::Text(&[0xff])).is_err_and(|e| e == Problem::NotUtf8));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn a_value_in_binary_gives_what_its_text_gives(
            bytes in prop_oneof![
                proptest::collection::vec(any::<u8>(), 0..17),
                any::<i16>().prop_map(|n| n.to_be_bytes().to_vec()),
                any::<i32>().prop_map(|n| n.to_be_bytes().to_vec()),
                any::<i64>().prop_map(|n| n.to_be_bytes().to_vec()),
                any::<u128>().prop_map(|n| n.to_be_bytes().to_vec()),
                (0..86_400_000_000_i64).prop_map(|n| n.to_be_bytes().to_vec()),
            ],
        ) {
            for type_oid in [oid::BOOL, oid::INT2, oid::INT4, oid::INT8, oid::FLOAT4, oid::FLOAT8, oid::UUID, oid::BYTEA,
                oid::TIME, oid::OID, oid::XID8, oid::TEXT, oid::JSONB, oid::INTERVAL, oid::INET] {
                let column = column(type_oid, -1);
                let mut text = Vec::new();
                if Type::of(&column).write_text(&bytes, &mut text).is_ok() && std::str::from_utf8(&text).is_ok() {
                    let (binary, text) = (filled(&column, Value::Binary(&bytes)).unwrap(), filled(&column, Value::Text(&text)).unwrap());
                    prop_assert_eq!(&binary.1, &text.1);
                    // NaNs have many bit patterns and one text.
                    if format!("{:?}", text.0).contains("NaN") { continue }
                    prop_assert_eq!(&binary.0, &text.0, "{}", type_oid);
                }
            }
        }

        #[test]
        fn a_moment_in_binary_gives_what_its_text_gives(micros in -211_813_488_000_000_000_i64..9_223_371_331_200_000_000, days in -2_451_545_i32..2_145_031_949) {
            for (type_oid, bytes) in [(oid::TIMESTAMP, micros.to_be_bytes().to_vec()), (oid::TIMESTAMPTZ, micros.to_be_bytes().to_vec()), (oid::DATE, days.to_be_bytes().to_vec())] {
                let column = column(type_oid, -1);
                let mut text = Vec::new();
                Type::of(&column).write_text(&bytes, &mut text).unwrap();
                let (binary, text) = (filled(&column, Value::Binary(&bytes)).unwrap(), filled(&column, Value::Text(&text)).unwrap());
                prop_assert_eq!(&binary.0, &text.0);
                prop_assert_eq!(&binary.1, &text.1);
            }
        }
    }
}
