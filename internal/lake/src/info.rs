//! What a file of the lake says of itself: JSON under [`KEY`] in its footer.

use crate::bookmark;
use replicator_types::{Column, ColumnKind, Lsn, Position, Relation, ReplicaIdentity, SlotIdentity};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The name of the entry in a Parquet file's key-value metadata.
pub(crate) const KEY: &str = "replicator";

/// The version of all this. A reader refuses a greater one.
pub(crate) const FORMAT_VERSION: u32 = 1;

/// What sort of file.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FileKind {
    /// Changes.
    Delta,
    /// A table's rows.
    Data,
}

/// Whose positions the bookmarks are.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Identity {
    /// `systemid` of `IDENTIFY_SYSTEM`, in 16 hexadecimal digits.
    pub system_identifier: String,
    /// The slot.
    pub slot: String,
}

impl Identity {
    /// Of a stream.
    pub fn of(identity: &SlotIdentity) -> Self {
        Self {
            system_identifier: format!("{:016x}", identity.system_identifier),
            slot: identity.slot.clone(),
        }
    }
}

/// What a file holds.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct FileInfo {
    /// The version of the format that the file is in.
    pub format_version: u32,
    /// What sort of file.
    pub kind: FileKind,
    /// Whose positions.
    pub identity: Identity,
    /// The table, at the version of the file's rows.
    pub table: TableInfo,
    /// Rows.
    pub events: u64,
    /// The least commit time among them, microseconds since 1970; 0 without rows.
    pub min_ts_us: i64,
    /// The greatest.
    pub max_ts_us: i64,
    /// The least bookmark among them; empty without rows.
    pub min_bookmark: String,
    /// The greatest.
    pub max_bookmark: String,
    /// Rows by `op`. Of a delta.
    #[serde(default)]
    pub types: BTreeMap<String, u64>,
    /// Bookmark of the last truncate among them. Of a delta.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub truncated_at: Option<String>,
    /// Rows that an update moved to another key without sending all of their values. Of a delta.
    #[serde(default)]
    pub moved_incomplete: u64,
    /// Up to where the stream's changes are in it. Of a table's rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub folded_through: Option<String>,
    /// Up to where copied rows are in it. Of a table's rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copied_through: Option<String>,
    /// The greatest commit time among the changes that are in it, microseconds since 1970. Of a table's rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub folded_ts_us: Option<i64>,
    /// Up to where changes were removed, or may have been, when they were folded. Of a table's rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub removed_through: Option<String>,
}

impl FileInfo {
    /// Whether all that it holds is older than `truncated_at`.
    pub(crate) fn is_before(&self, truncated_at: Option<&str>) -> bool {
        truncated_at.is_some_and(|at| self.max_bookmark.as_str() < at)
    }

    /// The position of the last change.
    pub fn last(&self) -> Option<Position> {
        bookmark::parse(&self.max_bookmark)
    }
}

/// A table at one version.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TableInfo {
    /// `pg_class.oid` at the source.
    pub oid: u32,
    /// From where on it looks like this, `X/X`.
    pub since: String,
    /// Schema, unquoted.
    pub schema: String,
    /// Name, unquoted.
    pub name: String,
    /// `default`, `nothing`, `full` or `index`.
    pub replica_identity: String,
    /// In the order of the source.
    pub columns: Vec<ColumnInfo>,
}

/// A column of a table.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ColumnInfo {
    /// Name at the source, unquoted.
    pub name: String,
    /// Name in the file.
    pub field: String,
    /// `pg_attribute.attnum`; the `field_id` of the file's column.
    pub attnum: i16,
    /// The type as SQL.
    #[serde(rename = "type")]
    pub type_sql: String,
    /// Type, domains resolved.
    pub base_type_oid: u32,
    /// Its modifier.
    pub type_modifier: i32,
    /// `scalar`, `enum`, `array` or `other`.
    pub kind: String,
    /// Of an array: the elements' type, modifier, and whether it is an enum.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub element: Option<(u32, i32, bool)>,
    /// Whether it is part of the key.
    pub key: bool,
    /// Whether the source forbids NULL.
    pub not_null: bool,
    /// The value, as text, of rows that are older than the column.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missing: Option<String>,
}

impl TableInfo {
    /// Of `relation`, whose columns are called `fields` in the file.
    pub fn of(relation: &Relation, fields: &[String]) -> Self {
        let columns = relation.columns.iter().zip(fields);
        Self {
            oid: relation.oid,
            since: relation.since.to_string(),
            schema: relation.schema.clone(),
            name: relation.name.clone(),
            replica_identity: match relation.replica_identity {
                ReplicaIdentity::Default => "default",
                ReplicaIdentity::Nothing => "nothing",
                ReplicaIdentity::Full => "full",
                ReplicaIdentity::Index => "index",
            }
            .to_owned(),
            columns: columns.map(|(column, field)| ColumnInfo::of(column, field)).collect(),
        }
    }

    /// From where on the table looks like this.
    pub fn since(&self) -> Lsn {
        self.since.parse().unwrap_or_default()
    }

    /// Whether rows can be told apart by a key.
    pub fn has_key(&self) -> bool {
        self.columns.iter().any(|column| column.key)
    }
}

impl ColumnInfo {
    fn of(column: &Column, field: &str) -> Self {
        let (kind, element) = match column.kind {
            ColumnKind::Scalar => ("scalar", None),
            ColumnKind::Enum => ("enum", None),
            ColumnKind::Array { element_oid, element_modifier, element_is_enum } => {
                ("array", Some((element_oid, element_modifier, element_is_enum)))
            }
            ColumnKind::Other => ("other", None),
        };
        Self {
            name: column.name.clone(),
            field: field.to_owned(),
            attnum: column.attnum,
            type_sql: column.type_sql.clone(),
            base_type_oid: column.base_type_oid,
            type_modifier: column.type_modifier,
            kind: kind.to_owned(),
            element,
            key: column.is_key,
            not_null: column.not_null,
            missing: column.missing_text.clone(),
        }
    }

    /// The column that it describes.
    pub fn column(&self) -> Column {
        Column {
            name: self.name.clone(),
            attnum: self.attnum,
            type_oid: self.base_type_oid,
            base_type_oid: self.base_type_oid,
            type_modifier: self.type_modifier,
            kind: match (self.kind.as_str(), self.element) {
                ("enum", _) => ColumnKind::Enum,
                ("array", Some((element_oid, element_modifier, element_is_enum))) => {
                    ColumnKind::Array { element_oid, element_modifier, element_is_enum }
                }
                ("scalar", _) => ColumnKind::Scalar,
                _ => ColumnKind::Other,
            },
            type_sql: self.type_sql.clone(),
            not_null: self.not_null,
            is_key: self.key,
            missing_text: self.missing.clone(),
            ..Column::default()
        }
    }
}
