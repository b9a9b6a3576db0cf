//! Everything joined: events with times, and what each of them does.

use crate::chance::Chance;
use crate::copies::{Copy, Notes};
use crate::keeper::Keeper;
use crate::plan::{Plan, Sabotage};
use crate::process::Process;
use crate::reached::Reached;
use crate::server::Server;
use crate::store::Store;
use replicator_model::source::Source;
use replicator_pipeline::Input;
use replicator_spill::Shelf;
use replicator_types::Position;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::{Duration, Instant};

mod check;
mod faults;
mod source_side;
mod tables;
mod writes;

/// What came of a schedule that kept all promises.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Events.
    pub steps: u64,
    /// Faults, failed writes not counted.
    pub faults: u64,
    /// How often the process died.
    pub kills: u64,
    /// Virtual time from beginning to end, microseconds.
    pub virtual_us: u64,
    /// Memory at its fullest, in bytes beyond the budget.
    pub over_budget_bytes: usize,
    /// The paths it took.
    pub reached: Reached,
    /// Of all events and their times: equal for equal schedules.
    pub digest: u64,
}

/// A promise is broken.
#[derive(Clone, Debug)]
pub struct Violation {
    /// The seed; `make sim SEED=…` shows the schedule.
    pub seed: u64,
    /// Number of the event.
    pub step: u64,
    /// Virtual time, microseconds.
    pub time_us: u64,
    /// Which promise.
    pub text: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, step, time_us, text } = self;
        write!(
            f,
            "seed {seed}, step {step}, after {}.{:06} s: {text}",
            time_us / 1_000_000,
            time_us % 1_000_000
        )
    }
}

/// How a request ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
enum End {
    Good,
    /// Refused before anything is applied.
    Before,
    /// Broken off in the middle.
    Part,
    /// Applied, and the answer is lost.
    After,
    /// No answer, until the sink's time-out cancels it.
    Hang,
}

/// What happens. Numbers say in which process, on which connection, in which life of a sink it began: it is nothing when
/// that is over.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
enum Event {
    Client,
    SaveSlot,
    SourceBack,
    SinkBack(usize),
    Fault,
    Start,
    Connect { run: u32 },
    Decode { connection: u32 },
    Keepalive { connection: u32 },
    Read { connection: u32 },
    Feedback { connection: u32 },
    Drive { run: u32, due: u64 },
    Table { run: u32 },
    Poll { run: u32 },
    Prepare { run: u32, write: u32 },
    Send { run: u32, write: u32 },
    Arrive { run: u32, write: u32, end: End },
    Flush { sink: usize, life: u32, run: u32, write: u32 },
    Answer { run: u32, write: u32, good: bool },
}

struct World {
    plan: Plan,
    chance: Chance,
    now_us: u64,
    step: u64,
    /// By time, then in the order in which they were made.
    events: BTreeMap<(u64, u64), Event>,
    next_event: u64,
    origin: Instant,
    digest: DefaultHasher,
    reached: Reached,
    server: Server,
    stores: Vec<Store>,
    /// By sink: its notes on versions of tables.
    keepers: Vec<Arc<Keeper>>,
    notes: Notes,
    process: Option<Process>,
    /// Number of the process.
    run: u32,
    is_first_connection: bool,
    /// When the driver's next turn is due.
    drive_due: Option<u64>,
    shelf: Shelf,
    operations_left: u64,
    /// Since when nothing breaks any more.
    calm_since_us: Option<u64>,
    faults: u64,
    kills: u64,
    ledger: check::Ledger,
    /// Of the last keepalive, and where the last process had got to: for sabotage.
    keepalive: u64,
    passed: u64,
    over_budget_bytes: usize,
    /// The largest piece that was read or handed on at once.
    largest_bytes: usize,
    /// Changes of schema that sinks were asked to follow.
    altered: BTreeSet<(u32, Position)>,
    /// A promise that was found broken aside from the schedule's steps.
    broken: Option<String>,
    /// Looks at the catalog and keepalives behind them, by turns, when there was nothing else left to do.
    last_looks: u32,
}

