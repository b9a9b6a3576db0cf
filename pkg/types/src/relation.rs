use crate::{Lsn, Position};
use std::fmt;

/// Object identifiers of built-in types that code has to know by name.
///
/// Source: `src/include/catalog/pg_type.dat` of Postgres; built-in oids never change.
pub mod oid {
    #![allow(missing_docs)]
    pub const BOOL: u32 = 16;
    pub const BYTEA: u32 = 17;
    pub const CHAR: u32 = 18;
    pub const NAME: u32 = 19;
    pub const INT8: u32 = 20;
    pub const INT2: u32 = 21;
    pub const INT4: u32 = 23;
    pub const TEXT: u32 = 25;
    pub const OID: u32 = 26;
    pub const XID: u32 = 28;
    pub const CID: u32 = 29;
    pub const JSON: u32 = 114;
    pub const XML: u32 = 142;
    pub const XID8: u32 = 5069;
    pub const CIDR: u32 = 650;
    pub const FLOAT4: u32 = 700;
    pub const FLOAT8: u32 = 701;
    pub const MACADDR8: u32 = 774;
    pub const MONEY: u32 = 790;
    pub const MACADDR: u32 = 829;
    pub const INET: u32 = 869;
    pub const BPCHAR: u32 = 1042;
    pub const VARCHAR: u32 = 1043;
    pub const DATE: u32 = 1082;
    pub const TIME: u32 = 1083;
    pub const TIMESTAMP: u32 = 1114;
    pub const TIMESTAMPTZ: u32 = 1184;
    pub const INTERVAL: u32 = 1186;
    pub const TIMETZ: u32 = 1266;
    pub const BIT: u32 = 1560;
    pub const VARBIT: u32 = 1562;
    pub const NUMERIC: u32 = 1700;
    pub const UUID: u32 = 2950;
    pub const PG_LSN: u32 = 3220;
    pub const JSONB: u32 = 3802;
}

/// Which old values an UPDATE or DELETE carries.
///
/// Source: `REPLICA IDENTITY` of <https://www.postgresql.org/docs/current/sql-altertable.html>;
/// the letters are those of `pg_class.relreplident`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum ReplicaIdentity {
    /// The primary key's (`d`); nothing when there is no primary key.
    Default,
    /// Nothing (`n`).
    Nothing,
    /// The whole row (`f`).
    Full,
    /// The columns of a chosen unique index (`i`).
    Index,
}

/// What sort of type a column has, with domains already resolved to their base type.
#[derive(Clone, PartialEq, Eq, Debug, Hash)]
pub enum ColumnKind {
    /// A scalar that [`Column::base_type_oid`] tells.
    Scalar,
    /// An enum (`typtype = e`).
    Enum,
    /// An array of a scalar or enum; the element's base type and whether it is an enum.
    Array {
        /// Element type, domains resolved.
        element_oid: u32,
        /// Type modifier of the elements, -1 for none.
        element_modifier: i32,
        /// Whether the element is an enum.
        element_is_enum: bool,
    },
    /// Anything else (composite, range, multirange, extension type): its text is its value.
    Other,
}

/// A column as one schema version has it.
#[derive(Clone, PartialEq, Eq, Debug, Hash)]
pub struct Column {
    /// Name, unquoted.
    pub name: String,
    /// `pg_attribute.attnum`; 0 when the catalog no longer had the column.
    pub attnum: i16,
    /// Declared type (a domain's own oid for a domain).
    pub type_oid: u32,
    /// Type with domains resolved.
    pub base_type_oid: u32,
    /// Type modifier with domains resolved, -1 for none (`pg_attribute.atttypmod`).
    pub type_modifier: i32,
    /// Sort of type.
    pub kind: ColumnKind,
    /// The declared type as SQL, for creating the column elsewhere: `numeric(12,2)`, `"Shop".mood[]`.
    pub type_sql: String,
    /// Whether the source forbids NULL.
    pub not_null: bool,
    /// Whether the column is part of [`Relation::key`].
    pub is_key: bool,
    /// Whether the source fills it where an INSERT does not: a default, or identity.
    pub has_default: bool,
    /// The default as SQL, where it is a literal and so means the same in any database.
    pub default_sql: Option<String>,
    /// The value, as text, that rows have which are older than the column (`pg_attribute.attmissingval`).
    pub missing_text: Option<String>,
}

