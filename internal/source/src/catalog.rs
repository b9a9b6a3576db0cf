//! What the catalog says of tables: [`TableCatalog`].
//!
//! One query for any number of tables, one row a column. Domains are followed down to their base type inside
//! the query; what is an array is decided as the server does, by the element type naming it as its array
//! (`int2vector` has elements and is none).
//!
//! Source: <https://www.postgresql.org/docs/current/catalogs.html>, `pg_attribute`, `pg_type`, `pg_index`,
//! `pg_collation`.

use crate::SourceError;
use crate::default_expression::is_literal;
use crate::sql::{Parameter, Sql, column, lsn};
use crate::value_types::{self, value_types};
use replicator_types::{
    Column, ColumnKind, GeneratedColumn, Leaf, Lsn, ReplicaIdentity, Storage, TableCatalog,
};
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Row};

/// From this version on a publication can list columns, filter rows and name schemas.
const COLUMN_LISTS_SINCE: u32 = 150_000;

/// From this version on publications may hold what nothing is known of here.
const UNKNOWN_SINCE: u32 = 190_000;

/// Types made by extensions and users have oids from here on (`FirstNormalObjectId`).
pub(crate) const FIRST_USER_OID: u32 = 16_384;

/// From this version on a publication can have generated columns sent, and the catalog tells whether it does.
/// Before, they are never sent, whatever the catalog says.
pub(crate) const GENERATED_COLUMNS_SINCE: u32 = 180_000;

/// `locked(oid)`: the tables that a reader would have to wait for, since another session has them locked or is about to.
/// Some functions open the table that they are asked about: for these they are not called, so that what is asked of all
/// tables does not wait for one. Between the look and the call a lock may come; then `lock_timeout` ends it.
pub(crate) const LOCKED: &str = "
, locked AS MATERIALIZED (
    SELECT l.relation AS oid FROM pg_locks l
    WHERE l.locktype = 'relation' AND l.mode = 'AccessExclusiveLock'
      AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())
      AND l.pid IS DISTINCT FROM pg_backend_pid()
)";

/// The query around a `published(oid, columns, generated)` and [`LOCKED`]: NULL columns are all, `generated` tells whether
/// generated ones are among them. Those that are not come with `is_sent` false.
///
/// Defaults have no columns in them, and need no table to be written as SQL. What generates a column has, and comes as NULL
/// while the table is locked. What a table's list of columns is needed for comes first: joins would carry it along with
/// each of the columns.
const COLUMNS: &str = "
, domain AS (
    SELECT t.oid, t.typbasetype AS base, t.typtypmod AS modifier FROM pg_type t WHERE t.typtype = 'd'
  UNION ALL
    SELECT d.oid, t.typbasetype, CASE WHEN t.typtypmod = -1 THEN d.modifier ELSE t.typtypmod END
    FROM domain d JOIN pg_type t ON t.oid = d.base WHERE t.typtype = 'd'
), resolved AS (
    SELECT d.oid, d.base, d.modifier FROM domain d JOIN pg_type t ON t.oid = d.base WHERE t.typtype <> 'd'
), attribute AS MATERIALIZED (
    SELECT p.oid AS of, a.attnum, a.attname, a.attnotnull, a.atttypid, a.atttypmod, a.attisdropped, a.atthasdef,
           a.attidentity, a.attgenerated, a.attcollation, a.xmin,
           CASE WHEN a.atthasmissing THEN array_to_string(a.attmissingval, '') END AS missing_text,
           a.attgenerated = '' OR p.generated AND (p.columns IS NULL OR a.attname = ANY (p.columns)) AS is_sent
    FROM published p
    LEFT JOIN pg_attribute a ON a.attrelid = p.oid AND a.attnum > 0
        AND (a.attisdropped OR a.attgenerated <> '' OR p.columns IS NULL OR a.attname = ANY (p.columns))
)
SELECT c.oid AS table_oid, n.nspname::text AS schema_name, c.relname::text AS table_name,
       c.relreplident::text AS identity,
       a.attnum, a.attname::text AS column_name, a.attnotnull AS not_null, a.atttypid AS type_oid,
       a.attisdropped AS is_dropped, a.atthasdef OR a.attidentity <> '' AS has_default,
       CASE WHEN a.attgenerated = '' THEN pg_get_expr(f.adbin, 0) END AS default_expression,
       CASE WHEN a.attgenerated <> '' AND c.oid NOT IN (SELECT l.oid FROM locked l)
            THEN pg_get_expr(f.adbin, f.adrelid) END AS generation_expression,
       a.attgenerated = 'v' AS is_virtual, a.attgenerated <> '' AS is_generated,
       a.is_sent, a.missing_text, a.xmin::text::int8 AS written_by,
       format_type(a.atttypid, a.atttypmod) AS type_sql,
       b.oid AS base_oid, b.typtype::text AS base_sort,
       coalesce(d.modifier, a.atttypmod) AS base_modifier,
       e.oid AS element_oid, e.typtype::text AS element_sort, e.typcategory::text AS element_category,
       e.typdelim::text AS element_delimiter,
       coalesce(ed.modifier, d.modifier, a.atttypmod) AS element_modifier,
       coalesce(a.attnum = ANY ((pk.indkey::int2[])[0:pk.indnkeyatts - 1]), false) AS in_primary_key,
       coalesce(a.attnum = ANY ((ri.indkey::int2[])[0:ri.indnkeyatts - 1]), false) AS in_identity_index,
       coalesce(NOT l.collisdeterministic, false) AS nondeterministic