/// Virtual time in which everything has to come to its end once nothing breaks any more: many times the longest pause.
const CALM_US: u64 = 600_000_000;

/// A schedule that takes more events than this turns on the spot.
const STEPS_MAX: u64 = 2_000_000;

/// Runs a schedule from beginning to end.
///
/// # Errors
/// A promise is broken.
pub fn run(plan: &Plan) -> Result<Outcome, Violation> {
    let mut world = World::new(plan.clone());
    let result = world.play();
    let violation = |text| Violation { seed: plan.seed, step: world.step, time_us: world.now_us, text };
    result.map_err(violation)?;
    Ok(Outcome {
        steps: world.step,
        faults: world.faults,
        kills: world.kills,
        virtual_us: world.now_us,
        over_budget_bytes: world.over_budget_bytes,
        reached: world.reached,
        digest: world.digest.finish(),
    })
}

impl World {
    fn new(plan: Plan) -> Self {
        let source = Source::new().with_large_bytes(plan.large_bytes).with_names(plan.names);
        let shelf = match plan.waiting_bytes {
            Some(memory_bytes_max) => Shelf::new(&std::env::temp_dir(), memory_bytes_max),
            None => Shelf::in_memory(),
        };
        Self {
            chance: Chance::new(plan.seed.rotate_left(32) ^ 0x5157),
            now_us: 0,
            step: 0,
            events: BTreeMap::new(),
            next_event: 0,
            origin: Instant::now(),
            digest: DefaultHasher::new(),
            reached: Reached::new(),
            server: Server::new(source),
            stores: plan.sinks.iter().map(|sink| Store::new(sink.kind)).collect(),
            keepers: plan.sinks.iter().map(|sink| Arc::new(Keeper::new(sink.kind))).collect(),
            notes: Notes::new(plan.copies),
            process: None,
            run: 0,
            is_first_connection: true,
            drive_due: None,
            shelf,
            operations_left: plan.operations,
            calm_since_us: None,
            faults: 0,
            kills: 0,
            ledger: check::Ledger::default(),
            keepalive: 0,
            passed: 0,
            over_budget_bytes: 0,
            largest_bytes: 0,
            altered: BTreeSet::new(),
            broken: None,
            last_looks: 0,
            plan,
        }
    }

    fn play(&mut self) -> Result<(), String> {
        self.after(0, Event::Start);
        self.after(10, Event::Client);
        self.after(100_000, Event::SaveSlot);
        if let Some(interval_us) = self.plan.fault_interval_us {
            let first = self.chance.below(2 * interval_us);
            self.after(first, Event::Fault);
        }
        while let Some(((time_us, _), event)) = self.events.pop_first() {
            self.now_us = time_us;
            if let Some(inject) = self.plan.inject.filter(|inject| inject.step == self.step) {
                self.fault(inject.fault)?;
            }
            (time_us, event).hash(&mut self.digest);
            self.trace(|| format!("{event:?}"));
            self.happen(event)?;
            self.take_turns();
            self.told();
            self.check_bytes()?;
            if let Some(text) = self.broken.take() {
                return Err(text);
            }
            self.step += 1;
            if self.is_over() {
                return self.check_end();
            }
            if self.step > STEPS_MAX || self.calm_since_us.is_some_and(|since| time_us > since + CALM_US) {
                return Err(self.stuck());
            }
        }
        Err("nothing happens any more".to_owned())
    }

