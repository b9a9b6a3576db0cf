use crate::{Column, ColumnKind, Lsn, Relation, ReplicaIdentity, oid};

/// What the source's catalog says of a table, at the moment it was asked. A `Relation` message has the
/// truth for its place in the stream but lacks half of this; the two are joined by column name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableCatalog {
    /// `pg_class.oid`.
    pub oid: u32,
    /// Schema name.
    pub schema: String,
    /// Table name.
    pub name: String,
    /// `pg_class.relreplident`.
    pub replica_identity: ReplicaIdentity,
    /// Columns, dropped ones left out, `is_key` false throughout.
    pub columns: Vec<Column>,
    /// Columns of the primary key, in attribute order.
    pub primary_key: Vec<String>,
    /// Columns of the replica identity index, where one is chosen.
    pub identity_index: Vec<String>,
    /// A position such that every change of the table's columns that committed before it is in here: changes that
    /// commit behind it find the table like this, or newer. Zero when there was none to be had.
    pub read_at: Lsn,
    /// Attribute numbers of columns that were dropped.
    pub dropped: Vec<i16>,
    /// Columns whose collation calls different texts equal (`collisdeterministic = false`).
    pub nondeterministic: Vec<String>,
    /// Where its rows lie, and which transactions wrote its attributes.
    pub storage: Storage,
    /// Columns that the source computes and does not send.
    pub generated: Vec<GeneratedColumn>,
    /// Attribute numbers of generated columns among those of [`TableCatalog::key`]. What comes without them has no key.
    pub generated_key: Vec<i16>,
}

/// A generated column that is not sent: what is in it follows from the other columns of its row.
///
/// Source: <https://www.postgresql.org/docs/current/ddl-generated-columns.html>.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GeneratedColumn {
    /// As if it were sent.
    pub column: Column,
    /// The expression as SQL; what is not of `pg_catalog` has its schema's name. Empty while it is not known, since
    /// somebody has the table locked.
    pub expression: String,
    /// Whether it is computed when it is read (`VIRTUAL`), rather than when the row is written.
    pub is_virtual: bool,
}

impl GeneratedColumn {
    /// See [`GeneratedColumn::expression`].
    pub fn is_known(&self) -> bool {
        !self.expression.is_empty()
    }
}

/// What tells that rows were changed, or came and went, without a change in the stream: `ALTER TABLE` that computes
/// values anew, partitions that are attached, detached, dropped or emptied below a root that is published as one
/// table. Empty when it was not asked for.
///
/// Source: `pg_class.relfilenode`, `pg_attribute.xmin`, `pg_inherits` of
/// <https://www.postgresql.org/docs/current/catalogs.html>.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Storage {
    /// Whether its rows lie in partitions, and their changes come as its own.
    pub is_partitioned: bool,
    /// The tables with rows: itself, or its leaf partitions; by oid.
    pub leaves: Vec<Leaf>,
    /// Of each attribute, dropped ones included, the transaction that wrote its row of `pg_attribute` last. That is a
    /// subtransaction's id where one did it; the low 32 bits, which wrap around.
    pub attributes: Vec<(i16, u32)>,
    /// Attribute numbers of which no values are sent: of columns that were dropped, or are computed. One that leaves has
    /// values in rows of which no change tells.
    pub unsent: Vec<i16>,
    /// Types of users under its columns, by `pg_type.oid`, with numbers that stand for how their values are written: of an
    /// enum one for each label, in the order in which they came; of a composite one for its attributes.
    pub types: Vec<(u32, Vec<i32>)>,
    /// By what it is published, as `pg_publication_rel.oid` and `pg_publication_namespace.oid`; empty under
    /// `FOR ALL TABLES`. None where that is not known.
    pub memberships: Option<Vec<u32>>,
}

/// A table with rows of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// `pg_class.oid`.
    pub oid: u32,
    /// `pg_class.relfilenode`: another one after every rewrite and every TRUNCATE.
    pub file_node: u32,
    /// The transactions that made it and the tables between a part of the root, added up; 0 for the table itself.
    pub joined_by: u64,
    /// Whether it had no rows when it became a part: made as one, or without rows still.
    pub came_empty: bool,
}

