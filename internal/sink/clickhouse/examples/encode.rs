//! How long it takes to turn batches into compressed Native blocks, and to insert them.
//!
//! ```text
//! cargo run --release -p replicator-sink-clickhouse --example encode [--binary] [batches] [rows]
//! ```
//! Rows are those of the benchmark W1: a bigint key, an int, a text of 8, a numeric(12,2), a text of 100 and a
//! timestamptz; as text, or with `--binary` in their types' binary forms. Starts the development engine, or uses `CLICKHOUSE_URL`.

use replicator_config::{
    ArrayColumns, ByteSize, ClickHouseConfig, ClickHouseMode, DeleteMode, OutOfRange, SchemaNaming, Secret,
    TypeChanges,
};
use replicator_harness::{ClickHouse, ClickHouseOptions};
use replicator_sink::{Sink, StreamInfo};
use replicator_types::{
    Batch, BatchBuilder, Budget, Column, ColumnKind, Lsn, NewChange, Op, Relation, ReplicaIdentity,
    SlotIdentity, TransactionMeta, Tuple, TxnId, oid,
};
use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let (flags, numbers): (Vec<_>, Vec<_>) = std::env::args().skip(1).partition(|text| text == "--binary");
    let binary = !flags.is_empty();
    let mut arguments = numbers.iter().map(|text| text.parse::<u64>());
    let batches = arguments.next().transpose()?.unwrap_or(50);
    let rows = arguments.next().transpose()?.unwrap_or(10_000);
    let server = ClickHouse::start(&ClickHouseOptions::default());
    for fsync in [true, false] {
        run(&server, batches, rows, fsync, binary).await?;
    }
    Ok(())
}

async fn run(
    server: &ClickHouse,
    batches: u64,
    rows: u64,
    fsync: bool,
    binary: bool,
) -> Result<(), Box<dyn Error>> {
    let database = format!("{}_{fsync}", server.database());
    let config = ClickHouseConfig {
        url: Secret::new(server.url()),
        database: database.clone(),
        user: server.user().to_owned(),
        password: Secret::new(server.password()),
        password_file: None,
        mode: ClickHouseMode::Mirror,
        deletes: DeleteMode::Hard,
        schema_naming: SchemaNaming::Prefix,
        cluster: String::new(),
        views: true,
        in_flight_max: 2,
        copy_insert_bytes_max: ByteSize(256 << 20),
        request_timeout_ms: 60_000,
        out_of_range: OutOfRange::Clamp,
        arrays: ArrayColumns::Auto,
        fsync,
        type_changes: TypeChanges::Error,
        ca_file: None,
    };
    let logger = slog::Logger::root(slog::Discard, slog::o!());
    let sink = replicator_sink_clickhouse::open("bench".into(), config, 1, logger)?;
    let table = w1();
    let stream = StreamInfo {
        identity: SlotIdentity { system_identifier: 1, slot: "bench".into() },
        database: "bench".into(),
        tables: vec![Arc::clone(&table)],
    };
    sink.prepare(&stream).await?;
    let mut lane = sink.open_lane(0, &stream).await?;
    let (mut encoding, mut inserting) = (Vec::new(), Vec::new());
    let (mut raw_bytes, mut held_bytes) = (0, 0);
    for number in 0..batches {
        let batch = Arc::new(batch(&table, number, rows, binary).ok_or("no rows asked for")?);
        raw_bytes += batch.data_bytes();
        let began = Instant::now();
        let mut write = lane.prepare(batch).await?;
        encoding.push(began.elapsed());
        held_bytes += write.held_bytes();
        let began = Instant::now();
        write.send().await?;
        inserting.push(began.elapsed());
    }
    let total = batches * rows;
    let found = server.query(&format!("SELECT count(), max(id) FROM {database}.w1"));
    assert_eq!(found.trim(), format!("{total}\t{}", total - 1), "every row arrived");
    // The best batch says what it costs on a machine that is busy with other things.
    let per_row = |times: &mut Vec<Duration>| {
        times.sort();
        let of = |time: Option<&Duration>| time.map_or(0, |time| time.as_nanos() as u64 / rows);
        format!("{} ns/row (best batch {})", of(times.get(times.len() / 2)), of(times.first()))
    };
    println!(
        "fsync {fsync}: {total} rows; prepare {}; send {}; {} bytes/row received, {} sent",
        per_row(&mut encoding),
        per_row(&mut inserting),
        raw_bytes as u64 / total,
        held_bytes as u64 / total,
    );
    server.query(&format!("DROP DATABASE {database}"));
    Ok(())
}

