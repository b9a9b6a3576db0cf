use crate::check;
use crate::checkpoint::{self, Owner};
use crate::connector::{Connector, SERVER_VERSION_MIN};
use crate::copying;
use crate::error;
use crate::fence::{self, Fence};
use crate::generated;
use crate::lane::{PostgresCopyLane, PostgresLane};
use crate::notes::{self, OWN_PREFIX};
use crate::own_tables::{self, StreamKey};
use crate::resolve::{Occasion, Resolver};
use crate::session::Session;
use async_trait::async_trait;
use replicator_config::{PostgresSinkConfig, TypeChanges};
use replicator_pgconn::ConnectOptions;
use replicator_sink::{KeyChanges, Lane, Sink, SinkError, StreamInfo, TableCopy};
use replicator_types::{CheckItem, GeneratedColumn, Lsn, Position, Relation};
use slog::{Logger, warn};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex as StdMutex, PoisonError};
use std::time::Duration;
use tokio::sync::Mutex;
use tokio_postgres::Client;

/// So many connections for beginning and ending copies are kept: about as many as tables begin at once, and few enough
/// to lie idle in the target later.
const COPYING_KEPT_MAX: usize = 8;

/// A Postgres database that has the source's tables.
#[derive(Debug)]
pub struct PostgresSink {
    name: String,
    shards: u32,
    create_tables: bool,
    type_changes: TypeChanges,
    connector: Arc<Connector>,
    /// Of the stream that [`Sink::prepare`] was called for.
    resolver: StdMutex<Option<Arc<Resolver>>>,
    /// Kept open for notes.
    notes: Mutex<Option<Client>>,
    /// Kept open between [`Sink::begin_copy`] and [`Sink::end_copy`] of one table and another.
    copying: StdMutex<Vec<Client>>,
    /// Kept open for [`Sink::ping`].
    ping: Mutex<Option<Client>>,
    ping_timeout: Duration,
}

/// A sink of this name with that many lanes, each with a connection of its own. Connects to nothing yet.
///
/// # Errors
/// Halt when the URL or the password file cannot be read; the text does not show either's content.
pub fn open(
    name: String,
    config: PostgresSinkConfig,
    shards: u32,
    logger: Logger,
) -> Result<PostgresSink, SinkError> {
    let from_file = match &config.password_file {
        Some(path) if config.password.is_empty() => {
            let text = std::fs::read_to_string(path).map_err(|error| {
                SinkError::halt(format!("sink {name}: cannot read password_file {}: {error}", path.display()))
            })?;
            Some(text.trim_end_matches(['\r', '\n']).to_owned())
        }
        _ => None,
    };
    let password = from_file.as_deref().or((!config.password.is_empty()).then(|| config.password.expose()));
    let ping_timeout = Duration::from_millis(config.connect_timeout_ms);
    let options = ConnectOptions::parse(config.url.expose(), password)
        .map_err(|error| SinkError::halt(format!("sink {name}: {error}")))?
        .or_application_name("replicator")
        .or_connect_timeout(ping_timeout);
    let connector = Arc::new(Connector::new(options, config.origin, config.synchronous_commit, logger));
    Ok(PostgresSink {
        name,
        shards: shards.max(1),
        create_tables: config.create_tables,
        type_changes: config.type_changes,
        connector,
        resolver: StdMutex::new(None),
        notes: Mutex::new(None),
        copying: StdMutex::default(),
        ping: Mutex::new(None),
        ping_timeout,
    })
}

#[async_trait]
impl Sink for PostgresSink {
    fn name(&self) -> &str {
        &self.name
    }

