//! Transactions that are sent before they commit: in pieces, or prepared.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on may panic")]

mod run;
use replicator_model::wire;

use bytes::Bytes;
use replicator_pipeline::PipelineError;
use replicator_spill::Shelf;
use run::{LOG, Run, STATE, T, pipeline, t, u, wide_t};
use std::time::Instant;
use wire::{UNCHANGED, Wire};

/// Xids are 7 for the transaction that matters, 8 for the one beside it; subtransactions are 71, 72.
fn insert(wire: Wire, key: &str) -> Wire {
    wire.insert(T, &[Some(key), None])
}

fn whole(wire: Wire, commit_lsn: u64, key: &str) -> Wire {
    insert(wire.begin(commit_lsn), key).commit(commit_lsn)
}

fn prepared(wire: Wire, prepare_lsn: u64, key: &str) -> Wire {
    insert(wire.begin_prepare(7, "g", prepare_lsn), key).prepare(7, "g", prepare_lsn)
}

#[test]
fn a_streamed_transaction_takes_its_place_in_commit_order_as_if_sent_whole() {
    let old = [Some("1"), None];
    let changes = |wire: Wire| {
        insert(t(wire), "1").update(T, Some((b'K', &old)), &[Some("2"), Some("v")]).logical("hello")
    };
    let mut sent_whole = Run::new();
    sent_whole.feed(whole(t(Wire::new()), 10, "5"));
    sent_whole.feed(insert(changes(Wire::new().begin(30)), "3").truncate(&[T]).commit(30));
    sent_whole.feed(whole(Wire::new(), 50, "6"));

    let mut streamed = Run::new();
    streamed.feed(Wire::new().block(7, true, changes));
    streamed.feed(whole(t(Wire::new()), 10, "5"));
    assert_eq!(streamed.lines(LOG), ["insert t 10+0 5,NULL"], "nothing of it before its commit");
    streamed.feed(Wire::new().block(7, false, |wire| insert(wire, "3").truncate(&[T])));
    streamed.feed(whole(Wire::new().stream_commit(7, 30), 50, "6"));
    for sink in [STATE, LOG] {
        let (mut expected, mut seen) = (sent_whole.lines(sink), streamed.lines(sink));
        expected.retain(|line| !line.contains(" 10+"));
        seen.retain(|line| !line.contains(" 10+"));
        assert_eq!(seen, expected);
        assert_eq!(seen.last().unwrap(), "insert t 50+0 6,NULL");
    }
    streamed.durable();
    assert_eq!(streamed.watermark(), 58);
}

#[test]
fn two_streamed_transactions_whose_blocks_alternate_come_out_one_after_the_other() {
    let mut run = Run::new();
    run.feed(
        Wire::new().block(7, true, |wire| insert(t(wire), "1")).block(8, true, |wire| insert(t(wire), "2")),
    );
    run.feed(Wire::new().block(7, false, |wire| insert(wire, "3")).block(8, false, |wire| insert(wire, "4")));
    run.feed(Wire::new().stream_commit(8, 20).stream_commit(7, 40));
    let expected =
        ["insert t 20+0 2,NULL", "insert t 20+1 4,NULL", "insert t 40+0 1,NULL", "insert t 40+1 3,NULL"];
    assert_eq!(run.lines(STATE), expected);
    assert_eq!(run.pipeline.unfinished(), 0);
}

#[test]
fn an_aborted_subtransaction_leaves_nothing_not_even_what_it_made_of_the_table() {
    let mut run = Run::new();
    run.feed(Wire::new().block(7, true, |wire| {
        let altered = wide_t(insert(t(wire), "1").within(71));
        altered.insert(T, &[Some("2"), None, Some("w")]).within(72).insert(T, &[Some("3"), None, Some("w")])
    }));
    run.feed(Wire::new().stream_abort(7, 72).stream_abort(7, 71));
    run.feed(Wire::new().block(7, false, |wire| insert(t(wire), "4")).stream_commit(7, 30));
    assert_eq!(run.lines(STATE), ["insert t 30+0 1,NULL", "insert t 30+1 4,NULL"]);
    assert!(run.told().is_empty(), "the table was never told to be wide");
}

#[test]
fn an_aborted_transaction_leaves_nothing_and_its_number_may_be_used_again() {
    let mut run = Run::new();
    run.feed(Wire::new().block(7, true, |wire| insert(t(wire), "1")).stream_abort(7, 7));
    assert_eq!(run.pipeline.unfinished(), 0);
    run.feed(Wire::new().block(7, true, |wire| insert(t(wire), "2")).stream_commit(7, 30));
    assert_eq!(run.lines(STATE), ["insert t 30+0 2,NULL"]);
}

