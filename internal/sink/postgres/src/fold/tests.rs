use super::*;
use proptest::prelude::*;
use replicator_types::{
    BatchBuilder, Budget, Column, ColumnKind, Lsn, NewChange, Relation, ReplicaIdentity, TransactionMeta,
    TxnId, oid,
};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A row of the model: how its key is spelt, and two values, the second of which may stay behind as TOAST.
type Stored = (String, [Option<String>; 2]);

/// Rows by the number that their key is, however spelt.
type Table = BTreeMap<u8, Stored>;

#[derive(Clone, Debug)]
enum Action {
    Insert(u8, u8, [u8; 2]),
    Update { key: u8, first: u8, second: Option<u8>, as_full: bool },
    Delete(u8),
    Move { from: u8, to: u8, spelling: u8, first: u8 },
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        (0..4_u8, 0..3_u8, any::<[u8; 2]>())
            .prop_map(|(key, spelling, values)| Action::Insert(key, spelling, values)),
        (0..4_u8, any::<u8>(), any::<Option<u8>>(), any::<bool>())
            .prop_map(|(key, first, second, as_full)| Action::Update { key, first, second, as_full }),
        (0..4_u8).prop_map(Action::Delete),
        (0..4_u8, 0..4_u8, 0..3_u8, any::<u8>()).prop_map(|(from, to, spelling, first)| Action::Move {
            from,
            to,
            spelling,
            first
        }),
    ]
}

fn spelt(key: u8, spelling: u8) -> String {
    format!("{key}.{}", "0".repeat(spelling.into()))
}

/// 0 stands for NULL.
fn value(n: u8) -> Option<String> {
    (!n.is_multiple_of(4)).then(|| format!("v{n}"))
}

fn relation() -> Arc<Relation> {
    let column = |name: &str, is_key| Column {
        name: name.into(),
        attnum: 0,
        type_oid: oid::NUMERIC,
        base_type_oid: oid::NUMERIC,
        type_modifier: -1,
        kind: ColumnKind::Scalar,
        type_sql: "numeric".into(),
        not_null: false,
        is_key,
        ..Column::default()
    };
    Arc::new(Relation {
        oid: 1,
        version: 0,
        since: replicator_types::Lsn::ZERO,
        schema: "public".into(),
        name: "t".into(),
        replica_identity: ReplicaIdentity::Default,
        columns: vec![column("k", true), column("a", false), column("b", false)],
        key: vec![0],
        key_text_is_identity: false,
        is_guess: false,
    })
}

fn encode(values: &[Value<'_>]) -> Vec<u8> {
    let mut tuple = (values.len() as u16).to_be_bytes().to_vec();
    values.iter().for_each(|value| append(&mut tuple, *value));
    tuple
}

fn of(text: &Option<String>) -> Value<'_> {
    text.as_ref().map_or(Value::Null, |text| Value::Text(text.as_bytes()))
}

/// The source: applies actions to its table and sends what `pgoutput` would.
struct Source {
    table: Table,
    builder: BatchBuilder,
    relation: Arc<Relation>,
    sent: u64,
}

