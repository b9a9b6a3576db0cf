//! Two processes with one configuration: one follows the slot, the other stands by.

use replicator_harness::{PgOptions, PgVersion, Postgres, Proxy, Replicator};
use replicator_integration::{Sinks, World, stop};
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(60);

fn world() -> World {
    let world = World::start(PgVersion::V15);
    world.source.sql("shop", "CREATE TABLE t (id bigint PRIMARY KEY, v text)");
    world
}

fn insert(world: &World, from: u64, to: u64) {
    world
        .source
        .sql("shop", &format!("INSERT INTO t SELECT n, 'v' || n FROM generate_series({from}, {to}) n"));
}

/// Two, the first of which follows. The second has looked at nothing but the lease.
fn two(world: &World) -> (Replicator, Replicator) {
    let mut first = Replicator::spawn(&world.config(), &[]);
    first.wait_until_ready(SOON);
    let mut second = Replicator::spawn(&world.config(), &[]);
    second.wait_for_line("in use by process", SOON);
    insert(world, 1, 1000);
    (first, second)
}

/// What is promised, until the slot is the other's. Its sinks are opened then, which takes as long as the machine is busy.
const TAKEOVER_MAX: Duration = Duration::from_secs(5);

fn takes_over(second: &mut Replicator) {
    let begun = Instant::now();
    second.wait_for_line("source ready", SOON);
    let taken_over = begun.elapsed();
    second.wait_until_ready(SOON);
    println!("taken over after {taken_over:?}, ready after {:?}", begun.elapsed());
    assert!(taken_over < TAKEOVER_MAX, "{taken_over:?}: {}", second.stderr());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_stands_by_takes_over_when_the_first_dies() {
    let world = world();
    let (mut first, mut second) = two(&world);
    // Long enough for the first to be acknowledged further than the second could have known at its start.
    world.assert_soon_equal("the first", SOON, Sinks::All, |_, _| true).await;
    assert!(second.is_running());
    assert!(!second.stderr().contains("source ready"), "{}", second.stderr());
    first.kill9();
    takes_over(&mut second);
    insert(&world, 1001, 2000);
    world.assert_soon_equal("the second", SOON, Sinks::All, |_, _| true).await;
    second.sigterm();
    assert!(second.wait(SOON).success(), "{}", second.stderr());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_is_stopped_for_seconds_is_taken_over_from_and_ends_when_it_goes_on() {
    let world = world();
    let (mut first, mut second) = two(&world);
    first.freeze();
    takes_over(&mut second);
    insert(&world, 1001, 2000);
    world.assert_soon_equal("the second", SOON, Sinks::All, |_, _| true).await;
    first.thaw();
    assert_eq!(first.wait(SOON).code(), Some(1), "{}", first.stderr());
    // Whom it asks first, the source or a sink, depends on what it was at.
    let reasons = ["has lost the slot", "another replicator has"];
    assert!(reasons.iter().any(|reason| first.stderr().contains(reason)), "{}", first.stderr());
    insert(&world, 2001, 3000);
    world.assert_soon_equal("behind the first's end", SOON, Sinks::All, |_, _| true).await;
    second.sigterm();
    assert!(second.wait(SOON).success(), "{}", second.stderr());
}

#[test]
fn a_lease_whose_session_is_ended_is_taken_again_when_nobody_else_wants_it() {
    let world = world();
    let mut only = Replicator::spawn(&world.config(), &[]);
    only.wait_until_ready(SOON);
    let end = "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'";
    assert_eq!(world.source.sql("shop", end), "t");
    only.wait_for_line("lease taken again", SOON);
    assert!(only.is_running());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_is_cut_off_from_the_source_is_taken_over_from_and_writes_nothing_more() {
    // Without a word, and with a reset and no way back.
    for is_silent in [true, false] {
        let world = world();
        let proxy = Proxy::start(world.source.address());
        let config = world.config().set("source.url", proxy.rewrite(&world.source.url("shop")));
        let mut first = Replicator::spawn(&config, &[]);
        first.wait_until_ready(SOON);
        let mut second = Replicator::spawn(&world.config(), &[]);
        second.wait_for_line("in use by process", SOON);
        insert(&world, 1, 1000);
        world.assert_soon_equal("the first", SOON, Sinks::All, |_, _| true).await;
        if is_silent {
            proxy.stall();
        } else {
            proxy.refuse();
            proxy.cut();
        }
        takes_over(&mut second);
        world.source.sql("shop", "UPDATE t SET v = 'second'; DELETE FROM t WHERE id % 3 = 0");
        world.assert_soon_equal("the second", SOON, Sinks::All, |_, _| true).await;
        proxy.resume();
        proxy.accept();
        assert_eq!(first.wait(SOON).code(), Some(1), "{}", first.stderr());
        insert(&world, 2001, 3000);
        world.assert_soon_equal("behind the first's end", SOON, Sinks::All, |_, _| true).await;
        stop(&mut second, SOON);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_walsender_and_a_session_that_a_killed_process_left_behind_are_ended_by_the_next() {
    // The source would keep both for a minute and more, since nobody tells it that their peer is gone.
    let options = PgOptions::default().setting("wal_sender_timeout", "60s");
    let source = Postgres::start(PgVersion::V17, &options);
    source.createdb("shop");
    source.sql("shop", "CREATE TABLE t (id bigint PRIMARY KEY, v text)");
    let world = World::with_source(source);
    let proxy = Proxy::start(world.source.address());
    let config = world.config().set("source.url", proxy.rewrite(&world.source.url("shop")));
    let mut first = Replicator::spawn(&config, &[]);
    first.wait_until_ready(SOON);
    insert(&world, 1, 1000);
    world.assert_soon_equal("the first", SOON, Sinks::All, |_, _| true).await;
    proxy.stall();
    first.kill9();
    assert_eq!(world.source.sql("shop", "SELECT active FROM pg_replication_slots"), "t");
    let mut next = Replicator::spawn(&world.config(), &[]);
    takes_over(&mut next);
    insert(&world, 1001, 2000);
    world.assert_soon_equal("the next", SOON, Sinks::All, |_, _| true).await;
    stop(&mut next, SOON);
}
