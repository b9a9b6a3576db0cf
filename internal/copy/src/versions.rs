//! The table versions that sinks were told of, kept in their notes from run to run.
//!
//! ```text
//!   notes of all sinks ─▶ Versions ─▶ pipeline: the newest from before the watermark, and those behind it
//!                            ▲
//!   schema change ─▶ lane ───┤ kept first, in that sink's notes
//!   copy of a table ─────────┘                └─▶ then the sink sees it
//! ```
//!
//! The stream tells a table's columns by name, the catalog has the numbers, but only those of now. A run that begins
//! behind a crash gets messages from before changes of schema that the catalog has already; what they are of is told by
//! the versions that were met the first time.
//!
//! # Invariants
//! - A version is durable in a sink's notes before that sink alters a table for it, or lays a row out by it.
//! - The last [`VERSIONS_MAX`] versions of a table are kept, and the first one: what a run begins with is chosen among them
//!   by the slot's position, which may also go back when the source crashes.
//! - Versions are about the source: what any sink has kept holds for all.

use async_trait::async_trait;
use replicator_sink::{Lane, Sink, SinkError, Write};
use replicator_types::{Batch, Column, ColumnKind, Lsn, Op, Relation, ReplicaIdentity, indexes_of_key};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

/// Notes about a table's versions have this in front of the table's oid.
const KEY_PREFIX: &str = "versions/";

/// More changes of one table than anybody makes while a slot stands still. Beyond it the oldest go, and what comes again
/// of those is laid along what is left.
pub(crate) const VERSIONS_MAX: usize = 64;

/// See the module.
pub struct Versions {
    sinks: Vec<KeptBy>,
    /// By table, in order.
    all: Mutex<BTreeMap<u32, Vec<Arc<Relation>>>>,
}

struct KeptBy {
    sink: Arc<dyn Sink>,
    /// Its notes, as they are. Held while one is written, so that a newer one is not overtaken.
    notes: tokio::sync::Mutex<BTreeMap<u32, String>>,
}

impl Versions {
    /// Reads what the sinks have kept. Nothing of it is let go for being old: a source that crashes may forget how far
    /// the slot was.
    ///
    /// # Errors
    /// A sink that does not answer, or a note that can't be read.
    pub async fn load(sinks: &[Arc<dyn Sink>]) -> Result<Self, SinkError> {
        let mut all: BTreeMap<u32, Vec<Arc<Relation>>> = BTreeMap::new();
        let mut kept_by = Vec::new();
        for sink in sinks {
            let mut own = BTreeMap::new();
            for (key, text) in sink.notes().await? {
                let Some(oid) = key.strip_prefix(KEY_PREFIX).and_then(|oid| oid.parse().ok()) else {
                    continue;
                };
                let note: Note = serde_json::from_str(&text).map_err(|error| {
                    SinkError::halt(format!(
                        "sink {}: its note {key} about the versions of a table can't be read ({error}): was it written by \
                         a later version? Remove the note, and the table is taken to have been as it is now",
                        sink.name()
                    ))
                })?;
                for version in note.versions {
                    add(all.entry(oid).or_default(), Arc::new(version.relation(oid)));
                }
                own.insert(oid, text);
            }
            kept_by.push(KeptBy { sink: Arc::clone(sink), notes: tokio::sync::Mutex::new(own) });
        }
        Ok(Self { sinks: kept_by, all: Mutex::new(all) })
    }

    /// What the pipeline begins with: the kept versions; of tables that have none, what they are now.
    pub fn to_begin_with(&self, tables: &[Arc<Relation>]) -> Vec<Arc<Relation>> {
        let all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        let unknown = tables.iter().filter(|table| !all.contains_key(&table.oid));
        unknown.cloned().chain(all.values().flatten().cloned()).collect()
    }

    /// What a table was at last; none if it is not known.
    pub(crate) fn last(&self, oid: u32) -> Option<Arc<Relation>> {
        let all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        all.get(&oid).and_then(|versions| versions.last().cloned())
    }

    /// Whether any of these sinks kept last a version of the table with another key: what was deleted by that key is not
    /// understood by the new one.
    pub(crate) async fn has_other_key(&self, sinks: &[usize], now: &Relation) -> bool {
        let keys = |relation: &Relation| -> BTreeSet<i16> {
            relation.columns.iter().filter(|column| column.is_key).map(|column| column.attnum).collect()
        };
        let now_keys = keys(now);
        for kept_by in sinks.iter().filter_map(|sink| self.sinks.get(*sink)) {
            let notes = kept_by.notes.lock().await;
            let note = notes.get(&now.oid).and_then(|text| serde_json::from_str::<Note>(text).ok());
            let last = note.and_then(|note| note.versions.into_iter().last());
            if last.is_some_and(|version| keys(&version.relation(now.oid)) != now_keys) {
                return true;
            }
        }
        false
    }

