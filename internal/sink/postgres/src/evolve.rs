//! A table of the target follows its table at the source to a newer version.
//!
//! ```text
//!   record ─┬─ generated columns in the way ▶ DROP COLUMN; they come again, see `generated`
//!           ├─ columns gone at the source ─▶ DROP COLUMN
//!           ├─ other names ────────────────▶ RENAME COLUMN (by way of temporary names where they are exchanged)
//!           ├─ another key ────────────────▶ DROP the index that was made here
//!           ├─ other types ────────────────▶ ALTER TYPE, through text if need be; else by `type_changes`
//!           ├─ new columns ────────────────▶ ADD COLUMN with the value that older rows have at the source
//!           ├─ DROP NOT NULL, another key ─▶ PRIMARY KEY or a unique index over it, SET NOT NULL
//!           └─ literal defaults ───────────▶ SET or DROP DEFAULT
//! ```
//!
//! # Invariants
//! - All of it and the record are one transaction: a crash leaves both as they were, and a second call finds the
//!   work done.
//! - Only recorded columns and the index made here are dropped, never with CASCADE: what depends on them in the target
//!   is somebody else's, and stops the sink with a text that says so.
//! - A column whose type in the target is not the one recorded was given it by hand, or kept by policy; it is let be.
//!
//! Source: <https://www.postgresql.org/docs/current/sql-altertable.html>.

use crate::create;
use crate::existing::Existing;
use crate::generated;
use crate::record::{Record, RecordColumn};
use crate::sql::{ident, literal, table};
use crate::statements::Statements;
use crate::types::{TEXT, Types};
use replicator_config::TypeChanges;
use replicator_sink::SinkError;
use replicator_types::{Column, Relation, ReplicaIdentity};
use slog::{Logger, warn};
use std::sync::Arc;
use tokio_postgres::Client;

/// What changes tables: statements in the open transaction, each of them logged.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hand<'a> {
    pub(crate) client: &'a Client,
    /// The version that the table is brought to.
    pub(crate) relation: &'a Arc<Relation>,
    /// What its columns are of in the target.
    pub(crate) types: &'a Types,
    pub(crate) logger: &'a Logger,
    pub(crate) doing: &'a str,
}

impl Hand<'_> {
    pub(crate) fn statements(&self) -> Statements<'_> {
        Statements { client: self.client, logger: self.logger, doing: self.doing }
    }

    /// Runs a statement that has to succeed.
    pub(crate) async fn run(&self, sql: &str) -> Result<(), SinkError> {
        self.statements().run(sql).await
    }

    /// Runs a statement that may be refused; see [`Statements::attempt`].
    async fn attempt(&self, sql: &str) -> Result<Result<(), String>, SinkError> {
        self.statements().attempt(sql).await
    }
}

/// How far a change of schema is followed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Aims {
    pub(crate) create_schemas: bool,
    pub(crate) type_changes: TypeChanges,
    pub(crate) sets_not_null: bool,
}

/// RENAME TABLE and SET SCHEMA. Nothing is at the new place.
pub(crate) async fn place_table(
    hand: &Hand<'_>,
    record: &mut Record,
    create_schemas: bool,
) -> Result<(), SinkError> {
    let relation = hand.relation;
    if record.schema != relation.schema {
        if create_schemas {
            create::schema(hand, &relation.schema).await?;
        }
        // Under the old name there may be another table in the new schema, and under the new one in the old.
        let between = format!("replicator_{}_moving", relation.oid);
        let (from, moving) = (table(&record.schema, &record.name), ident(&between));
        hand.run(&format!("ALTER TABLE {from} RENAME TO {moving}")).await?;
        let moving = table(&record.schema, &between);
        hand.run(&format!("ALTER TABLE {moving} SET SCHEMA {}", ident(&relation.schema))).await?;
        record.schema.clone_from(&relation.schema);
        record.name = between;
    }
    let from = table(&record.schema, &record.name);
    hand.run(&format!("ALTER TABLE {from} RENAME TO {}", ident(&relation.name))).await?;
    record.name.clone_from(&relation.name);
    Ok(())
}

