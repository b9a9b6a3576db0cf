//! What the end-to-end tests share: a source with the three sinks, a supervisor that starts the replicator
//! again whenever it ends, and the comparison of everything with everything.

mod archive_state;
mod supervisor;
mod world;

pub use archive_state::assert_archive_folds_to;
pub use supervisor::Supervisor;
pub use world::{Table, World, drain};
