//! The tables of the stream, each at its newest schema version: a Relation message joined with what the
//! catalog knows beyond it.
//!
//! ```text
//!   message ─▶ a version kept from an earlier run, if it is that one ─┐
//!        └───▶ laid along the catalog's attribute numbers ────────────┴▶ version
//! ```
//!
//! After a restart messages come again that are older than the catalog, which has names and numbers of today. A version
//! that was told in an earlier run is kept, with its numbers, and stands for its message when that comes again.

mod join;
mod numbers;

use join::{describes, join};
use numbers::{Table, lost_a_column, numbers, numbers_of};
use pgoutput::RelationMessage;
use replicator_types::{Column, Lsn, Relation, TableCatalog};
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

/// Table versions by oid.
#[derive(Debug, Default)]
pub(crate) struct Relations {
    current: HashMap<u32, Arc<Relation>>,
    /// What the catalog told of last: since when that holds, and when it was read.
    polled: HashMap<u32, (Lsn, Lsn)>,
    /// The greatest attribute number that each table had so far.
    highest: HashMap<u32, i16>,
    catalogs: HashMap<u32, TableCatalog>,
    /// Described where that is not to be told: in what is passed over after a reconnect, or in a transaction that is only
    /// prepared. The source does not describe the table again before its next change, so it is told with that.
    announced: HashMap<u32, Arc<Relation>>,
    /// Likewise, by a transaction that is prepared, with its id: it describes the table again in the place among its own
    /// changes, when they come.
    prepared: HashMap<u32, (u32, Arc<Relation>)>,
    /// What was described last on this connection, other than in what is streamed before it commits: names and types,
    /// as a digest.
    described: HashMap<u32, u64>,
    /// See [`Relations::begin_behind`].
    horizon: Option<u32>,
    /// What was told in earlier runs, in order: behind the place where this one begins, it is met again.
    kept: HashMap<u32, Vec<Arc<Relation>>>,
    /// Of those that the stream has not passed, the places and tables, the last first.
    to_pass: Vec<(Lsn, u32)>,
}

/// Where a Relation message comes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    /// The commit LSN of its transaction.
    pub(crate) since: Lsn,
    /// Its transaction's id; 0 when it is in none.
    pub(crate) xid: u32,
    /// Whether its transaction was sent before it committed, and kept since.
    pub(crate) was_kept: bool,
}

/// A table's version, taken in.
#[derive(Debug)]
pub(crate) struct Met {
    pub(crate) relation: Arc<Relation>,
    /// The one before, if that was another.
    pub(crate) before: Option<Arc<Relation>>,
    /// Whether its columns may be others than their numbers tell.
    pub(crate) is_guess: bool,
}

impl Relations {
    /// Remembers what the catalog says of a table, for its next Relation message.
    pub(crate) fn learn(&mut self, catalog: TableCatalog) {
        if self.catalogs.get(&catalog.oid).is_none_or(|known| known.read_at <= catalog.read_at) {
            self.catalogs.insert(catalog.oid, catalog);
        }
    }

    /// The same of what was read behind everything that was remembered so, but for looks of somebody else: also where it
    /// can't be told of which moment it is.
    pub(crate) fn learn_next(&mut self, catalog: TableCatalog) {
        let known = self.catalogs.get(&catalog.oid);
        let is_other = known.is_none_or(|known| known.storage.attributes != catalog.storage.attributes);
        if catalog.read_at == Lsn::ZERO && is_other {
            self.catalogs.insert(catalog.oid, catalog);
        } else {
            self.learn(catalog);
        }
    }

    /// What sinks were told of a table before this run, which begins at `watermark`: the newest version from before that
    /// is the table's when the run begins, or the oldest of all; those behind it are met again.
    pub(crate) fn begin_with(&mut self, mut versions: Vec<Arc<Relation>>, watermark: Lsn) {
        versions.sort_by_key(|version| version.since);
        let Some(first) = last_before(&versions, watermark).cloned() else { return };
        let oid = first.oid;
        self.current.insert(oid, first);
        self.to_pass.extend(versions.iter().map(|version| (version.since, oid)));
        self.to_pass.sort_unstable_by(|one, other| other.cmp(one));
        self.kept.insert(oid, versions);
    }

