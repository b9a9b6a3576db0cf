//! What logs that were left out of a table have missed: it comes from the stream again.
//!
//! A sink that holds state is right again with a copy. A log is to have every change: when somebody asks for the table, the
//! log's note says again what it said before, and the process begins again. The stream begins before the first change that
//! the log was left out of, since nothing from there on was acknowledged, and what the log has it leaves out.
//!
//! The request comes again too, behind all that. So that a log which refuses the table once more does not have the process
//! begin again for ever, its notes say for which request that was done.

use crate::ledger::{Ledger, Note, key};
use crate::shared::Shared;
use replicator_pipeline::Backoff;
use replicator_types::Lsn;

/// Notes about requests that logs were taken back for have this in front of the table's oid.
const KEY_PREFIX: &str = "taken-back/";

/// What became of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum TakeBack {
    /// No log is left out of the table.
    Nothing,
    /// Another run brings what they have missed.
    Done,
    /// It was done for that request already, and they refused the table again.
    InVain,
}

/// Takes the logs back that are left out of a table, for a request that lies at `at`.
pub(crate) async fn take_back(
    shared: &Shared,
    ledger: &Ledger,
    oid: u32,
    at: Lsn,
) -> Result<TakeBack, String> {
    let mut outcome = TakeBack::Nothing;
    for number in shared.left_out.of(oid).into_iter().filter(|sink| !shared.holds_state(*sink)) {
        let Some(sink) = shared.sink(number) else { continue };
        let mut pause = Backoff::new(shared.backoff.0, shared.backoff.1);
        let asked_key = format!("{KEY_PREFIX}{oid}");
        let asked: Option<Lsn> = loop {
            match sink.notes().await {
                Ok(notes) => break notes.get(&asked_key).and_then(|text| text.parse().ok()),
                Err(error) => shared.retry(&error, &mut pause, "reading the notes of a sink").await?,
            }
        };
        if asked.is_some_and(|asked| asked >= at) {
            if outcome == TakeBack::Nothing {
                outcome = TakeBack::InVain;
            }
            continue;
        }
        let before = match ledger.note(oid, number) {
            Some(Note::Aside { before, .. }) => before.as_ref().map(|note| note.text()).transpose()?,
            _ => continue,
        };
        // In this order: a crash in between has the request taken for one of a table that nobody is left out of.
        for (key, text) in [(key(oid), before), (asked_key, Some(at.to_string()))] {
            while let Err(error) = sink.put_note(&key, text.as_deref()).await {
                let doing = format!("sink {}: keeping a note", sink.name());
                shared.retry(&error, &mut pause, &doing).await?;
            }
        }
        outcome = TakeBack::Done;
    }
    Ok(outcome)
}
