//! Each event once, however the process dies, the store fails and the stream is cut.

#![allow(clippy::unwrap_used)]

mod support;

use object_store::ObjectStore;
use proptest::prelude::*;
use proptest::test_runner::TestCaseError;
use replicator_sink::{ErrorKind, Write};
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use support::batches::*;
use support::faulty::{Fault, Faulty};
use support::*;

/// Two transactions of ten changes each, one second apart.
fn twenty() -> Vec<Event> {
    let relation = items();
    let mut events = inserts(transaction(100, NINE_O_CLOCK), &relation, 10);
    events.extend(inserts(transaction(200, NINE_O_CLOCK + 1_000_000), &relation, 10));
    events
}

#[tokio::test]
async fn a_replay_cut_otherwise_writes_nothing_again() {
    let (store, all) = (memory(), twenty());
    let mut lane = new_lane(&store).await;
    for part in all.chunks(7) {
        write(&mut lane, part).await;
    }
    let before: Vec<String> = files(&store).await.into_keys().collect();
    for size in [1, 3, 20] {
        let mut lane = new_lane(&store).await;
        for part in all.chunks(size) {
            let mut again = prepare(&mut lane, part).await.unwrap();
            assert_eq!(again.held_bytes(), 0);
            again.send().await.unwrap();
        }
    }
    assert_eq!(files(&store).await.into_keys().collect::<Vec<_>>(), before);
    assert_eq!(event_ids(&store).await, ids(&all));
}

#[tokio::test]
async fn the_gap_that_a_crash_left_is_filled_and_nothing_around_it() {
    let (store, all) = (memory(), twenty());
    let mut lane = new_lane(&store).await;
    let mut writes = Vec::new();
    for part in all.chunks(4) {
        writes.push(prepare(&mut lane, part).await.unwrap());
    }
    // The second and the last but one are still on their way when the process dies.
    for (index, write) in writes.iter_mut().enumerate() {
        if index != 1 && index != 3 {
            write.send().await.unwrap();
        }
    }
    assert_eq!(event_ids(&store).await.len(), 12);
    let mut lane = new_lane(&store).await;
    for part in all.chunks(6) {
        write(&mut lane, part).await;
    }
    assert_eq!(event_ids(&store).await, ids(&all));
    let files = files(&store).await;
    assert_eq!(files.values().map(Vec::len).collect::<Vec<_>>(), [4, 2, 2, 4, 4, 4]);
}

#[tokio::test]
async fn a_put_whose_reply_was_lost_is_done_by_the_next_try() {
    let faulty = Faulty::new(memory());
    let store: Arc<dyn ObjectStore> = faulty.clone();
    let all = twenty();
    let mut lane = new_lane(&store).await;
    let mut write = prepare(&mut lane, &all).await.unwrap();
    faulty.plan([Fault::After]);
    assert_eq!(write.send().await.unwrap_err().kind(), ErrorKind::Retry);
    assert!(write.held_bytes() > 0, "what is not known to be durable is held");
    write.send().await.unwrap();
    assert_eq!(event_ids(&store).await, ids(&all));
    assert_eq!(faulty.puts.lock().unwrap().len(), 2);
}

#[tokio::test]
async fn of_a_batch_of_two_files_only_the_one_that_failed_is_sent_again() {
    let faulty = Faulty::new(memory());
    let store: Arc<dyn ObjectStore> = faulty.clone();
    let mut all = inserts(transaction(1, NINE_O_CLOCK - 1), &items(), 2);
    all.extend(inserts(transaction(2, NINE_O_CLOCK), &items(), 2));
    let mut lane = new_lane(&store).await;
    let mut write = prepare(&mut lane, &all).await.unwrap();
    faulty.plan([Fault::None, Fault::Before]);
    write.send().await.unwrap_err();
    write.send().await.unwrap();
    let puts = faulty.puts.lock().unwrap().clone();
    assert_eq!((puts.len(), &puts[1]), (3, &puts[2]));
    assert_eq!(event_ids(&store).await, ids(&all));
}

