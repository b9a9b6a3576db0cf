//! What is measured, and how it is told: a table, and the same as JSON.

use replicator_harness::Finished;
use serde_json::{Map, Value, json};
use std::time::Duration;

/// Of one round of one reader. Processor times are those of whole processes or servers, as far as they were taken.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Figures {
    pub(crate) elapsed: Duration,
    pub(crate) replicator_cpu: Option<Duration>,
    /// Of the source's server: mostly its walsender.
    pub(crate) source_cpu: Option<Duration>,
    /// Of the server that takes the changes.
    pub(crate) sink_cpu: Option<Duration>,
    /// Of the replicator.
    pub(crate) peak_rss_bytes: Option<u64>,
}

impl Figures {
    pub(crate) fn of(finished: &Finished) -> Self {
        Self {
            elapsed: finished.elapsed,
            replicator_cpu: Some(finished.cpu),
            peak_rss_bytes: Some(finished.peak_rss_bytes),
            ..Self::default()
        }
    }

    /// Of a reader that is not ours.
    pub(crate) fn of_tool(elapsed: Duration) -> Self {
        Self { elapsed, ..Self::default() }
    }
}

/// What a reader is held to.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Target {
    /// Name of the yardstick, and the least ratio to it.
    pub(crate) least: Option<(&'static str, f64)>,
    /// The most processor time in µs a change, and resident memory in MB.
    pub(crate) most: Option<(f64, u64)>,
}

#[derive(Debug)]
struct Reader {
    name: &'static str,
    target: Target,
    rounds: Vec<Figures>,
}

/// All rounds of all readers of one workload.
#[derive(Debug)]
pub(crate) struct Outcome {
    key: &'static str,
    title: String,
    rows: usize,
    /// What is counted: `changes`, `rows`.
    unit: &'static str,
    readers: Vec<Reader>,
    /// Readers that the others are measured by, with the names of the ratios. Those without rounds are left out.
    pub(crate) yardsticks: Vec<(&'static str, &'static str)>,
}

