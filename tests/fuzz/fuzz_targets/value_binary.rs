//! The binary form of a value, of any type that has one.
//!
//! Input: type oid, whether it is an array of that, the value.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pgvalue::array::Array;
use pgvalue::numeric::Numeric;
use pgvalue::{json, time, write_text};
use replicator_types::{Column, ColumnKind};

fuzz_target!(|input: (u16, bool, &[u8])| {
    let (oid, is_array, binary) = input;
    let element_oid = u32::from(oid);
    let kind = ColumnKind::Array { element_oid, element_modifier: -1, element_is_enum: false };
    let column = Column {
        base_type_oid: if is_array { 0 } else { element_oid },
        kind: if is_array { kind } else { ColumnKind::Scalar },
        ..Column::default()
    };
    let mut text = Vec::new();
    let _ = write_text(&column, binary, &mut text);
    if let Ok(array) = Array::read(binary) {
        assert_eq!(array.elements().count(), array.len());
    }
    if let Ok(Numeric::Finite(numeric)) = Numeric::read(binary) {
        text.clear();
        numeric.write_text(&mut text);
        assert!(!text.is_empty());
        (0..80).step_by(13).for_each(|scale| {
            let _ = numeric.scaled(scale);
        });
    }
    let _ = (json::body(binary), time::date_days(binary), time::timestamp_micros(binary));
    let _ = (time::time_micros(binary), time::timetz(binary), time::interval(binary));
});