/// A dead process' put may arrive after the new one has looked.
#[tokio::test]
async fn an_object_that_appears_under_our_name_is_read_and_only_the_rest_is_written() {
    let (store, all) = (memory(), twenty());
    let mut dead = new_lane(&store).await;
    let mut late = prepare(&mut dead, &all[..7]).await.unwrap();
    let mut lane = new_lane(&store).await;
    let mut write = prepare(&mut lane, &all).await.unwrap();
    late.send().await.unwrap();
    write.send().await.unwrap();
    assert_eq!(event_ids(&store).await, ids(&all));
    let files: Vec<_> = files(&store).await.into_values().collect();
    assert_eq!(files.iter().map(Vec::len).collect::<Vec<_>>(), [7, 13]);
    assert_eq!(files[1][0]["relation"], files[0][0]["relation"], "each file describes its tables");
    assert!(files[1][1].get("relation").is_none());

    // And the other way about: all that we have is there, and more.
    let store = memory();
    let mut late = prepare(&mut new_lane(&store).await, &all).await.unwrap();
    let mut write = prepare(&mut new_lane(&store).await, &all[..7]).await.unwrap();
    late.send().await.unwrap();
    write.send().await.unwrap();
    assert_eq!(event_ids(&store).await, ids(&all));
}

#[tokio::test]
async fn a_store_without_conditional_puts_gets_plain_ones() {
    let faulty = Faulty::new(memory());
    let store: Arc<dyn ObjectStore> = faulty.clone();
    let all = twenty();
    let mut lane = new_lane(&store).await;
    let mut first = prepare(&mut lane, &all[..10]).await.unwrap();
    faulty.plan([Fault::Unconditional]);
    first.send().await.unwrap();
    write(&mut lane, &all[10..]).await;
    assert_eq!(event_ids(&store).await, ids(&all));
    assert_eq!(faulty.puts.lock().unwrap().len(), 3, "it is asked once");
}

#[tokio::test]
async fn without_interruption_an_hour_is_listed_once_and_nothing_is_read() {
    let faulty = Faulty::new(memory());
    let store: Arc<dyn ObjectStore> = faulty.clone();
    let all = twenty();
    let mut lane = new_lane(&store).await;
    for part in all.chunks(3) {
        write(&mut lane, part).await;
    }
    assert_eq!(faulty.lists.lock().unwrap().as_slice(), ["some/prefix/wal/events/2026/03/18/09"]);
    assert!(faulty.gets.lock().unwrap().is_empty());
}

#[tokio::test]
async fn files_of_another_slot_stop_the_sink() {
    let (store, all) = (memory(), twenty());
    write(&mut new_lane(&store).await, &all).await;
    let mut other = stream_info();
    other.identity.slot = "other".into();
    let mut lane = replicator_sink::Sink::open_lane(&sink(&store), 0, &other).await.unwrap();
    let error = prepare(&mut lane, &all).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Halt);
    let text = error.to_string();
    assert!(
        text.contains(".ndjson.gz") && text.contains("another slot") && text.contains("url of its own"),
        "{text}"
    );
}

#[tokio::test]
async fn an_object_that_is_no_archive_file_stops_the_sink_by_name() {
    use object_store::ObjectStoreExt;
    for junk in [&b"not gzip"[..], &b"\x1f\x8b\x08\0\0\0\0\0\0\xff"[..], b""] {
        let (store, all) = (memory(), twenty());
        write(&mut new_lane(&store).await, &all[..5]).await;
        let path = files(&store).await.into_keys().next().unwrap();
        store.put(&path.as_str().into(), junk.to_vec().into()).await.unwrap();
        let error = prepare(&mut new_lane(&store).await, &all).await.err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Halt);
        assert!(error.to_string().contains("Move it elsewhere"), "{error}");
    }
}

#[tokio::test]
async fn other_transactions_at_the_same_positions_stop_the_sink() {
    let (store, mut all) = (memory(), twenty());
    write(&mut new_lane(&store).await, &all).await;
    for event in &mut all[10..] {
        event.transaction.xid += 1;
    }
    let error = prepare(&mut new_lane(&store).await, &all).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Halt);
    assert!(error.to_string().contains("history was rewritten"), "{error}");
}

#[tokio::test]
async fn an_event_that_a_filter_used_to_leave_out_is_written_when_it_comes_again() {
    let (store, all) = (memory(), twenty());
    let filtered: Vec<Event> = all.iter().filter(|event| event.ordinal % 3 != 1).cloned().collect();
    write(&mut new_lane(&store).await, &filtered).await;
    write(&mut new_lane(&store).await, &all).await;
    assert_eq!(event_ids(&store).await, ids(&all));
}

