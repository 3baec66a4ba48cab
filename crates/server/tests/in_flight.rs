//! No caller has more calls open than its share, and each place comes back.
#![allow(clippy::unwrap_used)]

mod common;

use common::{AGENCY, Forum, in_time, kaz, start};
use concord_identity::Admission;
use concord_model::Reason;
use concord_server::{CALLS_IN_FLIGHT_PER_CALLER_MAX, CALLS_IN_FLIGHT_PER_PARTICIPANT_MAX, STREAMS_PER_CONNECTION_MAX};
use concord_wire::status::{from_status, to_status};
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

const OTHER: &str = "spiffe://kaz.concord/agency/other";

type Watch = Streaming<HealthCheckResponse>;

async fn open(client: &mut HealthClient<Channel>) -> Result<Watch, Status> {
    let mut watch = in_time("an answer", client.watch(HealthCheckRequest::default())).await?.into_inner();
    in_time("the first message", watch.message()).await?.unwrap();
    Ok(watch)
}

/// A place comes back a moment after its stream or connection has ended; until then a call is refused, never lost.
async fn open_when_free(client: &mut HealthClient<Channel>) -> Watch {
    let opened = async {
        loop {
            match open(client).await {
                Ok(watch) => return watch,
                Err(status) => assert_full(&status),
            }
        }
    };
    in_time("a place", opened).await
}

/// As many streams as one caller may have, on as many connections as that takes.
async fn fill(forum: &Forum, server: &common::Running, identity: &str) -> Vec<(HealthClient<Channel>, Vec<Watch>)> {
    let per_connection = STREAMS_PER_CONNECTION_MAX as usize;
    let mut filled = Vec::new();
    for _ in 0..CALLS_IN_FLIGHT_PER_CALLER_MAX / per_connection {
        let mut client = forum.health(server.address, identity).await;
        let mut watches = Vec::new();
        for _ in 0..per_connection {
            watches.push(open_when_free(&mut client).await);
        }
        filled.push((client, watches));
    }
    filled
}

fn assert_full(status: &Status) {
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    let refusal = from_status(status).unwrap();
    assert_eq!(refusal.reason, Reason::QueueFull);
    // RetryInfo is in the details.
    assert_eq!(status.details(), to_status(&refusal).details());
}

#[tokio::test]
async fn one_call_too_many_is_refused_and_others_work_and_places_come_back() {
    let forum = Forum::new();
    let server = start(&forum, Admission::node(&kaz()), &[]).await;
    let mut filled = fill(&forum, &server, AGENCY).await;

    let mut late = forum.health(server.address, AGENCY).await;
    assert_full(&late.check(HealthCheckRequest::default()).await.unwrap_err());
    assert_full(&open(&mut late).await.unwrap_err());
    let mut other = forum.health(server.address, OTHER).await;
    other.check(HealthCheckRequest::default()).await.unwrap();

    // Two streams are given up, their connection stays.
    for _ in 0..2 {
        drop(filled[0].1.pop());
    }
    filled[0].1.push(open_when_free(&mut late).await);
    // In the one place that is left, far more calls than there are places: what was answered has none.
    for _ in 0..2 * CALLS_IN_FLIGHT_PER_CALLER_MAX {
        let answered = async {
            while let Err(status) = late.check(HealthCheckRequest::default()).await {
                assert_full(&status);
            }
        };
        in_time("an answer", answered).await;
    }
    filled[0].1.push(open_when_free(&mut late).await);
    assert_full(&late.check(HealthCheckRequest::default()).await.unwrap_err());
}

#[tokio::test]
async fn all_places_come_back_when_connections_are_closed() {
    let forum = Forum::new();
    let server = start(&forum, Admission::hub(), &[]).await;
    let node = "spiffe://uzb.concord/node/main";
    let first = fill(&forum, &server, node).await;
    in_time("the close by this side", server.connections.close(&"UZB".parse().unwrap())).await;
    let second = fill(&forum, &server, node).await;
    drop(first);
    // Closed by the peer.
    drop(second);
    fill(&forum, &server, node).await;
}

#[tokio::test]
async fn one_participant_with_many_names_leaves_room_for_others() {
    let forum = Forum::new();
    let server = start(&forum, Admission::hub(), &[]).await;
    let mut filled = Vec::new();
    for number in 0..CALLS_IN_FLIGHT_PER_PARTICIPANT_MAX / CALLS_IN_FLIGHT_PER_CALLER_MAX {
        filled.push(fill(&forum, &server, &format!("spiffe://uzb.concord/node/n{number}")).await);
    }
    let mut late = forum.health(server.address, "spiffe://uzb.concord/node/late").await;
    assert_full(&late.check(HealthCheckRequest::default()).await.unwrap_err());
    let mut other = forum.health(server.address, "spiffe://sec.concord/officer/ops").await;
    other.check(HealthCheckRequest::default()).await.unwrap();
    filled.pop();
    open_when_free(&mut late).await;
}
