//! Where tables stand towards their copies, and what sinks are told of their schemas.
//!
//! ```text
//!   live ──hold──▶ waiting ──release──▶ catching up ──settled──▶ live
//!    ▲                ▲
//!    └── with_standings, met for the first time
//! ```
//!
//! A table that waits keeps its changes, and the watermark before them. See [`waiting`](crate::waiting). A live table whose
//! schema changes waits too, for its sinks to follow the change ([`Notice::ToAlter`]): however long that takes one of them,
//! other tables go on.

use super::{Pipeline, PipelineError, STEP_BYTES};
use crate::accounts::Accounts;
use crate::dispatcher::{DispatchError, Dispatcher, RowChange, Target, To};
use crate::relations::Met;
use crate::rewrite::{Rewrite, rewrite_of};
use crate::waiting::{Waited, Waiting, What};
use replicator_spill::Shelf;
use replicator_types::{Lsn, Op, Position, Relation, TableCatalog, TransactionMeta, Tuple, TxnId};
use std::collections::{HashMap, HashSet, VecDeque};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Instant;

/// How a table stands towards its copy when the run begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Standing {
    /// Its changes go to the sinks as they come. Those before `from` are in the sinks already but for logs, which leave
    /// out what they have: they were caught up with in an earlier run.
    Live {
        /// The first change that was not caught up with.
        from: Position,
    },
    /// Other tables' changes went ahead of its own in an earlier run: it waits for the stream to pass what that got to, and
    /// follows by itself.
    Apart {
        /// Since when the version holds that sinks were told last.
        told: Lsn,
        /// Changes before that are in the sinks.
        from: Position,
    },
    /// It is to be copied: its changes wait.
    Waiting {
        /// What commits before it is in the copy; none while there is no snapshot yet.
        snapshot: Option<Lsn>,
    },
}

/// What the pipeline has to tell of tables.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Notice {
    /// Everything of the table that came before [`Pipeline::hold`] is durable.
    Held {
        /// The table.
        oid: u32,
        /// What commits before it is durable; zero where that can't be told.
        covers: Lsn,
    },
    /// The table has caught up, durably; changes from the position on go the ordinary way.
    /// [`Pipeline::settled`] lets go of the watermark when that is written down.
    CaughtUp {
        /// The table.
        oid: u32,
        /// The first change that went the ordinary way.
        from: Position,
        /// With which transaction's number sinks were told that it waits ([`Op::Apart`]); none if they were by an earlier run,
        /// or not at all.
        held: Option<TxnId>,
    },
    /// What the sinks have of the table may be wrong, and only a copy under one snapshot makes that right.
    /// Told before [`Notice::CaughtUp`], once a copy.
    Doubtful {
        /// The table.
        oid: u32,
        /// Why.
        doubt: Doubt,
    },
    /// Everything of the table that was made under an earlier version is durable, and what comes next is of this one:
    /// the sinks that wait for it are to follow it ([`Sink::alter`](replicator_sink::Sink::alter)).
    /// [`Pipeline::release`] answers; or a copy does, as after [`Notice::Held`].
    ToAlter {
        /// How the table looks.
        after: Arc<Relation>,
        /// From here on.
        at: Position,
        /// Since when the version holds that sinks know; none where a copy brought it.
        known: Option<Lsn>,
    },
    /// A sink will never take a change of the table, and takes those of others. When that is
    /// written down, another run leaves that sink out of the table ([`Pipeline::with_left_out`]).
    Refused {
        /// The table.
        oid: u32,
        /// The sink.
        sink: usize,
        /// What the sink said.
        text: String,
    },
    /// A table that the run did not know. Its changes wait from its first one on.
    New(Arc<Relation>),
    /// A logical message with the prefix of [`Pipeline::with_request_prefix`]. The watermark stays before it until
    /// [`Pipeline::answered`].
    Request {
        /// For the answer.
        id: TxnId,
        /// Where the message lies.
        at: Lsn,
        /// The message's content.
        content: Vec<u8>,
    },
    /// A table looks different from here on.
    Altered {
        /// How it looked.
        before: Arc<Relation>,
        /// How it looks.
        after: Arc<Relation>,
    },
    /// A table looks different from here on, and its rows may have been computed anew: it waits to be copied again, as
    /// after [`Pipeline::hold`]. Sinks that wait are not told how it looks before that; the copy brings it.
    Rewritten {
        /// How it looks.
        after: Arc<Relation>,
        /// How it is to be copied.
        rewrite: Rewrite,
    },
}

