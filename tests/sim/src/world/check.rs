//! The promises, and how they are checked.

use super::World;
use crate::copies::Copy;
use crate::copies::Note;

/// How far the source's commits were compared with the disks, by what was acknowledged.
#[derive(Default)]
pub(super) struct Ledger {
    effects: usize,
    lines: usize,
    /// On this connection.
    pub(super) acknowledged: u64,
}

/// What a byte of the stream may become on its way: the row and an entry of 48 bytes for it, in a batch of each of up to three
/// sinks whose buffers may be twice as long as what is in them, while the message itself is still held. Measured over
/// 100,000 schedules: 6.4.
const GROWTH: usize = 8;

impl World {
    /// What is acknowledged has to be on every disk.
    pub(super) fn check_acknowledged(&mut self, lsn: u64) -> Result<(), String> {
        if lsn < self.ledger.acknowledged {
            return Err(format!("{lsn} is acknowledged behind {}", self.ledger.acknowledged));
        }
        self.ledger.acknowledged = lsn;
        let source = &self.server.source;
        if lsn > source.end() {
            return Err(format!("{lsn} is acknowledged, and the log ends at {}", source.end()));
        }
        let stores = || self.stores.iter().enumerate();
        while let Some(effect) = source.effects.get(self.ledger.effects).filter(|effect| effect.end <= lsn) {
            // What is to be copied is in the copy.
            if self.notes.of(effect.table) != Note::Nothing {
                let mut states = stores().filter(|(_, store)| !store.kind.is_log());
                if let Some((sink, _)) = states.find(|(_, store)| !store.has(effect)) {
                    return Err(format!("{lsn} is acknowledged, and sink {sink} has not {effect:?}"));
                }
            }
            self.ledger.effects += 1;
        }
        while let Some((_, position)) = source.ends.get(self.ledger.lines).filter(|(end, _)| *end <= lsn) {
            let mut logs = stores().filter(|(_, store)| store.kind.is_log());
            if let Some((sink, _)) = logs.find(|(_, store)| !store.has_line(position)) {
                return Err(format!("{lsn} is acknowledged, and the log {sink} has not {position:?}"));
            }
            self.ledger.lines += 1;
        }
        Ok(())
    }

    /// Memory stays within the budget, what is inside growing on its way, and a message.
    pub(super) fn check_bytes(&mut self) -> Result<(), String> {
        let Some(process) = &self.process else { return Ok(()) };
        let (peak, max) = (process.budget.peak(), process.budget.bytes_max());
        self.over_budget_bytes = self.over_budget_bytes.max(peak.saturating_sub(max));
        let piece = self.largest_bytes + process.handed_on_bytes;
        if peak > GROWTH * (max + piece) {
            return Err(format!("{peak} bytes were held of {max}, with {piece} in one piece"));
        }
        Ok(())
    }

    /// At the end every sink has what the source has.
    pub(super) fn check_end(&self) -> Result<(), String> {
        let source = &self.server.source;
        let rows = source.full_rows(None);
        // Sinks are not told of a table without a change.
        let is_unknown = |table: u32| {
            self.process.iter().any(|process| matches!(process.copies.get(&table), Some(Copy::Unknown)))
        };
        let columns = |table: u32| {
            let columns = source.shape(table).into_iter().flat_map(|shape| &shape.columns);
            let columns = columns.map(|column| (column.attnum, column.name.clone())).collect();
            (!is_unknown(table)).then_some(columns)
        };
        for (sink, store) in self.stores.iter().enumerate() {
            store
                .compare(&rows, columns, &source.expected)
                .map_err(|text| format!("in the end sink {sink} ({:?}) differs: {text}", store.kind))?;
        }
        let Some(process) = &self.process else { return Ok(()) };
        let pipeline = &process.pipeline;
        let left = (pipeline.pending(), pipeline.unfinished(), pipeline.waiting(), process.budget.held());
        if left != (0, 0, 0, 0) {
            return Err(format!("transactions, transactions in progress, tables, bytes are left: {left:?}"));
        }
        Ok(())
    }
}
