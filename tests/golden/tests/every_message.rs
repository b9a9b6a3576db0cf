//! Each golden message taken apart byte by byte.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use pgoutput::{DecodeError, Decoder, Message, Old};
use replicator_golden::{Stream, streams};
use replicator_types::Tuple;
use std::collections::{BTreeMap, BTreeSet};

/// Calls `check` with each message and the decoder in the state it is decoded in.
fn for_each_message(mut check: impl FnMut(&Stream, &Decoder, &[u8])) {
    for stream in streams().unwrap() {
        let mut decoder = stream.decoder();
        for message in &stream.messages {
            check(&stream, &decoder, message);
            decoder.decode(message).unwrap();
        }
    }
}

fn tuples(message: &Message<'_>) -> Vec<(&'static str, usize)> {
    let one = |name: &'static str, tuple: Tuple<'_>| (name, tuple.values().count());
    let old = |old: Old<'_>| match old {
        Old::Key(tuple) => one("key", tuple),
        Old::Full(tuple) => one("full", tuple),
    };
    match message {
        Message::Insert(insert) => vec![one("new", insert.new)],
        Message::Update(update) => update.old.map(old).into_iter().chain([one("new", update.new)]).collect(),
        Message::Delete(delete) => vec![old(delete.old)],
        _ => vec![],
    }
}

#[test]
fn the_recordings_have_every_kind_of_message_that_the_version_has() {
    let mut kinds: BTreeMap<(u32, u8), BTreeSet<char>> = BTreeMap::new();
    for_each_message(|stream, _, message| {
        kinds.entry((stream.server, stream.protocol)).or_default().insert(char::from(message[0]));
    });
    let version_1: BTreeSet<char> = "BCORYIUDTM".chars().collect();
    let streaming: BTreeSet<char> = "SEcA".chars().collect();
    let two_phase: BTreeSet<char> = "bPKrp".chars().collect();
    let every = &(&version_1 | &streaming) | &two_phase;
    assert_eq!(every.len(), 19);
    for server in [15, 17, 18] {
        let version_max = if server == 15 { 3 } else { 4 };
        assert_eq!(kinds[&(server, 1)], version_1, "Postgres {server}, version 1");
        assert!(kinds[&(server, 2)].is_superset(&streaming), "Postgres {server}, version 2");
        assert!(kinds[&(server, 3)].is_superset(&two_phase), "Postgres {server}, version 3");
        assert_eq!(kinds[&(server, version_max)], every, "Postgres {server}, version {version_max}");
    }
}

#[test]
fn a_cut_message_is_an_error() {
    for_each_message(|stream, decoder, message| {
        for end in 0..message.len() {
            let result = decoder.clone().decode(&message[..end]);
            let is_cut = matches!(
                result,
                Err(DecodeError::Empty | DecodeError::Truncated { .. } | DecodeError::Tuple { .. })
            );
            assert!(is_cut, "{}, {end} bytes of {message:?}: {result:?}", stream.scenario);
        }
    });
}

#[test]
fn a_message_with_something_behind_it_is_an_error() {
    for_each_message(|stream, decoder, message| {
        for extra in [&[0][..], b"N", b"E", &[0; 64], message] {
            let long = [message, extra].concat();
            let result = decoder.clone().decode(&long);
            let bytes = extra.len();
            assert!(
                matches!(result, Err(DecodeError::Trailing { bytes: found, .. }) if found == bytes),
                "{}, {bytes} bytes behind {message:?}: {result:?}",
                stream.scenario
            );
        }
    });
}

#[test]
fn a_message_with_any_byte_changed_is_decoded_or_an_error() {
    let mut outcomes = [0; 2];
    for_each_message(|stream, decoder, message| {
        // One server's messages are enough; the others' differ in ids and times.
        if stream.server != 18 {
            return;
        }
        let mut changed = message.to_vec();
        for place in 0..message.len() {
            for byte in 0..=255 {
                changed[place] = byte;
                let mut decoder = decoder.clone();
                match decoder.decode(&changed) {
                    Ok(decoded) => {
                        outcomes[0] += 1;
                        for (_, count) in tuples(&decoded) {
                            assert!(count <= changed.len());
                        }
                    }
                    Err(error) => {
                        outcomes[1] += 1;
                        assert!(error.to_string().contains("pgoutput"));
                    }
                }
                // Whatever it was taken for, the next message finds a decoder that works.
                let _ = decoder.decode(message);
            }
            changed[place] = message[place];
        }
    });
    assert!(outcomes.iter().all(|&count| count > 10_000), "{outcomes:?}");
}

#[test]
fn every_row_has_as_many_values_as_its_relation_has_columns() {
    let mut rows = 0;
    for stream in streams().unwrap() {
        let mut decoder = stream.decoder();
        let mut columns = BTreeMap::new();
        for bytes in &stream.messages {
            let message = decoder.decode(bytes).unwrap();
            let oid = match &message {
                Message::Relation(relation) => {
                    columns.insert(relation.oid, relation.columns.len());
                    continue;
                }
                Message::Insert(insert) => insert.relation_oid,
                Message::Update(update) => update.relation_oid,
                Message::Delete(delete) => delete.relation_oid,
                _ => continue,
            };
            for (which, count) in tuples(&message) {
                rows += 1;
                assert_eq!(count, columns[&oid], "{}, {which} row of {message:?}", stream.scenario);
            }
        }
    }
    assert!(rows > 100, "{rows}");
}
