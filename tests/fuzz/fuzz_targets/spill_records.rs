//! Records that wait: a run of any bytes, and a queue that gives back what was put in.
#![no_main]

use libfuzzer_sys::fuzz_target;
use replicator_spill::{Shelf, records};

fuzz_target!(|input: (u16, Vec<Vec<u8>>)| {
    let (at, parts) = input;
    let run = parts.concat();
    let mut before = usize::from(at);
    for (record, next) in records(&run, before) {
        assert_eq!(next, before + 4 + record.len());
        before = next;
    }
    let mut queue = Shelf::in_memory().queue();
    for part in &parts {
        queue.push(&[part, b"."]).unwrap();
    }
    let mut back = Vec::new();
    while let Some(run) = queue.take().unwrap() {
        back.extend(records(&run, 0).map(|(record, _)| record.to_vec()));
    }
    let pushed: Vec<Vec<u8>> = parts.iter().map(|part| [&part[..], b"."].concat()).collect();
    assert_eq!(back, pushed);
    assert_eq!(queue.bytes(), 0);
});
