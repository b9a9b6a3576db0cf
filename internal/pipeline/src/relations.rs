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

use join::{describes, join, lost_a_column};
use pgoutput::RelationMessage;
use replicator_types::{Lsn, Relation, TableCatalog};
use std::collections::HashMap;
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
    /// What was told in earlier runs, in order: behind the place where this one begins, it is met again.
    kept: HashMap<u32, Vec<Arc<Relation>>>,
}

/// Where a Relation message comes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    /// The commit LSN of its transaction.
    pub(crate) since: Lsn,
    /// Its transaction's id; 0 when it is in none.
    pub(crate) xid: u32,
}

impl Relations {
    /// Remembers what the catalog says of a table, for its next Relation message.
    pub(crate) fn learn(&mut self, catalog: TableCatalog) {
        if self.catalogs.get(&catalog.oid).is_none_or(|known| known.read_at <= catalog.read_at) {
            self.catalogs.insert(catalog.oid, catalog);
        }
    }

    /// What sinks were told of a table before this run, which begins at `watermark`: the newest version from before that
    /// is the table's when the run begins, or the oldest of all; those behind it are met again.
    pub(crate) fn begin_with(&mut self, mut versions: Vec<Arc<Relation>>, watermark: Lsn) {
        versions.sort_by_key(|version| version.since);
        let Some(first) = last_before(&versions, watermark).cloned() else { return };
        let oid = first.oid;
        self.current.insert(oid, first);
        if versions.len() > 1 {
            self.kept.insert(oid, versions);
        }
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

    /// Takes in a Relation message; returns the table's version, and the one before if that was another.
    pub(crate) fn apply(
        &mut self,
        message: &RelationMessage<'_>,
        place: Place,
    ) -> (Arc<Relation>, Option<Arc<Relation>>) {
        self.announced.remove(&message.oid);
        let relation = self.join(message, place);
        self.adopt(relation)
    }

    /// Takes in a Relation message that is not to be told, or not yet; returns what the table is until then.
    pub(crate) fn announce(&mut self, message: &RelationMessage<'_>, place: Place) -> Arc<Relation> {
        let relation = self.join(message, place);
        if let Some(known) = self.current.get(&message.oid).filter(|known| known.is_same_shape(&relation)) {
            self.announced.remove(&message.oid);
            return Arc::clone(known);
        }
        let relation = Arc::new(relation);
        self.announced.insert(message.oid, Arc::clone(&relation));
        relation
    }

    /// Whether [`Relations::apply_announced`] has anything to do for any table.
    pub(crate) fn has_announced(&self) -> bool {
        !self.announced.is_empty()
    }

    /// Takes in what was announced of a table; returns as [`Relations::apply`] does. It holds from the transaction on that
    /// commits at `since`: a run that begins before that has to tell it.
    pub(crate) fn apply_announced(
        &mut self,
        oid: u32,
        since: Lsn,
    ) -> Option<(Arc<Relation>, Option<Arc<Relation>>)> {
        let relation = Arc::unwrap_or_clone(self.announced.remove(&oid)?);
        Some(self.adopt(Relation { since, ..relation }))
    }

    fn join(&self, message: &RelationMessage<'_>, place: Place) -> Relation {
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
        let earlier =
            kept.iter().filter(|version| before.is_some_and(|before| version.since <= before.since));
        let numbers = earlier.flat_map(|version| &version.columns).map(|column| column.attnum);
        let told = self.highest.get(&message.oid).copied().unwrap_or_default();
        join(message, catalog, before, numbers.fold(told, i16::max), place)
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
            if known.is_same_shape(&relation) {
                return (Arc::clone(known), None);
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
