//! The replication slot: its state, whether it can be read from, and its making.
//!
//! Sources: <https://www.postgresql.org/docs/current/view-pg-replication-slots.html>, and for the waiting in
//! [`create`] `SnapBuildFindSnapshot` in Postgres' `src/backend/replication/logical/snapbuild.c`.

use crate::command::{SlotOptions, create_slot};
use crate::error::lost_slot_remedy;
use crate::raw::RawConnection;
use crate::sql::{Sql, column, lsn};
use crate::{SourceError, server::Server};
use replicator_types::Lsn;
use slog::{Logger, info, warn};
use std::time::Duration;
use tokio_postgres::types::Type;

/// Where a slot stands, for metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotStatus {
    /// Everything before it is acknowledged (the end of a transaction). None until there is a first position.
    pub confirmed_flush: Option<Lsn>,
    /// The oldest WAL the slot keeps (the start of a record).
    pub restart_lsn: Option<Lsn>,
    /// Bytes of WAL kept from there to now.
    pub retained_bytes: u64,
    /// Bytes that can be written before the slot may be lost; none where nothing limits what it keeps.
    pub safe_wal_bytes: Option<u64>,
    /// `reserved`, `extended`, `unreserved` or `lost`.
    pub wal_status: Option<String>,
    /// Process that reads from it.
    pub active_pid: Option<i32>,
    /// The server's current end of WAL; on a standby, what is replayed.
    pub wal_end: Lsn,
    /// All transactions with older ids were over before anything was written that the slot still sends.
    pub catalog_xmin: Option<u32>,
}

/// A slot that exists.
#[derive(Clone, Debug)]
pub(crate) struct Slot {
    pub(crate) status: SlotStatus,
    /// Whether it decodes prepared transactions when they are prepared.
    pub(crate) two_phase: bool,
    /// Whether standbys keep a copy of it.
    pub(crate) failover: bool,
    plugin: Option<String>,
    database: Option<String>,
    temporary: bool,
    synced: bool,
    invalidated: Option<String>,
    reader: String,
}

// Columns that only newer versions have are read by way of JSON, where an absent one is NULL.
const QUERY: &str = "
SELECT coalesce((to_jsonb(s) ->> 'two_phase')::bool, false) AS two_phase, coalesce((to_jsonb(s) ->> 'failover')::bool, false) AS failover, s.plugin::text,
       s.database::text AS slot_database, s.temporary, s.active_pid,
       s.restart_lsn::text, s.confirmed_flush_lsn::text, s.safe_wal_size, s.wal_status, s.catalog_xmin::text,
       coalesce((to_jsonb(s) ->> 'synced')::bool, false) AND pg_is_in_recovery() AS synced,
       coalesce(to_jsonb(s) ->> 'invalidation_reason',
                CASE WHEN (to_jsonb(s) ->> 'conflicting')::bool THEN 'conflict with recovery' END,
                CASE WHEN s.wal_status = 'lost' THEN 'its WAL was removed' END) AS invalidated,
       format('application %s, from %s, since %s', coalesce(nullif(a.application_name, ''), 'unknown'),
              coalesce(host(a.client_addr), 'a local socket'), date_trunc('second', a.backend_start)) AS reader,
       e.wal_end::text, coalesce(pg_wal_lsn_diff(e.wal_end, s.restart_lsn), 0)::int8 AS retained
FROM pg_replication_slots s
LEFT JOIN pg_stat_activity a ON a.pid = s.active_pid
CROSS JOIN (SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END
            AS wal_end) e
WHERE s.slot_name = $1";

impl Slot {
    pub(crate) async fn find(sql: &Sql, name: &str) -> Result<Option<Self>, SourceError> {
        let doing = format!("looking for slot {name}");
        let Some(row) = sql.rows(&doing, QUERY, &[(&name, Type::TEXT)]).await?.into_iter().next() else {
            return Ok(None);
        };
        let text = |name| column::<Option<String>>(&row, name, &doing);
        let retained: i64 = column(&row, "retained", &doing)?;
        let safe: Option<i64> = column(&row, "safe_wal_size", &doing)?;
        Ok(Some(Self {
            status: SlotStatus {
                confirmed_flush: lsn(text("confirmed_flush_lsn")?.as_deref(), &doing)?,
                restart_lsn: lsn(text("restart_lsn")?.as_deref(), &doing)?,
                retained_bytes: u64::try_from(retained).unwrap_or(0),
                safe_wal_bytes: safe.map(|bytes| u64::try_from(bytes).unwrap_or(0)),
                wal_status: text("wal_status")?,
                active_pid: column(&row, "active_pid", &doing)?,
                wal_end: lsn(text("wal_end")?.as_deref(), &doing)?.unwrap_or_default(),
                catalog_xmin: text("catalog_xmin")?.and_then(|xid| xid.parse().ok()),
            },
            two_phase: column(&row, "two_phase", &doing)?,
            failover: column(&row, "failover", &doing)?,
            plugin: text("plugin")?,
            database: text("slot_database")?,
            temporary: column(&row, "temporary", &doing)?,
            synced: column(&row, "synced", &doing)?,
            invalidated: text("invalidated")?,
            reader: text("reader")?.unwrap_or_default(),
        }))
    }

