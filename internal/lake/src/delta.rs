//! Changes of one table version as a Parquet file.
//!
//! | Column | |
//! |---|---|
//! | `op` | `insert`, `update`, `delete`, `truncate`; `read` of a copied row |
//! | `pk` | the key's text: of one column its text form, of several a JSON array; NULL of a truncate, and of a table without a key |
//! | `ts` | commit time; of a copied row the snapshot's |
//! | `bookmark` | [`bookmark`]: unique in a table, and the order of its changes |
//! | `prev` | JSON: the row before, as far as the source sent it |
//! | `data` | JSON: the row after, without values that were not sent; NULL of a delete |
//! | `unchanged` | JSON array: columns that `data` lacks, since their large (TOASTed) value did not change |
//! | `inexact` | JSON array: columns whose value only `data` has, since their type here has none such |
//! | the table's own | the row after; of a delete the key alone |
//!
//! An update that changes the key is two rows: a `delete` of the old key and an `update`, whose `prev` has the old one.
//! JSON is as in the archive: numbers of up to 64 bits and booleans are such, everything else is its text form.
//!
//! A writer keeps its buffers from file to file; a row costs copies into them.

use crate::bookmark;
use crate::column::{ColumnBuilder, Problem, Pushed};
use crate::info::{FORMAT_VERSION, FileInfo, FileKind, Identity, KEY};
use crate::layout::TableFolder;
use crate::schema::TableSchema;
use arrow_array::builder::{PrimitiveBuilder, StringBuilder};
use arrow_array::types::TimestampMicrosecondType;
use arrow_array::{ArrayRef, RecordBatch};
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Encoding, ZstdLevel};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{WriterProperties, WriterPropertiesBuilder};
use parquet::schema::types::ColumnPath;
use pgvalue::as_json::{Form, push_string, push_value};
use replicator_sink::SinkError;
use replicator_store::CommitTime;
use replicator_types::{Change, Op, POSTGRES_EPOCH_UNIX_MICROS, Position, Relation, Tuple, Value};
use std::collections::BTreeMap;
use std::sync::Arc;

/// How pages are compressed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Compression {
    /// Not at all.
    None,
    /// Snappy.
    Snappy,
    /// Zstandard, level 1 to 22.
    Zstd(i32),
}

/// How files are written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FileOptions {
    /// How pages are compressed.
    pub compression: Compression,
    /// Rows of a row group, at most.
    pub row_group_rows_max: usize,
}

/// A file ready to be put.
#[derive(Clone, Debug)]
pub struct DeltaFile {
    /// Where it goes.
    pub path: String,
    /// The file.
    pub body: Bytes,
    /// What it holds.
    pub info: FileInfo,
    /// Its columns before compression.
    pub uncompressed_bytes: u64,
}

impl DeltaFile {
    /// What goes with the object, where the store keeps such.
    pub fn object_metadata(&self) -> Vec<(&'static str, String)> {
        let types: Vec<&str> = self.info.types.keys().map(String::as_str).collect();
        vec![
            ("events", self.info.events.to_string()),
            ("bytes", self.uncompressed_bytes.to_string()),
            ("min-ts", self.info.min_ts_us.to_string()),
            ("max-ts", self.info.max_ts_us.to_string()),
            ("min-bookmark", self.info.min_bookmark.clone()),
            ("max-bookmark", self.info.max_bookmark.clone()),
            ("types", types.join(",")),
            ("format-version", FORMAT_VERSION.to_string()),
        ]
    }
}

/// What is counted on the way.
#[derive(Default)]
struct Counts {
    rows: u64,
    min_ts_us: i64,
    max_ts_us: i64,
    first: Option<(Position, i64)>,
    last: Option<Position>,
    of_op: [u64; OPS.len()],
    truncated_at: Option<Position>,
    moved_incomplete: u64,
}

const OPS: [&str; 5] = ["insert", "update", "delete", "truncate", "read"];
const INSERT: usize = 0;
const UPDATE: usize = 1;
const DELETE: usize = 2;
const TRUNCATE: usize = 3;
const READ: usize = 4;

