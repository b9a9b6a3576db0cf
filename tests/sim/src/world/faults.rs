//! What dies, and what is left of it.

use super::{Event, World};
use crate::copies::Copy;
use crate::plan::Fault;
use crate::reached;

impl World {
    pub(super) fn next_fault(&mut self) -> Result<(), String> {
        let (Some(interval_us), false) = (self.plan.fault_interval_us, self.is_calm()) else {
            return Ok(());
        };
        let next = self.chance.between(1, 2 * interval_us);
        self.after(next, Event::Fault);
        let faults = [Fault::Kill, Fault::Kill, Fault::Cut, Fault::SourceCrash, Fault::SinkCrash];
        let fault = self.chance.pick(&faults);
        self.fault(fault)
    }

    pub(super) fn fault(&mut self, fault: Fault) -> Result<(), String> {
        self.trace(|| format!("{fault:?}"));
        self.faults += 1;
        match fault {
            Fault::Kill => self.kill()?,
            Fault::Cut => self.cut(),
            Fault::SourceCrash => {
                if self.server.is_up {
                    self.cut();
                    if self.server.crash() {
                        self.reached.insert(reached::SLOT_BACK);
                    }
                    let back = self.chance.between(1_000, 500_000);
                    self.after(back, Event::SourceBack);
                }
            }
            Fault::SinkCrash => {
                let sink = self.chance.below(self.stores.len() as u64) as usize;
                if self.stores[sink].is_up {
                    self.keepers[sink].set_up(false);
                    if self.stores[sink].crash() {
                        self.reached.insert(reached::SINK_LOST);
                    }
                    let back = self.chance.between(1_000, 2_000_000);
                    self.after(back, Event::SinkBack(sink));
                }
            }
        }
        Ok(())
    }

    fn kill(&mut self) -> Result<(), String> {
        let Some(process) = self.process.take() else { return Ok(()) };
        self.kills += 1;
        if process.pipeline.unfinished() > 0 {
            self.reached.insert(reached::KILL_UNFINISHED);
        }
        if process.copies.values().any(|copy| matches!(copy, Copy::Released)) {
            self.reached.insert(reached::KILL_CATCHING_UP);
        }
        let any = |of: fn(&Copy) -> bool| process.copies.values().any(of);
        if any(|copy| matches!(copy, Copy::Altering(_))) {
            self.reached.insert(reached::KILL_ALTERING);
        }
        if any(|copy| matches!(copy, Copy::CaughtUp { .. })) {
            self.reached.insert(reached::KILL_CAUGHT_UP);
        }
        // What was sent may land all the same; the next process waits for that, or makes it impossible.
        for write in process.writes.values().filter(|write| write.is_sent) {
            let store = &mut self.stores[write.sink];
            if store.is_up && self.chance.percent(50) {
                self.reached.insert(reached::KILL_IN_FLIGHT);
                store.apply((write.shard, write.phase), &write.steps, write.steps.len())?;
                if self.chance.percent(50) {
                    store.flush();
                }
            }
        }
        self.run += 1;
        self.server.cut();
        let begin = self.chance.between(100, 500_000);
        self.after(begin, Event::Start);
        Ok(())
    }

    /// The connection breaks; the reader makes another one.
    fn cut(&mut self) {
        if !self.server.is_connected() {
            return;
        }
        self.server.cut();
        let Some(process) = &self.process else { return };
        if process.pipeline.unfinished() > 0 {
            self.reached.insert(reached::RECONNECT_UNFINISHED);
        }
        let again = self.chance.between(1_000, 300_000);
        self.after(again, Event::Connect { run: self.run });
    }
}
