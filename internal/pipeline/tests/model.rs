//! Everything at once, against a model: transactions of all kinds, tables that are copied meanwhile, sinks that become
//! durable in any order, connections that break and processes that die. In the end the sinks have what the source has.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on may panic")]

mod run;
use replicator_model::source;
use replicator_model::wire;

use bytes::Bytes;
use proptest::prelude::*;
use replicator_pipeline::{Notice, Output, Pipeline, Standing};
use replicator_sink::KeyChanges;
use replicator_types::{Batch, Budget, Change, Lsn, Op, Phase, Position, TxnId, Value};
use run::{HISTORY, LOG, STATE, line, route};
use source::{KEYS, Rows, Source, TABLES, Walsender};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Mutex;
use std::time::Instant;

const SHARDS: usize = 2;

const PATHS: [&str; 7] = [
    "live in the middle of a transaction",
    "a fence while catching up",
    "a connection breaks with something prepared",
    "a process dies with something prepared",
    "a process dies while a table catches up",
    "a copy is taken up again",
    "a change is passed over that a lane has",
];

#[derive(Clone, Debug)]
enum Step {
    Change { slot: u8, table: u8, key: u8, what: u8 },
    Savepoint(u8),
    RollbackToSavepoint(u8),
    Stream(u8),
    Prepare(u8),
    End { slot: u8, commits: bool },
    Message,
    Decode(u8),
    Keepalive,
    Deliver(u8),
    Flush,
    Write { lane: u8 },
    Report(prop::sample::Index),
    Feedback,
    Table(u8),
    ReleaseSome,
    Reconnect,
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    let slot = 0..4_u8;
    prop_oneof![
        40 => (slot.clone(), 0..3_u8, 0..KEYS, any::<u8>())
            .prop_map(|(slot, table, key, what)| Step::Change { slot, table, key, what }),
        4 => slot.clone().prop_map(Step::Savepoint),
        3 => slot.clone().prop_map(Step::RollbackToSavepoint),
        8 => slot.clone().prop_map(Step::Stream),
        4 => slot.clone().prop_map(Step::Prepare),
        16 => (slot, prop::bool::weighted(0.8)).prop_map(|(slot, commits)| Step::End { slot, commits }),
        2 => Just(Step::Message),
        30 => (1..8_u8).prop_map(Step::Decode),
        4 => Just(Step::Keepalive),
        30 => (1..12_u8).prop_map(Step::Deliver),
        10 => Just(Step::Flush),
        30 => (0..SHARDS as u8 + 2).prop_map(|lane| Step::Write { lane }),
        20 => any::<prop::sample::Index>().prop_map(Step::Report),
        4 => Just(Step::Feedback),
        14 => (0..3_u8).prop_map(Step::Table),
        6 => Just(Step::ReleaseSome),
        3 => Just(Step::Reconnect),
        2 => Just(Step::Restart),
    ]
}

/// How a table's copy stands, in this run.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Copy {
    Unknown,
    Live,
    ToBeHeld,
    Waits,
    /// Its rows are in the sink, of this snapshot, and changes are to follow that may be there already.
    Resumes(u64),
    Copied,
    Released,
    CaughtUp,
}

/// What is written down about it.
#[derive(Clone, Copy, Debug)]
enum Note {
    Nothing,
    Copied(u64),
    Done(Position),
}

enum Item {
    Batch(Batch),
    Fence(usize, Option<Batch>),
}

/// What outlives the process.
#[derive(Default)]
struct Durable {
    rows: Rows,
    /// By sink.
    logs: BTreeMap<usize, BTreeMap<(u64, u64), String>>,
    /// How far each lane of the state sink has got in the stream.
    lanes: [Position; SHARDS],
    notes: HashMap<u32, Note>,
    /// Of each table's copy: what commits before is in it, and in newer rows of it.
    snapshots: HashMap<u32, (u64, u64)>,
}