/// One row of a file.
struct Row<'a> {
    op: usize,
    position: Position,
    /// The row before, as far as known.
    old: Option<Tuple<'a>>,
    has_new: bool,
}

/// Makes files of the changes of one table version.
pub struct DeltaWriter {
    schema: TableSchema,
    folder: TableFolder,
    identity: Identity,
    options: FileOptions,
    relation: Arc<Relation>,
    /// Whether it writes copied rows.
    copied: bool,
    /// `"name":` of each column, and how its values are JSON.
    labels: Vec<(Vec<u8>, Form)>,
    /// The types of the key's columns, for their texts.
    key_types: Vec<pgvalue::Type>,
    columns: Vec<ColumnBuilder>,
    op: StringBuilder,
    pk: StringBuilder,
    ts: PrimitiveBuilder<TimestampMicrosecondType>,
    bookmark: StringBuilder,
    prev: StringBuilder,
    data: StringBuilder,
    unchanged: StringBuilder,
    inexact: StringBuilder,
    scratch: Vec<u8>,
    more_scratch: Vec<u8>,
    counts: Counts,
}

impl DeltaWriter {
    /// For changes (or, with `copied`, copied rows) of `relation`.
    pub fn new(relation: &Arc<Relation>, identity: Identity, copied: bool, options: FileOptions) -> Self {
        let schema = TableSchema::of(relation);
        let columns = relation.columns.iter().zip(schema.fields());
        let labels = relation.columns.iter().zip(&schema.info.columns).map(|(column, described)| {
            let mut label = Vec::new();
            push_string(&mut label, described.name.as_bytes());
            label.push(b':');
            (label, Form::of(column))
        });
        Self {
            labels: labels.collect(),
            key_types: relation.columns.iter().filter(|c| c.is_key).map(pgvalue::Type::of).collect(),
            columns: columns.map(|(column, field)| ColumnBuilder::new(column, field.data_type())).collect(),
            folder: TableFolder::of(&relation.schema, &relation.name),
            schema,
            identity,
            options,
            relation: Arc::clone(relation),
            copied,
            op: StringBuilder::new(),
            pk: StringBuilder::new(),
            ts: PrimitiveBuilder::new().with_timezone("UTC"),
            bookmark: StringBuilder::new(),
            prev: StringBuilder::new(),
            data: StringBuilder::new(),
            unchanged: StringBuilder::new(),
            inexact: StringBuilder::new(),
            scratch: Vec::new(),
            more_scratch: Vec::new(),
            counts: Counts::default(),
        }
    }

    /// The table version that it writes.
    pub fn relation(&self) -> &Arc<Relation> {
        &self.relation
    }

    /// Adds a change; one of another kind than a row's or a truncate is left out.
    ///
    /// # Errors
    /// A rejection, when it is not what its table says. The writer is of no use then.
    pub fn push(&mut self, change: &Change<'_>) -> Result<(), SinkError> {
        let columns = self.relation.columns.len();
        if [change.old, change.new].into_iter().flatten().any(|tuple| tuple.column_count() != columns) {
            return Err(misfit(change, "does not have its table's number of columns"));
        }
        let position = change.position;
        let row = |op, old, has_new| Row { op, position, old, has_new };
        match change.op {
            Op::Insert if self.copied => self.push_row(change, row(READ, None, true)),
            Op::Insert => self.push_row(change, row(INSERT, None, true)),
            Op::Update if change.key_changed && change.old.is_some() => {
                self.push_row(change, row(DELETE, change.old, false))?;
                let position = Position { ordinal: position.ordinal.saturating_add(1), ..position };
                self.counts.moved_incomplete += u64::from(change.unresolved);
                self.push_row(change, Row { op: UPDATE, position, old: change.old, has_new: true })
            }
            Op::Update => self.push_row(change, row(UPDATE, change.old, true)),
            Op::Delete => self.push_row(change, row(DELETE, change.old, false)),
            Op::Truncate => {
                self.counts.truncated_at = Some(position);
                self.push_row(change, row(TRUNCATE, None, false))
            }
            Op::Schema | Op::Apart | Op::Message => Ok(()),
        }
    }

