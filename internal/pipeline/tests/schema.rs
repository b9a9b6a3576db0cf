//! Changes of tables, what the catalog tells of them, and logical messages.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on may panic")]

mod run;
use replicator_model::wire;

use replicator_types::{ReplicaIdentity, TableCatalog, oid};
use run::{LOG, Run, STATE, T, catalog, pipeline, t, wide_t};
use wire::Wire;

fn whole(wire: Wire, commit_lsn: u64, key: &str) -> Wire {
    wire.begin(commit_lsn).insert(T, &[Some(key), None]).commit(commit_lsn)
}

fn wide_row(wire: Wire, commit_lsn: u64, key: &str) -> Wire {
    wire.begin(commit_lsn).insert(T, &[Some(key), None, None]).commit(commit_lsn)
}

/// `T` with two columns, known to the catalog, and a row of it.
fn begun() -> Run {
    let mut run = Run::new();
    run.feed_with(whole(t(Wire::new()), 10, "1"), vec![catalog(2, 5)]);
    run.lines(STATE);
    run.lines(LOG);
    run
}

#[test]
fn a_table_that_changes_is_told_to_every_sink_before_the_change_behind_a_fence() {
    let mut run = begun();
    let wire = wide_t(Wire::new().begin(20).insert(T, &[Some("2"), None]));
    run.feed_with(wire.insert(T, &[Some("3"), None, Some("w")]).commit(20), vec![catalog(3, 28)]);
    for sink in [STATE, LOG] {
        assert_eq!(
            run.lines(sink),
            ["insert t 20+0 2,NULL", "| schema t 20+1 k,v,w", "insert t 20+1 3,NULL,w"]
        );
    }
    assert_eq!(run.told(), ["altered t from 2 columns to 3"]);
    run.durable();
    assert_eq!(run.watermark(), 28);
}

#[test]
fn a_table_described_again_as_it_was_is_not_told() {
    let mut run = begun();
    run.feed(whole(t(Wire::new()), 20, "2"));
    assert_eq!(run.lines(STATE), ["insert t 20+0 2,NULL"]);
    assert!(run.told().is_empty());
}

#[test]
fn what_a_reconnect_tells_of_tables_a_second_time_is_not_told_to_the_sinks() {
    let narrow = |wire| whole(t(wire), 16, "1");
    let wide = |wire| wide_row(wide_t(wire), 24, "2");
    let mut run = Run::new();
    run.feed(wide(narrow(Wire::new())));
    assert_eq!(run.told(), ["altered t from 2 columns to 3"]);
    run.lines(STATE);
    run.pipeline.reconnected();
    run.feed(wide_row(wide(narrow(Wire::new())), 32, "3"));
    assert_eq!(run.lines(STATE), ["insert t 32+0 3,NULL,NULL"]);
    assert!(run.told().is_empty(), "a rewrite of the table would be made out of it");
}

#[test]
fn what_a_transaction_that_was_cut_off_tells_of_a_table_is_told_once() {
    let cut = |wire: Wire| wide_t(t(wire).begin(20).insert(T, &[Some("1"), None]));
    let mut run = Run::new();
    run.feed(cut(Wire::new()).insert(T, &[Some("2"), None, None]));
    run.pipeline.reconnected();
    let again = cut(Wire::new()).insert(T, &[Some("2"), None, None]).insert(T, &[Some("3"), None, None]);
    run.feed(again.commit(20));
    assert_eq!(
        run.lines(STATE),
        [
            "insert t 20+0 1,NULL",
            "| schema t 20+1 k,v,w",
            "insert t 20+1 2,NULL,NULL",
            "insert t 20+2 3,NULL,NULL"
        ]
    );
    assert_eq!(run.told(), ["altered t from 2 columns to 3"]);
}

