//! The transaction that applies a plan.
//!
//! ```text
//!   BEGIN, advance the checkpoint
//!   for each table:  COPY keys, rows, partials into stages ─▶ DELETE ─▶ UPDATE ─▶ UPDATE partials
//!                                                              ─▶ INSERT those the UPDATE did not find
//!                    COPY new rows into the table itself
//!   COMMIT
//! ```
//! New rows go the short way, in the expectation that there is no row of their key. A unique violation rolls all
//! back, and the batch goes again the next way:
//! 1. `Direct`: as above;
//! 2. `Careful`: new rows are staged and upserted, as rows of which nothing is known;
//! 3. `Anew`: staged rows, trimmed ones whole, are removed before any is written, for values that wander between rows under a unique
//!    index other than the key's, where the order of single updates would matter. Columns that only the target
//!    has fall back to their defaults in such rows.
//!
//! # Invariants
//! - COMMIT is sent when every statement before it has succeeded, and not before the checkpoint row was found
//!   where it was left.
//! - `Ok` only after the server's answer to COMMIT, under the sink's `synchronous_commit`.

use crate::copy_text::Rows;
use crate::failure::Failure;
use crate::plan::{Keyed, Multiset, Plan, Progress, Run, Step, Table, Truncate, changes_at};
use crate::rowwise;
use crate::session::{Begun, Session};
use crate::sql::{Query, Stage};
use crate::target::Target;
use crate::{encode, enums};
use bytes::Bytes;
use futures_util::SinkExt;
use replicator_sink::SinkError;
use replicator_types::Batch;
use slog::warn;
use std::pin::pin;
use tokio_postgres::{Client, Statement};

/// A chunk of rows handed to the connection at once; it copies each into its own buffer.
const COPY_CHUNK_BYTES: usize = 256 << 10;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Way {
    Direct,
    Careful,
    Anew,
}

impl Way {
    fn next(self) -> Option<Self> {
        match self {
            Self::Direct => Some(Self::Careful),
            Self::Careful => Some(Self::Anew),
            Self::Anew => None,
        }
    }
}

/// What was noticed on the way, told once it is committed.
#[derive(Debug, Default)]
struct Noticed {
    missing: u64,
    table: String,
}

impl Noticed {
    fn missing(&mut self, target: &Target, rows: u64) {
        if rows > 0 {
            self.missing += rows;
            self.table = target.relation.to_string();
        }
    }
}

/// Applies `plan` in one transaction. `batch` is the one it was made from, where [`Plan::needs_batch`].
pub(crate) async fn apply(
    session: &mut Session,
    plan: &Plan,
    batch: Option<&Batch>,
) -> Result<(), SinkError> {
    session.client().await?;
    session.tidy().await?;
    let mut way = Way::Direct;
    // Where an earlier transaction of ours ended after all, the position is known anew; that happens once.
    let mut was_behind = false;
    let mut has_added_labels = false;
    loop {
        if is_applied(session, plan)? {
            return Ok(());
        }
        need_stages(session, plan, way).await?;
        match session.begin(plan).await? {
            Begun::Open => {}
            Begun::Done => return Ok(()),
            Begun::Behind if !std::mem::replace(&mut was_behind, true) => continue,
            Begun::Behind => return Err(SinkError::retry("the checkpoint row of the target was busy")),
        }
        let is_catch_up = matches!(plan.progress, Progress::Stay(_));
        let mut attempt = Attempt { session, batch, way, noticed: Noticed::default() };
        let failure = match attempt.run(plan).await {
            Ok(()) => {
                let noticed = attempt.noticed;
                session.commit(plan).await?;
                relax(session, plan);
                // A held change may well be older than what the copy found of its row.
                if !is_catch_up {
                    report(session, plan, &noticed);
                }
                return Ok(());
            }
            Err(failure) => failure,
        };
        // A connection that is gone rolls back by itself; what failed first is what is told.
        let rolled_back = session.rollback().await;
        if rolled_back.is_err() {
            return Err(failure.error);
        }
        if failure.is_invalid_text
            && !std::mem::replace(&mut has_added_labels, true)
            && enums::add_missing(session, plan, batch).await?
        {
            continue;
        }
        match way.next() {
            Some(next) if failure.is_unique_violation => way = next,
            _ => return Err(failure.error),
        }
    }
}