    /// Whether [`Relations::next_kept`] has any.
    pub(crate) fn has_kept(&self, passed: Lsn) -> bool {
        self.to_pass.last().is_some_and(|(since, _)| *since < passed)
    }

    /// The next version of an earlier run that the stream has passed: a transaction that it came with is over.
    pub(crate) fn next_kept(&mut self, passed: Lsn) -> Option<Arc<Relation>> {
        let (since, oid) = self.to_pass.pop_if(|(since, _)| *since < passed)?;
        let versions = self.kept.get(&oid)?;
        versions.iter().rfind(|version| version.since == since).cloned()
    }

    /// Takes in such a version if the table was told last as it was before that; returns the new and the old one.
    pub(crate) fn meet_kept(&mut self, version: &Relation) -> Option<(Arc<Relation>, Arc<Relation>)> {
        let known = self.current.get(&version.oid)?;
        if known.since >= version.since || version.is_guess {
            return None;
        }
        let (relation, before) = self.adopt(version.clone());
        Some((relation, before?))
    }

    /// Sinks were told of this table up to its version since `told` only, also where the run begins behind the next one.
    pub(crate) fn begin_at_version(&mut self, oid: u32, told: Lsn, watermark: Lsn) {
        let behind = watermark.min(Lsn(told.0 + 1));
        let known = self.kept.get(&oid).and_then(|versions| last_before(versions, behind));
        if let Some(known) = known.cloned() {
            self.current.insert(oid, known);
        }
    }

    /// The table as sinks were told of it last.
    pub(crate) fn told(&self, oid: u32) -> Option<&Arc<Relation>> {
        self.current.get(&oid)
    }

    /// All transactions with ids older than that were over before anything was written that the stream brings.
    pub(crate) fn begin_behind(&mut self, horizon: Option<u32>) {
        self.horizon = horizon;
    }

    /// The next message comes from a new connection.
    pub(crate) fn reconnected(&mut self) {
        self.described.clear();
    }

    /// Takes in a Relation message.
    pub(crate) fn apply(&mut self, message: &RelationMessage<'_>, place: Place) -> Met {
        self.announced.remove(&message.oid);
        self.prepared.remove(&message.oid);
        let relation = self.join(message, place);
        self.meet(relation)
    }

    /// Takes in a Relation message that is not to be told, or not yet; returns what the table is until then.
    pub(crate) fn announce(&mut self, message: &RelationMessage<'_>, place: Place) -> Arc<Relation> {
        self.announced.remove(&message.oid);
        self.announce_for(message, place, false)
    }

    /// The same of the transaction of that place, which is being prepared. `is_known`: its changes are here from another
    /// connection, and may count on what that had described before.
    pub(crate) fn announce_prepared(
        &mut self,
        message: &RelationMessage<'_>,
        place: Place,
        is_known: bool,
    ) -> Arc<Relation> {
        if is_known && !self.described.contains_key(&message.oid) {
            return self.announce(message, place);
        }
        self.announce_for(message, place, true)
    }

    fn announce_for(
        &mut self,
        message: &RelationMessage<'_>,
        place: Place,
        is_prepared: bool,
    ) -> Arc<Relation> {
        let relation = self.join(message, place);
        let oid = message.oid;
        // The changes of this one count on what another had described until it describes the table itself.
        if let Some((xid, other)) = self.prepared.remove(&oid)
            && is_prepared
            && xid != place.xid
        {
            self.announced.insert(oid, other);
        }
        let known = self.announced.get(&oid).or_else(|| self.current.get(&oid));
        if let Some(known) = known.filter(|known| known.is_same_shape(&relation) && !relation.is_guess) {
            return Arc::clone(known);
        }
        let relation = Arc::new(relation);
        if is_prepared {
            self.prepared.insert(oid, (place.xid, Arc::clone(&relation)));
        } else {
            self.announced.insert(oid, Arc::clone(&relation));
        }
        relation
    }

