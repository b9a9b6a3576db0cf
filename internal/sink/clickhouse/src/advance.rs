//! A table brought from the version that the sink knows to a newer one.
//!
//! ```text
//!   place: made · taken over · moved ──▶ columns: statements or a rebuild ──▶ view ──▶ record
//! ```
//! The record is written last: a crash before it makes the same plan again, of which less is left to do.

use crate::evolve::{Plan, Refused, former_columns, new_column, plan, statements};
use crate::found::{Existing, Found, look};
use crate::names::{Place, identifier, identifiers};
use crate::record::{Mark, Record};
use crate::tables::{Known, Sight, Tables, there};
use replicator_config::TypeChanges;
use replicator_sink::SinkError;
use replicator_types::Relation;
use slog::{info, warn};

impl Tables {
    /// Brings the table to the version `relation`, and gives where and what it is now.
    pub(crate) async fn advance(
        &self,
        relation: &Relation,
        record: Option<&Record>,
        mark: Mark,
        sight: Sight,
    ) -> Result<(Place, Existing), SinkError> {
        if record.is_some() {
            // What was sent before, and comes late, would change what is seen now.
            self.client.end_long(relation.oid).await?;
        }
        let place = self.settle_place(relation, record).await?;
        let mut found = look(&self.client, &place, self.system()).await?;
        if found.table.is_none() {
            if record.is_some() {
                self.may_make(&place, relation, sight)?;
            }
            self.make(&place, relation).await?;
            found = look(&self.client, &place, self.system()).await?;
        }
        let mut existing = there(&mut found, &place)?;
        self.check_engine(&place, &existing)?;
        let planned = match record {
            Some(_) => plan(relation, &existing, &self.layout, self.type_changes, self.rules, true)
                .map_err(|refused| self.refusal(relation, &place, &refused)),
            None => self.adoption(relation, &place, &existing),
        };
        let plan = match planned {
            Err(_) if sight.emptied => {
                let what = format!("making {} anew for its copy", place.sql());
                self.client.execute(&self.layout.drop_table(&place), &what).await?;
                self.make(&place, relation).await?;
                self.forget(&place);
                found = look(&self.client, &place, self.system()).await?;
                existing = there(&mut found, &place)?;
                self.adoption(relation, &place, &existing)?
            }
            planned => planned?,
        };
        let plan = match record {
            Some(record) if mark.since < record.ahead_to => without_newer(plan, relation, &existing),
            _ => plan,
        };
        let mut new = Record::new(mark, &place, relation);
        match record {
            Some(record) => {
                new.ahead_to = record.ahead_to;
                if let Some(from) = record.from() {
                    new.set_from(from);
                }
            }
            None => new.ahead_to = relation.since.0,
        }
        if plan.rebuild && existing.is_distributed() {
            return Err(by_hand(relation, &place));
        }
        let mut altered = false;
        if plan.rebuild {
            if !sight.alone {
                return Err(SinkError::halt(format!(
                    "{} has to be made anew for the new version of {relation}, and other changes of it are under way: \
                     restart",
                    place.sql()
                )));
            }
            if plan.key_changes {
                new.set_from(sight.position);
                if let Some(record) = record {
                    let mut before = record.clone().at(&place);
                    before.set_from(sight.position);
                    self.remember(&mut *self.known().await, relation.oid, before).await?;
                }
            }
            self.rebuild(&place, relation, &existing, &plan).await?;
            altered = true;
        } else {
            altered |= self.alter(&place, relation, &existing, &found, &plan).await?;
        }
        if found.leftover && !plan.rebuild {
            let what = format!("dropping what is left of an earlier {}", place.sql());
            self.client.execute(&self.layout.drop_table(&place.rebuilt()), &what).await?;
        }
        if altered {
            self.forget(&place);
            found = look(&self.client, &place, self.system()).await?;
            existing = there(&mut found, &place)?;
        }
        self.remember_tokens(&place, &existing).await?;
        self.settle_view(&place, &existing, &found).await?;
        let is_news = match record {
            None => true,
            Some(record) => {
                altered || record.mark.since == 0 || record.place() != place || record.source != new.source
            }
        };
        if is_news || sight.alone {
            self.remember(&mut *self.known().await, relation.oid, new).await?;
        }
        Ok((place, existing))
    }

