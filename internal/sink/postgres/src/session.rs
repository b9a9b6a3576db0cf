use crate::checkpoint::{CheckpointStatements, Owner};
use crate::connector::Connector;
use crate::error;
use crate::failure;
use crate::own_tables::StreamKey;
use crate::plan::{Plan, Progress};
use crate::sql::{Query, Stage};
use crate::target::Target;
use replicator_sink::SinkError;
use replicator_types::Position;
use slog::info;
use std::collections::HashMap;
use std::sync::Arc;
use tokio_postgres::error::Severity;
use tokio_postgres::{Client, Statement};

/// At so many staging tables all are dropped: the end of a session takes a lock on each, and the server has
/// some 6,000 in its default configuration.
const STAGES_MAX: usize = 300;

/// A stage with fewer rows than this in it, dead ones included, is cleared by DELETE, which leaves dead rows that
/// the next statements step over; with more by TRUNCATE, which costs about a millisecond and new plans.
const DELETED_ROWS_MAX: u64 = 1_000;

/// At so many prepared statements all are forgotten: each costs the server some 10 to 100 kB.
const STATEMENTS_MAX: usize = 1_000;

/// After a new row met one of its key in the target, so many batches of that table go by way of the staged
/// upsert, which bears it: an overlap with earlier data does not end after one batch.
const CAREFUL_BATCHES: u32 = 16;

/// A lane's connection, and what this process knows of the lane's checkpoint row.
///
/// ```text
///   settled ──BEGIN──▶ busy ──COMMIT sent (to = the batch's end)──▶ in doubt ──answer──▶ settled
///      ▲                 └── connection lost, future dropped ──┐        │
///      └───────────── connect, read the row ◀──────────────────┴────────┘
/// ```
/// In doubt the row is at one of two places: where it was, or where the transaction was to bring it. Anywhere
/// else another process has put it. A session for copied rows has no such row; its batches leave marks.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) owner: Owner,
    key: StreamKey,
    has_checkpoint: bool,
    connector: Arc<Connector>,
    open: Option<Open>,
    /// Where the row is, as far as this process has heard.
    committed: Position,
    /// Where a transaction whose end is not known was to bring it.
    in_doubt: Option<Position>,
    /// By target: batches to go until new rows are copied into the table itself again.
    careful: HashMap<u32, u32>,
}

/// What came of beginning a transaction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Begun {
    /// It is open.
    Open,
    /// An earlier try of the batch is in already. Nothing is open.
    Done,
    /// The row was not where it was thought to be: a transaction of this process, given up for lost, has ended after
    /// all. Nothing is open, and the row's position is known again.
    Behind,
}

/// What lives and dies with a connection.
#[derive(Debug)]
struct Open {
    client: Arc<Client>,
    checkpoint: Arc<CheckpointStatements>,
    statements: HashMap<(u32, Query), Statement>,
    stages: HashMap<(u32, Stage), Staged>,
    backend: Backend,
    /// Whether a transaction was begun that has not ended as far as is known.
    busy: bool,
}

/// A staging table. The numbers may be too high, after a transaction that was undone, and never too low.
#[derive(Debug)]
struct Staged {
    name: String,
    /// Rows that a statement would see.
    rows: u64,
    /// Deleted rows that it would step over.
    dead: u64,
}

/// A server process; its number alone may be another's by now.
#[derive(Debug)]
struct Backend {
    pid: i32,
    started_at: String,
}

impl Session {
    /// Connects and finds, or makes, the lane's checkpoint row.
    pub(crate) async fn open(owner: Owner, connector: Arc<Connector>) -> Result<Self, SinkError> {
        let open = Open::connect(&connector, &owner).await?;
        owner.insert(&open.client).await?;
        let committed = owner.read(&open.client).await?;
        Ok(Self { committed, ..Self::new(owner, connector, open, true) })
    }

    /// Connects, for copied rows.
    pub(crate) async fn open_beside(owner: Owner, connector: Arc<Connector>) -> Result<Self, SinkError> {
        let open = Open::connect(&connector, &owner).await?;
        Ok(Self::new(owner, connector, open, false))
    }

    fn new(owner: Owner, connector: Arc<Connector>, open: Open, has_checkpoint: bool) -> Self {
        Self {
            key: StreamKey::new(&owner.sink, &owner.identity),
            owner,
            has_checkpoint,
            connector,
            open: Some(open),
            committed: Position::ZERO,
            in_doubt: None,
            careful: HashMap::new(),
        }
    }

    /// Where the row is. True after [`Session::client`], until the next transaction.
    pub(crate) fn committed(&self) -> Position {
        self.committed
    }