FROM attribute a
JOIN pg_class c ON c.oid = a.of
JOIN pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_index pk ON pk.indrelid = c.oid AND pk.indisprimary AND pk.indimmediate AND pk.indisvalid
LEFT JOIN pg_index ri ON ri.indrelid = c.oid AND ri.indisreplident AND ri.indisvalid
LEFT JOIN pg_attrdef f ON f.adrelid = c.oid AND f.adnum = a.attnum
LEFT JOIN resolved d ON d.oid = a.atttypid
LEFT JOIN pg_type b ON b.oid = coalesce(d.base, a.atttypid)
LEFT JOIN pg_type ae ON ae.oid = b.typelem AND ae.typarray = b.oid
LEFT JOIN resolved ed ON ed.oid = ae.oid
LEFT JOIN pg_type e ON e.oid = coalesce(ed.base, ae.oid)
LEFT JOIN pg_collation l ON l.oid = a.attcollation
ORDER BY n.nspname, c.relname, c.oid, a.attnum";

/// A position below which every change of a table's columns is visible to whatever is asked afterwards, and the tables
/// of which that can't be said.
///
/// A transaction's commit record is in the WAL before the transaction is visible: for a moment, or for as long as a
/// synchronous standby takes to answer. So the position is read first, then which tables are locked as only
/// `ALTER TABLE` and the like lock them, and only then, by another statement, the catalog. A commit that is below the
/// position either still had its lock when that was looked at, since locks are given back behind the moment that the
/// transaction becomes visible (`CommitTransaction` of `xact.c`: `RecordTransactionCommit`, `ProcArrayEndTransaction`,
/// `ResourceOwnerRelease`), or was visible by then. On a standby the position moves behind each replayed record.
///
/// The locks hang on the position, so that they are not looked at first.
const POSITION: &str = "
SELECT r.lsn::text AS read_at,
       ARRAY(SELECT l.relation FROM pg_locks l
             WHERE r.lsn IS NOT NULL AND l.locktype = 'relation' AND l.mode = 'AccessExclusiveLock' AND l.granted
               AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())
               AND l.pid IS DISTINCT FROM pg_backend_pid()) AS locked
FROM (SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn()
                  ELSE pg_current_wal_insert_lsn() END AS lsn OFFSET 0) r";

