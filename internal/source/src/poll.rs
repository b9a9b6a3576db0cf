//! Asking again for the published tables, which mostly have not changed.
//!
//! A sum over the versions of the catalog's rows tells whether they have: every change of one gives it another
//! `xmin` or place. It costs the server a fraction of reading them, and the network nothing.

use crate::SourceError;
use crate::catalog::{self, ReadAt, TREE, memberships, published_tables};
use crate::sql::{Sql, column};
use crate::value_types::{self, value_types};
use replicator_types::{Lsn, TableCatalog};
use tokio::sync::Mutex;
use tokio_postgres::types::Type;

/// How often the catalog may change under the hands of one call.
const ATTEMPTS: u32 = 5;

/// The tables as of the last call.
#[derive(Debug, Default)]
pub(crate) struct Poll(Mutex<Option<Known>>);

#[derive(Debug)]
struct Known {
    fingerprint: String,
    tables: Vec<TableCatalog>,
}

const ROWS: &str = "
SELECT coalesce(sum(hashtextextended(r.text, 0)::numeric), 0)::text AS fingerprint
FROM (
    SELECT format('%s %s %s %s', c.oid, c.relnamespace, c.relname, c.relreplident)
           || coalesce(p.columns::text, '') || p.generated AS text
    FROM published p JOIN pg_class c USING (oid)
  UNION ALL
    SELECT format('n %s %s', n.oid, n.nspname) FROM pg_namespace n
    WHERE n.oid IN (SELECT c.relnamespace FROM published p JOIN pg_class c USING (oid))
  UNION ALL
    SELECT format('a %s %s %s %s', a.attrelid, a.attnum, a.xmin, a.ctid)
    FROM published p JOIN pg_attribute a ON a.attrelid = p.oid AND a.attnum > 0
  UNION ALL
    SELECT format('d %s %s %s', d.oid, d.xmin, d.ctid) FROM published p JOIN pg_attrdef d ON d.adrelid = p.oid
  UNION ALL
    SELECT format('i %s %s %s', i.indexrelid, i.xmin, i.ctid)
    FROM published p JOIN pg_index i ON i.indrelid = p.oid
  UNION ALL
    SELECT format('f %s %s %s %s', t.root, t.oid, c.relfilenode, t.joined_by)
    FROM tree t JOIN pg_class c USING (oid)
  UNION ALL
    SELECT format('t %s %s %s', t.oid, t.xmin, t.ctid) FROM pg_type t
    WHERE t.oid >= 16384 AND t.typrelid = 0
  UNION ALL
    SELECT format('m %s %s', m.oid, m.of) FROM memberships m
  UNION ALL";

/// Whether nobody had it locked, as far as that kept anything from being read.
fn is_read(table: &TableCatalog) -> bool {
    table.read_at > Lsn::ZERO && table.knows_generated()
}

impl Poll {
    /// The published tables as they are now.
    pub(crate) async fn tables(
        &self,
        sql: &Sql,
        publication: &str,
        server_version_num: u32,
    ) -> Result<Vec<TableCatalog>, SourceError> {
        let mut known = self.0.lock().await;
        for _ in 0..ATTEMPTS {
            let doing = format!("looking for changes of the tables of publication {publication}");
            let read_at = ReadAt::now(sql, &doing).await?;
            let (published, value_types) = (published_tables(server_version_num), value_types());
            let query = format!(
                "WITH RECURSIVE {published}{TREE}{}{value_types} {ROWS}{} ) r",
                memberships(server_version_num),
                value_types::ROWS
            );
            let row = sql.row(&doing, &query, &[(&publication, Type::TEXT)]).await?;
            let fingerprint: String = column(&row, "fingerprint", &doing)?;
            if let Some(same) = known.as_mut().filter(|known| known.fingerprint == fingerprint) {
                // What was locked when it was read stays what it is, and is read again the next time.
                for table in same.tables.iter_mut().filter(|table| table.read_at > Lsn::ZERO) {
                    table.read_at = table.read_at.max(read_at.of(table.oid));
                }
                let tables = same.tables.clone();
                if !tables.iter().all(is_read) {
                    *known = None;
                }
                return Ok(tables);
            }
            // Before the tables: what changes in between is seen by the next round, which goes by it.
            let tables = catalog::published(sql, publication, server_version_num).await?;
            *known = Some(Known { fingerprint, tables });
        }
        Err(SourceError::retry(format!(
            "the tables of publication {publication} change faster than they can be read"
        )))
    }
}
