//! Keeps the list of tables to be copied, and their notes.
//!
//! A table gets on the list when the run begins (by its notes), when it appears in the stream or in the catalog for
//! the first time, when somebody asks for it, or when it was rewritten. It gets off it when the pipeline says that
//! it has caught up.

use crate::altering::{SchemaChange, alter};
use crate::generated::{self, Generated};
use crate::ledger::{Ledger, Note, Plan};
use crate::missed::{self, TakeBack};
use crate::round::{self, Failure, Round};
use crate::setup::Outcome;
use crate::shared::Shared;
use replicator_config::Snapshot as SnapshotMode;
use replicator_pipeline::{Backoff, Doubt, Input, Notice, Rewrite, rewrite_of};
use replicator_sink::Sink;
use replicator_source::SourceError;
use replicator_telemetry::metrics::CopyMetrics;
use replicator_types::{
    Column, ColumnKind, Lsn, Position, Relation, Storage, StorageChange, TableCatalog, TxnId,
};
use slog::{error, info, warn};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};

/// When a table whose copy failed is tried again.
const FAILED_PAUSE: Duration = Duration::from_secs(60);

/// So many tables' notes are written at once.
const NOTES_AT_ONCE_MAX: usize = 16;

pub(crate) struct Manager {
    shared: Arc<Shared>,
    ledger: Ledger,
    mode: SnapshotMode,
    /// Schema and name of the tables met, by oid.
    tables: HashMap<u32, (String, String)>,
    /// To be copied; their changes wait, unless they are in `held`.
    todo: BTreeMap<u32, Plan>,
    /// See [`Beginning`].
    gives_up: bool,
    /// Why the copies of `later` failed.
    failures: BTreeMap<u32, String>,
    /// Told last: the table that is to be set aside, in which sink, and why.
    refusal: Option<(u32, usize, String)>,
    /// Tables, and sinks that were left out of them in this run.
    left_out_now: BTreeSet<(u32, usize)>,
    /// A table that logs have been taken back to, which another run is to bring what they missed.
    taken_back: Option<String>,
    /// See [`Beginning`].
    joining: Vec<u32>,
    generated: Generated,
    /// Their changes are to wait, and what came before is not durable yet.
    held: BTreeSet<u32>,
    /// Sinks that take a table since it has another name, until that is followed.
    newcomers: BTreeMap<u32, Vec<usize>>,
    /// Being copied, or copied while the pipeline hands on what waited.
    busy: BTreeSet<u32>,
    /// To be copied again when that is over; unless the copy has what there was at that position.
    deferred: BTreeMap<u32, (Plan, Lsn)>,
    /// Asked for while they were busy, by messages of the stream that are not answered.
    requests: BTreeMap<u32, Vec<TxnId>>,
    /// Of these and others: what sinks refused of them before is not to keep them out of the copy.
    asked: BTreeSet<u32>,
    /// Failed, to be tried again at that time.
    later: BTreeMap<u32, (Instant, Plan)>,
    /// Of `altering`, those that a sink refuses to follow, and why; with `gives_up`.
    refused_alterations: BTreeMap<u32, String>,
    /// Tables that sinks are changing; of `busy`.
    altering: HashMap<u32, AbortHandle>,
    metrics: CopyMetrics,
    alterations: JoinSet<Result<u32, String>>,
    pause: Backoff,
}

/// What a manager begins with.
pub(crate) struct Beginning {
    pub(crate) ledger: Ledger,
    pub(crate) mode: SnapshotMode,
    pub(crate) tables: HashMap<u32, (String, String)>,
    pub(crate) todo: BTreeMap<u32, Plan>,
    /// Tables that were apart when the run before ended.
    pub(crate) joining: Vec<u32>,
    /// See [`Setup::giving_up`](crate::Setup::giving_up).
    pub(crate) gives_up: bool,
    /// The tables as the run began.
    pub(crate) catalog: Vec<TableCatalog>,
}

impl Manager {
    pub(crate) fn new(shared: Arc<Shared>, beginning: Beginning) -> Self {
        let Beginning { ledger, mode, tables, todo, joining, gives_up, catalog } = beginning;
        let pause = Backoff::new(shared.backoff.0, shared.backoff.1);
        let manager = Self {
            generated: Generated::start(Arc::clone(&shared)),
            shared,
            ledger,
            mode,
            tables,
            todo,
            joining,
            refusal: None,
            left_out_now: BTreeSet::new(),
            taken_back: None,
            gives_up,
            failures: BTreeMap::new(),
            held: BTreeSet::new(),
            newcomers: BTreeMap::new(),
            busy: BTreeSet::new(),
            deferred: BTreeMap::new(),
            requests: BTreeMap::new(),
            asked: BTreeSet::new(),
            later: BTreeMap::new(),
            refused_alterations: BTreeMap::new(),
            altering: HashMap::new(),
            alterations: JoinSet::new(),
            metrics: CopyMetrics::new(),
            pause,
        };
        manager.tell_generated(&catalog);
        manager
    }

