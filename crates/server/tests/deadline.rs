//! A call ends at its deadline, and says so in the right word.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::time::Duration;

use common::{AGENCY, Forum, in_time, kaz, start_with};
use concord_identity::Admission;
use concord_server::{DeadlineLayer, Health, Shutdown, UNARY_TIME_MAX_SECONDS};
use futures::StreamExt as _;
use futures::stream::BoxStream;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::body::Body;
use tonic::service::Routes;
use tonic::{Code, Request, Response, Status};
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::health_server::{Health as HealthService, HealthServer};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};
use tower::{Service as _, ServiceBuilder, ServiceExt as _, service_fn};

/// Never answers, but begins its stream.
struct Slow;

#[tonic::async_trait]
impl HealthService for Slow {
    async fn check(&self, _: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        std::future::pending().await
    }

    type WatchStream = BoxStream<'static, Result<HealthCheckResponse, Status>>;

    async fn watch(&self, _: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let first = futures::stream::iter([Ok(HealthCheckResponse::default())]);
        Ok(Response::new(first.chain(futures::stream::pending()).boxed()))
    }
}

/// tonic's own channel has a timer of its own for the deadline, so this client goes below it.
#[tokio::test]
async fn a_callers_deadline_ends_calls_and_streams_with_deadline_exceeded() {
    let forum = Forum::new();
    let (health, _) = Health::new(&[]).await;
    let routes = Routes::new(HealthServer::new(Slow));
    let server = start_with(&forum, Admission::node(&kaz()), &[], routes, health, Shutdown::new()).await;
    let stream = TcpStream::connect(server.address).await.unwrap();
    let connector = TlsConnector::from(forum.client_tls(AGENCY));
    let stream = connector.connect(concord_identity::server_name("127.0.0.1:1"), stream).await.unwrap();
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let raw = service_fn(move |request: http::Request<Body>| {
        let mut sender = sender.clone();
        async move { sender.send_request(request).await }
    });
    let mut client = HealthClient::with_origin(raw, "https://test".parse().unwrap());

    let with_deadline = |milliseconds| {
        let mut request = Request::new(HealthCheckRequest::default());
        request.set_timeout(Duration::from_millis(milliseconds));
        request
    };
    // Many moments, because two timers of one moment race.
    for milliseconds in 1..40 {
        let status = in_time("an answer", client.check(with_deadline(milliseconds))).await.unwrap_err();
        assert_eq!(status.code(), Code::DeadlineExceeded, "{status:?}");
    }
    let mut watch = client.watch(with_deadline(1500)).await.unwrap().into_inner();
    watch.message().await.unwrap().unwrap();
    let status = in_time("the end of the stream", watch.message()).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status:?}");
}

#[tokio::test(start_paused = true)]
async fn a_call_with_one_answer_has_a_limit_and_a_stream_has_none() {
    let time = Duration::from_secs(UNARY_TIME_MAX_SECONDS);
    let layer = DeadlineLayer::new(BTreeSet::from(["/t.S/Unary".to_owned()]), time);
    let inner = service_fn(|_: http::Request<()>| async {
        tokio::time::sleep(Duration::from_secs(2 * UNARY_TIME_MAX_SECONDS)).await;
        Ok::<_, Infallible>(http::Response::new(Body::empty()))
    });
    let mut service = ServiceBuilder::new().layer(layer).service(inner);
    let mut call = async |path: &str, timeout: &str| {
        let request = http::Request::builder().uri(path).header("grpc-timeout", timeout).body(()).unwrap();
        let answer = service.ready().await.unwrap().call(request).await.unwrap();
        Status::from_header_map(answer.headers()).map(|status| status.code())
    };
    let began = tokio::time::Instant::now();
    assert_eq!(call("/t.S/Unary", "").await, Some(Code::DeadlineExceeded));
    assert_eq!(began.elapsed().as_secs(), UNARY_TIME_MAX_SECONDS);
    assert_eq!(call("/t.S/Unary", "1H").await, Some(Code::DeadlineExceeded), "no caller can lift it");
    assert_eq!(call("/t.S/Stream", "").await, None);
}
