use crate::{Budget, Charge, Position, Relation, Tuple, Value};
use std::sync::Arc;

/// What happened to a row or a table.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Op {
    /// A new row.
    Insert,
    /// A row's new values; also of a row whose key changed, where the sink asked for such updates whole
    /// or where they could not be split.
    Update,
    /// A row's end.
    Delete,
    /// A table emptied. Consecutive truncates of one transaction were one statement.
    Truncate,
    /// From here on the table looks as the change's relation says. No row comes with it. Always fenced; a sink
    /// brings its table into that shape, unless it has met this version or a later one before
    /// ([`Relation::since`]). Its position is that of the change behind it.
    Schema,
    /// From here on the table's changes wait, and those of other tables go ahead of them. Always fenced, in
    /// [`Phase::CatchUp`]. It is for whoever keeps notes about that: what a sink holds is not concerned.
    Apart,
    /// A logical message (`pg_logical_emit_message`). `new` has the columns of [`Relation::message`].
    Message,
}

/// On which of the ways into a sink a batch comes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Phase {
    /// The stream: positions never go down from batch to batch of a lane within a run.
    #[default]
    Stream,
    /// The stream's changes of a table that was being copied, handed on when the copy is durable. They come in
    /// order, through the lane of their key and before its later changes, but other tables' changes have gone
    /// ahead, and after a crash all of them may come again. So a lane neither leaves them out because it has got
    /// further, nor counts them as having got there. Changes older than a copied row come too: an update whose
    /// row is absent, or an insert whose row is present, is normal here, and the last one wins.
    CatchUp,
    /// Rows of an initial copy: inserts of one table, in no order with anything. The position is that of the
    /// snapshot ([`Position::copied`]).
    Copy {
        /// Nothing of the table was in the sink before this copy, and no part of it was sent before: a row whose
        /// key is there already can only come from an earlier try of the same batch. Otherwise rows replace what
        /// has their key.
        fresh: bool,
    },
}

/// Number of a transaction within one run of the process, in delivery order. The checkpoint counts by it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct TxnId(pub u64);

/// What a change's transaction is known by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TransactionMeta {
    /// Number within this run.
    pub id: TxnId,
    /// Start of the commit record.
    pub commit_lsn: crate::Lsn,
    /// Commit time, microseconds since 2000-01-01 UTC, by the source's clock.
    pub commit_time_us: i64,
    /// The source's transaction id.
    pub xid: u32,
}

/// A run of changes for one lane (one shard of one sink), in stream order.
///
/// All row bytes lie in one buffer; an entry holds offsets into it. Nothing is allocated per row.
#[derive(Debug)]
pub struct Batch {
    data: Vec<u8>,
    entries: Vec<Entry>,
    relations: Vec<Arc<Relation>>,
    transactions: Vec<TransactionMeta>,
    phase: Phase,
    /// Whether it was cut because the stream has to stand still around it: every lane of the sink is
    /// durable up to here, and none goes on before this batch is durable.
    fenced: bool,
    charge: Charge,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    key_hash: u64,
    ordinal: u64,
    start: u32,
    old_length: u32,
    new_length: u32,
    transaction: u32,
    relation: u16,
    op: Op,
    flags: u8,
}

const OLD_IS_FULL: u8 = 1;
const UNRESOLVED: u8 = 2;
const KEY_CHANGED: u8 = 4;
const CASCADE: u8 = 8;
const RESTART_IDENTITY: u8 = 16;

/// A change on its way into a batch: what [`BatchBuilder::push`] copies.
#[derive(Clone, Copy, Debug)]
pub struct NewChange<'a> {
    /// What happened.
    pub op: Op,
    /// Number within the transaction.
    pub ordinal: u64,
    /// The row before: its key (under identity default or index) or all of it (full).
    pub old: Option<Tuple<'a>>,
    /// Whether `old` has all columns rather than the key's.
    pub old_is_full: bool,
    /// The row after.
    pub new: Option<Tuple<'a>>,
    /// Hash of the key that decided the shard.
    pub key_hash: u64,
    /// Whether it is an update under which the key changed.
    pub key_changed: bool,
    /// TRUNCATE … CASCADE.
    pub cascade: bool,
    /// TRUNCATE … RESTART IDENTITY.
    pub restart_identity: bool,
}

