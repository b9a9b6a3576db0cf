//! Every type a column can have, with the values at its edges: what the round-trip test writes, and what the page
//! about types is made of.
//!
//! ```text
//!   Case ──▶ t_{name} (id, v T, a T[], n T[] NOT NULL)     copied, inserted, updated
//!       └──▶ k_{name} (k T PRIMARY KEY, n int)             where a type can be a key
//! ```
//! A case says on its own what each sink is to have; the code under test is not asked.

mod builtin;
mod numbers;
mod read_back;
mod statements;
mod user;

pub use read_back::{ClickHouseValues, expected_in_clickhouse, json_text};
pub use statements::{before_the_run, columns, create_tables, during_the_run, kinds};

/// What a type's values are in the archive's JSON.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Json {
    /// `true`, `false`.
    Bool,
    /// A number with all its digits.
    Integer,
    /// A number; a string for NaN and the infinities.
    Float,
    /// A string: the text form.
    String,
}

/// What arrays of a type are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Arrays {
    /// `Array(Nullable(T))` of ClickHouse where the column is NOT NULL.
    Typed,
    /// Their text, in any column.
    Text,
    /// There are none, or they have a case of their own.
    None,
}

/// A type and values of it.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// What its tables are named after.
    pub name: &'static str,
    /// As in `CREATE TABLE`.
    pub type_sql: &'static str,
    /// Its oid, or that of the type under a domain; 0 for a type that is made by a user.
    pub oid: u32,
    /// ClickHouse's type for a column that is not NULL.
    pub clickhouse: &'static str,
    /// How it looks in the archive.
    pub json: Json,
    /// Arrays of it.
    pub arrays: Arrays,
    /// Whether it can be a primary key.
    pub is_key: bool,
    /// Whether its binary form is understood.
    pub is_binary: bool,
    /// Whether its binary form is the same in every database, so that it can be compared.
    pub is_portable: bool,
    /// The extension that has it.
    pub extension: &'static str,
    /// The first Postgres that has the type or reads these values.
    pub since: u32,
    /// Values as text, or as SQL behind `:=`. No two are equal keys.
    pub values: &'static [&'static str],
    /// Values that ClickHouse's type has no room for, as Postgres spells them, and what they become under
    /// `out_of_range = "clamp"`; `NULL` for NULL.
    pub misfits: &'static [(&'static str, &'static str)],
}

impl Case {
    const fn new(
        name: &'static str,
        oid: u32,
        clickhouse: &'static str,
        values: &'static [&'static str],
    ) -> Self {
        Self {
            name,
            type_sql: name,
            oid,
            clickhouse,
            json: Json::String,
            arrays: Arrays::Typed,
            is_key: true,
            is_binary: true,
            is_portable: true,
            extension: "",
            since: 14,
            values,
            misfits: &[],
        }
    }

    const fn text(name: &'static str, oid: u32, values: &'static [&'static str]) -> Self {
        Self::new(name, oid, "String", values)
    }

    const fn sql(self, type_sql: &'static str) -> Self {
        Self { type_sql, ..self }
    }

    const fn json(self, json: Json) -> Self {
        Self { json, ..self }
    }

    const fn arrays(self, arrays: Arrays) -> Self {
        Self { arrays, ..self }
    }

    const fn no_key(self) -> Self {
        Self { is_key: false, ..self }
    }

    /// Sent as text whatever is asked for.
    const fn text_only(self) -> Self {
        Self { is_binary: false, ..self }
    }

    const fn not_portable(self) -> Self {
        Self { is_portable: false, ..self }
    }

    const fn extension(self, extension: &'static str) -> Self {
        Self { extension, is_portable: false, ..self }
    }

    const fn since(self, since: u32) -> Self {
        Self { since, ..self }
    }

    const fn misfits(self, misfits: &'static [(&'static str, &'static str)]) -> Self {
        Self { misfits, ..self }
    }

    /// A value as SQL.
    pub fn literal(&self, value: &str) -> String {
        match value.strip_prefix(":=") {
            Some(expression) => format!("({expression})::{}", self.type_sql),
            None => format!("'{}'::{}", value.replace('\'', "''"), self.type_sql),
        }
    }

    /// What a value that is a misfit becomes in ClickHouse; `None` for one that fits.
    pub fn clamped(&self, text: &str) -> Option<&'static str> {
        self.misfits.iter().find(|(misfit, _)| *misfit == text).map(|(_, clamped)| *clamped)
    }

    /// ClickHouse's type of a nullable column.
    pub fn clickhouse_nullable(&self) -> String {
        match self.clickhouse.strip_prefix("LowCardinality(").and_then(|inner| inner.strip_suffix(')')) {
            Some(inner) => format!("LowCardinality(Nullable({inner}))"),
            None if self.clickhouse.starts_with("Array(") => "Nullable(String)".to_owned(),
            None => format!("Nullable({})", self.clickhouse),
        }
    }

    /// ClickHouse's type of a column of arrays of it that is NOT NULL.
    pub fn clickhouse_array(&self) -> String {
        let element =
            self.clickhouse.strip_prefix("LowCardinality(").and_then(|inner| inner.strip_suffix(')'));
        match self.arrays {
            Arrays::Typed => format!("Array(Nullable({}))", element.unwrap_or(self.clickhouse)),
            Arrays::Text | Arrays::None => "String".to_owned(),
        }
    }
}

/// All of them.
pub fn cases() -> Vec<Case> {
    [numbers::CASES, builtin::CASES, user::CASES].concat()
}

/// SQL that makes the types that are not built in, those of extensions where there is one.
pub fn create_types(has_extension: impl Fn(&str) -> bool) -> String {
    let mut names: Vec<&str> =
        user::CASES.iter().map(|case| case.extension).filter(|name| !name.is_empty()).collect();
    names.dedup();
    let extensions = names.into_iter().filter(|name| has_extension(name));
    let create = extensions.map(|name| format!("CREATE EXTENSION IF NOT EXISTS {name};"));
    create.collect::<String>() + user::TYPES
}
