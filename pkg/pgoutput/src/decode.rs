use crate::message::*;
use crate::reader::Reader;
use replicator_types::{ReplicaIdentity, TupleError};

/// The bytes are not a `pgoutput` message. Names the message and the part.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Nothing at all.
    #[error("empty pgoutput message")]
    Empty,
    /// First byte of no message known up to protocol version 4.
    #[error("unknown pgoutput message 0x{0:02x}")]
    UnknownMessage(u8),
    /// The bytes end inside the named part.
    #[error("pgoutput {message} ends inside the {part}")]
    Truncated {
        /// Name of the message.
        message: &'static str,
        /// What was being read.
        part: &'static str,
    },
    /// More bytes than the message has.
    #[error("pgoutput {message} is followed by {bytes} bytes that do not belong to it")]
    Trailing {
        /// Name of the message.
        message: &'static str,
        /// How many.
        bytes: usize,
    },
    /// A name that is not UTF-8, though the connection's encoding is.
    #[error("pgoutput {message}: the {part} is not UTF-8")]
    NotUtf8 {
        /// Name of the message.
        message: &'static str,
        /// Which name.
        part: &'static str,
    },
    /// A wrong row.
    #[error("pgoutput {message}, {part}: {error}")]
    Tuple {
        /// Name of the message.
        message: &'static str,
        /// Which row.
        part: &'static str,
        /// What is wrong with it.
        error: TupleError,
    },
    /// A byte that has no meaning there.
    #[error("pgoutput {message}: 0x{byte:02x} is no {part}")]
    UnknownByte {
        /// Name of the message.
        message: &'static str,
        /// What it should have told.
        part: &'static str,
        /// The byte.
        byte: u8,
    },
    /// Stream blocks do not nest, stop only after a start, and have no ends of transactions in them.
    #[error("pgoutput {0} at a place where it cannot be")]
    OutOfPlace(&'static str),
}

/// Reads messages. It has to see all messages of a connection in order: between Stream Start and Stream
/// Stop every change begins with a transaction id that is not there otherwise.
#[derive(Clone, Debug, Default)]
pub struct Decoder {
    parallel_streaming: bool,
    in_stream: bool,
}

impl Decoder {
    /// A decoder for the start of a connection. `parallel_streaming` is whether `streaming 'parallel'` was
    /// asked for: Stream Abort is longer then.
    pub fn new(parallel_streaming: bool) -> Self {
        Self { parallel_streaming, in_stream: false }
    }

    /// A decoder for messages that were kept from within a stream block, without the Stream Start around them.
    pub fn within_stream() -> Self {
        Self { parallel_streaming: false, in_stream: true }
    }