impl NewChange<'static> {
    /// A change with which no row comes: a truncate, or one that only tells something of its table.
    pub fn without_row(op: Op, ordinal: u64) -> Self {
        Self {
            op,
            ordinal,
            old: None,
            old_is_full: false,
            new: None,
            key_hash: 0,
            key_changed: false,
            cascade: false,
            restart_identity: false,
        }
    }
}

/// One change, seen in a batch.
#[derive(Clone, Copy, Debug)]
pub struct Change<'a> {
    /// What happened.
    pub op: Op,
    /// Its place in the stream.
    pub position: Position,
    /// The table, at the schema version of the change.
    pub relation: &'a Arc<Relation>,
    /// Index of `relation` among [`Batch::relations`].
    pub relation_index: usize,
    /// Its transaction.
    pub transaction: &'a TransactionMeta,
    /// The row before, where the source sent it. Columns outside the key are NULL unless `old_is_full`.
    pub old: Option<Tuple<'a>>,
    /// Whether `old` has all columns.
    pub old_is_full: bool,
    /// The row after; none for deletes and truncates. Prefer [`Change::new_values`], which fills in
    /// unchanged TOAST values that `old` has.
    pub new: Option<Tuple<'a>>,
    /// Hash of the key that decided the shard.
    pub key_hash: u64,
    /// Whether `new` has unchanged TOAST values that `old` does not have: only the sink knows them.
    pub unresolved: bool,
    /// Whether it is an update under which the key changed: `old` has the old key.
    pub key_changed: bool,
    /// TRUNCATE … CASCADE.
    pub cascade: bool,
    /// TRUNCATE … RESTART IDENTITY.
    pub restart_identity: bool,
}

impl<'a> Change<'a> {
    /// The new row's values in column order, unchanged TOAST values taken from a full old row. What is
    /// still [`Value::Unchanged`] afterwards is so because nobody but the sink has it.
    pub fn new_values(&self) -> impl Iterator<Item = Value<'a>> + use<'a> {
        let mut old = self.old.filter(|_| self.old_is_full).map(Tuple::values);
        self.new.map(Tuple::values).into_iter().flatten().map(move |value| {
            let before = old.as_mut().and_then(Iterator::next);
            match (value, before) {
                (Value::Unchanged, Some(before)) => before,
                (value, _) => value,
            }
        })
    }

    /// The key after the change (before it, for a delete).
    pub fn key_values(&self) -> impl Iterator<Item = Value<'a>> {
        let relation: &'a Relation = self.relation;
        let tuple = if self.op == Op::Delete { self.old } else { self.new };
        let fallback = self.old;
        tuple.into_iter().flat_map(move |tuple| {
            let mut other = fallback.map(Tuple::values);
            tuple.values().zip(relation.columns.iter()).filter_map(move |(value, column)| {
                let before = other.as_mut().and_then(Iterator::next);
                let value = if value == Value::Unchanged { before.unwrap_or(value) } else { value };
                column.is_key.then_some(value)
            })
        })
    }

    /// The key before the change, where the source sent it.
    pub fn old_key_values(&self) -> Option<impl Iterator<Item = Value<'a>>> {
        let relation: &'a Relation = self.relation;
        self.old.map(|old| old.key_values(relation))
    }
}

