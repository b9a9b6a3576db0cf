//! Rows of any file of a table in one shape, that of its newest version.
//!
//! | Column | |
//! |---|---|
//! | [`KEY`] | bytes that sort as keys do: the key's own columns, then `pk` |
//! | [`DELETED`] | whether the row is the end of one |
//! | those of a file of rows | [`TableSchema::data`] |
//!
//! Columns are found by attribute number, by name where that is 0. A column that a file does not have yet has the value
//! that the source gave to its older rows.

use crate::column::ColumnBuilder;
use crate::info::{ColumnInfo, FileInfo, FileKind, TableInfo};
use crate::schema::{DATA_COLUMNS, TableSchema, data_type};
use arrow_array::builder::{BinaryBuilder, StringBuilder};
use arrow_array::cast::AsArray;
use arrow_array::types::Decimal128Type;
use arrow_array::{Array, ArrayRef, BooleanArray, RecordBatch, StringArray, new_null_array};
use arrow_row::{RowConverter, SortField};
use arrow_schema::{DataType, Field, Schema};
use arrow_select::filter::filter_record_batch;
use arrow_select::take::take;
use replicator_types::Value;
use serde_json::Value as Json;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Where the sort key is.
pub(super) const KEY: usize = 0;
/// Where it says whether a row is deleted.
pub(super) const DELETED: usize = 1;
/// Columns before those of a file of rows.
pub(super) const EXTRA: usize = 2;

/// Why rows could not be brought into shape.
pub(super) type Fault = String;

/// Brings rows into the shape of one table version.
pub(super) struct Shaper {
    pub(super) target: TableSchema,
    pub(super) schema: Arc<Schema>,
    /// Indexes of the key's columns among the table's.
    key: Vec<usize>,
    converter: RowConverter,
}

/// Which rows of a file are wanted: those whose bookmark is neither in the past nor before the last truncate.
#[derive(Clone, Debug, Default)]
pub(super) struct Wanted {
    /// Bookmarks up to there are folded already.
    pub(super) after: Option<String>,
    /// Bookmarks before that one were truncated away.
    pub(super) from: Option<String>,
    /// Bookmarks behind that one are not asked for.
    pub(super) until: Option<String>,
}

impl Wanted {
    fn has(&self, bookmark: &str) -> bool {
        self.after.as_deref().is_none_or(|after| bookmark > after)
            && self.from.as_deref().is_none_or(|from| bookmark >= from)
            && self.until.as_deref().is_none_or(|until| bookmark <= until)
    }
}

/// The numbers of the system columns of a file of rows, behind the table's.
#[derive(Clone, Copy, Debug)]
pub(super) struct System {
    pub(super) ts: usize,
    pub(super) bookmark: usize,
    pub(super) data: usize,
    pub(super) unchanged: usize,
    pub(super) inexact: usize,
}

impl Shaper {
    pub(super) fn new(target: TableSchema) -> Result<Self, Fault> {
        let key: Vec<usize> = (0..target.info.columns.len())
            .filter(|index| target.info.columns.get(*index).is_some_and(|column| column.key))
            .collect();
        let fields = target.fields();
        let mut sorted: Vec<SortField> = key
            .iter()
            .filter_map(|index| fields.get(*index))
            .map(|field| SortField::new(field.data_type().clone()))
            .collect();
        sorted.push(SortField::new(DataType::Utf8));
        let converter = RowConverter::new(sorted).map_err(|error| error.to_string())?;
        let extra =
            [Field::new("_key", DataType::Binary, false), Field::new("_deleted", DataType::Boolean, false)];
        let data = target.data();
        let all = extra.into_iter().map(Arc::new).chain(data.fields().iter().cloned());
        let schema = Arc::new(Schema::new(all.collect::<Vec<_>>()));
        Ok(Self { target, schema, key, converter })
    }

    pub(super) fn system(&self) -> System {
        let at = |name: &str| {
            let place = DATA_COLUMNS.iter().position(|known| *known == name).unwrap_or_default();
            EXTRA + self.target.fields().len() + place
        };
        System {
            ts: at("ts"),
            bookmark: at("bookmark"),
            data: at("data"),
            unchanged: at("unchanged"),
            inexact: at("inexact"),
        }
    }

    /// The number of the column that is called so at the source.
    pub(super) fn column_named(&self, name: &str) -> Option<usize> {
        let index = self.target.info.columns.iter().position(|column| column.name == name)?;
        Some(EXTRA + index)
    }

