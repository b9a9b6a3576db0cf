//! The store: which one the configuration means, and what the archive does there.

use crate::contents::{Contents, ForeignFile, without};
use crate::errors::Explainer;
use crate::file::NewFile;
use crate::local::LocalFolder;
use crate::name::{EVENTS, Hour, first_position};
use crate::naming::Naming;
use bytes::Bytes;
use futures_util::TryStreamExt;
use object_store::aws::{AmazonS3Builder, S3ConditionalPut};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{ClientOptions, Error, ObjectStore, ObjectStoreExt, PutMode, PutPayload, RetryConfig};
use replicator_config::ObjectStoreConfig;
use replicator_sink::SinkError;
use replicator_types::{Lsn, Position};
use slog::{Logger, warn};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// How long a connection to the store may take to open, at most.
const CONNECT_TIMEOUT_MAX: Duration = Duration::from_secs(10);

/// The archive's place in a store.
#[derive(Debug)]
pub(crate) struct Archive {
    store: Arc<dyn ObjectStore>,
    /// What is before `wal/events/…` in an object's path; empty, or without a slash at its ends.
    base: String,
    local: Option<LocalFolder>,
    explainer: Explainer,
    /// Whether puts are conditional: until the store says that it knows no such thing.
    conditional: AtomicBool,
    logger: Logger,
}

/// What became of a put.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Put {
    Done,
    /// There is an object of that name.
    Exists,
}

impl Archive {
    /// The place that `config` names. Nothing is connected yet.
    pub(crate) fn open(config: &ObjectStoreConfig, logger: Logger) -> Result<Self, SinkError> {
        let secret_key = secret_access_key(config)?;
        let explainer = Explainer::new(
            config.url.clone(),
            vec![config.access_key_id.expose().to_owned(), secret_key.clone()],
        );
        let wrong_url = |why: &str| {
            SinkError::halt(format!(
                "the sink's url {} {why}: write s3://bucket/prefix or file:///folder",
                config.url
            ))
        };
        if let Some(folder) = config.url.strip_prefix("file://") {
            let folder = std::path::PathBuf::from(folder);
            let base = Path::from_absolute_path(&folder).map_err(|_| wrong_url("has no absolute path"))?;
            // `Ok` has to mean durable, as it does for the other stores.
            let store = Arc::new(LocalFileSystem::new().with_fsync(true));
            let local = Some(LocalFolder::new(folder));
            return Ok(Self { local, ..Self::at(store, base.as_ref(), explainer, logger) });
        }
        let (bucket, prefix) = match config.url.strip_prefix("s3://") {
            Some(place) => place.split_once('/').unwrap_or((place, "")),
            None => return Err(wrong_url("is of no known kind")),
        };
        if bucket.is_empty() {
            return Err(wrong_url("names no bucket"));
        }
        let base = Path::parse(prefix).map_err(|_| wrong_url("has a prefix that no object can have"))?;
        let store = s3(config, bucket, &secret_key)
            .map_err(|error| explainer.explain("opening the store", &error))?;
        Ok(Self::at(store, base.as_ref(), explainer, logger))
    }

    /// A place in a store made elsewhere.
    pub(crate) fn at(store: Arc<dyn ObjectStore>, base: &str, explainer: Explainer, logger: Logger) -> Self {
        let base = base.trim_matches('/').to_owned();
        Self { store, base, local: None, explainer, conditional: AtomicBool::new(true), logger }
    }

    /// The place as the configuration has it.
    pub(crate) fn place(&self) -> &str {
        self.explainer.place()
    }

    /// The folder, when the place is one of this machine.
    pub(crate) fn local(&self) -> Option<&LocalFolder> {
        self.local.as_ref()
    }

    /// Whether the place can be listed. Changes nothing.
    pub(crate) async fn try_listing(&self) -> Result<(), SinkError> {
        let prefix = self.location(EVENTS)?;
        let listed = self.store.list_with_delimiter(Some(&prefix)).await;
        listed.map(|_| ()).map_err(|error| self.explainer.explain("listing", &error))
    }

    /// Whether the place answers: a request for an object that is not there, the cheapest there is.
    pub(crate) async fn ping(&self) -> Result<(), SinkError> {
        if let Some(local) = &self.local {
            return local.ping();
        }
        match self.store.get(&self.location("wal/ping")?).await {
            Ok(_) => Ok(()),
            Err(error @ Error::NotFound { .. }) if !error.to_string().contains("NoSuchBucket") => Ok(()),
            Err(error) => Err(self.explainer.explain("reading", &error)),
        }
    }

