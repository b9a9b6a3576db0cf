//! Columns that the source computes and does not send are computed in the target as well.
//!
//! ```text
//!   the source's, by number     record                          target
//!   3 "twice" a * 2  ────────▶  3 "twice" a * 2  ─ the same ─▶  nothing to do
//!   3 "double" a * 2 ────────▶  3 "twice" a * 2  ────────────▶  RENAME COLUMN
//!   3 "twice" a + a  ────────▶  3 "twice" a * 2  ────────────▶  DROP COLUMN, ADD COLUMN
//!   4 "sum" a + b    ────────▶  none             ────────────▶  ADD COLUMN … GENERATED ALWAYS AS (…)
//!   none             ────────▶  5 "old" …        ────────────▶  DROP COLUMN
//! ```
//! An expression that the target can't have (a function of the source's own, a column that stands in for another type) is
//! told in the log, and its column left out. So are all of a table that refuses a row while they are there ([`give_way`]).
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
use crate::record::{Record, RecordGenerated};
use crate::resolve::Resolver;
use crate::sql::{ident, table};
use crate::statements::Statements;
use crate::types::{TEXT, Types};
use replicator_sink::SinkError;
use replicator_types::{Column, GeneratedColumn, Lsn, Relation, ReplicaIdentity};
use slog::warn;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio_postgres::Client;
use tokio_postgres::types::Type;

/// From this version on a server computes columns when they are read.
const VIRTUAL_SINCE: i32 = 180_000;

/// An attempt of that length has written a good deal of a table before it was refused.
const COSTLY_MIN: Duration = Duration::from_secs(2);

/// What was done for each table, so that being told again costs nothing.
#[derive(Debug, Default)]
pub(crate) struct Followed {
    done: Mutex<Option<HashMap<u32, Done>>>,
    /// Columns of tables that are not there yet: they are made with them, where the source has them.
    awaited: Mutex<HashMap<u32, Vec<GeneratedColumn>>>,
}

#[derive(Clone, Debug, Default)]
struct Done {
    /// [`Resolver::generation`] at that time.
    generation: u64,
    /// What the source had; nothing when it is only known that an earlier run has made some.
    columns: Option<Vec<GeneratedColumn>>,
    refused: Vec<Refusal>,
    /// See [`give_way`]: nothing is tried again before the source's columns are others. So it is with what took long to be
    /// refused.
    gave_way: bool,
}

/// A column that the target can't have, and why.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Refusal {
    attnum: i16,
    reason: String,
}

impl Followed {
    fn with<T>(&self, work: impl FnOnce(&mut Option<HashMap<u32, Done>>) -> T) -> T {
        work(&mut self.done.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What a table is to be made with, which was told of before it is there.
    pub(crate) fn take_awaited(&self, oid: u32) -> Vec<GeneratedColumn> {
        self.awaited.lock().unwrap_or_else(PoisonError::into_inner).remove(&oid).unwrap_or_default()
    }

    fn await_table(&self, oid: u32, columns: &[GeneratedColumn]) {
        self.awaited.lock().unwrap_or_else(PoisonError::into_inner).insert(oid, columns.to_vec());
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
            done.columns.is_some_and(|known| known == columns)
                && (done.gave_way || done.generation == resolver.generation())
        }
    }
}

/// See the module. A table that is not there yet is told of again.
pub(crate) async fn follow(
    client: &Client,
    resolver: &Resolver,
    oid: u32,
    columns: &[GeneratedColumn],
    dropped: &[i16],
) -> Result<(), SinkError> {
    if resolver.generated.of(oid).is_none() {
        load(client, resolver).await?;
        if is_followed(resolver, oid, columns) {
            return Ok(());
        }
    }
    let before = resolver.generated.of(oid).flatten().unwrap_or_default();
    if before.gave_way && before.columns.is_none() {
        // It has given way before it was told of in this run.
        resolver.generated.set(oid, Done { columns: Some(columns.to_vec()), ..before });
        return Ok(());
    }
    let Some(record) = Record::load(client, &resolver.key, oid).await? else {
        resolver.generated.await_table(oid, columns);
        return Ok(());
    };
    let name = format!("{}.{}", record.schema, record.name);
    let types = Types::look_up(client, &alone(oid, columns)).await?;
    let doing = format!("bring generated columns of table {name} to the source's");
    let wanted = Wanted { columns, dropped, types: &types };
    let generation = resolver.generation();
    let changed = under_lock(client, &doing, async || change(client, resolver, oid, &wanted, &doing).await);
    let Some(Changed { refused, has_changed, is_costly }) = changed.await? else { return Ok(()) };
    // What another changed meanwhile is looked at the next time.
    let generation =
        if has_changed && resolver.has_changed() == generation { generation + 1 } else { generation };
    let since = resolver.generated.of(oid).flatten().unwrap_or_default();
    for refusal in refused.iter().filter(|refusal| !since.refused.contains(refusal)) {
        let of = columns.iter().find(|generated| generated.column.attnum == refusal.attnum);
        warn!(resolver.logger, "a generated column is left out in the target, or stays as it is";
            "table" => &name, "column" => of.map(|of| of.column.name.as_str()),
            "expression" => of.map(|of| of.expression.as_str()), "reason" => &refusal.reason);
    }
    let gave_way = is_costly || since.gave_way && !before.gave_way;
    resolver.generated.set(oid, Done { generation, columns: Some(columns.to_vec()), refused, gave_way });
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

/// What the source has.
struct Wanted<'a> {
    columns: &'a [GeneratedColumn],
    /// Attribute numbers of columns that are gone. A column that is in neither is sent by now, and waits for its change.
    dropped: &'a [i16],
    types: &'a Types,
}

impl Wanted<'_> {
    /// The columns that the target can have, and their types there.
    fn all(&self) -> impl Iterator<Item = (&GeneratedColumn, &str)> {
        let columns = self.columns.iter().enumerate().filter(|(index, _)| !self.becomes_text(*index));
        columns.map(|(index, wanted)| (wanted, self.types.sql(index, &wanted.column)))
    }

