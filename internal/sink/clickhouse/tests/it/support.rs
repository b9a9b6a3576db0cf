//! Batches by hand and a server to write them to.

use replicator_config::{
    ArrayColumns, ByteSize, ClickHouseConfig, ClickHouseMode, DeleteMode, OutOfRange, SchemaNaming, Secret,
    TypeChanges,
};
use replicator_harness::{ClickHouse, ClickHouseOptions};
use replicator_sink::{Lane, Sink, SinkError, StreamInfo, TableCopy};
use replicator_sink_clickhouse::ClickHouseSink;
use replicator_types::{
    Batch, BatchBuilder, Budget, Column, ColumnKind, Lsn, NewChange, Op, Phase, Position, Relation,
    ReplicaIdentity, SlotIdentity, TransactionMeta, Tuple, TxnId, oid,
};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

/// One server a test process; each test has a database of its own.
pub(crate) fn server() -> &'static ClickHouse {
    static SERVER: OnceLock<ClickHouse> = OnceLock::new();
    SERVER.get_or_init(|| ClickHouse::start(&ClickHouseOptions::default()))
}

fn fresh_name() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("{}_{}", server().database(), COUNT.fetch_add(1, Ordering::Relaxed))
}

/// A sink in a database of its own.
pub(crate) struct Fixture {
    pub(crate) config: ClickHouseConfig,
    pub(crate) shards: u32,
}

impl Fixture {
    pub(crate) fn new() -> Self {
        let server = server();
        let config = ClickHouseConfig {
            url: Secret::new(server.url()),
            database: fresh_name(),
            user: server.user().to_owned(),
            password: Secret::new(server.password()),
            password_file: None,
            mode: ClickHouseMode::Mirror,
            deletes: DeleteMode::Hard,
            schema_naming: SchemaNaming::Prefix,
            cluster: String::new(),
            views: true,
            in_flight_max: 2,
            copy_insert_bytes_max: ByteSize(256 << 20),
            request_timeout_ms: 30_000,
            out_of_range: OutOfRange::Clamp,
            arrays: ArrayColumns::Auto,
            fsync: true,
            type_changes: TypeChanges::Error,
            ca_file: None,
        };
        Self { config, shards: 1 }
    }

    pub(crate) fn history() -> Self {
        let mut fixture = Self::new();
        fixture.config.mode = ClickHouseMode::History;
        fixture
    }

    pub(crate) fn sink(&self) -> ClickHouseSink {
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        replicator_sink_clickhouse::open("analytics".into(), self.config.clone(), self.shards, logger)
            .unwrap()
    }

    /// A new run of the process: a lane, and tables made for `tables`.
    pub(crate) async fn lane(&self, tables: &[&Arc<Relation>]) -> Box<dyn Lane> {
        self.try_lane(tables).await.unwrap()
    }

    pub(crate) async fn try_lane(&self, tables: &[&Arc<Relation>]) -> Result<Box<dyn Lane>, SinkError> {
        let (sink, stream) = self.try_run(tables).await?;
        sink.open_lane(0, &stream).await
    }

    /// A new run of the process: its sink, ready, and what it was told of the stream.
    pub(crate) async fn run(&self, tables: &[&Arc<Relation>]) -> (ClickHouseSink, StreamInfo) {
        self.try_run(tables).await.unwrap()
    }

    async fn try_run(&self, tables: &[&Arc<Relation>]) -> Result<(ClickHouseSink, StreamInfo), SinkError> {
        let sink = self.sink();
        let stream = StreamInfo {
            // A slot of the test's own: sinks of one name and slot wait for each other's inserts.
            identity: SlotIdentity {
                system_identifier: 7_000_000_000_000_000_001,
                slot: self.config.database.clone(),
            },
            database: "shop".into(),
            tables: tables.iter().map(|table| Arc::clone(table)).collect(),
        };
        sink.prepare(&stream).await?;
        Ok((sink, stream))
    }

    /// Columns of a table of the sink, with their types: `name type`, with commas.
    pub(crate) fn columns(&self, table: &str) -> String {
        self.query(&format!(
            "SELECT arrayStringConcat(groupArray(concat(name, ' ', type)), ', ') FROM (SELECT name, type FROM \
             system.columns WHERE database = '{{db}}' AND table = '{table}' AND NOT startsWith(name, '_') ORDER BY position) FORMAT TSVRaw"
        ))
    }

