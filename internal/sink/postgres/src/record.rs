//! What was made of a table of the source: the note `schema/{oid}`.
//!
//! ```text
//!   relation (any version)            record (the newest version met)          target
//!   attnum 3 "city"  ─── attnum ───▶  attnum 3, name "town"  ─── name ───▶     column "town"
//!   attnum 4 "zip"   ─── none: dropped since ─▶ left out
//! ```
//! Attribute numbers outlive names, and a column dropped and added anew has another one; so changes of any version
//! find their columns by what is recorded here. A column whose number is not known (0) goes by name.
//!
//! # Invariants
//! - The record changes in the transaction that changes the table, and [`Record::since`] goes down only where the table
//!   was taken away by hand and is made anew.
//! - Columns of the target that are not recorded are not the source's: they are never renamed, altered or dropped.

use crate::notes::{self, OWN_PREFIX};
use crate::own_tables::StreamKey;
use replicator_sink::SinkError;
use replicator_types::{Column, GeneratedColumn, Lsn, Relation};
use serde::{Deserialize, Serialize};
use tokio_postgres::Client;

/// What was made of a table.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    /// [`Relation::since`] of the version that the table was brought to.
    pub(crate) since: u64,
    /// See [`Relation::turn`].
    #[serde(default)]
    pub(crate) turn: u64,
    /// Where the table is in the target.
    pub(crate) schema: String,
    pub(crate) name: String,
    /// The index over the key, or its constraint, where it was made here.
    pub(crate) key_index: Option<String>,
    pub(crate) columns: Vec<RecordColumn>,
    /// What was made of columns that the source computes and does not send.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) generated: Vec<RecordGenerated>,
}

/// A generated column that was made here.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct RecordGenerated {
    pub(crate) attnum: i16,
    pub(crate) name: String,
    pub(crate) type_sql: String,
    /// The source's.
    pub(crate) expression: String,
    /// What the target made of it.
    pub(crate) made: String,
}

impl RecordGenerated {
    pub(crate) fn of(generated: &GeneratedColumn) -> Self {
        let GeneratedColumn { column, expression, is_virtual: _ } = generated;
        Self {
            attnum: column.attnum,
            name: column.name.clone(),
            type_sql: column.type_sql.clone(),
            expression: expression.clone(),
            made: String::new(),
        }
    }

    /// The record of it as a column that is sent.
    pub(crate) fn into_sent(self) -> RecordColumn {
        RecordColumn {
            attnum: self.attnum,
            name: self.name,
            type_sql: self.type_sql,
            stand_in: None,
            not_null: false,
            default_sql: None,
        }
    }
}

/// What was made of a column. The name is the target's; type, NOT NULL and default are the source's, as far as
/// they were applied.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct RecordColumn {
    pub(crate) attnum: i16,
    pub(crate) name: String,
    pub(crate) type_sql: String,
    /// What the column is in the target instead of that, see `types`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) stand_in: Option<String>,
    pub(crate) not_null: bool,
    pub(crate) default_sql: Option<String>,
}

impl RecordColumn {
    /// The type that was made of the column's in the target.
    pub(crate) fn made_type(&self) -> &str {
        self.stand_in.as_deref().unwrap_or(&self.type_sql)
    }
}

impl Record {
    /// A record of a table found under the relation's names: nothing of it was made here.
    pub(crate) fn found(relation: &Relation) -> Self {
        let column = |column: &Column| RecordColumn {
            attnum: column.attnum,
            name: column.name.clone(),
            type_sql: column.type_sql.clone(),
            stand_in: None,
            not_null: false,
            default_sql: None,
        };
        Self {
            since: relation.since.0,
            turn: 0,
            schema: relation.schema.clone(),
            name: relation.name.clone(),
            key_index: None,
            columns: relation.columns.iter().map(column).collect(),
            generated: Vec::new(),
        }
    }

    /// Whether the table has been brought to this version of it, met at change `turn`, or a later one.
    pub(crate) fn covers(&self, relation: &Relation, turn: u64) -> bool {
        (relation.since, turn) <= (Lsn(self.since), self.turn)
    }

    /// The record of a column of any version; none when it was dropped since.
    pub(crate) fn column(&self, column: &Column) -> Option<&RecordColumn> {
        let by_name = || self.columns.iter().find(|known| known.name == column.name);
        if column.attnum == 0 {
            return by_name();
        }
        let by_number = self.columns.iter().find(|known| known.attnum == column.attnum);
        by_number.or_else(|| by_name().filter(|known| known.attnum == 0))
    }

    /// Where the relation's columns are in the target.
    pub(crate) fn place(&self, relation: &Relation) -> Place {
        let name = |column| self.column(column).map(|known| known.name.clone());
        Place {
            schema: self.schema.clone(),
            name: self.name.clone(),
            columns: relation.columns.iter().map(name).collect(),
        }
    }

