//! Small texts beside the data: how far copies have got, and what was made of each table.
//!
//! ```text
//!   {database}._replicator_notes   key · value · sequence · removed    ReplacingMergeTree(sequence) ORDER BY key
//!   key = sink / system id / slot / kind / own key                     read with FINAL
//! ```
//!
//! # Invariants
//! - The note with the greatest sequence counts. Sequences go on from the greatest in the table, so that no clock
//!   decides; one process at a time writes notes of a slot.
//! - Notes of other sinks, slots and clusters are neither read nor changed.
//! - A note is as durable as the data: the table has the settings of the others, and lies in the same database.

use crate::client::{Client, Rows, number};
use crate::compress::FrameWriter;
use crate::layout::Layout;
use crate::names::{Place, identifiers, literal};
use crate::native::{Column, Rules, body_of};
use crate::types::Type;
use replicator_sink::SinkError;
use replicator_types::SlotIdentity;
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use tokio::sync::Mutex;

/// The table's name.
const TABLE: &str = "_replicator_notes";

/// What a note is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// The pipeline's.
    Pipeline,
    /// A table of ours: see [`crate::record`].
    Table,
}

impl Kind {
    fn word(self) -> &'static str {
        match self {
            Self::Pipeline => "note",
            Self::Table => "schema",
        }
    }
}

pub(crate) struct Notes {
    client: Arc<Client>,
    place: Place,
    create: String,
    /// `sink/system id/slot`, known with the slot.
    owner: OnceLock<String>,
    /// The last sequence given out; none before the table was looked at.
    sequence: Mutex<Option<u64>>,
}

impl Notes {
    pub(crate) fn new(client: Arc<Client>, layout: &Layout, database: &str) -> Self {
        let place = Place { database: database.to_owned(), table: TABLE.to_owned() };
        let create = layout.create_notes(&place);
        Self { client, place, create, owner: OnceLock::new(), sequence: Mutex::default() }
    }

    /// Says whose notes they are.
    pub(crate) fn identify(&self, sink: &str, identity: &SlotIdentity) {
        // A slot's name has no slash.
        let owner = format!("{sink}/{}/{}", identity.system_identifier, identity.slot);
        self.owner.get_or_init(|| owner);
    }

    fn prefix(&self, kind: Kind) -> Result<String, SinkError> {
        let owner = self.owner.get().ok_or_else(|| {
            SinkError::halt("notes were asked for before the sink knew its slot: prepare comes first")
        })?;
        Ok(format!("{owner}/{}/", kind.word()))
    }

    /// The notes of that kind, by their own keys.
    pub(crate) async fn read(&self, kind: Kind) -> Result<BTreeMap<String, String>, SinkError> {
        let prefix = self.prefix(kind)?;
        self.ready(&mut *self.sequence.lock().await).await?;
        let sql = format!(
            "SELECT key, value FROM {} FINAL WHERE startsWith(key, {}) AND removed = 0",
            self.place.sql(),
            literal(&prefix)
        );
        let rows: Vec<(String, String)> = self.client.rows(&sql, "reading notes").await?;
        let own = |(key, value): (String, String)| Some((key.strip_prefix(&prefix)?.to_owned(), value));
        Ok(rows.into_iter().filter_map(own).collect())
    }

    /// Keeps a note, or removes it.
    pub(crate) async fn put(&self, kind: Kind, key: &str, value: Option<&str>) -> Result<(), SinkError> {
        let key = format!("{}{key}", self.prefix(kind)?);
        let mut last = self.sequence.lock().await;
        let sequence = self.ready(&mut last).await? + 1;
        *last = Some(sequence);
        let removed = if value.is_none() { "1" } else { "0" };
        let numeral = sequence.to_string();
        let fields = [
            ("key", "String", key.as_str()),
            ("value", "String", value.unwrap_or_default()),
            ("sequence", "UInt64", numeral.as_str()),
            ("removed", "UInt8", removed),
        ];
        let names = identifiers(fields.map(|(name, _, _)| name));
        let columns =
            fields.map(|(name, of, text)| column(name, of, text)).into_iter().collect::<Option<Vec<_>>>();
        let columns = columns.ok_or_else(|| SinkError::halt(format!("the note {key} cannot be written")))?;
        let body = body_of(&columns, &mut FrameWriter::default());
        let sql = format!("INSERT INTO {} ({names}) FORMAT Native", self.place.sql());
        // Not the digest alone: the same text may be kept, replaced and kept again.
        let token = format!("{key}/{sequence}/{:032x}", body.digest);
        self.client.insert(&sql, &body, Rows::Any, &token, &format!("keeping the note {key}")).await
    }

    /// The last sequence; makes the table where it is not there.
    async fn ready(&self, last: &mut Option<u64>) -> Result<u64, SinkError> {
        if let Some(last) = *last {
            return Ok(last);
        }
        self.client.execute(&self.create, &format!("making the table {}", self.place.sql())).await?;
        let sql = format!("SELECT max(sequence) FROM {}", self.place.sql());
        let rows: Vec<(serde_json::Value,)> = self.client.rows(&sql, "reading notes").await?;
        let greatest = rows.first().map_or(0, |(greatest,)| number(greatest));
        *last = Some(greatest);
        Ok(greatest)
    }
}

/// A column of one value.
fn column(name: &str, of: &str, text: &str) -> Option<Column> {
    let mut column = Column::new(name, &Type::parse(of), pgvalue::Type::TextOnly, false, Rules::STRICT)?;
    column.push_text(text.as_bytes()).ok()?;
    Some(column)
}
