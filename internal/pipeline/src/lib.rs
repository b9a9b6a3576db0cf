//! From received bytes to durable batches and back to the LSN that may be acknowledged.
//!
//! [`Pipeline`] is the stages joined, without I/O. [`start`] drives it: one thread that decodes, dispatches
//! and keeps the checkpoint, and one thread for each lane of each sink.

mod accounts;
mod backoff;
mod batcher;
mod checkpoint;
mod copy_lanes;
mod dispatcher;
mod driver;
mod pipeline;
mod relations;
mod rewrite;
mod turns;
mod unfinished;
mod waiting;
mod worker;

pub use backoff::Backoff;
pub use batcher::BatchLimits;
pub use checkpoint::Checkpoint;
pub use copy_lanes::{CopyLanes, CopyReport};
pub use dispatcher::{DispatchError, LaneId, Output, Route};
pub use driver::{Event, Input, Running, Settings, SinkLanes, start};
pub use pipeline::{Counts, Doubt, Notice, Pipeline, PipelineError, Standing};
pub use rewrite::{Rewrite, rewrite_of};
pub use turns::Turns;
