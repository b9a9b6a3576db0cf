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
    /// End of WAL when the catalog was read, or shortly after: changes that commit behind it find the table like
    /// this, or newer.
    pub read_at: Lsn,
    /// Attribute numbers of columns that were dropped.
    pub dropped: Vec<i16>,
    /// Columns whose collation calls different texts equal (`collisdeterministic = false`).
    pub nondeterministic: Vec<String>,
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

    /// The table as it is now, as a relation of version 0.
    pub fn relation(&self) -> Relation {
        let columns = self.columns.clone();
        self.relation_of(columns, self.key())
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
                    | oid::BPCHAR
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
        by_type && !nondeterministic.contains(&column.name)
    })
}
