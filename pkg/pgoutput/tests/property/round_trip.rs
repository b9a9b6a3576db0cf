//! What a server writes is what is read.

use crate::any_message::any_stream;
use crate::wire::{Wire, copy_data, encode};
use pgoutput::{Decoder, Frame, Frames};
use proptest::prelude::*;
use replicator_types::Lsn;

proptest! {
    #[test]
    fn a_stream_of_messages_is_read_as_it_was_written((parallel, messages) in any_stream()) {
        let mut decoder = Decoder::new(parallel);
        for message in &messages {
            let bytes = encode(message);
            prop_assert_eq!(&decoder.decode(&bytes).unwrap(), message);
        }
    }

    #[test]
    fn every_cut_and_every_tail_of_a_message_is_an_error((parallel, messages) in any_stream()) {
        let mut decoder = Decoder::new(parallel);
        for message in &messages {
            let bytes = encode(message);
            for end in 0..bytes.len() {
                prop_assert!(decoder.clone().decode(&bytes[..end]).is_err(), "{} bytes of {:?}", end, message);
            }
            let long = [bytes.as_slice(), &[0]].concat();
            prop_assert!(decoder.clone().decode(&long).is_err(), "a byte behind {:?}", message);
            decoder.decode(&bytes).unwrap();
        }
    }

    #[test]
    fn frames_are_read_as_they_were_written(
        frames in proptest::collection::vec((any::<[u64; 2]>(), any::<i64>(), any::<Option<bool>>(), any::<Vec<u8>>()), 0..6)
    ) {
        let mut wire = Vec::new();
        let mut written = Vec::new();
        for ([start, end], sent_us, keepalive, message) in &frames {
            let (wal_end, sent_us) = (Lsn(*end), *sent_us);
            let (body, frame) = match *keepalive {
                Some(reply_requested) => (
                    Wire::new(b'k').u64(*end).i64(sent_us).u8(reply_requested.into()),
                    Frame::Keepalive { wal_end, sent_us, reply_requested },
                ),
                None => (
                    Wire::new(b'w').u64(*start).u64(*end).i64(sent_us).bytes(message),
                    Frame::Data { start: Lsn(*start), wal_end, sent_us, message },
                ),
            };
            wire.extend(copy_data(&body.0));
            written.push(frame);
        }
        let mut reader = Frames::new(&wire);
        let read: Vec<_> = reader.by_ref().map(Result::unwrap).collect();
        prop_assert_eq!(read, written);
        prop_assert_eq!(reader.remaining(), 0);
    }
}
