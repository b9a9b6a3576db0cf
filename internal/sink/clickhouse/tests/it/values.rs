use crate::support::Cell::{self, N, T};
use crate::support::*;
use replicator_config::{ArrayColumns, OutOfRange};
use replicator_sink::ErrorKind;
use replicator_types::{Column, ColumnKind, oid};
use std::sync::Arc;

fn numeric(name: &str, precision: i32, scale: i32) -> Column {
    Column { type_modifier: (precision << 16 | scale & 0x7ff) + 4, ..column(name, oid::NUMERIC) }
}

fn array(name: &str, element_oid: u32, not_null: bool) -> Column {
    let kind = ColumnKind::Array { element_oid, element_modifier: -1, element_is_enum: false };
    Column { kind, not_null, ..column(name, 0) }
}

fn of_kind(name: &str, kind: ColumnKind) -> Column {
    Column { kind, ..column(name, 99_999) }
}

/// A column, a value as Postgres writes it, and as ClickHouse shows it (TSV).
pub(crate) type Case = (Column, &'static str, &'static str);

pub(crate) fn cases() -> Vec<Case> {
    vec![
        (column("bool", oid::BOOL), "t", "true"),
        (column("int2", oid::INT2), "-32768", "-32768"),
        (column("int4", oid::INT4), "2147483647", "2147483647"),
        (column("int8", oid::INT8), "-9223372036854775808", "-9223372036854775808"),
        (column("oid", oid::OID), "4294967295", "4294967295"),
        (column("float4", oid::FLOAT4), "3.4028235e+38", "3.4028235e38"),
        (column("float8", oid::FLOAT8), "-0", "-0"),
        (column("nan", oid::FLOAT8), "NaN", "nan"),
        (column("infinity", oid::FLOAT4), "-Infinity", "-inf"),
        (column("subnormal", oid::FLOAT8), "5e-324", "5e-324"),
        (numeric("price", 12, 2), "-9999999999.99", "-9999999999.99"),
        (numeric("small", 4, 4), "0.0001", "0.0001"),
        (numeric("wide", 76, 10), "-1.0000000001", "-1.0000000001"),
        (numeric("tens", 5, -2), "1234500", "1234500"),
        (numeric("huge", 100, 2), "1.10", "1.10"),
        (column("any_numeric", oid::NUMERIC), "NaN", "NaN"),
        (
            column("digits", oid::NUMERIC),
            "1.000000000000000000000000000000000000000000000000000000000000000000000000000001",
            "1.000000000000000000000000000000000000000000000000000000000000000000000000000001",
        ),
        (column("text", oid::TEXT), "a\tb\n\\N 'q' \u{1F418}", "a\\tb\\n\\\\N \\'q\\' \u{1F418}"),
        (column("empty", oid::TEXT), "", ""),
        (column("bpchar", oid::BPCHAR), "pad  ", "pad  "),
        (column("bytea", oid::BYTEA), "\\x00ff0a", "\\0\u{FFFD}\\n"),
        (
            column("json", oid::JSON),
            "{\"n\": 12345678901234567890, \"u\": \"\\u0000\"}",
            "{\"n\": 12345678901234567890, \"u\": \"\\\\u0000\"}",
        ),
        (column("date", oid::DATE), "2024-02-29", "2024-02-29"),
        (column("first_date", oid::DATE), "1900-01-01", "1900-01-01"),
        (column("last_date", oid::DATE), "2299-12-31", "2299-12-31"),
        (column("time", oid::TIME), "24:00:00", "24:00:00"),
        (column("timetz", oid::TIMETZ), "12:00:00.5+05:30", "12:00:00.5+05:30"),
        (column("timestamp", oid::TIMESTAMP), "2024-02-29 23:59:59.123456", "2024-02-29 23:59:59.123456"),
        (
            column("timestamptz", oid::TIMESTAMPTZ),
            "2024-02-29 23:59:59.5+05:30",
            "2024-02-29 18:29:59.500000",
        ),
        (column("first_moment", oid::TIMESTAMP), "1900-01-01 00:00:00", "1900-01-01 00:00:00.000000"),
        (column("last_moment", oid::TIMESTAMP), "2299-12-31 23:59:59.999999", "2299-12-31 23:59:59.999999"),
        (column("interval", oid::INTERVAL), "1 mon -3 days", "1 mon -3 days"),
        (
            column("uuid", oid::UUID),
            "00112233-4455-6677-8899-aabbccddeeff",
            "00112233-4455-6677-8899-aabbccddeeff",
        ),
        (column("inet", oid::INET), "10.0.0.0/8", "10.0.0.0/8"),
        (of_kind("mood", ColumnKind::Enum), "very sad", "very sad"),
        (of_kind("range", ColumnKind::Other), "[1,10)", "[1,10)"),
        (array("ints", oid::INT4, true), "{1,NULL,-3}", "[1,NULL,-3]"),
        (
            array("texts", oid::TEXT, true),
            "{\"a,b\",\"NULL\",NULL,\"\"}",
            "[\\'a,b\\',\\'NULL\\',NULL,\\'\\']",
        ),
        (
            array("uuids", oid::UUID, true),
            "{00112233-4455-6677-8899-aabbccddeeff}",
            "[\\'00112233-4455-6677-8899-aabbccddeeff\\']",
        ),
        (array("nullable_ints", oid::INT4, false), "[0:1][1:1]={{1},{2}}", "[0:1][1:1]={{1},{2}}"),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_of_every_type_comes_out_as_it_went_in() {
    let fixture = Fixture::new();
    let cases = cases();
    let mut columns = vec![key("id", oid::INT8)];
    columns.extend(cases.iter().map(|(column, _, _)| column.clone()));
    let types = Arc::new(table("types", columns));
    let mut lane = fixture.lane(&[&types]).await;
    let mut values = vec![T("1")];
    values.extend(cases.iter().map(|(_, text, _)| T(text)));
    let mut nulls = vec![T("2")];
    nulls.extend(cases.iter().map(|(column, _, _)| if column.not_null { T("{}") } else { N }));
    write(&mut lane, batch(&[insert(&types, (10, 0), &values), insert(&types, (10, 1), &nulls)])).await;
    for (column, text, shown) in &cases {
        let found = fixture.query(&format!(
            "SELECT toString(`{name}`), hex(toString(`{name}`)) FROM {{db}}.types FINAL WHERE id = 1 FORMAT TSV",
            name = column.name
        ));
        if column.name == "bytea" {
            assert!(found.ends_with("\t00FF0A"), "{found}");
        } else {
            let found = found.split('\t').next().unwrap_or_default();
            assert_eq!(found, *shown, "{} of {text}", column.name);
        }
        let null =
            fixture.query(&format!("SELECT isNull(`{}`) FROM {{db}}.types FINAL WHERE id = 2", column.name));
        assert_eq!(null, if column.not_null { "0" } else { "1" }, "{} is NULL", column.name);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_type_can_be_a_key() {
    let fixture = Fixture::new();
    for (number, (column, text, _)) in cases().into_iter().enumerate() {
        // ClickHouse sorts NaN, but it is equal to nothing.
        if column.name == "nan" {
            continue;
        }
        let key = Column { is_key: true, not_null: true, ..column };
        let name = key.name.clone();
        let keyed =
            Arc::new(table(&format!("keyed{number}"), vec![key, crate::support::column("v", oid::TEXT)]));
        let mut lane = fixture.lane(&[&keyed]).await;
        let events =
            [insert(&keyed, (10, 0), &[T(text), T("a")]), update(&keyed, (11, 0), &[T(text), T("b")])];
        write(&mut lane, batch(&events)).await;
        write(&mut lane, batch(&[update(&keyed, (12, 0), &[T(text), Cell::U])])).await;
        let rows = format!("SELECT v FROM {{db}}.keyed{number} FINAL");
        assert_eq!(fixture.query(&rows), "b", "{name}");
        write(&mut lane, batch(&[delete(&keyed, (13, 0), &[T(text), N])])).await;
        assert_eq!(fixture.query(&rows), "", "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_type_has_no_room_for_is_clamped_or_null_or_rejected_as_asked() {
    let columns = || {
        vec![
            key("id", oid::INT4),
            column("at", oid::TIMESTAMPTZ),
            column("day", oid::DATE),
            numeric("n", 4, 2),
        ]
    };
    let rows = [
        [T("1"), T("infinity"), T("infinity"), T("NaN")],
        [T("2"), T("-infinity"), T("0044-03-15 BC"), T("1.5")],
        [T("3"), T("294276-12-31 23:59:59.999999+00"), T("1899-12-31"), T("1.5")],
    ];
    for (policy, expected) in [
        (
            OutOfRange::Clamp,
            "1\t2299-12-31 23:59:59.999999\t2299-12-31\t\\N\n2\t1900-01-01 00:00:00.000000\t1900-01-01\t1.5\n\
             3\t2299-12-31 23:59:59.999999\t1900-01-01\t1.5",
        ),
        (OutOfRange::Null, "1\t\\N\t\\N\t\\N\n2\t\\N\t\\N\t1.5\n3\t\\N\t\\N\t1.5"),
    ] {
        let mut fixture = Fixture::new();
        fixture.config.out_of_range = policy;
        let edges = Arc::new(table("edges", columns()));
        let mut lane = fixture.lane(&[&edges]).await;
        let events: Vec<_> = (0..).zip(&rows).map(|(n, row)| insert(&edges, (10, n), row)).collect();
        write(&mut lane, batch(&events)).await;
        assert_eq!(fixture.query("SELECT id, at, day, n FROM {db}.edges FINAL ORDER BY id"), expected);
    }
    let mut fixture = Fixture::new();
    fixture.config.out_of_range = OutOfRange::Error;
    let edges = Arc::new(table("edges", columns()));
    let mut lane = fixture.lane(&[&edges]).await;
    let error = try_write(&mut lane, batch(&[insert(&edges, (10, 3), &rows[0])])).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Reject);
    for part in ["public.edges", "0/A+3", "column at", "`infinity`", "out_of_range", "Nullable(String)"] {
        assert!(error.to_string().contains(part), "{error}");
    }
    // The lane goes on with the next batch.
    write(&mut lane, batch(&[insert(&edges, (11, 0), &[T("1"), N, N, N])])).await;
    assert_eq!(fixture.query("SELECT id FROM {db}.edges"), "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_never_clamped_into_one() {
    let fixture = Fixture::new();
    let days = Arc::new(table("days", vec![key("day", oid::DATE), column("v", oid::TEXT)]));
    let mut lane = fixture.lane(&[&days]).await;
    let error =
        try_write(&mut lane, batch(&[insert(&days, (10, 0), &[T("infinity"), N])])).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Reject);
    assert!(error.to_string().contains("a key is not clamped"), "{error}");
    // The way out that the error names.
    fixture.query("DROP TABLE {db}.days");
    fixture.query(
        "CREATE TABLE {db}.days (day String, v Nullable(String), _version UInt128, _deleted UInt8, _commit_time DateTime64(6)) \
         ENGINE = ReplacingMergeTree(_version, _deleted) ORDER BY day",
    );
    let mut lane = fixture.lane(&[&days]).await;
    let rows = [insert(&days, (10, 0), &[T("infinity"), N]), insert(&days, (10, 1), &[T("9999-12-31"), N])];
    write(&mut lane, batch(&rows)).await;
    assert_eq!(fixture.query("SELECT day FROM {db}.days FINAL ORDER BY day"), "9999-12-31\ninfinity");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_clamped_or_not_found_is_counted() {
    let metrics = replicator_telemetry::metrics::install().unwrap();
    let fixture = Fixture::new();
    let counted = Arc::new(table(
        "counted",
        vec![key("id", oid::INT4), column("day", oid::DATE), column("v", oid::TEXT)],
    ));
    let mut lane = fixture.lane(&[&counted]).await;
    write(
        &mut lane,
        batch(&[
            insert(&counted, (10, 0), &[T("1"), T("infinity"), N]),
            insert(&counted, (10, 1), &[T("2"), T("-infinity"), N]),
        ]),
    )
    .await;
    write(&mut lane, batch(&[update(&counted, (11, 0), &[T("3"), T("2024-01-01"), Cell::U])])).await;
    let text = metrics.render();
    for line in [
        "replicator_values_clamped_total{sink=\"analytics\",table=\"public.counted\",column=\"day\"} 2",
        "replicator_values_missing_total{sink=\"analytics\",table=\"public.counted\",column=\"v\"} 1",
    ] {
        assert!(text.contains(line), "{line} in\n{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn arrays_that_clickhouse_has_no_form_for_are_rejected_with_the_way_out() {
    let mut fixture = Fixture::new();
    let lists = Arc::new(table("lists", vec![key("id", oid::INT4), array("a", oid::INT4, true)]));
    let mut lane = fixture.lane(&[&lists]).await;
    for (text, part) in
        [(T("{{1},{2}}"), "one-dimensional"), (T("[0:0]={1}"), "one-dimensional"), (N, "arrays = \"text\"")]
    {
        let error =
            try_write(&mut lane, batch(&[insert(&lists, (10, 0), &[T("1"), text])])).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Reject);
        assert!(error.to_string().contains(part) && error.to_string().contains("column a"), "{error}");
    }
    // The way out that the error names.
    fixture.query("ALTER TABLE {db}.lists MODIFY COLUMN a Nullable(String)");
    let mut lane = fixture.lane(&[&lists]).await;
    write(
        &mut lane,
        batch(&[insert(&lists, (10, 0), &[T("1"), T("{{1},{2}}")]), insert(&lists, (10, 1), &[T("2"), N])]),
    )
    .await;
    assert_eq!(fixture.query("SELECT id, a FROM {db}.lists FINAL ORDER BY id"), "1\t{{1},{2}}\n2\t\\N");

    fixture.config.arrays = ArrayColumns::Array;
    let lists = Arc::new(table("more_lists", vec![key("id", oid::INT4), array("a", oid::INT4, false)]));
    let mut lane = fixture.lane(&[&lists]).await;
    write(&mut lane, batch(&[insert(&lists, (10, 0), &[T("1"), N])])).await;
    assert_eq!(fixture.query("SELECT a FROM {db}.more_lists FINAL"), "[]");
}