/// What has become of a table's rows between two looks at its [`Storage`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StorageChange {
    /// Nothing, or nothing that the stream does not tell.
    None,
    /// `ALTER TABLE` has written them anew, perhaps with other values; or `ALTER TYPE` has changed how values are written.
    Rewritten,
    /// Some came or went with a partition, or a partition was written anew; or the table was out of the publication, or is
    /// published by another filter or list of columns.
    CameOrWent,
}

impl Storage {
    /// What has happened since `before`.
    ///
    /// Another file alone is none of `ALTER TABLE`'s doing: `VACUUM FULL`, `CLUSTER` and `TRUNCATE` write no
    /// attribute, while every form of `ALTER TABLE` that computes values does, in the transaction that changes the
    /// file. Of a partition another file may mean `TRUNCATE`, which the stream does not tell below a root, and nothing
    /// in the catalog tells it from `VACUUM FULL` for good.
    pub fn change_since(&self, before: &Self) -> StorageChange {
        if before.leaves.is_empty() && before.attributes.is_empty() {
            return StorageChange::None;
        }
        if let (Some(now), Some(then)) = (&self.memberships, &before.memberships)
            && now != then
            && now.iter().all(|membership| !then.contains(membership))
        {
            return StorageChange::CameOrWent;
        }
        let known = |leaf: &Leaf| before.leaves.iter().find(|known| known.oid == leaf.oid);
        let has_other_file = |leaf: &Leaf| known(leaf).is_some_and(|known| known.file_node != leaf.file_node);
        let came = |leaf: &Leaf| match known(leaf) {
            None => !leaf.came_empty,
            Some(known) => known.file_node != leaf.file_node || known.joined_by != leaf.joined_by,
        };
        let went = |known: &Leaf| self.leaves.iter().all(|leaf| leaf.oid != known.oid);
        if (self.is_partitioned || before.is_partitioned)
            && (self.leaves.iter().any(came) || before.leaves.iter().any(went))
        {
            return StorageChange::CameOrWent;
        }
        if self.attributes != before.attributes && self.leaves.iter().any(has_other_file) {
            return StorageChange::Rewritten;
        }
        if self.types.iter().any(|of| !of_type_unchanged(before, of)) {
            return StorageChange::Rewritten;
        }
        let is_sent = |attnum: &i16| !self.unsent.contains(attnum) && self.written_by(*attnum).is_some();
        if before.unsent.iter().any(is_sent) {
            return StorageChange::Rewritten;
        }
        StorageChange::None
    }

    /// The transaction that wrote an attribute last.
    pub fn written_by(&self, attnum: i16) -> Option<u32> {
        self.attributes.iter().find(|(number, _)| *number == attnum).map(|(_, xid)| *xid)
    }
}

/// Whether values that were there are written as before. An enum's further labels change none.
fn of_type_unchanged(before: &Storage, (oid, numbers): &(u32, Vec<i32>)) -> bool {
    let known = before.types.iter().find(|(known, _)| known == oid);
    known.is_none_or(|(_, known)| numbers.starts_with(known))
}

impl TableCatalog {
    /// Names of the columns that identify a row, by the replica identity; the primary key under `FULL`.
    pub fn key(&self) -> &[String] {
        match self.replica_identity {
            ReplicaIdentity::Default | ReplicaIdentity::Full => &self.primary_key,
            ReplicaIdentity::Index => &self.identity_index,
            ReplicaIdentity::Nothing => &[],
        }
    }

    /// Whether it can be told for now what its generated columns hold. If not, sinks hear of them after a later look.
    pub fn knows_generated(&self) -> bool {
        self.generated.iter().all(GeneratedColumn::is_known)
    }

    /// Whether a part of the key is computed, and not among the columns that are there: without it the rest tells no rows
    /// apart. The source does not say so.
    pub fn lacks_of_key(&self, is_there: impl Fn(i16) -> bool) -> bool {
        self.generated_key.iter().any(|attnum| !is_there(*attnum))
    }

