/// A version of PostgreSQL that `deploy/dev/setup.sh test` installs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub enum PgVersion {
    /// 15
    V15,
    /// 17
    V17,
    /// 18
    V18,
}

impl PgVersion {
    /// Every one.
    pub const ALL: [Self; 3] = [Self::V15, Self::V17, Self::V18];

    /// The major version's number.
    pub fn major(self) -> u32 {
        match self {
            Self::V15 => 15,
            Self::V17 => 17,
            Self::V18 => 18,
        }
    }

    pub(super) fn folder_key(self) -> &'static str {
        match self {
            Self::V15 => "PG15_BIN",
            Self::V17 => "PG17_BIN",
            Self::V18 => "PG18_BIN",
        }
    }
}

/// How a server is set up.
#[derive(Clone, Debug)]
pub struct PgOptions {
    /// `wal_level`; `logical` unless set.
    pub wal_level: String,
    /// Whether it waits for the disk. Off unless set: a crash of Postgres (not of the machine) loses nothing.
    pub fsync: bool,
    /// Whether it speaks TLS, with the certificates of [`Postgres::tls`](super::Postgres::tls).
    pub tls: bool,
    /// Lines of `pg_hba.conf` for connections over TCP, in the place of `trust` for everybody; the role
    /// `postgres` can always come in by the Unix socket.
    pub hba: Vec<String>,
    /// Whether [`Postgres::fill_disk`](super::Postgres::fill_disk) can be called.
    pub disk_can_fill: bool,
    /// Further settings, which win over the harness' own.
    pub settings: Vec<(String, String)>,
}

impl Default for PgOptions {
    fn default() -> Self {
        Self {
            wal_level: "logical".into(),
            fsync: false,
            tls: false,
            hba: Vec::new(),
            disk_can_fill: false,
            settings: Vec::new(),
        }
    }
}

impl PgOptions {
    /// With `wal_level`.
    #[must_use]
    pub fn wal_level(mut self, level: &str) -> Self {
        self.wal_level = level.into();
        self
    }

    /// With the disk waited for.
    #[must_use]
    pub fn fsync(mut self) -> Self {
        self.fsync = true;
        self
    }

    /// With a disk that [`Postgres::fill_disk`](super::Postgres::fill_disk) fills.
    #[must_use]
    pub fn disk_that_can_fill(mut self) -> Self {
        self.disk_can_fill = true;
        self
    }

    /// With TLS.
    #[must_use]
    pub fn tls(mut self) -> Self {
        self.tls = true;
        self
    }

    /// With one more line of `pg_hba.conf`, such as `host all alice 127.0.0.1/32 scram-sha-256`.
    #[must_use]
    pub fn hba(mut self, line: &str) -> Self {
        self.hba.push(line.into());
        self
    }

    /// With a setting of `postgresql.conf`, unquoted.
    #[must_use]
    pub fn setting(mut self, name: &str, value: &str) -> Self {
        self.settings.push((name.into(), value.into()));
        self
    }

    pub(super) fn hba_file(&self) -> String {
        // Without this the harness could lock itself out.
        let mut lines = vec!["local all postgres trust".to_owned()];
        if self.hba.is_empty() {
            lines.push("local all,replication all trust".into());
            lines.push("host all,replication all 127.0.0.1/32 trust".into());
        }
        lines.extend(self.hba.iter().cloned());
        lines.join("\n") + "\n"
    }
}
