use crate::client::{Client, Rows};
use crate::encode::{Insert, Step};
use crate::errors::is_of_table;
use crate::names::identifier;
use crate::native::VERSION;
use crate::tables::Target;
use async_trait::async_trait;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use replicator_sink::{ErrorKind, SinkError, Write};
use replicator_types::Position;
use std::sync::Arc;

/// How far inserts of copied rows join. Each makes a part, and of every few parts the server makes one, which is as much work
/// again.
#[derive(Clone, Copy, Debug)]
pub(crate) struct JoinLimits {
    /// Memory at the server, by estimate.
    pub(crate) memory_bytes_max: usize,
}

/// More rows than this gain nothing.
const JOINED_ROWS_MAX: usize = 1_000_000;
/// Compressed, as they are kept here until they are durable.
const JOINED_BYTES_MAX: usize = 16 << 20;
/// Each block of an insert has an entry of its own in the table's memory of tokens.
const JOINED_BLOCKS_MAX: usize = 64;

impl JoinLimits {
    /// Whether inserts of which that is the sum may be one.
    fn allow(self, rows: usize, bytes: usize, memory_bytes: usize, blocks: usize) -> bool {
        rows <= JOINED_ROWS_MAX
            && bytes <= JOINED_BYTES_MAX
            && memory_bytes <= self.memory_bytes_max
            && blocks <= JOINED_BLOCKS_MAX
    }

    fn allow_both(self, one: &Insert, other: &Insert) -> bool {
        self.allow(
            one.rows + other.rows,
            one.body.len() + other.body.len(),
            one.memory_bytes + other.memory_bytes,
            one.body.pieces.len() + other.body.pieces.len(),
        )
    }

    /// Whether nothing of the same size could join.
    fn are_reached(self, insert: &Insert) -> bool {
        let blocks = insert.body.pieces.len();
        let with_another = |of: usize| of + of / blocks;
        !self.allow(
            with_another(insert.rows),
            with_another(insert.body.len()),
            with_another(insert.memory_bytes),
            blocks + 1,
        )
    }
}

/// Inserts of one write that run side by side, when a batch is of several tables.
const INSERTS_AT_ONCE: usize = 4;

/// A batch as requests. Each is sent until it succeeds; one that has is not sent again.
pub(crate) struct ClickHouseWrite {
    client: Arc<Client>,
    /// What its tokens begin with: slot and lane.
    scope: Arc<str>,
    rows: Rows,
    limits: JoinLimits,
    steps: Vec<(Step, bool)>,
}

impl ClickHouseWrite {
    pub(crate) fn new(
        client: Arc<Client>,
        scope: Arc<str>,
        rows: Rows,
        limits: JoinLimits,
        steps: Vec<Step>,
    ) -> Self {
        Self { client, scope, rows, limits, steps: steps.into_iter().map(|step| (step, false)).collect() }
    }
}

#[async_trait]
impl Write for ClickHouseWrite {
    fn held_bytes(&self) -> usize {
        let held = |(step, _): &(Step, bool)| match step {
            Step::Insert(insert) => insert.body.len(),
            Step::Truncate(..) => 0,
        };
        self.steps.iter().map(held).sum()
    }

    fn is_full(&self) -> bool {
        self.copied().is_none_or(|insert| self.limits.are_reached(insert))
    }

    fn join(&mut self, next: Box<dyn Write>) -> Result<(), Box<dyn Write>> {
        let next = next.downcast::<Self>()?;
        let may_join = match (self.copied(), next.copied()) {
            (Some(insert), Some(next)) => {
                Arc::ptr_eq(&insert.target, &next.target) && self.limits.allow_both(insert, next)
            }
            _ => false,
        };
        if !may_join {
            return Err(next);
        }
        if let Some((Step::Insert(insert), _)) = self.steps.first_mut() {
            for (step, _) in next.steps {
                if let Step::Insert(next) = step {
                    insert.join(next);
                }
            }
        }
        Ok(())
    }

    async fn send(&mut self) -> Result<(), SinkError> {
        let mut rest = self.steps.as_mut_slice();
        while let Some(((step, done), _)) = rest.split_first_mut() {
            if let Step::Truncate(target, position) = step {
                if !*done {
                    truncate(&self.client, target, *position).await?;
                    *done = true;
                }
                (_, rest) = rest.split_at_mut(1);
                continue;
            }
            let run = rest.iter().take_while(|(step, _)| matches!(step, Step::Insert(_))).count();
            let (inserts, after) = rest.split_at_mut(run);
            send_inserts(&self.client, &self.scope, self.rows, inserts).await?;
            rest = after;
        }
        Ok(())
    }
}

