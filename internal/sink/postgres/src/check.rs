use crate::connector::{Connector, ROLE_NOT_PERMITTED, SERVER_VERSION_MIN};
use crate::existing::Existing;
use crate::origin;
use crate::own_tables::{OWN_TABLES, OwnTable};
use crate::record::Place;
use crate::sql::ident;
use crate::target::Target;
use crate::types::Types;
use replicator_types::{CheckItem, Relation};
use std::sync::Arc;
use tokio_postgres::Client;

/// `server_version_num`: 150004 for 15.4.
pub(crate) async fn server_version(client: &Client) -> Result<i32, tokio_postgres::Error> {
    let sql = "SELECT pg_catalog.current_setting('server_version_num')::integer";
    Ok(client.query_one(sql, &[]).await?.get(0))
}

pub(crate) fn too_old(version: i32) -> String {
    format!(
        "the target is PostgreSQL {}; {} is the oldest that changes can be applied to",
        version / 10_000,
        SERVER_VERSION_MIN / 10_000
    )
}

/// Looks at everything that writing needs, and changes nothing.
pub(crate) async fn check(
    connector: &Connector,
    tables: &[Arc<Relation>],
    create_tables: bool,
) -> Vec<CheckItem> {
    let client = match connector.connect().await {
        Ok(client) => client,
        Err(error) => return vec![CheckItem::fail("connection", error.to_string())],
    };
    let mut items = Vec::new();
    let checks = async {
        items.push(version(&client).await?);
        items.push(writable(&client).await?);
        items.push(replication_role(&client).await?);
        if connector.takes_origins() {
            items.push(origin(&client).await?);
        }
        items.push(temporary(&client).await?);
        items.push(own_tables(&client).await?);
        for relation in tables {
            items.push(table(&client, relation, create_tables).await?);
        }
        Ok::<_, String>(())
    };
    if let Err(error) = checks.await {
        items.push(CheckItem::fail("look at the target", error));
    }
    items
}

fn text(error: tokio_postgres::Error) -> String {
    crate::error::of_server(&error, "ask the target's catalog").to_string()
}

async fn is_true(client: &Client, sql: &str) -> Result<bool, String> {
    let row = client.query_one(sql, &[]).await.map_err(text)?;
    Ok(row.get::<_, Option<bool>>(0).unwrap_or(false))
}

async fn version(client: &Client) -> Result<CheckItem, String> {
    let version = server_version(client).await.map_err(text)?;
    Ok(if version < SERVER_VERSION_MIN {
        CheckItem::fail("connection", too_old(version))
    } else {
        CheckItem::ok("connection", format!("PostgreSQL {}.{}", version / 10_000, version % 10_000))
    })
}

async fn writable(client: &Client) -> Result<CheckItem, String> {
    let what = "writes";
    if is_true(client, "SELECT pg_catalog.pg_is_in_recovery()").await? {
        return Ok(CheckItem::fail(
            what,
            "the target is a standby, which takes no writes; connect to its primary",
        ));
    }
    Ok(CheckItem::ok(what, "the target takes them"))
}

async fn replication_role(client: &Client) -> Result<CheckItem, String> {
    let what = "session_replication_role";
    let sql = if server_version(client).await.map_err(text)? >= 150_000 {
        "SELECT pg_catalog.has_parameter_privilege('session_replication_role', 'SET')"
    } else {
        "SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user"
    };
    Ok(if is_true(client, sql).await? {
        CheckItem::ok(
            what,
            "replica: triggers and foreign keys of the target are not fired by replicated changes",
        )
    } else {
        CheckItem::ok(what, ROLE_NOT_PERMITTED)
    })
}

async fn origin(client: &Client) -> Result<CheckItem, String> {
    let what = "replication origin";
    Ok(if origin::is_allowed(client).await.map_err(text)? {
        CheckItem::ok(what, "writes carry one")
    } else {
        CheckItem::fail(what, format!("the sink's role may not set one; {}", origin::remedy()))
    })
}

async fn temporary(client: &Client) -> Result<CheckItem, String> {
    let what = "temporary tables";
    let sql = "SELECT pg_catalog.has_database_privilege(pg_catalog.current_database(), 'TEMPORARY')";
    Ok(if is_true(client, sql).await? {
        CheckItem::ok(what, "allowed")
    } else {
        CheckItem::fail(
            what,
            "rows are staged in temporary tables; run GRANT TEMPORARY ON DATABASE … TO the sink's role",
        )
    })
}

const MAY_CREATE_SCHEMAS: &str =
    "SELECT pg_catalog.has_database_privilege(pg_catalog.current_database(), 'CREATE')";

