//! A worker: one connection that reads ranges of tables under the snapshot.

use super::rows::{Rows, RowsError};
use super::select;
use super::snapshot::{Shared, begin};
use super::tables::{CopyPart, CopyTable};
use crate::SourceError;
use crate::command::quote_literal;
use crate::frames::MESSAGE_BYTES_MAX;
use crate::raw::{CommandError, RawConnection, SETTINGS, server_error};
use postgres_protocol::message::backend::Message;
use replicator_pgconn::ServerError;
use replicator_types::{Batch, BatchBuilder, Relation, TransactionMeta};
use std::ops::Range;
use std::sync::Arc;

/// When a batch of copied rows is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CopyLimits {
    /// Rows at most; at least 1.
    pub rows_max: usize,
    /// Bytes of row data, passed by at most one row.
    pub bytes_max: usize,
}

/// Reads ranges of tables, one at a time. After an error, or a range that was left in the middle, it connects anew
/// at the next one.
#[derive(Debug)]
pub struct CopyWorker {
    shared: Arc<Shared>,
    connection: Option<Connection>,
    range: Option<Reading>,
}

#[derive(Debug)]
struct Connection {
    raw: RawConnection,
    /// The table that the open transaction has locked and checked.
    part: Option<u32>,
}

/// A range being read.
#[derive(Debug)]
struct Reading {
    relation: Arc<Relation>,
    rows: Rows,
    next_ordinal: u64,
    /// For errors.
    what: String,
}

/// What became of the bytes at hand.
enum Taken {
    /// The batch is full.
    Full,
    /// The range is at its end.
    Ended,
    /// With what is there, the message at the front would be this long; 0 when that is not known.
    More { message_bytes: usize },
}

impl CopyWorker {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, connection: None, range: None }
    }

    /// Begins to read the `blocks` of part number `part` of `table`, with those that were added since if the range
    /// reaches the part's last. With `changed_since`, a transaction's number as of [`Snapshot::xmin`], only rows
    /// whose transaction is not older: all that a snapshot with that `xmin` did not see, and maybe a few more.
    ///
    /// [`Snapshot::xmin`]: super::Snapshot::xmin
    ///
    /// # Errors
    /// [`SourceError::is_stale_snapshot`] when the table is not any more what the snapshot has of it, or the
    /// snapshot is gone; [`SourceError::is_busy`] when somebody has it locked; otherwise the connection, or a right
    /// that is missing.
    pub async fn begin(
        &mut self,
        table: &CopyTable,
        part: usize,
        blocks: Range<u32>,
        changed_since: Option<u64>,
    ) -> Result<(), SourceError> {
        if table.is_locked {
            return Err(SourceError::busy(format!(
                "copying table {}: {LOCKED_BY}",
                table.relation.qualified_name()
            )));
        }
        let number = part;
        let part = table.parts.get(number).ok_or_else(|| {
            SourceError::halt(format!("table {} has no part {number} to copy", table.relation))
        })?;
        let abandoned = self.range.take().is_some();
        // Out of its place until all is well, so that whatever goes wrong, or drops this future, leaves nothing
        // half done behind.
        let mut connection = match self.connection.take().filter(|_| !abandoned) {
            Some(connection) => connection,
            None => {
                let raw = RawConnection::connect_sql(&self.shared.options).await?;
                Connection { raw, part: None }
            }
        };
        if connection.part != Some(part.oid) {
            connection.enter(&self.shared, table, part).await?;
        }
        let (from, before) = select::open_ended(&blocks, part.blocks);
        let rows = select::Rows {
            blocks: (from, before),
            filter: table.row_filter.as_deref(),
            since_xid: changed_since.and_then(|since| select::comparable_xid(since, self.shared.xmax)),
        };
        let what = format!("copying table {}", part.sql_name);
        let command = select::copy(&part.sql_name, &table.relation, &rows);
        let started = connection.raw.start_copy_out(&command).await;
        started.map_err(|error| refused(&what, part, error))?;
        self.connection = Some(connection);
        self.range = Some(Reading {
            relation: Arc::clone(&table.relation),
            rows: Rows::new(select::kinds(&table.relation)),
            next_ordinal: first_ordinal(number, blocks.start),
            what,
        });
        Ok(())
    }

    /// The next rows of the range, at most as many as `limits` says: inserts of `transaction`. None at its end.
    /// Rows are numbered by where they lie: the same under the same snapshot, and no two of a table alike.
    ///
    /// May be dropped and called again: rows that were read stay in `builder`, which must be the same throughout
    /// a range.
    ///
    /// # Errors
    /// The connection, or the server. What is in `builder` is to be thrown away, and the range begun anew.
    pub async fn next_batch(
        &mut self,
        builder: &mut BatchBuilder,
        transaction: &TransactionMeta,
        limits: &CopyLimits,
    ) -> Result<Option<Batch>, SourceError> {
        let outcome = self.advance(builder, transaction, limits).await;
        if outcome.is_err() {
            self.connection = None;
            self.range = None;
        }
        outcome?;
        Ok(builder.cut(false))
    }

    async fn advance(
        &mut self,
        builder: &mut BatchBuilder,
        transaction: &TransactionMeta,
        limits: &CopyLimits,
    ) -> Result<(), SourceError> {
        let Some(connection) = &mut self.connection else { return Ok(()) };
        let Some(reading) = &mut self.range else { return Ok(()) };
        loop {
            match reading.take(&mut connection.raw, builder, transaction, limits)? {
                Taken::Full => return Ok(()),
                Taken::Ended => {
                    self.range = None;
                    return Ok(());
                }
                Taken::More { message_bytes } => {
                    builder.settle_charge();
                    let received = connection.raw.receive(message_bytes).await;
                    received.map_err(|error| broken(&reading.what, &error))?;
                }
            }
        }
    }

    /// Ends the transaction, and with it the lock on the table last read. The next range opens a new one.
    pub async fn release(&mut self) {
        self.range = None;
        if let Some(connection) = self.connection.take() {
            connection.raw.close().await;
        }
    }
}