    /// Columns whose expression would be computed as a text, which may be another value than the text of what it is.
    fn as_texts(&self) -> impl Iterator<Item = &GeneratedColumn> {
        let columns = self.columns.iter().enumerate().filter(|(index, _)| self.becomes_text(*index));
        columns.map(|(_, wanted)| wanted)
    }

    fn becomes_text(&self, index: usize) -> bool {
        self.types.stand_in(index).is_some_and(|stand_in| stand_in.starts_with(TEXT))
    }

    fn column(&self, attnum: i16) -> Option<&GeneratedColumn> {
        self.columns.iter().find(|generated| generated.column.attnum == attnum)
    }
}

/// What has become of a table.
struct Changed {
    refused: Vec<Refusal>,
    has_changed: bool,
    /// Finding out what is refused took its time, under a lock.
    is_costly: bool,
}

/// Makes, renames and drops, in the open transaction. Nothing comes back if there is no table.
async fn change(
    client: &Client,
    resolver: &Resolver,
    oid: u32,
    wanted: &Wanted<'_>,
    doing: &str,
) -> Result<Option<Changed>, SinkError> {
    let Some(mut record) = Record::load(client, &resolver.key, oid).await? else { return Ok(None) };
    let Some(existing) = Existing::look_up(client, &record.schema, &record.name).await? else {
        return Ok(None);
    };
    let failed = |error| error::of_server(&error, doing);
    let other = record.columns.iter().find_map(|made| {
        let there = &existing.column(&made.name)?.type_sql;
        let stand_in = made.stand_in.as_deref().filter(|stand_in| !stand_in.starts_with(TEXT));
        let is_it = *there == made.type_sql || stand_in.is_some_and(|stand_in| there == stand_in);
        (!is_it).then(|| {
            format!("column {} is {there} in the target, and {} at the source", made.name, made.type_sql)
        })
    });
    // As the source's expressions were written down.
    client.batch_execute("SET LOCAL search_path = pg_catalog").await.map_err(failed)?;
    let table = Table {
        statements: Statements { client, logger: &resolver.logger, doing },
        quoted: table(&record.schema, &record.name),
        is_virtual_known: check::server_version(client).await.map_err(failed)? >= VIRTUAL_SINCE,
        other,
    };
    let there = table.expressions().await?;
    let (mut kept, mut refused, mut aside) = (Vec::new(), Vec::new(), Vec::new());
    for known in record.generated.iter().filter(|made| there.contains_key(&made.name)) {
        let attnum = known.attnum;
        let changed = match wanted.column(attnum) {
            None if !wanted.dropped.contains(&attnum) => Ok(known.clone()),
            Some(column) if there.get(&known.name).is_some_and(|text| known.is(column, text)) => {
                if known.name != column.column.name {
                    aside.push((kept.len(), known.name.clone(), column));
                }
                Ok(known.clone())
            }
            // It is gone, or what it computes is another thing by now: rather nothing than that, until the new one is there.
            _ => match table.drop_column(&known.name).await? {
                Ok(()) => continue,
                Err(reason) => Err(reason),
            },
        };
        kept.push(changed.unwrap_or_else(|reason| {
            refused.push(Refusal { attnum, reason });
            known.clone()
        }));
    }
    // Names may be exchanged: all go out of the way first.
    for (_, name, column) in &aside {
        table.rename(name, &between(column)).await?.map_err(SinkError::halt)?;
    }
    for (place, name, column) in aside {
        let renamed = table.rename(&between(column), &column.column.name).await?;
        if let Err(reason) = renamed {
            table.rename(&between(column), &name).await?.map_err(SinkError::halt)?;
            refused.push(Refusal { attnum: column.column.attnum, reason });
        } else if let Some(known) = kept.get_mut(place) {
            *known = RecordGenerated::of(column);
        }
    }
    let existing = Existing::look_up(client, &record.schema, &record.name).await?;
    let is_taken = |name: &str| existing.as_ref().is_some_and(|existing| existing.column(name).is_some());
    let is_missing = |(generated, _): &(&GeneratedColumn, &str)| {
        let Column { attnum, name, .. } = &generated.column;
        !is_taken(name) && kept.iter().all(|known| known.attnum != *attnum)
    };
    let missing: Vec<_> = wanted.all().filter(is_missing).collect();
    for generated in wanted.as_texts() {
        let reason = format!("the target has nothing of type {} but its text", generated.column.type_sql);
        refused.push(Refusal { attnum: generated.column.attnum, reason });
    }
    let begun = Instant::now();
    // Together they write the table anew once.
    let are_added = missing.len() > 1 && table.add(&missing).await?.is_ok();
    for one in missing {
        let added = if are_added { Ok(()) } else { table.add(&[one]).await? };
        match added {
            Ok(()) => kept.push(RecordGenerated::of(one.0)),
            Err(reason) => refused.push(Refusal { attnum: one.0.column.attnum, reason }),
        }
    }
    let is_costly = !refused.is_empty() && begun.elapsed() > COSTLY_MIN;
    let there = table.expressions().await?;
    for known in &mut kept {
        known.made = there.get(&known.name).cloned().unwrap_or_default();
    }
    let has_changed = record.generated != kept;
    if has_changed {
        record.generated = kept;
        record.save(client, &resolver.key, oid).await?;
    }
    Ok(Some(Changed { refused, has_changed, is_costly }))
}

