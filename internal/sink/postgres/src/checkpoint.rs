use crate::error;
use crate::own_tables::{OF_STREAM, StreamKey};
use replicator_sink::SinkError;
use replicator_types::{Lsn, Position, SlotIdentity, shard_of};
use std::collections::BTreeMap;
use tokio_postgres::types::PgLsn;
use tokio_postgres::{Client, Statement};

/// Whose row of `replicator.checkpoint`.
#[derive(Clone, Debug)]
pub(crate) struct Owner {
    pub(crate) sink: String,
    pub(crate) identity: SlotIdentity,
    /// Shards of the generation that the row counts in.
    pub(crate) shards: u32,
    pub(crate) shard: u32,
}

/// The greatest commit LSN that any row of the stream has.
pub(crate) async fn reach(client: &Client, key: &StreamKey) -> Result<Lsn, SinkError> {
    let sql = format!(
        "SELECT coalesce(pg_catalog.max(commit_lsn), '0/0') FROM replicator.checkpoint WHERE {OF_STREAM}"
    );
    let row = client.query_one(&sql, &key.parameters()).await;
    let row = row.map_err(|error| error::of_server(&error, "read replicator.checkpoint"))?;
    Ok(Lsn(u64::from(row.get::<_, PgLsn>(0))))
}

/// Other slots whose changes a sink of this name has applied here.
pub(crate) async fn other_identities(
    client: &Client,
    sink: &str,
    identity: &SlotIdentity,
) -> Result<Vec<String>, SinkError> {
    let sql = "SELECT DISTINCT slot, system_identifier::text FROM replicator.checkpoint \
               WHERE sink = $1 AND (system_identifier::text, slot) <> ($2, $3)";
    let parameters: [&(dyn tokio_postgres::types::ToSql + Sync); 3] =
        [&sink, &identity.system_identifier.to_string(), &identity.slot];
    let rows = client.query(sql, &parameters).await;
    let rows = rows.map_err(|error| error::of_server(&error, "read replicator.checkpoint"))?;
    Ok(rows
        .iter()
        .map(|row| format!("slot {} of cluster {}", row.get::<_, &str>(0), row.get::<_, &str>(1)))
        .collect())
}

const MINE: &str =
    "sink = $1 AND system_identifier = $2::text::numeric AND slot = $3 AND shards = $4 AND shard = $5";

/// The statements that a lane's session keeps at hand.
#[derive(Debug)]
pub(crate) struct CheckpointStatements {
    advance: Statement,
    hold: Statement,
}

impl Owner {
    /// Makes the lane's row, at the beginning of everything, where it is absent.
    pub(crate) async fn insert(&self, client: &Client) -> Result<(), SinkError> {
        let sql = "INSERT INTO replicator.checkpoint (sink, system_identifier, slot, shards, shard, commit_lsn, ordinal) \
                   VALUES ($1, $2::text::numeric, $3, $4, $5, '0/0', 0) ON CONFLICT DO NOTHING";
        client.execute(sql, &self.parameters()?.refs()).await.map_err(|error| self.failed(&error))?;
        Ok(())
    }

    /// The position of the lane's row. Locked for the moment of reading: a COMMIT of a process that was killed
    /// may still be under way, and is waited for.
    ///
    /// # Errors
    /// Halt when the row is gone.
    pub(crate) async fn read(&self, client: &Client) -> Result<Position, SinkError> {
        let sql = format!("SELECT commit_lsn, ordinal FROM replicator.checkpoint WHERE {MINE} FOR UPDATE");
        let row =
            client.query_opt(&sql, &self.parameters()?.refs()).await.map_err(|error| self.failed(&error))?;
        let row = row.ok_or_else(|| {
            SinkError::halt(format!(
                "the row of sink {}, shard {} of {}, is gone from replicator.checkpoint while it is in use; start \
                 again, which begins a new one, or restore the target",
                self.sink, self.shard, self.shards
            ))
        })?;
        Ok(position(row.get(0), row.get(1)))
    }

    /// What the rows of this sink and slot cover, whatever number of shards they count in.
    pub(crate) async fn read_applied(&self, client: &Client) -> Result<Applied, SinkError> {
        let sql = "SELECT shards, shard, commit_lsn, ordinal FROM replicator.checkpoint \
                   WHERE sink = $1 AND system_identifier = $2::text::numeric AND slot = $3";
        let Parameters { sink, system_identifier, slot, .. } = self.parameters()?;
        let rows = client.query(sql, &[&sink, &system_identifier, &slot]).await;
        let mut applied = Applied::default();
        for row in rows.map_err(|error| self.failed(&error))? {
            let (shards, shard): (i32, i32) = (row.get(0), row.get(1));
            applied.add(shards as u32, shard as u32, position(row.get(2), row.get(3)));
        }
        Ok(applied)
    }

    /// Prepares what [`Owner::advance`] runs.
    pub(crate) async fn prepare(&self, client: &Client) -> Result<CheckpointStatements, SinkError> {
        let sql = format!(
            "UPDATE replicator.checkpoint SET commit_lsn = $6, ordinal = $7, updated_at = pg_catalog.clock_timestamp() \
             WHERE {MINE} AND commit_lsn = $8 AND ordinal = $9"
        );
        let advance = client.prepare(&sql).await.map_err(|error| self.failed(&error))?;
        let sql = format!(
            "SELECT FROM replicator.checkpoint WHERE {MINE} AND commit_lsn = $6 AND ordinal = $7 FOR UPDATE"
        );
        let hold = client.prepare(&sql).await.map_err(|error| self.failed(&error))?;
        Ok(CheckpointStatements { advance, hold })
    }