/// Whether there is nothing to do, as far as this process knows.
fn is_applied(session: &Session, plan: &Plan) -> Result<bool, SinkError> {
    let committed = session.committed();
    if plan.progress != Progress::Advance {
        return Ok(plan.steps.is_empty());
    }
    if committed >= plan.last {
        return Ok(true);
    }
    match plan.first.filter(|first| committed >= *first) {
        Some(first) => Err(SinkError::halt(format!(
            "a batch of changes {first} to {} overlaps what is applied, up to {committed}: this is a fault of the \
             replicator; start it again",
            plan.last
        ))),
        None => Ok(false),
    }
}

fn relax(session: &mut Session, plan: &Plan) {
    for step in &plan.steps {
        let Step::Tables(tables) = step else { continue };
        for table in tables {
            if let Table::Keyed(keyed) = table
                && !keyed.inserts.is_empty()
            {
                session.relax(&keyed.target);
            }
        }
    }
}

fn report(session: &Session, plan: &Plan, noticed: &Noticed) {
    let rows = noticed.missing + plan.orphans;
    if rows > 0 {
        warn!(session.connector().logger(),
            "updates or deletes of rows that the target does not have, which nothing here could complete, were left \
             out; copy the table again if it was not being copied just now";
            "rows" => rows, "last_table" => &noticed.table, "position" => %plan.last);
    }
}

/// Makes the staging tables that the plan needs, before the transaction: what it makes would go with it.
async fn need_stages(session: &mut Session, plan: &Plan, way: Way) -> Result<(), SinkError> {
    for step in &plan.steps {
        let Step::Tables(tables) = step else { continue };
        for table in tables {
            if let Table::Multiset(multiset) = table
                && !multiset.removed.is_empty()
            {
                session.need_stage(&multiset.target, Stage::Rows).await?;
            }
            let Table::Keyed(keyed) = table else { continue };
            let stages_inserts =
                !keyed.inserts.is_empty() && (way > Way::Direct || session.is_careful(&keyed.target));
            let has_trimmed = !keyed.trimmed.rows.is_empty();
            let needs = [
                (Stage::Keys, !keyed.deletes.is_empty()),
                (Stage::Rows, !keyed.upserts.is_empty() || stages_inserts || has_trimmed),
                (Stage::Partials, !keyed.partials.is_empty() || has_trimmed),
            ];
            for (stage, is_needed) in needs {
                if is_needed {
                    session.need_stage(&keyed.target, stage).await?;
                }
            }
        }
    }
    Ok(())
}

struct Attempt<'a> {
    session: &'a mut Session,
    batch: Option<&'a Batch>,
    way: Way,
    noticed: Noticed,
}

