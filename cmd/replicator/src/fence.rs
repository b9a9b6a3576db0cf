//! Sinks that are written to only by the process that has the slot's lease.
//!
//! ```text
//!   pipeline, copy ──▶ Fenced sink ─ Term::hold ─ claimed by this run? ──▶ sink
//!                       waits while the lease is in doubt; fails for good when another process has claimed the sink
//! ```
//!
//! # Invariants
//! - Nothing is prepared, sent, noted or emptied at a sink after the term of the lease is over: a process that was
//!   stopped in between finds it over by its own clock, before it asks anybody.
//! - A run claims each sink before it writes anything else there. A process that had to take the lease again looks at
//!   the claim first: if another one had the lease meanwhile, what this one remembers of the sink is out of date.
//!
//! What is left is a request that was let go within the term and arrives after it; how each sink bears that is said in
//! `docs/decisions/0007-fencing.md`.

use async_trait::async_trait;
use replicator_sink::{KeyChanges, Lane, Sink, SinkError, StreamInfo, TableCopy, Write};
use replicator_source::{Term, Timelines};
use replicator_types::{Batch, CheckItem, GeneratedColumn, Lsn, Position, Relation};
use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A name for this run that no other has.
pub(crate) fn run_name() -> String {
    // Keys of hash tables are the standard library's random numbers.
    format!("{:016x}{:016x}", RandomState::new().hash_one(0), RandomState::new().hash_one(1))
}

/// What a run claims a sink with: also on which timeline of the source it writes.
pub(crate) fn claim(run: &str, timeline: u32) -> String {
    format!("{run}@{timeline}")
}

/// Whether what the sink has of the stream is what the source has, too.
///
/// # Errors
/// For a person: the source is a promoted standby that lacks what the sink has. Or the sink.
async fn verify_reach(sink: &dyn Sink, timelines: &Timelines) -> Result<(), SinkError> {
    let claimed = sink.claimant().await?;
    let timeline = claimed.and_then(|claim| claim.rsplit_once('@')?.1.parse().ok());
    let Some(timeline) = timeline.filter(|timeline| *timeline != timelines.current()) else {
        return Ok(());
    };
    let who = format!("sink {}", sink.name());
    let verified = timelines.verify(timeline, reach(sink).await?, &who);
    verified.map_err(|error| SinkError::halt(error.to_string()))
}

/// How far the sink is, the snapshots of its copies among it; as far as can be, if it can't tell.
pub(crate) async fn reach(sink: &dyn Sink) -> Result<Lsn, SinkError> {
    let changes = sink.reach().await?.unwrap_or(Lsn(u64::MAX));
    Ok(changes.max(replicator_copy::newest_snapshot(&sink.notes().await?)))
}

/// What is asked before anything is written.
struct Gate {
    sink: Arc<dyn Sink>,
    term: Term,
    run: String,
    /// The lease under which the claim was made, or last found in place; 0 before.
    seen_under: AtomicU64,
}

impl Gate {
    async fn pass(&self) -> Result<(), SinkError> {
        loop {
            let number = self.term.hold().await;
            if self.seen_under.load(Ordering::Acquire) == number {
                return Ok(());
            }
            let claimant = self.sink.claimant().await?.unwrap_or_default();
            if claimant.split('@').next() != Some(self.run.as_str()) {
                return Err(SinkError::halt(
                    "another replicator has written to this sink while this one was cut off from the source: this one \
                     ends, since what it remembers of the sink is out of date; start it again, to stand by",
                ));
            }
            self.seen_under.store(number, Ordering::Release);
        }
    }
}

/// See the module. It hands every method on, those with a body in the trait as well.
pub(crate) struct Fenced {
    sink: Arc<dyn Sink>,
    gate: Arc<Gate>,
    /// The source's, as the run began.
    timelines: Timelines,
}

impl Fenced {
    pub(crate) fn new(sink: Arc<dyn Sink>, term: Term, run: String, timelines: Timelines) -> Self {
        let gate = Gate { sink: Arc::clone(&sink), term, run, seen_under: AtomicU64::new(0) };
        Self { sink, gate: Arc::new(gate), timelines }
    }

    fn lane(&self, lane: Box<dyn Lane>) -> Box<dyn Lane> {
        Box::new(FencedLane { lane, gate: Arc::clone(&self.gate) })
    }
}

#[async_trait]
impl Sink for Fenced {
    fn name(&self) -> &str {
        self.sink.name()
    }