impl Batch {
    /// The changes in stream order.
    pub fn changes(&self) -> impl ExactSizeIterator<Item = Change<'_>> {
        (0..self.entries.len()).map(|index| self.change(index))
    }

    /// One change.
    ///
    /// # Panics
    /// When `index` is not below [`Batch::len`].
    pub fn change(&self, index: usize) -> Change<'_> {
        let entry = &self.entries[index];
        let transaction = &self.transactions[entry.transaction as usize];
        let start = entry.start as usize;
        let middle = start + entry.old_length as usize;
        let end = middle + entry.new_length as usize;
        let tuple = |from: usize, to: usize| (from < to).then(|| Tuple::from_checked(&self.data[from..to]));
        let flag = |bit: u8| entry.flags & bit != 0;
        Change {
            op: entry.op,
            position: Position { commit_lsn: transaction.commit_lsn, ordinal: entry.ordinal },
            relation: &self.relations[usize::from(entry.relation)],
            relation_index: usize::from(entry.relation),
            transaction,
            old: tuple(start, middle),
            old_is_full: flag(OLD_IS_FULL),
            new: tuple(middle, end),
            key_hash: entry.key_hash,
            unresolved: flag(UNRESOLVED),
            key_changed: flag(KEY_CHANGED),
            cascade: flag(CASCADE),
            restart_identity: flag(RESTART_IDENTITY),
        }
    }

    /// Number of changes.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether it holds no change. Lanes never get an empty batch.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The distinct table versions that its changes refer to.
    pub fn relations(&self) -> &[Arc<Relation>] {
        &self.relations
    }

    /// The transactions that its changes are of, in order, each once.
    pub fn transactions(&self) -> &[TransactionMeta] {
        &self.transactions
    }

    /// Position of the first change.
    pub fn first_position(&self) -> Option<Position> {
        (!self.is_empty()).then(|| self.change(0).position)
    }

    /// Position of the last change.
    pub fn last_position(&self) -> Option<Position> {
        self.len().checked_sub(1).map(|last| self.change(last).position)
    }

    /// On which way it comes.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// Whether nothing of the sink is in flight before or beside it.
    pub fn is_fenced(&self) -> bool {
        self.fenced
    }

    /// Bytes of row data.
    pub fn data_bytes(&self) -> usize {
        self.data.len()
    }

    /// Bytes that it holds against the process' budget.
    pub fn charged_bytes(&self) -> usize {
        self.charge.bytes()
    }

    /// Gives up the rows but keeps their charge adjusted to `bytes`: for a sink that has turned them
    /// into a request body of that size.
    pub fn into_charge(self, bytes: usize) -> Charge {
        let mut charge = self.charge;
        charge.set(bytes);
        charge
    }

    /// A charge of `bytes` more, for what a sink has made of the rows while others have them still.
    pub fn charge_beside(&self, bytes: usize) -> Charge {
        self.charge.beside(bytes)
    }
}

/// Fills a batch. Kept by the batcher, one a lane; a cut leaves it empty and ready for the next.
#[derive(Debug)]
pub struct BatchBuilder {
    budget: Budget,
    phase: Phase,
    batch: Option<Batch>,
    /// What the last batch came to, so that the next does not grow step by step.
    last_data_bytes: usize,
    last_entries: usize,
}

impl BatchBuilder {
    /// A builder whose batches are charged to `budget`.
    pub fn new(budget: Budget) -> Self {
        Self::of_phase(budget, Phase::Stream)
    }

    /// A builder of batches that come on that way.
    pub fn of_phase(budget: Budget, phase: Phase) -> Self {
        Self { budget, phase, batch: None, last_data_bytes: 0, last_entries: 0 }
    }

    /// Adds a change of `transaction` to `relation`. Positions must not go down from call to call.
    /// Returns whether it is the transaction's first change in this batch: a new fragment.
    pub fn push(
        &mut self,
        transaction: &TransactionMeta,
        relation: &Arc<Relation>,
        change: NewChange<'_>,
    ) -> bool {
        let (batch, new_fragment, relation_index) = self.open(transaction, relation);
        let start = batch.data.len();
        let old = change.old.map_or(&[][..], Tuple::as_bytes);
        let new = change.new.map_or(&[][..], Tuple::as_bytes);
        batch.data.extend_from_slice(old);
        batch.data.extend_from_slice(new);
        let unresolved = !change.old_is_full && change.new.is_some_and(Tuple::has_unchanged);
        let flag = |set: bool, bit: u8| if set { bit } else { 0 };
        batch.entries.push(Entry {
            key_hash: change.key_hash,
            ordinal: change.ordinal,
            start: start as u32,
            old_length: old.len() as u32,
            new_length: new.len() as u32,
            transaction: (batch.transactions.len() - 1) as u32,
            relation: relation_index as u16,
            op: change.op,
            flags: flag(change.old_is_full, OLD_IS_FULL)
                | flag(unresolved, UNRESOLVED)
                | flag(change.key_changed, KEY_CHANGED)
                | flag(change.cascade, CASCADE)
                | flag(change.restart_identity, RESTART_IDENTITY),
        });
        new_fragment
    }

