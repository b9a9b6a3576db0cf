use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Whether the process is ready, part by part. Clones share one state.
#[derive(Clone, Debug)]
pub struct ReadyState(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    source: Part,
    sinks: BTreeMap<String, Part>,
    /// Pipeline threads that began and have not ended; `None` before the first.
    pipelines: Option<usize>,
}

/// One part's readiness, as `/readyz` shows it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct Part {
    pub(crate) ok: bool,
    /// Why not; null when it is.
    pub(crate) reason: Option<String>,
}

/// The body of `/readyz`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct Readiness {
    pub(crate) ready: bool,
    pub(crate) source: Part,
    pub(crate) sinks: BTreeMap<String, Part>,
}

impl From<Result<(), String>> for Part {
    fn from(result: Result<(), String>) -> Self {
        Self { ok: result.is_ok(), reason: result.err() }
    }
}

impl ReadyState {
    /// The state of a process that has just begun: the source and each of `sinks` is not ready yet.
    pub fn new(sinks: impl IntoIterator<Item = impl Into<String>>) -> Self {
        let starting = Part::from(Err("starting".to_owned()));
        let sinks = sinks.into_iter().map(|name| (name.into(), starting.clone())).collect();
        Self(Arc::new(Mutex::new(State { source: starting, sinks, pipelines: None })))
    }

    /// The replication stream is open, or why it is not.
    pub fn set_source(&self, result: Result<(), String>) {
        self.state().source = result.into();
    }

    /// The sink of that name takes data, or why it does not.
    pub fn set_sink(&self, name: &str, result: Result<(), String>) {
        self.state().sinks.insert(name.to_owned(), result.into());
    }

    /// Whether everything is ready.
    pub fn is_ready(&self) -> bool {
        self.readiness().ready
    }

    /// To be held by a pipeline thread for as long as it runs. When it goes, also by a panic, the process
    /// is no longer healthy.
    pub fn pipeline_guard(&self) -> PipelineGuard {
        *self.state().pipelines.get_or_insert(0) += 1;
        PipelineGuard(self.clone())
    }

    pub(crate) fn readiness(&self) -> Readiness {
        let state = self.state();
        let ready = state.source.ok && state.sinks.values().all(|sink| sink.ok);
        Readiness { ready, source: state.source.clone(), sinks: state.sinks.clone() }
    }

    pub(crate) fn is_alive(&self) -> bool {
        self.state().pipelines != Some(0)
    }

    /// A holder that panicked has left no half-made change: each is one assignment.
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// See [`ReadyState::pipeline_guard`].
#[derive(Debug)]
#[must_use = "the process counts as unhealthy once the guard is gone"]
pub struct PipelineGuard(ReadyState);

impl Drop for PipelineGuard {
    fn drop(&mut self) {
        if let Some(count) = &mut self.0.state().pipelines {
            *count = count.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_means_the_source_and_every_sink() {
        let state = ReadyState::new(["one", "two"]);
        assert!(!state.is_ready());
        state.set_source(Ok(()));
        state.set_sink("one", Ok(()));
        assert!(!state.is_ready(), "two is still starting");
        state.set_sink("two", Ok(()));
        assert!(state.is_ready());
        state.clone().set_sink("one", Err("connection refused".into()));
        let readiness = state.readiness();
        assert!(!readiness.ready);
        assert_eq!(readiness.sinks["one"].reason.as_deref(), Some("connection refused"));
        assert_eq!(readiness.sinks["two"], Part { ok: true, reason: None });
    }

    #[test]
    fn a_pipeline_thread_that_panics_ends_the_process_health() {
        let state = ReadyState::new(["one"]);
        assert!(state.is_alive(), "not yet begun is not dead");
        let guard = state.pipeline_guard();
        assert!(state.is_alive());
        let thread = std::thread::spawn(move || {
            let _guard = guard;
            panic!("on purpose");
        });
        assert!(thread.join().is_err());
        assert!(!state.is_alive());
    }
}
