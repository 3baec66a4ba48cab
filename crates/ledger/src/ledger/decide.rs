//! Deciding: what becomes of a command, given all that was decided before. It changes nothing.

use std::collections::BTreeMap;

use concord_model::{AgreementRef, ChainKey, Lane, ParticipantCode, Reason, Refusal, Timestamp};

use super::{Decision, Ledger};
use crate::agreement::check_content;
use crate::approval::{Quorum, needs_others};
use crate::command::{Acknowledge, At, Command, SenderNotice};
use crate::epoch::ClosedEpoch;
use crate::fact::{
    AgreementLapsed, Completed, Fact, Founding, MailAcknowledged, NodeSeen, NotHealed, OriginNotices, ReceiptNotice,
    StatementDecided, Told,
};
use crate::feed::told_of;
use crate::nodes::NodeLine;
use crate::signer::SignerStep;
use crate::statement::{DecisionContent, ForumDecision, Statement, StatementContent};

impl Ledger {
    /// Decides one command for the place where its fact would stand. A refusal as a whole records nothing.
    pub fn decide(&self, command: &Command, at: At) -> Result<Decision, Refusal> {
        match command {
            Command::Found(founding) => self.decide_founding(founding),
            Command::Statement(statement, quorum) => self.decide_statement(statement, *quorum, at),
            Command::Consign(consign) => self.decide_consignment(consign, at),
            Command::Acknowledge(acknowledge) => self.decide_acknowledgement(acknowledge),
            Command::HandBack(handed) => self.decide_handed(handed, at),
            Command::ResumeFeed { participant, shown, common } => self.decide_feed_resume(participant, *shown, *common),
            Command::SeeNode { participant, line } => self.decide_node(participant, line),
            Command::ListLost(lost) => Ok(self.decide_losses(lost)),
            Command::Lapse(agreement) => Ok(self.decide_lapse(agreement, at)),
            Command::ResumeMailbox { recipient, lane, shown } => self.decide_mailbox_resume(recipient, *lane, *shown),
        }
    }

    fn decide_losses(&self, found: &NotHealed) -> Decision {
        let NotHealed { participant, lost } = found;
        let news = lost.iter().filter(|(lost, _)| self.losses.is_news(participant, lost)).cloned().collect::<Vec<_>>();
        if news.is_empty() {
            return Decision::Nothing;
        }
        let fact = Fact::NotHealed(NotHealed { participant: participant.clone(), lost: news });
        Decision::Fact { fact, refusal: None }
    }

    fn decide_node(&self, participant: &ParticipantCode, line: &NodeLine) -> Result<Decision, Refusal> {
        if !self.nodes.check(participant, line)? {
            return Ok(Decision::Nothing);
        }
        // Whoever passes the check shows a run.
        let Some(run) = line.runs.last().copied() else { return Ok(Decision::Nothing) };
        let seen = NodeSeen { participant: participant.clone(), history: line.history, run };
        Ok(Decision::Fact { fact: Fact::NodeSeen(seen), refusal: None })
    }

    fn decide_founding(&self, founding: &Founding) -> Result<Decision, Refusal> {
        self.registry.check_found(founding)?;
        Ok(Decision::Fact { fact: Fact::Founded(founding.clone()), refusal: None })
    }

    fn decide_lapse(&self, reference: &AgreementRef, at: At) -> Decision {
        let now = self.recorded_at(at.now);
        if !self.agreements.due_to_lapse(now).any(|agreement| agreement.is(reference)) {
            return Decision::Nothing;
        }
        let told = self.feed.tell(self.agreements.concerned([reference]));
        let fact = Fact::Lapsed(AgreementLapsed { agreement: reference.clone(), told });
        Decision::Fact { fact, refusal: None }
    }

    fn decide_statement(&self, statement: &Statement, quorum: Quorum, at: At) -> Result<Decision, Refusal> {
        if let SignerStep::Repeat(last) = self.signers.check(&self.registry, statement)? {
            return Ok(Decision::Repeat {
                sequence: last.sequence,
                refusal: last.refused.map(|reason| refused_before(reason, statement)),
            });
        }
        let by = &statement.participant;
        let now = self.recorded_at(at.now);
        let needs = if needs_others(&self.registry, statement) { quorum.get() } else { 1 };
        let content = &statement.content;
        let allowed = check_content(&self.registry, &self.agreements, &self.epochs, by, content, now)
            .and_then(|()| self.agreements.check_number(content));
        let (effective, refusal) = match allowed.and_then(|()| self.takes_effect(statement, needs, now)) {
            Ok(effective) => (effective, None),
            Err(refusal) => (None, Some(refusal)),
        };
        // What a refused statement said concerns nobody but the state that said it. What waits nobody is told: in a feed it would stand like
        // what has all its signatures, and its officers hear of it where they list what waits.
        let told = match effective {
            None if refusal.is_none() && needs > 1 => Vec::new(),
            None => vec![by],
            Some(effective) => told_of(&self.registry, &self.agreements, effective, false),
        };
        let begins_with = effective.map_or_else(Vec::new, |effective| self.begins_with(effective));
        let missed = effective.map_or_else(Vec::new, |effective| self.missed(effective));
        let decided = StatementDecided {
            statement: statement.clone(),
            refused: refusal.as_ref().map(|refusal| refusal.reason),
            told: Vec::new(),
            closes: effective.and_then(|effective| self.closed_by(effective)).map(Box::new),
            missed,
            needs,
            approvals: Vec::new(),
            completes: self.completed_by(statement).filter(|_| refusal.is_none()),
            begins_with,
        };
        Ok(Decision::Fact { fact: Fact::Statement(self.tell(decided, told)), refusal })
    }