    /// Adds to a history what rows of an earlier version need; whether that was anything.
    pub(crate) async fn add_former_columns(
        &self,
        relation: &Relation,
        place: &Place,
        existing: &Existing,
    ) -> Result<bool, SinkError> {
        let Some(system) = self.system().filter(|_| !self.layout.is_mirror() && !existing.is_distributed())
        else {
            return Ok(false);
        };
        let former = former_columns(relation, existing, &self.layout, self.type_changes, system).map_err(|name| {
            SinkError::halt(format!(
                "{}: changes of an earlier version of {relation} need a column {name}, and there is one of that name: \
                 rename or drop it",
                place.sql()
            ))
            .of_table(relation.oid)
        })?;
        if former.is_empty() {
            return Ok(false);
        }
        let commands: Vec<String> =
            former.iter().map(|column| format!("ADD COLUMN IF NOT EXISTS {}", column.sql())).collect();
        info!(self.logger, "adding columns of an earlier version"; "table" => place.sql(), "commands" => commands.join(", "));
        let what = format!("adding columns of an earlier version of {}", place.sql());
        self.client.execute(&self.layout.alter(place, &commands), &what).await?;
        self.forget(place);
        Ok(true)
    }

    pub(crate) async fn make(&self, place: &Place, relation: &Relation) -> Result<(), SinkError> {
        info!(self.logger, "making a table"; "source" => relation.qualified_name(), "table" => place.sql());
        let columns: Vec<_> = relation
            .columns
            .iter()
            .map(|column| {
                new_column(relation, column, &self.layout.column_type(column), self.rules, self.system())
            })
            .collect();
        let sql = self.layout.create_table(place, relation, &columns, &[]);
        self.client.execute(&sql, &format!("making the table {}", place.sql())).await
    }

    /// What a table lacks that this sink did not make for this slot. It has to fit as it is.
    pub(crate) fn adoption(
        &self,
        relation: &Relation,
        place: &Place,
        existing: &Existing,
    ) -> Result<Plan, SinkError> {
        let plan = plan(relation, existing, &self.layout, TypeChanges::Error, self.rules, false).map_err(
            |refused| match relation.columns.get(refused.column) {
                Some(column) => self.unfit(relation, place, column, &refused.exists, &refused.wanted),
                None => SinkError::halt(format!("{} does not fit {relation}", place.sql())),
            },
        )?;
        if plan.key_changes {
            return Err(self.other_key(relation, place, existing));
        }
        Ok(Plan { rebuild: false, ..plan })
    }

    fn refusal(&self, relation: &Relation, place: &Place, refused: &Refused) -> SinkError {
        let sql = place.sql();
        let Some(column) = relation.columns.get(refused.column) else {
            return SinkError::halt(format!("{sql} cannot follow {relation}"));
        };
        let name = &column.name;
        SinkError::halt(format!(
            "{sql}: column {name} of {relation} is {} now, which needs {}, and its counterpart is {}, to which that \
             does not fit: set type_changes = \"keep\" or \"string\", or ALTER TABLE {sql} MODIFY COLUMN {} {}, or \
             copy the table again (replicator resync --table {relation}); then restart",
            column.type_sql,
            refused.wanted,
            refused.exists,
            identifier(name),
            refused.wanted,
        ))
    }