/// See [`POSITION`].
#[derive(Debug)]
pub(crate) struct ReadAt {
    position: Lsn,
    locked: Vec<u32>,
}

impl ReadAt {
    /// Everything that was visible before the call committed below that.
    pub(crate) async fn position(sql: &Sql, doing: &str) -> Result<Lsn, SourceError> {
        Ok(Self::now(sql, doing).await?.position)
    }

    pub(crate) async fn now(sql: &Sql, doing: &str) -> Result<Self, SourceError> {
        let row = sql.row(doing, POSITION, &[]).await?;
        let position = lsn(column(&row, "read_at", doing)?, doing)?.unwrap_or_default();
        Ok(Self { position, locked: column(&row, "locked", doing)? })
    }

    /// [`TableCatalog::read_at`] of a table.
    pub(crate) fn of(&self, oid: u32) -> Lsn {
        if self.locked.contains(&oid) { Lsn::ZERO } else { self.position }
    }
}

/// `tree`: the published tables and what they consist of. `joined_by` adds up the transactions that made a table a part
/// of its parents. `born`: made as a part, by `CREATE TABLE … PARTITION OF`, rather than attached: the rows of
/// `pg_inherits` and of a system attribute, which nothing ever changes, are of one transaction, and two steps of it
/// apart. A table that is made, filled and attached in one takes three at least.
pub(crate) const TREE: &str = "
, tree AS (
    SELECT p.oid AS root, p.oid, c.relkind, 0::int8 AS joined_by, true AS born
    FROM published p JOIN pg_class c ON c.oid = p.oid
  UNION ALL
    SELECT t.root, c.oid, c.relkind, t.joined_by + i.xmin::text::int8,
           t.born AND i.xmin = s.xmin AND i.cmin::text::int8 - s.cmin::text::int8 <= 2
    FROM tree t
    JOIN pg_inherits i ON i.inhparent = t.oid AND NOT i.inhdetachpending
    JOIN pg_class c ON c.oid = i.inhrelid
    JOIN pg_attribute s ON s.attrelid = c.oid AND s.attnum = -6
    WHERE t.relkind = 'p'
)";

/// `memberships(oid, of)` around a `published(oid, columns, generated)`: by what a table is in the publication, as rows of
/// `pg_publication_rel` and `pg_publication_namespace`. Whoever takes it out and puts it back, or changes its filter or its
/// list of columns, makes a row anew; under `FOR ALL TABLES` there are none.
pub(crate) fn memberships(server_version_num: u32) -> &'static str {
    if server_version_num < COLUMN_LISTS_SINCE {
        return ", memberships AS (SELECT NULL::oid AS oid, NULL::oid AS of WHERE false)";
    }
    ", memberships AS (
        SELECT p.oid, m.oid AS of
        FROM published p
        JOIN pg_publication_rel m ON m.prrelid = p.oid
            OR m.prrelid IN (SELECT a.relid FROM pg_partition_ancestors(p.oid) a)
        JOIN pg_publication b ON b.oid = m.prpubid AND b.pubname = $1
      UNION
        SELECT p.oid, m.oid
        FROM published p JOIN pg_class c ON c.oid = p.oid
        JOIN pg_publication_namespace m ON m.pnnspid = c.relnamespace
        JOIN pg_publication b ON b.oid = m.pnpubid AND b.pubname = $1)"
}

/// Around [`TREE`], `memberships` and [`LOCKED`]. Asks for the size of none that was made as a partition: it takes a lock.
/// NULL where somebody has it.
const LEAVES: &str = "
SELECT p.oid AS root, r.relkind = 'p' AS is_partitioned, t.oid, c.relfilenode AS file_node, t.joined_by,
       ARRAY(SELECT m.of FROM memberships m WHERE m.oid = p.oid ORDER BY m.of) AS memberships,
       CASE WHEN t.born THEN true
            WHEN c.oid NOT IN (SELECT l.oid FROM locked l) THEN coalesce(pg_relation_size(c.oid), 0) = 0 END AS came_empty
