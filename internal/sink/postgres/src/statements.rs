//! Statements that change tables, in an open transaction, each of them logged.

use crate::error;
use replicator_sink::{ErrorKind, SinkError};
use slog::{Logger, info};
use tokio_postgres::Client;

/// What runs them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Statements<'a> {
    pub(crate) client: &'a Client,
    pub(crate) logger: &'a Logger,
    /// What for: for errors.
    pub(crate) doing: &'a str,
}

impl Statements<'_> {
    async fn execute(&self, sql: &str) -> Result<(), tokio_postgres::Error> {
        info!(self.logger, "changing the target's schema"; "statement" => sql);
        self.client.batch_execute(sql).await
    }

    /// Runs a statement that has to succeed.
    pub(crate) async fn run(&self, sql: &str) -> Result<(), SinkError> {
        self.execute(sql).await.map_err(|error| error::of_server(&error, self.doing))
    }

    /// Runs a statement that may be refused. The text is why it was; the transaction is as before then.
    pub(crate) async fn attempt(&self, sql: &str) -> Result<Result<(), String>, SinkError> {
        self.client
            .batch_execute("SAVEPOINT replicator_attempt")
            .await
            .map_err(|error| error::of_server(&error, self.doing))?;
        let Err(refusal) = self.execute(sql).await else {
            let released = self.client.batch_execute("RELEASE SAVEPOINT replicator_attempt").await;
            return released.map(Ok).map_err(|error| error::of_server(&error, self.doing));
        };
        let told = error::of_server(&refusal, self.doing);
        if told.kind() == ErrorKind::Retry {
            return Err(told);
        }
        let undone = self.client.batch_execute("ROLLBACK TO SAVEPOINT replicator_attempt").await;
        undone.map_err(|error| error::of_server(&error, self.doing))?;
        Ok(Err(refusal.as_db_error().map_or_else(|| refusal.to_string(), |error| error.message().to_owned())))
    }
}
