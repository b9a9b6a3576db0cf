//! The type that a column gets in the target, where the source's own may be absent.
//!
//! ```text
//!   built in, or known here ─▶ itself
//!   enum                    ─▶ made: with the labels that the column needs now; others are added as they come (`enums`)
//!   domain, array of domains─▶ the built-in type under it, where there is one
//!   all else                ─▶ text: composites, ranges, types of extensions
//! ```
//! What came instead of the source's type is its *stand-in*. It takes every value's text as the source writes it.
//!
//! # Invariants
//! - Types are made and get labels outside of the transaction that uses them: a label cannot be used in the one that
//!   adds it. Each statement may run again, and a type that nothing came to use is no harm.
//! - A type of the target is used only if it is of the same sort: a name may have passed from an enum to a composite.
//!   The row type of a table is never used, since a table that others depend on cannot follow its own changes.
//!
//! Sources: <https://www.postgresql.org/docs/current/sql-createtype.html>,
//! <https://www.postgresql.org/docs/current/sql-altertype.html>.

use crate::enums;
use crate::error;
use crate::existing::Existing;
use crate::own_tables::StreamKey;
use crate::passage::FIRST_UNSTABLE_OID;
use crate::record::Record;
use crate::sql::{ident, literal, table};
use replicator_sink::{ErrorKind, SinkError};
use replicator_types::{Column, ColumnKind, Relation};
use slog::{Logger, info, warn};
use std::collections::BTreeSet;
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

/// So many labels an enum is given from the values of a column that becomes one.
const LABELS_MAX: i64 = 10_000;

/// For each type name: its place in the list, and of the type under domains and arrays whether it is an enum, whether
/// it is a table's row, its schema and its name.
const KNOWN_TYPES: &str = "
    WITH RECURSIVE under AS (
        SELECT w.place, pg_catalog.to_regtype(w.name)::oid AS type
          FROM unnest($1::text[]) WITH ORDINALITY AS w(name, place)
        UNION ALL
        SELECT u.place, CASE t.typtype WHEN 'd' THEN t.typbasetype ELSE t.typelem END
          FROM under u JOIN pg_catalog.pg_type t ON t.oid = u.type
         WHERE t.typtype = 'd' OR (t.typelem <> 0 AND t.typlen = -1))
    SELECT u.place, t.typtype = 'e', COALESCE(c.relkind <> 'c', false), n.nspname::text, t.typname::text
      FROM under u
      JOIN pg_catalog.pg_type t ON t.oid = u.type
      JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace
      LEFT JOIN pg_catalog.pg_class c ON c.oid = t.typrelid
     WHERE t.typtype <> 'd' AND NOT (t.typelem <> 0 AND t.typlen = -1)";

/// Takes any value's text.
pub(crate) const TEXT: &str = "text";

/// The types that the columns of a relation get.
#[derive(Clone, Debug, Default)]
pub(crate) struct Types {
    /// By column; none where it is the source's own.
    stand_ins: Vec<Option<String>>,
}

/// A type that the target knows.
#[derive(Debug)]
struct Known {
    is_row: bool,
    /// `"schema"."name"` of the enum, looked at through domains and arrays.
    enum_type: Option<String>,
}

/// What stands in for a type, before the target is asked for its name.
#[derive(Clone, PartialEq, Eq, Debug)]
enum StandIn {
    BuiltIn { type_oid: u32, modifier: i32, is_element: bool },
    Text,
}

/// `regproc`, `aclitem`, `regprocedure` to `regtype`, `regconfig`, `regdictionary`, `regnamespace`, `regrole`,
/// `regcollation`: their input functions look for an object of that name.
///
/// Source: <https://www.postgresql.org/docs/current/datatype-oid.html>; oids of `pg_type.dat`.
const NAMES_OF_OBJECTS: [u32; 12] = [24, 1033, 2202, 2203, 2204, 2205, 2206, 3734, 3769, 4089, 4096, 4191];

impl Types {
    /// The type of the column at `index`, as SQL.
    pub(crate) fn sql<'a>(&'a self, index: usize, column: &'a Column) -> &'a str {
        self.stand_in(index).unwrap_or(&column.type_sql)
    }

    /// What stands in for the type of the column at `index`, if anything.
    pub(crate) fn stand_in(&self, index: usize) -> Option<&str> {
        self.stand_ins.get(index)?.as_deref()
    }