    fn happen(&mut self, event: Event) -> Result<(), String> {
        match event {
            Event::Client => self.client(),
            Event::SaveSlot => {
                self.server.slot.saved = self.server.slot.confirmed;
                let next = self.chance.between(20_000, 1_000_000);
                self.after(next, Event::SaveSlot);
            }
            Event::SourceBack => self.server.is_up = true,
            Event::SinkBack(sink) => {
                self.stores[sink].is_up = true;
                self.keepers[sink].set_up(true);
            }
            Event::Fault => self.next_fault()?,
            Event::Start => self.start(),
            Event::Connect { run } if run == self.run => self.connect(),
            Event::Decode { connection } if connection == self.server.connection => self.decode(),
            Event::Keepalive { connection } if connection == self.server.connection => self.send_keepalive(),
            Event::Read { connection } if connection == self.server.connection => self.read(),
            Event::Feedback { connection } if connection == self.server.connection => self.feedback()?,
            Event::Drive { run, due } if run == self.run && self.drive_due == Some(due) => self.drive()?,
            Event::Table { run } if run == self.run => self.table(),
            Event::Poll { run } if run == self.run => self.poll(),
            Event::Prepare { run, write } if run == self.run => self.prepare(write),
            Event::Send { run, write } if run == self.run => self.send(write),
            Event::Arrive { run, write, end } if run == self.run => self.arrive(write, end)?,
            Event::Flush { sink, life, run, write } => self.flush(sink, life, run, write),
            Event::Answer { run, write, good } if run == self.run => self.answer(write, good),
            _ => {}
        }
        Ok(())
    }

    fn after(&mut self, delay_us: u64, event: Event) {
        self.next_event += 1;
        self.events.insert((self.now_us + delay_us, self.next_event), event);
    }

    fn now(&self) -> Instant {
        self.origin + Duration::from_micros(self.now_us)
    }

    fn trace(&self, line: impl FnOnce() -> String) {
        if self.plan.trace {
            #[allow(clippy::print_stdout, reason = "asked for")]
            {
                println!("{:>8} {:>12.6} s  {}", self.step, self.now_us as f64 / 1e6, line());
            }
        }
    }

    fn is_calm(&self) -> bool {
        self.calm_since_us.is_some()
    }

    fn sabotages(&self, sabotage: Sabotage) -> bool {
        self.plan.sabotage == Some(sabotage)
    }

    fn input(&mut self, input: Input) {
        if let Some(process) = &mut self.process {
            process.inputs.push_back(input);
        }
        self.wake(5);
    }

    /// The driver's thread has something to do.
    fn wake(&mut self, delay_us: u64) {
        let due = self.now_us + delay_us;
        if self.process.is_some() && self.drive_due.is_none_or(|before| before > due) {
            self.drive_due = Some(due);
            self.after(delay_us, Event::Drive { run: self.run, due });
        }
    }

    fn drive(&mut self) -> Result<(), String> {
        self.drive_due = None;
        let now = self.now();
        let Some(process) = &mut self.process else { return Ok(()) };
        let more = process.drive(now, &mut self.reached)?;
        let due = process.pipeline.due().map(|due| due.saturating_duration_since(now).as_micros() as u64);
        self.passed = process.pipeline.passed().0;
        let delay_us =
            if more { self.chance.between(1, 200) } else { due.unwrap_or(250_000).clamp(1, 250_000) };
        self.wake(delay_us);
        Ok(())
    }

    fn is_over(&self) -> bool {
        // What only the catalog tells comes to the sinks by then.
        self.last_looks > 3 && self.is_done()
    }

    fn is_done(&self) -> bool {
        let Some(process) = &self.process else { return false };
        self.is_calm()
            && self.server.is_read_out()
            && self.server.slot.confirmed >= self.server.source.end()
            && process.writes.is_empty()
            && process.inputs.is_empty()
            && !process.pipeline.is_busy()
            && process.pipeline.is_drained()
            && process.pipeline.waiting() == 0
            && process.copies.values().all(Copy::is_settled)
    }

    fn stuck(&self) -> String {
        let end = self.server.source.end();
        let Some(process) = &self.process else { return "no process comes up".to_owned() };
        format!(
            "it does not come to its end: the log ends at {end}, the slot is at {}, the watermark at {}; pending {}, \
             unfinished {}, waiting {}, writes {}, inputs {}, busy {}, {} of {} bytes held, copies {:?}",
            self.server.slot.confirmed,
            process.watermark,
            process.pipeline.pending(),
            process.pipeline.unfinished(),
            process.pipeline.waiting(),
            process.writes.len(),
            process.inputs.len(),
            process.pipeline.is_busy(),
            process.budget.held(),
            process.budget.bytes_max(),
            process.copies,
        )
    }
}
