//! Tables whose changes wait: for the table's copy, or for the sinks to follow a change of its schema.
//!
//! ```text
//!   changes ─▶ [queue] ─────────── wait ───────────▶ handed on as CatchUp ─▶ live
//!                 ✗ older than the snapshot            (copy is durable, and the stream has passed its snapshot)
//! ```
//!
//! A sink that holds state by key gets them when the copied rows are durable there: applied before, an update that
//! leaves a large value alone would find no row to leave it in. A log whose tables can be altered as its rows come (a
//! history) waits too, and gets those besides that are older than the snapshot. Other logs get everything at once.
//!
//! While anything waits, the transaction it came with is held back from the checkpoint, so after a crash it
//! comes again.

use crate::accounts::Accounts;
use crate::dispatcher::{RowChange, Target, To};
use crate::relations::is_told_alike;
use replicator_spill::{Queue, Shelf, SpillError, records};
use replicator_types::{Lsn, Op, Position, Relation, TransactionMeta, Tuple, TxnId};
use std::ops::ControlFlow;
use std::sync::Arc;

/// A table that waits. See the module.
#[derive(Debug)]
pub(crate) struct Waiting {
    queue: Queue,
    /// A run that has been taken off the queue, and how far it has been walked.
    run: Vec<u8>,
    at: usize,
    /// The table versions of what waits, looked up once each.
    targets: Vec<Target>,
    /// What commits before it is in the copy.
    snapshot: Option<Lsn>,
    /// Changes before it are in the sinks.
    pub(crate) from: Position,
    /// Since when the version holds that the sinks know, where that is known.
    pub(crate) known: Option<Lsn>,
    /// The newest snapshot of which it has rows.
    until: Lsn,
    /// Told as [`Notice::Doubtful`](crate::Notice::Doubtful).
    pub(crate) is_doubtful: bool,
    /// Where the last guess was made of which columns changes are.
    guessed_at: Option<Position>,
    /// With which transaction's number sinks are told that it waits.
    pub(crate) held: Option<TxnId>,
    /// The transaction of the first change that waits, held back from the checkpoint.
    pub(crate) hold: Option<TxnId>,
    /// Under which its changes are handed on, once that has begun.
    pub(crate) group: Option<TxnId>,
    /// The version that state sinks were asked to follow last.
    pub(crate) told: Option<Arc<Relation>>,
    /// Whether its changes follow by themselves: no copy brings what sinks have to be told.
    pub(crate) follows: bool,
    /// Where copied rows stand.
    marks: Vec<Lsn>,
    /// Of what was handed out last.
    handed_out: Lsn,
    /// Whether the table is not published any more: only logs get what waits.
    pub(crate) leaves: bool,
}

/// What waited.
pub(crate) struct Waited<'a> {
    pub(crate) transaction: TransactionMeta,
    pub(crate) target: &'a Target,
    pub(crate) ordinal: u64,
    /// Who gets it.
    pub(crate) to: To,
    /// Whether it is the first that is newer than the copy's rows, behind some that are older.
    pub(crate) is_first_behind_copy: bool,
    pub(crate) what: What<'a>,
}

pub(crate) enum What<'a> {
    Row(RowChange<'a>),
    Truncate { cascade: bool, restart_identity: bool },
    Schema,
}

/// `op`, flags, number of the relation, ordinal, commit LSN, commit time, transaction id, bytes of the old tuple.
const HEADER_BYTES: usize = 1 + 1 + 4 + 8 + 8 + 8 + 4 + 4;

const OLD_IS_FULL: u8 = 1;
const HAS_OLD: u8 = 2;
const HAS_NEW: u8 = 4;
const CASCADE: u8 = 8;
const RESTART_IDENTITY: u8 = 16;

impl Waiting {
    pub(crate) fn new(shelf: &Shelf, snapshot: Option<Lsn>) -> Self {
        Self {
            queue: shelf.queue(),
            run: Vec::new(),
            at: 0,
            targets: Vec::new(),
            snapshot,
            from: Position::ZERO,
            known: None,
            until: Lsn::ZERO,
            is_doubtful: false,
            guessed_at: None,
            held: None,
            hold: None,
            group: None,
            told: None,
            follows: false,
            marks: Vec::new(),
            handed_out: Lsn::ZERO,
            leaves: false,
        }
    }

    /// The copy stands at this snapshot, and makes right what was in doubt before. Returns whether what comes behind it is.
    pub(crate) fn copied_at(&mut self, snapshot: Lsn) -> bool {
        self.snapshot = Some(snapshot);
        self.marks.push(snapshot);
        self.is_doubtful = self.guessed_at.is_some_and(|at| at.commit_lsn >= snapshot);
        self.is_doubtful
    }

