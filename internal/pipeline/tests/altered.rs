//! Live tables whose schema changes: they wait for their sinks to follow, and the others go on.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on may panic")]

mod run;
use replicator_model::wire;

use replicator_pipeline::{Output, Pipeline, Standing};
use replicator_sink::KeyChanges;
use replicator_types::{Budget, Lsn, Position, Relation};
use run::{HISTORY, LOG, Run, STATE, T, U, catalog, pipeline, route, t, u, wide_t};
use std::sync::Arc;
use std::time::Instant;
use wire::Wire;

fn version(columns: usize, since: u64) -> Arc<Relation> {
    Arc::new(Relation { since: Lsn(since), ..catalog(columns, since).relation() })
}

/// Both tables are live; of `T`, changes before `from` were caught up with.
fn live(from: Position, versions: Vec<Arc<Relation>>) -> Pipeline {
    let live = |from| Standing::Live { from };
    pipeline(8).with_relations(versions).with_standings([(T, live(from)), (U, live(Position::ZERO))], true)
}

/// A row of `T` and one of `U` under the first version, both durable.
fn begun(from: Position) -> Run {
    let mut run = Run::of(live(from, vec![version(2, 5)]));
    run.feed(
        t(u(Wire::new())).begin(10).insert(T, &[Some("1"), None]).insert(U, &[Some("1"), None]).commit(10),
    );
    run.lines(STATE);
    run.lines(LOG);
    run.durable();
    run
}

fn of_u(commit_lsn: u64, key: &str) -> Wire {
    Wire::new().begin(commit_lsn).insert(U, &[Some(key), None]).commit(commit_lsn)
}

#[test]
fn a_table_that_changes_waits_for_its_sinks_while_other_tables_go_on() {
    let mut run = begun(Position::ZERO);
    let row =
        wide_t(Wire::new().begin(20).insert(T, &[Some("2"), None])).insert(T, &[Some("3"), None, Some("w")]);
    run.feed(row.insert(U, &[Some("2"), None]).commit(20));
    let to_state = ["insert t 20+0 2,NULL", "~| apart t 20+1", "insert u 20+2 2,NULL"];
    assert_eq!(run.lines(STATE), to_state);
    assert_eq!(
        run.lines(LOG),
        ["insert t 20+0 2,NULL", "| schema t 20+1 k,v,w", "insert t 20+1 3,NULL,w", "insert u 20+2 2,NULL"]
    );
    assert_eq!(run.told(), ["altered t from 2 columns to 3"]);
    run.durable();
    assert_eq!(run.told(), ["to alter t to 3 columns at 20+1"]);
    run.feed(of_u(30, "3"));
    assert_eq!(run.lines(STATE), ["insert u 30+0 3,NULL"]);
    run.durable();
    assert_eq!(run.watermark(), 18, "before what waits");
    run.release(T);
    assert_eq!(run.lines(STATE), ["~ insert t 20+1 3,NULL,w"], "the sinks have the version");
    run.durable();
    assert_eq!(run.told(), ["caught up 100 31+0"]);
    run.pipeline.settled(T);
    assert_eq!(run.watermark(), 38);
}

#[test]
fn changes_of_a_table_that_follow_one_another_are_followed_one_after_another() {
    let mut run = begun(Position::ZERO);
    run.feed(wide_t(Wire::new().begin(20)).insert(T, &[Some("2"), None, Some("w")]).commit(20));
    run.feed(t(Wire::new().begin(30)).insert(T, &[Some("3"), None]).commit(30));
    run.durable();
    assert_eq!(
        run.told(),
        ["altered t from 2 columns to 3", "altered t from 3 columns to 2", "to alter t to 3 columns at 20+0"]
    );
    run.lines(STATE);
    run.release(T);
    assert_eq!(run.lines(STATE), ["~ insert t 20+0 2,NULL,w"]);
    assert!(run.told().is_empty(), "that is not durable");
    run.durable();
    assert_eq!(run.told(), ["to alter t to 2 columns at 30+0"]);
    run.release(T);
    assert_eq!(run.lines(STATE), ["~ insert t 30+0 3,NULL"]);
    run.durable();
    assert_eq!(run.told(), ["caught up 100 31+0"]);
}

