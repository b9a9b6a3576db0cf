//! Every type, every edge of it, through the copy and through the stream, into each sink and back.
//!
//! ```text
//!                 ┌─ binary off, all types      ──▶ ClickHouse, Postgres 17, archive ─┐
//!   one source ───┤                                                                   ├─ equal to the source
//!                 └─ binary on, those understood ─▶ the same, beside it              ─┘
//! ```
//! Rows 1… are copied, rows 1001… inserted while the stream runs, rows 2001… copied and updated, rows 3001… inserted
//! and updated in one transaction, row 4001 copied and deleted.

use replicator_harness::{Config, PgVersion, Postgres, Replicator, archive_events, assert_each_event_once};
use replicator_integration::types::{
    Arrays, Case, ClickHouseValues, Json, before_the_run, cases, columns, create_tables, create_types,
    during_the_run, expected_in_clickhouse, json_text, kinds,
};
use replicator_integration::{World, wait_for_copy, wait_for_stream};
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio_postgres::Client;

const SOON: Duration = Duration::from_secs(120);

/// Postgres' own spelling does not depend on the session's settings.
const PLAIN: &str = "SET timezone = 'UTC'; SET datestyle = 'ISO'; SET intervalstyle = 'postgres';
    SET extra_float_digits = 1; SET bytea_output = 'hex'; SET lc_monetary = 'C'";

/// One of the replicators that read the source.
struct Run {
    /// Slot, publication, and the target's database.
    name: &'static str,
    binary: bool,
    cases: Vec<Case>,
}

impl Run {
    fn config(&self, world: &World) -> Config {
        Config::new(&world.source.url("shop"))
            .set("source.slot", self.name)
            .set("source.publication", self.name)
            .set("source.binary", if self.binary { "on" } else { "off" })
            .clickhouse("analytics", &world.clickhouse)
            .set_sink("analytics", "database", self.clickhouse_database(world))
            .set_sink("analytics", "batch.interval_ms", 200)
            // For speed: what they are about is tested elsewhere.
            .set_sink("analytics", "fsync", false)
            .set_sink("analytics", "views", false)
            .postgres("copy", &world.target, self.name)
            .set_sink("copy", "batch.interval_ms", 200)
            .s3("archive", &world.s3, "bucket", self.name)
            .set_sink("archive", "batch.interval_ms", 200)
    }

    fn clickhouse_database(&self, world: &World) -> String {
        format!("{}_{}", world.clickhouse.database(), self.name)
    }
}

fn has_extension(server: &Postgres, name: &str) -> bool {
    server.sql("postgres", &format!("SELECT count(*) FROM pg_available_extensions WHERE name = '{name}'"))
        == "1"
}

/// Texts by key: of the scalar, and of the arrays; the last is a JSON list of the elements of `n`.
async fn source_rows(client: &Client, case: &Case) -> BTreeMap<String, Vec<Option<String>>> {
    let text = |column: &str| format!("CASE WHEN {column} IS DISTINCT FROM NULL THEN concat({column}) END");
    let mut wanted: Vec<String> = columns(case).iter().map(|column| text(column)).collect();
    if case.arrays == Arrays::Typed {
        let elements = "SELECT json_agg(CASE WHEN e IS NOT NULL THEN concat(e) END) FROM unnest(n) AS e";
        wanted.push(format!("coalesce(({elements})::text, '[]')"));
    }
    rows_of(client, &format!("SELECT {} FROM t_{}", wanted.join(", "), case.name)).await
}

async fn rows_of(client: &Client, sql: &str) -> BTreeMap<String, Vec<Option<String>>> {
    let rows = client.query(sql, &[]).await.unwrap_or_else(|error| panic!("{error} in: {sql}"));
    rows.iter()
        .map(|row| (0..row.len()).map(|column| row.get(column)).collect::<Vec<Option<String>>>())
        .map(|row| (row[0].clone().expect("a key"), row))
        .collect()
}

/// A table as binary COPY, in the order of its key.
async fn binary_copy(client: &Client, case: &Case) -> Vec<u8> {
    use futures_util::TryStreamExt;
    let sql = format!("COPY (SELECT * FROM t_{} ORDER BY id) TO STDOUT (FORMAT binary)", case.name);
    let chunks = client.copy_out(&sql).await.unwrap_or_else(|error| panic!("{error} in: {sql}"));
    let bytes = chunks.try_fold(Vec::new(), async |mut bytes, chunk| {
        bytes.extend_from_slice(&chunk);
        Ok(bytes)
    });
    bytes.await.unwrap_or_else(|error| panic!("{error} in: {sql}"))
}