    fn push_row(&mut self, change: &Change<'_>, row: Row<'_>) -> Result<(), SinkError> {
        self.op.append_value(OPS.get(row.op).copied().unwrap_or_default());
        let ts_us = change.transaction.commit_time_us.saturating_add(POSTGRES_EPOCH_UNIX_MICROS);
        self.ts.append_value(ts_us);
        let mut mark = [0; bookmark::CHARS];
        bookmark::write(row.position, &mut mark);
        self.bookmark.append_value(std::str::from_utf8(&mark).unwrap_or_default());
        self.push_pk(change, &row)?;
        self.push_prev(change, &row)?;
        self.push_new(change, &row)?;
        self.counts.add(row.op, row.position, ts_us);
        Ok(())
    }

    fn push_pk(&mut self, change: &Change<'_>, row: &Row<'_>) -> Result<(), SinkError> {
        let out = &mut self.scratch;
        out.clear();
        let written = match (&*self.key_types, row.op) {
            ([], _) | (_, TRUNCATE) => {
                self.pk.append_null();
                return Ok(());
            }
            (types, DELETE) => {
                let old = row.old.map(|old| old.key_values(&self.relation));
                write_key(out, &mut self.more_scratch, types, old.into_iter().flatten())
            }
            (types, _) => write_key(out, &mut self.more_scratch, types, change.key_values()),
        };
        written.map_err(|what| misfit(change, what))?;
        append(&mut self.pk, out, change, "key")
    }

    fn push_prev(&mut self, change: &Change<'_>, row: &Row<'_>) -> Result<(), SinkError> {
        let Some(old) = row.old else {
            self.prev.append_null();
            return Ok(());
        };
        let known = self.labels.iter().zip(&self.relation.columns).zip(old.values());
        let known = known.filter(|((_, column), _)| change.old_is_full || column.is_key);
        let values = known.map(|((label, _), value)| (label, value));
        self.scratch.clear();
        write_object(&mut self.scratch, &mut self.more_scratch, values)
            .map_err(|what| misfit(change, what))?;
        append(&mut self.prev, &self.scratch, change, "prev")
    }

    fn push_new(&mut self, change: &Change<'_>, row: &Row<'_>) -> Result<(), SinkError> {
        if !row.has_new {
            self.data.append_null();
            self.unchanged.append_null();
            self.inexact.append_null();
            // A fold sorts by the key's own columns.
            let mut old = row.old.filter(|_| row.op == DELETE).map(Tuple::values);
            for (builder, column) in self.columns.iter_mut().zip(&self.relation.columns) {
                let value = old.as_mut().and_then(Iterator::next).filter(|_| column.is_key);
                builder
                    .push(value.unwrap_or(Value::Null))
                    .map_err(|problem| wrong_value(change, &column.name, problem))?;
            }
            return Ok(());
        }
        self.scratch.clear();
        write_object(&mut self.scratch, &mut self.more_scratch, self.labels.iter().zip(change.new_values()))
            .map_err(|what| misfit(change, what))?;
        append(&mut self.data, &self.scratch, change, "data")?;
        let (unchanged, inexact) = (&mut self.scratch, &mut self.more_scratch);
        unchanged.clear();
        inexact.clear();
        let columns = self.columns.iter_mut().zip(&self.labels);
        for ((builder, (label, _)), value) in columns.zip(change.new_values()) {
            if value == Value::Unchanged {
                push_name(unchanged, label);
            }
            match builder.push(value) {
                Ok(Pushed::Kept) => {}
                Ok(Pushed::Absent) => push_name(inexact, label),
                Err(problem) => return Err(wrong_value(change, &String::from_utf8_lossy(label), problem)),
            }
        }
        end_names(&mut self.unchanged, unchanged, change)?;
        end_names(&mut self.inexact, inexact, change)
    }

