//! A file of events as the archive finds it, whole or not.
#![no_main]

use libfuzzer_sys::fuzz_target;
use replicator_sink_object_store::fuzzing::{archive_file, archive_lines};

fuzz_target!(|bytes: &[u8]| match bytes.split_first() {
    Some((0, body)) => archive_file(body),
    _ => archive_lines(bytes),
});