    /// Whether [`Relations::apply_announced`] has anything to do for any table.
    pub(crate) fn has_announced(&self) -> bool {
        !self.announced.is_empty() || !self.prepared.is_empty()
    }

    /// Takes in what was announced of a table when a change of it comes; returns as [`Relations::apply`] does. It holds from
    /// the change's transaction on: a run that begins before that has to tell it.
    pub(crate) fn apply_announced(&mut self, oid: u32, place: Place) -> Option<Met> {
        let mut announced = self.announced.remove(&oid);
        if let Some((_, relation)) = self.prepared.get(&oid).filter(|(xid, _)| *xid != place.xid) {
            announced = Some(Arc::clone(relation));
            self.prepared.remove(&oid);
        }
        let relation = Arc::unwrap_or_clone(announced?);
        Some(self.meet(Relation { since: place.since, ..relation }))
    }

    fn meet(&mut self, relation: Relation) -> Met {
        let is_guess = relation.is_guess;
        let (relation, before) = self.adopt(relation);
        Met { relation, before, is_guess }
    }

    fn join(&mut self, message: &RelationMessage<'_>, place: Place) -> Relation {
        // What is streamed before it commits is described on its own (`schema_sent` and `streamed_txns` of `pgoutput.c`).
        let told = digest(message);
        let has_changed =
            !place.was_kept && self.described.insert(message.oid, told).is_some_and(|last| last != told);
        let catalog = self.catalogs.get(&message.oid);
        let current = self.current.get(&message.oid).map(Arc::as_ref);
        let kept = self.kept.get(&message.oid).map_or(&[][..], Vec::as_slice);
        if let Some(again) = met_again(kept, current, message, catalog, place) {
            return Relation { since: place.since, ..again.clone() };
        }
        // Sinks know the table as it was last, also where this run has not come by that.
        let is_nearer = |version: &&Arc<Relation>| {
            version.since < place.since && current.is_none_or(|current| current.since < version.since)
        };
        let before = kept.iter().rfind(is_nearer).map(Arc::as_ref).or(current);
        let numbers = match catalog {
            Some(catalog) => {
                let is_earlier =
                    |version: &&Arc<Relation>| before.is_some_and(|before| version.since <= before.since);
                let earlier = kept.iter().filter(is_earlier);
                let had = earlier.flat_map(|version| &version.columns).map(|column| column.attnum);
                let told = self.highest.get(&message.oid).copied().unwrap_or_default();
                let highest = had.fold(told, i16::max);
                numbers(
                    message,
                    Table { catalog, before, highest, has_changed, horizon: self.horizon },
                    place,
                )
            }
            // It is gone.
            None => numbers_of(before, message),
        };
        join(message, catalog, before, numbers, place)
    }

    /// The table has been copied as it was at the version's place, so what the stream tells of it is known from there on, and
    /// no guess.
    pub(crate) fn copied(&mut self, version: &Arc<Relation>) {
        let versions = self.kept.entry(version.oid).or_default();
        let place = versions.partition_point(|known| known.since <= version.since);
        versions.insert(place, Arc::clone(version));
        // Mostly nothing was described in between; what is takes the place of this.
        let guess = self.current.get(&version.oid).filter(|current| current.is_guess);
        if guess.is_some_and(|guess| guess.since < version.since && is_told_alike(guess, version)) {
            self.announced.insert(version.oid, Arc::clone(version));
        }
    }