    pub(crate) async fn run(
        mut self,
        mut notices: mpsc::UnboundedReceiver<Notice>,
        catalog_interval: Option<Duration>,
    ) -> Result<Outcome, String> {
        for (oid, sinks) in self.shared.left_out.reasons() {
            for (sink, reason) in sinks {
                self.say_left_out(oid, sink, &reason);
            }
        }
        for oid in std::mem::take(&mut self.joining) {
            self.busy.insert(oid);
            let _ = self.shared.pipeline.send(Input::Release(oid));
        }
        let mut poll = tokio::time::interval(catalog_interval.unwrap_or(FAILED_PAUSE));
        poll.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        poll.reset();
        let mut rounds: JoinSet<Result<round::Result, String>> = JoinSet::new();
        loop {
            self.metrics.tables_altering.set(self.altering.len() as f64);
            let aside = self.shared.left_out.count(|oid| self.tables.contains_key(&oid));
            self.metrics.tables_aside.set(aside as f64);
            let now = Instant::now();
            let due: Vec<u32> =
                self.later.iter().filter(|(_, (at, _))| *at <= now).map(|(oid, _)| *oid).collect();
            for oid in due {
                if let Some((_, plan)) = self.later.remove(&oid) {
                    self.todo.insert(oid, plan);
                }
            }
            if rounds.is_empty() {
                let ready: BTreeMap<u32, Plan> = self
                    .todo
                    .iter()
                    .filter(|(oid, _)| !self.held.contains(oid))
                    .map(|(oid, plan)| (*oid, plan.clone()))
                    .collect();
                if !ready.is_empty() {
                    self.todo.retain(|oid, _| !ready.contains_key(oid));
                    self.busy.extend(ready.keys());
                    let pause = self.pause.pause();
                    rounds.spawn(one_round(Arc::clone(&self.shared), ready, pause));
                } else if self.gives_up
                    && self.todo.is_empty()
                    && self.busy.is_empty()
                    && let Some(oid) = self.later.keys().next()
                {
                    let text = self.failures.get(oid).map_or("", String::as_str);
                    return Err(format!("table {} can't be copied: {text}", self.name(*oid)));
                } else if self.todo.is_empty()
                    && self.busy.iter().all(|oid| self.refused_alterations.contains_key(oid))
                    && let Some(text) = self.refused_alterations.values().next()
                {
                    return Err(text.clone());
                } else if self.mode == SnapshotMode::Only
                    && self.todo.is_empty()
                    && self.busy.is_empty()
                    && self.later.is_empty()
                {
                    return Ok(Outcome::Finished);
                }
            }
            tokio::select! {
                notice = notices.recv() => match notice {
                    Some(notice) => {
                        self.notices(notice, &mut notices).await?;
                        if let Some((oid, sink, text)) = self.refusal.take() {
                            return self.refused(oid, sink, text).await;
                        }
                        if let Some(table) = self.taken_back.take() {
                            return Ok(Outcome::TakenBack(table));
                        }
                    }
                    // The pipeline is over, and with it the run.
                    None => return std::future::pending().await,
                },
                Some(ended) = rounds.join_next() => {
                    let ended = ended.map_err(|error| format!("the task that copies tables ended: {error}"))?;
                    self.round_ended(ended?).await?;
                }
                Some(ended) = self.alterations.join_next_with_id() => match ended {
                    // Unless it was given up meanwhile.
                    Ok((task, Ok(oid))) => if self.altering.get(&oid).is_some_and(|of| of.id() == task) {
                        self.altering.remove(&oid);
                        let _ = self.shared.pipeline.send(Input::Release(oid));
                    },
                    Ok((task, Err(text))) => {
                        let of = |(oid, of): (&u32, &AbortHandle)| (of.id() == task).then_some(*oid);
                        self.refused_alterations.extend(self.altering.iter().find_map(of).map(|oid| (oid, text)));
                    }
                    Err(error) if error.is_cancelled() => {}
                    Err(error) => return Err(format!("the task that alters tables ended: {error}")),
                },
                _ = poll.tick() => if catalog_interval.is_some() {
                    self.poll_catalog().await?;
                },
            }
        }
    }

    async fn round_ended(&mut self, result: round::Result) -> Result<(), String> {
        let logger = self.shared.logger.clone();
        if !result.copied.is_empty() {
            self.pause.reset();
        }
        self.reload().await?;
        for oid in result.again {
            self.busy.remove(&oid);
            let plan = self.plan_of(oid);
            self.todo.insert(oid, plan);
        }
        for Failure { oid, sink, text, .. } in result.failed {
            if let Some(sink) = sink.filter(|sink| self.can_do_without(oid, *sink)) {
                self.busy.remove(&oid);
                self.leave_out(oid, sink, text).await?;
                let plan = self.plan_of(oid);
                self.todo.insert(oid, plan);
                continue;
            }
            error!(logger, "a table can't be copied; it is tried again, and its changes wait"; "table" => self.name(oid),
                "error" => &text, "pause_ms" => FAILED_PAUSE.as_millis() as u64);
            self.busy.remove(&oid);
            let plan = self.plan_of(oid);
            self.failures.insert(oid, text);
            self.later.insert(oid, (Instant::now() + FAILED_PAUSE, plan));
        }
        for oid in result.gone {
            warn!(logger, "a table is not published any more, and is not copied"; "table" => self.name(oid));
            self.left(oid).await?;
        }
        Ok(())
    }