#[tokio::test]
async fn a_file_of_events_that_a_filter_now_leaves_out_is_not_spanned() {
    let (store, all) = (memory(), twenty());
    write(&mut new_lane(&store).await, &all[4..6]).await;
    let filtered = [&all[..4], &all[6..]].concat();
    for _ in 0..2 {
        write(&mut new_lane(&store).await, &filtered).await;
        assert_eq!(event_ids(&store).await, ids(&all));
    }
    assert_eq!(files(&store).await.values().map(Vec::len).collect::<Vec<_>>(), [4, 2, 14]);
}

#[tokio::test]
async fn objects_that_are_not_ours_are_left_alone() {
    use object_store::ObjectStoreExt;
    let (store, all) = (memory(), twenty());
    let folder = "some/prefix/wal/events/2026/03/18/09";
    for name in
        ["notes.txt", "00000000000000000000000000.parquet", "deeper/01ARYZ6S41TSV4RRFFQ69G5FAV.ndjson.gz"]
    {
        store.put(&format!("{folder}/{name}").into(), "x".into()).await.unwrap();
    }
    let mut lane = new_lane(&store).await;
    let mut write = prepare(&mut lane, &all).await.unwrap();
    write.send().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_of_a_lane_run_side_by_side() {
    let store = memory();
    let mut lane = new_lane(&store).await;
    assert_eq!(lane.in_flight_max(), 8);
    let all = twenty();
    let mut tasks = tokio::task::JoinSet::new();
    for part in all.chunks(3) {
        let mut write = prepare(&mut lane, part).await.unwrap();
        tasks.spawn(async move { write.send().await.unwrap() });
    }
    tasks.join_all().await;
    assert_eq!(event_ids(&store).await, ids(&all));
}

#[test]
fn puts_bytes_and_events_are_counted_by_sink() {
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let faulty = Faulty::new(memory());
    let store: Arc<dyn ObjectStore> = faulty.clone();
    let mut bytes = 0;
    metrics::with_local_recorder(&recorder, || {
        runtime.block_on(async {
            let mut write = prepare(&mut new_lane(&store).await, &twenty()).await.unwrap();
            bytes = write.held_bytes();
            faulty.plan([Fault::Before]);
            write.send().await.unwrap_err();
            write.send().await.unwrap();
        });
    });
    let text = recorder.handle().render();
    for (name, value) in [("puts", 2), ("events", 20), ("bytes", bytes)] {
        let line = format!("replicator_archive_{name}_total{{sink=\"archive\"}} {value}\n");
        assert!(text.contains(&line), "{line} in {text}");
    }
}

/// One life of the process.
#[derive(Clone, Debug)]
struct Life {
    /// How far before the first transaction that is not acknowledged the stream begins, in transactions.
    step_back: usize,
    /// Sizes of the batches, over and over.
    sizes: Vec<usize>,
    /// Which write in flight is sent next.
    picks: Vec<usize>,
    /// How many steps (a prepare or a send) it lives.
    steps: usize,
    faults: Vec<Fault>,
}

fn life() -> impl Strategy<Value = Life> {
    let fault = prop_oneof![6 => Just(Fault::None), 1 => Just(Fault::Before), 1 => Just(Fault::After)];
    (
        0..4usize,
        prop::collection::vec(1..12usize, 1..6),
        prop::collection::vec(0..8usize, 1..6),
        0..30usize,
        prop::collection::vec(fault, 0..30),
    )
        .prop_map(|(step_back, sizes, picks, steps, faults)| Life {
            step_back,
            sizes,
            picks,
            steps,
            faults,
        })
}

/// Transactions of these numbers of changes, with commit times that cross two full hours and go back and
/// forth by up to some seconds.
fn stream(shape: &[(u8, i8)]) -> Vec<Vec<Event>> {
    let tables = [items(), table("others", items().columns.clone())];
    let two_hours = 7_200_000_000;
    shape
        .iter()
        .enumerate()
        .map(|(n, (changes, jitter))| {
            let time = NINE_O_CLOCK - 1_800_000_000 + two_hours * n as i64 / shape.len() as i64;
            let of = transaction(1000 + 10 * n as u64, time + i64::from(*jitter) * 10_000_000);
            // Gaps in the ordinals, as another sink's tables leave them.
            let mut events = inserts(of, &tables[n % 2], u64::from(*changes) * 2);
            events.retain(|event| event.ordinal % 3 != 0 || event.ordinal == 0);
            events
        })
        .collect()
}

/// Lives one life: batches are prepared in order, several writes are in flight, any of them ends first, errors
/// are met with another call. Returns how many transactions from the first on are durable.
async fn live(
    store: &Arc<dyn ObjectStore>,
    faulty: &Faulty,
    transactions: &[Vec<Event>],
    acknowledged: usize,
    life: &Life,
) -> usize {
    let from = acknowledged.saturating_sub(life.step_back);
    let events: Vec<Event> = transactions[from..].concat();
    let mut lane = new_lane(store).await;
    faulty.plan(life.faults.iter().copied());
    let mut sizes = life.sizes.iter().cycle();
    let mut picks = life.picks.iter().cycle();
    let mut durable: HashSet<String> = transactions[..from].iter().flatten().map(Event::id).collect();
    let mut in_flight: Vec<(Box<dyn Write>, Vec<String>)> = Vec::new();
    let mut rest = &events[..];
    for step in 0..life.steps {
        if !rest.is_empty() && (in_flight.len() < 4 && step % 3 != 2) {
            let (part, after) = rest.split_at(rest.len().min(*sizes.next().unwrap()));
            match prepare(&mut lane, part).await {
                Ok(write) => {
                    in_flight.push((write, ids(part)));
                    rest = after;
                }
                Err(error) => assert_eq!(error.kind(), ErrorKind::Retry, "{error}"),
            }
        } else if !in_flight.is_empty() {
            let index = picks.next().unwrap() % in_flight.len();
            match in_flight[index].0.send().await {
                Ok(()) => durable.extend(in_flight.remove(index).1),
                Err(error) => assert_eq!(error.kind(), ErrorKind::Retry, "{error}"),
            }
        } else {
            break;
        }
    }
    let is_durable = |events: &&Vec<Event>| events.iter().all(|event| durable.contains(&event.id()));
    acknowledged.max(transactions.iter().take_while(is_durable).count())
}

async fn check_archive(
    store: &Arc<dyn ObjectStore>,
    transactions: &[Vec<Event>],
) -> Result<(), TestCaseError> {
    let expected: BTreeMap<String, &Event> =
        transactions.iter().flatten().map(|event| (event.id(), event)).collect();
    prop_assert_eq!(event_ids(store).await, expected.keys().cloned().collect::<Vec<_>>());
    for (path, lines) in files(store).await {
        let mut described = HashSet::new();
        let mut last = String::new();
        for line in lines {
            let id = line["event_id"].as_str().unwrap().to_owned();
            let event = expected[&id];
            let key = event.transaction.commit_lsn.0 * 1000 + event.ordinal;
            prop_assert_eq!(&line["after"]["id"], key);
            prop_assert_eq!(line["table"].as_str(), Some(event.relation.name.as_str()));
            let first = described.insert(line["table"].clone());
            prop_assert_eq!(line.get("relation").is_some(), first, "{} {}", path, id);
            let hour = line["commit_time"].as_str().unwrap()[..13].replace(['-', 'T'], "/");
            prop_assert!(path.contains(&format!("/{hour}/")), "{} has {}", path, hour);
            prop_assert!(id > last);
            last = id;
        }
    }
    Ok(())
}

proptest! {
    #[test]
    fn after_any_crashes_and_faults_each_event_is_there_once(
        shape in prop::collection::vec((1..9u8, any::<i8>()), 1..14),
        lives in prop::collection::vec(life(), 0..5),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let faulty = Faulty::new(memory());
            let store: Arc<dyn ObjectStore> = faulty.clone();
            let transactions = stream(&shape);
            let mut acknowledged = 0;
            for life in &lives {
                acknowledged = live(&store, &faulty, &transactions, acknowledged, life).await;
            }
            faulty.plan([]);
            let last = Life { step_back: 2, sizes: vec![5], picks: vec![0], steps: 10_000, faults: Vec::new() };
            let durable = live(&store, &faulty, &transactions, acknowledged, &last).await;
            prop_assert_eq!(durable, transactions.len());
            check_archive(&store, &transactions).await
        })?;
    }
}
