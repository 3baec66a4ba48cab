//! The officers that speak for states: each numbers its statements, so that none is lost, repeated or replaced.

use std::collections::BTreeMap;
use std::sync::Arc;

use concord_model::{Digest, Name, ParticipantCode, Reason, Refusal};
use serde::{Deserialize, Serialize};

use crate::fact::StatementDecided;
use crate::registry::Registry;
use crate::statement::Statement;

/// All officers that ever made a statement.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Signers {
    by_participant: BTreeMap<ParticipantCode, Arc<BTreeMap<Name, LastStatement>>>,
}

/// The last statement of one officer, and what became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastStatement {
    /// Its number.
    pub number: u64,
    /// Its digest.
    pub digest: Digest,
    /// Why it was refused, if it was.
    pub refused: Option<Reason>,
    /// The journal sequence where its fact stands.
    pub sequence: u64,
}

/// What a statement is to its officer's others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SignerStep {
    /// The next one.
    Next,
    /// The last one again: it was decided, and stays so.
    Repeat(LastStatement),
}

impl Signers {
    /// What a statement is to its officer's others, or why it is refused without using its number up.
    pub fn check(&self, registry: &Registry, statement: &Statement) -> Result<SignerStep, Refusal> {
        check_speaker(registry, statement)?;
        let number = statement.number;
        let last = self.last(&statement.participant, &statement.officer);
        match last {
            Some(last) if last.number == number && last.digest == statement.digest => {
                return Ok(SignerStep::Repeat(last));
            }
            Some(last) if last.number == number => {
                return Err(Refusal::new(
                    Reason::StatementFork,
                    format!("statement {number} of {} was decided with other content", statement.officer),
                ));
            }
            _ => {}
        }
        let last = last.map_or(0, |last| last.number);
        if last.checked_add(1) != Some(number) {
            return Err(Refusal::new(
                Reason::StatementOutOfOrder,
                format!("the last statement of {} is {last}, so the next cannot be {number}", statement.officer),
            ));
        }
        Ok(SignerStep::Next)
    }

    /// Takes in a decided statement; a refused one uses its number up, too.
    pub fn apply(&mut self, decided: &StatementDecided, sequence: u64) {
        let statement = &decided.statement;
        let officers = self.by_participant.entry(statement.participant.clone()).or_default();
        Arc::make_mut(officers).insert(
            statement.officer.clone(),
            LastStatement { number: statement.number, digest: statement.digest, refused: decided.refused, sequence },
        );
    }

    /// The last statement of an officer.
    pub fn last(&self, participant: &ParticipantCode, officer: &Name) -> Option<LastStatement> {
        self.by_participant.get(participant)?.get(officer).copied()
    }
}

fn check_speaker(registry: &Registry, statement: &Statement) -> Result<(), Refusal> {
    if registry.hub() != Some(&statement.hub) {
        return Err(Refusal::new(
            Reason::StatementMalformed,
            format!("the statement is for the hub {}, not for this one", statement.hub),
        ));
    }
    let participant = &statement.participant;
    if registry.enrolment(participant).is_none() {
        return Err(Refusal::new(
            Reason::ParticipantNotEnrolled,
            format!("{participant} has no enrolled keys, so nobody speaks for it yet"),
        ));
    }
    Ok(())
}