#[test]
fn a_change_that_only_the_catalog_has_told_of_so_far_waits_where_the_stream_will_tell_of_it_too() {
    let mut run = begun(Position::ZERO);
    run.pipeline.catalog(vec![catalog(3, 15)]);
    run.feed(of_u(20, "2"));
    run.durable();
    let told = run.told();
    assert_eq!(told[0], "altered t from 2 columns to 3");
    assert!(told[1].starts_with("to alter t to 3 columns"), "{told:?}");
    run.lines(STATE);
    run.feed(wide_t(Wire::new().begin(30)).insert(T, &[Some("2"), None, Some("w")]).commit(30));
    assert!(run.lines(STATE).is_empty() && run.told().is_empty(), "it is known");
    run.release(T);
    assert_eq!(run.lines(STATE), ["~ insert t 30+0 2,NULL,w"]);
}

#[test]
fn a_change_that_the_stream_never_tells_of_is_followed_in_the_same_way() {
    let mut run = begun(Position::ZERO);
    let mut strict = catalog(2, 15);
    strict.columns[1].not_null = true;
    run.pipeline.catalog(vec![strict]);
    run.feed(of_u(20, "2"));
    assert_eq!(run.lines(STATE), ["insert u 20+0 2,NULL", "~| apart t 21+0"]);
    run.durable();
    assert_eq!(run.told(), ["altered t from 2 columns to 2", "to alter t to 2 columns at 27+0"]);
    run.release(T);
    run.durable();
    assert_eq!(run.told(), ["caught up 100 21+0"]);
    run.pipeline.settled(T);
    assert_eq!(run.watermark(), 28);
}

/// A run that hears from the catalog that a table without a key has another column.
fn keyless_altered(may_be_copied: bool) -> Run {
    let keyless = |columns, since| {
        let mut catalog = catalog(columns, since);
        catalog.primary_key.clear();
        catalog
    };
    let version = Arc::new(Relation { since: Lsn(5), ..keyless(2, 5).relation() });
    let standings = [(T, Standing::Live { from: Position::ZERO })];
    let mut run = Run::of(pipeline(8).with_relations([version]).with_standings(standings, may_be_copied));
    run.pipeline.catalog(vec![keyless(3, 15)]);
    run.feed(Wire::new().keepalive(28));
    run
}

#[test]
fn without_a_key_too_a_table_waits_if_a_copy_may_take_the_place_of_what_comes_twice_after_a_crash() {
    let mut run = keyless_altered(true);
    assert_eq!(run.lines(STATE), ["~| apart t 1+0"]);
    run.durable();
    assert_eq!(run.told(), ["altered t from 2 columns to 3", "to alter t to 3 columns at 27+0"]);
}

#[test]
fn the_rows_of_a_table_without_a_key_would_not_bear_to_come_twice_and_it_is_told_behind_a_fence() {
    let mut run = keyless_altered(false);
    assert_eq!(run.lines(STATE), ["| schema t 27+0 k,v,w"]);
    run.durable();
    assert_eq!(run.told(), ["altered t from 2 columns to 3"]);
    assert_eq!(run.watermark(), 28);
}

/// As `begun`, with a history beside the sink that holds state and the log.
fn begun_with_history(standing: Standing) -> Run {
    let routes = [("state", KeyChanges::Split), ("log", KeyChanges::Whole), ("history", KeyChanges::Whole)];
    let routes = routes.map(|(name, key_changes)| route(name, 1, key_changes));
    let pipeline =
        Pipeline::new(routes.into(), Lsn(8), &Budget::new(1 << 30)).with_relations([version(2, 5)]);
    let mut run =
        Run::of(pipeline.with_standings([(T, standing), (U, Standing::Live { from: Position::ZERO })], true));
    run.feed(t(u(Wire::new())).begin(10).insert(T, &[Some("1"), None]).commit(10));
    run
}

