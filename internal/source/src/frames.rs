//! Where one message ends and the next begins, in what the walsender sends after CopyBoth.
//!
//! ```text
//!   bytes as they come ─▶ Splitter ─▶ Data { whole CopyData messages } ─▶ Other { ErrorResponse, … }
//!                            ├─▶ relations, column types: oids in the Relation messages seen
//!                            └─▶ reply_requested: a keepalive wants an answer
//! ```
//!
//! # Invariants
//! - Whatever the sizes of the reads, the messages are the same, each given out once and in order.
//! - No byte is looked at twice: a message that comes in pieces is not walked again from the front.
//! - A length is believed only as far as [`MESSAGE_BYTES_MAX`].
//!
//! Sources: <https://www.postgresql.org/docs/current/protocol-replication.html#PROTOCOL-REPLICATION-XLOGDATA>,
//! <https://www.postgresql.org/docs/current/protocol-logicalrep-message-formats.html>.

use pgoutput::Decoder;
use std::collections::HashMap;

/// Larger than anything Postgres sends: a message is built in one allocation, and those end at 1 GiB
/// (`MaxAllocSize` in `src/include/utils/memutils.h`). The rest is room for headers.
pub(crate) const MESSAGE_BYTES_MAX: usize = (1 << 30) + (1 << 16);

/// Type byte and length.
const HEADER_BYTES: usize = 5;
/// `w`, start, end and time, in front of what the plugin wrote.
const XLOG_DATA_HEADER_BYTES: usize = 25;
/// `k`, end of WAL and time, in front of the flag that asks for an answer.
const KEEPALIVE_FLAG_AT: usize = 17;

/// The bytes are not what a walsender sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FrameError {
    #[error("a message claims {0} bytes, which none has")]
    Length(u32),
    #[error("a CopyData message ends inside the {0}")]
    Truncated(&'static str),
    #[error("a CopyData message of unknown kind 0x{0:02x}")]
    Unknown(u8),
}

/// What lies at the front of the buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// That many bytes of whole CopyData messages. They must be taken off the buffer before the next call.
    Data(usize),
    /// A whole message of another type and its length in bytes, header included. To be taken off likewise.
    Other { tag: u8, bytes: usize },
    /// No whole message; with what is there, the one at the front would be this long. 0 when even that is
    /// not known.
    More { message_bytes: usize },
}

/// Walks over messages. See the module.
#[derive(Debug, Default)]
pub(crate) struct Splitter {
    /// Bytes at the front of the buffer that are whole CopyData messages.
    scanned: usize,
    /// Between StreamStart and StreamStop messages of the plugin carry a transaction id first.
    in_stream: bool,
    relations: Vec<u32>,
    /// Of those, the ones that were described by what has committed.
    committed_relations: Vec<u32>,
    /// The transaction that is being sent before it commits, in a stream block or to be prepared.
    early: Option<u32>,
    /// By such a transaction, the tables that were described in it, with the types of their columns.
    described: HashMap<u32, Vec<(u32, Vec<u32>)>>,
    column_types: Vec<(u32, u32)>,
    reply_requested: bool,
    /// The last commit or prepare record that was told of (its start).
    committed: u64,
}

impl Splitter {
    /// Looks at `buffer`, which begins at a border and ends anywhere. Must get the same bytes again, and more
    /// behind them, until it has answered with [`Step::Data`] or [`Step::Other`].
    pub(crate) fn step(&mut self, buffer: &[u8]) -> Result<Step, FrameError> {
        loop {
            let rest = buffer.get(self.scanned..).unwrap_or_default();
            let whole = match Message::at_front(rest)? {
                Front::Whole(message) if message.tag == b'd' => {
                    self.look_into(message.body)?;
                    self.scanned += message.bytes;
                    continue;
                }
                front => front,
            };
            if self.scanned > 0 {
                return Ok(Step::Data(std::mem::take(&mut self.scanned)));
            }
            return Ok(match whole {
                Front::Whole(message) => Step::Other { tag: message.tag, bytes: message.bytes },
                Front::Part { message_bytes } => Step::More { message_bytes },
            });
        }
    }

    /// The tables whose Relation messages were walked over since the last call, each once. Those of a transaction that is
    /// sent before it commits are among them again when it has committed: before, nobody else sees what it did to them.
    pub(crate) fn take_relations(&mut self) -> Vec<u32> {
        let mut relations = std::mem::take(&mut self.relations);
        relations.sort_unstable();
        relations.dedup();
        relations
    }

    /// Of what [`Splitter::take_relations`] gave, the tables that were described by a transaction that has committed.
    pub(crate) fn take_committed_relations(&mut self) -> Vec<u32> {
        std::mem::take(&mut self.committed_relations)
    }

