//! The pipeline with its threads, over a sink that fails as it is told to. Whether it may acknowledge is
//! judged by what the sink really holds.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on may panic")]

use replicator_model::wire;

use async_trait::async_trait;
use bytes::Bytes;
use crossbeam_channel::{Receiver, Sender, unbounded};
use replicator_config::{BatchConfig, SinkConfig, SinkKind, TablePatterns};
use replicator_pipeline::{Event, Input, Running, Settings, SinkLanes, start};
use replicator_sink::{KeyChanges, Lane, SinkError, Write};
use replicator_spill::Shelf;
use replicator_types::{Batch, Budget, Lsn, Op, oid};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;
use wire::{Wire, lsn};

const T: u32 = 100;

/// What the sink does with the next writes; when the script is over, it succeeds.
#[derive(Clone, Debug)]
enum Step {
    /// Fails without writing.
    FailBefore,
    /// Writes and then loses the answer.
    FailAfter,
    /// Fails for good.
    Halt,
    /// Has a bug.
    Panic,
    /// Waits until the test lets it go.
    Wait(Receiver<()>),
}

/// What the sink holds: (shard, operation, position's ordinal), in the order of arrival.
type Held = Arc<Mutex<Vec<(u32, Op, u64)>>>;

struct TestLane {
    shard: u32,
    in_flight_max: usize,
    held: Held,
    script: Arc<Mutex<Vec<Step>>>,
    prepare_failures: u32,
    prepare_panics: bool,
}

struct TestWrite {
    shard: u32,
    changes: Vec<(Op, u64)>,
    held: Held,
    script: Arc<Mutex<Vec<Step>>>,
}

#[async_trait]
impl Lane for TestLane {
    fn in_flight_max(&self) -> usize {
        self.in_flight_max
    }

    async fn prepare(&mut self, batch: Arc<Batch>) -> Result<Box<dyn Write>, SinkError> {
        assert!(!self.prepare_panics, "on purpose");
        if self.prepare_failures > 0 {
            self.prepare_failures -= 1;
            return Err(SinkError::retry("not now"));
        }
        let changes = batch.changes().map(|change| (change.op, change.position.ordinal)).collect();
        let (held, script) = (Arc::clone(&self.held), Arc::clone(&self.script));
        Ok(Box::new(TestWrite { shard: self.shard, changes, held, script }))
    }
}

impl TestWrite {
    fn write(&self) {
        let mut held = self.held.lock().unwrap();
        for (op, ordinal) in &self.changes {
            if !held.contains(&(self.shard, *op, *ordinal)) {
                held.push((self.shard, *op, *ordinal));
            }
        }
    }
}

#[async_trait]
impl Write for TestWrite {
    fn held_bytes(&self) -> usize {
        0
    }

    async fn send(&mut self) -> Result<(), SinkError> {
        let step = { self.script.lock().unwrap().pop() };
        match step {
            Some(Step::FailBefore) => return Err(SinkError::retry("connection refused")),
            Some(Step::Halt) => return Err(SinkError::halt("wrong password; set it")),
            Some(Step::Panic) => panic!("on purpose"),
            Some(Step::FailAfter) => {
                self.write();
                return Err(SinkError::retry("connection reset before the answer"));
            }
            Some(Step::Wait(gate)) => {
                tokio::task::spawn_blocking(move || gate.recv_timeout(Duration::from_secs(20)))
                    .await
                    .map_err(|error| SinkError::halt(error.to_string()))?
                    .map_err(|error| SinkError::halt(error.to_string()))?;
            }
            None => {}
        }
        self.write();
        Ok(())
    }
}

struct Bench {
    runtime: Runtime,
    running: Running,
    held: Held,
    script: Arc<Mutex<Vec<Step>>>,
    budget: Budget,
}

struct Sink {
    shards: u32,
    in_flight_max: usize,
    rows_max: usize,
    script: Vec<Step>,
    prepare_failures: u32,
    prepare_panics: bool,
}

impl Default for Sink {
    fn default() -> Self {
        Self {
            shards: 1,
            in_flight_max: 1,
            rows_max: 1,
            script: Vec::new(),
            prepare_failures: 0,
            prepare_panics: false,
        }
    }
}