#[test]
fn a_table_described_among_what_is_passed_over_is_told_with_its_next_change() {
    let mut run = begun();
    run.pipeline.reconnected();
    // Told of by the catalog, the stream knows better: it goes on as it was.
    run.pipeline.catalog(vec![catalog(3, 12)]);
    run.feed(Wire::new().keepalive(19));
    assert_eq!(run.lines(STATE), ["| schema t 18+0 k,v,w"]);
    run.feed(whole(whole(t(Wire::new()), 10, "1"), 24, "2"));
    assert_eq!(run.lines(STATE), ["| schema t 24+0 k,v", "insert t 24+0 2,NULL"]);
}

#[test]
fn what_the_catalog_says_is_told_when_the_stream_has_passed_it_at_the_end_of_a_transaction() {
    let mut run = begun();
    run.pipeline.catalog(vec![catalog(3, 30)]);
    run.feed(Wire::new().keepalive(26));
    assert!(run.lines(STATE).is_empty());
    run.feed(Wire::new().begin(40).insert(T, &[Some("2"), None]));
    assert_eq!(run.lines(STATE), ["insert t 40+0 2,NULL"]);
    run.feed(Wire::new().commit(40));
    assert_eq!(run.lines(STATE), ["| schema t 47+0 k,v,w"], "between that transaction and the next");
    assert_eq!(run.lines(LOG), ["insert t 40+0 2,NULL", "| schema t 47+0 k,v,w"]);
    assert_eq!(run.told(), ["altered t from 2 columns to 3"]);
    run.feed(wide_row(wide_t(Wire::new()), 48, "3"));
    assert_eq!(run.lines(STATE), ["insert t 48+0 3,NULL,NULL"], "told already");
    run.durable();
    assert_eq!(run.watermark(), 56);
}

#[test]
fn a_catalog_older_than_what_the_stream_has_told_changes_nothing() {
    let mut run = begun();
    run.pipeline.catalog(vec![catalog(2, 15)]);
    // One chunk goes past both.
    run.feed_with(wide_row(wide_t(Wire::new()), 24, "2"), vec![catalog(3, 24)]);
    run.feed(wide_row(Wire::new(), 40, "3"));
    assert_eq!(
        run.lines(STATE),
        ["| schema t 24+0 k,v,w", "insert t 24+0 2,NULL,NULL", "insert t 40+0 3,NULL,NULL"]
    );
}

#[test]
fn a_poll_is_not_put_off_by_the_ones_behind_it() {
    let mut run = begun();
    for step in 0..5 {
        run.pipeline.catalog(vec![catalog(3, 30 + 10 * step)]);
        run.feed(Wire::new().keepalive(20 + 10 * step));
    }
    assert_eq!(run.lines(STATE).len(), 1);
}

#[test]
fn a_poll_of_a_table_that_looks_the_same_tells_nothing_whatever_its_identity() {
    let key = |name: &str| vec![name.to_owned()];
    // Identity, columns in it, primary key and identity index as the catalog has them.
    let identities = [
        (b'd', vec!["k"], ReplicaIdentity::Default, key("k"), vec![]),
        (b'd', vec![], ReplicaIdentity::Default, vec![], vec![]),
        (b'i', vec!["v"], ReplicaIdentity::Index, key("k"), key("v")),
        (b'f', vec!["k", "v", "w"], ReplicaIdentity::Full, key("k"), vec![]),
        (b'f', vec!["k", "v", "w"], ReplicaIdentity::Full, vec![], vec![]),
        (b'n', vec![], ReplicaIdentity::Nothing, key("k"), vec![]),
    ];
    for (letter, in_identity, replica_identity, primary_key, identity_index) in identities {
        for published in [3, 2] {
            let columns = [("k", oid::INT8), ("v", oid::TEXT), ("w", oid::TEXT)];
            let columns: Vec<_> = columns[..published]
                .iter()
                .map(|(name, type_oid)| (*name, *type_oid, in_identity.contains(name)))
                .collect();
            let of = |columns, read_at| TableCatalog {
                replica_identity,
                primary_key: primary_key.clone(),
                identity_index: identity_index.clone(),
                nondeterministic: vec!["v".into()],
                ..catalog(columns, read_at)
            };
            let mut run = Run::new();
            // Looked up by oid, the table has all columns; in a poll, those that are published.
            let row = [Some("1"), None, None];
            let wire = Wire::new().relation(T, "t", letter, &columns).begin(10);
            run.feed_with(wire.insert(T, &row[..published]).commit(10), vec![of(3, 5)]);
            run.lines(STATE);
            run.pipeline.catalog(vec![of(published, 15)]);
            run.feed(Wire::new().keepalive(32));
            let text = format!("identity {}, {published} columns", char::from(letter));
            assert_eq!((run.lines(STATE).len(), run.told().len()), (0, 0), "{text}");
            // The same described again by the stream.
            run.feed(Wire::new().begin(40).relation(T, "t", letter, &columns).commit(40));
            assert_eq!((run.lines(STATE).len(), run.told().len()), (0, 0), "{text}");
        }
    }
}

