//! Bytes from nobody we know: an error, never a panic, and never more memory than they take themselves.

use crate::any_message::any_stream;
use crate::wire::{Wire, encode};
use allocation_counter::measure;
use pgoutput::{ColumnMessage, DecodeError, Decoder, Frame, Frames, Message};
use proptest::collection::vec;
use proptest::prelude::*;

const KINDS: &[u8] = b"BCORYIUDTMSEcAbPKrp";

/// The bytes a decoder that has seen a Stream Start, or none, may be given.
fn decoder(parallel: bool, in_stream: bool) -> Decoder {
    let mut decoder = Decoder::new(parallel);
    if in_stream {
        decoder.decode(&Wire::new(b'S').u32(1).u8(1).0).unwrap();
    }
    decoder
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn no_bytes_make_the_decoder_panic(messages: Vec<Vec<u8>>, parallel: bool) {
        let mut decoder = Decoder::new(parallel);
        for message in &messages {
            let _ = decoder.decode(message);
        }
    }

    #[test]
    fn no_body_makes_a_message_panic(
        kind in proptest::sample::select(KINDS),
        body in vec(prop_oneof![Just(0), Just(1), Just(b'N'), Just(b't'), any::<u8>()], 0..60),
        parallel: bool,
        in_stream: bool,
    ) {
        let bytes = Wire::new(kind).bytes(&body).0;
        if let Ok(message) = decoder(parallel, in_stream).decode(&bytes) {
            // What was understood says the same when it is written again, but for bits without meaning.
            let written = encode(&message);
            prop_assert_eq!(decoder(parallel, in_stream).decode(&written).unwrap(), message);
        }
    }

    #[test]
    fn no_bytes_make_the_frames_panic_or_go_on_forever(bytes: Vec<u8>) {
        let mut frames = Frames::new(&bytes);
        let mut remaining = bytes.len() + 1;
        while let Some(frame) = frames.next() {
            prop_assert!(frames.remaining() < remaining);
            remaining = frames.remaining();
            prop_assert!(frame.is_ok() || remaining == 0);
        }
        prop_assert_eq!(frames.remaining(), 0);
    }

    #[test]
    fn no_body_makes_a_frame_panic(kind in proptest::sample::select(&b"wk"[..]), body: Vec<u8>) {
        let bytes = Wire::new(kind).bytes(&body).0;
        if let Ok(Frame::Data { message, .. }) = Frame::parse(&bytes) {
            prop_assert_eq!(message.len() + 25, bytes.len());
        }
    }

    #[test]
    fn a_message_takes_no_more_memory_than_a_few_times_its_bytes(
        (parallel, messages) in any_stream(),
        place: prop::sample::Index,
        byte: u8,
    ) {
        let mut decoder = Decoder::new(parallel);
        for message in &messages {
            let good = encode(message);
            let mut bad = good.clone();
            let place = place.index(bad.len());
            bad[place] = byte;
            for bytes in [&bad, &good] {
                let mut decoder = decoder.clone();
                let used = measure(|| drop(decoder.decode(bytes)));
                prop_assert!(used.bytes_total <= memory_max(bytes.len()), "{:?} for {:?}", used, message);
            }
            decoder.decode(&good).unwrap();
        }
    }
}

/// A column is at least ten bytes on the wire, and the list has room for one more.
fn memory_max(received: usize) -> u64 {
    ((received / 10 + 1) * size_of::<ColumnMessage<'_>>()) as u64
}

#[test]
fn a_count_that_lies_reserves_nothing() {
    let truncate = Wire::new(b'T').u32(u32::MAX).u8(0).u32(1).u32(2).0;
    let relation = Wire::new(b'R').u32(1).text("public").text("t").u8(b'd').u16(u16::MAX).0;
    let content = Wire::new(b'M').u8(1).u64(1).text("prefix").u32(u32::MAX).u8(1).0;
    let columns = Wire::new(b'I').u32(1).u8(b'N').u16(u16::MAX).u8(b'n').0;
    let value = Wire::new(b'I').u32(1).u8(b'N').u16(1).u8(b't').i32(i32::MAX).u8(1).0;
    for bytes in [truncate, relation, content, columns, value] {
        let mut error = None;
        let used = measure(|| error = Decoder::default().decode(&bytes).err());
        assert!(
            matches!(error, Some(DecodeError::Truncated { .. } | DecodeError::Tuple { .. })),
            "{bytes:?}: {error:?}"
        );
        assert!(used.bytes_max <= memory_max(bytes.len()), "{bytes:?}: {used:?}");
    }
    let frame = Wire::new(b'd').i32(i32::MAX).u8(b'w').0;
    let used = measure(|| assert!(Frames::new(&frame).next().is_some_and(|frame| frame.is_err())));
    assert_eq!(used.bytes_total, 0, "{used:?}");
}

#[test]
fn the_widest_relation_is_read() {
    let head = Wire::new(b'R').u32(1).text("public").text("t").u8(b'd').u16(u16::MAX);
    let wide = (0..u16::MAX).fold(head, |wire, _| wire.u8(0).text("").u32(23).i32(-1)).0;
    let used = measure(|| match Decoder::default().decode(&wide) {
        Ok(Message::Relation(relation)) => assert_eq!(relation.columns.len(), 65535),
        other => panic!("{other:?}"),
    });
    assert_eq!(used.count_total, 1, "the list is reserved once: {used:?}");
}

#[test]
fn changes_and_their_transactions_allocate_nothing() {
    let row = Wire::default().u16(3).u8(b't').i32(1).u8(b'1').u8(b'u').u8(b'n').0;
    let messages = [
        Wire::new(b'B').u64(1).i64(2).u32(3).0,
        Wire::new(b'I').u32(1).u8(b'N').bytes(&row).0,
        Wire::new(b'U').u32(1).u8(b'O').bytes(&row).u8(b'N').bytes(&row).0,
        Wire::new(b'D').u32(1).u8(b'K').bytes(&row).0,
        Wire::new(b'M').u8(0).u64(1).text("prefix").u32(1).u8(1).0,
        Wire::new(b'C').u8(0).u64(1).u64(2).i64(3).0,
    ];
    let mut decoder = Decoder::default();
    for bytes in &messages {
        let used = measure(|| assert!(decoder.decode(bytes).is_ok()));
        assert_eq!(used.count_total, 0, "{bytes:?}: {used:?}");
    }
}
