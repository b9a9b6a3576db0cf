//! What the pipeline makes of a stream: which lanes get what, in which order, and what may be acknowledged.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on may panic")]

use replicator_model::wire;

use bytes::Bytes;
use replicator_config::TablePatterns;
use replicator_pipeline::{BatchLimits, LaneId, Output, Pipeline, PipelineError, Route};
use replicator_sink::KeyChanges;
use replicator_types::{Budget, Op, TxnId, Value, oid};
use std::time::{Duration, Instant};
use wire::{Text, UNCHANGED, Wire, lsn};

const T: u32 = 100;
const INTERVAL: Duration = Duration::from_secs(1);

fn route(name: &str, shards: u32, key_changes: KeyChanges) -> Route {
    let limits = BatchLimits { rows_max: 1000, bytes_max: 1 << 20, interval: INTERVAL };
    Route {
        name: name.into(),
        tables: TablePatterns::default(),
        shards,
        limits,
        key_changes,
        takes_late_changes: false,
        messages: false,
    }
}

fn state(shards: u32) -> Vec<Route> {
    vec![route("state", shards, KeyChanges::Split)]
}

fn pipeline(routes: Vec<Route>) -> Pipeline {
    Pipeline::new(routes, lsn(0), &Budget::new(1 << 20))
}

/// `k` is the key, `v` a value.
fn table(wire: Wire) -> Wire {
    wire.relation(T, "t", b'd', &[("k", oid::INT8, true), ("v", oid::TEXT, false)])
}

fn feed(pipeline: &mut Pipeline, wire: Wire) {
    pipeline.chunk(Bytes::from(wire.bytes), Vec::new(), Instant::now()).unwrap();
}

/// A change as a lane sees it: operation, LSN and ordinal, old key, new values.
type Seen = (Op, u64, u64, Option<String>, Option<String>);

fn show(value: &Value<'_>) -> String {
    match value {
        Value::Null => "NULL".into(),
        Value::Unchanged => "UNCHANGED".into(),
        Value::Text(bytes) | Value::Binary(bytes) => String::from_utf8_lossy(bytes).into_owned(),
    }
}

/// All that was handed out since the last call: lane, whether by a fence, changes.
fn outputs(pipeline: &mut Pipeline) -> Vec<(LaneId, bool, Vec<Seen>, Vec<TxnId>)> {
    let outputs = pipeline.take_outputs();
    let read = |output: Output| {
        let (lane, fenced, batch) = match output {
            Output::Batch(lane, batch) => (lane, false, batch),
            Output::Fence(lane, batch) => (lane, true, batch),
        };
        assert_eq!(batch.is_fenced(), fenced);
        let seen = batch.changes().map(|change| {
            let old = change
                .old_key_values()
                .map(|key| key.map(|value| show(&value)).collect::<Vec<_>>().join(","));
            let new = change
                .new
                .map(|_| change.new_values().map(|value| show(&value)).collect::<Vec<_>>().join(","));
            (change.op, change.position.commit_lsn.0, change.position.ordinal, old, new)
        });
        (
            lane,
            fenced,
            seen.collect(),
            batch.transactions().iter().map(|transaction| transaction.id).collect(),
        )
    };
    outputs.into_iter().map(read).collect()
}

fn flushed(pipeline: &mut Pipeline) -> Vec<(LaneId, bool, Vec<Seen>, Vec<TxnId>)> {
    pipeline.flush();
    outputs(pipeline)
}

fn some(text: &str) -> Option<String> {
    Some(text.to_owned())
}

#[test]
fn changes_of_one_key_reach_one_lane_in_order() {
    let mut pipeline = pipeline(state(4));
    let mut wire = table(Wire::new().begin(10));
    for (key, value) in [("1", "a"), ("2", "a"), ("1", "b"), ("3", "a"), ("2", "b"), ("1", "c")] {
        let row: [Text; 2] = [Some(key), Some(value)];
        wire = if value == "a" { wire.insert(T, &row) } else { wire.update(T, None, &row) };
    }
    feed(&mut pipeline, wire.delete(T, b'K', &[Some("1"), None]).commit(10));
    let mut of_key_1 = Vec::new();
    let mut lanes = Vec::new();
    for (lane, _, changes, _) in flushed(&mut pipeline) {
        for (op, _, ordinal, old, new) in changes {
            if old.as_deref() == Some("1") || new.as_deref().is_some_and(|new| new.starts_with("1,")) {
                of_key_1.push((op, ordinal));
                lanes.push(lane);
            }
        }
    }
    assert_eq!(of_key_1, [(Op::Insert, 0), (Op::Update, 2), (Op::Update, 5), (Op::Delete, 6)]);
    assert!(lanes.iter().all(|lane| *lane == lanes[0]));
}

