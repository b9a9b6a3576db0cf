//! One change as one line of JSON: the shape is in the crate's documentation.
//!
//! What is the same for all changes of a table is made once a table version ([`TableText`]), what is the same
//! for all changes of a transaction once a transaction ([`TransactionText`]). A row then costs copies into one
//! buffer and no allocation.

use crate::message;
use crate::naming::Naming;
use pgvalue::Malformed;
use pgvalue::as_json::{Form, push_hex, push_string, push_value};
use replicator_sink::SinkError;
use replicator_store::CommitTime;
use replicator_types::{
    Change, Column, ColumnKind, Op, Relation, ReplicaIdentity, TransactionMeta, Tuple, Value,
};
use serde::Serialize;
use std::sync::Arc;

/// What of a line a table version decides.
#[derive(Debug)]
struct TableText {
    relation: Arc<Relation>,
    /// `,"schema":"…","table":"…"`
    names: Vec<u8>,
    /// `,"relation":{…}`
    description: Vec<u8>,
    columns: Vec<ColumnText>,
}

#[derive(Debug)]
struct ColumnText {
    /// `"name":`
    label: Vec<u8>,
    form: Form,
    is_key: bool,
}

impl ColumnText {
    /// `"name"`
    fn json_name(&self) -> &[u8] {
        self.label.strip_suffix(b":").unwrap_or_default()
    }
}

/// What of a line the transaction decides.
#[derive(Debug, Default)]
struct TransactionText {
    of: Option<TransactionMeta>,
    /// `{"event_id":"…-`, up to the ordinal.
    id: Vec<u8>,
    /// `,"lsn":"X/X","ordinal":`
    lsn: Vec<u8>,
    /// `,"commit_time":"…","xid":N`
    commit: Vec<u8>,
}

/// A table version as the first event of it in a file describes it: enough to read the values back.
#[derive(Serialize)]
struct Description<'a> {
    oid: u32,
    replica_identity: &'static str,
    key_text_is_identity: bool,
    columns: Vec<ColumnDescription<'a>>,
}

#[derive(Serialize)]
struct ColumnDescription<'a> {
    name: &'a str,
    #[serde(rename = "type")]
    type_sql: &'a str,
    key: bool,
    not_null: bool,
    attnum: i16,
    type_oid: u32,
    base_type_oid: u32,
    type_modifier: i32,
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    element: Option<ElementDescription>,
    #[serde(skip_serializing_if = "Option::is_none")]
    missing: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    default: Option<&'a str>,
}

#[derive(Serialize)]
struct ElementDescription {
    type_oid: u32,
    type_modifier: i32,
    #[serde(rename = "enum")]
    is_enum: bool,
}

/// Table versions whose texts are kept. Past it all are made anew, which costs little.
const TABLES_MAX: usize = 1024;

/// Writes changes as lines. It keeps texts from call to call and nothing that shows in what it writes, but
/// for which tables the file in hand has described.
#[derive(Debug)]
pub(crate) struct EventWriter {
    /// `{"event_id":"system-slot-`, as JSON has it.
    id_prefix: Vec<u8>,
    ordinal_digits_min: u32,
    /// `-{table oid}","op":"`, of a copied row; `","op":"`, of a change.
    id_end: Vec<u8>,
    is_copy: bool,
    tables: Vec<TableText>,
    transaction: TransactionText,
    /// For each relation of the batch in hand, which of `tables` it is and whether the file has described it.
    batch_tables: Vec<Option<usize>>,
    described: Vec<bool>,
    /// A text on its way to JSON.
    scratch: Vec<u8>,
}

impl EventWriter {
    /// For events with such ids.
    pub(crate) fn new(naming: &Naming) -> Self {
        Self {
            id_prefix: format!("{{\"event_id\":\"{}", naming.id_prefix).into_bytes(),
            ordinal_digits_min: naming.ordinal_digits_min(),
            id_end: format!("{}\",\"op\":\"", naming.id_suffix()).into_bytes(),
            is_copy: naming.is_copy(),
            tables: Vec::new(),
            transaction: TransactionText::default(),
            batch_tables: Vec::new(),
            described: Vec::new(),
            scratch: Vec::new(),
        }
    }

    /// A new file of changes of a batch with these relations: each is described again at its first change.
    pub(crate) fn begin_file(&mut self, relations: &[Arc<Relation>]) {
        if self.tables.len() > TABLES_MAX {
            self.tables.clear();
        }
        self.batch_tables.clear();
        self.batch_tables.resize(relations.len(), None);
        self.described.clear();
        self.described.resize(relations.len(), false);
    }

