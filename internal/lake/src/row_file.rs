//! A file of rows as tuples again, such as the stream and copies have: for sinks that are to have the rows.
//!
//! Values that Postgres has a plain binary form of go as that, all others as their text. What the columns have no room
//! for comes out of `data`.

use crate::info::{FileInfo, FileKind, TableInfo};
use crate::layout::TableFolder;
use arrow_array::cast::AsArray;
use arrow_array::types::{
    Date32Type, Decimal128Type, Float32Type, Float64Type, Int16Type, Int32Type, Int64Type,
    Time64MicrosecondType, TimestampMicrosecondType, UInt32Type, UInt64Type,
};
use arrow_array::{Array, ArrayRef, RecordBatch};
use arrow_schema::{DataType, TimeUnit};
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use replicator_types::{
    BatchBuilder, Column, POSTGRES_EPOCH_UNIX_MICROS, Relation, ReplicaIdentity, TransactionMeta,
    indexes_of_key,
};
use serde_json::Value as Json;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

/// Days from 1970-01-01 to 2000-01-01.
const POSTGRES_EPOCH_UNIX_DAYS: i32 = 10_957;

/// See the module.
pub struct RowFile {
    /// What the file says of itself.
    pub info: FileInfo,
    relation: Arc<Relation>,
    reader: ParquetRecordBatchReader,
    rows: u64,
}

impl TableInfo {
    /// The table that it describes. Its keys are not known to be equal exactly when their texts are.
    pub fn relation(&self) -> Relation {
        let columns: Vec<Column> = self.columns.iter().map(crate::info::ColumnInfo::column).collect();
        Relation {
            oid: self.oid,
            version: 0,
            since: self.since(),
            schema: self.schema.clone(),
            name: self.name.clone(),
            replica_identity: match self.replica_identity.as_str() {
                "nothing" => ReplicaIdentity::Nothing,
                "full" => ReplicaIdentity::Full,
                "index" => ReplicaIdentity::Index,
                _ => ReplicaIdentity::Default,
            },
            key: indexes_of_key(&columns),
            columns,
            key_text_is_identity: false,
            is_guess: false,
        }
    }
}

impl RowFile {
    /// The file at `path` on this machine.
    ///
    /// # Errors
    /// It is no file of rows; says why.
    pub fn open(path: &Path) -> Result<Self, String> {
        let fault = |error: String| format!("{}: {error}", path.display());
        let info = crate::footer::local_info(path).map_err(fault)?;
        if info.kind != FileKind::Data {
            return Err(fault("it has changes, not rows".into()));
        }
        let file = File::open(path).map_err(|error| fault(error.to_string()))?;
        let reader = ParquetRecordBatchReaderBuilder::try_new(file).and_then(|reader| reader.build());
        let reader = reader.map_err(|error| fault(error.to_string()))?;
        Ok(Self { relation: Arc::new(info.table.relation()), info, reader, rows: 0 })
    }

    /// The table.
    pub fn relation(&self) -> &Arc<Relation> {
        &self.relation
    }

    /// Adds the next rows, some thousand, as inserts of `transaction`, numbered from 0; false at the end.
    ///
    /// # Errors
    /// The file is broken, or a row lacks values that were never sent.
    pub fn push(
        &mut self,
        transaction: &TransactionMeta,
        builder: &mut BatchBuilder,
    ) -> Result<bool, String> {
        let Some(batch) = self.reader.next() else { return Ok(false) };
        let batch = batch.map_err(|error| error.to_string())?;
        let columns: Option<Vec<&ArrayRef>> =
            self.info.table.columns.iter().map(|column| batch.column_by_name(&column.field)).collect();
        let columns = columns.ok_or("the file lacks a column of its table")?;
        for row in 0..batch.num_rows() {
            if let Some(lacking) = text_at(&batch, "unchanged", row) {
                let pk = text_at(&batch, "pk", row).unwrap_or_default();
                return Err(format!(
                    "the lake never got the values {lacking} of the row {pk} of {}: have the table copied anew",
                    self.relation
                ));
            }
            let inexact = Inexact::of(&batch, row);
            builder.push_row_with(transaction, &self.relation, self.rows, |out| {
                out.extend_from_slice(&(columns.len() as u16).to_be_bytes());
                for (array, column) in columns.iter().zip(&self.relation.columns) {
                    match inexact.value(&column.name) {
                        Some(text) => put(out, b't', text.as_bytes()),
                        None => put_value(out, array, row)?,
                    }
                }
                Ok::<(), String>(())
            })?;
            self.rows += 1;
        }
        Ok(true)
    }