/// Everything but the table's own name.
pub(crate) async fn columns(hand: &Hand<'_>, record: &mut Record, aims: &Aims) -> Result<(), SinkError> {
    let relation = hand.relation;
    let mut before = look_up(hand).await?;
    let touched = touched(relation, record);
    if generated::make_way(hand, record, &before, &touched).await? {
        before = look_up(hand).await?;
    }
    let known: Vec<Option<RecordColumn>> =
        relation.columns.iter().map(|column| record.column(column).cloned()).collect();
    drop_columns(hand, record, &known, &before).await?;
    rename_columns(hand, &known, &before).await?;
    let existing = look_up(hand).await?;
    drop_key(hand, record, &existing).await?;
    let mut columns = Vec::with_capacity(relation.columns.len());
    for (index, (column, known)) in relation.columns.iter().zip(known).enumerate() {
        let there = existing.column(&column.name);
        let mut made = match (known, there.is_some()) {
            (Some(known), true) => {
                let attnum = if column.attnum == 0 { known.attnum } else { column.attnum };
                RecordColumn { attnum, name: column.name.clone(), ..known }
            }
            // It was in the target before it was at the source.
            (None, true) => recorded(column, None),
            (_, false) => add_column(hand, index, column).await?,
        };
        if let Some(there) = there
            && !there.is_generated
            && made.type_sql != column.type_sql
        {
            if there.type_sql == made.made_type() {
                change_type(hand, index, column, &mut made, aims.type_changes).await?;
            }
            made.type_sql.clone_from(&column.type_sql);
        }
        if made.not_null && !column.not_null && !column.is_key {
            hand.run(&alter_column(hand, column, "DROP NOT NULL")).await?;
            made.not_null = false;
        }
        change_default(hand, column, &mut made).await?;
        columns.push(made);
    }
    record.columns = columns;
    add_key(hand, record).await?;
    if aims.sets_not_null {
        set_not_null(hand, record).await?;
    }
    record.since = relation.since.0;
    Ok(())
}

/// Columns of the target that go or get another type: the server does neither where generated columns are made from them.
fn touched(relation: &Relation, record: &Record) -> Vec<String> {
    let is_as_it_was = |made: &RecordColumn| {
        let is_it = |column: &&Column| record.column(column).is_some_and(|known| known.name == made.name);
        relation.columns.iter().find(is_it).is_some_and(|column| column.type_sql == made.type_sql)
    };
    record.columns.iter().filter(|made| !is_as_it_was(made)).map(|made| made.name.clone()).collect()
}

async fn look_up(hand: &Hand<'_>) -> Result<Existing, SinkError> {
    let relation = hand.relation;
    let existing = Existing::look_up(hand.client, &relation.schema, &relation.name).await?;
    existing.ok_or_else(|| SinkError::retry(format!("table {relation} of the target has just gone")))
}

fn recorded(column: &Column, stand_in: Option<&str>) -> RecordColumn {
    RecordColumn {
        attnum: column.attnum,
        name: column.name.clone(),
        type_sql: column.type_sql.clone(),
        stand_in: stand_in.map(str::to_owned),
        not_null: false,
        default_sql: None,
    }
}

fn alter_table(hand: &Hand<'_>, what: &str) -> String {
    format!("ALTER TABLE {} {what}", table(&hand.relation.schema, &hand.relation.name))
}

fn alter_column(hand: &Hand<'_>, column: &Column, what: &str) -> String {
    alter_table(hand, &format!("ALTER COLUMN {} {what}", ident(&column.name)))
}

/// Columns that are recorded and are not the source's any more.
async fn drop_columns(
    hand: &Hand<'_>,
    record: &Record,
    known: &[Option<RecordColumn>],
    before: &Existing,
) -> Result<(), SinkError> {
    for gone in &record.columns {
        let stays = known.iter().flatten().any(|known| known.name == gone.name);
        if !stays && before.column(&gone.name).is_some() {
            hand.run(&alter_table(hand, &format!("DROP COLUMN {}", ident(&gone.name)))).await?;
        }
    }
    Ok(())
}

