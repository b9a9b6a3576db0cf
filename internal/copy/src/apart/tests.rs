use super::*;
use replicator_sink::Blackhole;
use replicator_types::{BatchBuilder, Budget, Lsn, NewChange, Relation, TransactionMeta, TxnId};

fn at(lsn: u64) -> Position {
    Position { commit_lsn: Lsn(lsn), ordinal: 2 }
}

fn sinks() -> Vec<Arc<dyn Sink>> {
    ["a", "b"].map(|name| Arc::new(Blackhole::new(name, 1)) as Arc<dyn Sink>).into()
}

async fn load(sinks: &[Arc<dyn Sink>]) -> Arc<Aparts> {
    Arc::new(Aparts::load(sinks).await.unwrap())
}

fn of(aparts: &Arc<Aparts>, sinks: &[usize]) -> Apartness {
    aparts.of(7, sinks, Position::ZERO)
}

/// As the batch tells it.
const APART: Apartness = Apartness::Apart { told: Lsn(3), from: APART_AT };

const APART_AT: Position = Position { commit_lsn: Lsn(5), ordinal: 0 };

/// A batch with one change, fenced.
fn batch(op: Op) -> Arc<Batch> {
    let relation = Arc::new(Relation { oid: 7, name: "t".into(), since: Lsn(3), ..Relation::message() });
    let meta = TransactionMeta { id: TxnId(1), commit_lsn: Lsn(5), commit_time_us: 0, xid: 1 };
    let change = NewChange::without_row(op, 0);
    let mut builder = BatchBuilder::new(Budget::new(1 << 20));
    builder.push(&meta, &relation, change);
    Arc::new(builder.cut(true).unwrap())
}

/// A lane that takes nothing.
struct Refusing;

#[async_trait]
impl Lane for Refusing {
    async fn prepare(&mut self, _batch: Arc<Batch>) -> Result<Box<dyn Write>, SinkError> {
        Err(SinkError::halt("no"))
    }
}

#[tokio::test]
async fn a_lane_notes_that_a_table_is_apart_and_the_sink_sees_nothing_of_it() {
    let sinks = sinks();
    let aparts = load(&sinks).await;
    assert_eq!(of(&aparts, &[0, 1]), Apartness::Joined(Position::ZERO));
    let mut lane = aparts.lane(1, Box::new(Refusing));
    assert!(lane.prepare(batch(Op::Truncate)).await.is_err(), "that is for the sink");
    assert_eq!(of(&aparts, &[0, 1]), Apartness::Joined(Position::ZERO));
    lane.prepare(batch(Op::Apart)).await.unwrap().send().await.unwrap();
    for aparts in [aparts, load(&sinks).await] {
        // The other has noted nothing yet.
        let from = Position::ZERO;
        assert_eq!(of(&aparts, &[0, 1]), Apartness::Apart { told: Lsn(3), from });
        assert_eq!(of(&aparts, &[1]), APART);
        assert_eq!(aparts.of(7, &[0, 1], at(4)), Apartness::Apart { told: Lsn(3), from: at(4) });
        assert_eq!(of(&aparts, &[0]), Apartness::Joined(Position::ZERO), "that sink goes ahead of nothing");
        assert_eq!(aparts.sinks_apart(7), [1]);
    }
}

#[tokio::test]
async fn a_table_is_apart_until_every_sink_has_noted_that_it_has_joined() {
    let sinks = sinks();
    let aparts = load(&sinks).await;
    for sink in 0..2 {
        aparts.lane(sink, Box::new(Refusing)).prepare(batch(Op::Apart)).await.unwrap();
    }
    aparts.join((0, 7), "public.t", at(40), Some(TxnId(1))).await.unwrap();
    assert_eq!(of(&load(&sinks).await, &[0, 1]), APART);
    aparts.join((1, 7), "public.t", at(30), Some(TxnId(1))).await.unwrap();
    for aparts in [aparts, load(&sinks).await] {
        assert_eq!(of(&aparts, &[0, 1]), Apartness::Joined(at(40)));
        assert!(aparts.sinks_apart(7).is_empty());
    }
}

#[tokio::test]
async fn a_table_that_waits_anew_where_it_has_joined_goes_on_waiting() {
    let sinks = sinks();
    let aparts = load(&sinks).await;
    aparts.lane(0, Box::new(Refusing)).prepare(batch(Op::Apart)).await.unwrap();
    let place = APART_AT;
    aparts.join((0, 7), "public.t", place, None).await.unwrap();
    assert_eq!(of(&aparts, &[0]), APART, "that is about an earlier time");
    aparts.part(0, 7, "public.t", Lsn(20), at(30)).await.unwrap();
    assert_eq!(of(&load(&sinks).await, &[0]), Apartness::Apart { told: Lsn(20), from: at(30) });
    aparts.join((0, 7), "public.t", place, Some(TxnId(1))).await.unwrap();
    assert_eq!(of(&load(&sinks).await, &[0]), Apartness::Joined(place));
}

#[tokio::test]
async fn a_note_that_cannot_be_read_is_named_with_the_remedy() {
    let sinks = sinks();
    sinks[0].put_note("apart/7", Some("{}")).await.unwrap();
    let refused = Aparts::load(&sinks).await.err().unwrap().to_string();
    assert!(refused.contains("apart/7") && refused.contains("copied anew"), "{refused}");
}