    /// Appends one line, or nothing for a change of kind [`Op::Schema`]: the first event behind it describes the
    /// table. Fails when the change does not fit its table's columns.
    pub(crate) fn push(&mut self, out: &mut Vec<u8>, change: &Change<'_>) -> Result<(), SinkError> {
        let op: &[u8] = match change.op {
            Op::Insert if self.is_copy => b"read\"",
            Op::Insert => b"insert\"",
            Op::Update => b"update\"",
            Op::Delete => b"delete\"",
            Op::Truncate => b"truncate\"",
            Op::Message => b"message\"",
            Op::Schema | Op::Apart => return Ok(()),
        };
        let table_index = self.table_index(change);
        let Some(table) = self.tables.get(table_index) else {
            return Err(misfit(change, "has no table"));
        };
        let columns = table.columns.len();
        if [change.old, change.new].into_iter().flatten().any(|tuple| tuple.column_count() != columns) {
            return Err(misfit(change, "does not have its table's number of columns"));
        }
        if self.transaction.of != Some(*change.transaction) {
            self.transaction.begin(&self.id_prefix, change.transaction);
        }
        let mut integer = itoa::Buffer::new();
        out.extend_from_slice(&self.transaction.id);
        push_hex(out, change.position.ordinal, self.ordinal_digits_min);
        out.extend_from_slice(&self.id_end);
        out.extend_from_slice(op);
        if change.op != Op::Message {
            out.extend_from_slice(&table.names);
        }
        out.extend_from_slice(&self.transaction.lsn);
        out.extend_from_slice(integer.format(change.position.ordinal).as_bytes());
        out.extend_from_slice(&self.transaction.commit);
        if change.op == Op::Message {
            message::push(out, change);
            out.extend_from_slice(b"}\n");
            return Ok(());
        }
        if let Some(described) = self.described.get_mut(change.relation_index)
            && !*described
        {
            *described = true;
            out.extend_from_slice(&table.description);
        }
        if change.op == Op::Truncate {
            out.extend_from_slice(if change.cascade { b",\"cascade\":true" } else { b",\"cascade\":false" });
            out.extend_from_slice(if change.restart_identity {
                b",\"restart_identity\":true"
            } else {
                b",\"restart_identity\":false"
            });
        } else {
            push_row_values(out, &mut self.scratch, table, change).map_err(|(column, Malformed(what))| {
                misfit(change, &format!("has no value in column {column}: {what}"))
            })?;
        }
        out.extend_from_slice(b"}\n");
        Ok(())
    }

    fn table_index(&mut self, change: &Change<'_>) -> usize {
        if let Some(Some(index)) = self.batch_tables.get(change.relation_index) {
            return *index;
        }
        let known = self.tables.iter().rposition(|table| Arc::ptr_eq(&table.relation, change.relation));
        let index = known.unwrap_or_else(|| {
            self.tables.push(TableText::new(change.relation));
            self.tables.len() - 1
        });
        if let Some(slot) = self.batch_tables.get_mut(change.relation_index) {
            *slot = Some(index);
        }
        index
    }
}

/// A value's column, by its name in JSON, and what is wrong with the value.
type Misfit<'a> = (std::borrow::Cow<'a, str>, Malformed);

fn push_row_values<'a>(
    out: &mut Vec<u8>,
    scratch: &mut Vec<u8>,
    table: &'a TableText,
    change: &Change<'_>,
) -> Result<(), Misfit<'a>> {
    if change.relation.has_key() {
        out.extend_from_slice(b",\"key\":");
        let key_columns = table.columns.iter().filter(|column| column.is_key);
        push_object(out, scratch, key_columns.zip(change.key_values()))?;
    } else {
        out.extend_from_slice(b",\"key\":null");
    }
    out.extend_from_slice(b",\"before\":");
    match change.old {
        None => out.extend_from_slice(b"null"),
        Some(old) => {
            let known = table.columns.iter().zip(old.values());
            push_object(out, scratch, known.filter(|(column, _)| change.old_is_full || column.is_key))?;
        }
    }
    out.extend_from_slice(b",\"after\":");
    if change.new.is_none() {
        out.extend_from_slice(b"null");
        return Ok(());
    }
    push_object(out, scratch, table.columns.iter().zip(change.new_values()))?;
    if change.new.is_some_and(Tuple::has_unchanged) {
        push_unchanged(out, table, change);
    }
    Ok(())
}