    fn kind(&self) -> &'static str {
        "postgres"
    }

    fn shards(&self) -> u32 {
        self.shards
    }

    fn key_changes(&self) -> KeyChanges {
        KeyChanges::Split
    }

    async fn check(&self, tables: &[Arc<Relation>]) -> Vec<CheckItem> {
        check::check(&self.connector, tables, self.create_tables).await
    }

    async fn prepare(&self, stream: &StreamInfo) -> Result<(), SinkError> {
        let client = self.connector.open_to_prepare().await?;
        let version = check::server_version(&client)
            .await
            .map_err(|error| error::of_server(&error, "ask for the version"))?;
        if version < SERVER_VERSION_MIN {
            return Err(SinkError::halt(check::too_old(version)));
        }
        own_tables::create(&client).await?;
        let key = StreamKey::new(&self.name, &stream.identity);
        let fence = Fence::put_up(&client, key, self.connector.logger()).await?;
        self.connector.fence_in(fence.clone());
        fence.join(&client).await?;
        for other in checkpoint::other_identities(&client, &self.name, &stream.identity).await? {
            warn!(self.connector.logger(),
                "the target has a checkpoint of this sink for another slot, which is left alone: all changes of the slot \
                 in use are applied from its own beginning";
                "other" => other, "used" => %stream.identity);
        }
        let resolver = self.new_resolver(stream);
        for relation in &stream.tables {
            resolver.resolve(&client, relation, 0, 0, Occasion::Early).await?;
        }
        *self.resolver.lock().unwrap_or_else(PoisonError::into_inner) = Some(resolver);
        Ok(())
    }

    async fn prepare_table(&self, relation: &Arc<Relation>) -> Result<(), SinkError> {
        let resolver = self.resolver()?;
        let client = self.copying_client().await?;
        let made = resolver.resolve(&client, relation, 0, 0, Occasion::Early).await;
        self.keep_copying_client(client);
        made.map(drop)
    }

    async fn open_lane(&self, shard: u32, stream: &StreamInfo) -> Result<Box<dyn Lane>, SinkError> {
        let mut session = Session::open(self.owner(shard, stream), Arc::clone(&self.connector)).await?;
        let client = session.client().await?;
        let applied = session.owner.read_applied(&client).await?;
        Ok(Box::new(PostgresLane::new(session, applied, self.resolver()?)))
    }

    async fn notes(&self) -> Result<BTreeMap<String, String>, SinkError> {
        let resolver = self.resolver()?;
        let mut kept = self.notes.lock().await;
        let client = self.kept_client(&mut kept).await?;
        let mut notes = notes::all(&client, &resolver.key).await?;
        notes.retain(|key, _| !key.starts_with(OWN_PREFIX) && key != fence::CLAIM);
        *kept = Some(client);
        Ok(notes)
    }

    async fn put_note(&self, key: &str, value: Option<&str>) -> Result<(), SinkError> {
        if key.starts_with(OWN_PREFIX) || key == fence::CLAIM {
            return Err(SinkError::halt(format!(
                "note {key}: {} and keys that begin with {OWN_PREFIX} are the sink's own",
                fence::CLAIM
            )));
        }
        let resolver = self.resolver()?;
        let mut kept = self.notes.lock().await;
        let client = self.kept_client(&mut kept).await?;
        notes::put(&client, &resolver.key, key, value).await?;
        *kept = Some(client);
        Ok(())
    }

    async fn alter(&self, relation: &Arc<Relation>, at: Position) -> Result<(), SinkError> {
        let resolver = self.resolver()?;
        let client = self.copying_client().await?;
        resolver.resolve(&client, relation, relation.turn(at), 0, Occasion::Stream).await?;
        self.keep_copying_client(client);
        Ok(())
    }

    async fn follow_generated(
        &self,
        oid: u32,
        columns: &[GeneratedColumn],
        dropped: &[i16],
    ) -> Result<(), SinkError> {
        let resolver = self.resolver()?;
        if columns.is_empty() {
            resolver.generated.take_awaited(oid);
        }
        if !self.create_tables || generated::is_followed(&resolver, oid, columns) {
            return Ok(());
        }
        let client = self.copying_client().await?;
        generated::follow(&client, &resolver, oid, columns, dropped).await?;
        self.keep_copying_client(client);
        Ok(())
    }

    async fn reach(&self) -> Result<Option<Lsn>, SinkError> {
        let resolver = self.resolver()?;
        let client = self.connector.open().await?;
        checkpoint::reach(&client, &resolver.key).await.map(Some)
    }

    async fn begin_copy(&self, copy: &TableCopy) -> Result<bool, SinkError> {
        let resolver = self.resolver()?;
        let client = self.copying_client().await?;
        let is_empty = copying::begin(&client, &resolver, copy).await?;
        self.keep_copying_client(client);
        Ok(is_empty)
    }

    async fn open_copy_lane(&self, _number: u32, stream: &StreamInfo) -> Result<Box<dyn Lane>, SinkError> {
        let session = Session::open_beside(self.owner(0, stream), Arc::clone(&self.connector)).await?;
        Ok(Box::new(PostgresCopyLane::new(session, self.resolver()?)))
    }

    async fn end_copy(&self, copy: &TableCopy) -> Result<(), SinkError> {
        let resolver = self.resolver()?;
        let client = self.copying_client().await?;
        copying::end(&client, &resolver, copy).await?;
        self.keep_copying_client(client);
        Ok(())
    }

    async fn ping(&self) -> Result<(), SinkError> {
        let late = |_| SinkError::retry("the target did not answer in time");
        tokio::time::timeout(self.ping_timeout, self.ask()).await.map_err(late)?
    }
}

