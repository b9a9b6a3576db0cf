//! Where a source table goes, and how names and texts are written in SQL.

use replicator_config::SchemaNaming;
use replicator_types::Relation;

/// A table's place in ClickHouse: names without quotes.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub(crate) struct Place {
    pub(crate) database: String,
    pub(crate) table: String,
}

impl Place {
    /// Where `relation` goes: schema `public` into `database`, others by `naming`.
    pub(crate) fn of(relation: &Relation, database: &str, naming: SchemaNaming) -> Self {
        let (database, table) = match (relation.schema.as_str(), naming) {
            ("public", _) => (database.to_owned(), relation.name.clone()),
            (schema, SchemaNaming::Prefix) => (database.to_owned(), format!("{schema}_{}", relation.name)),
            (schema, SchemaNaming::Database) => (schema.to_owned(), relation.name.clone()),
        };
        Self { database, table }
    }

    /// The view of the current rows.
    pub(crate) fn view(&self) -> Self {
        Self { database: self.database.clone(), table: format!("{}_current", self.table) }
    }

    /// Where the table is made anew before it takes its place. What is found there is taken for what a rebuild has left, and
    /// dropped: it has to be a name that nobody else gives.
    pub(crate) fn rebuilt(&self) -> Self {
        Self { database: self.database.clone(), table: format!("{}_replicator_rebuilt", self.table) }
    }

    /// Where the table of a source table goes whose name another has taken.
    pub(crate) fn aside(&self, oid: u32) -> Self {
        Self { database: self.database.clone(), table: format!("{}_{oid}", self.table) }
    }

    /// `` `database`.`table` ``
    pub(crate) fn sql(&self) -> String {
        format!("{}.{}", identifier(&self.database), identifier(&self.table))
    }
}

/// A name in backquotes.
pub(crate) fn identifier(name: &str) -> String {
    quoted(name, '`')
}

/// A text in single quotes.
pub(crate) fn literal(text: &str) -> String {
    quoted(text, '\'')
}

/// Names in backquotes, with commas.
pub(crate) fn identifiers<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    names.into_iter().map(identifier).collect::<Vec<_>>().join(", ")
}

/// Source: <https://clickhouse.com/docs/sql-reference/syntax#string>; backquoted names have the same escapes.
fn quoted(text: &str, quote: char) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push(quote);
    for c in text.chars() {
        match c {
            '\0' => {
                out.push_str("\\0");
                continue;
            }
            '\\' => out.push('\\'),
            c if c == quote => out.push('\\'),
            _ => {}
        }
        out.push(c);
    }
    out.push(quote);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use replicator_types::ReplicaIdentity;

    fn relation(schema: &str, name: &str) -> Relation {
        Relation {
            oid: 1,
            version: 0,
            since: replicator_types::Lsn::ZERO,
            schema: schema.into(),
            name: name.into(),
            replica_identity: ReplicaIdentity::Default,
            columns: vec![],
            key: vec![],
            key_text_is_identity: true,
            is_guess: false,
        }
    }

    #[test]
    fn public_tables_keep_their_names_and_others_go_where_the_setting_says() {
        let sql = |schema, naming| Place::of(&relation(schema, "orders"), "shop", naming).sql();
        assert_eq!(sql("public", SchemaNaming::Prefix), "`shop`.`orders`");
        assert_eq!(sql("public", SchemaNaming::Database), "`shop`.`orders`");
        assert_eq!(sql("crm", SchemaNaming::Prefix), "`shop`.`crm_orders`");
        assert_eq!(sql("crm", SchemaNaming::Database), "`crm`.`orders`");
    }

    #[test]
    fn no_name_gets_out_of_its_quotes() {
        assert_eq!(identifier("a`b\\c'd"), "`a\\`b\\\\c'd`");
        assert_eq!(literal("it's `\\"), "'it\\'s `\\\\'");
    }
}
