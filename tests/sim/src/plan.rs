//! What a seed decides before anything happens.

use crate::chance::Chance;
use replicator_model::shape::Names;

/// What breaks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, clap::ValueEnum)]
pub enum Fault {
    /// The replicator's process dies. It is started again.
    Kill,
    /// The connection to the source breaks.
    Cut,
    /// The source's server dies, and with it what it knew of the slot since it wrote that down last.
    SourceCrash,
    /// A sink's server dies, with what was not on its disk.
    SinkCrash,
}

/// A fault at a given step.
#[derive(Clone, Copy, Debug)]
pub struct Inject {
    /// Before the event of this number, from 0.
    pub step: u64,
    /// What happens there.
    pub fault: Fault,
}

/// A bug that the properties have to find. For tests of the simulation itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sabotage {
    /// What was received is acknowledged.
    AcknowledgeReceived,
    /// What was handed out is acknowledged.
    AcknowledgePassed,
    /// The LSN of the last keepalive is acknowledged at once.
    AcknowledgeKeepalive,
    /// A sink says "durable" when nothing is on its disk yet.
    DurableTooEarly,
    /// Now and then a batch is reported durable that nobody has written.
    DropFragment,
    /// Now and then two batches of a lane change places.
    Reorder,
    /// A fenced batch goes to its lane without the others being waited for.
    SkipFence,
    /// A process that starts goes on where the one before had got to.
    ForgetReplay,
    /// The pipeline is not told that a new connection begins.
    ForgetReconnect,
    /// The reader does not wait for the budget.
    IgnoreBudget,
    /// A copied table's changes follow before its rows are there.
    ReleaseTooEarly,
    /// It is written down that a table is copied before its rows are there.
    NoteTooEarly,
    /// A write that failed is not sent again.
    ForgetRetry,
    /// A subtransaction that is rolled back stays.
    ForgetAbort,
    /// What waited for sinks to follow a change of a table's schema is handed on as if it came from the stream just then.
    CatchUpAsStream,
    /// While sinks follow a change of a table's schema, what was handed out is acknowledged.
    AcknowledgeAltering,
    /// A process that starts does not look at which tables were apart.
    ForgetApart,
    /// A table that waits gets its changes from the stream again before that has passed what lanes got to in an earlier
    /// run.
    JoinEarly,
    /// A process that starts knows of no version of a table but the one in the catalog.
    ForgetVersions,
    /// A table's changes follow before its sinks have followed the change of its schema.
    ReleaseUnaltered,
}

/// How a simulated sink keeps what it gets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// Rows with their positions as versions; writes of a lane in any order. Like ClickHouse.
    Versions,
    /// A batch and the lane's position in one step; what the position covers is left out. Like Postgres.
    Transactions,
    /// Every change by its position, in order. Like files.
    Log,
    /// Every change by its position, of each table in order; tables wait for it. Like a history in ClickHouse.
    History,
}

