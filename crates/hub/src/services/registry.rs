//! `RegistryService` at the hub: participants, measures, and bundles for those who were enrolled.

use std::sync::Arc;

use concord_identity::enrolment_fingerprint;
use concord_ledger::{Enrolment, Waiting};
use concord_model::{Fingerprint, ParticipantCode, Reason, Refusal, Role};
use concord_server::denied;
use concord_wire::convert::{digest_bytes, timestamp};
use concord_wire::proto::operations::v1 as pb;
use concord_wire::proto::operations::v1::registry_service_server::{RegistryService, RegistryServiceServer};
use concord_wire::registry;
use concord_wire::status::to_status;
use prost::Message as _;
use tonic::{Request, Response, Status};

use super::caller;
use crate::feed::waiting_statement;
use crate::shared::{Shared, internal};

/// What is listed of statements that wait: many of the largest would not fit into one message.
const LISTED_SIZE_MAX_BYTES: usize = 4 * 1024 * 1024;

/// Shows the registry and makes bundles.
pub struct RegistryView(pub Arc<Shared>);

/// The service.
pub fn server(shared: Arc<Shared>) -> RegistryServiceServer<RegistryView> {
    RegistryServiceServer::new(RegistryView(shared))
}

#[tonic::async_trait]
impl RegistryService for RegistryView {
    async fn list_participants(
        &self,
        request: Request<pb::ListParticipantsRequest>,
    ) -> Result<Response<pb::ListParticipantsResponse>, Status> {
        let caller = caller(&request)?;
        if caller.identity.role == Role::Node {
            self.0.enrolled_node(&caller).map_err(|refusal| to_status(&refusal))?;
        }
        let published = self.0.published();
        // A node hears here of its own state alone: what it is to know of others its feed tells.
        let is_shown =
            |code: &ParticipantCode| caller.identity.role != Role::Node || *code == caller.identity.participant;
        let shown = published.ledger.participants().filter(|participant| is_shown(&participant.code));
        let known = published.ledger.registry();
        let registered = shown
            .map(|participant| registry::registered(known, participant, |keys| fingerprint(&participant.code, keys)));
        Ok(Response::new(pb::ListParticipantsResponse { participants: registered.collect() }))
    }

    async fn list_measures(
        &self,
        _request: Request<pb::ListMeasuresRequest>,
    ) -> Result<Response<pb::ListMeasuresResponse>, Status> {
        let published = self.0.published();
        let known = published.ledger.registry();
        Ok(Response::new(pb::ListMeasuresResponse {
            areas: known.areas().iter().map(registry::area).collect(),
            measures: known.measures().iter().map(registry::measure).collect(),
            decisions: registry::measure_decisions(known),
        }))
    }

    async fn list_approvals(
        &self,
        _request: Request<pb::ListApprovalsRequest>,
    ) -> Result<Response<pb::ListApprovalsResponse>, Status> {
        let waiting = self.0.blocking(waiting).await.map_err(|refusal| to_status(&refusal))?;
        Ok(Response::new(waiting))
    }

    async fn list_contacts(
        &self,
        request: Request<pb::ListContactsRequest>,
    ) -> Result<Response<pb::ListContactsResponse>, Status> {
        let asked = registry::parse_contacts_request(&request.into_inner());
        let (only, after) = asked.map_err(|refusal| to_status(&refusal))?;
        let published = self.0.published();
        let contacts = published.ledger.registry().contacts();
        Ok(Response::new(registry::contacts(contacts, only.as_ref(), after.as_ref())))
    }

    async fn list_roles(
        &self,
        _request: Request<pb::ListRolesRequest>,
    ) -> Result<Response<pb::ListRolesResponse>, Status> {
        Ok(Response::new(registry::roles(self.0.published().ledger.registry().roles())))
    }

