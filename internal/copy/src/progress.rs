//! How far a copy has got: for the log and the metrics.

use replicator_telemetry::metrics::CopyMetrics;
use slog::{Logger, info};
use std::time::{Duration, Instant};

/// How often the log says how far it is.
const LOG_INTERVAL: Duration = Duration::from_secs(5);

/// Of one round.
pub(crate) struct Progress {
    metrics: CopyMetrics,
    logger: Logger,
    begun: Instant,
    told: Instant,
    rows: u64,
    bytes: u64,
    blocks_done: u64,
    /// Done before this round began.
    blocks_before: u64,
    blocks: u64,
    tables_left: usize,
}

impl Progress {
    pub(crate) fn new(logger: &Logger, blocks: u64, blocks_before: u64, tables: usize) -> Self {
        let now = Instant::now();
        let progress = Self {
            metrics: CopyMetrics::new(),
            logger: logger.clone(),
            begun: now,
            told: now,
            rows: 0,
            bytes: 0,
            blocks_done: blocks_before,
            blocks_before,
            blocks,
            tables_left: tables,
        };
        progress.publish();
        progress
    }

    pub(crate) fn read(&mut self, table: &str, rows: u64, bytes: u64) {
        self.rows += rows;
        self.bytes += bytes;
        let (of_rows, of_bytes) = self.metrics.of_table(table);
        of_rows.increment(rows);
        of_bytes.increment(bytes);
    }

    pub(crate) fn durable(&mut self, blocks: u64) {
        self.blocks_done += blocks;
    }

    pub(crate) fn table_done(&mut self, table: &str) {
        self.tables_left = self.tables_left.saturating_sub(1);
        info!(self.logger, "table copied"; "table" => table, "tables_left" => self.tables_left);
    }

    pub(crate) fn table_failed(&mut self, table: &str) {
        self.tables_left = self.tables_left.saturating_sub(1);
        self.metrics.failures(table).increment(1);
    }

    fn done_ratio(&self) -> f64 {
        if self.blocks == 0 { 1.0 } else { (self.blocks_done as f64 / self.blocks as f64).min(1.0) }
    }

    /// Seconds until the end, at the speed so far; none while there is no speed.
    fn eta_seconds(&self) -> Option<f64> {
        let done = self.blocks_done.saturating_sub(self.blocks_before);
        let left = self.blocks.saturating_sub(self.blocks_done);
        (done > 0).then(|| self.begun.elapsed().as_secs_f64() * left as f64 / done as f64)
    }

    fn publish(&self) {
        self.metrics.tables_left.set(self.tables_left as f64);
        self.metrics.done_ratio.set(self.done_ratio());
        self.metrics.eta_seconds.set(self.eta_seconds().unwrap_or(f64::NAN));
    }

    /// Brings the metrics up to date and, now and then, the log.
    pub(crate) fn tick(&mut self) {
        self.publish();
        if self.told.elapsed() < LOG_INTERVAL {
            return;
        }
        self.told = Instant::now();
        let eta = self.eta_seconds().map_or_else(|| "unknown".to_owned(), |eta| format!("{eta:.0}"));
        info!(self.logger, "copying"; "percent" => format!("{:.1}", self.done_ratio() * 100.0),
            "rows" => self.rows, "bytes" => self.bytes, "rows_per_second" => self.rows_per_second(),
            "eta_s" => eta, "tables_left" => self.tables_left);
    }

    fn rows_per_second(&self) -> u64 {
        (self.rows as f64 / self.begun.elapsed().as_secs_f64().max(0.001)) as u64
    }