    /// Takes in a table as the catalog has it, as a version from `since` on; returns the new and the old one if it differs
    /// from what is known.
    /// A table that is not known yet waits for its first Relation message. What the stream has told of since the catalog
    /// was read stays.
    pub(crate) fn apply_catalog(
        &mut self,
        catalog: &TableCatalog,
        since: Lsn,
    ) -> Option<(Arc<Relation>, Arc<Relation>)> {
        let known = self.current.get(&catalog.oid)?;
        let is_older = |(since, read_at): &(Lsn, Lsn)| *since == known.since && *read_at < catalog.read_at;
        if known.since >= catalog.read_at && !self.polled.get(&catalog.oid).is_some_and(is_older) {
            return None;
        }
        // An earlier look may have been told at the same place.
        let since = since.max(Lsn(known.since.0 + 1));
        let (relation, before) = self.adopt(Relation { since, ..catalog.relation() });
        let before = before?;
        self.polled.insert(catalog.oid, (relation.since, catalog.read_at));
        Some((relation, before))
    }

    fn adopt(&mut self, mut relation: Relation) -> (Arc<Relation>, Option<Arc<Relation>>) {
        let known = self.current.get(&relation.oid);
        if let Some(known) = known {
            // Some sinks may have been told of another one in between, by an earlier run.
            let is_between = |version: &Arc<Relation>| {
                known.since < version.since
                    && version.since < relation.since
                    && !version.is_same_shape(&relation)
            };
            let was_other = self.kept.get(&relation.oid).is_some_and(|kept| kept.iter().any(is_between));
            if known.is_same_shape(&relation) && !was_other {
                if known.is_guess == relation.is_guess {
                    return (Arc::clone(known), None);
                }
                let known = Arc::new(Relation { is_guess: relation.is_guess, ..Relation::clone(known) });
                self.current.insert(relation.oid, Arc::clone(&known));
                return (known, None);
            }
            relation.version = known.version + 1;
        }
        let highest = self.highest.entry(relation.oid).or_default();
        *highest = relation.columns.iter().map(|column| column.attnum).fold(*highest, i16::max);
        let relation = Arc::new(relation);
        let before = self.current.insert(relation.oid, Arc::clone(&relation));
        (relation, before)
    }
}

/// Of what a message tells of a table's columns.
fn digest(message: &RelationMessage<'_>) -> u64 {
    let mut hasher = DefaultHasher::new();
    for column in &message.columns {
        (column.name, column.type_oid).hash(&mut hasher);
    }
    hasher.finish()
}

/// Whether the stream tells the same of both.
pub(crate) fn is_told_alike(one: &Relation, other: &Relation) -> bool {
    let is_alike =
        |(one, other): (&Column, &Column)| one.name == other.name && one.type_oid == other.type_oid;
    one.columns.len() == other.columns.len() && one.columns.iter().zip(&other.columns).all(is_alike)
}

/// The newest version from before that position, or the oldest of all; they are in order.
fn last_before(versions: &[Arc<Relation>], position: Lsn) -> Option<&Arc<Relation>> {
    versions.iter().rfind(|version| version.since < position).or(versions.first())
}

/// The kept version that a message is of, if it is one's: the one that was told from its very place; or the last from
/// before, unless the table looks like the message without it; or the next, since what the catalog told of was there a
/// while before that.
fn met_again<'a>(
    kept: &'a [Arc<Relation>],
    current: Option<&Relation>,
    message: &RelationMessage<'_>,
    catalog: Option<&TableCatalog>,
    place: Place,
) -> Option<&'a Relation> {
    let mut alike = kept.iter().map(Arc::as_ref).filter(|version| describes(version, message));
    if let Some(there) = alike.clone().find(|version| version.since == place.since) {
        return Some(there);
    }
    let has_all =
        |version: &Relation| !catalog.is_some_and(|catalog| lost_a_column(version, catalog, place.xid));
    let last = kept.iter().rfind(|version| version.since < place.since).map(Arc::as_ref);
    let last = last.filter(|last| current.is_none_or(|current| current.since < last.since));
    match last.or(current) {
        Some(before) if describes(before, message) && has_all(before) => last,
        _ => alike.find(|version| version.since > place.since && has_all(version)),
    }
}

#[cfg(test)]
mod tests;
