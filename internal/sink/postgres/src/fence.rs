//! One process at a time writes for a stream: the fence that a target can keep by itself.
//!
//! ```text
//!   process 2                                   a session of process 1          a new session of process 1
//!   writes its claim  ──────────────────────────── may still commit ──────────── shared lock, then reads the claim:
//!   ends who holds the stream's lock ───────────▶ ended                            not its own: refused
//!   nobody holds it: reads, and writes
//! ```
//! Every session that writes for the stream holds an advisory lock, shared, for as long as it lives, and looks at the
//! claim when it has it. So a session of an earlier process either had the lock when its holders were looked for, and was
//! ended, or reads the later claim. Whatever that process does once the next one has begun – a batch in mid-transaction,
//! copied rows, a note, a `TRUNCATE` – comes too late, without a check in any transaction.
//!
//! Source: <https://www.postgresql.org/docs/current/explicit-locking.html#ADVISORY-LOCKS>, `pg_locks` for the columns.

use crate::error;
use crate::notes;
use crate::own_tables::StreamKey;
use replicator_sink::SinkError;
use slog::{Logger, warn};
use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};
use tokio_postgres::Client;
use tokio_postgres::types::ToSql;

/// The note that says which process may write.
pub(crate) const CLAIM: &str = "fence";

/// How long the sessions of an earlier process may take to end, once told to.
const END_MAX: Duration = Duration::from_secs(10);
const END_POLL: Duration = Duration::from_millis(20);

const NUMBER: &str = "pg_catalog.hashtextextended('replicator fence ' || $1 || '/' || $2 || '/' || $3, 0)";

/// A process' claim to a stream's place in the target.
#[derive(Clone, Debug)]
pub(crate) struct Fence {
    key: StreamKey,
    /// A text that no other process has.
    claim: String,
}

impl Fence {
    /// Claims the place and ends whatever an earlier process still has open there. When it is done no session but those
    /// that join this claim can write for the stream.
    pub(crate) async fn put_up(client: &Client, key: StreamKey, logger: &Logger) -> Result<Self, SinkError> {
        let claim = format!("{:016x}{:016x}", RandomState::new().hash_one(0), RandomState::new().hash_one(1));
        notes::put(client, &key, CLAIM, Some(&claim)).await?;
        let fence = Self { key, claim };
        let begun = Instant::now();
        let mut told = false;
        loop {
            let ended = fence.end_earlier(client).await?;
            if ended == 0 {
                return Ok(fence);
            }
            if !std::mem::replace(&mut told, true) {
                warn!(logger, "an earlier process still had sessions in the target, which were ended"; "sessions" => ended);
            }
            if begun.elapsed() > END_MAX {
                return Err(SinkError::retry(format!(
                    "{ended} sessions of an earlier process do not end in the target; `SELECT * FROM pg_locks WHERE \
                     locktype = 'advisory'` there has them"
                )));
            }
            tokio::time::sleep(END_POLL).await;
        }
    }

    /// Tells the sessions that hold the lock to end; how many there are.
    async fn end_earlier(&self, client: &Client) -> Result<i64, SinkError> {
        let sql = format!(
            "SELECT pg_catalog.count(pg_catalog.pg_terminate_backend(l.pid)) FROM pg_catalog.pg_locks l \
             CROSS JOIN (SELECT {NUMBER} AS number) k \
             WHERE l.locktype = 'advisory' AND l.objsubid = 1 AND l.mode = 'ShareLock' \
             AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()) \
             AND l.classid::bigint = (k.number >> 32) & 4294967295 AND l.objid::bigint = k.number & 4294967295"
        );
        let doing = "end the sessions of an earlier process in the target";
        let row = client.query_one(&sql, &self.key.parameters()).await;
        Ok(row.map_err(|error| error::of_server(&error, doing))?.get(0))
    }

    /// Makes a session one that may write, if no later process has claimed the place.
    pub(crate) async fn join(&self, client: &Client) -> Result<(), SinkError> {
        let failed = |error| error::of_server(&error, "join the sessions that write to the target");
        let parameters: [&(dyn ToSql + Sync); 3] = self.key.parameters();
        let lock = format!("SELECT pg_catalog.pg_advisory_lock_shared({NUMBER})");
        client.execute(&lock, &parameters).await.map_err(failed)?;
        match notes::get(client, &self.key, CLAIM).await? {
            Some(claim) if claim == self.claim => Ok(()),
            _ => Err(SinkError::halt(
                "another replicator has begun to write to this sink, and this one may not any more: start it again, to \
                 stand by; or give one of the two sinks another name",
            )),
        }
    }
}
