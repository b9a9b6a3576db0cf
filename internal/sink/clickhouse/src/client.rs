//! Talking to ClickHouse over HTTP, by the `clickhouse` crate.
//!
//! The crate brings request building, authentication by headers, streaming of bodies and finding errors in
//! the middle of an answer. This adds what it lacks: TLS with a chosen set of authorities (the crate's own
//! connector panics without any), requests that can be repeated, timeouts, and errors that say what to do.

use crate::compress::Body;
use crate::errors::{Failure, explain};
use bytes::Bytes;
use clickhouse::{Compression, query::Query};
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use replicator_config::ClickHouseConfig;
use replicator_sink::SinkError;
use replicator_types::SlotIdentity;
use rustls::RootCertStore;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde::de::DeserializeOwned;
use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use url::Url;

/// Servers close idle connections after 3 s (before 23.11) or 10 s.
const IDLE_CONNECTION: Duration = Duration::from_millis(2500);
/// How long `ping` waits.
const PING_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a TCP connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a statement may take that rewrites a table.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(12 * 3600);
/// How long inserts of an earlier process are waited for before they are ended.
const EARLIER_INSERTS_MAX: Duration = Duration::from_secs(1);
/// Pause between looks for queries that are still running.
const PROCESSES_PAUSE: Duration = Duration::from_millis(50);
/// A URL has to be shorter than this (`http::Uri` takes 65 534 bytes); a longer INSERT travels in the body.
const URL_SQL_BYTES_MAX: usize = 16 << 10;

/// What the server may take for granted of an insert's rows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Rows {
    /// Each is of another key, as copied rows are: the server need not look for earlier versions among them.
    Distinct,
    /// Nothing.
    Any,
}

/// A server.
pub(crate) struct Client {
    inner: clickhouse::Client,
    /// `host:port`, for messages.
    endpoint: String,
    timeout: Duration,
    name: String,
    /// What this sink's inserts are marked with (`log_comment`), whichever process sends them; known with the
    /// slot.
    mark: OnceLock<String>,
}

impl Client {
    /// A client of the configured server. Connects to nothing yet.
    pub(crate) fn open(name: &str, config: &ClickHouseConfig) -> Result<Self, SinkError> {
        let halt = |text: String| SinkError::halt(format!("sink {name}: {text}"));
        let mut url = Url::parse(config.url.expose()).map_err(|error| {
            halt(format!("url is not a URL ({error}); it looks like http://host:8123 or https://host:8443"))
        })?;
        let host = url.host_str().map(str::to_owned);
        let (https, Some(host)) = (url.scheme() == "https", host) else {
            return Err(halt("url has no host; it looks like http://host:8123 or https://host:8443".into()));
        };
        if !https && url.scheme() != "http" {
            return Err(halt(format!(
                "url begins with `{}:`, but ClickHouse is spoken to over http or https",
                url.scheme()
            )));
        }
        let endpoint = format!("{host}:{}", url.port_or_known_default().unwrap_or_default());
        let (url_user, url_password) = credentials(&url);
        let password = match &config.password_file {
            Some(path) => {
                let text = std::fs::read_to_string(path).map_err(|error| {
                    halt(format!("password_file {} cannot be read: {error}", path.display()))
                })?;
                text.trim_end_matches(['\r', '\n']).to_owned()
            }
            None if !config.password.is_empty() => config.password.expose().to_owned(),
            None => url_password,
        };
        let user = if config.user.is_empty() { url_user } else { config.user.clone() };
        let settings: Vec<(String, String)> = url
            .query_pairs()
            .filter(|(key, _)| !matches!(key.as_ref(), "user" | "password" | "database"))
            .map(|(key, value)| (key.into_owned(), value.into_owned()))
            .collect();
        url.set_query(None);
        // These fail only for URLs without a host.
        let _ = url.set_username("");
        let _ = url.set_password(None);

        let mut inner = if https {
            let connector = hyper_rustls::HttpsConnectorBuilder::new()
                .with_tls_config(tls_config(config).map_err(halt)?)
                .https_only()
                .enable_http1()
                .wrap_connector(connector(true));
            clickhouse::Client::with_http_client(http_client().build(connector))
        } else {
            clickhouse::Client::with_http_client(http_client().build(connector(false)))
        };
        inner = inner
            .with_url(url)
            .with_compression(Compression::None)
            .with_validation(false)
            .with_product_info("replicator", env!("CARGO_PKG_VERSION"));
        if !user.is_empty() {
            inner = inner.with_user(user);
        }
        if !password.is_empty() {
            inner = inner.with_password(password);
        }
        for (key, value) in settings {
            inner = inner.with_setting(key, value);
        }
        Ok(Self {
            inner,
            endpoint,
            timeout: Duration::from_millis(config.request_timeout_ms),
            name: name.to_owned(),
            mark: OnceLock::new(),
        })
    }

