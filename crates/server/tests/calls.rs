//! Who may call what, over real connections.
#![allow(clippy::unwrap_used)]

mod common;

use common::{AGENCY, Forum, OFFICER, in_time, kaz, start};
use concord_identity::Admission;
use concord_model::{Reason, Role};
use concord_server::{Allow, Row, Whose};
use concord_wire::status::from_status;
use http::uri::PathAndQuery;
use tonic::client::Grpc;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};
use tonic_prost::ProstCodec;

const ROWS: &[Row] = &[Row {
    method: "/test.v1.Test/ForOfficers",
    allow: &[Allow { role: Role::Officer, whose: Whose::OwnParticipant }],
}];

async fn call(channel: &Channel, path: &'static str) -> Result<HealthCheckResponse, Status> {
    let mut grpc = Grpc::new(channel.clone());
    grpc.ready().await.unwrap();
    let codec = ProstCodec::<HealthCheckRequest, HealthCheckResponse>::default();
    let request = Request::new(HealthCheckRequest::default());
    let answer = in_time("an answer", grpc.unary(request, PathAndQuery::from_static(path), codec)).await?;
    Ok(answer.into_inner())
}

#[tokio::test]
async fn what_is_absent_and_what_is_forbidden_look_alike() {
    let forum = Forum::new();
    let server = start(&forum, Admission::node(&kaz()), ROWS).await;
    let agency = forum.connect(server.address, AGENCY).await.unwrap();
    let forbidden = call(&agency, "/test.v1.Test/ForOfficers").await.unwrap_err();
    assert_eq!(forbidden.code(), Code::PermissionDenied);
    assert_eq!(from_status(&forbidden).map(|refusal| refusal.reason), Some(Reason::CallerNotAllowed));

    for path in ["/test.v1.Test/Absent", "/absent.v1.Absent/Absent", "/grpc.health.v1.Health/Absent", "/"] {
        let absent = call(&agency, path).await.unwrap_err();
        let told = |status: &Status| (status.code(), status.message().to_owned(), status.details().to_vec());
        assert_eq!(told(&absent), told(&forbidden), "{path}");
    }

    // The row lets the officer through, to where no service is.
    let officer = forum.connect(server.address, OFFICER).await.unwrap();
    let passed = call(&officer, "/test.v1.Test/ForOfficers").await.unwrap_err();
    assert_eq!(passed.code(), Code::Unimplemented);
    let denied = call(&officer, "/test.v1.Test/Absent").await.unwrap_err();
    assert_eq!(denied.code(), Code::PermissionDenied);
}

#[tokio::test]
async fn health_and_reflection_answer_every_verified_caller() {
    use tonic_reflection::pb::v1::ServerReflectionRequest;
    use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
    use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
    use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

    let forum = Forum::new();
    let server = start(&forum, Admission::node(&kaz()), &[]).await;
    let channel = forum.connect(server.address, AGENCY).await.unwrap();
    let answer = call(&channel, "/grpc.health.v1.Health/Check").await.unwrap();
    assert_eq!(answer.status(), ServingStatus::Serving);

    let ask = async |asked: MessageRequest| {
        let request = ServerReflectionRequest { host: String::new(), message_request: Some(asked) };
        let requests = futures::stream::iter([request]);
        let mut client = ServerReflectionClient::new(channel.clone());
        let mut answers = client.server_reflection_info(requests).await.unwrap().into_inner();
        answers.message().await.map(|answer| answer.unwrap().message_response.unwrap())
    };
    let MessageResponse::ListServicesResponse(list) = ask(MessageRequest::ListServices(String::new())).await.unwrap()
    else {
        panic!("no list of services");
    };
    let mut names: Vec<_> = list.service.into_iter().map(|service| service.name).collect();
    names.sort();
    assert_eq!(
        names,
        ["concord.agency.v1.AgencyService", "grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection"]
    );
    let symbol = |name: &str| MessageRequest::FileContainingSymbol(name.to_owned());
    assert!(ask(symbol("concord.agency.v1.AgencyService")).await.is_ok());
    assert!(ask(symbol("concord.journal.v1")).await.is_err(), "stored formats are not shown");
}

#[tokio::test]
async fn the_register_shows_who_is_connected_and_since_when() {
    let forum = Forum::new();
    let server = start(&forum, Admission::node(&kaz()), &[]).await;
    let before = common::now();
    let channel = forum.connect(server.address, AGENCY).await.unwrap();
    call(&channel, "/grpc.health.v1.Health/Check").await.unwrap();
    let list = server.connections.list();
    assert_eq!(list.len(), 1);
    assert_eq!(list[0].identity.to_string(), AGENCY);
    assert!(list[0].since >= before && list[0].since <= common::now());
}
