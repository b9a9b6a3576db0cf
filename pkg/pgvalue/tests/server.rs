//! The texts against those of real servers, value by value.

#![allow(clippy::unwrap_used)]

use futures_util::TryStreamExt;
use pgvalue::{Scalar, Type};
use replicator_harness::{PgOptions, PgVersion, Postgres};
use replicator_types::{Column, ColumnKind};
use std::fmt::Write;
use tokio_postgres::{Client, SimpleQueryMessage};

/// As every connection of the replicator has them.
const SETTINGS: &str = "SET datestyle = 'ISO'; SET intervalstyle = 'postgres'; SET extra_float_digits = 3;
    SET timezone = 'UTC'; SET bytea_output = 'hex'; SET lc_monetary = 'C'; SET search_path = pg_catalog;
    SELECT setseed(0.25)";

/// Types, and what makes some hundred values of each: `v` of a FROM clause, random ones by `n` and `random()`.
const TYPES: &[(&str, &[&str], &str)] = &[
    ("bool", &["t", "f"], "n % 2 = 0"),
    ("int2", &["0", "-32768", "32767"], "(random() * 65535 - 32768)::int4"),
    ("int4", &["0", "-2147483648", "2147483647"], "(random() * 4294967295 - 2147483648)::int8"),
    ("int8", &["0", "-9223372036854775808", "9223372036854775807"], "((random() - 0.5) * 1e18)::int8"),
    ("oid", &["0", "4294967295"], "(random() * 4294967295)::int8"),
    ("xid", &["0", "4294967295"], "n::text"),
    ("cid", &["0", "4294967295"], "n::text"),
    ("xid8", &["0", "18446744073709551615"], "n::text"),
    (
        "float4",
        &["NaN", "Infinity", "-Infinity", "0", "-0", "1e-45", "3.4028235e38", "1.17549435e-38", "16777216"],
        "(random() - 0.5) * 10.0::float8 ^ (random() * 70 - 35)",
    ),
    (
        "float8",
        &[
            "NaN",
            "Infinity",
            "-Infinity",
            "0",
            "-0",
            "5e-324",
            "1.7976931348623157e308",
            "2.2250738585072014e-308",
            "1e23",
            "9007199254740993",
            "2.98023223876953125e-8",
            "5.684341886080802e-14",
        ],
        "(random() - 0.5) * 10.0::float8 ^ (random() * 600 - 300)",
    ),
    (
        "numeric",
        &[
            "NaN",
            "Infinity",
            "-Infinity",
            "0",
            "0.00",
            "-0.000000000001",
            "1e131071",
            "-1e-16383",
            "10000",
            "9999.9999",
            "10000.0001",
            "100000000",
            "0.0001",
            "0.00010",
            "12345678901234567890.123456789012345678901234567890",
            "1e76",
            "1e-77",
        ],
        "((random() - 0.5) * 10::numeric ^ (random() * 40)::int4)::numeric / 10::numeric ^ (n % 30)",
    ),
    (
        "money",
        &["0", "-92233720368547758.08", "92233720368547758.07", "-0.01"],
        "((random() - 0.5) * 1e9)::numeric",
    ),
    ("bytea", &["", "\\x00", "\\x00ff5c27"], "sha256(n::text::bytea)"),
    ("\"char\"", &["", "a", "\"", "\\\\", " "], "chr(33 + n % 90)"),
    ("name", &["", "x", "Odd \"name\""], "md5(n::text)"),
    (
        "text",
        &["", "\\N", "NULL", "a,b", "{", "back\\slash", "tab\t", "line\n", "é 漢 🎈", "\"quoted\""],
        "md5(n::text)",
    ),
    ("varchar(5)", &["", "null"], "left(md5(n::text), 5)"),
    ("char(5)", &["", "a "], "left(md5(n::text), n % 5)"),
    ("json", &["1", "{\"a\": [1,2 , null]}", "\"\\u0000\""], "format('{\"n\" : %s}', n)"),
    (
        "jsonb",
        &["1", "{\"a\": [1,2 , null], \"b\\\"\": \"é\\n\"}", "1.50", "1e1000"],
        "format('{\"n\" : %s}', n)",
    ),
    ("jsonpath", &["$", "$.\"a b\"[*] ? (@ > 1)"], "'$.a' || n"),
    (
        "xml",
        &[
            "<a/>",
            "<?xml version=\"1.0\"?><a/>",
            "<?xml version=\"1.1\" encoding=\"UTF-8\"?><a>x</a>",
            "text &amp; <b/>",
        ],
        "format('<a n=\"%s\"/>', n)",
    ),
    (
        "uuid",
        &["00000000-0000-0000-0000-000000000000", "ffffffff-ffff-ffff-ffff-ffffffffffff"],
        "md5(n::text)",
    ),
    (
        "date",
        &[
            "infinity",
            "-infinity",
            "4714-11-24 BC",
            "0001-12-31 BC",
            "0001-01-01",
            "1970-01-01",
            "2000-02-29",
            "9999-12-31",
            "10000-01-01",
            "294276-12-31",
            "5874897-12-31",
            "1900-02-28",
            "2024-02-29",
        ],
        "('2000-01-01'::date + ((random() - 0.4) * 3e6)::int4)",
    ),
    (
        "time",
        &["00:00", "24:00:00", "23:59:59.999999", "00:00:00.1", "12:34:56.00001"],
        "random() * '1 day'::interval",
    ),
    (
        "timetz",
        &["00:00+00", "24:00:00-15:59:59", "12:00+15:59", "12:00-00:30", "01:02:03.4-00:00:01"],
        "(random() * '1 day'::interval)::time || format('%s%s', '+', n % 15)",
    ),
    (
        "timestamp",
        &[
            "infinity",
            "-infinity",
            "4714-11-24 00:00:00 BC",
            "294276-12-31 23:59:59.999999",
            "2000-01-01",
            "1999-12-31 23:59:59.999999",
            "0001-01-01 BC",
            "2016-12-31 23:59:60",
            "10000-01-01 00:00:00.5",
        ],
        "'2000-01-01'::timestamp + (random() - 0.4) * '3000 years'::interval",
    ),
    (
        "timestamptz",
        &[
            "infinity",
            "-infinity",
            "4714-11-24 00:00:00+00 BC",
            "294276-12-31 23:59:59.999999+00",
            "1999-12-31 23:59:59.999999+05:30",
        ],
        "'2000-01-01'::timestamptz + (random() - 0.4) * '3000 years'::interval",
    ),
    (
        "interval",
        &[
            "0",
            "1 year",
            "-1 year",
            "1 mon",
            "-1 mon",
            "1 day",
            "-1 day",
            "1 us",
            "-1 us",
            "1 year -1 day 1 us",
            "-1 mon 1 day -1 s",
            "-1 mon 1 s",
            "-1 day 1 s",
            "178000000 years",
            "-178000000 years",
            "2147483647 days",
            "-2147483648 days",
            "2562047788:00:54.775807",
            "-2562047788:00:54.775807",
            "100:00:00",
            "1 mon -1 us",
        ],
        "make_interval(years => n % 5 - 2, months => n % 7 - 3, days => n % 11 - 5, secs => (random() - 0.5) * 1e6)",
    ),
    (
        "inet",
        &[
            "0.0.0.0",
            "255.255.255.255/0",
            "10.0.0.1/24",
            "::",
            "::1",
            "::ffff:1.2.3.4",
            "::1.2.3.4",
            "::2",
            "1::",
            "2001:db8::1/64",
            "1:2:3:4:5:6:7:8",
            "1:0:0:2:0:0:0:3",
            "0:0:1::",
            "::ffff:0:0",
            "::fffe:1.2.3.4",
            "1:0:2:0:3:0:4:0/127",
        ],
        "'::'::inet + ((random() * 1e18)::int8 & CASE n % 3 WHEN 0 THEN 65535 WHEN 1 THEN 4294967295 ELSE 281474976645120 END)",
    ),
    (
        "cidr",
        &["0.0.0.0/0", "10.0.0.0/8", "10.0.0.1/32", "::/0", "2001:db8::/32", "::1/128"],
        "network(set_masklen('10.0.0.0'::inet + n * 4096, 20))",
    ),
    ("macaddr", &["00:00:00:00:00:00", "ff:ff:ff:ff:ff:ff"], "left(md5(n::text), 12)"),
    ("macaddr8", &["00:00:00:00:00:00:00:00", "ff:ff:ff:ff:ff:ff:ff:ff"], "left(md5(n::text), 16)"),
    ("bit(9)", &["000000000", "111111111"], "(n % 512)::bit(9)"),
    ("bit varying", &["", "1", "101", "11111111", "000000001"], "left(n::int8::bit(64)::text, n % 65)"),
    ("pg_lsn", &["0/0", "FFFFFFFF/FFFFFFFF", "16/B374D848"], "'0/0'::pg_lsn + n::numeric * 1234567890"),
    ("tid", &["(0,0)", "(4294967295,65535)"], "format('(%s,%s)', n, n % 100)"),
    ("point", &["(0,-0)", "(NaN,Infinity)", "(1e300,1e-300)"], "point(random(), n)"),
    ("line", &["{1,2,3}", "{-0.5,1,0}"], "format('{%s,%s,1}', n, random())"),
    ("lseg", &["[(1,2),(3,4)]"], "lseg(point(random(), n), point(n, 1))"),
    ("box", &["(1,2),(3,4)"], "box(point(random(), n), point(n, 1))"),
    ("path", &["[(1,2)]", "((1,2),(3,4.5))", "[(1,2),(3,4),(5,6)]"], "format('[(%s,%s)]', n, random())"),
    ("polygon", &["((1,2))", "((1,2),(3,4),(5,6e20))"], "polygon(n % 9 + 2, circle(point(n, 1), n))"),
    ("circle", &["<(1,2),0>", "<(1,2),1e15>"], "circle(point(random(), n), n)"),
    ("int2vector", &["", "1", "1 -2 3"], "concat_ws(' ', n, n)"),
    ("oidvector", &["", "1", "1 4294967295"], "concat_ws(' ', n, n)"),
    (
        "tsvector",
        &["", "a", "'it''s':1A,2B,3C,4 'back\\\\slash' é:16383"],
        "to_tsvector('simple', md5(n::text) || ' a b a')",
    ),
    ("pg_snapshot", &["1:1:", "10:20:10,14,15"], "format('%s:%s:', n, n + 3)"),
    ("txid_snapshot", &["10:20:10,14,15"], "format('%s:%s:', n, n + 3)"),
    ("refcursor", &["", "c"], "md5(n::text)"),
];

