//! Changes that were held while their table was copied: older and newer than what the copy brought, and repeated.

use crate::feed::{Feed, Owned, SAME, relation, stream};
use crate::{VERSIONS, count, lane, server, sink, try_send};
use proptest::prelude::Rng;
use proptest::test_runner::{RngAlgorithm, TestRng};
use replicator_harness::PgVersion;
use replicator_sink::{ErrorKind, Sink};
use replicator_types::{Batch, BatchBuilder, Budget, Phase, Relation};
use std::collections::BTreeMap;
use std::sync::Arc;

fn rows() -> Arc<Relation> {
    Arc::new(relation("rows", &[("*id", "bigint"), ("n", "bigint"), ("body", "text")]))
}

#[tokio::test]
async fn held_changes_neither_wait_for_the_checkpoint_nor_move_it() {
    for version in VERSIONS {
        let server = server(version);
        let mut lane = lane(&server).await;
        let (rows, log) = (rows(), Arc::new(relation("log", &[("n", "bigint")])));
        let mut ahead = Feed::from_lsn(50_000);
        ahead.insert(&log, &[Some("1")]);
        try_send(&mut lane, ahead.batch()).await.unwrap();
        let at = "SELECT commit_lsn, ordinal FROM replicator.checkpoint";
        let before = server.sql("target", at);
        let mut held = Feed::new();
        held.insert(&rows, &[Some("1"), Some("1"), Some("a")]);
        held.update(&rows, &[Some("2"), Some("2"), SAME]);
        held.update(&rows, &[Some("3"), Some("3"), Some("c")]);
        held.delete(&rows, &[Some("4"), None, None]);
        let batch = Arc::new(held.batch_of(Phase::CatchUp));
        assert!(!lane.needs_drain(&batch));
        let mut write = lane.prepare(Arc::clone(&batch)).await.unwrap();
        write.send().await.unwrap();
        write.send().await.unwrap();
        assert_eq!(server.sql("target", "TABLE rows ORDER BY id"), "1|1|a\n3|3|c");
        assert_eq!(server.sql("target", at), before);
        // The stream goes on from where it was.
        ahead.insert(&log, &[Some("2")]);
        try_send(&mut lane, ahead.batch()).await.unwrap();
        assert_eq!(count(&server, "log"), 2);
        // A second writer ends this one, here as well.
        let _other = crate::lane(&server).await;
        let sent = match lane.prepare(batch).await {
            Ok(mut write) => write.send().await,
            Err(error) => Err(error),
        };
        let error = sent.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Halt, "{error}");
    }
}

#[tokio::test]
async fn a_row_that_was_moved_before_its_copy_is_not_moved_again() {
    for version in VERSIONS {
        let server = server(version);
        let mut lane = lane(&server).await;
        let rows = rows();
        let moved = |feed: &mut Feed| {
            feed.move_row(&rows, &[Some("1"), None, None], &[Some("2"), Some("5"), SAME]);
        };
        let mut feed = Feed::new();
        for copied in ["2|5|toast", "1|4|toast", "1|9|other\n2|5|toast"] {
            server.sql(
                "target",
                "CREATE TABLE IF NOT EXISTS rows (id bigint PRIMARY KEY, n bigint, body text); TRUNCATE rows",
            );
            for row in copied.lines() {
                server.sql("target", &format!("INSERT INTO rows VALUES ('{}')", row.replace('|', "','")));
            }
            for _ in 0..2 {
                moved(&mut feed);
                try_send(&mut lane, feed.batch_of(Phase::CatchUp)).await.unwrap();
                assert_eq!(server.sql("target", "TABLE rows ORDER BY id"), "2|5|toast", "{copied}");
            }
        }
        server.sql("target", "TRUNCATE rows");
        moved(&mut feed);
        try_send(&mut lane, feed.batch_of(Phase::CatchUp)).await.unwrap();
        assert_eq!(count(&server, "rows"), 0);
    }
}

#[tokio::test]
async fn a_key_that_is_only_spelt_otherwise_keeps_its_row() {
    let server = server(PgVersion::V15);
    let mut lane = lane(&server).await;
    let rows = Arc::new(relation("rows", &[("*id", "numeric"), ("n", "bigint"), ("body", "text")]));
    let mut feed = Feed::new();
    feed.insert(&rows, &[Some("1.0"), Some("1"), Some("toast")]);
    feed.move_row(&rows, &[Some("1.0"), None, None], &[Some("1.00"), Some("2"), SAME]);
    try_send(&mut lane, feed.batch_of(Phase::CatchUp)).await.unwrap();
    assert_eq!(server.sql("target", "TABLE rows"), "1.00|2|toast");
}