    /// Adds an inserted row whose tuple `write` appends to the buffer it is given, in the shape of [`Tuple`] and
    /// without unchanged values: for rows that are made on the way, so that they are not copied twice. Their key
    /// hash is 0. Returns as [`BatchBuilder::push`] does.
    ///
    /// # Errors
    /// That of `write`; the row is then not in the batch.
    #[inline]
    pub fn push_row_with<E>(
        &mut self,
        transaction: &TransactionMeta,
        relation: &Arc<Relation>,
        ordinal: u64,
        write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
    ) -> Result<bool, E> {
        let (batch, new_fragment, relation_index) = self.open(transaction, relation);
        let start = batch.data.len();
        if let Err(error) = write(&mut batch.data) {
            batch.data.truncate(start);
            return Err(error);
        }
        batch.entries.push(Entry {
            key_hash: 0,
            ordinal,
            start: start as u32,
            old_length: 0,
            new_length: batch.data.len().saturating_sub(start) as u32,
            transaction: (batch.transactions.len() - 1) as u32,
            relation: relation_index as u16,
            op: Op::Insert,
            flags: 0,
        });
        Ok(new_fragment)
    }

    /// The open batch, with `transaction` as its last and `relation` among its relations; whether the transaction
    /// is new in it, and the relation's index.
    #[inline]
    fn open(&mut self, transaction: &TransactionMeta, relation: &Arc<Relation>) -> (&mut Batch, bool, usize) {
        let batch = self.batch.get_or_insert_with(|| Batch {
            data: Vec::with_capacity(self.last_data_bytes),
            entries: Vec::with_capacity(self.last_entries),
            relations: Vec::new(),
            transactions: Vec::new(),
            phase: self.phase,
            fenced: false,
            charge: self.budget.charge(0),
        });
        // Those of a group share an id.
        let is_same =
            |last: &TransactionMeta| last.id == transaction.id && last.commit_lsn == transaction.commit_lsn;
        let new_fragment = !batch.transactions.last().is_some_and(is_same);
        if new_fragment {
            batch.transactions.push(*transaction);
        }
        // Batches mostly hold few relations, and the last one is mostly the same as this one.
        let relation_index = match batch.relations.iter().rposition(|known| Arc::ptr_eq(known, relation)) {
            Some(index) => index,
            None => {
                batch.relations.push(Arc::clone(relation));
                batch.relations.len() - 1
            }
        };
        (batch, new_fragment, relation_index)
    }

    /// Brings the charge up to what the open batch holds. Done once a chunk rather than once a change.
    pub fn settle_charge(&mut self) {
        if let Some(batch) = &mut self.batch {
            let bytes = batch.data.capacity()
                + batch.entries.capacity() * size_of::<Entry>()
                + batch.transactions.capacity() * size_of::<TransactionMeta>();
            batch.charge.set(bytes);
        }
    }

    /// Changes in the open batch.
    pub fn len(&self) -> usize {
        self.batch.as_ref().map_or(0, Batch::len)
    }

    /// Whether nothing was pushed since the last cut.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Row bytes in the open batch.
    pub fn data_bytes(&self) -> usize {
        self.batch.as_ref().map_or(0, Batch::data_bytes)
    }

    /// Distinct relations in the open batch.
    pub fn relation_count(&self) -> usize {
        self.batch.as_ref().map_or(0, |batch| batch.relations.len())
    }

    /// Takes the open batch, if it holds anything.
    pub fn cut(&mut self, fenced: bool) -> Option<Batch> {
        self.settle_charge();
        let mut batch = self.batch.take()?;
        self.last_data_bytes = batch.data.len();
        self.last_entries = batch.entries.len();
        batch.fenced = fenced;
        Some(batch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Column, ColumnKind, Lsn, ReplicaIdentity};

    fn relation() -> Arc<Relation> {
        let column = |name: &str, is_key| Column {
            name: name.into(),
            attnum: 1,
            type_oid: crate::oid::TEXT,
            base_type_oid: crate::oid::TEXT,
            type_modifier: -1,
            kind: ColumnKind::Scalar,
            type_sql: "text".into(),
            not_null: false,
            is_key,
            ..Column::default()
        };
        Arc::new(Relation {
            oid: 1,
            version: 0,
            since: crate::Lsn::ZERO,
            schema: "public".into(),
            name: "t".into(),
            replica_identity: ReplicaIdentity::Full,
            columns: vec![column("k", true), column("v", false)],
            key: vec![0],
            key_text_is_identity: true,
            is_guess: false,
        })
    }

    fn change(op: Op) -> NewChange<'static> {
        NewChange { key_hash: 5, ..NewChange::without_row(op, 0) }
    }