/// Why what sinks have of a table may be wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Doubt {
    /// While it caught up, a row got another key and its large values were not sent, over rows that the copy has perhaps
    /// of a later time: where the row was, another may stand.
    UnsentValues,
    /// Which columns its changes are of is a guess ([`Relation::is_guess`]).
    Columns,
}

impl Notice {
    /// Whether it says that a table goes on waiting.
    pub(super) fn is_about_what_waits_of(&self, oid: u32) -> bool {
        match self {
            Self::Held { oid: of, .. } => *of == oid,
            Self::ToAlter { after, .. } => after.oid == oid,
            _ => false,
        }
    }
}

/// Where in the stream something happens.
#[derive(Clone, Copy, Debug)]
struct Turn {
    transaction: TxnId,
    at: Position,
}

/// Where tables stand.
#[derive(Debug)]
pub(super) struct Tables {
    pub(super) shelf: Shelf,
    pub(super) standings: HashMap<u32, Position>,
    pub(super) waiting: HashMap<u32, Waiting>,
    /// Not published any more: logs get what waited, and what comes still, one table after the other.
    pub(super) leaving: VecDeque<(u32, Waiting)>,
    /// Of those, what is handed on and not durable: the table, and what holds the watermark for it.
    pub(super) left: HashMap<TxnId, (u32, Option<TxnId>)>,
    /// The table that was handed on last.
    handed_on: Option<u32>,
    /// Sinks may have changes up to here from an earlier run.
    reach: Lsn,
    /// Copied, and catching up; one after the other.
    pub(super) releasing: VecDeque<u32>,
    /// What the end of a group means.
    pub(super) groups: HashMap<TxnId, Notice>,
    /// Caught up, until that is written down; with what holds the watermark, if anything waited.
    pub(super) holds: HashMap<u32, Option<TxnId>>,
    /// Whether tables that are not known wait to be copied.
    pub(super) unknown_wait: bool,
    /// Described, not known, and without a change so far.
    pub(super) unknown: HashSet<u32>,
    /// Requests that are not answered.
    pub(super) requests: usize,
    /// To be held when the stream has passed that.
    pub(super) to_hold: Vec<(u32, Lsn)>,
    /// Read from the catalog; to be told once the stream has passed that moment.
    pub(super) catalogs: Vec<TableCatalog>,
}

impl Tables {
    pub(super) fn new(shelf: Shelf) -> Self {
        Self {
            shelf,
            standings: HashMap::new(),
            waiting: HashMap::new(),
            leaving: VecDeque::new(),
            left: HashMap::new(),
            handed_on: None,
            reach: Lsn::ZERO,
            releasing: VecDeque::new(),
            groups: HashMap::new(),
            holds: HashMap::new(),
            unknown_wait: false,
            unknown: HashSet::new(),
            requests: 0,
            to_hold: Vec::new(),
            catalogs: Vec::new(),
        }
    }

    /// The table, if it waits, or leaves and logs wait for it.
    pub(super) fn waiting_mut(&mut self, oid: u32) -> Option<&mut Waiting> {
        if self.leaving.is_empty() {
            return self.waiting.get_mut(&oid);
        }
        let leaving = self.leaving.iter_mut().find(|(of, _)| *of == oid).map(|(_, waiting)| waiting);
        self.waiting.get_mut(&oid).or(leaving)
    }

    pub(super) fn waits(&self) -> bool {
        !self.waiting.is_empty() || !self.leaving.is_empty()
    }

    fn is_leaving(&self, oid: u32) -> bool {
        self.leaving.iter().any(|(of, _)| *of == oid)
    }

    /// A table begins to wait. It does so until the stream has passed what an earlier run may have got to: a lane leaves
    /// out changes of the stream that it got past then, also where this run has handed on older ones.
    fn new_waiting(&self, snapshot: Option<Lsn>) -> Waiting {
        let mut waiting = Waiting::new(&self.shelf, snapshot);
        waiting.copied_until(self.reach);
        waiting
    }
}

