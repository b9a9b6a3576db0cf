//! The clients, the walsender, the reader and the feedback.

use super::{Event, World};
use crate::copies::Copy;
use crate::plan::Sabotage;
use crate::process::Process;
use crate::reached;
use futures_util::FutureExt;
use replicator_copy::{Aparts, Versions};
use replicator_model::shape::Alter;
use replicator_model::source::{KEYS, TABLES};
use replicator_pipeline::Input;
use replicator_sink::Sink;
use replicator_types::{Relation, TableCatalog};
use std::sync::Arc;

impl World {
    pub(super) fn client(&mut self) {
        if self.server.is_up && self.operations_left > 0 {
            self.operations_left -= 1;
            self.operate();
        }
        if self.operations_left == 0 && self.server.is_up {
            self.server.source.end_all();
            self.calm_since_us = Some(self.now_us);
            return;
        }
        let next = self.chance.between(1, 2 * self.plan.client_interval_us);
        self.after(next, Event::Client);
    }

    fn operate(&mut self) {
        let chance = &mut self.chance;
        let slot = chance.below(4) as u8;
        let ends = if self.plan.long_transactions { 4 } else { 16 };
        let source = &mut self.server.source;
        match chance.below(61 + ends + self.plan.alters) {
            0..40 => {
                let table = TABLES[chance.below(3) as usize].0;
                let (key, what) = (chance.below(u64::from(KEYS)) as u8, chance.below(256) as u8);
                source.change(slot, (table, key), what, !self.plan.resumes);
            }
            40..44 => source.savepoint(slot),
            44..47 => source.rollback_to_savepoint(slot),
            47..55 => source.stream(slot),
            55..59 => source.prepare(slot),
            59..61 => source.message(),
            operation if operation >= 61 + ends => self.alter_table(slot),
            _ => source.end_transaction(slot, chance.percent(80)),
        }
    }

    /// Changes the schema of a table, among the changes of a transaction or in one of its own, now and then several times.
    fn alter_table(&mut self, slot: u8) {
        let chance = &mut self.chance;
        let table = TABLES[chance.below(3) as usize].0;
        let is_alone = chance.percent(50);
        let mut done = Vec::new();
        let source = &mut self.server.source;
        for _ in 0..chance.pick(&[1, 1, 2, 3]) {
            let alter = chance.pick(&[Alter::Add, Alter::Add, Alter::Rename, Alter::Drop, Alter::NotNull]);
            let is_altered = source.alter(slot, table, alter, chance.below(256) as u8);
            done.extend(is_altered.then_some((alter, source.end())));
            if is_altered && chance.percent(50) {
                let (key, what) = (chance.below(u64::from(KEYS)) as u8, chance.below(180) as u8);
                source.change(slot, (table, key), what, !self.plan.resumes);
            }
        }
        if is_alone {
            source.end_transaction(slot, chance.percent(80));
        }
        self.trace(|| format!("table {table} is altered in {slot}: {done:?}, alone {is_alone}"));
    }

    /// The published tables, as the catalog has them now.
    pub(super) fn catalog(&self) -> Vec<TableCatalog> {
        TABLES.iter().filter_map(|(oid, _)| self.server.source.catalog(*oid)).collect()
    }

    /// The manager looks at the catalog now and then.
    pub(super) fn poll(&mut self) {
        self.last_looks = if self.is_done() { self.last_looks | 1 } else { 0 };
        if self.server.is_up {
            let mut tables = self.catalog();
            // What is new there is met in the stream first.
            let copies = self.process.iter().flat_map(|process| &process.copies);
            let unknown: Vec<u32> =
                copies.filter(|(_, copy)| matches!(copy, Copy::Unknown)).map(|(oid, _)| *oid).collect();
            tables.retain(|table| !unknown.contains(&table.oid));
            self.input(Input::Catalog(tables));
        }
        let next = self.chance.between(1_000, 400_000);
        self.after(next, Event::Poll { run: self.run });
    }

