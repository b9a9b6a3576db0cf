//! Decides which lanes a change goes to, and as what.
//!
//! ```text
//!                    ┌ tables filter ─▶ key hash ─▶ shard ─▶ batcher[sink, shard] ─▶ batch
//!   change ─▶ sink ──┤
//!                    └ truncate, or key change that only the sink can complete ─▶ fence
//! ```
//!
//! Rules, for sinks that hold state by key ([`KeyChanges::Split`]):
//! - changes of one key go to one lane, so they stay in order;
//! - an update that changes the key becomes a delete at its ordinal and an insert at the next, each in the
//!   lane of its own key;
//! - a truncate, and an update that changes the key of a row with unsent TOAST values, is fenced: every lane
//!   of the sink is durable up to there before it is applied, and none goes on before it is durable. Such updates that
//!   follow each other share a fence, of each shard, unless a row of one is a row of another ([`MovedRows`]).
//!
//! Sinks that keep a log ([`KeyChanges::Whole`]) get each change as it came; the second kind of fence is theirs
//! too when they have several lanes, since the value they have to look up lies in another one.

use crate::accounts::Accounts;
use crate::batcher::{BatchLimits, Batcher};
use replicator_config::TablePatterns;
use replicator_sink::KeyChanges;
use replicator_types::{
    Batch, Budget, KeyHasher, NewChange, Op, Phase, Relation, TransactionMeta, Tuple, Value, shard_of,
};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

/// What the dispatcher has to know of a sink.
#[derive(Clone, Debug)]
pub struct Route {
    /// The sink's name, for messages.
    pub name: String,
    /// Which tables it gets.
    pub tables: TablePatterns,
    /// Number of lanes.
    pub shards: u32,
    /// When a lane's batch is full.
    pub limits: BatchLimits,
    /// Whether key changes are split: a sink that holds state by key, rather than a log.
    pub key_changes: KeyChanges,
    /// Of a log: whether it takes changes of a table behind later ones of other tables
    /// ([`Sink::takes_late_changes`](replicator_sink::Sink::takes_late_changes)).
    pub takes_late_changes: bool,
    /// Whether it takes logical messages.
    pub messages: bool,
}

impl Route {
    fn is_log(&self) -> bool {
        self.key_changes == KeyChanges::Whole
    }

    /// Whether it waits for a table whose copy or change of schema is not durable yet, while others go on.
    fn waits(&self) -> bool {
        !self.is_log() || self.takes_late_changes
    }
}

/// Which of a table's sinks a change goes to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum To {
    /// All of them.
    All,
    /// The logs: the others have it.
    Logs,
    /// Those that do not wait with the table.
    AtOnce,
    /// Those that have waited with the table, and catch up.
    Waiters,
    /// The logs among those: a copy has it for the others.
    WaitingLogs,
}

impl To {
    fn includes(self, route: &Route) -> bool {
        match self {
            Self::All => true,
            Self::Logs => route.is_log(),
            Self::AtOnce => !route.waits(),
            Self::Waiters => route.waits(),
            Self::WaitingLogs => route.is_log() && route.waits(),
        }
    }

    fn phase(self) -> Phase {
        match self {
            Self::All | Self::Logs | Self::AtOnce => Phase::Stream,
            Self::Waiters | Self::WaitingLogs => Phase::CatchUp,
        }
    }
}

/// One shard of one sink, by their numbers in configuration order.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct LaneId {
    /// Index of the sink.
    pub sink: usize,
    /// Shard of it.
    pub shard: u32,
}

/// What the dispatcher hands out, in order for each lane.
#[derive(Debug)]
pub enum Output {
    /// A batch for a lane.
    Batch(LaneId, Batch),
    /// For all lanes of the lane's sink: become durable up to here; then that lane alone takes the batch;
    /// when it is durable all go on.
    Fence(LaneId, Batch),
}

/// A row change, decoded and not yet routed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RowChange<'a> {
    pub(crate) op: Op,
    pub(crate) old: Option<Tuple<'a>>,
    pub(crate) old_is_full: bool,
    pub(crate) new: Option<Tuple<'a>>,
}

/// A change that cannot be routed: the source sent what it should not have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DispatchError {
    /// An update or delete whose row cannot be told.
    #[error(
        "{op:?} on {table} came without a key: give the table a primary key, or run \
         `ALTER TABLE {table} REPLICA IDENTITY FULL` at the source"
    )]
    NoKey {
        /// What happened.
        op: Op,
        /// `schema.table`.
        table: String,
        /// The table.
        oid: u32,
        /// A sink that holds its state, and can't follow the change. None where the message itself is incomplete.
        sink: Option<usize>,
    },
}