    /// A table is not published any more. What changes from now on does not come; if it is published again, it is
    /// copied anew.
    async fn left(&mut self, oid: u32) -> Result<(), String> {
        self.stop_altering(oid);
        self.asked.remove(&oid);
        self.busy.remove(&oid);
        self.held.remove(&oid);
        self.todo.remove(&oid);
        self.later.remove(&oid);
        self.deferred.remove(&oid);
        for request in self.requests.remove(&oid).unwrap_or_default() {
            let _ = self.shared.pipeline.send(Input::Answered(request));
        }
        if self.tables.contains_key(&oid) {
            self.remember(oid, Note::Wanted { table: self.name(oid) }).await?;
            self.tables.remove(&oid);
        }
        let _ = self.shared.pipeline.send(Input::Forget(oid));
        Ok(())
    }

    /// What a round has written is read again: it may have come to its end anywhere.
    async fn reload(&mut self) -> Result<(), String> {
        let sinks: Vec<Arc<dyn Sink>> = self.shared.sinks.iter().map(|of| Arc::clone(&of.sink)).collect();
        let mut pause = Backoff::new(self.shared.backoff.0, self.shared.backoff.1);
        self.ledger = loop {
            match Ledger::load(&sinks).await {
                Ok(ledger) => break ledger,
                Err(error) => self.shared.retry(&error, &mut pause, "reading the notes of a sink").await?,
            }
        };
        Ok(())
    }

    fn plan_of(&self, oid: u32) -> Plan {
        match self.ledger.plan(oid, &self.receivers(oid)) {
            Plan::None { .. } => Plan::Again { empty_first: false },
            plan => plan,
        }
    }

    /// Of a table that was not published before. What sinks have of an earlier time may have been deleted since.
    fn plan_of_new(&self, oid: u32) -> Plan {
        match self.ledger.plan(oid, &self.receivers(oid)) {
            Plan::New => Plan::New,
            _ => Plan::Again { empty_first: true },
        }
    }

    /// The sinks that take a table, and are not left out of it.
    fn receivers(&self, oid: u32) -> Vec<usize> {
        self.tables.get(&oid).map_or_else(Vec::new, |(schema, name)| self.shared.receivers(oid, schema, name))
    }

    /// Keeps a note in each sink that takes the table, and in the ledger.
    async fn remember(&mut self, oid: u32, note: Note) -> Result<(), String> {
        let sinks = self.receivers(oid);
        self.shared.write_note(oid, &sinks, &note).await?;
        sinks.iter().for_each(|sink| self.ledger.set(oid, *sink, note.clone()));
        Ok(())
    }

    fn name(&self, oid: u32) -> String {
        self.tables
            .get(&oid)
            .map_or_else(|| format!("oid {oid}"), |(schema, name)| format!("{schema}.{name}"))
    }

    /// What has come; of tables that have caught up, the notes are written all at once.
    async fn notices(
        &mut self,
        first: Notice,
        more: &mut mpsc::UnboundedReceiver<Notice>,
    ) -> Result<(), String> {
        let mut caught_up = Vec::new();
        let mut next = Some(first);
        while let Some(notice) = next {
            match notice {
                Notice::CaughtUp { oid, from, held } => caught_up.push((oid, from, held)),
                other => {
                    self.caught_up(std::mem::take(&mut caught_up)).await?;
                    self.notice(other).await?;
                }
            }
            next = more.try_recv().ok();
        }
        self.caught_up(caught_up).await
    }