/// Appends an object of the values that are known.
fn push_object<'a, 'b>(
    out: &mut Vec<u8>,
    scratch: &mut Vec<u8>,
    values: impl Iterator<Item = (&'a ColumnText, Value<'b>)>,
) -> Result<(), Misfit<'a>> {
    let mut before = b'{';
    for (column, value) in values {
        if value != Value::Unchanged {
            out.push(before);
            out.extend_from_slice(&column.label);
            push_value(out, scratch, column.form, value)
                .map_err(|malformed| (String::from_utf8_lossy(column.json_name()), malformed))?;
            before = b',';
        }
    }
    if before == b'{' {
        out.push(b'{');
    }
    out.push(b'}');
    Ok(())
}

/// Appends the names of the columns whose new value nobody sent, if there are any.
fn push_unchanged(out: &mut Vec<u8>, table: &TableText, change: &Change<'_>) {
    let mut before: &[u8] = b",\"unchanged\":[";
    for (column, value) in table.columns.iter().zip(change.new_values()) {
        if value == Value::Unchanged {
            out.extend_from_slice(before);
            out.extend_from_slice(column.json_name());
            before = b",";
        }
    }
    if before == b"," {
        out.push(b']');
    }
}

fn misfit(change: &Change<'_>, what: &str) -> SinkError {
    SinkError::reject(format!("the change at {} of {} {what}", change.position, change.relation))
}

impl TransactionText {
    fn begin(&mut self, id_prefix: &[u8], transaction: &TransactionMeta) {
        self.of = Some(*transaction);
        self.id.clear();
        self.id.extend_from_slice(id_prefix);
        push_hex(&mut self.id, transaction.commit_lsn.0, 16);
        self.id.push(b'-');
        self.lsn.clear();
        self.lsn.extend_from_slice(b",\"lsn\":\"");
        self.lsn.extend_from_slice(transaction.commit_lsn.to_string().as_bytes());
        self.lsn.extend_from_slice(b"\",\"ordinal\":");
        self.commit.clear();
        self.commit.extend_from_slice(b",\"commit_time\":\"");
        let time = CommitTime::from_postgres_micros(transaction.commit_time_us);
        self.commit.extend_from_slice(time.rfc3339().as_bytes());
        self.commit.extend_from_slice(b"\",\"xid\":");
        self.commit.extend_from_slice(itoa::Buffer::new().format(transaction.xid).as_bytes());
    }
}

impl TableText {
    fn new(relation: &Arc<Relation>) -> Self {
        let mut names = b",\"schema\":".to_vec();
        push_string(&mut names, relation.schema.as_bytes());
        names.extend_from_slice(b",\"table\":");
        push_string(&mut names, relation.name.as_bytes());
        let mut description = b",\"relation\":".to_vec();
        // The description has string keys and plain values only, so there is nothing to fail.
        description.extend(serde_json::to_vec(&describe(relation)).unwrap_or_else(|_| b"null".to_vec()));
        let columns = relation.columns.iter().map(|column| {
            let mut label = Vec::new();
            push_string(&mut label, column.name.as_bytes());
            label.push(b':');
            ColumnText { label, form: Form::of(column), is_key: column.is_key }
        });
        Self { relation: Arc::clone(relation), names, description, columns: columns.collect() }
    }
}

fn describe(relation: &Relation) -> Description<'_> {
    Description {
        oid: relation.oid,
        replica_identity: match relation.replica_identity {
            ReplicaIdentity::Default => "default",
            ReplicaIdentity::Nothing => "nothing",
            ReplicaIdentity::Full => "full",
            ReplicaIdentity::Index => "index",
        },
        key_text_is_identity: relation.key_text_is_identity,
        columns: relation.columns.iter().map(describe_column).collect(),
    }
}

fn describe_column(column: &Column) -> ColumnDescription<'_> {
    let (kind, element) = match column.kind {
        ColumnKind::Scalar => ("scalar", None),
        ColumnKind::Enum => ("enum", None),
        ColumnKind::Array { element_oid, element_modifier, element_is_enum } => (
            "array",
            Some(ElementDescription {
                type_oid: element_oid,
                type_modifier: element_modifier,
                is_enum: element_is_enum,
            }),
        ),
        ColumnKind::Other => ("other", None),
    };
    ColumnDescription {
        name: &column.name,
        type_sql: &column.type_sql,
        key: column.is_key,
        not_null: column.not_null,
        attnum: column.attnum,
        type_oid: column.type_oid,
        base_type_oid: column.base_type_oid,
        type_modifier: column.type_modifier,
        kind,
        element,
        missing: column.missing_text.as_deref(),
        default: column.default_sql.as_deref(),
    }
}
