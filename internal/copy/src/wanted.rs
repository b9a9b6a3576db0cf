//! Tables of a sink that are to be copied anew, whatever it has of them.

use crate::ledger::{Note, is_of_table, key, table_of};
use replicator_sink::{Sink, SinkError};
use std::collections::BTreeMap;

/// Has a sink, which is prepared, note that these tables, and all others that it knows of, are to be copied anew and emptied
/// before: the next run does so.
///
/// # Errors
/// The sink.
pub async fn want_again(sink: &dyn Sink, tables: &[(u32, String)]) -> Result<(), SinkError> {
    let known = sink.notes().await?;
    let mut wanted = BTreeMap::new();
    for (key, text) in &known {
        // What can't be read is told when the next run begins.
        let note = serde_json::from_str::<Note>(text).ok();
        wanted.extend(table_of(key).zip(note.map(Note::into_table)));
    }
    wanted.extend(tables.iter().cloned());
    let mut notes = Vec::new();
    for (oid, table) in wanted {
        notes.push((key(oid), Note::Wanted { table }.text().map_err(SinkError::halt)?));
    }
    sink.put_notes(&notes).await
}

/// Whether a sink has anything of any table's copy, by its notes.
pub fn knows_tables(notes: &BTreeMap<String, String>) -> bool {
    let is_there = |text: &str| !matches!(serde_json::from_str(text), Ok(Note::Wanted { .. }));
    notes.iter().any(|(key, text)| is_of_table(key) && is_there(text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use replicator_sink::Blackhole;

    #[tokio::test]
    async fn tables_that_a_sink_has_and_those_that_it_is_to_have_are_wanted() {
        let sink = Blackhole::new("s", 1);
        let done = r#"{"state":"done","table":"public.old","from":"0/10+3"}"#;
        let aside = r#"{"state":"aside","table":"public.refused","reason":"too long"}"#;
        let notes = [("copy/1", done), ("copy/2", aside), ("copy/3", "unreadable"), ("other/4", done)];
        for (key, text) in notes {
            sink.put_note(key, Some(text)).await.expect("a note");
        }
        assert!(knows_tables(&sink.notes().await.expect("notes")));
        want_again(&sink, &[(1, "public.renamed".to_owned()), (9, "public.new".to_owned())])
            .await
            .expect("notes");
        let notes = sink.notes().await.expect("notes");
        let table = |key: &str| match serde_json::from_str(&notes[key]) {
            Ok(Note::Wanted { table }) => table,
            other => panic!("{key}: {other:?}"),
        };
        assert_eq!(
            ["copy/1", "copy/2", "copy/9"].map(table),
            ["public.renamed", "public.refused", "public.new"]
        );
        assert_eq!((notes["copy/3"].as_str(), notes["other/4"].as_str()), ("unreadable", done));
        sink.put_note("copy/3", None).await.expect("a note");
        assert!(!knows_tables(&sink.notes().await.expect("notes")));
    }
}
