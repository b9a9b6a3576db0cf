use crate::create;
use crate::error;
use crate::sql::{ident, literal};
use replicator_sink::SinkError;
use replicator_types::Relation;
use slog::Logger;
use std::sync::Arc;
use tokio_postgres::Client;

/// A table of the target, as the changes of one relation version are written to it.
#[derive(Debug)]
pub(crate) struct Target {
    /// Tells this target from every other of the lane: in names of statements and staging tables.
    pub(crate) id: u32,
    /// What the changes say.
    pub(crate) relation: Arc<Relation>,
    /// `"schema"."table"`.
    pub(crate) table: String,
    /// The columns written, in the relation's order. Those the target generates are left out.
    pub(crate) columns: Vec<TargetColumn>,
    /// For each column of the relation, whether it is among `columns`.
    pub(crate) is_written: Vec<bool>,
    /// The key's columns; empty for a table without a key.
    pub(crate) key: Vec<KeyColumn>,
    /// Whether it is partitioned: its rows lie in other tables.
    pub(crate) is_partitioned: bool,
}

/// A column that is written.
#[derive(Debug)]
pub(crate) struct TargetColumn {
    /// Quoted.
    pub(crate) name: String,
    /// For a domain the type under it, which takes NULL whatever the domain says.
    pub(crate) domain_base: Option<String>,
    /// Whether it can be set by UPDATE; GENERATED ALWAYS AS IDENTITY forbids it.
    pub(crate) can_be_set: bool,
    /// Whether two values are equal exactly when their texts are, so that `=` may stand for comparing texts.
    pub(crate) equality_is_by_text: bool,
    /// Whether it is part of the key.
    pub(crate) is_key: bool,
}

/// A column by which rows are found.
#[derive(Debug)]
pub(crate) struct KeyColumn {
    /// Index into [`Target::columns`].
    pub(crate) column: usize,
    /// The equality of the index over the key, `OPERATOR("schema".=)`: an extension's type has its own, and
    /// without it `citext` would be compared as `text`, past the index.
    pub(crate) equals: String,
}

impl Target {
    /// Finds the table that takes the changes of `relation`; makes it, or columns it lacks, when `create`.
    ///
    /// # Errors
    /// Halt when there is no such table, or none that changes could be applied to.
    pub(crate) async fn resolve(
        client: &Client,
        relation: &Arc<Relation>,
        id: u32,
        create: bool,
        logger: &Logger,
    ) -> Result<Self, SinkError> {
        let found = match Existing::look_up(client, relation).await? {
            Some(found) if found.missing_columns(relation).is_empty() => found,
            _ if create => {
                create::table_or_columns(client, relation, logger).await?;
                Existing::look_up(client, relation).await?.ok_or_else(|| absent(relation))?
            }
            Some(found) => return Err(lacks_columns(relation, &found.missing_columns(relation))),
            None => return Err(absent(relation)),
        };
        found.target_of(relation, id).map_err(SinkError::halt)
    }
}

fn absent(relation: &Relation) -> SinkError {
    SinkError::halt(format!(
        "table {relation} is not in the target; create it there (`pg_dump --schema-only -t` of the source) or set \
         create_tables = true"
    ))
}

fn lacks_columns(relation: &Relation, missing: &[&str]) -> SinkError {
    SinkError::halt(format!(
        "table {relation} of the target lacks {}; add with ALTER TABLE … ADD COLUMN or set create_tables = true",
        missing.join(", ")
    ))
}

/// What the target's catalog says of a table.
#[derive(Debug)]
pub(crate) struct Existing {
    kind: i8,
    columns: Vec<ExistingColumn>,
    /// Unique indexes that every row is in, as columns and the schema and name of their equality.
    unique: Vec<Vec<IndexColumn>>,
}

#[derive(Debug)]
struct ExistingColumn {
    name: String,
    type_sql: String,
    domain_base: Option<String>,
    is_generated: bool,
    is_identity_always: bool,
    equality_is_by_text: bool,
}

#[derive(Debug)]
struct IndexColumn {
    name: String,
    operator_schema: String,
    operator: String,
}

const COLUMNS: &str = "
    WITH RECURSIVE under AS (
        SELECT a.attnum, a.atttypid AS type, a.atttypmod AS modifier, false AS is_domain
          FROM pg_catalog.pg_attribute a
         WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped
        UNION ALL
        SELECT u.attnum, t.typbasetype, t.typtypmod, true
          FROM under u JOIN pg_catalog.pg_type t ON t.oid = u.type WHERE t.typtype = 'd')
    SELECT a.attname::text, pg_catalog.format_type(a.atttypid, a.atttypmod),
           CASE WHEN u.is_domain THEN pg_catalog.format_type(u.type, u.modifier) END,
           a.attgenerated <> '', a.attidentity = 'a',
           u.type = ANY ('{bool,int2,int4,int8,oid,uuid,date,timestamp,timestamptz,bytea}'::pg_catalog.regtype[])
      FROM pg_catalog.pg_attribute a
      JOIN under u USING (attnum)
      JOIN pg_catalog.pg_type t ON t.oid = u.type AND t.typtype <> 'd'
     WHERE a.attrelid = $1 ORDER BY a.attnum";

