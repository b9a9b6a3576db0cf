//! The sink against the real engine: batches built by hand, written through lanes, read back.

mod history;
mod mirror;
mod operations;
mod schema;
mod support;
mod toast;
mod values;
