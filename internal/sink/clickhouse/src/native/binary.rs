//! Values in their types' binary forms.
//!
//! What has a counterpart of the same sort goes straight into the column. All else becomes text first, in a buffer
//! that is kept: a type without a short way, and a value with a problem, so that there is one place that decides
//! what becomes of it. Either way the column gets what the text form would give.

use super::column::{Column, Encoding, Problem};
use super::push_string;
use crate::parse::{DATE32_MAX, DATE32_MIN, DATETIME64_MAX, DATETIME64_MIN, Misfit};
use pgvalue::numeric::Numeric;
use pgvalue::time::{MaybeInfinite, date_days, timestamp_micros};
use pgvalue::{Malformed, Scalar, Type, exactly};
use replicator_types::POSTGRES_EPOCH_UNIX_MICROS;

/// Days from 1970-01-01 to 2000-01-01, where Postgres counts from.
const POSTGRES_EPOCH_UNIX_DAYS: i32 = 10_957;

/// Powers of ten up to what 128 bits hold.
const POWERS_OF_TEN: [i128; 39] = {
    let mut powers = [1; 39];
    let mut exponent = 1;
    while exponent < powers.len() {
        powers[exponent] = powers[exponent - 1] * 10;
        exponent += 1;
    }
    powers
};

/// What became of a value.
enum Done {
    /// It is in the column.
    Added,
    /// It has to go by its text.
    ByText,
}

enum Failure {
    Misfit(Misfit),
    Malformed,
}

impl From<Malformed> for Failure {
    fn from(_: Malformed) -> Self {
        Self::Malformed
    }
}

impl Column {
    /// Adds a value from its binary form.
    #[inline]
    pub(crate) fn push_binary(&mut self, binary: &[u8]) -> Result<(), Problem> {
        match self.encode_binary(binary) {
            Ok(Done::Added) => {
                self.added();
                Ok(())
            }
            Ok(Done::ByText) => self.push_as_text(binary),
            Err(Failure::Misfit(misfit)) => self.push_misfit(misfit),
            Err(Failure::Malformed) => Err(Problem::Binary),
        }
    }

    fn push_as_text(&mut self, binary: &[u8]) -> Result<(), Problem> {
        // Of a column that is gone, whose type nobody needs to know.
        if !self.is_written() {
            return Ok(());
        }
        let mut scratch = std::mem::take(&mut self.scratch);
        scratch.clear();
        let pushed = match self.source.write_text(binary, &mut scratch) {
            Ok(()) => self.push_text(&scratch),
            Err(Malformed(_)) => Err(Problem::Binary),
        };
        self.scratch = scratch;
        pushed
    }