    async fn caught_up(&mut self, tables: Vec<(u32, Position, Option<TxnId>)>) -> Result<(), String> {
        if tables.iter().any(|(oid, ..)| self.deferred.contains_key(oid)) {
            self.reload().await?;
        }
        // What their copies have, before the notes say that they are over.
        let mut again = Vec::new();
        for (oid, ..) in &tables {
            let snapshot = self.ledger.first_snapshot(*oid, &self.receivers(*oid));
            if let Some((plan, since)) = self.deferred.remove(oid)
                && snapshot.is_none_or(|snapshot| since >= snapshot)
            {
                again.push((*oid, plan, since));
            }
        }
        for (oid, ..) in &again {
            self.take_back_if_asked(*oid);
        }
        let is_wanted = |oid: u32| {
            again.iter().any(|(of, plan, _)| *of == oid && *plan == Plan::Again { empty_first: true })
        };
        let note = |(oid, from, _): (u32, Position, Option<TxnId>)| {
            let table = self.name(oid);
            // At no moment does anybody who starts again find it done.
            let note = if is_wanted(oid) { Note::Wanted { table } } else { Note::Done { table, from } };
            // With `never` one that sinks followed was not copied, and nothing is to say so.
            let is_noted = self.mode != SnapshotMode::Never || self.ledger.knows(oid) || is_wanted(oid);
            (oid, if is_noted { self.receivers(oid) } else { Vec::new() }, note)
        };
        let joined = tables.clone();
        let notes: Vec<(u32, Vec<usize>, Note)> = tables.into_iter().map(note).collect();
        for some in notes.chunks(NOTES_AT_ONCE_MAX) {
            let written = some.iter().map(|(oid, sinks, note)| self.shared.write_note(*oid, sinks, note));
            futures_util::future::try_join_all(written.collect::<Vec<_>>()).await?;
        }
        for (oid, from, held) in joined {
            self.shared.join(oid, &self.name(oid), from, held).await?;
        }
        for (oid, sinks, note) in &notes {
            sinks.iter().for_each(|sink| self.ledger.set(*oid, *sink, note.clone()));
            self.busy.remove(oid);
            info!(self.shared.logger, "table caught up with the stream"; "table" => self.name(*oid));
        }
        // First those go on waiting, and hold the watermark, that are to be copied again; then it is let go.
        for (oid, plan, since) in again {
            self.hold(oid, plan, since);
        }
        for (oid, ..) in notes {
            let _ = self.shared.pipeline.send(Input::Settled(oid));
            for request in self.requests.remove(&oid).unwrap_or_default() {
                let _ = self.shared.pipeline.send(Input::Answered(request));
            }
        }
        Ok(())
    }

    async fn notice(&mut self, notice: Notice) -> Result<(), String> {
        match notice {
            Notice::New(relation) => {
                info!(self.shared.logger, "a table that is new is copied"; "table" => relation.qualified_name());
                self.met(&relation);
                let plan = self.plan_of_new(relation.oid);
                self.want(relation.oid, &plan).await?;
                self.todo.insert(relation.oid, plan);
            }
            Notice::Held { oid, covers: passed } => {
                self.held.remove(&oid);
                if let Some(Plan::Over { covers, .. }) = self.todo.get_mut(&oid) {
                    *covers = passed;
                }
            }
            Notice::CaughtUp { oid, from, held } => self.caught_up(vec![(oid, from, held)]).await?,
            Notice::Doubtful { oid, doubt } if self.mode == SnapshotMode::Never => {
                error!(self.shared.logger, "what sinks have of a table may be wrong; `replicator resync --table` has it \
                    copied anew"; "table" => self.name(oid), "why" => why(doubt));
            }
            Notice::Doubtful { oid, doubt } => {
                info!(self.shared.logger, "what sinks have of a table may be wrong, and it is copied again";
                    "table" => self.name(oid), "why" => why(doubt));
                self.hold(oid, Plan::Again { empty_first: true }, Lsn::MAX);
            }
            Notice::Request { id, at, content } => {
                self.request(id, at, &String::from_utf8_lossy(&content)).await?;
            }
            Notice::Altered { before, after } => {
                // Partitions are described too where their root is what is published.
                if !self.tables.contains_key(&after.oid) {
                    return Ok(());
                }
                self.met_again(&after).await?;
                // One that is live would have been told as rewritten: it waits already.
                let is_copied = self.mode != SnapshotMode::Never && !self.receivers(after.oid).is_empty();
                if is_copied && rewrite_of(&before, &after).is_some() {
                    self.rewritten(&after).await?;
                }
            }
            Notice::Refused { oid, sink, text } => self.refusal = Some((oid, sink, text)),
            Notice::ToAlter { after, at, known } => {
                self.follow_schema(SchemaChange { after, at, known }).await?;
            }
            Notice::Rewritten { after, rewrite } => {
                self.met_again(&after).await?;
                let oid = after.oid;
                let why = if rewrite == Rewrite::Guess {
                    why(Doubt::Columns)
                } else {
                    "its rows were computed anew"
                };
                info!(self.shared.logger, "a table is copied again"; "table" => after.qualified_name(), "why" => why);
                let plan = match self.newcomers.remove(&oid) {
                    Some(_) => Plan::Again { empty_first: true },
                    None => self.over_or_anew(oid, plan_for(rewrite, None, Some(&after))),
                };
                if self.busy.contains(&oid) {
                    // Its having caught up is on its way here. It waits already, whatever the copy has.
                    self.hold(oid, plan, Lsn::MAX);
                } else {
                    self.want(oid, &plan).await?;
                    self.held.insert(oid);
                    self.add(oid, plan);
                }
            }
        }
        Ok(())
    }