/// What differs, one line a value.
struct Differences(Vec<String>);

impl Differences {
    fn compare(
        &mut self,
        what: &str,
        columns: &[&str],
        expected: &BTreeMap<String, Vec<Option<String>>>,
        found: &BTreeMap<String, Vec<Option<String>>>,
    ) {
        let short = |value: &Option<String>| match value {
            Some(text) => format!("{:?}", text.chars().take(200).collect::<String>()),
            None => "NULL".to_owned(),
        };
        for key in expected.keys().chain(found.keys().filter(|key| !expected.contains_key(*key))) {
            match (expected.get(key), found.get(key)) {
                (Some(expected), Some(found)) => {
                    for (index, column) in columns.iter().enumerate() {
                        let (expected, found) = (&expected[index], &found[index]);
                        if expected != found {
                            self.0.push(format!(
                                "{what}, row {key}, {column}: expected {}, found {}",
                                short(expected),
                                short(found)
                            ));
                        }
                    }
                }
                (Some(_), None) => self.0.push(format!("{what}: row {key} is missing")),
                _ => self.0.push(format!("{what}: row {key} should not be there")),
            }
        }
    }

    fn assert_none(self) {
        assert!(self.0.is_empty(), "{} differences:\n  {}", self.0.len(), self.0.join("\n  "));
    }
}

async fn compare(world: &World, run: &Run, differences: &mut Differences) {
    let source = world.source.client("shop").await;
    let target = world.target.client(run.name).await;
    for client in [&source, &target] {
        client.batch_execute(PLAIN).await.expect("settings");
    }
    let events = archive_events(&world.s3.folder("bucket").join(run.name));
    assert_each_event_once(&events);
    for case in &run.cases {
        let expected = source_rows(&source, case).await;
        assert!(expected.len() as u32 == 4 * kinds(case), "{}: {} rows", case.name, expected.len());
        compare_clickhouse(world, run, case, &expected, differences);
        let what = format!("{} in Postgres", case.name);
        differences.compare(&what, columns(case), &expected, &source_rows(&target, case).await);
        if case.is_portable && binary_copy(&source, case).await != binary_copy(&target, case).await {
            differences.0.push(format!("{what}: other bytes"));
        }
        compare_archive(case, &events, &expected, differences);
        if case.is_key {
            compare_keys(world, run, case, (&source, &target), differences).await;
        }
    }
}

fn compare_clickhouse(
    world: &World,
    run: &Run,
    case: &Case,
    source: &BTreeMap<String, Vec<Option<String>>>,
    differences: &mut Differences,
) {
    let table = format!("t_{}", case.name);
    let database = run.clickhouse_database(world);
    let found = ClickHouseValues::read(&world.clickhouse, &database, case, &table, columns(case));
    let mut types = vec![("v", case.clickhouse_nullable())];
    if case.arrays != Arrays::None {
        types.extend([("a", "Nullable(String)".to_owned()), ("n", case.clickhouse_array())]);
    }
    for (column, of) in &types {
        if found.types[*column] != *of {
            differences
                .0
                .push(format!("{} in ClickHouse: {column} is {}, not {of}", case.name, found.types[*column]));
        }
    }
    let expected = source.iter().map(|(key, row)| {
        let mut texts = row.clone();
        texts.truncate(columns(case).len());
        texts[1] = row[1].as_deref().and_then(|text| expected_in_clickhouse(case, &found.types["v"], text));
        if let Some(elements) = row.get(4) {
            let elements: Vec<Option<String>> =
                serde_json::from_str(elements.as_deref().expect("a list")).expect("JSON");
            let of = &found.types["n"];
            let elements: Vec<Option<String>> =
                elements.iter().map(|text| expected_in_clickhouse(case, of, text.as_deref()?)).collect();
            texts[3] = Some(serde_json::to_string(&elements).expect("texts are JSON"));
        }
        (key.clone(), texts)
    });
    differences.compare(
        &format!("{} in ClickHouse", case.name),
        columns(case),
        &expected.collect(),
        &found.rows,
    );
}

