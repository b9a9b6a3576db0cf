use crate::support::Cell::{N, T};
use crate::support::*;
use replicator_config::SchemaNaming;
use replicator_sink::{ErrorKind, Sink};
use replicator_types::{Column, Relation, oid};
use std::sync::Arc;

#[tokio::test(flavor = "multi_thread")]
async fn names_of_every_sort_are_kept() {
    let fixture = Fixture::new();
    let name = "odd `na\\me` 'q' \u{fc} SELECT";
    let odd = Arc::new(table(
        &format!("sch`ema.{name}"),
        vec![
            key("select", oid::INT4),
            column("a`b\\c'd\"e", oid::TEXT),
            column("\u{65e5}\u{672c}", oid::TEXT),
            column("t.v", oid::TEXT),
            column("from", oid::TEXT),
        ],
    ));
    let mut lane = fixture.lane(&[&odd]).await;
    write(&mut lane, batch(&[insert(&odd, (10, 0), &[T("1"), T("a"), T("b"), T("c"), T("d")])])).await;
    // Also where columns are read back by name.
    write(&mut lane, batch(&[update(&odd, (11, 0), &[T("1"), Cell::U, Cell::U, Cell::U, T("e")])])).await;
    let listed =
        fixture.query("SELECT name FROM system.tables WHERE database = '{db}' AND name != '_replicator_notes' ORDER BY name FORMAT TSVRaw");
    assert_eq!(listed, format!("sch`ema_{name}\nsch`ema_{name}_current"));
    let quoted = name.replace('\\', "\\\\").replace('`', "\\`");
    assert_eq!(fixture.query(&format!("SELECT * FROM {{db}}.`sch\\`ema_{quoted}_current`")), "1\ta\tb\tc\te");
}