impl Connection {
    /// Opens a new transaction under the snapshot, and makes sure that it sees the table as it is.
    async fn enter(
        &mut self,
        shared: &Shared,
        table: &CopyTable,
        part: &CopyPart,
    ) -> Result<(), SourceError> {
        if self.part.take().is_some() {
            let ended = self.raw.query("ROLLBACK").await;
            ended.map_err(|error| error.into_source_error("ending a copy's transaction"))?;
        }
        self.import(shared).await?;
        self.lock(part).await?;
        self.verify_file(part).await?;
        self.verify_columns(&table.relation, part).await?;
        self.part = Some(part.oid);
        Ok(())
    }

    async fn import(&mut self, shared: &Shared) -> Result<(), SourceError> {
        let doing = "taking part in the snapshot";
        let timeout = (shared.server_version_num >= select::TRANSACTION_TIMEOUT_SINCE)
            .then_some(&("transaction_timeout", "0"));
        let settings: Vec<String> = SETTINGS
            .iter()
            .chain(select::SETTINGS)
            .chain(select::PLANS)
            .chain(timeout)
            .map(|(name, value)| {
                format!("pg_catalog.set_config({}, {}, true)", quote_literal(name), quote_literal(value))
            })
            .collect();
        let command = format!(
            "{}; SELECT {}; SELECT pg_catalog.pg_current_snapshot()::text",
            begin(&shared.exported),
            settings.join(", ")
        );
        let rows = self.raw.query(&command).await.map_err(|error| match error {
            // It names nothing, or a transaction that has ended.
            CommandError::Server(error) if matches!(&*error.code, "22023" | "42704" | "55000") => {
                SourceError::stale_snapshot(format!(
                    "{doing}: {error}; its session has ended, a new one is needed"
                ))
            }
            error => error.into_source_error(doing),
        })?;
        let seen = rows.last().and_then(|row| row.first()).and_then(Option::as_deref).unwrap_or_default();
        if seen != shared.text {
            return Err(SourceError::stale_snapshot(format!(
                "{doing}: the session sees {seen} and not {}; a new one is needed",
                shared.text
            )));
        }
        Ok(())
    }

