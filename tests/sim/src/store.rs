//! A simulated sink's server: what it has in memory, and what of that is on its disk.
//!
//! ```text
//!   batch ─read─▶ steps ─apply─▶ memory ─flush─▶ disk        crash: memory becomes what the disk has
//! ```
//!
//! Beside each row stands the position of the change that wrote it, also where the row is gone; by that the order of a
//! row's changes is checked, and what is acknowledged.

use crate::plan::Kind;
use crate::table::{Columns, Given};
use replicator_model::line;
use replicator_model::shape::{KEY, LARGE};
use replicator_model::source::{Effect, FullRow};
use replicator_types::{Batch, Change, Lsn, Op, Phase, Position, Relation, Value};
use std::collections::BTreeMap;
use std::sync::Arc;

type At = (u32, u8);

/// By table and key.
pub(crate) type FullRows = BTreeMap<At, FullRow>;

/// A change, read out of a batch.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    pub(crate) position: Position,
    what: What,
}

#[derive(Clone, Debug)]
enum What {
    /// The row as it is now; without its large value where that stays, and with the key it had if it moves.
    Put {
        at: At,
        from: Option<At>,
        given: Given,
        large: Option<String>,
    },
    /// The table looks like this.
    Shape(Arc<Relation>),
    Remove {
        at: At,
    },
    Clear {
        table: u32,
    },
    /// For a log; with the table as it looks there.
    Line(String, Arc<Relation>),
    /// Nothing for a sink of this kind.
    Nothing,
}

#[derive(Clone, Default)]
struct State {
    rows: BTreeMap<At, Entry>,
    /// By table: the last truncate, or the snapshot of its copy.
    cleared: BTreeMap<u32, Position>,
    /// How far each lane has got.
    lanes: BTreeMap<usize, Position>,
    /// By table.
    columns: BTreeMap<u32, Columns>,
}

#[derive(Clone)]
struct Entry {
    position: Position,
    row: Option<FullRow>,
}

impl State {
    fn position(&self, at: At) -> Position {
        let cleared = self.cleared.get(&at.0).copied().unwrap_or_default();
        self.rows.get(&at).map_or(cleared, |entry| entry.position.max(cleared))
    }

    fn row(&self, at: At) -> Option<&FullRow> {
        self.rows.get(&at).and_then(|entry| entry.row.as_ref())
    }

    fn large(&self, at: At) -> Option<String> {
        self.row(at).map(|row| row.get(&LARGE).cloned().unwrap_or_default())
    }

    /// The row by the columns that the table has here.
    fn placed(&self, at: At, given: &Given, large: String) -> Result<FullRow, String> {
        let columns = self.columns.get(&at.0).ok_or_else(|| format!("table {} is not there", at.0))?;
        let mut row = columns.placed(given).map_err(|text| format!("table {}: {text}", at.0))?;
        row.insert(KEY, at.1.to_string());
        row.insert(LARGE, large);
        Ok(row)
    }

    fn follow(&mut self, relation: &Relation, first: Position) {
        self.columns.entry(relation.oid).or_default().follow(relation, relation.turn(first));
    }

    /// A row as of that position; in the stream that is a newer one than what is there.
    fn write(
        &mut self,
        at: At,
        row: Option<FullRow>,
        position: Position,
        is_stream: bool,
    ) -> Result<(), String> {
        let before = self.position(at);
        if is_stream && position <= before {
            return Err(format!("row {at:?} is at {before} and gets the change at {position}"));
        }
        self.rows.insert(at, Entry { position: position.max(before), row });
        Ok(())
    }

    fn rows(&self) -> FullRows {
        self.rows.iter().filter_map(|(at, entry)| Some((*at, entry.row.clone()?))).collect()
    }
}

pub(crate) struct Store {
    pub(crate) kind: Kind,
    pub(crate) is_up: bool,
    /// Counts the crashes: what was under way before one does not come to its end behind it.
    pub(crate) life: u32,
    memory: State,
    disk: State,
    log: BTreeMap<(u64, u64), String>,
    /// By table: since when the newest version holds that a log was told of. Durable at once.
    told: BTreeMap<u32, Lsn>,
    /// The log in the order of arrival, and how much of it is on the disk.
    arrived: Vec<(u64, u64)>,
    flushed: usize,
}

