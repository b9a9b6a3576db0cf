//! The publication: found, or made for the configured tables.
//!
//! A publication that exists is taken as it is and never altered: somebody made it that way.
//!
//! Sources: <https://www.postgresql.org/docs/current/sql-createpublication.html>,
//! <https://www.postgresql.org/docs/current/logical-replication-publication.html>.

use crate::SourceError;
use crate::catalog::{self, TREE};
use crate::command::{quote_identifier, quote_literal};
use crate::server::Server;
use crate::sql::{Sql, column};
use replicator_config::TablePatterns;
use replicator_types::{ReplicaIdentity, TableCatalog};
use tokio_postgres::types::Type;

/// From this version on a publication can name schemas.
const SCHEMAS_SINCE: u32 = 150_000;

/// A publication that exists.
#[derive(Clone, Debug)]
pub(crate) struct Publication {
    /// FOR ALL TABLES, or IN SCHEMA: tables made later belong to it.
    pub(crate) is_open: bool,
    pub(crate) publishes_updates_or_deletes: bool,
    /// Operations it leaves out.
    pub(crate) left_out: Vec<&'static str>,
}

impl Publication {
    pub(crate) async fn find(sql: &Sql, name: &str) -> Result<Option<Self>, SourceError> {
        let doing = format!("looking for publication {name}");
        let query = "SELECT oid, puballtables, pubinsert, pubupdate, pubdelete, pubtruncate
                     FROM pg_publication WHERE pubname = $1";
        let Some(row) = sql.rows(&doing, query, &[(&name, Type::TEXT)]).await?.into_iter().next() else {
            return Ok(None);
        };
        let publishes = |operation| column::<bool>(&row, operation, &doing);
        let mut is_open = publishes("puballtables")?;
        if !is_open {
            let oid: u32 = column(&row, "oid", &doing)?;
            is_open = Self::names_schemas(sql, oid, &doing).await?;
        }
        let operations = [
            ("pubinsert", "inserts"),
            ("pubupdate", "updates"),
            ("pubdelete", "deletes"),
            ("pubtruncate", "truncates"),
        ];
        let mut left_out = Vec::new();
        for (operation, words) in operations {
            if !publishes(operation)? {
                left_out.push(words);
            }
        }
        let publishes_updates_or_deletes = publishes("pubupdate")? || publishes("pubdelete")?;
        Ok(Some(Self { is_open, publishes_updates_or_deletes, left_out }))
    }

    async fn names_schemas(sql: &Sql, oid: u32, doing: &str) -> Result<bool, SourceError> {
        let there = "SELECT to_regclass('pg_catalog.pg_publication_namespace') IS NOT NULL AS there";
        if !column::<bool>(&sql.row(doing, there, &[]).await?, "there", doing)? {
            return Ok(false);
        }
        let query = "SELECT EXISTS (SELECT FROM pg_publication_namespace WHERE pnpubid = $1) AS found";
        column(&sql.row(doing, query, &[(&oid, Type::OID)]).await?, "found", doing)
    }

    /// Says what is wrong with the tables it publishes, or what there is to know.
    pub(crate) fn verify(&self, name: &str, tables: &[TableCatalog]) -> Result<String, SourceError> {
        let mut found = match tables.len() {
            0 if self.is_open => "warning: it has no table yet; tables made later will be carried".to_owned(),
            0 => {
                return Err(SourceError::halt(format!(
                    "publication {name} has no tables: `ALTER PUBLICATION {} ADD TABLE …`, or drop it so that it is \
                     made for source.tables",
                    quote_identifier(name)
                )));
            }
            1 => "1 table".to_owned(),
            n => format!("{n} tables"),
        };
        if !self.left_out.is_empty() {
            found = format!("{found}; warning: it leaves out {}", self.left_out.join(", "));
        }
        Ok(found)
    }
}

/// What a publication to be made would hold.
#[derive(Debug)]
pub(crate) struct Plan {
    /// The tables as of now.
    pub(crate) tables: Vec<TableCatalog>,
    target: Target,
    /// Whether the server can send what generated columns hold.
    sends_generated: bool,
}

#[derive(Debug, PartialEq, Eq)]
enum Target {
    AllTables,
    Schemas(Vec<String>),
    Tables,
}

