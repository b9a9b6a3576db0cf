//! Tables whose changes wait for their copy.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on may panic")]

mod run;
use replicator_model::wire;

use replicator_pipeline::{Pipeline, Standing};
use replicator_spill::Shelf;
use replicator_types::{Lsn, Position};
use run::{LOG, Run, STATE, T, U, pipeline, t, u, wide_t};
use wire::{UNCHANGED, Wire};

const WAITS: Standing = Standing::Waiting { snapshot: None };

/// `T` stands as told, `U` is live.
fn with_t(standing: Standing) -> Pipeline {
    let live = Standing::Live { from: Position::ZERO };
    pipeline(0).with_standings([(T, standing), (U, live)], true)
}

fn insert(wire: Wire, key: &str) -> Wire {
    wire.insert(T, &[Some(key), None])
}

fn whole(wire: Wire, commit_lsn: u64, key: &str) -> Wire {
    insert(wire.begin(commit_lsn), key).commit(commit_lsn)
}

#[test]
fn while_a_table_waits_state_sinks_get_nothing_of_it_and_logs_get_it_at_once() {
    let mut run = Run::of(with_t(WAITS));
    run.feed(insert(u(t(Wire::new())).begin(10), "1").insert(U, &[Some("2"), None]).commit(10));
    assert_eq!(run.lines(STATE), ["insert u 10+1 2,NULL"]);
    assert_eq!(run.lines(LOG), ["insert t 10+0 1,NULL", "insert u 10+1 2,NULL"]);
    assert_eq!(run.pipeline.waiting(), 1);
    assert!(run.pipeline.waiting_bytes_of(T) > 0);
}

#[test]
fn after_its_copy_everything_follows_in_order_and_before_what_comes_later() {
    let mut run = Run::of(with_t(WAITS));
    let old = [Some("1"), None];
    let wire = insert(t(Wire::new()).begin(10), "1").update(T, None, &[Some("1"), Some("a")]).commit(10);
    run.feed(wire);
    run.feed(Wire::new().begin(20).update(T, Some((b'K', &old)), &[Some("2"), Some("b")]).commit(20));
    run.release(T);
    run.feed(Wire::new().begin(30).delete(T, b'K', &[Some("2"), None]).commit(30));
    let expected = [
        "~ insert t 10+0 1,NULL",
        "~ update t 10+1 1,a",
        "~ delete t 20+0 1",
        "~ insert t 20+1 2,b",
        "delete t 30+0 2",
    ];
    assert_eq!(run.lines(STATE), expected);
    assert_eq!(run.lines(LOG).len(), 4, "each once");
}

#[test]
fn what_is_in_the_copy_is_left_out_whenever_the_snapshot_is_known() {
    // Known from the start, between the changes, and behind them.
    for at in 0..3 {
        let mut run = Run::of(with_t(WAITS));
        for (number, commit_lsn) in [10, 20, 30].into_iter().enumerate() {
            if number == at {
                run.pipeline.copied_at(T, Lsn(20));
            }
            run.feed(whole(t(Wire::new()), commit_lsn, "1").truncate_alone(commit_lsn + 1));
        }
        run.pipeline.copied_at(T, Lsn(20));
        run.release(T);
        let lines = run.lines(STATE);
        let expected =
            ["~ insert t 20+0 1,NULL", "~| truncate t 21+0", "~ insert t 30+0 1,NULL", "~| truncate t 31+0"];
        assert_eq!(lines, expected, "the snapshot known before change {at}");
        assert_eq!(run.lines(LOG).len(), 6, "a log has them all");
    }
}

#[test]
fn what_is_in_the_copy_neither_waits_nor_holds_the_watermark() {
    let mut run = Run::of(with_t(Standing::Waiting { snapshot: Some(Lsn(20)) }));
    run.feed(whole(t(Wire::new()), 10, "1").truncate_alone(12));
    run.durable();
    assert_eq!((run.pipeline.waiting_bytes_of(T), run.watermark()), (0, 20));
}

