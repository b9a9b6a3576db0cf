//! From a relation version to the table that takes its changes.
//!
//! ```text
//!   relation ─▶ record of its oid?
//!               ├─ none: found by name, or made              ─┐
//!               ├─ older: the table is brought to the version ─┤ one transaction under a lock, with the record
//!               └─ as new or newer: nothing                    │
//!                        └────────────────▶ Target ◀───────────┘
//! ```
//!
//! # Invariants
//! - Tables change on a fence of the stream ([`Occasion::Stream`]) or before a table's copy ([`Occasion::Copy`]), when
//!   no change of the table is on its way. At the start ([`Occasion::Early`]) only absent ones are made: what the
//!   stream still has to bring is older than the catalog.
//! - [`Resolver::generation`] moves with every change, so that no lane writes to a table as it was.

use crate::create::{self, under_lock};
use crate::evolve::{self, Hand};
use crate::existing::Existing;
use crate::generated::Followed;
use crate::own_tables::StreamKey;
use crate::record::{Place, Record};
use crate::target::Target;
use crate::types::Types;
use replicator_config::TypeChanges;
use replicator_sink::SinkError;
use replicator_types::{Lsn, Relation};
use slog::{Logger, warn};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio_postgres::Client;

/// When a table is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Occasion {
    /// At the start, by the list of published tables.
    Early,
    /// In the stream.
    Stream,
    /// Before a copy that brings all rows.
    Copy,
    /// In a copy, or before it goes on.
    Copying,
}

/// Finds, makes and changes tables, for all lanes of a sink.
#[derive(Debug)]
pub(crate) struct Resolver {
    pub(crate) key: StreamKey,
    pub(crate) create_tables: bool,
    pub(crate) type_changes: TypeChanges,
    pub(crate) logger: Logger,
    pub(crate) generated: Followed,
    generation: AtomicU64,
}

impl Resolver {
    pub(crate) fn new(
        key: StreamKey,
        create_tables: bool,
        type_changes: TypeChanges,
        logger: Logger,
    ) -> Self {
        let generated = Followed::default();
        Self { key, create_tables, type_changes, logger, generated, generation: AtomicU64::new(0) }
    }

    /// Whether what was made of that table is there.
    pub(crate) async fn is_there(&self, client: &Client, oid: u32) -> Result<bool, SinkError> {
        let Some(record) = Record::load(client, &self.key, oid).await? else { return Ok(false) };
        Ok(Existing::look_up(client, &record.schema, &record.name).await?.is_some())
    }

    /// Counts the changes made to tables of the target. A [`Target`] is true for the count it was made under.
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Counts one more; returns how many there were.
    pub(crate) fn has_changed(&self) -> u64 {
        self.generation.fetch_add(1, Ordering::AcqRel)
    }

    /// The table that takes the changes of `relation`, made or changed where that is due. `turn`: see
    /// [`Relation::turn`].
    ///
    /// # Errors
    /// Halt when there is no such table, or none that changes could be applied to, or a change of its schema can't
    /// be followed.
    pub(crate) async fn resolve(
        &self,
        client: &Client,
        relation: &Arc<Relation>,
        turn: u64,
        id: u32,
        occasion: Occasion,
    ) -> Result<Target, SinkError> {
        let known = match Record::load(client, &self.key, relation.oid).await? {
            Some(record) if record.covers(relation, turn) || occasion == Occasion::Early => {
                let existing = Existing::look_up(client, &record.schema, &record.name).await?;
                existing.map(|existing| (record, existing))
            }
            _ => None,
        };
        let is_whole = |(record, existing): &(Record, Existing)| {
            occasion == Occasion::Early || existing.missing_columns(&record.place(relation)).is_empty()
        };
        let (record, existing) = match known.filter(is_whole) {
            Some(known) => known,
            None => {
                let record = self.follow(client, relation, turn, occasion).await?;
                let existing = Existing::look_up(client, &record.schema, &record.name).await?;
                (record, existing.ok_or_else(|| absent(relation))?)
            }
        };
        let target = existing.target_of(relation, &record.place(relation), id);
        let target = target.map_err(|text| SinkError::halt(text).of_table(relation.oid))?;
        match &target.key_is_missing {
            // The table may have another key by now, and the older version's changes may all be in.
            Some(text) if (record.since, record.turn) == (relation.since.0, turn) => {
                Err(SinkError::halt(text.clone()).of_table(relation.oid))
            }
            _ => Ok(target),
        }
    }