/// What no row has.
const MISSING: &str = "MISSING";

impl Store {
    pub(crate) fn new(kind: Kind) -> Self {
        Self {
            kind,
            is_up: true,
            life: 0,
            memory: State::default(),
            disk: State::default(),
            log: BTreeMap::new(),
            told: BTreeMap::new(),
            arrived: Vec::new(),
            flushed: 0,
        }
    }

    /// Turns a batch into steps; those of a sink with versions are completed with what it has, since their writes may
    /// overtake each other later.
    pub(crate) fn prepare(&self, batch: &Batch) -> Vec<Step> {
        let mut steps: Vec<Step> = batch.changes().map(|change| self.read(&change)).collect();
        if self.kind == Kind::Versions {
            let mut newest: BTreeMap<At, Option<String>> = BTreeMap::new();
            for step in &mut steps {
                match &mut step.what {
                    What::Put { at, from, large, .. } => {
                        let origin = from.unwrap_or(*at);
                        let before =
                            || newest.get(&origin).cloned().unwrap_or_else(|| self.memory.large(origin));
                        let large = large.get_or_insert_with(|| before().unwrap_or_else(|| MISSING.into()));
                        newest.insert(*at, Some(large.clone()));
                    }
                    What::Remove { at } => {
                        newest.insert(*at, None);
                    }
                    _ => {}
                }
            }
        }
        steps
    }

    fn read(&self, change: &Change<'_>) -> Step {
        let table = change.relation.oid;
        let what = match change.op {
            Op::Apart => What::Nothing,
            _ if self.kind.is_log() && change.op != Op::Schema => {
                What::Line(line(change), Arc::clone(change.relation))
            }
            Op::Schema => What::Shape(Arc::clone(change.relation)),
            Op::Message => What::Nothing,
            Op::Truncate => What::Clear { table },
            Op::Delete => What::Remove { at: (table, key(change.key_values().next())) },
            Op::Insert | Op::Update => {
                let mut given = Given::new(change.relation);
                let mut large = None;
                for (column, value) in change.relation.columns.iter().zip(change.new_values()) {
                    match (column.attnum, text(Some(value))) {
                        (LARGE, text) => large = text,
                        (KEY, _) | (_, None) => {}
                        (_, Some(text)) => given.push(column, text),
                    }
                }
                let at = (table, key(change.key_values().next()));
                let old = change.old_key_values().filter(|_| change.key_changed);
                What::Put { at, from: old.map(|mut old| (table, key(old.next()))), given, large }
            }
        };
        Step { position: change.position, what }
    }

    /// Applies the first `count` steps to memory. Returns how many were there from before.
    ///
    /// # Errors
    /// What comes is out of order.
    pub(crate) fn apply(
        &mut self,
        (shard, phase): (usize, Phase),
        steps: &[Step],
        count: usize,
    ) -> Result<usize, String> {
        let mut passed_over = 0;
        for step in steps.iter().take(count) {
            let is_there = match self.kind {
                Kind::Log | Kind::History => self.append(step)?,
                Kind::Versions => self.version(step)?,
                Kind::Transactions => self.transact(shard, phase, step)?,
            };
            passed_over += usize::from(is_there);
        }
        Ok(passed_over)
    }

    fn append(&mut self, step: &Step) -> Result<bool, String> {
        if let What::Shape(relation) = &step.what {
            self.follow(relation, relation.since);
        }
        let What::Line(line, relation) = &step.what else { return Ok(false) };
        let position = (step.position.commit_lsn.0, step.position.ordinal);
        if let Some(before) = self.log.get(&position) {
            return if before == line {
                Ok(true)
            } else {
                Err(format!("the log has `{before}` where `{line}` comes now"))
            };
        }
        let last = self.arrived.last().filter(|last| self.kind == Kind::Log && **last > position);
        if let Some(last) = last {
            return Err(format!("the log has {last:?} already, and gets `{line}` behind it"));
        }
        let told = self.told.get(&relation.oid).copied().unwrap_or(Lsn::MAX);
        if self.kind == Kind::History && relation.since > told {
            let since = relation.since;
            return Err(format!(
                "the history was told of versions up to {told}, and gets `{line}` of that since {since}"
            ));
        }
        self.log.insert(position, line.clone());
        self.arrived.push(position);
        Ok(false)
    }

