//! What of a database is published: partitions, columns, rows, messages, origins; each into all three sinks.

use replicator_harness::{
    Column, Config, PgOptions, PgVersion, Postgres, Replicator, Rows, archive_events, difference,
    eventually_blocking, source_columns,
};
use replicator_integration::{Sinks, Table, World, described_events, drain, fold_newest, resync, stream};
use serde_json::Value;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

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

/// Compares what a query of the source gives with a table of the three sinks of `config_of`.
async fn assert_table_is(world: &World, name: &str, table: &str, query: &str, columns: &[Column]) {
    if let Some(text) = what_differs(world, name, table, query, columns).await {
        panic!("{text}");
    }
}

/// As [`assert_table_is`], as soon as it is so.
async fn assert_table_becomes(world: &World, name: &str, table: &str, query: &str, columns: &[Column]) {
    let begun = Instant::now();
    while let Some(text) = what_differs(world, name, table, query, columns).await {
        assert!(begun.elapsed() < SOON, "{text}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn what_differs(
    world: &World,
    name: &str,
    table: &str,
    query: &str,
    columns: &[Column],
) -> Option<String> {
    let source = world.source.client("shop").await;
    let target = world.target.client(name).await;
    let database = clickhouse_database(world, name);
    let names: BTreeSet<&str> = columns.iter().map(|column| column.name.as_str()).collect();
    let in_postgres = format!(
        "SELECT attname FROM pg_attribute
         WHERE attrelid = to_regclass('public.{table}') AND attnum > 0 AND NOT attisdropped AND attgenerated = ''"
    );
    let in_clickhouse = format!(
        "SELECT name FROM system.columns WHERE database = '{database}' AND table = '{table}' AND name NOT LIKE '\\_%'"
    );
    for there in [world.target.sql(name, &in_postgres), world.clickhouse.query(&in_clickhouse)] {
        if there.lines().collect::<BTreeSet<_>>() != names {
            return Some(format!("{table}, {name}: columns {there:?}, and not {names:?}"));
        }
    }
    let expected = Rows::of_postgres(&source, &format!("({query}) AS wanted"), columns).await;
    let copy = Rows::of_postgres(&target, &format!("public.{table}"), columns).await;
    let mirror = Rows::of_clickhouse(&world.clickhouse, &database, table, columns);
    let of = |place: &str, rows: &Rows| {
        difference(&expected, rows).map(|text| format!("{table} in {place}, {name}: {text}"))
    };
    let archived = || {
        let events = described_events(&world.s3.folder("bucket").join(name));
        match fold_newest(&events, table, &key_of(world, table), columns) {
            Ok(rows) => of("the archive", &rows),
            Err(text) => Some(format!("{table} in the archive, {name}: {text}")),
        }
    };
    of("Postgres", &copy).or_else(|| of("ClickHouse", &mirror)).or_else(archived)
}

/// The columns of a table's primary key.
fn key_of(world: &World, table: &str) -> Vec<String> {
    let sql = format!(
        "SELECT attname FROM pg_index i JOIN pg_attribute a ON a.attrelid = indrelid AND attnum = ANY (indkey)
         WHERE indrelid = 'public.{table}'::regclass AND indisprimary"
    );
    world.source.sql("shop", &sql).lines().map(str::to_owned).collect()
}

async fn columns_of(world: &World, table: &str) -> Vec<Column> {
    let source = world.source.client("shop").await;
    source_columns(&source, &format!("public.{table}")).await
}

/// What `check` says of the source.
fn said_by_check(world: &World) -> String {
    let checked = Replicator::check(&Config::new(&world.source.url("shop")).blackhole("nothing"));
    checked.stdout + &checked.stderr
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
             CREATE TABLE keyed (id int, v text) PARTITION BY LIST (id);
             CREATE TABLE keyed_1 PARTITION OF keyed (PRIMARY KEY (v)) FOR VALUES IN (1);
             CREATE TABLE fine (id int PRIMARY KEY, v text) PARTITION BY LIST (id);
             CREATE TABLE fine_1 PARTITION OF fine FOR VALUES IN (1);
             CREATE PUBLICATION replicator FOR TABLE parts, keyed, fine WITH (publish_via_partition_root = true)",
        );
        let said = said_by_check(&world);
        for (partition, is_told) in [("parts_1", true), ("keyed_1", true), ("fine_1", false)] {
            let told = format!("partition public.{partition} has another replica identity");
            assert_eq!(said.contains(&told), is_told, "{partition}: {said}");
        }
    }
}

