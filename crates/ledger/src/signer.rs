//! The officers that speak for states: each numbers its statements, so that none is lost, repeated or replaced.
//!
//! A hub that lost data is handed statements back in whatever order its participants' nodes return, so that numbers may be
//! missing below the last one for a while. Each fills its own place; nothing that was said by an officer is decided twice.

use std::collections::BTreeMap;
use std::sync::Arc;

use concord_model::{Digest, Name, ParticipantCode, Reason, Refusal};
use serde::{Deserialize, Serialize};

use crate::fact::StatementDecided;
use crate::registry::Registry;
use crate::statement::Statement;

/// Statements of one officer that are told apart by their digests. One that is handed back with a lower number than all of them
/// counts as known.
pub const STATEMENTS_KEPT_PER_OFFICER: usize = 1024;
/// How far after the last known number a statement that is handed back may lie.
const HANDED_AHEAD_MAX: u64 = 1_000_000;

/// All officers that ever made a statement.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Signers {
    by_participant: BTreeMap<ParticipantCode, Arc<BTreeMap<Name, Arc<Officer>>>>,
}

/// What one officer said last.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Officer {
    /// By number; at most [`STATEMENTS_KEPT_PER_OFFICER`].
    pub kept: BTreeMap<u64, LastStatement>,
    /// Numbers up to here are not kept any more.
    pub dropped_through: u64,
}

/// One statement of one officer, and what became of it.
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
    /// The next one; of those handed back, one that is missing.
    Next,
    /// One of them again: it was decided, and stays so.
    Repeat(LastStatement),
}

impl Signers {
    /// What a statement is to its officer's others, or why it is refused without using its number up.
    pub fn check(&self, registry: &Registry, statement: &Statement) -> Result<SignerStep, Refusal> {
        check_speaker(registry, statement)?;
        if let Some(known) = self.known(statement)? {
            return Ok(SignerStep::Repeat(known));
        }
        let last = self.last(&statement.participant, &statement.officer).map_or(0, |last| last.number);
        let number = statement.number;
        if last.checked_add(1) != Some(number) {
            return Err(Refusal::new(
                Reason::StatementOutOfOrder,
                format!("the last statement of {} is {last}, so the next cannot be {number}", statement.officer),
            ));
        }
        Ok(SignerStep::Next)
    }

    /// The same for one that is handed back: numbers may be missing before it, and it may be one of those. `None` where it is so
    /// old that it counts as known.
    pub(crate) fn check_handed(
        &self,
        registry: &Registry,
        statement: &Statement,
    ) -> Result<Option<SignerStep>, Refusal> {
        check_speaker(registry, statement)?;
        if let Some(known) = self.known(statement)? {
            return Ok(Some(SignerStep::Repeat(known)));
        }
        let officer = self.officer(&statement.participant, &statement.officer);
        let number = statement.number;
        if officer.is_some_and(|officer| number <= officer.dropped_through) {
            return Ok(None);
        }
        if !self.has_place(statement) {
            let last = self.last(&statement.participant, &statement.officer).map_or(0, |last| last.number);
            return Err(Refusal::new(
                Reason::StatementOutOfOrder,
                format!("statement {number} of {} is too far from the last one known, {last}", statement.officer),
            ));
        }
        Ok(Some(SignerStep::Next))
    }

    /// Whether the number of a statement that is handed back lies where one may be missing: behind those that are kept no more, and not so
    /// far ahead that its officer could be silenced by it.
    fn has_place(&self, statement: &Statement) -> bool {
        let officer = self.officer(&statement.participant, &statement.officer);
        let last = self.last(&statement.participant, &statement.officer).map_or(0, |last| last.number);
        let dropped_through = officer.map_or(0, |officer| officer.dropped_through);
        statement.number > dropped_through && statement.number <= last.saturating_add(HANDED_AHEAD_MAX)
    }

    /// The decided statement with this number, if it is the same one. Same number and other content is a fork.
    fn known(&self, statement: &Statement) -> Result<Option<LastStatement>, Refusal> {
        let officer = self.officer(&statement.participant, &statement.officer);
        match officer.and_then(|officer| officer.kept.get(&statement.number)) {
            Some(known) if known.digest == statement.digest => Ok(Some(*known)),
            Some(_) => Err(Refusal::new(
                Reason::StatementFork,
                format!("statement {} of {} was decided with other content", statement.number, statement.officer),
            )),
            None => Ok(None),
        }
    }

    /// Takes in a decided statement; a refused one uses its number up, too.
    pub fn apply(&mut self, decided: &StatementDecided, sequence: u64) {
        let statement = &decided.statement;
        let (number, digest, refused) = (statement.number, statement.digest, decided.refused);
        self.keep(statement, LastStatement { number, digest, refused, sequence });
        for approval in &decided.approvals {
            // An officer who had to begin anew with its numbers, since a hub lost them, may have said something else under this one, or
            // it lies where no number may: its signature holds all the same, and its officer goes on from the numbers that are kept.
            if self.has_place(approval) && matches!(self.known(approval), Ok(None)) {
                let (number, digest) = (approval.number, approval.digest);
                self.keep(approval, LastStatement { number, digest, refused: None, sequence });
            }
        }
    }

    fn keep(&mut self, statement: &Statement, last: LastStatement) {
        let officers = self.by_participant.entry(statement.participant.clone()).or_default();
        let officer = Arc::make_mut(officers).entry(statement.officer.clone()).or_default();
        let officer = Arc::make_mut(officer);
        officer.kept.insert(last.number, last);
        while officer.kept.len() > STATEMENTS_KEPT_PER_OFFICER {
            if let Some((dropped, _)) = officer.kept.pop_first() {
                officer.dropped_through = dropped;
            }
        }
    }

    /// The last statement of an officer.
    pub fn last(&self, participant: &ParticipantCode, officer: &Name) -> Option<LastStatement> {
        self.officer(participant, officer)?.kept.last_key_value().map(|(_, last)| *last)
    }

    /// The statement of an officer with this number, if it is kept.
    pub fn decided(&self, participant: &ParticipantCode, officer: &Name, number: u64) -> Option<LastStatement> {
        self.officer(participant, officer)?.kept.get(&number).copied()
    }

    /// Whether the statement of an officer with this number and digest was decided, and all before it.
    pub fn has_all_up_to(&self, participant: &ParticipantCode, officer: &Name, number: u64, digest: &Digest) -> bool {
        let Some(officer) = self.officer(participant, officer) else { return number == 0 };
        if number <= officer.dropped_through {
            return true;
        }
        let kept = officer.kept.range(..=number).count() as u64;
        officer.dropped_through.saturating_add(kept) == number
            && officer.kept.get(&number).is_some_and(|known| known.digest == *digest)
    }

    /// All officers, by participant and name.
    pub fn iter(&self) -> impl Iterator<Item = (&ParticipantCode, &Name, &Officer)> {
        let all = self.by_participant.iter();
        all.flat_map(|(code, officers)| officers.iter().map(move |(name, officer)| (code, name, officer.as_ref())))
    }

    fn officer(&self, participant: &ParticipantCode, officer: &Name) -> Option<&Officer> {
        self.by_participant.get(participant)?.get(officer).map(Arc::as_ref)
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
    if registry.shown_keys(participant).is_none() {
        return Err(Refusal::new(
            Reason::ParticipantNotEnrolled,
            format!("{participant} has no enrolled keys, so nobody speaks for it yet"),
        ));
    }
    Ok(())
}
