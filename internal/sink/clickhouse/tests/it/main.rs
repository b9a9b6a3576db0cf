//! The sink against the real engine: batches built by hand, written through lanes, read back.

#![allow(clippy::unwrap_used)] // The helpers are part of the tests.

mod binary;
mod copy;
mod evolve;
mod history;
mod mirror;
mod notes;
mod operations;
mod retype;
mod schema;
mod support;
mod toast;
mod values;
