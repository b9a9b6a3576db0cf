use crate::ready::ReadyState;
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use replicator_telemetry::PrometheusHandle;
use std::future::Future;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

/// How long after the shutdown an answer may still be on its way.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(1);

const INDEX: &str = "\
replicator
/metrics  Prometheus metrics
/healthz  200 while the process and its pipeline live
/readyz   200 when the source and every sink are ready, else 503 with the reasons
";

/// What the endpoints answer from.
#[derive(Clone)]
pub struct Endpoints {
    metrics: PrometheusHandle,
    ready: ReadyState,
    refresh: Arc<dyn Fn() + Send + Sync>,
}

impl Endpoints {
    /// Endpoints over that recorder and state. `refresh` runs before each rendering of the metrics, for those
    /// that are read rather than counted; it must not block.
    pub fn new(
        metrics: PrometheusHandle,
        ready: ReadyState,
        refresh: impl Fn() + Send + Sync + 'static,
    ) -> Self {
        Self { metrics, ready, refresh: Arc::new(refresh) }
    }
}

/// Opens the listener of `http.listen`.
///
/// # Errors
/// One line with the setting and the remedy, when the address cannot be had.
pub async fn bind(listen: SocketAddr) -> Result<TcpListener, String> {
    TcpListener::bind(listen).await.map_err(|error| {
        let port = listen.port();
        match error.kind() {
            ErrorKind::AddrInUse => format!(
                "http.listen: {listen} is in use by another process; stop it, or set http.listen to a free port \
                 (empty for no admin listener)"
            ),
            ErrorKind::AddrNotAvailable => format!(
                "http.listen: {listen} is no address of this machine; use 0.0.0.0:{port} for all of its addresses or \
                 127.0.0.1:{port} for local access only"
            ),
            ErrorKind::PermissionDenied => format!(
                "http.listen: no permission to listen on {listen}; ports below 1024 are privileged, use a higher one"
            ),
            _ => format!("http.listen: cannot listen on {listen}: {error}"),
        }
    })
}

/// Answers on `listener` until `shutdown` ends, and then for at most a second more.
///
/// # Errors
/// When the listener breaks.
pub async fn serve(
    listener: TcpListener,
    endpoints: Endpoints,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let router = Router::new()
        .route("/", get(|| async { text(StatusCode::OK, INDEX) }))
        .route("/metrics", get(metrics))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .fallback(|| async { text(StatusCode::NOT_FOUND, INDEX) })
        .with_state(endpoints);
    let (stopping, stopped) = oneshot::channel();
    let server = axum::serve(listener, router).with_graceful_shutdown(async move {
        shutdown.await;
        // Nobody listens any more when the server broke first; that is fine.
        let _ = stopping.send(());
    });
    let overdue = async {
        match stopped.await {
            Ok(()) => tokio::time::sleep(SHUTDOWN_GRACE).await,
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        result = server => result,
        () = overdue => Ok(()),
    }
}

async fn metrics(State(endpoints): State<Endpoints>) -> Response {
    (endpoints.refresh)();
    // https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format
    let content_type = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    (content_type, endpoints.metrics.render()).into_response()
}

async fn healthz(State(endpoints): State<Endpoints>) -> Response {
    if endpoints.ready.is_alive() {
        text(StatusCode::OK, "ok\n")
    } else {
        text(StatusCode::SERVICE_UNAVAILABLE, "the pipeline has ended\n")
    }
}

async fn readyz(State(endpoints): State<Endpoints>) -> Response {
    let readiness = endpoints.ready.readiness();
    let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    match serde_json::to_string(&readiness) {
        Ok(body) => (status, [(header::CONTENT_TYPE, "application/json")], body + "\n").into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

fn text(status: StatusCode, body: &'static str) -> Response {
    (status, [(header::CONTENT_TYPE, "text/plain; charset=utf-8")], body).into_response()
}
