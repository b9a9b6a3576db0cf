//! What is written where a table begins anew: a truncate below its copied rows.
//!
//! ```text
//!   … changes that the snapshot has │ truncate │ copied rows │ changes that it lacks …
//!     below                           LSN - 2    LSN - 1       from the snapshot's LSN on
//! ```
//!
//! Whoever folds events by position then forgets what the archive said of the table before. The position is
//! that of no change, since commit records begin at multiples of 8, nor of any other table's truncate: the ordinal
//! is the table's oid.

use crate::file::{FileWriter, NewFile};
use crate::lane::write_whole;
use crate::naming::Naming;
use flate2::Compression;
use replicator_sink::{SinkError, TableCopy};
use replicator_types::{BatchBuilder, Budget, Lsn, NewChange, Op, Phase, Position, TransactionMeta, TxnId};

/// Where the truncate stands.
fn position(copy: &TableCopy) -> Position {
    let rows = Position::copied(copy.snapshot, 0);
    Position { commit_lsn: Lsn(rows.commit_lsn.0.saturating_sub(1)), ordinal: u64::from(copy.relation.oid) }
}

/// The file of the truncate, said to have happened at `time_us` (microseconds since 2000-01-01 UTC).
pub(crate) fn file(
    copy: &TableCopy,
    time_us: i64,
    naming: Naming,
    level: Compression,
) -> Result<NewFile, SinkError> {
    let Position { commit_lsn, ordinal } = position(copy);
    let transaction = TransactionMeta { id: TxnId(0), commit_lsn, commit_time_us: time_us, xid: 0 };
    let truncate = NewChange::without_row(Op::Truncate, ordinal);
    let mut builder = BatchBuilder::of_phase(Budget::new(1 << 20), Phase::Copy { fresh: false });
    builder.push(&transaction, &copy.relation, truncate);
    let batch = builder.cut(false).ok_or_else(|| SinkError::retry("a batch of one change was empty"))?;
    write_whole(&mut FileWriter::new(naming, level), &batch)
}
