//! What the sinks' copies of tables were made of: where the rows lay at the source, kept in the notes.
//!
//! Compared with where they lie now, it tells what the stream does not: that `ALTER TABLE` has computed values anew, that
//! partitions came or went. Each sink keeps it, so that none misses what happened while it was away.

use replicator_sink::{Sink, SinkError};
use replicator_types::{Leaf, Relation, Storage, StorageChange};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Notes about where a table's rows lie have this in front of the table's oid.
const KEY_PREFIX: &str = "storage/";

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Storages {
    /// By table, then by sink.
    known: Mutex<BTreeMap<u32, BTreeMap<usize, Storage>>>,
}

/// How a table stands to what is known of it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// What has happened to its rows.
    pub(crate) change: StorageChange,
    /// Sinks whose note is another, or none.
    pub(crate) outdated: Vec<usize>,
}

impl Storages {
    pub(crate) async fn load(sinks: &[Arc<dyn Sink>]) -> Result<Self, SinkError> {
        let storages = Self::default();
        for (number, sink) in sinks.iter().enumerate() {
            for (key, text) in sink.notes().await? {
                let oid = key.strip_prefix(KEY_PREFIX).and_then(|oid| oid.parse().ok());
                // One that can't be read is as good as none.
                if let Some((oid, note)) = oid.zip(serde_json::from_str::<StorageNote>(&text).ok()) {
                    storages.set(oid, &[number], &note.storage());
                }
            }
        }
        Ok(storages)
    }

    /// It is known, and in the notes.
    pub(crate) fn set(&self, oid: u32, sinks: &[usize], storage: &Storage) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let of_table = known.entry(oid).or_default();
        of_table.extend(sinks.iter().map(|sink| (*sink, storage.clone())));
    }

    /// What these sinks were told of the table is out of date, and is filled anew.
    pub(crate) fn forget(&self, oid: u32, sinks: &[usize]) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(of_table) = known.get_mut(&oid) {
            of_table.retain(|sink, _| !sinks.contains(sink));
        }
    }

    /// Whether that holds of what any of these sinks was told of the table.
    fn any_known(&self, oid: u32, sinks: &[usize], test: impl Fn(&Storage) -> bool) -> bool {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(&oid).into_iter().flatten().any(|(sink, before)| sinks.contains(sink) && test(before))
    }

    /// Whether any of these attributes was written since one of the sinks was told.
    pub(crate) fn are_written(&self, oid: u32, sinks: &[usize], now: &Storage, attnums: &[i16]) -> bool {
        let is_written =
            |before: &Storage, attnum: &i16| before.written_by(*attnum) != now.written_by(*attnum);
        self.any_known(oid, sinks, |before| attnums.iter().any(|attnum| is_written(before, attnum)))
    }

    /// Of a table to which a column was added that had its rows written anew: whether they may have been changed in another
    /// way besides, since one of the sinks was told. By what it is published, or how values of its types are written. And if
    /// its file is another: by a column that was there before and was written, or by a new one that has a constant, which
    /// writes no rows anew; below a root, whose columns tell less, in any case.
    pub(crate) fn may_be_more_than_added(
        &self,
        oid: u32,
        sinks: &[usize],
        now: &Storage,
        relation: &Relation,
    ) -> bool {
        let is_written = |(attnum, xid): &(i16, u32)| now.written_by(*attnum).is_some_and(|now| now != *xid);
        let is_constant = |before: &Storage| {
            relation.columns.iter().any(|column| {
                let is_new = before.written_by(column.attnum).is_none();
                is_new && column.default_sql.is_some() && column.missing_text.is_none()
            })
        };
        self.any_known(oid, sinks, |before| {
            let but_for_files = Storage { leaves: before.leaves.clone(), ..now.clone() };
            let is_added_alone =
                || !now.is_partitioned && !before.attributes.iter().any(is_written) && !is_constant(before);
            but_for_files.change_since(before) != StorageChange::None
                || files(before) != files(now) && !is_added_alone()
        })
    }

    /// What has become of a table, for the sinks that take it.
    pub(crate) fn compare(&self, oid: u32, sinks: &[usize], now: &Storage) -> Verdict {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let of_table = known.get(&oid);
        let mut verdict = Verdict { change: StorageChange::None, outdated: Vec::new() };
        for sink in sinks {
            let before = of_table.and_then(|of_table| of_table.get(sink));
            if before.is_none_or(|before| StorageNote::of(before) != StorageNote::of(now)) {
                verdict.outdated.push(*sink);
            }
            let change = before.map_or(StorageChange::None, |before| now.change_since(before));
            if change != StorageChange::None && verdict.change != StorageChange::CameOrWent {
                verdict.change = change;
            }
        }
        verdict
    }
}

