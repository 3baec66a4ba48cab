//! `StatementService` at the hub: statements that nodes forward, and those of the secretariat's officers.

use std::sync::Arc;

use concord_identity::{Anchor, Caller, check_signer, verify, verify_certificate, verify_statement};
use concord_ledger::{JoinRequest, KeyRotation, Ledger, SignerStep, Statement, StatementContent};
use concord_model::{AgreementId, ParticipantCode, PartyRole, Reason, Refusal, Role, Timestamp};
use concord_server::audit::Object;
use concord_server::detach;
use concord_wire::agreement::{JoinProof, carried_request, keys, parse_join_request, parse_statement};
use concord_wire::proto::agreement::v1 as pb;
use concord_wire::proto::agreement::v1::statement_service_server::{StatementService, StatementServiceServer};
use concord_wire::status::to_status;
use tokio::sync::oneshot;
use tonic::{Request, Response, Status};

use super::caller;
use crate::feed::{completed_by, waiting_signatures};
use crate::fencing::NodeRun;
use crate::noted::about_statement;
use crate::sequencer::{Answer, Proposal};
use crate::serve::settle_keys;
use crate::shared::{Shared, internal};

const SUBMIT: &str = "/concord.agreement.v1.StatementService/Submit";

/// Takes statements.
pub struct Statements(pub Arc<Shared>);

/// The service.
pub fn server(shared: Arc<Shared>) -> StatementServiceServer<Statements> {
    StatementServiceServer::new(Statements(shared))
}

#[tonic::async_trait]
impl StatementService for Statements {
    async fn prepare(&self, request: Request<pb::PrepareRequest>) -> Result<Response<pb::PrepareResponse>, Status> {
        let officer = caller(&request)?.identity;
        let published = self.0.published();
        let last = published.ledger.signers().last(&officer.participant, &officer.name).map_or(0, |last| last.number);
        let next_number = last.checked_add(1).ok_or_else(|| {
            let what = format!("{last} is the last number that the officer {} can use", officer.name);
            to_status(&Refusal::new(Reason::StatementOutOfOrder, what))
        })?;
        // The secretariat may run a node beside its hub.
        let node = published.ledger.registry().enrolment(&officer.participant);
        Ok(Response::new(pb::PrepareResponse {
            participant: officer.participant.to_string(),
            officer: officer.name.to_string(),
            hub: self.0.hub.to_string(),
            next_number,
            node: node.map(|keys| keys.node.to_string()).unwrap_or_default(),
            epoch: node.map_or(0, |_| published.ledger.epochs().current(&officer.participant)),
        }))
    }

    async fn submit(&self, request: Request<pb::SubmitRequest>) -> Result<Response<pb::SubmitResponse>, Status> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        // As far as it can be read, whoever it is of.
        let read = request.statement.as_ref().map(parse_statement);
        let published = self.0.published();
        let read = read.and_then(Result::ok);
        let about = read.map_or_else(Object::nothing, |statement| about_statement(&statement, &published.ledger));
        let done = submit(&self.0, &caller, request).await;
        self.0.note_act(&caller.identity, SUBMIT, about, &done);
        let signatures_missing = done.map_err(|refusal| to_status(&refusal))?;
        let state = match signatures_missing {
            0 => pb::StatementState::Accepted,
            _ => pb::StatementState::Waits,
        };
        Ok(Response::new(pb::SubmitResponse { state: state.into(), signatures_missing }))
    }
}

/// Takes a statement; done when it is recorded and what follows from it has happened. Returns how many signatures of other officers what
/// it says lacks before that does.
pub async fn submit(shared: &Arc<Shared>, caller: &Caller, request: pb::SubmitRequest) -> Result<u32, Refusal> {
    let by = match caller.identity.role {
        Role::Node => {
            let (participant, _) = shared.enrolled_node(caller)?;
            let run = NodeRun::named(&participant, &request.run)?;
            shared.feed_first(&run).await?;
            Some(run)
        }
        _ => None,
    };
    let signed = request
        .statement
        .ok_or_else(|| Refusal::new(Reason::StatementMalformed, "the request carries no statement"))?;
    let statement = verified(shared, caller, &signed)?;
    check_not_revoked(shared, &statement, &signed)?;
    check_signers_stand(shared, &statement).await?;
    concord_faults::point("hub.statement.verified");
    // A task of its own: what follows from a decision happens even where the caller is gone by then.
    let shared = Arc::clone(shared);
    let (done, settled) = oneshot::channel();
    detach(async move {
        // A caller that hung up needs no answer.
        let _gone = done.send(settle(&shared, by.as_ref(), statement, signed).await);
    });
    settled.await.unwrap_or_else(|_| Err(internal("the task that settles a statement died")))
}

