//! How far each table's changes are in the lake already.

use replicator_lake::layout::{TABLES, TableFolder, first_position};
use replicator_lake::{Identity, Manifest, bookmark, read_info};
use replicator_sink::SinkError;
use replicator_store::Store;
use replicator_types::{Lsn, Position};
use std::collections::HashMap;

/// The position of each table's last change of the stream that is in the lake, or will be when what was prepared is.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    tables: HashMap<TableFolder, Option<Position>>,
}

impl Progress {
    /// That of the table in `folder`, asked for when it first comes. `None`: nothing is there.
    pub(crate) async fn of(
        &mut self,
        store: &Store,
        identity: &Identity,
        folder: &TableFolder,
    ) -> Result<Option<Position>, SinkError> {
        if let Some(known) = self.tables.get(folder) {
            return Ok(*known);
        }
        let found = find(store, identity, folder).await?;
        self.tables.insert(folder.clone(), found);
        Ok(found)
    }

    /// Notes that the table's changes up to `last` are prepared.
    pub(crate) fn advance(&mut self, folder: TableFolder, last: Position) {
        let known = self.tables.entry(folder).or_default();
        *known = (*known).max(Some(last));
    }
}

/// The greatest commit LSN of a change of the stream in any table of the lake; zero when there is none.
pub(crate) async fn reach(store: &Store, identity: &Identity) -> Result<Lsn, SinkError> {
    let mut reach = Lsn::ZERO;
    for schema in store.folders(TABLES).await? {
        for table in store.folders(&format!("{TABLES}/{schema}")).await? {
            let Some(folder) = TableFolder::in_path(&format!("{TABLES}/{schema}/{table}")) else { continue };
            let last = find(store, identity, &folder).await?;
            reach = reach.max(last.map_or(Lsn::ZERO, |last| last.commit_lsn));
        }
    }
    Ok(reach)
}

async fn find(
    store: &Store,
    identity: &Identity,
    folder: &TableFolder,
) -> Result<Option<Position>, SinkError> {
    let mut last = None;
    if let Some((manifest, _)) = Manifest::find(store, folder).await? {
        is_ours(store, &folder.manifest(), identity, &manifest.info.identity)?;
        last = manifest.folded_through();
    }
    // By name, which is by position.
    let files = store.list(&folder.deltas()).await?;
    let of_stream = |path: &str| first_position(path).is_some_and(bookmark::is_of_stream);
    if let Some(newest) = files.iter().rev().find(|file| of_stream(&file.path)) {
        // Whoever wrote it may have died before it was durable, and it counts from now on.
        store.settle(&newest.path).await?;
        let (info, _) = read_info(store, &newest.path).await?;
        is_ours(store, &newest.path, identity, &info.identity)?;
        last = last.max(info.last());
    }
    Ok(last)
}

/// Fails when there are changes of another slot or cluster, whose positions say nothing about ours.
pub(crate) fn is_ours(
    store: &Store,
    path: &str,
    ours: &Identity,
    theirs: &Identity,
) -> Result<(), SinkError> {
    if ours == theirs {
        return Ok(());
    }
    Err(SinkError::halt(format!(
        "{path} at {} is of slot {} of cluster {}. Give this sink a url of its own",
        store.place(),
        theirs.slot,
        theirs.system_identifier
    )))
}
