//! What the lake holds after it is folded is what the source holds: over stores that fail, with several that fold at
//! once, with so little memory that everything spills, and beyond the size of one put.
#![allow(clippy::unwrap_used)]

mod support;

use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use object_store::ObjectStore;
use object_store::memory::InMemory;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use replicator_lake::layout::TableFolder;
use replicator_lake::{
    CompactOptions, Compacted, Manifest, Moment, Retention, Snapshots, compact_table, restore_table,
    snapshot_table,
};
use replicator_sink::Lane;
use replicator_store::{PUT_BYTES_MAX, Put, Store};
use replicator_types::{Lsn, POSTGRES_EPOCH_UNIX_MICROS};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use support::faulty::Faulty;
use support::source::{Rows, Source};
use support::{logger, new_lane, persist, place, tight, write};

/// The rows of `data.parquet`, which has to be sorted and whole.
async fn rows(store: &Arc<dyn ObjectStore>) -> Rows {
    rows_of(place(store).get("cdc/public/items/data.parquet").await.unwrap())
}

fn rows_of(body: bytes::Bytes) -> Rows {
    let mut rows = Rows::new();
    for batch in ParquetRecordBatchReaderBuilder::try_new(body).unwrap().build().unwrap() {
        let batch = batch.unwrap();
        let ids = batch.column_by_name("id").unwrap().as_primitive::<Int64Type>();
        let text =
            |name: &str, row| batch.column_by_name(name).unwrap().as_string::<i32>().value(row).to_owned();
        for row in 0..batch.num_rows() {
            let id = ids.value(row);
            assert!(batch.column_by_name("unchanged").unwrap().is_null(row), "row {id} lacks values");
            assert!(rows.last_key_value().is_none_or(|(last, _)| *last < id), "sorted by key, each once");
            assert_eq!(text("pk", row), id.to_string());
            rows.insert(id, (text("small", row), text("big", row)));
        }
    }
    rows
}

/// Writes what the source made since `written`, in batches of any size, by a process that dies now and then.
async fn replicate(
    source: &mut Source,
    written: &mut usize,
    lane: &mut Option<Box<dyn Lane>>,
    store: &Arc<dyn ObjectStore>,
) {
    while *written < source.len() {
        let end = source.len().min(*written + 1 + source.number(30) as usize);
        let of_this_process = match lane {
            Some(lane) => lane,
            None => lane.insert(new_lane(store).await),
        };
        write(of_this_process, &source.batch(*written..end)).await;
        *written = end;
        if source.number(6) == 0 {
            *lane = None;
            *written -= source.number(20).min(end as u64) as usize;
        }
    }
}

async fn live(seed: u64, one_in: u64) -> Arc<Faulty> {
    let memory: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let faulty = Faulty::new(Arc::clone(&memory), seed, one_in);
    let store: Arc<dyn ObjectStore> = Arc::clone(&faulty) as _;
    let scratch = tempfile::tempdir().unwrap();
    let (options, folder) = (tight(scratch.path()), TableFolder::of("public", "items"));
    let mut source = Source::new(seed);
    let (mut written, mut lane) = (0, None);
    for round in 0..12 {
        (0..1 + source.number(60)).for_each(|_| source.commit());
        replicate(&mut source, &mut written, &mut lane, &store).await;
        let of_store = place(&store);
        loop {
            match persist(async || compact_table(&of_store, &folder, &options).await).await {
                Compacted::Nothing => break,
                Compacted::Done { .. } => {}
                other => panic!("seed {seed}, round {round}: {other:?}"),
            }
        }
        assert_eq!(rows(&memory).await, source.rows, "seed {seed}, round {round}");
    }
    faulty
}

#[tokio::test]
async fn rows_keep_their_large_values_when_their_keys_change_again_and_again() {
    for seed in 1..40 {
        live(seed, 0).await;
    }
}

#[tokio::test]
async fn a_store_that_fails_at_any_request_loses_nothing_and_needs_nobody() {
    let mut seen = std::collections::BTreeMap::new();
    for seed in 100..120 {
        for (fault, times) in live(seed, 9).await.seen() {
            *seen.entry(fault).or_insert(0) += times;
        }
    }
    // Three faults of puts, copies and deletes, four of gets.
    for request in ["put", "copy", "delete", "get", "list"] {
        let met = seen.keys().filter(|(of, _)| *of == request).count();
        assert!(met >= 3, "{request} met only {met} faults: {seen:?}");
    }
}

