//! Seeds for the fuzz targets in `tests/fuzz`, from the golden bytes.
//!
//! ```text
//!   pgoutput_message   a byte (parallel streaming), then per message a 16-bit length and its bytes
//!   frames             CopyData messages one after the other
//!   tuple              the TupleData of an Insert
//! ```
//! The shapes are those that the targets of the same name take apart. Other files in the folders, such as
//! findings, stay.

use pgoutput::Message;
use replicator_golden::{Golden, SERVERS, Stream, frames_file, read, streams};
use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::fs;
use std::path::Path;

/// Begins the names of the files made here.
const PREFIX: &str = "golden_";

/// Longer ones slow the fuzzer down and teach it nothing.
const SEED_BYTES_MAX: usize = 4096;

/// Writes `tests/fuzz/seeds` anew.
pub(crate) fn write_seeds() -> Result<(), Box<dyn Error>> {
    let newest = SERVERS.iter().max().copied().unwrap_or_default();
    let streams: Vec<Stream> = streams()?.into_iter().filter(|stream| stream.server == newest).collect();

    let mut messages = Vec::new();
    let mut tuples = BTreeSet::new();
    for stream in &streams {
        let name = format!("{}_{}", stream.scenario, stream.protocol);
        messages.push((name, pack(stream)?));
        let mut decoder = stream.decoder();
        for bytes in &stream.messages {
            if let Message::Insert(insert) = decoder.decode(bytes)? {
                tuples.insert(insert.new.as_bytes().to_vec());
            }
        }
    }
    write_folder("pgoutput_message", messages)?;
    write_folder("tuple", tuples.into_iter().enumerate().map(|(n, bytes)| (format!("{n:02}"), bytes)))?;
    let mut frames: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    for Golden { scenario, protocol, bytes } in read(&frames_file(newest))? {
        frames.entry(format!("{scenario}_{protocol}")).or_default().extend(bytes);
    }
    write_folder("frames", frames)
}

fn pack(stream: &Stream) -> Result<Vec<u8>, Box<dyn Error>> {
    let mut seed = vec![u8::from(stream.protocol >= 4)];
    for bytes in &stream.messages {
        seed.extend_from_slice(&u16::try_from(bytes.len())?.to_be_bytes());
        seed.extend_from_slice(bytes);
    }
    Ok(seed)
}

fn write_folder(
    target: &str,
    seeds: impl IntoIterator<Item = (String, Vec<u8>)>,
) -> Result<(), Box<dyn Error>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/seeds").join(target);
    fs::create_dir_all(&folder)?;
    for entry in fs::read_dir(&folder)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(PREFIX) {
            fs::remove_file(entry.path())?;
        }
    }
    for (name, bytes) in seeds {
        if bytes.len() <= SEED_BYTES_MAX {
            fs::write(folder.join(format!("{PREFIX}{name}")), bytes)?;
        }
    }
    Ok(())
}
