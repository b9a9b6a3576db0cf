//! Values that ClickHouse has no room for, and what becomes of them as it is set; values that are merely large.

use replicator_harness::{Config, PgOptions, PgVersion, Postgres, Replicator};
use replicator_integration::{Sinks, Table, World, drain, stop, wait_for_copy, wait_for_stream};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(60);

#[test]
fn what_clickhouse_has_no_room_for_becomes_null_where_that_is_asked_for() {
    for version in [PgVersion::V15, PgVersion::V18] {
        let world = World::start(version);
        world.source.sql(
        "shop",
        "CREATE TABLE misfits (id int PRIMARY KEY, d date, ts timestamptz, n numeric(12,2), days date[] NOT NULL, strict numeric(5,2) NOT NULL);
         INSERT INTO misfits VALUES (1, 'infinity', '-infinity', 'NaN', '{2024-02-29,infinity,NULL}', 1)",
    );
        let database = |name: &str| format!("{}_{name}", world.clickhouse.database());
        let config = Config::new(&world.source.url("shop"))
            .clickhouse("nulls", &world.clickhouse)
            .set_sink("nulls", "database", database("nulls"))
            .set_sink("nulls", "out_of_range", "null");
        let mut replicator = Replicator::spawn(&config, &[]);
        replicator.wait_until_ready(SOON);
        world.source.sql(
        "shop",
        "INSERT INTO misfits VALUES (2, '0044-03-15 BC', '294276-12-31', 'NaN', '{}', 'NaN'), (3, '2024-02-29', NULL, 1.5, '{}', 2)",
    );
        wait_for_copy(&replicator);
        wait_for_stream(&world, &replicator);
        let rows = world.clickhouse.query(&format!(
            "SELECT * EXCEPT (_version, _deleted, _commit_time) FROM `{}`.misfits FINAL ORDER BY id",
            database("nulls")
        ));
        let expected = "1\t\\N\t\\N\t\\N\t['2024-02-29',NULL,NULL]\t1\n2\t\\N\t\\N\t\\N\t[]\t\\N\n3\t2024-02-29\t\\N\t1.5\t[]\t2\n";
        assert_eq!(rows, expected);
        for (column, count) in [("d", 2.0), ("ts", 2.0), ("n", 2.0), ("days", 1.0), ("strict", 1.0)] {
            let labels = [("sink", "nulls"), ("table", "public.misfits"), ("column", column)];
            assert_eq!(
                replicator.metrics().get("replicator_values_clamped_total", &labels),
                count,
                "{column}"
            );
        }
    }
}

#[test]
fn a_null_stays_null_in_clickhouse_whatever_its_type_and_however_it_comes() {
    const TYPES: [&str; 22] = [
        "boolean",
        "smallint",
        "integer",
        "bigint",
        "real",
        "double precision",
        "numeric",
        "numeric(10,2)",
        "text",
        "varchar(9)",
        "char(3)",
        "bytea",
        "date",
        "time",
        "timetz",
        "timestamp",
        "timestamptz",
        "interval",
        "uuid",
        "jsonb",
        "inet",
        "mood",
    ];
    for version in [PgVersion::V15, PgVersion::V18] {
        let world = World::start(version);
        let columns = (0..TYPES.len()).map(|n| format!("c{n} {}", TYPES[n])).collect::<Vec<_>>().join(", ");
        // With a value of each first, so that an update has something to end.
        let filled =
            "true, 1, 1, 1, 1, 1, 1, 1, 'x', 'x', 'x', 'x', '2024-02-29', '12:00', '12:00+00', '2024-02-29',
                      '2024-02-29', '1 day', gen_random_uuid(), '{}', '::1', 'sad'";
        world.source.sql(
            "shop",
            &format!(
                "CREATE TYPE mood AS ENUM ('sad', 'ok');
                 CREATE TABLE gaps (id int PRIMARY KEY, {columns});
                 INSERT INTO gaps (id) VALUES (1); INSERT INTO gaps VALUES (2, {filled})"
            ),
        );
        let config = Config::new(&world.source.url("shop"))
            .set("source.catalog_interval_ms", 300)
            .clickhouse("analytics", &world.clickhouse);
        let mut replicator = Replicator::spawn(&config, &[]);
        replicator.wait_until_ready(SOON);
        wait_for_copy(&replicator);
        let all_null = (0..TYPES.len()).map(|n| format!("c{n} = NULL")).collect::<Vec<_>>().join(", ");
        world.source.sql(
            "shop",
            &format!(
                "INSERT INTO gaps (id) VALUES (3); UPDATE gaps SET {all_null} WHERE id = 2;
                 ALTER TABLE gaps ADD COLUMN c{added} int; INSERT INTO gaps (id) VALUES (4)",
                added = TYPES.len()
            ),
        );
        wait_for_stream(&world, &replicator);
        let are_null = (0..=TYPES.len()).map(|n| format!("isNull(c{n})")).collect::<Vec<_>>().join(" + ");
        let nulls = world.clickhouse.query(&format!(
            "SELECT id, {are_null} FROM `{}`.gaps FINAL ORDER BY id",
            world.clickhouse.database()
        ));
        let columns = TYPES.len() + 1;
        assert_eq!(nulls, (1..=4).map(|id| format!("{id}\t{columns}\n")).collect::<String>(), "{version:?}");
        stop(&mut replicator, SOON);
    }
}