impl Bench {
    fn new(mut sink: Sink) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let held = Held::default();
        sink.script.reverse();
        let script = Arc::new(Mutex::new(sink.script));
        let lane = |shard| -> Box<dyn Lane> {
            Box::new(TestLane {
                shard,
                in_flight_max: sink.in_flight_max,
                held: Arc::clone(&held),
                script: Arc::clone(&script),
                prepare_failures: sink.prepare_failures,
                prepare_panics: sink.prepare_panics,
            })
        };
        let config = SinkConfig {
            name: "test".into(),
            tables: TablePatterns::default(),
            shards: sink.shards,
            batch: BatchConfig { rows_max: sink.rows_max, bytes_max: 1 << 20, interval_ms: 10 },
            kind: SinkKind::Blackhole,
        };
        let budget = Budget::new(1 << 20);
        let settings = Settings {
            watermark: Lsn(1),
            budget: budget.clone(),
            shelf: Shelf::in_memory(),
            relations: Vec::new(),
            left_out: Vec::new(),
            standings: Vec::new(),
            reach: Lsn::ZERO,
            horizon: None,
            unknown_wait: false,
            parallel_streaming: false,
            request_prefix: String::new(),
            backoff: (Duration::from_millis(1), Duration::from_millis(5)),
            runtime: runtime.handle().clone(),
            logger: slog::Logger::root(slog::Discard, slog::o!()),
            alive: Box::new(()),
        };
        let lanes = SinkLanes {
            config,
            key_changes: KeyChanges::Split,
            takes_late_changes: false,
            messages: false,
            lanes: (0..sink.shards).map(lane).collect(),
        };
        let running = start(settings, vec![lanes]).unwrap();
        Self { runtime, running, held, script, budget }
    }

    fn send(&self, wire: Wire) {
        let charge = self.budget.charge(wire.bytes.len());
        let input = Input::Chunk { bytes: Bytes::from(wire.bytes), catalogs: Vec::new(), charge };
        self.running.input.send(input).unwrap();
    }

    fn watermark(&self) -> Lsn {
        *self.running.watermark.borrow()
    }

    fn wait_for(&self, what: &str, mut done: impl FnMut(&Self) -> bool) {
        let start = Instant::now();
        while !done(self) {
            assert!(start.elapsed() < Duration::from_secs(20), "{what} did not come about");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn event(&mut self) -> Event {
        let events = &mut self.running.events;
        let next = async { tokio::time::timeout(Duration::from_secs(20), events.recv()).await };
        self.runtime.block_on(next).unwrap().unwrap()
    }

    fn held(&self) -> Vec<(u32, Op, u64)> {
        self.held.lock().unwrap().clone()
    }
}

fn table() -> Wire {
    Wire::new().relation(T, "t", b'd', &[("k", oid::INT8, true)])
}

const KEYS: [&str; 6] = ["1", "2", "3", "4", "5", "6"];

fn inserts(wire: Wire, keys: &[&'static str]) -> Wire {
    keys.iter().fold(wire, |wire, key| wire.insert(T, &[Some(key)]))
}

#[test]
fn a_write_that_fails_is_sent_again_and_acknowledged_once_it_is_held() {
    let script = vec![Step::FailBefore, Step::FailAfter, Step::FailBefore];
    let bench = Bench::new(Sink { script, prepare_failures: 2, ..Sink::default() });
    bench.send(inserts(table().begin(10), &KEYS[..2]).commit(10));
    bench.wait_for("the watermark", |bench| bench.watermark() == lsn(18));
    assert_eq!(bench.held(), [(0, Op::Insert, 0), (0, Op::Insert, 1)]);
    bench.wait_for("the memory's return", |bench| bench.budget.held() == 0);
}

#[test]
fn nothing_is_acknowledged_while_a_write_waits() {
    let (go, gate): (Sender<()>, _) = unbounded();
    let bench = Bench::new(Sink { in_flight_max: 3, script: vec![Step::Wait(gate)], ..Sink::default() });
    bench.send(inserts(table().begin(10), &KEYS[..1]).commit(10));
    bench.wait_for("the write that waits", |bench| bench.script.lock().unwrap().is_empty());
    bench.send(inserts(Wire::new().begin(20), &KEYS[1..3]).commit(20).keepalive(40));
    bench.wait_for("the later writes, which overtake", |bench| bench.held().len() == 2);
    std::thread::sleep(Duration::from_millis(30));
    assert_eq!(bench.watermark(), lsn(1));
    go.send(()).unwrap();
    bench.wait_for("the watermark", |bench| bench.watermark() == lsn(40));
}

#[test]
fn a_failure_for_good_ends_the_run_with_its_remedy_and_is_never_acknowledged() {
    let mut bench = Bench::new(Sink { script: vec![Step::Halt], ..Sink::default() });
    bench.send(inserts(table().begin(10), &KEYS[..1]).commit(10).keepalive(50));
    assert_eq!(bench.event(), Event::Failed("wrong password; set it".into()));
    assert_eq!(bench.watermark(), lsn(1));
    assert!(bench.held().is_empty());
}

#[test]
fn a_lane_that_panics_ends_the_run_instead_of_standing_still() {
    for prepare_panics in [true, false] {
        let mut bench = Bench::new(Sink { script: vec![Step::Panic], prepare_panics, ..Sink::default() });
        bench.send(inserts(table().begin(10), &KEYS[..1]).commit(10));
        let event = bench.event();
        assert!(matches!(&event, Event::Failed(text) if text.contains("panicked")), "{event:?}");
        assert_eq!(bench.watermark(), lsn(1));
    }
}

#[test]
fn a_sink_that_keeps_failing_is_reported_down_and_then_up() {
    let mut bench = Bench::new(Sink { script: vec![Step::FailBefore; 3], ..Sink::default() });
    bench.send(inserts(table().begin(10), &KEYS[..1]).commit(10));
    assert_eq!(bench.event(), Event::SinkDown(0, "connection refused".into()));
    assert_eq!(bench.event(), Event::SinkDown(0, "connection refused".into()));
    assert_eq!(bench.event(), Event::SinkUp(0));
}

#[test]
fn a_fence_waits_for_every_lane_and_holds_every_lane() {
    let (go, gate): (Sender<()>, _) = unbounded();
    // The first write to arrive waits; with several lanes and several in flight the others do not.
    let script = vec![Step::Wait(gate)];
    let bench = Bench::new(Sink { shards: 3, in_flight_max: 2, script, ..Sink::default() });
    let wire = inserts(table().begin(10), &KEYS).truncate(&[T]);
    bench.send(inserts(wire, &KEYS).commit(10));
    bench.wait_for("all but one row before the truncate", |bench| bench.held().len() == 5);
    std::thread::sleep(Duration::from_millis(30));
    assert!(
        bench.held().iter().all(|(_, op, ordinal)| *op == Op::Insert && *ordinal < 6),
        "{:?}",
        bench.held()
    );
    go.send(()).unwrap();
    bench.wait_for("the watermark", |bench| bench.watermark() == lsn(18));
    let held = bench.held();
    let fence = held.iter().position(|(_, op, _)| *op == Op::Truncate).unwrap();
    assert_eq!((fence, held.len()), (6, 13));
    assert!(held[fence + 1..].iter().all(|(_, _, ordinal)| *ordinal > 6));
}

#[test]
fn a_stop_drains_what_was_taken_and_takes_no_more() {
    let (go, gate): (Sender<()>, _) = unbounded();
    let script = vec![Step::Wait(gate)];
    let mut bench = Bench::new(Sink { rows_max: 1000, script, ..Sink::default() });
    bench.send(inserts(table().begin(10), &KEYS[..3]).commit(10));
    bench.running.input.send(Input::Stop).unwrap();
    bench.send(inserts(Wire::new().begin(20), &KEYS[3..]).commit(20));
    std::thread::sleep(Duration::from_millis(20));
    go.send(()).unwrap();
    assert_eq!(bench.event(), Event::Drained);
    assert_eq!((bench.watermark(), bench.held().len()), (lsn(18), 3));
}

#[test]
fn a_stop_at_an_lsn_comes_at_the_first_commit_behind_it() {
    let mut bench = Bench::new(Sink { rows_max: 1000, ..Sink::default() });
    bench.running.input.send(Input::StopAt(lsn(20))).unwrap();
    for commit in [10, 20, 30] {
        bench.send(inserts(table().begin(commit), &KEYS[..1]).commit(commit));
    }
    assert_eq!(bench.event(), Event::Drained);
    assert_eq!(bench.watermark(), lsn(28));
}