struct World {
    source: Source,
    walsender: Walsender,
    frames: VecDeque<Vec<u8>>,
    pipeline: Pipeline,
    queues: [Vec<VecDeque<Item>>; 3],
    fences: usize,
    /// Written and not reported.
    unreported: Vec<Vec<TxnId>>,
    /// Of the stream, within this run: what each lane got last, what each log got.
    last: HashMap<(usize, usize), Position>,
    logged: HashSet<(usize, u64, u64)>,
    copies: HashMap<u32, Copy>,
    durable: Durable,
    watermark: u64,
    acknowledged: u64,
    /// Whether a copy may be taken up where it was, with changes that come a second time.
    resumes: bool,
}

fn pipeline(watermark: u64, durable: &Durable) -> (Pipeline, HashMap<u32, Copy>) {
    let mut routes = vec![
        route("state", SHARDS as u32, KeyChanges::Split),
        route("log", 1, KeyChanges::Whole),
        route("history", 1, KeyChanges::Whole),
    ];
    routes.iter_mut().for_each(|route| route.limits.rows_max = 3);
    let mut standings = Vec::new();
    let mut copies = HashMap::new();
    for (oid, _) in TABLES {
        let (standing, copy) = match durable.notes[&oid] {
            Note::Nothing if oid == TABLES[2].0 => (None, Copy::Unknown),
            Note::Nothing => (Some(Standing::Waiting { snapshot: None }), Copy::Waits),
            Note::Copied(snapshot) => {
                (Some(Standing::Waiting { snapshot: Some(Lsn(snapshot)) }), Copy::Resumes(snapshot))
            }
            Note::Done(from) => (Some(Standing::Live { from }), Copy::Live),
        };
        standings.extend(standing.map(|standing| (oid, standing)));
        copies.insert(oid, copy);
    }
    let pipeline =
        Pipeline::new(routes, Lsn(watermark), &Budget::new(1 << 30)).with_standings(standings, true);
    (pipeline, copies)
}

