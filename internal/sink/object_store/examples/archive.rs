//! What a file costs to make: events a second and bytes an event, by compression level, on one core.
//!
//! `cargo run --release -p replicator-sink-object-store --example archive [rows a batch] [batches]`
//!
//! The rows are like `W1` of the benches: a bigint key, an integer, 8 letters, a numeric(12,2), 100 characters of
//! words, a timestamptz; 1000 a transaction. Time is CPU time of the process, so that other load on the machine
//! counts little (it is read from `/proc`: Linux only). Level 0 stores without compressing: what is left is the JSON, a
//! copy and a checksum.

#[path = "../tests/support/batches.rs"]
#[allow(dead_code, unreachable_pub, missing_docs)]
mod batches;

use batches::{NINE_O_CLOCK, column, insert, stream_info, table, texts, transaction};
use object_store::memory::InMemory;
use replicator_sink::{Sink, SinkError};
use replicator_sink_object_store::ObjectStoreSink;
use replicator_types::{Batch, oid};
use std::sync::Arc;

const WORDS: &[&str] = &[
    "blue",
    "large",
    "cotton",
    "summer",
    "order",
    "delivered",
    "express",
    "gift",
    "returned",
    "customer",
    "paid",
    "invoice",
    "pending",
    "warehouse",
    "north",
    "discount",
    "percent",
    "limited",
    "edition",
    "leather",
];

/// A small generator of numbers that need not be good, only the same each time.
struct Lottery(u64);

impl Lottery {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }

    fn letters(&mut self, count: usize) -> String {
        (0..count).map(|_| char::from(b'a' + self.below(26) as u8)).collect()
    }

    fn words(&mut self, characters: usize) -> String {
        let mut text = String::new();
        while text.len() < characters {
            text.push_str(WORDS[self.below(WORDS.len() as u64) as usize]);
            text.push(' ');
        }
        text.truncate(characters);
        text
    }
}

fn batches(rows: usize, count: usize) -> Vec<Arc<Batch>> {
    let relation = table(
        "w1",
        vec![
            column("id", oid::INT8, "bigint", true),
            column("quantity", oid::INT4, "integer", false),
            column("code", oid::TEXT, "text", false),
            column("price", oid::NUMERIC, "numeric(12,2)", false),
            column("note", oid::TEXT, "text", false),
            column("at", oid::TIMESTAMPTZ, "timestamp with time zone", false),
        ],
    );
    let mut lottery = Lottery(7);
    let row = |n: usize, lottery: &mut Lottery| {
        let of =
            transaction(0x1_0000_0000 + n as u64 / 1000 * 200_000, NINE_O_CLOCK + n as i64 / 1000 * 5_000);
        let at = format!(
            "2026-03-18 09:{:02}:{:02}.{:06}+00",
            n / 100_000 % 60,
            n / 1000 % 60,
            lottery.below(1_000_000)
        );
        let price = format!("{}.{:02}", lottery.below(1000), lottery.below(100));
        let values =
            [n.to_string(), lottery.below(50).to_string(), lottery.letters(8), price, lottery.words(100), at];
        insert(of, &relation, n as u64 % 1000, texts(&values.each_ref().map(String::as_str)))
    };
    (0..count)
        .map(|index| {
            let events: Vec<_> = (0..rows).map(|n| row(index * rows + n, &mut lottery)).collect();
            batches::batch(&events)
        })
        .collect()
}

/// User and system time of the process, in seconds: fields 14 and 15 of `/proc/self/stat`, in ticks of 10 ms.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let ticks = after_name.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<f64>().ok());
    ticks.sum::<f64>() / 100.0
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), SinkError> {
    let mut arguments = std::env::args().skip(1).filter_map(|text| text.parse().ok());
    let rows = arguments.next().unwrap_or(1000);
    let count = arguments.next().unwrap_or(300);
    let batches = batches(rows, count);
    let events = (rows * count) as f64;
    println!("{count} batches of {rows} rows");
    println!("level  events/s  ns/event  bytes/event");
    for level in 0..=9 {
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let sink = ObjectStoreSink::at("measure".into(), Arc::new(InMemory::new()), "", level, 1, logger);
        let mut lane = sink.open_lane(0, &stream_info()).await?;
        let mut bytes = 0;
        let start = cpu_seconds();
        for batch in &batches {
            bytes += lane.prepare(Arc::clone(batch)).await?.held_bytes();
        }
        let seconds = cpu_seconds() - start;
        println!(
            "{level:>5}  {:>8.0}  {:>8.0}  {:>11.1}",
            events / seconds,
            seconds * 1e9 / events,
            bytes as f64 / events
        );
    }
    Ok(())
}