    /// What takes effect by a statement that may be said: itself, or what it was the last signature for. That is judged again now, since
    /// the registry may have changed while it waited.
    fn takes_effect<'a>(
        &'a self,
        statement: &'a Statement,
        needs: u32,
        now: Timestamp,
    ) -> Result<Option<&'a Statement>, Refusal> {
        match &statement.content {
            StatementContent::Reject(rejected) => self.approvals.check_reject(rejected, now).map(|()| None),
            StatementContent::Approve(approved) => {
                let waiting = self.approvals.check_approve(statement, approved, now)?;
                if waiting.missing() > 1 {
                    return Ok(None);
                }
                let Statement { participant, content, .. } = &waiting.statement;
                check_content(&self.registry, &self.agreements, &self.epochs, participant, content, now)?;
                Ok(Some(&waiting.statement))
            }
            _ if needs > 1 => self.approvals.check_room(statement, now).map(|()| None),
            _ => Ok(Some(statement)),
        }
    }

    fn completed_by(&self, statement: &Statement) -> Option<Completed> {
        let StatementContent::Approve(approved) = &statement.content else { return None };
        let waiting = self.approvals.get(approved).filter(|waiting| waiting.missing() <= 1)?;
        let (statement, approvals) = waiting.entries();
        Some(Completed { statement, approvals })
    }

    /// The entries that the feed of a participant begins with that this one adds: what everybody was told.
    pub(crate) fn begins_with(&self, effective: &Statement) -> Vec<u64> {
        match &effective.content {
            StatementContent::Decided(ForumDecision { content: DecisionContent::AddParticipant(added), .. })
                if self.registry.participant(&added.code).is_none() =>
            {
                self.feed.of_all().to_vec()
            }
            _ => Vec::new(),
        }
    }

    /// Where that stands which whoever comes back has to be told of those on the agreement.
    pub(crate) fn missed(&self, statement: &Statement) -> Vec<u64> {
        match &statement.content {
            StatementContent::Return(reference, _) => self.agreements.missed(reference, &statement.participant),
            _ => Vec::new(),
        }
    }

    /// Gives those who are told of a statement their numbers, each behind the entries of before that it is told first. These are told one by
    /// one, since all of it together has no bound.
    pub(crate) fn tell(&self, decided: StatementDecided, participants: Vec<&ParticipantCode>) -> StatementDecided {
        let mut told = self.feed.tell(participants);
        for told in &mut told {
            let earlier = decided.earlier(&told.participant).len() as u64;
            told.number = told.number.saturating_add(earlier);
        }
        StatementDecided { told, ..decided }
    }

    /// Where the chains stand that an accepted statement closes.
    pub(crate) fn closed_by(&self, statement: &Statement) -> Option<ClosedEpoch> {
        self.closing(statement).map(|chains| self.chains.tips(&chains))
    }

    /// The chains that a statement closes the epoch of, by that of lane routine.
    pub(crate) fn closing(&self, statement: &Statement) -> Option<ChainKey> {
        let (origin, node) = statement.closes()?;
        let (origin, node, hub) = (origin.clone(), node.clone(), statement.hub.clone());
        let epoch = self.epochs.current(&origin);
        Some(ChainKey { origin, hub, node, epoch, lane: Lane::Routine })
    }

    fn decide_acknowledgement(&self, acknowledge: &Acknowledge) -> Result<Decision, Refusal> {
        if !self.mailboxes.check(acknowledge)? {
            return Ok(Decision::Nothing);
        }
        Ok(Decision::Fact {
            fact: Fact::Acknowledged(MailAcknowledged {
                recipient: acknowledge.recipient.clone(),
                lane: acknowledge.lane,
                delivered_through: acknowledge.delivered_through,
                taken_count: acknowledge.taken_count,
                told: self.tell_origins(&acknowledge.notices)?,
            }),
            refusal: None,
        })
    }

    fn tell_origins(&self, notices: &[SenderNotice]) -> Result<Vec<OriginNotices>, Refusal> {
        let mut by_origin: BTreeMap<&ParticipantCode, Vec<ReceiptNotice>> = BTreeMap::new();
        for notice in notices {
            let origin = &notice.chain.origin;
            if self.registry.participant(origin).is_none() {
                return Err(Refusal::new(
                    Reason::ParticipantUnknown,
                    format!("a notice is for {origin}, which is not in the registry"),
                ));
            }
            by_origin.entry(origin).or_default().push(ReceiptNotice {
                node: notice.chain.node.clone(),
                epoch: notice.chain.epoch,
                lane: notice.chain.lane,
                number: notice.number,
                items: notice.items.clone(),
                outcome: notice.outcome,
            });
        }
        Ok(by_origin
            .into_iter()
            .map(|(origin, notices)| OriginNotices {
                told: Told { participant: origin.clone(), number: self.feed.last(origin).saturating_add(1) },
                notices,
            })
            .collect())
    }
}

fn refused_before(reason: Reason, statement: &Statement) -> Refusal {
    Refusal::new(
        reason,
        format!(
            "statement {} of {} was refused when it was decided, and uses its number up",
            statement.number, statement.officer
        ),
    )
}