FROM published p
JOIN pg_class r ON r.oid = p.oid
LEFT JOIN tree t ON t.root = p.oid AND t.relkind = 'r'
LEFT JOIN pg_class c ON c.oid = t.oid
ORDER BY p.oid, t.oid";

/// The tables a publication publishes, as it publishes them: partition roots under
/// `publish_via_partition_root`, the columns of column lists.
pub(crate) async fn published(
    sql: &Sql,
    publication: &str,
    server_version_num: u32,
) -> Result<Vec<TableCatalog>, SourceError> {
    let doing = doing(publication);
    let parameters: &[Parameter<'_>] = &[(&publication, Type::TEXT)];
    let mut tables = tables(sql, &doing, &published_query(server_version_num), parameters).await?;
    let rows = sql.rows(&doing, &leaves_query(server_version_num), parameters).await?;
    add_leaves(&mut tables, &rows, &doing)?;
    let rows = sql.rows(&doing, &types_query(server_version_num), parameters).await?;
    value_types::add(&mut tables, &rows, &doing)?;
    Ok(tables)
}

/// The same inside a transaction, and so as its snapshot has the catalog; the functions among it look at the
/// catalog as it is. [`TableCatalog::read_at`] is for the caller to set.
pub(crate) async fn published_in(
    transaction: &Client,
    publication: &str,
    server_version_num: u32,
) -> Result<Vec<TableCatalog>, SourceError> {
    let doing = doing(publication);
    let failed = |error| SourceError::of_sql(&doing, &error);
    let query = published_query(server_version_num);
    let rows = transaction.query_typed(&query, &[(&publication, Type::TEXT)]).await.map_err(failed)?;
    let mut tables = assemble(&rows, &doing, |_| Lsn::ZERO)?;
    let query = leaves_query(server_version_num);
    let rows = transaction.query_typed(&query, &[(&publication, Type::TEXT)]).await.map_err(failed)?;
    add_leaves(&mut tables, &rows, &doing)?;
    let query = types_query(server_version_num);
    let rows = transaction.query_typed(&query, &[(&publication, Type::TEXT)]).await.map_err(failed)?;
    value_types::add(&mut tables, &rows, &doing)?;
    Ok(tables)
}

fn doing(publication: &str) -> String {
    format!("reading the tables of publication {publication}")
}

/// With the publication as parameter.
fn published_query(server_version_num: u32) -> String {
    format!("WITH RECURSIVE {}{LOCKED}{COLUMNS}", published_tables(server_version_num))
}

/// With the publication as parameter.
fn leaves_query(server_version_num: u32) -> String {
    let published = published_tables(server_version_num);
    format!("WITH RECURSIVE {published}{TREE}{}{LOCKED}{LEAVES}", memberships(server_version_num))
}

/// With the publication as parameter.
fn types_query(server_version_num: u32) -> String {
    let published = published_tables(server_version_num);
    format!("WITH RECURSIVE {published}{}{}", value_types(), value_types::NUMBERS)
}

/// `published(oid, columns, generated, qual)` of the publication that is the first parameter: what the view
/// `pg_publication_tables` tells of it. The view opens each of the tables, and so waits for everybody who has one locked.
///
/// - Without `publish_via_partition_root` a partitioned table stands for its leaves, of whatever sort and schema; with it,
///   a table below another that is published is part of that one.
/// - Lists of columns and filters are those of the table itself, and hold for none that is published with its schema.
///
/// Materialized: the names of a table's columns are put together by a subquery, which would be run for each of the columns.
///
/// Source: `pg_get_publication_tables` of
/// <https://github.com/postgres/postgres/blob/REL_18_STABLE/src/backend/catalog/pg_publication.c>. Version 14 lists what
/// lies below a published table as well, and streams it as that table's all the same.
pub(crate) fn published_tables(server_version_num: u32) -> String {
    if server_version_num >= UNKNOWN_SINCE {
        return published_by_view();
    }
    let publishable =
        format!("c.relkind IN ('r', 'p') AND c.relpersistence = 'p' AND c.oid >= {FIRST_USER_OID}");
    let has_lists = server_version_num >= COLUMN_LISTS_SINCE;
    let generated = server_version_num >= GENERATED_COLUMNS_SINCE;
    let by_schema = if has_lists {
        format!(
            "UNION
                SELECT c.oid, c.relkind FROM publication b JOIN pg_publication_namespace m ON m.pnpubid = b.oid
                JOIN pg_class c ON c.relnamespace = m.pnnspid
                WHERE NOT b.puballtables AND {publishable}"
        )
    } else {
        String::new()
    };
    let sent = if generated {
        "a.attgenerated = '' OR a.attgenerated = 's' AND b.pubgencols = 's'"
    } else {
        "a.attgenerated = ''"
    };
    let (columns, qual, lists) = if has_lists {
        (
            format!(
                "ARRAY(SELECT a.attname FROM pg_attribute a
                  WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
                    AND CASE WHEN m.prattrs IS NULL THEN {sent} ELSE a.attnum = ANY (m.prattrs) END
                  ORDER BY a.attnum)"
            ),
            "m.prqual",
            "LEFT JOIN pg_publication_rel m ON m.prrelid = c.oid AND m.prpubid = b.oid AND NOT b.puballtables
                AND NOT EXISTS (SELECT FROM pg_publication_namespace n
                                WHERE n.pnpubid = b.oid AND n.pnnspid = c.relnamespace)",
        )
    } else {
        ("NULL::name[]".to_owned(), "NULL::pg_node_tree", "")
    };
    format!(
        "publication AS MATERIALIZED (
            SELECT b.* FROM pg_publication b WHERE b.pubname = $1
        ), member AS (
            SELECT c.oid, c.relkind FROM publication b JOIN pg_class c ON {publishable}
            WHERE b.puballtables AND CASE WHEN b.pubviaroot THEN NOT c.relispartition ELSE c.relkind = 'r' END
          UNION
            SELECT c.oid, c.relkind FROM publication b JOIN pg_publication_rel m ON m.prpubid = b.oid
            JOIN pg_class c ON c.oid = m.prrelid
            WHERE NOT b.puballtables
          {by_schema}
        ), part AS (
            SELECT m.oid, m.relkind, false AS is_below FROM member m
          UNION
            SELECT c.oid, c.relkind, true
            FROM part t JOIN pg_inherits i ON i.inhparent = t.oid AND NOT i.inhdetachpending
            JOIN pg_class c ON c.oid = i.inhrelid
            WHERE t.relkind = 'p'
        ), published AS MATERIALIZED (
            SELECT c.oid, {columns} AS columns, {generated} AS generated, {qual} AS qual
            FROM (SELECT t.oid, bool_or(t.is_below) AS is_below FROM part t GROUP BY t.oid) t
            JOIN pg_class c ON c.oid = t.oid
            JOIN publication b ON CASE WHEN b.pubviaroot THEN NOT t.is_below ELSE c.relkind <> 'p' END
            {lists}
        )"
    )
}

