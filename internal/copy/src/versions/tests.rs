use super::*;
use replicator_sink::Blackhole;
use replicator_types::{BatchBuilder, Budget, NewChange, TransactionMeta, TxnId, oid};

fn version(since: u64, columns: &[(i16, &str)]) -> Arc<Relation> {
    let column = |&(attnum, name): &(i16, &str)| Column {
        name: name.into(),
        attnum,
        is_key: attnum == 1,
        ..Column::default()
    };
    let columns: Vec<Column> = columns.iter().map(column).collect();
    let key = indexes_of_key(&columns);
    Arc::new(Relation { oid: 7, since: Lsn(since), name: "t".into(), columns, key, ..Relation::message() })
}

fn sinks(count: usize) -> Vec<Arc<dyn Sink>> {
    (0..count).map(|number| Arc::new(Blackhole::new(format!("s{number}"), 1)) as Arc<dyn Sink>).collect()
}

async fn load(sinks: &[Arc<dyn Sink>]) -> Versions {
    Versions::load(sinks).await.unwrap()
}

fn known(versions: &Versions) -> Vec<(u64, Vec<(i16, String)>)> {
    let of = |relation: &Arc<Relation>| {
        let columns = relation.columns.iter().map(|column| (column.attnum, column.name.clone()));
        (relation.since.0, columns.collect())
    };
    versions.to_begin_with(&[]).iter().map(of).collect()
}

#[tokio::test]
async fn versions_come_back_as_they_were_kept() {
    let full = Column {
        name: "ä \"b\"".into(),
        attnum: 3,
        type_oid: 20_000,
        base_type_oid: oid::NUMERIC,
        type_modifier: 786_438,
        kind: ColumnKind::Array { element_oid: 5, element_modifier: -1, element_is_enum: true },
        type_sql: "\"Shop\".price[]".into(),
        not_null: true,
        is_key: true,
        has_default: true,
        default_sql: Some("'{}'".into()),
        missing_text: Some(String::new()),
    };
    for (kind, replica_identity) in [
        (ColumnKind::Scalar, ReplicaIdentity::Default),
        (ColumnKind::Enum, ReplicaIdentity::Nothing),
        (ColumnKind::Other, ReplicaIdentity::Full),
        (full.kind.clone(), ReplicaIdentity::Index),
    ] {
        let columns = vec![Column { kind, ..full.clone() }, Column { attnum: 9, ..Column::default() }];
        let relation =
            Relation { oid: 7, columns, key: vec![0], replica_identity, ..(*version(5, &[])).clone() };
        let sinks = sinks(1);
        load(&sinks).await.keep(0, &Arc::new(relation.clone())).await.unwrap();
        let back = load(&sinks).await.to_begin_with(&[]);
        assert_eq!(back.iter().map(|back| (**back).clone()).collect::<Vec<_>>(), [relation]);
    }
}

#[tokio::test]
async fn a_run_has_the_versions_of_earlier_runs_however_old() {
    let sinks = sinks(1);
    let all = load(&sinks).await;
    for (since, name) in [(10, "a"), (20, "b"), (30, "c"), (40, "d")] {
        all.keep(0, &version(since, &[(1, "id"), (2, name)])).await.unwrap();
    }
    let sinces =
        async || -> Vec<u64> { known(&load(&sinks).await).iter().map(|(since, _)| *since).collect() };
    assert_eq!(sinces().await, [10, 20, 30, 40]);
    // A source that crashes may forget how far the slot was, and send what is of an older one.
    load(&sinks).await.keep(0, &version(50, &[(1, "id")])).await.unwrap();
    assert_eq!(sinces().await, [10, 20, 30, 40, 50]);
}

#[tokio::test]
async fn what_one_sink_has_kept_holds_for_all_and_what_one_has_lost_is_kept_again() {
    let sinks = sinks(2);
    let first = load(&sinks).await;
    let (old, new) = (version(10, &[(1, "id"), (2, "a")]), version(20, &[(1, "id"), (3, "a")]));
    first.keep(0, &old).await.unwrap();
    first.keep(1, &old).await.unwrap();
    // A crash comes before the second sink is told.
    first.keep(0, &new).await.unwrap();
    let second = load(&sinks).await;
    assert_eq!(known(&second).len(), 2);
    sinks[0].put_note("versions/7", None).await.unwrap();
    let third = load(&sinks).await;
    third.keep_unknown(0, &[Arc::clone(&new)]).await.unwrap();
    assert_eq!(known(&third), known(&load(&sinks[..1]).await), "as the other sink has it, not as it is now");
}

