use crate::ConnectError;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// Where one server listens.
#[derive(Clone, PartialEq, Eq, Debug, Hash)]
pub enum Host {
    /// A name or an address.
    Tcp {
        /// Name or address, without brackets.
        name: String,
        /// Port.
        port: u16,
    },
    /// A socket in a directory: `{directory}/.s.PGSQL.{port}`.
    Unix {
        /// The directory.
        directory: PathBuf,
        /// The port that is part of the socket's name.
        port: u16,
    },
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { name, port } if name.contains(':') => write!(f, "[{name}]:{port}"),
            Self::Tcp { name, port } => write!(f, "{name}:{port}"),
            Self::Unix { directory, port } => write!(f, "{}", socket_path(directory, *port).display()),
        }
    }
}

pub(crate) fn socket_path(directory: &std::path::Path, port: u16) -> PathBuf {
    directory.join(format!(".s.PGSQL.{port}"))
}

/// `sslmode`. `allow` is taken as `prefer`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub enum SslMode {
    /// Never TLS.
    Disable,
    /// TLS when the server has it, otherwise not. No verification.
    Prefer,
    /// TLS or nothing. No verification, unless a root certificate is given.
    Require,
    /// TLS, and the certificate is signed by a trusted authority.
    VerifyCa,
    /// As `verify-ca`, and the certificate is for the host.
    VerifyFull,
}

impl SslMode {
    /// As in a URL.
    pub fn name(self) -> &'static str {
        match self {
            Self::Disable => "disable",
            Self::Prefer => "prefer",
            Self::Require => "require",
            Self::VerifyCa => "verify-ca",
            Self::VerifyFull => "verify-full",
        }
    }
}

/// `channel_binding`: whether a SCRAM exchange is tied to the TLS connection it runs in.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum ChannelBinding {
    /// Never.
    Disable,
    /// When TLS and the server allow it.
    Prefer,
    /// Or no connection.
    Require,
}

/// Where trusted authorities are read from.
#[derive(Clone, PartialEq, Eq, Debug, Hash)]
pub(crate) enum RootCertificates {
    /// `sslrootcert=system`, and what is used when nothing is said and `~/.postgresql/root.crt` is absent.
    System,
    /// A PEM file.
    File(PathBuf),
}

/// TCP keepalive probes. They find a peer that is gone without a word.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct Keepalive {
    /// Whether probes are sent at all.
    pub enabled: bool,
    /// Silence before the first probe.
    pub idle: Duration,
    /// Time between probes.
    pub interval: Duration,
    /// Unanswered probes until the connection is given up.
    pub count: u32,
    /// How long sent data may stay unacknowledged (`TCP_USER_TIMEOUT`).
    pub user_timeout: Duration,
}

impl Default for Keepalive {
    /// A vanished peer is noticed within about a minute, where the kernel's own settings take two hours.
    fn default() -> Self {
        Self {
            enabled: true,
            idle: Duration::from_secs(30),
            interval: Duration::from_secs(10),
            count: 3,
            user_timeout: Duration::from_secs(60),
        }
    }
}

/// A password that does not show itself.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Password(pub(crate) String);

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}

/// How to reach one database. Displayed as `user@host:port/database`, never with the password.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConnectOptions {
    pub(crate) hosts: Vec<Host>,
    pub(crate) user: String,
    pub(crate) database: String,
    pub(crate) password: Option<Password>,
    pub(crate) passfile: Option<PathBuf>,
    pub(crate) ssl_mode: SslMode,
    pub(crate) root_certificates: Option<RootCertificates>,
    pub(crate) client_certificate: Option<PathBuf>,
    pub(crate) client_key: Option<PathBuf>,
    pub(crate) channel_binding: ChannelBinding,
    pub(crate) connect_timeout: Option<Duration>,
    pub(crate) application_name: Option<String>,
    pub(crate) keepalive: Keepalive,
    pub(crate) settings: Vec<(String, String)>,
}

impl ConnectOptions {
    /// Reads a `postgres://` URL. What it does not say comes from `password`, then from libpq's environment
    /// variables (`PGHOST`, `PGPORT`, `PGUSER`, `PGDATABASE`, `PGPASSWORD`, `PGSSLMODE`, …), then from
    /// libpq's defaults.
    ///
    /// # Errors
    /// [`ErrorKind::Halt`](crate::ErrorKind::Halt) when a part is wrong or not known; the text names it.
    pub fn parse(url: &str, password: Option<&str>) -> Result<Self, ConnectError> {
        crate::url::parse(url, password, &|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
    }

    /// The servers to try, in order.
    pub fn hosts(&self) -> &[Host] {
        &self.hosts
    }

    /// The role.
    pub fn user(&self) -> &str {
        &self.user
    }

    /// The database.
    pub fn database(&self) -> &str {
        &self.database
    }

    /// The `sslmode` in force.
    pub fn ssl_mode(&self) -> SslMode {
        self.ssl_mode
    }

    /// The `channel_binding` in force.
    pub fn channel_binding(&self) -> ChannelBinding {
        self.channel_binding
    }

    /// What this session calls itself in `pg_stat_activity`.
    pub fn application_name(&self) -> Option<&str> {
        self.application_name.as_deref()
    }

    /// How long one attempt may take, from the first packet to the end of authentication.
    pub fn connect_timeout(&self) -> Option<Duration> {
        self.connect_timeout
    }

    /// The session settings asked for with [`ConnectOptions::with_setting`].
    pub fn settings(&self) -> &[(String, String)] {
        &self.settings
    }

    /// Sets the application name, where the URL does not.
    #[must_use]
    pub fn or_application_name(mut self, name: &str) -> Self {
        self.application_name.get_or_insert_with(|| name.to_owned());
        self
    }

    /// Sets the time limit of an attempt, where the URL does not.
    #[must_use]
    pub fn or_connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout.get_or_insert(timeout);
        self
    }

    /// Asks for a session setting (`datestyle`, `statement_timeout`, …). The last one of a name counts.
    #[must_use]
    pub fn with_setting(mut self, name: &str, value: &str) -> Self {
        self.settings.retain(|(existing, _)| existing != name);
        self.settings.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The password for `host`: the one that was given, or the one in the password file.
    pub fn password_for(&self, host: &Host) -> Option<String> {
        self.password.as_ref().map(|password| password.0.clone()).or_else(|| {
            let path = self.passfile.as_deref()?;
            crate::passfile::look_up(path, host, &self.database, &self.user)
        })
    }

    /// Where an error happened, in words: `10.0.0.7:5432, database shop, user repl`.
    pub(crate) fn place(&self, host: &Host) -> String {
        format!("{host}, database {}, user {}", self.database, self.user)
    }
}

impl fmt::Display for ConnectOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@", self.user)?;
        for (index, host) in self.hosts.iter().enumerate() {
            let comma = if index > 0 { "," } else { "" };
            write!(f, "{comma}{host}")?;
        }
        write!(f, "/{}", self.database)
    }
}
