//! The read half of the stream: chunks of whole messages, as large as the load makes them.
//!
//! ```text
//!   socket ─read─▶ buffer ─Splitter─▶ whole messages ─▶ look up the tables of Relation messages ─▶ Chunk
//!      ▲                                                                                             │
//!      └── not while the budget is full ◀──────────────── charge, given back when the chunk is dropped ┘
//! ```
//!
//! When it is read next, [`Pace`] says: at once while it is quiet, in bursts under load.
//!
//! # Invariants
//! - Bytes are handed on exactly as received, split only between messages.
//! - [`Reader::next_chunk`] may be dropped at any await: nothing is lost, the next call goes on.
//! - No value in binary form is handed on whose column's values are only understood as text.
//! - While the budget is full the socket is not read. Keepalives are answered all the same, by the
//!   [`Feedback`](crate::Feedback) on its own time.

use crate::catalog;
use crate::frames::{Splitter, Step};
use crate::pace::{Pace, Peer};
use crate::raw::server_error;
use crate::signals::Signals;
use crate::sql::Sql;
use crate::{SourceError, StreamOptions, negotiation};
use bytes::{Buf, Bytes, BytesMut};
use postgres_protocol::message::backend::Message;
use replicator_pgconn::PgStream;
use replicator_types::{Budget, Charge, Lsn, TableCatalog};
use slog::{Logger, debug, info};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, ReadHalf};
use tokio::time::Instant;

/// Room for one read.
const BUFFER_BYTES: usize = 512 << 10;

/// What is read in one go at most before it is handed on.
const CHUNK_BYTES: usize = 256 << 10;

/// Chunks smaller than this are copied out of the buffer, so that a few bytes do not keep all of it.
const COPY_BYTES_MAX: usize = 32 << 10;

/// How often a full budget is looked at again. Nothing tells of bytes given back; what can be full is
/// megabytes, and a millisecond of reading is less.
const BUDGET_POLL: Duration = Duration::from_millis(1);

/// How often a table is looked up that is locked, and the time between.
const LOCKED_ATTEMPTS: u32 = 10;
const LOCKED_PAUSE: Duration = Duration::from_millis(10);

/// How long the rest of a stream that is to end is waited for.
const FINISH_TIMEOUT: Duration = Duration::from_secs(2);

/// A piece of the stream.
#[derive(Debug)]
pub struct Chunk {
    /// One or more whole CopyData messages exactly as received, framing included: `d`, a 32-bit length that
    /// counts itself, then `w` (XLogData) or `k` (keepalive) and the rest.
    pub bytes: Bytes,
    /// The catalog's current entry for each table that has a Relation message in `bytes`, or in a transaction that was sent
    /// before it committed and has committed in `bytes`. A table that is gone has none.
    pub catalogs: Vec<TableCatalog>,
    /// The bytes held, against the budget.
    pub charge: Charge,
}

/// Owner of the read half. See the module.
#[derive(Debug)]
pub struct Reader {
    pub(crate) stream: ReadHalf<PgStream>,
    pub(crate) sql: Arc<Sql>,
    pub(crate) signals: Arc<Signals>,
    pub(crate) budget: Budget,
    pub(crate) slot: String,
    pub(crate) publication: String,
    pub(crate) log: Logger,
    stream_options: StreamOptions,
    incoming: Incoming,
    pending: Option<Pending>,
    /// Set where the next stream has to be in text.
    no_binary: Arc<AtomicBool>,
    /// The greatest LSN of a commit record that was handed on.
    committed: Arc<AtomicU64>,
    pace: Pace,
    /// What the pace counts time from.
    began: Instant,
    read_at: Option<Instant>,
    ended: Option<SourceError>,
}

/// What has been read and not handed on.
#[derive(Debug)]
struct Incoming {
    buffer: BytesMut,
    splitter: Splitter,
    /// Whether the buffer is larger than usual.
    grown: bool,
}

/// Cut, but its tables not looked up yet.
#[derive(Debug)]
struct Pending {
    bytes: Bytes,
    /// The tables of its Relation messages, and the types of their columns.
    relations: Vec<u32>,
    /// Of those, the ones that a transaction has described that has committed.
    committed: Vec<u32>,
    column_types: Vec<(u32, u32)>,
}

/// What comes out of the buffer.
enum Cut {
    Data(Pending),
    Other(BytesMut),
    Nothing,
}

