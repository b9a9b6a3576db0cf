//! How a source is reached: authentication, TLS, sockets, and what is said when it is not.

mod support;

use replicator_config::Secret;
use replicator_harness::{PgOptions, PgVersion, Port, Postgres};
use replicator_pgconn::ConnectOptions;
use replicator_source::ErrorKind;
use support::{assert_says, config, failures, plain, refusal, source};

/// Roles for every method, over TCP with and without TLS.
fn with_every_method(version: PgVersion) -> Postgres {
    let mut options = PgOptions::default().tls();
    for line in [
        "host all trusted 127.0.0.1/32 trust",
        "host all md5ed 127.0.0.1/32 md5",
        "host all clear 127.0.0.1/32 password",
        "host all scram 127.0.0.1/32 scram-sha-256",
        "hostssl all certified 127.0.0.1/32 cert",
        "hostnossl all plain_only 127.0.0.1/32 scram-sha-256",
        "hostssl all tls_only 127.0.0.1/32 scram-sha-256",
    ] {
        options = options.hba(line);
    }
    let postgres = Postgres::start(version, &options);
    postgres.sql(
        "postgres",
        "CREATE TABLE t (id int PRIMARY KEY);
         CREATE ROLE trusted LOGIN SUPERUSER;
         CREATE ROLE certified LOGIN SUPERUSER;
         SET password_encryption = 'md5';
         CREATE ROLE md5ed LOGIN SUPERUSER PASSWORD 'p@ss:wörd';
         SET password_encryption = 'scram-sha-256';
         CREATE ROLE clear LOGIN SUPERUSER PASSWORD 'p@ss:wörd';
         CREATE ROLE scram LOGIN SUPERUSER PASSWORD 'p@ss:wörd';
         CREATE ROLE plain_only LOGIN SUPERUSER PASSWORD 'p@ss:wörd';
         CREATE ROLE tls_only LOGIN SUPERUSER PASSWORD 'p@ss:wörd';",
    );
    postgres
}

const PASSWORD: &str = "p@ss:wörd";

/// Both connections – for SQL and for replication – work.
async fn comes_in(postgres: &Postgres, user: &str, parameters: &str) {
    let mut config = config(postgres.url_as(user, "postgres", parameters));
    config.password = Secret::new(PASSWORD);
    let failures = failures(&source(config).check().await);
    assert!(failures.is_empty(), "{user} with {parameters:?}: {failures:?}");
}

/// The one line that is said.
async fn stays_out(postgres: &Postgres, user: &str, parameters: &str, password: &str) -> String {
    let mut config = config(postgres.url_as(user, "postgres", parameters));
    config.password = Secret::new(password);
    let source = source(config);
    let (kind, text) = refusal(&source).await;
    assert_eq!(kind, ErrorKind::Halt, "{text}");
    assert!(!text.contains("p@ss"), "{text}");
    let checked = failures(&source.check().await);
    assert!(checked.len() == 1 && checked[0].contains(&text), "{checked:?} is not {text}");
    text
}

#[tokio::test]
async fn every_authentication_method_lets_the_right_password_in_and_the_wrong_one_not() {
    for version in [PgVersion::V15, PgVersion::V18] {
        let postgres = with_every_method(version);
        for parameters in ["sslmode=disable", "sslmode=require"] {
            for user in ["trusted", "md5ed", "clear", "scram"] {
                comes_in(&postgres, user, parameters).await;
            }
            for user in ["md5ed", "clear", "scram"] {
                let text = stays_out(&postgres, user, parameters, "wrong p@ss").await;
                assert_says(&text, &["28P01", user, "127.0.0.1", "database postgres", "password_file"]);
            }
        }
        let text = stays_out(&postgres, "scram", "sslmode=disable", "").await;
        assert_says(&text, &["asks for a password", "PGPASSWORD"]);
    }
}

#[tokio::test]
async fn sslmode_prefer_finds_the_way_that_pg_hba_conf_leaves_open() {
    let postgres = with_every_method(PgVersion::V15);
    comes_in(&postgres, "plain_only", "").await;
    comes_in(&postgres, "tls_only", "").await;
    comes_in(&postgres, "plain_only", "sslmode=disable").await;
    let text = stays_out(&postgres, "tls_only", "sslmode=disable", PASSWORD).await;
    assert_says(&text, &["28000", "pg_hba.conf", "tls_only"]);
    let text = stays_out(&postgres, "plain_only", "sslmode=require", PASSWORD).await;
    assert_says(&text, &["28000", "pg_hba.conf", "plain_only"]);
}

