//! Labels that an enum gained at the source.
//!
//! A label is added when a value arrives that the target does not know: the server refuses the batch, the batch is
//! searched for the values of enum columns, and the labels that the target's types lack are added. That is outside of
//! the batch's transaction, since a label cannot be used in the transaction that adds it. It costs nothing as long as
//! no label is new.
//!
//! Labels are added at the end: what order they have at the source does not come with the stream.
//!
//! Source: <https://www.postgresql.org/docs/current/sql-altertype.html>, notes on `ADD VALUE`.

use crate::error;
use crate::plan::{Plan, bad_value};
use crate::session::Session;
use crate::sql::{ident, table};
use crate::target::Target;
use crate::types;
use replicator_sink::SinkError;
use replicator_types::{Batch, Column, ColumnKind, Value};
use slog::info;
use std::collections::BTreeSet;
use std::sync::Arc;
use tokio_postgres::Client;

/// An enum column of the target: its name, and the enum's schema, name and labels. Domains and arrays are looked
/// through.
const ENUM_COLUMNS: &str = "
    WITH RECURSIVE under AS (
        SELECT a.attname, a.atttypid AS type FROM pg_catalog.pg_attribute a
         WHERE a.attrelid = pg_catalog.to_regclass($1) AND a.attnum > 0 AND NOT a.attisdropped
        UNION ALL
        SELECT u.attname, CASE t.typtype WHEN 'd' THEN t.typbasetype ELSE t.typelem END
          FROM under u JOIN pg_catalog.pg_type t ON t.oid = u.type
         WHERE t.typtype = 'd' OR (t.typelem <> 0 AND t.typlen = -1))
    SELECT u.attname::text, n.nspname::text, e.typname::text,
           ARRAY(SELECT l.enumlabel::text FROM pg_catalog.pg_enum l WHERE l.enumtypid = e.oid)
      FROM under u
      JOIN pg_catalog.pg_type e ON e.oid = u.type AND e.typtype = 'e'
      JOIN pg_catalog.pg_namespace n ON n.oid = e.typnamespace";

/// Adds the labels that the batch has and the target lacks. False when the batch has no enums. Where nothing is lacking,
/// another lane has added it just now.
pub(crate) async fn add_missing(
    session: &mut Session,
    plan: &Plan,
    batch: Option<&Batch>,
) -> Result<bool, SinkError> {
    let Some(batch) = batch else { return Ok(false) };
    let client = session.client().await?;
    let mut has_enums = false;
    for target in plan.targets().filter(|target| target.has_enums()) {
        has_enums = true;
        for (enum_type, label) in missing(&client, target, batch).await? {
            info!(session.connector().logger(), "an enum has a new label"; "type" => &enum_type, "label" => &label);
            types::add_label(&client, &target.relation, &enum_type, &label).await?;
        }
    }
    Ok(has_enums)
}

/// The labels that an enum of one table lacks: the enum's name, quoted, with each.
async fn missing(
    client: &Client,
    target: &Arc<Target>,
    batch: &Batch,
) -> Result<Vec<(String, String)>, SinkError> {
    let rows = client.query(ENUM_COLUMNS, &[&target.table]).await;
    let rows =
        rows.map_err(|error| error::of_server(&error, &format!("look up enums of {}", target.relation)))?;
    let mut missing = Vec::new();
    let mut place = 0;
    for (index, is_written) in target.is_written.iter().enumerate() {
        if !is_written {
            continue;
        }
        let name = target.columns.get(place).map(|column| column.name.as_str()).unwrap_or_default();
        place += 1;
        let Some(row) = rows.iter().find(|row| ident(row.get(0)) == name) else { continue };
        let known: Vec<String> = row.get(3);
        let enum_type = table(row.get(1), row.get(2));
        for label in labels_of(target, batch, index)? {
            if !known.contains(&label) {
                missing.push((enum_type.clone(), label));
            }
        }
    }
    Ok(missing)
}

/// The labels that the batch has in a column.
fn labels_of(target: &Target, batch: &Batch, index: usize) -> Result<BTreeSet<String>, SinkError> {
    let mut labels = BTreeSet::new();
    let Some(column) = target.relation.columns.get(index) else { return Ok(labels) };
    let mut text = Vec::new();
    for change in batch.changes().filter(|change| Arc::ptr_eq(change.relation, &target.relation)) {
        for tuple in [change.old, change.new].into_iter().flatten() {
            text.clear();
            match tuple.value(index) {
                Value::Null | Value::Unchanged => continue,
                Value::Text(value) => text.extend_from_slice(value),
                Value::Binary(value) => pgvalue::write_text(column, value, &mut text)
                    .map_err(|error| bad_value(&target.relation, error))?,
            }
            labels_in(column, &String::from_utf8_lossy(&text), &mut labels);
        }
    }
    Ok(labels)
}

/// The labels in one value of a column.
pub(crate) fn labels_in(column: &Column, value: &str, out: &mut BTreeSet<String>) {
    match column.kind {
        ColumnKind::Array { .. } => elements(value, out),
        _ => {
            out.insert(value.to_owned());
        }
    }
}

/// The elements of an array's text, those that are not NULL.
///
/// Source: <https://www.postgresql.org/docs/current/arrays.html#ARRAYS-IO>.
fn elements(text: &str, out: &mut BTreeSet<String>) {
    // Lower bounds, where they are not 1, stand before the braces.
    let body = text.find('{').and_then(|start| text.get(start..)).unwrap_or_default();
    let (mut element, mut is_quoted, mut was_quoted) = (String::new(), false, false);
    let mut letters = body.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '\\' => element.extend(letters.next()),
            '"' => {
                is_quoted = !is_quoted;
                was_quoted = true;
            }
            '{' if !is_quoted => {}
            '}' | ',' if !is_quoted => {
                if was_quoted || !(element.is_empty() || element == "NULL") {
                    out.insert(std::mem::take(&mut element));
                }
                element.clear();
                was_quoted = false;
            }
            other => element.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_arrays_elements_are_read_whatever_they_look_like() {
        let of = |text| {
            let mut out = BTreeSet::new();
            elements(text, &mut out);
            out.into_iter().collect::<Vec<_>>()
        };
        assert_eq!(of("{a,NULL,\"NULL\",\"b,c\",\"d\\\"\\\\}\"}"), ["NULL", "a", "b,c", "d\"\\}"]);
        assert_eq!(of("[0:1][1:2]={{a,b},{c,\"\"}}"), ["", "a", "b", "c"]);
        assert!(of("{}").is_empty() && of("").is_empty());
    }
}
