use crate::background;
use crate::scratch::Port;
use std::io;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

const BUFFER_BYTES: usize = 64 << 10;

/// No limit: more than anybody forwards.
const UNLIMITED: i64 = i64::MAX / 2;

/// A TCP proxy that misbehaves on request.
///
/// ```text
///   client ──▶ Proxy ──▶ upstream      cut: both connections are reset
///                                      stall: nothing is read, nothing is closed
///                                      refuse: no new connections (connection refused)
///                                      delay: every piece is late
///                                      fail_answer, answer_all: HTTP 500 in the place of answers
/// ```
#[derive(Debug)]
pub struct Proxy {
    port: Port,
    upstream: String,
    shared: Arc<Shared>,
    listening: Mutex<Option<JoinHandle<()>>>,
}

/// A direction of flow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    /// From the client.
    ToUpstream,
    /// From the server.
    ToClient,
}

#[derive(Debug)]
struct Shared {
    /// Counts the cuts; connections end when it moves.
    cuts: watch::Sender<u64>,
    stalled: watch::Sender<bool>,
    connections: AtomicU64,
    delay_ms: AtomicU64,
    failing: Mutex<Failing>,
    to_upstream: Flow,
    to_client: Flow,
}

/// Which answers are replaced.
#[derive(Debug, Default)]
enum Failing {
    #[default]
    None,
    /// The next one, by an error that breaks off.
    Next,
    /// Each.
    All(Vec<u8>),
}

/// An error whose body is longer than what comes of it.
const BROKEN_ANSWER: &[u8] =
    b"HTTP/1.1 500 Internal Server Error\r\nContent-Type: text/plain\r\nContent-Length: 4000\r\n\r\nhalf of a rea";

#[derive(Debug)]
struct Flow {
    forwarded: AtomicU64,
    /// Bytes until the cut.
    left: AtomicI64,
}

impl Default for Flow {
    fn default() -> Self {
        Self { forwarded: AtomicU64::new(0), left: AtomicI64::new(UNLIMITED) }
    }
}

impl Shared {
    fn flow(&self, direction: Direction) -> &Flow {
        match direction {
            Direction::ToUpstream => &self.to_upstream,
            Direction::ToClient => &self.to_client,
        }
    }

    fn cut(&self) {
        self.cuts.send_modify(|count| *count += 1);
    }

    fn failing(&self) -> MutexGuard<'_, Failing> {
        self.failing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What comes in the place of an answer that begins.
    fn instead(&self) -> Option<Vec<u8>> {
        let mut failing = self.failing();
        match &*failing {
            Failing::None => None,
            Failing::All(answer) => Some(answer.clone()),
            Failing::Next => {
                *failing = Failing::None;
                Some(BROKEN_ANSWER.to_vec())
            }
        }
    }
}

impl Proxy {
    /// Starts one in front of `upstream` (`host:port`).
    pub fn start(upstream: impl Into<String>) -> Self {
        let shared = Shared {
            cuts: watch::Sender::new(0),
            stalled: watch::Sender::new(false),
            connections: AtomicU64::new(0),
            delay_ms: AtomicU64::new(0),
            failing: Mutex::default(),
            to_upstream: Flow::default(),
            to_client: Flow::default(),
        };
        let proxy = Self {
            port: Port::take(),
            upstream: upstream.into(),
            shared: Arc::new(shared),
            listening: Mutex::new(None),
        };
        proxy.accept();
        proxy
    }

