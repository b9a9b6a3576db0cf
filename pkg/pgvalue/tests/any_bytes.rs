//! What is no value is an error, and never a panic.

#![allow(clippy::unwrap_used)]

use pgvalue::{Form, Type, array::Array, form, write_text};
use proptest::prelude::*;
use replicator_types::{Column, ColumnKind};

/// Every oid that a built-in type has.
const OIDS: std::ops::Range<u32> = 0..6200;

fn columns() -> impl Strategy<Value = Column> {
    let known: Vec<u32> = OIDS.filter(|&oid| pgvalue::Scalar::of_oid(oid).is_some()).collect();
    let element =
        |element_oid| ColumnKind::Array { element_oid, element_modifier: -1, element_is_enum: false };
    (prop::sample::select(known), any::<bool>()).prop_map(move |(oid, is_array)| Column {
        base_type_oid: if is_array { 0 } else { oid },
        kind: if is_array { element(oid) } else { ColumnKind::Scalar },
        ..Column::default()
    })
}

/// Bytes that look like a value: counts that are small, or wild.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let part = prop_oneof![
        4 => (0i32..4).prop_map(|small| small.to_be_bytes().to_vec()),
        1 => any::<i32>().prop_map(|wild| wild.to_be_bytes().to_vec()),
        1 => any::<f64>().prop_map(|wild| wild.to_be_bytes().to_vec()),
        1 => any::<u8>().prop_map(|byte| vec![byte]),
        1 => Just(vec![0xff; 4]),
    ];
    prop::collection::vec(part, 0..12).prop_map(|parts| parts.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    #[test]
    fn no_bytes_make_it_panic(column in columns(), binary in bytes()) {
        let mut out = Vec::new();
        let _ = write_text(&column, &binary, &mut out);
        prop_assert!(form(&column) != Form::TextOnly);
        let _ = Array::read(&binary).map(|array| {
            assert_eq!(array.elements().count(), array.len());
        });
    }
}

#[test]
fn a_type_that_is_not_understood_is_asked_for_as_text() {
    for (base_type_oid, kind) in
        [(3904, ColumnKind::Other), (2205, ColumnKind::Scalar), (100_000, ColumnKind::Scalar)]
    {
        let column = Column { base_type_oid, kind, type_sql: "mine".into(), ..Column::default() };
        assert_eq!(form(&column), Form::TextOnly);
        assert_eq!(Type::of(&column), Type::TextOnly);
        let error = write_text(&column, b"x", &mut Vec::new()).unwrap_err();
        assert!(error.to_string().contains("mine"), "{error}");
    }
}