#[tokio::test]
async fn the_same_version_met_again_is_kept_once_as_it_was_first() {
    let sinks = sinks(1);
    let versions = load(&sinks).await;
    let (old, new) = (version(10, &[(1, "id"), (2, "a")]), version(20, &[(1, "id"), (3, "a")]));
    for version in [&old, &new, &old, &new] {
        versions.keep(0, version).await.unwrap();
    }
    let mut columns = new.columns.clone();
    columns[1].has_default = true;
    versions.keep(0, &Arc::new(Relation { columns, ..(*new).clone() })).await.unwrap();
    // As a copy has it, from its snapshot on.
    versions.keep(0, &Arc::new(Relation { since: Lsn(99), ..(*new).clone() })).await.unwrap();
    assert_eq!(versions.to_begin_with(&[]), [old, new]);
}

#[tokio::test]
async fn the_number_of_versions_is_limited_and_the_first_stays() {
    let sinks = sinks(1);
    let versions = load(&sinks).await;
    for since in 1..200 {
        versions.keep(0, &version(since, &[(1, "id"), (since as i16 + 1, "a")])).await.unwrap();
    }
    let known = known(&versions);
    assert_eq!((known.len(), known[0].0, known[1].0), (VERSIONS_MAX, 1, 200 - VERSIONS_MAX as u64 + 1));
}

#[tokio::test]
async fn a_note_that_is_not_understood_stops_the_run_with_its_name() {
    let sinks = sinks(1);
    sinks[0].put_note("versions/7", Some("{\"version\": 2}")).await.unwrap();
    let error = Versions::load(&sinks).await.err().unwrap().to_string();
    assert!(error.contains("s0") && error.contains("versions/7"), "{error}");
}

/// Says which versions are in the notes when it is given a batch, or fails as told.
struct Watching(Arc<dyn Sink>, Arc<Mutex<Vec<bool>>>);

#[async_trait]
impl Lane for Watching {
    async fn prepare(&mut self, batch: Arc<Batch>) -> Result<Box<dyn Write>, SinkError> {
        let since = batch.relations()[0].since;
        let kept = load(std::slice::from_ref(&self.0)).await.to_begin_with(&[]);
        let is_kept = kept.iter().any(|version| version.since == since);
        self.1.lock().unwrap_or_else(PoisonError::into_inner).push(is_kept);
        Err(SinkError::retry("not today"))
    }
}

#[tokio::test]
async fn a_lane_sees_a_version_when_it_is_in_the_notes_and_not_before() {
    let sinks = sinks(1);
    let versions = Arc::new(load(&sinks).await);
    let seen = Arc::new(Mutex::new(Vec::new()));
    let mut lane = versions.lane(0, Box::new(Watching(Arc::clone(&sinks[0]), Arc::clone(&seen))));
    let batch = |since, op, fenced| {
        let relation = version(since, &[(1, "id"), (2, if since < 10 { "a" } else { "b" })]);
        let meta = TransactionMeta { id: TxnId(0), commit_lsn: Lsn(since), commit_time_us: 0, xid: 0 };
        let mut builder = BatchBuilder::new(Budget::new(1 << 20));
        let change = NewChange::without_row(op, 0);
        builder.push(&meta, &relation, change);
        Arc::new(builder.cut(fenced).unwrap())
    };
    for batch in [
        batch(5, Op::Insert, false),
        batch(10, Op::Schema, true),
        batch(20, Op::Truncate, true),
        batch(30, Op::Insert, false),
    ] {
        assert!(lane.prepare(batch).await.is_err());
    }
    let expected = [true, true, false, false];
    assert_eq!(*seen.lock().unwrap(), expected, "the first one that is met, and those that are told of");
}