/// As the types of pgvector come, without that extension: a base type that nobody else knows, with an output
/// function of its own, and here without a binary one.
#[test]
fn a_type_of_an_extension_that_a_target_does_not_have_arrives_as_its_text() {
    for version in [PgVersion::V15, PgVersion::V18] {
        let world = World::start(version);
        world.source.sql(
            "shop",
            "CREATE TYPE vector;
             CREATE FUNCTION vector_in(cstring) RETURNS vector LANGUAGE internal IMMUTABLE STRICT AS 'textin';
             CREATE FUNCTION vector_out(vector) RETURNS cstring LANGUAGE internal IMMUTABLE STRICT AS 'textout';
             CREATE TYPE vector (INPUT = vector_in, OUTPUT = vector_out, STORAGE = extended);
             CREATE TABLE things (id int PRIMARY KEY, v vector, vs vector[]);
             ALTER TABLE things ALTER v SET STORAGE EXTERNAL;
             INSERT INTO things VALUES (1, '[1,2.5,-3]', '{\"[1,2]\",NULL}'), (2, NULL, NULL),
               (3, repeat('[0.125]', 1000)::vector, '{}')",
        );
        let mut replicator = Replicator::spawn(&world.config(), &[]);
        replicator.wait_until_ready(SOON);
        wait_for_copy(&replicator);
        world.source.sql(
            "shop",
            "INSERT INTO things VALUES (4, '', '{{\"[1]\"},{\"[2]\"}}');
             UPDATE things SET vs = '{x}' WHERE id = 3; UPDATE things SET v = '[9]' WHERE id = 2; DELETE FROM things WHERE id = 1",
        );
        wait_for_stream(&world, &replicator);
        let wanted = world.source.sql("shop", "SELECT id, v::text, vs::text FROM things ORDER BY id");
        assert_eq!(world.target.sql("copy", "SELECT id, v, vs FROM things ORDER BY id"), wanted);
        let kinds = "SELECT string_agg(atttypid::regtype::text, ',' ORDER BY attnum) FROM pg_attribute
                     WHERE attrelid = 'things'::regclass AND attnum > 1";
        assert_eq!(world.target.sql("copy", kinds), "text,text");
        let there = world.clickhouse.query(&format!(
            "SELECT id, v, vs FROM `{}`.things FINAL ORDER BY id FORMAT TSVRaw",
            world.clickhouse.database()
        ));
        let there = there.replace('\t', "|").replace("\\N", "");
        assert_eq!(there.trim_end(), wanted, "{version:?}");
        stop(&mut replicator, SOON);
    }
}

