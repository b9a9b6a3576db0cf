//! Exactly once, through crashes, replays that are cut differently, and changes of the shard count.

use crate::feed::{Feed, Owned, SAME, builder, relation, stream};
use crate::{VERSIONS, count, lane, send, server, sink, sink_at, try_send};
use proptest::prelude::*;
use proptest::test_runner::{RngAlgorithm, TestRng};
use replicator_harness::{PgVersion, Postgres};
use replicator_sink::{ErrorKind, Lane, Sink};
use replicator_types::{BatchBuilder, Op, Relation, shard_of};
use std::collections::BTreeMap;
use std::sync::Arc;

fn log() -> Arc<Relation> {
    Arc::new(relation("log", &[("n", "bigint")]))
}

fn three(log: &Arc<Relation>) -> Feed {
    let mut feed = Feed::new();
    for n in ["1", "2", "3"] {
        feed.insert(log, &[Some(n)]);
        feed.commit();
    }
    feed
}

#[tokio::test]
async fn a_batch_sent_or_prepared_again_changes_nothing() {
    for version in VERSIONS {
        let server = server(version);
        let log = log();
        let mut first = lane(&server).await;
        let mut write = first.prepare(Arc::new(three(&log).batch())).await.unwrap();
        write.send().await.unwrap();
        write.send().await.unwrap();
        assert_eq!(count(&server, "log"), 3);
        // Prepared again by the same lane, after the write was dropped between commit and acknowledgement.
        drop(write);
        let again = three(&log).batch();
        assert!(first.needs_drain(&again));
        try_send(&mut first, again).await.unwrap();
        // By another lane, as after a restart, and cut otherwise: partly old, partly new.
        drop(first);
        let mut second = lane(&server).await;
        let mut feed = three(&log);
        feed.changes.remove(0);
        feed.insert(&log, &[Some("4")]);
        let batch = feed.batch();
        assert!(second.needs_drain(&batch));
        try_send(&mut second, batch).await.unwrap();
        assert_eq!(server.sql("target", "SELECT n FROM log ORDER BY n"), "1\n2\n3\n4");
        let mut feed = Feed::from_lsn(100_000);
        feed.insert(&log, &[Some("5")]);
        let batch = feed.batch();
        assert!(!second.needs_drain(&batch));
        try_send(&mut second, batch).await.unwrap();
        assert_eq!(count(&server, "log"), 5);
    }
}

#[tokio::test]
async fn a_batch_dropped_before_it_was_sent_is_applied_when_it_comes_again() {
    let server = server(PgVersion::V17);
    let log = log();
    let mut lane = lane(&server).await;
    drop(lane.prepare(Arc::new(three(&log).batch())).await.unwrap());
    try_send(&mut lane, three(&log).batch()).await.unwrap();
    assert_eq!(count(&server, "log"), 3);
}

#[tokio::test]
async fn a_batch_prepared_while_the_one_before_it_is_not_sent_follows_it() {
    let server = server(PgVersion::V17);
    let log = log();
    let mut lane = lane(&server).await;
    let mut feed = three(&log);
    let mut first = lane.prepare(Arc::new(feed.batch())).await.unwrap();
    feed.insert(&log, &[Some("4")]);
    let mut second = lane.prepare(Arc::new(feed.batch())).await.unwrap();
    first.send().await.unwrap();
    second.send().await.unwrap();
    second.send().await.unwrap();
    assert_eq!(count(&server, "log"), 4);
}

#[tokio::test]
async fn two_writers_of_one_sink_do_not_both_write() {
    for version in VERSIONS {
        let server = server(version);
        let log = log();
        let mut one = lane(&server).await;
        let mut two = lane(&server).await;
        let mut feed = three(&log);
        // The one that came last has the sink.
        send(&mut two, &mut feed).await;
        let error = try_send(&mut one, three(&log).batch()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Halt, "{error}");
        assert!(error.to_string().contains("another replicator has begun to write to this sink"), "{error}");
        assert_eq!(count(&server, "log"), 3);
        feed.insert(&log, &[Some("4")]);
        send(&mut two, &mut feed).await;
        assert_eq!(count(&server, "log"), 4);
    }
}

#[tokio::test]
async fn truncates_that_are_in_are_not_done_again_under_another_shard_count() {
    let server = server(PgVersion::V15);
    let log = log();
    let mut feed = three(&log);
    feed.truncate(&[&log], false, false);
    feed.insert(&log, &[Some("5")]);
    let changes = feed.changes.clone();
    let mut history = History::new(&server, changes);
    history.run(1, 0, usize::MAX, &mut || 1).await;
    assert_eq!(count(&server, "log"), 1);
    server.sql("target", "INSERT INTO log VALUES (100)");
    history.run(3, 0, usize::MAX, &mut || 1).await;
    assert_eq!(server.sql("target", "SELECT n FROM log ORDER BY n"), "5\n100");
    let rows = "SELECT shards, count(*) FROM replicator.checkpoint GROUP BY 1 ORDER BY 1";
    assert_eq!(server.sql("target", rows), "1|1\n3|3");
}

/// All that the source ever sent, delivered again and again.
struct History<'a> {
    server: &'a Postgres,
    changes: Vec<Owned>,
}

struct Shard {
    lane: Box<dyn Lane>,
    open: BatchBuilder,
    /// The first change that is gathered and not durable.
    pending: Option<usize>,
}

impl Shard {
    async fn flush(&mut self, fenced: bool) {
        if let Some(batch) = self.open.cut(fenced) {
            try_send(&mut self.lane, batch).await.unwrap();
        }
        self.pending = None;
    }
}

impl<'a> History<'a> {
    fn new(server: &'a Postgres, changes: Vec<Owned>) -> Self {
        Self { server, changes }
    }

