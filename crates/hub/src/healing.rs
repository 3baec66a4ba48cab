//! Healing of a hub that lost data: noticed at the first contact of whoever knows more, raised, and undone as far as the nodes have it.
//!
//! Invariant: nothing that a node holds as acknowledged is contradicted. A loss found in the history that is being written first begins
//! a new history, so that no position of before is confused with one of after; what is handed back is decided once, whoever brings
//! it; and everything that was taken in is durable before the feed goes on, so that a crash in between only makes the node begin again.

use std::sync::Arc;

use bytes::Bytes;
use concord_identity::{Anchor, CertificateRefusal, StatementError, check_signer, verify_statement};
use concord_journal::HistoryId;
use concord_ledger::{
    ClosedEpoch, Handed, Lost, NotHealed, Quorum, Resume, Shown, Statement, needs_others, that_count,
};
use concord_model::{Class, Digest, Lane, ParticipantCode, Reason, Refusal, Timestamp};
use concord_server::detach;
use concord_wire::agreement::parse_statement;
use concord_wire::consignment::parse_closed_epoch;
use concord_wire::convert::optional_timestamp;
use concord_wire::proto::agreement::v1::SignedStatement;
use concord_wire::proto::feed::v1 as pb;
use futures::TryStreamExt as _;
use tokio::sync::oneshot;

use crate::feed::{history_began, load};
use crate::fencing::NodeRun;
use crate::positions::{Standing, feed_common, feed_standing};
use crate::responses::Inbound;
use crate::sequencer::{Answer, Proposal};
use crate::services::statement::{Consequences, check_proofs};
use crate::shared::{Shared, internal};

/// What one hand-back may bring. More is refused with `ARGUMENT_INVALID`.
const HANDED_BACK_MAX: u64 = 1_000_000;
/// Statements of one hand-back that could not be taken and are named in its answer and on the log. More are only counted.
const NOT_TAKEN_TOLD_MAX: usize = 1000;

/// What a peer shows of where it stands, from its message. Refuses with `ARGUMENT_INVALID`.
pub fn shown(history: &[u8], number: u64, digest: &[u8]) -> Result<Shown, Refusal> {
    let wrong = |what: &str| Refusal::new(Reason::ArgumentInvalid, format!("the position names {what}"));
    let history = match history {
        [] => [0; 16],
        history => history.try_into().map_err(|_| wrong("a history that does not have 16 bytes"))?,
    };
    let digest = match digest {
        [] => None,
        digest => Some(Digest::from_slice(digest).map_err(|_| wrong("a digest that does not have 32 bytes"))?),
    };
    Ok(Shown { history, number, digest })
}

/// Raises that data was lost. Where the loss shows in the history that is being written, a new one begins, and every stream ends: the
/// nodes connect again, and are compared with what is known to be past.
///
/// Refuses with `HISTORY_UNKNOWN` where this participant has made new histories begin too often.
pub async fn history_lost(shared: &Arc<Shared>, by: &NodeRun, what: &str, known_history: &[u8]) -> Result<(), Refusal> {
    let participant = &by.participant;
    shared.losses.found(shared, participant, what);
    let present = shared.history();
    if known_history != present.as_bytes() {
        return Ok(());
    }
    shared.losses.check_new_history(participant)?;
    let new = HistoryId(concord_server::fresh().map_err(internal)?);
    shared.sequencer.decide_by(by, Proposal::BeginHistory { found_in: present, new }).await?;
    shared.losses.count_new_history(participant);
    concord_faults::point("hub.heal.history");
    shared.streams.end_all();
    Ok(())
}

