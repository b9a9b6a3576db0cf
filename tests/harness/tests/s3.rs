//! The S3 part of the harness, seen through a client that signs.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::{ClientOptions, Error, ObjectStore, ObjectStoreExt, PutMode, RetryConfig, path::Path};
use replicator_harness::S3;
use std::time::Duration;

fn client(s3: &S3, secret: &str) -> AmazonS3 {
    let retry = RetryConfig { max_retries: 0, retry_timeout: Duration::from_secs(5), ..Default::default() };
    AmazonS3Builder::new()
        .with_endpoint(s3.endpoint())
        .with_bucket_name("lake")
        .with_region("auto")
        .with_access_key_id(s3.access_key())
        .with_secret_access_key(secret)
        .with_client_options(ClientOptions::new().with_allow_http(true))
        .with_retry(retry)
        .build()
        .unwrap()
}

#[tokio::test]
async fn an_object_put_is_seen_in_the_folder_and_outlives_a_stop() {
    let s3 = S3::with_bucket("lake");
    let store = client(&s3, s3.secret_key());
    let key = Path::from("wal/events/a.ndjson.gz");
    store.put(&key, "one".into()).await.unwrap();
    store.put(&Path::from("other"), "two".into()).await.unwrap();
    assert_eq!(s3.list("lake", "wal/"), ["wal/events/a.ndjson.gz"]);
    assert_eq!(s3.get("lake", "wal/events/a.ndjson.gz"), b"one");

    s3.stop();
    assert!(store.get(&key).await.is_err());
    s3.start_again();
    assert_eq!(store.get(&key).await.unwrap().bytes().await.unwrap().as_ref(), b"one");
}

#[tokio::test]
async fn a_conditional_put_does_not_overwrite() {
    let s3 = S3::with_bucket("lake");
    let store = client(&s3, s3.secret_key());
    let key = Path::from("once");
    store.put_opts(&key, "first".into(), PutMode::Create.into()).await.unwrap();
    let second = store.put_opts(&key, "second".into(), PutMode::Create.into()).await;
    assert!(matches!(second, Err(Error::AlreadyExists { .. })), "{second:?}");
    assert_eq!(s3.get("lake", "once"), b"first");
}

#[tokio::test]
async fn a_wrong_secret_is_refused() {
    let s3 = S3::with_bucket("lake");
    let refused = client(&s3, "wrong").put(&Path::from("a"), "b".into()).await;
    assert!(matches!(refused, Err(Error::PermissionDenied { .. })), "{refused:?}");
    assert!(s3.list("lake", "").is_empty());
}
