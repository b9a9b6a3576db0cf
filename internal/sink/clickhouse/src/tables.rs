//! The tables of the sink: made when first seen, compared when they are there already, altered when their source
//! is. Shared by the lanes; one looks at a table at a time, however long a statement about that takes, and places are given
//! to one table after the other.
//!
//! ```text
//!   version newer than the record ──▶ place ▶ plan (`evolve.rs`) ▶ statements or rebuild ▶ view ▶ record
//!   version as old, or older      ──▶ the columns that carry its attributes now; the others are left out
//! ```

use crate::client::Client;
use crate::evolve::{carriers, former_carriers, key_differs};
use crate::found::{Existing, Found, look};
use crate::layout::Layout;
use crate::names::{Place, identifier, identifiers, literal};
use crate::native::{Column, Rules};
use crate::notes::{Kind, Notes};
use crate::record::{Mark, Record, Tag};
use crate::types::{Base, Type, is_bytea, is_compatible};
use replicator_config::{
    ArrayColumns, ClickHouseConfig, ClickHouseMode, OutOfRange, SchemaNaming, TypeChanges,
};
use replicator_sink::SinkError;
use replicator_types::{Position, Relation, SlotIdentity};
use slog::{Logger, info, warn};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
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
    /// Name and type of the one-byte column, and whether it has a word for copied rows.
    pub(crate) mark_column: (&'static str, &'static str),
    /// Rows of this version are told apart by another key than the table's: changes before this position were
    /// durable when the key changed, and are left out; there are none after it.
    pub(crate) replayed_before: Option<Position>,
}

impl Target {
    /// Whether a history's table has an operation for copied rows.
    pub(crate) fn has_read(&self) -> bool {
        self.mark_column.1.contains("'read'")
    }
}

/// A column to write to.
#[derive(Clone, Debug)]
pub(crate) struct TargetColumn {
    /// Its name there, which is another than the relation's when an old version comes again.
    pub(crate) name: String,
    /// Its type there.
    pub(crate) exists: Type,
    /// Whether the text that comes is that of a `bytea`.
    pub(crate) bytea: bool,
    /// Whether it is there at all: an old version's columns may have been dropped since.
    pub(crate) written: bool,
    /// Whether its type has no room for the source's: `type_changes = "keep"`.
    pub(crate) kept: bool,
}

/// At which place in the stream a version is met.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sight {
    /// Of the version's first change.
    pub(crate) position: Position,
    /// Whether nothing of the table is written meanwhile.
    pub(crate) alone: bool,
    /// Whether a copy of the table begins, which brings all its rows.
    pub(crate) is_copy: bool,
    /// Whether the table has just been emptied, so that it can be made in any shape.
    pub(crate) emptied: bool,
}

pub(crate) struct Tables {
    pub(crate) client: Arc<Client>,
    pub(crate) layout: Layout,
    pub(crate) rules: Rules,
    pub(crate) type_changes: TypeChanges,
    pub(crate) logger: Logger,
    notes: Arc<Notes>,
    database: String,
    naming: SchemaNaming,
    /// The cluster, known with the slot.
    system: OnceLock<u64>,
    /// What is ready to be written to, by oid and version. Lanes look here first, so that one that waits for
    /// a statement about its table holds up no other.
    targets: RwLock<HashMap<(u32, u32), Arc<Target>>>,
    /// By oid; each is held while its table is made and changed, and taken before `known`.
    turns: std::sync::Mutex<HashMap<u32, Arc<Mutex<()>>>>,
    /// Held for moments, and while a table gets its place.
    known: Mutex<Known>,
}

#[derive(Default)]
pub(crate) struct Known {
    /// What was made of each source table, by its oid.
    pub(crate) records: BTreeMap<u32, Record>,
    databases: BTreeSet<String>,
}