    /// A connection with no transaction open, made anew if need be; the row's position is known afterwards.
    pub(crate) async fn client(&mut self) -> Result<Arc<Client>, SinkError> {
        if let Some(open) = &self.open
            && !open.busy
            && !open.client.is_closed()
        {
            return Ok(Arc::clone(&open.client));
        }
        let earlier = self.open.take();
        let open = Open::connect(&self.connector, &self.owner).await?;
        if let Some(earlier) = earlier {
            earlier.backend.terminate(&open.client).await;
        }
        let client = Arc::clone(&open.client);
        if self.has_checkpoint {
            self.learn(&client).await?;
        }
        info!(self.connector.logger(), "connected to the target again";
            "shard" => self.owner.shard, "checkpoint" => %self.committed);
        self.open = Some(open);
        Ok(client)
    }

    /// Reads the row.
    ///
    /// # Errors
    /// Halt when it is where neither this process nor a transaction of it in doubt has put it.
    async fn learn(&mut self, client: &Client) -> Result<(), SinkError> {
        let found = self.owner.read(client).await?;
        if found != self.committed && Some(found) != self.in_doubt {
            return Err(self.owner.taken(self.committed, found));
        }
        self.committed = found;
        Ok(())
    }

    /// Begins the transaction that applies the plan: moves the checkpoint row or holds it, and leaves the plan's mark.
    pub(crate) async fn begin(&mut self, plan: &Plan) -> Result<Begun, SinkError> {
        let Some(open) = &mut self.open else { return Err(lost()) };
        let (client, statements) = (Arc::clone(&open.client), Arc::clone(&open.checkpoint));
        open.busy = true;
        let begin = async {
            let begun = client.batch_execute("BEGIN").await;
            begun.map_err(|error| error::of_server(&error, "begin a transaction"))
        };
        let (owner, at) = (&self.owner, self.committed);
        let row = async {
            match plan.progress {
                Progress::Advance => owner.advance(&client, &statements, at, plan.last).await,
                Progress::Stay(_) => owner.hold(&client, &statements, at).await,
                Progress::Beside(_) => Ok(true),
            }
        };
        let ((), found) = futures_util::future::try_join(begin, row).await?;
        if !found {
            self.rollback().await?;
            self.learn(&client).await?;
            return Ok(Begun::Behind);
        }
        if let Progress::Stay(Some(mark)) | Progress::Beside(Some(mark)) = plan.progress
            && !mark.leave(&client, &self.key).await?
        {
            self.rollback().await?;
            return Ok(Begun::Done);
        }
        Ok(Begun::Open)
    }

    /// The connection that a transaction is open on.
    pub(crate) fn client_in_transaction(&self) -> Result<&Client, SinkError> {
        self.open.as_ref().map(|open| &*open.client).ok_or_else(lost)
    }

    /// Commits what [`Session::begin`] began.
    pub(crate) async fn commit(&mut self, plan: &Plan) -> Result<(), SinkError> {
        let Some(open) = &mut self.open else { return Err(lost()) };
        let moves_to = (plan.progress == Progress::Advance).then_some(plan.last);
        if moves_to.is_some() {
            self.in_doubt = moves_to;
        }
        match open.client.batch_execute("COMMIT").await {
            Ok(()) => {
                open.busy = false;
                self.committed = moves_to.unwrap_or(self.committed);
                self.in_doubt = None;
                Ok(())
            }
            Err(error) => {
                if error.as_db_error().is_some_and(|error| error.parsed_severity() == Some(Severity::Error)) {
                    // The server said no (a deferred constraint): the transaction is over and undone.
                    open.busy = false;
                    self.in_doubt = None;
                }
                Err(error::of_server(&error, "commit"))
            }
        }
    }

    /// Ends the open transaction without a trace.
    pub(crate) async fn rollback(&mut self) -> Result<(), SinkError> {
        let Some(open) = &mut self.open else { return Ok(()) };
        let done = open.client.batch_execute("ROLLBACK").await;
        done.map_err(|error| error::of_server(&error, "roll back"))?;
        open.busy = false;
        Ok(())
    }

    /// Makes a staging table, outside of any transaction, where it is absent.
    pub(crate) async fn need_stage(&mut self, target: &Target, stage: Stage) -> Result<(), SinkError> {
        let Some(open) = &mut self.open else { return Err(lost()) };
        if open.stages.contains_key(&(target.id, stage)) {
            return Ok(());
        }
        let sql = target.create_stage(stage);
        let made = open.client.batch_execute(&sql).await;
        made.map_err(|error| {
            failure::of_table(&error, target, &format!("make a staging table for {}", target.relation))
        })?;
        // It may be there from a call that was dropped half-way, rows and all.
        open.stages.insert((target.id, stage), Staged { name: target.stage(stage), rows: 1, dead: 0 });
        Ok(())
    }

