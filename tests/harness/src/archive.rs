//! Reading what the object-store sink has written.

use crate::s3::files_under;
use flate2::read::MultiGzDecoder;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

/// The archive's files under `root` (a `file://` folder, or [`S3::folder`](crate::S3::folder) with the
/// prefix): `wal/events/YYYY/MM/DD/HH/{ulid}.ndjson.gz`, in order of name, which is that of time; then those of
/// copied rows under `wal/copy`.
pub fn archive_files(root: &Path) -> Vec<PathBuf> {
    let of = |folder: &str| {
        let mut files: Vec<PathBuf> = files_under(&root.join(folder))
            .into_iter()
            .filter(|path| path.to_str().is_some_and(|path| path.ends_with(".ndjson.gz")))
            .collect();
        files.sort();
        files
    };
    [of("wal/events"), of("wal/copy")].concat()
}

/// All events of the archive under `root`, in the order of its files.
///
/// # Panics
/// When a file is not gzipped lines of JSON.
pub fn archive_events(root: &Path) -> Vec<Value> {
    archive_files(root).iter().flat_map(|file| events_of(file)).collect()
}

/// The events of one file.
///
/// # Panics
/// When it is not gzipped lines of JSON.
pub fn events_of(file: &Path) -> Vec<Value> {
    lines_of(file).map(|line| event_of(&line)).collect()
}

/// The lines of one file, each an event.
///
/// # Panics
/// When it is not gzipped text.
pub fn lines_of(file: &Path) -> impl Iterator<Item = String> {
    let name = file.display().to_string();
    let opened = File::open(file).unwrap_or_else(|error| panic!("open {name}: {error}"));
    let lines = BufReader::new(MultiGzDecoder::new(opened)).lines();
    lines.map(move |line| line.unwrap_or_else(|error| panic!("{name}: {error}")))
}

/// The event of a line.
///
/// # Panics
/// When it is not JSON.
pub fn event_of(line: &str) -> Value {
    serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in the archive's line {line}"))
}

/// Asserts that every event has an `event_id` of its own.
///
/// # Panics
/// When one has none, or one is there twice.
#[track_caller]
pub fn assert_each_event_once(events: &[Value]) {
    assert_each_id_once(events.iter().map(|event| {
        event["event_id"].as_str().unwrap_or_else(|| panic!("an event without event_id: {event}"))
    }));
}

/// Asserts that none of these `event_id`s is there twice.
///
/// # Panics
/// When one is.
#[track_caller]
pub fn assert_each_id_once<'a>(ids: impl IntoIterator<Item = &'a str>) {
    let mut counts: BTreeMap<&str, u32> = BTreeMap::new();
    ids.into_iter().for_each(|id| *counts.entry(id).or_default() += 1);
    let repeated: Vec<_> = counts.iter().filter(|(_, count)| **count > 1).collect();
    assert!(
        repeated.is_empty(),
        "{} of {} event ids are there more than once, the first: {:?}",
        repeated.len(),
        counts.len(),
        repeated.iter().take(5).collect::<Vec<_>>()
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch_dir;
    use flate2::{Compression, write::GzEncoder};
    use serde_json::json;
    use std::io::Write;

    fn write(path: &Path, lines: &str) {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let mut encoder = GzEncoder::new(File::create(path).unwrap(), Compression::fast());
        encoder.write_all(lines.as_bytes()).unwrap();
        encoder.finish().unwrap();
    }

    #[test]
    fn the_events_of_all_files_come_in_the_order_of_their_names() {
        let root = scratch_dir("archive");
        write(&root.join("wal/events/2026/03/18/10/B.ndjson.gz"), "{\"event_id\":\"3\"}\n");
        write(
            &root.join("wal/events/2026/03/18/09/A.ndjson.gz"),
            "{\"event_id\":\"1\"}\n{\"event_id\":\"2\"}\n",
        );
        write(&root.join("dead-letter/x.ndjson.gz"), "{}\n");
        let ids: Vec<Value> =
            archive_events(&root).into_iter().map(|event| event["event_id"].clone()).collect();
        assert_eq!(ids, ["1", "2", "3"]);
    }

    #[test]
    #[should_panic(expected = "1 of 2 event ids are there more than once")]
    fn an_event_that_is_there_twice_is_found() {
        assert_each_event_once(&[
            json!({"event_id": "1"}),
            json!({"event_id": "2"}),
            json!({"event_id": "1"}),
        ]);
    }
}
