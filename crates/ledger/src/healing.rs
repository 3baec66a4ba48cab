//! Deciding what a hub that lost data is handed back: statements of officers, and where feeds and mailboxes go on.
//!
//! What was decided once stands: a statement that was accepted is not judged again by what holds now, only by whether it can mean
//! anything. Who hands it back vouches for nothing but the order; each statement is its officer's, verified before.

use concord_model::{AgreementId, Lane, ParticipantCode, Reason, Refusal};

use crate::agreement::{PartyState, check_form};
use crate::command::Handed;
use crate::fact::{Fact, FeedResumed, MailboxResumed, StatementDecided};
use crate::ledger::{Decision, Ledger};
use crate::resume::Shown;
use crate::signer::SignerStep;
use crate::statement::{Statement, StatementContent};

impl Ledger {
    pub(crate) fn decide_handed(&self, handed: &Handed) -> Result<Decision, Refusal> {
        let statement = &handed.statement;
        // An enrolment that says what the registry has is known, under whatever number it was made again.
        if let StatementContent::Enrol(request) = &statement.content
            && self.registry().repeats(request)
        {
            return Ok(Decision::Nothing);
        }
        match self.signers().check_handed(self.registry(), statement)? {
            None => return Ok(Decision::Nothing),
            // A node that says that its own statement was refused is not believed where another was told that it was accepted:
            // else one who left could have its leave forgotten.
            Some(SignerStep::Repeat(known)) if known.refused.is_none() || handed.refused.is_some() => {
                return Ok(Decision::Nothing);
            }
            Some(SignerStep::Repeat(_) | SignerStep::Next) => {}
        }
        let meaningless = match handed.refused {
            Some(_) => None,
            None => self.check_handed(statement).err(),
        };
        let told = match (handed.refused, &meaningless) {
            // Its own node knows that it was refused.
            (Some(_), _) => Vec::new(),
            (None, Some(_)) => vec![statement.participant.clone()],
            (None, None) => self.told_of_handed(handed),
        };
        let refused = handed.refused.or(meaningless.as_ref().map(|refusal| refusal.reason));
        let fact = Fact::Statement(StatementDecided {
            statement: statement.clone(),
            refused,
            told: self.feed().tell(&told),
            leave_version: handed.leave_version,
        });
        Ok(Decision::Fact { fact, refusal: meaningless })
    }

    /// Whether a statement that was accepted once can mean anything here.
    fn check_handed(&self, statement: &Statement) -> Result<(), Refusal> {
        let by = &statement.participant;
        let (registry, agreements) = (self.registry(), self.agreements());
        match &statement.content {
            StatementContent::Enrol(request) => registry.check_enrol(by, request),
            StatementContent::Propose { text, digest } => {
                let malformed = |what: String| Err(Refusal::new(Reason::AgreementMalformed, what));
                check_form(text, by)?;
                if text.id.proposer() != *by || text.version == 0 {
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
                Ok(())
            }
            StatementContent::Consent(reference) | StatementContent::Decline(reference) => {
                let named = agreements.version(reference).filter(|named| named.parties.contains_key(by));
                named.map(|_| ()).ok_or_else(|| Refusal::agreement_unknown(&reference.id))
            }
            StatementContent::Leave(id) => {
                let on_one = agreements.versions(id).any(|version| version.parties.contains_key(by));
                if on_one { Ok(()) } else { Err(Refusal::agreement_unknown(id)) }
            }
        }
    }

    /// Those whose directory it changes, except the one who handed it back: it was told before.
    fn told_of_handed(&self, handed: &Handed) -> Vec<ParticipantCode> {
        let statement = &handed.statement;
        let all: Vec<ParticipantCode> = match &statement.content {
            StatementContent::Enrol(_) => self.participants().map(|one| one.code.clone()).collect(),
            StatementContent::Propose { text, .. } => {
                text.parties.iter().map(|party| party.participant.clone()).collect()
            }
            StatementContent::Consent(reference) | StatementContent::Decline(reference) => {
                self.still_on(&reference.id, Some(reference.version))
            }
            StatementContent::Leave(id) => self.still_on(id, handed.leave_version),
        };
        all.into_iter().filter(|code| *code != handed.by).collect()
    }

    fn still_on(&self, id: &AgreementId, version: Option<u32>) -> Vec<ParticipantCode> {
        let named =
            self.agreements().versions(id).find(|one| version.is_none_or(|version| one.text.version == version));
        let parties = named.into_iter().flat_map(|agreement| &agreement.parties);
        parties.filter(|(_, record)| record.state != PartyState::Left).map(|(code, _)| code.clone()).collect()
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
        let resume = resumes.decide(shown, common, self.feed().last(participant))?;
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
        let resume = resumes.decide(shown, mailbox.delivered_through, mailbox.last)?;
        let fact = Fact::MailboxResumed(MailboxResumed { recipient: recipient.clone(), lane, resume });
        Ok(Decision::Fact { fact, refusal: None })
    }
}
