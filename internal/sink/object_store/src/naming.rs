//! What the ids of events and the names of files are made of, for changes of the stream and for copied rows.
//!
//! | | event id | name of the file |
//! |---|---|---|
//! | change | `{cluster}-{slot}-{lsn}-{ordinal}` | its first event's commit time and position |
//! | copied row | `{cluster}-{slot}-{lsn}-{ordinal}-{table oid}` | the snapshot's time and a digest of its first event's id |
//!
//! Cluster and LSN are 16 hexadecimal digits, the ordinal at least 8 of a change and 16 of a copied row. A copied
//! row's id has the table because rows of several tables stand at the same position: they are numbered by where
//! they lie in their table.

use crate::name::{COPY, EVENTS, SUFFIX};
use replicator_store::{CommitTime, Hour, ulid, ulid_of};
use replicator_types::{Lsn, Position, SlotIdentity};
use sha2::{Digest, Sha256};

/// Digits of an ordinal, at least.
const CHANGE_DIGITS: u32 = 8;
const COPIED_DIGITS: u32 = 16;

/// See the module.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Naming {
    /// What every event id of the slot begins with.
    pub(crate) id_prefix: String,
    /// The table whose copied rows are named; none for the stream.
    copied_table_oid: Option<u32>,
}

impl Naming {
    /// For the changes of the slot's stream.
    pub(crate) fn of_stream(identity: &SlotIdentity) -> Self {
        let id = identity.event_id(Position::ZERO);
        let position_chars = "0000000000000000-00000000".len();
        let id_prefix = id.get(..id.len().saturating_sub(position_chars)).unwrap_or(&id).to_owned();
        Self { id_prefix, copied_table_oid: None }
    }

    /// For the copied rows of a table.
    pub(crate) fn of_copy(identity: &SlotIdentity, table_oid: u32) -> Self {
        Self { copied_table_oid: Some(table_oid), ..Self::of_stream(identity) }
    }

    /// Where the files are.
    pub(crate) fn branch(&self) -> &'static str {
        if self.copied_table_oid.is_some() { COPY } else { EVENTS }
    }

    pub(crate) fn is_copy(&self) -> bool {
        self.copied_table_oid.is_some()
    }

    /// How many digits an ordinal has at least.
    pub(crate) fn ordinal_digits_min(&self) -> u32 {
        if self.copied_table_oid.is_some() { COPIED_DIGITS } else { CHANGE_DIGITS }
    }

    /// What an event id ends with, behind the ordinal.
    pub(crate) fn id_suffix(&self) -> String {
        self.copied_table_oid.map(|oid| format!("-{oid}")).unwrap_or_default()
    }

    pub(crate) fn event_id(&self, position: Position) -> String {
        let digits = self.ordinal_digits_min() as usize;
        let Position { commit_lsn, ordinal } = position;
        format!("{}{:016x}-{ordinal:0digits$x}{}", self.id_prefix, commit_lsn.0, self.id_suffix())
    }

    /// The position in an event id of this kind.
    pub(crate) fn position_of(&self, event_id: &str) -> Option<Position> {
        let place = event_id.strip_prefix(&self.id_prefix)?.strip_suffix(&self.id_suffix())?;
        let (lsn, ordinal) = place.split_once('-')?;
        let number = |digits: &str, digits_min: u32| {
            let is_long = digits.len() >= digits_min as usize;
            let hex_only = is_long && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
            if hex_only { u64::from_str_radix(digits, 16).ok() } else { None }
        };
        let ordinal = number(ordinal, self.ordinal_digits_min())?;
        Some(Position { commit_lsn: Lsn(number(lsn, 16)?), ordinal })
    }

    /// The path of a file whose first event was committed at `time`, in `hour`, and stands at `first`.
    pub(crate) fn path(&self, hour: Hour, time: CommitTime, first: Position) -> String {
        let ulid = if self.is_copy() {
            let digest = Sha256::digest(self.event_id(first));
            ulid_of(time, digest.iter().take(10).fold(0, |number, byte| number << 8 | u128::from(*byte)))
        } else {
            ulid(time, first)
        };
        format!("{}/{ulid}{SUFFIX}", hour.folder(self.branch()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn identity() -> SlotIdentity {
        SlotIdentity { system_identifier: 0x1234, slot: "my_slot".into() }
    }

    #[test]
    fn a_change_has_the_id_that_everybody_gives_it() {
        let position = Position { commit_lsn: Lsn(0x16_B374_D848), ordinal: 0x1_2345_6789_ABCD };
        assert_eq!(Naming::of_stream(&identity()).event_id(position), identity().event_id(position));
    }

    #[test]
    fn rows_of_two_tables_at_one_position_have_ids_and_files_of_their_own() {
        let position = Position::copied(Lsn(0x100), 7);
        let [a, b] = [1, 2].map(|oid| Naming::of_copy(&identity(), oid));
        assert_eq!(a.event_id(position), "0000000000001234-my_slot-00000000000000ff-0000000000000007-1");
        assert_ne!(a.event_id(position), b.event_id(position));
        let time = CommitTime::from_postgres_micros(0);
        let [path, other] = [&a, &b].map(|naming| naming.path(time.hour(), time, position));
        assert!(path.starts_with("wal/copy/2000/01/01/00/") && other.starts_with("wal/copy/2000/01/01/00/"));
        assert_ne!(path, other);
    }

    proptest! {
        #[test]
        fn an_id_gives_back_its_position_to_its_own_kind(lsn: u64, ordinal: u64, oid: u32) {
            let position = Position { commit_lsn: Lsn(lsn), ordinal };
            let stream = Naming::of_stream(&identity());
            let copy = Naming::of_copy(&identity(), oid);
            prop_assert_eq!(stream.position_of(&stream.event_id(position)), Some(position));
            prop_assert_eq!(copy.position_of(&copy.event_id(position)), Some(position));
            prop_assert_eq!(stream.position_of(&copy.event_id(position)), None);
            prop_assert_eq!(copy.position_of(&stream.event_id(position)), None);
        }
    }
}
