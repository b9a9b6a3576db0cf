//! Writes what a walsender would: CopyData messages with `pgoutput` inside.
#![allow(dead_code, reason = "each test file uses its part")]

use replicator_types::Lsn;

/// A stream under construction.
#[derive(Default, Clone)]
pub(crate) struct Wire {
    pub(crate) bytes: Vec<u8>,
}

/// A column value: `None` is NULL, `Some("\0u")` an unchanged TOAST value.
pub(crate) type Text = Option<&'static str>;

/// Stands for an unchanged TOAST value.
pub(crate) const UNCHANGED: Text = Some("\0u");

fn tuple(out: &mut Vec<u8>, values: &[Text]) {
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
    pub(crate) fn new() -> Self {
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

    pub(crate) fn keepalive(self, wal_end: u64) -> Self {
        let mut body = vec![b'k'];
        body.extend_from_slice(&wal_end.to_be_bytes());
        body.extend_from_slice(&[0; 9]);
        self.copy_data(&body)
    }

    pub(crate) fn begin(self, commit_lsn: u64) -> Self {
        let mut message = vec![b'B'];
        message.extend_from_slice(&commit_lsn.to_be_bytes());
        message.extend_from_slice(&[0; 8]);
        message.extend_from_slice(&7_u32.to_be_bytes());
        self.data(&message)
    }

    /// A commit whose record is eight bytes long.
    pub(crate) fn commit(self, commit_lsn: u64) -> Self {
        let mut message = vec![b'C', 0];
        message.extend_from_slice(&commit_lsn.to_be_bytes());
        message.extend_from_slice(&(commit_lsn + 8).to_be_bytes());
        message.extend_from_slice(&[0; 8]);
        self.data(&message)
    }

    /// `identity` is the letter of `relreplident`; columns are (name, type oid, in the identity).
    pub(crate) fn relation(self, oid: u32, name: &str, identity: u8, columns: &[(&str, u32, bool)]) -> Self {
        let mut message = vec![b'R'];
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
        self.data(&message)
    }

    pub(crate) fn insert(self, oid: u32, new: &[Text]) -> Self {
        let mut message = vec![b'I'];
        message.extend_from_slice(&oid.to_be_bytes());
        message.push(b'N');
        tuple(&mut message, new);
        self.data(&message)
    }

    /// `old` with its mark: `K` or `O`.
    pub(crate) fn update(self, oid: u32, old: Option<(u8, &[Text])>, new: &[Text]) -> Self {
        let mut message = vec![b'U'];
        message.extend_from_slice(&oid.to_be_bytes());
        if let Some((mark, old)) = old {
            message.push(mark);
            tuple(&mut message, old);
        }
        message.push(b'N');
        tuple(&mut message, new);
        self.data(&message)
    }

    pub(crate) fn delete(self, oid: u32, mark: u8, old: &[Text]) -> Self {
        let mut message = vec![b'D'];
        message.extend_from_slice(&oid.to_be_bytes());
        message.push(mark);
        tuple(&mut message, old);
        self.data(&message)
    }

    pub(crate) fn truncate(self, oids: &[u32]) -> Self {
        let mut message = vec![b'T'];
        message.extend_from_slice(&(oids.len() as u32).to_be_bytes());
        message.push(0);
        oids.iter().for_each(|oid| message.extend_from_slice(&oid.to_be_bytes()));
        self.data(&message)
    }

    pub(crate) fn logical(self, content: &str) -> Self {
        let mut message = vec![b'M', 1];
        message.extend_from_slice(&[0; 8]);
        message.extend_from_slice(b"prefix\0");
        message.extend_from_slice(&(content.len() as u32).to_be_bytes());
        message.extend_from_slice(content.as_bytes());
        self.data(&message)
    }
}

pub(crate) fn lsn(n: u64) -> Lsn {
    Lsn(n)
}
