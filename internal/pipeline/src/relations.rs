//! The tables of the stream, each at its newest schema version: a Relation message joined with what the
//! catalog knows beyond it.

use pgoutput::{ColumnMessage, RelationMessage};
use replicator_types::{
    Column, ColumnKind, Relation, ReplicaIdentity, TableCatalog, indexes_of_key, key_text_is_identity, oid,
};
use std::collections::HashMap;
use std::sync::Arc;

/// Table versions by oid.
#[derive(Debug, Default)]
pub(crate) struct Relations {
    current: HashMap<u32, Arc<Relation>>,
    catalogs: HashMap<u32, TableCatalog>,
}

impl Relations {
    /// Remembers what the catalog says of a table, for its next Relation message.
    pub(crate) fn learn(&mut self, catalog: TableCatalog) {
        self.catalogs.insert(catalog.oid, catalog);
    }

    /// Takes in a Relation message; returns the table's version, a new one only if something changed.
    pub(crate) fn apply(&mut self, message: &RelationMessage<'_>) -> Arc<Relation> {
        let mut relation = join(message, self.catalogs.get(&message.oid));
        if let Some(known) = self.current.get(&message.oid) {
            relation.version = known.version;
            if **known == relation {
                return Arc::clone(known);
            }
            relation.version += 1;
        }
        let relation = Arc::new(relation);
        self.current.insert(message.oid, Arc::clone(&relation));
        relation
    }
}

/// The message is the truth for its place in the stream; the catalog may be older or newer. A column takes
/// from the catalog only what fits the message's type.
fn join(message: &RelationMessage<'_>, catalog: Option<&TableCatalog>) -> Relation {
    let full = message.replica_identity == ReplicaIdentity::Full;
    let columns: Vec<Column> = message
        .columns
        .iter()
        .map(|column| {
            // Under FULL every column is marked on the wire; what tells rows apart is the primary key.
            let is_key = if full {
                catalog.is_some_and(|catalog| catalog.primary_key.iter().any(|name| name == column.name))
            } else {
                column.in_identity
            };
            let known = catalog
                .and_then(|catalog| catalog.columns.iter().find(|known| known.name == column.name))
                .filter(|known| known.type_oid == column.type_oid);
            match known {
                Some(known) => Column { is_key, ..known.clone() },
                None => unknown_column(column, is_key),
            }
        })
        .collect();
    let nondeterministic = catalog.map_or(&[][..], |catalog| &catalog.nondeterministic);
    Relation {
        oid: message.oid,
        version: 0,
        schema: message.schema.to_owned(),
        name: message.name.to_owned(),
        replica_identity: message.replica_identity,
        key: indexes_of_key(&columns),
        key_text_is_identity: key_text_is_identity(&columns, nondeterministic),
        columns,
    }
}

/// A column that the catalog no longer has: dropped or altered since. Its values are still in the stream.
fn unknown_column(column: &ColumnMessage<'_>, is_key: bool) -> Column {
    let type_sql = built_in_type(column.type_oid, column.type_modifier);
    Column {
        name: column.name.to_owned(),
        attnum: 0,
        type_oid: column.type_oid,
        base_type_oid: column.type_oid,
        type_modifier: column.type_modifier,
        kind: if type_sql.is_some() { ColumnKind::Scalar } else { ColumnKind::Other },
        type_sql: type_sql.unwrap_or_else(|| "text".to_owned()),
        not_null: is_key,
        is_key,
    }
}

