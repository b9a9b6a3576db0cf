//! Secrets appear nowhere: the product is run through success and through failure with known ones, and everything that
//! it lets out is looked through – logs at debug level, its output, `/metrics`, `/readyz`, its arguments.

use replicator_harness::{
    ClickHouse, ClickHouseOptions, Config, PgOptions, PgVersion, Postgres, Replicator, S3,
    eventually_blocking, scratch_dir,
};
use std::path::PathBuf;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(60);

/// Every secret of the tests has this in it, so that a part of one is found, too.
const MARK: &str = "hush";
const SOURCE: &str = "hush@source";
const TARGET: &str = "hush-target";
const CLICKHOUSE: &str = "hush-clickhouse";

struct Servers {
    source: Postgres,
    target: Postgres,
    clickhouse: ClickHouse,
    s3: S3,
    folder: PathBuf,
}

fn postgres(password: &str) -> Postgres {
    let options = PgOptions::default().hba("host all all 127.0.0.1/32 scram-sha-256");
    let server = Postgres::start(PgVersion::V15, &options);
    server.createdb("shop");
    server.sql("postgres", &format!("CREATE ROLE alice SUPERUSER LOGIN PASSWORD '{password}'"));
    server
}

impl Servers {
    fn start() -> Self {
        let (source, target) = (postgres(SOURCE), postgres(TARGET));
        source.sql("shop", "CREATE TABLE t (id bigint PRIMARY KEY, v text)");
        let options = ClickHouseOptions { user: "default".into(), password: CLICKHOUSE.into() };
        let clickhouse = ClickHouse::start(&options);
        let folder = scratch_dir("secrets");
        std::fs::write(folder.join("target"), format!("{TARGET}\n")).expect("write a password");
        Self { source, target, clickhouse, s3: S3::with_bucket("bucket"), folder }
    }

    fn file(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }

    /// Each secret comes by another of the ways there are.
    fn config(&self) -> Config {
        std::fs::write(self.folder.join("s3"), self.s3.secret_key()).expect("write a secret key");
        let source = self.source.url_as("alice:hush%40source", "shop", "sslmode=disable");
        Config::new(&source)
            .set("log.level", "debug")
            .sink("analytics", "clickhouse", &self.clickhouse.url())
            .set_sink("analytics", "database", self.clickhouse.database())
            .set_sink("analytics", "user", self.clickhouse.user())
            .set_sink("analytics", "password", "${CLICKHOUSE_SECRET}")
            .sink("copy", "postgres", &self.target.url_as("alice", "shop", "sslmode=disable"))
            .set_sink("copy", "password_file", self.file("target"))
            .sink("archive", "object_store", "s3://bucket/prefix")
            .set_sink("archive", "endpoint", self.s3.endpoint())
            .set_sink("archive", "access_key_id", self.s3.access_key())
            .set_sink("archive", "secret_access_key_file", self.file("s3"))
    }

    #[track_caller]
    fn assert_clean(&self, of: &str, text: &str) {
        for secret in [MARK, self.s3.secret_key()] {
            let line = text.lines().find(|line| line.to_lowercase().contains(secret));
            assert!(line.is_none(), "{of} shows a secret: {}", line.unwrap_or_default());
        }
    }

    /// Runs `check` and `run`, which are to fail without showing anything.
    #[track_caller]
    fn assert_fails_clean(&self, what: &str, config: &str) {
        for command in [&["check"][..], &["run"], &["resync", "--table", "public.t"]] {
            let env = [("CLICKHOUSE_SECRET", CLICKHOUSE)];
            let output = Replicator::output(config, command, &env);
            // Resync needs no sink.
            assert!(!output.status.success() || command.len() == 3, "{what}: {command:?} went well");
            self.assert_clean(&format!("{what}, {command:?}, stdout"), &output.stdout);
            self.assert_clean(&format!("{what}, {command:?}, stderr"), &output.stderr);
            assert!(!output.stderr.contains("panicked"), "{what}: {}", output.stderr);
        }
    }
}

#[test]
fn a_run_at_debug_level_with_outages_lets_out_no_secret() {
    let servers = Servers::start();
    let mut replicator = Replicator::spawn(&servers.config(), &[("CLICKHOUSE_SECRET", CLICKHOUSE)]);
    replicator.wait_until_ready(SOON);
    replicator.wait_for_line("\"streaming\"", SOON);
    servers.source.sql("shop", "INSERT INTO t SELECT n, 'v' FROM generate_series(1, 1000) n");
    let arguments = std::fs::read(format!("/proc/{}/cmdline", replicator.id())).expect("its arguments");
    servers.assert_clean("/proc/…/cmdline", &String::from_utf8_lossy(&arguments));
    servers.clickhouse.stop();
    servers.target.stop_immediate();
    servers.s3.stop();
    servers.source.sql("shop", "INSERT INTO t SELECT n, 'v' FROM generate_series(1001, 2000) n");
    servers.source.sql("shop", "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots");
    eventually_blocking(SOON, "the outage noticed", || match replicator.try_http("/readyz") {
        Ok((503, body)) if ["analytics", "copy", "archive"].iter().all(|sink| body.contains(sink)) => Ok(()),
        other => Err(format!("{other:?}")),
    });
    for path in ["/metrics", "/readyz", "/healthz", "/nowhere"] {
        servers.assert_clean(path, &replicator.http(path).1);
    }
    servers.clickhouse.start_again();
    servers.target.start_again();
    servers.s3.start_again();
    replicator.wait_until_ready(SOON);
    servers.assert_clean("/metrics", &replicator.http("/metrics").1);
    replicator.sigterm();
    assert!(replicator.wait(SOON).success(), "{}", replicator.stderr());
    assert!(replicator.stderr().contains("streaming"), "nothing was logged");
    servers.assert_clean("stdout", &replicator.stdout());
    servers.assert_clean("stderr", &replicator.stderr());
    let checked =
        Replicator::output(&servers.config().to_toml(), &["check"], &[("CLICKHOUSE_SECRET", CLICKHOUSE)]);
    assert!(checked.status.success(), "{}{}", checked.stdout, checked.stderr);
    servers.assert_clean("check", &(checked.stdout + &checked.stderr));
}

