//! The paths that are hard to come by. A run of many seeds that misses one has not tested what it says.

use std::collections::BTreeSet;

/// The paths that a schedule took.
pub type Reached = BTreeSet<&'static str>;

macro_rules! paths {
    ($($name:ident: $text:literal,)*) => {
        $(pub(crate) const $name: &str = $text;)*

        /// Every path that a run of many seeds has to reach.
        pub const SOMETIMES: &[&str] = &[$($text),*];
    };
}

paths! {
    BACK_PRESSURE: "the reader waits for the budget",
    REPLAY: "a lane is given what its sink has from before a restart",
    KEY_CHANGE: "a key change goes from one shard to another",
    SPILL: "something waits in a file",
    TRUNCATE: "a truncate passes a fence",
    FENCE_WAITS: "a fence waits for a write of another lane",
    FENCED_KEY_CHANGE: "a key change that only the sink can complete passes a fence",
    FENCE_CATCHING_UP: "a fence while a table catches up",
    STREAM_ABORT: "a streamed transaction is rolled back",
    SUBTRANSACTION_ABORT: "a subtransaction of a streamed transaction is rolled back",
    COMMIT_PREPARED: "a prepared transaction commits",
    ROLLBACK_PREPARED: "a prepared transaction is rolled back",
    KILL_UNFINISHED: "the process dies with a transaction in progress",
    KILL_CATCHING_UP: "the process dies while a table catches up",
    KILL_IN_FLIGHT: "the process dies and a write of it lands all the same",
    RECONNECT_UNFINISHED: "the connection breaks with a transaction in progress",
    SLOT_BACK: "the slot's position goes back with a crash of the source",
    FAILED_BEFORE: "a write fails before anything is applied",
    FAILED_PART: "a write fails with some of it applied",
    FAILED_AFTER: "a write fails when all of it is applied",
    HUNG: "a write hangs until it is cancelled",
    PREPARE_FAILED: "a lane cannot prepare a batch at first",
    SINK_LOST: "a sink loses what was not on its disk",
    OVERTAKEN: "a later write of a lane is durable before an earlier one",
    COPIED: "a table is copied and catches up",
    COPY_RESUMED: "a copy is taken up where it was",
    LIVE_IN_TRANSACTION: "a table has caught up in the middle of a transaction",
    NEW_TABLE: "a table comes up that was not known",
    HELD: "a live table is copied anew",
    ALTERED: "sinks follow a change of a table's schema",
    ALTERED_OVERTAKEN: "other tables' changes overtake those of a table that sinks alter",
    ALTERED_IN_TRANSACTION: "a table is altered in the middle of a transaction",
    ALTERED_TWICE: "a table's changes go on waiting for its next version",
    ALTERED_AGAIN: "a table waits again for a change of its schema behind a restart",
    JOINED: "a table is apart from its process' beginning on",
    ALTER_REFUSED: "a sink refuses a change of a table's schema for long",
    CATALOG_ONLY: "sinks are told of a change of schema that only the catalog shows",
    GUESSED: "a live table is copied anew since its columns are a guess",
    GUESSED_WAITING: "a table that waits is copied again since its columns are a guess",
    KILL_ALTERING: "the process dies while sinks alter a table",
    KILL_CAUGHT_UP: "the process dies when a table has caught up and that is not written down",
    COPY_INSTEAD: "a table is copied that sinks are altering",
    COPY_BEHIND: "a table that catches up with a change of its schema is to be copied behind that",
    ACKNOWLEDGED_IN_BETWEEN: "something is acknowledged while later writes are in flight",
}