    /// Runs a query in which `{db}` is the database.
    pub(crate) fn query(&self, sql: &str) -> String {
        server().query(&sql.replace("{db}", &self.config.database)).trim_end().to_owned()
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        let _ = server().try_query(&format!("DROP DATABASE IF EXISTS `{}`", self.config.database));
    }
}

pub(crate) async fn write(lane: &mut Box<dyn Lane>, batch: Batch) {
    try_write(lane, batch).await.unwrap();
}

pub(crate) async fn try_write(lane: &mut Box<dyn Lane>, batch: Batch) -> Result<(), SinkError> {
    let mut write = lane.prepare(Arc::new(batch)).await?;
    write.send().await?;
    while write.has_more() {
        write.send().await?;
    }
    Ok(())
}

/// A column: name and type by oid, nullable, not of the key. [`table`] numbers those that have no number.
pub(crate) fn column(name: &str, type_oid: u32) -> Column {
    Column {
        name: name.into(),
        attnum: 0,
        type_oid,
        base_type_oid: type_oid,
        type_modifier: -1,
        kind: ColumnKind::Scalar,
        type_sql: format!("type{type_oid}"),
        not_null: false,
        is_key: false,
        ..Column::default()
    }
}

pub(crate) fn key(name: &str, type_oid: u32) -> Column {
    Column { is_key: true, not_null: true, ..column(name, type_oid) }
}

pub(crate) fn table(name: &str, mut columns: Vec<Column>) -> Relation {
    static OID: AtomicU32 = AtomicU32::new(16_384);
    for (number, column) in (1..).zip(&mut columns) {
        if column.attnum == 0 {
            column.attnum = number;
        }
    }
    let (schema, name) = name.split_once('.').unwrap_or(("public", name));
    Relation {
        oid: OID.fetch_add(1, Ordering::Relaxed),
        version: 0,
        since: replicator_types::Lsn::ZERO,
        schema: schema.into(),
        name: name.into(),
        replica_identity: ReplicaIdentity::Default,
        key: columns
            .iter()
            .enumerate()
            .filter_map(|(index, column)| column.is_key.then_some(index))
            .collect(),
        columns,
        key_text_is_identity: true,
        is_guess: false,
    }
}

/// `orders (id bigint primary key, state text, note text)`
pub(crate) fn orders() -> Arc<Relation> {
    Arc::new(table(
        "orders",
        vec![key("id", oid::INT8), column("state", oid::TEXT), column("note", oid::TEXT)],
    ))
}

/// A value on its way in: a text, NULL, or not sent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Cell<'a> {
    T(&'a str),
    B(&'a [u8]),
    N,
    U,
}

impl<'a> From<&'a str> for Cell<'a> {
    fn from(text: &'a str) -> Self {
        Self::T(text)
    }
}