/// Each event's values replace those of the events before it.
fn compare_archive(
    case: &Case,
    events: &[Value],
    source: &BTreeMap<String, Vec<Option<String>>>,
    differences: &mut Differences,
) {
    let table = format!("t_{}", case.name);
    let mut found: BTreeMap<String, Vec<Option<String>>> = BTreeMap::new();
    let mut of_table: Vec<&Value> = events.iter().filter(|event| event["table"] == *table).collect();
    of_table.sort_by_key(|event| position(event));
    for event in of_table {
        if event["op"] == "truncate" {
            found.clear();
            continue;
        }
        let id = event["key"]["id"].to_string();
        if event["op"] == "delete" {
            found.remove(&id);
            continue;
        }
        let after = event["after"].as_object().expect("a new row");
        let row = found.entry(id).or_insert_with(|| vec![None; columns(case).len()]);
        for (value, name) in row.iter_mut().zip(columns(case)) {
            let json = match *name {
                "id" => Json::Integer,
                "v" => case.json,
                _ => Json::String,
            };
            match after.get(*name) {
                Some(new) => *value = json_text(json, new),
                None => assert!(
                    event["unchanged"]
                        .as_array()
                        .is_some_and(|names| names.iter().any(|other| other == name)),
                    "{event}"
                ),
            }
        }
    }
    let expected = source.iter().map(|(key, row)| {
        let mut row = row.clone();
        row.truncate(columns(case).len());
        if case.json == Json::Float {
            let number = |text: String| match text.parse::<f64>() {
                Ok(number) if number.is_finite() => format!("{number:?}"),
                _ => text,
            };
            row[1] = row[1].take().map(number);
        }
        (key.clone(), row)
    });
    differences.compare(&format!("{} in the archive", case.name), columns(case), &expected.collect(), &found);
}

/// Commit LSN and ordinal: events come in the order of this.
fn position(event: &Value) -> (u64, u64) {
    let lsn = event["lsn"].as_str().and_then(|lsn| lsn.split_once('/')).expect("an LSN");
    let hex = |text| u64::from_str_radix(text, 16).expect("half an LSN");
    (hex(lsn.0) << 32 | hex(lsn.1), event["ordinal"].as_u64().expect("an ordinal"))
}

