use replicator_pgconn::{ConnectError, ErrorKind, ServerError};
use replicator_sink::SinkError;
use std::error::Error as _;
use tokio_postgres::error::SqlState;

/// What the server's answer means for a batch.
///
/// `doing` says what was tried, with the table's name: `"copy into public.orders"`.
///
/// Source: <https://www.postgresql.org/docs/current/errcodes-appendix.html>.
pub(crate) fn of_server(error: &tokio_postgres::Error, doing: &str) -> SinkError {
    let Some(server) = error.as_db_error() else {
        let cause = error.source().map_or_else(|| error.to_string(), ToString::to_string);
        return SinkError::retry(format!("{doing}: the connection to the target failed: {cause}"));
    };
    let mut text = format!("{doing}: {}", ServerError::from(server));
    let places = [("constraint", server.constraint()), ("column", server.column()), ("at", server.where_())];
    for (what, name) in places {
        if let Some(name) = name {
            text.push_str(&format!("; {what} {name}"));
        }
    }
    let kind = match kind_of(server.code().code()) {
        // With a context it is of a value's bytes, as a receive function sees them, and not of a pooler's.
        _ if *server.code() == SqlState::PROTOCOL_VIOLATION && server.where_().is_some() => Kind::Reject,
        kind => kind,
    };
    match kind {
        Kind::Retry => SinkError::retry(text),
        Kind::Reject => SinkError::reject(text),
        Kind::Halt => {
            text.push_str("; ");
            text.push_str(remedy(server.code()));
            SinkError::halt(text)
        }
    }
}

pub(crate) fn of_connect(error: &ConnectError) -> SinkError {
    match error.kind() {
        ErrorKind::Retry => SinkError::retry(error.to_string()),
        ErrorKind::Halt => SinkError::halt(error.to_string()),
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Retry,
    Halt,
    Reject,
}

fn kind_of(code: &str) -> Kind {
    match (code.get(..2).unwrap_or_default(), code) {
        // A standby, or a primary being made one: the host list may lead elsewhere next time.
        (_, "25006") => Kind::Retry,
        // Numbers out of range, broken text forms; constraints; a row or index entry too large.
        ("22" | "23" | "54", _) => Kind::Reject,
        // Features missing; authorization; things that depend on others; catalog and schema names; permissions and undefined objects.
        ("0A" | "0L" | "0P" | "28" | "2B" | "3D" | "3F" | "42" | "44", _) => Kind::Halt,
        // Connections, resources, deadlocks, operator intervention, the system: and what is not known.
        _ => Kind::Retry,
    }
}

fn remedy(code: &SqlState) -> &'static str {
    match code.code() {
        "42501" => "grant the sink's role what is missing, or make it the owner of the target's tables",
        "42P01" | "3F000" => {
            "restore the table in the target, or have it copied again (replicator resync --table)"
        }
        "42703" => "give the target's table this column again, then start again",
        "42804" | "42883" | "42846" => "give the target's column the source's type",
        "42704" => {
            "create the type in the target first (`pg_dump --schema-only` of the source has its definition; an \
             extension's type needs CREATE EXTENSION)"
        }
        "2BP01" => {
            "drop in the target what depends on it (a view, a foreign key), start again, and make that anew afterwards"
        }
        "428C9" => "drop GENERATED ALWAYS from the target's column",
        "0A000" => "bring the target's table in line with the source's (`pg_dump --schema-only`)",
        _ => "put this right in the target, then start again",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_passes_by_itself_is_tried_again_and_what_never_fits_is_rejected() {
        for code in [
            "08006", "57P01", "57P03", "53300", "53100", "40001", "40P01", "55P03", "25006", "58030",
            "XX000", "",
        ] {
            assert_eq!(kind_of(code), Kind::Retry, "{code}");
        }
        for code in ["28P01", "2BP01", "3D000", "42501", "42P01", "42703", "42804", "0A000", "3F000"] {
            assert_eq!(kind_of(code), Kind::Halt, "{code}");
        }
        for code in ["22003", "22P02", "22021", "23502", "23503", "23505", "23514", "54000"] {
            assert_eq!(kind_of(code), Kind::Reject, "{code}");
        }
    }
}
