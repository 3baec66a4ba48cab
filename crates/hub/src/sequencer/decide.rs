//! What becomes of one proposal: the ledger decides and takes it in, and the evidence goes with it into the journal's draft.

use concord_journal::{Blob, Draft};
use concord_ledger::{
    At, Candidate, ChainTip, Command, Consign, Decision, Fact, Had, Lost, NotHealed, Quorum, Statement,
    StatementContent, StatementDecided, Stood, Waiting,
};
use concord_model::{ChainKey, Name, Reason, Refusal, Timestamp};
use concord_wire::consignment::{Opened, Sealed, epoch_link};
use concord_wire::header::exchange_id;
use concord_wire::proto::agreement::v1::SignedStatement;
use concord_wire::stored;

use super::commit::{Decided, Due, impossible};
use super::{Answer, Proposal, SequencerTask};

impl SequencerTask {
    /// What becomes of a proposal at this place; the ledger has applied it then.
    pub(super) fn decide(&mut self, proposal: Proposal, at: At) -> Result<Decided, Refusal> {
        match proposal {
            Proposal::HandBack(mut handed, signed, approvals) => {
                handed.quorum = self.quorum;
                let contradicted = self.ledger.contradicted(&handed);
                let decision = self.ledger.decide(&Command::HandBack(*handed), at)?;
                if decision == Decision::Nothing {
                    return Ok(Decided::Known(Due::Answer(Ok(Answer::Stands))));
                }
                let waits = matches!(&decision, Decision::Fact { fact: Fact::Statement(fact), .. } if fact.waits());
                let accepted = if waits { Answer::Waits(self.quorum.get()) } else { Answer::Accepted };
                let decided = self.settle(decision, at, accepted, |fact, now| match fact {
                    Fact::Statement(fact) => Some(stored::hub::statement(fact, signed, approvals, now)),
                    _ => None,
                })?;
                self.list_handed(decided, contradicted, at)
            }
            Proposal::ResumeFeed { participant, shown, common } => {
                let decision = self.ledger.decide(&Command::ResumeFeed { participant, shown, common }, at)?;
                self.settle(decision, at, Answer::Stands, |fact, now| match fact {
                    Fact::FeedResumed(fact) => Some(stored::hub::feed_resumed(fact, now)),
                    _ => None,
                })
            }
            Proposal::ResumeMailbox { recipient, lane, shown } => {
                let decision = self.ledger.decide(&Command::ResumeMailbox { recipient, lane, shown }, at)?;
                self.settle(decision, at, Answer::Stands, |fact, now| match fact {
                    Fact::MailboxResumed(fact) => Some(stored::hub::mailbox_resumed(fact, now)),
                    _ => None,
                })
            }
            Proposal::SeeNode { participant, journal } => {
                // What another run handed in just before, and is decided, this one has to know.
                journal.check(&self.ledger, &participant)?;
                let line = journal.line;
                let decision = self.ledger.decide(&Command::SeeNode { participant, line }, at)?;
                self.settle(decision, at, Answer::Stands, |fact, now| match fact {
                    Fact::NodeSeen(fact) => Some(stored::hub::node_seen(fact, now)),
                    _ => None,
                })
            }
            Proposal::ListLost(lost) => {
                let decision = self.ledger.decide(&Command::ListLost(lost), at)?;
                self.settle(decision, at, Answer::Stands, not_healed)
            }
            Proposal::Lapse(agreement) => {
                let decision = self.ledger.decide(&Command::Lapse(agreement), at)?;
                self.settle(decision, at, Answer::Stands, |fact, now| match fact {
                    Fact::Lapsed(fact) => Some(stored::hub::lapsed(fact, now)),
                    _ => None,
                })
            }
            Proposal::Pulse(_) | Proposal::BeginHistory { .. } | Proposal::Redact(_) | Proposal::Trim(_) => {
                Err(impossible())
            }
            Proposal::Rehand(opened, stood) => {
                let had = recorded_once(&opened.sealed, &stood);
                let stood = (!concord_faults::planted("judge-again-what-stood")).then_some(stood);
                let decided = self.decide_consignment(*opened, stood, at)?;
                self.list_lost(decided, had, at)
            }
            Proposal::Statement(statement, signed) => self.decide_statement(*statement, signed, at),
            Proposal::Acknowledge(acknowledge, signed) => {
                let hub = self.hub.clone();
                let decision = self.ledger.decide(&Command::Acknowledge(*acknowledge), at)?;
                self.settle(decision, at, Answer::Acknowledged, |fact, now| match fact {
                    Fact::Acknowledged(fact) => Some(stored::hub::acknowledged(fact, signed, &hub, now)),
                    _ => None,
                })
            }
            Proposal::Consign(opened) => self.decide_consignment(*opened, None, at),
        }
    }