pub(crate) struct ReaderParts {
    pub(crate) stream: ReadHalf<PgStream>,
    pub(crate) is_tcp: bool,
    pub(crate) is_near: bool,
    pub(crate) received: BytesMut,
    pub(crate) sql: Arc<Sql>,
    pub(crate) signals: Arc<Signals>,
    pub(crate) budget: Budget,
    pub(crate) slot: String,
    pub(crate) publication: String,
    pub(crate) log: Logger,
    pub(crate) stream_options: StreamOptions,
    pub(crate) no_binary: Arc<AtomicBool>,
    pub(crate) committed: Arc<AtomicU64>,
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.signals.abandon();
    }
}

impl Reader {
    pub(crate) fn new(parts: ReaderParts) -> Self {
        let peer = match (parts.is_tcp, parts.is_near) {
            (false, _) => Peer::UnixSocket,
            (true, true) => Peer::Near,
            (true, false) => Peer::Far,
        };
        let pace = Pace::new(peer);
        let mut buffer = BytesMut::with_capacity(BUFFER_BYTES);
        buffer.extend_from_slice(&parts.received);
        Self {
            stream: parts.stream,
            sql: parts.sql,
            signals: parts.signals,
            budget: parts.budget,
            slot: parts.slot,
            publication: parts.publication,
            log: parts.log,
            stream_options: parts.stream_options,
            no_binary: parts.no_binary,
            committed: parts.committed,
            incoming: Incoming { buffer, splitter: Splitter::default(), grown: false },
            pending: None,
            pace,
            began: Instant::now(),
            read_at: None,
            ended: None,
        }
    }

    /// What this stream was asked for, and so how its messages are to be read.
    pub fn stream_options(&self) -> &StreamOptions {
        &self.stream_options
    }

    /// The next piece of the stream. Waits as long as there is none, or the budget is full. May be dropped and
    /// called again.
    ///
    /// # Errors
    /// The stream is over; every later call says the same. Whoever wants more makes a new one, from the last
    /// acknowledged position.
    pub async fn next_chunk(&mut self) -> Result<Chunk, SourceError> {
        loop {
            if let Some(pending) = &self.pending {
                let catalogs =
                    if pending.relations.is_empty() { Vec::new() } else { self.catalogs(pending).await? };
                if self.stream_options.binary {
                    self.verify_binary(&catalogs)?;
                }
                if let Some(Pending { bytes, .. }) = self.pending.take() {
                    let charge = self.budget.charge(bytes.len());
                    return Ok(Chunk { bytes, catalogs, charge });
                }
            }
            match self.cut() {
                Ok(Cut::Data(pending)) => self.pending = Some(pending),
                Ok(Cut::Other(message)) => self.take_other(message),
                Ok(Cut::Nothing) => {
                    if let Some(error) = &self.ended {
                        return Err(error.clone());
                    }
                    while self.budget.is_full() {
                        tokio::time::sleep(BUDGET_POLL).await;
                    }
                    self.read().await;
                }
                Err(error) => return Err(self.ended.get_or_insert(error).clone()),
            }
        }
    }

    /// Reads on and throws away until the server has ended the stream, for at most a moment: so that the last
    /// update is read by the server before the connection is closed under it. To be called after
    /// [`FeedbackHandle::finish`](crate::FeedbackHandle::finish), beside or behind the feedback's end.
    pub async fn finish(mut self) {
        let rest = async {
            let mut sink = vec![0; 64 << 10];
            while self.stream.read(&mut sink).await.is_ok_and(|bytes| bytes > 0) {}
        };
        let _ = tokio::time::timeout(FINISH_TIMEOUT, rest).await;
    }

    /// A table that is locked for `ALTER TABLE` or the like is waited for, for a moment: mostly it is the transaction whose
    /// messages came, which others are about to see. Not one whose transaction goes on: it is looked up when that ends.
    async fn catalogs(&self, pending: &Pending) -> Result<Vec<TableCatalog>, SourceError> {
        let mut catalogs = catalog::by_oid(&self.sql, &pending.relations).await?;
        for _ in 1..LOCKED_ATTEMPTS {
            let is_locked =
                |of: &&TableCatalog| of.read_at == Lsn::ZERO && pending.committed.contains(&of.oid);
            let locked: Vec<u32> = catalogs.iter().filter(is_locked).map(|of| of.oid).collect();
            if locked.is_empty() {
                break;
            }
            tokio::time::sleep(LOCKED_PAUSE).await;
            catalogs.retain(|of| !locked.contains(&of.oid));
            catalogs.extend(catalog::by_oid(&self.sql, &locked).await?);
        }
        Ok(catalogs)
    }

