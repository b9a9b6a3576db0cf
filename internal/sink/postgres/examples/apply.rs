//! How many rows a second one lane applies: new rows, updates, deletes, in batches of 10,000.
//!
//! ```text
//! cargo run --release -p replicator-sink-postgres --example apply -- postgres://postgres@127.0.0.1:5432/scratch
//! ```
//! Uses, and leaves empty, the table `public.apply_speed` of that database, which has the columns of the narrow
//! table W1 in the project's baselines.

mod w1;

use replicator_sink::{Sink, StreamInfo};
use replicator_types::{
    Batch, BatchBuilder, Budget, KeyHasher, Lsn, NewChange, Op, Relation, TransactionMeta, TxnId,
};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

const ROWS: u64 = 200_000;
const BATCH_ROWS: u64 = 10_000;
const TRANSACTION_ROWS: u64 = 1_000;

fn tuple(id: u64, round: u64) -> Vec<u8> {
    let values = [
        id.to_string(),
        (id % 1000 + round).to_string(),
        "abcdefgh".into(),
        format!("{id}.25"),
        "x".repeat(100),
        "2026-11-21 03:04:05.678901+00".into(),
    ];
    let mut bytes = (values.len() as u16).to_be_bytes().to_vec();
    for value in values {
        bytes.push(b't');
        bytes.extend_from_slice(&(value.len() as u32).to_be_bytes());
        bytes.extend_from_slice(value.as_bytes());
    }
    bytes
}

fn key(id: u64) -> Vec<u8> {
    let id = id.to_string();
    let mut bytes = 6_u16.to_be_bytes().to_vec();
    bytes.push(b't');
    bytes.extend_from_slice(&(id.len() as u32).to_be_bytes());
    bytes.extend_from_slice(id.as_bytes());
    bytes.extend_from_slice(b"nnnnn");
    bytes
}

fn batches(relation: &Arc<Relation>, op: Op, lsn: &mut u64) -> Vec<Arc<Batch>> {
    let mut builder = BatchBuilder::new(Budget::new(usize::MAX));
    let mut batches = Vec::new();
    for number in 0..ROWS {
        let ordinal = number % TRANSACTION_ROWS;
        if ordinal == 0 {
            *lsn += 100;
        }
        let transaction =
            TransactionMeta { id: TxnId(*lsn), commit_lsn: Lsn(*lsn), commit_time_us: 0, xid: 1 };
        // Updates and deletes wander over the table.
        let id = if op == Op::Insert { number } else { number * 7919 % ROWS };
        let mut hasher = KeyHasher::new(1);
        hasher.value(id.to_string().as_bytes());
        let (old, new) = (key(id), tuple(id, u64::from(op == Op::Update)));
        let old = (op == Op::Delete).then_some(&old[..]);
        let new = (op != Op::Delete).then_some(&new[..]);
        let change = NewChange { key_hash: hasher.finish(), ..w1::change(op, ordinal, old, new) };
        builder.push(&transaction, relation, change);
        if number % BATCH_ROWS == BATCH_ROWS - 1 {
            batches.extend(builder.cut(false).map(Arc::new));
        }
    }
    batches
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = std::env::args().nth(1).ok_or("usage: apply postgres://user@host:port/database")?;
    let relation = Arc::new(w1::relation(1, "apply_speed"));
    let sink = w1::sink("apply_speed", url)?;
    let micros = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_micros();
    let stream =
        StreamInfo { tables: vec![Arc::clone(&relation)], ..w1::stream(format!("apply_speed_{micros}")) };
    sink.prepare(&stream).await?;
    let mut lane = sink.open_lane(0, &stream).await?;
    let mut lsn = 1000;
    for op in [Op::Insert, Op::Update, Op::Update, Op::Delete] {
        let batches = batches(&relation, op, &mut lsn);
        let (mut preparing, mut sending) = (Duration::ZERO, Duration::ZERO);
        for batch in batches {
            let start = Instant::now();
            let mut write = lane.prepare(batch).await?;
            let prepared = Instant::now();
            write.send().await?;
            preparing += prepared - start;
            sending += prepared.elapsed();
        }
        let seconds = (preparing + sending).as_secs_f64();
        println!(
            "{op:?}: {:.0} rows/s ({:.0} ms: preparing {:.0} ms, sending {:.0} ms)",
            ROWS as f64 / seconds,
            seconds * 1000.0,
            preparing.as_secs_f64() * 1000.0,
            sending.as_secs_f64() * 1000.0
        );
    }
    Ok(())
}
