//! Metrics: their names, their descriptions, and handles to count with.
//!
//! Get handles ([`SourceMetrics`], [`PipelineMetrics`], [`SinkMetrics`]) once, after [`install`]: a handle
//! made before counts nothing. Counting through a handle is an atomic operation; making one is a look-up.
//!
//! LSNs are exported as numbers of bytes of WAL since its beginning. A metric is a 64-bit float, which is
//! exact up to 2^53: 8 PiB of WAL.

mod handles;
mod names;
mod recorder;

pub use handles::{CopyMetrics, Failure, PipelineMetrics, SinkMetrics, SourceMetrics};
pub use names::*;
pub use recorder::{describe_all, install};
