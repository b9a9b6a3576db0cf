use crate::error;
use crate::evolve::Hand;
use crate::existing::Existing;
use crate::generated;
use crate::record::{Place, Record};
use crate::sql::{ident, table as quoted};
use replicator_sink::SinkError;
use replicator_types::{Column, GeneratedColumn};
use tokio_postgres::Client;

/// Key of the advisory lock under which this program makes things in a target, so that two lanes that meet a
/// new table at once do not both make it. ASCII `replicat`.
const CREATION_LOCK: i64 = 0x7265_706c_6963_6174;

/// Runs `work` in a transaction that no other replicator is in at the same time. It does not wait for ever for a lock
/// on a table: behind such a wait every reader of the table would queue, and what is to be made of other tables. It is
/// tried again.
pub(crate) async fn under_lock<T>(
    client: &Client,
    doing: &str,
    work: impl AsyncFnOnce() -> Result<T, SinkError>,
) -> Result<T, SinkError> {
    let failed = |error| error::of_server(&error, doing);
    client.batch_execute("BEGIN; SET LOCAL lock_timeout = '5s'").await.map_err(failed)?;
    let lock = format!("SELECT pg_catalog.pg_advisory_xact_lock({CREATION_LOCK})");
    let done = match client.batch_execute(&lock).await {
        Ok(()) => work().await,
        Err(error) => Err(error::of_server(&error, doing)),
    };
    match done {
        Ok(done) => client.batch_execute("COMMIT").await.map_err(failed).map(|()| done),
        Err(error) => {
            // What is told is why it failed, whether or not the connection is still there to roll back.
            let _ = client.batch_execute("ROLLBACK").await;
            Err(error)
        }
    }
}

/// Makes the relation's table, in the open transaction, with what is `computed` in it where the target can have that.
///
/// # Errors
/// Halt when permission is missing.
pub(crate) async fn table(hand: &Hand<'_>, computed: &[GeneratedColumn]) -> Result<Record, SinkError> {
    let relation = hand.relation;
    schema(hand, &relation.schema).await?;
    let columns = relation.columns.iter().enumerate();
    let sent: Vec<(i16, String)> = columns
        .map(|(index, column)| (column.attnum, column_definition(column, hand.types.sql(index, column))))
        .collect();
    let mut rest = Vec::new();
    let key: Vec<&Column> = relation.columns.iter().filter(|column| column.is_key).collect();
    if !key.is_empty() {
        let quoted: Vec<String> = key.iter().map(|column| ident(&column.name)).collect();
        rest.push(format!("PRIMARY KEY ({})", quoted.join(", ")));
    }
    // Of another type a column may make an expression mean something else.
    let is_alike = (0..sent.len()).all(|index| hand.types.stand_in(index).is_none());
    let made = if !computed.is_empty() && is_alike && sent.iter().all(|(attnum, _)| *attnum != 0) {
        generated::create(hand, computed, &sent, &rest).await?
    } else {
        None
    };
    if made.is_none() {
        let parts: Vec<&str> = sent.iter().map(|(_, part)| part).chain(&rest).map(String::as_str).collect();
        let name = quoted(&relation.schema, &relation.name);
        hand.run(&format!("CREATE TABLE {name} ({})", parts.join(", "))).await?;
    }

    let mut record = Record::found(relation);
    record.generated = made.unwrap_or_default();
    for (index, (known, column)) in record.columns.iter_mut().zip(&relation.columns).enumerate() {
        known.stand_in = hand.types.stand_in(index).map(str::to_owned);
        known.not_null = column.is_key;
        known.default_sql.clone_from(&column.default_sql);
    }
    if let Some(made) = Existing::look_up(hand.client, &relation.schema, &relation.name).await? {
        let names: Vec<&str> = key.iter().map(|column| column.name.as_str()).collect();
        record.key_index = made.unique_over(&names).map(|index| index.name.clone());
    }
    Ok(record)
}

/// Makes a schema where it is absent, in the open transaction.
pub(crate) async fn schema(hand: &Hand<'_>, name: &str) -> Result<(), SinkError> {
    let has_schema = "SELECT EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = $1)";
    let row = hand.client.query_one(has_schema, &[&name]).await;
    if row.map_err(|error| error::of_server(&error, hand.doing))?.get::<_, bool>(0) {
        return Ok(());
    }
    hand.run(&format!("CREATE SCHEMA {}", ident(name))).await
}

/// NOT NULL only where the key makes it so. The catalog tells what holds today; the stream may still hold rows
/// from before a `SET NOT NULL`, and the source guards the rule anyway. It comes with the next change of the table.
fn column_definition(column: &Column, type_sql: &str) -> String {
    let default = column.default_sql.as_ref().map(|sql| format!(" DEFAULT {sql}")).unwrap_or_default();
    format!("{} {type_sql}{default}", ident(&column.name))
}

/// Adds those columns of the relation whose name in the target is among `missing`, in the open transaction.
pub(crate) async fn add_columns(hand: &Hand<'_>, place: &Place, missing: &[&str]) -> Result<(), SinkError> {
    let both = place.columns.iter().zip(&hand.relation.columns).enumerate();
    let added: Vec<String> = both
        .filter_map(|(index, (name, column))| Some((name.as_deref()?, hand.types.sql(index, column))))
        .filter(|(name, _)| missing.contains(name))
        .map(|(name, type_sql)| format!("ADD COLUMN {} {type_sql}", ident(name)))
        .collect();
    hand.run(&format!("ALTER TABLE {} {}", place.quoted(), added.join(", "))).await
}
