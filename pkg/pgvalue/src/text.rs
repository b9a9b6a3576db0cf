//! From Postgres' text forms to values, without allocating.
//!
//! Every parser takes the bytes of one value as `pgoutput` sends them (UTF-8 server output under
//! `DateStyle = ISO`) and gives a value or the [`Misfit`] that says why there is none. Bytes are
//! untrusted: nothing is indexed, nothing overflows.
//!
//! Source: the types' output functions, <https://www.postgresql.org/docs/current/datatype.html>.

mod array;
mod binary;
mod datetime;
mod decimal;
mod number;

pub use array::Elements;
pub use binary::{push_bytea, uuid};
pub use datetime::{date_days, time_micros, timestamp_micros};
pub use decimal::{Decimal, decimal};
pub use number::{boolean, float32, float64, signed, unsigned};

/// Why a value has no counterpart in the type that it is to become.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Misfit {
    /// Less than the least the type holds (`-infinity` included).
    Below,
    /// More than the most the type holds (`infinity` included).
    Above,
    /// A NaN in a decimal.
    NotANumber,
    /// More fractional digits than the decimal has.
    Scale,
    /// An array with another number of dimensions than one, or with a lower bound other than 1.
    Shape,
    /// Not the text form of the type.
    Malformed,
}

impl Misfit {
    /// The reason, to go after "because".
    pub fn reason(self) -> &'static str {
        match self {
            Self::Below => "it is below the least value of the column's type",
            Self::Above => "it is above the greatest value of the column's type",
            Self::NotANumber => "the column's type has no NaN",
            Self::Scale => "it has more fractional digits than the column's type",
            Self::Shape => "the column's type holds only one-dimensional arrays that begin at 1",
            Self::Malformed => "it is not a text form of the source's type",
        }
    }
}
