use crate::command::{SlotOptions, start};
use crate::error::lost_slot_remedy;
use crate::feedback::FeedbackTimes;
use crate::publication::{
    IdentityFinding, Plan, Publication, absent, absent_slot, identity_findings, partitions_of_other_identity,
};
use crate::reader::ReaderParts;
use crate::replication::{CommandError, ReplicationConnection};
use crate::server::Server;
use crate::signals::Signals;
use crate::slot::{self, Slot};
use crate::sql::{Sql, column, lsn};
use crate::{Feedback, Reader, SlotStatus, SourceError, StreamOptions, catalog};
use replicator_config::SourceConfig;
use replicator_pgconn::ConnectOptions;
use replicator_types::{Budget, CheckItem, Lsn, SlotIdentity, TableCatalog};
use slog::{Logger, info, warn};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio_postgres::types::Type;

/// What the sessions call themselves in `pg_stat_activity`.
const APPLICATION_NAME: &str = "replicator";

/// A configured source. Opens connections when they are needed.
#[derive(Debug)]
pub struct Source {
    config: SourceConfig,
    options: ConnectOptions,
    stream_options: StreamOptions,
    sql: Arc<Sql>,
    log: Logger,
    /// Of the last [`Source::prepare`].
    prepared: Mutex<Option<StreamBasis>>,
}

/// What a stream is begun and checked with.
#[derive(Clone, Debug)]
struct StreamBasis {
    identity: SlotIdentity,
    confirmed_flush: Lsn,
    wal_sender_timeout_ms: u64,
}

/// A source that is ready to stream.
#[derive(Clone, Debug)]
pub struct Prepared {
    /// What positions belong to.
    pub identity: SlotIdentity,
    /// The cluster's timeline. It goes up when a standby is promoted.
    pub timeline: u32,
    /// The source database.
    pub database: String,
    /// `server_version_num`: 150004 is 15.4.
    pub server_version_num: u32,
    /// Everything before it is acknowledged: the end of a transaction. The stream begins there, or later if
    /// asked to.
    pub confirmed_flush: Lsn,
    /// Whether the slot was made just now: what was committed before is not in it.
    pub slot_is_new: bool,
    /// The published tables, as published.
    pub tables: Vec<TableCatalog>,
    /// The server ends a connection it has not heard of for this long; 0 for never.
    pub wal_sender_timeout_ms: u64,
}

/// `IDENTIFY_SYSTEM`.
struct System {
    identifier: u64,
    timeline: u32,
    database: String,
}

impl Source {
    /// A source of this configuration. Connects to nothing.
    ///
    /// # Errors
    /// The URL is wrong, or the password file can't be read.
    pub fn new(config: SourceConfig, log: Logger) -> Result<Self, SourceError> {
        let in_source =
            |error: replicator_pgconn::ConnectError| SourceError::halt(format!("source.url: {error}"));
        let mut password = config.password.expose().to_owned();
        if let Some(path) = config.password_file.as_ref().filter(|_| password.is_empty()) {
            let text = std::fs::read_to_string(path).map_err(|error| {
                SourceError::halt(format!("source.password_file: {} can't be read: {error}", path.display()))
            })?;
            password = text.trim_end_matches(['\r', '\n']).to_owned();
        }
        let options = ConnectOptions::parse(config.url.expose(), Some(&password))
            .map_err(in_source)?
            .or_application_name(APPLICATION_NAME)
            .or_connect_timeout(Duration::from_millis(config.connect_timeout_ms));
        slot::verify_name(&config.slot)?;
        let sql = Arc::new(Sql::new(&options));
        let stream_options = StreamOptions::default();
        Ok(Self { config, options, stream_options, sql, log, prepared: Mutex::default() })
    }

