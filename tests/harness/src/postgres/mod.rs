//! A PostgreSQL server.
//!
//! Each is a cluster of its own from `initdb`, which takes about half a second: so each has its own system
//! identifier, as clusters in the world do, and a copy of a prepared one would not.

mod disk;
mod options;
mod standby;
mod tools;

pub use options::{PgOptions, PgVersion};
pub use standby::STANDBY_SLOT;
pub use tools::RunningTool;

use crate::process::{Process, Signal, command_as};
use crate::scratch::{Port, Scratch};
use crate::tls::Tls;
use crate::{dev, http};
use disk::Disk;
use std::fs::{self, File};
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Crash recovery of a test's data takes seconds on a busy machine.
const START_TIMEOUT: Duration = Duration::from_secs(60);
const STOP_TIMEOUT: Duration = Duration::from_secs(60);
/// How long the processes of a killed server may take to notice and go.
const ORPHANS_TIMEOUT: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(10);

/// A PostgreSQL server with a port and a data folder of its own. The superuser is `postgres`.
///
/// Dropping it stops it and removes the data.
#[derive(Debug)]
pub struct Postgres {
    version: PgVersion,
    // Before the folders: the server goes first.
    server: Mutex<Option<Process>>,
    tls: Option<Tls>,
    port: Port,
    scratch: Scratch,
    disk: Option<Disk>,
}

impl Postgres {
    /// Makes a cluster and starts it.
    ///
    /// # Panics
    /// When it does not start, with the end of its log.
    pub fn start(version: PgVersion, options: &PgOptions) -> Self {
        let scratch = Scratch::new(&format!("pg{}", version.major()));
        let port = Port::take();
        let socket_dir = scratch.path().join("s");
        fs::create_dir(&socket_dir).expect("make the socket's folder");
        give_away(scratch.path());
        give_away(&socket_dir);
        init_cluster(version, scratch.path());
        let tls = options.tls.then(|| {
            let dir = scratch.path().join("tls");
            fs::create_dir(&dir).expect("make the certificates' folder");
            let tls = Tls::generate(&dir);
            give_away(&tls.server_key_file());
            give_away(&tls.server_cert_file());
            // Readable for the server: it is no secret.
            fs::copy(tls.ca_file(), scratch.path().join("data/root.crt")).expect("copy the CA");
            give_away(&scratch.path().join("data/root.crt"));
            tls
        });
        let disk = options.disk_can_fill.then(|| Disk::new(scratch.path()));
        let postgres = Self { version, server: Mutex::new(None), tls, port, scratch, disk };
        postgres.configure(options);
        postgres.start_again();
        postgres
    }

    /// The version it was started as.
    pub fn version(&self) -> PgVersion {
        self.version
    }