fn published_by_view() -> String {
    "published AS MATERIALIZED (
        SELECT c.oid, t.attnames AS columns, true AS generated,
               (SELECT m.prqual FROM pg_publication_rel m JOIN pg_publication b ON b.oid = m.prpubid
                WHERE b.pubname = $1 AND m.prrelid = c.oid AND t.rowfilter IS NOT NULL) AS qual
        FROM pg_publication_tables t
        JOIN pg_namespace n ON n.nspname = t.schemaname
        JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = t.tablename
        WHERE t.pubname = $1)"
        .to_owned()
}

/// Tables by oid; those that do not exist are left out. With all their columns, generated ones too: a
/// Relation message tells which were sent.
pub(crate) async fn by_oid(sql: &Sql, oids: &[u32]) -> Result<Vec<TableCatalog>, SourceError> {
    let query = format!(
        "WITH RECURSIVE published AS (
            SELECT o.oid, NULL::name[] AS columns, true AS generated
            FROM unnest($1::oid[]) AS o(oid)){LOCKED}{COLUMNS}"
    );
    tables(sql, "reading the tables of the stream", &query, &[(&oids, Type::OID_ARRAY)]).await
}

/// Every table that a publication could have: permanent, of a user's schema, partitioned tables by their
/// root.
pub(crate) async fn candidates(sql: &Sql) -> Result<Vec<TableCatalog>, SourceError> {
    let query = format!(
        "WITH RECURSIVE published AS (
            SELECT c.oid, NULL::name[] AS columns, false AS generated
            FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
            WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.relpersistence = 'p'
              AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'){LOCKED}{COLUMNS}"
    );
    tables(sql, "reading the tables of the database", &query, &[]).await
}

