#![allow(dead_code, unreachable_pub, missing_docs)]

use replicator_config::{
    BinaryValues, OriginFilter, Secret, Snapshot, SourceConfig, StreamingMode, TablePatterns,
};
use replicator_harness::Postgres;
use replicator_source::{Chunk, ErrorKind, Feedback, FeedbackHandle, Reader, Source, SourceError};
use replicator_types::{Budget, CheckItem, Lsn};
use slog::{Discard, Logger, o};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Longer than anything here takes on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(30);

pub const BUDGET_BYTES: usize = 64 << 20;

pub fn config(url: impl Into<String>) -> SourceConfig {
    SourceConfig {
        url: Secret::new(url),
        password: Secret::default(),
        password_file: None,
        slot: "replicator".into(),
        publication: "replicator".into(),
        create: true,
        tables: TablePatterns::default(),
        snapshot: Snapshot::Initial,
        // Values as they can be read in a test.
        binary: BinaryValues::Off,
        streaming: StreamingMode::Auto,
        two_phase: false,
        failover: true,
        messages: false,
        origin: OriginFilter::Any,
        heartbeat_interval_ms: 0,
        catalog_interval_ms: 0,
        status_interval_ms: 10_000,
        connect_timeout_ms: 10_000,
    }
}

pub fn source(config: SourceConfig) -> Source {
    Source::new(config, Logger::root(Discard, o!())).expect("a source")
}

/// A source over TCP with the configuration that everybody begins with.
pub fn plain(postgres: &Postgres) -> Source {
    source(config(postgres.url("postgres")))
}

/// What `prepare` refuses, with its kind.
pub async fn refusal(source: &Source) -> (ErrorKind, String) {
    let error = source.prepare().await.map(|prepared| format!("{prepared:?}")).expect_err("a refusal");
    (error.kind(), error.to_string())
}

/// That the text is one line and has all these parts.
#[track_caller]
pub fn assert_says(text: &str, parts: &[&str]) {
    assert_eq!(text.lines().count(), 1, "{text}");
    for part in parts {
        assert!(text.contains(part), "no {part:?} in: {text}");
    }
}

pub fn failures(items: &[CheckItem]) -> Vec<String> {
    items.iter().filter_map(|item| Some(format!("{}: {}", item.what, item.result.as_ref().err()?))).collect()
}

/// A stream at work.
pub struct Streaming {
    pub reader: Reader,
    pub handle: FeedbackHandle,
    pub watermark: watch::Sender<Lsn>,
    pub feedback: JoinHandle<Result<(), SourceError>>,
    pub budget: Budget,
}

impl Streaming {
    pub async fn begin(source: &Source) -> Self {
        let budget = Budget::new(BUDGET_BYTES);
        let (reader, feedback) = source.stream(Lsn::ZERO, budget.clone()).await.expect("a stream");
        Self::of(reader, feedback, budget)
    }

    pub fn of(reader: Reader, feedback: Feedback, budget: Budget) -> Self {
        let handle = feedback.handle();
        let (watermark, receiver) = watch::channel(Lsn::ZERO);
        let feedback = tokio::spawn(feedback.run(receiver));
        Self { reader, handle, watermark, feedback, budget }
    }

    pub async fn chunk(&mut self) -> Chunk {
        let chunk = tokio::time::timeout(PATIENCE, self.reader.next_chunk()).await.expect("a chunk in time");
        chunk.expect("a chunk")
    }

    /// Reads on until a commit is there; gives the plugin's messages up to then and the catalog's entries.
    pub async fn transaction(&mut self) -> Transaction {
        let mut transaction = Transaction::default();
        while !transaction.messages.iter().any(|message| message[0] == b'C') {
            let chunk = self.chunk().await;
            transaction.messages.extend(plugin_messages(&chunk.bytes));
            transaction.catalogs.extend(chunk.catalogs);
        }
        transaction
    }

    /// Ends it well.
    pub async fn finish(self) {
        self.handle.finish();
        self.feedback.await.expect("the feedback's task").expect("a good end");
        self.reader.finish().await;
    }
}

#[derive(Debug, Default)]
pub struct Transaction {
    pub messages: Vec<Vec<u8>>,
    pub catalogs: Vec<replicator_types::TableCatalog>,
}

impl Transaction {
    /// The end of the commit record: bytes 10 to 17 of the Commit message.
    pub fn end(&self) -> Lsn {
        let commit = self.messages.iter().find(|message| message[0] == b'C').expect("a commit");
        Lsn(u64::from_be_bytes(commit[10..18].try_into().expect("eight bytes")))
    }

    /// The text values of the rows inserted.
    pub fn inserts(&self) -> Vec<Vec<String>> {
        let inserts = self.messages.iter().filter(|message| message[0] == b'I');
        inserts
            .map(|message| {
                let (tuple, rest) = replicator_types::Tuple::split_from(&message[6..]).expect("a tuple");
                assert!(rest.is_empty());
                tuple.values().map(|value| text(value.bytes())).collect()
            })
            .collect()
    }
}

fn text(bytes: Option<&[u8]>) -> String {
    bytes.map_or_else(|| "NULL".to_owned(), |bytes| String::from_utf8_lossy(bytes).into_owned())
}

/// The bodies of whole CopyData messages.
pub fn bodies(mut bytes: &[u8]) -> Vec<&[u8]> {
    let mut bodies = Vec::new();
    while let Some((&[tag, a, b, c, d], rest)) = bytes.split_first_chunk::<5>() {
        assert_eq!(tag, b'd');
        let (body, rest) = rest.split_at(u32::from_be_bytes([a, b, c, d]) as usize - 4);
        bodies.push(body);
        bytes = rest;
    }
    assert!(bytes.is_empty(), "a chunk ends inside a message");
    bodies
}

/// What the plugin wrote, out of XLogData messages.
pub fn plugin_messages(bytes: &[u8]) -> Vec<Vec<u8>> {
    bodies(bytes).into_iter().filter(|body| body[0] == b'w').map(|body| body[25..].to_vec()).collect()
}

/// The last WAL position that a keepalive in the chunk tells.
pub fn last_keepalive(bytes: &[u8]) -> Option<Lsn> {
    let keepalive = bodies(bytes).into_iter().rfind(|body| body[0] == b'k')?;
    Some(Lsn(u64::from_be_bytes(keepalive[1..9].try_into().expect("eight bytes"))))
}

/// A log whose lines go to a channel: the message and `key=value` of each pair.
pub fn log_to(lines: std::sync::mpsc::Sender<String>) -> slog::Fuse<Lines> {
    slog::Fuse(Lines(std::sync::Mutex::new(lines)))
}

#[derive(Debug)]
pub struct Lines(std::sync::Mutex<std::sync::mpsc::Sender<String>>);

impl slog::Drain for Lines {
    type Ok = ();
    type Err = slog::Never;

    fn log(&self, record: &slog::Record<'_>, _values: &slog::OwnedKVList) -> Result<(), slog::Never> {
        struct Pairs(String);
        impl slog::Serializer for Pairs {
            fn emit_arguments(&mut self, key: slog::Key, value: &std::fmt::Arguments<'_>) -> slog::Result {
                self.0.push_str(&format!(" {key}={value}"));
                Ok(())
            }
        }
        let mut pairs = Pairs(record.msg().to_string());
        let _ = slog::KV::serialize(&record.kv(), record, &mut pairs);
        let _ = self.0.lock().expect("the channel").send(pairs.0);
        Ok(())
    }
}
