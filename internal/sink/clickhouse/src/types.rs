//! Which ClickHouse type a Postgres column gets, and what an existing column of another type can take.
//!
//! | Postgres | ClickHouse |
//! |---|---|
//! | bool, int2/4/8, float4/8, oid, xid | Bool, Int16/32/64, Float32/64, UInt32 |
//! | numeric(p,s), p ≤ 76 | Decimal(p,s) |
//! | numeric | String |
//! | date; timestamp(tz) | Date32; DateTime64(6, 'UTC') |
//! | uuid | UUID |
//! | enum | LowCardinality(String) |
//! | arrays | Array(Nullable(T)) or String: see `ArrayColumns` in the configuration; String in a key |
//! | json, jsonb, bytea (as raw bytes), time, interval, everything else | String |
//!
//! Domains come resolved to their base type. `time` is a String, since `Time64` needs a recent server and
//! a String has `24:00:00`; it sorts the same. All but key columns are Nullable where the source allows
//! NULL.
//!
//! Source: <https://clickhouse.com/docs/sql-reference/data-types>.

use replicator_config::ArrayColumns;
use replicator_types::{Column, ColumnKind, oid};
use std::fmt;

/// The most digits a Decimal has.
const DECIMAL_DIGITS_MAX: i32 = 76;

/// A ClickHouse type without `Nullable` and `LowCardinality`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Base {
    Bool,
    /// Bits: 8, 16, 32 or 64.
    Int(u8),
    /// Bits: 8, 16, 32 or 64.
    UInt(u8),
    Float32,
    Float64,
    Decimal {
        precision: u8,
        scale: u8,
    },
    Date32,
    /// `DateTime64(6)` of whatever time zone.
    DateTime64Micros,
    Uuid,
    String,
    Json,
    Array(Box<Type>),
    /// Some other type, by its name.
    Other(String),
}

/// A ClickHouse column's type.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Type {
    pub(crate) base: Base,
    pub(crate) nullable: bool,
    pub(crate) low_cardinality: bool,
}

impl Type {
    pub(crate) fn of(base: Base, nullable: bool) -> Self {
        Self { base, nullable, low_cardinality: false }
    }

    /// Reads a type's name as `system.columns` has it.
    pub(crate) fn parse(name: &str) -> Self {
        let name = name.trim();
        if let Some(inner) = argument(name, "LowCardinality") {
            return Self { low_cardinality: true, ..Self::parse(inner) };
        }
        if let Some(inner) = argument(name, "Nullable") {
            return Self { nullable: true, ..Self::parse(inner) };
        }
        Self::of(Base::parse(name), false)
    }

    /// The type in a Native block for a column of this type: the server makes the dictionary of a
    /// `LowCardinality` and the tree of a `JSON` itself.
    pub(crate) fn on_the_wire(&self) -> Self {
        let base = match &self.base {
            Base::Json => Base::String,
            Base::Array(element) => Base::Array(Box::new(element.on_the_wire())),
            base => base.clone(),
        };
        Self::of(base, self.nullable)
    }

    pub(crate) fn with_nullable(&self) -> Self {
        Self { nullable: true, ..self.clone() }
    }
}

impl Base {
    fn parse(name: &str) -> Self {
        if let Some(element) = argument(name, "Array") {
            return Self::Array(Box::new(Type::parse(element)));
        }
        if let Some((precision, scale)) = argument(name, "Decimal").and_then(|both| both.split_once(','))
            && let (Ok(precision), Ok(scale)) = (precision.trim().parse(), scale.trim().parse())
        {
            return Self::Decimal { precision, scale };
        }
        if argument(name, "DateTime64").and_then(|all| all.split(',').next()).map(str::trim) == Some("6") {
            return Self::DateTime64Micros;
        }
        match name {
            "Bool" => Self::Bool,
            "Int8" => Self::Int(8),
            "Int16" => Self::Int(16),
            "Int32" => Self::Int(32),
            "Int64" => Self::Int(64),
            "UInt8" => Self::UInt(8),
            "UInt16" => Self::UInt(16),
            "UInt32" => Self::UInt(32),
            "UInt64" => Self::UInt(64),
            "Float32" => Self::Float32,
            "Float64" => Self::Float64,
            "Date32" => Self::Date32,
            "UUID" => Self::Uuid,
            "String" => Self::String,
            "JSON" => Self::Json,
            _ => Self::Other(name.to_owned()),
        }
    }

    /// Whether every value of `self` has its counterpart in `wider`.
    pub(crate) fn fits_into(&self, wider: &Self) -> bool {
        match (self, wider) {
            (a, b) if a == b => true,
            (Self::Int(a), Self::Int(b)) | (Self::UInt(a), Self::UInt(b)) => a <= b,
            (Self::UInt(a), Self::Int(b)) => a < b,
            (Self::Float32, Self::Float64) | (Self::Bool, Self::UInt(8)) => true,
            (
                Self::Decimal { precision: p, scale: s },
                Self::Decimal { precision: wider_p, scale: wider_s },
            ) => wider_s >= s && wider_p.checked_sub(*wider_s) >= p.checked_sub(*s),
            (Self::Array(a), Self::Array(b)) => a.base.fits_into(&b.base) && (b.nullable || !a.nullable),
            // The text, or the raw bytes.
            (_, Self::String) => true,
            _ => false,
        }
    }
}

