//! What the sink's tables look like: statements that make them, and what an existing one must have.
//!
//! ```text
//!   mirror   key… · values… · _version · _deleted · _commit_time   ReplacingMergeTree(_version, _deleted)
//!                                                                  ORDER BY key, or _version without a key
//!   soft     the same, ReplacingMergeTree(_version): FINAL shows deleted rows, marked
//!   history  key… · values… · _version · _op · _commit_time        MergeTree ORDER BY (key…, _version)
//!   view     {table}_current: the values of a mirror's current rows
//! ```

use crate::names::{Place, identifier, identifiers, literal};
use crate::native::{COMMIT_TIME, VERSION};
use crate::types::{Type, wanted};
use replicator_config::{ArrayColumns, ClickHouseConfig, ClickHouseMode, DeleteMode};
use replicator_types::{Column, Relation};

/// How many tokens of past inserts a table remembers. A token is needed from a lost reply to the retry, and
/// from a crash to the replay of the batches that were in flight: a handful a shard.
const DEDUPLICATION_WINDOW: u32 = 1000;

/// Type of the operation column of a history.
const OPERATIONS: &str = "Enum8('insert' = 1, 'update' = 2, 'delete' = 3, 'truncate' = 4, 'read' = 5)";
/// What it was before rows were copied, in tables that were made then.
const OPERATIONS_WITHOUT_READ: &str = "Enum8('insert' = 1, 'update' = 2, 'delete' = 3, 'truncate' = 4)";

/// A history row's operation: the values of [`OPERATIONS`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Operation {
    Insert = 1,
    Update = 2,
    Delete = 3,
    Truncate = 4,
    /// A row as a copy found it.
    Read = 5,
}

/// The settings that decide what tables look like.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    pub(crate) mode: ClickHouseMode,
    pub(crate) deletes: DeleteMode,
    pub(crate) arrays: ArrayColumns,
    pub(crate) views: bool,
    cluster: String,
    fsync: bool,
}

/// A column of a new table, or one that is added.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct NewColumn {
    pub(crate) name: String,
    pub(crate) of: Type,
    /// An expression that rows without a value get.
    pub(crate) default: Option<String>,
    pub(crate) comment: Option<String>,
}

impl NewColumn {
    /// As in `CREATE TABLE` and `ADD COLUMN`.
    pub(crate) fn sql(&self) -> String {
        let default = self.default.as_ref().map_or_else(String::new, |text| format!(" DEFAULT {text}"));
        let comment =
            self.comment.as_ref().map_or_else(String::new, |text| format!(" COMMENT {}", literal(text)));
        format!("{} {}{default}{comment}", identifier(&self.name), self.of)
    }
}

impl Layout {
    pub(crate) fn of(config: &ClickHouseConfig) -> Self {
        Self {
            mode: config.mode,
            deletes: config.deletes,
            arrays: config.arrays,
            views: config.views && config.mode == ClickHouseMode::Mirror,
            cluster: config.cluster.clone(),
            fsync: config.fsync,
        }
    }

    pub(crate) fn is_mirror(&self) -> bool {
        self.mode == ClickHouseMode::Mirror
    }

    /// Name and type of the one-byte column.
    pub(crate) fn mark_column(&self) -> (&'static str, &'static str) {
        match self.mode {
            ClickHouseMode::Mirror => ("_deleted", "UInt8"),
            ClickHouseMode::History => ("_op", OPERATIONS),
        }
    }

    /// The mark column of a table whose own is of that type.
    pub(crate) fn mark_column_of(&self, existing: &Type) -> (&'static str, &'static str) {
        let (name, of) = self.mark_column();
        match self.mode {
            ClickHouseMode::History if !existing.to_string().contains("'read'") => {
                (name, OPERATIONS_WITHOUT_READ)
            }
            _ => (name, of),
        }
    }

    /// The replicator's own columns, with their types.
    pub(crate) fn own_columns(&self) -> [(&'static str, &'static str); 3] {
        [(VERSION, "UInt128"), self.mark_column(), (COMMIT_TIME, "DateTime64(6, 'UTC')")]
    }

    /// The type that `column` gets in a new table.
    pub(crate) fn column_type(&self, column: &Column) -> Type {
        let nullable = !column.is_key && (self.mode == ClickHouseMode::History || !column.not_null);
        wanted(column, nullable, self.arrays)
    }