#[test]
fn a_table_stays_apart_until_the_stream_has_passed_the_copy() {
    let mut run = Run::of(with_t(Standing::Waiting { snapshot: Some(Lsn(15)) }));
    run.pipeline.copied_until(T, Lsn(25));
    run.release(T);
    assert!(!run.pipeline.is_releasing() && run.told().is_empty());
    run.feed(whole(whole(t(Wire::new()), 10, "1"), 16, "2"));
    run.release(T);
    assert!(run.lines(STATE).is_empty(), "copied rows may be newer, and a lane may have got further");
    run.feed(Wire::new().keepalive(25));
    run.release(T);
    run.feed(whole(Wire::new(), 32, "3"));
    assert_eq!(run.lines(STATE), ["~ insert t 16+0 2,NULL", "insert t 32+0 3,NULL"]);
}

#[test]
fn a_table_becomes_live_in_the_middle_of_a_transaction() {
    let mut run = Run::of(with_t(WAITS));
    run.feed(insert(t(Wire::new()).begin(10), "1"));
    run.release(T);
    run.feed(insert(Wire::new(), "2").commit(10));
    assert_eq!(run.lines(STATE), ["~ insert t 10+0 1,NULL", "insert t 10+1 2,NULL"]);
    run.durable();
    assert_eq!(run.told(), ["caught up 100 10+1"]);
    run.pipeline.settled(T);
    assert_eq!(run.watermark(), 18);
}

#[test]
fn a_table_that_became_live_in_a_transaction_that_is_cut_off_goes_on_where_it_was() {
    let mut run = Run::of(with_t(WAITS));
    run.feed(insert(t(Wire::new()).begin(10), "1"));
    run.pipeline.reconnected();
    run.release(T);
    run.feed(insert(insert(t(Wire::new()).begin(10), "1"), "2").commit(10));
    assert_eq!(run.lines(STATE), ["~ insert t 10+0 1,NULL", "insert t 10+1 2,NULL"]);
    run.durable();
    assert_eq!(run.told(), ["caught up 100 10+1"]);
}

#[test]
fn the_watermark_is_held_from_the_first_change_that_waits_until_it_is_written_down_that_all_have_come() {
    let mut run = Run::of(with_t(WAITS));
    run.feed(u(t(Wire::new())).begin(10).insert(U, &[Some("1"), None]).commit(10));
    run.feed(whole(Wire::new(), 20, "1").keepalive(40));
    run.durable();
    assert_eq!(run.watermark(), 18);
    run.release(T);
    assert!(run.told().is_empty(), "not durable yet");
    run.durable();
    assert_eq!((run.told(), run.watermark()), (vec!["caught up 100 21+0".to_owned()], 18));
    assert_eq!(run.pipeline.waiting(), 1);
    run.pipeline.settled(T);
    assert_eq!((run.watermark(), run.pipeline.waiting()), (40, 0));
}

#[test]
fn what_waits_in_files_comes_out_as_from_memory() {
    let mut outputs = Vec::new();
    for shelf in [Shelf::in_memory(), Shelf::new(&std::env::temp_dir(), 0)] {
        let mut run = Run::of(with_t(WAITS).with_shelf(shelf.clone()).with_standings([(T, WAITS)], true));
        let value = "x".repeat(1000);
        let rows =
            (0..2000).fold(t(Wire::new()).begin(10), |wire, _| wire.insert(T, &[Some("1"), Some(&value)]));
        run.feed(rows.truncate(&[T]).commit(10));
        assert_eq!(shelf.file_bytes() > 1_000_000, shelf.memory_bytes() < 100_000);
        run.release(T);
        outputs.push(run.lines(STATE));
        assert_eq!((shelf.memory_bytes(), shelf.file_bytes()), (0, 0));
    }
    assert_eq!(outputs[0].len(), 2001);
    assert_eq!(outputs[0], outputs[1]);
}