    /// Moves the row from one position to another, and tells whether it was where it was thought to be. Locks it
    /// until the transaction's end.
    pub(crate) async fn advance(
        &self,
        client: &Client,
        statements: &CheckpointStatements,
        from: Position,
        to: Position,
    ) -> Result<bool, SinkError> {
        let mine = self.parameters()?;
        let (to_lsn, to_ordinal) = columns(to)?;
        let (from_lsn, from_ordinal) = columns(from)?;
        let mut parameters = mine.refs().to_vec();
        parameters.extend([
            &to_lsn as &(dyn tokio_postgres::types::ToSql + Sync),
            &to_ordinal,
            &from_lsn,
            &from_ordinal,
        ]);
        let moved = client.execute(&statements.advance, &parameters).await;
        Ok(moved.map_err(|error| self.failed(&error))? == 1)
    }

    /// Locks the row until the transaction's end, and tells whether it was where it was thought to be.
    pub(crate) async fn hold(
        &self,
        client: &Client,
        statements: &CheckpointStatements,
        at: Position,
    ) -> Result<bool, SinkError> {
        let mine = self.parameters()?;
        let (lsn, ordinal) = columns(at)?;
        let mut parameters = mine.refs().to_vec();
        parameters.extend([&lsn as &(dyn tokio_postgres::types::ToSql + Sync), &ordinal]);
        let found = client.query_opt(&statements.hold, &parameters).await;
        Ok(found.map_err(|error| self.failed(&error))?.is_some())
    }

    /// Another process has moved the row.
    pub(crate) fn taken(&self, expected: Position, found: Position) -> SinkError {
        SinkError::halt(format!(
            "another replicator writes to this sink: the checkpoint of sink {}, shard {} of {}, was left at {expected} \
             and is at {found}; stop the other process, or give one of the two sinks another name",
            self.sink, self.shard, self.shards
        ))
    }

    fn failed(&self, error: &tokio_postgres::Error) -> SinkError {
        error::of_server(error, "keep replicator.checkpoint")
    }

    fn parameters(&self) -> Result<Parameters<'_>, SinkError> {
        let number = |n: u32| i32::try_from(n).map_err(|_| SinkError::halt("shards is too large a number"));
        Ok(Parameters {
            sink: &self.sink,
            system_identifier: self.identity.system_identifier.to_string(),
            slot: &self.identity.slot,
            shards: number(self.shards)?,
            shard: number(self.shard)?,
        })
    }
}

struct Parameters<'a> {
    sink: &'a str,
    system_identifier: String,
    slot: &'a str,
    shards: i32,
    shard: i32,
}

impl Parameters<'_> {
    fn refs(&self) -> [&(dyn tokio_postgres::types::ToSql + Sync); 5] {
        [&self.sink, &self.system_identifier, &self.slot, &self.shards, &self.shard]
    }
}

pub(crate) fn columns(position: Position) -> Result<(PgLsn, i64), SinkError> {
    let ordinal = i64::try_from(position.ordinal);
    let ordinal = ordinal.map_err(|_| SinkError::reject(format!("{position} is no position of a change")))?;
    Ok((PgLsn::from(position.commit_lsn.0), ordinal))
}

fn position(commit_lsn: PgLsn, ordinal: i64) -> Position {
    Position { commit_lsn: Lsn(u64::from(commit_lsn)), ordinal: ordinal.max(0) as u64 }
}

/// Which changes the checkpoint covers, by all rows of a sink and slot, read when the lane was opened.
///
/// Each row is a true sentence about the past, so a change is in when one of them says so. (Truncates hash to 0.)
#[derive(Clone, Debug, Default)]
pub(crate) struct Applied {
    /// By shard count: the position of each shard.
    generations: BTreeMap<u32, BTreeMap<u32, Position>>,
    /// The highest of all: beyond it nothing needs a look.
    highest: Position,
}

impl Applied {
    fn add(&mut self, shards: u32, shard: u32, position: Position) {
        self.generations.entry(shards).or_default().insert(shard, position);
        self.highest = self.highest.max(position);
    }

    /// The position beyond which no change is covered.
    pub(crate) fn highest(&self) -> Position {
        self.highest
    }

    /// Whether the change at `position`, whose key has this hash, is in the target already.
    pub(crate) fn covers(&self, key_hash: u64, position: Position) -> bool {
        position <= self.highest
            && self.generations.iter().any(|(&shards, positions)| {
                positions.get(&shard_of(key_hash, shards)).is_some_and(|&applied| position <= applied)
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(lsn: u64) -> Position {
        Position { commit_lsn: Lsn(lsn), ordinal: 0 }
    }

    #[test]
    fn a_change_is_covered_when_any_shard_count_says_so() {
        let mut applied = Applied::default();
        applied.add(2, 0, at(10));
        applied.add(2, 1, at(20));
        applied.add(3, 1, at(15));
        // Hash 4: shard 0 of 2 up to 10, shard 1 of 3 up to 15.
        assert!(applied.covers(4, at(15)));
        assert!(!applied.covers(4, at(16)));
        // Hash 5: shard 1 of 2 up to 20; of shard 2 of 3 nothing is known.
        assert!(applied.covers(5, at(20)));
        assert!(!applied.covers(5, at(21)));
        assert_eq!(applied.highest(), at(20));
    }

    #[test]
    fn without_rows_nothing_is_covered() {
        assert!(!Applied::default().covers(0, at(1)));
    }
}