impl Tables {
    pub(crate) fn new(
        client: Arc<Client>,
        notes: Arc<Notes>,
        layout: Layout,
        config: &ClickHouseConfig,
        logger: Logger,
    ) -> Self {
        Self {
            client,
            layout,
            rules: Rules {
                out_of_range: config.out_of_range,
                null_is_empty_array: config.arrays == ArrayColumns::Array,
                kept: false,
            },
            type_changes: match (config.mode, config.type_changes) {
                // No copy would mend it if the table's changes were left out.
                (ClickHouseMode::History, TypeChanges::Error) => TypeChanges::String,
                (_, policy) => policy,
            },
            logger,
            notes,
            database: config.database.clone(),
            naming: config.schema_naming,
            system: OnceLock::new(),
            targets: RwLock::default(),
            turns: std::sync::Mutex::default(),
            known: Mutex::default(),
        }
    }

    /// What is known, and the right to give places to tables.
    pub(crate) async fn known(&self) -> tokio::sync::MutexGuard<'_, Known> {
        self.known.lock().await
    }

    /// What whoever makes or changes the table locks meanwhile.
    pub(crate) fn turn(&self, oid: u32) -> Arc<Mutex<()>> {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(turns.entry(oid).or_default())
    }

    pub(crate) async fn record(&self, oid: u32) -> Option<Record> {
        self.known().await.records.get(&oid).cloned()
    }

    pub(crate) fn database(&self) -> &str {
        &self.database
    }

    /// The cluster whose tags count; none before [`Tables::begin`].
    pub(crate) fn system(&self) -> Option<u64> {
        self.system.get().copied()
    }

    pub(crate) fn place(&self, relation: &Relation) -> Place {
        Place::of(relation, &self.database, self.naming)
    }

    /// Makes the sink's database, and reads what earlier runs made of the slot's tables.
    pub(crate) async fn begin(&self, identity: &SlotIdentity) -> Result<(), SinkError> {
        let mut known = self.known.lock().await;
        self.ensure_database(&mut known, &self.database).await?;
        self.system.get_or_init(|| identity.system_identifier);
        known.records = self
            .notes
            .read(Kind::Table)
            .await?
            .iter()
            .filter_map(|(oid, text)| match (oid.parse(), serde_json::from_str(text)) {
                (Ok(oid), Ok(record)) => Some((oid, record)),
                _ => {
                    warn!(self.logger, "what was noted of a table cannot be read; its columns go by their names";
                        "oid" => oid);
                    None
                }
            })
            .collect();
        Ok(())
    }

    /// Makes the table for `relation` where it is not there, and takes it over where it was not made by this sink
    /// for this slot. It is not altered otherwise: the stream may have to come a long way yet.
    pub(crate) async fn prepare(&self, relation: &Arc<Relation>) -> Result<(), SinkError> {
        let turn = self.turn(relation.oid);
        let _alone = turn.lock().await;
        let sight = Sight { position: Position::ZERO, alone: false, is_copy: false, emptied: false };
        self.settle_table(relation, Mark::default(), sight).await.map(drop)
    }

    /// The table for `relation`, made or altered first where it has to be.
    ///
    /// `sight` is asked only when the table was not looked at yet.
    pub(crate) async fn target(
        &self,
        relation: &Arc<Relation>,
        sight: impl FnOnce() -> Sight + Send,
    ) -> Result<Arc<Target>, SinkError> {
        if let Some(target) = self.ready(relation) {
            return Ok(target);
        }
        let turn = self.turn(relation.oid);
        let _alone = turn.lock().await;
        // Another lane may have been here first.
        if let Some(target) = self.ready(relation) {
            return Ok(target);
        }
        let sight = sight();
        let mark = Mark::of(relation, sight.position);
        let target = Arc::new(self.settle(relation, mark, sight).await?);
        let mut targets = self.targets.write().unwrap_or_else(PoisonError::into_inner);
        targets.insert((relation.oid, relation.version), Arc::clone(&target));
        Ok(target)
    }

    fn ready(&self, relation: &Arc<Relation>) -> Option<Arc<Target>> {
        let targets = self.targets.read().unwrap_or_else(PoisonError::into_inner);
        let target = targets.get(&(relation.oid, relation.version))?;
        (Arc::ptr_eq(&target.relation, relation) || target.relation == *relation).then(|| Arc::clone(target))
    }

    /// Forgets what was found in a place, so that every lane looks again.
    pub(crate) fn forget(&self, place: &Place) {
        let mut targets = self.targets.write().unwrap_or_else(PoisonError::into_inner);
        targets.retain(|_, known| known.place != *place);
    }

    /// Makes a column take NULL, because one has come.
    pub(crate) async fn make_nullable(&self, target: &Target, column: usize) -> Result<(), SinkError> {
        let turn = self.turn(target.relation.oid);
        let _alone = turn.lock().await;
        let Some(column) = target.columns.get(column) else { return Ok(()) };
        warn!(self.logger, "a NULL came for a column without NULL; making the column Nullable";
            "table" => &target.sql, "column" => &column.name);
        let sql = self.layout.make_nullable(&target.place, &column.name, &column.exists);
        self.client
            .execute_long(
                target.relation.oid,
                &sql,
                &format!("making {} of {} Nullable", column.name, target.sql),
            )
            .await?;
        self.forget(&target.place);
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
                if !to.written {
                    return Ok(Column::unwritten(&to.name));
                }
                let source = pgvalue::Type::of(column);
                let rules = Rules { kept: to.kept, ..self.rules_of(column) };
                Column::new(&to.name, &to.exists.on_the_wire(), source, to.bytea, rules).ok_or_else(|| {
                    SinkError::halt(format!(
                        "{}: column {} has type {}, which nothing is written to",
                        target.sql, to.name, to.exists
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
        match look(&self.client, &place, self.system()).await?.table {
            Some(existing) => {
                self.check_engine(&place, &existing)?;
                let plan = self.adoption(relation, &place, &existing)?;
                Ok(match plan.fates.iter().filter(|fate| fate.from.is_none()).count() {
                    0 => format!("{} fits", place.sql()),
                    columns => format!("{} fits, {columns} columns will be added", place.sql()),
                })
            }
            None => Ok(format!("{} will be made", place.sql())),
        }
    }

    /// For whoever has the table's turn.
    pub(crate) async fn settle(
        &self,
        relation: &Arc<Relation>,
        mark: Mark,
        sight: Sight,
    ) -> Result<Target, SinkError> {
        let (place, existing) = self.settle_table(relation, mark, sight).await?;
        let record = self.record(relation.oid).await;
        let is_older = record.as_ref().is_some_and(|record| mark < record.mark);
        self.target_in(relation, place, &existing, record.as_ref().and_then(Record::from), is_older)
    }

    /// Where the table is, and what it is, once it is as `relation` has it or as a newer version had it.
    async fn settle_table(
        &self,
        relation: &Arc<Relation>,
        mark: Mark,
        sight: Sight,
    ) -> Result<(Place, Existing), SinkError> {
        self.check_names(relation).map_err(|error| error.of_table(relation.oid))?;
        let record = self.record(relation.oid).await;
        match &record {
            Some(record) if mark <= record.mark => {
                let mut place = record.place();
                self.ensure_database(&mut *self.known().await, &place.database).await?;
                if !self.layout.is_mirror() && mark > Mark::default() {
                    // What an earlier process sent, and comes late, would change what is seen now.
                    self.client.end_long(relation.oid).await?;
                }
                let mut found = look(&self.client, &place, self.system()).await?;
                if found.table.is_none()
                    && let Some(moved) = self.moved(relation, record).await?
                {
                    found = look(&self.client, &moved, self.system()).await?;
                    place = moved;
                }
                if found.table.is_none() {
                    self.may_make(&place, relation, sight)?;
                    self.make(&place, relation).await?;
                    found = look(&self.client, &place, self.system()).await?;
                }
                let mut existing = there(&mut found, &place)?;
                self.check_engine(&place, &existing).map_err(|error| error.of_table(relation.oid))?;
                // One that is no version of the stream's yet is not a former one.
                let is_former = mark > Mark::default() && mark < record.mark;
                if is_former && self.add_former_columns(relation, &place, &existing).await? {
                    found = look(&self.client, &place, self.system()).await?;
                    existing = there(&mut found, &place)?;
                }
                self.settle_view(&place, &existing, &found).await?;
                Ok((place, existing))
            }
            // Where it is refused, only this table can't go on.
            _ => {
                let advanced = self.advance(relation, record.as_ref(), mark, sight).await;
                advanced.map_err(|error| error.of_table(relation.oid))
            }
        }
    }

    /// Where the table is that a run renamed which did not come to note it.
    async fn moved(&self, relation: &Relation, record: &Record) -> Result<Option<Place>, SinkError> {
        let Some(system) = self.system() else { return Ok(None) };
        let (before, now) = (record.place(), self.place(relation));
        let sql = format!(
            "SELECT DISTINCT database, table FROM system.columns WHERE database IN ({}, {}) AND startsWith(comment, {})",
            literal(&before.database),
            literal(&now.database),
            literal(&Tag::comments_of(relation.oid, system))
        );
        let found: Vec<(String, String)> =
            self.client.rows(&sql, &format!("looking for {}", before.sql())).await?;
        let places = found.into_iter().map(|(database, table)| Place { database, table });
        let mut places = places.filter(|place| *place != before.rebuilt() && *place != now.rebuilt());
        let (Some(place), None) = (places.next(), places.next()) else { return Ok(None) };
        info!(self.logger, "a table was renamed before that was noted"; "table" => place.sql(), "was" => before.sql());
        self.remember(&mut *self.known().await, relation.oid, record.clone().at(&place)).await?;
        Ok(Some(place))
    }

    /// A mirror that was there before and is gone has lost rows that only a copy brings again. A history is begun anew.
    pub(crate) fn may_make(&self, place: &Place, relation: &Relation, sight: Sight) -> Result<(), SinkError> {
        if sight.is_copy || !self.layout.is_mirror() {
            return Ok(());
        }
        Err(SinkError::halt(format!(
            "{} is gone, and with it the rows that it had of {relation}: copy the table again (replicator resync --table \
             {relation})",
            place.sql()
        ))
        .of_table(relation.oid))
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

    /// Whether the table is one that the sink can write to, whatever its columns.
    pub(crate) fn check_engine(&self, place: &Place, existing: &Existing) -> Result<(), SinkError> {
        let sql = place.sql();
        let family = if self.layout.is_mirror() { "ReplacingMergeTree" } else { "MergeTree" };
        if !existing.engine.ends_with(family) && !existing.is_distributed() {
            return Err(SinkError::halt(format!(
                "{sql} exists with the engine {}, and the sink needs a {family}: rename or drop it, or choose \
                 another database",
                existing.engine
            )));
        }
        match self.layout.own_columns().iter().find(|(own, _)| existing.column(own).is_none()) {
            Some((own, of)) => Err(SinkError::halt(format!(
                "{sql} exists without the column {own} {of}, so that this sink did not make it: rename or drop \
                 it, or choose another database"
            ))),
            None => Ok(()),
        }
    }

    /// Makes the view of the current rows, or makes it anew where it lacks columns or has them otherwise.
    pub(crate) async fn settle_view(
        &self,
        place: &Place,
        existing: &Existing,
        found: &Found,
    ) -> Result<(), SinkError> {
        if !self.layout.views {
            return Ok(());
        }
        if found.view_name_taken {
            warn!(self.logger, "no view is made, since something else has its name"; "view" => place.view().sql());
            return Ok(());
        }
        let own = self.layout.own_columns().map(|(name, _)| name);
        let columns: Vec<(&str, &Type)> = existing
            .columns
            .iter()
            .map(|column| (column.name.as_str(), &column.of))
            .filter(|(name, _)| !own.contains(name))
            .collect();
        if columns.is_empty() {
            return Ok(());
        }
        let has = |view: &[(String, Type)], (name, of): (&str, &Type)| {
            view.iter().any(|(there, is)| there == name && is == of)
        };
        let replace = match &found.view {
            Some(view) if columns.iter().all(|column| has(view, *column)) => return Ok(()),
            view => view.is_some(),
        };
        let sql = self.layout.create_view(place, columns.into_iter().map(|(name, _)| name), replace);
        self.client.execute(&sql, &format!("making the view {}", place.view().sql())).await
    }

    pub(crate) async fn ensure_database(&self, known: &mut Known, database: &str) -> Result<(), SinkError> {
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

    /// Keeps what was made of a table.
    pub(crate) async fn remember(
        &self,
        known: &mut Known,
        oid: u32,
        record: Record,
    ) -> Result<(), SinkError> {
        if known.records.get(&oid) == Some(&record) {
            return Ok(());
        }
        let text = serde_json::to_string(&record).map_err(|error| {
            SinkError::halt(format!("what was made of {} cannot be noted: {error}", record.source))
        })?;
        self.notes.put(Kind::Table, &oid.to_string(), Some(&text)).await?;
        known.records.insert(oid, record);
        Ok(())
    }

    fn target_in(
        &self,
        relation: &Arc<Relation>,
        place: Place,
        existing: &Existing,
        from: Option<Position>,
        is_older: bool,
    ) -> Result<Target, SinkError> {
        let sql = place.sql();
        let carriers = if is_older && !self.layout.is_mirror() {
            former_carriers(relation, existing, &self.layout)
        } else {
            carriers(relation, existing)
        };
        let mut columns = Vec::with_capacity(carriers.len());
        let mut key_fits = true;
        for (column, carrier) in relation.columns.iter().zip(&carriers) {
            let wanted = self.layout.column_type(column);
            columns.push(match carrier.and_then(|carrier| existing.columns.get(carrier)) {
                Some(there) => {
                    let fits = is_compatible(column, &wanted, &there.of);
                    // An older version's values have no room only where the table was made anew for a copy, which
                    // has them as they are now.
                    let is_left_out = !fits && is_older;
                    key_fits &= !(is_left_out && column.is_key);
                    if !fits && !is_older && self.type_changes != TypeChanges::Keep {
                        return Err(self.unfit(relation, &place, column, &there.of, &wanted));
                    }
                    TargetColumn {
                        name: there.name.clone(),
                        exists: there.of.clone(),
                        bytea: is_bytea(column, &there.of),
                        written: !is_left_out,
                        kept: !fits,
                    }
                }
                None => TargetColumn {
                    name: column.name.clone(),
                    exists: Type::of(Base::String, true),
                    bytea: false,
                    written: false,
                    kept: false,
                },
            });
        }
        let key_differs = self.layout.is_mirror()
            && !existing.is_distributed()
            && key_differs(relation, existing, &carriers);
        let replayed_before = match (key_differs || !key_fits, from) {
            (false, _) => None,
            (true, Some(from)) => Some(from),
            (true, None) => return Err(self.other_key(relation, &place, existing)),
        };
        let written = columns.iter().filter(|column| column.written).map(|column| column.name.as_str());
        let names = identifiers(written.chain(self.layout.own_columns().map(|(name, _)| name)));
        let mark_column = existing
            .column(self.layout.mark_column().0)
            .map_or_else(|| self.layout.mark_column(), |mark| self.layout.mark_column_of(&mark.of));
        let insert = format!("INSERT INTO {sql} ({names}) FORMAT Native");
        let relation = Arc::clone(relation);
        Ok(Target { relation, place, sql, insert, columns, mark_column, replayed_before })
    }

    pub(crate) fn unfit(
        &self,
        relation: &Relation,
        place: &Place,
        column: &replicator_types::Column,
        exists: &Type,
        wanted: &Type,
    ) -> SinkError {
        let sql = place.sql();
        SinkError::halt(format!(
            "{sql}: column {} has type {exists}, and {} of {relation} needs {wanted}: ALTER TABLE {sql} MODIFY COLUMN \
             {} {wanted}, or drop the table and let it be made anew",
            column.name,
            column.type_sql,
            identifier(&column.name),
        ))
    }

    pub(crate) fn other_key(&self, relation: &Relation, place: &Place, existing: &Existing) -> SinkError {
        let wanted: BTreeSet<&str> = self.layout.sorting_key(relation).into_iter().collect();
        let sorted: BTreeSet<&str> = existing
            .columns
            .iter()
            .filter(|column| column.in_key)
            .map(|column| column.name.as_str())
            .collect();
        SinkError::halt(format!(
            "{} is sorted by ({}), and rows of {relation} are told apart by ({}): with another key rows would be lost \
             or doubled; drop the table and let it be made anew, or change the key at the source",
            place.sql(),
            identifiers(sorted),
            identifiers(wanted),
        ))
    }
}

/// The table that was found.
pub(crate) fn there(found: &mut Found, place: &Place) -> Result<Existing, SinkError> {
    found.table.take().ok_or_else(|| {
        SinkError::retry(format!(
            "{} was made or altered, and is not there (another replica answered?)",
            place.sql()
        ))
    })
}
