//! The golden frames: CopyData messages as they lay on the wire.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use pgoutput::{Decoder, Frame, FrameError, Frames, Message};
use replicator_golden::{Golden, SERVERS, frames_file, messages_file, read};
use replicator_types::Lsn;

struct Recording {
    server: u32,
    scenario: String,
    protocol: u8,
    frames: Vec<Vec<u8>>,
}

fn recordings() -> Vec<Recording> {
    let mut recordings: Vec<Recording> = Vec::new();
    for server in SERVERS {
        for Golden { scenario, protocol, bytes } in read(&frames_file(server)).unwrap() {
            match recordings.last_mut() {
                Some(last)
                    if (last.server, &last.scenario, last.protocol) == (server, &scenario, protocol) =>
                {
                    last.frames.push(bytes);
                }
                _ => recordings.push(Recording { server, scenario, protocol, frames: vec![bytes] }),
            }
        }
    }
    assert_eq!(recordings.len(), 18, "three servers, three scenarios, two protocol versions");
    recordings
}

#[test]
fn the_frames_hold_the_messages_and_end_with_a_keepalive() {
    for Recording { server, scenario, protocol, frames } in recordings() {
        let wire = frames.concat();
        let mut messages = Vec::new();
        let mut keepalives = Vec::new();
        let mut data_end = Lsn::ZERO;
        for frame in Frames::new(&wire) {
            match frame.unwrap() {
                Frame::Data { wal_end, sent_us, message, .. } => {
                    assert!(keepalives.is_empty());
                    assert!(sent_us > 0);
                    data_end = data_end.max(wal_end);
                    messages.push(message.to_vec());
                }
                Frame::Keepalive { wal_end, sent_us, reply_requested } => {
                    assert!(sent_us > 0);
                    assert!(!reply_requested);
                    keepalives.push(wal_end);
                }
            }
        }
        assert_eq!(keepalives.len(), 1);
        assert!(keepalives[0] >= data_end);
        let golden: Vec<Vec<u8>> = read(&messages_file(server))
            .unwrap()
            .into_iter()
            .filter(|golden| golden.scenario == scenario && golden.protocol == protocol)
            .map(|golden| golden.bytes)
            .collect();
        assert_eq!(messages, golden);
    }
}

#[test]
fn a_message_that_announces_another_has_no_place_and_a_commit_has_its_end() {
    let mut begins_without_place = 0;
    for Recording { protocol, frames, .. } in recordings() {
        let wire = frames.concat();
        let mut decoder = Decoder::new(protocol >= 4);
        let mut data: Vec<(Lsn, Message<'_>)> = Vec::new();
        for frame in Frames::new(&wire) {
            if let Frame::Data { start, wal_end, message, .. } = frame.unwrap() {
                assert_eq!(start, wal_end);
                data.push((start, decoder.decode(message).unwrap()));
            }
        }
        for (index, (place, message)) in data.iter().enumerate() {
            let announces = match message {
                Message::Relation(_) | Message::Type(_) => true,
                Message::Begin(_) => matches!(data[index + 1].1, Message::Origin(_)),
                _ => false,
            };
            begins_without_place += usize::from(announces && matches!(message, Message::Begin(_)));
            assert_eq!(*place == Lsn::ZERO, announces, "{message:?}");
            if let Message::Commit(commit) = message {
                assert_eq!(*place, commit.end_lsn);
            }
        }
    }
    assert_eq!(begins_without_place, 6);
}

#[test]
fn a_cut_stream_gives_its_whole_frames_and_then_an_error() {
    for Recording { frames, .. } in recordings() {
        let wire = frames.concat();
        let mut whole = 0;
        let mut next_end = frames[0].len();
        for end in 1..wire.len() {
            if end == next_end {
                whole += 1;
                next_end += frames[whole].len();
            }
            let at_boundary = end + frames[whole].len() == next_end;
            let found: Vec<_> = Frames::new(&wire[..end]).collect();
            let good = found.iter().filter(|frame| frame.is_ok()).count();
            assert_eq!(good, whole, "{end}");
            match found.last() {
                Some(Err(FrameError::Truncated(_))) => assert!(!at_boundary, "{end}"),
                Some(Ok(_)) => assert!(at_boundary, "{end}"),
                other => panic!("{end}: {other:?}"),
            }
        }
    }
}

#[test]
fn a_stream_with_any_byte_changed_ends() {
    let Recording { frames, .. } = recordings().pop().unwrap();
    let wire = frames.concat();
    let mut changed = wire.clone();
    for place in 0..wire.len() {
        for byte in [0, 1, b'd', b'k', b'w', 0x7f, 0x80, 0xff] {
            changed[place] = byte;
            let mut decoder = Decoder::new(true);
            let mut stream = Frames::new(&changed);
            let mut remaining = stream.remaining() + 1;
            while let Some(frame) = stream.next() {
                assert!(stream.remaining() < remaining);
                remaining = stream.remaining();
                if let Ok(Frame::Data { message, .. }) = frame {
                    let _ = decoder.decode(message);
                }
            }
            assert_eq!(stream.remaining(), 0);
        }
        changed[place] = wire[place];
    }
}