    /// Any column of that type, which tells what the type is of one that is gone.
    pub fn column_of_type(&self, type_oid: u32) -> Option<&Column> {
        self.columns.iter().find(|column| column.type_oid == type_oid)
    }

    /// The table as it is now, as a relation of version 0.
    pub fn relation(&self) -> Relation {
        let columns = self.columns.clone();
        let key = if self.lacks_of_key(|attnum| columns.iter().any(|column| column.attnum == attnum)) {
            &[]
        } else {
            self.key()
        };
        self.relation_of(columns, key)
    }

    /// A relation with this table's names, of these columns and with this key.
    fn relation_of(&self, mut columns: Vec<Column>, key: &[String]) -> Relation {
        for column in &mut columns {
            column.is_key = key.contains(&column.name);
        }
        let key = indexes_of_key(&columns);
        let key_text_is_identity = key_text_is_identity(&columns, &self.nondeterministic);
        Relation {
            oid: self.oid,
            version: 0,
            since: self.read_at,
            schema: self.schema.clone(),
            name: self.name.clone(),
            replica_identity: self.replica_identity,
            columns,
            key,
            key_text_is_identity,
            is_guess: false,
        }
    }
}

/// Indexes of the columns marked as key.
pub fn indexes_of_key(columns: &[Column]) -> Vec<usize> {
    columns.iter().enumerate().filter_map(|(index, column)| column.is_key.then_some(index)).collect()
}