/// SQL for a built-in scalar type, with its length or precision.
fn built_in_type(type_oid: u32, modifier: i32) -> Option<String> {
    let (name, takes) = match type_oid {
        oid::BOOL => ("boolean", Modifier::None),
        oid::BYTEA => ("bytea", Modifier::None),
        oid::CHAR => ("\"char\"", Modifier::None),
        oid::NAME => ("name", Modifier::None),
        oid::INT8 => ("bigint", Modifier::None),
        oid::INT2 => ("smallint", Modifier::None),
        oid::INT4 => ("integer", Modifier::None),
        oid::TEXT => ("text", Modifier::None),
        oid::OID => ("oid", Modifier::None),
        oid::JSON => ("json", Modifier::None),
        oid::JSONB => ("jsonb", Modifier::None),
        oid::XML => ("xml", Modifier::None),
        oid::FLOAT4 => ("real", Modifier::None),
        oid::FLOAT8 => ("double precision", Modifier::None),
        oid::MONEY => ("money", Modifier::None),
        oid::INET => ("inet", Modifier::None),
        oid::CIDR => ("cidr", Modifier::None),
        oid::MACADDR => ("macaddr", Modifier::None),
        oid::MACADDR8 => ("macaddr8", Modifier::None),
        oid::UUID => ("uuid", Modifier::None),
        oid::PG_LSN => ("pg_lsn", Modifier::None),
        oid::DATE => ("date", Modifier::None),
        oid::BPCHAR => ("character", Modifier::Length),
        oid::VARCHAR => ("character varying", Modifier::Length),
        oid::NUMERIC => ("numeric", Modifier::PrecisionScale),
        oid::TIME => ("time without time zone", Modifier::Nothing),
        oid::TIMETZ => ("time with time zone", Modifier::Nothing),
        oid::TIMESTAMP => ("timestamp without time zone", Modifier::Nothing),
        oid::TIMESTAMPTZ => ("timestamp with time zone", Modifier::Nothing),
        _ => return None,
    };
    // Both kinds of modifier count from 4, the size of the length word (`VARHDRSZ`).
    Some(match takes {
        Modifier::Length if modifier >= 4 => format!("{name}({})", modifier - 4),
        Modifier::PrecisionScale if modifier >= 4 => {
            let packed = modifier - 4;
            // The scale is an 11-bit signed number since Postgres 15.
            let scale = ((packed & 0x7ff) ^ 1024) - 1024;
            format!("{name}({},{scale})", packed >> 16 & 0xffff)
        }
        _ => name.to_owned(),
    })
}

enum Modifier {
    None,
    /// Has one, but a wider column is as good.
    Nothing,
    Length,
    PrecisionScale,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(columns: Vec<ColumnMessage<'static>>) -> RelationMessage<'static> {
        let replica_identity = ReplicaIdentity::Default;
        RelationMessage { xid: None, oid: 7, schema: "public", name: "t", replica_identity, columns }
    }

    fn column(name: &'static str, type_oid: u32, type_modifier: i32) -> ColumnMessage<'static> {
        ColumnMessage { in_identity: name == "id", name, type_oid, type_modifier }
    }

    #[test]
    fn the_same_shape_keeps_its_version_and_another_gets_the_next() {
        let mut relations = Relations::default();
        let narrow = message(vec![column("id", oid::INT8, -1)]);
        let wide = message(vec![column("id", oid::INT8, -1), column("v", oid::TEXT, -1)]);
        let first = relations.apply(&narrow);
        assert!(Arc::ptr_eq(&first, &relations.apply(&narrow)));
        let second = relations.apply(&wide);
        assert_eq!((first.version, second.version), (0, 1));
        assert_eq!(second.key, [0]);
    }

    #[test]
    fn under_full_the_primary_key_of_the_catalog_is_the_key() {
        let mut relations = Relations::default();
        let mut full = message(vec![column("id", oid::INT8, -1), column("v", oid::TEXT, -1)]);
        full.replica_identity = ReplicaIdentity::Full;
        full.columns.iter_mut().for_each(|column| column.in_identity = true);
        assert!(relations.apply(&full).key.is_empty());
        relations.learn(TableCatalog {
            oid: 7,
            schema: "public".into(),
            name: "t".into(),
            replica_identity: ReplicaIdentity::Full,
            columns: vec![],
            primary_key: vec!["id".into()],
            identity_index: vec![],
            nondeterministic: vec![],
        });
        assert_eq!(relations.apply(&full).key, [0]);
    }

    #[test]
    fn type_modifiers_are_read_as_the_server_packs_them() {
        assert_eq!(built_in_type(oid::NUMERIC, (12 << 16 | 2) + 4).as_deref(), Some("numeric(12,2)"));
        assert_eq!(built_in_type(oid::NUMERIC, (3 << 16 | 0x7fe) + 4).as_deref(), Some("numeric(3,-2)"));
        assert_eq!(built_in_type(oid::VARCHAR, 84).as_deref(), Some("character varying(80)"));
        assert_eq!(built_in_type(oid::BPCHAR, 12).as_deref(), Some("character(8)"));
        assert_eq!(built_in_type(99_999, -1), None);
    }
}