    /// The sinks are to follow a change of a table's schema, while its changes wait.
    async fn follow_schema(&mut self, change: SchemaChange) -> Result<(), String> {
        let oid = change.after.oid;
        if !self.tables.contains_key(&oid) {
            return Ok(());
        }
        let is_to_be_held = self.todo.contains_key(&oid);
        if let Some((plan, _)) = self.deferred.remove(&oid) {
            // It was to be copied again behind the copy that it is catching up with. That need not get any further.
            self.busy.remove(&oid);
            self.want(oid, &plan).await?;
            self.add(oid, plan);
            for request in self.requests.remove(&oid).unwrap_or_default() {
                let _ = self.shared.pipeline.send(Input::Answered(request));
            }
        }
        if let Some(sinks) = self.newcomers.remove(&oid) {
            info!(self.shared.logger, "a table is copied to sinks that take it by its new name"; "table" => self.name(oid));
            let plan = if self.todo.contains_key(&oid) {
                Plan::Again { empty_first: true }
            } else {
                Plan::Refill { sinks }
            };
            self.want(oid, &plan).await?;
            self.add(oid, plan);
        }
        // A copy brings the version.
        if let Some(plan) = self.todo.get(&oid).cloned() {
            self.held.remove(&oid);
            if is_to_be_held {
                let plan = self.over_or_anew(oid, plan);
                self.want(oid, &plan).await?;
                self.add(oid, plan);
            }
            return Ok(());
        }
        if self.later.contains_key(&oid) {
            self.held.remove(&oid);
            return Ok(());
        }
        self.busy.insert(oid);
        // Other logs are told with the stream.
        let mut sinks = self.receivers(oid);
        sinks.retain(|sink| self.shared.waits(*sink));
        let task = self.alterations.spawn(alter(Arc::clone(&self.shared), sinks, change, self.gives_up));
        self.altering.insert(oid, task);
        Ok(())
    }

    /// A table that sinks are changing is to be copied, or is gone: they need not go on.
    fn stop_altering(&mut self, oid: u32) {
        if let Some(task) = self.altering.remove(&oid) {
            task.abort();
            self.refused_alterations.remove(&oid);
            self.busy.remove(&oid);
        }
    }

    /// A sink will never take a change of a table. What it was is not acknowledged; it is written down that the sink is to be
    /// left out of the table, so that the other tables can go on there, and the other sinks with all of them.
    async fn refused(&mut self, oid: u32, sink: usize, text: String) -> Result<Outcome, String> {
        // What was left out, and comes all the same, would come again and again.
        let is_written_down = self.left_out_now.contains(&(oid, sink));
        let comes_again = self.shared.left_out.is_left_out(oid, sink) && !is_written_down;
        // Of one that is not published any more a log gets what has waited.
        let is_known = self.tables.contains_key(&oid) || !self.shared.holds_state(sink);
        if !is_known || comes_again || !self.shared.waits(sink) {
            return Err(text);
        }
        // A log gets changes while the table is copied: they were on their way when it refused a row of the copy.
        if is_written_down {
            return Ok(Outcome::SetAside(format!("{}: {text}", self.name(oid))));
        }
        // A copy that is asked for already takes care of it; but not of what a log has to have of the stream.
        if !self.shared.holds_state(sink) || !self.ledger.is_wanted(oid, sink) {
            self.note_left_out(oid, sink, &text).await?;
        }
        Ok(Outcome::SetAside(format!("{}: {text}", self.name(oid))))
    }

    /// Whether the table's copy can go on in other sinks. One that is alone is tried again instead.
    fn can_do_without(&self, oid: u32, sink: usize) -> bool {
        !self.gives_up && self.shared.waits(sink) && self.receivers(oid).iter().any(|other| *other != sink)
    }

    /// A sink refuses the copy of a table, which waits.
    async fn leave_out(&mut self, oid: u32, sink: usize, text: String) -> Result<(), String> {
        self.note_left_out(oid, sink, &text).await?;
        self.say_left_out(oid, sink, &text);
        self.left_out_now.insert((oid, sink));
        self.shared.left_out.add(oid, sink, text);
        let _ = self.shared.pipeline.send(Input::LeaveOut(oid, sink));
        Ok(())
    }

    async fn note_left_out(&mut self, oid: u32, sink: usize, text: &str) -> Result<(), String> {
        let before = self.ledger.note(oid, sink).filter(|_| !self.shared.holds_state(sink));
        let before = before.cloned().map(Box::new);
        let note = Note::Aside { table: self.name(oid), reason: text.to_owned(), before };
        self.shared.write_note(oid, &[sink], &note).await?;
        self.ledger.set(oid, sink, note);
        Ok(())
    }

    fn say_left_out(&self, oid: u32, sink: usize, reason: &str) {
        let name = self.shared.sink(sink).map_or("?", |sink| sink.name());
        error!(self.shared.logger, "a table is set aside in a sink that refused a change of it: the sink gets nothing of it \
            until it is asked for (`replicator resync --table`)"; "table" => self.name(oid), "sink" => name,
            "error" => reason);
    }