pub(crate) fn tuple(cells: &[Cell<'_>]) -> Vec<u8> {
    let mut out = (cells.len() as u16).to_be_bytes().to_vec();
    for cell in cells {
        match cell {
            Cell::N => out.push(b'n'),
            Cell::U => out.push(b'u'),
            Cell::T(text) => push_value(b't', text.as_bytes(), &mut out),
            Cell::B(binary) => push_value(b'b', binary, &mut out),
        }
    }
    out
}

fn push_value(kind: u8, bytes: &[u8], out: &mut Vec<u8>) {
    out.push(kind);
    out.extend_from_slice(&(bytes.len() as i32).to_be_bytes());
    out.extend_from_slice(bytes);
}

/// The next version of a table, which transaction `since` brings.
pub(crate) fn altered(before: &Arc<Relation>, since: u64, columns: Vec<Column>) -> Arc<Relation> {
    let mut next = Relation { oid: before.oid, ..table(&before.qualified_name(), columns) };
    next.version = before.version + 1;
    next.since = Lsn(since);
    Arc::new(next)
}

/// Tells the sink of a version, as the pipeline does before its first change.
pub(crate) async fn announce(lane: &mut Box<dyn Lane>, relation: &Arc<Relation>, at: (u64, u64)) {
    try_announce(lane, relation, at).await.unwrap();
}

pub(crate) async fn try_announce(
    lane: &mut Box<dyn Lane>,
    relation: &Arc<Relation>,
    at: (u64, u64),
) -> Result<(), SinkError> {
    try_write(lane, fenced(&[event(relation, Op::Schema, at)])).await
}

pub(crate) fn copy_of(relation: &Arc<Relation>, snapshot: u64, empty_first: bool) -> TableCopy {
    TableCopy { relation: Arc::clone(relation), snapshot: Lsn(snapshot), empty_first, is_resumed: false }
}

/// Copied rows, the first of which has that number.
pub(crate) fn copied(relation: &Arc<Relation>, snapshot: u64, first: u64, rows: &[Vec<Cell<'_>>]) -> Batch {
    let at = |number| Position::copied(Lsn(snapshot), number);
    let events: Vec<Event> = (first..)
        .zip(rows)
        .map(|(number, row)| insert(relation, (at(number).commit_lsn.0, number), row))
        .collect();
    cut(&events, false, Phase::Copy { fresh: false })
}

/// A change that can be put into any number of batches.
#[derive(Clone)]
pub(crate) struct Event {
    relation: Arc<Relation>,
    op: Op,
    commit: u64,
    ordinal: u64,
    old: Option<Vec<u8>>,
    old_is_full: bool,
    new: Option<Vec<u8>>,
    key_changed: bool,
}

/// A change of transaction `commit`, number `ordinal` in it.
pub(crate) fn event(relation: &Arc<Relation>, op: Op, at: (u64, u64)) -> Event {
    Event {
        relation: Arc::clone(relation),
        op,
        commit: at.0,
        ordinal: at.1,
        old: None,
        old_is_full: false,
        new: None,
        key_changed: false,
    }
}

pub(crate) fn insert(relation: &Arc<Relation>, at: (u64, u64), new: &[Cell<'_>]) -> Event {
    Event { new: Some(tuple(new)), ..event(relation, Op::Insert, at) }
}

pub(crate) fn update(relation: &Arc<Relation>, at: (u64, u64), new: &[Cell<'_>]) -> Event {
    Event { new: Some(tuple(new)), ..event(relation, Op::Update, at) }
}

/// A delete under `REPLICA IDENTITY DEFAULT`: `old` has the key.
pub(crate) fn delete(relation: &Arc<Relation>, at: (u64, u64), old: &[Cell<'_>]) -> Event {
    Event { old: Some(tuple(old)), ..event(relation, Op::Delete, at) }
}

impl Event {
    pub(crate) fn full(mut self) -> Self {
        self.old_is_full = true;
        self
    }

    /// Makes an update one that changes the key.
    pub(crate) fn moved_from(mut self, old: &[Cell<'_>]) -> Self {
        self.old = Some(tuple(old));
        self.key_changed = true;
        self
    }
}

/// Commit time of every transaction: 2024-01-02 03:04:05 UTC.
pub(crate) const COMMIT_TIME_US: i64 = 1_704_164_645_000_000 - 946_684_800_000_000;

pub(crate) fn batch(events: &[Event]) -> Batch {
    cut(events, false, Phase::Stream)
}

pub(crate) fn fenced(events: &[Event]) -> Batch {
    cut(events, true, Phase::Stream)
}

pub(crate) fn caught_up(events: &[Event]) -> Batch {
    cut(events, false, Phase::CatchUp)
}

fn cut(events: &[Event], fenced: bool, phase: Phase) -> Batch {
    let mut builder = BatchBuilder::of_phase(Budget::new(1 << 30), phase);
    for event in events {
        let transaction = TransactionMeta {
            id: TxnId(event.commit),
            commit_lsn: Lsn(event.commit),
            commit_time_us: COMMIT_TIME_US,
            xid: 1,
        };
        builder.push(
            &transaction,
            &event.relation,
            NewChange {
                op: event.op,
                ordinal: event.ordinal,
                old: event.old.as_deref().map(Tuple::from_checked),
                old_is_full: event.old_is_full,
                new: event.new.as_deref().map(Tuple::from_checked),
                key_hash: 0,
                key_changed: event.key_changed,
                cascade: false,
                restart_identity: false,
            },
        );
    }
    builder.cut(fenced).unwrap()
}
