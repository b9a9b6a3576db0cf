//! What cannot work says so in one line with the remedy, in `check` and in `run`, and ends with exit code 1.

use replicator_harness::{
    ClickHouse, ClickHouseOptions, Config, PgOptions, PgVersion, Postgres, Replicator, replicator_binary,
};

const PASSWORD: &str = "correct-horse-7731";

/// A source with a table, and slot and publication `replicator` made.
fn source() -> Postgres {
    let source = Postgres::start(PgVersion::V15, &PgOptions::default());
    source.createdb("shop");
    source.sql("shop", "CREATE TABLE t (id bigint PRIMARY KEY)");
    source
}

/// Asserts that `check` and `run` both refuse, in one line that holds all of `expected`.
#[track_caller]
fn refused(config: &Config, expected: &[&str]) {
    let checked = Replicator::check(config);
    assert_eq!(checked.status.code(), Some(1), "check: {} {}", checked.stdout, checked.stderr);
    let fails: Vec<&str> = checked.stdout.lines().filter(|line| line.starts_with("FAIL")).collect();
    let said = fails.iter().any(|line| holds_all(line, expected));
    assert!(said, "check: no line holds {expected:?}:\n{}{}", checked.stdout, checked.stderr);
    let run = Replicator::run_to_end(config, &[]);
    assert_eq!(run.status.code(), Some(1), "run: {} {}", run.stdout, run.stderr);
    let last = run.stderr.lines().last().unwrap_or_default();
    assert!(holds_all(last, expected), "run: the last line does not hold {expected:?}:\n{}", run.stderr);
    for output in [&checked.stdout, &checked.stderr, &run.stdout, &run.stderr] {
        assert!(!output.contains("panicked"), "{output}");
        assert!(!output.contains(PASSWORD), "a password in {output}");
    }
}

fn holds_all(line: &str, expected: &[&str]) -> bool {
    let line = line.to_lowercase();
    expected.iter().all(|part| line.contains(&part.to_lowercase()))
}

#[test]
fn a_wrong_password() {
    let source =
        Postgres::start(PgVersion::V15, &PgOptions::default().hba("host all all 127.0.0.1/32 scram-sha-256"));
    source.sql("postgres", &format!("CREATE ROLE alice SUPERUSER LOGIN PASSWORD '{PASSWORD}-real'"));
    let url = source.url_as(&format!("alice:{PASSWORD}"), "postgres", "sslmode=disable");
    refused(&Config::new(&url).blackhole("nothing"), &["password", "alice"]);
}

#[test]
fn a_database_that_is_not_there() {
    let source = source();
    refused(&Config::new(&source.url("shpo")).blackhole("nothing"), &["shpo", "database"]);
}

#[test]
fn a_source_with_wal_level_replica() {
    let source = Postgres::start(PgVersion::V15, &PgOptions::default().wal_level("replica"));
    let config = Config::new(&source.url("postgres")).blackhole("nothing");
    refused(&config, &["wal_level", "logical", "restart"]);
}

#[test]
fn an_absent_publication_that_is_not_to_be_made() {
    let source = source();
    let config = Config::new(&source.url("shop")).set("source.create", false).blackhole("nothing");
    refused(&config, &["publication", "replicator", "create"]);
}

#[test]
fn an_absent_slot_that_is_not_to_be_made() {
    let source = source();
    source.sql("shop", "CREATE PUBLICATION replicator FOR ALL TABLES");
    let config = Config::new(&source.url("shop")).set("source.create", false).blackhole("nothing");
    refused(&config, &["slot", "replicator", "create"]);
}

#[test]
fn no_replication_slot_left() {
    let source = Postgres::start(PgVersion::V17, &PgOptions::default().setting("max_replication_slots", "1"));
    source.sql("postgres", "SELECT pg_create_logical_replication_slot('other', 'pgoutput')");
    source.sql("postgres", "CREATE TABLE t (id bigint PRIMARY KEY)");
    refused(&Config::new(&source.url("postgres")).blackhole("nothing"), &["max_replication_slots"]);
}

#[test]
fn a_role_without_replication() {
    let source = source();
    source.sql("shop", "CREATE ROLE bob LOGIN; CREATE PUBLICATION replicator FOR ALL TABLES");
    let url = source.url_as("bob", "shop", "sslmode=disable");
    refused(&Config::new(&url).blackhole("nothing"), &["bob", "REPLICATION"]);
}