    /// Values that name objects of the source go as texts: the target may have none of that name.
    fn of_names(relation: &Relation) -> Self {
        Self { stand_ins: relation.columns.iter().map(text_of_names).collect() }
    }

    /// Finds the types of the relation's columns, without making any: enums that are absent are as if they were there.
    pub(crate) async fn look_up(client: &Client, relation: &Relation) -> Result<Self, SinkError> {
        let known = known_types(client, relation).await?;
        let mut types = Self::of_names(relation);
        for (index, known) in known {
            let Some((column, place)) = relation.columns.get(index).zip(types.stand_ins.get_mut(index))
            else {
                continue;
            };
            if !is_used(known.as_ref(), column) && (known.is_some() || enum_name(column).is_none()) {
                *place = Some(stand_in_sql(client, relation, column).await?);
            }
        }
        Ok(types)
    }

    /// Finds the types of the relation's columns, and makes enums and labels that they need from the first.
    ///
    /// # Errors
    /// The connection; or a label could not be added.
    pub(crate) async fn make(
        client: &Client,
        key: &StreamKey,
        relation: &Relation,
        logger: &Logger,
    ) -> Result<Self, SinkError> {
        let known = known_types(client, relation).await?;
        let mut types = Self::of_names(relation);
        for (index, known) in known {
            let Some((column, place)) = relation.columns.get(index).zip(types.stand_ins.get_mut(index))
            else {
                continue;
            };
            let is_made = match (&known, enum_name(column)) {
                (Some(known), _) if is_used(Some(known), column) => {
                    if let Some(enum_type) = &known.enum_type {
                        for label in first_labels(client, key, relation, column).await? {
                            add_label(client, relation, enum_type, &label).await?;
                        }
                    }
                    true
                }
                (None, Some(name)) => {
                    let labels = first_labels(client, key, relation, column).await?;
                    make_enum(client, relation, name, &labels, logger).await?
                }
                _ => false,
            };
            if !is_made {
                let sql = stand_in_sql(client, relation, column).await?;
                info!(logger, "the target lacks a type; another one takes its values";
                    "table" => %relation, "column" => &column.name, "type" => &column.type_sql, "instead" => &sql);
                *place = Some(sql);
            }
        }
        Ok(types)
    }
}

/// What takes the column's values if they, or the elements of them, name objects of the source.
fn text_of_names(column: &Column) -> Option<String> {
    match column.kind {
        ColumnKind::Array { element_oid, .. } => {
            NAMES_OF_OBJECTS.contains(&element_oid).then(|| format!("{TEXT}[]"))
        }
        _ => NAMES_OF_OBJECTS.contains(&column.base_type_oid).then(|| TEXT.to_owned()),
    }
}

/// What the target knows of the columns' types that are not built in and need to be known, by index of the column.
async fn known_types(client: &Client, relation: &Relation) -> Result<Vec<(usize, Option<Known>)>, SinkError> {
    let is_users = |column: &Column| column.type_oid >= FIRST_UNSTABLE_OID && text_of_names(column).is_none();
    let users: Vec<(usize, &Column)> =
        relation.columns.iter().enumerate().filter(|(_, column)| is_users(column)).collect();
    if users.is_empty() {
        return Ok(Vec::new());
    }
    let names: Vec<&str> = users.iter().map(|(_, column)| column.type_sql.as_str()).collect();
    let rows = client.query(KNOWN_TYPES, &[&names]).await;
    let rows = rows.map_err(|error| error::of_server(&error, &format!("look up types of {relation}")))?;
    let mut known: Vec<(usize, Option<Known>)> = users.iter().map(|(index, _)| (*index, None)).collect();
    for row in rows {
        let place: i64 = row.get(0);
        let is_enum: bool = row.get(1);
        let found = Known { is_row: row.get(2), enum_type: is_enum.then(|| table(row.get(3), row.get(4))) };
        if let Some((_, known)) = usize::try_from(place - 1).ok().and_then(|place| known.get_mut(place)) {
            *known = Some(found);
        }
    }
    Ok(known)
}

/// Whether the type of the target takes the column's values.
fn is_used(known: Option<&Known>, column: &Column) -> bool {
    known.is_some_and(|known| !known.is_row && known.enum_type.is_some() == is_of_enum(column))
}

fn is_of_enum(column: &Column) -> bool {
    matches!(column.kind, ColumnKind::Enum | ColumnKind::Array { element_is_enum: true, .. })
}

