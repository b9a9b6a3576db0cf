//! Writes what a walsender would: CopyData messages with `pgoutput` inside.

use replicator_types::Lsn;

/// A stream under construction.
#[derive(Default, Clone)]
pub struct Wire {
    /// The CopyData messages so far.
    pub bytes: Vec<u8>,
    /// Within a stream block: the (sub)transaction that messages are of.
    xid: Option<u32>,
}

/// A column value: `None` is NULL, `Some("\0u")` an unchanged TOAST value.
pub type Text<'a> = Option<&'a str>;

/// Stands for an unchanged TOAST value.
pub const UNCHANGED: Text<'static> = Some("\0u");

fn tuple(out: &mut Vec<u8>, values: &[Text<'_>]) {
    out.extend_from_slice(&(values.len() as u16).to_be_bytes());
    for value in values {
        match value {
            None => out.push(b'n'),
            Some("\0u") => out.push(b'u'),
            Some(text) => {
                out.push(b't');
                out.extend_from_slice(&(text.len() as u32).to_be_bytes());
                out.extend_from_slice(text.as_bytes());
            }
        }
    }
}

impl Wire {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    fn copy_data(mut self, body: &[u8]) -> Self {
        self.bytes.push(b'd');
        self.bytes.extend_from_slice(&(body.len() as u32 + 4).to_be_bytes());
        self.bytes.extend_from_slice(body);
        self
    }

    fn data(self, message: &[u8]) -> Self {
        let mut body = vec![b'w'];
        body.extend_from_slice(&[0; 24]);
        body.extend_from_slice(message);
        self.copy_data(&body)
    }

    /// A message that says within a stream block of which transaction it is.
    fn content(self, kind: u8, rest: &[u8]) -> Self {
        let mut message = vec![kind];
        message.extend(self.xid.into_iter().flat_map(u32::to_be_bytes));
        message.extend_from_slice(rest);
        self.data(&message)
    }

    /// A keepalive that asks for no answer.
    pub fn keepalive(self, wal_end: u64) -> Self {
        let mut body = vec![b'k'];
        body.extend_from_slice(&wal_end.to_be_bytes());
        body.extend_from_slice(&[0; 9]);
        self.copy_data(&body)
    }

    /// The begin of a transaction whose commit record starts at `commit_lsn`.
    pub fn begin(self, commit_lsn: u64) -> Self {
        self.begin_of(7, commit_lsn)
    }

    /// `Begin` of the transaction with that id.
    #[must_use]
    pub fn begin_of(self, xid: u32, commit_lsn: u64) -> Self {
        let mut message = vec![b'B'];
        message.extend_from_slice(&commit_lsn.to_be_bytes());
        message.extend_from_slice(&[0; 8]);
        message.extend_from_slice(&xid.to_be_bytes());
        self.data(&message)
    }

    /// A commit whose record is eight bytes long.
    pub fn commit(self, commit_lsn: u64) -> Self {
        let mut message = vec![b'C', 0];
        message.extend_from_slice(&commit_lsn.to_be_bytes());
        message.extend_from_slice(&(commit_lsn + 8).to_be_bytes());
        message.extend_from_slice(&[0; 8]);
        self.data(&message)
    }

    /// `identity` is the letter of `relreplident`; columns are (name, type oid, in the identity).
    pub fn relation(self, oid: u32, name: &str, identity: u8, columns: &[(&str, u32, bool)]) -> Self {
        let mut message = Vec::new();
        message.extend_from_slice(&oid.to_be_bytes());
        message.extend_from_slice(b"public\0");
        message.extend_from_slice(name.as_bytes());
        message.extend_from_slice(&[0, identity]);
        message.extend_from_slice(&(columns.len() as u16).to_be_bytes());
        for (name, type_oid, in_identity) in columns {
            message.push(u8::from(*in_identity));
            message.extend_from_slice(name.as_bytes());
            message.push(0);
            message.extend_from_slice(&type_oid.to_be_bytes());
            message.extend_from_slice(&(-1_i32).to_be_bytes());
        }
        self.content(b'R', &message)
    }

    /// A new row.
    pub fn insert(self, oid: u32, new: &[Text<'_>]) -> Self {
        let mut message = Vec::new();
        message.extend_from_slice(&oid.to_be_bytes());
        message.push(b'N');
        tuple(&mut message, new);
        self.content(b'I', &message)
    }

    /// `old` with its mark: `K` or `O`.
    pub fn update(self, oid: u32, old: Option<(u8, &[Text<'_>])>, new: &[Text<'_>]) -> Self {
        let mut message = Vec::new();
        message.extend_from_slice(&oid.to_be_bytes());
        if let Some((mark, old)) = old {
            message.push(mark);
            tuple(&mut message, old);
        }
        message.push(b'N');
        tuple(&mut message, new);
        self.content(b'U', &message)
    }

    /// `old` with its mark: `K` or `O`.
    pub fn delete(self, oid: u32, mark: u8, old: &[Text<'_>]) -> Self {
        let mut message = Vec::new();
        message.extend_from_slice(&oid.to_be_bytes());
        message.push(mark);
        tuple(&mut message, old);
        self.content(b'D', &message)
    }

    /// A truncate without options.
    pub fn truncate(self, oids: &[u32]) -> Self {
        let mut message = Vec::new();
        message.extend_from_slice(&(oids.len() as u32).to_be_bytes());
        message.push(0);
        oids.iter().for_each(|oid| message.extend_from_slice(&oid.to_be_bytes()));
        self.content(b'T', &message)
    }

    /// A transactional logical message with the prefix `prefix`.
    pub fn logical(self, content: &str) -> Self {
        self.message(1, 0, "prefix", content)
    }

    /// A logical message that stands alone; its record ends at `end_lsn`.
    pub fn logical_alone(self, end_lsn: u64, prefix: &str, content: &str) -> Self {
        self.message(0, end_lsn, prefix, content)
    }

    /// A transactional logical message.
    pub fn logical_with_prefix(self, prefix: &str, content: &str) -> Self {
        self.message(1, 0, prefix, content)
    }

    fn message(self, flags: u8, lsn: u64, prefix: &str, content: &str) -> Self {
        let mut message = vec![flags];
        message.extend_from_slice(&lsn.to_be_bytes());
        message.extend_from_slice(prefix.as_bytes());
        message.push(0);
        message.extend_from_slice(&(content.len() as u32).to_be_bytes());
        message.extend_from_slice(content.as_bytes());
        self.content(b'M', &message)
    }

    /// A stream block of `xid`.
    pub fn block(mut self, xid: u32, first: bool, messages: impl FnOnce(Self) -> Self) -> Self {
        let start = [&b"S"[..], &xid.to_be_bytes(), &[u8::from(first)]].concat();
        self = self.data(&start);
        self.xid = Some(xid);
        self = messages(self);
        self.xid = None;
        self.data(b"E")
    }

    /// What follows in the stream block is of the subtransaction `xid`.
    pub fn within(mut self, xid: u32) -> Self {
        self.xid = Some(xid);
        self
    }

    /// A commit whose record is eight bytes long.
    pub fn stream_commit(self, xid: u32, commit_lsn: u64) -> Self {
        self.ends(b'c', &[commit_lsn, commit_lsn + 8], 1, xid, None, true)
    }

    /// As it is without `streaming 'parallel'`.
    pub fn stream_abort(self, xid: u32, subxid: u32) -> Self {
        self.data(&[&b"A"[..], &xid.to_be_bytes(), &subxid.to_be_bytes()].concat())
    }

    /// The begin of a prepared transaction; its record is eight bytes long.
    pub fn begin_prepare(self, xid: u32, gid: &str, prepare_lsn: u64) -> Self {
        let mut message = vec![b'b'];
        message.extend([prepare_lsn, prepare_lsn + 8, 0].into_iter().flat_map(u64::to_be_bytes));
        message.extend_from_slice(&xid.to_be_bytes());
        message.extend_from_slice(&[gid.as_bytes(), b"\0"].concat());
        self.data(&message)
    }

    /// The end of what [`Wire::begin_prepare`] began.
    pub fn prepare(self, xid: u32, gid: &str, prepare_lsn: u64) -> Self {
        self.ends(b'P', &[prepare_lsn, prepare_lsn + 8], 1, xid, Some(gid), false)
    }

    /// A streamed transaction is prepared.
    pub fn stream_prepare(self, xid: u32, gid: &str, prepare_lsn: u64) -> Self {
        self.ends(b'p', &[prepare_lsn, prepare_lsn + 8], 1, xid, Some(gid), false)
    }

    /// A prepared transaction commits.
    pub fn commit_prepared(self, xid: u32, gid: &str, commit_lsn: u64) -> Self {
        self.ends(b'K', &[commit_lsn, commit_lsn + 8], 1, xid, Some(gid), false)
    }

    /// A prepared transaction is rolled back.
    pub fn rollback_prepared(self, xid: u32, gid: &str, prepare_lsn: u64, lsn: u64) -> Self {
        self.ends(b'r', &[prepare_lsn + 8, lsn + 8], 2, xid, Some(gid), false)
    }

    /// Flags, LSNs, times, transaction id (in front of all where `xid_first`), gid.
    fn ends(
        self,
        kind: u8,
        lsns: &[u64],
        times: usize,
        xid: u32,
        gid: Option<&str>,
        xid_first: bool,
    ) -> Self {
        let mut message = vec![kind];
        if xid_first {
            message.extend_from_slice(&xid.to_be_bytes());
        }
        message.push(0);
        message.extend(lsns.iter().flat_map(|lsn| lsn.to_be_bytes()));
        message.extend(vec![0; 8 * times]);
        if !xid_first {
            message.extend_from_slice(&xid.to_be_bytes());
        }
        if let Some(gid) = gid {
            message.extend_from_slice(&[gid.as_bytes(), b"\0"].concat());
        }
        self.data(&message)
    }
}

/// An LSN.
pub fn lsn(n: u64) -> Lsn {
    Lsn(n)
}