#[test]
fn a_key_update_is_a_delete_of_the_old_key_and_an_insert_of_the_new_row() {
    let mut pipeline = pipeline(state(1));
    let old: [Text; 2] = [Some("1"), None];
    let wire = table(Wire::new().begin(10))
        .update(T, Some((b'K', &old)), &[Some("2"), Some("v")])
        .insert(T, &[Some("9"), None])
        .commit(10);
    feed(&mut pipeline, wire);
    let out = flushed(&mut pipeline);
    assert_eq!(
        out[0].2,
        [
            (Op::Delete, 10, 0, some("1"), None),
            (Op::Insert, 10, 1, None, some("2,v")),
            (Op::Insert, 10, 2, None, some("9,NULL")),
        ]
    );
}

#[test]
fn a_swap_of_two_keys_in_one_transaction_leaves_each_key_with_its_last_row() {
    // 1 -> 3, 2 -> 1, 3 -> 2, over several lanes: what each key's lane sees last is what the source has.
    for shards in 1..=5 {
        let mut pipeline = pipeline(state(shards));
        let mut wire = table(Wire::new().begin(10));
        for (from, to, value) in [("1", "3", "a"), ("2", "1", "b"), ("3", "2", "a")] {
            let old: [Text; 2] = [Some(from), None];
            wire = wire.update(T, Some((b'K', &old)), &[Some(to), Some(value)]);
        }
        feed(&mut pipeline, wire.commit(10));
        let mut last = std::collections::BTreeMap::new();
        for (_, _, changes, _) in flushed(&mut pipeline) {
            for (_, _, ordinal, old, new) in changes {
                let key = old.unwrap_or_else(|| new.clone().unwrap()[..1].to_owned());
                let newest = last.entry(key).or_insert((ordinal, new.clone()));
                assert!(newest.0 <= ordinal, "a lane went back");
                *newest = (ordinal, new);
            }
        }
        let rows: Vec<_> = last.into_iter().map(|(key, (_, row))| (key, row)).collect();
        assert_eq!(rows, [("1".into(), some("1,b")), ("2".into(), some("2,a")), ("3".into(), None)]);
    }
}

#[test]
fn a_key_update_with_a_value_only_the_sink_has_is_fenced_and_whole() {
    let mut pipeline = pipeline(state(3));
    let old: [Text; 2] = [Some("1"), None];
    let wire = table(Wire::new().begin(10))
        .insert(T, &[Some("1"), Some("big")])
        .update(T, Some((b'K', &old)), &[Some("2"), UNCHANGED])
        .insert(T, &[Some("1"), Some("new")])
        .commit(10);
    feed(&mut pipeline, wire);
    let out = flushed(&mut pipeline);
    let fences: Vec<_> = out.iter().map(|(_, fenced, changes, _)| (*fenced, changes.len())).collect();
    assert_eq!(fences, [(false, 1), (true, 1), (false, 1)]);
    assert_eq!(out[1].2, [(Op::Update, 10, 1, some("1"), some("2,UNCHANGED"))]);
    assert_eq!(out[2].2[0].2, 3, "the key change took two ordinals");
}

/// Moves of the key `from` to the key `to`, with a value that only the sink has.
fn moves(wire: Wire, keys: &[(&str, &str)]) -> Wire {
    keys.iter().fold(wire, |wire, (from, to)| {
        wire.update(T, Some((b'K', &[Some(*from), None] as &[Text])), &[Some(*to), UNCHANGED])
    })
}

#[test]
fn key_updates_that_follow_each_other_share_a_fence_unless_a_row_of_one_is_a_row_of_another() {
    let sizes = |keys: &[(&str, &str)]| -> Vec<(bool, usize)> {
        let mut pipeline = pipeline(state(1));
        feed(&mut pipeline, moves(table(Wire::new().begin(10)), keys).commit(10));
        flushed(&mut pipeline).iter().map(|(_, fenced, changes, _)| (*fenced, changes.len())).collect()
    };
    assert_eq!(sizes(&[("1", "11"), ("2", "12"), ("3", "13")]), [(true, 3)]);
    assert_eq!(sizes(&[("1", "2"), ("2", "3")]), [(true, 1), (true, 1)], "moved on");
    assert_eq!(
        sizes(&[("2", "3"), ("1", "2"), ("5", "6")]),
        [(true, 1), (true, 2)],
        "moved to a place just left"
    );
}

