//! The gRPC server: every limit of its HTTP/2 set and named, the layers in their order, and its drain.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use concord_model::limits::CONSIGNMENT_SIZE_MAX_BYTES;
use rustls::ServerConfig;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::transport::Server;

use crate::accept::{Door, HANDSHAKE_TIMEOUT_SECONDS, accept};
use crate::alarms::DRAINING_ALARM;
use crate::audit::Audit;
use crate::connect::CONNECT_TIMEOUT_SECONDS;
use crate::connections::Connections;
use crate::deadline::{DeadlineLayer, UNARY_TIME_MAX_SECONDS};
use crate::descriptors::unary_methods;
use crate::drain::{DRAIN_TIMEOUT_SECONDS, Shutdown};
use crate::health::Health;
use crate::in_flight::InFlightLayer;
use crate::methods::{MethodLayer, MethodTable};
use crate::readiness::Readiness;
use crate::sockets::Listener;

/// Open calls of one connection. Further ones wait at the caller, whose library was told this number. Half of what one
/// caller may have at all, so that a program with one connection waits and never meets that limit.
pub const STREAMS_PER_CONNECTION_MAX: u32 = 32;
/// Calls that a peer reset before they were taken up. With one more the connection ends with GOAWAY ENHANCE_YOUR_CALM.
pub const PENDING_RESETS_MAX: usize = 32;
/// Calls that this side reset for errors of the peer. With one more the connection ends with GOAWAY ENHANCE_YOUR_CALM.
pub const LOCAL_ERROR_RESETS_MAX: usize = 64;
/// All header fields of one call together. A larger list is answered with HTTP status 431.
pub const HEADER_LIST_SIZE_MAX_BYTES: u32 = 16 * 1024;
/// A peer that was silent so long is asked whether it lives. With the time for its answer, a dead one is noticed, and its
/// connection closed, within 25 seconds.
pub const KEEPALIVE_INTERVAL_SECONDS: u64 = 15;
/// The time for that answer.
pub const KEEPALIVE_TIMEOUT_SECONDS: u64 = 10;
/// Within so long a dead peer is noticed, on both sides, whether its connection stands or is being made.
pub const DEAD_PEER_NOTICED_MAX_SECONDS: u64 = 30;
const _: () = {
    assert!(KEEPALIVE_INTERVAL_SECONDS + KEEPALIVE_TIMEOUT_SECONDS < DEAD_PEER_NOTICED_MAX_SECONDS);
    assert!(HANDSHAKE_TIMEOUT_SECONDS < DEAD_PEER_NOTICED_MAX_SECONDS);
    assert!(CONNECT_TIMEOUT_SECONDS < DEAD_PEER_NOTICED_MAX_SECONDS);
};
/// A connection so old is asked by GOAWAY to be replaced; what runs on it goes on to its end, however long, and nothing
/// is lost. There is no harder age: streams live for weeks. What ends a connection for certain is the end of its certificate
/// and [`Connections::close`].
pub const CONNECTION_AGE_MAX_SECONDS: u64 = 24 * 60 * 60;
/// Bytes of one stream on the way to this side. The peer waits when they are used up.
pub const STREAM_WINDOW_BYTES: u32 = 1024 * 1024;
/// Bytes of all streams of a connection on the way to this side. The peer waits when they are used up.
pub const CONNECTION_WINDOW_BYTES: u32 = 4 * 1024 * 1024;
/// One HTTP/2 frame. A larger one ends the connection with FRAME_SIZE_ERROR.
pub const FRAME_SIZE_MAX_BYTES: u32 = 64 * 1024;
/// One message either way: a consignment and what goes around it. Services and clients set it, for decoding and encoding;
/// a larger message ends its call with OUT_OF_RANGE.
pub const MESSAGE_SIZE_MAX_BYTES: usize = CONSIGNMENT_SIZE_MAX_BYTES + MESSAGE_OVERHEAD_MAX_BYTES;