    /// Rows of a file that is described by `info`; truncates are left out.
    pub(super) fn shape(
        &self,
        batch: &RecordBatch,
        info: &FileInfo,
        wanted: &Wanted,
    ) -> Result<RecordBatch, Fault> {
        let batch = &self.filter(batch, info, wanted)?;
        let rows = batch.num_rows();
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(self.schema.fields().len());
        for (wanted, field) in self.target.info.columns.iter().zip(self.target.fields()) {
            let found = find_column(&info.table, wanted);
            columns.push(match found.and_then(|found| Some((found, batch.column_by_name(&found.field)?))) {
                Some((found, column)) => converted(column, field.data_type(), &found.name)?,
                None => missing(wanted, field.data_type(), rows)?,
            });
        }
        let pk = system(batch, "pk")?;
        let key = self.sort_keys(&columns, pk, rows)?;
        let deleted = match info.kind {
            FileKind::Delta => system(batch, "op")?
                .as_string_opt::<i32>()
                .ok_or("its op is no text")?
                .iter()
                .map(|op| Some(op == Some("delete")))
                .collect(),
            FileKind::Data => BooleanArray::from(vec![false; rows]),
        };
        let names = Renames::new(&info.table, &self.target.info);
        let unchanged = names.of_list(text(batch, "unchanged")?);
        let inexact = names.of_list(text(batch, "inexact")?);
        let data = names.of_values(text(batch, "data")?, text(batch, "inexact")?)?;
        let shaped = [key, Arc::new(deleted) as ArrayRef].into_iter().chain(columns).chain([
            Arc::clone(pk),
            Arc::clone(system(batch, "ts")?),
            Arc::clone(system(batch, "bookmark")?),
            data,
            unchanged,
            inexact,
        ]);
        RecordBatch::try_new(Arc::clone(&self.schema), shaped.collect()).map_err(|error| error.to_string())
    }

    fn filter(&self, batch: &RecordBatch, info: &FileInfo, wanted: &Wanted) -> Result<RecordBatch, Fault> {
        let bookmarks = text(batch, "bookmark")?;
        let ops = match info.kind {
            FileKind::Delta => Some(text(batch, "op")?),
            FileKind::Data => None,
        };
        let is_wanted = (0..batch.num_rows()).map(|row| {
            let is_row = ops.is_none_or(|ops| ops.value(row) != "truncate");
            Some(is_row && wanted.has(bookmarks.value(row)))
        });
        let mask: BooleanArray = is_wanted.collect();
        if mask.true_count() == batch.num_rows() {
            return Ok(batch.clone());
        }
        filter_record_batch(batch, &mask).map_err(|error| error.to_string())
    }

    /// Rows in shape, with the keys that they sort by made again.
    pub(super) fn with_keys(&self, batch: &RecordBatch) -> Result<RecordBatch, Fault> {
        let fields = self.target.fields().len();
        let mut columns = batch.columns().to_vec();
        let own = columns.get(EXTRA..EXTRA + fields).ok_or("a row has too few columns")?;
        let pk = columns.get(EXTRA + fields).ok_or("a row has no pk")?;
        let key = self.sort_keys(own, pk, batch.num_rows())?;
        if let Some(column) = columns.get_mut(KEY) {
            *column = key;
        }
        RecordBatch::try_new(Arc::clone(&self.schema), columns).map_err(|error| error.to_string())
    }

    fn sort_keys(&self, columns: &[ArrayRef], pk: &ArrayRef, rows: usize) -> Result<ArrayRef, Fault> {
        let mut sorted: Vec<ArrayRef> =
            self.key.iter().filter_map(|index| columns.get(*index)).map(Arc::clone).collect();
        sorted.push(Arc::clone(pk));
        let converted = self.converter.convert_columns(&sorted).map_err(|error| error.to_string())?;
        let bytes: usize = converted.iter().map(|row| row.as_ref().len()).sum();
        let mut keys = BinaryBuilder::with_capacity(rows, bytes);
        for row in &converted {
            keys.append_value(row.as_ref());
        }
        Ok(Arc::new(keys.finish()))
    }
}

fn find_column<'a>(table: &'a TableInfo, wanted: &ColumnInfo) -> Option<&'a ColumnInfo> {
    table.columns.iter().find(|column| match wanted.attnum {
        0 => column.name == wanted.name,
        attnum => column.attnum == attnum,
    })
}

fn system<'a>(batch: &'a RecordBatch, name: &str) -> Result<&'a ArrayRef, Fault> {
    batch.column_by_name(name).ok_or_else(|| format!("it has no column {name}"))
}

fn text<'a>(batch: &'a RecordBatch, name: &str) -> Result<&'a StringArray, Fault> {
    system(batch, name)?.as_string_opt::<i32>().ok_or_else(|| format!("its column {name} is no text"))
}

