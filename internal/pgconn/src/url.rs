//! From a URL and the environment to [`ConnectOptions`].
//!
//! Source: <https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-CONNSTRING-URIS> and
//! <https://www.postgresql.org/docs/current/libpq-envars.html>.
//!
//! No error here repeats the URL or a value of `password`: either may hold a secret.

use crate::options::{Password, RootCertificates, socket_path};
use crate::{ChannelBinding, ConnectError, ConnectOptions, Host, Keepalive, SslMode};
use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Parameters that are understood, and the environment variable that each is taken from when the URL has
/// it not.
const KNOWN: &[(&str, &str)] = &[
    ("host", "PGHOST"),
    ("port", "PGPORT"),
    ("user", "PGUSER"),
    ("dbname", "PGDATABASE"),
    ("password", "PGPASSWORD"),
    ("passfile", "PGPASSFILE"),
    ("sslmode", "PGSSLMODE"),
    ("sslrootcert", "PGSSLROOTCERT"),
    ("sslcert", "PGSSLCERT"),
    ("sslkey", "PGSSLKEY"),
    ("channel_binding", "PGCHANNELBINDING"),
    ("connect_timeout", "PGCONNECT_TIMEOUT"),
    ("application_name", "PGAPPNAME"),
    ("options", "PGOPTIONS"),
    ("keepalives", ""),
    ("keepalives_idle", ""),
    ("keepalives_interval", ""),
    ("keepalives_count", ""),
    ("tcp_user_timeout", ""),
    ("gssencmode", ""),
];

const DEFAULT_PORT: u16 = 5432;

/// Where distributions put the socket; libpq has one of them compiled in.
const SOCKET_DIRECTORIES: &[&str] = &["/var/run/postgresql", "/tmp"];

type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

pub(crate) fn parse(
    url: &str,
    password: Option<&str>,
    environment: Environment<'_>,
) -> Result<ConnectOptions, ConnectError> {
    let mut values = Values::default();
    values.read_url(url.trim())?;
    if let Some(password) = password.filter(|password| !password.is_empty()) {
        values.0.entry("password").or_insert_with(|| password.to_owned());
    }
    for (name, variable) in KNOWN {
        if let Some(value) = environment(variable) {
            values.0.entry(name).or_insert(value);
        }
    }
    values.options(environment)
}

fn wrong(text: impl AsRef<str>) -> ConnectError {
    ConnectError::halt(format!("the Postgres URL: {}", text.as_ref()))
}