#[tokio::test(flavor = "multi_thread")]
async fn schemas_go_where_the_setting_says_and_no_two_tables_into_one() {
    let mut fixture = Fixture::new();
    let columns = || vec![key("id", oid::INT4)];
    let flat = Arc::new(table("crm_orders", columns()));
    let nested = Arc::new(table("crm.orders", columns()));
    let error = fixture.try_lane(&[&flat, &nested]).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Halt);
    assert!(
        error.to_string().contains("schema_naming") && error.to_string().contains("crm.orders"),
        "{error}"
    );
    let failed: Vec<_> = fixture
        .sink()
        .check(&[flat.clone(), nested.clone()])
        .await
        .into_iter()
        .filter(|item| item.result.is_err())
        .collect();
    assert_eq!(failed.len(), 1, "{failed:?}");

    fixture.config.schema_naming = SchemaNaming::Database;
    let schema = format!("{}_crm", fixture.config.database);
    let nested = Arc::new(table(&format!("{schema}.orders"), columns()));
    let mut lane = fixture.lane(&[&flat, &nested]).await;
    write(&mut lane, batch(&[insert(&nested, (10, 0), &[T("1")])])).await;
    assert_eq!(fixture.query(&format!("SELECT id FROM {schema}.orders FINAL")), "1");
    fixture.query(&format!("DROP DATABASE {schema}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_null_for_a_column_without_null_makes_it_nullable() {
    let fixture = Fixture::new();
    let strict = Column { not_null: true, ..column("n", oid::INT4) };
    let t = Arc::new(table("t", vec![key("id", oid::INT4), strict]));
    let mut lane = fixture.lane(&[&t]).await;
    write(&mut lane, batch(&[insert(&t, (10, 0), &[T("1"), T("5")]), delete(&t, (10, 1), &[T("2"), N])]))
        .await;
    assert_eq!(
        fixture
            .query("SELECT type FROM system.columns WHERE database = '{db}' AND table = 't' AND name = 'n'"),
        "Int32"
    );
    write(&mut lane, batch(&[insert(&t, (11, 0), &[T("2"), N])])).await;
    write(&mut lane, batch(&[insert(&t, (12, 0), &[T("3"), T("6")])])).await;
    assert_eq!(fixture.query("SELECT id, n FROM {db}.t FINAL ORDER BY id"), "1\t5\n2\t\\N\n3\t6");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_there_already_is_used_when_it_fits_and_named_when_it_does_not() {
    let fixture = Fixture::new();
    let orders = orders();
    fixture.query("CREATE DATABASE {db}");
    let own = "`_version` UInt128, `_deleted` UInt8, `_commit_time` DateTime64(6)";
    for (columns, engine, part) in [
        (
            "id Int32, state String",
            "ReplacingMergeTree(_version, _deleted) ORDER BY id",
            "column id has type Int32",
        ),
        (
            "id Int64, state UInt8",
            "ReplacingMergeTree(_version, _deleted) ORDER BY id",
            "needs Nullable(String)",
        ),
        ("id Int64", "MergeTree ORDER BY id", "engine MergeTree"),
        (
            "id Int64, state String",
            "ReplacingMergeTree(_version, _deleted) ORDER BY (id, state)",
            "sorted by (`id`, `state`)",
        ),
    ] {
        fixture.query(&format!("CREATE OR REPLACE TABLE {{db}}.orders ({columns}, {own}) ENGINE = {engine}"));
        let error = fixture.try_lane(&[&orders]).await.err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Halt, "{error}");
        assert!(error.to_string().contains(part) && error.to_string().contains("drop"), "{error}");
        let items = fixture.sink().check(std::slice::from_ref(&orders)).await;
        assert!(
            items.iter().any(|item| item.result.as_ref().is_err_and(|text| text.contains(part))),
            "{items:?}"
        );
    }
    fixture.query("CREATE OR REPLACE TABLE {db}.orders (id Int64) ENGINE = MergeTree ORDER BY id");
    assert!(fixture.try_lane(&[&orders]).await.is_err());

    let fitting = "id Int64, state LowCardinality(String), extra String DEFAULT 'mine'";
    fixture.query(&format!(
        "CREATE OR REPLACE TABLE {{db}}.orders ({fitting}, {own}) ENGINE = ReplacingMergeTree(_version, _deleted) ORDER BY id"
    ));
    let mut lane = fixture.lane(&[&orders]).await;
    write(&mut lane, batch(&[insert(&orders, (10, 0), &[T("1"), T("s"), T("n")])])).await;
    assert_eq!(fixture.query("SELECT id, state, note, extra FROM {db}.orders FINAL"), "1\ts\tn\tmine");
}

#[tokio::test(flavor = "multi_thread")]
async fn wider_columns_of_an_existing_table_are_written_to_as_they_are() {
    let fixture = Fixture::new();
    fixture.query("CREATE DATABASE {db}");
    fixture.query(
        "CREATE TABLE {db}.wide (id Int64, n String, r Nullable(Float64), j JSON, at DateTime64(6, 'Asia/Tokyo'), \
         _version UInt128, _deleted UInt8, _commit_time DateTime64(6)) \
         ENGINE = ReplacingMergeTree(_version, _deleted) ORDER BY id",
    );
    let not_null = |column: Column| Column { not_null: true, ..column };
    let wide = Arc::new(table(
        "wide",
        vec![
            key("id", oid::INT4),
            not_null(column("n", oid::NUMERIC)),
            column("r", oid::FLOAT4),
            not_null(column("j", oid::JSONB)),
            not_null(column("at", oid::TIMESTAMP)),
        ],
    ));
    let mut lane = fixture.lane(&[&wide]).await;
    let row = [T("1"), T("1.50"), T("0.1"), T("{\"a\": {\"b\": [1, 2]}}"), T("2024-01-01 00:00:00")];
    write(&mut lane, batch(&[insert(&wide, (10, 0), &row)])).await;
    write(
        &mut lane,
        batch(&[update(&wide, (11, 0), &[T("1"), T("2.50"), T("0.1"), Cell::U, T("2024-01-01 00:00:00")])]),
    )
    .await;
    assert_eq!(
        fixture.query("SELECT id, n, r, j.a.b, toTimeZone(at, 'UTC') FROM {db}.wide FINAL"),
        "1\t2.50\t0.1\t[1,2]\t2024-01-01 00:00:00.000000"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_column_with_one_of_our_names_is_refused_with_its_name() {
    let fixture = Fixture::new();
    let t = Arc::new(table("t", vec![key("id", oid::INT4), column("_version", oid::TEXT)]));
    let error = fixture.try_lane(&[&t]).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Halt);
    assert!(error.to_string().contains("_version") && error.to_string().contains("column list"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_of_sixteen_hundred_columns_is_written() {
    let fixture = Fixture::new();
    let name = |n: usize| format!("column_with_quite_a_long_name_so_that_the_list_is_long_{n:04}");
    let mut columns = vec![key("id", oid::INT4)];
    columns.extend((1..1600).map(|n| column(&name(n), oid::INT4)));
    let wide = Arc::new(table("wide", columns));
    let mut lane = fixture.lane(&[&wide]).await;
    let row = vec![T("7"); 1600];
    write(&mut lane, batch(&[insert(&wide, (10, 0), &row)])).await;
    assert_eq!(fixture.query(&format!("SELECT {}, {} FROM {{db}}.wide FINAL", name(1), name(1599))), "7\t7");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_with_the_name_of_anothers_view_takes_its_place_and_both_are_written() {
    let fixture = Fixture::new();
    let named = |oid, name: &str| {
        let columns = vec![key("id", oid::INT8), column("v", oid::TEXT)];
        Arc::new(Relation { oid, ..table(name, columns) })
    };
    let (first, second) = (named(501, "t"), named(502, "t_current"));
    // The one alone, then both, and again in another run.
    for (tables, at) in [(vec![&first], 10), (vec![&first, &second], 20), (vec![&first, &second], 30)] {
        let mut lane = fixture.lane(&tables).await;
        let id = at.to_string();
        let events: Vec<_> =
            (0..).zip(&tables).map(|(n, table)| insert(table, (at, n), &[T(&id), T("v")])).collect();
        write(&mut lane, batch(&events)).await;
    }
    assert_eq!(fixture.query("SELECT count() FROM {db}.t FINAL"), "3");
    assert_eq!(fixture.query("SELECT count() FROM {db}.t_current FINAL"), "2");
    assert_eq!(
        fixture
            .query("SELECT engine FROM system.tables WHERE database = '{db}' AND name = 't_current_current'"),
        "View"
    );
}