/// A column as another type, as far as Postgres changes types without writing the table anew.
fn converted(column: &ArrayRef, to: &DataType, name: &str) -> Result<ArrayRef, Fault> {
    let from = column.data_type();
    if from == to {
        return Ok(Arc::clone(column));
    }
    match (from, to) {
        (DataType::Decimal128(_, a), DataType::Decimal128(_, b)) if a == b => {
            let data = column.to_data().into_builder().data_type(to.clone());
            // The same numbers under another precision.
            data.build().map(arrow_array::make_array).map_err(|error| error.to_string())
        }
        (DataType::Decimal128(_, _), DataType::Utf8) => {
            let decimals = column.as_primitive_opt::<Decimal128Type>().ok_or("a decimal is none")?;
            let mut texts = StringBuilder::new();
            for row in 0..decimals.len() {
                if decimals.is_null(row) {
                    texts.append_null();
                } else {
                    texts.append_value(decimals.value_as_string(row));
                }
            }
            Ok(Arc::new(texts.finish()))
        }
        _ => Err(format!("column {name} is of type {from} there and {to} now: have the table copied anew")),
    }
}

/// A column that rows are older than.
fn missing(column: &ColumnInfo, data_type_wanted: &DataType, rows: usize) -> Result<ArrayRef, Fault> {
    let Some(value) = &column.missing else { return Ok(new_null_array(data_type_wanted, rows)) };
    let described = column.column();
    let mut builder = ColumnBuilder::new(&described, &data_type(&described));
    builder
        .push(Value::Text(value.as_bytes()))
        .map_err(|_| format!("the value of column {} in older rows is not of its type", column.name))?;
    let one = builder.finish();
    let zeros = arrow_array::UInt32Array::from(vec![0; rows]);
    take(&one, &zeros, None).map_err(|error| error.to_string())
}

/// What columns were called, and are called now.
struct Renames<'a> {
    /// None when nothing was renamed.
    by_name: Option<BTreeMap<&'a str, Option<&'a str>>>,
}

impl<'a> Renames<'a> {
    fn new(from: &'a TableInfo, to: &'a TableInfo) -> Self {
        let now = |column: &ColumnInfo| find_column(to, column).map(|found| found.name.as_str());
        let pairs = from.columns.iter().map(|column| (column.name.as_str(), now(column)));
        let by_name: BTreeMap<_, _> = pairs.collect();
        let is_same = by_name.iter().all(|(name, now)| Some(*name) == *now);
        Self { by_name: (!is_same).then_some(by_name) }
    }

    fn now(&self, name: &str) -> Option<String> {
        match &self.by_name {
            None => Some(name.to_owned()),
            Some(names) => names.get(name).copied().flatten().map(str::to_owned),
        }
    }

    fn of_list(&self, lists: &StringArray) -> ArrayRef {
        if self.by_name.is_none() || lists.null_count() == lists.len() {
            return Arc::new(lists.clone());
        }
        let mut out = StringBuilder::new();
        for list in lists {
            let now: Vec<String> = names(list).into_iter().filter_map(|name| self.now(&name)).collect();
            out.append_option(list_text(&now));
        }
        Arc::new(out.finish())
    }

    /// Of the rows' JSON only what the columns do not have.
    fn of_values(&self, data: &StringArray, inexact: &StringArray) -> Result<ArrayRef, Fault> {
        if inexact.null_count() == inexact.len() {
            return Ok(new_null_array(&DataType::Utf8, data.len()));
        }
        let mut out = StringBuilder::new();
        for (data, inexact) in data.iter().zip(inexact) {
            let wanted = names(inexact);
            if wanted.is_empty() {
                out.append_null();
                continue;
            }
            let mut row = values(data);
            let kept = wanted.iter().filter_map(|name| Some((self.now(name)?, row.remove(name)?)));
            let kept: BTreeMap<String, Json> = kept.collect();
            out.append_value(serde_json::to_string(&kept).map_err(|error| error.to_string())?);
        }
        Ok(Arc::new(out.finish()))
    }
}

/// The names in a JSON array.
pub(super) fn names(list: Option<&str>) -> Vec<String> {
    list.and_then(|list| serde_json::from_str(list).ok()).unwrap_or_default()
}

/// The JSON array of names; none when there are none.
pub(super) fn list_text(names: &[String]) -> Option<String> {
    if names.is_empty() { None } else { serde_json::to_string(names).ok() }
}

/// The values in a JSON object.
pub(super) fn values(object: Option<&str>) -> BTreeMap<String, Json> {
    object.and_then(|object| serde_json::from_str(object).ok()).unwrap_or_default()
}
