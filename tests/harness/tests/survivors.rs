//! Nothing survives a test process, however it ends.

use replicator_harness::process::{Process, command};
use replicator_harness::{eventually_blocking, http};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

#[test]
fn servers_die_with_a_test_process_that_is_killed() {
    let mut victim = command(Path::new(env!("CARGO_BIN_EXE_victim")), "KILL");
    victim.stdout(Stdio::piped());
    let mut victim = Process::spawn("victim", victim);
    let stdout = BufReader::new(victim.child_mut().stdout.take().unwrap());
    let line = stdout.lines().map(Result::unwrap).find(|line| line.starts_with("127.0.0.1:")).unwrap();
    let mut words = line.split(' ');
    let (postgres, clickhouse) = (words.next().unwrap(), words.next().unwrap());
    let is_own = words.next() == Some("true");
    assert!(std::net::TcpStream::connect(postgres).is_ok());

    victim.kill9();

    eventually_blocking(Duration::from_secs(10), "the servers are gone", || {
        if std::net::TcpStream::connect(postgres).is_ok() {
            return Err("Postgres takes connections");
        }
        if is_own && http::get(clickhouse, "/ping").is_ok() { Err("ClickHouse answers") } else { Ok(()) }
    });
}