    /// The columns a table is to be sorted by.
    pub(crate) fn sorting_key<'r>(&self, relation: &'r Relation) -> Vec<&'r str> {
        let key = relation.columns.iter().filter(|column| column.is_key).map(|column| column.name.as_str());
        match self.mode {
            ClickHouseMode::Mirror if relation.has_key() => key.collect(),
            _ => key.chain([VERSION]).collect(),
        }
    }

    pub(crate) fn create_database(&self, database: &str) -> String {
        format!("CREATE DATABASE IF NOT EXISTS {}{}", identifier(database), self.on_cluster())
    }

    /// `columns` are the source's; `others` are definitions of columns that somebody else has added.
    pub(crate) fn create_table(
        &self,
        place: &Place,
        relation: &Relation,
        columns: &[NewColumn],
        others: &[String],
    ) -> String {
        let mut definitions: Vec<String> = columns
            .iter()
            .map(NewColumn::sql)
            .chain(self.own_columns().map(|(name, type_name)| format!("{} {type_name}", identifier(name))))
            .chain(others.iter().cloned())
            .collect();
        if !self.is_mirror() {
            // Replays look versions up, and the table is sorted by something else.
            definitions
                .push(format!("INDEX `_version_range` {} TYPE minmax GRANULARITY 1", identifier(VERSION)));
        }
        let arguments = match (self.mode, self.deletes) {
            (ClickHouseMode::Mirror, DeleteMode::Hard) => "`_version`, `_deleted`",
            (ClickHouseMode::Mirror, DeleteMode::Soft) => "`_version`",
            (ClickHouseMode::History, _) => "",
        };
        let family = if self.is_mirror() { "ReplacingMergeTree" } else { "MergeTree" };
        format!(
            "CREATE TABLE IF NOT EXISTS {}{} ({}) ENGINE = {} ORDER BY ({}){} COMMENT {}",
            place.sql(),
            self.on_cluster(),
            definitions.join(", "),
            self.engine(family, arguments),
            identifiers(self.sorting_key(relation)),
            self.settings(),
            literal(&format!("{} of PostgreSQL", relation.qualified_name())),
        )
    }

    /// The table of notes: see `notes.rs`.
    pub(crate) fn create_notes(&self, place: &Place) -> String {
        format!(
            "CREATE TABLE IF NOT EXISTS {}{} (key String, value String, sequence UInt64, removed UInt8) ENGINE = {} \
             ORDER BY key{} COMMENT 'How far replicator has got, and what it has made'",
            place.sql(),
            self.on_cluster(),
            self.engine("ReplacingMergeTree", "sequence"),
            self.settings(),
        )
    }

    fn settings(&self) -> String {
        let mut settings = Vec::new();
        if self.cluster.is_empty() {
            settings.push(format!("non_replicated_deduplication_window = {DEDUPLICATION_WINDOW}"));
        }
        if self.fsync {
            settings.push("fsync_after_insert = 1, fsync_part_directory = 1".to_owned());
        }
        if settings.is_empty() { String::new() } else { format!(" SETTINGS {}", settings.join(", ")) }
    }

    fn engine(&self, family: &str, arguments: &str) -> String {
        if self.cluster.is_empty() {
            return format!("{family}({arguments})");
        }
        let comma = if arguments.is_empty() { "" } else { ", " };
        format!(
            "Replicated{family}('/clickhouse/tables/{{uuid}}/{{shard}}', '{{replica}}'{comma}{arguments})"
        )
    }

    /// `ALTER TABLE` with those commands.
    pub(crate) fn alter(&self, place: &Place, commands: &[String]) -> String {
        format!("ALTER TABLE {}{} {}", place.sql(), self.on_cluster(), commands.join(", "))
    }

    pub(crate) fn truncate(&self, place: &Place) -> String {
        format!("TRUNCATE TABLE {}{}", place.sql(), self.on_cluster())
    }

    pub(crate) fn drop_table(&self, place: &Place) -> String {
        format!("DROP TABLE IF EXISTS {}{} SYNC", place.sql(), self.on_cluster())
    }

    pub(crate) fn drop_view(&self, place: &Place) -> String {
        format!("DROP VIEW IF EXISTS {}{}", place.view().sql(), self.on_cluster())
    }

    pub(crate) fn exchange(&self, one: &Place, other: &Place) -> String {
        format!("EXCHANGE TABLES {} AND {}{}", one.sql(), other.sql(), self.on_cluster())
    }

    pub(crate) fn rename(&self, from: &Place, to: &Place) -> String {
        format!("RENAME TABLE {} TO {}{}", from.sql(), to.sql(), self.on_cluster())
    }

    pub(crate) fn make_nullable(&self, place: &Place, column: &str, existing: &Type) -> String {
        format!(
            "ALTER TABLE {}{} MODIFY COLUMN {} {}",
            place.sql(),
            self.on_cluster(),
            identifier(column),
            existing.with_nullable()
        )
    }

    pub(crate) fn remember_tokens(&self, place: &Place) -> String {
        format!(
            "ALTER TABLE {}{} MODIFY SETTING non_replicated_deduplication_window = {DEDUPLICATION_WINDOW}",
            place.sql(),
            self.on_cluster()
        )
    }

    pub(crate) fn create_view<'c>(
        &self,
        place: &Place,
        columns: impl IntoIterator<Item = &'c str>,
        replace: bool,
    ) -> String {
        let verb = if replace { "CREATE OR REPLACE VIEW" } else { "CREATE VIEW IF NOT EXISTS" };
        format!(
            "{verb} {}{} AS SELECT {} FROM {} FINAL WHERE `_deleted` = 0",
            place.view().sql(),
            self.on_cluster(),
            identifiers(columns),
            place.sql()
        )
    }

    fn on_cluster(&self) -> String {
        if self.cluster.is_empty() {
            String::new()
        } else {
            format!(" ON CLUSTER {}", identifier(&self.cluster))
        }
    }
}
