//! The endpoints over real sockets.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use replicator_admin::{Endpoints, ReadyState, bind, serve};
use replicator_telemetry::PrometheusHandle;
use std::net::SocketAddr;
use std::sync::OnceLock;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// A process has one recorder; the tests share it.
fn recorder() -> PrometheusHandle {
    static RECORDER: OnceLock<PrometheusHandle> = OnceLock::new();
    RECORDER.get_or_init(|| replicator_telemetry::metrics::install().unwrap()).clone()
}

struct Server {
    address: SocketAddr,
    ready: ReadyState,
    stop: oneshot::Sender<()>,
    task: JoinHandle<std::io::Result<()>>,
}

async fn start() -> Server {
    let listener = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = listener.local_addr().unwrap();
    let ready = ReadyState::new(["analytics", "archive"]);
    let (stop, stopped) = oneshot::channel::<()>();
    let endpoints =
        Endpoints::new(recorder(), ready.clone(), || metrics::gauge!("test_refreshed").increment(1.0));
    let task = tokio::spawn(serve(listener, endpoints, async move {
        let _ = stopped.await;
    }));
    Server { address, ready, stop, task }
}

/// Status line, head and body.
async fn get(address: SocketAddr, path: &str) -> (u16, String, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, head.to_ascii_lowercase(), body.to_owned())
}

#[tokio::test]
async fn metrics_are_prometheus_text_and_refreshed_at_each_scrape() {
    let server = start().await;
    let count = |body: &str| -> f64 {
        body.lines().find_map(|line| line.strip_prefix("test_refreshed ")).unwrap().parse().unwrap()
    };
    let (status, head, first) = get(server.address, "/metrics").await;
    assert_eq!(status, 200);
    assert!(head.contains("content-type: text/plain; version=0.0.4"), "{head}");
    assert!(first.contains("# TYPE replicator_build_info gauge"), "{first}");
    let (_, _, second) = get(server.address, "/metrics").await;
    assert!(count(&second) > count(&first));
}

#[tokio::test]
async fn readyz_names_each_part_and_its_reason() {
    let server = start().await;
    let body = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();

    let (status, head, starting) = get(server.address, "/readyz").await;
    assert_eq!(status, 503);
    assert!(head.contains("content-type: application/json"), "{head}");
    assert_eq!(body(&starting)["source"], serde_json::json!({"ok": false, "reason": "starting"}));

    server.ready.set_source(Ok(()));
    server.ready.set_sink("analytics", Ok(()));
    server.ready.set_sink("archive", Err("bucket \"a\" is away".into()));
    let (status, _, partly) = get(server.address, "/readyz").await;
    assert_eq!(status, 503);
    assert_eq!(
        body(&partly),
        serde_json::json!({
            "ready": false,
            "source": {"ok": true, "reason": null},
            "sinks": {
                "analytics": {"ok": true, "reason": null},
                "archive": {"ok": false, "reason": "bucket \"a\" is away"},
            },
        })
    );

    server.ready.set_sink("archive", Ok(()));
    let (status, _, all) = get(server.address, "/readyz").await;
    assert_eq!(status, 200);
    assert_eq!(body(&all)["ready"], true);
}

#[tokio::test]
async fn healthz_is_ok_though_nothing_is_ready_and_fails_once_the_pipeline_has_ended() {
    let server = start().await;
    assert_eq!(get(server.address, "/healthz").await.0, 200);
    let guard = server.ready.pipeline_guard();
    let (status, _, body) = get(server.address, "/healthz").await;
    assert_eq!((status, body.as_str()), (200, "ok\n"));
    drop(guard);
    assert_eq!(get(server.address, "/healthz").await.0, 503);
}

#[tokio::test]
async fn the_root_and_unknown_paths_say_what_there_is() {
    let server = start().await;
    let (status, _, body) = get(server.address, "/").await;
    assert_eq!(status, 200);
    for path in ["/metrics", "/healthz", "/readyz"] {
        assert!(body.contains(path));
    }
    assert_eq!(get(server.address, "/nothing").await.0, 404);
}

#[tokio::test]
async fn a_port_in_use_is_an_error_with_the_remedy() {
    let taken = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = taken.local_addr().unwrap();
    let error = bind(address).await.unwrap_err();
    assert!(error.contains(&format!("http.listen: {address} is in use")), "{error}");
    assert!(error.contains("free port"), "{error}");
}

#[tokio::test]
async fn an_address_of_another_machine_is_an_error_with_the_remedy() {
    // 192.0.2.0/24 is kept for documentation (RFC 5737): no machine has it.
    let error = bind("192.0.2.1:9187".parse().unwrap()).await.unwrap_err();
    assert!(error.contains("0.0.0.0:9187"), "{error}");
}

#[tokio::test]
async fn a_client_that_never_finishes_its_request_does_not_hold_up_the_shutdown() {
    let server = start().await;
    let mut stuck = TcpStream::connect(server.address).await.unwrap();
    stuck.write_all(b"GET /metrics HTTP/1.1\r\nHost: ").await.unwrap();
    // An answer on another connection shows that the server has taken the first one as well.
    assert_eq!(get(server.address, "/healthz").await.0, 200);
    let began = Instant::now();
    server.stop.send(()).unwrap();
    server.task.await.unwrap().unwrap();
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert!(TcpStream::connect(server.address).await.is_err());
}
