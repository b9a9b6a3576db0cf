//! The tables of the sink: made when first seen, compared when they are there already, widened when a
//! column appears. Shared by the lanes; one looks at a time.
//!
//! Later schema changes (renames, drops, changed types) will be decided in [`Tables::settle`], which sees
//! the relation as it is now and the table as it is there.

use crate::client::Client;
use crate::layout::Layout;
use crate::names::{Place, identifiers, literal};
use crate::native::{Column, Rules};
use crate::types::{Type, is_compatible};
use replicator_config::{ArrayColumns, ClickHouseConfig, OutOfRange, SchemaNaming};
use replicator_sink::SinkError;
use replicator_types::{ColumnKind, Relation, oid};
use slog::{Logger, info, warn};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, PoisonError, RwLock};
use tokio::sync::Mutex;

/// A table to write to, for one version of its source.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) relation: Arc<Relation>,
    pub(crate) place: Place,
    /// `` `database`.`table` ``
    pub(crate) sql: String,
    pub(crate) insert: String,
    /// In the order of the relation's columns.
    pub(crate) columns: Vec<TargetColumn>,
}

/// A column to write to.
#[derive(Clone, Debug)]
pub(crate) struct TargetColumn {
    /// Its type there.
    pub(crate) exists: Type,
    /// Whether the text that comes is that of a `bytea`.
    pub(crate) bytea: bool,
}

/// An existing table, as far as it matters.
pub(crate) struct Existing {
    engine: String,
    engine_full: String,
    /// Name, type and whether it is of the sorting key.
    columns: Vec<(String, Type, bool)>,
}

/// What is in a place.
struct Found {
    table: Option<Existing>,
    /// Columns of the view; `None` when there is none.
    view: Option<BTreeSet<String>>,
    /// Whether something other than a view has the view's name.
    view_name_taken: bool,
}

pub(crate) struct Tables {
    client: Arc<Client>,
    pub(crate) layout: Layout,
    database: String,
    naming: SchemaNaming,
    rules: Rules,
    logger: Logger,
    /// What is ready to be written to, by oid and version. Lanes look here first, so that one that waits for
    /// a statement about its table holds up no other.
    targets: RwLock<HashMap<(u32, u32), Arc<Target>>>,
    /// Held while tables are made and changed.
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    /// Which source table has a place.
    owners: BTreeMap<Place, (u32, String)>,
    databases: BTreeSet<String>,
}

impl Tables {
    pub(crate) fn new(client: Arc<Client>, config: &ClickHouseConfig, logger: Logger) -> Self {
        Self {
            client,
            layout: Layout::of(config),
            database: config.database.clone(),
            naming: config.schema_naming,
            rules: Rules {
                out_of_range: config.out_of_range,
                null_is_empty_array: config.arrays == ArrayColumns::Array,
            },
            logger,
            targets: RwLock::default(),
            known: Mutex::default(),
        }
    }

    pub(crate) fn database(&self) -> &str {
        &self.database
    }

    pub(crate) fn place(&self, relation: &Relation) -> Place {
        Place::of(relation, &self.database, self.naming)
    }

    /// Makes the sink's database.
    pub(crate) async fn create_database(&self) -> Result<(), SinkError> {
        self.ensure_database(&mut *self.known.lock().await, &self.database).await
    }

    /// The table for `relation`, made or widened first where it has to be.
    pub(crate) async fn target(&self, relation: &Arc<Relation>) -> Result<Arc<Target>, SinkError> {
        if let Some(target) = self.ready(relation) {
            return Ok(target);
        }
        let mut known = self.known.lock().await;
        // Another lane may have been here first.
        if let Some(target) = self.ready(relation) {
            return Ok(target);
        }
        let target = Arc::new(self.settle(&mut known, relation).await?);
        let mut targets = self.targets.write().unwrap_or_else(PoisonError::into_inner);
        targets.insert((relation.oid, relation.version), Arc::clone(&target));
        Ok(target)
    }

    fn ready(&self, relation: &Arc<Relation>) -> Option<Arc<Target>> {
        let targets = self.targets.read().unwrap_or_else(PoisonError::into_inner);
        let target = targets.get(&(relation.oid, relation.version))?;
        (Arc::ptr_eq(&target.relation, relation) || target.relation == *relation).then(|| Arc::clone(target))
    }

