//! What agencies, officers and operators call: one file per gRPC service, who may call what, and the server of them all.

mod agency;
mod agreements;
pub(crate) mod aside;
mod cursor;
mod explain;
mod operations;
mod receive;
mod registry;
mod statements;
mod status;
pub(crate) mod track;
mod why;

use std::sync::Arc;

use concord_identity::Caller;
use concord_model::{Identity, Name, Reason, Refusal, Role};
use concord_server::audit::{Event, Object, is_by_rule};
use concord_server::{
    Allow, Called, Connections, GrpcServer, Health, MESSAGE_SIZE_MAX_BYTES, MethodTable, ReflectionError, Row, Whose,
    reflection,
};
use concord_wire::proto::agency::v1::agency_service_server::AgencyServiceServer;
use concord_wire::proto::agreement::v1::agreement_service_server::AgreementServiceServer;
use concord_wire::proto::agreement::v1::statement_service_server::StatementServiceServer;
use concord_wire::proto::operations::v1::registry_service_server::RegistryServiceServer;
use concord_wire::status::to_status;
use tonic::service::Routes;
use tonic::{Request, Status};

use crate::context::Context;

use agency::AgencyApi;
pub use agency::acknowledge;
use agreements::AgreementApi;
pub(crate) use aside::{SET_ASIDE_NEXT, SET_ASIDE_NOTE};
pub use cursor::{Cursor, Cursors};
pub(crate) use explain::explain;
pub(crate) use operations::OperationsApi;
pub use receive::{Item, Items, give, given};
use registry::RegistryApi;
use statements::StatementApi;
pub use statements::hand_in;
#[cfg(test)]
pub(crate) use status::uncollected;
pub(crate) use status::{Started, keep_measured, uncollected_with_exercises};
#[cfg(test)]
pub(crate) use why::{Asking, why};

const AGENCY: Allow = Allow { role: Role::Agency, whose: Whose::OwnParticipant };
const OFFICER: Allow = Allow { role: Role::Officer, whose: Whose::OwnParticipant };
const OPERATOR: Allow = Allow { role: Role::Operator, whose: Whose::OwnParticipant };

/// The services of a node, for health and reflection.
const SERVICES: &[&str] = &[
    "concord.agency.v1.AgencyService",
    "concord.agreement.v1.StatementService",
    "concord.agreement.v1.AgreementService",
    "concord.operations.v1.RegistryService",
    "concord.operations.v1.OperationsService",
];

/// Who may call what at a node.
const METHODS: &[Row] = &[
    Row { method: "/concord.agency.v1.AgencyService/Submit", allow: &[AGENCY] },
    Row { method: "/concord.agency.v1.AgencyService/Withdraw", allow: &[AGENCY] },
    Row { method: "/concord.agency.v1.AgencyService/Receive", allow: &[AGENCY] },
    Row { method: "/concord.agency.v1.AgencyService/Acknowledge", allow: &[AGENCY] },
    Row { method: "/concord.agency.v1.AgencyService/Track", allow: &[AGENCY] },
    Row { method: "/concord.agency.v1.AgencyService/Explain", allow: &[AGENCY] },
    Row { method: "/concord.agency.v1.AgencyService/Why", allow: &[AGENCY, OFFICER] },
    Row { method: "/concord.agreement.v1.StatementService/Prepare", allow: &[OFFICER] },
    Row { method: "/concord.agreement.v1.StatementService/Submit", allow: &[OFFICER] },
    Row { method: "/concord.agreement.v1.AgreementService/ListAgreements", allow: &[OFFICER, AGENCY] },
    Row { method: "/concord.agreement.v1.AgreementService/GetAgreement", allow: &[OFFICER, AGENCY] },
    Row { method: "/concord.agreement.v1.AgreementService/PreviewAudience", allow: &[OFFICER, AGENCY] },
    Row { method: "/concord.operations.v1.RegistryService/ListParticipants", allow: &[OFFICER, OPERATOR, AGENCY] },
    Row { method: "/concord.operations.v1.RegistryService/ListMeasures", allow: &[OFFICER, OPERATOR, AGENCY] },
    Row { method: "/concord.operations.v1.RegistryService/ListContacts", allow: &[OFFICER, OPERATOR, AGENCY] },
    Row { method: "/concord.operations.v1.RegistryService/ListRoles", allow: &[OFFICER, OPERATOR, AGENCY] },
    Row { method: "/concord.operations.v1.RegistryService/ListPins", allow: &[OFFICER, OPERATOR] },
    Row { method: "/concord.operations.v1.RegistryService/ConfirmPin", allow: &[OFFICER] },
    Row { method: "/concord.operations.v1.OperationsService/GetStatus", allow: &[OPERATOR, OFFICER] },
    Row { method: "/concord.operations.v1.OperationsService/AddAgency", allow: &[OPERATOR] },
    Row { method: "/concord.operations.v1.OperationsService/GrantAgency", allow: &[OFFICER] },
    Row { method: "/concord.operations.v1.OperationsService/ConfirmAgency", allow: &[OFFICER] },
    Row { method: "/concord.operations.v1.OperationsService/RevokeAgency", allow: &[OPERATOR, OFFICER] },
    Row { method: "/concord.operations.v1.OperationsService/ListAgencies", allow: &[OPERATOR, OFFICER] },
    Row { method: "/concord.operations.v1.OperationsService/ProbeHub", allow: &[OPERATOR, OFFICER] },
    Row { method: "/concord.operations.v1.OperationsService/CreateBackup", allow: &[OFFICER] },
    Row { method: "/concord.operations.v1.OperationsService/PreviewRetention", allow: &[OPERATOR, OFFICER] },
    Row { method: "/concord.operations.v1.OperationsService/RunRetention", allow: &[OFFICER] },
    Row { method: "/concord.operations.v1.OperationsService/ListAudit", allow: &[OPERATOR, OFFICER] },
    Row { method: "/concord.operations.v1.OperationsService/ListSetAside", allow: &[OPERATOR, OFFICER] },
    Row { method: "/concord.operations.v1.OperationsService/RetrySetAside", allow: &[OPERATOR, OFFICER] },
    Row { method: "/concord.operations.v1.OperationsService/DiscardSetAside", allow: &[OFFICER] },
];

