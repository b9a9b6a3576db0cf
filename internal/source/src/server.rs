use crate::SourceError;
use crate::sql::{Sql, column};

/// The oldest version that is supported, and tested against.
const OLDEST: i32 = 140_000;

/// What of the server's settings and the role's rights matters.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    pub(crate) version: String,
    pub(crate) version_num: u32,
    pub(crate) wal_level: String,
    pub(crate) in_recovery: bool,
    pub(crate) is_superuser: bool,
    pub(crate) slots_max: i32,
    pub(crate) slots_used: i64,
    pub(crate) wal_senders_max: i32,
    pub(crate) wal_senders_used: i64,
    pub(crate) wal_sender_timeout_ms: u64,
}

const QUERY: &str = "
SELECT current_setting('server_version') AS version,
       current_setting('server_version_num')::int4 AS version_num,
       current_setting('wal_level') AS wal_level,
       pg_is_in_recovery() AS in_recovery,
       (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) AS is_superuser,
       current_setting('max_replication_slots')::int4 AS slots_max,
       (SELECT count(*) FROM pg_replication_slots) AS slots_used,
       current_setting('max_wal_senders')::int4 AS wal_senders_max,
       (SELECT count(*) FROM pg_stat_get_wal_senders()) AS wal_senders_used,
       (SELECT setting::int8 FROM pg_settings WHERE name = 'wal_sender_timeout') AS wal_sender_timeout_ms";

impl Server {
    pub(crate) async fn read(sql: &Sql) -> Result<Self, SourceError> {
        let doing = "reading the server's settings";
        let row = sql.row(doing, QUERY, &[]).await?;
        let version_num: i32 = column(&row, "version_num", doing)?;
        let timeout: i64 = column(&row, "wal_sender_timeout_ms", doing)?;
        Ok(Self {
            version: column(&row, "version", doing)?,
            version_num: version_num.unsigned_abs(),
            wal_level: column(&row, "wal_level", doing)?,
            in_recovery: column(&row, "in_recovery", doing)?,
            is_superuser: column::<Option<bool>>(&row, "is_superuser", doing)?.unwrap_or(false),
            slots_max: column(&row, "slots_max", doing)?,
            slots_used: column(&row, "slots_used", doing)?,
            wal_senders_max: column(&row, "wal_senders_max", doing)?,
            wal_senders_used: column(&row, "wal_senders_used", doing)?,
            wal_sender_timeout_ms: timeout.unsigned_abs(),
        })
    }

    /// Whether the version is one that is supported.
    pub(crate) fn verify_version(&self) -> Result<String, SourceError> {
        if self.version_num < OLDEST.unsigned_abs() {
            return Err(SourceError::halt(format!(
                "the source is PostgreSQL {}; versions from 14 on are supported: upgrade it",
                self.version
            )));
        }
        Ok(format!("PostgreSQL {}", self.version))
    }

    /// Whether the WAL has what logical decoding needs.
    pub(crate) fn verify_wal_level(&self) -> Result<String, SourceError> {
        if self.wal_level == "logical" {
            return Ok("wal_level is logical".to_owned());
        }
        Err(SourceError::halt(format!(
            "the source has wal_level={}, and logical replication needs `logical`: run `ALTER SYSTEM SET wal_level = \
             'logical'` there and restart it",
            self.wal_level
        )))
    }

    /// Whether another slot can be made.
    pub(crate) fn verify_room_for_a_slot(&self, slot: &str) -> Result<String, SourceError> {
        if self.slots_used < i64::from(self.slots_max) {
            return Ok(format!("slot {slot} does not exist yet and will be made"));
        }
        Err(SourceError::halt(format!(
            "slot {slot} can't be made: all max_replication_slots={} are in use; drop one that nobody needs (`SELECT \
             slot_name, active FROM pg_replication_slots`), or raise the setting and restart the source",
            self.slots_max
        )))
    }

    /// How many walsenders there are.
    pub(crate) fn wal_senders(&self) -> String {
        format!("{} of max_wal_senders={} in use", self.wal_senders_used, self.wal_senders_max)
    }
}
