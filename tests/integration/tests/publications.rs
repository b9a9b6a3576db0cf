//! What of a database is published: partitions, columns, rows, messages, origins; each into all three sinks.

use replicator_harness::{
    Column, Config, PgVersion, Postgres, Replicator, Rows, archive_events, assert_same_rows, source_columns,
};
use replicator_integration::{Table, World, drain, resync, stream};
use serde_json::Value;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(60);

/// Both ends of what is supported.
const VERSIONS: [PgVersion; 2] = [PgVersion::V15, PgVersion::V18];

/// A configuration of the three sinks for a publication of its own, into places of its own.
fn config_of(world: &World, name: &str) -> Config {
    world.target.createdb(name);
    Config::new(&world.source.url("shop"))
        .set("source.slot", name)
        .set("source.publication", name)
        .set("source.catalog_interval_ms", 300)
        .clickhouse("analytics", &world.clickhouse)
        .set_sink("analytics", "database", clickhouse_database(world, name))
        .postgres("copy", &world.target, name)
        .s3("archive", &world.s3, "bucket", name)
}

fn clickhouse_database(world: &World, name: &str) -> String {
    format!("{}_{name}", world.clickhouse.database())
}

/// Compares what a query of the source gives with a table of both databases of `config_of`.
async fn assert_table_is(world: &World, name: &str, table: &str, query: &str, columns: &[Column]) {
    let source = world.source.client("shop").await;
    let target = world.target.client(name).await;
    let expected = Rows::of_postgres(&source, &format!("({query}) AS wanted"), columns).await;
    assert_same_rows(
        &format!("{table} in Postgres, {name}"),
        &expected,
        &Rows::of_postgres(&target, &format!("public.{table}"), columns).await,
    );
    let mirror = Rows::of_clickhouse(&world.clickhouse, &clickhouse_database(world, name), table, columns);
    assert_same_rows(&format!("{table} in ClickHouse, {name}"), &expected, &mirror);
}

async fn columns_of(world: &World, table: &str) -> Vec<Column> {
    let source = world.source.client("shop").await;
    source_columns(&source, &format!("public.{table}")).await
}