/// Where a participant's feed goes on for a node that stands here: none where it simply goes on.
///
/// Refuses with `HISTORY_UNKNOWN`.
pub async fn feed_resume(shared: &Arc<Shared>, by: &NodeRun, shown: Shown) -> Result<Option<Resume>, Refusal> {
    let participant = &by.participant;
    let made = |shared: &Shared| shared.published().ledger.feed().resumes(participant)?.made_for(&shown).copied();
    if let Some(resume) = made(shared) {
        return Ok(Some(resume));
    }
    let published = shared.published();
    if !published.ledger.feed().resumes(participant).is_some_and(|resumes| resumes.hole_after(shown.number)) {
        return Ok(None);
    }
    // It stands before a hole that was made for another copy of it: what is behind the hole is told from here on.
    resume_feed(shared, by, shown, shown.number).await?;
    made(shared).map(Some).ok_or_else(|| internal("a feed was resumed and is not"))
}

async fn resume_feed(shared: &Shared, by: &NodeRun, shown: Shown, common: u64) -> Result<(), Refusal> {
    resume(shared, by, Proposal::ResumeFeed { participant: by.participant.clone(), shown, common }).await
}

/// Has something resumed: an entry, so that there is a limit to it, and room must be left.
async fn resume(shared: &Shared, by: &NodeRun, proposal: Proposal) -> Result<(), Refusal> {
    shared.losses.check_resumption(&by.participant)?;
    shared.room.check()?;
    shared.sequencer.decide_by(by, proposal).await?;
    shared.losses.count_resumption(&by.participant);
    Ok(())
}

/// A node knows more of its mailbox than this hub.
///
/// Refuses with `HISTORY_UNKNOWN`, or with `HEALING` where a new history began for it.
pub async fn mailbox_lost(shared: &Arc<Shared>, by: &NodeRun, lane: Lane, shown: Shown) -> Result<(), Refusal> {
    let present = shared.history();
    let what = format!("mailbox {lane} of {}, of which its node has number {}", by.participant, shown.number);
    history_lost(shared, by, &what, &shown.history).await?;
    if shown.history == *present.as_bytes() {
        return Err(history_began());
    }
    Ok(())
}

/// Where a mailbox goes on for a node that stands here: what is not known to be delivered is posted again.
///
/// Refuses with `HISTORY_UNKNOWN`.
pub async fn mailbox_resume(shared: &Arc<Shared>, by: &NodeRun, lane: Lane, shown: Shown) -> Result<Resume, Refusal> {
    let recipient = &by.participant;
    let made = |shared: &Shared| {
        let published = shared.published();
        published.ledger.mailboxes().resumes(recipient, lane)?.made_for(&shown).copied()
    };
    let proposal = Proposal::ResumeMailbox { recipient: recipient.clone(), lane, shown };
    // A repeat is no entry; whether it still stands, the ledger decides.
    if made(shared).is_some() {
        shared.sequencer.decide_by(by, proposal).await?;
    } else {
        resume(shared, by, proposal).await?;
    }
    made(shared).ok_or_else(|| internal("a mailbox was resumed and is not"))
}

/// A node brings a consignment with a receipt of this hub that names this history. Where it is one that this hub forgot while
/// writing the same history, a new one begins, and the node connects again.
///
/// Refuses with `HEALING`.
pub async fn rehanded(
    shared: &Arc<Shared>,
    by: &NodeRun,
    chain: &concord_model::ChainKey,
    number: u64,
    history: HistoryId,
) -> Result<(), Refusal> {
    if number <= shared.published().ledger.chain_last(chain) {
        return Ok(());
    }
    let what = format!("consignment {number} of {} on lane {}", chain.origin, chain.lane);
    // It comes with this hub's own receipt.
    shared.losses.confirmed(shared);
    let present = shared.history();
    history_lost(shared, by, &what, history.as_bytes()).await?;
    if history == present {
        return Err(history_began());
    }
    Ok(())
}