#[test]
fn a_history_waits_for_a_table_that_changes_and_other_logs_do_not() {
    let mut run = begun_with_history(Standing::Live { from: Position::ZERO });
    run.feed(wide_t(Wire::new().begin(20)).insert(T, &[Some("2"), None, Some("w")]).commit(20));
    run.feed(of_u(30, "2"));
    assert_eq!(run.lines(HISTORY), ["insert t 10+0 1,NULL", "~| apart t 20+0", "insert u 30+0 2,NULL"]);
    let to_log =
        ["insert t 10+0 1,NULL", "| schema t 20+0 k,v,w", "insert t 20+0 2,NULL,w", "insert u 30+0 2,NULL"];
    assert_eq!(run.lines(LOG), to_log);
    run.durable();
    assert_eq!(run.told(), ["altered t from 2 columns to 3", "to alter t to 3 columns at 20+0"]);
    assert_eq!(run.watermark(), 18, "before what waits");
    run.release(T);
    assert_eq!(run.lines(HISTORY), ["~ insert t 20+0 2,NULL,w"]);
    assert!(run.lines(LOG).is_empty());
    run.durable();
    assert_eq!(run.told(), ["caught up 100 31+0"]);
}

#[test]
fn a_history_gets_what_a_copy_has_for_the_others_behind_it_and_apart_from_what_it_has_not() {
    let mut run = begun_with_history(Standing::Waiting { snapshot: None });
    run.pipeline.copied_at(T, Lsn(15));
    run.feed(Wire::new().begin(20).insert(T, &[Some("2"), None]).commit(20));
    assert!(run.lines(HISTORY).is_empty() && run.lines(STATE).is_empty());
    assert_eq!(run.lines(LOG), ["insert t 10+0 1,NULL", "insert t 20+0 2,NULL"]);
    run.durable();
    assert_eq!(run.watermark(), 8, "before what waits");
    run.pipeline.release(T);
    run.pipeline.release_some(Instant::now()).unwrap();
    let batches: Vec<_> = run
        .pipeline
        .take_outputs()
        .into_iter()
        .map(|output| match output {
            Output::Batch(lane, batch) | Output::Fence(lane, batch) => (lane.sink, batch.len()),
        })
        .collect();
    // What is not sent is not looked for in the copy's rows for a change that is older than these.
    assert_eq!(batches, [(HISTORY, 1), (STATE, 1), (HISTORY, 1)]);
}

#[test]
fn of_a_table_that_is_not_published_any_more_a_history_gets_what_has_waited() {
    let mut run = begun_with_history(Standing::Waiting { snapshot: None });
    run.feed(wide_t(Wire::new().begin(20)).insert(T, &[Some("2"), None, Some("w")]).commit(20));
    run.durable();
    run.pipeline.forget(T);
    while run.pipeline.is_releasing() {
        run.pipeline.release_some(Instant::now()).unwrap();
    }
    let of_t = ["~ insert t 10+0 1,NULL", "~| schema t 20+0 k,v,w", "~ insert t 20+0 2,NULL,w"];
    assert_eq!(run.lines(HISTORY), of_t, "each version before its changes");
    assert!(run.lines(STATE).is_empty());
    assert_eq!((run.watermark(), run.pipeline.waiting()), (8, 1), "that is not durable");
    run.durable();
    assert!(!run.told().iter().any(|told| told.starts_with("caught up")));
    assert_eq!((run.watermark(), run.pipeline.waiting()), (28, 0));
}

