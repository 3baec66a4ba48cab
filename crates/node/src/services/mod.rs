//! What agencies, officers and operators call: one file per gRPC service, and who may call what.

mod agency;
mod agreements;
mod operations;
mod receive;
mod registry;
mod statements;
mod status;
mod track;

use concord_identity::Caller;
use concord_model::{Reason, Refusal, Role};
use concord_server::{Allow, Row, Whose};
use concord_wire::status::to_status;
use tonic::{Request, Status};

pub(crate) use agency::AgencyApi;
pub use agency::acknowledge;
pub(crate) use agreements::AgreementApi;
pub(crate) use operations::OperationsApi;
pub use receive::{Items, give};
pub(crate) use registry::RegistryApi;
pub(crate) use statements::StatementApi;
pub use statements::hand_in;
pub(crate) use status::Started;

const AGENCY: Allow = Allow { role: Role::Agency, whose: Whose::OwnParticipant };
const OFFICER: Allow = Allow { role: Role::Officer, whose: Whose::OwnParticipant };
const OPERATOR: Allow = Allow { role: Role::Operator, whose: Whose::OwnParticipant };

/// The services of a node, for health and reflection.
pub(crate) const SERVICES: &[&str] = &[
    "concord.agency.v1.AgencyService",
    "concord.agreement.v1.StatementService",
    "concord.agreement.v1.AgreementService",
    "concord.operations.v1.RegistryService",
    "concord.operations.v1.OperationsService",
];

/// Who may call what at a node.
pub(crate) const METHODS: &[Row] = &[
    Row { method: "/concord.agency.v1.AgencyService/Submit", allow: &[AGENCY] },
    Row { method: "/concord.agency.v1.AgencyService/Receive", allow: &[AGENCY] },
    Row { method: "/concord.agency.v1.AgencyService/Acknowledge", allow: &[AGENCY] },
    Row { method: "/concord.agency.v1.AgencyService/Track", allow: &[AGENCY] },
    Row { method: "/concord.agreement.v1.StatementService/Prepare", allow: &[OFFICER] },
    Row { method: "/concord.agreement.v1.StatementService/Submit", allow: &[OFFICER] },
    Row { method: "/concord.agreement.v1.AgreementService/ListAgreements", allow: &[OFFICER, AGENCY] },
    Row { method: "/concord.agreement.v1.AgreementService/GetAgreement", allow: &[OFFICER, AGENCY] },
    Row { method: "/concord.operations.v1.RegistryService/ListParticipants", allow: &[OFFICER, OPERATOR, AGENCY] },
    Row { method: "/concord.operations.v1.RegistryService/ListMeasures", allow: &[OFFICER, OPERATOR, AGENCY] },
    Row { method: "/concord.operations.v1.OperationsService/GetStatus", allow: &[OPERATOR, OFFICER] },
    Row { method: "/concord.operations.v1.OperationsService/AddAgency", allow: &[OPERATOR] },
    Row { method: "/concord.operations.v1.OperationsService/CreateBackup", allow: &[OFFICER] },
    Row { method: "/concord.operations.v1.OperationsService/PreviewRetention", allow: &[OPERATOR, OFFICER] },
    Row { method: "/concord.operations.v1.OperationsService/RunRetention", allow: &[OFFICER] },
];

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
    use concord_server::{MethodTable, Served, check_against_descriptors};

    use super::*;

    const HUB_ONLY: &[&str] = &["/concord.operations.v1.RegistryService/GetBundle"];

    #[test]
    fn the_table_says_what_the_comments_of_the_protocol_say() {
        let table = MethodTable::new(ParticipantCode::parse("KAZ").unwrap(), METHODS);
        let roles = [Role::Agency, Role::Officer, Role::Operator];
        let served = Served { services: SERVICES, except: HUB_ONLY, roles: &roles };
        assert_eq!(check_against_descriptors(&table, &served), Ok(()));
    }
}
