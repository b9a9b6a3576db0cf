//! A store that fails on purpose, before or after it has done what it was asked.

use async_trait::async_trait;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMode,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex};

/// What happens to a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// Nothing special.
    None,
    /// It fails and nothing was done.
    Before,
    /// It is done and the reply is lost.
    After,
    /// The store knows no conditional puts.
    Unconditional,
}

#[derive(Debug)]
pub struct Faulty {
    inner: Arc<dyn ObjectStore>,
    /// For the requests to come, in order; none when it is empty.
    faults: Mutex<VecDeque<Fault>>,
    /// Paths of puts, in order, whatever became of them.
    pub puts: Mutex<Vec<String>>,
    pub gets: Mutex<Vec<String>>,
    pub lists: Mutex<Vec<String>>,
}

impl Faulty {
    pub fn new(inner: Arc<dyn ObjectStore>) -> Arc<Self> {
        Arc::new(Self {
            inner,
            faults: Mutex::default(),
            puts: Mutex::default(),
            gets: Mutex::default(),
            lists: Mutex::default(),
        })
    }

    pub fn plan(&self, faults: impl IntoIterator<Item = Fault>) {
        *self.faults.lock().unwrap() = faults.into_iter().collect();
    }

    fn next(&self) -> Fault {
        self.faults.lock().unwrap().pop_front().unwrap_or(Fault::None)
    }
}

impl fmt::Display for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Faulty({})", self.inner)
    }
}

fn lost() -> Error {
    Error::Generic { store: "faulty", source: "operation timed out".into() }
}

#[async_trait]
impl ObjectStore for Faulty {
    async fn put_opts(&self, path: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.puts.lock().unwrap().push(path.to_string());
        match self.next() {
            Fault::None => self.inner.put_opts(path, payload, options).await,
            Fault::Before => Err(lost()),
            Fault::After => {
                self.inner.put_opts(path, payload, options).await?;
                Err(lost())
            }
            Fault::Unconditional if options.mode == PutMode::Create => Err(Error::Generic {
                store: "faulty",
                source: "Server returned non-2xx status code: 501 Not Implemented: \
                         <Error><Code>NotImplemented</Code><Message>If-None-Match</Message></Error>"
                    .into(),
            }),
            Fault::Unconditional => self.inner.put_opts(path, payload, options).await,
        }
    }

    async fn put_multipart_opts(
        &self,
        path: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(path, options).await
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        self.gets.lock().unwrap().push(path.to_string());
        match self.next() {
            Fault::None | Fault::Unconditional => self.inner.get_opts(path, options).await,
            Fault::Before | Fault::After => Err(lost()),
        }
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(paths)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.lists.lock().unwrap().push(prefix.map(Path::to_string).unwrap_or_default());
        match self.next() {
            Fault::None | Fault::Unconditional => self.inner.list(prefix),
            Fault::Before => futures_util::stream::iter([Err(lost())]).boxed(),
            Fault::After => self.inner.list(prefix).chain(futures_util::stream::iter([Err(lost())])).boxed(),
        }
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}
