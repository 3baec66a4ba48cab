//! `StatementService`: what officers say for the state.

use std::time::Duration;

use concord_identity::{check_signer, verify_statement};
use concord_ledger::{Holds, Statement, StatementContent};
use concord_model::{Name, ParticipantCode, Reason, Refusal};
use concord_server::audit::Object;
use concord_wire::agreement::parse_statement;
use concord_wire::proto::agreement::v1::statement_service_server::StatementService;
use concord_wire::proto::agreement::v1::{
    PrepareRequest, PrepareResponse, SignedStatement, StatementState, SubmitRequest, SubmitResponse,
};
use tonic::{Request, Response, Status};

use super::{called, caller, note_act, note_refusal, refused};
use crate::context::Context;
use crate::state::decide::not_joined;
use crate::state::{NodeState, Officer};

/// The longest that one call waits for the hub; the caller asks again.
const STATEMENT_WAIT_MAX_SECONDS: u64 = 55;

/// Serves officers.
#[derive(Clone)]
pub(crate) struct StatementApi {
    context: Context,
}

impl StatementApi {
    pub(crate) fn new(context: Context) -> Self {
        Self { context }
    }

    /// Waits for the hub's answer and, where it accepted, for the statement to come back in the feed.
    async fn answered(&self, statement: &Statement, wait: Duration) -> Result<StatementState, Refusal> {
        let mut published = self.context.state.clone();
        let settled = published.wait_for(|state| is_settled(state, statement));
        if tokio::time::timeout(wait, settled).await.is_err() {
            tracing::debug!(number = statement.number, "the hub's answer did not come in the time allowed");
        }
        let state = self.context.now_state();
        let answer =
            officer(&state, statement).and_then(|officer| officer.statement(statement.number)?.answer.as_ref());
        match answer {
            None => Ok(StatementState::Queued),
            Some(answer) => answer.refused.clone().map_or(Ok(StatementState::Accepted), Err),
        }
    }
}

fn officer<'a>(state: &'a NodeState, statement: &Statement) -> Option<&'a Officer> {
    state.officers().get(&statement.officer)
}

fn is_settled(state: &NodeState, statement: &Statement) -> bool {
    officer(state, statement).is_some_and(|officer| {
        let answer = officer.statement(statement.number).and_then(|known| known.answer.as_ref());
        answer.is_some_and(|answer| answer.refused.is_some() || officer.told_through >= statement.number)
    })
}

/// Verifies an officer's statement and queues it; durable here when this returns.
pub async fn hand_in(context: &Context, officer: &Name, signed: SignedStatement) -> Result<Statement, Refusal> {
    context.check_fence()?;
    // The hub is where the secretariat's officers are asked for approval, and where their numbers are counted.
    if context.participant == ParticipantCode::secretariat()
        && !concord_faults::planted("let-the-secretariat-speak-twice")
    {
        let what = "the secretariat's officers speak to the hub: use the officer's profile in its folder";
        return Err(Refusal::new(Reason::CallerNotAllowed, what));
    }
    let statement = check(context, officer, &signed)?;
    context.writer.statement(signed, statement.clone()).await?;
    concord_faults::point("node.statement.queued");
    Ok(statement)
}

/// The statement, if it is this officer's, of this participant, and its signature holds under the own anchor.
fn check(context: &Context, officer: &Name, signed: &SignedStatement) -> Result<Statement, Refusal> {
    let statement = parse_statement(signed)?;
    let own = &context.participant;
    let invalid = |what: String| Refusal::new(Reason::StatementSignatureInvalid, what);
    if statement.participant != *own {
        return Err(invalid(format!("this is {own}'s node, the statement is {}'s", statement.participant)));
    }
    let chain: Vec<Vec<u8>> = signed.certificates.iter().map(|certificate| certificate.to_vec()).collect();
    let anchors = context.own.get(own);
    let now = context.clock.shown();
    let signer = verify_statement(own, &anchors, &chain, &signed.statement, &signed.signature, now)
        .map_err(|error| invalid(error.to_string()))?;
    if signer.name != statement.officer || signer.name != *officer {
        return Err(invalid(format!(
            "{officer} hands in a statement of {} signed by {}",
            statement.officer, signer.name
        )));
    }
    if let StatementContent::RotateKey(rotation) = &statement.content
        && !context.keys.has(&rotation.signing_key.fingerprint)
    {
        let key = rotation.signing_key.fingerprint.grouped();
        let what = format!(
            "this node does not have the signing key {key}: `concord node rotate` makes it in the node's folder"
        );
        return Err(Refusal::new(Reason::ArgumentInvalid, what));
    }
    // One that is here already was taken while its certificate counted: its answer may be asked for again.
    let known = context.now_state().officers().get(officer).is_some_and(|of| of.statement(statement.number).is_some());
    if !known {
        check_signer(&context.own, own, &chain).map_err(|error| invalid(error.to_string()))?;
    }
    Ok(statement)
}

#[tonic::async_trait]
impl StatementService for StatementApi {
    async fn prepare(&self, request: Request<PrepareRequest>) -> Result<Response<PrepareResponse>, Status> {
        let identity = caller(&request)?.identity;
        let state = self.context.now_state();
        let hub = state.hub().ok_or_else(|| refused(not_joined()))?;
        let next_number = state.officers().get(&identity.name).map_or(1, Officer::next_number);
        Ok(Response::new(PrepareResponse {
            participant: identity.participant.to_string(),
            officer: identity.name.to_string(),
            hub: hub.name.to_string(),
            next_number,
            node: self.context.node.to_string(),
            epoch: state.directory().epochs.current(&self.context.participant),
        }))
    }

    async fn submit(&self, request: Request<SubmitRequest>) -> Result<Response<SubmitResponse>, Status> {
        let identity = caller(&request)?.identity;
        let method = called(&request);
        let SubmitRequest { statement, wait, run: _ } = request.into_inner();
        let signed = statement.unwrap_or_default();
        // As far as it can be read, whoever it is of.
        let state = self.context.now_state();
        let holds = state.directory().registry.holds();
        let about =
            parse_statement(&signed).map_or_else(|_| Object::nothing(), |statement| about_statement(&statement, holds));
        let queued = hand_in(&self.context, &identity.name, signed).await;
        note_act(&self.context, &identity, method, about.clone(), &queued);
        let statement = queued.map_err(refused)?;
        let wait = duration(wait, STATEMENT_WAIT_MAX_SECONDS);
        let answered = self.answered(&statement, wait).await;
        if let Err(refusal) = &answered {
            // What the node took in and the hub refused.
            note_refusal(&self.context, &identity, method, about, refusal);
        }
        let state = answered.map_err(refused)?;
        Ok(Response::new(SubmitResponse { state: state.into(), signatures_missing: 0 }))
    }
}

fn about_statement(statement: &Statement, holds: &Holds) -> Object {
    let Statement { participant, officer, number, content, .. } = statement;
    Object::statement(participant, officer, *number, &content.in_names(holds))
}

/// A wait that a caller asked for, within what one call may take.
pub(super) fn duration(wait: Option<prost_types::Duration>, max_seconds: u64) -> Duration {
    let wait = wait.and_then(|wait| Duration::try_from(wait).ok()).unwrap_or_default();
    wait.min(Duration::from_secs(max_seconds))
}
