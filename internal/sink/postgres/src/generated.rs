//! Columns that the source computes and does not send are computed in the target as well.
//!
//! ```text
//!   the source's, by number     record                          target
//!   3 "twice" a * 2  ────────▶  3 "twice" a * 2  ─ the same ─▶  nothing to do
//!   3 "double" a * 2 ────────▶  3 "twice" a * 2  ────────────▶  RENAME COLUMN
//!   4 "sum" a + b    ────────▶  none             ────────────▶  ADD COLUMN … GENERATED ALWAYS AS (…)
//!   none             ────────▶  5 "old" …        ────────────▶  DROP COLUMN
//! ```
//! An expression that the target can't have (a function of the source's own, a column that stands in for another type) is
//! told in the log, and its column left out.
//!
//! # Invariants
//! - Only columns made here are renamed or dropped; a name that the target has is let be.
//! - No change of the stream waits for any of this: the columns come a moment later than at the source. What they compute
//!   is compared with the source's expression again after every change of the target's tables, since the catalog may be
//!   ahead of the stream.
//!
//! Source: <https://www.postgresql.org/docs/current/ddl-generated-columns.html>.

use crate::check;
use crate::create::under_lock;
use crate::error;
use crate::evolve::Hand;
use crate::existing::Existing;
use crate::notes::{self, OWN_PREFIX};
use crate::record::{Record, RecordColumn, RecordGenerated};
use crate::resolve::Resolver;
use crate::sql::{ident, table};
use crate::statements::Statements;
use crate::types::{TEXT, Types};
use replicator_sink::SinkError;
use replicator_types::{Column, GeneratedColumn, Lsn, Relation, ReplicaIdentity};
use slog::warn;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use tokio_postgres::Client;
use tokio_postgres::types::Type;

/// From this version on a server computes columns when they are read.
const VIRTUAL_SINCE: i32 = 180_000;

/// What was done for each table, so that being told again costs nothing.
#[derive(Debug, Default)]
pub(crate) struct Followed(Mutex<Option<HashMap<u32, Done>>>);

#[derive(Clone, Debug, Default)]
struct Done {
    /// [`Resolver::generation`] at that time.
    generation: u64,
    /// What the source had; nothing when it is only known that an earlier run has made some.
    columns: Option<Vec<GeneratedColumn>>,
    refused: Vec<Refusal>,
}

/// A column that the target can't have, and why.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Refusal {
    attnum: i16,
    reason: String,
}