/// Has a statement decided, and does what follows from it.
async fn settle(
    shared: &Arc<Shared>,
    by: Option<&NodeRun>,
    statement: Statement,
    signed: pb::SignedStatement,
) -> Result<u32, Refusal> {
    let consequences = Consequences::of(&statement, &shared.published().ledger);
    let said = statement.clone();
    let proposal = Proposal::Statement(Box::new(statement), signed);
    let answer = match by {
        Some(by) => shared.sequencer.decide_by(by, proposal).await?,
        None => shared.sequencer.decide(proposal).await?,
    };
    concord_faults::point("hub.statement.decided");
    if let Answer::Waits(missing) = answer {
        return Ok(missing);
    }
    match completed(shared, &said).await? {
        // What several officers sign changes no agreement, so that who was a member before does not matter.
        Some((waited_from, completed)) => {
            let consequences = Consequences::of(&completed, &shared.published().ledger);
            let changes_anchors = consequences.changes_anchors;
            consequences.follow(shared).await;
            if changes_anchors {
                ask_again(shared, waited_from);
            }
        }
        None => consequences.follow(shared).await,
    }
    Ok(0)
}

/// A hub that lost data passes over what is handed back of a participant whose enrolment waits here for signatures. With the last of them
/// those who handed anything back since it waited are asked once more.
fn ask_again(shared: &Shared, waited_from: u64) {
    let published = shared.published();
    let feeds = published.ledger.feed().iter().map(|(participant, _)| participant);
    let handed_back = feeds.filter(|participant| {
        let resumes = published.ledger.feed().resumes(participant);
        resumes.is_some_and(|resumes| resumes.iter().any(|resume| resume.sequence > waited_from))
    });
    let asked = shared.losses.ask_again(handed_back.cloned());
    if !asked.is_empty() {
        shared.streams.end_feeds(&asked);
    }
}

/// What an approval that was decided let take effect, and where that stands, by what is recorded of it: what was published before may not have known yet what it
/// is about, and said once more it finds nothing that waits.
async fn completed(shared: &Arc<Shared>, approval: &Statement) -> Result<Option<(u64, Statement)>, Refusal> {
    let Statement { participant, officer, number, .. } = approval;
    if !matches!(approval.content, StatementContent::Approve(_)) {
        return Ok(None);
    }
    let Some(decided) = shared.published().ledger.signers().decided(participant, officer, *number) else {
        return Ok(None);
    };
    shared.blocking(move |shared| completed_by(shared, decided.sequence)).await
}

/// What has to happen when a statement was decided, before whoever handed it in has its answer. It is the same when it happens again.
pub(crate) struct Consequences {
    changes_anchors: bool,
    left: Option<ParticipantCode>,
    /// The agreement that it is about, and who was a member before.
    members: Option<(AgreementId, Vec<ParticipantCode>)>,
    replaced: Option<ParticipantCode>,
    held: Option<ParticipantCode>,
    /// The hub's own signing key follows another.
    rotates: bool,
}

impl Consequences {
    /// Of this statement, with the ledger before it is decided. What an approval completes is asked for when it is decided.
    pub(crate) fn of(statement: &Statement, before: &Ledger) -> Self {
        let (mut left, mut replaced, mut held, mut agreement) = (None, None, None, None);
        match &statement.content {
            // It may end the agreement for others too, or let an amendment take its place.
            StatementContent::Leave(reference) => {
                left = Some(statement.participant.clone());
                agreement = Some(&reference.id);
            }
            // What was permitted to it before it left is out, or ended, before it is a member again by anybody's word. Handed back, it may
            // be the last that a version waited for, which then amends others away.
            StatementContent::Return(reference, _) => {
                left = Some(statement.participant.clone());
                agreement = Some(&reference.id);
            }
            StatementContent::Propose { text, .. } => agreement = Some(&text.id),
            StatementContent::Consent(reference) | StatementContent::End(reference) => agreement = Some(&reference.id),
            StatementContent::Replace(replacement) => replaced = Some(replacement.request.participant.clone()),
            StatementContent::Hold { participant, .. } => held = Some(participant.clone()),
            StatementContent::Decline(..)
            | StatementContent::Enrol(_)
            | StatementContent::OpenEpoch(_)
            | StatementContent::RotateKey(_)
            | StatementContent::SucceedAnchor(_)
            | StatementContent::EndAnchor(_)
            | StatementContent::Release(_)
            | StatementContent::Approve(_)
            | StatementContent::Reject(_)
            | StatementContent::Decided(_)
            | StatementContent::SetContact(_)
            | StatementContent::Role(_) => {}
        }
        let members_of = |id: &AgreementId| (id.clone(), before.agreements().members(id).cloned().collect());
        let changes_anchors = matches!(
            statement.content,
            StatementContent::Enrol(_)
                | StatementContent::Replace(_)
                | StatementContent::SucceedAnchor(_)
                | StatementContent::EndAnchor(_)
        );
        let rotates = matches!(&statement.content, StatementContent::RotateKey(rotation) if rotation.opening.is_none());
        Self { changes_anchors, left, members: agreement.map(members_of), replaced, held, rotates }
    }

