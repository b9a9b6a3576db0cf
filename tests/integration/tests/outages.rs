//! What others do to connections and tables: idle connections that are closed, answers that break off, a ClickHouse that
//! takes no more parts, a slot near its limit.

use replicator_harness::{Config, PgOptions, PgVersion, Postgres, Proxy, Replicator, eventually_blocking};
use replicator_integration::{Sinks, World, stop, wait_for_copy, wait_for_stream};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(60);

fn world(version: PgVersion) -> World {
    let world = World::start(version);
    world.source.sql(
        "shop",
        "CREATE TABLE t (id bigint PRIMARY KEY, v text); INSERT INTO t SELECT n, 'v' || n FROM generate_series(1, 100) n",
    );
    world
}

/// All four, in the order of source, ClickHouse, Postgres and S3, and the configuration that goes through them.
fn proxies(world: &World) -> ([Proxy; 4], Config) {
    let addresses = [
        world.source.address(),
        world.clickhouse.address().to_owned(),
        world.target.address(),
        world.s3.address(),
    ];
    let proxies = addresses.map(Proxy::start);
    let [source, clickhouse, target, s3] = &proxies;
    let config = world
        .config()
        .set("source.url", source.rewrite(&world.source.url("shop")))
        .set_sink("analytics", "url", clickhouse.rewrite(&world.clickhouse.url()))
        .set_sink("copy", "url", target.rewrite(&world.target.url("copy")))
        .set_sink("archive", "endpoint", s3.rewrite(&world.s3.endpoint()));
    (proxies, config)
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_a_proxy_closes_when_they_are_idle_cost_no_change() {
    for version in [PgVersion::V15, PgVersion::V18] {
        let world = world(version);
        let (proxies, config) = proxies(&world);
        let mut replicator = Replicator::spawn(&config, &[]);
        replicator.wait_until_ready(SOON);
        wait_for_copy(&replicator);
        for round in 0..3 {
            world.source.sql("shop", &format!("UPDATE t SET v = v || '{round}' WHERE id % 3 = {round}; DELETE FROM t WHERE id = {round} + 50"));
            world.assert_soon_equal("before", SOON, Sinks::All, |_, _| true).await;
            // Nothing is under way on any of them.
            proxies.iter().for_each(Proxy::cut);
        }
        world.source.sql("shop", "INSERT INTO t VALUES (1000, 'last')");
        world.assert_soon_equal("afterwards", SOON, Sinks::All, |_, _| true).await;
        stop(&mut replicator, SOON);
        assert!(world.archive().len() > 100, "each event once");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_breaks_off_with_http_500_is_asked_for_again_and_nothing_is_there_twice() {
    for version in [PgVersion::V15, PgVersion::V18] {
        let world = world(version);
        let ([_source, clickhouse, _target, s3], config) = proxies(&world);
        let database = format!("{}_history", world.clickhouse.database());
        let config = config
            .clickhouse("history", &world.clickhouse)
            .set_sink("history", "url", clickhouse.rewrite(&world.clickhouse.url()))
            .set_sink("history", "database", database.as_str())
            .set_sink("history", "mode", "history")
            .set_sink("history", "batch.interval_ms", 200);
        let mut replicator = Replicator::spawn(&config, &[]);
        replicator.wait_until_ready(SOON);
        wait_for_copy(&replicator);
        let mut broken = 0;
        for round in 0..12 {
            clickhouse.fail_answer();
            s3.fail_answer();
            world.source.sql("shop", &format!("UPDATE t SET v = v || '{round}' WHERE id % 12 = {round}; INSERT INTO t VALUES (1000 + {round}, 'new')"));
            wait_for_stream(&world, &replicator);
            broken += u32::from(!clickhouse.forget_answer()) + u32::from(!s3.forget_answer());
        }
        assert!(broken > 12, "{broken} answers broke off");
        world.assert_soon_equal("afterwards", SOON, Sinks::All, |_, _| true).await;
        stop(&mut replicator, SOON);
        assert!(world.archive().len() > 100, "each event once");
        let twice = world.clickhouse.query(&format!(
            "SELECT count(), uniqExact(id, _version) FROM `{database}`.t WHERE _op <> 'read'"
        ));
        let (all, distinct) = twice.trim().split_once('\t').unwrap();
        assert_eq!(all, distinct, "rows of the history");
    }
}

/// The engine of these tests does not refuse inserts for that, so the answer is a server's, and not this one's.
#[tokio::test(flavor = "multi_thread")]
async fn a_clickhouse_that_takes_no_more_parts_is_waited_for_and_other_sinks_go_on() {
    const ANSWER: &str = "Code: 252. DB::Exception: Too many parts (300 with average size of 1.20 KiB) in table 'shop.t'. Merges \
        are processing significantly slower than inserts. (TOO_MANY_PARTS)";
    for version in [PgVersion::V15, PgVersion::V18] {
        let world = world(version);
        let ([_source, clickhouse, _target, _s3], config) = proxies(&world);
        let mut replicator = Replicator::spawn(&config, &[]);
        replicator.wait_until_ready(SOON);
        world.assert_soon_equal("before", SOON, Sinks::All, |_, _| true).await;
        clickhouse.answer_all(ANSWER);
        for round in 0..4 {
            world.source.sql("shop", &format!("UPDATE t SET v = v || '{round}' WHERE id % 4 = {round}; DELETE FROM t WHERE id = {round} + 20"));
            world.assert_soon_equal("the other sinks", SOON, Sinks::WithoutClickHouse, |_, _| true).await;
        }
        eventually_blocking(SOON, "a ClickHouse that refuses", || {
            match replicator.metrics().get("replicator_sink_up", &[("sink", "analytics")]) {
                0.0 => Ok(()),
                up => Err(format!("up: {up}: {}", replicator.stderr())),
            }
        });
        assert!(replicator.stderr().contains("Too many parts"), "{}", replicator.stderr());
        clickhouse.forget_answer();
        world.assert_soon_equal("afterwards", SOON, Sinks::All, |_, _| true).await;
        stop(&mut replicator, SOON);
    }
}

#[test]
fn while_a_sink_is_away_the_time_until_the_slot_is_lost_is_told() {
    for version in [PgVersion::V15, PgVersion::V18] {
        let options = PgOptions::default().setting("max_slot_wal_keep_size", "1GB");
        let source = Postgres::start(version, &options);
        source.createdb("shop");
        source.sql("shop", "CREATE TABLE t (id bigint PRIMARY KEY, v text)");
        let world = World::with_source(source);
        let config = world.postgres_config().set("buffer.bytes_max", "8MiB");
        let mut replicator = Replicator::spawn(&config, &[]);
        replicator.wait_until_ready(SOON);
        wait_for_copy(&replicator);
        let limit = || replicator.metrics().get("replicator_slot_limit_seconds", &[]);
        eventually_blocking(SOON, "no limit in sight", || match limit() {
            seconds if seconds.is_infinite() => Ok(()),
            seconds => Err(format!("{seconds} s")),
        });
        world.target.stop_fast();
        let mut next = 0;
        eventually_blocking(SOON, "the limit in sight", || {
            next += 1;
            let rows = "INSERT INTO t SELECT n, repeat('x', 1000) FROM generate_series(%, % + 9999) n";
            world.source.sql("shop", &rows.replace('%', &(next * 10_000).to_string()));
            match limit() {
                seconds if seconds > 0.0 && seconds < 3600.0 => Ok(()),
                seconds => Err(format!("{seconds} s")),
            }
        });
        world.target.start_again();
        wait_for_stream(&world, &replicator);
        stop(&mut replicator, SOON);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_whose_disk_is_full_is_waited_for_and_nothing_is_lost() {
    for version in [PgVersion::V15, PgVersion::V18] {
        let source = Postgres::start(version, &PgOptions::default());
        source.createdb("shop");
        source.sql("shop", "CREATE TABLE t (id bigint PRIMARY KEY, v text); INSERT INTO t SELECT n, 'v' || n FROM generate_series(1, 100) n");
        let world = World::with_target(source, &PgOptions::default().disk_that_can_fill());
        let mut replicator = Replicator::spawn(&world.config(), &[]);
        replicator.wait_until_ready(SOON);
        world.assert_soon_equal("before", SOON, Sinks::All, |_, _| true).await;
        world.target.fill_disk();
        // More than the pages that are there have room for.
        for round in 1..4 {
            world.source.sql("shop", &format!(
                "INSERT INTO t SELECT n, repeat('x', 500) FROM generate_series({round}000, {round}999) n; UPDATE t SET v = v || '!' WHERE id % 7 = {round}"
            ));
            world.assert_soon_equal("the other sinks", SOON, Sinks::WithoutPostgres, |_, _| true).await;
        }
        eventually_blocking(SOON, "a target that is full", || {
            match replicator.metrics().get("replicator_sink_up", &[("sink", "copy")]) {
                0.0 => Ok(()),
                up => Err(format!("up: {up}: {}", replicator.stderr())),
            }
        });
        assert!(replicator.stderr().contains("No space left on device"), "{}", replicator.stderr());
        world.target.free_disk();
        world.assert_soon_equal("afterwards", SOON, Sinks::All, |_, _| true).await;
        stop(&mut replicator, SOON);
    }
}