#[test]
fn each_of_the_key_updates_that_go_together_goes_to_the_shard_of_its_new_key() {
    let keys: Vec<(String, String)> =
        (0..40).map(|key| (key.to_string(), format!("{}", key + 100))).collect();
    let keys: Vec<(&str, &str)> = keys.iter().map(|(from, to)| (from.as_str(), to.as_str())).collect();
    let mut pipeline = pipeline(state(3));
    let inserts = keys
        .iter()
        .fold(table(Wire::new().begin(10)), |wire, (_, to)| wire.insert(T, &[Some(*to), Some("v")]));
    feed(&mut pipeline, inserts.commit(10));
    let lanes_of = |out: Vec<(LaneId, bool, Vec<Seen>, Vec<TxnId>)>,
                    unwanted: &str|
     -> Vec<(String, LaneId)> {
        let mut lanes = Vec::new();
        for (lane, _, changes, _) in out {
            lanes.extend(changes.into_iter().map(|change| (change.4.unwrap().replace(unwanted, ""), lane)));
        }
        lanes.sort_by(|one, other| one.0.cmp(&other.0));
        lanes
    };
    let wanted = lanes_of(flushed(&mut pipeline), ",v");
    feed(&mut pipeline, moves(Wire::new().begin(20), &keys).commit(20));
    let out = flushed(&mut pipeline);
    assert!(out.len() == 3 && out.iter().all(|(_, fenced, ..)| *fenced), "a fence for each shard: {out:?}");
    assert_eq!(lanes_of(out, ",UNCHANGED"), wanted);
}

#[test]
fn whatever_comes_behind_key_updates_that_share_a_fence_goes_behind_it() {
    let mut pipeline = pipeline(state(1));
    let wire = moves(table(Wire::new().begin(10)), &[("1", "11"), ("2", "12")]).commit(10);
    feed(&mut pipeline, wire);
    assert!(outputs(&mut pipeline).is_empty(), "more may come");
    feed(&mut pipeline, Wire::new().begin(20).insert(T, &[Some("7"), Some("new")]));
    let fences = |out: &[(LaneId, bool, Vec<Seen>, Vec<TxnId>)]| -> Vec<(bool, usize)> {
        out.iter().map(|(_, fenced, changes, _)| (*fenced, changes.len())).collect()
    };
    assert_eq!(fences(&outputs(&mut pipeline)), [(true, 2)]);
    feed(&mut pipeline, moves(Wire::new(), &[("3", "13")]).truncate(&[T]).commit(20));
    assert_eq!(fences(&outputs(&mut pipeline)), [(false, 1), (true, 1), (true, 1)]);
    feed(&mut pipeline, moves(Wire::new().begin(30), &[("4", "14")]).commit(30));
    let due = pipeline.due().unwrap();
    pipeline.tick(due);
    assert_eq!(fences(&outputs(&mut pipeline)), [(true, 1)], "they do not wait longer than others");
    let keys: Vec<(String, String)> = (0..1500).map(|key| (key.to_string(), format!("1{key:04}"))).collect();
    let keys: Vec<(&str, &str)> = keys.iter().map(|(from, to)| (from.as_str(), to.as_str())).collect();
    feed(&mut pipeline, moves(Wire::new().begin(40), &keys).commit(40));
    assert_eq!(fences(&flushed(&mut pipeline)), [(true, 1000), (true, 500)], "as large as other batches");
}

#[test]
fn a_log_of_several_lanes_is_fenced_too_where_a_value_lies_in_another_lane() {
    let mut pipeline = pipeline(vec![route("history", 3, KeyChanges::Whole)]);
    let old: [Text; 2] = [Some("1"), None];
    let wire = table(Wire::new().begin(10)).insert(T, &[Some("1"), Some("big")]);
    feed(&mut pipeline, wire.update(T, Some((b'K', &old)), &[Some("2"), UNCHANGED]).commit(10));
    let fences: Vec<_> =
        flushed(&mut pipeline).iter().map(|(_, fenced, changes, _)| (*fenced, changes.len())).collect();
    assert_eq!(fences, [(false, 1), (true, 1)]);
}

