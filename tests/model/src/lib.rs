//! Models that tests compare with: a source in miniature that knows what every sink has to end with, and the bytes that
//! its walsender would send.

pub mod source;
pub mod wire;
