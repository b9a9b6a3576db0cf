//! Which Parquet columns a table has.
//!
//! | Postgres | Parquet (Arrow) |
//! |---|---|
//! | bool, int2/4/8, float4/8 | Boolean, Int16/32/64, Float32/64 |
//! | oid, xid, cid; xid8 | UInt32; UInt64 |
//! | numeric(p,s), p ≤ 38, 0 ≤ s ≤ p | Decimal128(p,s) |
//! | date; time | Date32; Time64(µs) |
//! | timestamp; timestamptz | Timestamp(µs); Timestamp(µs, UTC) |
//! | uuid; bytea | UUID (16 bytes); Binary |
//! | everything else | Utf8: the type's text form |
//!
//! Domains come resolved to their base type. `infinity` of dates and timestamps is the greatest number, `-infinity`
//! minus that, as DuckDB has them. A value without a counterpart (NaN in a Decimal128, `24:00:00`, the last weeks of
//! year 294276) is NULL, and `inexact` names its column: `data` has its text.
//!
//! A column is called as at the source, but for those that would be taken for one of the system columns (`op`, `pk`, `ts`, `bookmark`, `prev`, `data`, `unchanged`, `inexact`):
//! they get a `_` at their end. What a column is, whatever it is called, is its `field_id`: `pg_attribute.attnum`.
//!
//! Sources: <https://github.com/apache/parquet-format/blob/master/LogicalTypes.md>,
//! <https://duckdb.org/docs/stable/sql/data_types/timestamp>.

use crate::info::TableInfo;
use arrow_schema::extension::Uuid;
use arrow_schema::{DataType, Field, Schema, TimeUnit};
use parquet::arrow::PARQUET_FIELD_ID_META_KEY;
use replicator_types::{Column, ColumnKind, Relation, oid};
use std::collections::HashMap;
use std::sync::Arc;

/// Columns that are not the source's.
pub(crate) const SYSTEM: [&str; 8] = ["op", "pk", "ts", "bookmark", "prev", "data", "unchanged", "inexact"];

/// Those of a delta, before the table's.
pub(crate) const DELTA_COLUMNS: [&str; 8] = SYSTEM;

/// Those of a table's rows, behind the table's.
pub(crate) const DATA_COLUMNS: [&str; 6] = ["pk", "ts", "bookmark", "data", "unchanged", "inexact"];

/// The most digits that a Decimal128 has.
const DECIMAL_DIGITS_MAX: i32 = 38;

/// The columns of a table at one version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableSchema {
    /// What the files say of the table.
    pub info: TableInfo,
    fields: Vec<Arc<Field>>,
}

impl TableSchema {
    /// Of `relation`.
    pub fn of(relation: &Relation) -> Self {
        let names: Vec<String> = relation.columns.iter().map(|column| field_name(&column.name)).collect();
        Self::new(TableInfo::of(relation, &names), &relation.columns)
    }

    /// Of a table as a file describes it.
    pub fn of_info(info: TableInfo) -> Self {
        let columns: Vec<Column> = info.columns.iter().map(crate::info::ColumnInfo::column).collect();
        Self::new(info, &columns)
    }

    fn new(info: TableInfo, columns: &[Column]) -> Self {
        let fields =
            info.columns.iter().zip(columns).map(|(described, column)| {
                Arc::new(field(&described.field, &data_type(column), column.attnum))
            });
        Self { fields: fields.collect(), info }
    }

    /// The table's own columns, in the order of the source.
    pub fn fields(&self) -> &[Arc<Field>] {
        &self.fields
    }

    /// Of a file of changes.
    pub fn delta(&self) -> Arc<Schema> {
        let system = DELTA_COLUMNS.iter().map(|name| system_field(name));
        Arc::new(Schema::new(system.chain(self.fields.iter().cloned()).collect::<Vec<_>>()))
    }

    /// Of a file of rows.
    pub fn data(&self) -> Arc<Schema> {
        let system = DATA_COLUMNS.iter().map(|name| system_field(name));
        Arc::new(Schema::new(self.fields.iter().cloned().chain(system).collect::<Vec<_>>()))
    }
}

