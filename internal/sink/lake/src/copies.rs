//! What is written around a table's copy.

use crate::lane::{LakeWrite, Shared, files_of};
use replicator_lake::CopyState;
use replicator_lake::Identity;
use replicator_lake::layout::TableFolder;
use replicator_sink::{SinkError, TableCopy, Write};
use replicator_store::Store;
use replicator_types::{BatchBuilder, Budget, Lsn, NewChange, Op, Phase, Position, TransactionMeta, TxnId};

/// Notes whether the table is being copied.
pub(crate) async fn note(store: &Store, copy: &TableCopy, is_running: bool) -> Result<(), SinkError> {
    let folder = TableFolder::of(&copy.relation.schema, &copy.relation.name);
    CopyState { is_running, snapshot: copy.snapshot.to_string() }.put(store, &folder).await
}

/// Writes the truncate before a copy's rows, said to have happened at `time_us` (microseconds since 2000-01-01 UTC):
/// newer than all that the snapshot has, older than the rows. Its position is no change's, since commit records begin
/// at multiples of 8.
pub(crate) async fn truncate(
    shared: &Shared,
    identity: &Identity,
    copy: &TableCopy,
    time_us: i64,
) -> Result<(), SinkError> {
    let rows = Position::copied(copy.snapshot, 0);
    let commit_lsn = Lsn(rows.commit_lsn.0.saturating_sub(1));
    let transaction = TransactionMeta { id: TxnId(0), commit_lsn, commit_time_us: time_us, xid: 0 };
    let truncate = NewChange::without_row(Op::Truncate, 0);
    let mut builder = BatchBuilder::of_phase(Budget::new(1 << 20), Phase::Copy { fresh: false });
    builder.push(&transaction, &copy.relation, truncate);
    let batch = builder.cut(false).ok_or_else(|| SinkError::retry("a batch of one change was empty"))?;
    let made = files_of(&batch, &[], true, identity, shared.options)?;
    LakeWrite::of_copy(shared.clone(), made.files).send().await
}
