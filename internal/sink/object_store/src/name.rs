//! Names of archive files: which branch, and which position a name tells.

use replicator_store::{nearest_lsn, parse_ulid};
use replicator_types::{Lsn, Position};

/// What follows the ULID in a file's name.
pub(crate) const SUFFIX: &str = ".ndjson.gz";

/// Where the stream's files are, below the configured prefix.
pub(crate) const EVENTS: &str = "wal/events";

/// Where the files of copied rows are.
pub(crate) const COPY: &str = "wal/copy";

/// The position in the name of a file (without its folder), for a stream that stands at `near`, whose LSN
/// supplies the bits that a name has no room for. `None` when it is no name of ours.
pub(crate) fn first_position(file_name: &str, near: Lsn) -> Option<Position> {
    let number = parse_ulid(file_name.strip_suffix(SUFFIX)?)?;
    let commit_lsn = nearest_lsn((number >> 32) as u64, near);
    Some(Position { commit_lsn, ordinal: number as u64 & u64::from(u32::MAX) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use replicator_store::{CommitTime, ulid};
    use replicator_types::POSTGRES_EPOCH_UNIX_MICROS;

    fn time(unix_micros: i64) -> CommitTime {
        CommitTime::from_postgres_micros(unix_micros - POSTGRES_EPOCH_UNIX_MICROS)
    }

    fn position(lsn: u64, ordinal: u64) -> Position {
        Position { commit_lsn: Lsn(lsn), ordinal }
    }

    #[test]
    fn only_our_names_are_read() {
        for name in [
            "",
            ".ndjson.gz",
            "0000000000000000000000000Z",
            "0000000000000000000000000U.ndjson.gz",
            "00000000000000000000000000.parquet",
            "8ZZZZZZZZZZZZZZZZZZZZZZZZZ.ndjson.gz",
            "00000000000000000000000000.ndjson.gz#1",
        ] {
            assert_eq!(first_position(name, Lsn::ZERO), None, "{name}");
        }
    }

    #[test]
    fn an_lsn_beyond_48_bits_is_found_again_from_either_side() {
        let name = |lsn| ulid(time(0), position(lsn, 1)) + SUFFIX;
        for (lsn, near) in [
            (0x1_0000_0000_0005, 0xFFFF_FFFF_FF00),
            (0xFFFF_FFFF_FF00, 0x1_0000_0000_0005),
            (7, 7),
            (u64::MAX, u64::MAX),
            (u64::MAX - 9, u64::MAX),
        ] {
            assert_eq!(first_position(&name(lsn), Lsn(near)), Some(position(lsn, 1)));
        }
    }

    proptest! {
        #[test]
        fn a_name_gives_back_its_position(micros in 0..253_402_300_799_999_999i64, lsn: u64, ordinal: u32, away in -(1i64 << 46)..1 << 46) {
            let first = position(lsn, ordinal.into());
            let near = Lsn(lsn.saturating_add_signed(away));
            prop_assert_eq!(first_position(&(ulid(time(micros), first) + SUFFIX), near), Some(first));
        }

        #[test]
        fn any_text_is_a_name_or_not(text: String) {
            let _ = first_position(&text, Lsn(5));
        }
    }
}
