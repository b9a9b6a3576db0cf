//! Marks of batches that a second try must not apply again: `replicator.copied`.
//!
//! A batch of the stream is known by the checkpoint. Copied rows, and a keyless table's changes that were held back
//! while it was copied, are beside the checkpoint: their batches leave a row here in the transaction that applies
//! them. The row's key makes a second try wait for a `COMMIT` that is still under way.

use crate::checkpoint;
use crate::error;
use crate::own_tables::{OF_STREAM, StreamKey};
use replicator_sink::SinkError;
use replicator_types::Position;
use tokio_postgres::Client;

/// What such a batch is known by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Mark {
    /// A table of the batch.
    pub(crate) relation_oid: u32,
    /// The table's first change in it.
    pub(crate) first: Position,
}

fn failed(error: &tokio_postgres::Error) -> SinkError {
    error::of_server(error, "keep replicator.copied")
}

impl Mark {
    /// Leaves the mark in the open transaction. False when it is there already.
    pub(crate) async fn leave(self, client: &Client, key: &StreamKey) -> Result<bool, SinkError> {
        let (lsn, ordinal) = checkpoint::columns(self.first)?;
        let sql = "INSERT INTO replicator.copied \
                   (sink, system_identifier, slot, relation_oid, first_commit_lsn, first_ordinal) \
                   VALUES ($1, $2::text::numeric, $3, $4, $5, $6) ON CONFLICT DO NOTHING";
        let mut parameters = key.parameters().to_vec();
        parameters.extend([&self.relation_oid as &(dyn tokio_postgres::types::ToSql + Sync), &lsn, &ordinal]);
        Ok(client.execute(sql, &parameters).await.map_err(|error| failed(&error))? == 1)
    }
}

/// Forgets the marks of a table.
pub(crate) async fn forget(client: &Client, key: &StreamKey, relation_oid: u32) -> Result<(), SinkError> {
    let sql = format!("DELETE FROM replicator.copied WHERE {OF_STREAM} AND relation_oid = $4");
    let mut parameters = key.parameters().to_vec();
    parameters.push(&relation_oid);
    client.execute(&sql, &parameters).await.map(drop).map_err(|error| failed(&error))
}