/// Strategy 3 of a btree operator class is its equality.
const UNIQUE_INDEXES: &str = "
    SELECT i.indexrelid, a.attname::text, n.nspname::text, o.oprname::text
      FROM pg_catalog.pg_index i
      CROSS JOIN LATERAL ROWS FROM (unnest(i.indkey::int2[]), unnest(i.indclass::oid[]))
                 WITH ORDINALITY AS k(attnum, class, place)
      JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
      JOIN pg_catalog.pg_opclass c ON c.oid = k.class
      JOIN pg_catalog.pg_amop m ON m.amopfamily = c.opcfamily AND m.amopstrategy = 3
                 AND m.amoplefttype = c.opcintype AND m.amoprighttype = c.opcintype
      JOIN pg_catalog.pg_operator o ON o.oid = m.amopopr
      JOIN pg_catalog.pg_namespace n ON n.oid = o.oprnamespace
      JOIN pg_catalog.pg_am am ON am.oid = c.opcmethod AND am.amname = 'btree'
     WHERE i.indrelid = $1 AND i.indisunique AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL
       AND k.place <= i.indnkeyatts
     ORDER BY i.indisprimary DESC, i.indexrelid, k.place";

impl Existing {
    /// What there is under the relation's name, if anything.
    pub(crate) async fn look_up(client: &Client, relation: &Relation) -> Result<Option<Self>, SinkError> {
        let doing = format!("look up table {relation} in the target");
        let failed = |error| error::of_server(&error, &doing);
        let name = "SELECT c.oid, c.relkind FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n \
                    ON n.oid = c.relnamespace WHERE n.nspname = $1 AND c.relname = $2";
        let Some(row) = client.query_opt(name, &[&relation.schema, &relation.name]).await.map_err(failed)?
        else {
            return Ok(None);
        };
        let (oid, kind): (u32, i8) = (row.get(0), row.get(1));
        let rows = client.query(COLUMNS, &[&oid]).await.map_err(failed)?;
        let columns = rows.iter().map(|row| ExistingColumn {
            name: row.get(0),
            type_sql: row.get(1),
            domain_base: row.get(2),
            is_generated: row.get(3),
            is_identity_always: row.get(4),
            equality_is_by_text: row.get(5),
        });
        let columns = columns.collect();
        let mut unique: Vec<(u32, Vec<IndexColumn>)> = Vec::new();
        for row in client.query(UNIQUE_INDEXES, &[&oid]).await.map_err(failed)? {
            let index: u32 = row.get(0);
            let column = IndexColumn { name: row.get(1), operator_schema: row.get(2), operator: row.get(3) };
            match unique.last_mut() {
                Some((last, columns)) if *last == index => columns.push(column),
                _ => unique.push((index, vec![column])),
            }
        }
        Ok(Some(Self { kind, columns, unique: unique.into_iter().map(|(_, columns)| columns).collect() }))
    }

    /// Columns of the relation that the table does not have.
    pub(crate) fn missing_columns<'r>(&self, relation: &'r Relation) -> Vec<&'r str> {
        let names = relation.columns.iter().map(|column| column.name.as_str());
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

    fn column(&self, name: &str) -> Option<&ExistingColumn> {
        self.columns.iter().find(|column| column.name == name)
    }

    /// How the relation's changes are written to it; what is wrong and the remedy when they can't be.
    pub(crate) fn target_of(&self, relation: &Arc<Relation>, id: u32) -> Result<Target, String> {
        if !matches!(self.kind as u8, b'r' | b'p') {
            return Err(format!(
                "{relation} of the target is not a table; rename it, so that the table can be created, or leave \
                 the table out of this sink's `tables`"
            ));
        }
        let found = |name: &str| self.column(name).filter(|column| !column.is_generated);
        let is_written: Vec<bool> =
            relation.columns.iter().map(|column| found(&column.name).is_some()).collect();
        let both = relation.columns.iter().filter_map(|ours| Some((ours, found(&ours.name)?)));
        let columns: Vec<TargetColumn> = both
            .map(|(ours, theirs)| TargetColumn {
                name: ident(&ours.name),
                domain_base: theirs.domain_base.clone(),
                can_be_set: !theirs.is_identity_always,
                equality_is_by_text: theirs.equality_is_by_text,
                is_key: ours.is_key,
            })
            .collect();
        let key = self.key_of(relation, &columns)?;
        let table = format!("{}.{}", ident(&relation.schema), ident(&relation.name));
        let is_partitioned = self.kind as u8 == b'p';
        Ok(Target { id, relation: Arc::clone(relation), table, columns, is_written, key, is_partitioned })
    }

    fn key_of(&self, relation: &Relation, columns: &[TargetColumn]) -> Result<Vec<KeyColumn>, String> {
        if !relation.has_key() {
            return Ok(Vec::new());
        }
        let wanted: Vec<&str> = relation
            .columns
            .iter()
            .filter(|column| column.is_key)
            .map(|column| column.name.as_str())
            .collect();
        let fits = |index: &&Vec<IndexColumn>| {
            index.len() == wanted.len() && index.iter().all(|column| wanted.contains(&column.name.as_str()))
        };
        let quoted: Vec<String> = wanted.iter().map(|name| ident(name)).collect();
        let Some(index) = self.unique.iter().find(fits) else {
            return Err(format!(
                "table {relation} of the target has no unique index over its key, without which every update would \
                 read the whole table; run CREATE UNIQUE INDEX ON {}.{} ({})",
                ident(&relation.schema),
                ident(&relation.name),
                quoted.join(", ")
            ));
        };
        let places = columns.iter().enumerate().filter(|(_, column)| column.is_key);
        let key: Vec<KeyColumn> = places
            .filter_map(|(place, column)| {
                let by = index.iter().find(|by| ident(&by.name) == column.name)?;
                let equals = format!("OPERATOR({}.{})", ident(&by.operator_schema), by.operator);
                Some(KeyColumn { column: place, equals })
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

/// Whether the target has a type of this name, as the source spells it.
pub(crate) async fn has_type(client: &Client, type_sql: &str) -> Result<bool, tokio_postgres::Error> {
    let sql = format!("SELECT pg_catalog.to_regtype({}) IS NOT NULL", literal(type_sql));
    Ok(client.query_one(&sql, &[]).await?.get(0))
}
