//! A row's bytes, checked and not.
#![no_main]

use libfuzzer_sys::fuzz_target;
use replicator_types::{Tuple, Value};

fuzz_target!(|input: &[u8]| {
    // Unchecked bytes give fewer values than they say, at worst.
    let unchecked = Tuple::from_checked(input);
    assert!(unchecked.values().count() <= unchecked.column_count());

    let Ok((tuple, rest)) = Tuple::split_from(input) else { return };
    assert_eq!([tuple.as_bytes(), rest].concat(), input);
    assert_eq!(tuple.values().count(), tuple.column_count());
    assert_eq!(tuple.has_unchanged(), tuple.values().any(|value| value == Value::Unchanged));
    assert_eq!(tuple.value(tuple.column_count()), Value::Null);
    let header_bytes =
        2 + tuple.values().map(|value| if value.bytes().is_some() { 5 } else { 1 }).sum::<usize>();
    let value_bytes = tuple.values().filter_map(Value::bytes).map(<[u8]>::len).sum::<usize>();
    assert_eq!(header_bytes + value_bytes, tuple.as_bytes().len());
});
