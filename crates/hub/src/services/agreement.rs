//! `AgreementService` at the hub: all agreements, for the secretariat.

use std::sync::Arc;
use std::time::Duration;

use concord_ledger::{Agreement, AgreementState};
use concord_model::{AgreementId, Reason, Refusal};
use concord_wire::agreement::shown;
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
        let all = published.ledger.agreements().all();
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
        let agreement = self.get(&id, wait).await.map_err(|refusal| to_status(&refusal))?;
        Ok(Response::new(pb::GetAgreementResponse { agreement: Some(shown(&agreement)) }))
    }
}

impl AgreementsView {
    /// The agreement now, or when it no longer waits for consents.
    async fn get(&self, id: &AgreementId, wait: Option<Duration>) -> Result<Agreement, Refusal> {
        let find = |published: &Published| {
            published.ledger.agreements().get(id).cloned().ok_or_else(|| Refusal::agreement_unknown(id))
        };
        let Some(wait) = wait else {
            return find(&self.0.published());
        };
        let mut published = self.0.sequencer.watch();
        let settled = published.wait_for(|published| match published.ledger.agreements().get(id) {
            Some(agreement) => agreement.state != AgreementState::Proposed,
            None => true,
        });
        match tokio::time::timeout(wait, settled).await {
            Ok(Ok(published)) => find(&published),
            Ok(Err(_)) => Err(Refusal::new(Reason::ShuttingDown, "the hub is ending")),
            Err(_) => Err(Refusal::new(Reason::WaitExpired, format!("agreement {id} is not in force yet"))),
        }
    }
}