#[derive(Debug)]
pub(crate) struct Dispatcher {
    routes: Vec<Route>,
    lanes: Vec<Vec<OpenBatches>>,
    /// By sink. While one is open its lanes have nothing open.
    moved: Vec<Option<MovedRows>>,
    /// For each table name: the sinks that get it. A rename makes a new entry.
    targets: HashMap<(String, String), Arc<[usize]>>,
    /// By table: sinks that get nothing of it.
    left_out: HashMap<u32, Vec<usize>>,
    budget: Budget,
    /// A key's text.
    scratch: Vec<u8>,
    pub(crate) outputs: Vec<Output>,
}

/// What a lane gets next.
#[derive(Debug)]
struct OpenBatches {
    stream: Batcher,
    catch_up: Batcher,
}

impl OpenBatches {
    fn new(limits: BatchLimits, budget: &Budget) -> Self {
        Self {
            stream: Batcher::new(limits, budget.clone(), Phase::Stream),
            catch_up: Batcher::new(limits, budget.clone(), Phase::CatchUp),
        }
    }

    fn of(&mut self, phase: Phase) -> &mut Batcher {
        if phase == Phase::Stream { &mut self.stream } else { &mut self.catch_up }
    }

    fn both(&mut self) -> [&mut Batcher; 2] {
        [&mut self.catch_up, &mut self.stream]
    }
}

/// Updates of keys that only the sink can complete, behind a fence for each shard that has any: each finds in the sink what it
/// was before. So no key of one is a key of another; that would have to be looked up in what is only being written, by a
/// process that has begun anew in what may be written.
#[derive(Debug)]
struct MovedRows {
    phase: Phase,
    /// Hashes of all keys, the old and the new.
    keys: HashSet<u64>,
    /// By shard, of the new keys as ever: a sink may note for each shard how far it is. In the order in which they were met.
    shards: Vec<(u32, Batcher)>,
}

impl MovedRows {
    fn batchers(&mut self) -> impl Iterator<Item = &mut Batcher> {
        self.shards.iter_mut().map(|(_, batcher)| batcher)
    }

    fn due(&self) -> Option<Instant> {
        self.shards.iter().filter_map(|(_, batcher)| batcher.due()).min()
    }
}

/// A table version with the sinks it goes to: looked up once a run of changes, not once a change.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) relation: Arc<Relation>,
    sinks: Arc<[usize]>,
    /// Whether a sink that takes the table is left out.
    pub(crate) leaves_out: bool,
}

impl Dispatcher {
    pub(crate) fn new(routes: Vec<Route>, budget: &Budget) -> Self {
        let lane =
            |route: &Route| (0..route.shards).map(|_| OpenBatches::new(route.limits, budget)).collect();
        let lanes = routes.iter().map(lane).collect();
        let moved = routes.iter().map(|_| None).collect();
        Self {
            routes,
            lanes,
            moved,
            targets: HashMap::new(),
            left_out: HashMap::new(),
            budget: budget.clone(),
            scratch: Vec::new(),
            outputs: Vec::new(),
        }
    }

    /// The sinks that a table goes to.
    pub(crate) fn target(&mut self, relation: &Arc<Relation>) -> Target {
        let name = (relation.schema.clone(), relation.name.clone());
        let routes = &self.routes;
        let sinks = self.targets.entry(name).or_insert_with(|| {
            let wanted = |route: &Route| route.tables.matches(&relation.schema, &relation.name);
            routes.iter().enumerate().filter_map(|(sink, route)| wanted(route).then_some(sink)).collect()
        });
        let mut target =
            Target { relation: Arc::clone(relation), sinks: Arc::clone(sinks), leaves_out: false };
        if let Some(left_out) = self.left_out.get(&relation.oid) {
            target.sinks = sinks.iter().copied().filter(|sink| !left_out.contains(sink)).collect();
            target.leaves_out = target.sinks.len() < sinks.len();
        }
        target
    }

    /// Whether any sink gets that table.
    pub(crate) fn goes_anywhere(&mut self, relation: &Arc<Relation>) -> bool {
        !self.target(relation).sinks.is_empty()
    }

    /// A sink gets nothing more of a table. Targets made before do not know it.
    pub(crate) fn leave_out(&mut self, oid: u32, sink: usize) {
        let left_out = self.left_out.entry(oid).or_default();
        if !left_out.contains(&sink) {
            left_out.push(sink);
        }
    }

