//! Tables whose rows may have been computed anew, of which the stream tells nothing.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on may panic")]

mod run;
use replicator_model::wire;

use replicator_pipeline::{Pipeline, Standing};
use replicator_types::{Lsn, Position, Relation, TableCatalog};
use run::{LOG, Run, STATE, T, U, pipeline, t, u, wide_t};
use std::sync::Arc;
use wire::Wire;

/// `T` with k and v, and with w, whose default differs from row to row.
fn catalog(columns: usize, read_at: u64) -> TableCatalog {
    let mut catalog = run::catalog(columns, read_at);
    catalog.columns.iter_mut().filter(|column| column.name == "w").for_each(|w| w.has_default = true);
    catalog
}

fn told(columns: usize, since: u64) -> Arc<Relation> {
    Arc::new(Relation { since: Lsn(since), ..catalog(columns, since).relation() })
}

/// Both tables are live.
fn live(watermark: u64, versions: Vec<Arc<Relation>>) -> Pipeline {
    let live = Standing::Live { from: Position::ZERO };
    pipeline(watermark).with_relations(versions).with_standings([(T, live), (U, live)], true)
}

fn wide_row(wire: Wire, commit_lsn: u64, key: &str) -> Wire {
    wire.begin(commit_lsn).insert(T, &[Some(key), None, None]).commit(commit_lsn)
}

#[test]
fn a_table_that_was_rewritten_waits_at_once_and_state_sinks_are_not_told_of_a_version_that_they_may_refuse() {
    let mut run = Run::of(live(8, vec![told(2, 5)]));
    run.feed(t(u(Wire::new())).begin(10).insert(T, &[Some("1"), None]).commit(10));
    assert_eq!(run.lines(STATE), ["insert t 10+0 1,NULL"]);
    run.lines(LOG);
    let rewritten = |wire: Wire| {
        wide_t(wire.begin(20).insert(U, &[Some("5"), None])).insert(T, &[Some("2"), None, None]).commit(20)
    };
    run.feed_with(rewritten(Wire::new()), vec![catalog(3, 25)]);
    assert_eq!(
        run.lines(STATE),
        ["insert u 20+0 5,NULL", "~| apart t 20+1"],
        "a fence, behind which the copy begins"
    );
    assert_eq!(
        run.lines(LOG),
        ["insert u 20+0 5,NULL", "| schema t 20+1 k,v,w", "insert t 20+1 2,NULL,NULL"]
    );
    assert_eq!(run.told(), ["rewritten t to 3 columns Over"]);
    run.durable();
    assert_eq!(run.told(), ["held 100, 20 is covered"]);
    assert_eq!(run.watermark(), 18, "until it has caught up: after a crash it is found out again");
    // The copy was taken before the last change.
    run.feed(wide_row(Wire::new(), 30, "3"));
    run.pipeline.copied_at(T, Lsn(25));
    run.release(T);
    assert_eq!(run.lines(STATE), ["~ insert t 30+0 3,NULL,NULL"]);
    run.durable();
    assert_eq!(run.told(), ["caught up 100 31+0"]);
    run.pipeline.settled(T);
    assert_eq!(run.watermark(), 38);
}

#[test]
fn a_rewrite_that_only_the_catalog_tells_of_holds_the_watermark_before_it_until_its_copy_is_durable() {
    for crash in [false, true] {
        let mut run = Run::of(live(8, vec![told(2, 5)]));
        run.pipeline.catalog(vec![catalog(3, 12)]);
        run.feed(Wire::new().keepalive(16));
        assert_eq!(run.lines(STATE), ["~| apart t 1+0"]);
        assert_eq!(run.lines(LOG), ["| schema t 15+0 k,v,w"]);
        run.feed(Wire::new().keepalive(64));
        run.durable();
        assert_eq!(run.told(), ["rewritten t to 3 columns Over", "held 100, 1 is covered"]);
        assert_eq!(run.watermark(), 16);
        if crash {
            // A log has kept the version; the run begins at the one before, and comes by the rewrite again.
            let mut run = Run::of(live(16, vec![told(2, 5), told(3, 17)]));
            run.pipeline.catalog(vec![catalog(3, 70)]);
            run.feed(Wire::new().keepalive(72));
            assert_eq!(run.told(), ["rewritten t to 3 columns Over"]);
            assert_eq!(run.lines(STATE), ["~| apart t 1+0"]);
            continue;
        }
        run.release(T);
        run.durable();
        assert_eq!(run.told(), ["caught up 100 1+0"]);
        run.pipeline.settled(T);
        assert_eq!(run.watermark(), 64);
    }
}

#[test]
fn a_run_begins_with_what_the_sinks_were_told_before_its_watermark_and_tells_them_what_they_have_missed() {
    let narrower = |read_at| TableCatalog { columns: catalog(1, 0).columns, ..catalog(1, read_at) };
    let mut run = Run::of(live(40, vec![told(2, 5), told(1, 30)]));
    run.pipeline.catalog(vec![catalog(2, 50)]);
    run.feed(Wire::new().keepalive(56));
    run.durable();
    assert_eq!(run.told(), ["altered t from 1 columns to 2", "to alter t to 2 columns at 55+0"]);
    let mut run = Run::of(live(40, vec![told(2, 5), told(1, 30)]));
    run.pipeline.catalog(vec![narrower(50)]);
    run.feed(Wire::new().keepalive(56));
    assert!(run.lines(STATE).is_empty(), "they were told");
}

#[test]
fn a_table_that_is_not_copied_is_followed_whatever_becomes_of_its_rows() {
    let live = Standing::Live { from: Position::ZERO };
    let never = pipeline(8).with_relations([told(2, 5)]).with_standings([(T, live)], false);
    let mut run = Run::of(never);
    run.pipeline.catalog(vec![catalog(3, 12)]);
    run.feed(Wire::new().keepalive(16));
    run.durable();
    assert_eq!(run.told(), ["altered t from 2 columns to 3", "to alter t to 3 columns at 15+0"]);
    run.release(T);
    run.durable();
    assert_eq!(run.told().len(), 1);
    run.pipeline.settled(T);
    assert_eq!(run.watermark(), 16);
}

#[test]
fn a_table_that_has_no_standing_is_told_to_all_sinks_whatever_becomes_of_its_rows() {
    let live = Standing::Live { from: Position::ZERO };
    // Such as a partition whose root is what is published.
    let unknown = pipeline(8).with_relations([told(2, 5)]).with_standings([(U, live)], true);
    let mut run = Run::of(unknown);
    run.pipeline.catalog(vec![catalog(3, 12)]);
    run.feed(Wire::new().keepalive(16));
    assert_eq!(run.lines(STATE), ["| schema t 15+0 k,v,w"]);
    assert_eq!(run.told(), ["altered t from 2 columns to 3"]);
    run.durable();
    assert_eq!(run.watermark(), 16);
}

#[test]
fn a_table_that_is_rewritten_and_asked_for_meanwhile_is_held_once_everything_before_is_durable() {
    let mut run = Run::of(live(8, vec![told(2, 5)]));
    run.feed(t(Wire::new()).begin(10).insert(T, &[Some("1"), None]).commit(10));
    run.feed_with(wide_row(wide_t(Wire::new()), 20, "2"), vec![catalog(3, 25)]);
    run.hold(T);
    assert_eq!(run.told(), ["rewritten t to 3 columns Over"], "what came before is on its way");
    run.durable();
    assert_eq!(run.told(), ["held 100, 0 is covered"]);
    run.hold(T);
    assert_eq!(run.told(), ["held 100, 0 is covered"]);
}