/// Where the rows lie, in the order of the partitions' oids: `pg_class.oid`, `relfilenode`, `Leaf::joined_by`.
fn files(of: &Storage) -> Vec<(u32, u32, u64)> {
    of.leaves.iter().map(|leaf| (leaf.oid, leaf.file_node, leaf.joined_by)).collect()
}

/// The note of it.
pub(crate) fn note(oid: u32, storage: &Storage) -> Result<(String, String), String> {
    let text = serde_json::to_string(&StorageNote::of(storage));
    Ok((format!("{KEY_PREFIX}{oid}"), text.map_err(|error| format!("a note can't be written: {error}"))?))
}

/// A [`Storage`], without what only counts when a leaf is met for the first time.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct StorageNote {
    is_partitioned: bool,
    /// See [`files`].
    leaves: Vec<(u32, u32, u64)>,
    /// Attribute number, transaction.
    attributes: Vec<(i16, u32)>,
    /// Attribute numbers without values in the stream.
    #[serde(default)]
    unsent: Vec<i16>,
    /// `pg_type.oid`, and how its values are written.
    #[serde(default)]
    types: Vec<(u32, Vec<i32>)>,
    /// By what it is published.
    #[serde(default)]
    memberships: Option<Vec<u32>>,
}

impl StorageNote {
    fn of(storage: &Storage) -> Self {
        Self {
            is_partitioned: storage.is_partitioned,
            leaves: files(storage),
            attributes: storage.attributes.clone(),
            unsent: storage.unsent.clone(),
            types: storage.types.clone(),
            memberships: storage.memberships.clone(),
        }
    }

    fn storage(self) -> Storage {
        let leaf = |(oid, file_node, joined_by)| Leaf { oid, file_node, joined_by, came_empty: false };
        Storage {
            is_partitioned: self.is_partitioned,
            leaves: self.leaves.into_iter().map(leaf).collect(),
            attributes: self.attributes,
            unsent: self.unsent,
            types: self.types,
            memberships: self.memberships,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn storage(leaves: &[(u32, u32)], xid: u32) -> Storage {
        let leaf = |&(oid, file_node): &_| Leaf { oid, file_node, joined_by: 9, came_empty: false };
        Storage {
            is_partitioned: true,
            leaves: leaves.iter().map(leaf).collect(),
            attributes: vec![(1, xid)],
            unsent: vec![2],
            types: vec![(20, vec![i32::MIN, 7])],
            memberships: Some(vec![30]),
        }
    }

    #[test]
    fn a_note_is_read_as_it_was_written() {
        let storage = storage(&[(5, 6), (7, 8)], u32::MAX);
        let (key, text) = note(5, &storage).unwrap();
        assert_eq!(key, "storage/5");
        assert_eq!(serde_json::from_str::<StorageNote>(&text).unwrap().storage(), storage);
    }

    #[test]
    fn a_sink_that_has_missed_something_decides_for_all() {
        let storages = Storages::default();
        let (old, new) = (storage(&[(5, 6), (7, 8)], 1), storage(&[(5, 6)], 1));
        assert_eq!(storages.compare(1, &[0, 1], &new).change, StorageChange::None, "nothing is known");
        storages.set(1, &[0], &new);
        storages.set(1, &[1], &old);
        let verdict = |sinks: &[usize]| storages.compare(1, sinks, &new);
        assert_eq!(verdict(&[0]), Verdict { change: StorageChange::None, outdated: vec![] });
        assert_eq!(verdict(&[0, 1]), Verdict { change: StorageChange::CameOrWent, outdated: vec![1] });
        assert_eq!(verdict(&[0, 2]), Verdict { change: StorageChange::None, outdated: vec![2] });
    }
}