/// Arrays of them have a colon between their elements.
#[test]
fn geometries_of_postgis_arrive_as_their_text_and_as_themselves_where_there_is_postgis() {
    let world = World::start(PgVersion::V15);
    let postgis = "CREATE SCHEMA gis; CREATE EXTENSION postgis SCHEMA gis";
    let also = Postgres::start(PgVersion::V15, &PgOptions::default());
    also.createdb("copy");
    also.sql("copy", postgis);
    // The last does not fit into its page, and an update that leaves it alone does not send it.
    world.source.sql(
        "shop",
        &format!(
            "{postgis};
             CREATE TABLE places (id int PRIMARY KEY, at gis.geometry(Point, 4326), around gis.geography, parts gis.geometry[],
                 area gis.geometry, n int);
             ALTER TABLE places ALTER area SET STORAGE EXTERNAL;
             INSERT INTO places VALUES (1, 'SRID=4326;POINT(13.4 52.5)', 'POINT(-71.06 42.28)', ARRAY['POINT(1 2)', NULL]::gis.geometry[],
                 gis.ST_Buffer('POINT(0 0)', 10, 200), 1), (2, NULL, NULL, '{{}}', 'GEOMETRYCOLLECTION EMPTY', 2)"
        ),
    );
    let config = world.config().postgres("gis", &also, "copy");
    let mut replicator = Replicator::spawn(&config, &[]);
    replicator.wait_until_ready(SOON);
    wait_for_copy(&replicator);
    world.source.sql(
        "shop",
        "INSERT INTO places SELECT id + 10, at, around, parts, area, n FROM places;
         UPDATE places SET n = n + 1, at = 'SRID=4326;POINT(0 0)'; DELETE FROM places WHERE id = 2",
    );
    wait_for_stream(&world, &replicator);
    let values = "SELECT id, at::text, around::text, parts::text, area::text, n FROM places ORDER BY id";
    let wanted = world.source.sql("shop", values);
    assert_eq!(wanted.lines().count(), 3);
    assert_eq!(world.target.sql("copy", values), wanted);
    assert_eq!(also.sql("copy", values), wanted);
    let there = world.clickhouse.query(&format!(
        "SELECT id, at, around, parts, area, n FROM `{}`.places FINAL ORDER BY id FORMAT TSVRaw",
        world.clickhouse.database()
    ));
    assert_eq!(there.replace('\t', "|").replace("\\N", "").trim_end(), wanted);
    let types = "SELECT string_agg(format_type(atttypid, atttypmod), ',' ORDER BY attnum) FROM pg_attribute
                 WHERE attrelid = 'places'::regclass AND attnum BETWEEN 2 AND 5";
    assert_eq!(world.target.sql("copy", types), "text,text,text,text");
    assert_eq!(also.sql("copy", types), "gis.geometry(Point,4326),gis.geography,gis.geometry[],gis.geometry");
    stop(&mut replicator, SOON);
}

#[tokio::test(flavor = "multi_thread")]
async fn names_of_objects_that_only_the_source_has_arrive() {
    for version in [PgVersion::V15, PgVersion::V18] {
        let world = World::start(version);
        // Of a schema that is on nobody's path: how such a name is written depends on that.
        let row = "'hidden.view', '{hidden.view,pg_class}', 'alice', 'hidden.feeling', '{alice=r/alice}'";
        world.source.sql(
            "shop",
            &format!(
                "CREATE ROLE alice; CREATE SCHEMA hidden; CREATE TYPE hidden.feeling AS ENUM ('good'); CREATE VIEW hidden.view AS SELECT 1 AS one;
                 CREATE TABLE named (id int PRIMARY KEY, c regclass, cs regclass[], r regrole, t regtype, a aclitem[]);
                 INSERT INTO named VALUES (1, {row})"
            ),
        );
        let mut replicator = Replicator::spawn(&world.config(), &[]);
        replicator.wait_until_ready(SOON);
        wait_for_copy(&replicator);
        world.source.sql(
            "shop",
            &format!(
                "INSERT INTO named VALUES (2, {row}); UPDATE named SET r = NULL, c = 'hidden.view' WHERE id = 1"
            ),
        );
        world.assert_soon_equal("names", SOON, Sinks::All, |_, _| true).await;
        stop(&mut replicator, SOON);
    }
}

