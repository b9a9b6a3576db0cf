//! The golden frames: CopyData messages as they lay on the wire.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use pgoutput::{Decoder, Frame, FrameError, Frames};
use replicator_golden::{SERVERS, frames_file, messages_file, read};
use replicator_types::Lsn;

/// The streams of frames, each whole, and the lengths of its frames.
fn recordings() -> Vec<(u32, u8, Vec<Vec<u8>>)> {
    let mut recordings: Vec<(u32, u8, Vec<Vec<u8>>)> = Vec::new();
    for server in SERVERS {
        for golden in read(&frames_file(server)).unwrap() {
            match recordings.last_mut() {
                Some((of, protocol, frames)) if (*of, *protocol) == (server, golden.protocol) => {
                    frames.push(golden.bytes);
                }
                _ => recordings.push((server, golden.protocol, vec![golden.bytes])),
            }
        }
    }
    assert_eq!(recordings.len(), 6);
    recordings
}

#[test]
fn the_frames_hold_the_messages_and_end_with_a_keepalive() {
    for (server, protocol, frames) in recordings() {
        let wire = frames.concat();
        let mut messages = Vec::new();
        let mut keepalives = Vec::new();
        let mut data_end = Lsn::ZERO;
        for frame in Frames::new(&wire) {
            match frame.unwrap() {
                Frame::Data { start, wal_end, sent_us, message } => {
                    assert!(keepalives.is_empty());
                    assert!(sent_us > 0);
                    // pgoutput gives both the same, and shapes have no place.
                    assert_eq!(start, wal_end);
                    assert_eq!(start == Lsn::ZERO, message[0] == b'R');
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
            .filter(|golden| golden.scenario == "delete" && golden.protocol == protocol)
            .map(|golden| golden.bytes)
            .collect();
        assert_eq!(messages, golden);
        let mut decoder = Decoder::new(protocol >= 4);
        assert!(messages.iter().all(|message| decoder.decode(message).is_ok()));
    }
}

#[test]
fn the_place_of_a_commit_is_its_end() {
    for (_, protocol, frames) in recordings() {
        let wire = frames.concat();
        let mut decoder = Decoder::new(protocol >= 4);
        for frame in Frames::new(&wire) {
            if let Frame::Data { start, message, .. } = frame.unwrap()
                && let pgoutput::Message::Commit(commit) = decoder.decode(message).unwrap()
            {
                assert_eq!(start, commit.end_lsn);
            }
        }
    }
}

#[test]
fn a_cut_stream_gives_its_whole_frames_and_then_an_error() {
    for (_, _, frames) in recordings() {
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
    let (_, _, frames) = recordings().pop().unwrap();
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
