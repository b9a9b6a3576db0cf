//! A source that makes up changes by a seed, and knows what its table holds.

use super::faulty::next;
use replicator_types::{
    Batch, BatchBuilder, Budget, Column, Lsn, NewChange, Op, Relation, ReplicaIdentity, TransactionMeta,
    Tuple, TxnId, Value, oid,
};
use std::collections::BTreeMap;
use std::sync::Arc;

/// 2026-03-18T09:00:00Z in microseconds since 2000-01-01.
pub const NINE_O_CLOCK: i64 = 827_139_600_000_000;

/// `public.items (id bigint primary key, small text, big text)`; `big` is stored apart.
pub fn items() -> Arc<Relation> {
    let column = |name: &str, attnum, type_oid, type_sql: &str, is_key| Column {
        name: name.into(),
        attnum,
        type_oid,
        base_type_oid: type_oid,
        type_sql: type_sql.into(),
        not_null: is_key,
        is_key,
        ..Column::default()
    };
    Arc::new(Relation {
        oid: 16_384,
        version: 0,
        since: Lsn::ZERO,
        schema: "public".into(),
        name: "items".into(),
        replica_identity: ReplicaIdentity::Default,
        key: vec![0],
        columns: vec![
            column("id", 1, oid::INT8, "bigint", true),
            column("small", 2, oid::TEXT, "text", false),
            column("big", 3, oid::TEXT, "text", false),
        ],
        key_text_is_identity: true,
        is_guess: false,
    })
}

/// A row as it is sent: key, small, big if it was sent.
type Sent = (i64, String, Option<String>);

/// One change as the stream brings it.
#[derive(Clone, Debug)]
struct Made {
    transaction: TransactionMeta,
    ordinal: u64,
    op: Op,
    old_key: Option<i64>,
    new: Option<Sent>,
}

pub type Rows = BTreeMap<i64, (String, String)>;

pub struct Source {
    random: u64,
    pub rows: Rows,
    /// What the table held after each transaction, by commit LSN and time.
    pub past: Vec<(Lsn, i64, Rows)>,
    changes: Vec<Made>,
    lsn: u64,
    relation: Arc<Relation>,
}

impl Source {
    pub fn new(seed: u64) -> Self {
        let random = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        Self {
            random,
            rows: Rows::new(),
            past: Vec::new(),
            changes: Vec::new(),
            lsn: 0x1000,
            relation: items(),
        }
    }

    pub fn number(&mut self, below: u64) -> u64 {
        (next(&mut self.random) >> 16) % below
    }

    /// How many changes there were.
    pub fn len(&self) -> usize {
        self.changes.len()
    }

    /// One transaction of a few changes, of any kind.
    pub fn commit(&mut self) {
        self.lsn += 8 * (1 + self.number(40));
        let transaction = TransactionMeta {
            id: TxnId(self.lsn),
            commit_lsn: Lsn(self.lsn),
            commit_time_us: NINE_O_CLOCK + self.lsn as i64 * 1000,
            xid: self.lsn as u32,
        };
        let mut ordinal = 0;
        for _ in 0..=self.number(4) {
            ordinal += 2;
            let (old_key, new, op) = self.change();
            let moved = op == Op::Update && old_key.is_some();
            self.changes.push(Made { transaction, ordinal, op, old_key, new });
            ordinal += u64::from(moved);
        }
        self.past.push((transaction.commit_lsn, transaction.commit_time_us, self.rows.clone()));
    }

    fn change(&mut self) -> (Option<i64>, Option<Sent>, Op) {
        let known: Vec<i64> = self.rows.keys().copied().collect();
        let free = (0..).map(|_| self.number(60) as i64).find(|id| !known.contains(id)).unwrap();
        let text = |source: &mut Self| format!("{:x}", source.number(1 << 40));
        let kind = self.number(100);
        if known.len() < 5 || (kind < 25 && known.len() < 40) {
            let (small, big) = (text(self), text(self));
            self.rows.insert(free, (small.clone(), big.clone()));
            return (None, Some((free, small, Some(big))), Op::Insert);
        }
        let id = known[self.number(known.len() as u64) as usize];
        let small = text(self);
        match kind {
            0..50 => {
                // The large value is not sent.
                self.rows.get_mut(&id).unwrap().0 = small.clone();
                (None, Some((id, small, None)), Op::Update)
            }
            50..60 => {
                let big = text(self);
                self.rows.insert(id, (small.clone(), big.clone()));
                (None, Some((id, small, Some(big))), Op::Update)
            }
            60..80 => {
                let (_, big) = self.rows.remove(&id).unwrap();
                self.rows.insert(free, (small.clone(), big.clone()));
                let sent = (kind >= 75).then_some(big);
                (Some(id), Some((free, small, sent)), Op::Update)
            }
            99 => {
                self.rows.clear();
                (None, None, Op::Truncate)
            }
            _ => {
                self.rows.remove(&id);
                (Some(id), None, Op::Delete)
            }
        }
    }

    /// The changes of `range`, as a batch.
    pub fn batch(&self, range: std::ops::Range<usize>) -> Arc<Batch> {
        let mut builder = BatchBuilder::new(Budget::new(1 << 30));
        for made in &self.changes[range] {
            let old = made.old_key.map(|key| key.to_string());
            let key = made.new.as_ref().map(|(key, _, _)| key.to_string());
            let (mut old_row, mut new_row) = (Vec::new(), Vec::new());
            if let Some(old) = &old {
                Tuple::write([Value::Text(old.as_bytes()), Value::Null, Value::Null], &mut old_row);
            }
            if let (Some((_, small, big)), Some(key)) = (&made.new, &key) {
                let big = big.as_ref().map_or(Value::Unchanged, |big| Value::Text(big.as_bytes()));
                Tuple::write([Value::Text(key.as_bytes()), Value::Text(small.as_bytes()), big], &mut new_row);
            }
            let tuple = |bytes| Tuple::split_from(bytes).unwrap().0;
            let change = NewChange {
                op: made.op,
                ordinal: made.ordinal,
                old: old.is_some().then(|| tuple(&old_row)),
                old_is_full: false,
                new: key.is_some().then(|| tuple(&new_row)),
                key_hash: 0,
                key_changed: made.op == Op::Update && made.old_key.is_some(),
                cascade: false,
                restart_identity: false,
            };
            builder.push(&made.transaction, &self.relation, change);
        }
        Arc::new(builder.cut(false).unwrap())
    }
}