/// A name on the way to another.
fn between(generated: &GeneratedColumn) -> String {
    format!("replicator_{}_generating", generated.column.attnum)
}

impl RecordGenerated {
    /// Whether it is what is wanted, under whatever name. `there`: what it computes now; columns that were renamed have
    /// other names in it than when it was made.
    fn is(&self, wanted: &GeneratedColumn, there: &str) -> bool {
        self.type_sql == wanted.column.type_sql
            && (there == wanted.expression || self.expression == wanted.expression && self.made == there)
    }
}

/// As in `CREATE TABLE`.
fn definition(wanted: &GeneratedColumn, type_sql: &str, is_virtual_known: bool) -> String {
    let kind = if wanted.is_virtual && is_virtual_known { "VIRTUAL" } else { "STORED" };
    let (name, expression) = (ident(&wanted.column.name), &wanted.expression);
    format!("{name} {type_sql} GENERATED ALWAYS AS ({expression}) {kind}")
}

/// Makes the table with what the source computes in it, each column in its place: `sent` are the definitions of those
/// that are sent, by number, `rest` what follows them. None where the target refuses that.
pub(crate) async fn create(
    hand: &Hand<'_>,
    columns: &[GeneratedColumn],
    sent: &[(i16, String)],
    rest: &[String],
) -> Result<Option<Vec<RecordGenerated>>, SinkError> {
    let failed = |error| error::of_server(&error, hand.doing);
    let types = Types::look_up(hand.client, &alone(hand.relation.oid, columns)).await?;
    let is_virtual_known = check::server_version(hand.client).await.map_err(failed)? >= VIRTUAL_SINCE;
    let wanted = Wanted { columns, dropped: &[], types: &types };
    if wanted.as_texts().next().is_some() {
        return Ok(None);
    }
    let computed = wanted
        .all()
        .map(|(wanted, type_sql)| (wanted.column.attnum, definition(wanted, type_sql, is_virtual_known)));
    let mut all: Vec<(i16, String)> = sent.iter().cloned().chain(computed).collect();
    all.sort_by_key(|(attnum, _)| *attnum);
    let parts: Vec<&str> = all.iter().map(|(_, part)| part).chain(rest).map(String::as_str).collect();
    let name = table(&hand.relation.schema, &hand.relation.name);
    let sql = format!("CREATE TABLE {name} ({})", parts.join(", "));
    // As the source's expressions were written down.
    hand.client.batch_execute("SET LOCAL search_path = pg_catalog").await.map_err(failed)?;
    let made = hand.statements().attempt(&sql).await?;
    let there = match made {
        Ok(()) => Some(expressions(&hand.statements(), &name).await?),
        Err(_) => None,
    };
    hand.client.batch_execute("SET LOCAL search_path = ''").await.map_err(failed)?;
    let Some(there) = there else { return Ok(None) };
    let record = |wanted: &GeneratedColumn| {
        let made = there.get(&wanted.column.name).cloned().unwrap_or_default();
        RecordGenerated { made, ..RecordGenerated::of(wanted) }
    };
    Ok(Some(columns.iter().map(record).collect()))
}

