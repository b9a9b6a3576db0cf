//! How many rows a second copy lanes write, of rows that came in binary form, in batches of 8 MiB.
//!
//! ```text
//! cargo run --release -p replicator-sink-postgres --example copy -- postgres://postgres@127.0.0.1:5432/scratch 2
//! ```
//! The number is that of lanes. Uses, and empties first, the table `public.copy_speed` of that database, which has the
//! columns of the narrow table W1 in the project's baselines, and its primary key.

use replicator_config::{PostgresSinkConfig, Secret, TypeChanges};
use replicator_sink::{Lane, Sink, StreamInfo, TableCopy};
use replicator_types::{
    Batch, BatchBuilder, Budget, Column, Lsn, NewChange, Op, Phase, Position, Relation, ReplicaIdentity,
    SlotIdentity, TransactionMeta, Tuple, TxnId, oid,
};
use std::sync::Arc;
use std::time::Instant;

const ROWS: u64 = 2_000_000;
const BATCH_BYTES: usize = 8 << 20;
const SNAPSHOT: Lsn = Lsn(1 << 20);

fn relation() -> Relation {
    let column = |attnum, name: &str, type_oid, type_sql: &str| Column {
        name: name.into(),
        attnum,
        type_oid,
        base_type_oid: type_oid,
        type_sql: type_sql.into(),
        not_null: name == "id",
        is_key: name == "id",
        ..Column::default()
    };
    Relation {
        oid: 2,
        version: 0,
        since: SNAPSHOT,
        schema: "public".into(),
        name: "copy_speed".into(),
        replica_identity: ReplicaIdentity::Default,
        columns: vec![
            column(1, "id", oid::INT8, "bigint"),
            column(2, "a", oid::INT4, "integer"),
            column(3, "b", oid::TEXT, "text"),
            column(4, "c", oid::NUMERIC, "numeric(12,2)"),
            column(5, "d", oid::TEXT, "text"),
            column(6, "e", oid::TIMESTAMPTZ, "timestamp with time zone"),
        ],
        key: vec![0],
        key_text_is_identity: true,
    }
}

fn tuple(id: u64, bytes: &mut Vec<u8>) {
    bytes.clear();
    bytes.extend_from_slice(&6_u16.to_be_bytes());
    let mut value = |kind: u8, value: &[u8]| {
        bytes.push(kind);
        bytes.extend_from_slice(&(value.len() as u32).to_be_bytes());
        bytes.extend_from_slice(value);
    };
    value(b'b', &id.to_be_bytes());
    value(b'b', &(id as u32 % 1_000).to_be_bytes());
    value(b't', b"abcdefgh");
    // Three digits of base 10000, the first of weight 1, two decimals: nnnn nnnn . 2500.
    let digits = [3_u16, 1, 0, 2, (id / 10_000 % 10_000) as u16 + 1, (id % 10_000) as u16, 2_500];
    let numeric: Vec<u8> = digits.iter().flat_map(|digit| digit.to_be_bytes()).collect();
    value(b'b', &numeric);
    value(b't', &[b'x'; 100]);
    value(b'b', &(848_000_000_000_000 + id).to_be_bytes());
}

fn batches(relation: &Arc<Relation>) -> Vec<Arc<Batch>> {
    let mut builder = BatchBuilder::of_phase(Budget::new(usize::MAX), Phase::Copy { fresh: true });
    let mut batches = Vec::new();
    let mut bytes = Vec::new();
    let commit_lsn = Position::copied(SNAPSHOT, 0).commit_lsn;
    let transaction = TransactionMeta { id: TxnId(1), commit_lsn, commit_time_us: 0, xid: 0 };
    for ordinal in 0..ROWS {
        tuple(ordinal, &mut bytes);
        let change = NewChange {
            op: Op::Insert,
            ordinal,
            old: None,
            old_is_full: false,
            new: Some(Tuple::from_checked(&bytes)),
            key_hash: 0,
            key_changed: false,
            cascade: false,
            restart_identity: false,
        };
        builder.push(&transaction, relation, change);
        if builder.data_bytes() > BATCH_BYTES {
            batches.extend(builder.cut(false).map(Arc::new));
        }
    }
    batches.extend(builder.cut(false).map(Arc::new));
    batches
}

/// Sends its share as a worker does: the next batch is prepared while one is on its way.
async fn work(mut lane: Box<dyn Lane>, batches: Vec<Arc<Batch>>) -> Result<(), replicator_sink::SinkError> {
    let mut sending: Option<tokio::task::JoinHandle<_>> = None;
    for batch in batches {
        let mut write = lane.prepare(batch).await?;
        if let Some(sending) = sending.take() {
            sending.await.map_err(|error| replicator_sink::SinkError::halt(error.to_string()))??;
        }
        sending = Some(tokio::spawn(async move { write.send().await }));
    }
    match sending {
        Some(sending) => {
            sending.await.map_err(|error| replicator_sink::SinkError::halt(error.to_string()))?
        }
        None => Ok(()),
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let usage = "usage: copy postgres://user@host:port/database [lanes]";
    let url = std::env::args().nth(1).ok_or(usage)?;
    let lanes: usize = std::env::args().nth(2).unwrap_or_else(|| "2".into()).parse()?;
    let config = PostgresSinkConfig {
        url: Secret::new(url),
        password: Secret::default(),
        password_file: None,
        create_tables: true,
        type_changes: TypeChanges::Error,
        connect_timeout_ms: 5_000,
    };
    let logger = slog::Logger::root(slog::Discard, slog::o!());
    let sink = replicator_sink_postgres::open("copy_speed".into(), config, 1, logger)?;
    let relation = Arc::new(relation());
    let identity = SlotIdentity { system_identifier: 1, slot: "copy_speed".into() };
    let stream = StreamInfo { identity, slot_is_new: false, database: "shop".into(), tables: Vec::new() };
    sink.prepare(&stream).await?;
    let copy = TableCopy {
        relation: Arc::clone(&relation),
        snapshot: SNAPSHOT,
        empty_first: true,
        is_resumed: false,
    };
    sink.begin_copy(&copy).await?;
    let batches = batches(&relation);
    let start = Instant::now();
    let mut workers = Vec::new();
    for number in 0..lanes {
        let lane = sink.open_copy_lane(number as u32, &stream).await?;
        let share = batches.iter().skip(number).step_by(lanes.max(1)).cloned().collect();
        workers.push(tokio::spawn(work(lane, share)));
    }
    for worker in workers {
        worker.await??;
    }
    let seconds = start.elapsed().as_secs_f64();
    println!("{ROWS} rows in {seconds:.2} s: {:.0} rows/s over {lanes} lanes", ROWS as f64 / seconds);
    let start = Instant::now();
    sink.end_copy(&copy).await?;
    println!("end of the copy: {:.2} s", start.elapsed().as_secs_f64());
    Ok(())
}