impl Followed {
    fn with<T>(&self, work: impl FnOnce(&mut Option<HashMap<u32, Done>>) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What is known of the table; nothing at all before the first is asked for.
    fn of(&self, oid: u32) -> Option<Option<Done>> {
        self.with(|known| known.as_ref().map(|known| known.get(&oid).cloned()))
    }

    fn set(&self, oid: u32, done: Done) {
        self.with(|known| known.get_or_insert_default().insert(oid, done));
    }
}

/// Whether nothing is to be done, by what is remembered alone.
pub(crate) fn is_followed(resolver: &Resolver, oid: u32, columns: &[GeneratedColumn]) -> bool {
    match resolver.generated.of(oid) {
        None => false,
        Some(None) => columns.is_empty(),
        Some(Some(done)) => {
            done.columns.is_some_and(|known| known == columns) && done.generation == resolver.generation()
        }
    }
}

/// See the module. A table that is not there yet is told of again.
pub(crate) async fn follow(
    client: &Client,
    resolver: &Resolver,
    oid: u32,
    columns: &[GeneratedColumn],
) -> Result<(), SinkError> {
    if resolver.generated.of(oid).is_none() {
        load(client, resolver).await?;
        if is_followed(resolver, oid, columns) {
            return Ok(());
        }
    }
    let generation = resolver.generation();
    let Some(record) = Record::load(client, &resolver.key, oid).await? else { return Ok(()) };
    let name = format!("{}.{}", record.schema, record.name);
    let types = Types::look_up(client, &alone(oid, columns)).await?;
    let doing = format!("bring generated columns of table {name} to the source's");
    let changed =
        under_lock(client, &doing, async || change(client, resolver, oid, columns, &types, &doing).await);
    let Some(refused) = changed.await? else { return Ok(()) };
    let before = resolver.generated.of(oid).flatten().unwrap_or_default();
    for refusal in refused.iter().filter(|refusal| !before.refused.contains(refusal)) {
        let of = columns.iter().find(|generated| generated.column.attnum == refusal.attnum);
        warn!(resolver.logger, "a generated column is left out in the target, or stays as it was";
            "table" => &name, "column" => of.map(|of| of.column.name.as_str()),
            "expression" => of.map(|of| of.expression.as_str()), "reason" => &refusal.reason);
    }
    resolver.generated.set(oid, Done { generation, columns: Some(columns.to_vec()), refused });
    Ok(())
}

/// Which tables have columns that an earlier run has made.
async fn load(client: &Client, resolver: &Resolver) -> Result<(), SinkError> {
    let notes = notes::all(client, &resolver.key).await?;
    resolver.generated.with(|known| {
        known.get_or_insert_default();
    });
    for (key, text) in &notes {
        let oid = key.strip_prefix(OWN_PREFIX).and_then(|oid| oid.parse().ok());
        if let Some(oid) = oid.filter(|_| text.contains("\"generated\"")) {
            resolver.generated.set(oid, Done::default());
        }
    }
    Ok(())
}

/// A table of these columns, for finding their types.
fn alone(oid: u32, columns: &[GeneratedColumn]) -> Relation {
    Relation {
        oid,
        version: 0,
        since: Lsn::ZERO,
        schema: String::new(),
        name: String::new(),
        replica_identity: ReplicaIdentity::Default,
        columns: columns.iter().map(|generated| generated.column.clone()).collect(),
        key: Vec::new(),
        key_text_is_identity: true,
        is_guess: false,
    }
}

/// Makes, renames and drops, in the open transaction. Returns what can't be had; nothing if there is no table.
async fn change(
    client: &Client,
    resolver: &Resolver,
    oid: u32,
    columns: &[GeneratedColumn],
    types: &Types,
    doing: &str,
) -> Result<Option<Vec<Refusal>>, SinkError> {
    let Some(mut record) = Record::load(client, &resolver.key, oid).await? else { return Ok(None) };
    let Some(existing) = Existing::look_up(client, &record.schema, &record.name).await? else {
        return Ok(None);
    };
    let failed = |error| error::of_server(&error, doing);
    // As the source's expressions were written down.
    client.batch_execute("SET LOCAL search_path = pg_catalog").await.map_err(failed)?;
    let table = Table {
        statements: Statements { client, logger: &resolver.logger, doing },
        quoted: table(&record.schema, &record.name),
        is_virtual_known: check::server_version(client).await.map_err(failed)? >= VIRTUAL_SINCE,
        text: record.columns.iter().find(|column| column.stand_in.as_deref() == Some(TEXT)),
    };
    let there = table.expressions().await?;
    let (mut kept, mut refused) = (Vec::new(), Vec::new());
    let made = record.generated.iter();
    for known in made.filter(|made| existing.column(&made.name).is_some_and(|there| there.is_generated)) {
        let place = columns.iter().position(|generated| generated.column.attnum == known.attnum);
        let Some((index, wanted)) = place.and_then(|index| Some((index, columns.get(index)?))) else {
            if let Err(reason) = table.drop_column(&known.name).await? {
                refused.push(Refusal { attnum: known.attnum, reason });
                kept.push(known.clone());
            }
            continue;
        };
        let type_sql = types.sql(index, &wanted.column);
        let changed = match there.get(&known.name) {
            Some(text) if known.is(wanted, text) => table.rename(&known.name, &wanted.column.name).await?,
            _ => table.replace(&known.name, wanted, type_sql).await?,
        };
        kept.push(match changed {
            Ok(()) => RecordGenerated::of(wanted),
            Err(reason) => {
                refused.push(Refusal { attnum: known.attnum, reason });
                known.clone()
            }
        });
    }
    let existing = Existing::look_up(client, &record.schema, &record.name).await?;
    for (index, wanted) in columns.iter().enumerate() {
        let Column { attnum, name, .. } = &wanted.column;
        let is_taken = existing.as_ref().is_some_and(|existing| existing.column(name).is_some());
        if is_taken || kept.iter().any(|known| known.attnum == *attnum) {
            continue;
        }
        match table.add(name, wanted, types.sql(index, &wanted.column)).await? {
            Ok(()) => kept.push(RecordGenerated::of(wanted)),
            Err(reason) => refused.push(Refusal { attnum: *attnum, reason }),
        }
    }
    let there = table.expressions().await?;
    for known in &mut kept {
        known.made = there.get(&known.name).cloned().unwrap_or_default();
    }
    if record.generated != kept {
        record.generated = kept;
        record.save(client, &resolver.key, oid).await?;
    }
    Ok(Some(refused))
}

impl RecordGenerated {
    /// Whether it is what is wanted, under whatever name. `there`: what it computes now; columns that were renamed have
    /// other names in it than when it was made.
    fn is(&self, wanted: &GeneratedColumn, there: &str) -> bool {
        self.type_sql == wanted.column.type_sql
            && (there == wanted.expression || self.expression == wanted.expression && self.made == there)
    }
}

/// A table of the target whose generated columns are changed.
struct Table<'a> {
    statements: Statements<'a>,
    quoted: String,
    is_virtual_known: bool,
    /// A column that has the source's values as texts: expressions may mean something else by it.
    text: Option<&'a RecordColumn>,
}

