//! A binary COPY, cut into messages anywhere.
#![no_main]

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use replicator_types::Tuple;

#[derive(Arbitrary, Debug)]
struct Input {
    kinds: Vec<bool>,
    sizes: Vec<u8>,
    has_header: bool,
    bytes: Vec<u8>,
}

fuzz_target!(|input: Input| {
    let kinds: Vec<u8> = input.kinds.iter().take(40).map(|binary| if *binary { b'b' } else { b't' }).collect();
    let mut bytes = if input.has_header { b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0".to_vec() } else { Vec::new() };
    bytes.extend_from_slice(&input.bytes);
    for tuple in replicator_source::fuzzing::copied_rows(&kinds, &bytes, &input.sizes) {
        // What was made of a row is a tuple of as many values.
        let (tuple, rest) = Tuple::split_from(&tuple).expect("a tuple");
        assert!(rest.is_empty());
        assert_eq!(tuple.values().count(), kinds.len());
    }
});