    /// Keeps, in sink number `sink`, what is known of those of `tables` of which it has kept nothing.
    ///
    /// # Errors
    /// The sink.
    pub async fn keep_unknown(&self, sink: usize, tables: &[Arc<Relation>]) -> Result<(), SinkError> {
        let Some(kept_by) = self.sinks.get(sink) else { return Ok(()) };
        let mut notes = kept_by.notes.lock().await;
        let mut news = Vec::new();
        for table in tables.iter().filter(|table| !notes.contains_key(&table.oid)) {
            let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
            let versions = all.entry(table.oid).or_insert_with(|| vec![Arc::clone(table)]);
            news.push((table.oid, text(versions)?));
        }
        let puts: Vec<_> = news.iter().map(|(oid, text)| (key(*oid), text.clone())).collect();
        kept_by.sink.put_notes(&puts).await?;
        notes.extend(news);
        Ok(())
    }

    /// Keeps a version in sink number `sink`. `Ok` means durable.
    ///
    /// # Errors
    /// The sink.
    pub async fn keep(&self, sink: usize, version: &Arc<Relation>) -> Result<(), SinkError> {
        let Some(kept_by) = self.sinks.get(sink) else { return Ok(()) };
        let mut notes = kept_by.notes.lock().await;
        let text = {
            let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
            let versions = all.entry(version.oid).or_default();
            add(versions, Arc::clone(version));
            text(versions)?
        };
        if notes.get(&version.oid) != Some(&text) {
            kept_by.sink.put_note(&key(version.oid), Some(&text)).await?;
            notes.insert(version.oid, text);
        }
        Ok(())
    }

    /// The lane, which keeps every version before sink number `sink` sees it.
    pub fn lane(self: &Arc<Self>, sink: usize, lane: Box<dyn Lane>) -> Box<dyn Lane> {
        Box::new(KeepingLane { versions: Arc::clone(self), sink, lane, met: BTreeSet::new() })
    }
}

struct KeepingLane {
    versions: Arc<Versions>,
    sink: usize,
    lane: Box<dyn Lane>,
    /// Tables of which the sink has kept a version for certain.
    met: BTreeSet<u32>,
}

#[async_trait]
impl Lane for KeepingLane {
    fn in_flight_max(&self) -> usize {
        self.lane.in_flight_max()
    }

    fn needs_drain(&self, batch: &Batch) -> bool {
        self.lane.needs_drain(batch)
    }

    async fn prepare(&mut self, batch: Arc<Batch>) -> Result<Box<dyn Write>, SinkError> {
        // A table that has come up in this run, and was never told of as altered.
        for relation in batch.relations() {
            if relation.oid != 0 && !self.met.contains(&relation.oid) {
                self.versions.keep_unknown(self.sink, std::slice::from_ref(relation)).await?;
                self.met.insert(relation.oid);
            }
        }
        // Such a change is alone in its batch.
        if batch.is_fenced() && batch.changes().any(|change| change.op == Op::Schema) {
            for relation in batch.relations() {
                self.versions.keep(self.sink, relation).await?;
            }
        }
        self.lane.prepare(batch).await
    }
}

/// Adds a version in its place, unless it is there.
fn add(versions: &mut Vec<Arc<Relation>>, version: Arc<Relation>) {
    let numbers = |relation: &Relation| -> Vec<(i16, u32, String)> {
        relation.columns.iter().map(|column| (column.attnum, column.type_oid, column.name.clone())).collect()
    };
    // The catalog may have had more to tell the second time; the first is what rows were laid out by.
    let is_it = |known: &Arc<Relation>| {
        known.since == version.since
            && (&known.schema, &known.name) == (&version.schema, &version.name)
            && known.replica_identity == version.replica_identity
            && known.key == version.key
            && numbers(known) == numbers(&version)
    };
    // Told again at an older one's place, where nothing has changed since.
    let is_told = |known: &Arc<Relation>| {
        known.since < version.since && known.is_guess == version.is_guess && known.is_same_shape(&version)
    };
    let before = versions.partition_point(|known| known.since <= version.since);
    if versions.iter().any(is_it) || before.checked_sub(1).is_some_and(|last| is_told(&versions[last])) {
        return;
    }
    versions.insert(before, version);
    if versions.len() > VERSIONS_MAX {
        // The first is what a run would begin with.
        versions.remove(1);
    }
}

pub(crate) fn key(oid: u32) -> String {
    format!("{KEY_PREFIX}{oid}")
}

/// Whether the note of that key has versions of a table.
pub(crate) fn is_of_table(key: &str) -> bool {
    key.starts_with(KEY_PREFIX)
}

fn text(versions: &[Arc<Relation>]) -> Result<String, SinkError> {
    let note = Note {
        table: versions.last().map_or_else(String::new, |last| last.qualified_name()),
        versions: versions.iter().map(|version| VersionNote::of(version)).collect(),
    };
    serde_json::to_string(&note).map_err(|error| SinkError::halt(format!("a note can't be written: {error}")))
}

