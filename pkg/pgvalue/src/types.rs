use crate::{Form, Malformed, array, bytes, float, geometry, json, net, numeric, search, time};
use crate::{exactly, read::Reader};
use replicator_types::{Column, ColumnKind, oid};

/// Built-in types that no other crate needs to know by name. Source: `pg_type.dat`.
mod more_oid {
    pub(super) const INT2VECTOR: u32 = 22;
    pub(super) const TID: u32 = 27;
    pub(super) const OIDVECTOR: u32 = 30;
    pub(super) const POINT: u32 = 600;
    pub(super) const LSEG: u32 = 601;
    pub(super) const PATH: u32 = 602;
    pub(super) const BOX: u32 = 603;
    pub(super) const POLYGON: u32 = 604;
    pub(super) const LINE: u32 = 628;
    pub(super) const CIRCLE: u32 = 718;
    pub(super) const REFCURSOR: u32 = 1790;
    pub(super) const TXID_SNAPSHOT: u32 = 2970;
    pub(super) const TSVECTOR: u32 = 3614;
    pub(super) const JSONPATH: u32 = 4072;
    pub(super) const PG_SNAPSHOT: u32 = 5038;
}

/// How a column's values are read from their binary form: found once a column, small, free to copy.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Type {
    /// One value.
    Scalar(Scalar),
    /// An array with elements of that type.
    Array(Scalar),
    /// Not understood.
    TextOnly,
}

/// A type whose binary form is understood. Types that share both forms share a name.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[allow(missing_docs, reason = "the names are the types'")]
pub enum Scalar {
    /// `text`, `varchar`, `char(n)`, `name`, `json`, `xml`, `refcursor`, enums: the text itself.
    Text,
    Bool,
    Int2,
    Int4,
    Int8,
    /// `oid`, `xid`, `cid`.
    Unsigned4,
    /// `xid8`.
    Unsigned8,
    Float4,
    Float8,
    Numeric,
    Money,
    Bytea,
    /// `"char"`, one byte.
    Char,
    Uuid,
    /// `jsonb` and `jsonpath`: a version, then the text.
    Versioned,
    Date,
    Time,
    TimeTz,
    Timestamp,
    TimestampTz,
    Interval,
    /// `inet` and `cidr`.
    Inet,
    /// `macaddr` and `macaddr8`.
    MacAddr,
    /// `bit` and `varbit`.
    Bits,
    PgLsn,
    Tid,
    Point,
    Line,
    Segment,
    Box,
    Path,
    Polygon,
    Circle,
    /// `int2vector` and `oidvector`: in binary an array, as text numbers with spaces between.
    Vector,
    TsVector,
    /// `pg_snapshot` and `txid_snapshot`.
    Snapshot,
}

impl Scalar {
    /// The built-in type of that oid, if its binary form is understood.
    pub fn of_oid(type_oid: u32) -> Option<Self> {
        Some(match type_oid {
            oid::TEXT | oid::VARCHAR | oid::BPCHAR | oid::NAME | oid::JSON => Self::Text,
            // xml_send differs from xml_out by a declared encoding, which it leaves out where that is UTF8.
            oid::XML | more_oid::REFCURSOR => Self::Text,
            oid::BOOL => Self::Bool,
            oid::INT2 => Self::Int2,
            oid::INT4 => Self::Int4,
            oid::INT8 => Self::Int8,
            oid::OID | oid::XID | oid::CID => Self::Unsigned4,
            oid::XID8 => Self::Unsigned8,
            oid::FLOAT4 => Self::Float4,
            oid::FLOAT8 => Self::Float8,
            oid::NUMERIC => Self::Numeric,
            oid::MONEY => Self::Money,
            oid::BYTEA => Self::Bytea,
            oid::CHAR => Self::Char,
            oid::UUID => Self::Uuid,
            oid::JSONB | more_oid::JSONPATH => Self::Versioned,
            oid::DATE => Self::Date,
            oid::TIME => Self::Time,
            oid::TIMETZ => Self::TimeTz,
            oid::TIMESTAMP => Self::Timestamp,
            oid::TIMESTAMPTZ => Self::TimestampTz,
            oid::INTERVAL => Self::Interval,
            oid::INET | oid::CIDR => Self::Inet,
            oid::MACADDR | oid::MACADDR8 => Self::MacAddr,
            oid::BIT | oid::VARBIT => Self::Bits,
            oid::PG_LSN => Self::PgLsn,
            more_oid::TID => Self::Tid,
            more_oid::POINT => Self::Point,
            more_oid::LINE => Self::Line,
            more_oid::LSEG => Self::Segment,
            more_oid::BOX => Self::Box,
            more_oid::PATH => Self::Path,
            more_oid::POLYGON => Self::Polygon,
            more_oid::CIRCLE => Self::Circle,
            more_oid::INT2VECTOR | more_oid::OIDVECTOR => Self::Vector,
            more_oid::TSVECTOR => Self::TsVector,
            more_oid::PG_SNAPSHOT | more_oid::TXID_SNAPSHOT => Self::Snapshot,
            _ => return None,
        })
    }

