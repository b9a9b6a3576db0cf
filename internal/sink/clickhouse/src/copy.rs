//! The beginning of a table's copy.

use crate::found::look;
use crate::names::{Place, identifier};
use crate::native::{COMMIT_TIME, VERSION};
use crate::record::Mark;
use crate::tables::{Sight, Tables};
use replicator_sink::{SinkError, TableCopy};
use replicator_types::{Lsn, Position};
use slog::info;

impl Tables {
    /// Makes the table ready for its copy: there, in the shape that it has under the snapshot or a newer one, and
    /// empty where that is asked for.
    ///
    /// A history is not emptied: that the table begins anew is one more row in it. It counts as empty, since it keeps
    /// all there is.
    pub(crate) async fn begin_copy(&self, copy: &TableCopy) -> Result<bool, SinkError> {
        let relation = &copy.relation;
        let turn = self.turn(relation.oid);
        let _alone = turn.lock().await;
        let position = Position::copied(copy.snapshot, 0);
        let mark = Mark::of(relation, position);
        let emptied = copy.empty_first && self.layout.is_mirror();
        if emptied {
            let record = self.record(relation.oid).await;
            let place = record.map_or_else(|| self.place(relation), |record| record.place());
            self.empty(&place).await?;
        }
        let sight = Sight { position, alone: true, is_copy: !copy.is_resumed, emptied };
        let target = self.settle(relation, mark, sight).await?;
        if !copy.is_resumed && !self.layout.is_mirror() {
            self.note_beginning(&target.place, copy.snapshot).await?;
        }
        self.forget(&target.place);
        if !self.layout.is_mirror() {
            return Ok(true);
        }
        let sql = format!("SELECT 1 FROM {} LIMIT 1", target.sql);
        let rows: Vec<(u8,)> = self.client.rows(&sql, &format!("looking into {}", target.sql)).await?;
        let is_empty = rows.is_empty();
        if let Some(mut record) = self.record(relation.oid).await.filter(|_| is_empty) {
            // What is older is in the copy, by whatever key it was told apart.
            record.set_from(position);
            self.remember(&mut *self.known().await, relation.oid, record).await?;
        }
        Ok(is_empty)
    }

    async fn empty(&self, place: &Place) -> Result<(), SinkError> {
        // An insert of an earlier copy that was given up must not come after.
        self.client.wait_for_own_queries().await?;
        if look(&self.client, place, self.system()).await?.table.is_none() {
            return Ok(());
        }
        info!(self.logger, "emptying a table before its copy"; "table" => place.sql());
        self.client.execute(&self.layout.truncate(place), &format!("emptying {}", place.sql())).await
    }

    /// A `truncate` just below the copied rows, once, where there is anything before it.
    async fn note_beginning(&self, place: &Place, snapshot: Lsn) -> Result<(), SinkError> {
        let below = Position { commit_lsn: Lsn(snapshot.0.saturating_sub(2)), ordinal: 0 }.as_u128();
        let (version, mark) = (identifier(VERSION), identifier(self.layout.mark_column().0));
        let sql = format!(
            "INSERT INTO {table} ({version}, {mark}, {time}) SELECT toUInt128('{below}'), 'truncate', now64(6, 'UTC') \
             FROM (SELECT max({version}) AS last FROM {table} WHERE {version} <= toUInt128('{below}')) WHERE last \
             NOT IN (toUInt128(0), toUInt128('{below}'))",
            table = place.sql(),
            time = identifier(COMMIT_TIME),
        );
        self.client.execute(&sql, &format!("noting in {} that it begins anew", place.sql())).await
    }
}
