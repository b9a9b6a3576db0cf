//! A sink that is left out of a table, which others go on with.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on may panic")]

mod run;
use replicator_model::wire;

use replicator_model::wire::lsn;
use replicator_pipeline::{Pipeline, Standing};
use replicator_sink::KeyChanges;
use replicator_types::{Budget, Lsn, Position, Relation};
use run::{Run, T, U, catalog, route, t, u, wide_t};
use std::sync::Arc;
use wire::Wire;

const FIRST: usize = 0;
const SECOND: usize = 1;
const LOG: usize = 2;

/// Two sinks that hold state, and a log; `T` and `U` are in all of them.
fn live(watermark: u64) -> Pipeline {
    let routes = vec![
        route("first", 1, KeyChanges::Split),
        route("second", 1, KeyChanges::Split),
        route("log", 1, KeyChanges::Whole),
    ];
    Pipeline::new(routes, lsn(watermark), &Budget::new(1 << 30))
}

fn standing(pipeline: Pipeline) -> Pipeline {
    let live = Standing::Live { from: Position::ZERO };
    let told = Arc::new(Relation { since: Lsn(5), ..catalog(2, 5).relation() });
    pipeline.with_relations([told]).with_standings([(T, live), (U, live)], true)
}

fn left_out(watermark: u64) -> Run {
    Run::of(standing(live(watermark).with_left_out([(T, vec![SECOND])])))
}

fn row(wire: Wire, commit_lsn: u64, table: u32, key: &str) -> Wire {
    wire.begin(commit_lsn).insert(table, &[Some(key), None]).commit(commit_lsn)
}

#[test]
fn a_sink_that_is_left_out_of_a_table_gets_nothing_of_it_and_the_others_all() {
    let mut run = left_out(8);
    run.feed(row(row(t(u(Wire::new())), 10, U, "1"), 20, T, "2"));
    run.feed(row(Wire::new().begin(30).truncate(&[T, U]).commit(30), 40, U, "3"));
    let all = ["insert u 10+0 1,NULL", "insert t 20+0 2,NULL", "| truncate t 30+0", "| truncate u 30+1"];
    for sink in [FIRST, LOG] {
        let lines = run.lines(sink);
        assert_eq!(lines[..4], all, "{sink}");
    }
    assert_eq!(run.lines(SECOND), ["insert u 10+0 1,NULL", "| truncate u 30+1", "insert u 40+0 3,NULL"]);
}

#[test]
fn the_watermark_stays_before_the_first_change_that_a_sink_does_not_get() {
    let mut run = left_out(8);
    run.feed(row(row(row(t(u(Wire::new())), 10, U, "1"), 20, T, "2"), 30, U, "3"));
    run.durable();
    assert_eq!(run.watermark(), 18);
    run.feed(row(Wire::new(), 40, T, "4").keepalive(90));
    run.durable();
    assert_eq!(run.watermark(), 18);
    assert_eq!(run.pipeline.waiting(), 0, "nothing is waited for at the end of a run");
}

#[test]
fn a_truncate_alone_holds_the_watermark_too() {
    let mut run = left_out(8);
    run.feed(t(u(Wire::new())).begin(20).truncate(&[T]).commit(20).keepalive(90));
    run.durable();
    assert_eq!(run.watermark(), 8);
}

#[test]
fn a_copy_that_was_asked_for_takes_the_sink_back_and_lets_go_of_the_watermark_when_it_has_caught_up() {
    let mut run = left_out(8);
    run.feed(row(t(u(Wire::new())), 20, T, "2"));
    run.durable();
    run.lines(FIRST);
    run.pipeline.take_back(T);
    run.feed(row(Wire::new(), 24, T, "3"));
    assert_eq!(run.lines(SECOND), [] as [&str; 0], "not before it waits for the copy");
    run.hold(T);
    run.lines(FIRST);
    run.durable();
    run.feed(row(row(Wire::new(), 30, T, "4"), 50, T, "5"));
    run.pipeline.copied_at(T, Lsn(40));
    run.release(T);
    for sink in [FIRST, SECOND] {
        assert_eq!(run.lines(sink), ["~ insert t 50+0 5,NULL"], "{sink}");
    }
    run.durable();
    assert_eq!(run.watermark(), 8, "until it is written down");
    run.pipeline.take_notices();
    run.pipeline.settled(T);
    assert_eq!(run.watermark(), 58);
    run.feed(row(Wire::new(), 60, T, "6"));
    assert_eq!(run.lines(SECOND), ["insert t 60+0 6,NULL"]);
}

