//! `OperationsService` at the hub: counts, sizes and health, never titles or bodies. Ids of exchanges only where something is lost for
//! good (`not-healed`): what cannot be healed is listed.

use std::collections::BTreeSet;
use std::sync::Arc;

use concord_backup::{BackupError, Backups};
use concord_ledger::{AgreementState, Enrolment, Ledger};
use concord_model::{Digest, ExchangeId, Lane, ParticipantCode, Reason, Refusal, Role, Timestamp};
use concord_server::audit::{AuditStream, Event, Object};
use concord_server::{AskedDays, Certificates, ClockOffset, Connections, Readiness};
use concord_wire::convert::{refuse, timestamp};
use concord_wire::proto::operations::v1 as pb;
use concord_wire::proto::operations::v1::operations_service_server::{OperationsService, OperationsServiceServer};
use concord_wire::status::to_status;
use futures::stream::BoxStream;
use futures::{StreamExt as _, stream};
use tonic::{Request, Response, Status};

use super::caller;
use crate::explain::{Asked, Lookups, explain};
use crate::lags::{Lag, lags};
use crate::retention::Keeper;
use crate::shared::{Shared, internal};

const BACKUP: &str = "/concord.operations.v1.OperationsService/CreateBackup";
const EXPLAIN: &str = "/concord.operations.v1.OperationsService/ExplainExchange";
const RETENTION: &str = "/concord.operations.v1.OperationsService/RunRetention";

/// Tells how the hub is.
pub struct Operations {
    /// What all services hold.
    pub shared: Arc<Shared>,
    /// Makes backups.
    pub backups: Backups,
    /// Lets go what is settled and old.
    pub keeper: Arc<Keeper>,
    /// Looks for exchanges.
    pub lookups: Lookups,
    /// Who is connected.
    pub connections: Connections,
    /// What is wrong.
    pub readiness: Readiness,
    /// Since when the process runs.
    pub started_at: Timestamp,
    /// How long certificates last.
    pub certificates: Certificates,
}

/// The service.
pub fn server(operations: Operations) -> OperationsServiceServer<Operations> {
    OperationsServiceServer::new(operations)
}

#[tonic::async_trait]
impl OperationsService for Operations {
    type CreateBackupStream = BoxStream<'static, Result<pb::CreateBackupResponse, Status>>;
    type ListAuditStream = AuditStream;

    async fn list_audit(
        &self,
        request: Request<pb::ListAuditRequest>,
    ) -> Result<Response<Self::ListAuditStream>, Status> {
        let by = caller(&request)?.identity;
        let lines = self.shared.audit.list(&by, request.into_inner(), self.shared.shutdown.clone());
        lines.map(Response::new).map_err(|refusal| to_status(&refusal))
    }

    async fn create_backup(
        &self,
        request: Request<pb::CreateBackupRequest>,
    ) -> Result<Response<Self::CreateBackupStream>, Status> {
        let busy = || to_status(&Refusal::new(Reason::QueueFull, "another backup is being made"));
        let chunks = self.backups.start(self.shared.clock.now()).ok_or_else(busy)?;
        let by = caller(&request)?.identity;
        self.shared.audit.note(Event::of_call(&by, BACKUP, Object::nothing(), Ok(())));
        let answer = |chunk: Result<bytes::Bytes, BackupError>| {
            chunk.map(|chunk| pb::CreateBackupResponse { chunk }).map_err(|error| match error {
                BackupError::Changed { .. } => to_status(&Refusal::new(Reason::BackupConflict, error.to_string())),
                error => to_status(&internal(error)),
            })
        };
        let chunks = stream::unfold(chunks, |mut chunks| async { chunks.recv().await.map(|chunk| (chunk, chunks)) });
        Ok(Response::new(chunks.map(answer).boxed()))
    }