    /// Whether it is ours to read from and still has its changes. Not whether it is in use.
    pub(crate) fn verify(&self, name: &str, database: &str) -> Result<(), SourceError> {
        let wrong = |text: String| Err(SourceError::halt(format!("slot {name} {text}")));
        match self.plugin.as_deref() {
            None => return wrong("is a physical slot; choose another name in source.slot".to_owned()),
            Some("pgoutput") => {}
            Some(plugin) => {
                return wrong(format!(
                    "is for output plugin {plugin} and not pgoutput; choose another name in source.slot"
                ));
            }
        }
        if self.database.as_deref() != Some(database) {
            let other = self.database.as_deref().unwrap_or("none");
            return wrong(format!(
                "is of database {other} and not {database}; choose another name in source.slot"
            ));
        }
        if self.temporary {
            return wrong(
                "is a temporary one of another session; choose another name in source.slot".to_owned(),
            );
        }
        if let Some(reason) = &self.invalidated {
            let remedy = lost_slot_remedy(name);
            return wrong(format!(
                "is invalidated ({reason}): {remedy}; max_slot_wal_keep_size is what bounds the WAL kept for slots"
            ));
        }
        if self.synced {
            return Err(SourceError::busy(format!(
                "slot {name} is a copy that this standby keeps of the primary's slot: waiting for the primary to be back, or \
                 for the standby's promotion, after which it can be read from; name the primary in source.url"
            )));
        }
        Ok(())
    }

    /// Whether nobody reads from it.
    pub(crate) fn verify_free(&self, name: &str) -> Result<(), SourceError> {
        let Some(pid) = self.status.active_pid else { return Ok(()) };
        // Not ended from here, not even when it calls itself as we do: it may be another replicator at work.
        // One that is really gone is noticed by the server when its connection breaks, or by the time-out.
        Err(SourceError::busy(format!(
            "slot {name} is in use by process {pid} of the source ({}): end the other reader, or wait until \
             wal_sender_timeout ends one that is gone; `SELECT pg_terminate_backend({pid})` ends it at once",
            self.reader
        )))
    }
}

/// Whether a slot can have that name.
pub(crate) fn verify_name(name: &str) -> Result<(), SourceError> {
    let fits = (1..=63).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
    if fits {
        return Ok(());
    }
    Err(SourceError::halt(format!(
        "source.slot = {name:?} can't be a slot's name: lower-case letters, digits and underscores, at most 63"
    )))
}

/// How long after the beginning the log says what slot creation waits for, and how often again.
const CREATE_WARNING_INTERVAL: Duration = Duration::from_secs(5);

/// When slot creation is given up. It begins anew then, and waits for the transactions of that time; where
/// they regularly run for longer than this a slot would never be made, so it is not short.
const CREATE_TIMEOUT: Duration = Duration::from_secs(300);

/// A slot that was made.
#[derive(Clone, Debug)]
pub(crate) struct Made {
    /// Changes of transactions whose commit record begins here or later are sent.
    pub(crate) consistent_point: Lsn,
    /// Name of the snapshot that has exactly the transactions before, where it was asked for. It is there until
    /// the connection's next command.
    pub(crate) snapshot: Option<String>,
}

