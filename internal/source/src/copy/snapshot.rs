//! The snapshot, and the session that keeps it.

use super::tables::{self, CopyTable};
use super::{CopyWorker, select};
use crate::SourceError;
use crate::command::{SlotOptions, quote_literal};
use crate::raw::{RawConnection, SETTINGS};
use crate::server::Server;
use crate::slot;
use crate::sql::{Sql, column};
use replicator_pgconn::{ConnectOptions, connect};
use replicator_types::{Lsn, POSTGRES_EPOCH_UNIX_MICROS, Position, TransactionMeta, TxnId};
use slog::{Logger, info};
use std::sync::Arc;
use tokio_postgres::Client;

/// From this version on a standby can decode.
const DECODING_STANDBYS_SINCE: u32 = 160_000;

/// Names of slots end here (`NAMEDATALEN`).
const SLOT_NAME_BYTES_MAX: usize = 63;

/// A view of the database at one position of the stream, kept for as long as this or a worker of it is there.
#[derive(Debug)]
pub struct Snapshot {
    pub(super) shared: Arc<Shared>,
    pub(super) publication: String,
}

/// What workers need of it.
#[derive(Debug)]
pub(super) struct Shared {
    /// Holds the snapshot open.
    pub(super) leader: Client,
    pub(super) options: ConnectOptions,
    /// What it is imported by.
    pub(super) exported: String,
    /// `pg_current_snapshot()` as text.
    pub(super) text: String,
    pub(super) lsn: Lsn,
    pub(super) server_version_num: u32,
    pub(super) log: Logger,
    xmin: u64,
    pub(super) xmax: u64,
    taken_at_us: i64,
}

/// What making a snapshot needs of the source.
pub(crate) struct Origin<'a> {
    pub(crate) options: &'a ConnectOptions,
    pub(crate) sql: &'a Sql,
    pub(crate) server: &'a Server,
    /// The replicator's own slot.
    pub(crate) slot: &'a str,
    pub(crate) publication: &'a str,
    pub(crate) log: &'a Logger,
}

impl Snapshot {
    /// Everything that committed before is in it, and nothing that committed behind: the start of a commit record,
    /// or any position up to the next one's.
    pub fn lsn(&self) -> Lsn {
        self.shared.lsn
    }

    /// The oldest transaction that was running when it was taken, with the epoch in the high bits: whatever is older
    /// had ended. What a later copy gives as `changed_since`.
    pub fn xmin(&self) -> u64 {
        self.shared.xmin
    }

    /// When it was taken, microseconds since 2000-01-01 UTC, by the source's clock.
    pub fn taken_at_us(&self) -> i64 {
        self.shared.taken_at_us
    }

    /// What copied rows go into batches as.
    pub fn transaction(&self, id: TxnId) -> TransactionMeta {
        let commit_lsn = Position::copied(self.lsn(), 0).commit_lsn;
        TransactionMeta { id, commit_lsn, commit_time_us: self.taken_at_us(), xid: 0 }
    }

    /// Whether further workers can come to it. When not, only a new one helps.
    pub fn is_alive(&self) -> bool {
        !self.shared.leader.is_closed()
    }

    /// The tables that the publication publishes, by schema and name. Tables that were made since are not there: the
    /// stream has all their rows.
    ///
    /// # Errors
    /// The leader's connection.
    pub async fn tables(&self) -> Result<Vec<CopyTable>, SourceError> {
        tables::read(&self.shared, &self.publication).await
    }

    /// A reader of its own connection, made when it is first used. Several may be at work at once.
    pub fn worker(&self) -> CopyWorker {
        CopyWorker::new(Arc::clone(&self.shared))
    }