    /// All sinks that take the table and hold its state get what comes of it; whether a log is still left out.
    pub(crate) fn take_back(&mut self, oid: u32) -> bool {
        let Some(left_out) = self.left_out.get_mut(&oid) else { return false };
        left_out.retain(|sink| self.routes.get(*sink).is_some_and(Route::is_log));
        let log_stays = !left_out.is_empty();
        if !log_stays {
            self.left_out.remove(&oid);
        }
        log_stays
    }

    /// How many ordinals a change takes.
    pub(crate) fn ordinals(&mut self, target: &Target, change: &RowChange<'_>) -> Result<u64, DispatchError> {
        Keys::of(&target.relation, change, &mut self.scratch).map(|keys| keys.ordinals())
    }

    /// Routes a change; returns how many ordinals it took.
    #[allow(clippy::too_many_arguments, reason = "a change with its place in the stream")]
    pub(crate) fn row(
        &mut self,
        accounts: &mut Accounts,
        transaction: &TransactionMeta,
        target: &Target,
        to: To,
        change: RowChange<'_>,
        ordinal: u64,
        now: Instant,
    ) -> Result<u64, DispatchError> {
        let relation = &target.relation;
        let keys = Keys::of(relation, &change, &mut self.scratch)?;
        if !keys.is_known {
            // A log has the change as it came.
            let is_of_state = |sink: &usize| !self.routes[*sink].is_log() && to.includes(&self.routes[*sink]);
            if let Some(sink) = target.sinks.iter().copied().find(is_of_state) {
                return Err(DispatchError::NoKey {
                    op: change.op,
                    table: relation.qualified_name(),
                    oid: relation.oid,
                    sink: Some(sink),
                });
            }
        }
        let new_change = NewChange {
            op: change.op,
            ordinal,
            old: change.old,
            old_is_full: change.old_is_full,
            new: change.new,
            key_hash: keys.hash,
            key_changed: keys.old_hash.is_some(),
            cascade: false,
            restart_identity: false,
        };
        for &sink in target.sinks.iter() {
            if !to.includes(&self.routes[sink]) {
                continue;
            }
            let split = !self.routes[sink].is_log();
            if let Some(old_hash) = keys.old_hash
                && keys.unresolved
                && (split || self.routes[sink].shards > 1)
            {
                self.move_row(
                    accounts,
                    transaction,
                    sink,
                    to.phase(),
                    [old_hash, keys.hash],
                    relation,
                    new_change,
                    now,
                );
                continue;
            }
            self.cut_moved(sink);
            let mut push = |shard_hash: u64, part: NewChange<'_>| {
                let shard = shard_of(shard_hash, self.routes[sink].shards);
                let batcher = self.lanes[sink][shard as usize].of(to.phase());
                let (new_fragment, is_full) = batcher.push(transaction, relation, part, now);
                if new_fragment {
                    accounts.fragment(transaction.id);
                }
                if is_full && let Some(batch) = batcher.cut(false) {
                    self.outputs.push(Output::Batch(LaneId { sink, shard }, batch));
                }
            };
            match keys.old_hash {
                Some(old_hash) if split => {
                    let removal = NewChange { op: Op::Delete, new: None, key_hash: old_hash, ..new_change };
                    push(old_hash, removal);
                    // The old row goes along only where it completes the new one.
                    let old = change.old.filter(|_| keys.needs_old);
                    let arrival = NewChange { op: Op::Insert, ordinal: ordinal + 1, old, ..new_change };
                    push(keys.hash, NewChange { key_changed: false, ..arrival });
                }
                None if split && change.op == Op::Update && !keys.needs_old => {
                    push(keys.hash, NewChange { old: None, old_is_full: false, ..new_change });
                }
                _ => push(keys.hash, new_change),
            }
        }
        Ok(keys.ordinals())
    }

    /// Routes one TRUNCATE statement over `targets`; returns how many ordinals it took.
    pub(crate) fn truncate(
        &mut self,
        accounts: &mut Accounts,
        transaction: &TransactionMeta,
        targets: &[(Target, To)],
        (cascade, restart_identity): (bool, bool),
        ordinal: u64,
        now: Instant,
    ) -> u64 {
        for sink in 0..self.routes.len() {
            let mut changes = Vec::new();
            let mut phase = Phase::Stream;
            for (index, (target, to)) in targets.iter().enumerate() {
                if target.sinks.contains(&sink) && to.includes(&self.routes[sink]) {
                    phase = to.phase();
                    let ordinal = ordinal + index as u64;
                    let change = NewChange {
                        cascade,
                        restart_identity,
                        ..NewChange::without_row(Op::Truncate, ordinal)
                    };
                    changes.push((&target.relation, change));
                }
            }
            if !changes.is_empty() {
                self.fence(accounts, transaction, LaneId { sink, shard: 0 }, phase, changes, now);
            }
        }
        targets.len() as u64
    }

    /// Whether the sink holds state by key.
    pub(crate) fn holds_state(&self, sink: usize) -> bool {
        self.routes.get(sink).is_some_and(|route| !route.is_log())
    }

    /// Whether any of the table's sinks holds state by key.
    pub(crate) fn is_state_kept_of(&self, target: &Target) -> bool {
        target.sinks.iter().any(|&sink| self.holds_state(sink))
    }

    /// Whether any of the table's sinks is among those.
    pub(crate) fn goes_to(&self, target: &Target, to: To) -> bool {
        target.sinks.iter().any(|&sink| self.routes.get(sink).is_some_and(|route| to.includes(route)))
    }

    /// Tells the sinks of a table, behind a fence, what it looks like from here on.
    pub(crate) fn schema(
        &mut self,
        accounts: &mut Accounts,
        transaction: &TransactionMeta,
        target: &Target,
        to: To,
        ordinal: u64,
        now: Instant,
    ) {
        self.tell(accounts, transaction, target, to, NewChange::without_row(Op::Schema, ordinal), now);
    }

    /// Raises a fence in the sinks that wait for the table, behind which they do: from the change on at whose place it
    /// stands. `is_noted`: it tells that. Otherwise it tells once more how the table looks.
    #[allow(clippy::too_many_arguments, reason = "a change with its place in the stream")]
    pub(crate) fn apart(
        &mut self,
        accounts: &mut Accounts,
        transaction: &TransactionMeta,
        target: &Target,
        is_noted: bool,
        ordinal: u64,
        now: Instant,
    ) {
        let op = if is_noted { Op::Apart } else { Op::Schema };
        self.tell(accounts, transaction, target, To::Waiters, NewChange::without_row(op, ordinal), now);
    }

    /// Raises a fence in the logs that wait for the table.
    pub(crate) fn drain_waiting_logs(
        &mut self,
        accounts: &mut Accounts,
        transaction: &TransactionMeta,
        target: &Target,
        ordinal: u64,
        now: Instant,
    ) {
        let change = NewChange::without_row(Op::Apart, ordinal);
        self.tell(accounts, transaction, target, To::WaitingLogs, change, now);
    }

    fn tell(
        &mut self,
        accounts: &mut Accounts,
        transaction: &TransactionMeta,
        target: &Target,
        to: To,
        change: NewChange<'_>,
        now: Instant,
    ) {
        for &sink in target.sinks.iter() {
            if to.includes(&self.routes[sink]) {
                let lane = LaneId { sink, shard: 0 };
                self.fence(accounts, transaction, lane, to.phase(), [(&target.relation, change)], now);
            }
        }
    }

    /// Hands a logical message to the sinks that take them.
    pub(crate) fn message(
        &mut self,
        accounts: &mut Accounts,
        transaction: &TransactionMeta,
        relation: &Arc<Relation>,
        message: Tuple<'_>,
        ordinal: u64,
        now: Instant,
    ) {
        for sink in 0..self.routes.len() {
            if !self.routes[sink].messages {
                continue;
            }
            self.cut_moved(sink);
            let change = NewChange { new: Some(message), ..NewChange::without_row(Op::Message, ordinal) };
            let batcher = &mut self.lanes[sink][0].stream;
            let (new_fragment, is_full) = batcher.push(transaction, relation, change, now);
            if new_fragment {
                accounts.fragment(transaction.id);
            }
            if is_full && let Some(batch) = batcher.cut(false) {
                self.outputs.push(Output::Batch(LaneId { sink, shard: 0 }, batch));
            }
        }
    }

    /// Routes an update of a key that only the sink can complete. `keys`: hashes of the old one and the new one.
    #[allow(clippy::too_many_arguments, reason = "a change with its place in the stream")]
    fn move_row(
        &mut self,
        accounts: &mut Accounts,
        transaction: &TransactionMeta,
        sink: usize,
        phase: Phase,
        keys: [u64; 2],
        relation: &Arc<Relation>,
        change: NewChange<'_>,
        now: Instant,
    ) {
        let joins =
            |moved: &MovedRows| moved.phase == phase && !keys.iter().any(|key| moved.keys.contains(key));
        if !self.moved[sink].as_ref().is_some_and(joins) {
            // With what has been moved so far.
            self.cut_sink(sink);
        }
        let Route { shards, limits, .. } = self.routes[sink];
        let moved = self.moved[sink].get_or_insert_with(|| MovedRows {
            phase,
            keys: HashSet::new(),
            shards: Vec::new(),
        });
        moved.keys.extend(keys);
        let shard = shard_of(change.key_hash, shards);
        let place = moved.shards.iter().position(|(known, _)| *known == shard).unwrap_or_else(|| {
            moved.shards.push((shard, Batcher::new(limits, self.budget.clone(), phase)));
            moved.shards.len() - 1
        });
        let (_, batcher) = &mut moved.shards[place];
        let (new_fragment, is_full) = batcher.push(transaction, relation, change, now);
        if new_fragment {
            accounts.fragment(transaction.id);
        }
        if is_full {
            self.cut_moved(sink);
        }
    }

    /// Hands out what has been moved in a sink, before anything else goes to it.
    #[inline]
    fn cut_moved(&mut self, sink: usize) {
        if self.moved[sink].is_some() {
            self.hand_out_moved(sink);
        }
    }

    #[cold]
    fn hand_out_moved(&mut self, sink: usize) {
        let Some(moved) = self.moved[sink].take() else { return };
        for (shard, mut batcher) in moved.shards {
            if let Some(batch) = batcher.cut(true) {
                self.outputs.push(Output::Fence(LaneId { sink, shard }, batch));
            }
        }
    }

    fn fence<'a>(
        &mut self,
        accounts: &mut Accounts,
        transaction: &TransactionMeta,
        lane: LaneId,
        phase: Phase,
        changes: impl IntoIterator<Item = (&'a Arc<Relation>, NewChange<'a>)>,
        now: Instant,
    ) {
        self.cut_sink(lane.sink);
        // No limits: a fenced batch is one statement.
        let limits =
            BatchLimits { rows_max: usize::MAX, bytes_max: usize::MAX, ..self.routes[lane.sink].limits };
        let mut batcher = Batcher::new(limits, self.budget.clone(), phase);
        for (relation, change) in changes {
            if batcher.push(transaction, relation, change, now).0 {
                accounts.fragment(transaction.id);
            }
        }
        if let Some(batch) = batcher.cut(true) {
            self.outputs.push(Output::Fence(lane, batch));
        }
    }

    fn cut_sink(&mut self, sink: usize) {
        self.cut_moved(sink);
        for (shard, open) in self.lanes[sink].iter_mut().enumerate() {
            for batcher in open.both() {
                if let Some(batch) = batcher.cut(false) {
                    self.outputs.push(Output::Batch(LaneId { sink, shard: shard as u32 }, batch));
                }
            }
        }
    }

    /// Cuts what tables catch up with, so that their later changes come behind it.
    pub(crate) fn cut_catch_up(&mut self) {
        for sink in 0..self.moved.len() {
            if self.moved[sink].as_ref().is_some_and(|moved| moved.phase == Phase::CatchUp) {
                self.cut_moved(sink);
            }
        }
        for (sink, lanes) in self.lanes.iter_mut().enumerate() {
            for (shard, open) in lanes.iter_mut().enumerate() {
                if let Some(batch) = open.catch_up.cut(false) {
                    self.outputs.push(Output::Batch(LaneId { sink, shard: shard as u32 }, batch));
                }
            }
        }
    }

    /// Cuts every open batch.
    pub(crate) fn cut_all(&mut self) {
        (0..self.lanes.len()).for_each(|sink| self.cut_sink(sink));
    }

    /// Cuts the batches that have waited long enough.
    pub(crate) fn cut_due(&mut self, now: Instant) {
        for sink in 0..self.moved.len() {
            let due = self.moved[sink].as_ref().and_then(MovedRows::due);
            if due.is_some_and(|due| due <= now) {
                self.cut_moved(sink);
            }
        }
        for (sink, lanes) in self.lanes.iter_mut().enumerate() {
            for (shard, open) in lanes.iter_mut().enumerate() {
                for batcher in open.both() {
                    if batcher.due().is_some_and(|due| due <= now)
                        && let Some(batch) = batcher.cut(false)
                    {
                        self.outputs.push(Output::Batch(LaneId { sink, shard: shard as u32 }, batch));
                    }
                }
            }
        }
    }

    /// When the next open batch is due.
    pub(crate) fn due(&self) -> Option<Instant> {
        let open = self.lanes.iter().flatten().flat_map(|open| [&open.stream, &open.catch_up]);
        let moved = self.moved.iter().flatten().filter_map(MovedRows::due);
        open.filter_map(Batcher::due).chain(moved).min()
    }

    /// Charges the budget with what the open batches hold.
    pub(crate) fn settle_charges(&mut self) {
        self.lanes.iter_mut().flatten().flat_map(OpenBatches::both).for_each(Batcher::settle_charge);
        self.moved.iter_mut().flatten().flat_map(MovedRows::batchers).for_each(Batcher::settle_charge);
    }
}

