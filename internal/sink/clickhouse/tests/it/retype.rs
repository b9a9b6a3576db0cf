use crate::support::Cell::{N, T};
use crate::support::*;
use replicator_config::{ClickHouseMode, TypeChanges};
use replicator_sink::ErrorKind;
use replicator_types::{Column, ColumnKind, Relation, oid};
use std::sync::Arc;

fn numeric(precision: i32, scale: i32) -> Column {
    Column { type_modifier: (precision << 16 | scale & 0x7ff) + 4, ..column("c", oid::NUMERIC) }
}

fn array(element_oid: u32, not_null: bool) -> Column {
    let kind = ColumnKind::Array { element_oid, element_modifier: -1, element_is_enum: false };
    Column { kind, not_null, ..column("c", 0) }
}

fn of(type_oid: u32) -> Column {
    column("c", type_oid)
}

/// `t (id int primary key, c …)`, before and after `ALTER COLUMN c TYPE …`.
fn versions(before: Column, after: Column) -> (Arc<Relation>, Arc<Relation>) {
    let v1 = Arc::new(table("t", vec![key("id", oid::INT4), before]));
    let v2 = altered(&v1, 20, vec![key("id", oid::INT4), after]);
    (v1, v2)
}

/// Type before and after, values before, what ClickHouse has then, its type, and a value of the new type.
type Case = (Column, Column, &'static [&'static str], &'static str, &'static str, &'static str);