    /// `host:port`.
    pub(crate) fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Says whose changes are written. Sinks of the same name at other slots are others.
    pub(crate) fn identify(&self, identity: &SlotIdentity) {
        let mark = format!("replicator/{}/{}/{}", self.name, identity.system_identifier, identity.slot);
        self.mark.get_or_init(|| mark);
    }

    /// Runs a statement. `what` completes "ClickHouse at host:port, …".
    pub(crate) async fn execute(&self, sql: &str, what: &str) -> Result<(), SinkError> {
        let query = self.statement(sql);
        self.within(self.timeout, what, query.execute()).await
    }

    /// Runs a statement about the table of that oid at the source, which takes as long as the table is large. The server is
    /// heard of meanwhile, so that no proxy closes the connection as idle.
    pub(crate) async fn execute_long(&self, oid: u32, sql: &str, what: &str) -> Result<(), SinkError> {
        let query = self
            .statement(sql)
            .with_setting("log_comment", self.mark_of_table(oid))
            .with_setting("send_progress_in_http_headers", "1")
            .with_setting("http_headers_progress_interval_ms", "1000");
        self.within(STATEMENT_TIMEOUT.max(self.timeout), what, query.execute()).await
    }

    /// A statement, marked as this sink's.
    fn statement(&self, sql: &str) -> Query {
        let mark = self.mark.get().map_or("replicator", String::as_str);
        self.query(sql).with_setting("wait_end_of_query", "1").with_setting("log_comment", mark)
    }

    /// Runs a query and gives its answer in `format`, which is to be small.
    pub(crate) async fn fetch(&self, sql: &str, format: &str, what: &str) -> Result<Bytes, SinkError> {
        let query = self.query(sql);
        self.within(self.timeout, what, async { query.fetch_bytes(format)?.collect().await }).await
    }

    /// Runs a query and gives its rows.
    pub(crate) async fn rows<T: DeserializeOwned>(&self, sql: &str, what: &str) -> Result<Vec<T>, SinkError> {
        let text = self.fetch(sql, "JSONCompactEachRow", what).await?;
        text.split(|&byte| byte == b'\n')
            .filter(|line| !line.is_empty())
            .map(|line| {
                serde_json::from_slice(line).map_err(|error| {
                    SinkError::retry(format!(
                        "ClickHouse at {}, {what}: an answer that cannot be read ({error})",
                        self.endpoint
                    ))
                })
            })
            .collect()
    }