#[tokio::test]
async fn a_keyless_tables_held_changes_are_in_once_however_often_their_batch_is_sent() {
    for version in VERSIONS {
        let server = server(version);
        let mut first = lane(&server).await;
        let log = Arc::new(relation("log", &[("n", "bigint")]));
        let mut feed = Feed::new();
        feed.insert(&log, &[Some("1")]);
        feed.insert(&log, &[Some("1")]);
        feed.delete_full(&log, &[Some("1")]);
        let batch = Arc::new(feed.batch_of(Phase::CatchUp));
        let mut write = first.prepare(Arc::clone(&batch)).await.unwrap();
        write.send().await.unwrap();
        write.send().await.unwrap();
        drop(write);
        first.prepare(batch).await.unwrap().send().await.unwrap();
        assert_eq!(count(&server, "log"), 1);
        feed.truncate(&[&log], false, false);
        feed.insert(&log, &[Some("2")]);
        try_send(&mut first, feed.batch_of(Phase::CatchUp)).await.unwrap();
        assert_eq!(server.sql("target", "TABLE log"), "2");
    }
}

/// The source's table: what a history did to it, up to any change.
type Model = BTreeMap<u32, (u32, String)>;

/// A history of a table, and its state after each change. Rows move to keys that nobody had before: as values of the
/// rest are not sent with them, no replay could tell a key's old row from its new one.
fn history(dice: &mut impl FnMut() -> u32, length: usize) -> (Vec<Owned>, Vec<Model>) {
    let rows = rows();
    let mut feed = Feed::new();
    let mut model = Model::new();
    let mut states = vec![model.clone()];
    let mut never_used = 1_000;
    while feed.changes.len() < length {
        let n = dice() % 1_000;
        let (text, body) = (n.to_string(), format!("body {n}"));
        let keys: Vec<u32> = model.keys().copied().collect();
        let present = keys.get(dice() as usize % keys.len().max(1)).copied();
        match (dice() % 10, present) {
            (0..4, Some(id)) => {
                let same = n.is_multiple_of(2);
                let row = model.get_mut(&id).unwrap();
                row.0 = n;
                if !same {
                    row.1.clone_from(&body);
                }
                feed.update(
                    &rows,
                    &[Some(&id.to_string()), Some(&text), if same { SAME } else { Some(&body) }],
                );
            }
            (4, Some(id)) => {
                model.remove(&id);
                feed.delete(&rows, &[Some(&id.to_string()), None, None]);
            }
            (5, Some(id)) => {
                let row = model.remove(&id).unwrap();
                never_used += 1;
                model.insert(never_used, (n, row.1));
                let new = never_used.to_string();
                feed.move_row(&rows, &[Some(&id.to_string()), None, None], &[Some(&new), Some(&text), SAME]);
            }
            (6, _) if n.is_multiple_of(20) => {
                model.clear();
                feed.truncate(&[&rows], false, false);
            }
            (6..10, _) => {
                let id = dice() % 20;
                if model.contains_key(&id) {
                    continue;
                }
                model.insert(id, (n, body.clone()));
                feed.insert(&rows, &[Some(&id.to_string()), Some(&text), Some(&body)]);
            }
            _ => continue,
        }
        states.push(model.clone());
        if dice().is_multiple_of(5) {
            feed.commit();
        }
    }
    (feed.changes, states)
}

fn batches(changes: &[Owned], dice: &mut impl FnMut() -> u32) -> Vec<Batch> {
    let mut builder = BatchBuilder::of_phase(Budget::new(1 << 30), Phase::CatchUp);
    let mut batches = Vec::new();
    for change in changes {
        change.push(&mut builder);
        if dice().is_multiple_of(12) {
            batches.extend(builder.cut(false));
        }
    }
    batches.extend(builder.cut(false));
    batches
}

#[tokio::test]
async fn a_copy_and_every_change_since_before_it_replayed_twice_come_to_what_the_source_has() {
    for version in VERSIONS {
        let server = server(version);
        for round in 0..12_u8 {
            // A failure prints the seed; put it here to see it again.
            let seed = [round + 50 * u8::from(version == PgVersion::V18); 32];
            let mut rng = TestRng::from_seed(RngAlgorithm::ChaCha, &seed);
            let mut dice = || rng.next_u32();
            server.sql(
                "target",
                "DROP SCHEMA IF EXISTS replicator CASCADE; DROP TABLE IF EXISTS rows;
                 CREATE TABLE rows (id bigint PRIMARY KEY, n bigint, body text)",
            );
            let sink = sink(&server);
            sink.prepare(&stream()).await.unwrap();
            let mut lane = sink.open_lane(0, &stream()).await.unwrap();
            let (changes, states) = history(&mut dice, 120);
            // Copied somewhere between where the held changes begin and their end.
            let from = dice() as usize % changes.len();
            let copied = from + dice() as usize % (changes.len() - from);
            let rows: Vec<String> =
                states[copied].iter().map(|(id, (n, body))| format!("({id}, {n}, '{body}')")).collect();
            if !rows.is_empty() {
                server.sql("target", &format!("INSERT INTO rows VALUES {}", rows.join(", ")));
            }
            let expected: Vec<String> =
                states[changes.len()].iter().map(|(id, (n, body))| format!("{id}|{n}|{body}")).collect();
            for replay in 0..2 {
                for batch in batches(&changes[from..], &mut dice) {
                    try_send(&mut lane, batch).await.unwrap();
                }
                let found = server.sql("target", "TABLE rows ORDER BY id");
                assert_eq!(
                    found,
                    expected.join("\n"),
                    "seed {seed:?}, replay {replay}, from {from}, copied {copied}"
                );
            }
        }
    }
}