impl Pipeline {
    /// How the tables stand towards their copies. `unknown_wait`: those that are not named wait. To be called behind
    /// [`Pipeline::with_relations`].
    #[must_use]
    pub fn with_standings(
        mut self,
        standings: impl IntoIterator<Item = (u32, Standing)>,
        unknown_wait: bool,
    ) -> Self {
        self.tables.unknown_wait = unknown_wait;
        for (oid, standing) in standings {
            match standing {
                Standing::Live { from } => {
                    self.tables.standings.insert(oid, from);
                }
                Standing::Apart { told, from } => {
                    let mut waiting = self.tables.new_waiting(None);
                    waiting.follows = true;
                    waiting.from = from;
                    waiting.known = Some(told);
                    self.tables.waiting.insert(oid, waiting);
                    self.relations.begin_at_version(oid, told, self.passed);
                }
                Standing::Waiting { snapshot } => {
                    self.tables.waiting.insert(oid, self.tables.new_waiting(snapshot));
                    // What it has caught up with comes again, and not all sinks may have followed.
                    if let Some(snapshot) = snapshot {
                        self.relations.begin_at_version(oid, snapshot, self.passed);
                    }
                }
            }
        }
        self
    }

    /// An earlier run may have got to this LSN, and not further: the end of WAL at a time when nobody but this run writes
    /// to the sinks.
    #[must_use]
    pub fn with_reach(mut self, reach: Lsn) -> Self {
        self.tables.reach = reach;
        self.tables.waiting.values_mut().for_each(|waiting| waiting.copied_until(reach));
        self
    }

    pub(super) fn next_to_release(&self) -> Option<u32> {
        let tables = &self.tables;
        let may_follow =
            |oid: &u32| tables.waiting.get(oid).is_some_and(|waiting| waiting.until() <= self.passed);
        tables.releasing.iter().copied().find(may_follow)
    }

    /// Whether [`Pipeline::release_some`] has anything to do.
    pub fn is_releasing(&self) -> bool {
        !self.tables.leaving.is_empty() || self.next_to_release().is_some()
    }

    /// A table version came up.
    pub(super) fn met(
        &mut self,
        Met { relation, before, is_guess }: Met,
        now: Instant,
    ) -> Result<(), PipelineError> {
        let oid = relation.oid;
        let target = self.dispatcher.target(&relation);
        let tables = &mut self.tables;
        if tables.unknown_wait && !tables.standings.contains_key(&oid) && !tables.waiting.contains_key(&oid) {
            tables.unknown.insert(oid);
        }
        self.targets.insert(oid, target);
        let open = self.transaction;
        let place = open.map(|open| Turn { transaction: open.meta.id, at: open.position() });
        if is_guess && let Some(turn) = place {
            let known = before.as_ref().unwrap_or(&relation);
            self.guessed(&Arc::clone(known), &relation, turn, now);
        }
        if let Some(before) = before {
            self.altered(before, relation, place, now);
            if let Some(open) = open {
                self.tell_schema(oid, &open.meta, open.ordinal, now)?;
            }
        }
        Ok(())
    }

    /// Which columns the table's changes from here on are of is a guess, so that only a copy makes state right. It waits for
    /// that, and holds the watermark before `turn`: after a crash it is found out again.
    fn guessed(&mut self, before: &Arc<Relation>, after: &Arc<Relation>, turn: Turn, now: Instant) {
        let oid = after.oid;
        let target = self.dispatcher.target(after);
        if !self.dispatcher.is_state_kept_of(&target) {
            return;
        }
        if let Some(waiting) = self.tables.waiting.get_mut(&oid) {
            let is_handed_on = waiting.follows || waiting.is_copied();
            if !is_handed_on {
                // Mostly it comes to be in the copy.
                waiting.guessed(turn.at);
            } else if !waiting.is_there(turn.at) {
                waiting.hold_back(&mut self.accounts, turn.transaction);
                if !std::mem::replace(&mut waiting.is_doubtful, true) {
                    self.notices.push(Notice::Doubtful { oid, doubt: Doubt::Columns });
                }
            }
            return;
        }
        match self.tables.standings.get(&oid) {
            Some(from) if turn.at < *from => {}
            Some(_) if self.tables.unknown_wait => {
                self.notices.push(Notice::Rewritten { after: Arc::clone(after), rewrite: Rewrite::Guess });
                let held = self.held(oid);
                self.hold_behind(oid, before, held, now);
                if let Some(waiting) = self.tables.waiting.get_mut(&oid) {
                    waiting.hold_back(&mut self.accounts, turn.transaction);
                }
            }
            // It is new.
            None if self.tables.unknown_wait => {}
            _ => self.notices.push(Notice::Doubtful { oid, doubt: Doubt::Columns }),
        }
    }

