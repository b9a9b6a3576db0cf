//! What `tests/fuzz` calls: parsers that nobody else has a use for.

use crate::contents::Contents;
use crate::naming::Naming;
use flate2::Compression;
use flate2::write::GzEncoder;
use replicator_types::SlotIdentity;
use std::io::Write as _;

/// Reads an object that somebody else may have put in the place of a file of events.
pub fn archive_file(body: &[u8]) {
    let identity = SlotIdentity { system_identifier: 7, slot: "s".into() };
    if let Ok(contents) = Contents::read(body, &Naming::of_stream(&identity)) {
        assert!(contents.last().is_some_and(|last| contents.xid_at(last).is_some()));
    }
}

/// The same of these lines, compressed as they should be.
pub fn archive_lines(lines: &[u8]) {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    if encoder.write_all(lines).is_ok()
        && let Ok(body) = encoder.finish()
    {
        archive_file(&body);
    }
}
