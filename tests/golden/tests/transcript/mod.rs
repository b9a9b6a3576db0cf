//! A decoded stream as text that is the same at every server: relations by name, transactions numbered as
//! they appear (`x1`), no LSNs and no times. Those are looked at in `places_and_times.rs`.

use pgoutput::{Message, Old};
use replicator_golden::Stream;
use replicator_types::{ReplicaIdentity, Tuple, Value};
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// Longer values are cut; what follows is told by their length.
const VALUE_CHARS_MAX: usize = 24;

/// A line for each message.
pub(crate) fn transcript(stream: &Stream) -> Vec<String> {
    let mut decoder = stream.decoder();
    let mut writer = Writer::default();
    let line = |bytes: &Vec<u8>| {
        let message = decoder.decode(bytes).unwrap_or_else(|error| panic!("{stream:?}: {error}"));
        writer.line(&message)
    };
    stream.messages.iter().map(line).collect()
}

#[derive(Default)]
struct Writer {
    relations: BTreeMap<u32, String>,
    xids: BTreeMap<u32, usize>,
}

impl Writer {
    fn line(&mut self, message: &Message<'_>) -> String {
        match message {
            Message::Begin(m) => format!("Begin {}", self.xid(m.xid)),
            Message::Commit(_) => "Commit".into(),
            Message::Origin(m) => format!("Origin {} at {}", m.name, m.commit_lsn),
            Message::Relation(m) => {
                self.relations.insert(m.oid, m.name.to_owned());
                let identity = match m.replica_identity {
                    ReplicaIdentity::Default => "default",
                    ReplicaIdentity::Nothing => "nothing",
                    ReplicaIdentity::Full => "full",
                    ReplicaIdentity::Index => "index",
                };
                let columns = m.columns.iter().fold(String::new(), |mut text, column| {
                    let mark = if column.in_identity { "*" } else { "" };
                    let user_type = column.type_oid >= 16384;
                    let kind = if user_type { "own".into() } else { column.type_oid.to_string() };
                    write!(text, " {mark}{}:{kind}", column.name).unwrap();
                    if column.type_modifier != -1 {
                        write!(text, "({})", column.type_modifier).unwrap();
                    }
                    text
                });
                format!("{}Relation {}.{} {identity}{columns}", self.within(m.xid), m.schema, m.name)
            }
            Message::Type(m) => format!("{}Type {}.{}", self.within(m.xid), m.schema, m.name),
            Message::Insert(m) => {
                format!("{}Insert {}{}", self.within(m.xid), self.relation(m.relation_oid), row(m.new))
            }
            Message::Update(m) => format!(
                "{}Update {}{} to{}",
                self.within(m.xid),
                self.relation(m.relation_oid),
                m.old.map(old).unwrap_or_default(),
                row(m.new)
            ),
            Message::Delete(m) => {
                format!("{}Delete {}{}", self.within(m.xid), self.relation(m.relation_oid), old(m.old))
            }
            Message::Truncate(m) => {
                let within = self.within(m.xid);
                let tables: Vec<&str> = m.relation_oids.iter().map(|&oid| self.relation(oid)).collect();
                let cascade = if m.cascade { " cascade" } else { "" };
                let restart = if m.restart_identity { " restart identity" } else { "" };
                format!("{within}Truncate {}{restart}{cascade}", tables.join(" "))
            }
            Message::Logical(m) => {
                let kind = if m.transactional { "transactional" } else { "standalone" };
                let content = m.content.escape_ascii();
                format!("{}Message {kind} '{}' '{content}'", self.within(m.xid), m.prefix)
            }
            Message::StreamStart(m) => {
                let first = if m.first_segment { " first" } else { "" };
                format!("StreamStart {}{first}", self.xid(m.xid))
            }
            Message::StreamStop => "StreamStop".into(),
            Message::StreamCommit(m) => format!("StreamCommit {}", self.xid(m.xid)),
            Message::StreamAbort(m) => {
                let place = if m.abort.is_some() { " at a place and time" } else { "" };
                format!("StreamAbort {} of {}{place}", self.xid(m.subxid), self.xid(m.xid))
            }
            Message::BeginPrepare(m) => format!("BeginPrepare {} '{}'", self.xid(m.xid), m.gid),
            Message::Prepare(m) => format!("Prepare {} '{}'", self.xid(m.xid), m.gid),
            Message::CommitPrepared(m) => format!("CommitPrepared {} '{}'", self.xid(m.xid), m.gid),
            Message::RollbackPrepared(m) => format!("RollbackPrepared {} '{}'", self.xid(m.xid), m.gid),
            Message::StreamPrepare(m) => format!("StreamPrepare {} '{}'", self.xid(m.xid), m.gid),
        }
    }

    fn xid(&mut self, xid: u32) -> String {
        let next = self.xids.len() + 1;
        format!("x{}", self.xids.entry(xid).or_insert(next))
    }

    fn within(&mut self, xid: Option<u32>) -> String {
        xid.map(|xid| format!("{}: ", self.xid(xid))).unwrap_or_default()
    }

    fn relation(&self, oid: u32) -> &str {
        self.relations.get(&oid).map_or("of a relation never told", String::as_str)
    }
}

fn old(old: Old<'_>) -> String {
    match old {
        Old::Key(tuple) => format!(" key{}", row(tuple)),
        Old::Full(tuple) => format!(" full{}", row(tuple)),
    }
}

fn row(tuple: Tuple<'_>) -> String {
    tuple.values().fold(String::new(), |mut text, value| {
        text.push(' ');
        match value {
            Value::Null => text.push_str("null"),
            Value::Unchanged => text.push_str("unchanged"),
            Value::Text(bytes) => {
                let value = std::str::from_utf8(bytes).unwrap();
                let shown: String = value.chars().take(VALUE_CHARS_MAX).collect();
                write!(text, "'{shown}'").unwrap();
                if shown.len() < value.len() {
                    write!(text, "..{}", value.len()).unwrap();
                }
            }
            Value::Binary(bytes) => {
                text.push_str("0x");
                for byte in bytes {
                    write!(text, "{byte:02x}").unwrap();
                }
            }
        }
        text
    })
}
