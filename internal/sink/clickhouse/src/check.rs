//! `replicator check` for this sink: looks, and changes nothing.

use crate::client::{Client, number};
use crate::names::identifier;
use crate::tables::Tables;
use replicator_sink::SinkError;
use replicator_types::{CheckItem, Relation};
use std::collections::BTreeSet;
use std::sync::Arc;

/// The oldest server that has all that is used: `ReplacingMergeTree(version, is_deleted)` came with 23.2,
/// type conversion in Native blocks with 23.8.
const VERSION_MIN: (u32, u32) = (23, 8);

/// The server's version, `26.9.2.1`.
pub(crate) async fn server_version(client: &Client) -> Result<String, SinkError> {
    let rows: Vec<(String,)> = client.rows("SELECT version()", "asking its version").await?;
    rows.into_iter().next().map(|(version,)| version).ok_or_else(|| {
        SinkError::retry(format!(
            "ClickHouse at {}: SELECT version() gave nothing; is it ClickHouse?",
            client.endpoint()
        ))
    })
}

/// Whether a server of that version will do; says why not.
pub(crate) fn supported(version: &str) -> Result<(), String> {
    let mut numbers = version.split('.').map_while(|part| part.parse::<u32>().ok());
    match (numbers.next(), numbers.next()) {
        (Some(major), Some(minor)) if (major, minor) < VERSION_MIN => Err(format!(
            "ClickHouse {version} is too old: {}.{} or later is needed",
            VERSION_MIN.0, VERSION_MIN.1
        )),
        _ => Ok(()),
    }
}

pub(crate) async fn check(client: &Client, tables: &Tables, relations: &[Arc<Relation>]) -> Vec<CheckItem> {
    let connection = format!("ClickHouse at {}", client.endpoint());
    let version = match server_version(client).await {
        Ok(version) => version,
        Err(error) => return vec![CheckItem::fail(connection, error.to_string())],
    };
    let mut items = vec![match supported(&version) {
        Ok(()) => CheckItem::ok(connection, format!("version {version}")),
        Err(problem) => CheckItem::fail(connection, problem),
    }];
    items.extend(permissions(client, tables, relations).await);
    items.extend(fits(tables, relations).await);
    items
}

/// Whether the user may do what the sink does. Servers before 24.10 cannot be asked (`CHECK GRANT`).
async fn permissions(client: &Client, tables: &Tables, relations: &[Arc<Relation>]) -> Vec<CheckItem> {
    let mut databases: BTreeSet<String> =
        relations.iter().map(|relation| tables.place(relation).database).collect();
    databases.insert(tables.database().to_owned());
    let mut wanted: Vec<(String, String)> = Vec::new();
    for database in databases {
        let mut grants =
            "SELECT, INSERT, CREATE TABLE, DROP TABLE, TRUNCATE, ALTER COLUMN, ALTER DELETE".to_owned();
        if tables.layout.views {
            grants.push_str(", CREATE VIEW, DROP VIEW");
        }
        match tables.database_exists(&database).await {
            Ok(true) => {}
            Ok(false) => grants.push_str(", CREATE DATABASE"),
            Err(error) => return vec![CheckItem::fail(format!("database {database}"), error.to_string())],
        }
        wanted.push((grants, format!("{}.*", identifier(&database))));
    }
    // The table function that looks up unchanged values.
    wanted.push(("CREATE TEMPORARY TABLE".into(), "*.*".into()));
    let mut items = Vec::new();
    for (grants, on) in wanted {
        let what = format!("permissions on {on}");
        let sql = format!("CHECK GRANT {grants} ON {on}");
        items.push(match client.rows::<(serde_json::Value,)>(&sql, "checking permissions").await {
            Ok(rows) if rows.first().is_some_and(|(granted,)| number(granted) == 1) => {
                CheckItem::ok(what, grants)
            }
            Ok(_) => CheckItem::fail(
                what,
                format!("the sink's user lacks some of these: GRANT {grants} ON {on} TO …"),
            ),
            Err(error) if error.to_string().contains("SYNTAX_ERROR") => {
                CheckItem::ok(what, "not looked at: the server cannot be asked")
            }
            Err(error) => CheckItem::fail(what, error.to_string()),
        });
    }
    items
}

/// Whether each table could be written: an item for each that could not, one for all others.
async fn fits(tables: &Tables, relations: &[Arc<Relation>]) -> Vec<CheckItem> {
    let mut items = Vec::new();
    let mut fitting = 0;
    let mut places = BTreeSet::new();
    for relation in relations {
        let what = format!("table {relation}");
        let place = tables.place(relation);
        if !places.insert(place.clone()) {
            items.push(CheckItem::fail(
                what,
                format!("another table goes into {} as well: set schema_naming = \"database\"", place.sql()),
            ));
            continue;
        }
        match tables.examine(relation).await {
            Ok(found) if tables.layout.is_mirror() && !relation.has_key() => items.push(CheckItem::ok(
                what,
                format!(
                    "{found}; it has no key, so that only inserts can be mirrored, and an UPDATE or DELETE has the \
                     table set aside here: give it a primary key, or use mode = \"history\""
                ),
            )),
            Ok(_) => fitting += 1,
            Err(error) => items.push(CheckItem::fail(what, error.to_string())),
        }
    }
    if fitting > 0 {
        items.push(CheckItem::ok("tables", format!("{fitting} can be written")));
    }
    items
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_servers_are_refused_and_unknown_versions_are_not() {
        for (version, fine) in [
            ("23.7.1.2470", false),
            ("18.16.1", false),
            ("23.8.1.1", true),
            ("26.9.2.1", true),
            ("cloud", true),
        ] {
            assert_eq!(supported(version).is_ok(), fine, "{version}");
        }
    }
}
