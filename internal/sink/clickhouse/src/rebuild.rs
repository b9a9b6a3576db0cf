//! A table made anew, where ClickHouse alters nothing: what it is sorted by, and conversions that take an
//! expression.
//!
//! ```text
//!   table ──INSERT SELECT (FINAL)──▶ table_replicator_rebuilt ──EXCHANGE──▶ both ──DROP──▶ table
//! ```
//!
//! # Invariants
//! - Nothing is written to the table meanwhile: the lanes stand still before a fenced batch, and what a request that
//!   was given up still does on the server is waited for.
//! - Until the exchange the old table is the table; from then on the new one is, whole. A crash before it leaves a
//!   table to be dropped and made once more, one after it a table to be dropped.
//! - Where rows are told apart by another key afterwards, the record says so before the exchange: changes from before
//!   the fence come again only in a replay, and are left out.

use crate::convert::converted;
use crate::evolve::{Plan, new_column, retired_name};
use crate::found::{Existing, ExistingColumn};
use crate::layout::NewColumn;
use crate::names::{Place, identifier, identifiers, literal};
use crate::tables::Tables;
use replicator_sink::SinkError;
use replicator_types::Relation;
use slog::info;

/// A column that stays as it is, and its name from now on.
struct Other<'e> {
    column: &'e ExistingColumn,
    name: String,
}

impl Tables {
    /// Makes the table anew as `plan` says, under the fence.
    pub(crate) async fn rebuild(
        &self,
        place: &Place,
        relation: &Relation,
        existing: &Existing,
        plan: &Plan,
    ) -> Result<(), SinkError> {
        let new = place.rebuilt();
        let what = format!("making {} anew", place.sql());
        info!(self.logger, "making a table anew, since what it is sorted by changes or its values have to be converted";
            "table" => place.sql(), "source" => relation.qualified_name());
        self.client.wait_for_own_queries().await?;
        self.client.execute(&self.layout.drop_table(&new), &what).await?;
        let rows: Vec<(u8,)> =
            self.client.rows(&format!("SELECT 1 FROM {} LIMIT 1", place.sql()), &what).await?;
        let is_empty = rows.is_empty();
        let unknown = relation.columns.iter().zip(&plan.fates).find(|(column, fate)| {
            column.is_key && fate.from.is_none() && column.missing_text.is_none() && self.layout.is_mirror()
        });
        if let Some((column, _)) = unknown.filter(|_| !is_empty) {
            return Err(SinkError::halt(format!(
                "{}: rows of {relation} are told apart by its new column {} now, and the rows that are there have no \
                 value for it: copy the table again (replicator resync --table {relation})",
                place.sql(),
                column.name
            )));
        }
        let columns = self.new_columns(relation, existing, plan);
        let others = self.others(relation, existing, plan);
        let definitions: Vec<String> = others.iter().map(|other| self.definition(other)).collect();
        let create = self.layout.create_table(&new, relation, &columns, &definitions);
        self.client.execute(&create, &what).await?;
        if !is_empty {
            let copy = self.copy(place, relation, existing, plan, &others);
            self.client.execute_long(relation.oid, &copy, &what).await?;
        }
        self.client.execute(&self.layout.exchange(place, &new), &what).await?;
        self.client.execute(&self.layout.drop_table(&new), &what).await
    }

    fn new_columns(&self, relation: &Relation, existing: &Existing, plan: &Plan) -> Vec<NewColumn> {
        let fates = relation.columns.iter().zip(&plan.fates);
        fates
            .map(|(column, fate)| {
                let mut new = new_column(relation, column, &fate.of, self.rules, self.system());
                let there = fate.from.and_then(|from| existing.columns.get(from));
                if let Some(there) = there.filter(|there| new.default.is_none() && there.of == fate.of)
                    && there.default_kind == "DEFAULT"
                {
                    new.default = Some(there.default.clone());
                }
                new
            })
            .collect()
    }

    /// Columns that are none of the version's and stay: somebody else's, and in a history those that were dropped,
    /// under another name where theirs is taken.
    fn others<'e>(&self, relation: &Relation, existing: &'e Existing, plan: &Plan) -> Vec<Other<'e>> {
        let own = self.layout.own_columns();
        let mut others = Vec::new();
        for (index, column) in existing.columns.iter().enumerate() {
            let is_retired = plan.retired.contains(&index);
            let is_own = own.iter().any(|(own, _)| *own == column.name);
            let is_carried = plan.fates.iter().any(|fate| fate.from == Some(index));
            if is_own || is_carried || is_retired && self.layout.is_mirror() {
                continue;
            }
            let is_taken = relation.columns.iter().any(|taken| taken.name == column.name);
            let name = match column.tag {
                Some(tag) if is_taken => retired_name(&column.name, tag),
                _ => column.name.clone(),
            };
            others.push(Other { column, name });
        }
        others
    }

    /// As in `CREATE TABLE`.
    fn definition(&self, other: &Other<'_>) -> String {
        let Other { column, name } = other;
        let default = match column.default_kind.as_str() {
            "" => String::new(),
            kind => format!(" {kind} {}", column.default),
        };
        let comment = match (column.tag, self.system()) {
            (Some(tag), Some(system)) => format!(" COMMENT {}", literal(&tag.comment(system))),
            _ => String::new(),
        };
        format!("{} {}{default}{comment}", identifier(name), column.of)
    }

    fn copy(
        &self,
        place: &Place,
        relation: &Relation,
        existing: &Existing,
        plan: &Plan,
        others: &[Other<'_>],
    ) -> String {
        let mut names = Vec::new();
        let mut values = Vec::new();
        for (column, fate) in relation.columns.iter().zip(&plan.fates) {
            let Some(there) = fate.from.and_then(|from| existing.columns.get(from)) else { continue };
            let type_oid = there.tag.map_or(column.base_type_oid, |tag| tag.type_oid);
            names.push(column.name.as_str());
            values.push(converted(&identifier(&there.name), &there.of, &fate.of, type_oid));
        }
        let own = self.layout.own_columns();
        for other in
            others.iter().filter(|other| matches!(other.column.default_kind.as_str(), "" | "DEFAULT"))
        {
            names.push(other.name.as_str());
            values.push(identifier(&other.column.name));
        }
        for (name, _) in &own {
            names.push(name);
            values.push(identifier(name));
        }
        // The mark of a deleted row may stand under a key that was never its own.
        let rows = match (self.layout.is_mirror(), plan.key_changes) {
            (true, true) => " FINAL WHERE `_deleted` = 0",
            (true, false) => " FINAL",
            (false, _) => "",
        };
        format!(
            "INSERT INTO {} ({}) SELECT {} FROM {}{rows}",
            place.rebuilt().sql(),
            identifiers(names),
            values.join(", "),
            place.sql()
        )
    }
}
