//! Values of every family of types, from the source's text to the target's column.

use crate::feed::{Feed, SAME, relation};
use crate::{VERSIONS, lane, send, server, try_send};
use replicator_harness::{PgVersion, Postgres};
use replicator_sink::ErrorKind;
use std::sync::Arc;

const TYPES: &str = "
    CREATE SCHEMA \"Shop\";
    CREATE TYPE \"Shop\".\"Mood\" AS ENUM ('sad', 'it''s ok', 'tab\there');
    CREATE DOMAIN \"Shop\".code AS varchar(8) NOT NULL CHECK (VALUE <> '');
    CREATE DOMAIN \"Shop\".codes AS \"Shop\".code;
    CREATE TYPE \"Shop\".pair AS (a integer, \"B b\" text);
    CREATE TYPE \"Shop\".span AS RANGE (subtype = float8);";

/// Types and literals of each.
const FAMILIES: &[(&str, &[&str])] = &[
    ("smallint", &["-32768", "32767"]),
    ("bigint", &["-9223372036854775808", "9223372036854775807"]),
    ("boolean", &["t", "f"]),
    ("numeric", &["1.00", "-0.0000000000000000000001", "NaN", "Infinity", "-Infinity", "1e1000"]),
    ("numeric(12,2)", &["1234567890.12", "-1", "NaN"]),
    ("real", &["1.1", "-0", "NaN", "Infinity", "1e-45"]),
    ("double precision", &["0.1", "-0", "NaN", "-Infinity", "5e-324", "1.7976931348623157e308"]),
    ("money", &["12.34", "-1"]),
    ("text", &["", "\\N", "\\.", "a\tb\nc\rd\\e\u{8}", "Größe 🦀", "{\"x\":1}", "null", "NULL"]),
    ("character varying(5)", &["abcde", "", "  a  "]),
    ("character(5)", &["ab", "", "abcde"]),
    ("\"char\"", &["a", "", "\\377"]),
    ("name", &["x", "with space"]),
    ("bytea", &["\\x", "\\x005c0a090d27ff", "abc"]),
    ("bit(3)", &["101", "000"]),
    ("bit varying(8)", &["1", "", "10101010"]),
    ("date", &["infinity", "-infinity", "4713-01-01 BC", "5874897-12-31", "2000-02-29"]),
    ("time without time zone", &["24:00:00", "00:00:00.000001"]),
    ("time(3) with time zone", &["23:59:59.999+15:59", "00:00:00-12"]),
    ("timestamp without time zone", &["infinity", "294276-12-31 23:59:59.999999", "4713-01-01 00:00:00 BC"]),
    ("timestamp with time zone", &["-infinity", "294276-12-31 23:59:59.999999+00", "2016-12-31 23:59:60+00"]),
    ("interval", &["1 year -2 mons 3 days -04:05:06.000007", "00:00:00", "-178000000 years"]),
    ("uuid", &["a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"]),
    ("json", &["{\"a\": \"\\u0000\",  \"b\":12345678901234567890}", "\"\\n\"", "null"]),
    ("jsonb", &["{\"a\": [1, 2.50, null]}", "\"\\\\N\""]),
    ("jsonpath", &["$.a[*] ? (@ > 1)"]),
    ("xml", &["<a b=\"c\">\n</a>", "text"]),
    ("inet", &["10.0.0.1", "10.0.0.1/24", "::1"]),
    ("cidr", &["10.0.0.0/8"]),
    ("macaddr", &["08:00:2b:01:02:03"]),
    ("macaddr8", &["08:00:2b:01:02:03:04:05"]),
    ("point", &["(1.5,-2)", "(0,NaN)"]),
    ("line", &["{1,2,3}"]),
    ("box", &["(2,2),(1,1)"]),
    ("path", &["[(1,2),(3,4)]", "((1,2),(3,4))"]),
    ("polygon", &["((0,0),(1,0),(1,1))"]),
    ("circle", &["<(1,2),3>"]),
    ("tsvector", &["'a':1A 'it''s':2"]),
    ("tsquery", &["'a' & !'b' <2> 'c'"]),
    ("pg_lsn", &["FFFFFFFF/FFFFFFFF"]),
    ("oid", &["4294967295"]),
    ("xid8", &["18446744073709551615"]),
    ("regtype", &["integer"]),
    ("int4range", &["empty", "[1,5)", "(,)"]),
    (
        "tstzmultirange",
        &["{}", "{[2020-01-01 00:00:00+00,2021-01-01 00:00:00+00),[2022-01-01 00:00:00+00,)}"],
    ),
    ("\"Shop\".span", &["[1.5,2.5]"]),
    ("integer[]", &["{}", "{1,NULL,3}", "[0:1][-1:0]={{1,2},{3,4}}"]),
    ("text[]", &["{\"\",\"NULL\",NULL,\"a,b\",\"\\\"\\\\\",\"\t\"}"]),
    ("\"Shop\".\"Mood\"", &["sad", "it's ok", "tab\there"]),
    ("\"Shop\".\"Mood\"[]", &["{sad,\"it's ok\"}"]),
    ("\"Shop\".codes", &["x", "12345678"]),
    ("\"Shop\".pair", &["(1,\"a,\"\"b\\\\\")", "(,)"]),
    ("\"Shop\".pair[]", &["{\"(1,x)\",NULL}"]),
];

