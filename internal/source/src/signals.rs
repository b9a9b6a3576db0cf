use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::Notify;

/// What the [`Reader`](crate::Reader) and the handles tell the [`Feedback`](crate::Feedback) task.
#[derive(Debug, Default)]
pub(crate) struct Signals {
    /// The server wants to hear from us.
    reply: AtomicBool,
    /// Somebody wants to hear from the server.
    ping: AtomicBool,
    /// The stream is to end.
    finish: AtomicBool,
    /// Nobody reads the stream any more.
    abandon: AtomicBool,
    changed: Notify,
}

impl Signals {
    pub(crate) fn reply(&self) {
        self.raise(&self.reply);
    }

    pub(crate) fn ping(&self) {
        self.raise(&self.ping);
    }

    pub(crate) fn finish(&self) {
        self.raise(&self.finish);
    }

    pub(crate) fn abandon(&self) {
        self.raise(&self.abandon);
    }

    pub(crate) fn take_reply(&self) -> bool {
        self.reply.swap(false, Ordering::AcqRel)
    }

    pub(crate) fn take_ping(&self) -> bool {
        self.ping.swap(false, Ordering::AcqRel)
    }

    pub(crate) fn is_finishing(&self) -> bool {
        self.finish.load(Ordering::Acquire)
    }

    pub(crate) fn is_abandoned(&self) -> bool {
        self.abandon.load(Ordering::Acquire)
    }

    /// Ends when something was raised since the last call.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    fn raise(&self, flag: &AtomicBool) {
        flag.store(true, Ordering::Release);
        // One permit is kept when nobody waits, so that nothing raised is slept over.
        self.changed.notify_one();
    }
}
