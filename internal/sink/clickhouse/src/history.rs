//! Exactly once for a history, whose rows would be there twice after a replay.
//!
//! A run's first batch of a table is compared with what is there: when nothing is at or after its first
//! position, nothing of it or of later batches is, and no more is asked. Otherwise, up to the greatest
//! version found, each batch asks which of its versions are there and leaves those out.
//!
//! Rows of a copy stand at positions of their own, between those of changes, and batches of them come in no order:
//! they are compared with all that is there of the same copy.
//!
//! Between the crash and the restart no insert is under way: `Sink::prepare` waits until the server has
//! finished those of the earlier process. Within a run a repeated insert has the same token.

use crate::client::Client;
use crate::names::identifier;
use crate::native::VERSION;
use crate::tables::Target;
use replicator_sink::SinkError;
use replicator_types::{Lsn, Position};
use std::collections::{HashMap, HashSet};

/// What a lane knows of earlier runs.
#[derive(Debug, Default)]
pub(crate) struct Earlier {
    /// By table oid: from where on was looked, and the greatest version that was found.
    written_to: HashMap<u32, (u128, u128)>,
    /// By table oid: the copy's commit LSN, and whether any of its rows was there.
    copied: HashMap<u32, (Lsn, bool)>,
}

impl Earlier {
    /// The versions between `first` and `last` that are in the table already.
    pub(crate) async fn versions(
        &mut self,
        client: &Client,
        target: &Target,
        first: Position,
        last: Position,
    ) -> Result<HashSet<u128>, SinkError> {
        let what = format!("looking for rows of {} that an earlier run wrote", target.sql);
        let version = identifier(VERSION);
        let (first, last) = (first.as_u128(), last.as_u128());
        let written_to = match self.written_to.get(&target.relation.oid) {
            Some((from, version)) if *from <= first => *version,
            _ => {
                let sql = format!(
                    "SELECT max({version}) FROM {} WHERE {version} >= toUInt128('{first}')",
                    target.sql
                );
                let greatest = numbers(&client.fetch(&sql, "RowBinary", &what).await?).next().unwrap_or(0);
                self.written_to.insert(target.relation.oid, (first, greatest));
                greatest
            }
        };
        if first > written_to {
            return Ok(HashSet::new());
        }
        between(client, target, first, last, &what).await
    }

    /// The versions between `first` and `last`, of rows of one copy, that are in the table already.
    pub(crate) async fn copied(
        &mut self,
        client: &Client,
        target: &Target,
        first: Position,
        last: Position,
    ) -> Result<HashSet<u128>, SinkError> {
        let what = format!("looking for copied rows of {} that an earlier run wrote", target.sql);
        let version = identifier(VERSION);
        let any = match self.copied.get(&target.relation.oid) {
            Some((copy, any)) if *copy == first.commit_lsn => *any,
            _ => {
                let of_copy = |ordinal| Position { commit_lsn: first.commit_lsn, ordinal }.as_u128();
                let sql = format!(
                    "SELECT {version} FROM {} WHERE {version} BETWEEN toUInt128('{}') AND toUInt128('{}') LIMIT 1",
                    target.sql,
                    of_copy(0),
                    of_copy(u64::MAX)
                );
                let any = numbers(&client.fetch(&sql, "RowBinary", &what).await?).next().is_some();
                self.copied.insert(target.relation.oid, (first.commit_lsn, any));
                any
            }
        };
        if !any {
            return Ok(HashSet::new());
        }
        between(client, target, first.as_u128(), last.as_u128(), &what).await
    }
}

async fn between(
    client: &Client,
    target: &Target,
    first: u128,
    last: u128,
    what: &str,
) -> Result<HashSet<u128>, SinkError> {
    let version = identifier(VERSION);
    let sql = format!(
        "SELECT {version} FROM {} WHERE {version} BETWEEN toUInt128('{first}') AND toUInt128('{last}')",
        target.sql
    );
    Ok(numbers(&client.fetch(&sql, "RowBinary", what).await?).collect())
}

fn numbers(bytes: &[u8]) -> impl Iterator<Item = u128> {
    bytes.as_chunks::<16>().0.iter().map(|chunk| u128::from_le_bytes(*chunk))
}
