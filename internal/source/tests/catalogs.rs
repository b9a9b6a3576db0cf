//! What the catalog says of tables, on every version.

mod support;

use replicator_harness::{PgOptions, PgVersion, Postgres};
use replicator_types::{Column, ColumnKind, ReplicaIdentity, TableCatalog, oid};
use std::time::{Duration, Instant};
use support::plain;

async fn tables(postgres: &Postgres) -> Vec<TableCatalog> {
    plain(postgres).prepare().await.expect("prepared").tables
}

fn table<'a>(tables: &'a [TableCatalog], name: &str) -> &'a TableCatalog {
    tables.iter().find(|table| table.name == name).unwrap_or_else(|| panic!("no table {name}"))
}

fn column<'a>(table: &'a TableCatalog, name: &str) -> &'a Column {
    table.columns.iter().find(|column| column.name == name).unwrap_or_else(|| panic!("no column {name}"))
}

fn array(element_oid: u32, element_modifier: i32) -> ColumnKind {
    ColumnKind::Array { element_oid, element_modifier, element_is_enum: false }
}

#[tokio::test]
async fn every_sort_of_type_is_resolved() {
    for version in PgVersion::ALL {
        let postgres = Postgres::start(version, &PgOptions::default());
        postgres.sql(
            "postgres",
            r#"CREATE SCHEMA "Shop";
               CREATE TYPE "Shop".mood AS ENUM ('a', 'b');
               CREATE DOMAIN price AS numeric(12,2);
               CREATE DOMAIN fine_price AS price CHECK (VALUE > 0);
               CREATE DOMAIN moods AS "Shop".mood[];
               CREATE DOMAIN moody AS "Shop".mood;
               CREATE TYPE pair AS (a int, b int);
               CREATE COLLATION any_case (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
               CREATE TABLE t (
                 id bigint PRIMARY KEY, n numeric(10,3), plain_n numeric, p price, f fine_price NOT NULL,
                 v varchar(20), e "Shop".mood, em moody, ns numeric(7,1)[], ps price[], fs fine_price[],
                 es "Shop".mood[], ms moods, r int4range, c pair, cs pair[], boxes box[], vec int2vector,
                 ci text COLLATE any_case, gone int, ts timestamp(3) with time zone, j jsonb, "Weird ""name" text);
               ALTER TABLE t DROP COLUMN gone"#,
        );
        let tables = tables(&postgres).await;
        let t = table(&tables, "t");
        let check = |name: &str, sql: &str, base: u32, modifier: i32, kind: ColumnKind| {
            let column = column(t, name);
            assert_eq!(column.type_sql, sql, "{version:?} {name}");
            assert_eq!((column.base_type_oid, column.type_modifier), (base, modifier), "{version:?} {name}");
            assert_eq!(column.kind, kind, "{version:?} {name}");
            column.clone()
        };
        // A numeric's modifier is (precision << 16 | scale) + 4.
        let numeric = |precision: i32, scale: i32| (precision << 16 | scale) + 4;
        let scalar = || ColumnKind::Scalar;
        let user_oid = |name: &str| {
            let sql = format!("SELECT '{name}'::regtype::oid");
            postgres.sql("postgres", &sql).parse::<u32>().unwrap()
        };
        let mood = user_oid("\"Shop\".mood");
        check("id", "bigint", oid::INT8, -1, scalar());
        check("n", "numeric(10,3)", oid::NUMERIC, numeric(10, 3), scalar());
        check("plain_n", "numeric", oid::NUMERIC, -1, scalar());
        let p = check("p", "public.price", oid::NUMERIC, numeric(12, 2), scalar());
        assert_eq!(p.type_oid, user_oid("price"));
        let f = check("f", "public.fine_price", oid::NUMERIC, numeric(12, 2), scalar());
        assert!(f.not_null && !p.not_null);
        check("v", "character varying(20)", oid::VARCHAR, 24, scalar());
        check("e", "\"Shop\".mood", mood, -1, ColumnKind::Enum);
        check("em", "public.moody", mood, -1, ColumnKind::Enum);
        check("ns", "numeric(7,1)[]", 1231, numeric(7, 1), array(oid::NUMERIC, numeric(7, 1)));
        check("ps", "public.price[]", user_oid("price[]"), -1, array(oid::NUMERIC, numeric(12, 2)));
        check("fs", "public.fine_price[]", user_oid("fine_price[]"), -1, array(oid::NUMERIC, numeric(12, 2)));
        let moods = ColumnKind::Array { element_oid: mood, element_modifier: -1, element_is_enum: true };
        check("es", "\"Shop\".mood[]", user_oid("\"Shop\".mood[]"), -1, moods.clone());
        check("ms", "public.moods", user_oid("\"Shop\".mood[]"), -1, moods);
        check("r", "int4range", 3904, -1, ColumnKind::Other);
        check("c", "public.pair", user_oid("pair"), -1, ColumnKind::Other);
        check("cs", "public.pair[]", user_oid("pair[]"), -1, ColumnKind::Other);
        check("boxes", "box[]", 1020, -1, ColumnKind::Other);
        check("vec", "int2vector", 22, -1, scalar());
        check("ts", "timestamp(3) with time zone", oid::TIMESTAMPTZ, 3, scalar());
        check("j", "jsonb", oid::JSONB, -1, scalar());
        check("Weird \"name", "text", oid::TEXT, -1, scalar());
        assert_eq!(t.nondeterministic, ["ci"]);
        assert!(t.columns.iter().all(|column| !column.name.contains("dropped")));
        let attnums: Vec<i16> = t.columns.iter().map(|column| column.attnum).collect();
        assert!(attnums.is_sorted() && !attnums.contains(&20));
    }
}

#[tokio::test]
async fn keys_are_those_that_the_server_goes_by() {
    let postgres = Postgres::start(PgVersion::V17, &PgOptions::default());
    postgres.sql(
        "postgres",
        "CREATE TABLE covering (a int, b int, c int, PRIMARY KEY (b, a) INCLUDE (c));
         CREATE TABLE deferred (a int PRIMARY KEY DEFERRABLE);
         CREATE TABLE by_index (a int PRIMARY KEY, b int NOT NULL, c int);
         CREATE UNIQUE INDEX by_b ON by_index (b) INCLUDE (c);
         ALTER TABLE by_index REPLICA IDENTITY USING INDEX by_b;
         CREATE TABLE whole (a int PRIMARY KEY, b text); ALTER TABLE whole REPLICA IDENTITY FULL;
         CREATE TABLE keyless (a int);
         CREATE TABLE nothing ()",
    );
    let tables = tables(&postgres).await;
    let of = |name: &str| table(&tables, name);
    assert_eq!(of("covering").key(), ["a", "b"]);
    assert_eq!(of("deferred").key(), &[] as &[String]);
    assert_eq!(of("by_index").replica_identity, ReplicaIdentity::Index);
    assert_eq!(of("by_index").key(), ["b"]);
    assert_eq!(of("by_index").primary_key, ["a"]);
    assert_eq!(of("whole").replica_identity, ReplicaIdentity::Full);
    assert_eq!(of("whole").key(), ["a"]);
    assert_eq!(of("keyless").key(), &[] as &[String]);
    assert_eq!(of("nothing").columns, []);
}

#[tokio::test]
async fn only_published_columns_are_told_of_published_tables() {
    for version in PgVersion::ALL {
        let postgres = Postgres::start(version, &PgOptions::default());
        postgres.sql(
            "postgres",
            "CREATE TABLE listed (id int PRIMARY KEY, a int, b int);
             CREATE TABLE made (id int PRIMARY KEY, twice int GENERATED ALWAYS AS (id * 2) STORED);
             CREATE TABLE parts (id int, day date, PRIMARY KEY (id, day)) PARTITION BY RANGE (day);
             CREATE TABLE parts_2026 PARTITION OF parts FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
             CREATE PUBLICATION replicator FOR TABLE listed (id, b), made, parts
               WITH (publish_via_partition_root = true)",
        );
        let names = |tables: &[TableCatalog]| {
            tables
                .iter()
                .map(|table| {
                    let columns: Vec<&str> =
                        table.columns.iter().map(|column| column.name.as_str()).collect();
                    format!("{}({})", table.name, columns.join(","))
                })
                .collect::<Vec<_>>()
        };
        assert_eq!(
            names(&tables(&postgres).await),
            ["listed(id,b)", "made(id)", "parts(id,day)"],
            "{version:?}"
        );
        postgres.sql("postgres", "ALTER PUBLICATION replicator SET (publish_via_partition_root = false)");
        assert_eq!(names(&tables(&postgres).await)[2], "parts_2026(id,day)");
        if version == PgVersion::V18 {
            postgres.sql("postgres", "ALTER PUBLICATION replicator SET (publish_generated_columns = stored)");
            assert_eq!(names(&tables(&postgres).await)[1], "made(id,twice)");
        }
    }
}

#[tokio::test]
async fn thousands_of_tables_are_read_in_a_moment() {
    let postgres =
        Postgres::start(PgVersion::V15, &PgOptions::default().setting("max_locks_per_transaction", "8192"));
    postgres.sql(
        "postgres",
        "DO $$ BEGIN FOR i IN 1..3000 LOOP
           EXECUTE format('CREATE TABLE t%s (id int PRIMARY KEY, a text, b numeric(10,2), c timestamptz)', i);
         END LOOP; END $$; ANALYZE",
    );
    let source = plain(&postgres);
    source.prepare().await.expect("prepared");
    let began = Instant::now();
    assert_eq!(source.prepare().await.expect("prepared").tables.len(), 3000);
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    eprintln!("3000 tables: {:?}", began.elapsed());
}

/// The names of a table's columns are put together once a table, and not once a column.
#[tokio::test]
async fn wide_tables_are_read_in_a_moment() {
    let postgres = Postgres::start(PgVersion::V18, &PgOptions::default());
    postgres.sql(
        "postgres",
        "DO $$ BEGIN FOR i IN 1..10 LOOP
           EXECUTE (SELECT format('CREATE TABLE wide%s (%s)', i, string_agg(format('c%s int', n), ',')) FROM generate_series(1, 1600) n);
         END LOOP; END $$",
    );
    let source = plain(&postgres);
    let began = Instant::now();
    assert_eq!(source.prepare().await.expect("prepared").tables.len(), 10);
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
}

#[tokio::test]
async fn defaults_missing_values_and_dropped_columns_are_told() {
    for version in PgVersion::ALL {
        let postgres = Postgres::start(version, &PgOptions::default());
        postgres.sql(
            "postgres",
            r#"CREATE TYPE mood AS ENUM ('a');
               CREATE TABLE t (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, gone int, s serial, n numeric(5,2) DEFAULT 0,
                 neg int DEFAULT -1, v varchar(20) DEFAULT 'it''s \ "x"', b bool DEFAULT true, z text DEFAULT NULL,
                 at timestamptz DEFAULT now(), day date DEFAULT '2026-01-01', today date DEFAULT ('now'::text)::date,
                 e mood DEFAULT 'a', arr int[] DEFAULT '{1,2}', plain text, twice int GENERATED ALWAYS AS (5) STORED);
               ALTER TABLE t DROP COLUMN gone;
               INSERT INTO t (plain) VALUES ('x');
               SET timezone = 'Asia/Tokyo'; SET intervalstyle = 'iso_8601'; SET bytea_output = 'escape';
               ALTER TABLE t ADD m_text text DEFAULT 'a,"b" {c}', ADD m_arr int[] DEFAULT '{1,NULL,3}',
                 ADD m_box box DEFAULT '((1,2),(0,0))', ADD m_ts timestamptz DEFAULT '2026-01-01 00:00+00',
                 ADD m_iv interval DEFAULT '1 day', ADD m_by bytea DEFAULT '\x00ff', ADD m_empty text DEFAULT '',
                 ADD m_none int, ADD m_later int DEFAULT 7;
               ALTER TABLE t ALTER m_later DROP DEFAULT"#,
        );
        let before: replicator_types::Lsn =
            postgres.sql("postgres", "SELECT pg_current_wal_insert_lsn()").parse().expect("a position");
        let tables = tables(&postgres).await;
        let t = table(&tables, "t");
        assert!(t.read_at >= before, "{version:?}: {} {before}", t.read_at);
        assert_eq!(t.dropped, [2]);
        let default = |name: &str| (column(t, name).has_default, column(t, name).default_sql.as_deref());
        assert_eq!(default("id"), (true, None));
        assert_eq!(default("s"), (true, None));
        assert_eq!(default("n"), (true, Some("0")));
        assert_eq!(default("neg"), (true, Some("'-1'::integer")));
        assert_eq!(default("v"), (true, Some(r#"'it''s \ "x"'::character varying"#)));
        assert_eq!(default("b"), (true, Some("true")));
        assert_eq!(default("at"), (true, None));
        assert_eq!(default("day"), (true, Some("'2026-01-01'::date")));
        assert_eq!(default("today"), (true, None));
        assert_eq!(default("e"), (true, None), "the type may not be there elsewhere");
        assert_eq!(default("arr"), (true, Some("'{1,2}'::integer[]")));
        assert_eq!(default("plain"), (false, None));
        assert_eq!(default("m_later"), (false, None));
        let missing = |name: &str| column(t, name).missing_text.as_deref();
        assert_eq!(missing("plain"), None);
        assert_eq!(missing("m_text"), Some(r#"a,"b" {c}"#));
        assert_eq!(missing("m_arr"), Some("{1,NULL,3}"));
        assert_eq!(missing("m_box"), Some("(1,2),(0,0)"));
        assert_eq!(missing("m_ts"), Some("2026-01-01 00:00:00+00"));
        assert_eq!(missing("m_iv"), Some("1 day"));
        assert_eq!(missing("m_by"), Some("\\x00ff"));
        assert_eq!(missing("m_empty"), Some(""));
        assert_eq!(missing("m_none"), None);
        assert_eq!(missing("m_later"), Some("7"), "{version:?}");
    }
}