    #[inline]
    fn encode_binary(&mut self, binary: &[u8]) -> Result<Done, Failure> {
        let data = &mut self.data;
        match (self.source, &mut self.encoding) {
            (Type::Scalar(Scalar::Int8), Encoding::Int(64)) => {
                data.extend_from_slice(&i64::from_be_bytes(exactly(binary)?).to_le_bytes());
            }
            (Type::Scalar(Scalar::Int4), Encoding::Int(32)) => {
                data.extend_from_slice(&i32::from_be_bytes(exactly(binary)?).to_le_bytes());
            }
            (Type::Scalar(Scalar::Int2), Encoding::Int(16)) => {
                data.extend_from_slice(&i16::from_be_bytes(exactly(binary)?).to_le_bytes());
            }
            (Type::Scalar(Scalar::Int4), Encoding::Int(64)) => {
                data.extend_from_slice(&i64::from(i32::from_be_bytes(exactly(binary)?)).to_le_bytes());
            }
            (Type::Scalar(Scalar::Text), Encoding::Text) => push_string(binary, data),
            (Type::Scalar(Scalar::Versioned), Encoding::Text) => {
                push_string(pgvalue::json::body(binary)?, data);
            }
            (Type::Scalar(Scalar::Bytea), Encoding::Bytea) => push_string(binary, data),
            (Type::Scalar(Scalar::Timestamp | Scalar::TimestampTz), Encoding::DateTime64) => {
                data.extend_from_slice(&unix_micros(timestamp_micros(binary)?)?.to_le_bytes());
            }
            (Type::Scalar(Scalar::Numeric), Encoding::Decimal { precision, scale, width }) => {
                let Some(value) = decimal(binary, *precision, *scale)? else { return Ok(Done::ByText) };
                let bytes = value.to_le_bytes();
                data.extend_from_slice(bytes.get(..*width).unwrap_or(&bytes));
            }
            (Type::Scalar(Scalar::Date), Encoding::Date32) => {
                data.extend_from_slice(&unix_days(date_days(binary)?)?.to_le_bytes());
            }
            (Type::Scalar(Scalar::Bool), Encoding::Bool) => data.push(u8::from(exactly(binary)? != [0])),
            (Type::Scalar(Scalar::Float8), Encoding::Float64) => {
                let value = f64::from_be_bytes(exactly(binary)?);
                data.extend_from_slice(&if value.is_nan() { f64::NAN } else { value }.to_le_bytes());
            }
            (Type::Scalar(Scalar::Float4), Encoding::Float32) => {
                let value = f32::from_be_bytes(exactly(binary)?);
                data.extend_from_slice(&if value.is_nan() { f32::NAN } else { value }.to_le_bytes());
            }
            (Type::Scalar(Scalar::Unsigned4), Encoding::UInt(32)) => {
                data.extend_from_slice(&u32::from_be_bytes(exactly(binary)?).to_le_bytes());
            }
            (Type::Scalar(Scalar::Unsigned8), Encoding::UInt(64)) => {
                data.extend_from_slice(&u64::from_be_bytes(exactly(binary)?).to_le_bytes());
            }
            (Type::Scalar(Scalar::Uuid), Encoding::Uuid) => {
                // As `parse::uuid`: the halves swapped, each little-endian.
                data.extend_from_slice(&u128::from_be_bytes(exactly(binary)?).rotate_left(64).to_le_bytes());
            }
            (Type::Array(_), Encoding::Array(array)) => {
                array.push_binary(binary)?.map_err(Failure::Misfit)?;
            }
            _ => return Ok(Done::ByText),
        }
        Ok(Done::Added)
    }
}

/// A `numeric` times `10^scale`, of at most `precision` digits. `None` where the text has to say what is wrong, or
/// has more digits than fit here.
#[inline]
fn decimal(binary: &[u8], precision: u8, scale: u8) -> Result<Option<i128>, Malformed> {
    let (Numeric::Finite(parts), Some(limit)) =
        (Numeric::read(binary)?, POWERS_OF_TEN.get(usize::from(precision)))
    else {
        return Ok(None);
    };
    let scaled = parts.scaled(u32::from(scale));
    Ok(scaled.filter(|value| -*limit < *value && *value < *limit))
}

fn unix_micros(moment: MaybeInfinite<i64>) -> Result<i64, Failure> {
    let micros = finite(moment)?.saturating_add(POSTGRES_EPOCH_UNIX_MICROS);
    within(micros, DATETIME64_MIN, DATETIME64_MAX)
}

fn unix_days(day: MaybeInfinite<i32>) -> Result<i32, Failure> {
    within(finite(day)?.saturating_add(POSTGRES_EPOCH_UNIX_DAYS), DATE32_MIN, DATE32_MAX)
}

fn finite<T>(value: MaybeInfinite<T>) -> Result<T, Failure> {
    match value {
        MaybeInfinite::At(value) => Ok(value),
        MaybeInfinite::Infinity => Err(Failure::Misfit(Misfit::Above)),
        MaybeInfinite::NegativeInfinity => Err(Failure::Misfit(Misfit::Below)),
    }
}