impl Source {
    fn send(
        &mut self,
        op: Op,
        old: Option<&[Value<'_>]>,
        is_full: bool,
        new: Option<&[Value<'_>]>,
        key_changed: bool,
    ) {
        let (old, new) = (old.map(encode), new.map(encode));
        let transaction = TransactionMeta { id: TxnId(1), commit_lsn: Lsn(1), commit_time_us: 0, xid: 1 };
        self.builder.push(
            &transaction,
            &self.relation,
            NewChange {
                op,
                ordinal: self.sent,
                old: old.as_deref().map(Tuple::from_checked),
                old_is_full: is_full,
                new: new.as_deref().map(Tuple::from_checked),
                key_hash: 0,
                key_changed,
                cascade: false,
                restart_identity: false,
            },
        );
        self.sent += 1;
    }

    fn act(&mut self, action: &Action) {
        match action {
            Action::Insert(key, spelling, values) => {
                if self.table.contains_key(key) {
                    return;
                }
                let row = (spelt(*key, *spelling), values.map(value));
                self.send(
                    Op::Insert,
                    None,
                    false,
                    Some(&[Value::Text(row.0.as_bytes()), of(&row.1[0]), of(&row.1[1])]),
                    false,
                );
                self.table.insert(*key, row);
            }
            Action::Update { key, first, second, as_full } => {
                let Some((spelling, before)) = self.table.get(key).cloned() else { return };
                let second_after = second.map_or(before[1].clone(), value);
                let after = [value(*first), second_after];
                let key_value = Value::Text(spelling.as_bytes());
                let sent_second = if second.is_none() { Value::Unchanged } else { of(&after[1]) };
                let old = [key_value, of(&before[0]), of(&before[1])];
                let old = as_full.then_some(&old[..]);
                self.send(Op::Update, old, *as_full, Some(&[key_value, of(&after[0]), sent_second]), false);
                self.table.insert(*key, (spelling.clone(), after));
            }
            Action::Delete(key) => {
                let Some((spelling, _)) = self.table.remove(key) else { return };
                self.send(
                    Op::Delete,
                    Some(&[Value::Text(spelling.as_bytes()), Value::Null, Value::Null]),
                    false,
                    None,
                    false,
                );
            }
            Action::Move { from, to, spelling, first } => {
                let target = spelt(*to, *spelling);
                if from != to && self.table.contains_key(to)
                    || self.table.get(from).is_none_or(|row| row.0 == target)
                {
                    return;
                }
                let Some((before_key, before)) = self.table.remove(from) else { return };
                let row = (target, [value(*first), before[1].clone()]);
                let old = [Value::Text(before_key.as_bytes()), Value::Null, Value::Null];
                let new = [Value::Text(row.0.as_bytes()), of(&row.1[0]), of(&row.1[1])];
                if first.is_multiple_of(2) {
                    self.send(Op::Delete, Some(&old), false, None, false);
                    self.send(Op::Insert, None, false, Some(&new), false);
                } else {
                    self.send(Op::Update, Some(&old), false, Some(&new), true);
                }
                self.table.insert(*to, row);
            }
        }
    }
}

fn number(key: &[u8]) -> u8 {
    key[0] - b'0'
}

fn text(value: Value<'_>) -> Option<String> {
    value.bytes().map(|bytes| String::from_utf8(bytes.to_vec()).unwrap())
}

/// The target: deletes, then everything else.
fn apply(fold: &Fold, batch: &Batch, table: &mut Table) {
    let values = |row: Row| -> Vec<Value<'_>> {
        match row {
            Row::Change(at) => batch.change(at as usize).new_values().collect(),
            Row::Merged { start, end } => fold.merged_row(start, end).values().collect(),
        }
    };
    for (key, _) in fold.outcomes().filter(|(_, outcome)| *outcome == Outcome::Delete) {
        table.remove(&number(key.value(0).bytes().unwrap()));
    }
    for (key, outcome) in fold.outcomes() {
        let number = number(key.value(0).bytes().unwrap());
        match outcome {
            Outcome::Delete => {}
            Outcome::Partial(_) | Outcome::Trimmed(_) => {
                let row = match outcome {
                    Outcome::Partial(row) => values(row),
                    Outcome::Trimmed(at) => batch.change(at as usize).new.unwrap().values().collect(),
                    _ => unreachable!(),
                };
                let stored = table.get_mut(&number).expect("an update in part finds its row");
                for (place, value) in row[1..].iter().enumerate() {
                    if *value != Value::Unchanged {
                        stored.1[place] = text(*value);
                    }
                }
            }
            Outcome::Insert(row) | Outcome::Upsert(row) => {
                let row = values(row);
                assert!(!row.contains(&Value::Unchanged), "a whole row is whole");
                let new = (text(row[0]).unwrap(), [text(row[1]), text(row[2])]);
                let before = table.insert(number, new);
                assert!(before.is_none() || matches!(outcome, Outcome::Upsert(_)), "an insert meets no row");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn folded_changes_come_to_what_the_source_has(
        before in prop::collection::vec(action(), 0..10),
        actions in prop::collection::vec(action(), 1..30),
    ) {
        let builder = BatchBuilder::new(Budget::new(1 << 30));
        let mut source = Source { table: Table::new(), builder, relation: relation(), sent: 0 };
        before.iter().for_each(|action| source.act(action));
        source.builder.cut(false);
        let mut target = source.table.clone();
        actions.iter().for_each(|action| source.act(action));
        if let Some(batch) = source.builder.cut(false) {
            let mut fold = Fold::default();
            (0..batch.len()).for_each(|at| fold.add(&batch, at as u32).unwrap());
            apply(&fold, &batch, &mut target);
            prop_assert_eq!(fold.orphans(), 0);
        }
        prop_assert_eq!(target, source.table);
    }
}

fn source() -> Source {
    let builder = BatchBuilder::new(Budget::new(1 << 30));
    Source { table: Table::new(), builder, relation: relation(), sent: 0 }
}

fn folded(mut source: Source) -> (Fold, Batch) {
    let batch = source.builder.cut(false).unwrap();
    let mut fold = Fold::default();
    (0..batch.len()).for_each(|at| fold.add(&batch, at as u32).unwrap());
    (fold, batch)
}

#[test]
fn an_earlier_whole_row_fills_an_unchanged_value() {
    let mut source = source();
    source.act(&Action::Insert(1, 0, [1, 2]));
    source.act(&Action::Update { key: 1, first: 3, second: None, as_full: false });
    source.act(&Action::Update { key: 1, first: 5, second: None, as_full: false });
    let (fold, _batch) = folded(source);
    let [(_, Outcome::Insert(Row::Merged { start, end }))] = fold.outcomes().collect::<Vec<_>>()[..] else {
        panic!()
    };
    let values: Vec<_> = fold.merged_row(start, end).values().collect();
    assert_eq!(values, [Value::Text(b"1."), Value::Text(b"v5"), Value::Text(b"v2")]);
}

#[test]
fn an_update_in_part_after_a_delete_is_counted_and_dropped() {
    let mut source = source();
    let key = Value::Text(b"1.");
    source.send(Op::Delete, Some(&[key, Value::Null, Value::Null]), false, None, false);
    source.send(Op::Update, None, false, Some(&[key, Value::Text(b"x"), Value::Unchanged]), false);
    let (fold, _batch) = folded(source);
    assert_eq!(fold.orphans(), 1);
    assert!(matches!(fold.outcomes().collect::<Vec<_>>()[..], [(_, Outcome::Delete)]));
}

#[test]
fn a_value_that_only_the_old_row_has_is_not_written_by_a_single_update_and_is_by_several() {
    let mut source = source();
    let (key, big) = (Value::Text(b"1."), Value::Text(b"big"));
    let old = [key, Value::Null, big];
    source.send(Op::Update, Some(&old), true, Some(&[key, Value::Text(b"x"), Value::Unchanged]), false);
    let (fold, batch) = folded(source);
    assert!(matches!(fold.outcomes().collect::<Vec<_>>()[..], [(_, Outcome::Trimmed(0))]));
    assert_eq!(batch.change(0).new_values().last(), Some(big));

    let mut source = self::source();
    source.send(Op::Update, Some(&old), true, Some(&[key, Value::Null, Value::Text(b"y")]), false);
    let old = [key, Value::Null, Value::Text(b"y")];
    source.send(Op::Update, Some(&old), true, Some(&[key, Value::Text(b"x"), Value::Unchanged]), false);
    let (fold, _batch) = folded(source);
    assert!(matches!(fold.outcomes().collect::<Vec<_>>()[..], [(_, Outcome::Upsert(Row::Change(1)))]));
}

#[test]
fn a_change_without_its_key_is_an_error() {
    let mut source = source();
    source.send(Op::Delete, None, false, None, false);
    source.send(Op::Insert, None, false, Some(&[Value::Null, Value::Null, Value::Null]), false);
    let batch = source.builder.cut(false).unwrap();
    let mut fold = Fold::default();
    assert_eq!(fold.add(&batch, 0), Err(KeyError::Missing));
    assert_eq!(fold.add(&batch, 1), Err(KeyError::Missing));
    assert_eq!(fold.outcomes().count(), 0);
}

#[test]
fn a_batch_of_many_keys_keeps_each() {
    let mut source = source();
    for n in 0..5_000 {
        let key = n.to_string();
        source.send(
            Op::Insert,
            None,
            false,
            Some(&[Value::Text(key.as_bytes()), Value::Null, Value::Null]),
            false,
        );
    }
    let (fold, _batch) = folded(source);
    let keys: std::collections::BTreeSet<_> =
        fold.outcomes().map(|(key, _)| text(key.value(0)).unwrap()).collect();
    assert_eq!(keys.len(), 5_000);
}