/// `inner` of `name(inner)`.
fn argument<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.strip_prefix(name)?.strip_prefix('(')?.strip_suffix(')')
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.low_cardinality, self.nullable) {
            (true, true) => write!(f, "LowCardinality(Nullable({}))", self.base),
            (true, false) => write!(f, "LowCardinality({})", self.base),
            (false, true) => write!(f, "Nullable({})", self.base),
            (false, false) => self.base.fmt(f),
        }
    }
}

impl fmt::Display for Base {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool => f.write_str("Bool"),
            Self::Int(bits) => write!(f, "Int{bits}"),
            Self::UInt(bits) => write!(f, "UInt{bits}"),
            Self::Float32 => f.write_str("Float32"),
            Self::Float64 => f.write_str("Float64"),
            Self::Decimal { precision, scale } => write!(f, "Decimal({precision}, {scale})"),
            Self::Date32 => f.write_str("Date32"),
            Self::DateTime64Micros => f.write_str("DateTime64(6, 'UTC')"),
            Self::Uuid => f.write_str("UUID"),
            Self::String => f.write_str("String"),
            Self::Json => f.write_str("JSON"),
            Self::Array(element) => write!(f, "Array({element})"),
            Self::Other(name) => f.write_str(name),
        }
    }
}

/// The type a new column gets. `nullable` says whether it is to take NULL (an array never does).
pub(crate) fn wanted(column: &Column, nullable: bool, arrays: ArrayColumns) -> Type {
    match column.kind {
        ColumnKind::Enum => Type { base: Base::String, nullable, low_cardinality: true },
        ColumnKind::Scalar => Type::of(scalar(column.base_type_oid, column.type_modifier), nullable),
        ColumnKind::Array { element_oid, element_modifier, element_is_enum } => {
            // ClickHouse sorts by no Nullable, also not inside of an array.
            if column.is_key || arrays == ArrayColumns::Text || arrays == ArrayColumns::Auto && nullable {
                return Type::of(Base::String, nullable);
            }
            let element = if element_is_enum { Base::String } else { scalar(element_oid, element_modifier) };
            Type::of(Base::Array(Box::new(Type::of(element, true))), false)
        }
        ColumnKind::Other => Type::of(Base::String, nullable),
    }
}

fn scalar(type_oid: u32, modifier: i32) -> Base {
    match type_oid {
        oid::BOOL => Base::Bool,
        oid::INT2 => Base::Int(16),
        oid::INT4 => Base::Int(32),
        oid::INT8 => Base::Int(64),
        oid::OID | oid::XID | oid::CID => Base::UInt(32),
        oid::XID8 => Base::UInt(64),
        oid::FLOAT4 => Base::Float32,
        oid::FLOAT8 => Base::Float64,
        oid::NUMERIC => numeric(modifier),
        oid::DATE => Base::Date32,
        oid::TIMESTAMP | oid::TIMESTAMPTZ => Base::DateTime64Micros,
        oid::UUID => Base::Uuid,
        _ => Base::String,
    }
}

/// A `numeric`'s Decimal, from its type modifier: `(precision << 16 | scale) + 4`, the scale in 11 bits
/// with a sign.
///
/// Source: `make_numeric_typmod` in `src/backend/utils/adt/numeric.c` of Postgres.
fn numeric(modifier: i32) -> Base {
    if modifier < 4 {
        return Base::String;
    }
    let bits = modifier - 4;
    let precision = bits >> 16 & 0xffff;
    let scale = (bits & 0x7ff ^ 1024) - 1024;
    // A negative scale rounds to tens, hundreds, …: whole numbers with that many more digits. A scale above
    // the precision has only fractional digits.
    let (digits, scale) = if scale < 0 { (precision - scale, 0) } else { (precision.max(scale), scale) };
    match (u8::try_from(digits), u8::try_from(scale)) {
        (Ok(precision), Ok(scale)) if precision > 0 && digits <= DECIMAL_DIGITS_MAX => {
            Base::Decimal { precision, scale }
        }
        _ => Base::String,
    }
}

/// Whether a column that would be made as `wanted` can be written to one that exists as `existing`.
pub(crate) fn is_compatible(column: &Column, wanted: &Type, existing: &Type) -> bool {
    let is_json = matches!(column.base_type_oid, oid::JSON | oid::JSONB) && column.kind == ColumnKind::Scalar;
    match &existing.base {
        Base::Json => is_json,
        // A text column that was declared by another setting of `arrays`.
        Base::Array(_) if wanted.base == Base::String => {
            array_of(column).is_some_and(|base| base.fits_into(&existing.base))
        }
        base => wanted.base.fits_into(base),
    }
}