    /// The archive's files of one hour: first position (as of a stream at `near`) and path, by position.
    pub(crate) async fn files_of(&self, hour: Hour, near: Lsn) -> Result<Vec<(Position, String)>, SinkError> {
        let folder = hour.folder(EVENTS);
        let prefix = self.location(&folder)?;
        let mut listing = self.store.list(Some(&prefix));
        let mut files = Vec::new();
        let explain = |error| self.explainer.explain(&format!("listing {folder}"), &error);
        while let Some(object) = listing.try_next().await.map_err(explain)? {
            let Some(name) = object.location.filename() else { continue };
            let path = format!("{folder}/{name}");
            if let Some(first) = first_position(name, near)
                && self.location(&path)? == object.location
            {
                files.push((first, path));
            }
        }
        files.sort_unstable();
        Ok(files)
    }

    /// Reads which events the file at `path` has, and sees to it that it is durable: the process that wrote it
    /// may have died in between. Halts when the file is not of this slot.
    pub(crate) async fn contents(&self, path: &str, naming: &Naming) -> Result<Contents, SinkError> {
        self.settle(path).await?;
        let body = self.get(path).await?;
        let naming = naming.clone();
        let contents = blocking(move || Contents::read(&body, &naming)).await?;
        contents.map_err(|foreign| self.foreign(path, &foreign))
    }

    /// Puts `file` if nothing has its name.
    pub(crate) async fn put(&self, file: &NewFile) -> Result<Put, SinkError> {
        if let Some(local) = &self.local {
            local.ensure(&file.path).await?;
        }
        let location = self.location(&file.path)?;
        let explain = |error: Error| self.explainer.explain(&format!("writing {}", file.path), &error);
        if self.conditional.load(Ordering::Relaxed) {
            match self.put_as(&location, file, PutMode::Create).await {
                Ok(()) => return Ok(Put::Done),
                Err(Error::AlreadyExists { .. }) => return Ok(Put::Exists),
                Err(error) if is_unconditional(&error) => {
                    warn!(self.logger, "the store has no conditional puts; using plain ones"; "place" => self.place());
                    self.conditional.store(false, Ordering::Relaxed);
                }
                Err(error) => return Err(explain(error)),
            }
        }
        self.put_as(&location, file, PutMode::Overwrite).await.map_err(explain)?;
        Ok(Put::Done)
    }

    async fn put_as(&self, location: &Path, file: &NewFile, mode: PutMode) -> Result<(), Error> {
        let payload = PutPayload::from_bytes(file.body.clone());
        self.store.put_opts(location, payload, mode.into()).await.map(|_| ())
    }

    /// What of `file` is still to be written when an object has its name. `None`: nothing, it is all there and
    /// durable.
    pub(crate) async fn rest_of(
        &self,
        file: &NewFile,
        writing: &Writing,
    ) -> Result<Option<NewFile>, SinkError> {
        if self.get(&file.path).await? == file.body {
            self.settle(&file.path).await?;
            return Ok(None);
        }
        let there = self.contents(&file.path, &writing.naming).await?;
        let (ours, naming, level) = (file.clone(), writing.naming.clone(), writing.level);
        let rest = blocking(move || without(&ours, &there, &naming, level)).await?;
        let rest = rest.map_err(|foreign| self.foreign(&file.path, &foreign))?;
        match rest {
            Some(rest) if rest.path == file.path => Err(SinkError::halt(format!(
                "{} at {} has other events than those of its name. Give this sink a url of its own",
                file.path,
                self.place()
            ))),
            rest => Ok(rest),
        }
    }

    async fn settle(&self, path: &str) -> Result<(), SinkError> {
        match &self.local {
            Some(local) => local.settle(path).await,
            None => Ok(()),
        }
    }

