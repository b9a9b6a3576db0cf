//! Connections that break at the worst moment.

use crate::feed::{Feed, SAME, relation, stream};
use crate::{VERSIONS, count, lane, prepared, server, sink_at, try_send};
use replicator_harness::{Direction, PgVersion, Proxy};
use replicator_sink::{ErrorKind, Sink, Write};
use std::sync::Arc;
use std::time::Duration;

/// Sends until it is durable, as a worker does.
async fn insist(write: &mut Box<dyn Write>) -> u32 {
    for failures in 0..50 {
        match write.send().await {
            Ok(()) => return failures,
            Err(error) => assert_eq!(error.kind(), ErrorKind::Retry, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("never durable");
}

#[tokio::test]
async fn a_connection_cut_at_any_byte_leaves_every_change_in_once() {
    for version in VERSIONS {
        let server = server(version);
        let proxy = Proxy::start(server.address());
        let sink = sink_at(&proxy.rewrite(&server.url("target")), 1);
        prepared(&sink).await.unwrap();
        let mut lane = sink.open_lane(0, &stream()).await.unwrap();
        let log = Arc::new(relation("log", &[("n", "bigint")]));
        let rows = Arc::new(relation("rows", &[("*id", "bigint"), ("n", "bigint"), ("body", "text")]));
        let mut feed = Feed::new();
        feed.insert(&rows, &[Some("1"), Some("0"), Some("body")]);
        feed.insert(&log, &[Some("0")]);
        try_send(&mut lane, feed.batch()).await.unwrap();

        let mut sent: u64 = 1;
        let mut failures = 0;
        let mut batch = |feed: &mut Feed| {
            let n = sent.to_string();
            sent += 1;
            feed.insert(&log, &[Some(&n)]);
            feed.update(&rows, &[Some("1"), Some(&n), SAME]);
            feed.update(&rows, &[Some("2"), Some(&n), Some("whole")]);
            feed.delete(&rows, &[Some("3"), None, None]);
            feed.batch()
        };
        // How much a batch without trouble sends and receives, with statements prepared and stages made.
        try_send(&mut lane, batch(&mut feed)).await.unwrap();
        let measure = || [Direction::ToClient, Direction::ToUpstream].map(|way| proxy.forwarded_bytes(way));
        let before = measure();
        try_send(&mut lane, batch(&mut feed)).await.unwrap();
        let after = measure();
        for (place, way) in [Direction::ToClient, Direction::ToUpstream].into_iter().enumerate() {
            let bytes = (after[place] - before[place]) as u32;
            // The last bytes are COMMIT and its answer: each of them. Before, a sample.
            let cuts = (0..bytes).filter(|cut| cut % 37 == 0 || *cut + 30 > bytes);
            for cut in cuts {
                // On a connection whose statements are prepared. Of a batch that was measured too long the cut comes
                // only now.
                insist(&mut lane.prepare(Arc::new(batch(&mut feed))).await.unwrap()).await;
                let mut write = lane.prepare(Arc::new(batch(&mut feed))).await.unwrap();
                proxy.cut_after(cut, way);
                failures += insist(&mut write).await;
            }
        }
        assert!(failures > 40, "{failures} failures");
        assert_eq!(count(&server, "log"), sent);
        assert_eq!(server.sql("target", "SELECT count(DISTINCT n) FROM log"), sent.to_string());
        let last = (sent - 1).to_string();
        assert_eq!(server.sql("target", "TABLE rows ORDER BY id"), format!("1|{last}|body\n2|{last}|whole"));
    }
}

#[tokio::test]
async fn a_server_that_restarts_is_written_to_again() {
    for version in VERSIONS {
        let server = server(version);
        let mut lane = lane(&server).await;
        let log = Arc::new(relation("log", &[("n", "bigint")]));
        let mut feed = Feed::new();
        for round in 0..3 {
            feed.insert(&log, &[Some("1")]);
            let mut write = lane.prepare(Arc::new(feed.batch())).await.unwrap();
            match round {
                0 => server.restart(),
                1 => server.kill9(),
                _ => server.stop_immediate(),
            }
            if round > 0 {
                assert_eq!(write.send().await.unwrap_err().kind(), ErrorKind::Retry);
                server.start_again();
            }
            insist(&mut write).await;
        }
        assert_eq!(count(&server, "log"), 3);
    }
}

#[tokio::test]
async fn a_send_given_up_in_the_middle_can_be_sent_again() {
    for version in VERSIONS {
        let server = server(version);
        let mut lane = lane(&server).await;
        let log = Arc::new(relation("log", &[("n", "bigint")]));
        let rows = Arc::new(relation("rows", &[("*id", "bigint"), ("n", "bigint")]));
        let mut feed = Feed::new();
        feed.insert(&log, &[Some("0")]);
        feed.insert(&rows, &[Some("1"), Some("0")]);
        try_send(&mut lane, feed.batch()).await.unwrap();

        // Somebody holds the row that comes last.
        let other = server.client("target").await;
        other.batch_execute("BEGIN; UPDATE rows SET n = 5").await.unwrap();
        feed.insert(&log, &[Some("1")]);
        feed.update(&rows, &[Some("1"), Some("1")]);
        let mut write = lane.prepare(Arc::new(feed.batch())).await.unwrap();
        for _ in 0..3 {
            assert!(tokio::time::timeout(Duration::from_millis(300), write.send()).await.is_err());
        }
        other.batch_execute("ROLLBACK").await.unwrap();
        insist(&mut write).await;
        write.send().await.unwrap();
        assert_eq!(count(&server, "log"), 2);
        assert_eq!(server.sql("target", "TABLE rows"), "1|1");
        // The connections given up have not been left behind.
        let sessions = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'replicator'";
        assert_eq!(server.sql("target", sessions), "1");
    }
}

#[tokio::test]
async fn a_connection_that_hangs_with_its_locks_held_is_ended_and_replaced() {
    let server = server(PgVersion::V17);
    let proxy = Proxy::start(server.address());
    let sink = sink_at(&proxy.rewrite(&server.url("target")), 1);
    prepared(&sink).await.unwrap();
    let mut lane = sink.open_lane(0, &stream()).await.unwrap();
    let log = Arc::new(relation("log", &[("n", "bigint")]));
    let mut feed = Feed::new();
    feed.insert(&log, &[Some("0")]);
    try_send(&mut lane, feed.batch()).await.unwrap();
    feed.insert(&log, &[Some("1")]);
    let mut write = lane.prepare(Arc::new(feed.batch())).await.unwrap();
    // The server sees the transaction begin and nothing after that; nobody closes the connection.
    let other = server.client("target").await;
    other.batch_execute("BEGIN; LOCK TABLE log").await.unwrap();
    assert!(tokio::time::timeout(Duration::from_millis(300), write.send()).await.is_err());
    assert!(
        server.sql(
            "target",
            "SELECT count(*) FROM pg_locks WHERE relation = 'replicator.checkpoint'::regclass"
        ) != "0"
    );
    other.batch_execute("COMMIT").await.unwrap();
    insist(&mut write).await;
    assert_eq!(count(&server, "log"), 2);
}