#[tokio::test]
async fn a_table_is_restored_as_it_was_at_any_moment_folded_or_not() {
    for seed in 300..312 {
        let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let scratch = tempfile::tempdir().unwrap();
        let (options, folder) = (tight(scratch.path()), TableFolder::of("public", "items"));
        let mut source = Source::new(seed);
        let (mut written, mut lane) = (0, None);
        for _ in 0..8 {
            (0..1 + source.number(30)).for_each(|_| source.commit());
            replicate(&mut source, &mut written, &mut lane, &store).await;
            if source.number(2) == 0 {
                compact_table(&place(&store), &folder, &options).await.unwrap();
            }
        }
        let out = scratch.path().join("restored");
        let of_store = place(&store);
        for _ in 0..10 {
            let which = source.number(source.past.len() as u64) as usize;
            let (lsn, time_us, then) = &source.past[which];
            let time_us = time_us + POSTGRES_EPOCH_UNIX_MICROS;
            // To the end of the transaction, and to just before the next.
            for moment in [Moment::Lsn(*lsn), Moment::Lsn(Lsn(lsn.0 + 7)), Moment::Time(time_us)] {
                let restored = restore_table(&of_store, &folder, moment, &options.fold, &out).await;
                restored.unwrap_or_else(|error| panic!("seed {seed}, {moment:?}: {error}"));
                let rows = rows_of(std::fs::read(&out).unwrap().into());
                assert_eq!(rows, *then, "seed {seed}, {moment:?}");
            }
        }
        let before = Moment::Time(source.past[0].1 + POSTGRES_EPOCH_UNIX_MICROS - 1);
        let refused = restore_table(&of_store, &folder, before, &options.fold, &out).await.unwrap_err();
        assert!(refused.to_string().contains("nothing from before that moment"), "{refused}");
    }
}

