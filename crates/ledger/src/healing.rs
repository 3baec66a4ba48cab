//! Deciding what a hub that lost data is handed back: statements of officers, and where feeds and mailboxes go on.
//!
//! What was decided once stands: a statement that was accepted is not judged again by what holds now, only by whether it can mean
//! anything. Each is its officer's, verified before, and says itself what it is about.
//!
//! Invariant: nobody's own node alone brings in what this hub would have refused. That a statement was accepted, another participant
//! that was told of it vouches for; where only its own node says so, it must not take the place of anything that stands.

use concord_model::{AgreementText, Digest, Lane, ParticipantCode, Reason, Refusal, Timestamp};

use crate::agreement::{Agreement, AgreementState, check_amendment, check_form};
use crate::approval::{needs_others, that_count};
use crate::command::{At, Handed};
use crate::contact::check_handed_contact;
use crate::decision::check_handed_decision;
use crate::fact::{Fact, FeedResumed, MailboxResumed, StatementDecided};
use crate::feed::told_of;
use crate::hold::check_hold;
use crate::ledger::{Decision, Ledger};
use crate::loss::Lost;
use crate::resume::Shown;
use crate::role::check_handed_role;
use crate::signer::SignerStep;
use crate::statement::{Replacement, StatementContent};

/// How far after the last known version of an agreement one that is handed back may lie.
const VERSIONS_AHEAD_MAX: u32 = 1000;
/// What is told again of one feed. A node that needs more hears `HISTORY_UNKNOWN`: what it shows is no position of this hub's.
const TOLD_AGAIN_MAX: u64 = 1_000_000;
/// What is posted again of one mailbox.
const POSTED_AGAIN_MAX: u64 = 1 << 24;

impl Ledger {
    pub(crate) fn decide_handed(&self, handed: &Handed, at: At) -> Result<Decision, Refusal> {
        let statement = &handed.statement;
        // What brings the keys that the registry has is known, under whatever number it was said again.
        if let StatementContent::Enrol(request) | StatementContent::Replace(Replacement { request, .. }) =
            &statement.content
            && self.registry().repeats(request)
        {
            return Ok(Decision::Nothing);
        }
        // They come beside what they are about, and mean nothing by themselves.
        if matches!(statement.content, StatementContent::Approve(_) | StatementContent::Reject(_)) {
            return Ok(Decision::Nothing);
        }
        if that_count(statement, &handed.approvals).len() != handed.approvals.len() {
            let what =
                "an approval that comes with a statement is of another one, or of an officer who signed it already";
            return Err(Refusal::new(Reason::StatementMalformed, what));
        }
        let needed = self.approvals().needed(&statement.digest).unwrap_or(1);
        let needs = if needs_others(self.registry(), statement) { handed.quorum.get().max(needed) } else { 1 };
        let has_all = 1 + handed.approvals.len() as u64 >= u64::from(needs);
        match self.signers().check_handed(self.registry(), statement)? {
            None => return Ok(Decision::Nothing),
            // It took effect after what this hub knows of it: with all its signatures it does here, too.
            Some(SignerStep::Repeat(_)) if has_all && self.approvals().is_without_effect(&statement.digest) => {}
            // A node that says that its own statement was refused is not believed where another was told that it was accepted:
            // else one who left could have its leave forgotten. Nor is it believed that one was accepted that is known as refused.
            Some(SignerStep::Repeat(known)) if handed.changes_nothing(&known) => return Ok(Decision::Nothing),
            Some(SignerStep::Repeat(_) | SignerStep::Next) => {}
        }
        let meaningless = match handed.refused {
            Some(_) => None,
            None => {
                let may_be = self.check_handed(handed, self.recorded_at(at.now));
                may_be.and_then(|()| self.check_waits(handed, has_all, at)).err()
            }
        };
        let told = match (handed.refused, &meaningless) {
            // Its own node knows that it was refused.
            (Some(_), _) => Vec::new(),
            (None, Some(_)) => vec![statement.participant.clone()],
            // It waits for signatures here, and nobody is told what waits.
            (None, None) if !has_all => Vec::new(),
            (None, None) => self.told_of_handed(handed),
        };
        let refused = handed.refused.or(meaningless.as_ref().map(|refusal| refusal.reason));
        // What its node was told of the end of an epoch stands, also where what was recorded up to there is yet to be handed in again, and
        // where something else is recorded there since: its chain goes on from there, and would lead nowhere else.
        let closes = match refused.is_none() && has_all && statement.closes().is_some() {
            true => handed.closes.or_else(|| self.closed_by(statement)).map(Box::new),
            false => None,
        };
        let takes_effect = refused.is_none() && has_all;
        // Its own node, where that handed it back, has what it missed.
        let is_told = takes_effect && told.contains(&statement.participant);
        let missed = if is_told { self.missed(statement) } else { Vec::new() };
        let begins_with = if takes_effect { self.begins_with(statement) } else { Vec::new() };
        let decided = StatementDecided {
            statement: statement.clone(),
            refused,
            told: Vec::new(),
            closes,
            missed,
            needs,
            approvals: handed.approvals.clone(),
            completes: None,
            begins_with,
        };
        let fact = Fact::Statement(self.tell(decided, told.iter().collect()));
        Ok(Decision::Fact { fact, refusal: meaningless })
    }