    fn meta(id: u64) -> TransactionMeta {
        TransactionMeta { id: TxnId(id), commit_lsn: Lsn(100 + id), commit_time_us: 0, xid: 1 }
    }

    #[test]
    fn a_full_old_row_fills_in_what_was_not_sent() {
        let old = b"\0\x02t\0\0\0\x01kt\0\0\0\x03big";
        let new = b"\0\x02t\0\0\0\x01ku";
        let mut builder = BatchBuilder::new(Budget::new(1 << 20));
        let relation = relation();
        for old_is_full in [true, false] {
            let old = Some(Tuple::from_checked(old));
            let new = Some(Tuple::from_checked(new));
            builder.push(&meta(1), &relation, NewChange { old, old_is_full, new, ..change(Op::Update) });
        }
        let batch = builder.cut(false).unwrap();
        let values = |index: usize| batch.change(index).new_values().collect::<Vec<_>>();
        assert_eq!(values(0), [Value::Text(b"k"), Value::Text(b"big")]);
        assert!(!batch.change(0).unresolved);
        assert_eq!(values(1), [Value::Text(b"k"), Value::Unchanged]);
        assert!(batch.change(1).unresolved);
        assert_eq!(batch.change(0).key_values().collect::<Vec<_>>(), [Value::Text(b"k")]);
    }

    #[test]
    fn a_transaction_is_one_fragment_a_batch() {
        let mut builder = BatchBuilder::new(Budget::new(1 << 20));
        let relation = relation();
        assert!(builder.push(&meta(1), &relation, change(Op::Truncate)));
        assert!(!builder.push(&meta(1), &relation, change(Op::Truncate)));
        assert!(builder.push(&meta(2), &relation, change(Op::Truncate)));
        let batch = builder.cut(true).unwrap();
        assert_eq!(batch.transactions().iter().map(|t| t.id.0).collect::<Vec<_>>(), [1, 2]);
        assert!(batch.is_fenced());
        assert!(builder.cut(false).is_none());
        assert!(builder.push(&meta(2), &relation, change(Op::Truncate)), "a new batch is a new fragment");
    }

    #[test]
    fn a_row_that_cannot_be_made_leaves_nothing_behind() {
        let mut builder = BatchBuilder::new(Budget::new(1 << 20));
        let relation = relation();
        let made = builder.push_row_with(&meta(1), &relation, 7, |out| {
            out.extend_from_slice(b"\0\x02t\0\0\0\x01kn");
            Ok::<(), ()>(())
        });
        assert_eq!(made, Ok(true));
        let failed = builder.push_row_with(&meta(1), &relation, 8, |out| {
            out.extend_from_slice(b"\0\x02t");
            Err("cut off")
        });
        assert_eq!(failed, Err("cut off"));
        let batch = builder.cut(false).unwrap();
        let change = batch.change(0);
        assert_eq!((batch.len(), change.op, change.position.ordinal), (1, Op::Insert, 7));
        assert_eq!(change.new_values().collect::<Vec<_>>(), [Value::Text(b"k"), Value::Null]);
        assert_eq!(batch.data_bytes(), 9);
    }

    #[test]
    fn a_batch_is_charged_until_it_is_dropped() {
        let budget = Budget::new(1 << 20);
        let mut builder = BatchBuilder::new(budget.clone());
        builder.push(&meta(1), &relation(), change(Op::Truncate));
        let batch = builder.cut(false).unwrap();
        assert!(budget.held() > 0);
        let (held, beside) = (budget.held(), batch.charge_beside(100));
        assert_eq!(budget.held(), held + 100);
        drop(beside);
        let charge = batch.into_charge(77);
        assert_eq!(budget.held(), 77);
        drop(charge);
        assert_eq!(budget.held(), 0);
    }
}