fn within<T: PartialOrd>(value: T, min: T, max: T) -> Result<T, Failure> {
    if value < min {
        Err(Failure::Misfit(Misfit::Below))
    } else if value > max {
        Err(Failure::Misfit(Misfit::Above))
    } else {
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::native::Rules;
    use crate::types;
    use proptest::collection::vec;
    use proptest::prelude::*;
    use replicator_config::OutOfRange;

    /// Source type, and how its column may be declared.
    const CASES: &[(Scalar, &[&str])] = &[
        (Scalar::Bool, &["Bool", "Nullable(String)"]),
        (Scalar::Int2, &["Int16", "Int32", "Nullable(Int64)", "String", "Decimal(9, 2)"]),
        (Scalar::Int4, &["Int32", "Int64", "Int16", "Nullable(Decimal(12, 2))", "Float64"]),
        (Scalar::Int8, &["Int64", "Int32", "Nullable(String)", "Decimal(38, 4)"]),
        (Scalar::Unsigned4, &["UInt32", "Int64", "UInt64"]),
        (Scalar::Unsigned8, &["UInt64", "String"]),
        (Scalar::Float4, &["Float32", "Float64", "String"]),
        (Scalar::Float8, &["Float64", "Nullable(Float32)", "String"]),
        (Scalar::Date, &["Date32", "Nullable(Date32)", "String", "Nullable(DateTime64(6, 'UTC'))"]),
        (Scalar::Timestamp, &["DateTime64(6, 'UTC')", "Nullable(DateTime64(6))", "String"]),
        (Scalar::TimestampTz, &["DateTime64(6, 'UTC')", "Nullable(String)"]),
        (Scalar::Uuid, &["UUID", "Nullable(String)"]),
        (Scalar::Text, &["String", "Nullable(String)", "Nullable(Int32)"]),
        (Scalar::Versioned, &["String"]),
        (Scalar::Bytea, &["String"]),
        (Scalar::Time, &["String"]),
        (Scalar::Interval, &["Nullable(String)"]),
        (Scalar::Inet, &["String"]),
        (Scalar::Money, &["String"]),
    ];

    fn numeric(digits: &[u16], weight: i16, sign: u16, scale: u16) -> Vec<u8> {
        let mut out = (digits.len() as u16).to_be_bytes().to_vec();
        for number in [weight as u16, sign, scale].into_iter().chain(digits.iter().copied()) {
            out.extend_from_slice(&number.to_be_bytes());
        }
        out
    }

    /// What came of a value, the column's bytes, and how many of its values were changed to fit.
    type Outcome = (Result<(), Problem>, Vec<u8>, u64);

    /// Whether a server has such a value: there are no dates outside of 4714-11-24 BC to 5874897-12-31, and no
    /// timestamps after 294276-12-31 (`src/include/datatype/timestamp.h`).
    fn exists(scalar: Scalar, binary: &[u8]) -> bool {
        match scalar {
            Scalar::Date => !matches!(
                date_days(binary),
                Ok(MaybeInfinite::At(i32::MIN..-2_451_545 | 2_145_031_949..=i32::MAX))
            ),
            Scalar::Timestamp | Scalar::TimestampTz => !matches!(
                timestamp_micros(binary),
                Ok(MaybeInfinite::At(
                    i64::MIN..-211_813_488_000_000_000 | 9_223_371_331_200_000_000..=i64::MAX,
                ))
            ),
            _ => true,
        }
    }

    /// The column after a value in its binary form, and after the text of it.
    fn both(source: Type, of: &str, rules: Rules, binary: &[u8]) -> Option<[Outcome; 2]> {
        let mut text = Vec::new();
        source.write_text(binary, &mut text).ok()?;
        let bytea = matches!(source, Type::Scalar(Scalar::Bytea) | Type::Array(Scalar::Bytea));
        let filled = |by_text: bool| {
            let mut column = Column::new("c", &types::Type::parse(of), source, bytea, rules).unwrap();
            let pushed = if by_text { column.push_text(&text) } else { column.push_binary(binary) };
            let mut bytes = Vec::new();
            if pushed.is_ok() {
                column.write_data(&mut |piece| bytes.extend_from_slice(piece));
            }
            (pushed, bytes, column.adjusted())
        };
        Some([filled(false), filled(true)])
    }

    fn rules() -> impl Strategy<Value = Rules> {
        let policies = [OutOfRange::Clamp, OutOfRange::Null, OutOfRange::Error];
        (prop::sample::select(policies.to_vec()), any::<bool>()).prop_map(|(out_of_range, kept)| Rules {
            out_of_range,
            kept,
            null_is_empty_array: false,
        })
    }

    /// Bytes of a value: often near an end of the type, or of ClickHouse's.
    fn bytes() -> impl Strategy<Value = Vec<u8>> {
        let days = [DATE32_MIN - 10_957, DATE32_MAX - 10_957, i32::MIN, i32::MAX, 0];
        let micros = [DATETIME64_MIN, DATETIME64_MAX].map(|micros| micros - POSTGRES_EPOCH_UNIX_MICROS);
        prop_oneof![
            vec(any::<u8>(), 0..20),
            any::<[u8; 1]>().prop_map(|bytes| bytes.to_vec()),
            any::<i16>().prop_map(|number| number.to_be_bytes().to_vec()),
            any::<i32>().prop_map(|number| number.to_be_bytes().to_vec()),
            any::<i64>().prop_map(|number| number.to_be_bytes().to_vec()),
            any::<f32>().prop_map(|number| number.to_be_bytes().to_vec()),
            any::<f64>().prop_map(|number| number.to_be_bytes().to_vec()),
            any::<[u8; 16]>().prop_map(|bytes| bytes.to_vec()),
            (prop::sample::select(days.to_vec()), -2_i32..=2)
                .prop_map(|(day, by)| day.saturating_add(by).to_be_bytes().to_vec()),
            (prop::sample::select([&micros[..], &[i64::MIN, i64::MAX, 0]].concat()), -2_i64..=2)
                .prop_map(|(moment, by)| moment.saturating_add(by).to_be_bytes().to_vec()),
            "[0-9a-z{}\",-]{0,12}".prop_map(String::into_bytes),
            "[a-z]{0,8}".prop_map(|text| [b"\x01", text.as_bytes()].concat()),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4000))]

        #[test]
        fn a_value_in_binary_gives_the_column_that_its_text_gives(bytes in bytes(), rules in rules()) {
            for (scalar, types) in CASES.iter().filter(|(scalar, _)| exists(*scalar, &bytes)) {
                for of in *types {
                    if let Some([binary, text]) = both(Type::Scalar(*scalar), of, rules, &bytes) {
                        prop_assert_eq!(binary, text, "{:?} in {}", scalar, of);
                    }
                }
            }
        }

        #[test]
        fn a_numeric_in_binary_gives_the_column_that_its_text_gives(
            digits in vec(0_u16..10_000, 0..12),
            trailing in prop::sample::select(vec![0_u16, 1, 10, 100, 1000, 5000, 9900]),
            weight in -6_i16..8,
            sign in prop::sample::select(vec![0_u16, 0x4000, 0xC000, 0xD000, 0xF000]),
            scale in 0_u16..24,
            rules in rules(),
        ) {
            // As the server sends it: no zeros around, and no more digits than the scale shows.
            let mut digits: Vec<u16> = digits.into_iter().chain([trailing]).collect();
            while digits.first() == Some(&0) { digits.remove(0); }
            while digits.last() == Some(&0) { digits.pop(); }
            let places = (digits.len() as i32 - 1 - i32::from(weight)).max(0) * 4;
            let scale = scale.max(places as u16);
            let sign = if digits.is_empty() && sign == 0x4000 { 0 } else { sign };
            let digits = if sign < 0xC000 { digits } else { vec![] };
            let binary = numeric(&digits, weight, sign, scale);
            for of in ["Decimal(12, 2)", "Nullable(Decimal(4, 4))", "Decimal(18, 0)", "Nullable(Decimal(38, 10))", "Decimal(76, 20)", "String"] {
                let [binary, text] = both(Type::Scalar(Scalar::Numeric), of, rules, &binary).unwrap();
                prop_assert_eq!(binary, text, "in {}", of);
            }
        }

        #[test]
        fn an_array_in_binary_gives_the_column_that_its_text_gives(
            elements in vec(prop::option::of(bytes()), 0..6),
            dimensions in prop::sample::select(vec![1_u32, 2]),
            lower in prop::sample::select(vec![1_i32, 1, 1, 0]),
            rules in rules(),
        ) {
            for (scalar, types) in CASES {
                // What the type cannot have is left out.
                let fits = |element: &Option<Vec<u8>>| {
                    element.as_ref().is_none_or(|bytes| {
                        exists(*scalar, bytes) && scalar.write_text(bytes, &mut Vec::new()).is_ok()
                    })
                };
                let elements: Vec<_> = elements.iter().filter(|element| fits(element)).collect();
                let mut binary = Vec::new();
                let count = elements.len() as u32;
                for number in [if count == 0 { 0 } else { dimensions }, 1, 0] {
                    binary.extend_from_slice(&number.to_be_bytes());
                }
                if count > 0 {
                    if dimensions == 2 {
                        binary.extend_from_slice(&[0, 0, 0, 1, 0, 0, 0, 1]);
                    }
                    binary.extend_from_slice(&count.to_be_bytes());
                    binary.extend_from_slice(&lower.to_be_bytes());
                }
                for element in &elements {
                    match element {
                        Some(bytes) => {
                            binary.extend_from_slice(&(bytes.len() as i32).to_be_bytes());
                            binary.extend_from_slice(bytes);
                        }
                        None => binary.extend_from_slice(&(-1_i32).to_be_bytes()),
                    }
                }
                for of in *types {
                    let nullable = if of.starts_with("Nullable") { (*of).to_owned() } else { format!("Nullable({of})") };
                    for of in [format!("Array({nullable})"), "Nullable(String)".to_owned()] {
                        // The text of an array stays as it is, also of one of bytea.
                        if *scalar == Scalar::Bytea && !of.starts_with("Array") {
                            continue;
                        }
                        let [binary, text] = both(Type::Array(*scalar), &of, rules, &binary).unwrap();
                        prop_assert_eq!(binary, text, "{:?} in {}", scalar, of);
                    }
                }
            }
        }

        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>, rules in rules()) {
            for (scalar, types) in CASES {
                for of in *types {
                    for (source, of) in [(Type::Scalar(*scalar), (*of).to_owned()), (Type::Array(*scalar), format!("Array({of})"))] {
                        let mut column = Column::new("c", &types::Type::parse(&of), source, false, rules).unwrap();
                        let _ = column.push_binary(&bytes);
                    }
                }
            }
        }
    }

    #[test]
    fn bytes_that_are_not_of_the_type_are_an_error_under_any_rule() {
        for (scalar, of, bytes) in [
            (Scalar::Int4, "Int32", &b"\0\0\0"[..]),
            (Scalar::Numeric, "Decimal(12, 2)", b"\0\x01\0\0"),
            (Scalar::Versioned, "String", b"\x02{}"),
            (Scalar::Uuid, "UUID", b""),
        ] {
            let rules = Rules { out_of_range: OutOfRange::Null, kept: true, null_is_empty_array: false };
            let mut column =
                Column::new("c", &types::Type::parse(of), Type::Scalar(scalar), false, rules).unwrap();
            assert_eq!(column.push_binary(bytes), Err(Problem::Binary), "{scalar:?}");
        }
    }
}
