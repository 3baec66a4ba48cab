//! `AgreementService` at the hub: all agreements, for the secretariat.

use std::sync::Arc;
use std::time::Duration;

use concord_identity::Caller;
use concord_ledger::AgreementState;
use concord_model::{AgreementId, ParticipantCode, Reason, Refusal};
use concord_server::denied;
use concord_wire::agreement::shown;
use concord_wire::convert::digest_bytes;
use concord_wire::proto::agreement::v1 as pb;
use concord_wire::proto::agreement::v1::agreement_service_server::{AgreementService, AgreementServiceServer};
use concord_wire::status::to_status;
use tonic::{Request, Response, Status};

use crate::sequencer::Published;
use crate::shared::Shared;

/// Shows agreements.
pub struct AgreementsView(pub Arc<Shared>);

/// The service.
pub fn server(shared: Arc<Shared>) -> AgreementServiceServer<AgreementsView> {
    AgreementServiceServer::new(AgreementsView(shared))
}

#[tonic::async_trait]
impl AgreementService for AgreementsView {
    async fn list_agreements(
        &self,
        request: Request<pb::ListAgreementsRequest>,
    ) -> Result<Response<pb::ListAgreementsResponse>, Status> {
        let pending = request.into_inner().pending;
        let published = self.0.published();
        let secretariat = ParticipantCode::secretariat();
        let all = published.ledger.agreements_visible_to(&secretariat);
        let asked = all.filter(|agreement| !pending || agreement.state == AgreementState::Proposed);
        Ok(Response::new(pb::ListAgreementsResponse { agreements: asked.map(shown).collect() }))
    }

    async fn get_agreement(
        &self,
        request: Request<pb::GetAgreementRequest>,
    ) -> Result<Response<pb::GetAgreementResponse>, Status> {
        let asked = request.into_inner();
        let id = AgreementId::parse(&asked.id)
            .map_err(|error| to_status(&Refusal::new(Reason::ArgumentInvalid, error.to_string())))?;
        let wait = asked.wait_in_force.and_then(|wait| Duration::try_from(wait).ok());
        let published = self.settled(&id, wait).await.map_err(|refusal| to_status(&refusal))?;
        let secretariat = ParticipantCode::secretariat();
        let mut visible = published.ledger.agreements_visible_to(&secretariat).filter(|one| one.text.id == id);
        let agreement = visible.next().ok_or_else(|| to_status(&Refusal::agreement_unknown(&id)))?;
        let agreements = published.ledger.agreements();
        let history = agreements.history_for(&secretariat, &id).filter(|_| asked.with_history);
        // What the secretariat itself left and may come back to.
        let left = agreements.left_by(&secretariat, &id).filter(|_| asked.with_left);
        let left_by = left.and_then(|left| left.left_by(&secretariat));
        Ok(Response::new(pb::GetAgreementResponse {
            agreement: Some(shown(agreement)),
            amendment: visible.next().map(shown),
            history: history.map(shown).collect(),
            left_by: left_by.as_ref().map(digest_bytes).unwrap_or_default(),
        }))
    }

    /// Only a node knows what its own state would send; the method table lets nobody get here.
    async fn preview_audience(
        &self,
        request: Request<pb::PreviewAudienceRequest>,
    ) -> Result<Response<pb::PreviewAudienceResponse>, Status> {
        let by = request.extensions().get::<Caller>().map(|caller| &caller.identity);
        Err(to_status(&denied(by)))
    }
}

impl AgreementsView {
    /// What is published now, or when the agreement no longer waits for its first consents.
    async fn settled(&self, id: &AgreementId, wait: Option<Duration>) -> Result<Arc<Published>, Refusal> {
        let Some(wait) = wait else { return Ok(self.0.published()) };
        let mut published = self.0.sequencer.watch();
        let settled = published.wait_for(|published| {
            let agreements = published.ledger.agreements();
            let waits = agreements.get(id).is_some_and(|latest| latest.state == AgreementState::Proposed);
            !waits || agreements.in_force(id).is_some()
        });
        match tokio::time::timeout(wait, settled).await {
            Ok(Ok(published)) => Ok(Arc::clone(&published)),
            Ok(Err(_)) => Err(Refusal::new(Reason::ShuttingDown, "the hub is ending")),
            Err(_) => Err(Refusal::new(Reason::WaitExpired, format!("agreement {id} is not in force yet"))),
        }
    }
}