fn cannot_be_null(type_sql: &str) -> bool {
    type_sql == "\"Shop\".codes"
}

/// The rows of `t`, as texts.
async fn rows(server: &Postgres, database: &str) -> Vec<Vec<Option<String>>> {
    let client = server.client(database).await;
    client.batch_execute("SET timezone = 'UTC'; SET search_path = ''").await.unwrap();
    let columns: Vec<String> = (0..FAMILIES.len())
        .map(|n| format!("CASE WHEN c{n} IS DISTINCT FROM NULL THEN format('%s', c{n}) END"))
        .collect();
    let sql = format!("SELECT id::text, {} FROM public.t ORDER BY t.id", columns.join(", "));
    let rows = client.query(&sql, &[]).await.unwrap();
    rows.iter().map(|row| (0..=FAMILIES.len()).map(|n| row.get(n)).collect()).collect()
}

#[tokio::test]
async fn every_family_of_types_arrives_to_the_last_byte_by_every_way() {
    for version in VERSIONS {
        let server = server(version);
        server.createdb("source");
        server.sql("source", TYPES);
        server.sql("target", TYPES);
        let names: Vec<String> = (0..FAMILIES.len()).map(|n| format!("c{n}")).collect();
        let mut columns = vec![("*id", "bigint")];
        columns.extend(names.iter().zip(FAMILIES).map(|(name, (of, _))| (name.as_str(), *of)));
        let definition: Vec<String> =
            columns.iter().map(|(name, of)| format!("{} {of}", name.trim_start_matches('*'))).collect();
        server.sql("source", &format!("CREATE TABLE t ({})", definition.join(", ")));
        let client = server.client("source").await;
        for row in 0..8 {
            let literals: Vec<String> = FAMILIES
                .iter()
                .map(|(of, values)| {
                    let value = values[row % values.len()];
                    let null = row == 7 && !cannot_be_null(of);
                    if null { "NULL".into() } else { format!("$v${value}$v$::{of}") }
                })
                .collect();
            client
                .batch_execute(&format!("INSERT INTO t VALUES ({row}, {})", literals.join(", ")))
                .await
                .unwrap();
        }
        let source = rows(&server, "source").await;

        let mut lane = lane(&server).await;
        let t = Arc::new(relation("t", &columns));
        let mut feed = Feed::new();
        let texts =
            |row: &'static [Option<String>]| row.iter().map(|value| value.as_deref()).collect::<Vec<_>>();
        let source: &'static [Vec<Option<String>>] = Box::leak(source.into_boxed_slice());

        // New rows.
        source.iter().for_each(|row| feed.insert(&t, &texts(row)));
        send(&mut lane, &mut feed).await;
        assert_eq!(rows(&server, "target").await, source);

        // Updates to the values of the next row, then back, as whole rows and then without the second half.
        let rotate = |feed: &mut Feed, same_from: usize| {
            for (row, next) in source.iter().zip(source.iter().cycle().skip(1)) {
                let mut values = texts(next);
                values[0] = row[0].as_deref();
                values[same_from..].fill(SAME);
                feed.update(&t, &values);
            }
        };
        rotate(&mut feed, columns.len());
        send(&mut lane, &mut feed).await;
        let rotated = rows(&server, "target").await;
        for (row, next) in rotated.iter().zip(source.iter().cycle().skip(1)) {
            assert_eq!(row[1..], next[1..]);
        }
        source.iter().for_each(|row| feed.update(&t, &texts(row)));
        send(&mut lane, &mut feed).await;
        assert_eq!(rows(&server, "target").await, source);

        for half in [columns.len() / 2, 1] {
            rotate(&mut feed, half);
            send(&mut lane, &mut feed).await;
            let rotated = rows(&server, "target").await;
            for ((row, before), next) in rotated.iter().zip(source).zip(source.iter().cycle().skip(1)) {
                assert_eq!(row[1..half], next[1..half]);
                assert_eq!(row[half..], before[half..]);
            }
            source.iter().for_each(|row| feed.update(&t, &texts(row)));
            send(&mut lane, &mut feed).await;
        }

        // A key that changes, alone.
        let mut moved = texts(&source[0]);
        moved[0] = Some("100");
        moved[10..].fill(SAME);
        let mut old = vec![None; columns.len()];
        old[0] = Some("0");
        feed.move_row(&t, &old, &moved);
        send(&mut lane, &mut feed).await;
        let target = rows(&server, "target").await;
        assert_eq!(target.last().unwrap()[1..], source[0][1..]);
        assert_eq!(target.len(), source.len());
    }
}