    pub(super) fn start(&mut self) {
        // A sink that does not answer is waited for.
        if !self.server.is_up || self.stores.iter().any(|store| !store.is_up) {
            return self.after(50_000, Event::Start);
        }
        let mut from = self.server.slot.confirmed;
        if self.sabotages(Sabotage::ForgetReplay) {
            from = from.max(self.passed);
        }
        self.run += 1;
        self.is_first_connection = true;
        self.drive_due = None;
        let mut catalog = self.catalog();
        if self.plan.copies && self.kills == 0 {
            catalog.retain(|table| table.oid != TABLES[2].0);
        }
        let tables: Vec<Arc<Relation>> = catalog.iter().map(|table| Arc::new(table.relation())).collect();
        let sinks: Vec<Arc<dyn Sink>> =
            self.keepers.iter().map(|keeper| Arc::clone(keeper) as Arc<dyn Sink>).collect();
        for table in self.catalog() {
            self.stores.iter_mut().for_each(|store| store.make(&table.relation()));
        }
        // Nothing in it waits, and all sinks are up.
        let Some(Ok(versions)) = Versions::load(&sinks).now_or_never() else { return };
        let Some(Ok(aparts)) = Aparts::load(&sinks).now_or_never() else { return };
        for sink in 0..sinks.len() {
            let _ = versions.keep_unknown(sink, &tables).now_or_never();
        }
        let (notes, shelf) = (&self.notes, self.shelf.clone());
        let (versions, aparts) = (Arc::new(versions), Arc::new(aparts));
        self.process = Some(Process::start(
            &self.plan,
            (from, self.server.source.end(), self.server.source.horizon(self.server.slot.saved)),
            notes,
            shelf,
            &versions,
            &aparts,
            &tables,
        ));
        self.input(Input::Catalog(catalog));
        let poll = self.chance.between(1_000, 400_000);
        self.after(poll, Event::Poll { run: self.run });
        let connect = self.chance.between(100, 20_000);
        self.after(connect, Event::Connect { run: self.run });
        self.after(1_000, Event::Table { run: self.run });
        self.wake(1);
    }

    pub(super) fn connect(&mut self) {
        let Some(process) = &self.process else { return };
        if !self.server.is_up {
            return self.after(20_000, Event::Connect { run: self.run });
        }
        let from = process.watermark;
        self.trace(|| format!("begins at {from}"));
        self.server.connect(from);
        self.ledger.acknowledged = 0;
        if !self.is_first_connection && !self.sabotages(Sabotage::ForgetReconnect) {
            self.input(Input::Reconnected);
        }
        self.is_first_connection = false;
        let connection = self.server.connection;
        for event in [
            Event::Decode { connection },
            Event::Read { connection },
            Event::Keepalive { connection },
            Event::Feedback { connection },
        ] {
            let begin = self.chance.between(10, 5_000);
            self.after(begin, event);
        }
    }

    pub(super) fn decode(&mut self) {
        let records = self.chance.between(1, 20);
        let decoded = (0..records)
            .take_while(|_| self.server.decode(self.plan.window_bytes, &mut self.reached))
            .count();
        let next = if decoded > 0 { self.chance.between(5, 300) } else { self.chance.between(500, 5_000) };
        self.after(next, Event::Decode { connection: self.server.connection });
    }

    pub(super) fn send_keepalive(&mut self) {
        if let Some(sent) = self.server.keepalive(&mut self.reached) {
            self.keepalive = sent;
            // The catalog is told when the stream has passed it.
            self.last_looks += self.last_looks % 2;
        }
        let next = self.chance.between(5_000, 300_000);
        self.after(next, Event::Keepalive { connection: self.server.connection });
    }