    /// Somebody has asked for the table, and it is about to be copied: sinks that were left out of it take part. Not logs: a
    /// copy has not the changes that they have missed.
    fn take_back_if_asked(&mut self, oid: u32) {
        if self.asked.remove(&oid) {
            self.shared.left_out.remove(oid, |sink| !self.shared.holds_state(sink));
            let _ = self.shared.pipeline.send(Input::TakeBack(oid));
        }
    }

    fn met(&mut self, relation: &Relation) {
        self.tables.insert(relation.oid, (relation.schema.clone(), relation.name.clone()));
    }

    /// As [`Manager::met`], of a table that is known. By another name other sinks may take it: they have nothing of it, or what
    /// it was long ago; and what those have that no longer take it gets old from now on.
    async fn met_again(&mut self, after: &Relation) -> Result<(), String> {
        let oid = after.oid;
        let had = self.receivers(oid);
        self.met(after);
        if self.mode == SnapshotMode::Never {
            return Ok(());
        }
        let has = self.receivers(oid);
        let changed: Vec<usize> =
            (0..self.shared.sinks.len()).filter(|sink| had.contains(sink) != has.contains(sink)).collect();
        if changed.is_empty() {
            return Ok(());
        }
        let note = Note::Wanted { table: self.name(oid) };
        self.shared.write_note(oid, &changed, &note).await?;
        changed.iter().for_each(|sink| self.ledger.set(oid, *sink, note.clone()));
        let newcomers = self.newcomers.entry(oid).or_default();
        newcomers.retain(|sink| has.contains(sink));
        newcomers.extend(changed.into_iter().filter(|sink| has.contains(sink)));
        if newcomers.is_empty() {
            self.newcomers.remove(&oid);
        }
        Ok(())
    }

    /// A table that waits has another version, under which its rows may be others. What waits from before that is older than
    /// the rows, and may only follow a copy that has it.
    async fn rewritten(&mut self, after: &Relation) -> Result<(), String> {
        let plan = Plan::Again { empty_first: true };
        self.stop_altering(after.oid);
        if let Some(Plan::Resume(copying)) = self.todo.get(&after.oid)
            && after.since < copying.first_snapshot
        {
            return Ok(());
        }
        info!(self.shared.logger, "a table was rewritten, and is copied again"; "table" => after.qualified_name());
        if !self.busy.contains(&after.oid) {
            self.want(after.oid, &plan).await?;
        }
        self.hold(after.oid, plan, after.since);
        Ok(())
    }

    /// A table that was to be held when the stream has passed what has changed its rows, and has come to wait before that:
    /// what waits is older than its rows in part, and may only follow a copy that has it.
    fn over_or_anew(&self, oid: u32, plan: Plan) -> Plan {
        match self.todo.get(&oid) {
            Some(Plan::Over { .. }) => Plan::Again { empty_first: true },
            _ => plan,
        }
    }

    /// That a table has to be emptied first is written down: whatever fails, it is not forgotten.
    async fn want(&mut self, oid: u32, plan: &Plan) -> Result<(), String> {
        self.take_back_if_asked(oid);
        if *plan == (Plan::Again { empty_first: true }) {
            self.remember(oid, Note::Wanted { table: self.name(oid) }).await?;
        }
        Ok(())
    }

    /// Puts a table on the list, for what was the matter with it at `since`.
    fn hold(&mut self, oid: u32, plan: Plan, since: Lsn) {
        self.stop_altering(oid);
        if self.busy.contains(&oid) {
            let before = self.deferred.remove(&oid);
            let plan = match &before {
                Some((before, _)) if *before == (Plan::Again { empty_first: true }) => before.clone(),
                _ => plan,
            };
            let since = before.map_or(since, |(_, before)| before.max(since));
            self.deferred.insert(oid, (plan, since));
            return;
        }
        let waits = self.later.remove(&oid).is_some() || self.todo.contains_key(&oid);
        self.add(oid, plan);
        if !waits {
            self.held.insert(oid);
            let _ = self.shared.pipeline.send(Input::Hold(oid));
        }
    }

    /// One that is on the list already is copied as it will be then; only that it has to be emptied first is new.
    fn add(&mut self, oid: u32, plan: Plan) {
        if plan == (Plan::Again { empty_first: true }) || !self.todo.contains_key(&oid) {
            self.todo.insert(oid, plan);
        }
    }