#[tokio::test]
async fn the_server_certificate_is_verified_as_sslmode_says() {
    let postgres = with_every_method(PgVersion::V17);
    let ca = postgres.tls().ca_file().display().to_string();
    let of_other = Postgres::start(PgVersion::V15, &PgOptions::default().tls());
    let other_ca = of_other.tls().ca_file().display().to_string();
    let certificate = postgres.tls().server_cert_file().display().to_string();

    comes_in(&postgres, "scram", "sslmode=require").await;
    for mode in ["require", "verify-ca", "verify-full"] {
        comes_in(&postgres, "scram", &format!("sslmode={mode}&sslrootcert={ca}")).await;
        // A certificate can vouch for itself.
        comes_in(&postgres, "scram", &format!("sslmode={mode}&sslrootcert={certificate}")).await;
        let text =
            stays_out(&postgres, "scram", &format!("sslmode={mode}&sslrootcert={other_ca}"), PASSWORD).await;
        assert_says(&text, &["not signed by", &other_ca, "sslrootcert"]);
    }
    let text = stays_out(&postgres, "scram", "sslmode=verify-full&sslrootcert=/no/such.crt", PASSWORD).await;
    assert_says(&text, &["/no/such.crt", "sslrootcert"]);

    // 127.0.0.2 leads to the same server, and is not in its certificate.
    let named = |host: &str, mode: &str| {
        let port = postgres.port();
        let mut config =
            config(format!("postgres://scram@{host}:{port}/postgres?sslmode={mode}&sslrootcert={ca}"));
        config.password = Secret::new(PASSWORD);
        source(config)
    };
    postgres.sql("postgres", "ALTER SYSTEM SET listen_addresses = '*'");
    let hba = postgres.data_dir().join("pg_hba.conf");
    let lines = std::fs::read_to_string(&hba).unwrap();
    std::fs::write(&hba, format!("{lines}host all scram 127.0.0.0/8 scram-sha-256\n")).unwrap();
    postgres.restart();
    assert_eq!(failures(&named("localhost", "verify-full").check().await), Vec::<String>::new());
    assert_eq!(failures(&named("127.0.0.2", "verify-ca").check().await), Vec::<String>::new());
    let (kind, text) = refusal(&named("127.0.0.2", "verify-full")).await;
    assert_eq!(kind, ErrorKind::Halt);
    assert_says(&text, &["not for 127.0.0.2", "localhost", "verify-ca"]);
}

#[tokio::test]
async fn a_server_without_tls_is_refused_when_tls_is_wanted() {
    let postgres = Postgres::start(PgVersion::V15, &PgOptions::default());
    let text = stays_out(&postgres, "postgres", "sslmode=require", "").await;
    assert_says(&text, &["has no TLS", "sslmode=require", "ssl = on"]);
    comes_in(&postgres, "postgres", "sslmode=prefer").await;
}

#[tokio::test]
async fn channel_binding_is_used_over_tls_and_missed_without() {
    for version in [PgVersion::V15, PgVersion::V18] {
        let postgres = with_every_method(version);
        // With `require` nothing but SCRAM-SHA-256-PLUS passes, and the server checks the hash.
        comes_in(&postgres, "scram", "sslmode=require&channel_binding=require").await;
        comes_in(&postgres, "scram", "sslmode=require&channel_binding=disable").await;
        for (user, parameters) in [
            ("scram", "sslmode=disable&channel_binding=require"),
            ("md5ed", "sslmode=require&channel_binding=require"),
            ("clear", "sslmode=require&channel_binding=require"),
            ("trusted", "sslmode=require&channel_binding=require"),
        ] {
            let text = stays_out(&postgres, user, parameters, PASSWORD).await;
            assert_says(&text, &["channel_binding=require"]);
        }
    }
}

