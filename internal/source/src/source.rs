mod check;

use crate::catalog::ReadAt;
use crate::command::{SlotOptions, start};
use crate::error::lost_slot_remedy;
use crate::feedback::FeedbackTimes;
use crate::poll::Poll;
use crate::publication::{
    IdentityFinding, Plan, Publication, absent, absent_slot, identity_findings, partitions_of_other_identity,
};
use crate::raw::{CommandError, RawConnection};
use crate::reader::ReaderParts;
use crate::server::Server;
use crate::signals::Signals;
use crate::slot::{self, Slot};
use crate::sql::{Sql, column, lsn};
use crate::{
    Feedback, Lease, Reader, SlotStatus, Snapshot, SourceError, StreamOptions, Timelines, catalog, copy,
    negotiation,
};
use replicator_config::{BinaryValues, SourceConfig};
use replicator_pgconn::ConnectOptions;
use replicator_types::{Budget, Lsn, SlotIdentity, TableCatalog};
use slog::{Logger, error, info, warn};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
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
    /// Instead of what the configuration comes to.
    stream_options: Option<StreamOptions>,
    /// Set by [`Source::without_binary`].
    no_binary: Arc<AtomicBool>,
    /// The greatest position that anything was handed on from: of a commit record, or of a snapshot.
    handed_on: Arc<AtomicU64>,
    sql: Arc<Sql>,
    poll: Poll,
    log: Logger,
    /// Of the last [`Source::prepare`].
    prepared: Mutex<Option<StreamBasis>>,
}

/// What a stream is begun and checked with.
#[derive(Clone, Debug)]
struct StreamBasis {
    identity: SlotIdentity,
    timeline: u32,
    confirmed_flush: Lsn,
    wal_sender_timeout_ms: u64,
    server_version_num: u32,
    stream_options: StreamOptions,
}

/// A source that is ready to stream.
#[derive(Clone, Debug)]
pub struct Prepared {
    /// What positions belong to.
    pub identity: SlotIdentity,
    /// The cluster's timeline, which goes up when a standby is promoted, and its history.
    pub timelines: Timelines,
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
    /// What streams are asked for.
    pub stream_options: StreamOptions,
}

/// A source that was looked at and can be prepared: nothing but the publication was made. See [`Source::begin`].
#[derive(Debug)]
pub struct Beginning {
    server: Server,
    connection: RawConnection,
    system: Identified,
    publication: Publication,
    slot: Option<Slot>,
    create: bool,
    /// What positions belong to.
    pub identity: SlotIdentity,
}

impl Beginning {
    /// Whether the slot is absent, and made by [`Source::prepare_from`].
    pub fn makes_slot(&self) -> bool {
        self.slot.is_none() && self.create
    }

    /// The cluster's timeline, which goes up when a standby is promoted, and its history.
    pub fn timelines(&self) -> &Timelines {
        &self.system.timelines
    }

    /// The source database.
    pub fn database(&self) -> &str {
        &self.system.database
    }
}

/// The slot as [`Source::prepare`] found or made it.
struct PreparedSlot {
    confirmed_flush: Lsn,
    is_new: bool,
    two_phase: bool,
}

