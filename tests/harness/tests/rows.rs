//! Reading rows of real servers.

use replicator_harness::{
    ClickHouse, ClickHouseOptions, Kind, PgOptions, PgVersion, Postgres, Rows, assert_same_rows, difference,
    source_columns,
};

const VALUES: &str = r#"
    CREATE DOMAIN price AS numeric(12,2);
    CREATE DOMAIN prices AS price[];
    CREATE TYPE mood AS ENUM ('glad', 'sad');
    CREATE TABLE t (
        id bigint PRIMARY KEY, flag bool, r real, d double precision, n numeric, p price, s text, c char(8),
        b bytea, day date, at timestamp, atz timestamptz, clock time, u uuid, j jsonb, m mood,
        ints int[], texts text[], flags bool[], times timestamptz[], ps prices,
        twice bigint GENERATED ALWAYS AS (id * 2) STORED);
    INSERT INTO t VALUES
        (1, true, 1e20, 1e-7, 1.500, 1.5, E'tab\tnewline\nback\\slash\'quote', 'pad', '\x00ff5c', '2026-03-18',
         '2026-03-18 01:02:03', '2026-03-18 01:02:03.25+02', '12:00', '00000000-0000-0000-0000-00000000000a',
         '{"a": 1}', 'sad', '{1,NULL,3}', E'{"a b",NULL,"NULL","it\'s","tab\tquote\\"back\\\\",""}', '{t,f}',
         '{"2026-03-18 01:02:03.25+02"}', '{1.5}'),
        (2, false, 'NaN', '-Infinity', 0, 0, '', '', '', '1970-01-01', '1970-01-01', '1970-01-01+00', '23:59:59.999999',
         'ffffffff-ffff-ffff-ffff-ffffffffffff', 'null', 'glad', '{}', '{}', '{}', '{}', '{}'),
        (3, NULL, '-0', 0.1, NULL, NULL, '\N', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
         '{}', '{}', '{}', '{}', '{}');
"#;

// What a mirror of it would hold. The version before last of row 1, and a row deleted, are there as well.
const MIRROR: &str = r"
    (id Int64, flag Nullable(Bool), r Nullable(Float32), d Nullable(Float64), n Nullable(String),
     p Nullable(Decimal(12, 2)), s Nullable(String), c Nullable(String), b Nullable(String), day Nullable(Date32),
     at Nullable(DateTime64(6)), atz Nullable(DateTime64(6, 'UTC')), clock Nullable(String), u Nullable(UUID),
     j Nullable(String), m LowCardinality(Nullable(String)), ints Array(Nullable(Int32)),
     texts Array(Nullable(String)), flags Array(Bool), times Array(DateTime64(6, 'UTC')), ps Array(Decimal(12, 2)),
     _version UInt64, _is_deleted UInt8)
    ENGINE = ReplacingMergeTree(_version, _is_deleted) ORDER BY id";

const MIRROR_ROWS: &str = r#"
    (1, true, 1e20, 1e-7, '1.500', 1.5, 'tab\tnewline\nback\\slash\'quote', 'pad     ', unhex('00FF5C'), '2026-03-18',
     '2026-03-18 01:02:03', '2026-03-17 23:02:03.25', '12:00:00', '00000000-0000-0000-0000-00000000000a',
     '{"a": 1}', 'sad', [1,NULL,3], ['a b',NULL,'NULL','it\'s','tab\tquote"back\\',''], [true,false],
     ['2026-03-17 23:02:03.25'], [1.5], 9, 0),
    (2, false, nan, -inf, '0', 0, '', '        ', '', '1970-01-01', '1970-01-01 00:00:00', '1970-01-01 00:00:00',
     '23:59:59.999999', 'ffffffff-ffff-ffff-ffff-ffffffffffff', 'null', 'glad', [], [], [], [], [], 9, 0),
    (3, NULL, -0., 0.1, NULL, NULL, '\\N', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
     [], [], [], [], [], 9, 0),
    (1, false, 0, 0, '', 0, '', '', '', '1970-01-01', '1970-01-01 00:00:00', '1970-01-01 00:00:00', '', NULL, '',
     'glad', [], [], [], [], [], 8, 0),
    (4, false, 0, 0, '', 0, '', '', '', '1970-01-01', '1970-01-01 00:00:00', '1970-01-01 00:00:00', '', NULL, '',
     'glad', [], [], [], [], [], 9, 1)"#;

#[tokio::test]
async fn equal_tables_of_postgres_and_clickhouse_are_found_equal_to_the_last_byte() {
    let postgres = Postgres::start(PgVersion::V17, &PgOptions::default().setting("timezone", "Asia/Tokyo"));
    let clickhouse = ClickHouse::start(&ClickHouseOptions::default());
    postgres.sql("postgres", VALUES);
    let database = clickhouse.database();
    clickhouse.query(&format!("CREATE DATABASE {database}"));
    clickhouse.query(&format!("CREATE TABLE {database}.t {MIRROR}"));
    clickhouse.query(&format!("INSERT INTO {database}.t VALUES {}", MIRROR_ROWS));

    let client = postgres.client("postgres").await;
    let columns = source_columns(&client, "public.t").await;
    assert_eq!(columns.len(), 21, "without the generated one");
    let ps = columns.last().unwrap();
    assert_eq!((ps.name.as_str(), ps.kind, ps.is_array), ("ps", Kind::Same, true));
    let times = &columns[19];
    assert_eq!((times.name.as_str(), times.kind, times.is_array), ("times", Kind::Time, true));

    let source = Rows::of_postgres(&client, "public.t", &columns).await;
    let mirror = Rows::of_clickhouse(&clickhouse, database, "t", &columns);
    assert_eq!(source.len(), 3);
    assert_same_rows("t", &source, &mirror);

    postgres.sql("postgres", "UPDATE t SET c = 'pad ' || chr(160) WHERE id = 1");
    let changed = Rows::of_postgres(&client, "public.t", &columns).await;
    assert!(difference(&changed, &mirror).is_some());
}

#[tokio::test]
#[should_panic(expected = "no table public.nothing")]
async fn a_table_that_is_not_there_is_no_empty_table() {
    let postgres = Postgres::start(PgVersion::V15, &PgOptions::default());
    source_columns(&postgres.client("postgres").await, "public.nothing").await;
}