/// What a change's keys say.
#[derive(Default)]
struct Keys {
    /// Hash of the key after the change (before, for a delete).
    hash: u64,
    /// Hash of the key before, if the update changed it.
    old_hash: Option<u64>,
    /// Whether the new row has unsent TOAST values that the old row, being full, supplies.
    needs_old: bool,
    /// Whether it has unsent TOAST values that nobody but the sink has.
    unresolved: bool,
    /// Whether it is an update with the full old row.
    full_update: bool,
    /// Whether it tells which row it is of.
    is_known: bool,
}

impl Keys {
    /// Under FULL always two for an update: what the key is the catalog says, as it is when it is asked, and
    /// positions must not depend on that.
    fn ordinals(&self) -> u64 {
        if self.old_hash.is_some() || self.full_update { 2 } else { 1 }
    }

    fn of(relation: &Relation, change: &RowChange<'_>, scratch: &mut Vec<u8>) -> Result<Self, DispatchError> {
        let keyless = !relation.has_key();
        match (change.op, change.old, change.new) {
            (Op::Insert, _, Some(new)) => {
                Ok(Self { hash: hash(relation, new, None, scratch), is_known: true, ..Self::default() })
            }
            (Op::Delete, Some(old), _) => Ok(Self {
                hash: hash(relation, old, None, scratch),
                is_known: !keyless || change.old_is_full,
                ..Self::default()
            }),
            (Op::Update, old, Some(new)) => {
                let is_known = !keyless || change.old_is_full && old.is_some();
                let unchanged = new.has_unchanged();
                let changed = is_known && old.is_some_and(|old| keyless || key_differs(relation, old, new));
                Ok(Self {
                    hash: hash(relation, new, old, scratch),
                    old_hash: old.filter(|_| changed).map(|old| hash(relation, old, None, scratch)),
                    needs_old: unchanged && old.is_some(),
                    unresolved: unchanged && !change.old_is_full,
                    full_update: change.old_is_full,
                    is_known,
                })
            }
            _ => Err(DispatchError::NoKey {
                op: change.op,
                table: relation.qualified_name(),
                oid: relation.oid,
                sink: None,
            }),
        }
    }
}