    /// Inserts `body`, compressed Native blocks. `Ok` means that the server has the rows in a part, or has
    /// had them before under the same `token`.
    pub(crate) async fn insert(
        &self,
        sql: &str,
        body: &Body,
        rows: Rows,
        token: &str,
        what: &str,
    ) -> Result<(), SinkError> {
        let (sql, prefix) = if sql.len() > URL_SQL_BYTES_MAX {
            let mut frames = crate::compress::FrameWriter::default();
            frames.write(sql.as_bytes());
            frames.write(b"\n");
            ("", frames.finish().pieces)
        } else {
            (sql, Vec::new())
        };
        let mut insert = self
            .inner
            .insert_formatted_with(sql)
            .with_timeouts(Some(self.timeout), Some(self.timeout))
            .with_setting("log_comment", self.mark.get().map_or("replicator", String::as_str))
            .with_setting("decompress", "1")
            .with_setting("wait_end_of_query", "1")
            // The answer comes when the part is written, not when the rows are queued.
            .with_setting("async_insert", "0")
            .with_setting("insert_deduplicate", "1")
            .with_setting("insert_deduplication_token", token)
            .with_setting("optimize_on_insert", if rows == Rows::Distinct { "0" } else { "1" })
            // A NULL for which there is no room is an error, never a default.
            .with_setting("input_format_null_as_default", "0")
            // A table that somebody partitioned finely is still written to.
            .with_setting("max_partitions_per_insert_block", "0");
        if rows == Rows::Distinct {
            // One block, and so one part for each partition, however many blocks were joined: cut by other rules when it is sent
            // again, it would not be known by its token.
            insert = insert
                .with_setting("min_insert_block_size_rows", "1000000000")
                .with_setting("min_insert_block_size_bytes", "0");
        }
        let sent = async {
            for piece in prefix.iter().chain(&body.pieces) {
                insert.send(piece.clone()).await?;
            }
            insert.end().await
        };
        self.within(self.timeout.saturating_mul(3), what, sent).await
    }

    /// Whether the server answers.
    pub(crate) async fn ping(&self) -> Result<(), SinkError> {
        let query = self.query("SELECT 1");
        self.within(PING_TIMEOUT, "asked whether it is there", query.execute()).await
    }

    /// What statements about a table are marked with that take long.
    fn mark_of_table(&self, oid: u32) -> String {
        format!("{}/{oid}", self.mark.get().map_or("replicator", String::as_str))
    }

    /// Waits until the queries of this sink that run on the server now have ended: one that was given up here, or
    /// was sent by a process that has died, may still be at work there. Those that begin meanwhile are of other
    /// lanes, and not waited for, nor are statements that take long ([`Client::end_long`]). Does without when the user may not
    /// look.
    pub(crate) async fn wait_for_own_queries(&self) -> Result<(), SinkError> {
        match self.mark.get() {
            Some(mark) => self.wait_for_queries(mark).await,
            None => Ok(()),
        }
    }

    /// Sees to it that no statement about a table that takes long is at work any more, whoever has sent it: an `ALTER TABLE`
    /// is waited for, an `INSERT … SELECT` is ended.
    pub(crate) async fn end_long(&self, oid: u32) -> Result<(), SinkError> {
        let mark = self.mark_of_table(oid);
        self.end_inserts(&mark).await?;
        self.wait_for_queries(&mark).await
    }

    async fn wait_for_queries(&self, mark: &str) -> Result<(), SinkError> {
        let sql = format!(
            "SELECT query_id FROM system.processes WHERE Settings['log_comment'] = {}",
            crate::names::literal(mark)
        );
        let mut waited_for: Option<BTreeSet<String>> = None;
        let deadline = Instant::now() + self.timeout;
        loop {
            let running: BTreeSet<String> = match self.rows(&sql, "looking for running statements").await {
                Ok(rows) => rows.into_iter().map(|(id,)| id).collect(),
                Err(error) if error.kind() == replicator_sink::ErrorKind::Halt => BTreeSet::new(),
                Err(error) => return Err(error),
            };
            let left: BTreeSet<String> = match &waited_for {
                Some(before) => before.intersection(&running).cloned().collect(),
                None => running,
            };
            if left.is_empty() {
                return Ok(());
            }
            let running = left.len();
            waited_for = Some(left);
            if Instant::now() >= deadline {
                return Err(SinkError::retry(format!(
                    "ClickHouse at {} still runs {running} of this sink's earlier statements",
                    self.endpoint
                )));
            }
            tokio::time::sleep(PROCESSES_PAUSE).await;
        }
    }

