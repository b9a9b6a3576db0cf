//! What the target's catalog says of a table, and how changes are written to it.

use crate::error;
use crate::passage::Passage;
use crate::record::Place;
use crate::sql::{ident, table as quoted};
use crate::target::{KeyColumn, Target, TargetColumn};
use replicator_sink::SinkError;
use replicator_types::Relation;
use std::sync::Arc;
use tokio_postgres::Client;
use tokio_postgres::types::{ToSql, Type};

/// What the target's catalog says of a table.
#[derive(Debug)]
pub(crate) struct Existing {
    kind: i8,
    columns: Vec<ExistingColumn>,
    unique: Vec<UniqueIndex>,
}

/// A unique index that every row is in.
#[derive(Debug)]
pub(crate) struct UniqueIndex {
    /// Its name, which is its constraint's, if it has one.
    pub(crate) name: String,
    columns: Vec<IndexColumn>,
}

#[derive(Debug)]
pub(crate) struct ExistingColumn {
    name: String,
    pub(crate) type_sql: String,
    pub(crate) not_null: bool,
    domain_base: Option<String>,
    /// What makes a domain's value one of the type under it; nothing for other types.
    key_cast: String,
    base_oid: u32,
    is_enum: bool,
    is_enum_array: bool,
    pub(crate) is_generated: bool,
    is_identity_always: bool,
    equality_is_by_text: bool,
}

#[derive(Debug)]
struct IndexColumn {
    name: String,
    operator_schema: String,
    operator: String,
}

const KIND: &str = "SELECT relkind FROM pg_catalog.pg_class WHERE oid = pg_catalog.to_regclass($1)";

const COLUMNS: &str = "
    WITH RECURSIVE under AS (
        SELECT a.attnum, a.atttypid AS type, a.atttypmod AS modifier, false AS is_domain
          FROM pg_catalog.pg_attribute a
         WHERE a.attrelid = pg_catalog.to_regclass($1) AND a.attnum > 0 AND NOT a.attisdropped
        UNION ALL
        SELECT u.attnum, t.typbasetype, t.typtypmod, true
          FROM under u JOIN pg_catalog.pg_type t ON t.oid = u.type WHERE t.typtype = 'd')
    SELECT a.attname::text, pg_catalog.format_type(a.atttypid, a.atttypmod),
           CASE WHEN u.is_domain THEN pg_catalog.format_type(u.type, u.modifier) END,
           a.attnotnull, a.attgenerated <> '', a.attidentity = 'a', u.type, t.typtype = 'e',
           EXISTS (SELECT FROM pg_catalog.pg_type e WHERE e.oid = t.typelem AND e.typtype = 'e' AND t.typlen = -1),
           u.type = ANY ('{bool,int2,int4,int8,oid,uuid,date,timestamp,timestamptz,bytea}'::pg_catalog.regtype[]),
           CASE WHEN u.is_domain THEN '::' || pg_catalog.format_type(u.type, -1) ELSE '' END
      FROM pg_catalog.pg_attribute a
      JOIN under u USING (attnum)
      JOIN pg_catalog.pg_type t ON t.oid = u.type AND t.typtype <> 'd'
     WHERE a.attrelid = pg_catalog.to_regclass($1) ORDER BY a.attnum";

/// Strategy 3 of a btree operator class is its equality.
const UNIQUE_INDEXES: &str = "
    SELECT ic.relname::text, a.attname::text, n.nspname::text, o.oprname::text
      FROM pg_catalog.pg_index i
      JOIN pg_catalog.pg_class ic ON ic.oid = i.indexrelid
      CROSS JOIN LATERAL ROWS FROM (unnest(i.indkey::int2[]), unnest(i.indclass::oid[]))
                 WITH ORDINALITY AS k(attnum, class, place)
      JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
      JOIN pg_catalog.pg_opclass c ON c.oid = k.class
      JOIN pg_catalog.pg_amop m ON m.amopfamily = c.opcfamily AND m.amopstrategy = 3
                 AND m.amoplefttype = c.opcintype AND m.amoprighttype = c.opcintype
      JOIN pg_catalog.pg_operator o ON o.oid = m.amopopr
      JOIN pg_catalog.pg_namespace n ON n.oid = o.oprnamespace
      JOIN pg_catalog.pg_am am ON am.oid = c.opcmethod AND am.amname = 'btree'
     WHERE i.indrelid = pg_catalog.to_regclass($1) AND i.indisunique AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL
       AND k.place <= i.indnkeyatts
     ORDER BY i.indisprimary DESC, i.indexrelid, k.place";