    /// A table has another version, which is about to be told. If its rows may have been computed anew, or sinks have to
    /// follow it, it waits from here on, and holds the watermark before `turn`: after a crash it is found out again.
    fn altered(&mut self, before: Arc<Relation>, after: Arc<Relation>, turn: Option<Turn>, now: Instant) {
        let oid = after.oid;
        // Made before the table was apart: whoever keeps its state knows it, and a later version.
        if let (Some(waiting), Some(turn)) = (self.tables.waiting.get(&oid), turn)
            && turn.at < waiting.from
        {
            return;
        }
        // Partitions are described too where their root is what is published: they have no standing.
        let standing = self.tables.standings.get(&oid).copied();
        let may_be_copied =
            self.tables.unknown_wait && standing.is_some() && self.dispatcher.goes_anywhere(&after);
        let rewrite = rewrite_of(&before, &after).filter(|_| may_be_copied);
        let alters = turn.filter(|turn| standing.is_some_and(|from| from <= turn.at));
        match (rewrite, alters) {
            (Some(rewrite), _) => {
                self.notices.push(Notice::Rewritten { after, rewrite });
                let held = self.held(oid);
                self.hold_behind(oid, &before, held, now);
            }
            (None, Some(turn)) if self.may_wait(&before, &after) => {
                self.notices.push(Notice::Altered { before: Arc::clone(&before), after: Arc::clone(&after) });
                let known = Some(before.since);
                let notice = Notice::ToAlter { after: Arc::clone(&after), at: turn.at, known };
                self.hold_behind(oid, &before, notice, now);
                if let Some(waiting) = self.tables.waiting.get_mut(&oid) {
                    waiting.known = Some(after.since);
                    waiting.told = Some(after);
                }
            }
            (None, _) => {
                self.notices.push(Notice::Altered { before, after });
                return;
            }
        }
        if let Some(turn) = turn
            && let Some(waiting) = self.tables.waiting.get_mut(&oid)
        {
            waiting.hold_back(&mut self.accounts, turn.transaction);
        }
    }

    /// Whether a table may wait for its sinks to follow a change of its schema. What is handed on after a crash may have
    /// been handed on before: where that would make rows without a key twice, the table has to be copied again then.
    fn may_wait(&mut self, before: &Relation, after: &Arc<Relation>) -> bool {
        let target = self.dispatcher.target(after);
        let comes_once = after.has_key() && before.has_key() || !self.dispatcher.is_state_kept_of(&target);
        (comes_once || self.tables.unknown_wait) && self.dispatcher.goes_to(&target, To::Waiters)
    }

    /// The first change of a table that is not known comes: the table waits for its copy. Its description alone means
    /// nothing, since the source also describes partitions whose changes it sends as their root's.
    pub(super) fn met_unknown(&mut self, oid: u32) {
        // What comes while it leaves still is in the copy that it gets then.
        if self.tables.is_leaving(oid) {
            return;
        }
        if self.tables.unknown.remove(&oid)
            && let Some(target) = self.targets.get(&oid)
        {
            self.tables.waiting.insert(oid, self.tables.new_waiting(None));
            self.notices.push(Notice::New(Arc::clone(&target.relation)));
        }
    }

    /// A change of the table comes: what was announced of it holds from here on.
    pub(super) fn met_announced(&mut self, oid: u32, now: Instant) -> Result<(), PipelineError> {
        let Some(open) = self.transaction else { return Ok(()) };
        match self.relations.apply_announced(oid, open.place()) {
            Some(met) => self.met(met, now),
            None => Ok(()),
        }
    }

    pub(super) fn tell_schema(
        &mut self,
        oid: u32,
        meta: &TransactionMeta,
        ordinal: u64,
        now: Instant,
    ) -> Result<(), PipelineError> {
        let Some(target) = self.targets.get(&oid) else { return Ok(()) };
        let mut to = To::All;
        if let Some(waiting) = self.tables.waiting_mut(oid) {
            // What is told between transactions a copy brings, if there is to be one.
            let is_brought = !waiting.follows && !waiting.leaves && !waiting.is_copied();
            let is_due = self.transaction.is_some() || !is_brought;
            let position = Position { commit_lsn: meta.commit_lsn, ordinal };
            (to, _) = waiting.takes(position, false);
            if is_due && position >= waiting.from {
                waiting.push_schema(meta, target, ordinal)?;
                waiting.hold_back(&mut self.accounts, meta.id);
            }
        }
        self.dispatcher.schema(&mut self.accounts, meta, target, to, ordinal, now);
        Ok(())
    }

