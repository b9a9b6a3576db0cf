//! The changes that go row by row.
//!
//! - Updates and deletes of a table without a key, under REPLICA IDENTITY FULL. The old row is all there is to
//!   find the row by, and there may be several like it: exactly one of them is touched (a multiset loses one).
//!   Each reads the table until it meets the row, so many at once go another way, see `multiset`.
//! - An update that changes the key of a row and leaves columns that only the target has: set what is known
//!   where the old key is. So it goes with any update that leaves some in a table of as many columns as there can be:
//!   what tells which would be one more.

use crate::failure::Failure;
use crate::plan::bad_value;
use crate::session::Session;
use crate::sql::Query;
use crate::target::Target;
use bytes::BytesMut;
use replicator_sink::SinkError;
use replicator_types::{Change, Column, Op, Value};
use std::error::Error;
use std::ops::Range;
use tokio_postgres::types::{Format, IsNull, ToSql, Type, to_sql_checked};

/// The texts of parameters, in one buffer.
#[derive(Debug, Default)]
struct Texts {
    bytes: Vec<u8>,
    places: Vec<Option<Range<usize>>>,
}

impl Texts {
    fn add(&mut self, target: &Target, column: &Column, value: Value<'_>) -> Result<(), SinkError> {
        let start = self.bytes.len();
        match value {
            Value::Null | Value::Unchanged => {
                self.places.push(None);
                return Ok(());
            }
            Value::Text(text) => self.bytes.extend_from_slice(text),
            // The parameter's type is the target column's, which may be another.
            Value::Binary(binary) => pgvalue::write_text(column, binary, &mut self.bytes)
                .map_err(|error| bad_value(&target.relation, error))?,
        }
        self.places.push(Some(start..self.bytes.len()));
        Ok(())
    }

    fn parameters(&self) -> Vec<Parameter<'_>> {
        let text =
            |place: &Option<Range<usize>>| Parameter(place.clone().and_then(|place| self.bytes.get(place)));
        self.places.iter().map(text).collect()
    }
}

/// A value's text, for a parameter of any type.
#[derive(Debug)]
struct Parameter<'a>(Option<&'a [u8]>);

impl ToSql for Parameter<'_> {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        match self.0 {
            Some(bytes) => {
                out.extend_from_slice(bytes);
                Ok(IsNull::No)
            }
            None => Ok(IsNull::Yes),
        }
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    fn encode_format(&self, _: &Type) -> Format {
        Format::Text
    }

    to_sql_checked!();
}

/// Applies one update or delete of a keyless table. Returns how many rows it found, 0 or 1.
pub(crate) async fn keyless(
    session: &mut Session,
    target: &Target,
    change: &Change<'_>,
) -> Result<u64, Failure> {
    let query = if change.op == Op::Delete { Query::DeleteOne } else { Query::UpdateOne };
    let Some(statement) = session.statement(target, query).await? else { return Ok(1) };
    let mut texts = Texts::default();
    if change.op != Op::Delete {
        for (place, (column, value)) in written(target, change.new_values()).enumerate() {
            if can_be_set(target, place) {
                texts.add(target, column, value)?;
            }
        }
    }
    if let Some(old) = change.old {
        for (column, value) in written(target, old.values()) {
            texts.add(target, column, value)?;
        }
    }
    execute(session, &statement, &texts, target, change).await
}

/// Applies an update of one row, which it moves to another key if that is another. Returns how many rows it found, 0 or 1.
pub(crate) async fn move_row(
    session: &mut Session,
    target: &Target,
    change: &Change<'_>,
) -> Result<u64, Failure> {
    match change.old_key_values() {
        Some(key) if change.key_changed => update(session, target, change, key).await,
        _ => update(session, target, change, change.key_values()).await,
    }
}

/// The same, where the row may have been moved before: by the copy that brought it, or by an earlier try. What is
/// at the new key gets the values that are known then, and what is at the old one goes.
pub(crate) async fn move_row_if_not_moved(
    session: &mut Session,
    target: &Target,
    change: &Change<'_>,
) -> Result<(), Failure> {
    if update(session, target, change, change.key_values()).await? == 0 {
        move_row(session, target, change).await?;
        return Ok(());
    }
    let (Some(sql), Some(old)) = (target.delete_other_key(), change.old_key_values()) else { return Ok(()) };
    let mut texts = Texts::default();
    add_key(&mut texts, target, old)?;
    add_key(&mut texts, target, change.key_values())?;
    execute_text(session, &sql, &texts, target, change).await.map(drop)
}

/// Sets what is known of the row with this key.
async fn update<'v>(
    session: &mut Session,
    target: &Target,
    change: &Change<'_>,
    key: impl Iterator<Item = Value<'v>>,
) -> Result<u64, Failure> {
    let mut places = Vec::new();
    let mut texts = Texts::default();
    for (place, (column, value)) in written(target, change.new_values()).enumerate() {
        if value != Value::Unchanged && can_be_set(target, place) {
            places.push(place);
            texts.add(target, column, value)?;
        }
    }
    add_key(&mut texts, target, key)?;
    let Some(sql) = target.update_by_key(&places) else { return Ok(1) };
    execute_text(session, &sql, &texts, target, change).await
}

fn add_key<'v>(
    texts: &mut Texts,
    target: &Target,
    key: impl Iterator<Item = Value<'v>>,
) -> Result<(), SinkError> {
    let columns = target.relation.columns.iter().filter(|column| column.is_key);
    key.zip(columns).try_for_each(|(value, column)| texts.add(target, column, value))
}

fn can_be_set(target: &Target, place: usize) -> bool {
    target.columns.get(place).is_some_and(|column| column.can_be_set)
}

async fn execute_text(
    session: &Session,
    sql: &str,
    texts: &Texts,
    target: &Target,
    change: &Change<'_>,
) -> Result<u64, Failure> {
    let prepared = session.client_in_transaction()?.prepare(sql).await;
    let statement = prepared.map_err(|error| failed(&error, target, change))?;
    execute(session, &statement, texts, target, change).await
}

async fn execute(
    session: &Session,
    statement: &tokio_postgres::Statement,
    texts: &Texts,
    target: &Target,
    change: &Change<'_>,
) -> Result<u64, Failure> {
    let client = session.client_in_transaction()?;
    let values = texts.parameters();
    let parameters: Vec<&(dyn ToSql + Sync)> =
        values.iter().map(|value| value as &(dyn ToSql + Sync)).collect();
    client.execute(statement, &parameters).await.map_err(|error| failed(&error, target, change))
}

/// The values of the columns that the target takes.
fn written<'t, 'v>(
    target: &'t Target,
    row: impl Iterator<Item = Value<'v>>,
) -> impl Iterator<Item = (&'t Column, Value<'v>)> {
    let columns = target.relation.columns.iter().zip(&target.is_written);
    row.zip(columns).filter_map(|(value, (column, is_written))| is_written.then_some((column, value)))
}

fn failed(error: &tokio_postgres::Error, target: &Target, change: &Change<'_>) -> Failure {
    Failure::of_one(error, target, &format!("write to {}, change {}", target.relation, change.position))
}
