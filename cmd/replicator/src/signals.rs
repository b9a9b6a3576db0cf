//! SIGTERM and SIGINT: the first asks for an orderly end, the second for an end at once.

use slog::{Logger, warn};
use tokio::signal::unix::{Signal, SignalKind, signal};

pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    pub(crate) fn new() -> Result<Self, String> {
        let listen = |kind| signal(kind).map_err(|error| format!("cannot listen for signals: {error}"));
        Ok(Self { terminate: listen(SignalKind::terminate())?, interrupt: listen(SignalKind::interrupt())? })
    }

    /// The next signal's name.
    pub(crate) async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }

    /// Ends the process at the next signal. What is not durable was not acknowledged, so nothing is lost.
    pub(crate) fn exit_at_next(mut self, logger: Logger) {
        tokio::spawn(async move {
            let name = self.next().await;
            warn!(logger, "second signal, ending at once"; "signal" => name);
            std::process::exit(1);
        });
    }
}