    /// Tables as the catalog has them: told to the sinks once the stream has passed the moment at which they were
    /// read, if no change has told of it by then.
    pub fn catalog(&mut self, tables: Vec<TableCatalog>) {
        // What the stream has not reached yet is not put off by a later poll; that comes again.
        if self.tables.catalogs.is_empty() {
            self.tables.catalogs = tables;
        }
    }

    pub(super) fn tell_catalogs(&mut self, now: Instant) -> Result<(), PipelineError> {
        let passed = self.passed;
        let (due, later): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.tables.catalogs).into_iter().partition(|table| table.read_at <= passed);
        self.tables.catalogs = later;
        for table in due {
            if self.brings_its_version(table.oid) {
                continue;
            }
            // Not before what may be acknowledged before it is told: a run that begins there has to be told again.
            let altered = self.relations.apply_catalog(&table, passed);
            self.relations.learn(table);
            if let Some((relation, before)) = altered {
                self.tell_between(relation, before, now)?;
            }
        }
        Ok(())
    }

    /// Versions that an earlier run was told of by the catalog, and that the stream has passed again: not all sinks may have
    /// followed by then.
    pub(super) fn tell_kept(&mut self, passed: Lsn, now: Instant) -> Result<(), PipelineError> {
        while let Some(version) = self.relations.next_kept(passed) {
            let oid = version.oid;
            let at = Position { commit_lsn: Lsn(self.passed.0.saturating_sub(1)), ordinal: 0 };
            let waits_from = self.tables.waiting.get(&oid).map(|waiting| waiting.from);
            let from = self.tables.standings.get(&oid).copied().or(waits_from);
            let is_known = from.map_or(!self.tables.unknown_wait, |from| from <= at);
            if !is_known || self.brings_its_version(oid) {
                continue;
            }
            if let Some((relation, before)) = self.relations.meet_kept(&version) {
                self.tell_between(relation, before, now)?;
            }
        }
        Ok(())
    }

    /// Whether the table waits for a copy, which has it as it is then.
    fn brings_its_version(&self, oid: u32) -> bool {
        self.tables.waiting.get(&oid).is_some_and(|waiting| !waiting.follows && !waiting.is_copied())
    }

    /// Tells of a version between transactions: behind everything that was handed out, before everything that comes.
    fn tell_between(
        &mut self,
        relation: Arc<Relation>,
        before: Arc<Relation>,
        now: Instant,
    ) -> Result<(), PipelineError> {
        let (oid, passed) = (relation.oid, self.passed);
        self.targets.insert(oid, self.dispatcher.target(&relation));
        let id = self.accounts.begin(self.last_commit_time_us);
        let meta = TransactionMeta {
            id,
            commit_lsn: Lsn(passed.0.saturating_sub(1)),
            commit_time_us: self.last_commit_time_us,
            xid: 0,
        };
        let at = Position { commit_lsn: meta.commit_lsn, ordinal: 0 };
        self.altered(before, relation, Some(Turn { transaction: id, at }), now);
        self.tell_schema(oid, &meta, 0, now)?;
        self.accounts.seal(id, passed);
        Ok(())
    }

    /// Makes a table wait: it is to be copied anew. [`Notice::Held`] tells when what came before is durable.
    pub fn hold(&mut self, oid: u32, now: Instant) {
        self.tables.unknown.remove(&oid);
        if self.tables.is_leaving(oid) {
            self.tables.to_hold.push((oid, self.passed));
            return;
        }
        match self.relations.told(oid).cloned() {
            Some(told) => self.hold_behind(oid, &told, self.held(oid), now),
            None => self.hold_table(oid, None, self.held(oid), now),
        }
    }

    /// As [`Pipeline::hold`], when the stream has passed that LSN: what changed before it goes to the sinks first.
    pub fn hold_at(&mut self, oid: u32, at: Lsn) {
        // One that waits goes on as it is; mostly something is about to be told of it.
        if !self.tables.waiting.contains_key(&oid) {
            self.tables.to_hold.push((oid, at));
        } else if !self.tables.groups.values().any(|pending| pending.is_about_what_waits_of(oid)) {
            self.notices.push(self.held(oid));
        }
    }

    pub(super) fn hold_passed(&mut self, now: Instant) {
        let passed = self.passed;
        let leaving: Vec<u32> = self.tables.leaving.iter().map(|(oid, _)| *oid).collect();
        let due = |(oid, at): &(u32, Lsn)| *at <= passed && !leaving.contains(oid);
        let due: Vec<_> = self.tables.to_hold.extract_if(.., |of| due(of)).collect();
        due.into_iter().for_each(|(oid, _)| self.hold(oid, now));
    }

    /// Of the next change that is handed out, at the earliest.
    fn next_position(&self) -> Position {
        match (&self.transaction, &self.cut_off) {
            (Some(open), _) if !open.skip => {
                open.position().max(Position { commit_lsn: open.meta.commit_lsn, ordinal: open.dispatched })
            }
            (_, Some(open)) => Position { commit_lsn: open.meta.commit_lsn, ordinal: open.dispatched },
            _ => Position { commit_lsn: Lsn(self.sealed.0 + 1), ordinal: 0 },
        }
    }

    /// Of a table that waits already, some of what came before is kept.
    fn held(&self, oid: u32) -> Notice {
        let waits = self.tables.waiting.contains_key(&oid);
        let covers = if waits { Lsn::ZERO } else { self.next_position().commit_lsn };
        Notice::Held { oid, covers }
    }

    /// Behind the table's version `told`, which state sinks know.
    fn hold_behind(&mut self, oid: u32, told: &Arc<Relation>, notice: Notice, now: Instant) {
        let target = self.dispatcher.target(told);
        self.hold_table(oid, Some(&target), notice, now);
    }

    /// `notice` is told when what came before is durable.
    fn hold_table(&mut self, oid: u32, told: Option<&Target>, notice: Notice, now: Instant) {
        let tables = &mut self.tables;
        if let Some(waiting) = tables.waiting.get_mut(&oid) {
            tables.releasing.retain(|releasing| *releasing != oid);
            // A copy brings what sinks were to be altered to.
            waiting.told = None;
            waiting.known = None;
            waiting.follows = false;
            waiting.is_doubtful = false;
            let pending = tables.groups.values_mut().find(|pending| pending.is_about_what_waits_of(oid));
            match (waiting.group.take(), pending) {
                // Some of what waited was handed on already; the rest goes on waiting.
                (Some(group), _) => {
                    self.dispatcher.cut_catch_up();
                    tables.groups.insert(group, notice);
                    self.accounts.seal_group(group);
                }
                // Or something is about to be told anyway.
                (None, Some(pending)) => *pending = notice,
                (None, None) => self.notices.push(notice),
            }
            self.take_back_waiting(oid);
            return;
        }
        tables.standings.remove(&oid);
        // That it had caught up is not written down: what held the watermark for that goes on doing so.
        let hold = tables.holds.remove(&oid).flatten();
        let group = self.accounts.open_group();
        let mut waiting = tables.new_waiting(None);
        waiting.hold = hold;
        waiting.held = Some(group);
        waiting.follows = matches!(notice, Notice::ToAlter { .. });
        // A copy brings what may come again of rows without a key.
        let is_noted = told.is_some_and(|told| waiting.follows || told.relation.has_key());
        tables.waiting.insert(oid, waiting);
        tables.to_hold.retain(|(of, _)| *of != oid);
        tables.groups.insert(group, notice);
        if let Some(target) = told {
            let Position { commit_lsn, ordinal } = self.next_position();
            let meta = TransactionMeta { commit_lsn, ..self.meta_of_group(group) };
            self.dispatcher.apart(&mut self.accounts, &meta, target, is_noted, ordinal, now);
        }
        self.accounts.seal_group(group);
        self.take_back_waiting(oid);
    }

    pub(super) fn meta_of_group(&self, group: TxnId) -> TransactionMeta {
        TransactionMeta {
            id: group,
            commit_lsn: self.sealed,
            commit_time_us: self.last_commit_time_us,
            xid: 0,
        }
    }

    /// The copy of a table that waits stands at this snapshot: what commits before it is in it.
    pub fn copied_at(&mut self, oid: u32, snapshot: Lsn) {
        if let Some(waiting) = self.tables.waiting.get_mut(&oid)
            && waiting.copied_at(snapshot)
        {
            self.notices.push(Notice::Doubtful { oid, doubt: Doubt::Columns });
        }
    }

    /// A table is being copied that looks so in the copy's snapshot.
    pub fn copied_as(&mut self, version: &Arc<Relation>) {
        self.relations.copied(version);
        let target = self.dispatcher.target(version);
        if let Some(waiting) = self.tables.waiting.get_mut(&version.oid) {
            waiting.correct(&target);
        }
    }

    /// Rows of the copy of a table that waits are as new as this snapshot, if not newer. The table stays apart until the
    /// stream has passed it: changes that are older than copied rows, or that a sink's lanes have got past in an earlier
    /// run, come in [`Phase::CatchUp`](replicator_types::Phase::CatchUp) only.
    pub fn copied_until(&mut self, oid: u32, snapshot: Lsn) {
        if let Some(waiting) = self.tables.waiting.get_mut(&oid) {
            waiting.copied_until(snapshot);
        }
    }

    /// The copy of a table that waits is durable in every sink: its changes may follow.
    pub fn release(&mut self, oid: u32) {
        if self.tables.waiting.contains_key(&oid) && !self.tables.releasing.contains(&oid) {
            self.tables.releasing.push_back(oid);
        }
    }

    /// It is written down that the table has caught up ([`Notice::CaughtUp`]).
    pub fn settled(&mut self, oid: u32) {
        if let Some(Some(hold)) = self.tables.holds.remove(&oid) {
            self.accounts.let_go(hold);
        }
    }

    /// The request ([`Notice::Request`]) is written down, or done.
    pub fn answered(&mut self, id: TxnId) {
        self.tables.requests = self.tables.requests.saturating_sub(1);
        self.accounts.let_go(id);
    }

    /// Hands on some of what the next copied table has to catch up with.
    pub fn release_some(&mut self, now: Instant) -> Result<(), PipelineError> {
        if let Some((oid, waiting)) = self.tables.leaving.pop_front() {
            return self.leave_some(oid, waiting, now);
        }
        let Some(oid) = self.next_to_release() else { return Ok(()) };
        self.hands_on(oid);
        self.rejoin(oid, now);
        let Some(waiting) = self.tables.waiting.get_mut(&oid) else { return Ok(()) };
        let group = *waiting.group.get_or_insert_with(|| self.accounts.open_group());
        let (until, mut is_doubtful) = (waiting.until(), waiting.is_doubtful);
        let mut told = waiting.told.take();
        let mut next_version = None;
        let (dispatcher, accounts) = (&mut self.dispatcher, &mut self.accounts);
        let more = waiting.hand_out(group, STEP_BYTES, |waited: Waited<'_>| {
            let Waited { transaction, target, ordinal, to, is_first_behind_copy, what } = &waited;
            if *is_first_behind_copy {
                // A log looks for what was not sent before a batch's first change: not in the copy's rows for what is older.
                dispatcher.cut_catch_up();
            }
            match what {
                What::Schema if *to == To::Waiters && is_told(told.as_ref(), target) => {}
                What::Schema if *to == To::Waiters => {
                    let at = Position { commit_lsn: transaction.commit_lsn, ordinal: *ordinal };
                    next_version = Some((Arc::clone(&target.relation), at));
                    return Ok(ControlFlow::Break(()));
                }
                What::Row(change) => {
                    is_doubtful |= *to == To::Waiters
                        && transaction.commit_lsn < until
                        && moves_unsent_values(change)
                        && dispatcher.is_state_kept_of(target);
                    hand_on(dispatcher, accounts, &waited, now)?;
                }
                _ => hand_on(dispatcher, accounts, &waited, now)?,
            }
            Ok::<_, PipelineError>(ControlFlow::Continue(()))
        })?;
        if is_doubtful && !std::mem::replace(&mut waiting.is_doubtful, true) {
            self.notices.push(Notice::Doubtful { oid, doubt: Doubt::UnsentValues });
        }
        if let Some((after, at)) = next_version {
            let known = waiting.known.replace(after.since);
            told = Some(Arc::clone(&after));
            waiting.group = None;
            self.tables.releasing.retain(|releasing| *releasing != oid);
            self.dispatcher.cut_catch_up();
            self.tables.groups.insert(group, Notice::ToAlter { after, at, known });
            self.accounts.seal_group(group);
        } else if !more {
            self.caught_up(oid, group);
        }
        if let Some(waiting) = self.tables.waiting.get_mut(&oid) {
            waiting.told = told;
        }
        self.dispatcher.settle_charges();
        Ok(())
    }

    /// A batch of what waited is of one table, so that positions only grow in it.
    pub(super) fn hands_on(&mut self, oid: u32) {
        if self.tables.handed_on.replace(oid) != Some(oid) {
            self.dispatcher.cut_catch_up();
        }
    }

    /// Of a table that was apart when the run began, logs get what came before that with the stream: they have it before what
    /// waits is handed on, and before they follow a change of schema.
    fn rejoin(&mut self, oid: u32, now: Instant) {
        let Some(waiting) = self.tables.waiting.get_mut(&oid) else { return };
        if waiting.group.is_some() || waiting.held.is_some() || waiting.from == Position::ZERO {
            return;
        }
        let group = self.accounts.open_group();
        waiting.group = Some(group);
        waiting.held = Some(group);
        let Some(target) = self.targets.get(&oid).cloned() else { return };
        let Position { commit_lsn, ordinal } = self.next_position();
        let meta = TransactionMeta { commit_lsn, ..self.meta_of_group(group) };
        self.dispatcher.drain_waiting_logs(&mut self.accounts, &meta, &target, ordinal, now);
    }

    /// Nothing waits any more: from the next change on the table is like any other.
    pub(super) fn caught_up(&mut self, oid: u32, group: TxnId) {
        self.tables.releasing.retain(|releasing| *releasing != oid);
        self.dispatcher.cut_catch_up();
        let waiting = self.tables.waiting.remove(&oid);
        let held = waiting.as_ref().and_then(|waiting| waiting.held);
        let copied_until = waiting.as_ref().map(Waiting::until).unwrap_or_default();
        self.tables.holds.insert(oid, waiting.and_then(|waiting| waiting.hold));
        let from = self.next_position();
        // What the copy has was perhaps passed in an earlier run. When the source loses what it knew of the slot, it comes
        // again, and is older than the rows.
        let from = from.max(Position { commit_lsn: copied_until, ordinal: 0 });
        self.tables.standings.insert(oid, from);
        self.tables.groups.insert(group, Notice::CaughtUp { oid, from, held });
        self.accounts.seal_group(group);
    }

    /// What there is to tell of tables since the last call.
    pub fn take_notices(&mut self) -> Vec<Notice> {
        for group in self.accounts.take_finished() {
            self.notices.extend(self.tables.groups.remove(&group));
            if let Some((_, Some(hold))) = self.tables.left.remove(&group) {
                self.accounts.let_go(hold);
            }
        }
        std::mem::take(&mut self.notices)
    }

    /// Tables whose changes wait, or that have caught up and are not settled; and requests that are not answered, since
    /// they may make tables wait.
    pub fn waiting(&self) -> usize {
        let tables = &self.tables;
        let to_be_held = tables.to_hold.iter().filter(|(_, at)| *at <= self.passed).count();
        let left = tables.leaving.len() + tables.left.len() + to_be_held;
        tables.waiting.len() + tables.holds.len() + tables.requests + left
    }

    /// Whether a run could go on without a sink that refuses a change of that table.
    pub(crate) fn may_set_aside(&self, oid: u32) -> bool {
        let tables = &self.tables;
        let has_left = || tables.is_leaving(oid) || tables.left.values().any(|(of, _)| *of == oid);
        tables.standings.contains_key(&oid) || tables.waiting.contains_key(&oid) || has_left()
    }

    /// Bytes of changes that wait, of tables and of transactions in progress: in memory, in files.
    pub fn waiting_bytes(&self) -> (usize, usize) {
        (self.tables.shelf.memory_bytes(), self.tables.shelf.file_bytes())
    }

    /// Bytes that wait for the copy of one table.
    pub fn waiting_bytes_of(&self, oid: u32) -> u64 {
        self.tables.waiting.get(&oid).map_or(0, Waiting::bytes)
    }
}

