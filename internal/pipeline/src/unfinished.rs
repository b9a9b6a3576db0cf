//! Transactions that have not committed yet: streamed in pieces, or prepared. Their messages wait, as received,
//! until it is known what becomes of them.
//!
//! ```text
//!   Stream Start ─ messages ─ Stream Stop ─▶ stream[xid] ──Stream Commit──▶ Ready ─▶ as if it came now
//!                         Stream Abort(sub) ─▶ ✗            └Stream Prepare─▶ prepared[xid] ──Commit Prepared──▶ Ready
//!   Begin Prepare ─ messages ─ Prepare ─────────────────────────────────────▶     └─ Rollback Prepared ─▶ ✗
//! ```
//!
//! Committed, they take their place in commit order, so a sink sees no difference to transactions that were sent
//! whole.
//!
//! A name (gid) may be used again as soon as what had it is finished, and after a reconnect both come again; so what is
//! prepared is known by its transaction id.

use replicator_spill::{Queue, Shelf, SpillError};
use replicator_types::{Lsn, TxnId};
use std::collections::{HashMap, HashSet};

/// Messages of one transaction.
#[derive(Debug)]
pub(crate) struct Kept {
    pub(crate) xid: u32,
    /// Each with the id of its subtransaction in front.
    pub(crate) messages: Queue,
    /// Subtransactions that were rolled back.
    pub(crate) aborted: HashSet<u32>,
    /// Whether the messages have ids inside, as within stream blocks.
    pub(crate) in_stream: bool,
}

/// A prepared transaction.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) kept: Kept,
    pub(crate) prepare_lsn: Lsn,
    /// What holds the watermark before the PREPARE; none for one that can't be asked for again anyway.
    pub(crate) hold: Option<TxnId>,
}

/// Where messages go at the moment.
#[derive(Debug)]
enum Open {
    Stream(u32),
    Prepare(Box<Kept>),
    /// Between Begin Prepare and Prepare of one that is known already.
    Pass(u32),
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Unfinished {
    shelf: Shelf,
    streams: HashMap<u32, Kept>,
    prepared: HashMap<u32, Prepared>,
    open: Option<Open>,
}

impl Unfinished {
    pub(crate) fn new(shelf: Shelf) -> Self {
        Self { shelf, streams: HashMap::new(), prepared: HashMap::new(), open: None }
    }

    fn keep(&self, xid: u32, in_stream: bool) -> Kept {
        Kept { xid, messages: self.shelf.queue(), aborted: HashSet::new(), in_stream }
    }

    /// Whether messages belong to a transaction that is not finished.
    pub(crate) fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// The transaction that messages belong to, if it is being prepared, and whether its messages are here already.
    pub(crate) fn preparing(&self) -> Option<(u32, bool)> {
        match &self.open {
            Some(Open::Prepare(kept)) => Some((kept.xid, false)),
            Some(Open::Pass(xid)) => Some((*xid, true)),
            Some(Open::Stream(_)) | None => None,
        }
    }

    /// Keeps a message of the open transaction; `subxid` is what the message says itself.
    pub(crate) fn push(&mut self, subxid: Option<u32>, message: &[u8]) -> Result<(), SpillError> {
        let kept = match &mut self.open {
            Some(Open::Stream(xid)) => self.streams.get_mut(xid),
            Some(Open::Prepare(kept)) => Some(&mut **kept),
            Some(Open::Pass(_)) | None => None,
        };
        let Some(kept) = kept else { return Ok(()) };
        kept.messages.push(&[&subxid.unwrap_or(kept.xid).to_ne_bytes(), message])
    }

    pub(crate) fn stream_start(&mut self, xid: u32) {
        if !self.streams.contains_key(&xid) {
            let kept = self.keep(xid, true);
            self.streams.insert(xid, kept);
        }
        self.open = Some(Open::Stream(xid));
    }

    pub(crate) fn stream_stop(&mut self) {
        self.open = None;
    }

    pub(crate) fn stream_abort(&mut self, xid: u32, subxid: u32) {
        if xid == subxid {
            self.streams.remove(&xid);
        } else if let Some(kept) = self.streams.get_mut(&xid) {
            kept.aborted.insert(subxid);
        }
    }

    /// Takes a streamed transaction out; an empty one when nothing of it came.
    pub(crate) fn take_stream(&mut self, xid: u32) -> Kept {
        self.streams.remove(&xid).unwrap_or_else(|| self.keep(xid, true))
    }

    /// `known`: its messages are here already.
    pub(crate) fn begin_prepare(&mut self, xid: u32, known: bool) {
        self.open =
            Some(if known { Open::Pass(xid) } else { Open::Prepare(Box::new(self.keep(xid, false))) });
    }

    /// The end of what [`Unfinished::begin_prepare`] began; `None` for a known one.
    pub(crate) fn end_prepare(&mut self) -> Option<Kept> {
        match self.open.take() {
            Some(Open::Prepare(kept)) => Some(*kept),
            _ => None,
        }
    }

    pub(crate) fn has_prepared(&self, xid: u32, prepare_lsn: Lsn) -> bool {
        self.prepared.get(&xid).is_some_and(|known| known.prepare_lsn == prepare_lsn)
    }

    pub(crate) fn add_prepared(&mut self, prepared: Prepared) -> Option<Prepared> {
        self.prepared.insert(prepared.kept.xid, prepared)
    }

    pub(crate) fn take_prepared(&mut self, xid: u32) -> Option<Prepared> {
        self.prepared.remove(&xid)
    }

    /// The connection broke: what was streamed comes again from its beginning. What is prepared stays, if the source may
    /// take it for known.
    pub(crate) fn reconnected(&mut self) {
        self.streams.clear();
        self.prepared.retain(|_, prepared| prepared.hold.is_some());
        self.open = None;
    }

    /// Transactions whose messages wait.
    pub(crate) fn len(&self) -> usize {
        self.streams.len() + self.prepared.len()
    }
}