/// Hash of a row's key, of the whole row where there is none. An unsent key value is taken from `old`: the
/// source sends the old key whenever a key column is stored out of line.
fn hash(relation: &Relation, row: Tuple<'_>, old: Option<Tuple<'_>>, scratch: &mut Vec<u8>) -> u64 {
    let mut hasher = KeyHasher::new(u64::from(relation.oid));
    if !relation.key_text_is_identity {
        return hasher.finish();
    }
    let keyless = !relation.has_key();
    let mut before = old.map(Tuple::values);
    for (value, column) in row.values().zip(&relation.columns) {
        let before = before.as_mut().and_then(Iterator::next);
        if !keyless && !column.is_key {
            continue;
        }
        let value = if value == Value::Unchanged { before.unwrap_or(value) } else { value };
        match value {
            Value::Text(bytes) => hasher.value(bytes),
            Value::Binary(bytes) => {
                // By its text, so that a key stays in its shard whichever way values are sent.
                scratch.clear();
                match pgvalue::write_text(column, bytes, scratch) {
                    Ok(()) => hasher.value(scratch),
                    Err(_) => hasher.value(bytes),
                }
            }
            Value::Null | Value::Unchanged => hasher.null(),
        }
    }
    hasher.finish()
}

fn key_differs(relation: &Relation, old: Tuple<'_>, new: Tuple<'_>) -> bool {
    old.values()
        .zip(new.values())
        .zip(&relation.columns)
        .any(|((old, new), column)| column.is_key && new != Value::Unchanged && old != new)
}
