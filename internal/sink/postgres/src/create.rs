use crate::error;
use crate::sql::ident;
use crate::target::{Existing, has_type};
use replicator_sink::SinkError;
use replicator_types::{Column, Relation};
use slog::{Logger, info};
use tokio_postgres::Client;

/// Key of the advisory lock under which this program makes things in a target, so that two lanes that meet a
/// new table at once do not both make it. ASCII `replicat`.
const CREATION_LOCK: i64 = 0x7265_706c_6963_6174;

/// Makes the relation's table, or adds the columns it lacks.
///
/// # Errors
/// Halt when a type is not known in the target, or permission is missing.
pub(crate) async fn table_or_columns(
    client: &Client,
    relation: &Relation,
    logger: &Logger,
) -> Result<(), SinkError> {
    let doing = format!("create table {relation} in the target");
    under_lock(client, &doing, async || {
        // Another lane may have been here first.
        let statements = match Existing::look_up(client, relation).await? {
            None => create_table(client, relation, &doing).await?,
            Some(existing) => add_columns(relation, &existing.missing_columns(relation)),
        };
        for sql in statements {
            info!(logger, "changing the target's schema"; "statement" => &sql);
            if let Err(error) = client.batch_execute(&sql).await {
                return Err(match missing_type(client, relation, &error).await {
                    Some(halt) => halt,
                    None => error::of_server(&error, &doing),
                });
            }
        }
        Ok(())
    })
    .await
}

/// Runs `work` in a transaction that no other replicator is in at the same time.
pub(crate) async fn under_lock(
    client: &Client,
    doing: &str,
    work: impl AsyncFnOnce() -> Result<(), SinkError>,
) -> Result<(), SinkError> {
    let failed = |error| error::of_server(&error, doing);
    client.batch_execute("BEGIN").await.map_err(failed)?;
    let lock = format!("SELECT pg_catalog.pg_advisory_xact_lock({CREATION_LOCK})");
    let done = match client.batch_execute(&lock).await {
        Ok(()) => work().await,
        Err(error) => Err(error::of_server(&error, doing)),
    };
    match done {
        Ok(()) => client.batch_execute("COMMIT").await.map_err(failed),
        Err(error) => {
            // What is told is why it failed, whether or not the connection is still there to roll back.
            let _ = client.batch_execute("ROLLBACK").await;
            Err(error)
        }
    }
}

async fn create_table(client: &Client, relation: &Relation, doing: &str) -> Result<Vec<String>, SinkError> {
    let has_schema = "SELECT EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = $1)";
    let row = client.query_one(has_schema, &[&relation.schema]).await;
    let mut statements = Vec::new();
    if !row.map_err(|error| error::of_server(&error, doing))?.get::<_, bool>(0) {
        statements.push(format!("CREATE SCHEMA {}", ident(&relation.schema)));
    }
    let mut parts: Vec<String> = relation.columns.iter().map(column_definition).collect();
    let key: Vec<String> =
        relation.columns.iter().filter(|column| column.is_key).map(|column| ident(&column.name)).collect();
    if !key.is_empty() {
        parts.push(format!("PRIMARY KEY ({})", key.join(", ")));
    }
    let (schema, name) = (ident(&relation.schema), ident(&relation.name));
    statements.push(format!("CREATE TABLE {schema}.{name} ({})", parts.join(", ")));
    Ok(statements)
}

/// NOT NULL only where the key makes it so. The catalog tells what holds today; the stream may still hold rows
/// from before a `SET NOT NULL`, and the source guards the rule anyway.
fn column_definition(column: &Column) -> String {
    format!("{} {}", ident(&column.name), column.type_sql)
}

/// New columns take NULL: what the rows that are there have in them is not known here.
fn add_columns(relation: &Relation, missing: &[&str]) -> Vec<String> {
    let added: Vec<String> = relation
        .columns
        .iter()
        .filter(|column| missing.contains(&column.name.as_str()))
        .map(|column| format!("ADD COLUMN {} {}", ident(&column.name), column.type_sql))
        .collect();
    if added.is_empty() {
        return Vec::new();
    }
    vec![format!("ALTER TABLE {}.{} {}", ident(&relation.schema), ident(&relation.name), added.join(", "))]
}

/// The error for a type that the target does not know, when that is what the server meant.
async fn missing_type(
    client: &Client,
    relation: &Relation,
    error: &tokio_postgres::Error,
) -> Option<SinkError> {
    use tokio_postgres::error::SqlState;
    let code = error.code()?;
    if ![SqlState::UNDEFINED_OBJECT, SqlState::INVALID_SCHEMA_NAME].contains(code) {
        return None;
    }
    client.batch_execute("ROLLBACK").await.ok()?;
    for column in &relation.columns {
        if !has_type(client, &column.type_sql).await.unwrap_or(true) {
            return Some(SinkError::halt(type_is_missing(relation, column)));
        }
    }
    None
}

/// The line for a column whose type the target does not know.
pub(crate) fn type_is_missing(relation: &Relation, column: &Column) -> String {
    format!(
        "table {relation} cannot be created in the target: it does not know the type {} of column {}; create the type \
         there first (`pg_dump --schema-only` of the source has its definition; an extension's type needs CREATE \
         EXTENSION)",
        column.type_sql, column.name
    )
}
