//! Whether a value may be passed on in binary form, byte for byte.
//!
//! Binary `COPY` has each value read by the receive function of the target column's type, which takes what the send
//! function of the very same type wrote. So the bytes may pass where both are one built-in type (a built-in type has
//! the same oid everywhere), or where both types' binary form is their text.
//!
//! Source: `typsend`, `typreceive` in <https://www.postgresql.org/docs/current/catalog-pg-type.html>; oids below
//! `FirstGenbkiObjectId` (10000) in `src/include/access/transam.h` are assigned by hand, for good.

use pgvalue::Form;
use replicator_types::{Column, ColumnKind, Value, oid};

/// In which of its forms a value may be passed on as it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Passage {
    /// In none: as text, through the target type's input function.
    Closed,
    /// In binary form.
    Binary,
    /// In binary form, but for an interval without an end: a server before 17 would take it for a very long one.
    Finite,
    /// In either, since they are the same.
    Any,
}

/// The first oid that is not assigned by hand.
pub(crate) const FIRST_UNSTABLE_OID: u32 = 10_000;

/// `int2vector` and `oidvector`, whose receive functions refuse what their send functions write for an empty one
/// ("invalid oidvector data"). Source: `oidvectorrecv` in `src/backend/utils/adt/oid.c`.
const VECTORS: [u32; 2] = [22, 30];

impl Passage {
    /// For values of the source's `column` into a column of type `target_oid`, domains resolved.
    pub(crate) fn of(column: &Column, target_oid: u32, target_is_enum: bool) -> Self {
        match pgvalue::form(column) {
            Form::TextOnly => Self::Closed,
            Form::Same => {
                let texts = [oid::TEXT, oid::VARCHAR, oid::BPCHAR, oid::JSON];
                let is_same_type =
                    target_oid == column.base_type_oid && column.base_type_oid < FIRST_UNSTABLE_OID;
                let takes_text = target_is_enum || texts.contains(&target_oid) || is_same_type;
                if takes_text { Self::Any } else { Self::Closed }
            }
            Form::Binary if VECTORS.contains(&column.base_type_oid) => Self::Closed,
            Form::Binary if column.base_type_oid == oid::INTERVAL && target_oid == oid::INTERVAL => {
                Self::Finite
            }
            Form::Binary => {
                // An array's binary form holds the oid of its elements' type.
                let element_is_stable = match column.kind {
                    ColumnKind::Array { element_oid, element_is_enum, .. } => {
                        element_oid < FIRST_UNSTABLE_OID && element_oid != oid::INTERVAL && !element_is_enum
                    }
                    ColumnKind::Scalar => true,
                    ColumnKind::Enum | ColumnKind::Other => false,
                };
                let is_same = target_oid == column.base_type_oid && target_oid < FIRST_UNSTABLE_OID;
                if is_same && element_is_stable { Self::Binary } else { Self::Closed }
            }
        }
    }

    /// Whether `value` is in a form that passes.
    #[inline]
    pub(crate) fn takes(self, value: Value<'_>) -> bool {
        match value {
            Value::Null => self != Self::Closed,
            Value::Unchanged => false,
            Value::Binary(bytes) if self == Self::Finite => !is_endless(bytes),
            Value::Binary(_) => self != Self::Closed,
            Value::Text(_) => self == Self::Any,
        }
    }
}

/// Whether an interval is infinite: time, days and months are all the least, or all the greatest.
///
/// Source: `INTERVAL_NOT_FINITE` in `src/include/datatype/timestamp.h`, since 17.
fn is_endless(interval: &[u8]) -> bool {
    const GREATEST: u128 = 0x7fff_ffff_ffff_ffff_7fff_ffff_7fff_ffff;
    const LEAST: u128 = 0x8000_0000_0000_0000_8000_0000_8000_0000;
    let bytes: Option<[u8; 16]> = interval.try_into().ok();
    bytes.is_some_and(|bytes| [GREATEST, LEAST].contains(&u128::from_be_bytes(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(type_oid: u32, kind: ColumnKind) -> Column {
        Column { type_oid, base_type_oid: type_oid, kind, ..Column::default() }
    }

    #[test]
    fn only_the_very_same_built_in_type_takes_the_bytes() {
        let int4 = column(oid::INT4, ColumnKind::Scalar);
        assert_eq!(Passage::of(&int4, oid::INT4, false), Passage::Binary);
        assert_eq!(Passage::of(&int4, oid::INT8, false), Passage::Closed);
        assert_eq!(Passage::of(&int4, oid::TEXT, false), Passage::Closed);
        let text = column(oid::TEXT, ColumnKind::Scalar);
        assert_eq!(Passage::of(&text, oid::VARCHAR, false), Passage::Any);
        assert_eq!(Passage::of(&text, oid::JSONB, false), Passage::Closed);
        let mood = column(20_000, ColumnKind::Enum);
        assert_eq!(Passage::of(&mood, 30_000, true), Passage::Any);
        assert_eq!(Passage::of(&mood, oid::TEXT, false), Passage::Any);
        assert_eq!(Passage::of(&column(20_000, ColumnKind::Other), 20_000, false), Passage::Closed);
    }

    #[test]
    fn what_the_type_itself_would_not_take_back_goes_as_text() {
        for vector in VECTORS {
            let column = column(vector, ColumnKind::Scalar);
            assert_eq!(pgvalue::form(&column), Form::Binary);
            assert_eq!(Passage::of(&column, vector, false), Passage::Closed);
        }
    }

    #[test]
    fn an_interval_without_an_end_goes_as_text_which_a_server_refuses_that_has_none() {
        let interval = column(oid::INTERVAL, ColumnKind::Scalar);
        let passage = Passage::of(&interval, oid::INTERVAL, false);
        let value = |time: i64, days: i32, months: i32| {
            [&time.to_be_bytes()[..], &days.to_be_bytes(), &months.to_be_bytes()].concat()
        };
        assert!(passage.takes(Value::Binary(&value(86_400, 1, i32::MAX))));
        for endless in [value(i64::MAX, i32::MAX, i32::MAX), value(i64::MIN, i32::MIN, i32::MIN)] {
            assert!(!passage.takes(Value::Binary(&endless)));
        }
        let of =
            ColumnKind::Array { element_oid: oid::INTERVAL, element_modifier: -1, element_is_enum: false };
        assert_eq!(Passage::of(&column(1187, of), 1187, false), Passage::Closed);
    }

    #[test]
    fn arrays_of_the_users_own_types_do_not_pass() {
        let kind = ColumnKind::Array { element_oid: 20_000, element_modifier: -1, element_is_enum: true };
        assert_eq!(Passage::of(&column(20_001, kind), 20_001, false), Passage::Closed);
    }

    #[test]
    fn a_text_passes_only_where_it_is_the_binary_form() {
        assert!(Passage::Any.takes(Value::Text(b"x")) && !Passage::Binary.takes(Value::Text(b"x")));
        assert!(!Passage::Closed.takes(Value::Null) && !Passage::Any.takes(Value::Unchanged));
    }
}