    /// The types of columns in Relation messages that were walked over since the last call, each with its table. A message
    /// that cannot be read has none: whoever decodes the stream will say so.
    pub(crate) fn take_column_types(&mut self) -> Vec<(u32, u32)> {
        std::mem::take(&mut self.column_types)
    }

    /// Whether a keepalive that wants an answer was walked over since the last call.
    pub(crate) fn take_reply_requested(&mut self) -> bool {
        std::mem::take(&mut self.reply_requested)
    }

    /// The greatest LSN of a commit or prepare record (its start) that was walked over so far; 0 before the first.
    pub(crate) fn committed(&self) -> u64 {
        self.committed
    }

    fn see_commit(&mut self, message: &[u8], at: usize) {
        // One that is too short is the decoder's to refuse.
        if let Some(lsn) = message.get(at..).and_then(|rest| rest.first_chunk::<8>()) {
            self.committed = self.committed.max(u64::from_be_bytes(*lsn));
        }
    }

    /// The transaction whose id is at that place ends.
    fn see_end(&mut self, message: &[u8], at: usize, commits: bool) {
        let described = number(message, at).and_then(|xid| self.described.remove(&xid));
        if let Some(described) = described.filter(|_| commits) {
            for (oid, types) in described {
                self.relations.push(oid);
                self.committed_relations.push(oid);
                self.column_types.extend(types.into_iter().map(|type_oid| (oid, type_oid)));
            }
        }
    }

    fn look_into(&mut self, body: &[u8]) -> Result<(), FrameError> {
        let kind = *body.first().ok_or(FrameError::Truncated("kind"))?;
        match kind {
            b'w' => {
                let message =
                    body.get(XLOG_DATA_HEADER_BYTES..).ok_or(FrameError::Truncated("header of XLogData"))?;
                match message.first() {
                    Some(b'R') => {
                        let at = if self.in_stream { 5 } else { 1 };
                        let oid = message.get(at..).and_then(|rest| rest.first_chunk::<4>());
                        let oid = oid.ok_or(FrameError::Truncated("oid of a Relation message"))?;
                        let oid = u32::from_be_bytes(*oid);
                        self.relations.push(oid);
                        let mut decoder =
                            if self.in_stream { Decoder::within_stream() } else { Decoder::default() };
                        let mut types = Vec::new();
                        if let Ok(pgoutput::Message::Relation(relation)) = decoder.decode(message) {
                            types.extend(relation.columns.iter().map(|column| column.type_oid));
                        }
                        self.column_types.extend(types.iter().map(|type_oid| (oid, *type_oid)));
                        match self.early {
                            Some(xid) => self.described.entry(xid).or_default().push((oid, types)),
                            None => self.committed_relations.push(oid),
                        }
                    }
                    Some(b'S') => {
                        self.in_stream = true;
                        self.early = number(message, 1);
                    }
                    Some(b'E') => {
                        self.in_stream = false;
                        self.early = None;
                    }
                    // Flags, then the record's start; a streamed transaction's commit has its id first.
                    Some(b'C' | b'p') => self.see_commit(message, 2),
                    Some(b'c') => {
                        self.see_commit(message, 6);
                        self.see_end(message, 1, true);
                    }
                    Some(b'A') if message.get(1..5) == message.get(5..9) => self.see_end(message, 1, false),
                    // LSN, end and time are in front of the id, behind the flags if there are any.
                    Some(b'b') => self.early = number(message, 25),
                    Some(b'P') => {
                        self.see_commit(message, 2);
                        self.early = None;
                    }
                    Some(b'K') => {
                        self.see_commit(message, 2);
                        self.see_end(message, 26, true);
                    }
                    Some(b'r') => self.see_end(message, 34, false),
                    _ => {}
                }
            }
            b'k' => {
                let flag = *body.get(KEEPALIVE_FLAG_AT).ok_or(FrameError::Truncated("keepalive"))?;
                self.reply_requested |= flag != 0;
            }
            other => return Err(FrameError::Unknown(other)),
        }
        Ok(())
    }
}

/// One that is too short is the decoder's to refuse.
fn number(message: &[u8], at: usize) -> Option<u32> {
    message.get(at..).and_then(|rest| rest.first_chunk::<4>()).map(|number| u32::from_be_bytes(*number))
}

struct Message<'a> {
    tag: u8,
    body: &'a [u8],
    /// With the header.
    bytes: usize,
}

enum Front<'a> {
    Whole(Message<'a>),
    Part { message_bytes: usize },
}