    /// The file of what was added; `None` when nothing was. The writer is empty then.
    ///
    /// # Errors
    /// Parquet cannot be written.
    pub fn finish(&mut self) -> Result<Option<DeltaFile>, SinkError> {
        let counts = std::mem::take(&mut self.counts);
        let Some((first, ts_us)) = counts.first else { return Ok(None) };
        let mut arrays: Vec<ArrayRef> = vec![
            Arc::new(self.op.finish()),
            Arc::new(self.pk.finish()),
            Arc::new(self.ts.finish()),
            Arc::new(self.bookmark.finish()),
            Arc::new(self.prev.finish()),
            Arc::new(self.data.finish()),
            Arc::new(self.unchanged.finish()),
            Arc::new(self.inexact.finish()),
        ];
        arrays.extend(self.columns.iter_mut().map(ColumnBuilder::finish));
        let info = counts.info(self.identity.clone(), &self.schema);
        let schema = self.schema.delta();
        let failed = |error: String| {
            SinkError::halt(format!("changes of {} cannot be written as Parquet: {error}", self.relation))
        };
        let batch = RecordBatch::try_new(Arc::clone(&schema), arrays).map_err(|e| failed(e.to_string()))?;
        let written = write(&batch, &self.options, &info).map_err(|error| failed(error.to_string()))?;
        let time = CommitTime::from_postgres_micros(ts_us.saturating_sub(POSTGRES_EPOCH_UNIX_MICROS));
        Ok(Some(DeltaFile {
            path: self.folder.delta(first, time),
            body: written.0.into(),
            info,
            uncompressed_bytes: written.1,
        }))
    }
}

fn write(
    batch: &RecordBatch,
    options: &FileOptions,
    info: &FileInfo,
) -> parquet::errors::Result<(Vec<u8>, u64)> {
    let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), Some(properties(options)?.build()))?;
    writer.write(batch)?;
    writer.append_key_value_metadata(described(info));
    let metadata = writer.finish()?;
    let bytes = metadata.row_groups().iter().map(|group| group.total_byte_size()).sum::<i64>();
    Ok((std::mem::take(writer.inner_mut()), bytes.unsigned_abs()))
}

/// How files are written.
pub(crate) fn properties(options: &FileOptions) -> parquet::errors::Result<WriterPropertiesBuilder> {
    let compression = match options.compression {
        Compression::None => parquet::basic::Compression::UNCOMPRESSED,
        Compression::Snappy => parquet::basic::Compression::SNAPPY,
        Compression::Zstd(level) => parquet::basic::Compression::ZSTD(ZstdLevel::try_new(level)?),
    };
    let bookmark = ColumnPath::from("bookmark");
    Ok(WriterProperties::builder()
        .set_created_by("replicator".to_owned())
        .set_compression(compression)
        .set_max_row_group_row_count(Some(options.row_group_rows_max.max(1)))
        .set_column_dictionary_enabled(bookmark.clone(), false)
        // Neighbours share most of their characters.
        .set_column_encoding(bookmark, Encoding::DELTA_BYTE_ARRAY))
}

/// What a file says of itself, in its footer.
pub(crate) fn described(info: &FileInfo) -> KeyValue {
    // A struct of texts and numbers: there is nothing to fail.
    KeyValue::new(KEY.to_owned(), serde_json::to_string(info).unwrap_or_default())
}

impl Counts {
    fn add(&mut self, op: usize, position: Position, ts_us: i64) {
        if self.first.is_none() {
            self.first = Some((position, ts_us));
            (self.min_ts_us, self.max_ts_us) = (ts_us, ts_us);
        }
        self.rows += 1;
        self.min_ts_us = self.min_ts_us.min(ts_us);
        self.max_ts_us = self.max_ts_us.max(ts_us);
        self.last = Some(position);
        if let Some(count) = self.of_op.get_mut(op) {
            *count += 1;
        }
    }

