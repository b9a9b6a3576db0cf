//! DuckDB, as the readers of a lake use it.

use crate::dev;
use std::io::Write;
use std::process::{Command, Stdio};

/// Reads SQL from its input; prints rows as `psql -At` does.
const SCRIPT: &str = "
import duckdb, sys
connection = duckdb.connect()
connection.execute(\"SET TimeZone = 'UTC'\")
for row in connection.execute(sys.stdin.read()).fetchall():
    print('|'.join('' if value is None else str(value) for value in row))
";

/// The rows of a query: a line each, `|` between values, NULL as nothing.
///
/// # Panics
/// When it fails, with DuckDB's text.
#[track_caller]
pub fn duckdb(sql: &str) -> String {
    let mut child = Command::new(dev::python())
        .args(["-c", SCRIPT])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("run Python");
    child.stdin.take().expect("its input").write_all(sql.as_bytes()).expect("write the query");
    let output = child.wait_with_output().expect("wait for Python");
    assert!(output.status.success(), "{} in: {sql}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim_end_matches('\n').to_owned()
}