    fn decide_statement(&mut self, statement: Statement, signed: SignedStatement, at: At) -> Result<Decided, Refusal> {
        let planted = concord_faults::planted("enrol-before-quorum");
        let quorum = if planted { Quorum::ONE } else { self.quorum };
        let mut decision = self.decide_said(statement.clone(), quorum, at)?;
        if let Decision::Fact { fact: Fact::Statement(decided), .. } = &mut decision
            && matches!(statement.content, StatementContent::SetContact(_))
            && concord_faults::planted("keep-contacts-to-oneself")
        {
            decided.told.retain(|told| told.participant == statement.participant);
        }
        let accepted = match self.missing_after(&statement, &decision) {
            0 => Answer::Accepted,
            missing => Answer::Waits(missing),
        };
        self.settle(decision, at, accepted, |fact, now| match fact {
            Fact::Statement(fact) => Some(stored::hub::statement(fact, signed, Vec::new(), now)),
            _ => None,
        })
    }

    fn decide_said(&self, statement: Statement, quorum: Quorum, at: At) -> Result<Decision, Refusal> {
        if !matches!(statement.content, StatementContent::Approve(_))
            || !concord_faults::planted("count-one-officer-twice")
        {
            return self.ledger.decide(&Command::Statement(statement, quorum), at);
        }
        // As if another officer said it.
        let other = Name::parse("other").map_err(|_| impossible())?;
        let disguised = Statement { officer: other, number: 1, ..statement.clone() };
        let mut decision = self.ledger.decide(&Command::Statement(disguised, quorum), at)?;
        if let Decision::Fact { fact: Fact::Statement(fact), .. } = &mut decision {
            fact.statement = statement;
        }
        Ok(decision)
    }

    /// How many signatures what a statement is about lacks when this is decided; 0 where it takes effect, or took effect before.
    fn missing_after(&self, statement: &Statement, decision: &Decision) -> u32 {
        let about = match &statement.content {
            StatementContent::Approve(approved) => *approved,
            _ => statement.digest,
        };
        let waiting = self.ledger.approvals().get(&about).map_or(0, Waiting::missing);
        match decision {
            Decision::Fact { fact: Fact::Statement(fact), .. } if fact.waits() => fact.needs.saturating_sub(1),
            Decision::Fact { fact: Fact::Statement(fact), .. } if fact.completes.is_some() => 0,
            Decision::Fact { .. } if matches!(statement.content, StatementContent::Approve(_)) => {
                waiting.saturating_sub(1)
            }
            Decision::Fact { .. } => 0,
            Decision::Repeat { .. } | Decision::Nothing => waiting,
        }
    }

    fn decide_consignment(&mut self, opened: Opened, stood: Option<Vec<Stood>>, at: At) -> Result<Decided, Refusal> {
        let Opened { sealed, mut candidates, blobs, targets, withdrawn_before } = opened;
        if concord_faults::planted("forget-the-narrowing") {
            candidates.iter_mut().for_each(|candidate| {
                if let Candidate::Fit(item) = candidate {
                    item.header.narrowing = None;
                }
            });
        }
        let command = Command::Consign(Consign {
            chain: sealed.chain.clone(),
            number: sealed.number,
            previous: sealed.previous,
            begins_after: self.named_tip(&sealed),
            digest: sealed.digest,
            key: sealed.key,
            exchanges: candidates,
            stood,
            targets,
            withdrawn_before,
        });
        let mut decision = self.ledger.decide(&command, at)?;
        if let Decision::Fact { fact: Fact::Consignment(fact), .. } = &mut decision
            && concord_faults::planted("reuse-a-mailbox-number")
        {
            fact.mailboxes.iter_mut().for_each(|run| run.first = (run.first - 1).max(1));
        }
        self.settle_consignment(decision, at, &sealed, blobs)
    }

    /// Lists what was recorded once and is not again, such as one whose body its node has no more, with the fact that shows it.
    fn list_lost(&mut self, mut decided: Decided, had: Vec<Had>, at: At) -> Result<Decided, Refusal> {
        let Decided::New { fact, also, .. } = &mut decided else { return Ok(decided) };
        let Fact::Consignment(recorded) = fact.as_ref() else { return Err(impossible()) };
        let lost = self.ledger.lost_of(recorded, had);
        let found = NotHealed { participant: recorded.chain.origin.clone(), lost };
        *also = self.list(found, at)?;
        Ok(decided)
    }