impl Plan {
    pub(crate) async fn of(
        sql: &Sql,
        server: &Server,
        name: &str,
        patterns: &TablePatterns,
    ) -> Result<Self, SourceError> {
        let mut tables = catalog::candidates(sql).await?;
        tables.retain(|table| patterns.matches(&table.schema, &table.name));
        let target = target(server, patterns, &tables);
        if tables.is_empty() && target != Target::AllTables {
            return Err(SourceError::halt(format!(
                "publication {name} can't be made: no table matches source.tables = {:?}; correct it, or create the \
                 tables first",
                patterns.0
            )));
        }
        Ok(Self { tables, target, sends_generated: server.version_num >= catalog::GENERATED_COLUMNS_SINCE })
    }

    /// What it will hold, in words.
    pub(crate) fn described(&self) -> String {
        match &self.target {
            Target::AllTables => format!("for all tables, now {}", self.tables.len()),
            Target::Schemas(schemas) => {
                format!("for all tables of schema {}, now {}", schemas.join(", "), self.tables.len())
            }
            Target::Tables => format!("for {} tables", self.tables.len()),
        }
    }

    fn statement(&self, name: &str) -> String {
        let target = match &self.target {
            Target::AllTables => "ALL TABLES".to_owned(),
            Target::Schemas(schemas) => {
                let schemas: Vec<String> = schemas.iter().map(|schema| quote_identifier(schema)).collect();
                format!("TABLES IN SCHEMA {}", schemas.join(", "))
            }
            Target::Tables => {
                let qualified = |table: &TableCatalog| {
                    format!("{}.{}", quote_identifier(&table.schema), quote_identifier(&table.name))
                };
                format!("TABLE {}", self.tables.iter().map(qualified).collect::<Vec<_>>().join(", "))
            }
        };
        // Partitions come and go; what has a name in the sinks is the partitioned table.
        let generated = if self.sends_generated { ", publish_generated_columns = stored" } else { "" };
        format!(
            "CREATE PUBLICATION {} FOR {target} WITH (publish_via_partition_root = true{generated})",
            quote_identifier(name)
        )
    }

    /// Whether the role may make it: CREATE on the database, and each of the tables its own.
    pub(crate) async fn verify_rights(&self, sql: &Sql, name: &str) -> Result<(), SourceError> {
        let doing = format!("looking whether publication {name} may be made");
        let query = "SELECT current_user::text AS role,
                            has_database_privilege(current_database(), 'CREATE') AS database,
                            (SELECT string_agg(c.oid::regclass::text, ', ' ORDER BY c.oid) FROM pg_class c
                             WHERE c.oid = ANY ($1) AND NOT pg_has_role(c.relowner, 'USAGE')) AS tables";
        let oids: Vec<u32> = self.tables.iter().map(|table| table.oid).collect();
        let row = sql.row(&doing, query, &[(&oids, Type::OID_ARRAY)]).await?;
        let (role, database): (String, bool) =
            (column(&row, "role", &doing)?, column(&row, "database", &doing)?);
        let tables: Option<String> = column(&row, "tables", &doing)?;
        if database && tables.is_none() {
            return Ok(());
        }
        let statement = self.statement(name);
        let lacks = match tables {
            Some(tables) => format!("is not the owner of {tables}"),
            None => "has no CREATE on the database".to_owned(),
        };
        Err(SourceError::halt(format!(
            "making publication {name}: role {role} {lacks}; have the tables' owner, who needs CREATE on the database (or \
             a superuser), run: {statement}"
        )))
    }

    pub(crate) async fn create(&self, sql: &Sql, name: &str) -> Result<(), SourceError> {
        let client = sql.client().await?;
        let statement = self.statement(name);
        let outcome = client.batch_execute(&statement).await;
        let Err(error) = outcome else { return Ok(()) };
        let code = error.code().map(tokio_postgres::error::SqlState::code).unwrap_or_default();
        let mut shown: String = statement.chars().take(300).collect();
        if shown.len() < statement.len() {
            shown.push('…');
        }
        let text = SourceError::of_sql(&format!("making publication {name}"), &error);
        match code {
            // Somebody else made it meanwhile; it is read next.
            "42710" => Ok(()),
            "42501" => Err(SourceError::halt(format!(
                "{text}; have the tables' owner, who needs CREATE on the database (or a superuser), run: {shown}"
            ))),
            "55P03" | "57014" => Err(SourceError::retry(format!(
                "{text}; a transaction holds a lock on one of the tables: `SELECT pid, query FROM pg_stat_activity WHERE \
                 state <> 'idle' ORDER BY xact_start` shows the oldest"
            ))),
            _ => Err(text),
        }
    }
}

