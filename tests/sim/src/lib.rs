//! The whole replicator under one seed, with virtual time: the real decoder, dispatcher, batches, waiting tables,
//! transactions in progress, turns of the lanes, pauses and checkpoint, between a simulated Postgres and simulated sinks.
//!
//! ```text
//!   clients ─▶ Server (log, slot) ─frames─▶ network ─▶ reader ─▶ Pipeline ─▶ Turns ─▶ writes ─▶ Stores (memory ─▶ disk)
//!                 ▲                                     (budget)    │ ▲                  │
//!                 └──────── feedback ◀──────────────── watermark ◀──┘ └──── reports ◀────┘
//!                            └─ every value is compared with what the disks have
//! ```
//!
//! All that happens is an event with a time. The seed decides what the clients do, how long everything takes, and what
//! fails: writes before, in the middle, or after they are applied, answers, sinks, the connection, the source, the
//! process. So a seed is a schedule, and the same one each time: a [`Plan`] made of it gives the same [`Outcome`].
//!
//! What holds at every step:
//! - what is acknowledged is on the disk of every sink, or in no need of being there;
//! - a lane gets its changes in order, and a row's changes are applied in order;
//! - nothing is handed out twice in the life of a process;
//! - the watermark never goes back in the life of a process;
//! - memory stays within the budget.
//!
//! And at the end, when nothing fails any more: the watermark comes to the end of the log, within bounded time, and every
//! sink has what the source has.
//!
//! Not simulated: threads, sockets and the sinks' own code (the chaos tests have those).

mod chance;
mod copies;
mod keeper;
mod many;
mod plan;
mod process;
mod reached;
mod server;
mod store;
mod table;
mod world;

pub use many::{Report, run_guarded, run_many};
pub use plan::{Fault, Inject, Plan, Sabotage};
pub use reached::{Reached, SOMETIMES};
pub use world::{Outcome, Violation, run};
