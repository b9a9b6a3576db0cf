use crate::background;
use crate::scratch::{Port, Scratch};
use hyper_util::rt::TokioIo;
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s_fs::FileSystem;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};

/// An S3 server over a folder (`s3s-fs`), in this process. It checks signatures and knows
/// `If-None-Match: *`. Path-style addressing.
///
/// It sees whether the object exists before it writes, not while: of two conditional puts at the same instant
/// both may win.
#[derive(Debug)]
pub struct S3 {
    port: Port,
    scratch: Scratch,
    server: Mutex<Option<JoinHandle<()>>>,
}

impl S3 {
    /// Starts one without buckets.
    pub fn start() -> Self {
        let s3 = Self { port: Port::take(), scratch: Scratch::new("s3"), server: Mutex::new(None) };
        s3.start_again();
        s3
    }

    /// Starts one with a bucket.
    pub fn with_bucket(bucket: &str) -> Self {
        let s3 = Self::start();
        s3.create_bucket(bucket);
        s3
    }

    /// `http://127.0.0.1:{port}`
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address())
    }

    /// `127.0.0.1:{port}`, for a [`Proxy`](crate::Proxy).
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port.number())
    }

    /// The access key id it takes.
    pub fn access_key(&self) -> &'static str {
        "harness"
    }

    /// The secret access key it takes.
    pub fn secret_key(&self) -> &'static str {
        "harness-secret"
    }

    /// Makes a bucket. One that exists stays as it is.
    pub fn create_bucket(&self, bucket: &str) {
        fs::create_dir_all(self.scratch.path().join(bucket)).expect("make a bucket's folder");
    }

    /// The folder that holds the objects of a bucket, each as a file under its key.
    pub fn folder(&self, bucket: &str) -> PathBuf {
        self.scratch.path().join(bucket)
    }

    /// The keys of a bucket that begin with `prefix`, sorted.
    pub fn list(&self, bucket: &str, prefix: &str) -> Vec<String> {
        let folder = self.folder(bucket);
        let mut keys: Vec<String> = files_under(&folder)
            .iter()
            .filter_map(|path| Some(path.strip_prefix(&folder).ok()?.to_str()?.to_owned()))
            .filter(|key| key.starts_with(prefix))
            .collect();
        keys.sort();
        keys
    }

    /// An object's bytes.
    ///
    /// # Panics
    /// When there is none.
    pub fn get(&self, bucket: &str, key: &str) -> Vec<u8> {
        fs::read(self.folder(bucket).join(key))
            .unwrap_or_else(|error| panic!("object {bucket}/{key}: {error}"))
    }

    /// Stops it in the middle of whatever it does. Objects stay.
    pub fn stop(&self) {
        let server = self.server.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(server) = server {
            background::stop(server);
        }
    }

    /// Starts it after [`S3::stop`], at the same endpoint with the same objects.
    pub fn start_again(&self) {
        let files =
            FileSystem::new(self.scratch.path()).unwrap_or_else(|error| panic!("serve a folder: {error:?}"));
        let mut builder = S3ServiceBuilder::new(files);
        builder.set_auth(SimpleAuth::from_single(self.access_key(), self.secret_key()));
        let listener = background::listen(self.port.number());
        let server = background::spawn(serve(listener, builder.build()));
        *self.server.lock().unwrap_or_else(PoisonError::into_inner) = Some(server);
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        self.stop();
    }
}

async fn serve(listener: TcpListener, service: S3Service) {
    // Ends its connections with itself.
    let mut connections = JoinSet::new();
    while let Ok((socket, _)) = listener.accept().await {
        let connection = hyper::server::conn::http1::Builder::new()
            .serve_connection(TokioIo::new(socket), service.clone());
        connections.spawn(async move {
            // A client that goes away is not the server's trouble.
            let _ = connection.await;
        });
        while connections.try_join_next().is_some() {}
    }
}

/// All files under `folder`, at any depth; none when it is not there.
pub(crate) fn files_under(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut files = Vec::new();
    for path in entries.flatten().map(|entry| entry.path()) {
        if path.is_dir() {
            files.extend(files_under(&path));
        } else {
            files.push(path);
        }
    }
    files
}