    /// Its port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// `127.0.0.1:{port}`, for a [`Proxy`](crate::Proxy).
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port())
    }

    /// The folder of its Unix socket.
    pub fn socket_dir(&self) -> PathBuf {
        self.scratch.path().join("s")
    }

    /// Its data folder.
    pub fn data_dir(&self) -> PathBuf {
        self.scratch.path().join("data")
    }

    /// A URL of `database` over TCP as `postgres`, without TLS.
    pub fn url(&self, database: &str) -> String {
        self.url_as("postgres", database, "sslmode=disable")
    }

    /// A URL of `database` over TCP as `user` (or `user:password`), with these parameters
    /// (`sslmode=verify-full&sslrootcert=…`, or nothing).
    pub fn url_as(&self, user: &str, database: &str, parameters: &str) -> String {
        let separator = if parameters.is_empty() { "" } else { "?" };
        format!("postgres://{user}@{}/{database}{separator}{parameters}", self.address())
    }

    /// A URL of `database` by the Unix socket, as `postgres`.
    pub fn socket_url(&self, database: &str) -> String {
        let dir = self.socket_dir();
        let dir = http::percent_encode(dir.to_str().expect("a scratch folder's name is text")).to_string();
        format!("postgres://postgres@/{database}?host={}&port={}", dir.replace("%2F", "/"), self.port())
    }

    /// Its certificates.
    ///
    /// # Panics
    /// When it was started without TLS.
    pub fn tls(&self) -> &Tls {
        self.tls.as_ref().expect("this Postgres was started without PgOptions::tls")
    }

    /// Starts it again after one of the stops or kills.
    ///
    /// # Panics
    /// When it runs already, or does not start; with the end of its log.
    pub fn start_again(&self) {
        let mut server = self.server();
        assert!(
            server.as_mut().is_none_or(|process| process.exit_status().is_some()),
            "Postgres runs already"
        );
        *server = None;
        let begun = Instant::now();
        loop {
            let log_begins = self.log().len();
            let mut process = self.launch();
            if self.wait_until_ready(&mut process) {
                *server = Some(process);
                return;
            }
            let log = self.log();
            let said = log.get(log_begins..).unwrap_or(&log);
            // Processes of the killed one have still to notice.
            let orphans = said.contains("still in use") || said.contains("is still running");
            assert!(
                orphans && begun.elapsed() < ORPHANS_TIMEOUT,
                "Postgres {} does not start. It says:\n{}",
                self.version.major(),
                last_lines(said, 30)
            );
            std::thread::sleep(POLL);
        }
    }

    /// Stops it by SIGINT: sessions end, a checkpoint is written, and walsenders may finish sending, so a
    /// connected replicator has to be reading.
    ///
    /// # Panics
    /// When that takes longer than a minute.
    pub fn stop_fast(&self) {
        if let Some(mut process) = self.server().take() {
            process.signal(Signal::INT);
            process.wait(STOP_TIMEOUT);
        }
    }

    /// Stops it by SIGQUIT: everything ends at once, and the next start recovers.
    pub fn stop_immediate(&self) {
        if let Some(mut process) = self.server().take() {
            process.signal(Signal::QUIT);
            process.wait(STOP_TIMEOUT);
        }
    }

    /// `kill -9` for the server and all its processes.
    pub fn kill9(&self) {
        if let Some(mut process) = self.server().take() {
            process.kill9_with_children();
        }
    }

    /// From now on its tables' files can't be written, as on a full disk.
    ///
    /// # Panics
    /// When it was not started with [`PgOptions::disk_that_can_fill`].
    pub fn fill_disk(&self) {
        self.disk.as_ref().expect("started with a disk that can fill").fill();
    }

    /// There is room again.
    pub fn free_disk(&self) {
        if let Some(disk) = &self.disk {
            disk.free();
        }
    }

    /// [`Postgres::stop_fast`] and [`Postgres::start_again`].
    pub fn restart(&self) {
        self.stop_fast();
        self.start_again();
    }

    /// Its whole log so far.
    pub fn log(&self) -> String {
        fs::read(self.log_file())
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    fn log_file(&self) -> PathBuf {
        self.scratch.path().join("server.log")
    }

    fn server(&self) -> MutexGuard<'_, Option<Process>> {
        self.server.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn configure(&self, options: &PgOptions) {
        let on_off = |on: bool| if on { "on" } else { "off" };
        let socket_dir = self.socket_dir();
        let port = self.port().to_string();
        let mut settings: Vec<(&str, &str)> = vec![
            ("listen_addresses", "127.0.0.1"),
            ("port", &port),
            ("unix_socket_directories", socket_dir.to_str().expect("a scratch folder's name is text")),
            ("wal_level", &options.wal_level),
            ("fsync", on_off(options.fsync)),
            ("full_page_writes", on_off(options.fsync)),
            ("max_replication_slots", "20"),
            ("max_wal_senders", "20"),
            ("max_prepared_transactions", "10"),
            // No checkpoints on the way of a test that writes much.
            ("max_wal_size", "4GB"),
            ("log_line_prefix", "%m [%p] %q%u@%d "),
            ("lc_messages", "C"),
            ("timezone", "UTC"),
            ("log_timezone", "UTC"),
        ];
        let (cert, key);
        if let Some(tls) = &self.tls {
            cert = tls.server_cert_file();
            key = tls.server_key_file();
            settings.push(("ssl", "on"));
            settings.push(("ssl_ca_file", "root.crt"));
            settings.push(("ssl_cert_file", cert.to_str().expect("a scratch folder's name is text")));
            settings.push(("ssl_key_file", key.to_str().expect("a scratch folder's name is text")));
        }
        settings.extend(options.settings.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        let text: String = settings
            .iter()
            .map(|(name, value)| format!("{name} = '{}'\n", value.replace('\'', "''")))
            .collect();
        let file = self.data_dir().join("harness.conf");
        fs::write(&file, text).expect("write the settings");
        give_away(&file);
        fs::write(self.data_dir().join("pg_hba.conf"), options.hba_file()).expect("write pg_hba.conf");
    }

    fn launch(&self) -> Process {
        let program = dev::program_in(self.version.folder_key(), "postgres");
        // QUIT is the immediate shutdown: the server takes its processes with it.
        let mut command = command_as(&program, "QUIT", dev::run_as());
        let log =
            File::options().create(true).append(true).open(self.log_file()).expect("open the server's log");
        command.arg("-D").arg(self.data_dir()).stdin(Stdio::null());
        if let Some(disk) = &self.disk {
            disk.put_under(&mut command);
        }
        command.stdout(log.try_clone().expect("share the log")).stderr(log);
        Process::spawn("postgres", command)
    }

    /// False when it has ended instead.
    fn wait_until_ready(&self, process: &mut Process) -> bool {
        let begun = Instant::now();
        loop {
            // The server's own account of itself: its process id first, its state last.
            // Source: src/include/utils/pidfile.h, which pg_ctl goes by as well.
            let file = fs::read_to_string(self.data_dir().join("postmaster.pid")).unwrap_or_default();
            let mut lines = file.lines().map(str::trim);
            if lines.next() == Some(&process.id().to_string()) && lines.nth(6) == Some("ready") {
                return true;
            }
            if process.exit_status().is_some() {
                return false;
            }
            assert!(
                begun.elapsed() < START_TIMEOUT,
                "Postgres is not ready after {START_TIMEOUT:?}. It says:\n{}",
                last_lines(&self.log(), 30)
            );
            std::thread::sleep(POLL);
        }
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if let Some(mut process) = self.server().take() {
            process.signal(Signal::QUIT);
            // Immediate shutdown gives its processes 5 s before it kills them.
            if process.wait_at_most(Duration::from_secs(10)).is_none() {
                process.kill9_with_children();
            }
        }
        if std::thread::panicking() {
            eprintln!(
                "--- the end of Postgres {}'s log\n{}",
                self.version.major(),
                last_lines(&self.log(), 20)
            );
        }
    }
}

fn init_cluster(version: PgVersion, dir: &Path) {
    let program = dev::program_in(version.folder_key(), "initdb");
    let log_path = dir.join("initdb.log");
    let log = File::create(&log_path).expect("make the initdb log");
    let mut command = command_as(&program, "KILL", dev::run_as());
    command.arg("-D").arg(dir.join("data"));
    command.args(["--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync"]);
    // initdb wants to know where it is, and our own folder may be closed to its account.
    command.current_dir(dir).stdin(Stdio::null());
    command.stdout(log.try_clone().expect("share the log")).stderr(log);
    let status = Process::spawn("initdb", command).wait(START_TIMEOUT);
    let said = fs::read_to_string(&log_path).unwrap_or_default();
    assert!(status.success(), "initdb of Postgres {} failed:\n{said}", version.major());
    let conf = dir.join("data/postgresql.conf");
    let text = fs::read_to_string(&conf).expect("read postgresql.conf");
    fs::write(&conf, text + "\ninclude = 'harness.conf'\n").expect("write postgresql.conf");
}

/// Makes the server's account the owner.
fn give_away(path: &Path) {
    if let Some(account) = dev::run_as() {
        chown(path, Some(account.uid), Some(account.gid))
            .unwrap_or_else(|error| panic!("give {} to {}: {error}", path.display(), account.name));
    }
}

/// The last `count` lines.
pub(crate) fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines.get(lines.len().saturating_sub(count)..).unwrap_or_default().join("\n")
}