/// Who a server is: `IDENTIFY_SYSTEM`.
#[derive(Clone, Debug)]
pub struct Identified {
    /// The cluster.
    pub system_identifier: u64,
    /// The cluster's timeline, which goes up when a standby is promoted, and its history.
    pub timelines: Timelines,
    /// The source database.
    pub database: String,
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
        Ok(Self {
            config,
            options,
            stream_options: None,
            no_binary: Arc::default(),
            handed_on: Arc::default(),
            sql,
            poll: Poll::default(),
            log,
            prepared: Mutex::default(),
        })
    }

    /// Sets what streams are asked for, instead of what the configuration and the server come to.
    #[must_use]
    pub fn with_stream_options(mut self, stream_options: StreamOptions) -> Self {
        self.stream_options = Some(stream_options);
        self
    }

    /// From the next [`Source::prepare`] or [`Source::prepare_again`] on, values come as text: after one came whose
    /// binary form is not understood. A [`Reader`] that meets a column of such a type does the same.
    pub fn without_binary(&self) {
        self.no_binary.store(true, Ordering::Relaxed);
    }

    /// What the next stream is asked for, as of the last [`Source::prepare`]; before, the least that every server has.
    pub fn stream_options(&self) -> StreamOptions {
        let prepared = self.prepared.lock().unwrap_or_else(PoisonError::into_inner);
        prepared.as_ref().map(|basis| basis.stream_options.clone()).unwrap_or_default()
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
        self.prepare_from(self.begin().await?).await
    }

    /// The first half of [`Source::prepare`]: everything up to the slot.
    ///
    /// # Errors
    /// As [`Source::prepare`].
    pub async fn begin(&self) -> Result<Beginning, SourceError> {
        self.begin_with(self.config.create).await
    }

    /// [`Source::prepare`] before any further stream of a run that began with `first` and has acknowledged
    /// `watermark`: the cluster may be another one by now, or the slot gone. Makes nothing: a new slot in the
    /// place of a lost one would pass over everything between the two in silence.
    ///
    /// # Errors
    /// As [`Source::prepare`]; and a cluster or slot that is not the one the run began with.
    pub async fn prepare_again(&self, first: &Prepared, watermark: Lsn) -> Result<Prepared, SourceError> {
        let now = self.prepare_from(self.begin_with(false).await?).await?;
        let handed_on = Lsn(self.handed_on.load(Ordering::Relaxed));
        verify_same(first, &now, watermark, handed_on)?;
        Ok(now)
    }

    async fn begin_with(&self, create: bool) -> Result<Beginning, SourceError> {
        let server = Server::read(&self.sql).await?;
        server.verify_version()?;
        server.verify_wal_level()?;
        negotiation::verify_server(&self.config, &server)?;
        let (connection, system) = self.connect_replication().await?;
        let publication = self.prepare_publication(&server, create).await?;
        // Whoever begins is told before anything is made. Later on nothing is lost, since the source itself refuses the
        // updates, and other tables are not to wait for it.
        let slot = Slot::find(&self.sql, &self.config.slot).await?;
        if slot.is_none() {
            let tables = catalog::published(&self.sql, &self.config.publication, server.version_num).await?;
            let wrong =
                if publication.publishes_updates_or_deletes { wrong_identities(&tables) } else { vec![] };
            if !wrong.is_empty() {
                return Err(SourceError::halt(wrong.join("; ")));
            }
        }
        let identity =
            SlotIdentity { system_identifier: system.system_identifier, slot: self.config.slot.clone() };
        Ok(Beginning { server, connection, system, publication, slot, create, identity })
    }

    /// The second half of [`Source::prepare`].
    ///
    /// # Errors
    /// As [`Source::prepare`].
    pub async fn prepare_from(&self, beginning: Beginning) -> Result<Prepared, SourceError> {
        let Beginning { server, mut connection, system, publication, slot, create, identity } = beginning;
        let slot = self.prepare_slot(slot, &mut connection, &server, create).await?;
        connection.close().await;
        let tables = catalog::published(&self.sql, &self.config.publication, server.version_num).await?;
        publication.verify(&self.config.publication, &tables)?;
        if publication.publishes_updates_or_deletes {
            self.tell_identities(&tables, &server).await?;
        }
        let stream_options = self.choose_stream_options(slot.two_phase, &tables);
        *self.prepared.lock().unwrap_or_else(PoisonError::into_inner) = Some(StreamBasis {
            identity: identity.clone(),
            timeline: system.timelines.current(),
            confirmed_flush: slot.confirmed_flush,
            wal_sender_timeout_ms: server.wal_sender_timeout_ms,
            server_version_num: server.version_num,
            stream_options: stream_options.clone(),
        });
        Ok(Prepared {
            identity,
            timelines: system.timelines,
            database: system.database,
            server_version_num: server.version_num,
            confirmed_flush: slot.confirmed_flush,
            slot_is_new: slot.is_new,
            tables,
            wal_sender_timeout_ms: server.wal_sender_timeout_ms,
            stream_options,
        })
    }

    fn choose_stream_options(&self, slot_two_phase: bool, tables: &[TableCatalog]) -> StreamOptions {
        if let Some(options) = &self.stream_options {
            return options.clone();
        }
        let mut options = negotiation::stream_options(&self.config, slot_two_phase, tables);
        options.binary &= !self.no_binary.load(Ordering::Relaxed);
        if self.config.binary == BinaryValues::On && !options.binary {
            let because = negotiation::text_only_column(tables).map(|(table, column)| {
                format!("{}.{}.{} {}", table.schema, table.name, column.name, column.type_sql)
            });
            warn!(self.log, "values come as text, though source.binary = \"on\": not every column's binary form is \
                understood"; "column" => because.unwrap_or_default());
        }
        options
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
        found: Option<Slot>,
        connection: &mut RawConnection,
        server: &Server,
        create: bool,
    ) -> Result<PreparedSlot, SourceError> {
        let name = &self.config.slot;
        let Some(slot) = found else {
            if !create && self.config.create && server.in_recovery {
                return Err(SourceError::busy(format!(
                    "the source is a standby now, which has no slot {name}: waiting for the primary, or for the \
                     promotion of a standby that has it"
                )));
            }
            if !create {
                return Err(if self.config.create { gone(name) } else { absent_slot(name) });
            }
            server.verify_room_for_a_slot(name)?;
            let two_phase = self.config.two_phase;
            let failover = negotiation::slot_failover(&self.config, server);
            let options = SlotOptions { two_phase, failover, ..SlotOptions::default() };
            let made = slot::create(connection, &self.sql, server, name, options, &self.log).await?;
            return Ok(PreparedSlot { confirmed_flush: made.consistent_point, is_new: true, two_phase });
        };
        slot.verify(name, self.options.database())?;
        slot.verify_free(name)?;
        negotiation::verify_slot_two_phase(&self.config, slot.two_phase)?;
        let confirmed_flush = slot.status.confirmed_flush.ok_or_else(|| {
            SourceError::busy(format!("slot {name} is being made by another session and has no position yet"))
        })?;
        Ok(PreparedSlot { confirmed_flush, is_new: false, two_phase: slot.two_phase })
    }

    async fn tell_identities(&self, tables: &[TableCatalog], server: &Server) -> Result<(), SourceError> {
        let version = server.version_num;
        for finding in identity_findings(tables) {
            match finding {
                IdentityFinding::Wrong(text) => error!(self.log, "{}", text),
                IdentityFinding::InsertOnly(text) => warn!(self.log, "{}", text),
            }
        }
        for text in partitions_of_other_identity(&self.sql, &self.config.publication, version).await? {
            warn!(self.log, "{}", text);
        }
        Ok(())
    }

    /// Takes the right to follow the slot, before anything else is done for a run. See [`Lease`].
    ///
    /// # Errors
    /// Another process has it ([`SourceError::is_busy`]); the connection.
    pub async fn lease(&self) -> Result<Lease, SourceError> {
        Lease::take(&self.sql, &self.config.slot, &self.log).await
    }

    /// Ends the walsender that still has the slot, if it is of an earlier connection of ours. Only for who has the lease:
    /// nobody else of ours reads the slot then but a process that has lost it.
    ///
    /// To be called again while the slot is in use. A walsender whose peer reads no more, since it was stopped, is stuck
    /// in telling it that it ends; the second signal makes it end without a word.
    ///
    /// Source: `ProcessClientWriteInterrupt` in Postgres' `src/backend/tcop/postgres.c`.
    ///
    /// # Errors
    /// The connection, or the role may not end it.
    pub async fn end_stale_reader(&self) -> Result<(), SourceError> {
        let query = "SELECT s.active_pid AS pid, pg_terminate_backend(s.active_pid) AS ended
                     FROM pg_replication_slots s JOIN pg_stat_activity a ON a.pid = s.active_pid
                     WHERE s.slot_name = $1 AND a.usename = current_user
                       AND a.application_name = current_setting('application_name')";
        let slot = &self.config.slot;
        let doing = format!("ending the earlier reader of slot {slot}");
        for row in self.sql.rows(&doing, query, &[(slot, Type::TEXT)]).await? {
            let pid: i32 = column(&row, "pid", &doing)?;
            info!(self.log, "an earlier walsender still had the slot, and was told to end"; "slot" => slot, "pid" => pid);
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
        let mut basis = basis.ok_or_else(|| SourceError::retry("the source is not prepared"))?;
        basis.stream_options.binary &= !self.no_binary.load(Ordering::Relaxed);
        let (connection, system) = self.connect_replication().await?;
        if system.system_identifier != basis.identity.system_identifier {
            return Err(SourceError::retry(format!(
                "the source is cluster {} now, and was {} a moment ago",
                system.system_identifier, basis.identity.system_identifier
            )));
        }
        if system.timelines.current() != basis.timeline {
            return Err(SourceError::retry(format!(
                "the source is on timeline {} now, and was on {} a moment ago: another server answers",
                system.timelines.current(),
                basis.timeline
            )));
        }
        let (slot, publication) = (&self.config.slot, &self.config.publication);
        let command = start(slot, from, &[publication], &basis.stream_options);
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
            stream_options: basis.stream_options,
            no_binary: Arc::clone(&self.no_binary),
            committed: Arc::clone(&self.handed_on),
        });
        let times = FeedbackTimes::new(self.config.status_interval_ms, basis.wal_sender_timeout_ms);
        Ok((reader, Feedback { writer, signals, times, floor: basis.confirmed_flush, asked: None }))
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

    /// Writes a logical message into the source's WAL, as a transaction of its own, and returns its position.
    ///
    /// # Errors
    /// The connection, a standby, or the role may not call `pg_logical_emit_message`.
    pub async fn emit_message(&self, prefix: &str, content: &str) -> Result<Lsn, SourceError> {
        let doing = "writing a message to the source's WAL";
        let query = "SELECT pg_logical_emit_message(true, $1, $2)::text AS lsn";
        let row = self.sql.row(doing, query, &[(&prefix, Type::TEXT), (&content, Type::TEXT)]).await?;
        let text: Option<String> = column(&row, "lsn", doing)?;
        lsn(text.as_deref(), doing)?
            .ok_or_else(|| SourceError::retry(format!("{doing}: the server told no position")))
    }

    /// The published tables as they are now. Meant to be called often: as long as nothing has changed it costs one
    /// small query.
    ///
    /// # Errors
    /// The connection.
    pub async fn published(&self) -> Result<Vec<TableCatalog>, SourceError> {
        let basis = self.prepared.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let version = match basis {
            Some(basis) => basis.server_version_num,
            None => Server::read(&self.sql).await?.version_num,
        };
        self.poll.tables(&self.sql, &self.config.publication, version).await
    }

    /// A position behind everything that was visible before the call.
    ///
    /// # Errors
    /// The connection.
    pub async fn written_lsn(&self) -> Result<Lsn, SourceError> {
        ReadAt::position(&self.sql, "asking how far the WAL is written").await
    }

    /// Writes a message to the source's WAL that is none of the stream's transactions, so that the stream, and with
    /// it the slot, has something to move on to. Does nothing on a standby, where nothing can be written.
    ///
    /// # Errors
    /// The connection, or the role may not call `pg_logical_emit_message`.
    pub async fn heartbeat(&self) -> Result<(), SourceError> {
        let query = "SELECT CASE WHEN NOT pg_is_in_recovery()
                            THEN pg_logical_emit_message(false, 'replicator.heartbeat', '')::text END AS lsn";
        self.sql.row("writing a heartbeat to the source's WAL", query, &[]).await.map(drop)
    }

    /// Drops the slot that [`Source::prepare`] has just made ([`Prepared::slot_is_new`]), when the run cannot begin:
    /// it would keep WAL for nobody.
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

    /// Takes a snapshot to copy tables under. See [`Snapshot`]. Waits, as making a slot does, for every transaction
    /// to end that is running; while it does, the log names them.
    ///
    /// # Errors
    /// The connection; no room for another slot; a transaction that does not end in minutes.
    pub async fn snapshot(&self) -> Result<Snapshot, SourceError> {
        let server = Server::read(&self.sql).await?;
        let origin = copy::Origin {
            options: &self.options,
            sql: &self.sql,
            server: &server,
            slot: &self.config.slot,
            publication: &self.config.publication,
            log: &self.log,
        };
        let snapshot = Snapshot::take(origin).await?;
        self.handed_on.fetch_max(snapshot.lsn().0, Ordering::Relaxed);
        Ok(snapshot)
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

    /// Asks the server who it is.
    ///
    /// # Errors
    /// The connection.
    pub async fn identify(&self) -> Result<Identified, SourceError> {
        let (connection, identified) = self.connect_replication().await?;
        connection.close().await;
        Ok(identified)
    }

    async fn connect_replication(&self) -> Result<(RawConnection, Identified), SourceError> {
        let mut connection = RawConnection::connect_replication(&self.options).await?;
        let doing = "asking the source who it is";
        let rows =
            connection.query("IDENTIFY_SYSTEM").await.map_err(|error| error.into_source_error(doing))?;
        let mut row = rows.into_iter().next().unwrap_or_default().into_iter();
        // systemid, timeline, xlogpos, dbname
        let (identifier, timeline, database) =
            (row.next().flatten(), row.next().flatten(), row.nth(1).flatten());
        let parsed =
            identifier.and_then(|text| text.parse().ok()).zip(timeline.and_then(|text| text.parse().ok()));
        let Some(((system_identifier, timeline), database)) = parsed.zip(database) else {
            return Err(SourceError::retry(format!(
                "{doing}: the answer to IDENTIFY_SYSTEM was not understood"
            )));
        };
        let timelines = Timelines::read(&mut connection, timeline).await?;
        Ok((connection, Identified { system_identifier, timelines, database }))
    }
}