    /// The folder of its table.
    pub fn folder(&self) -> TableFolder {
        TableFolder::of(&self.relation.schema, &self.relation.name)
    }
}

fn text_at<'a>(batch: &'a RecordBatch, name: &str, row: usize) -> Option<&'a str> {
    let texts = batch.column_by_name(name)?.as_string_opt::<i32>()?;
    texts.is_valid(row).then(|| texts.value(row))
}

/// The values of a row that its columns have no room for.
struct Inexact(Option<serde_json::Map<String, Json>>);

impl Inexact {
    fn of(batch: &RecordBatch, row: usize) -> Self {
        let data = text_at(batch, "inexact", row).and_then(|_| text_at(batch, "data", row));
        Self(data.and_then(|data| serde_json::from_str(data).ok()))
    }

    fn value(&self, name: &str) -> Option<String> {
        match self.0.as_ref()?.get(name)? {
            Json::Null => None,
            Json::String(text) => Some(text.clone()),
            other => Some(other.to_string()),
        }
    }
}

fn put(out: &mut Vec<u8>, kind: u8, bytes: &[u8]) {
    out.push(kind);
    // Parquet has no value of 4 GB.
    out.extend_from_slice(&(bytes.len() as u32).to_be_bytes());
    out.extend_from_slice(bytes);
}

fn put_value(out: &mut Vec<u8>, array: &ArrayRef, row: usize) -> Result<(), String> {
    if array.is_null(row) {
        out.push(b'n');
        return Ok(());
    }
    macro_rules! number {
        ($of:ty) => {
            array
                .as_primitive_opt::<$of>()
                .map(|values| values.value(row))
                .ok_or("a column is of another type")?
        };
    }
    match array.data_type() {
        DataType::Boolean => {
            let value = array.as_boolean_opt().is_some_and(|values| values.value(row));
            put(out, b'b', &[u8::from(value)]);
        }
        DataType::Int16 => put(out, b'b', &number!(Int16Type).to_be_bytes()),
        DataType::Int32 => put(out, b'b', &number!(Int32Type).to_be_bytes()),
        DataType::Int64 => put(out, b'b', &number!(Int64Type).to_be_bytes()),
        DataType::UInt32 => put(out, b'b', &number!(UInt32Type).to_be_bytes()),
        DataType::UInt64 => put(out, b'b', &number!(UInt64Type).to_be_bytes()),
        DataType::Float32 => put(out, b'b', &number!(Float32Type).to_be_bytes()),
        DataType::Float64 => put(out, b'b', &number!(Float64Type).to_be_bytes()),
        DataType::Decimal128(_, _) => {
            let decimals = array.as_primitive_opt::<Decimal128Type>().ok_or("a decimal is none")?;
            put(out, b't', decimals.value_as_string(row).as_bytes());
        }
        DataType::Date32 => put(out, b'b', &postgres_days(number!(Date32Type)).to_be_bytes()),
        DataType::Time64(TimeUnit::Microsecond) => {
            put(out, b'b', &number!(Time64MicrosecondType).to_be_bytes());
        }
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            put(out, b'b', &postgres_micros(number!(TimestampMicrosecondType)).to_be_bytes());
        }
        DataType::FixedSizeBinary(16) => {
            let values = array.as_fixed_size_binary_opt().ok_or("a uuid is none")?;
            put(out, b'b', values.value(row));
        }
        DataType::Binary => {
            put(out, b'b', array.as_binary_opt::<i32>().ok_or("a column is of another type")?.value(row));
        }
        DataType::Utf8 => {
            let texts = array.as_string_opt::<i32>().ok_or("a column is of another type")?;
            put(out, b't', texts.value(row).as_bytes());
        }
        other => return Err(format!("columns of type {other} are not this lake's")),
    }
    Ok(())
}

/// `infinity` is the greatest number at both, `-infinity` the least at Postgres and minus the greatest here.
fn postgres_days(days: i32) -> i32 {
    match days {
        i32::MAX => i32::MAX,
        days if days == -i32::MAX => i32::MIN,
        days => days.saturating_sub(POSTGRES_EPOCH_UNIX_DAYS),
    }
}

fn postgres_micros(micros: i64) -> i64 {
    match micros {
        i64::MAX => i64::MAX,
        micros if micros == -i64::MAX => i64::MIN,
        micros => micros.saturating_sub(POSTGRES_EPOCH_UNIX_MICROS),
    }
}
