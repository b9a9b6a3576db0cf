use crate::{ConnectError, ConnectOptions, Host, PgStream, SocketOptions, StartupError, establish};
use std::error::Error;
use std::future::{Ready, ready};
use std::io;
use tokio_postgres::config::{self, SslNegotiation};
use tokio_postgres::tls::TlsConnect;
use tokio_postgres::{Client, Config};

/// Connects for SQL. The connection's task is spawned on the current runtime and ends with the client.
///
/// # Errors
/// See [`ConnectError`].
pub async fn connect(options: &ConnectOptions) -> Result<Client, ConnectError> {
    let startup = |stream, host| start(stream, host, options);
    establish(options, SocketOptions::default(), startup).await
}

async fn start(stream: PgStream, host: Host, options: &ConnectOptions) -> Result<Client, StartupError> {
    let mut config = Config::new();
    config
        .user(&options.user)
        .dbname(&options.database)
        // TLS is already agreed on; "direct" makes the library hand its stream to `AlreadyConnected` without
        // asking the server again, and so learn the channel binding data.
        .ssl_mode(config::SslMode::Require)
        .ssl_negotiation(SslNegotiation::Direct)
        .channel_binding(match options.channel_binding {
            crate::ChannelBinding::Disable => config::ChannelBinding::Disable,
            crate::ChannelBinding::Prefer => config::ChannelBinding::Prefer,
            crate::ChannelBinding::Require => config::ChannelBinding::Require,
        });
    if let Some(name) = &options.application_name {
        config.application_name(name);
    }
    if let Some(password) = options.password_for(&host) {
        config.password(password);
    }
    let (client, connection) = config.connect_raw(stream, AlreadyConnected).await.map_err(startup_error)?;
    tokio::spawn(async move {
        // How a connection ended is told to whoever has a query on it.
        let _ = connection.await;
    });
    if !options.settings.is_empty() {
        // Not in the startup packet: poolers such as pgbouncer refuse settings there.
        client.batch_execute(&set_statements(&options.settings)).await.map_err(startup_error)?;
    }
    Ok(client)
}

fn set_statements(settings: &[(String, String)]) -> String {
    let quote = |text: &str| format!("'{}'", text.replace('\'', "''").replace('\\', "\\\\"));
    let calls: Vec<String> = settings
        .iter()
        .map(|(name, value)| format!("pg_catalog.set_config({}, E{}, false)", quote(name), quote(value)))
        .collect();
    format!("SELECT {}", calls.join(", "))
}

fn startup_error(error: tokio_postgres::Error) -> StartupError {
    if let Some(error) = error.as_db_error() {
        return StartupError::Server(error.into());
    }
    // The library keeps what happened in the source of its error, under a general heading.
    let mut cause: Option<&(dyn Error + 'static)> = error.source();
    while let Some(inner) = cause {
        if let Some(io) = inner.downcast_ref::<io::Error>()
            && io.kind() != io::ErrorKind::InvalidInput
        {
            return StartupError::Io(io::Error::new(io.kind(), io.to_string()));
        }
        cause = inner.source();
    }
    if error.is_closed() {
        return StartupError::Io(io::ErrorKind::UnexpectedEof.into());
    }
    let Some(detail) = error.source().map(ToString::to_string) else {
        return StartupError::Protocol(error.to_string());
    };
    match detail.as_str() {
        "password missing" => StartupError::Refused(crate::error::NO_PASSWORD.to_owned()),
        "server did not use channel binding" => {
            StartupError::Refused(crate::error::NO_CHANNEL_BINDING.to_owned())
        }
        _ => StartupError::Refused(detail),
    }
}

/// Gives tokio-postgres the stream that is already as it should be.
struct AlreadyConnected;

impl TlsConnect<PgStream> for AlreadyConnected {
    type Stream = PgStream;
    type Error = io::Error;
    type Future = Ready<Result<PgStream, io::Error>>;

    fn connect(self, stream: PgStream) -> Self::Future {
        ready(Ok(stream))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_is_quoted_whatever_it_holds() {
        let settings = [("search_path".to_owned(), r"a'b\c".to_owned())];
        assert_eq!(
            set_statements(&settings),
            r"SELECT pg_catalog.set_config('search_path', E'a''b\\c', false)"
        );
    }
}