    async fn lock(&mut self, part: &CopyPart) -> Result<(), SourceError> {
        let doing = format!("locking table {} to copy it", part.sql_name);
        let command = format!("LOCK TABLE ONLY {} IN ACCESS SHARE MODE", part.sql_name);
        let locked = self.raw.query(&command).await;
        locked.map(drop).map_err(|error| refused(&doing, part, error))
    }

    /// Whether the file that the table has now is the one that the snapshot sees. A function looks at the catalog
    /// as it is, a query as the snapshot has it.
    async fn verify_file(&mut self, part: &CopyPart) -> Result<(), SourceError> {
        let doing = format!("looking at table {}", part.sql_name);
        let query = format!(
            "SELECT coalesce(pg_catalog.pg_relation_filenode(c.oid), 0)::text FROM pg_catalog.pg_class c \
             WHERE c.oid = {}",
            part.oid
        );
        let rows = self.raw.query(&query).await.map_err(|error| error.into_source_error(&doing))?;
        let now = rows.first().and_then(|row| row.first()).and_then(Option::as_deref);
        if now.and_then(|now| now.parse().ok()) == Some(part.file_node) {
            return Ok(());
        }
        Err(SourceError::stale_snapshot(format!(
            "table {} was rewritten since the snapshot was taken, which now finds it empty or changed; it is copied \
             under a new one",
            part.sql_name
        )))
    }

    /// Whether the columns to be copied are there, the same and of the same types. Columns added since do not matter.
    async fn verify_columns(&mut self, relation: &Relation, part: &CopyPart) -> Result<(), SourceError> {
        let doing = format!("looking at the columns of table {}", part.sql_name);
        let described = self.raw.describe(&select::probe(&part.sql_name, relation)).await;
        let mut described = described.map_err(|error| refused(&doing, part, error))?.into_iter();
        let is_same_table = described.next().is_some_and(|tableoid| tableoid.table_oid == part.oid);
        // Those of a partition have numbers of their own.
        let is_own = relation.oid == part.oid;
        let is_same = is_same_table
            && relation.columns.iter().map(Some).chain([None]).all(|column| {
                match (column, described.next()) {
                    (Some(column), Some(found)) => {
                        // A domain is described as its base type.
                        found.type_oid == column.base_type_oid && (!is_own || found.attnum == column.attnum)
                    }
                    (None, None) => true,
                    _ => false,
                }
            });
        if is_same {
            return Ok(());
        }
        Err(altered(part))
    }
}

impl Reading {
    /// Takes whole messages off what was received.
    fn take(
        &mut self,
        raw: &mut RawConnection,
        builder: &mut BatchBuilder,
        transaction: &TransactionMeta,
        limits: &CopyLimits,
    ) -> Result<Taken, SourceError> {
        loop {
            let received = raw.received();
            let mut rest = received;
            let taken = loop {
                if builder.len() >= limits.rows_max.max(1) || builder.data_bytes() >= limits.bytes_max {
                    break Some(Taken::Full);
                }
                let Some((&[tag, a, b, c, d], after)) = rest.split_first_chunk::<5>() else {
                    break Some(Taken::More { message_bytes: 0 });
                };
                let length = u32::from_be_bytes([a, b, c, d]) as usize;
                let body_bytes = length.checked_sub(4).filter(|&bytes| bytes <= MESSAGE_BYTES_MAX);
                let body_bytes = body_bytes.ok_or_else(|| {
                    broken(&self.what, &format_args!("a message claims {length} bytes, which none has"))
                })?;
                let Some((body, after)) = after.split_at_checked(body_bytes) else {
                    break Some(Taken::More { message_bytes: length + 1 });
                };
                if tag != b'd' {
                    break None;
                }
                let (relation, next_ordinal) = (&self.relation, &mut self.next_ordinal);
                let rows = self.rows.take(body, |write| {
                    builder.push_row_with(transaction, relation, *next_ordinal, write)?;
                    *next_ordinal += 1;
                    Ok::<(), RowsError>(())
                });
                rows.map_err(|error| broken(&self.what, &error))?;
                rest = after;
            };
            let used = received.len() - rest.len();
            raw.take(used);
            match taken {
                Some(taken) => return Ok(taken),
                None if self.is_end(raw)? => return Ok(Taken::Ended),
                None => {}
            }
        }
    }