/// Makes the slot.
///
/// The server waits for every transaction to end that ran when it began. While it does, the log names them.
pub(crate) async fn create(
    connection: &mut RawConnection,
    sql: &Sql,
    server: &Server,
    name: &str,
    options: SlotOptions,
    log: &Logger,
) -> Result<Made, SourceError> {
    let doing = format!("making slot {name}");
    let process_id = connection.process_id();
    let command = create_slot(name, options, server.version_num);
    let answer = connection.query(&command);
    tokio::pin!(answer);
    let began = tokio::time::Instant::now();
    let rows = loop {
        match tokio::time::timeout(CREATE_WARNING_INTERVAL, &mut answer).await {
            Ok(rows) => break rows,
            Err(_) => {
                let why = waits_for(sql, server, process_id).await?;
                if began.elapsed() >= CREATE_TIMEOUT {
                    // A server that reads ahead in its WAL may not notice that the connection is closed.
                    let end = "SELECT pg_terminate_backend($1) AS ended";
                    sql.rows(&doing, end, &[(&process_id, Type::INT4)]).await?;
                    return Err(SourceError::retry(format!("{doing} took too long: {why}")));
                }
                warn!(log, "slot creation waits"; "slot" => name, "reason" => why);
            }
        }
    };
    let rows = rows.map_err(|error| error.into_source_error(&doing))?;
    // slot_name, consistent_point, snapshot_name, output_plugin
    let field = |index: usize| rows.first().and_then(|row| row.get(index)).and_then(Option::as_deref);
    let consistent_point = lsn(field(1), &doing)?
        .ok_or_else(|| SourceError::retry(format!("{doing}: the server sent no position")))?;
    info!(log, "slot made"; "slot" => name, "consistent_point" => %consistent_point,
        "temporary" => options.temporary);
    Ok(Made { consistent_point, snapshot: field(2).map(str::to_owned) })
}

/// Names what keeps slot creation from its consistent point.
async fn waits_for(sql: &Sql, server: &Server, process_id: i32) -> Result<String, SourceError> {
    let doing = "looking for what slot creation waits for";
    let query = "
        SELECT format('process %s of user %s, since %s', a.pid, a.usename, date_trunc('second', a.xact_start)) AS who
        FROM pg_stat_activity a
        WHERE a.pid <> $1 AND coalesce(a.backend_type, 'client backend') = 'client backend'
          AND (a.backend_xid IS NOT NULL OR a.pid = ANY (pg_blocking_pids($1)))
        UNION ALL
        SELECT format('prepared transaction %L of user %s, since %s', p.gid, p.owner, date_trunc('second', p.prepared))
        FROM pg_prepared_xacts p";
    let rows = sql.rows(doing, query, &[(&process_id, Type::INT4)]).await?;
    let who = rows.iter().map(|row| column::<String>(row, "who", doing)).collect::<Result<Vec<_>, _>>()?;
    Ok(if !who.is_empty() {
        format!(
            "the server waits for transactions that were open before: {}; end them (commit, or `SELECT \
             pg_terminate_backend(<pid>)`)",
            who.join("; ")
        )
    } else if server.in_recovery {
        "the standby waits for a snapshot record from its primary: run `SELECT pg_log_standby_snapshot()` there".to_owned()
    } else {
        "the server does not say what it waits for; see its log".to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use replicator_pgconn::ErrorKind;

    fn slot() -> Slot {
        Slot {
            status: SlotStatus {
                confirmed_flush: Some(Lsn(1)),
                restart_lsn: Some(Lsn(1)),
                retained_bytes: 0,
                safe_wal_bytes: None,
                wal_status: Some("reserved".into()),
                active_pid: None,
                wal_end: Lsn(1),
                catalog_xmin: Some(3),
            },
            two_phase: false,
            failover: false,
            plugin: Some("pgoutput".into()),
            database: Some("shop".into()),
            temporary: false,
            synced: false,
            invalidated: None,
            reader: String::new(),
        }
    }

    fn refused(change: impl FnOnce(&mut Slot)) -> String {
        let mut slot = slot();
        change(&mut slot);
        let error = slot.verify("s", "shop").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Halt);
        error.to_string()
    }

    #[test]
    fn a_slot_that_is_not_ours_or_has_lost_its_changes_is_refused_with_the_reason() {
        assert_eq!(slot().verify("s", "shop"), Ok(()));
        assert!(refused(|slot| slot.plugin = None).contains("physical"));
        assert!(refused(|slot| slot.plugin = Some("wal2json".into())).contains("wal2json"));
        assert!(refused(|slot| slot.database = Some("other".into())).contains("database other"));
        assert!(
            refused(|slot| slot.invalidated = Some("wal_removed".into()))
                .contains("pg_drop_replication_slot")
        );
        assert!(refused(|slot| slot.temporary = true).contains("temporary"));
        let synced = Slot { synced: true, ..slot() }.verify("s", "shop").unwrap_err();
        assert!(synced.is_busy() && synced.to_string().contains("promotion"), "{synced}");
    }

    #[test]
    fn a_slot_in_use_is_waited_for_and_its_reader_named() {
        let mut slot = slot();
        slot.status.active_pid = Some(4711);
        let error = slot.verify_free("s").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Retry);
        assert!(error.to_string().contains("4711"));
    }

    #[test]
    fn names_that_the_server_would_refuse_are_refused_here() {
        assert!(verify_name("replicator_1").is_ok());
        for wrong in ["", "Replicator", "a-b", "a b", &"x".repeat(64)] {
            assert!(verify_name(wrong).is_err(), "{wrong}");
        }
    }
}