    pub(crate) fn end(&self) {
        self.metrics.tables_left.set(self.tables_left as f64);
        self.metrics.done_ratio.set(1.0);
        self.metrics.eta_seconds.set(0.0);
        info!(self.logger, "copy over"; "rows" => self.rows, "bytes" => self.bytes,
            "seconds" => format!("{:.1}", self.begun.elapsed().as_secs_f64()),
            "rows_per_second" => self.rows_per_second());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use slog::Discard;
    use std::sync::{Arc, Mutex};

    /// Of 100 blocks, 40 of them done before, begun so long ago.
    fn progress(seconds: u64) -> Progress {
        let mut progress = Progress::new(&Logger::root(Discard, slog::o!()), 100, 40, 2);
        progress.begun =
            Instant::now().checked_sub(Duration::from_secs(seconds)).expect("a machine up as long");
        progress
    }

    #[test]
    fn the_end_is_as_far_off_as_the_speed_of_this_round_says() {
        let mut progress = progress(10);
        assert_eq!((progress.done_ratio(), progress.eta_seconds()), (0.4, None), "no speed yet");
        progress.durable(20);
        assert!((progress.done_ratio() - 0.6).abs() < 1e-9);
        // 20 blocks took 10 seconds, and 40 are left.
        let eta = progress.eta_seconds().expect("a speed");
        assert!((19.0..25.0).contains(&eta), "{eta}");
        progress.read("public.t", 5000, 1 << 20);
        assert!((400..=500).contains(&progress.rows_per_second()), "{}", progress.rows_per_second());
        progress.durable(40);
        assert_eq!((progress.done_ratio(), progress.eta_seconds()), (1.0, Some(0.0)));
    }

    /// Lines with the names and values of what they tell.
    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<String>>>);

    struct Line(String);

    impl slog::Serializer for Line {
        fn emit_arguments(&mut self, key: slog::Key, value: &std::fmt::Arguments<'_>) -> slog::Result {
            self.0.push_str(&format!(" {key}={value}"));
            Ok(())
        }
    }

    impl slog::Drain for Lines {
        type Ok = ();
        type Err = slog::Never;

        fn log(&self, record: &slog::Record<'_>, _: &slog::OwnedKVList) -> Result<(), slog::Never> {
            let mut line = Line(record.msg().to_string());
            let _ = slog::KV::serialize(&record.kv(), record, &mut line);
            self.0.lock().unwrap().push(line.0);
            Ok(())
        }
    }

    #[test]
    fn now_and_then_the_log_says_how_far_it_is_how_fast_and_how_long_it_takes() {
        let lines = Lines::default();
        let mut progress = Progress::new(&Logger::root(slog::Fuse(lines.clone()), slog::o!()), 100, 40, 2);
        progress.begun = Instant::now().checked_sub(Duration::from_secs(10)).expect("a machine up as long");
        progress.read("public.t", 5000, 1 << 20);
        progress.durable(20);
        progress.tick();
        assert!(lines.0.lock().unwrap().is_empty(), "not at every tick");
        progress.told = Instant::now().checked_sub(LOG_INTERVAL).expect("a machine up as long");
        progress.tick();
        let said = lines.0.lock().unwrap().join("\n");
        for part in [
            "copying",
            "percent=60.0",
            "rows=5000",
            "bytes=1048576",
            "rows_per_second=",
            "eta_s=",
            "tables_left=2",
        ] {
            assert!(said.contains(part), "{said}");
        }
        assert!(!said.contains("eta_s=unknown") && !said.contains("rows_per_second=0"), "{said}");
    }

    #[test]
    fn metrics_say_how_far_it_is_and_how_long_it_takes_and_that_it_is_over() {
        let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
        let handle = recorder.handle();
        let value = |name: &str| -> f64 {
            let text = handle.render();
            let sample = text.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().last());
            sample.unwrap_or_else(|| panic!("no {name} in:\n{text}")).parse().expect("a number")
        };
        metrics::with_local_recorder(&recorder, || {
            let mut progress = progress(10);
            progress.read("public.t", 5000, 1 << 20);
            progress.durable(20);
            progress.tick();
            assert_eq!(value("replicator_copy_rows_total{"), 5000.0);
            assert_eq!(value("replicator_copy_bytes_total{"), f64::from(1 << 20));
            assert!((value("replicator_copy_done_ratio ") - 0.6).abs() < 1e-9);
            assert!((19.0..25.0).contains(&value("replicator_copy_eta_seconds ")));
            assert_eq!(value("replicator_copy_tables_left "), 2.0);
            progress.table_done("public.t");
            progress.table_failed("public.u");
            progress.end();
            assert_eq!(value("replicator_copy_failures_total{"), 1.0);
            for (name, at_the_end) in [("done_ratio ", 1.0), ("eta_seconds ", 0.0), ("tables_left ", 0.0)] {
                assert_eq!(value(&format!("replicator_copy_{name}")), at_the_end);
            }
        });
    }

    #[test]
    fn a_table_that_fails_is_not_waited_for() {
        let mut progress = progress(1);
        progress.table_failed("public.bad");
        progress.table_done("public.good");
        assert_eq!(progress.tables_left, 0);
    }
}
