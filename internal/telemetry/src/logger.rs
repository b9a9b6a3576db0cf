use crate::timestamp::rfc3339_micros;
use replicator_config::{LogConfig, LogFormat, LogLevel};
use slog::{Drain, FnValue, Level, LevelFilter, Logger, Record, o};
use slog_async::{Async, AsyncGuard, OverflowStrategy};
use std::io::{self, BufWriter, IsTerminal, Write};
use std::time::SystemTime;

/// Records that may wait for the writer before callers wait for it too: some seconds' worth, under 1 MB.
const QUEUE_RECORDS: usize = 4096;

/// Keeps the writer of log lines alive. When it goes, every line logged before is written; lines logged
/// after are not.
#[must_use = "log lines are written only while the guard lives"]
pub struct LogGuard(#[expect(dead_code, reason = "kept for its drop")] AsyncGuard);

/// A logger to stderr.
///
/// JSON lines have the fields `ts` (UTC, RFC 3339, microseconds), `level` (`debug`, `info`, `warn`, `error`),
/// `msg`, and the record's key-values. `ts` is taken by the writer, moments after the call. A write that fails (stderr closed) is not an error of the process.
pub fn logger(config: &LogConfig) -> (Logger, LogGuard) {
    let stderr = io::stderr();
    let json = match config.format {
        LogFormat::Json => true,
        LogFormat::Text => false,
        LogFormat::Auto => !stderr.is_terminal(),
    };
    if json {
        json_logger(stderr, config.level)
    } else {
        text_logger(slog_term::TermDecorator::new().stderr().build(), config.level)
    }
}

fn json_logger(writer: impl Write + Send + 'static, level: LogLevel) -> (Logger, LogGuard) {
    // The serialiser writes piece by piece; buffered and flushed, a line is one system call.
    let drain = slog_json::Json::new(BufWriter::new(writer))
        .set_newlines(true)
        .set_flush(true)
        .add_key_value(o!(
            "ts" => FnValue(|_: &Record<'_>| rfc3339_micros(SystemTime::now())),
            "level" => FnValue(|record: &Record<'_>| level_name(record.level())),
            "msg" => FnValue(|record: &Record<'_>| record.msg().to_string()),
        ))
        .build();
    detached(std::sync::Mutex::new(drain).ignore_res(), level)
}

fn text_logger(decorator: impl slog_term::Decorator + Send + 'static, level: LogLevel) -> (Logger, LogGuard) {
    let drain = slog_term::FullFormat::new(decorator)
        .use_custom_timestamp(|out: &mut dyn Write| {
            out.write_all(rfc3339_micros(SystemTime::now()).as_bytes())
        })
        .use_original_order()
        .build();
    detached(std::sync::Mutex::new(drain).ignore_res(), level)
}

/// Puts the drain behind a queue and a thread. The level is looked at first, so that a line that nobody
/// wants costs a comparison.
fn detached<D>(drain: D, level: LogLevel) -> (Logger, LogGuard)
where
    D: Drain<Ok = (), Err = slog::Never> + Send + 'static,
{
    let (queue, guard) = Async::new(drain)
        .chan_size(QUEUE_RECORDS)
        .overflow_strategy(OverflowStrategy::Block)
        .thread_name("log".into())
        .build_with_guard();
    let drain = LevelFilter::new(queue, slog_level(level)).ignore_res();
    (Logger::root(drain, o!()), LogGuard(guard))
}

fn slog_level(level: LogLevel) -> Level {
    match level {
        LogLevel::Debug => Level::Debug,
        LogLevel::Info => Level::Info,
        LogLevel::Warn => Level::Warning,
        LogLevel::Error => Level::Error,
    }
}

/// The names that the configuration uses, so that what is read in a line can be asked for in the file.
fn level_name(level: Level) -> &'static str {
    match level {
        Level::Critical | Level::Error => "error",
        Level::Warning => "warn",
        Level::Info => "info",
        Level::Debug | Level::Trace => "debug",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    #[derive(Clone, Default)]
    struct Memory(Arc<Mutex<Vec<u8>>>, Duration);

    impl Write for Memory {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            std::thread::sleep(self.1);
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Memory {
        fn lines(&self) -> Vec<serde_json::Value> {
            let bytes = self.0.lock().unwrap().clone();
            String::from_utf8(bytes)
                .unwrap()
                .lines()
                .map(|line| serde_json::from_str(line).unwrap())
                .collect()
        }
    }

    #[test]
    fn a_line_has_time_level_message_and_its_values() {
        let memory = Memory::default();
        let (log, guard) = json_logger(memory.clone(), LogLevel::Info);
        slog::warn!(log.new(o!("sink" => "analytics")), "two\nlines"; "rows" => 12);
        drop(guard);
        let lines = memory.lines();
        assert_eq!(lines.len(), 1);
        let line = &lines[0];
        assert_eq!(line["level"], "warn");
        assert_eq!(line["msg"], "two\nlines");
        assert_eq!(line["sink"], "analytics");
        assert_eq!(line["rows"], 12);
        let ts = line["ts"].as_str().unwrap();
        assert_eq!(ts.len(), "2026-03-18T09:05:01.000042Z".len());
        assert!(ts.starts_with("20") && ts.ends_with('Z'), "{ts}");
    }

    #[test]
    fn a_line_for_people_has_the_same_in_plain_words() {
        let memory = Memory::default();
        let (log, guard) = text_logger(slog_term::PlainDecorator::new(memory.clone()), LogLevel::Info);
        slog::warn!(log, "sink is away"; "sink" => "analytics", "rows" => 12);
        slog::debug!(log, "not this");
        drop(guard);
        let text = String::from_utf8(memory.0.lock().unwrap().clone()).unwrap();
        assert!(text.ends_with("WARN sink is away, sink: analytics, rows: 12\n"), "{text}");
        assert_eq!(text.lines().count(), 1);
    }

    #[test]
    fn a_slow_writer_loses_no_line_and_the_guard_waits_for_the_last() {
        let memory = Memory(Arc::default(), Duration::from_micros(20));
        let (log, guard) = json_logger(memory.clone(), LogLevel::Info);
        let total = QUEUE_RECORDS * 2;
        for number in 0..total {
            slog::info!(log, "line"; "number" => number);
        }
        drop(guard);
        let numbers: Vec<_> = memory.lines().iter().map(|line| line["number"].as_u64().unwrap()).collect();
        assert_eq!(numbers, (0..total as u64).collect::<Vec<_>>());
    }

    #[test]
    fn lines_below_the_level_are_not_written() {
        let memory = Memory::default();
        let (log, guard) = json_logger(memory.clone(), LogLevel::Warn);
        slog::info!(log, "no");
        slog::error!(log, "yes");
        drop(guard);
        assert_eq!(memory.lines().len(), 1);
        assert_eq!(memory.lines()[0]["msg"], "yes");
    }

    #[test]
    fn a_closed_stderr_is_no_panic() {
        struct Closed;
        impl Write for Closed {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }

            fn flush(&mut self) -> io::Result<()> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
        }
        let (log, guard) = json_logger(Closed, LogLevel::Info);
        for _ in 0..10 {
            slog::info!(log, "into the void");
        }
        drop(guard);
    }
}
