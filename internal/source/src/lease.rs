//! The right to follow a slot, and with it to write to the sinks.
//!
//! A walsender's hold on its slot is not enough: sinks are opened, and asked how far they are, before the stream begins,
//! and whoever waits for a slot has to ask only when the one before is gone. So a process first takes an advisory lock of
//! the source's database, in a session of its own, and keeps it until it ends. That session says something every
//! [`BEAT_INTERVAL`]; one that was silent for [`SILENCE_MAX`] – stopped, or cut off without a word – is ended by whoever
//! waits for the lease.
//!
//! ```text
//!   holder  beat ──answer──┐ a Term: sinks are written to              │ they are not
//!           t0             └────────────────────────────────── t0 + 2 s │
//!   waiter                    silent since t0 or later ──────────────────────▶ t0 + 3 s: ended, taken
//! ```
//!
//! # Invariants
//! - A [`Term`] that the holder counts from before its beat is over before the server, which counts the silence from the
//!   beat's end, lets another have the lease. Only that the two clocks run alike is relied upon.
//! - A holder that had to take the lease again says so by another number: another process may have had it meanwhile.
//!
//! Sources: <https://www.postgresql.org/docs/current/explicit-locking.html#ADVISORY-LOCKS>, and for the columns
//! <https://www.postgresql.org/docs/current/view-pg-locks.html>.

use crate::SourceError;
use crate::sql::{Sql, column};
use slog::{Logger, info, warn};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_postgres::Client;
use tokio_postgres::types::Type;

/// How often its holder says that it is there, and looks whether it still holds it.
const BEAT_INTERVAL: Duration = Duration::from_millis(500);

/// How long a holder may say nothing before another takes the lease from it.
const SILENCE_MAX: Duration = Duration::from_secs(3);

/// For how long an answered beat gives the right to write: less than [`SILENCE_MAX`] by what a request needs that has
/// just been let go.
const TERM: Duration = Duration::from_secs(2);

/// How long a session that was ended may take to give its lock back, for whoever ended it.
const END_MAX: Duration = Duration::from_secs(1);

/// How often that is looked at.
const END_PAUSE: Duration = Duration::from_millis(50);

/// How long an answer may take. A server that is slower than this is no reason to give anything up.
const ANSWER_MAX: Duration = Duration::from_secs(10);

// The lock's number, from the slot's name. Advisory locks are per database, as logical slots are.
const TAKE: &str = "SELECT pg_try_advisory_lock(hashtextextended('replicator lease ' || $1, 0)) AS taken";

// Columns of pg_stat_activity that the role may not see are NULL: such a holder is waited for.
const HOLDER: &str = "
SELECT a.pid, format('application %s, from %s, since %s', coalesce(nullif(a.application_name, ''), 'unknown'),
                     coalesce(host(a.client_addr), 'a local socket'), date_trunc('second', a.backend_start)) AS holder,
       coalesce(extract(epoch FROM clock_timestamp() - a.state_change) * 1000, 0)::int8 AS silent_ms,
       (SELECT s.active_pid FROM pg_replication_slots s WHERE s.slot_name = $1) AS reader
FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid
CROSS JOIN (SELECT hashtextextended('replicator lease ' || $1, 0) AS number) k
WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
  AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND l.classid::int8 = (k.number >> 32) & 4294967295 AND l.objid::int8 = k.number & 4294967295";

/// The lease of a slot. It is given back when this is dropped, or with the process.
#[derive(Debug)]
pub struct Lease {
    client: Client,
    sql: Arc<Sql>,
    slot: String,
    log: Logger,
    term: watch::Sender<Until>,
}

/// The right to write to the sinks, as long as it lasts.
#[derive(Clone, Debug)]
pub struct Term(watch::Receiver<Until>);

#[derive(Clone, Copy, Debug)]
struct Until {
    /// How often the lease was taken.
    number: u64,
    until: Instant,
}

/// Who has the lease.
struct Holder {
    why: SourceError,
    /// Whether it is about to be free.
    was_ended: bool,
}