async fn rename_columns(
    hand: &Hand<'_>,
    known: &[Option<RecordColumn>],
    before: &Existing,
) -> Result<(), SinkError> {
    let both = hand.relation.columns.iter().zip(known);
    let renames: Vec<(String, &str)> = both
        .filter_map(|(column, known)| Some((known.as_ref()?.name.clone(), column.name.as_str())))
        .filter(|(from, to)| from != to && before.column(from).is_some())
        .collect();
    let stays = |name: &str| known.iter().flatten().any(|known| known.name == name);
    // Those whose new name another has still go out of the way first; then all new names are free.
    let mut aside = Vec::new();
    for (number, (from, to)) in renames.iter().enumerate() {
        if before.column(to).is_none() || !stays(to) {
            rename_column(hand, from, to).await?;
            continue;
        }
        if !renames.iter().any(|(source, _)| source == to) {
            return Err(SinkError::halt(format!(
                "column {from} of table {} was renamed to {to} at the source, and the target has another column of that \
                 name; rename or drop that one, then start again",
                hand.relation
            )));
        }
        let between = format!("replicator_{number}_renaming");
        rename_column(hand, from, &between).await?;
        aside.push((between, *to));
    }
    for (from, to) in &aside {
        rename_column(hand, from, to).await?;
    }
    Ok(())
}

async fn rename_column(hand: &Hand<'_>, from: &str, to: &str) -> Result<(), SinkError> {
    hand.run(&alter_table(hand, &format!("RENAME COLUMN {} TO {}", ident(from), ident(to)))).await
}

/// A new column, and in it what older rows have at the source.
async fn add_column(hand: &Hand<'_>, index: usize, column: &Column) -> Result<RecordColumn, SinkError> {
    let type_sql = hand.types.sql(index, column);
    let missing = column.missing_text.as_ref();
    let default = missing.map(|text| format!(" DEFAULT {}::{type_sql}", literal(text)));
    let definition = format!("{} {type_sql}{}", ident(&column.name), default.unwrap_or_default());
    hand.run(&alter_table(hand, &format!("ADD COLUMN {definition}"))).await?;
    if missing.is_some() {
        hand.run(&alter_column(hand, column, "DROP DEFAULT")).await?;
    } else if column.has_default && column.default_sql.is_none() {
        warn!(hand.logger,
            "a column was added whose default is computed: rows that are there have NULL in it in the target until they \
             change; copy the table again to have the source's values";
            "table" => %hand.relation, "column" => &column.name);
    }
    Ok(recorded(column, hand.types.stand_in(index)))
}

/// ALTER TYPE, or what the policy has instead. The type recorded is the source's either way.
async fn change_type(
    hand: &Hand<'_>,
    index: usize,
    column: &Column,
    made: &mut RecordColumn,
    policy: TypeChanges,
) -> Result<(), SinkError> {
    if made.default_sql.take().is_some() {
        // It is of the old type, and would be in the way; change_default sets the new one.
        hand.run(&alter_column(hand, column, "DROP DEFAULT")).await?;
    }
    let (name, new) = (ident(&column.name), hand.types.sql(index, column));
    let stand_in = hand.types.stand_in(index);
    if new == made.made_type() {
        made.stand_in = stand_in.map(str::to_owned);
        return Ok(());
    }
    // The type's output function, as the source writes the values that come from now on; a cast may differ from it
    // (boolean, character).
    let to_text = alter_column(
        hand,
        column,
        &format!(
            "TYPE text USING CASE WHEN {name} IS NOT DISTINCT FROM NULL THEN NULL \
             ELSE pg_catalog.format('%s', {name}) END"
        ),
    );
    if stand_in == Some(TEXT) {
        made.stand_in = Some(TEXT.to_owned());
        return hand.run(&to_text).await;
    }
    let plain = alter_column(hand, column, &format!("TYPE {new}"));
    if hand.attempt(&plain).await?.is_ok() {
        made.stand_in = stand_in.map(str::to_owned);
        return Ok(());
    }
    let by_text = alter_column(hand, column, &format!("TYPE {new} USING {name}::pg_catalog.text::{new}"));
    let Err(refusal) = hand.attempt(&by_text).await? else {
        made.stand_in = stand_in.map(str::to_owned);
        return Ok(());
    };
    let kept = made.stand_in.take().unwrap_or_else(|| made.type_sql.clone());
    match policy {
        TypeChanges::Error => Err(SinkError::halt(format!(
            "column {} of table {} became {new} at the source, and the target's cannot be changed from {} to that: \
             {refusal}; change it in the target as it was changed at the source (ALTER TABLE … ALTER COLUMN … TYPE … \
             USING …) and start again, or set type_changes = \"keep\" or \"string\"",
            column.name, hand.relation, kept
        ))),
        TypeChanges::Keep => {
            warn!(hand.logger, "a column keeps its type in the target: the source's new one does not fit";
                "table" => %hand.relation, "column" => &column.name, "kept" => &kept, "new" => new,
                "reason" => refusal);
            Ok(())
        }
        TypeChanges::String => {
            warn!(hand.logger, "a column becomes text in the target: the source's new type does not fit";
                "table" => %hand.relation, "column" => &column.name, "new" => new, "reason" => refusal);
            hand.run(&to_text).await
        }
    }
}

