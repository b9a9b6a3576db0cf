//! Real servers, a real load, and faults at random.
//!
//! ```text
//!   writers ──▶ Postgres ──proxy──▶ replicator ──proxy──▶ ClickHouse · Postgres · S3
//!      │            │                   │                        │
//!    ledger      restart, crash      kill -9, stop            crash, cut, stall, refuse
//!      │            │                                            │
//!      └─── equal ──┴───────────────── equal ────────────────────┘      after each round
//! ```
//! Every writer keeps a ledger of what it committed, so that the source itself is not the only witness. A seed decides
//! which faults come, and when; what they hit depends on the machine.

mod faults;
mod ledger;
mod rounds;

pub use rounds::{Report, Settings, run};