#[derive(Debug, Serialize, Deserialize)]
struct Note {
    /// `schema.name`, for people.
    table: String,
    versions: Vec<VersionNote>,
}

/// A [`Relation`]. What most columns have in common is left out.
#[derive(Debug, Serialize, Deserialize)]
struct VersionNote {
    #[serde(with = "crate::ledger::lsn_text")]
    since: Lsn,
    schema: String,
    name: String,
    /// As `pg_class.relreplident` has it.
    identity: char,
    key_text_is_identity: bool,
    #[serde(default, skip_serializing_if = "is_false")]
    is_guess: bool,
    columns: Vec<ColumnNote>,
}

#[derive(Debug, Serialize, Deserialize)]
struct ColumnNote {
    #[serde(rename = "n")]
    name: String,
    #[serde(rename = "a")]
    attnum: i16,
    #[serde(rename = "t")]
    type_oid: u32,
    #[serde(rename = "sql")]
    type_sql: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    base_type_oid: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    modifier: Option<i32>,
    #[serde(default, skip_serializing_if = "KindNote::is_scalar")]
    kind: KindNote,
    #[serde(default, skip_serializing_if = "is_false")]
    not_null: bool,
    #[serde(default, skip_serializing_if = "is_false")]
    is_key: bool,
    #[serde(default, skip_serializing_if = "is_false")]
    has_default: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    default_sql: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    missing_text: Option<String>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum KindNote {
    #[default]
    Scalar,
    Enum,
    Array {
        element_oid: u32,
        element_modifier: i32,
        element_is_enum: bool,
    },
    Other,
}

impl KindNote {
    fn is_scalar(&self) -> bool {
        matches!(self, Self::Scalar)
    }
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it")]
fn is_false(value: &bool) -> bool {
    !value
}

impl VersionNote {
    fn of(relation: &Relation) -> Self {
        Self {
            since: relation.since,
            schema: relation.schema.clone(),
            name: relation.name.clone(),
            identity: match relation.replica_identity {
                ReplicaIdentity::Default => 'd',
                ReplicaIdentity::Nothing => 'n',
                ReplicaIdentity::Full => 'f',
                ReplicaIdentity::Index => 'i',
            },
            key_text_is_identity: relation.key_text_is_identity,
            is_guess: relation.is_guess,
            columns: relation.columns.iter().map(ColumnNote::of).collect(),
        }
    }

    fn relation(self, oid: u32) -> Relation {
        let columns: Vec<Column> = self.columns.into_iter().map(ColumnNote::column).collect();
        Relation {
            oid,
            version: 0,
            since: self.since,
            schema: self.schema,
            name: self.name,
            replica_identity: match self.identity {
                'n' => ReplicaIdentity::Nothing,
                'f' => ReplicaIdentity::Full,
                'i' => ReplicaIdentity::Index,
                _ => ReplicaIdentity::Default,
            },
            key: indexes_of_key(&columns),
            columns,
            key_text_is_identity: self.key_text_is_identity,
            is_guess: self.is_guess,
        }
    }
}

impl ColumnNote {
    fn of(column: &Column) -> Self {
        Self {
            name: column.name.clone(),
            attnum: column.attnum,
            type_oid: column.type_oid,
            type_sql: column.type_sql.clone(),
            base_type_oid: Some(column.base_type_oid).filter(|base| *base != column.type_oid),
            modifier: Some(column.type_modifier).filter(|modifier| *modifier != -1),
            kind: match column.kind {
                ColumnKind::Scalar => KindNote::Scalar,
                ColumnKind::Enum => KindNote::Enum,
                ColumnKind::Array { element_oid, element_modifier, element_is_enum } => {
                    KindNote::Array { element_oid, element_modifier, element_is_enum }
                }
                ColumnKind::Other => KindNote::Other,
            },
            not_null: column.not_null,
            is_key: column.is_key,
            has_default: column.has_default,
            default_sql: column.default_sql.clone(),
            missing_text: column.missing_text.clone(),
        }
    }

    fn column(self) -> Column {
        Column {
            name: self.name,
            attnum: self.attnum,
            type_oid: self.type_oid,
            base_type_oid: self.base_type_oid.unwrap_or(self.type_oid),
            type_modifier: self.modifier.unwrap_or(-1),
            kind: match self.kind {
                KindNote::Scalar => ColumnKind::Scalar,
                KindNote::Enum => ColumnKind::Enum,
                KindNote::Array { element_oid, element_modifier, element_is_enum } => {
                    ColumnKind::Array { element_oid, element_modifier, element_is_enum }
                }
                KindNote::Other => ColumnKind::Other,
            },
            type_sql: self.type_sql,
            not_null: self.not_null,
            is_key: self.is_key,
            has_default: self.has_default,
            default_sql: self.default_sql,
            missing_text: self.missing_text,
        }
    }
}

#[cfg(test)]
mod tests;