#[test]
fn a_transaction_all_of_which_was_undone_is_acknowledged_all_the_same() {
    let mut run = Run::new();
    run.feed(Wire::new().block(7, true, |wire| insert(t(wire).within(71), "1")).stream_abort(7, 71));
    run.feed(Wire::new().stream_commit(7, 30));
    assert!(run.lines(STATE).is_empty());
    assert_eq!(run.watermark(), 38);
}

#[test]
fn a_keepalive_between_the_blocks_is_acknowledged() {
    let mut run = Run::new();
    run.feed(Wire::new().block(7, true, |wire| insert(t(wire), "1")).keepalive(20));
    assert_eq!(
        run.watermark(),
        20,
        "the transaction comes again from its beginning whatever was acknowledged"
    );
}

#[test]
fn after_a_reconnect_a_streamed_transaction_comes_again_from_its_beginning_and_once() {
    for cut in 0..3 {
        let blocks = [
            Wire::new().block(7, true, |wire| insert(t(wire), "1")),
            Wire::new().block(7, false, |wire| insert(wire, "2")),
            Wire::new().stream_commit(7, 30),
        ];
        let mut run = Run::new();
        blocks[..=cut].iter().for_each(|wire| run.feed(wire.clone()));
        run.pipeline.reconnected();
        blocks.iter().for_each(|wire| run.feed(wire.clone()));
        assert_eq!(run.lines(STATE), ["insert t 30+0 1,NULL", "insert t 30+1 2,NULL"], "cut behind {cut}");
    }
}

#[test]
fn a_transaction_that_was_streamed_may_come_whole_after_a_reconnect_and_the_other_way_round() {
    let mut run = Run::new();
    run.feed(insert(t(Wire::new().begin(10)), "1"));
    run.pipeline.reconnected();
    run.feed(Wire::new().block(7, true, |wire| insert(insert(t(wire), "1"), "2")).stream_commit(7, 10));
    run.feed(Wire::new().block(8, true, |wire| insert(t(wire), "3")));
    run.pipeline.reconnected();
    run.feed(whole(t(Wire::new()), 30, "3"));
    assert_eq!(run.lines(STATE), ["insert t 10+0 1,NULL", "insert t 10+1 2,NULL", "insert t 30+0 3,NULL"]);
}

#[test]
fn a_large_transaction_is_handed_on_in_steps_and_what_came_behind_it_afterwards() {
    let folder = std::env::temp_dir();
    for shelf in [Shelf::in_memory(), Shelf::new(&folder, 0)] {
        let mut run = Run::of(pipeline(0).with_shelf(shelf.clone()));
        let value = "x".repeat(1000);
        let rows = 3000;
        let block = Wire::new().block(7, true, |wire| {
            (0..rows).fold(t(wire), |wire, _| wire.insert(T, &[Some("1"), Some(&value)]))
        });
        run.feed(block);
        assert!(shelf.memory_bytes() + shelf.file_bytes() > 3_000_000);
        let behind = whole(Wire::new().stream_commit(7, 30), 50, "9").keepalive(60);
        run.pipeline.chunk(Bytes::from(behind.bytes), Vec::new(), Instant::now()).unwrap();
        let mut steps = 0;
        let mut seen = Vec::new();
        while run.pipeline.is_busy() {
            run.pipeline.work(Instant::now()).unwrap();
            let lines = run.lines(STATE);
            assert!(lines.len() < 700, "{} rows in one step", lines.len());
            assert_eq!(run.watermark(), 0);
            seen.extend(lines);
            steps += 1;
        }
        assert!(steps > 3, "{steps} steps");
        assert_eq!(seen.len(), rows + 1);
        for (ordinal, line) in seen.iter().take(rows).enumerate() {
            assert!(line.starts_with(&format!("insert t 30+{ordinal} 1,x")), "{line}");
        }
        assert_eq!(seen.last().unwrap(), "insert t 50+0 9,NULL");
        assert_eq!((shelf.memory_bytes(), shelf.file_bytes()), (0, 0));
        run.durable();
        assert_eq!(run.watermark(), 60);
    }
}

#[test]
fn a_prepared_transaction_takes_its_place_where_it_commits() {
    let mut run = Run::new();
    run.feed(whole(prepared(t(Wire::new()), 20, "1"), 30, "2"));
    assert_eq!(run.lines(STATE), ["insert t 30+0 2,NULL"]);
    assert_eq!(run.pipeline.unfinished(), 1);
    run.feed(whole(Wire::new().commit_prepared(7, "g", 50), 70, "3"));
    assert_eq!(run.lines(STATE), ["insert t 50+0 1,NULL", "insert t 70+0 3,NULL"]);
    assert_eq!(run.pipeline.unfinished(), 0);
}