    /// Reads one message, all of `bytes`.
    pub fn decode<'a>(&mut self, bytes: &'a [u8]) -> Result<Message<'a>, DecodeError> {
        let (&kind, body) = bytes.split_first().ok_or(DecodeError::Empty)?;
        let read = |name: &'static str| Reader::new(name, body);
        match kind {
            b'I' => self.insert(read("Insert")),
            b'U' => self.update(read("Update")),
            b'D' => self.delete(read("Delete")),
            b'B' => begin(self.outside(read("Begin"))?),
            b'C' => commit(self.outside(read("Commit"))?),
            b'O' => origin(read("Origin")),
            b'R' => self.relation(read("Relation")),
            b'Y' => self.type_name(read("Type")),
            b'T' => self.truncate(read("Truncate")),
            b'M' => self.logical(read("Message")),
            b'S' => self.stream_start(read("Stream Start")),
            b'E' => self.stream_stop(read("Stream Stop")),
            b'c' => stream_commit(self.outside(read("Stream Commit"))?),
            b'A' => self.stream_abort(self.outside(read("Stream Abort"))?),
            b'b' => begin_prepare(self.outside(read("Begin Prepare"))?),
            b'P' => prepare(self.outside(read("Prepare"))?).map(Message::Prepare),
            b'K' => commit_prepared(self.outside(read("Commit Prepared"))?),
            b'r' => rollback_prepared(self.outside(read("Rollback Prepared"))?),
            b'p' => prepare(self.outside(read("Stream Prepare"))?).map(Message::StreamPrepare),
            other => Err(DecodeError::UnknownMessage(other)),
        }
    }

    fn outside<'a>(&self, r: Reader<'a>) -> Result<Reader<'a>, DecodeError> {
        if self.in_stream { Err(DecodeError::OutOfPlace(r.message())) } else { Ok(r) }
    }

    fn xid(&self, r: &mut Reader<'_>) -> Result<Option<u32>, DecodeError> {
        if self.in_stream { r.u32("transaction id").map(Some) } else { Ok(None) }
    }

    fn insert<'a>(&self, mut r: Reader<'a>) -> Result<Message<'a>, DecodeError> {
        let xid = self.xid(&mut r)?;
        let relation_oid = r.u32("relation oid")?;
        let new = new_tuple("Insert", &mut r)?;
        r.end()?;
        Ok(Message::Insert(Insert { xid, relation_oid, new }))
    }

    fn update<'a>(&self, mut r: Reader<'a>) -> Result<Message<'a>, DecodeError> {
        let xid = self.xid(&mut r)?;
        let relation_oid = r.u32("relation oid")?;
        let old = match r.rest().first() {
            Some(b'K' | b'O') => Some(old_tuple("Update", &mut r)?),
            _ => None,
        };
        let new = new_tuple("Update", &mut r)?;
        r.end()?;
        Ok(Message::Update(Update { xid, relation_oid, old, new }))
    }

    fn delete<'a>(&self, mut r: Reader<'a>) -> Result<Message<'a>, DecodeError> {
        let xid = self.xid(&mut r)?;
        let relation_oid = r.u32("relation oid")?;
        let old = old_tuple("Delete", &mut r)?;
        r.end()?;
        Ok(Message::Delete(Delete { xid, relation_oid, old }))
    }

    fn relation<'a>(&self, mut r: Reader<'a>) -> Result<Message<'a>, DecodeError> {
        let xid = self.xid(&mut r)?;
        let oid = r.u32("oid")?;
        let schema = match r.text("schema name")? {
            "" => "pg_catalog",
            schema => schema,
        };
        let name = r.text("table name")?;
        let replica_identity = match r.u8("replica identity")? {
            b'd' => ReplicaIdentity::Default,
            b'n' => ReplicaIdentity::Nothing,
            b'f' => ReplicaIdentity::Full,
            b'i' => ReplicaIdentity::Index,
            byte => {
                return Err(DecodeError::UnknownByte { message: "Relation", part: "replica identity", byte });
            }
        };
        let count = r.u16("column count")?;
        // A column takes ten bytes at least, so a count that lies reserves no more than was received.
        let mut columns = Vec::with_capacity(usize::from(count).min(r.rest().len() / 10 + 1));
        for _ in 0..count {
            columns.push(ColumnMessage {
                in_identity: r.u8("column flags")? & 1 != 0,
                name: r.text("column name")?,
                type_oid: r.u32("column type")?,
                type_modifier: r.i32("column type modifier")?,
            });
        }
        r.end()?;
        Ok(Message::Relation(RelationMessage { xid, oid, schema, name, replica_identity, columns }))
    }

    fn type_name<'a>(&self, mut r: Reader<'a>) -> Result<Message<'a>, DecodeError> {
        let xid = self.xid(&mut r)?;
        let oid = r.u32("oid")?;
        let schema = match r.text("schema name")? {
            "" => "pg_catalog",
            schema => schema,
        };
        let name = r.text("type name")?;
        r.end()?;
        Ok(Message::Type(TypeMessage { xid, oid, schema, name }))
    }

    fn truncate<'a>(&self, mut r: Reader<'a>) -> Result<Message<'a>, DecodeError> {
        let xid = self.xid(&mut r)?;
        let count = r.u32("relation count")? as usize;
        let flags = r.u8("flags")?;
        let mut relation_oids = Vec::with_capacity(count.min(r.rest().len() / 4));
        for _ in 0..count {
            relation_oids.push(r.u32("relation oid")?);
        }
        r.end()?;
        Ok(Message::Truncate(Truncate {
            xid,
            cascade: flags & 1 != 0,
            restart_identity: flags & 2 != 0,
            relation_oids,
        }))
    }

    fn logical<'a>(&self, mut r: Reader<'a>) -> Result<Message<'a>, DecodeError> {
        let xid = self.xid(&mut r)?;
        let transactional = r.u8("flags")? & 1 != 0;
        let lsn = r.lsn("LSN")?;
        let prefix = r.text("prefix")?;
        let length = r.u32("content length")? as usize;
        let content = r.bytes(length, "content")?;
        r.end()?;
        Ok(Message::Logical(LogicalMessage { xid, transactional, lsn, prefix, content }))
    }

    fn stream_start<'a>(&mut self, mut r: Reader<'a>) -> Result<Message<'a>, DecodeError> {
        let start = StreamStart { xid: r.u32("transaction id")?, first_segment: r.u8("first segment")? == 1 };
        r.end()?;
        if std::mem::replace(&mut self.in_stream, true) {
            return Err(DecodeError::OutOfPlace("Stream Start"));
        }
        Ok(Message::StreamStart(start))
    }

    fn stream_stop<'a>(&mut self, r: Reader<'a>) -> Result<Message<'a>, DecodeError> {
        r.end()?;
        if !std::mem::replace(&mut self.in_stream, false) {
            return Err(DecodeError::OutOfPlace("Stream Stop"));
        }
        Ok(Message::StreamStop)
    }

    fn stream_abort<'a>(&self, mut r: Reader<'a>) -> Result<Message<'a>, DecodeError> {
        let xid = r.u32("transaction id")?;
        let subxid = r.u32("subtransaction id")?;
        let abort =
            if self.parallel_streaming { Some((r.lsn("abort LSN")?, r.i64("abort time")?)) } else { None };
        r.end()?;
        Ok(Message::StreamAbort(StreamAbort { xid, subxid, abort }))
    }
}

