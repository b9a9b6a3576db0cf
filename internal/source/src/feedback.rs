//! The write half of the stream: what we tell the server.
//!
//! ```text
//!   watermark (moved) ───────────┐
//!   Reader: reply requested ─────┼─▶ StandbyStatusUpdate ─▶ server: the slot gives up WAL,
//!   request_reply() ─────────────┤                                  wal_sender_timeout starts anew
//!   time since the last ─────────┘
//! ```
//!
//! # Invariants
//! - Runs by itself: a reader that stands still, for a full buffer or a slow sink, does not silence it.
//! - What is acknowledged is the watermark and nothing beyond it, and never goes down within a connection.
//!   Below the slot's own position nothing is acknowledged at all: servers before 17 would move back.
//! - Nothing is written, flushed or applied separately: all three positions are the watermark, since data
//!   that is merely received is lost with this process.
//!
//! Sources: <https://www.postgresql.org/docs/current/protocol-replication.html#PROTOCOL-REPLICATION-STANDBY-STATUS-UPDATE>,
//! `ProcessStandbyReplyMessage` in Postgres' `src/backend/replication/walsender.c`.

use crate::SourceError;
use crate::signals::Signals;
use bytes::{BufMut, BytesMut};
use metrics::gauge;
use replicator_pgconn::PgStream;
use replicator_telemetry::metrics::ACKNOWLEDGED_LSN;
use replicator_types::{Lsn, POSTGRES_EPOCH_UNIX_MICROS};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::io::{AsyncWriteExt, WriteHalf};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

/// At least this long between two updates that only say that the watermark moved: ten a second cost the
/// server nothing, and a slot that is 100 ms behind keeps no WAL worth mentioning.
const MOVED_INTERVAL: Duration = Duration::from_millis(100);

/// A write that takes this long is to a peer that is gone: an update has 39 bytes, and socket buffers hold
/// thousands of them.
const WRITE_TIMEOUT: Duration = Duration::from_secs(60);

/// How often the server hears of us.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FeedbackTimes {
    interval: Duration,
}

impl FeedbackTimes {
    /// Both in milliseconds; a `wal_sender_timeout` of 0 is none.
    pub(crate) fn new(status_interval_ms: u64, wal_sender_timeout_ms: u64) -> Self {
        let by_server = if wal_sender_timeout_ms == 0 { u64::MAX } else { wal_sender_timeout_ms / 3 };
        Self { interval: Duration::from_millis(status_interval_ms.min(by_server).max(1)) }
    }
}

/// Owner of the write half. See the module.
#[derive(Debug)]
pub struct Feedback {
    pub(crate) writer: WriteHalf<PgStream>,
    pub(crate) signals: Arc<Signals>,
    pub(crate) times: FeedbackTimes,
    /// The slot's position when the stream began (the end of a transaction).
    pub(crate) floor: Lsn,
    /// See [`Feedback::on_reply`].
    pub(crate) asked: Option<Arc<Notify>>,
}

/// Asks things of a [`Feedback`] that runs. Cheap to clone.
#[derive(Clone, Debug)]
pub struct FeedbackHandle(pub(crate) Arc<Signals>);

impl FeedbackHandle {
    /// Asks the server for a keepalive, which tells how far it is. The answer comes through the
    /// [`Reader`](crate::Reader) as any keepalive does.
    pub fn request_reply(&self) {
        self.0.ping();
    }

    /// Ends the stream: a last update with the watermark as it is then, and the goodbye.
    pub fn finish(&self) {
        self.0.finish();
    }
}

impl Feedback {
    /// A handle for others.
    pub fn handle(&self) -> FeedbackHandle {
        FeedbackHandle(Arc::clone(&self.signals))
    }

    /// Notifies whoever waits for `asked` whenever the server wants to hear from us: a server that is to shut down waits
    /// until all that it has sent is acknowledged.
    #[must_use]
    pub fn on_reply(mut self, asked: Arc<Notify>) -> Self {
        self.asked = Some(asked);
        self
    }

