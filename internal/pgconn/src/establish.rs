use crate::options::socket_path;
use crate::tls::TlsClient;
use crate::{ConnectError, ConnectOptions, ErrorKind, Host, Keepalive, PgStream, SslMode, StartupError};
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

/// How the socket itself is to be.
#[derive(Clone, Copy, Debug, Default)]
pub struct SocketOptions {
    /// `SO_RCVBUF` for a peer that is near: on this machine, or so close (another container, the same rack) that
    /// a small window never slows it down. Over any distance the kernel's own growing window is needed, and
    /// left alone.
    pub near_receive_buffer_bytes: Option<u32>,
}

/// A peer that takes a connection within this time is near. A window of 128 KiB a round trip of this length
/// is 260 MB/s, more than a walsender sends.
const NEAR: Duration = Duration::from_micros(500);

/// Code of `SSLRequest`: <https://www.postgresql.org/docs/current/protocol-message-formats.html>.
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];

/// When nobody says. libpq waits for ever, which is how a process hangs on a host that drops packets.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// Connects to the first server that lets `startup` succeed. `startup` gets a stream on which TLS has been
/// agreed on, and the host it leads to; it does everything from the startup message on.
///
/// Under `sslmode=prefer` a server that has no TLS, fails at it or whose `pg_hba.conf` has no line for it,
/// is tried without. One attempt, from the first packet until `startup` returns, takes at most the connect
/// timeout.
///
/// # Errors
/// Of the last attempt. A server that says no for good (wrong password, no such database) ends the search.
pub async fn establish<T, F, S>(
    options: &ConnectOptions,
    socket: SocketOptions,
    mut startup: S,
) -> Result<T, ConnectError>
where
    S: FnMut(PgStream, Host) -> F,
    F: Future<Output = Result<T, StartupError>>,
{
    let tls = TlsClient::of(options)?;
    let mut failure = None;
    for host in &options.hosts {
        let attempt = Attempt { options, socket, host, place: options.place(host) };
        let targets = match attempt.targets().await {
            Ok(targets) => targets,
            Err(error) => {
                failure = Some(error);
                continue;
            }
        };
        for target in targets {
            let mut outcome = attempt.run(&target, tls.as_ref(), &mut startup).await;
            if tls.is_some() && outcome.as_ref().is_err_and(|failure| failure.without_tls_may_help) {
                outcome = attempt.run(&target, None, &mut startup).await;
            }
            match outcome {
                Ok(done) => return Ok(done),
                Err(Failure { error, .. }) if error.kind() == ErrorKind::Halt => return Err(error),
                Err(Failure { error, .. }) => failure = Some(error),
            }
        }
    }
    Err(failure.unwrap_or_else(|| ConnectError::halt("the Postgres URL names no host")))
}

enum Target {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

struct Failure {
    error: ConnectError,
    without_tls_may_help: bool,
}

/// What all attempts at one host share.
struct Attempt<'a> {
    options: &'a ConnectOptions,
    socket: SocketOptions,
    host: &'a Host,
    place: String,
}

