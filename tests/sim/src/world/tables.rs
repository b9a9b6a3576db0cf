//! The copies of tables, a step at a time.

use super::{Event, World};
use crate::copies::{Altering, Copy, Note};
use crate::plan::{Kind, Sabotage};
use crate::process::Process;
use crate::reached;
use futures_util::FutureExt;
use replicator_model::source::TABLES;
use replicator_pipeline::{Doubt, Input, Notice, Rewrite};
use replicator_types::{Lsn, Position, Relation, TxnId};
use std::sync::Arc;

impl World {
    /// Takes one table one step further.
    pub(super) fn table(&mut self) {
        let next = self.chance.between(500, 50_000);
        self.after(next, Event::Table { run: self.run });
        let table = TABLES[self.chance.below(TABLES.len() as u64) as usize].0;
        let Some(copy) = self.process.as_mut().and_then(|process| process.copies.remove(&table)) else {
            return;
        };
        let copy = self.step_of(table, copy);
        self.trace(|| format!("table {table}: {copy:?}, {:?}", self.notes.of(table)));
        if let Some(process) = &mut self.process {
            process.copies.insert(table, copy);
        }
    }

    fn step_of(&mut self, table: u32, copy: Copy) -> Copy {
        match copy {
            Copy::Live if self.wants_copy(3) => {
                self.reached.insert(reached::HELD);
                self.hold(table)
            }
            // The sinks need not go on with it; some have.
            Copy::Altering(_) if self.wants_copy(4) => {
                self.reached.insert(reached::COPY_INSTEAD);
                self.hold(table)
            }
            Copy::Altering(altering) => self.alter(table, altering),
            Copy::Released if self.wants_copy(10) => Copy::Deferred,
            Copy::Resumes if self.plan.resumes && self.server.is_up => {
                self.reached.insert(reached::COPY_RESUMED);
                let now = self.server.source.end();
                self.input(Input::CopiedUntil(table, Lsn(now)));
                Copy::Copied
            }
            Copy::Joins if self.server.is_up => {
                self.reached.insert(reached::JOINED);
                Copy::Copied
            }
            Copy::Waits | Copy::Resumes if self.server.is_up => {
                let Some(mut catalog) = self.server.source.catalog(table) else { return copy };
                let snapshot = self.server.source.end();
                catalog.read_at = Lsn(snapshot);
                let rows = self.server.source.full_rows(Some(table));
                self.notes.0.insert(table, Note::Nothing);
                let relation = Arc::new(catalog.relation());
                // The pipeline is told when the table's turn comes, under the snapshot of all.
                Copy::Taken { snapshot, rows, relation }
            }
            Copy::Taken { snapshot, rows, relation } => {
                self.input(Input::CopiedAt(table, Lsn(snapshot)));
                self.input(Input::CopiedAs(Arc::clone(&relation)));
                if self.sabotages(Sabotage::ReleaseTooEarly) {
                    self.input(Input::Release(table));
                }
                if self.sabotages(Sabotage::NoteTooEarly) {
                    self.notes.0.insert(table, Note::Copied(snapshot));
                }
                Copy::Read { snapshot, rows, relation, sink: 0 }
            }
            Copy::Read { snapshot, sink, .. } if sink == self.stores.len() => {
                self.notes.0.insert(table, Note::Copied(snapshot));
                Copy::Copied
            }
            Copy::Read { snapshot, rows, relation, sink } => {
                let may_go_on = self.stores[sink].is_up && self.keep(sink, &relation);
                if may_go_on {
                    self.check_drained(sink, table, "copied");
                    let copied = self.stores[sink].copy(table, snapshot, &rows, &relation);
                    self.broken = copied.err().or(self.broken.take());
                }
                Copy::Read { snapshot, rows, relation, sink: sink + usize::from(may_go_on) }
            }
            Copy::Copied => {
                self.input(Input::Release(table));
                Copy::Released
            }
            Copy::CaughtUp { from, held, again: true } if self.joins(table, from, held) => {
                // First it goes on waiting, and holds the watermark; then that is let go.
                let copy = self.hold(table);
                self.input(Input::Settled(table));
                copy
            }
            Copy::CaughtUp { from, held, .. } if self.joins(table, from, held) => {
                self.notes.caught_up(table, from, &mut self.reached);
                self.input(Input::Settled(table));
                Copy::Live
            }
            other => other,
        }
    }

    fn wants_copy(&mut self, percent: u64) -> bool {
        self.plan.copies && !self.is_calm() && self.chance.percent(percent)
    }