    /// Somebody asks for a table, by `schema.name`, in a message of the stream that lies at `at`.
    async fn request(&mut self, id: TxnId, at: Lsn, content: &str) -> Result<(), String> {
        let Some(oid) = self.tables.keys().copied().find(|oid| self.name(*oid) == content) else {
            warn!(self.shared.logger, "a table was asked for that is not published"; "table" => content);
            let _ = self.shared.pipeline.send(Input::Answered(id));
            return Ok(());
        };
        match missed::take_back(&self.shared, &self.ledger, oid, at).await? {
            TakeBack::Nothing => {}
            // The request is not answered: it comes again, behind what the logs have missed.
            TakeBack::Done => {
                self.taken_back = Some(content.to_owned());
                return Ok(());
            }
            // The others are copied to, once: with what the log holds back, the request comes again in every run.
            TakeBack::InVain => {
                warn!(self.shared.logger, "a table was asked for, and a sink has refused it once more: put right what it \
                    said, and ask again"; "table" => content);
                let receivers = self.receivers(oid);
                let plan = self.ledger.plan(oid, &receivers);
                if receivers.is_empty() || matches!(plan, Plan::None { from } if from.commit_lsn > at) {
                    let _ = self.shared.pipeline.send(Input::Answered(id));
                    return Ok(());
                }
            }
        }
        info!(self.shared.logger, "a table was asked for and is copied again"; "table" => content);
        let plan = Plan::Again { empty_first: true };
        self.stop_altering(oid);
        self.asked.insert(oid);
        if self.busy.contains(&oid) {
            // The notes tell of the copy that goes on. The request is on record when that is over; until then it comes
            // again with the stream.
            self.requests.entry(oid).or_default().push(id);
        } else {
            self.want(oid, &plan).await?;
            let _ = self.shared.pipeline.send(Input::Answered(id));
        }
        self.hold(oid, plan, Lsn::MAX);
        Ok(())
    }

    /// New tables and changed columns that no change has told of yet. A source that does not answer is asked again
    /// the next time.
    async fn poll_catalog(&mut self) -> Result<(), String> {
        let tables = match self.shared.source.published().await {
            Ok(tables) => tables,
            Err(error) => {
                warn!(self.shared.logger, "the catalog can't be read"; "error" => %error);
                return Ok(());
            }
        };
        for table in &tables {
            if self.tables.contains_key(&table.oid) {
                continue;
            }
            self.tables.insert(table.oid, (table.schema.clone(), table.name.clone()));
            if self.mode != SnapshotMode::Never {
                info!(self.shared.logger, "a table that is new is copied"; "table" => self.name(table.oid));
                let plan = self.plan_of_new(table.oid);
                self.want(table.oid, &plan).await?;
                self.hold(table.oid, plan, Lsn::MAX);
            }
        }
        if self.mode != SnapshotMode::Never {
            // One that is being copied is looked at when that is over.
            let published: HashSet<u32> = tables.iter().map(|table| table.oid).collect();
            let is_busy = |oid: &u32| self.busy.contains(oid) && !self.altering.contains_key(oid);
            let has_left = |oid: &u32| !is_busy(oid) && !published.contains(oid);
            let left: Vec<u32> = self.tables.keys().copied().filter(has_left).collect();
            for oid in left {
                warn!(self.shared.logger, "a table is not published any more"; "table" => self.name(oid));
                self.left(oid).await?;
            }
            self.look_at_storages(&tables).await?;
        } else {
            // Nobody waits for sinks to follow what is not published.
            let gone = |oid: &u32| !tables.iter().any(|table| table.oid == *oid);
            let gone: Vec<u32> = self.altering.keys().copied().filter(gone).collect();
            for oid in gone {
                warn!(self.shared.logger, "a table is not published any more, and sinks need not follow it; what waited of it is \
                    in no sink that holds its rows"; "table" => self.name(oid));
                self.stop_altering(oid);
                self.tables.remove(&oid);
                let _ = self.shared.pipeline.send(Input::Forget(oid));
            }
        }
        for (oid, sinks) in self.shared.left_out.reasons() {
            if tables.iter().any(|table| table.oid == oid) {
                // It may have been away.
                for sink in sinks.into_keys() {
                    let _ = self.shared.pipeline.send(Input::LeaveOut(oid, sink));
                }
            } else if !self.busy.contains(&oid) {
                // Nobody waits for what a sink has refused of it any more.
                let _ = self.shared.pipeline.send(Input::Forget(oid));
            }
        }
        self.tell_generated(&tables);
        let _ = self.shared.pipeline.send(Input::Catalog(tables));
        Ok(())
    }

    fn tell_generated(&self, tables: &[TableCatalog]) {
        let of = |table: &TableCatalog| generated::Table {
            oid: table.oid,
            sinks: self.receivers(table.oid),
            columns: table.generated.clone(),
            dropped: table.dropped.clone(),
        };
        let known = tables.iter().filter(|table| table.knows_generated());
        self.generated.tell(known.map(of).collect());
    }

    /// Whether the keys of a table's rows may be others, or be written in another way: what is under the old ones has to go.
    fn may_have_other_keys(&self, table: &TableCatalog) -> bool {
        let relation = table.relation();
        let keys = relation.columns.iter().filter(|column| column.is_key);
        let keys: Vec<&Column> = keys.collect();
        let attnums: Vec<i16> = keys.iter().map(|column| column.attnum).collect();
        keys.iter().any(|column| column.kind != ColumnKind::Scalar)
            || self.shared.storages.are_written(
                table.oid,
                &self.receivers(table.oid),
                &table.storage,
                &attnums,
            )
    }

