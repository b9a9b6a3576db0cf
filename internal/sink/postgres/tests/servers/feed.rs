//! Changes made by hand, and batches of them.

use replicator_sink::StreamInfo;
use replicator_types::{
    Batch, BatchBuilder, Budget, Column, ColumnKind, KeyHasher, Lsn, NewChange, Op, Phase, Position,
    Relation, ReplicaIdentity, SlotIdentity, TransactionMeta, Tuple, TxnId, key_text_is_identity, oid,
};
use std::sync::Arc;

/// A value: `None` is NULL.
pub(crate) type Text<'a> = Option<&'a str>;

/// What an unchanged TOAST value is written as here.
pub(crate) const SAME: Text<'static> = Some("\u{1}unchanged");

pub(crate) fn stream() -> StreamInfo {
    let identity = SlotIdentity { system_identifier: 7_000_000_000_000_000_001, slot: "replicator".into() };
    StreamInfo { identity, database: "shop".into(), tables: Vec::new() }
}

/// A table `public.{name}`; a column is its name and type, a name that begins with `*` is of the key. Without
/// one the table has REPLICA IDENTITY FULL.
pub(crate) fn relation(name: &str, columns: &[(&str, &str)]) -> Relation {
    let columns: Vec<Column> = columns
        .iter()
        .zip(1..)
        .map(|(&(name, type_sql), attnum)| {
            let type_oid = match type_sql {
                "bigint" => oid::INT8,
                "numeric" => oid::NUMERIC,
                _ => oid::TEXT,
            };
            Column {
                name: name.trim_start_matches('*').into(),
                attnum,
                type_oid,
                base_type_oid: type_oid,
                type_modifier: -1,
                kind: ColumnKind::Scalar,
                type_sql: type_sql.into(),
                not_null: name.starts_with('*'),
                is_key: name.starts_with('*'),
                ..Column::default()
            }
        })
        .collect();
    let key = replicator_types::indexes_of_key(&columns);
    Relation {
        oid: name.bytes().fold(7, |oid: u32, byte| oid.wrapping_mul(31).wrapping_add(u32::from(byte))),
        version: 0,
        since: replicator_types::Lsn::ZERO,
        schema: "public".into(),
        name: name.into(),
        replica_identity: if key.is_empty() { ReplicaIdentity::Full } else { ReplicaIdentity::Default },
        key_text_is_identity: key_text_is_identity(&columns, &[]),
        is_guess: false,
        key,
        columns,
    }
}

/// A version of a table: `relation` with attribute numbers, of the same table as all others of that `oid`.
pub(crate) fn version(oid: u32, since: u64, name: &str, columns: &[(i16, &str, &str)]) -> Relation {
    let plain: Vec<(&str, &str)> = columns.iter().map(|&(_, name, type_sql)| (name, type_sql)).collect();
    let mut relation = relation(name, &plain);
    for (column, &(attnum, ..)) in relation.columns.iter_mut().zip(columns) {
        column.attnum = attnum;
    }
    Relation { oid, since: Lsn(since), version: since as u32, ..relation }
}

/// A change that can be put into any batch.
#[derive(Clone, Debug)]
pub(crate) struct Owned {
    pub(crate) relation: Arc<Relation>,
    pub(crate) op: Op,
    pub(crate) position: Position,
    pub(crate) key_hash: u64,
    old: Option<Vec<u8>>,
    old_is_full: bool,
    new: Option<Vec<u8>>,
    key_changed: bool,
    cascade: bool,
    restart_identity: bool,
}

impl Owned {
    pub(crate) fn push(&self, builder: &mut BatchBuilder) {
        let commit_lsn = self.position.commit_lsn;
        let transaction = TransactionMeta { id: TxnId(commit_lsn.0), commit_lsn, commit_time_us: 0, xid: 1 };
        builder.push(
            &transaction,
            &self.relation,
            NewChange {
                op: self.op,
                ordinal: self.position.ordinal,
                old: self.old.as_deref().map(Tuple::from_checked),
                old_is_full: self.old_is_full,
                new: self.new.as_deref().map(Tuple::from_checked),
                key_hash: self.key_hash,
                key_changed: self.key_changed,
                cascade: self.cascade,
                restart_identity: self.restart_identity,
            },
        );
    }
}

pub(crate) fn builder() -> BatchBuilder {
    BatchBuilder::new(Budget::new(1 << 30))
}

/// Gathers changes in stream order, under rising positions.
#[derive(Debug)]
pub(crate) struct Feed {
    pub(crate) changes: Vec<Owned>,
    next: Position,
}

impl Feed {
    pub(crate) fn new() -> Self {
        Self::from_lsn(1_000)
    }

    pub(crate) fn from_lsn(lsn: u64) -> Self {
        Self { changes: Vec::new(), next: Position { commit_lsn: Lsn(lsn), ordinal: 0 } }
    }