    /// Lets them happen.
    pub(crate) async fn follow(self, shared: &Shared) {
        if self.changes_anchors {
            shared.refresh_anchors();
        }
        if self.rotates {
            let (published, keys) = (shared.published(), Arc::clone(&shared.signing_keys));
            let settled = concord_server::blocking(move || settle_keys(&published.ledger, &keys)).await;
            if let Ok(Err(error)) = settled {
                // The next start does it.
                tracing::warn!(%error, "the signing keys could not be put in order");
            }
        }
        if let Some(participant) = self.replaced {
            let served = || shared.published().ledger.nodes().run(&participant);
            shared.streams.end_replaced(&participant, served).await;
        }
        if let Some(participant) = self.left {
            // The receipt of a leave follows when nothing decided before it can still be sent.
            shared.streams.end_mailboxes(&participant).await;
            concord_faults::point("hub.statement.left");
        }
        if let Some((id, members)) = self.members {
            end_mailboxes_of_gone(shared, &id, members).await;
        }
        if let Some(participant) = self.held.filter(|_| !concord_faults::planted("hold-who-comes-only")) {
            shared.streams.end_held(&participant).await;
            concord_faults::point("hub.statement.held");
        }
    }
}

/// Who was a member before and is none any more, or may not receive any more, is sent nothing that was permitted before.
pub(crate) async fn end_mailboxes_of_gone(shared: &Shared, id: &AgreementId, members: Vec<ParticipantCode>) {
    let published = shared.published();
    let current = published.ledger.agreements().in_force(id);
    let receives = |member: &ParticipantCode| {
        current.is_some_and(|now| now.is_member(member) && now.role(member).is_some_and(PartyRole::receives))
    };
    let ends = !concord_faults::planted("end-the-leavers-streams-alone");
    for gone in members.iter().filter(|member| ends && !receives(member)) {
        shared.streams.end_mailboxes(gone).await;
    }
}

/// Reads a statement and verifies everything that needs no ledger decision: who signs, for whom, and the proofs that it carries.
fn verified(shared: &Shared, caller: &Caller, signed: &pb::SignedStatement) -> Result<Statement, Refusal> {
    let statement = parse_statement(signed)?;
    let participant = &statement.participant;
    if *participant != caller.identity.participant {
        let foreign = format!("{} cannot hand in a statement of {participant}", caller.identity.participant);
        return Err(Refusal::new(Reason::CallerNotAllowed, foreign));
    }
    let chain: Vec<Vec<u8>> = signed.certificates.iter().map(|der| der.to_vec()).collect();
    let anchors = shared.anchors.get(participant);
    // As TLS judges: a clock that is not believed yet must not refuse a certificate that was made since.
    let now = shared.clock.shown();
    let wrong = |error: String| Refusal::new(Reason::StatementSignatureInvalid, error);
    let officer = verify_statement(participant, &anchors, &chain, &signed.statement, &signed.signature, now)
        .map_err(|error| wrong(error.to_string()))?;
    if officer.name != statement.officer {
        return Err(wrong(format!(
            "the statement names officer {}, the certificate {}",
            statement.officer, officer.name
        )));
    }
    if caller.identity.role == Role::Officer && caller.identity != officer {
        return Err(wrong("an officer hands in its own statements only".to_owned()));
    }
    check_proofs(&statement, signed, now)?;
    check_own_key_is_here(shared, &statement)?;
    Ok(statement)
}