pub(crate) fn system_field(name: &str) -> Arc<Field> {
    let data_type = match name {
        "ts" => timestamptz(),
        _ => DataType::Utf8,
    };
    let nullable = !matches!(name, "op" | "ts" | "bookmark");
    Arc::new(Field::new(name, data_type, nullable))
}

fn timestamptz() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

/// What a source's column is called. Readers mostly take names that differ in case only for the same.
fn field_name(name: &str) -> String {
    let bare = name.trim_end_matches('_').to_ascii_lowercase();
    if SYSTEM.contains(&bare.as_str()) { format!("{name}_") } else { name.to_owned() }
}

/// A column of the table. All of them take NULL: a change may have no value for any of them.
fn field(name: &str, data_type: &DataType, attnum: i16) -> Field {
    let mut field = Field::new(name, data_type.clone(), true);
    if attnum > 0 {
        let id = (PARQUET_FIELD_ID_META_KEY.to_owned(), attnum.to_string());
        field.set_metadata(HashMap::from([id]));
    }
    if *data_type == DataType::FixedSizeBinary(16) { field.with_extension_type(Uuid) } else { field }
}

/// The type of a column's values.
pub(crate) fn data_type(column: &Column) -> DataType {
    if column.kind != ColumnKind::Scalar {
        return DataType::Utf8;
    }
    match column.base_type_oid {
        oid::BOOL => DataType::Boolean,
        oid::INT2 => DataType::Int16,
        oid::INT4 => DataType::Int32,
        oid::INT8 => DataType::Int64,
        oid::OID | oid::XID | oid::CID => DataType::UInt32,
        oid::XID8 => DataType::UInt64,
        oid::FLOAT4 => DataType::Float32,
        oid::FLOAT8 => DataType::Float64,
        oid::NUMERIC => numeric(column.type_modifier),
        oid::DATE => DataType::Date32,
        oid::TIME => DataType::Time64(TimeUnit::Microsecond),
        oid::TIMESTAMP => DataType::Timestamp(TimeUnit::Microsecond, None),
        oid::TIMESTAMPTZ => timestamptz(),
        oid::UUID => DataType::FixedSizeBinary(16),
        oid::BYTEA => DataType::Binary,
        _ => DataType::Utf8,
    }
}

/// From the type modifier: `(precision << 16 | scale) + 4`, the scale in 11 bits with a sign.
///
/// Source: `make_numeric_typmod` in `src/backend/utils/adt/numeric.c` of Postgres.
fn numeric(modifier: i32) -> DataType {
    if modifier < 4 {
        return DataType::Utf8;
    }
    let bits = modifier - 4;
    let precision = bits >> 16 & 0xffff;
    let scale = (bits & 0x7ff ^ 1024) - 1024;
    match (u8::try_from(precision), i8::try_from(scale)) {
        (Ok(digits @ 1..), Ok(places @ 0..)) if precision <= DECIMAL_DIGITS_MAX && scale <= precision => {
            DataType::Decimal128(digits, places)
        }
        _ => DataType::Utf8,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(type_oid: u32, type_modifier: i32) -> DataType {
        data_type(&Column { base_type_oid: type_oid, type_modifier, ..Column::default() })
    }

    #[test]
    fn numeric_is_a_decimal_as_long_as_there_is_one() {
        let modifier = |precision: i32, scale: i32| (precision << 16 | scale & 0x7ff) + 4;
        for (precision, scale, expected) in [
            (12, 2, DataType::Decimal128(12, 2)),
            (38, 38, DataType::Decimal128(38, 38)),
            (39, 0, DataType::Utf8),
            (5, -3, DataType::Utf8),
            (2, 5, DataType::Utf8),
            (1000, 1000, DataType::Utf8),
        ] {
            assert_eq!(
                of(oid::NUMERIC, modifier(precision, scale)),
                expected,
                "numeric({precision},{scale})"
            );
        }
        assert_eq!(of(oid::NUMERIC, -1), DataType::Utf8);
    }

    #[test]
    fn columns_that_would_be_taken_for_ours_get_another_name_each() {
        let names = ["ts", "TS", "ts_", "data", "datum", "data__", "_op"];
        let fields = names.map(field_name);
        assert_eq!(fields, ["ts_", "TS_", "ts__", "data_", "datum", "data___", "_op"]);
    }
}