impl<'a> Message<'a> {
    #[inline]
    fn at_front(bytes: &'a [u8]) -> Result<Front<'a>, FrameError> {
        let Some((&[tag, a, b, c, d], rest)) = bytes.split_first_chunk::<HEADER_BYTES>() else {
            return Ok(Front::Part { message_bytes: 0 });
        };
        // The length counts itself but not the type.
        let length = u32::from_be_bytes([a, b, c, d]);
        let body_bytes = (length as usize).checked_sub(4).filter(|&n| n <= MESSAGE_BYTES_MAX);
        let body_bytes = body_bytes.ok_or(FrameError::Length(length))?;
        let bytes = HEADER_BYTES + body_bytes;
        Ok(match rest.get(..body_bytes) {
            Some(body) => Front::Whole(Self { tag, body, bytes }),
            None => Front::Part { message_bytes: bytes },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn message(tag: u8, body: &[u8]) -> Vec<u8> {
        let mut bytes = vec![tag];
        bytes.extend_from_slice(&(body.len() as u32 + 4).to_be_bytes());
        bytes.extend_from_slice(body);
        bytes
    }

    fn data(plugin: &[u8]) -> Vec<u8> {
        let mut body = vec![b'w'];
        body.extend_from_slice(&[0; 24]);
        body.extend_from_slice(plugin);
        message(b'd', &body)
    }

    fn keepalive(reply: u8) -> Vec<u8> {
        let mut body = vec![b'k'];
        body.extend_from_slice(&[0; 16]);
        body.push(reply);
        message(b'd', &body)
    }

    fn relation(oid: u32) -> Vec<u8> {
        data(&[b"R".as_slice(), &oid.to_be_bytes(), b"public\0t\0d\0\0"].concat())
    }

    /// Everything that comes out of a stream given in pieces of these sizes.
    #[derive(Debug, Default, PartialEq, Eq)]
    struct Seen {
        data: Vec<u8>,
        others: Vec<(usize, Vec<u8>)>,
        relations: Vec<u32>,
        replies: usize,
    }

    fn run(stream: &[u8], cuts: &[usize]) -> Seen {
        let mut splitter = Splitter::default();
        let mut buffer = Vec::new();
        let mut seen = Seen::default();
        let mut rest = stream;
        let mut cuts = cuts.iter().copied().chain(std::iter::repeat(stream.len()));
        loop {
            let step = splitter.step(&buffer).unwrap();
            seen.replies += usize::from(splitter.take_reply_requested());
            match step {
                Step::Data(bytes) => {
                    seen.data.extend(buffer.drain(..bytes));
                    seen.relations.extend(splitter.take_relations());
                }
                Step::Other { bytes, .. } => {
                    let at = seen.data.len();
                    seen.others.push((at, buffer.drain(..bytes).collect()));
                }
                Step::More { message_bytes } => {
                    assert!(message_bytes == 0 || message_bytes > buffer.len());
                    if rest.is_empty() {
                        assert!(buffer.is_empty(), "a whole message was held back");
                        return seen;
                    }
                    let (piece, after) = rest.split_at(cuts.next().unwrap().clamp(1, rest.len()));
                    buffer.extend_from_slice(piece);
                    rest = after;
                }
            }
        }
    }

    fn any_message() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            4 => prop::collection::vec(any::<u8>(), 0..40).prop_map(|mut plugin| {
                plugin.insert(0, b'I');
                data(&plugin)
            }),
            1 => Just(keepalive(0)),
            1 => (1_u32..9).prop_map(relation),
            1 => prop::collection::vec(any::<u8>(), 0..9).prop_map(|body| message(b'N', &body)),
        ]
    }

    proptest! {
        #[test]
        fn however_the_input_is_cut_the_same_messages_come_out(
            messages in prop::collection::vec(any_message(), 0..30),
            cuts in prop::collection::vec(1_usize..60, 0..200),
        ) {
            let stream = messages.concat();
            let whole = run(&stream, &[]);
            let mut cut = run(&stream, &cuts);
            // A table is looked up once a chunk, and chunks differ.
            cut.relations.dedup();
            let mut once = whole.relations.clone();
            once.sort_unstable();
            once.dedup();
            prop_assert!(once.iter().all(|oid| cut.relations.contains(oid)));
            prop_assert_eq!(&cut.data, &whole.data);
            prop_assert_eq!(&cut.others, &whole.others);
            let sent: Vec<u8> = messages.iter().filter(|m| m[0] == b'd').flatten().copied().collect();
            prop_assert_eq!(whole.data, sent);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            let mut splitter = Splitter::default();
            let mut buffer = bytes.as_slice();
            while let Ok(Step::Data(taken) | Step::Other { bytes: taken, .. }) = splitter.step(buffer) {
                prop_assert!(taken > 0);
                buffer = &buffer[taken..];
            }
        }
    }

    #[test]
    fn a_keepalive_that_wants_an_answer_is_told_once() {
        let stream = [keepalive(0), data(b"B"), keepalive(1), data(b"C"), keepalive(0)].concat();
        for size in [1, 7, 1000] {
            assert_eq!(run(&stream, &vec![size; 1000]).replies, 1, "reads of {size}");
        }
    }

    #[test]
    fn the_last_commit_or_prepare_record_is_told_by_its_beginning() {
        let commit = |tag: &[u8], lsn: u64| data(&[tag, &lsn.to_be_bytes(), &[0; 16]].concat());
        let mut splitter = Splitter::default();
        for (message, committed) in [
            (commit(b"C\0", 100), 100),
            (commit(b"c\0\0\0\x07\0", 300), 300),
            (commit(b"P\0", 200), 300),
            (commit(b"K\0", 400), 400),
            (commit(b"p\0", 500), 500),
            (commit(b"I\0", 600), 500),
            (data(b"C\0"), 500),
        ] {
            assert!(matches!(splitter.step(&message), Ok(Step::Data(_))));
            assert_eq!(splitter.committed(), committed);
        }
    }

    #[test]
    fn a_relation_message_is_found_inside_a_streamed_transaction_too() {
        let streamed = data(&[b"R".as_slice(), &77_u32.to_be_bytes(), &8_u32.to_be_bytes(), b"x\0"].concat());
        let stream = [relation(5), data(b"S\0\0\0\x4d\x01"), streamed, data(b"E"), relation(6)].concat();
        assert_eq!(run(&stream, &[]).relations, [5, 6, 8]);
    }

    /// What is told of a table that transaction 7 describes before it ends as in the message.
    fn told_at_end(early: &[Vec<u8>], end: &[u8]) -> Vec<u32> {
        let mut splitter = Splitter::default();
        for message in early {
            assert!(matches!(splitter.step(message), Ok(Step::Data(_))));
        }
        assert_eq!(splitter.take_relations(), [8]);
        assert!(matches!(splitter.step(&data(end)), Ok(Step::Data(_))));
        splitter.take_relations()
    }

    #[test]
    fn a_table_described_before_its_transaction_commits_is_looked_up_again_when_it_has() {
        let xid = 7_u32.to_be_bytes();
        let with = |tag: &[u8], numbers: usize| [tag, &vec![0; 8 * numbers], &xid].concat();
        let inside = data(&[b"R".as_slice(), &xid, &8_u32.to_be_bytes(), b"x\0"].concat());
        let streamed =
            [data(&[b"S".as_slice(), &xid, b"\x01"].concat()), inside, data(b"E"), data(b"I")].to_vec();
        let prepared = [data(&with(b"b", 3)), relation(8), data(&with(b"P\0", 3))].to_vec();
        let stream_end = |tag: &[u8], subxid: u32| {
            let rest: &[u8] = if tag == b"A" { &subxid.to_be_bytes() } else { &[0; 25] };
            [tag, &xid, rest].concat()
        };
        assert_eq!(told_at_end(&streamed, &stream_end(b"c", 7)), [8]);
        assert!(told_at_end(&streamed, &stream_end(b"A", 7)).is_empty());
        let both = [streamed.clone(), [data(&stream_end(b"A", 9))].to_vec()].concat();
        assert_eq!(told_at_end(&both, &stream_end(b"c", 7)), [8], "only a subtransaction was rolled back");
        let both = [streamed.clone(), [data(&with(b"p\0", 3))].to_vec()].concat();
        assert_eq!(told_at_end(&both, &with(b"K\0", 3)), [8]);
        assert_eq!(told_at_end(&prepared, &with(b"K\0", 3)), [8]);
        assert!(told_at_end(&prepared, &with(b"r\0", 4)).is_empty());
        let behind = [prepared, [relation(8)].to_vec()].concat();
        assert!(told_at_end(&behind, &with(b"r\0", 4)).is_empty());
    }

    #[test]
    fn an_error_response_comes_after_the_data_before_it() {
        let error = message(b'E', b"SFATAL\0\0");
        let stream = [data(b"I1"), data(b"I2"), error.clone()].concat();
        let seen = run(&stream, &[]);
        assert_eq!(seen.others, [(seen.data.len(), error)]);
        assert_eq!(seen.data.len(), 2 * data(b"I1").len());
    }

    #[test]
    fn a_length_that_cannot_be_is_an_error() {
        let step = |bytes: &[u8]| Splitter::default().step(bytes);
        assert_eq!(step(b"d\0\0\0\x03"), Err(FrameError::Length(3)));
        assert_eq!(step(b"d\xff\xff\xff\xff"), Err(FrameError::Length(u32::MAX)));
        assert_eq!(step(b"d\0\0\0\x05z"), Err(FrameError::Unknown(b'z')));
        assert_eq!(step(b"d\0\0\0\x05k"), Err(FrameError::Truncated("keepalive")));
        assert_eq!(step(b"d\x40\0\0\0"), Ok(Step::More { message_bytes: (1 << 30) + 1 }));
    }
}