    /// Lists a statement that was handed back and refused, or what it shows to be lost, with the fact that shows it. What its own hub had
    /// refused before is none.
    fn list_handed(&mut self, mut decided: Decided, contradicted: Vec<Lost>, at: At) -> Result<Decided, Refusal> {
        let Decided::New { fact, also, due: Due::Answer(answer), .. } = &mut decided else { return Ok(decided) };
        let Fact::Statement(StatementDecided { statement, closes, .. }) = fact.as_ref() else {
            return Err(impossible());
        };
        let lost: Vec<(Lost, Reason)> = match answer {
            Err(refusal) => {
                let statement = Lost::Statement { officer: statement.officer.clone(), number: statement.number };
                vec![(statement, refusal.reason)]
            }
            Ok(_) if closes.is_some() => contradicted.into_iter().map(|lost| (lost, Reason::Fork)).collect(),
            Ok(_) => Vec::new(),
        };
        *also = self.list(NotHealed { participant: statement.participant.clone(), lost }, at)?;
        Ok(decided)
    }

    /// The entry behind the one at this place.
    fn list(&mut self, found: NotHealed, at: At) -> Result<Option<Box<(Draft, Fact)>>, Refusal> {
        let at = At { sequence: at.sequence + 1, now: at.now };
        if let Decision::Fact { fact, .. } = self.ledger.decide(&Command::ListLost(found), at)? {
            let draft = not_healed(&fact, at.now).ok_or_else(impossible)?;
            self.ledger.apply(&fact, at);
            return Ok(Some(Box::new((draft, fact))));
        }
        Ok(None)
    }

    /// The tip that the first consignment of a later epoch names, where it is the one of the epoch before.
    fn named_tip(&self, sealed: &Sealed) -> Option<ChainTip> {
        let before = sealed.chain.epoch.checked_sub(1).filter(|_| sealed.number == 1)?;
        let (chain, lane) = (&sealed.chain, sealed.chain.lane);
        let closed = self.ledger.epochs().closed(&chain.origin, before)?.tip(lane);
        let by_now = self.ledger.chains().tips(&ChainKey { epoch: before, ..chain.clone() }).tip(lane);
        [closed, by_now].into_iter().find(|tip| epoch_link(before, tip) == sealed.previous)
    }

    /// Applies what was decided about a statement or an acknowledgement.
    fn settle(
        &mut self,
        decision: Decision,
        at: At,
        accepted: Answer,
        draft: impl FnOnce(&Fact, Timestamp) -> Option<Draft>,
    ) -> Result<Decided, Refusal> {
        match decision {
            Decision::Nothing => Ok(Decided::Known(Due::Answer(Ok(accepted)))),
            Decision::Repeat { refusal, .. } => Ok(Decided::Known(Due::Answer(refusal.map_or(Ok(accepted), Err)))),
            Decision::Fact { fact, refusal } => {
                let draft = draft(&fact, at.now).ok_or_else(impossible)?;
                self.ledger.apply(&fact, at);
                Ok(Decided::New {
                    draft,
                    fact: Box::new(fact),
                    due: Due::Answer(refusal.map_or(Ok(accepted), Err)),
                    also: None,
                })
            }
        }
    }

    fn settle_consignment(
        &mut self,
        decision: Decision,
        at: At,
        sealed: &Sealed,
        blobs: Vec<Vec<Blob>>,
    ) -> Result<Decided, Refusal> {
        match decision {
            Decision::Repeat { sequence, .. } => Ok(Decided::Known(Due::Answer(Ok(Answer::Repeat(sequence))))),
            Decision::Fact { fact, .. } => {
                self.ledger.apply(&fact, at);
                let Fact::Consignment(recorded) = &fact else { return Err(impossible()) };
                let recorded = recorded.clone();
                let draft = stored::hub::consignment(&recorded, sealed, blobs, at.now);
                let due = Due::Receipt { draft: 0, recorded_at: at.now, fact: recorded };
                Ok(Decided::New { draft, fact: Box::new(fact), due, also: None })
            }
            Decision::Nothing => Err(impossible()),
        }
    }
}

/// The exchanges of a consignment that was recorded before.
fn recorded_once(sealed: &Sealed, stood: &[Stood]) -> Vec<Had> {
    let outcomes = (0..).zip(&sealed.headers).zip(stood);
    let recorded = outcomes.filter_map(|((index, header), stood)| match stood {
        Stood::Recorded(audience) => Some(Had { index, id: exchange_id(header), audience: audience.clone() }),
        Stood::Refused(_) => None,
    });
    recorded.collect()
}

fn not_healed(fact: &Fact, now: Timestamp) -> Option<Draft> {
    match fact {
        Fact::NotHealed(fact) => Some(stored::hub::not_healed(fact, now)),
        _ => None,
    }
}