    /// What stands between the elements of an array of it (`pg_type.typdelim`).
    pub fn delimiter(self) -> u8 {
        if self == Self::Box { b';' } else { b',' }
    }

    /// Appends the text form of a value in binary form.
    ///
    /// # Errors
    /// The bytes are not of the type. What was appended so far is to be thrown away.
    #[inline]
    pub fn write_text(self, binary: &[u8], out: &mut Vec<u8>) -> Result<(), Malformed> {
        let mut digits = itoa::Buffer::new();
        match self {
            Self::Text => out.extend_from_slice(binary),
            Self::Int4 => {
                out.extend_from_slice(digits.format(i32::from_be_bytes(exactly(binary)?)).as_bytes());
            }
            Self::Int8 => {
                out.extend_from_slice(digits.format(i64::from_be_bytes(exactly(binary)?)).as_bytes());
            }
            Self::Int2 => {
                out.extend_from_slice(digits.format(i16::from_be_bytes(exactly(binary)?)).as_bytes());
            }
            Self::Unsigned4 => {
                out.extend_from_slice(digits.format(u32::from_be_bytes(exactly(binary)?)).as_bytes());
            }
            Self::Unsigned8 => {
                out.extend_from_slice(digits.format(u64::from_be_bytes(exactly(binary)?)).as_bytes());
            }
            Self::Bool => out.push(if exactly(binary)? == [0] { b'f' } else { b't' }),
            Self::Float4 => float::write_f32(f32::from_be_bytes(exactly(binary)?), out),
            Self::Float8 => float::write_f64(f64::from_be_bytes(exactly(binary)?), out),
            Self::Numeric => numeric::write(binary, out)?,
            Self::Money => numeric::write_money(i64::from_be_bytes(exactly(binary)?), out),
            Self::Bytea => bytes::write_bytea(binary, out),
            Self::Char => bytes::write_char(exactly(binary)?, out),
            Self::Uuid => bytes::write_uuid(exactly(binary)?, out),
            Self::Versioned => out.extend_from_slice(json::body(binary)?),
            Self::Date => time::write_date(binary, out)?,
            Self::Time => time::write_time(binary, out)?,
            Self::TimeTz => time::write_timetz(binary, out)?,
            Self::Timestamp => time::write_timestamp(binary, b"", out)?,
            Self::TimestampTz => time::write_timestamp(binary, b"+00", out)?,
            Self::Interval => time::write_interval(binary, out)?,
            Self::Inet => net::write_inet(binary, out)?,
            Self::MacAddr => net::write_macaddr(binary, out)?,
            Self::Bits => bytes::write_bits(binary, out)?,
            Self::PgLsn => bytes::write_lsn(u64::from_be_bytes(exactly(binary)?), out),
            Self::Tid => bytes::write_tid(exactly(binary)?, out),
            Self::Point
            | Self::Line
            | Self::Segment
            | Self::Box
            | Self::Path
            | Self::Polygon
            | Self::Circle => geometry::write(self, Reader(binary), out)?,
            Self::Vector => array::write_vector(binary, out)?,
            Self::TsVector => search::write_tsvector(Reader(binary), out)?,
            Self::Snapshot => search::write_snapshot(Reader(binary), out)?,
        }
        Ok(())
    }
}

impl Type {
    /// The type of a column's values.
    pub fn of(column: &Column) -> Self {
        // Before the kind, since these two look like arrays in the catalog.
        if matches!(column.base_type_oid, more_oid::INT2VECTOR | more_oid::OIDVECTOR) {
            return Self::Scalar(Scalar::Vector);
        }
        let known = |scalar: Option<Scalar>, make: fn(Scalar) -> Self| scalar.map_or(Self::TextOnly, make);
        match column.kind {
            ColumnKind::Enum => Self::Scalar(Scalar::Text),
            ColumnKind::Scalar => known(Scalar::of_oid(column.base_type_oid), Self::Scalar),
            ColumnKind::Array { element_is_enum: true, .. } => Self::Array(Scalar::Text),
            ColumnKind::Array { element_oid, .. } => known(Scalar::of_oid(element_oid), Self::Array),
            ColumnKind::Other => Self::TextOnly,
        }
    }

    /// What is known of the binary form.
    pub fn form(self) -> Form {
        match self {
            Self::Scalar(Scalar::Text) => Form::Same,
            Self::Scalar(_) | Self::Array(_) => Form::Binary,
            Self::TextOnly => Form::TextOnly,
        }
    }

    /// Appends the text form of a value in binary form.
    ///
    /// # Errors
    /// The bytes are not of the type, or the type is not understood. What was appended so far is to be thrown away.
    #[inline]
    pub fn write_text(self, binary: &[u8], out: &mut Vec<u8>) -> Result<(), Malformed> {
        match self {
            Self::Scalar(scalar) => scalar.write_text(binary, out),
            Self::Array(element) => array::write(element, binary, out),
            Self::TextOnly => Err(Malformed("its binary form is not understood")),
        }
    }
}