    /// Sees to it that nothing which an earlier process has sent is still at work. An insert whose sender was stopped in
    /// the middle of it would wait for the rest for long: it is ended, and what it has written is found as that of any
    /// process that died.
    pub(crate) async fn end_earlier_queries(&self) -> Result<(), SinkError> {
        if let Ok(ended) = tokio::time::timeout(EARLIER_INSERTS_MAX, self.wait_for_own_queries()).await {
            return ended;
        }
        let Some(mark) = self.mark.get() else { return Ok(()) };
        self.end_inserts(mark).await?;
        self.wait_for_own_queries().await
    }

    async fn end_inserts(&self, mark: &str) -> Result<(), SinkError> {
        let sql = format!(
            "KILL QUERY WHERE user = currentUser() AND query_kind = 'Insert' AND Settings['log_comment'] = {} ASYNC",
            crate::names::literal(mark)
        );
        match self.fetch(&sql, "RowBinary", "ending an earlier process' inserts").await {
            // Not allowed to: they are waited for.
            Err(error) if error.kind() != replicator_sink::ErrorKind::Halt => Err(error),
            _ => Ok(()),
        }
    }

    fn query(&self, sql: &str) -> Query {
        self.inner.query_raw(sql)
    }

    async fn within<T>(
        &self,
        timeout: Duration,
        what: &str,
        request: impl Future<Output = clickhouse::error::Result<T>>,
    ) -> Result<T, SinkError> {
        let failure = match tokio::time::timeout(timeout, request).await {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(error)) => Failure::Request(error),
            Err(_) => Failure::Timeout(timeout),
        };
        Err(explain(failure, &self.endpoint, what))
    }
}

/// A number of `JSONCompactEachRow`, which quotes 64-bit ones on some servers.
pub(crate) fn number(value: &serde_json::Value) -> u64 {
    value.as_u64().or_else(|| value.as_str()?.parse().ok()).unwrap_or(0)
}

/// User and password of the URL, before the host or as parameters.
fn credentials(url: &Url) -> (String, String) {
    let decoded = |text: &str| {
        // The form encoding differs from the URL's only in `+`, which stays itself when it is escaped.
        let escaped = format!("x={}", text.replace('+', "%2B"));
        url::form_urlencoded::parse(escaped.as_bytes())
            .next()
            .map_or_else(String::new, |(_, value)| value.into_owned())
    };
    let parameter = |name: &str| {
        url.query_pairs()
            .find(|(key, _)| key == name)
            .map_or_else(String::new, |(_, value)| value.into_owned())
    };
    let user = Some(decoded(url.username())).filter(|user| !user.is_empty());
    let password = url.password().map(decoded);
    (user.unwrap_or_else(|| parameter("user")), password.unwrap_or_else(|| parameter("password")))
}

fn http_client() -> hyper_util::client::legacy::Builder {
    let mut builder = HttpClient::builder(TokioExecutor::new());
    builder.pool_idle_timeout(IDLE_CONNECTION).pool_timer(hyper_util::rt::TokioTimer::new());
    builder
}

fn connector(https: bool) -> HttpConnector {
    let mut connector = HttpConnector::new();
    connector.enforce_http(!https);
    connector.set_nodelay(true);
    connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
    connector.set_keepalive(Some(Duration::from_secs(60)));
    connector
}

/// TLS that trusts `ca_file`, or else what the system trusts.
fn tls_config(config: &ClickHouseConfig) -> Result<rustls::ClientConfig, String> {
    let mut roots = RootCertStore::empty();
    match &config.ca_file {
        Some(path) => {
            let wrong =
                |error: &dyn std::fmt::Display| format!("ca_file {} cannot be used: {error}", path.display());
            for certificate in CertificateDer::pem_file_iter(path).map_err(|error| wrong(&error))? {
                roots.add(certificate.map_err(|error| wrong(&error))?).map_err(|error| wrong(&error))?;
            }
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    if roots.is_empty() {
        return Err("there are no certificate authorities to trust for https; install the system's \
                    (Debian: ca-certificates) or set ca_file"
            .into());
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("TLS cannot be set up: {error}"))?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}
