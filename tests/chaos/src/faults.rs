//! What goes wrong.

use rand::Rng;
use rand::rngs::StdRng;
use replicator_harness::{Config, Direction, Proxy};
use replicator_integration::{Supervisor, World};
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// A connection that goes through a proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Line {
    Source,
    ClickHouse,
    Target,
    S3,
}

const LINES: [Line; 4] = [Line::Source, Line::ClickHouse, Line::Target, Line::S3];

/// A fault, and for how long it lasts.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fault {
    /// `kill -9` of the replicator.
    Kill,
    /// SIGSTOP, and SIGCONT after so many milliseconds.
    Stop(u64),
    /// `kill -9` while the source does not see the connection end: the slot stays taken for a while.
    KillBehindStall(u64),
    /// The walsender is terminated.
    TerminateWalsender,
    /// The source is shut down at once, without a checkpoint.
    CrashSource,
    /// The server of a sink is killed, and away for so many milliseconds.
    CrashSink(Line, u64),
    /// All connections of the line are reset.
    Cut(Line),
    /// The line is cut after so many more bytes.
    CutAfter(Line, u32, Direction),
    /// Nothing gets through, and nothing ends.
    Stall(Line, u64),
    /// New connections are refused, and those there are end.
    Refuse(Line, u64),
    /// Every piece on the line is late by so much, for so many milliseconds.
    Delay(Line, u64, u64),
    /// The target's disk is full for so many milliseconds.
    FullDisk(u64),
    /// In the place of an answer of the line comes half of an HTTP 500, and what was asked for is done.
    BadAnswer(Line),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

impl Fault {
    /// Its name, for counts.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Kill => "kill -9",
            Self::Stop(_) => "stop and continue",
            Self::KillBehindStall(_) => "kill -9, slot still taken",
            Self::TerminateWalsender => "walsender terminated",
            Self::CrashSource => "source crashed",
            Self::CrashSink(..) => "sink crashed",
            Self::Cut(_) => "connections reset",
            Self::CutAfter(..) => "cut at a byte",
            Self::Stall(..) => "connection stalled",
            Self::Refuse(..) => "connections refused",
            Self::Delay(..) => "connection delayed",
            Self::FullDisk(_) => "target's disk full",
            Self::BadAnswer(_) => "HTTP 500 in mid-body",
        }
    }

    pub(crate) fn any(random: &mut StdRng) -> Self {
        let line = LINES[random.random_range(0..LINES.len())];
        let ms = random.random_range(50..2500);
        match random.random_range(0..100) {
            0..20 => Self::Kill,
            20..26 => Self::Stop(ms),
            26..31 => Self::KillBehindStall(ms),
            31..38 => Self::TerminateWalsender,
            38..45 => Self::CrashSource,
            45..58 if line != Line::Source => Self::CrashSink(line, ms),
            45..66 => Self::Cut(line),
            66..82 => {
                let direction =
                    if random.random_bool(0.5) { Direction::ToClient } else { Direction::ToUpstream };
                // Short ones cut within a handshake, long ones within a batch.
                let bytes_max = 1_u32 << random.random_range(4..20);
                Self::CutAfter(line, random.random_range(0..bytes_max), direction)
            }
            82..87 => Self::Stall(line, ms),
            87..89 => Self::FullDisk(ms),
            89..92 => Self::Delay(line, random.random_range(1..100), ms),
            92..96 => Self::BadAnswer(if random.random_bool(0.5) { Line::ClickHouse } else { Line::S3 }),
            _ => Self::Refuse(line, ms),
        }
    }
}

/// The proxies of a world.
pub(crate) struct Proxies {
    source: Proxy,
    clickhouse: Proxy,
    target: Proxy,
    s3: Proxy,
}

impl Proxies {
    pub(crate) fn start(world: &World) -> Self {
        Self {
            source: Proxy::start(world.source.address()),
            clickhouse: Proxy::start(world.clickhouse.address()),
            target: Proxy::start(world.target.address()),
            s3: Proxy::start(world.s3.address()),
        }
    }