#[test]
fn arrays_are_lists_or_texts_as_asked_for() {
    for version in [PgVersion::V15, PgVersion::V18] {
        let world = World::start(version);
        world.source.sql(
            "shop",
            "CREATE TABLE lists (id int PRIMARY KEY, a int[], b text[] NOT NULL);
         INSERT INTO lists VALUES (1, NULL, '{}'), (2, '{1,NULL}', '{\"a b\",NULL,\"NULL\",\"\"}')",
        );
        let database = |name: &str| format!("{}_{name}", world.clickhouse.database());
        let mut config = Config::new(&world.source.url("shop"));
        for name in ["array", "text"] {
            config = config
                .clickhouse(name, &world.clickhouse)
                .set_sink(name, "database", database(name))
                .set_sink(name, "arrays", name);
        }
        let mut replicator = Replicator::spawn(&config, &[]);
        replicator.wait_until_ready(SOON);
        world.source.sql("shop", "INSERT INTO lists VALUES (3, NULL, '{x}'), (4, '{}', '{}')");
        wait_for_copy(&replicator);
        wait_for_stream(&world, &replicator);
        let of = |name: &str, columns: &str| {
            let sql =
                format!("SELECT {columns} FROM `{}`.lists FINAL ORDER BY id FORMAT TSVRaw", database(name));
            world.clickhouse.query(&sql).lines().map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(
            of("array", "a, b"),
            ["[]\t[]", "[1,NULL]\t['a b',NULL,'NULL','']", "[]\t['x']", "[]\t[]"]
        );
        assert_eq!(
            of("text", "ifNull(a, 'none'), b"),
            ["none\t{}", "{1,NULL}\t{\"a b\",NULL,\"NULL\",\"\"}", "none\t{x}", "{}\t{}"]
        );
        let labels = [("sink", "array"), ("table", "public.lists"), ("column", "a")];
        assert_eq!(
            replicator.metrics().get("replicator_values_clamped_total", &labels),
            2.0,
            "two were NULL"
        );
    }
}

#[test]
fn what_is_never_changed_to_fit_stops_the_sink_with_the_remedy() {
    for (table, policy, words) in [
        (
            "t (id int PRIMARY KEY, v date); INSERT INTO t VALUES (1, 'infinity')",
            "error",
            ["v", "out_of_range"],
        ),
        ("t (v timestamp PRIMARY KEY); INSERT INTO t VALUES ('infinity')", "clamp", ["v", "key"]),
        (
            "t (id int PRIMARY KEY, v int[] NOT NULL); INSERT INTO t VALUES (1, '{{1,2}}')",
            "clamp",
            ["v", "arrays"],
        ),
        (
            "t (id int PRIMARY KEY, v int[] NOT NULL); INSERT INTO t VALUES (1, '[0:1]={1,2}')",
            "null",
            ["v", "arrays"],
        ),
    ] {
        let world = World::start(PgVersion::V17);
        world.source.sql("shop", &format!("CREATE TABLE {table}"));
        let config = Config::new(&world.source.url("shop"))
            .clickhouse("analytics", &world.clickhouse)
            .set_sink("analytics", "out_of_range", policy);
        let ended = Replicator::run_to_end(&config, &["--endpos", "current"]);
        assert_eq!(ended.status.code(), Some(1), "{}", ended.stderr);
        let last = ended.stderr.lines().last().unwrap_or_default();
        assert!(last.contains("public.t") && words.iter().all(|word| last.contains(word)), "{table}: {last}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_of_a_hundred_megabytes_arrives_and_stays() {
    for version in [PgVersion::V15, PgVersion::V18] {
        let world = World::start(version);
        world.source.sql(
        "shop",
        "CREATE TABLE huge (id int PRIMARY KEY, v text, raw bytea, n int);
         INSERT INTO huge VALUES (1, repeat('0123456789', 10000000), NULL, 0), (2, NULL, decode(repeat('00ff5c27', 10000000), 'hex'), 0)",
    );
        let config = world.config();
        drain(&config);
        world.source.sql(
            "shop",
            "UPDATE huge SET n = 1; UPDATE huge SET id = 11 WHERE id = 1;
         INSERT INTO huge VALUES (3, repeat('ü', 50000000), NULL, 0)",
        );
        drain(&config);
        world.assert_equal(&[Table { name: "huge", key: &["id"] }]).await;
    }
}