#[test]
fn much_that_waits_is_handed_on_in_steps() {
    let mut run = Run::of(with_t(WAITS));
    let value = "x".repeat(1000);
    let rows = (0..2000).fold(t(Wire::new()).begin(10), |wire, _| wire.insert(T, &[Some("1"), Some(&value)]));
    run.feed(rows.commit(10));
    run.pipeline.release(T);
    let mut seen = 0;
    while run.pipeline.is_releasing() {
        run.pipeline.release_some(std::time::Instant::now()).unwrap();
        let step = run.lines(STATE).len();
        assert!(step < 700, "{step} rows in one step");
        // What comes meanwhile waits behind.
        if seen == 0 {
            run.feed(whole(Wire::new(), 20, "2"));
        }
        seen += step;
    }
    assert_eq!(seen, 2001);
}

#[test]
fn a_truncate_of_several_tables_reaches_the_one_that_waits_when_it_has_been_copied() {
    let mut run = Run::of(with_t(WAITS));
    run.feed(insert(u(t(Wire::new())).begin(10), "1").truncate(&[T, U]).commit(10));
    assert_eq!(run.lines(STATE), ["| truncate u 10+2"]);
    assert_eq!(run.lines(LOG), ["insert t 10+0 1,NULL", "| truncate t 10+1", "| truncate u 10+2"]);
    run.release(T);
    assert_eq!(run.lines(STATE), ["~ insert t 10+0 1,NULL", "~| truncate t 10+1"]);
    run.durable();
    run.pipeline.settled(T);
    assert_eq!(run.watermark(), 18);
}

#[test]
fn a_key_change_that_only_the_sink_can_complete_is_fenced_while_catching_up() {
    let mut run = Run::of(with_t(WAITS));
    let old = [Some("1"), None];
    let wire = t(Wire::new()).begin(10).update(T, None, &[Some("1"), UNCHANGED]);
    run.feed(insert(wire.update(T, Some((b'K', &old)), &[Some("2"), UNCHANGED]), "1").commit(10));
    run.release(T);
    assert_eq!(
        run.lines(STATE),
        ["~ update t 10+0 1,UNCHANGED", "~| update t 10+1 1>2,UNCHANGED", "~ insert t 10+3 1,NULL"]
    );
}

#[test]
fn a_large_value_that_went_with_a_key_between_two_snapshots_of_a_copy_makes_it_doubtful() {
    let to_2 = |wire: Wire, body| wire.update(T, Some((b'K', &[Some("1"), None])), &[Some("2"), body]);
    let told = |first: Option<Lsn>, last: u64, wire: Wire| {
        let mut run = Run::of(with_t(Standing::Waiting { snapshot: first }));
        run.pipeline.copied_until(T, Lsn(last));
        run.feed(wire.keepalive(40));
        run.release(T);
        assert!(!run.lines(STATE).is_empty());
        run.told()
    };
    let at = |lsn: u64, body| to_2(t(Wire::new()).begin(lsn), body).commit(lsn);
    assert_eq!(told(Some(Lsn(15)), 30, at(20, UNCHANGED))[0], "doubtful 100 UnsentValues");
    assert_eq!(told(None, 30, at(20, UNCHANGED))[0], "doubtful 100 UnsentValues", "rows were there before");
    let twice = to_2(at(18, UNCHANGED).begin(20), UNCHANGED).commit(20);
    assert_eq!(told(Some(Lsn(15)), 30, twice).iter().filter(|line| line.starts_with("doubtful")).count(), 1);
    for (first, last, wire, why) in [
        (Some(Lsn(15)), 15, at(20, UNCHANGED), "one snapshot, and the change behind it"),
        (Some(Lsn(15)), 30, at(32, UNCHANGED), "behind the last snapshot"),
        (Some(Lsn(15)), 30, at(20, Some("sent")), "the value was sent"),
        (
            Some(Lsn(15)),
            30,
            t(Wire::new()).begin(20).update(T, None, &[Some("1"), UNCHANGED]).commit(20),
            "the same key",
        ),
    ] {
        let told = told(first, last, wire);
        assert!(told.iter().all(|line| line.starts_with("caught up")), "{why}: {told:?}");
    }
}