fn w1() -> Arc<Relation> {
    let column = |name: &str, type_oid, type_modifier, is_key| Column {
        name: name.into(),
        attnum: 0,
        type_oid,
        base_type_oid: type_oid,
        type_modifier,
        kind: ColumnKind::Scalar,
        type_sql: String::new(),
        not_null: is_key,
        is_key,
        ..Column::default()
    };
    Arc::new(Relation {
        oid: 1,
        version: 0,
        since: replicator_types::Lsn::ZERO,
        schema: "public".into(),
        name: "w1".into(),
        replica_identity: ReplicaIdentity::Default,
        columns: vec![
            column("id", oid::INT8, -1, true),
            column("n", oid::INT4, -1, false),
            column("short", oid::TEXT, -1, false),
            column("price", oid::NUMERIC, (12 << 16 | 2) + 4, false),
            column("long", oid::TEXT, -1, false),
            column("at", oid::TIMESTAMPTZ, -1, false),
        ],
        key: vec![0],
        key_text_is_identity: true,
        is_guess: false,
    })
}

/// 2024-01-01 12:00 in microseconds since 2000-01-01.
const NOON_US: u64 = 757_425_600_000_000;

/// A `numeric` with two places, in binary: base 10000, without zeros around.
fn numeric_of_cents(cents: u64) -> Vec<u8> {
    let mut digits = vec![cents / 100 / 10_000, cents / 100 % 10_000, cents % 100 * 100];
    let mut weight = 1_i16;
    while digits.first() == Some(&0) {
        digits.remove(0);
        weight -= 1;
    }
    while digits.last() == Some(&0) {
        digits.pop();
    }
    let header = [digits.len() as u16, if digits.is_empty() { 0 } else { weight as u16 }, 0, 2];
    header
        .into_iter()
        .chain(digits.into_iter().map(|digit| digit as u16))
        .flat_map(u16::to_be_bytes)
        .collect()
}

fn batch(table: &Arc<Relation>, number: u64, rows: u64, binary: bool) -> Option<Batch> {
    let mut builder = BatchBuilder::new(Budget::new(1 << 30));
    let mut state = number + 1;
    let mut random = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state >> 33
    };
    let mut tuple = Vec::new();
    for row in 0..rows {
        let id = number * rows + row;
        let transaction = TransactionMeta {
            id: TxnId(id / 1000),
            commit_lsn: Lsn(1_000_000 + id / 1000 * 200_000),
            commit_time_us: 757_382_400_000_000 + id as i64 * 10,
            xid: 1,
        };
        // md5-like text, as in the benchmark's SQL.
        let long: String = (0..7).map(|_| format!("{:016x}", random() << 31 | random())).collect();
        let (n, short, cents, micros) =
            (random() % 1_000_000, random() as u32, random() % 100_000_000, random() % 1_000_000);
        let short = format!("{short:08x}");
        let long = long.get(..100)?;
        let values: [Vec<u8>; 6] = if binary {
            [
                id.to_be_bytes().to_vec(),
                (n as u32).to_be_bytes().to_vec(),
                short.into_bytes(),
                numeric_of_cents(cents),
                long.as_bytes().to_vec(),
                (NOON_US + (id / 60 % 60 * 60 + id % 60) * 1_000_000 + micros).to_be_bytes().to_vec(),
            ]
        } else {
            [
                id.to_string().into_bytes(),
                n.to_string().into_bytes(),
                short.into_bytes(),
                format!("{}.{:02}", cents / 100, cents % 100).into_bytes(),
                long.as_bytes().to_vec(),
                format!("2024-01-01 12:{:02}:{:02}.{micros:06}+00", id / 60 % 60, id % 60).into_bytes(),
            ]
        };
        tuple.clear();
        tuple.extend_from_slice(&(values.len() as u16).to_be_bytes());
        for value in &values {
            tuple.push(if binary { b'b' } else { b't' });
            tuple.extend_from_slice(&(value.len() as u32).to_be_bytes());
            tuple.extend_from_slice(value);
        }
        let change = NewChange {
            op: Op::Insert,
            ordinal: id % 1000,
            old: None,
            old_is_full: false,
            new: Some(Tuple::from_checked(&tuple)),
            key_hash: id,
            key_changed: false,
            cascade: false,
            restart_identity: false,
        };
        builder.push(&transaction, table, change);
    }
    builder.cut(false)
}
