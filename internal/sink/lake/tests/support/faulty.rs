//! A store that fails now and then, by a seed: before or after it has done what it was asked, or in the middle of a reply.

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::{self, BoxStream};
use futures_util::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex};

/// What happens to a request.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Fault {
    /// 500, and nothing was done.
    Internal,
    /// 503, and nothing was done.
    SlowDown,
    /// It is done and the reply does not come.
    LostReply,
    /// The reply ends early, and nobody says so.
    Truncated,
}

#[derive(Debug)]
pub struct Faulty {
    inner: Arc<dyn ObjectStore>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    random: u64,
    /// One request in so many fails; none at 0.
    one_in: u64,
    seen: BTreeMap<(&'static str, Fault), u64>,
}

/// The next of a sequence of numbers (xorshift64).
pub fn next(random: &mut u64) -> u64 {
    *random ^= *random << 13;
    *random ^= *random >> 7;
    *random ^= *random << 17;
    *random
}

impl Faulty {
    pub fn new(inner: Arc<dyn ObjectStore>, seed: u64, one_in: u64) -> Arc<Self> {
        let random = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        Arc::new(Self { inner, state: Mutex::new(State { random, one_in, seen: BTreeMap::new() }) })
    }

    /// How often each fault met each kind of request.
    pub fn seen(&self) -> BTreeMap<(&'static str, Fault), u64> {
        self.state.lock().unwrap().seen.clone()
    }

    fn fault(&self, request: &'static str) -> Option<Fault> {
        let mut state = self.state.lock().unwrap();
        if state.one_in == 0 || !next(&mut state.random).is_multiple_of(state.one_in) {
            return None;
        }
        let faults = [Fault::Internal, Fault::SlowDown, Fault::LostReply, Fault::Truncated];
        let fault = faults[(next(&mut state.random) >> 20) as usize % faults.len()];
        if fault == Fault::Truncated && request != "get" {
            return None;
        }
        *state.seen.entry((request, fault)).or_default() += 1;
        Some(fault)
    }

    /// What a request comes to that changes something.
    async fn act<T>(&self, request: &'static str, work: impl Future<Output = Result<T>> + Send) -> Result<T> {
        match self.fault(request) {
            None | Some(Fault::Truncated) => work.await,
            Some(Fault::LostReply) => {
                let _ = work.await;
                Err(error("operation timed out"))
            }
            Some(fault) => Err(of(fault)),
        }
    }
}

fn of(fault: Fault) -> Error {
    error(match fault {
        Fault::SlowDown => "503 Service Unavailable: <Error><Code>SlowDown</Code></Error>",
        _ => "500 Internal Server Error: <Error><Code>InternalError</Code></Error>",
    })
}

fn error(text: &str) -> Error {
    Error::Generic { store: "faulty", source: text.into() }
}

impl fmt::Display for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Faulty({})", self.inner)
    }
}

#[async_trait]
impl ObjectStore for Faulty {
    async fn put_opts(&self, path: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.act("put", self.inner.put_opts(path, payload, options)).await
    }

    async fn put_multipart_opts(
        &self,
        path: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.act("put", self.inner.put_multipart_opts(path, options)).await
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        let is_head = options.head;
        match self.fault("get") {
            None => self.inner.get_opts(path, options).await,
            Some(Fault::Truncated) if !is_head => {
                let found = self.inner.get_opts(path, options).await?;
                let (meta, range, attributes) =
                    (found.meta.clone(), found.range.clone(), found.attributes.clone());
                let body = found.bytes().await?;
                let part: Result<Bytes> = Ok(body.slice(..body.len() / 2));
                let payload = GetResultPayload::Stream(stream::iter([part]).boxed());
                Ok(GetResult { payload, meta, range, attributes, extensions: Default::default() })
            }
            Some(fault) => Err(of(fault)),
        }
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        match self.fault("delete") {
            None | Some(Fault::Truncated) => self.inner.delete_stream(paths),
            Some(Fault::LostReply) => self
                .inner
                .delete_stream(paths)
                .and_then(|_| async { Err(error("operation timed out")) })
                .boxed(),
            Some(fault) => stream::iter([Err(of(fault))]).boxed(),
        }
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        match self.fault("list") {
            None | Some(Fault::Truncated) => self.inner.list(prefix),
            Some(_) => {
                self.inner.list(prefix).take(1).chain(stream::iter([Err(of(Fault::SlowDown))])).boxed()
            }
        }
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.act("list", self.inner.list_with_delimiter(prefix)).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.act("copy", self.inner.copy_opts(from, to, options)).await
    }
}