#[test]
fn positions_under_full_do_not_depend_on_what_the_catalog_calls_the_key() {
    let old: [Text; 2] = [Some("1"), Some("a")];
    let mut positions = Vec::new();
    // The same bytes, once with the first column known as the key and once without any key.
    for identity in [b'i', b'f'] {
        let mut pipeline = pipeline(state(1));
        let wire = Wire::new()
            .relation(T, "t", identity, &[("k", oid::INT8, true), ("v", oid::TEXT, false)])
            .begin(10)
            .update(T, Some((b'O', &old)), &[Some("1"), Some("b")])
            .insert(T, &[Some("9"), None])
            .commit(10);
        feed(&mut pipeline, wire);
        positions.push(flushed(&mut pipeline)[0].2.last().map(|change| change.2));
    }
    assert_eq!(positions, [Some(2), Some(2)]);
}

#[test]
fn a_full_old_row_supplies_what_was_not_sent_so_no_fence_is_needed() {
    let mut pipeline = pipeline(state(3));
    let old: [Text; 2] = [Some("1"), Some("big")];
    let mut catalog = Wire::new();
    catalog = catalog.relation(T, "t", b'i', &[("k", oid::INT8, true), ("v", oid::TEXT, false)]);
    let wire = catalog
        .begin(10)
        .update(T, Some((b'O', &old)), &[Some("2"), UNCHANGED])
        .update(T, Some((b'O', &[Some("2"), Some("big")])), &[Some("2"), Some("small")])
        .commit(10);
    feed(&mut pipeline, wire);
    let mut changes: Vec<_> = flushed(&mut pipeline)
        .into_iter()
        .flat_map(|(_, fenced, changes, _)| {
            assert!(!fenced);
            changes
        })
        .collect();
    changes.sort_by_key(|change| change.2);
    assert_eq!(changes[0], (Op::Delete, 10, 0, some("1"), None));
    assert_eq!((changes[1].0, changes[1].4.clone()), (Op::Insert, some("2,big")));
    assert_eq!(
        changes[2],
        (Op::Update, 10, 2, None, some("2,small")),
        "an old row that is not needed stays behind"
    );
}

#[test]
fn a_log_gets_each_change_as_it_came() {
    let mut pipeline = pipeline(vec![route("log", 1, KeyChanges::Whole)]);
    let old: [Text; 2] = [Some("1"), None];
    let wire =
        table(Wire::new().begin(10)).update(T, Some((b'K', &old)), &[Some("2"), UNCHANGED]).truncate(&[T]);
    feed(&mut pipeline, wire.commit(10));
    let changes: Vec<_> = flushed(&mut pipeline).into_iter().flat_map(|(_, _, changes, _)| changes).collect();
    assert_eq!(changes[0], (Op::Update, 10, 0, some("1"), some("2,UNCHANGED")));
    assert_eq!(changes[1], (Op::Truncate, 10, 2, None, None));
}

#[test]
fn a_truncate_is_fenced_between_what_came_before_and_after() {
    let mut pipeline = pipeline(state(2));
    let wire = table(Wire::new())
        .relation(T + 1, "u", b'd', &[("k", oid::INT8, true)])
        .begin(10)
        .insert(T, &[Some("1"), None])
        .truncate(&[T, T + 1])
        .insert(T, &[Some("1"), None])
        .commit(10);
    feed(&mut pipeline, wire);
    let out = flushed(&mut pipeline);
    let shape: Vec<_> = out.iter().map(|(_, fenced, changes, _)| (*fenced, changes.len())).collect();
    assert_eq!(shape, [(false, 1), (true, 2), (false, 1)]);
    assert_eq!(out[2].2[0].2, 3);
}

#[test]
fn rows_of_a_table_without_a_key_go_by_their_whole_content() {
    let mut pipeline = pipeline(state(4));
    let row: [Text; 2] = [Some("same"), None];
    let wire = Wire::new()
        .relation(T, "t", b'f', &[("a", oid::TEXT, true), ("b", oid::TEXT, true)])
        .begin(10)
        .insert(T, &row)
        .insert(T, &row)
        .update(T, Some((b'O', &row)), &[Some("other"), None])
        .delete(T, b'O', &row)
        .commit(10);
    feed(&mut pipeline, wire);
    let mut of_row = Vec::new();
    for (lane, _, changes, _) in flushed(&mut pipeline) {
        for (op, _, ordinal, _, new) in changes {
            if new.as_deref() != Some("other,NULL") {
                of_row.push((lane, op, ordinal));
            }
        }
    }
    let ops: Vec<_> = of_row.iter().map(|(_, op, ordinal)| (*op, *ordinal)).collect();
    assert_eq!(ops, [(Op::Insert, 0), (Op::Insert, 1), (Op::Delete, 2), (Op::Delete, 4)]);
    assert!(of_row.iter().all(|(lane, ..)| *lane == of_row[0].0));
}

