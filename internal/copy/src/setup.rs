//! What is to be copied when a run begins, by the notes of its sinks.

use crate::apart::{Apartness, Aparts};
use crate::ledger::{Ledger, Note, Plan, key};
use crate::left_out::{LeftOut, Reasons};
use crate::manager::{Beginning, Manager};
use crate::shared::{Shared, takers};
use crate::storages::Storages;
use crate::versions::Versions;
use crossbeam_channel::Sender;
use replicator_config::{CopyConfig, Snapshot as SnapshotMode, TablePatterns};
use replicator_pipeline::{Input, Notice, Standing};
use replicator_sink::{KeyChanges, Sink, StreamInfo};
use replicator_source::Source;
use replicator_types::{Position, TableCatalog};
use slog::Logger;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// A sink as copies need it.
pub struct CopySink {
    /// The sink, prepared.
    pub sink: Arc<dyn Sink>,
    /// What it was prepared with.
    pub stream: StreamInfo,
    /// Which tables it takes.
    pub tables: TablePatterns,
}

impl CopySink {
    /// Whether it holds state by key, rather than a log.
    pub(crate) fn holds_state(&self) -> bool {
        self.sink.key_changes() == KeyChanges::Split
    }
}

/// What is fixed for a run.
pub struct Settings {
    /// The source, prepared.
    pub source: Arc<Source>,
    /// The sinks, in the order of the configuration.
    pub sinks: Vec<CopySink>,
    /// What these sinks were told of tables.
    pub versions: Arc<Versions>,
    /// Tables whose changes wait, as the sinks have noted.
    pub aparts: Arc<Aparts>,
    /// `[copy]`
    pub config: CopyConfig,
    /// `source.snapshot`
    pub snapshot: SnapshotMode,
    /// `source.catalog_interval_ms`; none for never.
    pub catalog_interval: Option<Duration>,
    /// Shortest and longest pause between attempts.
    pub backoff: (Duration, Duration),
    /// Log.
    pub logger: Logger,
}

/// What the sinks' notes say, before the stream begins.
pub struct Setup {
    settings: Settings,
    ledger: Ledger,
    storages: Storages,
    tables: HashMap<u32, (String, String)>,
    /// As the catalog had them when the run began.
    catalog: Vec<TableCatalog>,
    plans: BTreeMap<u32, Plan>,
    left_out: Reasons,
    gives_up: bool,
}

/// How the copying came to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// With `snapshot = "only"`: everything is durable.
    Finished,
    /// A sink refused a change of a table, and it is written down that the table is set aside there: another run leaves that
    /// sink out. The text says what the sink said.
    SetAside(String),
    /// A log that was left out of a table is to get what it missed of it: another run begins before that. The text says which
    /// table.
    TakenBack(String),
    /// It cannot go on; the text says why and what to do.
    Failed(String),
}

impl Setup {
    /// Reads the notes and decides what is to be copied of `tables`.
    ///
    /// # Errors
    /// A sink that does not answer, or whose notes can't be read.
    pub async fn load(settings: Settings, tables: &[TableCatalog]) -> Result<Self, String> {
        let sinks: Vec<Arc<dyn Sink>> = settings.sinks.iter().map(|of| Arc::clone(&of.sink)).collect();
        let ledger = Ledger::load(&sinks).await.map_err(|error| error.to_string())?;
        let storages = Storages::load(&sinks).await.map_err(|error| error.to_string())?;
        let catalog = tables.to_vec();
        let (tables_known, plans) = (HashMap::new(), BTreeMap::new());
        let gives_up = settings.snapshot == SnapshotMode::Only;
        let left_out = ledger.left_out();
        let mut setup =
            Self { settings, ledger, storages, tables: tables_known, catalog, plans, left_out, gives_up };
        for table in tables {
            setup.tables.insert(table.oid, (table.schema.clone(), table.name.clone()));
            let mut sinks = takers(&setup.settings.sinks, &table.schema, &table.name);
            if let Some(left_out) = setup.left_out.get(&table.oid) {
                sinks.retain(|sink| !left_out.contains_key(sink));
            }
            let plan = match setup.ledger.plan(table.oid, &sinks) {
                Plan::New | Plan::Again { empty_first: false }
                    if setup.settings.snapshot == SnapshotMode::Never =>
                {
                    Plan::None { from: Position::ZERO }
                }
                plan => plan,
            };
            let plan = match plan {
                Plan::None { from } => setup.join(table, &sinks, from).await?,
                plan => plan,
            };
            if let Plan::Refill { sinks } = &plan {
                setup.storages.forget(table.oid, sinks);
            }
            setup.plans.insert(table.oid, plan);
        }
        if setup.settings.snapshot != SnapshotMode::Never {
            setup.note_absent().await?;
        }
        Ok(setup)
    }

    /// Tables of which a sink has something, and which are not published, or which it does not take: if they are again, or it
    /// does, they are copied anew, since nothing tells it what changes meanwhile.
    async fn note_absent(&mut self) -> Result<(), String> {
        for (oid, sink, table) in self.ledger.copied() {
            if !self.takes(sink, oid) {
                self.put(oid, sink, Note::Wanted { table }).await?;
            }
        }
        // A log that was to go on from where it was can't any more.
        for (oid, sink, table, reason) in self.ledger.aside_to_go_on() {
            if self.tables.contains_key(&oid) && !self.takes(sink, oid) {
                self.put(oid, sink, Note::Aside { table, reason, before: None }).await?;
            }
        }
        Ok(())
    }

