//! Lanes for copied rows, over a sink whose writes join up to a number of rows.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on may panic")]

use async_trait::async_trait;
use replicator_pipeline::{CopyLanes, CopyReport};
use replicator_sink::{Lane, SinkError, Write};
use replicator_types::{
    Batch, BatchBuilder, Budget, Lsn, NewChange, Op, Phase, Relation, TransactionMeta, Tuple, TxnId, Value,
};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::watch;

/// Longer than any test takes.
const NEVER: Duration = Duration::from_secs(3600);

/// A table that the sink takes nothing of.
const REFUSED: u32 = 77;

/// What was written at once, each time: ids of the jobs.
type Written = Arc<Mutex<Vec<Vec<u64>>>>;

struct GatheringLane {
    rows_max: usize,
    in_flight_max: usize,
    written: Written,
    /// What becomes of the next attempts; then they succeed.
    failures: Arc<Mutex<VecDeque<SinkError>>>,
    /// Nothing is written before it says yes.
    open: watch::Receiver<bool>,
}

struct GatheringWrite {
    rows_max: usize,
    jobs: Vec<u64>,
    /// One that goes by itself.
    is_single: bool,
    written: Written,
    failures: Arc<Mutex<VecDeque<SinkError>>>,
    open: watch::Receiver<bool>,
}

#[async_trait]
impl Lane for GatheringLane {
    fn in_flight_max(&self) -> usize {
        self.in_flight_max
    }

    async fn prepare(&mut self, batch: Arc<Batch>) -> Result<Box<dyn Write>, SinkError> {
        if batch.relations().iter().any(|relation| relation.oid == REFUSED) {
            return Err(SinkError::reject("no such rows").of_table(REFUSED));
        }
        let jobs: Vec<u64> = batch.transactions().iter().map(|transaction| transaction.id.0).collect();
        Ok(Box::new(GatheringWrite {
            rows_max: self.rows_max,
            is_single: jobs.iter().any(|job| *job >= 100),
            jobs,
            written: Arc::clone(&self.written),
            failures: Arc::clone(&self.failures),
            open: self.open.clone(),
        }))
    }
}

#[async_trait]
impl Write for GatheringWrite {
    fn held_bytes(&self) -> usize {
        0
    }

    fn is_full(&self) -> bool {
        self.is_single || self.jobs.len() >= self.rows_max
    }

    fn join(&mut self, next: Box<dyn Write>) -> Result<(), Box<dyn Write>> {
        let next = next.downcast::<Self>()?;
        if next.is_single {
            return Err(next);
        }
        self.jobs.extend(next.jobs);
        Ok(())
    }

    async fn send(&mut self) -> Result<(), SinkError> {
        self.open.wait_for(|open| *open).await.map_err(|error| SinkError::halt(error.to_string()))?;
        if let Some(error) = self.failures.lock().unwrap().pop_front() {
            return Err(error);
        }
        self.written.lock().unwrap().push(self.jobs.clone());
        Ok(())
    }
}

struct Bench {
    lanes: CopyLanes,
    reports: UnboundedReceiver<CopyReport>,
    written: Written,
    failures: Arc<Mutex<VecDeque<SinkError>>>,
    open: watch::Sender<bool>,
}

impl Bench {
    fn start(rows_max: usize, in_flight_max: usize, gather_pause: Duration) -> Self {
        let (written, failures) = (Written::default(), Arc::default());
        let (open, is_open) = watch::channel(false);
        let lane = GatheringLane {
            rows_max,
            in_flight_max,
            written: Arc::clone(&written),
            failures: Arc::clone(&failures),
            open: is_open,
        };
        let lanes: Vec<(String, Box<dyn Lane>)> = vec![("sink".into(), Box::new(lane))];
        let pause = Duration::from_millis(1);
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let (lanes, reports) = CopyLanes::start(vec![lanes], (pause, pause), gather_pause, &logger).unwrap();
        Self { lanes, reports, written, failures, open }
    }

    fn send(&self, jobs: impl IntoIterator<Item = u64>) {
        jobs.into_iter().for_each(|job| self.lanes.send(0, &[0], batch(job)));
    }

    /// Everything that is reported until the lanes have ended, and what was written.
    async fn end(mut self) -> (Vec<CopyReport>, Vec<Vec<u64>>) {
        drop(self.lanes);
        let mut reports = Vec::new();
        let all = async {
            while let Some(report) = self.reports.recv().await {
                reports.push(report);
            }
        };
        tokio::time::timeout(Duration::from_secs(60), all).await.unwrap();
        (reports, self.written.lock().unwrap().clone())
    }
}

/// A row of that job.
fn batch(job: u64) -> Batch {
    batch_of(0, job)
}

