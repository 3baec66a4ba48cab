//! `AgreementService`: the agreements that this participant is on.

use concord_ledger::{Agreement, AgreementState};
use concord_model::{AgreementId, Name, Reason, Refusal, Role};
use concord_wire::agreement::shown;
use concord_wire::convert::{digest_bytes, refuse};
use concord_wire::proto::agreement::v1 as pb;
use concord_wire::proto::agreement::v1::agreement_service_server::AgreementService;
use tonic::{Request, Response, Status};

use super::statements::duration;
use super::{known_caller, refused};
use crate::context::Context;
use crate::state::NodeState;
use crate::state::decide::not_joined;
use crate::submit::preview;

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
        let seen_by = SeenBy::of(&self.context, &request)?;
        let only_pending = request.into_inner().pending;
        let state = self.context.now_state();
        joined(&state)?;
        let own = &self.context.participant;
        let visible = state.directory().agreements.visible_to(own).filter(|agreement| seen_by.sees(&state, agreement));
        let shown = visible.filter(|agreement| !only_pending || agreement.waits_for(own)).map(shown);
        Ok(Response::new(pb::ListAgreementsResponse { agreements: shown.collect() }))
    }

    async fn get_agreement(
        &self,
        request: Request<pb::GetAgreementRequest>,
    ) -> Result<Response<pb::GetAgreementResponse>, Status> {
        let seen_by = SeenBy::of(&self.context, &request)?;
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
                let counting = counting.filter(|agreement| seen_by.sees(state, agreement));
                counting.is_some_and(|agreement| agreement.state != AgreementState::Proposed)
            });
            let wait = duration(request.wait_in_force, AGREEMENT_WAIT_MAX_SECONDS);
            if tokio::time::timeout(wait, settled).await.is_err() {
                tracing::debug!("an agreement did not come into force in the time allowed");
            }
        }
        let state = self.context.now_state();
        let agreements = &state.directory().agreements;
        let counting = agreements.counting_for(own, &id).filter(|agreement| seen_by.sees(&state, agreement));
        // An officer reads what its state was party to, also where there is nothing to come back to any more.
        let reads_left = request.with_left && matches!(seen_by, SeenBy::Officer);
        let may_return = agreements.left_by(own, &id).filter(|_| reads_left);
        let left_by = may_return.filter(|_| counting.is_none()).and_then(|left| left.left_by(own));
        let left = may_return.or_else(|| agreements.gone_from(own, &id).filter(|_| reads_left));
        let agreement = counting.or(left).ok_or_else(|| refused(Refusal::agreement_unknown(&id)))?;
        if waited && agreement.state == AgreementState::Proposed {
            let what = format!("{id} did not come into force in the time allowed; consents are missing");
            return Err(refused(Refusal::new(Reason::WaitExpired, what)));
        }
        let sees = |version: &&Agreement| seen_by.sees(&state, version);
        let (shown_of_past, past) = (agreements.history_for(own, &id), agreements.past_of(own, &id));
        let reads_past = reads_left && counting.is_none();
        let history = shown_of_past.filter(|_| !reads_past).chain(past.filter(|_| reads_past));
        let history = history.filter(|_| request.with_history).filter(sees);
        Ok(Response::new(pb::GetAgreementResponse {
            agreement: Some(shown(agreement)),
            amendment: agreements.amendment_for(own, &id).filter(sees).map(shown),
            history: history.map(shown).collect(),
            left_by: left_by.as_ref().map(digest_bytes).unwrap_or_default(),
        }))
    }

    async fn preview_audience(
        &self,
        request: Request<pb::PreviewAudienceRequest>,
    ) -> Result<Response<pb::PreviewAudienceResponse>, Status> {
        let seen_by = SeenBy::of(&self.context, &request)?;
        let state = self.context.now_state();
        joined(&state)?;
        let agency = match &seen_by {
            SeenBy::Officer => None,
            // One that was ended meanwhile is never taken for the officer.
            SeenBy::Agency(name) => Some(state.agency(name).map_err(refused)?),
        };
        preview(&self.context, &state, agency, request.into_inner()).map(Response::new).map_err(refused)
    }
}

/// Who asks: an officer sees what its state is on, an agency of that what it may send or receive under.
enum SeenBy {
    Officer,
    Agency(Name),
}

impl SeenBy {
    fn of<T>(context: &Context, request: &Request<T>) -> Result<Self, Status> {
        let identity = known_caller(context, request)?.identity;
        Ok(if identity.role == Role::Officer { Self::Officer } else { Self::Agency(identity.name) })
    }

    fn sees(&self, state: &NodeState, agreement: &Agreement) -> bool {
        match self {
            Self::Officer => true,
            Self::Agency(name) => state.agencies().get(name).is_some_and(|agency| agency.sees(agreement)),
        }
    }
}

fn joined(state: &NodeState) -> Result<(), Status> {
    if state.hub().is_some() { Ok(()) } else { Err(refused(not_joined())) }
}