#[tokio::test]
async fn a_value_too_long_for_the_targets_column_is_rejected_and_never_cut() {
    let server = server(PgVersion::V17);
    let types = [
        ("bit(3)", "1010", "101"),
        ("character varying(3)", "abcd", "abc"),
        ("character(3)", "abcd", "abc"),
        ("bit varying(2)", "101", "10"),
        ("name[]", "{x}", "{x}"),
    ];
    for (number, (of, long, fits)) in types.into_iter().enumerate().take(4) {
        let name = format!("t{number}");
        server.sql("target", &format!("CREATE TABLE {name} (id bigint PRIMARY KEY, v {of}, w text)"));
        let mut lane = lane(&server).await;
        let t = Arc::new(relation(&name, &[("*id", "bigint"), ("v", of), ("w", "text")]));
        let mut feed = Feed::from_lsn(1_000_000 * (number as u64 + 1));
        feed.insert(&t, &[Some("1"), Some(fits), Some("w")]);
        send(&mut lane, &mut feed).await;
        for way in 0..4 {
            match way {
                0 => feed.insert(&t, &[Some("2"), Some(long), None]),
                1 => feed.update(&t, &[Some("1"), Some(long), None]),
                2 => feed.update(&t, &[Some("1"), Some(long), SAME]),
                _ => feed.move_row(&t, &[Some("1"), None, None], &[Some("2"), Some(long), SAME]),
            }
            let error = try_send(&mut lane, feed.batch()).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Reject, "{of}, {way}: {error}");
            assert_eq!(server.sql("target", &format!("TABLE {name}")), format!("1|{fits}|w"));
        }
    }
}

#[tokio::test]
async fn a_large_value_and_a_wide_row_arrive() {
    let server = server(PgVersion::V15);
    let mut lane = lane(&server).await;
    let names: Vec<String> = (0..1_599).map(|n| format!("c{n}")).collect();
    let mut columns = vec![("*id", "bigint")];
    columns.extend(names.iter().map(|name| (name.as_str(), "boolean")));
    let wide = Arc::new(relation("wide", &columns));
    let large = Arc::new(relation("large", &[("*id", "bigint"), ("v", "text")]));
    let value = "\\line\n".repeat(2 << 20);
    let mut feed = Feed::new();
    let mut row = vec![Some("t"); 1_600];
    row[0] = Some("1");
    feed.insert(&wide, &row);
    feed.insert(&large, &[Some("1"), Some(&value)]);
    send(&mut lane, &mut feed).await;
    row[1_599] = Some("f");
    feed.update(&wide, &row);
    feed.update(&large, &[Some("1"), Some(&value[6..])]);
    send(&mut lane, &mut feed).await;
    assert_eq!(server.sql("target", "SELECT c0, c1598 FROM wide"), "t|f");
    assert_eq!(server.sql("target", "SELECT length(v) FROM large"), (value.len() - 6).to_string());
}