impl Attempt<'_> {
    async fn run(&mut self, plan: &Plan) -> Result<(), Failure> {
        for step in &plan.steps {
            match step {
                Step::Tables(tables) => {
                    for table in tables {
                        match table {
                            Table::Keyed(keyed) => self.keyed(keyed).await?,
                            Table::Keyless(target, runs) => self.keyless(target, runs).await?,
                            Table::Multiset(multiset) => self.multiset(multiset).await?,
                        }
                    }
                }
                Step::Truncate(truncate) => self.truncate(truncate).await?,
                Step::MoveRow(target, index) => {
                    let Some(batch) = self.batch else { continue };
                    let found =
                        rowwise::move_row(self.session, target, &batch.change(*index as usize)).await?;
                    self.noticed.missing(target, 1 - found.min(1));
                }
                Step::MoveRowIfNotMoved(target, index) => {
                    let Some(batch) = self.batch else { continue };
                    let change = batch.change(*index as usize);
                    rowwise::move_row_if_not_moved(self.session, target, &change).await?;
                }
            }
        }
        Ok(())
    }

    async fn keyed(&mut self, keyed: &Keyed) -> Result<(), Failure> {
        let target = &keyed.target;
        let stages_inserts = self.way > Way::Direct || self.session.is_careful(target);
        let staged_inserts = if stages_inserts { keyed.inserts.clone() } else { Rows::default() };
        let (trimmed, whole) = match self.way {
            Way::Direct | Way::Careful => (keyed.trimmed.rows.clone(), Rows::default()),
            Way::Anew => (Rows::default(), self.untrimmed(keyed)?),
        };
        let staged = keyed.upserts.count + staged_inserts.count + whole.count;
        self.stage(target, Stage::Keys, &[&keyed.deletes]).await?;
        self.stage(target, Stage::Rows, &[&keyed.upserts, &staged_inserts, &whole]).await?;
        self.stage(target, Stage::Partials, &[&keyed.partials, &trimmed]).await?;

        let rewrites = self.way == Way::Anew && staged > 0;
        let in_part = keyed.partials.count + trimmed.count;
        let delete = self.statement_if(!keyed.deletes.is_empty(), target, Query::Delete(Stage::Keys)).await?;
        let rewrite = self.statement_if(rewrites, target, Query::Delete(Stage::Rows)).await?;
        let update = self.statement_if(staged > 0 && !rewrites, target, Query::Update).await?;
        let partial = self.statement_if(in_part > 0, target, Query::UpdatePartials).await?;
        let sets_partials = partial.is_some();

        // Sent together, run in this order.
        let client = self.session.client_in_transaction()?;
        let (_, _, updated, partials) = futures_util::future::try_join4(
            execute(client, delete),
            execute(client, rewrite),
            execute(client, update),
            execute(client, partial),
        )
        .await
        .map_err(|error| Failure::of(&error, target))?;
        if updated < staged {
            self.insert_missing(target).await?;
        }
        let mut missing = in_part.saturating_sub(partials);
        if missing > 0 && !trimmed.is_empty() {
            let whole = self.untrimmed(keyed)?;
            self.stage(target, Stage::Rows, &[&whole]).await?;
            missing = missing.saturating_sub(self.insert_missing(target).await?);
        }
        if sets_partials {
            self.noticed.missing(target, missing);
        }
        if !stages_inserts && let Err(failure) = self.copy_new(target, &keyed.inserts).await {
            if failure.is_unique_violation {
                self.session.be_careful(target);
            }
            return Err(failure);
        }
        Ok(())
    }

    /// Adds the staged rows that the table does not have, and says how many.
    async fn insert_missing(&mut self, target: &Target) -> Result<u64, Failure> {
        let insert = self.statement_if(true, target, Query::InsertMissing).await?;
        let client = self.session.client_in_transaction()?;
        execute(client, insert).await.map_err(|error| Failure::of(&error, target))
    }

    /// The trimmed rows as they are at the source.
    fn untrimmed(&self, keyed: &Keyed) -> Result<Rows, SinkError> {
        let changes = &keyed.trimmed.changes;
        match self.batch {
            Some(batch) if !changes.is_empty() => {
                encode::whole_rows(batch, &keyed.target, changes_at(batch, changes))
            }
            _ => Ok(Rows::default()),
        }
    }

    async fn keyless(&mut self, target: &Target, runs: &[Run]) -> Result<(), Failure> {
        for run in runs {
            match run {
                Run::Insert(rows) => self.copy_new(target, rows).await?,
                Run::OneByOne(indexes) => {
                    let Some(batch) = self.batch else { continue };
                    for index in indexes {
                        let found =
                            rowwise::keyless(self.session, target, &batch.change(*index as usize)).await?;
                        self.noticed.missing(target, 1 - found.min(1));
                    }
                }
            }
        }
        Ok(())
    }

    /// Those that go first: what is unique at the source stays so here.
    async fn multiset(&mut self, multiset: &Multiset) -> Result<(), Failure> {
        let Multiset { target, removed, added } = multiset;
        if !removed.is_empty() {
            self.stage(target, Stage::Rows, &[removed]).await?;
            let delete = self.statement_if(true, target, Query::DeleteSame).await?;
            let client = self.session.client_in_transaction()?;
            let found = execute(client, delete).await.map_err(|error| Failure::of(&error, target))?;
            self.noticed.missing(target, removed.count.saturating_sub(found));
        }
        self.copy_new(target, added).await
    }

    async fn truncate(&mut self, truncate: &Truncate) -> Result<(), Failure> {
        let Some(first) = truncate.targets.first() else { return Ok(()) };
        let sql = truncate.text();
        let done = self.session.client_in_transaction()?.batch_execute(&sql).await;
        done.map_err(|error| Failure::of(&error, first))
    }

    /// New rows straight into the table.
    async fn copy_new(&mut self, target: &Target, rows: &Rows) -> Result<(), Failure> {
        if rows.is_empty() {
            return Ok(());
        }
        if target.columns.is_empty() {
            // COPY has no form for rows without columns.
            let sql = format!(
                "INSERT INTO {} SELECT FROM pg_catalog.generate_series(1, {})",
                target.table, rows.count
            );
            let done = self.session.client_in_transaction()?.batch_execute(&sql).await;
            return done.map_err(|error| Failure::of(&error, target));
        }
        let statement = self.statement_if(true, target, Query::CopyNew(rows.format)).await?;
        let client = self.session.client_in_transaction()?;
        copy(client, statement, rows).await.map_err(|error| Failure::of(&error, target))
    }

    async fn stage(&mut self, target: &Target, stage: Stage, rows: &[&Rows]) -> Result<(), Failure> {
        if rows.iter().all(|rows| rows.is_empty()) {
            return Ok(());
        }
        let mut clearing = self.session.clearing(target, stage, rows.iter().map(|rows| rows.count).sum());
        for rows in rows.iter().filter(|rows| !rows.is_empty()) {
            let statement = self.statement_if(true, target, Query::CopyTo(stage, rows.format)).await?;
            let client = self.session.client_in_transaction()?;
            let clearing = clearing.take();
            let clear = async {
                match &clearing {
                    Some(sql) => client.batch_execute(sql).await,
                    None => Ok(()),
                }
            };
            // Sent together, run in this order.
            let done = futures_util::future::try_join(clear, copy(client, statement, rows)).await;
            done.map_err(|error| Failure::of(&error, target))?;
        }
        Ok(())
    }

    async fn statement_if(
        &mut self,
        is_needed: bool,
        target: &Target,
        query: Query,
    ) -> Result<Option<Statement>, SinkError> {
        if is_needed { self.session.statement(target, query).await } else { Ok(None) }
    }
}

