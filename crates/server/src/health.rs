//! `grpc.health.v1` and reflection: what tools of any vendor ask first.

use concord_wire::proto::DESCRIPTORS;
use prost::Message as _;
use prost_types::FileDescriptorSet;
use tonic_health::ServingStatus;
use tonic_health::pb::health_server::{Health as HealthService, HealthServer};
use tonic_health::server::{HealthReporter, health_reporter};
use tonic_reflection::server::v1::{ServerReflection, ServerReflectionServer};

/// The name under which health means the whole server.
const WHOLE_SERVER: &str = "";
/// Stored, never served.
const JOURNAL_FILES: &str = "concord/journal/";

/// The state that `grpc.health.v1` tells.
#[derive(Debug, Clone)]
pub struct Health {
    reporter: HealthReporter,
    services: Vec<&'static str>,
}

impl Health {
    /// The state of these services, by their full names, and of the whole server: SERVING. Add the second to the routes.
    pub async fn new(services: &[&'static str]) -> (Self, HealthServer<impl HealthService>) {
        let (reporter, server) = health_reporter();
        let services = services.iter().copied().chain([WHOLE_SERVER]).collect();
        let health = Self { reporter, services };
        health.set(ServingStatus::Serving).await;
        (health, server)
    }

    /// NOT_SERVING for all.
    pub(crate) async fn not_serving(&self) {
        self.set(ServingStatus::NotServing).await;
    }

    /// Ends the `Watch` streams, after what they have yet to tell.
    pub(crate) async fn end_watches(mut self) {
        for service in &self.services {
            self.reporter.clear_service_status(service).await;
        }
    }

    async fn set(&self, status: ServingStatus) {
        for service in &self.services {
            self.reporter.set_service_status(service, status).await;
        }
    }
}

/// The descriptors that are built in cannot be shown.
#[derive(Debug, thiserror::Error)]
#[error("reflection cannot be served: {0}")]
pub struct ReflectionError(String);

/// The reflection service (v1), which names these services. It shows files that are public anyway, and no stored formats.
pub fn reflection(services: &[&str]) -> Result<ServerReflectionServer<impl ServerReflection>, ReflectionError> {
    let mut files = FileDescriptorSet::decode(DESCRIPTORS).map_err(|error| ReflectionError(error.to_string()))?;
    files.file.retain(|file| !file.name().starts_with(JOURNAL_FILES));
    let builder = tonic_reflection::server::Builder::configure()
        .register_file_descriptor_set(files)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .with_service_name("grpc.health.v1.Health")
        .with_service_name("grpc.reflection.v1.ServerReflection");
    services
        .iter()
        .fold(builder, |builder, service| builder.with_service_name(*service))
        .build_v1()
        .map_err(|error| ReflectionError(error.to_string()))
}