#[tokio::test]
async fn a_client_certificate_stands_in_for_a_password() {
    for version in [PgVersion::V15, PgVersion::V18] {
        let postgres = with_every_method(version);
        let files = |name: &str| {
            let (certificate, key) = postgres.tls().client(name);
            format!("sslmode=require&sslcert={}&sslkey={}", certificate.display(), key.display())
        };
        comes_in(&postgres, "certified", &files("certified")).await;
        let text = stays_out(&postgres, "certified", &files("somebody"), "").await;
        assert_says(&text, &["certified"]);
        let text = stays_out(&postgres, "certified", "sslmode=require", "").await;
        assert_says(&text, &["certified"]);
    }
}

#[tokio::test]
async fn a_unix_socket_works_by_directory() {
    let postgres = Postgres::start(PgVersion::V15, &PgOptions::default());
    let source = source(config(postgres.socket_url("postgres")));
    assert_eq!(failures(&source.check().await), Vec::<String>::new());
    source.prepare().await.expect("prepared");
    postgres.stop_fast();
    let (kind, text) = refusal(&plain_socket(&postgres)).await;
    assert_eq!(kind, ErrorKind::Retry);
    assert_says(&text, &[".s.PGSQL.", "unix_socket_directories"]);
}

fn plain_socket(postgres: &Postgres) -> replicator_source::Source {
    source(config(postgres.socket_url("postgres")))
}

#[tokio::test]
async fn what_keeps_us_out_is_said_with_the_remedy() {
    let postgres = Postgres::start(PgVersion::V15, &PgOptions::default().setting("max_connections", "8"));
    let text = stays_out(&postgres, "nobody_at_all", "sslmode=disable", "").await;
    assert_says(&text, &["28000", "nobody_at_all", "pg_hba.conf"]);

    let missing = source(config(postgres.url("no_such_db")));
    let (kind, text) = refusal(&missing).await;
    assert_eq!(kind, ErrorKind::Halt);
    assert_says(&text, &["3D000", "no_such_db", "create database"]);

    postgres.sql(
        "postgres",
        "CREATE ROLE app LOGIN; CREATE TABLE t (id int PRIMARY KEY); ALTER TABLE t OWNER TO app",
    );
    let role = source(config(postgres.url_as("app", "postgres", "sslmode=disable")));
    let (kind, text) = refusal(&role).await;
    assert_eq!(kind, ErrorKind::Halt);
    assert_says(&text, &["ALTER ROLE app REPLICATION"]);
    assert!(failures(&role.check().await).iter().any(|line| line.contains("ALTER ROLE app REPLICATION")));

    let mut held = Vec::new();
    for _ in 0..8 {
        let options = ConnectOptions::parse(&postgres.url("postgres"), None).unwrap();
        match replicator_pgconn::connect(&options).await {
            Ok(client) => held.push(client),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Retry);
                assert_says(&error.to_string(), &["53300", "max_connections"]);
                break;
            }
        }
    }
    assert!(held.len() < 8, "all connections were taken");
}

#[tokio::test]
async fn a_server_that_is_away_is_tried_again() {
    let postgres = Postgres::start(PgVersion::V15, &PgOptions::default());
    postgres.stop_fast();
    let (kind, text) = refusal(&plain(&postgres)).await;
    assert_eq!(kind, ErrorKind::Retry);
    assert_says(&text, &["127.0.0.1", "refused", "listen_addresses"]);

    let (kind, text) = refusal(&source(config("postgres://u@no-such-host.invalid/d"))).await;
    assert_eq!(kind, ErrorKind::Retry);
    assert_says(&text, &["no-such-host.invalid", "DNS"]);

    // A port that takes connections and says nothing.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut config = config(format!("postgres://u@{}/d?sslmode=disable", silent.local_addr().unwrap()));
    config.connect_timeout_ms = 300;
    let (kind, text) = refusal(&source(config)).await;
    assert_eq!(kind, ErrorKind::Retry);
    assert_says(&text, &["no answer within 0.3 s"]);
}

#[tokio::test]
async fn the_second_of_two_hosts_is_taken_when_the_first_is_away() {
    let postgres = Postgres::start(PgVersion::V15, &PgOptions::default());
    let nobody = Port::take();
    let url = format!(
        "postgres://postgres@127.0.0.1:{},127.0.0.1:{}/postgres?sslmode=disable",
        nobody.number(),
        postgres.port()
    );
    assert_eq!(failures(&source(config(url)).check().await), Vec::<String>::new());
}