    /// Whether what has too few signatures may wait here: else any number of them would. What is refused so is heard again from whoever
    /// else was told of it.
    fn check_waits(&self, handed: &Handed, has_all: bool, at: At) -> Result<(), Refusal> {
        if has_all || self.approvals().get(&handed.statement.digest).is_some() {
            return Ok(());
        }
        self.approvals().check_room_for_handed(self.recorded_at(at.now))
    }

    /// Whether a statement that was accepted once can mean anything here.
    fn check_handed(&self, handed: &Handed, now: Timestamp) -> Result<(), Refusal> {
        let statement = &handed.statement;
        let by = &statement.participant;
        let (registry, agreements) = (self.registry(), self.agreements());
        match &statement.content {
            StatementContent::Enrol(request) => registry.check_enrol(by, request),
            StatementContent::Replace(replacement) => self.epochs().check_replace(registry, by, &replacement.request),
            StatementContent::OpenEpoch(opening) => self.epochs().check_open(registry, by, opening),
            StatementContent::RotateKey(rotation) => self.epochs().check_rotate(registry, by, rotation),
            StatementContent::SucceedAnchor(next) => registry.check_succeed(by, next),
            StatementContent::EndAnchor(anchor) => registry.check_end(by, anchor),
            StatementContent::Hold { participant, .. } => check_hold(registry, by, participant).or_else(|refusal| {
                // One that was lifted and laid again: both stood.
                if refusal.reason == Reason::HoldExists { Ok(()) } else { Err(refusal) }
            }),
            // What it lifts may have yet to come back.
            StatementContent::Release(_) => Ok(()),
            StatementContent::Decided(decision) => check_handed_decision(registry, by, decision),
            StatementContent::Approve(_) | StatementContent::Reject(_) => Ok(()),
            // Settings and decisions that came before it may have yet to come back.
            StatementContent::SetContact(setting) => check_handed_contact(registry, by, setting),
            StatementContent::Role(decision) => check_handed_role(registry, by, decision),
            StatementContent::Propose { text, digest } => {
                let malformed = |what: String| Err(Refusal::new(Reason::AgreementMalformed, what));
                check_form(text, by)?;
                if text.id.proposer() != *by && text.amends.is_none() || text.version == 0 {
                    return malformed(format!("{by} cannot have proposed version {} of {}", text.version, text.id));
                }
                if let Some(measure) = text.measures.iter().find(|code| registry.measure(code).is_none()) {
                    return Err(Refusal::new(Reason::MeasureUnknown, format!("there is no measure {measure}")));
                }
                if let Some(party) = text.parties.iter().find(|one| registry.participant(&one.participant).is_none()) {
                    let unknown = format!("there is no participant {} in the registry", party.participant);
                    return Err(Refusal::new(Reason::ParticipantUnknown, unknown));
                }
                let other = agreements.versions(&text.id).find(|known| known.text.version == text.version);
                if other.is_some_and(|other| other.digest != *digest) {
                    let taken = format!("version {} of {} is known with another text", text.version, text.id);
                    return Err(Refusal::new(Reason::AgreementExists, taken));
                }
                self.check_handed_version(text, by, handed.is_own())
            }
            StatementContent::Consent(reference)
            | StatementContent::Return(reference, _)
            | StatementContent::Decline(reference, _)
            | StatementContent::Leave(reference)
            | StatementContent::End(reference) => {
                let named = agreements.version(reference).filter(|named| named.record(by).is_some());
                let named = named.ok_or_else(|| Refusal::agreement_unknown(&reference.id))?;
                match &statement.content {
                    StatementContent::Return(_, leave) => self.check_handed_return(handed, named, leave, now),
                    StatementContent::Consent(_) if handed.is_own() => self.check_own_consent(by, named, now),
                    _ => Ok(()),
                }
            }
        }
    }

    /// Nobody joins by its own word alone what is over, or in force without its having been asked: what ended goes on by the word of
    /// another who was told that this was accepted.
    fn check_own_consent(&self, by: &ParticipantCode, named: &Agreement, now: Timestamp) -> Result<(), Refusal> {
        let reference = named.reference();
        if named.state == AgreementState::Ended && !named.has_consented(by) {
            return Err(Refusal::new(Reason::AgreementNotPending, format!("{} is over", reference.id)));
        }
        let joins_late = named.state == AgreementState::InForce && named.waits_for(by);
        if joins_late {
            return self.agreements().check_consent(self.registry(), by, &reference, now);
        }
        named.text.parties.iter().try_for_each(|party| self.registry().check_keys(party))
    }