    /// What comes from here on is of another transaction.
    pub(crate) fn commit(&mut self) {
        self.next = Position { commit_lsn: Lsn(self.next.commit_lsn.0 + 100), ordinal: 0 };
    }

    pub(crate) fn insert(&mut self, relation: &Arc<Relation>, new: &[Text<'_>]) {
        self.add(relation, Op::Insert, None, false, Some(new));
    }

    pub(crate) fn update(&mut self, relation: &Arc<Relation>, new: &[Text<'_>]) {
        self.add(relation, Op::Update, None, false, Some(new));
    }

    /// An update under REPLICA IDENTITY FULL.
    pub(crate) fn update_full(&mut self, relation: &Arc<Relation>, old: &[Text<'_>], new: &[Text<'_>]) {
        self.add(relation, Op::Update, Some(old), true, Some(new));
    }

    /// An update of the key that could not be split.
    pub(crate) fn move_row(&mut self, relation: &Arc<Relation>, old: &[Text<'_>], new: &[Text<'_>]) {
        self.add(relation, Op::Update, Some(old), false, Some(new));
        if let Some(change) = self.changes.last_mut() {
            change.key_changed = true;
        }
    }

    /// A delete: the key, NULL elsewhere.
    pub(crate) fn delete(&mut self, relation: &Arc<Relation>, old: &[Text<'_>]) {
        self.add(relation, Op::Delete, Some(old), false, None);
    }

    pub(crate) fn delete_full(&mut self, relation: &Arc<Relation>, old: &[Text<'_>]) {
        self.add(relation, Op::Delete, Some(old), true, None);
    }

    pub(crate) fn truncate(&mut self, relations: &[&Arc<Relation>], cascade: bool, restart_identity: bool) {
        for relation in relations {
            self.add(relation, Op::Truncate, None, false, None);
            if let Some(change) = self.changes.last_mut() {
                change.cascade = cascade;
                change.restart_identity = restart_identity;
            }
        }
    }

    /// From here on the table looks like this.
    pub(crate) fn schema(&mut self, relation: &Arc<Relation>) {
        self.add(relation, Op::Schema, None, false, None);
        // It stands where the change behind it does.
        self.next.ordinal -= 1;
    }

    /// A new row in the wire form of tuples.
    pub(crate) fn insert_wire(&mut self, relation: &Arc<Relation>, tuple: Vec<u8>) {
        self.add(relation, Op::Insert, None, false, Some(&[]));
        if let Some(change) = self.changes.last_mut() {
            change.new = Some(tuple);
        }
    }

    /// All changes gathered since the last call, as one batch.
    pub(crate) fn batch(&mut self) -> Batch {
        self.batch_of(Phase::Stream)
    }

    /// The same, on that way into the sink.
    pub(crate) fn batch_of(&mut self, phase: Phase) -> Batch {
        let mut builder = BatchBuilder::of_phase(Budget::new(1 << 30), phase);
        self.changes.drain(..).for_each(|change| change.push(&mut builder));
        self.commit();
        builder.cut(false).unwrap()
    }

    /// A schema change alone, as it comes.
    pub(crate) fn schema_batch(&mut self, relation: &Arc<Relation>) -> Batch {
        assert!(self.changes.is_empty());
        self.schema(relation);
        let mut builder = builder();
        self.changes.drain(..).for_each(|change| change.push(&mut builder));
        builder.cut(true).unwrap()
    }

    fn add(
        &mut self,
        relation: &Arc<Relation>,
        op: Op,
        old: Option<&[Text<'_>]>,
        old_is_full: bool,
        new: Option<&[Text<'_>]>,
    ) {
        let mut hasher = KeyHasher::new(relation.oid.into());
        let row = if op == Op::Delete { old } else { new }.unwrap_or_default();
        for (value, column) in row.iter().zip(&relation.columns) {
            if column.is_key || !relation.has_key() {
                match value {
                    Some(text) => hasher.value(text.as_bytes()),
                    None => hasher.null(),
                }
            }
        }
        let has_hash = op != Op::Truncate && relation.key_text_is_identity;
        self.changes.push(Owned {
            relation: Arc::clone(relation),
            op,
            position: self.next,
            key_hash: if has_hash { hasher.finish() } else { 0 },
            old: old.map(encode),
            old_is_full,
            new: new.map(encode),
            key_changed: false,
            cascade: false,
            restart_identity: false,
        });
        self.next.ordinal += 1;
    }
}

fn encode(values: &[Text<'_>]) -> Vec<u8> {
    let mut tuple = (values.len() as u16).to_be_bytes().to_vec();
    for value in values {
        match value {
            None => tuple.push(b'n'),
            same if *same == SAME => tuple.push(b'u'),
            Some(text) => {
                tuple.push(b't');
                tuple.extend_from_slice(&(text.len() as u32).to_be_bytes());
                tuple.extend_from_slice(text.as_bytes());
            }
        }
    }
    tuple
}
