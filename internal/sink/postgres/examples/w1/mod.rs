//! What the examples share: the narrow table W1 of the project's baselines, and a sink.

// Not every example uses all of it.
#![allow(dead_code)]

use replicator_config::{PostgresSinkConfig, Secret, SynchronousCommit, TypeChanges};
use replicator_sink::{SinkError, StreamInfo, TableCopy};
use replicator_sink_postgres::PostgresSink;
use replicator_types::{
    Batch, BatchBuilder, Budget, Column, Lsn, NewChange, Op, Phase, Position, Relation, ReplicaIdentity,
    SlotIdentity, TransactionMeta, Tuple, TxnId, oid,
};
use std::sync::Arc;

/// Where copied rows stand.
pub(crate) const SNAPSHOT: Lsn = Lsn(1 << 20);

/// A table with W1's columns.
pub(crate) fn relation(table_oid: u32, name: &str) -> Relation {
    let column = |attnum, name: &str, type_oid, type_sql: &str| Column {
        name: name.into(),
        attnum,
        type_oid,
        base_type_oid: type_oid,
        type_sql: type_sql.into(),
        not_null: name == "id",
        is_key: name == "id",
        ..Column::default()
    };
    Relation {
        oid: table_oid,
        version: 0,
        since: Lsn::ZERO,
        schema: "public".into(),
        name: name.into(),
        replica_identity: ReplicaIdentity::Default,
        columns: vec![
            column(1, "id", oid::INT8, "bigint"),
            column(2, "a", oid::INT4, "integer"),
            column(3, "b", oid::TEXT, "text"),
            column(4, "c", oid::NUMERIC, "numeric(12,2)"),
            column(5, "d", oid::TEXT, "text"),
            column(6, "e", oid::TIMESTAMPTZ, "timestamp with time zone"),
        ],
        key: vec![0],
        key_text_is_identity: true,
        is_guess: false,
    }
}

/// A sink of one lane.
pub(crate) fn sink(name: &str, url: String) -> Result<PostgresSink, SinkError> {
    let config = PostgresSinkConfig {
        url: Secret::new(url),
        password: Secret::default(),
        password_file: None,
        create_tables: true,
        type_changes: TypeChanges::Error,
        origin: false,
        synchronous_commit: SynchronousCommit::On,
        connect_timeout_ms: 5_000,
    };
    replicator_sink_postgres::open(name.into(), config, 1, slog::Logger::root(slog::Discard, slog::o!()))
}

/// A stream of that slot that begins without tables.
pub(crate) fn stream(slot: String) -> StreamInfo {
    let identity = SlotIdentity { system_identifier: 1, slot };
    StreamInfo { identity, database: "shop".into(), tables: Vec::new() }
}

/// A change of a row, alone in its key.
pub(crate) fn change<'a>(
    op: Op,
    ordinal: u64,
    old: Option<&'a [u8]>,
    new: Option<&'a [u8]>,
) -> NewChange<'a> {
    NewChange {
        op,
        ordinal,
        old: old.map(Tuple::from_checked),
        old_is_full: false,
        new: new.map(Tuple::from_checked),
        key_hash: 0,
        key_changed: false,
        cascade: false,
        restart_identity: false,
    }
}

/// A copy of the table from its beginning.
pub(crate) fn copy_of(relation: &Arc<Relation>) -> TableCopy {
    TableCopy { relation: Arc::clone(relation), snapshot: SNAPSHOT, empty_first: true, is_resumed: false }
}

/// A row in the form that a binary COPY of the source brings.
pub(crate) fn binary_tuple(id: u64, bytes: &mut Vec<u8>) {
    bytes.clear();
    bytes.extend_from_slice(&6_u16.to_be_bytes());
    let mut value = |kind: u8, value: &[u8]| {
        bytes.push(kind);
        bytes.extend_from_slice(&(value.len() as u32).to_be_bytes());
        bytes.extend_from_slice(value);
    };
    value(b'b', &id.to_be_bytes());
    value(b'b', &(id as u32 % 1_000).to_be_bytes());
    value(b't', b"abcdefgh");
    // Three digits of base 10000, the first of weight 1, two decimals: nnnn nnnn . 2500.
    let digits = [3_u16, 1, 0, 2, (id / 10_000 % 10_000) as u16 + 1, (id % 10_000) as u16, 2_500];
    let numeric: Vec<u8> = digits.iter().flat_map(|digit| digit.to_be_bytes()).collect();
    value(b'b', &numeric);
    value(b't', &[b'x'; 100]);
    value(b'b', &(848_000_000_000_000 + id).to_be_bytes());
}

/// So many copied rows, in batches of about so many bytes.
pub(crate) fn copied(relation: &Arc<Relation>, rows: u64, batch_bytes: usize) -> Vec<Arc<Batch>> {
    let mut builder = BatchBuilder::of_phase(Budget::new(usize::MAX), Phase::Copy { fresh: true });
    let (mut batches, mut bytes) = (Vec::new(), Vec::new());
    let commit_lsn = Position::copied(SNAPSHOT, 0).commit_lsn;
    let transaction = TransactionMeta { id: TxnId(1), commit_lsn, commit_time_us: 0, xid: 0 };
    for ordinal in 0..rows {
        binary_tuple(ordinal, &mut bytes);
        builder.push(&transaction, relation, change(Op::Insert, ordinal, None, Some(&bytes)));
        if builder.data_bytes() > batch_bytes {
            batches.extend(builder.cut(false).map(Arc::new));
        }
    }
    batches.extend(builder.cut(false).map(Arc::new));
    batches
}