/// Parameter values by libpq's names, percent-decoded.
#[derive(Default)]
struct Values(BTreeMap<&'static str, String>);

impl Values {
    fn read_url(&mut self, url: &str) -> Result<(), ConnectError> {
        let rest = ["postgres://", "postgresql://"]
            .iter()
            .find_map(|scheme| url.strip_prefix(scheme))
            .ok_or_else(|| wrong("it must look like postgres://user@host:5432/database?sslmode=require"))?;
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, database) = rest.split_once('/').unwrap_or((rest, ""));
        let (login, hosts) = authority.rsplit_once('@').unwrap_or(("", authority));
        let (user, password) = login.split_once(':').unwrap_or((login, ""));
        self.set_encoded("user", user)?;
        self.set_encoded("password", password)?;
        self.set_encoded("dbname", database)?;
        if !hosts.is_empty() {
            self.read_hosts(hosts)?;
        }
        if login.is_empty() && query.contains('@') {
            return Err(wrong("a `?` before the `@` is written %3F"));
        }
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair
                .split_once('=')
                .ok_or_else(|| wrong(format!("parameter `{}` has no value", quiet(pair))))?;
            self.set_parameter(&decode(name, "a parameter's name")?, value)?;
        }
        Ok(())
    }

    /// `host:port,[::1]:port,…` into the comma-separated lists that the parameters `host` and `port` are.
    fn read_hosts(&mut self, hosts: &str) -> Result<(), ConnectError> {
        let mut names = Vec::new();
        let mut ports = Vec::new();
        for host in hosts.split(',') {
            let (name, port) = match host.strip_prefix('[') {
                Some(bracketed) => {
                    let (address, after) =
                        bracketed.split_once(']').ok_or_else(|| wrong(format!("`{host}` lacks its `]`")))?;
                    let port = match after {
                        "" => "",
                        after => after.strip_prefix(':').ok_or_else(|| {
                            wrong(format!("after `]` in `{host}` comes `:port` or nothing"))
                        })?,
                    };
                    (address, port)
                }
                None => host.split_once(':').unwrap_or((host, "")),
            };
            let port = decode(port, "the port")?;
            // Not shown: it is part of the password when that has a `/` or `?` that should be encoded.
            if !port.bytes().all(|byte| byte.is_ascii_digit()) {
                return Err(wrong(
                    "a port is not a number (a `/`, `?`, `#` or `@` in user or password is written %2F, %3F, %23, %40)",
                ));
            }
            names.push(decode(name, "the host")?);
            ports.push(port);
        }
        self.set("host", names.join(","));
        if ports.iter().any(|port| !port.is_empty()) {
            self.set("port", ports.join(","));
        }
        Ok(())
    }

    fn set_parameter(&mut self, name: &str, encoded: &str) -> Result<(), ConnectError> {
        // As libpq does for URLs made for JDBC.
        let (name, encoded) =
            if name == "ssl" && encoded == "true" { ("sslmode", "require") } else { (name, encoded) };
        let Some((known, _)) = KNOWN.iter().find(|(known, _)| *known == name) else {
            let nearest = KNOWN
                .iter()
                .map(|(known, _)| *known)
                .max_by(|a, b| strsim::jaro_winkler(name, a).total_cmp(&strsim::jaro_winkler(name, b)));
            return Err(wrong(format!(
                "unknown parameter `{}`; the nearest known one is `{}`",
                quiet(name),
                nearest.unwrap_or("host")
            )));
        };
        self.set_encoded(known, encoded)
    }

    fn set_encoded(&mut self, name: &'static str, encoded: &str) -> Result<(), ConnectError> {
        if !encoded.is_empty() {
            let value = decode(encoded, name)?;
            self.set(name, value);
        }
        Ok(())
    }

    fn set(&mut self, name: &'static str, value: String) {
        self.0.insert(name, value);
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    fn path(&self, name: &str) -> Option<PathBuf> {
        self.get(name).map(PathBuf::from)
    }

    fn choice<T: Copy>(&self, name: &str, choices: &[(&str, T)], default: T) -> Result<T, ConnectError> {
        let Some(value) = self.get(name) else { return Ok(default) };
        choices.iter().find(|(known, _)| *known == value).map(|(_, choice)| *choice).ok_or_else(|| {
            let known: Vec<&str> = choices.iter().map(|(known, _)| *known).collect();
            wrong(format!("{name}=`{value}` is not one of {}", known.join(", ")))
        })
    }

    fn number(&self, name: &str) -> Result<Option<u64>, ConnectError> {
        let number = |value: &str| {
            value
                .trim()
                .parse()
                .map_err(|_| wrong(format!("{name}=`{value}` is not a whole number from 0 up")))
        };
        self.get(name).map(number).transpose()
    }

    fn options(&self, environment: Environment<'_>) -> Result<ConnectOptions, ConnectError> {
        let user = match self.get("user") {
            Some(user) => user.to_owned(),
            None => os_user(environment).ok_or_else(|| {
                wrong("it names no user, and this process' own has no name; write postgres://user@…")
            })?,
        };
        let home = environment("HOME").map(PathBuf::from);
        let in_home = |name: &str| home.as_ref().map(|home| home.join(name));
        let at_home = |name: &str| in_home(name).filter(|path| path.exists());
        let ssl_mode = self.choice(
            "sslmode",
            &[
                ("disable", SslMode::Disable),
                ("allow", SslMode::Prefer),
                ("prefer", SslMode::Prefer),
                ("require", SslMode::Require),
                ("verify-ca", SslMode::VerifyCa),
                ("verify-full", SslMode::VerifyFull),
            ],
            SslMode::Prefer,
        )?;
        let channel_binding = self.choice(
            "channel_binding",
            &[
                ("disable", ChannelBinding::Disable),
                ("prefer", ChannelBinding::Prefer),
                ("require", ChannelBinding::Require),
            ],
            ChannelBinding::Prefer,
        )?;
        self.choice("gssencmode", &[("disable", ()), ("prefer", ())], ())?;
        let root_certificates = match self.get("sslrootcert") {
            Some("system") => Some(RootCertificates::System),
            Some(path) => Some(RootCertificates::File(PathBuf::from(path))),
            // libpq also lets this file turn `require` into `verify-ca`; here only a setting does that.
            None if ssl_mode >= SslMode::VerifyCa => {
                at_home(".postgresql/root.crt").map(RootCertificates::File)
            }
            None => None,
        };
        let client_certificate = self.path("sslcert").or_else(|| at_home(".postgresql/postgresql.crt"));
        let client_key = self.path("sslkey").or_else(|| at_home(".postgresql/postgresql.key"));
        Ok(ConnectOptions {
            hosts: self.hosts()?,
            database: self.get("dbname").unwrap_or(&user).to_owned(),
            user,
            password: self.get("password").map(|password| Password(password.to_owned())),
            passfile: self.path("passfile").or_else(|| in_home(".pgpass")),
            ssl_mode,
            root_certificates,
            client_certificate,
            client_key,
            channel_binding,
            // As in libpq, 0 means for ever.
            connect_timeout: self.number("connect_timeout")?.filter(|&n| n > 0).map(Duration::from_secs),
            application_name: self.get("application_name").map(str::to_owned),
            keepalive: self.keepalive()?,
            settings: settings(self.get("options").unwrap_or_default())?,
        })
    }

    fn hosts(&self) -> Result<Vec<Host>, ConnectError> {
        let ports = self
            .get("port")
            .unwrap_or_default()
            .split(',')
            .map(|port| match port.trim() {
                "" => Ok(DEFAULT_PORT),
                port => port
                    .parse()
                    .ok()
                    .filter(|&port| port > 0)
                    .ok_or_else(|| wrong(format!("`{port}` is not a port, a number from 1 to 65535"))),
            })
            .collect::<Result<Vec<u16>, _>>()?;
        let names: Vec<&str> = self.get("host").unwrap_or_default().split(',').map(str::trim).collect();
        if ports.len() > 1 && ports.len() != names.len() {
            return Err(wrong(format!("{} hosts and {} ports do not match", names.len(), ports.len())));
        }
        let port_of = |index: usize| ports.get(index).or(ports.first()).copied().unwrap_or(DEFAULT_PORT);
        Ok(names.iter().enumerate().map(|(index, name)| host(name, port_of(index))).collect())
    }

    fn keepalive(&self) -> Result<Keepalive, ConnectError> {
        let default = Keepalive::default();
        let seconds = |name, default| {
            Ok::<_, ConnectError>(match self.number(name)? {
                None | Some(0) => default,
                Some(n) => Duration::from_secs(n),
            })
        };
        Ok(Keepalive {
            enabled: self.number("keepalives")? != Some(0),
            idle: seconds("keepalives_idle", default.idle)?,
            interval: seconds("keepalives_interval", default.interval)?,
            count: match self.number("keepalives_count")? {
                None | Some(0) => default.count,
                Some(n) => u32::try_from(n).unwrap_or(u32::MAX),
            },
            user_timeout: self
                .number("tcp_user_timeout")?
                .filter(|&n| n > 0)
                .map_or(default.user_timeout, Duration::from_millis),
        })
    }
}