impl Truncate {
    fn text(&self) -> String {
        // The source names every table that it emptied, children and partitions included; a partitioned table as
        // a whole is named only where that is what the changes are published under.
        let names = self.targets.iter().map(|target| {
            let only = if target.is_partitioned { "" } else { "ONLY " };
            format!("{only}{}", target.table)
        });
        let names: Vec<String> = names.collect();
        let restart = if self.restart_identity { " RESTART IDENTITY" } else { "" };
        // Never CASCADE: the source lists every published table it reached, and what else refers to them here
        // is not ours to empty (as Postgres' own apply worker has it).
        format!("TRUNCATE {}{restart}", names.join(", "))
    }
}

async fn execute(client: &Client, statement: Option<Statement>) -> Result<u64, tokio_postgres::Error> {
    match statement {
        Some(statement) => client.execute(&statement, &[]).await,
        None => Ok(0),
    }
}

async fn copy(
    client: &Client,
    statement: Option<Statement>,
    rows: &Rows,
) -> Result<(), tokio_postgres::Error> {
    let Some(statement) = statement else { return Ok(()) };
    let mut sink = pin!(client.copy_in::<_, Bytes>(&statement).await?);
    let mut rest = rows.lines.clone();
    while !rest.is_empty() {
        let chunk = rest.split_to(rest.len().min(COPY_CHUNK_BYTES));
        sink.feed(chunk).await?;
    }
    sink.finish().await.map(drop)
}