    /// Makes a column take NULL, because one has come.
    pub(crate) async fn make_nullable(&self, target: &Target, column: usize) -> Result<(), SinkError> {
        let _one_at_a_time = self.known.lock().await;
        let (Some(exists), Some(column)) = (target.columns.get(column), target.relation.columns.get(column))
        else {
            return Ok(());
        };
        warn!(self.logger, "a NULL came for a column without NULL; making the column Nullable";
            "table" => &target.sql, "column" => &column.name);
        let sql = self.layout.make_nullable(&target.place, &column.name, &exists.exists);
        self.client.execute(&sql, &format!("making {} of {} Nullable", column.name, target.sql)).await?;
        let mut targets = self.targets.write().unwrap_or_else(PoisonError::into_inner);
        targets.retain(|_, known| known.place != target.place);
        Ok(())
    }

    /// Empty columns to fill for `target`.
    pub(crate) fn columns(&self, target: &Target) -> Result<Vec<Column>, SinkError> {
        target
            .relation
            .columns
            .iter()
            .zip(&target.columns)
            .map(|(column, to)| {
                Column::new(&column.name, &to.exists.on_the_wire(), to.bytea, self.rules_of(column))
                    .ok_or_else(|| {
                        SinkError::halt(format!(
                            "{}: column {} has type {}, which nothing is written to",
                            target.sql, column.name, to.exists
                        ))
                    })
            })
            .collect()
    }

    /// Two keys that were clamped to one would be one row.
    fn rules_of(&self, column: &replicator_types::Column) -> Rules {
        let out_of_range = if column.is_key { OutOfRange::Error } else { self.rules.out_of_range };
        Rules { out_of_range, ..self.rules }
    }

    /// What `check` says of a table, without touching it.
    pub(crate) async fn examine(&self, relation: &Relation) -> Result<String, SinkError> {
        let place = self.place(relation);
        self.check_names(relation)?;
        match self.look(&place).await?.table {
            Some(existing) => self.compare(relation, &place, &existing).map(|missing| match missing.len() {
                0 => format!("{} fits", place.sql()),
                columns => format!("{} fits, {columns} columns will be added", place.sql()),
            }),
            None => Ok(format!("{} will be made", place.sql())),
        }
    }

    async fn settle(&self, known: &mut Known, relation: &Arc<Relation>) -> Result<Target, SinkError> {
        let place = self.place(relation);
        self.check_names(relation)?;
        if let Some((owner, name)) = known.owners.get(&place) {
            // A table that was dropped and made anew has another oid and the same name.
            if *owner != relation.oid && *name != relation.qualified_name() {
                return Err(SinkError::halt(format!(
                    "{name} and {relation} would both go into {}: set schema_naming = \"database\", or leave one \
                     of them out",
                    place.sql()
                )));
            }
        }
        let mut found = self.look_or_make_database(known, &place).await?;
        if found.table.is_none() {
            info!(self.logger, "making a table"; "source" => relation.qualified_name(), "table" => place.sql());
            let sql = self.layout.create_table(&place, relation);
            self.client.execute(&sql, &format!("making the table {}", place.sql())).await?;
            found = self.look(&place).await?;
        }
        let existing = found.table.as_ref().ok_or_else(|| {
            SinkError::retry(format!(
                "{} was made, and is not there (another replica answered?)",
                place.sql()
            ))
        })?;
        let missing = self.compare(relation, &place, existing)?;
        if !missing.is_empty() {
            info!(self.logger, "adding columns"; "table" => place.sql(),
                "columns" => identifiers(missing.iter().map(|column| column.name.as_str())));
            let sql = self.layout.add_columns(&place, &missing);
            self.client.execute(&sql, &format!("adding columns to {}", place.sql())).await?;
            found = self.look(&place).await?;
        }
        let existing = found.table.as_ref().ok_or_else(|| {
            SinkError::retry(format!(
                "{} was altered, and is not there (another replica answered?)",
                place.sql()
            ))
        })?;
        if !self.layout.is_mirror()
            && !existing.engine.starts_with("Replicated")
            && !existing.engine.starts_with("Shared")
            && !existing.engine_full.contains("non_replicated_deduplication_window")
        {
            self.client
                .execute(&self.layout.remember_tokens(&place), &format!("setting up {}", place.sql()))
                .await?;
        }
        self.settle_view(&place, existing, &found).await?;
        let target = target(relation, place, existing, &self.layout)?;
        known.owners.insert(target.place.clone(), (relation.oid, relation.qualified_name()));
        Ok(target)
    }