/// Tables made later are only part of FOR ALL TABLES and IN SCHEMA, which only a superuser may ask for.
fn target(server: &Server, patterns: &TablePatterns, tables: &[TableCatalog]) -> Target {
    if !server.is_superuser {
        return Target::Tables;
    }
    if patterns.is_everything() {
        return Target::AllTables;
    }
    let whole_schema = |pattern: &String| {
        let schema = pattern.strip_suffix(".*")?;
        let plain = !schema.is_empty() && !schema.contains(['*', '?', '.']);
        // One that does not exist, or has no table yet, would fail the statement or hide a misspelling.
        (plain && tables.iter().any(|table| table.schema == schema)).then(|| schema.to_owned())
    };
    let schemas: Option<Vec<String>> = patterns.0.iter().map(whole_schema).collect();
    match schemas {
        Some(mut schemas) if server.version_num >= SCHEMAS_SINCE => {
            schemas.sort_unstable();
            schemas.dedup();
            Target::Schemas(schemas)
        }
        _ => Target::Tables,
    }
}

/// What is wrong, or to be known, of one table's replica identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum IdentityFinding {
    /// Updates and deletes can't be carried.
    Wrong(String),
    /// Inserts are carried, and the source itself refuses the rest.
    InsertOnly(String),
}

/// Looks at each table of a publication that publishes updates or deletes.
///
/// Source: <https://www.postgresql.org/docs/current/logical-replication-publication.html#LOGICAL-REPLICATION-PUBLICATION-REPLICA-IDENTITY>.
pub(crate) fn identity_findings(tables: &[TableCatalog]) -> Vec<IdentityFinding> {
    tables.iter().filter_map(identity_finding).collect()
}

fn identity_finding(table: &TableCatalog) -> Option<IdentityFinding> {
    let name = format!("{}.{}", table.schema, table.name);
    let alter = format!("ALTER TABLE {}.{}", quote_identifier(&table.schema), quote_identifier(&table.name));
    match table.replica_identity {
        ReplicaIdentity::Nothing => Some(IdentityFinding::Wrong(format!(
            "table {name} has REPLICA IDENTITY NOTHING, so updates and deletes can't be carried: run `{alter} REPLICA \
             IDENTITY DEFAULT` (with a primary key) or `… REPLICA IDENTITY FULL`, or leave the table out of the \
             publication"
        ))),
        ReplicaIdentity::Index if table.identity_index.is_empty() => Some(IdentityFinding::Wrong(format!(
            "table {name} has a replica identity index that is gone, so updates and deletes can't be carried: run \
             `{alter} REPLICA IDENTITY DEFAULT` or `… USING INDEX …`"
        ))),
        ReplicaIdentity::Default | ReplicaIdentity::Index
            if table.relation().key.is_empty() && !table.generated_key.is_empty() =>
        {
            Some(IdentityFinding::InsertOnly(format!(
                "table {name} is told apart by a generated column that the source does not send: inserts are carried, and an \
                 update or delete has the table set aside in sinks that hold its rows; run `{alter} REPLICA IDENTITY FULL`"
            )))
        }
        ReplicaIdentity::Default if table.primary_key.is_empty() => {
            Some(IdentityFinding::InsertOnly(format!(
                "table {name} has no primary key: inserts are carried, and the source itself refuses updates and deletes \
             while the table is published; add a primary key, or run `{alter} REPLICA IDENTITY FULL`"
            )))
        }
        ReplicaIdentity::Default | ReplicaIdentity::Full | ReplicaIdentity::Index => None,
    }
}