    /// The object at `path`, made durable if it was not; `None` when there is none.
    pub(crate) async fn find(&self, path: &str) -> Result<Option<Bytes>, SinkError> {
        let explain = |error| self.explainer.explain(&format!("reading {path}"), &error);
        match self.store.get(&self.location(path)?).await {
            Ok(found) => {
                self.settle(path).await?;
                found.bytes().await.map(Some).map_err(explain)
            }
            Err(Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(explain(error)),
        }
    }

    /// Puts `body` at `path`, in the place of what is there.
    pub(crate) async fn replace(&self, path: &str, body: Bytes) -> Result<(), SinkError> {
        if let Some(local) = &self.local {
            local.ensure(path).await?;
        }
        let put = self.store.put(&self.location(path)?, body.into()).await;
        put.map(|_| ()).map_err(|error| self.explainer.explain(&format!("writing {path}"), &error))
    }

    async fn get(&self, path: &str) -> Result<Bytes, SinkError> {
        let explain = |error| self.explainer.explain(&format!("reading {path}"), &error);
        let found = self.store.get(&self.location(path)?).await.map_err(explain)?;
        found.bytes().await.map_err(explain)
    }

    fn location(&self, path: &str) -> Result<Path, SinkError> {
        let whole = if self.base.is_empty() { path.to_owned() } else { format!("{}/{path}", self.base) };
        Path::parse(&whole)
            .map_err(|error| SinkError::halt(format!("{} cannot be in an object's name: {error}", whole)))
    }

    /// What is to be done about an object that is not ours under a name of ours.
    pub(crate) fn foreign(&self, path: &str, foreign: &ForeignFile) -> SinkError {
        let place = self.place();
        SinkError::halt(match foreign {
            ForeignFile::OtherIdentity(event_id) => format!(
                "{path} at {place} has events of another slot or cluster ({event_id}). Give this sink a url of \
                 its own"
            ),
            ForeignFile::OtherHistory(event_id) => format!(
                "{path} at {place} has another transaction's event under the id {event_id}: the source's history \
                 was rewritten, as by a failover that lost transactions. Give this sink a url of its own to begin a \
                 new archive"
            ),
            ForeignFile::Unreadable(why) => {
                format!("{path} at {place} is no file of this archive: {why}. Move it elsewhere")
            }
        })
    }
}

/// How files are written.
#[derive(Clone, Debug)]
pub(crate) struct Writing {
    pub(crate) naming: Naming,
    pub(crate) level: flate2::Compression,
}

/// Runs what takes the CPU for more than a moment beside the runtime's own threads.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, SinkError> {
    let ended = tokio::task::spawn_blocking(work).await;
    ended.map_err(|error| SinkError::retry(format!("a task of the archive ended early: {error}")))
}

/// Whether the store said that it has no conditional puts.
fn is_unconditional(error: &Error) -> bool {
    match error {
        Error::NotImplemented { .. } | Error::NotSupported { .. } => true,
        error => error.to_string().contains("<Code>NotImplemented</Code>"),
    }
}

fn secret_access_key(config: &ObjectStoreConfig) -> Result<String, SinkError> {
    match &config.secret_access_key_file {
        Some(path) if config.secret_access_key.is_empty() => match std::fs::read_to_string(path) {
            Ok(text) => Ok(text.trim_end().to_owned()),
            Err(error) => Err(SinkError::halt(format!(
                "secret_access_key_file {}: {error}. Make the file readable, or correct the path",
                path.display()
            ))),
        },
        _ => Ok(config.secret_access_key.expose().to_owned()),
    }
}

fn s3(config: &ObjectStoreConfig, bucket: &str, secret_key: &str) -> Result<Arc<dyn ObjectStore>, Error> {
    let timeout = Duration::from_millis(config.request_timeout_ms);
    let key_id = config.access_key_id.expose();
    let keys_given = !key_id.is_empty() || !secret_key.is_empty();
    let mut builder = if keys_given { AmazonS3Builder::new() } else { AmazonS3Builder::from_env() };
    if !key_id.is_empty() {
        builder = builder.with_access_key_id(key_id);
    }
    if !secret_key.is_empty() {
        builder = builder.with_secret_access_key(secret_key);
    }
    if !config.endpoint.is_empty() {
        // Buckets as the path's first part is what every other store than AWS understands.
        builder = builder
            .with_endpoint(config.endpoint.trim_end_matches('/'))
            .with_virtual_hosted_style_request(false);
    }
    // `auto` is R2's only region and none of AWS': there the environment may know, else it is us-east-1.
    if config.region != "auto" || !config.endpoint.is_empty() {
        builder = builder.with_region(&config.region);
    }
    let client = ClientOptions::new()
        .with_timeout(timeout)
        .with_connect_timeout(timeout.min(CONNECT_TIMEOUT_MAX))
        .with_allow_http(config.endpoint.starts_with("http://"));
    let store = builder
        .with_bucket_name(bucket)
        .with_client_options(client)
        .with_conditional_put(S3ConditionalPut::ETagMatch)
        // The pipeline tries again, with pauses of its own and a metric.
        .with_retry(RetryConfig { max_retries: 1, retry_timeout: timeout, ..RetryConfig::default() })
        .build()?;
    Ok(Arc::new(store))
}
