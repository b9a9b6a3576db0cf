//! The writing side: messages and frames as a server sends them. What `src/backend/replication/logical/proto.c`
//! does, as far as the reading side can be held against it.

use pgoutput::{Message, Old};
use replicator_types::{ReplicaIdentity, Value};

/// Bytes of a message in the making.
#[derive(Default)]
pub(crate) struct Wire(pub(crate) Vec<u8>);

impl Wire {
    pub(crate) fn new(kind: u8) -> Self {
        Self(vec![kind])
    }

    pub(crate) fn u8(mut self, n: u8) -> Self {
        self.0.push(n);
        self
    }

    pub(crate) fn u16(self, n: u16) -> Self {
        self.bytes(&n.to_be_bytes())
    }

    pub(crate) fn u32(self, n: u32) -> Self {
        self.bytes(&n.to_be_bytes())
    }

    pub(crate) fn i32(self, n: i32) -> Self {
        self.bytes(&n.to_be_bytes())
    }

    pub(crate) fn u64(self, n: u64) -> Self {
        self.bytes(&n.to_be_bytes())
    }

    pub(crate) fn i64(self, n: i64) -> Self {
        self.bytes(&n.to_be_bytes())
    }

    pub(crate) fn text(self, text: &str) -> Self {
        self.bytes(text.as_bytes()).u8(0)
    }

    pub(crate) fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    fn xid(self, xid: Option<u32>) -> Self {
        match xid {
            Some(xid) => self.u32(xid),
            None => self,
        }
    }

    fn schema(self, schema: &str) -> Self {
        self.text(if schema == "pg_catalog" { "" } else { schema })
    }

    fn old(self, old: Old<'_>) -> Self {
        match old {
            Old::Key(tuple) => self.u8(b'K').bytes(tuple.as_bytes()),
            Old::Full(tuple) => self.u8(b'O').bytes(tuple.as_bytes()),
        }
    }
}

/// The bytes of a row.
pub(crate) fn encode_tuple(values: &[Value<'_>]) -> Vec<u8> {
    let count = u16::try_from(values.len()).unwrap();
    let value = |wire: Wire, value: &Value<'_>| match *value {
        Value::Null => wire.u8(b'n'),
        Value::Unchanged => wire.u8(b'u'),
        Value::Text(bytes) => wire.u8(b't').i32(bytes.len().try_into().unwrap()).bytes(bytes),
        Value::Binary(bytes) => wire.u8(b'b').i32(bytes.len().try_into().unwrap()).bytes(bytes),
    };
    values.iter().fold(Wire::default().u16(count), value).0
}

/// The bytes of a message.
pub(crate) fn encode(message: &Message<'_>) -> Vec<u8> {
    match message {
        Message::Begin(m) => Wire::new(b'B').u64(m.final_lsn.0).i64(m.commit_time_us).u32(m.xid),
        Message::Commit(m) => {
            Wire::new(b'C').u8(0).u64(m.commit_lsn.0).u64(m.end_lsn.0).i64(m.commit_time_us)
        }
        Message::Origin(m) => Wire::new(b'O').u64(m.commit_lsn.0).text(m.name),
        Message::Relation(m) => {
            let identity = match m.replica_identity {
                ReplicaIdentity::Default => b'd',
                ReplicaIdentity::Nothing => b'n',
                ReplicaIdentity::Full => b'f',
                ReplicaIdentity::Index => b'i',
            };
            let wire = Wire::new(b'R').xid(m.xid).u32(m.oid).schema(m.schema).text(m.name).u8(identity);
            m.columns.iter().fold(wire.u16(m.columns.len().try_into().unwrap()), |wire, column| {
                wire.u8(column.in_identity.into())
                    .text(column.name)
                    .u32(column.type_oid)
                    .i32(column.type_modifier)
            })
        }
        Message::Type(m) => Wire::new(b'Y').xid(m.xid).u32(m.oid).schema(m.schema).text(m.name),
        Message::Insert(m) => Wire::new(b'I').xid(m.xid).u32(m.relation_oid).u8(b'N').bytes(m.new.as_bytes()),
        Message::Update(m) => {
            let wire = Wire::new(b'U').xid(m.xid).u32(m.relation_oid);
            let wire = if let Some(old) = m.old { wire.old(old) } else { wire };
            wire.u8(b'N').bytes(m.new.as_bytes())
        }
        Message::Delete(m) => Wire::new(b'D').xid(m.xid).u32(m.relation_oid).old(m.old),
        Message::Truncate(m) => {
            let flags = u8::from(m.cascade) | u8::from(m.restart_identity) << 1;
            let count = u32::try_from(m.relation_oids.len()).unwrap();
            m.relation_oids
                .iter()
                .fold(Wire::new(b'T').xid(m.xid).u32(count).u8(flags), |wire, &oid| wire.u32(oid))
        }
        Message::Logical(m) => Wire::new(b'M')
            .xid(m.xid)
            .u8(m.transactional.into())
            .u64(m.lsn.0)
            .text(m.prefix)
            .u32(m.content.len().try_into().unwrap())
            .bytes(m.content),
        Message::StreamStart(m) => Wire::new(b'S').u32(m.xid).u8(m.first_segment.into()),
        Message::StreamStop => Wire::new(b'E'),
        Message::StreamCommit(m) => {
            Wire::new(b'c').u32(m.xid).u8(0).u64(m.commit_lsn.0).u64(m.end_lsn.0).i64(m.commit_time_us)
        }
        Message::StreamAbort(m) => {
            let wire = Wire::new(b'A').u32(m.xid).u32(m.subxid);
            match m.abort {
                Some((lsn, time_us)) => wire.u64(lsn.0).i64(time_us),
                None => wire,
            }
        }
        Message::BeginPrepare(m) => Wire::new(b'b')
            .u64(m.prepare_lsn.0)
            .u64(m.end_lsn.0)
            .i64(m.prepare_time_us)
            .u32(m.xid)
            .text(m.gid),
        Message::Prepare(m) | Message::StreamPrepare(m) => {
            let kind = if matches!(message, Message::Prepare(_)) { b'P' } else { b'p' };
            Wire::new(kind)
                .u8(0)
                .u64(m.prepare_lsn.0)
                .u64(m.end_lsn.0)
                .i64(m.prepare_time_us)
                .u32(m.xid)
                .text(m.gid)
        }
        Message::CommitPrepared(m) => Wire::new(b'K')
            .u8(0)
            .u64(m.commit_lsn.0)
            .u64(m.end_lsn.0)
            .i64(m.commit_time_us)
            .u32(m.xid)
            .text(m.gid),
        Message::RollbackPrepared(m) => Wire::new(b'r')
            .u8(0)
            .u64(m.prepare_end_lsn.0)
            .u64(m.rollback_end_lsn.0)
            .i64(m.prepare_time_us)
            .i64(m.rollback_time_us)
            .u32(m.xid)
            .text(m.gid),
    }
    .0
}

/// A CopyData message around a body.
pub(crate) fn copy_data(body: &[u8]) -> Vec<u8> {
    Wire::new(b'd').i32(i32::try_from(body.len()).unwrap() + 4).bytes(body).0
}