/// Partitions whose replica identity is not their root's, which is the one that the stream tells.
pub(crate) async fn partitions_of_other_identity(
    sql: &Sql,
    name: &str,
    server_version_num: u32,
) -> Result<Vec<String>, SourceError> {
    let doing = format!("looking at the partitions of publication {name}");
    let published = catalog::published_tables(server_version_num);
    let query = format!(
        "WITH RECURSIVE {published}{TREE}
        SELECT format('%I.%I', n.nspname, l.relname) AS leaf, format('%I.%I', s.nspname, c.relname) AS root
        FROM tree t
        JOIN pg_class c ON c.oid = t.root JOIN pg_namespace s ON s.oid = c.relnamespace
        JOIN pg_class l ON l.oid = t.oid JOIN pg_namespace n ON n.oid = l.relnamespace
        CROSS JOIN LATERAL (
            SELECT array_agg(a.attname::text ORDER BY a.attname) FILTER (WHERE i.indrelid = l.oid)
                   IS DISTINCT FROM array_agg(a.attname::text ORDER BY a.attname) FILTER (WHERE i.indrelid = c.oid) AS differ
            FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid
                AND a.attnum = ANY ((i.indkey::int2[])[0:i.indnkeyatts - 1])
            WHERE i.indrelid IN (l.oid, c.oid)
              AND CASE l.relreplident WHEN 'i' THEN i.indisreplident WHEN 'd' THEN i.indisprimary END) columns
        WHERE t.oid <> t.root AND l.relkind <> 'p' AND (l.relreplident <> c.relreplident OR columns.differ)
        ORDER BY 1 LIMIT 100"
    );
    let rows = sql.rows(&doing, &query, &[(&name, Type::TEXT)]).await?;
    rows.iter()
        .map(|row| {
            let leaf: &str = column(row, "leaf", &doing)?;
            let root: &str = column(row, "root", &doing)?;
            Ok(format!(
                "partition {leaf} has another replica identity than {root}, by which its changes are told apart: give \
                 both the same (ALTER TABLE … REPLICA IDENTITY …)"
            ))
        })
        .collect()
}

/// Partitioned tables whose partitions are published each on its own.
pub(crate) async fn apart_from_their_roots(
    sql: &Sql,
    name: &str,
    server_version_num: u32,
) -> Result<Vec<String>, SourceError> {
    let doing = format!("looking at the partitions of publication {name}");
    let published = catalog::published_tables(server_version_num);
    let query = format!(
        "WITH RECURSIVE {published}
        SELECT format('%I.%I', n.nspname, r.relname) AS root, count(*) AS partitions, quote_ident($1) AS publication
        FROM published p
        JOIN pg_class c ON c.oid = p.oid AND c.relispartition
        JOIN pg_class r ON r.oid = pg_partition_root(c.oid) JOIN pg_namespace n ON n.oid = r.relnamespace
        GROUP BY 1 ORDER BY 1 LIMIT 100"
    );
    let rows = sql.rows(&doing, &query, &[(&name, Type::TEXT)]).await?;
    rows.iter()
        .map(|row| {
            let (root, partitions): (&str, i64) =
                (column(row, "root", &doing)?, column(row, "partitions", &doing)?);
            let publication: &str = column(row, "publication", &doing)?;
            Ok(format!(
                "each of the {partitions} partitions of {root} is a table of its own in the sinks; for one table run `ALTER \
                 PUBLICATION {publication} SET (publish_via_partition_root = true)` before the first copy"
            ))
        })
        .collect()
}

/// Tables and partitions that the role can't copy. The stream needs no right to read them, `COPY` does.
pub(crate) async fn unreadable(sql: &Sql, tables: &[TableCatalog]) -> Result<Vec<String>, SourceError> {
    let doing = "looking whether the tables can be read";
    let oids: Vec<u32> = tables.iter().map(|table| table.oid).collect();
    let query = format!(
        "WITH RECURSIVE published AS (SELECT o.oid FROM unnest($1::oid[]) AS o(oid)){TREE}
        SELECT current_user::text AS role, format('%I.%I', n.nspname, c.relname) AS name, quote_ident(n.nspname) AS schema
        FROM (SELECT DISTINCT t.oid FROM tree t WHERE t.relkind <> 'p') x
        JOIN pg_class c ON c.oid = x.oid JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE NOT (has_schema_privilege(n.oid, 'USAGE')
                   AND (has_table_privilege(c.oid, 'SELECT') OR has_any_column_privilege(c.oid, 'SELECT')))
        ORDER BY 2 LIMIT 100"
    );
    let rows = sql.rows(doing, &query, &[(&oids, Type::OID_ARRAY)]).await?;
    rows.iter()
        .map(|row| {
            let (role, name): (&str, &str) = (column(row, "role", doing)?, column(row, "name", doing)?);
            let schema: &str = column(row, "schema", doing)?;
            let role = quote_identifier(role);
            Ok(format!(
                "{name} can't be copied: role {role} may not read it; run `GRANT USAGE ON SCHEMA {schema} TO {role}; GRANT \
                 SELECT ON {name} TO {role}`, or set source.snapshot = \"never\""
            ))
        })
        .collect()
}