/// Takes in what a node hands back, decides where its feed goes on, and says what could not be taken.
pub async fn take_back(
    shared: &Arc<Shared>,
    run: &NodeRun,
    hello: pb::HandBackHello,
    mut inbound: Inbound<pb::HandBackRequest>,
) -> Result<pb::HandBackResponse, Refusal> {
    use pb::hand_back_request::Message;
    concord_wire::check_limits(hello.limits.as_ref())?;
    let by = &run.participant;
    let position = hello.position.unwrap_or_default();
    let shown = shown(&position.history, position.last_number, &position.last_digest)?;
    match feed_standing(shared, by, &position).await? {
        Standing::Stands => return Ok(pb::HandBackResponse::default()),
        Standing::Lost { known } => {
            history_lost(shared, run, &lost_feed(by, &position, known), &position.history).await?;
        }
        Standing::Forgotten => {}
    }

    let common = feed_common(shared, by, &shown).await?;
    let mut taking = Taking { shared, by: run, common, not_taken_count: 0, answer: pb::HandBackResponse::default() };
    let mut count = 0;
    while let Some(request) = inbound.try_next().await.map_err(broken)? {
        count += 1;
        if count > HANDED_BACK_MAX {
            let many = format!("more than {HANDED_BACK_MAX} items and statements are handed back");
            return Err(Refusal::new(Reason::ArgumentInvalid, many));
        }
        match request.message {
            Some(Message::Told(item)) => taking.told(item).await?,
            Some(Message::Answered(answered)) => taking.answered(answered).await?,
            Some(Message::Hello(_)) | None => {
                return Err(Refusal::new(Reason::ArgumentInvalid, "after the hello come items and statements"));
            }
        }
    }
    let Taking { common, answer, not_taken_count, .. } = taking;
    resume_feed(shared, run, shown, common).await?;
    shared.losses.handed_back(by);
    concord_faults::point("hub.heal.resumed");
    tracing::warn!(participant = %by, taken = answer.taken, not_taken = not_taken_count, "a node handed back what this hub had lost");
    metrics::counter!("concord_statements_handed_back_total").increment(answer.taken);
    Ok(answer)
}

/// What was found out at a feed, in words.
pub fn lost_feed(participant: &ParticipantCode, position: &pb::FeedPosition, known: u64) -> String {
    format!(
        "the feed of {participant}, whose node has number {}, of which this hub has {known} and not the same",
        position.last_number
    )
}

/// A broken connection ends the hand-back; what was taken stays, and the node begins again.
fn broken(status: tonic::Status) -> Refusal {
    Refusal::new(Reason::Healing, format!("the hand-back broke off: {}", status.message()))
}

struct Taking<'a> {
    shared: &'a Arc<Shared>,
    by: &'a NodeRun,
    /// The last number under which the same stands here: what comes behind it is told again.
    common: u64,
    not_taken_count: u64,
    answer: pb::HandBackResponse,
}

