//! What `check` looks at. Nothing is changed.

use super::Source;
use crate::publication::{
    IdentityFinding, Plan, Publication, absent, absent_slot, apart_from_their_roots, identity_findings,
    partitions_of_other_identity, unreadable,
};
use crate::server::Server;
use crate::slot::Slot;
use crate::{SourceError, catalog, negotiation};
use replicator_config::Snapshot;
use replicator_types::{CheckItem, TableCatalog};

impl Source {
    /// Tests everything a run needs, and changes nothing. Ends at the first item without which the rest can't
    /// be tested.
    pub async fn check(&self) -> Vec<CheckItem> {
        let mut items = Vec::new();
        if let Err((what, error)) = self.check_into(&mut items).await {
            items.push(CheckItem::fail(what, error.to_string()));
        }
        items
    }

    async fn check_into(&self, items: &mut Vec<CheckItem>) -> Result<(), (&'static str, SourceError)> {
        let at = |what| move |error| (what, error);
        let server = Server::read(&self.sql).await.map_err(at("source connection"))?;
        items.push(item("source connection", Ok(self.options.to_string())));
        items.push(item("source version", server.verify_version()));
        items.push(item("source wal_level", server.verify_wal_level()));
        if let Err(error) = negotiation::verify_server(&self.config, &server) {
            items.push(CheckItem::fail("source version", error.to_string()));
        }
        match self.connect_replication().await {
            Ok((connection, system)) => {
                connection.close().await;
                let found = format!("cluster {}, {}", system.system_identifier, server.wal_senders());
                items.push(CheckItem::ok("source replication", found));
            }
            Err(error) => items.push(CheckItem::fail("source replication", error.to_string())),
        }
        items.push(item("source slot", self.check_slot(&server).await));
        let (tables, tells_rows_apart) =
            self.check_publication(&server, items).await.map_err(at("source publication"))?;
        if tells_rows_apart {
            self.check_identities(&tables, items);
        }
        if self.config.snapshot != Snapshot::Never {
            let unreadable = unreadable(&self.sql, &tables).await.map_err(at("source tables"))?;
            items.extend(unreadable.into_iter().map(|text| CheckItem::fail("source table", text)));
        }
        let name = &self.config.publication;
        let partitions = partitions_of_other_identity(&self.sql, name, server.version_num)
            .await
            .map_err(at("source tables"))?;
        let apart =
            apart_from_their_roots(&self.sql, name, server.version_num).await.map_err(at("source tables"))?;
        let warnings = partitions.iter().chain(&apart);
        items.extend(warnings.map(|text| CheckItem::ok("source table", format!("warning: {text}"))));
        Ok(())
    }

    async fn check_slot(&self, server: &Server) -> Result<String, SourceError> {
        let name = &self.config.slot;
        match Slot::find(&self.sql, name).await? {
            Some(slot) => {
                slot.verify(name, self.options.database())?;
                slot.verify_free(name)?;
                negotiation::verify_slot_two_phase(&self.config, slot.two_phase)?;
                let at = slot.status.confirmed_flush.unwrap_or_default();
                let failover = if slot.failover { ", kept on standbys (failover)" } else { "" };
                Ok(format!("{name} at {at}, keeps {} bytes of WAL{failover}", slot.status.retained_bytes))
            }
            None if self.config.create => server.verify_room_for_a_slot(name),
            None => Err(absent_slot(name)),
        }
    }

    /// The tables, and whether updates or deletes of them are published.
    async fn check_publication(
        &self,
        server: &Server,
        items: &mut Vec<CheckItem>,
    ) -> Result<(Vec<TableCatalog>, bool), SourceError> {
        let name = &self.config.publication;
        match Publication::find(&self.sql, name).await? {
            Some(publication) => {
                let tables = catalog::published(&self.sql, name, server.version_num).await?;
                let found = publication.verify(name, &tables)?;
                items.push(CheckItem::ok("source publication", format!("{name}: {found}")));
                Ok((tables, publication.publishes_updates_or_deletes))
            }
            None if self.config.create => {
                let plan = Plan::of(&self.sql, server, name, &self.config.tables).await?;
                let found = format!("{name} does not exist yet and will be made {}", plan.described());
                let may = plan.verify_rights(&self.sql, name).await;
                items.push(item("source publication", may.map(|()| found)));
                Ok((plan.tables, true))
            }
            None => Err(absent(name, &self.config.tables)),
        }
    }

    fn check_identities(&self, tables: &[TableCatalog], items: &mut Vec<CheckItem>) {
        let findings = identity_findings(tables);
        if !tables.is_empty() && !findings.iter().any(|finding| matches!(finding, IdentityFinding::Wrong(_)))
        {
            items.push(CheckItem::ok("source tables", "updates and deletes can be told apart by key or row"));
        }
        items.extend(findings.into_iter().map(|finding| match finding {
            IdentityFinding::Wrong(text) => CheckItem::fail("source table", text),
            IdentityFinding::InsertOnly(text) => CheckItem::ok("source table", format!("warning: {text}")),
        }));
    }
}

fn item(what: &str, result: Result<String, SourceError>) -> CheckItem {
    CheckItem { what: what.to_owned(), result: result.map_err(|error| error.to_string()) }
}