#[test]
fn partitions_that_are_published_each_on_its_own_are_told_before_the_run() {
    for version in VERSIONS {
        let world = World::start(version);
        world.source.sql(
            "shop",
            "CREATE TABLE parts (id int PRIMARY KEY, v text) PARTITION BY LIST (id);
             CREATE TABLE parts_1 PARTITION OF parts FOR VALUES IN (1);
             CREATE TABLE parts_2 PARTITION OF parts FOR VALUES IN (2);
             CREATE PUBLICATION replicator FOR TABLE parts",
        );
        let warning = "each of the 2 partitions of public.parts is a table of its own";
        let said = said_by_check(&world);
        assert!(said.contains(warning) && said.contains("SET (publish_via_partition_root = true)"), "{said}");
        world.source.sql("shop", "ALTER PUBLICATION replicator SET (publish_via_partition_root = true)");
        let said = said_by_check(&world);
        assert!(!said.contains(warning), "{said}");
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
async fn a_filter_or_a_list_of_columns_that_changes_brings_and_takes_what_was_there_before() {
    for version in VERSIONS {
        let world = World::start(version);
        world.source.sql(
            "shop",
            "CREATE TABLE t (id int PRIMARY KEY, a text, b text); CREATE TABLE other (id int PRIMARY KEY);
             INSERT INTO t SELECT n, 'a' || n, 'b' || n FROM generate_series(1, 40) n; INSERT INTO other VALUES (1);
             CREATE PUBLICATION changing FOR TABLE other, t (id, a) WHERE (id <= 20)",
        );
        let mut replicator = Replicator::spawn(&config_of(&world, "changing"), &[]);
        let all = columns_of(&world, "t").await;
        let listed: Vec<Column> = all.iter().filter(|column| column.name != "b").cloned().collect();
        for (number, (published, columns, condition)) in [
            ("t (id, a) WHERE (id <= 20)", &listed, "id <= 20"),
            ("t (id, a) WHERE (id <= 30)", &listed, "id <= 30"),
            ("t (id, a) WHERE (id > 10)", &listed, "id > 10"),
            ("t WHERE (id > 10)", &all, "id > 10"),
            ("t", &all, "true"),
        ]
        .into_iter()
        .enumerate()
        {
            world.source.sql(
                "shop",
                &format!(
                    "ALTER PUBLICATION changing SET TABLE other, {published}; INSERT INTO t VALUES ({}, 'new', 'new')",
                    50 + number
                ),
            );
            let query = format!("SELECT * FROM t WHERE {condition}");
            assert_table_becomes(&world, "changing", "t", &query, columns).await;
        }
        let others = columns_of(&world, "other").await;
        assert_table_is(&world, "changing", "other", "SELECT * FROM other", &others).await;
        replicator.sigterm();
        assert!(replicator.wait(SOON).success(), "{}", replicator.stderr());
        assert!(
            !replicator.stderr().contains("\"table\":\"public.other\",\"why\""),
            "{}",
            replicator.stderr()
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_out_of_the_publication_for_a_moment_has_what_it_missed() {
    for version in VERSIONS {
        let world = World::start(version);
        world.source.sql(
            "shop",
            "CREATE TABLE t (id int PRIMARY KEY, v text); CREATE TABLE other (id int PRIMARY KEY);
             INSERT INTO t SELECT n, 'v' FROM generate_series(1, 40) n; CREATE PUBLICATION moment FOR TABLE other, t",
        );
        let config = config_of(&world, "moment").set("source.catalog_interval_ms", 2000);
        let columns = columns_of(&world, "t").await;
        let equal = async || assert_table_becomes(&world, "moment", "t", "SELECT * FROM t", &columns).await;
        let mut replicator = Replicator::spawn(&config, &[]);
        equal().await;
        for is_away in [false, true] {
            if is_away {
                replicator.kill9();
            }
            world.source.sql("shop", "ALTER PUBLICATION moment DROP TABLE t");
            world.source.sql("shop", "DELETE FROM t WHERE id IN (SELECT min(id) FROM t)");
            world.source.sql("shop", "UPDATE t SET v = v || '.' WHERE id > 30");
            world.source.sql("shop", "INSERT INTO t SELECT max(id) + 1, 'missed' FROM t");
            world.source.sql("shop", "ALTER PUBLICATION moment ADD TABLE t");
            if is_away {
                replicator = Replicator::spawn(&config, &[]);
            }
            equal().await;
        }
        world.source.sql("shop", "DELETE FROM t WHERE id % 2 = 0; UPDATE t SET v = 'end'");
        equal().await;
        replicator.sigterm();
        assert!(replicator.wait(SOON).success(), "{}", replicator.stderr());
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
        // Computed there, or sent: all of them.
        world.assert_soon_equal("generated", SOON, Sinks::All, |_, _| true).await;
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
            let columns = columns_of(&world, "made").await;
            assert!(columns.iter().any(|column| column.name == "twice"), "it is sent");
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
        let mirror = world.clickhouse.query(&format!(
            "SELECT arrayStringConcat(arraySort(groupArray(concat(toString(id), v))), ' ') FROM {}.t FINAL",
            world.clickhouse.database()
        ));
        assert_eq!(mirror.trim(), "1copied 2own 5own");
        let archived = archive_events(&world.archive_root());
        let brought = archived.iter().find(|event| event.to_string().contains("brought"));
        assert!(brought.is_none() && archived.iter().any(|event| event["key"]["id"] == 5), "{brought:?}");
        assert_eq!(world.target.sql("all_of_it", all), "1brought 2own 3brought 4brought 5own");
        assert_table_is(&world, "all_of_it", "t", "SELECT * FROM t", &columns_of(&world, "t").await).await;
    }
}

/// From one database into the other, whose changes come the other way.
fn one_way(from: &Postgres, database: &str, to: &Postgres, copy: &str) -> Config {
    Config::new(&from.url(database))
        .set("source.tables", vec!["public.t"])
        .set("source.origin", "none")
        .set("source.snapshot", "never")
        .postgres("other", to, copy)
        .set_sink("other", "origin", true)
        .set_sink("other", "shards", 2)
        .set_sink("other", "batch.interval_ms", 50)
}

#[tokio::test(flavor = "multi_thread")]
async fn two_databases_that_feed_each_other_end_equal_and_no_change_goes_around() {
    for version in [PgVersion::V17, PgVersion::V18] {
        let one = Postgres::start(version, &PgOptions::default());
        let two = Postgres::start(PgVersion::V17, &PgOptions::default());
        one.createdb("shop");
        two.createdb("copy");
        for (server, database) in [(&one, "shop"), (&two, "copy")] {
            server.sql(database, "CREATE TABLE t (id int PRIMARY KEY, v text)");
        }
        let ways = [one_way(&one, "shop", &two, "copy"), one_way(&two, "copy", &one, "shop")];
        let mut replicators = ways.each_ref().map(|config| Replicator::spawn(config, &[]));
        replicators.iter_mut().for_each(|replicator| replicator.wait_until_ready(SOON));
        for round in 0..5 {
            let rows = |first: u32| {
                format!("INSERT INTO t SELECT n, 'new {round}' FROM generate_series({first}, {first} + 9) n")
            };
            one.sql("shop", &rows(round * 10));
            two.sql("copy", &rows(1000 + round * 10));
        }
        let all = "SELECT string_agg(id || v, ' ' ORDER BY id) FROM t";
        let are_equal = || {
            let (left, right) = (one.sql("shop", all), two.sql("copy", all));
            let count = one.sql("shop", "SELECT count(*) FROM t");
            if left == right && count == "100" { Ok(()) } else { Err(format!("{left}\n{right}")) }
        };
        eventually_blocking(SOON, "equal rows", are_equal);
        // Each side changes what came from the other.
        two.sql("copy", "UPDATE t SET v = 'two' WHERE id < 20; DELETE FROM t WHERE id = 0");
        eventually_blocking(SOON, "the update", || match one.sql("shop", all).contains("19two") {
            true => Ok(()),
            false => Err("not there".to_owned()),
        });
        one.sql("shop", "UPDATE t SET v = 'one' WHERE id < 10; INSERT INTO t VALUES (0, 'again')");
        eventually_blocking(SOON, "equal rows", are_equal);
        assert!(one.sql("shop", all).starts_with("0again 1one"));
        // What came from the other side does not come back, also not behind these.
        one.sql("shop", "INSERT INTO t VALUES (500, 'last')");
        two.sql("copy", "INSERT INTO t VALUES (1500, 'last')");
        for (replicator, changes) in replicators.iter().zip([50.0 + 10.0 + 1.0, 50.0 + 21.0 + 1.0]) {
            eventually_blocking(SOON, "the count of changes", || {
                let counted = replicator.metrics().sum("replicator_events_processed_total", &[]);
                if counted == Some(changes) { Ok(()) } else { Err(format!("{counted:?}")) }
            });
        }
        for replicator in &mut replicators {
            replicator.sigterm();
            assert!(replicator.wait(SOON).success(), "{}", replicator.stderr());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_may_not_set_an_origin_is_told_what_to_grant() {
    let one = Postgres::start(PgVersion::V17, &PgOptions::default());
    let two = Postgres::start(PgVersion::V17, &PgOptions::default());
    one.createdb("shop");
    two.createdb("copy");
    one.sql("shop", "CREATE TABLE t (id int PRIMARY KEY)");
    let writer = "CREATE ROLE writer LOGIN; GRANT ALL ON DATABASE copy TO writer; GRANT ALL ON SCHEMA public TO writer";
    two.sql("copy", writer);
    let config = one_way(&one, "shop", &two, "copy").set_sink(
        "other",
        "url",
        two.url_as("writer", "copy", "sslmode=disable"),
    );
    let checked = Replicator::output(&config.to_toml(), &["check"], &[]);
    assert!(!checked.status.success());
    let said = format!("{}{}", checked.stdout, checked.stderr);
    assert!(said.contains("replication origin") && said.contains("GRANT EXECUTE ON FUNCTION"), "{said}");
    let ran = Replicator::run_to_end(&config, &[]);
    assert!(ran.stderr.contains("pg_replication_origin_session_setup"), "{}", ran.stderr);
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
