use crate::{ConnectOptions, Host};
use std::fmt;
use std::io;

/// For a server that asks for a password when there is none.
pub const NO_PASSWORD: &str = "the server asks for a password and none is set; put it in the URL, `password`, \
                               `password_file`, PGPASSWORD or ~/.pgpass";

/// For a server that does not do what `channel_binding=require` wants.
pub const NO_CHANNEL_BINDING: &str = "channel_binding=require, but the server did not offer it; it needs TLS, a \
                                      scram-sha-256 password and a certificate whose signature has a hash";

/// What is to be done about an error.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum ErrorKind {
    /// It may pass by itself, or nothing is known of it: try again, with growing pauses.
    Retry,
    /// Nothing will help but a person.
    Halt,
}

/// Why there is no connection: one line that names the server, the database and the user, and what to do.
/// It never holds the password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectError {
    kind: ErrorKind,
    text: String,
    code: Option<String>,
}

impl ConnectError {
    /// See [`ErrorKind::Retry`].
    pub fn retry(text: impl AsRef<str>) -> Self {
        Self { kind: ErrorKind::Retry, text: one_line(text.as_ref()), code: None }
    }

    /// See [`ErrorKind::Halt`].
    pub fn halt(text: impl AsRef<str>) -> Self {
        Self { kind: ErrorKind::Halt, text: one_line(text.as_ref()), code: None }
    }

    /// What is to be done.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The server's SQLSTATE, where the server said no.
    pub fn code(&self) -> Option<&str> {
        self.code.as_deref()
    }

    pub(crate) fn of_startup(error: StartupError, options: &ConnectOptions, host: &Host) -> Self {
        let place = options.place(host);
        match error {
            StartupError::Io(error) => Self::of_io(&error, &place, host),
            StartupError::Server(error) => Self::of_server(&error, options, &place),
            StartupError::Refused(text) => {
                Self::halt(format!("cannot connect to Postgres at {place}: {text}"))
            }
            StartupError::Protocol(text) => Self::retry(format!(
                "cannot connect to Postgres at {place}: {text}; is it a Postgres server that listens there?"
            )),
        }
    }

    pub(crate) fn timed_out(place: &str, seconds: f32) -> Self {
        Self::retry(format!(
            "cannot connect to Postgres at {place}: no answer within {seconds} s; check host, port and \
             firewall, or raise the connect timeout"
        ))
    }

    pub(crate) fn of_io(error: &io::Error, place: &str, host: &Host) -> Self {
        let remedy = match (error.kind(), host) {
            (io::ErrorKind::ConnectionRefused, Host::Tcp { .. }) => {
                "; check that Postgres runs there, and its port and listen_addresses"
            }
            (io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound, Host::Unix { .. }) => {
                "; check that Postgres runs, and its unix_socket_directories and port"
            }
            (io::ErrorKind::PermissionDenied, Host::Unix { .. }) => {
                let text = format!(
                    "cannot connect to Postgres at {place}: {error}; this process' user must be allowed into \
                     the socket's directory (unix_socket_permissions)"
                );
                return Self::halt(text);
            }
            // TLS 1.3 refuses a client's certificate only after the handshake.
            (io::ErrorKind::InvalidData, Host::Tcp { .. }) if error.to_string().contains("fatal alert") => {
                return Self::halt(format!(
                    "cannot connect to Postgres at {place}: the server broke off TLS: {error}; it may want another \
                     client certificate (sslcert, sslkey)"
                ));
            }
            (io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset, _) => {
                "; the server hung up, its log says why"
            }
            _ => "; check host, port and network",
        };
        Self::retry(format!("cannot connect to Postgres at {place}: {error}{remedy}"))
    }

    fn of_server(error: &ServerError, options: &ConnectOptions, place: &str) -> Self {
        let (user, database) = (&options.user, &options.database);
        let remedy = match error.code.as_str() {
            "28P01" => {
                "; correct the password (in the URL, `password`, `password_file` or PGPASSWORD)".to_owned()
            }
            "28000" => format!(
                "; see that role {user} exists and may log in, and that pg_hba.conf lets it into database \
                 {database} from here (a line such as `host {database} {user} <address>/32 scram-sha-256`, \
                 then `SELECT pg_reload_conf()`)"
            ),
            "3D000" => format!("; create database {database} or correct the name in the URL"),
            "42501" => {
                format!(
                    "; grant it (for replication: `ALTER ROLE {user} REPLICATION`; for the database: `GRANT CONNECT`)"
                )
            }
            "53300" => {
                "; raise max_connections (for replication: max_wal_senders), or end idle sessions".to_owned()
            }
            "57P03" => "; it should pass, trying again helps".to_owned(),
            "42704" | "22023" => "; the server does not know a session setting asked for".to_owned(),
            // Before a session there is no other SQL but the settings of the URL.
            code if code.starts_with("42") && code != "42602" || code == "P0001" => {
                format!(
                    "; that is what a login event trigger of the database says: have it let role {user} in (`SELECT evtname \
                     FROM pg_event_trigger WHERE evtevent = 'login'`)"
                )
            }
            _ => String::new(),
        };
        // Codes by <https://www.postgresql.org/docs/current/errcodes-appendix.html>: what only a person can
        // change. Anything else may pass.
        let halts = matches!(error.code.get(..2), Some("0A" | "22" | "28" | "3D"))
            || matches!(error.code.as_str(), "42501" | "42602" | "42704");
        Self {
            kind: if halts { ErrorKind::Halt } else { ErrorKind::Retry },
            text: one_line(&format!("cannot connect to Postgres at {place}: {error}{remedy}")),
            code: Some(error.code.clone()),
        }
    }
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for ConnectError {}

/// The text on one line, whatever the server wrote.
pub fn one_line(text: &str) -> String {
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    lines.join(" ")
}

/// What an `ErrorResponse` or `NoticeResponse` says. Displayed as message, detail and hint.
///
/// Source: <https://www.postgresql.org/docs/current/protocol-error-fields.html>.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct ServerError {
    /// `ERROR`, `FATAL`, …, not translated.
    pub severity: String,
    /// SQLSTATE.
    pub code: String,
    /// The message, in the server's language.
    pub message: String,
    /// More of it.
    pub detail: Option<String>,
    /// What the server advises.
    pub hint: Option<String>,
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&one_line(&self.message))?;
        for more in [&self.detail, &self.hint].into_iter().flatten() {
            write!(f, " ({})", one_line(more))?;
        }
        if !self.code.is_empty() {
            write!(f, " [{}]", self.code)?;
        }
        Ok(())
    }
}

impl From<&tokio_postgres::error::DbError> for ServerError {
    fn from(error: &tokio_postgres::error::DbError) -> Self {
        Self {
            severity: error.severity().to_owned(),
            code: error.code().code().to_owned(),
            message: error.message().to_owned(),
            detail: error.detail().map(str::to_owned),
            hint: error.hint().map(str::to_owned),
        }
    }
}

/// What went wrong between the open socket and the first `ReadyForQuery`.
#[derive(Debug)]
pub enum StartupError {
    /// The connection broke.
    Io(io::Error),
    /// The server said no.
    Server(ServerError),
    /// This side can't or won't go on: no password, TLS not to be trusted. Says what to do.
    Refused(String),
    /// The other side does not talk as Postgres does.
    Protocol(String),
}

impl From<io::Error> for StartupError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}