    /// The newest version wins, in whatever order they come.
    fn version(&mut self, step: &Step) -> Result<bool, String> {
        let state = &mut self.memory;
        let row = match &step.what {
            What::Put { at, given, large, .. } => {
                Some(state.placed(*at, given, large.clone().unwrap_or_else(|| MISSING.into()))?)
            }
            _ => None,
        };
        let mut put = |at: At, row: Option<FullRow>| {
            let is_there = state.rows.get(&at).is_some_and(|entry| entry.position >= step.position);
            if !is_there {
                state.rows.insert(at, Entry { position: step.position, row });
            }
            is_there
        };
        Ok(match &step.what {
            What::Put { at, from, .. } => {
                let is_there = put(*at, row);
                from.filter(|from| from != at).map(|from| put(from, None));
                is_there
            }
            What::Remove { at } => put(*at, None),
            What::Clear { table } => {
                state.rows.retain(|at, entry| at.0 != *table || entry.position > step.position);
                let cleared = state.cleared.entry(*table).or_default();
                *cleared = step.position.max(*cleared);
                false
            }
            What::Shape(relation) => {
                state.follow(relation, step.position);
                false
            }
            What::Line(..) | What::Nothing => false,
        })
    }

    fn transact(&mut self, shard: usize, phase: Phase, step: &Step) -> Result<bool, String> {
        let state = &mut self.memory;
        let (position, is_stream) = (step.position, phase == Phase::Stream);
        if is_stream {
            let lane = state.lanes.entry(shard).or_default();
            if !matches!(step.what, What::Nothing | What::Shape(_)) {
                if position <= *lane {
                    return Ok(true);
                }
                *lane = position;
            }
        }
        match &step.what {
            What::Put { at, from, given, large } => {
                let origin = from.unwrap_or(*at);
                // Catching up, a row may have been moved before, by an earlier try.
                let moved = (!is_stream && origin != *at).then(|| state.large(*at)).flatten();
                let large = large.clone().or(moved).or_else(|| state.large(origin));
                // What the change does not say stays: columns that came later than its version.
                let before = state.row(origin).or_else(|| state.row(*at)).cloned().unwrap_or_default();
                if let Some(from) = from.filter(|from| from != at) {
                    state.write(from, None, position, is_stream)?;
                }
                let now = state.placed(*at, given, large.unwrap_or_else(|| MISSING.into()))?;
                let row = before.into_iter().chain(now).collect();
                state.write(*at, Some(row), position, is_stream)?;
            }
            What::Remove { at } => state.write(*at, None, position, is_stream)?,
            What::Clear { table } => {
                state.rows.retain(|at, _| at.0 != *table);
                let cleared = state.cleared.entry(*table).or_default();
                *cleared = position.max(*cleared);
            }
            What::Shape(relation) => state.follow(relation, position),
            What::Line(..) | What::Nothing => {}
        }
        Ok(false)
    }

    /// A table's copy: its rows, instead of what there was. Durable at once.
    pub(crate) fn copy(
        &mut self,
        table: u32,
        snapshot: u64,
        rows: &FullRows,
        columns: &Relation,
    ) -> Result<(), String> {
        if self.kind.is_log() {
            self.follow(columns, columns.since.max(Lsn(snapshot)));
            return Ok(());
        }
        let position = Position::copied(Lsn(snapshot), 0);
        self.memory.rows.retain(|at, _| at.0 != table);
        self.memory.cleared.insert(table, position);
        self.memory.follow(columns, Position::ZERO);
        for (at, row) in rows {
            let mut given = Given::new(columns);
            for column in
                columns.columns.iter().filter(|column| column.attnum != KEY && column.attnum != LARGE)
            {
                row.get(&column.attnum).into_iter().for_each(|text| given.push(column, text.clone()));
            }
            let row = self.memory.placed(*at, &given, row.get(&LARGE).cloned().unwrap_or_default())?;
            self.memory.rows.insert(*at, Entry { position, row: Some(row) });
        }
        self.flush();
        Ok(())
    }

