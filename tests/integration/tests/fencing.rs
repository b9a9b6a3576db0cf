//! Two processes with one configuration that take the slot from each other under load: whatever the stopped one still
//! had in its hands, every sink ends with the source's state.

use replicator_harness::{Config, PgVersion, Replicator};
use replicator_integration::{Described, Table, World, assert_archive_folds_to, described_events, drain};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(90);
const ITEMS: Table = Table { name: "items", key: &["id"] };
/// From the stop of one to the other's readiness. The product's own bound is 5 s; a busy machine gets some more.
const TAKEOVER_MAX: Duration = Duration::from_secs(15);

/// Keys that are updated, deleted and made again all the time, and a table that is emptied now and then.
const LOAD: &str = "
CREATE TABLE items (id bigint PRIMARY KEY, turn bigint NOT NULL, note text);
ALTER TABLE items ALTER note SET STORAGE EXTERNAL;
CREATE TABLE emptied (id bigint PRIMARY KEY, turn bigint NOT NULL);
CREATE SEQUENCE turns;
CREATE PROCEDURE load() LANGUAGE plpgsql AS $$
DECLARE now_turn bigint := nextval('turns');
BEGIN
    INSERT INTO items SELECT n, now_turn, repeat('n' || now_turn, 800)
        FROM (SELECT DISTINCT (random() * 400)::int AS n FROM generate_series(1, 60)) r
        ON CONFLICT (id) DO UPDATE SET turn = EXCLUDED.turn;
    UPDATE items SET turn = -turn WHERE id % 7 = now_turn % 7;
    DELETE FROM items WHERE id % 11 = now_turn % 11;
    IF now_turn % 9 = 0 THEN TRUNCATE emptied; END IF;
    INSERT INTO emptied SELECT n, now_turn FROM generate_series(1, 20) n
        ON CONFLICT (id) DO UPDATE SET turn = EXCLUDED.turn;
END $$";
const EMPTIED: Table = Table { name: "emptied", key: &["id"] };

fn world(version: PgVersion) -> Arc<World> {
    let world = World::start(version);
    world.source.sql("shop", LOAD);
    Arc::new(world)
}

/// Writes until told to stop.
fn load(world: &Arc<World>, stop: &Arc<AtomicBool>) -> std::thread::JoinHandle<()> {
    let (world, stop) = (Arc::clone(world), Arc::clone(stop));
    std::thread::spawn(move || {
        while !stop.load(Ordering::Relaxed) {
            world.source.sql("shop", &"CALL load();\n".repeat(20));
        }
    })
}

/// Every event of the archive, those that two files have once: they have to be the same.
fn archive(world: &World) -> (Vec<Described>, usize) {
    let all = described_events(&world.archive_root());
    let count = all.len();
    let mut first_of: HashMap<Box<str>, usize> = HashMap::new();
    let mut events: Vec<Described> = Vec::with_capacity(count);
    for described in all {
        match first_of.get(&described.id) {
            Some(&first) => {
                assert_eq!(events[first].event(), described.event(), "two different events of one id");
            }
            None => {
                first_of.insert(described.id.clone(), events.len());
                events.push(described);
            }
        }
    }
    let twice = count - events.len();
    (events, twice)
}

async fn assert_equal(world: &World) {
    let (events, twice) = archive(world);
    println!("{} events, {twice} of them in two files", events.len());
    for table in [ITEMS, EMPTIED] {
        let (columns, expected) = world.assert_databases_equal(&table).await;
        assert_archive_folds_to(&events, &table, &columns, &expected);
    }
}

/// Stops the leader under load, has the other take over, lets the first go on, and starts a new one to stand by; so
/// many times. Each configuration has an address of its own for its probes.
async fn swap_roles(world: &Arc<World>, config: impl Fn() -> Config, rounds: u32) {
    let stop = Arc::new(AtomicBool::new(false));
    let mut leader = Replicator::spawn(&config(), &[]);
    leader.wait_until_ready(SOON);
    let writing = load(world, &stop);
    for round in 0..rounds {
        let mut follower = Replicator::spawn(&config(), &[]);
        follower.wait_for_line("in use by process", SOON);
        // At another moment of its work each time.
        std::thread::sleep(Duration::from_millis(700 + u64::from(round) * 137));
        leader.freeze();
        let begun = Instant::now();
        follower.wait_until_ready(SOON);
        println!("round {round}: taken over after {:?}", begun.elapsed());
        assert!(begun.elapsed() < TAKEOVER_MAX, "{}", follower.stderr());
        // The one that took over writes before the other goes on.
        std::thread::sleep(Duration::from_millis(300 + u64::from(round) * 211));
        leader.thaw();
        assert_eq!(leader.wait(SOON).code(), Some(1), "{}", leader.stderr());
        assert!(follower.is_running(), "{}", follower.stderr());
        leader = follower;
    }
    stop.store(true, Ordering::Relaxed);
    writing.join().expect("the load");
    assert!(leader.is_running(), "{}", leader.stderr());
    leader.sigterm();
    assert!(leader.wait(SOON).success(), "{}", leader.stderr());
    drain(&config());
    assert_equal(world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn processes_that_take_the_slot_from_each_other_under_load_leave_every_sink_equal() {
    let world = world(PgVersion::V15);
    swap_roles(&world, || world.config(), 5).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_stopped_within_its_copy_writes_no_old_row_over_a_newer_one() {
    let world = world(PgVersion::V17);
    world.source.sql(
        "shop",
        "INSERT INTO items SELECT n, 0, repeat('old', 200) FROM generate_series(1, 60000) n;
         INSERT INTO emptied SELECT n, 0 FROM generate_series(1, 1000) n",
    );
    let config = || world.config().set("copy.bytes_max", "8MiB");
    let mut first = Replicator::spawn(&config(), &[]);
    first.wait_for_line("\"source ready\"", SOON);
    let mut second = Replicator::spawn(&config(), &[]);
    second.wait_for_line("in use by process", SOON);
    replicator_harness::eventually_blocking(SOON, "a copy under way", || {
        match first.metrics().sum("replicator_copy_rows_total", &[]) {
            Some(rows) if rows > 500.0 => Ok(()),
            rows => Err(format!("{rows:?}")),
        }
    });
    first.freeze();
    second.wait_until_ready(SOON);
    replicator_integration::wait_for_copy(&second);
    world.source.sql("shop", "UPDATE items SET turn = 1, note = 'new'");
    replicator_integration::wait_for_stream(&world, &second);
    first.thaw();
    assert_eq!(first.wait(SOON).code(), Some(1), "{}", first.stderr());
    second.sigterm();
    assert!(second.wait(SOON).success(), "{}", second.stderr());
    drain(&config());
    assert_equal(&world).await;
}
