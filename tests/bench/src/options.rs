//! The command line.

use crate::drain::Reader;
use crate::workload::Workload;
use replicator_harness::Config;
use std::path::PathBuf;

/// A part of the run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Part {
    Drain(Workload),
    Copy,
    Latency,
    Memory,
}

impl Part {
    fn all() -> Vec<Self> {
        Workload::ALL.into_iter().map(Self::Drain).chain([Self::Copy, Self::Latency, Self::Memory]).collect()
    }

    fn word(self) -> &'static str {
        match self {
            Self::Drain(workload) => workload.name(),
            Self::Copy => "copy",
            Self::Latency => "latency",
            Self::Memory => "memory",
        }
    }
}

pub(crate) const USAGE: &str = "\
usage: replicator-bench [--only W1,W2,W3,W4,W5,copy,latency,memory] [--readers recvlogical,blackhole,…] [--rounds N]
         [--rows N] [--copy-rows N] [--latency-s N] [--set path=value] [--json FILE] [--smoke]

  --only       which parts; all unless given
  --readers    which readers drain W1 to W5: recvlogical, recvlogical_unix, subscription, subscription_binary, blackhole,
               blackhole_unix, clickhouse, postgres, archive, lake; all unless given
  --rounds     how often each reader drains each load, 3 unless given; figures are medians
  --rows       changes of each load, instead of those of the baselines
  --copy-rows  rows of the initial copy, 10,000,000 unless given
  --latency-s  seconds of load for each latency figure, 20 unless given
  --set        a setting of the replicator for the drains, as TOML; may be repeated (source.binary='\"on\"',
               sink.shards=4)
  --json       also write the figures to this file
  --smoke      everything, as small as it can be: whether it works, not how fast";

#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Options {
    pub(crate) parts: Vec<Part>,
    pub(crate) readers: Vec<Reader>,
    pub(crate) rounds: usize,
    pub(crate) rows: Option<usize>,
    pub(crate) copy_rows: usize,
    pub(crate) latency_s: u64,
    /// Path and value.
    pub(crate) settings: Vec<(String, toml::Value)>,
    pub(crate) json: Option<PathBuf>,
    pub(crate) is_smoke: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            parts: Part::all(),
            readers: Reader::ALL.to_vec(),
            rounds: 3,
            rows: None,
            copy_rows: 10_000_000,
            latency_s: 20,
            settings: Vec::new(),
            json: None,
            is_smoke: false,
        }
    }
}

impl Options {
    /// Reads the arguments.
    ///
    /// # Errors
    /// What is wrong with them.
    pub(crate) fn parse(arguments: impl IntoIterator<Item = String>) -> Result<Self, String> {
        let mut options = Self::default();
        let mut arguments = arguments.into_iter();
        while let Some(name) = arguments.next() {
            let mut value = || arguments.next().ok_or_else(|| format!("{name} takes a value"));
            match name.as_str() {
                "--only" => options.parts = words(&value()?, &Part::all(), Part::word)?,
                "--readers" => options.readers = words(&value()?, &Reader::ALL, Reader::word)?,
                "--rounds" => options.rounds = number(&name, &value()?)?,
                "--rows" => options.rows = Some(number(&name, &value()?)?),
                "--copy-rows" => options.copy_rows = number(&name, &value()?)?,
                "--latency-s" => options.latency_s = number(&name, &value()?)? as u64,
                "--set" => options.settings.push(setting(&value()?)?),
                "--json" => options.json = Some(value()?.into()),
                "--smoke" => {
                    options = Self {
                        rounds: 1,
                        rows: Some(1000),
                        copy_rows: 1000,
                        latency_s: 1,
                        is_smoke: true,
                        ..options
                    };
                }
                other => return Err(format!("what is {other}?")),
            }
        }
        Ok(options)
    }
}

fn words<T: Copy>(list: &str, all: &[T], word: impl Fn(T) -> &'static str) -> Result<Vec<T>, String> {
    let find = |wanted: &str| {
        let found = all.iter().copied().find(|one| word(*one).eq_ignore_ascii_case(wanted));
        found.ok_or_else(|| {
            let known: Vec<_> = all.iter().map(|one| word(*one)).collect();
            format!("what is {wanted}? There are {}", known.join(", "))
        })
    };
    list.split(',').map(|wanted| find(wanted.trim())).collect()
}

fn number(name: &str, value: &str) -> Result<usize, String> {
    let number: Option<usize> = value.replace('_', "").parse().ok().filter(|number| *number > 0);
    number.ok_or_else(|| format!("{name} takes a number above 0, not {value}"))
}

fn setting(text: &str) -> Result<(String, toml::Value), String> {
    let (path, value) = text.split_once('=').ok_or_else(|| format!("--set takes path=value, not {text}"))?;
    let mut table: toml::Table =
        format!("value = {value}").parse().map_err(|error| format!("{text}: {error}"))?;
    let value = table.remove("value").ok_or_else(|| format!("--set takes path=value, not {text}"))?;
    Ok((path.to_owned(), value))
}

/// The configuration of a replicator with the sink `sink`, with these settings: `sink.` are that one's.
pub(crate) fn with_settings(mut config: Config, settings: &[(String, toml::Value)]) -> Config {
    for (path, value) in settings {
        config = match path.strip_prefix("sink.") {
            Some(path) => config.set_sink("sink", path, value.clone()),
            None => config.set(path, value.clone()),
        };
    }
    config
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Options, String> {
        Options::parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn parts_and_readers_go_by_their_words() {
        let options =
            parse("--only w3,copy --readers blackhole_unix --rows 2_000 --set sink.shards=4").unwrap();
        assert_eq!(options.parts, [Part::Drain(Workload::W3), Part::Copy]);
        assert_eq!(options.readers, [Reader::BlackholeUnix]);
        assert_eq!(options.rows, Some(2000));
        assert_eq!(options.settings, [("sink.shards".to_owned(), toml::Value::Integer(4))]);
        assert_eq!(parse("").unwrap(), Options::default());
    }

    #[test]
    fn what_is_not_understood_is_told() {
        for wrong in ["--only w9", "--rows", "--rows 0", "--rounds x", "--set a", "--set a=b", "copy"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