impl Taking<'_> {
    async fn told(&mut self, item: pb::FeedItem) -> Result<(), Refusal> {
        let (number, at) = (item.number, optional_timestamp(item.recorded_at.as_ref()));
        if number > self.common && number <= self.shared.published().ledger.feed_last(&self.by.participant) {
            let whose = self.by.participant.clone();
            let here = self.shared.blocking(move |shared| load(shared, &whose, number)).await?;
            let theirs = concord_wire::feed::item_digest(&item);
            if here.is_some_and(|here| concord_wire::feed::item_digest(&here) == theirs) {
                self.common = number;
            }
        }
        let closes = item.closes.as_ref().map(parse_closed_epoch).transpose();
        let closes = closes.map_err(|error| Refusal::new(Reason::ArgumentInvalid, error.to_string()))?;
        match item.content {
            Some(pb::feed_item::Content::Statement(signed)) => {
                self.hand(signed, item.approvals, Some(closes), None, at).await
            }
            // It only shows how far both have the same.
            Some(_) => Ok(()),
            None => Err(Refusal::new(Reason::ArgumentInvalid, "an item is handed back without its content")),
        }
    }

    async fn answered(&mut self, answered: pb::AnsweredStatement) -> Result<(), Refusal> {
        let signed = answered
            .statement
            .ok_or_else(|| Refusal::new(Reason::StatementMalformed, "a statement is handed back without itself"))?;
        let refused = match answered.refused.as_str() {
            "" => None,
            // A reason of another version: refused it was, whatever the word.
            code => Some(Reason::from_code(code).unwrap_or(Reason::Internal)),
        };
        self.hand(signed, Vec::new(), None, refused, None).await
    }

    /// Verifies and decides one statement. One that cannot be taken is told, and the rest goes on. `told` where the feed told it, with
    /// the end of the epoch that it closed; `approvals` of the others who signed it.
    async fn hand(
        &mut self,
        signed: SignedStatement,
        approvals: Vec<SignedStatement>,
        told: Option<Option<ClosedEpoch>>,
        refused: Option<Reason>,
        told_at: Option<Timestamp>,
    ) -> Result<(), Refusal> {
        let statement = match parse_statement(&signed) {
            Ok(statement) => statement,
            Err(refusal) => {
                self.note_unverified(&refusal);
                return Ok(());
            }
        };
        if refused.is_some() && statement.participant != self.by.participant {
            let foreign = "a node tells of refusals of its own officers only";
            return Err(Refusal::new(Reason::ArgumentInvalid, foreign));
        }
        // Where its own chains ended is nobody's matter but the participant's own.
        let closes =
            told.flatten().filter(|_| statement.closes().is_some_and(|(whose, _)| *whose == self.by.participant));
        let mut handed = Handed {
            statement,
            by: self.by.participant.clone(),
            was_told: told.is_some(),
            refused,
            closes,
            approvals: Vec::new(),
            // The sequencer's to say.
            quorum: Quorum::ONE,
        };
        let statement = &handed.statement;
        let ledger = &self.shared.published().ledger;
        let known = ledger.signers().decided(&statement.participant, &statement.officer, statement.number);
        // What is known here and has no effect yet may come with the signatures that it lacks.
        let has_effect = !ledger.approvals().is_without_effect(&statement.digest);
        if has_effect && known.is_some_and(|known| known.digest == statement.digest && handed.changes_nothing(&known)) {
            return Ok(());
        }
        // Nothing that it says counts, nor is shown as said by the one whom it names, before its signature holds.
        if let Err(refusal) = verify_handed(self.shared, statement, &signed, told_at) {
            if passes_by_itself(&refusal) {
                return Err(refusal);
            }
            if refusal.reason == Reason::ParticipantNotEnrolled {
                self.shared.losses.passed_over();
            }
            self.note_unverified(&refusal);
            self.tell_not_taken(statement, &refusal);
            return Ok(());
        }
        // What one officer alone brings in, its certificate's time bounds; what several have to sign, nobody's whose certificate was taken back.
        let asks_for_more = self.shared.quorum > Quorum::ONE || !has_effect;
        let needs_others = asks_for_more && needs_others(ledger.registry(), statement);
        if needs_others && let Err(refusal) = check_not_taken_back(self.shared, statement, &signed) {
            if passes_by_itself(&refusal) {
                return Err(refusal);
            }
            self.note_unverified(&refusal);
            self.tell_not_taken(statement, &refusal);
            return Ok(());
        }
        let approvals = self.counted(&mut handed, approvals, told_at, needs_others)?;
        self.shared.room.check()?;
        let told = handed.statement.clone();
        match decide(self.shared, self.by, handed, signed, approvals).await {
            Ok(Answer::Accepted) => {
                self.answer.taken += 1;
                // What an own officer signs can be new.
                if told.participant != self.by.participant {
                    self.shared.losses.confirmed(self.shared);
                }
            }
            Ok(_) => {}
            // No more may wait for signatures: that is recorded with it, and what comes behind it is not held up.
            Err(refusal) if refusal.reason == Reason::QueueFull => self.tell_not_taken(&told, &refusal),
            // What passes by itself is not a judgement on the statement.
            Err(refusal) if matches!(refusal.reason.class(), Class::Unavailable | Class::Exhausted) => {
                return Err(refusal);
            }
            Err(refusal) => {
                self.list_not_taken(&told, &refusal).await?;
                self.tell_not_taken(&told, &refusal);
            }
        }
        Ok(())
    }

    /// The approvals that count for a statement that is handed back, as they were signed: those whose signatures hold, each of another
    /// officer. The others are nobody's. Where it needs several, who signed with a certificate that was taken back does not count, so that
    /// it waits for another.
    fn counted(
        &mut self,
        handed: &mut Handed,
        approvals: Vec<SignedStatement>,
        told_at: Option<Timestamp>,
        needs_others: bool,
    ) -> Result<Vec<SignedStatement>, Refusal> {
        let mut counted = Vec::new();
        for signed in approvals.into_iter().take(Quorum::MAX as usize) {
            let verified = parse_statement(&signed).and_then(|approval| {
                verify_handed(self.shared, &approval, &signed, told_at)?;
                if needs_others {
                    check_not_taken_back(self.shared, &approval, &signed)?;
                }
                Ok(approval)
            });
            match verified {
                Ok(approval) => {
                    handed.approvals.push(approval);
                    if that_count(&handed.statement, &handed.approvals).len() == handed.approvals.len() {
                        counted.push(signed);
                    } else {
                        handed.approvals.pop();
                    }
                }
                Err(refusal) if passes_by_itself(&refusal) => return Err(refusal),
                Err(refusal) => self.note_unverified(&refusal),
            }
        }
        Ok(counted)
    }

    fn note_unverified(&mut self, refusal: &Refusal) {
        self.not_taken_count += 1;
        if self.not_taken_count <= NOT_TAKEN_TOLD_MAX as u64 {
            tracing::error!(by = %self.by.participant, reason = %refusal.reason, why = refusal.message, "what is handed back is nobody's statement");
        }
        let what = format!("what {}'s node handed back as statements and is nobody's", self.by.participant);
        self.shared.losses.not_healed(self.shared, what);
    }

    /// Where this cannot be made durable, the node hands back again.
    async fn list_not_taken(&mut self, statement: &Statement, refusal: &Refusal) -> Result<(), Refusal> {
        let Statement { participant, officer, number, .. } = statement;
        self.not_taken_count += 1;
        if self.not_taken_count <= NOT_TAKEN_TOLD_MAX as u64 {
            tracing::error!(%participant, %officer, number, reason = %refusal.reason, why = refusal.message, "a statement was handed back and cannot be taken");
        }
        let lost = Lost::Statement { officer: officer.clone(), number: *number };
        let found = NotHealed { participant: participant.clone(), lost: vec![(lost, refusal.reason)] };
        self.shared.sequencer.decide_by(self.by, Proposal::ListLost(found)).await.map(drop)
    }

    fn tell_not_taken(&mut self, statement: &Statement, refusal: &Refusal) {
        if self.answer.not_taken.len() < NOT_TAKEN_TOLD_MAX {
            self.answer.not_taken.push(pb::NotTaken {
                participant: statement.participant.to_string(),
                officer: statement.officer.to_string(),
                number: statement.number,
                reason: refusal.reason.code().to_owned(),
            });
        }
    }
}