    fn info(&self, identity: Identity, schema: &TableSchema) -> FileInfo {
        let types = OPS.iter().zip(self.of_op).filter(|(_, count)| *count > 0);
        FileInfo {
            format_version: FORMAT_VERSION,
            kind: FileKind::Delta,
            identity,
            table: schema.info.clone(),
            events: self.rows,
            min_ts_us: self.min_ts_us,
            max_ts_us: self.max_ts_us,
            min_bookmark: self.first.map(|(first, _)| bookmark::text(first)).unwrap_or_default(),
            max_bookmark: self.last.map(bookmark::text).unwrap_or_default(),
            types: types.map(|(op, count)| ((*op).to_owned(), count)).collect::<BTreeMap<_, _>>(),
            truncated_at: self.truncated_at.map(bookmark::text),
            moved_incomplete: self.moved_incomplete,
            folded_through: None,
            copied_through: None,
            folded_ts_us: None,
            removed_through: None,
        }
    }
}

/// Appends a key's text.
fn write_key<'v>(
    out: &mut Vec<u8>,
    scratch: &mut Vec<u8>,
    types: &[pgvalue::Type],
    values: impl Iterator<Item = Value<'v>>,
) -> Result<(), &'static str> {
    let is_list = types.len() > 1;
    let mut before = b'[';
    for (of, value) in types.iter().zip(values) {
        scratch.clear();
        let text: &[u8] = match value {
            Value::Text(text) => text,
            Value::Binary(binary) => {
                of.write_text(binary, scratch).map_err(|_| "has a key that is not of its type")?;
                scratch
            }
            Value::Null | Value::Unchanged => {
                if is_list {
                    out.push(before);
                    out.extend_from_slice(b"null");
                    before = b',';
                }
                continue;
            }
        };
        if is_list {
            out.push(before);
            push_string(out, text);
            before = b',';
        } else {
            out.extend_from_slice(text);
        }
    }
    if is_list {
        out.push(b']');
    }
    Ok(())
}

/// Appends an object of the values that are known.
fn write_object<'l, 'v>(
    out: &mut Vec<u8>,
    scratch: &mut Vec<u8>,
    values: impl Iterator<Item = (&'l (Vec<u8>, Form), Value<'v>)>,
) -> Result<(), &'static str> {
    let mut before = b'{';
    for ((label, form), value) in values.filter(|(_, value)| *value != Value::Unchanged) {
        out.push(before);
        out.extend_from_slice(label);
        push_value(out, scratch, *form, value).map_err(|malformed| malformed.0)?;
        before = b',';
    }
    if before == b'{' {
        out.push(b'{');
    }
    out.push(b'}');
    Ok(())
}

fn push_name(names: &mut Vec<u8>, label: &[u8]) {
    names.push(if names.is_empty() { b'[' } else { b',' });
    names.extend_from_slice(label.strip_suffix(b":").unwrap_or(label));
}

fn end_names(column: &mut StringBuilder, names: &mut Vec<u8>, change: &Change<'_>) -> Result<(), SinkError> {
    if names.is_empty() {
        column.append_null();
        return Ok(());
    }
    names.push(b']');
    append(column, names, change, "names")
}

fn append(column: &mut StringBuilder, text: &[u8], change: &Change<'_>, what: &str) -> Result<(), SinkError> {
    match std::str::from_utf8(text) {
        Ok(text) => {
            column.append_value(text);
            Ok(())
        }
        Err(_) => Err(misfit(change, &format!("is not UTF-8 in its {what}: the source has to send UTF8"))),
    }
}

fn wrong_value(change: &Change<'_>, column: &str, problem: Problem) -> SinkError {
    let what = match problem {
        Problem::Malformed(what) => what,
        Problem::NotUtf8 => "it is not UTF-8",
    };
    misfit(change, &format!("has no value in column {column}: {what}"))
}

fn misfit(change: &Change<'_>, what: &str) -> SinkError {
    SinkError::reject(format!("the change at {} of {} {what}", change.position, change.relation))
}