#[test]
fn a_change_that_was_caught_up_with_in_an_earlier_run_makes_nothing_wait() {
    let mut run = begun(Position { commit_lsn: Lsn(50), ordinal: 0 });
    run.feed(wide_t(Wire::new().begin(20)).insert(T, &[Some("2"), None, Some("w")]).commit(20));
    assert_eq!(run.told(), ["altered t from 2 columns to 3"]);
    assert_eq!(run.lines(STATE), ["| schema t 20+0 k,v,w"], "the sinks see that they have it");
    run.feed(Wire::new().begin(60).insert(T, &[Some("3"), None, None]).commit(60));
    assert_eq!(run.lines(STATE), ["insert t 60+0 3,NULL,NULL"]);
}

#[test]
fn a_copy_that_is_asked_for_takes_the_place_of_following() {
    let mut run = begun(Position::ZERO);
    run.feed(wide_t(Wire::new().begin(20)).insert(T, &[Some("2"), None, Some("w")]).commit(20));
    run.hold(T);
    run.durable();
    assert_eq!(run.told(), ["altered t from 2 columns to 3", "held 100, 0 is covered"]);
    run.pipeline.copied_at(T, Lsn(25));
    run.feed(Wire::new().begin(30).insert(T, &[Some("3"), None, None]).commit(30));
    run.lines(STATE);
    run.release(T);
    assert_eq!(run.lines(STATE), ["~ insert t 30+0 3,NULL,NULL"], "the copy has the rest");
}

#[test]
fn after_a_crash_a_table_that_waited_waits_at_the_same_place_again() {
    // The version was kept before the crash, since sinks were about to follow it.
    let mut run = Run::of(live(Position::ZERO, vec![version(2, 5), version(3, 20)]));
    run.feed(t(u(Wire::new())).begin(10).insert(T, &[Some("1"), None]).commit(10));
    run.feed_with(
        wide_t(Wire::new().begin(20)).insert(T, &[Some("2"), None, Some("w")]).commit(20),
        vec![catalog(3, 40)],
    );
    run.feed(of_u(30, "2"));
    assert_eq!(run.lines(STATE), ["insert t 10+0 1,NULL", "~| apart t 20+0", "insert u 30+0 2,NULL"]);
    run.durable();
    assert_eq!(run.told(), ["altered t from 2 columns to 3", "to alter t to 3 columns at 20+0"]);
    assert_eq!(run.watermark(), 18);
}

#[test]
fn a_table_that_was_apart_is_so_from_the_beginning_until_the_stream_has_passed_the_run_before() {
    let standings = [
        (T, Standing::Apart { told: Lsn(5), from: Position::ZERO }),
        (U, Standing::Live { from: Position::ZERO }),
    ];
    let versions = [version(2, 5), version(3, 20)];
    let mut run =
        Run::of(pipeline(8).with_relations(versions).with_standings(standings, true).with_reach(Lsn(45)));
    run.release(T);
    run.feed(t(u(Wire::new())).begin(10).insert(T, &[Some("1"), None]).commit(10));
    run.feed(wide_t(Wire::new().begin(20)).insert(T, &[Some("2"), None, Some("w")]).commit(20));
    run.feed(of_u(30, "2"));
    assert_eq!(run.lines(STATE), ["insert u 30+0 2,NULL"]);
    run.feed(Wire::new().keepalive(50));
    run.release(T);
    assert_eq!(run.lines(STATE), ["~ insert t 10+0 1,NULL"]);
    run.durable();
    assert_eq!(run.told(), ["altered t from 2 columns to 3", "to alter t to 3 columns at 20+0"]);
    run.release(T);
    assert_eq!(run.lines(STATE), ["~ insert t 20+0 2,NULL,w"]);
    run.durable();
    assert_eq!(run.told(), ["caught up 100 45+0"]);
    assert_eq!(run.watermark(), 8);
    run.pipeline.settled(T);
    assert_eq!(run.watermark(), 50);
}

