//! What is there: tables as the server describes them.

use crate::client::Client;
use crate::names::{Place, literal};
use crate::record::Tag;
use crate::types::Type;
use replicator_sink::SinkError;

/// What every tag begins with, whichever cluster's it is.
const TAG_WORD: &str = "PostgreSQL ";

/// An existing table, as far as it matters.
#[derive(Clone, Debug)]
pub(crate) struct Existing {
    pub(crate) engine: String,
    pub(crate) engine_full: String,
    pub(crate) columns: Vec<ExistingColumn>,
}

#[derive(Clone, Debug)]
pub(crate) struct ExistingColumn {
    pub(crate) name: String,
    pub(crate) of: Type,
    /// Whether it is of the sorting key.
    pub(crate) in_key: bool,
    /// `DEFAULT`, `MATERIALIZED`, `ALIAS`, `EPHEMERAL` or empty, and the expression.
    pub(crate) default_kind: String,
    pub(crate) default: String,
    /// What it carries, where this sink has written that down.
    pub(crate) tag: Option<Tag>,
    /// Whether somebody else has commented it, so that no tag can be.
    pub(crate) is_commented: bool,
}

impl Existing {
    pub(crate) fn column(&self, name: &str) -> Option<&ExistingColumn> {
        self.columns.iter().find(|column| column.name == name)
    }

    /// Whether it only passes on to tables elsewhere: it has no key, and its columns are not its own.
    pub(crate) fn is_distributed(&self) -> bool {
        self.engine == "Distributed"
    }

    /// Whether any of its columns carries one of that source table's.
    pub(crate) fn is_of(&self, oid: u32) -> bool {
        self.columns.iter().any(|column| column.tag.is_some_and(|tag| tag.oid == oid))
    }
}

/// What is in a place.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) table: Option<Existing>,
    /// Columns of the view with their types; `None` when there is none.
    pub(crate) view: Option<Vec<(String, Type)>>,
    /// Whether something other than a view has the view's name.
    pub(crate) view_name_taken: bool,
    /// Whether a rebuild has left something.
    pub(crate) leftover: bool,
}

/// Looks at a place. `system` says whose tags count.
pub(crate) async fn look(client: &Client, place: &Place, system: Option<u64>) -> Result<Found, SinkError> {
    let what = format!("looking at {}", place.sql());
    let (view, rebuilt) = (place.view(), place.rebuilt());
    let names = format!("({}, {}, {})", literal(&place.table), literal(&view.table), literal(&rebuilt.table));
    let database = literal(&place.database);
    let engines: Vec<(String, String, String)> = client
        .rows(
            &format!(
                "SELECT name, engine, engine_full FROM system.tables WHERE database = {database} AND name IN {names}"
            ),
            &what,
        )
        .await?;
    if engines.is_empty() {
        return Ok(Found::default());
    }
    let columns: Vec<(String, String, String, u8, String, String, String)> = client
        .rows(
            &format!(
                "SELECT table, name, type, is_in_sorting_key, default_kind, default_expression, comment FROM \
                 system.columns WHERE database = {database} AND table IN {names} ORDER BY table, position"
            ),
            &what,
        )
        .await?;
    let mut found = Found::default();
    for (name, engine, engine_full) in engines {
        let own = columns.iter().filter(|(table, ..)| *table == name);
        if name == place.table {
            let columns = own
                .map(|(_, name, of, key, default_kind, default, comment)| ExistingColumn {
                    name: name.clone(),
                    of: Type::parse(of),
                    in_key: *key == 1,
                    default_kind: default_kind.clone(),
                    default: default.clone(),
                    tag: system.and_then(|system| Tag::parse(comment, system)),
                    is_commented: !comment.is_empty() && !comment.starts_with(TAG_WORD),
                })
                .collect();
            found.table = Some(Existing { engine, engine_full, columns });
        } else if name == rebuilt.table {
            found.leftover = true;
        } else if engine == "View" {
            found.view = Some(own.map(|(_, name, of, ..)| (name.clone(), Type::parse(of))).collect());
        } else {
            found.view_name_taken = true;
        }
    }
    Ok(found)
}
