//! What everything here has in common: the source, the sinks, and how sinks are asked until they answer.

use crate::apart::Aparts;
use crate::ledger::{Note, key};
use crate::left_out::LeftOut;
use crate::setup::CopySink;
use crate::storages::{self, Storages};
use crate::versions::Versions;
use crossbeam_channel::Sender;
use replicator_config::CopyConfig;
use replicator_pipeline::{Backoff, Input};
use replicator_sink::{ErrorKind, KeyChanges, Lane, Sink, SinkError, TableCopy};
use replicator_source::Source;
use replicator_types::{Position, Relation, Storage, TxnId};
use slog::{Logger, warn};
use std::sync::Arc;
use std::time::Duration;

/// See the module.
pub(crate) struct Shared {
    pub(crate) source: Arc<Source>,
    pub(crate) sinks: Vec<CopySink>,
    pub(crate) config: CopyConfig,
    pub(crate) backoff: (Duration, Duration),
    pub(crate) pipeline: Sender<Input>,
    pub(crate) logger: Logger,
    pub(crate) versions: Arc<Versions>,
    pub(crate) aparts: Arc<Aparts>,
    pub(crate) storages: Storages,
    pub(crate) left_out: LeftOut,
}

/// Whether the sink waits for a table while others go on there; then it can get right again with one that it was left out of.
pub(crate) fn waits_for_tables(sink: &dyn Sink) -> bool {
    sink.key_changes() == KeyChanges::Split || sink.takes_late_changes()
}

/// The sinks that take a table.
pub(crate) fn takers(sinks: &[CopySink], schema: &str, table: &str) -> Vec<usize> {
    let takes = |(number, of): (usize, &CopySink)| of.tables.matches(schema, table).then_some(number);
    sinks.iter().enumerate().filter_map(takes).collect()
}

impl Shared {
    /// The sinks that take a table, and are not left out of it.
    pub(crate) fn receivers(&self, oid: u32, schema: &str, table: &str) -> Vec<usize> {
        let mut sinks = takers(&self.sinks, schema, table);
        sinks.retain(|sink| !self.left_out.is_left_out(oid, *sink));
        sinks
    }

    /// Whether the sink holds state by key, rather than a log.
    pub(crate) fn holds_state(&self, number: usize) -> bool {
        self.sinks.get(number).is_some_and(CopySink::holds_state)
    }

    /// Whether the sink waits for a table while others go on there; then these can also go on without one that it refuses.
    pub(crate) fn waits(&self, number: usize) -> bool {
        self.sink(number).is_some_and(|sink| waits_for_tables(&**sink))
    }

    pub(crate) fn sink(&self, number: usize) -> Option<&Arc<dyn Sink>> {
        self.sinks.get(number).map(|of| &of.sink)
    }

    /// A lane of each sink for each worker.
    pub(crate) async fn open_lanes(
        &self,
        workers: usize,
    ) -> Result<Vec<Vec<(String, Box<dyn Lane>)>>, String> {
        let mut all = Vec::new();
        for number in 0..workers {
            let mut lanes = Vec::new();
            for CopySink { sink, stream, .. } in &self.sinks {
                let mut pause = Backoff::new(self.backoff.0, self.backoff.1);
                let lane = loop {
                    match sink.open_copy_lane(number as u32, stream).await {
                        Ok(lane) => break lane,
                        Err(error) => {
                            let doing = format!("sink {}: opening a lane for the copy", sink.name());
                            self.retry(&error, &mut pause, &doing).await?;
                        }
                    }
                };
                lanes.push((sink.name().to_owned(), lane));
            }
            all.push(lanes);
        }
        Ok(all)
    }

    /// Waits before the next attempt; an error when there is to be none.
    pub(crate) async fn retry(
        &self,
        error: &SinkError,
        pause: &mut Backoff,
        doing: &str,
    ) -> Result<(), String> {
        if error.kind() != ErrorKind::Retry {
            return Err(format!("{doing}: {error}"));
        }
        let pause = pause.pause();
        warn!(self.logger, "sink failed, trying again"; "doing" => doing, "error" => %error,
            "pause_ms" => pause.as_millis() as u64);
        tokio::time::sleep(pause).await;
        Ok(())
    }

    /// Makes a table ready in the sinks, emptied in these; whether it is empty in all of them. An error is of this table alone; with the sink,
    /// if it is one that will never take the table as it is, and has nothing against others.
    pub(crate) async fn begin_copy(
        &self,
        sinks: &[usize],
        copy: &TableCopy,
        emptied: &[usize],
    ) -> Result<bool, (Option<usize>, String)> {
        let of_sinks = sinks.iter().filter_map(|&number| Some((number, self.sink(number)?)));
        let of_sinks = of_sinks.map(|(number, sink)| async move {
            let empty_first = copy.empty_first || emptied.contains(&number);
            let copy = &TableCopy { empty_first, ..copy.clone() };
            let mut pause = Backoff::new(self.backoff.0, self.backoff.1);
            loop {
                match sink.begin_copy(copy).await {
                    Ok(is_empty) => return Ok(is_empty),
                    Err(error) => {
                        let doing = format!("sink {}: making {} ready", sink.name(), copy.relation);
                        let is_of_table = error.table().is_some() || error.kind() == ErrorKind::Reject;
                        let refuses = is_of_table.then_some(number);
                        self.retry(&error, &mut pause, &doing).await.map_err(|text| (refuses, text))?;
                    }
                }
            }
        });
        let are_empty = futures_util::future::try_join_all(of_sinks.collect::<Vec<_>>()).await?;
        Ok(are_empty.into_iter().all(|is_empty| is_empty))
    }

