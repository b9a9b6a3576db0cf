//! A pipeline with what it has handed out, in words: `insert t 10+0 1,a`. A batch that catches up is marked `~`, a fenced
//! one `|`.
#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "each test file uses its part; a test that cannot go on may panic"
)]

use bytes::Bytes;
pub(crate) use replicator_model::line;
use replicator_model::wire::{Wire, lsn};
use replicator_pipeline::{BatchLimits, Notice, Output, Pipeline, PipelineError, Route};
use replicator_sink::KeyChanges;
use replicator_types::{
    Batch, Budget, Column, Lsn, Phase, ReplicaIdentity, Storage, TableCatalog, TxnId, oid,
};
use std::time::{Duration, Instant};

/// A sink that holds state by key, in one lane.
pub(crate) const STATE: usize = 0;
/// A log, which takes messages.
pub(crate) const LOG: usize = 1;
/// Another, which waits for tables; only where a test adds it.
pub(crate) const HISTORY: usize = 2;

pub(crate) const T: u32 = 100;
pub(crate) const U: u32 = 101;

pub(crate) fn route(name: &str, shards: u32, key_changes: KeyChanges) -> Route {
    let limits = BatchLimits { rows_max: 1000, bytes_max: 1 << 20, interval: Duration::from_secs(1) };
    let messages = key_changes == KeyChanges::Whole;
    Route {
        name: name.into(),
        tables: Default::default(),
        shards,
        limits,
        key_changes,
        takes_late_changes: name == "history",
        messages,
    }
}

pub(crate) fn pipeline(watermark: u64) -> Pipeline {
    let routes = vec![route("state", 1, KeyChanges::Split), route("log", 1, KeyChanges::Whole)];
    Pipeline::new(routes, lsn(watermark), &Budget::new(1 << 30))
}

pub(crate) fn column(attnum: i16, name: &str, type_oid: u32) -> Column {
    let type_sql = if type_oid == oid::INT8 { "bigint" } else { "text" }.to_owned();
    Column { name: name.into(), attnum, type_oid, base_type_oid: type_oid, type_sql, ..Column::default() }
}

/// `T` with as many columns of k, v, w as told.
pub(crate) fn catalog(columns: usize, read_at: u64) -> TableCatalog {
    let all = [column(1, "k", oid::INT8), column(2, "v", oid::TEXT), column(3, "w", oid::TEXT)];
    TableCatalog {
        oid: T,
        schema: "public".into(),
        name: "t".into(),
        replica_identity: ReplicaIdentity::Default,
        columns: all.into_iter().take(columns).collect(),
        primary_key: vec!["k".into()],
        identity_index: vec![],
        read_at: Lsn(read_at),
        dropped: vec![],
        nondeterministic: vec![],
        storage: Storage::default(),
        generated: vec![],
        generated_key: vec![],
    }
}

const COLUMNS: [(&str, u32, bool); 2] = [("k", oid::INT8, true), ("v", oid::TEXT, false)];

/// Describes `T`: `k` is the key, `v` a value.
pub(crate) fn t(wire: Wire) -> Wire {
    wire.relation(T, "t", b'd', &COLUMNS)
}

/// Describes `U`, in the same way.
pub(crate) fn u(wire: Wire) -> Wire {
    wire.relation(U, "u", b'd', &COLUMNS)
}

/// `T` with a further column.
pub(crate) fn wide_t(wire: Wire) -> Wire {
    wire.relation(T, "t", b'd', &[COLUMNS[0], COLUMNS[1], ("w", oid::TEXT, false)])
}

/// A batch on its way.
pub(crate) struct Handed {
    pub(crate) sink: usize,
    pub(crate) lines: Vec<String>,
    pub(crate) transactions: Vec<TxnId>,
}

pub(crate) struct Run {
    pub(crate) pipeline: Pipeline,
    /// Handed out and not durable.
    pub(crate) handed: Vec<Handed>,
    pub(crate) notices: Vec<Notice>,
}

impl Run {
    pub(crate) fn new() -> Self {
        Self::of(pipeline(0))
    }

    pub(crate) fn of(pipeline: Pipeline) -> Self {
        Self { pipeline, handed: Vec::new(), notices: Vec::new() }
    }

