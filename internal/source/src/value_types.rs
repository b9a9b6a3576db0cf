//! The types of users under a table's columns, as far as they say how values are written: `ALTER TYPE` gives rows that are
//! there other texts, of which the stream tells nothing.
//!
//! Source: <https://www.postgresql.org/docs/current/sql-altertype.html>, `RENAME VALUE`, `ADD ATTRIBUTE`, `DROP ATTRIBUTE`.

use crate::SourceError;
use crate::catalog::FIRST_USER_OID;
use crate::sql::column;
use replicator_types::TableCatalog;
use tokio_postgres::Row;

/// `value_types(root, type)` around a `published(oid, columns, generated)`: domains, arrays, ranges and composites are
/// looked through, down to what is built in.
pub(crate) fn value_types() -> String {
    format!(
        "
, value_types AS (
    SELECT p.oid AS root, a.atttypid AS type
    FROM published p
    JOIN pg_attribute a ON a.attrelid = p.oid AND a.attnum > 0 AND NOT a.attisdropped
        AND (p.columns IS NULL OR a.attname = ANY (p.columns))
    WHERE a.atttypid >= {FIRST_USER_OID}
  UNION
    SELECT u.root, under.type
    FROM value_types u
    JOIN pg_type t ON t.oid = u.type
    CROSS JOIN LATERAL (
        SELECT t.typbasetype AS type WHERE t.typtype = 'd'
      UNION ALL
        SELECT t.typelem WHERE t.typelem <> 0
      UNION ALL
        SELECT r.rngsubtype FROM pg_range r WHERE r.rngtypid = t.oid OR r.rngmultitypid = t.oid
      UNION ALL
        SELECT a.atttypid FROM pg_attribute a
        WHERE a.attrelid = t.typrelid AND t.typrelid <> 0 AND a.attnum > 0 AND NOT a.attisdropped
    ) under
    WHERE under.type >= {FIRST_USER_OID}
)"
    )
}

/// Of an enum a number for each label, in the order in which they came; of a composite one for all of its attributes.
pub(crate) const NUMBERS: &str = "
SELECT u.root, u.type,
       CASE WHEN t.typtype = 'e' THEN
           ARRAY(SELECT ('x' || encode(substr(sha256(textsend(e.enumlabel)), 1, 4), 'hex'))::bit(32)::int FROM pg_enum e
                 WHERE e.enumtypid = t.oid ORDER BY e.oid)
       ELSE
           ARRAY[(SELECT ('x' || encode(substr(sha256(textsend(
                      coalesce(string_agg(a.attnum || ' ' || a.atttypid, ',' ORDER BY a.attnum), ''))), 1, 4), 'hex'))::bit(32)::int
                  FROM pg_attribute a WHERE a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped)]
       END AS numbers
FROM value_types u
JOIN pg_type t ON t.oid = u.type
WHERE t.typtype IN ('e', 'c')
ORDER BY u.root, u.type";

/// What changes whenever one of [`NUMBERS`] does: for a sum over the catalog's rows.
pub(crate) const ROWS: &str = "
    SELECT format('e %s %s %s', e.oid, e.xmin, e.ctid)
    FROM (SELECT DISTINCT v.type FROM value_types v) v JOIN pg_enum e ON e.enumtypid = v.type
  UNION ALL
    SELECT format('c %s %s %s %s', a.attrelid, a.attnum, a.xmin, a.ctid)
    FROM (SELECT DISTINCT v.type FROM value_types v) v
    JOIN pg_type t ON t.oid = v.type AND t.typrelid <> 0
    JOIN pg_attribute a ON a.attrelid = t.typrelid AND a.attnum > 0";

/// Adds what the rows of [`NUMBERS`] say to the tables.
pub(crate) fn add(tables: &mut [TableCatalog], rows: &[Row], doing: &str) -> Result<(), SourceError> {
    for row in rows {
        let root: u32 = column(row, "root", doing)?;
        if let Some(table) = tables.iter_mut().find(|table| table.oid == root) {
            table.storage.types.push((column(row, "type", doing)?, column(row, "numbers", doing)?));
        }
    }
    Ok(())
}