/// Hands what waited to those who get it, as it is.
pub(super) fn hand_on(
    dispatcher: &mut Dispatcher,
    accounts: &mut Accounts,
    waited: &Waited<'_>,
    now: Instant,
) -> Result<(), DispatchError> {
    let Waited { transaction, target, ordinal, to, what, .. } = waited;
    match what {
        What::Row(change) => {
            dispatcher.row(accounts, transaction, target, *to, *change, *ordinal, now)?;
        }
        What::Truncate { cascade, restart_identity } => {
            let flags = (*cascade, *restart_identity);
            let targets = [((*target).clone(), *to)];
            dispatcher.truncate(accounts, transaction, &targets, flags, *ordinal, now);
        }
        What::Schema => dispatcher.schema(accounts, transaction, target, *to, *ordinal, now),
    }
    Ok(())
}

/// Whether that version is the one that the sinks were told last.
fn is_told(told: Option<&Arc<Relation>>, target: &Target) -> bool {
    told.is_some_and(|told| Arc::ptr_eq(told, &target.relation))
}

/// Whether a row gets another key, and keeps values that were not sent.
fn moves_unsent_values(change: &RowChange<'_>) -> bool {
    change.op == Op::Update
        && change.old.is_some()
        && !change.old_is_full
        && change.new.is_some_and(Tuple::has_unchanged)
}
