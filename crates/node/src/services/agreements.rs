//! `AgreementService`: the agreements that this participant is on.

use concord_ledger::{Agreement, AgreementState, PartyState};
use concord_model::{AgreementId, ParticipantCode, Reason, Refusal};
use concord_wire::agreement::shown;
use concord_wire::convert::refuse;
use concord_wire::proto::agreement::v1 as pb;
use concord_wire::proto::agreement::v1::agreement_service_server::AgreementService;
use tonic::{Request, Response, Status};

use super::statements::duration;
use super::{admitted_caller, refused};
use crate::context::Context;
use crate::state::NodeState;
use crate::state::decide::not_joined;

/// The longest that one call waits for an agreement; the caller asks again.
const AGREEMENT_WAIT_MAX_SECONDS: u64 = 55;

/// Serves officers and agencies.
#[derive(Clone)]
pub(crate) struct AgreementApi {
    context: Context,
}

impl AgreementApi {
    pub(crate) fn new(context: Context) -> Self {
        Self { context }
    }
}

#[tonic::async_trait]
impl AgreementService for AgreementApi {
    async fn list_agreements(
        &self,
        request: Request<pb::ListAgreementsRequest>,
    ) -> Result<Response<pb::ListAgreementsResponse>, Status> {
        admitted_caller(&self.context, &request)?;
        let only_pending = request.into_inner().pending;
        let state = self.context.now_state();
        joined(&state)?;
        let own = &self.context.participant;
        let visible = state.directory().agreements.visible_to(own);
        let shown = visible.filter(|agreement| !only_pending || waits_for(agreement, own)).map(shown);
        Ok(Response::new(pb::ListAgreementsResponse { agreements: shown.collect() }))
    }

    async fn get_agreement(
        &self,
        request: Request<pb::GetAgreementRequest>,
    ) -> Result<Response<pb::GetAgreementResponse>, Status> {
        admitted_caller(&self.context, &request)?;
        let request = request.into_inner();
        let unknown = refuse(Reason::AgreementUnknown);
        let id = AgreementId::parse(&request.id).map_err(|error| refused(unknown(error)))?;
        joined(&self.context.now_state())?;
        let own = &self.context.participant;
        let mut published = self.context.state.clone();
        let waited = request.wait_in_force.is_some();
        if waited {
            // One that is not known yet may be on its way: its proposal comes with the feed.
            let settled = published.wait_for(|state| {
                let seen = state.directory().agreements.seen_by(own, &id);
                seen.is_some_and(|agreement| agreement.state != AgreementState::Proposed)
            });
            let wait = duration(request.wait_in_force, AGREEMENT_WAIT_MAX_SECONDS);
            if tokio::time::timeout(wait, settled).await.is_err() {
                tracing::debug!("an agreement did not come into force in the time allowed");
            }
        }
        let state = self.context.now_state();
        let mut visible = state.directory().agreements.visible_to(own);
        let agreement = visible
            .find(|agreement| agreement.text.id == id)
            .ok_or_else(|| refused(Refusal::agreement_unknown(&id)))?;
        if waited && agreement.state == AgreementState::Proposed {
            let what = format!("{id} did not come into force in the time allowed; consents are missing");
            return Err(refused(Refusal::new(Reason::WaitExpired, what)));
        }
        Ok(Response::new(pb::GetAgreementResponse { agreement: Some(shown(agreement)) }))
    }
}

fn joined(state: &NodeState) -> Result<(), Status> {
    if state.hub().is_some() { Ok(()) } else { Err(refused(not_joined())) }
}

fn waits_for(agreement: &Agreement, participant: &ParticipantCode) -> bool {
    agreement.state == AgreementState::Proposed && agreement.party_state(participant) == Some(PartyState::Pending)
}
