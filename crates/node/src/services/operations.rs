//! `OperationsService`: how the node is, and letting agencies in.

use std::sync::Arc;

use concord_backup::{BackupError, Backups};
use concord_model::{MeasureCode, Name, Reason, Refusal};
use concord_server::AskedDays;
use concord_wire::convert::refuse;
use concord_wire::proto::operations::v1::operations_service_server::OperationsService;
use concord_wire::proto::operations::v1::{
    AddAgencyRequest, AddAgencyResponse, CreateBackupRequest, CreateBackupResponse, GetStatusRequest,
    GetStatusResponse, PreviewRetentionRequest, PreviewRetentionResponse, RunRetentionRequest, RunRetentionResponse,
};
use futures::stream::BoxStream;
use futures::{StreamExt as _, stream};
use tonic::{Request, Response, Status};

use super::status::{Started, status};
use super::{internal, refused};
use crate::context::Context;
use crate::retention::Keeper;

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

    async fn create_backup(
        &self,
        _: Request<CreateBackupRequest>,
    ) -> Result<Response<Self::CreateBackupStream>, Status> {
        let busy = || refused(Refusal::new(Reason::QueueFull, "another backup is being made"));
        let chunks = self.backups.start(self.context.clock.now()).ok_or_else(busy)?;
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
        let RunRetentionRequest { bodies_days, entries_days } = request.into_inner();
        let (keeper, asked) = (Arc::clone(&self.keeper), AskedDays { bodies: bodies_days, entries: entries_days });
        // It may take longer than a call may, and goes on then.
        let report = tokio::spawn(async move { keeper.run(asked).await }).await;
        let report = report.map_err(internal)?.map_err(refused)?;
        Ok(Response::new(RunRetentionResponse { report: Some(report) }))
    }

    async fn get_status(&self, _: Request<GetStatusRequest>) -> Result<Response<GetStatusResponse>, Status> {
        let (context, started) = (self.context.clone(), self.started);
        // Counting what agencies have not acknowledged reads many rows.
        let counted = concord_server::blocking(move || status(&context, started));
        Ok(Response::new(counted.await.map_err(internal)?.map_err(internal)?))
    }

    async fn add_agency(&self, request: Request<AddAgencyRequest>) -> Result<Response<AddAgencyResponse>, Status> {
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
        self.context.writer.add_agency(name, codes).await.map_err(refused)?;
        Ok(Response::new(AddAgencyResponse {}))
    }
}
