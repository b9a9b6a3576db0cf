//! The store: which one the configuration means, and what is done there.

use crate::errors::Explainer;
use crate::local::LocalFolder;
use bytes::Bytes;
use futures_util::TryStreamExt;
use object_store::aws::{AmazonS3Builder, S3ConditionalPut};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    Attribute, Attributes, ClientOptions, Error, GetOptions, GetRange, GetResult, ObjectMeta, ObjectStore,
    ObjectStoreExt, PutMode, PutOptions, PutPayload, RetryConfig, UpdateVersion,
};
use replicator_config::StorePlace;
use replicator_sink::SinkError;
use slog::{Logger, warn};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

/// How long a connection to the store may take to open, at most.
const CONNECT_TIMEOUT_MAX: Duration = Duration::from_secs(10);

/// The most bytes that one put has.
pub const PUT_BYTES_MAX: u64 = 64 << 20;

/// Bytes of a part of a larger object: S3 takes 10,000 parts, so up to 160 GB.
const PART_BYTES: u64 = 16 << 20;

/// A place in a store.
#[derive(Debug)]
pub struct Store {
    store: Arc<dyn ObjectStore>,
    /// What is before every path; empty, or without a slash at its ends.
    base: String,
    local: Option<LocalFolder>,
    explainer: Explainer,
    /// Whether puts are conditional: until the store says that it knows no such thing.
    conditional: AtomicBool,
    logger: Logger,
}

/// What became of a conditional put.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Put {
    /// It is there, durably.
    Done,
    /// There is another object of that name already (or: another one than was seen).
    Exists,
}

/// Which object was seen under a name.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Version {
    e_tag: Option<String>,
    version: Option<String>,
}

/// An object that is there.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Found {
    /// Relative to the place.
    pub path: String,
    /// Size.
    pub bytes: u64,
    /// When it was written, by the store's clock.
    pub modified: SystemTime,
    /// Which it is.
    pub version: Version,
}

/// Whether the endpoint is a URL, which the library takes for granted, and without credentials, which it shows in its
/// errors and does not use.
fn verify_endpoint(config: &StorePlace) -> Result<(), SinkError> {
    if config.endpoint.is_empty() {
        return Ok(());
    }
    let endpoint = url::Url::parse(&config.endpoint);
    let wrong = match &endpoint {
        Err(_) => "is no URL: write http://host:port or https://host:port",
        Ok(url) if !url.username().is_empty() || url.password().is_some() => {
            "has a user or a password: these belong into access_key_id and secret_access_key"
        }
        Ok(_) => return Ok(()),
    };
    Err(SinkError::halt(format!("the endpoint of the sink at {} {wrong}", config.url)))
}