/// Has a verified statement decided, and does what follows from it, in a task of its own: it happens also where the node that hands it
/// back is gone by then, since what is recorded once is passed over when it comes again.
async fn decide(
    shared: &Arc<Shared>,
    by: &NodeRun,
    handed: Handed,
    signed: SignedStatement,
    approvals: Vec<SignedStatement>,
) -> Result<Answer, Refusal> {
    let consequences = Consequences::of(&handed.statement, &shared.published().ledger);
    let (shared, by) = (Arc::clone(shared), by.clone());
    let (done, settled) = oneshot::channel();
    detach(async move {
        let answer = shared.sequencer.decide_by(&by, Proposal::HandBack(Box::new(handed), signed, approvals)).await;
        concord_faults::point("hub.heal.taken");
        if let Ok(Answer::Waits(_)) = &answer {
            // The hub asks for more signatures than it came with.
            tracing::warn!(
                "a statement of the secretariat's was handed back and waits for signatures: see `concord approval list`"
            );
        } else if answer.is_ok() {
            consequences.follow(&shared).await;
        }
        // Whoever is gone needs no answer.
        let _gone = done.send(answer);
    });
    settled.await.unwrap_or_else(|_| Err(internal("the task that settles what is handed back died")))
}

/// Whether a statement that is handed back counts once this is mended: then it is handed back again, and nobody's word is forgotten.
fn passes_by_itself(refusal: &Refusal) -> bool {
    matches!(refusal.reason, Reason::ClockSuspect | Reason::Healing)
}