    pub(crate) async fn end_copy(&self, sinks: &[usize], copy: &TableCopy) -> Result<(), String> {
        let of_sinks = self.each(sinks, |sink| async move {
            let mut pause = Backoff::new(self.backoff.0, self.backoff.1);
            while let Err(error) = sink.end_copy(copy).await {
                let doing = format!("sink {}: ending the copy of {}", sink.name(), copy.relation);
                self.retry(&error, &mut pause, &doing).await?;
            }
            Ok(())
        });
        of_sinks.await.map(|_| ())
    }

    /// Keeps a version in each of the sinks.
    pub(crate) async fn keep_version(&self, sinks: &[usize], version: &Arc<Relation>) -> Result<(), String> {
        for number in sinks {
            let Some(sink) = self.sink(*number) else { continue };
            let mut pause = Backoff::new(self.backoff.0, self.backoff.1);
            while let Err(error) = self.versions.keep(*number, version).await {
                let doing = format!("sink {}: keeping a version of {version}", sink.name());
                self.retry(&error, &mut pause, &doing).await?;
            }
        }
        Ok(())
    }

    /// Notes in each of the sinks that a copy is under way, and behind that where the rows lie that it has: until the
    /// first is durable, what calls for a copy has to show.
    pub(crate) async fn note_beginning(
        &self,
        oid: u32,
        sinks: &[usize],
        note: &Note,
        storage: &Storage,
    ) -> Result<(), String> {
        let notes = &[(key(oid), note.text()?), storages::note(oid, storage)?];
        let of_sinks = self.each(sinks, |sink| async move {
            let mut pause = Backoff::new(self.backoff.0, self.backoff.1);
            while let Err(error) = sink.put_notes(notes).await {
                self.retry(&error, &mut pause, &format!("sink {}: keeping a note", sink.name())).await?;
            }
            Ok(())
        });
        of_sinks.await?;
        self.storages.set(oid, sinks, storage);
        Ok(())
    }

    /// Keeps in a sink where tables' rows lie.
    pub(crate) async fn keep_storages(
        &self,
        number: usize,
        storages: &[(u32, Storage)],
    ) -> Result<(), String> {
        let Some(sink) = self.sink(number) else { return Ok(()) };
        let notes: Vec<_> =
            storages.iter().map(|(oid, storage)| storages::note(*oid, storage)).collect::<Result<_, _>>()?;
        let mut pause = Backoff::new(self.backoff.0, self.backoff.1);
        while let Err(error) = sink.put_notes(&notes).await {
            self.retry(&error, &mut pause, &format!("sink {}: keeping a note", sink.name())).await?;
        }
        storages.iter().for_each(|(oid, storage)| self.storages.set(*oid, &[number], storage));
        Ok(())
    }

    /// Keeps a note in each of the sinks.
    pub(crate) async fn write_note(&self, oid: u32, sinks: &[usize], note: &Note) -> Result<(), String> {
        let text = &note.text()?;
        let of_sinks = self.each(sinks, |sink| async move {
            let mut pause = Backoff::new(self.backoff.0, self.backoff.1);
            while let Err(error) = sink.put_note(&key(oid), Some(text)).await {
                let doing = format!("sink {}: keeping a note", sink.name());
                self.retry(&error, &mut pause, &doing).await?;
            }
            Ok(())
        });
        of_sinks.await.map(|_| ())
    }

    /// Notes in the sinks where the table is apart that it is so no longer.
    pub(crate) async fn join(
        &self,
        oid: u32,
        table: &str,
        from: Position,
        held: Option<TxnId>,
    ) -> Result<(), String> {
        for number in self.aparts.sinks_apart(oid) {
            let Some(sink) = self.sink(number) else { continue };
            let mut pause = Backoff::new(self.backoff.0, self.backoff.1);
            while let Err(error) = self.aparts.join((number, oid), table, from, held).await {
                self.retry(&error, &mut pause, &format!("sink {}: keeping a note", sink.name())).await?;
            }
        }
        Ok(())
    }

    /// Asks the sinks all at once.
    pub(crate) async fn each<'a, T, F: Future<Output = Result<T, String>>>(
        &'a self,
        sinks: &[usize],
        ask: impl Fn(&'a Arc<dyn Sink>) -> F,
    ) -> Result<Vec<T>, String> {
        let asked: Vec<F> = sinks.iter().filter_map(|sink| self.sink(*sink)).map(ask).collect();
        futures_util::future::try_join_all(asked).await
    }
}
