use super::array::ArrayColumn;
use super::{push_string, push_varint};
use crate::compress::FrameWriter;
use crate::parse::{
    DATE32_MAX, DATE32_MIN, DATETIME64_MAX, DATETIME64_MIN, Decimal, Misfit, boolean, date_days, decimal,
    float32, float64, push_bytea, signed, timestamp_micros, unsigned, uuid,
};
use crate::types::{Base, Type};
use replicator_config::OutOfRange;
use replicator_types::Value;

/// Why a value could not be added.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Problem {
    /// The column has no NULL.
    Null,
    /// The value has no counterpart.
    Misfit(Misfit),
    /// Bytes that are not the binary form of the source's type.
    Binary,
    /// An unchanged TOAST value that nobody filled in.
    Unchanged,
}

/// What becomes of values that do not fit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Rules {
    /// A value beyond the type's range.
    pub(crate) out_of_range: OutOfRange,
    /// NULL in an array column.
    pub(crate) null_is_empty_array: bool,
    /// The column kept its type when the source's changed to one that it has no room for (`type_changes = "keep"`).
    pub(crate) kept: bool,
}

impl Rules {
    /// Nothing is changed to fit.
    pub(crate) const STRICT: Self =
        Self { out_of_range: OutOfRange::Error, null_is_empty_array: false, kept: false };
}

/// How the text form becomes bytes.
#[derive(Debug)]
pub(super) enum Encoding {
    Bool,
    Int(u8),
    UInt(u8),
    Float32,
    Float64,
    Decimal {
        precision: u8,
        scale: u8,
        width: usize,
    },
    Date32,
    DateTime64,
    Uuid,
    Text,
    Bytea,
    Array(Box<ArrayColumn>),
    /// Values go nowhere: the table no longer has the column.
    Nothing,
}

/// One column of a block being filled.
#[derive(Debug)]
pub(crate) struct Column {
    name: String,
    wire: Type,
    /// The source's type, as far as its binary form is understood.
    pub(super) source: pgvalue::Type,
    pub(super) encoding: Encoding,
    rules: Rules,
    nullable: bool,
    nulls: Vec<u8>,
    pub(super) data: Vec<u8>,
    rows: usize,
    adjusted: u64,
    /// Texts of values that came in binary.
    pub(super) scratch: Vec<u8>,
}

impl Column {
    /// An empty column that is sent as `wire`, for values of the type `source`. `bytea` says that strings come as
    /// the text of a `bytea`. `None` for a type that nothing is encoded into.
    pub(crate) fn new(
        name: &str,
        wire: &Type,
        source: pgvalue::Type,
        bytea: bool,
        rules: Rules,
    ) -> Option<Self> {
        let encoding = match &wire.base {
            Base::Bool => Encoding::Bool,
            Base::Int(bits) => Encoding::Int(*bits),
            Base::UInt(bits) => Encoding::UInt(*bits),
            Base::Float32 => Encoding::Float32,
            Base::Float64 => Encoding::Float64,
            Base::Decimal { precision, scale } => {
                Encoding::Decimal { precision: *precision, scale: *scale, width: decimal_width(*precision) }
            }
            Base::Date32 => Encoding::Date32,
            Base::DateTime64Micros => Encoding::DateTime64,
            Base::Uuid => Encoding::Uuid,
            Base::String if bytea => Encoding::Bytea,
            Base::String => Encoding::Text,
            Base::Array(element) => {
                let of_element = match source {
                    pgvalue::Type::Array(scalar) => pgvalue::Type::Scalar(scalar),
                    _ => pgvalue::Type::TextOnly,
                };
                let delimiter = match source {
                    pgvalue::Type::Array(scalar) => scalar.delimiter(),
                    _ => b',',
                };
                let elements = Self::new("", element, of_element, bytea, rules)?;
                Encoding::Array(Box::new(ArrayColumn::new(elements, delimiter)))
            }
            Base::Json | Base::Other(_) => return None,
        };
        Some(Self::of(name, wire, source, encoding, rules))
    }

    /// A column that takes values and is not sent.
    pub(crate) fn unwritten(name: &str) -> Self {
        let wire = Type::of(Base::String, false);
        Self::of(name, &wire, pgvalue::Type::TextOnly, Encoding::Nothing, Rules::STRICT)
    }