    async fn settle_view(&self, place: &Place, existing: &Existing, found: &Found) -> Result<(), SinkError> {
        if !self.layout.views {
            return Ok(());
        }
        if found.view_name_taken {
            warn!(self.logger, "no view is made, since something else has its name"; "view" => place.view().sql());
            return Ok(());
        }
        let own = self.layout.own_columns().map(|(name, _)| name);
        let columns: Vec<&str> = existing
            .columns
            .iter()
            .map(|(name, _, _)| name.as_str())
            .filter(|name| !own.contains(name))
            .collect();
        if columns.is_empty() {
            return Ok(());
        }
        let replace = match &found.view {
            Some(view) if columns.iter().all(|column| view.contains(*column)) => return Ok(()),
            view => view.is_some(),
        };
        let sql = self.layout.create_view(place, columns, replace);
        self.client.execute(&sql, &format!("making the view {}", place.view().sql())).await
    }

    /// Columns with the names of the replicator's own cannot be kept.
    fn check_names(&self, relation: &Relation) -> Result<(), SinkError> {
        let own = self.layout.own_columns();
        match relation.columns.iter().find(|column| own.iter().any(|(name, _)| *name == column.name)) {
            Some(column) => Err(SinkError::halt(format!(
                "{relation} has a column {}, a name that the replicator needs for itself: rename it, or leave it \
                 out of the publication with a column list",
                column.name
            ))),
            None => Ok(()),
        }
    }