    fn kind(&self) -> &'static str {
        self.sink.kind()
    }

    fn shards(&self) -> u32 {
        self.sink.shards()
    }

    fn key_changes(&self) -> KeyChanges {
        self.sink.key_changes()
    }

    async fn check(&self, tables: &[Arc<Relation>]) -> Vec<CheckItem> {
        self.sink.check(tables).await
    }

    async fn prepare(&self, stream: &StreamInfo) -> Result<(), SinkError> {
        self.gate.term.hold().await;
        self.sink.prepare(stream).await?;
        verify_reach(self.sink.as_ref(), &self.timelines).await?;
        self.claim(&claim(&self.gate.run, self.timelines.current())).await
    }

    fn wants_messages(&self) -> bool {
        self.sink.wants_messages()
    }

    fn takes_late_changes(&self) -> bool {
        self.sink.takes_late_changes()
    }

    async fn prepare_table(&self, relation: &Arc<Relation>) -> Result<(), SinkError> {
        self.gate.pass().await?;
        self.sink.prepare_table(relation).await
    }

    async fn open_lane(&self, shard: u32, stream: &StreamInfo) -> Result<Box<dyn Lane>, SinkError> {
        self.gate.pass().await?;
        Ok(self.lane(self.sink.open_lane(shard, stream).await?))
    }

    async fn notes(&self) -> Result<BTreeMap<String, String>, SinkError> {
        self.sink.notes().await
    }

    async fn put_note(&self, key: &str, value: Option<&str>) -> Result<(), SinkError> {
        self.gate.pass().await?;
        self.sink.put_note(key, value).await
    }

    async fn put_notes(&self, notes: &[(String, String)]) -> Result<(), SinkError> {
        self.gate.pass().await?;
        self.sink.put_notes(notes).await
    }

    async fn claim(&self, run: &str) -> Result<(), SinkError> {
        let number = self.gate.term.hold().await;
        self.sink.claim(run).await?;
        self.gate.seen_under.store(number, Ordering::Release);
        Ok(())
    }

    async fn claimant(&self) -> Result<Option<String>, SinkError> {
        self.sink.claimant().await
    }

    async fn reach(&self) -> Result<Option<Lsn>, SinkError> {
        self.sink.reach().await
    }

    async fn alter(&self, relation: &Arc<Relation>, at: Position) -> Result<(), SinkError> {
        self.gate.pass().await?;
        self.sink.alter(relation, at).await
    }

    async fn follow_generated(
        &self,
        oid: u32,
        columns: &[GeneratedColumn],
        dropped: &[i16],
    ) -> Result<(), SinkError> {
        self.gate.pass().await?;
        self.sink.follow_generated(oid, columns, dropped).await
    }

    async fn begin_copy(&self, copy: &TableCopy) -> Result<bool, SinkError> {
        self.gate.pass().await?;
        self.sink.begin_copy(copy).await
    }

    async fn open_copy_lane(&self, number: u32, stream: &StreamInfo) -> Result<Box<dyn Lane>, SinkError> {
        self.gate.pass().await?;
        Ok(self.lane(self.sink.open_copy_lane(number, stream).await?))
    }

    async fn end_copy(&self, copy: &TableCopy) -> Result<(), SinkError> {
        self.gate.pass().await?;
        self.sink.end_copy(copy).await
    }

    async fn ping(&self) -> Result<(), SinkError> {
        self.sink.ping().await
    }
}

struct FencedLane {
    lane: Box<dyn Lane>,
    gate: Arc<Gate>,
}

#[async_trait]
impl Lane for FencedLane {
    fn in_flight_max(&self) -> usize {
        self.lane.in_flight_max()
    }

    fn needs_drain(&self, batch: &Batch) -> bool {
        self.lane.needs_drain(batch)
    }

    async fn prepare(&mut self, batch: Arc<Batch>) -> Result<Box<dyn Write>, SinkError> {
        self.gate.pass().await?;
        let write = self.lane.prepare(batch).await?;
        Ok(Box::new(FencedWrite { write, gate: Arc::clone(&self.gate) }))
    }
}

struct FencedWrite {
    write: Box<dyn Write>,
    gate: Arc<Gate>,
}

#[async_trait]
impl Write for FencedWrite {
    fn has_more(&self) -> bool {
        self.write.has_more()
    }

    fn held_bytes(&self) -> usize {
        self.write.held_bytes()
    }

    fn is_full(&self) -> bool {
        self.write.is_full()
    }

    fn join(&mut self, next: Box<dyn Write>) -> Result<(), Box<dyn Write>> {
        let Self { write, gate } = *next.downcast::<Self>()?;
        self.write.join(write).map_err(|write| Box::new(Self { write, gate }) as Box<dyn Write>)
    }

    async fn send(&mut self) -> Result<(), SinkError> {
        self.gate.pass().await?;
        self.write.send().await
    }
}