#[test]
fn a_message_in_a_transaction_takes_a_number_in_it_whoever_wants_it() {
    let mut run = Run::new();
    let wire = t(Wire::new()).begin(10).insert(T, &[Some("1"), None]).logical("hello");
    run.feed(wire.logical_with_prefix("replicator", "own").insert(T, &[Some("2"), None]).commit(10));
    assert_eq!(run.lines(STATE), ["insert t 10+0 1,NULL", "insert t 10+3 2,NULL"]);
    assert_eq!(
        run.lines(LOG),
        ["insert t 10+0 1,NULL", "message message 10+1 t,prefix,hello", "insert t 10+3 2,NULL"]
    );
}

#[test]
fn a_message_that_stands_alone_comes_once_in_its_place_also_after_a_reconnect() {
    let mut run = Run::new();
    // The second message's record ends where the commit record begins.
    let start = t(Wire::new()).logical_alone(8, "p", "a");
    let start = whole(whole(start, 16, "1").logical_alone(32, "p", "b"), 32, "2");
    run.feed(start.clone());
    run.pipeline.reconnected();
    run.feed(start.logical_alone(48, "p", "c").logical_alone(56, "replicator", "own").keepalive(60));
    let expected = [
        "message message 6+0 f,p,a",
        "insert t 16+0 1,NULL",
        "message message 30+0 f,p,b",
        "insert t 32+0 2,NULL",
        "message message 46+0 f,p,c",
    ];
    assert_eq!(run.lines(LOG), expected);
    run.durable();
    assert_eq!(run.watermark(), 60);
}

#[test]
fn what_the_catalog_says_behind_a_message_is_told_behind_it() {
    let mut run = begun();
    run.pipeline.catalog(vec![catalog(3, 30)]);
    run.feed(Wire::new().logical_alone(40, "p", "a"));
    assert_eq!(run.lines(LOG), ["message message 38+0 f,p,a", "| schema t 39+0 k,v,w"]);
}

#[test]
fn a_request_holds_the_watermark_until_it_is_answered_and_is_made_once() {
    let mut run = Run::of(pipeline(0).with_request_prefix("replicator.resync".into()));
    let request = |wire: Wire| wire.begin(10).logical_with_prefix("replicator.resync", "public.t");
    run.feed(request(t(Wire::new())));
    run.pipeline.reconnected();
    run.feed(request(t(Wire::new())).commit(10).keepalive(30));
    let notices = run.pipeline.take_notices();
    let [replicator_pipeline::Notice::Request { id, content, .. }] = &notices[..] else {
        panic!("{notices:?}")
    };
    assert_eq!(content, b"public.t");
    assert!(run.lines(LOG).is_empty(), "it is nothing for sinks");
    assert_eq!(run.watermark(), 0);
    run.pipeline.answered(*id);
    assert_eq!(run.watermark(), 30);
}