impl Term {
    /// Waits until the lease is held for certain, and tells how often it was taken by now: where that is more than
    /// before, another process may have had it in between. Waits for ever once it is lost.
    pub async fn hold(&self) -> u64 {
        let mut receiver = self.0.clone();
        loop {
            let Until { number, until } = *receiver.borrow_and_update();
            if Instant::now() < until {
                return number;
            }
            if receiver.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}

impl Lease {
    /// Takes it; a holder that was not heard of for long is ended, and the next call takes it.
    ///
    /// # Errors
    /// Another process has it ([`SourceError::is_busy`]); the connection.
    pub(crate) async fn take(sql: &Arc<Sql>, slot: &str, log: &Logger) -> Result<Self, SourceError> {
        let term = watch::channel(Until { number: 0, until: Instant::now() }).0;
        Self::take_for(term, sql, slot, log).await
    }

    async fn take_for(
        term: watch::Sender<Until>,
        sql: &Arc<Sql>,
        slot: &str,
        log: &Logger,
    ) -> Result<Self, SourceError> {
        let client = sql.session().await?;
        let lease = Self { client, sql: Arc::clone(sql), slot: slot.to_owned(), log: log.clone(), term };
        let mut begun = Instant::now();
        if !lease.try_lock().await? {
            let Holder { why, was_ended } = lease.holder().await?;
            let end = Instant::now() + END_MAX;
            let mut is_taken = false;
            while was_ended && !is_taken && Instant::now() < end {
                tokio::time::sleep(END_PAUSE).await;
                begun = Instant::now();
                is_taken = lease.try_lock().await?;
            }
            if !is_taken {
                return Err(why);
            }
        }
        lease.term.send_modify(|term| *term = Until { number: term.number + 1, until: begun + TERM });
        Ok(lease)
    }

    /// The right that goes with it.
    pub fn term(&self) -> Term {
        Term(self.term.subscribe())
    }

    async fn try_lock(&self) -> Result<bool, SourceError> {
        let doing = format!("taking the lease of slot {}", self.slot);
        let rows = self.client.query_typed(TAKE, &[(&self.slot, Type::TEXT)]).await;
        let rows = rows.map_err(|error| SourceError::of_sql(&doing, &error))?;
        rows.first().map_or(Ok(false), |row| column(row, "taken", &doing))
    }

    /// Ends a silent one.
    async fn holder(&self) -> Result<Holder, SourceError> {
        let slot = &self.slot;
        let doing = format!("looking for who has the lease of slot {slot}");
        let rows = self.client.query_typed(HOLDER, &[(slot, Type::TEXT)]).await;
        let rows = rows.map_err(|error| SourceError::of_sql(&doing, &error))?;
        let Some(row) = rows.first() else {
            let why =
                SourceError::busy(format!("slot {slot}: another process has just given its lease back"));
            return Ok(Holder { why, was_ended: true });
        };
        let (pid, holder): (i32, String) = (column(row, "pid", &doing)?, column(row, "holder", &doing)?);
        let silent_ms: i64 = column(row, "silent_ms", &doing)?;
        let is_silent = Duration::from_millis(u64::try_from(silent_ms).unwrap_or(0)) > SILENCE_MAX;
        if is_silent {
            warn!(self.log, "taking the slot from a process that was not heard of"; "slot" => slot, "holder" => &holder,
                "silent_ms" => silent_ms);
            let reader: Option<i32> = column(row, "reader", &doing)?;
            for pid in std::iter::once(pid).chain(reader) {
                let end = "SELECT pg_terminate_backend($1)";
                let ended = self.client.query_typed(end, &[(&pid, Type::INT4)]).await;
                ended.map_err(|error| {
                    SourceError::of_sql(&format!("ending process {pid} of the source"), &error)
                })?;
            }
        }
        let why = SourceError::busy(format!(
            "slot {slot} is in use by process {pid} of the source ({holder}), another replicator; this one waits until \
             it ends. `SELECT pg_terminate_backend({pid})` ends it at once"
        ));
        Ok(Holder { why, was_ended: is_silent })
    }

    /// Holds on to it, and comes back with the reason when another process has taken it.
    pub async fn keep(mut self) -> SourceError {
        loop {
            tokio::time::sleep(BEAT_INTERVAL).await;
            let begun = Instant::now();
            // An error that leaves the session as it is, or an answer that takes its time, gives nothing up: the term
            // may end, and goes on with the next answer.
            let answer = tokio::time::timeout(ANSWER_MAX, self.client.simple_query("SELECT 1")).await;
            if matches!(answer, Ok(Ok(_))) {
                self.term.send_modify(|term| term.until = begun + TERM);
            }
            if !self.client.is_closed() {
                continue;
            }
            // The server went away, or somebody has ended the session. Whoever comes first has it.
            match Self::take_for(self.term.clone(), &self.sql, &self.slot, &self.log).await {
                Ok(again) => {
                    info!(self.log, "lease taken again"; "slot" => &self.slot);
                    self = again;
                }
                Err(error) if error.is_busy() && !error.is_starting() => {
                    return SourceError::halt(format!(
                        "{error}. This one was cut off and has lost the slot to it"
                    ));
                }
                // The source is away. The stream says so.
                Err(_) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_term_is_over_before_silence_costs_the_lease_and_goes_on_with_the_next_answer() {
        assert!(TERM > BEAT_INTERVAL * 2 && TERM + BEAT_INTERVAL < SILENCE_MAX);
        let (sender, receiver) = watch::channel(Until { number: 1, until: Instant::now() + TERM });
        let term = Term(receiver);
        assert_eq!(term.hold().await, 1);
        sender.send_modify(|term| term.until = Instant::now());
        let held = tokio::time::timeout(Duration::from_millis(50), term.hold());
        assert!(held.await.is_err(), "it holds on to what is over");
        sender.send_modify(|term| *term = Until { number: 2, until: Instant::now() + TERM });
        assert_eq!(term.hold().await, 2);
    }
}
