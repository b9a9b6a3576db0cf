use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_postgres::tls::{ChannelBinding, TlsStream};
use tokio_rustls::client;

/// A connected socket, TLS agreed on, before the startup message.
#[derive(Debug)]
pub struct PgStream {
    transport: Transport,
    end_point_hash: Option<Vec<u8>>,
    near: bool,
}

#[derive(Debug)]
enum Transport {
    Tcp(TcpStream),
    Unix(UnixStream),
    Tls(Box<client::TlsStream<TcpStream>>),
}

impl PgStream {
    pub(crate) fn tcp(stream: TcpStream, near: bool) -> Self {
        Self { transport: Transport::Tcp(stream), end_point_hash: None, near }
    }

    pub(crate) fn unix(stream: UnixStream) -> Self {
        Self { transport: Transport::Unix(stream), end_point_hash: None, near: true }
    }

    pub(crate) fn tls(stream: client::TlsStream<TcpStream>, near: bool) -> Self {
        let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
        let end_point_hash =
            certificate.and_then(|certificate| crate::certificate::end_point_hash(certificate));
        Self { transport: Transport::Tls(Box::new(stream)), end_point_hash, near }
    }

    /// Whether it is TCP, with or without TLS, rather than a unix socket.
    pub fn is_tcp(&self) -> bool {
        !matches!(self.transport, Transport::Unix(_))
    }

    /// Whether the peer is on this machine or next to it: see [`SocketOptions`](crate::SocketOptions).
    pub fn is_near(&self) -> bool {
        self.near
    }

    /// Whether it is encrypted.
    pub fn is_tls(&self) -> bool {
        matches!(self.transport, Transport::Tls(_))
    }

    /// The `tls-server-end-point` channel binding data (RFC 5929): a hash of the server's certificate. None
    /// without TLS, or for a certificate whose signature has no hash (Ed25519).
    pub fn end_point_hash(&self) -> Option<&[u8]> {
        self.end_point_hash.as_deref()
    }
}

macro_rules! delegate {
    ($self:ident, $inner:ident => $call:expr) => {
        match &mut $self.get_mut().transport {
            Transport::Tcp($inner) => {
                let $inner = Pin::new($inner);
                $call
            }
            Transport::Unix($inner) => {
                let $inner = Pin::new($inner);
                $call
            }
            Transport::Tls($inner) => {
                let $inner = Pin::new($inner.as_mut());
                $call
            }
        }
    };
}

impl AsyncRead for PgStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        delegate!(self, inner => inner.poll_read(cx, buf))
    }
}

impl AsyncWrite for PgStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        delegate!(self, inner => inner.poll_write(cx, buf))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        delegate!(self, inner => inner.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        delegate!(self, inner => inner.poll_shutdown(cx))
    }
}

impl TlsStream for PgStream {
    fn channel_binding(&self) -> ChannelBinding {
        match &self.end_point_hash {
            Some(hash) => ChannelBinding::tls_server_end_point(hash.clone()),
            None => ChannelBinding::none(),
        }
    }
}