#[test]
fn a_change_of_the_table_waits_in_its_place() {
    let mut run = Run::of(with_t(WAITS));
    run.feed(whole(t(Wire::new()), 10, "1"));
    run.feed(wide_t(Wire::new().begin(20)).insert(T, &[Some("2"), None, Some("w")]).commit(20));
    assert!(run.lines(STATE).is_empty());
    assert_eq!(run.lines(LOG), ["insert t 10+0 1,NULL", "| schema t 20+0 k,v,w", "insert t 20+0 2,NULL,w"]);
    run.release(T);
    assert_eq!(run.lines(STATE), ["~ insert t 10+0 1,NULL"], "what comes next is of another version");
    run.told();
    run.durable();
    assert_eq!(run.told(), ["to alter t to 3 columns at 20+0"]);
    run.release(T);
    assert_eq!(run.lines(STATE), ["~ insert t 20+0 2,NULL,w"]);
    run.durable();
    assert_eq!(run.told(), ["caught up 100 21+0"]);
    assert_eq!(run.watermark(), 0);
    run.pipeline.settled(T);
    assert_eq!(run.watermark(), 28);
}

#[test]
fn a_live_table_is_held_when_all_that_came_before_is_durable() {
    let mut run = Run::new();
    run.feed(whole(t(Wire::new()), 10, "1"));
    run.hold(T);
    run.feed(whole(Wire::new(), 20, "2"));
    assert_eq!(run.lines(STATE), ["insert t 10+0 1,NULL", "~| apart t 11+0"]);
    assert!(run.told().is_empty());
    // The state sink has one batch before the fence.
    run.durable_first();
    assert!(run.told().is_empty());
    run.durable();
    assert_eq!(run.told(), ["held 100, 11 is covered"]);
    run.pipeline.copied_at(T, Lsn(15));
    run.release(T);
    run.feed(whole(Wire::new(), 30, "3"));
    assert_eq!(run.lines(STATE), ["~ insert t 20+0 2,NULL", "insert t 30+0 3,NULL"]);
}

#[test]
fn a_table_that_waits_already_or_was_never_met_is_held_at_once() {
    let mut run = Run::of(with_t(WAITS));
    run.hold(T);
    assert_eq!(run.told(), ["held 100, 0 is covered"]);
    run.hold(U);
    assert_eq!(run.told(), ["held 101, 1 is covered"]);
    assert!(run.lines(STATE).is_empty());
}

#[test]
fn a_table_that_is_held_while_it_catches_up_goes_on_waiting() {
    let mut run = Run::of(with_t(WAITS));
    let value = "x".repeat(1000);
    let rows = (0..1000).fold(t(Wire::new()).begin(10), |wire, _| wire.insert(T, &[Some("1"), Some(&value)]));
    run.feed(rows.commit(10));
    run.pipeline.release(T);
    run.pipeline.release_some(std::time::Instant::now()).unwrap();
    let first = run.lines(STATE).len();
    assert!((1..1000).contains(&first));
    run.hold(T);
    assert!(!run.pipeline.is_releasing() && run.told().is_empty(), "a part of it is on its way");
    run.durable();
    assert_eq!(run.told(), ["held 100, 0 is covered"]);
    run.release(T);
    assert_eq!(run.lines(STATE).len(), 1000 - first);
    run.durable();
    assert_eq!(run.told(), ["caught up 100 11+0"]);
    run.pipeline.settled(T);
    assert_eq!(run.watermark(), 18);
}

#[test]
fn a_table_that_is_held_before_it_is_written_down_as_done_does_not_hold_the_watermark_for_ever() {
    let mut run = Run::of(with_t(WAITS));
    run.feed(whole(t(Wire::new()), 10, "1"));
    run.release(T);
    run.hold(T);
    run.feed(whole(Wire::new(), 20, "2"));
    run.durable();
    assert_eq!(run.told(), ["caught up 100 11+0", "held 100, 11 is covered"]);
    assert_eq!(run.watermark(), 0);
    run.release(T);
    run.durable();
    assert_eq!(run.told(), ["caught up 100 21+0"]);
    run.pipeline.settled(T);
    assert_eq!(run.watermark(), 28);
}