/// Whether a column of type `of` takes the bytes of a `bytea` (or of an array of them) rather than their text.
pub(crate) fn is_bytea(column: &Column, of: &Type) -> bool {
    match column.kind {
        // The text of an array stays as it is.
        ColumnKind::Array { element_oid, .. } => element_oid == oid::BYTEA && of.base != Base::String,
        _ => column.base_type_oid == oid::BYTEA,
    }
}

fn array_of(column: &Column) -> Option<Base> {
    match column.kind {
        ColumnKind::Array { .. } => Some(wanted(column, false, ArrayColumns::Array).base),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(type_oid: u32, modifier: i32, kind: ColumnKind) -> Column {
        Column {
            name: "c".into(),
            attnum: 1,
            type_oid,
            base_type_oid: type_oid,
            type_modifier: modifier,
            kind,
            type_sql: String::new(),
            not_null: false,
            is_key: false,
            ..Column::default()
        }
    }

    fn modifier(precision: i32, scale: i32) -> i32 {
        (precision << 16 | scale & 0x7ff) + 4
    }

    #[test]
    fn numeric_becomes_a_decimal_as_long_as_there_is_one() {
        for (precision, scale, expected) in [
            (12, 2, "Decimal(12, 2)"),
            (76, 76, "Decimal(76, 76)"),
            (77, 0, "String"),
            (5, -3, "Decimal(8, 0)"),
            (2, 5, "Decimal(5, 5)"),
            (1000, 1000, "String"),
        ] {
            let found = wanted(
                &column(oid::NUMERIC, modifier(precision, scale), ColumnKind::Scalar),
                false,
                ArrayColumns::Auto,
            );
            assert_eq!(found.to_string(), expected, "numeric({precision},{scale})");
        }
        let unconstrained = wanted(&column(oid::NUMERIC, -1, ColumnKind::Scalar), true, ArrayColumns::Auto);
        assert_eq!(unconstrained.to_string(), "Nullable(String)");
    }

    #[test]
    fn arrays_are_arrays_only_where_null_cannot_come_unless_asked_for() {
        let kind = ColumnKind::Array { element_oid: oid::INT4, element_modifier: -1, element_is_enum: false };
        let array = column(1007, -1, kind);
        for (policy, nullable, expected) in [
            (ArrayColumns::Auto, true, "Nullable(String)"),
            (ArrayColumns::Auto, false, "Array(Nullable(Int32))"),
            (ArrayColumns::Array, true, "Array(Nullable(Int32))"),
            (ArrayColumns::Text, false, "String"),
        ] {
            assert_eq!(wanted(&array, nullable, policy).to_string(), expected, "{policy:?} {nullable}");
        }
    }

    #[test]
    fn names_are_read_as_they_are_written() {
        for name in [
            "LowCardinality(Nullable(String))",
            "Nullable(Decimal(12, 2))",
            "Array(Nullable(UUID))",
            "DateTime64(6, 'UTC')",
            "Enum8('a' = 1)",
            "Bool",
            "Nullable(Int64)",
            "JSON",
        ] {
            assert_eq!(Type::parse(name).to_string(), name);
        }
        assert_eq!(Type::parse("DateTime64(6)").base, Base::DateTime64Micros);
        assert_eq!(Type::parse("DateTime64(6, 'Europe/Berlin')").base, Base::DateTime64Micros);
        assert_eq!(Type::parse("DateTime64(3)").base, Base::Other("DateTime64(3)".into()));
    }

    #[test]
    fn an_existing_column_is_taken_when_nothing_can_be_lost() {
        let scalar = |oid| column(oid, -1, ColumnKind::Scalar);
        let numeric = column(oid::NUMERIC, modifier(12, 2), ColumnKind::Scalar);
        for (column, existing, expected) in [
            (scalar(oid::INT4), "Int64", true),
            (scalar(oid::INT4), "UInt32", false),
            (scalar(oid::INT8), "Int32", false),
            (scalar(oid::INT4), "Nullable(String)", true),
            (scalar(oid::OID), "Int64", true),
            (scalar(oid::FLOAT4), "Float64", true),
            (scalar(oid::FLOAT8), "Float32", false),
            (numeric.clone(), "Decimal(14, 4)", true),
            (numeric.clone(), "Decimal(12, 4)", false),
            (numeric, "Float64", false),
            (scalar(oid::TIMESTAMPTZ), "DateTime64(6, 'Asia/Tokyo')", true),
            (scalar(oid::TIMESTAMPTZ), "DateTime", false),
            (scalar(oid::JSONB), "JSON", true),
            (scalar(oid::TEXT), "JSON", false),
            (scalar(oid::TEXT), "LowCardinality(String)", true),
            (scalar(oid::DATE), "Date", false),
        ] {
            let wanted = wanted(&column, true, ArrayColumns::Auto);
            assert_eq!(
                is_compatible(&column, &wanted, &Type::parse(existing)),
                expected,
                "{wanted} -> {existing}"
            );
        }
    }
}
