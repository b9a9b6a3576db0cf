//! An archive file, read back to learn which events it has.

use crate::file::{NewFile, gzip};
use crate::naming::Naming;
use flate2::Compression;
use flate2::bufread::MultiGzDecoder;
use replicator_store::CommitTime;
use replicator_types::Position;
use serde::Deserialize;
use serde_json::value::RawValue;
use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};

/// What is read of a line.
#[derive(Deserialize)]
struct Line<'a> {
    event_id: &'a str,
    xid: u32,
}

/// What is read of a line that moves to another file.
#[derive(Deserialize)]
struct MovedLine<'a> {
    /// None of a message.
    #[serde(borrow)]
    schema: Option<&'a RawValue>,
    #[serde(borrow)]
    table: Option<&'a RawValue>,
    #[serde(borrow)]
    relation: Option<&'a RawValue>,
    commit_time: &'a str,
}

/// An object under a name of ours that is not what we write there.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ForeignFile {
    /// It has events of another slot or cluster; one of their ids.
    OtherIdentity(String),
    /// At the position of one of our events, with this id, it has another transaction's.
    OtherHistory(String),
    /// It is not a whole file of events.
    Unreadable(String),
}

/// Which events a file has.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Contents {
    /// Each event's position and transaction id, in order.
    events: Vec<(Position, u32)>,
}

impl Contents {
    /// Reads the object `body`; all its events must have ids of that kind.
    pub(crate) fn read(body: &[u8], naming: &Naming) -> Result<Self, ForeignFile> {
        let mut events = Vec::new();
        for_each_line(body, |line| {
            let Line { event_id, xid } = parse(line)?;
            let position = naming
                .position_of(event_id)
                .ok_or_else(|| ForeignFile::OtherIdentity(event_id.to_owned()))?;
            if events.last().is_some_and(|(last, _)| *last >= position) {
                return Err(ForeignFile::Unreadable(format!("event {event_id} is out of order")));
            }
            events.push((position, xid));
            Ok(())
        })?;
        if events.is_empty() {
            return Err(ForeignFile::Unreadable("it has no events".into()));
        }
        Ok(Self { events })
    }

    pub(crate) fn last(&self) -> Option<Position> {
        self.events.last().map(|(position, _)| *position)
    }

    /// The transaction id of the event at `position`, if the file has one.
    pub(crate) fn xid_at(&self, position: Position) -> Option<u32> {
        let index = self.events.binary_search_by_key(&position, |(position, _)| *position).ok()?;
        self.events.get(index).map(|(_, xid)| *xid)
    }
}

/// The file of those events of `file` that `there` does not have; `None` when it has them all. The first one
/// of each table gets its table's description, when the event that had it stays behind.
pub(crate) fn without(
    file: &NewFile,
    there: &Contents,
    naming: &Naming,
    level: Compression,
) -> Result<Option<NewFile>, ForeignFile> {
    let mut kept = Vec::new();
    let mut rest: Option<(String, u64)> = None;
    let mut descriptions: HashMap<String, Option<String>> = HashMap::new();
    for_each_line(&file.body, |line| {
        let Line { event_id, xid } = parse(line)?;
        let position =
            naming.position_of(event_id).ok_or_else(|| ForeignFile::OtherIdentity(event_id.to_owned()))?;
        let moved: MovedLine<'_> = parse(line)?;
        let name = |name: Option<&RawValue>| name.map(RawValue::get).unwrap_or_default().to_owned();
        let table = name(moved.schema) + &name(moved.table);
        if let Some(description) = moved.relation {
            descriptions.insert(table.clone(), Some(description.get().to_owned()));
        }
        match there.xid_at(position) {
            Some(found) if found == xid => return Ok(()),
            Some(_) => return Err(ForeignFile::OtherHistory(event_id.to_owned())),
            None => {}
        }
        let (_, events) = rest.get_or_insert_with(|| {
            (naming.path(file.hour, CommitTime::in_hour(file.hour, moved.commit_time), position), 0)
        });
        *events += 1;
        let carried = descriptions.get_mut(&table).and_then(Option::take);
        match carried.filter(|_| moved.relation.is_none()) {
            Some(description) => {
                kept.extend_from_slice(line.strip_suffix(b"}").unwrap_or(line));
                kept.extend_from_slice(b",\"relation\":");
                kept.extend_from_slice(description.as_bytes());
                kept.push(b'}');
            }
            None => kept.extend_from_slice(line),
        }
        kept.push(b'\n');
        Ok(())
    })?;
    let Some((path, events)) = rest else { return Ok(None) };
    let unreadable = |error: std::io::Error| ForeignFile::Unreadable(error.to_string());
    let mut gzip = gzip(Vec::new(), level);
    gzip.write_all(&kept).map_err(unreadable)?;
    let body = gzip.finish().map_err(unreadable)?.into();
    Ok(Some(NewFile { path, hour: file.hour, body, events, uncompressed_bytes: kept.len() as u64 }))
}

fn parse<'a, T: Deserialize<'a>>(line: &'a [u8]) -> Result<T, ForeignFile> {
    serde_json::from_slice(line)
        .map_err(|error| ForeignFile::Unreadable(format!("a line of it is no event: {error}")))
}

/// Calls `visit` with each line of a gzipped object, without its newline.
fn for_each_line(
    body: &[u8],
    mut visit: impl FnMut(&[u8]) -> Result<(), ForeignFile>,
) -> Result<(), ForeignFile> {
    let mut lines = BufReader::with_capacity(64 << 10, MultiGzDecoder::new(body));
    let mut line = Vec::new();
    loop {
        line.clear();
        let unreadable = |error: std::io::Error| ForeignFile::Unreadable(format!("it is not whole: {error}"));
        if lines.read_until(b'\n', &mut line).map_err(unreadable)? == 0 {
            return Ok(());
        }
        visit(line.strip_suffix(b"\n").unwrap_or(&line))?;
    }
}
