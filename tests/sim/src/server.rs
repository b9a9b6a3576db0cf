//! The source's server: the log of the model, the slot, and a connection with what is under way on it.

use crate::reached::{self, Reached};
use bytes::Bytes;
use replicator_model::source::{Source, Walsender};
use replicator_model::wire::Wire;
use std::collections::VecDeque;

/// What the slot knows, as `pg_replication_slots` has it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Slot {
    /// `confirmed_flush_lsn`.
    pub(crate) confirmed: u64,
    /// What of it a crash leaves: it is written down at checkpoints only (`SaveSlotToPath` of `slot.c`).
    pub(crate) saved: u64,
}

pub(crate) struct Server {
    pub(crate) source: Source,
    pub(crate) slot: Slot,
    pub(crate) is_up: bool,
    walsender: Option<Walsender>,
    /// Sent and not read.
    frames: VecDeque<Bytes>,
    frame_bytes: usize,
    /// Connections are told apart by number.
    pub(crate) connection: u32,
}

impl Server {
    pub(crate) fn new(source: Source) -> Self {
        Self {
            source,
            slot: Slot::default(),
            is_up: true,
            walsender: None,
            frames: VecDeque::new(),
            frame_bytes: 0,
            connection: 0,
        }
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.walsender.is_some()
    }

    /// `START_REPLICATION` at `from`: the server begins no earlier than at the slot's position
    /// (`CreateDecodingContext` of `logical.c`).
    pub(crate) fn connect(&mut self, from: u64) {
        self.cut();
        self.walsender = Some(Walsender::new(from.max(self.slot.confirmed)));
    }

    /// The connection is gone, with all that was under way on it.
    pub(crate) fn cut(&mut self) {
        self.walsender = None;
        self.frames.clear();
        self.frame_bytes = 0;
        self.connection += 1;
    }

    /// Returns whether the slot's position goes back.
    pub(crate) fn crash(&mut self) -> bool {
        self.cut();
        self.is_up = false;
        self.source.crash();
        let goes_back = self.slot.saved < self.slot.confirmed;
        self.slot.confirmed = self.slot.saved;
        goes_back
    }

    pub(crate) fn acknowledge(&mut self, lsn: u64) {
        self.slot.confirmed = self.slot.confirmed.max(lsn);
    }

    /// Decodes a record and sends what comes of it, unless the connection is full. False when there was nothing to do.
    pub(crate) fn decode(&mut self, window_bytes: usize, reached: &mut Reached) -> bool {
        if self.frame_bytes >= window_bytes {
            return false;
        }
        let Some(wire) = self.walsender.as_mut().and_then(|walsender| walsender.decode(&self.source)) else {
            return false;
        };
        self.send(wire, reached);
        true
    }

    pub(crate) fn keepalive(&mut self, reached: &mut Reached) -> Option<u64> {
        let walsender = self.walsender.as_ref()?;
        let (sent, wire) = (walsender.sent(&self.source), walsender.keepalive(&self.source));
        self.send(wire, reached);
        Some(sent)
    }

    fn send(&mut self, wire: Wire, reached: &mut Reached) {
        let mut rest = Bytes::from(wire.bytes);
        while let Some(length) = rest.get(1..5).and_then(|length| length.first_chunk::<4>()) {
            let frame = rest.split_to(1 + u32::from_be_bytes(*length) as usize);
            // Behind the frame's and the data's headers.
            if let Some((kind, body)) = frame.get(30..).and_then(<[u8]>::split_first) {
                match kind {
                    b'A' if body.get(..4) == body.get(4..8) => reached.insert(reached::STREAM_ABORT),
                    b'A' => reached.insert(reached::SUBTRANSACTION_ABORT),
                    b'K' => reached.insert(reached::COMMIT_PREPARED),
                    b'r' => reached.insert(reached::ROLLBACK_PREPARED),
                    _ => false,
                };
            }
            self.frame_bytes += frame.len();
            self.frames.push_back(frame);
        }
    }

    /// Takes up to so many frames off the connection, as one chunk. `keep`: which of them arrive.
    pub(crate) fn read(&mut self, frames: usize, keep: impl Fn(&[u8]) -> bool) -> Bytes {
        let frames = frames.min(self.frames.len());
        let mut chunk = Vec::new();
        for frame in self.frames.drain(..frames) {
            self.frame_bytes -= frame.len();
            if keep(&frame) {
                chunk.extend_from_slice(&frame);
            }
        }
        Bytes::from(chunk)
    }

    /// Whether everything there is was sent and read.
    pub(crate) fn is_read_out(&self) -> bool {
        let is_at_end = |walsender: &Walsender| walsender.sent(&self.source) == self.source.end();
        self.frames.is_empty() && self.walsender.as_ref().is_some_and(is_at_end)
    }

    pub(crate) fn has_frames(&self) -> bool {
        !self.frames.is_empty()
    }
}