fn new_tuple<'a>(
    message: &'static str,
    r: &mut Reader<'a>,
) -> Result<replicator_types::Tuple<'a>, DecodeError> {
    match r.u8("new row's mark")? {
        b'N' => r.tuple("new row"),
        byte => Err(DecodeError::UnknownByte { message, part: "new row's mark", byte }),
    }
}

fn old_tuple<'a>(message: &'static str, r: &mut Reader<'a>) -> Result<Old<'a>, DecodeError> {
    match r.u8("old row's mark")? {
        b'K' => r.tuple("old key").map(Old::Key),
        b'O' => r.tuple("old row").map(Old::Full),
        byte => Err(DecodeError::UnknownByte { message, part: "old row's mark", byte }),
    }
}

fn begin(mut r: Reader<'_>) -> Result<Message<'_>, DecodeError> {
    let begin = Begin {
        final_lsn: r.lsn("final LSN")?,
        commit_time_us: r.i64("commit time")?,
        xid: r.u32("transaction id")?,
    };
    r.end()?;
    Ok(Message::Begin(begin))
}

fn commit(mut r: Reader<'_>) -> Result<Message<'_>, DecodeError> {
    r.u8("flags")?;
    let commit = Commit {
        commit_lsn: r.lsn("commit LSN")?,
        end_lsn: r.lsn("end LSN")?,
        commit_time_us: r.i64("commit time")?,
    };
    r.end()?;
    Ok(Message::Commit(commit))
}

fn origin(mut r: Reader<'_>) -> Result<Message<'_>, DecodeError> {
    let origin = Origin { commit_lsn: r.lsn("origin LSN")?, name: r.text("origin name")? };
    r.end()?;
    Ok(Message::Origin(origin))
}

fn stream_commit(mut r: Reader<'_>) -> Result<Message<'_>, DecodeError> {
    let xid = r.u32("transaction id")?;
    r.u8("flags")?;
    let commit = StreamCommit {
        xid,
        commit_lsn: r.lsn("commit LSN")?,
        end_lsn: r.lsn("end LSN")?,
        commit_time_us: r.i64("commit time")?,
    };
    r.end()?;
    Ok(Message::StreamCommit(commit))
}

fn begin_prepare(mut r: Reader<'_>) -> Result<Message<'_>, DecodeError> {
    let begin = BeginPrepare {
        prepare_lsn: r.lsn("prepare LSN")?,
        end_lsn: r.lsn("end LSN")?,
        prepare_time_us: r.i64("prepare time")?,
        xid: r.u32("transaction id")?,
        gid: r.text("gid")?,
    };
    r.end()?;
    Ok(Message::BeginPrepare(begin))
}

fn prepare(mut r: Reader<'_>) -> Result<Prepare<'_>, DecodeError> {
    r.u8("flags")?;
    let prepare = Prepare {
        prepare_lsn: r.lsn("prepare LSN")?,
        end_lsn: r.lsn("end LSN")?,
        prepare_time_us: r.i64("prepare time")?,
        xid: r.u32("transaction id")?,
        gid: r.text("gid")?,
    };
    r.end()?;
    Ok(prepare)
}

fn commit_prepared(mut r: Reader<'_>) -> Result<Message<'_>, DecodeError> {
    r.u8("flags")?;
    let commit = CommitPrepared {
        commit_lsn: r.lsn("commit LSN")?,
        end_lsn: r.lsn("end LSN")?,
        commit_time_us: r.i64("commit time")?,
        xid: r.u32("transaction id")?,
        gid: r.text("gid")?,
    };
    r.end()?;
    Ok(Message::CommitPrepared(commit))
}

fn rollback_prepared(mut r: Reader<'_>) -> Result<Message<'_>, DecodeError> {
    r.u8("flags")?;
    let rollback = RollbackPrepared {
        prepare_end_lsn: r.lsn("prepare end LSN")?,
        rollback_end_lsn: r.lsn("rollback end LSN")?,
        prepare_time_us: r.i64("prepare time")?,
        rollback_time_us: r.i64("rollback time")?,
        xid: r.u32("transaction id")?,
        gid: r.text("gid")?,
    };
    r.end()?;
    Ok(Message::RollbackPrepared(rollback))
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM_START: &[u8] = b"S\0\0\0\x07\x01";

    fn streaming() -> Decoder {
        let mut decoder = Decoder::default();
        decoder.decode(STREAM_START).unwrap();
        decoder
    }

    #[test]
    fn only_within_a_stream_block_do_changes_have_a_transaction_id() {
        let insert = b"I\0\0\0\x09N\0\0";
        let streamed = b"I\0\0\0\x07\0\0\0\x09N\0\0";
        let xid_and_oid = |decoded| match decoded {
            Ok(Message::Insert(insert)) => (insert.xid, insert.relation_oid),
            other => panic!("{other:?}"),
        };
        let mut decoder = Decoder::default();
        assert_eq!(xid_and_oid(decoder.decode(insert)), (None, 9));
        decoder.decode(STREAM_START).unwrap();
        assert_eq!(xid_and_oid(decoder.decode(streamed)), (Some(7), 9));
        decoder.decode(b"E").unwrap();
        assert_eq!(xid_and_oid(decoder.decode(insert)), (None, 9));
    }

    #[test]
    fn stream_blocks_do_not_nest_and_stop_only_after_a_start() {
        assert_eq!(Decoder::default().decode(b"E"), Err(DecodeError::OutOfPlace("Stream Stop")));
        assert_eq!(streaming().decode(STREAM_START), Err(DecodeError::OutOfPlace("Stream Start")));
    }

    #[test]
    fn no_transaction_begins_or_ends_within_a_stream_block() {
        for (kind, name) in [
            (b'B', "Begin"),
            (b'C', "Commit"),
            (b'c', "Stream Commit"),
            (b'A', "Stream Abort"),
            (b'b', "Begin Prepare"),
            (b'P', "Prepare"),
            (b'K', "Commit Prepared"),
            (b'r', "Rollback Prepared"),
            (b'p', "Stream Prepare"),
        ] {
            let bytes = [&[kind][..], &[0; 64]].concat();
            assert_eq!(streaming().decode(&bytes), Err(DecodeError::OutOfPlace(name)));
        }
    }

    #[test]
    fn a_message_that_fails_leaves_the_decoder_as_it_was() {
        let mut decoder = Decoder::default();
        assert!(decoder.decode(b"S\0\0\0\x07\x01extra").is_err());
        assert_eq!(decoder.decode(b"E"), Err(DecodeError::OutOfPlace("Stream Stop")));
        decoder.decode(STREAM_START).unwrap();
        assert!(decoder.decode(b"Eextra").is_err());
        assert_eq!(decoder.decode(b"E"), Ok(Message::StreamStop));
    }

    #[test]
    fn an_abort_is_longer_with_parallel_streaming() {
        let short = b"A\0\0\0\x01\0\0\0\x02";
        let long = [&short[..], &[0; 16]].concat();
        assert!(Decoder::new(false).decode(short).is_ok());
        assert!(Decoder::new(true).decode(&long).is_ok());
        assert!(matches!(Decoder::new(false).decode(&long), Err(DecodeError::Trailing { bytes: 16, .. })));
        assert!(matches!(
            Decoder::new(true).decode(short),
            Err(DecodeError::Truncated { part: "abort LSN", .. })
        ));
    }

    #[test]
    fn errors_name_the_message_and_the_part() {
        for (bytes, text) in [
            (&b""[..], "empty pgoutput message"),
            (b"?", "unknown pgoutput message 0x3f"),
            (b"B\0\0", "pgoutput Begin ends inside the final LSN"),
            (b"R\0\0\0\x01public\0item", "pgoutput Relation ends inside the table name"),
            (b"R\0\0\0\x01s\0t\0x", "pgoutput Relation: 0x78 is no replica identity"),
            (b"Y\0\0\0\x01\xff\0t\0", "pgoutput Type: the schema name is not UTF-8"),
            (b"I\0\0\0\x01O\0\0", "pgoutput Insert: 0x4f is no new row's mark"),
            (b"D\0\0\0\x01N\0\0", "pgoutput Delete: 0x4e is no old row's mark"),
            (b"I\0\0\0\x01N\0\x01?", "pgoutput Insert, new row: tuple column 0 has unknown kind 0x3f"),
            (b"I\0\0\0\x01N\0\0..", "pgoutput Insert is followed by 2 bytes that do not belong to it"),
        ] {
            assert_eq!(Decoder::default().decode(bytes).unwrap_err().to_string(), text);
        }
    }
}