/// What was done, or why it could not be.
type Attempt = Result<(), String>;

impl Table<'_> {
    /// What generated columns compute, by name, as the source writes expressions down.
    async fn expressions(&self) -> Result<HashMap<String, String>, SinkError> {
        let sql = "SELECT a.attname::text, pg_get_expr(d.adbin, d.adrelid) FROM pg_attribute a \
                   JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum \
                   WHERE a.attrelid = to_regclass($1) AND a.attgenerated <> '' AND NOT a.attisdropped";
        let rows = self.statements.client.query_typed(sql, &[(&self.quoted, Type::TEXT)]).await;
        let rows = rows.map_err(|error| error::of_server(&error, self.statements.doing))?;
        Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
    }

    async fn alter(&self, what: &str) -> Result<Attempt, SinkError> {
        self.statements.attempt(&format!("ALTER TABLE {} {what}", self.quoted)).await
    }

    async fn add(&self, name: &str, wanted: &GeneratedColumn, type_sql: &str) -> Result<Attempt, SinkError> {
        if let Some(other) = self.text {
            return Ok(Err(format!("column {} is text in the target", other.name)));
        }
        let kind = if wanted.is_virtual && self.is_virtual_known { "VIRTUAL" } else { "STORED" };
        let (name, expression) = (ident(name), &wanted.expression);
        self.alter(&format!("ADD COLUMN {name} {type_sql} GENERATED ALWAYS AS ({expression}) {kind}")).await
    }

    async fn drop_column(&self, name: &str) -> Result<Attempt, SinkError> {
        self.alter(&format!("DROP COLUMN {}", ident(name))).await
    }

    async fn rename(&self, from: &str, to: &str) -> Result<Attempt, SinkError> {
        if from == to {
            return Ok(Ok(()));
        }
        self.alter(&format!("RENAME COLUMN {} TO {}", ident(from), ident(to))).await
    }

    /// Another column in the place of one. Where the new one can't be made, the old one stays: mostly the columns that the
    /// expression names get these names a moment later, and the old one computes the same.
    async fn replace(
        &self,
        name: &str,
        wanted: &GeneratedColumn,
        type_sql: &str,
    ) -> Result<Attempt, SinkError> {
        let between = format!("replicator_{}_generating", wanted.column.attnum);
        if let Err(reason) = self.add(&between, wanted, type_sql).await? {
            return Ok(Err(reason));
        }
        let moved = match self.drop_column(name).await? {
            Ok(()) => self.rename(&between, &wanted.column.name).await?,
            Err(reason) => Err(reason),
        };
        if moved.is_err() {
            self.drop_column(&between).await?.map_err(SinkError::halt)?;
        }
        Ok(moved)
    }
}

/// Makes way for a change of the columns that generated ones are computed from: these come again afterwards. One that the
/// source sends from now on keeps what it has, as a plain column.
pub(crate) async fn make_way(
    hand: &Hand<'_>,
    record: &mut Record,
    is_in_the_way: impl FnOnce(&Record) -> bool,
) -> Result<(), SinkError> {
    let target = table(&record.schema, &record.name);
    let statements = hand.statements();
    for sent in hand.relation.columns.iter().filter(|column| column.attnum != 0) {
        if let Some(place) = record.generated.iter().position(|made| made.attnum == sent.attnum) {
            let made = record.generated.remove(place);
            let column = ident(&made.name);
            statements.run(&format!("ALTER TABLE {target} ALTER COLUMN {column} DROP EXPRESSION")).await?;
            record.columns.push(made.as_sent());
        }
    }
    if !record.generated.is_empty() && is_in_the_way(record) {
        for made in std::mem::take(&mut record.generated) {
            statements
                .run(&format!("ALTER TABLE {target} DROP COLUMN IF EXISTS {}", ident(&made.name)))
                .await?;
        }
    }
    Ok(())
}
