//! How far the tables are, whoever wrote to them last.

use crate::client::number;
use crate::found::look;
use crate::names::identifier;
use crate::native::VERSION;
use crate::record::Record;
use crate::tables::Tables;
use replicator_sink::SinkError;
use replicator_types::Lsn;

impl Tables {
    /// The greatest commit LSN of any row in the tables of this slot: by what is noted of them, not by what is published
    /// now. Reads one column of each.
    pub(crate) async fn reach(&self) -> Result<Lsn, SinkError> {
        let places: Vec<_> = self.known().await.records.values().map(Record::place).collect();
        let mut reach = Lsn::default();
        for place in places {
            if look(&self.client, &place, self.system()).await?.table.is_none() {
                continue;
            }
            // The LSN is the high half of a version.
            let sql = format!(
                "SELECT toUInt64(bitShiftRight(max({}), 64)) FROM {}",
                identifier(VERSION),
                place.sql()
            );
            let what = format!("looking how far {} is", place.sql());
            let rows: Vec<(serde_json::Value,)> = self.client.rows(&sql, &what).await?;
            reach = reach.max(Lsn(rows.first().map_or(0, |(lsn,)| number(lsn))));
        }
        Ok(reach)
    }
}
