//! What ClickHouse's errors mean for the pipeline.
//!
//! Source: <https://github.com/ClickHouse/ClickHouse/blob/master/src/Common/ErrorCodes.cpp>; the HTTP
//! interface writes `Code: N. DB::Exception: …`.

use clickhouse::error::Error;
use replicator_sink::{ErrorKind, SinkError};
use std::error::Error as _;
use std::time::Duration;

/// A request that came to nothing.
pub(crate) enum Failure {
    /// The server or the connection said so.
    Request(Error),
    /// There was no answer.
    Timeout(Duration),
}

/// Characters of the server's own text that go into an error.
const MESSAGE_CHARS_MAX: usize = 600;

/// The error for a failed request. `what` says what was being done, in the form of "inserting …".
pub(crate) fn explain(failure: Failure, endpoint: &str, what: &str) -> SinkError {
    match failure {
        Failure::Timeout(limit) => SinkError::retry(format!(
            "ClickHouse at {endpoint}, {what}: no answer within {} s",
            limit.as_secs_f32()
        )),
        Failure::Request(Error::TimedOut) => {
            SinkError::retry(format!("ClickHouse at {endpoint}, {what}: timed out (request_timeout_ms)"))
        }
        Failure::Request(Error::BadResponse(text)) => {
            let message = shortened(&text);
            let Some(code) = code_of(&text) else {
                return SinkError::retry(format!("ClickHouse at {endpoint}, {what}: {message}"));
            };
            let (kind, remedy) = meaning(code, &text);
            let text = match remedy {
                Some(remedy) => format!("ClickHouse at {endpoint}, {what}: {message}; {remedy}"),
                None => format!("ClickHouse at {endpoint}, {what}: {message}"),
            };
            match kind {
                ErrorKind::Retry => SinkError::retry(text),
                ErrorKind::Halt => SinkError::halt(text),
                ErrorKind::Reject => SinkError::reject(text),
            }
        }
        Failure::Request(error @ Error::Network(_)) => network(&error, endpoint, what),
        Failure::Request(error) => {
            SinkError::retry(format!("ClickHouse at {endpoint}, {what}: {}", shortened(&chain(&error))))
        }
    }
}

/// Whether the server said that it is the matter with the table that was written to: without that, what else is written
/// would go through.
pub(crate) fn is_of_table(error: &SinkError) -> bool {
    // UNKNOWN_TABLE; columns that are not there, or of another type.
    matches!(code_of(&error.to_string()), Some(60 | 16 | 10 | 8 | 47 | 53 | 44 | 70))
}

/// What is to be done about an error code, and the remedy where a person is needed.
fn meaning(code: u32, text: &str) -> (ErrorKind, Option<&'static str>) {
    use ErrorKind::{Halt, Reject, Retry};
    match code {
        // AUTHENTICATION_FAILED, WRONG_PASSWORD, REQUIRED_PASSWORD, UNKNOWN_USER
        516 | 193 | 194 | 192 => {
            (Halt, Some("set the sink's user and password (or password_file) to those of the server"))
        }
        // ACCESS_DENIED
        497 => (Halt, Some("grant the sink's user what the message names, or choose another user")),
        // READONLY
        164 => (Halt, Some("the sink's user is read-only: choose one with readonly = 0")),
        // UNKNOWN_DATABASE
        81 => {
            (Halt, Some("it was there when this run began and somebody dropped it; a restart makes it anew"))
        }
        // UNKNOWN_TABLE
        60 => (
            Halt,
            Some(
                "it was there when this run began and somebody dropped it; `replicator resync --table` has it made and \
                 copied anew",
            ),
        ),
        // NO_SUCH_COLUMN_IN_TABLE, NOT_FOUND_COLUMN_IN_BLOCK, THERE_IS_NO_COLUMN, UNKNOWN_IDENTIFIER
        16 | 10 | 8 | 47 => {
            (Halt, Some("the table was changed while it was written to; restart to look at it again"))
        }
        // TYPE_MISMATCH, ILLEGAL_COLUMN, CANNOT_CONVERT_TYPE
        53 | 44 | 70 => {
            (Halt, Some("give the column the type that the source's needs, or drop it and restart"))
        }
        // TABLE_SIZE_EXCEEDS_MAX_DROP_SIZE_LIMIT
        359 => (Halt, Some("raise the server's max_table_size_to_drop, so that a TRUNCATE can follow")),
        // SYNTAX_ERROR, UNKNOWN_SETTING, UNKNOWN_TYPE, UNKNOWN_FUNCTION, UNKNOWN_STORAGE, SUPPORT_IS_DISABLED
        62 | 115 | 50 | 46 | 56 | 344 => {
            (Halt, Some("the server does not know what it is asked for: is it 23.8 or later?"))
        }
        // SETTING_CONSTRAINT_VIOLATION
        452 => (Halt, Some("let the sink's user set it")),
        // CLUSTER_DOESNT_EXIST / BAD_GET about a cluster
        701 | 170 => (Halt, Some("set the sink's cluster to one that the server knows (system.clusters)")),
        // CANNOT_PARSE_*, INCORRECT_DATA, ARGUMENT_OUT_OF_BOUND, TOO_LARGE_STRING_SIZE,
        // CANNOT_INSERT_NULL_IN_ORDINARY_COLUMN, DECIMAL_OVERFLOW, VALUE_IS_OUT_OF_RANGE_OF_DATA_TYPE,
        // VIOLATED_CONSTRAINT, UNKNOWN_ELEMENT_OF_ENUM
        6 | 26 | 27 | 38 | 41 | 72 | 117 | 69 | 131 | 349 | 407 | 321 | 469 | 691 => (Reject, None),
        // TOO_MANY_PARTS has one case that does not pass.
        252 if text.contains("partitions for single INSERT block") => {
            (Halt, Some("raise max_partitions_per_insert_block, or partition the table less finely"))
        }
        // MEMORY_LIMIT_EXCEEDED
        241 => (
            Retry,
            Some(
                "if that goes on, give the sink's user more memory (max_memory_usage), or make the sink's \
                 copy_insert_bytes_max smaller, then copy.batch_bytes_max or batch.bytes_max",
            ),
        ),
        // Network (209, 210, 279), load (159, 202, 203, 252), replicas and Keeper (225, 242, 319, 999),
        // disk (243, 75), I/O in general, bodies that did not arrive whole (33, 40, 271), and all unknown ones.
        _ => (Retry, None),
    }
}

