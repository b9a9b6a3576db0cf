//! A table's columns, and what `ALTER TABLE` makes of them.
//!
//! Numbers are given out once and never again (`pg_attribute.attnum`), but where the transaction that took one is rolled
//! back. Messages of the stream tell names and types only; the catalog has the numbers.

use replicator_types::{Column, Lsn, ReplicaIdentity, Storage, TableCatalog, oid};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A column of a table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ShapeColumn {
    /// `attnum`.
    pub attnum: i16,
    /// Name.
    pub name: String,
    /// Type.
    pub type_oid: u32,
    /// Whether NULL is forbidden, which no message tells.
    pub not_null: bool,
}

/// What a table looks like at a moment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Shape {
    /// Another one behind every `ALTER TABLE`.
    pub id: u32,
    /// In the order of their numbers. The first three stay: the key, a value, a large value.
    pub columns: Vec<ShapeColumn>,
    dropped: Vec<i16>,
    written_by: BTreeMap<i16, u32>,
}

/// By table.
pub type Shapes = Arc<BTreeMap<u32, Arc<Shape>>>;

/// Numbers of the columns that every table has: its key, its value, its large value.
pub const KEY: i16 = 1;
/// See [`KEY`].
pub const VALUE: i16 = 2;
/// See [`KEY`].
pub const LARGE: i16 = 3;

/// No more columns than so many at once.
const COLUMNS_MAX: usize = 7;

/// What columns are called that are added or renamed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Names {
    /// As no column was before, and a type unlike its neighbours'.
    #[default]
    New,
    /// As one that is gone or called otherwise by now, if there is one; the types still tell columns apart.
    Again,
}

/// A kind of `ALTER TABLE`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Alter {
    /// `ADD COLUMN`
    Add,
    /// `DROP COLUMN`, if there is one that may go.
    Drop,
    /// `RENAME COLUMN`
    Rename,
    /// `SET NOT NULL` or `DROP NOT NULL`
    NotNull,
}

impl Default for Shape {
    fn default() -> Self {
        let column = |(attnum, name, type_oid): (i16, &str, u32)| ShapeColumn {
            attnum,
            name: name.to_owned(),
            type_oid,
            not_null: attnum == KEY,
        };
        let columns = [(KEY, "k", oid::INT8), (VALUE, "v", oid::TEXT), (LARGE, "l", oid::TEXT)];
        Self {
            id: 0,
            columns: columns.into_iter().map(column).collect(),
            dropped: Vec::new(),
            written_by: BTreeMap::from([(KEY, 3), (VALUE, 3), (LARGE, 3)]),
        }
    }
}

impl Shape {
    /// The table behind an `ALTER TABLE` of the transaction `xid`; `id` counts them. None if there is nothing to do.
    pub fn altered(&self, alter: Alter, which: u8, names: Names, id: u32, xid: u32) -> Option<Self> {
        let mut shape = Self { id, ..self.clone() };
        let name = |taken: &[ShapeColumn]| {
            let again = ["a", "b", "c", "d", "e", "f", "g", "h"];
            let is_free = |name: &&&str| taken.iter().all(|column| column.name != **name);
            match again.iter().find(is_free) {
                Some(name) if names == Names::Again => (*name).to_owned(),
                _ => format!("c{id}"),
            }
        };
        let name = name(&shape.columns);
        let index = |from: usize| Some(usize::from(which) % shape.columns.len().checked_sub(from)? + from);
        let attnum = match alter {
            Alter::Add if shape.columns.len() >= COLUMNS_MAX => return None,
            Alter::Add => {
                let attnum = self.written_by.keys().last()? + 1;
                let types =
                    [oid::INT4, oid::NUMERIC, oid::UUID, oid::DATE, oid::JSONB, oid::INET, oid::MONEY];
                let type_oid = types[attnum as usize % types.len()];
                shape.columns.push(ShapeColumn { attnum, name, type_oid, not_null: false });
                attnum
            }
            Alter::Drop if shape.columns.len() == 3 => return None,
            Alter::Drop => {
                let gone = shape.columns.remove(index(3)?).attnum;
                shape.dropped.push(gone);
                shape.dropped.sort_unstable();
                gone
            }
            Alter::Rename => {
                let index = index(1)?;
                let column = shape.columns.get_mut(index)?;
                column.name = name;
                column.attnum
            }
            Alter::NotNull => {
                let column = shape.columns.get_mut(1)?;
                column.not_null = !column.not_null;
                column.attnum
            }
        };
        shape.written_by.insert(attnum, xid);
        Some(shape)
    }

    /// The columns behind the first three.
    pub fn added(&self) -> impl Iterator<Item = &ShapeColumn> {
        self.columns.iter().filter(|column| column.attnum > LARGE)
    }

    /// What the catalog says of a table that looks like this.
    pub fn catalog(&self, table: u32, name: &str, read_at: u64) -> TableCatalog {
        let column = |column: &ShapeColumn| Column {
            name: column.name.clone(),
            attnum: column.attnum,
            type_oid: column.type_oid,
            base_type_oid: column.type_oid,
            type_sql: format!("type {}", column.type_oid),
            not_null: column.not_null,
            ..Column::default()
        };
        let attributes = self.written_by.iter().map(|(attnum, xid)| (*attnum, *xid)).collect();
        TableCatalog {
            oid: table,
            schema: "public".to_owned(),
            name: name.to_owned(),
            replica_identity: ReplicaIdentity::Default,
            columns: self.columns.iter().map(column).collect(),
            primary_key: self.columns.iter().take(1).map(|column| column.name.clone()).collect(),
            identity_index: Vec::new(),
            read_at: Lsn(read_at),
            dropped: self.dropped.clone(),
            nondeterministic: Vec::new(),
            storage: Storage { attributes, ..Storage::default() },
            generated: Vec::new(),
            generated_key: Vec::new(),
        }
    }
}

/// What a change with the value `value` writes into the column of that number, behind the first three.
pub fn value_of(value: &str, attnum: i16) -> String {
    format!("{value}.{attnum}")
}
