//! A server ends in order.
#![allow(clippy::unwrap_used)]

mod common;

use std::process::Command;

use common::{AGENCY, Forum, in_time, kaz, start, start_with};
use concord_identity::Admission;
use concord_model::Reason;
use concord_server::{Health, Shutdown};
use concord_wire::status::from_status;
use futures::stream::BoxStream;
use futures::{FutureExt as _, StreamExt as _};
use tonic::service::Routes;
use tonic::{Code, Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server::{Health as HealthService, HealthServer};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

/// A service with streams that end as they are told, or never.
struct Streams {
    shutdown: Shutdown,
    stubborn: bool,
}

#[tonic::async_trait]
impl HealthService for Streams {
    async fn check(&self, _: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        Err(Status::unimplemented("not asked here"))
    }

    type WatchStream = BoxStream<'static, Result<HealthCheckResponse, Status>>;

    async fn watch(&self, _: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let first = futures::stream::iter([Ok(HealthCheckResponse::default())]);
        let end = if self.stubborn {
            futures::stream::pending().boxed()
        } else {
            self.shutdown.streams_end().map(|()| Err(Shutdown::status())).into_stream().boxed()
        };
        Ok(Response::new(first.chain(end).boxed()))
    }
}

#[tokio::test]
async fn health_says_not_serving_before_its_streams_end_and_the_server_returns() {
    let forum = Forum::new();
    let server = start(&forum, Admission::node(&kaz()), &[]).await;
    let mut client = forum.health(server.address, AGENCY).await;
    let mut watch = client.watch(HealthCheckRequest::default()).await.unwrap().into_inner();
    assert_eq!(watch.message().await.unwrap().unwrap().status(), ServingStatus::Serving);
    assert!(server.readiness.is_ready());

    server.shutdown.request();
    let told = in_time("the news", watch.message()).await.unwrap().unwrap();
    assert_eq!(told.status(), ServingStatus::NotServing);
    assert_eq!(in_time("the end of the stream", watch.message()).await.unwrap(), None);
    in_time("the end of the server", server.ended).await.unwrap().unwrap();
    assert_eq!(server.readiness.list()[0].name, "draining");
    assert!(forum.connect(server.address, AGENCY).await.is_err(), "the listener is closed");
    assert_eq!(server.connections.list(), []);
}

#[tokio::test]
async fn streams_end_with_unavailable_when_they_are_told() {
    let forum = Forum::new();
    let (health, _) = Health::new(&[]).await;
    let shutdown = Shutdown::new();
    let service = Streams { shutdown: shutdown.clone(), stubborn: false };
    let routes = Routes::new(HealthServer::new(service));
    let server = start_with(&forum, Admission::node(&kaz()), &[], routes, health, shutdown).await;
    let mut client = forum.health(server.address, AGENCY).await;
    let mut watch = client.watch(HealthCheckRequest::default()).await.unwrap().into_inner();
    watch.message().await.unwrap().unwrap();
    server.shutdown.request();
    let status = in_time("the end of the stream", watch.message()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert_eq!(from_status(&status).map(|refusal| refusal.reason), Some(Reason::ShuttingDown));
    in_time("the end of the server", server.ended).await.unwrap().unwrap();
}

#[tokio::test]
async fn the_first_signal_drains_and_the_second_ends_what_does_not_end() {
    let forum = Forum::new();
    let (health, _) = Health::new(&[]).await;
    let shutdown = Shutdown::new();
    shutdown.on_signals().unwrap();
    let service = Streams { shutdown: shutdown.clone(), stubborn: true };
    let routes = Routes::new(HealthServer::new(service));
    let server = start_with(&forum, Admission::node(&kaz()), &[], routes, health, shutdown).await;
    let mut client = forum.health(server.address, AGENCY).await;
    let mut watch = client.watch(HealthCheckRequest::default()).await.unwrap().into_inner();
    watch.message().await.unwrap().unwrap();

    signal("TERM");
    in_time("the drain", server.shutdown.streams_end()).await;
    assert!(futures::poll!(std::pin::pin!(watch.message())).is_pending(), "the stream has its time");
    signal("INT");
    let began = std::time::Instant::now();
    in_time("the end of the server", server.ended).await.unwrap().unwrap();
    assert!(began.elapsed().as_secs() < concord_server::DRAIN_TIMEOUT_SECONDS);
    in_time("the end of the stream", watch.message()).await.unwrap_err();
}

#[tokio::test]
async fn a_stream_that_does_not_end_is_closed_when_the_time_of_the_drain_is_over() {
    let forum = Forum::new();
    let (health, _) = Health::new(&[]).await;
    let shutdown = Shutdown::new();
    let service = Streams { shutdown: shutdown.clone(), stubborn: true };
    let routes = Routes::new(HealthServer::new(service));
    let server = start_with(&forum, Admission::node(&kaz()), &[], routes, health, shutdown).await;
    let mut client = forum.health(server.address, AGENCY).await;
    let mut watch = client.watch(HealthCheckRequest::default()).await.unwrap().into_inner();
    watch.message().await.unwrap().unwrap();
    server.shutdown.request();
    in_time("the end of the server", server.ended).await.unwrap().unwrap();
    in_time("the end of the stream", watch.message()).await.unwrap_err();
}

fn signal(name: &str) {
    let status = Command::new("sh").args(["-c", &format!("kill -{name} {}", std::process::id())]).status().unwrap();
    assert!(status.success());
}
