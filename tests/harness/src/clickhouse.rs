use crate::http::{self, percent_encode};
use crate::postgres::last_lines;
use crate::process::{Process, Signal, command};
use crate::scratch::{Port, Scratch};
use crate::{dev, eventually_blocking};
use std::fs::{self, File};
use std::path::Path;
use std::process::Stdio;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Python and the engine take a second or two to load, more on a busy machine.
const START_TIMEOUT: Duration = Duration::from_secs(60);
const STOP_TIMEOUT: Duration = Duration::from_secs(60);

/// Who may come in.
#[derive(Clone, Debug)]
pub struct ClickHouseOptions {
    /// User.
    pub user: String,
    /// Password; nothing for none.
    pub password: String,
}

impl Default for ClickHouseOptions {
    fn default() -> Self {
        Self { user: "default".into(), password: String::new() }
    }
}

/// A ClickHouse with its HTTP interface: the one that `CLICKHOUSE_URL` names, or else the current engine
/// embedded in `deploy/dev/clickhouse_http.py`, with a port and data of its own.
///
/// In both cases a test works in [`ClickHouse::database`], a name nobody else uses. Dropping drops the
/// database, or the server with it.
#[derive(Debug)]
pub struct ClickHouse {
    address: String,
    user: String,
    password: String,
    database: String,
    own: Option<Own>,
}

#[derive(Debug)]
struct Own {
    server: Mutex<Option<Process>>,
    port: Port,
    scratch: Scratch,
}

impl ClickHouse {
    /// Starts one. The options have no meaning for a server that was there before.
    ///
    /// # Panics
    /// When it does not start, with the end of its log.
    pub fn start(options: &ClickHouseOptions) -> Self {
        if let Some(url) = std::env::var("CLICKHOUSE_URL").ok().filter(|url| !url.is_empty()) {
            return Self::at(&url);
        }
        let port = Port::take();
        let clickhouse = Self {
            address: format!("127.0.0.1:{}", port.number()),
            user: options.user.clone(),
            password: options.password.clone(),
            database: fresh_database(),
            own: Some(Own { server: Mutex::new(None), port, scratch: Scratch::new("clickhouse") }),
        };
        clickhouse.start_again();
        clickhouse
    }

    /// A server that runs already: `http://[user[:password]@]host:port`.
    fn at(url: &str) -> Self {
        let rest =
            url.strip_prefix("http://").expect("CLICKHOUSE_URL begins with http:// (the harness has no TLS)");
        let authority = rest.split(['/', '?']).next().unwrap_or(rest);
        let (login, address) = authority.rsplit_once('@').unwrap_or(("default", authority));
        let (user, password) = login.split_once(':').unwrap_or((login, ""));
        let clickhouse = Self {
            address: address.into(),
            user: user.into(),
            password: password.into(),
            database: fresh_database(),
            own: None,
        };
        clickhouse.wait_until_ready();
        clickhouse
    }

    /// `http://{host}:{port}`
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// `{host}:{port}`, for a [`Proxy`](crate::Proxy).
    pub fn address(&self) -> &str {
        &self.address
    }

    /// User to come in as.
    pub fn user(&self) -> &str {
        &self.user
    }

    /// Its password.
    pub fn password(&self) -> &str {
        &self.password
    }

    /// A database name of this value's own. The database is not made here.
    pub fn database(&self) -> &str {
        &self.database
    }

    /// Whether it can be stopped and killed, that is, whether it is ours.
    pub fn is_own(&self) -> bool {
        self.own.is_some()
    }

    /// Runs a statement and gives the answer as it came (TSV unless it says another `FORMAT`).
    ///
    /// # Panics
    /// When it fails, with the server's text.
    pub fn query(&self, sql: &str) -> String {
        self.try_query(sql).unwrap_or_else(|error| panic!("{error}\nin: {sql}"))
    }

    /// [`ClickHouse::query`] that gives back the server's text.
    ///
    /// # Errors
    /// When the statement fails, or the server cannot be reached.
    pub fn try_query(&self, sql: &str) -> Result<String, String> {
        self.try_query_with(sql, &[])
    }