    async fn get_bundle(
        &self,
        request: Request<pb::GetBundleRequest>,
    ) -> Result<Response<pb::GetBundleResponse>, Status> {
        let bundle = self.bundle(&request.into_inner().participant).map_err(|refusal| to_status(&refusal))?;
        Ok(Response::new(pb::GetBundleResponse { bundle: Some(bundle) }))
    }

    /// A node's: no call gets here.
    async fn list_pins(&self, _: Request<pb::ListPinsRequest>) -> Result<Response<pb::ListPinsResponse>, Status> {
        Err(to_status(&denied(None)))
    }

    /// A node's: no call gets here.
    async fn confirm_pin(&self, _: Request<pb::ConfirmPinRequest>) -> Result<Response<pb::ConfirmPinResponse>, Status> {
        Err(to_status(&denied(None)))
    }
}

impl RegistryView {
    fn bundle(&self, participant: &str) -> Result<pb::Bundle, Refusal> {
        let participant = ParticipantCode::parse(participant)
            .map_err(|error| Refusal::new(Reason::ArgumentInvalid, error.to_string()))?;
        let published = self.0.published();
        let known = published.ledger.registry();
        if known.participant(&participant).is_none() {
            return Err(Refusal::new(Reason::ParticipantUnknown, format!("{participant} is not in the registry")));
        }
        let enrolment = known
            .enrolment(&participant)
            .ok_or_else(|| Refusal::new(Reason::ParticipantNotEnrolled, format!("{participant} is not enrolled")))?;
        let secretariat = known.hub_keys().ok_or_else(|| internal("the hub itself is not in its registry"))?;
        let (anchor, signing_key) = secretariat.first_keys();
        let present: Vec<_> = secretariat.present_anchors().map(bytes::Bytes::copy_from_slice).collect();
        Ok(pb::Bundle {
            hub: self.0.hub.to_string(),
            addresses: self.0.announce.clone(),
            anchor: bytes::Bytes::copy_from_slice(anchor),
            signing_key: bytes::Bytes::copy_from_slice(&signing_key.bytes),
            enrolment_fingerprint: digest_bytes(&fingerprint(&participant, enrolment).0),
            participant: participant.to_string(),
            replaces: enrolment.earlier.iter().any(|keys| !keys.vouches),
            present_anchors: if present == [anchor] { Vec::new() } else { present },
            history: bytes::Bytes::copy_from_slice(published.tail.history.as_bytes()),
        })
    }
}

/// What waits for signatures now, the oldest first, as far as one message goes; blocks.
fn waiting(shared: &Shared) -> Result<pb::ListApprovalsResponse, Refusal> {
    let published = shared.published();
    let now = shared.clock.now();
    let mut waiting: Vec<_> = published.ledger.approvals().iter().map(|(_, waiting)| waiting).collect();
    waiting.retain(|waiting| now < waiting.lapses_at());
    waiting.sort_by_key(|waiting| (waiting.since, waiting.statement.digest));
    let shown = |waiting: &Waiting| {
        Ok(pb::WaitingStatement {
            statement: Some(waiting_statement(shared, waiting)?),
            needs: waiting.needs,
            signed_by: waiting
                .signed
                .iter()
                .map(|signed| pb::StatementSignature {
                    officer: signed.officer.to_string(),
                    at: Some(timestamp(signed.at)),
                })
                .collect(),
            lapses_at: Some(timestamp(waiting.lapses_at())),
        })
    };
    let mut listed = pb::ListApprovalsResponse::default();
    for (index, one) in waiting.iter().copied().enumerate() {
        let one = shown(one)?;
        if listed.encoded_len() + one.encoded_len() > LISTED_SIZE_MAX_BYTES {
            listed.more = u32::try_from(waiting.len() - index).unwrap_or(u32::MAX);
            break;
        }
        listed.waiting.push(one);
    }
    Ok(listed)
}

fn fingerprint(participant: &ParticipantCode, enrolment: &Enrolment) -> Fingerprint {
    enrolment_fingerprint(participant, &enrolment.anchor, &enrolment.signing_key)
}