    /// Delivers the changes from `from` to `until` with that many shards, cutting by `dice`, and crashes: what
    /// is gathered and not sent is lost. Returns the first change that is not durable.
    async fn run(&mut self, shards: u32, from: usize, until: usize, dice: &mut impl FnMut() -> u32) -> usize {
        let sink = sink_at(&self.server.url("target"), shards);
        sink.prepare(&stream()).await.unwrap();
        let mut lanes = Vec::new();
        for shard in 0..shards {
            let lane = sink.open_lane(shard, &stream()).await.unwrap();
            lanes.push(Shard { lane, open: builder(), pending: None });
        }
        let end = self.changes.len();
        for (index, change) in self.changes.iter().enumerate().take(until).skip(from) {
            let shard = shard_of(change.key_hash, shards) as usize;
            if change.op == Op::Truncate {
                for lane in &mut lanes {
                    lane.flush(false).await;
                }
            }
            change.push(&mut lanes[shard].open);
            lanes[shard].pending.get_or_insert(index);
            if change.op == Op::Truncate {
                lanes[shard].flush(true).await;
            } else if dice().is_multiple_of(16) {
                let any = dice() as usize % lanes.len();
                lanes[any].flush(false).await;
            }
        }
        if until >= end {
            for lane in &mut lanes {
                lane.flush(false).await;
            }
        }
        lanes.iter().filter_map(|lane| lane.pending).min().unwrap_or(until.min(end))
    }
}

/// What the source's tables hold.
#[derive(Default)]
struct Model {
    rows: BTreeMap<u32, (u32, String)>,
    log: Vec<u32>,
}

/// A history of some length, and what it comes to.
fn random_history(dice: &mut impl FnMut() -> u32, length: usize) -> (Vec<Owned>, Model) {
    let rows = Arc::new(relation("rows", &[("*id", "bigint"), ("n", "bigint"), ("body", "text")]));
    let log = log();
    let mut feed = Feed::new();
    let mut model = Model::default();
    while feed.changes.len() < length {
        let n = dice() % 1_000;
        let text = n.to_string();
        let body = format!("body {n}");
        let id = dice() % 40;
        let id_text = id.to_string();
        let present = model.rows.contains_key(&id);
        match dice() % 100 {
            0..35 if present => {
                let row = model.rows.get_mut(&id).unwrap();
                row.0 = n;
                let same = n.is_multiple_of(2);
                if !same {
                    row.1.clone_from(&body);
                }
                feed.update(&rows, &[Some(&id_text), Some(&text), if same { SAME } else { Some(&body) }]);
            }
            0..50 if present => {
                model.rows.remove(&id);
                feed.delete(&rows, &[Some(&id_text), None, None]);
            }
            0..50 => {
                model.rows.insert(id, (n, body.clone()));
                feed.insert(&rows, &[Some(&id_text), Some(&text), Some(&body)]);
            }
            50..85 => {
                model.log.push(n);
                feed.insert(&log, &[Some(&text)]);
            }
            85..98 if !model.log.is_empty() => {
                let gone = model.log.swap_remove(dice() as usize % model.log.len()).to_string();
                feed.delete_full(&log, &[Some(&gone)]);
            }
            98 if dice().is_multiple_of(4) => {
                model.rows.clear();
                feed.truncate(&[&rows], false, false);
            }
            99 if dice().is_multiple_of(4) => {
                model.rows.clear();
                model.log.clear();
                feed.truncate(&[&rows, &log], false, false);
            }
            _ => feed.commit(),
        }
    }
    (feed.changes, model)
}

#[tokio::test]
async fn any_history_of_crashes_and_shard_counts_comes_to_what_the_source_has() {
    for version in VERSIONS {
        let server = server(version);
        for round in 0..6_u8 {
            // A failure prints the seed; put it here to see it again.
            let seed = [round + 10 * server.version().major() as u8; 32];
            let mut rng = TestRng::from_seed(RngAlgorithm::ChaCha, &seed);
            let mut dice = || rng.next_u32();
            server.sql("target", "DROP SCHEMA IF EXISTS replicator CASCADE; DROP TABLE IF EXISTS rows, log");
            let (changes, model) = random_history(&mut dice, 600);
            let length = changes.len();
            let mut history = History::new(&server, changes);
            let mut durable = 0;
            let mut runs = 0;
            while durable < length {
                // Begins anywhere at or before what is durable, ends anywhere after.
                let from = durable.saturating_sub(dice() as usize % 80);
                let until = from + 1 + dice() as usize % 250;
                let shards = 1 + dice() % 4;
                durable = durable.max(history.run(shards, from, until, &mut dice).await);
                runs += 1;
            }
            assert!(runs > 3, "seed {seed:?}: only {runs} runs");
            let rows: Vec<String> =
                model.rows.iter().map(|(id, (n, body))| format!("{id}|{n}|{body}")).collect();
            assert_eq!(server.sql("target", "TABLE rows ORDER BY id"), rows.join("\n"), "seed {seed:?}");
            let mut log = model.log;
            log.sort_unstable();
            let log: Vec<String> = log.iter().map(u32::to_string).collect();
            assert_eq!(server.sql("target", "SELECT n FROM log ORDER BY n"), log.join("\n"), "seed {seed:?}");
        }
    }
}

#[tokio::test]
async fn a_sink_that_knows_the_row_as_gone_says_so() {
    let server = server(PgVersion::V17);
    let log = log();
    let mut lane = lane(&server).await;
    server.sql("target", "DELETE FROM replicator.checkpoint");
    let error = try_send(&mut lane, three(&log).batch()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Halt);
    assert!(error.to_string().contains("replicator.checkpoint"), "{error}");
    assert_eq!(sink(&server).shards(), 1);
}
