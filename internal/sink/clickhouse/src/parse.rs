//! From Postgres' text forms to values, as far as ClickHouse's types hold them: `pgvalue::text` with the ranges of
//! `Date32` and `DateTime64(6)`.

mod datetime;

pub(crate) use datetime::{
    DATE32_MAX, DATE32_MIN, DATETIME64_MAX, DATETIME64_MIN, date_days, timestamp_micros,
};
pub(crate) use pgvalue::text::{
    Decimal, Elements, Misfit, boolean, decimal, float32, float64, push_bytea, signed, unsigned,
};

/// A `uuid` as ClickHouse has it in memory: each half as a little-endian 64-bit number.
#[inline]
pub(crate) fn uuid(text: &[u8]) -> Result<[u8; 16], Misfit> {
    // Swapping the halves of the big-endian number and writing it little-endian is just that.
    pgvalue::text::uuid(text).map(|bytes| u128::from_be_bytes(bytes).rotate_left(64).to_le_bytes())
}