impl Existing {
    /// What there is under that name, if anything.
    pub(crate) async fn look_up(
        client: &Client,
        schema: &str,
        table: &str,
    ) -> Result<Option<Self>, SinkError> {
        let doing = format!("look up table {schema}.{table} in the target");
        let failed = |error| error::of_server(&error, &doing);
        let name = quoted(schema, table);
        let parameters = [(&name as &(dyn ToSql + Sync), Type::TEXT)];
        // Sent together: one round trip.
        let (found, rows, indexes) = futures_util::future::try_join3(
            client.query_typed(KIND, &parameters),
            client.query_typed(COLUMNS, &parameters),
            client.query_typed(UNIQUE_INDEXES, &parameters),
        )
        .await
        .map_err(failed)?;
        let Some(row) = found.first() else { return Ok(None) };
        let kind: i8 = row.get(0);
        let columns = rows.iter().map(|row| ExistingColumn {
            name: row.get(0),
            type_sql: row.get(1),
            domain_base: row.get(2),
            key_cast: row.get(10),
            not_null: row.get(3),
            is_generated: row.get(4),
            is_identity_always: row.get(5),
            base_oid: row.get(6),
            is_enum: row.get(7),
            is_enum_array: row.get(8),
            equality_is_by_text: row.get(9),
        });
        let columns = columns.collect();
        let mut unique: Vec<UniqueIndex> = Vec::new();
        for row in indexes {
            let name: String = row.get(0);
            let column = IndexColumn { name: row.get(1), operator_schema: row.get(2), operator: row.get(3) };
            match unique.last_mut() {
                Some(last) if last.name == name => last.columns.push(column),
                _ => unique.push(UniqueIndex { name, columns: vec![column] }),
            }
        }
        Ok(Some(Self { kind, columns, unique }))
    }