    fn hold(&mut self, table: u32) -> Copy {
        self.notes.0.insert(table, Note::Nothing);
        self.input(Input::Hold(table));
        Copy::ToBeHeld
    }

    /// Takes back, in the notes of sinks that answer, that a table is apart; whether all of them have it.
    fn joins(&mut self, table: u32, from: Position, held: Option<TxnId>) -> bool {
        let Some(process) = &self.process else { return false };
        let aparts = &process.aparts;
        let join = |sink| aparts.join((sink, table), "", from, held).now_or_never();
        aparts.sinks_apart(table).into_iter().all(|sink| matches!(join(sink), Some(Ok(()))))
    }

    /// Notes in a sink, if that answers, that a table that is apart is so from a later change on.
    fn parts(&self, sink: usize, altering: &Altering) -> bool {
        let Some(process) = &self.process else { return false };
        let (oid, aparts) = (altering.after.oid, &process.aparts);
        match altering.known.filter(|_| aparts.sinks_apart(oid).contains(&sink)) {
            Some(told) => {
                matches!(aparts.part(sink, oid, "", told, altering.at).now_or_never(), Some(Ok(())))
            }
            None => true,
        }
    }

    /// Keeps a table's version in a sink's notes, if that answers.
    fn keep(&mut self, sink: usize, version: &Arc<Relation>) -> bool {
        let kept = self.process.as_ref().map(|process| process.versions.keep(sink, version).now_or_never());
        matches!(kept, Some(Some(Ok(()))))
    }

    /// Has one of the sinks go one step further in following a change of a table's schema.
    fn alter(&mut self, table: u32, mut altering: Altering) -> Copy {
        let left: Vec<usize> = (0..altering.done.len()).filter(|sink| altering.done[*sink] < 2).collect();
        if left.is_empty() || self.sabotages(Sabotage::ReleaseUnaltered) {
            self.input(Input::Release(table));
            return Copy::Released;
        }
        let sink = self.chance.pick(&left);
        if altering.done[sink] == 0 && self.parts(sink, &altering) && self.keep(sink, &altering.after) {
            altering.done[sink] = 1;
        } else if altering.done[sink] == 1 && self.stores[sink].is_up {
            if self.now_us < altering.refused_until_us {
                self.reached.insert(reached::ALTER_REFUSED);
            } else {
                self.check_drained(sink, table, "altered");
                self.stores[sink].alter(&altering.after, altering.at);
                altering.done[sink] = 2;
            }
        }
        Copy::Altering(altering)
    }

    /// A sink makes its table anew, perhaps: what comes meanwhile could be lost.
    fn check_drained(&mut self, sink: usize, table: u32, what: &str) {
        let is_under_way = self.process.as_ref().is_some_and(|process| process.is_under_way(sink, table));
        if is_under_way && self.stores[sink].kind != Kind::Log {
            self.broken =
                Some(format!("table {table} is {what} in sink {sink} while rows of it are on their way"));
        }
    }

    /// What the pipeline has to tell of tables: as the manager takes it.
    pub(super) fn told(&mut self) {
        let notices = self.process.as_mut().map(Process::notices).unwrap_or_default();
        for notice in notices {
            self.trace(|| told(&notice));
            match notice {
                // Or a change of schema has told the same before.
                Notice::Held { oid, .. } if matches!(self.copy_of(oid), Some(Copy::ToBeHeld)) => {
                    self.set(oid, Copy::Waits);
                }
                Notice::Held { .. } => {}
                Notice::New(relation) => {
                    self.reached.insert(reached::NEW_TABLE);
                    self.set(relation.oid, Copy::Waits);
                }
                Notice::CaughtUp { oid, from, held } => {
                    let again = matches!(self.copy_of(oid), Some(Copy::Deferred));
                    self.set(oid, Copy::CaughtUp { from, held, again });
                }
                Notice::ToAlter { after, at, known } => self.follow_schema(after, at, known),
                // Rows may be where they do not belong: only another copy makes that right.
                Notice::Doubtful { oid, doubt } => {
                    if doubt == Doubt::Columns {
                        self.reached.insert(reached::GUESSED_WAITING);
                    }
                    self.copy_again(oid);
                }
                // It waits already.
                Notice::Rewritten { after, rewrite } => {
                    if rewrite == Rewrite::Guess {
                        self.reached.insert(reached::GUESSED);
                    }
                    self.rewritten(after.oid);
                }
                Notice::Altered { before, after } => {
                    if looks_like(&before, &after) {
                        self.reached.insert(reached::CATALOG_ONLY);
                    }
                }
                Notice::Request { .. } | Notice::Refused { .. } => {}
            }
        }
    }