#[test]
fn an_update_without_a_key_is_refused_with_the_remedy() {
    let mut pipeline = pipeline(state(1));
    let wire = Wire::new().relation(T, "t", b'n', &[("a", oid::TEXT, false)]).begin(10).update(
        T,
        None,
        &[Some("x")],
    );
    let error = pipeline.chunk(Bytes::from(wire.bytes), Vec::new(), Instant::now()).unwrap_err();
    assert!(error.to_string().contains("public.t REPLICA IDENTITY FULL"), "{error}");
}

#[test]
fn keys_that_are_equal_though_spelled_differently_share_a_lane() {
    let mut pipeline = pipeline(state(8));
    let mut wire = Wire::new().relation(T, "t", b'd', &[("n", oid::NUMERIC, true)]).begin(10);
    for key in ["1", "1.0", "1.00", "2", "3", "4", "5"] {
        wire = wire.insert(T, &[Some(key)]);
    }
    feed(&mut pipeline, wire.commit(10));
    assert_eq!(flushed(&mut pipeline).len(), 1);
}

#[test]
fn each_sink_gets_its_tables_and_no_other() {
    let mut only_u = route("u", 1, KeyChanges::Split);
    only_u.tables = TablePatterns(vec!["public.u".into()]);
    let mut pipeline = pipeline(vec![route("all", 1, KeyChanges::Split), only_u]);
    let wire = table(Wire::new().begin(10)).insert(T, &[Some("1"), None]);
    feed(
        &mut pipeline,
        wire.relation(T + 1, "u", b'd', &[("k", oid::INT8, true)]).insert(T + 1, &[Some("1")]).commit(10),
    );
    let counts: Vec<_> =
        flushed(&mut pipeline).iter().map(|(lane, _, changes, _)| (lane.sink, changes.len())).collect();
    assert_eq!(counts, [(0, 2), (1, 1)]);
}

#[test]
fn a_batch_is_cut_by_rows_by_bytes_or_by_age() {
    let mut by_rows = route("rows", 1, KeyChanges::Split);
    by_rows.limits.rows_max = 2;
    let mut by_bytes = route("bytes", 1, KeyChanges::Split);
    by_bytes.limits.bytes_max = 60;
    let mut pipeline = pipeline(vec![by_rows, by_bytes, route("age", 1, KeyChanges::Split)]);
    let start = Instant::now();
    let wire = table(Wire::new().begin(10));
    let wire = (0..4).fold(wire, |wire, _| wire.insert(T, &[Some("12345678"), Some("12345678")]));
    pipeline.chunk(Bytes::from(wire.bytes), Vec::new(), start).unwrap();
    let cut: Vec<_> =
        outputs(&mut pipeline).iter().map(|(lane, _, changes, _)| (lane.sink, changes.len())).collect();
    assert_eq!(cut, [(0, 2), (1, 3), (0, 2)], "28 bytes a row");
    assert_eq!(pipeline.due(), Some(start + INTERVAL));
    pipeline.tick(start + INTERVAL - Duration::from_millis(1));
    assert!(outputs(&mut pipeline).is_empty());
    pipeline.tick(start + INTERVAL);
    let cut: Vec<_> =
        outputs(&mut pipeline).iter().map(|(lane, _, changes, _)| (lane.sink, changes.len())).collect();
    assert_eq!(cut, [(1, 1), (2, 4)]);
    assert_eq!(pipeline.due(), None);
}

#[test]
fn nothing_is_acknowledged_before_every_sink_has_all_of_the_transaction() {
    let mut pipeline = pipeline(vec![route("a", 1, KeyChanges::Split), route("b", 1, KeyChanges::Split)]);
    feed(&mut pipeline, table(Wire::new().begin(10)).insert(T, &[Some("1"), None]));
    let first = flushed(&mut pipeline);
    feed(&mut pipeline, Wire::new().insert(T, &[Some("2"), None]).commit(10).keepalive(50));
    let second = flushed(&mut pipeline);
    let batches: Vec<_> = first.into_iter().chain(second).collect();
    assert_eq!(batches.len(), 4);
    for (_, _, _, transactions) in batches {
        assert_eq!(pipeline.watermark(), lsn(0));
        pipeline.durable(transactions);
    }
    assert_eq!(pipeline.watermark(), lsn(50));
}

