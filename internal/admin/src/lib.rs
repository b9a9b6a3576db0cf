//! The admin listener: what a scraper, an orchestrator and an operator ask the process.
//!
//! ```text
//!   source, sinks ──set_source, set_sink──▶ ReadyState ──▶ /readyz   200 or 503, with reasons
//!   pipeline thread ──PipelineGuard──────▶     │      ──▶ /healthz  200 or 503
//!   recorder ──────────────────────────────────────────▶ /metrics  Prometheus text 0.0.4
//! ```
//!
//! # Invariants
//! - Not ready is not unhealthy: a sink that is away makes `/readyz` 503 and leaves `/healthz` 200, since a
//!   restart would not bring it back.
//! - Every part is not ready until it has said that it is.
//! - Reasons are error texts, which hold no secrets by their own contract.

mod ready;
mod server;

pub use ready::{PipelineGuard, ReadyState};
pub use server::{Endpoints, bind, serve};