    async fn get_status(
        &self,
        _request: Request<pb::GetStatusRequest>,
    ) -> Result<Response<pb::GetStatusResponse>, Status> {
        let lags = self.shared.blocking(lags).await.map_err(|refusal| to_status(&refusal))?;
        let of = |lag: Lag| pb::RecipientLag {
            participant: lag.recipient.to_string(),
            lane: lag.lane.to_string(),
            items: lag.items,
            seconds: lag.seconds,
            oldest_is_exercise: lag.exercise,
        };
        let mailboxes: Vec<_> = lags.into_iter().map(of).collect();
        let published = self.shared.published();
        let ledger = &published.ledger;
        let in_force = |state| state == AgreementState::InForce;
        let hub = pb::HubStatus {
            nodes: self.nodes(),
            health: self.health(ledger, &mailboxes),
            participants_enrolled: ledger.registry().enrolments().count() as u64 + 1,
            agreements_in_force: ledger.agreements().all().filter(|agreement| in_force(agreement.state)).count() as u64,
            mailboxes,
        };
        let (alarms, notes) = self.readiness.in_words();
        Ok(Response::new(pb::GetStatusResponse {
            participant: ParticipantCode::secretariat().to_string(),
            name: self.shared.hub.to_string(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started_at: Some(timestamp(self.started_at)),
            journal: Some(pb::JournalTail {
                history: bytes::Bytes::copy_from_slice(published.tail.history.as_bytes()),
                sequence: published.tail.sequence,
                digest: bytes::Bytes::copy_from_slice(published.tail.digest.as_bytes()),
            }),
            certificate_not_after: self.certificates.own_not_after().map(timestamp),
            certificates: self.certificates.list(),
            alarms,
            notes,
            role: Some(pb::get_status_response::Role::Hub(hub)),
        }))
    }

    async fn preview_retention(
        &self,
        request: Request<pb::PreviewRetentionRequest>,
    ) -> Result<Response<pb::PreviewRetentionResponse>, Status> {
        let pb::PreviewRetentionRequest { bodies_days, entries_days } = request.into_inner();
        let report = self.keeper.preview(AskedDays { bodies: bodies_days, entries: entries_days }).await;
        let report = Some(report.map_err(|refusal| to_status(&refusal))?);
        Ok(Response::new(pb::PreviewRetentionResponse { report }))
    }

    async fn run_retention(
        &self,
        request: Request<pb::RunRetentionRequest>,
    ) -> Result<Response<pb::RunRetentionResponse>, Status> {
        let by = caller(&request)?.identity;
        let pb::RunRetentionRequest { bodies_days, entries_days } = request.into_inner();
        let (keeper, asked) = (Arc::clone(&self.keeper), AskedDays { bodies: bodies_days, entries: entries_days });
        // It may take longer than a call may, and goes on then.
        let shared = Arc::clone(&self.shared);
        let report = tokio::spawn(async move {
            let done = keeper.run(asked).await;
            shared.note_act(&by, RETENTION, Object::retention(done.as_ref().ok()), &done);
            done
        });
        let report = report.await.unwrap_or_else(|error| Err(internal(error)));
        let report = Some(report.map_err(|refusal| to_status(&refusal))?);
        Ok(Response::new(pb::RunRetentionResponse { report }))
    }

    async fn list_set_aside(
        &self,
        _request: Request<pb::ListSetAsideRequest>,
    ) -> Result<Response<pb::ListSetAsideResponse>, Status> {
        Err(of_nodes())
    }

    async fn retry_set_aside(
        &self,
        _request: Request<pb::RetrySetAsideRequest>,
    ) -> Result<Response<pb::RetrySetAsideResponse>, Status> {
        Err(of_nodes())
    }

    async fn discard_set_aside(
        &self,
        _request: Request<pb::DiscardSetAsideRequest>,
    ) -> Result<Response<pb::DiscardSetAsideResponse>, Status> {
        Err(of_nodes())
    }

    async fn explain_exchange(
        &self,
        request: Request<pb::ExplainExchangeRequest>,
    ) -> Result<Response<pb::ExplainExchangeResponse>, Status> {
        let by = caller(&request)?.identity;
        let asked = asked(request.into_inner()).map_err(|refusal| to_status(&refusal))?;
        let id = asked.id;
        let explained = explain(&self.shared, &self.lookups, asked, self.connected()).await;
        let about = Object::marked_exchange(&id, explained.as_ref().is_ok_and(|explained| explained.exercise));
        self.shared.note_act(&by, EXPLAIN, about, &explained);
        explained.map(Response::new).map_err(|refusal| to_status(&refusal))
    }

    // Agencies and probes are the nodes'. None of these is in the hub's method table: no call gets here.

    async fn add_agency(
        &self,
        _request: Request<pb::AddAgencyRequest>,
    ) -> Result<Response<pb::AddAgencyResponse>, Status> {
        Err(of_nodes())
    }

    async fn grant_agency(
        &self,
        _request: Request<pb::GrantAgencyRequest>,
    ) -> Result<Response<pb::GrantAgencyResponse>, Status> {
        Err(of_nodes())
    }

    async fn confirm_agency(
        &self,
        _request: Request<pb::ConfirmAgencyRequest>,
    ) -> Result<Response<pb::ConfirmAgencyResponse>, Status> {
        Err(of_nodes())
    }

    async fn revoke_agency(
        &self,
        _request: Request<pb::RevokeAgencyRequest>,
    ) -> Result<Response<pb::RevokeAgencyResponse>, Status> {
        Err(of_nodes())
    }

    async fn probe_hub(
        &self,
        _request: Request<pb::ProbeHubRequest>,
    ) -> Result<Response<pb::ProbeHubResponse>, Status> {
        Err(of_nodes())
    }

    async fn list_agencies(
        &self,
        _request: Request<pb::ListAgenciesRequest>,
    ) -> Result<Response<pb::ListAgenciesResponse>, Status> {
        Err(of_nodes())
    }
}

fn asked(request: pb::ExplainExchangeRequest) -> Result<Asked, Refusal> {
    let pb::ExplainExchangeRequest { exchange_id, participant, before } = request;
    let id = Digest::from_hex(&exchange_id.to_ascii_lowercase()).map_err(refuse(Reason::ArgumentInvalid))?;
    let participant = Some(participant).filter(|code| !code.is_empty());
    let participant = participant.map(|code| ParticipantCode::parse(&code)).transpose();
    Ok(Asked { id: ExchangeId(id), participant: participant.map_err(refuse(Reason::ParticipantUnknown))?, before })
}

fn of_nodes() -> Status {
    to_status(&Refusal::new(Reason::CallerNotAllowed, "this is asked of nodes"))
}

impl Operations {
    /// Whose nodes are connected.
    fn connected(&self) -> BTreeSet<ParticipantCode> {
        let callers = self.connections.list().into_iter();
        let nodes = callers.filter(|connected| connected.identity.role == Role::Node);
        nodes.map(|connected| connected.identity.participant).collect()
    }