#[test]
fn no_failure_shows_a_secret_whatever_is_wrong() {
    let servers = Servers::start();
    let with = |change: &dyn Fn(Config) -> Config| change(servers.config()).to_toml();
    let sink = |sink: &'static str, key: &'static str, value: &str| {
        servers.config().set_sink(sink, key, value).to_toml()
    };
    let source = |url: String| with(&|config| config.set("source.url", url.as_str()));
    let port = servers.source.port();
    std::fs::write(servers.folder.join("wrong"), "hush-wrong").expect("write a password");
    std::fs::write(servers.folder.join("lines"), "hush-first\nhush-second\n").expect("write a password");
    let cases = [
        ("a wrong password", source(servers.source.url_as("alice:hush-wrong", "shop", "sslmode=disable"))),
        (
            "a role that is not there",
            source(servers.source.url_as("bob:hush-bob", "shop", "sslmode=disable")),
        ),
        ("an unreachable source", source("postgres://alice:hush-x@127.0.0.1:1/shop".into())),
        ("no number as port", source("postgres://alice:hush-x@127.0.0.1:port/shop".into())),
        ("a broken host", source("postgres://alice:hush-x@[::1/shop".into())),
        ("a password that is not encoded", source("postgres://alice:hush/x?y#z@127.0.0.1/shop".into())),
        ("a wrong percent sign", source("postgres://alice:hush%zz@127.0.0.1/shop".into())),
        ("another scheme", source("mysql://alice:hush-x@127.0.0.1/shop".into())),
        ("no URL", source("alice:hush-x@127.0.0.1/shop".into())),
        ("key and value", source("host=127.0.0.1 password=hush-x dbname=shop".into())),
        (
            "an unknown parameter",
            source(format!("postgres://alice:hush-x@127.0.0.1:{port}/shop?pasword=hush-y")),
        ),
        (
            "a wrong sslmode",
            source(format!("postgres://alice:hush-x@127.0.0.1:{port}/shop?sslmode=hush"))
                .replace("sslmode=hush", "sslmode=sometimes"),
        ),
        (
            "a source without TLS",
            source(format!("postgres://alice:hush-x@127.0.0.1:{port}/shop?sslmode=verify-full")),
        ),
        (
            "a password as parameter",
            source(format!("postgres://alice@127.0.0.1:{port}/shop?password=hush-x")),
        ),
        ("a wrong password of the target", sink("copy", "password_file", &servers.file("wrong"))),
        ("a password file of two lines", sink("copy", "password_file", &servers.file("lines"))),
        ("an unreachable target", sink("copy", "url", "postgres://alice:hush-x@127.0.0.1:1/shop")),
        ("a broken URL of the target", sink("copy", "url", "postgres://alice:hush-x@127.0.0.1:port/shop")),
        ("a wrong password of ClickHouse", sink("analytics", "password", "hush-wrong")),
        ("an unreachable ClickHouse", sink("analytics", "url", "http://default:hush-x@127.0.0.1:1")),
        ("a broken URL of ClickHouse", sink("analytics", "url", "http://default:hush-x@127.0.0.1:port")),
        (
            "another scheme of ClickHouse",
            sink("analytics", "url", "clickhouse://default:hush-x@127.0.0.1:9000"),
        ),
        (
            "ClickHouse by TLS",
            sink("analytics", "url", &servers.clickhouse.url().replace("http://", "https://")),
        ),
        ("a wrong secret key", sink("archive", "secret_access_key_file", &servers.file("wrong"))),
        ("an unreachable store", sink("archive", "endpoint", "http://127.0.0.1:1")),
        ("a store with a password", sink("archive", "endpoint", "http://key:hush-x@127.0.0.1:port")),
        (
            "an unreachable store with a password",
            sink("archive", "endpoint", "http://key:hush-x@127.0.0.1:1"),
        ),
        ("a bucket with a password", sink("archive", "url", "s3://key:hush-x@bucket/prefix")),
        ("another scheme of the store", sink("archive", "url", "gs://key:hush-x@bucket/prefix")),
        ("a password of another type", servers.config().set("source.password", vec!["hush-list"]).to_toml()),
        ("a key that is not known", servers.config().set("source.passwrod", "hush-typo").to_toml()),
        ("a text without an end", servers.config().to_toml() + "\n[more]\npassword = \"hush-open\n"),
        ("a key that is there twice", "[source]\npassword = \"hush-a\"\npassword = \"hush-b\"\n".into()),
        ("a section that is a text", "source = \"hush-a\"\n".into()),
        (
            "a number out of range",
            servers
                .config()
                .set("source.password", "hush-a")
                .set("buffer.bytes_max", "hush")
                .to_toml()
                .replace("bytes_max = \"hush\"", "bytes_max = \"many\""),
        ),
        ("a variable that is not there", sink("analytics", "password", "hush-${NOT_THERE}-x")),
    ];
    for (what, config) in &cases {
        servers.assert_fails_clean(what, config);
    }
}
