//! Transactions that were kept until their end was known, worked through when it is; what becomes of prepared ones.

use super::{Open, Pipeline, PipelineError, STEP_BYTES};
use crate::unfinished::{Kept, Prepared};
use pgoutput::{Begin, Commit, CommitPrepared, Decoder, Prepare};
use replicator_spill::records;
use replicator_types::Lsn;
use std::time::Instant;

#[derive(Debug)]
pub(super) struct Replay {
    kept: Kept,
    decoder: Decoder,
    run: Vec<u8>,
    at: usize,
    end_lsn: Lsn,
}

impl Pipeline {
    pub(super) fn prepared(&mut self, prepare: &Prepare<'_>, kept: Kept) {
        // Until it is decided what becomes of it, the watermark stays before the PREPARE: a source that has been told
        // of that sends only the COMMIT PREPARED. Not so for what was prepared before the place that the stream has got to:
        // it is finished and came again, or it was prepared before the slot was, and then it comes with its commit each
        // time (`ReorderBufferFinishPrepared` of the server's `reorderbuffer.c`).
        let is_past = prepare.prepare_lsn < self.passed;
        let hold = (!is_past).then(|| self.accounts.prepare(prepare.prepare_time_us, prepare.end_lsn));
        self.passed = self.passed.max(prepare.end_lsn);
        let prepared = Prepared { kept, prepare_lsn: prepare.prepare_lsn, hold };
        if let Some(hold) = self.unfinished.add_prepared(prepared).and_then(|before| before.hold) {
            self.accounts.rollback_prepared(hold);
        }
    }

    pub(super) fn commit_prepared(
        &mut self,
        commit: &CommitPrepared<'_>,
        now: Instant,
    ) -> Result<(), PipelineError> {
        let prepared = self.unfinished.take_prepared(commit.xid);
        if commit.commit_lsn <= self.sealed {
            // It came again, and was handed out before.
            if let Some(hold) = prepared.and_then(|prepared| prepared.hold) {
                self.accounts.rollback_prepared(hold);
            }
            return Ok(());
        }
        let Some(Prepared { kept, hold, .. }) = prepared else {
            return Err(PipelineError::UnknownPrepared(commit.gid.to_owned()));
        };
        self.begin_replay(kept, commit.commit_lsn, commit.end_lsn, commit.commit_time_us, now)?;
        if let (Some(hold), Some(open)) = (hold, self.transaction) {
            self.accounts.commit_prepared(hold, open.meta.id);
        }
        Ok(())
    }

    /// A transaction that was kept has committed: its messages come now, as if they had just been received.
    pub(super) fn begin_replay(
        &mut self,
        kept: Kept,
        commit_lsn: Lsn,
        end_lsn: Lsn,
        commit_time_us: i64,
        now: Instant,
    ) -> Result<(), PipelineError> {
        self.begin(Begin { final_lsn: commit_lsn, commit_time_us, xid: kept.xid }, now)?;
        self.transaction = self.transaction.map(|open| Open { was_kept: true, ..open });
        let decoder = if kept.in_stream { Decoder::within_stream() } else { Decoder::new(false) };
        self.replay = Some(Replay { kept, decoder, run: Vec::new(), at: 0, end_lsn });
        Ok(())
    }

    pub(super) fn replay_some(&mut self, now: Instant) -> Result<(), PipelineError> {
        let Some(mut replay) = self.replay.take() else { return Ok(()) };
        let mut bytes = 0;
        while bytes < STEP_BYTES {
            if replay.at >= replay.run.len() {
                replay.at = 0;
                replay.run = match replay.kept.messages.take()? {
                    Some(run) => run,
                    None => return self.end_replay(replay.end_lsn),
                };
            }
            let mut at = replay.at;
            for (record, next) in records(&replay.run, replay.at) {
                bytes += next - at;
                at = next;
                if let Some((subxid, message)) = record.split_first_chunk::<4>()
                    && !replay.kept.aborted.contains(&u32::from_ne_bytes(*subxid))
                {
                    let message = replay.decoder.decode(message)?;
                    self.message(message, now)?;
                }
                if bytes >= STEP_BYTES {
                    break;
                }
            }
            replay.at = at;
        }
        self.replay = Some(replay);
        Ok(())
    }

    pub(super) fn end_replay(&mut self, end_lsn: Lsn) -> Result<(), PipelineError> {
        let meta = self.transaction.map(|open| open.meta);
        let meta =
            meta.ok_or(PipelineError::OutOfOrder { what: "a Commit", place: "outside a transaction" })?;
        self.commit(Commit { commit_lsn: meta.commit_lsn, end_lsn, commit_time_us: meta.commit_time_us })
    }
}
