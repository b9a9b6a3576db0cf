//! The copies of tables, a step at a time.

use super::{Event, World};
use crate::copies::{Copy, Note};
use crate::plan::Sabotage;
use crate::reached;
use replicator_model::source::TABLES;
use replicator_pipeline::Input;
use replicator_types::Lsn;

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
            Copy::Live if self.plan.copies && !self.is_calm() && self.chance.percent(3) => {
                self.reached.insert(reached::HELD);
                self.notes.0.insert(table, Note::Nothing);
                self.input(Input::Hold(table));
                Copy::ToBeHeld
            }
            Copy::Resumes if self.plan.resumes && self.server.is_up => {
                self.reached.insert(reached::COPY_RESUMED);
                let now = self.server.source.end();
                self.input(Input::CopiedUntil(table, Lsn(now)));
                Copy::Copied
            }
            Copy::Waits | Copy::Resumes if self.server.is_up => {
                let snapshot = self.server.source.end();
                let committed = self.server.source.committed.iter().filter(|(at, _)| at.0 == table);
                let rows = committed.map(|(at, row)| (*at, row.clone())).collect();
                self.notes.0.insert(table, Note::Nothing);
                self.input(Input::CopiedAt(table, Lsn(snapshot)));
                if self.sabotages(Sabotage::ReleaseTooEarly) {
                    self.input(Input::Release(table));
                }
                if self.sabotages(Sabotage::NoteTooEarly) {
                    self.notes.0.insert(table, Note::Copied(snapshot));
                }
                Copy::Read { snapshot, rows, sink: 0 }
            }
            Copy::Read { snapshot, rows, sink } => match self.stores.get_mut(sink) {
                Some(store) if store.is_up => {
                    store.copy(table, snapshot, &rows);
                    Copy::Read { snapshot, rows, sink: sink + 1 }
                }
                Some(_) => Copy::Read { snapshot, rows, sink },
                None => {
                    self.notes.0.insert(table, Note::Copied(snapshot));
                    Copy::Copied
                }
            },
            Copy::Copied => {
                self.input(Input::Release(table));
                Copy::Released
            }
            Copy::CaughtUp(from) => {
                self.notes.caught_up(table, from, &mut self.reached);
                self.input(Input::Settled(table));
                Copy::Live
            }
            other => other,
        }
    }
}