/// Whether the certificate of who signed was not taken back. When it was signed nobody can tell who has the key: so of what several have to
/// sign nobody's signature counts who would not be heard now.
fn check_not_taken_back(shared: &Shared, statement: &Statement, signed: &SignedStatement) -> Result<(), Refusal> {
    let chain: Vec<Vec<u8>> = signed.certificates.iter().map(|der: &Bytes| der.to_vec()).collect();
    check_signer(&shared.anchors, &statement.participant, &chain).map_err(|error| match error {
        StatementError::Certificate(CertificateRefusal::ListLapsed { .. }) => {
            let what = format!("a statement of {} is handed back: {error}", statement.participant);
            Refusal::new(Reason::Healing, what)
        }
        error => Refusal::new(Reason::StatementSignatureInvalid, format!("{error}: another officer says it anew")),
    })
}

/// Whether an officer of its participant signed a statement that is handed back.
///
/// Certificates end, what was said with them stands: the chain must hold now, or when the hub recorded the statement as its teller
/// says, or when its officer says that it was made; never later than now. So who holds an ended key of an officer, or one under an
/// anchor that was replaced, and a node that hands back what it signed, can bring in a statement under an old time; all who are told of
/// it see its time and its certificate.
fn verify_handed(
    shared: &Shared,
    statement: &Statement,
    signed: &SignedStatement,
    told_at: Option<Timestamp>,
) -> Result<(), Refusal> {
    let participant = &statement.participant;
    let published = shared.published();
    let wrong = |error: String| Refusal::new(Reason::StatementSignatureInvalid, error);
    let not_valid = |error: &StatementError| match error {
        // By a clock that is behind nobody's word is forgotten: it is handed back again, until the clock is right.
        StatementError::Certificate(CertificateRefusal::NotYetValid { .. }) => {
            Refusal::new(Reason::ClockSuspect, format!("a statement of {participant} is handed back: {error}"))
        }
        error => wrong(error.to_string()),
    };
    let anchors = published.ledger.registry().anchors_for(statement).into_iter().map(Anchor::from_der);
    let anchors = anchors.collect::<Result<Vec<_>, _>>().map_err(|error| wrong(error.to_string()))?;
    if anchors.is_empty() {
        let what = format!("{participant} has no enrolled keys, so nobody speaks for it yet");
        return Err(Refusal::new(Reason::ParticipantNotEnrolled, what));
    }
    let chain: Vec<Vec<u8>> = signed.certificates.iter().map(|der: &Bytes| der.to_vec()).collect();
    let now = shared.clock.shown();
    let moments = [Some(now), told_at.filter(|at| *at <= now), Some(statement.made_at).filter(|at| *at <= now)];
    let mut refusal = None;
    for moment in moments.into_iter().flatten() {
        let officer = verify_statement(participant, &anchors, &chain, &signed.statement, &signed.signature, moment);
        match officer {
            Ok(officer) if officer.name == statement.officer => return check_proofs(statement, signed, moment),
            Ok(officer) => {
                let named = format!("it names the officer {}, its certificate {}", statement.officer, officer.name);
                return Err(wrong(named));
            }
            // The first says how it is now.
            Err(error) => refusal = refusal.or_else(|| Some(not_valid(&error))),
        }
    }
    Err(refusal.unwrap_or_else(|| wrong("no moment to verify it at".to_owned())))
}
