//! Streams of changes made by hand, and batches of them.

use replicator_sink::{StreamInfo, TableCopy};
use replicator_types::{
    Batch, BatchBuilder, Budget, Column, ColumnKind, Lsn, NewChange, Op, POSTGRES_EPOCH_UNIX_MICROS, Phase,
    Position, Relation, ReplicaIdentity, SlotIdentity, TransactionMeta, Tuple, TxnId, Value, oid,
};
use std::sync::Arc;

/// 2026-03-18T09:00:00Z in microseconds since 1970.
pub const NINE_O_CLOCK: i64 = 1_773_824_400_000_000;

pub fn identity() -> SlotIdentity {
    SlotIdentity { system_identifier: 0x1234, slot: "my_slot".into() }
}

pub fn stream_info() -> StreamInfo {
    StreamInfo { identity: identity(), database: "shop".into(), tables: Vec::new() }
}

pub fn column(name: &str, type_oid: u32, type_sql: &str, is_key: bool) -> Column {
    Column {
        name: name.into(),
        attnum: 1,
        type_oid,
        base_type_oid: type_oid,
        type_modifier: -1,
        kind: ColumnKind::Scalar,
        type_sql: type_sql.into(),
        not_null: is_key,
        is_key,
        ..Column::default()
    }
}

/// `public.{name}` with these columns, under `REPLICA IDENTITY DEFAULT`.
pub fn table(name: &str, columns: Vec<Column>) -> Arc<Relation> {
    Arc::new(Relation {
        oid: 16_384,
        version: 0,
        since: replicator_types::Lsn::ZERO,
        schema: "public".into(),
        name: name.into(),
        replica_identity: ReplicaIdentity::Default,
        key: replicator_types::indexes_of_key(&columns),
        columns,
        key_text_is_identity: true,
        is_guess: false,
    })
}

/// A table of a bigint key and a text.
pub fn items() -> Arc<Relation> {
    table("items", vec![column("id", oid::INT8, "bigint", true), column("name", oid::TEXT, "text", false)])
}

/// Wire bytes of a row.
pub fn row(values: &[Value<'_>]) -> Vec<u8> {
    let mut out = (values.len() as u16).to_be_bytes().to_vec();
    for value in values {
        match value {
            Value::Null => out.push(b'n'),
            Value::Unchanged => out.push(b'u'),
            Value::Text(bytes) | Value::Binary(bytes) => {
                out.push(if matches!(value, Value::Text(_)) { b't' } else { b'b' });
                out.extend_from_slice(&(bytes.len() as i32).to_be_bytes());
                out.extend_from_slice(bytes);
            }
        }
    }
    out
}

pub fn texts(values: &[&str]) -> Vec<u8> {
    row(&values.iter().map(|text| Value::Text(text.as_bytes())).collect::<Vec<_>>())
}

/// One change with all that a batch wants of it.
#[derive(Clone, Debug)]
pub struct Event {
    pub transaction: TransactionMeta,
    pub relation: Arc<Relation>,
    pub op: Op,
    pub ordinal: u64,
    pub old: Option<Vec<u8>>,
    pub old_is_full: bool,
    pub new: Option<Vec<u8>>,
    pub cascade: bool,
    pub restart_identity: bool,
}

impl Event {
    pub fn position(&self) -> Position {
        Position { commit_lsn: self.transaction.commit_lsn, ordinal: self.ordinal }
    }

    pub fn id(&self) -> String {
        identity().event_id(self.position())
    }
}

/// A transaction whose commit record is at `lsn`, committed at that Unix time; its xid follows from the LSN.
pub fn transaction(lsn: u64, unix_micros: i64) -> TransactionMeta {
    TransactionMeta {
        id: TxnId(lsn),
        commit_lsn: Lsn(lsn),
        commit_time_us: unix_micros - POSTGRES_EPOCH_UNIX_MICROS,
        xid: 1000 + lsn as u32,
    }
}

pub fn insert(transaction: TransactionMeta, relation: &Arc<Relation>, ordinal: u64, new: Vec<u8>) -> Event {
    Event {
        transaction,
        relation: Arc::clone(relation),
        op: Op::Insert,
        ordinal,
        old: None,
        old_is_full: false,
        new: Some(new),
        cascade: false,
        restart_identity: false,
    }
}

/// Inserts into [`items`], `count` of them in a transaction; the key tells the position.
pub fn inserts(transaction: TransactionMeta, relation: &Arc<Relation>, count: u64) -> Vec<Event> {
    (0..count)
        .map(|ordinal| {
            let id = (transaction.commit_lsn.0 * 1000 + ordinal).to_string();
            insert(transaction, relation, ordinal, texts(&[&id, "a name"]))
        })
        .collect()
}

/// What the stream brings.
pub fn batch(events: &[Event]) -> Arc<Batch> {
    batch_of(Phase::Stream, events)
}

pub fn batch_of(phase: Phase, events: &[Event]) -> Arc<Batch> {
    let mut builder = BatchBuilder::of_phase(Budget::new(1 << 30), phase);
    for event in events {
        let change = NewChange {
            op: event.op,
            ordinal: event.ordinal,
            old: event.old.as_deref().map(Tuple::from_checked),
            old_is_full: event.old_is_full,
            new: event.new.as_deref().map(Tuple::from_checked),
            key_hash: 0,
            key_changed: false,
            cascade: event.cascade,
            restart_identity: event.restart_identity,
        };
        builder.push(&event.transaction, &event.relation, change);
    }
    Arc::new(builder.cut(false).expect("a batch of at least one event"))
}

/// A table copied under the snapshot at `lsn`, from its beginning.
pub fn table_copy(relation: &Arc<Relation>, lsn: u64) -> TableCopy {
    TableCopy { relation: Arc::clone(relation), snapshot: Lsn(lsn), empty_first: false, is_resumed: false }
}

/// Rows of a table of a key and a text, as they come from the copy: numbered from `first` on.
pub fn copied_rows(copy: &TableCopy, first: u64, count: u64) -> Vec<Event> {
    let commit_lsn = Position::copied(copy.snapshot, 0).commit_lsn;
    let transaction = TransactionMeta { xid: 0, ..transaction(commit_lsn.0, NINE_O_CLOCK) };
    (first..first + count)
        .map(|number| {
            let row = row(&[Value::Binary(&(number as i64).to_be_bytes()), Value::Binary(b"a name")]);
            insert(transaction, &copy.relation, number, row)
        })
        .collect()
}