    /// Which columns changes are of is a guess from that place on, and there is no snapshot yet.
    pub(crate) fn guessed(&mut self, at: Position) {
        self.guessed_at = Some(at);
    }

    /// What was laid out by a guess is of that version, if the stream tells the same of both.
    pub(crate) fn correct(&mut self, version: &Target) {
        for target in &mut self.targets {
            if target.relation.is_guess
                && target.relation.since < version.relation.since
                && is_told_alike(&target.relation, &version.relation)
            {
                *target = version.clone();
            }
        }
    }

    /// Which sinks get what waits was decided anew.
    pub(crate) fn direct(&mut self, mut target: impl FnMut(&Arc<Relation>) -> Target) {
        for known in &mut self.targets {
            *known = target(&known.relation);
        }
    }

    /// Whether anything waits of a version of which that holds.
    pub(crate) fn has(&self, test: impl Fn(&Target) -> bool) -> bool {
        self.targets.iter().any(test)
    }

    /// Whether its copy has a snapshot, so that what comes behind that will be handed on.
    pub(crate) fn is_copied(&self) -> bool {
        self.snapshot.is_some()
    }

    /// Copied rows are as new as this snapshot, if not newer.
    pub(crate) fn copied_until(&mut self, snapshot: Lsn) {
        self.until = self.until.max(snapshot);
        self.marks.push(snapshot);
    }

    /// What the stream has to have passed before anything is handed on.
    pub(crate) fn until(&self) -> Lsn {
        self.until.max(self.snapshot.unwrap_or_default())
    }

    /// Holds the watermark before the first transaction of which something waits.
    pub(crate) fn hold_back(&mut self, accounts: &mut Accounts, transaction: TxnId) {
        if self.hold.is_none() {
            self.hold = Some(transaction);
            accounts.hold(transaction);
        }
    }

    /// Whether the change at that position is in the copy, or in the sinks, anyway.
    pub(crate) fn is_there(&self, position: Position) -> bool {
        position < self.from || self.is_copied_before(position.commit_lsn)
    }

    /// Who gets the change at that position at once, and whether it is kept for others.
    pub(crate) fn takes(&self, position: Position, has_waiting_logs: bool) -> (To, bool) {
        if position < self.from {
            return (To::Logs, false);
        }
        (To::AtOnce, has_waiting_logs || !self.is_there(position))
    }

    fn is_copied_before(&self, commit_lsn: Lsn) -> bool {
        self.leaves || self.snapshot.is_some_and(|snapshot| commit_lsn < snapshot)
    }

    pub(crate) fn push_row(
        &mut self,
        transaction: &TransactionMeta,
        target: &Target,
        ordinal: u64,
        change: &RowChange<'_>,
    ) -> Result<(), SpillError> {
        let op = match change.op {
            Op::Update => b'U',
            Op::Delete => b'D',
            _ => b'I',
        };
        let flag = |set: bool, bit: u8| if set { bit } else { 0 };
        let flags = flag(change.old_is_full, OLD_IS_FULL)
            | flag(change.old.is_some(), HAS_OLD)
            | flag(change.new.is_some(), HAS_NEW);
        let old = change.old.map_or(&[][..], Tuple::as_bytes);
        let new = change.new.map_or(&[][..], Tuple::as_bytes);
        self.push(op, flags, transaction, target, ordinal, old, new)
    }

    pub(crate) fn push_truncate(
        &mut self,
        transaction: &TransactionMeta,
        target: &Target,
        ordinal: u64,
        (cascade, restart_identity): (bool, bool),
    ) -> Result<(), SpillError> {
        let flag = |set: bool, bit: u8| if set { bit } else { 0 };
        let flags = flag(cascade, CASCADE) | flag(restart_identity, RESTART_IDENTITY);
        self.push(b'T', flags, transaction, target, ordinal, &[], &[])
    }

    pub(crate) fn push_schema(
        &mut self,
        transaction: &TransactionMeta,
        target: &Target,
        ordinal: u64,
    ) -> Result<(), SpillError> {
        self.push(b'S', 0, transaction, target, ordinal, &[], &[])
    }