#[tokio::test]
async fn a_moment_whose_changes_were_removed_is_refused_and_later_ones_are_not() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let scratch = tempfile::tempdir().unwrap();
    let folder = TableFolder::of("public", "items");
    let removing = CompactOptions { delete_folded: true, ..tight(scratch.path()) };
    // No truncate among its changes.
    let mut source = Source::new(7);
    let (mut written, mut lane) = (0, None);
    for options in [&removing, &tight(scratch.path())] {
        (0..20).for_each(|_| source.commit());
        replicate(&mut source, &mut written, &mut lane, &store).await;
        compact_table(&place(&store), &folder, options).await.unwrap();
    }
    (0..20).for_each(|_| source.commit());
    replicate(&mut source, &mut written, &mut lane, &store).await;
    let out = scratch.path().join("restored");
    let options = tight(scratch.path()).fold;
    for (which, is_there) in [(10, false), (30, false), (39, true), (50, true)] {
        let (lsn, _, then) = &source.past[which];
        let result = restore_table(&place(&store), &folder, Moment::Lsn(*lsn), &options, &out).await;
        match result {
            Ok(_) if is_there => assert_eq!(rows_of(std::fs::read(&out).unwrap().into()), *then),
            Err(error) if !is_there => assert!(error.to_string().contains("were removed"), "{error}"),
            other => panic!("transaction {which}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn a_snapshot_gives_back_a_table_whose_changes_were_removed_and_so_many_are_kept() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let scratch = tempfile::tempdir().unwrap();
    let folder = TableFolder::of("public", "items");
    let removing = CompactOptions { delete_folded: true, ..tight(scratch.path()) };
    let of_store = place(&store);
    let mut source = Source::new(11);
    let (mut written, mut lane, mut days) = (0, None, Vec::new());
    for day in 0..40 {
        (0..5).for_each(|_| source.commit());
        replicate(&mut source, &mut written, &mut lane, &store).await;
        compact_table(&of_store, &folder, &removing).await.unwrap();
        // From 2026-03-18 on.
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_773_824_400 + day * 86_400);
        let would = snapshot_table(&of_store, &folder, Retention::default(), now, true).await.unwrap();
        let done = snapshot_table(&of_store, &folder, Retention::default(), now, false).await.unwrap();
        assert_eq!(would, done, "a dry run says what is done");
        let again = snapshot_table(&of_store, &folder, Retention::default(), now, false).await.unwrap();
        assert_eq!(again, Snapshots::default(), "once a day");
        let (manifest, _) = Manifest::find(&of_store, &folder).await.unwrap().unwrap();
        days.push((manifest.folded_through().unwrap(), source.rows.clone()));
    }
    let names: Vec<String> =
        of_store.list(&folder.snapshots()).await.unwrap().into_iter().map(|f| f.path).collect();
    assert_eq!(names.len(), 30 + 2 + 1, "30 days, March and April, the manifest: {names:?}");
    let has = |name: &str| names.iter().any(|path| path.ends_with(&format!("snapshots/{name}.parquet")));
    assert!(has("2026-03") && has("2026-04") && has("2026-03-28") && !has("2026-03-27"), "{names:?}");
    let out = scratch.path().join("restored");
    for (day, (through, rows)) in days.iter().enumerate() {
        // The first day's is March's.
        let is_kept = day == 0 || day >= 10;
        let moment = Moment::Bookmark(*through);
        let restored = restore_table(&of_store, &folder, moment, &removing.fold, &out).await;
        match restored {
            Ok(_) if is_kept => assert_eq!(rows_of(std::fs::read(&out).unwrap().into()), *rows, "day {day}"),
            Err(error) if !is_kept => assert!(error.to_string().contains("were removed"), "{error}"),
            other => panic!("day {day}: {other:?}"),
        }
    }
    // Between two snapshots there were changes, and nobody has them any more.
    let between = Moment::Lsn(source.past[102].0);
    let refused = restore_table(&of_store, &folder, between, &removing.fold, &out).await.unwrap_err();
    assert!(refused.to_string().contains("were removed"), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_that_fold_beside_a_writer_lose_nothing() {
    for seed in 200..206 {
        let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let done = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let folding = (0..2).map(|_| {
            let (store, done) = (Arc::clone(&store), Arc::clone(&done));
            tokio::spawn(async move {
                let scratch = tempfile::tempdir().unwrap();
                let (of_store, folder) = (place(&store), TableFolder::of("public", "items"));
                let options = tight(scratch.path());
                let mut folds = 0;
                while !done.load(std::sync::atomic::Ordering::Relaxed) {
                    // A file that the other has moved meanwhile is an error that passes.
                    match compact_table(&of_store, &folder, &options).await {
                        Ok(Compacted::Done { .. }) => folds += 1,
                        Ok(_) => {}
                        Err(error) => assert_eq!(error.kind(), replicator_sink::ErrorKind::Retry, "{error}"),
                    }
                    tokio::task::yield_now().await;
                }
                folds
            })
        });
        let folding: Vec<_> = folding.collect();
        let mut source = Source::new(seed);
        let (mut written, mut lane) = (0, None);
        for _ in 0..60 {
            (0..6).for_each(|_| source.commit());
            replicate(&mut source, &mut written, &mut lane, &store).await;
            tokio::time::sleep(Duration::from_millis(3)).await;
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        let mut folds = 0;
        for task in folding {
            folds += task.await.unwrap();
        }
        assert!(folds > 2, "they folded {folds} times");
        let (scratch, folder) = (tempfile::tempdir().unwrap(), TableFolder::of("public", "items"));
        compact_table(&place(&store), &folder, &tight(scratch.path())).await.unwrap();
        assert_eq!(rows(&store).await, source.rows, "seed {seed}");
    }
}

#[tokio::test]
async fn a_file_larger_than_one_put_arrives_whole_and_only_in_the_place_of_what_was_seen() {
    let memory: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let folder = tempfile::tempdir().unwrap();
    let place_config = replicator_config::StorePlace {
        url: format!("file://{}", folder.path().display()),
        endpoint: String::new(),
        region: "auto".into(),
        access_key_id: replicator_config::Secret::default(),
        secret_access_key: replicator_config::Secret::default(),
        secret_access_key_file: None,
        request_timeout_ms: 10_000,
    };
    let large: Vec<u8> = (0..PUT_BYTES_MAX + 12_345).map(|n| (n % 251) as u8).collect();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), &large).unwrap();
    let open = || std::fs::File::open(file.path()).unwrap();
    for store in [Store::at(memory, "p", logger()), Store::open(&place_config, logger()).unwrap()] {
        assert_eq!(store.replace_with_file("x/large", open(), None).await.unwrap(), Put::Done);
        let seen = store.head("x/large").await.unwrap().unwrap();
        assert_eq!(seen.bytes, large.len() as u64);
        let back = tempfile::NamedTempFile::new().unwrap();
        store.download("x/large", back.reopen().unwrap()).await.unwrap();
        assert!(std::fs::read(back.path()).unwrap() == large, "the same bytes");
        assert_eq!(store.replace_with_file("x/large", open(), None).await.unwrap(), Put::Exists);
        let again = store.replace_with_file("x/large", open(), Some(&seen.version)).await.unwrap();
        assert_eq!(again, Put::Done);
    }
}