/// Literal defaults; others are the source's business, since no change comes without the column's value.
async fn change_default(hand: &Hand<'_>, column: &Column, made: &mut RecordColumn) -> Result<(), SinkError> {
    if made.default_sql == column.default_sql {
        return Ok(());
    }
    let what = match &column.default_sql {
        Some(sql) => format!("SET DEFAULT {sql}"),
        None => "DROP DEFAULT".to_owned(),
    };
    match hand.attempt(&alter_column(hand, column, &what)).await? {
        Ok(()) => made.default_sql.clone_from(&column.default_sql),
        Err(refusal) => warn!(hand.logger, "a column's default is not the source's in the target";
            "table" => %hand.relation, "column" => &column.name, "reason" => refusal),
    }
    Ok(())
}

fn key_names(relation: &Relation) -> Vec<&str> {
    relation.columns.iter().filter(|column| column.is_key).map(|column| column.name.as_str()).collect()
}

/// Drops the index over the key that was made here, where it is over other columns now than the key.
async fn drop_key(hand: &Hand<'_>, record: &mut Record, existing: &Existing) -> Result<(), SinkError> {
    let Some(name) = record.key_index.take() else { return Ok(()) };
    match existing.unique_named(&name) {
        // It went with a column of it.
        None => Ok(()),
        Some(index) if hand.relation.has_key() && index.is_over(&key_names(hand.relation)) => {
            record.key_index = Some(name);
            Ok(())
        }
        Some(_) => {
            hand.run(&alter_table(hand, &format!("DROP CONSTRAINT IF EXISTS {}", ident(&name)))).await?;
            hand.run(&format!("DROP INDEX IF EXISTS {}", table(&hand.relation.schema, &name))).await
        }
    }
}

/// Makes the index over the key, where there is none.
async fn add_key(hand: &Hand<'_>, record: &mut Record) -> Result<(), SinkError> {
    let relation = hand.relation;
    let names = key_names(relation);
    if names.is_empty() || look_up(hand).await?.unique_over(&names).is_some() {
        return Ok(());
    }
    let quoted: Vec<String> = names.iter().map(|name| ident(name)).collect();
    let quoted = quoted.join(", ");
    let is_primary = matches!(relation.replica_identity, ReplicaIdentity::Default | ReplicaIdentity::Full);
    let primary = alter_table(hand, &format!("ADD PRIMARY KEY ({quoted})"));
    // The target may have a primary key of its own.
    let has_primary = is_primary && hand.attempt(&primary).await?.is_ok();
    if has_primary {
        for made in record.columns.iter_mut().filter(|made| names.contains(&made.name.as_str())) {
            made.not_null = true;
        }
    } else {
        let on = table(&relation.schema, &relation.name);
        hand.run(&format!("CREATE UNIQUE INDEX ON {on} ({quoted})")).await?;
    }
    record.key_index = look_up(hand).await?.unique_over(&names).map(|index| index.name.clone());
    Ok(())
}

/// NOT NULL as at the source. Rows from before a column was added may have NULL in it here where the source computed
/// a value; the rule is left out then.
async fn set_not_null(hand: &Hand<'_>, record: &mut Record) -> Result<(), SinkError> {
    for (column, made) in hand.relation.columns.iter().zip(&mut record.columns) {
        if !column.not_null || made.not_null {
            continue;
        }
        match hand.attempt(&alter_column(hand, column, "SET NOT NULL")).await? {
            Ok(()) => made.not_null = true,
            Err(refusal) => warn!(hand.logger, "a column is NOT NULL at the source and not in the target";
                "table" => %hand.relation, "column" => &column.name, "reason" => refusal),
        }
    }
    Ok(())
}