    /// Whether `existing` can be written to. Gives the columns it lacks.
    fn compare<'r>(
        &self,
        relation: &'r Relation,
        place: &Place,
        existing: &Existing,
    ) -> Result<Vec<&'r replicator_types::Column>, SinkError> {
        let sql = place.sql();
        let family = if self.layout.is_mirror() { "ReplacingMergeTree" } else { "MergeTree" };
        if !existing.engine.ends_with(family) && existing.engine != "Distributed" {
            return Err(SinkError::halt(format!(
                "{sql} exists with the engine {}, and the sink needs a {family}: rename or drop it, or choose \
                 another database",
                existing.engine
            )));
        }
        let find = |name: &str| existing.columns.iter().find(|(existing, _, _)| existing == name);
        for (own, of) in self.layout.own_columns() {
            if find(own).is_none() {
                return Err(SinkError::halt(format!(
                    "{sql} exists without the column {own} {of}, so that this sink did not make it: rename or \
                     drop it, or choose another database"
                )));
            }
        }
        let mut missing = Vec::new();
        for column in &relation.columns {
            let wanted = self.layout.column_type(column);
            match find(&column.name) {
                None => missing.push(column),
                Some((_, of, _)) if is_compatible(column, &wanted, of) => {}
                Some((_, of, _)) => {
                    return Err(SinkError::halt(format!(
                        "{sql}: column {} has type {of}, and {} of {relation} needs {wanted}: ALTER TABLE {sql} \
                         MODIFY COLUMN {} {wanted}, or drop the table and let it be made anew",
                        column.name,
                        column.type_sql,
                        crate::names::identifier(&column.name),
                    )));
                }
            }
        }
        // A Distributed table has no key of its own.
        if self.layout.is_mirror() && existing.engine != "Distributed" {
            let wanted: BTreeSet<&str> = self.layout.sorting_key(relation).into_iter().collect();
            let sorted: BTreeSet<&str> = existing
                .columns
                .iter()
                .filter(|(_, _, of_key)| *of_key)
                .map(|(name, _, _)| name.as_str())
                .collect();
            if wanted != sorted {
                return Err(SinkError::halt(format!(
                    "{sql} is sorted by ({}), and rows of {relation} are told apart by ({}): with another key rows \
                     would be lost or doubled; drop the table and let it be made anew, or change the key at the \
                     source",
                    identifiers(sorted),
                    identifiers(wanted),
                )));
            }
        }
        Ok(missing)
    }

    async fn look_or_make_database(&self, known: &mut Known, place: &Place) -> Result<Found, SinkError> {
        self.ensure_database(known, &place.database).await?;
        self.look(place).await
    }

    async fn ensure_database(&self, known: &mut Known, database: &str) -> Result<(), SinkError> {
        if known.databases.contains(database) {
            return Ok(());
        }
        // Asked first, so that a user without the permission to make databases can be given one.
        if !self.database_exists(database).await? {
            self.client
                .execute(&self.layout.create_database(database), &format!("making the database {database}"))
                .await?;
        }
        known.databases.insert(database.to_owned());
        Ok(())
    }

    /// Whether the server has the database.
    pub(crate) async fn database_exists(&self, database: &str) -> Result<bool, SinkError> {
        let sql = format!("SELECT name FROM system.databases WHERE name = {}", literal(database));
        let there: Vec<(String,)> =
            self.client.rows(&sql, &format!("looking for the database {database}")).await?;
        Ok(!there.is_empty())
    }

    async fn look(&self, place: &Place) -> Result<Found, SinkError> {
        let what = format!("looking at {}", place.sql());
        let view = place.view();
        let names = format!("({}, {})", literal(&place.table), literal(&view.table));
        let database = literal(&place.database);
        let engines: Vec<(String, String, String)> = self
            .client
            .rows(
                &format!(
                    "SELECT name, engine, engine_full FROM system.tables WHERE database = {database} AND name IN \
                     {names}"
                ),
                &what,
            )
            .await?;
        if engines.is_empty() {
            return Ok(Found { table: None, view: None, view_name_taken: false });
        }
        let columns: Vec<(String, String, String, u8)> = self
            .client
            .rows(
                &format!(
                    "SELECT table, name, type, is_in_sorting_key FROM system.columns WHERE database = {database} \
                     AND table IN {names} ORDER BY table, position"
                ),
                &what,
            )
            .await?;
        let mut found = Found { table: None, view: None, view_name_taken: false };
        for (name, engine, engine_full) in engines {
            let own = columns.iter().filter(|(table, ..)| *table == name);
            if name == place.table {
                let columns =
                    own.map(|(_, name, of, key)| (name.clone(), Type::parse(of), *key == 1)).collect();
                found.table = Some(Existing { engine, engine_full, columns });
            } else if engine == "View" {
                found.view = Some(own.map(|(_, name, _, _)| name.clone()).collect());
            } else {
                found.view_name_taken = true;
            }
        }
        Ok(found)
    }
}

fn target(
    relation: &Arc<Relation>,
    place: Place,
    existing: &Existing,
    layout: &Layout,
) -> Result<Target, SinkError> {
    let sql = place.sql();
    let columns = relation
        .columns
        .iter()
        .map(|column| {
            let (_, exists, _) =
                existing.columns.iter().find(|(name, _, _)| *name == column.name).ok_or_else(|| {
                    SinkError::retry(format!("{sql}: column {} was added, and is not there", column.name))
                })?;
            let element = match column.kind {
                ColumnKind::Array { element_oid, .. } => element_oid,
                _ => column.base_type_oid,
            };
            // The text of an array stays as it is, also of one of bytea.
            let is_text_of_array =
                matches!(column.kind, ColumnKind::Array { .. }) && exists.base == crate::types::Base::String;
            Ok(TargetColumn { exists: exists.clone(), bytea: element == oid::BYTEA && !is_text_of_array })
        })
        .collect::<Result<Vec<_>, SinkError>>()?;
    let names = relation
        .columns
        .iter()
        .map(|column| column.name.as_str())
        .chain(layout.own_columns().map(|(name, _)| name));
    let insert = format!("INSERT INTO {sql} ({}) FORMAT Native", identifiers(names));
    Ok(Target { relation: Arc::clone(relation), place, sql, insert, columns })
}