#[test]
fn a_partition_whose_identity_is_not_its_roots_is_told_before_the_run() {
    for version in VERSIONS {
        let world = World::start(version);
        world.source.sql(
            "shop",
            "CREATE TABLE parts (id int PRIMARY KEY, v text) PARTITION BY LIST (id);
             CREATE TABLE parts_1 PARTITION OF parts FOR VALUES IN (1);
             ALTER TABLE parts_1 REPLICA IDENTITY FULL;
             CREATE PUBLICATION replicator FOR TABLE parts WITH (publish_via_partition_root = true)",
        );
        let checked = Replicator::check(&Config::new(&world.source.url("shop")).blackhole("nothing"));
        let said = checked.stdout + &checked.stderr;
        assert!(said.contains("parts_1") && said.contains("identity"), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_are_one_table_or_many_as_the_publication_says() {
    for version in VERSIONS {
        let world = World::start(version);
        world.source.sql(
            "shop",
            "CREATE TABLE parts (id int, region text, v text, PRIMARY KEY (id, region)) PARTITION BY LIST (region);
             CREATE TABLE parts_a PARTITION OF parts FOR VALUES IN ('a');
             CREATE TABLE parts_b (v text, gone int, region text NOT NULL, id int NOT NULL);
             ALTER TABLE parts_b DROP COLUMN gone; ALTER TABLE parts ATTACH PARTITION parts_b FOR VALUES IN ('b');
             CREATE TABLE parts_c PARTITION OF parts FOR VALUES IN ('c') PARTITION BY RANGE (id);
             CREATE TABLE parts_c1 PARTITION OF parts_c FOR VALUES FROM (0) TO (100);
             CREATE TABLE parts_c2 PARTITION OF parts_c FOR VALUES FROM (100) TO (10000);
             INSERT INTO parts SELECT n, CASE n % 3 WHEN 0 THEN 'a' WHEN 1 THEN 'b' ELSE 'c' END, 'v' FROM generate_series(1, 300) n;
             CREATE PUBLICATION root FOR TABLE parts WITH (publish_via_partition_root = true);
             CREATE PUBLICATION leaves FOR TABLE parts",
        );
        let (root, leaves) = (config_of(&world, "root"), config_of(&world, "leaves"));
        // Of partitions under a root the catalog tells; here is what the stream alone tells.
        let root = root.set("source.catalog_interval_ms", 0);
        drain(&root);
        drain(&leaves);
        let mut replicators = [Replicator::spawn(&root, &[]), Replicator::spawn(&leaves, &[])];
        replicators.iter_mut().for_each(|replicator| replicator.wait_until_ready(SOON));
        world.source.sql(
            "shop",
            "UPDATE parts SET v = 'w' WHERE id % 7 = 0;
             -- From one partition to another: a delete here and an insert there.
             UPDATE parts SET region = 'b' WHERE region = 'a' AND id % 2 = 0;
             UPDATE parts SET id = id + 1000 WHERE region = 'c' AND id < 50;
             DELETE FROM parts WHERE id BETWEEN 60 AND 70;
             -- A partition that is new, and empty.
             CREATE TABLE parts_d PARTITION OF parts FOR VALUES IN ('d');
             INSERT INTO parts SELECT n, 'd', 'new' FROM generate_series(1, 20) n;
             -- One that goes; what is written to it then is no longer of the table.
             ALTER TABLE parts DETACH PARTITION parts_c;",
        );
        for replicator in &mut replicators {
            replicator.sigterm();
            assert!(replicator.wait(SOON).success(), "{}", replicator.stderr());
        }
        drain(&root);
        drain(&leaves);
        let columns = columns_of(&world, "parts").await;
        for leaf in ["parts_a", "parts_b", "parts_d"] {
            assert_table_is(&world, "leaves", leaf, &format!("SELECT * FROM {leaf}"), &columns).await;
        }
        // The rows of a partition that was detached stay: Postgres sends nothing about that, and the catalog is not asked.
        let everything = "SELECT * FROM parts UNION ALL SELECT id, region, v FROM parts_c";
        assert_table_is(&world, "root", "parts", everything, &columns).await;
        let tables =
            "SELECT string_agg(relname, ' ') FROM pg_class WHERE relkind = 'r' AND relname ~ '^parts'";
        assert_eq!(world.target.sql("root", tables), "parts");

        // A truncate of all is one of the root, or one of each leaf.
        world.source.sql(
            "shop",
            "BEGIN; TRUNCATE parts; INSERT INTO parts VALUES (1, 'a', 'x'), (2, 'b', 'x'), (3, 'd', 'x'); COMMIT;",
        );
        drain(&root);
        drain(&leaves);
        assert_table_is(&world, "root", "parts", "SELECT * FROM parts", &columns).await;
        for leaf in ["parts_a", "parts_b", "parts_d"] {
            assert_table_is(&world, "leaves", leaf, &format!("SELECT * FROM {leaf}"), &columns).await;
        }

        // A truncate of one is sent only where partitions are tables, and a partition that comes with rows is copied
        // only there.
        world.source.sql(
            "shop",
            "TRUNCATE parts_a;
             CREATE TABLE parts_e (id int NOT NULL, region text NOT NULL, v text, PRIMARY KEY (id, region));
             INSERT INTO parts_e VALUES (7, 'e', 'brought along');
             ALTER TABLE parts ATTACH PARTITION parts_e FOR VALUES IN ('e'); INSERT INTO parts VALUES (8, 'e', 'later')",
        );
        drain(&root);
        drain(&leaves);
        for leaf in ["parts_a", "parts_b", "parts_d", "parts_e"] {
            assert_table_is(&world, "leaves", leaf, &format!("SELECT * FROM {leaf}"), &columns).await;
        }
        let without = "SELECT * FROM parts WHERE id <> 7 UNION ALL SELECT 1, 'a', 'x'";
        assert_table_is(&world, "root", "parts", without, &columns).await;
        resync(&root, &["public.parts"]);
        let mut replicator = Replicator::spawn(&root, &[]);
        replicator.wait_for_line("caught up", SOON);
        replicator.sigterm();
        assert!(replicator.wait(SOON).success(), "{}", replicator.stderr());
        assert_table_is(&world, "root", "parts", "SELECT * FROM parts", &columns).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_filter_and_a_column_list_hold_in_the_copy_and_in_the_stream() {
    for version in VERSIONS {
        let world = World::start(version);
        world.source.sql(
            "shop",
            "CREATE TABLE people (id int, city text, secret text, name text, PRIMARY KEY (id, city));
             CREATE TABLE listed (id int PRIMARY KEY, secret text NOT NULL, shown text);
             CREATE TABLE filtered (id int PRIMARY KEY, n int, v text); ALTER TABLE filtered REPLICA IDENTITY FULL;
             INSERT INTO people SELECT n, CASE WHEN n % 2 = 0 THEN 'here' ELSE 'away' END, 'tell nobody', 'p' || n
                 FROM generate_series(1, 40) n;
             INSERT INTO listed SELECT n, 'tell nobody', 's' FROM generate_series(1, 20) n;
             INSERT INTO filtered SELECT n, n % 10, 'v' FROM generate_series(1, 40) n;
             CREATE PUBLICATION partly FOR TABLE people (id, city, name) WHERE (city = 'here'), listed (id, shown),
                 filtered WHERE (n > 4)",
        );
        let config = config_of(&world, "partly");
        drain(&config);
        stream(
            &world,
            &config,
            "-- Into the filter, out of it, and within.
             UPDATE people SET city = 'here' WHERE id IN (1, 3); UPDATE people SET city = 'away' WHERE id IN (2, 4);
             UPDATE people SET name = 'renamed' WHERE id < 12; UPDATE people SET secret = 'tell nobody else';
             UPDATE people SET id = id + 100 WHERE id IN (5, 6, 7, 8); DELETE FROM people WHERE id IN (9, 10);
             INSERT INTO people VALUES (50, 'here', 'tell nobody', 'new'), (51, 'away', 'tell nobody', 'new');
             UPDATE listed SET secret = 'tell nobody else' WHERE id < 5; UPDATE listed SET shown = NULL WHERE id > 15;
             UPDATE listed SET id = id + 100 WHERE id = 7; DELETE FROM listed WHERE id = 8;
             UPDATE filtered SET n = n + 3; UPDATE filtered SET n = NULL WHERE id = 9; UPDATE filtered SET n = n - 5 WHERE n > 8;
             UPDATE filtered SET id = id + 100 WHERE id < 6; DELETE FROM filtered WHERE id % 6 = 0;",
        );
        let without_secret = |columns: Vec<Column>| {
            columns.into_iter().filter(|column| column.name != "secret").collect::<Vec<_>>()
        };
        let people = without_secret(columns_of(&world, "people").await);
        assert_table_is(&world, "partly", "people", "SELECT * FROM people WHERE city = 'here'", &people)
            .await;
        let listed = without_secret(columns_of(&world, "listed").await);
        assert_table_is(&world, "partly", "listed", "SELECT * FROM listed", &listed).await;
        let filtered = columns_of(&world, "filtered").await;
        assert_table_is(&world, "partly", "filtered", "SELECT * FROM filtered WHERE n > 4", &filtered).await;
        let events = archive_events(&world.s3.folder("bucket").join("partly"));
        assert!(!events.is_empty());
        let told = events.iter().find(|event| event.to_string().contains("tell nobody"));
        assert!(told.is_none(), "{told:?}");
        let secrets = "SELECT count(*) FROM information_schema.columns WHERE column_name = 'secret'";
        assert_eq!(world.target.sql("partly", secrets), "0");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn columns_that_the_source_fills_arrive_with_its_values() {
    for version in VERSIONS {
        let world = World::start(version);
        world.source.sql(
            "shop",
            "CREATE TABLE made (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, a int, twice int GENERATED ALWAYS AS (a * 2) STORED,
                 number int GENERATED BY DEFAULT AS IDENTITY, at timestamptz DEFAULT now(), v text DEFAULT 'x', s smallserial);
             INSERT INTO made (a) SELECT generate_series(1, 20);",
        );
        if version == PgVersion::V18 {
            world.source.sql("shop", "ALTER TABLE made ADD thrice int GENERATED ALWAYS AS (a * 3) VIRTUAL");
        }
        let config = world.config();
        drain(&config);
        let changes = "INSERT INTO made (a) SELECT generate_series(21, 30); UPDATE made SET a = a + 1 WHERE id % 3 = 0;
             INSERT INTO made (id, a) OVERRIDING SYSTEM VALUE VALUES (1000, 5); UPDATE made SET number = 7 WHERE id = 2;
             UPDATE made SET id = DEFAULT WHERE id = 4; DELETE FROM made WHERE id = 5; UPDATE made SET v = DEFAULT, at = DEFAULT WHERE id = 6;";
        stream(&world, &config, changes);
        world.assert_equal(&[Table { name: "made", key: &["id"] }]).await;
        // Not sent, and so not there: they can be made there from the same expression.
        let generated = "SELECT count(*) FROM information_schema.columns WHERE table_name = 'made' AND column_name IN ('twice', 'thrice')";
        assert_eq!(world.target.sql("copy", generated), "0");
        if version == PgVersion::V18 {
            world.source.sql(
                "shop",
                "CREATE PUBLICATION stored FOR TABLE made WITH (publish_generated_columns = stored)",
            );
            let config = config_of(&world, "stored");
            drain(&config);
            stream(
                &world,
                &config,
                "INSERT INTO made (a) VALUES (31); UPDATE made SET a = a + 1 WHERE id % 4 = 0",
            );
            let mut columns = columns_of(&world, "made").await;
            let twice = Column {
                name: "twice".into(),
                ..columns.iter().find(|column| column.name == "a").unwrap().clone()
            };
            columns.push(twice);
            assert_table_is(&world, "stored", "made", "SELECT * FROM made", &columns).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_makes_columns_itself_keeps_making_them() {
    let world = World::start(PgVersion::V17);
    let table = "CREATE TABLE made (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, a int, twice int GENERATED ALWAYS AS (a * 2) STORED)";
    world.source.sql("shop", &format!("{table}; INSERT INTO made (a) SELECT generate_series(1, 20)"));
    world.target.sql("copy", table);
    let config = world.postgres_config();
    drain(&config);
    stream(
        &world,
        &config,
        "INSERT INTO made (a) VALUES (21); UPDATE made SET a = -a WHERE id < 4; DELETE FROM made WHERE id = 5",
    );
    let all = "SELECT string_agg(made::text, ' ' ORDER BY id) FROM made";
    assert_eq!(world.target.sql("copy", all), world.source.sql("shop", all));
}

/// What an archive says in order: `table:key` of a change, `prefix:content` of a message.
fn told(events: &[Value]) -> Vec<String> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut events: Vec<&Value> = events
        .iter()
        .filter(|event| !["read", "truncate"].contains(&event["op"].as_str().unwrap_or_default()))
        .collect();
    events.sort_by_key(|event| text(&event["event_id"]));
    let line = |event: &&Value| match event["op"].as_str() {
        Some("message") if event.get("content_base64").is_some() => {
            format!("{}:base64 {}", text(&event["prefix"]), text(&event["content_base64"]))
        }
        Some("message") => format!("{}:{}", text(&event["prefix"]), text(&event["content"])),
        _ => format!("{}:{}", text(&event["table"]), event["key"]["id"]),
    };
    events.iter().map(line).collect()
}

#[test]
fn logical_messages_stand_in_the_archive_where_they_were_sent() {
    for version in VERSIONS {
        let world = World::start(version);
        world.source.sql("shop", "CREATE TABLE t (id int PRIMARY KEY)");
        let config = world.config().set("source.heartbeat_interval_ms", 100);
        let silent =
            config.clone().set_sink("archive", "url", "s3://bucket/silent").set("source.slot", "silent");
        let config = config.set("source.messages", true);
        drain(&silent);
        drain(&config);
        stream(
            &world,
            &config,
            "INSERT INTO t VALUES (1);
             BEGIN; INSERT INTO t VALUES (2); SELECT pg_logical_emit_message(true, 'audit', 'in the middle'); INSERT INTO t VALUES (3);
                 SELECT pg_logical_emit_message(true, 'audit', ''); COMMIT;
             SELECT pg_logical_emit_message(true, 'alone', 'ünï \"quoted\" \\N');
             SELECT pg_logical_emit_message(false, 'at once', '\\x00ff'::bytea);
             BEGIN; SELECT pg_logical_emit_message(true, 'audit', 'given up'); INSERT INTO t VALUES (99); ROLLBACK;
             BEGIN; INSERT INTO t VALUES (4); SAVEPOINT s; SELECT pg_logical_emit_message(true, 'audit', 'given up too'); ROLLBACK TO s;
                 INSERT INTO t VALUES (5); COMMIT;
             INSERT INTO t VALUES (6);",
        );
        drain(&silent);
        let events = |prefix: &str| archive_events(&world.s3.folder("bucket").join(prefix));
        let expected = [
            "t:1",
            "t:2",
            "audit:in the middle",
            "t:3",
            "audit:",
            "alone:ünï \"quoted\" \\N",
            "at once:base64 AP8=",
            "t:4",
            "t:5",
            "t:6",
        ];
        assert_eq!(told(&events("prefix")), expected, "{version:?}");
        assert_eq!(told(&events("silent")), ["t:1", "t:2", "t:3", "t:4", "t:5", "t:6"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_that_another_replication_brought_are_left_out_when_asked_for() {
    for version in [PgVersion::V17, PgVersion::V18] {
        let world = World::start(version);
        world.source.sql(
            "shop",
            "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t VALUES (1, 'copied');
             SELECT pg_replication_origin_create('elsewhere')",
        );
        let own = world.config().set("source.origin", "none");
        drain(&own);
        let with_all = config_of(&world, "all_of_it").set("source.publication", "replicator");
        drain(&with_all);
        stream(
            &world,
            &own,
            "INSERT INTO t VALUES (2, 'own');
             SELECT pg_replication_origin_session_setup('elsewhere');
             INSERT INTO t VALUES (3, 'brought'); UPDATE t SET v = 'brought' WHERE id = 1;
             BEGIN; INSERT INTO t VALUES (4, 'brought'); SELECT pg_replication_origin_xact_setup('0/1234', now()); COMMIT;
             SELECT pg_replication_origin_session_reset();
             INSERT INTO t VALUES (5, 'own');",
        );
        drain(&with_all);
        let all = "SELECT string_agg(id || v, ' ' ORDER BY id) FROM t";
        assert_eq!(world.target.sql("copy", all), "1copied 2own 5own");
        assert_eq!(world.target.sql("all_of_it", all), "1brought 2own 3brought 4brought 5own");
        assert_table_is(&world, "all_of_it", "t", "SELECT * FROM t", &columns_of(&world, "t").await).await;
    }
}

#[test]
fn origins_need_a_postgres_that_knows_them() {
    let source = Postgres::start(PgVersion::V15, &Default::default());
    source.createdb("shop");
    source.sql("shop", "CREATE TABLE t (id int PRIMARY KEY)");
    let config = Config::new(&source.url("shop")).set("source.origin", "none").blackhole("nothing");
    let ended = Replicator::run_to_end(&config, &["--endpos", "current"]);
    assert_eq!(ended.status.code(), Some(1), "{}", ended.stderr);
    let last = ended.stderr.lines().last().unwrap_or_default();
    assert!(last.contains("source.origin") && last.contains("16"), "{last}");
}