#[test]
fn a_streamed_transaction_may_be_prepared() {
    let mut run = Run::new();
    run.feed(Wire::new().block(7, true, |wire| insert(t(wire), "1")).stream_prepare(7, "g", 20));
    run.feed(whole(t(Wire::new()), 30, "2").commit_prepared(7, "g", 50));
    assert_eq!(run.lines(STATE), ["insert t 30+0 2,NULL", "insert t 50+0 1,NULL"]);
}

#[test]
fn what_was_prepared_and_rolled_back_leaves_nothing() {
    let mut run = Run::new();
    run.feed(whole(prepared(t(Wire::new()), 20, "1"), 30, "2"));
    run.durable();
    assert_eq!(run.watermark(), 0);
    run.feed(Wire::new().rollback_prepared(7, "g", 20, 50).keepalive(60));
    assert!(run.lines(STATE).is_empty());
    assert_eq!((run.watermark(), run.pipeline.unfinished()), (60, 0));
}

#[test]
fn the_watermark_stays_before_a_prepare_until_its_commit_and_all_between_are_durable() {
    let mut run = Run::new();
    run.feed(whole(prepared(t(Wire::new()), 20, "1").keepalive(28), 30, "2"));
    // The row of the transaction between goes to two sinks; one batch of them stays behind.
    run.lines(STATE);
    let between = run.handed.remove(0);
    run.durable();
    run.feed(Wire::new().commit_prepared(7, "g", 50).keepalive(60));
    run.durable();
    // Up to 28 would be wrong: a source that has been told of the PREPARE sends no more than the COMMIT PREPARED.
    assert_eq!(run.watermark(), 0);
    run.pipeline.durable(between.transactions);
    assert_eq!(run.watermark(), 60);
}

#[test]
fn prepared_transactions_that_overlap_are_acknowledged_together() {
    let mut run = Run::new();
    let second = |wire: Wire| insert(wire.begin_prepare(8, "h", 30), "2").prepare(8, "h", 30);
    run.feed(second(prepared(t(Wire::new()), 20, "1")).commit_prepared(7, "g", 50));
    run.durable();
    assert_eq!(run.watermark(), 0);
    run.feed(Wire::new().commit_prepared(8, "h", 70));
    run.durable();
    assert_eq!(run.watermark(), 78);
}

#[test]
fn after_a_reconnect_what_is_prepared_is_known_and_what_was_committed_is_passed_over() {
    let start = prepared(t(Wire::new()), 20, "1");
    let end = whole(Wire::new(), 30, "2").commit_prepared(7, "g", 50);
    // Cut behind the PREPARE, and behind the COMMIT PREPARED.
    for sent in [start.bytes.len(), start.bytes.len() + end.bytes.len()] {
        let bytes = [start.bytes.clone(), end.bytes.clone()].concat();
        let mut run = Run::new();
        let before = Bytes::from(bytes.clone()).slice(..sent);
        run.pipeline.chunk(before, Vec::new(), Instant::now()).unwrap();
        while run.pipeline.is_busy() {
            run.pipeline.work(Instant::now()).unwrap();
        }
        run.pipeline.reconnected();
        run.pipeline.chunk(Bytes::from(bytes), Vec::new(), Instant::now()).unwrap();
        run.feed(Wire::new());
        assert_eq!(run.lines(STATE), ["insert t 30+0 2,NULL", "insert t 50+0 1,NULL"]);
        assert_eq!(run.pipeline.unfinished(), 0);
        run.durable();
        assert_eq!(run.watermark(), 58);
    }
}

#[test]
fn a_connection_that_breaks_within_a_prepare_begins_it_anew() {
    let mut run = Run::new();
    run.feed(insert(t(Wire::new()).begin_prepare(7, "g", 20), "1").keepalive(90));
    assert_eq!(run.watermark(), 0);
    run.pipeline.reconnected();
    run.feed(prepared(t(Wire::new()), 20, "1").commit_prepared(7, "g", 50));
    assert_eq!(run.lines(STATE), ["insert t 50+0 1,NULL"]);
}

