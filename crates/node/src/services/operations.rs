//! `OperationsService`: how the node is, and letting agencies in.

use std::sync::Arc;

use concord_backup::{BackupError, Backups};
use concord_model::{Identity, Lane, MeasureCode, Name, Reason, Refusal, Right, Scope};
use concord_server::audit::{AuditStream, Object};
use concord_server::{AskedDays, denied};
use concord_wire::convert::refuse;
use concord_wire::proto::operations::v1::operations_service_server::OperationsService;
use concord_wire::proto::operations::v1::{
    AddAgencyRequest, AddAgencyResponse, AgencyRule, ConfirmAgencyRequest, ConfirmAgencyResponse, CreateBackupRequest,
    CreateBackupResponse, DiscardSetAsideRequest, DiscardSetAsideResponse, EndOfAgency, ExplainExchangeRequest,
    ExplainExchangeResponse, GetStatusRequest, GetStatusResponse, GrantAgencyRequest, GrantAgencyResponse,
    ListAgenciesRequest, ListAgenciesResponse, ListAuditRequest, ListSetAsideRequest, ListSetAsideResponse,
    ListedAgency, PreviewRetentionRequest, PreviewRetentionResponse, ProbeHubRequest, ProbeHubResponse,
    RetrySetAsideRequest, RetrySetAsideResponse, RevokeAgencyRequest, RevokeAgencyResponse, RunRetentionRequest,
    RunRetentionResponse, revoke_agency_request,
};
use concord_wire::right::{parse_right, right};
use concord_wire::stored::node::RightsChange;
use futures::future::join_all;
use futures::stream::BoxStream;
use futures::{StreamExt as _, stream};
use tonic::{Request, Response, Status};

use super::status::{Started, lane_probe, status};
use super::{aside, called, caller, internal, note_act, refused};
use crate::context::Context;
use crate::probe;
use crate::retention::Keeper;
use crate::state::Agency;
use crate::state::decide::not_joined;
use crate::state::rights::{Rule, Rules};

/// Serves operators and officers.
#[derive(Clone)]
pub(crate) struct OperationsApi {
    context: Context,
    started: Started,
    backups: Backups,
    keeper: Arc<Keeper>,
}

impl OperationsApi {
    pub(crate) fn new(context: Context, started: Started, backups: Backups, keeper: Arc<Keeper>) -> Self {
        Self { context, started, backups, keeper }
    }
}

#[tonic::async_trait]
impl OperationsService for OperationsApi {
    type CreateBackupStream = BoxStream<'static, Result<CreateBackupResponse, Status>>;
    type ListAuditStream = AuditStream;

    /// The hub's: no call gets here.
    async fn explain_exchange(
        &self,
        request: Request<ExplainExchangeRequest>,
    ) -> Result<Response<ExplainExchangeResponse>, Status> {
        Err(refused(denied(Some(&caller(&request)?.identity))))
    }

    async fn list_set_aside(
        &self,
        request: Request<ListSetAsideRequest>,
    ) -> Result<Response<ListSetAsideResponse>, Status> {
        aside::list(&self.context, request.into_inner()).await.map(Response::new)
    }

    async fn retry_set_aside(
        &self,
        request: Request<RetrySetAsideRequest>,
    ) -> Result<Response<RetrySetAsideResponse>, Status> {
        let by = (caller(&request)?.identity, called(&request));
        aside::retry(&self.context, by, request.into_inner()).await.map(Response::new)
    }

    async fn discard_set_aside(
        &self,
        request: Request<DiscardSetAsideRequest>,
    ) -> Result<Response<DiscardSetAsideResponse>, Status> {
        let by = (caller(&request)?.identity, called(&request));
        aside::discard(&self.context, by, request.into_inner()).await.map(Response::new)
    }

    async fn probe_hub(&self, request: Request<ProbeHubRequest>) -> Result<Response<ProbeHubResponse>, Status> {
        caller(&request)?;
        if self.context.now_state().hub().is_none() {
            return Err(refused(not_joined()));
        }
        let all = Lane::ALL.map(|lane| async move { (lane, probe::probe(&self.context, lane).await) });
        let mut lanes = Vec::new();
        for (lane, probed) in join_all(all).await {
            lanes.push(lane_probe(lane, probed.map_err(refused)?));
        }
        Ok(Response::new(ProbeHubResponse { lanes }))
    }