    /// Brings the table to the version, and keeps the record of it.
    async fn follow(
        &self,
        client: &Client,
        relation: &Arc<Relation>,
        turn: u64,
        occasion: Occasion,
    ) -> Result<Record, SinkError> {
        let doing = format!("bring table {relation} of the target to the source's schema");
        let types = Types::make(client, &self.key, relation, &self.logger).await?;
        let record = under_lock(client, &doing, async || {
            let displaced = self.displaced(client, relation).await?;
            let relation = displaced.as_ref().unwrap_or(relation);
            let hand = Hand { client, relation, types: &types, logger: &self.logger, doing: &doing };
            // Another lane may have been here first.
            let record = match Record::load(client, &self.key, relation.oid).await? {
                Some(record) => self.follow_record(&hand, record, turn, occasion).await?,
                None => Record { turn, ..self.by_name(&hand).await? },
            };
            record.save(client, &self.key, relation.oid).await?;
            Ok(record)
        })
        .await;
        // Also after an error: the transaction may have ended well, and only its answer been lost.
        self.has_changed();
        record
    }

    async fn follow_record(
        &self,
        hand: &Hand<'_>,
        mut record: Record,
        turn: u64,
        occasion: Occasion,
    ) -> Result<Record, SinkError> {
        let Some(existing) = Existing::look_up(hand.client, &record.schema, &record.name).await? else {
            // It was dropped or renamed by hand. Its rows come again with a copy alone.
            let (schema, name) = (&hand.relation.schema, &hand.relation.name);
            let is_lost = occasion != Occasion::Copy
                && self.create_tables
                && Existing::look_up(hand.client, schema, name).await?.is_none();
            if is_lost {
                return Err(gone(hand.relation));
            }
            return Ok(Record { turn, ..self.by_name(hand).await? });
        };
        if record.covers(hand.relation, turn) || occasion == Occasion::Early {
            self.add_missing(hand, &existing, &record.place(hand.relation)).await?;
            return Ok(record);
        }
        let aims = evolve::Aims {
            create_schemas: self.create_tables,
            type_changes: self.type_changes,
            // Changes older than the version may still come behind a copy, with NULL where it has none.
            sets_not_null: occasion == Occasion::Stream,
        };
        if record.schema != hand.relation.schema || record.name != hand.relation.name {
            let place = (hand.relation.schema.as_str(), hand.relation.name.as_str());
            if Existing::look_up(hand.client, place.0, place.1).await?.is_some()
                && !self.set_aside(hand, place).await?
            {
                return Err(SinkError::halt(format!(
                    "table {}.{} was renamed to {} at the source, and the target has another table of that name; rename \
                     or drop that one, then copy it again (replicator resync --table {})",
                    record.schema, record.name, hand.relation, hand.relation
                ))
                .of_table(hand.relation.oid));
            }
            let placed = evolve::place_table(hand, &mut record, aims.create_schemas).await;
            placed.map_err(|error| error.of_table(hand.relation.oid))?;
        }
        // Where it is refused, only this table can't go on.
        let followed = evolve::columns(hand, &mut record, &aims).await;
        followed.map_err(|error| error.of_table(hand.relation.oid))?;
        record.turn = turn;
        Ok(record)
    }