async fn compare_keys(
    world: &World,
    run: &Run,
    case: &Case,
    clients: (&Client, &Client),
    differences: &mut Differences,
) {
    let sql = format!("SELECT concat(k), concat(n) FROM k_{}", case.name);
    let source = rows_of(clients.0, &sql).await;
    differences.compare(
        &format!("{} as key in Postgres", case.name),
        &["k", "n"],
        &source,
        &rows_of(clients.1, &sql).await,
    );
    let database = run.clickhouse_database(world);
    let found =
        ClickHouseValues::read(&world.clickhouse, &database, case, &format!("k_{}", case.name), &["k", "n"]);
    let of = &found.types["k"];
    let wanted = if of.starts_with("Array") || case.clickhouse.starts_with("Array") {
        "String"
    } else {
        case.clickhouse
    };
    if of != wanted {
        differences.0.push(format!("{} as key in ClickHouse is {of}, not {wanted}", case.name));
    }
    let expected = source.into_values().map(|mut row| {
        row[0] = expected_in_clickhouse(case, of, row[0].as_deref().expect("a key"));
        (row[0].clone().expect("a key has no NULL"), row)
    });
    differences.compare(
        &format!("{} as key in ClickHouse", case.name),
        &["k", "n"],
        &expected.collect(),
        &found.rows,
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn every_value_of_every_type_is_the_same_in_every_sink_on_15() {
    every_type_round_trips(PgVersion::V15).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_value_of_every_type_is_the_same_in_every_sink_on_18() {
    every_type_round_trips(PgVersion::V18).await;
}

async fn every_type_round_trips(version: PgVersion) {
    let world = World::start(version);
    let both = |name: &str| has_extension(&world.source, name) && has_extension(&world.target, name);
    let cases: Vec<Case> = cases()
        .into_iter()
        .filter(|case| case.since <= version.major())
        // The others come with the server, and a stand-in takes the place of this in `type_policies.rs`.
        .filter(|case| case.extension != "postgis" || both("postgis"))
        .collect();
    let is_binary = |case: &&Case| case.is_binary && case.arrays != Arrays::Text;
    let runs = [
        Run { name: "text", binary: false, cases: cases.clone() },
        Run { name: "binary", binary: true, cases: cases.iter().filter(is_binary).copied().collect() },
    ];
    world.source.sql("shop", &create_types(both));
    let sql = |part: fn(&Case) -> String| cases.iter().map(part).collect::<String>();
    world.source.sql("shop", &(sql(create_tables) + &sql(before_the_run)));
    for run in &runs {
        world.target.createdb(run.name);
        world.target.sql(run.name, &create_types(both));
        let tables: Vec<String> = run
            .cases
            .iter()
            .flat_map(|case| {
                [Some(format!("t_{}", case.name)), case.is_key.then(|| format!("k_{}", case.name))]
            })
            .flatten()
            .collect();
        world
            .source
            .sql("shop", &format!("CREATE PUBLICATION \"{}\" FOR TABLE {}", run.name, tables.join(", ")));
    }
    let mut replicators: Vec<Replicator> =
        runs.iter().map(|run| Replicator::spawn(&run.config(&world), &[])).collect();
    for replicator in &mut replicators {
        replicator.wait_until_ready(SOON);
        wait_for_copy(replicator);
    }
    let asked = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'walsender' AND query ~ 'START_REPLICATION.*binary'";
    assert_eq!(world.source.sql("shop", asked), "1", "one stream of the two is binary");
    world.source.sql("shop", &sql(during_the_run));
    for (replicator, run) in replicators.iter_mut().zip(&runs) {
        wait_for_stream(&world, replicator);
        assert_clamped_values_are_counted(&world, replicator, run);
        replicator.sigterm();
        assert!(replicator.wait(SOON).success(), "{}", replicator.stderr());
    }
    let mut differences = Differences(Vec::new());
    for run in &runs {
        compare(&world, run, &mut differences).await;
    }
    differences.assert_none();
}

/// Each value that ClickHouse had no room for, as often as the archive has it.
fn assert_clamped_values_are_counted(world: &World, replicator: &Replicator, run: &Run) {
    let events = archive_events(&world.s3.folder("bucket").join(run.name));
    let metrics = replicator.metrics();
    for case in &run.cases {
        let (name, table) = (format!("t_{}", case.name), format!("public.t_{}", case.name));
        let of_table = events.iter().filter(|event| event["table"] == *name);
        let texts = of_table.filter_map(|event| event["after"]["v"].as_str());
        let expected = texts.filter(|text| case.clamped(text).is_some()).count();
        let labels = [("sink", "analytics"), ("table", table.as_str()), ("column", "v")];
        let counted = metrics.sum("replicator_values_clamped_total", &labels).unwrap_or_default();
        assert_eq!(counted, expected as f64, "{table}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_built_in_type_has_a_case() {
    for version in [PgVersion::V15, PgVersion::V18] {
        let server = Postgres::start(version, &Default::default());
        let client = server.client("postgres").await;
        // All that a column can have: no pseudo-types, no rows of the catalog, and arrays with their elements.
        let rows = client
            .query(
                "SELECT oid, typname::text FROM pg_type t WHERE typnamespace = 'pg_catalog'::regnamespace
                 AND typtype IN ('b', 'e', 'r', 'm', 'd') AND NOT EXISTS (SELECT FROM pg_type e WHERE e.typarray = t.oid)",
                &[],
            )
            .await
            .unwrap();
        let cases = cases();
        let known = |oid: u32| cases.iter().any(|case| case.oid == oid);
        let missing: Vec<String> =
            rows.iter().filter(|row| !known(row.get(0))).map(|row| row.get(1)).collect();
        assert!(rows.len() > 70 && missing.is_empty(), "{} types, without a case: {missing:?}", rows.len());
        for case in cases.iter().filter(|case| case.oid != 0 && case.since <= version.major()) {
            let oid =
                client.query_one("SELECT coalesce(to_regtype($1)::oid, 0)", &[&case.type_sql]).await.unwrap();
            let oid: u32 = oid.get(0);
            assert!(oid == case.oid || oid == 0, "{} is {oid}, not {}", case.type_sql, case.oid);
        }
    }
}