#[test]
fn a_log_that_is_left_out_stays_so_when_others_are_taken_back_and_goes_on_holding_the_watermark() {
    let mut run = Run::of(standing(live(8).with_left_out([(T, vec![SECOND, LOG])])));
    run.feed(row(t(u(Wire::new())), 20, T, "2"));
    run.durable();
    run.pipeline.take_back(T);
    run.hold(T);
    run.durable();
    run.feed(row(Wire::new(), 50, T, "5"));
    run.pipeline.copied_at(T, Lsn(40));
    run.release(T);
    assert_eq!(run.lines(SECOND), ["~ insert t 50+0 5,NULL"]);
    run.durable();
    run.pipeline.take_notices();
    run.pipeline.settled(T);
    run.feed(row(Wire::new(), 60, T, "6"));
    assert_eq!(run.lines(SECOND), ["insert t 60+0 6,NULL"]);
    assert_eq!(run.lines(LOG), [] as [&str; 0]);
    run.durable();
    assert_eq!(run.watermark(), 8, "the log has not got 20");
}

#[test]
fn what_waits_already_when_a_sink_is_taken_back_goes_there_too() {
    let mut run = left_out(8);
    run.hold(T);
    run.feed(row(t(u(Wire::new())), 20, T, "2"));
    run.durable();
    run.pipeline.take_back(T);
    run.pipeline.copied_at(T, Lsn(15));
    run.release(T);
    assert_eq!(run.lines(SECOND), ["~ insert t 20+0 2,NULL"]);
    run.durable();
    run.pipeline.take_notices();
    run.pipeline.settled(T);
    assert_eq!(run.watermark(), 28);
}

#[test]
fn a_sink_that_refuses_a_copy_is_left_out_of_what_waits_and_holds_the_watermark_before_it() {
    let waiting = Standing::Waiting { snapshot: None };
    let live_u = Standing::Live { from: Position::ZERO };
    let mut run = Run::of(live(8).with_standings([(T, waiting), (U, live_u)], true));
    run.feed(row(t(u(Wire::new())), 20, T, "2"));
    run.pipeline.leave_out(T, SECOND);
    run.feed(row(Wire::new(), 30, T, "3"));
    run.pipeline.copied_at(T, Lsn(15));
    run.release(T);
    assert_eq!(run.lines(FIRST), ["~ insert t 20+0 2,NULL", "~ insert t 30+0 3,NULL"]);
    assert_eq!(run.lines(SECOND), [] as [&str; 0]);
    run.durable();
    run.pipeline.take_notices();
    run.pipeline.settled(T);
    assert_eq!(run.watermark(), 8, "the second sink has neither copy nor change");
}

#[test]
fn a_change_of_schema_is_followed_by_the_others() {
    let mut run = left_out(8);
    run.feed(t(u(Wire::new())));
    let wide = wide_t(Wire::new().begin(20)).insert(T, &[Some("1"), None, None]).commit(20);
    run.feed_with(wide, vec![catalog(3, 25)]);
    assert_eq!(run.told(), ["altered t from 2 columns to 3"]);
    assert_eq!(run.lines(FIRST), ["~| apart t 20+0"]);
    run.durable();
    assert_eq!(run.told(), ["to alter t to 3 columns at 20+0"]);
    run.release(T);
    assert_eq!(run.lines(FIRST), ["~ insert t 20+0 1,NULL,NULL"]);
    run.durable();
    run.pipeline.take_notices();
    run.pipeline.settled(T);
    assert_eq!(run.lines(SECOND), [] as [&str; 0]);
    assert_eq!(run.watermark(), 8);
}

#[test]
fn a_table_that_is_gone_lets_go_of_the_watermark() {
    let mut run = left_out(8);
    run.feed(row(t(u(Wire::new())), 20, T, "2"));
    run.durable();
    run.pipeline.forget(T);
    assert_eq!(run.watermark(), 28);
}

#[test]
fn a_table_that_no_sink_takes_is_not_copied_when_its_rows_are_computed_anew() {
    let mut wide = catalog(3, 25);
    wide.columns[2].has_default = true;
    for left_out in [vec![FIRST, SECOND, LOG], vec![FIRST, SECOND]] {
        let goes_nowhere = left_out.contains(&LOG);
        let mut run = Run::of(standing(live(8).with_left_out([(T, left_out)])));
        let changed = wide_t(u(Wire::new()).begin(20)).insert(T, &[Some("1"), None, None]).commit(20);
        run.feed_with(changed, vec![wide.clone()]);
        let told = run.told();
        assert_eq!(told.iter().any(|told| told.starts_with("rewritten")), !goes_nowhere, "{told:?}");
    }
}
