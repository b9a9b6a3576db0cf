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
const OPERATIONS: &str = "Enum8('insert' = 1, 'update' = 2, 'delete' = 3, 'truncate' = 4)";

/// A history row's operation: the values of [`OPERATIONS`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Operation {
    Insert = 1,
    Update = 2,
    Delete = 3,
    Truncate = 4,
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

    pub(crate) fn create_table(&self, place: &Place, relation: &Relation) -> String {
        let mut columns: Vec<String> = relation
            .columns
            .iter()
            .map(|column| format!("{} {}", identifier(&column.name), self.column_type(column)))
            .chain(self.own_columns().map(|(name, type_name)| format!("{} {type_name}", identifier(name))))
            .collect();
        if !self.is_mirror() {
            // Replays look versions up, and the table is sorted by something else.
            columns.push(format!("INDEX `_version_range` {} TYPE minmax GRANULARITY 1", identifier(VERSION)));
        }
        let mut settings = Vec::new();
        if self.cluster.is_empty() {
            settings.push(format!("non_replicated_deduplication_window = {DEDUPLICATION_WINDOW}"));
        }
        if self.fsync {
            settings.push("fsync_after_insert = 1, fsync_part_directory = 1".to_owned());
        }
        let settings =
            if settings.is_empty() { String::new() } else { format!(" SETTINGS {}", settings.join(", ")) };
        format!(
            "CREATE TABLE IF NOT EXISTS {}{} ({}) ENGINE = {} ORDER BY ({}){settings} COMMENT {}",
            place.sql(),
            self.on_cluster(),
            columns.join(", "),
            self.engine(),
            identifiers(self.sorting_key(relation)),
            literal(&format!("{} of PostgreSQL", relation.qualified_name())),
        )
    }

    fn engine(&self) -> String {
        let arguments = match (self.mode, self.deletes) {
            (ClickHouseMode::Mirror, DeleteMode::Hard) => "`_version`, `_deleted`",
            (ClickHouseMode::Mirror, DeleteMode::Soft) => "`_version`",
            (ClickHouseMode::History, _) => "",
        };
        let family = if self.is_mirror() { "ReplacingMergeTree" } else { "MergeTree" };
        if self.cluster.is_empty() {
            return format!("{family}({arguments})");
        }
        let comma = if arguments.is_empty() { "" } else { ", " };
        format!(
            "Replicated{family}('/clickhouse/tables/{{uuid}}/{{shard}}', '{{replica}}'{comma}{arguments})"
        )
    }

    /// Adds columns. They are Nullable also where the source forbids NULL: for the rows that are there already
    /// no value is known.
    pub(crate) fn add_columns(&self, place: &Place, columns: &[&Column]) -> String {
        let added: Vec<String> = columns
            .iter()
            .map(|column| {
                let of = wanted(column, true, self.arrays);
                format!("ADD COLUMN IF NOT EXISTS {} {of}", identifier(&column.name))
            })
            .collect();
        format!("ALTER TABLE {}{} {}", place.sql(), self.on_cluster(), added.join(", "))
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