    /// Ends the stream where values in binary form cannot be understood; the next one is in text.
    fn verify_binary(&self, catalogs: &[TableCatalog]) -> Result<(), SourceError> {
        let types = self.pending.as_ref().map_or(&[][..], |pending| &pending.column_types);
        let Some(type_oid) = negotiation::text_only_type(types, catalogs) else { return Ok(()) };
        self.no_binary.store(true, Ordering::Relaxed);
        Err(SourceError::retry(format!(
            "slot {}: a column has come whose values are only understood as text (type {type_oid}): from now on all \
             values come as text",
            self.slot
        )))
    }

    fn cut(&mut self) -> Result<Cut, SourceError> {
        let cut = self.incoming.cut();
        if self.incoming.splitter.take_reply_requested() {
            self.signals.reply();
        }
        // Before what it is the commit of is handed on.
        self.committed.fetch_max(self.incoming.splitter.committed(), Ordering::Relaxed);
        cut
    }

    /// Reads what is there, after the pause that the last time asked for. Waits for the first bytes only.
    async fn read(&mut self) {
        if let Some(at) = self.read_at {
            tokio::time::sleep_until(at).await;
        }
        let mut last = self.stream.read_buf(&mut self.incoming.buffer).await;
        let mut bytes = 0;
        loop {
            match last {
                Ok(0) => return self.end(self.closed("the server closed the connection")),
                Ok(more) => bytes += more,
                Err(error) => return self.end(self.closed(&error.to_string())),
            }
            if bytes >= CHUNK_BYTES || !self.incoming.has_room() {
                break;
            }
            // Through TLS a read brings a few records, however much there is.
            last = tokio::select! {
                biased;
                more = self.stream.read_buf(&mut self.incoming.buffer) => more,
                () = std::future::ready(()) => break,
            };
        }
        let now = Instant::now();
        let pause = self.pace.after_read(bytes, now - self.began);
        self.read_at = (!pause.is_zero()).then(|| now + pause);
    }

    /// The first reason stays.
    fn end(&mut self, error: SourceError) {
        self.ended.get_or_insert(error);
    }

    fn take_other(&mut self, mut message: BytesMut) {
        match Message::parse(&mut message) {
            Ok(Some(Message::ErrorResponse(body))) => {
                let error = server_error(body.fields());
                // Also when it is known already that the connection was closed behind it.
                self.ended = Some(SourceError::of_stream(&error, &self.slot, &self.publication));
            }
            Ok(Some(Message::NoticeResponse(body))) => {
                let notice = server_error(body.fields());
                info!(self.log, "notice of the source"; "severity" => &notice.severity, "text" => notice.to_string());
            }
            Ok(Some(Message::ParameterStatus(body))) => {
                let name = body.name().unwrap_or_default().to_owned();
                debug!(self.log, "setting of the source changed"; "name" => name);
            }
            Ok(Some(Message::CopyDone | Message::CommandComplete(_))) => {
                self.end(self.closed("the server ended the stream, as it does when it shuts down"));
            }
            // As ReadyForQuery does, behind an error.
            Ok(_) => self.end(self.closed("the server sent a message that has no place in a stream")),
            Err(error) => self.end(self.closed(&error.to_string())),
        }
    }

    fn closed(&self, why: &str) -> SourceError {
        SourceError::retry(format!("slot {}: the stream ended: {why}", self.slot))
    }
}

impl Incoming {
    /// Takes what is whole off the buffer, and makes room for the next read.
    fn cut(&mut self) -> Result<Cut, SourceError> {
        let wrong = |error| SourceError::retry(format!("the replication stream is broken: {error}"));
        let cut = match self.splitter.step(&self.buffer).map_err(wrong)? {
            Step::Data(bytes) => Cut::Data(Pending {
                bytes: self.take(bytes),
                relations: self.splitter.take_relations(),
                committed: self.splitter.take_committed_relations(),
                column_types: self.splitter.take_column_types(),
            }),
            Step::Other { bytes, .. } => Cut::Other(self.buffer.split_to(bytes)),
            Step::More { message_bytes } => {
                self.make_room(message_bytes);
                Cut::Nothing
            }
        };
        Ok(cut)
    }