const MESSAGE_OVERHEAD_MAX_BYTES: usize = 64 * 1024;
const HEALTH_CHECK: &str = "/grpc.health.v1.Health/Check";

/// What a server is made of, before it serves.
pub struct GrpcServer {
    /// The services, health and reflection among them.
    pub routes: Routes,
    /// Who may call them.
    pub table: Arc<MethodTable>,
    /// Told NOT_SERVING first when the server drains.
    pub health: Health,
    /// Where open connections are registered.
    pub connections: Connections,
    /// Raised while the server drains.
    pub readiness: Readiness,
    /// Notes what is refused before a service hears of it.
    pub audit: Audit,
    /// Begins the drain.
    pub shutdown: Shutdown,
}

impl GrpcServer {
    /// Serves until [`Shutdown::request`], then drains: health NOT_SERVING; no new connections; streams end; what is open
    /// after [`DRAIN_TIMEOUT_SECONDS`] is closed. No call runs any more when this returns.
    pub async fn serve(self, listener: impl Listener, tls: Arc<ServerConfig>) -> Result<(), ServeError> {
        let Self { routes, table, health, connections, readiness, audit, shutdown } = self;
        let mut unary = unary_methods()?;
        unary.insert(HEALTH_CHECK.to_owned());
        let deadlines = DeadlineLayer::new(unary, Duration::from_secs(UNARY_TIME_MAX_SECONDS));

        let stop_accepting = CancellationToken::new();
        let own = table.own().clone();
        let incoming =
            accept(listener, tls, connections.clone(), own.clone(), Door { audit: audit.clone(), name: "grpc" });
        // The first layer is the outermost; each says why it stands where it does.
        let serving = with_limits()
            .layer(MethodLayer::new(table, audit))
            .layer(InFlightLayer::new(own))
            .layer(deadlines)
            .add_routes(routes)
            .serve_with_incoming_shutdown(incoming, stop_accepting.clone().cancelled_owned());
        let mut serving = pin!(serving);
        tokio::select! {
            result = &mut serving => return Ok(result?),
            () = shutdown.requested() => {}
        }

        readiness.raise(DRAINING_ALARM, "this server is ending");
        health.not_serving().await;
        stop_accepting.cancel();
        shutdown.end_streams();
        health.end_watches().await;
        tokio::select! {
            result = &mut serving => return Ok(result?),
            () = tokio::time::sleep(Duration::from_secs(DRAIN_TIMEOUT_SECONDS)) => {}
            () = shutdown.at_once() => {}
        }
        tracing::warn!(
            connections = connections.list().len(),
            "closing connections whose streams did not end by themselves"
        );
        let closed = connections.close_all();
        Ok(tokio::join!(serving, closed).0?)
    }
}

/// A server cannot serve.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The built-in descriptors.
    #[error("the descriptors that are built in do not parse: {0}")]
    Descriptors(#[from] prost::DecodeError),
    /// The transport.
    #[error("the gRPC server failed: {0}")]
    Transport(#[from] tonic::transport::Error),
}

fn with_limits() -> Server {
    Server::builder()
        .max_concurrent_streams(STREAMS_PER_CONNECTION_MAX)
        .http2_max_pending_accept_reset_streams(Some(PENDING_RESETS_MAX))
        .http2_max_local_error_reset_streams(Some(LOCAL_ERROR_RESETS_MAX))
        .http2_max_header_list_size(HEADER_LIST_SIZE_MAX_BYTES)
        .http2_keepalive_interval(Some(Duration::from_secs(KEEPALIVE_INTERVAL_SECONDS)))
        .http2_keepalive_timeout(Some(Duration::from_secs(KEEPALIVE_TIMEOUT_SECONDS)))
        // Without a grace: with one, tonic cuts the connection instead of asking.
        .max_connection_age(Duration::from_secs(CONNECTION_AGE_MAX_SECONDS))
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_frame_size(FRAME_SIZE_MAX_BYTES)
}