impl World {
    fn new(resumes: bool) -> Self {
        let notes = TABLES.iter().map(|(oid, _)| (*oid, Note::Nothing)).collect();
        let mut durable = Durable { notes, ..Durable::default() };
        durable.notes.insert(TABLES[0].0, Note::Done(Position::ZERO));
        let (pipeline, copies) = pipeline(0, &durable);
        Self {
            source: Source::new(),
            walsender: Walsender::new(0),
            frames: VecDeque::new(),
            pipeline,
            queues: [
                (0..SHARDS).map(|_| VecDeque::new()).collect(),
                vec![VecDeque::new()],
                vec![VecDeque::new()],
            ],
            fences: 0,
            unreported: Vec::new(),
            last: HashMap::new(),
            logged: HashSet::new(),
            copies,
            durable,
            watermark: 0,
            acknowledged: 0,
            resumes,
        }
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Change { slot, table, key, what } => {
                let table = TABLES[usize::from(table)].0;
                self.source.change(slot, (table, key), what, !self.resumes);
            }
            Step::Savepoint(slot) => self.source.savepoint(slot),
            Step::RollbackToSavepoint(slot) => self.source.rollback_to_savepoint(slot),
            Step::Stream(slot) => self.source.stream(slot),
            Step::Prepare(slot) => self.source.prepare(slot),
            Step::End { slot, commits } => self.source.end_transaction(slot, commits),
            Step::Message => self.source.message(),
            Step::Decode(records) => (0..records).for_each(|_| {
                self.decode();
            }),
            Step::Keepalive => self.send(self.walsender.keepalive(&self.source)),
            Step::Deliver(frames) => self.deliver(usize::from(frames)),
            Step::Flush => self.pipeline.flush(),
            Step::Write { lane } => {
                self.write(lane);
            }
            Step::Report(pick) => {
                if !self.unreported.is_empty() {
                    let transactions = self.unreported.swap_remove(pick.index(self.unreported.len()));
                    self.pipeline.durable(transactions);
                }
            }
            Step::Feedback => self.acknowledged = self.watermark,
            Step::Table(table) => self.table(TABLES[usize::from(table)].0),
            Step::ReleaseSome => self.pipeline.release_some(Instant::now()).unwrap(),
            Step::Reconnect => {
                reached(PATHS[2], self.pipeline.unfinished() > 0);
                self.pipeline.reconnected();
                self.connect();
            }
            Step::Restart => self.restart(),
        }
        self.after();
    }

    /// The source begins again at what it was told last.
    fn connect(&mut self) {
        self.frames.clear();
        self.walsender = Walsender::new(self.acknowledged);
    }

    fn restart(&mut self) {
        reached(PATHS[3], self.pipeline.unfinished() > 0);
        reached(PATHS[4], self.copies.values().any(|copy| *copy == Copy::Released));
        self.connect();
        let (pipeline, copies) = pipeline(self.acknowledged, &self.durable);
        self.pipeline = pipeline;
        self.copies = copies;
        self.queues.iter_mut().flatten().for_each(VecDeque::clear);
        self.unreported.clear();
        self.last.clear();
        self.logged.clear();
        self.watermark = self.acknowledged;
    }

    fn decode(&mut self) -> bool {
        let wire = self.walsender.decode(&self.source);
        wire.map(|wire| self.send(wire)).is_some()
    }

    fn send(&mut self, wire: wire::Wire) {
        let mut rest = &wire.bytes[..];
        while let Some(length) = rest.get(1..5) {
            let (frame, behind) = rest.split_at(1 + u32::from_be_bytes(length.try_into().unwrap()) as usize);
            self.frames.push_back(frame.to_vec());
            rest = behind;
        }
    }

    fn deliver(&mut self, frames: usize) {
        let frames = frames.min(self.frames.len());
        let bytes: Vec<u8> = self.frames.drain(..frames).flatten().collect();
        let now = Instant::now();
        self.pipeline.chunk(Bytes::from(bytes), Vec::new(), now).unwrap();
        while self.pipeline.is_busy() {
            self.pipeline.release_some(now).unwrap();
            self.pipeline.work(now).unwrap();
        }
    }

    /// What always follows: lanes get what was handed out, and what there is to tell is told.
    fn after(&mut self) {
        for output in self.pipeline.take_outputs() {
            let (lane, batch, fenced) = match output {
                Output::Batch(lane, batch) => (lane, batch, false),
                Output::Fence(lane, batch) => (lane, batch, true),
            };
            if batch.phase() == Phase::Stream {
                let last = self.last.entry((lane.sink, lane.shard as usize)).or_default();
                for change in batch.changes() {
                    assert!(change.position >= *last, "a lane went back from {last} to {}", change.position);
                    *last = change.position;
                }
            }
            reached(PATHS[1], fenced && batch.phase() == Phase::CatchUp && batch.change(0).op != Op::Apart);
            let mut batch = Some(batch);
            if fenced {
                self.fences += 1;
                for (shard, queue) in self.queues[lane.sink].iter_mut().enumerate() {
                    let batch = if shard == lane.shard as usize { batch.take() } else { None };
                    queue.push_back(Item::Fence(self.fences, batch));
                }
            } else {
                self.queues[lane.sink][lane.shard as usize].extend(batch.map(Item::Batch));
            }
        }
        for notice in self.pipeline.take_notices() {
            match notice {
                Notice::Held { oid, .. } => self.copies.insert(oid, Copy::Waits),
                Notice::New(relation) => self.copies.insert(relation.oid, Copy::Waits),
                Notice::CaughtUp { oid, from, .. } => {
                    reached(PATHS[0], from.ordinal > 0);
                    self.durable.notes.insert(oid, Note::Done(from));
                    self.copies.insert(oid, Copy::CaughtUp)
                }
                other => panic!("{other:?}"),
            };
        }
        let watermark = self.pipeline.watermark().0;
        assert!(watermark >= self.watermark, "the watermark went back");
        self.watermark = watermark;
        for (end, position) in &self.source.ends {
            if *end <= watermark {
                let has =
                    |sink: usize| self.durable.logs.get(&sink).is_some_and(|log| log.contains_key(position));
                assert!(has(LOG) && has(HISTORY), "{position:?} is acknowledged and not durable");
            }
        }
    }

    /// Takes a table's copy one step further.
    fn table(&mut self, oid: u32) {
        let now = self.source.end();
        let next = match self.copies[&oid] {
            Copy::Live => {
                self.durable.notes.insert(oid, Note::Nothing);
                self.pipeline.hold(oid, Instant::now());
                Copy::ToBeHeld
            }
            Copy::Resumes(snapshot) if self.resumes => {
                reached(PATHS[5], true);
                self.durable.snapshots.insert(oid, (snapshot, now));
                self.pipeline.copied_until(oid, Lsn(now));
                Copy::Copied
            }
            Copy::Waits | Copy::Resumes(_) => {
                self.durable.rows.retain(|(table, _), _| *table != oid);
                let copied = self.source.committed.iter().filter(|((table, _), _)| *table == oid);
                self.durable.rows.extend(copied.map(|(at, row)| (*at, row.clone())));
                self.durable.snapshots.insert(oid, (now, now));
                self.durable.notes.insert(oid, Note::Copied(now));
                self.pipeline.copied_at(oid, Lsn(now));
                Copy::Copied
            }
            Copy::Copied => {
                self.pipeline.release(oid);
                Copy::Released
            }
            Copy::CaughtUp => {
                self.pipeline.settled(oid);
                Copy::Live
            }
            other => other,
        };
        self.copies.insert(oid, next);
    }

    /// A lane writes what comes next, if it may; the last ones are the logs'.
    fn write(&mut self, lane: u8) -> bool {
        let (sink, shard) = match usize::from(lane) {
            lane if lane < SHARDS => (STATE, lane),
            SHARDS => (LOG, 0),
            _ => (HISTORY, 0),
        };
        let batch = match self.queues[sink][shard].front() {
            None => return false,
            Some(Item::Batch(_)) => match self.queues[sink][shard].pop_front() {
                Some(Item::Batch(batch)) => Some((shard, batch)),
                _ => None,
            },
            Some(Item::Fence(number, _)) => {
                let number = *number;
                let is_there = |queue: &VecDeque<Item>| matches!(queue.front(), Some(Item::Fence(of, _)) if *of == number);
                if !self.queues[sink].iter().all(is_there) {
                    return false;
                }
                let fronts: Vec<_> = self.queues[sink].iter_mut().map(VecDeque::pop_front).collect();
                let with_batch = |(shard, item)| match item {
                    Some(Item::Fence(_, Some(batch))) => Some((shard, batch)),
                    _ => None,
                };
                fronts.into_iter().enumerate().find_map(with_batch)
            }
        };
        let Some((shard, batch)) = batch else { return false };
        for change in batch.changes() {
            if sink == STATE {
                self.store(shard, batch.phase(), &change);
            } else if change.op != Op::Apart {
                self.log(sink, &change);
            }
        }
        self.unreported.push(batch.transactions().iter().map(|transaction| transaction.id).collect());
        true
    }

    fn log(&mut self, sink: usize, change: &Change<'_>) {
        let position = (change.position.commit_lsn.0, change.position.ordinal);
        assert!(self.logged.insert((sink, position.0, position.1)), "handed out twice: {}", line(change));
        let before = self.durable.logs.entry(sink).or_default().insert(position, line(change));
        assert!(before.is_none_or(|before| before == line(change)), "another change at {position:?}");
    }

    fn store(&mut self, shard: usize, phase: Phase, change: &Change<'_>) {
        if matches!(change.op, Op::Schema | Op::Apart) {
            return;
        }
        let table = change.relation.oid;
        let (first, last) = self.durable.snapshots.get(&table).copied().unwrap_or_default();
        let commit_lsn = change.position.commit_lsn.0;
        assert!(commit_lsn >= first, "{} is in the copy", line(change));
        if phase == Phase::Stream {
            assert!(commit_lsn >= last, "{} is older than copied rows", line(change));
            if change.position <= self.durable.lanes[shard] && change.position != Position::ZERO {
                reached(PATHS[6], true);
                return;
            }
            self.durable.lanes[shard] = change.position;
        }
        let rows = &mut self.durable.rows;
        let key = |mut key: Box<dyn Iterator<Item = Value<'_>> + '_>| {
            (table, text(key.next()).parse::<u8>().unwrap())
        };
        match change.op {
            Op::Truncate => rows.retain(|(of, _), _| *of != table),
            Op::Delete => {
                rows.remove(&key(Box::new(change.key_values())));
            }
            _ => {
                let at = key(Box::new(change.key_values()));
                let old = match change.old_key_values().filter(|_| change.key_changed) {
                    Some(old) => rows.remove(&key(Box::new(old))),
                    None => rows.get(&at).cloned(),
                };
                let [_, value, large] = change.new_values().collect::<Vec<_>>()[..] else {
                    panic!("three columns")
                };
                let large = match large {
                    Value::Unchanged => old.map_or("MISSING".to_owned(), |(_, large)| large),
                    sent => text(Some(sent)),
                };
                rows.insert(at, (text(Some(value)), large));
            }
        }
    }

    /// Everything comes to its end.
    fn finish(&mut self) {
        self.source.end_all();
        for _ in 0..12 {
            while self.decode() {}
            self.step(&Step::Keepalive);
            self.deliver(usize::MAX);
            self.after();
            while self.pipeline.is_releasing() {
                self.step(&Step::ReleaseSome);
            }
            self.step(&Step::Flush);
            while (0..SHARDS as u8 + 2).any(|lane| self.write(lane)) {}
            for transactions in std::mem::take(&mut self.unreported) {
                self.pipeline.durable(transactions);
            }
            self.after();
            for (oid, _) in TABLES {
                if self.copies[&oid] != Copy::Live {
                    self.table(oid);
                }
            }
        }
        let end = self.source.end();
        assert!(
            self.copies.values().all(|copy| matches!(copy, Copy::Live | Copy::Unknown)),
            "{:?}",
            self.copies
        );
        for sink in [LOG, HISTORY] {
            let log = self.durable.logs.get(&sink).cloned().unwrap_or_default();
            assert_eq!(log, self.source.expected, "log {sink}");
        }
        assert_eq!(self.durable.rows, self.source.committed, "the state");
        assert!(self.pipeline.is_drained());
        assert_eq!((self.pipeline.pending(), self.pipeline.unfinished(), self.pipeline.waiting()), (0, 0, 0));
        assert_eq!(self.pipeline.watermark(), Lsn(end));
    }
}

fn text(value: Option<Value<'_>>) -> String {
    String::from_utf8(value.and_then(Value::bytes).unwrap().to_vec()).unwrap()
}

/// The paths that are hard to reach, and have been.
static REACHED: Mutex<BTreeSet<&str>> = Mutex::new(BTreeSet::new());

fn reached(path: &'static str, is_reached: bool) {
    if is_reached {
        REACHED.lock().unwrap().insert(path);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, max_shrink_iters: 20_000, ..ProptestConfig::default() })]
    fn whatever_happens(steps in prop::collection::vec(step(), 1..250), resumes: bool) {
        let mut world = World::new(resumes);
        steps.iter().for_each(|step| world.step(step));
        world.finish();
    }
}

#[test]
fn whatever_happens_the_sinks_end_with_what_the_source_has() {
    whatever_happens();
    let missing: Vec<_> = {
        let reached = REACHED.lock().unwrap();
        PATHS.iter().filter(|path| !reached.contains(*path)).collect()
    };
    assert!(missing.is_empty(), "never reached: {missing:?}");
}
