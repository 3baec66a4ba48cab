//! `RegistryService`: participants and catalogue, as the feed told them.

use concord_identity::enrolment_fingerprint;
use concord_ledger::Enrolment;
use concord_model::{Digest, Fingerprint, ParticipantCode, Reason};
use concord_server::audit::Object;
use concord_server::denied;
use concord_wire::convert::refuse;
use concord_wire::proto::operations::v1 as pb;
use concord_wire::proto::operations::v1::registry_service_server::RegistryService;
use concord_wire::registry as wire;
use tonic::{Request, Response, Status};

use super::{called, caller, known_caller, note_act, refused};
use crate::context::Context;
use crate::state::{Pin, PinState};

/// Serves officers, operators and agencies.
#[derive(Clone)]
pub(crate) struct RegistryApi {
    context: Context,
}

impl RegistryApi {
    pub(crate) fn new(context: Context) -> Self {
        Self { context }
    }
}

#[tonic::async_trait]
impl RegistryService for RegistryApi {
    async fn list_participants(
        &self,
        request: Request<pb::ListParticipantsRequest>,
    ) -> Result<Response<pb::ListParticipantsResponse>, Status> {
        known_caller(&self.context, &request)?;
        let state = self.context.now_state();
        let registry = &state.directory().registry;
        let participants = registry
            .participants()
            .map(|participant| wire::registered(registry, participant, |keys| fingerprint(&participant.code, keys)));
        Ok(Response::new(pb::ListParticipantsResponse { participants: participants.collect() }))
    }

    async fn list_measures(
        &self,
        request: Request<pb::ListMeasuresRequest>,
    ) -> Result<Response<pb::ListMeasuresResponse>, Status> {
        known_caller(&self.context, &request)?;
        let state = self.context.now_state();
        let registry = &state.directory().registry;
        Ok(Response::new(pb::ListMeasuresResponse {
            areas: registry.areas().iter().map(wire::area).collect(),
            measures: registry.measures().iter().map(wire::measure).collect(),
            decisions: wire::measure_decisions(registry),
        }))
    }

    async fn list_contacts(
        &self,
        request: Request<pb::ListContactsRequest>,
    ) -> Result<Response<pb::ListContactsResponse>, Status> {
        known_caller(&self.context, &request)?;
        let (only, after) = wire::parse_contacts_request(&request.into_inner()).map_err(refused)?;
        let state = self.context.now_state();
        let contacts = state.directory().registry.contacts();
        Ok(Response::new(wire::contacts(contacts, only.as_ref(), after.as_ref())))
    }

    async fn list_roles(
        &self,
        request: Request<pb::ListRolesRequest>,
    ) -> Result<Response<pb::ListRolesResponse>, Status> {
        known_caller(&self.context, &request)?;
        Ok(Response::new(wire::roles(self.context.now_state().directory().registry.roles())))
    }

    async fn list_pins(&self, request: Request<pb::ListPinsRequest>) -> Result<Response<pb::ListPinsResponse>, Status> {
        known_caller(&self.context, &request)?;
        let state = self.context.now_state();
        Ok(Response::new(pb::ListPinsResponse { pins: state.pins().iter().map(pin).collect() }))
    }

    async fn confirm_pin(
        &self,
        request: Request<pb::ConfirmPinRequest>,
    ) -> Result<Response<pb::ConfirmPinResponse>, Status> {
        let (by, method) = (caller(&request)?.identity, called(&request));
        let pb::ConfirmPinRequest { participant, enrolment_fingerprint } = request.into_inner();
        let whose = ParticipantCode::parse(&participant).map_err(refuse(Reason::ArgumentInvalid)).map_err(refused)?;
        let said = Digest::from_slice(&enrolment_fingerprint);
        let said = said.map(Fingerprint).map_err(refuse(Reason::ArgumentInvalid)).map_err(refused)?;
        let about = Object::keys_of(&whose);
        let done = self.context.writer.confirm_pin(whose, said).await;
        note_act(&self.context, &by, method, about, &done);
        done.map_err(refused)?;
        Ok(Response::new(pb::ConfirmPinResponse {}))
    }

    /// Only the hub makes bundles; the method table lets nobody get here.
    async fn get_bundle(
        &self,
        request: Request<pb::GetBundleRequest>,
    ) -> Result<Response<pb::GetBundleResponse>, Status> {
        Err(refused(denied(Some(&caller(&request)?.identity))))
    }

    /// What waits is at the hub; the method table lets nobody get here.
    async fn list_approvals(
        &self,
        request: Request<pb::ListApprovalsRequest>,
    ) -> Result<Response<pb::ListApprovalsResponse>, Status> {
        Err(refused(denied(Some(&caller(&request)?.identity))))
    }
}

fn pin(pin: &Pin<'_>) -> pb::Pin {
    let state = match pin.state {
        PinState::Unused => pb::PinState::Unused,
        PinState::Consented => pb::PinState::Consented,
        PinState::Confirmed => pb::PinState::Confirmed,
        PinState::Waits => pb::PinState::Waits,
    };
    pb::Pin {
        participant: pin.participant.to_string(),
        keys: Some(wire::enrolled(pin.keys, fingerprint(pin.participant, pin.keys))),
        state: state.into(),
        waiting_agreements: pin.waiting.iter().map(ToString::to_string).collect(),
    }
}

fn fingerprint(code: &ParticipantCode, keys: &Enrolment) -> Fingerprint {
    enrolment_fingerprint(code, &keys.anchor, &keys.signing_key)
}