    fn follow(&mut self, relation: &Relation, since: Lsn) {
        let told = self.told.entry(relation.oid).or_default();
        *told = since.max(*told);
    }

    /// The table is there.
    pub(crate) fn make(&mut self, relation: &Relation) {
        self.told.entry(relation.oid).or_insert(relation.since);
        for state in [&mut self.memory, &mut self.disk] {
            if !state.columns.contains_key(&relation.oid) {
                state.follow(relation, Position::ZERO);
            }
        }
    }

    /// The table becomes what the version says. Durable at once, together with what there was before.
    pub(crate) fn alter(&mut self, relation: &Relation, at: Position) {
        self.follow(relation, relation.since);
        if !self.kind.is_log() {
            self.memory.follow(relation, at);
            self.flush();
        }
    }

    /// What was applied survives from here on.
    pub(crate) fn flush(&mut self) {
        if !self.kind.is_log() {
            self.disk = self.memory.clone();
        }
        self.flushed = self.arrived.len();
    }

    /// Returns whether anything is lost.
    pub(crate) fn crash(&mut self) -> bool {
        self.is_up = false;
        self.life += 1;
        let is_lost = self.flushed < self.arrived.len()
            || self.memory.rows.len() != self.disk.rows.len()
            || self.memory.lanes != self.disk.lanes
            || self.memory.rows.iter().zip(&self.disk.rows).any(|(a, b)| a.1.position != b.1.position);
        self.memory = self.disk.clone();
        for lost in self.arrived.drain(self.flushed..) {
            self.log.remove(&lost);
        }
        is_lost
    }

    /// Whether what a commit did to a row is on the disk, or something newer.
    pub(crate) fn has(&self, effect: &Effect) -> bool {
        let position = Position { commit_lsn: Lsn(effect.position.0), ordinal: effect.position.1 };
        match effect.key {
            Some(key) => self.disk.position((effect.table, key)) >= position,
            None => self.disk.cleared.get(&effect.table).is_some_and(|cleared| *cleared >= position),
        }
    }

    /// Whether a change of that position is in the log on the disk.
    pub(crate) fn has_line(&self, position: &(u64, u64)) -> bool {
        self.log.contains_key(position)
            && (self.flushed == self.arrived.len() || !self.arrived[self.flushed..].contains(position))
    }

    /// Compares what is on the disk with what the source has.
    pub(crate) fn compare(
        &self,
        rows: &FullRows,
        columns: impl Fn(u32) -> Option<Vec<(i16, String)>>,
        log: &BTreeMap<(u64, u64), String>,
    ) -> Result<(), String> {
        if self.kind.is_log() {
            let both = log.keys().chain(self.log.keys());
            for position in both {
                let (has, should) = (self.log.get(position), log.get(position));
                if has != should {
                    return Err(format!("at {position:?} the log has {has:?} and should have {should:?}"));
                }
            }
            return Ok(());
        }
        for (table, of) in &self.disk.columns {
            let (has, should) = (of.names(), columns(*table));
            if should.as_ref().is_some_and(|should| has != *should) {
                return Err(format!("table {table} has columns {has:?} and should have {should:?}"));
            }
        }
        // What is dropped at the source may stay here.
        let mut mine = self.disk.rows();
        for (at, row) in &mut mine {
            let of = self.disk.columns.get(&at.0);
            let value =
                |(attnum, name): (i16, String)| Some((attnum, row.remove(&of?.place(attnum, &name)?)?));
            *row = columns(at.0).into_iter().flatten().filter_map(value).collect();
        }
        for at in rows.keys().chain(mine.keys()) {
            let (has, should) = (mine.get(at), rows.get(at));
            if has != should {
                return Err(format!("row {at:?} is {has:?} and should be {should:?}"));
            }
        }
        Ok(())
    }
}

fn text(value: Option<Value<'_>>) -> Option<String> {
    value.and_then(Value::bytes).map(|bytes| String::from_utf8_lossy(bytes).into_owned())
}

fn key(value: Option<Value<'_>>) -> u8 {
    text(value).and_then(|text| text.parse().ok()).unwrap_or(u8::MAX)
}
