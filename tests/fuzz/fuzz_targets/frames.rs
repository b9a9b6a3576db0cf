//! The bytes of a replication connection: frames, and the messages in them through a decoder.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pgoutput::{Decoder, Frame, Frames};

fuzz_target!(|input: &[u8]| {
    let mut decoder = Decoder::new(true);
    let mut frames = Frames::new(input);
    let mut remaining = frames.remaining() + 1;
    while let Some(frame) = frames.next() {
        assert!(frames.remaining() < remaining, "a frame takes at least a byte");
        remaining = frames.remaining();
        match frame {
            Ok(Frame::Data { message, .. }) => {
                let _ = decoder.decode(message);
            }
            Ok(Frame::Keepalive { .. }) => {}
            Err(_) => assert_eq!(remaining, 0, "nothing follows an error"),
        }
    }
    assert_eq!(frames.remaining(), 0);
});