    /// One line for each node, however many connections it has.
    fn nodes(&self) -> Vec<pb::ConnectedNode> {
        let mut nodes: Vec<pb::ConnectedNode> = Vec::new();
        for connected in self.connections.list() {
            let identity = &connected.identity;
            if identity.role != Role::Node {
                continue;
            }
            let (participant, node) = (identity.participant.to_string(), identity.name.to_string());
            if !nodes.iter().any(|known| known.participant == participant && known.node == node) {
                let offset = self.shared.node_clocks.offset(&identity.participant);
                nodes.push(pb::ConnectedNode {
                    participant,
                    node,
                    since: Some(timestamp(connected.since)),
                    clock_offset_seconds: offset.map(ClockOffset::seconds),
                });
            }
        }
        nodes
    }
}

impl Operations {
    /// How each enrolled node is.
    fn health(&self, ledger: &Ledger, mailboxes: &[pb::RecipientLag]) -> Vec<pb::NodeHealth> {
        let connected = self.nodes();
        let of = |(participant, enrolment): (&ParticipantCode, &Enrolment)| {
            let is_it = |one: &&pb::ConnectedNode| {
                one.participant == participant.as_str() && one.node == enrolment.node.as_str()
            };
            let heard = self.shared.fleet.of(participant);
            let word = heard.as_ref().and_then(|heard| heard.word.clone());
            let lane = |lane: Lane| {
                let is_its =
                    |lag: &&pb::RecipientLag| lag.participant == participant.as_str() && lag.lane == lane.as_str();
                let lag = mailboxes.iter().find(is_its);
                pb::LaneHealth {
                    lane: lane.to_string(),
                    lag_items: lag.map_or(0, |lag| lag.items),
                    lag_seconds: lag.map_or(0.0, |lag| lag.seconds),
                    oldest_is_exercise: lag.is_some_and(|lag| lag.oldest_is_exercise),
                    waiting_exchanges: word.as_ref().and_then(|word| word.waiting.get(&lane).copied()).unwrap_or(0),
                }
            };
            pb::NodeHealth {
                participant: participant.to_string(),
                node: enrolment.node.to_string(),
                connected: connected.iter().any(|one| is_it(&one)),
                contact_at: heard.as_ref().map(|heard| timestamp(heard.at)),
                certificate_not_after: heard.map(|heard| timestamp(heard.certificate_not_after)),
                lanes: Lane::ALL.map(lane).to_vec(),
                version: word.as_ref().map(|word| word.version.clone()).unwrap_or_default(),
                clock_ahead_seconds: word.as_ref().and_then(|word| word.clock_ahead_seconds),
                alarms: word.as_ref().map(|word| word.alarms.clone()).unwrap_or_default(),
                notes: word.map(|word| word.notes).unwrap_or_default(),
            }
        };
        ledger.registry().enrolments().map(of).collect()
    }
}