/// Whether equal keys have equal texts: see [`Relation::key_text_is_identity`]. Without a key the whole
/// row decides, text by text, which is right for any type.
pub fn key_text_is_identity(columns: &[Column], nondeterministic: &[String]) -> bool {
    columns.iter().filter(|column| column.is_key).all(|column| {
        let by_type = match column.kind {
            ColumnKind::Enum => true,
            ColumnKind::Scalar => matches!(
                column.base_type_oid,
                oid::BOOL
                    | oid::BYTEA
                    | oid::CHAR
                    | oid::NAME
                    | oid::INT2
                    | oid::INT4
                    | oid::INT8
                    | oid::OID
                    | oid::TEXT
                    | oid::VARCHAR
                    | oid::DATE
                    | oid::TIME
                    | oid::TIMESTAMP
                    | oid::TIMESTAMPTZ
                    | oid::UUID
                    | oid::MACADDR
                    | oid::MACADDR8
                    | oid::PG_LSN
            ),
            ColumnKind::Array { .. } | ColumnKind::Other => false,
        };
        // Blanks at the end do not count, and only a length has all of them there.
        let is_padded = column.base_type_oid == oid::BPCHAR && column.type_modifier >= 0;
        (by_type || is_padded && column.kind == ColumnKind::Scalar)
            && !nondeterministic.contains(&column.name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn storage(is_partitioned: bool, leaves: &[(u32, u32)], attributes: &[(i16, u32)]) -> Storage {
        let leaf = |&(oid, file_node): &(u32, u32)| Leaf { oid, file_node, joined_by: 1, came_empty: false };
        Storage {
            is_partitioned,
            leaves: leaves.iter().map(leaf).collect(),
            attributes: attributes.to_vec(),
            ..Storage::default()
        }
    }

    #[test]
    fn a_computed_column_whose_values_are_sent_from_now_on_has_them_in_rows_that_are_there() {
        let of = |unsent: &[i16], attributes: &[(i16, u32)]| Storage {
            unsent: unsent.to_vec(),
            ..storage(false, &[(5, 100)], attributes)
        };
        let after = |unsent, attributes| of(unsent, attributes).change_since(&of(&[2, 4], &[(1, 700)]));
        assert_eq!(after(&[2, 4], &[(1, 700)]), StorageChange::None);
        assert_eq!(after(&[2, 4, 5], &[(1, 700), (5, 701)]), StorageChange::None, "one that was dropped");
        assert_eq!(after(&[2], &[(1, 700)]), StorageChange::None, "nothing is known of it");
        assert_eq!(after(&[2], &[(1, 700), (4, 701)]), StorageChange::Rewritten);
    }

    #[test]
    fn a_table_that_was_published_all_the_while_by_one_thing_or_another_has_lost_nothing() {
        let of = |memberships: Option<&[u32]>| Storage {
            memberships: memberships.map(<[u32]>::to_vec),
            ..storage(false, &[(5, 100)], &[(1, 700)])
        };
        for (before, after, change) in [
            (None, Some(&[7][..]), StorageChange::None),
            (Some(&[7][..]), None, StorageChange::None),
            (Some(&[]), Some(&[]), StorageChange::None),
            (Some(&[7]), Some(&[7]), StorageChange::None),
            (Some(&[7]), Some(&[7, 9]), StorageChange::None),
            (Some(&[7, 9]), Some(&[9]), StorageChange::None),
            (Some(&[7]), Some(&[8]), StorageChange::CameOrWent),
            (Some(&[]), Some(&[8]), StorageChange::CameOrWent),
            (Some(&[7]), Some(&[]), StorageChange::CameOrWent),
        ] {
            assert_eq!(of(after).change_since(&of(before)), change, "{before:?} {after:?}");
        }
    }

    #[test]
    fn a_label_that_is_renamed_and_an_attribute_that_comes_or_goes_change_how_values_are_written() {
        let of = |types: &[(u32, &[i32])]| Storage {
            types: types.iter().map(|(oid, numbers)| (*oid, numbers.to_vec())).collect(),
            ..storage(false, &[(5, 100)], &[(1, 700)])
        };
        let before = of(&[(20, &[1, 2]), (21, &[7])]);
        let after = |types| of(types).change_since(&before);
        assert_eq!(after(&[(20, &[1, 2]), (21, &[7])]), StorageChange::None);
        assert_eq!(after(&[(20, &[1, 2, 3]), (21, &[7])]), StorageChange::None, "a further label");
        assert_eq!(after(&[(20, &[1, 4]), (21, &[7])]), StorageChange::Rewritten);
        assert_eq!(after(&[(20, &[1, 2]), (21, &[8])]), StorageChange::Rewritten);
        assert_eq!(after(&[(20, &[1, 2]), (21, &[7]), (22, &[9])]), StorageChange::None, "a further column");
        assert_eq!(after(&[]), StorageChange::None, "columns that went");
    }

    #[test]
    fn only_another_file_together_with_another_attribute_is_a_rewrite() {
        let before = storage(false, &[(5, 100)], &[(1, 700), (2, 700)]);
        let after = |file, xid| storage(false, &[(5, file)], &[(1, 700), (2, xid)]).change_since(&before);
        assert_eq!(after(101, 701), StorageChange::Rewritten);
        assert_eq!(after(101, 700), StorageChange::None, "VACUUM FULL, TRUNCATE");
        assert_eq!(after(100, 701), StorageChange::None, "RENAME, SET NOT NULL");
    }

    #[test]
    fn partitions_that_come_with_rows_go_or_get_another_file_change_their_root() {
        let before = storage(true, &[(5, 100), (6, 100)], &[(1, 700)]);
        let after = |leaves| storage(true, leaves, &[(1, 700)]).change_since(&before);
        assert_eq!(after(&[(5, 100), (6, 100)]), StorageChange::None);
        assert_eq!(after(&[(5, 100)]), StorageChange::CameOrWent);
        assert_eq!(after(&[(5, 100), (6, 101)]), StorageChange::CameOrWent);
        assert_eq!(after(&[(5, 100), (6, 100), (7, 1)]), StorageChange::CameOrWent);
        let mut with_empty = storage(true, &[(5, 100), (6, 100), (7, 1)], &[(1, 700)]);
        with_empty.leaves[2].came_empty = true;
        assert_eq!(with_empty.change_since(&before), StorageChange::None);
        let mut again = before.clone();
        again.leaves[0].joined_by = 2;
        assert_eq!(again.change_since(&before), StorageChange::CameOrWent, "detached and attached again");
    }

    #[test]
    fn nothing_is_concluded_from_a_storage_that_was_not_asked_for() {
        let now = storage(true, &[(5, 100)], &[(1, 700)]);
        assert_eq!(now.change_since(&Storage::default()), StorageChange::None);
    }
}