async fn tables(
    sql: &Sql,
    doing: &str,
    query: &str,
    parameters: &[Parameter<'_>],
) -> Result<Vec<TableCatalog>, SourceError> {
    let read_at = ReadAt::now(sql, doing).await?;
    assemble(&sql.rows(doing, query, parameters).await?, doing, |oid| read_at.of(oid))
}

fn assemble(
    rows: &[Row],
    doing: &str,
    read_at: impl Fn(u32) -> Lsn,
) -> Result<Vec<TableCatalog>, SourceError> {
    let mut tables: Vec<TableCatalog> = Vec::new();
    for row in rows {
        let oid = column(row, "table_oid", doing)?;
        if tables.last().is_none_or(|table| table.oid != oid) {
            tables.push(TableCatalog {
                oid,
                schema: column(row, "schema_name", doing)?,
                name: column(row, "table_name", doing)?,
                replica_identity: match column::<&str>(row, "identity", doing)? {
                    "n" => ReplicaIdentity::Nothing,
                    "f" => ReplicaIdentity::Full,
                    "i" => ReplicaIdentity::Index,
                    _ => ReplicaIdentity::Default,
                },
                columns: Vec::new(),
                primary_key: Vec::new(),
                identity_index: Vec::new(),
                read_at: read_at(oid),
                dropped: Vec::new(),
                nondeterministic: Vec::new(),
                storage: Storage::default(),
                generated: Vec::new(),
                generated_key: Vec::new(),
            });
        }
        // A table may have no columns.
        if let (Some(table), Some(attnum)) = (tables.last_mut(), column::<Option<i16>>(row, "attnum", doing)?)
        {
            let is_dropped: bool = column(row, "is_dropped", doing)?;
            let mark = match table.replica_identity {
                ReplicaIdentity::Default | ReplicaIdentity::Full => "in_primary_key",
                ReplicaIdentity::Index => "in_identity_index",
                ReplicaIdentity::Nothing => "is_dropped",
            };
            if !is_dropped && column::<bool>(row, "is_generated", doing)? && column::<bool>(row, mark, doing)?
            {
                table.generated_key.push(attnum);
            }
            let is_computed = !is_dropped && !column::<bool>(row, "is_sent", doing)?;
            if is_dropped || is_computed {
                table.storage.unsent.push(attnum);
            }
            if is_computed {
                table.generated.push(generated_column(row, attnum, doing)?);
                continue;
            }
            // A transaction id has 32 bits.
            let written_by = column::<i64>(row, "written_by", doing)?.unsigned_abs() as u32;
            table.storage.attributes.push((attnum, written_by));
            if is_dropped {
                table.dropped.push(attnum);
            } else {
                add_column(table, row, attnum, doing)?;
            }
        }
    }
    Ok(tables)
}

fn add_leaves(tables: &mut [TableCatalog], rows: &[Row], doing: &str) -> Result<(), SourceError> {
    for row in rows {
        let root: u32 = column(row, "root", doing)?;
        // One that was published between the two queries comes with the next call.
        let Some(table) = tables.iter_mut().find(|table| table.oid == root) else { continue };
        table.storage.is_partitioned = column(row, "is_partitioned", doing)?;
        table.storage.memberships = Some(column(row, "memberships", doing)?);
        if let Some(oid) = column(row, "oid", doing)? {
            let came_empty: Option<bool> = column(row, "came_empty", doing)?;
            if came_empty.is_none() {
                // Whether rows came with it is for another look.
                table.read_at = Lsn::ZERO;
            }
            table.storage.leaves.push(Leaf {
                oid,
                file_node: column(row, "file_node", doing)?,
                joined_by: column::<i64>(row, "joined_by", doing)?.unsigned_abs(),
                came_empty: came_empty.unwrap_or(false),
            });
        }
    }
    Ok(())
}

fn generated_column(row: &Row, attnum: i16, doing: &str) -> Result<GeneratedColumn, SourceError> {
    Ok(GeneratedColumn {
        column: described(row, attnum, doing)?,
        expression: column::<Option<String>>(row, "generation_expression", doing)?.unwrap_or_default(),
        is_virtual: column(row, "is_virtual", doing)?,
    })
}

fn add_column(table: &mut TableCatalog, row: &Row, attnum: i16, doing: &str) -> Result<(), SourceError> {
    let name: String = column(row, "column_name", doing)?;
    let marks = [
        ("in_primary_key", &mut table.primary_key),
        ("in_identity_index", &mut table.identity_index),
        ("nondeterministic", &mut table.nondeterministic),
    ];
    for (mark, names) in marks {
        if column(row, mark, doing)? {
            names.push(name.clone());
        }
    }
    table.columns.push(described(row, attnum, doing)?);
    Ok(())
}

fn described(row: &Row, attnum: i16, doing: &str) -> Result<Column, SourceError> {
    Ok(Column {
        name: column(row, "column_name", doing)?,
        attnum,
        type_oid: column(row, "type_oid", doing)?,
        base_type_oid: column::<Option<u32>>(row, "base_oid", doing)?.unwrap_or_default(),
        type_modifier: column(row, "base_modifier", doing)?,
        kind: kind(row, doing)?,
        type_sql: column::<Option<String>>(row, "type_sql", doing)?.unwrap_or_default(),
        not_null: column(row, "not_null", doing)?,
        is_key: false,
        has_default: column(row, "has_default", doing)?,
        default_sql: column::<Option<&str>>(row, "default_expression", doing)?
            .filter(|expression| is_literal(expression))
            .map(str::to_owned),
        missing_text: column(row, "missing_text", doing)?,
    })
}

fn kind(row: &Row, doing: &str) -> Result<ColumnKind, SourceError> {
    let text = |name| column::<Option<&str>>(row, name, doing);
    let oid = |name| column::<Option<u32>>(row, name, doing);
    let sort = |sort: Option<&str>, oid: u32, category: Option<&str>| match sort {
        Some("e") => Some(ColumnKind::Enum),
        Some("b") if oid < FIRST_USER_OID && category != Some("A") => Some(ColumnKind::Scalar),
        _ => None,
    };
    if let Some(element_oid) = oid("element_oid")? {
        let element = sort(text("element_sort")?, element_oid, text("element_category")?);
        // `box` alone separates elements by a semicolon.
        return Ok(match element.filter(|_| text("element_delimiter").ok().flatten() == Some(",")) {
            Some(element) => ColumnKind::Array {
                element_oid,
                element_modifier: column(row, "element_modifier", doing)?,
                element_is_enum: element == ColumnKind::Enum,
            },
            None => ColumnKind::Other,
        });
    }
    let base_oid = oid("base_oid")?.unwrap_or_default();
    Ok(sort(text("base_sort")?, base_oid, None).unwrap_or(ColumnKind::Other))
}
