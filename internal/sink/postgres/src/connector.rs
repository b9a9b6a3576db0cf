use crate::error;
use crate::fence::Fence;
use crate::origin;
use replicator_config::SynchronousCommit;
use replicator_pgconn::ConnectOptions;
use replicator_sink::SinkError;
use slog::{Logger, warn};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

/// The oldest server whose SQL is used here: generated columns' catalog, joins by ctid.
pub(crate) const SERVER_VERSION_MIN: i32 = 120_000;

/// Settings of a session, those that the server knows:
/// - texts in both directions as the source wrote them,
/// - nothing found by a path that somebody else sets,
/// - `Ok` means durable,
/// - a batch may take as long as it takes,
/// - plans whose cost is a batch's and not a table's: rows are reached by the index over the key,
/// - room for a batch's rows in a hash table, at least.
const SETTINGS: &str = "
    SELECT pg_catalog.set_config(s.name, CASE s.name WHEN 'work_mem' THEN
               CASE WHEN s.setting::pg_catalog.int8 > 65536 THEN s.setting ELSE v.value END ELSE v.value END, false)
      FROM (VALUES ('client_encoding', 'UTF8'), ('datestyle', 'ISO, YMD'), ('intervalstyle', 'postgres'),
                   ('timezone', 'UTC'), ('lc_monetary', 'C'), ('bytea_output', 'hex'), ('extra_float_digits', '3'),
                   ('xmloption', 'content'), ('standard_conforming_strings', 'on'),
                   ('search_path', ''), ('synchronous_commit', '{synchronous_commit}'),
                   ('statement_timeout', '0'), ('lock_timeout', '0'), ('transaction_timeout', '0'),
                   ('idle_in_transaction_session_timeout', '0'), ('idle_session_timeout', '0'),
                   ('default_transaction_isolation', 'read committed'),
                   ('default_transaction_read_only', 'off'),
                   ('enable_hashjoin', 'off'), ('enable_mergejoin', 'off'), ('enable_seqscan', 'off'),
                   ('work_mem', '64MB'), ('jit', 'off')) AS v(name, value)
      JOIN pg_catalog.pg_settings s ON pg_catalog.lower(s.name) = v.name";

/// Makes sessions in the target.
#[derive(Debug)]
pub(crate) struct Connector {
    options: ConnectOptions,
    /// Whether what sessions write carries a replication origin.
    origin: bool,
    synchronous_commit: SynchronousCommit,
    logger: Logger,
    has_warned: AtomicBool,
    /// What sessions have to join that write for the stream; none before [`Connector::fence_in`].
    fence: Mutex<Option<Fence>>,
}

impl Connector {
    pub(crate) fn new(
        options: ConnectOptions,
        origin: bool,
        synchronous_commit: SynchronousCommit,
        logger: Logger,
    ) -> Self {
        let (has_warned, fence) = (AtomicBool::new(false), Mutex::default());
        Self { options, origin, synchronous_commit, logger, has_warned, fence }
    }

    /// From now on sessions write only as long as the fence's claim stands.
    pub(crate) fn fence_in(&self, fence: Fence) {
        *self.fence.lock().unwrap_or_else(PoisonError::into_inner) = Some(fence);
    }

    pub(crate) fn logger(&self) -> &Logger {
        &self.logger
    }

    /// Whether what sessions write carries a replication origin.
    pub(crate) fn takes_origins(&self) -> bool {
        self.origin
    }

    /// A connection with the target's own settings.
    pub(crate) async fn connect(&self) -> Result<Client, SinkError> {
        replicator_pgconn::connect(&self.options).await.map_err(|error| error::of_connect(&error))
    }

    /// A connection to apply changes with.
    pub(crate) async fn open(&self) -> Result<Client, SinkError> {
        let client = self.open_to_prepare().await?;
        // Behind the fence, which ends the sessions of an earlier process and what they have taken.
        if self.origin {
            origin::take(&client).await?;
        }
        Ok(client)
    }

    /// The same before there is a fence, to make ready what is not replicated.
    pub(crate) async fn open_to_prepare(&self) -> Result<Client, SinkError> {
        let client = self.connect().await?;
        let doing = "set up a session in the target";
        let settings = SETTINGS.replace("{synchronous_commit}", self.synchronous_commit.word());
        client.batch_execute(&settings).await.map_err(|error| error::of_server(&error, doing))?;
        match client.batch_execute("SET session_replication_role = replica").await {
            Ok(()) => {}
            Err(error) if error.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE) => {
                if !self.has_warned.swap(true, Ordering::Relaxed) {
                    warn!(self.logger, "{}", ROLE_NOT_PERMITTED);
                }
            }
            Err(error) => return Err(error::of_server(&error, doing)),
        }
        let fence = self.fence.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(fence) = fence {
            fence.join(&client).await?;
        }
        Ok(client)
    }
}

/// What follows where `session_replication_role` cannot be set.
pub(crate) const ROLE_NOT_PERMITTED: &str = "the sink's role may not set session_replication_role: triggers and foreign \
     keys of the target's tables act on replicated changes, and may refuse them; on 15 and later run GRANT SET ON \
     PARAMETER session_replication_role TO the role, before that make it a superuser";