    /// By its own word alone nobody comes back whom this hub would not let come back. By the word of another, whatever happened since; but
    /// no more often than a hub ever accepted.
    fn check_handed_return(
        &self,
        handed: &Handed,
        named: &Agreement,
        leave: &Digest,
        now: Timestamp,
    ) -> Result<(), Refusal> {
        let by = &handed.statement.participant;
        if handed.is_own() {
            return self.agreements().check_return(self.registry(), by, &named.reference(), leave, now);
        }
        if named.may_return_from(by, leave) {
            return Ok(());
        }
        let what = format!("{by} came back to version {} of {} too often", named.text.version, named.text.id);
        Err(Refusal::new(Reason::AgreementNotInForce, what))
    }

    /// What was recorded, by the word of the node that hands this back, where something else is recorded now: its chain and another
    /// copy's, which this hub took in after it had lost data, were told the same numbers. What such a consignment carried cannot be had.
    pub fn contradicted(&self, handed: &Handed) -> Vec<Lost> {
        let (Some(told), Some(chains)) = (&handed.closes, self.closing(&handed.statement)) else { return Vec::new() };
        let lost = |(lane, number)| Lost::Consignment { lane, epoch: chains.epoch, number };
        self.chains().contradicted(&chains, told).into_iter().map(lost).collect()
    }

    /// A later version takes the place of the one before. On the own node's word it does so by the rules of a new proposal only; one
    /// that another was told of was accepted when the one before had ended, which may still have to be handed back.
    fn check_handed_version(&self, text: &AgreementText, by: &ParticipantCode, is_own: bool) -> Result<(), Refusal> {
        let latest = self.agreements().get(&text.id);
        let last = latest.map_or(0, |latest| latest.text.version);
        if text.version > last.saturating_add(VERSIONS_AHEAD_MAX) {
            let ahead = format!("version {} of {} is too far from the last one known, {last}", text.version, text.id);
            return Err(Refusal::new(Reason::AgreementMalformed, ahead));
        }
        if !is_own {
            return Ok(());
        }
        if let Some(amends) = &text.amends
            && !self.agreements().version(amends).is_some_and(|amended| amended.may_amend(by))
        {
            let stranger = format!("{by} is no member of the version that it amends, or that has not come back yet");
            return Err(Refusal::new(Reason::AgreementNotOwn, stranger));
        }
        if text.version > last {
            let waits = latest.is_some_and(|one| one.state == AgreementState::Proposed);
            if waits {
                let exists = format!("{} waits for consents", text.id);
                return Err(Refusal::new(Reason::AgreementExists, exists));
            }
            check_amendment(self.agreements().in_force(&text.id), text)?;
        }
        text.parties.iter().try_for_each(|party| self.registry().check_keys(party))
    }

    /// Those whose directory it changes, except the one who handed it back and was told before.
    fn told_of_handed(&self, handed: &Handed) -> Vec<ParticipantCode> {
        let all = told_of(self.registry(), self.agreements(), &handed.statement, true);
        all.into_iter().filter(|code| !handed.was_told || **code != handed.by).cloned().collect()
    }

    /// Where a participant's feed goes on for a node that shows this, and that has everything up to `common`.
    pub(crate) fn decide_feed_resume(
        &self,
        participant: &ParticipantCode,
        shown: Shown,
        common: u64,
    ) -> Result<Decision, Refusal> {
        let resumes = self.feed().resumes(participant);
        if resumes.is_some_and(|resumes| resumes.made_for(&shown).is_some()) {
            return Ok(Decision::Nothing);
        }
        let resumes = resumes.cloned().unwrap_or_default();
        let resume = resumes.decide(shown, common, self.feed().last(participant), TOLD_AGAIN_MAX)?;
        let fact = Fact::FeedResumed(FeedResumed { participant: participant.clone(), resume });
        Ok(Decision::Fact { fact, refusal: None })
    }

    /// Where a mailbox goes on for a node that shows this: everything that is not known to be delivered is posted again.
    pub(crate) fn decide_mailbox_resume(
        &self,
        recipient: &ParticipantCode,
        lane: Lane,
        shown: Shown,
    ) -> Result<Decision, Refusal> {
        let mailbox = self.mailbox(recipient, lane);
        let resumes = self.mailboxes().resumes(recipient, lane);
        if let Some(resume) = resumes.and_then(|resumes| resumes.made_for(&shown)) {
            if mailbox.delivered_through <= resume.at {
                return Ok(Decision::Nothing);
            }
            let later = format!("mailbox {lane} of {recipient} was resumed for this position, and went on since");
            return Err(Refusal::new(Reason::HistoryUnknown, later));
        }
        let resumes = resumes.cloned().unwrap_or_default();
        let resume = resumes.decide(shown, mailbox.delivered_through, mailbox.last, POSTED_AGAIN_MAX)?;
        let fact = Fact::MailboxResumed(MailboxResumed { recipient: recipient.clone(), lane, resume });
        Ok(Decision::Fact { fact, refusal: None })
    }
}
