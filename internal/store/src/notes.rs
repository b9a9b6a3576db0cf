//! The sink's notes: one object a stream, `replicator/notes/{cluster}-{slot}-{sink}.json`, of JSON's kind
//! "object", with a text for each key.
//!
//! It lies beside the data, below the same prefix, so that it is lost when they are. It is read once and replaced
//! whole at each change: one process writes at a time, as the slot sees to, and that one knows what is there. The note
//! that is written all the time has an object of its own, `…-acknowledged.txt`.

use crate::store::Store;
use replicator_sink::{ACKNOWLEDGED_NOTE, SinkError};
use replicator_types::SlotIdentity;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::Mutex;

const FOLDER: &str = "replicator/notes";

/// What the object's name ends with.
const NOTES_SUFFIX: &str = ".json";

/// See the module: a sink's notes on one stream.
pub struct Notes {
    store: Arc<Store>,
    path: String,
    acknowledged_path: String,
    /// What is there; none before it was read, and after a put that may or may not have got through.
    known: Mutex<Option<BTreeMap<String, String>>>,
}

impl Notes {
    /// Those of the sink of that name. Nothing is read yet.
    pub fn new(store: Arc<Store>, identity: &SlotIdentity, sink: &str) -> Self {
        let SlotIdentity { system_identifier, slot } = identity;
        // The cluster's number as event ids have it.
        let name = format!("{FOLDER}/{system_identifier:016x}-{slot}-{sink}");
        let acknowledged_path = format!("{name}-{ACKNOWLEDGED_NOTE}.txt");
        Self { store, path: name + NOTES_SUFFIX, acknowledged_path, known: Mutex::default() }
    }

    /// All of them, by key.
    pub async fn all(&self) -> Result<BTreeMap<String, String>, SinkError> {
        let mut known = self.known.lock().await;
        let mut notes = self.read(known.take()).await?;
        *known = Some(notes.clone());
        drop(known);
        if let Some(body) = self.store.find(&self.acknowledged_path).await?.filter(|body| !body.is_empty()) {
            notes.insert(ACKNOWLEDGED_NOTE.to_owned(), String::from_utf8_lossy(&body).into_owned());
        }
        Ok(notes)
    }

    /// Keeps a note, durably; `None` removes it.
    pub async fn put(&self, key: &str, value: Option<&str>) -> Result<(), SinkError> {
        if key == ACKNOWLEDGED_NOTE {
            let body = value.unwrap_or_default().to_owned();
            return self.store.replace(&self.acknowledged_path, body.into()).await;
        }
        self.put_all([(key, value)]).await
    }

    /// Keeps notes, or removes them, all at once; not that of what is acknowledged.
    pub async fn put_all<'a>(
        &self,
        news: impl IntoIterator<Item = (&'a str, Option<&'a str>)> + Send,
    ) -> Result<(), SinkError> {
        let mut known = self.known.lock().await;
        let mut notes = self.read(known.take()).await?;
        let mut changes = false;
        for (key, value) in news {
            let before = match value {
                Some(value) => notes.insert(key.to_owned(), value.to_owned()),
                None => notes.remove(key),
            };
            changes |= before.as_deref() != value;
        }
        if changes {
            let body = serde_json::to_vec_pretty(&notes)
                .map_err(|error| SinkError::halt(format!("the notes cannot be written: {error}")))?;
            self.store.replace(&self.path, body.into()).await?;
        }
        *known = Some(notes);
        Ok(())
    }

    async fn read(
        &self,
        known: Option<BTreeMap<String, String>>,
    ) -> Result<BTreeMap<String, String>, SinkError> {
        if let Some(known) = known {
            return Ok(known);
        }
        let Some(body) = self.store.find(&self.path).await? else {
            return Ok(BTreeMap::new());
        };
        serde_json::from_slice(&body).map_err(|error| {
            SinkError::halt(format!(
                "{} at {} has no notes of this program: {error}. Restore it; or remove it, and the tables are \
                 copied anew",
                self.path,
                self.store.place()
            ))
        })
    }
}
