//! `AgreementService`: the agreements that this participant is on.

use concord_ledger::AgreementState;
use concord_model::{AgreementId, Reason, Refusal};
use concord_wire::agreement::shown;
use concord_wire::convert::refuse;
use concord_wire::proto::agreement::v1 as pb;
use concord_wire::proto::agreement::v1::agreement_service_server::AgreementService;
use tonic::{Request, Response, Status};

use super::refused;
use super::statements::duration;
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
        let only_pending = request.into_inner().pending;
        let state = self.context.now_state();
        joined(&state)?;
        let own = &self.context.participant;
        let visible = state.directory().agreements.visible_to(own);
        let shown = visible.filter(|agreement| !only_pending || agreement.waits_for(own)).map(shown);
        Ok(Response::new(pb::ListAgreementsResponse { agreements: shown.collect() }))
    }

    async fn get_agreement(
        &self,
        request: Request<pb::GetAgreementRequest>,
    ) -> Result<Response<pb::GetAgreementResponse>, Status> {
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
                let counting = state.directory().agreements.counting_for(own, &id);
                counting.is_some_and(|agreement| agreement.state != AgreementState::Proposed)
            });
            let wait = duration(request.wait_in_force, AGREEMENT_WAIT_MAX_SECONDS);
            if tokio::time::timeout(wait, settled).await.is_err() {
                tracing::debug!("an agreement did not come into force in the time allowed");
            }
        }
        let state = self.context.now_state();
        let agreements = &state.directory().agreements;
        let agreement = agreements.counting_for(own, &id).ok_or_else(|| refused(Refusal::agreement_unknown(&id)))?;
        if waited && agreement.state == AgreementState::Proposed {
            let what = format!("{id} did not come into force in the time allowed; consents are missing");
            return Err(refused(Refusal::new(Reason::WaitExpired, what)));
        }
        let history = agreements.history_for(own, &id).filter(|_| request.with_history);
        Ok(Response::new(pb::GetAgreementResponse {
            agreement: Some(shown(agreement)),
            amendment: agreements.amendment_for(own, &id).map(shown),
            history: history.map(shown).collect(),
        }))
    }
}

fn joined(state: &NodeState) -> Result<(), Status> {
    if state.hub().is_some() { Ok(()) } else { Err(refused(not_joined())) }
}