impl Kind {
    pub(crate) fn is_log(self) -> bool {
        matches!(self, Self::Log | Self::History)
    }
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct SinkPlan {
    pub(crate) kind: Kind,
    pub(crate) shards: u32,
    pub(crate) in_flight_max: usize,
    pub(crate) rows_max: usize,
    pub(crate) bytes_max: usize,
    pub(crate) interval_ms: u64,
}

/// A schedule in the making: all that is decided before the first event.
#[derive(Clone, Debug)]
pub struct Plan {
    pub(crate) seed: u64,
    pub(crate) sinks: Vec<SinkPlan>,
    pub(crate) budget_bytes: usize,
    pub(crate) window_bytes: usize,
    /// Of the values that updates may leave alone.
    pub(crate) large_bytes: usize,
    /// What waits may take so much memory; the rest goes to files. None: no files.
    pub(crate) waiting_bytes: Option<usize>,
    /// What the clients do.
    pub(crate) operations: u64,
    pub(crate) client_interval_us: u64,
    /// Share of operations that are changes rather than ends of transactions and the like.
    pub(crate) long_transactions: bool,
    /// Mean time between faults; none for no faults.
    pub(crate) fault_interval_us: Option<u64>,
    pub(crate) fail_percent: u64,
    /// How long a write takes, and now and then ten times as long.
    pub(crate) write_us: u64,
    /// Whether tables are to be copied.
    pub(crate) copies: bool,
    /// Of 61 and some operations, how many alter a table.
    pub(crate) alters: u64,
    /// What columns are called.
    pub(crate) names: Names,
    /// Whether a copy may be taken up where it was, with changes that come a second time.
    pub(crate) resumes: bool,
    /// A fault at a given step, beside the others.
    pub(crate) inject: Option<Inject>,
    pub(crate) sabotage: Option<Sabotage>,
    pub(crate) trace: bool,
}

impl Plan {
    /// The schedule of a seed.
    pub fn of(seed: u64) -> Self {
        let mut chance = Chance::new(seed);
        let kinds: &[Kind] = match chance.below(9) {
            0 => &[Kind::Transactions, Kind::Log],
            1 => &[Kind::Versions, Kind::Log],
            2 => &[Kind::Versions, Kind::Transactions],
            3 => &[Kind::Transactions],
            4 => &[Kind::History],
            5 => &[Kind::Transactions, Kind::History],
            6 => &[Kind::Versions, Kind::History, Kind::Log],
            _ => &[Kind::Versions, Kind::Transactions, Kind::Log],
        };
        let spills = chance.percent(6);
        let sinks = kinds.iter().map(|kind| Self::sink(&mut chance, *kind)).collect();
        // Much more comes at once than may be held.
        let crowds = !spills && chance.percent(5);
        let copies = chance.percent(60);
        let large_bytes = match (spills, crowds) {
            (true, _) => chance.between(1500, 4000) as usize,
            (false, crowds) => 500 * usize::from(crowds),
        };
        Self {
            seed,
            sinks,
            budget_bytes: if crowds { 2 << 10 } else { chance.pick(&[2 << 10, 8 << 10, 32 << 10, 1 << 20]) },
            window_bytes: if crowds { 64 << 10 } else { chance.pick(&[1 << 10, 4 << 10, 64 << 10]) },
            large_bytes,
            waiting_bytes: spills.then(|| chance.pick(&[0, 64 << 10])),
            operations: if spills || crowds { 250 } else { chance.between(20, 250) },
            client_interval_us: if crowds { 50 } else { chance.pick(&[50, 500, 5_000, 50_000]) },
            long_transactions: spills || chance.percent(30),
            fault_interval_us: chance.percent(85).then(|| chance.pick(&[20_000, 100_000, 1_000_000])),
            fail_percent: chance.pick(&[0, 5, 30]),
            write_us: if crowds { 30_000 } else { chance.pick(&[100, 2_000, 30_000]) },
            copies,
            resumes: chance.percent(50),
            alters: chance.pick(&[0, 2, 6, 20]),
            names: if chance.percent(70) { Names::Again } else { Names::New },
            inject: None,
            sabotage: None,
            trace: false,
        }
    }

    fn sink(chance: &mut Chance, kind: Kind) -> SinkPlan {
        let (shards, in_flight_max) = match kind {
            Kind::Versions => (chance.between(1, 4), chance.between(1, 4)),
            Kind::Transactions => (chance.between(1, 4), 1),
            Kind::Log => (1, 1),
            Kind::History => (chance.between(1, 4), chance.between(1, 4)),
        };
        SinkPlan {
            kind,
            shards: shards as u32,
            in_flight_max: in_flight_max as usize,
            rows_max: chance.pick(&[1, 3, 10, 1000]),
            bytes_max: chance.pick(&[200, 1 << 20]),
            interval_ms: chance.pick(&[1, 20, 200]),
        }
    }

    /// A small schedule without faults of its own, for one at every step: two sinks, few transactions.
    pub fn small(seed: u64) -> Self {
        Self {
            operations: 24,
            fault_interval_us: None,
            fail_percent: 0,
            large_bytes: 0,
            waiting_bytes: None,
            client_interval_us: 500,
            write_us: 2_000,
            ..Self::of(seed)
        }
    }

    /// The same with a fault at a step.
    #[must_use]
    pub fn with_fault(self, inject: Inject) -> Self {
        Self { inject: Some(inject), ..self }
    }

    /// The same with a bug.
    #[must_use]
    pub fn with_sabotage(self, sabotage: Sabotage) -> Self {
        Self { sabotage: Some(sabotage), ..self }
    }

    /// The same, told on standard output as it goes.
    #[must_use]
    pub fn with_trace(self, trace: bool) -> Self {
        Self { trace, ..self }
    }
}