    async fn list_audit(&self, request: Request<ListAuditRequest>) -> Result<Response<Self::ListAuditStream>, Status> {
        let by = caller(&request)?.identity;
        let lines = self.context.audit.list(&by, request.into_inner(), self.context.shutdown.clone());
        lines.map(Response::new).map_err(refused)
    }

    async fn create_backup(
        &self,
        request: Request<CreateBackupRequest>,
    ) -> Result<Response<Self::CreateBackupStream>, Status> {
        let busy = || refused(Refusal::new(Reason::QueueFull, "another backup is being made"));
        let chunks = self.backups.start(self.context.clock.now()).ok_or_else(busy)?;
        note_act(&self.context, &caller(&request)?.identity, called(&request), Object::nothing(), &Ok(()));
        let chunks = stream::unfold(chunks, |mut chunks| async { chunks.recv().await.map(|chunk| (chunk, chunks)) });
        let answer = |chunk: Result<bytes::Bytes, BackupError>| {
            chunk.map(|chunk| CreateBackupResponse { chunk }).map_err(|error| match error {
                BackupError::Changed { .. } => refused(Refusal::new(Reason::BackupConflict, error.to_string())),
                error => internal(error),
            })
        };
        Ok(Response::new(chunks.map(answer).boxed()))
    }

    async fn preview_retention(
        &self,
        request: Request<PreviewRetentionRequest>,
    ) -> Result<Response<PreviewRetentionResponse>, Status> {
        let PreviewRetentionRequest { bodies_days, entries_days } = request.into_inner();
        let asked = AskedDays { bodies: bodies_days, entries: entries_days };
        let report = self.keeper.preview(asked).await.map_err(refused)?;
        Ok(Response::new(PreviewRetentionResponse { report: Some(report) }))
    }

    async fn run_retention(
        &self,
        request: Request<RunRetentionRequest>,
    ) -> Result<Response<RunRetentionResponse>, Status> {
        let (by, method) = (caller(&request)?.identity, called(&request));
        let RunRetentionRequest { bodies_days, entries_days } = request.into_inner();
        let (keeper, asked) = (Arc::clone(&self.keeper), AskedDays { bodies: bodies_days, entries: entries_days });
        // It may take longer than a call may, and goes on then.
        let context = self.context.clone();
        let report = tokio::spawn(async move {
            let done = keeper.run(asked).await;
            note_act(&context, &by, method, Object::retention(done.as_ref().ok()), &done);
            done
        });
        let report = report.await.map_err(internal)?.map_err(refused)?;
        Ok(Response::new(RunRetentionResponse { report: Some(report) }))
    }

    async fn get_status(&self, _: Request<GetStatusRequest>) -> Result<Response<GetStatusResponse>, Status> {
        let (context, started) = (self.context.clone(), self.started.clone());
        // Counting what agencies have not acknowledged reads many rows.
        let counted = concord_server::blocking(move || status(&context, &started));
        Ok(Response::new(counted.await.map_err(internal)?.map_err(internal)?))
    }

    async fn add_agency(&self, request: Request<AddAgencyRequest>) -> Result<Response<AddAgencyResponse>, Status> {
        let (by, method) = (caller(&request)?.identity, called(&request));
        let AddAgencyRequest { name, measures } = request.into_inner();
        let invalid = refuse(Reason::ArgumentInvalid);
        let name = Name::parse(&name).map_err(|error| refused(invalid(error)))?;
        let mut codes = measures
            .iter()
            .map(|code| MeasureCode::parse(code).map_err(refuse(Reason::MeasureUnknown)))
            .collect::<Result<Vec<_>, _>>()
            .map_err(refused)?;
        codes.sort_unstable();
        codes.dedup();
        let about = Object::agency(&name, Some(&added(&codes)));
        let done = self.context.writer.add_agency(name.clone(), codes).await;
        note_act(&self.context, &by, method, about, &done);
        done.map_err(refused)?;
        let unconfirmed = self.context.now_state().unconfirmed().contains_key(&name);
        Ok(Response::new(AddAgencyResponse { unconfirmed }))
    }