    /// [`ClickHouse::try_query`] with settings.
    ///
    /// # Errors
    /// As there.
    pub fn try_query_with(&self, sql: &str, settings: &[(&str, &str)]) -> Result<String, String> {
        let settings: Vec<String> =
            settings.iter().map(|(name, value)| format!("{name}={}", percent_encode(value))).collect();
        let headers = [("X-ClickHouse-User", self.user()), ("X-ClickHouse-Key", self.password())];
        let response = http::request(
            &self.address,
            "POST",
            &format!("/?{}", settings.join("&")),
            &headers,
            sql.as_bytes(),
        )
        .map_err(|error| format!("ClickHouse at {}: {error}", self.address))?;
        if response.status == 200 { Ok(response.text()) } else { Err(response.text().trim().to_owned()) }
    }

    /// Starts it again after [`ClickHouse::stop`] or [`ClickHouse::kill9`], at the same port with the same
    /// data.
    ///
    /// # Panics
    /// When it runs already, or does not start.
    pub fn start_again(&self) {
        let own = self.own();
        {
            let mut server = own.server();
            assert!(
                server.as_mut().is_none_or(|process| process.exit_status().is_some()),
                "ClickHouse runs already"
            );
            *server = Some(own.launch(&self.user, &self.password));
        }
        self.wait_until_ready();
    }

    /// Stops it by SIGTERM.
    ///
    /// # Panics
    /// When it is not ours, or does not stop within a minute.
    pub fn stop(&self) {
        if let Some(mut process) = self.own().server().take() {
            process.signal(Signal::TERM);
            process.wait(STOP_TIMEOUT);
        }
    }

    /// `kill -9`.
    ///
    /// # Panics
    /// When it is not ours.
    pub fn kill9(&self) {
        if let Some(mut process) = self.own().server().take() {
            process.kill9_with_children();
        }
    }

    /// [`ClickHouse::stop`] and [`ClickHouse::start_again`].
    pub fn restart(&self) {
        self.stop();
        self.start_again();
    }

    /// What it has written to its output; nothing when it is not ours.
    pub fn log(&self) -> String {
        self.own.as_ref().map(Own::log).unwrap_or_default()
    }

    fn own(&self) -> &Own {
        self.own.as_ref().expect("CLICKHOUSE_URL's server is not the test's to stop: skip unless is_own()")
    }

    fn wait_until_ready(&self) {
        eventually_blocking(START_TIMEOUT, "ClickHouse answers /ping", || {
            if let Some(own) = &self.own
                && let Some(status) = own.server().as_mut().and_then(Process::exit_status)
            {
                panic!("ClickHouse ended with {status}. It says:\n{}", last_lines(&own.log(), 30));
            }
            match http::get(&self.address, "/ping") {
                Ok(answer) if answer.status == 200 => Ok(()),
                Ok(answer) => Err(format!("{}: {}", answer.status, answer.text())),
                Err(error) => Err(error.to_string()),
            }
        });
    }
}

impl Own {
    fn server(&self) -> MutexGuard<'_, Option<Process>> {
        self.server.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn log(&self) -> String {
        fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    fn log_file(&self) -> std::path::PathBuf {
        self.scratch.path().join("server.log")
    }

    fn launch(&self, user: &str, password: &str) -> Process {
        let script = dev::workspace_root().join("deploy/dev/clickhouse_http.py");
        let log =
            File::options().create(true).append(true).open(self.log_file()).expect("open the server's log");
        let mut command = command(&dev::python(), "KILL");
        command.arg(script).args(["--port", &self.port.number().to_string()]);
        command.arg("--path").arg(self.data_dir()).args(["--user", user]);
        command.env("CLICKHOUSE_PASSWORD", password);
        command.current_dir(self.scratch.path()).stdin(Stdio::null());
        command.stdout(log.try_clone().expect("share the log")).stderr(log);
        Process::spawn("clickhouse", command)
    }

    fn data_dir(&self) -> std::path::PathBuf {
        let dir = self.scratch.path().join("data");
        make(&dir);
        dir
    }
}

impl Drop for ClickHouse {
    fn drop(&mut self) {
        if let Some(own) = &self.own {
            let process = own.server().take();
            drop(process);
            if std::thread::panicking() {
                eprintln!("--- the end of ClickHouse's log\n{}", last_lines(&own.log(), 20));
            }
        } else {
            let _ = self.try_query(&format!("DROP DATABASE IF EXISTS `{}`", self.database));
        }
    }
}

fn make(dir: &Path) {
    fs::create_dir_all(dir).unwrap_or_else(|error| panic!("make {}: {error}", dir.display()));
}

/// Different for each value, also on a server that many test runs share.
fn fresh_database() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_nanos());
    format!("harness_{}_{:x}", std::process::id(), now)
}