    /// Takes one. The slot that it needs for that is temporary and gone again.
    pub(crate) async fn take(origin: Origin<'_>) -> Result<Self, SourceError> {
        let server = origin.server;
        if server.in_recovery && server.version_num < DECODING_STANDBYS_SINCE {
            return Err(SourceError::halt(format!(
                "the source is a standby of PostgreSQL {}, from which tables can't be copied; from 16 on they can. Name \
                 the primary in source.url, or set source.snapshot = \"never\"",
                server.version
            )));
        }
        let mut walsender = RawConnection::connect_replication(origin.options).await?;
        let name = temporary_slot(origin.slot, walsender.process_id());
        server.verify_room_for_a_slot(&name)?;
        let slot_options = SlotOptions { temporary: true, export_snapshot: true, ..SlotOptions::default() };
        let made = slot::create(&mut walsender, origin.sql, server, &name, slot_options, origin.log).await?;
        let exported = made.snapshot.ok_or_else(|| {
            SourceError::retry(format!("making slot {name}: the server exported no snapshot"))
        })?;
        let shared = Shared::lead(&origin, &exported, made.consistent_point).await?;
        // The leader has the snapshot. Slot and walsender would keep WAL and catalog rows back for nothing.
        walsender.close().await;
        info!(origin.log, "snapshot taken"; "lsn" => %shared.lsn, "snapshot" => &shared.text);
        Ok(Self { shared: Arc::new(shared), publication: origin.publication.to_owned() })
    }
}

impl Shared {
    async fn lead(origin: &Origin<'_>, imported: &str, lsn: Lsn) -> Result<Self, SourceError> {
        let doing = "keeping the snapshot";
        let of_sql = |error: tokio_postgres::Error| SourceError::of_sql(doing, &error);
        let version = origin.server.version_num;
        let mut options = origin.options.clone();
        for (name, value) in SETTINGS.iter().chain(select::SETTINGS) {
            options = options.with_setting(name, value);
        }
        if version >= select::TRANSACTION_TIMEOUT_SINCE {
            options = options.with_setting("transaction_timeout", "0");
        }
        let leader = connect(&options).await?;
        leader.batch_execute(&begin(imported)).await.map_err(of_sql)?;
        let query = "SELECT s.s::text AS snapshot, pg_snapshot_xmin(s.s)::text::int8 AS xmin,
                            pg_snapshot_xmax(s.s)::text::int8 AS xmax, pg_export_snapshot() AS exported,
                            (extract(epoch FROM now()) * 1000000)::int8 AS now_us
                     FROM pg_current_snapshot() AS s(s)";
        let row = leader.query_typed(query, &[]).await.map_err(of_sql)?;
        let row =
            row.first().ok_or_else(|| SourceError::retry(format!("{doing}: the server sent no row")))?;
        let number = |name| Ok::<u64, SourceError>(column::<i64>(row, name, doing)?.unsigned_abs());
        Ok(Self {
            exported: column(row, "exported", doing)?,
            text: column(row, "snapshot", doing)?,
            lsn,
            server_version_num: version,
            log: origin.log.clone(),
            xmin: number("xmin")?,
            xmax: number("xmax")?,
            taken_at_us: column::<i64>(row, "now_us", doing)? - POSTGRES_EPOCH_UNIX_MICROS,
            options: origin.options.clone(),
            leader,
        })
    }
}

/// Opens a transaction under an exported snapshot.
pub(super) fn begin(exported: &str) -> String {
    format!(
        "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET TRANSACTION SNAPSHOT {}",
        quote_literal(exported)
    )
}

/// One that no other session of the server can have at the same time: it goes with the process.
fn temporary_slot(slot: &str, process_id: i32) -> String {
    let end = format!("_copy_{}", process_id.unsigned_abs());
    let room = SLOT_NAME_BYTES_MAX.saturating_sub(end.len());
    format!("{}{end}", slot.get(..room).unwrap_or(slot))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_temporary_slot_has_a_name_that_the_server_takes() {
        assert_eq!(temporary_slot("replicator", 77), "replicator_copy_77");
        let long = temporary_slot(&"x".repeat(63), i32::MAX);
        assert_eq!(long.len(), 63);
        assert!(long.ends_with("_copy_2147483647"));
    }
}
