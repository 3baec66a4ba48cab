//! The admin listener: whether the process lives, whether it is ready and why not, and its metrics.
//!
//! Plain HTTP on a loopback address, where only this machine's users come; anywhere else mutual TLS for operators of the
//! participant that runs the server.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use concord_identity::{Admission, Anchors, Application, Credentials, TlsError, server_config};
use concord_model::ParticipantCode;
use futures::{Stream, StreamExt as _};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use metrics_exporter_prometheus::PrometheusHandle;
use rustls::ServerConfig;
use serde::Serialize;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::accept::{Door, accept, accept_one};
use crate::audit::Audit;
use crate::connections::Connections;
use crate::readiness::{Alarm, Readiness};

/// Connections served at once. One more is closed at once, so that idle ones cannot make the others wait.
pub const ADMIN_CONNECTIONS_MAX: usize = 32;
/// The time for a request's header. After it the connection is closed.
pub const ADMIN_HEADER_TIMEOUT_SECONDS: u64 = 3;
/// The time for a connection: one request and its answer. After it the connection is closed.
pub const ADMIN_CONNECTION_TIME_MAX_SECONDS: u64 = 10;
/// A request's header. A larger one is answered with HTTP status 431.
pub const ADMIN_HEADER_SIZE_MAX_BYTES: usize = 16 * 1024;

/// The pages that there are. Every other path is answered with 404.
pub const ADMIN_PATHS: &[&str] = &[HEALTHZ, READYZ, METRICS];

const HEALTHZ: &str = "/healthz";
const READYZ: &str = "/readyz";
const METRICS: &str = "/metrics";

/// Histograms are folded so often, scraped or not, so that they stay small.
const METRICS_UPKEEP_SECONDS: u64 = 5;

/// The admin listener cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// The listener does not know its address.
    #[error("the admin listener has no address: {0}")]
    Address(#[from] io::Error),
    /// Certificate or key.
    #[error("the admin listener cannot use TLS: {0}")]
    Tls(#[from] TlsError),
}

/// A bound admin listener.
pub struct AdminListener {
    listener: TcpListener,
    tls: Option<Arc<ServerConfig>>,
    own: ParticipantCode,
    audit: Audit,
    connections: Connections,
}

impl AdminListener {
    /// Plain on a loopback address; with TLS for operators of `own` on any other.
    pub fn new(
        listener: TcpListener,
        credentials: &Credentials,
        anchors: &Anchors,
        own: &ParticipantCode,
        audit: Audit,
    ) -> Result<Self, AdminError> {
        let tls = if listener.local_addr()?.ip().is_loopback() {
            None
        } else {
            let admission = Admission::operators(own);
            Some(server_config(credentials, anchors, admission, Application::Admin)?)
        };
        let connections = Connections::shown_as("concord_admin_connections");
        Ok(Self { listener, tls, own: own.clone(), audit, connections })
    }

    /// Where its open connections are registered; plain ones are not.
    pub fn connections(&self) -> Connections {
        self.connections.clone()
    }

    /// Serves until `end`: it stays to tell why a draining process is not ready.
    pub async fn serve(self, readiness: Readiness, metrics: PrometheusHandle, end: impl Future<Output = ()>) {
        let pages = pages(Shown { readiness, metrics: metrics.clone() });
        let upkeep = async {
            let mut ticks = tokio::time::interval(Duration::from_secs(METRICS_UPKEEP_SECONDS));
            loop {
                ticks.tick().await;
                metrics.run_upkeep();
            }
        };
        let serving = async {
            match self.tls {
                Some(tls) => {
                    let door = Door { audit: self.audit, name: "admin" };
                    serve_all(accept(self.listener, tls, self.connections, self.own, door), pages).await;
                }
                None => {
                    let incoming = futures::stream::unfold(self.listener, async |listener| {
                        let (stream, _) = accept_one(&listener).await;
                        Some((Ok(stream), listener))
                    });
                    serve_all(incoming, pages).await;
                }
            }
        };
        tokio::select! {
            () = end => {}
            () = serving => {}
            () = upkeep => {}
        }
    }
}

async fn serve_all<T>(incoming: impl Stream<Item = io::Result<T>>, pages: Router)
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let places = Arc::new(Semaphore::new(ADMIN_CONNECTIONS_MAX));
    let mut incoming = std::pin::pin!(incoming);
    // Dropped, and so ended, with this listener.
    let mut connections = JoinSet::new();
    while let Some(stream) = incoming.next().await {
        while connections.try_join_next().is_some() {}
        let (Ok(stream), Ok(place)) = (stream, Arc::clone(&places).try_acquire_owned()) else {
            metrics::counter!("concord_admin_connections_refused_total").increment(1);
            continue;
        };
        let pages = pages.clone();
        connections.spawn(async move {
            serve_one(stream, pages).await;
            drop(place);
        });
    }
}

async fn serve_one(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, pages: Router) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_secs(ADMIN_HEADER_TIMEOUT_SECONDS))
        .max_buf_size(ADMIN_HEADER_SIZE_MAX_BYTES)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(pages));
    let time = Duration::from_secs(ADMIN_CONNECTION_TIME_MAX_SECONDS);
    match tokio::time::timeout(time, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "an admin connection failed"),
        Err(_) => tracing::debug!("an admin connection took too long"),
    }
}

#[derive(Clone)]
struct Shown {
    readiness: Readiness,
    metrics: PrometheusHandle,
}

fn pages(shown: Shown) -> Router {
    let page = |path: &str| match path {
        HEALTHZ => get(async || "alive\n"),
        READYZ => get(readyz),
        _ => get(metrics_page),
    };
    ADMIN_PATHS.iter().fold(Router::new(), |router, path| router.route(path, page(path))).with_state(shown)
}

#[derive(Serialize)]
struct Ready {
    ready: bool,
    reasons: Vec<Told>,
    /// What a person should see, and what does not stop the service.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    notes: Vec<Told>,
}

#[derive(Serialize)]
struct Told {
    alarm: &'static str,
    message: String,
}

async fn readyz(State(shown): State<Shown>) -> Response {
    let (reasons, notes): (Vec<_>, Vec<_>) = shown.readiness.list().into_iter().partition(|alarm| alarm.stops);
    let told = |alarms: Vec<Alarm>| {
        alarms.into_iter().map(|alarm| Told { alarm: alarm.name, message: alarm.message }).collect::<Vec<_>>()
    };
    let (reasons, notes) = (told(reasons), told(notes));
    let ready = reasons.is_empty();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    match serde_json::to_string(&Ready { ready, reasons, notes }) {
        Ok(text) => (status, [(header::CONTENT_TYPE, "application/json")], text + "\n").into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

async fn metrics_page(State(shown): State<Shown>) -> Result<impl IntoResponse, Infallible> {
    let text = shown.metrics.render();
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text))
}