    /// Whether that sink takes that table, as it is called and published now.
    fn takes(&self, sink: usize, oid: u32) -> bool {
        let known = self.tables.get(&oid).zip(self.settings.sinks.get(sink));
        known.is_some_and(|((schema, name), of)| of.tables.matches(schema, name))
    }

    async fn put(&mut self, oid: u32, sink: usize, note: Note) -> Result<(), String> {
        let Some(of) = self.settings.sinks.get(sink) else { return Ok(()) };
        let noted = of.sink.put_note(&key(oid), Some(&note.text()?)).await;
        noted.map_err(|error| format!("sink {}: keeping a note: {error}", of.sink.name()))?;
        self.ledger.set(oid, sink, note);
        Ok(())
    }

    /// How a table goes on that is in all of its sinks, changes before `from` for certain.
    async fn join(&mut self, table: &TableCatalog, sinks: &[usize], from: Position) -> Result<Plan, String> {
        let (aparts, all) = (&self.settings.aparts, &self.settings.sinks);
        // Logs note nothing: they leave out what they have.
        let holds_state = |sink: &&usize| all.get(**sink).is_some_and(CopySink::holds_state);
        let sinks: Vec<usize> = sinks.iter().filter(holds_state).copied().collect();
        let (told, from) = match aparts.of(table.oid, &sinks, from) {
            Apartness::Joined(from) => return Ok(Plan::None { from }),
            Apartness::Apart { told, from } => (told, from),
        };
        // Changes that come again would make rows without a key twice.
        if !table.relation().has_key() {
            if self.settings.snapshot != SnapshotMode::Never {
                return Ok(Plan::Again { empty_first: true });
            }
            let reason =
                "changes of it waited when the process died, and without a key they could come twice";
            let left_out = self.left_out.entry(table.oid).or_default();
            left_out.extend(sinks.into_iter().map(|sink| (sink, reason.to_owned())));
            return Ok(Plan::None { from });
        }
        // Other tables are about to go ahead of it in all of them.
        for (number, sink) in sinks.iter().filter_map(|number| Some((*number, &all.get(*number)?.sink))) {
            if !aparts.sinks_apart(table.oid).contains(&number) {
                let name = table.relation().qualified_name();
                let noted = aparts.part(number, table.oid, &name, told, from).await;
                noted.map_err(|error| format!("sink {}: keeping a note: {error}", sink.name()))?;
            }
        }
        Ok(Plan::Join { told, from })
    }

    /// Has a table that can't be copied end the run, once the others are copied, instead of being tried again and again: as
    /// with `snapshot = "only"`. For runs with an end position, which would not be reached.
    #[must_use]
    pub fn giving_up(mut self) -> Self {
        self.gives_up = true;
        self
    }

    /// How the tables stand, for the pipeline.
    pub fn standings(&self) -> Vec<(u32, Standing)> {
        let standing = |plan: &Plan| match plan {
            Plan::None { from } => Standing::Live { from: *from },
            Plan::Resume(copying) => Standing::Waiting { snapshot: copying.covers_before() },
            Plan::Join { told, from } => Standing::Apart { told: *told, from: *from },
            Plan::New | Plan::Over { .. } | Plan::Refill { .. } | Plan::Again { .. } => {
                Standing::Waiting { snapshot: None }
            }
        };
        self.plans.iter().map(|(oid, plan)| (*oid, standing(plan))).collect()
    }

    /// The sinks that get nothing of a table, for the pipeline.
    pub fn left_out(&self) -> Vec<(u32, Vec<usize>)> {
        self.left_out.iter().map(|(oid, sinks)| (*oid, sinks.keys().copied().collect())).collect()
    }

    /// Whether tables that were not named wait to be copied.
    pub fn unknown_wait(&self) -> bool {
        self.settings.snapshot != SnapshotMode::Never
    }

    /// Copies what is to be copied, now and whenever something comes up, for as long as the pipeline runs.
    pub async fn run(self, pipeline: Sender<Input>, notices: mpsc::UnboundedReceiver<Notice>) -> Outcome {
        let Settings { source, sinks, versions, aparts, config, snapshot, catalog_interval, backoff, logger } =
            self.settings;
        let storages = self.storages;
        // What has changed while nobody followed, and no change tells of.
        let _ = pipeline.send(Input::Catalog(self.catalog.clone()));
        // Nobody waits for what a sink has refused of tables that are not published any more.
        for oid in self.left_out.keys().filter(|oid| !self.tables.contains_key(oid)) {
            let _ = pipeline.send(Input::Forget(*oid));
        }
        let left_out = LeftOut::new(self.left_out);
        let shared =
            Shared { source, sinks, config, backoff, pipeline, logger, versions, aparts, storages, left_out };
        let shared = Arc::new(shared);
        let mut todo = BTreeMap::new();
        let mut joining = Vec::new();
        for (oid, plan) in self.plans {
            match plan {
                Plan::None { .. } => {}
                Plan::Join { .. } => joining.push(oid),
                plan => {
                    todo.insert(oid, plan);
                }
            }
        }
        let beginning = Beginning {
            ledger: self.ledger,
            mode: snapshot,
            tables: self.tables,
            todo,
            joining,
            gives_up: self.gives_up,
            catalog: self.catalog,
        };
        Manager::new(shared, beginning).run(notices, catalog_interval).await.unwrap_or_else(Outcome::Failed)
    }
}
