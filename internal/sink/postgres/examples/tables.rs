//! What a small table costs beyond its rows: begin, one batch of ten rows, end, and the notes in between.
//!
//! ```text
//! cargo run --release -p replicator-sink-postgres --example tables -- postgres://postgres@127.0.0.1:5432/scratch 200
//! ```
//! The number is that of tables, `public.small_0` and so on, which are emptied first.

mod w1;

use replicator_sink::Sink;
use std::sync::Arc;
use std::time::{Duration, Instant};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = std::env::args().nth(1).ok_or("usage: tables postgres://user@host:port/database [tables]")?;
    let tables: u32 = std::env::args().nth(2).unwrap_or_else(|| "200".into()).parse()?;
    let sink = w1::sink("tables", url)?;
    let stream = w1::stream("tables".into());
    sink.prepare(&stream).await?;
    let mut lane = sink.open_copy_lane(0, &stream).await?;
    let mut spent = [
        ("begin", Duration::ZERO),
        ("note", Duration::ZERO),
        ("rows", Duration::ZERO),
        ("end", Duration::ZERO),
    ];
    for number in 0..tables {
        let relation = Arc::new(w1::relation(1_000 + number, &format!("small_{number}")));
        let copy = w1::copy_of(&relation);
        let mut start = Instant::now();
        let mut spend = |step: usize| {
            spent[step].1 += start.elapsed();
            start = Instant::now();
        };
        sink.begin_copy(&copy).await?;
        spend(0);
        sink.put_note(&format!("copy/{}", relation.oid), Some("begun")).await?;
        spend(1);
        for batch in w1::copied(&relation, 10, usize::MAX) {
            lane.prepare(batch).await?.send().await?;
        }
        spend(2);
        sink.end_copy(&copy).await?;
        spend(3);
    }
    for (step, time) in spent {
        println!("{step}: {:.1} ms a table", time.as_secs_f64() * 1e3 / f64::from(tables));
    }
    Ok(())
}