impl Default for Column {
    /// A nullable column of type `text` that the catalog does not know.
    fn default() -> Self {
        Self {
            name: String::new(),
            attnum: 0,
            type_oid: oid::TEXT,
            base_type_oid: oid::TEXT,
            type_modifier: -1,
            kind: ColumnKind::Scalar,
            type_sql: "text".to_owned(),
            not_null: false,
            is_key: false,
            has_default: false,
            default_sql: None,
            missing_text: None,
        }
    }
}

/// A table at one schema version. A change refers to the version it was made under.
#[derive(Clone, PartialEq, Eq, Debug, Hash)]
pub struct Relation {
    /// `pg_class.oid` at the source.
    pub oid: u32,
    /// Counts the versions of this table seen since the process began, from 0.
    pub version: u32,
    /// From where on the table is known to look like this: the commit LSN of the transaction that brought the
    /// version, or the end of WAL when the catalog was read. A sink that has met a version from further on
    /// changes nothing at its table for this one: it is being sent old changes again.
    pub since: Lsn,
    /// Schema name, unquoted.
    pub schema: String,
    /// Table name, unquoted.
    pub name: String,
    /// What old values come with updates and deletes.
    pub replica_identity: ReplicaIdentity,
    /// Columns in the order of the tuples.
    pub columns: Vec<Column>,
    /// Indexes into `columns` of what identifies a row: the replica identity's columns, or the primary
    /// key under `REPLICA IDENTITY FULL`. Empty when nothing does.
    pub key: Vec<usize>,
    /// Whether two keys are equal exactly when their texts are. False for, say, `numeric` (1.0 = 1.00);
    /// all changes of such a table then share a shard, so that order does not depend on spelling.
    pub key_text_is_identity: bool,
    /// Whether the attribute numbers may be other columns': nothing told for certain. Whoever tells columns apart by
    /// them needs a copy of the table.
    pub is_guess: bool,
}

impl Relation {
    /// What logical messages look like: columns `transactional` (boolean), `prefix` (text), `content` (bytea, in
    /// binary form) of a table `pg_logical.message` that is none, with oid 0.
    pub fn message() -> Self {
        let column = |name: &str, type_oid, type_sql: &str| Column {
            name: name.to_owned(),
            type_oid,
            base_type_oid: type_oid,
            type_sql: type_sql.to_owned(),
            not_null: true,
            ..Column::default()
        };
        Self {
            oid: 0,
            version: 0,
            since: Lsn::ZERO,
            schema: "pg_logical".to_owned(),
            name: "message".to_owned(),
            replica_identity: ReplicaIdentity::Nothing,
            columns: vec![
                column("transactional", oid::BOOL, "boolean"),
                column("prefix", oid::TEXT, "text"),
                column("content", oid::BYTEA, "bytea"),
            ],
            key: Vec::new(),
            key_text_is_identity: true,
            is_guess: false,
        }
    }

    /// Whether rows can be told apart by a key.
    pub fn has_key(&self) -> bool {
        !self.key.is_empty()
    }

    /// Whether `other` describes the table in the same way, whenever it was met.
    pub fn is_same_shape(&self, other: &Self) -> bool {
        let Self {
            oid,
            version: _,
            since: _,
            schema,
            name,
            replica_identity,
            columns,
            key,
            key_text_is_identity,
            is_guess: _,
        } = self;
        *oid == other.oid
            && *schema == other.schema
            && *name == other.name
            && *replica_identity == other.replica_identity
            && *key == other.key
            && *key_text_is_identity == other.key_text_is_identity
            && *columns == other.columns
    }

    /// Tells versions apart that have [`since`](Relation::since) in common, later ones by more, from the position of the
    /// first change under it: one that the catalog told of, at the end of a transaction, comes before those of the
    /// transaction whose commit record begins right there.
    pub fn turn(&self, first: Position) -> u64 {
        if first.commit_lsn == self.since { first.ordinal.saturating_add(1) } else { 0 }
    }

    /// The name for messages and filters: `schema.name`, unquoted.
    pub fn qualified_name(&self) -> String {
        format!("{}.{}", self.schema, self.name)
    }
}

impl fmt::Display for Relation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.schema, self.name)
    }
}
