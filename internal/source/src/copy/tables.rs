//! What there is to copy: the published tables as the snapshot has them, and the parts their rows lie in.

use super::snapshot::Shared;
use crate::SourceError;
use crate::catalog::{self, LOCKED};
use crate::sql::column;
use replicator_types::{GeneratedColumn, Relation, Storage};
use slog::warn;
use std::collections::HashMap;
use std::sync::Arc;
use tokio_postgres::types::Type;

/// A published table that can be copied.
#[derive(Clone, Debug)]
pub struct CopyTable {
    /// As it was under the snapshot, with the columns that are published, at version 0. Known since the snapshot's
    /// LSN.
    pub relation: Arc<Relation>,
    /// Where its rows lie: an ordinary table is one part, a partitioned one has its leaves. May be empty.
    pub parts: Vec<CopyPart>,
    /// Rows as of the last ANALYZE or VACUUM, scaled to the size now; before the row filter. 0 when nothing is known.
    pub rows_estimate: u64,
    /// Bytes on the source's disk, values stored aside included, indexes not.
    pub bytes: u64,
    /// The publication's row filter, as SQL.
    pub row_filter: Option<String>,
    /// Whether somebody had it, or a part of it, locked so that its size or its row filter could not be read: it can't be
    /// copied as it is here, and the others need not wait for that.
    pub is_locked: bool,
    /// Where its rows lay under the snapshot, as [`TableCatalog::storage`](replicator_types::TableCatalog::storage)
    /// tells for now.
    pub storage: Storage,
    /// See [`TableCatalog::generated`](replicator_types::TableCatalog::generated).
    pub generated: Vec<GeneratedColumn>,
    /// See [`TableCatalog::dropped`](replicator_types::TableCatalog::dropped).
    pub dropped: Vec<i16>,
}

/// A table with storage of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopyPart {
    /// `pg_class.oid`.
    pub oid: u32,
    /// The name as SQL, quoted where it has to be: `public.orders`, `"Shop"."a b"`.
    pub sql_name: String,
    /// Blocks when the snapshot's tables were asked for.
    pub blocks: u32,
    /// `pg_class.relfilenode` under the snapshot. It changes when the table is rewritten; block numbers mean nothing
    /// across that.
    pub file_node: u32,
}

// Around a `published(oid, columns, generated, qual)` and `LOCKED`, which keeps the functions from what is locked: sizes
// and filters of that are NULL. `tree` goes by `pg_inherits` rather than `pg_partition_tree`, which would see the tree as it is now.
const PARTS: &str = "
, filters AS MATERIALIZED (
    SELECT p.oid, p.qual IS NOT NULL AS is_filtered,
           CASE WHEN p.oid NOT IN (SELECT l.oid FROM locked l) THEN pg_get_expr(p.qual, p.oid) END AS filter
    FROM published p
), tree AS (
    SELECT p.oid AS root, p.oid, c.relkind FROM published p JOIN pg_class c ON c.oid = p.oid
  UNION ALL
    SELECT t.root, c.oid, c.relkind
    FROM tree t JOIN pg_inherits i ON i.inhparent = t.oid AND NOT i.inhdetachpending JOIN pg_class c ON c.oid = i.inhrelid
    WHERE t.relkind = 'p'
)
SELECT t.root, t.oid, t.relkind::text AS sort, format('%I.%I', n.nspname, c.relname) AS sql_name,
       c.relfilenode AS file_node, c.reltuples::float8 AS tuples, c.relpages AS pages,
       CASE WHEN c.oid NOT IN (SELECT l.oid FROM locked l)
            THEN coalesce(pg_relation_size(c.oid), 0) / current_setting('block_size')::int8 END AS blocks,
       CASE WHEN c.relkind <> 'f' AND c.oid NOT IN (SELECT l.oid FROM locked l)
            THEN coalesce(pg_table_size(c.oid), 0) ELSE 0 END AS bytes,
       p.filter, p.is_filtered
FROM tree t
JOIN filters p ON p.oid = t.root
JOIN pg_class c ON c.oid = t.oid
JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE t.relkind <> 'p'
ORDER BY t.root, t.oid";

/// The tables of the publication under the snapshot, by schema and name.
pub(super) async fn read(shared: &Shared, publication: &str) -> Result<Vec<CopyTable>, SourceError> {
    let doing = format!("reading what there is to copy of publication {publication}");
    let version = shared.server_version_num;
    let catalogs = catalog::published_in(&shared.leader, publication, version).await?;
    let mut tables: Vec<CopyTable> = catalogs
        .into_iter()
        .map(|mut catalog| {
            catalog.read_at = shared.lsn;
            CopyTable {
                relation: Arc::new(catalog.relation()),
                storage: std::mem::take(&mut catalog.storage),
                generated: std::mem::take(&mut catalog.generated),
                dropped: std::mem::take(&mut catalog.dropped),
                parts: Vec::new(),
                rows_estimate: 0,
                bytes: 0,
                row_filter: None,
                is_locked: false,
            }
        })
        .collect();
    let by_oid: HashMap<u32, usize> =
        tables.iter().enumerate().map(|(index, table)| (table.relation.oid, index)).collect();
    let query = format!("WITH RECURSIVE {}{LOCKED}{PARTS}", catalog::published_tables(version));
    let rows = shared.leader.query_typed(&query, &[(&publication, Type::TEXT)]).await;
    for row in rows.map_err(|error| SourceError::of_sql(&doing, &error))? {
        let root: u32 = column(&row, "root", &doing)?;
        // A table that was published between the two queries has all its rows in the stream.
        let Some(table) = by_oid.get(&root).and_then(|&index| tables.get_mut(index)) else { continue };
        let sql_name: String = column(&row, "sql_name", &doing)?;
        if column::<&str>(&row, "sort", &doing)? == "f" {
            warn!(shared.log, "a partition that is a foreign table is not copied, as its changes are not published";
                "partition" => sql_name, "table" => table.relation.qualified_name());
            continue;
        }
        let blocks: Option<i64> = column(&row, "blocks", &doing)?;
        table.row_filter = column(&row, "filter", &doing)?;
        table.is_locked |=
            blocks.is_none() || table.row_filter.is_none() && column::<bool>(&row, "is_filtered", &doing)?;
        let blocks = u32::try_from(blocks.unwrap_or(0)).unwrap_or(u32::MAX);
        let bytes: i64 = column(&row, "bytes", &doing)?;
        let (tuples, pages): (f64, i32) = (column(&row, "tuples", &doing)?, column(&row, "pages", &doing)?);
        if tuples > 0.0 && pages > 0 {
            table.rows_estimate += (tuples * f64::from(blocks) / f64::from(pages)) as u64;
        }
        table.bytes += bytes.unsigned_abs();
        let (oid, file_node) = (column(&row, "oid", &doing)?, column(&row, "file_node", &doing)?);
        table.parts.push(CopyPart { oid, sql_name, blocks, file_node });
    }
    Ok(tables)
}
