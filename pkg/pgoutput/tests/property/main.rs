//! The decoder against any messages and any bytes.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod any_message;
mod hostile_bytes;
mod round_trip;
mod wire;
