//! The hub's gRPC services, one file each, who may call them, and the server of them all.

pub mod agreement;
pub mod exchange;
pub mod feed;
pub mod operations;
pub mod registry;
pub mod statement;

use std::sync::Arc;

use concord_identity::Caller;
use concord_model::{ParticipantCode, Reason, Refusal, Role};
use concord_server::{Allow, Connections, GrpcServer, Health, MethodTable, ReflectionError, Row, Whose, reflection};
use concord_wire::status::to_status;
use tonic::service::Routes;
use tonic::{Request, Status};

use crate::shared::Shared;

const NODE: Allow = Allow { role: Role::Node, whose: Whose::AnyParticipant };
const OFFICER: Allow = Allow { role: Role::Officer, whose: Whose::Secretariat };
const OPERATOR: Allow = Allow { role: Role::Operator, whose: Whose::Secretariat };

/// The services that the hub serves, by their full names.
pub const SERVED: &[&str] = &[
    "concord.exchange.v1.ExchangeService",
    "concord.feed.v1.FeedService",
    "concord.agreement.v1.StatementService",
    "concord.agreement.v1.AgreementService",
    "concord.operations.v1.RegistryService",
    "concord.operations.v1.OperationsService",
];

/// Who may call what.
pub const METHODS: &[Row] = &[
    Row { method: "/concord.exchange.v1.ExchangeService/Consign", allow: &[NODE] },
    Row { method: "/concord.exchange.v1.ExchangeService/Receive", allow: &[NODE] },
    Row { method: "/concord.exchange.v1.ExchangeService/FetchConsignments", allow: &[NODE] },
    Row { method: "/concord.feed.v1.FeedService/Follow", allow: &[NODE] },
    Row { method: "/concord.feed.v1.FeedService/HandBack", allow: &[NODE] },
    Row { method: "/concord.feed.v1.FeedService/Report", allow: &[NODE] },
    Row { method: "/concord.agreement.v1.StatementService/Prepare", allow: &[OFFICER] },
    Row { method: "/concord.agreement.v1.StatementService/Submit", allow: &[OFFICER, NODE] },
    Row { method: "/concord.agreement.v1.AgreementService/ListAgreements", allow: &[OFFICER] },
    Row { method: "/concord.agreement.v1.AgreementService/GetAgreement", allow: &[OFFICER] },
    Row { method: "/concord.operations.v1.RegistryService/ListParticipants", allow: &[OFFICER, OPERATOR, NODE] },
    Row { method: "/concord.operations.v1.RegistryService/ListMeasures", allow: &[OFFICER, OPERATOR] },
    Row { method: "/concord.operations.v1.RegistryService/ListContacts", allow: &[OFFICER, OPERATOR] },
    Row { method: "/concord.operations.v1.RegistryService/ListRoles", allow: &[OFFICER, OPERATOR] },
    Row { method: "/concord.operations.v1.RegistryService/GetBundle", allow: &[OFFICER] },
    Row { method: "/concord.operations.v1.RegistryService/ListApprovals", allow: &[OFFICER] },
    Row { method: "/concord.operations.v1.OperationsService/GetStatus", allow: &[OPERATOR, OFFICER] },
    Row { method: "/concord.operations.v1.OperationsService/CreateBackup", allow: &[OFFICER] },
    Row { method: "/concord.operations.v1.OperationsService/PreviewRetention", allow: &[OPERATOR, OFFICER] },
    Row { method: "/concord.operations.v1.OperationsService/RunRetention", allow: &[OFFICER] },
    Row { method: "/concord.operations.v1.OperationsService/ListAudit", allow: &[OPERATOR, OFFICER] },
    Row { method: "/concord.operations.v1.OperationsService/ExplainExchange", allow: &[OFFICER] },
];

/// The hub's gRPC server, with every service but operations, which asks for more than the services share.
pub async fn server(shared: &Arc<Shared>) -> Result<GrpcServer, ReflectionError> {
    let (health, health_server) = Health::new(SERVED).await;
    let routes = Routes::new(health_server)
        .add_service(reflection(SERVED)?)
        .add_service(exchange::server(Arc::clone(shared)))
        .add_service(feed::server(Arc::clone(shared)))
        .add_service(statement::server(Arc::clone(shared)))
        .add_service(agreement::server(Arc::clone(shared)))
        .add_service(registry::server(Arc::clone(shared)));
    Ok(GrpcServer {
        routes,
        table: Arc::new(MethodTable::new(ParticipantCode::secretariat(), METHODS)),
        health,
        connections: Connections::new(),
        readiness: shared.readiness.clone(),
        audit: shared.audit.clone(),
        shutdown: shared.shutdown.clone(),
    })
}

/// The caller that the accept loop verified.
fn caller<T>(request: &Request<T>) -> Result<Caller, Status> {
    request
        .extensions()
        .get::<Caller>()
        .cloned()
        .ok_or_else(|| to_status(&Refusal::new(Reason::CallerNotAllowed, "the connection has no verified caller")))
}

#[cfg(test)]
mod tests {
    use concord_server::{Served, check_against_descriptors};

    use super::*;

    #[test]
    fn the_method_table_says_what_the_comments_of_the_protocol_say() {
        let table = MethodTable::new(ParticipantCode::secretariat(), METHODS);
        let served = Served {
            services: SERVED,
            except: &[
                "/concord.agreement.v1.AgreementService/PreviewAudience",
                "/concord.operations.v1.RegistryService/ListPins",
                "/concord.operations.v1.RegistryService/ConfirmPin",
                "/concord.operations.v1.OperationsService/AddAgency",
                "/concord.operations.v1.OperationsService/GrantAgency",
                "/concord.operations.v1.OperationsService/ConfirmAgency",
                "/concord.operations.v1.OperationsService/RevokeAgency",
                "/concord.operations.v1.OperationsService/ListAgencies",
                "/concord.operations.v1.OperationsService/ProbeHub",
                "/concord.operations.v1.OperationsService/ListSetAside",
                "/concord.operations.v1.OperationsService/RetrySetAside",
                "/concord.operations.v1.OperationsService/DiscardSetAside",
            ],
            roles: &[Role::Node, Role::Officer, Role::Operator],
        };
        assert_eq!(check_against_descriptors(&table, &served), Ok(()));
    }
}
