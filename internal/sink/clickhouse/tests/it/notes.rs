use crate::support::*;
use replicator_sink::Sink;
use replicator_types::SlotIdentity;
use std::collections::BTreeMap;

#[tokio::test(flavor = "multi_thread")]
async fn notes_outlive_the_process_and_the_last_word_counts() {
    let fixture = Fixture::new();
    let (sink, _) = fixture.run(&[]).await;
    assert_eq!(sink.notes().await.unwrap(), BTreeMap::new());
    for value in ["1", "2", "it's `\\ \u{1F418}\n"] {
        sink.put_note("copy/public.t/0", Some(value)).await.unwrap();
        sink.put_note("gone", Some(value)).await.unwrap();
    }
    // The same text again is not taken for the insert that had it first.
    sink.put_note("again", Some("a")).await.unwrap();
    sink.put_note("again", Some("b")).await.unwrap();
    sink.put_note("again", Some("a")).await.unwrap();
    sink.put_note("gone", None).await.unwrap();
    let expected = BTreeMap::from([
        ("again".to_owned(), "a".to_owned()),
        ("copy/public.t/0".to_owned(), "it's `\\ \u{1F418}\n".to_owned()),
    ]);
    assert_eq!(sink.notes().await.unwrap(), expected);
    let (sink, _) = fixture.run(&[]).await;
    assert_eq!(sink.notes().await.unwrap(), expected);
    sink.put_note("again", Some("c")).await.unwrap();
    assert_eq!(sink.notes().await.unwrap().get("again").map(String::as_str), Some("c"));
}

#[tokio::test(flavor = "multi_thread")]
async fn notes_of_another_slot_are_not_seen_and_those_about_tables_are_the_sinks_own() {
    let fixture = Fixture::new();
    let orders = orders();
    let (sink, stream) = fixture.run(&[&orders]).await;
    sink.put_note("a", Some("1")).await.unwrap();
    assert_eq!(sink.notes().await.unwrap().len(), 1, "the record of orders is none of the pipeline's");
    let other = fixture.sink();
    let identity = SlotIdentity { slot: format!("{}x", stream.identity.slot), ..stream.identity.clone() };
    other.prepare(&replicator_sink::StreamInfo { identity, tables: Vec::new(), ..stream }).await.unwrap();
    assert_eq!(other.notes().await.unwrap(), BTreeMap::new());
    other.put_note("a", None).await.unwrap();
    assert_eq!(sink.notes().await.unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_note_larger_than_a_query_may_be_is_kept() {
    let fixture = Fixture::new();
    let (sink, _) = fixture.run(&[]).await;
    let text = "x\u{fc}\0".repeat(200_000);
    sink.put_note("large", Some(&text)).await.unwrap();
    assert_eq!(sink.notes().await.unwrap().get("large"), Some(&text));
}