impl Store {
    /// The place that `config` names. Nothing is connected yet.
    ///
    /// # Errors
    /// For a person to mend: the URL is none of `s3://bucket/prefix` and `file:///folder`, or a secret's file cannot
    /// be read.
    pub fn open(config: &StorePlace, logger: Logger) -> Result<Self, SinkError> {
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
            return Ok(Self { local, ..Self::of(store, base.as_ref(), explainer, logger) });
        }
        let (bucket, prefix) = match config.url.strip_prefix("s3://") {
            Some(place) => place.split_once('/').unwrap_or((place, "")),
            None => return Err(wrong_url("is of no known kind")),
        };
        if bucket.is_empty() {
            return Err(wrong_url("names no bucket"));
        }
        if bucket.contains('@') {
            let text = "the url of a sink has something before its bucket: write s3://bucket/prefix, and credentials into \
                        access_key_id and secret_access_key";
            return Err(SinkError::halt(text));
        }
        verify_endpoint(config)?;
        let base = Path::parse(prefix).map_err(|_| wrong_url("has a prefix that no object can have"))?;
        let store = s3(config, bucket, &secret_key)
            .map_err(|error| explainer.explain("opening the store", &error))?;
        Ok(Self::of(store, base.as_ref(), explainer, logger))
    }

    /// A place in a store made elsewhere: one that is wrapped, or only in memory. The store has to be durable in
    /// itself when its puts return.
    pub fn at(store: Arc<dyn ObjectStore>, base: &str, logger: Logger) -> Self {
        let explainer = Explainer::new(format!("{store}/{base}"), Vec::new());
        Self::of(store, base, explainer, logger)
    }

    fn of(store: Arc<dyn ObjectStore>, base: &str, explainer: Explainer, logger: Logger) -> Self {
        let base = base.trim_matches('/').to_owned();
        Self { store, base, local: None, explainer, conditional: AtomicBool::new(true), logger }
    }

    /// The place as the configuration has it.
    pub fn place(&self) -> &str {
        self.explainer.place()
    }

    /// The folder, when the place is one of this machine.
    pub fn local(&self) -> Option<&LocalFolder> {
        self.local.as_ref()
    }

    /// Whether what is below `folder` can be listed. Changes nothing.
    pub async fn try_listing(&self, folder: &str) -> Result<(), SinkError> {
        let prefix = self.location(folder)?;
        let listed = self.store.list_with_delimiter(Some(&prefix)).await;
        listed.map(|_| ()).map_err(|error| self.explainer.explain("listing", &error))
    }

    /// Whether the place answers: a request for `path`, where nothing is, the cheapest there is.
    pub async fn ping(&self, path: &str) -> Result<(), SinkError> {
        if let Some(local) = &self.local {
            return local.ping();
        }
        match self.store.get(&self.location(path)?).await {
            Ok(_) => Ok(()),
            Err(error @ Error::NotFound { .. }) if !error.to_string().contains("NoSuchBucket") => Ok(()),
            Err(error) => Err(self.explainer.explain("reading", &error)),
        }
    }

    /// The objects below `folder`, at any depth, by path.
    pub async fn list(&self, folder: &str) -> Result<Vec<Found>, SinkError> {
        let prefix = self.location(folder)?;
        let mut listing = self.store.list(Some(&prefix));
        let mut found = Vec::new();
        let explain = |error| self.explainer.explain(&format!("listing {folder}"), &error);
        while let Some(object) = listing.try_next().await.map_err(explain)? {
            let path = match object.location.as_ref().strip_prefix(self.base.as_str()) {
                Some(rest) => rest.trim_start_matches('/').to_owned(),
                None => continue,
            };
            // A name that the store spells otherwise than it was asked for is none of ours.
            if self.location(&path).is_ok_and(|location| location == object.location) {
                found.push(found_at(path, object));
            }
        }
        found.sort_unstable_by(|a, b| a.path.cmp(&b.path));
        Ok(found)
    }

    /// The names of the folders in `folder`.
    pub async fn folders(&self, folder: &str) -> Result<Vec<String>, SinkError> {
        let prefix = self.location(folder)?;
        let listed = self.store.list_with_delimiter(Some(&prefix)).await;
        let listed = listed.map_err(|error| self.explainer.explain(&format!("listing {folder}"), &error))?;
        let name = |path: &Path| path.filename().map(str::to_owned);
        Ok(listed.common_prefixes.iter().filter_map(name).collect())
    }

    /// Puts `body` at `path` if nothing has that name. `metadata` goes with it where the store keeps such.
    pub async fn put_new(
        &self,
        path: &str,
        body: Bytes,
        metadata: &[(&'static str, String)],
    ) -> Result<Put, SinkError> {
        self.ensure(path).await?;
        let location = self.location(path)?;
        let explain = |error: Error| self.explainer.explain(&format!("writing {path}"), &error);
        if self.conditional.load(Ordering::Relaxed) {
            match self.put_as(&location, body.clone(), PutMode::Create, metadata).await {
                Ok(()) => return Ok(Put::Done),
                Err(Error::AlreadyExists { .. }) => return Ok(Put::Exists),
                Err(error) if is_unconditional(&error) => {
                    warn!(self.logger, "the store has no conditional puts; using plain ones"; "place" => self.place());
                    self.conditional.store(false, Ordering::Relaxed);
                }
                Err(error) => return Err(explain(error)),
            }
        }
        self.put_as(&location, body, PutMode::Overwrite, metadata).await.map_err(explain)?;
        Ok(Put::Done)
    }

    async fn put_as(
        &self,
        location: &Path,
        body: Bytes,
        mode: PutMode,
        metadata: &[(&'static str, String)],
    ) -> Result<(), Error> {
        let mut attributes = Attributes::new();
        // A folder has no place for them.
        if self.local.is_none() {
            for (name, value) in metadata {
                attributes.insert(Attribute::Metadata((*name).into()), value.clone().into());
            }
        }
        let options = PutOptions { mode, attributes, ..PutOptions::default() };
        self.store.put_opts(location, PutPayload::from_bytes(body), options).await.map(|_| ())
    }

    /// The object at `path`, made durable if it was not; `None` when there is none.
    pub async fn find(&self, path: &str) -> Result<Option<Bytes>, SinkError> {
        Ok(self.find_version(path).await?.map(|(body, _)| body))
    }

    /// As [`Store::find`], with which object it is.
    pub async fn find_version(&self, path: &str) -> Result<Option<(Bytes, Version)>, SinkError> {
        let explain = |error| self.explainer.explain(&format!("reading {path}"), &error);
        match self.store.get(&self.location(path)?).await {
            Ok(found) => {
                self.settle(path).await?;
                let version = version_of(&found.meta);
                Ok(Some((whole(found).await.map_err(explain)?, version)))
            }
            Err(Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(explain(error)),
        }
    }

    /// What there is to know of the object at `path`; `None` when there is none.
    pub async fn head(&self, path: &str) -> Result<Option<Found>, SinkError> {
        match self.store.head(&self.location(path)?).await {
            Ok(object) => Ok(Some(found_at(path.to_owned(), object))),
            Err(Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(self.explainer.explain(&format!("reading {path}"), &error)),
        }
    }

    /// Puts `body` at `path`, in the place of what is there.
    pub async fn replace(&self, path: &str, body: Bytes) -> Result<(), SinkError> {
        self.ensure(path).await?;
        let put = self.store.put(&self.location(path)?, body.into()).await;
        put.map(|_| ()).map_err(|error| self.explainer.explain(&format!("writing {path}"), &error))
    }

    /// Puts `body` at `path` if what is there is still `seen` (`None`: nothing). A folder knows no such condition
    /// but the last: there whoever replaces a file has to keep others from it.
    pub async fn replace_version(
        &self,
        path: &str,
        body: Bytes,
        seen: Option<&Version>,
    ) -> Result<Put, SinkError> {
        let Some(seen) = seen else { return self.put_new(path, body, &[]).await };
        self.ensure(path).await?;
        let update = UpdateVersion { e_tag: seen.e_tag.clone(), version: seen.version.clone() };
        let mode = if self.local.is_some() { PutMode::Overwrite } else { PutMode::Update(update) };
        match self.put_as(&self.location(path)?, body, mode, &[]).await {
            Ok(()) => Ok(Put::Done),
            Err(Error::Precondition { .. } | Error::AlreadyExists { .. } | Error::NotFound { .. }) => {
                Ok(Put::Exists)
            }
            Err(error) => Err(self.explainer.explain(&format!("replacing {path}"), &error)),
        }
    }

    /// As [`Store::replace_version`], with the bytes of a file, however large. Beyond [`PUT_BYTES_MAX`] it goes in
    /// parts, and what is there is compared just before the last step: two that replace it in the same moment may
    /// both succeed.
    pub async fn replace_with_file(
        &self,
        path: &str,
        mut file: std::fs::File,
        seen: Option<&Version>,
    ) -> Result<Put, SinkError> {
        let failed =
            |error: std::io::Error| SinkError::retry(format!("reading what goes to {path}: {error}"));
        let bytes = file.metadata().map_err(failed)?.len();
        if bytes <= PUT_BYTES_MAX {
            let body = blocking(move || {
                let mut body = Vec::with_capacity(bytes as usize);
                std::io::Read::read_to_end(&mut file, &mut body).map(|_| body)
            });
            return self.replace_version(path, body.await?.map_err(failed)?.into(), seen).await;
        }
        self.ensure(path).await?;
        let explain = |error: Error| self.explainer.explain(&format!("writing {path}"), &error);
        let mut upload = self.store.put_multipart(&self.location(path)?).await.map_err(explain)?;
        loop {
            let (read, rest) = blocking(move || {
                let mut part = Vec::with_capacity(PART_BYTES as usize);
                let read = std::io::Read::read_to_end(&mut std::io::Read::take(&file, PART_BYTES), &mut part);
                (read.map(|_| part), file)
            })
            .await?;
            file = rest;
            let part = read.map_err(failed)?;
            if part.is_empty() {
                break;
            }
            upload.put_part(part.into()).await.map_err(explain)?;
        }
        if self.head(path).await?.map(|found| found.version).as_ref() != seen {
            // What is left of it costs until the store's own rules remove it.
            let _ = upload.abort().await;
            return Ok(Put::Exists);
        }
        upload.complete().await.map_err(explain)?;
        self.settle(path).await?;
        Ok(Put::Done)
    }

    /// Copies the object at `path` into a file, in pieces.
    pub async fn download(&self, path: &str, file: std::fs::File) -> Result<(), SinkError> {
        let failed =
            |error: std::io::Error| SinkError::retry(format!("keeping what comes from {path}: {error}"));
        let Some(found) = self.head(path).await? else {
            return Err(SinkError::retry(format!("{path} at {} is gone", self.place())));
        };
        let file = Arc::new(file);
        let mut begin = 0;
        while begin < found.bytes {
            let end = found.bytes.min(begin + PART_BYTES);
            let part = self.range(path, begin..end, &found.version).await?;
            if part.len() as u64 != end - begin {
                return Err(SinkError::retry(format!("{path} at {} ended early", self.place())));
            }
            let file = Arc::clone(&file);
            let written = blocking(move || std::io::Write::write_all(&mut file.as_ref(), &part));
            written.await?.map_err(failed)?;
            begin = end;
        }
        Ok(())
    }

    /// The object at `path`.
    pub async fn get(&self, path: &str) -> Result<Bytes, SinkError> {
        let explain = |error| self.explainer.explain(&format!("reading {path}"), &error);
        let found = self.store.get(&self.location(path)?).await.map_err(explain)?;
        whole(found).await.map_err(explain)
    }

    /// Those bytes of the object at `path`, if it is still the one that was seen. If another was put in its place, the
    /// pieces would be of two.
    async fn range(&self, path: &str, range: Range<u64>, seen: &Version) -> Result<Bytes, SinkError> {
        let explain = |error| self.explainer.explain(&format!("reading {path}"), &error);
        let options =
            GetOptions { range: Some(range.into()), if_match: seen.e_tag.clone(), ..Default::default() };
        match self.store.get_opts(&self.location(path)?, options).await {
            Ok(found) => whole(found).await.map_err(explain),
            Err(Error::Precondition { .. }) => {
                Err(SinkError::retry(format!("{path} at {} was put anew while it was read", self.place())))
            }
            Err(error) => Err(explain(error)),
        }
    }

    /// The last bytes of the object at `path`, at most so many, and how long it is.
    pub async fn tail(&self, path: &str, bytes_max: u64) -> Result<(Bytes, u64), SinkError> {
        let explain = |error| self.explainer.explain(&format!("reading {path}"), &error);
        let of = |range| GetOptions { range: Some(range), ..GetOptions::default() };
        let location = self.location(path)?;
        let found = match self.store.get_opts(&location, of(GetRange::Suffix(bytes_max))).await {
            Ok(found) => found,
            Err(error @ Error::NotFound { .. }) => return Err(explain(error)),
            // Some stores fail where that is more than the object has.
            Err(_) => loop {
                let head = self.store.head(&location).await.map_err(explain)?;
                let range = GetRange::Bounded(head.size.saturating_sub(bytes_max)..head.size);
                // Of the object that was measured; another may be put in its place in between.
                let options = GetOptions { if_match: head.e_tag, ..of(range) };
                match self.store.get_opts(&location, options).await {
                    Err(Error::Precondition { .. }) => {}
                    found => break found.map_err(explain)?,
                }
            },
        };
        let bytes = found.meta.size;
        Ok((whole(found).await.map_err(explain)?, bytes))
    }

    /// Removes the object at `path`; none is no error.
    pub async fn delete(&self, path: &str) -> Result<(), SinkError> {
        match self.store.delete(&self.location(path)?).await {
            Ok(()) | Err(Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(self.explainer.explain(&format!("removing {path}"), &error)),
        }
    }

    /// Moves the object at `from` to `to`, in the place of what is there. If it fails half-way, it is at both.
    pub async fn rename(&self, from: &str, to: &str) -> Result<(), SinkError> {
        self.copy(from, to).await?;
        self.delete(from).await
    }

    /// Copies the object at `from` to `to`, in the place of what is there.
    pub async fn copy(&self, from: &str, to: &str) -> Result<(), SinkError> {
        self.ensure(to).await?;
        let copied = self.store.copy(&self.location(from)?, &self.location(to)?).await;
        copied.map_err(|error| self.explainer.explain(&format!("copying {from} to {to}"), &error))?;
        self.settle(to).await
    }

    /// Makes what is at `path` durable: the process that wrote it may have died in between.
    pub async fn settle(&self, path: &str) -> Result<(), SinkError> {
        match &self.local {
            Some(local) => local.settle(path).await,
            None => Ok(()),
        }
    }

    async fn ensure(&self, path: &str) -> Result<(), SinkError> {
        match &self.local {
            Some(local) => local.ensure(path).await,
            None => Ok(()),
        }
    }

    fn location(&self, path: &str) -> Result<Path, SinkError> {
        let whole = match (self.base.as_str(), path) {
            ("", path) => path.to_owned(),
            (base, "") => base.to_owned(),
            (base, path) => format!("{base}/{path}"),
        };
        Path::parse(&whole)
            .map_err(|error| SinkError::halt(format!("{} cannot be in an object's name: {error}", whole)))
    }
}

/// The bytes of a reply, all that it promised.
async fn whole(found: GetResult) -> Result<Bytes, Error> {
    let promised = found.range.end.saturating_sub(found.range.start);
    let body = found.bytes().await?;
    if body.len() as u64 == promised {
        return Ok(body);
    }
    let text = format!("the reply ended early: {} of {promised} bytes came", body.len());
    Err(Error::Generic { store: "store", source: text.into() })
}

fn version_of(meta: &ObjectMeta) -> Version {
    Version { e_tag: meta.e_tag.clone(), version: meta.version.clone() }
}

fn found_at(path: String, object: ObjectMeta) -> Found {
    Found { path, bytes: object.size, version: version_of(&object), modified: object.last_modified.into() }
}

/// Runs what takes the CPU for more than a moment beside the runtime's own threads.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, SinkError> {
    let ended = tokio::task::spawn_blocking(work).await;
    ended.map_err(|error| SinkError::retry(format!("a task beside the store ended early: {error}")))
}

/// Whether the store said that it has no conditional puts.
fn is_unconditional(error: &Error) -> bool {
    match error {
        Error::NotImplemented { .. } | Error::NotSupported { .. } => true,
        error => error.to_string().contains("<Code>NotImplemented</Code>"),
    }
}

/// The secret key, from wherever the configuration says.
///
/// # Errors
/// Its file cannot be read.
pub fn secret_access_key(config: &StorePlace) -> Result<String, SinkError> {
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

fn s3(config: &StorePlace, bucket: &str, secret_key: &str) -> Result<Arc<dyn ObjectStore>, Error> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use object_store::memory::InMemory;

    #[tokio::test]
    async fn pieces_of_two_objects_are_never_put_together() {
        let log = slog::Logger::root(slog::Discard, slog::o!());
        let store = Store::at(Arc::new(InMemory::new()), "p", log);
        store.replace("x", Bytes::from_static(b"first")).await.unwrap();
        let seen = store.head("x").await.unwrap().unwrap().version;
        assert_eq!(store.range("x", 1..3, &seen).await.unwrap(), "ir");
        store.replace("x", Bytes::from_static(b"and a longer one")).await.unwrap();
        let refused = store.range("x", 1..3, &seen).await.unwrap_err();
        assert_eq!(refused.kind(), replicator_sink::ErrorKind::Retry);
        assert!(refused.to_string().contains("was put anew while it was read"), "{refused}");
    }
}