    /// Whether rows were changed in a way that the stream does not tell. What is on the list, or being copied, is looked
    /// at when that is over.
    async fn look_at_storages(&mut self, tables: &[TableCatalog]) -> Result<(), String> {
        let mut outdated: BTreeMap<usize, Vec<(u32, Storage)>> = BTreeMap::new();
        let mut changed = Vec::new();
        for table in tables {
            let oid = table.oid;
            if self.busy.contains(&oid) || self.todo.contains_key(&oid) || self.later.contains_key(&oid) {
                continue;
            }
            let verdict = self.shared.storages.compare(oid, &self.receivers(oid), &table.storage);
            let rewrite = match verdict.change {
                StorageChange::None => {
                    for sink in verdict.outdated {
                        outdated.entry(sink).or_default().push((oid, table.storage.clone()));
                    }
                    continue;
                }
                // For a moment it can't be told when they were, or whether rows came at all: another look comes.
                StorageChange::Rewritten | StorageChange::CameOrWent if table.read_at == Lsn::ZERO => {
                    continue;
                }
                StorageChange::CameOrWent => Rewrite::Anew,
                StorageChange::Rewritten if self.may_have_other_keys(table) => Rewrite::Anew,
                StorageChange::Rewritten => {
                    let told = self.shared.versions.last(oid);
                    told.and_then(|told| rewrite_of(&told, &table.relation())).unwrap_or(Rewrite::Over)
                }
            };
            changed.push((table, verdict.change, rewrite));
        }
        for (sink, storages) in outdated {
            self.shared.keep_storages(sink, &storages).await?;
        }
        self.copy_changed(changed).await
    }

    /// Puts tables on the list whose rows were changed by the time of a look at the catalog.
    async fn copy_changed(
        &mut self,
        changed: Vec<(&TableCatalog, StorageChange, Rewrite)>,
    ) -> Result<(), String> {
        if changed.is_empty() {
            return Ok(());
        }
        // What changed the rows may have committed behind the moment at which the catalog is said to have been read.
        let changed_before = match self.shared.source.written_lsn().await {
            Ok(position) if position > Lsn::ZERO => position,
            Ok(_) => return Ok(()),
            Err(error) => {
                warn!(self.shared.logger, "the source can't be asked for its position"; "error" => %error);
                return Ok(());
            }
        };
        for (table, change, rewrite) in changed {
            let oid = table.oid;
            info!(self.shared.logger, "a table's rows were changed by a change of schema, and it is copied again";
                "table" => self.name(oid), "partitions_changed" => change == StorageChange::CameOrWent);
            let plan = plan_for(rewrite, Some(&table.storage), None);
            self.want(oid, &plan).await?;
            self.add(oid, plan);
            self.held.insert(oid);
            // What changed before that goes to the sinks first.
            let _ = self.shared.pipeline.send(Input::HoldAt(oid, changed_before));
        }
        // Where nothing else is written the stream would get there with the server's next own record.
        let _ = self.shared.source.heartbeat().await;
        Ok(())
    }
}

/// For the log.
fn why(doubt: Doubt) -> &'static str {
    match doubt {
        Doubt::UnsentValues => {
            "rows got other keys while changes of the table came a second time, and their large values were not sent"
        }
        Doubt::Columns => {
            "changes have come from before changes of its columns, and of which columns they are is not told"
        }
    }
}

/// How a table is copied whose rows were computed anew; where they lay, or how it looked, when that was found.
fn plan_for(rewrite: Rewrite, storage: Option<&Storage>, shape: Option<&Relation>) -> Plan {
    match rewrite {
        Rewrite::Anew | Rewrite::Guess => Plan::Again { empty_first: true },
        Rewrite::Over => Plan::Over {
            covers: Lsn::ZERO,
            storage: storage.cloned(),
            shape: shape.map(|shape| Arc::new(shape.clone())),
        },
    }
}

/// A round from its snapshot on. A snapshot that can't be had, or was lost, is tried again.
async fn one_round(
    shared: Arc<Shared>,
    plans: BTreeMap<u32, Plan>,
    pause: Duration,
) -> Result<round::Result, String> {
    let again = |error: &SourceError| {
        warn!(shared.logger, "copying failed, trying again"; "error" => %error,
            "pause_ms" => pause.as_millis() as u64);
    };
    let all: Vec<u32> = plans.keys().copied().collect();
    let snapshot = match shared.source.snapshot().await {
        Ok(snapshot) => snapshot,
        Err(error) if error.kind() == replicator_source::ErrorKind::Halt => {
            return Err(format!("source: {error}"));
        }
        Err(error) => {
            again(&error);
            tokio::time::sleep(pause).await;
            return Ok(round::Result { again: all, ..round::Result::default() });
        }
    };
    let result = Round::run(&shared, &snapshot, plans).await?;
    if !result.again.is_empty() {
        tokio::time::sleep(pause).await;
    }
    Ok(result)
}
