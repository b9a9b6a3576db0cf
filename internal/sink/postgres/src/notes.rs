//! Notes in the target: `replicator.notes`. As durable as the rows, since they lie in the same database.

use crate::error;
use crate::own_tables::{OF_STREAM, StreamKey};
use replicator_sink::SinkError;
use std::collections::BTreeMap;
use tokio_postgres::Client;
use tokio_postgres::types::ToSql;

/// Keys that begin like this are the sink's own, and are not shown to who asks for notes.
pub(crate) const OWN_PREFIX: &str = "schema/";

fn failed(error: &tokio_postgres::Error) -> SinkError {
    error::of_server(error, "keep replicator.notes")
}

/// Every note of the stream, the sink's own among them.
pub(crate) async fn all(client: &Client, key: &StreamKey) -> Result<BTreeMap<String, String>, SinkError> {
    let sql = format!("SELECT key, value FROM replicator.notes WHERE {OF_STREAM}");
    let rows = client.query(&sql, &key.parameters()).await.map_err(|error| failed(&error))?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}

/// The sink's own notes that say so of a table's place.
pub(crate) async fn of_place(
    client: &Client,
    key: &StreamKey,
    schema: &str,
    name: &str,
) -> Result<Vec<(String, String)>, SinkError> {
    // Looked for among the texts first: a note of another place is not worth its parsing.
    let sql = format!(
        "SELECT key, value FROM replicator.notes WHERE {OF_STREAM} AND pg_catalog.starts_with(key, '{OWN_PREFIX}') \
         AND pg_catalog.strpos(value, pg_catalog.to_json($5::text)::text) > 0 \
         AND value::json ->> 'schema' = $4 AND value::json ->> 'name' = $5"
    );
    let mut parameters = key.parameters().to_vec();
    parameters.extend([&schema as &(dyn ToSql + Sync), &name]);
    let rows = client.query(&sql, &parameters).await.map_err(|error| failed(&error))?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}

/// One note.
pub(crate) async fn get(client: &Client, key: &StreamKey, note: &str) -> Result<Option<String>, SinkError> {
    let sql = format!("SELECT value FROM replicator.notes WHERE {OF_STREAM} AND key = $4");
    let mut parameters = key.parameters().to_vec();
    parameters.push(&note);
    let row = client.query_opt(&sql, &parameters).await.map_err(|error| failed(&error))?;
    Ok(row.map(|row| row.get(0)))
}

/// Keeps a note, or removes it.
pub(crate) async fn put(
    client: &Client,
    key: &StreamKey,
    note: &str,
    value: Option<&str>,
) -> Result<(), SinkError> {
    let mut parameters = key.parameters().to_vec();
    parameters.push(&note);
    let done = match &value {
        Some(value) => {
            parameters.push(value);
            let sql = "INSERT INTO replicator.notes (sink, system_identifier, slot, key, value) \
                       VALUES ($1, $2::text::numeric, $3, $4, $5) \
                       ON CONFLICT (sink, system_identifier, slot, key) \
                       DO UPDATE SET value = EXCLUDED.value, updated_at = pg_catalog.clock_timestamp()";
            client.execute(sql, &parameters).await
        }
        None => {
            let sql = format!("DELETE FROM replicator.notes WHERE {OF_STREAM} AND key = $4");
            client.execute(&sql, &parameters).await
        }
    };
    done.map(drop).map_err(|error| failed(&error))
}
