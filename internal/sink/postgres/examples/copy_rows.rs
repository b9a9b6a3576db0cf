//! How many rows a second copy lanes write, of rows that came in binary form, in batches of 8 MiB.
//!
//! ```text
//! cargo run --release -p replicator-sink-postgres --example copy_rows -- postgres://postgres@127.0.0.1:5432/scratch 2
//! ```
//! The number is that of lanes. Uses, and empties first, the table `public.copy_speed` of that database, which has the
//! columns of the narrow table W1 in the project's baselines, and its primary key.

mod w1;

use replicator_sink::{Lane, Sink};
use replicator_types::Batch;
use std::sync::Arc;
use std::time::Instant;

const ROWS: u64 = 2_000_000;
const BATCH_BYTES: usize = 8 << 20;

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
    let sink = w1::sink("copy_speed", url)?;
    let relation = Arc::new(w1::relation(2, "copy_speed"));
    let stream = w1::stream("copy_speed".into());
    sink.prepare(&stream).await?;
    let copy = w1::copy_of(&relation);
    sink.begin_copy(&copy).await?;
    let batches = w1::copied(&relation, ROWS, BATCH_BYTES);
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
