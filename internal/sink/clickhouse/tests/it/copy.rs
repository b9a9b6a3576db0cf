use crate::support::Cell::{N, T, U};
use crate::support::*;
use replicator_config::{ByteSize, Secret};
use replicator_sink::{Lane, Sink, Write};
use replicator_types::{Batch, Column, Op, Relation, oid};
use std::sync::Arc;

const ROWS: &str = "SELECT id, state, note FROM {db}.orders FINAL ORDER BY id";

fn rows<'a>(ids: &[&'a str], state: &'a str) -> Vec<Vec<crate::support::Cell<'a>>> {
    ids.iter().map(|id| vec![T(id), T(state), T("long")]).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_made_after_the_snapshot_wins_whichever_of_the_two_is_written_first() {
    let fixture = Fixture::new();
    let orders = orders();
    for copied_first in [true, false] {
        let (sink, stream) = fixture.run(&[&orders]).await;
        assert!(sink.begin_copy(&copy_of(&orders, 1000, true)).await.unwrap());
        assert_eq!(fixture.query(ROWS), "", "it was asked to forget");
        let mut copy = sink.open_copy_lane(0, &stream).await.unwrap();
        let mut lane = sink.open_lane(0, &stream).await.unwrap();
        let copied = copied(&orders, 1000, 0, &rows(&["1", "2", "3"], "copied"));
        // The snapshot has what was committed before it, and lacks what was committed at it or behind.
        let changes = caught_up(&[
            insert(&orders, (992, 0), &[T("2"), T("before"), N]),
            delete(&orders, (992, 1), &[T("3"), N, N]),
            update(&orders, (1000, 0), &[T("1"), T("after"), N]),
            delete(&orders, (1008, 0), &[T("3"), N, N]),
            insert(&orders, (1008, 1), &[T("4"), T("after"), N]),
        ]);
        if copied_first {
            write(&mut copy, copied).await;
            write(&mut lane, changes).await;
        } else {
            write(&mut lane, changes).await;
            write(&mut copy, copied).await;
        }
        sink.end_copy(&copy_of(&orders, 1000, true)).await.unwrap();
        assert_eq!(fixture.query(ROWS), "1\tafter\t\\N\n2\tcopied\tlong\n4\tafter\t\\N", "{copied_first}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_that_an_update_did_not_send_is_taken_from_the_copied_row() {
    let fixture = Fixture::new();
    let orders = orders();
    let (sink, stream) = fixture.run(&[&orders]).await;
    sink.begin_copy(&copy_of(&orders, 1000, false)).await.unwrap();
    let mut copy = sink.open_copy_lane(0, &stream).await.unwrap();
    write(&mut copy, copied(&orders, 1000, 0, &rows(&["1", "2"], "copied"))).await;
    let mut lane = sink.open_lane(0, &stream).await.unwrap();
    write(&mut lane, caught_up(&[update(&orders, (1000, 0), &[T("1"), T("after"), U])])).await;
    assert_eq!(fixture.query(ROWS), "1\tafter\tlong\n2\tcopied\tlong");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_begun_anew_after_a_crash_loses_no_row_to_the_memory_of_tokens() {
    let fixture = Fixture::new();
    let orders = orders();
    for _ in 0..2 {
        // The same rows at the same positions, in the same batch.
        let (sink, stream) = fixture.run(&[&orders]).await;
        sink.begin_copy(&copy_of(&orders, 1000, true)).await.unwrap();
        let mut copy = sink.open_copy_lane(0, &stream).await.unwrap();
        write(&mut copy, copied(&orders, 1000, 0, &rows(&["1", "2"], "copied"))).await;
        assert_eq!(fixture.query(ROWS), "1\tcopied\tlong\n2\tcopied\tlong");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_history_has_each_copied_row_once_however_its_copy_is_repeated() {
    let fixture = Fixture::history();
    let orders = orders();
    let ids = ["1", "2", "3", "4", "5", "6"];
    // Batches come in no order, and are cut otherwise in each run.
    for parts in [vec![3..5, 0..1], vec![4..6, 1..4, 0..1], vec![0..6, 2..3]] {
        let (sink, stream) = fixture.run(&[&orders]).await;
        sink.begin_copy(&copy_of(&orders, 1000, true)).await.unwrap();
        for (number, part) in (0..).zip(parts) {
            let mut copy = sink.open_copy_lane(number, &stream).await.unwrap();
            write(&mut copy, copied(&orders, 1000, part.start as u64, &rows(&ids[part], "copied"))).await;
        }
        let mut lane = sink.open_lane(0, &stream).await.unwrap();
        write(&mut lane, caught_up(&[update(&orders, (992, 0), &[T("1"), T("before"), T("x")])])).await;
        write(&mut lane, caught_up(&[update(&orders, (1000, 0), &[T("1"), T("after"), U])])).await;
    }
    assert_eq!(
        fixture.query("SELECT id, state, note, _op FROM {db}.orders ORDER BY _version"),
        "1\tbefore\tx\tupdate\n0\t\\N\t\\N\ttruncate\n1\tcopied\tlong\tread\n2\tcopied\tlong\tread\n3\tcopied\tlong\tread\n\
         4\tcopied\tlong\tread\n5\tcopied\tlong\tread\n6\tcopied\tlong\tread\n1\tafter\tlong\tupdate"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_history_made_before_copies_were_calls_copied_rows_inserts() {
    let fixture = Fixture::history();
    let orders = orders();
    fixture.query("CREATE DATABASE {db}");
    fixture.query(
        "CREATE TABLE {db}.orders (id Int64, state Nullable(String), note Nullable(String), _version UInt128, \
         _op Enum8('insert' = 1, 'update' = 2, 'delete' = 3, 'truncate' = 4), _commit_time DateTime64(6, 'UTC')) \
         ENGINE = MergeTree ORDER BY (id, _version)",
    );
    let (sink, stream) = fixture.run(&[&orders]).await;
    sink.begin_copy(&copy_of(&orders, 1000, false)).await.unwrap();
    let mut copy = sink.open_copy_lane(0, &stream).await.unwrap();
    write(&mut copy, copied(&orders, 1000, 0, &rows(&["1"], "copied"))).await;
    assert_eq!(fixture.query("SELECT id, _op FROM {db}.orders"), "1\tinsert");
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_a_table_without_a_key_are_copied_once_each_and_an_update_is_still_refused() {
    let fixture = Fixture::new();
    let log = Arc::new(table("log", vec![column("n", oid::INT4)]));
    let (sink, stream) = fixture.run(&[&log]).await;
    assert!(sink.begin_copy(&copy_of(&log, 1000, false)).await.unwrap(), "it is empty");
    let mut copy = sink.open_copy_lane(0, &stream).await.unwrap();
    for _ in 0..2 {
        write(&mut copy, copied(&log, 1000, 0, &[vec![T("7")], vec![T("7")]])).await;
    }
    assert!(!sink.begin_copy(&copy_of(&log, 2000, false)).await.unwrap());
    let mut lane = sink.open_lane(0, &stream).await.unwrap();
    let update = fenced(&[update(&log, (2000, 0), &[T("8")])]);
    let error = try_write(&mut lane, update).await.unwrap_err();
    assert!(error.to_string().contains("public.log") && error.to_string().contains("primary key"), "{error}");
    assert_eq!(fixture.query("SELECT n FROM {db}.log FINAL"), "7\n7");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_copied_again_may_have_any_shape_and_changes_of_older_shapes_are_in_the_copy() {
    let fixture = Fixture::new();
    let before = Arc::new(table(
        "t",
        vec![key("id", oid::INT8), column("at", oid::TIMESTAMPTZ), column("b", oid::TEXT)],
    ));
    let (sink, stream) = fixture.run(&[&before]).await;
    let mut lane: Box<dyn Lane> = sink.open_lane(0, &stream).await.unwrap();
    write(&mut lane, batch(&[insert(&before, (10, 0), &[T("1"), T("2024-01-01 00:00:00+00"), T("x")])]))
        .await;
    // Another key, a type that the old one cannot be changed to, a dropped column.
    let numbered = |attnum, column: Column| Column { attnum, ..column };
    let after = altered(
        &before,
        900,
        vec![
            key("code", oid::TEXT),
            numbered(2, column("at", oid::INT4)),
            numbered(1, column("id", oid::INT8)),
        ],
    );
    let after: Arc<Relation> = Arc::new(Relation {
        columns: after
            .columns
            .iter()
            .map(|column| numbered(if column.name == "code" { 9 } else { column.attnum }, column.clone()))
            .collect(),
        ..(*after).clone()
    });
    for _ in 0..2 {
        sink.begin_copy(&copy_of(&after, 1000, true)).await.unwrap();
        let mut copy = sink.open_copy_lane(0, &stream).await.unwrap();
        write(&mut copy, copied(&after, 1000, 0, &[vec![T("k"), T("7"), T("1")]])).await;
        assert_eq!(fixture.query("SELECT code, at, id FROM {db}.t_current"), "k\t7\t1");
    }
    // Changes from before the snapshot, of a version with another key.
    let old = [T("1"), T("2024-01-01 00:00:00+00"), T("y")];
    write(&mut lane, caught_up(&[event(&before, Op::Truncate, (15, 0))])).await;
    write(&mut lane, caught_up(&[update(&before, (16, 0), &old), delete(&before, (17, 0), &old)])).await;
    announce(&mut lane, &after, (1000, 0)).await;
    assert_eq!(fixture.query("SELECT code, at, id FROM {db}.t_current"), "k\t7\t1");
    write(&mut lane, fenced(&[event(&after, Op::Truncate, (1000, 0))])).await;
    assert_eq!(fixture.query("SELECT count() FROM {db}.t"), "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_truncate_from_before_the_snapshot_takes_none_of_the_copied_rows() {
    let fixture = Fixture::new();
    let orders = orders();
    let (sink, stream) = fixture.run(&[&orders]).await;
    let mut lane = sink.open_lane(0, &stream).await.unwrap();
    write(&mut lane, batch(&[insert(&orders, (800, 0), &[T("9"), T("old"), N])])).await;
    sink.begin_copy(&copy_of(&orders, 1000, false)).await.unwrap();
    let mut copy = sink.open_copy_lane(0, &stream).await.unwrap();
    write(&mut copy, copied(&orders, 1000, 0, &rows(&["1", "2"], "copied"))).await;
    let mut truncate =
        lane.prepare(Arc::new(caught_up(&[event(&orders, Op::Truncate, (992, 0))]))).await.unwrap();
    truncate.send().await.unwrap();
    truncate.send().await.unwrap();
    assert_eq!(fixture.query(ROWS), "1\tcopied\tlong\n2\tcopied\tlong");
    write(&mut lane, fenced(&[event(&orders, Op::Truncate, (1000, 0))])).await;
    assert_eq!(fixture.query(ROWS), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn older_values_that_a_table_made_anew_for_its_copy_has_no_room_for_are_left_out() {
    let fixture = Fixture::new();
    let before = Arc::new(table("t", vec![key("id", oid::INT8), column("at", oid::TIMESTAMPTZ)]));
    let (sink, stream) = fixture.run(&[&before]).await;
    let mut lane = sink.open_lane(0, &stream).await.unwrap();
    let after = altered(&before, 900, vec![key("id", oid::INT8), column("at", oid::INT4)]);
    sink.begin_copy(&copy_of(&after, 1000, true)).await.unwrap();
    let mut copy = sink.open_copy_lane(0, &stream).await.unwrap();
    write(&mut copy, copied(&after, 1000, 0, &[vec![T("1"), T("7")]])).await;
    write(&mut lane, caught_up(&[update(&before, (16, 0), &[T("1"), T("2024-01-01 00:00:00+00")])])).await;
    announce(&mut lane, &after, (1000, 0)).await;
    write(&mut lane, caught_up(&[insert(&after, (1000, 0), &[T("2"), T("8")])])).await;
    assert_eq!(fixture.query("SELECT id, at FROM {db}.t_current ORDER BY id"), "1\t7\n2\t8");
}

/// The write of the first batch, which the others have joined.
async fn joined(lane: &mut Box<dyn Lane>, batches: impl IntoIterator<Item = Batch>) -> Box<dyn Write> {
    let mut batches = batches.into_iter();
    let mut write = lane.prepare(Arc::new(batches.next().unwrap())).await.unwrap();
    for batch in batches {
        let held = write.held_bytes();
        let next = lane.prepare(Arc::new(batch)).await.unwrap();
        assert!(!write.is_full() && write.join(next).is_ok() && write.held_bytes() > held);
    }
    write
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_of_copied_rows_that_have_joined_make_one_part_and_only_once() {
    let mut fixture = Fixture::new();
    // Whatever the server would cut by itself.
    let url = format!("{}/?min_insert_block_size_rows=1&min_insert_block_size_bytes=1", server().url());
    fixture.config.url = Secret::new(url);
    let (orders, log) = (orders(), Arc::new(table("log", vec![column("n", oid::INT4)])));
    let (sink, stream) = fixture.run(&[&orders, &log]).await;
    sink.begin_copy(&copy_of(&orders, 1000, false)).await.unwrap();
    sink.begin_copy(&copy_of(&log, 1000, false)).await.unwrap();
    // A lost answer has another request say the same; without a key nothing but its token tells that it is known.
    for _ in 0..2 {
        let mut lane = sink.open_copy_lane(0, &stream).await.unwrap();
        let of_log = [0, 2, 4].map(|first| copied(&log, 1000, first, &[vec![T("7")], vec![T("7")]]));
        joined(&mut lane, of_log).await.send().await.unwrap();
        let of_orders = ["1", "2"].map(|id| copied(&orders, 1000, 0, &rows(&[id], "copied")));
        joined(&mut lane, of_orders).await.send().await.unwrap();
    }
    let found = "SELECT count(), sum(n), uniqExact(_part), uniqExact(_version) FROM {db}.log";
    assert_eq!(fixture.query(found), "6\t42\t1\t6");
    assert_eq!(fixture.query(ROWS), "1\tcopied\tlong\n2\tcopied\tlong");
}

#[tokio::test(flavor = "multi_thread")]
async fn copied_rows_join_those_of_their_table_up_to_a_size_and_nothing_of_the_stream() {
    let mut fixture = Fixture::new();
    let (orders, log) = (orders(), Arc::new(table("log", vec![column("n", oid::INT4)])));
    let (sink, stream) = fixture.run(&[&orders, &log]).await;
    let mut lane = sink.open_copy_lane(0, &stream).await.unwrap();
    let of_orders = |first: u64| Arc::new(copied(&orders, 1000, first, &rows(&["1"], "copied")));
    let mut write = lane.prepare(of_orders(0)).await.unwrap();
    let of_log = lane.prepare(Arc::new(copied(&log, 1000, 0, &[vec![T("7")]]))).await.unwrap();
    assert!(write.join(of_log).is_err(), "another table's");
    let streamed = Arc::new(batch(&[insert(&orders, (1008, 0), &[T("9"), T("new"), N])]));
    let mut stream_lane = sink.open_lane(0, &stream).await.unwrap();
    let streamed = stream_lane.prepare(streamed).await.unwrap();
    assert!(streamed.is_full(), "changes of the stream do not wait");
    assert!(write.join(streamed).is_err());
    // Each has an entry in the table's memory of tokens, which is not endless.
    for first in 1..64 {
        assert!(!write.is_full(), "{first}");
        assert!(write.join(lane.prepare(of_orders(first)).await.unwrap()).is_ok(), "{first}");
    }
    assert!(write.is_full() && write.join(lane.prepare(of_orders(64)).await.unwrap()).is_err());

    fixture.config.copy_insert_bytes_max = ByteSize(0);
    let (sink, stream) = fixture.run(&[&orders, &log]).await;
    let mut lane = sink.open_copy_lane(0, &stream).await.unwrap();
    let mut write = lane.prepare(of_orders(0)).await.unwrap();
    assert!(write.is_full() && write.join(lane.prepare(of_orders(1)).await.unwrap()).is_err());
}
