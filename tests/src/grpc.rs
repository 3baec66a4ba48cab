//! What any tool of any vendor can ask a server, given a profile: health and reflection.

use std::path::Path;

use concord_identity::Profile;
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