    /// Finds the table by the relation's names, or makes it.
    async fn by_name(&self, hand: &Hand<'_>) -> Result<Record, SinkError> {
        let relation = hand.relation;
        let mut existing = Existing::look_up(hand.client, &relation.schema, &relation.name).await?;
        if existing.is_some()
            && self.create_tables
            && self.set_aside(hand, (&relation.schema, &relation.name)).await?
        {
            existing = None;
        }
        let place = Place::by_name(relation);
        match existing {
            Some(existing) => {
                let fits = existing.target_of(relation, &place, 0);
                fits.map_err(|text| SinkError::halt(text).of_table(relation.oid))?;
                self.add_missing(hand, &existing, &place).await?;
                let mut record = Record::found(relation);
                for (index, (known, column)) in record.columns.iter_mut().zip(&relation.columns).enumerate() {
                    let there = existing.column(&column.name);
                    known.not_null = column.not_null && there.is_some_and(|there| there.not_null);
                    if there.is_none() {
                        known.stand_in = hand.types.stand_in(index).map(str::to_owned);
                    }
                }
                Ok(record)
            }
            None if self.create_tables => {
                create::table(hand, &self.generated.take_awaited(relation.oid)).await
            }
            None => Err(absent(relation)),
        }
    }

    /// Moves a table of ours out of the way of another that has its name at the source now. It gets its own new name
    /// when its own new version comes; a table dropped at the source never has one, and stays as it is.
    async fn set_aside(&self, hand: &Hand<'_>, (schema, name): (&str, &str)) -> Result<bool, SinkError> {
        let other = Record::of_another(hand.client, &self.key, hand.relation.oid, schema, name).await?;
        let Some((oid, mut other)) = other else { return Ok(false) };
        let aside = name_aside(oid);
        warn!(self.logger, "another table of the source has the name now; the one that had it is set aside";
            "table" => format!("{schema}.{name}"), "renamed_to" => &aside);
        hand.run(&format!(
            "ALTER TABLE {} RENAME TO {}",
            crate::sql::table(schema, name),
            crate::sql::ident(&aside)
        ))
        .await?;
        other.name = aside;
        other.save(hand.client, &self.key, oid).await?;
        Ok(true)
    }

    /// The relation under the name that it is kept by when another has its own: changes that come again after a
    /// restart may be of a table that has been renamed or dropped since, and whose name has passed on.
    async fn displaced(
        &self,
        client: &Client,
        relation: &Arc<Relation>,
    ) -> Result<Option<Arc<Relation>>, SinkError> {
        if !self.create_tables {
            return Ok(None);
        }
        let (schema, name) = (&relation.schema, &relation.name);
        if Existing::look_up(client, schema, name).await?.is_none() {
            return Ok(None);
        }
        let other = Record::of_another(client, &self.key, relation.oid, schema, name).await?;
        let is_newer = other.is_some_and(|(_, other)| relation.since < Lsn(other.since));
        Ok(is_newer
            .then(|| Arc::new(Relation { name: name_aside(relation.oid), ..Relation::clone(relation) })))
    }

    /// Adds columns that the table lacks although they are recorded, or that it was found without. They take NULL:
    /// what the rows that are there have in them is not known here.
    async fn add_missing(
        &self,
        hand: &Hand<'_>,
        existing: &Existing,
        place: &Place,
    ) -> Result<(), SinkError> {
        let missing = existing.missing_columns(place);
        if missing.is_empty() {
            return Ok(());
        }
        if !self.create_tables {
            return Err(lacks_columns(hand.relation, &missing));
        }
        create::add_columns(hand, place, &missing).await
    }
}

fn name_aside(oid: u32) -> String {
    format!("replicator_{oid}_renamed")
}

fn absent(relation: &Relation) -> SinkError {
    SinkError::halt(format!(
        "table {relation} is not in the target; create it there (`pg_dump --schema-only -t` of the source) or set \
         create_tables = true"
    ))
    .of_table(relation.oid)
}

fn gone(relation: &Relation) -> SinkError {
    SinkError::halt(format!(
        "table {relation} of the target is gone, and with it the rows that it had: copy the table again (replicator \
         resync --table {relation})"
    ))
    .of_table(relation.oid)
}

fn lacks_columns(relation: &Relation, missing: &[&str]) -> SinkError {
    SinkError::halt(format!(
        "table {relation} of the target lacks {}; add with ALTER TABLE … ADD COLUMN or set create_tables = true",
        missing.join(", ")
    ))
    .of_table(relation.oid)
}