    /// The record of the table with this oid.
    pub(crate) async fn load(client: &Client, key: &StreamKey, oid: u32) -> Result<Option<Self>, SinkError> {
        let note = notes::get(client, key, &note_key(oid)).await?;
        note.map(|text| Self::parse(oid, &text)).transpose()
    }

    /// The record of another table that is at that place of the target, with its oid.
    pub(crate) async fn of_another(
        client: &Client,
        key: &StreamKey,
        oid: u32,
        schema: &str,
        name: &str,
    ) -> Result<Option<(u32, Self)>, SinkError> {
        for (note, text) in notes::of_place(client, key, schema, name).await? {
            let Some(other) = note.strip_prefix(OWN_PREFIX).and_then(|oid| oid.parse().ok()) else {
                continue;
            };
            if other == oid {
                continue;
            }
            let record = Self::parse(other, &text)?;
            if record.schema == schema && record.name == name {
                return Ok(Some((other, record)));
            }
        }
        Ok(None)
    }

    /// Keeps it, in the open transaction.
    pub(crate) async fn save(&self, client: &Client, key: &StreamKey, oid: u32) -> Result<(), SinkError> {
        let text = serde_json::to_string(self)
            .map_err(|error| SinkError::halt(format!("cannot write down table {}: {error}", self.name)))?;
        notes::put(client, key, &note_key(oid), Some(&text)).await
    }

    pub(crate) fn parse(oid: u32, text: &str) -> Result<Self, SinkError> {
        serde_json::from_str(text).map_err(|error| {
            SinkError::halt(format!(
                "the note {} in replicator.notes of the target cannot be read: {error}; delete it, and the table's columns \
                 are found by their names",
                note_key(oid)
            ))
        })
    }
}

fn note_key(oid: u32) -> String {
    format!("{OWN_PREFIX}{oid}")
}

/// Where the columns of a relation version are in the target.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Place {
    pub(crate) schema: String,
    pub(crate) name: String,
    /// For each column of the relation its name in the target, unquoted; none when it is not there any more.
    pub(crate) columns: Vec<Option<String>>,
}

impl Place {
    /// Under the relation's own names.
    pub(crate) fn by_name(relation: &Relation) -> Self {
        Self {
            schema: relation.schema.clone(),
            name: relation.name.clone(),
            columns: relation.columns.iter().map(|column| Some(column.name.clone())).collect(),
        }
    }

    /// `"schema"."table"`.
    pub(crate) fn quoted(&self) -> String {
        crate::sql::table(&self.schema, &self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use replicator_types::ReplicaIdentity;

    fn relation(since: u64, columns: &[(i16, &str)]) -> Relation {
        Relation {
            oid: 1,
            version: 0,
            since: Lsn(since),
            schema: "public".into(),
            name: "t".into(),
            replica_identity: ReplicaIdentity::Default,
            columns: columns
                .iter()
                .map(|&(attnum, name)| Column { attnum, name: name.into(), ..Column::default() })
                .collect(),
            key: Vec::new(),
            key_text_is_identity: true,
            is_guess: false,
        }
    }

    #[test]
    fn columns_are_found_by_number_whatever_they_were_called() {
        let record = Record::found(&relation(10, &[(1, "id"), (2, "b"), (3, "a"), (5, "d")]));
        // Two names swapped, one column dropped and added anew.
        let old = relation(9, &[(1, "id"), (2, "a"), (3, "b"), (4, "d")]);
        let names: Vec<_> = record.place(&old).columns;
        assert_eq!(names, [Some("id".into()), Some("b".into()), Some("a".into()), None]);
        assert!(record.covers(&old, 7) && record.covers(&relation(10, &[]), 0));
        assert!(!record.covers(&relation(10, &[]), 1), "a later version of the same transaction");
        assert!(!record.covers(&relation(11, &[]), 0));
    }

    #[test]
    fn a_column_whose_number_is_not_known_goes_by_name() {
        let record = Record::found(&relation(10, &[(1, "id"), (0, "a")]));
        let names = record.place(&relation(9, &[(0, "id"), (7, "a"), (8, "b")])).columns;
        assert_eq!(names, [Some("id".into()), Some("a".into()), None]);
    }

    #[test]
    fn a_record_survives_being_written_down() {
        let record = Record::found(&relation(u64::MAX, &[(1, "i\"d"), (2, "Größe")]));
        let text = serde_json::to_string(&record).unwrap();
        assert_eq!(Record::parse(1, &text).unwrap(), record);
        assert!(Record::parse(77, "{").unwrap_err().to_string().contains("schema/77"));
    }
}