#[test]
fn tables_that_the_role_may_not_read_are_found_before_the_copy() {
    let source = source();
    source.sql(
        "shop",
        "CREATE ROLE carol LOGIN REPLICATION; CREATE SCHEMA \"Odd\";
         CREATE TABLE open (id int PRIMARY KEY); GRANT SELECT ON open TO carol;
         CREATE TABLE closed (id int PRIMARY KEY); CREATE TABLE \"Odd\".within (id int PRIMARY KEY);
         GRANT SELECT ON \"Odd\".within TO carol;
         CREATE TABLE whole (id int PRIMARY KEY) PARTITION BY RANGE (id); GRANT SELECT ON whole TO carol;
         CREATE TABLE part PARTITION OF whole FOR VALUES FROM (0) TO (9);
         CREATE PUBLICATION replicator FOR ALL TABLES WITH (publish_via_partition_root)",
    );
    let config = Config::new(&source.url_as("carol", "shop", "sslmode=disable")).blackhole("nothing");
    let checked = Replicator::check(&config);
    assert_eq!(checked.status.code(), Some(1), "{}", checked.stdout);
    for named in ["public.closed", "\"Odd\".within", "public.part", "GRANT SELECT", "carol"] {
        assert!(checked.stdout.contains(named), "{named} in {}", checked.stdout);
    }
    assert!(!checked.stdout.contains("public.open"), "{}", checked.stdout);
    let checked = Replicator::check(&config.set("source.snapshot", "never"));
    assert!(!checked.stdout.contains("public.closed"), "{}", checked.stdout);
}

#[test]
fn a_table_without_replica_identity() {
    let source = source();
    source.sql("shop", "CREATE TABLE anonymous (a int); ALTER TABLE anonymous REPLICA IDENTITY NOTHING");
    let config = Config::new(&source.url("shop")).set("source.tables", vec!["public.*"]).blackhole("nothing");
    refused(&config, &["public.anonymous", "REPLICA IDENTITY"]);
}

#[test]
fn a_slot_of_another_plugin() {
    let source = source();
    source.sql("shop", "SELECT pg_create_logical_replication_slot('replicator', 'test_decoding')");
    refused(&Config::new(&source.url("shop")).blackhole("nothing"), &["slot", "replicator", "pgoutput"]);
}

#[test]
fn a_clickhouse_that_is_not_there() {
    let source = source();
    let config = Config::new(&source.url("shop"))
        .sink("analytics", "clickhouse", "http://127.0.0.1:1")
        .set_sink("analytics", "database", "shop");
    refused(&config, &["analytics", "127.0.0.1:1"]);
}

#[test]
fn a_clickhouse_with_another_password() {
    let source = source();
    let options = ClickHouseOptions { user: "default".into(), password: format!("{PASSWORD}-real") };
    let clickhouse = ClickHouse::start(&options);
    let config = Config::new(&source.url("shop")).clickhouse("analytics", &clickhouse).set_sink(
        "analytics",
        "password",
        PASSWORD,
    );
    refused(&config, &["analytics", "password"]);
}

#[test]
fn a_target_postgres_that_is_not_there() {
    let source = source();
    let config = Config::new(&source.url("shop")).sink("copy", "postgres", "postgres://x@127.0.0.1:1/copy");
    refused(&config, &["copy", "127.0.0.1:1"]);
}

#[test]
fn a_bucket_that_is_not_there() {
    let source = source();
    let s3 = replicator_harness::S3::with_bucket("bucket");
    let config = Config::new(&source.url("shop")).s3("archive", &s3, "buckte", "prefix");
    refused(&config, &["archive", "buckte"]);
}

#[test]
fn a_key_that_is_not_known_names_the_nearest() {
    let text = "[source]\nurl = \"postgres://x@127.0.0.1:1/y\"\nslott = \"a\"\n[[sink]]\nname = \"n\"\ntype = \"blackhole\"\n";
    for command in ["check", "run"] {
        let output = Replicator::output(text, &[command], &[]);
        assert_eq!(output.status.code(), Some(1), "{}", output.stderr);
        let lines: Vec<&str> = output.stderr.lines().collect();
        assert_eq!(lines.len(), 1, "{}", output.stderr);
        assert!(lines[0].contains("slott") && lines[0].contains("`slot`"), "{}", lines[0]);
    }
}

#[test]
fn the_default_configuration_is_printed_and_is_one() {
    let printed =
        std::process::Command::new(replicator_binary()).arg("config").output().expect("replicator config");
    let text = String::from_utf8_lossy(&printed.stdout);
    assert!(printed.status.success() && text.contains("[source]") && text.contains("[[sink]]"), "{text}");
    // Taken back as a configuration it is about a source that is not there; every key of it is known.
    let checked = Replicator::output(&text, &["check"], &[]);
    assert_eq!(checked.status.code(), Some(1), "{}", checked.stderr);
    assert!(checked.stdout.contains("FAIL source"), "{}{}", checked.stdout, checked.stderr);
}