    /// The reader takes a piece of what has come, unless the budget is used up.
    pub(super) fn read(&mut self) {
        let mut next = 1_000;
        if self.server.has_frames()
            && let Some(process) = &self.process
        {
            if process.budget.is_full() && !self.sabotages(Sabotage::IgnoreBudget) {
                self.reached.insert(reached::BACK_PRESSURE);
            } else {
                let frames = self.chance.between(1, 12) as usize;
                let forgets_aborts = self.sabotages(Sabotage::ForgetAbort);
                // A Stream Abort whose two transaction ids differ.
                let keep = |frame: &[u8]| {
                    !(forgets_aborts
                        && frame.get(30) == Some(&b'A')
                        && frame.get(31..35) != frame.get(35..39))
                };
                let bytes = self.server.read(frames, keep);
                self.largest_bytes = self.largest_bytes.max(bytes.len());
                self.trace(|| format!("reads {}", kinds(&bytes)));
                let charge = process.budget.charge(bytes.len());
                let catalogs = self.catalogs_of(&bytes);
                self.input(Input::Chunk { bytes, catalogs, charge });
                next = self.chance.between(5, 1_000);
            }
        }
        self.after(next, Event::Read { connection: self.server.connection });
    }

    /// What the catalog says of the tables that a chunk describes, or of all where a transaction has committed that was sent
    /// before: the reader looks up again what that described.
    fn catalogs_of(&self, bytes: &[u8]) -> Vec<TableCatalog> {
        let mut tables = Vec::new();
        for frame in frames(bytes) {
            // Within a stream block the transaction's id comes first.
            let oids =
                [frame.get(31..35), frame.get(35..39)].map(|oid| oid.and_then(|oid| oid.first_chunk::<4>()));
            if frame.get(5) == Some(&b'w') && frame.get(30) == Some(&b'R') {
                tables.extend(oids.into_iter().flatten().map(|oid| u32::from_be_bytes(*oid)));
            }
            if frame.get(5) == Some(&b'w') && matches!(frame.get(30), Some(b'c' | b'K')) {
                tables.extend(TABLES.iter().map(|table| table.0));
            }
        }
        tables.iter().filter_map(|oid| self.server.source.catalog(*oid)).collect()
    }

    pub(super) fn feedback(&mut self) -> Result<(), String> {
        if let Some(process) = &self.process {
            let pipeline = &process.pipeline;
            let lsn = match self.plan.sabotage {
                Some(Sabotage::AcknowledgeReceived) => pipeline.received().0.max(process.watermark),
                Some(Sabotage::AcknowledgePassed) => pipeline.passed().0.max(process.watermark),
                Some(Sabotage::AcknowledgeKeepalive) => self.keepalive.max(process.watermark),
                Some(Sabotage::AcknowledgeAltering)
                    if process.copies.values().any(|copy| matches!(copy, Copy::Altering(_))) =>
                {
                    pipeline.passed().0.max(process.watermark)
                }
                _ => process.watermark,
            };
            self.trace(|| format!("acknowledges {lsn}"));
            self.check_acknowledged(lsn)?;
            // Now and then it is lost; a later one says more anyway.
            if self.is_calm() || self.chance.percent(75) {
                self.server.acknowledge(lsn);
            }
        }
        let next = self.chance.between(1_000, 200_000);
        self.after(next, Event::Feedback { connection: self.server.connection });
        Ok(())
    }
}

/// The CopyData messages of a chunk.
fn frames(mut chunk: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (length, _) = chunk.get(1..)?.split_first_chunk::<4>()?;
        let (frame, rest) = chunk.split_at_checked(1 + u32::from_be_bytes(*length) as usize)?;
        chunk = rest;
        Some(frame)
    })
}

/// The kinds of the messages in a chunk, by their letters; `k` is a keepalive.
fn kinds(chunk: &[u8]) -> String {
    let kind = |frame: &[u8]| frame.get(if frame.get(5) == Some(&b'w') { 30 } else { 5 }).copied();
    frames(chunk).filter_map(kind).map(char::from).collect()
}
