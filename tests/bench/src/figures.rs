//! What is measured, and how it is told: a table, and the same as JSON.

use replicator_harness::Finished;
use serde_json::{Value, json};
use std::time::Duration;

/// The table of workload W1.
pub(crate) const W1: &str = "CREATE TABLE w1 (id bigint PRIMARY KEY, n int, code varchar(8), amount numeric(12,2), \
                             note text, at timestamptz)";

/// The statement that fills it, keys `from` to `to`, which are expressions.
pub(crate) fn insert_rows(from: &str, to: &str) -> String {
    format!(
        "INSERT INTO w1 SELECT n, n % 1000, lpad((n % 100000000)::text, 8, '0'), (n % 1000000) / 100.0, \
         repeat(chr(97 + (n % 26)::int), 100), now() FROM generate_series({from}, {to}) n"
    )
}

/// Of one round of one reader.
pub(crate) struct Figures {
    elapsed: Duration,
    cpu: Option<Duration>,
    peak_rss_bytes: Option<u64>,
}

impl Figures {
    pub(crate) fn of(finished: &Finished) -> Self {
        Self {
            elapsed: finished.elapsed,
            cpu: Some(finished.cpu),
            peak_rss_bytes: Some(finished.peak_rss_bytes),
        }
    }

    /// Of a reader that is not ours, whose processor time is not taken.
    pub(crate) fn of_tool(elapsed: Duration) -> Self {
        Self { elapsed, cpu: None, peak_rss_bytes: None }
    }
}

/// All rounds of all readers of one workload.
pub(crate) struct Outcome {
    key: &'static str,
    title: String,
    rows: usize,
    /// What is counted: `changes`, `rows`.
    unit: &'static str,
    readers: Vec<(&'static str, Vec<Figures>)>,
    /// Readers that the others are measured by, with the names of the ratios.
    pub(crate) yardsticks: Vec<(&'static str, &'static str)>,
}

impl Outcome {
    pub(crate) fn new(
        key: &'static str,
        title: String,
        rows: usize,
        unit: &'static str,
        readers: &[&'static str],
    ) -> Self {
        let readers = readers.iter().map(|reader| (*reader, Vec::new())).collect();
        Self { key, title, rows, unit, readers, yardsticks: Vec::new() }
    }

    /// Takes a round's figures, and tells its speed.
    pub(crate) fn add(&mut self, round: usize, reader: &str, figures: Figures) {
        println!("  round {} {reader:<24} {:>9.0} {}/s", round + 1, self.rate(&figures), self.unit);
        if let Some((_, all)) = self.readers.iter_mut().find(|(name, _)| *name == reader) {
            all.push(figures);
            all.sort_by_key(|figures| figures.elapsed);
        }
    }

    fn rate(&self, figures: &Figures) -> f64 {
        self.rows as f64 / figures.elapsed.as_secs_f64()
    }

    /// The round in the middle.
    fn median(&self, reader: &str) -> Option<&Figures> {
        let (_, all) = self.readers.iter().find(|(name, _)| *name == reader)?;
        all.get(all.len() / 2)
    }

    fn ratio(&self, reader: &Figures, yardstick: &str) -> f64 {
        self.median(yardstick).map_or(f64::NAN, |median| self.rate(reader) / self.rate(median))
    }

    pub(crate) fn print_table(&self) {
        let ratios: String = self.yardsticks.iter().map(|(_, name)| format!(" × {name} |")).collect();
        println!("\n{}\n\n| reader | {}/s |{ratios} CPU µs each | peak RSS MB |", self.title, self.unit);
        println!("|---|---|{}---|---|", "---|".repeat(self.yardsticks.len()));
        for (reader, all) in &self.readers {
            let Some(median) = self.median(reader) else { continue };
            let ratios: String = self
                .yardsticks
                .iter()
                .map(|(yardstick, _)| format!(" {:.2} |", self.ratio(median, yardstick)))
                .collect();
            let cpu = self.cpu_us(median).map_or_else(String::new, |us| format!("{us:.2}"));
            let peak = peak_rss(all).map_or_else(String::new, |bytes| format!("{:.0}", bytes as f64 / 1e6));
            println!("| {reader} | {:.0} |{ratios} {cpu} | {peak} |", self.rate(median));
        }
    }

    /// Processor time of the replicator for each row.
    fn cpu_us(&self, figures: &Figures) -> Option<f64> {
        figures.cpu.map(|cpu| cpu.as_secs_f64() * 1e6 / self.rows as f64)
    }

    /// The key under which it is told, and medians by reader.
    pub(crate) fn json(&self) -> (String, Value) {
        let readers = self.readers.iter().filter_map(|(reader, all)| {
            let median = self.median(reader)?;
            let ratios: serde_json::Map<String, Value> = self
                .yardsticks
                .iter()
                .map(|(yardstick, name)| ((*name).to_owned(), json!(self.ratio(median, yardstick))))
                .collect();
            Some(json!({
                "reader": reader,
                "per_second": self.rate(median),
                "ratio_to": ratios,
                "cpu_us_each": self.cpu_us(median),
                "peak_rss_bytes": peak_rss(all),
                "rounds_s": all.iter().map(|figures| figures.elapsed.as_secs_f64()).collect::<Vec<_>>(),
            }))
        });
        let readers: Vec<Value> = readers.collect();
        (self.key.to_owned(), json!({ "rows": self.rows, "readers": readers }))
    }
}

fn peak_rss(all: &[Figures]) -> Option<u64> {
    all.iter().filter_map(|figures| figures.peak_rss_bytes).max()
}
