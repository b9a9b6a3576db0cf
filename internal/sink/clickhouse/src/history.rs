//! Exactly once for a history, whose rows would be there twice after a replay.
//!
//! A run's first batch of a table is compared with what is there: when nothing is at or after its first
//! position, nothing of it or of later batches is, and no more is asked. Otherwise, up to the greatest
//! version found, each batch asks which of its versions are there and leaves those out.
//!
//! Between the crash and the restart no insert is under way: `Sink::prepare` waits until the server has
//! finished those of the earlier process. Within a run a repeated insert has the same token.

use crate::client::Client;
use crate::names::identifier;
use crate::native::VERSION;
use crate::tables::Target;
use replicator_sink::SinkError;
use replicator_types::Position;
use std::collections::{HashMap, HashSet};

/// What a lane knows of earlier runs.
#[derive(Debug, Default)]
pub(crate) struct Earlier {
    /// By table oid: the greatest version that an earlier run may have written.
    written_to: HashMap<u32, u128>,
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
            Some(version) => *version,
            None => {
                let sql = format!(
                    "SELECT max({version}) FROM {} WHERE {version} >= toUInt128('{first}')",
                    target.sql
                );
                let greatest = numbers(&client.fetch(&sql, "RowBinary", &what).await?).next().unwrap_or(0);
                self.written_to.insert(target.relation.oid, greatest);
                greatest
            }
        };
        if first > written_to {
            return Ok(HashSet::new());
        }
        let sql = format!(
            "SELECT {version} FROM {} WHERE {version} BETWEEN toUInt128('{first}') AND toUInt128('{last}')",
            target.sql
        );
        Ok(numbers(&client.fetch(&sql, "RowBinary", &what).await?).collect())
    }
}

fn numbers(bytes: &[u8]) -> impl Iterator<Item = u128> {
    bytes.as_chunks::<16>().0.iter().map(|chunk| u128::from_le_bytes(*chunk))
}