    /// Its port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// `127.0.0.1:{port}`
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port())
    }

    /// `url` with the upstream's `host:port` replaced by the proxy's.
    ///
    /// # Panics
    /// When `url` does not name the upstream.
    pub fn rewrite(&self, url: &str) -> String {
        assert!(url.contains(&self.upstream), "the proxy is for {}, the URL is another's", self.upstream);
        url.replacen(&self.upstream, &self.address(), 1)
    }

    /// Resets all connections. New ones are taken.
    pub fn cut(&self) {
        self.shared.cut();
    }

    /// Forwards exactly `bytes` more in that direction, over all connections together, then [`Proxy::cut`]s
    /// once.
    pub fn cut_after(&self, bytes: u32, direction: Direction) {
        self.shared.flow(direction).left.store(i64::from(bytes), Ordering::SeqCst);
    }

    /// Takes back a [`Proxy::cut_after`] that has not come to it.
    pub fn forget_cut(&self) {
        for flow in [&self.shared.to_upstream, &self.shared.to_client] {
            flow.left.store(UNLIMITED, Ordering::SeqCst);
        }
    }

    /// Stops reading, in both directions; connections stay open and new ones are taken. What was read before
    /// (64 KiB a connection at most) still gets out.
    pub fn stall(&self) {
        self.shared.stalled.send_replace(true);
    }

    /// Forwards again.
    pub fn resume(&self) {
        self.shared.stalled.send_replace(false);
    }

    /// Lets every piece of up to 64 KiB wait for so long, in both directions, before it goes on; 0 for not at all.
    pub fn delay(&self, ms: u64) {
        self.shared.delay_ms.store(ms, Ordering::SeqCst);
    }

    /// Gives the client, in the place of the next answer that begins (HTTP), one of status 500 that breaks off in its body.
    /// Whatever was asked for has been done then.
    pub fn fail_answer(&self) {
        *self.shared.failing() = Failing::Next;
    }

    /// Gives the client, in the place of every answer (HTTP), this error.
    pub fn answer_all(&self, error: &str) {
        let head = "HTTP/1.1 500 Internal Server Error\r\nContent-Type: text/plain";
        let answer = format!("{head}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{error}", error.len());
        *self.shared.failing() = Failing::All(answer.into_bytes());
    }

    /// Answers are those of the server again. Returns whether a [`Proxy::fail_answer`] had not come to it.
    pub fn forget_answer(&self) -> bool {
        matches!(std::mem::take(&mut *self.shared.failing()), Failing::Next)
    }

    /// Takes no more connections; those there are stay.
    pub fn refuse(&self) {
        let listening = self.listening.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(listening) = listening {
            background::stop(listening);
        }
    }

    /// Takes connections again.
    pub fn accept(&self) {
        let mut listening = self.listening.lock().unwrap_or_else(PoisonError::into_inner);
        if listening.is_none() {
            let listener = background::listen(self.port());
            *listening =
                Some(background::spawn(listen(listener, self.upstream.clone(), Arc::clone(&self.shared))));
        }
    }

    /// Bytes forwarded so far in that direction.
    pub fn forwarded_bytes(&self, direction: Direction) -> u64 {
        self.shared.flow(direction).forwarded.load(Ordering::SeqCst)
    }

    /// Connections taken so far.
    pub fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.refuse();
        self.cut();
    }
}

async fn listen(listener: TcpListener, upstream: String, shared: Arc<Shared>) {
    while let Ok((client, _)) = listener.accept().await {
        shared.connections.fetch_add(1, Ordering::SeqCst);
        let cuts = shared.cuts.subscribe();
        // Not this task's child: refusing new connections leaves the old ones.
        background::spawn(connection(client, upstream.clone(), Arc::clone(&shared), cuts));
    }
}

async fn connection(
    mut client: TcpStream,
    upstream: String,
    shared: Arc<Shared>,
    mut cuts: watch::Receiver<u64>,
) {
    let Ok(mut server) = TcpStream::connect(upstream).await else { return };
    let _ = client.set_nodelay(true);
    let _ = server.set_nodelay(true);
    let ended_well = {
        let (client_read, client_write) = client.split();
        let (server_read, server_write) = server.split();
        let both = async {
            tokio::try_join!(
                forward(client_read, server_write, &shared, Direction::ToUpstream),
                forward(server_read, client_write, &shared, Direction::ToClient),
            )
        };
        tokio::select! {
            outcome = both => outcome.is_ok(),
            _ = cuts.changed() => false,
        }
    };
    if !ended_well {
        // Closing with this set sends a reset and drops what is unsent, as a broken peer or a firewall would.
        let _ = client.set_zero_linger();
        let _ = server.set_zero_linger();
    }
}

/// Copies until the reader ends, then passes the end on.
async fn forward(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    shared: &Shared,
    direction: Direction,
) -> io::Result<()> {
    let mut stalled = shared.stalled.subscribe();
    let mut buffer = vec![0; BUFFER_BYTES];
    let flow = shared.flow(direction);
    loop {
        // The sender lives in `shared`, so these waits cannot fail.
        let _ = stalled.wait_for(|stalled| !stalled).await;
        let count = tokio::select! {
            count = from.read(&mut buffer) => count?,
            _ = stalled.wait_for(|stalled| *stalled) => continue,
        };
        if count == 0 {
            return to.shutdown().await;
        }
        let delay_ms = shared.delay_ms.load(Ordering::SeqCst);
        if delay_ms > 0 {
            tokio::time::sleep(Duration::from_millis(delay_ms)).await;
        }
        let begins = direction == Direction::ToClient && buffer.starts_with(b"HTTP/1.1 200");
        if let Some(answer) = begins.then(|| shared.instead()).flatten() {
            to.write_all(&answer).await?;
            return to.shutdown().await;
        }
        let left = flow.left.fetch_sub(count as i64, Ordering::SeqCst);
        let allowed = usize::try_from(left).unwrap_or(0).min(count);
        to.write_all(&buffer[..allowed]).await?;
        flow.forwarded.fetch_add(allowed as u64, Ordering::SeqCst);
        if left <= count as i64 {
            // The one that took the last of it cuts; others at it at the same time wait for that.
            if left >= 0 {
                flow.left.store(UNLIMITED, Ordering::SeqCst);
                shared.cut();
            }
            std::future::pending::<()>().await;
        }
    }
}