/// A node's gRPC server, with every service but operations, which asks for more than the services share.
pub async fn server(context: &Context) -> Result<GrpcServer, ReflectionError> {
    let max = MESSAGE_SIZE_MAX_BYTES;
    let (health, health_server) = Health::new(SERVICES).await;
    let agency = AgencyServiceServer::new(AgencyApi::new(context.clone()));
    let routes = Routes::new(health_server)
        .add_service(reflection(SERVICES)?)
        .add_service(agency.max_decoding_message_size(max).max_encoding_message_size(max))
        .add_service(StatementServiceServer::new(StatementApi::new(context.clone())))
        .add_service(AgreementServiceServer::new(AgreementApi::new(context.clone())).max_encoding_message_size(max))
        .add_service(RegistryServiceServer::new(RegistryApi::new(context.clone())).max_encoding_message_size(max));
    Ok(GrpcServer {
        routes,
        table: Arc::new(MethodTable::new(context.participant.clone(), METHODS)),
        health,
        connections: Connections::new(),
        readiness: context.readiness.clone(),
        audit: context.audit.clone(),
        shutdown: context.shutdown.clone(),
    })
}

/// Who calls. A certificate alone does not make an agency: it was added to this node, was not ended since, and does not wait for an
/// officer's word.
///
/// Refuses with `AGENCY_UNKNOWN` and `AGENCY_UNCONFIRMED`.
fn known_caller<T>(context: &Context, request: &Request<T>) -> Result<Caller, Status> {
    let caller = caller(request)?;
    let name = &caller.identity.name;
    let known = match caller.identity.role {
        Role::Agency => context.state.borrow().agency(name).map(drop),
        _ => Ok(()),
    };
    if let Err(refusal) = known
        && !concord_faults::planted("take-anybody-for-an-agency")
    {
        note_refusal(context, &caller.identity, called(request), Object::nothing(), &refusal);
        return Err(refused(refusal));
    }
    Ok(caller)
}

/// Which method of the table this is.
fn called<T>(request: &Request<T>) -> &'static str {
    request.extensions().get::<Called>().map_or("unknown", |called| called.0)
}

/// Notes that a rule refused a caller; what passes as it is a moment later is not noted.
fn note_refusal(context: &Context, by: &Identity, method: &'static str, about: Object, refusal: &Refusal) {
    if is_by_rule(refusal.reason) {
        context.audit.note(Event::of_call(by, method, about, Err(refusal.reason)));
    }
}

/// Notes an act of a person, or that a rule refused it.
fn note_act<T>(context: &Context, by: &Identity, method: &'static str, about: Object, done: &Result<T, Refusal>) {
    match done {
        Ok(_) => context.audit.note(Event::of_call(by, method, about, Ok(()))),
        Err(refusal) => note_refusal(context, by, method, about, refusal),
    }
}

/// Waits until an agency may not act any more, and says why.
async fn ended(context: &Context, agency: &Name) -> Refusal {
    let mut published = context.state.clone();
    let refusal = published.wait_for(|state| state.agency(agency).is_err()).await.ok();
    match refusal.and_then(|state| state.agency(agency).err()) {
        Some(refusal) => refusal,
        None => std::future::pending().await,
    }
}

/// Who calls. The method layer let nobody through that has no certificate.
fn caller<T>(request: &Request<T>) -> Result<Caller, Status> {
    let caller = request.extensions().get::<Caller>().cloned();
    caller.ok_or_else(|| to_status(&Refusal::new(Reason::CallerNotAllowed, "this call has no caller")))
}

fn refused(refusal: Refusal) -> Status {
    to_status(&refusal)
}

/// Details of a fault are for the log of this process.
fn internal(error: impl std::fmt::Display) -> Status {
    tracing::error!(%error, "a call failed inside");
    to_status(&Refusal::new(Reason::Internal, "something failed inside this node"))
}

#[cfg(test)]
mod tests {
    use concord_model::ParticipantCode;
    use concord_server::{Served, check_against_descriptors};

    use super::*;

    const HUB_ONLY: &[&str] = &[
        "/concord.operations.v1.RegistryService/GetBundle",
        "/concord.operations.v1.RegistryService/ListApprovals",
        "/concord.operations.v1.OperationsService/ExplainExchange",
    ];

    #[test]
    fn the_table_says_what_the_comments_of_the_protocol_say() {
        let table = MethodTable::new(ParticipantCode::parse("KAZ").unwrap(), METHODS);
        let roles = [Role::Agency, Role::Officer, Role::Operator];
        let served = Served { services: SERVICES, except: HUB_ONLY, roles: &roles };
        assert_eq!(check_against_descriptors(&table, &served), Ok(()));
    }
}
