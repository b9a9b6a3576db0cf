//! The changes that go row by row.
//!
//! - Updates and deletes of a table without a key, under REPLICA IDENTITY FULL. The old row is all there is to
//!   find the row by, and there may be several like it: exactly one of them is touched (a multiset loses one).
//!   Each reads the table until it meets the row, so such a table costs its size for every change.
//! - An update that changes the key of a row and leaves columns that only the target has: set what is known
//!   where the old key is.

use crate::error;
use crate::session::Session;
use crate::sql::Query;
use crate::target::Target;
use bytes::BytesMut;
use replicator_sink::SinkError;
use replicator_types::{Change, Op, Value};
use std::error::Error;
use tokio_postgres::types::{Format, IsNull, ToSql, Type, to_sql_checked};

/// A value as it came, in the form it came in, for a parameter of any type.
#[derive(Debug)]
struct Wire<'a>(Value<'a>);

impl ToSql for Wire<'_> {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        match self.0.bytes() {
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
        match self.0 {
            Value::Binary(_) => Format::Binary,
            Value::Null | Value::Unchanged | Value::Text(_) => Format::Text,
        }
    }

    to_sql_checked!();
}

/// Applies one update or delete of a keyless table. Returns how many rows it found, 0 or 1.
pub(crate) async fn keyless(
    session: &mut Session,
    target: &Target,
    change: &Change<'_>,
) -> Result<u64, SinkError> {
    let query = if change.op == Op::Delete { Query::DeleteOne } else { Query::UpdateOne };
    let Some(statement) = session.statement(target, query).await? else { return Ok(1) };
    let mut values: Vec<Wire<'_>> = Vec::with_capacity(target.columns.len() * 2);
    if change.op != Op::Delete {
        let new = written(target, change.new_values()).zip(&target.columns);
        values.extend(new.filter(|(_, column)| column.can_be_set).map(|(value, _)| Wire(value)));
    }
    if let Some(old) = change.old {
        values.extend(written(target, old.values()).map(Wire));
    }
    execute(session, &statement, &values, target, change).await
}

/// Applies an update that moves a row to another key. Returns how many rows it found, 0 or 1.
pub(crate) async fn move_row(
    session: &mut Session,
    target: &Target,
    change: &Change<'_>,
) -> Result<u64, SinkError> {
    let mut places = Vec::new();
    let mut values = Vec::new();
    for (place, value) in written(target, change.new_values()).enumerate() {
        let can_be_set = target.columns.get(place).is_some_and(|column| column.can_be_set);
        if value != Value::Unchanged && can_be_set {
            places.push(place);
            values.push(Wire(value));
        }
    }
    if let Some(key) = change.old_key_values() {
        values.extend(key.map(Wire));
    }
    let Some(sql) = target.update_by_key(&places) else { return Ok(1) };
    let client = session.client_in_transaction()?;
    let statement = client.prepare(&sql).await.map_err(|error| failed(&error, target, change))?;
    execute(session, &statement, &values, target, change).await
}

async fn execute(
    session: &Session,
    statement: &tokio_postgres::Statement,
    values: &[Wire<'_>],
    target: &Target,
    change: &Change<'_>,
) -> Result<u64, SinkError> {
    let client = session.client_in_transaction()?;
    let parameters: Vec<&(dyn ToSql + Sync)> =
        values.iter().map(|value| value as &(dyn ToSql + Sync)).collect();
    client.execute(statement, &parameters).await.map_err(|error| failed(&error, target, change))
}

/// The values of the columns that the target takes.
fn written<'v>(target: &Target, row: impl Iterator<Item = Value<'v>>) -> impl Iterator<Item = Value<'v>> {
    row.zip(&target.is_written).filter_map(|(value, is_written)| is_written.then_some(value))
}

fn failed(error: &tokio_postgres::Error, target: &Target, change: &Change<'_>) -> SinkError {
    error::of_server(error, &format!("write to {}, change {}", target.relation, change.position))
}
