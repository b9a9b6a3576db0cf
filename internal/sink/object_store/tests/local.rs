//! A folder as the store.

#![allow(clippy::unwrap_used)]

mod support;

use replicator_config::ObjectStoreConfig;
use replicator_sink::{ErrorKind, Sink};
use replicator_sink_object_store::{ObjectStoreSink, open};
use serde_json::json;
use std::fs;
use std::path::{Path, PathBuf};
use support::batches::*;
use support::*;

fn config(url: &str) -> ObjectStoreConfig {
    serde_json::from_value(json!({"url": url})).unwrap()
}

fn open_folder(folder: &Path) -> ObjectStoreSink {
    open("archive".into(), config(&format!("file://{}", folder.display())), logger()).unwrap()
}

async fn write_all(folder: &Path, events: &[Event], size: usize) {
    let sink = open_folder(folder);
    sink.prepare(&stream_info()).await.unwrap();
    let mut lane = sink.open_lane(0, &stream_info()).await.unwrap();
    for part in events.chunks(size) {
        write(&mut lane, part).await;
    }
}

fn files_under(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files.extend(files_under(&path)) } else { files.push(path) }
    }
    files.sort();
    files
}

fn archived_ids(folder: &Path) -> Vec<String> {
    let lines = files_under(folder).into_iter().flat_map(|path| lines(&fs::read(path).unwrap()));
    let mut ids: Vec<String> = lines.map(|line| line["event_id"].as_str().unwrap().to_owned()).collect();
    ids.sort();
    ids
}

#[tokio::test]
async fn a_folder_that_is_not_there_is_made_and_filled_and_not_filled_twice() {
    let scratch = tempfile::tempdir().unwrap();
    let folder = scratch.path().join("with space/and 100%/ärchive");
    let events = inserts(transaction(1, NINE_O_CLOCK), &items(), 10);
    write_all(&folder, &events, 4).await;
    assert_eq!(archived_ids(&folder), ids(&events));
    let files = files_under(&folder);
    assert!(files[0].starts_with(folder.join("wal/events/2026/03/18/09")), "{files:?}");
    write_all(&folder, &events, 3).await;
    assert_eq!(files_under(&folder), files);
}

#[tokio::test]
async fn what_a_killed_process_left_unfinished_is_cleared_away() {
    let scratch = tempfile::tempdir().unwrap();
    let hour = scratch.path().join("wal/events/2026/03/18/09");
    fs::create_dir_all(&hour).unwrap();
    fs::write(hour.join("01ARYZ6S41TSV4RRFFQ69G5FAV.ndjson.gz#1"), "half").unwrap();
    fs::write(hour.join("mine.txt#1"), "kept").unwrap();
    let events = inserts(transaction(1, NINE_O_CLOCK), &items(), 2);
    write_all(scratch.path(), &events, 10).await;
    let names: Vec<_> = files_under(&hour).iter().map(|path| path.file_name().unwrap().to_owned()).collect();
    assert_eq!(names.len(), 2, "{names:?}");
    assert!(hour.join("mine.txt#1").exists());
}

#[tokio::test]
async fn a_check_finds_out_without_making_anything() {
    let scratch = tempfile::tempdir().unwrap();
    let items = open_folder(&scratch.path().join("not/yet")).check(&[]).await;
    assert!(items.iter().all(|item| item.result.is_ok()), "{items:?}");
    assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn a_file_in_the_folders_place_is_told() {
    let scratch = tempfile::tempdir().unwrap();
    let file = scratch.path().join("file");
    fs::write(&file, "").unwrap();
    for folder in [file.clone(), file.join("below")] {
        let sink = open_folder(&folder);
        let failed: Vec<_> = sink.check(&[]).await.into_iter().filter_map(|item| item.result.err()).collect();
        assert!(failed.iter().any(|text| text.contains("correct the sink's url")), "{failed:?}");
        let error = sink.prepare(&stream_info()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Halt, "{error}");
        assert!(error.to_string().contains("file") && error.to_string().contains("url"), "{error}");
    }
}

#[tokio::test]
async fn it_answers_while_the_folder_is_there() {
    let scratch = tempfile::tempdir().unwrap();
    let folder = scratch.path().join("a");
    let sink = open_folder(&folder);
    assert!(sink.ping().await.is_err());
    sink.prepare(&stream_info()).await.unwrap();
    sink.ping().await.unwrap();
}

#[test]
fn a_url_that_means_nothing_is_an_error_with_the_remedy() {
    for url in [
        "",
        "archive",
        "/archive",
        "file://relative",
        "http://host/bucket",
        "s3://",
        "s3:///x",
        "gs://bucket",
    ] {
        let error = open("archive".into(), config(url), logger()).err().unwrap_or_else(|| panic!("{url}"));
        assert_eq!(error.kind(), ErrorKind::Halt);
        assert!(error.to_string().contains("s3://bucket/prefix or file:///folder"), "{error}");
    }
}

#[tokio::test]
async fn notes_and_copied_rows_lie_beside_the_stream_and_half_written_ones_are_cleared_away() {
    let scratch = tempfile::tempdir().unwrap();
    let notes = scratch.path().join("replicator/notes");
    fs::create_dir_all(&notes).unwrap();
    fs::write(notes.join("0000000000001234-my_slot-archive.json#1"), "half").unwrap();
    let sink = open_folder(scratch.path());
    sink.prepare(&stream_info()).await.unwrap();
    sink.put_note("a", Some("1")).await.unwrap();
    sink.put_note("a", Some("2")).await.unwrap();
    assert_eq!(files_under(&notes), [notes.join("0000000000001234-my_slot-archive.json")]);
    let copy = table_copy(&items(), 800);
    let mut lane = sink.open_copy_lane(0, &stream_info()).await.unwrap();
    write_copied(&mut lane, &copied_rows(&copy, 0, 3)).await;
    assert_eq!(archived_ids(&scratch.path().join("wal/copy/2026/03/18/09")).len(), 3);
    let again = open_folder(scratch.path());
    again.prepare(&stream_info()).await.unwrap();
    assert_eq!(again.notes().await.unwrap()["a"], "2");
}
