//! The sink's own tables in the target: schema `replicator`.
//!
//! ```text
//!   checkpoint   how far each shard is               (sink, system_identifier, slot, shards, shard)
//!   copied       batches of a copy that are in       (sink, system_identifier, slot, relation_oid, first …)
//!   notes        small texts: how far copies are,    (sink, system_identifier, slot, key)
//!                and under `schema/{oid}` what was
//!                made of each table (see `record`)
//! ```

use crate::create::under_lock;
use crate::error;
use replicator_sink::SinkError;
use replicator_types::SlotIdentity;
use tokio_postgres::Client;
use tokio_postgres::types::ToSql;

/// A table that the sink keeps for itself.
#[derive(Debug)]
pub(crate) struct OwnTable {
    /// Schema and name.
    pub(crate) name: &'static str,
    /// What the sink's role does to it.
    pub(crate) privileges: &'static [&'static str],
    sql: &'static str,
}

/// All of them.
pub(crate) const OWN_TABLES: [OwnTable; 3] = [
    OwnTable {
        name: "replicator.checkpoint",
        privileges: &["SELECT", "INSERT", "UPDATE"],
        sql: "
    CREATE TABLE replicator.checkpoint (
        sink text NOT NULL,
        system_identifier numeric(20) NOT NULL,
        slot text NOT NULL,
        shards integer NOT NULL,
        shard integer NOT NULL,
        commit_lsn pg_catalog.pg_lsn NOT NULL,
        ordinal bigint NOT NULL,
        updated_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
        PRIMARY KEY (sink, system_identifier, slot, shards, shard));
    COMMENT ON TABLE replicator.checkpoint IS
        'All changes of keys in this shard of shards, up to and including this position, are in the tables here.'",
    },
    OwnTable {
        name: "replicator.copied",
        privileges: &["SELECT", "INSERT", "DELETE"],
        sql: "
    CREATE TABLE replicator.copied (
        sink text NOT NULL,
        system_identifier numeric(20) NOT NULL,
        slot text NOT NULL,
        relation_oid pg_catalog.oid NOT NULL,
        first_commit_lsn pg_catalog.pg_lsn NOT NULL,
        first_ordinal bigint NOT NULL,
        PRIMARY KEY (sink, system_identifier, slot, relation_oid, first_commit_lsn, first_ordinal));
    COMMENT ON TABLE replicator.copied IS
        'The batch of this table that begins at this position is in: a second try of it changes nothing.'",
    },
    OwnTable {
        name: "replicator.notes",
        privileges: &["SELECT", "INSERT", "UPDATE", "DELETE"],
        sql: "
    CREATE TABLE replicator.notes (
        sink text NOT NULL,
        system_identifier numeric(20) NOT NULL,
        slot text NOT NULL,
        key text NOT NULL,
        value text NOT NULL,
        updated_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
        PRIMARY KEY (sink, system_identifier, slot, key));
    COMMENT ON TABLE replicator.notes IS
        'How far initial copies are, and what was made of each table of the source.'",
    },
];

impl OwnTable {
    /// Whether it is there.
    pub(crate) async fn exists(&self, client: &Client) -> Result<bool, tokio_postgres::Error> {
        let sql = "SELECT pg_catalog.to_regclass($1) IS NOT NULL";
        Ok(client.query_one(sql, &[&self.name]).await?.get(0))
    }
}

/// Makes those that are absent.
pub(crate) async fn create(client: &Client) -> Result<(), SinkError> {
    for table in &OWN_TABLES {
        let doing = format!("create {} in the target", table.name);
        let failed = |error| error::of_server(&error, &doing);
        if table.exists(client).await.map_err(failed)? {
            continue;
        }
        under_lock(client, &doing, async || {
            if table.exists(client).await.map_err(failed)? {
                return Ok(());
            }
            let has_schema = "SELECT pg_catalog.to_regnamespace('replicator') IS NOT NULL";
            if !client.query_one(has_schema, &[]).await.map_err(failed)?.get::<_, bool>(0) {
                client.batch_execute("CREATE SCHEMA replicator").await.map_err(failed)?;
            }
            client.batch_execute(table.sql).await.map_err(failed)
        })
        .await?;
    }
    Ok(())
}

/// Whose rows of these tables.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct StreamKey {
    sink: String,
    /// As text: it has 20 digits, and no integer type of Postgres has room for all of them.
    system_identifier: String,
    slot: String,
}

/// The rows of a [`StreamKey`]: its [`StreamKey::parameters`] come first.
pub(crate) const OF_STREAM: &str = "sink = $1 AND system_identifier = $2::text::numeric AND slot = $3";

impl StreamKey {
    pub(crate) fn new(sink: &str, identity: &SlotIdentity) -> Self {
        Self {
            sink: sink.to_owned(),
            system_identifier: identity.system_identifier.to_string(),
            slot: identity.slot.clone(),
        }
    }

    pub(crate) fn parameters(&self) -> [&(dyn ToSql + Sync); 3] {
        [&self.sink, &self.system_identifier, &self.slot]
    }
}
