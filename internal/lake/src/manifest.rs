//! `manifest.json`: what a table's `data.parquet` holds, for who does not read footers.

use crate::info::FileInfo;
use crate::layout::TableFolder;
use replicator_sink::SinkError;
use replicator_store::{Store, Version};
use replicator_types::Position;
use serde::{Deserialize, Serialize};

/// See the module.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Manifest {
    /// As `data.parquet` says of itself.
    #[serde(flatten)]
    pub info: FileInfo,
    /// Size of `data.parquet`.
    pub bytes: u64,
    /// When it was written: RFC 3339, UTC.
    pub written_at: String,
}

impl Manifest {
    /// That of a table; `None` when nothing was folded yet.
    ///
    /// # Errors
    /// Those of the store; to halt where the object is none.
    pub async fn find(store: &Store, folder: &TableFolder) -> Result<Option<(Self, Version)>, SinkError> {
        let path = folder.manifest();
        let Some((body, version)) = store.find_version(&path).await? else { return Ok(None) };
        let manifest = serde_json::from_slice(&body).map_err(|error| {
            SinkError::halt(format!(
                "{path} at {} is no manifest: {error}. Remove it; the next compaction writes it anew",
                store.place()
            ))
        })?;
        Ok(Some((manifest, version)))
    }

    /// Up to where the stream's changes are folded.
    pub fn folded_through(&self) -> Option<Position> {
        self.info.folded_through.as_deref().and_then(crate::bookmark::parse)
    }
}

/// `copy.json`: whether the table is being copied.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct CopyState {
    /// Whether it is.
    pub is_running: bool,
    /// The LSN of the last copy's snapshot, `X/X`.
    pub snapshot: String,
}

impl CopyState {
    /// That of a table; `None` when it never was copied.
    ///
    /// # Errors
    /// Those of the store; to halt where the object is none.
    pub async fn find(store: &Store, folder: &TableFolder) -> Result<Option<Self>, SinkError> {
        let path = folder.copy();
        let Some(body) = store.find(&path).await? else { return Ok(None) };
        let state = serde_json::from_slice(&body);
        state.map(Some).map_err(|error| {
            SinkError::halt(format!("{path} at {} is not of this lake: {error}. Remove it", store.place()))
        })
    }

    /// Keeps it, durably.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn put(&self, store: &Store, folder: &TableFolder) -> Result<(), SinkError> {
        // A struct of a boolean and a text: there is nothing to fail.
        let body = serde_json::to_vec(self).unwrap_or_default();
        store.replace(&folder.copy(), body.into()).await
    }
}