impl PostgresSink {
    fn owner(&self, shard: u32, stream: &StreamInfo) -> Owner {
        Owner { sink: self.name.clone(), identity: stream.identity.clone(), shards: self.shards, shard }
    }

    fn new_resolver(&self, stream: &StreamInfo) -> Arc<Resolver> {
        let key = StreamKey::new(&self.name, &stream.identity);
        let logger = self.connector.logger().clone();
        Arc::new(Resolver::new(key, self.create_tables, self.type_changes, logger))
    }

    fn resolver(&self) -> Result<Arc<Resolver>, SinkError> {
        let resolver = self.resolver.lock().unwrap_or_else(PoisonError::into_inner);
        resolver.clone().ok_or_else(|| {
            SinkError::halt(format!(
                "sink {} is used before it was prepared: this is a fault of the replicator",
                self.name
            ))
        })
    }

    /// The connection kept, or a new one. Taken out meanwhile: one that was given up in the middle is not used again.
    async fn kept_client(&self, kept: &mut Option<Client>) -> Result<Client, SinkError> {
        match kept.take().filter(|client| !client.is_closed()) {
            Some(client) => Ok(client),
            None => self.connector.open().await,
        }
    }

    /// A connection kept for copies, or a new one: several tables begin at once.
    async fn copying_client(&self) -> Result<Client, SinkError> {
        let kept = self.copying.lock().unwrap_or_else(PoisonError::into_inner).pop();
        match kept.filter(|client| !client.is_closed()) {
            Some(client) => Ok(client),
            None => copying::open(&self.connector).await,
        }
    }

    /// Keeps a connection that is in the middle of nothing.
    fn keep_copying_client(&self, client: Client) {
        let mut kept = self.copying.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() < COPYING_KEPT_MAX {
            kept.push(client);
        }
    }

    async fn ask(&self) -> Result<(), SinkError> {
        let mut kept = self.ping.lock().await;
        // Taken out meanwhile: a connection that has not answered is not asked again.
        let client = match kept.take().filter(|client| !client.is_closed()) {
            Some(client) => client,
            None => self.connector.connect().await?,
        };
        client.batch_execute("SELECT 1").await.map_err(|error| error::of_server(&error, "ask the target"))?;
        *kept = Some(client);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use replicator_config::{Secret, SynchronousCommit};
    use replicator_sink::ErrorKind;
    use slog::Discard;

    fn open_with(url: &str, password_file: Option<&str>) -> Result<PostgresSink, SinkError> {
        let config = PostgresSinkConfig {
            url: Secret::new(url),
            password: Secret::default(),
            password_file: password_file.map(Into::into),
            create_tables: true,
            type_changes: TypeChanges::Error,
            origin: false,
            synchronous_commit: SynchronousCommit::On,
            connect_timeout_ms: 1_000,
        };
        open("copy".into(), config, 0, Logger::root(Discard, slog::o!()))
    }

    #[test]
    fn what_is_wrong_in_the_configuration_halts_without_showing_secrets() {
        let error = open_with("postgres://u:hunter2@h/d?sslmode=sometimes", None).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Halt);
        assert!(error.to_string().contains("sslmode") && !error.to_string().contains("hunter2"), "{error}");
        let error = open_with("postgres://u@h/d", Some("/nowhere/password")).unwrap_err();
        assert!(error.to_string().contains("password_file /nowhere/password"), "{error}");
    }

    #[test]
    fn a_sink_has_at_least_one_lane_and_hides_its_password() {
        let sink = open_with("postgres://u:hunter2@h/d", None).unwrap();
        assert_eq!(sink.shards(), 1);
        assert!(!format!("{sink:?}").contains("hunter2"));
    }
}
