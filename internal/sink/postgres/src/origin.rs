//! The replication origin that a session's writes carry: a replicator or subscription that reads this database's changes with
//! `origin = none` leaves them out, so that two databases can feed each other.
//!
//! An origin belongs to one session at a time. So they are numbered, and a session takes the first that is free.
//!
//! Source: <https://www.postgresql.org/docs/current/replication-origins.html>.

use crate::error;
use replicator_sink::SinkError;
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

/// More sessions than this sink ever has, with some of others.
const ORIGINS_MAX: u32 = 256;

/// What the sink's role has to be allowed.
const FUNCTIONS: [&str; 3] = [
    "pg_replication_origin_oid(text)",
    "pg_replication_origin_create(text)",
    "pg_replication_origin_session_setup(text)",
];

/// Has what the session writes from now on carry an origin.
pub(crate) async fn take(client: &Client) -> Result<(), SinkError> {
    let doing = "take a replication origin in the target";
    let mut others_have_some = false;
    for number in 0..ORIGINS_MAX {
        let name = format!("replicator_{number}");
        let made = client
            .execute(
                "SELECT pg_catalog.pg_replication_origin_create($1)
                 WHERE pg_catalog.pg_replication_origin_oid($1) IS NULL",
                &[&name],
            )
            .await;
        match made.err().as_ref().map(|error| (error, error.code())) {
            // Another session has made it just now.
            None | Some((_, Some(&SqlState::UNIQUE_VIOLATION))) => {}
            Some((error, code)) => return Err(refused(error, code, doing, others_have_some)),
        }
        let taken =
            client.execute("SELECT pg_catalog.pg_replication_origin_session_setup($1)", &[&name]).await;
        match taken.err().as_ref().map(|error| (error, error.code())) {
            None => return Ok(()),
            Some((_, Some(&SqlState::OBJECT_IN_USE))) => others_have_some = true,
            Some((error, code)) => return Err(refused(error, code, doing, others_have_some)),
        }
    }
    Err(SinkError::halt(format!(
        "{doing}: all of replicator_0 to replicator_{} are taken by other sessions; set origin = false in the sink",
        ORIGINS_MAX - 1
    )))
}

fn refused(error: &tokio_postgres::Error, code: Option<&SqlState>, doing: &str, may_wait: bool) -> SinkError {
    let said = error::of_server(error, doing);
    match code {
        Some(&SqlState::CONFIGURATION_LIMIT_EXCEEDED) => {
            let text = format!(
                "{said}: each connection of the sink takes one; raise max_active_replication_origins of the target (before \
                 18 max_replication_slots), or set origin = false in the sink"
            );
            // Some may be of sessions that are about to end.
            if may_wait { SinkError::retry(text) } else { SinkError::halt(text) }
        }
        Some(&SqlState::INSUFFICIENT_PRIVILEGE) => SinkError::halt(format!("{said}: {}", remedy())),
        Some(&SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE) => SinkError::halt(format!(
            "{said}: a pooler leaves an origin to whoever comes next, so name the server itself in the sink's url; and \
             max_active_replication_origins of the target (before 18 max_replication_slots) is not to be 0"
        )),
        _ => said,
    }
}

/// Whether the role may.
pub(crate) async fn is_allowed(client: &Client) -> Result<bool, tokio_postgres::Error> {
    // Before 14 the functions look for a superuser themselves.
    let sql = "SELECT pg_catalog.bool_and(pg_catalog.has_function_privilege('pg_catalog.' || f, 'EXECUTE'))
                      AND (pg_catalog.current_setting('server_version_num')::integer >= 140000
                           OR (SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user))
               FROM pg_catalog.unnest($1::text[]) AS f";
    let row = client.query_one(sql, &[&FUNCTIONS.as_slice()]).await?;
    Ok(row.get::<_, Option<bool>>(0).unwrap_or(false))
}

pub(crate) fn remedy() -> String {
    format!(
        "run GRANT EXECUTE ON FUNCTION {} TO the sink's role (before 14 make it a superuser), or set origin = false in the sink",
        FUNCTIONS.join(", ")
    )
}