    fn take(&mut self, bytes: usize) -> Bytes {
        let taken = if bytes <= COPY_BYTES_MAX {
            let copy = Bytes::copy_from_slice(self.buffer.get(..bytes).unwrap_or_default());
            self.buffer.advance(bytes);
            copy
        } else {
            self.buffer.split_to(bytes).freeze()
        };
        if self.grown {
            // What a large message needed goes with it.
            let rest = std::mem::replace(&mut self.buffer, BytesMut::with_capacity(BUFFER_BYTES));
            self.buffer.extend_from_slice(&rest);
            self.grown = false;
        }
        taken
    }

    fn has_room(&self) -> bool {
        self.buffer.capacity() > self.buffer.len()
    }

    /// `message_bytes` is what the message at the front claims to be in all. A claim is not believed at once:
    /// the buffer doubles as bytes arrive.
    fn make_room(&mut self, message_bytes: usize) {
        let held = self.buffer.len();
        let size = message_bytes.min(2 * held).max(BUFFER_BYTES);
        self.grown |= size > BUFFER_BYTES;
        if self.buffer.capacity() - held < BUFFER_BYTES / 4 {
            // The same allocation again where the chunks cut from it are gone.
            self.buffer.reserve(size.saturating_sub(held).max(1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn incoming() -> Incoming {
        Incoming {
            buffer: BytesMut::with_capacity(BUFFER_BYTES),
            splitter: Splitter::default(),
            grown: false,
        }
    }

    /// An Insert message of that many bytes in all.
    fn message(bytes: usize) -> Vec<u8> {
        let mut message = vec![b'I'; bytes];
        message[0] = b'd';
        message[1..5].copy_from_slice(&(bytes as u32 - 1).to_be_bytes());
        message[5] = b'w';
        message
    }

    /// Gives the bytes in reads as large as there is room for; returns the chunks and the largest buffer.
    fn run(stream: &[u8]) -> (Vec<Bytes>, usize) {
        let mut incoming = incoming();
        let (mut chunks, mut largest, mut rest) = (Vec::new(), 0, stream);
        loop {
            match incoming.cut().unwrap() {
                Cut::Data(pending) => chunks.push(pending.bytes),
                Cut::Other(_) => unreachable!(),
                Cut::Nothing if rest.is_empty() => return (chunks, largest),
                Cut::Nothing => {
                    let room = incoming.buffer.capacity() - incoming.buffer.len();
                    assert!(room > 0);
                    largest = largest.max(incoming.buffer.capacity());
                    let (piece, after) = rest.split_at(room.min(rest.len()));
                    incoming.buffer.extend_from_slice(piece);
                    rest = after;
                }
            }
        }
    }

    #[test]
    fn a_message_larger_than_the_buffer_grows_it_for_itself_alone() {
        let large = 5 * BUFFER_BYTES + 17;
        let stream = [message(100), message(large), message(200), message(300)].concat();
        let mut incoming = incoming();
        let (chunks, largest) = run(&stream);
        assert_eq!(chunks.concat(), stream);
        assert!(largest < 3 * large, "{largest}");

        incoming.buffer.extend_from_slice(&stream);
        incoming.grown = true;
        assert!(matches!(incoming.cut(), Ok(Cut::Data(..))));
        assert!(matches!(incoming.cut(), Ok(Cut::Nothing)));
        assert!(incoming.buffer.capacity() <= 2 * BUFFER_BYTES && !incoming.grown);
    }

    #[test]
    fn a_length_is_not_believed_before_the_bytes_are_there() {
        let mut incoming = incoming();
        incoming.buffer.extend_from_slice(b"d\x40\0\0\0w");
        assert!(matches!(incoming.cut(), Ok(Cut::Nothing)));
        assert!(incoming.buffer.capacity() <= BUFFER_BYTES);
    }

    #[test]
    fn a_buffer_is_used_again_when_its_chunks_are_gone() {
        let mut incoming = incoming();
        let first = incoming.buffer.as_ptr();
        for _ in 0..20 {
            while incoming.buffer.capacity() - incoming.buffer.len() > 50_000 {
                incoming.buffer.extend_from_slice(&message(40_000));
            }
            assert!(matches!(incoming.cut(), Ok(Cut::Data(..))));
            assert!(matches!(incoming.cut(), Ok(Cut::Nothing)));
            assert_eq!(incoming.buffer.as_ptr(), first);
            assert_eq!(incoming.buffer.capacity(), BUFFER_BYTES);
        }
    }
}