/// The remedy for a publication that is not there and must not be made.
pub(crate) fn absent(name: &str, patterns: &TablePatterns) -> SourceError {
    let what = if patterns.is_everything() { "ALL TABLES" } else { "TABLE …" };
    SourceError::halt(format!(
        "publication {name} does not exist, and source.create is false: run `CREATE PUBLICATION {} FOR {what}` (before \
         the slot is made), or set source.create = true",
        quote_identifier(name)
    ))
}

/// The remedy for a slot that is not there and must not be made.
pub(crate) fn absent_slot(slot: &str) -> SourceError {
    SourceError::halt(format!(
        "slot {slot} does not exist, and source.create is false: run `SELECT pg_create_logical_replication_slot({}, \
         'pgoutput')` after the publication is made, or set source.create = true",
        quote_literal(slot)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(schema: &str, name: &str) -> TableCatalog {
        TableCatalog {
            oid: 1,
            schema: schema.into(),
            name: name.into(),
            replica_identity: ReplicaIdentity::Default,
            columns: Vec::new(),
            primary_key: vec!["id".into()],
            identity_index: Vec::new(),
            read_at: replicator_types::Lsn::ZERO,
            dropped: Vec::new(),
            nondeterministic: Vec::new(),
            storage: replicator_types::Storage::default(),
            generated: Vec::new(),
            generated_key: Vec::new(),
        }
    }

    fn server(version_num: u32, is_superuser: bool) -> Server {
        Server {
            version: String::new(),
            version_num,
            wal_level: "logical".into(),
            in_recovery: false,
            is_superuser,
            slots_max: 1,
            slots_used: 0,
            wal_senders_max: 1,
            wal_senders_used: 0,
            wal_sender_timeout_ms: 60_000,
        }
    }

    fn target_of(patterns: &[&str], version_num: u32, is_superuser: bool) -> Target {
        let patterns = TablePatterns(patterns.iter().map(|&pattern| pattern.into()).collect());
        let tables = [table("public", "a"), table("shop", "b")];
        target(&server(version_num, is_superuser), &patterns, &tables)
    }

    #[test]
    fn the_widest_target_that_the_server_and_the_role_allow_is_taken() {
        assert_eq!(target_of(&[], 150_000, true), Target::AllTables);
        assert_eq!(target_of(&["public.*"], 150_000, true), Target::Schemas(vec!["public".into()]));
        assert_eq!(
            target_of(&["shop.*", "public.*"], 150_000, true),
            Target::Schemas(vec!["public".into(), "shop".into()])
        );
        assert_eq!(target_of(&["public.*"], 140_000, true), Target::Tables);
        assert_eq!(target_of(&["public.*"], 150_000, false), Target::Tables);
        assert_eq!(target_of(&[], 150_000, false), Target::Tables);
        assert_eq!(target_of(&["public.*", "shop.b"], 150_000, true), Target::Tables);
        assert_eq!(target_of(&["gone.*"], 150_000, true), Target::Tables);
    }

    #[test]
    fn names_are_quoted_in_the_statement() {
        let statement = |sends_generated| {
            let tables = vec![table("Shop", "a\"b")];
            Plan { tables, target: Target::Tables, sends_generated }.statement("p")
        };
        let until_with =
            "CREATE PUBLICATION \"p\" FOR TABLE \"Shop\".\"a\"\"b\" WITH (publish_via_partition_root = true";
        assert_eq!(statement(false), format!("{until_with})"));
        assert_eq!(statement(true), format!("{until_with}, publish_generated_columns = stored)"));
    }

    #[test]
    fn a_table_whose_changes_cannot_be_carried_is_told_from_one_that_only_has_inserts() {
        let mut keyless = table("public", "history");
        keyless.primary_key.clear();
        assert!(
            matches!(identity_finding(&keyless), Some(IdentityFinding::InsertOnly(text)) if text.contains("public.history"))
        );
        keyless.replica_identity = ReplicaIdentity::Full;
        assert_eq!(identity_finding(&keyless), None);
        keyless.replica_identity = ReplicaIdentity::Nothing;
        assert!(matches!(identity_finding(&keyless), Some(IdentityFinding::Wrong(_))));
        keyless.replica_identity = ReplicaIdentity::Index;
        assert!(matches!(identity_finding(&keyless), Some(IdentityFinding::Wrong(_))));
    }
}
