use crate::error;
use crate::target::Target;
use replicator_sink::{ErrorKind, SinkError};
use tokio_postgres::error::SqlState;

/// Why an attempt to apply a batch failed, and whether another one may do better.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) error: SinkError,
    /// A row with the same value in a unique index was in the way.
    pub(crate) is_unique_violation: bool,
    /// A text was no value of its type: perhaps an enum's label that the target lacks.
    pub(crate) is_invalid_text: bool,
}

impl From<SinkError> for Failure {
    fn from(error: SinkError) -> Self {
        Self { error, is_unique_violation: false, is_invalid_text: false }
    }
}

impl Failure {
    /// Of a statement for the whole of a table's rows.
    pub(crate) fn of(error: &tokio_postgres::Error, target: &Target) -> Self {
        Self {
            error: of_table(error, target, &format!("write to {}", target.relation)),
            is_unique_violation: error.code() == Some(&SqlState::UNIQUE_VIOLATION),
            is_invalid_text: is_invalid_text(error),
        }
    }

    /// Of a statement for one change, which no other order of statements makes any better.
    pub(crate) fn of_one(error: &tokio_postgres::Error, target: &Target, doing: &str) -> Self {
        let is_invalid_text = is_invalid_text(error);
        let error = of_table(error, target, doing);
        Self { error, is_unique_violation: false, is_invalid_text }
    }
}

/// What a statement for one table failed with. Where the server has nothing against that table in particular (permissions, a
/// schema, its resources), the next one would fail in the same way.
pub(crate) fn of_table(error: &tokio_postgres::Error, target: &Target, doing: &str) -> SinkError {
    let is_of_table = |code: &str| {
        matches!(code.get(..2), Some("22" | "23" | "54" | "0A" | "2B" | "44"))
            || code.starts_with("42") && code != "42501"
    };
    let of_server = error::of_server(error, doing);
    match error.code() {
        Some(code) if is_of_table(code.code()) => of_server.of_table(target.relation.oid),
        _ if of_server.kind() == ErrorKind::Reject => of_server.of_table(target.relation.oid),
        _ => of_server,
    }
}

fn is_invalid_text(error: &tokio_postgres::Error) -> bool {
    // An enum's receive function, which binary COPY calls, says the latter.
    [SqlState::INVALID_TEXT_REPRESENTATION, SqlState::INVALID_BINARY_REPRESENTATION]
        .iter()
        .any(|code| error.code() == Some(code))
}
