//! What the sink remembers of a table it has made or taken over.
//!
//! ```text
//!   note  schema/{oid}    since · place · source name · from             (one a table, written when it changes)
//!   tag   comment of each column: cluster, table, attribute, type        (one a column, altered with the column)
//! ```
//! Which attribute a column carries stands at the column itself, so that it changes in the very statement that
//! renames, adds or alters it: after a crash between two statements the table tells how far the first got.
//!
//! Source: <https://clickhouse.com/docs/sql-reference/statements/alter/column#comment-column>.

use crate::names::Place;
use replicator_types::{Column, Lsn, Position, Relation};
use serde::{Deserialize, Serialize};

/// How far a table's schema has got: where its newest version begins.
///
/// A transaction may bring several versions; their turns tell them apart.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Mark {
    /// `Relation::since`. Zero for a table that was made before its first change came.
    pub(crate) since: u64,
    /// See [`Relation::turn`].
    #[serde(default)]
    pub(crate) turn: u64,
}

impl Mark {
    /// The mark of a version whose first change is at `position`.
    pub(crate) fn of(relation: &Relation, position: Position) -> Self {
        Self { since: relation.since.0, turn: relation.turn(position) }
    }
}

/// A table as it was left.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) mark: Mark,
    pub(crate) database: String,
    pub(crate) table: String,
    /// `schema.name` at the source.
    pub(crate) source: String,
    /// The table was made as the catalog had it at this LSN, ahead of the stream. A version from before lacks columns
    /// that are newer than it is, rather than dropped.
    #[serde(default)]
    pub(crate) ahead_to: u64,
    /// Position (commit LSN, number) from which on rows are told apart by the present key. Changes before it were
    /// durable when the key changed, and come again only in a replay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    from: Option<(u64, u64)>,
}

impl Record {
    pub(crate) fn new(mark: Mark, place: &Place, relation: &Relation) -> Self {
        Self {
            mark,
            database: place.database.clone(),
            table: place.table.clone(),
            source: relation.qualified_name(),
            ahead_to: 0,
            from: None,
        }
    }

    /// The same, in another place.
    pub(crate) fn at(self, place: &Place) -> Self {
        Self { database: place.database.clone(), table: place.table.clone(), ..self }
    }

    pub(crate) fn place(&self) -> Place {
        Place { database: self.database.clone(), table: self.table.clone() }
    }

    /// Whether the table was seen at its place after that version of another.
    pub(crate) fn is_later_than(&self, other: &Relation) -> bool {
        other.since < Lsn(self.mark.since.max(self.ahead_to))
    }

    pub(crate) fn from(&self) -> Option<Position> {
        self.from.map(|(lsn, ordinal)| Position { commit_lsn: Lsn(lsn), ordinal })
    }

    pub(crate) fn set_from(&mut self, position: Position) {
        self.from = Some((position.commit_lsn.0, position.ordinal));
    }
}

/// What a column carries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Tag {
    pub(crate) oid: u32,
    /// 0 when the source's catalog no longer had the column.
    pub(crate) attnum: i16,
    /// The base type that its values were of.
    pub(crate) type_oid: u32,
}

impl Tag {
    pub(crate) fn of(relation: &Relation, column: &Column) -> Self {
        Self { oid: relation.oid, attnum: column.attnum, type_oid: column.base_type_oid }
    }

    /// The comment of a column of that cluster.
    pub(crate) fn comment(self, system: u64) -> String {
        let of_table = Self::comments_of(self.oid, system);
        format!("{of_table}attribute {}, type {}", self.attnum, self.type_oid)
    }

    /// What the comments of a table's columns begin with.
    pub(crate) fn comments_of(oid: u32, system: u64) -> String {
        format!("PostgreSQL {system}: table {oid}, ")
    }

    /// Reads a comment; `None` for another cluster's and for a person's.
    pub(crate) fn parse(comment: &str, system: u64) -> Option<Self> {
        let rest = comment.strip_prefix("PostgreSQL ")?.strip_prefix(system.to_string().as_str())?;
        let (oid, rest) = rest.strip_prefix(": table ")?.split_once(", attribute ")?;
        let (attnum, type_oid) = rest.split_once(", type ")?;
        Some(Self { oid: oid.parse().ok()?, attnum: attnum.parse().ok()?, type_oid: type_oid.parse().ok()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_comes_back_from_its_comment_and_from_no_other() {
        let tag = Tag { oid: 16_384, attnum: -3, type_oid: 23 };
        let comment = tag.comment(77);
        assert_eq!(Tag::parse(&comment, 77), Some(tag));
        assert_eq!(Tag::parse(&comment, 7), None, "another cluster");
        assert_eq!(Tag::parse("the customer's name", 77), None);
        assert_eq!(Tag::parse("PostgreSQL 77: table x, attribute 1, type 2", 77), None);
    }

    #[test]
    fn versions_of_one_transaction_are_told_apart_by_their_first_changes() {
        let relation = |since| Relation { since: Lsn(since), ..Relation::message() };
        let at = |lsn, ordinal| Position { commit_lsn: Lsn(lsn), ordinal };
        let first = Mark::of(&relation(100), at(100, 0));
        let second = Mark::of(&relation(100), at(100, 4));
        let later = Mark::of(&relation(101), at(160, 0));
        assert!(Mark::default() < first && first < second && second < later);
        let read = serde_json::to_string(&second).unwrap();
        assert_eq!(serde_json::from_str::<Mark>(&read).unwrap(), second);
    }
}
