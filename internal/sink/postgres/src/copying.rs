//! The beginning and the end of a table's copy.
//!
//! ```text
//!   begin: emptied if asked for ─▶ table made or brought to the snapshot's version ─▶ marks forgotten
//!   rows:  copy lanes (see `copy_plan`), each batch with its mark in `replicator.copied`
//!   end:   marks forgotten ─▶ ANALYZE
//! ```
//! Beginning and end commit without waiting for the disk ([`open`]): what comes after them in the target's WAL, the
//! note that the copy has begun and its rows, does. For the rows `synchronous_commit` stays as it is: what the pipeline notes
//! as copied has to be on disk, and a batch of some megabytes makes one wait for the disk cheap.

use crate::connector::Connector;
use crate::copied;
use crate::error;
use crate::record::Record;
use crate::resolve::{Occasion, Resolver};
use crate::sql::table;
use crate::target::Target;
use replicator_sink::{SinkError, TableCopy};
use slog::warn;
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

/// A connection for what is here. The server flushes its WAL in order, so that nothing which is built on these
/// transactions can outlive them.
pub(crate) async fn open(connector: &Connector) -> Result<Client, SinkError> {
    let client = connector.open().await?;
    let set = client.batch_execute("SET synchronous_commit = off").await;
    set.map_err(|error| error::of_server(&error, "set up a session in the target"))?;
    Ok(client)
}

/// Makes the table ready, and tells whether it is empty.
pub(crate) async fn begin(client: &Client, resolver: &Resolver, copy: &TableCopy) -> Result<bool, SinkError> {
    if copy.empty_first && resolver.is_there(client, copy.relation.oid).await? {
        // The rows that are there may fit no column and no key of the new version.
        let target = resolver.resolve(client, &copy.relation, 0, 0, Occasion::Early).await?;
        empty(client, &target, &format!("empty table {} of the target before its copy", copy.relation))
            .await?;
    }
    let occasion = if copy.is_resumed { Occasion::Copying } else { Occasion::Copy };
    let target = resolver.resolve(client, &copy.relation, 0, 0, occasion).await?;
    let doing = format!("make table {} of the target ready for its copy", copy.relation);
    let failed = |error| error::of_server(&error, &doing);
    client.batch_execute("BEGIN").await.map_err(failed)?;
    let done = async {
        // A batch of an earlier copy says nothing of this one's.
        copied::forget(client, &resolver.key, copy.relation.oid).await?;
        let sql = format!("SELECT NOT EXISTS (SELECT FROM {}{})", only(&target), target.table);
        let row = client.query_one(&sql, &[]).await.map_err(failed)?;
        let is_empty: bool = row.get(0);
        if copy.empty_first && !is_empty {
            empty(client, &target, &doing).await?;
        }
        Ok(is_empty || copy.empty_first)
    };
    match done.await {
        Ok(is_empty) => client.batch_execute("COMMIT").await.map_err(failed).map(|()| is_empty),
        Err(error) => {
            // What is told is why it failed.
            let _ = client.batch_execute("ROLLBACK").await;
            Err(error)
        }
    }
}

/// Rows of a table's heirs are not the table's; those of its partitions are.
fn only(target: &Target) -> &'static str {
    if target.is_partitioned { "" } else { "ONLY " }
}

async fn empty(client: &Client, target: &Target, doing: &str) -> Result<(), SinkError> {
    // As with truncates of the source: what else refers to the rows is not ours to empty.
    let truncated = client.batch_execute(&format!("TRUNCATE {}{}", only(target), target.table)).await;
    truncated.map_err(|error| {
        if error.code() == Some(&SqlState::FEATURE_NOT_SUPPORTED) {
            return SinkError::halt(format!(
                "{doing}: {}; drop the foreign keys of the target that refer to the table, or empty the tables that they \
                 are on as well, then start again",
                error.as_db_error().map_or_else(|| error.to_string(), |error| error.message().to_owned())
            ));
        }
        error::of_server(&error, doing)
    })
}

/// Puts away what the copy needed.
pub(crate) async fn end(client: &Client, resolver: &Resolver, copy: &TableCopy) -> Result<(), SinkError> {
    copied::forget(client, &resolver.key, copy.relation.oid).await?;
    let Some(record) = Record::load(client, &resolver.key, copy.relation.oid).await? else { return Ok(()) };
    // Without it the server knows nothing of the rows until autovacuum comes by. Not having it is no failure.
    if let Err(error) =
        client.batch_execute(&format!("ANALYZE {}", table(&record.schema, &record.name))).await
    {
        let error = error::of_server(&error, &format!("analyze {}", copy.relation));
        warn!(resolver.logger, "a copied table was not analyzed"; "reason" => %error);
    }
    Ok(())
}