fn batch_of(table: u32, job: u64) -> Batch {
    let mut builder = BatchBuilder::of_phase(Budget::new(1 << 20), Phase::Copy { fresh: true });
    let meta = TransactionMeta { id: TxnId(job), commit_lsn: Lsn(job), commit_time_us: 0, xid: 0 };
    let mut row = Vec::new();
    Tuple::write([Value::Null; 3], &mut row);
    let change = NewChange { new: Some(Tuple::from_checked(&row)), ..NewChange::without_row(Op::Message, 0) };
    builder.push(&meta, &Arc::new(Relation { oid: table, ..Relation::message() }), change);
    builder.cut(false).unwrap()
}

fn durable(jobs: impl IntoIterator<Item = u64>) -> Vec<CopyReport> {
    jobs.into_iter().map(|job| CopyReport::Durable(TxnId(job))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_that_come_one_after_the_other_are_written_as_one_and_each_is_reported() {
    // However many writes may be in flight.
    for in_flight_max in [1, 3] {
        let bench = Bench::start(4, in_flight_max, NEVER);
        bench.send((1..=10).map(|job| job / 6));
        bench.open.send(true).unwrap();
        let (mut reports, mut written) = bench.end().await;
        reports.sort_by_key(|report| matches!(report, CopyReport::Durable(TxnId(1))));
        written.sort();
        assert_eq!(written, [vec![0, 0, 0, 0], vec![0, 1, 1, 1], vec![1, 1]], "{in_flight_max}");
        assert_eq!(reports, durable([0, 0, 0, 0, 0, 1, 1, 1, 1, 1]));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_goes_by_itself_goes_behind_what_has_gathered() {
    let bench = Bench::start(4, 1, NEVER);
    bench.send([1, 2, 100, 3, 101, 102, 4, 5]);
    bench.open.send(true).unwrap();
    let (reports, written) = bench.end().await;
    assert_eq!(written, [vec![1, 2], vec![100], vec![3], vec![101], vec![102], vec![4, 5]]);
    assert_eq!(reports, durable([1, 2, 100, 3, 101, 102, 4, 5]));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_gathers_is_written_when_nothing_else_is_to_come() {
    for (gather_pause, is_hurried) in [(NEVER, true), (Duration::from_millis(20), false)] {
        let mut bench = Bench::start(4, 1, gather_pause);
        bench.open.send(true).unwrap();
        for job in 1..3 {
            bench.send([job]);
            if is_hurried {
                bench.lanes.hurry(0);
            }
            let report = tokio::time::timeout(Duration::from_secs(60), bench.reports.recv()).await.unwrap();
            assert_eq!(report, Some(CopyReport::Durable(TxnId(job))));
        }
    }
    // A pause that is not over holds it back.
    let mut bench = Bench::start(4, 1, NEVER);
    bench.open.send(true).unwrap();
    bench.send([1]);
    let report = tokio::time::timeout(Duration::from_millis(200), bench.reports.recv()).await;
    assert!(report.is_err(), "{report:?}");
    let (reports, written) = bench.end().await;
    assert_eq!((reports, written), (durable([1]), vec![vec![1]]));
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_one_table_do_not_wait_for_what_another_needs_before_it_is_prepared() {
    let bench = Bench::start(4, 1, NEVER);
    bench.open.send(true).unwrap();
    bench.send([1, 2]);
    bench.lanes.send(0, &[0], batch_of(REFUSED, 3));
    let (reports, written) = bench.end().await;
    assert_eq!(written, [vec![1, 2]]);
    let (failed, written): (Vec<_>, Vec<_>) =
        reports.into_iter().partition(|report| matches!(report, CopyReport::Failed { .. }));
    assert_eq!(written, durable([1, 2]));
    assert!(matches!(&failed[..], [CopyReport::Failed { table: Some(REFUSED), .. }]), "{failed:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_joined_is_tried_again_and_fails_together() {
    let bench = Bench::start(3, 1, NEVER);
    bench.failures.lock().unwrap().extend([SinkError::retry("not now"), SinkError::retry("nor now")]);
    bench.send([1, 2, 3, 4]);
    bench.open.send(true).unwrap();
    let (reports, written) = bench.end().await;
    assert_eq!((reports, written), (durable([1, 2, 3, 4]), vec![vec![1, 2, 3], vec![4]]));

    let bench = Bench::start(3, 1, NEVER);
    bench.failures.lock().unwrap().push_back(SinkError::reject("never").of_table(7));
    // The second waits until the first is written, in vain.
    bench.send(1..=6);
    bench.open.send(true).unwrap();
    let (reports, written) = bench.end().await;
    let text = "sink sink: never".to_owned();
    assert_eq!(reports, [CopyReport::Failed { sink: 0, text, table: Some(7) }]);
    assert!(written.is_empty(), "{written:?}");
}