fn host(name: &str, port: u16) -> Host {
    if name.starts_with('/') {
        return Host::Unix { directory: PathBuf::from(name), port };
    }
    if !name.is_empty() {
        return Host::Tcp { name: name.to_owned(), port };
    }
    let with_socket =
        SOCKET_DIRECTORIES.iter().find(|directory| socket_path(Path::new(directory), port).exists());
    match with_socket {
        Some(directory) => Host::Unix { directory: PathBuf::from(directory), port },
        None => Host::Tcp { name: "localhost".to_owned(), port },
    }
}

/// `-c name=value --name=value`, blanks in values escaped by a backslash.
fn settings(options: &str) -> Result<Vec<(String, String)>, ConnectError> {
    let mut words = vec![String::new()];
    let mut escaped = false;
    for c in options.chars() {
        match c {
            '\\' if !escaped => {
                escaped = true;
                continue;
            }
            c if c.is_whitespace() && !escaped => words.push(String::new()),
            c => words.last_mut().into_iter().for_each(|word| word.push(c)),
        }
        escaped = false;
    }
    let mut words = words.into_iter().filter(|word| !word.is_empty());
    let mut settings = Vec::new();
    while let Some(word) = words.next() {
        let setting = if word == "-c" {
            words.next()
        } else {
            word.strip_prefix("--").or_else(|| word.strip_prefix("-c")).map(str::to_owned)
        };
        let pair = setting.as_deref().and_then(|setting| setting.split_once('='));
        let (name, value) = pair.ok_or_else(|| {
            wrong(format!("options: `{word}` is not understood; it takes `-c name=value`, blanks as `\\ `"))
        })?;
        settings.push((name.replace('-', "_"), value.to_owned()));
    }
    Ok(settings)
}

fn decode(encoded: &str, what: &str) -> Result<String, ConnectError> {
    let mut bytes = Vec::with_capacity(encoded.len());
    let mut rest = encoded.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let hex = rest.split_first_chunk::<2>().and_then(|(hex, after)| {
            let text = std::str::from_utf8(hex).ok().filter(|text| !text.starts_with('+'))?;
            Some((u8::from_str_radix(text, 16).ok()?, after))
        });
        let (byte, after) = hex.ok_or_else(|| {
            wrong(format!("in {what}, `%` must be followed by two hex digits; `%` itself is `%25`"))
        })?;
        if byte == 0 {
            return Err(wrong(format!("{what} holds a zero byte")));
        }
        bytes.push(byte);
        rest = after;
    }
    String::from_utf8(bytes).map_err(|_| wrong(format!("{what} is not UTF-8")))
}

/// A name for an error text, without what could follow it by mistake.
fn quiet(name: &str) -> &str {
    let end = name.find([':', '@', '/']).unwrap_or(name.len());
    name.get(..end).unwrap_or_default()
}

/// The name of this process' user: `/etc/passwd` by the owner of `/proc/self`, then `USER`.
fn os_user(environment: Environment<'_>) -> Option<String> {
    let by_uid = || {
        let uid = std::fs::metadata("/proc/self").ok()?.uid().to_string();
        let passwd = std::fs::read_to_string("/etc/passwd").ok()?;
        passwd.lines().find_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?;
            (fields.nth(1)? == uid).then(|| name.to_owned())
        })
    };
    by_uid().or_else(|| environment("USER")).or_else(|| environment("LOGNAME"))
}

#[cfg(test)]
mod tests;
