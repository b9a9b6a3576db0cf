//! What the end-to-end tests share: a source with the three sinks, a supervisor that starts the replicator
//! again whenever it ends, and the comparison of everything with everything.

mod archive_state;
mod evolution;
mod history;
mod progress;
mod published;
mod supervisor;
pub mod types;
mod world;

pub use archive_state::{Described, assert_archive_folds_to, described_events, fold, fold_newest};
pub use evolution::Evolution;
pub use history::{changes_in_history, history_database, history_is_as_archive, with_history};
pub use progress::{stop, stream, wait_for_copy, wait_for_stream, wait_until_caught_up};
pub use published::{Published, Sinks, published};
pub use supervisor::Supervisor;
pub use world::{Table, World, drain, resync};
