//! How this program connects to any Postgres: the source, as a replication client and for SQL, and the
//! Postgres sink.
//!
//! ```text
//!   URL + environment ─▶ ConnectOptions ─▶ establish: for each host, each address, with TLS then without
//!                                            │            (as sslmode allows) within the time limit
//!                                  dial ─▶ SSLRequest ─▶ TLS ─▶ PgStream ─▶ the caller's startup
//!                                                                            ├─ tokio-postgres (`connect`)
//!                                                                            └─ the replication connection
//! ```
//!
//! What a URL may say, its defaults and the environment variables are libpq's, so that a URL that works in
//! `psql` works here. What is not understood is an error and never skipped: a misspelt `sslmode` must not
//! mean an open connection.
//!
//! Sources: <https://www.postgresql.org/docs/current/libpq-connect.html>,
//! <https://www.postgresql.org/docs/current/libpq-ssl.html>,
//! <https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-FLOW-SSL>.

mod certificate;
mod client;
mod error;
mod establish;
#[cfg(fuzzing)]
pub mod fuzzing;
mod options;
mod passfile;
mod stream;
mod tls;
mod url;

pub use client::connect;
pub use error::{
    ConnectError, ErrorKind, NO_CHANNEL_BINDING, NO_PASSWORD, ServerError, StartupError, one_line,
};
pub use establish::{SocketOptions, establish};
pub use options::{ChannelBinding, ConnectOptions, Host, Keepalive, SslMode};
pub use stream::PgStream;