/// The name of the enum that the column, or each element of it, is of, as SQL. None for a domain over one, whose own
/// name the stream does not tell.
fn enum_name(column: &Column) -> Option<&str> {
    match column.kind {
        ColumnKind::Enum if column.type_oid == column.base_type_oid => Some(&column.type_sql),
        // A quoted name ends in a quote.
        ColumnKind::Array { element_is_enum: true, .. } => column.type_sql.strip_suffix("[]"),
        _ => None,
    }
}

/// Built-in types have the same oid everywhere, see [`crate::passage`].
fn stand_in(column: &Column) -> StandIn {
    let is_built_in = |oid: u32| oid < FIRST_UNSTABLE_OID;
    match column.kind {
        _ if is_built_in(column.base_type_oid) => StandIn::BuiltIn {
            type_oid: column.base_type_oid,
            modifier: column.type_modifier,
            is_element: false,
        },
        ColumnKind::Array { element_oid, element_modifier, element_is_enum: false }
            if is_built_in(element_oid) =>
        {
            StandIn::BuiltIn { type_oid: element_oid, modifier: element_modifier, is_element: true }
        }
        _ => StandIn::Text,
    }
}

async fn stand_in_sql(client: &Client, relation: &Relation, column: &Column) -> Result<String, SinkError> {
    let StandIn::BuiltIn { type_oid, modifier, is_element } = stand_in(column) else {
        return Ok(TEXT.to_owned());
    };
    let sql = "SELECT pg_catalog.format_type(t.oid, $2) FROM pg_catalog.pg_type t WHERE t.oid = $1";
    let row = client.query_opt(sql, &[&type_oid, &modifier]).await;
    let row = row.map_err(|error| error::of_server(&error, &format!("look up types of {relation}")))?;
    Ok(match row {
        Some(row) => format!("{}{}", row.get::<_, String>(0), if is_element { "[]" } else { "" }),
        // A type of a newer server than the target.
        None => TEXT.to_owned(),
    })
}

/// Labels that are needed before a value comes: of the value that older rows have in a new column, and of the values
/// of a column that becomes an enum.
async fn first_labels(
    client: &Client,
    key: &StreamKey,
    relation: &Relation,
    column: &Column,
) -> Result<Vec<String>, SinkError> {
    let mut labels = BTreeSet::new();
    if let Some(text) = &column.missing_text {
        enums::labels_in(column, text, &mut labels);
    }
    let mut labels: Vec<String> = labels.into_iter().collect();
    for label in present_labels(client, key, relation, column).await? {
        if !labels.contains(&label) {
            labels.push(label);
        }
    }
    Ok(labels)
}

