//! What each sink does with a batch: rows of W1 (a bigint key, an int, 8 letters, a numeric, 100 characters, a timestamp),
//! 10,000 in a batch, as text and in binary form.
//!
//! `make micro-bench`. ClickHouse: to compressed Native blocks. Archive: to gzipped lines of JSON. Lake: to Parquet. Those three
//! without sending. Postgres encodes while it sends, so that is the whole way into a scratch server: COPY, and the commit.

use object_store::memory::InMemory;
use replicator_config::{
    ArrayColumns, ByteSize, ClickHouseConfig, ClickHouseMode, DeleteMode, OutOfRange, PostgresSinkConfig,
    SchemaNaming, Secret, SynchronousCommit, TypeChanges,
};
use replicator_harness::{ClickHouse, ClickHouseOptions, PgOptions, PgVersion, Postgres};
use replicator_lake::{Compression, FileOptions};
use replicator_sink::{Lane, Sink, StreamInfo};
use replicator_sink_lake::LakeSink;
use replicator_sink_object_store::ObjectStoreSink;
use replicator_types::{
    Batch, BatchBuilder, Budget, Column, KeyHasher, Lsn, NewChange, Op, Relation, ReplicaIdentity,
    SlotIdentity, TransactionMeta, Tuple, TxnId, oid,
};
use slog::{Discard, Logger, o};
use std::cell::RefCell;
use std::sync::Arc;
use tokio::runtime::Runtime;

const ROWS: u64 = 10_000;
const TRANSACTION_ROWS: u64 = 1_000;

/// In which form values come.
#[derive(Clone, Copy, Debug)]
enum Form {
    Text,
    Binary,
}

const FORMS: [Form; 2] = [Form::Text, Form::Binary];

fn relation() -> Arc<Relation> {
    let column = |attnum, name: &str, type_oid, type_sql: &str| Column {
        name: name.into(),
        attnum,
        type_oid,
        base_type_oid: type_oid,
        type_modifier: if type_oid == oid::NUMERIC { (12 << 16 | 2) + 4 } else { -1 },
        type_sql: type_sql.into(),
        not_null: name == "id",
        is_key: name == "id",
        ..Column::default()
    };
    Arc::new(Relation {
        oid: 1,
        version: 0,
        since: Lsn::ZERO,
        schema: "public".into(),
        name: "w1".into(),
        replica_identity: ReplicaIdentity::Default,
        columns: vec![
            column(1, "id", oid::INT8, "bigint"),
            column(2, "n", oid::INT4, "integer"),
            column(3, "code", oid::TEXT, "text"),
            column(4, "price", oid::NUMERIC, "numeric(12,2)"),
            column(5, "note", oid::TEXT, "text"),
            column(6, "at", oid::TIMESTAMPTZ, "timestamp with time zone"),
        ],
        key: vec![0],
        key_text_is_identity: true,
        is_guess: false,
    })
}

/// One batch after the other, of rows that are new.
struct Rows {
    relation: Arc<Relation>,
    form: Form,
    next: u64,
}

impl Rows {
    fn new(form: Form) -> Self {
        Self { relation: relation(), form, next: 0 }
    }

    fn batch(&mut self) -> Arc<Batch> {
        let mut builder = BatchBuilder::new(Budget::new(usize::MAX));
        let mut tuple = Vec::new();
        for id in self.next..self.next + ROWS {
            let lsn = 1_000 + id / TRANSACTION_ROWS * 100;
            let transaction =
                TransactionMeta { id: TxnId(lsn), commit_lsn: Lsn(lsn), commit_time_us: 0, xid: 1 };
            self.tuple(id, &mut tuple);
            let mut hasher = KeyHasher::new(1);
            hasher.value(id.to_string().as_bytes());
            let change = NewChange {
                new: Some(Tuple::from_checked(&tuple)),
                key_hash: hasher.finish(),
                ..NewChange::without_row(Op::Insert, id % TRANSACTION_ROWS)
            };
            builder.push(&transaction, &self.relation, change);
        }
        self.next += ROWS;
        Arc::new(builder.cut(false).expect("rows were pushed"))
    }

    fn tuple(&self, id: u64, out: &mut Vec<u8>) {
        out.clear();
        out.extend_from_slice(&6_u16.to_be_bytes());
        let mut value = |kind: u8, value: &[u8]| {
            out.push(kind);
            out.extend_from_slice(&(value.len() as u32).to_be_bytes());
            out.extend_from_slice(value);
        };
        let code = format!("{:08x}", id.wrapping_mul(0x9e37_79b9) as u32);
        let note = format!("{code} is the {id}th of them, ").repeat(5);
        let note = note.as_bytes().get(..100).expect("it is longer");
        match self.form {
            Form::Text => {
                value(b't', id.to_string().as_bytes());
                value(b't', (id % 1_000).to_string().as_bytes());
                value(b't', code.as_bytes());
                value(b't', format!("{}.25", id % 1_000_000).as_bytes());
                value(b't', note);
                let at = format!("2026-11-21 03:{:02}:{:02}.678901+00", id / 60 % 60, id % 60);
                value(b't', at.as_bytes());
            }
            Form::Binary => {
                value(b'b', &id.to_be_bytes());
                value(b'b', &(id as u32 % 1_000).to_be_bytes());
                value(b't', code.as_bytes());
                // Three digits of base 10000, the first of weight 1, two decimals: nnnn nnnn . 2500.
                let digits = [3_u16, 1, 0, 2, (id / 10_000 % 10_000) as u16 + 1, (id % 10_000) as u16, 2_500];
                value(b'b', &digits.iter().flat_map(|digit| digit.to_be_bytes()).collect::<Vec<_>>());
                value(b't', note);
                value(b'b', &(848_000_000_000_000 + id).to_be_bytes());
            }
        }
    }
}