/// What generated columns of a table compute, by name, as the source writes expressions down.
async fn expressions(
    statements: &Statements<'_>,
    quoted: &str,
) -> Result<HashMap<String, String>, SinkError> {
    let sql = "SELECT a.attname::text, pg_get_expr(d.adbin, d.adrelid) FROM pg_attribute a \
               JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum \
               WHERE a.attrelid = to_regclass($1) AND a.attgenerated <> '' AND NOT a.attisdropped";
    let rows = statements.client.query_typed(sql, &[(&quoted, Type::TEXT)]).await;
    let rows = rows.map_err(|error| error::of_server(&error, statements.doing))?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}

/// A table of the target whose generated columns are changed.
struct Table<'a> {
    statements: Statements<'a>,
    quoted: String,
    is_virtual_known: bool,
    /// Of a column that is not of the source's type, so that expressions may mean something else by it.
    other: Option<String>,
}

/// What was done, or why it could not be.
type Attempt = Result<(), String>;

impl Table<'_> {
    async fn expressions(&self) -> Result<HashMap<String, String>, SinkError> {
        expressions(&self.statements, &self.quoted).await
    }

    async fn alter(&self, what: &str) -> Result<Attempt, SinkError> {
        self.statements.attempt(&format!("ALTER TABLE {} {what}", self.quoted)).await
    }

    async fn add(&self, columns: &[(&GeneratedColumn, &str)]) -> Result<Attempt, SinkError> {
        if let Some(other) = &self.other {
            return Ok(Err(other.clone()));
        }
        let additions = columns.iter().map(|(wanted, type_sql)| {
            format!("ADD COLUMN {}", definition(wanted, type_sql, self.is_virtual_known))
        });
        self.alter(&additions.collect::<Vec<_>>().join(", ")).await
    }

    async fn drop_column(&self, name: &str) -> Result<Attempt, SinkError> {
        self.alter(&format!("DROP COLUMN {}", ident(name))).await
    }

    async fn rename(&self, from: &str, to: &str) -> Result<Attempt, SinkError> {
        self.alter(&format!("RENAME COLUMN {} TO {}", ident(from), ident(to))).await
    }
}

