use replicator_types::Relation;
use std::sync::Arc;

/// A table of the target, as the changes of one relation version are written to it.
#[derive(Debug)]
pub(crate) struct Target {
    /// Tells this target from every other of the lane: in names of statements and staging tables.
    pub(crate) id: u32,
    /// What the changes say.
    pub(crate) relation: Arc<Relation>,
    /// `"schema"."table"`.
    pub(crate) table: String,
    /// The columns written, in the relation's order. Those the target generates are left out, and those that
    /// were dropped since.
    pub(crate) columns: Vec<TargetColumn>,
    /// For each column of the relation, whether it is among `columns`.
    pub(crate) is_written: Vec<bool>,
    /// The key's columns; empty for a table without a key.
    pub(crate) key: Vec<KeyColumn>,
    /// Why no row can be found by the key, where that is so: a version older than the table's present key.
    pub(crate) key_is_missing: Option<String>,
    /// Whether it has columns of its own, which the source's rows say nothing of.
    pub(crate) has_other_columns: bool,
    /// Whether it is partitioned: its rows lie in other tables.
    pub(crate) is_partitioned: bool,
}

/// A column that is written.
#[derive(Debug)]
pub(crate) struct TargetColumn {
    /// Quoted.
    pub(crate) name: String,
    /// For a domain the type under it, which takes NULL whatever the domain says.
    pub(crate) domain_base: Option<String>,
    /// Whether it can be set by UPDATE; GENERATED ALWAYS AS IDENTITY forbids it.
    pub(crate) can_be_set: bool,
    /// Whether two values are equal exactly when their texts are, so that `=` may stand for comparing texts.
    pub(crate) equality_is_by_text: bool,
    /// Whether it is part of the key.
    pub(crate) is_key: bool,
    /// Whether it is an enum, or an array of one.
    pub(crate) is_enum: bool,
    /// Whether the source's values are in this column's binary form, see [`crate::passage`].
    pub(crate) passage: crate::passage::Passage,
}

/// A column by which rows are found.
#[derive(Debug)]
pub(crate) struct KeyColumn {
    /// Index into [`Target::columns`].
    pub(crate) column: usize,
    /// The equality of the index over the key, `OPERATOR("schema".=)`: an extension's type has its own, and
    /// without it `citext` would be compared as `text`, past the index.
    pub(crate) equals: String,
    /// `::base` where the column is of a domain: an equality of any enum, array or range has none of its domains.
    /// The index serves all the same.
    pub(crate) cast: String,
}

impl Target {
    /// Whether a value may come that is no label of an enum of the target yet.
    pub(crate) fn has_enums(&self) -> bool {
        self.columns.iter().any(|column| column.is_enum)
    }
}
