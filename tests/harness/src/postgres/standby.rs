//! A physical standby: a copy of a server's data that follows it.
//!
//! The copy is made of the stopped server's folder: `pg_basebackup` takes no server that is newer than itself, and of the
//! newer ones here only the server is installed.

use super::{PgOptions, PgVersion, Postgres, give_away};
use crate::process;
use crate::scratch::{Port, Scratch};
use std::fs;
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

/// Name of the physical slot that the primary has for its standby.
pub const STANDBY_SLOT: &str = "standby";

const COPY_TIMEOUT: Duration = Duration::from_secs(60);

impl Postgres {
    /// Makes and starts a standby of `primary`, which is restarted for it. From 17 on it keeps copies of failover slots;
    /// `database` is where it asks for them.
    ///
    /// # Panics
    /// When it does not start, with the end of its log.
    pub fn standby_of(primary: &Self, database: &str) -> Self {
        primary
            .sql("postgres", &format!("SELECT pg_create_physical_replication_slot('{STANDBY_SLOT}', true)"));
        primary.stop_fast();
        let scratch = Scratch::new(&format!("pg{}", primary.version.major()));
        let socket_dir = scratch.path().join("s");
        fs::create_dir(&socket_dir).expect("make the socket's folder");
        give_away(scratch.path());
        give_away(&socket_dir);
        let mut copy = process::command(Path::new("cp"), "KILL");
        copy.arg("-a").arg(primary.data_dir()).arg(scratch.path().join("data"));
        let copied = process::Process::spawn("cp", copy).wait(COPY_TIMEOUT);
        assert!(copied.success(), "copy the primary's data: {copied}");
        primary.start_again();
        let signal = scratch.path().join("data/standby.signal");
        fs::write(&signal, "").expect("make standby.signal");
        give_away(&signal);
        let mut options = PgOptions::default()
            .setting(
                "primary_conninfo",
                &format!("host=127.0.0.1 port={} user=postgres dbname={database}", primary.port()),
            )
            .setting("primary_slot_name", STANDBY_SLOT)
            .setting("hot_standby_feedback", "on")
            .setting("wal_receiver_status_interval", "1s");
        if primary.version >= PgVersion::V17 {
            options = options.setting("sync_replication_slots", "on");
        }
        let standby = Self {
            version: primary.version,
            server: Mutex::new(None),
            tls: None,
            port: Port::take(),
            scratch,
            disk: None,
        };
        standby.configure(&options);
        standby.start_again();
        standby
    }

    /// Makes a standby a primary, and waits until it is one.
    ///
    /// # Panics
    /// When it does not become one within a minute.
    pub fn promote(&self) {
        assert_eq!(self.sql("postgres", "SELECT pg_promote(true, 60)"), "t", "promotion");
    }
}