    pub(crate) fn feed(&mut self, wire: Wire) {
        self.try_feed(wire, Vec::new()).unwrap();
    }

    pub(crate) fn feed_with(&mut self, wire: Wire, catalogs: Vec<TableCatalog>) {
        self.try_feed(wire, catalogs).unwrap();
    }

    pub(crate) fn try_feed(&mut self, wire: Wire, catalogs: Vec<TableCatalog>) -> Result<(), PipelineError> {
        self.pipeline.chunk(Bytes::from(wire.bytes), catalogs, Instant::now())?;
        while self.pipeline.is_busy() {
            self.pipeline.work(Instant::now())?;
        }
        Ok(())
    }

    /// Hands on all that waits of tables that were released.
    pub(crate) fn release(&mut self, oid: u32) {
        self.pipeline.release(oid);
        while self.pipeline.is_releasing() {
            self.pipeline.release_some(Instant::now()).unwrap();
        }
    }

    pub(crate) fn hold(&mut self, oid: u32) {
        self.pipeline.hold(oid, Instant::now());
    }

    /// What a sink got since the last call.
    pub(crate) fn lines(&mut self, sink: usize) -> Vec<String> {
        self.take();
        let of_sink = self.handed.iter_mut().filter(|handed| handed.sink == sink);
        of_sink.flat_map(|handed| std::mem::take(&mut handed.lines)).collect()
    }

    fn take(&mut self) {
        self.pipeline.flush();
        for output in self.pipeline.take_outputs() {
            let (lane, batch) = match output {
                Output::Batch(lane, batch) | Output::Fence(lane, batch) => (lane, batch),
            };
            let transactions = batch.transactions().iter().map(|transaction| transaction.id).collect();
            self.handed.push(Handed { sink: lane.sink, lines: lines(&batch), transactions });
        }
    }

    /// The oldest batch that is not durable becomes so.
    pub(crate) fn durable_first(&mut self) {
        self.take();
        let handed = self.handed.remove(0);
        self.pipeline.durable(handed.transactions);
    }

    pub(crate) fn durable(&mut self) {
        self.take();
        for handed in std::mem::take(&mut self.handed) {
            self.pipeline.durable(handed.transactions);
        }
    }

    pub(crate) fn watermark(&self) -> u64 {
        self.pipeline.watermark().0
    }

    /// What there was to tell of tables since the last call.
    pub(crate) fn told(&mut self) -> Vec<String> {
        let word = |notice: Notice| match notice {
            Notice::Held { oid, covers } => format!("held {oid}, {} is covered", covers.0),
            Notice::Doubtful { oid, doubt } => format!("doubtful {oid} {doubt:?}"),
            Notice::CaughtUp { oid, from, .. } => {
                format!("caught up {oid} {}+{}", from.commit_lsn.0, from.ordinal)
            }
            Notice::Rewritten { after, rewrite } => {
                format!("rewritten {} to {} columns {rewrite:?}", after.name, after.columns.len())
            }
            Notice::ToAlter { after, at, .. } => {
                format!(
                    "to alter {} to {} columns at {}+{}",
                    after.name,
                    after.columns.len(),
                    at.commit_lsn.0,
                    at.ordinal
                )
            }
            Notice::Refused { oid, sink, text } => format!("refused {oid} {sink} {text}"),
            Notice::New(relation) => format!("new {}", relation.name),
            Notice::Request { content, .. } => format!("request {}", String::from_utf8(content).unwrap()),
            Notice::Altered { before, after } => {
                format!(
                    "altered {} from {} columns to {}",
                    after.name,
                    before.columns.len(),
                    after.columns.len()
                )
            }
        };
        self.pipeline.take_notices().into_iter().map(word).collect()
    }
}

fn lines(batch: &Batch) -> Vec<String> {
    let mark = match (batch.phase(), batch.is_fenced()) {
        (Phase::CatchUp, true) => "~| ",
        (Phase::CatchUp, false) => "~ ",
        (_, true) => "| ",
        (_, false) => "",
    };
    batch.changes().map(|change| format!("{mark}{}", line(&change))).collect()
}