    /// Columns that the table should have and does not.
    pub(crate) fn missing_columns<'p>(&self, place: &'p Place) -> Vec<&'p str> {
        let names = place.columns.iter().filter_map(Option::as_deref);
        names.filter(|name| self.column(name).is_none()).collect()
    }

    /// Columns whose type is spelt otherwise than at the source: `name: theirs here, ours at the source`.
    pub(crate) fn other_types(&self, relation: &Relation) -> Vec<String> {
        let pairs = relation.columns.iter().filter_map(|column| Some((column, self.column(&column.name)?)));
        pairs
            .filter(|(ours, theirs)| ours.type_sql != theirs.type_sql)
            .map(|(ours, theirs)| {
                format!("{} is {} here and {} at the source", ours.name, theirs.type_sql, ours.type_sql)
            })
            .collect()
    }

    pub(crate) fn column(&self, name: &str) -> Option<&ExistingColumn> {
        self.columns.iter().find(|column| column.name == name)
    }

    /// Whether it is a table, partitioned or not.
    pub(crate) fn is_table(&self) -> bool {
        matches!(self.kind as u8, b'r' | b'p')
    }

    /// The unique index over exactly these columns.
    pub(crate) fn unique_over(&self, wanted: &[&str]) -> Option<&UniqueIndex> {
        self.unique.iter().find(|index| index.is_over(wanted))
    }

    /// The unique index of this name.
    pub(crate) fn unique_named(&self, name: &str) -> Option<&UniqueIndex> {
        self.unique.iter().find(|index| index.name == name)
    }

    /// How the relation's changes are written to it; what is wrong and the remedy when they can't be. A key by
    /// which rows can't be found is told in [`Target::key_is_missing`].
    pub(crate) fn target_of(
        &self,
        relation: &Arc<Relation>,
        place: &Place,
        id: u32,
    ) -> Result<Target, String> {
        if !self.is_table() {
            return Err(format!(
                "{relation} of the target is not a table; rename it, so that the table can be created, or leave \
                 the table out of this sink's `tables`"
            ));
        }
        let found = |name: &Option<String>| {
            name.as_deref().and_then(|name| self.column(name)).filter(|column| !column.is_generated)
        };
        let is_written: Vec<bool> = place.columns.iter().map(|name| found(name).is_some()).collect();
        let both = relation.columns.iter().zip(&place.columns);
        let both = both.filter_map(|(ours, name)| Some((ours, found(name)?)));
        let columns: Vec<TargetColumn> = both
            .map(|(ours, theirs)| TargetColumn {
                name: ident(&theirs.name),
                domain_base: theirs.domain_base.clone(),
                can_be_set: !theirs.is_identity_always,
                equality_is_by_text: theirs.equality_is_by_text,
                is_key: ours.is_key,
                is_enum: theirs.is_of_enum(),
                passage: Passage::of(ours, theirs.base_oid, theirs.is_enum),
            })
            .collect();
        let (key, key_is_missing) = match self.key_of(relation, place, &columns) {
            Ok(key) => (key, None),
            Err(text) => (Vec::new(), Some(text)),
        };
        let has_other_columns =
            self.columns.iter().filter(|column| !column.is_generated).count() > columns.len();
        Ok(Target {
            id,
            relation: Arc::clone(relation),
            table: place.quoted(),
            columns,
            is_written,
            key,
            key_is_missing,
            has_other_columns,
            is_partitioned: self.kind as u8 == b'p',
        })
    }

    fn key_of(
        &self,
        relation: &Relation,
        place: &Place,
        columns: &[TargetColumn],
    ) -> Result<Vec<KeyColumn>, String> {
        if !relation.has_key() {
            return Ok(Vec::new());
        }
        let both = relation.columns.iter().zip(&place.columns).filter(|(column, _)| column.is_key);
        let wanted: Vec<&str> = both.map(|(column, name)| name.as_deref().unwrap_or(&column.name)).collect();
        let Some(index) = self.unique_over(&wanted) else {
            let quoted: Vec<String> = wanted.iter().map(|name| ident(name)).collect();
            return Err(format!(
                "table {relation} of the target has no unique index over its key, without which every update would \
                 read the whole table; run CREATE UNIQUE INDEX ON {} ({})",
                place.quoted(),
                quoted.join(", ")
            ));
        };
        let places = columns.iter().enumerate().filter(|(_, column)| column.is_key);
        let key: Vec<KeyColumn> = places
            .filter_map(|(place, column)| {
                let by = index.columns.iter().find(|by| ident(&by.name) == column.name)?;
                let equals = format!("OPERATOR({}.{})", ident(&by.operator_schema), by.operator);
                let cast = self.column(&by.name).map(|column| column.key_cast.clone()).unwrap_or_default();
                Some(KeyColumn { column: place, equals, cast })
            })
            .collect();
        if key.len() < wanted.len() {
            return Err(format!(
                "a key column of table {relation} is generated in the target; make it a plain column"
            ));
        }
        Ok(key)
    }
}

impl ExistingColumn {
    /// Whether it is an enum, or an array of one.
    pub(crate) fn is_of_enum(&self) -> bool {
        self.is_enum || self.is_enum_array
    }
}

impl UniqueIndex {
    /// Whether it is over exactly these columns.
    pub(crate) fn is_over(&self, wanted: &[&str]) -> bool {
        self.columns.len() == wanted.len()
            && self.columns.iter().all(|column| wanted.contains(&column.name.as_str()))
    }
}