impl Attempt<'_> {
    fn limit(&self) -> Duration {
        self.options.connect_timeout.unwrap_or(CONNECT_TIMEOUT)
    }

    fn timed_out(&self) -> ConnectError {
        ConnectError::timed_out(&self.place, self.limit().as_secs_f32())
    }

    async fn targets(&self) -> Result<Vec<Target>, ConnectError> {
        let (name, port) = match self.host {
            Host::Unix { directory, port } => return Ok(vec![Target::Unix(socket_path(directory, *port))]),
            Host::Tcp { name, port } => (name, *port),
        };
        let no_address = |why: &dyn std::fmt::Display| {
            let place = &self.place;
            ConnectError::retry(format!(
                "cannot connect to Postgres at {place}: {name} has no address ({why}); check the host's name and DNS"
            ))
        };
        let found = tokio::time::timeout(self.limit(), tokio::net::lookup_host((name.as_str(), port))).await;
        let found = found.map_err(|_| self.timed_out())?.map_err(|error| no_address(&error))?;
        let targets: Vec<Target> = found.map(Target::Tcp).collect();
        if targets.is_empty() { Err(no_address(&"none found")) } else { Ok(targets) }
    }

    async fn run<T, F, S>(
        &self,
        target: &Target,
        tls: Option<&TlsClient>,
        startup: &mut S,
    ) -> Result<T, Failure>
    where
        S: FnMut(PgStream, Host) -> F,
        F: Future<Output = Result<T, StartupError>>,
    {
        let prefer = self.options.ssl_mode == SslMode::Prefer;
        let work = async {
            let stream = match target {
                Target::Unix(path) => {
                    PgStream::unix(UnixStream::connect(path).await.map_err(|e| (e.into(), false))?)
                }
                Target::Tcp(address) => {
                    let (tcp, near) = self.tcp(*address).await.map_err(|error| (error.into(), false))?;
                    match tls {
                        None => PgStream::tcp(tcp, near),
                        Some(tls) => self.encrypt(tcp, near, tls).await.map_err(|error| (error, prefer))?,
                    }
                }
            };
            // No line of pg_hba.conf for TLS connections.
            let may_be_refused_for_tls = prefer && stream.is_tls();
            startup(stream, self.host.clone()).await.map_err(|error| {
                let refused = matches!(&error, StartupError::Server(error) if error.code == "28000");
                (error, refused && may_be_refused_for_tls)
            })
        };
        match tokio::time::timeout(self.limit(), work).await {
            Ok(Ok(done)) => Ok(done),
            Ok(Err((error, without_tls_may_help))) => {
                let error = ConnectError::of_startup(error, self.options, self.host);
                Err(Failure { error, without_tls_may_help })
            }
            Err(_) => Err(Failure { error: self.timed_out(), without_tls_may_help: false }),
        }
    }

    async fn tcp(&self, address: SocketAddr) -> io::Result<(TcpStream, bool)> {
        let began = Instant::now();
        let stream = TcpStream::connect(address).await?;
        let near = address.ip().is_loopback() || began.elapsed() < NEAR;
        if let Some(bytes) = self.socket.near_receive_buffer_bytes.filter(|_| near) {
            socket2::SockRef::from(&stream).set_recv_buffer_size(bytes as usize)?;
        }
        stream.set_nodelay(true)?;
        keep_alive(&stream, &self.options.keepalive)?;
        Ok((stream, near))
    }

    /// Asks for TLS and does the handshake.
    async fn encrypt(
        &self,
        mut stream: TcpStream,
        near: bool,
        tls: &TlsClient,
    ) -> Result<PgStream, StartupError> {
        stream.write_all(&SSL_REQUEST).await?;
        // Exactly one byte: anything that follows it unencrypted was put there by somebody else (CVE-2021-23222),
        // and is left to the handshake to stumble over.
        match stream.read_u8().await? {
            b'S' => tls.handshake(stream, near, self.host).await,
            b'N' if self.options.ssl_mode == SslMode::Prefer => Ok(PgStream::tcp(stream, near)),
            b'N' => Err(StartupError::Refused(format!(
                "the server has no TLS, and sslmode={} wants it; set `ssl = on` there, or sslmode=disable",
                self.options.ssl_mode.name()
            ))),
            // Some servers answer with an error message instead, which is not to be trusted before TLS.
            _ => Err(StartupError::Protocol("the answer to a TLS request was not understood".to_owned())),
        }
    }
}

fn keep_alive(stream: &TcpStream, keepalive: &Keepalive) -> io::Result<()> {
    let socket = socket2::SockRef::from(stream);
    if !keepalive.enabled {
        return socket.set_keepalive(false);
    }
    let probes = socket2::TcpKeepalive::new()
        .with_time(keepalive.idle)
        .with_interval(keepalive.interval)
        .with_retries(keepalive.count);
    socket.set_tcp_keepalive(&probes)?;
    socket.set_tcp_user_timeout(Some(keepalive.user_timeout))
}