/// Makes way for a change of columns: what is computed from ones that go or get another type comes again afterwards, as
/// does what has the name of one that is sent. One that is itself sent from now on keeps what it has, as a plain column.
/// `touched`: names of those that go, or get another type. Returns whether the table may be another one now.
pub(crate) async fn make_way(
    hand: &Hand<'_>,
    record: &mut Record,
    existing: &Existing,
    touched: &[String],
) -> Result<bool, SinkError> {
    if record.generated.is_empty() {
        return Ok(false);
    }
    let target = table(&record.schema, &record.name);
    let statements = hand.statements();
    let sent = &hand.relation.columns;
    let in_the_way = dependents(&statements, &target, touched).await?;
    for made in std::mem::take(&mut record.generated) {
        let name = ident(&made.name);
        let is_there = existing.column(&made.name).is_some_and(|there| there.is_generated);
        if sent.iter().any(|column| column.attnum == made.attnum) {
            if is_there {
                statements.run(&format!("ALTER TABLE {target} ALTER COLUMN {name} DROP EXPRESSION")).await?;
            }
            record.columns.push(made.into_sent());
        } else if in_the_way.contains(&made.name) || sent.iter().any(|column| column.name == made.name) {
            if is_there {
                statements.run(&format!("ALTER TABLE {target} DROP COLUMN {name}")).await?;
            }
        } else {
            record.generated.push(made);
        }
    }
    Ok(true)
}

/// Which generated columns are computed from any of these. Up to Postgres 14 it is the column that depends on them, since
/// then its expression.
async fn dependents(
    statements: &Statements<'_>,
    target: &str,
    names: &[String],
) -> Result<Vec<String>, SinkError> {
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let sql = "SELECT DISTINCT g.attname::text FROM pg_catalog.pg_depend d \
               LEFT JOIN pg_catalog.pg_attrdef e \
                      ON d.classid = 'pg_catalog.pg_attrdef'::pg_catalog.regclass AND e.oid = d.objid \
               JOIN pg_catalog.pg_attribute b ON b.attrelid = d.refobjid AND b.attnum = d.refobjsubid \
               JOIN pg_catalog.pg_attribute g ON g.attrelid = d.refobjid AND g.attgenerated <> '' \
                      AND g.attnum = CASE WHEN e.adrelid = d.refobjid THEN e.adnum \
                                          WHEN d.classid = d.refclassid AND d.objid = d.refobjid THEN d.objsubid END \
               WHERE d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass \
                 AND d.refobjid = pg_catalog.to_regclass($1) AND b.attname = ANY ($2::text[]) AND b.attnum <> g.attnum";
    let rows = statements.client.query_typed(sql, &[(&target, Type::TEXT), (&names, Type::TEXT_ARRAY)]).await;
    let rows = rows.map_err(|error| error::of_server(&error, statements.doing))?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// Takes away what was made here of a table that has just refused a row: an expression may fail for one that the source
/// has, when it is computed there only if it is read, or was another one by then. Returns whether the row has another
/// chance: these columns are gone, by this lane or by another one. They come again when the source's are others, or with the
/// next start.
pub(crate) async fn give_way(
    client: &Client,
    resolver: &Resolver,
    oid: u32,
    reason: &str,
) -> Result<bool, SinkError> {
    if resolver.generated.of(oid).is_none() {
        load(client, resolver).await?;
    }
    let known = resolver.generated.of(oid).flatten().unwrap_or_default();
    match Record::load(client, &resolver.key, oid).await? {
        Some(record) if !record.generated.is_empty() => {}
        _ => return Ok(known.gave_way),
    }
    // Before they are gone: a lane that finds them gone has to know why.
    resolver.generated.set(oid, Done { gave_way: true, ..known });
    let doing = "take away generated columns of a table that refuses a row";
    let gone = under_lock(client, doing, async || {
        let Some(mut record) = Record::load(client, &resolver.key, oid).await? else { return Ok(Vec::new()) };
        let statements = Statements { client, logger: &resolver.logger, doing };
        let target = table(&record.schema, &record.name);
        let (mut gone, mut kept) = (Vec::new(), Vec::new());
        for made in std::mem::take(&mut record.generated) {
            let drop = format!("ALTER TABLE {target} DROP COLUMN IF EXISTS {}", ident(&made.name));
            match statements.attempt(&drop).await? {
                Ok(()) => gone.push(made.name),
                Err(_) => kept.push(made),
            }
        }
        record.generated = kept;
        record.save(client, &resolver.key, oid).await?;
        Ok(gone)
    })
    .await?;
    if !gone.is_empty() {
        resolver.has_changed();
        warn!(resolver.logger, "generated columns are left out in the target: a row was refused while they were there";
            "table_oid" => oid, "columns" => gone.join(", "), "reason" => reason);
    }
    Ok(true)
}