    #[allow(clippy::too_many_arguments, reason = "the parts of one record")]
    fn push(
        &mut self,
        op: u8,
        flags: u8,
        transaction: &TransactionMeta,
        target: &Target,
        ordinal: u64,
        old: &[u8],
        new: &[u8],
    ) -> Result<(), SpillError> {
        let is_it = |known: &Target| Arc::ptr_eq(&known.relation, &target.relation);
        let number = match self.targets.iter().rposition(is_it) {
            Some(number) => number,
            None => {
                self.targets.push(target.clone());
                self.targets.len() - 1
            }
        };
        let mut header = [0; HEADER_BYTES];
        let parts: [&[u8]; 8] = [
            &[op],
            &[flags],
            &(number as u32).to_ne_bytes(),
            &ordinal.to_ne_bytes(),
            &transaction.commit_lsn.0.to_ne_bytes(),
            &transaction.commit_time_us.to_ne_bytes(),
            &transaction.xid.to_ne_bytes(),
            &(old.len() as u32).to_ne_bytes(),
        ];
        let mut rest = &mut header[..];
        for part in parts {
            let (to, after) = rest.split_at_mut(part.len());
            to.copy_from_slice(part);
            rest = after;
        }
        self.queue.push(&[&header, old, new])
    }

    /// Hands out what waits, one piece after another, until about `bytes_max` were or `take` says that it is enough: to
    /// `take`, which gets the group as the transactions' id. Returns whether anything is left.
    pub(crate) fn hand_out<E: From<SpillError>>(
        &mut self,
        group: TxnId,
        bytes_max: usize,
        mut take: impl FnMut(Waited<'_>) -> Result<ControlFlow<()>, E>,
    ) -> Result<bool, E> {
        let mut bytes = 0;
        while bytes < bytes_max {
            if self.at >= self.run.len() {
                self.at = 0;
                self.run = match self.queue.take()? {
                    Some(run) => run,
                    None => {
                        self.run = Vec::new();
                        return Ok(false);
                    }
                };
            }
            let Some((record, next)) = records(&self.run, self.at).next() else {
                self.at = self.run.len();
                continue;
            };
            bytes += next - self.at;
            self.at = next;
            let Some(mut waited) = read(record, &self.targets, group) else { continue };
            let is_in_copy = self.is_copied_before(waited.transaction.commit_lsn);
            if is_in_copy {
                waited.to = To::WaitingLogs;
            }
            let commit_lsn = waited.transaction.commit_lsn;
            let before = std::mem::replace(&mut self.handed_out, commit_lsn);
            waited.is_first_behind_copy = self.marks.iter().any(|mark| before < *mark && *mark <= commit_lsn);
            if take(waited)?.is_break() {
                return Ok(true);
            }
        }
        Ok(true)
    }

    /// Bytes that wait.
    pub(crate) fn bytes(&self) -> u64 {
        self.queue.bytes() + (self.run.len() - self.at) as u64
    }
}

/// A record as [`Waiting::push`] wrote it.
fn read<'a>(record: &'a [u8], targets: &'a [Target], group: TxnId) -> Option<Waited<'a>> {
    let (&op, rest) = record.split_first()?;
    let (&flags, rest) = rest.split_first()?;
    let (number, rest) = rest.split_first_chunk::<4>()?;
    let (ordinal, rest) = rest.split_first_chunk::<8>()?;
    let (commit_lsn, rest) = rest.split_first_chunk::<8>()?;
    let (commit_time_us, rest) = rest.split_first_chunk::<8>()?;
    let (xid, rest) = rest.split_first_chunk::<4>()?;
    let (old_bytes, rest) = rest.split_first_chunk::<4>()?;
    let (old, new) = rest.split_at_checked(u32::from_ne_bytes(*old_bytes) as usize)?;
    let has = |flag: u8| flags & flag != 0;
    let row = |op| {
        What::Row(RowChange {
            op,
            old: has(HAS_OLD).then(|| Tuple::from_checked(old)),
            old_is_full: has(OLD_IS_FULL),
            new: has(HAS_NEW).then(|| Tuple::from_checked(new)),
        })
    };
    Some(Waited {
        transaction: TransactionMeta {
            id: group,
            commit_lsn: Lsn(u64::from_ne_bytes(*commit_lsn)),
            commit_time_us: i64::from_ne_bytes(*commit_time_us),
            xid: u32::from_ne_bytes(*xid),
        },
        target: targets.get(u32::from_ne_bytes(*number) as usize)?,
        ordinal: u64::from_ne_bytes(*ordinal),
        to: To::Waiters,
        is_first_behind_copy: false,
        what: match op {
            b'I' => row(Op::Insert),
            b'U' => row(Op::Update),
            b'D' => row(Op::Delete),
            b'T' => What::Truncate { cascade: has(CASCADE), restart_identity: has(RESTART_IDENTITY) },
            _ => What::Schema,
        },
    })
}