    /// Runs the statements of a plan. Says whether there were any.
    async fn alter(
        &self,
        place: &Place,
        relation: &Relation,
        existing: &Existing,
        found: &Found,
        plan: &Plan,
    ) -> Result<bool, SinkError> {
        let statements =
            statements(plan, relation, existing, &self.layout, self.rules, self.system()).map_err(|name| {
                SinkError::halt(format!(
                    "{}: {relation} has a column {name} now, and there is one of that name that this sink did not \
                     make: rename or drop it",
                    place.sql()
                ))
            })?;
        if existing.is_distributed() && statements.iter().any(|(what, _)| *what != "adding columns") {
            return Err(by_hand(relation, place));
        }
        let drops = self.layout.is_mirror() && !plan.retired.is_empty();
        if drops && self.layout.views && found.view.is_some() {
            self.view_without(place, existing, plan).await?;
        }
        for (what, commands) in &statements {
            info!(self.logger, "{}", what; "table" => place.sql(), "commands" => commands.join(", "));
            let sql = self.layout.alter(place, commands);
            self.client.execute_long(relation.oid, &sql, &format!("{what} of {}", place.sql())).await?;
        }
        Ok(!statements.is_empty())
    }

    /// The view without the columns that are about to go, so that it can be read all the while.
    async fn view_without(&self, place: &Place, existing: &Existing, plan: &Plan) -> Result<(), SinkError> {
        let own = self.layout.own_columns().map(|(name, _)| name);
        let columns: Vec<&str> = existing
            .columns
            .iter()
            .enumerate()
            .filter(|(index, column)| !plan.retired.contains(index) && !own.contains(&column.name.as_str()))
            .map(|(_, column)| column.name.as_str())
            .collect();
        if columns.is_empty() {
            return Ok(());
        }
        let sql = self.layout.create_view(place, columns, true);
        self.client.execute(&sql, &format!("making the view {}", place.view().sql())).await
    }

    /// A history is written to once only with a memory of tokens.
    async fn remember_tokens(&self, place: &Place, existing: &Existing) -> Result<(), SinkError> {
        if !self.layout.is_mirror()
            && !existing.engine.starts_with("Replicated")
            && !existing.engine.starts_with("Shared")
            && !existing.engine_full.contains("non_replicated_deduplication_window")
        {
            let sql = self.layout.remember_tokens(place);
            self.client.execute(&sql, &format!("setting up {}", place.sql())).await?;
        }
        Ok(())
    }

    /// A view of ours gives its name up to a table.
    async fn make_way(&self, known: &Known, place: &Place) -> Result<(), SinkError> {
        let Some(viewed) = known.records.values().map(Record::place).find(|viewed| viewed.view() == *place)
        else {
            return Ok(());
        };
        let found = look(&self.client, place, self.system()).await?;
        if found.table.is_some_and(|table| table.engine == "View") {
            warn!(self.logger, "a view is dropped, since a table has its name"; "view" => place.sql());
            let what = format!("dropping the view {}", place.sql());
            self.client.execute(&self.layout.drop_view(&viewed), &what).await?;
        }
        Ok(())
    }