fn stream(form: Form) -> StreamInfo {
    let identity = SlotIdentity { system_identifier: 1, slot: format!("{form:?}").to_lowercase() };
    StreamInfo { identity, database: "shop".into(), tables: vec![relation()] }
}

fn logger() -> Logger {
    Logger::root(Discard, o!())
}

fn runtime() -> Runtime {
    Runtime::new().expect("a runtime")
}

fn lane(runtime: &Runtime, sink: &dyn Sink, form: Form) -> Box<dyn Lane> {
    let stream = stream(form);
    runtime.block_on(sink.prepare(&stream)).expect("a sink that is ready");
    runtime.block_on(sink.open_lane(0, &stream)).expect("a lane")
}

/// Turns batches into writes; asserts that there is something in them.
fn encode(bencher: divan::Bencher<'_, '_>, form: Form, sink: &dyn Sink) {
    let runtime = runtime();
    let mut lane = lane(&runtime, sink, form);
    let rows = RefCell::new(Rows::new(form));
    bencher
        .counter(divan::counter::ItemsCount::new(ROWS))
        .with_inputs(|| rows.borrow_mut().batch())
        .bench_local_values(|batch| {
            let write = runtime.block_on(lane.prepare(batch)).expect("a write");
            assert!(write.held_bytes() > ROWS as usize, "{} bytes", write.held_bytes());
            write
        });
}

#[divan::bench(args = FORMS, sample_count = 30)]
fn clickhouse_native(bencher: divan::Bencher<'_, '_>, form: Form) {
    let server = ClickHouse::start(&ClickHouseOptions::default());
    let config = ClickHouseConfig {
        url: Secret::new(server.url()),
        database: server.database().to_owned(),
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
        request_timeout_ms: 60_000,
        out_of_range: OutOfRange::Clamp,
        arrays: ArrayColumns::Auto,
        fsync: true,
        type_changes: TypeChanges::Error,
        ca_file: None,
    };
    let sink = replicator_sink_clickhouse::open("bench".into(), config, 1, logger()).expect("a sink");
    encode(bencher, form, &sink);
}

#[divan::bench(args = FORMS, sample_count = 30)]
fn archive_json(bencher: divan::Bencher<'_, '_>, form: Form) {
    let gzip_level = 2;
    let sink = ObjectStoreSink::at("bench".into(), Arc::new(InMemory::new()), "", gzip_level, 1, logger());
    encode(bencher, form, &sink);
}

#[divan::bench(args = FORMS, sample_count = 30)]
fn lake_parquet(bencher: divan::Bencher<'_, '_>, form: Form) {
    let options = FileOptions { compression: Compression::Zstd(1), row_group_rows_max: 122_880 };
    let sink = LakeSink::at("bench".into(), Arc::new(InMemory::new()), "", options, 1, logger());
    encode(bencher, form, &sink);
}

#[divan::bench(args = FORMS, sample_count = 30)]
fn postgres_copy_and_commit(bencher: divan::Bencher<'_, '_>, form: Form) {
    let server = Postgres::start(PgVersion::V17, &PgOptions::default());
    server.createdb("target");
    let config = PostgresSinkConfig {
        url: Secret::new(server.url("target")),
        password: Secret::default(),
        password_file: None,
        create_tables: true,
        type_changes: TypeChanges::Error,
        origin: false,
        synchronous_commit: SynchronousCommit::On,
        connect_timeout_ms: 5_000,
    };
    let sink = replicator_sink_postgres::open("bench".into(), config, 1, logger()).expect("a sink");
    let runtime = runtime();
    let mut lane = lane(&runtime, &sink, form);
    let rows = RefCell::new(Rows::new(form));
    bencher
        .counter(divan::counter::ItemsCount::new(ROWS))
        .with_inputs(|| rows.borrow_mut().batch())
        .bench_local_values(|batch| {
            let mut write = runtime.block_on(lane.prepare(batch)).expect("a write");
            runtime.block_on(write.send()).expect("a commit");
        });
    let found = server.sql("target", "SELECT count(*) FROM w1");
    assert_eq!(found, rows.borrow().next.to_string(), "every row arrived");
}

fn main() {
    divan::main();
}