#[test]
fn a_name_that_is_used_again_is_not_mistaken_after_a_reconnect() {
    let first = |wire| prepared(wire, 20, "1").rollback_prepared(7, "g", 20, 30);
    let second = |wire: Wire| insert(wire.begin_prepare(8, "g", 40), "2").prepare(8, "g", 40);
    let mut run = Run::new();
    // The transaction in front keeps all of them coming again.
    run.feed(second(first(whole(t(Wire::new()), 10, "0"))));
    run.pipeline.reconnected();
    run.feed(first(whole(t(Wire::new()), 10, "0")));
    run.durable();
    assert!(run.watermark() < 40, "the second is still prepared");
    run.feed(second(Wire::new()).commit_prepared(8, "g", 60));
    assert_eq!(run.lines(STATE), ["insert t 60+0 2,NULL"]);
    run.durable();
    assert_eq!(run.watermark(), 68);
}

#[test]
fn what_was_rolled_back_before_a_transaction_under_way_may_come_again_before_it() {
    let undone = |wire| prepared(wire, 20, "1").rollback_prepared(7, "g", 20, 30);
    let mut run = Run::new();
    run.feed(insert(undone(t(Wire::new())).begin(40), "2"));
    run.pipeline.reconnected();
    run.feed(insert(insert(undone(t(Wire::new())).begin(40), "2"), "3").commit(40));
    assert_eq!(run.lines(STATE), ["insert t 40+0 2,NULL", "insert t 40+1 3,NULL"]);
    run.durable();
    assert_eq!(run.watermark(), 48);
}

#[test]
fn what_was_prepared_before_the_slot_comes_with_its_commit() {
    let mut run = Run::new();
    let late = |wire| prepared(wire, 20, "1").commit_prepared(7, "g", 50);
    run.feed(late(whole(t(Wire::new()), 30, "2")));
    assert_eq!(run.lines(STATE), ["insert t 30+0 2,NULL", "insert t 50+0 1,NULL"]);
    run.pipeline.reconnected();
    run.feed(late(t(Wire::new())));
    assert!(run.lines(STATE).is_empty());
    run.durable();
    assert_eq!(run.watermark(), 58);
}

#[test]
fn a_commit_of_what_was_never_prepared_here_is_an_error_that_tells_what_to_do() {
    let mut run = Run::new();
    let error = run.try_feed(Wire::new().commit_prepared(7, "g", 50), Vec::new()).unwrap_err();
    assert_eq!(error, PipelineError::UnknownPrepared("g".into()));
    assert!(error.to_string().contains("copy the tables anew"));
}

#[test]
fn a_table_described_in_a_prepared_transaction_is_described_for_all_that_commit_before_it() {
    // The source describes a table once a connection, be it in a transaction that is rolled back in the end.
    let mut run = Run::new();
    run.feed(insert(t(Wire::new().begin_prepare(7, "g", 20)), "1").prepare(7, "g", 20));
    run.feed(whole(Wire::new(), 30, "2").rollback_prepared(7, "g", 20, 50));
    run.feed(insert(u(Wire::new().begin(60)), "3").truncate(&[T, run::U]).commit(60));
    assert_eq!(
        run.lines(LOG),
        ["insert t 30+0 2,NULL", "insert t 60+0 3,NULL", "| truncate t 60+1", "| truncate u 60+2"]
    );
}

#[test]
fn what_a_prepared_transaction_makes_of_a_table_is_told_when_it_commits() {
    let alter = |wire: Wire| {
        let wire = wide_t(wire.begin_prepare(7, "g", 20)).insert(T, &[Some("1"), None, Some("w")]);
        wire.prepare(7, "g", 20)
    };
    let mut run = Run::new();
    run.feed(alter(whole(t(Wire::new()), 10, "0")));
    assert_eq!(run.lines(STATE), ["insert t 10+0 0,NULL"]);
    assert!(run.told().is_empty());
    run.feed(Wire::new().commit_prepared(7, "g", 50));
    assert_eq!(run.lines(STATE), ["| schema t 50+0 k,v,w", "insert t 50+0 1,NULL,w"]);

    let mut run = Run::new();
    run.feed(alter(whole(t(Wire::new()), 10, "0")).rollback_prepared(7, "g", 20, 40));
    run.feed(whole(t(Wire::new()), 50, "2"));
    assert_eq!(run.lines(STATE), ["insert t 10+0 0,NULL", "insert t 50+0 2,NULL"]);
    assert!(run.told().is_empty(), "rolled back, it was never so");
}

#[test]
fn a_key_change_that_only_the_sink_can_complete_is_fenced_in_a_streamed_transaction_too() {
    let mut run = Run::new();
    let old = [Some("1"), None];
    run.feed(
        Wire::new().block(7, true, |wire| t(wire).update(T, Some((b'K', &old)), &[Some("2"), UNCHANGED])),
    );
    run.feed(Wire::new().stream_commit(7, 30));
    assert_eq!(run.lines(STATE), ["| update t 30+0 1>2,UNCHANGED"]);
}
