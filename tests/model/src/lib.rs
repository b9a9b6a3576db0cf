//! Models that tests compare with: a source in miniature that knows what every sink has to end with, and the bytes that
//! its walsender would send.

mod line;
pub mod shape;
pub mod source;
pub mod wire;

pub use line::line;