/// What an officer says whose certificate was taken back is refused; what was decided before stands, also where its answer is asked for again.
fn check_not_revoked(shared: &Shared, statement: &Statement, signed: &pb::SignedStatement) -> Result<(), Refusal> {
    let ledger = &shared.published().ledger;
    if matches!(ledger.signers().check(ledger.registry(), statement), Ok(SignerStep::Repeat(_))) {
        return Ok(());
    }
    let checked = check_chain(shared, &statement.participant, signed);
    checked.map_err(|why| Refusal::new(Reason::StatementSignatureInvalid, why))
}

fn check_chain(shared: &Shared, of: &ParticipantCode, signed: &pb::SignedStatement) -> Result<(), String> {
    let chain: Vec<Vec<u8>> = signed.certificates.iter().map(|der| der.to_vec()).collect();
    check_signer(&shared.anchors, of, &chain).map_err(|error| error.to_string())
}

/// Nobody completes what an officer signed whose certificate was taken back while it waited: the one with whom the key is may have said it.
async fn check_signers_stand(shared: &Arc<Shared>, approval: &Statement) -> Result<(), Refusal> {
    let StatementContent::Approve(approved) = &approval.content else { return Ok(()) };
    if concord_faults::planted("complete-what-a-lost-officer-signed") {
        return Ok(());
    }
    // What does not wait is refused when it is decided.
    let Some(waiting) = shared.published().ledger.approvals().get(approved).cloned() else { return Ok(()) };
    shared
        .blocking(move |shared| {
            for signed in waiting_signatures(shared, &waiting)? {
                check_chain(shared, &waiting.statement.participant, &signed).map_err(|why| {
                    let what = format!("an officer who signed it before counts no more: {why}");
                    Refusal::new(Reason::ApprovalSignerRevoked, what)
                })?;
            }
            Ok(())
        })
        .await
}

/// Nobody binds the hub to a key that it does not have: it could sign nothing any more that counts.
fn check_own_key_is_here(shared: &Shared, statement: &Statement) -> Result<(), Refusal> {
    let StatementContent::RotateKey(KeyRotation { opening: None, signing_key, .. }) = &statement.content else {
        return Ok(());
    };
    if shared.signing_keys.named(&signing_key.fingerprint).is_some() {
        return Ok(());
    }
    let what = format!("the hub does not have the key {}: it is made in its folder", signing_key.fingerprint.grouped());
    Err(Refusal::new(Reason::ArgumentInvalid, what))
}

/// Verifies what a statement about keys carries to prove it; nothing of any other.
pub(crate) fn check_proofs(statement: &Statement, signed: &pb::SignedStatement, now: Timestamp) -> Result<(), Refusal> {
    for proof in keys::proofs(signed)? {
        verify(&proof.key.bytes, &proof.signed_message, &proof.signature).map_err(|_| {
            let what =
                format!("it names the signing key {}, which did not sign for it", proof.key.fingerprint.grouped());
            Refusal::new(Reason::StatementMalformed, what)
        })?;
    }
    let request = match &statement.content {
        StatementContent::Enrol(request) => request,
        StatementContent::Replace(replacement) => &replacement.request,
        StatementContent::SucceedAnchor(next) => {
            let unfit = |error: concord_identity::AnchorError| {
                Refusal::new(Reason::StatementMalformed, format!("the new anchor: {error}"))
            };
            return Anchor::from_der(&next.anchor).map(drop).map_err(unfit);
        }
        _ => return Ok(()),
    };
    if let Some(carried) = carried_request(signed) {
        let (_, proof) = parse_join_request(&carried)?;
        check_join_proof(request, &proof, now)?;
    }
    Ok(())
}

/// The anchor stands behind the node.
fn check_join_proof(request: &JoinRequest, proof: &JoinProof, now: Timestamp) -> Result<(), Refusal> {
    let wrong = |what: String| Refusal::new(Reason::StatementMalformed, format!("the join request: {what}"));
    let anchor = Anchor::from_der(&request.anchor).map_err(|error| wrong(error.to_string()))?;
    let node = verify_certificate(&request.participant, &[anchor], &proof.node_certificate, now)
        .map_err(|error| wrong(error.to_string()))?;
    if node.role != Role::Node || node.name != request.node {
        return Err(wrong(format!("it names node {}, its certificate {node}", request.node)));
    }
    Ok(())
}