    /// Takes the message at the front, which is none of rows; whether it is the last.
    fn is_end(&self, raw: &mut RawConnection) -> Result<bool, SourceError> {
        match raw.take_message().map_err(|error| broken(&self.what, &error))? {
            Some(Message::ReadyForQuery(_)) if self.rows.has_ended() => Ok(true),
            Some(
                Message::CopyDone
                | Message::CommandComplete(_)
                | Message::NoticeResponse(_)
                | Message::ParameterStatus(_),
            ) => Ok(false),
            Some(Message::ErrorResponse(body)) => {
                Err(SourceError::of_server(&self.what, &server_error(body.fields())))
            }
            _ => Err(broken(&self.what, &"the rows ended without their trailer")),
        }
    }
}

/// Number of the first row of a block, above all rows of the blocks and parts before: a block has fewer than 2¹¹
/// rows (`MaxHeapTuplesPerPage` of a block of 32 kB is 1169), and there are fewer than 2³² blocks.
fn first_ordinal(part: usize, block: u32) -> u64 {
    ((part as u64) << 43) + (u64::from(block) << 11)
}

fn broken(what: &str, why: &dyn std::fmt::Display) -> SourceError {
    SourceError::retry(format!("{what}: the connection broke: {why}"))
}

fn altered(part: &CopyPart) -> SourceError {
    SourceError::stale_snapshot(format!(
        "table {} was altered since the snapshot was taken; it is copied under a new one",
        part.sql_name
    ))
}

const LOCKED_BY: &str = "a session has it locked, and `SELECT pid, query FROM pg_stat_activity WHERE state <> 'idle' ORDER \
    BY xact_start` shows the oldest";

/// Of a statement about the table that was not run.
fn refused(doing: &str, part: &CopyPart, error: CommandError) -> SourceError {
    let CommandError::Server(error) = error else { return error.into_source_error(doing) };
    match error.code.as_str() {
        // No such table, schema or column: dropped or renamed; or something else has the name now.
        "42P01" | "3F000" | "42703" | "42809" => altered(part),
        "55P03" => SourceError::busy(format!("{doing}: {error}; {LOCKED_BY}")),
        "42501" => of_right(doing, part, &error),
        _ => SourceError::of_server(doing, &error),
    }
}

fn of_right(doing: &str, part: &CopyPart, error: &ServerError) -> SourceError {
    let remedy = if error.message.contains("row-level security") {
        "rows would be left out without a word: give the role of source.url BYPASSRLS, or have it own the table \
         without FORCE ROW LEVEL SECURITY"
            .to_owned()
    } else {
        format!("run `GRANT SELECT ON {} TO` the role of source.url, and USAGE on its schema", part.sql_name)
    };
    SourceError::halt(format!("{doing}: {error}; {remedy}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_rows_of_a_table_have_the_same_number() {
        let last_of_block = |part, block| first_ordinal(part, block) + 1169;
        assert!(last_of_block(0, 0) < first_ordinal(0, 1));
        assert!(last_of_block(0, u32::MAX) < first_ordinal(1, 0));
        assert!(first_ordinal(1 << 20, 0) < 1 << 63 | 1);
    }
}