impl ClickHouseWrite {
    /// The one insert of a batch of copied rows.
    fn copied(&self) -> Option<&Insert> {
        match self.steps.as_slice() {
            [(Step::Insert(insert), false)] if self.rows == Rows::Distinct => Some(insert),
            _ => None,
        }
    }
}

/// Sends those that are not done, some at once. Of several failures the gravest is told, after the others
/// have had their chance.
async fn send_inserts(
    client: &Client,
    scope: &str,
    rows: Rows,
    inserts: &mut [(Step, bool)],
) -> Result<(), SinkError> {
    let mut waiting = inserts.iter_mut().filter(|(_, done)| !*done).filter_map(|(step, done)| match step {
        Step::Insert(insert) => Some((&*insert, done)),
        Step::Truncate(..) => None,
    });
    let mut running = FuturesUnordered::new();
    let mut failure: Option<SinkError> = None;
    loop {
        while running.len() < INSERTS_AT_ONCE {
            let Some((insert, done)) = waiting.next() else { break };
            running.push(async move {
                let (token, what) = insert_parts(insert, scope);
                let sent = client.insert(&insert.target.insert, &insert.body, rows, &token, &what).await;
                *done = sent.is_ok();
                sent.map_err(|error| match error.kind() {
                    ErrorKind::Reject => error.of_table(insert.target.relation.oid),
                    ErrorKind::Halt if is_of_table(&error) => error.of_table(insert.target.relation.oid),
                    ErrorKind::Retry | ErrorKind::Halt => error,
                })
            });
        }
        match running.next().await {
            Some(Ok(())) => {}
            Some(Err(error)) => {
                if failure.as_ref().is_none_or(|worst| gravity(&error) > gravity(worst)) {
                    failure = Some(error);
                }
            }
            None => return failure.map_or(Ok(()), Err),
        }
    }
}

fn gravity(error: &SinkError) -> u8 {
    match error.kind() {
        ErrorKind::Retry => 0,
        ErrorKind::Reject => 1,
        ErrorKind::Halt => 2,
    }
}

/// The token and the description of an insert. Equal tokens mean equal content: the digest is of the body.
fn insert_parts(insert: &Insert, scope: &str) -> (String, String) {
    let Insert { target, body, rows, first, last, .. } = insert;
    let token = format!("{scope}/{}/{first}-{last}/{rows}/{:032x}", target.sql, body.digest);
    let what = format!("inserting {rows} rows ({first} to {last}) into {}", target.sql);
    (token, what)
}

/// Empties a table, when no earlier insert can come after it: the lanes are drained, but a request that was
/// given up here may still run there.
///
/// Rows that are newer stay: those of a copy whose snapshot is, and those that an earlier run wrote behind it.
async fn truncate(client: &Client, target: &Target, position: Position) -> Result<(), SinkError> {
    let what = format!("truncating {}", target.sql);
    client.wait_for_own_queries().await?;
    let (version, own) = (identifier(VERSION), position.as_u128());
    let newer = format!("SELECT 1 FROM {} WHERE {version} > toUInt128('{own}') LIMIT 1", target.sql);
    if client.rows::<(u8,)>(&newer, &what).await?.is_empty() {
        return client.execute(&format!("TRUNCATE TABLE {}", target.sql), &what).await;
    }
    let sql = format!(
        "ALTER TABLE {} DELETE WHERE {version} <= toUInt128('{own}') SETTINGS mutations_sync = 2",
        target.sql
    );
    client.execute_long(target.relation.oid, &sql, &what).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inserts_join_until_any_of_the_limits_is_reached() {
        let limits = JoinLimits { memory_bytes_max: 1000 };
        assert!(limits.allow(JOINED_ROWS_MAX, JOINED_BYTES_MAX, 1000, JOINED_BLOCKS_MAX));
        assert!(!limits.allow(JOINED_ROWS_MAX + 1, 1, 1, 1));
        assert!(!limits.allow(1, JOINED_BYTES_MAX + 1, 1, 1));
        assert!(!limits.allow(1, 1, 1001, 1));
        assert!(!limits.allow(1, 1, 1, JOINED_BLOCKS_MAX + 1));
    }
}
