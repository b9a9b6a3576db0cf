//! Runs scenarios against servers and keeps what they send.
//!
//! ```text
//!   SQL connection ──▶ server ──replication connection──▶ lines
//! ```
//! Each run of a scenario has a database of its own, and a temporary slot. The end of the stream is told by a
//! logical message that comes after everything else; it is not kept.

use crate::connection::Connection;
use crate::scenarios::{SCENARIOS, Scenario, Step};
use replicator_golden::{Golden, frames_file, messages_file, write};
use replicator_harness::{PgOptions, PgVersion, Postgres};
use std::error::Error;

const END_PREFIX: &[u8] = b"replicator golden end";
/// The scenarios whose frames are kept whole: they have every way in which places are told.
const FRAMES_SCENARIOS: [&str; 3] = ["types_text", "delete", "origin"];
/// Length of the header of an XLogData message after its kind: two LSNs and a time.
const DATA_HEADER_BYTES: usize = 24;

/// Records every scenario at a server of `version` and writes its files.
pub(crate) fn capture(version: PgVersion) -> Result<(), Box<dyn Error>> {
    let options = PgOptions::default()
        .setting("logical_decoding_work_mem", "64kB")
        // WAL of open transactions is only sent once it is flushed, and nobody else flushes it.
        .setting("wal_writer_delay", "10ms")
        // Nothing is acknowledged here.
        .setting("wal_sender_timeout", "0")
        .setting("autovacuum", "off");
    let server = Postgres::start(version, &options);
    let protocol_max = if version.major() >= 16 { 4 } else { 3 };
    let mut messages = Vec::new();
    let mut frames = Vec::new();
    for scenario in SCENARIOS {
        let mut protocols = vec![scenario.protocol, protocol_max];
        protocols.dedup();
        for protocol in protocols {
            let name = scenario.name;
            let stream = record(&server, scenario, protocol).map_err(|error| {
                format!("Postgres {}, {name}, version {protocol}: {error}", version.major())
            })?;
            let golden = |bytes| Golden { scenario: name.into(), protocol, bytes };
            if FRAMES_SCENARIOS.contains(&name) {
                frames.extend(stream.iter().map(|frame| golden(copy_data(frame))));
            }
            messages.extend(stream.iter().filter_map(|frame| message(frame)).map(<[u8]>::to_vec).map(golden));
        }
    }
    write(&messages_file(version.major()), &messages)?;
    write(&frames_file(version.major()), &frames)?;
    println!("Postgres {}: {} messages", version.major(), messages.len());
    Ok(())
}

/// The bodies of the CopyData messages of one run; the last is a keepalive.
fn record(server: &Postgres, scenario: &Scenario, protocol: u8) -> Result<Vec<Vec<u8>>, Box<dyn Error>> {
    let database = format!("{}_{protocol}", scenario.name);
    server.createdb(&database);
    let mut sql = Connection::sql(&server.socket_dir(), server.port(), &database)?;
    sql.run(scenario.setup)?;
    let mut stream = Connection::replication(&server.socket_dir(), server.port(), &database)?;
    let two_phase = if protocol >= 3 { ", TWO_PHASE" } else { "" };
    stream.run(&format!(
        "CREATE_REPLICATION_SLOT golden TEMPORARY LOGICAL pgoutput (SNAPSHOT 'nothing'{two_phase})"
    ))?;
    stream.start_copy(&format!(
        "START_REPLICATION SLOT golden LOGICAL 0/0 ({})",
        plugin_options(protocol, scenario.binary)
    ))?;

    let mut frames = Vec::new();
    for step in scenario.steps {
        match step {
            Step::Sql(text) => sql.run(text)?,
            Step::Await(kind) => {
                read_until(&mut stream, &mut frames, |message| message.first() == Some(kind))?
            }
        }
    }
    let end = String::from_utf8_lossy(END_PREFIX);
    sql.run(&format!("SELECT pg_logical_emit_message(false, '{end}', '')"))?;
    let is_end = |message: &[u8]| message.windows(END_PREFIX.len()).any(|part| part == END_PREFIX);
    read_until(&mut stream, &mut frames, is_end)?;
    frames.pop();
    stream.request_keepalive()?;
    loop {
        let frame = stream.next_frame()?;
        if frame.starts_with(b"k") {
            frames.push(frame);
            return Ok(frames);
        }
    }
}

fn plugin_options(protocol: u8, binary: bool) -> String {
    let mut options = format!("proto_version '{protocol}', publication_names 'p', messages 'true'");
    if binary {
        options += ", binary 'true'";
    }
    match protocol {
        4.. => options += ", streaming 'parallel'",
        2.. => options += ", streaming 'on'",
        _ => {}
    }
    if protocol >= 3 {
        options += ", two_phase 'on'";
    }
    options
}

/// Reads frames, keepalives excepted, up to and with the one whose message `is_last`.
fn read_until(
    stream: &mut Connection,
    frames: &mut Vec<Vec<u8>>,
    is_last: impl Fn(&[u8]) -> bool,
) -> Result<(), Box<dyn Error>> {
    loop {
        let frame = stream.next_frame()?;
        let Some(message) = message(&frame) else { continue };
        let done = is_last(message);
        frames.push(frame);
        if done {
            return Ok(());
        }
    }
}

/// The plugin's message, if the frame has one.
fn message(frame: &[u8]) -> Option<&[u8]> {
    frame.strip_prefix(b"w")?.get(DATA_HEADER_BYTES..)
}

/// The message around a body, as it was on the wire.
fn copy_data(body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap_or(u32::MAX);
    [b"d".as_slice(), &length.to_be_bytes(), body].concat()
}