fn network(error: &Error, endpoint: &str, what: &str) -> SinkError {
    let causes = chain(error);
    // rustls' words, wherever in the chain.
    if causes.contains("invalid peer certificate") {
        return SinkError::halt(format!(
            "ClickHouse at {endpoint}, {what}: its TLS certificate is not accepted ({}); set ca_file to the \
             authority that signed it, and the url's host to a name it has",
            shortened(&causes)
        ));
    }
    SinkError::retry(format!(
        "ClickHouse at {endpoint}, {what}: not reached ({}); is it running, and is the url right?",
        shortened(&causes)
    ))
}

/// An error and its causes, from the outside in, each said once.
fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    text
}

/// The number in `Code: N`.
pub(crate) fn code_of(text: &str) -> Option<u32> {
    let (_, rest) = text.split_once("Code: ")?;
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    rest.get(..digits)?.parse().ok()
}

fn shortened(text: &str) -> String {
    let text = text.trim();
    match text.char_indices().nth(MESSAGE_CHARS_MAX) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or(text)),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> SinkError {
        explain(Failure::Request(Error::BadResponse(text.into())), "host:8123", "inserting into t")
    }

    #[test]
    fn errors_are_told_apart_by_what_is_to_be_done() {
        for (text, kind) in [
            ("Code: 516. DB::Exception: default: Authentication failed", ErrorKind::Halt),
            ("Code: 497. DB::Exception: Not enough privileges", ErrorKind::Halt),
            ("Code: 60. DB::Exception: Table x does not exist", ErrorKind::Halt),
            ("Code: 252. DB::Exception: Too many parts (300)", ErrorKind::Retry),
            ("Code: 252. DB::Exception: Too many partitions for single INSERT block", ErrorKind::Halt),
            ("Code: 241. DB::Exception: Memory limit exceeded", ErrorKind::Retry),
            ("Code: 242. DB::Exception: Table is in readonly mode", ErrorKind::Retry),
            ("Code: 999. Coordination::Exception: Session expired", ErrorKind::Retry),
            ("Code: 33. DB::Exception: Cannot read all data", ErrorKind::Retry),
            ("Code: 469. DB::Exception: Constraint violated", ErrorKind::Reject),
            ("Code: 349. DB::Exception: Cannot convert NULL", ErrorKind::Reject),
            ("Code: 123456. DB::Exception: something of next year", ErrorKind::Retry),
            ("502 Bad Gateway", ErrorKind::Retry),
            ("<html>proxy</html>", ErrorKind::Retry),
        ] {
            let error = of(text);
            assert_eq!(error.kind(), kind, "{text}");
            assert!(error.to_string().contains("host:8123, inserting into t"), "{error}");
        }
    }

    #[test]
    fn what_a_person_has_to_do_is_said() {
        assert!(of("Code: 516. DB::Exception: no").to_string().contains("password"));
        assert!(of("Code: 497. DB::Exception: no").to_string().contains("grant"));
    }

    #[test]
    fn a_long_answer_is_cut_between_characters() {
        let text = "ä".repeat(5000);
        assert_eq!(shortened(&text).chars().count(), MESSAGE_CHARS_MAX + 1);
    }
}
