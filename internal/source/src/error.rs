use replicator_pgconn::{ConnectError, ErrorKind, ServerError, one_line};
use std::fmt;

/// The source's failure: one line that names the object and the remedy, without secrets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceError {
    kind: ErrorKind,
    state: State,
    text: String,
}

/// What there is to know beside the kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Plain,
    Busy,
    Starting,
    StaleSnapshot,
}

impl SourceError {
    /// It may pass by itself, or nothing is known of it: connect again, with growing pauses.
    pub fn retry(text: impl AsRef<str>) -> Self {
        Self { kind: ErrorKind::Retry, state: State::Plain, text: one_line(text.as_ref()) }
    }

    /// All is as it should be, but not yet: the slot is still in use, or the server is starting. As
    /// [`SourceError::retry`], and worth waiting for even before anything has begun.
    pub fn busy(text: impl AsRef<str>) -> Self {
        Self { state: State::Busy, ..Self::retry(text) }
    }

    /// See [`SourceError::busy`].
    pub fn is_busy(&self) -> bool {
        matches!(self.state, State::Busy | State::Starting)
    }

    /// The server is not up yet. It is busy, too.
    pub(crate) fn is_starting(&self) -> bool {
        self.state == State::Starting
    }

    /// The table can't be copied under this snapshot any more: it was rewritten, altered or dropped since, or the
    /// snapshot itself is gone. As [`SourceError::retry`]; what helps is a new snapshot.
    pub fn stale_snapshot(text: impl AsRef<str>) -> Self {
        Self { state: State::StaleSnapshot, ..Self::retry(text) }
    }

    /// See [`SourceError::stale_snapshot`].
    pub fn is_stale_snapshot(&self) -> bool {
        self.state == State::StaleSnapshot
    }

    /// Nothing will help but a person.
    pub fn halt(text: impl AsRef<str>) -> Self {
        Self { kind: ErrorKind::Halt, state: State::Plain, text: one_line(text.as_ref()) }
    }

    /// What is to be done.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Of a statement that the server would not run. `doing` says what it was for.
    pub(crate) fn of_server(doing: &str, error: &ServerError) -> Self {
        // What only a person can change, by class: not there or not allowed (42), not able (0A), wrong
        // values (22), no such database (3D). 42P01 and the like can also mean "not any more".
        let halts = matches!(error.code.get(..2), Some("0A" | "22" | "28" | "3D" | "42"));
        let kind = if halts { ErrorKind::Halt } else { ErrorKind::Retry };
        Self { kind, state: State::Plain, text: one_line(&format!("{doing}: {error}")) }
    }

    /// Of a query over the SQL connection.
    pub(crate) fn of_sql(doing: &str, error: &tokio_postgres::Error) -> Self {
        match error.as_db_error() {
            Some(error) => Self::of_server(doing, &error.into()),
            None => {
                let cause =
                    std::error::Error::source(error).map(|cause| format!(": {cause}")).unwrap_or_default();
                Self::retry(format!("{doing}: {error}{cause}"))
            }
        }
    }

    /// Of the stream itself: what the walsender says when it gives up.
    pub(crate) fn of_stream(error: &ServerError, slot: &str, publication: &str) -> Self {
        match error.code.as_str() {
            "55006" => Self::busy(format!(
                "slot {slot}: {error}; another process reads it. It gets free when that one ends or, if it is \
                 gone without a word, after wal_sender_timeout; `SELECT pg_terminate_backend(<that pid>)` ends it \
                 at once"
            )),
            "55000" => {
                Self::halt(format!("{}; {}", format_args!("slot {slot}: {error}"), lost_slot_remedy(slot)))
            }
            "42704" => Self::halt(format!(
                "slot {slot}, publication {publication}: {error}; one of them is gone, or the publication is younger \
                 than the slot's position, and the changes in between can't be read. {}",
                lost_slot_remedy(slot)
            )),
            _ => Self::of_server(&format!("slot {slot}: the stream ended"), error),
        }
    }
}

/// What to do when what the sinks have is not what the source has.
pub(crate) fn anew_remedy() -> &'static str {
    "Empty the sinks' tables, give an archive or a lake another url, and name another source.slot: then everything is \
     copied anew"
}

/// What to do when the changes after a slot's position can't be had any more.
pub fn lost_slot_remedy(slot: &str) -> String {
    format!(
        "the sinks lack the changes since its position. Drop it where it is still there (`SELECT \
         pg_drop_replication_slot('{slot}')`), have every table copied anew (`replicator resync --all`), and start again"
    )
}

impl From<ConnectError> for SourceError {
    fn from(error: ConnectError) -> Self {
        // 57P03: the server is starting up, or recovering.
        let state = if error.code() == Some("57P03") { State::Starting } else { State::Plain };
        Self { kind: error.kind(), state, text: error.to_string() }
    }
}

impl fmt::Display for SourceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for SourceError {}
