//! The runtime that in-process servers run on: not the test's, so that a test may block, or end its own.

use std::sync::LazyLock;
use std::time::Duration;
use tokio::net::{TcpListener, TcpSocket};
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("harness-server")
        .enable_all()
        .build()
        .expect("start the harness' runtime")
});

pub(crate) fn spawn<F>(future: F) -> JoinHandle<F::Output>
where
    F: Future<Output: Send> + Send + 'static,
{
    RUNTIME.spawn(future)
}

/// Listens on 127.0.0.1. Waits for an earlier listener of ours on that port to go away.
pub(crate) fn listen(port: u16) -> TcpListener {
    let _inside = RUNTIME.enter();
    crate::eventually_blocking(Duration::from_secs(10), &format!("listen on port {port}"), || {
        let socket = TcpSocket::new_v4()?;
        socket.set_reuseaddr(true)?;
        socket.bind(([127, 0, 0, 1], port).into())?;
        socket.listen(1024)
    })
}

/// Ends a task and waits until it has let go of what it held.
pub(crate) fn stop(task: JoinHandle<()>) {
    task.abort();
    crate::eventually_blocking(Duration::from_secs(10), "a server task to end", || {
        task.is_finished().then_some(()).ok_or("it runs")
    });
}