    fn follow_schema(&mut self, after: Arc<Relation>, at: Position, known: Option<Lsn>) {
        let oid = after.oid;
        let copy = self.copy_of(oid).cloned();
        match copy {
            // The copy brings the version.
            Some(Copy::Deferred) => {
                self.reached.insert(reached::COPY_BEHIND);
                self.notes.0.insert(oid, Note::Nothing);
                return self.set(oid, Copy::Waits);
            }
            Some(Copy::ToBeHeld) => return self.set(oid, Copy::Waits),
            // It is about to be held for that.
            Some(Copy::CaughtUp { again: true, .. }) => return,
            // That is told first.
            Some(Copy::CaughtUp { from, held, again: false }) if self.joins(oid, from, held) => {
                self.notes.caught_up(oid, from, &mut self.reached);
                self.input(Input::Settled(oid));
                self.reached.insert(reached::ALTERED_TWICE)
            }
            Some(Copy::Released) => self.reached.insert(reached::ALTERED_TWICE),
            _ => self.reached.insert(reached::ALTERED),
        };
        if at.ordinal > 0 {
            self.reached.insert(reached::ALTERED_IN_TRANSACTION);
        }
        if !self.altered.insert((oid, at)) {
            self.reached.insert(reached::ALTERED_AGAIN);
        }
        let pause_us = self.chance.pick(&[0, 0, 0, 100_000, 5_000_000]);
        let refused_until_us = if pause_us > 0 { self.now_us + pause_us } else { 0 };
        let sinks = self.stores.len();
        // Logs that do not wait are told with the stream.
        let done = self.stores.iter().map(|store| if store.kind == Kind::Log { 2 } else { 0 }).collect();
        let mut copy = Copy::Altering(Altering { after, at, known, done, refused_until_us });
        // Mostly it is a matter of milliseconds, and what comes behind it is not read by then.
        let steps = if self.chance.percent(60) { 2 * sinks + 1 } else { 0 };
        for _ in 0..steps {
            copy = match copy {
                Copy::Altering(altering) => self.alter(oid, altering),
                other => other,
            };
        }
        self.set(oid, copy);
    }

    fn rewritten(&mut self, oid: u32) {
        match self.copy_of(oid) {
            Some(Copy::Live) => {
                self.notes.0.insert(oid, Note::Nothing);
                self.set(oid, Copy::ToBeHeld);
            }
            _ => self.copy_again(oid),
        }
    }

    /// A table has to be copied whose changes are handed on, or that is live.
    fn copy_again(&mut self, oid: u32) {
        let copy = match self.copy_of(oid) {
            Some(Copy::Released | Copy::Deferred) => Copy::Deferred,
            Some(Copy::CaughtUp { from, held, .. }) => {
                Copy::CaughtUp { from: *from, held: *held, again: true }
            }
            _ => self.hold(oid),
        };
        self.set(oid, copy);
    }

    fn copy_of(&self, oid: u32) -> Option<&Copy> {
        self.process.as_ref().and_then(|process| process.copies.get(&oid))
    }

    fn set(&mut self, oid: u32, copy: Copy) {
        if let Some(process) = &mut self.process {
            process.copies.insert(oid, copy);
        }
    }
}

/// Whether the stream says the same of both.
fn looks_like(before: &Relation, after: &Relation) -> bool {
    let told = |relation: &Relation| -> Vec<(String, u32)> {
        relation.columns.iter().map(|column| (column.name.clone(), column.type_oid)).collect()
    };
    told(before) == told(after)
}

/// A notice in one line.
fn told(notice: &Notice) -> String {
    let table = |relation: &Relation| {
        let columns = relation.columns.iter();
        let columns: Vec<_> =
            columns.map(|of| format!("{}:{}:{}", of.attnum, of.name, of.type_oid)).collect();
        format!("{} since {} ({})", relation.oid, relation.since.0, columns.join(" "))
    };
    match notice {
        Notice::ToAlter { after, at, .. } => format!("to alter at {at}: {}", table(after)),
        Notice::Altered { before, after } => format!("altered: {} -> {}", table(before), table(after)),
        Notice::Rewritten { after, .. } => format!("rewritten: {}", table(after)),
        Notice::New(relation) => format!("new: {}", table(relation)),
        other => format!("{other:?}"),
    }
}