    fn of(name: &str, wire: &Type, source: pgvalue::Type, encoding: Encoding, rules: Rules) -> Self {
        Self {
            name: name.to_owned(),
            wire: wire.clone(),
            source,
            encoding,
            rules,
            nullable: wire.nullable,
            nulls: Vec::new(),
            data: Vec::new(),
            rows: 0,
            adjusted: 0,
            scratch: Vec::new(),
        }
    }

    /// Whether it is part of a block.
    pub(crate) fn is_written(&self) -> bool {
        !matches!(self.encoding, Encoding::Nothing)
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn wire_type(&self) -> &Type {
        &self.wire
    }

    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// Values changed since the last [`Column::clear`] because the type had no room for them.
    pub(crate) fn adjusted(&self) -> u64 {
        match &self.encoding {
            Encoding::Array(array) => self.adjusted + array.adjusted(),
            _ => self.adjusted,
        }
    }

    /// Empties it; the memory stays.
    pub(crate) fn clear(&mut self) {
        self.nulls.clear();
        self.data.clear();
        self.rows = 0;
        self.adjusted = 0;
        if let Encoding::Array(array) = &mut self.encoding {
            array.clear();
        }
    }

    /// Adds a value. After an error the column is not to be used before [`Column::clear`].
    #[inline]
    pub(crate) fn push(&mut self, value: Value<'_>) -> Result<(), Problem> {
        match value {
            Value::Text(text) => self.push_text(text),
            Value::Null => self.push_null(),
            Value::Binary(binary) => self.push_binary(binary),
            Value::Unchanged if self.is_written() => Err(Problem::Unchanged),
            Value::Unchanged => Ok(()),
        }
    }

    /// Adds NULL.
    pub(crate) fn push_null(&mut self) -> Result<(), Problem> {
        if self.nullable {
            self.nulls.push(1);
            self.push_blank();
            return Ok(());
        }
        if !self.is_written() {
            return Ok(());
        }
        if matches!(self.encoding, Encoding::Array(_)) && self.rules.null_is_empty_array {
            self.adjusted += 1;
            self.push_blank();
            return Ok(());
        }
        Err(Problem::Null)
    }

    /// Adds what stands in a row where no value is known and none will be seen: NULL, or the type's default.
    pub(crate) fn push_default(&mut self) {
        if self.nullable {
            self.nulls.push(1);
        }
        self.push_blank();
    }

    fn push_blank(&mut self) {
        self.rows += 1;
        let width = match &mut self.encoding {
            Encoding::Array(array) => return array.push_empty(),
            Encoding::Nothing => 0,
            // An empty string is one byte: its length.
            Encoding::Text | Encoding::Bytea | Encoding::Bool => 1,
            Encoding::Int(bits) | Encoding::UInt(bits) => usize::from(*bits / 8),
            Encoding::Float32 | Encoding::Date32 => 4,
            Encoding::Float64 | Encoding::DateTime64 => 8,
            Encoding::Decimal { width, .. } => *width,
            Encoding::Uuid => 16,
        };
        self.data.resize(self.data.len() + width, 0);
    }

    /// Adds a value from its text form.
    #[inline]
    pub(crate) fn push_text(&mut self, text: &[u8]) -> Result<(), Problem> {
        let length = self.data.len();
        match self.encode(text) {
            Ok(()) => {
                self.added();
                Ok(())
            }
            Err(misfit) => {
                self.data.truncate(length);
                self.push_misfit(misfit)
            }
        }
    }

    /// Counts a value that is in the data now.
    #[inline]
    pub(super) fn added(&mut self) {
        if self.nullable {
            self.nulls.push(0);
        }
        self.rows += 1;
    }

    #[inline]
    fn encode(&mut self, text: &[u8]) -> Result<(), Misfit> {
        let data = &mut self.data;
        match &mut self.encoding {
            Encoding::Text => push_string(text, data),
            Encoding::Int(64) => data.extend_from_slice(&signed(text, i64::MIN, i64::MAX)?.to_le_bytes()),
            Encoding::Int(32) => {
                let value = signed(text, i32::MIN.into(), i32::MAX.into())?;
                data.extend_from_slice(&(value as i32).to_le_bytes());
            }
            Encoding::Int(bits) => {
                let max = i64::MAX >> 64_u8.saturating_sub(*bits).min(63);
                let value = signed(text, -max - 1, max)?.to_le_bytes();
                data.extend_from_slice(prefix(&value, usize::from(*bits / 8)));
            }
            Encoding::UInt(bits) => {
                let max = u64::MAX >> 64_u8.saturating_sub(*bits).min(63);
                let value = unsigned(text, max)?.to_le_bytes();
                data.extend_from_slice(prefix(&value, usize::from(*bits / 8)));
            }
            Encoding::Decimal { precision, scale, width } => {
                let value = decimal(text, *precision, *scale)?.to_le_bytes();
                data.extend_from_slice(prefix(&value, *width));
            }
            Encoding::DateTime64 => data.extend_from_slice(&timestamp_micros(text)?.to_le_bytes()),
            Encoding::Date32 => data.extend_from_slice(&date_days(text)?.to_le_bytes()),
            Encoding::Bool => data.push(u8::from(boolean(text)?)),
            Encoding::Float32 => data.extend_from_slice(&float32(text)?.to_le_bytes()),
            Encoding::Float64 => data.extend_from_slice(&float64(text)?.to_le_bytes()),
            Encoding::Uuid => data.extend_from_slice(&uuid(text)?),
            Encoding::Bytea => push_bytea_string(text, data)?,
            Encoding::Array(array) => array.push_text(text)?,
            Encoding::Nothing => {}
        }
        Ok(())
    }

    #[cold]
    pub(super) fn push_misfit(&mut self, misfit: Misfit) -> Result<(), Problem> {
        let problem = Problem::Misfit(misfit);
        match (misfit, self.rules.out_of_range) {
            // Of another type altogether, and known to be.
            (Misfit::Malformed | Misfit::Scale | Misfit::Shape, OutOfRange::Clamp | OutOfRange::Null)
                if self.rules.kept && !matches!(self.encoding, Encoding::Array(_)) =>
            {
                self.push_null()?
            }
            (Misfit::Below | Misfit::Above, OutOfRange::Clamp) => {
                self.push_extreme(misfit == Misfit::Below)?
            }
            (Misfit::Below | Misfit::Above | Misfit::NotANumber, OutOfRange::Null)
            | (Misfit::NotANumber, OutOfRange::Clamp) => self.push_null()?,
            _ => return Err(problem),
        }
        self.adjusted += 1;
        Ok(())
    }

    /// Adds the least or the greatest value of the type.
    fn push_extreme(&mut self, least: bool) -> Result<(), Problem> {
        let misfit = Problem::Misfit(if least { Misfit::Below } else { Misfit::Above });
        let data = &mut self.data;
        match &self.encoding {
            Encoding::Date32 => {
                data.extend_from_slice(&if least { DATE32_MIN } else { DATE32_MAX }.to_le_bytes());
            }
            Encoding::DateTime64 => {
                data.extend_from_slice(&if least { DATETIME64_MIN } else { DATETIME64_MAX }.to_le_bytes());
            }
            Encoding::Decimal { precision, width, .. } => {
                data.extend_from_slice(prefix(&Decimal::extreme(*precision, least).to_le_bytes(), *width));
            }
            Encoding::Int(bits) if self.rules.kept => {
                let max = i64::MAX >> 64_u8.saturating_sub(*bits).min(63);
                let value = if least { -max - 1 } else { max }.to_le_bytes();
                data.extend_from_slice(prefix(&value, usize::from(*bits / 8)));
            }
            Encoding::UInt(bits) if self.rules.kept => {
                let max = u64::MAX >> 64_u8.saturating_sub(*bits).min(63);
                let value = if least { 0 } else { max }.to_le_bytes();
                data.extend_from_slice(prefix(&value, usize::from(*bits / 8)));
            }
            // The other types have room for everything that their source type has. A number beyond them
            // means that the types do not go together, and to clamp it would hide that.
            _ => return Err(misfit),
        }
        self.added();
        Ok(())
    }

    /// Writes its header and rows into a block.
    pub(crate) fn write(&self, header: &mut Vec<u8>, out: &mut FrameWriter) {
        header.clear();
        push_string(self.name.as_bytes(), header);
        push_string(self.wire.to_string().as_bytes(), header);
        out.write(header);
        self.write_data(&mut |piece| out.write(piece));
    }

    /// Gives its rows, piece by piece.
    pub(super) fn write_data(&self, out: &mut dyn FnMut(&[u8])) {
        out(&self.nulls);
        match &self.encoding {
            Encoding::Array(array) => array.write_data(out),
            _ => out(&self.data),
        }
    }
}

/// Bytes of a decimal of that many digits: 32, 64, 128 or 256 bits.
fn decimal_width(precision: u8) -> usize {
    match precision {
        0..=9 => 4,
        10..=18 => 8,
        19..=38 => 16,
        _ => 32,
    }
}

/// The first `width` bytes, all of them when there are fewer.
#[inline]
fn prefix(bytes: &[u8], width: usize) -> &[u8] {
    bytes.get(..width).unwrap_or(bytes)
}

/// A `bytea` as a string. Its length is known beforehand for the hexadecimal form only; the other, which
/// no session has by default, is decoded before its length is put in front of it.
fn push_bytea_string(text: &[u8], data: &mut Vec<u8>) -> Result<(), Misfit> {
    if let Some(hex) = text.strip_prefix(b"\\x") {
        push_varint(hex.len() as u64 / 2, data);
        return push_bytea(text, data);
    }
    let mut bytes = Vec::new();
    push_bytea(text, &mut bytes)?;
    push_string(&bytes, data);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLAMP: Rules = Rules { out_of_range: OutOfRange::Clamp, ..Rules::STRICT };

    fn column(name: &str, rules: Rules) -> Column {
        Column::new("c", &Type::parse(name), pgvalue::Type::TextOnly, false, rules).unwrap()
    }

    fn bytes(column: &Column) -> Vec<u8> {
        let mut out = Vec::new();
        column.write_data(&mut |piece| out.extend_from_slice(piece));
        out
    }

    #[test]
    fn values_lie_as_wide_as_their_type() {
        for (name, text, expected) in [
            ("Int16", "-2", vec![0xfe, 0xff]),
            ("Int32", "1", vec![1, 0, 0, 0]),
            ("Int64", "-1", vec![0xff; 8]),
            ("UInt32", "4294967295", vec![0xff; 4]),
            ("UInt64", "1", vec![1, 0, 0, 0, 0, 0, 0, 0]),
            ("Bool", "t", vec![1]),
            ("Float32", "1", 1_f32.to_le_bytes().to_vec()),
            ("Float64", "-0", (-0_f64).to_le_bytes().to_vec()),
            ("Decimal(9, 2)", "-0.01", vec![0xff; 4]),
            ("Decimal(12, 2)", "0.01", vec![1, 0, 0, 0, 0, 0, 0, 0]),
            ("Decimal(38, 0)", "-1", vec![0xff; 16]),
            ("Decimal(76, 0)", "-1", vec![0xff; 32]),
            ("Date32", "1970-01-02", vec![1, 0, 0, 0]),
            ("DateTime64(6)", "1970-01-01 00:00:00.000001+00", vec![1, 0, 0, 0, 0, 0, 0, 0]),
            ("String", "\\N", vec![2, b'\\', b'N']),
            ("Nullable(Int16)", "1", vec![0, 1, 0]),
        ] {
            let mut column = column(name, CLAMP);
            column.push(Value::Text(text.as_bytes())).unwrap();
            assert_eq!(bytes(&column), expected, "{name} {text}");
            column.clear();
            assert_eq!((bytes(&column).len(), column.rows()), (0, 0));
        }
    }

    #[test]
    fn a_default_is_as_wide_as_a_value() {
        for (name, text) in [
            ("Int16", "1"),
            ("UInt64", "1"),
            ("Bool", "t"),
            ("Float32", "1"),
            ("Float64", "1"),
            ("Decimal(9, 2)", "1"),
            ("Decimal(18, 2)", "1"),
            ("Decimal(38, 2)", "1"),
            ("Decimal(39, 2)", "1"),
            ("Date32", "2000-01-01"),
            ("DateTime64(6)", "2000-01-01 00:00:00"),
            ("UUID", "00112233-4455-6677-8899-aabbccddeeff"),
            ("String", ""),
        ] {
            let (mut blank, mut value) = (column(name, CLAMP), column(name, CLAMP));
            blank.push_default();
            value.push_text(text.as_bytes()).unwrap();
            assert_eq!(bytes(&blank).len(), bytes(&value).len(), "{name}");
            assert!(bytes(&blank).iter().all(|&byte| byte == 0));
        }
    }

    #[test]
    fn null_never_becomes_a_default() {
        assert_eq!(column("Int32", CLAMP).push(Value::Null), Err(Problem::Null));
        assert_eq!(column("Array(Nullable(Int32))", CLAMP).push(Value::Null), Err(Problem::Null));
        let mut nullable = column("Nullable(Int16)", CLAMP);
        nullable.push(Value::Null).unwrap();
        nullable.push(Value::Text(b"1")).unwrap();
        assert_eq!(bytes(&nullable), [1, 0, 0, 0, 1, 0]);
    }

    #[test]
    fn what_is_out_of_range_is_clamped_and_counted_or_null_or_an_error_as_asked() {
        let text = Value::Text(b"infinity");
        let mut clamped = column("Nullable(Date32)", CLAMP);
        clamped.push(text).unwrap();
        assert_eq!(bytes(&clamped), [&[0][..], &DATE32_MAX.to_le_bytes()].concat());
        assert_eq!(clamped.adjusted(), 1);

        let mut nulled = column("Nullable(Date32)", Rules { out_of_range: OutOfRange::Null, ..CLAMP });
        nulled.push(text).unwrap();
        assert_eq!((bytes(&nulled), nulled.adjusted()), (vec![1, 0, 0, 0, 0], 1));

        let mut strict = column("Nullable(Date32)", Rules { out_of_range: OutOfRange::Error, ..CLAMP });
        assert_eq!(strict.push(text), Err(Problem::Misfit(Misfit::Above)));

        let mut number = column("Nullable(Decimal(4, 2))", CLAMP);
        number.push(Value::Text(b"NaN")).unwrap();
        number.push(Value::Text(b"-Infinity")).unwrap();
        assert_eq!(bytes(&number), [&[1, 0][..], &[0; 4], &(-9999_i32).to_le_bytes()].concat());
        assert_eq!(number.adjusted(), 2);
        assert_eq!(column("Decimal(4, 2)", CLAMP).push(Value::Text(b"NaN")), Err(Problem::Null));
    }

    #[test]
    fn a_column_that_is_not_written_takes_whatever_comes() {
        let mut gone = Column::unwritten("gone");
        for value in [
            Value::Text(b"a"),
            Value::Binary(b"\0\0\0\x01"),
            Value::Binary(b""),
            Value::Null,
            Value::Unchanged,
        ] {
            assert_eq!(gone.push(value), Ok(()), "{value:?}");
        }
    }

    #[test]
    fn an_integer_beyond_its_column_is_an_error_under_any_rule() {
        assert_eq!(column("Int16", CLAMP).push(Value::Text(b"70000")), Err(Problem::Misfit(Misfit::Above)));
        assert_eq!(column("Int16", CLAMP).push(Value::Text(b"x")), Err(Problem::Misfit(Misfit::Malformed)));
        assert_eq!(column("Int16", CLAMP).push(Value::Binary(&[0, 1])), Err(Problem::Binary));
        assert_eq!(column("Int16", CLAMP).push(Value::Unchanged), Err(Problem::Unchanged));
    }

    #[test]
    fn bytea_lies_as_its_raw_bytes() {
        for text in ["\\x00ff", "\\000\\377"] {
            let mut column =
                Column::new("c", &Type::parse("String"), pgvalue::Type::TextOnly, true, CLAMP).unwrap();
            column.push(Value::Text(text.as_bytes())).unwrap();
            assert_eq!(bytes(&column), [2, 0, 0xff], "{text}");
        }
    }
}