    /// Tells the server of the watermark until [`FeedbackHandle::finish`] is called or every sender of
    /// `watermark` is gone; then says goodbye and ends well. `watermark` is the end of the last transaction
    /// that is durable in every sink; [`Lsn::ZERO`] for none.
    ///
    /// # Errors
    /// The connection is broken or takes no more; or the [`Reader`](crate::Reader) was dropped before: the connection is
    /// closed then, so that the slot is free for the next one.
    pub async fn run(mut self, mut watermark: watch::Receiver<Lsn>) -> Result<(), SourceError> {
        let mut sent = self.acknowledged(Lsn::ZERO, *watermark.borrow_and_update());
        self.update(sent, false).await?;
        let mut sent_at = Instant::now();
        let mut senders_gone = false;
        loop {
            let acknowledged = self.acknowledged(sent, *watermark.borrow_and_update());
            let finishing = senders_gone || self.signals.is_finishing();
            if self.signals.is_abandoned() && !finishing {
                return Err(SourceError::retry("the replication stream was given up"));
            }
            let wake_after = if acknowledged > sent { MOVED_INTERVAL } else { self.times.interval };
            let wake_at = sent_at + wake_after.min(self.times.interval);
            // Both, whatever the other says: a flag that is taken is served by the one update.
            let (reply, ping) = (self.signals.take_reply(), self.signals.take_ping());
            if let Some(asked) = self.asked.as_ref().filter(|_| reply) {
                asked.notify_waiters();
            }
            if finishing || reply || ping || Instant::now() >= wake_at {
                self.update(acknowledged, ping).await?;
                sent = acknowledged;
                sent_at = Instant::now();
                if finishing {
                    return self.goodbye().await;
                }
                continue;
            }
            tokio::select! {
                () = self.signals.changed() => {}
                changed = watermark.changed(), if !senders_gone => senders_gone = changed.is_err(),
                () = tokio::time::sleep_until(wake_at) => {}
            }
        }
    }

    fn acknowledged(&self, sent: Lsn, watermark: Lsn) -> Lsn {
        if watermark < self.floor { sent } else { sent.max(watermark) }
    }

    async fn update(&mut self, acknowledged: Lsn, reply: bool) -> Result<(), SourceError> {
        let message = status_update(acknowledged, reply);
        self.write(&message).await?;
        gauge!(ACKNOWLEDGED_LSN).set(acknowledged.0 as f64);
        Ok(())
    }

    /// CopyDone and Terminate.
    async fn goodbye(&mut self) -> Result<(), SourceError> {
        self.write(b"c\0\0\0\x04X\0\0\0\x04").await
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<(), SourceError> {
        let work = async {
            self.writer.write_all(bytes).await?;
            self.writer.flush().await
        };
        match tokio::time::timeout(WRITE_TIMEOUT, work).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(SourceError::retry(format!("the replication connection broke: {error}"))),
            Err(_) => Err(SourceError::retry(format!(
                "the replication connection takes no more data since {} s; the source or the network is gone",
                WRITE_TIMEOUT.as_secs()
            ))),
        }
    }
}

/// The message in a CopyData frame.
fn status_update(acknowledged: Lsn, reply: bool) -> BytesMut {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now_us = i64::try_from(since_1970.as_micros()).unwrap_or(i64::MAX) - POSTGRES_EPOCH_UNIX_MICROS;
    let mut out = BytesMut::with_capacity(39);
    out.put_u8(b'd');
    out.put_u32(38);
    out.put_u8(b'r');
    for _written_flushed_applied in 0..3 {
        out.put_u64(acknowledged.0);
    }
    out.put_i64(now_us);
    out.put_u8(u8::from(reply));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_update_says_the_same_position_three_times() {
        let message = status_update(Lsn(0x0102), true);
        assert_eq!(message.len(), 39);
        assert_eq!(&message[..6], b"d\0\0\0\x26r");
        for at in [6, 14, 22] {
            assert_eq!(message[at..at + 8], 0x0102_u64.to_be_bytes());
        }
        assert_eq!(message[38], 1);
    }

    #[test]
    fn the_server_hears_of_us_three_times_within_its_time_out() {
        assert_eq!(FeedbackTimes::new(10_000, 60_000).interval.as_millis(), 10_000);
        assert_eq!(FeedbackTimes::new(10_000, 6_000).interval.as_millis(), 2_000);
        assert_eq!(FeedbackTimes::new(10_000, 0).interval.as_millis(), 10_000);
        assert_eq!(FeedbackTimes::new(0, 1).interval.as_millis(), 1);
    }
}