    /// Where the table goes; moves it there when its source was renamed.
    async fn settle_place(&self, relation: &Relation, record: Option<&Record>) -> Result<Place, SinkError> {
        let known = &mut *self.known().await;
        let mut place = self.place(relation);
        self.ensure_database(known, &place.database).await?;
        self.make_way(known, &place).await?;
        let owner = known
            .records
            .iter()
            .find(|(oid, record)| **oid != relation.oid && record.place() == place)
            .map(|(oid, record)| (*oid, record.clone()));
        if let Some((oid, owner)) = owner {
            if owner.source != relation.qualified_name() {
                return Err(SinkError::halt(format!(
                    "{} and {relation} would both go into {}: set schema_naming = \"database\", or leave one of them \
                     out",
                    owner.source,
                    place.sql()
                )));
            }
            if owner.is_later_than(relation) {
                // Changes that come again, of a table that has been renamed or dropped since: its name has passed on.
                place = place.aside(relation.oid);
            } else {
                self.move_aside(known, relation, &place, oid, owner).await?;
            }
        }
        let Some(before) = record.map(Record::place).filter(|before| *before != place) else {
            return Ok(place);
        };
        let what = format!("renaming {} to {}", before.sql(), place.sql());
        if let Some(taken) = look(&self.client, &place, self.system()).await?.table {
            if taken.is_of(relation.oid) {
                // A crash came between the renaming and the record.
                self.note_place(known, relation, &place).await?;
                return Ok(place);
            }
            return Err(SinkError::halt(format!(
                "{relation} was renamed, and its table {} cannot follow, since there is another {}: rename or drop \
                 that one, and restart",
                before.sql(),
                place.sql()
            )));
        }
        let found = look(&self.client, &before, self.system()).await?;
        if found.table.is_none() {
            return Ok(place);
        }
        info!(self.logger, "renaming a table"; "table" => before.sql(), "to" => place.sql(),
            "source" => relation.qualified_name());
        if found.view.is_some() && self.layout.views {
            self.client.execute(&self.layout.drop_view(&before), &what).await?;
        }
        self.client.execute(&self.layout.rename(&before, &place), &what).await?;
        self.forget(&before);
        self.note_place(known, relation, &place).await?;
        Ok(place)
    }

    /// Before another table asks for the place that is free now.
    async fn note_place(
        &self,
        known: &mut Known,
        relation: &Relation,
        place: &Place,
    ) -> Result<(), SinkError> {
        let Some(record) = known.records.get(&relation.oid).cloned() else { return Ok(()) };
        self.remember(known, relation.oid, record.at(place)).await
    }

    /// Another source table has the name of one that had this place: that one was renamed or dropped. Its table
    /// makes room; should the source still have it under another name, it follows when its next change comes.
    async fn move_aside(
        &self,
        known: &mut Known,
        relation: &Relation,
        place: &Place,
        oid: u32,
        mut owner: Record,
    ) -> Result<(), SinkError> {
        let turn = self.turn(oid);
        let Ok(_alone) = turn.try_lock() else {
            return Err(SinkError::retry(format!(
                "{} has to make room for another table of that name, and is being changed just now",
                place.sql()
            )));
        };
        let aside = place.aside(oid);
        let what = format!("renaming {} to {}", place.sql(), aside.sql());
        let found = look(&self.client, place, self.system()).await?;
        if let Some(table) = found.table.filter(|table| !table.is_of(relation.oid)) {
            if !table.is_of(oid) {
                // Not ours to move: it goes by names, as before.
                known.records.remove(&oid);
                return Ok(());
            }
            warn!(self.logger, "a source table has the name that another had; the other's table makes room";
                "source" => relation.qualified_name(), "table" => place.sql(), "moved_to" => aside.sql());
            if found.view.is_some() && self.layout.views {
                self.client.execute(&self.layout.drop_view(place), &what).await?;
            }
            self.client.execute(&self.layout.rename(place, &aside), &what).await?;
            self.forget(place);
        }
        owner.table = aside.table;
        self.remember(known, oid, owner).await
    }
}

/// The plan without dropping columns that are newer than the version: numbers only ever grow.
fn without_newer(plan: Plan, relation: &Relation, existing: &Existing) -> Plan {
    let last = relation.columns.iter().map(|column| column.attnum).max().unwrap_or_default();
    let is_newer = |index: &usize| {
        let tag = existing.columns.get(*index).and_then(|column| column.tag);
        tag.is_some_and(|tag| tag.attnum > last)
    };
    let retired = plan.retired.iter().copied().filter(|index| !is_newer(index)).collect();
    Plan { retired, ..plan }
}

/// The columns of a `Distributed` table are those of tables elsewhere.
fn by_hand(relation: &Relation, place: &Place) -> SinkError {
    let columns = identifiers(relation.columns.iter().map(|column| column.name.as_str()));
    SinkError::halt(format!(
        "{} is Distributed, and {relation} has changed: alter it and the tables behind it so that it has the columns \
         ({columns}), and restart",
        place.sql()
    ))
}