const RANDOM_ROWS: u32 = 300;

#[tokio::test(flavor = "multi_thread")]
async fn every_text_is_what_the_oldest_server_writes() {
    compare_all(PgVersion::V15).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_text_is_what_the_newest_server_writes() {
    compare_all(PgVersion::V18).await;
}

async fn compare_all(version: PgVersion) {
    let postgres = Postgres::start(version, &PgOptions::default());
    let client = postgres.client("postgres").await;
    client.batch_execute(SETTINGS).await.unwrap();
    let mut faults = String::new();
    let mut values = 0;
    for (type_sql, literals, random) in TYPES {
        values += compare_type(&client, type_sql, literals, random, &mut faults).await;
    }
    let floats: Vec<String> = hard_floats().iter().map(|float| format!("{float:e}")).collect();
    for (type_sql, chunk) in floats.chunks(1000).map(|chunk| ("float8", chunk)) {
        values += compare_type(&client, type_sql, &as_strs(chunk), "n", &mut faults).await;
    }
    let floats: Vec<String> = hard_floats().iter().map(|float| format!("{:e}", *float as f32)).collect();
    for chunk in floats.chunks(1000) {
        let finite: Vec<&str> =
            chunk.iter().map(String::as_str).filter(|text| !text.contains("inf")).collect();
        values += compare_type(&client, "float4", &finite, "n", &mut faults).await;
    }
    if version == PgVersion::V18 {
        values += compare_type(&client, "interval", &["infinity", "-infinity"], "'1 s'", &mut faults).await;
        values += compare_type(&client, "\"char\"", &["\\377", "\\200"], "'x'", &mut faults).await;
    }
    assert!(faults.is_empty(), "{version:?}\n{faults}");
    assert!(values > 40_000, "{values}");
}

fn as_strs(texts: &[String]) -> Vec<&str> {
    texts.iter().map(String::as_str).collect()
}

/// Floats around which shortest digits are hard to find: any bits; near powers of ten and two; the neighbours of
/// points that have few digits and lie halfway between two floats.
fn hard_floats() -> Vec<f64> {
    let mut state = 0x9E37_79B9_7F4A_7C15u64;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let mut floats: Vec<f64> = (0..2000).map(|_| f64::from_bits(random())).collect();
    for exponent in -320..=308 {
        let power: f64 = format!("1e{exponent}").parse().unwrap();
        floats.extend([power, power.next_up(), power.next_down()]);
    }
    floats.extend((-1074..1024).map(|exponent| 2f64.powi(exponent)));
    for (mantissa_bits, exponent_add) in [(53, 0), (24, 0), (53, 3), (24, 2), (24, 7)] {
        for fives in 1..=(mantissa_bits * 10 / 24).min(22) {
            for _ in 0..20 {
                // 2 m + 1 = 5^fives · r
                let low = (1u64 << mantissa_bits) / 5u64.pow(fives);
                let odd = (low + random() % (low + 1)) | 1;
                let Some(twice) = odd.checked_mul(5u64.pow(fives)) else { continue };
                let power = 2f64.powi(fives as i32 + 1 + exponent_add);
                floats.extend([((twice - 1) / 2) as f64 * power, (twice / 2 + 1) as f64 * power]);
            }
        }
    }
    floats.retain(|float| float.is_finite());
    floats
}

/// Compares values of a type alone and in arrays; returns how many.
async fn compare_type(
    client: &Client,
    type_sql: &str,
    literals: &[&str],
    random: &str,
    faults: &mut String,
) -> usize {
    let quoted: Vec<String> =
        literals.iter().map(|text| format!("('{}')", text.replace('\'', "''"))).collect();
    let rows = format!(
        "DROP TABLE IF EXISTS v; CREATE TEMP TABLE v AS
         SELECT row_number() OVER () AS n, x::text::{type_sql} AS v FROM (
             SELECT x FROM (VALUES {}) AS literals(x)
             UNION ALL SELECT NULL
             UNION ALL SELECT ({random})::text FROM generate_series(1, {RANDOM_ROWS}) AS n) AS texts",
        quoted.join(", ")
    );
    client.batch_execute(&rows).await.unwrap_or_else(|error| panic!("{type_sql}: {error:?}"));
    let oid: u32 = client.query_one("SELECT $1::text::regtype::oid", &[&type_sql]).await.unwrap().get(0);
    let scalar = Column { base_type_oid: oid, type_sql: type_sql.into(), ..Column::default() };
    assert!(Scalar::of_oid(oid).is_some(), "{type_sql} is not understood");
    let element = ColumnKind::Array { element_oid: oid, element_modifier: -1, element_is_enum: false };
    let array = Column { kind: element, base_type_oid: 0, ..scalar.clone() };
    let mut count = compare(client, &scalar, "SELECT v FROM pg_temp.v ORDER BY n", faults).await;
    // Vectors of vectors are no arrays.
    if !type_sql.ends_with("vector") {
        let element = type_sql;
        for query in [
            format!("SELECT ARRAY[v, NULL, v]::{element}[] FROM pg_temp.v ORDER BY n"),
            format!("SELECT ARRAY[[v], [NULL]]::{element}[] FROM pg_temp.v ORDER BY n LIMIT 40"),
            format!("SELECT array_agg(v ORDER BY n) || ARRAY[]::{element}[] FROM pg_temp.v"),
            "SELECT array_fill(v, ARRAY[2, 1, 3], ARRAY[-1, 1, 2147483000]) FROM pg_temp.v ORDER BY n LIMIT 9".to_owned(),
            format!("SELECT ARRAY[]::{element}[]"),
        ] {
            count += compare(client, &array, &query, faults).await;
        }
    }
    count
}

/// Compares the one column of a query's rows; returns how many there are.
async fn compare(client: &Client, column: &Column, query: &str, faults: &mut String) -> usize {
    let expected: Vec<Option<String>> = client
        .simple_query(query)
        .await
        .unwrap_or_else(|error| panic!("{query}: {error:?}"))
        .into_iter()
        .filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(row.get(0).map(str::to_owned)),
            _ => None,
        })
        .collect();
    let copy = format!("COPY ({query}) TO STDOUT (FORMAT binary)");
    let parts: Vec<_> = client.copy_out(&copy).await.unwrap().try_collect().await.unwrap();
    let fields = fields(&parts.concat());
    assert_eq!(fields.len(), expected.len(), "{query}");
    let value_type = Type::of(column);
    for (field, expected) in fields.iter().zip(&expected) {
        let found = field.as_ref().map(|binary| {
            let mut out = Vec::new();
            value_type.write_text(binary, &mut out).map(|()| String::from_utf8_lossy(&out).into_owned())
        });
        if found != expected.clone().map(Ok) && faults.len() < 20_000 {
            let _ = writeln!(
                faults,
                "{} {:?}: expected {expected:?}, found {found:?}",
                column.type_sql, column.kind
            );
        }
    }
    expected.len()
}

/// The fields of rows of one column: "Binary Format" of <https://www.postgresql.org/docs/current/sql-copy.html>.
fn fields(copied: &[u8]) -> Vec<Option<Vec<u8>>> {
    let mut rest = &copied[19..];
    let mut fields = Vec::new();
    while rest[..2] != [0xff, 0xff] {
        let length = i32::from_be_bytes(rest[2..6].try_into().unwrap());
        let size = usize::try_from(length).unwrap_or(0);
        fields.push((length >= 0).then(|| rest[6..6 + size].to_vec()));
        rest = &rest[6 + size..];
    }
    fields
}
