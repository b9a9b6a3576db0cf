use crate::Lsn;
use std::fmt;

/// Where a change stands among all changes of a slot: the LSN of its transaction's commit record, and
/// its number within the transaction.
///
/// This is the total order of the stream. A change's own LSN is not: transactions interleave in the WAL
/// and are delivered whole, in commit order, so a change may have a lower LSN than one delivered before
/// it; and the rows of one `COPY` share an LSN. Redelivery after a restart gives the same change the
/// same position, which is why it serves as the event's identity and as the version in ClickHouse.
///
/// `ordinal` counts row changes and truncated tables only, from 0. An update that changes the key takes
/// two numbers: the first for the removal of the old key, the second for the new row.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Position {
    /// Start of the commit record (`final_lsn` of Begin), not its end.
    pub commit_lsn: Lsn,
    /// Number within the transaction.
    pub ordinal: u64,
}

impl Position {
    /// Before every real position.
    pub const ZERO: Self = Self { commit_lsn: Lsn::ZERO, ordinal: 0 };

    /// Position of the `number`th row of a table's copy under a snapshot that has every transaction committed
    /// before `snapshot` and none behind. It is just below every change that the snapshot lacks, above every change
    /// that it has, and that of no change: commit records begin at multiples of 8.
    ///
    /// Source: `snapshot_name` and `consistent_point` of `CREATE_REPLICATION_SLOT`,
    /// <https://www.postgresql.org/docs/current/protocol-replication.html>.
    pub fn copied(snapshot: Lsn, number: u64) -> Self {
        Self { commit_lsn: Lsn(snapshot.0.saturating_sub(1)), ordinal: number }
    }

    /// The position as one number that sorts the same way: the commit LSN in the high 64 bits.
    pub fn as_u128(self) -> u128 {
        u128::from(self.commit_lsn.0) << 64 | u128::from(self.ordinal)
    }

    /// The inverse of [`Position::as_u128`].
    pub fn from_u128(n: u128) -> Self {
        Self { commit_lsn: Lsn((n >> 64) as u64), ordinal: n as u64 }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}+{}", self.commit_lsn, self.ordinal)
    }
}

/// What a position or a checkpoint belongs to. Positions of two slots, or of two clusters, are not
/// comparable; a checkpoint is only used with the identity it was made under.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct SlotIdentity {
    /// `systemid` of `IDENTIFY_SYSTEM`: one number for a cluster and all its physical copies.
    pub system_identifier: u64,
    /// Name of the slot.
    pub slot: String,
}

impl SlotIdentity {
    /// The identity of the change at `position`: the same each time the change is delivered, and
    /// sorting as positions do.
    pub fn event_id(&self, position: Position) -> String {
        format!(
            "{:016x}-{}-{:016x}-{:08x}",
            self.system_identifier, self.slot, position.commit_lsn.0, position.ordinal
        )
    }
}

impl fmt::Display for SlotIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "slot {} of cluster {}", self.slot, self.system_identifier)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_number_sorts_as_the_position(a: (u64, u64), b: (u64, u64)) {
            let of = |(lsn, ordinal)| Position { commit_lsn: Lsn(lsn), ordinal };
            prop_assert_eq!(of(a).cmp(&of(b)), of(a).as_u128().cmp(&of(b).as_u128()));
            prop_assert_eq!(Position::from_u128(of(a).as_u128()), of(a));
        }
    }
}
