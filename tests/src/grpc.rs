//! What any tool of any vendor can ask a server, given a profile: health and reflection.

use std::ops::RangeInclusive;
use std::path::Path;

use concord_identity::Profile;
use concord_wire::proto::operations::v1::GetStatusRequest;
use concord_wire::proto::operations::v1::operations_service_client::OperationsServiceClient;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use tonic_reflection::pb::v1::{ServerReflectionRequest, server_reflection_response};

/// What a server says of itself.
#[derive(Debug)]
pub struct ServerSays {
    /// `grpc.health.v1`: whether the whole server is SERVING.
    pub serving: bool,
    /// The services that reflection lists, sorted.
    pub services: Vec<String>,
    /// How many files describe the first of Concord's services.
    pub files: usize,
}

/// Asks the server of a profile.
pub fn ask_server(profile: &Path) -> ServerSays {
    let profile = Profile::load(profile).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(async {
        let channel =
            concord_server::connect(&profile.address().unwrap(), profile.client_config().unwrap()).await.unwrap();
        let check = HealthClient::new(channel.clone()).check(HealthCheckRequest::default()).await.unwrap().into_inner();
        let ask = |message| ServerReflectionRequest { host: String::new(), message_request: Some(message) };
        let symbol = "concord.agreement.v1.AgreementService".to_owned();
        let asked =
            [ask(MessageRequest::ListServices(String::new())), ask(MessageRequest::FileContainingSymbol(symbol))];
        let mut client = ServerReflectionClient::new(channel);
        let mut answers = client.server_reflection_info(tokio_stream::iter(asked)).await.unwrap().into_inner();
        let mut next = async || -> server_reflection_response::MessageResponse {
            answers.message().await.unwrap().unwrap().message_response.unwrap()
        };
        let MessageResponse::ListServicesResponse(list) = next().await else { panic!("no list of services") };
        let MessageResponse::FileDescriptorResponse(files) = next().await else { panic!("no description") };
        let mut services: Vec<String> = list.service.into_iter().map(|service| service.name).collect();
        services.sort();
        ServerSays { serving: check.status == 1, services, files: files.file_descriptor_proto.len() }
    })
}

/// Asks a server, as fast as one connection does, for what is not for the caller of a profile. How often it was denied, and how often it
/// was asked: a connection whose calls are reset too often is ended, and what was on it may have been denied or not.
pub fn flood_of_denied_calls(profile: &Path) -> RangeInclusive<u64> {
    const CALLS: u64 = 3_200;
    const AT_ONCE: u64 = 16;
    let profile = Profile::load(profile).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let denied = runtime.block_on(async {
        let tls = profile.client_config().unwrap();
        let channel = concord_server::connect(&profile.address().unwrap(), tls).await.unwrap();
        let mut callers = tokio::task::JoinSet::new();
        for _ in 0..AT_ONCE {
            let mut client = OperationsServiceClient::new(channel.clone());
            callers.spawn(async move {
                let mut denied = 0;
                for _ in 0..CALLS / AT_ONCE {
                    let answer = client.get_status(GetStatusRequest {}).await;
                    denied += u64::from(answer.unwrap_err().code() == tonic::Code::PermissionDenied);
                }
                denied
            });
        }
        let mut denied = 0;
        while let Some(ended) = callers.join_next().await {
            denied += ended.unwrap();
        }
        denied
    });
    denied..=CALLS
}
