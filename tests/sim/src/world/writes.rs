//! A batch's way into a sink: prepared, sent, applied, flushed, answered; and what can go wrong on it.

use super::{End, Event, World};
use crate::copies::Copy;
use crate::plan::{Kind, Sabotage};
use crate::reached;
use replicator_pipeline::Backoff;
use replicator_types::{Phase, Position};
use std::time::Duration;

impl World {
    /// Lanes take what is theirs.
    pub(super) fn take_turns(&mut self) {
        let Some(process) = &mut self.process else { return };
        let mut taken = Vec::new();
        for (sink, plan) in self.plan.sinks.iter().enumerate() {
            for shard in 0..plan.shards as usize {
                taken.extend(process.take(sink, shard));
            }
        }
        for write in taken {
            if self.sabotages(Sabotage::DropFragment) && self.chance.percent(10) {
                if let Some(process) = &mut self.process {
                    process.prepared(write, Vec::new());
                }
                self.durable(write);
                continue;
            }
            let begin = self.chance.between(1, 200);
            self.after(begin, Event::Prepare { run: self.run, write });
        }
    }

    fn durable(&mut self, write: u32) {
        if let Some(process) = &mut self.process {
            process.durable(write, &mut self.reached);
        }
        self.wake(5);
    }

    fn fails(&mut self, share: u64) -> bool {
        !self.is_calm() && self.chance.below(100 * share) < self.plan.fail_percent
    }

    /// The pause before a write's next attempt.
    fn pause_us(&mut self, write: u32) -> u64 {
        let share = self.chance.share();
        let write = self.process.as_mut().and_then(|process| process.writes.get_mut(&write));
        write.map_or(0, |write| write.backoff.pause_of(share).as_micros() as u64)
    }

    pub(super) fn prepare(&mut self, number: u32) {
        let fails = self.fails(2);
        let Some(process) = &mut self.process else { return };
        let Some(write) = process.writes.get_mut(&number) else { return };
        let store = &self.stores[write.sink];
        let (sink, is_up) = (write.sink, store.is_up);
        if fails || !is_up || !process.keeps_versions(number) {
            self.reached.insert(reached::PREPARE_FAILED);
            let pause_us = self.pause_us(number);
            return self.after(pause_us, Event::Prepare { run: self.run, write: number });
        }
        let Some(write) = process.writes.get_mut(&number) else { return };
        let store = &self.stores[sink];
        let steps = write.batch.as_ref().map(|batch| store.prepare(batch)).unwrap_or_default();
        write.backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(2));
        process.prepared(number, steps);
        self.after(1, Event::Send { run: self.run, write: number });
    }

    pub(super) fn send(&mut self, number: u32) {
        let end = if self.fails(1) {
            self.chance.pick(&[End::Before, End::Part, End::After, End::Hang])
        } else {
            End::Good
        };
        let mut latency_us = self.chance.between(1, 2 * self.plan.write_us);
        if self.chance.percent(5) {
            latency_us *= 10;
        }
        if let Some(write) = self.process.as_mut().and_then(|process| process.writes.get_mut(&number)) {
            write.is_sent = true;
            self.after(latency_us, Event::Arrive { run: self.run, write: number, end });
        }
    }

    /// Whether a table waits since before that position for its sinks to alter it.
    fn is_altering_before(&self, position: Option<Position>) -> bool {
        let copies = self.process.iter().flat_map(|process| process.copies.values());
        copies.into_iter().any(|copy| matches!(copy, Copy::Altering(of) if Some(of.at) < position))
    }

    /// The request comes to the sink's server.
    pub(super) fn arrive(&mut self, number: u32, end: End) -> Result<(), String> {
        let run = self.run;
        if let Some(write) = self.process.as_ref().and_then(|process| process.writes.get(&number)) {
            let (sink, shard, phase) = (write.sink, write.shard, write.phase);
            self.trace(|| format!("sink {sink}, shard {shard}, {phase:?}: {:?}", write.steps));
        }
        let Some(write) = self.process.as_mut().and_then(|process| process.writes.get_mut(&number)) else {
            return Ok(());
        };
        write.is_sent = false;
        let (sink, phase, all) = (write.sink, write.phase, write.steps.len());
        let lane = (write.shard, phase);
        let last = write.steps.last().map(|step| step.position);
        if phase == Phase::Stream && !self.stores[sink].kind.is_log() && self.is_altering_before(last) {
            self.reached.insert(reached::ALTERED_OVERTAKEN);
        }
        let Some(write) = self.process.as_ref().and_then(|process| process.writes.get(&number)) else {
            return Ok(());
        };
        let store = &mut self.stores[sink];
        let answer = |good| Event::Answer { run, write: number, good };
        if !store.is_up {
            self.after(100, answer(false));
            return Ok(());
        }
        let is_whole = store.kind == Kind::Transactions;
        let applied = match end {
            End::Good | End::After => all,
            End::Part if !is_whole => self.chance.below(all as u64 + 1) as usize,
            End::Hang if self.chance.percent(50) => all,
            _ => 0,
        };
        if store.apply(lane, &write.steps, applied)? > 0 && self.kills > 0 {
            self.reached.insert(reached::REPLAY);
        }
        let life = store.life;
        match end {
            End::Good => {
                let early = self.sabotages(Sabotage::DurableTooEarly);
                let flush_us = self.chance.between(1, self.plan.write_us) * if early { 20 } else { 1 };
                self.after(flush_us, Event::Flush { sink, life, run, write: number });
                if early {
                    self.after(10, answer(true));
                }
            }
            End::Hang => {
                self.reached.insert(reached::HUNG);
                let until_us = self.chance.between(1_000_000, 20_000_000);
                self.after(until_us, answer(false));
            }
            End::Before | End::Part | End::After => {
                let path = match end {
                    End::After => reached::FAILED_AFTER,
                    End::Part if applied > 0 => reached::FAILED_PART,
                    _ => reached::FAILED_BEFORE,
                };
                self.reached.insert(path);
                if end == End::After && self.chance.percent(50) {
                    self.stores[sink].flush();
                }
                self.after(200, answer(false));
            }
        }
        Ok(())
    }

    /// What was applied is on the disk, if the server still lives.
    pub(super) fn flush(&mut self, sink: usize, life: u32, run: u32, write: u32) {
        let store = &mut self.stores[sink];
        let good = store.life == life;
        if good {
            store.flush();
        }
        self.after(50, Event::Answer { run, write, good });
    }

    pub(super) fn answer(&mut self, write: u32, good: bool) {
        self.trace(|| format!("write {write} {}", if good { "is durable" } else { "failed" }));
        if good || self.sabotages(Sabotage::ForgetRetry) {
            self.durable(write);
        } else {
            let pause_us = self.pause_us(write);
            self.after(pause_us, Event::Send { run: self.run, write });
        }
    }
}