/// For a slot that was there when the run began.
fn gone(slot: &str) -> SourceError {
    SourceError::halt(format!("slot {slot} is gone; {}", lost_slot_remedy(slot)))
}

/// What keeps the updates of published tables from being made at all.
fn wrong_identities(tables: &[TableCatalog]) -> Vec<String> {
    let wrong = |finding| match finding {
        IdentityFinding::Wrong(text) => Some(text),
        IdentityFinding::InsertOnly(_) => None,
    };
    identity_findings(tables).into_iter().filter_map(wrong).collect()
}

/// Whether a run that began with `first` may go on with `now`.
fn verify_same(first: &Prepared, now: &Prepared, watermark: Lsn, handed_on: Lsn) -> Result<(), SourceError> {
    let slot = &first.identity.slot;
    let (was, is) = (first.identity.system_identifier, now.identity.system_identifier);
    if was != is {
        return Err(SourceError::halt(format!(
            "the source is another cluster now ({is}, it was {was}): positions of the two are not comparable; point \
             source.url at the old one, or start anew with empty sinks"
        )));
    }
    let timeline = first.timelines.current();
    now.timelines.verify(timeline, handed_on, "this run")?;
    if now.timelines.verify(timeline, Lsn(watermark.0.saturating_sub(1)), "this run").is_err() {
        // No change lies between: WAL of other databases, or of nothing. But what is committed there now has positions
        // that this run has passed.
        return Err(SourceError::halt(format!(
            "the source is a promoted standby (timeline {}), which parted from timeline {timeline} before {watermark}, where \
             this run is; nothing was lost, but it has to begin anew from the slot: start it again",
            now.timelines.current()
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