    async fn grant_agency(
        &self,
        request: Request<GrantAgencyRequest>,
    ) -> Result<Response<GrantAgencyResponse>, Status> {
        let by = (caller(&request)?.identity, called(&request));
        let GrantAgencyRequest { name, right } = request.into_inner();
        let right = parse_right(&right.unwrap_or_default()).map_err(refused)?;
        self.change_rights(by, &name, RightsChange::Granted(right)).await?;
        Ok(Response::new(GrantAgencyResponse {}))
    }

    async fn confirm_agency(
        &self,
        request: Request<ConfirmAgencyRequest>,
    ) -> Result<Response<ConfirmAgencyResponse>, Status> {
        let by = (caller(&request)?.identity, called(&request));
        let ConfirmAgencyRequest { name, with_past } = request.into_inner();
        self.change_rights(by, &name, RightsChange::Confirmed { with_past }).await?;
        Ok(Response::new(ConfirmAgencyResponse {}))
    }

    async fn revoke_agency(
        &self,
        request: Request<RevokeAgencyRequest>,
    ) -> Result<Response<RevokeAgencyResponse>, Status> {
        use revoke_agency_request::What;
        let by = (caller(&request)?.identity, called(&request));
        let RevokeAgencyRequest { name, what } = request.into_inner();
        let change = match what {
            Some(What::Right(right)) => RightsChange::Revoked(parse_right(&right).map_err(refused)?),
            Some(What::End(EndOfAgency {})) => RightsChange::Ended,
            None => {
                let what = "the request says neither which right to take nor to end the agency";
                return Err(refused(Refusal::new(Reason::ArgumentInvalid, what)));
            }
        };
        self.change_rights(by, &name, change).await?;
        Ok(Response::new(RevokeAgencyResponse {}))
    }

    async fn list_agencies(&self, _: Request<ListAgenciesRequest>) -> Result<Response<ListAgenciesResponse>, Status> {
        let state = self.context.now_state();
        let mut agencies: Vec<ListedAgency> = state.agencies().values().map(listed).collect();
        let waits = |agency| ListedAgency { unconfirmed: true, ..listed(agency) };
        agencies.extend(state.unconfirmed().values().map(waits));
        agencies.extend(state.ended_agencies().iter().map(|name| ListedAgency {
            name: name.to_string(),
            ended: true,
            ..ListedAgency::default()
        }));
        Ok(Response::new(ListAgenciesResponse { agencies }))
    }
}

impl OperationsApi {
    async fn change_rights(
        &self,
        (by, method): (Identity, &'static str),
        name: &str,
        change: RightsChange,
    ) -> Result<(), Status> {
        let name = Name::parse(name).map_err(refuse(Reason::ArgumentInvalid)).map_err(refused)?;
        let right = match &change {
            RightsChange::Granted(right) | RightsChange::Revoked(right) => Some(right),
            RightsChange::Ended | RightsChange::Confirmed { .. } => None,
        };
        let about = Object::agency(&name, right);
        let done = self.context.writer.change_rights(name, change).await;
        note_act(&self.context, &by, method, about, &done);
        done.map_err(refused)
    }
}

/// What an agency is added with.
fn added(measures: &[MeasureCode]) -> Right {
    let all = measures.is_empty();
    let measures = if all { Scope::All } else { Scope::These(measures.iter().cloned().collect()) };
    Right { send: true, receive: true, measures, agreements: Scope::All }
}

fn listed(agency: &Agency) -> ListedAgency {
    let rules = |rules: &Rules, send, receive| -> Vec<AgencyRule> {
        let rule = |rule: &Rule| {
            let (measures, agreements) = (rule.measures.clone(), rule.agreements.clone());
            let told = right(&Right { send, receive, measures, agreements });
            AgencyRule { granted: rule.granted, right: Some(told) }
        };
        rules.iter().map(rule).collect()
    };
    let (send, receive) = (rules(&agency.send, true, false), rules(&agency.receive, false, true));
    ListedAgency { name: agency.name.to_string(), rules: [send, receive].concat(), ..ListedAgency::default() }
}