/// What is in a column that was of another type: the labels of the enum that it was of, in their order, or its values.
async fn present_labels(
    client: &Client,
    key: &StreamKey,
    relation: &Relation,
    column: &Column,
) -> Result<Vec<String>, SinkError> {
    let Some(record) = Record::load(client, key, relation.oid).await? else { return Ok(Vec::new()) };
    let known = record.column(column).filter(|known| known.type_sql != column.type_sql);
    let Some(known) = known else { return Ok(Vec::new()) };
    let existing = Existing::look_up(client, &record.schema, &record.name).await?;
    let Some(there) = existing.as_ref().and_then(|existing| existing.column(&known.name)) else {
        return Ok(Vec::new());
    };
    let (from, name) = (table(&record.schema, &record.name), ident(&known.name));
    let sql = if there.is_of_enum() {
        format!(
            "SELECT l.enumlabel::text FROM pg_catalog.pg_attribute a
               JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
               JOIN pg_catalog.pg_enum l ON l.enumtypid IN (t.oid, t.typelem, t.typbasetype)
              WHERE a.attrelid = {}::regclass AND a.attname = {} ORDER BY l.enumsortorder",
            literal(&from),
            literal(&known.name)
        )
    } else if matches!(column.kind, ColumnKind::Enum) {
        format!(
            "SELECT DISTINCT pg_catalog.format('%s', {name}) FROM {from} WHERE {name} IS NOT NULL LIMIT {LABELS_MAX}"
        )
    } else {
        return Ok(Vec::new());
    };
    let rows = client.query(&sql, &[]).await;
    let rows = rows.map_err(|error| error::of_server(&error, &format!("look for labels in {relation}")))?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// Makes an enum, and its schema. False where the target does not permit it, or a value is no label.
async fn make_enum(
    client: &Client,
    relation: &Relation,
    name: &str,
    labels: &[String],
    logger: &Logger,
) -> Result<bool, SinkError> {
    let quoted: Vec<String> = labels.iter().map(|label| literal(label)).collect();
    let mut statements = vec![format!("CREATE TYPE {name} AS ENUM ({})", quoted.join(", "))];
    if let Some(schema) = schema_of(name) {
        let is_absent = format!("SELECT pg_catalog.to_regnamespace({}) IS NULL", literal(schema));
        let row = client.query_one(&is_absent, &[]).await;
        let row = row.map_err(|error| error::of_server(&error, &format!("look up schema {schema}")))?;
        if row.get(0) {
            statements.insert(0, format!("CREATE SCHEMA {schema}"));
        }
    }
    for sql in statements {
        let Err(error) = client.batch_execute(&sql).await else {
            info!(logger, "changing the target's schema"; "statement" => &sql);
            continue;
        };
        // Another lane was here first.
        let there = [SqlState::DUPLICATE_OBJECT, SqlState::DUPLICATE_SCHEMA, SqlState::UNIQUE_VIOLATION];
        if error.code().is_some_and(|code| there.contains(code)) {
            continue;
        }
        let error = error::of_server(&error, &format!("make type {name} for {relation}"));
        if error.kind() == ErrorKind::Retry {
            return Err(error);
        }
        warn!(logger, "an enum cannot be made in the target"; "type" => name, "reason" => %error);
        return Ok(false);
    }
    Ok(true)
}

/// The schema of a qualified name as SQL: all before the point that is in no quotes.
fn schema_of(name: &str) -> Option<&str> {
    let mut is_quoted = false;
    let point = name.char_indices().find(|(_, letter)| {
        is_quoted ^= *letter == '"';
        *letter == '.' && !is_quoted
    });
    point.and_then(|(at, _)| name.get(..at))
}

/// Adds a label to an enum of the target, where it is absent.
///
/// # Errors
/// The connection; the role does not own the type; the text is too long for a label.
pub(crate) async fn add_label(
    client: &Client,
    relation: &Relation,
    enum_type: &str,
    label: &str,
) -> Result<(), SinkError> {
    let sql = format!("ALTER TYPE {enum_type} ADD VALUE IF NOT EXISTS {}", literal(label));
    let added = client.batch_execute(&sql).await;
    added.map_err(|error| error::of_server(&error, &format!("add label {label} to an enum of {relation}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use replicator_types::oid;

    fn column(type_sql: &str, base_type_oid: u32, kind: ColumnKind) -> Column {
        Column { type_oid: 20_000, base_type_oid, kind, type_sql: type_sql.into(), ..Column::default() }
    }

    #[test]
    fn a_domain_is_stood_in_for_by_the_type_under_it_and_all_else_by_text() {
        let under = |column| stand_in(&column);
        let built_in = |type_oid, is_element| StandIn::BuiltIn { type_oid, modifier: -1, is_element };
        let array = |element_oid, element_is_enum| ColumnKind::Array {
            element_oid,
            element_modifier: -1,
            element_is_enum,
        };
        assert_eq!(under(column("s.d", oid::INT4, ColumnKind::Scalar)), built_in(oid::INT4, false));
        assert_eq!(under(column("s.d", 3904, ColumnKind::Other)), built_in(3904, false), "over int4range");
        assert_eq!(under(column("s.d[]", 20_001, array(oid::INT4, false))), built_in(oid::INT4, true));
        assert_eq!(under(column("s.list", 1007, array(oid::INT4, false))), built_in(1007, false));
        assert_eq!(under(column("s.moods", 20_001, array(20_002, true))), StandIn::Text);
        assert_eq!(under(column("s.pair", 20_000, ColumnKind::Other)), StandIn::Text);
    }

    #[test]
    fn an_enum_is_made_under_its_own_name_only() {
        let array = ColumnKind::Array { element_oid: 20_000, element_modifier: -1, element_is_enum: true };
        assert_eq!(enum_name(&column("s.mood", 20_000, ColumnKind::Enum)), Some("s.mood"));
        assert_eq!(enum_name(&column("s.mood[]", 20_001, array.clone())), Some("s.mood"));
        assert_eq!(enum_name(&column("s.domain_over_mood", 20_001, ColumnKind::Enum)), None);
        assert_eq!(enum_name(&column("s.\"x[]\"", 20_001, array)), None, "a domain over an array");
        assert_eq!(schema_of("\"a.\"\"b\".\"c.d\""), Some("\"a.\"\"b\""));
        assert_eq!(schema_of("\"a.b\""), None);
    }
}