    /// The world's configuration, by way of the proxies.
    pub(crate) fn config(&self, world: &World) -> Config {
        world
            .config()
            .set("source.url", self.source.rewrite(&world.source.url("shop")))
            .set_sink("analytics", "url", self.clickhouse.rewrite(&world.clickhouse.url()))
            .set_sink("copy", "url", self.target.rewrite(&world.target.url("copy")))
            .set_sink("archive", "endpoint", self.s3.rewrite(&world.s3.endpoint()))
            // After an outage there is much to do, on machines that do other things too.
            .set("shutdown_grace_ms", 100_000)
    }

    fn of(&self, line: Line) -> &Proxy {
        match line {
            Line::Source => &self.source,
            Line::ClickHouse => &self.clickhouse,
            Line::Target => &self.target,
            Line::S3 => &self.s3,
        }
    }

    /// Lets everything through again, whatever is still to come.
    pub(crate) fn heal(&self) {
        for proxy in LINES.map(|line| self.of(line)) {
            proxy.resume();
            proxy.accept();
            proxy.forget_cut();
            proxy.delay(0);
            proxy.forget_answer();
        }
    }
}

/// What faults are done to.
pub(crate) struct Victims<'a> {
    pub(crate) world: &'a World,
    pub(crate) proxies: &'a Proxies,
    pub(crate) supervisor: &'a Supervisor,
}

impl Victims<'_> {
    /// What the source was told is in every sink, as far as these answer: also in one that has just come back with nothing
    /// but what was on its disk.
    fn verify_acknowledged(&self) {
        // First, since both only go up.
        let sql =
            "SELECT confirmed_flush_lsn - '0/0' FROM pg_replication_slots WHERE slot_name = 'replicator'";
        let Ok(Ok(acknowledged)) = self.world.source.try_sql("shop", sql).map(|text| text.parse::<u64>())
        else {
            return;
        };
        for (sink, noted) in self.world.noted().unwrap_or_default() {
            if let Some(noted) = noted {
                assert!(acknowledged <= noted, "{acknowledged:X} is acknowledged, and {sink} has {noted:X}");
            }
        }
    }

    /// Does it, and what ends it.
    pub(crate) async fn suffer(&self, fault: Fault, counts: &mut BTreeMap<&'static str, u64>) {
        *counts.entry(fault.name()).or_default() += 1;
        let pause = async |ms: u64| tokio::time::sleep(Duration::from_millis(ms)).await;
        match fault {
            Fault::Kill => self.supervisor.kill9(),
            Fault::Stop(ms) => {
                self.supervisor.freeze();
                pause(ms).await;
                self.supervisor.thaw();
            }
            Fault::KillBehindStall(ms) => {
                self.proxies.source.stall();
                self.supervisor.kill9();
                pause(ms).await;
                self.proxies.source.resume();
            }
            Fault::TerminateWalsender => {
                let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_replication";
                // The source may be on its way up.
                let _ = self.world.source.try_sql("shop", sql);
            }
            Fault::CrashSource => {
                self.world.source.stop_immediate();
                self.world.source.start_again();
            }
            Fault::CrashSink(line, ms) => {
                match line {
                    Line::Source => {}
                    Line::ClickHouse => {
                        self.world.clickhouse.kill9();
                        pause(ms).await;
                        self.world.clickhouse.start_again();
                    }
                    Line::Target => {
                        self.world.target.kill9();
                        pause(ms).await;
                        self.world.target.start_again();
                    }
                    Line::S3 => {
                        self.world.s3.stop();
                        pause(ms).await;
                        self.world.s3.start_again();
                    }
                }
                self.verify_acknowledged();
            }
            Fault::Cut(line) => self.proxies.of(line).cut(),
            Fault::CutAfter(line, bytes, direction) => self.proxies.of(line).cut_after(bytes, direction),
            Fault::Stall(line, ms) => {
                self.proxies.of(line).stall();
                pause(ms).await;
                self.proxies.of(line).resume();
            }
            Fault::Delay(line, each_ms, ms) => {
                self.proxies.of(line).delay(each_ms);
                pause(ms).await;
                self.proxies.of(line).delay(0);
            }
            Fault::FullDisk(ms) => {
                self.world.target.fill_disk();
                pause(ms).await;
                self.world.target.free_disk();
            }
            Fault::BadAnswer(line) => self.proxies.of(line).fail_answer(),
            Fault::Refuse(line, ms) => {
                self.proxies.of(line).refuse();
                self.proxies.of(line).cut();
                pause(ms).await;
                self.proxies.of(line).accept();
            }
        }
    }
}
