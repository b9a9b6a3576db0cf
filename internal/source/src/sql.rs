use crate::SourceError;
use crate::raw::SETTINGS;
use replicator_pgconn::{ConnectOptions, connect};
use std::sync::Arc;
use tokio::sync::Mutex;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Row};

/// A parameter of a query, with the type it is sent as.
pub(crate) type Parameter<'a> = (&'a (dyn ToSql + Sync), Type);

/// The connection for ordinary SQL: opened when first needed, and anew when it has broken. Shared by
/// everything that asks the source something beside the stream.
#[derive(Debug)]
pub(crate) struct Sql {
    options: ConnectOptions,
    client: Mutex<Option<Arc<Client>>>,
}

impl Sql {
    pub(crate) fn new(options: &ConnectOptions) -> Self {
        let values_alike =
            SETTINGS.iter().fold(options.clone(), |options, (name, value)| options.with_setting(name, value));
        let options = values_alike
            // Catalog queries take milliseconds. What takes this long is stuck behind something.
            .with_setting("statement_timeout", "60000")
            .with_setting("lock_timeout", "10000")
            .with_setting("default_transaction_read_only", "off")
            // What is asked to be in the WAL has to be flushed there, but need not be on any standby.
            .with_setting("synchronous_commit", "local");
        Self { options, client: Mutex::default() }
    }

    /// The connection.
    pub(crate) async fn client(&self) -> Result<Arc<Client>, SourceError> {
        let mut slot = self.client.lock().await;
        if let Some(client) = slot.as_ref().filter(|client| !client.is_closed()) {
            return Ok(Arc::clone(client));
        }
        let client = Arc::new(connect(&self.options).await?);
        *slot = Some(Arc::clone(&client));
        Ok(client)
    }

    /// A session of its own, for what lasts as long as the session does.
    pub(crate) async fn session(&self) -> Result<Client, SourceError> {
        let options = self.options.clone().with_setting("idle_session_timeout", "0");
        Ok(connect(&options).await?)
    }

    /// Runs a query that only reads. When the connection turns out to be broken it is run once more on a new
    /// one. `doing` goes into the error.
    pub(crate) async fn rows(
        &self,
        doing: &str,
        query: &str,
        parameters: &[Parameter<'_>],
    ) -> Result<Vec<Row>, SourceError> {
        let client = self.client().await?;
        match client.query_typed(query, parameters).await {
            Ok(rows) => Ok(rows),
            Err(error) if client.is_closed() || error.is_closed() => {
                self.forget(&client).await;
                let again = self.client().await?.query_typed(query, parameters).await;
                again.map_err(|error| SourceError::of_sql(doing, &error))
            }
            Err(error) => Err(SourceError::of_sql(doing, &error)),
        }
    }

    /// The same for a query that always answers with one row.
    pub(crate) async fn row(
        &self,
        doing: &str,
        query: &str,
        parameters: &[Parameter<'_>],
    ) -> Result<Row, SourceError> {
        let rows = self.rows(doing, query, parameters).await?;
        rows.into_iter().next().ok_or_else(|| SourceError::retry(format!("{doing}: the server sent no row")))
    }

    async fn forget(&self, broken: &Arc<Client>) {
        let mut slot = self.client.lock().await;
        if slot.as_ref().is_some_and(|client| Arc::ptr_eq(client, broken)) {
            *slot = None;
        }
    }
}

/// A column of a row; `doing` goes into the error when it is of another type than expected.
pub(crate) fn column<'a, T: tokio_postgres::types::FromSql<'a>>(
    row: &'a Row,
    name: &str,
    doing: &str,
) -> Result<T, SourceError> {
    row.try_get(name).map_err(|error| SourceError::of_sql(&format!("{doing}: column {name}"), &error))
}

/// A `pg_lsn` selected as text.
pub(crate) fn lsn(text: Option<&str>, doing: &str) -> Result<Option<replicator_types::Lsn>, SourceError> {
    let parse = |text: &str| text.parse().map_err(|error| SourceError::retry(format!("{doing}: {error}")));
    text.map(parse).transpose()
}