#[test]
fn a_table_that_is_to_be_held_from_a_position_on_waits_when_the_stream_has_passed_that() {
    let mut run = begun(Position::ZERO);
    run.pipeline.hold_at(T, Lsn(30));
    run.feed(Wire::new().begin(20).insert(T, &[Some("2"), None]).commit(20));
    assert_eq!(run.lines(STATE), ["insert t 20+0 2,NULL"], "that is from before");
    run.feed(Wire::new().begin(30).insert(T, &[Some("3"), None]).commit(30));
    assert_eq!(run.lines(STATE), ["insert t 30+0 3,NULL", "~| apart t 31+0"]);
    run.feed(Wire::new().begin(40).insert(T, &[Some("4"), None]).commit(40));
    assert!(run.lines(STATE).is_empty());
    run.durable();
    assert_eq!(run.told(), ["held 100, 31 is covered"]);
}

#[test]
fn a_table_that_waits_by_then_goes_on_waiting() {
    let mut run = begun(Position::ZERO);
    run.pipeline.hold_at(T, Lsn(30));
    run.feed(wide_t(Wire::new().begin(20)).insert(T, &[Some("2"), None, Some("w")]).commit(20));
    run.durable();
    run.feed(of_u(30, "2"));
    assert_eq!(run.told(), ["altered t from 2 columns to 3", "to alter t to 3 columns at 20+0"]);
    run.lines(STATE);
    run.release(T);
    assert_eq!(run.lines(STATE), ["~ insert t 20+0 2,NULL,w"]);
}

#[test]
fn what_was_made_before_a_table_was_apart_goes_to_logs_alone_when_it_comes_again() {
    let from = Position { commit_lsn: Lsn(20), ordinal: 1 };
    let standings =
        [(T, Standing::Apart { told: Lsn(5), from }), (U, Standing::Live { from: Position::ZERO })];
    let versions = [version(2, 5), version(3, 20)];
    let run = pipeline(8).with_relations(versions).with_standings(standings, true);
    let mut run = Run::of(run.with_reach(Lsn(25)));
    run.release(T);
    let old = t(u(Wire::new())).begin(10).insert(T, &[Some("1"), None]).commit(10);
    run.feed(old.begin(20).insert(T, &[Some("2"), None]));
    run.feed(wide_t(Wire::new()).insert(T, &[Some("3"), None, Some("w")]).commit(20));
    run.release(T);
    assert_eq!(run.lines(LOG).len(), 4, "three rows and the change of schema");
    assert!(run.lines(STATE).is_empty());
    run.durable();
    assert_eq!(run.told(), ["altered t from 2 columns to 3", "to alter t to 3 columns at 20+1"]);
    run.release(T);
    assert_eq!(run.lines(STATE), ["~ insert t 20+1 3,NULL,w"]);
}

#[test]
fn what_a_history_was_handed_before_its_table_left_the_publication_is_not_acknowledged_before_it_is_durable()
{
    let mut run = begun_with_history(Standing::Live { from: Position::ZERO });
    run.feed(wide_t(Wire::new().begin(20)).insert(T, &[Some("2"), None, Some("w")]).commit(20));
    run.feed(t(Wire::new().begin(30)).insert(T, &[Some("3"), None]).commit(30));
    run.durable();
    run.release(T);
    assert_eq!(run.lines(HISTORY), ["~ insert t 20+0 2,NULL,w"], "and the next version is to be followed");
    let handed = std::mem::take(&mut run.handed);
    run.pipeline.forget(T);
    while run.pipeline.is_releasing() {
        run.pipeline.release_some(Instant::now()).unwrap();
    }
    assert_eq!(run.lines(HISTORY), ["~| schema t 30+0 k,v", "~ insert t 30+0 3,NULL"]);
    run.durable();
    assert!(run.told().iter().all(|told| told.starts_with("altered") || told.starts_with("to alter t to 3")));
    assert_eq!(run.watermark(), 18, "before what is not durable");
    handed.into_iter().for_each(|handed| run.pipeline.durable(handed.transactions));
    run.told();
    assert_eq!((run.watermark(), run.pipeline.waiting()), (38, 0));
}