    /// The statement that a stage has to be cleared by before `rows` are copied into it, if any. What was there
    /// is not removed before it is in the way: the table it was for may not come again.
    pub(crate) fn clearing(&mut self, target: &Target, stage: Stage, rows: u64) -> Option<String> {
        let staged = self.open.as_mut()?.stages.get_mut(&(target.id, stage))?;
        let before = std::mem::replace(&mut staged.rows, rows);
        if before == 0 {
            return None;
        }
        staged.dead += before;
        if staged.dead <= DELETED_ROWS_MAX {
            return Some(format!("DELETE FROM {}", staged.name));
        }
        // Should the transaction be undone, the next clearing is a DELETE that has more to do.
        staged.dead = 0;
        Some(format!("TRUNCATE {}", staged.name))
    }

    /// Keeps the number of statements and staging tables within bounds. Between transactions.
    pub(crate) async fn tidy(&mut self) -> Result<(), SinkError> {
        let Some(open) = &mut self.open else { return Err(lost()) };
        if open.statements.len() > STATEMENTS_MAX {
            open.statements.clear();
        }
        if open.stages.len() > STAGES_MAX {
            let mut names: Vec<String> = open.stages.drain().map(|(_, staged)| staged.name).collect();
            names.sort_unstable();
            open.statements.clear();
            let dropped = open.client.batch_execute(&format!("DROP TABLE {}", names.join(", "))).await;
            dropped.map_err(|error| error::of_server(&error, "drop staging tables"))?;
        }
        Ok(())
    }

    /// The prepared form of a query; None when it has nothing to do.
    pub(crate) async fn statement(
        &mut self,
        target: &Target,
        query: Query,
    ) -> Result<Option<Statement>, SinkError> {
        let Some(open) = &mut self.open else { return Err(lost()) };
        if let Some(statement) = open.statements.get(&(target.id, query)) {
            return Ok(Some(statement.clone()));
        }
        let Some(sql) = target.text(query) else { return Ok(None) };
        let prepared = open.client.prepare(&sql).await;
        let statement = prepared
            .map_err(|error| failure::of_table(&error, target, &format!("write to {}", target.relation)))?;
        open.statements.insert((target.id, query), statement.clone());
        Ok(Some(statement))
    }

    /// Whether new rows of this target go by way of the staged upsert.
    pub(crate) fn is_careful(&self, target: &Target) -> bool {
        self.careful.contains_key(&target.id)
    }

    /// A batch with new rows of this target went well.
    pub(crate) fn relax(&mut self, target: &Target) {
        if let Some(batches) = self.careful.get_mut(&target.id) {
            *batches -= 1;
            if *batches == 0 {
                self.careful.remove(&target.id);
            }
        }
    }

    /// A new row of this target met one of its key.
    pub(crate) fn be_careful(&mut self, target: &Target) {
        self.careful.insert(target.id, CAREFUL_BATCHES);
    }

    /// Says whether the connection is in the middle of something, so that it is not used again if that is
    /// never finished.
    pub(crate) fn set_busy(&mut self, busy: bool) {
        if let Some(open) = &mut self.open {
            open.busy = busy;
        }
    }

    pub(crate) fn connector(&self) -> &Connector {
        &self.connector
    }
}

fn lost() -> SinkError {
    SinkError::retry("the connection to the target is gone")
}

impl Open {
    async fn connect(connector: &Connector, owner: &Owner) -> Result<Self, SinkError> {
        let client = connector.open().await?;
        let checkpoint = Arc::new(owner.prepare(&client).await?);
        let sql = "SELECT pid, backend_start::text FROM pg_catalog.pg_stat_activity WHERE pid = pg_catalog.pg_backend_pid()";
        let row = client
            .query_one(sql, &[])
            .await
            .map_err(|error| error::of_server(&error, "ask for the session"))?;
        Ok(Self {
            client: Arc::new(client),
            checkpoint,
            statements: HashMap::new(),
            stages: HashMap::new(),
            backend: Backend { pid: row.get(0), started_at: row.get(1) },
            busy: false,
        })
    }
}

impl Backend {
    /// Ends the server process of a connection that was given up. Behind a network that swallows packets it may
    /// hold its locks, the checkpoint row's among them, for as long as the server believes in the connection.
    async fn terminate(&self, client: &Client) {
        let sql = "SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity \
                   WHERE pid = $1 AND backend_start::text = $2";
        // Mostly it is gone; and when it cannot be ended, the row's lock makes the next transaction wait.
        let _ = client.execute(sql, &[&self.pid, &self.started_at]).await;
    }
}