#[test]
fn a_table_that_is_not_known_waits_and_is_told_once() {
    let mut run = Run::of(pipeline(0).with_standings([], true));
    run.feed(whole(whole(t(Wire::new()), 10, "1"), 20, "2"));
    assert_eq!(run.told(), ["new t"]);
    assert!(run.lines(STATE).is_empty());
    run.pipeline.reconnected();
    run.feed(whole(t(Wire::new()), 30, "3"));
    assert!(run.told().is_empty());
    run.pipeline.copied_at(T, Lsn(15));
    run.release(T);
    assert_eq!(run.lines(STATE), ["~ insert t 20+0 2,NULL", "~ insert t 30+0 3,NULL"]);
}

#[test]
fn where_unknown_tables_do_not_wait_they_are_live() {
    let mut run = Run::of(pipeline(0).with_standings([], false));
    run.feed(whole(t(Wire::new()), 10, "1"));
    assert!(run.told().is_empty());
    assert_eq!(run.lines(STATE), ["insert t 10+0 1,NULL"]);
}

#[test]
fn of_a_table_that_caught_up_in_an_earlier_run_state_sinks_get_what_is_behind_that() {
    let from = Position { commit_lsn: Lsn(20), ordinal: 1 };
    let mut run = Run::of(with_t(Standing::Live { from }));
    run.feed(insert(whole(t(Wire::new()), 10, "1").begin(20), "2").truncate(&[T]));
    run.feed(insert(Wire::new(), "3").commit(20));
    assert_eq!(run.lines(STATE), ["| truncate t 20+1", "insert t 20+2 3,NULL"]);
    assert_eq!(
        run.lines(LOG),
        ["insert t 10+0 1,NULL", "insert t 20+0 2,NULL", "| truncate t 20+1", "insert t 20+2 3,NULL"]
    );
}

#[test]
fn after_a_reconnect_what_waits_already_does_not_wait_twice() {
    let mut run = Run::of(with_t(WAITS));
    let first = || whole(t(Wire::new()), 10, "1");
    run.feed(insert(first().begin(20), "2"));
    run.pipeline.reconnected();
    run.feed(insert(insert(first().begin(20), "2"), "3").commit(20));
    run.release(T);
    assert_eq!(
        run.lines(STATE),
        ["~ insert t 10+0 1,NULL", "~ insert t 20+0 2,NULL", "~ insert t 20+1 3,NULL"]
    );
}

#[test]
fn a_prepared_transaction_of_a_table_that_waits_is_behind_the_copy_if_its_commit_is() {
    let mut run = Run::of(with_t(WAITS));
    run.feed(insert(t(Wire::new()).begin_prepare(7, "g", 10), "1").prepare(7, "g", 10));
    run.pipeline.copied_at(T, Lsn(20));
    run.feed(Wire::new().keepalive(20).commit_prepared(7, "g", 30));
    run.release(T);
    assert_eq!(run.lines(STATE), ["~ insert t 30+0 1,NULL"]);
    run.durable();
    assert_eq!(run.watermark(), 0, "held before the PREPARE, since it has to come again");
    run.pipeline.settled(T);
    assert_eq!(run.watermark(), 38);
}

trait Alone {
    fn truncate_alone(self, commit_lsn: u64) -> Self;
}

impl Alone for Wire {
    fn truncate_alone(self, commit_lsn: u64) -> Self {
        self.begin(commit_lsn).truncate(&[T]).commit(commit_lsn)
    }
}

#[test]
fn a_table_that_caught_up_before_any_transaction_came_is_not_given_what_its_copy_has() {
    let mut run = Run::of(with_t(WAITS));
    run.pipeline.copied_at(T, Lsn(100));
    run.feed(Wire::new().keepalive(120));
    run.release(T);
    assert_eq!(run.told(), ["caught up 100 100+0"]);

    // The source's server dies, and the slot is where it was before the copy.
    let live = Standing::Live { from: Position { commit_lsn: Lsn(100), ordinal: 0 } };
    let mut run = Run::of(with_t(live));
    run.feed(whole(t(Wire::new()), 40, "1"));
    run.feed(whole(Wire::new(), 130, "2"));
    assert_eq!(run.lines(STATE), ["insert t 130+0 2,NULL"]);
}