impl Outcome {
    pub(crate) fn new(
        key: &'static str,
        title: String,
        rows: usize,
        unit: &'static str,
        readers: impl IntoIterator<Item = (&'static str, Target)>,
    ) -> Self {
        let readers = readers.into_iter().map(|(name, target)| Reader { name, target, rounds: Vec::new() });
        Self { key, title, rows, unit, readers: readers.collect(), yardsticks: Vec::new() }
    }

    /// Takes a round's figures, and tells its speed.
    pub(crate) fn add(&mut self, round: usize, reader: &str, figures: Figures) {
        println!("  round {} {reader:<28} {:>9.0} {}/s", round + 1, self.rate(&figures), self.unit);
        if let Some(reader) = self.readers.iter_mut().find(|known| known.name == reader) {
            reader.rounds.push(figures);
            reader.rounds.sort_by_key(|figures| figures.elapsed);
        }
    }

    fn rate(&self, figures: &Figures) -> f64 {
        self.rows as f64 / figures.elapsed.as_secs_f64()
    }

    /// The round in the middle.
    fn median(&self, reader: &str) -> Option<&Figures> {
        self.readers.iter().find(|known| known.name == reader)?.median()
    }

    fn ratio(&self, reader: &Figures, yardstick: &str) -> Option<f64> {
        self.median(yardstick).map(|median| self.rate(reader) / self.rate(median))
    }

    fn ratios(&self) -> impl Iterator<Item = &(&'static str, &'static str)> {
        self.yardsticks.iter().filter(|(yardstick, _)| self.median(yardstick).is_some())
    }

    pub(crate) fn print_table(&self) {
        let ratios: String = self.ratios().map(|(_, name)| format!(" × {name} |")).collect();
        println!(
            "\n{}\n\n| reader | {}/s |{ratios} CPU s: replicator | source | sink | CPU µs each | peak RSS MB | at least |",
            self.title, self.unit
        );
        println!("|---|---|{}---|---|---|---|---|---|", "---|".repeat(self.ratios().count()));
        for reader in &self.readers {
            let Some(median) = reader.median() else { continue };
            let number = |ratio: Option<f64>| ratio.map_or_else(String::new, |ratio| format!("{ratio:.2}"));
            let ratios: String = self
                .ratios()
                .map(|(yardstick, _)| format!(" {} |", number(self.ratio(median, yardstick))))
                .collect();
            let seconds = |time: Option<Duration>| number(time.map(|time| time.as_secs_f64()));
            let peak = reader
                .peak_rss_bytes()
                .map_or_else(String::new, |bytes| format!("{:.0}", bytes as f64 / 1e6));
            println!(
                "| {} | {:.0} |{ratios} {} | {} | {} | {} | {peak} | {} |",
                reader.name,
                self.rate(median),
                seconds(median.replicator_cpu),
                seconds(median.source_cpu),
                seconds(median.sink_cpu),
                number(self.cpu_us(median)),
                self.verdict(reader, median),
            );
        }
    }

    /// What the reader is held to, and whether it holds; nothing where nothing is promised or the yardstick was left out.
    fn verdict(&self, reader: &Reader, median: &Figures) -> String {
        let mut parts = Vec::new();
        let mark = |holds: bool| if holds { "✓" } else { "✗" };
        if let Some((yardstick, least)) = reader.target.least
            && let Some(ratio) = self.ratio(median, yardstick)
        {
            parts.push(format!("{least} × {yardstick} {}", mark(ratio >= least)));
        }
        if let Some((cpu_us, rss_mb)) = reader.target.most {
            let cpu = self.cpu_us(median).is_some_and(|used| used <= cpu_us);
            let rss = reader.peak_rss_bytes().is_some_and(|peak| peak <= rss_mb * 1_000_000);
            parts.push(format!("≤ {cpu_us} µs {}, ≤ {rss_mb} MB {}", mark(cpu), mark(rss)));
        }
        parts.join("; ")
    }

    /// Processor time of the replicator for each row.
    fn cpu_us(&self, figures: &Figures) -> Option<f64> {
        figures.replicator_cpu.map(|cpu| cpu.as_secs_f64() * 1e6 / self.rows as f64)
    }

    /// The key under which it is told, and medians by reader.
    pub(crate) fn json(&self) -> (String, Value) {
        let readers = self.readers.iter().filter_map(|reader| {
            let median = reader.median()?;
            let ratios: Map<String, Value> = self
                .ratios()
                .map(|(yardstick, name)| ((*name).to_owned(), json!(self.ratio(median, yardstick))))
                .collect();
            let seconds = |time: Option<Duration>| time.map(|time| time.as_secs_f64());
            Some(json!({
                "reader": reader.name,
                "per_second": self.rate(median),
                "ratio_to": ratios,
                "cpu_us_each": self.cpu_us(median),
                "cpu_s": {
                    "replicator": seconds(median.replicator_cpu),
                    "source": seconds(median.source_cpu),
                    "sink": seconds(median.sink_cpu),
                },
                "peak_rss_bytes": reader.peak_rss_bytes(),
                "rounds_s": reader.rounds.iter().map(|figures| figures.elapsed.as_secs_f64()).collect::<Vec<_>>(),
            }))
        });
        let readers: Vec<Value> = readers.collect();
        (self.key.to_owned(), json!({ "rows": self.rows, "readers": readers }))
    }
}

impl Reader {
    fn median(&self) -> Option<&Figures> {
        self.rounds.get(self.rounds.len() / 2)
    }

    fn peak_rss_bytes(&self) -> Option<u64> {
        self.rounds.iter().filter_map(|figures| figures.peak_rss_bytes).max()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_round_in_the_middle_and_ratios_are_of_medians() {
        let target = Target { least: Some(("slow", 2.0)), most: None };
        let mut outcome =
            Outcome::new("k", "t".into(), 100, "rows", [("slow", Target::default()), ("fast", target)]);
        outcome.yardsticks = vec![("slow", "slow"), ("absent", "absent")];
        for (round, (slow, fast)) in [(40, 9), (10, 5), (20, 10)].into_iter().enumerate() {
            outcome.add(round, "slow", Figures::of_tool(Duration::from_secs(slow)));
            outcome.add(round, "fast", Figures::of_tool(Duration::from_secs(fast)));
        }
        let fast = outcome.readers.iter().find(|reader| reader.name == "fast").unwrap();
        let median = fast.median().unwrap();
        assert_eq!(median.elapsed, Duration::from_secs(9));
        assert_eq!(outcome.verdict(fast, median), "2 × slow ✓");
        let (key, json) = outcome.json();
        assert_eq!(key, "k");
        assert_eq!(json["readers"][1]["ratio_to"]["slow"], json!(20.0 / 9.0));
        assert_eq!(json["readers"][1]["ratio_to"]["absent"], Value::Null);
    }
}
