//! Talking to a server: SQL, and the client programs of Postgres 15, which work with every version here.

use super::Postgres;
use crate::dev;
use crate::process::{self, Process};
use crate::scratch::Scratch;
use std::fs::{self, File};
use std::process::{Command, Stdio};
use std::time::Duration;

/// Longer than any load a test runs.
const TOOL_TIMEOUT: Duration = Duration::from_secs(900);

impl Postgres {
    /// A connection as `postgres` by the Unix socket, driven by the caller's runtime.
    ///
    /// # Panics
    /// When it cannot be made.
    pub async fn client(&self, database: &str) -> tokio_postgres::Client {
        let (client, connection) = tokio_postgres::Config::new()
            .host_path(self.socket_dir())
            .port(self.port())
            .user("postgres")
            .dbname(database)
            .connect(tokio_postgres::NoTls)
            .await
            .unwrap_or_else(|error| panic!("connect to {database}: {error:?}"));
        // Its end, good or bad, is seen by the client's calls.
        tokio::spawn(connection);
        client
    }

    /// Runs SQL by `psql`, statement by statement, and gives the rows: a line each, `|` between values, NULL
    /// as nothing.
    ///
    /// # Panics
    /// When a statement fails, with the server's text.
    pub fn sql(&self, database: &str, sql: &str) -> String {
        self.try_sql(database, sql).unwrap_or_else(|error| panic!("{error}in: {sql}"))
    }

    /// [`Postgres::sql`] that gives back the server's text.
    ///
    /// # Errors
    /// When a statement fails; those before it stay done.
    pub fn try_sql(&self, database: &str, sql: &str) -> Result<String, String> {
        let scratch = Scratch::new("sql");
        let script = scratch.path().join("script.sql");
        fs::write(&script, sql).expect("write the script");
        let output = self
            .tool("psql", database)
            .args(["-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", "-f", "-"])
            .stdin(File::open(&script).expect("open the script"))
            .output()
            .expect("run psql");
        if output.status.success() {
            Ok(String::from_utf8_lossy(&output.stdout).trim_end_matches('\n').to_owned())
        } else {
            Err(String::from_utf8_lossy(&output.stderr).into_owned())
        }
    }

    /// Makes a database.
    pub fn createdb(&self, database: &str) {
        self.sql("postgres", &format!("CREATE DATABASE \"{}\"", database.replace('"', "\"\"")));
    }

    /// Runs `pgbench` to its end and gives what it printed.
    ///
    /// # Panics
    /// When it fails.
    pub fn pgbench(&self, database: &str, arguments: &[&str]) -> String {
        self.start_pgbench(database, arguments).wait(TOOL_TIMEOUT)
    }

    /// Starts `pgbench` beside the test.
    pub fn start_pgbench(&self, database: &str, arguments: &[&str]) -> RunningTool {
        self.start_tool("pgbench", database, arguments)
    }

    /// Starts a client program (`pg_recvlogical`) beside the test.
    pub fn start_tool(&self, program: &str, database: &str, arguments: &[&str]) -> RunningTool {
        let mut command = self.tool(program, database);
        command.args(arguments);
        RunningTool::spawn(program, command)
    }

    /// A command for a client program that connects to `database` as `postgres` by the Unix socket when it
    /// is not told otherwise. To be started by [`Process::spawn`] or at once by the test itself.
    pub fn tool(&self, program: &str, database: &str) -> Command {
        let mut command = process::command(&dev::program_in("PG15_BIN", program), "KILL");
        command.env("PGHOST", self.socket_dir()).env("PGPORT", self.port().to_string());
        command.env("PGUSER", "postgres").env("PGDATABASE", database);
        command
    }
}

/// A client program at work; killed when dropped.
#[derive(Debug)]
pub struct RunningTool {
    name: String,
    process: Process,
    scratch: Scratch,
}

impl RunningTool {
    fn spawn(name: &str, mut command: Command) -> Self {
        let scratch = Scratch::new(name);
        let file = |name: &str| File::create(scratch.path().join(name)).expect("make an output file");
        command.stdin(Stdio::null()).stdout(file("stdout")).stderr(file("stderr"));
        let process = Process::spawn(name, command);
        Self { name: name.to_owned(), process, scratch }
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        self.process.exit_status().is_none()
    }

    /// Its process, for signals.
    pub fn process_mut(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Waits for its end and gives what it printed.
    ///
    /// # Panics
    /// When it fails, or runs longer than `timeout`.
    pub fn wait(mut self, timeout: Duration) -> String {
        let status = self.process.wait_at_most(timeout);
        let read = |name: &str| {
            let bytes = fs::read(self.scratch.path().join(name)).unwrap_or_default();
            String::from_utf8_lossy(&bytes).into_owned()
        };
        match status {
            Some(status) if status.success() => read("stdout"),
            Some(status) => panic!("{} ended with {status}: {}", self.name, read("stderr")),
            None => panic!("{} still runs after {timeout:?}: {}", self.name, read("stderr")),
        }
    }
}