    /// Sets what streams are asked for.
    #[must_use]
    pub fn with_stream_options(mut self, stream_options: StreamOptions) -> Self {
        self.stream_options = stream_options;
        self
    }

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
        match self.connect_replication().await {
            Ok((connection, system)) => {
                connection.close().await;
                let found = format!("cluster {}, {}", system.identifier, server.wal_senders());
                items.push(CheckItem::ok("source replication", found));
            }
            Err(error) => items.push(CheckItem::fail("source replication", error.to_string())),
        }
        items.push(item("source slot", self.check_slot(&server).await));
        let tables = self.check_publication(&server, items).await.map_err(at("source publication"))?;
        self.check_identities(&tables, items);
        let partitions = partitions_of_other_identity(&self.sql, &self.config.publication)
            .await
            .map_err(at("source tables"))?;
        items.extend(partitions.iter().map(|text| CheckItem::ok("source table", format!("warning: {text}"))));
        Ok(())
    }

    async fn check_slot(&self, server: &Server) -> Result<String, SourceError> {
        let name = &self.config.slot;
        match Slot::find(&self.sql, name).await? {
            Some(slot) => {
                slot.verify(name, self.options.database())?;
                slot.verify_free(name)?;
                let at = slot.status.confirmed_flush.unwrap_or_default();
                Ok(format!("{name} at {at}, keeps {} bytes of WAL", slot.status.retained_bytes))
            }
            None if self.config.create => server.verify_room_for_a_slot(name),
            None => Err(absent_slot(name)),
        }
    }

    async fn check_publication(
        &self,
        server: &Server,
        items: &mut Vec<CheckItem>,
    ) -> Result<Vec<TableCatalog>, SourceError> {
        let name = &self.config.publication;
        match Publication::find(&self.sql, name).await? {
            Some(publication) => {
                let tables = catalog::published(&self.sql, name, server.version_num).await?;
                let found = publication.verify(name, &tables)?;
                items.push(CheckItem::ok("source publication", format!("{name}: {found}")));
                Ok(if publication.publishes_updates_or_deletes { tables } else { Vec::new() })
            }
            None if self.config.create => {
                let plan = Plan::of(&self.sql, server, name, &self.config.tables).await?;
                let found = format!("{name} does not exist yet and will be made {}", plan.described());
                items.push(CheckItem::ok("source publication", found));
                Ok(plan.tables)
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

    /// The tables that are published or, where the publication is still to be made, would be. Changes nothing.
    pub async fn tables(&self) -> Result<Vec<TableCatalog>, SourceError> {
        let server = Server::read(&self.sql).await?;
        let name = &self.config.publication;
        match Publication::find(&self.sql, name).await? {
            Some(_) => catalog::published(&self.sql, name, server.version_num).await,
            None if self.config.create => {
                Ok(Plan::of(&self.sql, &server, name, &self.config.tables).await?.tables)
            }
            None => Err(absent(name, &self.config.tables)),
        }
    }

    /// Sees to it that publication and slot are there – made, where they may be – and can be streamed from.
    /// To be called before the first [`Source::stream`].
    ///
    /// # Errors
    /// One line with the remedy. The slot being in use is [`SourceError::is_busy`].
    pub async fn prepare(&self) -> Result<Prepared, SourceError> {
        self.prepare_with(self.config.create).await
    }

    /// [`Source::prepare`] before any further stream of a run that began with `first` and has acknowledged
    /// `watermark`: the cluster may be another one by now, or the slot gone. Makes nothing: a new slot in the
    /// place of a lost one would pass over everything between the two in silence.
    ///
    /// # Errors
    /// As [`Source::prepare`]; and a cluster or slot that is not the one the run began with.
    pub async fn prepare_again(&self, first: &Prepared, watermark: Lsn) -> Result<(), SourceError> {
        let now = self.prepare_with(false).await?;
        verify_same(first, &now, watermark)
    }

    async fn prepare_with(&self, create: bool) -> Result<Prepared, SourceError> {
        let server = Server::read(&self.sql).await?;
        server.verify_version()?;
        server.verify_wal_level()?;
        let (mut connection, system) = self.connect_replication().await?;
        let publication = self.prepare_publication(&server, create).await?;
        let (confirmed_flush, slot_is_new) = self.prepare_slot(&mut connection, &server, create).await?;
        connection.close().await;
        let tables = catalog::published(&self.sql, &self.config.publication, server.version_num).await?;
        publication.verify(&self.config.publication, &tables)?;
        if publication.publishes_updates_or_deletes {
            self.verify_identities(&tables).await?;
        }
        let identity = SlotIdentity { system_identifier: system.identifier, slot: self.config.slot.clone() };
        *self.prepared.lock().unwrap_or_else(PoisonError::into_inner) = Some(StreamBasis {
            identity: identity.clone(),
            confirmed_flush,
            wal_sender_timeout_ms: server.wal_sender_timeout_ms,
        });
        Ok(Prepared {
            identity,
            timeline: system.timeline,
            database: system.database,
            server_version_num: server.version_num,
            confirmed_flush,
            slot_is_new,
            tables,
            wal_sender_timeout_ms: server.wal_sender_timeout_ms,
        })
    }

    async fn prepare_publication(&self, server: &Server, create: bool) -> Result<Publication, SourceError> {
        let name = &self.config.publication;
        if let Some(publication) = Publication::find(&self.sql, name).await? {
            return Ok(publication);
        }
        if !create {
            return Err(absent(name, &self.config.tables));
        }
        let plan = Plan::of(&self.sql, server, name, &self.config.tables).await?;
        plan.create(&self.sql, name).await?;
        info!(self.log, "publication made"; "publication" => name, "tables" => plan.described());
        if Slot::find(&self.sql, &self.config.slot).await?.is_some() {
            warn!(self.log, "the publication is younger than the slot: changes made in between can't be read";
                "slot" => &self.config.slot, "publication" => name);
        }
        let found = Publication::find(&self.sql, name).await?;
        found.ok_or_else(|| {
            SourceError::retry(format!("publication {name} was dropped as soon as it was made"))
        })
    }

    async fn prepare_slot(
        &self,
        connection: &mut ReplicationConnection,
        server: &Server,
        create: bool,
    ) -> Result<(Lsn, bool), SourceError> {
        let name = &self.config.slot;
        let Some(slot) = Slot::find(&self.sql, name).await? else {
            if !create {
                return Err(if self.config.create { gone(name) } else { absent_slot(name) });
            }
            server.verify_room_for_a_slot(name)?;
            let options = SlotOptions::default();
            let made = slot::create(connection, &self.sql, server, name, options, &self.log).await?;
            return Ok((made, true));
        };
        slot.verify(name, self.options.database())?;
        slot.verify_free(name)?;
        let confirmed_flush = slot.status.confirmed_flush.ok_or_else(|| {
            SourceError::busy(format!("slot {name} is being made by another session and has no position yet"))
        })?;
        Ok((confirmed_flush, false))
    }

    async fn verify_identities(&self, tables: &[TableCatalog]) -> Result<(), SourceError> {
        let mut wrong = Vec::new();
        for finding in identity_findings(tables) {
            match finding {
                IdentityFinding::Wrong(text) => wrong.push(text),
                IdentityFinding::InsertOnly(text) => warn!(self.log, "{}", text),
            }
        }
        if !wrong.is_empty() {
            return Err(SourceError::halt(wrong.join("; ")));
        }
        for text in partitions_of_other_identity(&self.sql, &self.config.publication).await? {
            warn!(self.log, "{}", text);
        }
        Ok(())
    }

    /// Begins the stream at `from` or at the slot's position, whichever is later. Must come after
    /// [`Source::prepare`].
    ///
    /// The [`Feedback`] must be run as a task of its own for as long as the [`Reader`] is used.
    ///
    /// # Errors
    /// The connection, or a slot that is gone, in use or of another cluster than prepared.
    pub async fn stream(&self, from: Lsn, budget: Budget) -> Result<(Reader, Feedback), SourceError> {
        let basis = self.prepared.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let basis = basis.ok_or_else(|| SourceError::retry("the source is not prepared"))?;
        let (connection, system) = self.connect_replication().await?;
        if system.identifier != basis.identity.system_identifier {
            return Err(SourceError::retry(format!(
                "the source is cluster {} now, and was {} a moment ago",
                system.identifier, basis.identity.system_identifier
            )));
        }
        let (slot, publication) = (&self.config.slot, &self.config.publication);
        let command = start(slot, from, &[publication], &self.stream_options);
        let (stream, received) = match connection.start_copy_both(&command).await {
            Ok(started) => started,
            Err(CommandError::Server(error)) => {
                return Err(SourceError::of_stream(&error, slot, publication));
            }
            Err(error) => return Err(error.into_source_error(&format!("slot {slot}: starting the stream"))),
        };
        info!(self.log, "streaming"; "slot" => slot, "publication" => publication, "from" => %from,
            "confirmed" => %basis.confirmed_flush);
        let (is_tcp, is_near) = (stream.is_tcp(), stream.is_near());
        let (read_half, writer) = tokio::io::split(stream);
        let signals = Arc::new(Signals::default());
        let reader = Reader::new(ReaderParts {
            stream: read_half,
            is_tcp,
            is_near,
            received,
            sql: Arc::clone(&self.sql),
            signals: Arc::clone(&signals),
            budget,
            slot: slot.clone(),
            publication: publication.clone(),
            log: self.log.clone(),
        });
        let times = FeedbackTimes::new(self.config.status_interval_ms, basis.wal_sender_timeout_ms);
        Ok((reader, Feedback { writer, signals, times, floor: basis.confirmed_flush }))
    }

    /// A position that everything committed before the call lies below and that the stream will pass even when
    /// nothing else happens.
    pub async fn current_lsn(&self) -> Result<Lsn, SourceError> {
        let doing = "asking for the current position";
        // A message of its own in the WAL: its commit is flushed, and the walsender reads beyond it. On a
        // standby nothing can be written, and what is replayed is what can be had.
        let query = "SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn()
                            ELSE pg_logical_emit_message(true, 'replicator', 'position') END::text AS lsn";
        let row = self.sql.row(doing, query, &[]).await?;
        let text: Option<String> = column(&row, "lsn", doing)?;
        lsn(text.as_deref(), doing)?
            .ok_or_else(|| SourceError::retry(format!("{doing}: the server has none")))
    }

    /// Drops the slot that [`Source::prepare`] has just made ([`Prepared::slot_is_new`]), when the run cannot begin:
    /// it would keep WAL for nobody, and at the next start it would pass for one that was followed all along.
    ///
    /// # Errors
    /// The connection, or the slot is in use.
    pub async fn drop_new_slot(&self) -> Result<(), SourceError> {
        let name = &self.config.slot;
        let query = "SELECT pg_drop_replication_slot($1::text::name)::text AS dropped";
        self.sql.row("dropping the slot just made", query, &[(name, Type::TEXT)]).await?;
        info!(self.log, "slot dropped again"; "slot" => name);
        Ok(())
    }

    /// Where the slot stands.
    ///
    /// # Errors
    /// The connection, or the slot is gone.
    pub async fn slot_status(&self) -> Result<SlotStatus, SourceError> {
        let name = &self.config.slot;
        match Slot::find(&self.sql, name).await? {
            Some(slot) => Ok(slot.status),
            None => Err(gone(name)),
        }
    }

    async fn connect_replication(&self) -> Result<(ReplicationConnection, System), SourceError> {
        let mut connection = ReplicationConnection::connect(&self.options).await?;
        let doing = "asking the source who it is";
        let rows =
            connection.query("IDENTIFY_SYSTEM").await.map_err(|error| error.into_source_error(doing))?;
        let mut row = rows.into_iter().next().unwrap_or_default().into_iter();
        // systemid, timeline, xlogpos, dbname
        let (identifier, timeline, database) =
            (row.next().flatten(), row.next().flatten(), row.nth(1).flatten());
        let parsed =
            identifier.and_then(|text| text.parse().ok()).zip(timeline.and_then(|text| text.parse().ok()));
        let Some(((identifier, timeline), database)) = parsed.zip(database) else {
            return Err(SourceError::retry(format!(
                "{doing}: the answer to IDENTIFY_SYSTEM was not understood"
            )));
        };
        Ok((connection, System { identifier, timeline, database }))
    }
}

/// For a slot that was there when the run began.
fn gone(slot: &str) -> SourceError {
    SourceError::halt(format!("slot {slot} is gone; {}", lost_slot_remedy(slot)))
}

/// Whether a run that began with `first` may go on with `now`.
fn verify_same(first: &Prepared, now: &Prepared, watermark: Lsn) -> Result<(), SourceError> {
    let slot = &first.identity.slot;
    let (was, is) = (first.identity.system_identifier, now.identity.system_identifier);
    if was != is {
        return Err(SourceError::halt(format!(
            "the source is another cluster now ({is}, it was {was}): positions of the two are not comparable; point \
             source.url at the old one, or start anew with empty sinks"
        )));
    }
    if now.confirmed_flush > watermark {
        return Err(SourceError::halt(format!(
            "slot {slot} stands at {}, beyond {watermark}, up to where the sinks have everything: it was made anew or \
             moved by somebody else, and what lies between is lost to it; {}",
            now.confirmed_flush,
            crate::error::lost_slot_remedy(slot)
        )));
    }
    Ok(())
}

fn item(what: &str, result: Result<String, SourceError>) -> CheckItem {
    CheckItem { what: what.to_owned(), result: result.map_err(|error| error.to_string()) }
}