/// The middle column of texts is what `SELECT c::new_type` gives in Postgres under UTC.
fn cases() -> Vec<Case> {
    vec![
        (of(oid::INT2), of(oid::INT4), &["-32768", "7"], "-32768 7", "Nullable(Int32)", "70000"),
        (
            of(oid::INT4),
            of(oid::INT8),
            &["-5", "2147483647"],
            "-5 2147483647",
            "Nullable(Int64)",
            "3000000000",
        ),
        (of(oid::INT8), of(oid::INT4), &["-5"], "-5", "Nullable(Int64)", "5"),
        (
            of(oid::INT4),
            numeric(12, 2),
            &["-5", "2147483647"],
            "-5 2147483647",
            "Nullable(Decimal(12, 2))",
            "0.5",
        ),
        (of(oid::INT4), of(oid::FLOAT8), &["-5"], "-5", "Nullable(Float64)", "0.5"),
        (of(oid::FLOAT4), of(oid::FLOAT8), &["0.5"], "0.5", "Nullable(Float64)", "0.1"),
        (numeric(12, 2), numeric(14, 4), &["-1.50"], "-1.5", "Nullable(Decimal(14, 4))", "0.0001"),
        (
            of(oid::DATE),
            of(oid::TIMESTAMP),
            &["1900-01-01"],
            "1900-01-01 00:00:00.000000",
            "Nullable(DateTime64(6, 'UTC'))",
            "2024-01-01 00:00:01",
        ),
        (
            of(oid::INT8),
            of(oid::TEXT),
            &["-9223372036854775808"],
            "-9223372036854775808",
            "Nullable(String)",
            "x",
        ),
        (of(oid::BOOL), of(oid::TEXT), &["t", "f"], "true false", "Nullable(String)", "x"),
        (
            of(oid::UUID),
            of(oid::TEXT),
            &["00112233-4455-6677-8899-aabbccddeeff"],
            "00112233-4455-6677-8899-aabbccddeeff",
            "Nullable(String)",
            "x",
        ),
        (of(oid::DATE), of(oid::TEXT), &["2024-02-29"], "2024-02-29", "Nullable(String)", "x"),
        (
            numeric(12, 2),
            of(oid::NUMERIC),
            &["1.50", "-0.05", "7.00"],
            "1.50 -0.05 7.00",
            "Nullable(String)",
            "NaN",
        ),
        (of(oid::INT4), of(oid::NUMERIC), &["12"], "12", "Nullable(String)", "NaN"),
        (
            of(oid::FLOAT8),
            of(oid::TEXT),
            &["0.1", "-0", "NaN", "Infinity", "-Infinity"],
            "0.1 -0 NaN Infinity -Infinity",
            "Nullable(String)",
            "x",
        ),
        (
            of(oid::TIMESTAMP),
            of(oid::TEXT),
            &["2024-01-01 00:00:00", "2024-01-01 10:20:30.5"],
            "2024-01-01 00:00:00 2024-01-01 10:20:30.5",
            "Nullable(String)",
            "x",
        ),
        (
            of(oid::TIMESTAMPTZ),
            of(oid::TEXT),
            &["2024-01-01 00:00:00.000001+00"],
            "2024-01-01 00:00:00.000001+00",
            "Nullable(String)",
            "x",
        ),
        (of(oid::TEXT), of(oid::INT4), &["12"], "12", "Nullable(String)", "7"),
        (of(oid::VARCHAR), of(oid::TEXT), &["a"], "a", "Nullable(String)", "x"),
        (
            array(oid::INT4, true),
            array(oid::INT4, false),
            &["{1,NULL,-3}", "{}"],
            "{1,NULL,-3} {}",
            "Nullable(String)",
            "{{1},{2}}",
        ),
        (
            array(oid::TEXT, true),
            of(oid::TEXT),
            &[r#"{a,NULL,"NULL","",b c,"x,y","q\"\\"}"#],
            r#"{a,NULL,"NULL","","b c","x,y","q\"\\"}"#,
            "Nullable(String)",
            "x",
        ),
        (
            array(oid::INT4, true),
            array(oid::INT8, true),
            &["{1,NULL}"],
            "[1,NULL]",
            "Array(Nullable(Int64))",
            "{3000000000}",
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn values_of_a_column_are_converted_as_postgres_converts_them() {
    for mode in [ClickHouseMode::Mirror, ClickHouseMode::History] {
        for (before, after, values, expected, of_type, new) in cases() {
            let mut fixture = Fixture::new();
            fixture.config.mode = mode;
            let about = format!("{mode:?} {expected} to {of_type}");
            // In a history every column may be NULL, and no array can.
            if mode == ClickHouseMode::History && matches!(before.kind, ColumnKind::Array { .. }) {
                continue;
            }
            let is_array = of_type.starts_with("Array");
            let (v1, v2) = versions(before, after);
            let mut lane = fixture.lane(&[&v1]).await;
            let ids: Vec<String> = (0..values.len()).map(|id| id.to_string()).collect();
            let events: Vec<_> = ids
                .iter()
                .zip(values)
                .zip(0..)
                .map(|((id, value), n)| insert(&v1, (10, n), &[T(id), T(value)]))
                .collect();
            write(&mut lane, batch(&events)).await;
            if !v1.columns[1].not_null {
                write(&mut lane, batch(&[insert(&v1, (11, 0), &[T("100"), N])])).await;
            }
            // Twice: the stream comes again after a crash before the note.
            announce(&mut lane, &v2, (20, 0)).await;
            let mut lane = fixture.lane(&[&v2]).await;
            announce(&mut lane, &v2, (20, 0)).await;
            let null = if is_array { T("{}") } else { N };
            write(
                &mut lane,
                batch(&[insert(&v2, (20, 0), &[T("200"), T(new)]), insert(&v2, (20, 1), &[T("201"), null])]),
            )
            .await;
            let found = fixture.query(
                "SELECT arrayStringConcat(groupArray(toString(c)), ' ') FROM (SELECT c FROM {db}.t WHERE id < 100 ORDER BY id) FORMAT TSVRaw",
            );
            assert_eq!(found, expected, "{about}");
            assert_eq!(fixture.columns("t"), format!("id Int32, c {of_type}"), "{about}");
            let nulls = fixture.query("SELECT countIf(isNull(c)) FROM {db}.t WHERE id IN (100, 201)");
            let expected_nulls = if is_array { 0 } else { 1 + u8::from(!v1.columns[1].not_null) };
            assert_eq!(nulls, expected_nulls.to_string(), "{about}");
            if mode == ClickHouseMode::Mirror {
                assert_eq!(
                    fixture.query("SELECT count(), uniqExact(id) FROM {db}.t_current"),
                    fixture.query("SELECT uniqExact(id), count() FROM {db}.t"),
                    "{about}"
                );
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_column_cannot_be_changed_to_follows_the_policy() {
    for policy in [TypeChanges::Error, TypeChanges::Keep, TypeChanges::String] {
        let mut fixture = Fixture::new();
        fixture.config.type_changes = policy;
        let (v1, v2) = versions(of(oid::INT4), of(oid::TIMESTAMPTZ));
        let mut lane = fixture.lane(&[&v1]).await;
        write(
            &mut lane,
            batch(&[insert(&v1, (10, 0), &[T("1"), T("5")]), insert(&v1, (10, 1), &[T("2"), N])]),
        )
        .await;
        let announced = try_announce(&mut lane, &v2, (20, 0)).await;
        if policy == TypeChanges::Error {
            let error = announced.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Halt);
            for part in ["column c of public.t", "type_changes", "MODIFY COLUMN", "resync --table public.t"] {
                assert!(error.to_string().contains(part), "{error}");
            }
            assert_eq!(fixture.columns("t"), "id Int32, c Nullable(Int32)", "nothing was altered");
            // One way out that the error names.
            fixture.config.type_changes = TypeChanges::String;
            let mut lane = fixture.lane(&[&v2]).await;
            announce(&mut lane, &v2, (20, 0)).await;
            assert_eq!(fixture.columns("t"), "id Int32, c Nullable(String)");
            continue;
        }
        announced.unwrap();
        let rows = [
            insert(&v2, (20, 0), &[T("3"), T("2024-01-01 00:00:00+00")]),
            insert(&v2, (20, 1), &[T("4"), N]),
        ];
        write(&mut lane, batch(&rows)).await;
        let mut lane = fixture.lane(&[&v2]).await;
        write(&mut lane, batch(&rows)).await;
        let expected = match policy {
            TypeChanges::Keep => "1\t5\n2\t\\N\n3\t\\N\n4\t\\N",
            _ => "1\t5\n2\t\\N\n3\t2024-01-01 00:00:00+00\n4\t\\N",
        };
        assert_eq!(fixture.query("SELECT id, c FROM {db}.t_current ORDER BY id"), expected, "{policy:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_history_makes_text_of_a_column_that_cannot_be_changed_where_a_mirror_would_wait() {
    let mut fixture = Fixture::new();
    fixture.config.mode = ClickHouseMode::History;
    assert_eq!(fixture.config.type_changes, TypeChanges::Error, "the default");
    let (v1, v2) = versions(of(oid::INT4), of(oid::TIMESTAMPTZ));
    let mut lane = fixture.lane(&[&v1]).await;
    write(&mut lane, batch(&[insert(&v1, (10, 0), &[T("1"), T("5")])])).await;
    announce(&mut lane, &v2, (20, 0)).await;
    write(&mut lane, batch(&[insert(&v2, (20, 0), &[T("2"), T("2024-01-01 00:00:00+00")])])).await;
    let rows = fixture.query("SELECT id, c FROM {db}.t ORDER BY id");
    assert_eq!(rows, "1\t5\n2\t2024-01-01 00:00:00+00");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_number_too_large_for_a_column_that_was_kept_is_treated_as_one_out_of_range() {
    let mut fixture = Fixture::new();
    fixture.config.type_changes = TypeChanges::Keep;
    let (v1, v2) = versions(numeric(4, 2), numeric(4, 0));
    let mut lane = fixture.lane(&[&v1]).await;
    write(&mut lane, batch(&[insert(&v1, (10, 0), &[T("1"), T("12.34")])])).await;
    announce(&mut lane, &v2, (20, 0)).await;
    write(
        &mut lane,
        batch(&[insert(&v2, (20, 0), &[T("2"), T("1234")]), insert(&v2, (20, 1), &[T("3"), T("12")])]),
    )
    .await;
    assert_eq!(fixture.query("SELECT id, c FROM {db}.t_current ORDER BY id"), "1\t12.34\n2\t99.99\n3\t12");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_of_a_wider_type_keeps_rows_and_a_column_without_not_null_takes_null_at_once() {
    let fixture = Fixture::new();
    let strict = Column { not_null: true, ..of(oid::INT4) };
    let v1 = Arc::new(table("t", vec![key("id", oid::INT4), strict]));
    let v2 = altered(&v1, 20, vec![key("id", oid::INT8), of(oid::INT4)]);
    let mut lane = fixture.lane(&[&v1]).await;
    write(
        &mut lane,
        batch(&[insert(&v1, (10, 0), &[T("1"), T("5")]), insert(&v1, (10, 1), &[T("2"), T("6")])]),
    )
    .await;
    write(&mut lane, batch(&[delete(&v1, (11, 0), &[T("2"), N])])).await;
    assert_eq!(fixture.columns("t"), "id Int32, c Int32");
    announce(&mut lane, &v2, (20, 0)).await;
    assert_eq!(fixture.columns("t"), "id Int64, c Nullable(Int32)");
    write(
        &mut lane,
        batch(&[insert(&v2, (20, 0), &[T("3000000000"), N]), update(&v2, (20, 1), &[T("1"), T("7")])]),
    )
    .await;
    // Old changes come again, and go into the wider columns.
    let mut lane = fixture.lane(&[&v2]).await;
    write(
        &mut lane,
        batch(&[insert(&v1, (10, 0), &[T("1"), T("5")]), insert(&v1, (10, 1), &[T("2"), T("6")])]),
    )
    .await;
    write(&mut lane, batch(&[delete(&v1, (11, 0), &[T("2"), N])])).await;
    assert_eq!(fixture.query("SELECT id, c FROM {db}.t_current ORDER BY id"), "1\t7\n3000000000\t\\N");
}
