//! One connection's messages through one decoder.
//!
//! Input: a byte, odd for parallel streaming; then, again and again, a 16-bit length and a message.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pgoutput::{Decoder, Message, Old};
use replicator_types::Tuple;

fuzz_target!(|input: &[u8]| {
    let Some((&parallel, mut rest)) = input.split_first() else { return };
    let mut decoder = Decoder::new(parallel & 1 != 0);
    while let Some((length, behind)) = rest.split_first_chunk::<2>() {
        let length = usize::from(u16::from_be_bytes(*length)).min(behind.len());
        let (message, behind) = behind.split_at(length);
        rest = behind;
        check(&mut decoder, message);
    }
});

fn check(decoder: &mut Decoder, bytes: &[u8]) {
    let before = decoder.clone();
    let Ok(message) = decoder.decode(bytes) else { return };
    match &message {
        Message::Insert(insert) => walk(insert.new),
        Message::Update(update) => {
            update.old.into_iter().for_each(walk_old);
            walk(update.new);
        }
        Message::Delete(delete) => walk_old(delete.old),
        Message::Relation(relation) => assert!(relation.columns.len() * 10 <= bytes.len()),
        Message::Truncate(truncate) => assert!(truncate.relation_oids.len() * 4 <= bytes.len()),
        _ => {}
    }
    // A message has one length: neither a shorter nor a longer one is it.
    let cut = bytes.split_last().map_or(bytes, |(_, cut)| cut);
    assert!(before.clone().decode(cut).is_err());
    assert!(before.clone().decode(&[bytes, &[0]].concat()).is_err());
}

fn walk_old(old: Old<'_>) {
    match old {
        Old::Key(tuple) | Old::Full(tuple) => walk(tuple),
    }
}

fn walk(tuple: Tuple<'_>) {
    assert_eq!(tuple.values().count(), tuple.column_count());
}