/// The first that is wrong, or else one line for all.
async fn own_tables(client: &Client) -> Result<CheckItem, String> {
    let mut found = Vec::new();
    for own in &OWN_TABLES {
        let item = own_table(client, own).await?;
        if item.result.is_err() {
            return Ok(item);
        }
        found.extend(item.result.map(|text| format!("{} {text}", own.name)));
    }
    Ok(CheckItem::ok("schema replicator", found.join("; ")))
}

async fn own_table(client: &Client, own: &OwnTable) -> Result<CheckItem, String> {
    let what = own.name;
    if own.exists(client).await.map_err(text)? {
        for privilege in own.privileges {
            let sql = "SELECT pg_catalog.has_table_privilege($1, $2)";
            let row = client.query_one(sql, &[&what, &privilege]).await.map_err(text)?;
            if !row.get::<_, bool>(0) {
                let wanted = own.privileges.join(", ");
                return Ok(CheckItem::fail(what, format!("run GRANT {wanted} ON {what} TO the sink's role")));
            }
        }
        return Ok(CheckItem::ok(what, "is there"));
    }
    let has_schema = is_true(client, "SELECT pg_catalog.to_regnamespace('replicator') IS NOT NULL").await?;
    let sql = if has_schema {
        "SELECT pg_catalog.has_schema_privilege('replicator', 'CREATE, USAGE')"
    } else {
        MAY_CREATE_SCHEMAS
    };
    Ok(if is_true(client, sql).await? {
        CheckItem::ok(what, "can be created")
    } else {
        CheckItem::fail(
            what,
            "the sink keeps its position in schema replicator and may not create it; run GRANT CREATE ON DATABASE … TO \
             the sink's role, or CREATE SCHEMA replicator AUTHORIZATION the role",
        )
    })
}

async fn table(client: &Client, relation: &Arc<Relation>, create: bool) -> Result<CheckItem, String> {
    let what = format!("table {relation}");
    let place = Place::by_name(relation);
    let existing = Existing::look_up(client, &place.schema, &place.name).await;
    let existing = existing.map_err(|error| error.to_string())?;
    let Some(existing) = existing else {
        return absent_table(client, relation, create, what).await;
    };
    let missing = existing.missing_columns(&place);
    if !missing.is_empty() && !create {
        let remedy =
            format!("lacks {}; add with ALTER TABLE, or set create_tables = true", missing.join(", "));
        return Ok(CheckItem::fail(what, remedy));
    }
    let target = existing.target_of(relation, &place, 0);
    if let Err(remedy) | Ok(Target { key_is_missing: Some(remedy), .. }) = target {
        return Ok(CheckItem::fail(what, remedy));
    }
    let name = place.quoted();
    for privilege in ["SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE"] {
        let sql = "SELECT pg_catalog.has_table_privilege($1, $2)";
        let row = client.query_one(sql, &[&name, &privilege]).await.map_err(text)?;
        if !row.get::<_, bool>(0) {
            let remedy =
                format!("the sink's role lacks {privilege}; run GRANT {privilege} ON {name} TO the role");
            return Ok(CheckItem::fail(what, remedy));
        }
    }
    let mut found = vec!["is there".to_owned()];
    if !missing.is_empty() {
        found.push(format!("will get {}", missing.join(", ")));
    }
    found.extend(existing.other_types(relation));
    Ok(CheckItem::ok(what, found.join("; ")))
}

async fn absent_table(
    client: &Client,
    relation: &Relation,
    create: bool,
    what: String,
) -> Result<CheckItem, String> {
    if !create {
        let remedy = "is not in the target; create it there or set create_tables = true";
        return Ok(CheckItem::fail(what, remedy));
    }
    let types = Types::look_up(client, relation).await.map_err(|error| error.to_string())?;
    let mut found = vec!["will be created".to_owned()];
    for (index, column) in relation.columns.iter().enumerate() {
        if let Some(stand_in) = types.stand_in(index) {
            found.push(format!(
                "column {} will be {stand_in}, since the target does not know {}: create the type there first to keep it \
                 (`pg_dump --schema-only` of the source has its definition; an extension's type needs CREATE EXTENSION)",
                column.name, column.type_sql
            ));
        }
    }
    let sql = "SELECT CASE WHEN pg_catalog.to_regnamespace(pg_catalog.quote_ident($1)) IS NULL \
               THEN pg_catalog.has_database_privilege(pg_catalog.current_database(), 'CREATE') \
               ELSE pg_catalog.has_schema_privilege($1, 'CREATE') END";
    let row = client.query_one(sql, &[&relation.schema]).await.map_err(text)?;
    Ok(if row.get::<_, bool>(0) {
        CheckItem::ok(what, found.join("; "))
    } else {
        CheckItem::fail(
            what,
            format!(
                "the sink's role may not create it; run GRANT CREATE ON SCHEMA {} TO the role (or ON DATABASE, where the \
                 schema is absent)",
                ident(&relation.schema)
            ),
        )
    })
}