#[test]
fn a_logical_message_inside_a_transaction_does_not_complete_it() {
    let mut pipeline = pipeline(state(1));
    feed(
        &mut pipeline,
        table(Wire::new().begin(10)).insert(T, &[Some("1"), None]).logical("x").keepalive(99),
    );
    for (_, _, _, transactions) in flushed(&mut pipeline) {
        pipeline.durable(transactions);
    }
    assert_eq!(pipeline.watermark(), lsn(0));
    feed(&mut pipeline, Wire::new().commit(10));
    assert_eq!(pipeline.watermark(), lsn(18), "the commit's end, not its start");
}

#[test]
fn rows_of_one_copy_have_each_a_position_of_its_own() {
    let mut pipeline = pipeline(state(1));
    let wire = table(Wire::new().begin(10));
    feed(&mut pipeline, (0..5).fold(wire, |wire, _| wire.insert(T, &[Some("1"), None])).commit(10));
    let positions: Vec<_> = flushed(&mut pipeline)[0].2.iter().map(|change| (change.1, change.2)).collect();
    assert_eq!(positions, [(10, 0), (10, 1), (10, 2), (10, 3), (10, 4)]);
}

#[test]
fn after_a_reconnect_what_was_handed_out_is_passed_over() {
    let mut pipeline = pipeline(state(1));
    let whole = table(Wire::new().begin(10)).insert(T, &[Some("1"), None]).commit(10);
    let old: [Text; 2] = [Some("1"), None];
    let key_change = |wire: Wire| wire.update(T, Some((b'K', &old)), &[Some("2"), None]);
    let part = key_change(Wire::new().begin(30)).truncate(&[T]);
    feed(&mut pipeline, whole.clone());
    feed(&mut pipeline, part);
    let before = flushed(&mut pipeline);
    pipeline.reconnected();
    feed(&mut pipeline, whole);
    feed(
        &mut pipeline,
        key_change(Wire::new().keepalive(20).begin(30))
            .truncate(&[T])
            .insert(T, &[Some("7"), None])
            .commit(30),
    );
    let after = flushed(&mut pipeline);
    let seen: Vec<_> = after.iter().flat_map(|(_, _, changes, _)| changes.clone()).collect();
    assert_eq!(seen, [(Op::Insert, 30, 3, None, some("7,NULL"))]);
    for (_, _, _, transactions) in before.into_iter().chain(after) {
        assert!(pipeline.watermark() < lsn(38));
        pipeline.durable(transactions);
    }
    assert_eq!(pipeline.watermark(), lsn(38));
}

#[test]
fn a_keepalive_after_a_reconnect_acknowledges_nothing_of_a_transaction_that_was_cut_off() {
    let mut pipeline = pipeline(state(1));
    feed(&mut pipeline, table(Wire::new().begin(30)).insert(T, &[Some("1"), None]));
    for (_, _, _, transactions) in flushed(&mut pipeline) {
        pipeline.durable(transactions);
    }
    pipeline.reconnected();
    feed(&mut pipeline, Wire::new().keepalive(99));
    assert_eq!(pipeline.watermark(), lsn(0));
}

#[test]
fn a_source_that_lost_a_transaction_under_way_is_not_followed_silently() {
    let mut pipeline = pipeline(state(1));
    feed(&mut pipeline, table(Wire::new().begin(30)).insert(T, &[Some("1"), None]));
    pipeline.reconnected();
    let wire = Wire::new().begin(40);
    let error = pipeline.chunk(Bytes::from(wire.bytes), Vec::new(), Instant::now()).unwrap_err();
    assert_eq!(error, PipelineError::LostTransaction { expected: lsn(30), found: lsn(40) });
}

#[test]
fn a_change_of_a_table_that_was_not_described_is_an_error() {
    let mut pipeline = pipeline(state(1));
    let wire = Wire::new().begin(10).insert(T, &[Some("1")]);
    let error = pipeline.chunk(Bytes::from(wire.bytes), Vec::new(), Instant::now()).unwrap_err();
    assert_eq!(error, PipelineError::UnknownRelation(T));
}

#[test]
fn open_batches_are_charged_to_the_budget() {
    let budget = Budget::new(1 << 20);
    let mut pipeline = Pipeline::new(state(1), lsn(0), &budget);
    feed(&mut pipeline, table(Wire::new().begin(10)).insert(T, &[Some("1"), Some("0123456789")]).commit(10));
    assert!(budget.held() > 10);
    drop({
        pipeline.flush();
        pipeline.take_outputs()
    });
    assert_eq!(budget.held(), 0);
}
